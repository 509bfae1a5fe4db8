"""A price worker's outside: ticks in the tables that a hub reads, and entries in the streams that it listens to."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from redis.asyncio import Redis

from app.bus import CHANGES_STREAM, encode_changes
from app.db import Connection, Database
from app.exchange.assets import AssetStatus
from app.pricing.candles import CandleRow, Folder, decode_open_candles, encode_open_candles
from app.pricing.partitions import Partitions
from app.pricing.ticks import TICKS_STREAM, Tick, TickCause, encode_ticks
from app.realtime.events import TickMode
from app.realtime.hub import Realtime
from tests.conftest import make_settings
from tests.factories import new_asset
from tests.realtime.sinks import FakeSink, Seen, encode

START = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
SECONDS_MAX = 20.0
_TICK_COLUMNS = (
    'asset_id, seq, "position", cause, trade_seq, at, display, market, fundamental, market_weight, volume, stale'
)


@dataclass
class Writer:
    """Writes ticks as one price worker does. `position` is the last one given."""

    database: Database
    redis: Redis | None = None
    position: int = 0
    seqs: dict[int, int] = field(default_factory=dict)
    open_candles: dict[int, tuple[CandleRow, ...]] = field(default_factory=dict)

    def make(self, *asset_ids: int, at: datetime = START, price: int = 10**12) -> list[Tick]:
        """The next ticks, of these assets in turn."""
        ticks = []
        for asset_id in asset_ids:
            self.position += 1
            seq = self.seqs[asset_id] = self.seqs.get(asset_id, 0) + 1
            ticks.append(
                Tick(
                    asset_id, seq, self.position, TickCause.ORACLE, 0, at, price, price + 1, price, 5 * 10**8, 0, False
                )
            )
        return ticks

    async def store(self, ticks: Sequence[Tick]) -> None:
        """Write ticks in one transaction."""
        await Partitions(self.database).ensure({tick.at.date() for tick in ticks})
        async with self.database.transaction() as unit:
            await self.store_in(unit.connection, ticks)

    async def store_in(self, connection: Connection, ticks: Sequence[Tick]) -> None:
        """Write ticks, their assets' states and the head."""
        for tick in ticks:
            row = (
                tick.asset_id, tick.seq, tick.position, tick.cause.value, tick.trade_seq, tick.at, tick.display,
                tick.market, tick.fundamental, tick.market_weight, tick.volume, tick.stale,
            )  # fmt: skip
            places = ", ".join(f"${number}" for number in range(1, 13))
            await connection.execute(f"INSERT INTO ticks ({_TICK_COLUMNS}) VALUES ({places})", *row)
            await connection.execute(
                f"INSERT INTO price_states ({_TICK_COLUMNS}, recent_volume_at, open_candles)"
                f" VALUES ({places}, $6, $13) ON CONFLICT (asset_id) DO UPDATE SET seq = $2, position = $3, cause = $4,"
                " trade_seq = $5, at = $6, display = $7, market = $8, fundamental = $9, market_weight = $10,"
                " volume = $11, stale = $12, open_candles = $13",
                *row,
                self._fold(tick),
            )
        await connection.execute("UPDATE stream_heads SET position = $1 WHERE stream = 'ticks'", ticks[-1].position)

    def _fold(self, tick: Tick) -> str:
        folder = Folder(tick.asset_id, self.open_candles.get(tick.asset_id, ()))
        folder.add(
            int(tick.at.timestamp()), display=tick.display, market=tick.market, volume=tick.volume,
            trades=tick.cause is TickCause.TRADE,
        )  # fmt: skip
        self.open_candles[tick.asset_id], _ = folder.finish()
        text = encode_open_candles(self.open_candles[tick.asset_id])
        if decode_open_candles(tick.asset_id, text) != self.open_candles[tick.asset_id]:
            raise AssertionError(text)
        return text

    async def tell(self, ticks: Sequence[Tick]) -> None:
        """Publish ticks as one entry."""
        if self.redis is None:
            raise AssertionError("there is no Redis here")
        await self.redis.xadd(TICKS_STREAM, {"ticks": encode_ticks(ticks)})

    async def tell_changes(
        self, *, accounts: Sequence[int] = (), assets: Sequence[int] = (), reports: Sequence[int] = ()
    ) -> None:
        """Publish a wake-up."""
        if self.redis is None:
            raise AssertionError("there is no Redis here")
        changes = encode_changes(accounts=accounts, assets=assets, reports=reports)
        await self.redis.xadd(CHANGES_STREAM, {"changes": changes})

    async def write(self, *asset_ids: int, at: datetime = START, price: int = 10**12) -> list[Tick]:
        """Store the next ticks, and publish them where there is a Redis."""
        ticks = self.make(*asset_ids, at=at, price=price)
        await self.store(ticks)
        if self.redis is not None:
            await self.tell(ticks)
        return ticks


@dataclass
class Market:
    """A database of its own with assets, a writer and a hub."""

    database: Database
    writer: Writer
    hub: Realtime
    assets: list[int]
    draft: int

    async def read_ticks(self, **asked: Any) -> FakeSink:
        """A reader of ticks: of every asset, all of them, unless asked otherwise."""
        sink = asked.pop("sink", None) or FakeSink()
        defaults: dict[str, Any] = {
            "encode": encode,
            "asset_ids": None,
            "sees_drafts": False,
            "mode": TickMode.ALL,
            "throttle_ms": 0,
            "heartbeat_seconds": 60,
            "after": None,
            "snapshot": True,
        }
        sink.reader = await self.hub.price_ticks(sink=sink, **{**defaults, **asked})
        return sink


@asynccontextmanager
async def running_market(url: str, *, redis_url: str | None = None, assets: int = 3) -> AsyncIterator[Market]:
    """A market whose hub runs. Redis is emptied first."""
    database = await Database.open(make_settings(database_url=url))
    redis = hub_redis = None
    if redis_url is not None:
        redis = Redis.from_url(redis_url)
        hub_redis = Redis.from_url(redis_url, socket_timeout=1.0, socket_connect_timeout=1.0)
        await redis.flushall()
    hub = Realtime(database=database, redis=hub_redis)
    try:
        ids = [await new_asset(database) for _ in range(assets)]
        draft = await new_asset(database, status=AssetStatus.DRAFT)
        await hub.start()
        yield Market(database, Writer(database, redis), hub, ids, draft)
    finally:
        await hub.stop()
        for client in (redis, hub_redis):
            if client is not None:
                await client.aclose()
        await database.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for it."""
    async with asyncio.timeout(SECONDS_MAX):
        while not condition():  # noqa: ASYNC110 - what is waited for signals nobody
            await asyncio.sleep(0.005)


async def events_of(sink: FakeSink, count: int) -> list[Seen]:
    """The first `count` events, once they are there."""
    await until(lambda: len(sink.payloads) >= count)
    return sink.events[:count]


def positions(events: Sequence[Seen]) -> list[int]:
    """The positions of the ticks in events."""
    return [item[2] for event in events for item in event.items]


def seconds(count: float) -> timedelta:
    """So many."""
    return timedelta(seconds=count)
