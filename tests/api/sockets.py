"""The real server in this process, over stand-ins, and clients of it: by `websockets`, and by bare bytes."""

import asyncio
import json
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from api.operations import Operations
from app.main import Application, Server
from app.ratelimit import RateLimiter
from tests.api.edge import done, schema, stub_services
from tests.api.readers import Readers

SECONDS = 10.0
PROTOCOL = "graphql-transport-ws"


async def until(condition: Callable[[], bool], *, seconds: float = SECONDS) -> None:
    """Let others run until `condition` holds; TimeoutError when it does not within `seconds`."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - any condition
            await asyncio.sleep(0.005)


@dataclass
class Served:
    """A server, what opens its subscriptions, and where it is."""

    application: Application
    server: Server
    readers: Readers
    port: int

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/graphql"


@asynccontextmanager
async def serving(*, rate_limiter: RateLimiter | None = None, **settings: object) -> AsyncIterator[Served]:
    """Serve until the end of the block, and stop as the process does."""
    services = stub_services(rate_limiter=rate_limiter, settings=settings)
    done.clear()
    readers = Readers()
    application = Application(services, opening=readers.open, operations=Operations(schema, services))
    server = Server(application)
    listener = socket.create_server(("127.0.0.1", 0))
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await until(lambda: server.started)
        yield Served(application, server, readers, listener.getsockname()[1])
    finally:
        server.should_exit = True
        await running


class Client:
    """A client of graphql-transport-ws that says exactly what it is told to."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def say(self, message: object) -> None:
        await self.connection.send(message if isinstance(message, str | bytes) else json.dumps(message))

    async def hear(self) -> Any:
        """The next message."""
        async with asyncio.timeout(SECONDS):
            return json.loads(await self.connection.recv())

    async def init(self, payload: Mapping[str, object] | None = None) -> Any:
        await self.say({"type": "connection_init"} | ({} if payload is None else {"payload": payload}))
        return await self.hear()

    async def subscribe(self, id_: str, query: str, **payload: object) -> None:
        await self.say({"id": id_, "type": "subscribe", "payload": {"query": query, **payload}})

    async def ended(self) -> tuple[int, str]:
        """Code and reason of the close frame, once it has come; what came before it is passed over."""
        with suppress(ConnectionClosed):
            async with asyncio.timeout(SECONDS):
                while True:
                    await self.connection.recv()
        close = self.connection.protocol.close_rcvd
        assert close is not None, "the connection was lost without a close frame"
        return int(close.code), close.reason


@asynccontextmanager
async def joined(url: str, *, token: str | None = None, init: bool = True, **options: Any) -> AsyncIterator[Client]:
    """A connected client, introduced unless said otherwise."""
    options = {"subprotocols": [PROTOCOL], "compression": None, "ping_interval": None, "proxy": None, **options}
    async with connect(url, **options) as connection:
        client = Client(connection)
        if init:
            answer = await client.init(None if token is None else {"authorization": f"Bearer {token}"})
            assert answer["type"] == "connection_ack"
        yield client


# ------------------------------------------------------------------------------------------------ bare bytes


def head(port: int, *, path: str = "/graphql", protocol: str | None = PROTOCOL, **headers: str) -> bytes:
    """The head of a handshake; headers are added or replaced, an empty one is left out."""
    named = {
        "Host": f"127.0.0.1:{port}",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": protocol or "",
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items() if value)]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def frame(payload: bytes, *, opcode: int = 1, fin: bool = True, reserved: int = 0, masked: bool = True) -> bytes:
    """A client's frame, right or wrong."""
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    length = len(payload)
    mask_bit = 0x80 if masked else 0
    if length < 126:
        start = bytes((first, mask_bit | length))
    elif length < 65_536:
        start = struct.pack("!BBH", first, mask_bit | 126, length)
    else:
        start = struct.pack("!BBQ", first, mask_bit | 127, length)
    if not masked:
        return start + payload
    mask = os.urandom(4)
    return start + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


@dataclass
class Raw:
    """A bare connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> bytes:
        """The head of the answer."""
        async with asyncio.timeout(SECONDS):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def hear(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame."""
        async with asyncio.timeout(SECONDS):
            first, second = await self.reader.readexactly(2)
            length = second & 0x7F
            if length == 126:
                (length,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
            return first & 0x0F, await self.reader.readexactly(length)

    async def ended(self) -> tuple[int, str]:
        """Code and reason of the close frame."""
        while True:
            opcode, payload = await self.hear()
            if opcode == 8:
                return struct.unpack("!H", payload[:2])[0], payload[2:].decode()

    async def rest(self) -> bytes:
        """What comes until the server closes."""
        async with asyncio.timeout(SECONDS):
            return await self.reader.read()


@asynccontextmanager
async def bare(port: int) -> AsyncIterator[Raw]:
    """A TCP connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()


@asynccontextmanager
async def shaken(port: int, **headers: str) -> AsyncIterator[Raw]:
    """A bare connection after its handshake."""
    async with bare(port) as raw:
        await raw.say(head(port, **headers))
        assert (await raw.head()).startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        yield raw
