"""Execution answers exactly as graphql-core does, whatever is selected and however it fails."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest
from graphql import ExecutionResult, GraphQLError, execute, parse, validate
from strawberry.execution import optimized_is_awaitable

from api.context import Context
from api.executor import Operation, _attribute, is_awaitable
from api.input_building import compile_inputs
from api.operation_cache import OperationCache, ReadyOperation
from tests.api.edge import ALICE, done, schema, stub_services

DOCUMENTS = [
    "{ hello }",
    '{ hello(name: "x") again: hello who rate client }',
    "{ __typename item { __typename name maybe inner { name inner { name } } } }",
    "{ item { items { nodes { name maybe } } } }",
    "{ listed { name maybe items(first: 2) { nodes { name inner { name } } } } who }",
    'query($n: Int, $name: String = "default") { items(first: $n) { nodes { name } } hello(name: $name) }',
    "query($n: Int!) { items(first: $n) { nodes { ...F } } } fragment F on Item { name ... on Item { maybe } }",
    "query($yes: Boolean!) { hello @include(if: $yes) who @skip(if: $yes) item { name @include(if: $yes) maybe } }",
    "{ hello @include(if: false) who @skip(if: false) }",
    "{ ...A ...B } fragment A on Query { item { name } } fragment B on Query { item { maybe inner { name } } }",
    "query($order: OrderInput!) { required(order: $order) }",
    "query($shares: Decimal!, $tags: [String!]) { required(order: {shares: $shares, tags: $tags}) }",
    'query($side: String) { required(order: {shares: "1", side: $side}) }',
    '{ required(order: {shares: "1"}) }',
    '{ fails(how: "forbidden") hello }',
    '{ fails(how: "coded") other: fails(how: "unexpectedly") }',
    "{ item { broken } hello }",
    "{ listed { name broken } who }",
    "{ item { items { nodes { name broken } } } hello }",
    'mutation { note(text: "a") }',
    'mutation { a: note(text: "1") b: note(text: "2") c: note(text: "3") }',
    "mutation($order: OrderInput!) { place(order: $order) }",
    '{ __schema { queryType { name } } __type(name: "Item") { fields { name type { name kind ofType { name } } } } }',
]
VARIABLES: list[dict[str, Any]] = [
    {},
    {
        "n": 3,
        "name": "n",
        "yes": True,
        "order": {"shares": "1.5", "seq": 7},
        "shares": 2,
        "tags": ["a"],
        "side": "SELL",
    },
    {"n": None, "yes": False, "order": {"shares": 1, "seq": None, "tags": "x"}, "shares": "3", "side": None},
    {"n": "x", "yes": 1, "order": {"shares": 1.5}, "shares": None},
    {"order": {"shares": "1", "nosuch": 1}, "n": 2**40},
]


def context() -> Context:
    return Context(principal=ALICE, services=stub_services(), request_id="r", client_ip="c")


def told(errors: list[GraphQLError] | None) -> list[tuple[object, ...]]:
    return sorted(
        (error.message, str(error.path), [(at.line, at.column) for at in error.locations or ()])
        for error in errors or ()
    )


@pytest.mark.parametrize("variables", VARIABLES)
@pytest.mark.parametrize("text", DOCUMENTS)
async def test_answers_are_graphql_cores(text: str, variables: dict[str, Any]) -> None:
    document = parse(text)
    assert validate(schema._schema, document) == []
    done.clear()
    expected = execute(
        schema._schema,
        document,
        context_value=context(),
        variable_values=variables,
        executor_class=schema.execution_context_class,
        is_awaitable=optimized_is_awaitable,  # type: ignore[arg-type]
    )
    expected = await expected if inspect.isawaitable(expected) else expected
    effects = list(done)
    ready = OperationCache(schema._schema).document(text).operation(None)
    assert isinstance(ready, ReadyOperation)
    for _ in range(3):  # the first run makes the plans that the later ones use
        done.clear()
        actual = await run(ready.operation, variables)

        assert actual.data == expected.data
        assert told(actual.errors) == told(expected.errors)
        assert done == effects


async def run(operation: Operation, variables: dict[str, Any]) -> ExecutionResult:
    values = operation.coerce_variables(variables)
    if isinstance(values, list):
        return ExecutionResult(None, values)
    result = operation.execute(context(), values)
    return result if isinstance(result, ExecutionResult) else await result


async def test_the_order_of_fields_is_that_of_the_document() -> None:
    ready = OperationCache(schema._schema).document("{ who hello item { maybe name } rate }").operation(None)
    assert isinstance(ready, ReadyOperation)

    result = await run(ready.operation, {})

    assert result.data is not None
    assert list(result.data) == ["who", "hello", "item", "rate"]
    assert list(result.data["item"]) == ["maybe", "name"]


def test_a_wrapped_resolver_is_never_passed_by() -> None:
    item = schema._schema.type_map["Item"]
    field = item.fields["name"]  # type: ignore[attr-defined]
    resolve: Callable[..., Any] = field.resolve
    assert _attribute(field) == "name"

    @wraps(resolve)
    def gate(*_: object, **__: object) -> str:
        return "gated"

    field.resolve = gate
    try:
        assert _attribute(field) is None
        ready = OperationCache(schema._schema).document("{ item { name } }").operation(None)
        assert isinstance(ready, ReadyOperation)
        values = ready.operation.coerce_variables({})
        assert not isinstance(values, list)
        result = ready.operation.execute(context(), values)
        assert isinstance(result, ExecutionResult)
        assert result.data == {"item": {"name": "gated"}}
    finally:
        field.resolve = resolve


async def test_awaitables_are_told_by_their_type() -> None:
    async def coroutine() -> None: ...

    class Own:
        def __await__(self) -> Any: ...

    pending = coroutine()
    assert is_awaitable(pending)
    await pending
    assert is_awaitable(Own())
    assert not any(is_awaitable(value) for value in (None, 1, "x", [], {}, object(), ValueError(), Own))


async def test_inputs_that_are_built_by_compiled_code_are_those_that_strawberry_builds() -> None:
    query = "query($order: OrderInput!) { required(order: $order) }"
    values = [
        {"shares": "1"},
        {"shares": "1", "side": "SELL", "seq": 3, "tags": ["a", "b"]},
        {"shares": "1", "seq": None, "tags": []},
    ]
    definition = schema.schema_converter.type_map["OrderInput"].definition
    definition.from_input = None  # type: ignore[union-attr]
    stock = [(await schema.execute(query, {"order": value}, context())).data for value in values]
    compile_inputs(schema)
    assert definition.from_input is not None  # type: ignore[union-attr]
    compiled = [(await schema.execute(query, {"order": value}, context())).data for value in values]

    assert compiled == stock
    assert stock[0] == {"required": "1 BUY UNSET []"}
