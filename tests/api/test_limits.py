"""What operations may ask for at most, measured before anything is executed."""

import re
import time
from math import inf, nan
from typing import Any
from unittest.mock import patch

import pytest
from graphql import (
    FragmentDefinitionNode,
    GraphQLSchema,
    OperationDefinitionNode,
    build_schema,
    get_introspection_query,
    parse,
)

from api import operation_cache
from api.limits import (
    ALIASES_MAX,
    CANDLES_ASSUMED,
    COST_MAX,
    COUNT_BACK_MAX,
    DEPTH_MAX,
    LIST_PRODUCT_MAX,
    LIST_SIZE_MAX,
    ROOT_FIELDS_MAX,
    SAME_ALIAS_MAX,
    SAME_NAME_MAX,
    SELECTIONS_MAX,
    TOKENS_MAX,
    VARIABLE_LISTS_MAX,
    Complexity,
    TooComplex,
    check_document,
    measure,
)
from api.operation_cache import Document, RequestFault
from api.schema import schema as market_schema
from tests.api.edge import done, make_edge
from tests.api.edge import schema as edge_schema

SCHEMA = build_schema(
    """
    type Query {
      item: Item
      items(first: Int, last: Int, ids: [ID!]): ItemConnection!
      page(first: Int! = 100): [Item!]!
      candles(countBack: Int): [Item!]!
      plain: [Item!]!
    }
    type Mutation { do: Int }
    type Item { name: String item: Item items(first: Int = 20): ItemConnection! plain: [Item!]! }
    type ItemConnection { nodes: [Item!]! edges: [Edge!]! totalCount: Int }
    type Edge { node: Item }
    """
)


def measured(document: str, *, schema: GraphQLSchema = SCHEMA) -> Complexity:
    definitions = parse(document).definitions
    check_document(definitions)
    (operation,) = [each for each in definitions if isinstance(each, OperationDefinitionNode)]
    fragments = {each.name.value: each for each in definitions if isinstance(each, FragmentDefinitionNode)}
    return measure(schema, operation, fragments)


def refusal(document: str, variables: dict[str, Any] | None = None) -> str:
    with pytest.raises(TooComplex) as refused:
        measured(document).points(variables or {})
    return str(refused.value).removeprefix("The operation is too complex: ").removesuffix(" allowed.")


def fields(document: str, variables: dict[str, Any] | None = None) -> int:
    return measured(document).cost.evaluate(variables or {})[0]


def nested(depth: int) -> str:
    return "{" + "item {" * (depth - 1) + "item { name }" + "}" * depth


# ------------------------------------------------------------------------------------------------ shape


def test_depth_is_the_number_of_fields_inside_one_another() -> None:
    assert measured(nested(DEPTH_MAX - 1)).points({}) == 1
    assert refusal(nested(DEPTH_MAX)) == f"depth {DEPTH_MAX + 1}, at most {DEPTH_MAX}"


def test_depth_counts_through_fragments() -> None:
    half = "item {" * 8 + "name" + "}" * 8
    document = "{ " + "item { " * 8 + "...F" + " }" * 8 + " } fragment F on Item { " + half + " }"

    assert refusal(document) == f"depth 17, at most {DEPTH_MAX}"


def test_root_fields_are_counted_with_those_of_fragments() -> None:
    many = " ".join(f"a{number}: item {{ name }}" for number in range(ROOT_FIELDS_MAX))

    assert measured(f"{{ {many} }}").root_fields == ROOT_FIELDS_MAX
    assert refusal(f"{{ ...F item {{ name }} }} fragment F on Query {{ ... {{ {many} }} }}") == (
        f"root fields {ROOT_FIELDS_MAX + 1}, at most {ROOT_FIELDS_MAX}"
    )


def test_aliases_are_counted_wherever_they_are_used() -> None:
    aliases = " ".join(f"a{number}: name" for number in range(ALIASES_MAX // 2))

    assert measured(f"{{ item {{ {aliases} item {{ {aliases} }} }} }}").points({}) == 1
    assert refusal(f"{{ item {{ ...F item {{ ...F b: name }} }} }} fragment F on Item {{ {aliases} }}") == (
        f"aliases {ALIASES_MAX + 1}, at most {ALIASES_MAX}"
    )


def test_a_document_with_too_many_selections_is_refused_before_it_is_validated() -> None:
    assert refusal("{ item {" + " name" * SELECTIONS_MAX + " } }") == (
        f"fields and fragments of the document {SELECTIONS_MAX + 1}, at most {SELECTIONS_MAX}"
    )


@pytest.mark.parametrize(
    ("selection", "most", "what"),
    [
        ("name", SAME_NAME_MAX, "fields of one name in the document"),
        ("item: name", SAME_ALIAS_MAX, "uses of one alias in the document"),
        ("a: items(first: 1) { totalCount }", SAME_ALIAS_MAX, "uses of one alias in the document"),
    ],
)
def test_fields_of_one_name_are_counted_over_the_whole_document(selection: str, most: int, what: str) -> None:
    def document(count: int) -> str:
        here = f" {selection}" * (count // 3)
        rest = f" {selection}" * (count - 2 * (count // 3))
        return f"{{ page {{ {here} }} plain {{ ... on Item {{ {here} }} }} }} fragment F on Item {{ {rest} }}"

    check_document(parse(document(most)).definitions)
    assert refusal(document(most + 1)) == f"{what} {most + 1}, at most {most}"


def test_an_alias_and_a_field_of_its_name_are_one_name() -> None:
    names = " name" * SAME_NAME_MAX

    assert refusal(f"{{ item {{ name: item {{ {names} }} }} }}") == (
        f"fields of one name in the document {SAME_NAME_MAX + 1}, at most {SAME_NAME_MAX}"
    )


@pytest.mark.parametrize(
    ("query", "what"),
    [
        ("{ item { " + "a: name " * 590 + "} }", f"fields of one name in the document 590, at most {SAME_NAME_MAX}"),
        (
            "{ item { " + " ".join(f"a: items(first: {n}) {{ __typename }}" for n in range(150)) + " } }",
            f"fields of one name in the document 150, at most {SAME_NAME_MAX}",
        ),
        ("{ item { " + "a: name " * 31 + "} }", f"uses of one alias in the document 31, at most {SAME_ALIAS_MAX}"),
        ("{ " + "hello " * 590 + "}", f"root fields 590, at most {ROOT_FIELDS_MAX}"),
        ("query A { hello } query B { " + "hello " * 21 + "}", f"root fields 21, at most {ROOT_FIELDS_MAX}"),
        ("{ item { " + "nosuch " * 601 + "} }", f"fields and fragments of the document 602, at most {SELECTIONS_MAX}"),
    ],
)
def test_what_would_take_long_to_validate_is_refused_before(query: str, what: str) -> None:
    with patch.object(operation_cache, "validate", side_effect=AssertionError("validated")) as validate:
        document = Document(edge_schema._schema, query)

    assert document.faults == (RequestFault("QUERY_TOO_COMPLEX", f"The operation is too complex: {what} allowed."),)
    assert not validate.called
    assert document.operation("B" if "query B" in query else None) == document.faults


def test_fragments_that_double_at_each_level_are_measured_quickly_and_refused() -> None:
    levels = " ".join(
        f"fragment F{n} on Item {{ a{n}: item {{ ...F{n + 1} }} item {{ ...F{n + 1} }} }}" for n in range(60)
    )
    document = f"{{ item {{ ...F0 }} }} {levels} fragment F60 on Item {{ name }}"

    assert refusal(document) == f"depth 62, at most {DEPTH_MAX}"
    flat = re.sub(r"a\d+: item \{ ", "", levels).replace(" } item {", " ... {")
    assert "at most" in refusal(f"{{ item {{ ...F0 }} }} {flat} fragment F60 on Item {{ name item {{ name }} }}")


def test_a_fragment_that_comes_back_to_itself_ends() -> None:
    assert fields("{ item { ...F } } fragment F on Item { name item { ...F } }") == 3


# ------------------------------------------------------------------------------------------------ lists and cost


@pytest.mark.parametrize(
    ("document", "cost"),
    [
        ("{ item { name } }", 2),
        ("{ items { nodes { name } } }", 1 + 50 * 2),
        ("{ items(first: 3) { nodes { name } totalCount } }", 1 + 3 * 3),
        ("{ items(last: 4) { edges { node { name } } } }", 1 + 4 * 3),
        ('{ items(ids: ["a", "b"]) { nodes { name } } }', 1 + 2 * 2),
        ("{ page { name } }", 1 + 100),
        ("{ page(first: 7) { name } }", 1 + 7),
        ("{ plain { name } }", 1 + 10),
        ("{ item { items { nodes { name } } } }", 2 + 20 * 2),
        ("{ items(first: 2) { nodes { items(first: 3) { nodes { name } } } } }", 1 + 2 * (1 + 1 + 3 * 2)),
        ("{ items(first: -5) { nodes { name } } }", 1),
    ],
)
def test_a_list_costs_its_size_times_what_one_of_its_objects_costs(document: str, cost: int) -> None:
    assert fields(document) == cost


def test_sizes_in_variables_are_filled_in_for_each_request() -> None:
    document = (
        "query($n: Int, $ids: [ID!], $m: Int = 5) "
        "{ items(first: $n, ids: $ids) { nodes { items(first: $m) { totalCount } } } }"
    )

    assert fields(document, {"n": 10, "ids": []}) == 1 + 10 * (1 + 1 + 5)
    assert fields(document, {"n": 10, "ids": [], "m": 100}) == 1 + 10 * (1 + 1 + 100)
    assert fields(document, {"n": 1, "ids": ["a", "b", "c"]}) == 1 + 3 * 7
    assert refusal(document, {"n": LIST_SIZE_MAX + 1}) == f"items.first {LIST_SIZE_MAX + 1}, at most {LIST_SIZE_MAX}"
    assert refusal(document, {"ids": [""] * 501}) == f"items.ids 501, at most {LIST_SIZE_MAX}"
    assert refusal(document, {"n": 10**5000}) == f"items.first more than {10**12}, at most {LIST_SIZE_MAX}"


@pytest.mark.parametrize("given", [500, 500.0])
def test_a_float_without_a_fraction_is_a_size(given: float) -> None:
    document = "query($n: Int) { items(first: $n) { nodes { name } } }"

    assert fields(document, {"n": given}) == 1 + 500 * 2
    assert refusal(document, {"n": given + 1}) == f"items.first 501, at most {LIST_SIZE_MAX}"
    assert refusal(document, {"n": 1e300}) == f"items.first more than {10**12}, at most {LIST_SIZE_MAX}"
    assert fields(document, {"n": -given}) == 1


@pytest.mark.parametrize("given", [inf, -inf, nan, 500.5, 1e-9, True, "501", {"n": 501}, None])
def test_what_is_no_size_counts_as_none_and_is_left_to_those_who_refuse_it(given: object) -> None:
    assert fields("query($n: Int) { items(first: $n) { nodes { name } } }", {"n": given}) == 1 + 50 * 2


@pytest.mark.parametrize(
    ("argument", "maximum"),
    [
        ("items(first: {})", LIST_SIZE_MAX),
        ("items(last: {})", LIST_SIZE_MAX),
        ("candles(countBack: {})", COUNT_BACK_MAX),
    ],
)
def test_each_size_has_a_maximum(argument: str, maximum: int) -> None:
    inner = "{ nodes { name } }" if argument.startswith("items") else "{ name }"
    name = argument.replace("(", ".").split(":")[0]

    assert measured(f"{{ {argument.format(maximum)} {inner} }}").points({}) > 1
    assert refusal(f"{{ {argument.format(maximum + 1)} {inner} }}") == f"{name} {maximum + 1}, at most {maximum}"
    assert refusal(f"{{ {argument.format('9' * 5000)} {inner} }}").startswith(f"{name} more than")


def test_lists_within_lists_multiply() -> None:
    document = "query($n: Int) {{ items(first: {}) {{ nodes {{ items(first: {}) {{ totalCount }} }} }} }}"

    assert refusal(document.format(500, 21)) == f"objects in nested lists 10500, at most {LIST_PRODUCT_MAX}"
    assert (
        refusal(document.format(500, "$n"), {"n": 21}) == f"objects in nested lists 10500, at most {LIST_PRODUCT_MAX}"
    )
    assert (
        refusal(document.format("$n", 500), {"n": 21}) == f"objects in nested lists 10500, at most {LIST_PRODUCT_MAX}"
    )


def test_cost_has_a_maximum_and_makes_points() -> None:
    names = " ".join(f"item {{ {'name ' * 4} }}" for _ in range(20))

    assert measured(f"{{ items(first: 100) {{ nodes {{ {names} }} }} }}").points({}) == 1 + (101 * 100 + 1 - 1) // 500
    assert refusal(f"{{ items(first: 500) {{ nodes {{ {names} }} }} }}") == f"cost 50501, at most {COST_MAX}"


def test_each_field_of_a_mutation_is_a_point_at_least() -> None:
    assert measured("mutation { a: do b: do c: do }").points({}) == 3


def test_terms_with_variables_cannot_be_doubled_without_end() -> None:
    levels = " ".join(
        f"fragment F{n} on Item {{ items(first: $n) {{ nodes {{ ...F{n + 1} }} edges {{ node {{ ...F{n + 1} }} }} }} }}"
        for n in range(12)
    )
    document = f"query($n: Int) {{ item {{ ...F0 }} }} {levels} fragment F12 on Item {{ name }}"

    assert refusal(document) == f"lists sized by variables 62, at most {VARIABLE_LISTS_MAX}"


# ------------------------------------------------------------------------------------------------ candles

CANDLES = """query ($count: Int, $from: UnixSeconds, $to: UnixSeconds = 60000, $interval: Interval! = M1) {
  candles(assetId: "x", countBack: $count, from: $from, to: $to, interval: $interval) { candles { time } noData } }"""
ROWS = "{ candles { time open high low close volume trades closed assetId interval } noData nextTime }"


def candles(document: str, variables: dict[str, Any] | None = None) -> int:
    """For how many candles the operation is charged; each costs 3: itself, its fields together, noData."""
    fields, _ = measured(document, schema=market_schema._schema).cost.evaluate(variables or {})
    assert fields % 3 == 1
    return fields // 3


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ("countBack: 7", 7),
        ("countBack: 7, from: 0, to: 60000", 7),
        ("countBack: -7", 0),
        ("from: 0, to: 60000", 1_000),
        ("from: 1, to: 61", 1),
        ("from: 60, to: 0", 0),
        ("from: 0, to: 999999999", COUNT_BACK_MAX),
        ("from: 0", COUNT_BACK_MAX),
        ("to: 60", CANDLES_ASSUMED),
        ("countBack: null", CANDLES_ASSUMED),
        ("from: null, to: 60", CANDLES_ASSUMED),
        ('from: "0", to: 60', CANDLES_ASSUMED),
    ],
)
def test_candles_cost_as_many_as_there_may_be(arguments: str, count: int) -> None:
    assert candles(f'{{ candles(assetId: "x", interval: M1, {arguments}) {{ candles {{ time }} noData }} }}') == count


@pytest.mark.parametrize(
    ("variables", "count"),
    [
        ({}, CANDLES_ASSUMED),
        ({"count": 9}, 9),
        ({"count": 9.0, "from": 0}, 9),
        ({"count": None, "from": 0}, 1_000),
        ({"from": 30_000}, 500),
        ({"from": 30_000, "to": 30_000.0}, 0),
        ({"from": 0, "interval": "H1"}, 17),
        ({"from": 0, "interval": "H2"}, CANDLES_ASSUMED),
        ({"from": 0, "interval": 3}, CANDLES_ASSUMED),
        ({"from": True}, CANDLES_ASSUMED),
        ({"from": 0, "to": None}, COUNT_BACK_MAX),
        ({"from": 10**40}, 0),
        ({"from": inf}, CANDLES_ASSUMED),
    ],
)
def test_what_candles_are_asked_for_may_come_in_variables(variables: dict[str, Any], count: int) -> None:
    assert candles(CANDLES, variables) == count


def test_the_candles_up_to_now_are_counted_when_they_are_asked_for() -> None:
    now = int(time.time())

    document = f'{{ candles(assetId: "x", interval: M1, from: {now - 6_000}) {{ candles {{ time }} noData }} }}'

    assert 100 <= candles(document) <= 102


def test_as_many_candles_as_there_may_be_can_be_asked_for_with_all_their_fields() -> None:
    document = f'{{ candles(assetId: "x", interval: M1, countBack: %s) {ROWS} }}'

    def points(count: int) -> int:
        return measured(document % count, schema=market_schema._schema).points({})

    # itself, ten fields for the cost of two, noData, nextTime
    assert [points(count) for count in (1, 500, COUNT_BACK_MAX)] == [1, 6, 51]
    with pytest.raises(TooComplex, match=rf"candles.countBack {COUNT_BACK_MAX + 1}, at most {COUNT_BACK_MAX} allowed"):
        points(COUNT_BACK_MAX + 1)


def test_ticks_cost_what_their_first_says() -> None:
    document = '{ ticks(assetId: "x", afterSeq: 0%s) { seq at } }'

    def cost(first: str) -> int:
        return measured(document % first, schema=market_schema._schema).cost.evaluate({})[0]

    assert [cost(first) for first in ("", ", first: 3")] == [1 + 500 * 2, 1 + 3 * 2]
    with pytest.raises(TooComplex, match=r"ticks.first 501, at most 500 allowed"):
        cost(", first: 501")


# ------------------------------------------------------------------------------------------------ introspection


def test_the_full_introspection_passes_on_the_real_schema() -> None:
    document = get_introspection_query(
        specified_by_url=True, directive_is_repeatable=True, schema_description=True, input_value_deprecation=True
    )

    assert measured(document, schema=market_schema._schema).points({}) == 2


def test_introspection_has_limits_of_its_own() -> None:
    deep = "ofType { " * 19 + "name" + " }" * 19
    assert "depth of the introspection 21, at most 20" in refusal(f'{{ __type(name: "Item") {{ {deep} }} }}')
    lists = " ".join("fields { name }" for _ in range(31))
    assert refusal(f'{{ __type(name: "Item") {{ {lists} }} }}') == "lists of the introspection 31, at most 30"


# ------------------------------------------------------------------------------------------------ on HTTP


@pytest.mark.parametrize(
    ("query", "variables", "message"),
    [
        ("{ " + "hello " * (TOKENS_MAX + 1) + "}", None, f"more than {TOKENS_MAX} tokens"),
        ("#\n" * 600 + "{ hello }", None, "more than 500 comments"),
        ("{ hello }" + " " * 100_000, None, "more than 100000 code points"),
        ("{ items(first: 501) { nodes { name } } }", None, "items.first 501, at most 500"),
        ("query($n: Int) { items(first: $n) { nodes { name } } }", {"n": 501}, "items.first 501, at most 500"),
        ("query($n: Int) { items(first: $n) { nodes { name } } }", {"n": 501.0}, "items.first 501, at most 500"),
        (
            "mutation { " + " ".join(f'a{n}: note(text: "x")' for n in range(21)) + " }",
            None,
            "root fields 21, at most 20",
        ),
    ],
)
async def test_what_is_too_complex_is_refused_with_numbers_and_not_executed(
    query: str, variables: dict[str, Any] | None, message: str
) -> None:
    edge = make_edge()
    for accept, status in (("application/json", 200), ("application/graphql-response+json", 400)):
        reply = await edge.post(query, variables, accept=accept)

        assert (reply.status, reply.code) == (status, "QUERY_TOO_COMPLEX")
        assert message in reply.error["message"]
    assert done == []


@pytest.mark.parametrize("size", ["5e2", "500.0", "50e1"])
async def test_a_size_written_with_an_exponent_or_a_point_is_that_size(size: str) -> None:
    query = '"query($n: Int) { items(first: $n) { nodes { name } } }"'

    reply = await make_edge().raw(f'{{"query": {query}, "variables": {{"n": {size}}}}}'.encode())

    assert reply.status == 200
    assert len(reply.json["data"]["items"]["nodes"]) == 500


@pytest.mark.parametrize("size", ["1e400", "-1e400", "500.5", "true"])
async def test_what_is_no_size_is_refused_as_a_variable(size: str) -> None:
    query = '"query($n: Int) { items(first: $n) { nodes { name } } }"'

    reply = await make_edge().raw(f'{{"query": {query}, "variables": {{"n": {size}}}}}'.encode())

    assert (reply.status, reply.code) == (200, "BAD_USER_INPUT")
    assert "$n" in reply.error["message"]
    assert "data" not in reply.json
