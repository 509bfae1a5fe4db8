"""The replays of the demo's series: where each stands, what it is worth, and the clockwork that moves them all.

Every two seconds the positions move on by their speed and what they are worth is recorded as readings of the oracle, in
one transaction. When that stops, values stand still, and when it starts again they go on from where they stood.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final, TypeVar

import asyncpg
import structlog
from tortoise.exceptions import DBConnectionError, OperationalError

from app import clock
from app.bus import Bus
from app.db import Database, Unit
from app.oracle.series import Mapping, load_series
from app.pricing.oracle_events import OracleEvent, OracleEventKind, Reading, record_readings
from app.settings import Settings

ADVANCE_SECONDS: Final = 2.0
STEP_MS_MAX: Final = 3_000
"""What counts of the time between two steps: a slow step counts whole, a stop of days as three seconds."""
CADENCE_SECONDS: Final = 10
FRESH_SECONDS: Final = 30
"""F counts as fresh for so long after a reading; then the market's weight rises to 1 over one cadence."""
RETRY_SECONDS: Final = 1.0
RETRY_SECONDS_MAX: Final = 10.0
_MILLISECOND: Final = timedelta(milliseconds=1)

log = structlog.get_logger(__name__)


def step_ms(*, advanced_at: datetime, at: datetime) -> int:
    """Real milliseconds that count since the position was stored: 0 to `STEP_MS_MAX`."""
    return min(max((at - advanced_at) // _MILLISECOND, 0), STEP_MS_MAX)


async def advance(*, unit: Unit, at: datetime) -> dict[int, int]:
    """Move every replay forward to `at`: what each asset's is worth there, in 10^-12, by the asset's id.

    Several callers at once move them no faster. A replay that nobody moved for longer than `STEP_MS_MAX` goes on from
    where it stood, by a step of that length.
    """
    rows = await unit.connection.fetch(
        'SELECT id, asset_id, series, "column", scale, "offset", speed, position_ms, advanced_at FROM series_replays'
        " ORDER BY id FOR UPDATE"
    )
    moved = [_moved(row, at) for row in rows]
    await unit.connection.execute(
        "UPDATE series_replays r SET position_ms = m.position_ms, advanced_at = m.advanced_at"
        " FROM unnest($1::bigint[], $2::bigint[], $3::timestamptz[]) m (id, position_ms, advanced_at)"
        " WHERE r.id = m.id",
        [row["id"] for row in rows], [position_ms for position_ms, _ in moved], [since for _, since in moved],
    )  # fmt: skip
    return {row["asset_id"]: _worth(row, position_ms) for row, (position_ms, _) in zip(rows, moved, strict=True)}


def _worth(row: asyncpg.Record, position_ms: int) -> int:
    mapping = Mapping.parse(scale=row["scale"], offset=row["offset"])
    return mapping.price(load_series(row["series"], row["column"]).value_at(position_ms))


def _moved(row: asyncpg.Record, at: datetime) -> tuple[int, datetime]:
    """The new position, kept within one period, and the moment it belongs to."""
    counted_ms = step_ms(advanced_at=row["advanced_at"], at=at)
    position_ms = (row["position_ms"] + row["speed"] * counted_ms) % load_series(row["series"], row["column"]).period_ms
    exact: datetime = row["advanced_at"] + counted_ms * _MILLISECOND
    # What is left of a millisecond counts next time; a stop, or a clock that was set back, does not.
    return position_ms, exact if timedelta(0) <= at - exact < _MILLISECOND else at


async def record_values(*, unit: Unit, values: dict[int, int], bus: Bus | None = None) -> list[OracleEvent]:
    """Record the values (10^-12, by asset id) as readings of the oracle.

    An asset that never had one gets its first as an override: F would else take half a minute from P0 to its series.
    """
    rows = await unit.connection.fetch(
        "SELECT a.id FROM unnest($1::bigint[]) a (id)"
        " WHERE NOT EXISTS (SELECT FROM oracle_events e WHERE e.asset_id = a.id)",
        list(values),
    )
    new = {row["id"] for row in rows}
    readings = [
        Reading(
            asset_id=asset_id,
            kind=OracleEventKind.OVERRIDE if asset_id in new else OracleEventKind.READING,
            value=value,
            cadence_seconds=CADENCE_SECONDS,
            fresh_seconds=FRESH_SECONDS,
        )
        for asset_id, value in sorted(values.items())
    ]
    return await record_readings(unit=unit, readings=readings, bus=bus)


async def run_replay(settings: Settings, bus: Bus | None = None) -> None:
    """Move the replays and record what they are worth, every two seconds until cancelled.

    `bus` wakes the price engine, which finds the readings without it too. Outlives restarts of the database.
    """
    database = await _patiently(lambda: Database.open(settings.model_copy(update={"database_pool_max": 2})))
    try:
        while True:
            await _patiently(lambda: _advance_now(database, bus))
            await asyncio.sleep(ADVANCE_SECONDS)
    finally:
        await database.close()


async def _advance_now(database: Database, bus: Bus | None) -> None:
    async with database.transaction() as unit:
        values = await advance(unit=unit, at=clock.now())
        await record_values(unit=unit, values=values, bus=bus)


_Answer = TypeVar("_Answer")


async def _patiently(attempt: Callable[[], Awaitable[_Answer]]) -> _Answer:
    """What `attempt` answers, tried again for as long as the database is away."""
    pause_s = RETRY_SECONDS
    while True:
        try:
            return await attempt()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, DBConnectionError, OperationalError) as error:
            log.warning("replay_waits_for_database", error=str(error), retry_seconds=pause_s)
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, RETRY_SECONDS_MAX)
