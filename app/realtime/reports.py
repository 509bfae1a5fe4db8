"""Oracle reports as they are made, or as their outcome changes: the newest positions of a stream that PostgreSQL keeps.

Only while somebody reads is PostgreSQL asked for new ones: when told of some, and once a second. What lies behind is
read from there too, page by page, by readers who resume and by those who did not keep up: none is ever left out.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from app import clock
from app.db import Connection
from app.oracle.kinds import Evidence
from app.oracle.report_reads import evidence_of, latest_reports, report_head, reports_after
from app.oracle.report_rows import Report
from app.realtime.cursors import CursorKind, cursor_of
from app.realtime.events import Encoder, Event, EventKind, Sink
from app.realtime.readers import BaseReader, Step
from app.realtime.shared import (
    DATABASE_ERRORS,
    DATABASE_SECONDS_MAX,
    RETRY_SECONDS,
    Payload,
    Shared,
    broadcast,
    spawn,
)
from app.tasks import end

REPLAY_POSITIONS_MAX: Final = 10_000
"""Positions that are replayed; who is further behind begins anew."""
EVENT_REPORTS_MAX: Final = 100
"""Reports in one event, but for a snapshot: they carry their evidence."""
SNAPSHOT_SECONDS: Final = 1.0
"""For so long a snapshot at the same position is shown again: what the price engine makes of reports moves on."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ToldReport:
    """A report with its evidence, in its order."""

    report: Report
    evidence: tuple[Evidence, ...]


async def with_evidence(connection: Connection, reports: Sequence[Report]) -> list[ToldReport]:
    """These reports with what they were judged by, read at once."""
    found = await evidence_of(connection=connection, report_ids=[each.id for each in reports]) if reports else {}
    return [ToldReport(each, tuple(found.get(each.id, ()))) for each in reports]


class ReportGroup:
    """Readers with the same encoder, assets, sight and heartbeat. Those who are *hot* have had everything up to
    `reached`; the others are on their way there by themselves."""

    def __init__(
        self,
        stream: "ReportStream",
        *,
        encode: Encoder[ToldReport],
        asset_ids: frozenset[int] | None,
        sees_drafts: bool,
        heartbeat_seconds: int,
    ) -> None:
        self.stream = stream
        self.encode = encode
        self.asset_ids = asset_ids
        self.sees_drafts = sees_drafts
        self.heartbeat_seconds = heartbeat_seconds
        self.sent_at = asyncio.get_running_loop().time()
        self.reached = stream.head
        self.readers: set[ReportReader] = set()
        self.hot: dict[ReportReader, None] = {}
        self._is_encoding = False
        self._waiting: list[ToldReport] = []
        """What has come while something was being encoded."""
        stream.shared.heartbeats.add(self)

    @property
    def is_over(self) -> bool:
        """Whether nobody reads here any more."""
        return not self.readers

    def forget(self, reader: "ReportReader") -> None:
        """A reader is gone."""
        self.hot.pop(reader, None)
        self.readers.discard(reader)
        if not self.readers:
            self.stream.drop(self)

    def join(self, reader: "ReportReader") -> bool:
        """Make a reader hot who has had everything up to the stream's head; False while others still wait for it."""
        if self._is_encoding or reader.position != self.stream.head:
            return False
        self.reached = self.stream.head
        self.hot[reader] = None
        return True

    def visible(self, told: Sequence[ToldReport]) -> list[ToldReport]:
        """Those that these readers asked for and may see."""
        shows = self.stream.shared.visibility.shows
        return [
            each
            for each in told
            if (self.asset_ids is None or each.report.asset_id in self.asset_ids)
            and shows(each.report.asset_id, sees_drafts=self.sees_drafts)
        ]

    def append(self, told: Sequence[ToldReport]) -> None:
        """These reports have just come; the stream's head is behind them."""
        self._waiting += self.visible(told)
        if not self._is_encoding:
            self._send_waiting()
        for reader in [each for each in self.readers if each not in self.hot]:
            reader.wake()

    def beat(self) -> None:
        """Nothing was sent for the heartbeat's time."""
        if self.hot and not self._is_encoding:
            self._deliver(self.payload(EventKind.HEARTBEAT, (), self.reached), self.reached)

    def payload(self, kind: EventKind, told: Sequence[ToldReport], position: int) -> Payload:
        """An event that ends at a position; the same bytes for all who are sent the same."""
        event = Event(kind, told, cursor_of(CursorKind.REPORTS, position), clock.now())
        key = (kind, position, *[(each.report.position, each.report.fundamental_after) for each in told])
        return self.stream.shared.payloads.of(self.encode, (CursorKind.REPORTS, key), lambda: event)

    def _send_waiting(self) -> None:
        waiting, self._waiting = self._waiting[:EVENT_REPORTS_MAX], self._waiting[EVENT_REPORTS_MAX:]
        reached = waiting[-1].report.position if self._waiting else self.stream.head
        if waiting and self.hot:
            self.sent_at = asyncio.get_running_loop().time()
            self._deliver(self.payload(EventKind.UPDATE, waiting, reached), reached)
        else:
            self.reached = reached
        if self._waiting and not self._is_encoding:
            self._send_waiting()

    def _deliver(self, payload: Payload, reached: int) -> None:
        if isinstance(payload, bytes):
            self.reached = reached
            broadcast([reader.send for reader in self.hot], payload)
        else:
            self._is_encoding = True
            spawn(self._deliver_later(list(self.hot), payload, reached), name="realtime.group")

    async def _deliver_later(self, readers: Sequence["ReportReader"], payload: Awaitable[bytes], reached: int) -> None:
        try:
            encoded_ = await payload
        except Exception:
            _log.exception("realtime.encoder_failed")
            for reader in tuple(self.readers):
                reader.give_up()
            return
        finally:
            self._is_encoding = False
        # Nobody has joined meanwhile; whoever has left finds this again by its own position.
        self.reached = reached
        broadcast([reader.send for reader in readers if reader in self.hot], encoded_)
        self.append(())


class ReportReader(BaseReader):
    """A subscription to reports."""

    def __init__(self, group: ReportGroup, sink: Sink, *, after: int | None) -> None:
        super().__init__(group.stream.shared, sink)
        self.group = group
        self.position = 0
        """Everything up to it has been sent, or is not for this reader; of a hot one the group's `reached` holds."""
        self._after = after
        self._has_begun = False
        self._owed: list[Callable[[], Payload]] = []
        group.readers.add(self)

    def set_aside(self) -> None:
        """It has become congested."""
        if self in self.group.hot:
            del self.group.hot[self]
            self.position = self.group.reached

    def leave(self) -> None:
        """It is closed."""
        self._owed.clear()
        self.group.forget(self)

    def advance(self) -> Step:
        """Begin, come nearer to the head, and join those who are hot there."""
        while not (self.is_closed or self.is_congested or self in self.group.hot):
            if not self._has_begun:
                return self._begin
            if self._owed:
                step = self.emit(self._owed.pop(0)())
                if step is not None:
                    return step
            elif self.position < self.group.stream.head:
                return self._fetch
            elif not self.group.join(self):
                return None
        return None

    async def _begin(self) -> None:
        stream, group = self.group.stream, self.group
        try:
            async with asyncio.timeout(DATABASE_SECONDS_MAX), self.shared.reads:
                await stream.take_in()
                after, head = self._after, stream.head
                if after is not None and head - REPLAY_POSITIONS_MAX <= after <= head:
                    self.shared.counts.replays_from_postgres += 1
                    self.position, self._has_begun = after, True
                    return
                at, told = await stream.snapshot()
                await stream.look_for_assets()
        except DATABASE_ERRORS:
            await asyncio.sleep(RETRY_SECONDS)
            return
        if self._after is not None:
            self.shared.counts.gaps += 1
            self._owed.append(lambda: group.payload(EventKind.GAP, (), at))
        shown = group.visible(told)
        self._owed.append(lambda: group.payload(EventKind.SNAPSHOT, shown, at))
        self.position, self._has_begun = at, True

    async def _fetch(self) -> None:
        """The next reports after the position, up to the head as it is now; where that is too far, begin anew."""
        stream, after = self.group.stream, self.position
        head = stream.head
        if head - after > REPLAY_POSITIONS_MAX:
            self._after, self._has_begun = after, False
            return
        try:
            async with asyncio.timeout(DATABASE_SECONDS_MAX), self.shared.reads:
                told = await stream.read(after, self.group.asset_ids)
                await stream.look_for_assets()
        except DATABASE_ERRORS:
            await asyncio.sleep(RETRY_SECONDS)
            return
        last = told[-1].report.position if told else head
        # A report beyond the head is sent by the time the head has come there; a full page ends where it ends.
        reached = last if len(told) == EVENT_REPORTS_MAX else max(head, last)
        shown = self.group.visible(told)
        self.position = reached
        if shown and not self.is_closed:
            self._owed.append(lambda: self.group.payload(EventKind.UPDATE, shown, reached))


class ReportStream:
    """All groups of readers of reports. `look_for_assets` learns which assets are drafts: whenever reports have been
    read, before they are sent, so that those of an asset that was opened a moment before are not passed over."""

    def __init__(self, shared: Shared, *, look_for_assets: Callable[[], Awaitable[None]]) -> None:
        self.shared = shared
        self.head = 0
        """The last position that was looked at."""
        self.look_for_assets = look_for_assets
        self._lock = asyncio.Lock()
        """Held while the head moves, so that nothing is sent twice."""
        self._groups: dict[Hashable, ReportGroup] = {}
        self._keys: dict[ReportGroup, Hashable] = {}
        self._snapshot: tuple[float, int, list[ToldReport]] | None = None
        self._is_stirred = False
        self._task: asyncio.Task[None] | None = None

    def open(
        self,
        *,
        sink: Sink,
        encode: Encoder[ToldReport],
        asset_ids: frozenset[int] | None,
        sees_drafts: bool,
        heartbeat_seconds: int,
        after: int | None,
    ) -> ReportReader:
        """A new reader."""
        key = (encode, asset_ids, sees_drafts, heartbeat_seconds)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = ReportGroup(
                self, encode=encode, asset_ids=asset_ids, sees_drafts=sees_drafts, heartbeat_seconds=heartbeat_seconds
            )
            self._keys[group] = key
        reader = ReportReader(group, sink, after=after)
        reader.start()
        return reader

    def drop(self, group: ReportGroup) -> None:
        """Nobody reads in this group any more."""
        self._groups.pop(self._keys.pop(group, None), None)

    @property
    def readers(self) -> int:
        """How many there are."""
        return sum(len(group.readers) for group in self._groups.values())

    @property
    def groups(self) -> int:
        """How many there are."""
        return len(self._groups)

    # ---------------------------------------------------------------------------------------------- what is read
    def stir(self) -> None:
        """There are new reports: take them in soon, if anybody reads."""
        self._is_stirred = True
        if self._groups and (self._task is None or self._task.done()):
            self._task = spawn(self._take_in_all(), name="realtime.reports")

    async def stop(self) -> None:
        """Take in nothing more."""
        if self._task is not None:
            await end([self._task])

    async def look(self) -> None:
        """Take in what is new, if anybody reads."""
        if self._groups:
            await self.take_in()

    async def take_in(self) -> None:
        """Take in what is new, and tell everybody. Raises what a database that is away raises."""
        async with self._lock:
            while True:
                told, reached = await self._next()
                if reached <= self.head:
                    return
                await self.look_for_assets()
                if told is None and self._is_followed:
                    continue  # Somebody has come to the head meanwhile, and waits for what follows it.
                # Nothing is awaited from here on until everybody has it.
                self.head = reached
                for group in list(self._groups.values()):
                    group.append(told or ())

    @property
    def _is_followed(self) -> bool:
        return any(group.hot for group in self._groups.values())

    async def _next(self) -> tuple[list[ToldReport] | None, int]:
        """The next reports, and where they end; only that where everybody is still on the way."""
        async with self.shared.database.acquire() as connection:
            if not self._is_followed:
                return None, await report_head(connection=connection)
            reports = await reports_after(
                connection=connection, after_position=self.head, asset_ids=None, limit=EVENT_REPORTS_MAX
            )
            return await with_evidence(connection, reports), reports[-1].position if reports else self.head

    async def _take_in_all(self) -> None:
        while self._is_stirred and self._groups:
            self._is_stirred = False
            try:
                async with asyncio.timeout(DATABASE_SECONDS_MAX):
                    await self.take_in()
            except DATABASE_ERRORS as error:
                _log.warning("realtime.reports_away", error=repr(error))  # The look of every second brings them.
            except Exception:
                _log.exception("realtime.reports_failed")

    async def read(self, after: int, asset_ids: Collection[int] | None) -> list[ToldReport]:
        """The next reports of these assets after a position, `EVENT_REPORTS_MAX` at most."""
        async with self.shared.database.acquire() as connection:
            reports = await reports_after(
                connection=connection, after_position=after, asset_ids=asset_ids, limit=EVENT_REPORTS_MAX
            )
            return await with_evidence(connection, reports)

    async def snapshot(self) -> tuple[int, list[ToldReport]]:
        """Each asset's latest report, by asset, and the position that this is true at."""
        now = asyncio.get_running_loop().time()
        if self._snapshot is None or self._snapshot[1] != self.head or now - self._snapshot[0] > SNAPSHOT_SECONDS:
            async with self.shared.database.snapshot() as connection:
                head = await report_head(connection=connection)
                reports = await latest_reports(connection=connection, asset_ids=None)
                reports = sorted(reports, key=lambda each: each.asset_id)
                self._snapshot = now, head, await with_evidence(connection, reports)
        return self._snapshot[1], self._snapshot[2]
