"""An API in this process, over the session's shared database, or over one of the test's own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest

from app import clock
from app.accounts.authentication import Authenticator
from app.accounts.passwords import Argon2Parameters, PasswordHasher
from app.bus import Bus
from app.db import Database
from app.exchange.settlement import Settlement
from app.ratelimit import RateLimiter
from app.realtime.hub import Realtime
from app.services import Services
from app.telemetry import Metrics
from tests.api.harness import Api, CountingDatabase
from tests.conftest import ADMIN_PASSWORD_HASH, make_settings


class Market(NamedTuple):
    """An API with a database that no other test writes into: other tests make up prices, which the audit would name."""

    api: Api
    database: Database
    settlement: Settlement


@pytest.fixture(scope="session")
async def api(database: Database, settlement: Settlement) -> AsyncIterator[Api]:
    async with api_over(database, settlement) as made:
        yield made


@pytest.fixture
async def own_market(fresh_database_url: str) -> AsyncIterator[Market]:
    database = await Database.open(make_settings(database_url=fresh_database_url))
    settlement = Settlement(database, publish=lambda _: None)
    settlement.start()
    async with api_over(database, settlement) as made:
        yield Market(made, database, settlement)
    await settlement.stop()
    await database.close()


@asynccontextmanager
async def api_over(database: Database, settlement: Settlement) -> AsyncIterator[Api]:
    """The API of these."""
    counting = CountingDatabase(database)
    settings = make_settings(admin_password_hash=ADMIN_PASSWORD_HASH)
    hasher = PasswordHasher(concurrency=1, parameters=Argon2Parameters(time_cost=1, memory_kib=64, lanes=1))
    services = Services(
        settings=settings,
        database=counting,
        redis=None,
        bus=Bus(None),
        settlement=settlement,
        realtime=Realtime(database=counting, redis=None),
        authenticator=Authenticator(counting),
        hasher=hasher,
        rate_limiter=RateLimiter(None, settings),
        metrics=Metrics(version="0", environment="development"),
        started_at=clock.now(),
    )
    yield Api(services)
    hasher.close()
