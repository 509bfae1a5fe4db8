"""Reading a GraphQL request off HTTP: media types, body or query string, and what they must be.

Everything that is refused here is refused before a token is looked at or a document is read. Nothing here answers.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

from starlette.types import Receive

from api.parameters import BadRequest, Parameters, decode_json, kind_of_json, parameters_of
from app.errors import quoted

BODY_BYTES_MAX: Final = 256 * 1024
BODY_SECONDS_MAX: Final = 10.0
"""Within which the whole body must have come."""
QUERY_PARAMETERS_MAX: Final = 20
HEADERS_KNOWN_MAX: Final = 256

JSON: Final = "application/json"
GRAPHQL_RESPONSE: Final = "application/graphql-response+json"
EVENT_STREAM: Final = "text/event-stream"

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


# ------------------------------------------------------------------------------------------------ media types


class Accepted(NamedTuple):
    """What a client takes: `media_type` for a single answer, and an event stream if it `streams`.

    Where it `prefers_stream` every operation is answered by one, else subscriptions only.
    """

    media_type: str
    streams: bool = False
    prefers_stream: bool = False


_PLAIN: Final = Accepted(JSON)
_accepted: dict[bytes, Accepted | None] = {}
_json_types: dict[bytes, bool] = {}


def accepted_types(accept: bytes | None) -> Accepted:
    """How to answer. JSON unless the client prefers another. Raises 406 when it takes nothing that is made here."""
    if accept is None:
        return _PLAIN
    if accept not in _accepted:
        if len(_accepted) >= HEADERS_KNOWN_MAX:
            _accepted.clear()
        _accepted[accept] = _negotiate(accept.decode("latin-1").lower())
    chosen = _accepted[accept]
    if chosen is None:
        raise HttpRefusal(
            406,
            "NOT_ACCEPTABLE",
            f"Answers are {GRAPHQL_RESPONSE} or {JSON}, in UTF-8, or {EVENT_STREAM}; the Accept header takes none of "
            f"them: {quoted(accept.decode('latin-1'), 80)}.",
        )
    return chosen


def _negotiate(accept: str) -> Accepted | None:
    weights = {JSON: 0.0, GRAPHQL_RESPONSE: 0.0}
    named: list[str] = []
    wildcard = stream = 0.0
    for item in accept.split(","):
        media_type, *parameters = (part.strip() for part in item.split(";"))
        values = dict(parameter.partition("=")[::2] for parameter in parameters)
        weight = _weight(values.get("q", "1"))
        if values.get("charset", "utf-8").strip('"') not in ("utf-8", "utf8"):
            continue
        if media_type in weights:
            named.append(media_type)
            weights[media_type] = weight
        elif media_type == EVENT_STREAM:
            stream = weight
        elif media_type in ("*/*", "application/*"):
            wildcard = max(wildcard, weight)
    best = max(named, key=lambda name: weights[name], default=None)
    if best is not None and weights[best] > 0:
        return Accepted(best, stream > 0, stream > weights[best])
    if wildcard > 0 and JSON not in named:
        return Accepted(JSON, stream > 0, stream > 0)
    return Accepted(JSON, streams=True, prefers_stream=True) if stream > 0 else None


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
        raise BadRequest('The body is empty: send JSON such as {"query": "{ serverTime }"}.')
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"The body is not UTF-8: byte {body[error.start]:#04x} at position {error.start}.") from None
    if text.startswith("\ufeff"):
        raise BadRequest("The body begins with a byte order mark: send UTF-8 without one.")
    parameters = decode_json(text, "The body")
    if isinstance(parameters, list):
        raise BadRequest("The body is an array: send one operation in each request, batches are not answered.")
    if not isinstance(parameters, dict):
        raise BadRequest(f"The body must be a JSON object, not {kind_of_json(parameters)}.")
    return parameters_of(parameters)


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
        raise BadRequest(
            f"The query string is not percent-encoded UTF-8, or has more than {QUERY_PARAMETERS_MAX} parameters."
        ) from None
    parameters: dict[str, Any] = dict(pairs)
    for name in ("variables", "extensions"):
        if parameters.get(name):
            parameters[name] = decode_json(parameters[name], f"The parameter {name}")
        else:
            parameters.pop(name, None)
    return parameters_of(parameters)


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


def _too_large() -> HttpRefusal:
    # What is still coming is not read: the connection ends with the answer.
    return HttpRefusal(
        413,
        "PAYLOAD_TOO_LARGE",
        f"The body is too large: at most {BODY_BYTES_MAX} bytes are read.",
        ((b"connection", b"close"),),
    )
