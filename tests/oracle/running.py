"""Oracle workers inside a test, with runs that do what the test says."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from redis.asyncio import Redis

from app.bus import Bus
from app.db import Database
from app.oracle.claims import Claim
from app.oracle.metrics import OracleMetrics
from app.oracle.reports import Draft
from app.oracle.steps import OnStep, unheard
from app.oracle.worker import BudgetsLeft, OracleWorker
from tests.conftest import make_settings
from tests.oracle.schedules import draft


@dataclass
class ScriptedRuns:
    """Runs that come to what `plan` says for their claim, at once or after what it awaits; counts those at once."""

    plan: Callable[[Claim], Awaitable[Draft]]
    under_way: Counter[int] = field(default_factory=Counter)
    most_at_once: Counter[int] = field(default_factory=Counter)
    begun: list[Claim] = field(default_factory=list)

    async def run(self, claim: Claim) -> Draft:
        self.begun.append(claim)
        self.under_way[claim.asset_id] += 1
        self.most_at_once[claim.asset_id] = max(self.most_at_once[claim.asset_id], self.under_way[claim.asset_id])
        try:
            return await self.plan(claim)
        finally:
            self.under_way[claim.asset_id] -= 1


async def accepted(claim: Claim) -> Draft:
    """Every run says 2."""
    return draft(claim)


@asynccontextmanager
async def running_oracle(
    database_url: str,
    runs: ScriptedRuns,
    *,
    redis_url: str | None = None,
    concurrency: int = 32,
    budgets: BudgetsLeft | None = None,
    metrics: OracleMetrics | None = None,
    on_step: OnStep = unheard,
) -> AsyncIterator[OracleWorker]:
    """An oracle worker that works until the end, on connections of its own."""
    async with AsyncExitStack() as stack:
        database = await Database.open(make_settings(database_url=database_url, database_pool_max=4))
        stack.push_async_callback(database.close)
        redis: Redis | None = None
        if redis_url is not None:
            redis = Redis.from_url(redis_url, socket_timeout=1.0)
            stack.push_async_callback(redis.aclose)
        bus = Bus(redis)
        bus.start()
        stack.push_async_callback(bus.stop)
        worker = OracleWorker(
            database,
            redis,
            bus,
            runs,
            concurrency=concurrency,
            budgets=budgets,
            metrics=metrics,
            on_step=on_step,
        )
        run = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            worker.stop()
            await run
