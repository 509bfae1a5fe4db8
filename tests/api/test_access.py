"""Who may ask for what: the table covers the schema, and what it says holds for every kind of caller."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import pytest

from api.access import GATES, AccessTableIsWrong, Audience, Rule, Table, guard
from api.access_table import TABLE
from api.node_ids import node_id
from api.schema import schema
from app.accounts.principals import ANONYMOUS, AccountPrincipal, Credential, Principal, Scope
from app.db import Database
from app.exchange.settlement import Settlement
from tests.api.harness import Api
from tests.factories import new_account, new_admin, new_asset, place_order, standing


def changed(type_name: str, **rules: Rule | None) -> Table:
    """The table with other rules for fields of a type; None takes a field out."""
    audience, listed = TABLE[type_name]
    fields = {name: rule for name, rule in {**listed, **rules}.items() if rule is not None}
    return {**TABLE, type_name: (audience, fields)}


def test_a_field_that_is_not_listed_fails_the_build() -> None:
    with pytest.raises(AccessTableIsWrong, match=r"^Query\.quote is not listed$"):
        guard(schema._schema, changed("Query", quote=None))


def test_a_type_that_is_not_listed_fails_the_build() -> None:
    with pytest.raises(AccessTableIsWrong, match=r"^Fill is not listed$"):
        guard(schema._schema, {name: entry for name, entry in TABLE.items() if name != "Fill"})


def test_what_is_listed_and_gone_fails_the_build() -> None:
    with pytest.raises(AccessTableIsWrong, match=r"^Asset\.secret is listed and does not exist$"):
        guard(schema._schema, changed("Asset", secret=Rule.OPEN))
    with pytest.raises(AccessTableIsWrong, match=r"^Vault is listed and does not exist$"):
        guard(schema._schema, {**TABLE, "Vault": (Audience.EVERYBODY, {})})


@pytest.mark.parametrize("field", ["viewer", "admin", "node"])
def test_a_way_to_owned_objects_without_a_gate_fails_the_build(field: str) -> None:
    with pytest.raises(AccessTableIsWrong, match=rf"^Query\.{field} leads to what is not for everybody and is OPEN$"):
        guard(schema._schema, changed("Query", **{field: Rule.OPEN}))


def test_every_field_of_the_roots_is_open_or_has_a_gate_or_checks_itself() -> None:
    rules = {
        f"{root}.{name}": rule
        for root in ("Query", "Mutation", "Subscription")
        for name, rule in TABLE[root][1].items()
    }

    assert [name for name, rule in rules.items() if rule not in (Rule.OPEN, Rule.CHECKS_ITSELF, *GATES)] == []
    assert sorted(name for name, rule in rules.items() if rule is Rule.CHECKS_ITSELF) == ["Query.node", "Query.nodes"]
    assert sorted(name for name, rule in rules.items() if rule is Rule.OPEN and name.startswith("Mutation")) == [
        "Mutation.adminLogIn", "Mutation.logIn", "Mutation.signUp",
    ]  # fmt: skip


MUTATIONS: Final[Mapping[str, str]] = {
    "logOut": "{ ok }",
    "apiKeyCreate": '(input: { name: "x", scopes: [READ] }) { secret }',
    "apiKeyRevoke": '(id: "x") { apiKey { id } }',
    "orderPlace": '(input: { assetId: "x", side: BUY, shares: "1", clientOrderId: "x" }) { order { id } }',
    "assetRequestSubmit": ('(input: { name: "x", description: "x", idempotencyKey: "x" }) { assetRequest { id } }'),
    "devFund": '(input: { amount: "1", idempotencyKey: "x" }) { viewer { id } }',
    "assetCreate": (
        '(input: { symbol: "X", name: "x", description: "x", category: "x", idempotencyKey: "x" }) { asset { id } }'
    ),
    "assetUpdate": '(input: { assetId: "x", reason: "x" }) { asset { id } }',
    "assetSetStatus": '(input: { assetId: "x", status: OPEN, reason: "x" }) { asset { id } }',
    "assetRequestReview": '(input: { requestId: "x", approve: true }) { assetRequest { id } }',
    "accountFreeze": '(input: { accountId: "x", frozen: true, reason: "x" }) { account { id } }',
    "tradingPause": '(input: { paused: true, reason: "x" }) { platform { tradingPaused } }',
    "oracleConfigure": '(input: { assetId: "x", feeds: [], reason: "x" }) { asset { id } }',
    "oracleRun": '(assetId: "x") { queuedAt }',
    "oracleOverride": (
        '(input: { assetId: "x", fundamental: "1", reason: "x", idempotencyKey: "x" }) { report { id } }'
    ),
    "oracleQuarantineResolve": '(reportId: "x", accept: true, reason: "x") { report { id } }',
}
FOR_SESSIONS: Final = {"apiKeyCreate", "apiKeyRevoke"}
FOR_TRADE: Final = {"orderPlace", "assetRequestSubmit", "devFund"}
FOR_ADMINS: Final = MUTATIONS.keys() - FOR_SESSIONS - FOR_TRADE - {"logOut"}


def key(*scopes: Scope) -> AccountPrincipal:
    """An API key of nobody in particular: what is denied is denied before anything is looked up."""
    return AccountPrincipal(10**12, Credential("api_key", 10**12), frozenset(scopes))


def session() -> AccountPrincipal:
    return replace(key(*Scope), credential=Credential("session", 10**12))


async def denied(api: Api, name: str, principal: Principal) -> str:
    path, kind, message = await api.refusal(f"mutation {{ {name}{MUTATIONS[name]} }}", principal=principal)
    assert path == name
    assert message
    return kind


def test_the_mutations_tried_here_are_all_that_are_not_open() -> None:
    assert {name for name, rule in TABLE["Mutation"][1].items() if rule is not Rule.OPEN} == set(MUTATIONS)


@pytest.mark.parametrize("name", MUTATIONS)
async def test_without_a_log_in_it_is_unauthenticated(api: Api, name: str) -> None:
    assert await denied(api, name, ANONYMOUS) == "UNAUTHENTICATED"


@pytest.mark.parametrize("name", sorted(FOR_SESSIONS | {"logOut"}))
async def test_an_api_key_is_no_session(api: Api, name: str) -> None:
    assert await denied(api, name, key(*Scope)) == "FORBIDDEN"


@pytest.mark.parametrize("name", sorted(FOR_TRADE))
async def test_what_acts_takes_the_scope_trade(api: Api, name: str) -> None:
    assert await denied(api, name, key(Scope.READ, Scope.WITHDRAW)) == "FORBIDDEN"


@pytest.mark.parametrize("name", sorted(FOR_ADMINS))
@pytest.mark.parametrize("principal", [session(), key(*Scope)], ids=["session", "key"])
async def test_accounts_are_no_admins(api: Api, name: str, principal: Principal) -> None:
    assert await denied(api, name, principal) == "FORBIDDEN"


@pytest.mark.parametrize("name", sorted(FOR_SESSIONS | FOR_TRADE))
async def test_admins_are_no_accounts(api: Api, database: Database, name: str) -> None:
    assert await denied(api, name, await new_admin(database)) == "FORBIDDEN"


async def test_the_viewer_is_the_caller_s_account(api: Api, database: Database) -> None:
    trader = await new_account(database)
    viewer = "{ viewer { id } }"

    assert await api.data(viewer, principal=trader) == {"viewer": {"id": node_id("Account", trader.account_id)}}
    assert await api.data(viewer) == {"viewer": None}
    assert await api.data(viewer, principal=await new_admin(database)) == {"viewer": None}
    assert await api.refusal(viewer, principal=key(Scope.TRADE)) == (
        "viewer", "FORBIDDEN", "This takes the scope READ, which this API key does not have.",
    )  # fmt: skip


async def test_admin_is_null_for_everybody_else(api: Api, database: Database) -> None:
    admin = "{ admin { accounts(first: 1) { nodes { id } } } }"

    assert await api.data(admin) == {"admin": None}
    assert await api.data(admin, principal=await new_account(database)) == {"admin": None}
    assert await api.data(admin, principal=key(*Scope)) == {"admin": None}
    assert len((await api.data(admin, principal=await new_admin(database)))["admin"]["accounts"]["nodes"]) == 1


async def test_a_key_that_only_trades_sees_its_order_and_nothing_else(
    api: Api, database: Database, settlement: Settlement
) -> None:
    trader = await new_account(database, usdc="1000")
    asset_id = await new_asset(database)
    made = await api.data(
        'mutation { apiKeyCreate(input: { name: "bot", scopes: [TRADE] }) { secret } }', principal=trader
    )
    bot = await api.services.authenticator.principal(made["apiKeyCreate"]["secret"])

    result = await api.run(
        """mutation ($asset: ID!) {
             orderPlace(input: { assetId: $asset, side: BUY, shares: "1", clientOrderId: "a" }) {
               order { status asset { id } fills { shares } } asset { supply }
               position { shares } viewer { email } userErrors { code } } }""",
        {"asset": node_id("Asset", asset_id)},
        principal=bot,
    )

    assert result.data == {
        "orderPlace": {
            "order": {"status": "FILLED", "asset": {"id": node_id("Asset", asset_id)}, "fills": [{"shares": "1"}]},
            "asset": {"supply": "1"},
            "position": None,
            "viewer": None,
            "userErrors": [],
        }
    }
    errors: dict[str, Any] = {
        ".".join(map(str, error.path or ())): type(error.original_error).__name__ for error in result.errors or ()
    }
    assert errors == {"orderPlace.position": "Forbidden", "orderPlace.viewer": "Forbidden"}


async def test_a_key_that_only_reads_changes_nothing(api: Api, database: Database) -> None:
    trader = await new_account(database, usdc="10")
    asset_id = await new_asset(database)
    made = await api.data(
        'mutation { apiKeyCreate(input: { name: "eye", scopes: [READ] }) { secret } }', principal=trader
    )
    eye = await api.services.authenticator.principal(made["apiKeyCreate"]["secret"])
    before = await standing(database, account_id=trader.account_id, asset_id=asset_id)

    id_ = node_id("Asset", asset_id)
    for mutation in (
        f'orderPlace(input: {{ assetId: "{id_}", side: BUY, shares: "1", clientOrderId: "a" }}) {{ order {{ id }} }}',
        'devFund(input: { amount: "1", idempotencyKey: "a" }) { viewer { id } }',
        'apiKeyCreate(input: { name: "b", scopes: [TRADE] }) { secret }',
        f'assetSetStatus(input: {{ assetId: "{id_}", status: HALTED, reason: "b" }}) {{ asset {{ id }} }}',
    ):
        _, kind, _ = await api.refusal(f"mutation {{ {mutation} }}", principal=eye)
        assert kind == "FORBIDDEN"

    assert await standing(database, account_id=trader.account_id, asset_id=asset_id) == before
    viewer = (await api.data("{ viewer { balances { available } apiKeys { name } } }", principal=eye))["viewer"]
    assert viewer == {"balances": [{"available": "10"}, {"available": "0"}], "apiKeys": [{"name": "eye"}]}
    shown = await api.data("query ($id: ID!) { asset(id: $id) { status } }", {"id": node_id("Asset", asset_id)})
    assert shown == {"asset": {"status": "OPEN"}}


async def test_objects_are_found_by_their_owners_and_where_due_by_admins(
    api: Api, database: Database, settlement: Settlement
) -> None:
    owner, other, admin = (
        await new_account(database, usdc="1000"),
        await new_account(database),
        await new_admin(database),
    )
    asset_id = await new_asset(database, admin=admin)
    outcome = await place_order(settlement, owner, asset_id, shares="1")
    made = await api.data(
        """mutation {
             apiKeyCreate(input: { name: "bot", scopes: [READ] }) { apiKey { id } }
             assetRequestSubmit(input: { name: "x", description: "x", idempotencyKey: "x" }) {
               assetRequest { id } } }""",
        principal=owner,
    )
    entries = await api.data("{ viewer { ledger(first: 1) { nodes { id } } } }", principal=owner)
    log = await api.data("{ admin { auditLog(first: 1) { nodes { id } } } }", principal=admin)
    public = {"Asset": node_id("Asset", asset_id), "Trade": node_id("Trade", asset_id, 1)}
    owned = {
        "Order": node_id("Order", outcome.order.id),
        "Fill": node_id("Fill", outcome.trades[0].id),
        "LedgerEntry": entries["viewer"]["ledger"]["nodes"][0]["id"],
        "Account": node_id("Account", owner.account_id),
        "AssetRequest": made["assetRequestSubmit"]["assetRequest"]["id"],
        "ApiKey": made["apiKeyCreate"]["apiKey"]["id"],
    }
    of_admins = {"AuditEntry": log["admin"]["auditLog"]["nodes"][0]["id"]}
    ids = {**public, **owned, **of_admins}

    async def seen(principal: Principal) -> set[str]:
        nodes = await api.data(
            "query ($ids: [ID!]!) { nodes(ids: $ids) { __typename id } }", {"ids": list(ids.values())},
            principal=principal,
        )  # fmt: skip
        found = {node["__typename"]: node["id"] for node in nodes["nodes"] if node}
        assert found.items() <= ids.items()
        return set(found)

    assert await seen(ANONYMOUS) == set(public)
    assert await seen(other) == set(public)
    assert await seen(owner) == {*public, *owned}
    assert await seen(admin) == {*public, *owned, *of_admins} - {"ApiKey"}

    single = "query ($id: ID!) { node(id: $id) { id } }"
    assert await api.data(single, {"id": owned["Order"]}, principal=owner) == {"node": {"id": owned["Order"]}}
    assert await api.data(single, {"id": owned["Order"]}, principal=other) == {"node": None}
    for id_ in (owned["Order"], node_id("Order", 10**15)):
        assert await api.refusal(single, {"id": id_}, principal=key(Scope.TRADE)) == (
            "node", "FORBIDDEN", "This takes the scope READ, which this API key does not have.",
        )  # fmt: skip

    await api.data("mutation ($id: ID!) { apiKeyRevoke(id: $id) { apiKey { id } } }", {"id": owned["ApiKey"]},
                   principal=owner)  # fmt: skip
    assert await api.data(single, {"id": owned["ApiKey"]}, principal=owner) == {"node": None}


async def test_nodes_keeps_the_order_and_bounds_the_list(api: Api, database: Database) -> None:
    first, second = [node_id("Asset", await new_asset(database)) for _ in range(2)]
    query = "query ($ids: [ID!]!) { nodes(ids: $ids) { id } }"

    answer = await api.data(query, {"ids": [second, "x", first, second, node_id("Asset", 10**15)]})
    assert answer["nodes"] == [{"id": second}, None, {"id": first}, {"id": second}, None]
    assert len(api.statements) == 1

    assert await api.refusal(query, {"ids": ["x"] * 101}) == (
        "nodes", "BAD_USER_INPUT", "ids holds at most 100; got 101.",
    )  # fmt: skip
