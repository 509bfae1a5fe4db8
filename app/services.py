"""What one process offers to all its requests, opened together and closed in the opposite order.

Only wiring: which implementation stands behind what. Rules live where the services are defined.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Final
from urllib.parse import urlsplit

import structlog
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from app import clock
from app.accounts.authentication import Authenticator
from app.accounts.passwords import PasswordHasher
from app.accounts.sessions import admin_password_hashes
from app.bus import Bus
from app.db import Database
from app.exchange.settlement import Settlement
from app.ratelimit import RateLimiter
from app.realtime.hub import Realtime
from app.settings import Settings
from app.telemetry import Metrics

VERSION: Final = version("megatron")
REDIS_SECONDS_MAX: Final = 1.0
REDIS_CONNECTIONS_MAX: Final = 16

_log = structlog.get_logger(__name__)


class RedisMisconfigured(Exception):  # noqa: N818
    """Redis cannot be used as it is configured; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """One process's services. `redis` is None where none is configured."""

    settings: Settings
    database: Database
    redis: Redis | None
    bus: Bus
    settlement: Settlement
    realtime: Realtime
    authenticator: Authenticator
    hasher: PasswordHasher
    rate_limiter: RateLimiter
    metrics: Metrics
    started_at: datetime


@asynccontextmanager
async def open_services(settings: Settings, *, operations: Iterable[str] = ()) -> AsyncIterator[Services]:
    """The services of this process. `operations` are the GraphQL operation names that metrics always know.

    Redis may be away, at the start as at any other time. Raises `DatabaseMisconfigured`, `RedisMisconfigured`, or
    `OSError` when the database cannot be reached.
    """
    async with AsyncExitStack() as stack:
        redis = connect_redis(settings)
        if redis is not None:
            stack.push_async_callback(redis.aclose)
            await _greet(redis)
        metrics = Metrics(version=VERSION, environment=settings.env.value, operations=operations)
        database = await Database.open(settings)
        stack.push_async_callback(database.close)
        bus = Bus(redis)
        bus.start()
        stack.push_async_callback(bus.stop)
        settlement = Settlement(
            database,
            publish=bus.publish_trades,
            changed=lambda account_ids: bus.publish_changes(accounts=account_ids),
            observer=metrics,
        )
        settlement.start()
        stack.push_async_callback(settlement.stop)
        realtime = Realtime(database=database, redis=redis)
        await realtime.start()
        stack.push_async_callback(realtime.stop)
        authenticator = Authenticator(database, admins=admin_password_hashes(settings).keys())
        stack.push_async_callback(authenticator.close)
        hasher = PasswordHasher(concurrency=settings.password_hash_concurrency)
        stack.callback(hasher.close)
        rate_limiter = RateLimiter(redis, settings)
        stack.push_async_callback(rate_limiter.close)
        services = Services(
            settings=settings,
            database=database,
            redis=redis,
            bus=bus,
            settlement=settlement,
            realtime=realtime,
            authenticator=authenticator,
            hasher=hasher,
            rate_limiter=rate_limiter,
            metrics=metrics,
            started_at=clock.now(),
        )
        _add_gauges(services)
        _add_realtime_gauges(services)
        yield services


def connect_redis(settings: Settings) -> Redis | None:
    """A client for the configured Redis, which connects when it is first used; None where none is configured.

    Raises `RedisMisconfigured` when the address is no Redis address, or rate limits would have nothing to count in.
    """
    url = settings.effective_redis_url
    if url is None:
        if settings.rate_limits:
            raise RedisMisconfigured(
                "REDIS_URL is not set, and rate limits are counted there: point it at a Redis or Valkey, "
                "or use `make dev`, which brings its own"
            )
        return None
    if urlsplit(url).scheme not in ("redis", "rediss", "unix"):
        raise RedisMisconfigured(
            f"REDIS_URL must begin with redis://, rediss:// or unix://; it begins with {urlsplit(url).scheme!r}"
        )
    pool = _Pool.from_url(
        url,
        socket_timeout=REDIS_SECONDS_MAX,
        socket_connect_timeout=REDIS_SECONDS_MAX,
        max_connections=REDIS_CONNECTIONS_MAX,
        # A connection that the server has closed while idle is replaced at once.
        retry=Retry(NoBackoff(), 1),
        retry_on_error=[RedisConnectionError],
    )
    client: Redis = Redis.from_pool(pool)
    return client


class _Pool(ConnectionPool):
    """redis-py's pool without its look into the socket before each use.

    That look waits for a time limit of zero, which takes several turns of a busy event loop and a cancellation (and now
    and then swallows one that was meant for the caller). A connection that the server has closed is seen without it;
    what closes later is tried again, as any lost connection is.
    """

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        """Connect, unless it is connected."""
        reader = connection._reader
        if reader is not None and reader.at_eof():
            await connection.disconnect()
        await connection.connect()  # type: ignore[no-untyped-call]


async def _greet(redis: Redis) -> None:
    try:
        await redis.ping()
    except (RedisError, OSError) as error:
        _log.warning("redis.away_at_start", error=repr(error))


def _add_gauges(services: Services) -> None:
    gauge, pool = services.metrics.gauge, services.database.pool
    gauge("megatron_database_connections", "Open connections of the pool.", pool.get_size)
    gauge("megatron_database_connections_idle", "Those that nobody uses.", pool.get_idle_size)
    gauge("megatron_database_connections_max", "The most that may be open.", pool.get_max_size)
    gauge("megatron_settlement_waiting", "Orders that wait to be settled.", lambda: services.settlement.waiting)
    gauge("megatron_bus_waiting", "Trades, events and changes not yet told to Redis.", lambda: services.bus.waiting)
    gauge("megatron_bus_dropped", "Those never told, since the start.", lambda: services.bus.dropped)
    gauge(
        "megatron_redis_up",
        "Whether Redis answered when it was last asked; 0 too where none is configured.",
        lambda: services.redis is not None and services.bus.is_up and services.rate_limiter.is_up,
    )


def _add_realtime_gauges(services: Services) -> None:
    gauge, realtime = services.metrics.gauge, services.realtime
    counts = realtime.counts
    gauge("megatron_realtime_readers", "Open subscriptions.", lambda: realtime.readers)
    gauge("megatron_realtime_groups", "Groups of readers who share what is sent.", lambda: realtime.groups)
    gauge("megatron_realtime_congested", "Readers that do not keep up at the moment.", lambda: realtime.congested)
    gauge("megatron_realtime_position", "The last tick's position here.", lambda: realtime.position)
    gauge("megatron_realtime_behind", "Ticks known to be stored and not yet here.", lambda: realtime.behind)
    gauge("megatron_realtime_delivered", "Events of ticks and trades sent live.", lambda: counts.delivered)
    gauge("megatron_realtime_conflated", "Items that slow readers were not sent.", lambda: counts.conflated)
    gauge("megatron_realtime_replays_memory", "Readers resumed from memory.", lambda: counts.replays_from_memory)
    gauge("megatron_realtime_replays_postgres", "Readers resumed from storage.", lambda: counts.replays_from_postgres)
    gauge("megatron_realtime_gaps", "GAP events sent.", lambda: counts.gaps)
    gauge("megatron_realtime_given_up", "Readers closed as too slow.", lambda: counts.given_up)
