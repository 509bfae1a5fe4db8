"""`megatron worker price`: a process that runs the price engine, and around it the periodic jobs of its tables.

Thin: what is done stands in `app.pricing`. The engine is a supervised task and the jobs are arq's, so that of several
processes one does each; a Redis that is away costs the jobs some time, and the engine nothing.
"""

import asyncio
import gc
import os
import signal
import socket
import sys
from contextlib import suppress
from datetime import UTC
from typing import Final

import asyncpg
import orjson
import structlog
from arq.connections import ArqRedis
from arq.cron import cron
from arq.worker import Worker
from redis.asyncio import Redis
from redis.exceptions import RedisError
from uvicorn.loops.auto import auto_loop_factory

from app.bus import Bus
from app.db import Database, DatabaseMisconfigured
from app.pricing.maintenance import maintain
from app.pricing.worker import PriceWorker
from app.services import RedisMisconfigured, connect_redis
from app.settings import Settings
from app.system import require_migrated
from app.tasks import end
from app.telemetry import configure_logging

QUEUE: Final = "megatron:jobs:price"
POLL_SECONDS: Final = 2.0
MAINTAIN_MINUTE: Final = 7
"""Of every hour."""
MAINTAIN_SECONDS_MAX: Final = 600
RETRY_SECONDS: Final = (1.0, 5.0, 15.0)
"""Between starts of the jobs while Redis is away; the last one from then on."""
CLOSE_SECONDS_MAX: Final = 0.3
"""For each thing that is closed at the end."""

_log = structlog.get_logger(__name__)


class Jobs:
    """The periodic jobs, each one call of the app."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database

    async def maintain(self, ctx: dict[str, object]) -> None:
        """Partitions ahead, retention."""
        days = self._settings.tick_retention_days
        done = await maintain(database=self._database, retention_days=days)
        _log.info("prices.maintained", dropped=done.dropped, pruned=done.pruned)


def serve(settings: Settings) -> int:
    """Run until SIGINT or SIGTERM; the exit status.

    What prevents it is told in one line on standard error: a database that cannot be reached, has not been migrated or
    was made for the other environment.
    """
    configure_logging(settings.log_level)
    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        try:
            runner.run(run(settings))
        except (DatabaseMisconfigured, RedisMisconfigured) as error:
            sys.stderr.write(f"megatron: {error}\n")
            return 1
        except (OSError, asyncpg.PostgresError) as error:
            sys.stderr.write(f"megatron: cannot reach the database: {error}\n")
            return 1
    return 0


async def run(settings: Settings) -> None:
    """Run the engine and the jobs until a signal says stop. Raises what prevents the start."""
    database = await Database.open(settings)
    redis: Redis | None = None
    bus: Bus | None = None
    try:
        await require_migrated(database)
        redis = connect_redis(settings) if settings.effective_redis_url else None
        bus = Bus(redis)
        bus.start()
        worker = PriceWorker(database, redis, bus, label=f"{socket.gethostname()}:{os.getpid()}")
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, worker.stop)
        jobs = asyncio.create_task(run_jobs(settings, database), name="jobs")
        # What exists by now stays: the collector need not walk through it again.
        gc.collect()
        gc.freeze()
        _log.info("prices.working", environment=settings.env.value)
        try:
            await worker.run()
        finally:
            await end([jobs])
    finally:
        if bus is not None:
            await asyncio.wait({asyncio.create_task(bus.stop())}, timeout=CLOSE_SECONDS_MAX)
        if redis is not None:
            await redis.aclose()
        await _close_pool(database)
    _log.info("prices.stopped")


async def _close_pool(database: Database) -> None:
    try:
        async with asyncio.timeout(CLOSE_SECONDS_MAX):
            await database.pool.close()
    except TimeoutError:
        database.pool.terminate()


async def run_jobs(settings: Settings, database: Database) -> None:
    """Do the periodic jobs now, and then every hour in one of all processes, until cancelled."""
    jobs = Jobs(settings, database)
    try:
        await jobs.maintain({})
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        _log.warning("prices.not_maintained", error=repr(error))
    failures, loop = 0, asyncio.get_running_loop()
    while settings.effective_redis_url:
        worker, begun = jobs_worker(settings, jobs), loop.time()
        try:
            await worker.async_run()
        except (RedisError, OSError, TimeoutError) as error:
            _log.warning("prices.jobs_without_redis", error=repr(error))
        except Exception:
            # Event loops raise errors of their own when a connection dies: the jobs must not end with it unseen.
            _log.exception("prices.jobs_failed")
        finally:
            await close_jobs(worker)
        # What worked for a while and then failed has not failed before.
        failures = 0 if loop.time() - begun > RETRY_SECONDS[-1] else failures
        await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
        failures += 1


def jobs_worker(settings: Settings, jobs: Jobs) -> Worker:
    """arq's worker, on connections of its own: it closes them when it ends."""
    client = connect_redis(settings)
    pool = ArqRedis(
        client.connection_pool if client else None,
        job_serializer=_to_json,
        job_deserializer=orjson.loads,
        default_queue_name=QUEUE,
    )
    return Worker(
        cron_jobs=[
            cron(
                jobs.maintain,
                name="maintain_prices",
                minute=MAINTAIN_MINUTE,
                timeout=MAINTAIN_SECONDS_MAX,
                keep_result=0,
            )
        ],
        queue_name=QUEUE,
        redis_pool=pool,
        handle_signals=False,
        max_jobs=1,
        poll_delay=POLL_SECONDS,
        keep_result=0,
        job_serializer=_to_json,
        job_deserializer=orjson.loads,
        timezone=UTC,
    )


def _to_json(job: dict[str, object]) -> bytes:
    return orjson.dumps(job, default=repr)


async def close_jobs(worker: Worker) -> None:
    """End the jobs under way; what Redis cannot be told now, it forgets by itself."""
    tasks = list(worker.tasks.values())
    for task in tasks:
        task.cancel()
    with suppress(RedisError, OSError, TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS_MAX):
            await asyncio.gather(*tasks, return_exceptions=True)
    # Worker.close calls what redis-py has deprecated.
    with suppress(RedisError, OSError):
        await worker.pool.aclose(close_connection_pool=True)
