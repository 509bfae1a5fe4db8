"""Orders that are certain to share one batch."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager

from app.db import Database
from app.exchange.batch import OrderOutcome
from app.exchange.orders import OrderRequest, Trade
from app.exchange.settlement import Settlement

Placed = asyncio.Task[OrderOutcome]


async def waiting(settlement: Settlement, requests: Sequence[OrderRequest]) -> list[Placed]:
    """Place the orders, in their order, and return once all of them wait (or have been answered)."""
    placed: list[Placed] = []
    for request in requests:
        placed.append(asyncio.create_task(settlement.place(request)))
        # One turn of the loop takes the task to where it waits for its answer.
        await asyncio.sleep(0)
    return placed


@asynccontextmanager
async def gathered(
    database: Database,
    requests: Sequence[OrderRequest],
    *,
    publish: Callable[[Sequence[Trade]], None] | None = None,
    changed: Callable[[Collection[int]], None] | None = None,
) -> AsyncIterator[tuple[Settlement, list[Placed]]]:
    """A settlement of one's own in front of which `requests` wait; `start` it. Stopped at the end."""
    settlement = Settlement(database, publish=publish or (lambda _: None), changed=changed or (lambda _: None))
    placed = await waiting(settlement, requests)
    try:
        yield settlement, placed
    finally:
        await settlement.stop()


async def settle_together(
    database: Database, requests: Sequence[OrderRequest], *, publish: Callable[[Sequence[Trade]], None] | None = None
) -> list[OrderOutcome | BaseException]:
    """Settle `requests` in one batch, in their order; what each got or what was raised to it."""
    async with gathered(database, requests, publish=publish) as (settlement, placed):
        settlement.start()
        return await asyncio.gather(*placed, return_exceptions=True)
