"""What waits for the engine: of each asset the next trades and oracle events, gapless, and how far there is to go.

Bookkeeping without I/O: streams and PostgreSQL fill it (`feed`), the engine empties it (`worker`).
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from app.exchange.orders import Trade
from app.pricing.oracle_events import OracleEvent

QUEUED_MAX: Final = 1_000
"""Of one asset and kind; what comes on top is read from PostgreSQL when its turn has come."""
TAKEN_MAX: Final = 1_000
"""Causes of one step, all assets together."""

Seqs: TypeAlias = tuple[int, int]
"""Of trades, of oracle events."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The next causes of one asset; both lists are gapless and ascending, and they belong to the same time."""

    trades: list[Trade]
    events: list[OracleEvent]


@dataclass(slots=True)
class _Line:
    """One asset's. `*_seq`: the last that is queued or was taken; `*_head`: the last that is known to exist."""

    trade_seq: int
    oracle_seq: int
    trade_head: int
    oracle_head: int
    asked_trade_head: int = 0
    asked_oracle_head: int = 0
    """The heads when PostgreSQL was last asked."""
    trades: list[Trade] = field(default_factory=list)
    events: list[OracleEvent] = field(default_factory=list)

    @property
    def lacks_trades(self) -> bool:
        return self.trade_head > self.trade_seq

    @property
    def lacks_events(self) -> bool:
        return self.oracle_head > self.oracle_seq

    def put_trade(self, trade: Trade) -> None:
        if trade.seq == self.trade_seq + 1 and len(self.trades) < QUEUED_MAX:
            self.trades.append(trade)
            self.trade_seq = trade.seq
        self.trade_head = max(self.trade_head, trade.seq)

    def put_event(self, event: OracleEvent) -> None:
        if event.seq == self.oracle_seq + 1 and len(self.events) < QUEUED_MAX:
            self.events.append(event)
            self.oracle_seq = event.seq
        self.oracle_head = max(self.oracle_head, event.seq)

    def take(self, limit: int) -> Batch:
        """The first `limit` causes by time, as long as it is known which comes next."""
        trades, events = self.trades, self.events
        if not (self.lacks_trades or self.lacks_events) and len(trades) + len(events) <= limit:
            self.trades, self.events = [], []
            return Batch(trades, events)
        taken, noted = self._first(limit)
        self.trades, self.events = trades[taken:], events[noted:]
        return Batch(trades[:taken], events[:noted])

    def _first(self, limit: int) -> Seqs:
        """How many trades and how many events are among the first `limit` causes."""
        taken = noted = 0
        while taken + noted < limit:
            trade = self.trades[taken] if taken < len(self.trades) else None
            event = self.events[noted] if noted < len(self.events) else None
            if (trade is None and self.lacks_trades) or (event is None and self.lacks_events):
                break
            if trade is not None and (event is None or trade.at <= event.at):
                taken += 1
            elif event is not None:
                noted += 1
            else:
                break
        return taken, noted


class Inbox:
    """The lines of the assets that this worker writes; what comes for others is passed over."""

    def __init__(self) -> None:
        self._lines: dict[int, _Line] = {}
        self._waiting: dict[int, None] = {}
        """Assets with something queued or to be read, the one that has waited longest first."""
        self.wake = asyncio.Event()
        """Set when there is something to do."""

    def __bool__(self) -> bool:
        """Whether anything is queued or to be read."""
        return bool(self._waiting)

    def follow(self, asset_id: int, *, trade_seq: int, oracle_seq: int) -> None:
        """Begin, or begin again, after these: what was queued is forgotten, what is known to exist is not."""
        known = self._lines.get(asset_id)
        self._lines[asset_id] = line = _Line(
            trade_seq=trade_seq,
            oracle_seq=oracle_seq,
            trade_head=max(trade_seq, known.trade_head if known else 0),
            oracle_head=max(oracle_seq, known.oracle_head if known else 0),
        )
        self._waiting.pop(asset_id, None)
        self._note(asset_id, line)

    def forget(self, asset_id: int) -> None:
        """The asset is somebody else's."""
        self._lines.pop(asset_id, None)
        self._waiting.pop(asset_id, None)

    def offer_trades(self, trades: Iterable[Trade]) -> None:
        """Trades as they come, some of them perhaps again, early or of others' assets."""
        for trade in trades:
            line = self._lines.get(trade.asset_id)
            if line is not None:
                line.put_trade(trade)
                self._note(trade.asset_id, line)

    def offer_events(self, events: Iterable[OracleEvent]) -> None:
        """Oracle events, likewise."""
        for event in events:
            line = self._lines.get(event.asset_id)
            if line is not None:
                line.put_event(event)
                self._note(event.asset_id, line)

    def offer_heads(self, heads: Mapping[int, Seqs]) -> None:
        """The last seqs that PostgreSQL has of each asset."""
        for asset_id, (trade_seq, oracle_seq) in heads.items():
            line = self._lines.get(asset_id)
            if line is not None:
                line.trade_head = max(line.trade_head, trade_seq)
                line.oracle_head = max(line.oracle_head, oracle_seq)
                self._note(asset_id, line)

    def lacking_trades(self) -> dict[int, int]:
        """Assets with trades to be read, and after which seq; those that have enough queued wait."""
        asked: dict[int, int] = {}
        for asset_id in self._waiting:
            line = self._lines[asset_id]
            if line.lacks_trades and len(line.trades) < QUEUED_MAX:
                asked[asset_id] = line.trade_seq
                line.asked_trade_head = line.trade_head
        return asked

    def lacking_events(self) -> dict[int, int]:
        """The same of oracle events."""
        asked: dict[int, int] = {}
        for asset_id in self._waiting:
            line = self._lines[asset_id]
            if line.lacks_events and len(line.events) < QUEUED_MAX:
                asked[asset_id] = line.oracle_seq
                line.asked_oracle_head = line.oracle_head
        return asked

    def fill_trades(self, *, asked: Iterable[int], found: Mapping[int, Sequence[Trade]]) -> None:
        """What PostgreSQL answered about the `asked` assets. An asset that is not found has no more."""
        for trades in found.values():
            self.offer_trades(trades)
        for asset_id in asked:
            line = self._lines.get(asset_id)
            if line is not None and asset_id not in found and line.trade_head == line.asked_trade_head:
                # Whoever told of more was wrong.
                line.trade_head = line.trade_seq
                self._note(asset_id, line)

    def fill_events(self, *, asked: Iterable[int], found: Mapping[int, Sequence[OracleEvent]]) -> None:
        """The same of oracle events."""
        for events in found.values():
            self.offer_events(events)
        for asset_id in asked:
            line = self._lines.get(asset_id)
            if line is not None and asset_id not in found and line.oracle_head == line.asked_oracle_head:
                line.oracle_head = line.oracle_seq
                self._note(asset_id, line)

    def take(self) -> dict[int, Batch]:
        """The next causes, `TAKEN_MAX` at most; who has more is served again after the others."""
        taken: dict[int, Batch] = {}
        left = TAKEN_MAX
        for asset_id in list(self._waiting):
            line = self._lines[asset_id]
            batch = line.take(left)
            if batch.trades or batch.events:
                taken[asset_id] = batch
                left -= len(batch.trades) + len(batch.events)
            del self._waiting[asset_id]
            self._note(asset_id, line)
            if not left:
                break
        return taken

    def _note(self, asset_id: int, line: _Line) -> None:
        if line.trades or line.events or line.lacks_trades or line.lacks_events:
            self._waiting[asset_id] = None
            self.wake.set()
        else:
            self._waiting.pop(asset_id, None)
