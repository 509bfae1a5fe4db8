"""Orders before they are sent: exact amounts, and the bounds that a quote and a slippage come to. Pure."""

from dataclasses import dataclass
from datetime import timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from typing import Final, TypeAlias

from megatron_client.types import Quote, Side
from megatron_client.wire import Json, camel

Amount: TypeAlias = Decimal | str | int
"""An exact number. Floats are refused: 0.1 is not a tenth."""

SLIPPAGE: Final = Decimal("0.005")
DEADLINE_SECONDS: Final = 30.0
_MONEY = Decimal("0.000001")
_SHARES = Decimal("0.000000001")
_DIGITS = 80
"""Enough for every product of an amount and a slippage to be exact before it is rounded once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRequest:
    """A market order, exactly as it is sent. Sent again, it is the same order: its key is `client_order_id`.

    Give `shares`, or for a BUY perhaps `amount`: the most to pay, fee included. `deadline` is RFC 3339 text.
    """

    asset_id: str
    side: Side
    client_order_id: str
    shares: str | None = None
    amount: str | None = None
    max_total: str | None = None
    min_total: str | None = None
    min_shares: str | None = None
    deadline: str | None = None
    if_trade_seq: int | None = None

    def to_input(self) -> Json:
        """The OrderPlaceInput; what is None is left out."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {camel(name): value for name, value in values.items() if value is not None}


def exact(value: Amount, name: str) -> str:
    """The number as the API takes it. Raises TypeError for a float and ValueError for what is no plain number."""
    if isinstance(value, float):
        raise TypeError(f"{name} must be exact: give {value!r} as a Decimal or as text, not as a float")
    number = Decimal(value)
    if not number.is_finite():
        raise ValueError(f"{name} must be a number; got {value!r}")
    return plain(number)


def plain(number: Decimal) -> str:
    """A Decimal as plain digits, never with an exponent."""
    return format(number, "f")


def bounded_order(
    quote: Quote,
    *,
    client_order_id: str,
    slippage: Amount = SLIPPAGE,
    deadline_seconds: float | None = DEADLINE_SECONDS,
) -> OrderRequest:
    """The order that was quoted, at no worse than the quote and `slippage` beyond it (0.005 is half a percent).

    The bound is exact and rounded once: BUY of shares: maxTotal, up to 10^-6. BUY for an amount: minShares, down to
    10^-9. SELL: minTotal, down to 10^-6. What rounds down to nothing is no bound. `deadline_seconds` count from the
    quote on by the server's clock, 60 at most. Raises ValueError for a slippage outside of 0 to 1.
    """
    part = Decimal(exact(slippage, "slippage"))
    if not 0 <= part < 1:
        raise ValueError(f"slippage must be from 0 to below 1, such as 0.005 for half a percent; got {slippage}")
    by_shares = quote.amount is None
    max_total = min_total = min_shares = Decimal(0)
    with localcontext(prec=_DIGITS):
        if quote.side == "SELL":
            min_total = (quote.total * (1 - part)).quantize(_MONEY, ROUND_FLOOR)
        elif by_shares:
            max_total = (quote.total * (1 + part)).quantize(_MONEY, ROUND_CEILING)
        else:
            min_shares = (quote.shares * (1 - part)).quantize(_SHARES, ROUND_FLOOR)
    until = None if deadline_seconds is None else quote.server_time + timedelta(seconds=deadline_seconds)
    return OrderRequest(
        asset_id=quote.asset_id,
        side="SELL" if quote.side == "SELL" else "BUY",
        client_order_id=client_order_id,
        shares=plain(quote.shares) if by_shares else None,
        amount=None if quote.amount is None else plain(quote.amount),
        max_total=plain(max_total) if max_total else None,
        min_total=plain(min_total) if min_total else None,
        min_shares=plain(min_shares) if min_shares else None,
        deadline=None if until is None else until.isoformat(),
    )
