"""Daily budgets: how many requests each provider may be sent in a UTC day, and what they have cost.

PostgreSQL (`oracle_usage`) decides, by one statement for each request. Redis remembers for a minute what it answered,
so that a spent budget is refused without asking, and what is left is cheap to know; all of that can be lost. How long
it may take to answer is the client's own setting: cancelling a client that connects would lose a connection.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

import structlog
from redis.asyncio import Redis

from app import clock
from app.db import Database
from app.oracle.guard import BudgetSpent

REMEMBERED_MS: Final = 60_000
"""At most: whatever Redis has wrong, PostgreSQL is asked again after this."""
LIMIT_MAX: Final = 2**62

_KEY_PREFIX: Final = "megatron:oracle:budget:"
# Answers arrive in any order: the count of a day only grows.
_REMEMBER: Final = """
local known = redis.call('GET', KEYS[1])
local day, requests = string.match(known or '', '^(%d%d%d%d%-%d%d%-%d%d) (%d+)$')
if day and (day > ARGV[1] or (day == ARGV[1] and tonumber(requests) >= tonumber(ARGV[2]))) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
return 1
"""
_TAKE: Final = """
WITH today AS (SELECT (now() AT TIME ZONE 'UTC')::date AS day),
taken AS (
    INSERT INTO oracle_usage (provider, day, requests)
    SELECT $1, day, 1 FROM today
    ON CONFLICT (provider, day) DO UPDATE SET requests = oracle_usage.requests + 1 WHERE oracle_usage.requests < $2
    RETURNING requests
)
SELECT day, (SELECT requests FROM taken) AS requests FROM today
"""
_SPEND: Final = """
INSERT INTO oracle_usage (provider, day, tokens, cost)
VALUES ($1, (now() AT TIME ZONE 'UTC')::date, $2, $3)
ON CONFLICT (provider, day)
DO UPDATE SET tokens = oracle_usage.tokens + excluded.tokens, cost = oracle_usage.cost + excluded.cost
"""
_COUNTS: Final = """
WITH today AS (SELECT (now() AT TIME ZONE 'UTC')::date AS day)
SELECT asked.provider, today.day, coalesce(usage.requests, 0) AS requests
FROM unnest($1::text[]) AS asked(provider) CROSS JOIN today
LEFT JOIN oracle_usage AS usage ON usage.provider = asked.provider AND usage.day = today.day
"""
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Count:
    """Requests counted in a UTC day."""

    day: date
    requests: int

    @classmethod
    def parse(cls, text: bytes | str | None) -> "_Count | None":
        """What Redis remembers; None where that is nothing, or garbage."""
        if isinstance(text, bytes):
            text = text.decode("ascii", "replace")
        day, _, requests = (text or "").partition(" ")
        if not (requests.isascii() and requests.isdecimal() and len(requests) < 20):
            return None
        try:
            return cls(date.fromisoformat(day), int(requests))
        except ValueError:
            return None


class Budgets:
    """The budgets of all processes together. `limits`: provider to requests a UTC day, the database's clock telling
    which day it is. `now` only tells whether what Redis remembers is of today."""

    def __init__(
        self,
        database: Database,
        redis: Redis | None,
        *,
        limits: Mapping[str, int],
        now: Callable[[], datetime] = clock.now,
    ) -> None:
        for provider, limit in limits.items():
            if not 0 <= limit <= LIMIT_MAX:
                raise ValueError(f"the daily requests to {provider} must be 0 to {LIMIT_MAX}; got {limit}")
        self._database = database
        self._redis = redis
        self._remember = redis.register_script(_REMEMBER) if redis is not None else None
        self._limits = dict(limits)
        self._now = now

    async def take(self, provider: str) -> None:
        """Count one request to `provider`, before it is made. No count is given back: the request may have arrived.

        Raises `BudgetSpent` when the day's are used up (nothing is counted then), KeyError for an unknown provider,
        and the database's errors: what cannot be counted may not be asked.
        """
        limit = self._limits[provider]
        known = (await self._remembered([provider]))[0] if limit else None
        if limit == 0 or (known is not None and known.requests >= limit):
            raise self._spent(provider)
        async with self._database.acquire() as connection:
            row = await connection.fetchrow(_TAKE, provider, limit)
        if row is None:
            raise AssertionError("a SELECT FROM one row gives one row")
        requests: int | None = row["requests"]
        await self._note({provider: _Count(row["day"], limit if requests is None else requests)})
        if requests is None:
            raise self._spent(provider)

    async def spend(self, provider: str, *, tokens: int, cost: int) -> None:
        """Add what an answered request took: `tokens`, and `cost` in 10^-6 US dollars, neither negative."""
        if provider not in self._limits or tokens < 0 or cost < 0:
            raise ValueError(f"no expense: {tokens} tokens and a cost of {cost} at {provider!r}")
        async with self._database.acquire() as connection:
            await connection.execute(_SPEND, provider, tokens, cost)

    async def left(self) -> dict[str, int]:
        """Requests that each provider may still be sent in this UTC day; a minute old at most."""
        providers = list(self._limits)
        counts = dict(zip(providers, await self._remembered(providers), strict=True))
        asked = [provider for provider, count in counts.items() if count is None]
        if asked:
            async with self._database.acquire() as connection:
                rows = await connection.fetch(_COUNTS, asked)
            found = {row["provider"]: _Count(row["day"], row["requests"]) for row in rows}
            await self._note(found)
            counts.update(found)
        return {
            provider: max(0, self._limits[provider] - count.requests)
            for provider, count in counts.items()
            if count is not None
        }

    def _spent(self, provider: str) -> BudgetSpent:
        now = self._now()
        midnight = datetime.combine(now.date() + timedelta(days=1), time(), UTC)
        return BudgetSpent(
            provider,
            f"may be sent {self._limits[provider]} requests a day, and today's are used up:"
            " wait for midnight UTC, or raise the limit",
            retry_after_seconds=(midnight - now).total_seconds(),
        )

    async def _remembered(self, providers: Sequence[str]) -> list[_Count | None]:
        """What Redis knows of today; None for what it does not."""
        nothing: list[_Count | None] = [None] * len(providers)
        if self._redis is None:
            return nothing
        try:
            texts = await self._redis.mget([_KEY_PREFIX + provider for provider in providers])
        except Exception as error:
            # Whatever a lost connection raises: without Redis, PostgreSQL is asked.
            _log.warning("oracle.budgets_without_redis", error=repr(error))
            return nothing
        today = self._now().date()
        counts = [_Count.parse(text) for text in texts]
        return [count if count is not None and count.day == today else None for count in counts]

    async def _note(self, counts: Mapping[str, _Count]) -> None:
        """Let Redis remember what PostgreSQL answered."""
        if self._remember is None:
            return
        try:
            for provider, count in counts.items():
                arguments = (count.day.isoformat(), str(count.requests), str(REMEMBERED_MS))
                await self._remember(keys=[_KEY_PREFIX + provider], args=arguments)
        except Exception as error:
            _log.warning("oracle.budgets_without_redis", error=repr(error))
