"""One number out of a JSON document, by a JSONPath (RFC 9535), exactly. Pure, and bounded whatever the document says.

Numbers never pass through a float. Whoever asked for the document does not matter here; `feeds` does the asking.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from typing import Final, NoReturn, TypeAlias

from jsonpath import JSONPath, JSONPathEnvironment, JSONPathMatch
from jsonpath.exceptions import JSONPathError, JSONPathRecursionError

from app.errors import quoted
from app.money import is_decimal_text

DOCUMENT_BYTES_MAX: Final = 2**20
DEPTH_MAX: Final = 64
NODES_MAX: Final = 50_000
"""Values in a document, containers included."""
VISITS_MAX: Final = 100_000
"""Values that a path may come by."""
PATH_LENGTH_MAX: Final = 500
NUMBER_LENGTH_MAX: Final = 64
EXPONENT_MAX: Final = 30
"""Of ten, up and down."""
AROUND_LENGTH_MAX: Final = 300
BRIEF_LENGTH_MAX: Final = 60
SHOWN_PATH_LENGTH_MAX: Final = 200
_EXPONENT: Final = re.compile(r"[eE]([+-]?[0-9]+)$", re.ASCII)

Json: TypeAlias = "dict[str, Json] | list[Json] | str | Decimal | Unreadable | bool | None"


class BadPath(ValueError):  # noqa: N818 - what it is
    """No JSONPath that is taken; the message quotes it and says why."""


class NotOneNumber(Exception):  # noqa: N818 - an outcome of looking
    """The document does not hold exactly one usable number at the path; the message says what was found."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands in a parsed document for a number beyond all measure, such as 1e999999999: `text` is its beginning."""

    text: str


@dataclass(frozen=True, slots=True)
class FoundNumber:
    """`value`: plain decimal text without an exponent. `excerpt`: its path and value, and what stands around it."""

    value: str
    excerpt: str


class _Environment(JSONPathEnvironment):
    """RFC 9535 without its regular expressions: a document must not choose how long they take."""

    max_recursion_depth = DEPTH_MAX + 2

    def setup_function_extensions(self) -> None:
        super().setup_function_extensions()
        for name in ("match", "search"):
            del self.function_extensions[name]


class _Visits:
    """How many values a path may still come by."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = VISITS_MAX


class _Visited(JSONPathMatch):
    """A value that a path came by, counted; children inherit the count."""

    __slots__ = ("visits",)
    visits: _Visits

    def new_child(self, obj: object, key: int | str) -> JSONPathMatch:
        self.visits.left -= 1
        if self.visits.left < 0:
            raise NotOneNumber(f"the path comes by more than {VISITS_MAX} values: make it more specific")
        child = super().new_child(obj, key)
        if isinstance(child, _Visited):
            child.visits = self.visits
        return child


_ENVIRONMENT: Final = _Environment(strict=True)


@lru_cache(maxsize=1024)
def compile_path(path: str) -> JSONPath:
    """The JSONPath in `path`, such as "$.data.rate". Raises `BadPath`.

    Refused besides what RFC 9535 knows not: more than one "..", more than two filters, match() and search(), and
    anything longer than `PATH_LENGTH_MAX`.
    """
    if len(path) > PATH_LENGTH_MAX:
        raise BadPath(f"a JSONPath has at most {PATH_LENGTH_MAX} characters; got {len(path)}: {quoted(path)}")
    if path.count("..") > 1 or path.count("?") > 2:
        raise BadPath(f'a JSONPath has at most one ".." and two filters here; got {quoted(path)}')
    try:
        compiled = _ENVIRONMENT.compile(path)
    except (JSONPathError, RecursionError, OverflowError, ValueError) as error:
        raise BadPath(
            f'must be a JSONPath (RFC 9535) such as "$.data.rate"; got {quoted(path)}: {_why(error)}'
        ) from error
    if not isinstance(compiled, JSONPath):
        raise BadPath(f"must be one JSONPath (RFC 9535), not a union of several; got {quoted(path)}")
    return compiled


def _why(error: Exception) -> object:
    # The text of such an error draws a picture of the path, and stumbles over an empty one.
    return error.message if isinstance(error, JSONPathError) else error


def number_at(document: bytes, path: JSONPath) -> FoundNumber:
    """The one number at `path`: a JSON number, or a string that is a plain decimal. Raises `NotOneNumber`."""
    match = _only_match(parse_document(document), path)
    return FoundNumber(
        _decimal_text(match), f"{match.path[:SHOWN_PATH_LENGTH_MAX]} = {_brief(match.obj)}; {_around(match)}"
    )


def parse_document(document: bytes) -> Json:
    """JSON in UTF-8 with numbers as they stand: `Decimal`, or `Unreadable`. Raises `NotOneNumber` for anything else."""
    if len(document) > DOCUMENT_BYTES_MAX:
        raise NotOneNumber(f"the document has {len(document)} bytes, more than {DOCUMENT_BYTES_MAX}")
    try:
        parsed: Json = json.loads(
            document.decode("utf-8-sig"),
            parse_float=_number,
            parse_int=_number,
            parse_constant=_no_constant,
            object_pairs_hook=_no_duplicates,
        )
    except UnicodeDecodeError as error:
        raise NotOneNumber(f"the document is not UTF-8 at byte {error.start}") from error
    except RecursionError as error:
        raise NotOneNumber(f"the document is nested deeper than {DEPTH_MAX} levels") from error
    except ValueError as error:
        beginning = quoted(document[:BRIEF_LENGTH_MAX].decode("utf-8", "replace"))
        raise NotOneNumber(f"the document is no JSON ({error}); it begins {beginning}") from error
    _check_size(parsed)
    return parsed


def _number(text: str) -> Decimal | Unreadable:
    exponent = _EXPONENT.search(text)
    if len(text) > NUMBER_LENGTH_MAX or (exponent is not None and abs(int(exponent[1])) > EXPONENT_MAX):
        return Unreadable(text[:NUMBER_LENGTH_MAX])
    return Decimal(text)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _no_duplicates(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("an object says the same name twice")
    return made


def _check_size(document: Json) -> None:
    level, nodes, depth = _containers([document]), 1, 0
    while level:
        depth += 1
        nodes += sum(len(value) for value in level)
        if depth > DEPTH_MAX:
            raise NotOneNumber(f"the document is nested deeper than {DEPTH_MAX} levels")
        if nodes > NODES_MAX:
            raise NotOneNumber(f"the document has more than {NODES_MAX} values")
        level = [inner for value in level for inner in _containers(_children(value))]


def _containers(values: Iterable[Json]) -> list[dict[str, Json] | list[Json]]:
    return [value for value in values if isinstance(value, dict | list)]


def _children(value: dict[str, Json] | list[Json]) -> Iterable[Json]:
    return value.values() if isinstance(value, dict) else value


def _only_match(document: Json, path: JSONPath) -> JSONPathMatch:
    # Only a container can be looked into, by a filter's "$" as by anything else.
    container = document if isinstance(document, dict | list) else []
    root = _Visited(filter_context={}, obj=document, parent=None, path="$", parts=(), root=container)
    root.visits = _Visits()
    nodes: Iterable[JSONPathMatch] = [root]
    for segment in path.segments:
        nodes = segment.resolve(nodes)
    try:
        found = list(islice(nodes, 2))
    except JSONPathRecursionError as error:
        raise NotOneNumber(f"the document is nested deeper than {DEPTH_MAX} levels") from error
    except (TypeError, AttributeError, ArithmeticError) as error:
        raise NotOneNumber(
            f"the path {str(path)[:SHOWN_PATH_LENGTH_MAX]} cannot be followed: its filter hands a function what it does"
            " not take"
        ) from error
    except JSONPathError as error:
        raise NotOneNumber(
            f"the path {str(path)[:SHOWN_PATH_LENGTH_MAX]} cannot be followed: {str(error).partition(chr(10))[0]}"
        ) from error
    if not found:
        raise NotOneNumber(f"found nothing at {str(path)[:SHOWN_PATH_LENGTH_MAX]}")
    if len(found) > 1:
        values = " and ".join(f"{one.path[:SHOWN_PATH_LENGTH_MAX]} = {_brief(one.obj)}" for one in found)
        raise NotOneNumber(f"found more than one value at {str(path)[:SHOWN_PATH_LENGTH_MAX]}: {values}")
    return found[0]


def _decimal_text(match: JSONPathMatch) -> str:
    value = match.obj
    if isinstance(value, str) and is_decimal_text(value):
        value = Decimal(value)
    if not isinstance(value, Decimal):
        raise NotOneNumber(f"found {_kind(value)} at {match.path[:SHOWN_PATH_LENGTH_MAX]}, where a number must stand")
    text = format(value, "f") if value else "0"
    if not is_decimal_text(text):
        raise NotOneNumber(
            f"found a number of {len(text)} characters at {match.path[:SHOWN_PATH_LENGTH_MAX]}: {quoted(text)}"
        )
    return text


def _kind(value: object) -> str:
    if isinstance(value, Unreadable):
        return f"a number beyond all measure, {quoted(value.text)}"
    if isinstance(value, str):
        return f"the text {quoted(value)}, which is no plain decimal"
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    return _brief(value)


def _brief(value: object) -> str:
    """A value in a few characters of ASCII; what is inside of containers is left out."""
    if isinstance(value, dict):
        return "{...}" if value else "{}"
    if isinstance(value, list):
        return "[...]" if value else "[]"
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, Unreadable):
        return f"{value.text[:BRIEF_LENGTH_MAX]}..."
    text = json.dumps(value)
    return text if len(text) <= BRIEF_LENGTH_MAX else f"{text[: BRIEF_LENGTH_MAX - 3]}..."


def _around(match: JSONPathMatch) -> str:
    """What stands beside the value, up to `AROUND_LENGTH_MAX` characters, the nearest first on either side."""
    beside = match.parent.obj if match.parent is not None else None
    if isinstance(beside, dict):
        keys = list(beside)
        pieces = [f"{_brief(key)}: {_brief(value)}" for key, value in beside.items()]
        middle, opening, closing = keys.index(str(match.parts[-1])), "{", "}"
    elif isinstance(beside, list):
        pieces = [_brief(value) for value in beside]
        middle, opening, closing = int(match.parts[-1]), "[", "]"
    else:
        return "it is the whole document"
    first, last = _window([len(piece) + 2 for piece in pieces], middle)
    shown = ", ".join(pieces[first : last + 1])
    return f"in {opening}{'... ' if first else ''}{shown}{' ...' if last + 1 < len(pieces) else ''}{closing}"


def _window(lengths: list[int], middle: int) -> tuple[int, int]:
    """The first and the last of the pieces around `middle` that fit, growing on both sides in turn."""
    first = last = middle
    left = AROUND_LENGTH_MAX - 12 - lengths[middle]
    while True:
        grown = False
        for edge in (last + 1, first - 1):
            if 0 <= edge < len(lengths) and lengths[edge] <= left:
                left -= lengths[edge]
                first, last, grown = min(first, edge), max(last, edge), True
        if not grown:
            return first, last
