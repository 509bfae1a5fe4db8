"""Oracles over the API: what everybody may read of them, by how many statements, and what admins do with them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.node_ids import asset_node_id, node_id
from app.accounts.principals import AdminPrincipal
from app.db import Database
from app.errors import isoformat
from app.exchange.assets import AssetStatus
from app.oracle.kinds import OracleOutcome
from tests.api.harness import Api
from tests.factories import new_account, new_admin, new_asset
from tests.factories.reports import configure, new_report, override, page

REPORT = """
  id assetId at method outcome reasons deltaPercent suggestedPrice confidence summary fundamentalBefore fundamentalAfter
  model promptHash expiresAt resolution
  evidence { url title excerpt contentHash retrievedAt value source counts bodyUrl }
"""
REPORTS = f"""query ($id: ID!, $first: Int = 20, $after: String) {{ asset(id: $id) {{
  oracle {{ method stale lastAcceptedAt nextDueAt cadenceSeconds }}
  oracleReports(first: $first, after: $after) {{
    nodes {{ {REPORT} }} edges {{ node {{ id }} cursor }}
    pageInfo {{ hasNextPage hasPreviousPage startCursor endCursor }}
  }}
}} }}"""
OF_ASSETS = """query ($ids: [ID!]) { assets(ids: $ids) { nodes {
  oracle { stale } oracleReports(first: 2) { nodes { outcome evidence { url } } }
} } }"""
NODE = f"query ($id: ID!) {{ node(id: $id) {{ id ... on OracleReport {{ {REPORT} }} }} }}"
CONFIGURE = """mutation ($input: OracleConfigureInput!) { oracleConfigure(input: $input) {
  asset { id oracle { method cadenceSeconds } } userErrors { __typename code message field } } }"""
RUN = "mutation ($id: ID!) { oracleRun(assetId: $id) { queuedAt userErrors { code message field } } }"
OVERRIDE = f"""mutation ($input: OracleOverrideInput!) {{ oracleOverride(input: $input) {{
  report {{ {REPORT} }} userErrors {{ code message field }} }} }}"""
RESOLVE = f"""mutation ($id: ID!, $accept: Boolean!, $reason: String! = "it is right") {{
  oracleQuarantineResolve(reportId: $id, accept: $accept, reason: $reason) {{
    report {{ {REPORT} }} userErrors {{ code message field }} }} }}"""


@pytest.fixture
async def admin(database: Database) -> AdminPrincipal:
    return await new_admin(database)


async def shown(api: Api, asset_id: int, **values: Any) -> dict[str, Any]:
    answer: dict[str, Any] = (await api.data(REPORTS, {"id": asset_node_id(asset_id), **values}))["asset"]
    return answer


# ------------------------------------------------------------------------------------------------ what is read
async def test_an_asset_without_an_oracle_has_neither_state_nor_reports(api: Api, database: Database) -> None:
    assert await shown(api, await new_asset(database)) == {
        "oracle": None,
        "oracleReports": {
            "nodes": [], "edges": [],
            "pageInfo": {"hasNextPage": False, "hasPreviousPage": False, "startCursor": None, "endCursor": None},
        },
    }  # fmt: skip


async def test_a_report_is_shown_with_all_that_it_rests_on(api: Api, database: Database) -> None:
    asset_id = await new_asset(database)
    await configure(database, asset_id)
    report = await new_report(
        database, asset_id, OracleOutcome.QUARANTINED, evidence=[page(1), page(2, value=None, counts=False)]
    )
    asset = await shown(api, asset_id)
    first, second = page(1), page(2, value=None, counts=False)
    common = {"retrievedAt": "2026-01-31T09:30:00Z", "bodyUrl": None}
    assert asset["oracleReports"]["nodes"] == [
        {
            "id": node_id("OracleReport", report.id),
            "assetId": asset_node_id(asset_id),
            "at": f"{report.at.isoformat().removesuffix('+00:00')}Z",
            "method": "SEARCH_LLM",
            "outcome": "QUARANTINED",
            "reasons": ["DELTA_TOO_LARGE"],
            "deltaPercent": "7.5",
            "suggestedPrice": "2",
            "confidence": "0.8",
            "summary": "It rained.",
            "fundamentalBefore": "1",
            "fundamentalAfter": None,
            "model": "a-model",
            "promptHash": "ab" * 32,
            "expiresAt": f"{(report.at + timedelta(hours=24)).isoformat().removesuffix('+00:00')}Z",
            "resolution": None,
            "evidence": [
                {
                    "url": "https://news1.example/rain", "title": "Rain 1", "source": "news1.example", "counts": True,
                    "excerpt": first.excerpt, "contentHash": first.content_hash, "value": "12.5", **common,
                },
                {
                    "url": "https://news2.example/rain", "title": "Rain 2", "source": "news2.example", "counts": False,
                    "excerpt": second.excerpt, "contentHash": second.content_hash, "value": None, **common,
                },
            ],
        }
    ]  # fmt: skip
    state = asset["oracle"]
    assert (state["method"], state["stale"], state["lastAcceptedAt"], state["cadenceSeconds"]) == (
        "SEARCH_LLM", True, None, 300,
    )  # fmt: skip
    assert state["nextDueAt"] > isoformat(datetime.now(UTC))


async def test_what_the_engine_made_of_a_report_is_shown_once_it_has_taken_it(api: Api, database: Database) -> None:
    asset_id = await new_asset(database)
    await override(database, asset_id, "3")
    async with database.transaction() as unit:
        await unit.connection.execute(
            "UPDATE oracle_events SET fundamental_after = value WHERE asset_id = $1", asset_id
        )
    asset = await shown(api, asset_id)
    (report,) = asset["oracleReports"]["nodes"]
    assert (report["fundamentalBefore"], report["fundamentalAfter"], report["evidence"]) == ("1", "3", [])
    assert (report["method"], asset["oracle"]["method"], asset["oracle"]["nextDueAt"]) == ("OVERRIDE", "OVERRIDE", None)
    assert asset["oracle"]["lastAcceptedAt"] == report["at"]


async def test_reports_come_newest_first_and_in_pages(api: Api, database: Database) -> None:
    asset_id, other = await new_asset(database), await new_asset(database)
    for each in (asset_id, other):
        await configure(database, each)
    reports = [await new_report(database, asset_id) for _ in range(5)]
    await new_report(database, other)
    wanted = [node_id("OracleReport", each.id) for each in reversed(reports)]

    seen: list[str] = []
    after, pages = None, []
    for _ in range(3):
        connection = (await shown(api, asset_id, first=2, after=after))["oracleReports"]
        assert [edge["node"]["id"] for edge in connection["edges"]] == [node["id"] for node in connection["nodes"]]
        seen += [node["id"] for node in connection["nodes"]]
        after = connection["pageInfo"]["endCursor"]
        assert after == connection["edges"][-1]["cursor"]
        pages.append((connection["pageInfo"]["hasPreviousPage"], connection["pageInfo"]["hasNextPage"]))
    assert seen == wanted
    assert pages == [(False, True), (True, True), (True, False)]
    assert [node["id"] for node in (await shown(api, asset_id, first=None))["oracleReports"]["nodes"]] == wanted
    beyond = (await shown(api, asset_id, after=after))["oracleReports"]
    assert (beyond["nodes"], beyond["pageInfo"]["hasPreviousPage"]) == ([], True)


@pytest.mark.parametrize(("values", "message"), [
    ({"first": 501}, "first must be between 0 and 500; got 501."),
    ({"first": -1}, "first must be between 0 and 500; got -1."),
    ({"after": "x"}, "after is no cursor of this list; got 'x'. Use a cursor that it gave."),
])  # fmt: skip
async def test_a_page_that_cannot_be_is_refused(
    api: Api, database: Database, values: dict[str, Any], message: str
) -> None:
    variables = {"id": asset_node_id(await new_asset(database)), **values}
    assert await api.refusal(REPORTS, variables) == ("asset.oracleReports", "BAD_USER_INPUT", message)


@pytest.mark.parametrize("assets", [1, 6])
async def test_any_number_of_assets_with_their_reports_and_evidence_takes_four_statements(
    api: Api, database: Database, assets: int
) -> None:
    asset_ids = [await new_asset(database) for _ in range(assets)]
    for asset_id in asset_ids:
        await configure(database, asset_id)
        for _ in range(3):
            await new_report(database, asset_id, evidence=[page(1), page(2)])
    answer = await api.data(OF_ASSETS, {"ids": [asset_node_id(each) for each in asset_ids]})
    report = {"outcome": "ACCEPTED", "evidence": [{"url": f"https://news{number}.example/rain"} for number in (1, 2)]}
    assert answer["assets"]["nodes"] == [
        {"oracle": {"stale": False}, "oracleReports": {"nodes": [report, report]}}
    ] * assets  # fmt: skip
    assert len(api.statements) == 4  # the page of assets, their oracles, their reports, the evidence of all of these
    await api.data("query ($ids: [ID!]) { assets(ids: $ids) { nodes { oracleReports { nodes { outcome } } } } }")
    assert not any("oracle_evidence" in statement for statement in api.statements)


async def test_a_report_is_a_node_for_whoever_may_see_its_asset(
    api: Api, database: Database, admin: AdminPrincipal
) -> None:
    asset_id = await new_asset(database)
    draft = await new_asset(database, status=AssetStatus.DRAFT)
    public, secret = [node_id("OracleReport", await override(database, each)) for each in (asset_id, draft)]
    trader = await new_account(database)

    found = (await api.data(NODE, {"id": public}))["node"]
    assert found == (await shown(api, asset_id))["oracleReports"]["nodes"][0]
    assert (await api.data(NODE, {"id": secret}))["node"] is None
    assert (await api.data(NODE, {"id": secret}, principal=trader))["node"] is None
    assert (await api.data(NODE, {"id": secret}, principal=admin))["node"]["assetId"] == asset_node_id(draft)
    for nothing in (node_id("OracleReport", 10**15), node_id("OracleReport", 1, 2), node_id("Asset", 1, 2)):
        assert (await api.data(NODE, {"id": nothing}))["node"] is None
    assert await api.data("query ($id: ID!) { asset(id: $id) { id } }", {"id": asset_node_id(draft)}) == {"asset": None}


# ------------------------------------------------------------------------------------------------ what admins do
SEARCH = {"queries": ["rain in Bergen"], "question": "How much did it rain?", "unit": "mm"}
SERIES = {"series": "seattle-weather", "column": "temp_max", "scale": "0.5", "offset": "10"}


async def configured(api: Api, admin: AdminPrincipal, asset_id: int, **values: object) -> Any:
    given = {"assetId": asset_node_id(asset_id), "reason": "a test", **values}
    return (await api.data(CONFIGURE, {"input": given}, principal=admin))["oracleConfigure"]


async def test_what_is_left_out_is_what_the_contract_says(api: Api, database: Database, admin: AdminPrincipal) -> None:
    asset_id = await new_asset(database)
    assert await configured(api, admin, asset_id, search=SEARCH) == {
        "asset": {"id": asset_node_id(asset_id), "oracle": {"method": "SEARCH_LLM", "cadenceSeconds": 300}},
        "userErrors": [],
    }
    assert await stored(database, asset_id) == (
        '{"allowed_domains":null,"kind":"search","max_delta_percent":10000000000,"min_confidence":600000000,'
        '"min_sources":2,"queries":["rain in Bergen"],"question":"How much did it rain?","unit":"mm"}'
    )
    answer = await configured(
        api, admin, asset_id, feeds=[{"url": "https://rain.example/now", "jsonPath": "$.mm"}], cadenceSeconds=9
    )
    assert answer["asset"]["oracle"] == {"method": "FEED", "cadenceSeconds": 9}
    assert await stored(database, asset_id) == (
        '{"feeds":[{"column":null,"json_path":"$.mm","max_delta_percent":10000000000,"offset":"0","scale":"1",'
        '"series":null,"twap_minutes":null,"url":"https://rain.example/now"}],"kind":"feeds","min_feeds":1}'
    )


async def stored(database: Database, asset_id: int) -> str:
    async with database.acquire() as connection:
        text = await connection.fetchval("SELECT configuration FROM oracles WHERE asset_id = $1", asset_id)
    return str(text)


@pytest.mark.parametrize(("values", "message", "field"), [
    ({"search": SEARCH, "feeds": [SERIES]}, "Give exactly one of search and feeds; got both.", ["input"]),
    ({"search": None, "feeds": None}, "Give exactly one of search and feeds; got neither.", ["input"]),
    (
        {"feeds": [SERIES, SERIES | {"scale": "0"}]},
        "scale must not be 0, for then every value is the same price; got '0'.", ["input", "feeds", "1", "scale"],
    ),
    (
        {"search": SEARCH | {"allowedDomains": ["www.yr.no"]}},
        "'www.yr.no' is not a registrable domain: write 'yr.no'.", ["input", "search", "allowedDomains", "0"],
    ),
    (
        {"feeds": [{"url": "http://169.254.169.254/", "jsonPath": "$"}]},
        "url names '169.254.169.254', an address that is link-local: feeds come from public addresses only.",
        ["input", "feeds", "0", "url"],
    ),
])  # fmt: skip
async def test_a_refusal_is_data_and_names_the_field(
    *, api: Api, database: Database, admin: AdminPrincipal, values: dict[str, Any], message: str, field: list[str]
) -> None:
    asset_id = await new_asset(database)
    assert await configured(api, admin, asset_id, **values) == {
        "asset": None,
        "userErrors": [{"__typename": "GeneralError", "code": "INVALID_INPUT", "message": message, "field": field}],
    }
    assert (await shown(api, asset_id))["oracle"] is None


async def test_a_reading_is_queued_and_refused_within_the_minute(
    api: Api, database: Database, admin: AdminPrincipal
) -> None:
    asset_id = await new_asset(database)
    variables = {"id": asset_node_id(asset_id)}
    nothing = (await api.data(RUN, variables, principal=admin))["oracleRun"]
    assert (nothing["queuedAt"], nothing["userErrors"][0]["code"]) == (None, "CONFLICT")
    await configure(database, asset_id)
    queued = (await api.data(RUN, variables, principal=admin))["oracleRun"]
    assert queued["userErrors"] == []
    assert (await shown(api, asset_id))["oracle"]["nextDueAt"] == queued["queuedAt"]
    again = (await api.data(RUN, variables, principal=admin))["oracleRun"]
    assert (again["queuedAt"], [(each["code"], each["field"]) for each in again["userErrors"]]) == (
        None, [("CONFLICT", ["assetId"])],
    )  # fmt: skip
    for nowhere in ("x", node_id("Asset", 10**15), node_id("Trade", 1, 1)):
        refused = (await api.data(RUN, {"id": nowhere}, principal=admin))["oracleRun"]
        assert refused["userErrors"] == [
            {"code": "NOT_FOUND", "message": "There is no asset with this assetId.", "field": ["assetId"]}
        ]


async def test_an_override_of_a_draft_is_a_report_and_repeats_itself(
    api: Api, database: Database, admin: AdminPrincipal
) -> None:
    asset_id = await new_asset(database, status=AssetStatus.DRAFT)
    expires_at = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)
    given = {
        "assetId": asset_node_id(asset_id), "fundamental": "12.5", "reason": "to begin",
        "idempotencyKey": f"override-{asset_id}",
        "expiresAt": f"{expires_at.isoformat().removesuffix('+00:00')}Z",
    }  # fmt: skip
    first = (await api.data(OVERRIDE, {"input": given}, principal=admin))["oracleOverride"]
    again = (await api.data(OVERRIDE, {"input": given}, principal=admin))["oracleOverride"]
    assert first["userErrors"] == []
    assert again == first
    report = first["report"]
    assert (report["method"], report["outcome"], report["suggestedPrice"], report["deltaPercent"]) == (
        "OVERRIDE", "ACCEPTED", "12.5", "1150",
    )  # fmt: skip
    assert report["expiresAt"] == given["expiresAt"]
    other = (await api.data(OVERRIDE, {"input": given | {"fundamental": "13"}}, principal=admin))["oracleOverride"]
    assert (other["report"], other["userErrors"][0]["code"]) == (None, "IDEMPOTENCY_KEY_REUSED")


async def test_a_quarantine_is_resolved_once(api: Api, database: Database, admin: AdminPrincipal) -> None:
    asset_id = await new_asset(database)
    await configure(database, asset_id)
    pending = [await new_report(database, asset_id, OracleOutcome.QUARANTINED) for _ in range(2)]
    ids = [node_id("OracleReport", each.id) for each in pending]
    for id_, accept, outcome in ((ids[0], True, "ACCEPTED"), (ids[1], False, "REJECTED")):
        resolved = await api.data(RESOLVE, {"id": id_, "accept": accept}, principal=admin)
        report = resolved["oracleQuarantineResolve"]["report"]
        assert (report["id"], report["outcome"], report["resolution"]) == (id_, outcome, outcome)
        assert report["reasons"] == ["DELTA_TOO_LARGE"]
    again = (await api.data(RESOLVE, {"id": ids[0], "accept": True}, principal=admin))["oracleQuarantineResolve"]
    assert (again["report"], again["userErrors"][0]["code"], again["userErrors"][0]["field"]) == (
        None, "CONFLICT", ["reportId"],
    )  # fmt: skip
    lost = await api.data(RESOLVE, {"id": "x", "accept": True}, principal=admin)
    assert lost["oracleQuarantineResolve"]["userErrors"][0]["code"] == "NOT_FOUND"
    mute = await api.data(RESOLVE, {"id": ids[0], "accept": True, "reason": ""}, principal=admin)
    assert mute["oracleQuarantineResolve"]["userErrors"][0]["field"] == ["reason"]
