"""Numbers in text, case by case: how they are written, what belongs to them, what they stand for, what is none."""

from fractions import Fraction

import pytest

from app.oracle.numbers import numbers_in, quotation_stands_in, stands_in
from app.oracle.units import parse_unit


def expect_numbers(unit: str, text: str, expected: str) -> None:
    """`expected`: the values in order, parted by blanks."""
    assert numbers_in(text, parse_unit(unit)) == tuple(map(Fraction, expected.split()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("734", "734"),
        ("0", "0"),
        ("0.5", "0.5"),
        (".5", "0.5"),
        ("1,234", "1234"),
        ("1.234", "1.234"),
        ("1,234,567", "1234567"),
        ("1,234,567.89", "1234567.89"),
        ("1,234.567", "1234.567"),
        ("12,34,567", "1234567"),
        ("1,23,45,678.5", "12345678.5"),
        ("1 234 567", "1234567"),
        ("1\u00a0234\u00a0567", "1234567"),
        ("1\u202f234", "1234"),
        ("1\u2009234,5", "1234.5"),
        ("1 234,567", "1234.567"),
        ("1 234.5", "1234.5"),
        ("1'234'567.5", "1234567.5"),
        ("1’234", "1234"),
        ("1.234,5", "1234.5"),
        ("1.234.567,89", "1234567.89"),
        ("1.234.567", "1234567"),
        ("1.234,567", "1234.567"),
        ("0,5", "0.5"),
        ("0,123", "0.123"),
        ("12,5", "12.5"),
        ("1,23", "1.23"),
        ("1234,567", "1234.567"),
        ("734,", "734"),
        ("734.", "734"),
        ("734, 735; 736.", "734 735 736"),
        ("2012 13.7 0.0 12.8", "2012 13.7 0 12.8"),
        ("7601 7664 7689", "7601 7664 7689"),
        ("7 601 7 664", "7601 7664"),
        ("3 1/2", "3.5"),
        ("1/2", "0.5"),
        ("2 3/4", "2.75"),
        ("½", "0.5"),
        ("3½", "3.5"),
        ("3 ½", "3.5"),
        ("2 and a half", "2.5"),
        ("2 and three quarters", "2.75"),
        ("1.5e3", "1500"),
        ("1.5E-3", "0.0015"),
        ("1.5×10^6", "1500000"),
        ("1.5 x 10^6", "1500000"),
        ("1.5 × 10⁶", "1500000"),
        ("1.5·10⁻³", "0.0015"),
        ("2 * 10**3", "2000"),
        ("~734, ≈735, <736, >737, =738", "734 735 736 737 738"),
        ("(see 734) [735] {736} “737” '738'", "734 735 736 737 738"),
        ("In 2023 it was 734", "2023 734"),
        ("734/MWh", "734"),
    ],
)
def test_numbers_in_digits(text: str, expected: str) -> None:
    expect_numbers("items", text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("zero", "0"),
        ("one", "1"),
        ("Seven", "7"),
        ("nineteen", "19"),
        ("twenty-one", "21"),
        ("ninety nine", "99"),
        ("a hundred", "100"),
        ("one hundred and two", "102"),
        ("seven hundred and thirty-four thousand", "734000"),
        ("seven hundred thirty four thousand two hundred and one", "734201"),
        ("two thousand and three", "2003"),
        ("two thousand million", "2000000000"),
        ("three billion four hundred million", "3400000000"),
        ("two and a half million", "2500000"),
        ("two-and-a-half million", "2500000"),
        ("one and a quarter billion", "1250000000"),
        ("half a million", "500000"),
        ("a million", "1000000"),
        ("one point five million", "1500000"),
        ("twelve point zero four", "12.04"),
        ("a dozen, two dozen", "12 24"),
        ("nineteen eighty-four", "19 84"),
        ("between one hundred and two hundred", "100 200"),
        ("five and six", "5 6"),
        ("one, two and three", "1 2 3"),
        ("minus five, negative six", "-5 -6"),
        ("a fee and a chance", ""),
        ("someone in Stone weighs often tenfold", ""),
        ("two-thirds, one-off, five-star", ""),
        ("one thousand two thousand", ""),
        ("five hundred hundred", ""),
    ],
)
def test_numbers_in_words(text: str, expected: str) -> None:
    expect_numbers("items", text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("734 thousand", "734000"),
        ("734 Thousand", "734000"),
        ("1.2 million", "1200000"),
        ("2.5-million", "2500000"),
        ("1.2 billion", "1200000000"),
        ("1 trillion", "1000000000000"),
        ("734k", "734000"),
        ("734K", "734000"),
        ("5M", "5000000"),
        ("5 M", "5000000"),
        ("5mn", "5000000"),
        ("5 mln", "5000000"),
        ("5 bn", "5000000000"),
        ("5bn", "5000000000"),
        ("5B", "5000000000"),
        ("5tn", "5000000000000"),
        ("3 hundred", "300"),
        ("5 hundred thousand", "500000"),
        ("5 lakh", "500000"),
        ("3 lakh crore", "3000000000000"),
        ("5 crore", "50000000"),
        ("2 dozen", "24"),
        ("3 to 4 million", "3000000 4000000"),
        ("3-4 million", "3000000 4000000"),
        ("between 3 and 4 million", "3000000 4000000"),
        ("700,000 to 1 million", "700000 1000000"),
        ("in 2023 and 4 million", "2023 4000000"),
        ("5 m", ""),
        ("5m", ""),
        ("5m items", "5000000"),
        ("5t", ""),
    ],
)
def test_spelled_magnitudes_multiply(text: str, expected: str) -> None:
    expect_numbers("items", text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-5", "-5"),
        ("−5", "-5"),
        ("–5", "-5"),
        ("+5", "5"),
        ("- 5", "5"),
        ("– 5", "5"),
        ("minus 5", "-5"),
        ("Minus 5", "-5"),
        ("negative 5", "-5"),
        ("down 5", "5"),
        ("fell by 5 to 6", "5 6"),
        ("3-4", "3 4"),
        ("3–4", "3 4"),
        ("3—4", "3 4"),
        ("rose—734", "734"),
        ("rose –734", "-734"),
        ("from -5 to -3", "-5 -3"),
        ("--5", ""),
        ("x-5", ""),
        ("(1.2)", "-1.2"),
        ("( 1.2 )", "1.2"),
        ("f(1.2)", "1.2"),
        ("(1.2 million)", "-1200000 1200000"),
        ("(-1.2)", "-1.2"),
        ("(1.2 and more)", "1.2"),
    ],
)
def test_signs(text: str, expected: str) -> None:
    expect_numbers("items", text, expected)


@pytest.mark.parametrize(
    "text",
    [
        "A320 B-52 covid-19 v1.2.3 4x x86 1st 22nd 3D mp3 H1 2010s 20th",
        "1.2.3 192.168.1.1 1,2,3 1,23,4 12,345,6",
        "https://news.example/2023/734 http://734.example www.news.example/734",
        "news.example/734 news.example:734 news.example?x=734",
        "mail 734@news.example or news734@news.example",
        "/archive/734/735 a/736",
        "2023-05-01 2023/05/01 05/01/2023 1/5/23 01.05.2023 2023-05-01T12:30:00Z",
        "12:30 12:30:15 12:30 p.m. 5 pm 5pm 5 a.m. 2022-23 2022/23",
        "12 May 2023, May 12, 2023, 1st of May 2023, Sept. 3 2021",
        "7O1 1l0 7О1 l00",
        "２３４ ٧٣٤ ७३४ 1２3 ２34 𝟕𝟑𝟒 ７,３４ 1²",
        "1，234 1٬234 1٫5 1·5 1．5 1‚234 5ʼ000",
        "7\u0338 3\u0336 4\u20e3",
        "734_735 734@ #734 $%20 a_734 \\734 ^734",
        "007 000 00.5",
        "3:1 16:9 3 x 4 3×4 1.5 × 106",
        "24/7 9/11 734/2",
        "0x1F 5f3a 12ab",
        "1e31 5e400 1" + "0" * 45,
        "\u202e437\u202c",
        "734.txt txt734",
        "five hundred-odd-734",
    ],
)
def test_what_is_no_number(text: str) -> None:
    expect_numbers("items", text, "")


def test_invisible_characters_do_not_split_a_number() -> None:
    expect_numbers("items", "1\u200b,\u200d234\ufeff and 5\u00ad6", "1234 56")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$5", "5"),
        ("$ 5", "5"),
        ("US$5", "5"),
        ("U.S.$5", "5"),
        ("USD 5", "5"),
        ("USD5", "5"),
        ("5 USD", "5"),
        ("5$", "5"),
        ("5 dollars", "5"),
        ("5 US dollars", "5"),
        ("5 U.S. dollars", "5"),
        ("5", "5"),
        ("five dollars", "5"),
        ("$1,234.50", "1234.5"),
        ("$5m", "5000000"),
        ("$5 m", "5000000"),
        ("$5mm", "5000000"),
        ("$5b", "5000000000"),
        ("$5T", "5000000000000"),
        ("5m dollars", "5000000"),
        ("$1.2-million", "1200000"),
        ("$3-4 million", "3000000 4000000"),
        ("$3.50-$4", "3.5 4"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("−US$5", "-5"),
        ("$(5)", "-5"),
        ("($5)", "-5 5"),
        ("(US$ 5 million)", "-5000000 5000000"),
        ("minus $5", "-5"),
        ("$5-$6", "5 6"),
        ("5 $6", "5 6"),
        ("75 cents", "0.75"),
        ("75¢", "0.75"),
        ("$80 a barrel", "80"),
        ("$80/bbl", "80"),
        ("up 3% to $5", "5"),
        ("€5", ""),
        ("5 €", ""),
        ("5€", ""),
        ("EUR 5", ""),
        ("£5", ""),
        ("5 pounds", ""),
        ("¥5", ""),
        ("CHF 1'234.50", ""),
        ("A$5", ""),
        ("HK$ 5", ""),
        ("CAD 5", ""),
        ("$5 CAD", ""),
        ("$5 Canadian", "5"),
        ("5 Canadian dollars", ""),
        ("Rs. 500", ""),
        ("kr 5", ""),
        ("£3-4 million", ""),
        ("£3 to 4", ""),
        ("5 USDT", ""),
        ("5 pence", ""),
        ("5%", ""),
        ("5 kWh", ""),
        ("5 days", ""),
    ],
)
def test_money_in_dollars(text: str, expected: str) -> None:
    expect_numbers("USD", text, expected)


@pytest.mark.parametrize(
    ("unit", "text", "expected"),
    [
        ("EUR", "€1.234.567,89", "1234567.89"),
        ("EUR", "0,5 €", "0.5"),
        ("EUR", "EUR 5 Mio", "5000000"),
        ("EUR", "$5", ""),
        ("GBP", "£5.3m", "5300000"),
        ("GBP", "75p", "0.75"),
        ("GBP", "5 pounds", "5"),
        ("CHF", "CHF 1'234.50", "1234.5"),
        ("CHF", "5 francs", "5"),
        ("INR", "₹12,34,567", "1234567"),
        ("INR", "Rs. 5 crore", "50000000"),
        ("JPY", "¥5", "5"),
        ("CNY", "¥5", "5"),
        ("SEK", "5 kr", "5"),
        ("AUD", "$5", "5"),
        ("AUD", "US$5", ""),
        ("US cents per kWh", "$0.15 per kWh", "15"),
        ("US cents per kWh", "15 cents/kWh", "15"),
        ("million USD", "$734 million", "734"),
        ("million USD", "$0.734 billion", "734"),
        ("million USD", "$734", "734 0.000734"),
        ("million USD", "€734 million", ""),
        ("USD per barrel", "$80.15", "80.15"),
        ("USD per barrel", "80.15", "80.15"),
        ("USD per barrel", "$80.15 a barrel", "80.15"),
        ("USD per barrel", "$80.15/bbl", "80.15"),
        ("USD per barrel", "$80.15 per barrel of oil", "80.15"),
        ("USD per barrel", "$2 per gallon", "84"),
        ("USD per barrel", "$80.15 per tonne", ""),
        ("USD per barrel", "€80.15 per barrel", ""),
        ("USD per barrel", "80.15 per barrel", "80.15"),
        ("USD per ounce", "$1,900 per troy ounce", "1900"),
        ("USD per ounce", "$1,900 an ounce", "1900"),
        ("EUR/MWh", "€80.5/MWh, 81 EUR/MWh, 82 euros per megawatt hour, €0.083/kWh", "80.5 81 82 83"),
    ],
)
def test_money_in_other_units(unit: str, text: str, expected: str) -> None:
    expect_numbers(unit, text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3.7%", "3.7"),
        ("3.7 %", "3.7"),
        ("3,7 %", "3.7"),
        ("3.7％", "3.7"),
        ("3.7 percent", "3.7"),
        ("3.7 per cent", "3.7"),
        ("3.7-per-cent", "3.7"),
        ("3.7 pct", "3.7"),
        ("3.7 percentage points", "3.7"),
        ("3.7 pp", "3.7"),
        ("25 basis points", "0.25"),
        ("25bps", "0.25"),
        ("5‰", "0.5"),
        ("three percent", "3"),
        ("3 1/2 percent", "3.5"),
        ("3½%", "3.5"),
        ("1/2 percent", "0.5"),
        ("Rate, percent: 3.7", "3.7"),
        ("Rate (%) 3.7", "3.7"),
        ("3 to 4 percent", "3 4"),
        ("3-4%", "3 4"),
        ("3%-4%", "3 4"),
        ("between 3 and 4 per cent", "3 4"),
        ("-0.3%", "-0.3"),
        ("–0.3%", "-0.3"),
        ("minus 3%", "-3"),
        ("down 3%", "3"),
        ("(1.2)%", "-1.2"),
        ("(1.2%)", "-1.2 1.2"),
        ("a 3-year high of 5%", "5"),
        ("3.7", ""),
        ("5% 3.7", "5"),
        ("5 percent 3.7", "5"),
        ("3.7 kWh", ""),
        ("3.7 points", ""),
        ("$3.7", ""),
    ],
)
def test_percentages(text: str, expected: str) -> None:
    expect_numbers("%", text, expected)


@pytest.mark.parametrize(
    ("unit", "text", "expected"),
    [
        ("°C", "20 °C", "20"),
        ("°C", "20°C", "20"),
        ("°C", "20 ºC", "20"),
        ("°C", "20 ℃", "20"),
        ("°C", "20 C", "20"),
        ("°C", "20 degrees Celsius", "20"),
        ("°C", "20 degrees", "20"),
        ("°C", "20°", "20"),
        ("°C", "20", "20"),
        ("°C", "68 °F", "20"),
        ("°C", "68°F (20°C)", "20 -20 20"),
        ("°C", "50-68 °F", "10 20"),
        ("°C", "293.15 K", "20"),
        ("°C", "-40 degrees Fahrenheit", "-40"),
        ("°C", "5 °C below zero", "-5"),
        ("°C", "five degrees below zero", "-5"),
        ("°C", "20%", ""),
        ("°C", "20 km", ""),
        ("GWh", "1,437 GWh", "1437"),
        ("GWh", "1,437 thousand MWh", "1437"),
        ("GWh", "1.437 TWh", "1437"),
        ("GWh", "1437000 MWh", "1437"),
        ("GWh", "1,437 gigawatt-hours", "1437"),
        ("GWh", "1,437", "1437"),
        ("GWh", "1,437 GWh per year", "1437"),
        ("GWh", "1,437 GW", ""),
        ("GWh", "5%", ""),
        ("thousand MWh", "1,437 thousand MWh", "1437"),
        ("thousand MWh", "1,437 GWh", "1437"),
        ("thousand MWh", "1,437,000 MWh", "1437"),
        ("thousand MWh", "1,437 MWh", "1.437"),
        ("thousand MWh", "1,437", "1437 1.437"),
        ("thousand MWh", "Generation (thousand MWh): 1,437", "1437 1.437"),
        ("km/h", "100 km/h, 101 kph, 102 kilometres per hour, 103 km an hour", "100 101 102 103"),
        ("km/h", "10 m/s", "36"),
        ("km/h", "60 mph", "96.56064"),
        ("km/h", "100 km", ""),
        ("million barrels per day", "102 million barrels per day", "102"),
        ("million barrels per day", "102.3m barrels a day", "102.3"),
        ("million barrels per day", "102 mb/d", "102"),
        ("million barrels per day", "102 million barrels of crude oil a day", "102"),
        ("million barrels per day", "102 million bpd", "102"),
        ("million barrels per day", "102 million barrels", ""),
        ("ppm", "421.5 ppm", "421.5"),
        ("ppm", "421.5 parts per million", "421.5"),
        ("ppm", "421,500 ppb", "421.5"),
        ("ppm", "5 %", ""),
        ("index points", "rose 2% to 4,567.8 points", "4567.8"),
        ("tonnes", "5 t, 5 tons, 5 metric tons", "5 5 5"),
        ("tonnes", "5 short tons", "4.5359237"),
        ("kg", "10 pounds", "4.5359237"),
        ("m", "5m, 5 metres, 5 feet", "5 5 1.524"),
    ],
)
def test_physical_units(unit: str, text: str, expected: str) -> None:
    expect_numbers(unit, text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("734", "734 0.734"),
        ("734,000", "734000 734"),
        ("734 thousand", "734"),
        ("734 thousand employees", "734"),
        ("734,000 employees", "734"),
        ("734 employees", "0.734"),
        ("In thousands: 734 employees", "734 0.734"),
        ("Employees (000s) 734 employees", "734 0.734"),
        ("Thousands of firms have 734 employees", "0.734"),
        ("0.734 million", "734"),
        ("0.734 million people", "734"),
        ("734K", "734"),
        ("seven hundred and thirty-four thousand", "734"),
        ("a 734-thousand workforce", "734"),
        ("734 firms", "734 0.734"),
        ("734%", ""),
        ("734 MWh", ""),
        ("$734", ""),
    ],
)
def test_a_unit_with_a_magnitude(text: str, expected: str) -> None:
    expect_numbers("thousand employees", text, expected)


@pytest.mark.parametrize(
    ("number", "text", "stands"),
    [
        ("20", "68 °F", True),
        ("21.1", "70 °F", True),
        ("21.11", "70 °F", True),
        ("21.12", "70 °F", False),
        ("21.2", "70 °F", False),
        ("21", "70 °F", False),
        ("190/9", "70 °F", True),
        ("21.1", "21.11 °C", False),
        ("21.11", "21.11 °C", True),
    ],
)
def test_what_was_converted_may_be_rounded(number: str, text: str, stands: bool) -> None:
    assert stands_in(Fraction(number), text, parse_unit("°C")) is stands


HOSTILE = (
    "1 ",
    "1,",
    "1 234 ",
    "1.",
    "9",
    "one ",
    "one-",
    "and a half ",
    "two hundred and ",
    "a@",
    "a.a/",
    "www.",
    "http://",
    "((",
    "-",
    "$",
    "$(",
    "1/",
    "1-",
    "12:3",
    "1 x ",
    "1 thousand ",
    "5 m of a b per ",
    "May 1 ",
    "1'",
    "½",
    "\u200b1",
    "%: ",
    "percent of per ",
    " ",
    "\u202d",
    "é",
)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_long_hostile_texts_end(hostile: str) -> None:
    text = (hostile * 20_000)[:20_000]
    assert len(numbers_in(text, parse_unit("thousand employees"))) <= 2 * len(text)
    assert not stands_in(Fraction("0.123"), text, parse_unit("USD per barrel"))
    assert quotation_stands_in(text[:400], text) in (True, False)
    assert not quotation_stands_in("nowhere to be found", text)
