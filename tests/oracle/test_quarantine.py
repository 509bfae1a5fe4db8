"""Quarantines: ended by an admin, by a new configuration, by their time; each once, with its effect on F."""

import asyncio
from datetime import timedelta

import pytest

from app.db import Database
from app.errors import ErrorCode, Refused
from app.oracle.kinds import OracleOutcome
from app.oracle.overrides import set_override
from app.oracle.quarantine import end_quarantines, expire_quarantines, resolve_quarantine
from app.oracle.report_reads import report_head, reports_by_id
from app.oracle.report_rows import Report, Resolution
from app.pricing.oracle_events import OracleEventKind, events_after
from tests.oracle.making import (
    UNIT,
    accepted,
    in_the_past,
    new_oracle,
    next_run,
    plain_draft,
    quarantined,
    recorded,
    rejected,
    reported,
)
from tests.pricing.running import open_database


async def resolve(database: Database, report_id: int, *, accept: bool) -> Report:
    async with database.transaction() as unit:
        return await resolve_quarantine(unit=unit, report_id=report_id, accept=accept, reason="Checked.", by="ada")


async def told_engine(database: Database, asset_id: int) -> list[tuple[OracleEventKind, int | None]]:
    async with database.acquire() as connection:
        events = (await events_after(connection=connection, after={asset_id: 0}, limit=9)).get(asset_id, [])
    return [(event.kind, event.value) for event in events]


async def report_of(database: Database, report_id: int) -> Report:
    async with database.acquire() as connection:
        return (await reports_by_id(connection=connection, report_ids=[report_id]))[report_id]


async def head_of(database: Database) -> int:
    async with database.acquire() as connection:
        return await report_head(connection=connection)


async def test_an_admin_takes_a_reading_as_an_average_moves(database: Database) -> None:
    claim, _ = await reported(database, accepted(2 * UNIT))  # F is 1.2 then
    _, waiting = await reported(database, quarantined(3 * UNIT), claim=await next_run(database, claim.asset_id))
    head = await head_of(database)
    ended = await resolve(database, waiting.id, accept=True)

    assert await told_engine(database, claim.asset_id) == [
        (OracleEventKind.READING, 2 * UNIT),
        (OracleEventKind.READING, 3 * UNIT),
    ]
    assert (ended.id, ended.position, ended.event_seq) == (waiting.id, head + 1, 2)
    assert (ended.verdict, ended.outcome, ended.resolution) == (
        OracleOutcome.QUARANTINED,
        OracleOutcome.ACCEPTED,
        Resolution.ACCEPTED,
    )
    assert (ended.resolved_by, ended.reason, ended.suggested_price) == ("ada", "Checked.", 3 * UNIT)
    # A fifth of the way from 1.2 to 3 is 0.36: 30 percent of F.
    assert ended.move == 300_000_000
    assert ended == await report_of(database, waiting.id)
    async with database.acquire() as connection:
        row = await connection.fetchrow("SELECT last_accepted_at FROM oracles WHERE asset_id = $1", claim.asset_id)
    assert row is not None
    assert row["last_accepted_at"] == ended.resolved_at


async def test_an_admin_takes_the_first_reading_as_it_is(database: Database) -> None:
    claim, waiting = await reported(database, quarantined(3 * UNIT))
    ended = await resolve(database, waiting.id, accept=True)
    assert await told_engine(database, claim.asset_id) == [(OracleEventKind.OVERRIDE, 3 * UNIT)]
    assert ended.move == 2_000_000_000


async def test_an_admin_rejects_a_reading(database: Database) -> None:
    claim, waiting = await reported(database, quarantined())
    ended = await resolve(database, waiting.id, accept=False)
    assert (ended.outcome, ended.resolution, ended.event_seq, ended.move) == (
        OracleOutcome.REJECTED,
        Resolution.REJECTED,
        None,
        0,
    )
    assert ended.position > waiting.position
    assert await told_engine(database, claim.asset_id) == []


@pytest.mark.parametrize("accept", [True, False])
async def test_a_run_that_was_under_way_is_not_recorded(database: Database, accept: bool) -> None:
    claim, waiting = await reported(database, quarantined())
    under_way = await next_run(database, claim.asset_id)
    await resolve(database, waiting.id, accept=accept)
    assert await recorded(database, plain_draft(under_way, accepted(2 * UNIT, confirms=waiting.id))) == []
    async with database.acquire() as connection:
        row = await connection.fetchrow("SELECT claimed_until FROM oracles WHERE asset_id = $1", claim.asset_id)
    assert row is not None
    assert row["claimed_until"] is None


async def test_a_quarantine_ends_once(database: Database) -> None:
    claim, waiting = await reported(database, quarantined())
    both = await asyncio.gather(*(resolve(database, waiting.id, accept=True) for _ in range(2)), return_exceptions=True)
    (refused,) = [each for each in both if isinstance(each, Refused)]
    assert refused.refusal.code is ErrorCode.CONFLICT
    assert "The report is not in quarantine but ACCEPTED: it was ACCEPTED at 2" in refused.refusal.message
    assert await told_engine(database, claim.asset_id) == [(OracleEventKind.OVERRIDE, 2 * UNIT)]


async def refusal_of(database: Database, report_id: int, *, accept: bool = True) -> tuple[ErrorCode, str]:
    """What an admin is told, who changes nothing by it."""
    head = await head_of(database)
    with pytest.raises(Refused) as refused:
        await resolve(database, report_id, accept=accept)
    assert await head_of(database) == head
    return refused.value.refusal.code, refused.value.refusal.message


async def test_what_was_never_quarantined_is_a_conflict(database: Database) -> None:
    _, report = await reported(database, rejected())
    assert await refusal_of(database, report.id) == (
        ErrorCode.CONFLICT,
        "The report is not in quarantine but REJECTED. Nothing is left to do.",
    )


async def test_a_report_that_does_not_exist_is_not_found(database: Database) -> None:
    assert await refusal_of(database, 0) == (ErrorCode.NOT_FOUND, "There is no such report of an oracle.")


async def test_what_has_expired_is_a_conflict_even_before_it_is_swept_up(database: Database) -> None:
    _, waiting = await reported(database, quarantined())
    await in_the_past(database, waiting, timedelta(hours=24))
    code, message = await refusal_of(database, waiting.id)
    assert code is ErrorCode.CONFLICT
    assert message.startswith("The quarantine has expired at 2")


async def test_nothing_is_taken_while_an_override_holds(database: Database) -> None:
    claim, waiting = await reported(database, quarantined())
    async with database.transaction() as unit:
        await set_override(
            unit=unit, asset_id=claim.asset_id, fundamental=5 * UNIT, reason="Held.", expires_at=None, by="ada"
        )
    code, message = await refusal_of(database, waiting.id)
    assert (code, message.partition(",")[0]) == (ErrorCode.CONFLICT, "An override holds F")
    assert (await resolve(database, waiting.id, accept=False)).resolution is Resolution.REJECTED


async def test_quarantines_expire_by_themselves(fresh_database_url: str) -> None:
    async with open_database(fresh_database_url) as database:
        _, old = await reported(database, quarantined())
        _, older = await reported(database, quarantined())
        claim, young = await reported(database, quarantined())
        for report in (old, older):
            await in_the_past(database, report, timedelta(hours=24))
        async with database.transaction() as unit:
            expired = await expire_quarantines(unit=unit)
        assert [(each.id, each.position) for each in expired] == [(old.id, 4), (older.id, 5)]
        assert {(each.outcome, each.resolution, each.resolved_by) for each in expired} == {
            (OracleOutcome.REJECTED, Resolution.EXPIRED, None)
        }
        assert await report_of(database, young.id) == young
        async with database.transaction() as unit:
            assert await expire_quarantines(unit=unit) == []
        assert await head_of(database) == 5
        # It is the run's own affair: nothing that is under way is overtaken.
        (report,) = await recorded(database, plain_draft(await next_run(database, claim.asset_id), accepted()))
        assert report.position == 6


async def test_as_many_expire_at_once_as_are_asked_for(fresh_database_url: str) -> None:
    async with open_database(fresh_database_url) as database:
        waiting = [(await reported(database, quarantined()))[1] for _ in range(3)]
        for report in waiting:
            await in_the_past(database, report, timedelta(days=2))
        ended: list[list[int]] = []
        for _ in range(2):
            async with database.transaction() as unit:
                ended.append([report.id for report in await expire_quarantines(unit=unit, limit=2)])
        assert ended == [[waiting[0].id, waiting[1].id], [waiting[2].id]]


async def test_with_a_new_configuration_what_waits_expires(database: Database) -> None:
    claim, first = await reported(database, quarantined())
    _, second = await reported(database, quarantined(), claim=await next_run(database, claim.asset_id))
    _, other = await reported(database, quarantined())
    async with database.transaction() as unit:
        ended = await end_quarantines(unit=unit, asset_id=claim.asset_id, reason="Asked otherwise.", by="ada")
    assert [(each.id, each.resolution, each.reason) for each in ended] == [
        (first.id, Resolution.EXPIRED, "Asked otherwise."),
        (second.id, Resolution.EXPIRED, "Asked otherwise."),
    ]
    assert (await report_of(database, other.id)).outcome is OracleOutcome.QUARANTINED


async def test_an_asset_without_an_oracle_has_nothing_that_waits(database: Database) -> None:
    async with database.transaction() as unit:
        assert await end_quarantines(unit=unit, asset_id=999_999_999, reason="None.", by="ada") == []


async def test_an_admin_and_a_confirming_reading_at_once_end_it_once(database: Database) -> None:
    claim, _ = await reported(database, accepted())
    _, waiting = await reported(database, quarantined(), claim=await next_run(database, claim.asset_id))
    under_way = await next_run(database, claim.asset_id)
    outcomes = await asyncio.gather(
        recorded(database, plain_draft(under_way, accepted(2 * UNIT, confirms=waiting.id))),
        resolve(database, waiting.id, accept=True),
        return_exceptions=True,
    )
    applied = sum(isinstance(each, Report) or (isinstance(each, list) and bool(each)) for each in outcomes)
    assert applied == 1
    assert len(await told_engine(database, claim.asset_id)) == 2
    assert (await report_of(database, waiting.id)).outcome is OracleOutcome.ACCEPTED


async def test_whoever_is_told_of_a_quarantine_is_told_of_its_end(database: Database) -> None:
    oracle = await new_oracle(database)
    _, waiting = await reported(database, quarantined(), claim=oracle)
    before = await head_of(database)
    await resolve(database, waiting.id, accept=False)
    after = await report_of(database, waiting.id)
    assert (waiting.position <= before, after.position) == (True, before + 1)
