"""Requests over HTTP: what is sent again, how long it waits, and what it gives up on."""

from collections.abc import Sequence
from random import Random

import httpx
import pytest

from megatron_client import Client, MegatronError, NotLoggedIn, Operation, RequestFailed, Unreachable
from tests.client.standin import Json, NoJitter, Standin

ASK = Operation("Ask", "query Ask { ask }")
Script = Sequence[httpx.Response | Exception]


class Line(Standin):
    """A wire to a server that answers as written down."""

    def __init__(self, script: Script) -> None:
        super().__init__()
        self.bodies: list[bytes] = []
        self.script = list(script)
        self.answer = lambda _: self.script.pop(0)

    async def post(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append(request.content)
        return await super().post(request)

    def made(self, **options: object) -> Client:
        http = httpx.AsyncClient(transport=httpx.MockTransport(self.post))
        settings: Json = {"chance": NoJitter(), "pause": self.pause, "patience_seconds": None, **options}
        return Client("http://127.0.0.1:1", http=http, **settings)


def data(value: int = 7) -> httpx.Response:
    return httpx.Response(200, json={"data": {"ask": value}})


def failed(code: str, *, status: int = 200, headers: dict[str, str] | None = None, **more: object) -> httpx.Response:
    errors = [{"message": f"it is {code}", "extensions": {"code": code, **more}}]
    return httpx.Response(status, json={"data": None, "errors": errors}, headers=headers)


async def test_it_sends_the_operation_and_the_token() -> None:
    line = Line([data()])
    assert await line.made(token="secret").execute(ASK, {"one": 1}) == {"ask": 7}
    assert line.tokens == ["Bearer secret"]
    assert line.posted == [{"query": "query Ask { ask }", "operationName": "Ask", "variables": {"one": 1}}]
    assert line.pauses == []


async def test_a_server_that_is_away_gets_the_same_bytes_until_it_is_back() -> None:
    away: Script = [httpx.ConnectError("refused"), httpx.ReadError("cut"), httpx.ReadTimeout("slow")]
    line = Line([*away, httpx.Response(502, text="bad gateway"), httpx.Response(503), *away, data()])
    client = line.made()
    assert await client.execute(ASK, {"key": "k-1"}) == {"ask": 7}
    assert len(set(line.bodies)) == 1
    assert line.pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert (client.requests.sent, client.requests.retries) == (9, 8)


async def test_patience_ends() -> None:
    line = Line([httpx.ConnectError("refused")])
    with pytest.raises(Unreachable, match="Ask: no answer within 0 s; the last attempt: ConnectError: refused"):
        await line.made(patience_seconds=0).execute(ASK)


@pytest.mark.parametrize(
    ("limited", "waited"),
    [
        (failed("RATE_LIMITED", retryAfterMs=1_500), 1.5),
        (failed("RATE_LIMITED", retryAfterMs=10), 0.2),
        (failed("RATE_LIMITED", retryAfterMs=3_600_000), 120.0),
        (failed("RATE_LIMITED", status=429), 1.0),
        (httpx.Response(429, headers={"retry-after": "4"}), 4.0),
        (httpx.Response(429, text="slow down"), 1.0),
    ],
)
async def test_it_waits_as_long_as_a_rate_limit_says(limited: httpx.Response, waited: float) -> None:
    line = Line([limited, data()])
    assert await line.made().execute(ASK) == {"ask": 7}
    assert line.pauses == [waited]


async def test_rate_limits_never_make_it_give_up() -> None:
    line = Line([*[failed("RATE_LIMITED", retryAfterMs=6_000)] * 20, data()])
    assert await line.made(patience_seconds=0).execute(ASK) == {"ask": 7}
    assert line.pauses == [6.0] * 20


async def test_faults_of_the_server_are_asked_again_six_times_in_all() -> None:
    line = Line([*[failed("INTERNAL_SERVER_ERROR")] * 5, data()])
    assert await line.made().execute(ASK) == {"ask": 7}
    hopeless = Line([failed("INTERNAL_SERVER_ERROR")] * 6)
    with pytest.raises(RequestFailed, match="INTERNAL_SERVER_ERROR: it is INTERNAL_SERVER_ERROR"):
        await hopeless.made().execute(ASK)
    assert len(hopeless.posted) == 6


async def test_what_the_server_calls_retryable_is_asked_again() -> None:
    line = Line([failed("SERVICE_UNAVAILABLE", status=503, retryable=True, retryAfterMs=1_000)] * 8 + [data()])
    assert await line.made().execute(ASK) == {"ask": 7}
    assert line.pauses == [1.0, 1.0, 1.0, 1.6, 3.2, 5.0, 5.0, 5.0]


@pytest.mark.parametrize("code", ["FORBIDDEN", "BAD_USER_INPUT", "QUERY_TOO_COMPLEX", "SOMETHING_NEW"])
async def test_errors_that_waiting_does_not_cure_are_raised_at_once(code: str) -> None:
    line = Line([failed(code, status=400, requestId="r-1")])
    with pytest.raises(RequestFailed) as raised:
        await line.made().execute(ASK)
    assert (raised.value.code, raised.value.request_id, line.pauses) == (code, "r-1", [])


async def test_a_token_that_is_no_longer_good_is_told() -> None:
    line = Line([failed("UNAUTHENTICATED", status=401)])
    with pytest.raises(NotLoggedIn, match="it is UNAUTHENTICATED"):
        await line.made(token="old").execute(ASK)


async def test_an_answer_that_is_no_graphql_names_the_address() -> None:
    line = Line([httpx.Response(404, text="nothing here")])
    with pytest.raises(RequestFailed, match=r"HTTP_404: http://127\.0\.0\.1:1/graphql answered no GraphQL"):
        await line.made().execute(ASK)


async def test_an_answer_without_anything_is_told() -> None:
    line = Line([httpx.Response(200, json={"data": None})])
    with pytest.raises(MegatronError, match="an answer without data and errors"):
        await line.made().execute(ASK)


async def test_the_jitter_stretches_pauses_by_less_than_a_third() -> None:
    line = Line([*[httpx.ConnectError("refused")] * 3, data()])
    await line.made(chance=Random("1 client")).execute(ASK)
    again = Random("1 client")
    assert line.pauses == [step * again.uniform(1.0, 1.3) for step in (0.2, 0.4, 0.8)]


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ws://127.0.0.1/graphql", "", "http://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"the market's url must be like http://127\.0\.0\.1:8000; got"):
        Client(url)


@pytest.mark.parametrize(
    ("url", "http", "socket"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/graphql", "ws://127.0.0.1:8000/graphql"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/graphql", "ws://127.0.0.1:8000/graphql"),
        ("https://m.example/api/graphql", "https://m.example/api/graphql", "wss://m.example/api/graphql"),
    ],
)
def test_the_sockets_address_follows_from_the_markets(url: str, http: str, socket: str) -> None:
    client = Client(url)
    assert (client.url, client._connection._url) == (http, socket)
