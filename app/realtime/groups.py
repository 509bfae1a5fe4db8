"""Groups of readers of ticks and of trades: who reads alike is served as one.

A group's readers are *hot* (sent to in one loop), *aside* (congested, or come in the middle of an interval: what comes
is kept for each of them) or *behind* (still being sent what was before they came). Nothing here waits or asks anybody,
but for an encoder that must.
"""

import asyncio
from collections.abc import Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import structlog

from app.realtime.backlog import Backlog, Entry, newest_of_each
from app.realtime.events import Encoder, EventKind, Sink, TickMode
from app.realtime.readers import BaseReader, Step
from app.realtime.shared import EVENT_ITEMS_MAX, Payload, Send, Shared, broadcast, spawn

if TYPE_CHECKING:
    from app.realtime.streams import PositionStream, Throttle

E = TypeVar("E", bound=Entry)
I = TypeVar("I")  # noqa: E741 - an item, as E is an entry

GATHERED_MAX: Final = 5_000
"""Entries that a group gathers; an interval that brings more ends early."""
_STEPS_AT_ONCE: Final = 4
"""Events that one reader is sent before others get their turn."""

_log = structlog.get_logger(__name__)


class Group(Generic[E, I]):
    """Readers with the same encoder, assets, sight, mode, throttle and heartbeat."""

    def __init__(
        self,
        stream: "PositionStream[E, I]",
        *,
        encode: Encoder[I],
        asset_ids: frozenset[int] | None,
        sees_drafts: bool,
        mode: TickMode,
        throttle: "Throttle | None",
        heartbeat_seconds: int,
    ) -> None:
        self.stream = stream
        self.encode = encode
        self.asset_ids = asset_ids
        self.sees_drafts = sees_drafts
        self.mode = mode
        self.throttle = throttle
        self.heartbeat_seconds = heartbeat_seconds
        self.readers: set[PositionReader[E, I]] = set()
        self.hot: dict[PositionReader[E, I], None] = {}
        self.aside: dict[PositionReader[E, I], None] = {}
        self.sends: list[Send] | None = []
        """How the hot readers are sent to; None when somebody has come or gone since it was made."""
        self.gathered: list[E] = []
        """What waits for the end of the interval, or for an event that is still being encoded."""
        self.flushed = stream.shared.log.head
        """Everything up to this position has been sent, or is on its way, to those who are hot."""
        self.sent_at = asyncio.get_running_loop().time()
        self.is_encoding = False
        """Whether an event is on its way that the encoder has not finished."""
        self._falls_behind = False
        self._losses = 0
        """Counts how often positions were lost: what was being encoded then is not sent any more."""

    @property
    def is_over(self) -> bool:
        """Whether nobody reads here any more."""
        return not self.readers

    # ---------------------------------------------------------------------------------------------- readers
    def settle(self, reader: "PositionReader[E, I]") -> bool:
        """Take a reader that has been sent everything up to its position. Whether it is hot now.

        It is not while what has been gathered holds something that it knows already.
        """
        waits = bool(self.gathered) and self.gathered[0].position <= reader.position
        if waits or reader.is_congested:
            self.aside[reader] = None
            return False
        self.aside.pop(reader, None)
        self.hot[reader] = None
        self.sends = None
        return True

    def cool(self, reader: "PositionReader[E, I]") -> None:
        """A hot reader has become congested."""
        self.hot.pop(reader, None)
        self.sends = None
        self.aside[reader] = None

    def forget(self, reader: "PositionReader[E, I]") -> None:
        """A reader is gone."""
        self.readers.discard(reader)
        self.aside.pop(reader, None)
        if reader in self.hot:
            del self.hot[reader]
            self.sends = None
        if not self.readers:
            self.gathered.clear()
            self.stream.drop(self)

    def lose(self) -> None:
        """Positions were lost: everybody is told so, and begins anew."""
        self._losses += 1
        for reader in self._drop_live():
            reader.lose()

    def fall_behind(self) -> None:
        """The log does not hold what comes next: everybody catches up from where it stands."""
        if self.is_encoding:
            self._falls_behind = True
            return
        for reader in self.hot:
            reader.position = max(reader.position, self.flushed)
        for reader in self._drop_live():
            reader.fall_behind()

    def _drop_live(self) -> "list[PositionReader[E, I]]":
        self.gathered = []
        self._falls_behind = False
        self.flushed = self.stream.shared.log.head
        live = [*self.hot, *self.aside]
        self.hot.clear()
        self.aside.clear()
        self.sends = None
        return live

    # ---------------------------------------------------------------------------------------------- sending
    def flush(self, end: int) -> None:
        """Send what has been gathered; `end` is the position that it reaches up to."""
        while self.gathered and not self.is_encoding:
            raw, up_to, missed = self.gathered, end, None
            if self.mode is TickMode.ALL and len(raw) > EVENT_ITEMS_MAX:
                raw, self.gathered = raw[:EVENT_ITEMS_MAX], raw[EVENT_ITEMS_MAX:]
                up_to = raw[-1].position
            else:
                self.gathered = []
            chunk: Sequence[E] = raw
            if self.mode is TickMode.LATEST:
                chunk, missed = newest_of_each(raw)
            self._send(raw, chunk, up_to, missed)

    def _send(self, raw: Sequence[E], chunk: Sequence[E], up_to: int, missed: int | None) -> None:
        # Whoever leaves `hot` while this is sent is sent it all the same: it must not be kept for them too.
        sends = self.current_sends()
        self.flushed = up_to
        self.sent_at = asyncio.get_running_loop().time()
        for reader in tuple(self.aside):
            reader.take(raw)
        if sends:
            self.deliver(sends, self.stream.payload(self, EventKind.UPDATE, chunk, up_to, missed))

    def current_sends(self) -> list[Send]:
        """How the hot readers are sent to. The list is never changed, only replaced."""
        if self.sends is None:
            self.sends = [reader.send for reader in self.hot]
        return self.sends

    def deliver(self, sends: Sequence[Send], payload: Payload) -> None:
        """Send a payload to these, at once or as soon as it is there."""
        self.stream.shared.counts.delivered += len(sends)
        if isinstance(payload, bytes):
            broadcast(sends, payload)
        else:
            self.is_encoding = True
            spawn(self._deliver_later(sends, payload, self._losses), name="realtime.group")

    async def _deliver_later(self, sends: Sequence[Send], payload: "asyncio.Future[bytes]", losses: int) -> None:
        try:
            encoded = await payload
        except Exception:
            _log.exception("realtime.encoder_failed")
            for reader in tuple(self.readers):
                reader.give_up()
            return
        finally:
            self.is_encoding = False
        if losses == self._losses:
            broadcast(sends, encoded)
        if self._falls_behind:
            self.fall_behind()
        self.stream.due(self, self.stream.shared.log.head)

    def beat(self) -> None:
        """Nothing was sent for the heartbeat's time: everything up to the head was none of theirs."""
        sends = self.current_sends()
        if not self.gathered and not self.is_encoding and sends:
            self.flushed = self.stream.shared.log.head
            self.deliver(sends, self.stream.payload(self, EventKind.HEARTBEAT, (), self.flushed, None))


class Place(Enum):
    """Where a reader stands in its group."""

    BEHIND = auto()
    ASIDE = auto()
    HOT = auto()


class PositionReader(BaseReader, Generic[E, I]):
    """A subscription to ticks or to trades."""

    def __init__(self, shared: Shared, sink: Sink, group: Group[E, I], *, after: int | None, snapshot: bool) -> None:
        super().__init__(shared, sink)
        self.group = group
        self.position = shared.log.head if after is None else after
        """Everything up to it has been sent, or is not wanted."""
        self.owed: list[EventKind] = [EventKind.SNAPSHOT] if after is None and snapshot else []
        self._place = Place.BEHIND
        self._resumes = after is not None
        self._backlog: Backlog[E] | None = None
        self._page: tuple[Sequence[E], int] | None = None
        group.readers.add(self)

    # ---------------------------------------------------------------------------------------------- by the group
    def take(self, entries: Sequence[E]) -> None:
        """Keep what the group is being sent."""
        if self._backlog is None:
            self._backlog = self.group.stream.source.backlog(self.group.mode)
        fresh = [entry for entry in entries if entry.position > self.position]
        self.shared.counts.conflated += self._backlog.add(fresh)
        if not self.is_congested:
            self.wake()

    def lose(self) -> None:
        """What this reader would have been sent next is lost."""
        self.owed = [EventKind.GAP, EventKind.SNAPSHOT]
        self.fall_behind()

    def fall_behind(self) -> None:
        """Catch up from where the reader stands."""
        self._place = Place.BEHIND
        self._backlog = None
        self.wake()

    # ---------------------------------------------------------------------------------------------- BaseReader
    def set_aside(self) -> None:
        """It has become congested."""
        if self._place is Place.HOT:
            self._place = Place.ASIDE
            self.position = max(self.position, self.group.flushed)
            self.group.cool(self)

    def leave(self) -> None:
        """It is closed."""
        self._backlog = None
        self._page = None
        self.group.forget(self)

    def advance(self) -> Step:
        """Come nearer to the head, or send what was kept, and join those who are hot."""
        steps = 0
        while not (self.is_closed or self.is_congested or self._place is Place.HOT):
            if self._place is Place.ASIDE and not self._backlog:
                self._backlog = None
                if self.group.settle(self):
                    self._place = Place.HOT
                return None
            step = self._approach() if self._place is Place.BEHIND else self._send_kept()
            steps += 1
            if step is not None:
                return step
            if steps >= _STEPS_AT_ONCE:
                return _pause
        return None

    def _send_kept(self) -> Step:
        if self._backlog is None:
            raise AssertionError("nothing was kept")
        entries, missed = self._backlog.take(EVENT_ITEMS_MAX)
        self.position = entries[-1].position
        return self._emit(EventKind.UPDATE, entries, missed)

    def _approach(self) -> Step:
        head = self.shared.log.head
        if self.owed:
            return self._pay(self.owed.pop(0))
        if self.position == head:
            # Nothing is awaited from here on until the reader is in its group.
            self._page = None
            self._place = Place.HOT if self.group.settle(self) else Place.ASIDE
            return None
        if self.position > head:
            return self._fetch
        page, self._page = self._page or self.group.stream.page(self.group, self.position), None
        if page is None:
            return self._fetch
        self._count_replay(from_memory=True)
        entries, self.position = page
        missed = None
        if self.group.mode is TickMode.LATEST:
            entries, missed = newest_of_each(entries)
        return self._emit(EventKind.UPDATE, entries, missed) if entries else None

    def _pay(self, kind: EventKind) -> Step:
        self.position, self._page = self.shared.log.head, None
        if kind is EventKind.GAP:
            self.shared.counts.gaps += 1
            return self._emit(kind, (), None)
        return self.emit(self.group.stream.snapshot(self.group))

    def _emit(self, kind: EventKind, entries: Sequence[E], missed: int | None) -> Step:
        return self.emit(self.group.stream.payload(self.group, kind, entries, self.position, missed))

    async def _fetch(self) -> None:
        """Ask PostgreSQL for the next page; where it no longer has it, the reader is told so and begins anew."""
        self._count_replay(from_memory=False)
        page = await self.group.stream.fetch_page(self.group, self.position)
        if page is None:
            self.owed = [EventKind.GAP, EventKind.SNAPSHOT]
        else:
            self._page = page

    def _count_replay(self, *, from_memory: bool) -> None:
        if self._resumes:
            self._resumes = False
            self.shared.counts.replays_from_memory += from_memory
            self.shared.counts.replays_from_postgres += not from_memory


async def _pause() -> None:
    """Let others have their turn."""
    await asyncio.sleep(0)
