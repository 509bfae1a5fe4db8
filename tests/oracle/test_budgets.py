"""Budgets are never exceeded, whoever takes at once and whatever happens to Redis; PostgreSQL says what was taken."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta

import pytest
import structlog
from redis.asyncio import Redis

from app import clock
from app.db import Database
from app.local.valkey import EmbeddedValkey, ephemeral_valkey
from app.oracle.budgets import LIMIT_MAX, Budgets
from app.oracle.guard import BudgetSpent
from app.services import connect_redis
from tests.conftest import make_settings

_names = itertools.count(1)


@pytest.fixture
def provider() -> str:
    """One that nobody else uses: the database is shared, and Redis is too."""
    return f"provider-{next(_names)}"


def connect(url: str) -> Redis:
    """As production does."""
    client = connect_redis(make_settings(redis_url=url))
    assert client is not None
    return client


@pytest.fixture
async def redis(valkey: EmbeddedValkey) -> AsyncIterator[Redis]:
    client = connect(valkey.url)
    await client.flushall()
    yield client
    await client.aclose()


async def stored(database: Database, provider: str) -> tuple[int, int, int]:
    """Requests, tokens and cost of today."""
    async with database.acquire() as connection:
        row = await connection.fetchrow(
            "SELECT requests, tokens, cost FROM oracle_usage"
            " WHERE provider = $1 AND day = (now() AT TIME ZONE 'UTC')::date",
            provider,
        )
    return (row["requests"], row["tokens"], row["cost"]) if row else (0, 0, 0)


async def taken_of(budgets: Budgets, provider: str, times: int) -> int:
    """How many of `times` were granted."""
    granted = 0
    for _ in range(times):
        try:
            await budgets.take(provider)
            granted += 1
        except BudgetSpent:
            pass
    return granted


async def test_the_last_request_is_granted_and_the_next_refused(
    database: Database, redis: Redis, provider: str
) -> None:
    budgets = Budgets(database, redis, limits={provider: 3})
    for left in (3, 2, 1):
        assert await budgets.left() == {provider: left}
        await budgets.take(provider)
    assert await budgets.left() == {provider: 0}
    with pytest.raises(BudgetSpent) as caught:
        await budgets.take(provider)
    assert str(caught.value) == (
        f"{provider} may be sent 3 requests a day, and today's are used up: wait for midnight UTC, or raise the limit"
    )
    assert caught.value.retry_after_seconds is not None
    assert 0 < caught.value.retry_after_seconds <= 86_400
    assert await stored(database, provider) == (3, 0, 0)


async def test_a_budget_of_nothing_grants_nothing(database: Database, redis: Redis, provider: str) -> None:
    budgets = Budgets(database, redis, limits={provider: 0})
    with pytest.raises(BudgetSpent):
        await budgets.take(provider)
    assert await budgets.left() == {provider: 0}
    assert await stored(database, provider) == (0, 0, 0)


@pytest.mark.parametrize("limit", [-1, LIMIT_MAX + 1])
async def test_a_limit_that_is_none_is_refused(database: Database, provider: str, limit: int) -> None:
    with pytest.raises(ValueError, match=f"the daily requests to {provider} must be 0 to"):
        Budgets(database, None, limits={provider: limit})


async def test_a_spent_budget_is_refused_without_asking_postgresql(
    database: Database, redis: Redis, provider: str
) -> None:
    budgets = Budgets(database, redis, limits={provider: 1})
    await budgets.take(provider)
    async with database.transaction() as unit:
        # Whoever asked PostgreSQL would wait here for ever.
        await unit.connection.execute("LOCK TABLE oracle_usage IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(BudgetSpent):
            await budgets.take(provider)
        assert await budgets.left() == {provider: 0}


async def test_fifty_who_take_at_once_in_two_processes_while_redis_is_emptied(
    database: Database, redis: Redis, valkey: EmbeddedValkey, provider: str
) -> None:
    other = connect(valkey.url)
    both = [Budgets(database, client, limits={provider: 120}) for client in (redis, other)]

    is_over = asyncio.Event()

    async def empty_again_and_again() -> int:
        times = 0
        while not is_over.is_set():
            await redis.flushall()
            times += 1
        return times

    emptying = asyncio.create_task(empty_again_and_again())
    granted = await asyncio.gather(*(taken_of(both[at % 2], provider, 5) for at in range(50)))
    is_over.set()
    assert await emptying > 1
    assert sum(granted) == 120
    assert await stored(database, provider) == (120, 0, 0)
    assert [await budgets.left() for budgets in both] == [{provider: 0}] * 2
    await other.aclose()


async def test_fifty_who_take_at_once_while_redis_goes_away(database: Database, provider: str) -> None:
    with ephemeral_valkey() as server, structlog.testing.capture_logs():
        clients = [connect(server.url) for _ in range(2)]
        both = [Budgets(database, client, limits={provider: 90}) for client in clients]
        granted = await asyncio.gather(*(taken_of(both[at % 2], provider, 1) for at in range(50)))
        server.stop()
        granted += await asyncio.gather(*(taken_of(both[at % 2], provider, 1) for at in range(50)))
        assert [await budgets.left() for budgets in both] == [{provider: 0}] * 2
        for client in clients:
            await client.aclose()
    assert sum(granted) == 90
    assert await stored(database, provider) == (90, 0, 0)


async def test_without_redis_postgresql_is_asked(database: Database, provider: str) -> None:
    budgets = Budgets(database, None, limits={provider: 5})
    assert await taken_of(budgets, provider, 9) == 5
    assert await budgets.left() == {provider: 0}


async def test_what_redis_lost_is_set_again_from_postgresqls_answer(
    database: Database, redis: Redis, provider: str
) -> None:
    budgets = Budgets(database, redis, limits={provider: 10})
    await taken_of(budgets, provider, 4)
    await redis.flushall()
    assert await budgets.left() == {provider: 6}
    today = clock.now().date().isoformat()
    assert await redis.get(f"megatron:oracle:budget:{provider}") == f"{today} 4".encode()
    assert 0 < await redis.pttl(f"megatron:oracle:budget:{provider}") <= 60_000


@pytest.mark.parametrize(
    "garbage", [b"", b"9", b"\xff\xfe", b"2026-13-99 5", b"today 5", b"2026-01-01 -5", b"2026-01-01 " + b"9" * 50]
)
async def test_garbage_in_redis_is_as_good_as_nothing(
    database: Database, redis: Redis, provider: str, garbage: bytes
) -> None:
    budgets = Budgets(database, redis, limits={provider: 2})
    await redis.set(f"megatron:oracle:budget:{provider}", garbage)
    assert await budgets.left() == {provider: 2}
    await redis.set(f"megatron:oracle:budget:{provider}", garbage)
    assert await taken_of(budgets, provider, 3) == 2


async def test_a_key_of_another_type_in_redis_is_as_good_as_nothing(
    database: Database, redis: Redis, provider: str
) -> None:
    budgets = Budgets(database, redis, limits={provider: 2})
    await redis.xadd(f"megatron:oracle:budget:{provider}", {"a": "b"})
    with structlog.testing.capture_logs() as logs:
        assert await taken_of(budgets, provider, 3) == 2
    assert logs


async def test_answers_that_arrive_late_do_not_turn_the_count_back(
    database: Database, redis: Redis, provider: str
) -> None:
    budgets = Budgets(database, redis, limits={provider: 10})
    today = clock.now().date()
    key = f"megatron:oracle:budget:{provider}"
    await redis.set(key, f"{today.isoformat()} 8")
    await budgets.take(provider)
    assert await redis.get(key) == f"{today.isoformat()} 8".encode()
    await redis.set(key, f"{(today + timedelta(days=1)).isoformat()} 1")
    await budgets.take(provider)
    assert await redis.get(key) == f"{(today + timedelta(days=1)).isoformat()} 1".encode()


async def test_a_day_that_is_over_is_over(database: Database, redis: Redis, provider: str) -> None:
    yesterday: date = clock.now().date() - timedelta(days=1)
    async with database.acquire() as connection:
        await connection.execute(
            "INSERT INTO oracle_usage (provider, day, requests) VALUES ($1, $2, 2)", provider, yesterday
        )
    await redis.set(f"megatron:oracle:budget:{provider}", f"{yesterday.isoformat()} 2")
    budgets = Budgets(database, redis, limits={provider: 2})
    assert await budgets.left() == {provider: 2}
    assert await taken_of(budgets, provider, 3) == 2
    assert await stored(database, provider) == (2, 0, 0)


async def test_a_budget_ends_at_the_next_midnight_in_utc(database: Database, redis: Redis, provider: str) -> None:
    at = datetime(2026, 3, 1, 22, 30, tzinfo=UTC)
    budgets = Budgets(database, redis, limits={provider: 0}, now=lambda: at)
    with pytest.raises(BudgetSpent) as caught:
        await budgets.take(provider)
    assert caught.value.retry_after_seconds == 5_400.0


async def test_a_raised_limit_counts_at_once(database: Database, redis: Redis, provider: str) -> None:
    assert await taken_of(Budgets(database, redis, limits={provider: 2}), provider, 5) == 2
    assert await taken_of(Budgets(database, redis, limits={provider: 5}), provider, 5) == 3


async def test_expenses_are_added_up(database: Database, provider: str) -> None:
    budgets = Budgets(database, None, limits={provider: 50})
    await budgets.spend(provider, tokens=7, cost=3)
    await budgets.take(provider)
    await asyncio.gather(*(budgets.spend(provider, tokens=1_000, cost=500) for _ in range(20)))
    assert await stored(database, provider) == (1, 20_007, 10_003)


@pytest.mark.parametrize(("tokens", "cost"), [(-1, 0), (0, -1)])
async def test_a_negative_expense_is_none(database: Database, provider: str, tokens: int, cost: int) -> None:
    budgets = Budgets(database, None, limits={provider: 50})
    with pytest.raises(ValueError, match="no expense"):
        await budgets.spend(provider, tokens=tokens, cost=cost)
    with pytest.raises(ValueError, match="no expense"):
        await budgets.spend("another", tokens=1, cost=1)
    assert await stored(database, provider) == (0, 0, 0)


async def test_a_provider_without_a_budget_is_not_asked(database: Database, provider: str) -> None:
    with pytest.raises(KeyError):
        await Budgets(database, None, limits={}).take(provider)
