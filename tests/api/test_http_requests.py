"""Bodies, query strings and media types: what is taken, and how the rest is refused. Nothing is a raw 500."""

import asyncio
import json
from unittest.mock import patch

import pytest
import structlog
from starlette.types import Message, Receive, Scope, Send

from api import http_request, operations
from api.http import GraphQLEndpoint
from api.http_request import BODY_BYTES_MAX
from api.operations import IN_FLIGHT_MAX
from tests.api.edge import FAILING_TOKEN, GOOD_TOKEN, NO_REPLY, Edge, done, make_edge

GRAPHQL = "application/graphql-response+json"
UTF8 = "; charset=utf-8"


@pytest.fixture
def edge() -> Edge:
    return make_edge()


# ------------------------------------------------------------------------------------------------ media types


@pytest.mark.parametrize(
    ("accept", "answered"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("application/json", "application/json"),
        (GRAPHQL, GRAPHQL),
        (f"{GRAPHQL}, application/json;q=0.9", GRAPHQL),
        (f"application/json;q=0.9, {GRAPHQL}", GRAPHQL),
        (f"application/json, {GRAPHQL};q=0.5", "application/json"),
        (f"{GRAPHQL}; charset=utf-8", GRAPHQL),
        ("Application/JSON", "application/json"),
        ("text/html, */*;q=0.1", "application/json"),
        (f"{GRAPHQL};q=0, */*", "application/json"),
    ],
)
async def test_the_answer_has_the_media_type_that_the_client_prefers(
    edge: Edge, accept: str | None, answered: str
) -> None:
    reply = await edge.post("{ hello }", **({} if accept is None else {"accept": accept}))

    assert (reply.status, reply.headers["content-type"]) == (200, answered + UTF8)
    assert reply.json == {"data": {"hello": "hello world"}}


@pytest.mark.parametrize(
    "accept", ["text/html", "application/json;q=0", "application/xml, image/*", "application/json; charset=latin-1", ""]
)
async def test_a_client_that_takes_neither_media_type_gets_406(edge: Edge, accept: str) -> None:
    reply = await edge.post("{ hello }", accept=accept)

    assert (reply.status, reply.code) == (406, "NOT_ACCEPTABLE")
    assert f"'{accept}'" in reply.error["message"]


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=UTF-8", 'application/json;charset="utf-8"']
)
async def test_json_in_utf8_is_taken(edge: Edge, content_type: str) -> None:
    reply = await edge.send(
        body='{"query": "{ hello(name: \\"né🏊\\") }"}'.encode(), headers={"content-type": content_type}
    )

    assert reply.json == {"data": {"hello": "hello né🏊"}}


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "application/graphql",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=utf-16",
        "application/jsonx",
    ],
)
async def test_any_other_content_type_is_415_and_does_nothing(edge: Edge, content_type: str) -> None:
    body = b'{"query": "mutation { note(text: \\"x\\") }"}'
    reply = await edge.send(body=body, headers={"content-type": content_type} if content_type else {})

    assert (reply.status, reply.code) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert (content_type[:80] or "no Content-Type at all") in reply.error["message"]
    assert done == []


async def test_compressed_bodies_are_415(edge: Edge) -> None:
    reply = await edge.raw(b'{"query": "{ hello }"}', content_encoding="gzip")

    assert (reply.status, reply.code) == (415, "UNSUPPORTED_MEDIA_TYPE")


# ------------------------------------------------------------------------------------------------ bodies


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "The body is empty"),
        (b"\xff\xfe{", "The body is not UTF-8: byte 0xff at position 0."),
        (b'{"query": "{ hello(name: \\"' + b"\xc3\x28", "The body is not UTF-8: byte 0xc3 at position 27."),
        ("\ufeff".encode() + b'{"query": "{ hello }"}', "The body begins with a byte order mark"),
        (b'{ "not a JSON', "The body is not JSON: Unterminated string starting at line 1 column 3."),
        (b'{"query": "{ hello }"} trailing', "The body is not JSON: Extra data at line 1 column 24."),
        (b'{"query": NaN}', "The body is not JSON: NaN is not JSON."),
        (b'{"query": "{ hello }", "variables": {"a": -Infinity}}', "The body is not JSON: -Infinity is not JSON."),
        (b"[" * 100_000, "The body is nested too deeply."),
        (b'{"query": "{ hello }", "extensions": ' + b'{"a":' * 50_000, "The body is nested too deeply."),
        (b'[{"query": "{ hello }"}]', "The body is an array: send one operation in each request"),
        (b'"{ hello }"', "The body must be a JSON object, not a string."),
        (b"null", "The body must be a JSON object, not null."),
        (b"17", "The body must be a JSON object, not a number."),
        (b"{}", "The parameter query must be a string, the GraphQL document; it is missing."),
        (b'{"qeury": "{ hello }"}', "it is missing"),
        (b'{"query": null}', "it is null."),
        (b'{"query": 1.5}', "it is a number."),
        (b'{"query": true}', "it is a boolean."),
        (b'{"query": ["{ hello }"]}', "it is an array."),
        (b'{"query": {}}', "it is an object."),
        (b'{"query": "{ hello }", "operationName": 0}', "operationName must be a string or null, not a number."),
        (b'{"query": "{ hello }", "variables": "x"}', "variables must be an object or null, not a string."),
        (b'{"query": "{ hello }", "variables": []}', "variables must be an object or null, not an array."),
        (b'{"query": "{ hello }", "variables": false}', "variables must be an object or null, not a boolean."),
        (b'{"query": "{ hello }", "extensions": 1}', "extensions must be an object or null, not a number."),
        (b'{"query": "{ hello }", "variables": {"a": "\\ud800"}}', "The body has the escape \\ud800"),
        (b'{"query": "{ hello }", "variables": {"a": ["\\u0000"]}}', "The body has the escape \\u0000"),
        (b'{"query": "{ hello }", "variables": {"\\udfff": 1}}', "The body has the escape \\udfff"),
    ],
)
@pytest.mark.parametrize("accept", ["application/json", GRAPHQL])
async def test_what_is_no_graphql_request_is_400_and_told_why(edge: Edge, body: bytes, said: str, accept: str) -> None:
    reply = await edge.raw(body, accept=accept)

    assert (reply.status, reply.code) == (400, "BAD_REQUEST")
    assert said in reply.error["message"]
    assert "data" not in reply.json


async def test_null_parameters_count_as_absent(edge: Edge) -> None:
    body = b'{"query": "{ hello }", "variables": null, "operationName": null, "extensions": null}'

    assert (await edge.raw(body)).json == {"data": {"hello": "hello world"}}


async def test_escaped_characters_that_exist_are_taken(edge: Edge) -> None:
    reply = await edge.raw(b'{"query": "query($n: String!) { hello(name: $n) }", "variables": {"n": "\\ud83c\\udfca"}}')

    assert reply.json == {"data": {"hello": "hello 🏊"}}


async def test_a_body_of_exactly_the_maximum_is_read_and_one_byte_more_is_413(edge: Edge) -> None:
    body = json.dumps({"query": "{ hello }"}).encode()
    full = body + b" " * (BODY_BYTES_MAX - len(body))

    assert (await edge.raw(full)).status == 200
    reply = await edge.raw(full + b" ")
    assert (reply.status, reply.code, reply.headers["connection"]) == (413, "PAYLOAD_TOO_LARGE", "close")


@pytest.mark.parametrize("length", [str(BODY_BYTES_MAX + 1), "9" * 30, "-5", "x"])
async def test_a_length_that_is_too_large_or_none_is_413_before_anything_is_read(edge: Edge, length: str) -> None:
    reply = await edge.raw(b"", content_length=length)

    assert (reply.status, reply.code) == (413, "PAYLOAD_TOO_LARGE")


async def test_chunked_bodies_are_put_together_and_have_the_same_maximum(edge: Edge) -> None:
    headers = {"content-type": "application/json", "transfer-encoding": "chunked"}
    chunks = [b'{"query": ', b'"{ hello ', b"", b'}"}']

    assert (await edge.send(body=chunks, headers=headers)).json == {"data": {"hello": "hello world"}}
    reply = await edge.send(body=[b" " * 100_000] * 5, headers=headers)
    assert (reply.status, reply.code) == (413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize("body", [[], [b'{"query": "mutation { note'], [b'{"query": "{ hello }"}', b""]])
async def test_a_client_that_leaves_before_its_request_is_there_gets_no_answer(edge: Edge, body: list[bytes]) -> None:
    reply = await edge.send(body=body, headers={"content-type": "application/json"}, leaves=True)

    assert (reply, done) == (NO_REPLY, [])


async def test_a_body_that_does_not_come_in_time_is_408(edge: Edge) -> None:
    with patch.object(http_request, "BODY_SECONDS_MAX", 0.01):
        reply = await edge.send(body=b'{"query"', headers={"content-type": "application/json"}, stalls=True)

    assert (reply.status, reply.code, reply.headers["connection"]) == (408, "REQUEST_TIMEOUT", "close")


@pytest.mark.parametrize("error", [RuntimeError("the handler is closed"), ConnectionResetError()])
async def test_a_client_that_leaves_while_it_is_answered_is_no_fault(edge: Edge, error: Exception) -> None:
    body = b'{"query": "mutation { note(text: \\"done\\") }"}'
    with structlog.testing.capture_logs() as logs:
        reply = await edge.send(body=body, headers={"content-type": "application/json"}, broken=error)

    assert (reply, done) == (NO_REPLY, ["done"])
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("request.client_gone", "info")]


async def test_more_requests_than_can_be_held_are_503(edge: Edge) -> None:
    assert isinstance(edge.app, GraphQLEndpoint)
    edge.app.operations.in_flight = IN_FLIGHT_MAX

    reply = await edge.post('mutation { note(text: "x") }')

    assert (reply.status, reply.code, reply.headers["retry-after"]) == (503, "OVERLOADED", "1")
    assert reply.error["extensions"]["retryable"] is True
    assert done == []
    edge.app.operations.in_flight -= 1
    assert (await edge.post('mutation { note(text: "x") }')).status == 200


async def test_a_body_that_is_slow_to_come_takes_no_place(edge: Edge) -> None:
    endpoint = edge.app
    assert isinstance(endpoint, GraphQLEndpoint)
    reading, rest = asyncio.Event(), asyncio.Event()

    async def slowly(scope: Scope, receive: Receive, send: Send) -> None:
        async def late() -> Message:
            reading.set()
            await rest.wait()
            return await receive()

        await endpoint(scope, late, send)

    with patch.object(operations, "IN_FLIGHT_MAX", 1):
        slow = asyncio.create_task(Edge(slowly, edge.services).post("{ hello }"))
        await reading.wait()
        assert endpoint.operations.in_flight == 0
        assert (await edge.post("{ hello }")).status == 200
        rest.set()
        assert (await slow).status == 200
    assert endpoint.operations.in_flight == 0


async def test_what_is_under_way_takes_a_place_until_its_end_however_it_ends(edge: Edge) -> None:
    assert isinstance(edge.app, GraphQLEndpoint)
    with patch.object(operations, "IN_FLIGHT_MAX", 1):
        # The first waits for its token to be looked up when the second comes.
        replies = await asyncio.gather(edge.post("{ who }", token=GOOD_TOKEN), edge.post("{ who }"))
        assert [reply.status for reply in replies] == [200, 503]
        assert edge.app.operations.in_flight == 0
        for query, token, code in (
            ("{", None, "GRAPHQL_PARSE_FAILED"),
            ("subscription { x }", None, "BAD_REQUEST"),
            ("{ who }", "mgs_" + "u" * 43, "UNAUTHENTICATED"),
            ("{ who }", FAILING_TOKEN, "SERVICE_UNAVAILABLE"),
        ):
            assert (await edge.post(query, token=token)).code == code
            assert edge.app.operations.in_flight == 0


# ------------------------------------------------------------------------------------------------ methods


async def test_queries_are_answered_by_get(edge: Edge) -> None:
    reply = await edge.send(
        "GET",
        query_string=b"query=query%20H(%24n%3AString!)%7Bhello(name%3A%24n)%7D&variables=%7B%22n%22%3A%22x%22%7D&operationName=H",
    )

    assert (reply.status, reply.json) == (200, {"data": {"hello": "hello x"}})


@pytest.mark.parametrize(
    ("query_string", "said"),
    [
        (b"", "it is missing"),
        (b"query=%7Bhello%7D&variables=%7B", "The parameter variables is not JSON"),
        (b"query=%7Bhello%7D&variables=%5B%5D", "variables must be an object or null, not an array."),
        (b"query=%7Bhello%7D&extensions=1", "extensions must be an object or null, not a number."),
        (b"query=%ff", "not percent-encoded UTF-8"),
        (b"query=\xff", "not percent-encoded UTF-8"),
        (b"&".join(b"a=1" for _ in range(30)), "more than 20 parameters"),
    ],
)
async def test_what_is_no_graphql_request_by_get_is_400(edge: Edge, query_string: bytes, said: str) -> None:
    reply = await edge.send("GET", query_string=query_string)

    assert (reply.status, reply.code) == (400, "BAD_REQUEST")
    assert said in reply.error["message"]


async def test_mutations_by_get_are_405_and_do_nothing(edge: Edge) -> None:
    reply = await edge.send("GET", query_string=b"query=mutation%7Bnote(text%3A%22x%22)%7D")

    assert (reply.status, reply.code, reply.headers["allow"]) == (405, "METHOD_NOT_ALLOWED", "POST")
    assert done == []


async def test_a_mutation_chosen_by_name_is_refused_by_get_too(edge: Edge) -> None:
    reply = await edge.send(
        "GET", query_string=b"query=query%20A%7Bhello%7D%20mutation%20B%7Bnote(text%3A%22x%22)%7D&operationName=B"
    )

    assert (reply.status, done) == (405, [])


@pytest.mark.parametrize("method", ["PUT", "DELETE", "HEAD", "PATCH"])
async def test_other_methods_are_405(edge: Edge, method: str) -> None:
    reply = await edge.send(method, body=b'{"query": "{ hello }"}', headers={"content-type": "application/json"})

    assert (reply.status, reply.headers["allow"]) == (405, "GET, POST, OPTIONS")


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_subscriptions_are_refused_in_plain_words(edge: Edge, method: str) -> None:
    query = "subscription { priceTicks { cursor } }"
    reply = await (
        edge.post(query)
        if method == "POST"
        else edge.send("GET", query_string=b"query=subscription%7BpriceTicks%7Bcursor%7D%7D")
    )

    assert (reply.status, reply.code) == (400, "BAD_REQUEST")
    assert reply.error["message"] == (
        "Subscriptions are not answered over plain HTTP: use a WebSocket at this address, with the subprotocol "
        "graphql-transport-ws, or ask for an event stream by Accept: text/event-stream."
    )
