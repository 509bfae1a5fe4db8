"""The stream of ticks."""

from collections.abc import AsyncGenerator
from typing import Annotated, Final

import strawberry
from strawberry import UNSET

from api.subscriptions.encoders import Stream
from api.subscriptions.request import (
    HEARTBEAT_SECONDS_DEFAULT,
    After,
    AssetIds,
    HeartbeatSeconds,
    Snapshot,
    StreamRequest,
    opened_by_the_transport,
    streamed,
)
from api.types.events import PriceEvent, Throttle
from api.types.markets import show_tick
from app.pricing.ticks import Tick
from app.realtime.events import Reader, TickMode


def _identity(tick: Tick) -> tuple[int, int] | None:
    # What stands in for the tick of an asset that no engine has ticked yet has seq 0, and does change.
    return (tick.asset_id, tick.seq) if tick.seq else None


TICKS: Final = Stream[Tick]("ticks", show_tick, identity=_identity)


@strawberry.type
class PriceSubscriptions:
    """Needs no log-in; ticks of drafts are for admins."""

    @streamed(
        "Ticks as they are made. Begins with a SNAPSHOT of each asset's newest tick, unless snapshot is false or after "
        "could be resumed from."
    )
    def price_ticks(
        self,
        *,
        asset_ids: AssetIds = UNSET,
        after: After = UNSET,
        snapshot: Snapshot = True,
        mode: Annotated[TickMode, strawberry.argument(description="Whether every tick comes.")] = TickMode.ALL,
        throttle: Annotated[Throttle, strawberry.argument(description="How often ticks come at most.")] = Throttle.NONE,
        heartbeat_seconds: HeartbeatSeconds = HEARTBEAT_SECONDS_DEFAULT,
    ) -> AsyncGenerator[PriceEvent, None]:
        return opened_by_the_transport()


async def open_price_ticks(request: StreamRequest) -> Reader:
    """Begin to read ticks. Raises `Refused`."""
    arguments = request.arguments
    heartbeat_seconds = request.heartbeat_seconds
    return await request.context.services.realtime.price_ticks(
        sink=request.sink,
        encode=request.encoders.shared(request.selection, TICKS),
        asset_ids=await request.asset_ids(),
        sees_drafts=request.sees_drafts,
        mode=arguments["mode"],
        throttle_ms=arguments["throttle"].milliseconds,
        heartbeat_seconds=heartbeat_seconds,
        after=request.after,
        snapshot=arguments["snapshot"],
    )
