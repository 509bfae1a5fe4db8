"""Documents are read once, kept by their text, and forgotten when there are too many."""

from unittest.mock import patch

import pytest
from graphql import OperationType

from api import operation_cache
from api.operation_cache import OperationCache, ReadyOperation, RequestFault
from benchmarks.graphql_operation import ratio, small_query_us
from tests.api.edge import schema

HELLO = "{ hello }"


@pytest.fixture
def cache() -> OperationCache:
    return OperationCache(schema._schema)


def test_a_document_that_comes_again_is_neither_parsed_nor_validated_nor_measured(cache: OperationCache) -> None:
    first = cache.document(HELLO).operation(None)
    with (
        patch.object(operation_cache, "parse") as parse,
        patch.object(operation_cache, "validate") as validate,
        patch.object(operation_cache, "measure") as measure,
    ):
        again = cache.document("".join(["{ ", "hello }"])).operation(None)

    assert isinstance(first, ReadyOperation)
    assert again is first
    assert (parse.called, validate.called, measure.called) == (False, False, False)


@pytest.mark.parametrize("bad", ["{", "{ nosuch }", "{ " + "hello " * 3_000 + "}", "{ " + "hello " * 700 + "}"])
def test_what_is_wrong_with_a_document_is_kept_too(cache: OperationCache, bad: str) -> None:
    faults = cache.document(bad).operation(None)
    with patch.object(operation_cache, "parse") as parse, patch.object(operation_cache, "validate") as validate:
        assert cache.document(bad).operation(None) == faults

    assert isinstance(faults, tuple)
    assert (parse.called, validate.called) == (False, False)


def test_operations_of_one_document_are_chosen_by_name(cache: OperationCache) -> None:
    document = cache.document('query A { hello } mutation B { note(text: "") } fragment F on Query { hello }')
    assert document.operation("A") == document.operation("B")  # both: the fragment is never used

    document = cache.document('query A { hello } mutation B { note(text: "") }')
    ready = document.operation("B")
    assert isinstance(ready, ReadyOperation)
    assert (ready.operation.name, ready.operation.kind) == ("B", OperationType.MUTATION)
    assert (document.kind("A"), document.kind("B"), document.kind(None)) == (
        OperationType.QUERY,
        OperationType.MUTATION,
        None,
    )
    assert document.operation("C") == (
        RequestFault("OPERATION_RESOLUTION_FAILED", "The document has no operation named 'C'; it has: 'A, B'."),
    )


def test_the_kind_of_an_invalid_operation_is_known(cache: OperationCache) -> None:
    assert cache.document("subscription { nosuch }").kind(None) is OperationType.SUBSCRIPTION


def test_faults_have_codes_and_places(cache: OperationCache) -> None:
    assert cache.document("{ hello\n  nosuch }").faults == (
        RequestFault("GRAPHQL_VALIDATION_FAILED", "Cannot query field 'nosuch' on type 'Query'.", ((2, 3),)),
    )


def test_the_least_recently_used_document_goes_first() -> None:
    cache = OperationCache(schema._schema, entries_max=2)
    first = cache.document("{ a: hello }")
    cache.document("{ b: hello }")
    cache.document("{ a: hello }")
    cache.document("{ c: hello }")

    assert len(cache) == 2
    assert cache.document("{ a: hello }") is first


def test_memory_is_bounded_and_accounted_for() -> None:
    cache = OperationCache(schema._schema, memory_max_bytes=20_000)
    for number in range(50):
        cache.document(f"{{ a{number}: hello }}")

    kept = list(cache._documents.values())
    assert 1 < len(cache) < 50
    assert cache.memory_bytes == sum(document.memory_bytes for document in kept) <= 20_000


def test_a_document_larger_than_all_memory_is_answered_and_not_kept() -> None:
    cache = OperationCache(schema._schema, memory_max_bytes=1_000)

    assert isinstance(cache.document(HELLO).operation(None), ReadyOperation)
    assert (len(cache), cache.memory_bytes) == (0, 0)


def test_unknown_operation_names_leave_nothing_behind(cache: OperationCache) -> None:
    document = cache.document("query A { hello }")
    for number in range(100):
        document.operation(f"X{number}")

    assert document._ready == {}


async def test_a_repeated_small_query_costs_at_most_a_quarter_of_stock_strawberrys() -> None:
    ours, stock = await small_query_us(rounds=3)

    assert ratio(ours, stock) < 0.25
