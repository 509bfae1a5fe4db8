"""Tick streams: what a delivery costs, how many can be had without loss, and who else serves the same.

The process under test has one core, everything else (PostgreSQL, Valkey, readers, this process) the other. Ticks enter
where the price worker publishes them. `python -m benchmarks.streams` runs it by itself.
"""

import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from api.node_ids import node_id
from app.db import Database, migrate
from app.local.node import BuildError, find_node, install_packages
from app.pricing.ticks import TICKS_HEAD, TICKS_STREAM, Tick, TickCause, encode_ticks
from benchmarks.market import Servers, new_asset, servers
from benchmarks.report import line, progress

ROOT = Path(__file__).resolve().parent.parent
YOGA = ROOT / "benchmarks" / "yoga"
PORT = 18_432
SEED = 20_261_122
FIELDS = (
    "{ kind cursor serverTime missed ticks { assetId seq cause tradeSeq at display market fundamental marketWeight"
    " volume fundamentalStale } }"
)
PEER_DOCUMENT = f"subscription Ticks($ids: [ID!]!) {{ priceTicks(assetIds: $ids, heartbeatSeconds: 60) {FIELDS} }}"
DOCUMENT = (
    "subscription Ticks($ids: [ID!]!, $after: Cursor) { priceTicks(assetIds: $ids, after: $after, heartbeatSeconds: 60)"
    f" {FIELDS} }}"
)


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    readers: int
    calm_ticks: int
    spread_ticks: int
    rate_seconds: float


FULL = Size(rounds=5, readers=500, calm_ticks=100, spread_ticks=200, rate_seconds=2.0)
SHORT = Size(rounds=1, readers=50, calm_ticks=20, spread_ticks=40, rate_seconds=0.5)


# ------------------------------------------------------------------------------------------------ processes


def cores() -> tuple[set[int], set[int]]:
    """The core of the process under test, and that of everything else."""
    available = sorted(os.sched_getaffinity(0))
    return {available[0]}, {available[-1]}


@contextmanager
def pinned_away() -> Iterator[None]:
    """This process, and what it starts meanwhile, stays off the core of the process under test."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores()[1])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def environment_of(servers: Servers) -> dict[str, str]:
    """The environment of the project's own processes: production's path, limits on and out of reach."""
    settings = servers.settings()
    return {
        **os.environ,
        "MEGATRON_ENV": "development",
        "MEGATRON_PORT": str(PORT),
        "DATABASE_URL": settings.database_url or "",
        "REDIS_URL": settings.redis_url or "",
        "MEGATRON_RATE_LIMIT_PER_IP_MINUTE": str(10**9),
        "MEGATRON_RATE_LIMIT_PER_ACCOUNT_MINUTE": str(10**9),
        "MEGATRON_CONNECTIONS_PER_IP": "100000",
        "MEGATRON_SUBSCRIPTIONS_PER_IP": "100000",
        "MEGATRON_LOG_LEVEL": "WARNING",
    }


@contextmanager
def process(command: Sequence[str | Path], *, environment: dict[str, str] | None = None) -> Iterator[int]:
    """A server under test, alone on its core; yields its pid once it answers."""
    started = subprocess.Popen(list(command), cwd=ROOT, env=environment)
    os.sched_setaffinity(started.pid, cores()[0])
    try:
        wait_listening(started)
        yield started.pid
    finally:
        started.terminate()
        try:
            started.wait(timeout=20)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def wait_listening(started: "subprocess.Popen[bytes]") -> None:
    """Until the server answers anything at all."""
    end = time.monotonic() + 60
    while time.monotonic() < end and started.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/readyz", timeout=1):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("the server did not come up")


def processor_seconds(pid: int) -> float:
    """Processor time that the process has used so far, all its threads together (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class ReaderProcess:
    """The process that holds the readers."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.readers"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    async def ask(self, do: str, **command: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        answer = await asyncio.to_thread(self._ask, {"do": do, **command})
        if "error" in answer:
            raise RuntimeError(f"readers: {do}: {answer['error']}")
        return answer

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("no pipes")
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline() or '{"error": "the process ended"}')
        return answer

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


@contextmanager
def reader_process() -> Iterator[ReaderProcess]:
    """A fresh process of readers."""
    readers = ReaderProcess()
    try:
        yield readers
    finally:
        readers.close()


# ------------------------------------------------------------------------------------------------ publishing


class Publisher:
    """Stands where the price worker publishes: one stream entry a tick, positions and seqs without gaps."""

    def __init__(self, redis: Redis, database: Database, *, head: int) -> None:
        self._redis = redis
        self._database = database
        self._position = head
        self._seqs: dict[int, int] = {}

    def tick(self, asset_id: int) -> Tick:
        """The asset's next tick."""
        self._position += 1
        seq = self._seqs[asset_id] = self._seqs.get(asset_id, 1_000) + 1
        # At work every figure differs from the one before.
        market = 1_234_567_890_123 + 987_654_321 * (self._position % 1_000)
        return Tick(
            asset_id=asset_id,
            seq=seq,
            position=self._position,
            cause=TickCause.TRADE,
            trade_seq=seq,
            at=datetime.now(UTC),
            display=market - 12_345_678,
            market=market,
            fundamental=market - 98_765_432,
            market_weight=612_345_678,
            volume=0,
            stale=False,
        )

    async def settle_head(self) -> None:
        """Let the database say that it has everything published so far: a server that starts now begins there."""
        async with self._database.acquire() as connection:
            await connection.execute(
                "UPDATE stream_heads SET position = $1 WHERE stream = $2", self._position, TICKS_HEAD
            )

    async def publish(self, asset_ids: Sequence[int], *, per_second: float) -> None:
        """One tick of each in turn, evenly spaced."""
        begun = time.monotonic()
        for number, asset_id in enumerate(asset_ids):
            await asyncio.sleep(begun + number / per_second - time.monotonic())
            await self._redis.xadd(
                TICKS_STREAM, {"ticks": encode_ticks([self.tick(asset_id)])}, maxlen=10_000, approximate=True
            )


# ------------------------------------------------------------------------------------------------ what is measured


@dataclass(frozen=True)
class Target:
    """A server that can be started, and how it is asked."""

    name: str
    command: tuple[str | Path, ...]
    environment: dict[str, str] | None
    document: str
    resumed_every: int
    first_rate: float
    """Ticks a second of one asset at which the search for the highest rate begins."""


def targets(servers: Servers) -> list[Target]:
    """Ours, stock Strawberry, and graphql-yoga where Node.js is."""
    redis_url = servers.settings().redis_url or ""
    found = [
        Target(
            "megatron",
            (sys.executable, "-m", "app.cli", "api"),
            environment_of(servers),
            DOCUMENT,
            resumed_every=5,
            first_rate=256,
        ),
        Target(
            "stock Strawberry",
            (sys.executable, "-m", "benchmarks.stock", str(PORT), redis_url),
            None,
            PEER_DOCUMENT,
            resumed_every=0,
            first_rate=4,
        ),
    ]
    tools = find_node()
    if tools is None:
        progress("no Node.js: graphql-yoga is left out")
        return found
    try:
        install_packages(tools=tools, clients=True, web=YOGA, say=progress)
    except BuildError as error:
        progress(f"graphql-yoga is left out: {error}")
        return found
    command = (tools.node, YOGA / "server.mjs", str(PORT), redis_url)
    return [*found, Target("graphql-yoga", command, None, PEER_DOCUMENT, resumed_every=0, first_rate=16)]


def lists_of(assets: Sequence[int], *, readers: int, length: int) -> list[list[int]]:
    """Different lists, the same in every run."""
    chance = random.Random(SEED)
    return [sorted(chance.sample(list(assets), length)) for _ in range(readers)]


def variables(lists: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """The variables of readers of these lists."""
    return [{"ids": [node_id("Asset", asset_id) for asset_id in ids]} for ids in lists]


async def cost_us(
    target: Target, publisher: Publisher, lists: Sequence[Sequence[int]], ticks: Sequence[int], *, per_second: float
) -> float:
    """Microseconds of the server's processor time for each tick delivered, ticks of assets in this order."""
    await publisher.settle_head()
    with process(target.command, environment=target.environment) as pid, reader_process() as readers:
        await readers.ask(
            "open",
            port=PORT,
            document=target.document,
            variables=variables(lists),
            resumed_every=target.resumed_every,
        )
        # Something has been delivered before: caches are as in the middle of a day.
        warm = list(ticks)[: max(len(ticks) // 10, 5)]
        await _deliver(readers, publisher, lists, warm, per_second=per_second)
        before = processor_seconds(pid)
        delivered = await _deliver(readers, publisher, lists, ticks, per_second=per_second)
        return (processor_seconds(pid) - before) / delivered * 1e6


async def _deliver(
    readers: ReaderProcess,
    publisher: Publisher,
    lists: Sequence[Sequence[int]],
    ticks: Sequence[int],
    *,
    per_second: float,
    seconds: float = 120.0,
) -> int:
    """Publish and wait until every reader has what it wants; how many ticks that were. Raises when one is missing."""
    await readers.ask("reset")
    await publisher.publish(ticks, per_second=per_second)
    each = [sum(asset_id in set(ids) for asset_id in ticks) for ids in lists]
    result = await readers.ask("wait", each=each, seconds=seconds)
    if result["short"] or result["faults"]:
        raise RuntimeError(f"ticks are missing: {result}")
    return int(result["ticks"])


async def highest_rate(target: Target, publisher: Publisher, asset_id: int, size: Size) -> float:
    """The most ticks a second of one asset that reach every reader without loss and without falling behind.

    Steps of a quarter; a step that fails is tried once more, and where the first one fails the search begins lower. A
    step is passed when half a second after its last tick everybody has everything.
    """
    rate, passed = target.first_rate, 0.0
    await publisher.settle_head()
    with process(target.command, environment=target.environment), reader_process() as readers:
        lists = [[asset_id]] * size.readers
        await readers.ask("open", port=PORT, document=target.document, variables=variables(lists), resumed_every=0)
        while rate < 100_000:
            if not await _holds(readers, publisher, asset_id, rate, size) and not await _holds(
                readers, publisher, asset_id, rate, size
            ):
                if passed or rate < 1:
                    return passed
                rate /= 4
                continue
            passed, rate = rate, rate * 1.25
    return passed


async def _holds(readers: ReaderProcess, publisher: Publisher, asset_id: int, rate: float, size: Size) -> bool:
    ticks = [asset_id] * max(int(rate * size.rate_seconds), 4)
    await readers.ask("reset")
    started = time.monotonic()
    await publisher.publish(ticks, per_second=rate)
    kept_pace = time.monotonic() - started < 1.1 * len(ticks) / rate + 0.1
    result = await readers.ask("wait", ticks=len(ticks), seconds=0.5)
    holds = not result["short"] and not result["faults"] and kept_pace
    if result["short"]:
        await readers.ask("wait", ticks=len(ticks), seconds=60)
    return holds


async def report(servers: Servers, database: Database, *, assets: Sequence[int], head: int, size: Size) -> None:
    """Measure and print. `assets` are at least 100 open assets, `head` the last tick's position."""
    redis: Redis = Redis.from_url(servers.settings().redis_url or "")
    publisher = Publisher(redis, database, head=head)
    every = targets(servers)
    alike: dict[str, list[float]] = {target.name: [] for target in every}
    spread: dict[str, list[float]] = {target.name: [] for target in every}
    rates: dict[str, list[float]] = {target.name: [] for target in every}
    one = assets[0]
    lists = lists_of(assets[:100], readers=size.readers, length=20)
    chance = random.Random(SEED)
    for round_number in range(size.rounds):
        for target in every:
            progress(f"round {round_number + 1} of {size.rounds}: ticks to {size.readers} readers, {target.name}")
            alike[target.name].append(
                await cost_us(target, publisher, [[one]] * size.readers, [one] * size.calm_ticks, per_second=20)
            )
            if target.name != "graphql-yoga":
                ticks = [chance.choice(assets[:100]) for _ in range(size.spread_ticks)]
                spread[target.name].append(await cost_us(target, publisher, lists, ticks, per_second=40))
            rates[target.name].append(await highest_rate(target, publisher, one, size))
    await redis.aclose()
    _print(alike, spread, rates, size)


def _print(
    alike: dict[str, list[float]], spread: dict[str, list[float]], rates: dict[str, list[float]], size: Size
) -> None:
    stock = "stock Strawberry"
    for name, values in alike.items():
        asked = "at most 0.1 x, aim 0.04 x" if name == "megatron" else ""
        line(f"processor time a tick, {size.readers} alike: {name}", values, unit="us", peer=alike[stock], floor=asked)
    for name, values in spread.items():
        if values:
            asked = "at most 0.2 x" if name == "megatron" else ""
            line(f"the same, lists of 20 of 100: {name}", values, unit="us", peer=spread[stock], floor=asked)
    for name, values in rates.items():
        asked = "at least 10 x, and above yoga" if name == "megatron" else ""
        line(
            f"highest rate to {size.readers} without loss: {name}",
            values,
            unit="ticks/s",
            peer=rates[stock],
            floor=asked,
        )
    ours = statistics.median(rates["megatron"])
    if "graphql-yoga" in rates:
        print(f"megatron's highest rate over graphql-yoga's: {ours / statistics.median(rates['graphql-yoga']):.2f}")


async def alone(running: Servers, size: Size) -> None:
    """Everything, on an empty market of a hundred assets."""
    await migrate(running.settings())
    database = await Database.open(running.settings())
    try:
        assets = [await new_asset(database, f"TICK{number}") for number in range(100)]
        await report(running, database, assets=assets, head=0, size=size)
    finally:
        await database.close()


async def _main(size: Size) -> None:
    with pinned_away(), servers() as running:
        await alone(running, size)


if __name__ == "__main__":
    asyncio.run(_main(SHORT if "--short" in sys.argv else FULL))
