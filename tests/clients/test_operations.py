"""The documents of graphql/operations, which the playground opens with and clients start from, against the schema."""

import json
from pathlib import Path

import pytest
from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    build_schema,
    parse,
    validate,
)
from graphql.execution.values import get_variable_values
from pydantic import TypeAdapter

PROJECT = Path(__file__).resolve().parents[2]
OPERATIONS = PROJECT / "graphql" / "operations"
DOCUMENTS = sorted(path.stem for path in OPERATIONS.glob("*.graphql"))
SIDECAR = TypeAdapter(dict[str, dict[str, object]])


@pytest.fixture(scope="module")
def schema() -> GraphQLSchema:
    return build_schema((PROJECT / "schema.graphql").read_text())


def document_of(name: str) -> DocumentNode:
    return parse((OPERATIONS / f"{name}.graphql").read_text())


def operations_of(name: str) -> dict[str, OperationDefinitionNode]:
    nodes = [node for node in document_of(name).definitions if isinstance(node, OperationDefinitionNode)]
    return {node.name.value: node for node in nodes if node.name}


def variables_of(name: str) -> dict[str, dict[str, object]]:
    return SIDECAR.validate_json((OPERATIONS / f"{name}.variables.json").read_text())


def test_there_is_a_document_for_a_trader_an_admin_and_a_bot() -> None:
    assert {"trader", "admin", "bot"} <= set(DOCUMENTS)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_document_is_valid(name: str, schema: GraphQLSchema) -> None:
    assert validate(schema, document_of(name)) == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_operation_has_values_for_just_its_variables(name: str, schema: GraphQLSchema) -> None:
    values = variables_of(name)
    declared = {
        operation: [variable.variable.name.value for variable in node.variable_definitions or ()]
        for operation, node in operations_of(name).items()
    }

    assert {operation: list(given) for operation, given in values.items()} == declared
    for operation, node in operations_of(name).items():
        coerced = get_variable_values(schema, list(node.variable_definitions or ()), values[operation])
        assert not isinstance(coerced, list), f"{operation}: {coerced}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_variable_means_the_same_in_a_whole_document(name: str) -> None:
    merged: dict[str, object] = {}
    for operation, given in variables_of(name).items():
        for variable, value in given.items():
            assert merged.setdefault(variable, value) == value, f"{operation}: {variable} = {json.dumps(value)}"


def test_names_of_operations_are_unique() -> None:
    names = [operation for name in DOCUMENTS for operation in operations_of(name)]

    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_document_asks_changes_and_follows(name: str) -> None:
    assert {node.operation for node in operations_of(name).values()} == set(OperationType)


def test_every_stream_is_followed_somewhere(schema: GraphQLSchema) -> None:
    streams = {
        selection.name.value
        for name in DOCUMENTS
        for node in operations_of(name).values()
        if node.operation is OperationType.SUBSCRIPTION
        for selection in node.selection_set.selections
        if isinstance(selection, FieldNode)
    }

    assert schema.subscription_type is not None
    assert streams == set(schema.subscription_type.fields)
