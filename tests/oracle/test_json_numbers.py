"""One number out of a JSON document: exactly, by a path, whatever else the document holds."""

import pytest

from app.oracle.json_numbers import (
    DOCUMENT_BYTES_MAX,
    NODES_MAX,
    BadPath,
    FoundNumber,
    NotOneNumber,
    compile_path,
    number_at,
)


def found(document: str, path: str) -> FoundNumber:
    return number_at(document.encode(), compile_path(path))


def why_not(document: str | bytes, path: str = "$.a") -> str:
    body = document if isinstance(document, bytes) else document.encode()
    with pytest.raises(NotOneNumber) as caught:
        number_at(body, compile_path(path))
    return str(caught.value)


@pytest.mark.parametrize(
    ("document", "path", "value"),
    [
        ('{"data": {"rate": 61234.50}}', "$.data.rate", "61234.50"),
        ('{"a": 0.1}', "$.a", "0.1"),
        ('{"a": 0.30000000000000004}', "$.a", "0.30000000000000004"),
        ('{"a": 123456789012345678901234567890.5}', "$.a", "123456789012345678901234567890.5"),
        ('{"a": -12}', "$.a", "-12"),
        ('{"a": -0.00}', "$.a", "0"),
        ('{"a": 1.5e3}', "$.a", "1500"),
        ('{"a": 12E-4}', "$.a", "0.0012"),
        ('{"a": 1e30}', "$.a", "1" + "0" * 30),
        ('{"a": "61234.50"}', "$.a", "61234.50"),
        ('{"a": "-7"}', "$.a", "-7"),
        ("5.10", "$", "5.10"),
        ("[1, [2, 3]]", "$[1][-1]", "3"),
        ('\ufeff{"a": 1}', "$.a", "1"),
        ('{"m": [{"s": "A", "p": 1}, {"s": "B", "p": 2.50}]}', '$.m[?@.s == "B"].p', "2.50"),
        ('{"m": [{"s": "A", "p": 1}, {"s": "B", "p": 2.50}]}', '$..[?@.s == "B"].p', "2.50"),
        ('{"a": 1, "b": {"c": [{"rate": 4}]}}', "$..rate", "4"),
    ],
)
def test_the_number_comes_as_plain_decimal_text_exactly(document: str, path: str, value: str) -> None:
    assert found(document, path).value == value


@pytest.mark.parametrize(
    ("document", "path", "words"),
    [
        ('{"b": 1}', "$.a", "found nothing at $['a']"),
        ('{"a": [1, 2]}', "$.a[*]", "found more than one value at $['a'][*]: $['a'][0] = 1 and $['a'][1] = 2"),
        ('{"a": true}', "$.a", "found true at $['a'], where a number must stand"),
        ('{"a": null}', "$.a", "found null at $['a'], where a number must stand"),
        ('{"a": [1, 2]}', "$.a", "found a list of 2 at $['a'], where a number must stand"),
        ('{"a": {"b": 1}}', "$.a", "found an object of 1 at $['a'], where a number must stand"),
        ('{"a": "1,234"}', "$.a", "found the text '1,234', which is no plain decimal at $['a'], where a number"),
        ('{"a": "1e3"}', "$.a", "found the text '1e3', which is no plain decimal"),
        ('{"a": "\u0661\u0662"}', "$.a", "which is no plain decimal"),
        ('{"a": ""}', "$.a", "which is no plain decimal"),
        ('{"a": 1e999999999}', "$.a", "found a number beyond all measure, '1e999999999' at $['a']"),
        ('{"a": 1e-31}', "$.a", "found a number beyond all measure"),
        ('{"a": 1.' + "1" * 40 + "e-30}", "$.a", "found a number of 72 characters at $['a']: '0.000"),
        ('{"a": ' + "1" * 5000 + "}", "$.a", "found a number beyond all measure"),
        ('{"a": NaN}', "$.a", "the document is no JSON (NaN is no number)"),
        ('{"a": -Infinity}', "$.a", "the document is no JSON (-Infinity is no number)"),
        ('{"a": 1, "a": 2}', "$.a", "the document is no JSON (an object says the same name twice)"),
        ("<html>", "$.a", "the document is no JSON (Expecting value: line 1 column 1 (char 0)); it begins '<html>'"),
        ("", "$.a", "the document is no JSON"),
        ("[" * 100_000, "$", "the document is nested deeper than 64 levels"),
        ("[" * 65 + "1" + "]" * 65, "$", "the document is nested deeper than 64 levels"),
    ],
)
def test_anything_but_one_number_is_told_as_what_was_found(document: str, path: str, words: str) -> None:
    assert words in why_not(document, path)


def test_other_numbers_beyond_all_measure_do_not_matter() -> None:
    assert found('{"a": 1, "b": 1e999999999}', "$.a") == FoundNumber(
        "1", '$[\'a\'] = 1; in {"a": 1, "b": 1e999999999...}'
    )


def test_documents_that_are_too_large_or_no_text_are_refused() -> None:
    assert why_not(b" " * (DOCUMENT_BYTES_MAX + 1)) == "the document has 1048577 bytes, more than 1048576"
    assert why_not(b'{"a": "\xff"}') == "the document is not UTF-8 at byte 7"
    assert why_not("[" + "1," * NODES_MAX + "1]", "$[0]") == "the document has more than 50000 values"


def test_a_path_that_comes_by_too_much_is_given_up() -> None:
    deep = "[" * 40 + "1" + "]" * 40
    wide = "[" + ",".join(["[1,2]"] * 15_000) + "]"
    assert why_not(deep, "$" + "[0,0]" * 39 + "[?@ == 7]").startswith("the path comes by more than 100000 values")
    assert why_not(wide, "$[*,*,*,*][?@ == 7]") == "found nothing at $[*, *, *, *][?@ == 7]"


@pytest.mark.parametrize(
    ("document", "path"),
    [('{"a": 1}', "$[?count(@) > 0]"), ('["x", {"b": 2}]', "$[?value(@) == length(@['b'])]")],
)
def test_a_filter_that_cannot_be_made_sense_of_finds_nothing(document: str, path: str) -> None:
    assert why_not(document, path) == (
        f"the path {path} cannot be followed: its filter hands a function what it does not take"
    )


@pytest.mark.parametrize(
    "path",
    [
        "", "a", "$.a ", "$.a.", "$[", "$.a | $.b", "$..a..b", "$[?@.a][?@.b][?@.c]", '$[?match(@.a, "x+")]',
        '$[?search(@.a, "x")]', "$" + "[0]" * 200, "$[9007199254740993]", "$[?@ == 1e999]", "$[?:1.50$]",
    ],
)  # fmt: skip
def test_what_is_no_path_or_could_take_for_ever_is_refused_quoting_it(path: str) -> None:
    with pytest.raises(BadPath) as caught:
        compile_path(path)
    assert repr(path)[:20] in str(caught.value)


def test_the_excerpt_has_the_path_the_value_and_its_neighbours() -> None:
    document = '{"data": {"id": "x", "rate": 5.10, "list": [1], "more": {"a": 1}, "none": null}}'
    assert found(document, "$.data.rate").excerpt == (
        '$[\'data\'][\'rate\'] = 5.10; in {"id": "x", "rate": 5.10, "list": [...], "more": {...}, "none": null}'
    )


def test_the_excerpt_is_bounded_and_shows_what_is_nearest() -> None:
    document = "[" + ", ".join(str(number) for number in range(1000)) + "]"
    excerpt = found(document, "$[500]").excerpt
    assert excerpt.startswith("$[500] = 500; in [... ")
    assert ", 499, 500, 501, " in excerpt
    assert len(excerpt) <= len("$[500] = 500; in ") + 300
    assert excerpt.endswith(" ...]")
    assert found("7", "$").excerpt == "$ = 7; it is the whole document"
    long = found('{"a": 1, "b": "' + "x" * 1000 + '"}', "$.a").excerpt
    assert long == '$[\'a\'] = 1; in {"a": 1, "b": "' + "x" * 56 + "...}"
