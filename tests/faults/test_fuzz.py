"""The whole schema under random operations, as everyone who may ask: no failure, and a code on every error."""

import asyncio
import secrets
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from graphql import GraphQLSchema, build_schema
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from app.errors import ErrorCode
from tests.conftest import ROOT, LiveApi
from tests.faults import operations
from tests.faults.client import Client, Json
from tests.faults.conftest import Say
from tests.faults.fuzzing import Case, Knowledge, cases
from tests.faults.inspection import audited
from tests.faults.population import PASSWORD, Population, populate

ANSWER_SECONDS_MAX = 10.0
RESTORED_EVERY = 20
"""After so many cases trading is open again, whatever an admin's case has closed."""
SKIPPED = {"account": ["logOut"], "admin": ["logOut"]}
"""What would end the session that all later cases need."""
FAVOURED = {
    "anonymous": ["quote", "assets", "trades"],
    "account": ["orderPlace", "devFund", "viewer"],
    "api key": ["orderPlace", "devFund", "viewer"],
    "admin": [
        "assetCreate",
        "assetUpdate",
        "assetSetStatus",
        "oracleConfigure",
        "oracleRun",
        "oracleOverride",
        "admin",
    ],
}
CODES = {
    "UNAUTHENTICATED", "FORBIDDEN", "BAD_USER_INPUT", "QUERY_TOO_COMPLEX", "BAD_REQUEST", "GRAPHQL_VALIDATION_FAILED",
    "GRAPHQL_PARSE_FAILED", "RATE_LIMITED", "PAYLOAD_TOO_LARGE", *ErrorCode,
}  # fmt: skip

_LOOK_AROUND = """
{
  assets(first: 5) { nodes { id symbol } edges { cursor } }
  trades(assetId: "ASSET", first: 3) { nodes { id } edges { cursor } }
  viewer {
    id
    orders(first: 5) { nodes { id clientOrderId fills { id } } edges { cursor } }
    fills(first: 3) { edges { cursor } }
    ledger(first: 3) { nodes { id } edges { cursor } }
    positions(first: 3) { nodes { id } edges { cursor } }
    apiKeys { id } assetRequests { id }
  }
}
"""


@dataclass
class World:
    """Who asks, what exists, and what has come back."""

    population: Population
    tokens: dict[str, str | None]
    known: Knowledge
    statuses: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    answered: int = 0
    asked: int = 0
    roots: Counter[str] = field(default_factory=Counter)


async def _build(api: LiveApi) -> World:
    population = await populate(
        api.url, traders=2, assets=[{}, {"basePrice": "5"}], funds={"USDC": 10_000, "USDT": 100}
    )
    trader, asset_id = population.traders[0], population.asset_ids[0]
    client = Client(api.url, trader.token)
    for number in range(4):
        order = {"assetId": asset_id, "side": "BUY", "shares": "3", "clientOrderId": f"seed-{number}"}
        assert (await client.run(operations.ORDER_PLACE, {"input": order})).refusals("orderPlace") == []
    wish = {"name": "Wish", "description": "To be fuzzed.", "idempotencyKey": "seed"}
    await client.run(operations.ASSET_REQUEST_SUBMIT, {"input": wish})
    key = await client.run(operations.API_KEY_CREATE, {"input": {"name": "fuzz", "scopes": ["READ", "TRADE"]}})
    seen = await client.run(_LOOK_AROUND.replace("ASSET", asset_id))
    await client.close()
    assert seen.errors == []
    spare = await client.run(operations.API_KEY_CREATE, {"input": {"name": "spare", "scopes": ["READ"]}})
    await client.close()
    tokens = {
        "anonymous": None,
        "account": trader.token,
        "api key": key.payload("apiKeyCreate")["secret"],
        "admin": population.admin_token,
    }
    return World(population, tokens, _knowledge(seen.data, population, spare.payload("apiKeyCreate")["apiKey"]["id"]))


def _knowledge(seen: Json, population: Population, spare_key: str) -> Knowledge:
    found: dict[str, list[str]] = {"id": [], "cursor": []}

    def walk(value: object, name: str = "") -> None:
        if isinstance(value, dict):
            for inner_name, inner in value.items():
                walk(inner, inner_name)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)
        elif name in found and isinstance(value, str):
            found[name].append(value)

    walk(seen)
    own_keys = {key["id"] for key in seen["viewer"]["apiKeys"]}
    ids = [each for each in found["id"] if each not in own_keys] + [spare_key, population.traders[1].account_id]
    keys = [f"k{number}" for number in range(30)]
    return Knowledge(
        ids,
        {
            "assetId": population.asset_ids, "accountId": [population.traders[1].account_id], "after": found["cursor"],
            "before": found["cursor"], "symbol": ["FUZZ", *(node["symbol"] for node in seen["assets"]["nodes"])],
            "clientOrderId": keys, "idempotencyKey": keys, "email": [population.traders[1].email, "new@example.com"],
            "password": [PASSWORD], "first": [1, 2, 50], "last": [1, 2], "amount": ["1", "2.5", "0.02"],
            "shares": ["0.5", "1"], "reason": ["a drill"], "feeRate": ["0.01"], "name": ["admin", "A name"],
        },
    )  # fmt: skip


@pytest.fixture(scope="module")
def world(live_api: LiveApi) -> World:
    """The population that is asked about and asks."""
    return asyncio.run(_build(live_api))


@pytest.fixture(scope="module")
def schema() -> GraphQLSchema:
    """The published schema."""
    return build_schema((ROOT / Path("schema.graphql")).read_text())


@pytest.fixture
def http(live_api: LiveApi) -> Iterator[httpx.Client]:
    """A plain HTTP client."""
    with httpx.Client(base_url=live_api.url, timeout=ANSWER_SECONDS_MAX) as client:
        yield client


def _restore(http: httpx.Client, world: World) -> None:
    """Open what an admin's case may have closed."""
    steps: list[tuple[str, Json]] = [(operations.TRADING_PAUSE, {"paused": False, "reason": "go on"})]
    steps += [
        (operations.ASSET_SET_STATUS, {"assetId": asset_id, "status": "OPEN", "reason": "go on"})
        for asset_id in world.population.asset_ids
    ]
    steps += [
        (operations.ACCOUNT_FREEZE, {"accountId": trader.account_id, "frozen": False, "reason": "go on"})
        for trader in world.population.traders
    ]
    for document, given_input in steps:
        reply = http.post(
            "/graphql",
            json={"query": document, "variables": {"input": given_input}},
            headers={"authorization": f"Bearer {world.tokens['admin']}"},
        )
        assert reply.status_code == 200, reply.text
        assert "errors" not in reply.json(), reply.text


def _check(case: Case, who: str, reply: httpx.Response, world: World) -> None:
    """What must hold of every answer."""
    told = f"as {who}: {case.document} with {case.variables}: {reply.status_code} {reply.text[:1000]}"
    assert reply.status_code in (200, 400, 401), told
    answer = reply.json()
    assert answer.keys() <= {"data", "errors"}, told
    assert answer, told
    for error in answer.get("errors", []):
        code = error["extensions"]["code"]
        assert code in CODES, told
        assert error["extensions"]["requestId"] == reply.headers["x-request-id"], told
        assert 0 < len(error["message"]) <= 503, told
        world.codes[code] += 1
    world.statuses[f"{who} {reply.status_code}"] += 1
    world.asked += 1
    if answer.get("data"):
        world.answered += 1
        world.roots.update(name for name in case.roots if answer["data"].get(name) is not None)
        _count_refusals(answer["data"], world)


def _count_refusals(value: object, world: World) -> None:
    if isinstance(value, dict):
        for error in value.get("userErrors") or []:
            if "code" in error:
                assert error["code"] in set(ErrorCode)
                world.refusals[error["code"]] += 1
        for inner in value.values():
            _count_refusals(inner, world)
    elif isinstance(value, list):
        for inner in value:
            _count_refusals(inner, world)


def _fuzz(http: httpx.Client, world: World, schema: GraphQLSchema, *, count: int, say: Say) -> None:
    """Send `count` cases, as everyone in turn."""
    number = secrets.randbits(32)
    say(f"seed {number}")
    asked_by = st.sampled_from(sorted(world.tokens)).flatmap(
        lambda who: st.tuples(
            st.just(who),
            cases(schema=schema, known=world.known, favoured=FAVOURED[who], skipped=SKIPPED.get(who, [])),
        )
    )

    @seed(number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(asked_by)
    def one(drawn: tuple[str, Case]) -> None:
        who, case = drawn
        token = world.tokens[who]
        headers = {"content-type": "application/json", "accept": "application/json"}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        _check(case, who, http.post("/graphql", content=case.body(), headers=headers), world)
        if world.asked % RESTORED_EVERY == 0:
            _restore(http, world)

    _restore(http, world)
    before = world.asked
    one()
    _restore(http, world)
    say(
        f"{world.asked - before} cases, {world.answered} with data; {dict(world.statuses)}; errors {dict(world.codes)};"
        f" refusals {dict(world.refusals)}; roots that answered {dict(world.roots)}"
    )
    assert world.asked - before >= count
    assert world.answered > world.asked // 4, "hardly anything was executed: it would show nothing"


async def _expect_sound(live_api: LiveApi) -> None:
    assert live_api.process.poll() is None
    assert (await audited(live_api.database_url)).findings == []


def test_200_random_operations(
    live_api: LiveApi, http: httpx.Client, world: World, schema: GraphQLSchema, say: Say
) -> None:
    _fuzz(http, world, schema, count=200, say=say)
    asyncio.run(_expect_sound(live_api))


@pytest.mark.soak
def test_3000_random_operations(
    live_api: LiveApi, http: httpx.Client, world: World, schema: GraphQLSchema, say: Say
) -> None:
    _fuzz(http, world, schema, count=3_000, say=say)
    asyncio.run(_expect_sound(live_api))
