"""Units from free text, and exact conversion between those of one dimension."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.oracle.numbers import numbers_in
from app.oracle.units import Quantity, Unit, in_unit, known_quantities, parse_unit, words_in


@pytest.mark.parametrize(
    ("text", "magnitude", "dimension", "noun"),
    [
        ("USD", 1, "money", None),
        ("US dollars", 1, "money", None),
        ("U.S. dollars", 1, "money", None),
        ("$", 1, "money", None),
        ("USD per barrel", 1, "money", None),
        ("million USD", 10**6, "money", None),
        ("USD million", 10**6, "money", None),
        ("€m", 10**6, "money", None),
        ("€bn", 10**9, "money", None),
        ("US$ billions", 10**9, "money", None),
        ("US cents per kWh", 1, "money", None),
        ("thousand employees", 1000, "", "employee"),
        ("Thousands of employees", 1000, "", "employee"),
        ("employees (thousands)", 1000, "", "employee"),
        ("employees (000s)", 1000, "", "employee"),
        ("'000 employees", 1000, "", "employee"),
        ("1,000 employees", 1000, "", "employee"),
        ("people", 1, "", "people"),
        ("", 1, "", None),
        ("???", 1, "", None),
        ("million barrels per day", 10**6, "volume", None),
        ("mb/d", 1, "volume", None),
        ("%", 1, "ratio", None),
        ("percent", 1, "ratio", None),
        ("per cent", 1, "ratio", None),
        ("percentage points", 1, "ratio", None),
        ("seasonally adjusted percent of GDP", 1, "ratio", None),
        ("basis points", 1, "ratio", None),
        ("°C", 1, "temperature", None),
        ("degrees Celsius", 1, "temperature", None),
        ("daily maximum in °F", 1, "temperature", None),
        ("GWh", 1, "energy", None),
        ("thousand MWh", 1000, "energy", None),
        ("megawatt-hours", 1, "energy", None),
        ("MW", 1, "power", None),
        ("ppm", 1, "concentration", None),
        ("parts per million", 1, "concentration", None),
        ("index points", 1, "points", None),
        ("m/s", 1, "length", None),
        ("million tonnes of CO2", 10**6, "mass", None),
        ("USD per million Btu", 1, "money", None),
        ("dozen eggs", 12, "", "egg"),
        ("lakh crore rupees", 10**12, "money", None),
    ],
)
def test_units_are_read_from_text(text: str, magnitude: int, dimension: str, noun: str | None) -> None:
    unit = parse_unit(text)
    assert (unit.text, unit.magnitude, unit.dimension, unit.noun) == (text, magnitude, dimension, noun)


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("USD", ("USD",)),
        ("$", ("USD",)),
        ("dollars", ("USD",)),
        ("euros", ("EUR",)),
        ("¥", ("JPY",)),
        ("CN¥", ("CNY",)),
        ("C$", ("CAD",)),
        ("Canadian dollars", ("CAD",)),
        ("Swiss francs", ("CHF",)),
        ("rupees", ("INR",)),
        ("USDC", ("USDC",)),
        ("pence", ("GBP",)),
    ],
)
def test_a_unit_of_money_is_one_currency(text: str, codes: tuple[str, ...]) -> None:
    assert [quantity.codes for quantity in parse_unit(text).quantities] == [codes]


@pytest.mark.parametrize(
    ("text", "per", "factor"),
    [
        ("USD per barrel", "volume", Fraction("158.987294928")),
        ("USD/bbl", "volume", Fraction("158.987294928")),
        ("Euro / MWh", "energy", Fraction(10**6)),
        ("USD per million Btu", "energy", Fraction("1055055852.62") / 3600),
        ("million barrels a day", "time", Fraction(86_400)),
        ("m/s", "time", Fraction(1)),
        ("kWh per month", "calendar", Fraction(1)),
        ("USD per share", "", Fraction(1)),
        ("people per km²", "area", Fraction(10**6)),
    ],
)
def test_what_a_unit_is_counted_by(text: str, per: str, factor: Fraction) -> None:
    found = parse_unit(text).quantities[0].per
    assert found is not None
    assert (found.dimension, found.factor) == (per, factor)


def test_a_unit_of_two_meanings_keeps_both() -> None:
    assert [quantity.dimension for quantity in parse_unit("pounds").quantities] == ["mass", "money"]
    assert [q.per and q.per.factor for q in parse_unit("USD per ounce").quantities] == [
        Fraction("28.349523125"),
        Fraction("31.1034768"),
    ]


def one(text: str) -> Quantity:
    quantities = parse_unit(text).quantities
    assert len(quantities) == 1
    return quantities[0]


@pytest.mark.parametrize(
    ("value", "found", "wanted", "expected"),
    [
        ("1", "kWh", "Wh", "1000"),
        ("1", "TWh", "GWh", "1000"),
        ("1", "MWh", "GWh", "0.001"),
        ("3.6", "MJ", "kWh", "1"),
        ("1", "MMBtu", "GJ", "1.05505585262"),
        ("5", "GW", "MW", "5000"),
        ("1", "lb", "kg", "0.45359237"),
        ("1", "troy ounces", "g", "31.1034768"),
        ("1", "short ton", "kg", "907.18474"),
        ("1", "mile", "km", "1.609344"),
        ("12", "inches", "feet", "1"),
        ("3", "feet", "yards", "1"),
        ("36", "km/h", "m/s", "10"),
        ("60", "mph", "km/h", "96.56064"),
        ("10", "knots", "km/h", "18.52"),
        ("32", "°F", "°C", "0"),
        ("212", "°F", "°C", "100"),
        ("-40", "°F", "°C", "-40"),
        ("0", "°C", "K", "273.15"),
        ("20", "°C", "°F", "68"),
        ("1500", "ppb", "ppm", "1.5"),
        ("25", "basis points", "%", "0.25"),
        ("0.25", "%", "basis points", "25"),
        ("5", "‰", "%", "0.5"),
        ("1", "barrel", "gallons", "42"),
        ("100", "hectares", "km²", "1"),
        ("1", "mb/d", "barrels per day", "1000000"),
        ("84", "USD per barrel", "USD per gallon", "2"),
        ("1", "USD per kg", "USD per tonne", "1000"),
        ("12", "US cents per kWh", "USD per MWh", "120"),
        ("24", "USD per year", "USD per month", "2"),
        ("1", "bar", "hPa", "1000"),
        ("5", "kWh", "kW", None),
        ("5", "kWh", "%", None),
        ("5", "USD", "EUR", None),
        ("5", "USDC", "USD", None),
        ("5", "km", "km/h", None),
        ("5", "km/h", "km", None),
        ("5", "barrels", "barrels per day", None),
        ("5", "USD", "USD per barrel", "5"),
        ("5", "USD per barrel", "USD", "5"),
        ("5", "USD per tonne", "USD per barrel", None),
        ("5", "USD per day", "USD per month", None),
        ("5", "GWh per year", "GWh", "5"),
        ("5", "% per year", "%", "5"),
        ("5", "ppm", "%", None),
        ("5", "points", "%", None),
    ],
)
def test_conversion_is_exact_and_stays_within_a_dimension(
    value: str, found: str, wanted: str, expected: str | None
) -> None:
    converted = in_unit(Fraction(value), one(found), one(wanted))
    assert converted == (None if expected is None else Fraction(expected))


def test_an_ounce_may_be_either() -> None:
    ounces = parse_unit("oz").quantities
    assert [in_unit(Fraction(16), ounce, one("lb")) for ounce in ounces] == [
        1,
        Fraction("497.6556288") / Fraction("453.59237"),
    ]


def test_a_bare_number_counts_but_as_a_percentage() -> None:
    assert in_unit(Fraction(5), None, one("USD")) == 5
    assert in_unit(Fraction(5), None, one("GWh")) == 5
    assert in_unit(Fraction(5), None, None) == 5
    assert in_unit(Fraction(5), None, one("%")) is None
    assert in_unit(Fraction(5), one("USD"), None) is None


CONVERTIBLE = (
    ("Wh", "kWh", "MWh", "GWh", "TWh", "kJ", "MMBtu"),
    ("mg", "g", "kg", "tonne", "lb", "short ton", "troy ounce"),
    ("mm", "cm", "m", "km", "inch", "feet", "miles"),
    ("m/s", "km/h", "mph", "knots"),
    ("°C", "°F", "K"),
    ("ppm", "ppb"),
    ("%", "basis points", "‰"),
    ("barrels", "litres", "gallons", "m³"),
)


@given(st.fractions(max_denominator=10**6), st.sampled_from(CONVERTIBLE), st.data())
def test_there_and_back_is_where_one_was(value: Fraction, units: tuple[str, ...], data: st.DataObject) -> None:
    first, second, third = (one(data.draw(st.sampled_from(units))) for _ in range(3))
    there = in_unit(value, first, second)
    assert there is not None
    assert in_unit(there, second, first) == value
    assert in_unit(there, second, third) == in_unit(value, first, third)


@given(st.sampled_from(CONVERTIBLE), st.sampled_from(CONVERTIBLE), st.fractions(max_denominator=100))
def test_dimensions_never_mix(some: tuple[str, ...], others: tuple[str, ...], value: Fraction) -> None:
    converted = in_unit(value, one(some[-1]), one(others[0]))
    assert (converted is None) == (some != others)


@given(st.text(max_size=300))
def test_any_text_is_a_unit(text: str) -> None:
    unit = parse_unit(text)
    assert isinstance(unit, Unit)
    assert unit.magnitude >= 1
    assert numbers_in("nothing to count", unit) == ()


@pytest.mark.parametrize("hostile", ["thousand ", "per ", "/", "a b ", "000 ", "$", "million per ", "(", "é"])
def test_long_units_end(hostile: str) -> None:
    assert parse_unit((hostile * 20_000)[:20_000]).text.startswith(hostile)


def test_case_tells_units_apart_where_it_must() -> None:
    factors = {name: {q.factor for q in known_quantities(words_in(name))} for name in ("mW", "MW", "Mt", "MT", "kt")}
    assert factors == {
        "mW": {Fraction(1, 1000)},
        "MW": {Fraction(10**6)},
        "Mt": {Fraction(10**12)},
        "MT": {Fraction(10**6)},
        "kt": {Fraction(10**9)},
    }
    assert known_quantities(["mw"]) == ()
    assert known_quantities(["PERCENT"]) == known_quantities(["percent"]) != ()
