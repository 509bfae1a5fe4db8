"""What a model answers is read strictly: one JSON object under the schema with exact numbers, or `BadOutput`."""

import json
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.oracle.exact import exact_number, exact_text, lower_median, median
from app.oracle.model_output import (
    DEPTH_MAX,
    OUTPUT_BYTES_MAX,
    OUTPUT_SCHEMA,
    QUOTATIONS_MAX,
    BadOutput,
    ModelOutput,
    Quotation,
    parse_output,
)

QUOTATION: dict[str, Any] = {
    "url": "https://a.example/1",
    "quotation": "The price is 100.5 USD",
    "number": 100.5,
}
ANSWER: dict[str, Any] = {
    "quotations": [QUOTATION],
    "source_urls": ["https://a.example/1"],
    "suggested_price": 100.5,
    "delta_percent": 0.5,
    "confidence": 0.9,
    "summary": "One page says so.",
}
GOOD = json.dumps(ANSWER)


def answer(**changes: Any) -> str:
    """A good answer with some values changed."""
    return json.dumps({**ANSWER, **changes})


def raw(name: str, number: str) -> str:
    """A good answer with a number written so."""
    return answer(**{name: "@"}).replace('"@"', number)


def expect_bad(content: str, match: str) -> None:
    with pytest.raises(BadOutput, match=match):
        parse_output(content)


# ------------------------------------------------------------------------------------------------ good answers


def test_a_good_answer_is_read_exactly() -> None:
    assert parse_output(GOOD) == ModelOutput(
        delta_percent=Fraction(1, 2),
        suggested_price=Fraction(201, 2),
        confidence=Fraction(9, 10),
        summary="One page says so.",
        source_urls=("https://a.example/1",),
        quotations=(Quotation("https://a.example/1", "The price is 100.5 USD", Fraction(201, 2)),),
    )


@pytest.mark.parametrize("around", ["{}", " \n{}\n ", "```json\n{}\n```", "\n```json {} ```\n", "```json\n\n{}```"])
def test_white_space_and_one_fence_around_it_are_tolerated(around: str) -> None:
    assert parse_output(around.replace("{}", GOOD)) == parse_output(GOOD)


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("0.1", Fraction(1, 10)),
        ("-0", Fraction(0)),
        ("12345678901234567890.123456789", Fraction(12345678901234567890123456789, 10**9)),
        ("1e3", Fraction(1000)),
        ("1.5E-3", Fraction(3, 2000)),
        ("9" * 60, Fraction(10**60 - 1)),
        ("1e40", Fraction(10**40)),
    ],
)
def test_numbers_are_exact(written: str, number: Fraction) -> None:
    assert parse_output(raw("suggested_price", written)).suggested_price == number


def test_an_answer_without_quotations_is_well_formed() -> None:
    output = parse_output(answer(quotations=[], source_urls=[], confidence=0, summary=""))
    assert output == ModelOutput(Fraction(1, 2), Fraction(201, 2), Fraction(0), "", (), ())


def test_the_schema_asks_for_exactly_the_keys_that_are_read() -> None:
    assert OUTPUT_SCHEMA["required"] == list(ANSWER)
    assert OUTPUT_SCHEMA["additionalProperties"] is False
    properties = OUTPUT_SCHEMA["properties"]
    assert isinstance(properties, dict)
    assert properties["quotations"]["items"] == {
        "type": "object",
        "properties": {"url": {"type": "string"}, "quotation": {"type": "string"}, "number": {"type": "number"}},
        "required": ["url", "quotation", "number"],
        "additionalProperties": False,
    }


# ------------------------------------------------------------------------------------------------ bad answers

PROSE = [
    "",
    "   ",
    "I'm sorry, but I can't help with that.",
    "The price is about 100 dollars.",
    f"Here is the JSON you asked for:\n{GOOD}",
    f"{GOOD}\nLet me know if you need anything else!",
    f"{GOOD}{GOOD}",
    f"```json\n{GOOD}\n```\nDone.",
    f"```json\n```json\n{GOOD}\n```\n```",
    f"```\n{GOOD}\n```",
    "```json",
    "``````",
    f"<think>hm</think>{GOOD}",
    f"\ufeff{GOOD}",
    GOOD.replace('"', "'"),
    GOOD.replace('"summary"', "summary"),
    GOOD[:-1] + ",}",
    "// a comment\n" + GOOD,
]


@pytest.mark.parametrize("content", PROSE)
def test_prose_and_refusals_are_no_answer(content: str) -> None:
    expect_bad(content, "is not one JSON object")


def test_every_truncation_of_an_answer_is_no_answer() -> None:
    for length in range(len(GOOD)):
        expect_bad(GOOD[:length], "is not one JSON object|must be a JSON object")


@pytest.mark.parametrize("content", ["null", "true", "1", '"text"', f"[{GOOD}]"])
def test_other_json_is_no_answer(content: str) -> None:
    expect_bad(content, "the answer must be a JSON object")


@pytest.mark.parametrize("key", list(ANSWER))
def test_every_key_is_needed(key: str) -> None:
    expect_bad(json.dumps({name: value for name, value in ANSWER.items() if name != key}), f"{key} is missing")


@pytest.mark.parametrize("key", list(QUOTATION))
def test_every_key_of_a_quotation_is_needed(key: str) -> None:
    lacking = {name: value for name, value in QUOTATION.items() if name != key}
    expect_bad(answer(quotations=[lacking]), f"a quotation must have the keys .*: {key} is missing")


def test_further_keys_are_refused() -> None:
    expect_bad(answer(note="x"), "'note' is not among them")
    expect_bad(answer(quotations=[{**QUOTATION, "page": 1}]), "'page' is not among them")


def test_duplicate_keys_are_refused_wherever_they_stand() -> None:
    expect_bad(GOOD[:-1] + ', "confidence": 0.99}', "the key 'confidence' stands there more than once")
    expect_bad(GOOD.replace('"url":', '"url": "x", "url":'), "the key 'url' stands there more than once")
    expect_bad(GOOD[:-1] + ', "c\\u006fnfidence": 1}', "the key 'confidence' stands there more than once")


@pytest.mark.parametrize("name", ["suggested_price", "delta_percent", "confidence"])
@pytest.mark.parametrize("value", ['"100.5"', "null", "true", "[1]", "{}"])
def test_a_number_is_a_json_number(name: str, value: str) -> None:
    expect_bad(raw(name, value), f"{name} must be a JSON number")


def test_the_number_of_a_quotation_is_a_json_number() -> None:
    expect_bad(answer(quotations=[{**QUOTATION, "number": "100.5"}]), "a quotation's number must be a JSON number")


@pytest.mark.parametrize("name", ["suggested_price", "delta_percent", "confidence"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinities_are_refused(name: str, value: str) -> None:
    expect_bad(raw(name, value), f"{value} is no number")


@pytest.mark.parametrize("value", ["1e400", "1e-400", "-1E+400", "1e41", "1e9999999999", "1" * 61, "0." + "0" * 60])
def test_numbers_that_would_be_huge_are_refused(value: str) -> None:
    expect_bad(raw("suggested_price", value), "is no number that can be used")


@pytest.mark.parametrize("value", ["01", "+1", ".5", "5.", "0x10", "1_000", "1,000", "１２"])
def test_numbers_that_json_does_not_know_are_refused(value: str) -> None:
    expect_bad(raw("suggested_price", value), "is not one JSON object")


@pytest.mark.parametrize("value", ["-0.0000001", "1.0000001", "90", "-1"])
def test_confidence_is_between_0_and_1(value: str) -> None:
    expect_bad(raw("confidence", value), "confidence must be between 0 and 1")


def test_texts_and_lists_have_their_types() -> None:
    expect_bad(answer(summary=None), "summary must be a text")
    expect_bad(answer(summary=["x"]), "summary must be a text")
    expect_bad(answer(source_urls="https://a.example/1"), "source_urls must be a list")
    expect_bad(answer(source_urls=[1]), "a source URL must be a text")
    expect_bad(answer(quotations={}), "quotations must be a list")
    expect_bad(answer(quotations=["x"]), "a quotation must be a JSON object")
    expect_bad(answer(quotations=[{**QUOTATION, "url": 1}]), "a quotation's url must be a text")
    expect_bad(answer(quotations=[{**QUOTATION, "quotation": None}]), "a quotation's words must be a text")


def test_lists_are_bounded() -> None:
    assert len(parse_output(answer(quotations=[QUOTATION] * QUOTATIONS_MAX)).quotations) == QUOTATIONS_MAX
    expect_bad(answer(quotations=[QUOTATION] * (QUOTATIONS_MAX + 1)), "quotations may have 50 entries; got 51")
    expect_bad(answer(source_urls=["u"] * (QUOTATIONS_MAX + 1)), "source_urls may have 50 entries; got 51")


def test_the_answer_is_bounded_in_bytes() -> None:
    room = OUTPUT_BYTES_MAX - len(answer(summary=""))
    assert len(parse_output(answer(summary="x" * room)).summary) == room
    expect_bad(answer(summary="x" * (room + 1)), "the answer is too long")
    wide = json.dumps({**ANSWER, "summary": "ж" * (room // 2 + 1)}, ensure_ascii=False)
    assert len(wide) < OUTPUT_BYTES_MAX
    expect_bad(wide, "the answer is too long")


@pytest.mark.parametrize("opening", ["[", '{"a":', "[[{}],"])
def test_deep_nesting_is_refused_before_it_is_read(opening: str) -> None:
    expect_bad(opening * (OUTPUT_BYTES_MAX // len(opening) - 1), f"nested more than {DEPTH_MAX} deep|not one JSON")


def test_brackets_in_texts_do_not_nest() -> None:
    summary = '[[[[[[[[[[[[ \\" {{{{{{{{{{ \\'
    assert parse_output(answer(summary=summary)).summary == summary


def test_an_endless_text_full_of_quotation_marks_is_refused() -> None:
    expect_bad('{"summary": "' + '\\"' * 30_000, "is not one JSON object")
    expect_bad("```json" + " " * 60_000 + "x", "is not one JSON object")
    expect_bad('{"a":1,' + ",".join(f'"k{n}":1' for n in range(6_000)) + ',"k5999":2}', "more than once")


def test_lone_surrogates_are_refused_as_characters_and_as_escapes() -> None:
    expect_bad(GOOD.replace("One page", "One \ud800 page"), "a lone surrogate stands at position")
    expect_bad(GOOD.replace("One page", "One \\ud800 page"), "summary is no text")
    expect_bad(GOOD.replace("The price", "\\udfff price"), "a quotation's words is no text")
    assert parse_output(GOOD.replace("One page", "\\ud83d\\ude00")).summary == "😀 says so."


@given(st.one_of(st.text(), st.text(alphabet='{}[]",:\\ue0123-.NaIfinty` \nsummary'), st.binary().map(repr)))
@example('{"a":' * 12_000)
@example("\ud800")
def test_whatever_is_answered_is_an_answer_or_bad_output(content: str) -> None:
    expect_bad(content, ".")


@given(st.data())
def test_an_answer_with_anything_in_place_of_something_never_fails_otherwise(data: st.DataObject) -> None:
    values = st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
        max_leaves=5,
    )
    key = data.draw(st.sampled_from(list(ANSWER)))
    content = answer(**{key: data.draw(values)})
    try:
        output = parse_output(content)
    except BadOutput:
        expect_bad(content, ".")
    else:
        assert 0 <= output.confidence <= 1


# ------------------------------------------------------------------------------------------------ exact numbers


@given(st.fractions())
def test_text_of_a_number_is_exact(value: Fraction) -> None:
    text = exact_text(value)
    assert Fraction(text) == value
    assert ("/" in text) == (value.denominator != _without(value.denominator, 2, 5))


def _without(number: int, *factors: int) -> int:
    """`number` where it has no other prime factors, else 0."""
    rest = number
    for factor in factors:
        while rest % factor == 0:
            rest //= factor
    return number if rest == 1 else 0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Fraction(1, 8), "0.125"),
        (Fraction(-7, 20), "-0.35"),
        (Fraction(1, 3), "1/3"),
        (Fraction(-22, 7), "-22/7"),
        (Fraction(1200), "1200"),
        (Fraction(0), "0"),
        (Fraction(1, 10**12), "0.000000000001"),
    ],
)
def test_text_is_decimal_where_that_is_finite(value: Fraction, text: str) -> None:
    assert exact_text(value) == text


def test_exact_numbers_are_read_as_json_writes_them() -> None:
    assert exact_number("-12.50") == Fraction(-25, 2)
    for text in ("", "nan", "1e400", "1,5", "１", "1 ", "--1", "1e", "0x1", "1/3"):
        with pytest.raises(ValueError, match="is no number that can be used"):
            exact_number(text)


def test_medians() -> None:
    values = [Fraction(n) for n in (9, 1, 4, 2)]
    assert lower_median(values) == 2
    assert median(values) == 3
    assert lower_median(values[:3]) == median(values[:3]) == 4
    assert lower_median(values[:1]) == median(values[:1]) == 9
