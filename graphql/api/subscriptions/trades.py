"""The stream of trades: the public tape."""

from collections.abc import AsyncGenerator
from typing import Final

import strawberry
from strawberry import UNSET

from api.subscriptions.encoders import Stream
from api.subscriptions.request import (
    HEARTBEAT_SECONDS_DEFAULT,
    After,
    AssetIds,
    HeartbeatSeconds,
    StreamRequest,
    opened_by_the_transport,
    streamed,
)
from api.types.events import TradeEvent
from api.types.markets import show_trade
from app.exchange.orders import Trade
from app.realtime.events import Reader


def _identity(trade: Trade) -> tuple[int, int]:
    return trade.asset_id, trade.seq


TRADES: Final = Stream[Trade]("trades", show_trade, identity=_identity)


@strawberry.type
class TradeSubscriptions:
    """Needs no log-in, and does not tell whose the trades are."""

    @streamed(
        "Trades as they happen. Begins with an empty SNAPSHOT, whose cursor stands before the next trade, unless after "
        "could be resumed from."
    )
    def trades(
        self,
        *,
        asset_ids: AssetIds = UNSET,
        after: After = UNSET,
        heartbeat_seconds: HeartbeatSeconds = HEARTBEAT_SECONDS_DEFAULT,
    ) -> AsyncGenerator[TradeEvent, None]:
        return opened_by_the_transport()


async def open_trades(request: StreamRequest) -> Reader:
    """Begin to read trades. Raises `Refused`."""
    heartbeat_seconds = request.heartbeat_seconds
    return await request.context.services.realtime.trades(
        sink=request.sink,
        encode=request.encoders.shared(request.selection, TRADES),
        asset_ids=await request.asset_ids(),
        sees_drafts=request.sees_drafts,
        heartbeat_seconds=heartbeat_seconds,
        after=request.after,
    )
