"""The schema: the domains' classes assembled and guarded. Built once, at import; nothing of a domain lives here."""

from typing import Final

import strawberry
from strawberry.printer import print_schema
from strawberry.schema.config import StrawberryConfig

import api.enums  # noqa: F401 - describes the domain's enums
from api.access import guard
from api.access_table import TABLE
from api.mutations.accounts import AccountMutations
from api.mutations.admin import AdminMutations
from api.mutations.oracle import OracleMutations
from api.mutations.orders import OrderMutations
from api.queries.admin import AdminQueries
from api.queries.markets import MarketQueries
from api.queries.nodes import NodeQueries
from api.queries.platform import PlatformQueries
from api.queries.prices import PriceQueries
from api.queries.viewer import ViewerQueries
from api.scalars import SCALARS, Address
from api.subscriptions.account import AccountSubscriptions
from api.subscriptions.assets import AssetSubscriptions
from api.subscriptions.candles import CandleSubscriptions
from api.subscriptions.oracle import OracleSubscriptions
from api.subscriptions.prices import PriceSubscriptions
from api.subscriptions.trades import TradeSubscriptions
from api.types.accounts import ApiKey, AssetRequest
from api.types.admin import Account, AuditEntry
from api.types.holdings import LedgerEntry
from api.types.markets import Asset, Trade
from api.types.oracle import OracleReport
from api.types.orders import Fill, Order
from api.types.refusals import GeneralError, InsufficientBalanceError, LimitError, SlippageError


@strawberry.type(
    description=(
        "Everything that can be asked. Lists are newest first (assets: by symbol); first and last are at most 500 and "
        "do not go together."
    )
)
class Query(NodeQueries, PlatformQueries, ViewerQueries, MarketQueries, PriceQueries, AdminQueries):
    """The root of queries."""


@strawberry.type(
    description=(
        "Everything that can be done. An expected refusal is data: userErrors, with the rest of the payload null. "
        "Whatever moves money takes a key of yours and is done once for each key."
    )
)
class Mutation(AccountMutations, OrderMutations, AdminMutations, OracleMutations):
    """The root of mutations."""


@strawberry.type(
    description=(
        "Everything that can be followed. The first event of a stream is a SNAPSHOT, possibly empty; then come "
        "UPDATEs, and a HEARTBEAT when nothing happened for a while. A cursor holds under any other arguments, across "
        "processes and restarts: give the last one as after to go on from there. What cannot be replayed any more is "
        "told by a GAP, and a SNAPSHOT follows."
    )
)
class Subscription(
    PriceSubscriptions,
    TradeSubscriptions,
    CandleSubscriptions,
    AssetSubscriptions,
    AccountSubscriptions,
    OracleSubscriptions,
):
    """The root of subscriptions."""


_NODES: Final = (Asset, Trade, Order, Fill, LedgerEntry, ApiKey, AssetRequest, Account, AuditEntry, OracleReport)
_REFUSALS: Final = (GeneralError, InsufficientBalanceError, SlippageError, LimitError)
_YET_UNUSED: Final = (Address,)
"""Part of the public contract before any field takes or gives them."""

schema: Final = strawberry.Schema(
    query=Query,
    mutation=Mutation,
    subscription=Subscription,
    types=[*_NODES, *_REFUSALS, *_YET_UNUSED],
    config=StrawberryConfig(scalar_map=SCALARS),
)
guard(schema._schema, TABLE)


def export() -> str:
    """The schema in the schema definition language, as `schema.graphql` holds it."""
    return print_schema(schema) + "\n"
