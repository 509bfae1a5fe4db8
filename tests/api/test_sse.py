"""GraphQL over server-sent events: one operation, one stream; and everything else over plain HTTP as before."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from unittest.mock import patch

import httpx
import pytest

from api import sse
from api.sse import BACKLOG_BYTES_MAX, EventStream
from tests.api.edge import GOOD_TOKEN, Edge, done, make_edge
from tests.api.readers import number, sized
from tests.api.sockets import SECONDS, Served, bare, serving, until

STREAM = "text/event-stream"
NUMBERS = "subscription { numbers }"


class Events:
    """The events of a stream as they come: (event, data), comments as ("", comment)."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._chunks = response.aiter_text()
        self._text = ""

    async def next(self) -> tuple[str, str]:
        async with asyncio.timeout(SECONDS):
            while "\n\n" not in self._text:
                self._text += await anext(self._chunks)
        block, _, self._text = self._text.partition("\n\n")
        if block.startswith(":"):
            return "", block[1:].strip()
        event, data = block.split("\n")
        assert (event[:7], data[:6]) == ("event: ", "data: ")
        return event[7:], data[6:]

    async def rest(self) -> list[tuple[str, str]]:
        """All events until the server ends the stream."""
        found = []
        try:
            while True:
                found.append(await self.next())
        except StopAsyncIteration:
            return found


@asynccontextmanager
async def listening(
    served: Served, query: str = NUMBERS, *, token: str | None = None, accept: str = STREAM, **variables: object
) -> AsyncIterator[Events]:
    headers = {"accept": accept} | ({"authorization": f"Bearer {token}"} if token else {})
    url = f"http://127.0.0.1:{served.port}/graphql"
    body = {"query": query, "variables": variables}
    async with (
        httpx.AsyncClient(timeout=SECONDS) as client,
        client.stream("POST", url, json=body, headers=headers) as response,
    ):
        yield Events(response)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as made:
        yield made


@pytest.fixture
def edge() -> Edge:
    return make_edge()


# ------------------------------------------------------------------------------------------------ single results


@pytest.mark.parametrize("accept", [STREAM, f"{STREAM}, application/json;q=0.5", f"application/json;q=0.9, {STREAM}"])
async def test_a_client_that_prefers_streams_gets_queries_and_mutations_by_them(edge: Edge, accept: str) -> None:
    reply = await edge.post('mutation { note(text: "x") }', accept=accept)

    assert reply.status == 200
    assert reply.body == b'event: next\ndata: {"data":{"note":"x"}}\n\nevent: complete\ndata: \n\n'
    assert {name: reply.headers[name] for name in ("content-type", "cache-control", "x-accel-buffering")} == {
        "content-type": STREAM,
        "cache-control": "no-store",
        "x-accel-buffering": "no",
    }
    assert done == ["x"]


@pytest.mark.parametrize("accept", [f"application/json, {STREAM}", f"application/graphql-response+json, {STREAM}"])
async def test_a_client_that_takes_both_gets_single_results_as_json(edge: Edge, accept: str) -> None:
    reply = await edge.post("{ hello }", accept=accept)

    assert (reply.status, reply.json) == (200, {"data": {"hello": "hello world"}})
    assert reply.headers["content-type"].startswith(accept.partition(",")[0])


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("{", "GRAPHQL_PARSE_FAILED"),
        ("subscription { nosuch }", "GRAPHQL_VALIDATION_FAILED"),
        ("query($n: String!) { hello(name: $n) }", "BAD_USER_INPUT"),
        ('subscription { numbers(how: "forbidden") }', "FORBIDDEN"),
        ('subscription { numbers(how: "refused") }', "NOT_FOUND"),
        ('subscription { numbers(how: "broken") }', "INTERNAL_SERVER_ERROR"),
        ("{ unencodable }", "INTERNAL_SERVER_ERROR"),
    ],
)
async def test_what_is_not_executed_is_told_in_the_stream(edge: Edge, query: str, code: str) -> None:
    reply = await edge.post(query, accept=STREAM)
    event, data, *rest = reply.body.decode().split("\n")

    assert (reply.status, reply.headers["content-type"], event) == (200, STREAM, "event: next")
    (error,) = json.loads(data.removeprefix("data: "))["errors"]
    assert error["extensions"]["code"] == code
    assert "secret" not in error["message"]
    assert rest == ["", "event: complete", "data: ", "", ""]


async def test_who_may_not_ask_is_told_by_the_status(edge: Edge) -> None:
    reply = await edge.post(NUMBERS, accept=STREAM, token="mgs_" + "u" * 43)

    assert (reply.status, reply.code) == (401, "UNAUTHENTICATED")
    assert reply.headers["content-type"].startswith("application/json")


async def test_mutations_are_not_executed_by_get(edge: Edge) -> None:
    reply = await edge.send("GET", query_string=b"query=mutation%7Bnote(text%3A%22x%22)%7D", headers={"accept": STREAM})

    assert (reply.status, reply.code, done) == (405, "METHOD_NOT_ALLOWED", [])


@pytest.mark.parametrize("accept", ["text/html", "text/*", "application/json;q=0", f"{STREAM};q=0"])
async def test_what_is_made_here_is_told_to_who_takes_none_of_it(edge: Edge, accept: str) -> None:
    reply = await edge.post("{ hello }", accept=accept)

    assert (reply.status, reply.code) == (406, "NOT_ACCEPTABLE")
    assert "or text/event-stream; the Accept header takes none of them" in reply.error["message"]


# ------------------------------------------------------------------------------------------------ streams


@pytest.mark.parametrize("accept", [STREAM, f"application/graphql-response+json, application/json, {STREAM}"])
async def test_a_subscription_streams_until_it_completes(served: Served, accept: str) -> None:
    async with listening(served, accept=accept, token=GOOD_TOKEN) as events:
        assert (events.response.status_code, events.response.headers["content-type"]) == (200, STREAM)
        (reader,) = served.readers.opened
        for value in (1, 2):
            reader.sink.send(number(value))
            assert await events.next() == ("next", number(value).decode())
        assert served.application.connections.open == 1
        reader.sink.complete()
        reader.sink.send(number(3))

        assert await events.rest() == [("complete", "")]
    await until(lambda: served.application.connections.open == 0)
    assert (reader.closed > 0, served.application.connections.subscriptions) == (True, 0)


async def test_a_subscription_by_get_streams_too(served: Served) -> None:
    url = f"http://127.0.0.1:{served.port}/graphql"
    async with (
        httpx.AsyncClient(timeout=SECONDS) as client,
        client.stream("GET", url, params={"query": NUMBERS}, headers={"accept": STREAM}) as response,
    ):
        served.readers.opened[0].sink.send(number(1))

        assert await Events(response).next() == ("next", number(1).decode())


async def test_what_is_sent_before_a_stream_is_open_comes_first(served: Served) -> None:
    async with listening(served, 'subscription { numbers(how: "early") }') as events:
        assert await events.next() == ("next", number(0).decode())
    async with listening(served, 'subscription { numbers(how: "short") }') as events:
        assert await events.rest() == [("next", number(1).decode()), ("complete", "")]


async def test_a_client_that_goes_away_closes_its_reader(served: Served) -> None:
    async with listening(served):
        (reader,) = served.readers.opened
    await until(lambda: reader.closed > 0)

    assert (served.application.connections.open, served.application.connections.subscriptions) == (0, 0)
    reader.sink.send(number(1))


async def test_a_silent_stream_says_that_it_lives(served: Served) -> None:
    with patch.object(sse, "KEEP_ALIVE_SECONDS", 0.02):
        async with listening(served) as events:
            assert [await events.next() for _ in range(2)] == [("", ""), ("", "")]


async def test_a_stream_that_ends_leaves_the_connection_to_the_next(served: Served) -> None:
    url = f"http://127.0.0.1:{served.port}/graphql"
    query = 'subscription { numbers(how: "short") }'
    async with httpx.AsyncClient(timeout=SECONDS, limits=httpx.Limits(max_connections=1)) as client:
        for _ in range(3):
            reply = await client.post(url, json={"query": query}, headers={"accept": STREAM})
            assert reply.text == f"event: next\ndata: {number(1).decode()}\n\nevent: complete\ndata: \n\n"


async def test_streams_count_as_connections_and_subscriptions() -> None:
    async with serving(connections_per_ip=3, subscriptions_per_account=1) as served:
        async with listening(served, token=GOOD_TOKEN) as first:
            assert first.response.status_code == 200
            async with listening(served, token=GOOD_TOKEN) as second:
                assert second.response.status_code == 429
                error = json.loads(await second.response.aread())["errors"][0]
                assert error["message"] == (
                    "Too many subscriptions: this account may have 1 at once (MEGATRON_SUBSCRIPTIONS_PER_ACCOUNT); "
                    "end some, or try again later."
                )
                assert error["extensions"]["code"] == "RATE_LIMITED"
                assert second.response.headers["retry-after"] == "5"
            async with listening(served), listening(served):
                async with listening(served) as fourth:
                    assert fourth.response.status_code == 429
                    assert "MEGATRON_CONNECTIONS_PER_IP" in (await fourth.response.aread()).decode()
                assert served.application.connections.open == 3
        await until(lambda: served.application.connections.open == 0)
        assert served.application.connections.subscriptions == 0


async def test_a_reader_that_stalls_is_told_of_and_cut_off(served: Served) -> None:
    body = b'{"query": "subscription { numbers }"}'
    async with bare(served.port) as raw:
        await raw.say(
            b"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Accept: text/event-stream\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        await until(lambda: len(served.readers.opened) == 1)
        (reader,) = served.readers.opened
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined] # asyncio's transports can
        while not reader.told:
            reader.sink.send(sized(10_000))
            await asyncio.sleep(0)
        assert reader.told == ["congested"]
        assert reader.sink.congested
        reader.sink.too_slow()
        await until(lambda: served.application.connections.open == 0)
    assert reader.closed > 0


@pytest.mark.parametrize("end", [EventStream.session_ended, EventStream.complete])
async def test_a_stream_that_has_ended_does_not_wait_for_a_reader_that_stalls(
    served: Served, monkeypatch: pytest.MonkeyPatch, end: Callable[[EventStream], None]
) -> None:
    monkeypatch.setattr("api.sse.LAST_SECONDS", 0.05)
    body = b'{"query": "subscription { numbers }"}'
    async with bare(served.port) as raw:
        await raw.say(
            b"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Accept: text/event-stream\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        await until(lambda: len(served.readers.opened) == 1)
        (reader,) = served.readers.opened
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined] # asyncio's transports can
        while not reader.told:
            reader.sink.send(sized(10_000))
            await asyncio.sleep(0)
        assert isinstance(reader.sink, EventStream)
        end(reader.sink)
        await until(lambda: served.application.connections.open == 0)
    assert reader.closed > 0


async def test_an_event_larger_than_what_may_be_unsent_arrives(served: Served) -> None:
    large = sized(2 * BACKLOG_BYTES_MAX)
    async with listening(served) as events:
        (reader,) = served.readers.opened
        reader.sink.send(large)
        assert await events.next() == ("next", large.decode())
        reader.sink.send(number(1))
        assert await events.next() == ("next", number(1).decode())


async def test_a_reader_that_catches_up_is_told_of(served: Served) -> None:
    async with listening(served) as events:
        (reader,) = served.readers.opened
        for _ in range(20):
            reader.sink.send(sized(10_000))
        assert reader.told == ["congested"]
        assert [await events.next() for _ in range(20)] == [("next", sized(10_000).decode())] * 20
        await until(lambda: reader.told == ["congested", "drained"])


async def test_a_process_that_stops_ends_its_streams_without_completing_them() -> None:
    async with serving() as served, listening(served) as events:
        served.server.should_exit = True

        assert await events.rest() == [("", "the service restarts, reconnect")]
