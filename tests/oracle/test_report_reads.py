"""Reading reports: pages, the stream by position, the newest of each asset, evidence, and how an oracle stands."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from app.db import Connection, Database
from app.local.valkey import EmbeddedValkey
from app.oracle.history import SAMPLES_MAX, feed_samples, search_history
from app.oracle.kinds import FUNDAMENTAL_WEIGHT, OracleMethod, Reason
from app.oracle.overrides import set_override
from app.oracle.quarantine import resolve_quarantine
from app.oracle.report_pages import report_pages
from app.oracle.report_reads import (
    REPORTS_MAX,
    OracleStatus,
    evidence_of,
    latest_reports,
    oracle_statuses,
    report_head,
    reports_after,
    reports_by_id,
)
from app.oracle.report_rows import Report
from app.oracle.standing import FundamentalStanding, fundamental_standing
from tests.factories.market import new_asset
from tests.oracle.making import (
    AT,
    FEED,
    FEEDS,
    UNIT,
    accepted,
    feed_case,
    feed_draft,
    in_the_past,
    new_oracle,
    next_run,
    quarantined,
    recorded,
    rejected,
    reported,
    search_case,
    search_draft,
)
from tests.pricing.market import open_market
from tests.pricing.running import open_database, running_worker


async def several(database: Database, count: int) -> list[Report]:
    """Reports of one asset, oldest first."""
    claim, first = await reported(database, accepted())
    rest = [
        (await reported(database, rejected(), claim=await next_run(database, claim.asset_id)))[1]
        for _ in range(count - 1)
    ]
    return [first, *rest]


def ids(reports: Sequence[Report]) -> list[int]:
    return [report.id for report in reports]


async def test_pages_are_newest_first(database: Database) -> None:
    reports = await several(database, 5)
    await several(database, 2)
    newest_first = ids(reports)[::-1]
    asset_id = reports[0].asset_id
    async with database.acquire() as connection:

        async def page(limit: int, after: int | None = None) -> tuple[list[int], bool, bool]:
            found = await report_pages(connection=connection, asset_ids=[asset_id], limit=limit, after=after)
            return ids(found[asset_id].rows), found[asset_id].has_next, found[asset_id].has_previous

        assert await page(2) == (newest_first[:2], True, False)
        assert await page(2, after=newest_first[1]) == (newest_first[2:4], True, True)
        assert await page(9, after=newest_first[3]) == (newest_first[4:], False, True)
        pages = await report_pages(connection=connection, asset_ids=[asset_id, 0], limit=1, after=None)
        assert {of: found.rows for of, found in pages.items()} == {asset_id: [reports[-1]], 0: []}


async def test_reports_by_id(database: Database) -> None:
    first, second = await several(database, 2)
    async with database.acquire() as connection:
        found = await reports_by_id(connection=connection, report_ids=[second.id, first.id, 0])
    assert found == {first.id: first, second.id: second}


async def test_the_stream_is_by_position(fresh_database_url: str) -> None:
    async with open_database(fresh_database_url) as database:
        claim, first = await reported(database, quarantined())
        other, second = await reported(database, accepted())
        async with database.transaction() as unit:
            moved = await resolve_quarantine(unit=unit, report_id=first.id, accept=False, reason="No.", by="ada")
        async with database.acquire() as connection:

            async def after(position: int, *, among: list[int] | None = None, limit: int = 20) -> list[Report]:
                return await reports_after(connection=connection, after_position=position, asset_ids=among, limit=limit)

            assert await after(0) == [second, moved]
            assert await after(1) == [second, moved]
            assert await after(2) == [moved]
            assert await after(3) == []
            assert await after(0, limit=1) == [second]
            assert await after(0, among=[claim.asset_id]) == [moved]
            assert await after(0, among=[other.asset_id, claim.asset_id], limit=1) == [second]
            assert await after(0, among=[]) == []
            assert await report_head(connection=connection) == 3
            with pytest.raises(ValueError, match="limit must be between 1 and 1000; got 1001"):
                await after(0, limit=REPORTS_MAX + 1)


async def test_the_newest_report_of_each_asset(fresh_database_url: str) -> None:
    async with open_database(fresh_database_url) as database:
        reports = await several(database, 3)
        (other,) = await several(database, 1)
        silent = await new_oracle(database)
        async with database.acquire() as connection:
            assert await latest_reports(connection=connection, asset_ids=None) == [reports[-1], other]
            among = [silent.asset_id, reports[0].asset_id, 999]
            assert await latest_reports(connection=connection, asset_ids=among) == [reports[-1]]


async def test_evidence_is_in_its_order(database: Database) -> None:
    claim = await new_oracle(database)
    draft = search_draft(claim, search_case("1.05"))
    (report,) = await recorded(database, draft)
    _, bare = await reported(database, rejected())
    async with database.acquire() as connection:
        found = await evidence_of(connection=connection, report_ids=[report.id, bare.id])
    assert list(found) == [report.id]
    assert [(each.source, each.url, each.excerpt, each.content_hash, each.value) for each in found[report.id]] == [
        (each.source, each.url, each.excerpt, each.content_hash, each.value) for each in draft.evidence
    ]
    assert [each.text for each in found[report.id]] == [None, None]


async def test_f_after_a_report_is_known_once_the_engine_has_taken_it(
    fresh_database_url: str, valkey: EmbeddedValkey
) -> None:
    async with open_market(fresh_database_url, valkey.url) as market:
        claim, report = await reported(market.database, accepted(2 * UNIT))
        _, refused = await reported(market.database, rejected(), claim=await next_run(market.database, claim.asset_id))
        async with running_worker(fresh_database_url, redis_url=valkey.url):
            await market.caught_up()
        async with market.database.acquire() as connection:
            found = await reports_by_id(connection=connection, report_ids=[report.id, refused.id])
            standing = await fundamental_standing(connection=connection, asset_id=claim.asset_id)
        assert (found[report.id].fundamental_after, found[refused.id].fundamental_after) == (12 * UNIT // 10, None)
        assert standing == FundamentalStanding(12 * UNIT // 10, is_first=False, weight=FUNDAMENTAL_WEIGHT)

        # Readings that the engine has not taken count as it is going to count them.
        await reported(market.database, accepted(2 * UNIT), claim=await next_run(market.database, claim.asset_id))
        async with market.database.acquire() as connection:
            standing = await fundamental_standing(connection=connection, asset_id=claim.asset_id)
        assert standing == FundamentalStanding(136 * UNIT // 100, is_first=False, weight=FUNDAMENTAL_WEIGHT)


async def test_f_before_any_reading_is_the_base_price(database: Database) -> None:
    asset_id = await new_asset(database, base_price="7")
    async with database.acquire() as connection:
        standing = await fundamental_standing(connection=connection, asset_id=asset_id)
        assert standing == FundamentalStanding(7 * UNIT, is_first=True, weight=FUNDAMENTAL_WEIGHT)
        with pytest.raises(LookupError, match="no asset has the id 0"):
            await fundamental_standing(connection=connection, asset_id=0)


# ------------------------------------------------------------------------------------------------ how it stands
async def status_of(database: Database, asset_id: int) -> OracleStatus | None:
    async with database.acquire() as connection:
        return (await oracle_statuses(connection=connection, asset_ids=[asset_id])).get(asset_id)


async def test_how_an_oracle_stands(database: Database) -> None:
    claim = await new_oracle(database)
    before = await status_of(database, claim.asset_id)
    assert before is not None
    assert (before.method, before.stale, before.last_accepted_at) == (OracleMethod.SEARCH_LLM, True, None)
    _, report = await reported(database, accepted(), claim=claim)
    assert await status_of(database, claim.asset_id) == OracleStatus(
        asset_id=claim.asset_id,
        method=OracleMethod.SEARCH_LLM,
        stale=False,
        last_accepted_at=report.at,
        next_due_at=report.at + timedelta(seconds=300),
        cadence_seconds=300,
    )
    assert await status_of(database, await new_asset(database)) is None


async def test_f_is_stale_once_its_promise_has_run_out(database: Database) -> None:
    claim, report = await reported(database, accepted())
    for age, is_stale in ((890, False), (11, True)):  # it was fresh for 900 seconds
        async with database.acquire() as connection:
            await connection.execute(
                "UPDATE oracle_events SET at = at - make_interval(secs => $2) WHERE asset_id = $1", claim.asset_id, age
            )
        status = await status_of(database, claim.asset_id)
        assert status is not None
        assert (status.stale, status.last_accepted_at) == (is_stale, report.at)
    await reported(
        database, rejected(Reason.REPEAT), claim=await next_run(database, claim.asset_id)
    )  # what is refused refreshes nothing
    status = await status_of(database, claim.asset_id)
    assert status is not None
    assert status.stale


async def test_an_override_shows_until_it_ends(database: Database) -> None:
    claim = await new_oracle(database, configuration=FEEDS)
    async with database.transaction() as unit:
        await set_override(
            unit=unit, asset_id=claim.asset_id, fundamental=UNIT, reason="Held.", expires_at=None, by="ada"
        )
    status = await status_of(database, claim.asset_id)
    assert status is not None
    assert (status.method, status.stale, status.next_due_at) == (OracleMethod.OVERRIDE, False, None)
    async with database.acquire() as connection:
        await connection.execute(
            "UPDATE oracles SET held_until = clock_timestamp() WHERE asset_id = $1", claim.asset_id
        )
    status = await status_of(database, claim.asset_id)
    assert status is not None
    assert status.method is OracleMethod.FEED


# ------------------------------------------------------------------------------------------------ what was before
async def test_the_evidence_of_accepted_searches_counts_as_used(database: Database) -> None:
    claim = await new_oracle(database)
    await recorded(database, search_draft(claim, search_case("1.05")))
    await reported(database, rejected(), claim=await next_run(database, claim.asset_id))
    waiting = search_draft(await next_run(database, claim.asset_id), search_case("1.5"))
    (pending,) = await recorded(database, waiting)
    async with database.acquire() as connection:
        history = await search_history(connection=connection, asset_id=claim.asset_id, at=pending.at)
        expired = await search_history(
            connection=connection, asset_id=claim.asset_id, at=pending.at + timedelta(hours=24)
        )
    assert [(used.source, used.figure, used.quotation) for used in history.used] == [
        ("alpha.example", "1.05", "alpha.example reports that wheat traded at 1.05 USD today."),
        ("beta.example", "1.05", "beta.example reports that wheat traded at 1.05 USD today."),
    ]
    (found,) = history.pending
    assert (found.report_id, found.price, found.figure) == (pending.id, 15 * UNIT // 10, "1.5")
    assert [(each.source, each.content_hash) for each in found.evidence] == [
        (each.source, each.content_hash) for each in waiting.evidence
    ]
    assert expired.pending == ()
    assert not found.is_rejected

    async with database.transaction() as unit:
        await resolve_quarantine(unit=unit, report_id=pending.id, accept=False, reason="No.", by="ada")
    async with database.acquire() as connection:
        rejected_since = await search_history(connection=connection, asset_id=claim.asset_id, at=pending.at)
    assert rejected_since.pending == (replace(found, is_rejected=True),)


async def test_the_moves_of_a_day_add_up(database: Database) -> None:
    claim, first = await reported(database, accepted())
    _, second = await reported(database, accepted(), claim=await next_run(database, claim.asset_id))
    _, waiting = await reported(database, quarantined(), claim=await next_run(database, claim.asset_id))
    await recorded(database, feed_draft(await next_run(database, claim.asset_id), feed_case()))

    async def moved() -> int:
        async with database.acquire() as connection:
            at = await connection.fetchval("SELECT clock_timestamp()")
            return (await search_history(connection=connection, asset_id=claim.asset_id, at=at)).moved

    assert (first.move, second.move, await moved()) == (10**7, 10**7, 2 * 10**7)
    await in_the_past(database, first, timedelta(hours=24))
    assert await moved() == 10**7
    # What an admin takes counts from then on, however old the reading is.
    await in_the_past(database, waiting, timedelta(hours=23, minutes=59))
    async with database.transaction() as unit:
        taken = await resolve_quarantine(unit=unit, report_id=waiting.id, accept=True, reason="Yes.", by="ada")
    await in_the_past(database, waiting, timedelta(minutes=2))
    assert taken.move > 0
    assert await moved() == 10**7


async def test_samples_of_feeds_are_thinned_evenly(database: Database) -> None:
    claim = await new_oracle(database, configuration=FEEDS)
    async with database.acquire() as connection:
        await connection.execute(
            "INSERT INTO oracle_evidence (log_id, asset_id, ordinal, source, url, excerpt, content_hash, retrieved_at,"
            " value, counts) SELECT -$1::bigint * 10000 - n, $1::bigint, 1, $2, 'https://feed.example/', 'x',"
            " repeat('0', 64), $3::timestamptz - make_interval(secs => n), n::text, true"
            " FROM generate_series(0, 999) n",
            claim.asset_id,
            FEED.source,
            AT,
        )

        async def samples(seconds: int) -> list[int]:
            found = await feed_samples(
                connection=connection,
                asset_id=claim.asset_id,
                sources=[FEED.source, "another"],
                since=AT - timedelta(seconds=seconds),
                until=AT,
            )
            assert [at for at, _ in found[FEED.source]] == sorted(at for at, _ in found[FEED.source])
            return [int(value) for _, value in found[FEED.source]]

        assert await samples(10) == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
        thinned = await samples(960)
        assert len(thinned) == SAMPLES_MAX
        assert thinned == list(range(952, -1, -8))  # the last one in each eight seconds
        assert await feed_samples(connection=connection, asset_id=claim.asset_id, sources=[], since=AT, until=AT) == {}


async def test_reads_go_by_their_indexes(database: Database) -> None:
    asset_id = (await several(database, 2))[0].asset_id
    asked: list[tuple[str, Sequence[object]]] = []
    async with database.acquire() as connection:
        with connection.query_logger(lambda query: asked.append((query.query, query.args))):
            await report_pages(connection=connection, asset_ids=[asset_id], limit=20, after=9)
            await reports_after(connection=connection, after_position=5, asset_ids=None, limit=20)
            await latest_reports(connection=connection, asset_ids=[asset_id])
            await evidence_of(connection=connection, report_ids=[1])
            await oracle_statuses(connection=connection, asset_ids=[asset_id])
            await fundamental_standing(connection=connection, asset_id=asset_id)
            await search_history(connection=connection, asset_id=asset_id, at=AT)
            await feed_samples(connection=connection, asset_id=asset_id, sources=["x"], since=AT, until=AT)
        plans = [await plan_of(connection, sql, parameters) for sql, parameters in asked]
    indexes = [
        ["oracle_logs_asset_id_idx"],
        ["oracle_logs_position_key"],
        ["oracle_logs_asset_id_idx"],
        ["oracle_evidence_ordinal_key"],
        ["oracle_events_seq_key"],
        ["oracle_events_seq_key"],
        ["oracle_logs_asset_id_idx", "oracle_evidence_ordinal_key"],
        ["oracle_logs_verdict_idx", "oracle_evidence_ordinal_key"],
        ["oracle_logs_"],  # by asset, or by asset and time: a matter of how many there are
        ["oracle_evidence_source_idx"],
    ]
    assert len(plans) == len(indexes)
    for plan, wanted in zip(plans, indexes, strict=True):
        assert "Seq Scan" not in plan
        assert [index for index in wanted if index not in plan] == []


async def plan_of(connection: Connection, sql: str, parameters: Sequence[object]) -> str:
    """How PostgreSQL goes about a statement in a table that is worth it."""
    async with connection.transaction():
        await connection.execute("SET LOCAL enable_seqscan = off")
        rows = await connection.fetch(f"EXPLAIN {sql}", *parameters)
    return "\n".join(row[0] for row in rows)
