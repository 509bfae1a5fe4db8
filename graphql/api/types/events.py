"""Events of the streams: envelopes with a cursor around what the other modules of this folder show.

Everybody's streams are encoded once for all who read alike, so nothing that their events lead to may depend on who
reads. An account's own events are shown here too, to its owner only.
"""

from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from typing import Final

import strawberry

from api.context import Info
from api.enums import describe
from api.fields import computed
from api.scalars import Cursor, Seq
from api.types.holdings import Balance, Position, show_balance, show_position
from api.types.markets import Asset, Candle, PriceTick, Trade
from api.types.oracle import OracleReport
from api.types.orders import Fill, Order, show_fill, show_order
from app.accounts.account_events import AccountChange
from app.exchange.reads import holdings, orders_page
from app.ledger.reads import Cash
from app.paging import Window
from app.realtime.events import Event, EventKind, TickMode


class Throttle(StrEnum):
    """How often ticks come at most."""

    NONE = "NONE"
    MS_100 = "MS_100"
    MS_250 = "MS_250"
    MS_1000 = "MS_1000"

    @property
    def milliseconds(self) -> int:
        """The interval; 0 for none."""
        return 0 if self is Throttle.NONE else int(self.value.removeprefix("MS_"))


describe(
    EventKind,
    description="What an event of a stream is.",
    values={
        "SNAPSHOT": "How things stand now: what comes next changes that.",
        "UPDATE": "What has happened since the event before.",
        "HEARTBEAT": "Nothing happened for a while; the cursor has moved past what was filtered out.",
        "GAP": "What lies between the cursor asked for and now cannot be replayed any more; a SNAPSHOT follows.",
    },
)
describe(
    TickMode,
    description="Whether a reader gets every tick.",
    values={
        "ALL": "Every tick.",
        "LATEST": "The newest of each asset, skipping where the reader is slow; skips are counted in missed.",
    },
)
describe(
    Throttle,
    description=(
        "How often ticks come at most. With ALL, ticks of one interval come together in one event; with LATEST only "
        "the newest of each asset."
    ),
    values={
        "NONE": "As they happen.",
        "MS_100": "Once in 100 milliseconds.",
        "MS_250": "Once in 250 milliseconds.",
        "MS_1000": "Once in a second.",
    },
)

OPEN_ORDERS_MAX: Final = 500
"""Of the orders that wait, the newest that a SNAPSHOT shows."""

_KIND = "What this event is."
_CURSOR = "Where it ends: give it as after to go on from here, under any other arguments."
_SERVER_TIME = "The server's clock when the event was made."
_MISSED = "How much was left out before this event because the reader was slow; null for nothing."


@strawberry.type(description="Ticks of one or many assets, in the order in which they were committed.")
class PriceEvent:
    """Read from `app.realtime.events.Event`, whose attributes have the same names."""

    kind: EventKind = strawberry.field(description=_KIND)
    ticks: list[PriceTick] = strawberry.field(
        description="The ticks; the newest of each asset in a SNAPSHOT; none in a HEARTBEAT or GAP."
    )
    cursor: Cursor = strawberry.field(description=_CURSOR)
    server_time: datetime = strawberry.field(description=_SERVER_TIME)
    missed: int | None = strawberry.field(description=_MISSED)


@strawberry.type(description="Trades of one or many assets, in the order in which their ticks were committed.")
class TradeEvent:
    """Read from `app.realtime.events.Event`."""

    kind: EventKind = strawberry.field(description=_KIND)
    trades: list[Trade] = strawberry.field(description="The trades; none in a SNAPSHOT, HEARTBEAT or GAP.")
    cursor: Cursor = strawberry.field(description=_CURSOR)
    server_time: datetime = strawberry.field(description=_SERVER_TIME)
    missed: int | None = strawberry.field(description=_MISSED)


@strawberry.type(description="Assets that were created, or changed in status or rules.")
class AssetEvent:
    """Read from `app.realtime.events.Event`."""

    kind: EventKind = strawberry.field(description=_KIND)
    assets: list[Asset] = strawberry.field(
        description="The assets as they are now; every one in a SNAPSHOT; none in a HEARTBEAT or GAP."
    )
    cursor: Cursor = strawberry.field(description=_CURSOR)
    server_time: datetime = strawberry.field(description=_SERVER_TIME)
    missed: int | None = strawberry.field(description=_MISSED)


@strawberry.type(description="Reports of oracles, in the order in which they were committed.")
class OracleEvent:
    """Read from `app.realtime.events.Event`."""

    kind: EventKind = strawberry.field(description=_KIND)
    reports: list[OracleReport] = strawberry.field(
        description="The reports; the latest of each asset in a SNAPSHOT; none in a HEARTBEAT or GAP."
    )
    cursor: Cursor = strawberry.field(description=_CURSOR)
    server_time: datetime = strawberry.field(description=_SERVER_TIME)
    missed: int | None = strawberry.field(description=_MISSED)


@strawberry.type(
    description=(
        "Candles as they stand. State, not events: each (re)connection begins with a SNAPSHOT of the current and the "
        "previous candle of each asset."
    )
)
class CandleEvent:
    """Read from `app.realtime.events.Event`, which has no cursor here."""

    kind: EventKind = strawberry.field(description=_KIND)
    candles: list[Candle] = strawberry.field(
        description="Candles that have changed, closed ones before those that follow them; none in a HEARTBEAT."
    )
    server_time: datetime = strawberry.field(description=_SERVER_TIME)


@strawberry.type(
    description=(
        "What happened to the caller's account, gapless in a sequence of its own. A SNAPSHOT holds balances, open "
        "orders and open positions as they are; an UPDATE holds one order or transfer and what it left behind. The "
        "first UPDATEs may tell of what the SNAPSHOT has already."
    )
)
class AccountEvent:
    """Made for one reader. What is not asked for is not read."""

    kind: EventKind = strawberry.field(description=_KIND)
    seq: Seq = strawberry.field(
        description="Gapless per account, from 1. In other events than UPDATEs, the last one that has happened."
    )
    cursor: Cursor = strawberry.field(description=_CURSOR)
    server_time: datetime = strawberry.field(description=_SERVER_TIME)
    missed: int | None = strawberry.field(description=_MISSED)
    account_id: strawberry.Private[int]
    changes: strawberry.Private[tuple[AccountChange, ...]]

    @computed(
        "The order that was placed or has changed, REJECTED ones too; all that still wait in a SNAPSHOT, at most 500."
    )
    async def orders(self, info: Info) -> list[Order]:
        if self.kind is EventKind.SNAPSHOT:
            async with info.context.services.database.acquire() as connection:
                page = await orders_page(
                    connection=connection, account_id=self.account_id, is_open=True, window=Window(OPEN_ORDERS_MAX)
                )
            return [show_order(row) for row in page.rows]
        found = await info.context.loaders.orders.load_many(self._order_ids())
        return [show_order(row) for row in found if row is not None]

    @computed("The trades that filled the order; none in a SNAPSHOT.")
    async def fills(self, info: Info) -> list[Fill]:
        found = await info.context.loaders.fills_of_orders.load_many(self._order_ids())
        return [show_fill(row) for rows in found for row in rows or ()]

    @computed("The money that this left behind, in the currency that moved; in a SNAPSHOT one for each currency.")
    async def balances(self, info: Info) -> list[Balance]:
        if self.kind is EventKind.SNAPSHOT:
            return [show_balance(row) for row in await info.context.loaders.cash.load(self.account_id) or ()]
        return [show_balance(cash) for cash in map(_cash, self.changes) if cash is not None]

    @computed(
        "The position that this left behind, valued at the asset's present state; in a SNAPSHOT all that hold shares."
    )
    async def positions(self, info: Info) -> list[Position]:
        if self.kind is EventKind.SNAPSHOT:
            async with info.context.services.database.acquire() as connection:
                held = await holdings(connection=connection, account_id=self.account_id)
            return [show_position(row, asset) for row, asset in held if row.shares]
        return [await _position(info, change) for change in self.changes if change.shares is not None]

    def _order_ids(self) -> list[int]:
        return [change.order_id for change in self.changes if change.order_id is not None]


def show_account_event(event: Event[AccountChange], *, account_id: int) -> AccountEvent:
    """An event of the account's own stream."""
    return AccountEvent(
        kind=event.kind,
        seq=Seq(event.seq),
        cursor=Cursor(event.cursor),
        server_time=event.server_time,
        missed=event.missed,
        account_id=account_id,
        changes=tuple(event.items),
    )


def _cash(change: AccountChange) -> Cash | None:
    if change.currency is None or change.available is None or change.held is None:
        return None
    return Cash(change.account_id, change.currency, change.available, change.held)


async def _position(info: Info, change: AccountChange) -> Position:
    """The position as the change left it, which may not be how it is by now."""
    key = (change.account_id, change.asset_id or 0)
    holding = await info.context.loaders.holdings.load(key)
    if holding is None or change.shares is None or change.cost_basis is None or change.realized_pnl is None:
        raise LookupError(f"event {change.seq} of account {change.account_id} names a position that does not exist")
    row, asset = holding
    then = replace(row, shares=change.shares, cost_basis=change.cost_basis, realized_pnl=change.realized_pnl)
    return show_position(then, asset)
