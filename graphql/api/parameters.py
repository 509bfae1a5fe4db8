"""What every GraphQL request is made of, whatever carries it: strict JSON, a document, its name and its variables.

Knows nothing of HTTP or of WebSockets, and reads no document.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

INTEGER_DIGITS_MAX: Final = 100
"""Digits of a JSON integer that are read. A longer one is out of every range, whatever its other digits are."""

_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


class BadRequest(Exception):  # noqa: N818 - an answer, not a fault
    """What came is no GraphQL request; the message says why."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """A GraphQL request: what to execute, and with which variables, as they came."""

    query: str
    operation_name: str | None = None
    variables: dict[str, Any] = field(default_factory=dict)


class FloatText(float):
    """A JSON number with a fraction or an exponent, which is shown as it was written."""

    def __new__(cls, text: str) -> "FloatText":
        """The number that `text` means; infinite where it is too large for a float."""
        number = super().__new__(cls, text)
        number.text = text
        return number

    text: str

    def __repr__(self) -> str:
        return self.text


def _integer(text: str) -> int:
    # Longer ones would cost quadratic time, and over 4,300 digits Python refuses.
    return int(text[:INTEGER_DIGITS_MAX])


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


_decoder: Final = json.JSONDecoder(parse_float=FloatText, parse_int=_integer, parse_constant=_no_constant)


def decode_json(text: str, what: str) -> Any:
    """The value that `text` is; `what` names it in the message of `BadRequest`."""
    try:
        value = _decoder.decode(text)
    except RecursionError:
        raise BadRequest(f"{what} is nested too deeply.") from None
    except json.JSONDecodeError as error:
        problem = error.msg.removesuffix(" at")
        raise BadRequest(f"{what} is not JSON: {problem} at line {error.lineno} column {error.colno}.") from None
    except ValueError as error:
        raise BadRequest(f"{what} is not JSON: {error}.") from None
    if "\\u" in text:
        _check_storable(value, what)
    return value


def _check_storable(value: Any, what: str) -> None:
    """Escapes can write what is no text: halves of surrogate pairs, which are no UTF-8, and NUL, which nobody means."""
    stack = [value]
    while stack:
        inner = stack.pop()
        if isinstance(inner, str):
            found = _UNSTORABLE.search(inner)
            if found:
                raise BadRequest(f"{what} has the escape \\u{ord(found[0]):04x}, which stands for no character.")
        elif isinstance(inner, dict):
            stack.extend(inner)
            stack.extend(inner.values())
        elif isinstance(inner, list):
            stack.extend(inner)


def parameters_of(values: Mapping[str, Any]) -> Parameters:
    """The request that decoded JSON makes. Raises `BadRequest` when a member is missing or of the wrong kind."""
    query = values.get("query")
    if not isinstance(query, str):
        said = f"it is {kind_of_json(query)}" if "query" in values else "it is missing"
        raise BadRequest(f"The parameter query must be a string, the GraphQL document; {said}.")
    operation_name = values.get("operationName")
    if operation_name is not None and not isinstance(operation_name, str):
        raise BadRequest(f"The parameter operationName must be a string or null, not {kind_of_json(operation_name)}.")
    variables = values.get("variables")
    if variables is not None and not isinstance(variables, dict):
        raise BadRequest(f"The parameter variables must be an object or null, not {kind_of_json(variables)}.")
    extensions = values.get("extensions")
    if extensions is not None and not isinstance(extensions, dict):
        raise BadRequest(f"The parameter extensions must be an object or null, not {kind_of_json(extensions)}.")
    return Parameters(query, operation_name or None, variables or {})


def kind_of_json(value: object) -> str:
    """What a person calls a value of this kind, article included."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
