"""The price model in integers equals the model in rationals, within the error that its head states."""

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.money import RATE_UNIT
from app.pricing.model import (
    DECAY_ERROR,
    SECOND,
    VOLUME_SCALE,
    ModelState,
    Parameters,
    Prices,
    after_override,
    after_reading,
    after_refresh,
    after_trade,
    averaged,
    decayed,
    displayed,
    opening,
    prices_at,
    rebased,
    stale_weight,
    volume_weight,
)
from tests.exchange.strategies import magnitudes
from tests.pricing import rational_model as exact
from tests.pricing.causes import ONE, PARAMETERS

MONEY = 10**6
PRICES = magnitudes(10**6, 10**33)
SHARES_OF_ONE = st.one_of(st.integers(0, RATE_UNIT), st.sampled_from([0, 1, RATE_UNIT // 2, RATE_UNIT]))
VOLUMES = magnitudes(0, 10**34)
SCALES = magnitudes(1, 10**18)
HALF_LIVES = magnitudes(1, 31_536_000)
ELAPSED = magnitudes(0, 10**15)


def test_the_documented_error_is_the_one_the_rational_model_allows() -> None:
    assert DECAY_ERROR == exact.DECAY_ERROR


# ------------------------------------------------------------------------------------------------ by hand


@pytest.mark.parametrize(
    ("elapsed_seconds", "left"),
    [
        (0, 1_000_000_000_000_000),
        (900, 500_000_000_000_000),
        (450, 707_106_781_186_548),
        (1, 999_230_132_965_856),
        (2_700, 125_000_000_000_000),
        (9_000, 976_562_500_000),
        (900 * 50, 1),
        (900 * 51, 0),
        (900 * 1_000_000, 0),
    ],
)
def test_a_thousand_of_volume_halves_every_fifteen_minutes(elapsed_seconds: int, left: int) -> None:
    assert decayed(10**15, elapsed=elapsed_seconds * SECOND, half_life_seconds=900) == left


def test_halves_of_a_unit_go_to_the_even_one() -> None:
    halves = [decayed(volume, elapsed=SECOND, half_life_seconds=1) for volume in (1, 3, 5, 7)]
    assert halves == [0, 2, 2, 4]


def test_the_weight_of_the_market_by_hand() -> None:
    scale = 1_000 * MONEY
    volumes = (0, 250, 1_000, 3_000, 9_000, 10**9)
    weights = [volume_weight(volume * MONEY * VOLUME_SCALE, volume_scale=scale) for volume in volumes]
    assert weights == [500_000_000, 600_000_000, 750_000_000, 875_000_000, 950_000_000, 950_000_000]


def test_the_average_begins_at_the_base_price_and_takes_a_fifth_of_each_reading() -> None:
    state = opening(PARAMETERS, at=0)
    for value, average in ((2 * ONE, 1_200_000_000_000), (2 * ONE, 1_360_000_000_000), (0, 1_088_000_000_000)):
        state = after_reading(state, PARAMETERS, at=0, value=value, cadence_seconds=300, fresh_seconds=600)
        assert state.fundamental == average


def test_averages_and_displayed_prices_round_half_to_even() -> None:
    half = RATE_UNIT // 2
    assert [averaged(value, before=0, fundamental_weight=half) for value in (1, 3, 5)] == [0, 2, 2]
    assert [displayed(market=market, fundamental=0, market_weight=half) for market in (1, 3, 5)] == [0, 2, 2]
    assert displayed(market=2 * ONE, fundamental=ONE, market_weight=750_000_000) == 1_750_000_000_000


def test_before_any_reading_the_market_is_all_that_counts() -> None:
    state = after_trade(opening(PARAMETERS, at=0), PARAMETERS, at=1, gross=MONEY, market=3 * ONE, supply=1)
    assert prices_at(state, PARAMETERS, at=10**15) == Prices(3 * ONE, 3 * ONE, ONE, RATE_UNIT, stale=False)


def test_without_supply_the_market_price_is_the_base_price_of_now() -> None:
    moved = Parameters(5 * ONE, 200_000_000, 1_000_000_000, 900)
    sold_out = after_trade(opening(PARAMETERS, at=0), PARAMETERS, at=1, gross=MONEY, market=ONE, supply=0)
    assert prices_at(sold_out, moved, at=1) == Prices(ONE, ONE, 5 * ONE, RATE_UNIT, stale=False)
    assert prices_at(rebased(sold_out, moved), moved, at=1) == Prices(5 * ONE, 5 * ONE, 5 * ONE, RATE_UNIT, stale=False)
    held = after_trade(opening(PARAMETERS, at=0), PARAMETERS, at=1, gross=MONEY, market=ONE, supply=1)
    assert rebased(held, moved) is held


def test_an_override_sets_the_average_and_the_next_reading_goes_on_from_there() -> None:
    state = after_override(opening(PARAMETERS, at=0), at=0, value=10 * ONE, cadence_seconds=300, fresh_seconds=600)
    assert state.fundamental == 10 * ONE
    state = after_reading(state, PARAMETERS, at=1, value=5 * ONE, cadence_seconds=300, fresh_seconds=600)
    assert state.fundamental == 9 * ONE


def test_a_refresh_moves_the_promise_and_nothing_else() -> None:
    read = after_reading(
        opening(PARAMETERS, at=0), PARAMETERS, at=0, value=2 * ONE, cadence_seconds=300, fresh_seconds=600
    )
    refreshed = after_refresh(read, at=500 * SECOND, cadence_seconds=60, fresh_seconds=90)
    assert refreshed == ModelState(ONE, 0, 1_200_000_000_000, 500 * SECOND, 60, 90, 0, 0)


def test_a_refresh_before_any_reading_has_nothing_to_confirm() -> None:
    state = opening(PARAMETERS, at=0)
    assert after_refresh(state, at=5, cadence_seconds=60, fresh_seconds=90) is state


@pytest.mark.parametrize(
    ("seconds", "weight", "stale"),
    [
        (600, 500_000_000, False),
        (Fraction(600_000_001, 10**6), 500_000_002, True),
        (675, 625_000_000, True),
        (750, 750_000_000, True),
        (900, RATE_UNIT, True),
        (10**6, RATE_UNIT, True),
    ],
)
def test_while_stale_the_weight_rises_to_one_in_a_straight_line(
    seconds: int | Fraction, weight: int, stale: bool
) -> None:
    state = after_reading(
        opening(PARAMETERS, at=0), PARAMETERS, at=0, value=2 * ONE, cadence_seconds=300, fresh_seconds=600
    )
    prices = prices_at(state, PARAMETERS, at=int(seconds * SECOND))
    assert (prices.market_weight, prices.stale) == (weight, stale)


def test_a_trade_counts_in_full_at_its_own_moment() -> None:
    state = after_trade(opening(PARAMETERS, at=0), PARAMETERS, at=0, gross=1_000 * MONEY, market=2 * ONE, supply=10**9)
    state = after_trade(state, PARAMETERS, at=900 * SECOND, gross=500 * MONEY, market=2 * ONE, supply=10**9)
    assert (state.recent_volume, state.recent_volume_at) == (1_000 * 10**12, 900 * SECOND)


# ------------------------------------------------------------------------------------------------ against the model


@given(volume=VOLUMES, elapsed=ELAPSED, half_life=HALF_LIVES)
@example(volume=10**37, elapsed=1, half_life=31_536_000)
@example(volume=10**37, elapsed=SECOND - 1, half_life=1)
@example(volume=10**37, elapsed=200 * SECOND + 123_457, half_life=1)
def test_decayed_volume_is_within_the_documented_error(volume: int, elapsed: int, half_life: int) -> None:
    left = volume * exact.halved(Fraction(elapsed, half_life * SECOND))
    error = abs(decayed(volume, elapsed=elapsed, half_life_seconds=half_life) - left)
    assert error <= Fraction(1, 2) + left * DECAY_ERROR


@given(volume=VOLUMES, first=ELAPSED, then=ELAPSED, half_life=HALF_LIVES)
def test_more_time_never_leaves_more_volume(volume: int, first: int, then: int, half_life: int) -> None:
    sooner = decayed(volume, elapsed=first, half_life_seconds=half_life)
    later = decayed(volume, elapsed=first + then, half_life_seconds=half_life)
    assert later <= sooner + 1 + volume * DECAY_ERROR
    assert sooner <= volume


@given(volume=VOLUMES, scale=SCALES)
def test_the_volume_weight_equals_the_model(volume: int, scale: int) -> None:
    weight = volume_weight(volume, volume_scale=scale)
    assert weight * exact.WEIGHT == exact.weight_of(volume * exact.VOLUME, Fraction(scale, MONEY))


@given(weight=SHARES_OF_ONE, stale_for=ELAPSED, cadence=HALF_LIVES)
def test_the_stale_weight_equals_the_model_and_stays_a_weight(weight: int, stale_for: int, cadence: int) -> None:
    share = min(Fraction(stale_for, cadence * SECOND), Fraction(1))
    expected = exact.nearest(weight * exact.WEIGHT * (1 - share) + share, exact.WEIGHT)
    raised = stale_weight(weight, stale_for=stale_for, cadence_seconds=cadence)
    assert weight <= raised <= RATE_UNIT
    # The line begins at a rounded weight, and a tie may go the other way once that is added: at most one unit.
    assert abs(raised * exact.WEIGHT - expected) <= exact.WEIGHT


@given(weight=SHARES_OF_ONE, market=PRICES, fundamental=PRICES)
def test_the_displayed_price_equals_the_model_and_lies_between(weight: int, market: int, fundamental: int) -> None:
    display = displayed(market=market, fundamental=fundamental, market_weight=weight)
    expected = exact.display_of(weight * exact.WEIGHT, market * exact.PRICE, fundamental * exact.PRICE)
    assert display * exact.PRICE == expected
    assert min(market, fundamental) <= display <= max(market, fundamental)


@given(b=st.integers(1, RATE_UNIT), value=PRICES, before=PRICES)
def test_the_average_equals_the_model_and_lies_between(b: int, value: int, before: int) -> None:
    average = averaged(value, before=before, fundamental_weight=b)
    weight = b * exact.WEIGHT
    expected = exact.nearest(weight * value * exact.PRICE + (1 - weight) * before * exact.PRICE, exact.PRICE)
    assert average * exact.PRICE == expected
    assert min(value, before) <= average <= max(value, before)
