"""What a language model may answer, and reading it strictly. Pure; whether the answer is true is judged elsewhere."""

import json
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, NoReturn

from app.errors import quoted
from app.oracle.exact import exact_number
from app.text import showable

OUTPUT_BYTES_MAX: Final = 64 * 1024
QUOTATIONS_MAX: Final = 50
"""Of `quotations`, and of `source_urls`."""
DEPTH_MAX: Final = 8
"""Of objects and lists in one another; a good answer has 3."""

_NUMBER: Final = {"type": "number"}
_TEXT: Final = {"type": "string"}


def _object(**properties: object) -> dict[str, object]:
    """A schema of an object that has exactly these keys."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


OUTPUT_SCHEMA: Final[dict[str, object]] = _object(
    # In this order, so that a model that writes in order has the evidence before it names the figure.
    quotations={"type": "array", "items": _object(url=_TEXT, quotation=_TEXT, number=_NUMBER)},
    source_urls={"type": "array", "items": _TEXT},
    suggested_price=_NUMBER,
    delta_percent=_NUMBER,
    confidence=_NUMBER,
    summary=_TEXT,
)
"""JSON schema of an answer. Only the keywords that every provider of structured output knows."""

_KEYS: Final = {"quotations", "source_urls", "suggested_price", "delta_percent", "confidence", "summary"}
_QUOTATION_KEYS: Final = {"url", "quotation", "number"}
_FENCE: Final = ("```json", "```")
_BRACKETS: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
"""Strings (an unfinished one to the end, so that this stays linear), and brackets outside of them."""


class BadOutput(ValueError):  # noqa: N818 - names what the answer is
    """The answer is not exactly one JSON object under the schema; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Quotation:
    """`number`, in the wanted unit, is said to stand in the words `quotation` of the page at `url`."""

    url: str
    quotation: str
    number: Fraction


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """A well-formed answer. `suggested_price` in the wanted unit, `delta_percent` against the F that the prompt named,
    `confidence` 0 to 1; all exact. Texts are as the model wrote them, of any length within `OUTPUT_BYTES_MAX`."""

    delta_percent: Fraction
    suggested_price: Fraction
    confidence: Fraction
    summary: str
    source_urls: tuple[str, ...]
    quotations: tuple[Quotation, ...]


def parse_output(content: str) -> ModelOutput:
    """The answer in `content`: one JSON object, within one ```json fence or none, and nothing around it.

    Numbers are JSON numbers, never texts: a model that is held to the schema writes no others. Raises `BadOutput` for
    prose, refusals, truncated or deeply nested JSON, NaN and infinities, numbers of over 60 characters or with huge
    exponents, missing, further or duplicate keys, wrong types, a confidence outside of 0 to 1, more than
    `QUOTATIONS_MAX` quotations or URLs, characters that are no text (lone surrogates), over `OUTPUT_BYTES_MAX` bytes.
    """
    _expect_text(content)
    answer = _keyed(_loads(content), _KEYS, "the answer")
    confidence = _number(answer["confidence"], "confidence")
    if not 0 <= confidence <= 1:
        raise BadOutput("confidence must be between 0 and 1; got a number outside")
    return ModelOutput(
        delta_percent=_number(answer["delta_percent"], "delta_percent"),
        suggested_price=_number(answer["suggested_price"], "suggested_price"),
        confidence=confidence,
        summary=_text(answer["summary"], "summary"),
        source_urls=tuple(_text(url, "a source URL") for url in _list(answer["source_urls"], "source_urls")),
        quotations=tuple(_quotation(item) for item in _list(answer["quotations"], "quotations")),
    )


def _expect_text(content: str) -> None:
    """Refuse what is too long, and what is no Unicode text."""
    try:
        size = len(content) if len(content) > OUTPUT_BYTES_MAX else len(content.encode())
    except UnicodeEncodeError as error:
        raise BadOutput(f"the answer is no text: a lone surrogate stands at position {error.start}") from error
    if size > OUTPUT_BYTES_MAX:
        raise BadOutput(f"the answer is too long: at most {OUTPUT_BYTES_MAX} bytes are read")


def _loads(content: str) -> object:
    """The JSON value in `content`."""
    document = content.strip()
    opening, closing = _FENCE
    if document.startswith(opening) and document.endswith(closing):
        document = document[len(opening) : -len(closing)]
    _expect_shallow(document)
    try:
        return _DECODER.decode(document)
    except json.JSONDecodeError as error:
        raise BadOutput(f"the answer is not one JSON object: {error}; it begins with {_cut(content)}") from error


def _expect_shallow(document: str) -> None:
    """Refuse nesting that would exhaust the stack of whatever reads it."""
    depth = 0
    for match in _BRACKETS.finditer(document):
        character = match[0]
        depth += (character in "[{") - (character in "]}")
        if depth > DEPTH_MAX:
            raise BadOutput(f"the answer is nested more than {DEPTH_MAX} deep; it begins with {_cut(document)}")


def _exact(text: str) -> Fraction:
    """A JSON number."""
    try:
        return exact_number(text)
    except ValueError as error:
        raise BadOutput(str(error)) from error


def _no_constant(text: str) -> NoReturn:
    raise BadOutput(f"{text} is no number")


def _object_of(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object whose keys are all different."""
    values: dict[str, object] = {}
    for name, value in pairs:
        if name in values:
            raise BadOutput(f"the key {_cut(name)} stands there more than once")
        values[name] = value
    return values


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object_of, parse_float=_exact, parse_int=_exact, parse_constant=_no_constant
)


def _quotation(value: object) -> Quotation:
    item = _keyed(value, _QUOTATION_KEYS, "a quotation")
    return Quotation(
        url=_text(item["url"], "a quotation's url"),
        quotation=_text(item["quotation"], "a quotation's words"),
        number=_number(item["number"], "a quotation's number"),
    )


def _keyed(value: object, keys: set[str], name: str) -> dict[str, object]:
    """`value`, an object with exactly these keys."""
    if not isinstance(value, dict):
        raise BadOutput(f"{name} must be a JSON object")
    if value.keys() != keys:
        missing, further = sorted(keys - value.keys()), sorted(value.keys() - keys)
        wrong = f"{missing[0]} is missing" if missing else f"{_cut(further[0])} is not among them"
        raise BadOutput(f"{name} must have the keys {', '.join(sorted(keys))}: {wrong}")
    return value


def _list(value: object, name: str) -> list[object]:
    if not isinstance(value, list):
        raise BadOutput(f"{name} must be a list")
    if len(value) > QUOTATIONS_MAX:
        raise BadOutput(f"{name} may have {QUOTATIONS_MAX} entries; got {len(value)}")
    return value


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise BadOutput(f"{name} must be a text")
    try:
        value.encode()  # escapes make surrogates that the answer itself shows no trace of
    except UnicodeEncodeError as error:
        raise BadOutput(f"{name} is no text: it holds a lone surrogate (an escape such as \\ud800)") from error
    return value


def _number(value: object, name: str) -> Fraction:
    if not isinstance(value, Fraction):
        raise BadOutput(f"{name} must be a JSON number")
    return value


def _cut(text: str) -> str:
    """`text` as it may stand in a message."""
    return quoted(showable(text[:40]))
