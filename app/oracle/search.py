"""Web search by Serper's protocol, with a cache in Redis. Which pages are fetched is decided elsewhere."""

import asyncio
import hashlib
from collections.abc import Callable
from contextvars import Context
from dataclasses import asdict, dataclass, field, replace
from typing import Final, TypeVar
from urllib.parse import urlsplit

import orjson
import structlog
from redis.asyncio import Redis

from app.oracle.budgets import Budgets
from app.oracle.guard import Endpoint, Json, Policy, Unusable
from app.tasks import end

PROVIDER: Final = "serper"
POLICY: Final = Policy(seconds_max=15.0, attempt_seconds_max=8.0)
QUERY_CHARS_MAX: Final = 500
RESULTS_MAX: Final = 20
URL_CHARS_MAX: Final = 2_000
TITLE_CHARS_MAX: Final = 300
SNIPPET_CHARS_MAX: Final = 1_000
DATE_CHARS_MAX: Final = 100
CREDITS_MAX: Final = 100
CACHED_BYTES_MAX: Final = 64 * 1024
CACHE_SECONDS_MAX: Final = 86_400

_KEY_PREFIX: Final = "megatron:oracle:search:"
_CACHE_VERSION: Final = 1
_log = structlog.get_logger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A page that the search names, by an http(s) address. The texts are one line each; `date` as the search has it."""

    url: str
    title: str | None
    snippet: str | None
    date: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """Hits, best first, each address once. `cost` in 10^-6 US dollars; 0 where somebody else paid (`is_cached`)."""

    hits: tuple[SearchHit, ...]
    cost: int
    is_cached: bool


@dataclass(slots=True)
class _Flight:
    """A search under way, and those who wait for it."""

    task: "asyncio.Task[Found]"
    waiting: int = 0
    is_paid_for: bool = field(default=False)


class WebSearch:
    """Searches. Those for the same thing at the same time are made once."""

    def __init__(
        self, endpoint: Endpoint, *, redis: Redis | None, budgets: Budgets, request_cost: int, namespace: str
    ) -> None:
        """`request_cost`: of one credit, in 10^-6 US dollars. `namespace`: what is cached for another is not taken."""
        self._endpoint = endpoint
        self._redis = redis
        self._budgets = budgets
        self._request_cost = request_cost
        self._namespace = namespace
        self._flights: dict[str, _Flight] = {}
        self._tasks: set[asyncio.Task[Found]] = set()

    async def find(self, query: str, *, results: int, ttl_seconds: int) -> Found:
        """The first `results` (1 to 20) hits for `query` (1 to 500 characters), which may be `ttl_seconds` old.

        A search without hits is not kept. Raises `ProviderFailed`, `BudgetSpent`; ValueError for a query or a number
        of results out of range.
        """
        if not 1 <= len(query) <= QUERY_CHARS_MAX or not 1 <= results <= RESULTS_MAX:
            raise ValueError(
                f"a query has 1 to {QUERY_CHARS_MAX} characters and asks for 1 to {RESULTS_MAX} results;"
                f" got {len(query)} characters and {results} results"
            )
        key = self._key(query, results)
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = self._begin(key, query, results, ttl_seconds)
        flight.waiting += 1
        try:
            found = await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting:
                # Nobody wants it any more, or it is done; whoever comes next begins anew.
                flight.task.cancel()
                self._forget(key, flight)
        if flight.is_paid_for:
            return replace(found, cost=0, is_cached=True)
        flight.is_paid_for = True
        return found

    async def aclose(self) -> None:
        """End what is under way."""
        await end(self._tasks)

    def _key(self, query: str, results: int) -> str:
        what = orjson.dumps([_CACHE_VERSION, self._namespace, query, results])
        return _KEY_PREFIX + hashlib.sha256(what).hexdigest()

    def _begin(self, key: str, query: str, results: int, ttl_seconds: int) -> _Flight:
        # In a context of its own: it serves many runs and must not carry the first one's.
        task = asyncio.create_task(
            self._look_up(key, query, results, ttl_seconds), name=f"search {key[-8:]}", context=Context()
        )
        flight = _Flight(task)
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._ended(key, flight))
        return flight

    def _ended(self, key: str, flight: _Flight) -> None:
        self._tasks.discard(flight.task)
        self._forget(key, flight)
        if not flight.task.cancelled():
            flight.task.exception()  # taken: everybody who waited may have gone

    def _forget(self, key: str, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    async def _look_up(self, key: str, query: str, results: int, ttl_seconds: int) -> Found:
        cached = await self._cached(key)
        if cached is not None:
            return Found(cached[:results], 0, is_cached=True)
        hits, credits_used = await self._endpoint.post({"q": query, "num": results}, read_answer)
        cost = self._request_cost * credits_used
        await self._budgets.spend(PROVIDER, tokens=0, cost=cost)
        await self._keep(key, hits[:results], ttl_seconds)
        return Found(hits[:results], cost, is_cached=False)

    async def _cached(self, key: str) -> tuple[SearchHit, ...] | None:
        if self._redis is None:
            return None
        try:
            # No more than this many bytes are ever kept; more is garbage, and is not fetched whole.
            value = await self._redis.getrange(key, 0, CACHED_BYTES_MAX)
        except Exception as error:
            # Whatever a lost connection raises, and a key of another type: without the cache the provider is asked.
            _log.warning("oracle.search_without_cache", error=repr(error))
            return None
        return decode_hits(value) if value else None

    async def _keep(self, key: str, hits: tuple[SearchHit, ...], ttl_seconds: int) -> None:
        value = encode_hits(hits)
        if self._redis is None or not hits or len(value) > CACHED_BYTES_MAX or ttl_seconds < 1:
            return
        try:
            await self._redis.set(key, value, ex=min(ttl_seconds, CACHE_SECONDS_MAX))
        except Exception as error:
            _log.warning("oracle.search_without_cache", error=repr(error))


def read_answer(answer: Json) -> tuple[tuple[SearchHit, ...], int]:
    """The hits in Serper's answer, and the credits that it cost. Raises `Unusable` when it is none.

    A search that finds nothing has no `organic`. Hits without a usable http(s) address are left out.
    """
    organic = answer.get("organic")
    if organic is None and isinstance(answer.get("searchParameters"), dict):
        organic = []
    if not isinstance(organic, list):
        raise Unusable("it has no list of results")
    hits: dict[str, SearchHit] = {}
    for entry in organic:
        if not isinstance(entry, dict) or not isinstance(entry.get("link"), str):
            raise Unusable("a result in it has no link")
        if _is_address(entry["link"]):
            hits.setdefault(entry["link"], _hit(entry))
    credits_used = answer.get("credits", 1)
    if type(credits_used) is not int or not 0 <= credits_used <= CREDITS_MAX:
        raise Unusable("the credits that it says it cost are no number of credits")
    return tuple(hits.values()), credits_used


def encode_hits(hits: tuple[SearchHit, ...]) -> bytes:
    """As they are cached: JSON."""
    return orjson.dumps([asdict(hit) for hit in hits])


def decode_hits(value: bytes | str) -> tuple[SearchHit, ...] | None:
    """The hits, at least one, that `encode_hits` was given; None for anything else."""
    try:
        rows = orjson.loads(value)
        hits = tuple(SearchHit(**row) for row in rows)
    except (orjson.JSONDecodeError, TypeError):
        return None
    return hits if hits and all(_is_hit(hit) for hit in hits) else None


def _hit(entry: dict[str, object]) -> SearchHit:
    return SearchHit(
        url=str(entry["link"]),
        title=_line(entry.get("title"), TITLE_CHARS_MAX),
        snippet=_line(entry.get("snippet"), SNIPPET_CHARS_MAX),
        date=_line(entry.get("date"), DATE_CHARS_MAX),
    )


def _is_hit(hit: SearchHit) -> bool:
    texts = (hit.title, hit.snippet, hit.date)
    return _is_text(hit.url, _is_address) and all(text is None or _is_text(text, str.isprintable) for text in texts)


def _is_text(value: object, is_good: Callable[[str], bool]) -> bool:
    return isinstance(value, str) and is_good(value)


def _is_address(url: str) -> bool:
    """Whether it is an http(s) address with a host, of a sensible length, and nothing that is not seen in it."""
    if len(url) > URL_CHARS_MAX or not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def _line(value: object, chars_max: int) -> str | None:
    """A text as one line of what can be seen, cut; None for what is no text, or empty."""
    if not isinstance(value, str):
        return None
    seen = "".join(char if char.isprintable() else " " for char in value[: 2 * chars_max])
    return " ".join(seen.split())[:chars_max] or None
