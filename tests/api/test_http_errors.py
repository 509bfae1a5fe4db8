"""Every error has a code and the request's id; what nobody expected is masked, logged, and told by that id alone."""

import json

import pytest
import structlog

from tests.api.edge import FAILING_TOKEN, GOOD_TOKEN, Edge, done, make_edge

GRAPHQL = "application/graphql-response+json"


@pytest.fixture
def edge() -> Edge:
    return make_edge()


@pytest.mark.parametrize(
    ("how", "extensions", "message"),
    [
        ("forbidden", {"code": "FORBIDDEN"}, "This takes the scope TRADE."),
        ("unauthenticated", {"code": "UNAUTHENTICATED"}, "Log in first."),
        ("refused", {"code": "OVERLOADED", "retryable": True, "retryAfterMs": 1000}, "Too many orders wait."),
        ("invalid", {"code": "BAD_USER_INPUT", "field": ["first"]}, "first must be at least 0; got -1."),
        ("coded", {"code": "BAD_USER_INPUT"}, "No such cursor."),
        ("unexpectedly", {"code": "INTERNAL_SERVER_ERROR"}, "Internal error; quote request id the-id."),
        ("uncoded", {"code": "INTERNAL_SERVER_ERROR"}, "Internal error; quote request id the-id."),
        (
            "passing",
            {"code": "SERVICE_UNAVAILABLE", "retryable": True, "retryAfterMs": 1000},
            "The service is away for a moment; send the same again, with the same key. Request id the-id.",
        ),
    ],
)
async def test_what_a_field_ends_with_is_told_by_code(
    edge: Edge, how: str, extensions: dict[str, object], message: str
) -> None:
    reply = await edge.post(f'{{ fails(how: "{how}") }}', x_request_id="the-id", accept=GRAPHQL)

    assert reply.status == 200
    assert reply.json["data"] == {"fails": None}
    assert reply.error == {
        "message": message,
        "extensions": {**extensions, "requestId": "the-id"},
        "locations": [{"line": 1, "column": 3}],
        "path": ["fails"],
    }


async def test_a_masked_error_is_logged_whole_with_its_request_id(edge: Edge) -> None:
    with structlog.testing.capture_logs() as logs:
        await edge.post('query Q { fails(how: "unexpectedly") }', x_request_id="quote-me")

    (entry,) = logs
    error = entry.pop("exc_info")
    assert isinstance(error, RuntimeError)
    assert error.__traceback__ is not None
    assert entry == {
        "event": "request.failed",
        "log_level": "error",
        "request_id": "quote-me",
        "operation": "Q",
        "path": ["fails"],
    }


async def test_errors_deep_in_lists_keep_their_path_and_their_siblings(edge: Edge) -> None:
    reply = await edge.post("{ listed { name inner { broken } } hello }", x_request_id="i")

    assert reply.json["data"] is None
    assert [error["path"] for error in reply.json["errors"]] == [["listed", 0, "inner", "broken"]]
    assert "secret" not in reply.body.decode()


async def test_an_answer_that_is_no_text_is_an_internal_error(edge: Edge) -> None:
    reply = await edge.post("{ unencodable }", x_request_id="i")

    assert (reply.status, reply.code) == (500, "INTERNAL_SERVER_ERROR")


@pytest.mark.parametrize(
    ("query", "code", "message"),
    [
        ("{", "GRAPHQL_PARSE_FAILED", "Syntax Error: Expected Name, found <EOF>."),
        ("{ helo }", "GRAPHQL_VALIDATION_FAILED", "Cannot query field 'helo' on type 'Query'. Did you mean 'hello'?"),
        ("query A { hello } query B { hello }", "OPERATION_RESOLUTION_FAILED", "choose by operationName: 'A, B'."),
        ("query($n: String!) { hello(name: $n) }", "BAD_USER_INPUT", "Variable '$n' has invalid value"),
        ('{ hello(name: "\\u0000") }', "GRAPHQL_VALIDATION_FAILED", "escape \\u0000"),
    ],
)
async def test_a_request_that_cannot_be_executed_has_no_data(edge: Edge, query: str, code: str, message: str) -> None:
    for accept, status in (("application/json", 200), (GRAPHQL, 400)):
        reply = await edge.post(query, accept=accept, x_request_id="i")

        assert (reply.status, reply.code) == (status, code)
        assert message in reply.error["message"]
        assert reply.error["extensions"]["requestId"] == "i"
        assert "data" not in reply.json


# ------------------------------------------------------------------------------------------------ bad values


@pytest.mark.parametrize(
    ("shares", "quoted"),
    [
        ('"NaN"', "'NaN'"),
        ('"1e400"', "'1e400'"),
        ('""', "''"),
        ('"１２"', "'１２'"),
        ('"' + "9" * 10_000 + '"', "(10000 characters)"),
        ("1.5", "1.5"),
        ("1e400", "1e400"),
        ("-0.0", "-0.0"),
        ("1" * 5_000, f"got the integer '{'1' * 40}...'"),
        ("-" + "1" * 5_000, f"got the integer '-{'1' * 39}...'"),
        ("null", "not to be None"),
        ("true", "true"),
        ("[]", "a list"),
        ('{"x": 1}', "an object"),
    ],
)
async def test_a_bad_decimal_is_quoted_and_its_field_named(edge: Edge, shares: str, quoted: str) -> None:
    query = "mutation($order: OrderInput!) { place(order: $order) }"
    body = json.dumps({"query": query, "variables": {"order": {"shares": "@"}}}).replace('"@"', shares)
    reply = await edge.raw(body.encode(), accept=GRAPHQL)

    assert (reply.status, reply.code) == (400, "BAD_USER_INPUT")
    assert reply.error["message"].startswith("Variable '$order' has invalid value at .shares: ")
    assert quoted in reply.error["message"]
    assert len(reply.error["message"]) < 300
    assert done == []


@pytest.mark.parametrize("literal", ["1.5", "1e400", "true", '"1e5"', "1" * 5_000, '"' + "9" * 10_000 + '"', "NaN"])
async def test_a_bad_decimal_in_the_document_is_told_shortly(edge: Edge, literal: str) -> None:
    reply = await edge.post(f"mutation {{ place(order: {{shares: {literal}}}) }}", accept=GRAPHQL)

    assert (reply.status, reply.code) == (400, "GRAPHQL_VALIDATION_FAILED")
    assert literal.strip('"')[:20] in reply.error["message"]
    assert len(reply.error["message"]) < 600
    assert done == []


@pytest.mark.parametrize("seq", ["1" * 5_000, "9007199254740992", "1.0", "-1"])
async def test_integers_beyond_their_range_are_refused_not_rounded(edge: Edge, seq: str) -> None:
    query = "mutation($order: OrderInput!) { place(order: $order) }"
    body = json.dumps({"query": query, "variables": {"order": {"shares": "1", "seq": "@"}}}).replace('"@"', seq)
    reply = await edge.raw(body.encode())

    assert reply.code == "BAD_USER_INPUT"
    assert "at .seq" in reply.error["message"]
    assert done == []


async def test_the_largest_integer_arrives_exactly(edge: Edge) -> None:
    query = "query($order: OrderInput!) { required(order: $order) }"
    reply = await edge.post(query, {"order": {"shares": 9007199254740993, "seq": 9007199254740991}})

    assert reply.json == {"data": {"required": "9007199254740993 BUY 9007199254740991 []"}}


async def test_a_long_unknown_field_of_an_input_is_cut(edge: Edge) -> None:
    query = "query($order: OrderInput!) { required(order: $order) }"
    reply = await edge.post(query, {"order": {"shares": "1", "x" * 10_000: 1}})

    assert reply.code == "BAD_USER_INPUT"
    assert "unknown field 'xxx" in reply.error["message"]
    assert "... (10003 characters)" in reply.error["message"]
    assert len(reply.error["message"]) <= 503


async def test_deeply_nested_variables_are_refused(edge: Edge) -> None:
    body = (
        b'{"query": "query($o: OrderInput!) { required(order: $o) }", "variables": {"o": '
        + b"[" * 400
        + b"]" * 400
        + b"}}"
    )
    reply = await edge.raw(body)

    assert reply.code == "BAD_USER_INPUT"


# ------------------------------------------------------------------------------------------------ who asks


async def test_a_good_token_says_who_asks(edge: Edge) -> None:
    assert (await edge.post("{ who }")).json == {"data": {"who": "nobody"}}
    assert (await edge.post("{ who }", token=GOOD_TOKEN)).json == {"data": {"who": "account 7"}}
    assert (await edge.post("{ who }", authorization=f"bearer  {GOOD_TOKEN}")).json == {"data": {"who": "account 7"}}


@pytest.mark.parametrize(
    "authorization",
    ["Basic YTpi", "Bearer", "Bearer ", GOOD_TOKEN, "Bearer " + "x" * 600, "Bearer é", "Bearer unknown"],
)
@pytest.mark.parametrize("accept", ["application/json", GRAPHQL])
async def test_any_other_authorization_is_401_and_nothing_is_done(edge: Edge, authorization: str, accept: str) -> None:
    reply = await edge.post('mutation { note(text: "x") }', authorization=authorization, accept=accept)

    assert (reply.status, reply.code) == (401, "UNAUTHENTICATED")
    assert reply.headers["www-authenticate"] == 'Bearer realm="megatron"'
    assert reply.error["message"].endswith("must come without the Authorization header.")
    assert authorization.rsplit(maxsplit=1)[-1] not in reply.body.decode() or authorization.startswith("Bearer")
    assert done == []


async def test_when_nobody_can_say_who_asks_the_answer_is_503_and_retryable(edge: Edge) -> None:
    reply = await edge.post("{ who }", token=FAILING_TOKEN, x_request_id="i")

    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert reply.error == {
        "message": "The service is away for a moment; send the same again, with the same key. Request id i.",
        "extensions": {"code": "SERVICE_UNAVAILABLE", "requestId": "i", "retryable": True, "retryAfterMs": 1000},
    }


# ------------------------------------------------------------------------------------------------ request ids


@pytest.mark.parametrize("given", ["a", "x" * 64, "7f0c-~!"])
async def test_a_clients_request_id_is_kept(edge: Edge, given: str) -> None:
    reply = await edge.post("{ client }", x_request_id=given)

    assert reply.headers["x-request-id"] == given
    assert reply.json == {"data": {"client": f"127.0.0.1 {given}"}}


@pytest.mark.parametrize("given", ["", "x" * 65, "with space", "é", "tab\there"])
async def test_any_other_gets_one_of_its_own(edge: Edge, given: str) -> None:
    first, second = [(await edge.post("{ hello }", x_request_id=given)).headers["x-request-id"] for _ in range(2)]

    assert given not in (first, second)
    assert first != second
    assert len(first) <= 64


async def test_errors_are_counted_by_code_and_operations_by_name(edge: Edge) -> None:
    await edge.post("query Known { hello }")
    await edge.post("{ nosuch }")

    metrics = edge.services.metrics.render().decode()
    assert 'megatron_graphql_seconds_count{operation="Known"} 1.0' in metrics
    assert 'megatron_graphql_errors_total{code="GRAPHQL_VALIDATION_FAILED"} 1.0' in metrics
