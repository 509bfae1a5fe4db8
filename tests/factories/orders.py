"""Order requests, through the same check of form that the API uses."""

import itertools
from datetime import UTC, datetime

from app.accounts.principals import AccountPrincipal
from app.exchange.orders import OrderRequest, OrderType, Side, TimeInForce, parse_order

_numbers = itertools.count(1)


def order_request(
    principal: AccountPrincipal,
    asset_id: int,
    side: Side = Side.BUY,
    *,
    shares: str | None = None,
    amount: str | None = None,
    key: str | None = None,
    max_total: str | None = None,
    min_total: str | None = None,
    min_shares: str | None = None,
    deadline: datetime | None = None,
    if_trade_seq: int | None = None,
    limit_price: str | None = None,
    time_in_force: TimeInForce | None = None,
    post_only: bool = False,
    order_type: OrderType = OrderType.MARKET,
) -> OrderRequest:
    """A market order; a fresh clientOrderId unless `key` is given."""
    return parse_order(
        principal=principal,
        asset_id=asset_id,
        side=side,
        type=order_type,
        client_order_id=key or f"order-{next(_numbers)}",
        shares=shares,
        amount=amount,
        max_total=max_total,
        min_total=min_total,
        min_shares=min_shares,
        deadline=deadline,
        if_trade_seq=if_trade_seq,
        limit_price=limit_price,
        time_in_force=time_in_force,
        post_only=post_only,
        now=datetime.now(UTC),
    )
