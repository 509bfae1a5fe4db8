"""Readings recorded: gapless per asset whoever records them, told after the commit, and refused out of range."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from app.bus import Bus
from app.db import Database
from app.local.valkey import EmbeddedValkey
from app.pricing.oracle_events import (
    ORACLE_STREAM,
    PROMISE_SECONDS_MAX,
    READINGS_MAX,
    OracleEvent,
    OracleEventKind,
    Reading,
    decode_events,
    encode_events,
    events_after,
    record_readings,
)
from tests.factories.market import new_asset

READING, OVERRIDE, REFRESH = OracleEventKind
AT = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
HIGHEST = 10**21


def reading(asset_id: int, value: int | None = 10**12, kind: OracleEventKind = READING) -> Reading:
    return Reading(asset_id=asset_id, kind=kind, value=value, cadence_seconds=300, fresh_seconds=900)


async def record(database: Database, *readings: Reading) -> list[OracleEvent]:
    async with database.transaction() as unit:
        return await record_readings(unit=unit, readings=readings)


async def test_each_asset_has_a_sequence_of_its_own_from_one(database: Database) -> None:
    first, second = await new_asset(database), await new_asset(database)
    async with database.acquire() as connection:
        before = await connection.fetchval("SELECT clock_timestamp()")
    events = await record(database, reading(second), reading(first, 5 * 10**12), reading(second, HIGHEST, OVERRIDE))
    later = await record(database, reading(second, None, REFRESH))

    assert [(event.asset_id, event.seq, event.kind, event.value) for event in events + later] == [
        (second, 1, READING, 10**12),
        (first, 1, READING, 5 * 10**12),
        (second, 2, OVERRIDE, HIGHEST),
        (second, 3, REFRESH, None),
    ]
    assert {(event.cadence_seconds, event.fresh_seconds) for event in events} == {(300, 900)}
    assert before <= events[0].at <= later[0].at
    async with database.acquire() as connection:
        assert await events_after(connection=connection, after={first: 0, second: 1}, limit=1) == {
            first: [events[1]],
            second: [events[2]],
        }
        assert await events_after(connection=connection, after={first: 1}, limit=9) == {}
        assert await events_after(connection=connection, after={}, limit=9) == {}


async def test_several_who_record_at_once_leave_no_gap(database: Database) -> None:
    first, second = await new_asset(database), await new_asset(database)
    pairs = [(first, second), (second, first)] * 8
    recorded = await asyncio.gather(*(record(database, *(reading(asset_id) for asset_id in pair)) for pair in pairs))

    for asset_id in (first, second):
        events = sorted((event.seq, event.at) for events in recorded for event in events if event.asset_id == asset_id)
        assert [seq for seq, _ in events] == list(range(1, 17))
        assert [at for _, at in events] == sorted(at for _, at in events)


async def test_an_event_is_never_dated_before_the_one_before_it(database: Database) -> None:
    asset_id = await new_asset(database)
    ahead = datetime.now(UTC) + timedelta(days=1)
    async with database.acquire() as connection:
        await connection.execute(
            "INSERT INTO oracle_events (asset_id, seq, at, kind, value, cadence_seconds, fresh_seconds)"
            " VALUES ($1, 1, $2, 'READING', 1000000, 1, 1)",
            asset_id,
            ahead,
        )
    (event,) = await record(database, reading(asset_id))
    assert (event.seq, event.at) == (2, ahead)


async def test_what_is_rolled_back_leaves_no_gap_and_is_not_told(database: Database) -> None:
    asset_id = await new_asset(database)
    bus = Bus(None)

    async def record_and_roll_back() -> None:
        async with database.transaction() as unit:
            await record_readings(unit=unit, readings=[reading(asset_id)], bus=bus)
            raise LookupError("changed my mind")

    with pytest.raises(LookupError, match="changed my mind"):
        await record_and_roll_back()
    assert bus.dropped == 0
    (event,) = await record(database, reading(asset_id))
    assert event.seq == 1


@pytest.fixture
async def redis(valkey: EmbeddedValkey) -> AsyncIterator[Redis]:
    client: Redis = Redis.from_url(valkey.url)
    await client.flushall()
    yield client
    await client.aclose()


async def test_events_are_told_once_they_are_committed(database: Database, redis: Redis) -> None:
    asset_id = await new_asset(database)
    bus = Bus(redis)
    bus.start()
    async with database.transaction() as unit:
        events = await record_readings(unit=unit, readings=[reading(asset_id), reading(asset_id)], bus=bus)
        assert bus.waiting == 0
    await bus.stop()
    ((_, fields),) = await redis.xrange(ORACLE_STREAM)
    assert decode_events(fields[b"events"]) == events


def test_a_stream_entry_says_exactly_what_was_recorded() -> None:
    events = [
        OracleEvent(1, 2, AT, READING, HIGHEST, 1, PROMISE_SECONDS_MAX),
        OracleEvent(2**47, 2**53, AT, REFRESH, None, 300, 900),
    ]
    assert decode_events(encode_events(events)) == events
    assert decode_events(encode_events([])) == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}x",
        b"[1]",
        b"[[1,2]]",
        b'[[1,2,3,"NEWS",null,1,1]]',
        b'{"a":1}',
        b'[[1,1,9223372036854775807,"READING","5",1,1]]',
    ],
)
def test_an_entry_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode_events(data)


@pytest.mark.parametrize(
    ("kind", "value", "cadence", "fresh", "told"),
    [
        (READING, None, 1, 1, "a REFRESH has no value, everything else has one; got READING with None"),
        (REFRESH, 10**12, 1, 1, "got REFRESH with 1000000000000"),
        (READING, 10**6 - 1, 1, 1, "the value of a reading is 1000000 to 1000000000000000000000 .* got 999999"),
        (OVERRIDE, HIGHEST + 1, 1, 1, "got 1000000000000000000001"),
        (READING, 10**12, 0, 1, "cadence_seconds is 1 to 31622400; got 0"),
        (READING, 10**12, 1, 0, "fresh_seconds is 1 to 31622400; got 0"),
        (READING, 10**12, 1, PROMISE_SECONDS_MAX + 1, "fresh_seconds is 1 to 31622400; got 31622401"),
    ],
)
def test_a_reading_out_of_range_is_refused(
    kind: OracleEventKind, value: int | None, cadence: int, fresh: int, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        Reading(asset_id=1, kind=kind, value=value, cadence_seconds=cadence, fresh_seconds=fresh)


async def test_the_ends_of_the_range_are_taken(database: Database) -> None:
    asset_id = await new_asset(database)
    lowest = Reading(asset_id=asset_id, kind=READING, value=10**6, cadence_seconds=1, fresh_seconds=PROMISE_SECONDS_MAX)
    assert [event.value for event in await record(database, lowest, reading(asset_id, HIGHEST))] == [10**6, HIGHEST]


async def test_an_unknown_asset_is_refused_and_nothing_is_recorded(database: Database) -> None:
    asset_id = await new_asset(database)
    with pytest.raises(LookupError, match="no asset has the id 999999999: its reading cannot be recorded"):
        await record(database, reading(asset_id), reading(999_999_999))
    async with database.acquire() as connection:
        assert await events_after(connection=connection, after={asset_id: 0, 999_999_999: 0}, limit=9) == {}


async def test_too_many_at_once_are_refused(database: Database) -> None:
    asset_id = await new_asset(database)
    with pytest.raises(ValueError, match="at most 1000 readings are recorded at once; got 1001"):
        await record(database, *[reading(asset_id)] * (READINGS_MAX + 1))
    assert await record(database) == []
