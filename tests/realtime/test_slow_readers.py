"""Readers that do not keep up are bounded, told what they missed, given up in the end, and disturb nobody."""

import asyncio
from dataclasses import replace
from typing import Any, cast

import pytest

from app.pricing.ticks import TickCause
from app.realtime.events import Event, EventKind, TickMode
from app.realtime.hub import Realtime
from app.realtime.timers import SlowReaders
from tests.realtime.market import Writer, positions
from tests.realtime.sinks import Encoder, FakeSink, encode
from tests.realtime.test_stream_model import trade_of

UPDATE = EventKind.UPDATE


def new_hub() -> Realtime:
    """A hub without servers, of assets 1 to 5."""
    hub = Realtime(database=cast("Any", None), redis=None)
    for asset_id in range(1, 6):
        hub._shared.visibility.set(asset_id, is_draft=False)
    return hub


async def read(hub: Realtime, sink: FakeSink, **asked: Any) -> FakeSink:
    """A reader of every asset's ticks, live from now on."""
    defaults: dict[str, Any] = {
        "encode": encode,
        "asset_ids": None,
        "sees_drafts": False,
        "mode": TickMode.ALL,
        "throttle_ms": 0,
        "heartbeat_seconds": 60,
        "after": None,
        "snapshot": False,
    }
    sink.reader = await hub.price_ticks(sink=sink, **{**defaults, **asked})
    return sink


async def test_a_congested_reader_is_sent_everything_when_it_has_drained(caplog: pytest.LogCaptureFixture) -> None:
    hub, writer = new_hub(), Writer(cast("Any", None))
    slow, other = await read(hub, FakeSink()), await read(hub, FakeSink())
    assert slow.reader is not None
    slow.on_send = slow.reader.congested
    for _ in range(3):
        hub.append(writer.make(1, 2), {})
    assert (positions(slow.events), positions(other.events)) == ([1, 2], [1, 2, 3, 4, 5, 6])
    assert hub.congested == 1
    slow.on_send = None
    slow.reader.drained()
    assert [(e.kind, e.items, e.cursor, e.missed) for e in slow.events[1:]] == [
        (UPDATE, [[1, 2, 3], [2, 2, 4], [1, 3, 5], [2, 3, 6]], "p6", None)
    ]
    hub.append(writer.make(3), {})
    assert slow.events[-1] == other.events[-1]
    assert (hub.congested, hub.counts.conflated, caplog.records) == (0, 0, [])


async def test_beyond_a_thousand_only_the_newest_of_each_asset_waits_and_the_rest_is_told_as_missed() -> None:
    hub, writer = new_hub(), Writer(cast("Any", None))
    slow = await read(hub, FakeSink())
    assert slow.reader is not None
    slow.reader.congested()
    for _ in range(500):
        hub.append(writer.make(1, 2, 3), {})
    slow.reader.drained()
    assert [(e.items, e.cursor, e.missed) for e in slow.events] == [
        ([[1, 500, 1498], [2, 500, 1499], [3, 500, 1500]], "p1500", 1497)
    ]
    assert hub.counts.conflated == 1497
    hub.append(writer.make(1), {})
    assert (slow.events[-1].items, slow.events[-1].missed) == ([[1, 501, 1501]], None)


async def test_latest_skips_what_was_superseded_and_counts_it() -> None:
    hub, writer = new_hub(), Writer(cast("Any", None))
    live = await read(hub, FakeSink(), mode=TickMode.LATEST)
    slow = await read(hub, FakeSink(), mode=TickMode.LATEST)
    assert slow.reader is not None
    slow.reader.congested()
    hub.append(writer.make(1, 2, 1), {})
    hub.append(writer.make(1), {})
    slow.reader.drained()
    assert [(e.items, e.cursor, e.missed) for e in live.events] == [
        ([[2, 1, 2], [1, 2, 3]], "p3", 1),
        ([[1, 3, 4]], "p4", None),
    ]
    assert [(e.items, e.cursor, e.missed) for e in slow.events] == [([[2, 1, 2], [1, 3, 4]], "p4", 2)]


async def test_throttled_readers_get_one_event_an_interval_also_who_came_in_the_middle() -> None:
    hub, writer = new_hub(), Writer(cast("Any", None))
    encoder = Encoder()
    first = await read(hub, FakeSink(), throttle_ms=1_000, encode=encoder)
    hub.append(writer.make(1), {})
    late = await read(hub, FakeSink(), throttle_ms=1_000, encode=encoder, snapshot=True)
    hub.append(writer.make(2), {})
    hub.append(writer.make(1), {})
    assert (hub.groups, first.events, len(late.events)) == (1, [], 1)
    hub._ticks._throttles[1_000].fire()
    assert [(e.items, e.cursor) for e in first.events] == [([[1, 1, 1], [2, 1, 2], [1, 2, 3]], "p3")]
    assert [(e.items, e.cursor) for e in late.events] == [([[1, 1, 1]], "p1"), ([[2, 1, 2], [1, 2, 3]], "p3")]
    calls = encoder.calls
    hub.append(writer.make(1), {})
    hub._ticks._throttles[1_000].fire()
    assert first.events[-1] == late.events[-1]
    assert encoder.calls == calls + 1


async def test_a_large_batch_comes_in_events_of_bounded_size() -> None:
    hub, writer = new_hub(), Writer(cast("Any", None))
    sink = await read(hub, FakeSink())
    hub.append(writer.make(*[1, 2] * 600), {})
    assert [(len(e.items), e.cursor) for e in sink.events] == [(500, "p500"), (500, "p1000"), (200, "p1200")]
    assert positions(sink.events) == list(range(1, 1201))


async def test_who_is_congested_for_too_long_is_closed_and_nobody_else() -> None:
    hub, writer = new_hub(), Writer(cast("Any", None))
    hub._shared.slow = SlowReaders(seconds_max=0.05, look_seconds=0.01)
    slow, recovered, other = [await read(hub, FakeSink()) for _ in range(3)]
    assert slow.reader is not None
    assert recovered.reader is not None
    slow.reader.congested()
    recovered.reader.congested()
    recovered.reader.drained()
    async with asyncio.timeout(5):
        while not slow.closed_as_too_slow:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    hub.append(writer.make(1), {})
    assert (len(slow.payloads), len(recovered.payloads), len(other.payloads)) == (0, 1, 1)
    assert (recovered.closed_as_too_slow, hub.readers, hub.counts.given_up) == (False, 2, 1)


async def test_a_sink_or_an_encoder_that_breaks_its_promise_hurts_nobody_else() -> None:
    hub, writer = new_hub(), Writer(cast("Any", None))

    def fail() -> None:
        raise RuntimeError("a sink never raises")

    def broken(event: Event[Any]) -> bytes:
        raise RuntimeError("an encoder never raises")

    before, bad, after = (
        await read(hub, FakeSink()),
        await read(hub, FakeSink(on_send=fail)),
        await read(hub, FakeSink()),
    )
    mute = await read(hub, FakeSink(), encode=broken)
    hub.append(writer.make(1), {})
    hub.append(writer.make(1), {})
    assert [positions(each.events) for each in (before, bad, after)] == [[1, 2]] * 3
    async with asyncio.timeout(5):
        while not mute.closed_as_too_slow:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert (mute.payloads, hub.readers) == ([], 3)


async def test_nothing_is_sent_after_close_and_closing_twice_is_harmless() -> None:
    hub, writer = new_hub(), Writer(cast("Any", None))
    sink = await read(hub, FakeSink(), encode=Encoder(turns=3))
    assert sink.reader is not None
    hub.append(writer.make(1), {})
    sink.reader.congested()
    sink.reader.close()
    sink.reader.close()
    sink.reader.drained()
    hub.append(writer.make(1), {})
    assert (hub.readers, hub.groups, hub.congested) == (0, 0, 0)


async def test_trades_come_with_their_ticks_and_a_slow_reader_loses_the_oldest() -> None:
    hub, writer = new_hub(), Writer(cast("Any", None))
    sink = FakeSink()
    reader = await hub.trades(
        sink=sink, encode=encode, asset_ids=frozenset({1}), sees_drafts=False, heartbeat_seconds=60, after=None
    )
    assert [(e.kind, e.items, e.cursor) for e in sink.events] == [(EventKind.SNAPSHOT, [], "t0")]
    reader.congested()
    for _ in range(1_200):
        ticks = [replace(tick, cause=TickCause.TRADE, trade_seq=tick.seq) for tick in writer.make(1, 2)]
        hub.append(ticks, {(tick.asset_id, tick.trade_seq): trade_of(tick) for tick in ticks})
    reader.drained()
    events = sink.events[1:]
    assert [(len(e.items), e.missed, e.cursor) for e in events] == [(500, 200, "t1399"), (500, None, "t2399")]
    assert events[0].items[0] == [1, 201]
    assert events[-1].items[-1] == [1, 1_200]
