"""The stream of what happens to one account. Read by its owner alone: nothing of it is ever shared."""

from collections.abc import AsyncGenerator
from functools import partial

import strawberry
from strawberry import UNSET

from api.access import require_scope
from api.subscriptions.request import (
    HEARTBEAT_SECONDS_DEFAULT,
    After,
    HeartbeatSeconds,
    Snapshot,
    StreamRequest,
    opened_by_the_transport,
    streamed,
)
from api.types.events import AccountEvent, show_account_event
from app.accounts.principals import Scope
from app.realtime.events import Reader


@strawberry.type
class AccountSubscriptions:
    """An account with READ; a frozen one too."""

    @streamed(
        "The caller's own orders, fills, balances and positions; never shared between accounts. Begins with a "
        "SNAPSHOT, unless snapshot is false or after could be resumed from."
    )
    def account_events(
        self,
        *,
        after: After = UNSET,
        snapshot: Snapshot = True,
        heartbeat_seconds: HeartbeatSeconds = HEARTBEAT_SECONDS_DEFAULT,
    ) -> AsyncGenerator[AccountEvent, None]:
        return opened_by_the_transport()


async def open_account_events(request: StreamRequest) -> Reader:
    """Begin to read the caller's own account. Raises `Unauthenticated`, `Forbidden` or `Refused`."""
    account_id = require_scope(request.context.principal, Scope.READ).account_id
    return await request.context.services.realtime.account_events(
        sink=request.sink,
        encode=request.encoders.own(
            request.selection, context=request.context, show=partial(show_account_event, account_id=account_id)
        ),
        account_id=account_id,
        after=request.after,
        snapshot=request.arguments["snapshot"],
        heartbeat_seconds=request.heartbeat_seconds,
    )
