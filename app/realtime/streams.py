"""The streams of ticks and of trades: which group wants what, when it is sent, and how a reader comes in.

Sending an arriving batch is synchronous from its first reader to its last. That, and that a reader joins its group
without awaiting anything, is why no entry is lost or repeated between a reader's replay and its live flow.
"""

import asyncio
from collections.abc import Hashable, Sequence
from contextvars import Context
from typing import Final, Generic, Protocol, TypeAlias, TypeVar

from app import clock
from app.pricing.ticks import Tick
from app.realtime.backlog import Entry
from app.realtime.cursors import cursor_of
from app.realtime.events import Encoder, Event, EventKind, Sink, TickMode
from app.realtime.groups import GATHERED_MAX, Group, PositionReader
from app.realtime.shared import EVENT_ITEMS_MAX, Payload, Shared, broadcast
from app.realtime.sources import Replays, Source

E = TypeVar("E", bound=Entry)
I = TypeVar("I")  # noqa: E741 - an item, as E is an entry
Page: TypeAlias = tuple[Sequence[E], int]

THROTTLES_MS: Final = (100, 250, 1_000)
_PAGE_POSITIONS: Final = {True: 256, False: 2_048}
"""Positions in a page of the log, for readers of every asset and for those of a list. Pages end at multiples, so that
readers who come back from different positions share all of them but the first."""


class Flushing(Protocol):
    """Whoever gathers and is told when to send."""

    def flush(self, end: int) -> None:
        """Send what has been gathered, up to the position `end`."""


class Throttle:
    """The groups of one interval: one timer for all of them, and only while something waits."""

    def __init__(self, shared: Shared, milliseconds: int) -> None:
        self._shared = shared
        self._seconds = milliseconds / 1_000
        self._waiting: dict[Flushing, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def touch(self, group: Flushing) -> None:
        """The group has gathered something."""
        self._waiting[group] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self.fire, context=Context())

    def fire(self) -> None:
        """The interval is over."""
        self.stop()
        waiting, self._waiting = self._waiting, {}
        for group in waiting:
            group.flush(self._shared.log.head)

    def stop(self) -> None:
        """Wait no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class PositionStream(Generic[E, I]):
    """All groups of one kind of entries."""

    def __init__(self, shared: Shared, source: Source[E, I]) -> None:
        self.shared = shared
        self.source = source
        self._replays = Replays(shared, source)
        self._groups: dict[Hashable, Group[E, I]] = {}
        self._keys: dict[Group[E, I], Hashable] = {}
        self._of_asset: dict[int, dict[Group[E, I], None]] = {}
        self._of_all: dict[Group[E, I], None] = {}
        self._routes: dict[int, list[Group[E, I]]] = {}
        """Whom an asset's entries go to. Forgotten whenever a group or an asset's visibility changes."""
        self._routes_version = -1
        self._throttles = {each: Throttle(shared, each) for each in THROTTLES_MS}

    # ---------------------------------------------------------------------------------------------- readers
    def open(
        self,
        *,
        sink: Sink,
        encode: Encoder[I],
        asset_ids: frozenset[int] | None,
        sees_drafts: bool,
        heartbeat_seconds: int,
        after: int | None,
        snapshot: bool,
        mode: TickMode = TickMode.ALL,
        throttle_ms: int = 0,
    ) -> PositionReader[E, I]:
        """A new reader, which is being sent what it begins with. Raises KeyError for a throttle that is none."""
        key = (encode, asset_ids, sees_drafts, mode, throttle_ms, heartbeat_seconds)
        group = self._groups.get(key)
        if group is None:
            group = Group(
                self,
                encode=encode,
                asset_ids=asset_ids,
                sees_drafts=sees_drafts,
                mode=mode,
                throttle=self._throttles[throttle_ms] if throttle_ms else None,
                heartbeat_seconds=heartbeat_seconds,
            )
            self._add(key, group)
        reader = PositionReader(self.shared, sink, group, after=after, snapshot=snapshot)
        reader.start()
        return reader

    def _add(self, key: Hashable, group: Group[E, I]) -> None:
        self._groups[key] = group
        self._keys[group] = key
        if group.asset_ids is None:
            self._of_all[group] = None
        else:
            for asset_id in group.asset_ids:
                self._of_asset.setdefault(asset_id, {})[group] = None
        self._forget_routes(group)
        self.shared.heartbeats.add(group)

    def drop(self, group: Group[E, I]) -> None:
        """Nobody reads in this group any more."""
        self._groups.pop(self._keys.pop(group, None), None)
        self._of_all.pop(group, None)
        for asset_id in group.asset_ids or ():
            groups = self._of_asset.get(asset_id, {})
            groups.pop(group, None)
            if not groups:
                self._of_asset.pop(asset_id, None)
        self._forget_routes(group)

    def _forget_routes(self, group: Group[E, I]) -> None:
        if group.asset_ids is None:
            self._routes.clear()
        else:
            for asset_id in group.asset_ids:
                self._routes.pop(asset_id, None)

    @property
    def readers(self) -> int:
        """How many there are."""
        return sum(len(group.readers) for group in self._groups.values())

    @property
    def groups(self) -> int:
        """How many there are."""
        return len(self._groups)

    def stop(self) -> None:
        """Send nothing more."""
        for throttle in self._throttles.values():
            throttle.stop()

    # ---------------------------------------------------------------------------------------------- sending
    def appended(self, ticks: Sequence[Tick]) -> None:
        """These ticks have just been appended to the log."""
        if self._groups:
            entries = self.source.entries(ticks)
            if entries is None:
                for group in list(self._groups.values()):
                    group.fall_behind()
            elif entries:
                self.dispatch(entries, ticks[-1].position)

    def dispatch(self, entries: Sequence[E], end: int) -> None:
        """Send entries at the end of the log, whose head is `end`."""
        if self._routes_version != self.shared.visibility.version:
            self._routes.clear()
            self._routes_version = self.shared.visibility.version
        if len(entries) == 1:
            touched = self._dispatch_one(entries[0], end)
        else:
            touched = []
            for entry in entries:
                for group in self._routes.get(entry.asset_id) or self._route(entry.asset_id):
                    if not group.gathered:
                        touched.append(group)
                    group.gathered.append(entry)
        for group in touched:
            self.due(group, end)

    def _dispatch_one(self, entry: E, end: int) -> list[Group[E, I]]:
        """The common case, cut short where a group has nothing else to think of; answers the other groups."""
        payloads: dict[Encoder[I], Payload] = {}
        entries = (entry,)
        touched, delivered = [], 0
        now = asyncio.get_running_loop().time()
        for group in self._routes.get(entry.asset_id) or self._route(entry.asset_id):
            if not (group.gathered or group.aside or group.throttle or group.is_encoding or group.sends is None):
                payload = payloads.get(group.encode)
                if payload is None:
                    payload = payloads[group.encode] = self.payload(group, EventKind.UPDATE, entries, end, None)
                if type(payload) is bytes:
                    group.flushed = end
                    group.sent_at = now
                    delivered += len(group.sends)
                    broadcast(group.sends, payload)
                    continue
            if not group.gathered:
                touched.append(group)
            group.gathered.append(entry)
        self.shared.counts.delivered += delivered
        return touched

    def due(self, group: Group[E, I], end: int) -> None:
        """The group has gathered something: send it, or let it wait for the end of its interval."""
        if group.throttle is None or len(group.gathered) > GATHERED_MAX:
            group.flush(end)
        elif group.gathered:
            group.throttle.touch(group)

    def lose(self) -> None:
        """Positions were lost: the log begins anew at its head."""
        for group in list(self._groups.values()):
            group.lose()

    def _route(self, asset_id: int) -> list[Group[E, I]]:
        shows = self.shared.visibility.shows
        route = self._routes[asset_id] = [
            group
            for groups in (self._of_asset.get(asset_id, {}), self._of_all)
            for group in groups
            if shows(asset_id, sees_drafts=group.sees_drafts)
        ]
        return route

    # ---------------------------------------------------------------------------------------------- what is sent
    def payload(
        self, group: Group[E, I], kind: EventKind, entries: Sequence[E], position: int, missed: int | None
    ) -> Payload:
        """An event that reaches up to `position`, encoded; for all who are sent the same, only once."""

        def make() -> Event[I]:
            cursor = cursor_of(self.source.cursor, position)
            return Event(kind, self.source.items(entries), cursor, clock.now(), missed)

        key = (self.source.cursor, kind, position, missed, *[entry.position for entry in entries])
        return self.shared.payloads.of(group.encode, key, make)

    def snapshot(self, group: Group[E, I]) -> Payload:
        """A snapshot as of the log's head."""
        head = self.shared.log.head

        def make() -> Event[I]:
            items = self.source.snapshot(group.asset_ids, sees_drafts=group.sees_drafts)
            return Event(EventKind.SNAPSHOT, items, cursor_of(self.source.cursor, head), clock.now())

        key = (self.source.cursor, head, group.asset_ids, group.sees_drafts, self.shared.visibility.version)
        return self.shared.payloads.of(group.encode, key, make)

    def page(self, group: Group[E, I], after: int) -> Page[E] | None:
        """What a reader of the group missed after a position, as far as one event goes; None where the log does not
        reach back so far."""
        log = self.shared.log
        if not log.covers(after):
            return None
        step = _PAGE_POSITIONS[group.asset_ids is None]
        end = min(log.head, after - after % step + step)
        entries = self.source.logged(after, end, group.asset_ids)
        if entries is None:
            return None
        if len(entries) > EVENT_ITEMS_MAX:
            entries = entries[:EVENT_ITEMS_MAX]
            end = entries[-1].position
        return self._visible(group, entries), end

    async def fetch_page(self, group: Group[E, I], after: int) -> Page[E] | None:
        """The same from PostgreSQL; None where it cannot be replayed any more."""
        page = await self._replays.page(after, group.asset_ids)
        return None if page is None else (self._visible(group, page[0]), page[1])

    def _visible(self, group: Group[E, I], entries: Sequence[E]) -> Sequence[E]:
        shows, sees_drafts = self.shared.visibility.shows, group.sees_drafts
        return [entry for entry in entries if shows(entry.asset_id, sees_drafts=sees_drafts)]
