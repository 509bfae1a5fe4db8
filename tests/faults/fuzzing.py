"""Operations drawn from a schema: right ones, nearly right ones and hostile ones, of values that exist and others.

Pure: nothing is sent here.
"""

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from graphql import (
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNamedType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLType,
    GraphQLUnionType,
    get_named_type,
    is_composite_type,
    is_required_argument,
    is_required_input_field,
)
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"
T = TypeVar("T")

DEPTH_MAX = 4
ROOT_FIELDS_MAX = 2
FAVOURED_TIMES = 5
FIELDS_MAX = 5
_NAME = re.compile(r"[_A-Za-z][_0-9A-Za-z]*", re.ASCII)

DECIMALS = [
    "1", "0.01", "10", "0.000001", "0.000000001", "12.345678", "1000000000", "999999999999", "0", "-1", "-0.5", "00.10",
    "1e5", "NaN", "", ".", "0.0000000000000000001", "9" * 30, "9" * 64, "9" * 65, "١", "1 ", "1_0", "+1", "0x1",
]  # fmt: skip
TEXTS = [
    "", " ", "a", "RAIN", "%", "_", "\\", "'", '"', "\0", "\n", "\x7f", "\u202e", "é" * 300, "x" * 5000, "😀", "null",
    "\ufeff", "a@b.cc", "A" * 64,
]  # fmt: skip
INTEGERS = [0, 1, 2, 10, 500, 501, -1, 2**31 - 1, 2**31, -(2**31), 2**53 - 1, 2**53, 2**63, 2**64, 10**30, 10**300]
INSTANTS = [
    "2026-01-01T00:00:00Z", "2099-12-31T23:59:59.999999Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00",
    "2026-02-30T00:00:00Z", "2026-01-01", "2026-01-01T00:00:00", "2026-01-01T25:00:00Z", "now", "2026-01-01T00:00:60Z",
    "2026-01-01T00:00:00.1234567890Z", "2026-01-01T00:00:00+99:99",
]  # fmt: skip
TYPES = [
    "Asset",
    "Account",
    "Order",
    "Trade",
    "Fill",
    "ApiKey",
    "AssetRequest",
    "AuditEntry",
    "LedgerEntry",
    "Nope",
    "",
]
KEYS = ["1", "2", "0", "-1", "01", "9223372036854775807", "9223372036854775808", "1:1", "1:2:3", "x", "", "1" * 90]
DIRECTIVES = [" @include(if: true)", " @skip(if: false)", " @include(if: false)"]


@dataclass(frozen=True)
class Case:
    """An operation, its variables, and which root fields it asks for."""

    document: str
    variables: dict[str, Plain]
    roots: tuple[str, ...]

    def body(self) -> bytes:
        """The request's body."""
        return json.dumps({"query": self.document, "variables": self.variables}).encode()


@dataclass(frozen=True)
class Knowledge:
    """Values that exist: ids, and whatever is likely for an argument or input field of a name."""

    ids: Sequence[str]
    by_name: Mapping[str, Sequence[Plain]]


def _decimal(whole: int, fraction: int) -> str:
    return f"{whole}.{fraction:06}"


def _node_id(type_name: str, key: str) -> str:
    return urlsafe_b64encode(f"{type_name}:{key}".encode()).decode().rstrip("=")


_LEAVES: st.SearchStrategy[Plain] = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(INTEGERS),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(TEXTS),
    st.text(max_size=20),
)
_ANYTHING: st.SearchStrategy[Plain] = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)
_FORGED = st.builds(_node_id, st.sampled_from(TYPES), st.sampled_from(KEYS))
_IDS = st.one_of(_FORGED, _FORGED.map(lambda text: f"{text}="), st.sampled_from(TEXTS), st.text(max_size=30))
_ORDINARY: st.SearchStrategy[Plain] = st.builds(_decimal, st.integers(0, 200), st.integers(0, 999_999))
_DECIMALS: st.SearchStrategy[Plain] = st.one_of(_ORDINARY, st.sampled_from(DECIMALS), st.sampled_from(INTEGERS))
_INTEGERS: st.SearchStrategy[Plain] = st.one_of(st.integers(0, 20), st.sampled_from(INTEGERS))
_TEXTS: st.SearchStrategy[Plain] = st.one_of(st.sampled_from(TEXTS), st.text(max_size=80))
_SCALARS: dict[str, st.SearchStrategy[Plain]] = {
    "Decimal": _DECIMALS,
    "Int": _INTEGERS,
    "Seq": _INTEGERS,
    "UnixSeconds": _INTEGERS,
    "Float": st.floats(allow_nan=False, allow_infinity=False),
    "Boolean": st.booleans(),
    "DateTime": st.sampled_from(INSTANTS),
}
_CALM_SCALARS: dict[str, st.SearchStrategy[Plain]] = {
    "Decimal": _ORDINARY,
    "Int": st.integers(0, 20),
    "Seq": st.integers(0, 20),
    "UnixSeconds": st.integers(1_700_000_000, 1_900_000_000),
    "DateTime": st.sampled_from(INSTANTS[:2]),
    "String": st.text("abc XYZ-_.", min_size=1, max_size=12),
}
CALM = 12
"""How many times rarer whatever is wrong gets in a calm operation."""


@dataclass
class _Draft:
    """The operation under construction. In a hostile one much is wrong, in a calm one little."""

    draw: DrawFn
    schema: GraphQLSchema
    known: Knowledge
    hostile: bool
    variables: dict[str, Plain] = field(default_factory=dict)
    declared: list[str] = field(default_factory=list)

    def chance(self, one_in: int) -> bool:
        return self.draw(st.integers(1, one_in)) == one_in

    def goes_wrong(self, one_in: int) -> bool:
        return self.chance(one_in if self.hostile else one_in * CALM)

    def pick(self, values: Sequence[T]) -> T:
        return self.draw(st.sampled_from(values))

    def some(self, values: Sequence[T], most: int) -> list[T]:
        if not values:
            return []
        places = st.lists(st.integers(0, len(values) - 1), min_size=1, max_size=min(most, len(values)), unique=True)
        return [values[place] for place in self.draw(places)]

    # -------------------------------------------------------------------------------------------- selections

    def selections(self, type_: GraphQLNamedType, depth: int) -> str:
        parts: list[str] = []
        if isinstance(type_, GraphQLInterfaceType | GraphQLUnionType):
            possible = self.some(list(self.schema.get_possible_types(type_)), 3)
            parts += [f"... on {each.name} {self.selections(each, depth)}" for each in possible]
        elif isinstance(type_, GraphQLObjectType):
            fields = [
                (name, each)
                for name, each in type_.fields.items()
                if depth > 0 or not is_composite_type(get_named_type(each.type))
            ]
            parts += [self.selected(name, each, depth) for name, each in self.some(fields, FIELDS_MAX)]
        if not parts or self.chance(10):
            parts.append("__typename")
        return "{ " + " ".join(parts) + " }"

    def selected(self, name: str, field_: GraphQLField, depth: int) -> str:
        inner = get_named_type(field_.type)
        text = name + self.arguments(field_) + (self.pick(DIRECTIVES) if self.chance(25) else "")
        return f"{text} {self.selections(inner, depth - 1)}" if is_composite_type(inner) else text

    # ---------------------------------------------------------------------------------------------- arguments

    def arguments(self, field_: GraphQLField) -> str:
        given = [
            f"{name}: {self.argument(name, argument)}"
            for name, argument in field_.args.items()
            if self.wanted(required=is_required_argument(argument))
        ]
        if field_.args and self.goes_wrong(40):
            given.append("surprise: 1")
        return f"({', '.join(given)})" if given else ""

    def wanted(self, *, required: bool) -> bool:
        return not self.goes_wrong(30) if required else self.chance(3)

    def argument(self, name: str, argument: GraphQLArgument) -> str:
        value = self.value(argument.type, name)
        if self.chance(3):
            return self.literal(value, argument.type)
        variable = f"v{len(self.variables)}"
        self.variables[variable] = value
        self.declared.append(f"${variable}: {argument.type}")
        return f"${variable}"

    def value(self, type_: GraphQLType, name: str) -> Plain:
        if self.goes_wrong(30):
            return self.draw(_ANYTHING)
        if isinstance(type_, GraphQLNonNull):
            return self.value(type_.of_type, name)
        if self.goes_wrong(10):
            return None
        if isinstance(type_, GraphQLList):
            return [self.value(type_.of_type, name) for _ in range(self.draw(st.integers(0, 4)))]
        if isinstance(type_, GraphQLInputObjectType):
            return self.input_object(type_)
        if isinstance(type_, GraphQLEnumType):
            return self.pick(["NOPE", "buy", "", "0"]) if self.goes_wrong(10) else self.pick(list(type_.values))
        return self.scalar(get_named_type(type_).name, name)

    def input_object(self, type_: GraphQLInputObjectType) -> dict[str, Plain]:
        values = {
            name: self.value(each.type, name)
            for name, each in type_.fields.items()
            if self.wanted(required=is_required_input_field(each) or name == "shares")
        }
        if self.goes_wrong(40):
            values["surprise"] = 1
        return values

    def scalar(self, type_name: str, name: str) -> Plain:
        likely = self.known.by_name.get(name)
        if likely and not self.goes_wrong(4):
            return self.pick(likely)
        if type_name == "ID":
            return self.draw(_IDS) if self.goes_wrong(2) else self.pick(self.known.ids)
        if not self.hostile and type_name in _CALM_SCALARS:
            return self.draw(_CALM_SCALARS[type_name])
        return self.draw(_SCALARS.get(type_name, _TEXTS))

    def literal(self, value: Plain, type_: GraphQLType) -> str:
        """`value` as it stands in a document: names of enum values bare, the rest as in JSON."""
        inner = type_.of_type if isinstance(type_, GraphQLNonNull) else type_
        if isinstance(value, list):
            item = inner.of_type if isinstance(inner, GraphQLList) else inner
            return "[" + ", ".join(self.literal(each, item) for each in value) + "]"
        if isinstance(value, dict):
            types: dict[str, GraphQLType] = {}
            if isinstance(inner, GraphQLInputObjectType):
                types = {name: each.type for name, each in inner.fields.items()}
            members = [
                f"{name if _NAME.fullmatch(name) else 'x'}: {self.literal(each, types.get(name, inner))}"
                for name, each in value.items()
            ]
            return "{" + ", ".join(members) + "}"
        if isinstance(value, str) and isinstance(get_named_type(inner), GraphQLEnumType) and _NAME.fullmatch(value):
            return value
        return json.dumps(value)


@st.composite
def cases(
    draw: DrawFn, *, schema: GraphQLSchema, known: Knowledge, favoured: Collection[str], skipped: Collection[str]
) -> Case:
    """An operation of `schema`; root fields in `favoured` come more often, those in `skipped` never."""
    draft = _Draft(draw, schema, known, hostile=draw(st.integers(1, 5)) <= 2)
    kind = draft.pick(["query", "mutation"])
    root = schema.query_type if kind == "query" else schema.mutation_type
    if root is None:
        raise AssertionError(f"the schema has no {kind}")
    fields = [pair for pair in root.fields.items() if pair[0] not in skipped]
    fields += [pair for pair in fields if pair[0] in favoured] * (FAVOURED_TIMES - 1)
    chosen = dict(draft.some(fields, ROOT_FIELDS_MAX))
    selected = " ".join(draft.selected(name, each, DEPTH_MAX) for name, each in chosen.items())
    declared = f"({', '.join(draft.declared)})" if draft.declared else ""
    return Case(f"{kind} Fuzz{declared} {{ {selected} }}", draft.variables, tuple(chosen))
