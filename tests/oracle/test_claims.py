"""Claims of runs: what is due and in which order, leases by the database's clock, and races between workers."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, timedelta
from fractions import Fraction

import pytest

from app.db import Database
from app.oracle import cadence, claims
from app.oracle.cadence import Demand
from app.oracle.claims import Claim, Failure, Standing
from app.oracle.kinds import OracleMethod
from tests.factories.market import new_admin, new_asset
from tests.oracle.schedules import FEED, SEARCH, Row, new_oracle, oracle_row, set_oracle
from tests.pricing.running import open_database


@pytest.fixture
async def own(fresh_database_url: str) -> AsyncIterator[Database]:
    async with open_database(fresh_database_url) as database:
        yield database


async def assets(database: Database, count: int) -> list[int]:
    admin = await new_admin(database)
    return [await new_asset(database, admin=admin) for _ in range(count)]


async def claim(database: Database, *, limit: int = 100, factor: Fraction | None = Fraction(1)) -> list[Claim]:
    async with database.acquire() as connection:
        return await claims.claim(connection=connection, limit=limit, factor=factor)


async def row(database: Database, asset_id: int) -> Row:
    async with database.acquire() as connection:
        return await oracle_row(connection, asset_id)


# ------------------------------------------------------------------------------------------------ what is due


async def test_what_is_due_is_claimed_and_moves_its_run(own: Database) -> None:
    due, later, never = await assets(own, 3)
    await new_oracle(own, due)
    await new_oracle(own, later, due_in=5.0)
    await new_oracle(own, never, due_in=None)
    (claimed,) = await claim(own)
    assert (claimed.asset_id, claimed.run_id, claimed.configuration) == (due, 1, FEED)
    assert (claimed.cadence_seconds, claimed.fresh_seconds, claimed.failures) == (60, 180, 0)
    assert claimed.method is OracleMethod.FEED
    found = await row(own, due)
    assert (found.run_id, found.last_run_at) == (1, claimed.claimed_at)
    assert found.claimed_for is not None
    assert 25 < found.claimed_for <= 30
    assert await claim(own) == []
    assert (await row(own, later)).run_id == 0


async def test_searches_are_claimed_for_longer_than_feeds(own: Database) -> None:
    (asset_id,) = await assets(own, 1)
    await new_oracle(own, asset_id, configuration=SEARCH)
    (claimed,) = await claim(own)
    assert (claimed.is_search, claimed.method, claimed.lease_seconds) == (True, OracleMethod.SEARCH_LLM, 180)
    found = await row(own, asset_id)
    assert found.claimed_for is not None
    assert 175 < found.claimed_for <= 180


async def test_requested_runs_come_first_then_the_most_overdue_by_its_cadence(own: Database) -> None:
    slow, quick, asked = await assets(own, 3)
    await new_oracle(own, slow, cadence_seconds=3_600, due_in=-600)
    await new_oracle(own, quick, cadence_seconds=10, due_in=-20)
    await new_oracle(own, asked, due_in=50)
    await set_oracle(own, asked, requested_at=timedelta())
    found = [(await claim(own, limit=1))[0].asset_id for _ in range(3)]
    assert found == [asked, quick, slow]


async def test_so_many_searches_are_claimed_and_feeds_besides(own: Database) -> None:
    first, second, feed = await assets(own, 3)
    await new_oracle(own, first, configuration=SEARCH, cadence_seconds=300, due_in=-600)
    await new_oracle(own, second, configuration=SEARCH, cadence_seconds=300, due_in=-300)
    await new_oracle(own, feed, due_in=-1)
    async with own.acquire() as connection:
        claimed = await claims.claim(connection=connection, limit=3, searches=1)
        assert sorted(each.asset_id for each in claimed) == [first, feed]
        assert await claims.claim(connection=connection, limit=3, searches=0) == []
        # What may not be claimed is nothing to wait for.
        seconds = await claims.seconds_until_due(connection=connection, with_searches=False)
        assert seconds is not None
        assert 20 < seconds <= 30
        assert await claims.seconds_until_due(connection=connection) == 0.0
        assert [each.asset_id for each in await claims.claim(connection=connection, limit=3)] == [second]


async def test_a_request_counts_once_and_again_when_it_comes_during_a_run(own: Database) -> None:
    (asset_id,) = await assets(own, 1)
    await new_oracle(own, asset_id, due_in=50)
    await set_oracle(own, asset_id, requested_at=timedelta())
    (first,) = await claim(own)
    # It was asked for again while the run is under way; then the run ends.
    await set_oracle(own, asset_id, requested_at=timedelta(), claimed_until=None, due_at=timedelta(seconds=50))
    (second,) = await claim(own)
    assert (first.run_id, second.run_id) == (1, 2)
    await set_oracle(own, asset_id, claimed_until=None, due_at=timedelta(seconds=50))
    assert await claim(own) == []


async def test_what_is_held_by_an_override_or_has_no_configuration_does_not_run(own: Database) -> None:
    held, ended, bare = await assets(own, 3)
    await new_oracle(own, held)
    await set_oracle(own, held, override_id=1, requested_at=timedelta())
    await new_oracle(own, ended)
    await set_oracle(own, ended, override_id=2, held_until=timedelta(seconds=-1))
    await new_oracle(own, bare)
    async with own.acquire() as connection:
        await connection.execute(
            "UPDATE oracles SET method = 'OVERRIDE', configuration = NULL WHERE asset_id = $1", bare
        )
    assert [each.asset_id for each in await claim(own)] == [ended]
    # The override is over for good, also for who looks at the row alone.
    assert (await row(own, ended)).override_id is None
    await set_oracle(own, held, held_until=timedelta(seconds=30))
    assert await claim(own) == []


async def test_a_configuration_that_cannot_be_read_is_a_failed_run_of_its_asset_alone(own: Database) -> None:
    broken, well = await assets(own, 2)
    await new_oracle(own, broken)
    await set_oracle(own, broken, configuration='{"kind": "tea leaves"}')
    await new_oracle(own, well)
    assert [each.asset_id for each in await claim(own)] == [well]
    found = await row(own, broken)
    assert (found.run_id, found.failures, found.claimed_for) == (1, 1, None)
    assert found.last_error == "ValueError(\"no configuration of an oracle: its kind is 'tea leaves'\")"
    assert found.due_in is not None
    assert 850 < found.due_in < 950


# ------------------------------------------------------------------------------------------------ leases


async def test_a_claim_that_ran_out_is_claimed_again_by_the_next_run(own: Database) -> None:
    (asset_id,) = await assets(own, 1)
    await new_oracle(own, asset_id)
    assert [each.run_id for each in await claim(own)] == [1]
    await set_oracle(own, asset_id, claimed_until=timedelta(seconds=-0.001))
    assert [each.run_id for each in await claim(own)] == [2]


async def test_a_claim_from_before_the_clock_was_set_back_does_not_hold(own: Database) -> None:
    (asset_id,) = await assets(own, 1)
    await new_oracle(own, asset_id)
    await set_oracle(own, asset_id, claimed_until=timedelta(days=365))
    assert [each.run_id for each in await claim(own)] == [1]


async def test_a_released_claim_is_taken_at_once(own: Database) -> None:
    asked, due = await assets(own, 2)
    await new_oracle(own, asked, due_in=50)
    await set_oracle(own, asked, requested_at=timedelta())
    await new_oracle(own, due)
    claimed = await claim(own)
    async with own.acquire() as connection:
        await claims.release(connection=connection, claims=claimed)
    again = await claim(own)
    assert sorted((each.asset_id, each.run_id) for each in again) == [(asked, 2), (due, 2)]
    # Who released it does not release it for others.
    async with own.acquire() as connection:
        await claims.release(connection=connection, claims=claimed)
    assert await claim(own) == []


async def test_workers_that_claim_at_once_share_and_never_meet(own: Database) -> None:
    made = await assets(own, 30)
    for asset_id in made:
        await new_oracle(own, asset_id)
    found = await asyncio.gather(*(claim(own, limit=7) for _ in range(6)))
    taken = [each.asset_id for claimed in found for each in claimed]
    assert len(set(taken)) == len(taken)
    taken += [each.asset_id for each in await claim(own)]
    assert sorted(taken) == made


# ------------------------------------------------------------------------------------------------ after a run


async def test_the_next_run_is_due_a_cadence_after_this_one_began(own: Database) -> None:
    (asset_id,) = await assets(own, 1)
    await new_oracle(own, asset_id)
    await set_oracle(own, asset_id, last_run_at=timedelta(seconds=-60))
    (claimed,) = await claim(own)
    assert (claimed.is_late, claimed.claimed_at is not None) == (False, True)
    wait_ms = cadence.next_due_ms(asset_id=asset_id, run_id=1, cadence_seconds=60)
    assert claimed.claimed_at is not None
    assert claimed.due_at(elapsed_seconds=5.0) == claimed.claimed_at + timedelta(milliseconds=wait_ms)
    # A slow one is followed by a pause of half a cadence.
    assert claimed.due_at(elapsed_seconds=50.0) == claimed.claimed_at + timedelta(milliseconds=50_000 + wait_ms // 2)


async def test_first_and_late_runs_are_followed_by_a_spread(own: Database) -> None:
    first, late = await assets(own, 2)
    await new_oracle(own, first)
    await new_oracle(own, late, due_in=-31)
    await set_oracle(own, late, last_run_at=timedelta(seconds=-95))
    for claimed in await claim(own):
        wait = cadence.spread_due_ms(asset_id=claimed.asset_id, cadence_seconds=60)
        assert claimed.is_late
        assert claimed.claimed_at is not None
        assert claimed.due_at(elapsed_seconds=0.0) == claimed.claimed_at + timedelta(milliseconds=wait)


async def test_failures_on_end_put_the_next_attempt_off(own: Database) -> None:
    (asset_id,) = await assets(own, 1)
    await new_oracle(own, asset_id)
    waits = []
    for run_id in (1, 2, 3):
        (claimed,) = await claim(own)
        assert (claimed.run_id, claimed.failures) == (run_id, run_id - 1)
        async with own.acquire() as connection:
            await claims.fail(connection=connection, failures=[Failure(claimed, f"down\x00 {run_id}")])
            # Told twice, because a connection was lost meanwhile, it counts once.
            await claims.fail(connection=connection, failures=[Failure(claimed, "again")])
        found = await row(own, asset_id)
        assert (found.failures, found.last_error, found.claimed_for) == (run_id, f"down  {run_id}", None)
        assert found.due_in is not None
        waits.append(found.due_in)
        await set_oracle(own, asset_id, due_at=timedelta())
    assert [round(wait / 60) for wait in waits] == [1, 2, 4]


async def test_a_failure_of_an_overtaken_run_changes_nothing(own: Database) -> None:
    (asset_id,) = await assets(own, 1)
    await new_oracle(own, asset_id)
    (claimed,) = await claim(own)
    await set_oracle(own, asset_id, claimed_until=timedelta(seconds=-1))
    assert [each.run_id for each in await claim(own)] == [2]
    async with own.acquire() as connection:
        await claims.fail(connection=connection, failures=[Failure(claimed, "too late")])
    found = await row(own, asset_id)
    assert (found.run_id, found.failures, found.last_error) == (2, 0, None)
    assert found.claimed_for is not None


# ------------------------------------------------------------------------------------------------ cadences


async def test_activity_and_budgets_choose_the_cadence_of_searches_but_not_against_a_wish(own: Database) -> None:
    idle, busy, wished = await assets(own, 3)
    await new_oracle(own, idle, configuration=SEARCH)
    await new_oracle(own, busy, configuration=SEARCH)
    await new_oracle(own, wished, configuration=SEARCH, cadence_seconds=20)
    async with own.acquire() as connection:
        await connection.execute(
            # Half of it is left after a half-life: vol = V0, so a = 1/2.
            "INSERT INTO price_states (asset_id, at, display, market, fundamental, market_weight, recent_volume,"
            " recent_volume_at) SELECT id, created_at, base_price, base_price, base_price, 1000000000,"
            " 2 * volume_scale::numeric * 1000000, clock_timestamp() - make_interval(secs => volume_half_life_seconds)"
            " FROM assets WHERE id = $1",
            busy,
        )
        seconds_left, demands = await claims.demands(connection=connection)
        now = await connection.fetchval("SELECT clock_timestamp()")
    assert abs(seconds_left - cadence.seconds_to_midnight(now.astimezone(UTC))) <= 1
    assert sorted(demands, key=lambda each: each.cadence_seconds) == [
        Demand({"serper": 1, "huggingface": 1}, 20),
        Demand({"serper": 1, "huggingface": 1}, 600),
        Demand({"serper": 1, "huggingface": 1}, 900),
    ]
    plain = {each.asset_id: each.cadence_seconds for each in await claim(own)}
    assert plain == {idle: 900, busy: 600, wished: 20}
    await set_oracle(own, busy, claimed_until=None)
    await set_oracle(own, wished, claimed_until=None)
    factor = Fraction(21, 20)
    stretched = {each.asset_id: each.cadence_seconds for each in await claim(own, factor=factor)}
    assert stretched == {
        busy: cadence.stretched(cadence_seconds=600, factor=factor, seconds_left=seconds_left),
        wished: cadence.stretched(cadence_seconds=20, factor=factor, seconds_left=seconds_left),
    }


# ------------------------------------------------------------------------------------------------ the standing


async def test_when_the_next_run_may_be_claimed(own: Database) -> None:
    async def seconds() -> float | None:
        async with own.acquire() as connection:
            return await claims.seconds_until_due(connection=connection)

    first, second = await assets(own, 2)
    assert await seconds() is None
    await new_oracle(own, first, due_in=None)
    assert await seconds() is None
    await set_oracle(own, first, due_at=timedelta(seconds=20))
    await new_oracle(own, second, due_in=-5)
    assert await seconds() == 0.0
    await claim(own)
    found = await seconds()
    assert found is not None
    assert 15 < found <= 20


async def test_the_standing_tells_how_overdue_the_most_overdue_is(own: Database) -> None:
    async def standing() -> Standing:
        async with own.acquire() as connection:
            return await claims.oracle_standing(connection=connection)

    assert await standing() == Standing(0, 0, 0.0, 0)
    first, second, held = await assets(own, 3)
    await new_oracle(own, first, due_in=-40)
    await new_oracle(own, second, due_in=30)
    await new_oracle(own, held, due_in=-500)
    await set_oracle(own, held, override_id=1)
    found = await standing()
    assert (found.oracles, found.overdue, found.stale) == (2, 1, 0)
    assert 40 <= found.lag_seconds < 60
    await claim(own)
    assert await standing() == Standing(2, 0, 0.0, 0)
