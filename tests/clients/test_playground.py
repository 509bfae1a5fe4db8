"""The playground in a real, headless Chromium: what a person sees and clicks, and what the API is then sent."""

import json
import re
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from graphql import OperationDefinitionNode, parse
from pydantic import BaseModel

from tests.clients.conftest import RunNode
from tests.clients.market import new_asset, new_trader

pytestmark = [pytest.mark.clients, pytest.mark.usefixtures("playground")]

PROJECT = Path(__file__).resolve().parents[2]
OPERATIONS = PROJECT / "graphql" / "operations"


class Request(BaseModel):
    operation_name: str | None
    query: str
    variables: dict[str, object]
    authorization: str | None
    clicked: str | None


class Seen(BaseModel):
    """What every scenario reports of the page."""

    hosts: list[str]
    errors: list[str]
    requests: list[Request]

    def sent(self) -> list[Request]:
        """The requests but those for the schema."""
        return [request for request in self.requests if request.operation_name != "IntrospectionQuery"]

    def assert_alone_and_sound(self, api_url: str) -> None:
        """No other host was asked for anything; no error was logged, nor anything that the page's policy refused."""
        assert self.hosts == [urlsplit(api_url).netloc]
        assert self.errors == []


class Opened(Seen):
    title: str
    tabs: list[str]
    documents: dict[str, list[str]]
    status: str


class Answered(Seen):
    answer: object


class SignedUp(Seen):
    token: str
    viewers: list[dict[str, object] | None]


class Subscribed(Seen):
    inits: list[object]
    answers: list[object]


class Streamed(Seen):
    events: list[dict[str, Any]]


def operation_names(document: str) -> list[str]:
    definitions = parse((OPERATIONS / f"{document}.graphql").read_text()).definitions
    return [node.name.value for node in definitions if isinstance(node, OperationDefinitionNode) and node.name]


async def test_opens_with_a_tab_for_each_document_of_operations(api_url: str, chromium: str, run_node: RunNode) -> None:
    seen = Opened.model_validate_json(await run_node("playground.mjs", "opens", api_url, chromium))

    assert seen.title == "Megatron playground"
    assert seen.tabs == ["Trader", "Admin", "Bot"]
    assert seen.documents == {name: operation_names(name.lower()) for name in seen.tabs}
    assert seen.status == "This tab is anonymous: it sends no authorization header."
    seen.assert_alone_and_sound(api_url)


async def test_a_query_that_is_clicked_through_carries_the_headers_tab(
    api_url: str, chromium: str, run_node: RunNode
) -> None:
    operation = "query Mine { __typename platform { __typename } }"
    arguments = json.dumps({"operation": operation, "headers": {"X-Clicked": "yes"}})

    seen = Answered.model_validate_json(await run_node("playground.mjs", "query", api_url, chromium, arguments))

    assert seen.answer == {"data": {"__typename": "Query", "platform": {"__typename": "Platform"}}}
    assert seen.sent() == [
        Request(operation_name="Mine", query=operation, variables={}, authorization=None, clicked="yes")
    ]
    seen.assert_alone_and_sound(api_url)


async def test_a_session_is_used_in_the_tab_that_took_it_and_survives_a_reload(
    api_url: str, chromium: str, run_node: RunNode
) -> None:
    credentials = {"email": f"playground-{secrets.token_hex(8)}@example.com", "password": secrets.token_urlsafe(24)}

    output = await run_node("playground.mjs", "session", api_url, chromium, json.dumps(credentials))

    seen = SignedUp.model_validate_json(output)
    authorization = f"Bearer {seen.token}"
    assert [(request.operation_name, request.authorization) for request in seen.sent()] == [
        ("SignUp", None),
        ("Trader", authorization),
        ("Trader", authorization),
        ("Bot", None),
    ]
    sign_up = seen.sent()[0]
    assert sign_up.variables == credentials
    assert re.findall(r"(?:query|mutation) \w+", sign_up.query) == ["mutation SignUp"]
    assert [viewer and viewer["email"] for viewer in seen.viewers] == [credentials["email"], credentials["email"], None]
    seen.assert_alone_and_sound(api_url)


async def test_a_subscription_opens_a_socket_with_the_headers_of_its_run(
    api_url: str, chromium: str, run_node: RunNode
) -> None:
    arguments = json.dumps({"tokens": ["one", "two"]})

    seen = Subscribed.model_validate_json(
        await run_node("playground.mjs", "subscription", api_url, chromium, arguments)
    )

    assert seen.inits == [{"authorization": "Bearer one"}, {"authorization": "Bearer two"}]
    assert seen.answers == [{"data": {"tick": 1}}, {"data": {"tick": 2}}]
    assert seen.sent() == []
    seen.assert_alone_and_sound(api_url)


async def test_the_tab_s_subscriptions_stream_with_the_token_of_its_headers(
    market_url: str, chromium: str, run_node: RunNode
) -> None:
    trader, asset_id = new_trader(market_url), new_asset(market_url)
    arguments = json.dumps({"token": trader.token, "assetId": asset_id})

    seen = Streamed.model_validate_json(await run_node("playground.mjs", "streams", market_url, chromium, arguments))

    begun, traded, ticked, own = [next(iter(event.values())) for event in seen.events]
    assert begun == {"kind": "SNAPSHOT", "trades": []}
    assert [(trade["seq"], trade["gross"]) for trade in traded["trades"]] == [(1, "1.0025")]
    (tick,) = [each for each in ticked["ticks"] if each["assetId"] == asset_id]
    assert (ticked["kind"], tick["cause"], tick["market"]) == ("UPDATE", "TRADE", "1.01")
    assert (own["kind"], own["seq"]) == ("SNAPSHOT", 3)
    assert [position["shares"] for position in own["positions"]] == ["2"]
    assert seen.sent() == []
    seen.assert_alone_and_sound(market_url)


async def test_the_playground_keeps_to_its_types(run_node: RunNode) -> None:
    compiler = PROJECT / "web" / "node_modules" / "typescript" / "bin" / "tsc"

    assert await run_node(compiler, "--noEmit", "--project", str(PROJECT / "web")) == b""
