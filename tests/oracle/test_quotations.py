"""Quotations: they stand on a page word by word, and say no number there that the page does not say."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.oracle.numbers import collapse, numbers_in, quotation_stands_in
from app.oracle.units import parse_unit
from tests.oracle.number_styles import POSITIVE, written


@pytest.mark.parametrize(
    ("text", "collapsed"),
    [
        ("  a \t\n b\u00a0\u2009c\u3000d ", "a b c d"),
        ("a\u200bb\u2060c\ufeffd\u00ade", "abcde"),
        ("\u200b \u200b", ""),
        ("a\u2028b\x85c", "a b c"),
        ("a\u202eb", "a\u202eb"),
    ],
)
def test_collapsing(text: str, collapsed: str) -> None:
    assert collapse(text) == collapsed


@pytest.mark.parametrize(
    ("quotation", "text", "stands"),
    [
        ("734 thousand people", "some 734 \n thousand\u00a0people work", True),
        ("some 734 \t thousand", "some 734 thousand people", True),
        ("734\u200b thousand people", "734 thousand people", True),
        ("they pay 734", "they pay 734 people", True),
        ("they pay 734", "they pay 734", True),
        ("they pay 734", "they pay 734.", True),
        ("they pay 734", "they pay 734, or more", True),
        ("oil rose to $80", "oil rose to $80 a barrel", True),
        ("734 people work", "734 people work", True),
        ("734 people", "the year 2023: 734 people", True),
        ("they pay 734", "they pay 734 thousand", False),
        ("they pay 734", "they pay 734,000", False),
        ("they pay 734", "they pay 734.5", False),
        ("they pay 734", "they pay 734 000", False),
        ("they pay 734", "they pay 734%", False),
        ("they pay 734", "they pay 734 euros", False),
        ("they pay 734", "they pay 734k", False),
        ("they pay $5", "they pay $5 million", False),
        ("they pay 3", "they pay 3 to 4 million", False),
        ("734 people", "1,734 people", False),
        ("734 people", "1 734 people", False),
        ("734 people", "1.734 people", False),
        ("734 people", "-734 people", False),
        ("734 people", "minus 734 people", False),
        ("734 people", "€734 people", False),
        ("734 people", "EUR 734 people", False),
        ("734 people", "x734 people", False),
        ("employed", "unemployed people", False),
        ("employed", "not unemployed but employed", True),
        ("734 people work", "734 people walk", False),
        ("they pay 734", "they pay 734 thousand, later they pay 734 people", True),
        ("they pay 734", "they pay 734" + " " * 300 + "thousand", False),
        ("seven 7", "seven 7", False),
        ("seven 77", "seven 77", True),
        ("        ", "        ", False),
    ],
)
def test_quotations_stand_whole(quotation: str, text: str, stands: bool) -> None:
    assert quotation_stands_in(quotation, text) is stands
    page = "The bulletin appears every month. " * 40
    assert quotation_stands_in(quotation, f"{page}\n\n{text}") is stands
    assert quotation_stands_in(quotation, f"{text}\n\n{page}") is stands


def test_quotations_have_a_longest_length() -> None:
    text = "word " * 200
    assert quotation_stands_in("word " * 99 + "word", text)
    assert quotation_stands_in("word " * 99 + "words", text + "words")
    assert not quotation_stands_in("word " * 100 + "word", text)


PIECES = st.lists(
    st.sampled_from(
        [
            "1",
            "23",
            "734",
            "1,234",
            "0.5",
            "1 234",
            "12:30",
            "2023-05-01",
            "million",
            "thousand",
            "k",
            "m",
            "$",
            "€",
            "USD",
        ]
        + [
            "EUR",
            "%",
            "percent",
            "°C",
            "°F",
            "-",
            "−",
            "–",
            "(",
            ")",
            ",",
            ".",
            "'",
            " to ",
            " and ",
            "between",
            "minus",
        ]
        + [
            "½",
            "one",
            "hundred",
            "half a",
            " per ",
            "barrel",
            "/",
            " x ",
            "×10^6",
            "days",
            "below zero",
            "http://a.b/1",
        ]
        + [" "] * 20
    ),
    max_size=30,
).map("".join)


@given(PIECES, st.data())
def test_a_quotation_that_stands_says_nothing_that_the_page_does_not(text: str, data: st.DataObject) -> None:
    page = collapse(f"In all {text} it was so.")
    start = data.draw(st.integers(0, len(page)))
    quotation = page[start : data.draw(st.integers(start, len(page)))]
    assert quotation_stands_in(page, page)
    if quotation_stands_in(quotation, page):
        for unit in ("items", "USD", "%", "°C"):
            assert set(numbers_in(quotation, parse_unit(unit))) <= set(numbers_in(page, parse_unit(unit)))


@given(POSITIVE, st.data())
def test_a_number_cannot_be_quoted_in_part(number: Fraction, data: st.DataObject) -> None:
    said = data.draw(st.sampled_from(written(number)))
    frame = data.draw(
        st.sampled_from(["${} million", "€{}", "{} percent", "-{} °F", "minus {} USD", "{} thousand MWh"])
    )
    said = frame.format(said)
    page = f"Sources say that it was {said} in May, they say."
    start = page.index(said)
    end = start + len(said)
    cut = data.draw(st.integers(start + 1, end - 1))
    for unit in ("USD", "%", "°C", "GWh", "EUR"):
        whole = set(numbers_in(page, parse_unit(unit)))
        for quotation in (page[:cut], page[cut:]):
            assert not quotation_stands_in(quotation, page) or set(numbers_in(quotation, parse_unit(unit))) <= whole
    assert quotation_stands_in(page[:end], page)
    assert quotation_stands_in(page[start:], page)
