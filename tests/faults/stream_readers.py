"""Readers who resume: what a careful bot does with a stream, in little code, and a record of what it saw."""

import asyncio
import contextlib
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, WebSocketException
from websockets.typing import Subprotocol

DOCUMENT = (
    "subscription Ticks($ids: [ID!], $after: Cursor) { priceTicks(assetIds: $ids, after: $after, heartbeatSeconds: 2)"
    " { kind cursor missed ticks { assetId seq } } }"
)
SILENCE_SECONDS_MAX = 6.0
"""Three heartbeats: whoever hears nothing for so long connects again."""
PAUSE_SECONDS = 0.05


@dataclass
class StreamReader:
    """One reader of ticks. `holes` is what it was never told: seqs left out or repeated without a word."""

    url: str
    asset_ids: list[str] | None = None
    cursor: str | None = None
    seqs: dict[str, int] = field(default_factory=dict)
    ticks: int = 0
    connections: int = 0
    gaps: int = 0
    missed: int = 0
    holes: list[str] = field(default_factory=list)
    closed: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    async def run(self) -> None:
        """Read until cancelled, connecting again whenever the connection is lost."""
        while True:
            with contextlib.suppress(OSError, WebSocketException, InvalidHandshake, TimeoutError, EOFError):
                await self._connection()
            await asyncio.sleep(PAUSE_SECONDS)

    async def _connection(self) -> None:
        async with connect(
            self.url.replace("http", "ws", 1) + "/graphql",
            subprotocols=[Subprotocol("graphql-transport-ws")],
            open_timeout=5,
            compression=None,
            ping_interval=None,
        ) as socket:
            await socket.send(b'{"type":"connection_init"}'.decode())
            await self._subscribe(socket)
            self.connections += 1
            try:
                while True:
                    async with asyncio.timeout(SILENCE_SECONDS_MAX):
                        message = orjson.loads(await socket.recv())
                    self._take(message)
            finally:
                if socket.close_code is not None:
                    self.closed[socket.close_code] += 1

    async def _subscribe(self, socket: ClientConnection) -> None:
        async with asyncio.timeout(SILENCE_SECONDS_MAX):
            ack = orjson.loads(await socket.recv())
        assert ack["type"] == "connection_ack", ack
        variables = {"ids": self.asset_ids, "after": self.cursor}
        payload = {"query": DOCUMENT, "variables": variables}
        await socket.send(orjson.dumps({"id": "1", "type": "subscribe", "payload": payload}).decode())

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "ping":
            return
        if message["type"] != "next" or message["payload"].get("errors"):
            if self._is_passing(message):
                raise EOFError
            self.holes.append(f"unexpected: {message}")
            raise EOFError
        event = message["payload"]["data"]["priceTicks"]
        if event["kind"] == "GAP":
            self.gaps += 1
            self.seqs.clear()
        if event["kind"] == "SNAPSHOT" and self.seqs:
            self.holes.append(f"a snapshot without a GAP, with the cursor {self.cursor}")
        if event["missed"]:
            self.missed += event["missed"]
            self.seqs.clear()
        for tick in event["ticks"]:
            self._tick(tick["assetId"], tick["seq"], snapshot=event["kind"] == "SNAPSHOT")
        self.cursor = event["cursor"]

    @staticmethod
    def _is_passing(message: dict[str, Any]) -> bool:
        """Whether the server says that it cannot now: a client tries again."""
        if message["type"] != "error":
            return False
        return all(error["extensions"].get("retryable") for error in message["payload"])

    def _tick(self, asset_id: str, seq: int, *, snapshot: bool) -> None:
        last = self.seqs.get(asset_id)
        if last is not None and seq != last + 1 and not snapshot:
            self.holes.append(f"{asset_id}: {seq} after {last}")
        self.seqs[asset_id] = seq
        self.ticks += not snapshot
