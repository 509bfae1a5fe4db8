"""How a provider is asked: again after passing failures, at most so often, and not at all while it is down.

Retries with back-off, the circuit breaker, and one bounded HTTP exchange with a provider that takes and gives JSON.
What is asked and what an answer means is not known here. Keys are in the requests' headers and nowhere else: no
message, log line or repr carries one.
"""

import asyncio
import json
import random
import re
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from itertools import count
from typing import Final, NoReturn, Protocol, TypeAlias, TypeVar
from urllib.parse import urlsplit

import httpx
import orjson

from app import clock

Json: TypeAlias = dict[str, object]
T = TypeVar("T")

ATTEMPTS_MAX: Final = 3
"""Of one call, the first included."""
ATTEMPT_SECONDS_MIN: Final = 1.0
"""An attempt gets as long as this, or is not begun."""
BACKOFF_SECONDS: Final = 0.5
"""Before the second attempt at most; doubled for each further one."""
BACKOFF_SECONDS_MAX: Final = 8.0
RETRY_AFTER_WAIT_SECONDS_MAX: Final = 5.0
"""A provider that wants to be left alone for longer is left alone by everybody: the breaker opens."""
RETRY_AFTER_SECONDS_MAX: Final = 3_600.0
"""However long a provider wants to be left alone, it is tried again after this."""
BREAKER_FAILURES: Final = 5
"""So many in a row open the breaker."""
BREAKER_SECONDS: Final = 30.0
"""For so long at first; doubled each time that the trial after it fails."""
BREAKER_SECONDS_MAX: Final = 300.0
ANSWER_BYTES_MAX: Final = 2 * 2**20
CONNECT_SECONDS_MAX: Final = 5.0
EXCERPT_BYTES_MAX: Final = 8_192
EXCERPT_CHARS_MAX: Final = 200
EXCERPT_SECONDS_MAX: Final = 1.0
"""What else an error's answer says is worth so much time: its status must not be lost over it."""
KEY_CHARS_MAX: Final = 4_096

_TOO_MANY_REQUESTS: Final = 429
_KEY: Final = re.compile(r"[!-~]+", re.ASCII)
_SECONDS: Final = re.compile(r"[0-9]{1,10}", re.ASCII)


class ProviderFailed(Exception):  # noqa: N818 - an outcome that callers reckon with
    """A provider gave no usable answer. The message says which, and why; `retry_after_seconds`: not before then."""

    def __init__(self, provider: str, detail: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"{provider} {detail}")
        self.provider = provider
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds


class BudgetSpent(ProviderFailed):
    """The day's requests to a provider are used up: it was not asked."""


class ProviderMisconfigured(ValueError):  # noqa: N818
    """An address or a key that cannot be used; the message names the setting and never quotes a key."""


class AttemptFailed(Exception):  # noqa: N818
    """One attempt failed.

    `is_passing`: another may succeed. `is_own_fault`: the provider is well, and refused this very request.
    """

    def __init__(
        self,
        detail: str,
        *,
        is_passing: bool = False,
        is_own_fault: bool = False,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.is_passing = is_passing
        self.is_own_fault = is_own_fault
        self.retry_after_seconds = retry_after_seconds


class Unusable(ValueError):  # noqa: N818
    """Raised by whoever reads an answer: it is not what the protocol promises. The message says what is wrong."""


class Counter(Protocol):
    """Counts requests before they are made. `app.oracle.budgets.Budgets` is one."""

    async def take(self, provider: str) -> None:
        """Count one request. Raises `BudgetSpent` when no more may be made."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Time and chance. `monotonic` in seconds, `random` gives 0 <= x < 1."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], datetime] = clock.now
    random: Callable[[], float] = random.random
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass(frozen=True, slots=True)
class Policy:
    """What a call may take. `seconds_max` with all its attempts and the waits between them."""

    seconds_max: float
    attempt_seconds_max: float
    attempts_max: int = ATTEMPTS_MAX

    @property
    def attempt_seconds_min(self) -> float:
        """With less time left no attempt is begun."""
        return min(ATTEMPT_SECONDS_MIN, self.attempt_seconds_max)


# -------------------------------------------------------------------------------------------------------- the breaker


class BreakerState(StrEnum):
    """CLOSED: everybody may ask. OPEN: nobody. HALF_OPEN: one may, and the outcome decides."""

    CLOSED = "CLOSED"
    OPEN = "OPEN"
    HALF_OPEN = "HALF_OPEN"


class Breaker:
    """Whether a provider may be asked, by how it did lately. Times are seconds of the clock `now`.

    `admit` gives a ticket, and the outcome is told with it: what began before the state last changed, and ends after
    it, changes nothing any more.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._generation = 0
        self._is_closed = True
        self._open_until = 0.0
        self._is_trying = False
        self._failures = 0
        self._openings = 0
        self.answered = self.failed = 0
        """Requests, by how they ended, since the start."""
        self.last_failure = ""
        """What the last failure that counted was."""

    @property
    def state(self) -> BreakerState:
        """As of now."""
        if self._is_closed:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self.seconds_left > 0 else BreakerState.HALF_OPEN

    @property
    def seconds_left(self) -> float:
        """Until somebody may try again; 0 when that is now."""
        return 0.0 if self._is_closed else max(0.0, self._open_until - self._now())

    def admit(self) -> int | None:
        """A ticket to ask once, to be given back by `success`, `failure` or `abandon`; None: not now."""
        state = self.state
        if state is BreakerState.OPEN or (state is BreakerState.HALF_OPEN and self._is_trying):
            return None
        self._is_trying = state is BreakerState.HALF_OPEN
        return self._generation

    def success(self, ticket: int) -> None:
        """The provider answered."""
        self.answered += 1
        if ticket != self._generation:
            return
        if not self._is_closed:
            self._generation += 1
        self._is_closed, self._is_trying = True, False
        self._failures = self._openings = 0

    def failure(self, ticket: int, *, detail: str, hold_seconds: float = 0.0) -> None:
        """The provider failed. `hold_seconds`: it asked to be left alone for so long, whoever asks."""
        self.failed += 1
        if ticket == self._generation:
            self.last_failure = detail
            self._failures += 1
            if not self._is_closed or self._failures >= BREAKER_FAILURES:
                seconds = min(BREAKER_SECONDS * 2**self._openings, BREAKER_SECONDS_MAX)
                # No more doublings than matter: the number stays small through a provider's year of absence.
                self._openings = self._openings + 1 if seconds < BREAKER_SECONDS_MAX else self._openings
                self._open(max(seconds, hold_seconds))
                return
        if hold_seconds > 0:
            self.last_failure = detail
            self._open(hold_seconds)

    def abandon(self, ticket: int) -> None:
        """It did not come to an outcome: whoever comes next may try."""
        if ticket == self._generation:
            self._is_trying = False

    def _open(self, seconds: float) -> None:
        until = self._now() + seconds
        self._open_until = until if self._is_closed else max(until, self._open_until)
        self._is_closed = self._is_trying = False
        self._failures = 0
        self._generation += 1


# ---------------------------------------------------------------------------------------------------------- the guard


class Guard:
    """Asks one provider: counts each attempt, retries what may pass, and heeds the breaker."""

    def __init__(self, provider: str, *, counter: Counter, policy: Policy, timing: Timing | None = None) -> None:
        self.provider = provider
        self.timing = timing or Timing()
        self.breaker = Breaker(self.timing.monotonic)
        self._counter = counter
        self._policy = policy

    async def call(self, attempt: Callable[[float], Awaitable[T]]) -> T:
        """What `attempt` gives, which is told how many seconds it may take and raises `AttemptFailed`.

        Raises `ProviderFailed` when the provider is left alone or the last attempt failed, `BudgetSpent` when no
        attempt could be counted.
        """
        deadline = self.timing.monotonic() + self._policy.seconds_max
        for number in count(1):
            try:
                return await self._once(attempt, deadline)
            except AttemptFailed as failed:
                delay = self._delay(failed, number=number, deadline=deadline)
                if delay is None:
                    wait = self.breaker.seconds_left or failed.retry_after_seconds
                    raise ProviderFailed(self.provider, failed.detail, retry_after_seconds=wait) from None
            await self.timing.sleep(delay)
        raise AssertionError("unreachable: the attempts are counted for ever")

    async def _once(self, attempt: Callable[[float], Awaitable[T]], deadline: float) -> T:
        ticket = self.breaker.admit()
        if ticket is None:
            raise self._left_alone()
        try:
            await self._counter.take(self.provider)
            left = max(deadline - self.timing.monotonic(), self._policy.attempt_seconds_min)
            result = await attempt(min(left, self._policy.attempt_seconds_max))
        except AttemptFailed as failed:
            if failed.is_own_fault:
                self.breaker.success(ticket)
            else:
                self.breaker.failure(ticket, detail=failed.detail, hold_seconds=self._hold(failed, deadline))
            raise
        except BaseException:
            self.breaker.abandon(ticket)
            raise
        self.breaker.success(ticket)
        return result

    def _left_alone(self) -> ProviderFailed:
        left, why = self.breaker.seconds_left, self.breaker.last_failure
        how_long = f"for another {left:.0f} s" if left else "until the one request that tries it has its answer"
        return ProviderFailed(
            self.provider, f"is left alone {how_long}; it last failed so: {why}", retry_after_seconds=left or None
        )

    def _hold(self, failed: AttemptFailed, deadline: float) -> float:
        """For how long the provider wants to be left alone, where that is longer than a call waits; else 0."""
        wanted = failed.retry_after_seconds or 0.0
        return wanted if wanted > self._wait_max(deadline) else 0.0

    def _wait_max(self, deadline: float) -> float:
        left = deadline - self.timing.monotonic() - self._policy.attempt_seconds_min
        return min(left, RETRY_AFTER_WAIT_SECONDS_MAX)

    def _delay(self, failed: AttemptFailed, *, number: int, deadline: float) -> float | None:
        """Seconds until the next attempt; None where there is none.

        Anything up to the back-off ("full jitter"), so that those who failed together do not come back together; on
        top of what the provider asked for.
        """
        if not failed.is_passing or number >= self._policy.attempts_max:
            return None
        if self.breaker.state is not BreakerState.CLOSED:
            return None
        backoff = min(BACKOFF_SECONDS * 2 ** (number - 1), BACKOFF_SECONDS_MAX)
        delay = (failed.retry_after_seconds or 0.0) + self.timing.random() * backoff
        left = deadline - self.timing.monotonic() - self._policy.attempt_seconds_min
        return delay if delay <= left else None


# ------------------------------------------------------------------------------------------------------- the exchange


@dataclass(frozen=True, slots=True)
class Address:
    """Where a provider is asked. The names of its two settings are for messages.

    `key_header`: the header that carries the key, and what stands before the key in it.
    """

    url: str
    url_setting: str
    key_setting: str
    key_header: tuple[str, str]
    own_faults: frozenset[int] = frozenset()
    """Statuses by which the provider refuses a single request, and says nothing of its own health."""


class Endpoint:
    """One address of a provider that takes JSON by POST and answers with a JSON object."""

    def __init__(self, *, client: httpx.AsyncClient, guard: Guard, address: Address, key: str | None) -> None:
        """Raises `ProviderMisconfigured` for a URL or key that cannot be used."""
        _check_url(address)
        if key is not None and (len(key) > KEY_CHARS_MAX or not _KEY.fullmatch(key)):
            raise ProviderMisconfigured(
                f"{address.key_setting} must be a key of printable ASCII characters without blanks: copy it again"
            )
        self.guard = guard
        self._client = client
        self._address = address
        self._key = key

    def __repr__(self) -> str:
        """Without the key."""
        return f"Endpoint({self._address.url!r})"

    async def post(self, body: Mapping[str, object], read: Callable[[Json], T]) -> T:
        """What `read` makes of the answer to `body`; it raises `Unusable` for what is no answer.

        Raises `ProviderFailed`, `BudgetSpent`.
        """
        content = orjson.dumps(body)
        return await self.guard.call(lambda seconds: self._attempt(content, read, seconds))

    async def _attempt(self, content: bytes, read: Callable[[Json], T], seconds: float) -> T:
        try:
            async with asyncio.timeout(seconds):
                answer = await self._exchange(content)
        except TimeoutError:
            raise AttemptFailed(f"did not answer within {seconds:.3g} s", is_passing=True) from None
        except httpx.ConnectTimeout:
            raise AttemptFailed(f"took no connection within {CONNECT_SECONDS_MAX:.0f} s", is_passing=True) from None
        except (httpx.ConnectError, OSError):
            raise AttemptFailed(
                f"cannot be reached: check the network and {self._address.url_setting}", is_passing=True
            ) from None
        except httpx.HTTPError as error:
            raise AttemptFailed(f"broke off its answer ({type(error).__name__})", is_passing=True) from None
        try:
            return read(_json_object(answer))
        except Unusable as error:
            raise AttemptFailed(f"answered with what is no answer: {error}") from None

    async def _exchange(self, content: bytes) -> bytes:
        headers = {"content-type": "application/json", "accept": "application/json", "accept-encoding": "gzip"}
        if self._key is not None:
            name, before = self._address.key_header
            headers[name] = before + self._key
        request = self._client.stream("POST", self._address.url, content=content, headers=headers)
        async with request as response:
            if response.status_code == httpx.codes.OK:
                return await _body(response, ANSWER_BYTES_MAX)
            excerpt = b""
            with suppress(TimeoutError, AttemptFailed, httpx.HTTPError):
                async with asyncio.timeout(EXCERPT_SECONDS_MAX):
                    excerpt = await _body(response, EXCERPT_BYTES_MAX)
            raise self._refused(response, excerpt)

    def _refused(self, response: httpx.Response, excerpt: bytes) -> AttemptFailed:
        status, address = response.status_code, self._address
        if 300 <= status < 400:
            return AttemptFailed(
                f"answered with a redirect (HTTP {status}), and the key goes nowhere else:"
                f" set {address.url_setting} to the address itself"
            )
        if status in (401, 403):
            what = "refused the key" if self._key is not None else "asks for a key"
            return AttemptFailed(f"{what} (HTTP {status}): set {address.key_setting} to a valid one")
        is_passing = status == _TOO_MANY_REQUESTS or status >= 500
        said = self._without_key(_message(excerpt))
        return AttemptFailed(
            f"answered with HTTP {status}" + (f": {said}" if said else ""),
            is_passing=is_passing,
            is_own_fault=status in address.own_faults,
            retry_after_seconds=self._retry_after(response) if is_passing else None,
        )

    def _without_key(self, text: str) -> str:
        """One line of what a provider said, cut; providers do quote keys."""
        if self._key is not None:
            text = text.replace(self._key, "[redacted]")
        text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
        return text if len(text) <= EXCERPT_CHARS_MAX else text[:EXCERPT_CHARS_MAX] + "..."

    def _retry_after(self, response: httpx.Response) -> float | None:
        text = response.headers.get("retry-after", "").strip()
        if _SECONDS.fullmatch(text):
            return min(float(text), RETRY_AFTER_SECONDS_MAX)
        # The provider's own clock, where it tells: ours may differ.
        at, now = _http_date(text), _http_date(response.headers.get("date", "")) or self.guard.timing.wall()
        return None if at is None else min(max((at - now).total_seconds(), 0.0), RETRY_AFTER_SECONDS_MAX)


def open_client() -> httpx.AsyncClient:
    """The process's client: follows no redirect, and takes no proxy or credentials from its surroundings."""
    return httpx.AsyncClient(
        trust_env=False,
        follow_redirects=False,
        timeout=httpx.Timeout(None, connect=CONNECT_SECONDS_MAX),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=30.0),
    )


def _check_url(address: Address) -> None:
    try:
        parts = urlsplit(address.url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or "@" in parts.netloc or parts.query or parts.fragment:
        raise ProviderMisconfigured(
            f"{address.url_setting} must be an address such as https://api.example/v1,"
            f" without user, query and fragment; keys belong into {address.key_setting}"
        )


async def _body(response: httpx.Response, bytes_max: int) -> bytes:
    """The body, decoded. Raises `AttemptFailed` when it is longer, or compressed in a way that was not asked for."""
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip"):
        raise AttemptFailed(f"answered in an encoding that was not asked for: {encoding[:40]!r}")
    inflate = zlib.decompressobj(wbits=31) if encoding == "gzip" else None
    body = bytearray()
    async for chunk in response.aiter_raw():
        try:
            body += chunk if inflate is None else inflate.decompress(chunk, bytes_max + 1 - len(body))
        except zlib.error:
            raise AttemptFailed("answered with what is no gzip") from None
        if len(body) > bytes_max:
            raise AttemptFailed(f"answered with more than {bytes_max} bytes")
    return bytes(body)


def _json_object(body: bytes) -> Json:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = _json_with_surrogates(body)
    if not isinstance(answer, dict):
        raise Unusable("it is no JSON object")
    return answer


def _json_with_surrogates(body: bytes) -> object:
    """What orjson alone refuses: half a surrogate pair, which a model can be made to write. It is judged as it is."""
    try:
        return json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Unusable("it is no JSON") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _message(body: bytes) -> str:
    """What an error's answer says, of the usual shapes; else its text."""
    try:
        said = orjson.loads(body)
        for name in ("error", "message"):
            if isinstance(said, dict) and name in said:
                said = said[name]
    except orjson.JSONDecodeError:
        said = None
    return said if isinstance(said, str) else body.decode("utf-8", "replace")


def _http_date(text: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
