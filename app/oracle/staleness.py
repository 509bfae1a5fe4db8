"""Alerts about assets whose F is stale: raised when the last reading's promise has run out, over with the next one.

All of it is two statements that any number of workers may send at once; nothing here depends on a run.
"""

import asyncio
from typing import Final

import asyncpg
import structlog

from app.db import Database, Unit

KIND: Final = "ORACLE_STALE"
WATCH_SECONDS: Final = 5.0
NEVER_CADENCES: Final = 3
"""An oracle that never had a reading is given so many cadences."""

_log = structlog.get_logger(__name__)

_FRESHNESS: Final = (
    "(SELECT o.asset_id, e.at + make_interval(secs => e.fresh_seconds) AS until,"
    " o.failures, o.last_error, o.configuration IS NULL AS unconfigured,"
    f" o.failures >= {NEVER_CADENCES}"
    f" OR o.due_at < statement_timestamp() - o.cadence_seconds * interval '{NEVER_CADENCES} seconds'"
    " OR l.at < statement_timestamp() - o.cadence_seconds"
    f" * interval '{NEVER_CADENCES} seconds' AS is_late, n.outcome, n.reasons"
    " FROM oracles o"
    " LEFT JOIN LATERAL (SELECT at, fresh_seconds FROM oracle_events WHERE asset_id = o.asset_id"
    " ORDER BY seq DESC LIMIT 1) e ON true"
    " LEFT JOIN LATERAL (SELECT at FROM oracle_logs WHERE asset_id = o.asset_id ORDER BY id LIMIT 1) l ON e.at IS NULL"
    " LEFT JOIN LATERAL (SELECT outcome, reasons FROM oracle_logs WHERE asset_id = o.asset_id"
    " ORDER BY id DESC LIMIT 1) n ON true)"
)
"""SQL: of each oracle until when F is fresh (null: it never had a reading), and what is known of why."""
_STALE: Final = "CASE WHEN f.until IS NULL THEN f.is_late ELSE f.until < statement_timestamp() END"
_DETAIL: Final = (
    "CASE WHEN f.until IS NULL THEN 'no reading was ever accepted'"
    " ELSE 'no accepted reading has kept it fresh since '"
    " || to_char(f.until AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') END"
    " || CASE WHEN f.last_error IS NOT NULL THEN '; ' || f.failures || ' failed runs, the last one: '"
    " || f.last_error"
    " WHEN f.unconfigured THEN '; the override has ended and no oracle is configured'"
    " WHEN f.outcome <> 'ACCEPTED' THEN '; the last report was ' || f.outcome || ' (' || f.reasons || ')'"
    " ELSE '; no run has ended since' END"
)
"""SQL: since when, and the last error."""


async def keep_watching(database: Database) -> None:
    """Watch until cancelled, every `WATCH_SECONDS`: for processes that go on where no oracle's worker is left."""
    while True:
        try:
            async with database.transaction() as unit:
                await watch_staleness(unit=unit)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            _log.warning("oracle.staleness_not_watched", error=repr(error))
        await asyncio.sleep(WATCH_SECONDS)


async def watch_staleness(*, unit: Unit) -> tuple[list[int], list[int]]:
    """Raise an alert for each asset whose F has become stale, and end those of assets that are fresh again: both by id.

    An asset that never had a reading counts as stale after three cadences without one. One alert is open at most of
    each asset, whoever else does the same now.
    """
    raised = await unit.connection.fetch(
        "INSERT INTO alerts (kind, asset_id, detail, raised_at)"
        f" SELECT '{KIND}', f.asset_id, {_DETAIL}, statement_timestamp() FROM {_FRESHNESS} f"
        f" WHERE {_STALE}"
        # Without the look, each of these would take a number from the sequence of ids.
        f" AND NOT EXISTS (SELECT FROM alerts a WHERE a.kind = '{KIND}' AND a.asset_id = f.asset_id"
        " AND a.resolved_at IS NULL) ORDER BY f.asset_id"
        " ON CONFLICT (kind, asset_id) WHERE resolved_at IS NULL DO NOTHING RETURNING asset_id"
    )
    resolved = await unit.connection.fetch(
        "UPDATE alerts a SET resolved_at = statement_timestamp()"
        f" FROM {_FRESHNESS} f WHERE a.kind = '{KIND}' AND a.resolved_at IS NULL AND a.asset_id = f.asset_id"
        " AND f.until >= statement_timestamp() RETURNING a.asset_id"
    )
    return sorted(row["asset_id"] for row in raised), sorted(row["asset_id"] for row in resolved)
