"""The peer: stock Strawberry on uvicorn, serving the same ticks from the same Redis stream as its documentation shows.

Run as `python -m benchmarks.stock PORT REDIS_URL`. One async generator a reader, fed by a queue of its own.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from enum import Enum

import strawberry
import uvicorn
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from strawberry.asgi import GraphQL
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL

from api.node_ids import node_id
from app.pricing.ticks import TICKS_STREAM, Tick, decode_ticks
from benchmarks.streams_text import price_text


@strawberry.enum
class Cause(Enum):
    """As the market's."""

    OPEN = "OPEN"
    TRADE = "TRADE"
    ORACLE = "ORACLE"
    DECAY = "DECAY"


@strawberry.enum
class Kind(Enum):
    """As the market's."""

    SNAPSHOT = "SNAPSHOT"
    UPDATE = "UPDATE"


@strawberry.type
class PriceTick:
    """As the market's; decimals as text."""

    asset_id: strawberry.ID
    seq: int
    cause: Cause
    trade_seq: int
    at: datetime
    display: str
    market: str
    fundamental: str
    market_weight: str
    volume: str
    fundamental_stale: bool


@strawberry.type
class PriceEvent:
    """As the market's."""

    kind: Kind
    ticks: list[PriceTick]
    cursor: str
    server_time: datetime
    missed: int | None


def shown(tick: Tick) -> PriceTick:
    """A tick as a client sees it."""
    return PriceTick(
        asset_id=strawberry.ID(node_id("Asset", tick.asset_id)),
        seq=tick.seq,
        cause=Cause(tick.cause.value),
        trade_seq=tick.trade_seq,
        at=tick.at,
        display=price_text(tick.display, 12),
        market=price_text(tick.market, 12),
        fundamental=price_text(tick.fundamental, 12),
        market_weight=price_text(tick.market_weight, 9),
        volume=price_text(tick.volume, 6),
        fundamental_stale=tick.stale,
    )


readers: set[asyncio.Queue[PriceEvent]] = set()
by_asset: dict[str, set[asyncio.Queue[PriceEvent]]] = {}


@strawberry.type
class Query:
    """A schema has one."""

    ok: bool = True


@strawberry.type
class Subscription:
    """The one subscription."""

    @strawberry.subscription
    async def price_ticks(
        self, asset_ids: list[strawberry.ID], heartbeat_seconds: int = 5
    ) -> AsyncGenerator[PriceEvent, None]:
        """Ticks of the assets."""
        queue: asyncio.Queue[PriceEvent] = asyncio.Queue()
        for asset_id in asset_ids:
            by_asset.setdefault(asset_id, set()).add(queue)
        try:
            yield PriceEvent(kind=Kind.SNAPSHOT, ticks=[], cursor="p0", server_time=datetime.now(UTC), missed=None)
            while True:
                yield await queue.get()
        finally:
            for asset_id in asset_ids:
                by_asset[asset_id].discard(queue)


async def feed(url: str) -> None:
    """Hand every tick to those who want it."""
    redis: Redis = Redis.from_url(url)
    last: bytes | str = "$"
    while True:
        for _, entries in await redis.xread({TICKS_STREAM: last}, count=100, block=1_000) or []:
            last = entries[-1][0]
            for _, fields in entries:
                for tick in decode_ticks(fields[b"ticks"]):
                    event = PriceEvent(
                        kind=Kind.UPDATE,
                        ticks=[shown(tick)],
                        cursor=f"p{tick.position}",
                        server_time=datetime.now(UTC),
                        missed=None,
                    )
                    for queue in by_asset.get(event.ticks[0].asset_id, ()):
                        queue.put_nowait(event)


def main() -> None:
    """Serve until stopped."""
    port, redis_url = int(sys.argv[1]), sys.argv[2]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(feed(redis_url))
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    schema = strawberry.Schema(query=Query, subscription=Subscription)
    graphql: GraphQL[None, None] = GraphQL(schema, subscription_protocols=[GRAPHQL_TRANSPORT_WS_PROTOCOL])
    application = Starlette(routes=[WebSocketRoute("/graphql", graphql)], lifespan=lifespan)
    uvicorn.run(
        application, host="127.0.0.1", port=port, loop="uvloop", ws_per_message_deflate=False, log_level="warning"
    )


if __name__ == "__main__":
    main()
