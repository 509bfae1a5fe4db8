"""`megatron worker price` as a process: what it refuses, how it ends, and the jobs around the engine."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator

import asyncpg
import orjson
import pytest
from arq.connections import ArqRedis
from redis.asyncio import Redis

from app.db import Database
from app.local.postgres import EmbeddedPostgres
from app.local.valkey import EmbeddedValkey, ephemeral_valkey
from app.tasks import end
from tests.conftest import make_settings
from tests.factories.market import new_admin, new_asset
from tests.oracle.schedules import new_oracle
from tests.pricing.running import open_database, owners, record, until, until_caught_up
from tests.worker_process import Process, refused, start_worker
from workers.hosting import close_jobs, jobs_worker, run_jobs
from workers.price import QUEUE, jobs

STOP_SECONDS = 10.0


@pytest.fixture
async def own(fresh_database_url: str) -> AsyncIterator[Database]:
    async with open_database(fresh_database_url) as database:
        yield database


@pytest.fixture
def own_valkey() -> Iterator[EmbeddedValkey]:
    """A Valkey that nobody else uses."""
    with ephemeral_valkey() as server:
        yield server


def start(database_url: str, redis_url: str = "", **environment: str) -> Process:
    return start_worker("price", database_url, redis_url, **environment)


# ------------------------------------------------------------------------------------------------ refusals


def test_a_database_without_tables_is_refused(postgres: EmbeddedPostgres) -> None:
    told = refused(start(postgres.dsn_of("postgres")))
    assert told == "megatron: the database has no tables yet: run `megatron migrate` first\n"


async def test_a_database_that_lacks_a_migration_is_refused(fresh_database_url: str) -> None:
    connection = await asyncpg.connect(fresh_database_url)
    await connection.execute("DELETE FROM tortoise_migrations WHERE name = '0004_price_history'")
    await connection.close()
    told = await asyncio.to_thread(refused, start(fresh_database_url))
    assert told == "megatron: the database lacks the migrations 0004_price_history: run `megatron migrate` first\n"


def test_a_database_of_the_other_environment_is_refused(fresh_database_url: str, valkey: EmbeddedValkey) -> None:
    told = refused(start(fresh_database_url, valkey.url, MEGATRON_ENV="production"))
    assert told == (
        "megatron: this database was made for development and MEGATRON_ENV says production: "
        "use another database, or the environment it was made for\n"
    )


def test_a_database_that_cannot_be_reached_is_told(fresh_database_url: str) -> None:
    told = refused(start("postgresql://127.0.0.1:1/none"))
    assert told.startswith("megatron: cannot reach the database: ")
    assert told.count("\n") == 1


def test_an_address_that_is_no_redis_is_told(fresh_database_url: str) -> None:
    told = refused(start(fresh_database_url, "https://redis.example"))
    assert told.splitlines()[-1] == (
        "megatron: REDIS_URL must begin with redis://, rediss:// or unix://; it begins with 'https'"
    )


async def test_stale_assets_are_told_of_where_no_oracle_works(own: Database, fresh_database_url: str) -> None:
    asset_id = await new_asset(own)
    await new_oracle(own, asset_id)
    await record(own, asset_id, 10**12)
    async with own.acquire() as connection:
        await connection.execute("UPDATE oracle_events SET at = at - interval '1 hour'")
    process = start(fresh_database_url)

    async def told() -> bool:
        async with own.acquire() as connection:
            rows = await connection.fetch("SELECT kind, asset_id FROM alerts WHERE resolved_at IS NULL")
        return [tuple(row) for row in rows] == [("ORACLE_STALE", asset_id)]

    try:
        await until(told)
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.communicate, timeout=STOP_SECONDS)
    assert process.returncode == 0


# ------------------------------------------------------------------------------------------------ the end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_and_its_claims(own: Database, fresh_database_url: str, number: signal.Signals) -> None:
    admin = await new_admin(own)
    assets = [await new_asset(own, admin=admin) for _ in range(2)]
    # No Redis answers here: neither the work nor the end wait for it.
    process = start(fresh_database_url, "redis://127.0.0.1:1")
    try:
        await until_caught_up(own, seconds=30)
        async with own.acquire() as connection:
            assert set((await owners(connection)).values()) == {1}
        process.send_signal(number)
        _, errors = await asyncio.to_thread(process.communicate, timeout=STOP_SECONDS)
    finally:
        process.kill()
    assert (process.returncode, "Traceback" in errors) == (0, False)
    assert '"event": "prices.stopped"' in errors
    async with own.acquire() as connection:
        assert await owners(connection) == dict.fromkeys(assets)
        assert await connection.fetchval("SELECT count(*) FROM price_workers") == 0


# ------------------------------------------------------------------------------------------------ the jobs


async def _partitions(database: Database) -> int:
    async with database.acquire() as connection:
        found: int = await connection.fetchval("SELECT count(*) FROM pg_inherits WHERE inhparent = 'ticks'::regclass")
    return found


async def test_the_hourly_job_is_done_by_one_of_all_who_run_it(
    own: Database, fresh_database_url: str, own_valkey: EmbeddedValkey
) -> None:
    settings = make_settings(database_url=fresh_database_url, redis_url=own_valkey.url)
    workers = [jobs_worker(settings, queue=QUEUE, jobs=jobs(settings, own)) for _ in range(2)]
    for worker in workers:
        worker.burst = True
        worker.cron_jobs[0].run_at_startup = True
        # The same moment for both, as on the hour.
        worker.cron_jobs[0].job_id = "once"
    await asyncio.gather(*(worker.async_run() for worker in workers))
    assert sum(worker.jobs_complete for worker in workers) == 1
    assert sum(worker.jobs_failed for worker in workers) == 0
    assert await _partitions(own) == 3
    for worker in workers:
        await close_jobs(worker)
    async with Redis.from_url(own_valkey.url) as redis:
        assert await redis.keys("arq:result:*") == []


async def test_jobs_are_done_at_the_start_without_redis_and_go_on_once_it_is_back(
    own: Database, fresh_database_url: str, own_valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.hosting.RETRY_SECONDS", (0.05,))
    monkeypatch.setattr("workers.hosting.POLL_SECONDS", 0.05)
    settings = make_settings(database_url=fresh_database_url, redis_url=own_valkey.url)
    own_valkey.stop()
    run = asyncio.create_task(run_jobs(settings, queue=QUEUE, jobs=jobs(settings, own)))

    async def maintained() -> bool:
        return await _partitions(own) == 3

    await until(maintained)
    for _ in range(2):
        own_valkey.start()
        async with own.acquire() as connection:
            day = await connection.fetchval(
                "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'ticks'::regclass ORDER BY 1 DESC"
            )
            await connection.execute(f"DROP TABLE {day}")
        await _enqueue(own_valkey.url)
        await until(maintained)
        own_valkey.stop()
    assert not run.done()
    await end([run])


async def test_jobs_go_on_after_an_error_that_nobody_expected(
    own: Database, fresh_database_url: str, own_valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.hosting.RETRY_SECONDS", (0.01,))
    starts = 0

    async def async_run(_: object) -> None:
        nonlocal starts
        starts += 1
        raise RuntimeError("unable to perform operation on a closed transport")

    monkeypatch.setattr("workers.hosting.Worker.async_run", async_run)
    settings = make_settings(database_url=fresh_database_url, redis_url=own_valkey.url)
    run = asyncio.create_task(run_jobs(settings, queue=QUEUE, jobs=jobs(settings, own)))
    await until(lambda: starts >= 3 or run.done())
    assert not run.done()
    await end([run])


async def _enqueue(url: str) -> None:
    """Ask for the job now, as the hour does."""
    redis: Redis = Redis.from_url(url)
    queue = ArqRedis(redis.connection_pool, job_serializer=orjson.dumps, default_queue_name=QUEUE)
    assert await queue.enqueue_job("maintain_prices") is not None
    await queue.aclose()
    await redis.aclose()
