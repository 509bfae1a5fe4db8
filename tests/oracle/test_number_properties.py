"""Numbers in text, against an independent writer: what was written is read, and nothing else is."""

from fractions import Fraction

from hypothesis import assume, example, given
from hypothesis import strategies as st

from app.oracle.numbers import collapse, numbers_in, stands_in
from app.oracle.units import parse_unit
from tests.oracle.number_styles import NUMBERS, POSITIVE, written

ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def spell(number: int) -> str:
    """The English words of 0 to 999,999,999,999, British style."""
    for scale, name in ((10**9, "billion"), (10**6, "million"), (1000, "thousand")):
        if number >= scale:
            rest = number % scale
            joint = " and " if 0 < rest < 100 else " "
            return f"{spell(number // scale)} {name}" + (joint + spell(rest) if rest else "")
    if number >= 100:
        return f"{spell(number // 100)} hundred" + (f" and {spell(number % 100)}" if number % 100 else "")
    if number >= 20:
        return TENS[number // 10] + (f"-{spell(number % 10)}" if number % 10 else "")
    return ONES[number]


@given(st.integers(0, 10**12 - 1))
@example(1_001_001)
@example(100_000_000_100)
def test_numbers_spelled_out_are_read(number: int) -> None:
    assert numbers_in(f"There were {spell(number)} of them.", parse_unit("items")) == (Fraction(number),)


FRAMES = (
    "{}",
    "It was {} then.",
    "Total: {}",
    "It stood at {}, they say",
    "({} of them)",
    "“{}”",
    "value={};",
    "a\n{}\nb",
)


@given(NUMBERS, st.sampled_from(FRAMES), st.data())
def test_a_number_in_any_style_is_read_as_itself_alone(number: Fraction, frame: str, data: st.DataObject) -> None:
    text = frame.format(data.draw(st.sampled_from(written(number))))
    assert numbers_in(text, parse_unit("items")) == (number,)


@given(NUMBERS, NUMBERS, st.sampled_from(FRAMES), st.data())
def test_another_number_does_not_stand_there(
    number: Fraction, other: Fraction, frame: str, data: st.DataObject
) -> None:
    assume(number != other)
    text = frame.format(data.draw(st.sampled_from(written(number))))
    for wrong in (other, -number, number * 1000, number / 1000, number * 10, number + 1):
        assert stands_in(wrong, text, parse_unit("items")) is (wrong == number)


@given(POSITIVE, st.data())
def test_thousands_are_told_from_ones(number: Fraction, data: st.DataObject) -> None:
    """`number` thousand employees, said in every way that says it: 1000 times too much or too little never stands."""
    ways = [f"{style} thousand employees" for style in written(number)]
    ways += [f"{style} employees" for style in written(number * 1000)]
    if (number / 1000 * 1000 * 1000).denominator == 1 and (number * 1000) % 1000 == 0:
        ways += [f"{style} million people" for style in written(number / 1000)]
    text = f"There were {data.draw(st.sampled_from(ways))} in May."
    unit = parse_unit("thousand employees")
    assert numbers_in(text, unit) == (number,)
    assert numbers_in(text, parse_unit("employees")) == (number * 1000,)
    assert numbers_in(text, parse_unit("%")) == ()
    assert not stands_in(number * 1000, text, unit)
    assert not stands_in(number / 1000, text, unit)


MONEY_FRAMES = ("${}", "US$ {}", "USD {}", "{} USD", "{} dollars", "${} a barrel", "{}$")


@given(
    POSITIVE,
    st.sampled_from(MONEY_FRAMES),
    st.sampled_from(["", " thousand", " million", " billion", "bn", "m"]),
    st.data(),
)
def test_money_has_its_magnitude_and_currency(
    number: Fraction, frame: str, magnitude: str, data: st.DataObject
) -> None:
    factor = {"": 1, " thousand": 1000, " million": 10**6, " billion": 10**9, "bn": 10**9, "m": 10**6}[magnitude]
    text = "It cost " + frame.format(data.draw(st.sampled_from(written(number))) + magnitude)
    assert numbers_in(text, parse_unit("USD")) == (number * factor,)
    assert numbers_in(text, parse_unit("EUR")) == ()
    assert numbers_in(text, parse_unit("GWh")) == ()
    assert number * factor / 10**6 in numbers_in(text, parse_unit("million USD"))


ENERGY = {"kWh": 1, "MWh": 10**3, "GWh": 10**6, "TWh": 10**9, "megawatt hours": 10**3, "thousand MWh": 10**6}


@given(POSITIVE, st.sampled_from(sorted(ENERGY)), st.sampled_from(["kWh", "MWh", "GWh", "TWh"]), st.data())
def test_energy_is_converted(number: Fraction, said: str, wanted: str, data: st.DataObject) -> None:
    text = f"It made {data.draw(st.sampled_from(written(number)))} {said} in a year"
    assert numbers_in(text, parse_unit(wanted)) == (number * ENERGY[said] / ENERGY[wanted],)


@given(NUMBERS, st.sampled_from(["°F", " °F", " degrees Fahrenheit"]), st.data())
def test_temperatures_are_converted(number: Fraction, scale: str, data: st.DataObject) -> None:
    text = f"It was {data.draw(st.sampled_from(written(number)))}{scale} outside"
    assert numbers_in(text, parse_unit("°C")) == ((number - 32) * Fraction(5, 9),)


@given(st.lists(st.tuples(POSITIVE, st.sampled_from(["USD", "%", "GWh", "EUR"])), max_size=12), st.data())
def test_each_unit_finds_its_own_in_order(said: list[tuple[Fraction, str]], data: st.DataObject) -> None:
    text = "; ".join(f"so much: {data.draw(st.sampled_from(written(number)))} {unit}" for number, unit in said)
    for wanted in ("USD", "%", "GWh", "EUR"):
        assert numbers_in(text, parse_unit(wanted)) == tuple(number for number, unit in said if unit == wanted)


@given(POSITIVE, st.sampled_from(["０１２３４５６７８９", "٠١٢٣٤٥٦٧٨٩", "O" * 10, "०१२३४५६७८९"]), st.data())
def test_one_foreign_digit_spoils_a_number(number: Fraction, digits: str, data: st.DataObject) -> None:
    style = data.draw(st.sampled_from(written(number)))
    at = data.draw(st.sampled_from([index for index, character in enumerate(style) if character.isdigit()]))
    text = f"It was {style[:at]}{digits[int(style[at])]}{style[at + 1 :]} then"
    assert not stands_in(number, text, parse_unit("items"))


ALPHABET = st.text(
    st.one_of(st.characters(), st.sampled_from("0123456789.,' -–−()%$€/:xeEkmMB°½\u00a0\u200b\u202eand")), max_size=200
)


@given(ALPHABET, st.sampled_from(["items", "thousand employees", "USD", "%", "°C", "million barrels per day"]))
def test_any_text_is_read_alike_however_wide_its_blanks(text: str, unit: str) -> None:
    found = numbers_in(text, parse_unit(unit))
    assert found == numbers_in(text.replace(" ", "\u00a0\n "), parse_unit(unit))
    assert found == numbers_in(collapse(text), parse_unit(unit))
    assert all(abs(number) < 10**90 for number in found)
