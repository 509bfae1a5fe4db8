"""Candles folded as the engine does, second by second and step by step, equal candles made of all ticks at once."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.pricing.candles import (
    Candle,
    CandleRow,
    Folder,
    bucket,
    candle_of,
    decode_open_candles,
    encode_open_candles,
    fold,
)
from app.pricing.intervals import Interval, PriceKind
from app.pricing.ticks import Tick, TickCause, microseconds
from tests.pricing.causes import ASSET, T0

SECONDS = {"S1": 1, "M1": 60, "M5": 300, "M15": 900, "H1": 3_600, "H4": 14_400, "D1": 86_400}


def tick(
    seq: int, after: timedelta, *, display: int, market: int, volume: int = 0, cause: TickCause = TickCause.DECAY
) -> Tick:
    return Tick(ASSET, seq, 0, cause, 0, T0 + after, display, market, 10**12, 10**9, volume, stale=False)


@st.composite
def histories(draw: st.DrawFn) -> list[Tick]:
    """Ticks whose distances are microseconds, seconds, minutes, hours and days alike."""
    far = st.sampled_from([0, 1, 999_999, 10**6, 7 * 10**6, 61 * 10**6, 301 * 10**6, 4_000 * 10**6, 90_000 * 10**6])
    steps = draw(st.lists(st.tuples(far, st.integers(1, 50), st.integers(1, 50), st.integers(0, 3)), max_size=40))
    ticks, passed = [], 0
    for seq, (distance, display, market, traded) in enumerate(steps, 1):
        passed += distance
        cause = TickCause.TRADE if traded else TickCause.ORACLE
        ticks.append(
            tick(seq, timedelta(microseconds=passed), display=display, market=market, volume=traded, cause=cause)
        )
    return ticks


def folded(ticks: Sequence[Tick], open_candles: Sequence[CandleRow]) -> tuple[tuple[CandleRow, ...], list[CandleRow]]:
    folder = Folder(ASSET, open_candles)
    for each in ticks:
        folder.add(
            microseconds(each.at) // 10**6,
            display=each.display,
            market=each.market,
            volume=each.volume,
            trades=int(each.cause is TickCause.TRADE),
        )
    return folder.finish()


def all_at_once(ticks: Sequence[Tick]) -> dict[tuple[str, int], CandleRow]:
    """Every candle of every interval, each from the list of its ticks."""
    candles = {}
    for name, seconds in SECONDS.items():
        buckets: dict[int, list[Tick]] = {}
        for each in ticks:
            buckets.setdefault(int(each.at.timestamp()) // seconds * seconds, []).append(each)
        for time, inside in buckets.items():
            d, m = [each.display for each in inside], [each.market for each in inside]
            candles[name, time] = CandleRow(
                ASSET, Interval(name), time,
                d[0], max(d), min(d), d[-1], m[0], max(m), min(m), m[-1],
                sum(each.volume for each in inside), sum(each.cause is TickCause.TRADE for each in inside),
            )  # fmt: skip
    return candles


def test_three_ticks_in_two_seconds_by_hand() -> None:
    ticks = [
        tick(1, timedelta(0), display=10, market=20),
        tick(2, timedelta(milliseconds=400), display=8, market=25, volume=5, cause=TickCause.TRADE),
        tick(3, timedelta(seconds=1), display=12, market=15, volume=7, cause=TickCause.TRADE),
    ]
    open_candles, closed = folded(ticks, ())
    start = int(T0.timestamp())
    assert closed == [CandleRow(ASSET, Interval.S1, start, 10, 10, 8, 8, 20, 25, 20, 25, 5, 1)]
    assert open_candles[0] == CandleRow(ASSET, Interval.S1, start + 1, 12, 12, 12, 12, 15, 15, 15, 15, 7, 1)
    assert open_candles[1:] == tuple(
        CandleRow(ASSET, interval, bucket(start, interval), 10, 12, 8, 12, 20, 25, 15, 15, 12, 2)
        for interval in list(Interval)[1:]
    )


def test_a_bucket_without_ticks_has_no_candle() -> None:
    ticks = [tick(1, timedelta(0), display=1, market=1), tick(2, timedelta(minutes=10), display=2, market=2)]
    _, closed = folded(ticks, ())
    start = int(T0.timestamp())
    assert [(row.interval, row.time) for row in closed] == [
        (Interval.S1, start), (Interval.M1, start), (Interval.M5, start)
    ]  # fmt: skip


@given(history=histories(), cuts=st.sets(st.integers(0, 40)))
def test_any_division_into_steps_gives_the_candles_of_all_ticks_at_once(history: list[Tick], cuts: set[int]) -> None:
    open_candles: tuple[CandleRow, ...] = ()
    closed: list[CandleRow] = []
    bounds = sorted({0, len(history), *(cut for cut in cuts if cut < len(history))})
    for first, last in pairwise(bounds):
        open_candles, over = folded(history[first:last], open_candles)
        closed += over
    made = {(row.interval.value, row.time): row for row in (*closed, *open_candles)}
    assert len(made) == len(closed) + len(open_candles)
    assert made == all_at_once(history)
    assert [row.interval for row in open_candles] == (list(Interval) if history else [])


@given(history=histories(), interval=st.sampled_from(Interval), price=st.sampled_from(PriceKind))
def test_one_reader_s_candle_grows_as_the_engine_s(history: list[Tick], interval: Interval, price: PriceKind) -> None:
    current: Candle | None = None
    ended = []
    for each in history:
        made = fold(current, each, interval=interval, price=price)
        current = made.current
        ended += [made.ended] if made.ended else []
    expected = [row for (name, _), row in sorted(all_at_once(history).items(), key=lambda e: e[1].time)
                if name == interval.value]  # fmt: skip
    last = len(expected) - 1
    assert [*ended, *([current] if current else [])] == [
        candle_of(row, price=price, closed=number != last) for number, row in enumerate(expected)
    ]


def test_the_two_halves_of_a_row() -> None:
    row = CandleRow(ASSET, Interval.M5, 300, 1, 4, 1, 2, 10, 40, 10, 20, 99, 3)
    assert candle_of(row, price=PriceKind.DISPLAY, closed=True) == Candle(
        ASSET, Interval.M5, 300, 1, 4, 1, 2, 99, 3, closed=True
    )
    assert candle_of(row, price=PriceKind.MARKET, closed=False) == Candle(
        ASSET, Interval.M5, 300, 10, 40, 10, 20, 99, 3, closed=False
    )


@settings(max_examples=30)
@given(history=histories())
def test_open_candles_survive_their_text(history: list[Tick]) -> None:
    open_candles, _ = folded(history, ())
    assert decode_open_candles(ASSET, encode_open_candles(open_candles)) == open_candles


def test_the_largest_prices_and_volumes_survive_their_text() -> None:
    huge = (CandleRow._make((ASSET, Interval.D1, 1_763_596_800, *(10**38 - 1 - n for n in range(9)), 2**62)),)
    assert decode_open_candles(ASSET, encode_open_candles(huge)) == huge
    assert encode_open_candles(huge).startswith('[["D1",1763596800,"99999999999999999999999999999999999999",')


@pytest.mark.parametrize("text", ["", "{}x", "[1]", '[["S1"]]', '[["S2",1,"1","1","1","1","1","1","1","1","1",0]]'])
def test_other_text_is_no_open_candles(text: str) -> None:
    with pytest.raises(ValueError):
        decode_open_candles(ASSET, text)
