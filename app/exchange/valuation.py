"""What holdings are worth. Pure: no I/O, no clock.

Positions are valued at M, and separately at what selling them would really pay. Units as everywhere: money 10^-6,
shares 10^-9, prices 10^-12, weights 10^-9.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from app.exchange.assets import Asset
from app.exchange.curve import average_price, sell_shares
from app.money import RATE_UNIT, div_half_even

_VALUE_SCALE: Final = 10**15
"""shares 10^-9 times a price 10^-12, over money 10^-6."""


@dataclass(frozen=True, slots=True)
class Position:
    """A row of `models.exchange.Position`: what an account holds of an asset, at average cost."""

    id: int
    account_id: int
    asset_id: int
    shares: int
    cost_basis: int
    realized_pnl: int


@dataclass(frozen=True, slots=True)
class PositionValue:
    """What a position is worth at one state of its asset."""

    average_price: int
    market_value: int
    liquidation_value: int
    unrealized_pnl: int


@dataclass(frozen=True, slots=True)
class PortfolioValue:
    """An account's holdings in one quote currency; `liquidation_value` includes the cash."""

    cash: int
    market_value: int
    liquidation_value: int
    realized_pnl: int
    unrealized_pnl: int


def value_position(position: Position, asset: Asset) -> PositionValue:
    """The position's value at the asset's present state.

    Market value is shares * M as displayed, half-even. Liquidation value is what selling all of it now would pay after
    the fee, never below 0. The unrealised profit is market value less cost basis.
    """
    market_value = div_half_even(position.shares * asset.market_price, _VALUE_SCALE)
    sale = sell_shares(asset.curve, asset.supply, position.shares)
    return PositionValue(
        average_price=average_price(position.cost_basis, position.shares),
        market_value=market_value,
        liquidation_value=max(0, sale.gross - sale.fee),
        unrealized_pnl=market_value - position.cost_basis,
    )


def value_portfolio(*, cash: int, holdings: Iterable[tuple[Position, Asset]]) -> PortfolioValue:
    """The sum of `holdings`, all quoted in one currency, and the cash. Each is sold as if it were the only one."""
    market = liquidation = realized = unrealized = 0
    for position, asset in holdings:
        value = value_position(position, asset)
        market += value.market_value
        liquidation += value.liquidation_value
        unrealized += value.unrealized_pnl
        realized += position.realized_pnl
    return PortfolioValue(cash, market, cash + liquidation, realized, unrealized)


def coverage(asset: Asset) -> int | None:
    """backing / required in 10^-9, rounded down; None where nothing is required."""
    return asset.backing * RATE_UNIT // asset.required if asset.required else None
