"""What a chart and a catching-up bot cost when there is much history: whole GraphQL executions, small against large.

Two databases with the same assets over the same days, one with a hundredth of the other's ticks; candles as dense as
the ticks allow. Each question is about another asset and another time. `python -m benchmarks.history [TICKS]` runs it
by itself.
"""

import argparse
import asyncio
import inspect
import random
import statistics
import subprocess
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg
import orjson

from api.context import Context
from api.node_ids import node_id
from api.operation_cache import OperationCache, ReadyOperation
from api.schema import schema
from app.accounts.principals import ANONYMOUS
from app.db import Database, connection_arguments, migrate
from app.pricing.candles import INTERVALS
from app.pricing.intervals import Interval
from app.services import Services, open_services
from app.settings import Settings
from benchmarks.market import Servers, new_asset, servers
from benchmarks.report import line, progress

ASSETS = 4
DAYS = 8
BEGIN = date(2026, 3, 1)
BEGIN_S = int(datetime(BEGIN.year, BEGIN.month, BEGIN.day, tzinfo=UTC).timestamp())
SPAN_S = DAYS * 86_400
SEED = 20_260_301
TICKS = 10_000_000
SMALLER = 100
"""How many times fewer ticks the small database has."""
SMALL_TICKS_MIN = 10_000
"""So few that any answer is full."""
ASKED = 500
ROUNDS = 5
RUNS = 30
WARM_UP = 10

TICKS_QUERY = """query ($asset: ID!, $after: Seq!) { ticks(assetId: $asset, afterSeq: $after, first: 500) {
  assetId seq cause tradeSeq at display market fundamental marketWeight volume fundamentalStale } }"""
CANDLES_QUERY = """query ($asset: ID!, $interval: Interval!, $to: UnixSeconds!) {
  candles(assetId: $asset, interval: $interval, to: $to, countBack: 500) {
    candles { time open high low close volume trades closed } noData nextTime } }"""


@dataclass(frozen=True)
class History:
    """A database's size: `ticks` in all, of which each asset has as many."""

    name: str
    ticks: int

    @property
    def of_each(self) -> int:
        """Ticks of one asset."""
        return self.ticks // ASSETS // DAYS * DAYS


# ------------------------------------------------------------------------------------------------ filling


async def fill(settings: Settings, history: History) -> list[int]:
    """Migrate and fill the database; the assets' ids. Rows first, indexes and constraints after."""
    await migrate(settings)
    database = await Database.open(settings)
    try:
        asset_ids = [await new_asset(database, f"H{number}") for number in range(ASSETS)]
    finally:
        await database.close()
    connection = await asyncpg.connect(**connection_arguments(settings.database_url or ""))
    try:
        await connection.execute(
            "SET statement_timeout = 0; SET synchronous_commit = off; SET maintenance_work_mem = '512MB'"
        )
        for number in range(DAYS):
            await _fill_day(connection, history, asset_ids, number)
        for interval in INTERVALS[1:]:
            await connection.execute(*_candles("candles", history, asset_ids, interval, range(DAYS)))
        await _fill_states(connection, history, asset_ids)
        await connection.execute("VACUUM (ANALYZE) ticks, candles, price_states, assets")
    finally:
        await connection.close()
    return asset_ids


async def _fill_day(
    connection: "asyncpg.Connection[asyncpg.Record]", history: History, asset_ids: Sequence[int], number: int
) -> None:
    day = BEGIN + timedelta(days=number)
    ticks, candles = f"ticks_{day:%Y%m%d}", f"candles_s1_{day:%Y%m%d}"
    for parent, partition in (("ticks", ticks), ("candles_s1", candles)):
        await connection.execute(f"CREATE TABLE {partition} (LIKE {parent} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
    each = history.of_each // DAYS
    # Assets take turns, as they do in life: neighbours in time are not neighbours by seq.
    await connection.execute(
        f"INSERT INTO {ticks} SELECT a.id, $2::bigint + n, ($2::bigint + n - 1) * {ASSETS} + a.place, 'DECAY', 0,"
        f" to_timestamp($3::bigint + (n - 1) * 86400.0 / {each}),"
        " 10^12::bigint + n * 1000, 10^12::bigint + n * 999, 10^12::bigint + n * 1001, 500000000, 0, false"
        f" FROM generate_series(1, {each}) n, unnest($1::bigint[]) WITH ORDINALITY a (id, place) ORDER BY n, a.place",
        asset_ids,
        number * each,
        BEGIN_S + number * 86_400,
    )
    await connection.execute(*_candles(candles, history, asset_ids, Interval.S1, range(number, number + 1)))
    midnight = [BEGIN_S + (number + after) * 86_400 for after in (0, 1)]
    tomorrow = day + timedelta(days=1)
    await connection.execute(
        f"ALTER TABLE ticks ATTACH PARTITION {ticks}"
        f" FOR VALUES FROM ('{day} 00:00:00+00') TO ('{tomorrow} 00:00:00+00')"
    )
    await connection.execute(
        f"ALTER TABLE candles_s1 ATTACH PARTITION {candles} FOR VALUES FROM ({midnight[0]}) TO ({midnight[1]})"
    )


def _candles(
    table: str, history: History, asset_ids: Sequence[int], interval: Interval, days: range
) -> tuple[str, Sequence[int], int, int]:
    """A statement that makes the closed candles of some days, no more than there are ticks, and its arguments.

    Candles of a second are made of one asset only: there would be as many as ticks.
    """
    step = max(interval.seconds, -(-SPAN_S // history.of_each) // interval.seconds * interval.seconds)
    sql = (
        f"INSERT INTO {table} SELECT a, '{interval}', t, 10^12::bigint + t, 10^12::bigint + t + 9, 10^12::bigint + t,"
        " 10^12::bigint + t + 5, 10^12::bigint, 10^12::bigint + 9, 10^12::bigint, 10^12::bigint + 5, 1000000, 3"
        f" FROM generate_series($2::bigint, $3::bigint, {step}) t, unnest($1::bigint[]) a"
    )
    wanted = asset_ids[:1] if interval is Interval.S1 else asset_ids
    return sql, wanted, BEGIN_S + days.start * 86_400, BEGIN_S + days.stop * 86_400 - interval.seconds


async def _fill_states(
    connection: "asyncpg.Connection[asyncpg.Record]", history: History, asset_ids: Sequence[int]
) -> None:
    await connection.execute(
        "INSERT INTO price_states (asset_id, seq, position, cause, at, display, market, fundamental, market_weight,"
        " recent_volume_at) SELECT id, $2, $2, 'DECAY', now(), 10^12, 10^12, 10^12, 500000000, now()"
        " FROM unnest($1::bigint[]) id ON CONFLICT (asset_id) DO UPDATE SET seq = excluded.seq",
        asset_ids,
        history.of_each,
    )
    await connection.execute("UPDATE stream_heads SET position = $1", history.of_each * ASSETS)


# ------------------------------------------------------------------------------------------------ asking


class Asker:
    """Runs the questions on one filled database."""

    def __init__(self, services: Services, history: History, asset_ids: Sequence[int]) -> None:
        self._services = services
        self._history = history
        self._ids = [node_id("Asset", asset_id) for asset_id in asset_ids]
        self._draw = random.Random(SEED)
        self._cache = OperationCache(schema._schema)

    async def ticks(self) -> int:
        """Five hundred ticks from anywhere; how many came."""
        after = self._draw.randrange(0, self._history.of_each - ASKED)
        data = await self._run(TICKS_QUERY, {"asset": self._draw.choice(self._ids), "after": after})
        return len(data["ticks"])

    async def minutes(self) -> int:
        """Five hundred candles of a minute that end anywhere; how many came."""
        return await self._candles(self._draw.choice(self._ids), Interval.M1)

    async def seconds(self) -> int:
        """The same of a second."""
        return await self._candles(self._ids[0], Interval.S1)

    async def _candles(self, asset: str, interval: Interval) -> int:
        to = BEGIN_S + self._draw.randrange(SPAN_S // 4, SPAN_S)
        data = await self._run(CANDLES_QUERY, {"asset": asset, "interval": interval.value, "to": to})
        return len(data["candles"]["candles"])

    async def _run(self, query: str, variables: dict[str, object]) -> dict[str, Any]:
        """Everything between the request's JSON and the answer's."""
        ready = self._cache.document(query).operation(None)
        assert isinstance(ready, ReadyOperation)
        ready.complexity.points(variables)
        coerced = ready.operation.coerce_variables(variables)
        assert not isinstance(coerced, list)
        context = Context(principal=ANONYMOUS, services=self._services, request_id="bench", client_ip="127.0.0.1")
        result = ready.operation.execute(context, coerced)
        if inspect.isawaitable(result):
            result = await result
        assert not result.errors, result.errors
        orjson.dumps(result.data)
        return result.data or {}


QUESTIONS = {
    "ticks(first: 500)": "ticks",
    "candles(M1, countBack: 500)": "minutes",
    "candles(S1, countBack: 500)": "seconds",
}


async def measure(small: Asker, large: Asker, question: str, rounds: int, runs: int) -> tuple[list[float], list[float]]:
    """Milliseconds of one answer, small and large: each round's median, both asked in turn so that they share what the
    machine does besides.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for asker in (small, large):
        for _ in range(WARM_UP):
            await _ask_ms(asker, question)
    for _ in range(rounds):
        asked = [(await _ask_ms(small, question), await _ask_ms(large, question)) for _ in range(runs)]
        for into, each in zip(times, zip(*asked, strict=True), strict=True):
            into.append(statistics.median(each))
    return times


async def _ask_ms(asker: Asker, question: str) -> float:
    started = time.perf_counter()
    count = await getattr(asker, question)()
    assert count == ASKED, f"{question} answered {count}"
    return (time.perf_counter() - started) * 1e3


def _psql(running: Servers, command: str) -> None:
    subprocess.run(
        [
            running.postgres.programs / "psql",
            "-X",
            "-q",
            "-d",
            running.postgres.dsn_of("postgres", user="postgres"),
            "-c",
            command,
        ],
        check=True,
    )


async def run(
    running: Servers, *, ticks: int = TICKS, smaller: int = SMALLER, rounds: int = ROUNDS, runs: int = RUNS
) -> dict[str, float]:
    """Fill both databases, measure, print; each question's large median over its small one."""
    if ticks // smaller < SMALL_TICKS_MIN:
        raise ValueError(f"the small database must have at least {SMALL_TICKS_MIN} ticks; got {ticks // smaller}")
    ratios = {}
    async with AsyncExitStack() as stack:
        askers = []
        for history in (History("history_small", ticks // smaller), History("history_large", ticks)):
            _psql(running, f"CREATE DATABASE {history.name} OWNER megatron")
            settings = running.settings().model_copy(update={"database_url": running.postgres.dsn_of(history.name)})
            started = time.perf_counter()
            asset_ids = await fill(settings, history)
            _psql(running, "CHECKPOINT")
            progress(f"{history.ticks:,} ticks and their candles filled in {time.perf_counter() - started:.0f} s")
            services = await stack.enter_async_context(open_services(settings))
            askers.append(Asker(services, history, asset_ids))
        for name, question in QUESTIONS.items():
            small, large = await measure(askers[0], askers[1], question, rounds, runs)
            line(f"{name}, {ticks // smaller:,} ticks", small, unit="ms")
            line(f"{name}, {ticks:,} ticks", large, unit="ms", peer=small, floor="at most 1.3 x")
            ratios[name] = statistics.median(large) / statistics.median(small)
    return ratios


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("ticks", nargs="?", type=int, default=TICKS)
    arguments.add_argument("--smaller", type=int, default=SMALLER, help="how many times fewer the small one has")
    chosen = arguments.parse_args()
    with servers() as started_servers:
        asyncio.run(run(started_servers, ticks=chosen.ticks, smaller=chosen.smaller))
