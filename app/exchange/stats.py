"""The last 24 hours of each asset's trades, kept as sums by the minute so that an answer never rereads them.

Trades are facts and their seqs gapless, so what a process has summed up stays right for ever; each question only reads
the trades that came since the last one. Nothing here is stored, and another process comes to the same figures.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg

from app.db import Database
from app.exchange.assets import Asset
from app.money import RATE_UNIT, div_half_even

DAY: Final = timedelta(hours=24)
ASSETS_MAX: Final = 1_000
"""Assets whose sums are kept, at most 1,441 minutes each; what was not asked for longest is forgotten first."""
_MINUTE_S: Final = 60


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


@dataclass(slots=True)
class _Minute:
    """The trades of one minute: `volume` gross in 10^-6; high, low and close of M just after each."""

    start_s: int
    volume: int
    trades: int
    high: int
    low: int
    close: int

    def add(self, later: "_Minute") -> None:
        """Take in what came later in the same minute."""
        self.volume += later.volume
        self.trades += later.trades
        self.high = max(self.high, later.high)
        self.low = min(self.low, later.low)
        self.close = later.close


@dataclass(slots=True)
class _Day:
    """One asset's minutes up to the trade `seq`; `before` is M at their beginning, None before the first trade."""

    seq: int
    before: int | None
    minutes: deque[_Minute] = field(default_factory=deque)

    def add(self, minute: _Minute) -> None:
        if self.minutes and self.minutes[-1].start_s == minute.start_s:
            self.minutes[-1].add(minute)
        else:
            self.minutes.append(minute)

    def forget(self, since_s: int) -> None:
        while self.minutes and self.minutes[0].start_s < since_s:
            self.before = self.minutes.popleft().close

    def stats(self, asset: Asset) -> DayStats:
        close = asset.market_price
        first = self.before if self.before is not None else asset.base_price
        return DayStats(
            volume=sum(minute.volume for minute in self.minutes),
            trades=sum(minute.trades for minute in self.minutes),
            open=first,
            high=max(first, close, *(minute.high for minute in self.minutes)),
            low=min(first, close, *(minute.low for minute in self.minutes)),
            close=close,
            change=div_half_even((close - first) * RATE_UNIT, first),
        )


# A binary search over gapless seqs: `at` never decreases with them. About twenty index probes for a million trades.
_BEGIN: Final = """
WITH RECURSIVE probe (asset_id, low, high) AS (
    SELECT id, 0::bigint, trade_seq FROM assets WHERE id = ANY($1::bigint[])
    UNION ALL
    SELECT p.asset_id,
           CASE WHEN t.at < $2 THEN t.seq ELSE p.low END,
           CASE WHEN t.at < $2 THEN p.high ELSE t.seq - 1 END
      FROM probe p JOIN trades t ON t.asset_id = p.asset_id AND t.seq = (p.low + p.high + 1) / 2
     WHERE p.low < p.high
)
SELECT p.asset_id, p.low AS seq, t.market_after
  FROM probe p LEFT JOIN trades t ON t.asset_id = p.asset_id AND t.seq = p.low
 WHERE p.low >= p.high
"""

_CATCH_UP: Final = """
SELECT minute.*, last.market_after AS close
  FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) k (asset_id, after_seq, up_to_seq)
 CROSS JOIN LATERAL (
       SELECT t.asset_id, extract(epoch FROM date_trunc('minute', t.at))::bigint AS start_s, sum(t.gross) AS volume,
              count(*) AS trades, max(t.market_after) AS high, min(t.market_after) AS low, max(t.seq) AS seq
         FROM trades t
        WHERE t.asset_id = k.asset_id AND t.seq > k.after_seq AND t.seq <= k.up_to_seq
        GROUP BY t.asset_id, date_trunc('minute', t.at)) minute
  JOIN trades last ON last.asset_id = minute.asset_id AND last.seq = minute.seq
 ORDER BY minute.asset_id, minute.seq
"""


class TradeStats:
    """The process's sums of one database's trades. Share one among all requests."""

    def __init__(self, *, assets_max: int = ASSETS_MAX) -> None:
        self._assets_max = assets_max
        self._days: dict[int, _Day] = {}
        self._catching_up = asyncio.Lock()

    async def last_day(self, *, database: Database, assets: Sequence[Asset], at: datetime) -> list[DayStats]:
        """The stats of each asset for the 24 hours before `at`, in the order asked, counted in whole minutes.

        Prices are M: just after each trade, at the beginning (`open`) and now (`close`).
        """
        since_s = int((at - DAY).timestamp()) // _MINUTE_S * _MINUTE_S
        # One at a time: two that read the same trades would count them twice.
        async with self._catching_up:
            await self._begin(database, [asset.id for asset in assets if asset.id not in self._days], since_s)
            await self._catch_up(database, [asset for asset in assets if asset.trade_seq > self._days[asset.id].seq])
            stats = []
            for asset in assets:
                day = self._days[asset.id] = self._days.pop(asset.id)  # asked for last
                day.forget(since_s)
                stats.append(day.stats(asset))
            while len(self._days) > self._assets_max:
                del self._days[next(iter(self._days))]
        return stats

    async def _begin(self, database: Database, asset_ids: Sequence[int], since_s: int) -> None:
        if not asset_ids:
            return
        async with database.acquire() as connection:
            rows = await connection.fetch(_BEGIN, asset_ids, datetime.fromtimestamp(since_s, UTC))
        for row in rows:
            self._days[row["asset_id"]] = _Day(row["seq"], row["market_after"])

    async def _catch_up(self, database: Database, assets: Sequence[Asset]) -> None:
        if not assets:
            return
        after = [self._days[asset.id].seq for asset in assets]
        async with database.acquire() as connection:
            rows = await connection.fetch(
                _CATCH_UP, [asset.id for asset in assets], after, [asset.trade_seq for asset in assets]
            )
        for row in rows:
            day = self._days[row["asset_id"]]
            day.add(_minute(row))
            day.seq = row["seq"]


def _minute(row: asyncpg.Record) -> _Minute:
    return _Minute(row["start_s"], row["volume"], row["trades"], row["high"], row["low"], row["close"])
