"""The exact model that the curve is held against: rationals throughout, written from the definitions alone.

Quantities are `Fraction`s of whole units (currency, shares, price), never base units, and the inverse of the curve is
found by bisection. Nothing of `app` is imported here, and nothing may be: two copies of one mistake prove nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

MONEY = Fraction(1, 10**6)
SHARE = Fraction(1, 10**9)
RATE = Fraction(1, 10**9)
PRICE = Fraction(1, 10**12)
SLOPE = Fraction(1, 10**18)


def up(value: Fraction, step: Fraction) -> Fraction:
    """The least multiple of `step` that is not below `value`."""
    return ceil(value / step) * step


def down(value: Fraction, step: Fraction) -> Fraction:
    """The greatest multiple of `step` that is not above `value`."""
    return floor(value / step) * step


def nearest(value: Fraction, step: Fraction) -> Fraction:
    """The multiple of `step` nearest to `value`, ties to the even multiple."""
    return round(value / step) * step


def largest(fits: Callable[[int], bool]) -> int:
    """The largest n >= 0 that fits, given that 0 does and that nothing fits above what does not."""
    low, high = 0, 1
    while fits(high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


@dataclass(frozen=True)
class Deal:
    """What a trade moves: shares, and money before and for fees."""

    shares: Fraction
    gross: Fraction
    fee: Fraction

    @property
    def cost(self) -> Fraction:
        """What a buyer pays."""
        return self.gross + self.fee

    @property
    def proceeds(self) -> Fraction:
        """What a seller gets."""
        return self.gross - self.fee


@dataclass(frozen=True)
class ExactCurve:
    """M(S) = P0 + k*S; redeeming all S shares pays R(S) = P0*S + k*S^2/2."""

    base_price: Fraction
    slope: Fraction
    fee_rate: Fraction

    def reserve(self, supply: Fraction) -> Fraction:
        """R(S), not rounded."""
        return self.base_price * supply + self.slope * supply**2 / 2

    def required(self, supply: Fraction) -> Fraction:
        """R(S) rounded up to money."""
        return up(self.reserve(supply), MONEY)

    def market(self, supply: Fraction) -> Fraction:
        """M(S), half-even at 12 decimals."""
        return nearest(self.base_price + self.slope * supply, PRICE)

    def fee(self, gross: Fraction) -> Fraction:
        """The fee on `gross`, rounded up to money."""
        return up(gross * self.fee_rate, MONEY)

    def buy(self, supply: Fraction, shares: Fraction) -> Deal:
        """Buying `shares` at `supply`."""
        gross = up(self.reserve(supply + shares) - self.reserve(supply), MONEY)
        return Deal(shares, gross, self.fee(gross))

    def sell(self, supply: Fraction, shares: Fraction) -> Deal:
        """Selling `shares` at `supply`."""
        gross = down(self.reserve(supply) - self.reserve(supply - shares), MONEY)
        return Deal(shares, gross, self.fee(gross))

    def buy_amount(self, supply: Fraction, amount: Fraction) -> Deal:
        """The largest purchase that costs at most `amount`."""
        return self.buy(supply, largest(lambda n: self.buy(supply, n * SHARE).cost <= amount) * SHARE)

    def max_supply(self) -> Fraction:
        """10^15 shares, or the largest supply of which redeeming all of it pays at most 9 * 10^12 of the currency."""
        bound = 9 * 10**12
        return min(Fraction(10**15), largest(lambda n: self.reserve(n * SHARE) <= bound) * SHARE)


def average(gross: Fraction, shares: Fraction) -> Fraction:
    """gross / shares, half-even at 12 decimals; 0 for no shares."""
    return nearest(gross / shares, PRICE) if shares else Fraction(0)
