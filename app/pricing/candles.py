"""Candles: ticks folded into buckets of every interval, D and M side by side. Pure: no I/O, no clock.

A candle lasts from its `time` (Unix seconds, UTC) to its time + interval, by the ticks' `at`; it is over when a tick
of a later bucket comes. Volume (10^-6) and trades count TRADE ticks alone. Prices in 10^-12. A bucket without a tick
has no candle.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import orjson

from app.pricing.intervals import Interval, PriceKind
from app.pricing.ticks import Tick, TickCause, microseconds

INTERVALS: Final = tuple(Interval)
"""From the shortest; each is a whole number of the one before."""
_SECONDS: Final = tuple(interval.seconds for interval in INTERVALS)
_SECOND: Final = 10**6


class CandleRow(NamedTuple):
    """A row of `candles`, its columns in their order (a tuple, so that it is written as it is)."""

    asset_id: int
    interval: Interval
    time: int
    open: int
    high: int
    low: int
    close: int
    market_open: int
    market_high: int
    market_low: int
    market_close: int
    volume: int
    trades: int


@dataclass(frozen=True, slots=True)
class Candle:
    """A candle of one price, D or M.

    `closed`: its time is over by the clock; only what the engine is still taking in can change it.
    """

    asset_id: int
    interval: Interval
    time: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    trades: int
    closed: bool


class Folded(NamedTuple):
    """What a tick made of a candle: the candle as it now is, and the one before it when the tick ended that."""

    current: Candle
    ended: Candle | None


def bucket(at_seconds: int, interval: Interval) -> int:
    """The time of the bucket that a moment (Unix seconds) lies in."""
    return at_seconds - at_seconds % interval.seconds


def candle_of(row: CandleRow, *, price: PriceKind, closed: bool) -> Candle:
    """One price's half of a row."""
    prices = row[3:7] if price is PriceKind.DISPLAY else row[7:11]
    return Candle(row.asset_id, row.interval, row.time, *prices, row.volume, row.trades, closed)


def fold(candle: Candle | None, tick: Tick, *, interval: Interval, price: PriceKind) -> Folded:
    """The candle with the asset's next tick in it; `candle` is the one that the tick before it left, None for none."""
    time = bucket(microseconds(tick.at) // _SECOND, interval)
    value = tick.display if price is PriceKind.DISPLAY else tick.market
    traded = 1 if tick.cause is TickCause.TRADE else 0
    if candle is None or candle.time != time:
        began = Candle(tick.asset_id, interval, time, value, value, value, value, tick.volume, traded, closed=False)
        return Folded(began, None if candle is None else _ended(candle))
    grown = Candle(
        candle.asset_id,
        interval,
        time,
        candle.open,
        max(candle.high, value),
        min(candle.low, value),
        value,
        candle.volume + tick.volume,
        candle.trades + traded,
        closed=False,
    )
    return Folded(grown, None)


def _ended(candle: Candle) -> Candle:
    return Candle(
        candle.asset_id,
        candle.interval,
        candle.time,
        candle.open,
        candle.high,
        candle.low,
        candle.close,
        candle.volume,
        candle.trades,
        closed=True,
    )


def encode_open_candles(rows: Iterable[CandleRow]) -> str:
    """`price_states.open_candles`: a JSON list of lists, the row without its asset; what may pass 64 bits as text."""
    return orjson.dumps([[row.interval.value, row.time, *map(str, row[3:12]), row.trades] for row in rows]).decode()


def decode_open_candles(asset_id: int, text: str) -> tuple[CandleRow, ...]:
    """The open candles of an asset, from the shortest interval. Raises ValueError when `text` holds none."""
    try:
        return tuple(
            CandleRow._make((asset_id, Interval(row[0]), row[1], *map(int, row[2:11]), row[11]))
            for row in orjson.loads(text)
        )
    except (TypeError, IndexError) as error:
        raise ValueError(f"no open candles: {text[:80]!r}") from error


_Part: TypeAlias = list[int]
"""What one step adds to a candle: time, open, high, low, close of D, then of M, volume, trades."""


class Folder:
    """Folds one asset's ticks, in their order, into its open candles: each tick into the second, seconds into minutes
    and so on, each when it is over. Used once: `add` every tick, then `finish`.
    """

    __slots__ = ("_asset_id", "_closed", "_opened", "_parts")

    def __init__(self, asset_id: int, open_candles: Iterable[CandleRow]) -> None:
        self._asset_id = asset_id
        stored = {row.interval: row for row in open_candles}
        self._opened = [stored.get(interval) for interval in INTERVALS]
        self._parts: list[_Part | None] = [None] * len(INTERVALS)
        self._closed: list[CandleRow] = []

    def add(self, second: int, *, display: int, market: int, volume: int, trades: int) -> None:
        """Take in a tick of Unix second `second`, which is not before the last one's."""
        part = self._parts[0]
        if part is None or part[0] != second:
            self._push(0, [second, display, display, display, display, market, market, market, market, volume, trades])
            return
        if display > part[2]:
            part[2] = display
        elif display < part[3]:
            part[3] = display
        part[4] = display
        if market > part[6]:
            part[6] = market
        elif market < part[7]:
            part[7] = market
        part[8] = market
        part[9] += volume
        part[10] += trades

    def finish(self) -> tuple[tuple[CandleRow, ...], list[CandleRow]]:
        """The candles that are open now, from the shortest, and those that are over."""
        for level in range(len(INTERVALS)):
            part = self._parts[level]
            if part is not None:
                if level + 1 < len(INTERVALS):
                    self._push(level + 1, part)
                self._opened[level] = self._row(level, part)
        return tuple(row for row in self._opened if row is not None), self._closed

    def _push(self, level: int, part: _Part) -> None:
        """Fold `part`, of the interval below (or a tick), into this interval's."""
        time = part[0] - part[0] % _SECONDS[level]
        mine = self._parts[level]
        if mine is not None and mine[0] == time:
            _merge(mine, part)
            return
        opened = self._opened[level]
        if mine is not None:
            self._closed.append(self._row(level, mine))
            self._opened[level] = None
            if level + 1 < len(INTERVALS):
                self._push(level + 1, mine)
        elif opened is not None and opened.time != time:
            self._closed.append(opened)
            self._opened[level] = None
        self._parts[level] = [time, *part[1:]]

    def _row(self, level: int, part: _Part) -> CandleRow:
        """The candle: what was stored of it before this step, and what the step adds."""
        opened = self._opened[level]
        if opened is not None:
            whole = list(opened[2:])
            _merge(whole, part)
            part = whole
        return CandleRow(self._asset_id, INTERVALS[level], *part)


def _merge(into: _Part, later: _Part) -> None:
    into[2] = max(into[2], later[2])
    into[3] = min(into[3], later[3])
    into[4] = later[4]
    into[6] = max(into[6], later[6])
    into[7] = min(into[7], later[7])
    into[8] = later[8]
    into[9] += later[9]
    into[10] += later[10]
