"""Live candles: of each asset, interval and price that somebody reads, the current candle and the one before it.

They begin with what PostgreSQL has at a known position, and go on from there with every tick, by the same arithmetic as
the price engine's.
"""

import asyncio
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from contextvars import Context
from dataclasses import replace
from typing import Final, TypeAlias

from app import clock
from app.pricing.candles import Candle, fold
from app.pricing.intervals import Interval, PriceKind
from app.pricing.reads import current_candles
from app.pricing.ticks import TICKS_HEAD, Tick
from app.realtime.events import Encoder, Event, EventKind, Sink
from app.realtime.shared import Shared
from app.realtime.states import Begin, StateGroup, StateReader

_GRACE_SECONDS: Final = 0.05
"""After a bucket's end, so that a clock that is a little early does not find it unfinished."""

_LOADS_MAX: Final = 3

BookKey: TypeAlias = tuple[Interval, PriceKind]


class _Line:
    """One asset's candles. `position` is that of the last tick that may be in them.

    `passed` are those before the previous one that have ended since `begin`: ticks of more than two buckets may come at
    once, from a price engine that had fallen behind.
    """

    __slots__ = ("_known", "current", "passed", "position", "previous")

    def __init__(self, position: int, candles: Sequence[Candle]) -> None:
        self.position = position
        self.current = candles[-1] if candles else None
        self.previous = candles[-2] if len(candles) > 1 else None
        self.begin()

    def begin(self) -> None:
        """Everything up to now has been told."""
        self.passed: list[Candle] = []
        self._known = self.previous

    def add(self, tick: Tick, interval: Interval, price: PriceKind) -> None:
        """Take in the asset's next tick, unless it is in already."""
        if tick.position <= self.position:
            return
        self.position = tick.position
        folded = fold(self.current, tick, interval=interval, price=price)
        if folded.ended is not None:
            if self.previous is not None and self.previous is not self._known:
                self.passed.append(self.previous)
            self.previous = folded.ended
        self.current = folded.current

    def close(self, now: float, interval: Interval) -> bool:
        """Close the current candle if its time is over at `now` (Unix seconds); answers whether that is new."""
        current = self.current
        if current is None or current.closed or current.time + interval.seconds > now:
            return False
        self.current = replace(current, closed=True)
        return True


class Book:
    """The candles of one interval and price, of those assets that somebody reads."""

    def __init__(self, shared: Shared, interval: Interval, price: PriceKind) -> None:
        self._shared = shared
        self.interval = interval
        self.price = price
        self.version = 0
        """Counts the changes."""
        self._lines: dict[int, _Line] = {}
        self._wanted: dict[int, int] = {}
        """How many groups read an asset."""

    @property
    def key(self) -> BookKey:
        """What the book is of."""
        return self.interval, self.price

    @property
    def is_wanted(self) -> bool:
        """Whether anybody reads here."""
        return bool(self._wanted)

    def want(self, asset_ids: Iterable[int]) -> None:
        """A group reads these."""
        for asset_id in asset_ids:
            self._wanted[asset_id] = self._wanted.get(asset_id, 0) + 1

    def leave(self, asset_ids: Iterable[int]) -> None:
        """A group reads these no longer."""
        for asset_id in asset_ids:
            self._wanted[asset_id] -= 1
            if not self._wanted[asset_id]:
                del self._wanted[asset_id]
                self._lines.pop(asset_id, None)

    def forget(self) -> None:
        """What is known has become uncertain: it must be loaded again."""
        self._lines.clear()
        self.version += 1

    async def load(self, asset_ids: Collection[int]) -> None:
        """Have the candles of these assets, as of the log's head or later."""
        missing = {asset_id for asset_id in asset_ids if asset_id not in self._lines}
        log = self._shared.log
        for _ in range(_LOADS_MAX if missing else 0):
            async with self._shared.database.snapshot() as connection:
                position = await connection.fetchval(
                    'SELECT "position" FROM stream_heads WHERE stream = $1', TICKS_HEAD
                )
                candles = await current_candles(
                    connection=connection,
                    asset_ids=missing,
                    interval=self.interval,
                    price=self.price,
                    now=int(clock.now().timestamp()),
                )
            # Otherwise the log has left behind what was read; that it does so again and again is for tests alone.
            if position > log.head or log.covers(position):
                break
        if missing:
            self._begin_lines(missing, position, candles)

    def _begin_lines(self, asset_ids: set[int], position: int, candles: Iterable[Candle]) -> None:
        """Begin with what was read, and take in what the log has of later positions."""
        log = self._shared.log
        for asset_id in asset_ids:
            if asset_id in self._wanted and asset_id not in self._lines:
                self.version += 1
                self._lines[asset_id] = _Line(position, [each for each in candles if each.asset_id == asset_id])
        after = max(min(position, log.head), log.oldest - 1)
        self.add(log.ticks(after, log.head, asset_ids), clock.now().timestamp())

    def add(self, ticks: Iterable[Tick], now: float) -> list[int]:
        """Take in ticks; answers the assets that somebody reads."""
        changed: dict[int, None] = {}
        for tick in ticks:
            line = self._lines.get(tick.asset_id)
            if line is not None:
                if tick.asset_id not in changed:
                    line.begin()
                line.add(tick, self.interval, self.price)
                line.close(now, self.interval)
                changed[tick.asset_id] = None
        self.version += bool(changed)
        return list(changed)

    def close(self, now: float) -> list[int]:
        """Close the candles whose time is over at `now` (Unix seconds); answers their assets."""
        closed = [asset_id for asset_id, line in self._lines.items() if line.close(now, self.interval)]
        for asset_id in closed:
            self._lines[asset_id].begin()
        self.version += bool(closed)
        return closed

    def candles(self, asset_ids: Iterable[int], *, with_passed: bool = False) -> list[Candle]:
        """The previous and the current candle of these assets; with those that passed in between, if asked for."""
        lines = [self._lines[asset_id] for asset_id in asset_ids if asset_id in self._lines]
        return [
            candle
            for line in lines
            for candle in (*(line.passed if with_passed else ()), line.previous, line.current)
            if candle is not None
        ]


class CandleSource:
    """What one group reads: some assets' candles in a book."""

    def __init__(self, shared: Shared, book: Book, asset_ids: frozenset[int], *, sees_drafts: bool) -> None:
        self._shared = shared
        self._book = book
        self.asset_ids = asset_ids
        self._sees_drafts = sees_drafts
        book.want(asset_ids)

    def update(self, changed: Iterable[int], missed: int | None) -> Event[Candle] | None:
        """The candles of what has changed."""
        wanted = self._visible(asset_id for asset_id in changed if asset_id in self.asset_ids)
        candles = self._book.candles(wanted, with_passed=True)
        return Event(EventKind.UPDATE, candles, "", clock.now()) if candles else None

    def bare(self, kind: EventKind) -> Event[Candle]:
        """An event without candles."""
        return Event(kind, (), "", clock.now())

    async def begin(self, after: int | None) -> Sequence[Begin[Candle]]:
        """A snapshot of all of them."""
        await self._book.load(self.asset_ids)
        return [Begin(self._snapshot, self._key())]

    def close(self) -> None:
        """Nobody reads this any more."""
        self._book.leave(self.asset_ids)

    def _snapshot(self) -> Event[Candle]:
        candles = self._book.candles(self._visible(sorted(self.asset_ids)))
        return Event(EventKind.SNAPSHOT, candles, "", clock.now())

    def _key(self) -> Hashable:
        book = self._book
        version = (book.version, self._shared.visibility.version)
        return (EventKind.SNAPSHOT, book.interval, book.price, self.asset_ids, self._sees_drafts, version)

    def _visible(self, asset_ids: Iterable[int]) -> list[int]:
        shows = self._shared.visibility.shows
        return [asset_id for asset_id in asset_ids if shows(asset_id, sees_drafts=self._sees_drafts)]


class CandleStream:
    """All groups of readers of candles, and the books that they read."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._books: dict[BookKey, Book] = {}
        self._groups: dict[Hashable, StateGroup[Candle]] = {}
        self._of: dict[BookKey, dict[int, dict[StateGroup[Candle], None]]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def open(
        self,
        *,
        sink: Sink,
        encode: Encoder[Candle],
        asset_ids: frozenset[int],
        interval: Interval,
        price: PriceKind,
        sees_drafts: bool,
        heartbeat_seconds: int,
    ) -> StateReader[Candle]:
        """A new reader."""
        key = (encode, asset_ids, interval, price, sees_drafts, heartbeat_seconds)
        group = self._groups.get(key)
        if group is None:
            book = self._book((interval, price))
            source = CandleSource(self._shared, book, asset_ids, sees_drafts=sees_drafts)
            group = self._groups[key] = self._make(key, book, source, encode, heartbeat_seconds)
        reader = StateReader(self._shared, sink, group, after=None)
        reader.start()
        return reader

    def _book(self, key: BookKey) -> Book:
        book = self._books.get(key)
        if book is None:
            book = self._books[key] = Book(self._shared, *key)
            self._arm()
        return book

    def _make(
        self, key: Hashable, book: Book, source: "CandleSource", encode: Encoder[Candle], heartbeat_seconds: int
    ) -> StateGroup[Candle]:
        groups = self._of.setdefault(book.key, {})

        def drop() -> None:
            del self._groups[key]
            for asset_id in source.asset_ids:
                del groups[asset_id][group]
                if not groups[asset_id]:
                    del groups[asset_id]
            if not book.is_wanted:
                self._books.pop(book.key, None)
                self._of.pop(book.key, None)

        group = StateGroup(self._shared, source, encode, heartbeat_seconds=heartbeat_seconds, drop=drop)
        for asset_id in source.asset_ids:
            groups.setdefault(asset_id, {})[group] = None
        return group

    @property
    def readers(self) -> int:
        """How many there are."""
        return sum(len(group.readers) for group in self._groups.values())

    @property
    def groups(self) -> int:
        """How many there are."""
        return len(self._groups)

    def appended(self, ticks: Sequence[Tick]) -> None:
        """These ticks have just been appended to the log."""
        now = clock.now().timestamp() if self._books else 0.0
        for key, book in list(self._books.items()):
            self._tell(key, book.add(ticks, now))

    def lose(self) -> None:
        """Positions were lost: everything is loaded again."""
        for book in self._books.values():
            book.forget()
        for group in list(self._groups.values()):
            group.begin_anew()

    def stop(self) -> None:
        """Close no more candles."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell(self, key: BookKey, changed: Collection[int]) -> None:
        concerned: dict[StateGroup[Candle], list[int]] = {}
        groups = self._of.get(key, {})
        for asset_id in changed:
            for group in groups.get(asset_id, ()):
                concerned.setdefault(group, []).append(asset_id)
        for group, asset_ids in concerned.items():
            group.change(asset_ids)

    def _arm(self) -> None:
        """Wake at the next end of a bucket that somebody reads."""
        self.stop()
        if self._books:
            now = clock.now().timestamp()
            seconds = min(interval.seconds - now % interval.seconds for interval, _ in self._books)
            wake: Callable[[], None] = self._close_ended
            self._timer = asyncio.get_running_loop().call_later(seconds + _GRACE_SECONDS, wake, context=Context())

    def _close_ended(self) -> None:
        self._timer = None
        now = clock.now().timestamp()
        for key, book in list(self._books.items()):
            self._tell(key, book.close(now))
        self._arm()
