"""Units, rounding, parsing and printing of exact quantities. Everything inside is an integer of base units.

money 10^-6 of the currency, shares 10^-9, prices 10^-12, slope 10^-18, rates, ratios and weights 10^-9.
Nothing here knows a float or a `decimal.Context`.
"""

import re
from typing import Final

from app.errors import invalid, quoted

MONEY_DECIMALS: Final = 6
SHARE_DECIMALS: Final = 9
RATE_DECIMALS: Final = 9
PRICE_DECIMALS: Final = 12
SLOPE_DECIMALS: Final = 18

MONEY_UNIT: Final = 10**MONEY_DECIMALS
SHARE_UNIT: Final = 10**SHARE_DECIMALS
RATE_UNIT: Final = 10**RATE_DECIMALS
PRICE_UNIT: Final = 10**PRICE_DECIMALS
SLOPE_UNIT: Final = 10**SLOPE_DECIMALS

MONEY_REQUEST_MAX: Final = 10**12 * MONEY_UNIT
"""The most money one request may name, in base units: 10^12 of the currency."""
MONEY_BALANCE_MAX: Final = 9 * 10**18
"""The most money any one stored figure may reach, in base units: fits a BIGINT with room to spare."""
SUPPLY_MAX: Final = 10**15 * SHARE_UNIT
PRICE_MIN: Final = PRICE_UNIT // 10**6
PRICE_MAX: Final = 10**9 * PRICE_UNIT
SLOPE_MIN: Final = 1
SLOPE_MAX: Final = 10**6 * SLOPE_UNIT
FEE_RATE_MAX: Final = RATE_UNIT // 10

TEXT_LENGTH_MAX: Final = 64
_DECIMAL = re.compile(r"-?[0-9]+(?:\.[0-9]+)?", re.ASCII)


def is_decimal_text(text: str) -> bool:
    """Whether `text` is a plain decimal: ASCII digits, perhaps a minus and one point, at most 64 characters."""
    return len(text) <= TEXT_LENGTH_MAX and _DECIMAL.fullmatch(text) is not None


def parse(
    text: str,
    *,
    decimals: int,
    field: tuple[str, ...],
    minimum: int = 0,
    maximum: int,
) -> int:
    """The base units that `text` names, with `decimals` places.

    `minimum` and `maximum` are in base units, both inclusive. Raises `Refused` (INVALID_INPUT) that quotes the value
    and names the field when it is not a plain decimal, has more places than the field, or is out of range.
    """
    if not is_decimal_text(text):
        raise invalid(
            f'{field[-1]} must be a plain decimal such as "12.5" (ASCII digits, no exponent); got {quoted(text)}.',
            *field,
        )
    whole, _, fraction = text.partition(".")
    if len(fraction) > decimals:
        raise invalid(f"{field[-1]} has at most {decimals} decimals; got {quoted(text)}.", *field)
    units = int(whole + fraction.ljust(decimals, "0"))
    negative_zero = whole.startswith("-") and units == 0
    if negative_zero or not minimum <= units <= maximum:
        raise invalid(
            f"{field[-1]} must be between {to_text(minimum, decimals)} and {to_text(maximum, decimals)}; "
            f"got {quoted(text)}.",
            *field,
        )
    return units


def to_text(units: int, decimals: int) -> str:
    """Exact decimal text of `units`, without trailing zeros: 1500000 with 6 decimals is "1.5"."""
    sign = "-" if units < 0 else ""
    digits = str(abs(units))
    if len(digits) <= decimals:
        digits = digits.rjust(decimals + 1, "0")
    whole, fraction = digits[: len(digits) - decimals], digits[len(digits) - decimals :].rstrip("0")
    return f"{sign}{whole}.{fraction}" if fraction else sign + whole


def money_text(units: int) -> str:
    """Money (10^-6) as text."""
    return to_text(units, MONEY_DECIMALS)


def shares_text(units: int) -> str:
    """Shares (10^-9) as text."""
    return to_text(units, SHARE_DECIMALS)


def price_text(units: int) -> str:
    """A price (10^-12) as text."""
    return to_text(units, PRICE_DECIMALS)


def div_ceil(numerator: int, denominator: int) -> int:
    """numerator / denominator rounded up; denominator > 0."""
    return -(-numerator // denominator)


def div_half_even(numerator: int, denominator: int) -> int:
    """numerator / denominator rounded to nearest, ties to even; denominator > 0."""
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    if twice > denominator or (twice == denominator and quotient & 1):
        quotient += 1
    return quotient
