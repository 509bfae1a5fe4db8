"""How scalars are read from variables and from literals, and how they are written."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from graphql import GraphQLError, GraphQLScalarType, parse, validate

from api.schema import schema
from tests.api.harness import Api


def scalar(name: str) -> GraphQLScalarType:
    found = schema._schema.type_map[name]
    assert isinstance(found, GraphQLScalarType)
    return found


def refusal_of(name: str, value: object) -> str:
    with pytest.raises(GraphQLError) as refused:
        scalar(name).coerce_input_value(value)
    return refused.value.message


def literal_errors(shares: str) -> list[str]:
    document = parse(f'{{ quote(assetId: "x", side: BUY, shares: {shares}) {{ quote {{ total }} }} }}')
    return [error.message for error in validate(schema._schema, document)]


@pytest.mark.parametrize(("value", "text"), [("12.50", "12.50"), ("0", "0"), ("-1.5", "-1.5"), (7, "7"), (-3, "-3")])
def test_a_decimal_keeps_its_exact_text(value: object, text: str) -> None:
    assert scalar("Decimal").coerce_input_value(value) == text


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e400", "１２", "", " 1", "1.", ".5", "+1", "1_0", "0x1", "1\n"])
def test_a_text_that_is_no_plain_decimal_is_refused_and_quoted(value: str) -> None:
    assert refusal_of("Decimal", value) == (
        f"Decimal is plain ASCII digits such as \"12.5\", at most 64 characters, without exponent; got '{value}'."
    )


def test_a_long_decimal_is_refused_and_quoted_in_part() -> None:
    assert refusal_of("Decimal", "9" * 10_000).endswith(f"got '{'9' * 40}...' (10000 characters).")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1.5, "the float 1.5"),
        (float("nan"), "the float nan"),
        (True, "the boolean true"),
        pytest.param(10**70, f"the integer '1{'0' * 39}...' (71 characters)", id="71 digits"),
        pytest.param(10**5_000, "an integer of thousands of digits", id="5001 digits"),
        (["1"], "a list"),
        ({"1": "1"}, "an object"),
    ],
)
def test_what_is_not_text_is_no_decimal(value: object, said: str) -> None:
    expected = f'Decimal is a JSON string such as "12.5", or an integer, never a float; got {said}.'
    assert refusal_of("Decimal", value) == expected


@pytest.mark.parametrize("literal", ['"12.5"', "12", "-0", '"0.000000000000000001"'])
def test_decimal_literals_are_strings_and_integers(literal: str) -> None:
    assert literal_errors(literal) == []


@pytest.mark.parametrize(
    ("literal", "quoted"),
    [
        ("1.5", "'1.5'"),
        ("1e5", "'1e5'"),
        ("true", "'true'"),
        ("9" * 5_000, f"'{'9' * 40}...' (5000 characters)"),
        ("[1]", "'[1]'"),
    ],
)
def test_other_literals_are_refused_naming_the_argument(literal: str, quoted: str) -> None:
    assert literal_errors(literal) == [
        f'shares: Decimal is a JSON string such as "12.5", or an integer, never a float; got {quoted}.'
    ]


def test_a_bad_decimal_text_in_a_literal_names_the_argument() -> None:
    assert literal_errors('"1e400"') == [
        "shares: Decimal is plain ASCII digits such as \"12.5\", at most 64 characters, without exponent; got '1e400'."
    ]


async def test_a_bad_decimal_in_a_variable_names_its_place(api: Api) -> None:
    mutation = "mutation ($order: OrderPlaceInput!) { orderPlace(input: $order) { order { id } } }"
    order = {"assetId": "x", "side": "BUY", "clientOrderId": "a", "amount": "1e400"}

    result = await api.run(mutation, {"order": order})

    assert result.data is None
    assert [error.message for error in result.errors or []] == [
        "Variable '$order' has invalid value at .amount: Decimal is plain ASCII digits such as \"12.5\", "
        "at most 64 characters, without exponent; got '1e400'."
    ]


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-01-31T09:30:00Z", datetime(2026, 1, 31, 9, 30, tzinfo=UTC)),
        ("2026-01-31t09:30:00.125z", datetime(2026, 1, 31, 9, 30, 0, 125_000, tzinfo=UTC)),
        ("2026-01-31T09:30:00+02:00", datetime(2026, 1, 31, 7, 30, tzinfo=UTC)),
        ("2026-01-31T09:30:00.123456789-00:30", datetime(2026, 1, 31, 10, 0, 0, 123_456, tzinfo=UTC)),
    ],
)
def test_an_instant_is_read_with_its_offset(text: str, instant: datetime) -> None:
    read = scalar("DateTime").coerce_input_value(text)

    assert read == instant
    assert read.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T09:30:00",
        "2026-01-31",
        "2026-02-30T09:30:00Z",
        "2026-01-31T24:00:00Z",
        "2026-01-31T09:30:60Z",
        "2026-01-31 09:30:00Z",
        "20260131T093000Z",
        "0001-01-01T00:00:00+23:00",
        "２０26-01-31T09:30:00Z",
        1_769_851_800,
    ],
)
def test_an_instant_that_is_none_is_refused(text: object) -> None:
    assert refusal_of("DateTime", text).startswith("DateTime is an RFC 3339 instant with its offset, such as")


def test_an_instant_is_written_in_utc() -> None:
    instant = datetime(2026, 1, 31, 9, 30, 0, 125_000, tzinfo=timezone(timedelta(hours=2)))
    assert scalar("DateTime").coerce_output_value(instant) == "2026-01-31T07:30:00.125000Z"


@pytest.mark.parametrize("value", [-1, 2**53, 1.0, True, "7", pytest.param(10**5_000, id="5001 digits")])
def test_a_seq_is_an_integer_up_to_2_53(value: object) -> None:
    assert refusal_of("Seq", value).startswith("Seq is an integer from 0 to 9007199254740991; got ")
    assert scalar("Seq").coerce_input_value(2**53 - 1) == 2**53 - 1


def test_a_number_is_never_written_as_a_decimal() -> None:
    with pytest.raises(TypeError, match="written from text, not from float"):
        scalar("Decimal").coerce_output_value(1.5)
