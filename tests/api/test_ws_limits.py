"""How much one connection, address and account may ask of a socket, and what ends it."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from unittest.mock import patch

import pytest
from redis.asyncio import Redis

from app.accounts.principals import Principal
from app.errors import Unauthenticated
from app.local.valkey import EmbeddedValkey
from app.ratelimit import RateLimiter
from tests.api.edge import ALICE, GOOD_TOKEN, StubAuthenticator, done, waiting
from tests.api.readers import number
from tests.api.sockets import Client, Served, frame, joined, serving, shaken, until
from tests.conftest import make_settings

NUMBERS = "subscription { numbers }"
_addresses = count(1)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    waiting.clear()
    async with serving() as made:
        yield made


async def refusal(client: Client, id_: str, query: str = NUMBERS) -> tuple[str, str]:
    """Code and message of the error that an operation is answered with."""
    await client.subscribe(id_, query)
    message = await client.hear()
    assert (message["id"], message["type"]) == (id_, "error")
    (error,) = message["payload"]
    return error["extensions"]["code"], error["message"]


# ------------------------------------------------------------------------------------------------ how many


@pytest.mark.parametrize(
    ("setting", "whose"),
    [
        ("subscriptions_per_connection", "a connection may have 2 at once (MEGATRON_SUBSCRIPTIONS_PER_CONNECTION)"),
        ("subscriptions_per_ip", "this address may have 2 at once (MEGATRON_SUBSCRIPTIONS_PER_IP)"),
        ("subscriptions_per_account", "this account may have 2 at once (MEGATRON_SUBSCRIPTIONS_PER_ACCOUNT)"),
    ],
)
async def test_subscriptions_are_limited_and_their_places_given_back(setting: str, whose: str) -> None:
    async with serving(**{setting: 2}) as served, joined(served.url, token=GOOD_TOKEN) as client:  # type: ignore[arg-type]
        for id_ in ("a", "b"):
            await client.subscribe(id_, NUMBERS)
        await until(lambda: len(served.readers.opened) == 2)
        code, message = await refusal(client, "c")

        assert code == "RATE_LIMITED"
        assert message.startswith(f"Too many subscriptions: {whose}; ")
        await client.say({"type": "complete", "id": "a"})
        await client.subscribe("c", NUMBERS)
        await until(lambda: len(served.readers.opened) == 3)
        assert served.application.connections.subscriptions == 2
        assert await refusal(client, "d", 'subscription { numbers(how: "refused") }') == (code, message)


async def test_a_refused_subscription_takes_no_place(served: Served) -> None:
    async with joined(served.url) as client:
        await refusal(client, "a", 'subscription { numbers(how: "refused") }')

        assert served.application.connections.subscriptions == 0


async def test_an_account_has_so_many_connections_from_wherever() -> None:
    async with serving(connections_per_account=1) as served:
        async with joined(served.url, token=GOOD_TOKEN), joined(served.url), joined(served.url, init=False) as second:
            await second.say({"type": "connection_init", "payload": {"authorization": f"Bearer {GOOD_TOKEN}"}})

            assert await second.ended() == (
                1013,
                "Too many connections: this account may have 1 at once (MEGATRON_CONNECTIONS_PER_ACCOUNT); end some, "
                "or try again later.",
            )
        await until(lambda: served.application.connections.open == 0)
        async with joined(served.url, token=GOOD_TOKEN):
            assert served.application.connections.open == 1


async def test_so_many_operations_of_one_connection_are_under_way_at_once(served: Served) -> None:
    async with joined(served.url) as client, joined(served.url) as other:
        for each in range(20):
            await client.subscribe(str(each), "{ waits }")
        await until(lambda: len(waiting) == 20)

        assert await refusal(client, "x", "{ hello }") == (
            "OVERLOADED",
            "Too many operations are under way: a connection may have 20 at once.",
        )
        await other.subscribe("1", "{ hello }")
        assert (await other.hear())["type"] == "next"
        waiting[7].set_result("7")
        assert await client.hear() == {"id": "7", "type": "next", "payload": {"data": {"waits": "7"}}}
        assert await client.hear() == {"id": "7", "type": "complete"}
        await client.subscribe("7", "{ hello }")
        assert (await client.hear())["payload"] == {"data": {"hello": "hello world"}}
        assert (await client.hear())["type"] == "complete"
        for answer in waiting:
            if not answer.done():
                answer.set_result("")
        assert [(await client.hear())["type"] for _ in range(38)] == ["next", "complete"] * 19


async def test_completing_what_is_under_way_makes_no_room(served: Served) -> None:
    async with joined(served.url) as client:
        for each in range(20):
            await client.subscribe(str(each), "{ waits }")
        await until(lambda: len(waiting) == 20)
        for each in range(20):
            await client.say({"type": "complete", "id": str(each)})

        assert (await refusal(client, "0", "{ waits }"))[0] == "OVERLOADED"
        for answer in waiting:
            answer.set_result("")
        await client.say({"type": "ping"})
        assert await client.hear() == {"type": "pong"}


async def test_a_mutation_runs_to_its_end_when_its_client_has_gone(served: Served) -> None:
    async with joined(served.url) as client:
        await client.subscribe("1", "mutation { noteLate }")
        await until(lambda: len(waiting) == 1)
        await client.connection.close()
    await until(lambda: served.application.connections.open == 0)
    waiting[0].set_result("gone")
    await until(lambda: len(done) == 1)
    assert done == ["gone"]


# ------------------------------------------------------------------------------------------------ floods


@pytest.mark.parametrize("query", ["{", 'subscription { numbers(how: "refused") }'])
async def test_a_hundred_refusals_in_a_row_close(served: Served, query: str) -> None:
    async with joined(served.url) as client:
        for _ in range(100):
            await refusal(client, "1", query)
        await client.subscribe("1", "{ hello }")
        assert [(await client.hear())["type"] for _ in range(2)] == ["next", "complete"]
        for _ in range(100):
            await refusal(client, "1", query)
        await client.subscribe("1", query)

        assert await client.ended() == (4429, "Too many refused operations: 100 in a row")


async def test_ten_thousand_attempts_on_one_connection_are_cut_short(served: Served) -> None:
    async with joined(served.url) as client:

        async def attempt() -> None:
            for each in range(10_000):
                await client.subscribe(str(each), NUMBERS)

        attempting = asyncio.create_task(attempt())
        code, _ = await client.ended()
        await asyncio.wait([attempting])
        assert code == 4429
    await until(lambda: served.application.connections.subscriptions == 0)
    assert len(served.readers.opened) <= 120
    assert [reader.closed for reader in served.readers.opened] == [1] * len(served.readers.opened)


@pytest.mark.parametrize("opcode", [9, 10, 1])
async def test_more_frames_than_are_read_in_a_second_close(served: Served, opcode: int) -> None:
    async with shaken(served.port) as raw:
        payload = b'{"type":"pong"}' if opcode == 1 else b""
        await raw.say(frame(payload, opcode=opcode) * 4_100)

        assert await raw.ended() == (4429, "Too many messages: at most 2000 a second are read")


# ------------------------------------------------------------------------------------------------ rates


@pytest.fixture
async def redis(valkey: EmbeddedValkey) -> AsyncIterator[Redis]:
    client: Redis = Redis.from_url(valkey.url)
    await client.delete(f"megatron:rate:account:{ALICE.account_id}", "megatron:rate:ip:127.0.0.1")
    yield client
    await client.delete("megatron:rate:ip:127.0.0.1")
    await client.aclose()


async def test_operations_count_as_over_http(redis: Redis) -> None:
    settings = {"rate_limits": True, "redis_url": "redis://unused", "rate_limit_per_ip_minute": 8}
    limiter = RateLimiter(redis, make_settings(**settings))
    async with serving(rate_limiter=limiter, **settings) as served, joined(served.url, token=GOOD_TOKEN) as client:
        await client.subscribe("1", "{ rate items(first: 500) { nodes { name maybe } } }")
        # One point for connection_init.
        assert (await client.hear())["payload"]["data"]["rate"] == "4 3/8"
        await client.hear()
        for left in (2, 1, 0):
            await client.subscribe("1", "{ rate }")
            assert (await client.hear())["payload"] == {"data": {"rate": f"1 {left}/8"}}
            await client.hear()
        code, message = await refusal(client, "1", 'mutation { note(text: "x") }')

        assert code == "RATE_LIMITED"
        assert message.startswith("Too many requests: 8 points a minute from this address are allowed; try again in ")
        assert done == []
        async with joined(served.url, init=False) as second:
            await second.say({"type": "connection_init"})
            assert (await second.ended())[0] == 1013


# ------------------------------------------------------------------------------------------------ who


async def test_who_asks_is_looked_up_anew_for_each_operation(served: Served) -> None:
    async with joined(served.url, token=GOOD_TOKEN) as client:
        await client.subscribe("1", "{ who }")
        assert (await client.hear())["payload"] == {"data": {"who": "account 7"}}
        await client.hear()

        async def ended(_: StubAuthenticator, token: str | None) -> Principal:
            raise Unauthenticated("This token is unknown, expired or revoked: log in again.")

        with patch.object(StubAuthenticator, "principal", ended):
            for query in ("{ who }", 'mutation { note(text: "x") }', NUMBERS):
                assert await refusal(client, "1", query) == (
                    "UNAUTHENTICATED",
                    "This token is unknown, expired or revoked: log in again.",
                )
    assert (done, served.readers.opened) == ([], [])


async def test_a_subscription_is_opened_as_the_account_that_asks(served: Served) -> None:
    async with joined(served.url, token=GOOD_TOKEN) as client:
        await client.subscribe("1", NUMBERS)
        await until(lambda: len(served.readers.opened) == 1)

    assert served.readers.opened[0].principal == ALICE


# ------------------------------------------------------------------------------------------------ silence


async def test_a_peer_that_answers_no_ping_is_dropped(served: Served) -> None:
    async with shaken(served.port) as raw:
        (spoke,) = [each for each in served.application.connections._wheel if each]
        (socket,) = spoke
        for _ in range(3):
            socket.beat()
            assert await raw.hear() == (9, b"")
            await raw.say(frame(b"", opcode=10))
            await until(lambda: socket._alive)  # type: ignore[attr-defined]
        socket.beat()
        assert await raw.hear() == (9, b"")
        socket.beat()
        await until(lambda: served.application.connections.open == 0)


async def test_a_peer_that_is_still_sending_is_told_why_it_is_closed(served: Served) -> None:
    size = 10_000_000
    async with shaken(served.port) as raw:
        await raw.say(bytes((0x81, 0xFF)) + size.to_bytes(8, "big") + bytes(4))
        for _ in range(size // 100_000):
            # ConnectionError where the server has closed at once.
            await raw.say(bytes(100_000))
        assert (await raw.ended())[0] == 1009
        assert await raw.rest() == b""
    await until(lambda: served.application.connections.open == 0)


@pytest.mark.parametrize("last", [frame(b"nonsense"), frame(b"", opcode=2)])
async def test_a_peer_that_closes_in_the_same_breath_is_answered(
    served: Served, caplog: pytest.LogCaptureFixture, last: bytes
) -> None:
    async with shaken(served.port) as raw:
        await raw.say(last + frame((1000).to_bytes(2, "big") + b"bye", opcode=8))
        assert await raw.ended() == (1000, "bye")
        assert await raw.rest() == b""
    await until(lambda: served.application.connections.open == 0)
    assert caplog.records == []


async def test_a_peer_that_does_not_answer_a_close_is_dropped(served: Served) -> None:
    async with shaken(served.port) as raw:
        await raw.say(frame(b"nonsense"))
        assert (await raw.ended())[0] == 4400
        # What it still says is not read.
        await raw.say(frame(b'{"type":"ping"}'))
        (socket,) = served.application.connections._deadlines
        socket.deadline_passed()
        await until(lambda: served.application.connections.open == 0)


async def test_a_process_that_stops_tells_its_sockets_to_come_back() -> None:
    async with serving() as served, joined(served.url) as first, joined(served.url, init=False) as second:
        await first.subscribe("1", NUMBERS)
        await until(lambda: len(served.readers.opened) == 1)
        served.server.should_exit = True

        assert [await client.ended() for client in (first, second)] == [(1012, "Service restart, reconnect")] * 2
        assert served.readers.opened[0].closed == 1
        served.readers.opened[0].sink.send(number(1))
