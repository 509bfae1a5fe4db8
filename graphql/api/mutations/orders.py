"""Placing orders."""

from datetime import datetime
from typing import Annotated

import strawberry
from strawberry import UNSET

from api.access import account_of
from api.context import Info
from api.fields import computed
from api.inputs import given
from api.node_ids import key_or_nothing
from api.scalars import Decimal, Seq
from api.types.accounts import Viewer, load_viewer
from api.types.holdings import Position, load_position
from api.types.markets import Asset, load_asset
from api.types.orders import Order, show_order
from api.types.refusals import USER_ERRORS, UserError, refusable, user_error
from app import clock
from app.accounts.principals import AccountPrincipal
from app.exchange.orders import Order as OrderRow
from app.exchange.orders import OrderRequest, OrderType, Side, TimeInForce, parse_order


@strawberry.input(description="An order. Give exactly one of shares and amount.")
class OrderPlaceInput:
    """The form is checked by `parse_order`, the rest under the asset's lock."""

    asset_id: strawberry.ID = strawberry.field(description="The asset's id.")
    side: Side = strawberry.field(description="BUY or SELL.")
    type: OrderType = strawberry.field(
        default=OrderType.MARKET, description="How it executes. LIMIT is not offered yet."
    )
    client_order_id: str = strawberry.field(
        description=(
            "Your key, unique per account, 1 to 64 printable ASCII characters. Sent again with the same input it "
            "answers the first outcome (order and userErrors; asset and viewer are read afresh), with another input "
            "IDEMPOTENCY_KEY_REUSED."
        )
    )
    shares: Decimal | None = strawberry.field(
        default=UNSET, description="How many shares to trade, at most 9 decimals; not together with amount."
    )
    amount: Decimal | None = strawberry.field(
        default=UNSET,
        description=(
            "BUY MARKET only: the most to pay, fee included, at most 6 decimals. It buys as many shares as it can, and "
            "only what they cost is taken. Not together with shares."
        ),
    )
    max_total: Decimal | None = strawberry.field(
        default=UNSET, description="BUY: refused with SLIPPAGE_EXCEEDED if it would cost more, fee included."
    )
    min_total: Decimal | None = strawberry.field(
        default=UNSET, description="SELL: refused with SLIPPAGE_EXCEEDED if it would bring less, after the fee."
    )
    min_shares: Decimal | None = strawberry.field(
        default=UNSET, description="BUY: refused with SLIPPAGE_EXCEEDED if it would bring fewer shares."
    )
    deadline: datetime | None = strawberry.field(
        default=UNSET,
        description=(
            "Refused with DEADLINE_PASSED if it would execute later, by the database's clock. At most 60 s ahead."
        ),
    )
    if_trade_seq: Seq | None = strawberry.field(
        default=UNSET,
        description="Refused with SLIPPAGE_EXCEEDED unless the asset's tradeSeq is still this one.",
    )
    limit_price: Decimal | None = strawberry.field(default=UNSET, description="LIMIT only: the worst price.")
    time_in_force: TimeInForce | None = strawberry.field(
        default=UNSET, description="How long it may wait. Left out: FOK for MARKET, GTC for LIMIT."
    )
    post_only: bool = strawberry.field(default=False, description="LIMIT only: refused rather than filled at once.")


@strawberry.type(
    description=(
        "What became of an order. A refusal decided under the asset's lock is an order too: REJECTED, with the reason, "
        "found again by its clientOrderId."
    )
)
class OrderPlacePayload:
    """`filled` is the order that changed what its account has; the rest is null without one."""

    order: Order | None = strawberry.field(
        default=None, description="The order: FILLED or REJECTED; null if it was refused before its turn came."
    )
    user_errors: list[UserError] = strawberry.field(default_factory=list, description=USER_ERRORS)
    filled: strawberry.Private[OrderRow | None] = None

    @computed("The account's position in the asset now; null if the order was refused. Takes the scope READ.")
    async def position(self, info: Info) -> Position | None:
        if self.filled is None:
            return None
        return await load_position(info, account_id=self.filled.account_id, asset_id=self.filled.asset_id)

    @computed("The asset now; null if the order was refused.")
    async def asset(self, info: Info) -> Asset | None:
        return None if self.filled is None else await load_asset(info, self.filled.asset_id)

    @computed("The account now; null if the order was refused. Takes the scope READ.")
    async def viewer(self, info: Info) -> Viewer | None:
        return None if self.filled is None else await load_viewer(info, self.filled.account_id)


@strawberry.type
class OrderMutations:
    """Settlement owns the transaction: orders that wait are settled together."""

    @computed(
        "Places an order. When it is answered it is durable; when the answer is lost, sending the same input again "
        "with the same clientOrderId tells what became of it. Takes the scope TRADE."
    )
    @refusable(OrderPlacePayload)
    async def order_place(
        self,
        info: Info,
        order: Annotated[OrderPlaceInput, strawberry.argument(name="input", description="The order.")],
    ) -> OrderPlacePayload:
        context = info.context
        outcome = await context.services.settlement.place(_request(account_of(context.principal), order))
        context.read_afresh()
        shown = show_order(outcome.order, outcome.trades)
        if outcome.refusal is not None:
            return OrderPlacePayload(order=shown, user_errors=[user_error(outcome.refusal)])
        return OrderPlacePayload(order=shown, filled=outcome.order)


def _request(principal: AccountPrincipal, order: OrderPlaceInput) -> OrderRequest:
    return parse_order(
        principal=principal,
        asset_id=key_or_nothing(order.asset_id, "Asset"),
        side=order.side,
        type=order.type,
        client_order_id=order.client_order_id,
        shares=given(order.shares),
        amount=given(order.amount),
        max_total=given(order.max_total),
        min_total=given(order.min_total),
        min_shares=given(order.min_shares),
        deadline=given(order.deadline),
        if_trade_seq=given(order.if_trade_seq),
        limit_price=given(order.limit_price),
        time_in_force=given(order.time_in_force),
        post_only=order.post_only,
        now=clock.now(),
    )
