"""Reading a GraphQL request off HTTP: media types, body or query string, and what they must be.

Everything that is refused here is refused before a token is looked at or a document is read. Nothing here answers.
"""

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn
from urllib.parse import parse_qsl

from starlette.types import Receive

from app.errors import quoted

BODY_BYTES_MAX: Final = 256 * 1024
BODY_SECONDS_MAX: Final = 10.0
"""Within which the whole body must have come."""
QUERY_PARAMETERS_MAX: Final = 20
INTEGER_DIGITS_MAX: Final = 100
"""Digits of a JSON integer that are read. A longer one is out of every range, whatever its other digits are."""
HEADERS_KNOWN_MAX: Final = 256

JSON: Final = "application/json"
GRAPHQL_RESPONSE: Final = "application/graphql-response+json"

_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")

Headers = Mapping[bytes, bytes]


class HttpRefusal(Exception):  # noqa: N818 - an answer, not a fault
    """The request is answered with this HTTP status, an error of this code, and these headers."""

    def __init__(self, status: int, code: str, message: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers


class ClientGone(Exception):  # noqa: N818
    """The client has left before its request was there: nobody waits for an answer."""


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


# ------------------------------------------------------------------------------------------------ media types

_response_types: dict[bytes, str | None] = {}
_json_types: dict[bytes, bool] = {}


def response_type(accept: bytes | None) -> str:
    """The media type to answer with: `JSON` unless the client prefers the other. Raises 406 when it takes neither."""
    if accept is None:
        return JSON
    if accept not in _response_types:
        if len(_response_types) >= HEADERS_KNOWN_MAX:
            _response_types.clear()
        _response_types[accept] = _negotiate(accept.decode("latin-1").lower())
    chosen = _response_types[accept]
    if chosen is None:
        raise HttpRefusal(
            406,
            "NOT_ACCEPTABLE",
            f"Answers are {GRAPHQL_RESPONSE} or {JSON}, in UTF-8; the Accept header takes neither: "
            f"{quoted(accept.decode('latin-1'), 80)}.",
        )
    return chosen


def _negotiate(accept: str) -> str | None:
    weights = {JSON: 0.0, GRAPHQL_RESPONSE: 0.0}
    named: list[str] = []
    wildcard = 0.0
    for item in accept.split(","):
        media_type, *parameters = (part.strip() for part in item.split(";"))
        values = dict(parameter.partition("=")[::2] for parameter in parameters)
        weight = _weight(values.get("q", "1"))
        if values.get("charset", "utf-8").strip('"') not in ("utf-8", "utf8"):
            continue
        if media_type in weights:
            named.append(media_type)
            weights[media_type] = weight
        elif media_type in ("*/*", "application/*"):
            wildcard = max(wildcard, weight)
    best = max(named, key=lambda name: weights[name], default=None)
    if best is not None and weights[best] > 0:
        return best
    return JSON if wildcard > 0 and JSON not in named else None


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _check_content_type(headers: Headers) -> None:
    content_type = headers.get(b"content-type", b"")
    known = _json_types.get(content_type)
    if known is None:
        if len(_json_types) >= HEADERS_KNOWN_MAX:
            _json_types.clear()
        known = _json_types[content_type] = _is_json(content_type.decode("latin-1").lower())
    if not known:
        said = quoted(content_type.decode("latin-1"), 80) if content_type else "no Content-Type at all"
        raise HttpRefusal(
            415,
            "UNSUPPORTED_MEDIA_TYPE",
            f"The body must be JSON in UTF-8, sent with Content-Type: {JSON}; this one came with {said}.",
        )
    encoding = headers.get(b"content-encoding", b"identity")
    if encoding.lower() != b"identity":
        raise HttpRefusal(415, "UNSUPPORTED_MEDIA_TYPE", "The body must not be compressed: leave Content-Encoding out.")


def _is_json(content_type: str) -> bool:
    media_type, *parameters = (part.strip() for part in content_type.split(";"))
    values = dict(parameter.partition("=")[::2] for parameter in parameters)
    return media_type == JSON and values.get("charset", "utf-8").strip('"') in ("utf-8", "utf8")


# ------------------------------------------------------------------------------------------------ parameters


async def read_post(headers: Headers, receive: Receive) -> Parameters:
    """The request in a POST's body. Raises `HttpRefusal` (400, 408, 413, 415) or `ClientGone`."""
    _check_content_type(headers)
    body = await _read_body(headers, receive)
    if not body:
        raise _bad_request('The body is empty: send JSON such as {"query": "{ serverTime }"}.')
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise _bad_request(f"The body is not UTF-8: byte {body[error.start]:#04x} at position {error.start}.") from None
    if text.startswith("\ufeff"):
        raise _bad_request("The body begins with a byte order mark: send UTF-8 without one.")
    parameters = _decode(text, "The body")
    if isinstance(parameters, list):
        raise _bad_request("The body is an array: send one operation in each request, batches are not answered.")
    if not isinstance(parameters, dict):
        raise _bad_request(f"The body must be a JSON object, not {_kind(parameters)}.")
    return _parameters(parameters)


def read_get(query_string: bytes) -> Parameters:
    """The request in a GET's query string; `variables` and `extensions` are JSON in it. Raises `HttpRefusal` (400)."""
    try:
        pairs = parse_qsl(
            query_string.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=QUERY_PARAMETERS_MAX,
        )
    except ValueError:
        raise _bad_request(
            f"The query string is not percent-encoded UTF-8, or has more than {QUERY_PARAMETERS_MAX} parameters."
        ) from None
    parameters: dict[str, Any] = dict(pairs)
    for name in ("variables", "extensions"):
        if parameters.get(name):
            parameters[name] = _decode(parameters[name], f"The parameter {name}")
        else:
            parameters.pop(name, None)
    return _parameters(parameters)


async def _read_body(headers: Headers, receive: Receive) -> bytes:
    length = headers.get(b"content-length")
    if length is not None and (not length.isdigit() or len(length) > 18 or int(length) > BODY_BYTES_MAX):
        raise _too_large()
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        try:
            async with asyncio.timeout(BODY_SECONDS_MAX):
                body = await _read_rest(body, receive)
        except TimeoutError:
            raise HttpRefusal(
                408,
                "REQUEST_TIMEOUT",
                f"The body did not come within {BODY_SECONDS_MAX:g} s.",
                ((b"connection", b"close"),),
            ) from None
    if len(body) > BODY_BYTES_MAX:
        raise _too_large()
    return body


async def _read_rest(begun: bytes, receive: Receive) -> bytes:
    chunks, size, more = [begun], len(begun), True
    while more and size <= BODY_BYTES_MAX:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        chunks.append(chunk)
        size += len(chunk)
        more = message.get("more_body", False)
    return b"".join(chunks)


def _decode(text: str, what: str) -> Any:
    try:
        value = _decoder.decode(text)
    except RecursionError:
        raise _bad_request(f"{what} is nested too deeply.") from None
    except json.JSONDecodeError as error:
        problem = error.msg.removesuffix(" at")
        raise _bad_request(f"{what} is not JSON: {problem} at line {error.lineno} column {error.colno}.") from None
    except ValueError as error:
        raise _bad_request(f"{what} is not JSON: {error}.") from None
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
                raise _bad_request(f"{what} has the escape \\u{ord(found[0]):04x}, which stands for no character.")
        elif isinstance(inner, dict):
            stack.extend(inner)
            stack.extend(inner.values())
        elif isinstance(inner, list):
            stack.extend(inner)


def _parameters(values: Mapping[str, Any]) -> Parameters:
    query = values.get("query")
    if not isinstance(query, str):
        said = f"it is {_kind(query)}" if "query" in values else "it is missing"
        raise _bad_request(f"The parameter query must be a string, the GraphQL document; {said}.")
    operation_name = values.get("operationName")
    if operation_name is not None and not isinstance(operation_name, str):
        raise _bad_request(f"The parameter operationName must be a string or null, not {_kind(operation_name)}.")
    variables = values.get("variables")
    if variables is not None and not isinstance(variables, dict):
        raise _bad_request(f"The parameter variables must be an object or null, not {_kind(variables)}.")
    extensions = values.get("extensions")
    if extensions is not None and not isinstance(extensions, dict):
        raise _bad_request(f"The parameter extensions must be an object or null, not {_kind(extensions)}.")
    return Parameters(query, operation_name or None, variables or {})


def _kind(value: object) -> str:
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


def _bad_request(message: str) -> HttpRefusal:
    return HttpRefusal(400, "BAD_REQUEST", message)


def _too_large() -> HttpRefusal:
    # What is still coming is not read: the connection ends with the answer.
    return HttpRefusal(
        413,
        "PAYLOAD_TOO_LARGE",
        f"The body is too large: at most {BODY_BYTES_MAX} bytes are read.",
        ((b"connection", b"close"),),
    )
