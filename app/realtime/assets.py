"""Asset events: assets that were made or changed, as the audit log orders them; and who may see which asset at all."""

import asyncio
from collections.abc import Hashable, Iterable, Sequence
from typing import Final

from app import clock
from app.admin.audit_log import audit_log_head, changed_assets
from app.db import Connection
from app.exchange.assets import ASSET_COLUMNS, Asset, AssetStatus, asset_from_row
from app.exchange.reads import assets_by_id
from app.realtime.cursors import CursorKind, cursor_of
from app.realtime.events import Encoder, Event, EventKind, Sink
from app.realtime.shared import Shared
from app.realtime.states import Begin, StateGroup, StateReader

REPLAY_ENTRIES_MAX: Final = 10_000
"""Entries of the audit log that are replayed; who is further behind begins anew."""
_ENTRIES_AT_ONCE: Final = 1_000
_FRESH_SECONDS: Final = 1.0


class AssetBook:
    """The assets as of an entry of the audit log."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self.head = 0
        """The last entry that has been looked at."""
        self.assets: dict[int, Asset] = {}
        """Every asset, as it was when it was last read."""
        self._looked_at = 0.0

    async def load(self, connection: Connection) -> None:
        """Begin with how things are in the connection's snapshot."""
        self.head = await audit_log_head(connection=connection)
        rows = await connection.fetch(f"SELECT {ASSET_COLUMNS} FROM assets")
        self._set(asset_from_row(row) for row in rows)

    async def look_up(self, asset_ids: Iterable[int]) -> None:
        """Read these assets; one that does not exist is hidden."""
        wanted = list(asset_ids)
        async with self._shared.database.acquire() as connection:
            found = await assets_by_id(connection=connection, ids=wanted)
        self._set(found.values())
        for asset_id in wanted:
            if asset_id not in found:
                self._shared.visibility.set(asset_id, is_draft=True)

    async def look_again(self) -> None:
        """Read all assets, unless that was done a moment ago: supply and reserve move on without the audit log."""
        now = asyncio.get_running_loop().time()
        if now - self._looked_at > _FRESH_SECONDS:
            await self.look_up(self.assets)
            self._looked_at = now

    async def refresh(self) -> list[int]:
        """Take in what has changed; answers the assets, in the order of their last change."""
        changed: dict[int, None] = {}
        async with self._shared.database.acquire() as connection:
            head = self.head
            while True:
                ids, reached = await changed_assets(connection=connection, after_id=head, limit=_ENTRIES_AT_ONCE)
                for asset_id in ids:
                    changed.pop(asset_id, None)
                    changed[asset_id] = None
                if reached == head:
                    break
                head = reached
        if changed:
            await self.look_up(changed)
        self.head = head
        return [asset_id for asset_id in changed if asset_id in self.assets]

    def visible(self, asset_ids: Iterable[int], *, sees_drafts: bool) -> list[Asset]:
        """These assets, in their order, but for what a reader may not see."""
        shows = self._shared.visibility.shows
        known = [self.assets[asset_id] for asset_id in asset_ids if asset_id in self.assets]
        return [asset for asset in known if shows(asset.id, sees_drafts=sees_drafts)]

    def _set(self, assets: Iterable[Asset]) -> None:
        for asset in assets:
            self.assets[asset.id] = asset
            self._shared.visibility.set(asset.id, is_draft=asset.status is AssetStatus.DRAFT)


class AssetSource:
    """What one group reads: all assets that its readers may see."""

    def __init__(self, stream: "AssetStream", *, sees_drafts: bool) -> None:
        self._stream = stream
        self._sees_drafts = sees_drafts

    def update(self, changed: Iterable[int], missed: int | None) -> Event[Asset] | None:
        """The newest state of what has changed."""
        assets = self._stream.book.visible(changed, sees_drafts=self._sees_drafts)
        return self._event(EventKind.UPDATE, assets, missed) if assets else None

    def bare(self, kind: EventKind) -> Event[Asset]:
        """An event without assets."""
        return self._event(kind, ())

    async def begin(self, after: int | None) -> Sequence[Begin[Asset]]:
        """What has changed since, or a snapshot of all of them, by symbol; behind a gap where `after` leads nowhere."""
        book = self._stream.book
        async with self._stream.lock:
            await self._stream.take_in()
            if after is not None and book.head - REPLAY_ENTRIES_MAX <= after <= book.head:
                return await self._since(after)
            await book.look_again()
        gap = [] if after is None else [Begin(lambda: self.bare(EventKind.GAP), (EventKind.GAP, book.head))]
        self._stream.shared.counts.gaps += len(gap)
        return [*gap, Begin(self._snapshot, self._key())]

    async def _since(self, after: int) -> Sequence[Begin[Asset]]:
        async with self._stream.shared.database.acquire() as connection:
            ids, _ = await changed_assets(connection=connection, after_id=after, limit=REPLAY_ENTRIES_MAX)
        self._stream.shared.counts.replays_from_postgres += 1
        event = self.update(ids, None)
        return (
            [] if event is None else [Begin(lambda: event, (EventKind.UPDATE, self._sees_drafts, after, event.cursor))]
        )

    def close(self) -> None:
        """Nobody reads this any more."""

    def _snapshot(self) -> Event[Asset]:
        assets = self._stream.book.visible(self._stream.book.assets, sees_drafts=self._sees_drafts)
        return self._event(EventKind.SNAPSHOT, sorted(assets, key=lambda asset: asset.symbol), None)

    def _key(self) -> Hashable:
        return (EventKind.SNAPSHOT, self._sees_drafts, self._stream.book.head, self._stream.shared.visibility.version)

    def _event(self, kind: EventKind, assets: Sequence[Asset], missed: int | None = None) -> Event[Asset]:
        cursor = cursor_of(CursorKind.ASSETS, self._stream.book.head)
        return Event(kind, assets, cursor, clock.now(), missed)


class AssetStream:
    """All groups of readers of asset events."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.book = AssetBook(shared)
        self.lock = asyncio.Lock()
        """Held while the book is brought up to date, so that nothing is taken in twice."""
        self._groups: dict[Hashable, StateGroup[Asset]] = {}

    def open(
        self, *, sink: Sink, encode: Encoder[Asset], sees_drafts: bool, heartbeat_seconds: int, after: int | None
    ) -> StateReader[Asset]:
        """A new reader."""
        key = (encode, sees_drafts, heartbeat_seconds)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = StateGroup(
                self.shared,
                AssetSource(self, sees_drafts=sees_drafts),
                encode,
                heartbeat_seconds=heartbeat_seconds,
                drop=lambda: self._drop(key),
            )
        reader = StateReader(self.shared, sink, group, after=after)
        reader.start()
        return reader

    @property
    def readers(self) -> int:
        """How many there are."""
        return sum(len(group.readers) for group in self._groups.values())

    @property
    def groups(self) -> int:
        """How many there are."""
        return len(self._groups)

    async def look(self) -> None:
        """Take in what has changed, and tell everybody."""
        async with self.lock:
            await self.take_in()

    async def take_in(self) -> None:
        """The same, where the lock is held already."""
        changed = await self.book.refresh()
        if changed:
            for group in list(self._groups.values()):
                group.change(changed)

    def _drop(self, key: Hashable) -> None:
        self._groups.pop(key, None)
