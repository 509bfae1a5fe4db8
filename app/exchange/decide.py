"""What becomes of an order: pure decisions on the state that a transaction holds under lock.

No I/O, no clock, no ORM. `decide` says what would happen and changes nothing; `apply` makes it so in memory, and is the
only place where a market, a holding and cash move. The curve is the only counterparty today. An order book adds resting
orders to `walk`, which then returns several executions, and holds to `Funds`; nothing after it counts on just one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from app.errors import ErrorCode, Refusal, isoformat
from app.exchange.assets import AssetStatus
from app.exchange.curve import (
    Amounts,
    Curve,
    buy_amount,
    buy_shares,
    max_supply,
    required_reserve,
    sell_shares,
)
from app.exchange.orders import OrderRequest, Side
from app.money import MONEY_BALANCE_MAX, MONEY_REQUEST_MAX, money_text, shares_text


@dataclass(slots=True)
class Market:
    """An asset's trading state. Money in 10^-6, shares in 10^-9."""

    asset_id: int
    symbol: str
    quote_currency: str
    status: AssetStatus
    curve: Curve
    supply: int
    backing: int
    surplus: int
    trade_seq: int
    last_trade_at: datetime | None
    min_notional: int
    max_shares_per_account: int | None
    max_redemption_per_day: int | None


@dataclass(slots=True)
class Holding:
    """An account's position in an asset; `shares` counts those held for resting orders too."""

    shares: int = 0
    cost_basis: int = 0
    realized_pnl: int = 0
    redeemed_on: date | None = None
    redeemed: int = 0

    def redeemed_today(self, today: date) -> int:
        """Gross sold for on `today` (UTC)."""
        return self.redeemed if self.redeemed_on == today else 0


@dataclass(frozen=True, slots=True)
class Funds:
    """What the account may spend: cash in the asset's quote currency and shares of the asset, both available."""

    cash: int
    shares: int


@dataclass(frozen=True, slots=True)
class Conditions:
    """What holds for every order of a batch: the database's time and whether trading is paused (and why)."""

    now: datetime
    paused: bool
    pause_reason: str | None


def decide(
    order: OrderRequest, *, market: Market, holding: Holding, funds: Funds, frozen: bool, conditions: Conditions
) -> Sequence[Amounts] | Refusal:
    """The executions that fill `order`, or why it is refused. The first reason that applies is the one given."""
    refusal = _may_trade(order, market=market, frozen=frozen, conditions=conditions)
    if refusal is None and order.side is Side.SELL and order.shares is not None and order.shares > funds.shares:
        refusal = Refusal(
            ErrorCode.INSUFFICIENT_SHARES,
            f"Selling {shares_text(order.shares)} {market.symbol} needs as many shares; "
            f"{shares_text(funds.shares)} are available.",
            ("input", "shares"),
            required=shares_text(order.shares),
            available=shares_text(funds.shares),
        )
    if refusal is not None:
        return refusal
    executions = walk(order, market=market)
    total = _sum(executions)
    refusal = (
        _large_enough(order, total, market=market, holding=holding)
        or _within_market(order, total, market=market)
        or _within_bounds(order, total, market=market)
        or _within_account(order, total, market=market, holding=holding, today=conditions.now.date())
    )
    if refusal is None and order.side is Side.BUY and total.gross + total.fee > funds.cash:
        required = total.gross + total.fee
        refusal = Refusal(
            ErrorCode.INSUFFICIENT_FUNDS,
            f"Buying {shares_text(total.shares)} {market.symbol} takes {money_text(required)} {market.quote_currency}, "
            f"fee included; {money_text(funds.cash)} is available.",
            ("input", "amount" if order.amount is not None else "shares"),
            required=money_text(required),
            available=money_text(funds.cash),
        )
    return refusal or executions


def walk(order: OrderRequest, *, market: Market) -> tuple[Amounts, ...]:
    """The executions that fill the order, best price first. Today the whole of it trades with the curve."""
    if order.amount is not None:
        return (buy_amount(market.curve, market.supply, order.amount),)
    if order.shares is None:
        raise AssertionError("an order has shares or an amount")
    trade = buy_shares if order.side is Side.BUY else sell_shares
    return (trade(market.curve, market.supply, order.shares),)


def apply(side: Side, amounts: Amounts, *, market: Market, holding: Holding, at: datetime) -> None:
    """Let one execution happen: market and holding move on. Raises AssertionError if an invariant would break."""
    if side is Side.BUY:
        market.supply += amounts.shares
        market.backing += amounts.gross
        holding.shares += amounts.shares
        holding.cost_basis += amounts.gross + amounts.fee
    else:
        basis_out = basis_of(holding, amounts.shares)
        market.supply -= amounts.shares
        market.backing -= amounts.gross
        holding.shares -= amounts.shares
        holding.cost_basis -= basis_out
        holding.realized_pnl += amounts.gross - amounts.fee - basis_out
        holding.redeemed = holding.redeemed_today(at.date()) + amounts.gross
        holding.redeemed_on = at.date()
    market.surplus += amounts.fee
    market.trade_seq += 1
    market.last_trade_at = at
    if market.backing < required_reserve(market.curve, market.supply) or min(market.supply, holding.shares) < 0:
        raise AssertionError(f"asset {market.asset_id}: the backing would no longer cover the curve")


def basis_of(holding: Holding, shares: int) -> int:
    """The cost basis that a sale of `shares` takes out: floor(costBasis * sold / held), the last share all of it."""
    return holding.cost_basis * shares // holding.shares if shares < holding.shares else holding.cost_basis


def _sum(executions: Sequence[Amounts]) -> Amounts:
    if len(executions) == 1:
        return executions[0]
    return Amounts(sum(e.shares for e in executions), sum(e.gross for e in executions), sum(e.fee for e in executions))


def _may_trade(order: OrderRequest, *, market: Market, frozen: bool, conditions: Conditions) -> Refusal | None:
    if frozen:
        return Refusal(ErrorCode.ACCOUNT_FROZEN, "This account is frozen: it can read and move nothing. Ask support.")
    if conditions.paused:
        reason = f": {conditions.pause_reason}" if conditions.pause_reason else ""
        return Refusal(ErrorCode.TRADING_PAUSED, f"Trading is paused on the whole platform{reason}. Try again later.")
    open_for = (AssetStatus.OPEN, AssetStatus.REDUCE_ONLY) if order.side is Side.SELL else (AssetStatus.OPEN,)
    if market.status not in open_for:
        allowed = "it can only be sold" if market.status is AssetStatus.REDUCE_ONLY else "it does not trade now"
        return Refusal(
            ErrorCode.ASSET_NOT_OPEN, f"{market.symbol} is {market.status}: {allowed}.", ("input", "assetId")
        )
    if order.deadline is not None and conditions.now > order.deadline:
        return Refusal(
            ErrorCode.DEADLINE_PASSED,
            f"The deadline {isoformat(order.deadline.astimezone(UTC))} had passed at {isoformat(conditions.now)}; "
            "place a new order with a later one.",
            ("input", "deadline"),
        )
    if order.if_trade_seq is not None and order.if_trade_seq != market.trade_seq:
        return Refusal(
            ErrorCode.SLIPPAGE_EXCEEDED,
            f"{market.symbol} is at tradeSeq {market.trade_seq} and no longer at {order.if_trade_seq}; quote again.",
            ("input", "ifTradeSeq"),
            bound=str(order.if_trade_seq),
            actual=str(market.trade_seq),
            at_trade_seq=market.trade_seq,
        )
    return None


def _large_enough(order: OrderRequest, total: Amounts, *, market: Market, holding: Holding) -> Refusal | None:
    whole_position = order.side is Side.SELL and total.shares == holding.shares
    moves_something = total.shares > 0 and total.gross > 0 and (order.side is Side.BUY or total.gross > total.fee)
    if moves_something and (total.gross >= market.min_notional or whole_position):
        return None
    return Refusal(
        ErrorCode.BELOW_MINIMUM,
        f"The trade is worth {money_text(total.gross)} {market.quote_currency} before fees; "
        f"the least is {money_text(market.min_notional)}.",
        ("input", "amount" if order.amount is not None else "shares"),
        limit=money_text(market.min_notional),
    )


def _within_market(order: OrderRequest, total: Amounts, *, market: Market) -> Refusal | None:
    field = ("input", "amount" if order.amount is not None else "shares")
    ceiling = max_supply(market.curve)
    if order.side is Side.BUY and market.supply + total.shares > ceiling:
        remaining = max(0, ceiling - market.supply)
        return Refusal(
            ErrorCode.POSITION_LIMIT,
            f"{market.symbol} may have at most {shares_text(ceiling)} shares outstanding; "
            f"{shares_text(remaining)} are left.",
            field,
            limit=shares_text(ceiling),
            remaining=shares_text(remaining),
        )
    if total.gross + total.fee > MONEY_REQUEST_MAX:
        return Refusal(
            ErrorCode.INVALID_INPUT,
            f"One order may move at most {money_text(MONEY_REQUEST_MAX)} {market.quote_currency}, fee included; "
            f"this one would move {money_text(total.gross + total.fee)}. Split it.",
            field,
        )
    return None


def _within_bounds(order: OrderRequest, total: Amounts, *, market: Market) -> Refusal | None:
    paid, received = total.gross + total.fee, total.gross - total.fee
    if order.max_total is not None and paid > order.max_total:
        return _slipped("maxTotal", money_text(order.max_total), money_text(paid), market)
    if order.min_shares is not None and total.shares < order.min_shares:
        return _slipped("minShares", shares_text(order.min_shares), shares_text(total.shares), market)
    if order.min_total is not None and received < order.min_total:
        return _slipped("minTotal", money_text(order.min_total), money_text(received), market)
    return None


def _slipped(name: str, bound: str, actual: str, market: Market) -> Refusal:
    return Refusal(
        ErrorCode.SLIPPAGE_EXCEEDED,
        f"{name} is {bound} and the order would come to {actual} at tradeSeq {market.trade_seq}; quote again.",
        ("input", name),
        bound=bound,
        actual=actual,
        at_trade_seq=market.trade_seq,
    )


def _within_account(
    order: OrderRequest, total: Amounts, *, market: Market, holding: Holding, today: date
) -> Refusal | None:
    if order.side is Side.BUY:
        return _position_fits(order, total, market=market, holding=holding)
    profit = abs(holding.realized_pnl + total.gross - total.fee - basis_of(holding, total.shares))
    if max(profit, market.surplus + total.fee) > MONEY_BALANCE_MAX:
        return _beyond_records(market, ("input", "shares"))
    # A day's sales are recorded, so they have an end even where no rule sets one.
    limit = MONEY_BALANCE_MAX if market.max_redemption_per_day is None else market.max_redemption_per_day
    used = holding.redeemed_today(today)
    if used + total.gross > limit:
        remaining = max(0, limit - used)
        midnight = datetime.combine(today + timedelta(days=1), time(), UTC)
        return Refusal(
            ErrorCode.REDEMPTION_LIMIT,
            f"An account may sell {market.symbol} for at most {money_text(limit)} {market.quote_currency} a UTC day; "
            f"{money_text(remaining)} is left until {isoformat(midnight)}.",
            ("input", "shares"),
            limit=money_text(limit),
            remaining=money_text(remaining),
            resets_at=isoformat(midnight),
        )
    return None


def _position_fits(order: OrderRequest, total: Amounts, *, market: Market, holding: Holding) -> Refusal | None:
    field = ("input", "amount" if order.amount is not None else "shares")
    limit = market.max_shares_per_account
    if limit is not None and holding.shares + total.shares > limit:
        remaining = max(0, limit - holding.shares)
        return Refusal(
            ErrorCode.POSITION_LIMIT,
            f"An account may hold at most {shares_text(limit)} {market.symbol}; {shares_text(remaining)} more fit.",
            field,
            limit=shares_text(limit),
            remaining=shares_text(remaining),
        )
    figures = (
        market.backing + total.gross,
        market.surplus + total.fee,
        holding.cost_basis + total.gross + total.fee,
    )
    if max(figures) > MONEY_BALANCE_MAX:
        return _beyond_records(market, field)
    return None


def _beyond_records(market: Market, field: tuple[str, ...]) -> Refusal:
    return Refusal(
        ErrorCode.INVALID_INPUT,
        f"The trade would take a figure above {money_text(MONEY_BALANCE_MAX)} {market.quote_currency}, "
        "the most that can be recorded; trade less.",
        field,
    )
