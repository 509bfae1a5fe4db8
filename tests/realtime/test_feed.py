"""Ticks reach readers in order and once, whatever Redis does; and readers come back to where they were."""

import asyncio
from typing import Any
from unittest.mock import patch

import pytest

from app.errors import ErrorCode, Refused
from app.exchange.assets import AssetStatus
from app.local.valkey import EmbeddedValkey, ephemeral_valkey
from app.pricing.partitions import Partitions
from app.realtime.events import EventKind, TickMode
from app.realtime.hub import Realtime
from tests.factories import new_asset, set_status
from tests.realtime.market import events_of, positions, running_market, until
from tests.realtime.sinks import Encoder, FakeSink

SNAPSHOT, UPDATE, GAP, HEARTBEAT = EventKind.SNAPSHOT, EventKind.UPDATE, EventKind.GAP, EventKind.HEARTBEAT


async def test_a_reader_begins_with_the_newest_tick_of_each_asset_and_goes_on_with_every_tick(
    fresh_database_url: str, valkey: EmbeddedValkey
) -> None:
    async with running_market(fresh_database_url, redis_url=valkey.url) as market:
        first, second, third = market.assets
        await market.writer.write(first, second, first)
        await until(lambda: market.hub.position == 3)
        sink = await market.read_ticks()
        assert [(e.kind, e.items, e.cursor) for e in sink.events] == [(SNAPSHOT, [[first, 2, 3], [second, 1, 2]], "p3")]

        await market.writer.write(third, first)
        await market.writer.write(second)
        await until(lambda: market.hub.position == 6)
        assert [(e.kind, e.items, e.cursor) for e in sink.events[1:]] == [
            (UPDATE, [[third, 1, 4], [first, 3, 5]], "p5"),
            (UPDATE, [[second, 2, 6]], "p6"),
        ]


async def test_entries_out_of_order_twice_or_missing_reach_readers_once_and_in_order(
    fresh_database_url: str, valkey: EmbeddedValkey
) -> None:
    async with running_market(fresh_database_url, redis_url=valkey.url) as market:
        writer, asset = market.writer, market.assets[0]
        await until(lambda: market.hub.redis_is_up)
        sink = await market.read_ticks(snapshot=False)
        batches = [writer.make(asset), writer.make(asset, asset), writer.make(asset), writer.make(asset, asset)]
        for batch in batches:
            await writer.store(batch)
        for batch in (batches[0], batches[0], batches[2], batches[3], batches[2]):
            await writer.tell(batch)
        await until(lambda: market.hub.position == 6)
        assert positions(sink.events) == [1, 2, 3, 4, 5, 6]


async def test_without_redis_postgresql_alone_feeds(fresh_database_url: str) -> None:
    async with running_market(fresh_database_url) as market:
        sink = await market.read_ticks(snapshot=False)
        await market.writer.write(*market.assets)
        await until(lambda: market.hub.position == 3)
        assert positions(sink.events) == [1, 2, 3]


async def test_redis_may_be_emptied_stopped_and_started_empty_at_any_moment(fresh_database_url: str) -> None:
    with ephemeral_valkey() as server:
        async with running_market(fresh_database_url, redis_url=server.url) as market:
            sink = await market.read_ticks(snapshot=False)
            redis = market.writer.redis
            assert redis is not None
            for _ in range(10):
                await market.writer.write(*market.assets)
                await redis.flushall()
            await until(lambda: market.hub.position == 30)

            await asyncio.to_thread(server.stop)
            market.writer.redis = None
            await market.writer.write(*market.assets)
            await until(lambda: market.hub.position == 33)
            assert not market.hub.redis_is_up

            await asyncio.to_thread(server.start)
            await until(lambda: market.hub.redis_is_up)
            market.writer.redis = redis
            await market.writer.write(*market.assets)
            await until(lambda: market.hub.position == 36)
            assert positions(sink.events) == list(range(1, 37))


async def test_a_hub_fed_by_redis_alone_goes_on_beyond_what_postgresql_has(
    fresh_database_url: str, valkey: EmbeddedValkey
) -> None:
    async with running_market(fresh_database_url, redis_url=valkey.url) as market:
        writer, asset = market.writer, market.assets[0]
        await until(lambda: market.hub.redis_is_up)
        sink = await market.read_ticks()
        await writer.tell(writer.make(asset, asset))
        await until(lambda: market.hub.position == 2)
        writer.position += 5
        await writer.tell(writer.make(asset))
        await until(lambda: market.hub.position == 8)
        assert [(e.kind, e.items, e.cursor) for e in sink.events] == [
            (SNAPSHOT, [], "p0"),
            (UPDATE, [[asset, 1, 1], [asset, 2, 2]], "p2"),
            (GAP, [], "p7"),
            (SNAPSHOT, [[asset, 2, 2]], "p7"),
            (UPDATE, [[asset, 3, 8]], "p8"),
        ]


async def test_while_postgresql_is_away_streams_go_on_as_redis_carries_them(
    fresh_database_url: str, valkey: EmbeddedValkey
) -> None:
    async with running_market(fresh_database_url, redis_url=valkey.url) as market:
        writer, asset = market.writer, market.assets[0]
        await until(lambda: market.hub.redis_is_up)
        sink = await market.read_ticks(snapshot=False)
        database = market.hub._shared.database

        def away() -> Any:
            raise ConnectionRefusedError("no database here")

        with patch.object(database, "acquire", away):
            await until(lambda: not market.hub._feed.database_is_up)
            await writer.tell(writer.make(asset))
            await until(lambda: market.hub.position == 1)
            late = writer.make(asset)
            await writer.tell(writer.make(asset))
            assert positions(sink.events) == [1]
        await writer.store(writer.make(asset))  # Its transaction moves the head.
        async with market.database.transaction() as unit:
            await writer.store_in(unit.connection, late)
            await unit.connection.execute("UPDATE stream_heads SET position = 2")
        await until(lambda: market.hub.position >= 3)
        assert positions(sink.events)[:3] == [1, 2, 3]


async def test_what_two_writers_commit_out_of_order_is_read_in_the_order_of_positions(fresh_database_url: str) -> None:
    """Whoever takes a position holds the head's row: the later one waits, so nothing comes before what it follows."""
    async with running_market(fresh_database_url) as market:
        sink = await market.read_ticks(snapshot=False)
        first, second, _ = market.assets
        early, late = market.writer.make(first), market.writer.make(second)
        await Partitions(market.database).ensure({early[0].at.date()})
        async with market.database.transaction() as slow:
            await market.writer.store_in(slow.connection, early)
            fast = asyncio.create_task(market.writer.store(late))
            await asyncio.sleep(0)
        await fast
        await until(lambda: market.hub.position == 2)
        assert positions(sink.events) == [1, 2]


async def test_a_reader_resumes_from_memory_and_from_postgresql_and_begins_anew_where_neither_reaches(
    fresh_database_url: str,
) -> None:
    async with running_market(fresh_database_url) as market:
        first, second, third = market.assets
        await market.writer.write(first, second, first, third, first)
        await until(lambda: market.hub.position == 5)
        sink = await market.read_ticks(after="p2", asset_ids=frozenset({first, second}))
        assert [(e.kind, e.items, e.cursor) for e in sink.events] == [(UPDATE, [[first, 2, 3], [first, 3, 5]], "p5")]
        assert (market.hub.counts.replays_from_memory, market.hub.counts.replays_from_postgres) == (1, 0)

        market.hub._shared.log.reset(5)  # As a new process that knows no past.
        sink = await market.read_ticks(after="p2", asset_ids=frozenset({first, second}))
        await market.writer.write(second)
        events = await events_of(sink, 2)
        assert [(e.kind, e.items, e.cursor) for e in events] == [
            (UPDATE, [[first, 2, 3], [first, 3, 5]], "p5"),
            (UPDATE, [[second, 2, 6]], "p6"),
        ]
        assert market.hub.counts.replays_from_postgres == 1

        async with market.database.acquire() as connection:
            await connection.execute("DELETE FROM ticks WHERE position <= 3")
        market.hub._shared.log.reset(6)
        for after in ("p2", "p99"):
            sink = await market.read_ticks(after=after, snapshot=False, asset_ids=frozenset({second}))
            events = await events_of(sink, 2)
            assert [(e.kind, e.items, e.cursor) for e in events] == [
                (GAP, [], "p6"),
                (SNAPSHOT, [[second, 2, 6]], "p6"),
            ]
        assert market.hub.counts.gaps == 2


async def test_a_new_process_knows_the_newest_past(fresh_database_url: str) -> None:
    async with running_market(fresh_database_url) as market:
        await market.writer.write(*market.assets)
        await market.writer.write(*market.assets)
        other = Realtime(database=market.database, redis=None)
        await other.start()
        assert other.position == 6
        sink = FakeSink()
        await _read(other, sink, after="p1")
        assert positions(sink.events) == [2, 3, 4, 5, 6]
        assert other.counts.replays_from_memory == 1
        await other.stop()


async def _read(hub: Realtime, sink: FakeSink, *, after: str | None) -> None:
    await hub.price_ticks(
        sink=sink, encode=Encoder(), asset_ids=None, sees_drafts=False, mode=TickMode.ALL, throttle_ms=0,
        heartbeat_seconds=60, after=after, snapshot=True,
    )  # fmt: skip


async def test_a_process_that_is_hopelessly_behind_tells_its_readers(fresh_database_url: str) -> None:
    async with running_market(fresh_database_url) as market:
        asset = market.assets[0]
        sink = await market.read_ticks(snapshot=False)
        with patch("app.realtime.feed._CATCH_UP_MAX", 2):
            await market.writer.write(asset, asset, asset)
            await until(lambda: market.hub.position == 3)
        await market.writer.write(asset)
        await until(lambda: market.hub.position == 4)
        assert [(e.kind, e.items, e.cursor) for e in sink.events] == [
            (GAP, [], "p3"),
            (SNAPSHOT, [[asset, 3, 3]], "p3"),
            (UPDATE, [[asset, 4, 4]], "p4"),
        ]


async def test_ticks_of_drafts_reach_nobody_but_who_may_see_them(
    fresh_database_url: str, valkey: EmbeddedValkey
) -> None:
    async with running_market(fresh_database_url, redis_url=valkey.url) as market:
        asset, draft = market.assets[0], market.draft
        public, admin = await market.read_ticks(), await market.read_ticks(sees_drafts=True)
        unheard_of = await new_asset(market.database, status=AssetStatus.DRAFT)
        await market.writer.write(draft, asset, unheard_of)
        await until(lambda: market.hub.position == 3)
        assert (positions(public.events), positions(admin.events)) == ([2], [1, 2, 3])
        resumed = await market.read_ticks(after="p0")
        assert positions(resumed.events) == [2]

        await set_status(market.database, draft, AssetStatus.OPEN)
        await until(lambda: market.hub._shared.visibility.shows(draft, sees_drafts=False))
        await market.writer.write(draft)
        await until(lambda: market.hub.position == 4)
        assert positions(public.events) == [2, 4]


@pytest.mark.parametrize("after", ["", "p", "p-1", "t5", "p12345678901234567", "p1 ", "p٣", "5"])
async def test_what_is_no_cursor_of_the_stream_is_refused_by_name(after: str) -> None:
    hub = Realtime(database=None, redis=None)  # type: ignore[arg-type]
    with pytest.raises(Refused) as refused:
        await _read(hub, FakeSink(), after=after)
    assert refused.value.refusal.code is ErrorCode.INVALID_INPUT
    assert refused.value.refusal.field == ("after",)
    assert hub.readers == 0


async def test_readers_alike_share_one_encoding_also_after_they_have_resumed(fresh_database_url: str) -> None:
    async with running_market(fresh_database_url) as market:
        asset, other, _ = market.assets
        await market.writer.write(asset, other)
        await until(lambda: market.hub.position == 2)
        encoder = Encoder()
        lists = (None, frozenset({asset}), frozenset({asset, other}))
        for asset_ids in lists * 5:
            await market.read_ticks(encode=encoder, asset_ids=asset_ids, after="p2")
        await market.read_ticks(encode=encoder, after="p1")
        assert (encoder.calls, market.hub.groups, market.hub.readers) == (1, 3, 16)
        await market.writer.write(asset)
        await until(lambda: market.hub.position == 3)
        assert encoder.calls == 2


async def test_what_an_asset_does_as_soon_as_it_is_open_is_sent(fresh_database_url: str) -> None:
    async with running_market(fresh_database_url) as market:
        sink = await market.read_ticks(snapshot=False)
        async with market.hub._assets.lock:
            # Nobody looks for changes of assets meanwhile, as between two looks.
            await set_status(market.database, market.draft, AssetStatus.OPEN)
            await market.writer.write(market.draft)
        (event,) = await events_of(sink, 1)
        assert positions([event]) == [1]


async def test_a_heartbeat_has_moved_past_what_was_filtered_out(fresh_database_url: str) -> None:
    async with running_market(fresh_database_url) as market:
        asset, other, _ = market.assets
        sink = await market.read_ticks(asset_ids=frozenset({asset}), heartbeat_seconds=1)
        await market.writer.write(other, other)
        events = await events_of(sink, 2)
        assert (events[1].kind, events[1].items) == (HEARTBEAT, [])
        await until(lambda: sink.events[-1].cursor == "p2")
