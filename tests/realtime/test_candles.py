"""Live candles are the price engine's: a snapshot, then what has changed, and an end when their time is over."""

import asyncio
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import pytest

from app import clock
from app.pricing.intervals import Interval, PriceKind
from app.realtime.candles import Book
from app.realtime.events import EventKind
from tests.realtime.market import Market, events_of, running_market, seconds, until
from tests.realtime.sinks import Encoder, FakeSink, Seen, encode

SNAPSHOT, UPDATE, HEARTBEAT = EventKind.SNAPSHOT, EventKind.UPDATE, EventKind.HEARTBEAT
MINUTE = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
TIME = int(MINUTE.timestamp())


async def read_candles(market: Market, *asset_ids: int, **asked: Any) -> FakeSink:
    """A reader of M1 candles of D, unless asked otherwise."""
    sink = FakeSink()
    defaults: dict[str, Any] = {
        "encode": encode,
        "interval": Interval.M1,
        "price": PriceKind.DISPLAY,
        "sees_drafts": False,
        "heartbeat_seconds": 60,
    }
    sink.reader = await market.hub.candles(sink=sink, asset_ids=frozenset(asset_ids), **{**defaults, **asked})
    return sink


def at(moment: datetime) -> Any:
    """The wall clock stands there."""
    return patch.object(clock, "now", lambda: moment)


def candle(asset_id: int, time: int, *prices: int, closed: bool) -> list[object]:
    """Open, high, low, close; nothing was traded."""
    return [asset_id, time, *prices, 0, 0, closed]


async def test_a_snapshot_of_two_candles_then_what_changes(fresh_database_url: str) -> None:
    async with running_market(fresh_database_url) as market:
        asset, other, _ = market.assets
        writer = market.writer
        with at(MINUTE + seconds(70)):
            await writer.write(asset, at=MINUTE, price=10)
            await writer.write(asset, at=MINUTE + seconds(59.9), price=30)
            await _close_bucket(market, asset)
            await writer.write(asset, other, at=MINUTE + seconds(60), price=20)
            await until(lambda: market.hub.position == 4)
            sink = await read_candles(market, asset, other)
            (first,) = await events_of(sink, 1)
            assert (first.kind, first.cursor, first.items) == (
                SNAPSHOT,
                "",
                [
                    candle(asset, TIME, 10, 30, 10, 30, closed=True),
                    candle(asset, TIME + 60, 20, 20, 20, 20, closed=False),
                    candle(other, TIME + 60, 20, 20, 20, 20, closed=False),
                ],
            )
            await writer.write(asset, asset, other, at=MINUTE + seconds(65), price=5)
            await until(lambda: market.hub.position == 7)
            assert [(event.kind, event.items) for event in sink.events[1:]] == [
                (
                    UPDATE,
                    [
                        candle(asset, TIME, 10, 30, 10, 30, closed=True),
                        candle(asset, TIME + 60, 20, 20, 5, 5, closed=False),
                        candle(other, TIME + 60, 20, 20, 5, 5, closed=False),
                    ],
                )
            ]


async def _close_bucket(market: Market, asset: int) -> None:
    """Write the row that the engine writes when a bucket is over."""
    async with market.database.transaction() as unit:
        await unit.connection.execute(
            "INSERT INTO candles VALUES ($1, 'M1', $2, 10, 30, 10, 30, 11, 31, 11, 31, 0, 0)", asset, TIME
        )


async def test_a_bucket_that_ends_without_a_tick_of_the_next_one_is_closed_at_its_end(fresh_database_url: str) -> None:
    async with running_market(fresh_database_url) as market:
        asset = market.assets[0]
        now = clock.now()
        await market.writer.write(asset, at=now, price=10)
        await until(lambda: market.hub.position == 1)
        with at(now):
            sink = await read_candles(market, asset, interval=Interval.S1)
            await events_of(sink, 1)
        time = int(now.timestamp())
        await until(lambda: len(sink.payloads) >= 2)
        assert [event.items for event in sink.events] == [
            [candle(asset, time, 10, 10, 10, 10, closed=False)],
            [candle(asset, time, 10, 10, 10, 10, closed=True)],
        ]
        await market.writer.write(asset, at=now, price=20)
        await until(lambda: len(sink.payloads) >= 3)
        assert sink.events[2].items == [candle(asset, time, 10, 20, 10, 20, closed=True)]


async def test_ticks_of_many_buckets_at_once_leave_no_candle_out(fresh_database_url: str) -> None:
    async with running_market(fresh_database_url) as market:
        asset, writer = market.assets[0], market.writer
        with at(MINUTE + seconds(200)):
            await writer.write(asset, at=MINUTE, price=10)
            await until(lambda: market.hub.position == 1)
            sink = await read_candles(market, asset)
            await events_of(sink, 1)
            ticks = [replace(writer.make(asset)[0], at=MINUTE + seconds(60 * minute)) for minute in (1, 2, 3)]
            market.hub.append(ticks, {})
            (told,) = sink.events[1:]
            assert [(item[1], item[8]) for item in told.items] == [
                (TIME, True),
                (TIME + 60, True),
                (TIME + 120, True),
                (TIME + 180, False),
            ]
            market.hub.append([replace(writer.make(asset)[0], at=MINUTE + seconds(190))], {})
            assert [item[1] for item in sink.events[2].items] == [TIME + 120, TIME + 180]


async def test_a_slow_reader_is_sent_the_newest_state_of_what_has_changed(fresh_database_url: str) -> None:
    async with running_market(fresh_database_url) as market:
        asset, other, _ = market.assets
        with at(MINUTE):
            sink = await read_candles(market, asset, other, price=PriceKind.MARKET)
            await events_of(sink, 1)
            assert sink.reader is not None
            sink.reader.congested()
            for price in (10, 30, 20):
                await market.writer.write(asset, at=MINUTE, price=price)
            await until(lambda: market.hub.position == 3)
            assert len(sink.payloads) == 1
            sink.reader.drained()
            assert sink.events[1].items == [candle(asset, TIME, 11, 31, 11, 21, closed=False)]
            await market.writer.write(other, at=MINUTE, price=7)
            await until(lambda: len(sink.payloads) == 3)
            assert sink.events[2].items == [candle(other, TIME, 8, 8, 8, 8, closed=False)]


@pytest.mark.parametrize("seed", range(3))
async def test_readers_who_come_at_any_moment_end_with_what_postgresql_has(fresh_database_url: str, seed: int) -> None:
    rng = random.Random(seed)
    async with running_market(fresh_database_url) as market:
        sinks: list[FakeSink] = []

        async def come() -> None:
            for _ in range(20):
                turns = 5 if rng.random() < 0.3 else 0
                listed = rng.sample(market.assets, rng.randint(1, 3))
                sinks.append(await read_candles(market, *listed, encode=Encoder(turns=turns)))
                await asyncio.sleep(rng.random() * 0.03)

        with at(MINUTE + timedelta(hours=1)):
            coming = asyncio.create_task(come())
            for step in range(60):
                await market.writer.write(
                    *rng.choices(market.assets, k=2), at=MINUTE + seconds(step), price=rng.randint(1, 99)
                )
            await coming
            last = await read_candles(market, *market.assets)
            await until(lambda: market.hub.position == 120)
            await events_of(last, 1)
            expected = _state(last.events)
            for sink in sinks:
                await until(lambda sink=sink: _state(sink.events).items() <= expected.items() and bool(sink.payloads))  # type: ignore[misc]
            assert len(expected) == 3


def _state(events: list[Seen]) -> dict[tuple[int, int], list[object]]:
    """What a reader knows, by asset and time."""
    return {(item[0], item[1]): item for event in events for item in event.items}


async def test_books_are_dropped_with_their_last_reader_and_share_what_they_hold(fresh_database_url: str) -> None:
    async with running_market(fresh_database_url) as market:
        asset, other, _ = market.assets
        encoder = Encoder()
        sinks = [await read_candles(market, asset, encode=encoder) for _ in range(2)]
        for sink in sinks:
            await events_of(sink, 1)
        assert encoder.calls == 1
        sinks.append(await read_candles(market, asset, other, encode=encoder))
        await events_of(sinks[2], 1)
        assert (market.hub.groups, market.hub.readers, encoder.calls) == (2, 3, 2)
        (book,) = market.hub._candles._books.values()
        assert isinstance(book, Book)
        assert set(book._lines) == {asset, other}
        for sink in sinks:
            assert sink.reader is not None
            sink.reader.close()
        assert (market.hub.groups, market.hub.readers, book._lines, market.hub._candles._books) == (0, 0, {}, {})


async def test_a_quiet_market_beats(fresh_database_url: str) -> None:
    async with running_market(fresh_database_url) as market:
        sink = await read_candles(market, market.assets[0], heartbeat_seconds=1)
        events = await events_of(sink, 2)
        assert [(event.kind, event.items) for event in events] == [(SNAPSHOT, []), (HEARTBEAT, [])]


async def test_candles_begin_anew_when_positions_were_lost(fresh_database_url: str) -> None:
    async with running_market(fresh_database_url) as market:
        asset = market.assets[0]
        with at(MINUTE):
            sink = await read_candles(market, asset)
            await events_of(sink, 1)
            with patch("app.realtime.feed._CATCH_UP_MAX", 1):
                await market.writer.write(asset, asset, at=MINUTE, price=10)
                events = await events_of(sink, 2)
            assert (events[1].kind, events[1].items) == (SNAPSHOT, [candle(asset, TIME, 10, 10, 10, 10, closed=False)])
