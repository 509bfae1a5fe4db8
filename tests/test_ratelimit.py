"""Limits are counted exactly, in few calls, for all processes together; what happens when Redis is away."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import count
from unittest.mock import patch

import pytest
from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from app.local.valkey import EmbeddedValkey
from app.ratelimit import Quota, RateLimited, RateLimiter, RateState
from app.settings import Settings
from tests.conftest import make_settings

_hosts = count(1)


@pytest.fixture
async def redis(valkey: EmbeddedValkey) -> AsyncIterator[Redis]:
    client: Redis = Redis.from_url(valkey.url)
    yield client
    await client.aclose()


@pytest.fixture
def address() -> str:
    """An address that no other test has used."""
    return f"192.0.2.{next(_hosts)}"


def limits(**values: object) -> Settings:
    return make_settings(rate_limits=True, redis_url="redis://unused", **values)


def down() -> Redis:
    client: Redis = Redis.from_url("redis://127.0.0.1:1")
    return client


async def charge(limiter: RateLimiter, *, points: int = 1, ip: str, account: int | None = None) -> RateState | None:
    return await limiter.settle(limiter.request(points=points, client_ip=ip, account_id=account), points=points)


async def test_each_request_costs_its_points_until_none_are_left(redis: Redis, address: str) -> None:
    limiter = RateLimiter(redis, limits(rate_limit_per_ip_minute=10))

    first = await charge(limiter, points=4, ip=address)
    second = await charge(limiter, points=6, ip=address)

    assert first is not None
    assert second is not None
    assert (first.cost, first.limit, first.remaining) == (4, 10, 6)
    assert (second.cost, second.remaining) == (6, 0)
    assert timedelta(seconds=59) < first.reset_at - datetime.now(UTC) <= timedelta(seconds=60)
    with pytest.raises(RateLimited) as refused:
        await charge(limiter, ip=address)
    assert 59_000 < refused.value.retry_after_ms <= 60_000
    assert str(refused.value).startswith("Too many requests: 10 points a minute from this address are allowed; try ag")
    assert refused.value.quota is not None
    assert (refused.value.quota.name, refused.value.quota.remaining) == ("address", 0)


async def test_two_processes_count_together(redis: Redis, address: str) -> None:
    settings = limits(rate_limit_per_ip_minute=3)
    one, other = RateLimiter(redis, settings), RateLimiter(redis, settings)

    states = [await charge(limiter, ip=address) for limiter in (one, other, one)]

    assert [state and state.remaining for state in states] == [2, 1, 0]
    with pytest.raises(RateLimited):
        await charge(other, ip=address)


async def test_the_tighter_of_address_and_account_is_told(redis: Redis, address: str) -> None:
    account = next(_hosts) + 10**9
    limiter = RateLimiter(redis, limits(rate_limit_per_ip_minute=100, rate_limit_per_account_minute=2))

    state = await charge(limiter, ip=address, account=account)

    assert state is not None
    assert [(quota.name, quota.remaining) for quota in state.quotas] == [("address", 99), ("account", 1)]
    assert (state.limit, state.remaining) == (2, 1)
    await charge(limiter, ip=address, account=account)
    with pytest.raises(RateLimited, match="2 points a minute for this account"):
        await charge(limiter, ip=f"198.51.100.{account % 250}", account=account)


async def test_requests_of_one_turn_are_counted_by_one_call_and_in_order(redis: Redis, address: str) -> None:
    limiter = RateLimiter(redis, limits(rate_limit_per_ip_minute=5))
    calls: list[int] = []
    call = AsyncScript.__call__

    async def counting(self: AsyncScript, keys: list[str], args: list[int]) -> object:
        calls.append(len(keys))
        return await call(self, keys=keys, args=args)

    with patch.object(AsyncScript, "__call__", counting):
        states = await asyncio.gather(*(charge(limiter, ip=address) for _ in range(8)), return_exceptions=True)

    assert calls == [1]
    assert [state.remaining for state in states if isinstance(state, RateState)] == [4, 3, 2, 1, 0]
    assert [type(state) for state in states[5:]] == [RateLimited] * 3


async def test_an_exhausted_limit_is_refused_without_asking_redis(redis: Redis, address: str) -> None:
    limiter = RateLimiter(redis, limits(rate_limit_per_ip_minute=1))
    await charge(limiter, ip=address)
    with pytest.raises(RateLimited):
        await charge(limiter, ip=address)

    with patch.object(AsyncScript, "__call__") as call, pytest.raises(RateLimited) as refused:
        await charge(limiter, ip=address)

    assert not call.called
    assert 0 < refused.value.retry_after_ms <= 60_000


async def test_the_window_ends_and_begins_anew(redis: Redis, address: str) -> None:
    limiter = RateLimiter(redis, limits(rate_limit_per_ip_minute=2))
    await charge(limiter, points=2, ip=address)
    await redis.delete(f"megatron:rate:ip:{address}")

    state = await charge(limiter, ip=address)

    assert state is not None
    assert state.remaining == 1


async def test_ipv6_counts_by_network_and_mapped_addresses_as_ipv4(redis: Redis, address: str) -> None:
    limiter = RateLimiter(redis, limits(rate_limit_per_ip_minute=100))
    network = f"2001:db8:{next(_hosts):x}:1"

    await charge(limiter, ip=f"{network}::1")
    same = await charge(limiter, ip=f"{network}:ffff::2")
    await charge(limiter, ip=address)
    mapped = await charge(limiter, ip=f"::ffff:{address}")

    assert same is not None
    assert mapped is not None
    assert (same.remaining, mapped.remaining) == (98, 98)


async def test_log_ins_are_limited_by_address_and_by_name(redis: Redis, address: str) -> None:
    limiter = RateLimiter(redis, limits(rate_limit_log_in_minute=2))
    name = f"{address}@example.com"
    await limiter.log_in(client_ip=address, identity=name)
    await limiter.log_in(client_ip=f"{address}9", identity=f" {name.upper()} ")

    with pytest.raises(RateLimited, match="2 log-ins a minute under this name are allowed"):
        await limiter.log_in(client_ip="198.51.100.77", identity=name)
    await limiter.log_in(client_ip=address, identity="other@example.com")
    with pytest.raises(RateLimited, match="2 log-ins a minute from this address are allowed"):
        await limiter.log_in(client_ip=address, identity="third@example.com")
    assert not [key async for key in redis.scan_iter("megatron:rate:*example.com*")]


async def test_whoever_tries_an_admins_name_elsewhere_does_not_lock_the_admin_out(redis: Redis, address: str) -> None:
    limiter = RateLimiter(redis, limits(rate_limit_log_in_minute=2))
    elsewhere, name = f"198.51.100.{next(_hosts)}", f"admin of {address}"
    for _ in range(2):
        await limiter.admin_log_in(client_ip=elsewhere, name=name)
    for _ in range(3):
        with pytest.raises(RateLimited):
            await limiter.admin_log_in(client_ip=elsewhere, name=name)

    await limiter.admin_log_in(client_ip=address, name=name)
    await limiter.admin_log_in(client_ip=address, name=name.upper())
    with pytest.raises(RateLimited, match="2 log-ins a minute under this name are allowed"):
        await limiter.admin_log_in(client_ip=address, name=name)
    with pytest.raises(RateLimited, match="2 log-ins a minute from this address are allowed"):
        await limiter.admin_log_in(client_ip=address, name="another")


async def test_no_email_counts_as_an_admins_name(redis: Redis, address: str) -> None:
    limiter = RateLimiter(redis, limits(rate_limit_log_in_minute=2))
    name = f"admin of {address}"
    for made_up in (name, f"{address} {name}", f"admin {address} {name}"):
        for _ in range(2):
            await limiter.log_in(client_ip=f"2001:db8:ad:{next(_hosts):x}::1", identity=made_up)
        with pytest.raises(RateLimited, match="under this name"):
            await limiter.log_in(client_ip=f"2001:db8:ad:{next(_hosts):x}::1", identity=made_up)

    await limiter.admin_log_in(client_ip=address, name=name)
    await limiter.admin_log_in(client_ip=address, name=name)
    with pytest.raises(RateLimited):
        await limiter.admin_log_in(client_ip=address, name=name)


async def test_an_exhausted_address_is_refused_before_anything_is_counted(redis: Redis, address: str) -> None:
    limiter = RateLimiter(redis, limits(rate_limit_per_ip_minute=1))
    limiter.refuse_blocked(client_ip=address)
    await charge(limiter, ip=address)
    limiter.refuse_blocked(client_ip=address)
    with pytest.raises(RateLimited):
        await charge(limiter, ip=address)
    counted = await redis.get(f"megatron:rate:ip:{address}")

    for spelling in (address, f"::ffff:{address}"):
        with pytest.raises(RateLimited, match="1 points a minute from this address are allowed") as refused:
            limiter.refuse_blocked(client_ip=spelling)
        assert 59_000 < refused.value.retry_after_ms <= 60_000
        assert refused.value.quota is not None
        assert (refused.value.quota.name, refused.value.quota.remaining) == ("address", 0)
    limiter.refuse_blocked(client_ip=f"198.51.100.{next(_hosts)}")
    assert await redis.get(f"megatron:rate:ip:{address}") == counted == b"2"
    now = time.monotonic()
    with patch("app.ratelimit.time.monotonic", return_value=now + 60):
        limiter.refuse_blocked(client_ip=address)


async def test_sign_ups_are_limited_by_the_hour(redis: Redis, address: str) -> None:
    limiter = RateLimiter(redis, limits(rate_limit_sign_up_hour=1))
    await limiter.sign_up(client_ip=address)

    with pytest.raises(RateLimited, match="1 sign-ups an hour from this address") as refused:
        await limiter.sign_up(client_ip=address)
    assert 3_590_000 < refused.value.retry_after_ms <= 3_600_000


@pytest.mark.parametrize("client", [None, "down"])
async def test_without_redis_requests_pass_and_log_ins_and_sign_ups_are_refused(client: str | None) -> None:
    limiter = RateLimiter(down() if client else None, limits())

    for _ in range(2):
        assert await charge(limiter, ip="192.0.2.1", account=1) is None
        with pytest.raises(RateLimited, match="Log-ins are closed for a moment") as refused:
            await limiter.log_in(client_ip="192.0.2.1", identity="a@example.com")
        assert refused.value.retry_after_ms == 1_000
        with pytest.raises(RateLimited, match="Log-ins are closed for a moment"):
            await limiter.admin_log_in(client_ip="192.0.2.1", name="admin")
        with pytest.raises(RateLimited, match="Sign-ups are closed for a moment"):
            await limiter.sign_up(client_ip="192.0.2.1")
    assert limiter.is_up is (client is None)


async def test_after_a_failure_redis_is_left_alone_for_a_while_and_then_counts_again(
    redis: Redis, address: str
) -> None:
    limiter = RateLimiter(redis, limits(rate_limit_per_ip_minute=5))
    with patch.object(AsyncScript, "__call__", side_effect=ConnectionResetError):
        assert await charge(limiter, ip=address) is None
    with patch.object(AsyncScript, "__call__") as call:
        assert await charge(limiter, ip=address) is None
    assert not call.called

    now = time.monotonic()
    with patch("app.ratelimit.time.monotonic", return_value=now + 1):
        state = await charge(limiter, ip=address)

    assert state is not None
    assert state.remaining == 4
    assert limiter.is_up


async def test_a_redis_that_hangs_counts_as_away(redis: Redis, address: str) -> None:
    limiter = RateLimiter(redis, limits())

    async def hang(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    with patch.object(AsyncScript, "__call__", hang):
        assert await charge(limiter, ip=address) is None
    assert not limiter.is_up


async def test_switched_off_nothing_is_counted_or_refused() -> None:
    limiter = RateLimiter(None, make_settings(rate_limits=False))

    assert limiter.request(points=10**9, client_ip="192.0.2.1", account_id=1) is None
    assert await charge(limiter, ip="192.0.2.1") is None
    await limiter.log_in(client_ip="192.0.2.1", identity="a@example.com")
    await limiter.admin_log_in(client_ip="192.0.2.1", name="admin")
    await limiter.sign_up(client_ip="192.0.2.1")
    limiter.refuse_blocked(client_ip="192.0.2.1")
    assert limiter.enabled is False


def test_the_tightest_quota_is_the_one_with_least_left() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    wide, narrow = Quota("a", "", 100, 60, 60_000, 5_000), Quota("b", "", 10, 9, 60_000, 2_500)

    state = RateState(1, (wide, narrow), at)

    assert (state.limit, state.remaining, state.reset_at) == (10, 9, at + timedelta(milliseconds=2_500))
