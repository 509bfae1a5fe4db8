"""What admins ask: people, requests, the audit log, reconciliation, the state of the system."""

import json
from datetime import UTC, datetime

from api.node_ids import node_id
from app.accounts.principals import AdminPrincipal
from app.accounts.sign_up import NewAccount, sign_up
from app.db import Database
from app.exchange.assets import AssetStatus
from app.exchange.settlement import Settlement
from tests.api.conftest import Market
from tests.api.harness import Answer, Api
from tests.factories import LONG, new_account, new_admin, new_asset, place_order, set_status


async def named_account(database: Database, email: str) -> str:
    """The id of a new account with this address."""
    async with database.transaction() as unit:
        made = await sign_up(unit=unit, account=NewAccount(email, "no password has this hash"), session_lifetime=LONG)
    return node_id("Account", made.account_id)


async def test_accounts_are_searched_and_paged(api: Api, database: Database) -> None:
    admin = await new_admin(database)
    ids = [await named_account(database, f"s%{number}@found.example") for number in range(3)]
    query = """query ($search: String, $first: Int, $after: String) { admin {
      accounts(search: $search, first: $first, after: $after) {
        nodes { id email frozen } pageInfo { hasNextPage hasPreviousPage endCursor } } } }"""

    async def page(**variables: object) -> Answer:
        answer: Answer = (await api.data(query, {"search": " S%", **variables}, principal=admin))["admin"]["accounts"]
        return answer

    whole = await page()
    assert [node["id"] for node in whole["nodes"]] == ids[::-1]
    assert whole["nodes"][0] == {"id": ids[2], "email": "s%2@found.example", "frozen": False}
    first = await page(first=2)
    assert (first["pageInfo"]["hasNextPage"], first["pageInfo"]["hasPreviousPage"]) == (True, False)
    rest = await page(first=2, after=first["pageInfo"]["endCursor"])
    assert [node["id"] for node in rest["nodes"]] == ids[:1]
    assert (rest["pageInfo"]["hasNextPage"], rest["pageInfo"]["hasPreviousPage"]) == (False, True)
    assert (await page(search="nobody@found"))["nodes"] == []
    assert (await page(search="a\x00b"))["nodes"] == []


async def test_an_account_is_seen_with_its_money_orders_and_statement(
    api: Api, database: Database, settlement: Settlement
) -> None:
    admin, trader = await new_admin(database), await new_account(database, usdc="100")
    outcome = await place_order(settlement, trader, await new_asset(database, fee_rate="0"), shares="1")
    query = """query ($id: ID!) { admin { account(id: $id) {
      id frozen balances { currency available } orders { nodes { id status } pageInfo { hasNextPage } }
      ledger(first: 1) { nodes { reason ref } pageInfo { hasNextPage } } } } }"""

    id_ = node_id("Account", trader.account_id)
    assert (await api.data(query, {"id": id_}, principal=admin))["admin"]["account"] == {
        "id": id_,
        "frozen": False,
        "balances": [{"currency": "USDC", "available": "98.9975"}, {"currency": "USDT", "available": "0"}],
        "orders": {
            "nodes": [{"id": node_id("Order", outcome.order.id), "status": "FILLED"}],
            "pageInfo": {"hasNextPage": False},
        },
        "ledger": {
            "nodes": [{"reason": "TRADE", "ref": node_id("Trade", outcome.order.asset_id, 1)}],
            "pageInfo": {"hasNextPage": True},
        },
    }
    for nobody in ("x", node_id("Account", 10**15), node_id("Asset", 1)):
        assert await api.data(query, {"id": nobody}, principal=admin) == {"admin": {"account": None}}


async def test_requests_are_listed_by_status(api: Api, database: Database) -> None:
    admin, trader = await new_admin(database), await new_account(database)
    submitted = await api.data(
        """mutation { assetRequestSubmit(input: { name: "Snow", description: "d", idempotencyKey: "a" }) {
             assetRequest { id } } }""",
        principal=trader,
    )
    id_ = submitted["assetRequestSubmit"]["assetRequest"]["id"]
    query = """query ($status: AssetRequestStatus) { admin {
      assetRequests(status: $status, first: 1) { nodes { id name status } } } }"""

    async def newest(status: str | None) -> Answer:
        nodes = (await api.data(query, {"status": status}, principal=admin))["admin"]["assetRequests"]["nodes"]
        answer: Answer = nodes[0] if nodes else {}
        return answer

    expected = {"id": id_, "name": "Snow", "status": "PENDING"}
    assert await newest(None) == expected
    assert await newest("PENDING") == expected
    assert (await newest("APPROVED")).get("id") != id_


async def test_the_audit_log_tells_who_did_what_and_why(api: Api, database: Database) -> None:
    admin = await new_admin(database, "admin")
    asset_id = await new_asset(database)
    await set_status(database, asset_id, AssetStatus.HALTED)
    query = """{ admin { auditLog(first: 2) {
      nodes { actor action target reason before after hash at } pageInfo { hasNextPage } } } }"""

    log = (await api.data(query, principal=admin))["admin"]["auditLog"]

    newest, older = log["nodes"]
    assert (newest["actor"], newest["action"], newest["target"]) == ("admin", "assetSetStatus", f"Asset:{asset_id}")
    assert newest["reason"] == "a test"
    assert json.loads(newest["before"])["status"] == "OPEN"
    assert json.loads(newest["after"])["status"] == "HALTED"
    assert (older["action"], older["target"], older["before"]) == ("assetCreate", f"Asset:{asset_id}", None)
    assert len({newest["hash"], older["hash"]}) == 2
    assert all(len(node["hash"]) == 64 for node in log["nodes"])
    assert log["pageInfo"] == {"hasNextPage": True}


async def test_reconciliation_finds_nothing_wrong_with_an_honest_ledger(own_market: Market) -> None:
    api, database, settlement = own_market
    admin, trader = await new_admin(database), await new_account(database, usdc="100")
    await place_order(settlement, trader, await new_asset(database), shares="1")
    query = "{ admin { reconciliation { ok checkedAt transfers findings { check subject expected actual } } } }"

    before = datetime.now(UTC)
    report = (await api.data(query, principal=admin))["admin"]["reconciliation"]

    assert (report["ok"], report["findings"]) == (True, [])
    assert report["transfers"] >= 2
    assert before <= datetime.fromisoformat(report["checkedAt"]) <= datetime.now(UTC)


async def test_the_system_tells_what_it_needs_and_how_that_is(api: Api, database: Database) -> None:
    admin: AdminPrincipal = await new_admin(database)
    query = "{ admin { system { version development startedAt components { name ok detail lagSeconds } } } }"

    system = (await api.data(query, principal=admin))["admin"]["system"]

    components = {each["name"]: each["ok"] for each in system["components"]}
    assert components["database"] is True
    assert components["redis"] is False
    assert system["development"] is True
    assert datetime.fromisoformat(system["startedAt"]) == api.services.started_at
    platform = await api.data("{ platform { version } }")
    assert platform["platform"]["version"] == system["version"]
