"""Recording runs: everything of one at once, each run once, positions gapless in commit order, the engine told."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest
from redis.asyncio import Redis

from app.bus import CHANGES_STREAM, Bus, decode_changes
from app.db import Database
from app.local.valkey import EmbeddedValkey
from app.oracle.cases import content_hash
from app.oracle.gathering import missed
from app.oracle.kinds import Effect, Evidence, OracleMethod, OracleOutcome, Reason
from app.oracle.replays import ReplayMove
from app.oracle.report_reads import report_head, reports_by_id
from app.oracle.report_rows import Report, Resolution
from app.oracle.reports import QUARANTINE, Draft, record
from app.pricing.oracle_events import ORACLE_STREAM, OracleEventKind, decode_events, events_after
from tests.oracle.making import (
    AT,
    FEEDS,
    UNIT,
    accepted,
    feed_case,
    feed_draft,
    new_oracle,
    next_run,
    plain_draft,
    quarantined,
    recorded,
    rejected,
    reported,
    search_case,
    search_draft,
)
from tests.pricing.running import open_database


async def rows_of(database: Database, table: str, asset_id: int) -> list[asyncpg.Record]:
    """All rows of an asset, by id."""
    order = "asset_id" if table in ("oracles", "series_replays") else "id"
    async with database.acquire() as connection:
        return await connection.fetch(f"SELECT * FROM {table} WHERE asset_id = $1 ORDER BY {order}", asset_id)


async def counts_of(database: Database, asset_id: int) -> tuple[int, int, int]:
    """(reports, pieces of evidence, oracle events)."""
    tables = ("oracle_logs", "oracle_evidence", "oracle_events")
    reports, evidence, events = [len(await rows_of(database, table, asset_id)) for table in tables]
    return reports, evidence, events


async def head_of(database: Database) -> int:
    async with database.acquire() as connection:
        return await report_head(connection=connection)


async def test_a_run_is_recorded_whole(database: Database) -> None:
    claim = await new_oracle(database)
    draft = search_draft(claim, search_case("1.05"))
    gone = missed("https://www.gone.example/x", title="Gone", why="'...': there is no such page", at=AT)
    draft = replace(draft, evidence=(*draft.evidence, gone), due_at=AT)
    before = await head_of(database)

    (report,) = await recorded(database, draft)

    async with database.acquire() as connection:
        (event,) = (await events_after(connection=connection, after={claim.asset_id: 0}, limit=9))[claim.asset_id]
    assert (event.seq, event.kind, event.value) == (1, OracleEventKind.READING, 105 * UNIT // 100)
    assert (event.cadence_seconds, event.fresh_seconds) == (300, 900)
    assert report == Report(
        id=report.id,
        position=before + 1,
        asset_id=claim.asset_id,
        run_id=claim.run_id,
        at=report.at,
        method=OracleMethod.SEARCH_LLM,
        verdict=OracleOutcome.ACCEPTED,
        outcome=OracleOutcome.ACCEPTED,
        reasons=(),
        delta_percent=5 * 10**9,
        suggested_price=105 * UNIT // 100,
        figure="1.05",
        confidence=9 * 10**8,
        summary="Wheat costs 1.05 USD.",
        fundamental_before=UNIT,
        fundamental_after=None,
        move=10**7,
        event_seq=1,
        model="stand-in-model",
        prompt_hash="ab" * 32,
        cost=1_500,
        latency_ms=4_321,
        expires_at=None,
        resolution=None,
        resolved_at=None,
        resolved_by=None,
        reason=None,
    )
    (log,) = await rows_of(database, "oracle_logs", claim.asset_id)
    assert log["inputs"] == draft.inputs
    evidence = await rows_of(database, "oracle_evidence", claim.asset_id)
    assert [
        (row["log_id"], row["ordinal"], row["source"], row["url"], row["value"], row["counts"]) for row in evidence
    ] == [
        (report.id, 1, "alpha.example", "https://www.alpha.example/wheat", "1.05", True),
        (report.id, 2, "beta.example", "https://www.beta.example/wheat", "1.05", True),
        (report.id, 3, "gone.example", "https://www.gone.example/x", None, False),
    ]
    assert [(row["excerpt"], row["content_hash"], row["title"]) for row in evidence] == [
        (each.excerpt, each.content_hash, each.title) for each in draft.evidence
    ]
    async with database.acquire() as connection:
        texts = await connection.fetch(
            "SELECT text FROM oracle_texts WHERE content_hash = ANY($1::text[]) ORDER BY text",
            [row["content_hash"] for row in evidence],
        )
    assert [row["text"] for row in texts] == [
        f"{domain}.example reports that wheat traded at 1.05 USD today." for domain in ("alpha", "beta")
    ]
    (oracle,) = await rows_of(database, "oracles", claim.asset_id)
    assert (oracle["claimed_until"], oracle["last_accepted_at"], oracle["due_at"]) == (None, report.at, AT)
    assert (oracle["run_id"], oracle["failures"], oracle["last_error"]) == (claim.run_id, 0, None)


@pytest.mark.parametrize(
    ("verdict", "told", "is_fresh"),
    [
        (accepted(effect=Effect.SET), (OracleEventKind.OVERRIDE, 105 * UNIT // 100), True),
        (accepted(), (OracleEventKind.READING, 105 * UNIT // 100), True),
        (rejected(Reason.REPEAT, effect=Effect.REFRESH), (OracleEventKind.REFRESH, None), True),
        (rejected(Reason.UNGROUNDED), None, False),
        (quarantined(), None, False),
    ],
)
async def test_what_the_engine_is_told(
    database: Database, verdict: object, told: tuple[OracleEventKind, int | None] | None, is_fresh: bool
) -> None:
    claim = await new_oracle(database)
    (report,) = await recorded(database, plain_draft(claim, verdict))  # type: ignore[arg-type]
    async with database.acquire() as connection:
        events = (await events_after(connection=connection, after={claim.asset_id: 0}, limit=9)).get(claim.asset_id, [])
    assert [(event.kind, event.value) for event in events] == ([] if told is None else [told])
    assert report.event_seq == (None if told is None else 1)
    (oracle,) = await rows_of(database, "oracles", claim.asset_id)
    assert oracle["last_accepted_at"] == (report.at if is_fresh else None)
    assert oracle["due_at"] == report.at + timedelta(seconds=300)


async def test_a_quarantine_lasts_a_day(database: Database) -> None:
    _, report = await reported(database, quarantined())
    assert report.outcome is OracleOutcome.QUARANTINED
    assert report.expires_at == report.at + QUARANTINE == report.at + timedelta(hours=24)
    assert (report.suggested_price, report.reasons, report.move) == (2 * UNIT, ("DELTA_TOO_LARGE",), 0)


async def test_a_run_is_recorded_once(database: Database) -> None:
    claim = await new_oracle(database)
    draft = plain_draft(claim, accepted())
    assert len(await recorded(database, draft, draft)) == 1
    assert await recorded(database, draft) == []
    assert await counts_of(database, claim.asset_id) == (1, 0, 1)


async def test_two_who_record_one_run_at_once_record_it_once(database: Database) -> None:
    claim = await new_oracle(database)
    both = await asyncio.gather(*(recorded(database, plain_draft(claim, accepted())) for _ in range(2)))
    assert sorted(map(len, both)) == [0, 1]
    assert await counts_of(database, claim.asset_id) == (1, 0, 1)


async def test_a_run_that_was_overtaken_leaves_nothing(database: Database) -> None:
    claim = await new_oracle(database)
    newer = await next_run(database, claim.asset_id)
    head = await head_of(database)
    assert await recorded(database, search_draft(claim, search_case())) == []
    assert await counts_of(database, claim.asset_id) == (0, 0, 0)
    assert await head_of(database) == head
    (oracle,) = await rows_of(database, "oracles", claim.asset_id)
    assert oracle["claimed_until"] is not None

    # Of an old and a new run together, only the current one counts, whatever their order.
    old, new = plain_draft(claim, accepted()), plain_draft(newer, accepted(99 * UNIT // 100))
    (report,) = await recorded(database, old, new, old)
    assert (report.run_id, report.suggested_price) == (newer.run_id, 99 * UNIT // 100)


async def test_what_is_rolled_back_leaves_nothing_and_no_gap(database: Database) -> None:
    claim = await new_oracle(database)
    head = await head_of(database)
    bus = Bus(None)

    async def record_and_roll_back() -> None:
        async with database.transaction() as unit:
            await record(unit=unit, drafts=[search_draft(claim, search_case())], bus=bus)
            raise LookupError("changed my mind")

    with pytest.raises(LookupError, match="changed my mind"):
        await record_and_roll_back()
    assert (await counts_of(database, claim.asset_id), await head_of(database), bus.dropped) == ((0, 0, 0), head, 0)
    (report,) = await recorded(database, search_draft(claim, search_case()))
    assert report.position == head + 1


async def test_reports_come_back_in_the_order_of_their_drafts(database: Database) -> None:
    claims = [await new_oracle(database) for _ in range(4)]
    head = await head_of(database)
    drafts = [search_draft(claim, search_case()) for claim in reversed(claims)]
    reports = await recorded(database, *drafts)
    assert [report.asset_id for report in reports] == [draft.asset_id for draft in drafts]
    assert sorted(report.position for report in reports) == [head + 1, head + 2, head + 3, head + 4]
    for report in reports:
        evidence = await rows_of(database, "oracle_evidence", report.asset_id)
        assert [(row["log_id"], row["ordinal"]) for row in evidence] == [(report.id, 1), (report.id, 2)]


async def test_nothing_to_record_takes_no_position(database: Database) -> None:
    head = await head_of(database)
    assert await recorded(database) == []
    assert await head_of(database) == head


async def test_positions_are_gapless_and_in_commit_order_whoever_records(fresh_database_url: str) -> None:
    seen: list[int] = []
    async with open_database(fresh_database_url) as database:
        claims = [await new_oracle(database) for _ in range(24)]

        async def record_one(number: int) -> None:
            drafts = [plain_draft(claims[number], accepted()), plain_draft(claims[-1 - number], rejected())]
            seen.extend(report.position for report in await recorded(database, *drafts))

        async def watch() -> None:
            """Whenever it looks, everything up to the highest position that it sees is there."""
            while len(seen) < 24:
                async with database.acquire() as connection:
                    row = await connection.fetchrow("SELECT count(*), coalesce(max(position), 0) FROM oracle_logs")
                assert row is not None
                assert row[0] == row[1]

        await asyncio.gather(watch(), *(record_one(number) for number in range(12)))
        assert sorted(seen) == list(range(1, 25))
        assert await head_of(database) == 24


async def test_a_second_reading_confirms_a_quarantined_one(database: Database) -> None:
    claim, waiting = await reported(database, quarantined())
    head = await head_of(database)
    (report,) = await recorded(
        database,
        plain_draft(await next_run(database, claim.asset_id), accepted(2 * UNIT, confirms=waiting.id)),
    )
    async with database.acquire() as connection:
        confirmed = (await reports_by_id(connection=connection, report_ids=[waiting.id]))[waiting.id]
    assert (report.position, confirmed.position) == (head + 1, head + 2)
    assert (confirmed.verdict, confirmed.outcome) == (OracleOutcome.QUARANTINED, OracleOutcome.ACCEPTED)
    assert (confirmed.resolution, confirmed.resolved_at, confirmed.resolved_by) == (
        Resolution.CONFIRMED,
        report.at,
        None,
    )
    assert (report.event_seq, confirmed.event_seq, report.move, confirmed.move) == (1, 1, 10**7, 0)
    assert await counts_of(database, claim.asset_id) == (2, 0, 1)


async def test_what_has_ended_is_not_confirmed_any_more(database: Database) -> None:
    claim, waiting = await reported(database, quarantined())
    async with database.acquire() as connection:
        await connection.execute(
            "UPDATE oracle_logs SET outcome = 'REJECTED', resolution = 'EXPIRED', resolved_at = at WHERE id = $1",
            waiting.id,
        )
    head = await head_of(database)
    await recorded(
        database, plain_draft(await next_run(database, claim.asset_id), accepted(2 * UNIT, confirms=waiting.id))
    )
    async with database.acquire() as connection:
        ended = (await reports_by_id(connection=connection, report_ids=[waiting.id]))[waiting.id]
    assert (ended.outcome, ended.resolution, ended.position) == (
        OracleOutcome.REJECTED,
        Resolution.EXPIRED,
        waiting.position,
    )
    assert await head_of(database) == head + 1


async def test_the_same_text_is_kept_once(database: Database) -> None:
    text = "a text of its own"
    piece = Evidence("x.example", "https://x.example/", None, text, content_hash(text), AT, text=text)
    claims = [await new_oracle(database) for _ in range(3)]
    await asyncio.gather(
        *(recorded(database, plain_draft(claim, rejected(), evidence=(piece, piece))) for claim in claims)
    )
    async with database.acquire() as connection:
        kept = await connection.fetch("SELECT * FROM oracle_texts WHERE text = $1", text)
    assert [row["content_hash"] for row in kept] == [content_hash(text)]


async def test_what_cannot_be_stored_is_replaced(database: Database) -> None:
    claim = await new_oracle(database)
    verdict = replace(rejected(), summary="null \x00, half \ud800, back \u202e" + "x" * 3_000)
    piece = Evidence("x.example", "https://x.example/\x00", "t\x00", "words", content_hash("words"), AT)
    (report,) = await recorded(database, plain_draft(claim, verdict, evidence=(piece,)))
    assert report.summary is not None
    assert report.summary.startswith("null  , half  , back  xxx")
    assert len(report.summary) == 2_000
    (row,) = await rows_of(database, "oracle_evidence", claim.asset_id)
    assert (row["url"], row["title"]) == ("https://x.example/ ", "t ")


async def test_replays_move_with_their_report(database: Database) -> None:
    claim = await new_oracle(database, configuration=FEEDS)
    async with database.acquire() as connection:
        await connection.execute(
            'INSERT INTO series_replays (asset_id, series, "column", speed, position_ms, advanced_at)'
            " VALUES ($1, 'seattle-weather', 'temp_max', 1, 5, $2)",
            claim.asset_id,
            AT,
        )
    later = AT + timedelta(seconds=3)
    move = ReplayMove(claim.asset_id, "seattle-weather", "temp_max", 3_005, later, AT)
    draft = replace(feed_draft(claim, feed_case()), replays=(move,))
    overtaken = replace(draft, run_id=claim.run_id - 1)
    assert await recorded(database, overtaken) == []
    (stood,) = await rows_of(database, "series_replays", claim.asset_id)
    assert (stood["position_ms"], stood["advanced_at"]) == (5, AT)
    (report,) = await recorded(database, draft)
    (stands,) = await rows_of(database, "series_replays", claim.asset_id)
    assert (stands["position_ms"], stands["advanced_at"]) == (3_005, later)
    assert (report.method, report.figure, report.confidence) == (OracleMethod.FEED, "1.05", None)


@pytest.fixture
async def redis(valkey: EmbeddedValkey) -> AsyncIterator[Redis]:
    client: Redis = Redis.from_url(valkey.url)
    await client.flushall()
    yield client
    await client.aclose()


async def test_reports_are_told_once_they_are_committed(database: Database, redis: Redis) -> None:
    first, second = await new_oracle(database), await new_oracle(database)
    bus = Bus(redis)
    bus.start()
    async with database.transaction() as unit:
        await record(unit=unit, drafts=[plain_draft(first, accepted()), plain_draft(second, rejected())], bus=bus)
        assert bus.waiting == 0
    await bus.stop()
    ((_, events),) = await redis.xrange(ORACLE_STREAM)
    assert [(event.asset_id, event.seq) for event in decode_events(events[b"events"])] == [(first.asset_id, 1)]
    ((_, changes),) = await redis.xrange(CHANGES_STREAM)
    assert sorted(decode_changes(changes[b"changes"]).reports) == [first.asset_id, second.asset_id]


@pytest.mark.parametrize(
    ("verdict", "told"),
    [
        (replace(accepted(), effect=Effect.NONE), "exactly what is ACCEPTED is applied; got ACCEPTED with .* NONE"),
        (replace(rejected(), effect=Effect.MOVE, price=UNIT), "got REJECTED with the effect MOVE"),
        (replace(accepted(), price=None), "a verdict with the effect MOVE has a price; got none"),
        (replace(accepted(), price=10**6 - 1), "1000000 to 1000000000000000000000 .* got 999999"),
        (replace(quarantined(), price=10**21 + 1), "got 1000000000000000000001"),
        (replace(rejected(), confidence=10**9 + 1), "0 to 1000000000 .* got 1000000001"),
        (replace(rejected(), move=1), "only what is applied moves F, by 0 or more; got 1 with NONE"),
        (replace(accepted(), move=-1), "got -1 with MOVE"),
        (replace(rejected(), confirms=1), "only what is applied confirms another reading; got NONE"),
    ],
)
async def test_a_verdict_that_does_not_fit_together_is_no_draft(database: Database, verdict: object, told: str) -> None:
    claim = await new_oracle(database)
    with pytest.raises(ValueError, match=told):
        plain_draft(claim, verdict)  # type: ignore[arg-type]


async def test_an_asset_that_does_not_exist_has_no_runs(database: Database) -> None:
    claim = await new_oracle(database)
    draft: Draft = replace(plain_draft(claim, accepted()), asset_id=999_999_999)
    assert await recorded(database, draft) == []
