"""Streams under fire: Redis, price workers and the API die under readers who resume, and nobody loses a tick."""

import asyncio
import contextlib
import os
import random
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

import pytest

from api.node_ids import node_id
from app.bus import Bus
from app.db import Database
from app.local.valkey import EmbeddedValkey, ephemeral_valkey
from app.pricing.oracle_events import OracleEventKind, Reading, record_readings
from app.tasks import end
from tests.conftest import ROOT, make_settings
from tests.factories.market import new_asset
from tests.faults.conftest import Say
from tests.faults.inspection import connected
from tests.faults.machines import MortalApi
from tests.faults.stream_readers import StreamReader
from tests.faults.waiting import until

ASSETS = 10
RECOVERY_SECONDS = 20.0


class MortalWorker:
    """A price worker that may be killed."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start one."""
        command = [sys.executable, "-m", "app.cli", "worker", "price"]
        self._process = subprocess.Popen(command, cwd=ROOT, env=self._environment)

    def kill(self) -> None:
        """SIGKILL, and another one takes its place."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Stop it as an operator would."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
            self._process.kill()
            self._process.wait()


@dataclass
class House:
    """Everything between a reading and its readers, and who may kill it."""

    database: Database
    valkey: EmbeddedValkey
    api: MortalApi
    worker: MortalWorker
    asset_ids: list[int]


@contextmanager
def processes(database_url: str) -> Iterator[tuple[EmbeddedValkey, MortalApi, MortalWorker]]:
    """A Valkey, an API process and a price worker of the test's own."""
    with ExitStack() as stack:
        valkey = stack.enter_context(ephemeral_valkey())
        limits = {"MEGATRON_CONNECTIONS_PER_IP": "1000", "MEGATRON_LOG_LEVEL": "ERROR"}
        api = MortalApi(database_url=database_url, redis_url=valkey.url, **limits)
        stack.callback(api.close)
        own = {name: value for name, value in os.environ.items() if not name.startswith("MEGATRON_")}
        worker = MortalWorker(
            own | limits | {"DATABASE_URL": database_url, "REDIS_URL": valkey.url, "MEGATRON_ENV": "development"}
        )
        stack.callback(worker.close)
        api.start()
        worker.start()
        yield valkey, api, worker


@asynccontextmanager
async def house(database_url: str) -> AsyncIterator[House]:
    """The processes, and assets that the worker has ticked."""
    database = await Database.open(make_settings(database_url=database_url))
    try:
        assets = [await new_asset(database) for _ in range(ASSETS)]
        with processes(database_url) as (valkey, api, worker):
            made = House(database, valkey, api, worker, assets)
            await _until_ticked(made)
            yield made
    finally:
        await database.close()


async def _until_ticked(made: House) -> None:
    end = time.monotonic() + RECOVERY_SECONDS
    while time.monotonic() < end:
        async with made.database.acquire() as connection:
            ticked = await connection.fetchval(
                "SELECT count(*) FROM price_states WHERE seq >= 1 AND asset_id = ANY($1::bigint[])", made.asset_ids
            )
        if ticked == len(made.asset_ids):
            return
        await asyncio.sleep(0.05)
    raise TimeoutError("the price worker has not ticked the new assets")


async def feed(made: House, *, per_second: float, stop: asyncio.Event) -> int:
    """Readings of all assets in turn, at an even pace; how many."""
    from redis.asyncio import Redis

    redis: Redis = Redis.from_url(made.valkey.url)
    bus = Bus(redis)
    bus.start()
    begun, number = time.monotonic(), 0
    try:
        while not stop.is_set():
            reading = Reading(
                asset_id=made.asset_ids[number % ASSETS],
                kind=OracleEventKind.READING,
                value=(2_000 + number % 977) * 10**9,
                cadence_seconds=60,
                fresh_seconds=600,
            )
            async with made.database.transaction() as unit:
                await record_readings(unit=unit, readings=[reading], bus=bus)
            number += 1
            await asyncio.sleep(begun + number / per_second - time.monotonic())
    finally:
        await bus.stop()
        await redis.aclose()
    return number


async def heads(made: House) -> dict[str, int]:
    """The last seq of each asset, by node id, once every reading has become a tick."""
    end = time.monotonic() + RECOVERY_SECONDS
    while time.monotonic() < end:
        async with made.database.acquire() as connection:
            behind = await connection.fetchval(
                "SELECT count(*) FROM price_states s WHERE s.asset_id = ANY($1::bigint[]) AND s.oracle_seq <"
                " (SELECT coalesce(max(seq), 0) FROM oracle_events e WHERE e.asset_id = s.asset_id)",
                made.asset_ids,
            )
            if not behind:
                rows = await connection.fetch(
                    "SELECT asset_id, seq FROM price_states WHERE asset_id = ANY($1::bigint[])", made.asset_ids
                )
                return {node_id("Asset", row["asset_id"]): row["seq"] for row in rows}
        await asyncio.sleep(0.05)
    raise TimeoutError("the price worker has not taken every reading")


async def expect_whole_ticks(database_url: str) -> None:
    """Seqs per asset and positions of all are gapless, and nothing stands twice."""
    async with connected(database_url) as connection:
        assert await connection.fetchval(
            "SELECT count(*) FROM (SELECT asset_id FROM ticks GROUP BY asset_id"
            " HAVING count(*) <> max(seq) OR count(DISTINCT seq) <> count(*)) broken"
        ) == 0  # fmt: skip
        row = await connection.fetchrow("SELECT count(*), count(DISTINCT position), max(position) FROM ticks")
        assert row is not None
        assert row[0] == row[1] == row[2]


async def _expect_all_caught_up(made: House, readers: list[StreamReader]) -> None:
    """Every reader comes to the last tick of each asset that it reads."""
    last = await heads(made)

    def done() -> bool:
        return all(reader.seqs.get(asset, 0) >= seq for reader in readers for asset, seq in last.items() if
                   reader.asset_ids is None or asset in reader.asset_ids)  # fmt: skip

    await until(done, seconds=RECOVERY_SECONDS)


async def _expect_none_lost_under_fire(
    database_url: str, say: Say, *, readers: int, seconds: float, kills: list[str], seed: int
) -> None:
    say(f"seed {seed}")
    chance = random.Random(seed)
    async with house(database_url) as made:
        every = [node_id("Asset", asset_id) for asset_id in made.asset_ids]
        people = [
            StreamReader(made.api.url, None if number % 4 == 0 else chance.sample(every, chance.randint(1, ASSETS)))
            for number in range(readers)
        ]
        reading = [asyncio.create_task(person.run()) for person in people]
        stop = asyncio.Event()
        feeding = asyncio.create_task(feed(made, per_second=20, stop=stop))
        try:
            await until(lambda: all(person.connections for person in people), seconds=RECOVERY_SECONDS)
            for victim in kills:
                await asyncio.sleep(seconds / (len(kills) + 1) * chance.uniform(0.7, 1.3))
                await asyncio.to_thread(_kill, made, victim)
            await asyncio.sleep(seconds / (len(kills) + 1))
            stop.set()
            fed = await feeding
            await _expect_all_caught_up(made, people)
        finally:
            stop.set()
            await end([*reading, feeding])
    figures = {
        "readings": fed,
        "ticks": sum(person.ticks for person in people),
        "connections": sum(person.connections for person in people),
        "gaps": sum(person.gaps for person in people),
        "missed": sum(person.missed for person in people),
    }
    say(f"{readers} readers, kills {kills}: {figures}")
    assert [hole for person in people for hole in person.holes] == []
    assert (figures["gaps"], figures["missed"]) == (0, 0)
    assert figures["connections"] >= 2 * readers
    await expect_whole_ticks(database_url)


def _kill(made: House, victim: str) -> None:
    if victim == "redis":
        assert made.valkey._process is not None
        made.valkey._process.kill()
        made.valkey.stop()
        made.valkey.start()
    elif victim == "worker":
        made.worker.kill()
        made.worker.start()
    else:
        made.api.close()
        made.api.start()


async def test_readers_who_resume_see_every_seq_once_whatever_is_killed(fresh_database_url: str, say: Say) -> None:
    await _expect_none_lost_under_fire(
        fresh_database_url,
        say,
        readers=20,
        seconds=8,
        kills=["redis", "api", "worker"],
        seed=secrets.randbelow(2**32),
    )


@pytest.mark.soak
async def test_200_readers_for_three_minutes(fresh_database_url: str, say: Say) -> None:
    await _expect_none_lost_under_fire(
        fresh_database_url,
        say,
        readers=200,
        seconds=180,
        kills=["redis", "worker", "api", "redis", "worker"],
        seed=secrets.randbelow(2**32),
    )


async def _expect_streams_to_outlive_flushes(database_url: str, say: Say, *, times: int, seed: int) -> None:
    """FLUSHALL at random instants; each time every stream must go on within ten seconds."""
    from redis import Redis

    say(f"seed {seed}")
    chance = random.Random(seed)
    slowest = 0.0
    async with house(database_url) as made:
        people = [StreamReader(made.api.url) for _ in range(10)]
        reading = [asyncio.create_task(person.run()) for person in people]
        stop = asyncio.Event()
        feeding = asyncio.create_task(feed(made, per_second=20, stop=stop))
        try:
            await until(lambda: all(person.ticks for person in people), seconds=RECOVERY_SECONDS)
            for _ in range(times):
                await asyncio.sleep(chance.uniform(0.05, 0.8))
                with Redis.from_url(made.valkey.url) as redis:
                    redis.flushall()
                flushed, least = time.monotonic(), [person.ticks + 20 for person in people]
                await until(
                    lambda least=least: all(p.ticks >= n for p, n in zip(people, least, strict=True)),  # type: ignore[misc]
                    seconds=10,
                )
                slowest = max(slowest, time.monotonic() - flushed)
            stop.set()
            await feeding
            await _expect_all_caught_up(made, people)
        finally:
            stop.set()
            await end([*reading, feeding])
    say(f"{times} times FLUSHALL: twenty ticks further after {slowest:.2f} s at most, where a second is due")
    assert [hole for person in people for hole in person.holes] == []
    assert {(person.gaps, person.missed, person.connections) for person in people} == {(0, 0, 1)}
    await expect_whole_ticks(database_url)


async def test_streams_go_on_when_redis_is_emptied(fresh_database_url: str, say: Say) -> None:
    await _expect_streams_to_outlive_flushes(fresh_database_url, say, times=3, seed=secrets.randbelow(2**32))


@pytest.mark.soak
async def test_streams_go_on_when_redis_is_emptied_twenty_times(fresh_database_url: str, say: Say) -> None:
    await _expect_streams_to_outlive_flushes(fresh_database_url, say, times=20, seed=secrets.randbelow(2**32))
