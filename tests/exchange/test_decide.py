"""Decisions alone, without a database: which refusal comes first, where each bound lies, and what a trade leaves."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.accounts.principals import ALL_SCOPES, AccountPrincipal, Credential
from app.errors import ErrorCode, Refusal
from app.exchange.assets import AssetStatus
from app.exchange.curve import Amounts, Curve, required_reserve
from app.exchange.decide import Conditions, Funds, Holding, Market, apply, basis_of, decide, walk
from app.exchange.orders import OrderRequest, Side
from app.money import MONEY_BALANCE_MAX, shares_text
from tests.exchange.market_model import Asked, MarketModel, ModelAccount, ModelAsset
from tests.exchange.market_model import Holding as ModelHolding
from tests.exchange.model import MONEY, PRICE, RATE, SHARE, SLOPE, Deal, ExactCurve
from tests.factories import order_request

BILLION = 10**9
MILLION = 10**6
NOW = datetime(2026, 3, 4, 23, 59, 59, 5, tzinfo=UTC)
CURVE = Curve(base_price=10**12, slope=5 * 10**15, fee_rate=5 * 10**6)
ACCOUNT = AccountPrincipal(1, Credential("session", 1), ALL_SCOPES)
CALM = Conditions(NOW, paused=False, pause_reason=None)


def market(*, supply: int = 10 * BILLION, **changes: object) -> Market:
    """A market at `supply`, backed to the last micro."""
    values: dict[str, object] = {
        "asset_id": 7, "symbol": "RAIN", "quote_currency": "USDC", "status": AssetStatus.OPEN, "curve": CURVE,
        "supply": supply, "backing": required_reserve(CURVE, supply), "surplus": 0, "trade_seq": 3,
        "last_trade_at": None, "min_notional": 10_000, "max_shares_per_account": None, "max_redemption_per_day": None,
    }  # fmt: skip
    return Market(**(values | changes))  # type: ignore[arg-type]


def order(side: Side = Side.BUY, *, deadline: datetime | None = None, **values: object) -> OrderRequest:
    """An order of `ACCOUNT` for one share, unless said otherwise."""
    size = {} if "amount" in values else {"shares": "1"}
    request = order_request(ACCOUNT, 7, side, **(size | values))  # type: ignore[arg-type]
    return replace(request, deadline=deadline)


def verdict(
    request: OrderRequest,
    *,
    at: Market | None = None,
    holding: Holding | None = None,
    funds: Funds | None = None,
    frozen: bool = False,
    conditions: Conditions = CALM,
) -> Refusal | tuple[Amounts, ...]:
    """What `decide` says to someone with a thousand USDC and ten shares, unless said otherwise."""
    decision = decide(
        request,
        market=at or market(),
        holding=holding or Holding(10 * BILLION, 10_301_250),
        funds=funds or Funds(1_000 * MILLION, 10 * BILLION),
        frozen=frozen,
        conditions=conditions,
    )
    return decision if isinstance(decision, Refusal) else tuple(decision)


def refusal(request: OrderRequest, **state: object) -> Refusal:
    """The refusal that `request` meets."""
    decision = verdict(request, **state)  # type: ignore[arg-type]
    assert isinstance(decision, Refusal)
    return decision


# ------------------------------------------------------------------------------------------- the order of reasons

PAUSED = Conditions(NOW, paused=True, pause_reason=None)
LATE = NOW - timedelta(microseconds=1)
REASONS_FIRST_TO_LAST: list[tuple[ErrorCode, dict[str, object], dict[str, object]]] = [
    (ErrorCode.ACCOUNT_FROZEN, {}, {"frozen": True}),
    (ErrorCode.TRADING_PAUSED, {}, {"conditions": PAUSED}),
    (ErrorCode.ASSET_NOT_OPEN, {}, {"status": AssetStatus.HALTED}),
    (ErrorCode.DEADLINE_PASSED, {"deadline": LATE}, {}),
    (ErrorCode.SLIPPAGE_EXCEEDED, {"if_trade_seq": 2}, {}),
    (ErrorCode.BELOW_MINIMUM, {}, {"min_notional": 10**30}),
    (ErrorCode.POSITION_LIMIT, {"shares": "900000000"}, {}),
    (ErrorCode.SLIPPAGE_EXCEEDED, {"max_total": "0.5"}, {}),
    (ErrorCode.POSITION_LIMIT, {}, {"max_shares_per_account": 10 * BILLION}),
    (ErrorCode.INSUFFICIENT_FUNDS, {}, {"funds": Funds(0, 0)}),
]


@pytest.mark.parametrize("first", range(len(REASONS_FIRST_TO_LAST)))
def test_the_first_reason_that_applies_is_the_one_given(first: int) -> None:
    wishes: dict[str, object] = {}
    state: dict[str, object] = {}
    terms: dict[str, object] = {}
    for _, asked, found in REASONS_FIRST_TO_LAST[first:]:
        wishes = {**asked, **wishes}
        for name, value in found.items():
            (state if name in ("frozen", "conditions", "funds") else terms)[name] = value
    given_first = refusal(order(**wishes), at=market(**terms), **state)  # type: ignore[arg-type]
    assert given_first.code is REASONS_FIRST_TO_LAST[first][0]


def test_a_sale_without_the_shares_is_refused_before_its_worth_is_asked() -> None:
    met = refusal(order(Side.SELL, shares="0.000000001"), funds=Funds(0, 0))
    assert (met.code, met.required, met.available) == (ErrorCode.INSUFFICIENT_SHARES, "0.000000001", "0")


# ---------------------------------------------------------------------------------------------------- the bounds


def test_a_deadline_holds_until_its_very_microsecond() -> None:
    assert verdict(order(deadline=NOW)) == (Amounts(BILLION, 1_052_500, 5_263),)
    assert refusal(order(deadline=LATE)).message == (
        "The deadline 2026-03-04T23:59:59.000004Z had passed at 2026-03-04T23:59:59.000005Z; "
        "place a new order with a later one."
    )


def test_max_total_counts_the_fee_and_holds_to_the_micro() -> None:
    assert verdict(order(max_total="1.057763")) == (Amounts(BILLION, 1_052_500, 5_263),)
    met = refusal(order(max_total="1.057762"))
    assert (met.bound, met.actual, met.at_trade_seq) == ("1.057762", "1.057763", 3)


def test_min_total_is_after_the_fee_and_holds_to_the_micro() -> None:
    assert verdict(order(Side.SELL, min_total="1.042262")) == (Amounts(BILLION, 1_047_500, 5_238),)
    met = refusal(order(Side.SELL, min_total="1.042263"))
    assert (met.bound, met.actual) == ("1.042263", "1.042262")


def test_money_to_the_last_micro_suffices() -> None:
    assert verdict(order(), funds=Funds(1_057_763, 0)) == (Amounts(BILLION, 1_052_500, 5_263),)
    met = refusal(order(), funds=Funds(1_057_762, 0))
    assert (met.code, met.required, met.available) == (ErrorCode.INSUFFICIENT_FUNDS, "1.057763", "1.057762")


def test_an_amount_beyond_the_balance_is_refused_by_what_it_would_take() -> None:
    met = refusal(order(amount="50"), funds=Funds(49_999_999, 0))
    assert (met.code, met.field, met.required) == (ErrorCode.INSUFFICIENT_FUNDS, ("input", "amount"), "50")


def test_the_minimum_notional_is_enough() -> None:
    gross = Amounts(BILLION, 1_052_500, 5_263).gross
    assert verdict(order(), at=market(min_notional=gross)) == (Amounts(BILLION, 1_052_500, 5_263),)
    assert refusal(order(), at=market(min_notional=gross + 1)).limit == "1.052501"


def test_a_purchase_of_nothing_is_below_the_minimum_whatever_that_is() -> None:
    dear = market(supply=0, curve=Curve(10**21, 1, 0), min_notional=1)
    met = refusal(order(amount="0.999999"), at=dear)
    assert (met.code, met.message) == (
        ErrorCode.BELOW_MINIMUM, "The trade is worth 0 USDC before fees; the least is 0.000001.",
    )  # fmt: skip


def test_a_whole_position_is_sold_below_the_minimum_only_if_it_pays_something() -> None:
    dust = Holding(1_000_000, 1_000)
    at = market(supply=1_000_000)
    assert verdict(order(Side.SELL, shares="0.001"), at=at, holding=dust, funds=Funds(0, 1_000_000)) == (
        Amounts(1_000_000, 1_000, 5),
    )
    speck = Holding(1, 1)
    met = refusal(order(Side.SELL, shares="0.000000001"), at=market(supply=1), holding=speck, funds=Funds(0, 1))
    assert (met.code, met.limit) == (ErrorCode.BELOW_MINIMUM, "0.01")


def test_a_position_of_which_some_is_held_elsewhere_is_not_sold_whole() -> None:
    met = refusal(
        order(Side.SELL, shares="0.001"),
        at=market(supply=2_000_000),
        holding=Holding(2_000_000, 2_000),
        funds=Funds(0, 1_000_000),
    )
    assert met.code is ErrorCode.BELOW_MINIMUM


def test_the_supply_stops_at_its_ceiling() -> None:
    at = market(supply=0)
    met = refusal(order(shares="59999800.000333334"), at=at)
    assert (met.code, met.limit, met.remaining) == (
        ErrorCode.POSITION_LIMIT, "59999800.000333333", "59999800.000333333",
    )  # fmt: skip
    met = refusal(order(shares="59999800.000333333"), at=at)
    assert (met.code, met.message.split(";")[0]) == (
        ErrorCode.INVALID_INPUT, "One order may move at most 1000000000000 USDC, fee included",
    )  # fmt: skip


def test_no_recorded_figure_outgrows_its_column() -> None:
    at = market(surplus=MONEY_BALANCE_MAX)
    met = refusal(order(), at=at)
    assert (met.code, met.field) == (ErrorCode.INVALID_INPUT, ("input", "shares"))
    rich_basis = Holding(10 * BILLION, MONEY_BALANCE_MAX - 1_057_762)
    assert refusal(order(), holding=rich_basis).code is ErrorCode.INVALID_INPUT
    assert verdict(order(), holding=Holding(10 * BILLION, MONEY_BALANCE_MAX - 1_057_763)) == (
        Amounts(BILLION, 1_052_500, 5_263),
    )


def test_no_sale_takes_the_realised_profit_beyond_its_column() -> None:
    """It sells for 1.042262 after fees; a tenth of the basis of 10.30125 goes out: 0.012137 are gained."""
    sold = (Amounts(BILLION, 1_047_500, 5_238),)
    fits = Holding(10 * BILLION, 10_301_250, MONEY_BALANCE_MAX - 12_137)
    assert verdict(order(Side.SELL), holding=fits) == sold
    met = refusal(order(Side.SELL), holding=replace(fits, realized_pnl=MONEY_BALANCE_MAX - 12_136))
    assert (met.code, met.field, met.message) == (
        ErrorCode.INVALID_INPUT,
        ("input", "shares"),
        "The trade would take a figure above 9000000000000 USDC, the most that can be recorded; trade less.",
    )
    # A basis of 20 loses 0.957738.
    losing = Holding(10 * BILLION, 20_000_000, -MONEY_BALANCE_MAX + 957_738)
    assert verdict(order(Side.SELL), holding=losing) == sold
    beyond = replace(losing, realized_pnl=-MONEY_BALANCE_MAX + 957_737)
    assert refusal(order(Side.SELL), holding=beyond).code is ErrorCode.INVALID_INPUT


def test_no_sale_takes_the_surplus_beyond_its_column() -> None:
    full = market(surplus=MONEY_BALANCE_MAX - 5_238)
    assert verdict(order(Side.SELL), at=full) == (Amounts(BILLION, 1_047_500, 5_238),)
    met = refusal(order(Side.SELL), at=market(surplus=MONEY_BALANCE_MAX - 5_237))
    assert (met.code, met.field) == (ErrorCode.INVALID_INPUT, ("input", "shares"))


def test_what_cannot_be_recorded_is_told_before_the_days_limit() -> None:
    at, holding = market(max_redemption_per_day=1), Holding(10 * BILLION, 0, MONEY_BALANCE_MAX)
    assert refusal(order(Side.SELL), at=at, holding=holding).code is ErrorCode.INVALID_INPUT
    assert refusal(order(Side.SELL), at=at).code is ErrorCode.REDEMPTION_LIMIT


NEAR_THE_END = st.one_of(
    st.integers(0, 3 * MILLION).map(lambda short: MONEY_BALANCE_MAX - short), st.integers(0, 3 * MILLION)
)


@given(
    side=st.sampled_from(list(Side)),
    shares=st.integers(10**7, 10 * BILLION),
    basis=NEAR_THE_END,
    profit=st.one_of(NEAR_THE_END, NEAR_THE_END.map(lambda end: -end)),
    surplus=NEAR_THE_END,
    redeemed=NEAR_THE_END,
)
def test_the_exact_model_draws_the_ends_of_the_columns_at_the_same_place(
    *, side: Side, shares: int, basis: int, profit: int, surplus: int, redeemed: int
) -> None:
    curve = ExactCurve(CURVE.base_price * PRICE, CURVE.slope * SLOPE, CURVE.fee_rate * RATE)
    asset = ModelAsset(curve, "USDC", supply=Fraction(10), surplus=surplus * MONEY, backing=Fraction(41, 4))
    held = ModelHolding(Fraction(10), basis * MONEY, profit * MONEY, NOW.date(), redeemed * MONEY)
    model = MarketModel({"RAIN": asset}, {"ann": ModelAccount({"USDC": Fraction(1000)}, holdings={"RAIN": held})})
    expected = model.place(Asked("ann", "RAIN", "key", side.value, shares=shares * SHARE), NOW)

    decided = verdict(
        order(side, shares=shares_text(shares)),
        at=market(surplus=surplus),
        holding=Holding(10 * BILLION, basis, profit, NOW.date(), redeemed),
    )
    if isinstance(decided, Refusal):
        assert (expected.status, expected.code) == ("REJECTED", decided.code.value)
    else:
        (amounts,) = decided
        assert expected.deal == Deal(amounts.shares * SHARE, amounts.gross * MONEY, amounts.fee * MONEY)


def test_what_is_redeemed_in_a_day_never_outgrows_its_column() -> None:
    at_the_end = Holding(10 * BILLION, 0, 0, NOW.date(), MONEY_BALANCE_MAX - 1_047_500)
    assert verdict(order(Side.SELL), holding=at_the_end) == (Amounts(BILLION, 1_047_500, 5_238),)
    beyond = Holding(10 * BILLION, 0, 0, NOW.date(), MONEY_BALANCE_MAX - 1_047_499)
    met = refusal(order(Side.SELL), holding=beyond)
    assert (met.code, met.limit, met.remaining, met.resets_at) == (
        ErrorCode.REDEMPTION_LIMIT, "9000000000000", "1.047499", "2026-03-05T00:00:00.000000Z",
    )  # fmt: skip


def test_the_redemption_of_another_day_does_not_count() -> None:
    at = market(max_redemption_per_day=1_047_500)
    yesterday = Holding(10 * BILLION, 0, 0, NOW.date() - timedelta(days=1), 5 * MILLION)
    assert verdict(order(Side.SELL), at=at, holding=yesterday) == (Amounts(BILLION, 1_047_500, 5_238),)
    today = Holding(10 * BILLION, 0, 0, NOW.date(), 1)
    met = refusal(order(Side.SELL), at=at, holding=today)
    assert (met.limit, met.remaining, met.resets_at) == ("1.0475", "1.047499", "2026-03-05T00:00:00.000000Z")


def test_buying_is_no_redemption() -> None:
    at = market(max_redemption_per_day=1)
    assert verdict(order(), at=at) == (Amounts(BILLION, 1_052_500, 5_263),)


@pytest.mark.parametrize("status", [AssetStatus.DRAFT, AssetStatus.HALTED, AssetStatus.DELISTED])
@pytest.mark.parametrize("side", list(Side))
def test_what_is_not_open_trades_nothing(status: AssetStatus, side: Side) -> None:
    met = refusal(order(side), at=market(status=status))
    assert met.message == f"RAIN is {status}: it does not trade now."


# ------------------------------------------------------------------------------------------ what a trade leaves


def test_deciding_changes_nothing() -> None:
    at, holding = market(), Holding(10 * BILLION, 10_301_250)
    before = replace(at), replace(holding)
    assert verdict(order(), at=at, holding=holding) == (Amounts(BILLION, 1_052_500, 5_263),)
    assert (at, holding) == before


def test_a_buy_adds_its_cost_to_the_basis() -> None:
    at, holding = market(), Holding(10 * BILLION, 10_301_250, -7)
    apply(Side.BUY, Amounts(BILLION, 1_052_500, 5_263), market=at, holding=holding, at=NOW)
    assert holding == Holding(11 * BILLION, 10_301_250 + 1_057_763, -7)
    assert (at.supply, at.backing, at.surplus, at.trade_seq, at.last_trade_at) == (
        11 * BILLION, 10_250_000 + 1_052_500, 5_263, 4, NOW,
    )  # fmt: skip


def test_a_sale_realises_what_it_pays_less_its_basis() -> None:
    at, holding = market(), Holding(3, 10, 0, NOW.date() - timedelta(days=1), 99)
    at.backing += 10
    apply(Side.SELL, Amounts(1, 2, 1), market=at, holding=holding, at=NOW)
    assert holding == Holding(2, 7, 1 - 3, NOW.date(), 2)
    apply(Side.SELL, Amounts(1, 2, 1), market=at, holding=holding, at=NOW)
    assert holding == Holding(1, 4, -2 + 1 - 3, NOW.date(), 4)
    apply(Side.SELL, Amounts(1, 2, 1), market=at, holding=holding, at=NOW)
    assert holding == Holding(0, 0, -4 + 1 - 4, NOW.date(), 6)


def test_a_trade_that_would_leave_the_curve_uncovered_is_a_fault() -> None:
    at = market()
    with pytest.raises(AssertionError, match="asset 7: the backing would no longer cover the curve"):
        apply(Side.BUY, Amounts(BILLION, 1_052_499, 5_263), market=at, holding=Holding(), at=NOW)


def test_a_sale_of_more_than_is_held_is_a_fault() -> None:
    at = market()
    with pytest.raises(AssertionError, match="asset 7"):
        apply(Side.SELL, Amounts(2, 0, 0), market=at, holding=Holding(1, 0), at=NOW)


@given(shares=st.integers(1, 10**24), basis=st.integers(0, MONEY_BALANCE_MAX), parts=st.lists(st.integers(1, 10**24)))
def test_selling_in_parts_takes_out_the_whole_basis_and_never_more(shares: int, basis: int, parts: list[int]) -> None:
    holding, taken = Holding(shares, basis), 0
    for part in [*parts, 10**24]:
        sold = min(part, holding.shares)
        if sold == 0:
            break
        out = basis_of(holding, sold)
        assert 0 <= out <= holding.cost_basis
        holding.shares -= sold
        holding.cost_basis -= out
        taken += out
    assert (taken, holding.cost_basis) == (basis, 0)


def test_one_walk_fills_the_whole_order_on_the_curve() -> None:
    assert walk(order(), market=market()) == (Amounts(BILLION, 1_052_500, 5_263),)
    assert walk(order(Side.SELL), market=market()) == (Amounts(BILLION, 1_047_500, 5_238),)
    assert walk(order(amount="1.057763"), market=market()) == (Amounts(BILLION, 1_052_500, 5_263),)


def test_redeemed_counts_today_only() -> None:
    holding = Holding(redeemed_on=date(2026, 3, 4), redeemed=5)
    assert (holding.redeemed_today(date(2026, 3, 4)), holding.redeemed_today(date(2026, 3, 5))) == (5, 0)
