"""Reading the exchange: assets, trades, orders, positions. Plain selects of what is committed; nothing here decides.

Every function takes many keys or a window and runs one statement, so that the edge can gather its questions.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import asyncpg

from app.db import Connection
from app.exchange.assets import ASSET_COLUMNS, Asset, AssetStatus, asset_from_row
from app.exchange.orders import ORDER_COLUMNS, TRADE_COLUMNS, Order, OrderStatus, Side, Trade, order_from_row
from app.exchange.valuation import Position
from app.paging import Listing, Page, Window, fetch_page

_TRADES: Final = "trades t JOIN orders o ON o.id = t.order_id"
_POSITION_COLUMNS: Final = "id, account_id, asset_id, shares, cost_basis, realized_pnl"
_OPEN_STATUSES: Final = f"'{OrderStatus.OPEN}', '{OrderStatus.PARTIALLY_FILLED}'"


# -------------------------------------------------------------------------------------------------- assets
@dataclass(frozen=True, slots=True)
class AssetFilter:
    """Which assets; None where it does not matter. `search` is looked for in symbol, name and category."""

    drafts: bool
    ids: Collection[int] | None = None
    status: AssetStatus | None = None
    category: str | None = None
    search: str | None = None


async def assets_by_id(*, connection: Connection, ids: Collection[int]) -> dict[int, Asset]:
    """The assets with these ids; what does not exist is missing."""
    rows = await connection.fetch(f"SELECT {ASSET_COLUMNS} FROM assets WHERE id = ANY($1::bigint[])", list(ids))
    return {row["id"]: asset_from_row(row) for row in rows}


async def asset_by_symbol(*, connection: Connection, symbol: str) -> Asset | None:
    """The asset with this symbol, in any case of letters."""
    row = await connection.fetchrow(f"SELECT {ASSET_COLUMNS} FROM assets WHERE symbol = upper($1)", symbol)
    return asset_from_row(row) if row else None


async def assets_page(*, connection: Connection, filters: AssetFilter, window: Window[str]) -> Page[Asset]:
    """Assets by symbol."""
    conditions, parameters = _asset_conditions(filters)
    listing = Listing(ASSET_COLUMNS, "assets", conditions, parameters, key="symbol", descending=False)
    return await fetch_page(connection, listing, window, asset_from_row)


async def count_assets(*, connection: Connection, filters: AssetFilter) -> int:
    """How many assets pass the filters."""
    conditions, parameters = _asset_conditions(filters)
    where = " AND ".join(conditions) or "true"
    count: int = await connection.fetchval(f"SELECT count(*) FROM assets WHERE {where}", *parameters)
    return count


def _asset_conditions(filters: AssetFilter) -> tuple[list[str], list[object]]:
    conditions: list[str] = []
    parameters: list[object] = []

    def add(condition: str, value: object) -> None:
        parameters.append(value)
        conditions.append(condition.replace("?", f"${len(parameters)}"))

    if not filters.drafts:
        conditions.append("status <> 'DRAFT'")
    if filters.ids is not None:
        add("id = ANY(?::bigint[])", list(filters.ids))
    if filters.status is not None:
        add("status = ?", filters.status.value)
    if filters.category is not None:
        add("upper(category) = upper(?)", filters.category)
    if filters.search is not None:
        add("(symbol ILIKE ? OR name ILIKE ? OR category ILIKE ?)", f"%{like_escaped(filters.search)}%")
    return conditions, parameters


def like_escaped(text: str) -> str:
    """`text` so that LIKE takes it literally."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


# -------------------------------------------------------------------------------------------------- trades
async def trades_page(
    *, connection: Connection, asset_id: int, after_seq: int | None, window: Window[int]
) -> Page[Trade]:
    """An asset's trades, newest first, only those after `after_seq` where it is given; the window's keys are seqs."""
    conditions, parameters = ["t.asset_id = $1"], [asset_id]
    if after_seq is not None:
        conditions.append("t.seq > $2")
        parameters.append(after_seq)
    listing = Listing(TRADE_COLUMNS, _TRADES, conditions, parameters, key="t.seq", descending=True)
    return await fetch_page(connection, listing, window, trade_of)


async def trades_by_seq(*, connection: Connection, keys: Collection[tuple[int, int]]) -> dict[tuple[int, int], Trade]:
    """Trades by (asset id, seq)."""
    assets, seqs = zip(*keys, strict=True)
    rows = await connection.fetch(
        f"SELECT {TRADE_COLUMNS} FROM unnest($1::bigint[], $2::bigint[]) k (asset_id, seq)"
        " JOIN trades t ON t.asset_id = k.asset_id AND t.seq = k.seq JOIN orders o ON o.id = t.order_id",
        assets,
        seqs,
    )
    return {(row["asset_id"], row["seq"]): trade_of(row) for row in rows}


async def fills_by_id(*, connection: Connection, ids: Collection[int]) -> dict[int, Trade]:
    """Trades by their id, whoever made them."""
    rows = await connection.fetch(f"SELECT {TRADE_COLUMNS} FROM {_TRADES} WHERE t.id = ANY($1::bigint[])", list(ids))
    return {row["id"]: trade_of(row) for row in rows}


async def fills_of_orders(*, connection: Connection, order_ids: Collection[int]) -> dict[int, list[Trade]]:
    """The trades of each order, oldest first; an order without any is missing."""
    rows = await connection.fetch(
        f"SELECT {TRADE_COLUMNS} FROM {_TRADES} WHERE t.order_id = ANY($1::bigint[]) ORDER BY t.id", list(order_ids)
    )
    fills: dict[int, list[Trade]] = defaultdict(list)
    for row in rows:
        fills[row["order_id"]].append(trade_of(row))
    return fills


async def fills_page(
    *, connection: Connection, account_id: int, asset_id: int | None, window: Window[int]
) -> Page[Trade]:
    """An account's trades, newest first; the window's keys are trade ids."""
    conditions, parameters = ["t.account_id = $1"], [account_id]
    if asset_id is not None:
        conditions.append("t.asset_id = $2")
        parameters.append(asset_id)
    listing = Listing(TRADE_COLUMNS, _TRADES, conditions, parameters, key="t.id", descending=True)
    return await fetch_page(connection, listing, window, trade_of)


def trade_of(row: asyncpg.Record) -> Trade:
    """The trade in a row that has at least `TRADE_COLUMNS`."""
    return Trade(
        id=row["id"],
        asset_id=row["asset_id"],
        seq=row["seq"],
        account_id=row["account_id"],
        order_id=row["order_id"],
        client_order_id=row["client_order_id"],
        side=Side(row["side"]),
        shares=row["shares"],
        gross=row["gross"],
        fee=row["fee"],
        supply_after=row["supply_after"],
        market_after=row["market_after"],
        transfer_id=row["transfer_id"],
        at=row["at"],
    )


# -------------------------------------------------------------------------------------------------- orders
async def orders_by_id(*, connection: Connection, ids: Collection[int]) -> dict[int, Order]:
    """The orders with these ids, whoever placed them."""
    rows = await connection.fetch(f"SELECT {ORDER_COLUMNS} FROM orders WHERE id = ANY($1::bigint[])", list(ids))
    return {row["id"]: order_from_row(row) for row in rows}


async def order_by_client_id(*, connection: Connection, account_id: int, client_order_id: str) -> Order | None:
    """The account's order with this key."""
    row = await connection.fetchrow(
        f"SELECT {ORDER_COLUMNS} FROM orders WHERE account_id = $1 AND client_order_id = $2",
        account_id,
        client_order_id,
    )
    return order_from_row(row) if row else None


async def orders_page(
    *,
    connection: Connection,
    account_id: int,
    asset_id: int | None = None,
    is_open: bool | None = None,
    window: Window[int],
) -> Page[Order]:
    """An account's orders, newest first; with `is_open` only those that still wait, or only those that do not."""
    conditions: list[str] = ["account_id = $1"]
    parameters: list[object] = [account_id]
    if asset_id is not None:
        parameters.append(asset_id)
        conditions.append(f"asset_id = ${len(parameters)}")
    if is_open is not None:
        conditions.append(f"status {'' if is_open else 'NOT '}IN ({_OPEN_STATUSES})")
    listing = Listing(ORDER_COLUMNS, "orders", conditions, parameters, key="id", descending=True)
    return await fetch_page(connection, listing, window, order_from_row)


# -------------------------------------------------------------------------------------------------- positions
Holding: TypeAlias = tuple[Position, Asset]
_HOLDING_COLUMNS: Final = (
    ", ".join(f"a.{name}" for name in ASSET_COLUMNS.split(", "))
    + ", p.id AS position_id, p.account_id, p.shares, p.cost_basis, p.realized_pnl"
)


async def holdings_by_key(
    *, connection: Connection, keys: Collection[tuple[int, int]]
) -> dict[tuple[int, int], Holding]:
    """Positions by (account id, asset id) with their assets, of one moment; one that never was is missing."""
    accounts, assets = zip(*keys, strict=True)
    rows = await connection.fetch(
        f"SELECT {_HOLDING_COLUMNS} FROM unnest($1::bigint[], $2::bigint[]) k (account_id, asset_id)"
        " JOIN positions p ON p.account_id = k.account_id AND p.asset_id = k.asset_id"
        " JOIN assets a ON a.id = p.asset_id",
        accounts,
        assets,
    )
    return {(row["account_id"], row["id"]): _holding(row) for row in rows}


async def open_positions_page(*, connection: Connection, account_id: int, window: Window[int]) -> Page[Position]:
    """An account's positions that hold shares, newest first."""
    listing = Listing(
        _POSITION_COLUMNS, "positions", ["account_id = $1", "shares > 0"], [account_id], key="id", descending=True
    )
    return await fetch_page(connection, listing, window, _position)


async def holdings(*, connection: Connection, account_id: int) -> Sequence[Holding]:
    """Every position an account has or had, with its asset, of one moment."""
    rows = await connection.fetch(
        f"SELECT {_HOLDING_COLUMNS} FROM positions p JOIN assets a ON a.id = p.asset_id WHERE p.account_id = $1",
        account_id,
    )
    return [_holding(row) for row in rows]


def _holding(row: asyncpg.Record) -> Holding:
    position = Position(
        id=row["position_id"],
        account_id=row["account_id"],
        asset_id=row["id"],
        shares=row["shares"],
        cost_basis=row["cost_basis"],
        realized_pnl=row["realized_pnl"],
    )
    return position, asset_from_row(row)


def _position(row: asyncpg.Record) -> Position:
    return Position(
        row["id"], row["account_id"], row["asset_id"], row["shares"], row["cost_basis"], row["realized_pnl"]
    )
