"""The load generator: a process of its own that keeps N connections busy with orders, and counts what comes back.

Run as `python -m benchmarks.load`; reads its task as JSON on standard input and prints a JSON result. Requests are
written to plain sockets as prepared bytes, so that on a machine of two cores the generator takes as little as it can.
"""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import uvloop

OPERATION = (
    "mutation OrderPlace($input: OrderPlaceInput!) { orderPlace(input: $input) {"
    " order { id status filledShares averagePrice gross fee } userErrors { code message } } }"
)


@dataclass
class Tally:
    """What came back."""

    acknowledged: int = 0
    refused: int = 0
    failed: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    first_failure: str = ""


class Client(asyncio.Protocol):
    """One connection: sends the next order when the last is answered."""

    def __init__(self, requests: Iterator[bytes], tally: Tally) -> None:
        self.requests = requests
        self.tally = tally
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._buffer = b""
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment] # TCP gives a Transport
        self._next()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        at = head.lower().index(b"content-length:") + 15
        if len(body) < int(head[at:].split(b"\r", 1)[0]):
            return
        self._buffer = b""
        self._count(head, body)
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.tally.failed += 1
            self.done.set_result(None)

    def _count(self, head: bytes, body: bytes) -> None:
        tally = self.tally
        tally.latencies_ms.append((time.perf_counter() - self._sent_at) * 1e3)
        if b'"FILLED"' in body:
            tally.acknowledged += 1
        elif b" 200 " in head[:16] and b'"userErrors":[{' in body:
            tally.refused += 1
        else:
            tally.failed += 1
            tally.first_failure = tally.first_failure or (head + body)[:400].decode(errors="replace")

    def _next(self) -> None:
        request = next(self.requests, None)
        if request is None:
            self.done.set_result(None)
            self.transport.close()
            return
        self._sent_at = time.perf_counter()
        self.transport.write(request)


def requests(task: dict[str, object]) -> Iterator[bytes]:
    """The orders, one after the other over all accounts: HTTP/1.1 requests as bytes."""
    tokens = task["tokens"]
    if not isinstance(tokens, list):
        raise TypeError("tokens must be a list")
    operation, asset_id, tag = json.dumps(OPERATION), task["asset_id"], task["tag"]
    for number, token in zip(range(int(str(task["total"]))), itertools.cycle(tokens), strict=False):
        body = (
            f'{{"query":{operation},"variables":{{"input":{{"assetId":"{asset_id}","side":"BUY",'
            f'"clientOrderId":"{tag}-{number}","shares":"0.01"}}}}}}'
        ).encode()
        yield (
            f"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Accept: application/json\r\nAuthorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body


async def run(task: dict[str, object]) -> dict[str, object]:
    """Send everything and say what happened."""
    tally = Tally()
    work = requests(task)
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    clients = [
        (await loop.create_connection(lambda: Client(work, tally), "127.0.0.1", int(str(task["port"]))))[1]
        for _ in range(int(str(task["connections"])))
    ]
    await asyncio.gather(*(client.done for client in clients))
    latencies = sorted(tally.latencies_ms)
    return {
        "seconds": time.perf_counter() - started,
        "acknowledged": tally.acknowledged,
        "refused": tally.refused,
        "failed": tally.failed,
        "p50_ms": latencies[len(latencies) // 2],
        "p99_ms": latencies[len(latencies) * 99 // 100],
        "first_failure": tally.first_failure,
    }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(json.load(sys.stdin)))))
