"""Searching by Serper's protocol over a real socket: what is asked, what is taken, what is kept."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
from redis.asyncio import Redis

from app.db import Database
from app.local.valkey import EmbeddedValkey, ephemeral_valkey
from app.oracle.guard import Policy, ProviderFailed
from app.oracle.providers import Providers, open_providers
from app.oracle.search import (
    CACHED_BYTES_MAX,
    PROVIDER,
    RESULTS_MAX,
    SNIPPET_CHARS_MAX,
    TITLE_CHARS_MAX,
    URL_CHARS_MAX,
    Found,
    SearchHit,
    WebSearch,
    decode_hits,
    encode_hits,
)
from app.services import connect_redis
from tests.conftest import make_settings
from tests.oracle.provider_server import SEARCH, Answer, ProviderServer, organic, provider_server

KEY = "serper-key-0123456789"
HASTY = Policy(seconds_max=0.6, attempt_seconds_max=0.2)
ONE = organic("https://one.example/a", title="One", snippet="It rose to 53,100.", date="2 days ago")
TWO = organic("http://two.example/b", title="Two")
HITS = (
    SearchHit("https://one.example/a", "One", "It rose to 53,100.", "2 days ago"),
    SearchHit("http://two.example/b", "Two", "Some words.", None),
)


@pytest.fixture
async def server() -> AsyncIterator[ProviderServer]:
    async with provider_server() as running:
        running.results = [ONE, TWO]
        yield running


@pytest.fixture
async def redis(valkey: EmbeddedValkey) -> AsyncIterator[Redis]:
    client = connect_redis(make_settings(redis_url=valkey.url))
    assert client is not None
    await client.flushall()
    yield client
    await client.aclose()


@asynccontextmanager
async def opened(
    database: Database, redis: Redis | None, server: ProviderServer, policy: Policy = HASTY, **settings: Any
) -> AsyncIterator[Providers]:
    chosen = make_settings(serper_api_url=server.serper_url, serper_api_key=KEY, **settings)
    providers = await open_providers(chosen, database, redis, search_policy=policy)
    try:
        yield providers
    finally:
        await providers.aclose()


def search_of(providers: Providers) -> WebSearch:
    assert providers.search is not None
    return providers.search


async def cost_of_today(database: Database) -> int:
    async with database.acquire() as connection:
        found: int | None = await connection.fetchval(
            "SELECT cost FROM oracle_usage WHERE provider = $1 AND day = (now() AT TIME ZONE 'UTC')::date", PROVIDER
        )
    return found or 0


async def test_a_search_over_the_wire(database: Database, redis: Redis, server: ProviderServer) -> None:
    before = await cost_of_today(database)
    async with opened(database, redis, server, search_request_cost=900) as providers:
        found = await search_of(providers).find("employment", results=5, ttl_seconds=300)
    assert found == Found(HITS, 900, is_cached=False)
    request = server.searches[0]
    assert (request.method, request.path) == ("POST", "/serper/search")
    assert request.headers["x-api-key"] == KEY
    assert request.headers["content-type"] == "application/json"
    assert request.json == {"q": "employment", "num": 5}
    assert await cost_of_today(database) == before + 900


async def test_no_more_hits_than_asked_for_and_each_once(
    database: Database, redis: Redis, server: ProviderServer
) -> None:
    body = json.dumps({"organic": [ONE, ONE, TWO, organic("https://three.example/")], "credits": 2}).encode()
    server.script(SEARCH, Answer(body=body))
    async with opened(database, redis, server, search_request_cost=900) as providers:
        assert await search_of(providers).find("x", results=2, ttl_seconds=300) == Found(HITS, 1_800, is_cached=False)


async def test_what_was_found_is_kept_for_its_time(database: Database, redis: Redis, server: ProviderServer) -> None:
    async with opened(database, redis, server) as providers:
        search = search_of(providers)
        await search.find("x", results=5, ttl_seconds=300)
        assert await search.find("x", results=5, ttl_seconds=300) == Found(HITS, 0, is_cached=True)
        (key,) = await redis.keys("megatron:oracle:search:*")
        assert 290 < await redis.ttl(key) <= 300
        await search.find("x", results=4, ttl_seconds=300)
        await search.find("y", results=5, ttl_seconds=300)
        assert len(server.searches) == 3
        await redis.flushall()
        assert not (await search.find("x", results=5, ttl_seconds=300)).is_cached


async def test_what_another_address_found_is_not_taken(
    database: Database, redis: Redis, server: ProviderServer
) -> None:
    async with provider_server() as other, opened(database, redis, server) as first:
        other.results = [TWO]
        await search_of(first).find("x", results=5, ttl_seconds=300)
        async with opened(database, redis, other) as second:
            assert (await search_of(second).find("x", results=5, ttl_seconds=300)).hits == HITS[1:]


@pytest.mark.parametrize("body", [b'{"searchParameters": {"q": "x"}}', b'{"organic": []}'])
async def test_a_search_without_hits_is_an_answer_and_not_kept(
    database: Database, redis: Redis, server: ProviderServer, body: bytes
) -> None:
    server.script(SEARCH, Answer(body=body))
    async with opened(database, redis, server) as providers:
        assert (await search_of(providers).find("x", results=5, ttl_seconds=300)).hits == ()
        assert (await search_of(providers).find("x", results=5, ttl_seconds=300)).hits == HITS


@pytest.mark.parametrize(
    "garbage", [b"x", b"[]", b"{}", b"[1]", b'[{"url": 1, "title": null, "snippet": null, "date": null}]',
                b'[{"url": "file:///etc/passwd", "title": null, "snippet": null, "date": null}]',
                b'[{"url": "https://a.example/", "title": "a\\nb", "snippet": null, "date": null}]',
                b'[{"url": "https://a.example/"}]', b"\xff", b"[" * (CACHED_BYTES_MAX + 9)]
)  # fmt: skip
async def test_garbage_in_the_cache_is_a_miss(
    database: Database, redis: Redis, server: ProviderServer, garbage: bytes
) -> None:
    async with opened(database, redis, server) as providers:
        search = search_of(providers)
        await search.find("x", results=5, ttl_seconds=300)
        (key,) = await redis.keys("megatron:oracle:search:*")
        await redis.set(key, garbage)
        assert await search.find("x", results=5, ttl_seconds=300) == Found(HITS, 1_000, is_cached=False)
        assert (await search.find("x", results=5, ttl_seconds=300)).is_cached


async def test_a_key_of_another_type_is_a_miss(database: Database, redis: Redis, server: ProviderServer) -> None:
    async with opened(database, redis, server) as providers:
        search = search_of(providers)
        await search.find("x", results=5, ttl_seconds=300)
        (key,) = await redis.keys("megatron:oracle:search:*")
        await redis.delete(key)
        await redis.xadd(key, {"a": "b"})
        with structlog.testing.capture_logs() as logs:
            assert (await search.find("x", results=5, ttl_seconds=300)).hits == HITS
    assert [log["event"] for log in logs] == ["oracle.search_without_cache"]


async def test_without_redis_every_search_is_made(database: Database, server: ProviderServer) -> None:
    async with opened(database, None, server) as providers:
        for _ in range(2):
            assert not (await search_of(providers).find("x", results=5, ttl_seconds=300)).is_cached
    assert len(server.searches) == 2


async def test_searches_go_on_when_redis_goes_away(database: Database, server: ProviderServer) -> None:
    with ephemeral_valkey() as valkey:
        client = connect_redis(make_settings(redis_url=valkey.url))
        assert client is not None
        async with opened(database, client, server) as providers:
            search = search_of(providers)
            await search.find("x", results=5, ttl_seconds=300)
            valkey.stop()
            with structlog.testing.capture_logs():
                assert await search.find("x", results=5, ttl_seconds=300) == Found(HITS, 1_000, is_cached=False)
        await client.aclose()


async def test_the_same_search_at_the_same_time_is_made_once(
    database: Database, redis: Redis, server: ProviderServer
) -> None:
    gate = asyncio.Event()
    server.always(SEARCH, Answer(gate=gate))
    async with opened(database, redis, server, Policy(60, 60)) as providers:
        search = search_of(providers)
        asking = [asyncio.create_task(search.find("x", results=5, ttl_seconds=300)) for _ in range(20)]
        await server.arrived(1)
        gate.set()
        found = await asyncio.gather(*asking)
    assert len(server.searches) == 1
    assert [each.hits for each in found] == [HITS] * 20
    assert sorted(each.cost for each in found) == [0] * 19 + [1_000]
    assert sum(each.is_cached for each in found) == 19


async def test_whoever_began_a_search_may_leave_and_the_others_still_get_it(
    database: Database, redis: Redis, server: ProviderServer
) -> None:
    gate = asyncio.Event()
    server.always(SEARCH, Answer(gate=gate))
    async with opened(database, redis, server, Policy(60, 60)) as providers:
        search = search_of(providers)
        first, second = (asyncio.create_task(search.find("x", results=5, ttl_seconds=300)) for _ in range(2))
        await server.arrived(1)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        gate.set()
        assert await second == Found(HITS, 1_000, is_cached=False)
    assert len(server.searches) == 1


async def test_a_search_that_nobody_wants_any_more_is_given_up(
    database: Database, redis: Redis, server: ProviderServer
) -> None:
    gate = asyncio.Event()
    server.script(SEARCH, Answer(gate=gate))
    async with opened(database, redis, server, Policy(60, 60)) as providers:
        search = search_of(providers)
        only = asyncio.create_task(search.find("x", results=5, ttl_seconds=300))
        await server.arrived(1)
        only.cancel()
        with pytest.raises(asyncio.CancelledError):
            await only
        # Whoever comes now does not wait for what was given up.
        assert await search.find("x", results=5, ttl_seconds=300) == Found(HITS, 1_000, is_cached=False)
        gate.set()
    assert len(server.searches) == 2


async def test_a_failure_is_everybodys_and_the_next_search_begins_anew(
    database: Database, redis: Redis, server: ProviderServer
) -> None:
    gate = asyncio.Event()
    server.script(SEARCH, Answer(status=401, gate=gate))
    async with opened(database, redis, server, Policy(60, 60)) as providers:
        search = search_of(providers)
        asking = [asyncio.create_task(search.find("x", results=5, ttl_seconds=300)) for _ in range(3)]
        await server.arrived(1)
        gate.set()
        outcomes = await asyncio.gather(*asking, return_exceptions=True)
        assert [str(outcome) for outcome in outcomes] == [
            "serper refused the key (HTTP 401): set SERPER_API_KEY to a valid one"
        ] * 3
        assert (await search.find("x", results=5, ttl_seconds=300)).hits == HITS


async def test_what_is_under_way_ends_with_the_providers(
    database: Database, redis: Redis, server: ProviderServer
) -> None:
    server.always(SEARCH, Answer(gate=asyncio.Event()))
    async with opened(database, redis, server, Policy(60, 60)) as providers:
        asking = asyncio.create_task(search_of(providers).find("x", results=5, ttl_seconds=300))
        await server.arrived(1)
    with pytest.raises(asyncio.CancelledError):
        await asking


@pytest.mark.parametrize(
    "link",
    ["ftp://a.example/", "javascript:alert(1)", "https://", "/relative", "https://a.example/ b", "https://[::1",
     "https://a.example/\u202eb", "https://a.example/\n", "https://a.example/" + "x" * URL_CHARS_MAX],
)  # fmt: skip
async def test_hits_without_a_usable_address_are_left_out(
    database: Database, server: ProviderServer, link: str
) -> None:
    server.results = [organic(link), TWO]
    async with opened(database, None, server) as providers:
        assert (await search_of(providers).find("x", results=5, ttl_seconds=300)).hits == HITS[1:]


async def test_texts_become_one_line_of_what_can_be_seen(database: Database, server: ProviderServer) -> None:
    server.results = [
        {"link": "https://a.example/", "title": " a\n\x00b\u202ec ", "snippet": "s" * 9_999, "date": 5},
        {"link": "https://b.example/", "title": "t" * 9_999, "snippet": "\u200b", "date": None},
    ]
    async with opened(database, None, server) as providers:
        found = await search_of(providers).find("x", results=5, ttl_seconds=300)
    assert found.hits == (
        SearchHit("https://a.example/", "a b c", "s" * SNIPPET_CHARS_MAX, None),
        SearchHit("https://b.example/", "t" * TITLE_CHARS_MAX, None, None),
    )


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        ({}, "it has no list of results"),
        ({"organic": {}}, "it has no list of results"),
        ({"organic": "none", "searchParameters": {}}, "it has no list of results"),
        ({"organic": [1]}, "a result in it has no link"),
        ({"organic": [{"title": "x"}]}, "a result in it has no link"),
        ({"organic": [{"link": 5}]}, "a result in it has no link"),
        ({"organic": [], "credits": -1}, "the credits that it says it cost are no number of credits"),
        ({"organic": [], "credits": True}, "the credits that it says it cost are no number of credits"),
        ({"organic": [], "credits": 1.5}, "the credits that it says it cost are no number of credits"),
        ({"organic": [], "credits": 10**6}, "the credits that it says it cost are no number of credits"),
    ],
)
async def test_nonsense_is_a_failure(
    database: Database, server: ProviderServer, answer: dict[str, Any], detail: str
) -> None:
    server.script(SEARCH, Answer(body=json.dumps(answer).encode()))
    async with opened(database, None, server) as providers:
        with pytest.raises(ProviderFailed) as caught:
            await search_of(providers).find("x", results=5, ttl_seconds=300)
    assert str(caught.value) == f"serper answered with what is no answer: {detail}"
    assert len(server.searches) == 1


@pytest.mark.parametrize(("query", "results"), [("", 5), ("x" * 501, 5), ("x", 0), ("x", RESULTS_MAX + 1)])
async def test_what_cannot_be_asked_is_refused(
    database: Database, server: ProviderServer, query: str, results: int
) -> None:
    async with opened(database, None, server) as providers:
        with pytest.raises(ValueError, match="a query has 1 to 500 characters and asks for 1 to 20 results"):
            await search_of(providers).find(query, results=results, ttl_seconds=300)
    assert server.requests == []


def test_what_is_cached_reads_back() -> None:
    assert decode_hits(encode_hits(HITS)) == HITS
