"""The linear bonding curve, exactly. Pure integer arithmetic: no I/O, no clock, no rounding but where it is named.

Price M(S) = P0 + k*S; reserve R(S) = P0*S + k*S^2/2, what redeeming all S shares pays (the integral of M).
Units: P0 in 10^-12, k in 10^-18, S and q in 10^-9 shares, money in 10^-6. In base units of money

    R(S) = (2*10^15*P0 + k*S) * S / (2*10^30)

so every difference of R is a rational with the denominator 2*10^30, rounded once, in the reserve's favour.
"""

from dataclasses import dataclass
from math import isqrt
from typing import Final

from app.money import MONEY_BALANCE_MAX, RATE_UNIT, SUPPLY_MAX, div_ceil, div_half_even

RESERVE_DENOMINATOR: Final = 2 * 10**30
_P0_SCALE: Final = 10**15
_AVERAGE_SCALE: Final = 10**15
"""money 10^-6 over shares 10^-9, as a price in 10^-12."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Parameters of an asset's curve: base_price in 10^-12, slope in 10^-18, fee_rate in 10^-9."""

    base_price: int
    slope: int
    fee_rate: int


@dataclass(frozen=True, slots=True)
class Amounts:
    """What a trade moves: shares in 10^-9, money in 10^-6. A buyer pays gross + fee, a seller gets gross - fee."""

    shares: int
    gross: int
    fee: int


def marginal_price(curve: Curve, supply: int) -> int:
    """M(S) in 10^-12, half-even."""
    return div_half_even(_P0_SCALE * curve.base_price + curve.slope * supply, _P0_SCALE)


def reserve_numerator(curve: Curve, supply: int) -> int:
    """R(S) times `RESERVE_DENOMINATOR`, exactly."""
    return (2 * _P0_SCALE * curve.base_price + curve.slope * supply) * supply


def required_reserve(curve: Curve, supply: int) -> int:
    """R(S) in base units of money, rounded up: the least that `backing` may be."""
    return div_ceil(reserve_numerator(curve, supply), RESERVE_DENOMINATOR)


def fee_on(curve: Curve, gross: int) -> int:
    """ceil(gross * feeRate)."""
    return div_ceil(gross * curve.fee_rate, RATE_UNIT)


def buy_shares(curve: Curve, supply: int, shares: int) -> Amounts:
    """Buying `shares` at `supply`: gross = ceil(R(S+q) - R(S))."""
    delta = reserve_numerator(curve, supply + shares) - reserve_numerator(curve, supply)
    gross = div_ceil(delta, RESERVE_DENOMINATOR)
    return Amounts(shares, gross, fee_on(curve, gross))


def sell_shares(curve: Curve, supply: int, shares: int) -> Amounts:
    """Selling `shares` (at most `supply`) at `supply`: gross = floor(R(S) - R(S-q))."""
    delta = reserve_numerator(curve, supply) - reserve_numerator(curve, supply - shares)
    gross = delta // RESERVE_DENOMINATOR
    return Amounts(shares, gross, fee_on(curve, gross))


def buy_amount(curve: Curve, supply: int, amount: int) -> Amounts:
    """The largest purchase whose gross + fee is at most `amount`. All zero when not even 10^-9 shares can be had."""
    shares = shares_for_gross(curve, supply, gross_within(curve, amount))
    if shares == 0:
        return Amounts(0, 0, 0)
    return buy_shares(curve, supply, shares)


def gross_within(curve: Curve, amount: int) -> int:
    """The largest gross with gross + ceil(gross * feeRate) <= amount.

    With G = floor(amount / (1 + f)): G*(1+f) <= amount, and since amount is whole, ceil(G*f) <= amount - G too;
    G + 1 overshoots before its fee is even rounded up.
    """
    return amount * RATE_UNIT // (RATE_UNIT + curve.fee_rate)


def shares_for_gross(curve: Curve, supply: int, gross: int) -> int:
    """The largest q with ceil(R(S+q) - R(S)) <= gross, by the exact inverse of the parabola.

    k*q^2 + 2*b*q <= c with b = 10^15*P0 + k*S and c = gross * 2*10^30; floor((isqrt(b^2 + k*c) - b) / k) is exact
    because the floor of a root is the floor of its integer root.
    """
    b = _P0_SCALE * curve.base_price + curve.slope * supply
    root = isqrt(b * b + curve.slope * gross * RESERVE_DENOMINATOR)
    return (root - b) // curve.slope


def max_supply(curve: Curve) -> int:
    """The largest supply the curve may reach: 10^15 shares, or where its reserve would outgrow a stored figure."""
    return min(SUPPLY_MAX, shares_for_gross(curve, 0, MONEY_BALANCE_MAX))


def average_price(gross: int, shares: int) -> int:
    """gross / shares in 10^-12, half-even; 0 for no shares."""
    return div_half_even(gross * _AVERAGE_SCALE, shares) if shares else 0
