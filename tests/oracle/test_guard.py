"""Retries, the breaker and the HTTP exchange, to the second: the clock, chance and sleep are the tests' own."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from app.oracle.guard import (
    ANSWER_BYTES_MAX,
    Address,
    AttemptFailed,
    Breaker,
    BreakerState,
    BudgetSpent,
    Endpoint,
    Guard,
    Json,
    Policy,
    ProviderFailed,
    ProviderMisconfigured,
    Timing,
    Unusable,
    open_client,
)
from tests.oracle.provider_server import SEARCH, Answer, ProviderServer, organic, provider_server

KEY = "key-that-must-never-be-seen-0123456789"
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
POLICY = Policy(seconds_max=15.0, attempt_seconds_max=8.0)
HASTY = Policy(seconds_max=0.6, attempt_seconds_max=0.2)


@dataclass
class Clock:
    """Time that passes only by sleeping; chance that always says `chance`."""

    seconds: float = 0.0
    chance: float = 0.5
    slept: list[float] = field(default_factory=list)

    @property
    def timing(self) -> Timing:
        return Timing(lambda: self.seconds, lambda: START + timedelta(seconds=self.seconds), self.random, self.sleep)

    def random(self) -> float:
        return self.chance

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds


@dataclass
class Counter:
    """Counts without end, or up to `limit`."""

    limit: int = 10**9
    taken: int = 0

    async def take(self, provider: str) -> None:
        if self.taken >= self.limit:
            raise BudgetSpent(provider, "has nothing left")
        self.taken += 1


Attempt = Callable[[float], Awaitable[str]]


@dataclass
class Provider:
    """Fails as the script says, then answers."""

    script: list[Exception] = field(default_factory=list)
    given: list[float] = field(default_factory=list)

    async def attempt(self, seconds: float) -> str:
        self.given.append(seconds)
        if self.script:
            raise self.script.pop(0)
        return "answer"


def passing(retry_after: float | None = None) -> AttemptFailed:
    return AttemptFailed("was busy", is_passing=True, retry_after_seconds=retry_after)


def guard(clock: Clock, counter: Counter | None = None, policy: Policy = POLICY) -> Guard:
    return Guard("serper", counter=counter or Counter(), policy=policy, timing=clock.timing)


async def expect_failure(asked: Guard, attempt: Attempt) -> ProviderFailed:
    with pytest.raises(ProviderFailed) as caught:
        await asked.call(attempt)
    return caught.value


def expect_state(breaker: Breaker, state: BreakerState) -> None:
    assert breaker.state is state


# ------------------------------------------------------------------------------------------------------------ retries


async def test_a_passing_failure_is_tried_again_after_a_back_off_with_full_jitter() -> None:
    clock, counter, provider = Clock(chance=0.5), Counter(), Provider([passing(), passing()])
    assert await guard(clock, counter).call(provider.attempt) == "answer"
    assert clock.slept == [0.25, 0.5]  # half of 0.5 s, half of 1 s
    assert counter.taken == 3
    assert provider.given == [8.0, 8.0, 8.0]


async def test_no_more_than_three_attempts() -> None:
    clock, counter, provider = Clock(), Counter(), Provider([passing() for _ in range(9)])
    failed = await expect_failure(guard(clock, counter), provider.attempt)
    assert (str(failed), failed.provider, failed.detail) == ("serper was busy", "serper", "was busy")
    assert failed.retry_after_seconds is None
    assert counter.taken == 3


async def test_what_will_not_pass_is_not_tried_again() -> None:
    clock, counter, provider = Clock(), Counter(), Provider([AttemptFailed("refused the key")])
    await expect_failure(guard(clock, counter), provider.attempt)
    assert (counter.taken, clock.slept) == (1, [])


async def test_attempts_share_the_calls_time() -> None:
    clock = Clock(chance=0.0)
    given: list[float] = []

    async def slow(seconds: float) -> str:
        given.append(seconds)
        clock.seconds += seconds
        raise passing()

    await expect_failure(guard(clock), slow)
    assert given == [8.0, 7.0]
    assert clock.seconds == 15.0


async def test_an_attempt_that_would_have_no_time_is_not_begun() -> None:
    clock, counter = Clock(chance=0.0), Counter()

    async def slow(_: float) -> str:
        clock.seconds += 14.5
        raise passing()

    await expect_failure(guard(clock, counter), slow)
    assert counter.taken == 1


async def test_a_short_retry_after_is_waited_for_and_jitter_comes_on_top() -> None:
    clock, provider = Clock(chance=0.5), Provider([passing(2.0)])
    asked = guard(clock)
    assert await asked.call(provider.attempt) == "answer"
    assert clock.slept == [2.25]
    expect_state(asked.breaker, BreakerState.CLOSED)


async def test_a_long_retry_after_opens_the_breaker_until_then() -> None:
    clock, counter, provider = Clock(), Counter(), Provider([passing(120.0)])
    asked = guard(clock, counter)
    failed = await expect_failure(asked, provider.attempt)
    assert (failed.retry_after_seconds, clock.slept, counter.taken) == (120.0, [], 1)
    clock.seconds = 119.0
    failed = await expect_failure(asked, provider.attempt)
    assert failed.detail == "is left alone for another 1 s; it last failed so: was busy"
    assert (failed.retry_after_seconds, counter.taken) == (1.0, 1)
    clock.seconds = 120.0
    assert await asked.call(provider.attempt) == "answer"
    expect_state(asked.breaker, BreakerState.CLOSED)


async def test_a_spent_budget_is_no_failure_of_the_provider() -> None:
    clock, provider = Clock(), Provider([passing() for _ in range(9)])
    counter = Counter(limit=2)
    asked = guard(clock, counter)
    with pytest.raises(BudgetSpent):
        await asked.call(provider.attempt)
    assert len(provider.given) == 2
    expect_state(asked.breaker, BreakerState.CLOSED)


# -------------------------------------------------------------------------------------------------------- the breaker


def fail(breaker: Breaker, times: int = 1, *, hold_seconds: float = 0.0) -> None:
    for _ in range(times):
        ticket = breaker.admit()
        assert ticket is not None
        breaker.failure(ticket, detail="was busy", hold_seconds=hold_seconds)


def test_five_failures_in_a_row_open_it_and_an_answer_in_between_does_not() -> None:
    breaker = Breaker(lambda: 0.0)
    fail(breaker, 4)
    ticket = breaker.admit()
    assert ticket is not None
    breaker.success(ticket)
    fail(breaker, 4)
    expect_state(breaker, BreakerState.CLOSED)
    fail(breaker)
    expect_state(breaker, BreakerState.OPEN)
    assert breaker.seconds_left == 30.0
    assert breaker.admit() is None


def test_each_failed_trial_doubles_the_time_up_to_five_minutes() -> None:
    clock = Clock()
    breaker = Breaker(lambda: clock.seconds)
    fail(breaker, 5)
    waits = []
    for _ in range(6):
        waits.append(breaker.seconds_left)
        clock.seconds += breaker.seconds_left
        expect_state(breaker, BreakerState.HALF_OPEN)
        fail(breaker)
    assert waits == [30.0, 60.0, 120.0, 240.0, 300.0, 300.0]
    clock.seconds += 300
    ticket = breaker.admit()
    assert ticket is not None
    breaker.success(ticket)
    fail(breaker, 5)
    assert breaker.seconds_left == 30.0  # an answer makes up for everything


def test_half_open_lets_one_through() -> None:
    clock = Clock()
    breaker = Breaker(lambda: clock.seconds)
    fail(breaker, 5)
    clock.seconds = 30.0
    trial = breaker.admit()
    assert trial is not None
    assert breaker.admit() is None
    breaker.abandon(trial)
    trial = breaker.admit()
    assert trial is not None
    assert breaker.admit() is None
    breaker.success(trial)
    expect_state(breaker, BreakerState.CLOSED)
    assert breaker.admit() is not None


def test_outcomes_of_an_earlier_time_change_nothing() -> None:
    clock = Clock()
    breaker = Breaker(lambda: clock.seconds)
    early = [breaker.admit() for _ in range(4)]
    fail(breaker, 5)
    first, second, third, fourth = (ticket for ticket in early if ticket is not None)
    breaker.failure(first, detail="late")
    breaker.success(second)
    assert breaker.seconds_left == 30.0
    expect_state(breaker, BreakerState.OPEN)
    clock.seconds = 30.0
    trial = breaker.admit()
    breaker.abandon(third)
    assert breaker.admit() is None
    assert trial is not None
    breaker.success(trial)
    breaker.failure(fourth, detail="late")
    fail(breaker, 4)
    expect_state(breaker, BreakerState.CLOSED)


def test_a_late_wish_to_be_left_alone_is_heeded_all_the_same() -> None:
    clock = Clock()
    breaker = Breaker(lambda: clock.seconds)
    early = breaker.admit()
    assert early is not None
    fail(breaker, 5)
    breaker.failure(early, detail="late", hold_seconds=100.0)
    assert breaker.seconds_left == 100.0
    assert breaker.admit() is None


def test_the_longer_of_both_waits_counts() -> None:
    breaker = Breaker(lambda: 0.0)
    fail(breaker, 4)
    fail(breaker, hold_seconds=900.0)
    assert breaker.seconds_left == 900.0


async def test_a_cancelled_trial_leaves_the_way_free_for_the_next() -> None:
    clock, provider = Clock(), Provider()
    asked = guard(clock)
    fail(asked.breaker, 5)
    clock.seconds = 30.0
    begun, never = asyncio.Event(), asyncio.Event()

    async def stuck(_: float) -> str:
        begun.set()
        await never.wait()
        return "never"

    trial = asyncio.create_task(asked.call(stuck))
    await begun.wait()
    waiting = await expect_failure(asked, provider.attempt)
    assert waiting.detail.startswith("is left alone until the one request that tries it has its answer")
    trial.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trial
    assert await asked.call(provider.attempt) == "answer"


async def test_of_fifty_who_ask_a_recovering_provider_one_gets_through() -> None:
    clock, counter = Clock(), Counter()
    asked = guard(clock, counter)
    fail(asked.breaker, 5)
    clock.seconds = 30.0
    gate = asyncio.Event()

    async def waits(_: float) -> str:
        await gate.wait()
        return "answer"

    asking = [asyncio.create_task(asked.call(waits)) for _ in range(50)]
    done, waiting = await asyncio.wait(asking, return_when=asyncio.FIRST_EXCEPTION)
    gate.set()
    outcomes = await asyncio.gather(*done, *waiting, return_exceptions=True)
    assert outcomes.count("answer") == 1
    assert sum(isinstance(outcome, ProviderFailed) for outcome in outcomes) == 49
    assert counter.taken == 1


# ------------------------------------------------------------------------------------------------------- the exchange


@pytest.fixture
async def server() -> AsyncIterator[ProviderServer]:
    async with provider_server() as running:
        running.results = [organic("https://one.example/")]
        yield running


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with open_client() as opened:
        yield opened


@dataclass
class Asked:
    clock: Clock
    counter: Counter
    endpoint: Endpoint

    async def post(self) -> Json:
        return await self.endpoint.post({"q": "x", "num": 1}, _whole)

    async def failure(self) -> ProviderFailed:
        with pytest.raises(ProviderFailed) as caught:
            await self.post()
        assert KEY not in repr(caught.value)
        assert caught.value.__cause__ is None
        return caught.value


def _whole(answer: Json) -> Json:
    if "organic" not in answer:
        raise Unusable("it has no list of results")
    return answer


def address(url: str, own_faults: frozenset[int] = frozenset()) -> Address:
    return Address(url, "SERPER_API_URL", "SERPER_API_KEY", ("x-api-key", ""), own_faults)


def ask(
    client: httpx.AsyncClient,
    url: str,
    *,
    policy: Policy = POLICY,
    key: str | None = KEY,
    own_faults: frozenset[int] = frozenset(),
) -> Asked:
    clock, counter = Clock(chance=0.0), Counter()
    asked = guard(clock, counter, policy)
    return Asked(clock, counter, Endpoint(client=client, guard=asked, address=address(url, own_faults), key=key))


async def test_the_key_travels_in_its_header_only(server: ProviderServer, client: httpx.AsyncClient) -> None:
    asked = ask(client, f"{server.serper_url}/search")
    assert (await asked.post())["credits"] == 1
    request = server.searches[0]
    assert request.headers["x-api-key"] == KEY
    assert "authorization" not in request.headers
    assert request.json == {"q": "x", "num": 1}
    assert KEY not in f"{asked.endpoint!r} {asked.endpoint} {asked.endpoint.guard!r}"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 599])
async def test_busy_and_broken_providers_are_asked_again(
    server: ProviderServer, client: httpx.AsyncClient, status: int
) -> None:
    asked = ask(client, f"{server.serper_url}/search")
    server.script(SEARCH, Answer(status=status), Answer(status=status))
    await asked.post()
    assert asked.counter.taken == len(server.searches) == 3


@pytest.mark.parametrize(
    ("status", "detail"),
    [
        (400, "answered with HTTP 400: Not enough credits"),
        (401, "refused the key (HTTP 401): set SERPER_API_KEY to a valid one"),
        (403, "refused the key (HTTP 403): set SERPER_API_KEY to a valid one"),
        (404, "answered with HTTP 404: Not enough credits"),
        (204, "answered with HTTP 204"),
    ],
)
async def test_what_the_provider_refuses_is_not_asked_again(
    server: ProviderServer, client: httpx.AsyncClient, status: int, detail: str
) -> None:
    asked = ask(client, f"{server.serper_url}/search")
    body = b"" if status == 204 else b'{"message": "Not enough\\ncredits", "statusCode": 400}'
    server.always(SEARCH, Answer(status=status, body=body))
    assert (await asked.failure()).detail == detail
    assert len(server.searches) == 1
    for _ in range(4):
        await asked.failure()
    expect_state(asked.endpoint.guard.breaker, BreakerState.OPEN)


async def test_a_provider_that_asks_for_a_key_is_quoted_so(server: ProviderServer, client: httpx.AsyncClient) -> None:
    server.always(SEARCH, Answer(status=401))
    failed = await ask(client, f"{server.serper_url}/search", key=None).failure()
    assert failed.detail == "asks for a key (HTTP 401): set SERPER_API_KEY to a valid one"


async def test_a_request_that_is_refused_by_its_own_fault_does_not_open_the_breaker(
    server: ProviderServer, client: httpx.AsyncClient
) -> None:
    asked = ask(client, f"{server.serper_url}/search", own_faults=frozenset({400}))
    server.always(SEARCH, Answer(status=400, body=b'{"error": {"message": "too many tokens"}}'))
    for _ in range(8):
        assert (await asked.failure()).detail == "answered with HTTP 400: too many tokens"
    expect_state(asked.endpoint.guard.breaker, BreakerState.CLOSED)


async def test_redirects_are_not_followed(server: ProviderServer, client: httpx.AsyncClient) -> None:
    async with provider_server() as other:
        server.always(SEARCH, Answer(status=302, headers={"location": f"{other.serper_url}/search"}, body=b""))
        failed = await ask(client, f"{server.serper_url}/search").failure()
        assert failed.detail == (
            "answered with a redirect (HTTP 302), and the key goes nowhere else:"
            " set SERPER_API_URL to the address itself"
        )
        assert other.requests == []


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ("2", [2.0]),
        ("0", [0.0]),
        ("Sun, 01 Mar 2026 12:00:03 GMT", [3.0]),
        ("Sun, 01 Mar 2026 11:00:00 GMT", [0.0]),
        ("soon", [0.0]),
        ("-5", [0.0]),
        ("Sun, 01 Mar 99999999999 12:00:03 GMT", [0.0]),
        ("٣", [0.0]),
    ],
)
async def test_retry_after_is_read_in_both_forms(
    server: ProviderServer, client: httpx.AsyncClient, retry_after: str, seconds: list[float]
) -> None:
    asked = ask(client, f"{server.serper_url}/search")
    if not retry_after.isascii():
        retry_after = retry_after.encode().decode("latin-1")
    server.script(SEARCH, Answer(status=429, retry_after=retry_after))
    await asked.post()
    assert asked.clock.slept == seconds


async def test_the_providers_own_clock_counts_for_its_dates(server: ProviderServer, client: httpx.AsyncClient) -> None:
    asked = ask(client, f"{server.serper_url}/search")
    dates = {"date": "Sun, 01 Mar 2026 18:00:00 GMT"}
    server.script(SEARCH, Answer(status=503, retry_after="Sun, 01 Mar 2026 18:00:04 GMT", headers=dates))
    await asked.post()
    assert asked.clock.slept == [4.0]


@pytest.mark.parametrize(("retry_after", "seconds"), [("60", 60.0), ("86400", 3600.0), ("9999999999", 3600.0)])
async def test_a_long_retry_after_is_heeded_up_to_an_hour(
    server: ProviderServer, client: httpx.AsyncClient, retry_after: str, seconds: float
) -> None:
    asked = ask(client, f"{server.serper_url}/search")
    server.script(SEARCH, Answer(status=429, retry_after=retry_after))
    assert (await asked.failure()).retry_after_seconds == seconds
    await asked.failure()
    assert len(server.searches) == 1
    asked.clock.seconds += seconds
    await asked.post()
    assert len(server.searches) == 2


async def test_a_slow_provider_is_given_up(server: ProviderServer, client: httpx.AsyncClient) -> None:
    asked = ask(client, f"{server.serper_url}/search", policy=HASTY)
    server.always(SEARCH, Answer(delay_seconds=30.0))
    assert (await asked.failure()).detail == "did not answer within 0.2 s"
    assert asked.counter.taken == 3


async def test_a_dripping_answer_is_given_up(server: ProviderServer, client: httpx.AsyncClient) -> None:
    asked = ask(client, f"{server.serper_url}/search", policy=HASTY)
    server.always(SEARCH, Answer(drip_seconds=0.05))
    assert (await asked.failure()).detail == "did not answer within 0.2 s"


async def test_a_status_counts_though_its_body_never_ends(server: ProviderServer, client: httpx.AsyncClient) -> None:
    asked = ask(client, f"{server.serper_url}/search")
    server.script(SEARCH, Answer(status=429, retry_after="60", body=b"x" * 2**20, drip_seconds=0.05))
    failed = await asked.failure()
    assert (failed.detail, failed.retry_after_seconds) == ("answered with HTTP 429", 60.0)


async def test_a_provider_that_is_not_there_is_named_with_what_to_do(client: httpx.AsyncClient) -> None:
    async with provider_server() as gone:
        url = f"{gone.serper_url}/search"
    asked = ask(client, url)
    assert (await asked.failure()).detail == "cannot be reached: check the network and SERPER_API_URL"
    assert asked.counter.taken == 3


async def test_broken_connections_are_tried_again(server: ProviderServer, client: httpx.AsyncClient) -> None:
    asked = ask(client, f"{server.serper_url}/search")
    server.script(SEARCH, Answer(is_cut=True), Answer(is_cut=True, body=b'{"organic": []}'))
    await asked.post()
    assert len(server.searches) == 3


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (Answer(body=b"<html>"), "answered with what is no answer: it is no JSON"),
        (Answer(body=b""), "answered with what is no answer: it is no JSON"),
        (Answer(body=b"[" * 100_000), "answered with what is no answer: it is no JSON"),
        (Answer(body=b'{"organic": NaN}'), "answered with what is no answer: it is no JSON"),
        (Answer(body=b'"\xff"'), "answered with what is no answer: it is no JSON"),
        (Answer(body=b'"\\ud800"'), "answered with what is no answer: it is no JSON object"),
        (Answer(body=b"[]"), "answered with what is no answer: it is no JSON object"),
        (Answer(body=b"{}"), "answered with what is no answer: it has no list of results"),
        (Answer(body=b" " * (ANSWER_BYTES_MAX + 1)), f"answered with more than {ANSWER_BYTES_MAX} bytes"),
        (
            Answer(body=gzip.compress(b" " * 50 * 2**20), headers={"content-encoding": "gzip"}),
            f"answered with more than {ANSWER_BYTES_MAX} bytes",
        ),
        (Answer(body=b"no gzip", headers={"content-encoding": "gzip"}), "answered with what is no gzip"),
        (
            Answer(body=b"{}", headers={"content-encoding": "br"}),
            "answered in an encoding that was not asked for: 'br'",
        ),
    ],
)
async def test_a_200_with_nonsense_is_a_failure_and_counts(
    server: ProviderServer, client: httpx.AsyncClient, answer: Answer, detail: str
) -> None:
    asked = ask(client, f"{server.serper_url}/search")
    server.always(SEARCH, answer)
    for _ in range(5):
        assert (await asked.failure()).detail == detail
    assert asked.counter.taken == 5
    expect_state(asked.endpoint.guard.breaker, BreakerState.OPEN)


async def test_compressed_answers_are_read(server: ProviderServer, client: httpx.AsyncClient) -> None:
    packed = gzip.compress(b'{"organic": [1, 2]}')
    server.script(SEARCH, Answer(body=packed, headers={"content-encoding": "gzip"}))
    assert await ask(client, f"{server.serper_url}/search").post() == {"organic": [1, 2]}


async def test_a_provider_that_quotes_the_key_does_not_spread_it(
    server: ProviderServer, client: httpx.AsyncClient
) -> None:
    # Where the text is cut, half a key must not be left either.
    server.always(SEARCH, Answer(status=400, body=f"{'x' * 190} {KEY} was sent".encode()))
    failed = await ask(client, f"{server.serper_url}/search").failure()
    assert failed.detail == f"answered with HTTP 400: {'x' * 190} [redacted..."


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel", "x" * 5_000, "nul\0"])
async def test_a_key_that_cannot_be_sent_is_refused_without_quoting_it(client: httpx.AsyncClient, key: str) -> None:
    with pytest.raises(ProviderMisconfigured) as caught:
        ask(client, "https://api.example/search", key=key)
    assert str(caught.value) == (
        "SERPER_API_KEY must be a key of printable ASCII characters without blanks: copy it again"
    )


@pytest.mark.parametrize(
    "url",
    ["ftp://api.example", "api.example", "https://", "https://me:secret@api.example", "https://api.example?key=secret"],
)
async def test_an_address_that_is_none_is_refused_without_quoting_it(client: httpx.AsyncClient, url: str) -> None:
    with pytest.raises(ProviderMisconfigured, match="SERPER_API_URL must be an address such as") as caught:
        ask(client, url)
    assert "secret" not in str(caught.value)
