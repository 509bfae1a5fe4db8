"""The public market: assets, trades, quotes."""

from typing import Annotated

import strawberry
from strawberry import UNSET

from api.access import is_admin
from api.context import Info
from api.errors import BadUserInput
from api.fields import computed
from api.inputs import given
from api.node_ids import key_of, key_or_nothing
from api.pagination import After, Before, First, Last, connect, window_by_id, window_by_text
from api.scalars import Decimal, Seq
from api.types.markets import (
    Asset,
    AssetConnection,
    QuotePayload,
    TradeConnection,
    show_asset,
    show_quote,
    show_trade,
)
from api.types.refusals import refusable
from app.errors import ErrorCode, quoted, refuse
from app.exchange.assets import Asset as AssetRow
from app.exchange.assets import AssetStatus
from app.exchange.orders import Side
from app.exchange.orders import Trade as TradeRow
from app.exchange.quotes import quote as quote_asset
from app.exchange.reads import AssetFilter, asset_by_symbol, assets_page, trades_page
from app.paging import Page
from app.text import is_showable

IDS_MAX = 500


@strawberry.type
class MarketQueries:
    """Needs no log-in; drafts are for admins."""

    @computed("The asset with this id, or with this symbol; null if there is none.")
    async def asset(
        self,
        info: Info,
        id: Annotated[  # noqa: A002 - the contract's name
            strawberry.ID | None, strawberry.argument(description="The asset's id; not together with symbol.")
        ] = UNSET,
        symbol: Annotated[
            str | None, strawberry.argument(description="The asset's symbol, in any case; not together with id.")
        ] = UNSET,
    ) -> Asset | None:
        asset_id, wanted = given(id), given(symbol)
        if (asset_id is None) == (wanted is None):
            raise BadUserInput("Give exactly one of id and symbol.")
        if asset_id is not None:
            row = await visible_asset(info, asset_id)
        else:
            row = _visible(info, await _by_symbol(info, wanted or ""))
        return None if row is None else show_asset(row)

    @computed("Assets by symbol. Filters go together: an asset must pass all that are given.")
    async def assets(
        self,
        info: Info,
        *,
        first: First = UNSET,
        after: After = UNSET,
        last: Last = UNSET,
        before: Before = UNSET,
        ids: Annotated[
            list[strawberry.ID] | None,
            strawberry.argument(description=f"Only these, at most {IDS_MAX}; what does not exist is left out."),
        ] = UNSET,
        status: Annotated[AssetStatus | None, strawberry.argument(description="Only those of this status.")] = UNSET,
        category: Annotated[
            str | None, strawberry.argument(description="Only those of this category, in any case of letters.")
        ] = UNSET,
        search: Annotated[
            str | None, strawberry.argument(description="Only those with this text in symbol, name or category.")
        ] = UNSET,
    ) -> AssetConnection:
        window = window_by_text(first=first, after=after, last=last, before=before)
        filters = AssetFilter(
            drafts=is_admin(info.context.principal),
            ids=_asset_keys(given(ids)),
            status=given(status),
            category=_storable("category", given(category)),
            search=_storable("search", given(search)),
        )
        async with info.context.services.database.acquire() as connection:
            page = await assets_page(connection=connection, filters=filters, window=window)
        return connect(AssetConnection, page, show=show_asset, key=lambda row: row.symbol, filters=filters)

    @computed(
        "An asset's trades, newest first; none for an asset that does not exist. To catch up after a seq, page with "
        "after until hasNextPage is false; or ask for the last of the list, which are the oldest after the seq, and "
        "again with the first node's seq, until nothing comes. Seqs have no gaps."
    )
    async def trades(
        self,
        info: Info,
        *,
        asset_id: Annotated[strawberry.ID, strawberry.argument(description="The asset's id.")],
        after_seq: Annotated[
            Seq | None, strawberry.argument(description="Only trades after the one of this seq.")
        ] = UNSET,
        first: First = UNSET,
        after: After = UNSET,
        last: Last = UNSET,
        before: Before = UNSET,
    ) -> TradeConnection:
        window = window_by_id(first=first, after=after, last=last, before=before)
        row = await visible_asset(info, asset_id)
        if row is None:
            return connect(TradeConnection, Page([], has_next=False, has_previous=False), show=show_trade, key=_seq)
        async with info.context.services.database.acquire() as connection:
            page = await trades_page(connection=connection, asset_id=row.id, after_seq=given(after_seq), window=window)
        return connect(TradeConnection, page, show=show_trade, key=_seq)

    @computed("What a trade would move if it happened now. Give exactly one of shares and amount.")
    @refusable(QuotePayload)
    async def quote(
        self,
        info: Info,
        asset_id: Annotated[strawberry.ID, strawberry.argument(description="The asset's id.")],
        side: Annotated[Side, strawberry.argument(description="Which way, seen from the account.")],
        shares: Annotated[
            Decimal | None, strawberry.argument(description="How many shares, at most 9 decimals.")
        ] = UNSET,
        amount: Annotated[
            Decimal | None,
            strawberry.argument(description="BUY only: the most to pay, fee included, at most 6 decimals."),
        ] = UNSET,
    ) -> QuotePayload:
        row = await visible_asset(info, asset_id)
        if row is None:
            raise refuse(ErrorCode.NOT_FOUND, "There is no such asset; look it up by its symbol.", "assetId")
        return QuotePayload(
            quote=show_quote(quote_asset(asset=row, side=side, shares=given(shares), amount=given(amount)))
        )


async def visible_asset(info: Info, asset_id: str) -> AssetRow | None:
    """The asset with this id, if it exists and the caller may see it."""
    key = key_of(asset_id, "Asset")
    return None if key is None else _visible(info, await info.context.loaders.assets.load(key))


def _visible(info: Info, row: AssetRow | None) -> AssetRow | None:
    hidden = row is not None and row.status is AssetStatus.DRAFT and not is_admin(info.context.principal)
    return None if hidden else row


async def _by_symbol(info: Info, symbol: str) -> AssetRow | None:
    if not all(is_showable(character) for character in symbol):
        return None
    async with info.context.services.database.acquire() as connection:
        return await asset_by_symbol(connection=connection, symbol=symbol)


def _asset_keys(ids: list[strawberry.ID] | None) -> list[int] | None:
    if ids is None:
        return None
    if len(ids) > IDS_MAX:
        raise BadUserInput(f"ids holds at most {IDS_MAX}; got {len(ids)}.")
    return [key_or_nothing(each, "Asset") for each in ids]


def _storable(name: str, text: str | None) -> str | None:
    if text is not None and (len(text) > 200 or not all(is_showable(character) for character in text)):
        raise BadUserInput(f"{name} is at most 200 printable characters; got {quoted(text)}.")
    return text


def _seq(row: TradeRow) -> int:
    return row.seq
