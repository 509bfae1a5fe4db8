"""What Hypothesis draws for the exchange: curves, supplies, sizes and amounts, in base units, to the ends of ranges."""

from fractions import Fraction

from hypothesis import strategies as st

from app.exchange.curve import Curve
from tests.exchange import model

PRICE_RANGE = (10**6, 10**21)
SLOPE_RANGE = (1, 10**24)
FEE_RANGE = (0, 10**8)
SUPPLY_LIMIT = 10**24
MONEY_LIMIT = 10**18


def magnitudes(minimum: int, maximum: int) -> st.SearchStrategy[int]:
    """Integers of every order of magnitude alike, their neighbours of round numbers, and both ends."""

    def at(exponent: int, mantissa: int, nudge: int) -> int:
        value: int = 10**exponent * mantissa // 1000 + nudge
        return min(max(value, minimum), maximum)

    exponents = st.integers(0, len(str(maximum)) - 1)
    spread = st.builds(at, exponents, st.integers(1000, 9999), st.integers(-2, 2))
    return st.one_of(spread, st.sampled_from([minimum, maximum]), st.integers(minimum, maximum))


CURVES = st.builds(
    Curve,
    base_price=magnitudes(*PRICE_RANGE),
    slope=magnitudes(*SLOPE_RANGE),
    fee_rate=magnitudes(*FEE_RANGE),
)
COMMON_CURVES = st.builds(
    Curve,
    base_price=st.integers(10**9, 10**15),
    slope=st.integers(10**12, 10**17),
    fee_rate=st.sampled_from([0, 1, 5_000_000, 33_333_333, 10**8]),
)


def exact(curve: Curve) -> model.ExactCurve:
    """The same curve in rationals of whole units."""
    return model.ExactCurve(curve.base_price * model.PRICE, curve.slope * model.SLOPE, curve.fee_rate * model.RATE)


def shares(units: int) -> Fraction:
    """Base units of shares in whole shares."""
    return units * model.SHARE


def money(units: int) -> Fraction:
    """Base units of money in whole units."""
    return units * model.MONEY
