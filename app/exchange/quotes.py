"""Quotes: what a trade would move if it happened now. Reads one asset row, locks nothing, promises nothing."""

from dataclasses import dataclass

from app.errors import ErrorCode, Refusal, Refused, invalid
from app.exchange.assets import Asset
from app.exchange.curve import Amounts, average_price, buy_amount, buy_shares, marginal_price, sell_shares
from app.exchange.orders import Side, parse_size
from app.money import MONEY_REQUEST_MAX, RATE_UNIT, div_half_even, money_text, shares_text


@dataclass(frozen=True, slots=True)
class Quote:
    """Money in 10^-6, shares in 10^-9, prices in 10^-12, `price_impact` in 10^-9 (negative on a sale)."""

    asset_id: int
    side: Side
    shares: int
    gross: int
    fee: int
    total: int
    average_price: int
    price_before: int
    price_after: int
    price_impact: int
    at_trade_seq: int


def quote(*, asset: Asset, side: Side, shares: str | None, amount: str | None) -> Quote:
    """What buying or selling would move at this state of `asset`; exactly one of `shares` and `amount` (BUY only).

    Raises `Refused`: INVALID_INPUT for the form or above 10^12 of money, BELOW_MINIMUM (a sale below minNotional may be
    somebody's whole position, so it is quoted), POSITION_LIMIT beyond the curve's largest supply, INSUFFICIENT_SHARES
    for more than are outstanding. The caller's own balances do not matter.
    """
    share_units, amount_units = parse_size(side=side, shares=shares, amount=amount, path=())
    field = ("amount",) if amount is not None else ("shares",)
    amounts = _amounts(asset, side, share_units, amount_units)
    moves_nothing = amounts.shares == 0 or amounts.gross == 0 or (side is Side.SELL and amounts.gross <= amounts.fee)
    if moves_nothing or (side is Side.BUY and amounts.gross < asset.min_notional):
        raise Refused(
            Refusal(
                ErrorCode.BELOW_MINIMUM,
                f"The trade is worth {money_text(amounts.gross)} {asset.quote_currency} before fees; "
                f"the least is {money_text(asset.min_notional)}.",
                field,
                limit=money_text(asset.min_notional),
            )
        )
    supply_after = asset.supply + (amounts.shares if side is Side.BUY else -amounts.shares)
    if supply_after > asset.max_supply:
        remaining = shares_text(max(0, asset.max_supply - asset.supply))
        raise Refused(
            Refusal(
                ErrorCode.POSITION_LIMIT,
                f"{asset.symbol} may have at most {shares_text(asset.max_supply)} shares outstanding; "
                f"{remaining} are left.",
                field,
                limit=shares_text(asset.max_supply),
                remaining=remaining,
            )
        )
    if amounts.gross + amounts.fee > MONEY_REQUEST_MAX:
        raise invalid(
            f"One order may move at most {money_text(MONEY_REQUEST_MAX)} {asset.quote_currency}, fee included; "
            f"this one would move {money_text(amounts.gross + amounts.fee)}. Split it.",
            *field,
        )
    before = asset.market_price
    average = average_price(amounts.gross, amounts.shares)
    return Quote(
        asset_id=asset.id,
        side=side,
        shares=amounts.shares,
        gross=amounts.gross,
        fee=amounts.fee,
        total=amounts.gross + (amounts.fee if side is Side.BUY else -amounts.fee),
        average_price=average,
        price_before=before,
        price_after=marginal_price(asset.curve, supply_after),
        price_impact=div_half_even((average - before) * RATE_UNIT, before),
        at_trade_seq=asset.trade_seq,
    )


def _amounts(asset: Asset, side: Side, shares: int | None, amount: int | None) -> Amounts:
    if amount is not None:
        return buy_amount(asset.curve, asset.supply, amount)
    if shares is None:
        raise AssertionError("a quote has shares or an amount")
    if side is Side.BUY:
        return buy_shares(asset.curve, asset.supply, shares)
    if shares > asset.supply:
        raise Refused(
            Refusal(
                ErrorCode.INSUFFICIENT_SHARES,
                f"Only {shares_text(asset.supply)} {asset.symbol} are outstanding, fewer than {shares_text(shares)}.",
                ("shares",),
                required=shares_text(shares),
                available=shares_text(asset.supply),
            )
        )
    return sell_shares(asset.curve, asset.supply, shares)
