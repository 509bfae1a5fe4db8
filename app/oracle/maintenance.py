"""What keeps the tables of reports in shape: an end to reports of feeds that are older than is kept, and F after a
report kept with it before the price engine's event, where it stands, is pruned.

Safe to run from several processes at once. Reports of searches and overrides are kept for good.
"""

from dataclasses import dataclass
from typing import Final

from app.db import Database

PRUNED_MAX: Final = 500
"""Reports of one asset that one statement deletes."""
COPIED_MAX: Final = 5_000
"""Reports to which one statement copies F."""
ROUNDS_MAX: Final = 2_000
"""Statements of one run, of each kind; what is left is the next one's."""
COPY_HOURS: Final = 24
"""F is copied to reports of this age: the engine took their events long ago, and events are kept for a day at least."""


@dataclass(frozen=True, slots=True)
class Maintained:
    """How many reports of feeds are gone, and to how many others F was copied."""

    pruned: int
    copied: int


async def maintain(*, database: Database, feed_report_days: int) -> Maintained:
    """Do all of it. Takes connections of its own, outside of any transaction."""
    copied = await keep_fundamentals(database=database)
    return Maintained(await prune_feed_reports(database=database, retention_days=feed_report_days), copied)


async def prune_feed_reports(*, database: Database, retention_days: int) -> int:
    """Delete reports of feeds older than `retention_days` with their evidence, but each asset's newest; how many."""
    pruned = 0
    for _ in range(ROUNDS_MAX):
        async with database.acquire() as connection:
            # The oldest of each asset are found by their ids: reports of an asset are given them one after the other.
            deleted: int = await connection.fetchval(
                "WITH old AS (SELECT l.id FROM oracles o CROSS JOIN LATERAL (SELECT id, at FROM oracle_logs"
                " WHERE asset_id = o.asset_id AND method = 'FEED' ORDER BY id LIMIT $2) l"
                " WHERE l.at < clock_timestamp() - make_interval(days => $1)"
                " AND l.id < (SELECT max(n.id) FROM oracle_logs n WHERE n.asset_id = o.asset_id)),"
                " gone AS (DELETE FROM oracle_logs WHERE id IN (SELECT id FROM old) RETURNING id),"
                " bare AS (DELETE FROM oracle_evidence WHERE log_id IN (SELECT id FROM gone))"
                " SELECT count(*) FROM gone",
                retention_days,
                PRUNED_MAX,
            )
        pruned += deleted
        if not deleted:
            break
    return pruned


async def keep_fundamentals(*, database: Database) -> int:
    """Copy F after their events to the reports that outlive these: those of searches and overrides; how many."""
    copied = 0
    for _ in range(ROUNDS_MAX):
        async with database.acquire() as connection:
            status = await connection.execute(
                "UPDATE oracle_logs l SET fundamental_after = c.fundamental_after"
                " FROM (SELECT r.id, e.fundamental_after"
                " FROM oracle_logs r JOIN oracle_events e ON e.asset_id = r.asset_id AND e.seq = r.event_seq"
                " WHERE r.method <> 'FEED' AND r.fundamental_after IS NULL AND e.fundamental_after IS NOT NULL"
                " AND r.at < clock_timestamp() - make_interval(hours => $1) LIMIT $2) c WHERE l.id = c.id",
                COPY_HOURS,
                COPIED_MAX,
            )
        done = int(status.split()[-1])
        copied += done
        if done < COPIED_MAX:
            break
    return copied
