"""Rate limits, counted in Redis for all processes together: points by address and by account, log-ins, sign-ups.

Each limit is a fixed window that begins with the first request counted in it. All requests of an event-loop turn are
counted by one script call; while it runs the next ones gather. When Redis is away, ordinary requests pass and log-ins
and sign-ups are refused. Knows nothing of HTTP or GraphQL.
"""

import asyncio
import contextvars
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Final, NamedTuple, TypeAlias

import structlog
from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from app.settings import Settings

BATCH_MAX: Final = 500
"""Charges counted by one script call."""
WAITING_MAX: Final = 10_000
BLOCKED_MAX: Final = 10_000
"""Exhausted limits that a process remembers, so that their requests cost Redis nothing."""
RETRY_AFTER_MS: Final = 1_000
"""What is advised where nothing can be counted."""
MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
ANSWER_S: Final = 0.25
"""Redis counts as away when it takes longer."""
AWAY_S: Final = (0.5, 1.0, 2.0, 5.0)
"""After so many failures in a row Redis is left alone for this long; the last from then on."""

_IPV6_PREFIX_BITS: Final = 64
_KEY_PREFIX: Final = "megatron:rate"
_SCRIPT: Final = """
local counted = {}
for i = 1, #KEYS do
  local count = redis.call('INCRBY', KEYS[i], ARGV[2 * i - 1])
  local left = redis.call('PTTL', KEYS[i])
  if left < 0 then
    left = tonumber(ARGV[2 * i])
    redis.call('PEXPIRE', KEYS[i], left)
  end
  counted[2 * i - 1] = count
  counted[2 * i] = left
end
return counted
"""
_log = structlog.get_logger(__name__)


class Quota(NamedTuple):
    """One limit as it stands: `remaining` of `limit`, until `reset_ms` from when it was counted.

    `name` is for programs, `described` for people: what is counted, and by what.
    """

    name: str
    described: str
    limit: int
    remaining: int
    window_ms: int
    reset_ms: int


@dataclass(frozen=True, slots=True)
class RateState:
    """What a request has cost, and how the limits that it counts in stand after it. `at` is when it was counted."""

    cost: int
    quotas: tuple[Quota, ...]
    at: datetime

    @property
    def tightest(self) -> Quota:
        """The limit that has the least left."""
        return min(self.quotas, key=lambda quota: quota.remaining)

    @property
    def limit(self) -> int:
        """Points in a window of the tightest limit."""
        return self.tightest.limit

    @property
    def remaining(self) -> int:
        """Points left in it."""
        return self.tightest.remaining

    @property
    def reset_at(self) -> datetime:
        """When it begins anew."""
        return self.at + timedelta(milliseconds=self.tightest.reset_ms)


class RateLimited(Exception):  # noqa: N818 - an outcome, not a fault
    """Too many requests. The message says of what, and when to come back; `quota` is None when Redis is away."""

    def __init__(self, message: str, *, retry_after_ms: int, quota: Quota | None = None) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms
        self.quota = quota


class _Away(Exception):  # noqa: N818
    """Redis could not be asked."""


@dataclass(frozen=True, slots=True)
class _Policy:
    """A limit in general: what of, and how many in which time."""

    name: str
    described: str
    limit: int
    window_ms: int


class _Charge(NamedTuple):
    policy: _Policy
    key: str
    cost: int


Counted: TypeAlias = asyncio.Future[list[Quota]]
_Pending: TypeAlias = tuple[tuple[_Charge, ...], Counted]


class RateLimiter:
    """The process's view of the limits. Without `settings.rate_limits` nothing is counted and nothing refused."""

    def __init__(self, redis: Redis | None, settings: Settings) -> None:
        self._enabled = settings.rate_limits
        per_minute = settings.rate_limit_per_ip_minute
        self._address = _Policy("address", "points a minute from this address", per_minute, MINUTE_MS)
        per_minute = settings.rate_limit_per_account_minute
        self._account = _Policy("account", "points a minute for this account", per_minute, MINUTE_MS)
        per_minute = settings.rate_limit_log_in_minute
        self._log_in_address = _Policy("log-in-address", "log-ins a minute from this address", per_minute, MINUTE_MS)
        self._log_in_name = _Policy("log-in-name", "log-ins a minute under this name", per_minute, MINUTE_MS)
        per_hour = settings.rate_limit_sign_up_hour
        self._sign_up = _Policy("sign-up-address", "sign-ups an hour from this address", per_hour, HOUR_MS)
        self._script = redis.register_script(_SCRIPT) if redis is not None else None
        self._pending: list[_Pending] = []
        self._counting: asyncio.Task[None] | None = None
        self._failures = 0
        self._away_until = 0.0
        self._blocked: dict[str, tuple[float, Quota]] = {}

    @property
    def enabled(self) -> bool:
        """Whether limits apply at all."""
        return self._enabled

    @property
    def is_up(self) -> bool:
        """Whether Redis counted when it was last asked."""
        return not self._failures

    def request(self, *, points: int, client_ip: str | None = None, account_id: int | None = None) -> Counted | None:
        """Begin to count a request by its address, its account or both; None where nothing is to be counted.

        Await the outcome by `settle`. Raises `RateLimited` at once when a limit is known to be exhausted.
        """
        if not self._enabled:
            return None
        charges = []
        if client_ip is not None:
            charges.append(_Charge(self._address, f"{_KEY_PREFIX}:ip:{counted_address(client_ip)}", points))
        if account_id is not None:
            charges.append(_Charge(self._account, f"{_KEY_PREFIX}:account:{account_id}", points))
        return self._charge(tuple(charges)) if charges else None

    def refuse_blocked(self, *, client_ip: str) -> None:
        """Raise `RateLimited` when this address's limit is known to be exhausted; asks nobody."""
        if self._blocked:
            blocked = self._blocked.get(f"{_KEY_PREFIX}:ip:{counted_address(client_ip)}")
            now = time.monotonic()
            if blocked is not None and blocked[0] > now:
                raise _limited(blocked[1], int((blocked[0] - now) * 1000) + 1)

    async def settle(self, *counted: Counted | None, points: int) -> RateState | None:
        """How the limits stand after a request; None where nothing was counted, Redis being away included.

        Raises `RateLimited` when one is exceeded.
        """
        quotas: list[Quota] = []
        for future in counted:
            if future is not None:
                try:
                    quotas += await future
                except _Away:
                    return None
        return RateState(points, tuple(quotas), datetime.now(UTC)) if quotas else None

    async def log_in(self, *, client_ip: str, identity: str) -> None:
        """Count an attempt to log in as `identity`, an e-mail address in its one spelling.

        Raises `RateLimited` when there were too many from this address or for this identity, or Redis is away.
        """
        await self._log_in(client_ip, "name", identity)

    async def admin_log_in(self, *, client_ip: str, name: str) -> None:
        """Count an attempt of an admin to log in; raises as `log_in` does.

        Counted by name and address together: whoever tries an admin's name elsewhere must not lock the admin out.
        """
        await self._log_in(client_ip, "admin", f"{counted_address(client_ip)} {name}")

    async def _log_in(self, client_ip: str, kind: str, identity: str) -> None:
        """Each `kind` has keys of its own: no e-mail that somebody makes up counts as an admin's name."""
        who = hashlib.blake2b(identity.strip().lower().encode("utf-8", "replace"), digest_size=16).hexdigest()
        await self._strict(
            "Log-ins",
            _Charge(self._log_in_address, f"{_KEY_PREFIX}:log-in:ip:{counted_address(client_ip)}", 1),
            _Charge(self._log_in_name, f"{_KEY_PREFIX}:log-in:{kind}:{who}", 1),
        )

    async def sign_up(self, *, client_ip: str) -> None:
        """Count an attempt to sign up. Raises `RateLimited` as `log_in` does."""
        key = f"{_KEY_PREFIX}:sign-up:ip:{counted_address(client_ip)}"
        await self._strict("Sign-ups", _Charge(self._sign_up, key, 1))

    async def close(self) -> None:
        """Wait until what is under way has been counted."""
        if self._counting is not None:
            await asyncio.wait([self._counting])

    async def _strict(self, what: str, *charges: _Charge) -> None:
        if not self._enabled:
            return
        try:
            await self._charge(charges)
        except _Away:
            raise RateLimited(
                f"{what} are closed for a moment, because they cannot be counted: try again in a second.",
                retry_after_ms=RETRY_AFTER_MS,
            ) from None

    def _charge(self, charges: tuple[_Charge, ...]) -> Counted:
        now = time.monotonic()
        if self._blocked:
            for charge in charges:
                blocked = self._blocked.get(charge.key)
                if blocked is not None and blocked[0] > now:
                    raise _limited(blocked[1], int((blocked[0] - now) * 1000) + 1)
        future: Counted = asyncio.get_running_loop().create_future()
        if self._script is None or now < self._away_until or len(self._pending) >= WAITING_MAX:
            _fail(future, _Away())
            return future
        self._pending.append((charges, future))
        if self._counting is None:
            # In a context of its own: it serves many requests and must not carry the first one's.
            self._counting = asyncio.create_task(self._count_all(self._script), context=contextvars.Context())
        return future

    async def _count_all(self, script: AsyncScript) -> None:
        try:
            while self._pending:
                batch, self._pending = self._pending[:BATCH_MAX], self._pending[BATCH_MAX:]
                try:
                    async with asyncio.timeout(ANSWER_S):
                        await self._count(script, batch)
                    self._failures = 0
                except Exception as error:
                    self._away_until = time.monotonic() + AWAY_S[min(self._failures, len(AWAY_S) - 1)]
                    self._failures += 1
                    _log.warning("ratelimit.redis_away", error=repr(error))
                    for _, future in (*batch, *self._pending):
                        _fail(future, _Away())
                    self._pending = []
        finally:
            self._counting = None

    async def _count(self, script: AsyncScript, batch: Sequence[_Pending]) -> None:
        """Count a batch; the charges of one key go to Redis as one."""
        sums: dict[str, list[int]] = {}
        for charges, _ in batch:
            for charge in charges:
                known = sums.setdefault(charge.key, [0, charge.policy.window_ms])
                known[0] += charge.cost
        counted = await script(keys=list(sums), args=[value for pair in sums.values() for value in pair])
        # What was counted before this batch; each charge then adds its own, in order of arrival.
        counts = {key: counted[2 * at] - sums[key][0] for at, key in enumerate(sums)}
        resets = {key: counted[2 * at + 1] for at, key in enumerate(sums)}
        for charges, future in batch:
            quotas: list[Quota] = []
            exceeded: Quota | None = None
            for charge in charges:
                counts[charge.key] += charge.cost
                policy = charge.policy
                left = policy.limit - counts[charge.key]
                quota = Quota(
                    policy.name, policy.described, policy.limit, max(0, left), policy.window_ms, resets[charge.key]
                )
                quotas.append(quota)
                if left < 0:
                    exceeded = quota
                    self._block(charge.key, quota)
            if exceeded is not None:
                _fail(future, _limited(exceeded, exceeded.reset_ms))
            elif not future.done():
                future.set_result(quotas)

    def _block(self, key: str, quota: Quota) -> None:
        now = time.monotonic()
        if len(self._blocked) >= BLOCKED_MAX:
            self._blocked = {known: until for known, until in self._blocked.items() if until[0] > now}
        if len(self._blocked) < BLOCKED_MAX:
            self._blocked[key] = (now + quota.reset_ms / 1000, quota)


def _fail(future: Counted, error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # retrieved: a caller that has gone leaves nothing to complain about


def _limited(quota: Quota, retry_after_ms: int) -> RateLimited:
    seconds = -(-retry_after_ms // 1000)
    return RateLimited(
        f"Too many requests: {quota.limit} {quota.described} are allowed; try again in {seconds} s.",
        retry_after_ms=retry_after_ms,
        quota=quota,
    )


@lru_cache(maxsize=4096)
def counted_address(text: str) -> str:
    """What is counted as one: an IPv4 address, or an IPv6 network of 64 bits, which one customer has to itself."""
    try:
        address = ip_address(text)
    except ValueError:
        return "unknown"
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return f"{IPv6Address(int(address) >> _IPV6_PREFIX_BITS << _IPV6_PREFIX_BITS)}/{_IPV6_PREFIX_BITS}"
    return str(address)
