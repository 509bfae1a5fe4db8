"""How a subscription is opened: who may, what is asked, and the stream that answers. No transport is known here."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias
from weakref import WeakKeyDictionary

from graphql.execution.values import VariableValues

from api.access import GATES
from api.access_table import TABLE
from api.context import Context
from api.operation_cache import ReadyOperation
from api.subscriptions.account import open_account_events
from api.subscriptions.assets import open_asset_events
from api.subscriptions.candles import open_candles
from api.subscriptions.encoders import Encoders
from api.subscriptions.oracle import open_oracle_reports
from api.subscriptions.prices import open_price_ticks
from api.subscriptions.request import StreamRequest
from api.subscriptions.selection import event_selection
from api.subscriptions.trades import open_trades
from app.db import Database
from app.errors import Forbidden
from app.realtime.events import Reader, Sink
from app.services import Services

Opener: TypeAlias = Callable[[StreamRequest], Awaitable[Reader]]

OPENERS: Final[Mapping[str, Opener]] = {
    "priceTicks": open_price_ticks,
    "trades": open_trades,
    "candles": open_candles,
    "assetEvents": open_asset_events,
    "accountEvents": open_account_events,
    "oracleReports": open_oracle_reports,
}
_ENCODERS: "WeakKeyDictionary[Database, Encoders]" = WeakKeyDictionary()
"""The process's encoders, for each database that it has open."""


async def open_subscription(
    *, ready: ReadyOperation, variables: VariableValues, context: Context, sink: Sink
) -> Reader:
    """Open the operation's one root field; events go to `sink` from now on, perhaps before this returns.

    Raises what the client must be told: `Refused`, `Unauthenticated`, `Forbidden`, or `GraphQLError` for an argument of
    which the value is not valid.
    """
    selection = event_selection(ready.operation, variables)
    _, rules = TABLE["Subscription"]
    gate = GATES.get(rules[selection.name])
    if gate is not None and not gate(context.principal):
        raise Forbidden(f"{selection.name} is not for you.")
    request = StreamRequest(selection=selection, context=context, sink=sink, encoders=encoders_of(context.services))
    return await OPENERS[selection.name](request)


def encoders_of(services: Services) -> Encoders:
    """The encoders that all readers of this process share."""
    encoders = _ENCODERS.get(services.database)
    if encoders is None:
        encoders = _ENCODERS[services.database] = Encoders(services)
    return encoders
