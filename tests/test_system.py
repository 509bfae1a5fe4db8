"""What a process says of its own state."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from unittest.mock import patch

import pytest
from redis.asyncio import Redis

from app import system
from app.db import Database
from app.exchange.settlement import Settlement
from app.local.valkey import EmbeddedValkey
from app.pricing import claims
from app.services import Services
from app.system import ComponentStatus, database_status, known_migrations, prices_status, readiness, system_status
from tests.api.edge import stub_services
from tests.factories.market import new_asset
from tests.pricing.running import open_database, record


@pytest.fixture
async def services(database: Database, settlement: Settlement, valkey: EmbeddedValkey) -> AsyncIterator[Services]:
    redis: Redis = Redis.from_url(valkey.url)
    yield replace(stub_services(), database=database, settlement=settlement, redis=redis)
    await redis.aclose()


async def test_everything_that_works_is_ok(services: Services, fresh_database_url: str) -> None:
    async with open_database(fresh_database_url) as own:
        status = await system_status(replace(services, database=own))

    assert (status.development, status.started_at) == (True, services.started_at)
    assert [(each.name, each.ok, each.lag_seconds is None) for each in status.components] == [
        ("database", True, True),
        ("redis", True, True),
        ("prices", False, False),
        ("oracle", True, False),
        ("settlement", True, True),
        ("bus", False, True),
    ]
    assert re.fullmatch("[0-6] of 6 connections in use", status.components[0].detail)
    assert status.components[-1].detail == "0 waiting, 0 dropped"


async def test_who_makes_the_ticks_is_told_and_how_far_behind(services: Services, fresh_database_url: str) -> None:
    async with open_database(fresh_database_url) as own:
        asked = replace(services, database=own)
        assert await prices_status(asked) == ComponentStatus(
            "prices", ok=False, detail="no worker is alive", lag_seconds=0.0
        )
        asset_id = await new_asset(own)
        event = await record(own, asset_id, 10**12)
        async with own.acquire() as connection:
            worker_id = await claims.register(connection=connection, label="here:1")
            unowned = await prices_status(asked)
            await claims.admit_new_assets(connection=connection)
            async with connection.transaction():
                await claims.claim(connection=connection, worker_id=worker_id)
            behind = await prices_status(asked)
            waited = (await connection.fetchval("SELECT clock_timestamp()") - event.at).total_seconds()
            await connection.execute("UPDATE price_states SET oracle_seq = 1")
        assert (unowned.ok, unowned.detail) == (False, "here:1 has 0; 1 of 1 assets have none")
        assert (behind.ok, behind.detail) == (True, "here:1 has 1")
        assert behind.lag_seconds is not None
        assert 0 < behind.lag_seconds <= waited
        assert await prices_status(asked) == ComponentStatus("prices", ok=True, detail="here:1 has 1", lag_seconds=0.0)


async def test_a_database_that_lacks_a_migration_is_not_ready_and_says_which(services: Services) -> None:
    with patch.object(system, "known_migrations", return_value=known_migrations() | {"9999_later"}):
        ready, components = await readiness(services)

    assert ready is False
    assert components[0] == ComponentStatus(
        "database", ok=False, detail="run `megatron migrate`, missing: ['9999_later']"
    )


async def test_every_migration_that_came_with_this_version_is_known() -> None:
    assert {"0001_initial", "0002_constraints"} <= known_migrations()


async def test_readiness_does_not_depend_on_redis(services: Services) -> None:
    for redis in (None, Redis.from_url("redis://127.0.0.1:1")):
        ready, components = await readiness(replace(services, redis=redis))

        assert ready is True
        assert (components[1].name, components[1].ok) == ("redis", False)
    assert components[1].detail == "cannot be reached: ConnectionError"


async def test_a_check_that_takes_too_long_is_not_waited_for(services: Services) -> None:
    class Hanging(Database):
        @asynccontextmanager
        async def acquire(self) -> AsyncIterator[None]:  # type: ignore[override]
            await asyncio.Event().wait()
            yield

    hanging = replace(services, database=Hanging(services.database.pool))
    with patch.object(system, "CHECK_SECONDS_MAX", 0.01):
        ready, components = await readiness(hanging)

    assert ready is False
    assert components[0].detail == "no answer within 0.01 s"
    assert (await database_status(services)).ok
