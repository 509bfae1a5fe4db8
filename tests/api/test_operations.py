"""Every operation of graphql/operations does what it is there for, in the order that its tab proposes."""

import json
from pathlib import Path
from typing import Any

import orjson
from graphql import OperationDefinitionNode, graphql, parse

from api.context import Context
from api.node_ids import key_of, node_id
from api.schema import schema
from app.accounts.principals import ANONYMOUS, Principal
from app.db import Database
from app.exchange.settlement import Settlement
from app.oracle.kinds import OracleOutcome
from app.realtime.events import EventKind
from tests.api.conftest import Market
from tests.api.harness import Answer, Api
from tests.api.streaming import FakeRealtime, subscribe, with_realtime
from tests.conftest import ADMIN_PASSWORD
from tests.factories import new_account, new_asset, place_order
from tests.factories.reports import new_report, override

OPERATIONS = Path(__file__).resolve().parents[2] / "graphql" / "operations"
PASSWORD = "a long enough password"


class Tab:
    """A document of operations, and one caller who goes through it."""

    def __init__(self, api: Api, name: str, **values: object) -> None:
        self._api = api
        self._text = (OPERATIONS / f"{name}.graphql").read_text()
        self.given: dict[str, dict[str, Any]] = json.loads((OPERATIONS / f"{name}.variables.json").read_text())
        nodes = [node for node in parse(self._text).definitions if isinstance(node, OperationDefinitionNode)]
        self.left = {node.name.value for node in nodes if node.name}
        self.values = values
        self.principal: Principal = ANONYMOUS

    async def run(self, operation: str, **values: object) -> Answer:
        """The data of an operation, which has neither errors nor userErrors; its variables are the tab's."""
        given = self.given[operation]
        variables = {**given, **{name: value for name, value in {**self.values, **values}.items() if name in given}}
        context = Context(
            principal=self.principal, services=self._api.services, request_id="a-request", client_ip="127.0.0.1"
        )
        result = await graphql(
            schema._schema, self._text, variable_values=variables, operation_name=operation, context_value=context
        )
        assert result.errors is None, f"{operation}: {result.errors}"
        assert result.data is not None
        for payload in result.data.values():
            if isinstance(payload, dict):
                assert payload.get("userErrors", []) == [], f"{operation}: {payload}"
        self.left.discard(operation)
        return result.data

    async def follow(self, operation: str, **values: object) -> Answer:
        """A HEARTBEAT of a subscription, whose variables are the tab's; other events are tested elsewhere."""
        given = self.given[operation]
        variables = {**given, **{name: value for name, value in {**self.values, **values}.items() if name in given}}
        realtime = FakeRealtime()
        services = with_realtime(self._api.services, realtime)
        await subscribe(services, self._text, variables, principal=self.principal, name=operation)
        result = orjson.loads(await realtime.the_only().emit(kind=EventKind.HEARTBEAT))
        assert "errors" not in result, f"{operation}: {result}"
        self.left.discard(operation)
        (shown,) = result["data"].values()
        assert shown["kind"] == "HEARTBEAT", operation
        answer: Answer = shown
        return answer

    async def use(self, token: str) -> None:
        """Go on with this session or key."""
        self.principal = await self._api.services.authenticator.principal(token)


async def test_a_trader_s_tab(api: Api, database: Database) -> None:
    key_of_asset = await new_asset(database)
    await override(database, key_of_asset)
    asset_id = node_id("Asset", key_of_asset)
    tab = Tab(api, "trader", email="tab@trader.example", password=PASSWORD, assetId=asset_id)

    await tab.run("SignUp")
    await tab.use((await tab.run("LogIn"))["logIn"]["session"]["token"])
    assert (await tab.run("Trader"))["viewer"]["email"] == "tab@trader.example"
    assert (await tab.run("Fund"))["devFund"]["viewer"]["balances"][0]["available"] == "10000"
    assert (await tab.run("Assets", first=500))["assets"]["totalCount"] > 0
    assert (await tab.run("AssetDetails"))["asset"]["id"] == asset_id
    quote = (await tab.run("Quote"))["quote"]["quote"]
    bought = (await tab.run("Buy"))["orderPlace"]
    assert (bought["order"]["gross"], bought["position"]["shares"]) == (quote["gross"], quote["shares"])
    assert (await tab.run("Portfolio"))["viewer"]["positions"]["nodes"][0]["shares"] == quote["shares"]
    sale = (await tab.run("QuoteSale"))["quote"]["quote"]
    assert (await tab.run("Sell"))["orderPlace"]["order"]["gross"] == sale["gross"]
    orders = (await tab.run("Orders"))["viewer"]["orders"]["nodes"]
    assert [order["side"] for order in orders] == ["SELL", "BUY"]
    assert [trade["side"] for trade in (await tab.run("Trades"))["trades"]["nodes"]] == ["SELL", "BUY"]
    shown = (await tab.run("Readings"))["asset"]
    assert (shown["oracle"]["method"], [each["outcome"] for each in shown["oracleReports"]["nodes"]]) == (
        "OVERRIDE",
        ["ACCEPTED"],
    )
    assert len((await tab.run("Ledger"))["viewer"]["ledger"]["nodes"]) == 5
    assert (await tab.follow("LivePrices"))["ticks"] == []
    assert (await tab.follow("LiveChart"))["candles"] == []
    assert (await tab.follow("LiveTrades"))["trades"] == []
    assert (await tab.follow("LiveReadings"))["reports"] == []
    assert (await tab.follow("LiveAccount"))["balances"] == []
    await tab.run("AssetRequestSubmit")
    assert (await tab.run("MyAssetRequests"))["viewer"]["assetRequests"][0]["status"] == "PENDING"
    assert await tab.run("LogOut") == {"logOut": {"ok": True}}
    assert tab.left == set()


async def test_a_bot_s_tab(api: Api, database: Database, settlement: Settlement) -> None:
    key_of_asset = await new_asset(database)
    asset_id = node_id("Asset", key_of_asset)
    tab = Tab(api, "bot", assetId=asset_id)
    session = await new_account(database, usdc="1000")
    await place_order(settlement, await new_account(database, usdc="1000"), key_of_asset, shares="10")

    tab.principal = session
    key = (await tab.run("ApiKeyCreate"))["apiKeyCreate"]
    assert [each["id"] for each in (await tab.run("ApiKeys"))["viewer"]["apiKeys"]] == [key["apiKey"]["id"]]
    await tab.use(key["secret"])
    assert (await tab.run("Bot"))["viewer"]["id"] == node_id("Account", session.account_id)
    assert asset_id in {asset["id"] for asset in (await tab.run("Snapshot", first=500))["assets"]["nodes"]}
    quotes = await tab.run("BotQuote")
    assert quotes["buy"]["quote"]["atTradeSeq"] == 1
    placed = await tab.run("OrderPlace", ifTradeSeq=1)
    assert placed["orderPlace"]["order"]["gross"] == quotes["buy"]["quote"]["gross"]
    assert (await tab.run("OrderStatus"))["viewer"]["order"]["status"] == "FILLED"
    await tab.run("OrderPlaceSale")
    assert (await tab.run("Position"))["viewer"]["position"]["shares"] == "0"
    assert len((await tab.run("Fills"))["viewer"]["fills"]["nodes"]) == 2
    assert sorted(trade["seq"] for trade in (await tab.run("TradesAfter"))["trades"]["nodes"]) == [1, 2, 3]
    assert (await tab.follow("Ticks", assetIds=[asset_id], tickCursor="p3"))["missed"] is None
    assert (await tab.follow("Tape", assetIds=[asset_id]))["trades"] == []
    assert (await tab.follow("OwnEvents", accountCursor="e1"))["cursor"] == "p7"
    assert (await tab.follow("Listings"))["assets"] == []
    assert (await tab.run("ReportsOf"))["asset"] == {
        "oracle": None,
        "oracleReports": {"nodes": [], "pageInfo": {"hasNextPage": False, "endCursor": None}},
    }
    assert (await tab.follow("Reports", assetIds=[asset_id], reportCursor="o3"))["missed"] is None
    tab.principal = session
    await tab.run("ApiKeyRevoke", keyId=key["apiKey"]["id"])
    assert tab.left == set()


async def test_an_admin_s_tab(own_market: Market) -> None:
    api, database, _ = own_market
    trader = await new_account(database)
    tab = Tab(api, "admin", password=ADMIN_PASSWORD, accountId=node_id("Account", trader.account_id))
    submitted = await api.data(
        """mutation { assetRequestSubmit(input: { name: "Hail", description: "d", idempotencyKey: "a" }) {
             assetRequest { id } } }""",
        principal=trader,
    )

    await tab.use((await tab.run("AdminLogIn"))["adminLogIn"]["session"]["token"])
    assert (await tab.run("Admin"))["admin"]["system"]["development"] is True
    asset = {**tab.given["AssetCreate"]["asset"], "symbol": "HAIL", "idempotencyKey": "hail"}
    made = (await tab.run("AssetCreate", asset=asset))["assetCreate"]["asset"]
    tab.values["assetId"] = made["id"]
    assert made["id"] in {each["id"] for each in (await tab.run("Catalogue", first=500))["assets"]["nodes"]}
    assert (await tab.run("AssetUpdate"))["assetUpdate"]["asset"]["curve"]["feeRate"] == "0.004"
    assert (await tab.run("AssetSetStatus"))["assetSetStatus"]["asset"]["status"] == "OPEN"
    configured = (await tab.run("OracleConfigure"))["oracleConfigure"]["asset"]
    assert (configured["oracle"]["method"], configured["oracle"]["cadenceSeconds"]) == ("FEED", 5)
    assert (await tab.run("OracleRun"))["oracleRun"]["queuedAt"] is not None
    pending = await new_report(database, key_of(made["id"], "Asset") or 0, OracleOutcome.QUARANTINED)
    reports = (await tab.run("OracleReports"))["asset"]["oracleReports"]["nodes"]
    assert [report["id"] for report in reports] == [node_id("OracleReport", pending.id)]
    resolved = await tab.run("OracleQuarantineResolve", reportId=reports[0]["id"])
    assert resolved["oracleQuarantineResolve"]["report"]["resolution"] == "ACCEPTED"
    overridden = (await tab.run("OracleOverride"))["oracleOverride"]["report"]
    assert (overridden["method"], overridden["suggestedPrice"]) == ("OVERRIDE", "12.5")
    assert (await tab.follow("LiveReports"))["reports"] == []
    assert (await tab.run("TradingPause"))["tradingPause"]["platform"]["tradingPaused"] is True
    assert (await tab.run("TradingPause", paused=False))["tradingPause"]["platform"]["tradingPaused"] is False
    assert len((await tab.run("Accounts"))["admin"]["accounts"]["nodes"]) > 0
    assert (await tab.run("AccountFreeze"))["accountFreeze"]["account"]["frozen"] is True
    assert (await tab.run("Account"))["admin"]["account"]["frozen"] is True
    request_id = submitted["assetRequestSubmit"]["assetRequest"]["id"]
    queue = (await tab.run("AssetRequests", first=500))["admin"]["assetRequests"]["nodes"]
    assert request_id in {each["id"] for each in queue}
    reviewed = await tab.run("AssetRequestReview", requestId=request_id)
    assert reviewed["assetRequestReview"]["assetRequest"]["status"] == "APPROVED"
    assert (await tab.run("AuditLog"))["admin"]["auditLog"]["nodes"][0]["action"] == "assetRequestReview"
    assert (await tab.run("Reconciliation"))["admin"]["reconciliation"]["findings"] == []
    assert (await tab.follow("LiveCatalogue"))["assets"] == []
    assert await tab.run("AdminLogOut") == {"logOut": {"ok": True}}
    assert tab.left == set()
