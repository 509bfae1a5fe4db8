"""The real process and schema over WebSockets and event streams: with a common client, until the session ends."""

import asyncio
import json
import signal
from contextlib import AsyncExitStack
from itertools import count
from typing import Any

import httpx
import pytest
from gql import Client as GqlClient
from gql import gql
from gql.client import AsyncClientSession
from gql.transport.websockets import WebsocketsTransport

from app.local.valkey import EmbeddedValkey
from tests.api.sockets import SECONDS, joined
from tests.conftest import ADMIN_PASSWORD, LiveApi, run_api

_numbers = count(1)
ASSET_EVENTS = "subscription { assetEvents { kind assets { id } } }"
SIGN_UP = 'mutation($e: String!) { signUp(input: {email: $e, password: "a long pass phrase 7"}) { session { token } } }'
LOG_OUT = "mutation { logOut { ok } }"
LOG_IN_ADMIN = "mutation($p: String!) { adminLogIn(input: {password: $p}) { session { token } } }"


class Person:
    """An account with a session on the live API."""

    def __init__(self, api: LiveApi) -> None:
        self.url = api.url
        self.socket_url = api.url.replace("http://", "ws://") + "/graphql"
        self.token: str | None = None

    async def ask(self, query: str, token: str | None = None, **variables: object) -> Any:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        async with httpx.AsyncClient(base_url=self.url, timeout=SECONDS) as http:
            answer = await http.post("/graphql", json={"query": query, "variables": variables}, headers=headers)
        body = answer.json()
        assert "errors" not in body, body
        return body["data"]

    async def sign_up(self) -> str:
        data = await self.ask(SIGN_UP, e=f"socket-{next(_numbers)}@example.com")
        self.token = data["signUp"]["session"]["token"]
        return str(self.token)


@pytest.fixture
async def person(live_api: LiveApi) -> Person:
    made = Person(live_api)
    await made.sign_up()
    return made


async def test_a_common_client_queries_mutates_and_subscribes(person: Person) -> None:
    transport = WebsocketsTransport(
        person.socket_url,
        init_payload={"authorization": f"Bearer {person.token}"},
        subprotocols=[WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL],
        connect_args={"proxy": None},
    )
    async with asyncio.timeout(SECONDS), GqlClient(transport=transport) as session:
        assert isinstance(session, AsyncClientSession)
        funded = await session.execute(
            gql('mutation { devFund(input: {amount: "12.5", idempotencyKey: "gql"}) { userErrors { message } } }')
        )
        balances = await session.execute(gql("{ viewer { balances { currency available } } }"))
        events = session.subscribe(gql(ASSET_EVENTS))
        first = await anext(events)
        await events.aclose()
        again = await session.execute(gql("{ viewer { email } }"))

    assert funded == {"devFund": {"userErrors": []}}
    assert {"currency": "USDC", "available": "12.5"} in balances["viewer"]["balances"]
    assert first["assetEvents"]["kind"] == "SNAPSHOT"
    assert again["viewer"]["email"].startswith("socket-")


# ------------------------------------------------------------------------------------------------ sessions that end


async def test_who_logs_out_over_a_socket_loses_all_sockets_of_the_session(person: Person) -> None:
    async with (
        joined(person.socket_url, token=person.token) as first,
        joined(person.socket_url, token=person.token) as second,
        joined(person.socket_url) as anonymous,
    ):
        await first.subscribe("1", LOG_OUT)
        message = await first.hear()
        assert message["payload"] == {"data": {"logOut": {"ok": True}}}
        ended = [await client.ended() for client in (first, second)]

        assert ended == [(4401, "Session ended: log in again")] * 2
        await anonymous.say({"type": "ping"})
        assert await anonymous.hear() == {"type": "pong"}


async def test_a_revoked_key_loses_its_socket_and_the_session_keeps_its_own(person: Person) -> None:
    made = await person.ask(
        'mutation { apiKeyCreate(input: {name: "k", scopes: [READ]}) { apiKey { id } secret userErrors { message } } }',
        person.token,
    )
    key = made["apiKeyCreate"]
    async with (
        joined(person.socket_url, token=key["secret"]) as bot,
        joined(person.socket_url, token=person.token) as session,
    ):
        await person.ask(
            "mutation($i: ID!) { apiKeyRevoke(id: $i) { userErrors { message } } }", person.token, i=key["apiKey"]["id"]
        )
        assert await bot.ended() == (4401, "Session ended: log in again")
        await session.say({"type": "ping"})
        assert await session.hear() == {"type": "pong"}


async def test_an_admin_who_logs_out_loses_the_socket(person: Person) -> None:
    token = (await person.ask(LOG_IN_ADMIN, p=ADMIN_PASSWORD))["adminLogIn"]["session"]["token"]
    async with joined(person.socket_url, token=token) as admin:
        await person.ask(LOG_OUT, token)

        assert await admin.ended() == (4401, "Session ended: log in again")


async def test_an_event_stream_says_that_its_session_has_ended(person: Person) -> None:
    headers = {"authorization": f"Bearer {person.token}", "accept": "text/event-stream"}
    async with (
        httpx.AsyncClient(base_url=person.url, timeout=SECONDS) as http,
        http.stream("POST", "/graphql", json={"query": ASSET_EVENTS}, headers=headers) as response,
    ):
        assert response.status_code == 200
        await person.ask(LOG_OUT, person.token)
        text = "".join([chunk async for chunk in response.aiter_text()])

    *_, last, complete, end = text.split("\n\n")
    assert (complete, end) == ("event: complete\ndata: ", "")
    event, data = last.split("\n")
    error = json.loads(data.removeprefix("data: "))["errors"][0]
    assert (event, error["extensions"]["code"]) == ("event: next", "UNAUTHENTICATED")
    assert error["message"] == "The session has ended: log in again."


# ------------------------------------------------------------------------------------------------ the process ends


async def test_a_process_that_is_told_to_stop_ends_its_sockets_and_itself_in_time(
    fresh_database_url: str, valkey: EmbeddedValkey
) -> None:
    with run_api(database_url=fresh_database_url, redis_url=valkey.url) as api:
        url = api.url.replace("http://", "ws://") + "/graphql"
        headers = {"accept": "text/event-stream"}
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(joined(url)) for _ in range(100)]
            for client in clients:
                await client.subscribe("1", ASSET_EVENTS)
                assert (await client.hear())["type"] == "next"
            http = await stack.enter_async_context(httpx.AsyncClient(base_url=api.url, timeout=SECONDS))
            stream = await stack.enter_async_context(
                http.stream("POST", "/graphql", json={"query": ASSET_EVENTS}, headers=headers)
            )
            api.process.send_signal(signal.SIGTERM)

            assert [await client.ended() for client in clients] == [(1012, "Service restart, reconnect")] * 100
            text = "".join([chunk async for chunk in stream.aiter_text()])
            assert text.endswith(": the service restarts, reconnect\n\n")
        assert await asyncio.to_thread(api.process.wait, 10) == 0
