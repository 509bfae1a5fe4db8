"""uvicorn's HTTP protocol with one system call per answer instead of two.

uvicorn writes an answer's head and its body one after the other, and uvloop sends each at once: two system calls here,
and often two wake-ups at the client. Here what is written within one turn of the event loop goes out together.
"""

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

ABORT: Final = "megatron.abort"
"""Key of a request's scope."""
FIRST_REQUEST_SECONDS: Final = 10
"""Within which the head of a connection's first request must have come."""

if TYPE_CHECKING:
    Data: TypeAlias = bytes | bytearray | memoryview[Any]


class GatheringTransport(asyncio.Transport):
    """A transport that keeps what is written until the event loop's next turn, and then writes it as one."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._gathered: list[bytes] = []

    @property
    def raw(self) -> asyncio.Transport:
        """The transport itself, on which each write goes out on its own."""
        return self._transport

    def write(self, data: "Data") -> None:
        """Write soon."""
        if not self._gathered:
            self._loop.call_soon(self._flush)
        self._gathered.append(bytes(data))

    def writelines(self, list_of_data: "Iterable[Data]") -> None:
        """Write soon."""
        self.write(b"".join(list_of_data))

    def _flush(self) -> None:
        gathered, self._gathered = self._gathered, []
        if gathered and not self._transport.is_closing():
            self._transport.write(b"".join(gathered))

    def close(self) -> None:
        """Write what was gathered, then close."""
        self._flush()
        self._transport.close()

    def write_eof(self) -> None:
        """Write what was gathered, then end the writing half."""
        self._flush()
        self._transport.write_eof()

    def abort(self) -> None:
        """Close at once."""
        self._gathered = []
        self._transport.abort()

    def can_write_eof(self) -> bool:
        """As the transport."""
        return self._transport.can_write_eof()

    def is_closing(self) -> bool:
        """As the transport."""
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: object = None) -> Any:
        """As the transport."""
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """As the transport."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """As the transport."""
        self._transport.resume_reading()

    def is_reading(self) -> bool:
        """As the transport."""
        return self._transport.is_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """As the transport."""
        self._transport.set_protocol(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """As the transport."""
        return self._transport.get_protocol()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """As the transport."""
        self._transport.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Bytes not yet sent."""
        return self._transport.get_write_buffer_size() + sum(map(len, self._gathered))


class GatheringProtocol(HttpToolsProtocol):
    """HTTP/1.1 on a gathering transport.

    A connection whose first request does not come in time is closed. One that becomes a WebSocket leaves nothing of
    this behind. `ABORT` in a request's scope cuts its connection off, whatever is unsent.
    """

    _is_handed_over = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as its parent
        """Begin to serve a connection."""
        super().connection_made(GatheringTransport(transport, self.loop))
        self.loop.call_later(FIRST_REQUEST_SECONDS, self._close_unless_used)

    def _close_unless_used(self) -> None:
        if not self._is_handed_over and getattr(self, "cycle", None) is None:
            self.transport.close()

    def on_headers_complete(self) -> None:
        """Begin to serve a request."""
        super().on_headers_complete()
        self.scope[ABORT] = self.transport.abort  # type: ignore[typeddict-unknown-key]

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over."""
        if not getattr(self.cycle, "response_complete", True):
            self.send_400_response("An upgrade must wait for the answers before it.")
            return
        super().handle_websocket_upgrade()
        self._is_handed_over = True
        # The parser and this object hold each other: what an idle WebSocket does not need is let go at once.
        self.parser = self.flow = self.transport = None  # type: ignore[assignment]
        self.scope = self.headers = self.cycle = None  # type: ignore[assignment]
