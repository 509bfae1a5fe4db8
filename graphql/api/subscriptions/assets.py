"""The stream of assets: what is listed, and under which rules."""

from collections.abc import AsyncGenerator
from typing import Final

import strawberry
from strawberry import UNSET

from api.subscriptions.encoders import Stream
from api.subscriptions.request import (
    HEARTBEAT_SECONDS_DEFAULT,
    After,
    HeartbeatSeconds,
    StreamRequest,
    opened_by_the_transport,
    streamed,
)
from api.types.events import AssetEvent
from api.types.markets import show_asset
from app.exchange.assets import Asset
from app.realtime.events import Reader

ASSETS: Final = Stream[Asset]("assets", show_asset)


@strawberry.type
class AssetSubscriptions:
    """Needs no log-in; drafts are for admins."""

    @streamed(
        "Assets as they are created, or changed in status or rules. Begins with a SNAPSHOT, unless after could be "
        "resumed from."
    )
    def asset_events(
        self, *, after: After = UNSET, heartbeat_seconds: HeartbeatSeconds = HEARTBEAT_SECONDS_DEFAULT
    ) -> AsyncGenerator[AssetEvent, None]:
        return opened_by_the_transport()


async def open_asset_events(request: StreamRequest) -> Reader:
    """Begin to read changes of assets. Raises `Refused`."""
    return await request.context.services.realtime.asset_events(
        sink=request.sink,
        encode=request.encoders.shared(request.selection, ASSETS),
        sees_drafts=request.sees_drafts,
        heartbeat_seconds=request.heartbeat_seconds,
        after=request.after,
    )
