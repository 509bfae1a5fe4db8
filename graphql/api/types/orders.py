"""Orders and an account's own side of its trades."""

from collections.abc import Sequence
from datetime import datetime
from typing import TypeAlias

import strawberry

from api.context import Info
from api.fields import computed
from api.node_ids import asset_node_id, node_id
from api.nodes import Connection, Node
from api.scalars import Decimal, Seq, money, price, shares
from api.types.markets import Asset, load_asset
from app.errors import ErrorCode
from app.exchange.curve import average_price
from app.exchange.orders import Order as OrderRow
from app.exchange.orders import OrderStatus, OrderType, Side, TimeInForce
from app.exchange.orders import Trade as TradeRow


@strawberry.type(description="An account's own side of a trade.")
class Fill(Node):
    """A trade as the account that made it sees it."""

    order_id: strawberry.ID = strawberry.field(description="The id of the order that it filled.")
    client_order_id: str = strawberry.field(description="That order's clientOrderId.")
    asset_id: strawberry.ID = strawberry.field(description="The asset's id.")
    trade_seq: Seq = strawberry.field(description="The trade's position in the asset's own gapless sequence.")
    side: Side = strawberry.field(description="BUY or SELL.")
    shares: Decimal = strawberry.field(description="How many shares came or went.")
    price: Decimal = strawberry.field(description="gross / shares, half-even at 12 decimals.")
    gross: Decimal = strawberry.field(description="Quote currency moved, before fees.")
    fee: Decimal = strawberry.field(description="The fee that was paid: added to a purchase, taken from a sale.")
    at: datetime = strawberry.field(description="When it happened, by the database's clock.")


@strawberry.type(
    description="What an account asked for, and what came of it, refusals under the asset's lock included."
)
class Order(Node):
    """An order as its account sees it."""

    client_order_id: str = strawberry.field(description="The account's own key, unique among its orders.")
    asset_id: strawberry.ID = strawberry.field(description="The asset's id.")
    side: Side = strawberry.field(description="BUY or SELL.")
    type: OrderType = strawberry.field(description="How it executes.")
    time_in_force: TimeInForce = strawberry.field(description="How long it may wait.")
    status: OrderStatus = strawberry.field(description="Where it stands.")
    limit_price: Decimal | None = strawberry.field(description="LIMIT only: the worst price; null on a MARKET order.")
    shares: Decimal | None = strawberry.field(description="The shares asked for; null where amount was given instead.")
    amount: Decimal | None = strawberry.field(
        description="The most to pay, fee included, as asked for; null where shares was given instead."
    )
    filled_shares: Decimal = strawberry.field(description="How many shares were filled.")
    average_price: Decimal | None = strawberry.field(
        description="gross / filledShares, half-even at 12 decimals; null while nothing is filled."
    )
    gross: Decimal = strawberry.field(description="Quote currency moved, before fees.")
    fee: Decimal = strawberry.field(description="The fees paid.")
    reason: ErrorCode | None = strawberry.field(description="Why it was REJECTED; null on any other order.")
    created_at: datetime = strawberry.field(description="When it was taken in, by the database's clock.")
    updated_at: datetime = strawberry.field(description="When it last changed, by the database's clock.")
    row: strawberry.Private[OrderRow]
    own_fills: strawberry.Private[Sequence[TradeRow] | None]

    @computed("The asset.")
    async def asset(self, info: Info) -> Asset:
        return await load_asset(info, self.row.asset_id)

    @computed("The trades that filled it, oldest first.")
    async def fills(self, info: Info) -> list[Fill]:
        rows = self.own_fills
        if rows is None:
            rows = await info.context.loaders.fills_of_orders.load(self.row.id) or ()
        return [show_fill(row) for row in rows]


FillConnection: TypeAlias = Connection[Fill]
OrderConnection: TypeAlias = Connection[Order]


def show_order(row: OrderRow, fills: Sequence[TradeRow] | None = None) -> Order:
    """The order in a row; `fills` where they are known already."""
    return Order(
        id=node_id("Order", row.id),
        client_order_id=row.client_order_id,
        asset_id=asset_node_id(row.asset_id),
        side=row.side,
        type=row.type,
        time_in_force=row.time_in_force,
        status=row.status,
        limit_price=None if row.limit_price is None else price(row.limit_price),
        shares=None if row.shares is None else shares(row.shares),
        amount=None if row.amount is None else money(row.amount),
        filled_shares=shares(row.filled_shares),
        average_price=price(average_price(row.gross, row.filled_shares)) if row.filled_shares else None,
        gross=money(row.gross),
        fee=money(row.fee),
        reason=row.refusal.code if row.refusal else None,
        created_at=row.created_at,
        updated_at=row.updated_at,
        row=row,
        own_fills=fills,
    )


def show_fill(row: TradeRow) -> Fill:
    """The account's side of a trade."""
    return Fill(
        id=node_id("Fill", row.id),
        order_id=node_id("Order", row.order_id),
        client_order_id=row.client_order_id,
        asset_id=asset_node_id(row.asset_id),
        trade_seq=Seq(row.seq),
        side=row.side,
        shares=shares(row.shares),
        price=price(average_price(row.gross, row.shares)),
        gross=money(row.gross),
        fee=money(row.fee),
        at=row.at,
    )
