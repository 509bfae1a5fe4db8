"""Where each replay stands: the stored position, what it is worth at a moment, and the clockwork that moves it.

A position is stored once a second by the running replay and read ahead by its speed in between, `AHEAD_MS_MAX` at
most: when the replay stops, values stand still, and when it starts again they go on from where they stood.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, TypeVar

import asyncpg
import structlog
from tortoise.exceptions import DBConnectionError, OperationalError

from app import clock
from app.db import Connection, Database, Unit
from app.demo.series import Mapping, load_series
from app.settings import Settings

AHEAD_MS_MAX: Final = 3_000
"""How far values run ahead of the stored position: longer than a slow second, too short to pass for running."""
ADVANCE_SECONDS: Final = 1.0
RETRY_SECONDS_MAX: Final = 10.0
_MILLISECOND: Final = timedelta(milliseconds=1)

log = structlog.get_logger(__name__)


async def current_values(*, connection: Connection, asset_ids: Sequence[int], at: datetime) -> dict[int, int]:
    """F in 10^-12 at `at` of those of the assets that replay a series; the others are missing (their F is P0)."""
    if not asset_ids:
        return {}
    rows = await connection.fetch(
        'SELECT asset_id, series, "column", scale, "offset", speed, position_ms, advanced_at'
        " FROM series_replays WHERE asset_id = ANY($1::bigint[])",
        list(asset_ids),
    )
    return {row["asset_id"]: _value(row, at) for row in rows}


def _value(row: asyncpg.Record, at: datetime) -> int:
    series = load_series(row["series"], row["column"])
    mapping = Mapping.parse(scale=row["scale"], offset=row["offset"])
    position_ms = row["position_ms"] + row["speed"] * ahead_ms(advanced_at=row["advanced_at"], at=at)
    return mapping.price(series.value_at(position_ms))


def ahead_ms(*, advanced_at: datetime, at: datetime) -> int:
    """Real milliseconds that count since the position was stored: 0 to `AHEAD_MS_MAX`."""
    return min(max((at - advanced_at) // _MILLISECOND, 0), AHEAD_MS_MAX)


async def advance(*, unit: Unit, at: datetime) -> int:
    """Move every replay forward to `at`; the number of replays. Several callers at once move them no faster.

    A replay that nobody moved for longer than `AHEAD_MS_MAX` goes on from the value it stood still at.
    """
    rows = await unit.connection.fetch(
        'SELECT id, series, "column", speed, position_ms, advanced_at FROM series_replays ORDER BY id FOR UPDATE'
    )
    moved = [_moved(row, at) for row in rows]
    await unit.connection.execute(
        "UPDATE series_replays r SET position_ms = m.position_ms, advanced_at = m.advanced_at"
        " FROM unnest($1::bigint[], $2::bigint[], $3::timestamptz[]) m (id, position_ms, advanced_at)"
        " WHERE r.id = m.id",
        [row["id"] for row in rows], [position_ms for position_ms, _ in moved], [since for _, since in moved],
    )  # fmt: skip
    return len(rows)


def _moved(row: asyncpg.Record, at: datetime) -> tuple[int, datetime]:
    """The new position, kept within one period, and the moment it belongs to."""
    counted_ms = ahead_ms(advanced_at=row["advanced_at"], at=at)
    position_ms = (row["position_ms"] + row["speed"] * counted_ms) % load_series(row["series"], row["column"]).period_ms
    exact: datetime = row["advanced_at"] + counted_ms * _MILLISECOND
    # What is left of a millisecond counts next time; a stop, or a clock that was set back, does not.
    return position_ms, exact if timedelta(0) <= at - exact < _MILLISECOND else at


async def run_replay(settings: Settings) -> None:
    """Advance the replays once a second until cancelled. Outlives restarts of the database."""
    database = await _patiently(lambda: Database.open(settings.model_copy(update={"database_pool_max": 2})))
    try:
        while True:
            await _patiently(lambda: _advance_now(database))
            await asyncio.sleep(ADVANCE_SECONDS)
    finally:
        await database.close()


async def _advance_now(database: Database) -> None:
    async with database.transaction() as unit:
        await advance(unit=unit, at=clock.now())


_Answer = TypeVar("_Answer")


async def _patiently(attempt: Callable[[], Awaitable[_Answer]]) -> _Answer:
    """What `attempt` answers, tried again for as long as the database is away."""
    pause_s = ADVANCE_SECONDS
    while True:
        try:
            return await attempt()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, DBConnectionError, OperationalError) as error:
            log.warning("replay_waits_for_database", error=str(error), retry_seconds=pause_s)
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, RETRY_SECONDS_MAX)
