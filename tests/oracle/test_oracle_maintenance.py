"""Retention of reports: those of feeds go with their evidence, everything else stays with F as it was."""

from collections.abc import AsyncIterator

import pytest

from app.db import Database
from app.oracle import maintenance
from app.oracle.maintenance import Maintained, keep_fundamentals, maintain, prune_feed_reports
from tests.factories.market import new_admin, new_asset
from tests.oracle.schedules import new_oracle
from tests.pricing.running import open_database, record


@pytest.fixture
async def own(fresh_database_url: str) -> AsyncIterator[Database]:
    async with open_database(fresh_database_url) as database:
        yield database


async def assets(database: Database, count: int) -> list[int]:
    admin = await new_admin(database)
    made = [await new_asset(database, admin=admin) for _ in range(count)]
    for asset_id in made:
        await new_oracle(database, asset_id)
    return made


async def report(
    database: Database, asset_id: int, *, days_ago: float, method: str = "FEED", event_seq: int | None = None
) -> int:
    """A report with two pieces of evidence; its id."""
    async with database.acquire() as connection:
        log_id: int = await connection.fetchval(
            "INSERT INTO oracle_logs (position, asset_id, run_id, at, method, verdict, outcome, suggested_price,"
            " fundamental_before, event_seq, inputs) SELECT coalesce(max(l.position), 0) + 1, $1::bigint,"
            " CASE WHEN $3 = 'OVERRIDE' THEN NULL ELSE count(l.id) + 1 END,"
            " clock_timestamp() - $2::float8 * interval '1 day', $3, o.outcome, o.outcome,"
            " 1000000000000, 1000000000000, $4, CASE WHEN $3 = 'OVERRIDE' THEN NULL ELSE '{}' END"
            " FROM (SELECT CASE WHEN $4::bigint IS NULL THEN 'REJECTED' ELSE 'ACCEPTED' END AS outcome) o"
            " LEFT JOIN oracle_logs l ON true GROUP BY o.outcome RETURNING id",
            asset_id,
            days_ago,
            method,
            event_seq,
        )
        await connection.execute(
            "INSERT INTO oracle_evidence (log_id, asset_id, ordinal, source, url, excerpt, content_hash, retrieved_at,"
            " counts) SELECT $1, $2, n, 'feed.example', 'https://feed.example/', '1', repeat('0', 64),"
            " clock_timestamp(), false FROM generate_series(1, 2) n",
            log_id,
            asset_id,
        )
    return log_id


async def kept(database: Database) -> tuple[list[int], list[int]]:
    """The ids of reports, and of those that have evidence."""
    async with database.acquire() as connection:
        reports = await connection.fetch("SELECT id FROM oracle_logs ORDER BY id")
        evidence = await connection.fetch("SELECT log_id FROM oracle_evidence GROUP BY log_id ORDER BY log_id")
    return [row["id"] for row in reports], [row["log_id"] for row in evidence]


async def test_old_reports_of_feeds_go_with_their_evidence_and_all_else_stays(own: Database) -> None:
    busy, quiet = await assets(own, 2)
    old = [await report(own, busy, days_ago=8) for _ in range(3)]
    search = await report(own, busy, days_ago=400, method="SEARCH_LLM")
    override = await report(own, busy, days_ago=400, method="OVERRIDE")
    young = await report(own, busy, days_ago=6.9)
    last = await report(own, quiet, days_ago=90)
    assert await prune_feed_reports(database=own, retention_days=7) == 3
    everything = [search, override, young, last]
    assert await kept(own) == (everything, everything)
    assert not set(old) & set(everything)
    assert await prune_feed_reports(database=own, retention_days=7) == 0


async def test_many_old_reports_go_in_batches(own: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "PRUNED_MAX", 4)
    made = await assets(own, 2)
    for _ in range(11):
        for asset_id in made:
            await report(own, asset_id, days_ago=30)
    monkeypatch.setattr(maintenance, "ROUNDS_MAX", 2)
    assert await prune_feed_reports(database=own, retention_days=7) == 16
    monkeypatch.setattr(maintenance, "ROUNDS_MAX", 2_000)
    assert await prune_feed_reports(database=own, retention_days=7) == 4
    reports, evidence = await kept(own)
    assert (len(reports), reports == evidence) == (2, True)


async def test_f_after_a_report_is_kept_with_it_before_its_event_is_pruned(own: Database) -> None:
    (asset_id,) = await assets(own, 1)
    for value in (2, 3, 4, 5):
        await record(own, asset_id, value * 10**12)
    async with own.acquire() as connection:
        await connection.execute("UPDATE oracle_events SET fundamental_after = value + seq WHERE seq < 4")
    search = await report(own, asset_id, days_ago=2, method="SEARCH_LLM", event_seq=1)
    override = await report(own, asset_id, days_ago=2, method="OVERRIDE", event_seq=2)
    young = await report(own, asset_id, days_ago=0.5, method="SEARCH_LLM", event_seq=3)
    waiting = await report(own, asset_id, days_ago=2, method="SEARCH_LLM", event_seq=4)
    moved_nothing = await report(own, asset_id, days_ago=2, method="SEARCH_LLM")
    assert await keep_fundamentals(database=own) == 2
    async with own.acquire() as connection:
        found = await connection.fetch("SELECT id, fundamental_after FROM oracle_logs ORDER BY id")
    assert {row["id"]: row["fundamental_after"] for row in found} == {
        search: 2 * 10**12 + 1,
        override: 3 * 10**12 + 2,
        young: None,
        waiting: None,
        moved_nothing: None,
    }
    assert await maintain(database=own, feed_report_days=7) == Maintained(pruned=0, copied=0)
