"""Trades reach the stream in order, and whatever happens to Redis reaches nobody who trades."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

import pytest
from redis.asyncio import Redis

from app import bus as bus_module
from app.bus import ENTRY_TRADES_MAX, TRADES_STREAM, Bus
from app.exchange.orders import Side, Trade
from app.local.valkey import EmbeddedValkey

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


@pytest.fixture
async def redis(valkey: EmbeddedValkey) -> AsyncIterator[Redis]:
    client: Redis = Redis.from_url(valkey.url)
    await client.delete(TRADES_STREAM)
    yield client
    await client.delete(TRADES_STREAM)
    await client.aclose()


def trade(seq: int) -> Trade:
    return Trade(
        id=100 + seq,
        asset_id=3,
        seq=seq,
        account_id=5,
        order_id=200 + seq,
        client_order_id="mine",
        side=Side.BUY,
        shares=10**24,
        gross=1_500_000,
        fee=7_500,
        supply_after=10**24 + seq,
        market_after=10**21,
        transfer_id=9,
        at=AT,
    )


async def entries(redis: Redis) -> list[list[dict[str, Any]]]:
    return [json.loads(fields[b"trades"]) for _, fields in await redis.xrange(TRADES_STREAM)]


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for signals nobody
            await asyncio.sleep(0)


async def test_what_is_committed_together_is_told_together_exactly_and_in_order(redis: Redis) -> None:
    bus = Bus(redis)
    bus.start()
    bus.publish_trades([trade(1), trade(2)])
    bus.publish_trades([trade(3)])
    await bus.stop()

    (entry,) = await entries(redis)
    assert [each["seq"] for each in entry] == [1, 2, 3]
    assert entry[0] == {
        "id": 101,
        "assetId": 3,
        "seq": 1,
        "accountId": 5,
        "orderId": 201,
        "clientOrderId": "mine",
        "side": "BUY",
        "shares": "1000000000000000000000000",
        "gross": "1500000",
        "fee": "7500",
        "supplyAfter": "1000000000000000000000001",
        "marketAfter": "1000000000000000000000",
        "at": "2026-01-02T03:04:05.678901Z",
    }


async def test_many_trades_make_several_entries_of_bounded_size(redis: Redis) -> None:
    bus = Bus(redis)
    bus.publish_trades([trade(seq) for seq in range(1, 2 * ENTRY_TRADES_MAX + 2)])
    bus.start()
    await bus.stop()

    told = await entries(redis)
    assert [len(entry) for entry in told] == [ENTRY_TRADES_MAX, ENTRY_TRADES_MAX, 1]
    assert [each["seq"] for entry in told for each in entry] == list(range(1, 2 * ENTRY_TRADES_MAX + 2))


async def test_publishing_never_waits_or_raises_and_a_full_queue_drops_the_oldest(redis: Redis) -> None:
    bus = Bus(redis, queue_trades_max=3)
    bus.publish_trades([trade(seq) for seq in range(1, 6)])

    assert (bus.waiting, bus.dropped) == (3, 2)
    bus.start()
    await bus.stop()
    assert [each["seq"] for entry in await entries(redis) for each in entry] == [3, 4, 5]


async def test_when_redis_comes_back_what_waits_is_told_in_order(redis: Redis) -> None:
    bus = Bus(redis)
    xadd, failures = redis.xadd, 0

    async def flaky(*args: Any, **named: Any) -> Any:
        nonlocal failures
        if failures < 3:
            failures += 1
            raise ConnectionResetError
        return await xadd(*args, **named)

    with patch.object(redis, "xadd", flaky), patch.object(bus_module, "RETRY_S", (0.0,)):
        bus.start()
        bus.publish_trades([trade(1)])
        await until(lambda: failures == 1)
        assert not bus.is_up
        bus.publish_trades([trade(2)])
        await until(lambda: bus.is_up and not bus.waiting)
    await bus.stop()

    assert [each["seq"] for entry in await entries(redis) for each in entry] == [1, 2]
    assert bus.dropped == 0


async def test_while_redis_is_away_the_queue_stays_bounded_and_stopping_takes_no_longer_than_promised() -> None:
    client: Redis = Redis.from_url("redis://127.0.0.1:1")
    bus = Bus(client, queue_trades_max=10)
    bus.start()
    for seq in range(100):
        bus.publish_trades([trade(seq)])
    await until(lambda: not bus.is_up)

    assert bus.waiting <= 10
    with patch.object(bus_module, "STOP_S", 0.05):
        async with asyncio.timeout(1):
            await bus.stop()
    assert bus.dropped == 100


async def test_without_redis_trades_are_dropped_and_counted() -> None:
    bus = Bus(None)
    bus.start()
    bus.publish_trades([trade(1), trade(2)])
    await bus.stop()

    assert (bus.waiting, bus.dropped, bus.is_up) == (0, 2, False)
