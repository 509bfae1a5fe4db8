"""Sockets as nobody should use them: each is closed by the right code, and the process goes on, hardly larger."""

import asyncio
import json
import random
import subprocess
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from urllib.parse import urlsplit

import httpx
import pytest

from app.local.valkey import EmbeddedValkey
from tests.api.sockets import Raw, bare, frame, head, shaken
from tests.conftest import LiveApi, run_api
from tests.faults.conftest import Say
from tests.faults.waiting import until

GROWTH_KIB_MAX = 48 * 1024
INIT = frame(b'{"type":"connection_init"}')
SUBSCRIBE = {"type": "subscribe", "payload": {"query": "subscription { assetEvents { kind } }"}}
SEED = 20_260_301


class Target:
    """The API process under attack."""

    def __init__(self, api: LiveApi) -> None:
        self.api = api
        self.port = urlsplit(api.url).port or 0
        self.first_kib = self.resident_kib()

    def resident_kib(self) -> int:
        told = subprocess.run(
            ["ps", "-o", "rss=", "-p", str(self.api.process.pid)], capture_output=True, text=True, check=True
        )
        return int(told.stdout)

    def connections(self) -> float:
        lines = httpx.get(f"{self.api.url}/metrics", timeout=10).text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("megatron_connections "))

    async def expect_unharmed(self) -> None:
        """It serves, holds no connection, and has not grown."""
        assert self.api.process.poll() is None
        await until(lambda: self.connections() == 0, seconds=15)
        async with httpx.AsyncClient(timeout=10) as http:
            assert (await http.get(f"{self.api.url}/readyz")).status_code == 200
        async with introduced(self) as raw:
            await raw.say(frame(b'{"type":"ping"}'))
            assert await raw.hear() == (1, b'{"type":"pong"}')
        assert self.resident_kib() < self.first_kib + GROWTH_KIB_MAX


@pytest.fixture(scope="module")
def api(database_url: str, valkey: EmbeddedValkey) -> Iterator[LiveApi]:
    with run_api(database_url=database_url, redis_url=valkey.url, MEGATRON_CONNECTION_INIT_SECONDS="1") as running:
        yield running


@pytest.fixture(scope="module")
def warmed(api: LiveApi) -> Target:
    return Target(api)


@pytest.fixture
async def target(warmed: Target) -> AsyncIterator[Target]:
    yield warmed
    await warmed.expect_unharmed()


class introduced(AsyncExitStack):  # noqa: N801 - used as the functions beside it are
    """A bare connection that has been acknowledged."""

    def __init__(self, target: Target) -> None:
        super().__init__()
        self._target = target

    async def __aenter__(self) -> Raw:  # type: ignore[override] # gives what it holds
        raw = await self.enter_async_context(shaken(self._target.port))
        await raw.say(INIT)
        opcode, message = await raw.hear()
        assert (opcode, json.loads(message)["type"]) == (1, "connection_ack")
        return raw


async def say_what_is_taken(raw: Raw, data: bytes) -> None:
    """Send as much as the server takes."""
    with suppress(ConnectionError):
        await raw.say(data)


# ------------------------------------------------------------------------------------------------ frames


@pytest.mark.parametrize("size", [64 * 1024 + 1, 10 * 1024 * 1024])
async def test_a_frame_too_large_is_refused_by_its_length(target: Target, size: int) -> None:
    async with introduced(target) as raw:
        sending = asyncio.create_task(say_what_is_taken(raw, unmaskable(size)))
        code, _ = await raw.ended()
        await sending

    assert code == 1009


def unmaskable(size: int) -> bytes:
    """A frame of `size` zeroes, whose mask is zero too."""
    return bytes((0x81, 0xFF)) + size.to_bytes(8, "big") + bytes(4) + bytes(size)


async def test_the_largest_message_is_read_and_one_more_byte_in_pieces_is_not(target: Target) -> None:
    async with introduced(target) as raw:
        message = b'{"type":"ping"}'
        await raw.say(frame(message + b" " * (64 * 1024 - len(message))))
        assert await raw.hear() == (1, b'{"type":"pong"}')
        await raw.say(frame(b" " * 32 * 1024, fin=False))
        await raw.say(frame(b" " * 32 * 1024, opcode=0, fin=False))
        await say_what_is_taken(raw, frame(b" ", opcode=0))

        assert (await raw.ended())[0] == 1009


async def test_a_compressed_bomb_is_no_frame_of_ours(target: Target) -> None:
    packer = zlib.compressobj(wbits=-15)
    bomb = (packer.compress(bytes(20_000_000)) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
    assert len(bomb) < 64 * 1024
    async with introduced(target) as raw:
        await raw.say(frame(bomb, reserved=0b100))

        assert await raw.ended() == (1002, "reserved bits must be 0")


async def test_fragments_are_put_together_with_control_frames_in_between(target: Target) -> None:
    async with introduced(target) as raw:
        message = '{"type":"ping","payload":{"a":"é"}}'.encode()
        for at in range(len(message)):
            await raw.say(frame(message[at : at + 1], opcode=0 if at else 1, fin=at == len(message) - 1))
            if at % 10 == 0:
                await raw.say(frame(b"p", opcode=9))
                assert await raw.hear() == (10, b"p")

        assert await raw.hear() == (1, '{"type":"pong","payload":{"a":"é"}}'.encode())


async def test_empty_fragments_without_end_are_a_flood(target: Target) -> None:
    async with introduced(target) as raw:
        await raw.say(frame(b"", fin=False))
        await say_what_is_taken(raw, frame(b"", opcode=0, fin=False) * 20_000)

        assert (await raw.ended())[0] == 4429


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(b"\xff\xfe"), 1007),
        (frame(b"\xc3", fin=False) + frame(b"(", opcode=0), 1007),
        (frame(b"{}", masked=False), 1002),
        (frame(b"{}", opcode=3), 1002),
        (frame(b"{}", opcode=11), 1002),
        (frame(b"{}", opcode=0), 1002),
        (frame(b"{}", fin=False) + frame(b"{}"), 1002),
        (frame(b"p" * 126, opcode=9), 1002),
        (frame(b"p", opcode=9, fin=False), 1002),
        (frame(b"\x03", opcode=8), 1002),
        (frame(b"\x00\x01", opcode=8), 1002),
        (frame(b"{}", reserved=0b010), 1002),
        (frame(b'{"type":"ping"}', opcode=2), 4400),
        (frame(b"\x03\xe8bye", opcode=8), 1000),
    ],
)
async def test_what_breaks_the_protocol_is_closed_by_its_code(target: Target, data: bytes, code: int) -> None:
    async with introduced(target) as raw:
        await raw.say(data)

        assert (await raw.ended())[0] == code


# ------------------------------------------------------------------------------------------------ messages


async def test_subscribing_before_the_acknowledgement_closes(target: Target) -> None:
    async with shaken(target.port) as raw:
        await raw.say(frame(json.dumps({"id": "1", **SUBSCRIBE}).encode()))

        assert (await raw.ended())[0] == 4401


async def test_ten_thousand_subscribes_on_one_connection_are_cut_short(target: Target) -> None:
    async with introduced(target) as raw:
        frames = [frame(json.dumps({"id": str(each), **SUBSCRIBE}).encode()) for each in range(10_000)]
        sending = asyncio.create_task(say_what_is_taken(raw, b"".join(frames)))
        code, _ = await raw.ended()
        await sending

    assert code == 4429


async def test_subscribing_and_completing_in_turns_leaves_nothing(target: Target) -> None:
    async with introduced(target) as raw:
        complete = frame(b'{"type":"complete","id":"1"}')
        subscribe = frame(json.dumps({"id": "1", **SUBSCRIBE}).encode())
        await raw.say((subscribe + complete) * 100)
        await raw.say(frame(b'{"type":"ping"}'))
        while (heard := await raw.hear()) != (1, b'{"type":"pong"}'):
            assert heard[0] == 1
    await target.expect_unharmed()


@pytest.mark.parametrize(
    "message",
    [
        "[" * 60_000,
        '{"type":"ping","payload":' + '{"a":' * 10_000 + "1" + "}" * 10_000 + "}",
        '{"type":"subscribe","id":"1","payload":{"query":"{ serverTime }","variables":'
        + '{"a":' * 5_000
        + "1"
        + "}" * 5_001
        + "}",
        '{"type":"ping","payload":{"a":' + "9" * 50_000 + "}}",
        '{"type":' + '"' + "x" * 60_000 + '"}',
        '{"type":"connection_init","type":"connection_init"}',
    ],
)
async def test_a_message_made_to_hurt_closes_or_is_answered(target: Target, message: str) -> None:
    async with introduced(target) as raw:
        await raw.say(frame(message.encode()))
        opcode, answer = await raw.hear()

        assert opcode == 8 or json.loads(answer)["type"] == "error"
        assert opcode == 1 or int.from_bytes(answer[:2], "big") in (4400, 4429)


async def test_documents_made_to_hurt_are_refused_within_the_limits(target: Target) -> None:
    async with introduced(target) as raw:
        for query in (
            "{a" * 900,
            "query { " + "a " * 20_000 + "}",
            "{ " + "...F " * 500 + "} fragment F on Query { ...F }",
        ):
            await raw.say(frame(json.dumps({"id": "1", "type": "subscribe", "payload": {"query": query}}).encode()))
            message = json.loads((await raw.hear())[1])

            assert (message["type"], len(json.dumps(message)) < 60_000) == ("error", True)


# ------------------------------------------------------------------------------------------------ connections


async def test_half_handshakes_and_silent_sockets_hold_nobody_up(target: Target) -> None:
    async with AsyncExitStack() as stack:
        for each in range(100):
            raw = await stack.enter_async_context(bare(target.port))
            await raw.say(head(target.port)[: 20 + each])
        silent = [await stack.enter_async_context(shaken(target.port)) for _ in range(100)]
        async with introduced(target) as raw:
            await raw.say(frame(b'{"type":"ping"}'))
            assert await raw.hear() == (1, b'{"type":"pong"}')

        assert [(await raw.ended())[0] for raw in silent] == [4408] * 100


async def test_readers_who_never_read_are_bounded(target: Target) -> None:
    async with AsyncExitStack() as stack:
        query = json.dumps(
            {"id": "1", "type": "subscribe", "payload": {"query": "{ __schema { types { name fields { name } } } }"}}
        )
        ping = frame(b'{"type":"ping","payload":{"a":"' + b"x" * 60_000 + b'"}}')
        for _ in range(5):
            raw = await stack.enter_async_context(introduced(target))
            raw.writer.transport.pause_reading()  # type: ignore[attr-defined] # asyncio's transports can
            await say_what_is_taken(raw, frame(query.encode()))
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await say_what_is_taken(raw, ping * 400)
            raw.writer.transport.abort()
    await target.expect_unharmed()


async def test_random_bytes_end_sockets_and_not_the_process(target: Target, say: Say) -> None:
    source = random.Random(SEED)
    say(f"seed {SEED}")
    messages = [
        b'{"type":"connection_init"}',
        b'{"type":"ping","payload":{"a":1}}',
        json.dumps({"id": "1", **SUBSCRIBE}).encode(),
        b'{"type":"complete","id":"1"}',
    ]
    for _ in range(150):
        async with shaken(target.port) as raw:
            if source.random() < 0.5:
                await say_what_is_taken(raw, source.randbytes(source.randrange(1, 2_000)))
                continue
            for message in source.choices(messages, k=4):
                spoilt = bytearray(message)
                for at in range(source.randrange(4)):
                    spoilt[source.randrange(len(spoilt))] = source.randrange(256) if at else source.choice(b'{}[]",:\\')
                await say_what_is_taken(raw, frame(bytes(spoilt), opcode=source.choice((1, 1, 1, 2, 9, 10))))
            await say_what_is_taken(raw, frame(b"\x03\xe8", opcode=8))
            await raw.rest()
    await target.expect_unharmed()


async def test_random_bytes_instead_of_a_handshake(target: Target, say: Say) -> None:
    source = random.Random(SEED)
    say(f"seed {SEED}")
    for _ in range(100):
        async with bare(target.port) as raw:
            spoilt = bytearray(head(target.port))
            for _ in range(source.randrange(1, 8)):
                spoilt[source.randrange(len(spoilt))] = source.randrange(256)
            await say_what_is_taken(raw, bytes(spoilt))
            raw.writer.write_eof()
            with suppress(ConnectionError):
                await raw.rest()
    await target.expect_unharmed()
