"""Who becomes a WebSocket, and what is told to who does not."""

import json
from collections.abc import AsyncIterator
from unittest.mock import patch

import pytest

from app import http_protocol
from tests.api.sockets import PROTOCOL, Served, bare, frame, head, joined, serving, shaken, until


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving(allowed_origins=["https://app.example"]) as made:
        yield made


async def refused(served: Served, **changes: str) -> tuple[int, str, str, str]:
    """Status, code, message and head of the answer to a handshake."""
    async with bare(served.port) as raw:
        await raw.say(head(served.port, **changes))
        answer = await raw.head()
        body = json.loads(await raw.rest())
    error = body["errors"][0]
    return int(answer.split()[1]), error["extensions"]["code"], error["message"], answer.decode().lower()


@pytest.mark.parametrize("origin", ["", "https://app.example", "http://127.0.0.1:{port}", "https://127.0.0.1:{port}"])
async def test_programs_and_allowed_pages_get_in(served: Served, origin: str) -> None:
    async with shaken(served.port, Origin=origin.format(port=served.port)) as raw:
        await raw.say(frame(b'{"type":"ping"}'))

        assert await raw.hear() == (1, b'{"type":"pong"}')


async def test_the_answer_to_a_handshake_names_the_protocol_and_no_extension(served: Served) -> None:
    async with bare(served.port) as raw:
        await raw.say(head(served.port, Sec_WebSocket_Extensions="permessage-deflate"))
        answer = (await raw.head()).decode()

    assert "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer
    assert f"Sec-WebSocket-Protocol: {PROTOCOL}" in answer
    assert "extensions" not in answer.lower()
    assert "server:" not in answer.lower()


@pytest.mark.parametrize(
    ("changes", "status", "code", "message"),
    [
        ({"path": "/other"}, 404, "NOT_FOUND", "WebSockets are at /graphql, not at '/other'."),
        (
            {"Host": "evil.example"},
            421,
            "MISDIRECTED_REQUEST",
            "The host 'evil.example' is not served here: MEGATRON_ALLOWED_HOSTS lists those that are.",
        ),
        ({"Host": ""}, 421, "MISDIRECTED_REQUEST", "The host '' is not served here"),
        (
            {"Origin": "https://evil.example"},
            403,
            "FORBIDDEN",
            "Pages of 'https://evil.example' may not connect: MEGATRON_ALLOWED_ORIGINS lists those that may.",
        ),
        ({"Origin": "null"}, 403, "FORBIDDEN", "Pages of 'null' may not connect"),
        ({"Sec_WebSocket_Key": "x"}, 400, "BAD_REQUEST", "Sec-WebSocket-Key"),
        ({"Sec_WebSocket_Key": ""}, 400, "BAD_REQUEST", "Sec-WebSocket-Key"),
        ({"Sec_WebSocket_Version": "8"}, 400, "BAD_REQUEST", "Sec-WebSocket-Version"),
        ({"Sec_WebSocket_Protocol": "@@"}, 400, "BAD_REQUEST", "Sec-WebSocket-Protocol"),
    ],
)
async def test_a_handshake_that_is_refused_says_why(
    served: Served, changes: dict[str, str], status: int, code: str, message: str
) -> None:
    answered, its_code, its_message, _ = await refused(served, **changes)

    assert (answered, its_code) == (status, code)
    assert message in its_message
    assert served.application.connections.open == 0


async def test_an_address_has_so_many_connections_and_gets_their_place_back() -> None:
    async with serving(connections_per_ip=2) as served:
        async with joined(served.url), joined(served.url):
            status, code, message, answer = await refused(served)

            assert (status, code) == (429, "RATE_LIMITED")
            assert message == (
                "Too many connections: this address may have 2 at once (MEGATRON_CONNECTIONS_PER_IP); end some, or try "
                "again later."
            )
            assert "connection: close" in answer
        await until(lambda: served.application.connections.open == 0)
        async with joined(served.url):
            assert served.application.connections.open == 1


@pytest.mark.parametrize("offered", [None, "graphql-ws", "chat, graphql-ws"])
async def test_a_client_of_another_protocol_is_let_in_and_told(served: Served, offered: str | None) -> None:
    async with shaken(served.port, protocol=offered or "") as raw:
        assert await raw.ended() == (4406, "Subprotocol not acceptable: ask for graphql-transport-ws")


async def test_an_upgrade_waits_for_the_answers_before_it(served: Served) -> None:
    body = b'{"query": "{ who }"}'
    post = (
        b"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer mgs_%b\r\nContent-Length: %d\r\n\r\n%b" % (b"g" * 43, len(body), body)
    )
    async with bare(served.port) as raw:
        await raw.say(post + head(served.port))

        assert b"An upgrade must wait for the answers before it." in await raw.rest()


async def test_a_connection_may_become_a_socket_after_an_answer(served: Served) -> None:
    body = b'{"query": "{ hello }"}'
    async with bare(served.port) as raw:
        await raw.say(
            b"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        assert b"200 OK" in await raw.head()
        assert await raw.reader.readexactly(32) == b'{"data":{"hello":"hello world"}}'
        await raw.say(head(served.port))
        assert b"101 Switching Protocols" in await raw.head()
        await raw.say(frame(b'{"type":"ping"}'))

        assert await raw.hear() == (1, b'{"type":"pong"}')


async def test_a_connection_that_asks_for_nothing_in_time_is_closed() -> None:
    with patch.object(http_protocol, "FIRST_REQUEST_SECONDS", 0.05):
        async with serving() as served, bare(served.port) as silent, bare(served.port) as half:
            await half.say(head(served.port)[:60])

            assert [await raw.rest() for raw in (silent, half)] == [b"", b""]


async def test_development_is_told_in_the_acknowledgement(served: Served) -> None:
    async with joined(served.url, init=False) as client:
        assert await client.init() == {"type": "connection_ack", "payload": {"development": True}}
