"""Decimal text to base units and back, exactly; everything that is no plain decimal is refused, quoted and named."""

import re
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app import money
from app.errors import ErrorCode, Refused
from tests.exchange import model
from tests.exchange.strategies import magnitudes

FIELD = ("input", "amount")
PLAIN = re.compile(r"(?P<sign>-?)(?P<digits>[0123456789]+([.][0123456789]+)?)")


def parsed(text: str, *, decimals: int = 6, minimum: int = 0, maximum: int = 10**18) -> int:
    return money.parse(text, decimals=decimals, field=FIELD, minimum=minimum, maximum=maximum)


def refusal_of(text: str, *, decimals: int = 6, minimum: int = 0, maximum: int = 10**18) -> str:
    with pytest.raises(Refused) as refused:
        parsed(text, decimals=decimals, minimum=minimum, maximum=maximum)
    assert refused.value.refusal.code is ErrorCode.INVALID_INPUT
    assert refused.value.refusal.field == FIELD
    assert "amount" in refused.value.refusal.message
    return refused.value.refusal.message


@pytest.mark.parametrize(
    ("text", "decimals", "units"),
    [
        ("0", 6, 0),
        ("0.000001", 6, 1),
        ("12.345678", 6, 12_345_678),
        ("12.5", 6, 12_500_000),
        ("007", 6, 7_000_000),
        ("1000000000000", 6, 10**18),
        ("0.000000001", 9, 1),
        ("0.000000000001", 12, 1),
        ("0.000000000000000001", 18, 1),
        ("999999999999.999999", 6, 10**18 - 1),
    ],
)
def test_a_plain_decimal_is_its_base_units(text: str, decimals: int, units: int) -> None:
    assert parsed(text, decimals=decimals) == units


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "1 ", " 1", "1\n", "\t1", "+1", "--1", "-", ".", "1.", ".5", "-.5", "1.2.3", "1,5", "1_000", "0x10",
        "NaN", "nan", "sNaN", "Infinity", "-Infinity", "inf", "1e5", "1E5", "1e400", "1e-30", "1.0e0", "１２", "１.５",
        "٣", "1٫5", "१२", "²", "Ⅷ", "1\u200b", "\ufeff1", "1\x00", "−1", "true", "null", "1/2", "$1", "1USDC",
    ],
)  # fmt: skip
def test_what_is_no_plain_decimal_is_refused_with_its_text(text: str) -> None:
    assert f"'{text}'" in refusal_of(text)


@pytest.mark.parametrize("last", ["0", "1"])
@pytest.mark.parametrize("decimals", [6, 9, 12, 18])
def test_one_decimal_too_many_is_refused(decimals: int, last: str) -> None:
    text = "1." + "0" * decimals + last
    message = refusal_of(text, decimals=decimals)
    assert f"at most {decimals} decimals" in message
    assert f"'{text}'" in message


def test_ten_to_the_minus_thirty_is_refused() -> None:
    text = "0." + "0" * 29 + "1"
    assert f"'{text}'" in refusal_of(text, decimals=18)


@pytest.mark.parametrize("length", [65, 5_000, 10_240])
def test_long_text_is_refused_and_quoted_cut(length: int) -> None:
    message = refusal_of("1" * length)
    assert f"'{'1' * 40}...' ({length} characters)" in message
    assert len(message) < 300


@pytest.mark.parametrize("text", ["-0", "-0.0", "-0.000000"])
def test_a_signed_zero_is_refused(text: str) -> None:
    assert f"'{text}'" in refusal_of(text)
    assert f"'{text}'" in refusal_of(text, minimum=-5)


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        ("-1", "between 0 and 1000000000000"),
        ("-0.000001", "between 0 and"),
        ("1000000000000.000001", "and 1000000000000;"),
    ],
)
def test_what_is_out_of_range_is_refused_with_the_range(text: str, bounds: str) -> None:
    message = refusal_of(text)
    assert bounds in message
    assert f"'{text}'" in message


def test_both_ends_of_a_range_are_inside() -> None:
    assert parsed("0.000001", minimum=1, maximum=2) == 1
    assert parsed("0.000002", minimum=1, maximum=2) == 2
    refusal_of("0", minimum=1, maximum=2)
    refusal_of("0.000003", minimum=1, maximum=2)


def test_negative_values_are_read_where_they_have_a_sense() -> None:
    assert parsed("-1.5", minimum=-2_000_000) == -1_500_000
    assert parsed("-0.000001", minimum=-1) == -1
    refusal_of("-2.000001", minimum=-2_000_000)


@given(text=st.one_of(st.from_regex(r"-?[0-9]{0,40}(\.[0-9]{0,25})?", fullmatch=True), st.text(max_size=70)))
@example(text="0" * 65)
def test_parsing_equals_the_model(text: str) -> None:
    match = PLAIN.fullmatch(text)
    value = Fraction(text) if match and len(text) <= 64 else None
    fits = (
        match is not None
        and value is not None
        and (value * 10**9).denominator == 1
        and abs(value) <= 10**9
        and (value != 0 or not match["sign"])
    )
    if fits and value is not None:
        assert parsed(text, decimals=9, minimum=-(10**18)) == value * 10**9
    else:
        refusal_of(text, decimals=9, minimum=-(10**18))


@given(units=st.one_of(magnitudes(0, 10**40), magnitudes(0, 10**40).map(lambda n: -n)), decimals=st.integers(0, 18))
def test_text_is_exact_short_and_parsed_back(units: int, decimals: int) -> None:
    text = money.to_text(units, decimals)
    assert Fraction(text) * 10**decimals == units
    assert re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]*[1-9])?", text)
    assert parsed(text, decimals=decimals, minimum=-(10**40), maximum=10**40) == units


@pytest.mark.parametrize(
    ("units", "decimals", "text"),
    [(0, 6, "0"), (1_500_000, 6, "1.5"), (-1, 6, "-0.000001"), (-10, 1, "-1"), (10, 0, "10"), (100, 0, "100")],
)
def test_text_has_no_trailing_zeros(units: int, decimals: int, text: str) -> None:
    assert money.to_text(units, decimals) == text


@given(units=magnitudes(0, 10**18))
def test_each_unit_has_its_own_text(units: int) -> None:
    assert Fraction(money.money_text(units)) == units * model.MONEY
    assert Fraction(money.shares_text(units)) == units * model.SHARE
    assert Fraction(money.price_text(units)) == units * model.PRICE


@given(numerator=st.integers(-(10**60), 10**60), denominator=magnitudes(1, 10**40))
@example(numerator=1, denominator=2)
@example(numerator=3, denominator=2)
@example(numerator=-1, denominator=2)
@example(numerator=-3, denominator=2)
def test_rounding_equals_the_model(numerator: int, denominator: int) -> None:
    one = Fraction(1)
    assert money.div_ceil(numerator, denominator) == model.up(Fraction(numerator, denominator), one)
    assert money.div_half_even(numerator, denominator) == model.nearest(Fraction(numerator, denominator), one)
