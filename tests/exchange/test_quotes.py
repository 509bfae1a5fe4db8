"""Quotes: that they promise exactly what the trade then does, their prices and impact, and what they refuse."""

from datetime import UTC, datetime

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from app.accounts.principals import AccountPrincipal
from app.db import Database
from app.errors import ErrorCode, Refusal, Refused
from app.exchange.assets import Asset, AssetStatus
from app.exchange.curve import Curve, max_supply, required_reserve
from app.exchange.orders import Side
from app.exchange.quotes import Quote, quote
from app.exchange.settlement import Settlement
from app.money import money_text, shares_text
from tests.exchange import model
from tests.exchange.strategies import COMMON_CURVES, exact
from tests.exchange.strategies import money as in_money
from tests.exchange.strategies import shares as in_shares
from tests.factories import load_asset, new_account, new_asset, order_request, place_order

BILLION = 10**9
DEFAULT_CURVE = Curve(10**12, 5 * 10**15, 5 * 10**6)


def asset(curve: Curve = DEFAULT_CURVE, *, supply: int = 10 * BILLION) -> Asset:
    """An asset at `supply`."""
    return Asset(
        id=7, symbol="RAIN", name="Rain", description="Rain", category="WEATHER", status=AssetStatus.OPEN,
        status_reason=None, quote_currency="USDC", base_price=curve.base_price, slope=curve.slope,
        fee_rate=curve.fee_rate, min_notional=10_000, max_shares_per_account=None, max_redemption_per_day=None,
        fundamental_weight=200_000_000, volume_scale=10**9, volume_half_life_seconds=900, supply=supply,
        backing=required_reserve(curve, supply), surplus=0, lp_capital=0, trade_seq=3, last_trade_at=None,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip


def refusal(side: Side, *, at: Asset | None = None, shares: str | None = None, amount: str | None = None) -> Refusal:
    """What is said to a quote that cannot be given."""
    with pytest.raises(Refused) as refused:
        quote(asset=at or asset(), side=side, shares=shares, amount=amount)
    return refused.value.refusal


def test_a_quote_for_a_buy() -> None:
    assert quote(asset=asset(), side=Side.BUY, shares="1", amount=None) == Quote(
        asset_id=7, side=Side.BUY, shares=BILLION, gross=1_052_500, fee=5_263, total=1_057_763,
        average_price=1_052_500_000_000, price_before=1_050_000_000_000, price_after=1_055_000_000_000,
        price_impact=2_380_952, at_trade_seq=3,
    )  # fmt: skip


def test_a_quote_for_an_amount_takes_what_fits() -> None:
    promised = quote(asset=asset(supply=0), side=Side.BUY, shares=None, amount="100")
    assert (promised.shares, promised.gross, promised.fee, promised.total) == (
        82_490_698_607, 99_502_487, 497_513, 100_000_000,
    )  # fmt: skip
    assert promised.price_after == 1_412_453_493_035


def test_a_quote_for_a_sale_has_a_negative_impact() -> None:
    assert quote(asset=asset(), side=Side.SELL, shares="4", amount=None) == Quote(
        asset_id=7, side=Side.SELL, shares=4 * BILLION, gross=4_160_000, fee=20_800, total=4_139_200,
        average_price=1_040_000_000_000, price_before=1_050_000_000_000, price_after=1_030_000_000_000,
        price_impact=-9_523_810, at_trade_seq=3,
    )  # fmt: skip


def test_more_than_is_outstanding_cannot_be_sold() -> None:
    assert refusal(Side.SELL, shares="10.000000001") == Refusal(
        ErrorCode.INSUFFICIENT_SHARES,
        "Only 10 RAIN are outstanding, fewer than 10.000000001.",
        ("shares",),
        required="10.000000001",
        available="10",
    )


def test_more_than_the_curve_holds_cannot_be_bought() -> None:
    left = shares_text(max_supply(asset().curve) - 10 * BILLION)
    assert left == "59999790.000333333"
    assert refusal(Side.BUY, shares="59999790.000333334") == Refusal(
        ErrorCode.POSITION_LIMIT,
        "RAIN may have at most 59999800.000333333 shares outstanding; 59999790.000333333 are left.",
        ("shares",),
        limit="59999800.000333333",
        remaining=left,
    )


@pytest.mark.parametrize(("side", "shares", "amount"), [(Side.BUY, None, "0.000001"), (Side.SELL, "0.000000001", None)])
def test_what_moves_nothing_is_below_the_minimum(side: Side, shares: str | None, amount: str | None) -> None:
    dear = asset(Curve(10**21 if side is Side.BUY else 10**6, 1, 0))
    met = refusal(side, at=dear, shares=shares, amount=amount)
    assert (met.code, met.limit, met.field) == (
        ErrorCode.BELOW_MINIMUM, "0.01", ("amount",) if amount else ("shares",),
    )  # fmt: skip


def test_a_buy_below_the_least_trade_is_not_quoted() -> None:
    met = refusal(Side.BUY, amount="0.01")
    assert (met.code, met.limit, met.message) == (
        ErrorCode.BELOW_MINIMUM, "0.01", "The trade is worth 0.00995 USDC before fees; the least is 0.01.",
    )  # fmt: skip
    assert quote(asset=asset(), side=Side.SELL, shares="0.001", amount=None).gross == 1_049


def test_more_than_one_order_may_move_is_not_quoted() -> None:
    met = refusal(Side.BUY, shares="30000000")
    assert met.code is ErrorCode.INVALID_INPUT
    assert met.message.startswith("One order may move at most 1000000000000 USDC, fee included; this one would move ")


@pytest.mark.parametrize(
    ("side", "shares", "amount", "field", "message"),
    [
        (Side.BUY, None, None, "shares", "Give exactly one of shares and amount; got neither."),
        (Side.BUY, "1", "1", "shares", "Give exactly one of shares and amount; got both."),
        (Side.SELL, None, "1", "amount", "amount is for BUY only; got '1' with SELL. Give shares."),
        (Side.BUY, "0", None, "shares", "shares must be between 0.000000001 and 1000000000000000; got '0'."),
        (Side.BUY, "-1", None, "shares", "shares must be between 0.000000001 and 1000000000000000; got '-1'."),
        (Side.BUY, None, "0.0000001", "amount", "amount has at most 6 decimals; got '0.0000001'."),
        (
            Side.BUY, "1e3", None, "shares",
            "shares must be a plain decimal such as \"12.5\" (ASCII digits, no exponent); got '1e3'.",
        ),
    ],
)  # fmt: skip
def test_the_form_is_checked(side: Side, shares: str | None, amount: str | None, field: str, message: str) -> None:
    assert refusal(side, shares=shares, amount=amount) == Refusal(ErrorCode.INVALID_INPUT, message, (field,))


@settings(max_examples=200, deadline=None)
@example(curve=Curve(1_000_000_001, 163_522_595_100_625, 0), supply=10**14, size=10**7, selling=False)  # a tie
@given(curve=COMMON_CURVES, supply=st.integers(0, 10**14), size=st.integers(10**7, 10**12), selling=st.booleans())
def test_figures_agree_with_the_exact_model(curve: Curve, supply: int, size: int, selling: bool) -> None:
    reference, at = exact(curve), asset(curve, supply=supply)
    side, sold = (Side.SELL, min(size, supply)) if selling and supply > 10**8 else (Side.BUY, size)
    deal = (reference.buy if side is Side.BUY else reference.sell)(in_shares(supply), in_shares(sold))
    assume(in_money(10_000) <= deal.gross <= in_money(9 * 10**17))
    promised = quote(asset=at, side=side, shares=shares_text(sold), amount=None)
    assert (in_money(promised.gross), in_money(promised.fee)) == (deal.gross, deal.fee)
    assert in_money(promised.total) == (deal.cost if side is Side.BUY else deal.proceeds)
    after = in_shares(supply + (sold if side is Side.BUY else -sold))
    assert promised.price_before * model.PRICE == reference.market(in_shares(supply))
    assert promised.price_after * model.PRICE == reference.market(after)
    average, before = model.average(deal.gross, deal.shares), reference.market(in_shares(supply))
    assert promised.average_price * model.PRICE == average
    assert promised.price_impact * model.RATE == model.nearest((average - before) / before, model.RATE)


async def held(database: Database, settlement: Settlement) -> tuple[AccountPrincipal, int]:
    """An account with ten shares of a new asset, and the asset's id."""
    account, asset_id = await new_account(database, usdc="1000"), await new_asset(database)
    await place_order(settlement, account, asset_id, shares="10")
    return account, asset_id


@pytest.mark.parametrize(
    ("side", "shares", "amount"), [(Side.BUY, "3.141592653", None), (Side.BUY, None, "99.99"), (Side.SELL, "7.3", None)]
)
async def test_the_trade_does_what_the_quote_said(
    database: Database, settlement: Settlement, side: Side, shares: str | None, amount: str | None
) -> None:
    account, asset_id = await held(database, settlement)
    promised = quote(asset=await load_asset(database, asset_id), side=side, shares=shares, amount=amount)
    total = money_text(promised.total)
    request = order_request(
        account,
        asset_id,
        side,
        shares=shares,
        amount=amount,
        if_trade_seq=promised.at_trade_seq,
        max_total=total if side is Side.BUY else None,
        min_total=total if side is Side.SELL else None,
    )
    outcome = await settlement.place(request)
    assert outcome.refusal is None
    (trade,) = outcome.trades
    assert (trade.shares, trade.gross, trade.fee) == (promised.shares, promised.gross, promised.fee)
    assert (trade.seq, trade.market_after) == (promised.at_trade_seq + 1, promised.price_after)
