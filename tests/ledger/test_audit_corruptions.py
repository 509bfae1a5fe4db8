"""The audit finds nothing wrong with a clean past, and names every single row that was tampered with."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.db import Connection
from app.ledger.audit import Finding, Report, audit, render
from tests.ledger.conftest import Past
from tests.ledger.corruptions import CORRUPTIONS, Corruption


@asynccontextmanager
async def tampering(past: Past, *tables: str) -> AsyncIterator[Connection]:
    """A transaction in which nothing guards `tables`: no trigger, no CHECK, no foreign key. Undone at the end."""
    async with past.database.acquire() as connection:
        transaction = connection.transaction(isolation="repeatable_read")
        await transaction.start()
        try:
            for table in tables:
                await drop_guards(connection, table)
            yield connection
        finally:
            await transaction.rollback()


async def drop_guards(connection: Connection, table: str) -> None:
    await connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    rows = await connection.fetch(
        "SELECT conrelid::regclass::text AS owner, conname FROM pg_constraint"
        " WHERE contype IN ('c', 'f') AND $1::text::regclass IN (conrelid, confrelid)",
        table,
    )
    for row in rows:
        await connection.execute(f"ALTER TABLE {row['owner']} DROP CONSTRAINT {row['conname']}")


async def audited(past: Past) -> Report:
    async with past.database.snapshot() as connection:
        return await audit(connection=connection)


async def test_a_clean_past_has_no_findings(past: Past) -> None:
    report = await audited(past)
    assert report.findings == []
    assert report.ok
    async with past.database.acquire() as connection:
        assert report.transfers == await connection.fetchval("SELECT count(*) FROM transfers")
        kinds = await connection.fetch(
            "SELECT 'orders' AS what, count(DISTINCT (status, side, amount IS NULL)) AS kinds FROM orders"
            " UNION ALL SELECT 'refusals', count(DISTINCT refusal ->> 'code') FROM orders"
            " UNION ALL SELECT 'actions', count(DISTINCT action) FROM audit_log"
            " UNION ALL SELECT 'days', count(DISTINCT at::date) FROM trades"
            " UNION ALL SELECT 'fees', count(DISTINCT round(fee * 1000.0 / gross)) FROM trades WHERE gross > 10000000"
            " UNION ALL SELECT 'events', count(DISTINCT (order_id IS NULL, transfer_id IS NULL, currency))"
            " FROM account_events"
            " UNION ALL SELECT 'ticks', count(DISTINCT cause) FROM ticks"
        )
    assert {row["what"]: row["kinds"] for row in kinds} == {
        "orders": 6, "refusals": 6, "actions": 6, "days": 2, "fees": 3, "events": 5, "ticks": 4,
    }  # fmt: skip


def test_there_are_more_than_a_hundred_corruptions_and_each_has_its_own_name() -> None:
    assert len(CORRUPTIONS) >= 100
    assert len({(c.check, c.sql) for c in CORRUPTIONS}) == len(CORRUPTIONS)


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda c: c.name)
async def test_a_tampered_row_is_named(past: Past, corruption: Corruption) -> None:
    table = corruption.name.partition(":")[0]
    async with tampering(past, table) as connection:
        changed = await connection.fetch(corruption.sql)
        assert len(changed) == 1
        report = await audit(connection=connection)
    assert not report.ok
    named = [f for f in report.findings if f.check == corruption.check and f.subject.startswith(changed[0][0])]
    assert named, f"{corruption.check} of {changed[0][0]} is not among {report.findings}"
    assert all(finding.expected != finding.actual for finding in report.findings)


async def test_after_all_tampering_the_past_is_still_clean(past: Past) -> None:
    assert (await audited(past)).findings == []


@pytest.mark.parametrize("kept_from", [2, 6, 10**6])
async def test_ticks_that_are_kept_no_longer_are_not_missed(past: Past, kept_from: int) -> None:
    async with tampering(past, "ticks") as connection:
        dropped = await connection.fetch("DELETE FROM ticks WHERE asset_id = 1 AND seq < $1 RETURNING seq", kept_from)
        report = await audit(connection=connection)
    assert len(dropped) > 0
    assert report.findings == []


async def test_oracle_events_that_were_pruned_are_not_missed_but_those_not_taken_in_are(past: Past) -> None:
    async with tampering(past, "oracle_events", "price_states") as connection:
        pruned = await connection.fetch("DELETE FROM oracle_events WHERE asset_id = 1 AND seq < 3 RETURNING seq")
        kept = await audit(connection=connection)
        await connection.execute("UPDATE price_states SET oracle_seq = 1 WHERE asset_id = 1")
        lost = await audit(connection=connection)
    assert len(pruned) == 2
    assert kept.findings == []
    assert lost.findings == [Finding("oracle_event.seq", "OracleEvent:1:3", "at most 2", "3")]


async def test_account_events_that_were_never_written_for_a_past_are_not_missed(past: Past) -> None:
    async with tampering(past, "account_events") as connection:
        await connection.execute("DELETE FROM account_events")
        report = await audit(connection=connection)
    assert report.findings == []


async def test_a_difference_tells_what_is_expected_and_what_is_there(past: Past) -> None:
    async with tampering(past, "assets") as connection:
        row = await connection.fetchrow("SELECT id, backing FROM assets WHERE id = $1", past.history.stock)
        assert row is not None
        await connection.execute("UPDATE assets SET backing = backing + 7 WHERE id = $1", row["id"])
        report = await audit(connection=connection)
    assert report.findings == [
        Finding("asset.backing", f"Asset:{row['id']}", str(row["backing"]), str(row["backing"] + 7))
    ]
    text = render(report)
    assert f"asset.backing: Asset:{row['id']}: expected {row['backing']}, found {row['backing'] + 7}" in text
    assert f"\n1 finding in {report.transfers} transfers as of " in text


async def test_one_check_cannot_drown_the_others(past: Past) -> None:
    async with tampering(past, "entries", "assets") as connection:
        await connection.execute("UPDATE entries SET balance_after = balance_after + version")
        await connection.execute("UPDATE assets SET lp_capital = 1")
        report = await audit(connection=connection, finding_limit=40)
    checks = [finding.check for finding in report.findings]
    assert checks.count("entry.balance_after") == 10
    assert "asset.lp_capital" in checks
    assert len(report.findings) <= 41
    assert report.findings[-1].check == "audit.more"
    assert "entry.balance_after" in report.findings[-1].subject


async def test_a_time_limit_ends_the_audit_and_says_so(past: Past) -> None:
    async with past.database.snapshot() as connection:
        report = await audit(connection=connection, time_limit_s=0)
        assert await connection.fetchval("SELECT 1") == 1
    assert not report.ok
    assert [finding.check for finding in report.findings] == ["audit.time"]


async def test_a_time_limit_ends_a_statement_too(past: Past) -> None:
    """Somebody else holds a table that the audit must read, for longer than the audit may take."""
    async with past.database.transaction() as unit:
        await unit.connection.execute("LOCK TABLE positions IN ACCESS EXCLUSIVE MODE")
        async with past.database.snapshot() as connection:
            report = await audit(connection=connection, time_limit_s=0.5)
            assert await connection.fetchval("SELECT 1") == 1
    assert not report.ok
    assert [(finding.check, finding.subject) for finding in report.findings] == [("audit.time", "positions")]


async def test_within_its_time_limit_the_audit_is_whole_and_leaves_settings_as_they_were(past: Past) -> None:
    async with past.database.snapshot() as connection:
        before = await connection.fetchval("SHOW statement_timeout"), await connection.fetchval("SHOW work_mem")
        stages: list[str] = []
        report = await audit(connection=connection, time_limit_s=60, progress=stages.append)
        after = await connection.fetchval("SHOW statement_timeout"), await connection.fetchval("SHOW work_mem")
    assert report.ok
    assert before == after
    assert stages[0] == "admin log"
    assert len(stages) == len(set(stages))


async def test_outside_a_snapshot_the_audit_is_refused(past: Past) -> None:
    async with past.database.acquire() as connection:
        with pytest.raises(ValueError, match="REPEATABLE READ"):
            await audit(connection=connection)
    async with past.database.transaction() as unit:
        with pytest.raises(ValueError, match="REPEATABLE READ"):
            await audit(connection=unit.connection)


async def test_a_clean_report_reads_as_one_line(past: Past) -> None:
    report = await audited(past)
    assert render(report).startswith(f"ok: {report.transfers} transfers audited as of ")
    assert "\n" not in render(report)
