"""The API's scalars: how each is read and written. Ranges and scales of fields are checked in the domain, not here."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, NewType

import strawberry
from graphql import GraphQLError, IntValueNode, StringValueNode, ValueNode, print_ast
from strawberry.types.scalar import ScalarDefinition

from app.errors import quoted
from app.money import RATE_DECIMALS as _RATE_DECIMALS
from app.money import SLOPE_DECIMALS as _SLOPE_DECIMALS
from app.money import TEXT_LENGTH_MAX, is_decimal_text, money_text, price_text, shares_text, to_text

Decimal = NewType("Decimal", str)
"""Exact decimal text, as it came and as it goes: never a float, never a `decimal.Decimal`."""
Seq = NewType("Seq", int)
UnixSeconds = NewType("UnixSeconds", int)
Cursor = NewType("Cursor", str)
Address = NewType("Address", str)

SEQ_MAX: Final = 2**53 - 1
UNIX_SECONDS_MAX: Final = 253_402_300_799
"""9999-12-31T23:59:59Z."""
_STREAM_CURSOR_LENGTH_MAX: Final = 4096
_INSTANT = re.compile(
    r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:Z|[+-]\d{2}:\d{2})", re.ASCII | re.IGNORECASE
)
_NAME_BEFORE = re.compile(r"([_A-Za-z][_0-9A-Za-z]*)\s*:[\s,]*$", re.ASCII)
_NAME_LENGTH_MAX: Final = 200
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}", re.ASCII)


def money(units: int) -> Decimal:
    """Money (10^-6) as the API writes it."""
    return Decimal(money_text(units))


def shares(units: int) -> Decimal:
    """Shares (10^-9) as the API writes them."""
    return Decimal(shares_text(units))


def price(units: int) -> Decimal:
    """A price (10^-12) as the API writes it."""
    return Decimal(price_text(units))


def rate(units: int) -> Decimal:
    """A rate, ratio or weight (10^-9) as the API writes it."""
    return Decimal(to_text(units, _RATE_DECIMALS))


def slope(units: int) -> Decimal:
    """A curve's slope (10^-18) as the API writes it."""
    return Decimal(to_text(units, _SLOPE_DECIMALS))


_PRINTABLE: Final = 10**4_300
"""Python refuses to print larger integers, so that nobody makes it work for hours."""


def _described(value: object) -> str:
    """What came instead, for a message: its kind and, where that is safe to print, the value, cut."""
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, int):
        return f"the integer {quoted(str(value))}" if abs(value) < _PRINTABLE else "an integer of thousands of digits"
    if isinstance(value, float):
        return f"the float {value!r}"
    if isinstance(value, str):
        return quoted(value)
    return {dict: "an object", list: "a list", type(None): "null"}.get(type(value), "something else")


_DECIMAL_EXPECTED: Final = 'Decimal is a JSON string such as "12.5", or an integer, never a float'
_INSTANT_EXPECTED: Final = 'DateTime is an RFC 3339 instant with its offset, such as "2026-01-31T09:30:00Z"'
_SEQ_EXPECTED: Final = f"Seq is an integer from 0 to {SEQ_MAX}"
_UNIX_SECONDS_EXPECTED: Final = f"UnixSeconds is an integer from 0 to {UNIX_SECONDS_MAX}"
_CURSOR_EXPECTED: Final = "Cursor is the text that a stream's event carried"
_ADDRESS_EXPECTED: Final = "Address is 0x and 40 hexadecimal digits"


def _unexpected(expected: str, value: object) -> GraphQLError:
    return GraphQLError(f"{expected}; got {_described(value)}.")


def _parse_decimal(value: object) -> Decimal:
    if isinstance(value, str):
        text = value
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**TEXT_LENGTH_MAX:
        text = str(value)
    else:
        raise _unexpected(_DECIMAL_EXPECTED, value)
    if not is_decimal_text(text):
        raise GraphQLError(
            f'Decimal is plain ASCII digits such as "12.5", at most {TEXT_LENGTH_MAX} characters, without exponent; '
            f"got {quoted(text)}."
        )
    return Decimal(text)


def _serialize_decimal(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a Decimal is written from text, not from {type(value).__name__}")
    return value


def _parse_instant(value: object) -> datetime:
    refusal = GraphQLError(
        f'DateTime is an RFC 3339 instant with its offset, such as "2026-01-31T09:30:00Z"; got {_described(value)}.'
    )
    if not isinstance(value, str) or _INSTANT.fullmatch(value) is None:
        raise refusal
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise refusal from None


def _serialize_instant(value: object) -> str:
    """RFC 3339 with a Z, microseconds only where there are any."""
    if isinstance(value, datetime) and value.tzinfo is UTC:
        return f"{value.isoformat()[:-6]}Z"
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise TypeError("a DateTime is written from a datetime with its offset")
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _bounded_integer(maximum: int, expected: str) -> Callable[[object], int]:
    def parse(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= maximum:
            raise _unexpected(expected, value)
        return value

    return parse


def _parse_cursor(value: object) -> Cursor:
    if not isinstance(value, str) or not value or len(value) > _STREAM_CURSOR_LENGTH_MAX:
        raise _unexpected(_CURSOR_EXPECTED, value)
    return Cursor(value)


def _parse_address(value: object) -> Address:
    if not isinstance(value, str) or _ADDRESS.fullmatch(value) is None:
        raise _unexpected(_ADDRESS_EXPECTED, value)
    return Address(value)


def _literal(parse_value: Callable[[object], Any], expected: str) -> Callable[[ValueNode, dict[str, Any] | None], Any]:
    """Reading a literal in a document: integers and strings go the way of values, anything else is quoted.

    Digits stay text until there are few enough, for turning thousands of them into a number is slow or refused.
    """

    def parse(node: ValueNode, _variables: dict[str, Any] | None = None) -> Any:
        try:
            if isinstance(node, StringValueNode):
                return parse_value(node.value)
            if isinstance(node, IntValueNode) and len(node.value) <= TEXT_LENGTH_MAX:
                return parse_value(int(node.value))
        except GraphQLError as refusal:
            raise GraphQLError(f"{_place(node)}{refusal.message}", node) from None
        raise GraphQLError(f"{_place(node)}{expected}; got {quoted(print_ast(node))}.", node)

    return parse


def _place(node: ValueNode) -> str:
    """The name of the argument or input field that the literal is given to, as far as the document shows it."""
    if node.loc is None:
        return ""
    before = node.loc.source.body[max(0, node.loc.start - _NAME_LENGTH_MAX) : node.loc.start]
    named = _NAME_BEFORE.search(before)
    return f"{named[1]}: " if named else ""


def _scalar(
    name: str,
    *,
    description: str,
    expected: str,
    parse: Callable[[object], Any],
    serialize: Callable[[Any], object],
    specified_by: str | None = None,
) -> ScalarDefinition:
    return strawberry.scalar(
        name=name,
        description=description,
        parse_value=parse,
        parse_literal=_literal(parse, expected),
        serialize=serialize,
        specified_by_url=specified_by,
    )


SCALARS: Final[dict[object, ScalarDefinition]] = {
    Decimal: _scalar(
        "Decimal",
        description=(
            'Exact decimal, a JSON string such as "12.345678"; never a float. An integer is taken too. At most 6 '
            "decimals for money, 9 for shares, rates, ratios and weights, 12 for prices, 18 for a slope. Answers carry "
            "no trailing zeros."
        ),
        expected=_DECIMAL_EXPECTED,
        parse=_parse_decimal,
        serialize=_serialize_decimal,
    ),
    datetime: _scalar(
        "DateTime",
        description=(
            'RFC 3339 instant in UTC, such as "2026-01-31T09:30:00.125Z". Inputs may carry any offset, but must '
            "carry one."
        ),
        expected=_INSTANT_EXPECTED,
        parse=_parse_instant,
        serialize=_serialize_instant,
        specified_by="https://www.rfc-editor.org/rfc/rfc3339",
    ),
    Seq: _scalar(
        "Seq",
        description="Position of an event in its stream: a JSON integer from 0 to 2^53-1.",
        expected=_SEQ_EXPECTED,
        parse=_bounded_integer(SEQ_MAX, _SEQ_EXPECTED),
        serialize=int,
    ),
    UnixSeconds: _scalar(
        "UnixSeconds",
        description="Seconds since 1970-01-01T00:00:00Z: a JSON integer.",
        expected=_UNIX_SECONDS_EXPECTED,
        parse=_bounded_integer(UNIX_SECONDS_MAX, _UNIX_SECONDS_EXPECTED),
        serialize=int,
    ),
    Cursor: _scalar(
        "Cursor",
        description="Opaque position in a stream of events. Lists use Relay cursors, which are strings.",
        expected=_CURSOR_EXPECTED,
        parse=_parse_cursor,
        serialize=str,
    ),
    Address: _scalar(
        "Address",
        description="20-byte EVM address: 0x and 40 hexadecimal digits, written with the EIP-55 checksum.",
        expected=_ADDRESS_EXPECTED,
        parse=_parse_address,
        serialize=str,
        specified_by="https://eips.ethereum.org/EIPS/eip-55",
    ),
}
