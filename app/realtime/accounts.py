"""Account events: each account's own, in its own sequence, to its own readers alone. Nothing here is ever shared.

The events wait in PostgreSQL, so none is conflated or dropped: a reader that does not keep up is read less of them,
and closed when it falls too far behind.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from app import clock
from app.accounts.account_events import AccountChange, account_changes, account_heads
from app.realtime.cursors import CursorKind, cursor_of
from app.realtime.events import Encoder, Event, EventKind, Sink
from app.realtime.readers import BaseReader, Step
from app.realtime.shared import DATABASE_ERRORS, DATABASE_SECONDS_MAX, RETRY_SECONDS, Shared, encoded

WAITING_MAX: Final = 1_000
"""Events that may wait for a congested reader."""
REPLAY_EVENTS_MAX: Final = 10_000
"""Events that are replayed; who is further behind begins anew."""
_PAGE_EVENTS: Final = 100


class AccountReader(BaseReader):
    """A subscription to an account's events."""

    def __init__(
        self,
        stream: "AccountStream",
        sink: Sink,
        encode: Encoder[AccountChange],
        *,
        account_id: int,
        after: int | None,
        snapshot: bool,
        heartbeat_seconds: int,
    ) -> None:
        super().__init__(stream.shared, sink)
        self.account_id = account_id
        self.heartbeat_seconds = heartbeat_seconds
        self.sent_at = asyncio.get_running_loop().time()
        self._stream = stream
        self._encode = encode
        self._after = after
        self._snapshot = snapshot
        self._has_begun = False
        self._seq = 0
        """Everything up to it has been sent, or is not wanted."""
        self._owed: list[EventKind] = []
        self._changes: deque[AccountChange] = deque()
        self._may_have_more = False
        self._beat_is_due = False
        stream.add(self)
        self.shared.heartbeats.add(self)

    @property
    def is_over(self) -> bool:
        """Whether the reader is gone."""
        return self.is_closed

    def beat(self) -> None:
        """Nothing was sent for the heartbeat's time."""
        self._beat_is_due = True
        self.wake()

    def stir(self) -> None:
        """The account may have new events."""
        self._may_have_more = True
        self.wake()

    def learn(self, head: int) -> None:
        """The account's last event is known."""
        if self._has_begun and head > self._seq:
            if self.is_congested and head - self._seq > WAITING_MAX:
                self.give_up()
            else:
                self.stir()

    def leave(self) -> None:
        """It is closed."""
        self._changes.clear()
        self._stream.remove(self)

    def advance(self) -> Step:
        """Send what there is, and look for more where there may be more."""
        while not (self.is_closed or self.is_congested):
            if not self._has_begun:
                return self._begin
            event = self._next()
            if event is not None:
                self.sent_at = asyncio.get_running_loop().time()
                step = self.emit(encoded(self._encode, event))
                if step is not None:
                    return step
            elif self._may_have_more:
                return self._fetch
            else:
                return None
        return None

    def _next(self) -> Event[AccountChange] | None:
        if self._owed:
            return self._event(self._owed.pop(0), ())
        if self._changes:
            change = self._changes.popleft()
            self._seq = change.seq
            self._beat_is_due = False
            return self._event(EventKind.UPDATE, (change,))
        if self._beat_is_due and not self._may_have_more:
            self._beat_is_due = False
            return self._event(EventKind.HEARTBEAT, ())
        return None

    def _event(self, kind: EventKind, changes: Sequence[AccountChange]) -> Event[AccountChange]:
        return Event(kind, changes, cursor_of(CursorKind.ACCOUNT, self._seq), clock.now(), None, self._seq)

    async def _begin(self) -> None:
        """Where the account stands is read before the snapshot, which may hold more, but nothing less."""
        try:
            async with asyncio.timeout(DATABASE_SECONDS_MAX), self.shared.reads:
                heads = await self._stream.heads([self.account_id])
        except DATABASE_ERRORS:
            await asyncio.sleep(RETRY_SECONDS)
            return
        head, after = heads[self.account_id], self._after
        self._has_begun = True
        if after is not None and head - REPLAY_EVENTS_MAX <= after <= head:
            self.shared.counts.replays_from_postgres += 1
            self._seq = after
            self._may_have_more = head > after
            return
        self._seq = head
        if after is not None:
            self.shared.counts.gaps += 1
            self._owed = [EventKind.GAP, EventKind.SNAPSHOT]
        elif self._snapshot:
            self._owed = [EventKind.SNAPSHOT]

    async def _fetch(self) -> None:
        self._may_have_more = False
        try:
            async with (
                asyncio.timeout(DATABASE_SECONDS_MAX),
                self.shared.reads,
                self.shared.database.acquire() as connection,
            ):
                changes = await account_changes(
                    connection=connection, account_id=self.account_id, after_seq=self._seq, limit=_PAGE_EVENTS
                )
        except DATABASE_ERRORS:
            self._may_have_more = True
            await asyncio.sleep(RETRY_SECONDS)
            return
        self._changes.extend(changes)
        if len(changes) == _PAGE_EVENTS:
            self._may_have_more = True


class AccountStream:
    """All readers of account events, by account."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self._readers: dict[int, dict[AccountReader, None]] = {}

    def open(
        self,
        *,
        sink: Sink,
        encode: Encoder[AccountChange],
        account_id: int,
        after: int | None,
        snapshot: bool,
        heartbeat_seconds: int,
    ) -> AccountReader:
        """A new reader."""
        reader = AccountReader(
            self,
            sink,
            encode,
            account_id=account_id,
            after=after,
            snapshot=snapshot,
            heartbeat_seconds=heartbeat_seconds,
        )
        reader.start()
        return reader

    @property
    def readers(self) -> int:
        """How many there are."""
        return sum(map(len, self._readers.values()))

    def add(self, reader: AccountReader) -> None:
        """A reader has come."""
        self._readers.setdefault(reader.account_id, {})[reader] = None

    def remove(self, reader: AccountReader) -> None:
        """A reader is gone."""
        readers = self._readers.get(reader.account_id, {})
        readers.pop(reader, None)
        if not readers:
            self._readers.pop(reader.account_id, None)

    def stir(self, account_ids: Sequence[int]) -> None:
        """These accounts have new events."""
        for account_id in account_ids:
            for reader in tuple(self._readers.get(account_id, ())):
                reader.stir()

    async def look(self) -> None:
        """Look where all accounts that have readers stand."""
        if self._readers:
            heads = await self.heads(list(self._readers))
            for account_id, head in heads.items():
                for reader in tuple(self._readers.get(account_id, ())):
                    reader.learn(head)

    async def heads(self, account_ids: Sequence[int]) -> dict[int, int]:
        """The seq of each account's last event."""
        async with self.shared.database.acquire() as connection:
            return await account_heads(connection=connection, account_ids=account_ids)
