"""Orders: what may be asked for, the form it must have, and what is stored of it.

The form is checked here, before any lock and without binding the client's key. Whether an order can be filled is
decided in `decide`, under the lock.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import orjson

from app.accounts.principals import AccountPrincipal
from app.errors import Refusal, invalid, quoted
from app.money import MONEY_DECIMALS, MONEY_REQUEST_MAX, SHARE_DECIMALS, SUPPLY_MAX, parse

if TYPE_CHECKING:
    import asyncpg

DEADLINE_AHEAD_MAX: Final = timedelta(seconds=60)
CLIENT_ORDER_ID_LENGTH_MAX: Final = 64
_CLIENT_ORDER_ID = re.compile(r"[ -~]{1,64}", re.ASCII)


class Side(StrEnum):
    """BUY mints shares from the curve, SELL redeems them."""

    BUY = "BUY"
    SELL = "SELL"


class OrderType(StrEnum):
    """MARKET trades at once; LIMIT comes with the order book."""

    MARKET = "MARKET"
    LIMIT = "LIMIT"


class TimeInForce(StrEnum):
    """How long an order may wait. A MARKET order is FOK: wholly filled at once, or refused."""

    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"
    GTD = "GTD"


class OrderStatus(StrEnum):
    """Where an order stands. MARKET orders end FILLED or REJECTED."""

    OPEN = "OPEN"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    CANCELLED = "CANCELLED"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """A well-formed order that waits for its decision. Shares in 10^-9, money in 10^-6."""

    principal: AccountPrincipal
    asset_id: int
    side: Side
    type: OrderType
    time_in_force: TimeInForce
    client_order_id: str
    input_hash: bytes
    shares: int | None
    amount: int | None
    max_total: int | None
    min_total: int | None
    min_shares: int | None
    deadline: datetime | None
    if_trade_seq: int | None

    @property
    def account_id(self) -> int:
        """Whose order it is."""
        return self.principal.account_id

    @property
    def key(self) -> tuple[int, str]:
        """The idempotency key: an account's clientOrderId."""
        return self.principal.account_id, self.client_order_id


@dataclass(frozen=True, slots=True)
class Order:
    """An order as stored, in base units."""

    id: int
    account_id: int
    asset_id: int
    client_order_id: str
    side: Side
    type: OrderType
    time_in_force: TimeInForce
    status: OrderStatus
    limit_price: int | None
    shares: int | None
    amount: int | None
    filled_shares: int
    gross: int
    fee: int
    refusal: Refusal | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Trade:
    """An execution as stored, in base units, with the account's order that caused it."""

    id: int
    asset_id: int
    seq: int
    account_id: int
    order_id: int
    client_order_id: str
    side: Side
    shares: int
    gross: int
    fee: int
    supply_after: int
    market_after: int
    transfer_id: int
    at: datetime


ORDER_COLUMNS: Final = (
    "id, account_id, asset_id, client_order_id, side, type, time_in_force, status, limit_price, shares, amount,"
    " filled_shares, gross, fee, refusal, created_at, updated_at"
)


def order_from_row(row: "asyncpg.Record") -> Order:
    """The order in a row that has at least `ORDER_COLUMNS`."""
    return Order(
        row["id"],
        row["account_id"],
        row["asset_id"],
        row["client_order_id"],
        Side(row["side"]),
        OrderType(row["type"]),
        TimeInForce(row["time_in_force"]),
        OrderStatus(row["status"]),
        row["limit_price"],
        row["shares"],
        row["amount"],
        row["filled_shares"],
        row["gross"],
        row["fee"],
        Refusal.from_json(orjson.loads(row["refusal"])) if row["refusal"] else None,
        row["created_at"],
        row["updated_at"],
    )


TRADE_COLUMNS: Final = (
    "t.id, t.asset_id, t.seq, t.account_id, t.order_id, o.client_order_id, t.side, t.shares, t.gross, t.fee,"
    " t.supply_after, t.market_after, t.transfer_id, t.at"
)
"""Of trades t joined with their orders o."""


def trade_from_row(row: "asyncpg.Record") -> Trade:
    """The trade in a row of exactly `TRADE_COLUMNS`."""
    values = list(row.values())
    values[6] = Side(values[6])
    return Trade(*values)


def parse_order(
    *,
    principal: AccountPrincipal,
    asset_id: int,
    side: Side,
    type: OrderType,  # noqa: A002 - the field's standard name
    client_order_id: str,
    shares: str | None,
    amount: str | None,
    max_total: str | None,
    min_total: str | None,
    min_shares: str | None,
    deadline: datetime | None,
    if_trade_seq: int | None,
    limit_price: str | None,
    time_in_force: TimeInForce | None,
    post_only: bool,
    now: datetime,
) -> OrderRequest:
    """Check an order's form. Decimals come as text; raises `Refused` (INVALID_INPUT) naming the field and its value."""
    _check_type(type=type, limit_price=limit_price, time_in_force=time_in_force, post_only=post_only)
    check_client_key(client_order_id, "input", "clientOrderId")
    _check_bounds_fit(side, max_total=max_total, min_total=min_total, min_shares=min_shares)
    share_units, amount_units = parse_size(side=side, shares=shares, amount=amount, path=("input",))
    if deadline is not None and deadline > now + DEADLINE_AHEAD_MAX:
        raise invalid(
            f"deadline may be at most 60 s ahead for a MARKET order; got {quoted(deadline.isoformat())}.",
            "input",
            "deadline",
        )
    bounds = (
        _money(max_total, "maxTotal"),
        _money(min_total, "minTotal"),
        None if min_shares is None else _shares(min_shares, ("input", "minShares")),
    )
    facts = (
        asset_id,
        side,
        type,
        share_units,
        amount_units,
        *bounds,
        deadline.astimezone(UTC).isoformat() if deadline else None,
        if_trade_seq,
    )
    return OrderRequest(
        principal=principal,
        asset_id=asset_id,
        side=side,
        type=type,
        time_in_force=TimeInForce.FOK,
        client_order_id=client_order_id,
        input_hash=hashlib.sha256("|".join(map(str, facts)).encode()).digest(),
        shares=share_units,
        amount=amount_units,
        max_total=bounds[0],
        min_total=bounds[1],
        min_shares=bounds[2],
        deadline=deadline,
        if_trade_seq=if_trade_seq,
    )


def check_client_key(key: str, *field: str) -> None:
    """Raise `Refused` unless `key` is 1 to 64 printable ASCII characters."""
    if _CLIENT_ORDER_ID.fullmatch(key) is None:
        raise invalid(f"{field[-1]} must be 1 to 64 printable ASCII characters; got {quoted(key)}.", *field)


def parse_size(
    *, side: Side, shares: str | None, amount: str | None, path: tuple[str, ...]
) -> tuple[int | None, int | None]:
    """Shares or amount in base units, exactly one of them. `path` leads the names of fields in refusals."""
    if (shares is None) == (amount is None):
        raise invalid(
            "Give exactly one of shares and amount; got " + ("both." if shares is not None else "neither."),
            *path,
            "shares",
        )
    if amount is not None:
        if side is Side.SELL:
            raise invalid(f"amount is for BUY only; got {quoted(amount)} with SELL. Give shares.", *path, "amount")
        field = (*path, "amount")
        return None, parse(amount, decimals=MONEY_DECIMALS, field=field, minimum=1, maximum=MONEY_REQUEST_MAX)
    return _shares(shares or "", (*path, "shares")), None


def _check_type(
    *,
    type: OrderType,  # noqa: A002
    limit_price: str | None,
    time_in_force: TimeInForce | None,
    post_only: bool,
) -> None:
    if type is OrderType.LIMIT:
        raise invalid("LIMIT orders are not offered yet; place a MARKET order with bounds instead.", "input", "type")
    if limit_price is not None:
        raise invalid(
            f"limitPrice is for LIMIT orders; got {quoted(limit_price)} with MARKET. Use maxTotal or minTotal.",
            "input",
            "limitPrice",
        )
    if time_in_force not in (None, TimeInForce.FOK):
        raise invalid(
            f"timeInForce of a MARKET order is FOK (or left out); got {quoted(time_in_force)}.", "input", "timeInForce"
        )
    if post_only:
        raise invalid("postOnly is for LIMIT orders; got true with MARKET.", "input", "postOnly")


def _check_bounds_fit(side: Side, *, max_total: str | None, min_total: str | None, min_shares: str | None) -> None:
    wrong = {
        Side.BUY: {"minTotal": min_total},
        Side.SELL: {"maxTotal": max_total, "minShares": min_shares},
    }[side]
    for name, value in wrong.items():
        if value is not None:
            other = "BUY" if side is Side.SELL else "SELL"
            raise invalid(f"{name} bounds a {other}; got {quoted(value)} with {side}.", "input", name)


def _money(text: str | None, name: str) -> int | None:
    if text is None:
        return None
    return parse(text, decimals=MONEY_DECIMALS, field=("input", name), maximum=MONEY_REQUEST_MAX)


def _shares(text: str, field: tuple[str, ...]) -> int:
    return parse(text, decimals=SHARE_DECIMALS, field=field, minimum=1, maximum=SUPPLY_MAX)
