"""Ticks mirrored to Ably over its real protocol."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from redis.asyncio import Redis

from app.db import Database
from app.local.valkey import EmbeddedValkey
from app.mirror.ably import AblyMirror
from app.pricing.ticks import TICKS_STREAM, Tick, TickCause, encode_ticks
from app.tasks import end
from tests.factories import new_asset
from tests.oracle.services import KEY, Ably, serving
from tests.pricing.running import until

AT = datetime(2025, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC)


def tick(asset_id: int, seq: int) -> Tick:
    display, market, fundamental = 1_500_000_000_000, 2 * 10**12, 10**12
    return Tick(
        asset_id, seq, seq, TickCause.TRADE, seq, AT, display, market, fundamental, 500_000_000, 1_250_000, False
    )


@asynccontextmanager
async def mirroring(
    database: Database, valkey: EmbeddedValkey, ably: Ably, *, key: str = KEY
) -> AsyncIterator[tuple[AblyMirror, Redis]]:
    async with serving(ably.routes()) as url:
        redis: Redis = Redis.from_url(valkey.url, socket_timeout=30.0)
        mirror = AblyMirror(database, redis, url=url, key=key)
        run = asyncio.create_task(mirror.run())
        try:
            yield mirror, redis
        finally:
            await end([run])
            await redis.aclose()


async def symbol_of(database: Database, asset_id: int, *, status: str | None = None) -> str:
    async with database.acquire() as connection:
        if status is not None:
            await connection.execute("UPDATE assets SET status = $2 WHERE id = $1", asset_id, status)
        symbol: str = await connection.fetchval("SELECT symbol FROM assets WHERE id = $1", asset_id)
    return symbol


async def test_ticks_arrive_once_as_the_api_shows_them_and_drafts_do_not(
    database: Database, valkey: EmbeddedValkey
) -> None:
    ably, shown, draft = Ably(), await new_asset(database), await new_asset(database)
    symbol = await symbol_of(database, shown)
    await symbol_of(database, draft, status="DRAFT")
    async with mirroring(database, valkey, ably) as (mirror, redis):

        async def arrived() -> bool:
            # A repetition, such as another worker's mirror makes.
            await redis.xadd(TICKS_STREAM, {"ticks": encode_ticks([tick(shown, 1), tick(draft, 1)])})
            return ably.arrived.is_set()

        await until(arrived)
        await redis.xadd(TICKS_STREAM, {"ticks": encode_ticks([tick(shown, 2)])})
        await until(lambda: len(ably.messages.get(f"megatron:{symbol}", ())) == 2)
        assert mirror.published >= 2
        assert mirror.left_out >= 1
    assert list(ably.messages) == [f"megatron:{symbol}"]
    assert ably.messages[f"megatron:{symbol}"][0] == {
        "id": f"{shown}:1",
        "name": "tick",
        "data": {
            "seq": 1,
            "cause": "TRADE",
            "tradeSeq": 1,
            "at": "2025-01-02T03:04:05.600000Z",
            "display": "1.5",
            "market": "2",
            "fundamental": "1",
            "marketWeight": "0.5",
            "volume": "1.25",
            "fundamentalStale": False,
        },
    }


async def test_what_ably_refuses_is_left_out_and_the_next_is_mirrored(
    database: Database, valkey: EmbeddedValkey
) -> None:
    ably, asset_id = Ably(status=500), await new_asset(database)
    symbol = await symbol_of(database, asset_id)
    async with mirroring(database, valkey, ably) as (mirror, redis):
        await mirror.publish([tick(asset_id, 1)])
        assert (mirror.published, mirror.left_out) == (0, 1)
        ably.status = 201
        await redis.xadd(TICKS_STREAM, {"ticks": b"no ticks"})
        await mirror.publish([tick(asset_id, 2)])
        assert [message["id"] for message in ably.messages[f"megatron:{symbol}"]] == [f"{asset_id}:2"]
    async with mirroring(database, valkey, Ably(), key="other:key") as (mirror, _):
        await mirror.publish([tick(asset_id, 3)])
        assert (mirror.published, mirror.left_out) == (0, 1)
