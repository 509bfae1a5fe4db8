"""Price workers killed at every instant, Redis emptied and killed, PostgreSQL restarted: no tick lost, none twice."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import asyncpg
import pytest

from app.bus import Bus
from app.db import Database
from app.exchange.settlement import SettlementUnavailable
from app.local.valkey import EmbeddedValkey, ephemeral_valkey
from app.pricing import claims
from app.pricing.worker import PriceWorker
from tests.conftest import make_settings
from tests.factories.market import new_account, place_order
from tests.faults.conftest import Say
from tests.faults.machines import MortalPostgres, mortal_postgres
from tests.faults.price_workers import Mortal, MortalPriceWorker
from tests.pricing.market import Market, open_market
from tests.pricing.running import record, running_worker, until
from tests.pricing.wholeness import assert_ticks_whole

TAKE_OVER_SECONDS = 10.0
RECOVERY_SECONDS = 10.0


@pytest.fixture
def own_valkey() -> Iterator[EmbeddedValkey]:
    """A Valkey that nobody else uses."""
    with ephemeral_valkey() as server:
        yield server


@pytest.fixture
async def market(fresh_database_url: str, own_valkey: EmbeddedValkey) -> AsyncIterator[Market]:
    async with open_market(fresh_database_url, own_valkey.url) as opened:
        yield opened


@pytest.fixture
def seed() -> int:
    """MEGATRON_TEST_SEED, or a new one each time."""
    return int(os.environ.get("MEGATRON_TEST_SEED", random.randrange(10**6)))


@asynccontextmanager
async def trading(market: Market, assets: list[int], *, seed: int) -> AsyncIterator[list[int]]:
    """Trades and readings of `assets` until the end, as fast as they are answered; counts the trades in its list."""
    chance = random.Random(seed)
    trader = await new_account(market.database, usdc="100000000")
    count = [0]
    stopping = asyncio.Event()

    async def trade(asset_id: int) -> None:
        while not stopping.is_set():
            with suppress(SettlementUnavailable):
                await place_order(market.settlement, trader, asset_id, amount=f"{chance.randint(1, 50)}")
                count[0] += 1
            await asyncio.sleep(chance.random() * 0.02)

    async def read() -> None:
        while not stopping.is_set():
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await record(market.database, chance.choice(assets), chance.randint(10**11, 10**13), bus=market.bus)
            await asyncio.sleep(chance.random() * 0.1)

    flows = [asyncio.create_task(flow) for flow in (*(trade(asset_id) for asset_id in assets), read())]
    try:
        yield count
    finally:
        stopping.set()
        await asyncio.gather(*flows)


async def until_new_ticks(market: Market, assets: list[int], *, seconds: float) -> float:
    """Wait until every asset has a tick that it does not have now; how long that took."""

    async def seqs() -> dict[int, int]:
        async with market.database.acquire() as connection:
            rows = await connection.fetch("SELECT asset_id, seq FROM price_states")
        return {row["asset_id"]: row["seq"] for row in rows}

    started, before = time.monotonic(), await seqs()

    async def moved() -> bool:
        now = await seqs()
        return all(now[asset_id] > before[asset_id] for asset_id in assets)

    await until(moved, seconds=seconds)
    return time.monotonic() - started


# ------------------------------------------------------------------------------------------------ killed at any await


async def lived(market: Market, *, last: int) -> bool:
    """A worker claims what there is and takes a turn, in which it dies at its `last`th await; whether it lived on.

    Its process is gone then: its connections are cut, and others may claim what was its own.
    """
    database = await Database.open(make_settings(database_url=market.url))
    worker = PriceWorker(database, None, Bus(None), label=f"dies at await {last}")
    try:
        async with database.acquire() as connection:
            await worker.register(connection)
            await worker.look(connection)
        connection = await database.pool.acquire()
        turn = Mortal(worker.turn(connection), last=last)
        with suppress(asyncio.CancelledError):
            await turn
        return not turn.died
    finally:
        database.pool.terminate()
        # Transports close in the loop's next turns.
        await asyncio.sleep(0.01)
        async with market.database.acquire() as connection:
            await connection.execute("DELETE FROM price_workers WHERE id = $1", worker.worker_id)


async def test_a_worker_that_dies_at_any_await_loses_and_repeats_nothing(market: Market, say: Say) -> None:
    assets = await market.assets(2)
    last = trades = 0
    while True:
        await market.trade(*assets)
        await record(market.database, assets[0], (2 + last) * 10**12)
        last, trades = last + 1, trades + 2
        if await lived(market, last=last):
            break
        async with market.database.acquire() as connection:
            await assert_ticks_whole(connection, caught_up=False)
    async with running_worker(market.url):
        ticks, *causes = await market.whole()
    say(f"died at each of {last - 1} awaits; {ticks} ticks")
    assert causes == [trades, last]
    assert last > 5


async def test_a_worker_that_dies_at_any_await_of_its_look_leaves_nothing_behind(market: Market, say: Say) -> None:
    assets = await market.assets(2)
    await market.trade(*assets)
    last, died = 0, True
    while died:
        last += 1
        database = await Database.open(make_settings(database_url=market.url))
        worker = PriceWorker(database, None, Bus(None), label=f"dies at await {last}")
        connection = await database.pool.acquire()
        await worker.register(connection)
        look = Mortal(worker.look(connection), last=last)
        with suppress(asyncio.CancelledError):
            await look
        died = look.died
        database.pool.terminate()
        # Transports close in the loop's next turns.
        await asyncio.sleep(0.01)
        async with market.database.acquire() as other:
            await other.execute("DELETE FROM price_workers WHERE id = $1", worker.worker_id)
    say(f"died at each of {last - 1} awaits")
    assert last > 5
    async with running_worker(market.url):
        assert await market.whole() == (4, 2, 0)


# ------------------------------------------------------------------------------------------------ killed processes


async def _check_kills(market: Market, *, kills: int, seed: int, say: Say) -> None:
    """Of two worker processes one is killed, again and again; the other has its assets within ten seconds."""
    chance = random.Random(seed)
    assets = await market.assets(4)
    workers = [MortalPriceWorker(database_url=market.url, redis_url=market.redis_url) for _ in range(2)]
    waits: list[float] = []
    try:
        for worker in workers:
            worker.start()
        async with trading(market, assets, seed=seed) as trades:
            await until(lambda: _shared(market, by=2))
            for number in range(kills):
                await asyncio.sleep(chance.random())
                workers[number % 2].kill()
                waits.append(await until_new_ticks(market, assets, seconds=TAKE_OVER_SECONDS))
                workers[number % 2].start()
                await until(lambda: _shared(market, by=2))
        ticks, traded, _ = await market.whole()
        assert traded == trades[0]
        assert [worker.stop() for worker in workers] == [0, 0]
        assert set((await market.owners()).values()) == {None}
    finally:
        for worker in workers:
            worker.kill()
    say(f"seed {seed}: {kills} kills, taken over within {max(waits):.2f} s at most; {ticks} ticks, {traded} trades")


async def _shared(market: Market, *, by: int) -> bool:
    """Whether so many workers that are alive own all assets."""
    async with market.database.acquire() as connection:
        standing = await claims.prices_standing(connection=connection)
    return standing.unowned == 0 and sum(worker.assets > 0 for worker in standing.workers) == by


async def test_a_killed_process_is_taken_over_within_ten_seconds(market: Market, seed: int, say: Say) -> None:
    await _check_kills(market, kills=1, seed=seed, say=say)


@pytest.mark.soak
async def test_processes_killed_at_random_instants(market: Market, seed: int, say: Say) -> None:
    await _check_kills(market, kills=12, seed=seed, say=say)


async def test_the_only_worker_is_killed_in_the_middle_of_its_writing_and_started_again(
    market: Market, seed: int, say: Say
) -> None:
    chance = random.Random(seed)
    assets = await market.assets(3)
    worker = MortalPriceWorker(database_url=market.url, redis_url=market.redis_url)
    try:
        async with trading(market, assets, seed=seed) as trades:
            for _ in range(3):
                worker.start()
                await until_new_ticks_or_states(market, assets)
                await asyncio.sleep(chance.random() * 0.3)
                worker.kill()
                async with market.database.acquire() as connection:
                    await assert_ticks_whole(connection, caught_up=False)
                    # Its lease need not be waited for: what a process that is surely dead owned may be claimed.
                    await connection.execute("DELETE FROM price_workers")
        worker.start()
        ticks, traded, _ = await market.whole()
        assert traded == trades[0]
        assert worker.stop() == 0
    finally:
        worker.kill()
    say(f"seed {seed}: 3 kills; {ticks} ticks, {traded} trades")


async def until_new_ticks_or_states(market: Market, assets: list[int]) -> None:
    """Wait until the engine has assets to tick, and ticks them."""

    async def stated() -> bool:
        async with market.database.acquire() as connection:
            return bool(await connection.fetchval("SELECT count(*) = $1 FROM price_states", len(assets)))

    await until(stated)
    await until_new_ticks(market, assets, seconds=TAKE_OVER_SECONDS)


# ------------------------------------------------------------------------------------------------ Redis


async def _check_flushes(market: Market, *, flushes: int, seed: int, say: Say) -> None:
    """Redis is emptied at random instants while everybody trades."""
    chance = random.Random(seed)
    assets = await market.assets(3)
    waits: list[float] = []
    async with running_worker(market.url, redis_url=market.redis_url) as worker:
        await until(lambda: worker.reads_streams and len(worker.asset_ids) == 3)
        async with trading(market, assets, seed=seed) as trades:
            for _ in range(flushes):
                await asyncio.sleep(chance.random() * 0.5)
                await market.redis.flushall()
                waits.append(await until_new_ticks(market, assets, seconds=RECOVERY_SECONDS))
        ticks, traded, _ = await market.whole()
    assert traded == trades[0]
    say(f"seed {seed}: {flushes} times, ticking again within {max(waits):.3f} s; {ticks} ticks, {traded} trades")


async def test_redis_emptied_at_random_instants(market: Market, seed: int, say: Say) -> None:
    await _check_flushes(market, flushes=3, seed=seed, say=say)


@pytest.mark.soak
async def test_redis_emptied_at_twenty_random_instants(market: Market, seed: int, say: Say) -> None:
    await _check_flushes(market, flushes=20, seed=seed, say=say)


async def test_redis_killed_and_started_again(market: Market, own_valkey: EmbeddedValkey, seed: int, say: Say) -> None:
    assets = await market.assets(3)
    async with running_worker(market.url, redis_url=market.redis_url) as worker:
        await until(lambda: worker.reads_streams and len(worker.asset_ids) == 3)
        async with trading(market, assets, seed=seed) as trades:
            waits = []
            for _ in range(2):
                own_valkey.stop()
                await until(lambda: not worker.reads_streams)
                waits.append(await until_new_ticks(market, assets, seconds=RECOVERY_SECONDS))
                own_valkey.start()
                await until(lambda: worker.reads_streams)
                waits.append(await until_new_ticks(market, assets, seconds=RECOVERY_SECONDS))
        ticks, traded, _ = await market.whole()
    assert traded == trades[0]
    say(f"seed {seed}: ticking within {max(waits):.3f} s; {ticks} ticks, {traded} trades")


# ------------------------------------------------------------------------------------------------ PostgreSQL


@pytest.fixture
def mortal() -> Iterator[MortalPostgres]:
    with mortal_postgres() as server:
        yield server


async def test_postgres_killed_and_started_again(
    mortal: MortalPostgres, own_valkey: EmbeddedValkey, seed: int, say: Say
) -> None:
    async with AsyncExitStack() as stack:
        market = await stack.enter_async_context(open_market(mortal.dsn, own_valkey.url))
        assets = await market.assets(3)
        worker = await stack.enter_async_context(running_worker(market.url, redis_url=market.redis_url))
        await until(lambda: worker.reads_streams and len(worker.asset_ids) == 3)
        waits = []
        async with trading(market, assets, seed=seed):
            for _ in range(2):
                await until_new_ticks(market, assets, seconds=RECOVERY_SECONDS)
                await asyncio.to_thread(mortal.kill)
                await asyncio.to_thread(mortal.start)
                waits.append(await until_new_ticks(market, assets, seconds=RECOVERY_SECONDS))
        ticks, traded, _ = await market.whole()
    say(f"seed {seed}: ticking {max(waits):.3f} s after the start; {ticks} ticks, {traded} trades")
    assert traded > 0
