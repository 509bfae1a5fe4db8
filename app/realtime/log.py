"""The newest ticks, with the trades behind them, in memory: where the process stands, and what readers resume from.

No I/O. Positions are gapless: what is appended follows the head.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from app.exchange.orders import Trade
from app.pricing.ticks import Tick, TickCause, TradeKey

LOG_TICKS_MAX: Final = 20_000


@dataclass(frozen=True, slots=True)
class TradeEntry:
    """A trade at the position of its tick."""

    position: int
    asset_id: int
    trade: Trade


class TickLog:
    """A ring of ticks. `head` is the position of the last one, whether it is kept or not."""

    def __init__(self, *, head: int = 0, size: int = LOG_TICKS_MAX) -> None:
        self._size = size
        self._ticks: list[Tick | None] = [None] * size
        self._trades: list[Trade | None] = [None] * size
        self.head = head
        self.oldest = head + 1
        """The position of the oldest tick that is kept; head + 1 when there is none."""

    def reset(self, head: int) -> None:
        """Forget everything and go on after `head`."""
        self.head = head
        self.oldest = head + 1

    def append(self, ticks: Sequence[Tick], trades: Mapping[TradeKey, Trade]) -> None:
        """Keep ticks that follow the head. Raises ValueError when they do not."""
        size = self._size
        for tick in ticks:
            if tick.position != self.head + 1:
                raise ValueError(f"position {tick.position} does not follow {self.head}")
            slot = tick.position % size
            self._ticks[slot] = tick
            is_trade = tick.cause is TickCause.TRADE
            self._trades[slot] = trades.get((tick.asset_id, tick.trade_seq)) if is_trade else None
            self.head = tick.position
        self.oldest = max(self.oldest, self.head - size + 1)

    def covers(self, after: int) -> bool:
        """Whether everything after this position is kept."""
        return self.oldest - 1 <= after <= self.head

    def ticks(self, after: int, up_to: int, asset_ids: Collection[int] | None = None) -> list[Tick]:
        """The ticks at (after, up_to], which are kept; with `asset_ids`, of these assets only."""
        size, ring = self._size, self._ticks
        found = [ring[position % size] for position in range(after + 1, up_to + 1)]
        if asset_ids is None:
            return [tick for tick in found if tick is not None]
        return [tick for tick in found if tick is not None and tick.asset_id in asset_ids]

    def trades(self, after: int, up_to: int, asset_ids: Collection[int] | None = None) -> list[TradeEntry] | None:
        """The trades behind the ticks at (after, up_to], which are kept; None when one of them was never told."""
        entries = []
        for tick in self.ticks(after, up_to, asset_ids):
            if tick.cause is TickCause.TRADE:
                trade = self._trades[tick.position % self._size]
                if trade is None:
                    return None
                entries.append(TradeEntry(tick.position, tick.asset_id, trade))
        return entries
