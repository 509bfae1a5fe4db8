"""The stream of candles: charts that move."""

from collections.abc import AsyncGenerator
from typing import Annotated, Final

import strawberry

from api.subscriptions.encoders import Stream
from api.subscriptions.request import (
    ASSET_IDS_MAX,
    HEARTBEAT_SECONDS_DEFAULT,
    HeartbeatSeconds,
    StreamRequest,
    opened_by_the_transport,
    streamed,
)
from api.types.events import CandleEvent
from api.types.markets import show_candle
from app.errors import invalid
from app.pricing.candles import Candle
from app.pricing.intervals import Interval, PriceKind
from app.realtime.events import Reader

CANDLES: Final = Stream[Candle]("candles", show_candle)


@strawberry.type
class CandleSubscriptions:
    """Needs no log-in; candles of drafts are for admins."""

    @streamed("Candles of an interval as they change. State, not events: each connection begins with a SNAPSHOT.")
    def candles(
        self,
        *,
        asset_ids: Annotated[
            list[strawberry.ID], strawberry.argument(description=f"The assets, 1 to {ASSET_IDS_MAX}.")
        ],
        interval: Annotated[Interval, strawberry.argument(description="How long the candles last.")],
        price: Annotated[
            PriceKind, strawberry.argument(description="Which price they are made of.")
        ] = PriceKind.DISPLAY,
        heartbeat_seconds: HeartbeatSeconds = HEARTBEAT_SECONDS_DEFAULT,
    ) -> AsyncGenerator[CandleEvent, None]:
        return opened_by_the_transport()


async def open_candles(request: StreamRequest) -> Reader:
    """Begin to read candles. Raises `Refused`."""
    heartbeat_seconds = request.heartbeat_seconds
    asset_ids = await request.asset_ids()
    if asset_ids is None:
        raise invalid("assetIds names the assets; got null.", "assetIds")
    return await request.context.services.realtime.candles(
        sink=request.sink,
        encode=request.encoders.shared(request.selection, CANDLES),
        asset_ids=asset_ids,
        interval=request.arguments["interval"],
        price=request.arguments["price"],
        sees_drafts=request.sees_drafts,
        heartbeat_seconds=heartbeat_seconds,
    )
