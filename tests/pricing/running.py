"""Price workers inside a test, and what happens to assets while they run."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager

from redis.asyncio import Redis

from app.bus import Bus
from app.db import Connection, Database
from app.pricing.oracle_events import OracleEvent, OracleEventKind, Reading, record_readings
from app.pricing.ticks import Tick
from app.pricing.worker import PriceWorker
from tests.conftest import make_settings
from tests.pricing.wholeness import is_caught_up


@asynccontextmanager
async def open_database(url: str) -> AsyncIterator[Database]:
    """A pool of one's own."""
    database = await Database.open(make_settings(database_url=url, database_pool_max=6))
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def running_worker(
    database_url: str, *, redis_url: str | None = None, label: str = "a test's"
) -> AsyncIterator[PriceWorker]:
    """A price worker that works until the end, on connections of its own."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(database_url))
        redis: Redis | None = None
        if redis_url is not None:
            redis = Redis.from_url(redis_url, socket_timeout=1.0)
            stack.push_async_callback(redis.aclose)
        bus = Bus(redis)
        bus.start()
        stack.push_async_callback(bus.stop)
        worker = PriceWorker(database, redis, bus, label=label)
        run = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            worker.stop()
            await run


async def until(condition: Callable[[], bool | Awaitable[bool]], *, seconds: float = 15.0) -> None:
    """Poll `condition` until it holds; TimeoutError when it does not in time."""
    end = time.monotonic() + seconds
    while True:
        held = condition()
        if held if isinstance(held, bool) else await held:
            return
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s")
        await asyncio.sleep(0.005)


async def until_caught_up(database: Database, *, seconds: float = 15.0) -> None:
    """Wait until everything that is committed has its tick."""

    async def caught_up() -> bool:
        async with database.acquire() as connection:
            return await is_caught_up(connection)

    await until(caught_up, seconds=seconds)


async def record(
    database: Database, asset_id: int, value: int | None, *, kind: OracleEventKind | None = None, bus: Bus | None = None
) -> OracleEvent:
    """Record a reading of `value` (10^-12), or a refresh where it is None."""
    reading = Reading(
        asset_id=asset_id,
        kind=kind or (OracleEventKind.REFRESH if value is None else OracleEventKind.READING),
        value=value,
        cadence_seconds=10,
        fresh_seconds=30,
    )
    async with database.transaction() as unit:
        (event,) = await record_readings(unit=unit, readings=[reading], bus=bus)
    return event


async def owners(connection: Connection) -> dict[int, int | None]:
    """Who owns which asset."""
    return {row["asset_id"]: row["owner_id"] for row in await connection.fetch("SELECT * FROM price_states")}


async def ticks_of(connection: Connection, asset_id: int) -> list[tuple[int, str, int, int]]:
    """(seq, cause, trade seq, volume) of an asset's ticks, by seq."""
    rows = await connection.fetch(
        "SELECT seq, cause, trade_seq, volume FROM ticks WHERE asset_id = $1 ORDER BY seq", asset_id
    )
    return [tuple(row) for row in rows]


def known(ticks: Collection[Tick]) -> list[tuple[int, int, int]]:
    """(position, asset id, seq) of ticks that were told of."""
    return [(tick.position, tick.asset_id, tick.seq) for tick in ticks]
