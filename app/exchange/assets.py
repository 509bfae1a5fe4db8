"""An asset as the exchange sees it: one consistent row, and what follows from it by arithmetic alone."""

from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Final

from app.exchange.curve import Curve, marginal_price, max_supply, required_reserve

if TYPE_CHECKING:
    import asyncpg


class AssetStatus(StrEnum):
    """DRAFT is seen by admins only; REDUCE_ONLY sells only; HALTED and DRAFT trade nothing. DELISTED is reserved."""

    DRAFT = "DRAFT"
    OPEN = "OPEN"
    REDUCE_ONLY = "REDUCE_ONLY"
    HALTED = "HALTED"
    DELISTED = "DELISTED"


@dataclass(frozen=True)
class Asset:
    """A row of `models.exchange.Asset`, in base units."""

    id: int
    symbol: str
    name: str
    description: str
    category: str
    status: AssetStatus
    status_reason: str | None
    quote_currency: str
    base_price: int
    slope: int
    fee_rate: int
    min_notional: int
    max_shares_per_account: int | None
    max_redemption_per_day: int | None
    fundamental_weight: int
    volume_scale: int
    volume_half_life_seconds: int
    supply: int
    backing: int
    surplus: int
    lp_capital: int
    trade_seq: int
    last_trade_at: datetime | None
    created_at: datetime

    @cached_property
    def curve(self) -> Curve:
        """The bonding curve's parameters."""
        return Curve(self.base_price, self.slope, self.fee_rate)

    @cached_property
    def market_price(self) -> int:
        """M at this supply, 10^-12."""
        return marginal_price(self.curve, self.supply)

    @cached_property
    def required(self) -> int:
        """R at this supply, rounded up to base units of money."""
        return required_reserve(self.curve, self.supply)

    @cached_property
    def max_supply(self) -> int:
        """The most shares that may ever be outstanding, 10^-9."""
        return max_supply(self.curve)


ASSET_COLUMNS: Final = ", ".join(field.name for field in fields(Asset))


def asset_from_row(row: "asyncpg.Record") -> Asset:
    """The asset in a row that has at least `ASSET_COLUMNS`."""
    values = {field.name: row[field.name] for field in fields(Asset)}
    values["status"] = AssetStatus(values["status"])
    return Asset(**values)
