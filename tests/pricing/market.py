"""A market of one's own for price workers: a database where somebody trades, and a bus that tells of it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from redis.asyncio import Redis

from app.bus import Bus
from app.db import Database
from app.exchange.settlement import Settlement
from app.pricing.ticks import TICKS_STREAM, Tick, decode_ticks
from tests.factories.market import new_account, new_admin, new_asset, place_order
from tests.pricing.running import open_database, owners, ticks_of, until, until_caught_up
from tests.pricing.wholeness import assert_ticks_whole


@dataclass(frozen=True)
class Market:
    """A database of its own where somebody trades and a bus tells of it."""

    url: str
    redis_url: str
    database: Database
    redis: Redis
    bus: Bus
    settlement: Settlement

    async def assets(self, count: int) -> list[int]:
        admin = await new_admin(self.database)
        return [await new_asset(self.database, admin=admin) for _ in range(count)]

    async def trade(self, *asset_ids: int) -> None:
        """Buy for 10 in each, one after the other, by a new account."""
        trader = await new_account(self.database, usdc="1000")
        for asset_id in asset_ids:
            await place_order(self.settlement, trader, asset_id, amount="10")

    async def caught_up(self) -> None:
        await until_caught_up(self.database)

    async def whole(self) -> tuple[int, int, int]:
        """Once everything has its tick: check, and count ticks, those of trades, those of readings."""
        await self.caught_up()
        async with self.database.acquire() as connection:
            found = await assert_ticks_whole(connection)
        return found.ticks, found.trades, found.oracle_events

    async def ticks(self, asset_id: int) -> list[tuple[int, str, int, int]]:
        async with self.database.acquire() as connection:
            return await ticks_of(connection, asset_id)

    async def owners(self) -> dict[int, int | None]:
        async with self.database.acquire() as connection:
            return await owners(connection)

    async def told(self) -> list[list[Tick]]:
        """The entries of the stream of ticks."""
        return [decode_ticks(fields[b"ticks"]) for _, fields in await self.redis.xrange(TICKS_STREAM)]

    async def until_told(self, count: int) -> list[Tick]:
        """So many ticks, once they have been told."""
        ticks: list[Tick] = []

        async def enough() -> bool:
            ticks[:] = [tick for entry in await self.told() for tick in entry]
            return len(ticks) >= count

        await until(enough)
        return ticks


@asynccontextmanager
async def open_market(url: str, redis_url: str) -> AsyncIterator[Market]:
    """The market in the database at `url`."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(url))
        redis: Redis = Redis.from_url(redis_url, socket_timeout=1.0)
        stack.push_async_callback(redis.aclose)
        bus = Bus(redis)
        bus.start()
        stack.push_async_callback(bus.stop)
        settlement = Settlement(database, publish=bus.publish_trades)
        settlement.start()
        stack.push_async_callback(settlement.stop)
        yield Market(url, redis_url, database, redis, bus, settlement)
