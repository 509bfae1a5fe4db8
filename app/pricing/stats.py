"""The last 24 hours of assets, from their candles: nothing is kept in the process, and few rows are read.

Where no engine has ticked yet there are no candles: `untracked_day` then goes by the trades themselves, and by M.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from app.db import Connection
from app.exchange.assets import Asset
from app.money import RATE_UNIT, div_half_even
from app.pricing.candles import CandleRow, decode_open_candles
from app.pricing.intervals import Interval

if TYPE_CHECKING:
    import asyncpg

DAY: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class DayStats:
    """Of the last 24 hours: volume in 10^-6, prices in 10^-12, `change` = (close - open) / open in 10^-9, half-even."""

    volume: int
    trades: int
    open: int
    high: int
    low: int
    close: int
    change: int

    @classmethod
    def of(cls, *, volume: int, trades: int, first: int, close: int, between: Collection[int]) -> "DayStats":
        """The stats of a day that begins at the price `first` and stands at `close`; `between` are its other prices."""
        prices = (first, close, *between)
        change = div_half_even((close - first) * RATE_UNIT, first)
        return cls(volume, trades, first, max(prices), min(prices), close, change)


# Whole hours where they lie inside of the day, minutes for what is left of the first one.
_DAYS: Final = """
SELECT s.asset_id, s.display, s.open_candles, day.*, before.close AS before,
       (SELECT m.open FROM candles m
         WHERE m.asset_id = s.asset_id AND m."interval" = 'M1' AND m."time" >= $2 AND before.close IS NULL
         ORDER BY m."time" LIMIT 1) AS first
  FROM price_states s
  LEFT JOIN LATERAL (
       SELECT m.close FROM candles m
        WHERE m.asset_id = s.asset_id AND m."interval" = 'M1' AND m."time" < $2
        ORDER BY m."time" DESC LIMIT 1) before ON true
 CROSS JOIN LATERAL (
       SELECT coalesce(sum(c.volume), 0) AS volume, coalesce(sum(c.trades), 0) AS trades,
              max(c.high) AS high, min(c.low) AS low
         FROM (SELECT volume, trades, high, low FROM candles
                WHERE asset_id = s.asset_id AND "interval" = 'M1' AND "time" >= $2 AND "time" < $3
                UNION ALL
               SELECT volume, trades, high, low FROM candles
                WHERE asset_id = s.asset_id AND "interval" = 'H1' AND "time" >= $3) c) day
 WHERE s.asset_id = ANY($1::bigint[]) AND s.seq >= 1
"""


async def day_stats(*, connection: Connection, asset_ids: Collection[int], at: datetime) -> dict[int, DayStats]:
    """The 24 hours before `at` of D, of those of the assets that an engine has ticked; in one statement.

    They are counted in whole minutes. `open` is the last D before the first of them; of an asset that is younger, its
    first D. `close` is D now.
    """
    since = _first_minute(at)
    hours = -(-since // Interval.H1.seconds) * Interval.H1.seconds
    rows = await connection.fetch(_DAYS, list(asset_ids), since, hours)
    return {row["asset_id"]: _day(row, since, hours) for row in rows}


def _first_minute(at: datetime) -> int:
    minute = Interval.M1.seconds
    return int((at - DAY).timestamp()) // minute * minute


def _day(row: "asyncpg.Record", since: int, hours: int) -> DayStats:
    unfinished = decode_open_candles(row["asset_id"], row["open_candles"])
    inside = [candle for candle in unfinished if _counts(candle, since, hours)]
    between = [price for price in (row["high"], row["low"]) if price is not None]
    between += [price for candle in inside for price in (candle.high, candle.low)]
    return DayStats.of(
        volume=row["volume"] + sum(candle.volume for candle in inside),
        trades=row["trades"] + sum(candle.trades for candle in inside),
        first=_first(row, unfinished, since),
        close=row["display"],
        between=between,
    )


def _counts(candle: CandleRow, since: int, hours: int) -> bool:
    """Whether a candle that is not over is a part of the day which no other candle of it covers."""
    if candle.interval is Interval.H1:
        return candle.time >= hours
    return candle.interval is Interval.M1 and since <= candle.time < hours


def _first(row: "asyncpg.Record", unfinished: Sequence[CandleRow], since: int) -> int:
    """The last D before the day, or the first one ever."""
    minute = next((candle for candle in unfinished if candle.interval is Interval.M1), None)
    if minute is not None and minute.time < since:
        # Nothing has moved since then.
        return minute.close
    first: int | None = row["before"] if row["before"] is not None else row["first"]
    if first is not None:
        return first
    display: int = row["display"]
    return display if minute is None else minute.open


_TRADES: Final = """
SELECT day.*, t.market_after AS before
  FROM (SELECT asset_id, sum(gross) AS volume, count(*) AS trades, max(market_after) AS high,
               min(market_after) AS low, min(seq) AS seq
          FROM trades WHERE asset_id = ANY($1::bigint[]) AND at >= to_timestamp($2)
         GROUP BY asset_id) day
  LEFT JOIN trades t ON t.asset_id = day.asset_id AND t.seq = day.seq - 1
"""


async def untracked_day(*, connection: Connection, assets: Sequence[Asset], at: datetime) -> dict[int, DayStats]:
    """The same for assets that no engine has ticked, of M and from their trades: meant for the moments before it does.

    Reads all their trades, where there are any.
    """
    traded = [asset.id for asset in assets if asset.trade_seq]
    rows = await connection.fetch(_TRADES, traded, _first_minute(at)) if traded else []
    days = {row["asset_id"]: row for row in rows}
    return {asset.id: _untracked(asset, days.get(asset.id)) for asset in assets}


def _untracked(asset: Asset, day: "asyncpg.Record | None") -> DayStats:
    close = asset.market_price
    if day is None:
        return DayStats.of(volume=0, trades=0, first=close, close=close, between=())
    first = day["before"] if day["before"] is not None else asset.base_price
    return DayStats.of(
        volume=day["volume"], trades=day["trades"], first=first, close=close, between=(day["high"], day["low"])
    )
