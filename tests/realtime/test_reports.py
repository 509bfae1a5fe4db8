"""Reports come in the order in which they were committed, to everybody who may see them, and none is ever left out."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.db import Database
from app.exchange.assets import AssetStatus
from app.local.valkey import EmbeddedValkey
from app.oracle.kinds import OracleOutcome
from app.oracle.quarantine import resolve_quarantine
from app.oracle.report_reads import reports_after
from app.oracle.report_rows import Report
from app.realtime import reports as reports_module
from app.realtime.events import EventKind
from app.realtime.hub import Realtime
from tests.api.harness import CountingDatabase
from tests.conftest import make_settings
from tests.factories import new_asset, set_status
from tests.factories.reports import configure, new_report, new_reports, override, page
from tests.realtime.market import Market, events_of, running_market, until
from tests.realtime.sinks import Encoder, FakeSink, Seen, encode

SNAPSHOT, UPDATE, GAP, HEARTBEAT = EventKind.SNAPSHOT, EventKind.UPDATE, EventKind.GAP, EventKind.HEARTBEAT
ACCEPTED, REJECTED, QUARANTINED = OracleOutcome.ACCEPTED, OracleOutcome.REJECTED, OracleOutcome.QUARANTINED


@pytest.fixture
async def market(fresh_database_url: str, valkey: EmbeddedValkey) -> AsyncIterator[Market]:
    async with running_market(fresh_database_url, redis_url=valkey.url) as running:
        for asset_id in (*running.assets, running.draft):
            await configure(running.database, asset_id)
        yield running


async def read(hub: Realtime, **asked: Any) -> FakeSink:
    """A reader of reports: of every asset, unless asked otherwise."""
    sink = asked.pop("sink", None) or FakeSink()
    defaults: dict[str, Any] = {
        "encode": encode, "asset_ids": None, "sees_drafts": False, "heartbeat_seconds": 60, "after": None,
    }  # fmt: skip
    sink.reader = await hub.oracle_reports(sink=sink, **{**defaults, **asked})
    return sink


def shown(report: Report, *sources: str) -> list[Any]:
    """A report as an encoder of these tests tells of it."""
    return [report.asset_id, report.id, report.position, report.outcome.value, list(sources)]


def ids(events: list[Seen]) -> list[int]:
    """The ids of the reports in UPDATEs."""
    return [item[1] for event in events if event.kind is UPDATE for item in event.items]


# ------------------------------------------------------------------------------------------------ the flow
async def test_the_latest_report_of_each_asset_then_what_comes_with_its_evidence(market: Market) -> None:
    first, second, third = market.assets
    await new_report(market.database, first)
    latest = [await new_report(market.database, second), await new_report(market.database, first, evidence=[page(7)])]
    sink = await read(market.hub)
    (begun,) = await events_of(sink, 1)
    assert (begun.kind, begun.cursor) == (SNAPSHOT, "o3")
    assert begun.items == [shown(latest[1], "news7.example"), shown(latest[0])]

    came = await new_report(market.database, third, REJECTED, evidence=[page(2), page(1)])
    await market.writer.tell_changes(reports=[third])
    (_, event) = await events_of(sink, 2)
    assert (event.kind, event.items, event.cursor, event.missed) == (
        UPDATE, [shown(came, "news2.example", "news1.example")], "o4", None,
    )  # fmt: skip
    untold = await new_report(market.database, first)  # Nobody tells: it is found within a second.
    assert (await events_of(sink, 3))[2].items == [shown(untold)]


async def test_what_was_committed_together_comes_together_and_only_what_was_asked_for(market: Market) -> None:
    first, second, third = market.assets
    everything, one = await read(market.hub), await read(market.hub, asset_ids=frozenset({second}))
    for sink in (everything, one):
        (begun,) = await events_of(sink, 1)
        assert (begun.kind, begun.items, begun.cursor) == (SNAPSHOT, [], "o0")
    reports = await new_reports(market.database, [first, second, third])
    await market.writer.tell_changes(reports=[first, second, third])
    (_, all_of_them), (_, only) = await events_of(everything, 2), await events_of(one, 2)
    assert (all_of_them.items, all_of_them.cursor) == ([shown(each) for each in reports], "o3")
    assert (only.items, only.cursor) == ([shown(each) for each in reports if each.asset_id == second], "o3")


async def test_a_report_comes_again_when_its_quarantine_has_ended(market: Market) -> None:
    asset_id = market.assets[0]
    sink = await read(market.hub)
    await events_of(sink, 1)
    report = await new_report(market.database, asset_id, QUARANTINED)
    await market.writer.tell_changes(reports=[asset_id])
    await events_of(sink, 2)
    async with market.database.transaction() as unit:
        await resolve_quarantine(unit=unit, report_id=report.id, accept=True, reason="right", by="admin")
    events = await events_of(sink, 3)
    assert [item[1:4] for event in events for item in event.items] == [
        [report.id, 1, "QUARANTINED"], [report.id, 2, "ACCEPTED"],
    ]  # fmt: skip


async def test_reports_of_drafts_are_for_admins_until_the_draft_is_opened(market: Market) -> None:
    public, admin = await read(market.hub), await read(market.hub, sees_drafts=True)
    for sink in (public, admin):
        await events_of(sink, 1)
    secret = await new_report(market.database, market.draft)
    open_ = await new_report(market.database, market.assets[0])
    await market.writer.tell_changes(reports=[market.draft, market.assets[0]])
    await until(lambda: ids(admin.events) == [secret.id, open_.id] and ids(public.events) == [open_.id])
    begun = await read(market.hub)
    assert (await events_of(begun, 1))[0].items == [shown(open_)]

    await set_status(market.database, market.draft, AssetStatus.OPEN)
    came = await new_report(market.database, market.draft)  # Told of before the hub has heard of the asset's opening.
    await market.writer.tell_changes(reports=[market.draft])
    await until(lambda: ids(public.events) == [open_.id, came.id])
    resumed = await read(market.hub, after="o0")
    await until(lambda: ids(resumed.events) == [secret.id, open_.id, came.id])


@pytest.mark.parametrize("after", [None, "o0"])
async def test_an_asset_opened_while_reports_are_read_is_not_passed_over(
    market: Market, monkeypatch: pytest.MonkeyPatch, after: str | None
) -> None:
    made = [await new_report(market.database, market.assets[0])]
    read_as_ever = reports_after

    async def opened_before(**asked: Any) -> list[Report]:
        if len(made) == 1:
            made.append(await new_report(market.database, market.draft))
            await set_status(market.database, market.draft, AssetStatus.OPEN)
        told: list[Report] = await read_as_ever(**asked)
        return told

    sink = await read(market.hub, after=after) if after is None else None
    if sink is not None:
        await events_of(sink, 1)
        made = [await new_report(market.database, market.assets[0])]
    monkeypatch.setattr(reports_module, "reports_after", opened_before)
    sink = sink or await read(market.hub, after=after)
    await market.writer.tell_changes(reports=[market.assets[0]])
    await until(lambda: len(made) == 2)
    made.append(await new_report(market.database, market.assets[1]))
    await market.writer.tell_changes(reports=[market.assets[1]])
    await until(lambda: ids(sink.events)[-1:] == [made[-1].id])
    assert ids(sink.events) == [report.id for report in made]


async def test_an_asset_made_meanwhile_is_known_before_its_reports_are_told(market: Market) -> None:
    sink = await read(market.hub)
    await events_of(sink, 1)
    asset_id = await new_asset(market.database)
    await override(market.database, asset_id)
    await market.writer.tell_changes(reports=[asset_id])
    assert [item[0] for item in (await events_of(sink, 2))[1].items] == [asset_id]


async def test_a_heartbeat_says_where_the_stream_has_got_to(market: Market) -> None:
    other = await read(market.hub, asset_ids=frozenset({market.assets[1]}), heartbeat_seconds=1)
    await events_of(other, 1)
    await new_report(market.database, market.assets[0])
    await until(lambda: other.events[-1].cursor == "o1")
    assert [(each.kind, each.items) for each in other.events[1:]] == [(HEARTBEAT, [])] * (len(other.events) - 1)


async def test_reports_committed_in_another_order_than_begun_all_come(market: Market) -> None:
    first, second, _ = market.assets
    sink = await read(market.hub)
    await events_of(sink, 1)
    async with market.database.transaction() as slow:
        early = await slow.connection.fetchval("SELECT nextval(pg_get_serial_sequence('oracle_logs', 'id'))")
        quick = await new_report(market.database, second)
        await market.writer.tell_changes(reports=[second])
        await events_of(sink, 2)
        await slow.connection.execute("UPDATE stream_heads SET position = position + 1 WHERE stream = 'oracle'")
        await slow.connection.execute(
            "INSERT INTO oracle_logs (id, position, asset_id, run_id, at, method, verdict, outcome, fundamental_before,"
            " inputs) SELECT $1, position, $2, 77, now(), 'FEED', 'REJECTED', 'REJECTED', 1000000, '{}'"
            " FROM stream_heads WHERE stream = 'oracle'",
            early,
            first,
        )
        waiting = asyncio.create_task(new_report(market.database, second))
        await until_blocked(market.database)
    last = await waiting
    assert early < quick.id < last.id
    events = await events_of(sink, 3)
    await until(lambda: ids(sink.events) == [quick.id, early, last.id])
    assert [event.cursor for event in events[:2]] == ["o0", "o1"]
    assert sink.events[-1].cursor == "o3"
    resumed = await read(market.hub, after="o1")
    await until(lambda: ids(resumed.events) == [early, last.id])


async def until_blocked(database: Database) -> None:
    """Wait until some transaction waits for a lock."""
    async with asyncio.timeout(20), database.acquire() as connection:
        while not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110
            await asyncio.sleep(0.005)


# ------------------------------------------------------------------------------------------------ resuming
async def test_a_reader_resumes_without_a_snapshot_and_goes_on(market: Market) -> None:
    reports = [await new_report(market.database, market.assets[number % 3]) for number in range(7)]
    resumed = await read(market.hub, after="o2")
    await until(lambda: ids(resumed.events) == [each.id for each in reports[2:]])
    assert {event.kind for event in resumed.events} == {UPDATE}
    assert resumed.events[-1].cursor == "o7"
    one = await read(market.hub, after="o0", asset_ids=frozenset({market.assets[1]}))
    await until(lambda: ids(one.events) == [reports[1].id, reports[4].id])
    assert one.events[-1].cursor == "o7"

    for sink in (resumed, one):
        await until(lambda sink=sink: sink.reader is not None and sink.reader in sink.reader.group.hot)  # type: ignore[misc]
    came = await new_report(market.database, market.assets[1])
    await market.writer.tell_changes(reports=[market.assets[1]])
    await until(lambda: ids(resumed.events)[-1] == ids(one.events)[-1] == came.id)


async def test_a_long_replay_comes_in_pages_whose_cursors_lead_on(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports_module, "EVENT_REPORTS_MAX", 3)
    reports = [each for _ in range(5) for each in await new_reports(market.database, market.assets[:2])]
    sink = await read(market.hub, after="o0")
    await until(lambda: ids(sink.events) == [each.id for each in reports])
    assert [(len(event.items), event.cursor) for event in sink.events] == [
        (3, "o3"), (3, "o6"), (3, "o9"), (1, "o10"),
    ]  # fmt: skip


@pytest.mark.parametrize("after", ["o3", "o99999"])
async def test_who_is_too_far_behind_or_beyond_is_told_of_a_gap_and_begins_anew(
    market: Market, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    monkeypatch.setattr(reports_module, "REPLAY_POSITIONS_MAX", 2)
    reports = [await new_report(market.database, market.assets[0]) for _ in range(6)]
    sink = await read(market.hub, after=after)
    events = await events_of(sink, 2)
    assert [(each.kind, each.items, each.cursor) for each in events] == [
        (GAP, [], "o6"), (SNAPSHOT, [shown(reports[-1])], "o6"),
    ]  # fmt: skip
    assert market.hub.counts.gaps == 1
    at_the_edge = await read(market.hub, after="o4")
    await until(lambda: ids(at_the_edge.events) == [each.id for each in reports[4:]])


async def test_a_cursor_holds_in_another_process_and_without_redis(market: Market) -> None:
    before = await new_report(market.database, market.assets[0])
    sink = await read(market.hub)
    (begun,) = await events_of(sink, 1)
    assert begun.items == [shown(before)]
    while_away = await new_report(market.database, market.assets[1])
    other = Realtime(database=market.database, redis=None)
    await other.start()
    try:
        resumed = await read(other, after=begun.cursor)
        await until(lambda: ids(resumed.events) == [while_away.id])
        came = await new_report(market.database, market.assets[2])
        await until(lambda: ids(resumed.events) == [while_away.id, came.id])
    finally:
        await other.stop()


# ------------------------------------------------------------------------------------------------ readers
async def test_readers_who_read_alike_share_one_encoding_also_after_resuming(market: Market) -> None:
    encoder = Encoder()
    sinks = [await read(market.hub, encode=encoder) for _ in range(20)]
    await until(lambda: all(len(sink.payloads) == 1 for sink in sinks))
    await new_report(market.database, market.assets[0])
    await market.writer.tell_changes(reports=[market.assets[0]])
    await until(lambda: all(len(sink.payloads) == 2 for sink in sinks))
    sinks += [await read(market.hub, encode=encoder, after="o0") for _ in range(20)]
    await until(lambda: all(ids(sink.events) for sink in sinks))
    assert (market.hub.readers, market.hub.groups) == (40, 1)
    await until(lambda: all(sink.reader in sink.reader.group.hot for sink in sinks))  # type: ignore[union-attr]
    calls = encoder.calls
    await new_report(market.database, market.assets[0])
    await market.writer.tell_changes(reports=[market.assets[0]])
    await until(lambda: all(len(ids(sink.events)) == 2 for sink in sinks))
    assert encoder.calls == calls + 1
    assert len({id(sink.payloads[-1]) for sink in sinks}) == 1


async def test_a_reader_that_does_not_keep_up_gets_everything_once_it_can(market: Market) -> None:
    slow, witness = await read(market.hub, encode=Encoder(turns=3)), await read(market.hub)
    for sink in (slow, witness):
        await events_of(sink, 1)
    assert slow.reader is not None
    slow.reader.congested()
    reports = []
    for number in range(4):
        reports.append(await new_report(market.database, market.assets[number % 2]))
        await market.writer.tell_changes(reports=[market.assets[number % 2]])
        await until(lambda: len(ids(witness.events)) == len(reports))
    assert len(slow.payloads) == 1
    slow.reader.drained()
    await until(lambda: ids(slow.events) == [each.id for each in reports])
    assert [event.missed for event in slow.events] == [None] * len(slow.events)


async def test_readers_who_come_and_go_and_falter_while_events_are_encoded_get_each_report_once_in_order(
    market: Market,
) -> None:
    """Encoding waits for something, buffers run full in the middle of sending, and reports come all the while."""
    encoder = Encoder(turns=40)
    sinks: list[FakeSink] = []

    async def one_more(after: str | None) -> None:
        sink = FakeSink()
        sink.on_send = lambda: falter(sink)
        sinks.append(await read(market.hub, encode=encoder, after=after, sink=sink))

    def falter(sink: FakeSink) -> None:
        if len(sink.payloads) % 2 and sink.reader is not None:
            sink.reader.congested()
            asyncio.get_running_loop().call_later(0.003 * (len(sinks) % 4), sink.reader.drained)

    reports: list[Report] = []
    for number in range(30):
        await one_more("o0" if number % 2 else f"o{len(reports)}")
        reports += await new_reports(market.database, market.assets[: 1 + number % 3])
        await market.writer.tell_changes(reports=market.assets)
    wanted = [each.id for each in reports]
    await until(lambda: all(ids(sink.events) and ids(sink.events)[-1] == wanted[-1] for sink in sinks))
    for number, sink in enumerate(sinks):
        got = ids(sink.events)
        assert got == wanted[len(wanted) - len(got) :], number
        assert [event.position for event in sink.events] == sorted(event.position for event in sink.events)
        assert number % 2 == 0 or got == wanted
    assert {event.kind for sink in sinks for event in sink.events} == {UPDATE}


async def test_nothing_is_asked_of_the_database_while_nobody_reads(fresh_database_url: str) -> None:
    database = await Database.open(make_settings(database_url=fresh_database_url))
    counting = CountingDatabase(database)
    hub = Realtime(database=counting, redis=None)
    try:
        await hub.start()
        sink = await read(hub)
        await events_of(sink, 1)
        assert sink.reader is not None
        sink.reader.close()
        sink.reader.close()
        assert (hub.readers, hub.groups) == (0, 0)
        counting.statements.clear()
        await hub.look()
        asked = [statement for statement in counting.statements if "oracle" in statement]
        assert (asked, len(counting.statements)) == ([], 1)
    finally:
        await hub.stop()
        await database.close()


async def test_a_failing_encoder_costs_its_readers_their_connections_and_nobody_else(market: Market) -> None:
    def broken(event: Any) -> bytes:
        if event.kind is UPDATE:
            raise RuntimeError("this encoder is broken")
        return encode(event)

    bad, good = await read(market.hub, encode=broken), await read(market.hub)
    for sink in (bad, good):
        await events_of(sink, 1)
    report = await new_report(market.database, market.assets[0])
    await market.writer.tell_changes(reports=[market.assets[0]])
    await until(lambda: bad.closed_as_too_slow and ids(good.events) == [report.id])
    assert market.hub.readers == 1


async def test_one_question_reads_the_evidence_of_all_reports_of_a_snapshot(market: Market) -> None:
    for asset_id in market.assets:
        await new_report(market.database, asset_id, evidence=[page(1), page(2)])
    counting = CountingDatabase(market.database)
    hub = Realtime(database=counting, redis=None)
    await hub.start()
    try:
        counting.statements.clear()
        sink = await read(hub)
        (begun,) = await events_of(sink, 1)
        assert [item[4] for item in begun.items] == [["news1.example", "news2.example"]] * 3
        assert len([each for each in counting.statements if "oracle_evidence" in each]) == 1
        assert len([each for each in counting.statements if "oracle_logs" in each]) == 1
    finally:
        await hub.stop()
