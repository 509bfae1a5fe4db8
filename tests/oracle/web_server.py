"""A web server for tests that can misbehave byte by byte, and the roads by which a fetcher reaches it.

`WebServer` listens on loopback and plays, for each host and path, what it was told: raw bytes, or a coroutine that
writes them. `RoutedSockets` stands in for the Internet: public addresses lead to local servers, others nowhere.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias

import httpcore

from app.oracle.connecting import SocketOption, system_addresses
from app.tasks import end

PUBLIC_ADDRESS = "93.184.216.34"
HEAD_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked. Header names are lower case."""

    method: str
    target: str
    headers: dict[str, str]

    @property
    def url(self) -> str:
        """Host and target, such as "news.example/wheat"."""
        return self.headers.get("host", "") + self.target


Script: TypeAlias = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]
Raw: TypeAlias = bytes | Script


def answer(
    body: bytes = b"",
    *,
    status: str = "200 OK",
    content_type: str | None = "text/html; charset=utf-8",
    headers: Mapping[str, str] | None = None,
    has_length: bool = True,
) -> bytes:
    """A well-formed response, but for what `headers` say. Without `has_length` its end is the connection's."""
    lines = [f"HTTP/1.1 {status}", "Connection: close"]
    if content_type is not None:
        lines.append(f"Content-Type: {content_type}")
    if has_length:
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def redirect(location: str, status: str = "302 Found") -> bytes:
    """A response that sends the client on."""
    return answer(status=status, headers={"Location": location})


def pieces(*parts: bytes, times: int = 1, seconds: float = 0.0) -> Script:
    """A script that writes `parts` in order, the last one `times`, waiting `seconds` after each."""

    async def play(_: Request, writer: asyncio.StreamWriter) -> None:
        for part in (*parts[:-1], *(parts[-1] for _ in range(times))):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(seconds)

    return play


@dataclass
class WebServer:
    """Serves `pages`: "host/path" (or "/path" for any host) to what is played. 404 for the rest.

    `requests` holds what was asked; `connections` counts what came in, asked or not.
    """

    pages: dict[str, Raw] = field(default_factory=dict)
    ssl_context: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    open_now: int = 0
    port: int = 0
    _server: asyncio.Server | None = None
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    _quiet: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> "WebServer":
        """Listen on a free port of loopback."""
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0, ssl=self.ssl_context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is not None:
            self._server.close()
        await end(self._tasks)
        if self._server is not None:
            await self._server.wait_closed()

    async def until_quiet(self) -> None:
        """Wait until no connection is open: each that the client closes ends what is played on it."""
        if self.open_now:
            await self._quiet.wait()

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open_now += 1
        self._quiet.clear()
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                request = _parsed(await reader.readuntil(b"\r\n\r\n"))
                self.requests.append(request)
                playing = asyncio.ensure_future(self._play(self._page(request), request, writer))
                hung_up = asyncio.ensure_future(reader.read())
                await asyncio.wait((playing, hung_up), return_when=asyncio.FIRST_COMPLETED)
                await end((playing, hung_up))
                await asyncio.gather(playing, hung_up, return_exceptions=True)  # a reset connection is no news
        finally:
            self.open_now -= 1
            if not self.open_now:
                self._quiet.set()
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def _page(self, request: Request) -> Raw | None:
        path = request.target.partition("?")[0]
        keys = (request.url, request.headers.get("host", "") + path, path)
        return next((self.pages[key] for key in keys if key in self.pages), None)

    async def _play(self, raw: Raw | None, request: Request, writer: asyncio.StreamWriter) -> None:
        if raw is None:
            writer.write(answer(b"nothing here", status="404 Not Found"))
        elif isinstance(raw, bytes):
            writer.write(raw)
        else:
            await raw(request, writer)
        await writer.drain()


def _parsed(head: bytes) -> Request:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = (line.split(":", 1) for line in lines if ":" in line)
    return Request(method, target, {name.strip().lower(): value.strip() for name, value in headers})


class RoutedSockets(httpcore.AsyncNetworkBackend):
    """Connects (address, port) to a local port by `routes`, and refuses others. `asked`: all that was asked."""

    def __init__(self, routes: Mapping[tuple[str, int], int]) -> None:
        self.routes = dict(routes)
        self.asked: list[tuple[str, int]] = []
        self._sockets = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.asked.append((host, port))
        if (host, port) not in self.routes:
            raise httpcore.ConnectError(f"no route to {host}:{port}")
        return await self._sockets.connect_tcp("127.0.0.1", self.routes[host, port], timeout=timeout)


@dataclass
class Names:
    """A resolver: each name's addresses, in turn for each time that it is asked (the last ones stay).

    Names under .example have PUBLIC_ADDRESS unless told otherwise; the system resolves others (numbers in disguise).
    """

    table: dict[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        times = self.asked.count(host)
        self.asked.append(host)
        if host in self.table:
            return self.table[host][min(times, len(self.table[host]) - 1)]
        if host.endswith(".example"):
            return (PUBLIC_ADDRESS,)
        return await system_addresses(host, port)
