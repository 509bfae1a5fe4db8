"""Accounts as their owners see them: the viewer, sessions, API keys and asset requests."""

from datetime import datetime
from typing import Annotated

import strawberry
from strawberry import UNSET

from api.access import is_admin
from api.context import Info
from api.fields import computed
from api.inputs import given
from api.node_ids import key_or_nothing, node_id
from api.nodes import Node
from api.pagination import PAGE_DEFAULT, After, First, connect, window_by_id
from api.types.holdings import (
    Balance,
    LedgerEntryConnection,
    Portfolio,
    Position,
    PositionConnection,
    load_position,
    show_balance,
    show_entry,
    show_portfolio,
    show_position,
)
from api.types.markets import Asset, show_asset
from api.types.orders import FillConnection, Order, OrderConnection, show_fill, show_order
from app.accounts.api_keys import ApiKey as ApiKeyRow
from app.accounts.api_keys import live_api_keys
from app.accounts.asset_requests import AssetRequest as AssetRequestRow
from app.accounts.asset_requests import AssetRequestStatus, asset_requests_page
from app.accounts.principals import Scope
from app.accounts.profiles import Account as AccountRow
from app.accounts.sessions import NewSession
from app.exchange.assets import AssetStatus
from app.exchange.reads import fills_page, holdings, open_positions_page, order_by_client_id, orders_page
from app.exchange.valuation import value_portfolio
from app.ledger.reads import cash_of, statement_page
from app.paging import Window
from app.text import is_showable

ASSET_REQUESTS_MAX = 500
"""Of an account's requests, the newest that `assetRequests` shows."""


@strawberry.type(description="A log-in. Send the token as `Authorization: Bearer ...`.")
class Session:
    """Shown once, when it begins."""

    token: str = strawberry.field(description="The secret that stands for it. It is shown only here.")
    expires_at: datetime = strawberry.field(description="When it ends at the latest; logOut ends it earlier.")


@strawberry.type(description="A bot's credential. Only a session makes and revokes keys.")
class ApiKey(Node):
    """Without its secret, which is shown once."""

    name: str = strawberry.field(description="What its owner calls it.")
    prefix: str = strawberry.field(description="How its secret begins, to tell keys apart.")
    scopes: list[Scope] = strawberry.field(description="What it may do.")
    created_at: datetime = strawberry.field(description="When it was made.")
    last_used_at: datetime | None = strawberry.field(
        description="When it was last used, up to a minute behind; null if never."
    )


@strawberry.type(description="An account's wish for an asset, and what an admin made of it.")
class AssetRequest(Node):
    """As its owner and admins see it."""

    name: str = strawberry.field(description="What the asset should be called.")
    description: str = strawberry.field(description="What it should track.")
    source_hint: str | None = strawberry.field(description="Where its data could come from.")
    status: AssetRequestStatus = strawberry.field(description="Where it stands.")
    admin_notes: str | None = strawberry.field(description="What the admin said to it.")
    created_at: datetime = strawberry.field(description="When it was submitted.")
    asset_key: strawberry.Private[int | None]

    @computed("The asset that was made for it; null while there is none that can be seen.")
    async def asset(self, info: Info) -> Asset | None:
        if self.asset_key is None:
            return None
        row = await info.context.loaders.assets.load(self.asset_key)
        hidden = row is None or (row.status is AssetStatus.DRAFT and not is_admin(info.context.principal))
        return None if row is None or hidden else show_asset(row)


@strawberry.type(description="The caller's own account.")
class Viewer:
    """Its lists are read by its id, whoever asks: the gate stands before the viewer."""

    id: strawberry.ID = strawberry.field(description="The Account node's id.")
    email: str = strawberry.field(description="The e-mail that it logs in with.")
    created_at: datetime = strawberry.field(description="When it signed up.")
    frozen: bool = strawberry.field(description="Whether it is frozen: then it reads, and moves nothing.")
    key: strawberry.Private[int]

    @computed("Its money, one for each currency.")
    async def balances(self, info: Info) -> list[Balance]:
        return [show_balance(row) for row in await info.context.loaders.cash.load(self.key) or ()]

    @computed("Its positions that hold shares, newest first.")
    async def positions(self, info: Info, first: First = PAGE_DEFAULT, after: After = UNSET) -> PositionConnection:
        loaders, window = info.context.loaders, window_by_id(first=first, after=after)
        async with info.context.services.database.acquire() as connection:
            page = await open_positions_page(connection=connection, account_id=self.key, window=window)
        found = await loaders.holdings.load_many([(row.account_id, row.asset_id) for row in page.rows])
        now = {row.id: holding for row, holding in zip(page.rows, found, strict=True) if holding}
        return connect(
            PositionConnection,
            page,
            show=lambda row: show_position(*now[row.id]),
            key=lambda row: row.id,
        )

    @computed("Its position in an asset, a closed one too; null if it never had one.")
    async def position(
        self, info: Info, asset_id: Annotated[strawberry.ID, strawberry.argument(description="The asset's id.")]
    ) -> Position | None:
        return await load_position(info, account_id=self.key, asset_id=key_or_nothing(asset_id, "Asset"))

    @computed("Its own side of its trades, newest first.")
    async def fills(
        self,
        info: Info,
        first: First = PAGE_DEFAULT,
        after: After = UNSET,
        asset_id: Annotated[strawberry.ID | None, strawberry.argument(description="Only fills in this asset.")] = UNSET,
    ) -> FillConnection:
        window = window_by_id(first=first, after=after)
        async with info.context.services.database.acquire() as connection:
            page = await fills_page(
                connection=connection, account_id=self.key, asset_id=_asset_key(asset_id), window=window
            )
        return connect(FillConnection, page, show=show_fill, key=lambda row: row.id)

    @computed("Its orders, newest first, REJECTED ones too.")
    async def orders(
        self,
        info: Info,
        first: First = PAGE_DEFAULT,
        after: After = UNSET,
        asset_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="Only orders in this asset.")
        ] = UNSET,
        open: Annotated[  # noqa: A002 - the contract's name
            bool | None, strawberry.argument(description="true: only those that still wait; false: only the others.")
        ] = UNSET,
    ) -> OrderConnection:
        window = window_by_id(first=first, after=after)
        async with info.context.services.database.acquire() as connection:
            page = await orders_page(
                connection=connection,
                account_id=self.key,
                asset_id=_asset_key(asset_id),
                is_open=given(open),
                window=window,
            )
        return connect(OrderConnection, page, show=show_order, key=lambda row: row.id)

    @computed("Its order with this clientOrderId; null if there is none.")
    async def order(
        self,
        info: Info,
        client_order_id: Annotated[str, strawberry.argument(description="The key that the order was placed with.")],
    ) -> Order | None:
        if not all(is_showable(character) for character in client_order_id):
            return None
        async with info.context.services.database.acquire() as connection:
            row = await order_by_client_id(connection=connection, account_id=self.key, client_order_id=client_order_id)
        return None if row is None else show_order(row)

    @computed("Its statement: every entry in money and in shares, newest first.")
    async def ledger(self, info: Info, first: First = PAGE_DEFAULT, after: After = UNSET) -> LedgerEntryConnection:
        return await load_statement(info, self.key, first=first, after=after)

    @computed("All that it has, one for each quote currency: currencies are never added up.")
    async def portfolio(self, info: Info) -> list[Portfolio]:
        async with info.context.services.database.snapshot() as connection:
            cash = (await cash_of(connection=connection, account_ids=[self.key]))[self.key]
            held = await holdings(connection=connection, account_id=self.key)
        return [
            show_portfolio(
                each.currency,
                value_portfolio(
                    cash=each.total, holdings=[pair for pair in held if pair[1].quote_currency == each.currency]
                ),
            )
            for each in cash
        ]

    @computed("Its API keys that are not revoked, newest first.")
    async def api_keys(self, info: Info) -> list[ApiKey]:
        async with info.context.services.database.acquire() as connection:
            return [show_api_key(row) for row in await live_api_keys(connection=connection, account_id=self.key)]

    @computed(f"Its requests for assets, newest first, at most {ASSET_REQUESTS_MAX}.")
    async def asset_requests(self, info: Info) -> list[AssetRequest]:
        async with info.context.services.database.acquire() as connection:
            page = await asset_requests_page(
                connection=connection, account_id=self.key, window=Window(ASSET_REQUESTS_MAX)
            )
        return [show_asset_request(row) for row in page.rows]


async def load_viewer(info: Info, account_id: int) -> Viewer:
    """The viewer of an account that exists."""
    row = await info.context.loaders.accounts.load(account_id)
    if row is None:
        raise LookupError(f"account {account_id} has a credential and does not exist")
    return show_viewer(row)


def show_viewer(row: AccountRow) -> Viewer:
    """An account as its owner sees it."""
    return Viewer(
        id=node_id("Account", row.id), email=row.email, created_at=row.created_at, frozen=row.frozen, key=row.id
    )


async def load_statement(info: Info, account_id: int, *, first: int | None, after: str | None) -> LedgerEntryConnection:
    """A page of an account's statement."""
    window = window_by_id(first=first, after=after)
    async with info.context.services.database.acquire() as connection:
        page = await statement_page(connection=connection, account_id=account_id, window=window)
    return connect(LedgerEntryConnection, page, show=show_entry, key=lambda row: row.id)


def show_session(session: NewSession) -> Session:
    """A session just opened, with its token."""
    return Session(token=session.token, expires_at=session.expires_at)


def show_api_key(row: ApiKeyRow) -> ApiKey:
    """A key without its secret."""
    return ApiKey(
        id=node_id("ApiKey", row.id),
        name=row.name,
        prefix=row.prefix,
        scopes=[scope for scope in Scope if scope in row.scopes],
        created_at=row.created_at,
        last_used_at=row.last_used_at,
    )


def show_asset_request(row: AssetRequestRow) -> AssetRequest:
    """A request as its owner and admins see it."""
    return AssetRequest(
        id=node_id("AssetRequest", row.id),
        name=row.name,
        description=row.description,
        source_hint=row.source_hint,
        status=row.status,
        admin_notes=row.admin_notes,
        created_at=row.created_at,
        asset_key=row.asset_id,
    )


def _asset_key(asset_id: str | None) -> int | None:
    """The asset to filter by: None for any, 0, which none has, for what is no asset's id."""
    text = given(asset_id)
    return None if text is None else key_or_nothing(text, "Asset")
