"""Objects by their global ids. Each kind says here who may see one; what the caller may not see is null."""

from asyncio import gather
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Generic, TypeVar

import strawberry

from api.access import is_admin, require_scope
from api.context import Info
from api.errors import BadUserInput
from api.fields import computed
from api.loaders import Loader, Loaders
from api.node_ids import asset_node_id, decode, node_id
from api.nodes import Node
from api.queries.markets import visible_asset
from api.types.accounts import show_api_key, show_asset_request
from api.types.admin import show_account, show_audit_entry
from api.types.holdings import show_entry
from api.types.markets import show_asset, show_trade
from api.types.oracle import show_oracle_report
from api.types.orders import show_fill, show_order
from app.accounts.principals import AccountPrincipal, Scope

NODES_MAX: Final = 100

Row = TypeVar("Row")


@strawberry.type
class NodeQueries:
    """Relay's object identification."""

    @computed("The object with this id; null if there is none that the caller may see.")
    async def node(
        self,
        info: Info,
        id: Annotated[strawberry.ID, strawberry.argument(description="A global id.")],  # noqa: A002
    ) -> Node | None:
        return await find(info, id)

    @computed(f"The objects with these ids, at most {NODES_MAX}, in their order; null where there is none to be seen.")
    async def nodes(
        self, info: Info, ids: Annotated[list[strawberry.ID], strawberry.argument(description="Global ids.")]
    ) -> list[Node | None]:
        if len(ids) > NODES_MAX:
            raise BadUserInput(f"ids holds at most {NODES_MAX}; got {len(ids)}.")
        return await gather(*(find(info, each) for each in ids))


@dataclass(frozen=True, slots=True)
class Kind(Generic[Row]):
    """A kind of object that belongs to an account, or to admins alone: then it has no owner."""

    loader: Callable[[Loaders], Loader[int, Row]]
    owner: Callable[[Row], int | None]
    show: Callable[[Row], Node]
    admins: bool = True

    async def find(self, info: Info, key: int) -> Node | None:
        """The object, if the caller may see it. Raises `Forbidden` for a key without READ, whatever it asks for."""
        principal = info.context.principal
        if isinstance(principal, AccountPrincipal):
            require_scope(principal, Scope.READ)
        elif not (is_admin(principal) and self.admins):
            return None
        row = await self.loader(info.context.loaders).load(key)
        if row is None or (isinstance(principal, AccountPrincipal) and self.owner(row) != principal.account_id):
            return None
        return self.show(row)


KINDS: Final[Mapping[str, Kind[Any]]] = {
    "Order": Kind(lambda loaders: loaders.orders, lambda row: row.account_id, show_order),
    "Fill": Kind(lambda loaders: loaders.fills, lambda row: row.account_id, show_fill),
    "LedgerEntry": Kind(lambda loaders: loaders.entries, lambda row: row.account_id, show_entry),
    "AssetRequest": Kind(lambda loaders: loaders.asset_requests, lambda row: row.account_id, show_asset_request),
    "Account": Kind(lambda loaders: loaders.accounts, lambda row: row.id, show_account),
    "AuditEntry": Kind(lambda loaders: loaders.audit_entries, lambda _: None, show_audit_entry),
    "ApiKey": Kind(
        lambda loaders: loaders.api_keys,
        lambda row: row.account_id if row.revoked_at is None else None,
        show_api_key,
        admins=False,
    ),
}


async def find(info: Info, text: strawberry.ID) -> Node | None:
    """The object with this id, if it exists and the caller may see it."""
    decoded = decode(text)
    if decoded is None:
        return None
    public = _PUBLIC.get(decoded.type)
    if public is not None:
        return await public(info, decoded.key)
    kind = KINDS.get(decoded.type)
    return await kind.find(info, decoded.key[0]) if kind is not None and len(decoded.key) == 1 else None


async def _asset(info: Info, key: tuple[int, ...]) -> Node | None:
    asset = await visible_asset(info, node_id("Asset", *key))
    return None if asset is None else show_asset(asset)


async def _trade(info: Info, key: tuple[int, ...]) -> Node | None:
    trade = await info.context.loaders.trades.load((key[0], key[1])) if len(key) == 2 else None
    return None if trade is None else show_trade(trade)


async def _oracle_report(info: Info, key: tuple[int, ...]) -> Node | None:
    """A report is for whoever may see its asset."""
    report = await info.context.loaders.oracle_reports.load(key[0]) if len(key) == 1 else None
    if report is None or await visible_asset(info, asset_node_id(report.asset_id)) is None:
        return None
    return show_oracle_report(report)


_PUBLIC: Final[Mapping[str, Callable[[Info, tuple[int, ...]], Awaitable[Node | None]]]] = {
    "Asset": _asset,
    "Trade": _trade,
    "OracleReport": _oracle_report,
}
"""Kinds of objects that need no log-in."""
