"""Readers that keep what they are sent, and encoders that tell what an event held."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from app.exchange.assets import Asset
from app.exchange.orders import Trade
from app.pricing.candles import Candle
from app.pricing.ticks import Tick
from app.realtime.events import Event, EventKind, Reader
from app.realtime.reports import ToldReport


@dataclass(frozen=True)
class Seen:
    """An event as its reader saw it; items as what tells them apart."""

    kind: EventKind
    items: list[Any]
    cursor: str
    missed: int | None
    seq: int

    @property
    def position(self) -> int:
        """The position in the cursor."""
        return int(self.cursor[1:])


@dataclass
class FakeSink:
    """A connection. `on_send` happens within `send`, as a full buffer does."""

    payloads: list[bytes] = field(default_factory=list)
    congested: bool = False
    completed: bool = False
    closed_as_too_slow: bool = False
    on_send: Callable[[], None] | None = None
    reader: Reader | None = None

    def send(self, payload: bytes) -> None:
        self.payloads.append(payload)
        if self.on_send is not None:
            self.on_send()

    def complete(self) -> None:
        self.completed = True

    def too_slow(self) -> None:
        self.closed_as_too_slow = True

    @property
    def events(self) -> list[Seen]:
        """What it was sent."""
        read = map(orjson.loads, self.payloads)
        return [Seen(EventKind(each[0]), each[1], each[2], each[3], each[4]) for each in read]


def encode(event: Event[Any]) -> bytes:
    """At once."""
    items = [_identity(item) for item in event.items]
    return orjson.dumps([event.kind, items, event.cursor, event.missed, event.seq])


class Encoder:
    """An encoder of its own; counts how often it was asked. With `turns` it must wait for something."""

    def __init__(self, *, turns: int = 0) -> None:
        self.turns = turns
        self.calls = 0

    def __call__(self, event: Event[Any]) -> bytes | Awaitable[bytes]:
        self.calls += 1
        return self._later(event) if self.turns else encode(event)

    async def _later(self, event: Event[Any]) -> bytes:
        for _ in range(self.turns):
            await asyncio.sleep(0)
        return encode(event)


def _identity(item: object) -> object:
    if isinstance(item, Tick):
        return [item.asset_id, item.seq, item.position]
    if isinstance(item, Trade):
        return [item.asset_id, item.seq]
    if isinstance(item, Candle):
        return [
            item.asset_id,
            item.time,
            item.open,
            item.high,
            item.low,
            item.close,
            item.volume,
            item.trades,
            item.closed,
        ]
    if isinstance(item, Asset):
        return [item.id, item.status]
    if isinstance(item, ToldReport):
        report = item.report
        return [report.asset_id, report.id, report.position, report.outcome, [each.source for each in item.evidence]]
    return getattr(item, "seq", None)
