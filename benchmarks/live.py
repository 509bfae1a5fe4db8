"""The whole path: orders over HTTP, settlement, price worker, hub, readers. And what readers cost who read nothing.

One core for the API process, the other for everything else. `python -m benchmarks.live` runs it by itself.
"""

import asyncio
import itertools
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from redis.asyncio import Redis

from api.node_ids import node_id
from app.db import Database
from benchmarks.api import resident_mib
from benchmarks.load import OPERATION
from benchmarks.market import Servers, Trader, new_asset, prepare, servers
from benchmarks.report import line, progress
from benchmarks.streams import (
    DOCUMENT,
    PORT,
    ROOT,
    SEED,
    Publisher,
    ReaderProcess,
    environment_of,
    pinned_away,
    process,
    processor_seconds,
    reader_process,
    variables,
)

API = (sys.executable, "-m", "app.cli", "api")
CONNECTIONS = 16
_numbers = itertools.count(1)
"""Of all rounds: an order whose key was used before would be answered and not executed."""


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    readers: int
    orders_per_second: int
    seconds: float
    idle: tuple[int, int]
    stall_seconds: float


FULL = Size(rounds=5, readers=200, orders_per_second=200, seconds=10, idle=(200, 2_000), stall_seconds=12)
SHORT = Size(rounds=1, readers=20, orders_per_second=50, seconds=2, idle=(20, 100), stall_seconds=2)


@contextmanager
def price_worker(servers: Servers) -> Iterator[int]:
    """A price worker, on the core of everything else."""
    started = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "worker", "price"], cwd=ROOT, env=environment_of(servers)
    )
    try:
        yield started.pid
    finally:
        started.terminate()
        started.wait(timeout=20)


class Orders:
    """Sends orders at an even pace over a few connections and waits for each answer."""

    def __init__(self, traders: Sequence[Trader], assets: Sequence[int]) -> None:
        self._traders = itertools.cycle(traders)
        self._assets = [node_id("Asset", asset_id) for asset_id in assets]
        self._chance = random.Random(SEED)
        self.filled = 0

    def request(self) -> bytes:
        """One order: a market buy of 0.01 shares of a random asset."""
        order = {
            "assetId": self._chance.choice(self._assets),
            "side": "BUY",
            "clientOrderId": f"live-{next(_numbers)}",
            "shares": "0.01",
        }
        body = json.dumps({"query": OPERATION, "variables": {"input": order}}).encode()
        return (
            f"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Accept: application/json\r\nAuthorization: Bearer {next(self._traders).token}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body

    async def send(self, *, per_second: int, seconds: float) -> int:
        """Send for so long; how many were filled. Raises when one was not."""
        total, begun = int(per_second * seconds), time.monotonic()
        due = iter(range(total))
        self.filled = 0
        await asyncio.gather(*(self._connection(due, begun, per_second) for _ in range(CONNECTIONS)))
        if self.filled != total:
            raise RuntimeError(f"{self.filled} of {total} orders were filled")
        return total

    async def _connection(self, due: Iterator[int], begun: float, per_second: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
        for number in due:
            await asyncio.sleep(begun + number / per_second - time.monotonic())
            writer.write(self.request())
            head = await reader.readuntil(b"\r\n\r\n")
            at = head.lower().index(b"content-length:") + 15
            body = await reader.readexactly(int(head[at:].split(b"\r", 1)[0]))
            self.filled += b'"FILLED"' in body
        writer.close()


async def trade_to_tick(
    servers: Servers,
    database: Database,
    traders: Sequence[Trader],
    assets: Sequence[int],
    size: Size,
    *,
    readers: int,
) -> tuple[float, float, float, float]:
    """Median and p99 in ms from a trade's commit (as PostgreSQL recorded it) to its tick at a reader, and the processor
    time of an order in us: API process, price worker."""
    orders = Orders(traders, assets)
    chance = random.Random(SEED)
    lists = [sorted(chance.sample(list(assets), 5)) for _ in range(readers)]
    with (
        price_worker(servers) as worker,
        process(API, environment=environment_of(servers)) as api,
        reader_process() as held,
    ):
        await held.ask(
            "open",
            port=PORT,
            document=DOCUMENT,
            variables=variables(lists),
            resumed_every=5,
            timed=True,
        )
        await orders.send(per_second=size.orders_per_second, seconds=max(size.seconds / 5, 1))
        await held.ask("reset")
        before = processor_seconds(api), processor_seconds(worker)
        sent = await orders.send(per_second=size.orders_per_second, seconds=size.seconds)
        await asyncio.sleep(0.5)
        spent = processor_seconds(api) - before[0], processor_seconds(worker) - before[1]
        result = await held.ask("collect")
    if result["faults"]:
        raise RuntimeError(f"ticks are missing: {result}")
    waits = await _waits_ms(database, result["arrivals"]) or [0.0]
    return statistics.median(waits), waits[int(len(waits) * 0.99)], spent[0] / sent * 1e6, spent[1] / sent * 1e6


async def _waits_ms(database: Database, arrivals: Sequence[tuple[str, int, float]]) -> list[float]:
    """From the commit of its trade to each arrival of a tick, ascending."""
    async with database.acquire() as connection:
        rows = await connection.fetch(
            "SELECT asset_id, seq, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 AS committed FROM trades"
        )
    committed: dict[tuple[str, int], float] = {
        (node_id("Asset", row["asset_id"]), row["seq"]): row["committed"] for row in rows
    }
    return sorted((at - committed[asset_id, seq]) * 1e3 for asset_id, seq, at in arrivals)


def remember_commits(servers: Servers) -> None:
    """Let PostgreSQL record when each transaction committed, which takes a restart."""
    servers.postgres.stop()
    with (servers.postgres.cluster / "postgresql.conf").open("a", encoding="utf-8") as settings:
        settings.write("track_commit_timestamp = on\n")
    servers.postgres.start()


async def idle_kib(servers: Servers, asset_id: int, size: Size) -> float:
    """What a reader who is told nothing adds to the API process, in KiB."""
    first, last = size.idle
    with process(API, environment=environment_of(servers)) as api, reader_process() as held:
        await _open(held, [asset_id], first)
        await asyncio.sleep(1)
        before = resident_mib(api)
        await _open(held, [asset_id], last - first)
        await asyncio.sleep(1)
        return (resident_mib(api) - before) * 1024 / (last - first)


async def _open(held: ReaderProcess, ids: Sequence[int], count: int) -> None:
    await held.ask("open", port=PORT, document=DOCUMENT, variables=variables([ids] * count), timed=True)


async def stalled(servers: Servers, database: Database, asset_id: int, size: Size) -> tuple[float, float, float]:
    """p99 in ms at 500 readers without and with 5 % more that stand still, and what the process grew by, in MiB."""
    redis: Redis = Redis.from_url(servers.settings().redis_url or "")
    async with database.acquire() as connection:
        head = await connection.fetchval("SELECT position FROM stream_heads WHERE stream = 'ticks'")
    publisher = Publisher(redis, database, head=head)
    ticks = [asset_id] * int(60 * size.stall_seconds)
    with process(API, environment=environment_of(servers)) as api, reader_process() as held, reader_process() as lazy:
        await _open(held, [asset_id], 475)
        await _open(lazy, [asset_id], 25)
        p99 = []
        for number in range(2):
            await held.ask("reset")
            await publisher.publish(ticks[:60], per_second=60)
            await held.ask("wait", ticks=len(ticks[:60]), seconds=10)
            await held.ask("reset")
            before = resident_mib(api)
            await publisher.publish(ticks, per_second=60)
            result = await held.ask("wait", ticks=len(ticks), seconds=10)
            if result["short"] or result["faults"]:
                raise RuntimeError(f"ticks are missing: {result}")
            p99.append(result["p99_ms"])
            grown = resident_mib(api) - before
            if number == 0:
                await lazy.ask("stall", every=1)
    await redis.aclose()
    return p99[0], p99[1], grown


async def report(servers: Servers, database: Database, traders: Sequence[Trader], size: Size) -> None:
    """Measure and print."""
    assets = [await new_asset(database, f"LIVE{number}") for number in range(20)]
    measured: list[list[tuple[float, float, float, float]]] = [[], []]
    for round_number in range(size.rounds):
        progress(f"round {round_number + 1} of {size.rounds}: trade to tick, with readers and without")
        for nobody in (False, True):
            readers = 0 if nobody else size.readers
            measured[nobody].append(await trade_to_tick(servers, database, traders, assets, size, readers=readers))
    watched, alone = measured
    name = f"trade to tick, {size.orders_per_second} orders/s, {size.readers} readers"
    line(f"{name}: median", [each[0] for each in watched], unit="ms", floor="at most 15 ms")
    line(f"{name}: p99", [each[1] for each in watched], unit="ms", floor="at most 80 ms")
    line("API process, processor time an order, with readers", [each[2] for each in watched], unit="us")
    line("API process, processor time an order, nobody reading", [each[2] for each in alone], unit="us")
    line("price worker, processor time an order, with readers", [each[3] for each in watched], unit="us")
    line("price worker, processor time an order, nobody reading", [each[3] for each in alone], unit="us")
    progress("idle readers")
    idle = [await idle_kib(servers, assets[0], size) for _ in range(min(size.rounds, 3))]
    line(
        f"an idle reader, from {size.idle[0]} to {size.idle[1]:,} connections", idle, unit="KiB", floor="at most 30 KB"
    )
    progress("stalled readers")
    stalls = [
        # An asset that no worker has ticked: the publisher stands in for it.
        await stalled(servers, database, await new_asset(database, f"STALL{number}"), size)
        for number in range(min(size.rounds, 3))
    ]
    line("p99 to 475 readers, nobody stalled", [each[0] for each in stalls], unit="ms")
    line(
        "p99 to 475 readers, 25 more stalled",
        [each[1] for each in stalls],
        unit="ms",
        peer=[each[0] for each in stalls],
        floor="at most 1.2 x",
    )
    line("API process, growth meanwhile", [each[2] for each in stalls], unit="MiB", floor="bounded")


async def _alone(size: Size) -> None:
    with pinned_away(), servers() as running:
        remember_commits(running)
        database, traders = await prepare(running.settings())
        try:
            await report(running, database, traders, size)
        finally:
            await database.close()


if __name__ == "__main__":
    asyncio.run(_alone(SHORT if "--short" in sys.argv else FULL))
