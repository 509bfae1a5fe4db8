"""Maintenance: partitions ahead, an end to old ticks, and oracle events pruned down to what is still needed."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from app.db import Connection, Database
from app.pricing import maintenance
from app.pricing.claims import admit_new_assets
from app.pricing.maintenance import Maintained, maintain, prune_oracle_events
from tests.factories.market import new_asset
from tests.pricing.running import open_database, record

DAY = timedelta(days=1)


@pytest.fixture
async def own(fresh_database_url: str) -> AsyncIterator[Database]:
    async with open_database(fresh_database_url) as database:
        yield database


async def partitions(connection: Connection) -> set[str]:
    rows = await connection.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits"
        " WHERE inhparent IN ('ticks'::regclass, 'candles_s1'::regclass)"
    )
    return {row["name"] for row in rows}


def names(*days: datetime) -> set[str]:
    return {f"{table}_{day:%Y%m%d}" for table in ("ticks", "candles_s1") for day in days}


async def test_partitions_are_made_ahead_and_old_ones_go(own: Database) -> None:
    async with own.acquire() as connection:
        today = (await connection.fetchval("SELECT clock_timestamp()")).astimezone(UTC)
        assert await maintain(database=own, retention_days=7) == Maintained([], 0)
        ahead = names(today, today + DAY, today + 2 * DAY)
        assert await partitions(connection) == ahead
        old, kept = today - 8 * DAY, today - 7 * DAY
        for day in (old, kept):
            following = day + DAY
            await connection.execute(
                f"CREATE TABLE ticks_{day:%Y%m%d} PARTITION OF ticks"
                f" FOR VALUES FROM ('{day:%Y-%m-%d} 00:00:00+00') TO ('{following:%Y-%m-%d} 00:00:00+00')"
            )
        assert await maintain(database=own, retention_days=7) == Maintained([f"ticks_{old:%Y%m%d}"], 0)
        assert await partitions(connection) == ahead | {f"ticks_{kept:%Y%m%d}"}


async def test_a_retention_of_less_than_a_day_is_refused(own: Database) -> None:
    with pytest.raises(ValueError, match="1 day"):
        await maintain(database=own, retention_days=0)


async def seqs(connection: Connection) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for row in await connection.fetch("SELECT asset_id, seq FROM oracle_events ORDER BY asset_id, seq"):
        found.setdefault(row["asset_id"], []).append(row["seq"])
    return found


async def test_old_readings_go_but_the_newest_and_those_that_the_engine_has_not_taken_in(
    own: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "PRUNED_MAX", 2)
    behind, idle, young, unknown = [await new_asset(own) for _ in range(4)]
    for asset_id in (behind, idle, young):
        for value in range(1, 6):
            await record(own, asset_id, value * 10**12)
    async with own.acquire() as connection:
        await admit_new_assets(connection=connection)
        await record(own, unknown, 10**12)
        await connection.execute(
            "UPDATE oracle_events SET at = at - interval '7 days' WHERE asset_id <> $1 OR seq = 1", young
        )
        await connection.execute("UPDATE price_states SET oracle_seq = CASE asset_id WHEN $1 THEN 3 ELSE 5 END", behind)
        assert await prune_oracle_events(database=own, retention_days=8) == 0
        assert await prune_oracle_events(database=own, retention_days=7) == 3 + 4 + 1
        assert await seqs(connection) == {behind: [4, 5], idle: [5], young: [2, 3, 4, 5], unknown: [1]}
        assert (await record(own, idle, 10**12)).seq == 6
        assert await prune_oracle_events(database=own, retention_days=7) == 1
        assert (await seqs(connection))[idle] == [6]
