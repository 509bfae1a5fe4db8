"""What keeps the tables of prices in shape: partitions ahead of time, and an end to what is older than is kept.

Safe to run from several processes at once, and to leave out: the engine makes the partitions that it needs.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from app.db import Database
from app.pricing.partitions import Partitions, drop_older

DAYS_AHEAD: Final = 2
"""Partitions are made for today and so many days after it."""
PRUNED_MAX: Final = 500
"""Oracle events of one asset that one statement deletes."""
ROUNDS_MAX: Final = 2_000
"""Statements of one run; what is left is the next one's."""


@dataclass(frozen=True, slots=True)
class Maintained:
    """What was done: names of the partitions that are gone, and how many oracle events are."""

    dropped: list[str]
    pruned: int


async def maintain(*, database: Database, retention_days: int) -> Maintained:
    """Make the partitions of the days to come, drop ticks and candles of a second after `retention_days`, and prune
    oracle events of that age which the engine has taken in; each asset's newest stays.

    Takes connections of its own, outside of any transaction.
    """
    async with database.acquire() as connection:
        now = await connection.fetchval("SELECT clock_timestamp()")
    today = now.date()
    await Partitions(database).ensure(today + timedelta(days=ahead) for ahead in range(DAYS_AHEAD + 1))
    dropped = await drop_older(database=database, days=retention_days, now=now)
    return Maintained(dropped, await prune_oracle_events(database=database, retention_days=retention_days))


async def prune_oracle_events(*, database: Database, retention_days: int) -> int:
    """Delete oracle events older than `retention_days` that the engine has taken in, but each asset's newest."""
    pruned = 0
    for _ in range(ROUNDS_MAX):
        async with database.acquire() as connection:
            # The oldest of each asset are found by its sequence, whose times never decrease.
            status = await connection.execute(
                "DELETE FROM oracle_events WHERE id IN (SELECT old.id FROM price_states s CROSS JOIN LATERAL"
                " (SELECT e.id, e.at, e.seq FROM oracle_events e WHERE e.asset_id = s.asset_id"
                " ORDER BY e.seq LIMIT $2) old"
                " WHERE old.at < clock_timestamp() - make_interval(days => $1) AND old.seq <= s.oracle_seq"
                " AND old.seq < (SELECT max(n.seq) FROM oracle_events n WHERE n.asset_id = s.asset_id))",
                retention_days,
                PRUNED_MAX,
            )
        deleted = int(status.split()[-1])
        pruned += deleted
        if not deleted:
            break
    return pruned
