"""The readers: a process that holds many WebSockets, each with one subscription, and says what came and when.

Run as `python -m benchmarks.readers`; takes commands as JSON lines on standard input and answers each with a line. The
same for every server under test. Frames are cut and counted as bytes, so that on a machine of two cores the readers
take as little as they can; every `CHECKED_EVERY`th reader parses each event and checks that seqs follow one another.
"""

import asyncio
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import orjson
import uvloop

CHECKED_EVERY = 25
INIT = b'{"type":"connection_init","payload":{}}'
MASK = 0x80
"""Clients must mask; the mask 0 leaves the bytes as they are."""


def client_frame(payload: bytes, opcode: int = 1) -> bytes:
    """A masked frame."""
    head = bytes([0x80 | opcode])
    if len(payload) < 126:
        head += bytes([MASK | len(payload)])
    else:
        head += bytes([MASK | 126]) + len(payload).to_bytes(2, "big")
    return head + bytes(4) + payload


class Reader(asyncio.Protocol):
    """One connection with one subscription."""

    def __init__(
        self, number: int, port: int, document: str, variables: dict[str, Any], *, timed: bool, checked: bool = False
    ) -> None:
        self.number = number
        self._port = port
        self._subscribe = {"id": "1", "type": "subscribe", "payload": {"query": document, "variables": variables}}
        self._timed = timed
        self._checks = checked or number % CHECKED_EVERY == 0
        self._buffer = b""
        self._opened = False
        self.live: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ticks = 0
        self.frames = 0
        self.faults: list[str] = []
        self.cursor = ""
        self.received: list[tuple[float, bytes]] = []
        """Events and when they came, by the clock that all processes of this machine share; read afterwards."""
        self._seqs: dict[str, int] = defaultdict(int)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment] # TCP gives a Transport
        self.transport.write(
            f"GET /graphql HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        if not self._opened:
            head, separator, rest = buffer.partition(b"\r\n\r\n")
            if not separator:
                self._buffer = buffer
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self._fail(f"no upgrade: {head[:200]!r} {rest[:200]!r}")
                return
            self._opened = True
            self.transport.write(client_frame(INIT))
            buffer = rest
        at, end = 0, len(buffer)
        while end - at >= 2:
            length, start = buffer[at + 1], at + 2
            if length == 126:
                if end - at < 4:
                    break
                length, start = (buffer[at + 2] << 8) | buffer[at + 3], at + 4
            elif length == 127:
                if end - at < 10:
                    break
                length, start = int.from_bytes(buffer[at + 2 : at + 10], "big"), at + 10
            if end - start < length:
                break
            self._frame(buffer[at] & 15, buffer[start : start + length])
            at = start + length
        self._buffer = buffer[at:]

    def _frame(self, opcode: int, payload: bytes) -> None:
        if opcode != 1:
            if opcode == 9:
                self.transport.write(client_frame(payload, 10))
            elif opcode == 8:
                self._fail(f"closed: {payload!r}")
            return
        ticks = payload.count(b'"seq":')
        if ticks and self.live.done():
            self.ticks += ticks
            self.frames += 1
            if self._timed:
                self.received.append((time.time(), payload))
            if self._checks:
                self._check(payload)
            return
        self._message(payload)

    def _message(self, payload: bytes) -> None:
        message = orjson.loads(payload)
        if message["type"] == "connection_ack":
            self.transport.write(client_frame(orjson.dumps(self._subscribe)))
        elif message["type"] == "ping":
            self.transport.write(client_frame(b'{"type":"pong"}'))
        elif message["type"] == "next":
            if message["payload"].get("errors"):
                self._fail(str(message))
                return
            self._look(message)
            if not self.live.done():
                self.live.set_result(None)
        else:
            self._fail(str(message))

    def _check(self, payload: bytes) -> None:
        self._look(orjson.loads(payload))

    def _look(self, message: dict[str, Any]) -> None:
        event = message["payload"]["data"]["priceTicks"]
        self.cursor = event["cursor"]
        if event["missed"] or event["kind"] == "GAP":
            self.faults.append(f"missed {event['missed']}, {event['kind']}")
        for tick in event["ticks"]:
            last = self._seqs[tick["assetId"]]
            if last and event["kind"] == "UPDATE" and tick["seq"] != last + 1:
                self.faults.append(f"seq {tick['seq']} after {last}")
            self._seqs[tick["assetId"]] = tick["seq"]

    def _fail(self, why: str) -> None:
        self.faults.append(why[:500])
        if not self.live.done():
            self.live.set_exception(RuntimeError(f"reader {self.number}: {why}"))
        self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.live.done():
            self.live.set_exception(ConnectionError(f"reader {self.number}: connection lost before it was live"))
            self.live.exception()


class Readers:
    """All readers of the process."""

    def __init__(self) -> None:
        self.all: list[Reader] = []
        self.stalled: list[Reader] = []

    async def open(self, command: dict[str, Any]) -> dict[str, Any]:
        """Connect `variables`' readers; every `resumed_every`th has been cut and has resumed by its cursor."""
        batch = 50
        for begin in range(0, len(command["variables"]), batch):
            await asyncio.gather(
                *(
                    self._open(begin + i, variables, command)
                    for i, variables in enumerate(command["variables"][begin : begin + batch])
                )
            )
        self.all.sort(key=lambda reader: reader.number)
        return {"open": len(self.all)}

    async def _open(self, number: int, variables: dict[str, Any], command: dict[str, Any]) -> None:
        port, document, resumed_every = command["port"], command["document"], command.get("resumed_every") or 0
        timed, checked = bool(command.get("timed")), bool(command.get("checked"))
        resumes = resumed_every and number % resumed_every == 1
        if resumes:
            first = await self._connect(Reader(number, port, document, variables, timed=False))
            first.transport.close()
            variables = {**variables, "after": first.cursor}
        reader = Reader(number, port, document, variables, timed=timed, checked=checked)
        if resumes:
            # A reader that resumes without having missed anything is told nothing until something happens.
            reader.live.set_result(None)
            await asyncio.get_running_loop().create_connection(lambda: reader, "127.0.0.1", port)
        else:
            await self._connect(reader)
        self.all.append(reader)

    async def _connect(self, reader: Reader) -> Reader:
        await asyncio.get_running_loop().create_connection(lambda: reader, "127.0.0.1", reader._port)
        async with asyncio.timeout(60):
            await reader.live
        return reader

    async def stall(self, command: dict[str, Any]) -> dict[str, Any]:
        """Every `every`th reader stops reading."""
        self.stalled = self.all[:: command["every"]]
        self.all = [reader for reader in self.all if reader not in self.stalled]
        for reader in self.stalled:
            reader.transport.pause_reading()
        return {"stalled": len(self.stalled)}

    async def reset(self, _: dict[str, Any]) -> dict[str, Any]:
        """Count from here."""
        for reader in self.all:
            reader.ticks = reader.frames = 0
            reader.received.clear()
        return {}

    async def collect(self, _: dict[str, Any]) -> dict[str, Any]:
        """What has come since the reset, and when each trade's tick came to each reader: [asset, trade seq, time]."""
        arrivals = [
            (tick["assetId"], tick["tradeSeq"], at) for at, tick in self._arrivals() if tick["cause"] == "TRADE"
        ]
        return {**self._result(short=0), "arrivals": arrivals}

    def _arrivals(self) -> Iterator[tuple[float, dict[str, Any]]]:
        for reader in self.all:
            for at, payload in reader.received:
                for tick in orjson.loads(payload)["payload"]["data"]["priceTicks"]["ticks"]:
                    yield at, tick

    async def wait(self, command: dict[str, Any]) -> dict[str, Any]:
        """Wait until every reader has `ticks` since the reset, or `each[i]` where they differ."""
        wanted = command.get("each") or [command["ticks"]] * len(self.all)
        end = time.monotonic() + command["seconds"]
        while time.monotonic() < end and any(r.ticks < w for r, w in zip(self.all, wanted, strict=True)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        short = sum(r.ticks != w for r, w in zip(self.all, wanted, strict=True))
        return self._result(short=short)

    def _result(self, *, short: int) -> dict[str, Any]:
        faults = [fault for reader in self.all for fault in reader.faults]
        latencies = sorted((at - datetime.fromisoformat(tick["at"]).timestamp()) * 1e3 for at, tick in self._arrivals())
        return {
            "short": short,
            "ticks": sum(reader.ticks for reader in self.all),
            "frames": sum(reader.frames for reader in self.all),
            "faults": faults[:5],
            "p50_ms": statistics.median(latencies) if latencies else None,
            "p99_ms": latencies[int(len(latencies) * 0.99)] if latencies else None,
        }

    async def close(self, _: dict[str, Any]) -> dict[str, Any]:
        """Close everything."""
        for reader in self.all + self.stalled:
            reader.transport.abort()
        self.all, self.stalled = [], []
        return {}


async def main() -> None:
    """Take commands until the input ends."""
    readers = Readers()
    loop = asyncio.get_running_loop()
    source = asyncio.StreamReader(limit=2**24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(source), sys.stdin)
    while line := await source.readline():
        command = json.loads(line)
        try:
            answer = await getattr(readers, command["do"])(command)
        except Exception as error:
            answer = {"error": repr(error)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(main())
