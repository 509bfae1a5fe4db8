"""`megatron worker oracle` as a process: what it refuses, how it ends, its metrics, and a series end to end."""

import asyncio
import signal
from collections.abc import AsyncIterator
from decimal import Decimal

import httpx
import pytest

from app.db import Database
from app.local.postgres import EmbeddedPostgres
from app.oracle.configuration import FeedConfiguration, FeedsConfiguration
from app.oracle.replays import start_replay
from tests.conftest import free_port
from tests.factories.market import new_admin, new_asset
from tests.oracle.schedules import new_oracle, oracle_row
from tests.pricing.running import open_database, until
from tests.worker_process import Process, refused, start_worker
from workers.hosting import serving_metrics

STOP_SECONDS = 10.0
SERIES = FeedsConfiguration(
    (FeedConfiguration(None, None, "seattle-weather", "temp_max", "1", "50", None, 10 * 10**9),), 1
)


@pytest.fixture
async def own(fresh_database_url: str) -> AsyncIterator[Database]:
    async with open_database(fresh_database_url) as database:
        yield database


def start(database_url: str, redis_url: str = "", **environment: str) -> Process:
    return start_worker("oracle", database_url, redis_url, **{"MEGATRON_DATABASE_POOL_MAX": "4", **environment})


def test_a_database_without_tables_is_refused(postgres: EmbeddedPostgres) -> None:
    told = refused(start(postgres.dsn_of("postgres")))
    assert told == "megatron: the database has no tables yet: run `megatron migrate` first\n"


def test_a_provider_that_cannot_be_asked_is_told(fresh_database_url: str) -> None:
    told = refused(start(fresh_database_url, SERPER_API_URL="ftp://search.example"))
    assert told.startswith("megatron: SERPER_API_URL ")
    assert told.count("\n") == 1


async def new_series(database: Database, count: int) -> list[int]:
    """Assets that follow a bundled series, every two seconds."""
    admin = await new_admin(database)
    made = [await new_asset(database, admin=admin) for _ in range(count)]
    for asset_id in made:
        async with database.acquire() as connection:
            await start_replay(
                connection=connection,
                asset_id=asset_id,
                series="seattle-weather",
                column="temp_max",
                speed_factor=Decimal(1),
                at=await connection.fetchval("SELECT clock_timestamp()"),
            )
        await new_oracle(database, asset_id, configuration=SERIES, cadence_seconds=2)
    return made


async def test_series_are_read_metrics_served_and_a_signal_ends_it(own: Database, fresh_database_url: str) -> None:
    made = await new_series(own, 2)
    port = free_port()
    # No Redis answers here: neither the work nor the end wait for it.
    process = start(fresh_database_url, "redis://127.0.0.1:1", MEGATRON_WORKER_METRICS_PORT=str(port))
    try:

        async def read_twice() -> bool:
            async with own.acquire() as connection:
                seqs = await connection.fetch("SELECT max(seq) AS seq FROM oracle_events GROUP BY asset_id")
            return len(seqs) == 2 and all(row["seq"] >= 2 for row in seqs)

        await until(read_twice, seconds=30)
        async with httpx.AsyncClient() as client:
            told = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
            missing = await client.get(f"http://127.0.0.1:{port}/")
        process.send_signal(signal.SIGTERM)
        _, errors = await asyncio.to_thread(process.communicate, timeout=STOP_SECONDS)
    finally:
        process.kill()
    assert (process.returncode, "Traceback" in errors) == (0, False)
    assert '"event": "oracle.stopped"' in errors
    assert 'megatron_oracle_runs_total{method="FEED",outcome="ACCEPTED",reason=""}' in told
    assert 'megatron_oracle_step_seconds_count{step="RECORDED"}' in told
    assert (missing.status_code, missing.text) == (404, "only GET /metrics is served here\n")
    async with own.acquire() as connection:
        kinds = await connection.fetch("SELECT kind, seq FROM oracle_events WHERE seq <= 2 ORDER BY seq, asset_id")
        assert [(row["kind"], row["seq"]) for row in kinds] == [
            ("OVERRIDE", 1), ("OVERRIDE", 1), ("READING", 2), ("READING", 2),
        ]  # fmt: skip
        for asset_id in made:
            found = await oracle_row(connection, asset_id)
            assert (found.claimed_for, found.failures) == (None, 0)


async def test_a_port_that_is_taken_costs_the_metrics_and_nothing_else() -> None:
    port = free_port()
    async with (
        serving_metrics(port, lambda: b"first\n"),
        serving_metrics(port, lambda: b"second\n"),
        httpx.AsyncClient() as client,
    ):
        answers = [(await client.get(f"http://127.0.0.1:{port}/metrics?x=1")).text for _ in range(2)]
    assert answers == ["first\n", "first\n"]
    async with serving_metrics(None, lambda: b"nowhere\n"), httpx.AsyncClient() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"http://127.0.0.1:{port}/metrics")
