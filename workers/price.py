"""`megatron worker price`: a process that runs the price engine, and around it the periodic jobs of its tables.

Thin: what is done stands in `app.pricing`, what the workers' processes share in `workers.hosting`.
"""

import asyncio
from typing import Final

import structlog

from app.db import Database
from app.mirror.ably import AblyMirror
from app.oracle.staleness import keep_watching
from app.pricing.maintenance import maintain
from app.pricing.worker import PriceWorker
from app.settings import Settings
from app.tasks import end
from workers import hosting
from workers.hosting import Job

QUEUE: Final = "megatron:jobs:price"
MAINTAIN_MINUTE: Final = 7
"""Of every hour."""
MAINTAIN_SECONDS_MAX: Final = 600

_log = structlog.get_logger(__name__)


def jobs(settings: Settings, database: Database) -> list[Job]:
    """The periodic jobs, each one call of the app."""

    async def maintain_prices() -> None:
        """Partitions ahead, retention."""
        done = await maintain(database=database, retention_days=settings.tick_retention_days)
        _log.info("prices.maintained", dropped=done.dropped, pruned=done.pruned)

    return [Job("maintain_prices", MAINTAIN_MINUTE, MAINTAIN_SECONDS_MAX, maintain_prices)]


def serve(settings: Settings) -> int:
    """Run until SIGINT or SIGTERM; the exit status, see `hosting.serve`."""
    return hosting.serve(lambda: run(settings), settings)


async def run(settings: Settings) -> None:
    """Run the engine and the jobs until a signal says stop. Raises what prevents the start."""
    async with hosting.hosted(settings) as host:
        worker = PriceWorker(host.database, host.redis, host.bus, label=host.label)
        hosting.on_signals(worker.stop)
        around = [
            asyncio.create_task(
                hosting.run_jobs(settings, queue=QUEUE, jobs=jobs(settings, host.database)), name="jobs"
            ),
            # Here too, so that somebody is told when no oracle's worker is left.
            asyncio.create_task(keep_watching(host.database), name="staleness"),
        ]
        if settings.ably_api_key and host.redis is not None:
            mirror = AblyMirror(host.database, host.redis, url=settings.ably_api_url, key=settings.ably_api_key)
            around.append(asyncio.create_task(mirror.run(), name="ably"))
        hosting.freeze()
        _log.info("prices.working", environment=settings.env.value)
        try:
            await worker.run()
        finally:
            await end(around)
    _log.info("prices.stopped")
