"""What an account owns: money, positions, their value, and the entries that led there."""

from datetime import datetime
from typing import TypeAlias

import strawberry

from api.context import Info
from api.node_ids import encode_ref, node_id
from api.nodes import Connection, Node
from api.scalars import Decimal, money, price, shares
from api.types.markets import Asset, show_asset
from app.exchange.assets import Asset as AssetRow
from app.exchange.valuation import PortfolioValue, value_position
from app.exchange.valuation import Position as PositionRow
from app.ledger.currencies import Currency
from app.ledger.reads import Cash, StatementEntry


@strawberry.type(description="An account's money in one currency.")
class Balance:
    """Two ledger accounts in one figure each."""

    id: strawberry.ID = strawberry.field(description="Permanent; not an id that `node` finds.")
    currency: Currency = strawberry.field(description="The currency.")
    available: Decimal = strawberry.field(description="What may be used.")
    held: Decimal = strawberry.field(description="What open orders hold.")
    total: Decimal = strawberry.field(description="available and held together.")


@strawberry.type(
    description=(
        "What an account holds of an asset, at average cost with buy fees included. A sale takes floor(costBasis * "
        "sold / held) out of the basis, the last share all of it."
    )
)
class Position:
    """Valued at the asset's present state."""

    id: strawberry.ID = strawberry.field(description="Permanent; not an id that `node` finds.")
    asset: Asset = strawberry.field(description="The asset.")
    shares: Decimal = strawberry.field(description="The shares held; 0 once all are sold.")
    average_price: Decimal = strawberry.field(description="costBasis / shares, half-even at 12 decimals, or 0.")
    cost_basis: Decimal = strawberry.field(description="What the shares still held cost, fees included.")
    market_value: Decimal = strawberry.field(description="shares * marketPrice, half-even at 6 decimals.")
    liquidation_value: Decimal = strawberry.field(
        description="What selling all of it now would really pay, after the fee: less than marketValue on any curve."
    )
    unrealized_pnl: Decimal = strawberry.field(description="marketValue - costBasis.")
    realized_pnl: Decimal = strawberry.field(
        description="The net proceeds of all sales so far, less the basis that they took out."
    )


PositionConnection: TypeAlias = Connection[Position]


@strawberry.type(description="All that an account has in one quote currency. Currencies are never added up.")
class Portfolio:
    """Of one snapshot."""

    currency: Currency = strawberry.field(description="The currency.")
    cash: Decimal = strawberry.field(description="Money, available and held.")
    market_value: Decimal = strawberry.field(description="The sum of the positions' marketValue, without the cash.")
    liquidation_value: Decimal = strawberry.field(
        description="The cash, and what selling each position now would pay after fees, as if it were the only one."
    )
    realized_pnl: Decimal = strawberry.field(description="The sum over all positions, closed ones too.")
    unrealized_pnl: Decimal = strawberry.field(description="The sum over the positions.")


@strawberry.type(description="One line of an account's statement. Entries are facts: never changed, never deleted.")
class LedgerEntry(Node):
    """One leg of a transfer."""

    at: datetime = strawberry.field(description="When it was booked, by the database's clock.")
    currency: str = strawberry.field(description="USDC, USDT, or the symbol of the asset whose shares moved.")
    amount: Decimal = strawberry.field(description="What came (positive) or went (negative).")
    balance_after: Decimal = strawberry.field(description="The balance in this currency that it left behind.")
    reason: str = strawberry.field(description="Why value moved, such as TRADE or DEV_FUND.")
    ref: strawberry.ID | None = strawberry.field(description="The id of what caused it, such as a trade.")


LedgerEntryConnection: TypeAlias = Connection[LedgerEntry]


def show_balance(row: Cash) -> Balance:
    """An account's money in one currency."""
    return Balance(
        id=encode_ref(f"Balance:{row.account_id}:{row.currency}"),
        currency=row.currency,
        available=money(row.available),
        held=money(row.held),
        total=money(row.total),
    )


def show_position(row: PositionRow, asset: AssetRow) -> Position:
    """A position at the asset's present state."""
    value = value_position(row, asset)
    return Position(
        id=node_id("Position", row.id),
        asset=show_asset(asset),
        shares=shares(row.shares),
        average_price=price(value.average_price),
        cost_basis=money(row.cost_basis),
        market_value=money(value.market_value),
        liquidation_value=money(value.liquidation_value),
        unrealized_pnl=money(value.unrealized_pnl),
        realized_pnl=money(row.realized_pnl),
    )


async def load_position(info: Info, *, account_id: int, asset_id: int) -> Position | None:
    """The account's position, closed ones too; None if there never was one."""
    holding = await info.context.loaders.holdings.load((account_id, asset_id))
    return None if holding is None else show_position(*holding)


def show_portfolio(currency: Currency, value: PortfolioValue) -> Portfolio:
    """The value of what an account has in one currency."""
    return Portfolio(
        currency=currency,
        cash=money(value.cash),
        market_value=money(value.market_value),
        liquidation_value=money(value.liquidation_value),
        realized_pnl=money(value.realized_pnl),
        unrealized_pnl=money(value.unrealized_pnl),
    )


def show_entry(row: StatementEntry) -> LedgerEntry:
    """One line of the statement, in the scale of its currency."""
    amount = money if row.currency in set(Currency) else shares
    return LedgerEntry(
        id=node_id("LedgerEntry", row.id),
        at=row.at,
        currency=row.currency,
        amount=amount(row.amount),
        balance_after=amount(row.balance_after),
        reason=row.reason,
        ref=None if row.ref is None else encode_ref(row.ref),
    )
