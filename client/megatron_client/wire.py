"""From dataclasses to GraphQL selections, and from JSON back to dataclasses: each field is written down once.

Two kinds of fields are not asked of the server: `symbol` beside `asset_id`, filled in from the markets that the client
knows, and those marked `added`, which the client puts beside what was answered.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from decimal import Decimal
from functools import cache
from types import UnionType
from typing import Any, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

from megatron_client.errors import Details, Refused

Json: TypeAlias = dict[str, Any]
"""A decoded JSON object."""
Symbols: TypeAlias = Mapping[str, str]
"""Asset ids to symbols."""

_Type = TypeVar("_Type")
_Read: TypeAlias = Callable[[Any, Symbols], Any]
_READERS: dict[type, _Read] = {}

REFUSALS = """userErrors { code message field
    ... on InsufficientBalanceError { required available }
    ... on SlippageError { bound actual atTradeSeq }
    ... on LimitError { limit remaining resetsAt }
  }"""


@cache
def selection(kind: type) -> str:
    """What to ask of the server to make a `kind`: `{ assetId seq ... curve { ... } }`."""
    parts = []
    added = {field.name for field in fields(kind) if field.metadata.get("added")}
    for name, hint in _read_fields(kind):
        if name in added:
            continue
        inner = _dataclass_in(hint)
        parts.append(f"{camel(name)} {selection(inner)}" if inner else camel(name))
    return f"{{ {' '.join(parts)} }}"


def decode(kind: type[_Type], node: Json, symbols: Symbols) -> _Type:
    """The `kind` that the server sent as `node`."""
    made: _Type = _reader(kind)(node, symbols)
    return made


def decode_all(kind: type[_Type], nodes: list[Json], symbols: Symbols) -> tuple[_Type, ...]:
    """Several of them."""
    read = _reader(kind)
    return tuple(read(node, symbols) for node in nodes)


def refusal(errors: list[Json]) -> Refused:
    """The first of an answer's userErrors, which are one as a rule."""
    first = errors[0] if errors else {"code": "UNKNOWN", "message": "the server answered neither data nor an error"}
    named = {field.name: first.get(camel(field.name)) for field in fields(Details)}
    read = {name: value if value is None else _DETAILS[name](value, {}) for name, value in named.items()}
    return Refused(first["code"], first["message"], field=tuple(first.get("field") or ()), details=Details(**read))


def camel(name: str) -> str:
    """The name as the API writes it."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def instant(text: str) -> datetime:
    """An aware datetime."""
    return datetime.fromisoformat(text)


def _read_fields(kind: type) -> list[tuple[str, Any]]:
    hints = get_type_hints(kind)
    local = {"symbol"} if "asset_id" in hints else set()
    return [(field.name, hints[field.name]) for field in fields(kind) if field.name not in local]


def _reader(kind: type) -> _Read:
    if kind not in _READERS:
        _READERS[kind] = _make_reader(kind)
    return _READERS[kind]


def _make_reader(kind: type) -> _Read:
    named = [(name, camel(name), _value_reader(hint)) for name, hint in _read_fields(kind)]
    has_symbol = len(named) < len(fields(kind))

    def read(node: Json, symbols: Symbols) -> Any:
        values = {name: read_value(node[key], symbols) for name, key, read_value in named}
        if has_symbol:
            values["symbol"] = symbols.get(values["asset_id"], "")
        return kind(**values)

    return read


def _value_reader(hint: Any) -> _Read:
    """How a value of this annotation is read."""
    if isinstance(hint, UnionType):
        [some] = [part for part in get_args(hint) if part is not type(None)]
        read = _value_reader(some)
        return lambda value, symbols: None if value is None else read(value, symbols)
    if get_origin(hint) is tuple:
        each = _value_reader(get_args(hint)[0])
        return lambda values, symbols: tuple(each(value, symbols) for value in values)
    if is_dataclass(hint):
        return _reader(hint)  # type: ignore[arg-type] # a dataclass here is a type, never an instance
    if hint is Decimal:
        return lambda value, _: Decimal(value)
    if hint is datetime:
        return lambda value, _: instant(value)
    return lambda value, _: value


def _dataclass_in(hint: Any) -> type | None:
    """The dataclass that an annotation holds, if any."""
    candidates = [hint, *get_args(hint)]
    return next((part for part in candidates if isinstance(part, type) and is_dataclass(part)), None)


_DETAILS = {name: _value_reader(hint) for name, hint in get_type_hints(Details).items()}
