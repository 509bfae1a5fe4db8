"""An HTTP client over plain sockets that can be told to hang up: what a fault test needs and a proper client hides.

One `Client` is one keep-alive connection; it opens another when that has gone.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

import orjson

Json = dict[str, Any]
HEADERS_MAX = 64
REQUEST_SECONDS_MAX = 60.0


class Cut(Enum):
    """When the client hangs up: not at all, as soon as it has sent, or as soon as the answer begins to arrive."""

    NOT = "not"
    SENT = "sent"
    ANSWERED = "answered"


class Lost(Exception):  # noqa: N818 - told to the test, which decides whether it is a fault
    """The connection ended before the answer did."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. `json` is its body, which every answer of the API's GraphQL endpoint has."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Json:
        """The body as JSON."""
        parsed: Json = orjson.loads(self.body)
        return parsed

    @property
    def data(self) -> Json:
        """The answer's data; an empty object where there is none."""
        return self.json.get("data") or {}

    @property
    def errors(self) -> list[Json]:
        """The GraphQL errors."""
        return self.json.get("errors") or []

    @property
    def error_codes(self) -> list[str]:
        """extensions.code of each error; "" where an error has none."""
        return [error.get("extensions", {}).get("code", "") for error in self.errors]

    def payload(self, name: str) -> Json:
        """What the root field `name` answered; AssertionError when it answered nothing."""
        found = self.data.get(name)
        assert isinstance(found, dict), f"{self.status} {self.body[:500]!r}"
        return found

    def refusals(self, name: str) -> list[str]:
        """The codes of the userErrors of the root field `name`."""
        return [error["code"] for error in self.payload(name)["userErrors"]]

    @property
    def is_fault(self) -> bool:
        """Whether the server failed at something that it should not."""
        return self.status >= 500 or any(code in ("", "INTERNAL_SERVER_ERROR") for code in self.error_codes)


class Client:
    """One caller of the API at `url` (without a path), with or without a token."""

    def __init__(self, url: str, token: str | None = None) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self.token = token
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def with_token(self, token: str) -> "Client":
        """Another caller of the same API."""
        return Client(f"http://{self._address[0]}:{self._address[1]}", token)

    async def run(self, document: str, variables: Json | None = None, *, cut: Cut = Cut.NOT) -> Reply:
        """Execute an operation. Raises `Lost`."""
        return await self.post(orjson.dumps({"query": document, "variables": variables or {}}), cut=cut)

    async def post(self, body: bytes, *, content_type: str = "application/json", cut: Cut = Cut.NOT) -> Reply:
        """Send `body` as it is. Raises `Lost`, which a cut always does."""
        lines = ["POST /graphql HTTP/1.1", f"Host: {self._address[0]}:{self._address[1]}", "Accept: application/json"]
        lines += [f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
        lines += [f"Authorization: Bearer {self.token}"] if self.token else []
        head = "\r\n".join([*lines, "", ""]).encode()
        try:
            return await asyncio.wait_for(self._exchange(head + body, cut), REQUEST_SECONDS_MAX)
        except (OSError, asyncio.IncompleteReadError) as error:
            await self.close()
            raise Lost(repr(error)) from error

    async def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            writer = self._streams[1]
            self._streams = None
            writer.transport.abort()

    async def _exchange(self, request: bytes, cut: Cut) -> Reply:
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        writer.write(request)
        await writer.drain()
        if cut is Cut.SENT:
            raise ConnectionAbortedError("hung up after sending")
        status, headers = await _head(reader)
        if cut is Cut.ANSWERED:
            raise ConnectionAbortedError("hung up when the answer began")
        body = await reader.readexactly(int(headers["content-length"]))
        if headers.get("connection", "").lower() == "close":
            await self.close()
        return Reply(status, headers, body)


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    first = await reader.readuntil(b"\r\n")
    headers: dict[str, str] = {}
    for _ in range(HEADERS_MAX):
        line = (await reader.readuntil(b"\r\n")).decode("latin-1").strip()
        if not line:
            return int(first.split(b" ")[1]), headers
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    raise ConnectionAbortedError("the answer has too many headers")
