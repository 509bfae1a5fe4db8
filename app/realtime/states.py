"""Groups of readers of state: candles and assets. What they are sent is always how things are now, so that a reader
who falls behind is owed no more than the newest state of what has changed meanwhile.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

import structlog

from app.realtime.events import Encoder, Event, EventKind, Sink
from app.realtime.readers import BaseReader, Step
from app.realtime.shared import (
    DATABASE_ERRORS,
    DATABASE_SECONDS_MAX,
    RETRY_SECONDS,
    Payload,
    Send,
    Shared,
    broadcast,
    encoded,
    spawn,
)

I = TypeVar("I")  # noqa: E741 - an item

_log = structlog.get_logger(__name__)


class StateSource(Protocol[I]):
    """What a group of readers of state reads."""

    def update(self, changed: Iterable[int], missed: int | None) -> Event[I] | None:
        """The newest state of these assets; None where nothing of it may be seen."""

    def bare(self, kind: EventKind) -> Event[I]:
        """A HEARTBEAT or a GAP."""

    async def begin(self, after: int | None) -> "Sequence[Begin[I]]":
        """Everything ready for a reader to begin: what it is sent first, made when it is sent.

        Raises what a database that is away raises. Nothing is awaited between its end and the reader's joining.
        """

    def close(self) -> None:
        """Nobody reads this any more."""


class Begin(Generic[I]):
    """An event that a reader is sent first; `key` tells who may be sent the same bytes."""

    def __init__(self, event: Callable[[], Event[I]], key: Hashable) -> None:
        self.event = event
        self.key = key


class StateGroup(Generic[I]):
    """Readers with the same encoder and the same source."""

    def __init__(
        self,
        shared: Shared,
        source: StateSource[I],
        encode: Encoder[I],
        *,
        heartbeat_seconds: int,
        drop: Callable[[], None],
    ) -> None:
        self.shared = shared
        self.source = source
        self.encode = encode
        self.heartbeat_seconds = heartbeat_seconds
        self.sent_at = asyncio.get_running_loop().time()
        self.readers: set[StateReader[I]] = set()
        self.hot: dict[StateReader[I], None] = {}
        self.aside: dict[StateReader[I], None] = {}
        self._drop = drop
        self._is_encoding = False
        self.waiting: dict[int, None] = {}
        """What has changed while something was being encoded."""
        shared.heartbeats.add(self)

    @property
    def is_over(self) -> bool:
        """Whether nobody reads here any more."""
        return not self.readers

    def forget(self, reader: "StateReader[I]") -> None:
        """A reader is gone."""
        self.hot.pop(reader, None)
        self.aside.pop(reader, None)
        self.readers.discard(reader)
        if not self.readers:
            self.source.close()
            self._drop()

    def change(self, asset_ids: Collection[int]) -> None:
        """These assets' state has changed."""
        for reader in tuple(self.aside):
            reader.take(asset_ids)
        for asset_id in asset_ids:
            self.waiting.pop(asset_id, None)
            self.waiting[asset_id] = None
        if not self._is_encoding:
            self._send_changed()

    def begin_anew(self) -> None:
        """What was known is no longer certain: everybody begins with a snapshot again."""
        self.waiting.clear()
        for reader in (*self.hot, *self.aside):
            reader.begin_anew()

    def beat(self) -> None:
        """Nothing was sent for the heartbeat's time."""
        if self.hot and not self._is_encoding:
            self._deliver(self.shared.payloads.of(self.encode, *self._heartbeat()))

    def _heartbeat(self) -> tuple[Hashable, Callable[[], Event[I]]]:
        event = self.source.bare(EventKind.HEARTBEAT)
        return (EventKind.HEARTBEAT, event.cursor), lambda: event

    def _send_changed(self) -> None:
        changed, self.waiting = self.waiting, {}
        event = self.source.update(changed, None) if changed and self.hot else None
        if event is not None:
            self.sent_at = asyncio.get_running_loop().time()
            self._deliver(encoded(self.encode, event))

    def _deliver(self, payload: Payload) -> None:
        sends = [reader.send for reader in self.hot]
        if isinstance(payload, bytes):
            broadcast(sends, payload)
        else:
            self._is_encoding = True
            spawn(self._deliver_later(sends, payload), name="realtime.group")

    async def _deliver_later(self, sends: Sequence[Send], payload: Awaitable[bytes]) -> None:
        try:
            encoded_ = await payload
        except Exception:
            _log.exception("realtime.encoder_failed")
            for reader in tuple(self.readers):
                reader.give_up()
            return
        finally:
            self._is_encoding = False
        broadcast(sends, encoded_)
        self._send_changed()


class StateReader(BaseReader, Generic[I]):
    """A subscription to candles or to assets."""

    def __init__(self, shared: Shared, sink: Sink, group: StateGroup[I], *, after: int | None) -> None:
        super().__init__(shared, sink)
        self.group = group
        self._after = after
        self._has_begun = False
        self._owed: list[Begin[I]] = []
        self._changed: dict[int, None] = {}
        self._missed = 0
        group.readers.add(self)

    def take(self, asset_ids: Iterable[int]) -> None:
        """These assets' state has changed; the reader learns of it when it can."""
        for asset_id in asset_ids:
            self._missed += asset_id in self._changed
            self._changed.pop(asset_id, None)
            self._changed[asset_id] = None

    def begin_anew(self) -> None:
        """Begin with a snapshot again."""
        self.group.hot.pop(self, None)
        self.group.aside.pop(self, None)
        self._after = None
        self._has_begun = False
        self._changed.clear()
        self.wake()

    def set_aside(self) -> None:
        """It has become congested."""
        if self in self.group.hot:
            del self.group.hot[self]
            self.group.aside[self] = None
            self.take(self.group.waiting)

    def leave(self) -> None:
        """It is closed."""
        self._owed.clear()
        self._changed.clear()
        self.group.forget(self)

    def advance(self) -> Step:
        """Begin, or send what has changed, and join those who are hot."""
        while not (self.is_closed or self.is_congested or self in self.group.hot):
            if not self._has_begun:
                return self._begin
            step = self._next()
            if step is not None:
                return step
        return None

    def _next(self) -> Step:
        if self._owed:
            begin = self._owed.pop(0)
            return self.emit(self.shared.payloads.of(self.group.encode, begin.key, begin.event))
        if self._changed:
            changed, self._changed = self._changed, {}
            missed, self._missed = self._missed, 0
            self.shared.counts.conflated += missed
            event = self.group.source.update(changed, missed or None)
            return None if event is None else self.emit(encoded(self.group.encode, event))
        self.group.aside.pop(self, None)
        self.group.hot[self] = None
        return None

    async def _begin(self) -> None:
        try:
            async with asyncio.timeout(DATABASE_SECONDS_MAX), self.shared.reads:
                begins = await self.group.source.begin(self._after)
        except DATABASE_ERRORS:
            await asyncio.sleep(RETRY_SECONDS)
            return
        if not self.is_closed:
            # From here on every change is kept for this reader: the group knows it, and nothing was awaited since.
            self._owed = list(begins)
            self._has_begun = True
            self.group.aside[self] = None
