"""The patient client: what it sends again, how long it waits, and what it gives up on."""

from collections.abc import Sequence
from random import Random

import httpx
import orjson
import pytest

from app.demo.client import Client, NotLoggedIn, Operation, Rejected

ASK = Operation("Ask", "query Ask { ask }")
Script = Sequence[httpx.Response | Exception]


class NoJitter(Random):
    def uniform(self, a: float, b: float) -> float:
        return a


class Line:
    """The wire to a server that answers as written down, and the pauses taken in between."""

    def __init__(self, script: Script) -> None:
        self.requests: list[httpx.Request] = []
        self.pauses: list[float] = []
        self._script = script

    async def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._script[len(self.requests) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def client(self) -> Client:
        return Client(
            "http://127.0.0.1:1/graphql",
            chance=NoJitter(),
            transport=httpx.MockTransport(self.answer),
            pause=self.pause,
        )


def data(value: int = 7) -> httpx.Response:
    return httpx.Response(200, json={"data": {"ask": value}})


def failed(code: str, *, status: int = 200, headers: dict[str, str] | None = None, **more: object) -> httpx.Response:
    errors = [{"message": f"it is {code}", "extensions": {"code": code, **more}}]
    return httpx.Response(status, json={"data": None, "errors": errors}, headers=headers)


async def test_it_sends_the_operation_and_the_token() -> None:
    line = Line([data()])
    assert await line.client().execute(ASK, {"one": 1}, token="secret") == {"ask": 7}
    [request] = line.requests
    assert request.headers["authorization"] == "Bearer secret"
    assert orjson.loads(request.content) == {
        "query": "query Ask { ask }",
        "operationName": "Ask",
        "variables": {"one": 1},
    }
    assert line.pauses == []


async def test_a_server_that_is_away_gets_the_same_bytes_until_it_is_back() -> None:
    away: Script = [httpx.ConnectError("refused"), httpx.ReadError("cut"), httpx.ReadTimeout("slow")]
    line = Line([*away, httpx.Response(502, text="bad gateway"), httpx.Response(503), *away, data()])
    client = line.client()
    assert await client.execute(ASK, {"key": "k-1"}) == {"ask": 7}
    assert len({request.content for request in line.requests}) == 1
    assert line.pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert (client.requests, client.retries) == (9, 8)


@pytest.mark.parametrize(
    ("limited", "waited"),
    [
        (failed("RATE_LIMITED", retryAfterMs=1_500), 1.5),
        (failed("RATE_LIMITED", retryAfterMs=10), 0.2),
        (failed("RATE_LIMITED", retryAfterMs=3_600_000), 120.0),
        (failed("RATE_LIMITED", status=429, headers={"retry-after": "9"}), 9.0),
        (httpx.Response(429, headers={"retry-after": "4"}), 4.0),
        (httpx.Response(429, text="slow down"), 1.0),
    ],
)
async def test_it_waits_as_long_as_a_rate_limit_says(limited: httpx.Response, waited: float) -> None:
    line = Line([limited, data()])
    assert await line.client().execute(ASK, {}) == {"ask": 7}
    assert line.pauses == [waited]


async def test_rate_limits_never_make_it_give_up() -> None:
    line = Line([failed("RATE_LIMITED", retryAfterMs=6_000)] * 20 + [data()])
    assert await line.client().execute(ASK, {}) == {"ask": 7}
    assert line.pauses == [6.0] * 20


async def test_faults_of_the_server_are_asked_again_six_times_in_all() -> None:
    line = Line([failed("INTERNAL_SERVER_ERROR")] * 5 + [data()])
    assert await line.client().execute(ASK, {}) == {"ask": 7}
    hopeless = Line([failed("INTERNAL_SERVER_ERROR")] * 6)
    with pytest.raises(Rejected, match="INTERNAL_SERVER_ERROR: it is INTERNAL_SERVER_ERROR"):
        await hopeless.client().execute(ASK, {})
    assert len(hopeless.requests) == 6


async def test_what_the_server_calls_retryable_is_asked_again() -> None:
    line = Line([failed("DATABASE_AWAY", retryable=True), data()])
    assert await line.client().execute(ASK, {}) == {"ask": 7}
    assert line.pauses == [0.2]


@pytest.mark.parametrize("code", ["FORBIDDEN", "BAD_USER_INPUT", "QUERY_TOO_COMPLEX", "SOMETHING_NEW"])
async def test_errors_that_waiting_does_not_cure_are_raised_at_once(code: str) -> None:
    line = Line([failed(code, status=400)])
    with pytest.raises(Rejected) as raised:
        await line.client().execute(ASK, {})
    assert (raised.value.code, line.pauses) == (code, [])


async def test_a_token_that_is_no_longer_good_is_told() -> None:
    line = Line([failed("UNAUTHENTICATED", status=401)])
    with pytest.raises(NotLoggedIn, match="it is UNAUTHENTICATED"):
        await line.client().execute(ASK, {}, token="old")


async def test_an_answer_that_is_no_graphql_names_the_address() -> None:
    line = Line([httpx.Response(404, text="nothing here")])
    with pytest.raises(Rejected, match=r"HTTP_404: http://127\.0\.0\.1:1/graphql answered 404 and no GraphQL"):
        await line.client().execute(ASK, {})


async def test_the_jitter_stretches_pauses_by_less_than_a_third() -> None:
    line = Line([httpx.ConnectError("refused")] * 3 + [data()])
    wire = httpx.MockTransport(line.answer)
    client = Client("http://127.0.0.1:1/", chance=Random("1 client"), transport=wire, pause=line.pause)
    await client.execute(ASK, {})
    again = Random("1 client")
    assert line.pauses == [step * again.uniform(1.0, 1.3) for step in (0.2, 0.4, 0.8)]
