"""The state of the system as one process sees it: what it needs, and whether that works."""

import asyncio
import importlib.util
import pkgutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.db import Database, DatabaseMisconfigured
from app.oracle.claims import oracle_standing
from app.pricing.claims import prices_standing
from app.services import VERSION, Services

CHECK_SECONDS_MAX: Final = 2.0
OVERDUE_SECONDS_MAX: Final = 60.0
"""Longer, and nobody seems to run the oracles."""
MIGRATIONS_TABLE: Final = "tortoise_migrations"


@dataclass(frozen=True, slots=True)
class ComponentStatus:
    """A process, queue or connection. `lag_seconds` says how far behind, where that means something."""

    name: str
    ok: bool
    detail: str
    lag_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class SystemStatus:
    """One process's view."""

    version: str
    development: bool
    started_at: datetime
    components: list[ComponentStatus]


async def system_status(services: Services) -> SystemStatus:
    """Look at everything at once; takes two seconds at most."""
    components = await asyncio.gather(
        _checked("database", database_status, services),
        _checked("redis", redis_status, services),
        _checked("prices", prices_status, services),
        _checked("oracle", oracle_status, services),
    )
    return SystemStatus(
        version=VERSION,
        development=services.settings.development,
        started_at=services.started_at,
        components=[*components, _settlement_status(services), _bus_status(services)],
    )


async def _checked(
    name: str, check: Callable[[Services], Awaitable[ComponentStatus]], services: Services
) -> ComponentStatus:
    try:
        async with asyncio.timeout(CHECK_SECONDS_MAX):
            return await check(services)
    except TimeoutError:
        return ComponentStatus(name, ok=False, detail=f"no answer within {CHECK_SECONDS_MAX:g} s")
    except Exception as error:
        return ComponentStatus(name, ok=False, detail=f"cannot be reached: {type(error).__name__}")


async def readiness(services: Services) -> tuple[bool, list[ComponentStatus]]:
    """Whether this process can serve, and why not. It can without Redis: trading goes on."""
    database, redis = await asyncio.gather(
        _checked("database", database_status, services), _checked("redis", redis_status, services)
    )
    return database.ok, [database, redis]


async def database_status(services: Services) -> ComponentStatus:
    """Whether the database answers and has every migration that this version knows."""
    missing = await missing_migrations(services.database)
    pool = services.database.pool
    if missing:
        return ComponentStatus("database", ok=False, detail=f"run `megatron migrate`, missing: {missing}")
    used = pool.get_size() - pool.get_idle_size()
    return ComponentStatus("database", ok=True, detail=f"{used} of {pool.get_max_size()} connections in use")


async def missing_migrations(database: Database) -> list[str]:
    """Names of the migrations that this version knows and the database does not have."""
    async with database.acquire() as connection:
        applied = {row["name"] for row in await connection.fetch(f"SELECT name FROM {MIGRATIONS_TABLE}")}
    return sorted(known_migrations() - applied)


async def require_migrated(database: Database) -> None:
    """Raises `DatabaseMisconfigured` when migrations are missing: for processes that write at once."""
    missing = await missing_migrations(database)
    if missing:
        raise DatabaseMisconfigured(
            f"the database lacks the migrations {', '.join(missing)}: run `megatron migrate` first"
        )


def known_migrations() -> set[str]:
    """Names of the migrations that came with this version."""
    spec = importlib.util.find_spec("migrations")
    folders = spec.submodule_search_locations if spec else None
    return {module.name for module in pkgutil.iter_modules(folders) if module.name[:4].isdigit()} if folders else set()


async def redis_status(services: Services) -> ComponentStatus:
    """Whether Redis answers."""
    if services.redis is None:
        return ComponentStatus("redis", ok=False, detail="none is configured: nothing is published or counted")
    await services.redis.ping()
    return ComponentStatus("redis", ok=True, detail="answers")


async def prices_status(services: Services) -> ComponentStatus:
    """Who makes the ticks, and how long the oldest trade or reading has waited for its tick."""
    async with services.database.acquire() as connection:
        standing = await prices_standing(connection=connection)
    workers = ", ".join(f"{worker.label} has {worker.assets}" for worker in standing.workers) or "no worker is alive"
    detail = f"{workers}; {standing.unowned} of {standing.assets} assets have none" if standing.unowned else workers
    ok = bool(standing.workers) and not standing.unowned
    return ComponentStatus("prices", ok=ok, detail=detail, lag_seconds=standing.lag_seconds)


async def oracle_status(services: Services) -> ComponentStatus:
    """Whether oracles run when they are due, how overdue the most overdue is, and how many assets are stale."""
    async with services.database.acquire() as connection:
        standing = await oracle_standing(connection=connection)
    detail = f"{standing.overdue} of {standing.oracles} oracles are due, F of {standing.stale} assets is stale"
    ok = standing.lag_seconds <= OVERDUE_SECONDS_MAX
    return ComponentStatus("oracle", ok=ok, detail=detail, lag_seconds=standing.lag_seconds)


def _settlement_status(services: Services) -> ComponentStatus:
    return ComponentStatus("settlement", ok=True, detail=f"{services.settlement.waiting} orders waiting")


def _bus_status(services: Services) -> ComponentStatus:
    bus = services.bus
    return ComponentStatus("bus", ok=bus.is_up, detail=f"{bus.waiting} waiting, {bus.dropped} dropped")
