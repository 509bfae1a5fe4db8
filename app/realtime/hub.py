"""The hub: one process's live streams. The edge opens readers here; what is wired to what stands here alone."""

from collections.abc import Mapping, Sequence
from typing import Final

from redis.asyncio import Redis

from app.accounts.account_events import AccountChange
from app.bus import Changes
from app.db import Connection, Database
from app.exchange.assets import Asset
from app.exchange.orders import Trade
from app.exchange.reads import trades_by_seq
from app.pricing.candles import Candle
from app.pricing.intervals import Interval, PriceKind
from app.pricing.reads import latest_ticks, ticks_from_position
from app.pricing.ticks import TICKS_HEAD, Tick, TickCause, TradeKey
from app.realtime.accounts import AccountStream
from app.realtime.assets import AssetStream
from app.realtime.candles import CandleStream
from app.realtime.cursors import CursorKind, position_of
from app.realtime.events import Encoder, Reader, Sink, TickMode
from app.realtime.feed import Feed
from app.realtime.log import TradeEntry
from app.realtime.reports import ReportStream, ToldReport
from app.realtime.shared import Counts, Shared
from app.realtime.sources import TickSource, TradeSource
from app.realtime.streams import PositionStream

PRELOADED_TICKS_MAX: Final = 5_000
"""Ticks that a new process reads at once, so that those who come back after a restart resume from memory."""


class Realtime:
    """One process's live streams. `start` before use, `stop` at the end.

    Opening a stream raises `Refused` (INVALID_INPUT) for an `after` that is no cursor of it. The reader is being sent
    its first events from then on, perhaps before the function returns.
    """

    def __init__(self, *, database: Database, redis: Redis | None) -> None:
        self._shared = Shared(database)
        self._ticks: PositionStream[Tick, Tick] = PositionStream(self._shared, TickSource(self._shared))
        self._trades: PositionStream[TradeEntry, Trade] = PositionStream(self._shared, TradeSource(self._shared))
        self._candles = CandleStream(self._shared)
        self._assets = AssetStream(self._shared)
        self._accounts = AccountStream(self._shared)
        self._reports = ReportStream(self._shared, look_for_assets=self._assets.look)
        self._feed = Feed(self._shared, redis, self)

    async def start(self) -> None:
        """Learn where everything stands, and begin to follow. Raises what a database that is away raises."""
        async with self._shared.database.snapshot() as connection:
            await self._assets.book.load(connection)
            await self._load_positions(connection)
            head = self._shared.log.head
            self._shared.log.reset(max(0, head - PRELOADED_TICKS_MAX))
            ticks = await ticks_from_position(
                connection=connection,
                after_position=self._shared.log.head,
                up_to_position=head,
                asset_ids=None,
                limit=PRELOADED_TICKS_MAX,
            )
            keys = [(tick.asset_id, tick.trade_seq) for tick in ticks if tick.cause is TickCause.TRADE]
            trades = await trades_by_seq(connection=connection, keys=keys) if keys else {}
        self._preload(head, ticks, trades)
        self._feed.start()

    async def stop(self) -> None:
        """Send nothing more. Readers are not told: their connections close with a code that says so."""
        await self._feed.stop()
        await self._reports.stop()
        self._ticks.stop()
        self._trades.stop()
        self._candles.stop()
        self._shared.heartbeats.stop()
        self._shared.slow.stop()

    # ---------------------------------------------------------------------------------------------- readers
    async def price_ticks(
        self,
        *,
        sink: Sink,
        encode: Encoder[Tick],
        asset_ids: frozenset[int] | None,
        sees_drafts: bool,
        mode: TickMode,
        throttle_ms: int,
        heartbeat_seconds: int,
        after: str | None,
        snapshot: bool,
    ) -> Reader:
        """Ticks. `throttle_ms` is 0, 100, 250 or 1000."""
        return self._ticks.open(
            sink=sink,
            encode=encode,
            asset_ids=asset_ids,
            sees_drafts=sees_drafts,
            mode=mode,
            throttle_ms=throttle_ms,
            heartbeat_seconds=heartbeat_seconds,
            after=_position(CursorKind.TICKS, after),
            snapshot=snapshot,
        )

    async def trades(
        self,
        *,
        sink: Sink,
        encode: Encoder[Trade],
        asset_ids: frozenset[int] | None,
        sees_drafts: bool,
        heartbeat_seconds: int,
        after: str | None,
    ) -> Reader:
        """Trades, as the price engine takes them in."""
        return self._trades.open(
            sink=sink,
            encode=encode,
            asset_ids=asset_ids,
            sees_drafts=sees_drafts,
            heartbeat_seconds=heartbeat_seconds,
            after=_position(CursorKind.TRADES, after),
            snapshot=True,
        )

    async def candles(
        self,
        *,
        sink: Sink,
        encode: Encoder[Candle],
        asset_ids: frozenset[int],
        interval: Interval,
        price: PriceKind,
        sees_drafts: bool,
        heartbeat_seconds: int,
    ) -> Reader:
        """The current and the previous candle of each asset, as they change."""
        return self._candles.open(
            sink=sink,
            encode=encode,
            asset_ids=asset_ids,
            interval=interval,
            price=price,
            sees_drafts=sees_drafts,
            heartbeat_seconds=heartbeat_seconds,
        )

    async def asset_events(
        self, *, sink: Sink, encode: Encoder[Asset], sees_drafts: bool, heartbeat_seconds: int, after: str | None
    ) -> Reader:
        """Assets that are made, or changed in status or rules."""
        return self._assets.open(
            sink=sink,
            encode=encode,
            sees_drafts=sees_drafts,
            heartbeat_seconds=heartbeat_seconds,
            after=_position(CursorKind.ASSETS, after),
        )

    async def account_events(
        self,
        *,
        sink: Sink,
        encode: Encoder[AccountChange],
        account_id: int,
        after: str | None,
        snapshot: bool,
        heartbeat_seconds: int,
    ) -> Reader:
        """An account's own events, one change each. Those of a SNAPSHOT are left to the encoder, which is this
        reader's own: its `seq` was read before, so that what the encoder reads holds at least as much."""
        return self._accounts.open(
            sink=sink,
            encode=encode,
            account_id=account_id,
            after=_position(CursorKind.ACCOUNT, after),
            snapshot=snapshot,
            heartbeat_seconds=heartbeat_seconds,
        )

    async def oracle_reports(
        self,
        *,
        sink: Sink,
        encode: Encoder[ToldReport],
        asset_ids: frozenset[int] | None,
        sees_drafts: bool,
        heartbeat_seconds: int,
        after: str | None,
    ) -> Reader:
        """Reports of oracles as they are made, and as their outcome changes."""
        return self._reports.open(
            sink=sink,
            encode=encode,
            asset_ids=asset_ids,
            sees_drafts=sees_drafts,
            heartbeat_seconds=heartbeat_seconds,
            after=_position(CursorKind.REPORTS, after),
        )

    # ---------------------------------------------------------------------------------------------- how it is
    @property
    def position(self) -> int:
        """The position of the last tick that this process has."""
        return self._shared.log.head

    @property
    def behind(self) -> int:
        """Positions that PostgreSQL is known to have and this process has not."""
        return self._feed.behind

    @property
    def redis_is_up(self) -> bool:
        """Whether Redis carried ticks here when it was last asked."""
        return self._feed.redis_is_up

    @property
    def readers(self) -> int:
        """Open subscriptions."""
        streams = (self._ticks, self._trades, self._candles, self._assets, self._accounts, self._reports)
        return sum(stream.readers for stream in streams)

    @property
    def groups(self) -> int:
        """Groups of readers who read alike, but for account events, where everybody reads alone."""
        streams = (self._ticks, self._trades, self._candles, self._assets, self._reports)
        return sum(stream.groups for stream in streams)

    @property
    def congested(self) -> int:
        """Readers that do not keep up at the moment."""
        return len(self._shared.slow)

    @property
    def counts(self) -> Counts:
        """What has happened since the start."""
        return self._shared.counts

    # ---------------------------------------------------------------------------------------------- feed.Receiver
    def append(self, ticks: Sequence[Tick], trades: Mapping[TradeKey, Trade]) -> None:
        """Ticks that follow the last: keep them, and send them to whoever reads them."""
        shared = self._shared
        shared.log.append(ticks, trades)
        for tick in ticks:
            shared.latest[tick.asset_id] = tick
        self._ticks.appended(ticks)
        self._trades.appended(ticks)
        self._candles.appended(ticks)

    def changed(self, changes: Changes) -> None:
        """Accounts have new events, oracles have reported, or assets have changed."""
        self._accounts.stir(changes.accounts)
        if changes.reports:
            self._reports.stir()
        if changes.assets:
            self._feed.hurry()

    async def look_up_assets(self, asset_ids: set[int]) -> None:
        """Learn whether these assets are drafts, before anything of them is sent."""
        await self._assets.book.look_up(asset_ids)

    async def look(self) -> None:
        """Look for changes of assets, and for what is new of accounts and of reports that are read."""
        await self._assets.look()
        await self._accounts.look()
        await self._reports.look()

    async def jump(self, head: int | None) -> None:
        """Go on after `head`, or from where PostgreSQL is: what lies between is lost to readers, and they are told."""
        if head is None:
            async with self._shared.database.snapshot() as connection:
                is_lost = await self._load_positions(connection)
            if not is_lost:
                return
        else:
            self._shared.log.reset(head)
        self._ticks.lose()
        self._trades.lose()
        self._candles.lose()

    async def _load_positions(self, connection: Connection) -> bool:
        """Go on from the connection's snapshot: the head, and the assets' last ticks up to it. False where this process
        is there already."""
        head = await connection.fetchval('SELECT "position" FROM stream_heads WHERE stream = $1', TICKS_HEAD)
        ids = await connection.fetch("SELECT asset_id FROM price_states")
        latest = await latest_ticks(connection=connection, asset_ids=[row["asset_id"] for row in ids])
        if head <= self._shared.log.head:
            return False
        self._shared.log.reset(head)
        self._shared.latest = latest
        return True

    def _preload(self, head: int, ticks: Sequence[Tick], trades: Mapping[TradeKey, Trade]) -> None:
        """Fill the log with what led to `head`, as far as it is contiguous."""
        first = len(ticks)
        while first and ticks[first - 1].position == head - (len(ticks) - first):
            first -= 1
        self._shared.log.reset(head - (len(ticks) - first))
        self._shared.log.append(ticks[first:], trades)


def _position(kind: CursorKind, cursor: str | None) -> int | None:
    return None if cursor is None else position_of(kind, cursor)
