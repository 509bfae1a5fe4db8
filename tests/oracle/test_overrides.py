"""Overrides: F set at once and held, runs kept away until it ends, and what is refused."""

from datetime import datetime, timedelta

import asyncpg
import pytest

from app.db import Database
from app.errors import ErrorCode, Refused
from app.oracle.claims import claim as claim_runs
from app.oracle.kinds import OracleMethod, OracleOutcome
from app.oracle.overrides import CADENCE_SECONDS, set_override
from app.oracle.report_reads import oracle_statuses, reports_by_id
from app.oracle.report_rows import Report
from app.pricing.oracle_events import PROMISE_SECONDS_MAX, OracleEvent, OracleEventKind, events_after
from tests.factories.market import new_asset
from tests.oracle.making import UNIT, accepted, new_oracle, plain_draft, recorded, reported
from tests.pricing.running import open_database


async def override(
    database: Database, asset_id: int, fundamental: int = 3 * UNIT, *, seconds: float | None = None
) -> Report:
    """Set F, for so many seconds from now or without an end."""
    expires_at = None if seconds is None else await now_of(database) + timedelta(seconds=seconds)
    async with database.transaction() as unit:
        report_id = await set_override(
            unit=unit, asset_id=asset_id, fundamental=fundamental, reason="A split.", expires_at=expires_at, by="ada"
        )
        return (await reports_by_id(connection=unit.connection, report_ids=[report_id]))[report_id]


async def now_of(database: Database) -> datetime:
    async with database.acquire() as connection:
        now: datetime = await connection.fetchval("SELECT clock_timestamp()")
    return now


async def oracle_of(database: Database, asset_id: int) -> asyncpg.Record:
    async with database.acquire() as connection:
        row = await connection.fetchrow("SELECT * FROM oracles WHERE asset_id = $1", asset_id)
    assert row is not None
    return row


async def events_of(database: Database, asset_id: int) -> list[OracleEvent]:
    async with database.acquire() as connection:
        return (await events_after(connection=connection, after={asset_id: 0}, limit=99)).get(asset_id, [])


async def method_of(database: Database, asset_id: int) -> OracleMethod:
    async with database.acquire() as connection:
        return (await oracle_statuses(connection=connection, asset_ids=[asset_id]))[asset_id].method


async def test_an_override_sets_f_and_holds_it_until_it_ends(database: Database) -> None:
    claim = await new_oracle(database, base_price="2")
    report = await override(database, claim.asset_id, 3 * UNIT, seconds=3_600)

    (event,) = await events_of(database, claim.asset_id)
    assert (event.kind, event.value, event.cadence_seconds) == (OracleEventKind.OVERRIDE, 3 * UNIT, 300)
    assert event.fresh_seconds == 3_600
    assert (report.method, report.verdict, report.outcome, report.reasons) == (
        OracleMethod.OVERRIDE,
        OracleOutcome.ACCEPTED,
        OracleOutcome.ACCEPTED,
        (),
    )
    assert (report.fundamental_before, report.suggested_price, report.delta_percent, report.move) == (
        2 * UNIT,
        3 * UNIT,
        50 * 10**9,
        5 * 10**8,
    )
    assert (report.reason, report.resolved_by, report.resolution, report.run_id, report.event_seq) == (
        "A split.",
        "ada",
        None,
        None,
        1,
    )
    oracle = await oracle_of(database, claim.asset_id)
    assert (oracle["override_id"], oracle["held_until"], oracle["due_at"]) == (
        report.id,
        report.expires_at,
        report.expires_at,
    )
    assert (oracle["method"], oracle["claimed_until"], oracle["last_accepted_at"]) == ("SEARCH_LLM", None, report.at)
    assert await method_of(database, claim.asset_id) is OracleMethod.OVERRIDE


async def test_f_may_be_set_from_the_least_price_to_the_greatest(database: Database) -> None:
    claim = await new_oracle(database, base_price="0.000001")
    report = await override(database, claim.asset_id, 10**21)
    assert (report.fundamental_before, report.suggested_price) == (10**6, 10**21)
    assert (report.move, report.delta_percent) == (10**18, (10**17 - 100) * 10**9)


async def test_a_run_that_was_under_way_is_not_recorded(database: Database) -> None:
    claim = await new_oracle(database)
    await override(database, claim.asset_id, seconds=60)
    assert await recorded(database, plain_draft(claim, accepted())) == []
    assert [event.kind for event in await events_of(database, claim.asset_id)] == [OracleEventKind.OVERRIDE]


async def test_no_run_is_due_while_it_holds_and_one_is_as_soon_as_it_ends(fresh_database_url: str) -> None:
    async with open_database(fresh_database_url) as database:
        claim, _ = await reported(database, accepted())

        async def claimed() -> list[int]:
            async with database.acquire() as connection:
                return [each.asset_id for each in await claim_runs(connection=connection, limit=9)]

        held = await override(database, claim.asset_id, seconds=3_600)
        assert await claimed() == []
        async with database.acquire() as connection:
            await connection.execute("UPDATE oracles SET held_until = clock_timestamp(), due_at = clock_timestamp()")
        assert await method_of(database, claim.asset_id) is OracleMethod.SEARCH_LLM
        assert await claimed() == [claim.asset_id]
        assert (await oracle_of(database, claim.asset_id))["override_id"] is None
        assert held.expires_at is not None

        endless = await override(database, claim.asset_id)
        assert endless.expires_at is None
        oracle = await oracle_of(database, claim.asset_id)
        assert (oracle["override_id"], oracle["held_until"], oracle["due_at"]) == (endless.id, None, None)
        assert await claimed() == []
        assert await method_of(database, claim.asset_id) is OracleMethod.OVERRIDE
        assert (await events_of(database, claim.asset_id))[-1].fresh_seconds == PROMISE_SECONDS_MAX


async def test_an_asset_without_an_oracle_gets_one_that_has_overrides_alone(database: Database) -> None:
    asset_id = await new_asset(database, base_price="1")
    report = await override(database, asset_id, 2 * UNIT, seconds=60)
    oracle = await oracle_of(database, asset_id)
    assert (oracle["method"], oracle["configuration"], oracle["due_at"]) == ("OVERRIDE", None, None)
    assert (oracle["cadence_seconds"], oracle["held_until"]) == (CADENCE_SECONDS, report.expires_at)
    assert report.fundamental_before == UNIT

    again = await override(database, asset_id, 3 * UNIT)
    assert (again.fundamental_before, again.event_seq) == (2 * UNIT, 2)
    assert (await oracle_of(database, asset_id))["override_id"] == again.id


async def test_what_f_was_counts_readings_that_the_engine_has_not_taken(database: Database) -> None:
    claim, _ = await reported(database, accepted(2 * UNIT))
    report = await override(database, claim.asset_id, 3 * UNIT)
    # A fifth of the way from the base price of 1 to 2.
    assert report.fundamental_before == 12 * UNIT // 10


@pytest.mark.parametrize("seconds", [-1.0, -0.001, PROMISE_SECONDS_MAX + 60.0])
async def test_an_end_that_cannot_be_held_to_is_refused(database: Database, seconds: float) -> None:
    claim = await new_oracle(database)
    with pytest.raises(Refused, match="expiresAt must be later than now and within 366 days of it; got 2") as refused:
        await override(database, claim.asset_id, seconds=seconds)
    assert (refused.value.refusal.code, refused.value.refusal.field) == (
        ErrorCode.INVALID_INPUT,
        ("input", "expiresAt"),
    )
    oracle = await oracle_of(database, claim.asset_id)
    assert (oracle["run_id"], oracle["override_id"], await events_of(database, claim.asset_id)) == (
        claim.run_id,
        None,
        [],
    )


@pytest.mark.parametrize("fundamental", [10**6 - 1, 10**21 + 1])
async def test_an_f_out_of_range_is_refused(database: Database, fundamental: int) -> None:
    claim = await new_oracle(database)
    with pytest.raises(ValueError, match=f"got {fundamental}"):
        await override(database, claim.asset_id, fundamental)
    assert (await oracle_of(database, claim.asset_id))["override_id"] is None


async def test_an_asset_that_does_not_exist_is_refused_and_leaves_no_oracle(database: Database) -> None:
    with pytest.raises(LookupError, match="no asset has the id 999999999"):
        await override(database, 999_999_999)
    async with database.acquire() as connection:
        assert await connection.fetchval("SELECT count(*) FROM oracles WHERE asset_id = 999999999") == 0
