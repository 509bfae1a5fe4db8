"""The curve in integers equals the curve in rationals, to the last unit, over every range."""

import itertools
from fractions import Fraction

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from app.exchange.curve import (
    RESERVE_DENOMINATOR,
    Amounts,
    Curve,
    average_price,
    buy_amount,
    buy_shares,
    fee_on,
    gross_within,
    marginal_price,
    max_supply,
    required_reserve,
    reserve_numerator,
    sell_shares,
    shares_for_gross,
)
from tests.exchange import model
from tests.exchange.strategies import (
    COMMON_CURVES,
    CURVES,
    MONEY_LIMIT,
    SUPPLY_LIMIT,
    exact,
    magnitudes,
    money,
    shares,
)

DEFAULT = Curve(base_price=10**12, slope=5 * 10**15, fee_rate=5_000_000)
"""P0 = 1, k = 0.005, fee 0.5 %."""
SHARE = 10**9
SUPPLIES = magnitudes(0, SUPPLY_LIMIT)
CORNERS = [
    Curve(base_price, slope, fee_rate)
    for base_price, slope, fee_rate in itertools.product((10**6, 10**21), (1, 10**24), (0, 1, 10**8))
]


def as_deal(amounts: Amounts) -> model.Deal:
    return model.Deal(shares(amounts.shares), money(amounts.gross), money(amounts.fee))


def backing_short(curve: Curve, supply: int, backing: int) -> bool:
    return money(backing) < exact(curve).reserve(shares(supply))


# ------------------------------------------------------------------------------------------------ by hand


def test_a_hundred_shares_from_nothing_cost_what_the_integral_says() -> None:
    assert buy_shares(DEFAULT, 0, 100 * SHARE) == Amounts(100 * SHARE, 125_000_000, 625_000)


def test_selling_them_back_pays_the_same_gross_and_another_fee() -> None:
    assert sell_shares(DEFAULT, 100 * SHARE, 100 * SHARE) == Amounts(100 * SHARE, 125_000_000, 625_000)


def test_a_thousand_buys_the_largest_whole_number_of_base_shares() -> None:
    bought = buy_amount(DEFAULT, 0, 1_000_000_000)
    assert bought == Amounts(461_823_201_466, 995_024_875, 4_975_125)
    assert buy_shares(DEFAULT, 0, bought.shares + 1) == Amounts(461_823_201_467, 995_024_876, 4_975_125)


def test_the_least_share_costs_a_whole_base_unit_and_its_fee_another() -> None:
    assert buy_shares(DEFAULT, 0, 1) == Amounts(1, 1, 1)
    assert sell_shares(DEFAULT, 1, 1) == Amounts(1, 0, 0)


def test_prices_along_the_default_curve() -> None:
    assert marginal_price(DEFAULT, 0) == 10**12
    assert marginal_price(DEFAULT, 100 * SHARE) == 1_500_000_000_000
    assert marginal_price(DEFAULT, 1) == 1_000_000_000_005
    assert required_reserve(DEFAULT, 100 * SHARE) == 125_000_000
    assert required_reserve(DEFAULT, 1) == 1
    assert required_reserve(DEFAULT, 0) == 0


def test_a_price_between_two_even_halves_goes_to_the_even_price() -> None:
    even = Curve(base_price=10**6, slope=500_000, fee_rate=0)
    odd = Curve(base_price=10**6 + 1, slope=500_000, fee_rate=0)
    assert marginal_price(even, SHARE) == 1_000_000
    assert marginal_price(even, 3 * SHARE) == 1_000_002
    assert marginal_price(odd, SHARE) == 1_000_002
    assert marginal_price(odd, 3 * SHARE) == 1_000_002


def test_average_price_is_half_even_and_zero_for_nothing() -> None:
    assert average_price(125_000_000, 100 * SHARE) == 1_250_000_000_000
    assert average_price(1, 3) == 333_333_333_333_333
    assert average_price(1, 2 * 10**15) == 0
    assert average_price(3, 2 * 10**15) == 2
    assert average_price(5, 0) == 0


def test_max_supply_is_the_share_limit_or_where_the_reserve_outgrows_a_column() -> None:
    assert max_supply(Curve(10**6, 1, 0)) == 10**24
    assert max_supply(DEFAULT) == 59_999_800_000_333_333
    assert max_supply(Curve(10**21, 10**24, 10**8)) == 3_358_898_943_540


# ------------------------------------------------------------------------------------------------ against the model


@given(curve=CURVES, supply=SUPPLIES)
@example(curve=Curve(10**6 + 1, 500_000, 0), supply=SHARE)
def test_price_and_reserve_equal_the_model(curve: Curve, supply: int) -> None:
    exactly = exact(curve)
    assert marginal_price(curve, supply) * model.PRICE == exactly.market(shares(supply))
    assert Fraction(reserve_numerator(curve, supply), RESERVE_DENOMINATOR) * model.MONEY == exactly.reserve(
        shares(supply)
    )
    assert money(required_reserve(curve, supply)) == exactly.required(shares(supply))


@given(curve=CURVES, supply=SUPPLIES, quantity=magnitudes(1, SUPPLY_LIMIT))
def test_buying_shares_equals_the_model(curve: Curve, supply: int, quantity: int) -> None:
    assert as_deal(buy_shares(curve, supply, quantity)) == exact(curve).buy(shares(supply), shares(quantity))


@given(curve=CURVES, supply=magnitudes(1, SUPPLY_LIMIT), data=st.data())
def test_selling_shares_equals_the_model(curve: Curve, supply: int, data: st.DataObject) -> None:
    quantity = data.draw(magnitudes(1, supply))
    assert as_deal(sell_shares(curve, supply, quantity)) == exact(curve).sell(shares(supply), shares(quantity))


@given(curve=CURVES, supply=SUPPLIES, amount=magnitudes(0, MONEY_LIMIT))
def test_an_amount_buys_the_most_that_it_can(curve: Curve, supply: int, amount: int) -> None:
    bought = buy_amount(curve, supply, amount)
    assert bought.gross + bought.fee <= amount
    dearer = buy_shares(curve, supply, bought.shares + 1)
    assert dearer.gross + dearer.fee > amount
    if bought.shares:
        assert bought == buy_shares(curve, supply, bought.shares)
    else:
        assert bought == Amounts(0, 0, 0)


@given(curve=CURVES, supply=SUPPLIES, amount=magnitudes(0, MONEY_LIMIT))
@settings(max_examples=50)
def test_an_amount_buys_what_bisection_finds(curve: Curve, supply: int, amount: int) -> None:
    assert as_deal(buy_amount(curve, supply, amount)) == exact(curve).buy_amount(shares(supply), money(amount))


@given(curve=CURVES, supply=SUPPLIES, quantity=magnitudes(1, SUPPLY_LIMIT))
def test_the_exact_cost_of_a_purchase_buys_at_least_it(curve: Curve, supply: int, quantity: int) -> None:
    asked = buy_shares(curve, supply, quantity)
    bought = buy_amount(curve, supply, asked.gross + asked.fee)
    assert bought.shares >= quantity
    assert bought.gross + bought.fee <= asked.gross + asked.fee


@given(curve=CURVES, supply=SUPPLIES, gross=magnitudes(0, MONEY_LIMIT))
def test_the_inverse_is_the_largest_quantity_within_the_gross(curve: Curve, supply: int, gross: int) -> None:
    quantity = shares_for_gross(curve, supply, gross)
    assert buy_shares(curve, supply, quantity).gross <= gross < buy_shares(curve, supply, quantity + 1).gross


@given(curve=CURVES, amount=magnitudes(0, 9 * MONEY_LIMIT))
def test_gross_within_is_the_largest_gross_that_leaves_room_for_its_fee(curve: Curve, amount: int) -> None:
    gross = gross_within(curve, amount)
    assert gross + fee_on(curve, gross) <= amount < gross + 1 + fee_on(curve, gross + 1)


@given(curve=CURVES, gross=magnitudes(0, 9 * MONEY_LIMIT))
def test_the_fee_is_the_rate_rounded_up(curve: Curve, gross: int) -> None:
    assert money(fee_on(curve, gross)) == exact(curve).fee(money(gross))


@given(gross=magnitudes(0, 9 * MONEY_LIMIT), quantity=magnitudes(0, SUPPLY_LIMIT))
def test_the_average_price_equals_the_model(gross: int, quantity: int) -> None:
    assert average_price(gross, quantity) * model.PRICE == model.average(money(gross), shares(quantity))


@given(curve=CURVES)
@settings(max_examples=50)
def test_max_supply_equals_the_model(curve: Curve) -> None:
    assert shares(max_supply(curve)) == exact(curve).max_supply()


@pytest.mark.parametrize("curve", CORNERS, ids=repr)
@pytest.mark.parametrize("supply", [0, 1, 10**9, 10**24])
@pytest.mark.parametrize("amount", [0, 1, 2, 10**6, 10**18])
def test_the_corners_of_every_range_equal_the_model(curve: Curve, supply: int, amount: int) -> None:
    exactly = exact(curve)
    bought = buy_amount(curve, supply, amount)
    assert as_deal(bought) == exactly.buy_amount(shares(supply), money(amount))
    assert as_deal(sell_shares(curve, supply, supply)) == exactly.sell(shares(supply), shares(supply))
    assert as_deal(buy_shares(curve, supply, 1)) == exactly.buy(shares(supply), shares(1))
    assert marginal_price(curve, supply) * model.PRICE == exactly.market(shares(supply))


# ------------------------------------------------------------------------------------------------ what must hold

STEPS = st.lists(st.tuples(st.booleans(), magnitudes(1, 10**15)), min_size=1, max_size=40)
DUST = st.lists(st.tuples(st.booleans(), st.integers(1, 50)), min_size=1, max_size=80)


@given(curve=st.one_of(CURVES, COMMON_CURVES), start=magnitudes(0, 10**15), steps=st.one_of(STEPS, DUST))
def test_the_backing_covers_the_curve_along_any_sequence(
    curve: Curve, start: int, steps: list[tuple[bool, int]]
) -> None:
    supply, backing = start, required_reserve(curve, start)
    for is_buy, wanted in steps:
        size = wanted if is_buy else min(wanted, supply)
        if is_buy:
            trade = buy_shares(curve, supply, size)
            supply, backing = supply + size, backing + trade.gross
        else:
            trade = sell_shares(curve, supply, size)
            supply, backing = supply - size, backing - trade.gross
        assert not backing_short(curve, supply, backing)
        assert backing >= required_reserve(curve, supply)


@given(curve=st.one_of(CURVES, COMMON_CURVES), start=magnitudes(0, 10**15), steps=st.one_of(STEPS, DUST))
def test_no_cycle_ends_with_a_trader_ahead(curve: Curve, start: int, steps: list[tuple[bool, int]]) -> None:
    supply, held, cash = start, 0, 0
    for is_buy, wanted in steps:
        size = wanted if is_buy else min(wanted, held)
        if is_buy:
            trade = buy_shares(curve, supply, size)
            supply, held, cash = supply + size, held + size, cash - trade.gross - trade.fee
        elif held:
            trade = sell_shares(curve, supply, size)
            supply, held, cash = supply - size, held - size, cash + trade.gross - trade.fee
    if held:
        trade = sell_shares(curve, supply, held)
        supply, cash = supply - held, cash + trade.gross - trade.fee
    assert supply == start
    assert cash <= 0


@given(
    curve=COMMON_CURVES, supply=magnitudes(0, 10**15), parts=st.lists(magnitudes(1, 10**12), min_size=2, max_size=20)
)
def test_a_purchase_in_parts_is_never_cheaper_than_whole(curve: Curve, supply: int, parts: list[int]) -> None:
    whole = buy_shares(curve, supply, sum(parts))
    gross = fee = 0
    at = supply
    for part in parts:
        trade = buy_shares(curve, at, part)
        at, gross, fee = at + part, gross + trade.gross, fee + trade.fee
    assert gross >= whole.gross
    assert fee >= whole.fee


@given(
    curve=COMMON_CURVES, supply=magnitudes(1, 10**15), parts=st.lists(magnitudes(1, 10**12), min_size=2, max_size=20)
)
def test_a_sale_in_parts_never_pays_more_than_whole(curve: Curve, supply: int, parts: list[int]) -> None:
    assume(sum(parts) <= supply)
    whole = sell_shares(curve, supply, sum(parts))
    net = 0
    at = supply
    for part in parts:
        trade = sell_shares(curve, at, part)
        at, net = at - part, net + trade.gross - trade.fee
    assert net <= whole.gross - whole.fee


@given(curve=CURVES, supply=SUPPLIES, quantity=magnitudes(1, SUPPLY_LIMIT))
def test_selling_what_was_just_bought_never_gains(curve: Curve, supply: int, quantity: int) -> None:
    bought = buy_shares(curve, supply, quantity)
    sold = sell_shares(curve, supply + quantity, quantity)
    assert bought.gross - sold.gross in (0, 1)
    assert sold.gross - sold.fee <= bought.gross + bought.fee
