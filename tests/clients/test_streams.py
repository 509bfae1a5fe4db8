"""Streams as people's own clients see them: npm's graphql-ws and graphql-sse, against an API and a price worker."""

import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from tests.clients.conftest import RunNode
from tests.clients.market import Trader, new_asset, new_trader

pytestmark = pytest.mark.clients

SEEN = TypeAdapter(dict[str, Any])


@pytest.fixture
def trader(market_url: str) -> Trader:
    return new_trader(market_url)


@pytest.fixture
def asset_id(market_url: str) -> str:
    return new_asset(market_url)


async def run(run_node: RunNode, scenario: str, url: str, **arguments: object) -> dict[str, Any]:
    """What the scenario saw."""
    return SEEN.validate_json(await run_node("streams.mjs", scenario, f"{url}/graphql", json.dumps(arguments)))


def assert_nothing_is_missed(seen: dict[str, Any], asset_id: str) -> None:
    """A snapshot and updates before the cut, no other snapshot after it, and every tick just once over the whole."""
    before, resumed = seen["before"], seen["resumed"]
    assert [order["data"]["orderPlace"]["order"]["fills"] for order in seen["orders"]] == [
        [{"tradeSeq": number}] for number in (1, 2, 3, 4)
    ]
    assert before[0]["kind"] == "SNAPSHOT"
    assert {event["kind"] for event in [*before[1:], *resumed]} <= {"UPDATE", "HEARTBEAT"}
    assert {event["missed"] for event in [*before, *resumed]} == {None}
    ticks = [tick for event in [*before, *resumed] for tick in event["ticks"]]
    seqs = [tick["seq"] for tick in ticks]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    assert {tick["assetId"] for tick in ticks} == {asset_id}
    assert [tick["tradeSeq"] for tick in ticks if tick["cause"] == "TRADE"] == [1, 2, 3, 4]


def codes(failure: dict[str, Any]) -> list[str]:
    """The codes of the errors that an operation ended with, however its client tells them."""
    errors = failure.get("errors") or failure.get("result", failure.get("body", {})).get("errors", [])
    return [error["extensions"]["code"] for error in errors]


@pytest.mark.parametrize("client", ["socket", "sse"])
async def test_queries_and_mutations_take_the_same_way(
    market_url: str, trader: Trader, run_node: RunNode, client: str
) -> None:
    seen = await run(run_node, f"{client}_operations", market_url, token=trader.token)

    assert seen["query"] == {"data": {"viewer": {"email": trader.email}}}
    assert list(seen["mutation"]["data"]["devFund"]) == ["viewer"]
    if client == "socket":
        assert codes(seen["invalid"]) == ["GRAPHQL_VALIDATION_FAILED"]
        assert (seen["sockets"], seen["closes"]) == (1, [{"code": 1000, "reason": "Normal Closure"}])


@pytest.mark.parametrize("client", ["socket", "sse"])
async def test_a_reader_who_comes_back_with_the_cursor_misses_nothing(
    *, market_url: str, trader: Trader, asset_id: str, run_node: RunNode, client: str
) -> None:
    seen = await run(run_node, f"{client}_resumes", market_url, token=trader.token, assetId=asset_id)

    assert_nothing_is_missed(seen, asset_id)
    assert seen["ended"] == ({"code": 1006} if client == "socket" else {"completed": True})


async def test_a_completed_subscription_is_silent_and_the_socket_goes_on(
    market_url: str, trader: Trader, asset_id: str, run_node: RunNode
) -> None:
    seen = await run(run_node, "socket_completes", market_url, token=trader.token, assetId=asset_id)

    assert seen["query"] == {"data": {"__typename": "Query"}}
    # Of the subscription that goes on, and of the query: none of the one that was completed.
    assert seen["ids"] == 2


@pytest.mark.parametrize("client", ["socket", "sse"])
async def test_what_cannot_be_followed_is_told_in_the_client_s_own_way(
    *, market_url: str, trader: Trader, asset_id: str, run_node: RunNode, client: str
) -> None:
    seen = await run(run_node, f"{client}_refuses", market_url, token=trader.token, assetId=asset_id)

    assert codes(seen["unknown_asset"]) == ["NOT_FOUND"]
    assert codes(seen["bad_cursor"]) == ["BAD_USER_INPUT"]
    assert codes(seen["anonymous"]) == ["UNAUTHENTICATED"]
    if client == "socket":
        assert seen["stranger"]["code"] == 4403
    else:
        assert (seen["stranger"]["status"], codes(seen["stranger"])) == (401, ["UNAUTHENTICATED"])


@pytest.mark.parametrize("client", ["socket", "sse"])
async def test_an_account_follows_its_own_orders(
    *, market_url: str, trader: Trader, asset_id: str, run_node: RunNode, client: str
) -> None:
    events = (await run(run_node, f"{client}_own_events", market_url, token=trader.token, assetId=asset_id))["events"]

    snapshot, update = events[0], events[-1]
    assert (snapshot["kind"], snapshot["seq"], snapshot["balances"][0]) == ("SNAPSHOT", 1, {"available": "1000"})
    assert (update["kind"], update["seq"], [order["status"] for order in update["orders"]]) == ("UPDATE", 2, ["FILLED"])
    # One share from a supply of 0 at slope 0.005: 1.0025, and a fee of 0.005013, rounded up.
    assert update["balances"] == [{"available": "998.992487"}]
