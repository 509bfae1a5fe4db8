"""Where ticks and trades come from: the log, or PostgreSQL for what is older, and what a snapshot of each is."""

import asyncio
from collections.abc import Collection, Sequence
from typing import Final, Generic, Protocol, TypeVar

from app.exchange.orders import Trade
from app.exchange.reads import trades_by_seq
from app.pricing.reads import tick_bounds, ticks_from_position
from app.pricing.ticks import Tick, TickCause
from app.realtime.backlog import Backlog, Entry, TickBacklog, TradeBacklog
from app.realtime.cursors import CursorKind
from app.realtime.events import TickMode
from app.realtime.log import TradeEntry
from app.realtime.shared import DATABASE_ERRORS, DATABASE_SECONDS_MAX, EVENT_ITEMS_MAX, RETRY_SECONDS, Shared

E = TypeVar("E", bound=Entry)
I = TypeVar("I")  # noqa: E741 - an item, as E is an entry
I_co = TypeVar("I_co", covariant=True)

REPLAY_MAX: Final = 200_000
"""Positions that are replayed; who is further behind begins anew."""
_AHEAD_SECONDS: Final = 0.02


class Source(Protocol[E, I_co]):
    """What a stream of entries at positions is made of."""

    cursor: CursorKind

    def entries(self, ticks: Sequence[Tick]) -> list[E] | None:
        """The entries of ticks that were just appended to the log; None when it does not hold all of them."""

    def items(self, entries: Sequence[E]) -> Sequence[I_co]:
        """What readers are shown of entries."""

    def logged(self, after: int, up_to: int, asset_ids: Collection[int] | None) -> list[E] | None:
        """The entries at (after, up_to], which the log covers; None where it does not hold all of them."""

    async def stored(self, ticks: Sequence[Tick]) -> list[E]:
        """The entries of ticks that were read from PostgreSQL."""

    def snapshot(self, asset_ids: frozenset[int] | None, *, sees_drafts: bool) -> Sequence[I_co]:
        """What a reader begins with, as of the log's head."""

    def backlog(self, mode: TickMode) -> Backlog[E]:
        """Where a slow reader's entries wait."""


class TickSource:
    """Ticks."""

    cursor = CursorKind.TICKS

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def entries(self, ticks: Sequence[Tick]) -> list[Tick] | None:
        """Ticks are their own entries."""
        return list(ticks)

    def items(self, entries: Sequence[Tick]) -> Sequence[Tick]:
        """Ticks are their own items."""
        return entries

    def logged(self, after: int, up_to: int, asset_ids: Collection[int] | None) -> list[Tick] | None:
        """From the log."""
        return self._shared.log.ticks(after, up_to, asset_ids)

    async def stored(self, ticks: Sequence[Tick]) -> list[Tick]:
        """As they are."""
        return list(ticks)

    def snapshot(self, asset_ids: frozenset[int] | None, *, sees_drafts: bool) -> Sequence[Tick]:
        """The newest tick of each asset, by asset."""
        latest, shows = self._shared.latest, self._shared.visibility.shows
        wanted = sorted(latest if asset_ids is None else asset_ids)
        return [latest[each] for each in wanted if each in latest and shows(each, sees_drafts=sees_drafts)]

    def backlog(self, mode: TickMode) -> Backlog[Tick]:
        """Every tick up to a limit, or only the newest of each asset."""
        return TickBacklog() if mode is TickMode.ALL else TickBacklog(limit=0)


class TradeSource:
    """Trades, at the positions of their ticks."""

    cursor = CursorKind.TRADES

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def entries(self, ticks: Sequence[Tick]) -> list[TradeEntry] | None:
        """The trades behind these ticks; None when one of them was not told with its tick."""
        return self.logged(ticks[0].position - 1, ticks[-1].position, None)

    def items(self, entries: Sequence[TradeEntry]) -> Sequence[Trade]:
        """The trades."""
        return [entry.trade for entry in entries]

    def logged(self, after: int, up_to: int, asset_ids: Collection[int] | None) -> list[TradeEntry] | None:
        """From the log."""
        return self._shared.log.trades(after, up_to, asset_ids)

    async def stored(self, ticks: Sequence[Tick]) -> list[TradeEntry]:
        """From the table of trades."""
        keys = {(tick.asset_id, tick.trade_seq): tick for tick in ticks if tick.cause is TickCause.TRADE}
        if not keys:
            return []
        async with self._shared.database.acquire() as connection:
            trades = await trades_by_seq(connection=connection, keys=keys)
        return [TradeEntry(tick.position, tick.asset_id, trades[key]) for key, tick in keys.items()]

    def snapshot(self, asset_ids: frozenset[int] | None, *, sees_drafts: bool) -> Sequence[Trade]:
        """Nothing: what was traded is a query."""
        return ()

    def backlog(self, mode: TickMode) -> Backlog[TradeEntry]:
        """The newest trades."""
        return TradeBacklog()


class Replays(Generic[E, I]):
    """Pages of what PostgreSQL still has."""

    def __init__(self, shared: Shared, source: Source[E, I]) -> None:
        self._shared = shared
        self._source = source

    async def page(self, after: int, asset_ids: Collection[int] | None) -> tuple[Sequence[E], int] | None:
        """The next entries after a position, up to the log's head, and where they end; None where some of what lies
        between is kept no longer, or was never there. Waits while PostgreSQL is away."""
        while True:
            try:
                async with asyncio.timeout(DATABASE_SECONDS_MAX), self._shared.reads:
                    return await self._read(after, asset_ids)
            except DATABASE_ERRORS:
                await asyncio.sleep(RETRY_SECONDS)

    async def _read(self, after: int, asset_ids: Collection[int] | None) -> tuple[Sequence[E], int] | None:
        head = self._shared.log.head
        async with self._shared.database.acquire() as connection:
            ticks = await ticks_from_position(
                connection=connection,
                after_position=after,
                up_to_position=head,
                asset_ids=asset_ids,
                limit=EVENT_ITEMS_MAX,
            )
            # Asked afterwards: what had gone before the ticks were read is gone now too.
            oldest, stored_head = await tick_bounds(connection=connection)
        if after > stored_head or after + 1 < oldest or stored_head - after > REPLAY_MAX:
            return None
        if after >= head:
            await asyncio.sleep(_AHEAD_SECONDS)  # This process has not yet heard of what another one has already sent.
            return (), after
        end = ticks[-1].position if len(ticks) == EVENT_ITEMS_MAX else head
        return await self._source.stored(ticks), end
