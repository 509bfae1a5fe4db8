"""What the workers' processes share: the start and what prevents it, the end, and periodic jobs around the work.

The work itself is a supervised task of the app's; the jobs are arq's, so that of several processes one does each. A
Redis that is away costs the jobs some time, and the work nothing.
"""

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC
from typing import Any, Final

import asyncpg
import orjson
import structlog
from arq.connections import ArqRedis
from arq.cron import cron
from arq.typing import WorkerCoroutine
from arq.worker import Worker
from redis.asyncio import Redis
from redis.exceptions import RedisError
from uvicorn.loops.auto import auto_loop_factory

from app.bus import Bus
from app.db import Database, DatabaseMisconfigured
from app.services import RedisMisconfigured, connect_redis
from app.settings import Settings
from app.system import require_migrated
from app.telemetry import configure_logging

POLL_SECONDS: Final = 2.0
RETRY_SECONDS: Final = (1.0, 5.0, 15.0)
"""Between starts of the jobs while Redis is away; the last one from then on."""
CLOSE_SECONDS_MAX: Final = 0.3
"""For each thing that is closed at the end."""
REQUEST_SECONDS_MAX: Final = 5.0
"""For a request for metrics to come in, and for its answer to leave."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Host:
    """What a worker's process works with. `label` says to people where it runs; `redis` is None where none is set."""

    settings: Settings
    database: Database
    redis: Redis | None
    bus: Bus
    label: str


@dataclass(frozen=True, slots=True)
class Job:
    """A periodic job: a call of the app, every hour at `minute` (UTC), in one of all processes that offer it."""

    name: str
    minute: int
    seconds_max: int
    do: Callable[[], Awaitable[None]]


# ------------------------------------------------------------------------------------------------ the process


def serve(
    run: Callable[[], Coroutine[Any, Any, None]],
    settings: Settings,
    *,
    misconfigured: tuple[type[Exception], ...] = (),
) -> int:
    """Run until SIGINT or SIGTERM; the exit status.

    What prevents it is told in one line on standard error: a database that cannot be reached, has not been migrated or
    was made for the other environment, and whatever `misconfigured` names.
    """
    configure_logging(settings.log_level)
    told: tuple[type[Exception], ...] = (DatabaseMisconfigured, RedisMisconfigured, *misconfigured)
    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        try:
            runner.run(run())
        except told as error:
            sys.stderr.write(f"megatron: {error}\n")
            return 1
        except (OSError, asyncpg.PostgresError) as error:
            sys.stderr.write(f"megatron: cannot reach the database: {error}\n")
            return 1
    return 0


@asynccontextmanager
async def hosted(settings: Settings) -> AsyncIterator[Host]:
    """The database, Redis (which may be away) and the bus, until the end. Raises what prevents the start."""
    database = await Database.open(settings)
    redis: Redis | None = None
    bus: Bus | None = None
    try:
        await require_migrated(database)
        redis = connect_redis(settings) if settings.effective_redis_url else None
        bus = Bus(redis)
        bus.start()
        yield Host(settings, database, redis, bus, f"{socket.gethostname()}:{os.getpid()}")
    finally:
        if bus is not None:
            await asyncio.wait({asyncio.create_task(bus.stop())}, timeout=CLOSE_SECONDS_MAX)
        if redis is not None:
            await redis.aclose()
        await _close_pool(database)


def on_signals(stop: Callable[[], None]) -> None:
    """Call `stop` when a signal asks the process to end."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)


def freeze() -> None:
    """What exists by now stays: the collector need not walk through it again."""
    gc.collect()
    gc.freeze()


async def _close_pool(database: Database) -> None:
    try:
        async with asyncio.timeout(CLOSE_SECONDS_MAX):
            await database.pool.close()
    except TimeoutError:
        database.pool.terminate()


# ------------------------------------------------------------------------------------------------ periodic jobs


async def run_jobs(settings: Settings, *, queue: str, jobs: Sequence[Job]) -> None:
    """Do the periodic jobs now, and then every hour in one of all processes, until cancelled."""
    for job in jobs:
        try:
            await job.do()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            _log.warning("jobs.not_done", job=job.name, error=repr(error))
    failures, loop = 0, asyncio.get_running_loop()
    while settings.effective_redis_url:
        worker, begun = jobs_worker(settings, queue=queue, jobs=jobs), loop.time()
        try:
            await worker.async_run()
        except (RedisError, OSError, TimeoutError) as error:
            _log.warning("jobs.without_redis", queue=queue, error=repr(error))
        except Exception:
            # Event loops raise errors of their own when a connection dies: the jobs must not end with it unseen.
            _log.exception("jobs.failed", queue=queue)
        finally:
            await close_jobs(worker)
        # What worked for a while and then failed has not failed before.
        failures = 0 if loop.time() - begun > RETRY_SECONDS[-1] else failures
        await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
        failures += 1


def jobs_worker(settings: Settings, *, queue: str, jobs: Sequence[Job]) -> Worker:
    """arq's worker, on connections of its own: it closes them when it ends."""
    client = connect_redis(settings)
    pool = ArqRedis(
        client.connection_pool if client else None,
        job_serializer=_to_json,
        job_deserializer=orjson.loads,
        default_queue_name=queue,
    )
    return Worker(
        cron_jobs=[
            cron(_coroutine(job), name=job.name, minute=job.minute, timeout=job.seconds_max, keep_result=0)
            for job in jobs
        ],
        queue_name=queue,
        redis_pool=pool,
        handle_signals=False,
        max_jobs=1,
        poll_delay=POLL_SECONDS,
        keep_result=0,
        job_serializer=_to_json,
        job_deserializer=orjson.loads,
        timezone=UTC,
    )


def _coroutine(job: Job) -> WorkerCoroutine:
    async def do(ctx: dict[Any, Any], *args: Any, **kwargs: Any) -> None:
        await job.do()

    return do


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


# ------------------------------------------------------------------------------------------------ metrics


@asynccontextmanager
async def serving_metrics(port: int | None, render: Callable[[], bytes]) -> AsyncIterator[None]:
    """Serve GET /metrics on loopback at `port` until the end; without a port, nothing.

    A port that is taken is told in the log, and the work goes on without.
    """
    server: asyncio.Server | None = None
    if port is not None:
        try:
            server = await asyncio.start_server(
                lambda reader, writer: _answer(reader, writer, render), "127.0.0.1", port
            )
        except OSError as error:
            _log.warning("metrics.not_served", port=port, error=repr(error))
    try:
        yield
    finally:
        if server is not None:
            server.close()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, render: Callable[[], bytes]) -> None:
    """One request, one answer; the head of a request is read to its end and not looked at further."""
    with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        async with asyncio.timeout(REQUEST_SECONDS_MAX):
            head = await reader.readuntil(b"\r\n\r\n")
            found = head.startswith((b"GET /metrics ", b"GET /metrics?"))
            status, body = ("200 OK", render()) if found else ("404 Not Found", b"only GET /metrics is served here\n")
            writer.write(
                f"HTTP/1.1 {status}\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
    writer.close()
