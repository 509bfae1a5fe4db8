"""Reading reports of oracles, their evidence, and how an asset's oracle stands. Nothing here decides.

Every function runs one statement. Who may see which asset's reports is not known here.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from app.db import Connection
from app.oracle.kinds import Evidence, OracleMethod
from app.oracle.report_rows import ORACLE_HEAD, REPORT_COLUMNS, REPORT_SOURCE, Report, report_from_row

if TYPE_CHECKING:
    import asyncpg

REPORTS_MAX: Final = 1_000
"""That one question may ask for."""
_LIMITS: Final = (20, 100, REPORTS_MAX)
"""How many rows a statement may ask for: a few numbers, so that few statements need to be prepared and planned."""


@dataclass(frozen=True, slots=True)
class OracleStatus:
    """How an asset's oracle stands. `method` is OVERRIDE while an override holds F.

    `stale`: F had no accepted reading for longer than its oracle promised (always so before the first one).
    `last_accepted_at`: when F was last moved, set, or found to stand. `next_due_at` is None when no run is going to be
    due by itself, and may have passed while the run is under way.
    """

    asset_id: int
    method: OracleMethod
    stale: bool
    last_accepted_at: datetime | None
    next_due_at: datetime | None
    cadence_seconds: int


# -------------------------------------------------------------------------------------------------- reports
async def reports_by_id(*, connection: Connection, report_ids: Collection[int]) -> dict[int, Report]:
    """These reports; one that does not exist is missing."""
    rows = await connection.fetch(
        f"SELECT {REPORT_COLUMNS} FROM {REPORT_SOURCE} WHERE l.id = ANY($1::bigint[])", list(report_ids)
    )
    return {row["id"]: report_from_row(row) for row in rows}


async def reports_after(
    *, connection: Connection, after_position: int, asset_ids: Collection[int] | None, limit: int
) -> list[Report]:
    """The first `limit` reports (up to `REPORTS_MAX`) after a position, ascending by position; None: of all assets."""
    among = "" if asset_ids is None else " AND l.asset_id = ANY($2::bigint[])"
    rows = await connection.fetch(
        f"SELECT {REPORT_COLUMNS} FROM {REPORT_SOURCE} WHERE l.position > $1{among}"
        f" ORDER BY l.position LIMIT {_rows(limit)}",
        after_position,
        *([] if asset_ids is None else [list(asset_ids)]),
    )
    return [report_from_row(row) for row in rows[:limit]]


async def latest_reports(*, connection: Connection, asset_ids: Collection[int] | None) -> list[Report]:
    """The newest report of each of these assets (None: of all) that has one, ascending by position."""
    among = "" if asset_ids is None else " WHERE o.asset_id = ANY($1::bigint[])"
    rows = await connection.fetch(
        f"SELECT n.* FROM oracles o CROSS JOIN LATERAL (SELECT {REPORT_COLUMNS} FROM {REPORT_SOURCE}"
        f" WHERE l.asset_id = o.asset_id ORDER BY l.id DESC LIMIT 1) n{among} ORDER BY n.position",
        *([] if asset_ids is None else [list(asset_ids)]),
    )
    return [report_from_row(row) for row in rows]


async def report_head(*, connection: Connection) -> int:
    """The last position that was given to a report; 0 before the first."""
    head: int | None = await connection.fetchval("SELECT position FROM stream_heads WHERE stream = $1", ORACLE_HEAD)
    if head is None:
        raise LookupError(f"stream_heads has no row {ORACLE_HEAD!r}: the database is not migrated")
    return head


async def evidence_of(*, connection: Connection, report_ids: Collection[int]) -> dict[int, list[Evidence]]:
    """The evidence of these reports in its order, without the pages' whole texts; a report without any is missing."""
    rows = await connection.fetch(
        "SELECT log_id, source, url, title, excerpt, content_hash, retrieved_at, value, counts, body_url"
        " FROM oracle_evidence WHERE log_id = ANY($1::bigint[]) ORDER BY log_id, ordinal",
        list(report_ids),
    )
    found: dict[int, list[Evidence]] = {}
    for row in rows:
        found.setdefault(row["log_id"], []).append(_evidence(row))
    return found


# -------------------------------------------------------------------------------------------------- how it stands
async def oracle_statuses(*, connection: Connection, asset_ids: Collection[int]) -> dict[int, OracleStatus]:
    """How the oracles of these assets stand now; an asset without one is missing.

    Staleness is that of the last oracle event, which the engine follows, by the database's time; where events are so
    old that they are gone, what the engine last took.
    """
    rows = await connection.fetch(
        "SELECT o.asset_id, o.method, o.override_id IS NOT NULL"
        " AND (o.held_until IS NULL OR o.held_until > statement_timestamp()) AS is_held,"
        " coalesce(coalesce(e.at, s.reading_at) + make_interval(secs => coalesce(e.fresh_seconds, s.fresh_seconds))"
        " < statement_timestamp(), true) AS stale,"
        " o.last_accepted_at, o.due_at, o.cadence_seconds FROM oracles o LEFT JOIN LATERAL (SELECT at, fresh_seconds"
        " FROM oracle_events WHERE asset_id = o.asset_id ORDER BY seq DESC LIMIT 1) e ON true"
        " LEFT JOIN price_states s ON s.asset_id = o.asset_id"
        " WHERE o.asset_id = ANY($1::bigint[])",
        list(asset_ids),
    )
    return {
        row["asset_id"]: OracleStatus(
            asset_id=row["asset_id"],
            method=OracleMethod.OVERRIDE if row["is_held"] else OracleMethod(row["method"]),
            stale=row["stale"],
            last_accepted_at=row["last_accepted_at"],
            next_due_at=row["due_at"],
            cadence_seconds=row["cadence_seconds"],
        )
        for row in rows
    }


def _evidence(row: "asyncpg.Record") -> Evidence:
    return Evidence(
        source=row["source"],
        url=row["url"],
        title=row["title"],
        excerpt=row["excerpt"],
        content_hash=row["content_hash"],
        retrieved_at=row["retrieved_at"],
        value=row["value"],
        counts=row["counts"],
        body_url=row["body_url"],
    )


def _rows(limit: int) -> int:
    if not 1 <= limit <= REPORTS_MAX:
        raise ValueError(f"limit must be between 1 and {REPORTS_MAX}; got {limit}")
    return next(count for count in _LIMITS if count >= limit)
