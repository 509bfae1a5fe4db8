"""The exported schema: what stands in the file, what the contract promises, and that every element says what it is."""

from collections.abc import Iterator
from pathlib import Path

from graphql import (
    BreakingChangeType,
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    build_schema,
    find_breaking_changes,
    find_dangerous_changes,
)

from api.schema import export, schema
from tests.api.contract import CONTRACT as CONTRACT_FILE
from tests.api.contract import SECTIONS, contract, sections

ROOT = Path(__file__).resolve().parents[2]


def described(built: GraphQLSchema) -> Iterator[tuple[str, str | None]]:
    """Every type, field, argument, input field and enum value of the schema, with its description."""
    for name, type_ in built.type_map.items():
        if name.startswith("__"):
            continue
        yield name, type_.description
        if isinstance(type_, GraphQLObjectType | GraphQLInterfaceType):
            for field_name, field in type_.fields.items():
                yield f"{name}.{field_name}", field.description
                for argument_name, argument in field.args.items():
                    yield f"{name}.{field_name}({argument_name})", argument.description
        elif isinstance(type_, GraphQLInputObjectType):
            for field_name, input_field in type_.fields.items():
                yield f"{name}.{field_name}", input_field.description
        elif isinstance(type_, GraphQLEnumType):
            for value_name, value in type_.values.items():
                yield f"{name}.{value_name}", value.description


def test_the_exported_file_is_up_to_date() -> None:
    assert (ROOT / "schema.graphql").read_text() == export(), "run `megatron schema > schema.graphql`"


def test_the_export_is_valid_sdl_of_the_same_schema() -> None:
    assert set(build_schema(export()).type_map) == set(schema._schema.type_map)


def test_the_contract_has_the_sections_that_are_known_here() -> None:
    assert tuple(sections(CONTRACT_FILE.read_text())) == SECTIONS


def test_nothing_of_the_contract_is_missing_or_stricter() -> None:
    promised, built = contract(), build_schema(export())

    assert [change.description for change in find_breaking_changes(promised, built)] == []
    assert [change.description for change in find_dangerous_changes(promised, built)] == []


def test_a_missing_field_of_the_contract_would_be_seen() -> None:
    renamed = build_schema(export().replace("statusReason: String", "reasonOfStatus: String"))

    changes = find_breaking_changes(contract(), renamed)
    assert [change.type for change in changes] == [BreakingChangeType.FIELD_REMOVED]


def test_every_element_says_what_it_is() -> None:
    elements = dict(described(schema._schema))

    assert len(elements) > 500
    assert [name for name, description in elements.items() if not (description or "").strip()] == []


def test_no_default_is_printed_where_leaving_out_means_nothing() -> None:
    assert "= null" not in export()
