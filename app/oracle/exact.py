"""Numbers as exact fractions: read from texts, written as texts, and their medians. Pure; there is no float here."""

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from app.money import to_text

NUMBER_CHARS_MAX: Final = 60
EXPONENT_MAX: Final = 40
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE]([+-]?[0-9]{1,3}))?", re.ASCII)
"""As JSON writes numbers: ASCII digits, no plus sign, no leading zeros."""


def exact_number(text: str) -> Fraction:
    """The number that `text` is in JSON's own form, such as "-12.5" or "6.7e4".

    At most `NUMBER_CHARS_MAX` characters and an exponent within 40 of zero, so that no short text is a huge number.
    Raises ValueError that quotes any other text ("NaN", "1e400", "1,000").
    """
    match = _NUMBER.fullmatch(text) if len(text) <= NUMBER_CHARS_MAX else None
    if match is None or abs(int(match[1] or 0)) > EXPONENT_MAX:
        raise ValueError(
            f"{text[:NUMBER_CHARS_MAX]!r} is no number that can be used: write a plain decimal of at most"
            f" {NUMBER_CHARS_MAX} characters with an exponent within {EXPONENT_MAX} of zero, if any"
        )
    return Fraction(text)


def exact_text(value: Fraction) -> str:
    """`value` as decimal text where that is finite ("0.125"), else as a fraction in lowest terms ("1/3")."""
    rest, places = value.denominator, 0
    for factor in (2, 5):
        power = 0
        while rest % factor == 0:
            rest //= factor
            power += 1
        places = max(places, power)
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    return to_text(value.numerator * 10**places // value.denominator, places)


def lower_median(values: Sequence[Fraction]) -> Fraction:
    """The middle one in order; the lower of the middle two of an even number. One of `values`, which are not empty."""
    return sorted(values)[(len(values) - 1) // 2]


def median(values: Sequence[Fraction]) -> Fraction:
    """The middle one in order; the mean of the middle two of an even number. `values` are not empty."""
    ordered = sorted(values)
    return (ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2
