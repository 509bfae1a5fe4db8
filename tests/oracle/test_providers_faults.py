"""Providers that are down, slow, busy or mistaken, over real sockets: what they are asked meanwhile, and that it stops
and begins again by itself. Minutes pass on a clock of the test's own."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from app.bus import Bus
from app.db import Database
from app.oracle.guard import BreakerState, BudgetSpent, Policy, ProviderFailed, ProviderMisconfigured, Timing
from app.oracle.prompts import Prompt
from app.oracle.providers import PROVIDERS, Providers, open_providers
from app.oracle.similarity import Embeddings
from tests.conftest import make_settings
from tests.oracle.provider_server import MODEL, SEARCH, Answer, ProviderServer, organic, provider_server
from workers.hosting import Host
from workers.oracle import _similarity

SERPER_KEY, MODEL_KEY = "serper-key-never-seen-1", "hf_key_never_seen_2"
HASTY = Policy(seconds_max=0.6, attempt_seconds_max=0.2)
PATIENT = Policy(seconds_max=60.0, attempt_seconds_max=60.0)
PROMPT = Prompt(({"role": "user", "content": "What?"},), "0" * 64)
RUN_SECONDS = 5


@dataclass
class Clock:
    """Passes when told; sleeping takes no time, so that a run is an instant."""

    seconds: float = 0.0

    @property
    def timing(self) -> Timing:
        return Timing(lambda: self.seconds, lambda: datetime.now(UTC), lambda: 0.0, self.sleep)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


@pytest.fixture
async def server() -> AsyncIterator[ProviderServer]:
    async with provider_server() as running:
        running.results = [organic("https://one.example/")]
        yield running


@pytest.fixture
async def own_database(fresh_database_url: str) -> AsyncIterator[Database]:
    """One whose budgets nobody else spends."""
    opened_one = await Database.open(make_settings(database_url=fresh_database_url))
    yield opened_one
    await opened_one.close()


@asynccontextmanager
async def opened(
    database: Database, server: ProviderServer, *, clock: Clock | None = None, policy: Policy = PATIENT, **settings: Any
) -> AsyncIterator[Providers]:
    chosen = make_settings(
        serper_api_url=server.serper_url,
        serper_api_key=SERPER_KEY,
        huggingface_api_url=server.huggingface_url,
        huggingface_api_key=MODEL_KEY,
        **settings,
    )
    timing = (clock or Clock()).timing
    providers = await open_providers(chosen, database, None, timing=timing, search_policy=policy, model_policy=policy)
    try:
        yield providers
    finally:
        await providers.aclose()


async def search(providers: Providers) -> str:
    """ "found", or why not."""
    assert providers.search is not None
    try:
        await providers.search.find("x", results=5, ttl_seconds=0)
    except ProviderFailed as failed:
        return failed.detail
    return "found"


async def read(providers: Providers) -> str:
    assert providers.model is not None
    try:
        await providers.model.complete(PROMPT)
    except ProviderFailed as failed:
        return failed.detail
    return "read"


async def requests_counted(database: Database, provider: str) -> int:
    async with database.acquire() as connection:
        count: int | None = await connection.fetchval(
            "SELECT requests FROM oracle_usage WHERE provider = $1 AND day = (now() AT TIME ZONE 'UTC')::date", provider
        )
    return count or 0


async def test_500s_for_ten_minutes_cost_nine_requests_and_pass_by_themselves(
    own_database: Database, server: ProviderServer
) -> None:
    clock = Clock()
    server.always(SEARCH, Answer(status=500))
    asked_at: list[float] = []
    async with opened(own_database, server, clock=clock) as providers:
        while clock.seconds < 600:
            before = len(server.searches)
            assert await search(providers) != "found"
            assert await read(providers) == "read"  # the other provider is none the worse
            asked_at += [clock.seconds] * (len(server.searches) - before)
            clock.seconds += RUN_SECONDS
        # Three attempts, two more until the breaker opens, then one each time it lets one through.
        assert asked_at == [0, 0, 0, 5, 5, 35, 95, 215, 455]
        server.always(SEARCH, None)
        outcomes: list[str] = []
        while outcomes[-1:] != ["found"]:
            outcomes.append(await search(providers))
            clock.seconds += RUN_SECONDS
        assert clock.seconds == 455 + 300 + RUN_SECONDS
        assert await search(providers) == "found"
        assert providers.breakers["serper"].state is BreakerState.CLOSED
    assert await requests_counted(own_database, "serper") == 9 + 2
    assert len(server.searches) == 9 + 2
    assert len(server.completions) == 120


async def test_a_slow_provider_costs_each_run_its_deadline_and_no_more_than_five_requests(
    own_database: Database, server: ProviderServer
) -> None:
    clock = Clock()
    server.always(MODEL, Answer(delay_seconds=30.0))
    async with opened(own_database, server, clock=clock, policy=HASTY) as providers:
        outcomes = [await read(providers) for _ in range(4)]
        assert outcomes[:2] == ["did not answer within 0.2 s"] * 2
        assert (
            outcomes[2:]
            == [
                "is left alone for another 30 s; it last failed so: did not answer within 0.2 s",
            ]
            * 2
        )
        assert len(server.completions) == 5
        server.always(MODEL, None)
        clock.seconds = 30.0
        assert await read(providers) == "read"
    assert await requests_counted(own_database, "huggingface") == 6


async def test_a_busy_provider_is_left_alone_for_as_long_as_it_wants(
    own_database: Database, server: ProviderServer
) -> None:
    clock = Clock()
    server.script(SEARCH, Answer(status=429, retry_after="120", body=b""))
    async with opened(own_database, server, clock=clock) as providers:
        outcomes: dict[float, str] = {}
        while clock.seconds <= 125:
            outcomes[clock.seconds] = await search(providers)
            clock.seconds += RUN_SECONDS
    assert outcomes[0] == "answered with HTTP 429"
    assert outcomes[115] == "is left alone for another 5 s; it last failed so: answered with HTTP 429"
    assert (outcomes[120], outcomes[125]) == ("found", "found")
    assert len(server.searches) == 3


async def test_a_provider_that_is_down_is_found_again_when_it_is_back(own_database: Database) -> None:
    clock = Clock()
    async with provider_server() as gone:
        port = gone.port
    async with opened(own_database, gone, clock=clock) as providers:
        for _ in range(3):
            assert "cannot be reached" in await search(providers)
        assert providers.breakers["serper"].state is BreakerState.OPEN
        back = ProviderServer()
        listening = await asyncio.start_server(back.serve, "127.0.0.1", port)
        clock.seconds = 30.0
        assert await search(providers) == "found"
        listening.close()
        await back.close()
        await listening.wait_closed()


async def test_attempts_of_failing_runs_count_and_never_exceed_the_budget(
    own_database: Database, server: ProviderServer
) -> None:
    clock = Clock()
    server.always(SEARCH, Answer(status=503))
    async with opened(own_database, server, clock=clock, search_requests_per_day=7) as providers:
        outcomes: list[str] = []
        for _ in range(400):
            outcomes.append(await search(providers))
            clock.seconds += RUN_SECONDS
        assert len(server.searches) == 7
        assert outcomes[-1].startswith("may be sent 7 requests a day")
        server.always(SEARCH, None)
        assert providers.search is not None
        with pytest.raises(BudgetSpent) as caught:
            await providers.search.find("x", results=5, ttl_seconds=0)
        assert caught.value.retry_after_seconds is not None
        assert await providers.budgets.left() == {"serper": 0, "huggingface": 5_000}
    assert await requests_counted(own_database, "serper") == 7


async def test_fifty_runs_at_once_in_two_processes_stay_within_the_budget(
    own_database: Database, server: ProviderServer
) -> None:
    server.always(MODEL, Answer(status=502))
    async with (
        opened(own_database, server, model_requests_per_day=12) as first,
        opened(own_database, server, model_requests_per_day=12) as second,
    ):
        server.script(MODEL, *[Answer()] * 6)
        await asyncio.gather(*(read((first, second)[at % 2]) for at in range(50)))
    assert len(server.completions) == 12
    assert await requests_counted(own_database, "huggingface") == 12


async def test_a_database_that_is_away_stops_the_asking_and_is_not_blamed_on_the_provider(
    fresh_database_url: str, server: ProviderServer
) -> None:
    database = await Database.open(make_settings(database_url=fresh_database_url))
    async with opened(database, server) as providers:
        await database.close()
        for _ in range(6):
            with pytest.raises(Exception, match="closed") as caught:
                await search(providers)
            assert not isinstance(caught.value, ProviderFailed)
        assert providers.breakers["serper"].state is BreakerState.CLOSED
    assert server.requests == []


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=401),
        Answer(status=500, body=b"bad key KEY"),
        Answer(status=302, headers={"location": "https://x.example/"}, body=b""),
        Answer(is_cut=True),
        Answer(body=b"nonsense"),
        Answer(delay_seconds=30.0),
        Answer(),
    ],
)
async def test_keys_are_in_no_message_and_no_log(
    database: Database, server: ProviderServer, caplog: pytest.LogCaptureFixture, answer: Answer
) -> None:
    caplog.set_level(logging.DEBUG)
    for kind, key in ((SEARCH, SERPER_KEY), (MODEL, MODEL_KEY)):
        body = answer.body and answer.body.replace(b"KEY", key.encode())
        server.always(kind, replace(answer, body=body))
    with structlog.testing.capture_logs() as logs:
        async with opened(database, server, policy=HASTY) as providers:
            said = [await search(providers), await read(providers), repr(providers), repr(providers.search)]
    for text in (caplog.text, repr(logs), *said):
        assert SERPER_KEY not in text
        assert MODEL_KEY not in text


async def test_without_keys_and_addresses_nothing_is_configured(database: Database) -> None:
    providers = await open_providers(make_settings(), database, None)
    assert (providers.search, providers.model, dict(providers.breakers)) == (None, None, {})
    assert set(await providers.budgets.left()) == set(PROVIDERS)
    await providers.aclose()


@pytest.mark.parametrize(
    ("settings", "configured"),
    [
        ({"serper_api_key": "k"}, {"serper"}),
        ({"serper_api_url": "http://127.0.0.1:1"}, {"serper"}),
        ({"serper_api_url": "https://google.serper.dev/"}, set()),
        ({"huggingface_api_key": "k"}, {"huggingface"}),
        ({"huggingface_api_url": "http://127.0.0.1:1/v1"}, {"huggingface"}),
        ({"huggingface_api_url": "https://router.huggingface.co/v1/"}, set()),
        ({"huggingface_embedding_model": "some/model"}, set()),
        (
            {"huggingface_embedding_model": "some/model", "huggingface_api_key": "k"},
            {"huggingface", "embeddings"},
        ),
        ({"serper_api_key": "", "huggingface_api_key": ""}, set()),
        ({"serper_api_key": "k", "huggingface_api_key": "k"}, {"serper", "huggingface"}),
    ],
)
async def test_a_key_or_an_address_of_ones_own_configures_a_provider(
    database: Database, settings: dict[str, str], configured: set[str]
) -> None:
    providers = await open_providers(make_settings(**settings), database, None)
    assert set(providers.breakers) == configured
    opened_ones = (providers.search, providers.model, providers.embeddings)
    assert [one is not None for one in opened_ones] == [
        name in configured for name in ("serper", "huggingface", "embeddings")
    ]
    await providers.aclose()


async def test_texts_are_compared_by_the_endpoint_whose_breaker_is_told(database: Database) -> None:
    settings = make_settings(huggingface_api_key="k", huggingface_embedding_model="some/model")
    providers = await open_providers(settings, database, None)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(providers.aclose)
        similarity = _similarity(Host(settings, database, None, Bus(None), "here"), providers, stack)
        assert similarity is not None
        assert isinstance(similarity._embedder, Embeddings)
        assert similarity._embedder.endpoint is providers.embeddings
        assert similarity._embedder.endpoint.guard.breaker is providers.breakers["embeddings"]


async def test_what_cannot_be_used_is_named_at_the_start(database: Database) -> None:
    with pytest.raises(ProviderMisconfigured, match="HUGGINGFACE_API_URL must be an address such as"):
        await open_providers(make_settings(huggingface_api_url="models.example/v1"), database, None)
    with pytest.raises(ProviderMisconfigured, match="SERPER_API_KEY must be a key") as caught:
        await open_providers(make_settings(serper_api_key="two words"), database, None)
    assert "two words" not in str(caught.value)


async def test_embeddings_that_fail_count_in_the_budget_and_leave_the_model_open(
    own_database: Database, server: ProviderServer
) -> None:
    async with opened(own_database, server, huggingface_embedding_model="some/model") as providers:
        endpoint = providers.embeddings
        assert endpoint is not None
        for _ in range(5):  # the server knows no such path
            with pytest.raises(ProviderFailed, match="answered with HTTP 404: no such page"):
                await endpoint.post({"input": ["a"]}, lambda answer: answer)
        assert server.requests[0].path == "/v1/embeddings"
        assert server.requests[0].headers["authorization"] == f"Bearer {MODEL_KEY}"
        assert providers.breakers["embeddings"].state is BreakerState.OPEN
        assert await read(providers) == "read"
    assert await requests_counted(own_database, "huggingface") == 6
