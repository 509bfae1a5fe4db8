"""A server that does as the test says: graphql-transport-ws on a real socket, and scripted answers to requests."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import httpx
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from megatron_client import Client

Json = dict[str, Any]
SECONDS_MAX = 10.0
START = datetime(2026, 1, 1, tzinfo=UTC)
Answer = Callable[[Json], "Json | httpx.Response | Exception"]


class NoJitter(Random):
    def uniform(self, a: float, b: float) -> float:
        return a


class Peer:
    """One connection, as the server sees it, after its greeting."""

    def __init__(self, socket: ServerConnection, init: Json) -> None:
        self.socket = socket
        self.init = init
        self.received: asyncio.Queue[Json] = asyncio.Queue()

    async def message(self, kind: str) -> Json:
        """The next message, which must be of this type."""
        got = await asyncio.wait_for(self.received.get(), SECONDS_MAX)
        assert got["type"] == kind, got
        return got

    async def subscribed(self) -> tuple[str, Json]:
        """The next subscribe: its id and its variables."""
        got = await self.message("subscribe")
        return got["id"], got["payload"]["variables"]

    async def send(self, message: Json) -> None:
        await self.socket.send(json.dumps(message))

    async def event(self, wire_id: str, field: str, event: Json) -> None:
        await self.send({"id": wire_id, "type": "next", "payload": {"data": {field: event}}})

    async def ticks(self, wire_id: str, kind: str, *ticks: tuple[str, int], cursor: str) -> None:
        """An event of priceTicks with these (asset id, seq)."""
        await self.event(wire_id, "priceTicks", tick_event(kind, *ticks, cursor=cursor))

    async def error(self, wire_id: str, code: str, **extensions: object) -> None:
        errors = [{"message": f"it is {code}", "extensions": {"code": code, **extensions}}]
        await self.send({"id": wire_id, "type": "error", "payload": errors})

    async def close(self, code: int, reason: str = "") -> None:
        await self.socket.close(code, reason)

    def cut(self) -> None:
        self.socket.transport.abort()


class Standin:
    """The server. `answer` is asked for each HTTP request, with the request's JSON."""

    def __init__(self) -> None:
        self.url = ""
        self.peers: asyncio.Queue[Peer] = asyncio.Queue()
        self.posted: list[Json] = []
        self.tokens: list[str | None] = []
        self.pauses: list[float] = []
        self.answer: Answer = lambda _: markets("A", "B")

    async def peer(self) -> Peer:
        """The next connection."""
        return await asyncio.wait_for(self.peers.get(), SECONDS_MAX)

    async def serve(self, socket: ServerConnection) -> None:
        """Greet, then hand over what comes."""
        try:
            init = json.loads(await socket.recv())
            assert init["type"] == "connection_init"
            await socket.send('{"type":"connection_ack"}')
            peer = Peer(socket, init["payload"])
            self.peers.put_nowait(peer)
            async for message in socket:
                peer.received.put_nowait(json.loads(message))
        except ConnectionClosed:
            return

    async def post(self, request: httpx.Request) -> httpx.Response:
        """What a request is answered."""
        body = json.loads(request.content)
        self.posted.append(body)
        self.tokens.append(request.headers.get("authorization"))
        answer = self.answer(body)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json={"data": answer})

    async def pause(self, seconds: float) -> None:
        """Pauses are written down and take no time."""
        self.pauses.append(seconds)
        await asyncio.sleep(0)

    @asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[Client]:
        """A client of it, without jitter."""
        http = httpx.AsyncClient(transport=httpx.MockTransport(self.post))
        async with http, Client(self.url, http=http, chance=NoJitter(), pause=self.pause, **options) as client:
            yield client


@asynccontextmanager
async def standin() -> AsyncIterator[Standin]:
    """A server of one's own."""
    made = Standin()
    server: Server = await serve(made.serve, "127.0.0.1", 0, subprotocols=["graphql-transport-ws"])  # type: ignore[list-item]
    async with server:
        made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield made


def tick(asset_id: str, seq: int) -> Json:
    return {
        "assetId": asset_id,
        "seq": seq,
        "cause": "TRADE",
        "tradeSeq": seq,
        "at": (START + timedelta(seconds=seq)).isoformat(),
        "display": f"{seq}.000000000001",
        "market": "2",
        "fundamental": "3.5",
        "marketWeight": "0.55",
        "volume": "0.000001",
        "fundamentalStale": False,
    }


def trade(asset_id: str, seq: int) -> Json:
    amounts = dict.fromkeys(("shares", "price", "gross", "fee", "supplyAfter", "marketAfter"), "1.5")
    return {"id": f"t{seq}", "assetId": asset_id, "seq": seq, "side": "BUY", "at": START.isoformat(), **amounts}


def envelope(kind: str, *, cursor: str) -> Json:
    return {"kind": kind, "cursor": cursor, "serverTime": START.isoformat(), "missed": None}


def tick_event(kind: str, *ticks: tuple[str, int], cursor: str) -> Json:
    return {**envelope(kind, cursor=cursor), "ticks": [tick(*one) for one in ticks]}


def market(symbol: str) -> Json:
    asset_id = f"id-{symbol}"
    texts = dict.fromkeys(("name", "description", "category"), "text")
    rules = {"minNotional": "0.01", "maxNotional": "1000000", "maxSupply": "1000000"}
    return {
        "id": asset_id,
        "symbol": symbol,
        **texts,
        "status": "OPEN",
        "statusReason": None,
        "quoteCurrency": "USDC",
        "supply": "0",
        "marketPrice": "1",
        "tradeSeq": 0,
        "createdAt": START.isoformat(),
        "curve": {"basePrice": "1", "slope": "0.005", "feeRate": "0.005"},
        "tradingRules": {**rules, "maxSharesPerAccount": None, "maxRedemptionPerDay": None},
    }


def markets(*symbols: str) -> Json:
    """What the operation Markets answers."""
    page = {"hasNextPage": False, "endCursor": None}
    return {"assets": {"nodes": [market(symbol) for symbol in symbols], "pageInfo": page}}
