"""Oracle workers killed at every step, in pairs, without servers and providers: no reading twice, none lost."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

import asyncpg
import pytest

from app.db import Connection, Database
from app.local.valkey import EmbeddedValkey, ephemeral_valkey
from app.oracle.claims import Claim
from app.oracle.configuration import Configuration, SearchConfiguration
from app.oracle.extraction import Extractor
from app.oracle.fetching import Fetcher
from app.oracle.guard import Policy, Timing
from app.oracle.providers import open_providers
from app.oracle.replays import start_replay
from app.oracle.reports import Draft
from app.oracle.runner import Runner
from app.oracle.steps import Step
from tests.conftest import make_settings
from tests.factories.market import new_admin, new_asset
from tests.faults.conftest import Say
from tests.faults.machines import MortalPostgres, mortal_postgres
from tests.faults.oracle_sources import SERIES, WIDGETS, hosts_of, publish
from tests.faults.oracle_workers import MortalOracleWorker
from tests.oracle.provider_server import MODEL, SEARCH, Answer, ProviderServer, provider_server
from tests.oracle.running import ScriptedRuns, running_oracle
from tests.oracle.schedules import draft, new_oracle, oracle_row, set_oracle
from tests.pricing.market import open_market
from tests.pricing.running import open_database, running_worker, until

STEPS = (
    Step.CLAIMED, Step.LOADED, Step.SEARCHED, Step.FETCHED, Step.ASKED, Step.READ, Step.JUDGED, Step.RECORDED,
)  # fmt: skip
LIFE_SECONDS = 60.0
"""A worker that is to die gets this long until it does."""


@pytest.fixture
def own_valkey() -> Iterator[EmbeddedValkey]:
    """A Valkey that nobody else uses."""
    with ephemeral_valkey() as server:
        yield server


@pytest.fixture
async def own(fresh_database_url: str) -> AsyncIterator[Database]:
    async with open_database(fresh_database_url) as database:
        yield database


@pytest.fixture
async def web() -> AsyncIterator[ProviderServer]:
    async with provider_server() as server:
        publish(server, price="2.00", edition=1)
        yield server


@pytest.fixture
def seed() -> int:
    """MEGATRON_TEST_SEED, or a new one each time."""
    return int(os.environ.get("MEGATRON_TEST_SEED", random.randrange(10**6)))


async def oracles(database: Database, configurations: Sequence[Configuration], *, cadence_seconds: int) -> list[int]:
    """New assets with these oracles, due now."""
    admin = await new_admin(database)
    made = [await new_asset(database, admin=admin, base_price="2") for _ in configurations]
    for asset_id, configuration in zip(made, configurations, strict=True):
        if not isinstance(configuration, SearchConfiguration):
            async with database.acquire() as connection:
                await start_replay(
                    connection=connection,
                    asset_id=asset_id,
                    series="seattle-weather",
                    column="temp_max",
                    speed_factor=Decimal(1),
                    at=await connection.fetchval("SELECT clock_timestamp()"),
                )
        await new_oracle(database, asset_id, configuration=configuration, cadence_seconds=cadence_seconds)
    return made


async def reports(connection: Connection) -> dict[int, int]:
    """How many reports each asset has."""
    rows = await connection.fetch("SELECT asset_id, count(*) AS reports FROM oracle_logs GROUP BY asset_id")
    return {row["asset_id"]: row["reports"] for row in rows}


async def until_more(database: Database, assets: Sequence[int], *, more: int = 1, seconds: float = 30.0) -> float:
    """Wait until each of the assets has so many more reports than now; how long that took."""
    started = time.monotonic()
    before: dict[int, int] | None = None

    async def enough() -> bool:
        nonlocal before
        try:
            async with database.acquire() as connection:
                found = await reports(connection)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        if before is None:
            before = found
        return all(found.get(asset_id, 0) >= before.get(asset_id, 0) + more for asset_id in assets)

    await until(enough, seconds=seconds)
    return time.monotonic() - started


@dataclass(frozen=True)
class Whole:
    """What a check of everything has seen."""

    reports: int
    accepted: int
    events: int


async def assert_reports_whole(database: Database) -> Whole:
    """Everything fits together: positions, runs, events, evidence. Answers the counts."""
    async with database.acquire() as connection:
        positions = [row[0] for row in await connection.fetch("SELECT position FROM oracle_logs ORDER BY position")]
        assert positions == list(range(1, len(positions) + 1)), "positions are gapless"
        head = await connection.fetchval("SELECT position FROM stream_heads WHERE stream = 'oracle'")
        assert head == len(positions), "and the head is the last of them"
        gaps = await connection.fetch(
            "SELECT asset_id FROM oracle_events GROUP BY asset_id HAVING max(seq) <> count(*) OR min(seq) <> 1"
        )
        assert gaps == [], "seqs of oracle events are gapless"
        doubles = await connection.fetch(
            "SELECT asset_id, run_id FROM oracle_logs GROUP BY asset_id, run_id HAVING count(*) > 1"
        )
        assert doubles == [], "a run is recorded once"
        rows = await connection.fetch(
            "SELECT l.id, l.outcome, l.suggested_price, l.event_seq, e.kind, e.value FROM oracle_logs l"
            " LEFT JOIN oracle_events e ON e.asset_id = l.asset_id AND e.seq = l.event_seq"
        )
        for row in rows:
            if row["outcome"] == "ACCEPTED":
                assert row["value"] == row["suggested_price"], f"the event of report {row['id']} says what it says"
            else:
                assert row["kind"] in (None, "REFRESH"), f"report {row['id']} moves nothing"
        told = sum(row["event_seq"] is not None for row in rows)
        events = await connection.fetchval("SELECT count(*) FROM oracle_events")
        assert told == events, "every event is of exactly one report"
        shared = await connection.fetch(
            "SELECT event_seq FROM oracle_logs WHERE event_seq IS NOT NULL GROUP BY asset_id, event_seq"
            " HAVING count(*) > 1"
        )
        assert shared == [], "and no two reports share one"
    return Whole(len(rows), sum(row["outcome"] == "ACCEPTED" for row in rows), events)


# ------------------------------------------------------------------------------------------------ killed at a step


async def _check_kills(
    database: Database, worker: MortalOracleWorker, web: ProviderServer, deaths: Sequence[tuple[Step, int]], say: Say
) -> None:
    """A worker dies at each of `deaths`, one life after the other; then one lives."""
    assets = await oracles(database, [WIDGETS, SERIES, SERIES], cadence_seconds=2)
    try:
        for number, (step, nth) in enumerate(deaths):
            publish(web, price=f"2.0{number % 10}", edition=number + 2)
            worker.start(die_at=step, nth=nth)
            await until(lambda: worker.is_dead, seconds=LIFE_SECONDS)
            await assert_reports_whole(database)
            async with database.acquire() as connection:
                # Its claims need not be waited for: what a process that is surely dead ran may be claimed.
                await connection.execute("UPDATE oracles SET claimed_until = clock_timestamp()")
        publish(web, price="2.15", edition=len(deaths) + 2)
        worker.start()
        await until_more(database, assets, more=2, seconds=LIFE_SECONDS)
        assert worker.stop() == 0
        whole = await assert_reports_whole(database)
        async with database.acquire() as connection:
            failures = await connection.fetch("SELECT last_error FROM oracles WHERE failures > 0")
            claimed = await connection.fetchval("SELECT count(*) FROM oracles WHERE claimed_until IS NOT NULL")
            read = await connection.fetch(
                "SELECT suggested_price, outcome, reasons FROM oracle_logs WHERE method = 'SEARCH_LLM' ORDER BY id"
            )
        assert ([row["last_error"] for row in failures], claimed) == ([], 0)
        assert {(row["outcome"], row["reasons"]) for row in read} <= {("ACCEPTED", ""), ("REJECTED", "REPEAT")}
        assert read[-1]["suggested_price"] == 215 * 10**10
    finally:
        worker.kill()
    say(f"{len(deaths)} deaths; {whole.reports} reports, {whole.accepted} accepted, {whole.events} events")


def _mortal(url: str, web: ProviderServer, valkey: EmbeddedValkey) -> MortalOracleWorker:
    return MortalOracleWorker(
        database_url=url,
        redis_url=valkey.url,
        MEGATRON_ORACLE_ALLOW_PRIVATE="1",
        MEGATRON_ORACLE_HOSTS=hosts_of(web),
        SERPER_API_URL=web.serper_url,
        HUGGINGFACE_API_URL=web.huggingface_url,
    )


async def test_a_worker_killed_at_each_step_loses_and_repeats_nothing(
    own: Database, fresh_database_url: str, web: ProviderServer, own_valkey: EmbeddedValkey, say: Say
) -> None:
    worker = _mortal(fresh_database_url, web, own_valkey)
    await _check_kills(own, worker, web, [(step, 1) for step in STEPS], say)


@pytest.mark.soak
async def test_a_worker_killed_at_each_step_again_and_again(
    own: Database, fresh_database_url: str, web: ProviderServer, own_valkey: EmbeddedValkey, say: Say
) -> None:
    worker = _mortal(fresh_database_url, web, own_valkey)
    await _check_kills(own, worker, web, [(step, nth) for nth in (1, 2, 3, 4) for step in STEPS], say)


# ------------------------------------------------------------------------------------------------ two at once


async def _check_two(database: Database, url: str, *, rounds: int, seed: int, say: Say) -> None:
    """Two workers share assets that are due all the time; then one of them stops in the middle of everything."""
    chance = random.Random(seed)
    admin = await new_admin(database)
    assets = [await new_asset(database, admin=admin) for _ in range(8)]
    for asset_id in assets:
        await new_oracle(database, asset_id, cadence_seconds=1)

    async def reading(claim: Claim) -> Draft:
        await asyncio.sleep(chance.random() * 0.2)
        return draft(claim)

    runs = ScriptedRuns(reading)
    async with running_oracle(url, runs, concurrency=5) as first:
        async with running_oracle(url, runs, concurrency=5) as second:
            await until_more(database, assets, more=rounds, seconds=60.0)
            shares = [first.figures.recorded, second.figures.recorded]
        await until_more(database, assets, seconds=30.0)
    whole = await assert_reports_whole(database)
    assert set(runs.most_at_once.values()) == {1}
    assert min(shares) > 0
    pairs = [(claim.asset_id, claim.run_id) for claim in runs.begun]
    assert len(set(pairs)) == len(pairs)
    say(f"seed {seed}: {whole.reports} reports, by each worker {shares}")


async def test_two_workers_never_run_an_asset_at_the_same_time(
    own: Database, fresh_database_url: str, seed: int, say: Say
) -> None:
    await _check_two(own, fresh_database_url, rounds=3, seed=seed, say=say)


@pytest.mark.soak
async def test_two_workers_for_a_minute(own: Database, fresh_database_url: str, seed: int, say: Say) -> None:
    await _check_two(own, fresh_database_url, rounds=40, seed=seed, say=say)


# ------------------------------------------------------------------------------------------------ servers away


async def steady(claim: Claim) -> Draft:
    """A run that takes a moment."""
    await asyncio.sleep(0.02)
    return draft(claim)


async def _check_servers(
    url: str, redis_url: str, breaks: Sequence[tuple[Callable[[], object], Callable[[], object]]], say: Say
) -> None:
    """Each of `breaks` takes a server away and brings it back while a worker reads three assets."""
    waits = []
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(url))
        admin = await new_admin(database)
        assets = [await new_asset(database, admin=admin) for _ in range(3)]
        for asset_id in assets:
            await new_oracle(database, asset_id, cadence_seconds=1)
        await stack.enter_async_context(running_oracle(url, ScriptedRuns(steady), redis_url=redis_url))
        await until_more(database, assets)
        for away, back in breaks:
            await asyncio.to_thread(away)
            await asyncio.to_thread(back)
            waits.append(await until_more(database, assets, seconds=40.0))
        whole = await assert_reports_whole(database)
    say(f"reading again after {max(waits):.2f} s at most; {whole.reports} reports")
    assert whole.accepted == whole.reports


@pytest.fixture
def mortal() -> Iterator[MortalPostgres]:
    with mortal_postgres() as server:
        yield server


async def test_postgres_killed_and_started_again(mortal: MortalPostgres, own_valkey: EmbeddedValkey, say: Say) -> None:
    await _check_servers(mortal.dsn, own_valkey.url, [(mortal.kill, mortal.start)] * 2, say)


async def test_redis_killed_and_started_again(fresh_database_url: str, own_valkey: EmbeddedValkey, say: Say) -> None:
    nothing = (lambda: None, lambda: None)
    breaks = [(own_valkey.stop, lambda: None), (own_valkey.start, lambda: None), nothing]
    await _check_servers(fresh_database_url, own_valkey.url, breaks, say)


@pytest.mark.soak
async def test_postgres_killed_ten_times(mortal: MortalPostgres, own_valkey: EmbeddedValkey, say: Say) -> None:
    await _check_servers(mortal.dsn, own_valkey.url, [(mortal.kill, mortal.start)] * 10, say)


# ------------------------------------------------------------------------------------------------ providers away


async def test_providers_that_are_down_for_long_leave_the_market_alone_and_an_alert(
    fresh_database_url: str, own_valkey: EmbeddedValkey, web: ProviderServer, say: Say
) -> None:
    skew = [0.0]
    settings = make_settings(
        database_url=fresh_database_url,
        serper_api_url=web.serper_url,
        huggingface_api_url=web.huggingface_url,
        oracle_allow_private=True,
        oracle_hosts=hosts_of(web),
    )
    async with AsyncExitStack() as stack:
        market = await stack.enter_async_context(open_market(fresh_database_url, own_valkey.url))
        await stack.enter_async_context(running_worker(fresh_database_url, redis_url=own_valkey.url))
        (asset_id,) = await oracles(market.database, [WIDGETS], cadence_seconds=2)
        once = Policy(seconds_max=5.0, attempt_seconds_max=5.0, attempts_max=1)
        providers = await open_providers(
            settings,
            market.database,
            None,
            timing=Timing(monotonic=lambda: time.monotonic() + skew[0]),
            search_policy=once,
            model_policy=once,
        )
        stack.push_async_callback(providers.aclose)
        fetcher = Fetcher(allow_private=True, hosts=settings.oracle_host_addresses)
        stack.push_async_callback(fetcher.aclose)
        extractor = Extractor()
        stack.push_async_callback(extractor.stop)
        runner = Runner(market.database, providers, fetcher, extractor, settings=settings)
        worker = await stack.enter_async_context(running_oracle(fresh_database_url, _Runs(runner.run)))
        await until_more(market.database, [asset_id])
        for kind in (SEARCH, MODEL):
            web.always(kind, Answer(status=503))

        async def hour_passes() -> None:
            await set_oracle(market.database, asset_id, due_at=timedelta(), claimed_until=None)
            await worker.look()

        await _until_failed(market.database, asset_id, failures=7, passing=hour_passes)
        async with market.database.acquire() as connection:
            await connection.execute("UPDATE oracle_events SET at = at - interval '1 hour'")
        await worker.look()
        assert await _open_alerts(market.database) == [asset_id]
        await market.trade(asset_id)
        ticks, trades, _ = await market.whole()
        assert trades == 1
        for kind in (SEARCH, MODEL):
            web.always(kind, None)
        publish(web, price="2.05", edition=2)
        skew[0] += 3_600.0
        await set_oracle(market.database, asset_id, due_at=timedelta())
        await until_more(market.database, [asset_id])
        await worker.look()
        assert await _open_alerts(market.database) == []
        async with market.database.acquire() as connection:
            found = await oracle_row(connection, asset_id)
            used = await connection.fetchval("SELECT requests FROM oracle_usage WHERE provider = 'serper'")
        assert (found.failures, found.last_error) == (0, None)
        await assert_reports_whole(market.database)
    say(f"{used} requests to the search provider, {ticks} ticks meanwhile")
    # Once it had failed five times it was left alone.
    assert used <= 5 + 2


@dataclass
class _Runs(ScriptedRuns):
    """The real runs."""


async def _until_failed(
    database: Database, asset_id: int, *, failures: int, passing: Callable[[], Awaitable[None]]
) -> None:
    """Let time pass until so many runs have failed on end."""

    async def failed() -> bool:
        async with database.acquire() as connection:
            found = await oracle_row(connection, asset_id)
        if found.failures < failures and found.claimed_for is None:
            await passing()
        return found.failures >= failures

    await until(failed, seconds=40.0)


async def _open_alerts(database: Database) -> list[int]:
    async with database.acquire() as connection:
        rows = await connection.fetch("SELECT asset_id FROM alerts WHERE resolved_at IS NULL")
    return [row["asset_id"] for row in rows]
