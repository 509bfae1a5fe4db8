"""Rate limits on HTTP: what is counted against whom, 429, and what the headers tell."""

from collections.abc import AsyncIterator
from itertools import count
from unittest.mock import patch

import pytest
from redis.asyncio import Redis

from api import operation_cache
from api.http import GraphQLEndpoint
from api.operations import CHARACTERS_PER_POINT, READ_FREE_CHARACTERS
from app.accounts.principals import ANONYMOUS, Principal
from app.errors import Unauthenticated
from app.local.valkey import EmbeddedValkey
from app.ratelimit import RateLimiter
from tests.api.edge import ALICE, GOOD_TOKEN, Edge, StubAuthenticator, done, make_edge
from tests.conftest import make_settings

_hosts = count(1)


@pytest.fixture
async def redis(valkey: EmbeddedValkey) -> AsyncIterator[Redis]:
    client: Redis = Redis.from_url(valkey.url)
    await client.delete(f"megatron:rate:account:{ALICE.account_id}")
    yield client
    await client.aclose()


def limited(redis: Redis | None, **settings: object) -> Edge:
    made = make_settings(rate_limits=True, redis_url="redis://unused", **settings)
    return make_edge(rate_limiter=RateLimiter(redis, made), rate_limits=True, redis_url="redis://unused", **settings)


@pytest.fixture
def address() -> str:
    return f"203.0.113.{next(_hosts)}"


async def ask(edge: Edge, query: str, address: str, **headers: str) -> tuple[int, dict[str, str], object]:
    body = b'{"query": "%s"}' % query.replace('"', '\\"').encode()
    reply = await edge.send(body=body, headers={"content-type": "application/json", **headers}, client=address)
    return reply.status, reply.headers, reply.json


async def test_headers_and_the_resolvers_tell_how_the_limit_stands(redis: Redis, address: str) -> None:
    edge = limited(redis, rate_limit_per_ip_minute=30)

    status, headers, body = await ask(edge, "{ rate }", address)

    assert (status, body) == (200, {"data": {"rate": "1 29/30"}})
    assert headers["ratelimit-policy"] == '"address";q=30;w=60'
    assert headers["ratelimit"] == '"address";r=29;t=60'


async def test_an_exhausted_limit_is_429_in_both_media_types_and_nothing_is_done(redis: Redis, address: str) -> None:
    edge = limited(redis, rate_limit_per_ip_minute=1)
    await ask(edge, "{ hello }", address)
    for accept in ("application/json", "application/graphql-response+json"):
        status, headers, body = await ask(edge, 'mutation { note(text: "x") }', address, accept=accept)

        assert (status, headers["content-type"]) == (429, f"{accept}; charset=utf-8")
        assert 59 <= int(headers["retry-after"]) <= 60
        assert headers["ratelimit"].startswith('"address";r=0;t=')
        assert isinstance(body, dict)
        (error,) = body["errors"]
        assert error["extensions"]["code"] == "RATE_LIMITED"
        assert error["extensions"]["retryable"] is True
        assert 58_000 < error["extensions"]["retryAfterMs"] <= 60_000
    assert done == []
    assert (await ask(edge, "{ hello }", f"{address}9"))[0] == 200


async def test_costly_operations_and_each_field_of_a_mutation_cost_more(redis: Redis, address: str) -> None:
    edge = limited(redis, rate_limit_per_ip_minute=100)

    assert (await ask(edge, "{ rate items(first: 500) { nodes { name maybe } } }", address))[2] == {
        "data": {"rate": "4 96/100", "items": {"nodes": [{"name": str(n), "maybe": None} for n in range(500)]}}
    }
    _, headers, _ = await ask(edge, 'mutation { a: note(text: "") b: note(text: "") c: note(text: "") }', address)
    assert headers["ratelimit"].startswith('"address";r=93;')


@pytest.mark.parametrize("bad", ["{", "{ nosuch }", "query($n: Int!) { items(first: $n) { nodes { name } } }"])
async def test_requests_that_cannot_be_executed_count_too(redis: Redis, address: str, bad: str) -> None:
    edge = limited(redis, rate_limit_per_ip_minute=2)

    first, _, _ = await ask(edge, bad, address)
    second, headers, _ = await ask(edge, bad, address)
    third, _, _ = await ask(edge, bad, address)

    assert (first, second, third) == (200, 200, 429)
    assert headers["ratelimit"].startswith('"address";r=0;')


async def test_an_accounts_requests_count_together_from_all_its_addresses(redis: Redis, address: str) -> None:
    edge = limited(redis, rate_limit_per_account_minute=3)
    token = {"authorization": f"Bearer {GOOD_TOKEN}"}

    replies = [await ask(edge, "{ rate }", f"{address}{digit}", **token) for digit in range(4)]

    assert [body for _, _, body in replies[:3]] == [{"data": {"rate": f"1 {left}/3"}} for left in (2, 1, 0)]
    assert replies[3][0] == 429
    assert replies[0][1]["ratelimit-policy"] == '"address";q=6000;w=60, "account";q=3;w=60'


async def test_who_asks_is_looked_up_anew_for_each_request(redis: Redis, address: str) -> None:
    edge = limited(redis)
    token = {"authorization": f"Bearer {GOOD_TOKEN}"}
    with patch.object(StubAuthenticator, "principal", autospec=True, side_effect=StubAuthenticator.principal) as asked:
        for _ in range(3):
            assert (await ask(edge, "{ who }", address, **token))[2] == {"data": {"who": "account 7"}}

    assert asked.call_count == 3


def padded(query: str, length: int) -> str:
    """The query, filled up with blanks to `length` characters."""
    return query + " " * (length - len(query))


def kept(edge: Edge, text: str) -> bool:
    assert isinstance(edge.app, GraphQLEndpoint)
    return text in edge.app.operations.cache


@pytest.mark.parametrize(
    ("length", "points"),
    [
        (READ_FREE_CHARACTERS, 0),
        (READ_FREE_CHARACTERS + CHARACTERS_PER_POINT - 1, 0),
        (READ_FREE_CHARACTERS + CHARACTERS_PER_POINT, 1),
        (READ_FREE_CHARACTERS + 9 * CHARACTERS_PER_POINT, 9),
    ],
)
async def test_a_long_document_costs_points_until_it_is_kept(
    redis: Redis, address: str, length: int, points: int
) -> None:
    edge, query = limited(redis, rate_limit_per_ip_minute=100), padded("{ rate }", length)

    assert (await ask(edge, query, address))[2] == {"data": {"rate": f"1 {99 - points}/100"}}
    assert kept(edge, query)
    assert (await ask(edge, query, address))[2] == {"data": {"rate": f"1 {98 - points}/100"}}


async def test_a_document_too_long_for_what_is_left_is_refused_unread(redis: Redis, address: str) -> None:
    edge, query = limited(redis, rate_limit_per_ip_minute=10), padded('mutation { note(text: "x") }', 2_000)
    assert (await ask(edge, query, address))[0] == 429
    assert not kept(edge, query)
    assert done == []
    assert await redis.get(f"megatron:rate:ip:{address}") == b"20"

    with patch.object(operation_cache, "parse") as parse:
        for text in ("{ hello }", "{", query):
            status, headers, body = await ask(edge, text, address)

            assert (status, isinstance(body, dict) and body["errors"][0]["extensions"]["code"]) == (429, "RATE_LIMITED")
            assert headers["ratelimit"].startswith('"address";r=0;t=')
            assert not kept(edge, text)
    assert not parse.called
    assert await redis.get(f"megatron:rate:ip:{address}") == b"20"
    assert (await ask(edge, query, f"{address}7"))[0] == 429
    assert (await ask(edge, "{ hello }", f"{address}8"))[0] == 200


async def test_a_kept_document_is_not_refused_for_its_length(redis: Redis, address: str) -> None:
    edge, query = limited(redis, rate_limit_per_ip_minute=25), padded("{ rate }", 2_000)
    assert (await ask(edge, query, address))[2] == {"data": {"rate": "1 4/25"}}

    assert [(await ask(edge, query, address))[0] for _ in range(5)] == [200, 200, 200, 200, 429]
    assert (await ask(edge, query, f"{address}9"))[2] == {"data": {"rate": "1 24/25"}}


async def test_without_redis_or_limits_a_long_document_is_read(address: str) -> None:
    query = padded("{ hello }", 90_000)

    assert (await ask(limited(None), query, address))[0] == 200
    assert (await ask(make_edge(), query, address))[0] == 200


async def test_a_token_that_has_ended_uses_up_its_owners_limit_once_at_most(redis: Redis, address: str) -> None:
    edge, token = limited(redis), {"authorization": f"Bearer {GOOD_TOKEN}"}
    counted = f"megatron:rate:account:{ALICE.account_id}"
    assert (await ask(edge, "{ who }", address, **token))[2] == {"data": {"who": "account 7"}}
    assert await redis.get(counted) == b"1"

    async def ended(_: StubAuthenticator, token: str | None) -> Principal:
        if token is None:
            return ANONYMOUS
        raise Unauthenticated("This token is unknown, expired or revoked: log in again.")

    with patch.object(StubAuthenticator, "principal", ended):
        statuses = [(await ask(edge, "{ who }", address, **token))[0] for _ in range(4)]
    assert statuses == [401] * 4
    await edge.services.rate_limiter.close()
    # What was counted while nobody knew yet that the token had ended is all.
    assert await redis.get(counted) == b"2"
    assert await redis.get(f"megatron:rate:ip:{address}") == b"5"
    assert (await ask(edge, "{ who }", address, **token))[2] == {"data": {"who": "account 7"}}
    assert await redis.get(counted) == b"3"


async def test_without_redis_requests_pass_without_headers(address: str) -> None:
    edge = limited(None)

    status, headers, body = await ask(edge, "{ rate }", address)

    assert (status, body) == (200, {"data": {"rate": "off"}})
    assert not [name for name in headers if name.startswith("ratelimit")]
