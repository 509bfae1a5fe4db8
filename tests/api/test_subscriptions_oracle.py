"""The stream of oracle reports over the API: the bytes that are sent, to whom, and that cursors outlive a process."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from api.node_ids import asset_node_id, node_id
from app.db import Database
from app.errors import ErrorCode, Refused
from app.exchange.assets import AssetStatus
from app.local.valkey import EmbeddedValkey
from app.oracle.kinds import OracleOutcome
from app.realtime.events import Reader
from app.realtime.hub import Realtime
from app.realtime.reports import ToldReport
from app.services import Services
from tests.api.harness import Api, CountingDatabase
from tests.api.sockets import Client, joined, until
from tests.api.streaming import FakeRealtime, ListSink, event, subscribe, with_realtime
from tests.conftest import free_port, make_settings, run_api
from tests.factories import new_admin, new_asset, set_status
from tests.factories.reports import configure, new_report, override, page

DOCUMENT = """subscription ($ids: [ID!], $after: Cursor) { oracleReports(assetIds: $ids, after: $after) {
  kind cursor missed reports { id outcome evidence { url } } } }"""


@pytest.fixture
def realtime() -> FakeRealtime:
    return FakeRealtime()


@pytest.fixture
def services(api: Api, realtime: FakeRealtime) -> Services:
    return with_realtime(api.services, realtime)


# ------------------------------------------------------------------------------------------------ what is asked
async def test_what_is_asked_reaches_the_hub(services: Services, realtime: FakeRealtime, database: Database) -> None:
    asset_id = await new_asset(database)
    await subscribe(services, "subscription { oracleReports { kind } }")
    await subscribe(
        services,
        """subscription ($ids: [ID!]) { oracleReports(assetIds: $ids, after: "o17", heartbeatSeconds: 60) { kind } }""",
        {"ids": [asset_node_id(asset_id)]},
        principal=await new_admin(database),
    )
    assert realtime.asked == [
        {"asset_ids": None, "sees_drafts": False, "heartbeat_seconds": 5, "after": None},
        {"asset_ids": frozenset({asset_id}), "sees_drafts": True, "heartbeat_seconds": 60, "after": "o17"},
    ]


async def test_an_unknown_asset_and_a_strangers_draft_are_not_found_alike(api: Api, database: Database) -> None:
    draft = asset_node_id(await new_asset(database, status=AssetStatus.DRAFT))
    messages = []
    for id_ in (draft, asset_node_id(10**15), "x"):
        with pytest.raises(Refused) as refused:
            await subscribe(api.services, DOCUMENT, {"ids": [id_]})
        refusal = refused.value.refusal
        assert (refusal.code, refusal.field) == (ErrorCode.NOT_FOUND, ("assetIds",))
        messages.append(refusal.message.replace(id_, "..."))
    assert set(messages) == {"There is no asset '...'; look assets up by assets."}


@pytest.mark.parametrize("after", ["p3", "o", "o-1", "3", "o12345678901234567"])
async def test_a_cursor_of_another_stream_is_refused(
    api: Api, database: Database, own_hub: Services, after: str
) -> None:
    with pytest.raises(Refused) as refused:
        await subscribe(own_hub, DOCUMENT, {"after": after})
    refusal = refused.value.refusal
    assert (refusal.code, refusal.field) == (ErrorCode.INVALID_INPUT, ("after",))
    assert refusal.message.startswith("after must be a cursor that an event of this very subscription carried; got ")


# ------------------------------------------------------------------------------------------------ what readers get
async def test_a_report_as_it_is_sent_and_at_once(
    services: Services, realtime: FakeRealtime, database: Database
) -> None:
    asset_id = await new_asset(database)
    await configure(database, asset_id)
    report = await new_report(database, asset_id, OracleOutcome.QUARANTINED, evidence=[page(1)])
    report = replace(report, at=datetime(2026, 1, 31, 9, 31, tzinfo=UTC), expires_at=None)
    await subscribe(
        services,
        """subscription { oracleReports { kind cursor serverTime missed reports { assetId at method outcome reasons
             deltaPercent suggestedPrice confidence summary fundamentalBefore fundamentalAfter model expiresAt
             resolution evidence { url title excerpt retrievedAt value source counts } } } }""",
    )
    counting = services.database
    assert isinstance(counting, CountingDatabase)
    counting.statements.clear()

    payload = realtime.the_only().encode(event(ToldReport(report, (page(1),))))
    assert payload == (
        b'{"data":{"oracleReports":{"kind":"UPDATE","cursor":"p7","serverTime":"2026-01-31T09:30:00Z","missed":null,'
        b'"reports":[{"assetId":"%b","at":"2026-01-31T09:31:00Z","method":"SEARCH_LLM","outcome":"QUARANTINED",'
        b'"reasons":["DELTA_TOO_LARGE"],"deltaPercent":"7.5","suggestedPrice":"2","confidence":"0.8",'
        b'"summary":"It rained.","fundamentalBefore":"1","fundamentalAfter":null,"model":"a-model","expiresAt":null,'
        b'"resolution":null,"evidence":[{"url":"https://news1.example/rain","title":"Rain 1",'
        b'"excerpt":"Page 1 says that 12.5 mm of rain fell.","retrievedAt":"2026-01-31T09:30:00Z","value":"12.5",'
        b'"source":"news1.example","counts":true}]}]}}}' % asset_node_id(asset_id).encode()
    )
    assert counting.statements == []


# ------------------------------------------------------------------------------------------------ the real hub
@pytest.fixture
async def own_hub(api: Api, fresh_database_url: str) -> AsyncIterator[Services]:
    database = await Database.open(make_settings(database_url=fresh_database_url))
    hub = Realtime(database=database, redis=None)
    await hub.start()
    yield replace(api.services, database=database, realtime=hub)
    await hub.stop()
    await database.close()


def reports_of(sink: ListSink) -> list[tuple[str, str]]:
    """Kind and id of every report that was sent."""
    return [(each["kind"], report["id"]) for each in sink.events("oracleReports") for report in each["reports"]]


async def test_readers_get_the_latest_then_what_comes_and_only_admins_what_is_of_drafts(own_hub: Services) -> None:
    database = own_hub.database
    asset_id, draft = await new_asset(database), await new_asset(database, status=AssetStatus.DRAFT)
    before = [node_id("OracleReport", await override(database, each)) for each in (asset_id, draft)]
    sinks = {"nobody": ListSink(), "admin": ListSink()}
    readers: list[Reader] = [
        await subscribe(own_hub, DOCUMENT, sink=sinks["nobody"]),
        await subscribe(own_hub, DOCUMENT, sink=sinks["admin"], principal=await new_admin(database)),
    ]
    await until(lambda: all(sink.payloads for sink in sinks.values()))
    assert reports_of(sinks["nobody"]) == [("SNAPSHOT", before[0])]
    assert reports_of(sinks["admin"]) == [("SNAPSHOT", each) for each in before]

    after = [node_id("OracleReport", await override(database, each, "3")) for each in (draft, asset_id)]
    await until(lambda: ("UPDATE", after[1]) in reports_of(sinks["nobody"]))
    await until(lambda: ("UPDATE", after[1]) in reports_of(sinks["admin"]))
    assert [each for kind, each in reports_of(sinks["nobody"]) if kind == "UPDATE"] == after[1:]
    assert [each for kind, each in reports_of(sinks["admin"]) if kind == "UPDATE"] == after
    assert not any(each.encode() in payload for payload in sinks["nobody"].payloads for each in (before[1], after[0]))

    await set_status(database, draft, AssetStatus.OPEN)
    late = ListSink()
    readers.append(await subscribe(own_hub, DOCUMENT, {"ids": [asset_node_id(draft)]}, sink=late))
    await until(lambda: bool(late.payloads))
    assert reports_of(late) == [("SNAPSHOT", after[0])]
    for reader in readers:
        reader.close()


# ------------------------------------------------------------------------------------------------ real processes
async def heard(client: Client) -> dict[str, Any]:
    """The next event that is no heartbeat."""
    while True:
        message = await client.hear()
        assert "errors" not in message["payload"], message
        shown: dict[str, Any] = message["payload"]["data"]["oracleReports"]
        if shown["kind"] != "HEARTBEAT":
            return shown


async def test_a_reader_resumes_where_it_was_after_the_api_was_killed(
    fresh_database_url: str, valkey: EmbeddedValkey
) -> None:
    port = free_port()
    database = await Database.open(make_settings(database_url=fresh_database_url))
    try:
        asset_id = await new_asset(database)
        await configure(database, asset_id)
        url = f"ws://127.0.0.1:{port}/graphql"
        with run_api(database_url=fresh_database_url, redis_url=valkey.url, port=port) as api:
            async with joined(url) as client:
                await client.subscribe("1", DOCUMENT)
                assert (await heard(client))["kind"] == "SNAPSHOT"
                first = await new_report(database, asset_id, evidence=[page(4)])
                last = await heard(client)
                assert last["reports"] == [
                    {
                        "id": node_id("OracleReport", first.id), "outcome": "ACCEPTED",
                        "evidence": [{"url": "https://news4.example/rain"}],
                    }
                ]  # fmt: skip
                api.process.kill()
                await asyncio.to_thread(api.process.wait)
        missed = [await new_report(database, asset_id) for _ in range(3)]
        with run_api(database_url=fresh_database_url, redis_url=valkey.url, port=port):
            async with joined(url) as client:
                await client.subscribe("1", DOCUMENT, variables={"after": last["cursor"]})
                resumed = await heard(client)
                assert (resumed["kind"], resumed["missed"]) == ("UPDATE", None)
                assert [each["id"] for each in resumed["reports"]] == [node_id("OracleReport", m.id) for m in missed]
                live = await new_report(database, asset_id)
                assert [each["id"] for each in (await heard(client))["reports"]] == [node_id("OracleReport", live.id)]
    finally:
        await database.close()
