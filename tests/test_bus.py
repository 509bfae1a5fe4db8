"""What is told reaches the streams in order, and whatever happens to Redis reaches nobody who trades."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from unittest.mock import AsyncMock, patch

import pytest
from redis.asyncio import Redis

from app import bus as bus_module
from app.bus import (
    CHANGES_STREAM,
    ENTRY_TRADES_MAX,
    TRADES_STREAM,
    TURN_ENTRIES_MAX,
    Bus,
    Changes,
    decode_changes,
    decode_trades,
    encode_changes,
    encode_trades,
)
from app.exchange.orders import Side, Trade
from app.local.valkey import EmbeddedValkey

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
OTHER_STREAM = "megatron:test"
STREAMS = (TRADES_STREAM, CHANGES_STREAM, OTHER_STREAM)


@pytest.fixture
async def redis(valkey: EmbeddedValkey) -> AsyncIterator[Redis]:
    client: Redis = Redis.from_url(valkey.url)
    await client.delete(*STREAMS)
    yield client
    await client.delete(*STREAMS)
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


async def told(redis: Redis, stream: str) -> list[dict[bytes, bytes]]:
    return [fields for _, fields in await redis.xrange(stream)]


async def changes(redis: Redis) -> list[Changes]:
    return [decode_changes(fields[b"changes"]) for fields in await told(redis, CHANGES_STREAM)]


@contextmanager
def failing(redis: Redis, times: int) -> Iterator[list[int]]:
    """The first `times` round trips fail before anything is sent; yields the counts of those that were tried."""
    pipeline = redis.pipeline
    tried: list[int] = []

    def flaky(*, transaction: bool) -> Any:
        made: Any = pipeline(transaction=transaction)
        tried.append(len(tried) + 1)
        if len(tried) <= times:
            made.execute = AsyncMock(side_effect=ConnectionResetError)
        return made

    with patch.object(redis, "pipeline", flaky), patch.object(bus_module, "RETRY_S", (0.0,)):
        yield tried


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
        "transferId": 9,
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
    with failing(redis, times=3) as tried:
        bus.start()
        bus.publish_trades([trade(1)])
        await until(lambda: len(tried) > 1)
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


# ---------------------------------------------------------------------------------------------------- other streams


async def test_an_entry_is_told_as_it_was_given_and_entries_in_their_order(redis: Redis) -> None:
    bus = Bus(redis)
    bus.start()
    for number in range(3 * TURN_ENTRIES_MAX):
        bus.publish(OTHER_STREAM, {"number": b"%d" % number, "raw": b"\x00\xff"})
    await bus.stop()

    assert await told(redis, OTHER_STREAM) == [
        {b"number": b"%d" % number, b"raw": b"\x00\xff"} for number in range(3 * TURN_ENTRIES_MAX)
    ]


async def test_changes_that_wait_together_are_told_in_one_entry_and_everyone_once(redis: Redis) -> None:
    bus = Bus(redis)
    bus.publish_changes(accounts=[3, 1])
    bus.publish_changes(accounts=[1, 2], assets=[7])
    bus.publish_changes(assets={7})
    bus.publish_changes(reports=[7, 8])
    bus.publish_changes(reports=[9, 7])
    assert bus.waiting == 7
    bus.start()
    await until(lambda: not bus.waiting and bus.is_up)
    bus.publish_changes(accounts=[1])
    await bus.stop()

    assert await changes(redis) == [Changes([3, 1, 2], [7], [7, 8, 9]), Changes([1], [])]


async def test_all_that_waits_goes_out_in_one_round_trip(redis: Redis) -> None:
    bus = Bus(redis)
    bus.publish_trades([trade(1)])
    bus.publish_changes(accounts=[5])
    bus.publish_trades([trade(2)])
    bus.publish(OTHER_STREAM, {"a": b"1"})
    with failing(redis, times=0) as tried:
        bus.start()
        await bus.stop()

    assert tried == [1]
    assert [each["seq"] for entry in await entries(redis) for each in entry] == [1, 2]
    assert await changes(redis) == [Changes([5], [])]
    assert await told(redis, OTHER_STREAM) == [{b"a": b"1"}]


async def test_what_could_not_be_told_is_told_before_what_came_meanwhile(redis: Redis) -> None:
    bus = Bus(redis)
    with failing(redis, times=2) as tried:
        bus.start()
        bus.publish(OTHER_STREAM, {"n": b"1"})
        bus.publish_changes(accounts=[1])
        await until(lambda: len(tried) > 1)
        bus.publish(OTHER_STREAM, {"n": b"2"})
        bus.publish_changes(accounts=[2, 1])
        await bus.stop()

    assert [fields[b"n"] for fields in await told(redis, OTHER_STREAM)] == [b"1", b"2"]
    assert [account for each in await changes(redis) for account in each.accounts] == [1, 2]
    assert (bus.waiting, bus.dropped) == (0, 0)


async def test_entries_that_wait_are_bounded_in_number_and_in_bytes(redis: Redis) -> None:
    bus = Bus(redis)
    with patch.object(bus_module, "QUEUE_ENTRIES_MAX", 3), patch.object(bus_module, "QUEUE_BYTES_MAX", 100):
        for number in range(5):
            bus.publish(OTHER_STREAM, {"n": b"%d" % number})
        assert (bus.waiting, bus.dropped) == (3, 2)
        bus.publish(OTHER_STREAM, {"n": b"5" * 90})
        bus.start()
        await bus.stop()

    assert [fields[b"n"] for fields in await told(redis, OTHER_STREAM)] == [b"3", b"4", b"5" * 90]
    assert bus.dropped == 3


async def test_changes_that_wait_are_bounded(redis: Redis) -> None:
    bus = Bus(redis)
    with patch.object(bus_module, "QUEUE_CHANGES_MAX", 2):
        bus.publish_changes(accounts=[1, 2, 3], assets=[1, 2], reports=[3, 4, 5])
    bus.start()
    await bus.stop()

    assert await changes(redis) == [Changes([2, 3], [1, 2], [4, 5])]
    assert bus.dropped == 2


async def test_a_stream_does_not_grow_for_ever(redis: Redis) -> None:
    bus = Bus(redis)
    with patch.object(bus_module, "STREAM_ENTRIES_MAX", 100):
        bus.start()
        for number in range(1_000):
            bus.publish(OTHER_STREAM, {"number": b"%d" % number})
        await bus.stop()

    left = [int(fields[b"number"]) for fields in await told(redis, OTHER_STREAM)]
    assert left == list(range(1_000 - len(left), 1_000))
    assert 100 <= len(left) <= 300


def test_trades_come_back_from_their_text_as_they_were() -> None:
    assert decode_trades(encode_trades([trade(1), trade(2)])) == [trade(1), trade(2)]
    assert decode_trades(encode_trades([])) == []


def test_changes_come_back_from_their_text_as_they_were() -> None:
    assert decode_changes(encode_changes(accounts={4: None}, assets=(1, 2))) == Changes([4], [1, 2])
    assert decode_changes(encode_changes(reports={9: None, 3: None})) == Changes([], [], [9, 3])
    assert decode_changes(encode_changes()) == Changes([], [])


def test_changes_told_before_there_were_reports_are_understood() -> None:
    assert decode_changes(b'{"accounts": [4], "assets": [1]}') == Changes([4], [1], [])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"7",
        b"null",
        b"[]",
        b"{}",
        b'{"accounts": 1, "assets": []}',
        b'{"accounts": ["1"], "assets": []}',
        b'{"accounts": [], "assets": [], "reports": 1}',
        b'{"accounts": [], "assets": [], "reports": ["1"]}',
    ],
)
def test_what_is_no_changes_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode_changes(data)


@pytest.mark.parametrize("data", [b"", b"7", b"null", b"[1]", b"[{}]", b'[{"id": 1}]'])
def test_what_is_no_trades_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode_trades(data)
