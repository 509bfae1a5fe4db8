"""A WebSocket as a protocol of the event loop: handshake, frames, pings, closing. What is said over it is a session's.

uvicorn hands a connection over when its request asks for an upgrade (`ws=` of its configuration). The handshake and
what comes in are read by the sans-I/O half of `websockets`; what goes out is made of ready frames, written straight
to the transport: no task and no queue for each connection, so an idle one costs a few kilobytes.
"""

import asyncio
import logging
import struct
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Protocol, cast

import orjson
from uvicorn.config import Config
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import Protocol as FrameProtocol
from websockets.protocol import Side, State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from api.connections import Connections
from api.peers import Networks, Origins, client_address
from app.errors import quoted
from app.http_protocol import GatheringTransport
from app.ratelimit import RateLimited

SUBPROTOCOL: Final = Subprotocol("graphql-transport-ws")
MESSAGE_BYTES_MAX: Final = 64 * 1024
HIGH_WATER_BYTES: Final = 64 * 1024
"""Unsent bytes above which readers are told that the connection is congested, until it is below `LOW_WATER_BYTES`."""
LOW_WATER_BYTES: Final = 16 * 1024
BACKLOG_BYTES_MAX: Final = 2 * 1024 * 1024
"""Unsent bytes with which a connection is given up rather than sent more. One message may be larger."""
FRAMES_PER_SECOND_MAX: Final = 2_000
READ_BYTES: Final = 16 * 1024
"""What is read of a chunk before the frames in it are counted."""
CLOSE_SECONDS: Final = 3.0
"""How long a peer may take to answer a close frame."""
STOP_SECONDS: Final = 1.0
"""The same when the process stops."""
REASON_BYTES_MAX: Final = 123

_PING: Final = b"\x89\x00"
_quiet: Final = logging.getLogger("megatron.websocket")
_quiet.setLevel(logging.WARNING)


class Session(Protocol):
    """What is said over one socket."""

    def text(self, message: str) -> None:
        """A message has come."""

    def closed(self) -> None:
        """The socket is closing or lost: nothing more can be said."""

    def congested(self) -> None:
        """More is unsent than should be."""

    def drained(self) -> None:
        """It has been sent."""

    def init_late(self) -> None:
        """The client has not introduced itself in time."""


@dataclass(frozen=True, slots=True)
class Entrance:
    """What all sockets of a process share: who may come in, and what begins when one has.

    `serves` tells whether a Host header names this service; `begin` makes the session of an accepted socket.
    """

    path: str
    serves: Callable[[bytes], bool]
    origins: Origins
    proxies: Networks
    connections: Connections
    init_seconds: float
    begin: Callable[["WebSocket"], Session]


class _Rejected(Exception):  # noqa: N818 - an answer
    """The handshake is answered with this status instead of 101."""

    def __init__(self, status: HTTPStatus, code: str, message: str, **extensions: object) -> None:
        super().__init__(message)
        self.status = status
        self.extensions = {"code": code, **extensions}


def websocket_class(entrance: Entrance) -> type["WebSocket"]:
    """The class for uvicorn's `ws=`, whose connections come in by `entrance`."""
    return cast("type[WebSocket]", type("WebSocket", (WebSocket,), {"__slots__": (), "entrance": entrance}))


class WebSocket(asyncio.Protocol):
    """One WebSocket. `transport` takes ready frames; `paused` says that more than the high-water mark is unsent."""

    __slots__ = (
        "_alive",
        "_backlog",
        "_fragments",
        "_frames",
        "_incoming",
        "_is_open",
        "_second",
        "_server_state",
        "_session",
        "_spoke",
        "client_ip",
        "paused",
        "transport",
    )
    entrance: Entrance

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
        self._server_state = server_state
        self._incoming: FrameProtocol | None = None
        self._session: Session | None = None
        self._fragments: bytearray | None = None
        self._is_open = False
        self._alive = True
        self._backlog = 0
        self._frames = 0
        self._second = 0.0
        self._spoke = -1
        self.client_ip = ""
        self.paused = False
        self.transport: asyncio.Transport

    # ------------------------------------------------------------------------------------------------ the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection over from HTTP."""
        if isinstance(transport, GatheringTransport):
            transport = transport.raw
        self.transport = cast("asyncio.Transport", transport)
        self._server_state.connections.add(cast("Any", self))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._server_state.connections.discard(cast("Any", self))
        self._end()
        if self._spoke >= 0:
            self.entrance.connections.remove(self, self._spoke)
            self.entrance.connections.release_address(self.client_ip)
            self._spoke = -1
        self._incoming = None

    def eof_received(self) -> None:
        """The peer says nothing more: whoever closes in order closes both ways."""

    def pause_writing(self) -> None:
        """Tell the readers, and read nothing more that would make more to write."""
        self.paused = True
        if self._session is not None:
            self.transport.pause_reading()
            self._session.congested()

    def resume_writing(self) -> None:
        """Tell the readers."""
        self.paused = False
        self._backlog = 0
        if self._session is not None:
            self._alive = True
            self.transport.resume_reading()
            self._session.drained()

    def data_received(self, data: bytes) -> None:
        """Read the handshake, then frames."""
        self._alive = True
        if self._incoming is None:
            if self._spoke < 0:
                self._shake_hands(data)
            return
        for begin in range(0, len(data), READ_BYTES):
            self._read(self._incoming, data[begin : begin + READ_BYTES])
            if not self._is_open:
                break

    # ------------------------------------------------------------------------------------------------ the handshake

    def _shake_hands(self, head: bytes) -> None:
        server = ServerProtocol(select_subprotocol=_select, logger=_quiet)
        server.receive_data(head)
        request = next((event for event in server.events_received() if isinstance(event, Request)), None)
        try:
            if request is None:
                raise _Rejected(HTTPStatus.BAD_REQUEST, "BAD_REQUEST", "This is no request for a WebSocket.")
            self._check(request)
            response = server.accept(request)
            if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
                raise _Rejected(
                    HTTPStatus(response.status_code), "BAD_REQUEST", (response.body or b"").decode().strip()
                )
            self._take_place(request)
        except _Rejected as rejected:
            self.transport.write(_rejection(rejected))
            self.transport.close()
            return
        self.transport.write(response.serialize())
        self.transport.set_write_buffer_limits(HIGH_WATER_BYTES, LOW_WATER_BYTES)
        self._incoming = FrameProtocol(Side.SERVER, max_size=MESSAGE_BYTES_MAX, logger=_quiet)
        self._is_open = True
        if server.subprotocol is None:
            self.close(4406, f"Subprotocol not acceptable: ask for {SUBPROTOCOL}")
            return
        self._session = self.entrance.begin(self)
        self.entrance.connections.expect(self, self.entrance.init_seconds)

    def _check(self, request: Request) -> None:
        """Whether the request may become a socket, its form apart. Raises `_Rejected`."""
        path = request.path.partition("?")[0]
        hosts, origins = request.headers.get_all("Host"), request.headers.get_all("Origin")
        host = hosts[0].encode("latin-1") if len(hosts) == 1 else b""
        if not self.entrance.serves(host):
            raise _Rejected(
                HTTPStatus.MISDIRECTED_REQUEST,
                "MISDIRECTED_REQUEST",
                f"The host {quoted(host.decode('latin-1'), 80)} is not served here: "
                "MEGATRON_ALLOWED_HOSTS lists those that are.",
            )
        if path != self.entrance.path:
            raise _Rejected(
                HTTPStatus.NOT_FOUND, "NOT_FOUND", f"WebSockets are at {self.entrance.path}, not at {quoted(path, 80)}."
            )
        if any(not self.entrance.origins.allow(origin.encode("latin-1"), host) for origin in origins):
            raise _Rejected(
                HTTPStatus.FORBIDDEN,
                "FORBIDDEN",
                f"Pages of {quoted(origins[0], 80)} may not connect: MEGATRON_ALLOWED_ORIGINS lists those that may.",
            )

    def _take_place(self, request: Request) -> None:
        peer = self.transport.get_extra_info("peername")
        forwarded = [value.encode("latin-1") for value in request.headers.get_all("X-Forwarded-For")]
        self.client_ip = client_address(peer[0] if peer else None, forwarded, self.entrance.proxies)
        try:
            self.entrance.connections.take_address(self.client_ip)
        except RateLimited as limited:
            raise _Rejected(
                HTTPStatus.TOO_MANY_REQUESTS,
                "RATE_LIMITED",
                str(limited),
                retryable=True,
                retryAfterMs=limited.retry_after_ms,
            ) from None
        self._spoke = self.entrance.connections.add(self)

    # ------------------------------------------------------------------------------------------------ frames

    def _read(self, incoming: FrameProtocol, data: bytes) -> None:
        incoming.receive_data(data)
        frames = cast("list[Frame]", incoming.events_received())
        if not self._is_open:
            # Closing: only the peer's close frame matters. What else it sends is read and dropped until the deadline:
            # closing while it comes resets the connection, and may lose the close frame on its way to the peer.
            if any(frame.opcode is Opcode.CLOSE for frame in frames):
                self.transport.close()
            return
        if self._is_flood(len(frames)):
            self.close(4429, f"Too many messages: at most {FRAMES_PER_SECOND_MAX} a second are read")
            return
        for frame in frames:
            self._take(frame)
            if not self._is_open:
                return
        if incoming.close_expected():
            self._end()
            self._conclude(incoming)
            return
        output = b"".join(incoming.data_to_send())
        if output:
            self.transport.write(output)

    def _is_flood(self, frames: int) -> bool:
        now = asyncio.get_running_loop().time()
        if now - self._second >= 1.0:
            self._second = now
            self._frames = 0
        self._frames += frames
        return self._frames > FRAMES_PER_SECOND_MAX

    def _take(self, frame: Frame) -> None:
        match frame.opcode:
            case Opcode.TEXT if frame.fin:
                self._take_text(frame.data)
            case Opcode.TEXT:
                self._fragments = bytearray(frame.data)
            case Opcode.CONT if self._fragments is not None:
                self._fragments += frame.data
                if frame.fin:
                    whole, self._fragments = self._fragments, None
                    self._take_text(whole)
            case Opcode.BINARY:
                self.close(4400, "Messages are text: this one is binary")

    def _take_text(self, data: "bytes | bytearray | memoryview[int]") -> None:
        try:
            text = str(data, "utf-8")
        except UnicodeDecodeError as error:
            self.close(1007, f"The message is not UTF-8: byte {data[error.start]:#04x} at position {error.start}")
            return
        if self._session is not None:
            self._session.text(text)

    # ------------------------------------------------------------------------------------------------ the end

    def close(self, code: int, reason: str) -> None:
        """Close with a code and a reason, cut to what a frame holds; what is unsent goes first. May be called again."""
        if not self._is_open or self._incoming is None:
            return
        self._end()
        if self._incoming.state is not State.OPEN:
            self._conclude(self._incoming)
            return
        self._incoming.data_to_send()
        self._incoming.send_close(code, reason.encode()[:REASON_BYTES_MAX].decode(errors="ignore"))
        self.transport.write(b"".join(self._incoming.data_to_send()))
        if self.paused:
            self.transport.resume_reading()
        self.entrance.connections.expect(self, CLOSE_SECONDS)

    def _conclude(self, incoming: FrameProtocol) -> None:
        """The peer has closed or broken the protocol, perhaps right behind what is just being read: answer that."""
        self.transport.write(b"".join(incoming.data_to_send()))
        if incoming.parser_exc is None:
            self.transport.close()
        else:
            self._linger()

    def _linger(self) -> None:
        """End the writing half: the peer has broken the protocol, and been told so. It closes the other half.

        Closing at once would lose what is under way to a peer that is still sending.
        """
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.entrance.connections.expect(self, CLOSE_SECONDS)
        else:
            self.transport.close()

    def _end(self) -> None:
        self._is_open = False
        self._fragments = None
        session, self._session = self._session, None
        if session is not None:
            session.closed()

    def shutdown(self) -> None:
        """The process stops (called by uvicorn): tell the client to come back, and do not wait for long."""
        if not self._is_open:
            self.transport.close()
            return
        self.close(1012, "Service restart, reconnect")
        asyncio.get_running_loop().call_later(STOP_SECONDS, self.transport.abort)

    # ------------------------------------------------------------------------------------------------ for sessions

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run something that is to end well even when the socket or the process does before."""
        tasks = self._server_state.tasks
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def introduced(self) -> None:
        """The client has said who it is: it may stay."""
        if self._is_open:
            self.entrance.connections.met(self)

    def check_backlog(self) -> None:
        """Give up on a peer that does not read, once too much is unsent."""
        if self.transport.get_write_buffer_size() > BACKLOG_BYTES_MAX:
            self.too_slow()

    def too_slow(self) -> None:
        """Close: the peer does not keep up."""
        self.close(1013, "Try again later: this connection reads too slowly")

    # ------------------------------------------------------------------------------------------------ for the sweeper

    def beat(self) -> None:
        """Ping, or drop a peer that has been silent since the last time. One that is slow must have read something."""
        if self.paused:
            unsent = self.transport.get_write_buffer_size()
            self._alive = not self._backlog or unsent < self._backlog
            self._backlog = unsent
        if not self._alive:
            self.transport.abort()
            return
        self._alive = False
        if self._is_open and not self.paused:
            self.transport.write(_PING)

    def deadline_passed(self) -> None:
        """The client has not introduced itself, or has not closed its side."""
        if self._is_open and self._session is not None:
            self._session.init_late()
        else:
            self.transport.abort()


def _select(_: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return SUBPROTOCOL if SUBPROTOCOL in offered else None


def _rejection(rejected: _Rejected) -> bytes:
    error = {"message": str(rejected), "extensions": rejected.extensions}
    body = orjson.dumps({"errors": [error]})
    headers = {
        "content-type": "application/json; charset=utf-8",
        "content-length": str(len(body)),
        "cache-control": "no-store",
        "connection": "close",
        "sec-websocket-version": "13",
    }
    lines = [f"HTTP/1.1 {rejected.status.value} {rejected.status.phrase}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + body


def text_frame(payload: bytes) -> bytes:
    """An unmasked, unfragmented text frame (RFC 6455, 5.2)."""
    length = len(payload)
    if length < 126:
        return bytes((0x81, length)) + payload
    if length < 65_536:
        return struct.pack("!BBH", 0x81, 126, length) + payload
    return struct.pack("!BBQ", 0x81, 127, length) + payload
