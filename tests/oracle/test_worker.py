"""The oracle worker: claims, runs, records, schedules, and stays well whatever happens to a run or a server."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import timedelta

import asyncpg
import pytest
from redis.asyncio import Redis

from app.bus import CHANGES_STREAM, Bus, encode_changes
from app.db import Database
from app.local.valkey import EmbeddedValkey, ephemeral_valkey
from app.oracle import worker as worker_module
from app.oracle.claims import Claim
from app.oracle.metrics import OracleMetrics
from app.oracle.reports import Draft, record
from app.oracle.runner import RunFailed
from app.oracle.steps import Step
from app.oracle.worker import OracleWorker
from tests.factories.market import new_admin, new_asset
from tests.oracle.running import ScriptedRuns, accepted, running_oracle
from tests.oracle.schedules import SEARCH, Row, draft, new_oracle, oracle_row, set_oracle
from tests.pricing.running import open_database, until


@pytest.fixture
async def own(fresh_database_url: str) -> AsyncIterator[Database]:
    async with open_database(fresh_database_url) as database:
        yield database


@pytest.fixture
def own_valkey() -> Iterator[EmbeddedValkey]:
    """A Valkey that nobody else uses."""
    with ephemeral_valkey() as server:
        yield server


async def assets(database: Database, count: int, *, cadence_seconds: int | None = None) -> list[int]:
    """New assets with feeds that are due."""
    admin = await new_admin(database)
    made = [await new_asset(database, admin=admin) for _ in range(count)]
    for asset_id in made:
        await new_oracle(database, asset_id, cadence_seconds=cadence_seconds)
    return made


async def row(database: Database, asset_id: int) -> Row:
    async with database.acquire() as connection:
        return await oracle_row(connection, asset_id)


async def reports(database: Database) -> list[tuple[int, int, str]]:
    """(asset, run, outcome) of every report, in the order of their positions."""
    async with database.acquire() as connection:
        found = await connection.fetch("SELECT asset_id, run_id, outcome FROM oracle_logs ORDER BY position")
    return [tuple(each) for each in found]


async def until_reports(database: Database, count: int) -> list[tuple[int, int, str]]:
    found: list[tuple[int, int, str]] = []

    async def enough() -> bool:
        found[:] = await reports(database)
        return len(found) >= count

    await until(enough)
    return found


# ------------------------------------------------------------------------------------------------ the round


async def test_what_is_due_is_run_recorded_and_due_again(own: Database, fresh_database_url: str) -> None:
    first, second = await assets(own, 2)
    steps: list[Step] = []
    async with running_oracle(fresh_database_url, ScriptedRuns(accepted), on_step=steps.append):
        assert sorted(await until_reports(own, 2)) == [(first, 1, "ACCEPTED"), (second, 1, "ACCEPTED")]
    for asset_id in (first, second):
        found = await row(own, asset_id)
        assert (found.run_id, found.failures, found.claimed_for) == (1, 0, None)
        assert found.due_in is not None
        assert 25 < found.due_in <= 60
    assert steps[:2] == [Step.CLAIMED, Step.CLAIMED]
    assert Step.RECORDED in steps
    async with own.acquire() as connection:
        events = await connection.fetch(
            "SELECT asset_id, seq, kind, value, cadence_seconds, fresh_seconds FROM oracle_events"
        )
    assert sorted(tuple(event) for event in events) == [
        (asset_id, 1, "READING", 2 * 10**12, 60, 180) for asset_id in (first, second)
    ]


async def test_feeds_that_are_claimed_together_are_recorded_together(own: Database, fresh_database_url: str) -> None:
    made = await assets(own, 20)
    async with running_oracle(fresh_database_url, ScriptedRuns(accepted)) as worker:
        await until_reports(own, 20)
        assert worker.figures.claimed == 20
        assert worker.figures.writes <= 2
    assert {asset_id for asset_id, _, _ in await reports(own)} == set(made)


async def test_a_run_is_begun_when_it_is_due_and_not_a_poll_later(
    own: Database, fresh_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "POLL_SECONDS", 60.0)
    (asset_id,) = await assets(own, 1)
    await set_oracle(own, asset_id, due_at=timedelta(seconds=0.3))
    async with running_oracle(fresh_database_url, ScriptedRuns(accepted)):
        assert await until_reports(own, 1) == [(asset_id, 1, "ACCEPTED")]


async def test_no_more_runs_are_claimed_than_may_run_at_once(own: Database, fresh_database_url: str) -> None:
    made = await assets(own, 7)
    gate = asyncio.Event()

    async def waiting(claim: Claim) -> Draft:
        await gate.wait()
        return draft(claim)

    runs = ScriptedRuns(waiting)
    async with running_oracle(fresh_database_url, runs, concurrency=3) as worker:
        await until(lambda: worker.running == 3)
        async with own.acquire() as connection:
            assert await connection.fetchval("SELECT count(*) FROM oracles WHERE claimed_until IS NOT NULL") == 3
        gate.set()
        found = await until_reports(own, 7)
    assert sorted(asset_id for asset_id, _, _ in found) == made
    assert len(runs.begun) == 7


async def test_feeds_go_on_while_searches_wait_for_a_slow_provider(own: Database, fresh_database_url: str) -> None:
    admin = await new_admin(own)
    searches = [await new_asset(own, admin=admin) for _ in range(6)]
    for asset_id in searches:
        await new_oracle(own, asset_id, configuration=SEARCH)
    gate = asyncio.Event()

    async def slow(claim: Claim) -> Draft:
        if claim.is_search:
            await gate.wait()
        return draft(claim)

    async with running_oracle(fresh_database_url, ScriptedRuns(slow), concurrency=4) as worker:
        await until(lambda: worker.running == 3)
        feed = await new_asset(own, admin=admin)
        await new_oracle(own, feed)
        assert await until_reports(own, 1) == [(feed, 1, "ACCEPTED")]
        assert worker.running == 3
        gate.set()
        found = await until_reports(own, 7)
    assert sorted(asset_id for asset_id, _, _ in found) == [*searches, feed]


# ------------------------------------------------------------------------------------------------ trouble of one asset


async def test_what_befalls_one_run_befalls_no_other(own: Database, fresh_database_url: str) -> None:
    failed, broke, cancelled, unstorable, well = await assets(own, 5)

    async def plan(claim: Claim) -> Draft:
        if claim.asset_id == failed:
            raise RunFailed("no feed answered")
        if claim.asset_id == broke:
            raise ZeroDivisionError("1 / 0")
        if claim.asset_id == cancelled:
            raise asyncio.CancelledError
        if claim.asset_id == unstorable:
            return draft(claim, latency_ms=-1)
        return draft(claim)

    async def settled() -> bool:
        return all([(await row(own, asset_id)).failures == 1 for asset_id in (failed, broke, cancelled, unstorable)])

    metrics = OracleMetrics()
    async with running_oracle(fresh_database_url, ScriptedRuns(plan), metrics=metrics) as worker:
        assert await until_reports(own, 1) == [(well, 1, "ACCEPTED")]
        await until(settled)
        await until(lambda: worker.figures.failed == 4)
    errors = {asset_id: (await row(own, asset_id)).last_error for asset_id in (failed, broke, cancelled, unstorable)}
    assert errors[failed] == "no feed answered"
    assert errors[broke] == "an unexpected error: ZeroDivisionError('1 / 0')"
    assert errors[cancelled] == "was cancelled"
    assert str(errors[unstorable]).startswith("could not be recorded: CheckViolationError(")
    told = metrics.render().decode()
    assert 'megatron_oracle_runs_total{method="FEED",outcome="FAILED",reason=""} 4.0' in told
    assert 'megatron_oracle_runs_total{method="FEED",outcome="ACCEPTED",reason=""} 1.0' in told


async def test_a_run_that_takes_too_long_is_ended_before_its_claim_is(
    own: Database, fresh_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "MARGIN_SECONDS", {True: 30, False: 29.9})
    (asset_id,) = await assets(own, 1)

    async def hanging(_: Claim) -> Draft:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def failed() -> bool:
        return (await row(own, asset_id)).failures == 1

    async with running_oracle(fresh_database_url, ScriptedRuns(hanging)):
        await until(failed)
    assert str((await row(own, asset_id)).last_error).startswith("took longer than 0.1")


async def test_a_run_that_was_overtaken_is_not_recorded(own: Database, fresh_database_url: str) -> None:
    overtaken, well = await assets(own, 2)
    gate = asyncio.Event()

    async def waiting(claim: Claim) -> Draft:
        await gate.wait()
        return draft(claim)

    async with running_oracle(fresh_database_url, ScriptedRuns(waiting)) as worker:
        await until(lambda: worker.running == 2)
        await set_oracle(own, overtaken, run_id=17, claimed_until=None, due_at=timedelta(seconds=50))
        gate.set()
        await until_reports(own, 1)
        await until(lambda: worker.running == 0)
    assert await reports(own) == [(well, 1, "ACCEPTED")]
    assert (await row(own, overtaken)).run_id == 17


# ------------------------------------------------------------------------------------------------ the end


async def test_runs_under_way_are_dropped_at_the_end_and_others_take_them_at_once(
    own: Database, fresh_database_url: str
) -> None:
    search, feed = await assets(own, 2)
    await new_asset(own)
    async with own.acquire() as connection:
        await connection.execute("DELETE FROM oracles WHERE asset_id = $1", search)
    await new_oracle(own, search, configuration=SEARCH)

    async def hanging(_: Claim) -> Draft:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async with running_oracle(fresh_database_url, ScriptedRuns(hanging)) as worker:
        await until(lambda: worker.running == 2)
    assert [(await row(own, asset_id)).claimed_for for asset_id in (search, feed)] == [None, None]
    async with running_oracle(fresh_database_url, ScriptedRuns(accepted)):
        found = await until_reports(own, 2)
    assert sorted(found) == [(search, 2, "ACCEPTED"), (feed, 2, "ACCEPTED")]


async def test_what_has_ended_is_recorded_before_the_end(own: Database, fresh_database_url: str) -> None:
    made = await assets(own, 3)
    runs = ScriptedRuns(accepted)
    async with running_oracle(fresh_database_url, runs):
        await until(lambda: len(runs.begun) == 3)
    assert sorted(asset_id for asset_id, _, _ in await reports(own)) == made


# ------------------------------------------------------------------------------------------------ Redis


async def test_a_change_that_redis_tells_of_is_looked_at_at_once(
    own: Database, fresh_database_url: str, own_valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "POLL_SECONDS", 60.0)
    (asset_id,) = await assets(own, 1)
    await set_oracle(own, asset_id, due_at=timedelta(seconds=50))
    async with (
        Redis.from_url(own_valkey.url) as redis,
        running_oracle(fresh_database_url, ScriptedRuns(accepted), redis_url=own_valkey.url) as worker,
    ):
        claims_before = worker.figures.claimed
        await set_oracle(own, asset_id, requested_at=timedelta())

        async def told() -> bool:
            # The worker may not be listening yet.
            await redis.xadd(CHANGES_STREAM, {"changes": encode_changes(assets=[asset_id])})
            return len(await reports(own)) == 1

        await until(told)
        assert worker.figures.claimed == claims_before + 1


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({b"changes": encode_changes(accounts=[1])}, False),
        ({b"changes": encode_changes(assets=[1])}, True),
        ({b"changes": encode_changes(reports=[1])}, True),
        ({b"changes": b"[]"}, True),
        ({b"other": b"1"}, True),
    ],
)
def test_only_what_may_be_about_assets_wakes(fields: Mapping[bytes, bytes], *, expected: bool) -> None:
    assert worker_module._is_about_assets(fields) is expected


async def test_without_redis_a_request_is_seen_by_polling(
    own: Database, fresh_database_url: str, own_valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(worker_module, "REDIS_RETRY_SECONDS", 0.05)
    (asset_id,) = await assets(own, 1)
    await set_oracle(own, asset_id, due_at=timedelta(seconds=50))
    async with running_oracle(fresh_database_url, ScriptedRuns(accepted), redis_url=own_valkey.url):
        own_valkey.stop()
        await set_oracle(own, asset_id, requested_at=timedelta())
        assert await until_reports(own, 1) == [(asset_id, 1, "ACCEPTED")]


# ------------------------------------------------------------------------------------------------ PostgreSQL


async def test_a_commit_whose_answer_was_lost_is_neither_lost_nor_repeated(
    own: Database, fresh_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await assets(own, 3)
    lost = [0]

    async def recorded_but_unanswered(**named: object) -> object:
        unit = named["unit"]
        reports = await record(**named)  # type: ignore[arg-type]
        if not lost[0]:
            lost[0] = 1
            # It commits, and then the connection dies.
            unit.after_commit(_lost)  # type: ignore[attr-defined]
        return reports

    def _lost() -> None:
        raise ConnectionError("the connection to the database was lost")

    monkeypatch.setattr(worker_module, "record", recorded_but_unanswered)
    async with running_oracle(fresh_database_url, ScriptedRuns(accepted)) as worker:
        await until_reports(own, 3)
        await until(lambda: worker.figures.stumbled == 1 and not worker._held)
    assert sorted(await reports(own)) == [(asset_id, 1, "ACCEPTED") for asset_id in made]
    async with own.acquire() as connection:
        assert await connection.fetchval("SELECT count(*) FROM oracle_events") == 3


async def test_connections_that_are_cut_cost_nothing_but_time(own: Database, fresh_database_url: str) -> None:
    made = await assets(own, 3, cadence_seconds=2)
    async with running_oracle(fresh_database_url, ScriptedRuns(accepted)) as worker:
        await until_reports(own, 3)
        for _ in range(3):
            before = len(await reports(own))
            async with own.acquire() as connection:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            await until_reports(own, before + 3)
        assert worker.running <= 3
    found = await reports(own)
    assert len(set(found)) == len(found)
    assert {asset_id for asset_id, _, _ in found} == set(made)


# ------------------------------------------------------------------------------------------------ budgets


class Left:
    """Budgets of which so much is left."""

    def __init__(self, **left: int) -> None:
        self.left_now = left
        self.asked = 0

    async def left(self) -> Mapping[str, int]:
        self.asked += 1
        return self.left_now


async def test_searches_slow_down_when_budgets_run_short(own: Database) -> None:
    (asset_id,) = await assets(own, 1)
    await set_oracle(own, asset_id, due_at=timedelta(seconds=500))
    search = await new_asset(own)
    await new_oracle(own, search, configuration=SEARCH)
    runs, metrics = ScriptedRuns(accepted), OracleMetrics()
    worker = OracleWorker(
        own, None, Bus(None), runs, concurrency=4, budgets=Left(serper=0, huggingface=7), metrics=metrics
    )
    await worker.look()
    async with own.acquire() as connection:
        await worker.claim(connection, room=4)
        seconds_left = await connection.fetchval(
            "SELECT extract(epoch FROM date_trunc('day', t) + interval '1 day' - t)::float8"
            " FROM (SELECT clock_timestamp() AT TIME ZONE 'UTC' AS t) n"
        )
    await until(lambda: len(runs.begun) == 1)
    assert abs(runs.begun[0].cadence_seconds - min(900 + seconds_left, 86_400)) < 5
    told = metrics.render().decode()
    assert 'megatron_oracle_budget_left{provider="serper"} 0.0' in told
    assert 'megatron_oracle_budget_left{provider="huggingface"} 7.0' in told
    assert "megatron_oracle_overdue 1.0" in told


async def test_budgets_that_cannot_be_asked_stop_nothing(own: Database, fresh_database_url: str) -> None:
    (asset_id,) = await assets(own, 1)

    class Away(Left):
        async def left(self) -> Mapping[str, int]:
            self.asked += 1
            raise asyncpg.ConnectionDoesNotExistError("gone")

    budgets = Away()
    async with running_oracle(fresh_database_url, ScriptedRuns(accepted), budgets=budgets):
        assert await until_reports(own, 1) == [(asset_id, 1, "ACCEPTED")]
        await until(lambda: budgets.asked > 0)
