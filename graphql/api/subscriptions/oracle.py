"""The stream of oracle reports: what was read of the variables that assets track."""

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
from api.types.events import OracleEvent
from api.types.oracle import show_told_report
from app.realtime.events import Reader
from app.realtime.reports import ToldReport


def _identity(told: ToldReport) -> tuple[int, int | None]:
    return told.report.position, told.report.fundamental_after


REPORTS: Final = Stream[ToldReport]("reports", show_told_report, identity=_identity)


@strawberry.type
class OracleSubscriptions:
    """Needs no log-in; reports of drafts are for admins."""

    @streamed(
        "Reports of oracles as they are made, and again when the quarantine of one has ended. Begins with a SNAPSHOT "
        "of each asset's latest report, unless after could be resumed from."
    )
    def oracle_reports(
        self,
        *,
        asset_ids: AssetIds = UNSET,
        after: After = UNSET,
        heartbeat_seconds: HeartbeatSeconds = HEARTBEAT_SECONDS_DEFAULT,
    ) -> AsyncGenerator[OracleEvent, None]:
        return opened_by_the_transport()


async def open_oracle_reports(request: StreamRequest) -> Reader:
    """Begin to read reports. Raises `Refused`."""
    heartbeat_seconds = request.heartbeat_seconds
    return await request.context.services.realtime.oracle_reports(
        sink=request.sink,
        encode=request.encoders.shared(request.selection, REPORTS),
        asset_ids=await request.asset_ids(),
        sees_drafts=request.sees_drafts,
        heartbeat_seconds=heartbeat_seconds,
        after=request.after,
    )
