"""A repeated small query: the operation cache and our executor, beside Strawberry's own `execute` in the same run.

Also runs by itself: `python -m benchmarks.graphql_operation`.
"""

import asyncio
import inspect
import statistics
import time
from collections.abc import Awaitable, Callable

from api.operation_cache import OperationCache, ReadyOperation
from api.schema import schema
from benchmarks.report import line

QUERY = "{ serverTime }"
ROUNDS = 5
RUNS_STOCK = 300
RUNS_OURS = 3_000


async def small_query_us(rounds: int = ROUNDS) -> tuple[list[float], list[float]]:
    """Microseconds of processor time of one query, round by round: ours, stock Strawberry's."""
    cache = OperationCache(schema._schema)

    async def ours() -> None:
        ready = cache.document(QUERY).operation(None)
        assert isinstance(ready, ReadyOperation)
        ready.complexity.points({})
        variables = ready.operation.coerce_variables({})
        assert not isinstance(variables, list)
        result = ready.operation.execute(None, variables)
        if inspect.isawaitable(result):
            result = await result
        assert not getattr(result, "errors", None)

    async def stock() -> None:
        result = await schema.execute(QUERY)
        assert not result.errors

    await ours()
    await stock()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        times[0].append(await _one_us(ours, RUNS_OURS))
        times[1].append(await _one_us(stock, RUNS_STOCK))
    return times


async def _one_us(run: Callable[[], Awaitable[None]], runs: int) -> float:
    started = time.process_time()
    for _ in range(runs):
        await run()
    return (time.process_time() - started) / runs * 1e6


def report(ours: list[float], stock: list[float]) -> None:
    """Print both, and their ratio."""
    line("a repeated small query, stock Strawberry", stock, unit="us")
    line("a repeated small query, operation cache", ours, unit="us", peer=stock, floor="at most 0.25 x")


def ratio(ours: list[float], stock: list[float]) -> float:
    """Median over median."""
    return statistics.median(ours) / statistics.median(stock)


if __name__ == "__main__":
    report(*asyncio.run(small_query_us()))
