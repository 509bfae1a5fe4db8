"""graphql-transport-ws to the letter: each message, each close code, and nothing after the end."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from api.websocket import BACKLOG_BYTES_MAX
from tests.api.edge import FAILING_TOKEN, GOOD_TOKEN, done
from tests.api.readers import number, sized
from tests.api.sockets import Client, Served, frame, joined, serving, shaken, until

NUMBERS = "subscription { numbers }"


@pytest.fixture(scope="module")
async def module_served() -> AsyncIterator[Served]:
    async with serving() as made:
        yield made


@pytest.fixture
def served(module_served: Served) -> Served:
    done.clear()
    module_served.readers.opened.clear()
    module_served.readers.asked.clear()
    module_served.readers.go.clear()
    return module_served


@pytest.fixture
async def client(served: Served) -> AsyncIterator[Client]:
    async with joined(served.url) as made:
        yield made


def numbers(how: str) -> str:
    return f'subscription {{ numbers(how: "{how}") }}'


# ------------------------------------------------------------------------------------------------ introduction


@pytest.mark.parametrize(
    ("payload", "who"),
    [
        (None, "nobody"),
        ({}, "nobody"),
        ({"authorization": None}, "nobody"),
        ({"authorization": f"Bearer {GOOD_TOKEN}"}, "account 7"),
        ({"Authorization": f"bearer {GOOD_TOKEN}"}, "account 7"),
        ({"AUTHORIZATION": f"Bearer {GOOD_TOKEN}", "other": 1}, "account 7"),
    ],
)
async def test_a_client_is_who_its_connection_init_says(
    served: Served, payload: dict[str, object] | None, who: str
) -> None:
    async with joined(served.url, init=False) as client:
        assert (await client.init(payload))["type"] == "connection_ack"
        await client.subscribe("1", "{ who }")

        assert await client.hear() == {"id": "1", "type": "next", "payload": {"data": {"who": who}}}
        assert await client.hear() == {"id": "1", "type": "complete"}


@pytest.mark.parametrize(
    ("authorization", "code", "reason"),
    [
        ("Bearer mgs_" + "u" * 43, 4403, "This token is unknown, expired or revoked: log in again."),
        ("Basic abc", 4403, 'authorization must be "Bearer" and a token, as in "Bearer mgs_..."'),
        ("", 4403, 'authorization must be "Bearer" and a token, as in "Bearer mgs_..."'),
        ("Bearer é", 4403, 'authorization must be "Bearer" and a token, as in "Bearer mgs_..."'),
        (f"Bearer {FAILING_TOKEN}", 1013, "Try again later: nobody can say now who you are"),
        (7, 4400, "authorization must be a string, not a number"),
    ],
)
async def test_a_token_that_does_not_hold_closes(served: Served, authorization: object, code: int, reason: str) -> None:
    async with joined(served.url, init=False) as client:
        await client.say({"type": "connection_init", "payload": {"authorization": authorization}})

        assert await client.ended() == (code, reason)


async def test_no_operation_before_the_acknowledgement(served: Served) -> None:
    async with joined(served.url, init=False) as client:
        await client.subscribe("1", 'mutation { note(text: "x") }')

        assert await client.ended() == (4401, "Unauthorized: say connection_init, and wait for connection_ack")
    async with joined(served.url, init=False) as client:
        # Both come before the token has been looked up.
        await client.say({"type": "connection_init", "payload": {"authorization": f"Bearer {GOOD_TOKEN}"}})
        await client.subscribe("1", 'mutation { note(text: "x") }')

        assert (await client.ended())[0] == 4401
    assert done == []


async def test_one_connection_init_only(served: Served, client: Client) -> None:
    await client.say({"type": "connection_init"})

    assert await client.ended() == (4429, "Too many initialisation requests")
    async with joined(served.url, init=False) as second:
        await second.say({"type": "connection_init"})
        await second.say({"type": "connection_init"})

        assert (await second.ended())[0] == 4429


async def test_who_does_not_introduce_itself_is_closed() -> None:
    async with (
        serving(connection_init_seconds=1) as served,
        joined(served.url) as introduced,
        joined(served.url, init=False) as silent,
    ):
        assert await silent.ended() == (4408, "Connection initialisation timeout")
        await introduced.say({"type": "ping"})
        assert await introduced.hear() == {"type": "pong"}


# ------------------------------------------------------------------------------------------------ bad messages


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("", "The message is not JSON: Expecting value at line 1 column 1."),
        ("nonsense", "The message is not JSON: Expecting value at line 1 column 1."),
        ('{"type":"ping"', "The message is not JSON: Expecting ',' delimiter at line 1 column 15."),
        ("NaN", "The message is not JSON: NaN is not JSON."),
        ('{"type":"ping","payload":{"a":Infinity}}', "The message is not JSON: Infinity is not JSON."),
        ("[1]", "The message must be an object, not an array"),
        ('"x"', "The message must be an object, not a string"),
        ("null", "The message must be an object, not null"),
        ("1" * 6_000, "The message must be an object, not a number"),
        ("{}", "The message has no type"),
        ('{"type":null}', "The message has no type"),
        ('{"type":["ping"]}', "The message's type must be a string, not an array"),
        ('{"type":"start"}', "The message's type is unknown: 'start'"),
        ('{"type":"next","id":"1","payload":{}}', "The message's type is unknown: 'next'"),
        ('{"type":"connection_ack"}', "The message's type is unknown: 'connection_ack'"),
        ('{"type":"ping","payload":1}', "The payload of ping must be an object, not a number"),
        ('{"type":"pong","payload":[]}', "The payload of pong must be an object, not an array"),
        (
            '{"type":"ping","payload":{"a":"\\u0000"}}',
            "The message has the escape \\u0000, which stands for no character.",
        ),
        (
            '{"type":"ping","payload":{"a":"\\ud800"}}',
            "The message has the escape \\ud800, which stands for no character.",
        ),
        ('{"type":"subscribe","payload":{"query":"{a}"}}', "The message's id must be a string; it is missing"),
        ('{"type":"subscribe","id":1,"payload":{"query":"{a}"}}', "The message's id must be a string; it is a number"),
        (
            f'{{"type":"ping","payload":{{"a":{"1" * 30}}}}}',
            "The payload of ping cannot be sent back: Integer exceeds 64-bit range",
        ),
        ('{"type":"subscribe","id":null,"payload":{}}', "The message's id must be a string; it is null"),
        ('{"type":"subscribe","id":{},"payload":{}}', "The message's id must be a string; it is an object"),
        ('{"type":"subscribe","id":"","payload":{}}', "The message's id must have 1 to 128 characters; it has 0"),
        (
            f'{{"type":"subscribe","id":"{"x" * 129}","payload":{{}}}}',
            "The message's id must have 1 to 128 characters; it has 129",
        ),
        ('{"type":"subscribe","id":"1"}', "The payload of subscribe must be an object; it is missing"),
        ('{"type":"subscribe","id":"1","payload":null}', "The payload of subscribe must be an object; it is null"),
        ('{"type":"subscribe","id":"1","payload":"{a}"}', "The payload of subscribe must be an object; it is a string"),
        (
            '{"type":"subscribe","id":"1","payload":{}}',
            "The parameter query must be a string, the GraphQL document; it is missing.",
        ),
        (
            '{"type":"subscribe","id":"1","payload":{"query":null}}',
            "The parameter query must be a string, the GraphQL document; it is null.",
        ),
        (
            '{"type":"subscribe","id":"1","payload":{"query":"{a}","variables":[]}}',
            "The parameter variables must be an object or null, not an array.",
        ),
        (
            '{"type":"subscribe","id":"1","payload":{"query":"{a}","operationName":1}}',
            "The parameter operationName must be a string or null, not a number.",
        ),
        (
            '{"type":"subscribe","id":"1","payload":{"query":"{a}","extensions":1}}',
            "The parameter extensions must be an object or null, not a number.",
        ),
        ('{"type":"complete"}', "The message's id must be a string; it is missing"),
        ('{"type":"complete","id":2}', "The message's id must be a string; it is a number"),
    ],
)
async def test_a_bad_message_closes_and_says_what_was_bad(
    served: Served, client: Client, message: str, reason: str
) -> None:
    await client.say(message)

    assert await client.ended() == (4400, reason)
    await until(lambda: served.application.connections.open == 0)


@pytest.mark.parametrize("payload", [1, "x", [], True])
async def test_the_payload_of_connection_init_is_an_object(served: Served, payload: object) -> None:
    async with joined(served.url, init=False) as client:
        await client.say({"type": "connection_init", "payload": payload})
        code, reason = await client.ended()

    assert code == 4400
    assert reason.startswith("The payload of connection_init must be an object, not a")


async def test_a_deep_message_closes_and_its_reason_fits_a_frame(client: Client) -> None:
    await client.say('{"type":' + "[" * 20_000 + "]" * 20_000 + "}")

    assert await client.ended() == (4400, "The message is nested too deeply.")


async def test_a_long_reason_is_cut_between_characters(client: Client) -> None:
    await client.say({"type": "\N{SNOWMAN}" * 200})
    code, reason = await client.ended()

    assert code == 4400
    assert reason == "The message's type is unknown: '" + "\N{SNOWMAN}" * 30


async def test_keys_that_come_twice_mean_the_last(client: Client) -> None:
    await client.say('{"type":"nonsense","type":"ping"}')

    assert await client.hear() == {"type": "pong"}


async def test_binary_messages_are_refused(client: Client) -> None:
    await client.say(b'{"type":"ping"}')

    assert await client.ended() == (4400, "Messages are text: this one is binary")


async def test_pings_are_answered_with_their_payload_and_pongs_taken(client: Client) -> None:
    await client.say({"type": "pong"})
    await client.say({"type": "pong", "payload": {"a": 1}})
    await client.say({"type": "ping", "payload": None})
    assert await client.hear() == {"type": "pong"}
    await client.say('{"type":"ping","payload":{"a":[1,null,"é",1.50,1e400]}}')
    assert await hear_text(client) == '{"type":"pong","payload":{"a":[1,null,"é",1.50,1e400]}}'
    await (await client.connection.ping(b"anything"))


# ------------------------------------------------------------------------------------------------ single results


async def test_a_mutation_is_done_once_and_told_once(client: Client) -> None:
    query = "mutation Note($t: String!) { note(text: $t) } query Other { hello }"
    await client.subscribe("m", query, operationName="Note", variables={"t": "é"}, extensions={})

    assert await client.hear() == {"id": "m", "type": "next", "payload": {"data": {"note": "é"}}}
    assert await client.hear() == {"id": "m", "type": "complete"}
    assert done == ["é"]


async def test_field_errors_come_with_the_data(client: Client) -> None:
    await client.subscribe("1", '{ hello fails(how: "forbidden") }')
    message = await client.hear()

    assert message["type"] == "next"
    assert message["payload"]["data"] == {"hello": "hello world", "fails": None}
    (error,) = message["payload"]["errors"]
    assert (error["extensions"]["code"], error["path"]) == ("FORBIDDEN", ["fails"])
    assert await client.hear() == {"id": "1", "type": "complete"}


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("{", "GRAPHQL_PARSE_FAILED"),
        ("{ nosuch }", "GRAPHQL_VALIDATION_FAILED"),
        ("subscription { nosuch }", "GRAPHQL_VALIDATION_FAILED"),
        ("query($n: String!) { hello(name: $n) }", "BAD_USER_INPUT"),
        ("query A { hello } query B { hello }", "OPERATION_RESOLUTION_FAILED"),
        ("{ items(first: 501) { nodes { name } } }", "QUERY_TOO_COMPLEX"),
        (numbers("forbidden"), "FORBIDDEN"),
        (numbers("refused"), "NOT_FOUND"),
        (numbers("invalid"), "BAD_USER_INPUT"),
        (numbers("coded"), "BAD_USER_INPUT"),
        (numbers("broken"), "INTERNAL_SERVER_ERROR"),
    ],
)
async def test_what_is_not_executed_is_told_by_error_alone(client: Client, query: str, code: str) -> None:
    await client.subscribe("e", query)
    message = await client.hear()

    assert (message["id"], message["type"]) == ("e", "error")
    (error,) = message["payload"]
    assert error["extensions"]["code"] == code
    assert error["extensions"]["requestId"]
    assert "secret" not in error["message"]
    # No complete follows, and the id is free again.
    await client.subscribe("e", "{ hello }")
    assert (await client.hear())["payload"] == {"data": {"hello": "hello world"}}


async def test_what_cannot_be_encoded_is_an_error_of_its_own(client: Client) -> None:
    await client.subscribe("1", "{ unencodable }")
    message = await client.hear()

    assert (message["type"], message["payload"][0]["extensions"]["code"]) == ("error", "INTERNAL_SERVER_ERROR")


async def test_bad_amounts_are_refused_as_over_http(client: Client) -> None:
    for literal, quoted in (("1.50", "1.50"), ("1" * 5_000, "1111"), ("1e400", "1e400"), ('"NaN"', "NaN")):
        variables = f'{{"order": {{"shares": {literal}}}}}'
        query = json.dumps("mutation($order: OrderInput!) { place(order: $order) }")
        await client.say(f'{{"type":"subscribe","id":"1","payload":{{"query":{query},"variables":{variables}}}}}')
        message = await client.hear()

        assert (message["type"], message["payload"][0]["extensions"]["code"]) == ("error", "BAD_USER_INPUT")
        assert quoted in message["payload"][0]["message"]
    assert done == []


# ------------------------------------------------------------------------------------------------ subscriptions


async def test_a_subscription_says_what_it_is_given_until_its_client_completes(served: Served, client: Client) -> None:
    await client.subscribe("s", NUMBERS)
    await until(lambda: len(served.readers.opened) == 1)
    (reader,) = served.readers.opened
    for value in (1, 2):
        reader.sink.send(number(value))
        assert await client.hear() == {"id": "s", "type": "next", "payload": {"data": {"numbers": value}}}
    assert served.application.connections.subscriptions == 1
    await client.say({"type": "complete", "id": "s"})
    await until(lambda: reader.closed == 1)
    reader.sink.send(number(3))
    reader.sink.complete()
    await client.say({"type": "ping"})

    assert await client.hear() == {"type": "pong"}
    assert served.application.connections.subscriptions == 0


async def test_ids_may_be_used_again_after_either_side_has_completed(served: Served, client: Client) -> None:
    for ended_by in ("client", "server", "client"):
        await client.subscribe("s", NUMBERS)
        await until(lambda: len(served.readers.opened) == 1)
        reader = served.readers.opened.pop()
        reader.sink.send(number(5))
        assert (await client.hear())["type"] == "next"
        if ended_by == "server":
            reader.sink.complete()
            reader.sink.complete()
            reader.sink.send(number(6))
            assert await client.hear() == {"id": "s", "type": "complete"}
        else:
            await client.say({"type": "complete", "id": "s"})
            await until(lambda reader=reader: reader.closed == 1)  # type: ignore[misc]
        assert reader.closed == 1


async def test_a_stream_that_ends_while_it_is_opened_is_told_in_order(served: Served, client: Client) -> None:
    await client.subscribe("s", numbers("short"))

    assert (await client.hear())["payload"] == {"data": {"numbers": 1}}
    assert await client.hear() == {"id": "s", "type": "complete"}
    assert served.readers.opened[0].closed == 1


async def test_what_is_sent_before_a_stream_is_open_arrives(client: Client) -> None:
    await client.subscribe("s", numbers("early"))

    assert (await client.hear())["payload"] == {"data": {"numbers": 0}}


async def test_an_id_in_use_closes(served: Served, client: Client) -> None:
    await client.subscribe("s", NUMBERS)
    await client.subscribe("s", "{ hello }")

    assert await client.ended() == (4409, "Subscriber for s already exists")
    await until(lambda: all(reader.closed for reader in served.readers.opened))


@pytest.mark.parametrize("leaves", [True, False])
async def test_who_leaves_while_a_stream_is_opened_leaves_nothing(served: Served, leaves: bool) -> None:
    async with joined(served.url) as client:
        await client.subscribe("s", numbers("slow"))
        await served.readers.asked.wait()
        if leaves:
            await client.connection.close()
        else:
            await client.say({"type": "complete", "id": "s"})
        await until(lambda: served.application.connections.subscriptions == 0)
        served.readers.go.set()
        await until(lambda: len(served.readers.opened) == 1)
        await until(lambda: served.readers.opened[0].closed > 0)
        assert [reader.closed for reader in served.readers.opened] == [1]


async def test_a_closed_connection_closes_its_readers(served: Served) -> None:
    async with joined(served.url) as client:
        for id_ in ("a", "b"):
            await client.subscribe(id_, NUMBERS)
        await until(lambda: len(served.readers.opened) == 2)
    await until(lambda: [reader.closed for reader in served.readers.opened] == [1, 1])

    assert (served.application.connections.open, served.application.connections.subscriptions) == (0, 0)
    served.readers.opened[0].sink.send(number(1))


async def test_readers_of_one_id_share_frames_and_others_get_their_own(served: Served) -> None:
    async with joined(served.url) as first, joined(served.url) as second, joined(served.url) as third:
        for client, id_ in ((first, "1"), (second, "1"), (third, "x" * 36)):
            await client.subscribe(id_, NUMBERS)
        await until(lambda: len(served.readers.opened) == 3)
        for payload in (number(1), sized(400), sized(70_000)):
            for reader in served.readers.opened:
                reader.sink.send(payload)
            heard = [await hear_text(client) for client in (first, second, third)]
            assert heard == [
                f'{{"id":"{id_}","type":"next","payload":{payload.decode()}}}' for id_ in ("1", "1", "x" * 36)
            ]


async def hear_text(client: Client) -> str:
    message = await client.connection.recv()
    assert isinstance(message, str)
    return message


async def test_an_event_larger_than_what_may_be_unsent_arrives(served: Served) -> None:
    large = sized(4 * BACKLOG_BYTES_MAX)
    async with joined(served.url, max_size=None) as client:
        await client.subscribe("1", NUMBERS)
        await until(lambda: len(served.readers.opened) == 1)
        served.readers.opened[0].sink.send(large)
        assert await hear_text(client) == f'{{"id":"1","type":"next","payload":{large.decode()}}}'


async def test_who_reads_nothing_is_closed_with_what_may_be_unsent(served: Served) -> None:
    async with shaken(served.port) as raw:
        await raw.say(frame(b'{"type":"connection_init"}'))
        await raw.hear()
        await raw.say(frame(json.dumps({"id": "1", "type": "subscribe", "payload": {"query": NUMBERS}}).encode()))
        await until(lambda: len(served.readers.opened) == 1)
        (reader,) = served.readers.opened
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined] # asyncio's transports can
        payload = sized(BACKLOG_BYTES_MAX)
        sent = 0
        while not reader.closed:
            reader.sink.send(payload)
            sent += 1
            await asyncio.sleep(0)
        # What the kernel has taken besides is not known.
        assert sent < 20
        raw.writer.transport.resume_reading()  # type: ignore[attr-defined] # as above

        assert await raw.ended() == (1013, "Try again later: this connection reads too slowly")


async def test_a_slow_reader_is_told_of_and_closed_when_asked_for(served: Served) -> None:
    async with shaken(served.port) as raw:
        await raw.say(frame(b'{"type":"connection_init"}'))
        await raw.hear()
        await raw.say(frame(json.dumps({"id": "1", "type": "subscribe", "payload": {"query": NUMBERS}}).encode()))
        await until(lambda: len(served.readers.opened) == 1)
        (reader,) = served.readers.opened
        payload = sized(3_000)
        sent = 0
        while not reader.sink.congested:
            reader.sink.send(payload)
            sent += 1
            await asyncio.sleep(0)
        assert reader.told == ["congested"]
        heard = [await raw.hear() for _ in range(sent)]
        assert heard[-1] == (1, b'{"id":"1","type":"next","payload":%b}' % payload)
        await until(lambda: reader.told == ["congested", "drained"])
        assert not reader.sink.congested
        reader.sink.too_slow()

        assert await raw.ended() == (1013, "Try again later: this connection reads too slowly")
    assert reader.closed == 1
