"""The schema: the domains' classes assembled and guarded. Built once, at import; nothing of a domain lives here."""

from typing import Final

import strawberry
from strawberry.printer import print_schema
from strawberry.schema.config import StrawberryConfig

from api.access import guard
from api.access_table import TABLE
from api.enums import PriceKind
from api.mutations.accounts import AccountMutations
from api.mutations.admin import AdminMutations
from api.mutations.orders import OrderMutations
from api.queries.admin import AdminQueries
from api.queries.markets import MarketQueries
from api.queries.nodes import NodeQueries
from api.queries.platform import PlatformQueries
from api.queries.viewer import ViewerQueries
from api.scalars import SCALARS, Address, Cursor
from api.types.accounts import ApiKey, AssetRequest
from api.types.admin import Account, AuditEntry
from api.types.holdings import LedgerEntry
from api.types.markets import Asset, CandleSeries, Trade
from api.types.orders import Fill, Order
from api.types.refusals import GeneralError, InsufficientBalanceError, LimitError, SlippageError


@strawberry.type(
    description=(
        "Everything that can be asked. Lists are newest first (assets: by symbol); first and last are at most 500 and "
        "do not go together."
    )
)
class Query(NodeQueries, PlatformQueries, ViewerQueries, MarketQueries, AdminQueries):
    """The root of queries."""


@strawberry.type(
    description=(
        "Everything that can be done. An expected refusal is data: userErrors, with the rest of the payload null. "
        "Whatever moves money takes a key of yours and is done once for each key."
    )
)
class Mutation(AccountMutations, OrderMutations, AdminMutations):
    """The root of mutations."""


_NODES: Final = (Asset, Trade, Order, Fill, LedgerEntry, ApiKey, AssetRequest, Account, AuditEntry)
_REFUSALS: Final = (GeneralError, InsufficientBalanceError, SlippageError, LimitError)
_YET_UNUSED: Final = (CandleSeries, PriceKind, Cursor, Address)
"""Part of the public contract before any field takes or gives them."""

schema: Final = strawberry.Schema(
    query=Query,
    mutation=Mutation,
    types=[*_NODES, *_REFUSALS, *_YET_UNUSED],
    config=StrawberryConfig(scalar_map=SCALARS),
)
guard(schema._schema, TABLE)


def export() -> str:
    """The schema in the schema definition language, as `schema.graphql` holds it."""
    return print_schema(schema) + "\n"
