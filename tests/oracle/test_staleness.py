"""Alerts: raised when F has become stale, over when it is fresh again, one open at most of each asset."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from app.db import Database
from app.oracle.staleness import watch_staleness
from tests.factories.market import new_admin, new_asset
from tests.oracle.schedules import new_oracle, set_oracle
from tests.pricing.running import open_database, record


@pytest.fixture
async def own(fresh_database_url: str) -> AsyncIterator[Database]:
    async with open_database(fresh_database_url) as database:
        yield database


async def assets(database: Database, count: int) -> list[int]:
    admin = await new_admin(database)
    made = [await new_asset(database, admin=admin) for _ in range(count)]
    for asset_id in made:
        await new_oracle(database, asset_id)
    return made


async def watch(database: Database) -> tuple[list[int], list[int]]:
    async with database.transaction() as unit:
        return await watch_staleness(unit=unit)


async def age_events(database: Database, asset_id: int, seconds: int) -> None:
    """Let so much time pass since the asset's readings."""
    async with database.acquire() as connection:
        await connection.execute(
            "UPDATE oracle_events SET at = at - make_interval(secs => $2) WHERE asset_id = $1", asset_id, seconds
        )


async def details(database: Database) -> list[tuple[int, str, bool]]:
    """(asset, detail, whether it is open) of every alert, in the order in which they were raised."""
    async with database.acquire() as connection:
        rows = await connection.fetch("SELECT asset_id, detail, resolved_at IS NULL, kind FROM alerts ORDER BY id")
    assert {row["kind"] for row in rows} <= {"ORACLE_STALE"}
    return [(row[0], row[1], row[2]) for row in rows]


async def test_an_alert_is_open_for_as_long_as_an_asset_is_stale(own: Database) -> None:
    stale, fresh = await assets(own, 2)
    await record(own, stale, 10**12)
    await record(own, fresh, 10**12)
    await age_events(own, stale, 31)
    await age_events(own, fresh, 29)
    await set_oracle(own, stale, failures=4, last_error="serper answered 503")
    async with own.acquire() as connection:
        since = await connection.fetchval(
            "SELECT to_char((at + interval '30 seconds') AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
            " FROM oracle_events WHERE asset_id = $1",
            stale,
        )
    assert await watch(own) == ([stale], [])
    assert await watch(own) == ([], [])
    told = f"no accepted reading has kept it fresh since {since}; 4 failed runs, the last one: serper answered 503"
    assert await details(own) == [(stale, told, True)]
    await record(own, stale, 2 * 10**12)
    assert await watch(own) == ([], [stale])
    assert await watch(own) == ([], [])
    assert await details(own) == [(stale, told, False)]
    await age_events(own, stale, 31)
    assert await watch(own) == ([stale], [])
    assert [is_open for _, _, is_open in await details(own)] == [False, True]


async def test_many_who_watch_at_once_raise_one_alert_of_each_asset(own: Database) -> None:
    made = await assets(own, 10)
    for asset_id in made:
        await record(own, asset_id, 10**12)
        await age_events(own, asset_id, 60)
    found = await asyncio.gather(*(watch(own) for _ in range(5)))
    assert sorted(asset_id for raised, _ in found for asset_id in raised) == made
    assert sorted(asset_id for asset_id, _, is_open in await details(own) if is_open) == made


async def test_an_asset_that_never_had_a_reading_is_given_three_cadences(own: Database) -> None:
    new, failing, unattended, rejected = await assets(own, 4)
    await set_oracle(own, failing, failures=2, last_error="no feed answered")
    await set_oracle(own, unattended, due_at=timedelta(seconds=-170))
    await _reject(own, rejected, seconds_ago=170)
    assert await watch(own) == ([], [])
    await set_oracle(own, failing, failures=3)
    await set_oracle(own, unattended, due_at=timedelta(seconds=-181))
    async with own.acquire() as connection:
        await connection.execute("UPDATE oracle_logs SET at = at - interval '11 seconds'")
    assert await watch(own) == ([failing, unattended, rejected], [])
    assert new not in {asset_id for asset_id, _, _ in await details(own)}
    assert [detail for _, detail, _ in await details(own)] == [
        "no reading was ever accepted; 3 failed runs, the last one: no feed answered",
        "no reading was ever accepted; no run has ended since",
        "no reading was ever accepted; the last report was REJECTED (TOO_FEW_SOURCES)",
    ]
    await record(own, failing, 10**12)
    assert await watch(own) == ([], [failing])


async def test_an_override_that_ended_without_an_oracle_behind_it_is_told(own: Database) -> None:
    (asset_id,) = await assets(own, 1)
    async with own.acquire() as connection:
        await connection.execute("UPDATE oracles SET method = 'OVERRIDE', configuration = NULL, due_at = NULL")
    assert await watch(own) == ([], [])
    await record(own, asset_id, 10**12)
    await age_events(own, asset_id, 31)
    assert await watch(own) == ([asset_id], [])
    ((_, detail, _),) = await details(own)
    assert detail.endswith("; the override has ended and no oracle is configured")


async def _reject(database: Database, asset_id: int, *, seconds_ago: int) -> None:
    async with database.acquire() as connection:
        await connection.execute(
            "INSERT INTO oracle_logs (position, asset_id, run_id, at, method, verdict, outcome, reasons,"
            " fundamental_before, inputs) VALUES (1, $1, 1, clock_timestamp() - make_interval(secs => $2), 'FEED',"
            " 'REJECTED', 'REJECTED', 'TOO_FEW_SOURCES', 1000000000000, '{}')",
            asset_id,
            seconds_ago,
        )
