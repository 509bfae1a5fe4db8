"""An API in this process, over the session's shared database."""

from collections.abc import AsyncIterator

import pytest

from app import clock
from app.accounts.authentication import Authenticator
from app.accounts.passwords import Argon2Parameters, PasswordHasher
from app.bus import Bus
from app.db import Database
from app.exchange.settlement import Settlement
from app.ratelimit import RateLimiter
from app.services import Services
from app.telemetry import Metrics
from tests.api.harness import Api, CountingDatabase
from tests.conftest import ADMIN_PASSWORD_HASH, make_settings


@pytest.fixture(scope="session")
async def api(database: Database, settlement: Settlement) -> AsyncIterator[Api]:
    counting = CountingDatabase(database)
    settings = make_settings(admin_password_hash=ADMIN_PASSWORD_HASH)
    hasher = PasswordHasher(concurrency=1, parameters=Argon2Parameters(time_cost=1, memory_kib=64, lanes=1))
    services = Services(
        settings=settings,
        database=counting,
        redis=None,
        bus=Bus(None),
        settlement=settlement,
        authenticator=Authenticator(counting),
        hasher=hasher,
        rate_limiter=RateLimiter(None, settings),
        metrics=Metrics(version="0", environment="development"),
        started_at=clock.now(),
    )
    yield Api(services)
    hasher.close()
