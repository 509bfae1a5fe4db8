"""What admins may say of an asset: the form of each field, its range, and its units. No database in here.

Prices in 10^-12, slope in 10^-18, rates and weights in 10^-9, shares in 10^-9, money in 10^-6.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Final, TypeAlias

from app.errors import invalid, quoted
from app.exchange.assets import AssetStatus
from app.ledger.currencies import Currency
from app.money import (
    FEE_RATE_MAX,
    MONEY_DECIMALS,
    MONEY_REQUEST_MAX,
    PRICE_DECIMALS,
    PRICE_MAX,
    PRICE_MIN,
    RATE_DECIMALS,
    RATE_UNIT,
    SHARE_DECIMALS,
    SLOPE_DECIMALS,
    SLOPE_MAX,
    SLOPE_MIN,
    SUPPLY_MAX,
    parse,
    to_text,
)
from app.text import checked_text, showable

NAME_LENGTH_MAX: Final = 80
DESCRIPTION_LENGTH_MAX: Final = 4_000
CATEGORY_LENGTH_MAX: Final = 40
HALF_LIFE_SECONDS_MAX: Final = 365 * 24 * 3_600
STATUSES: Final = (AssetStatus.DRAFT, AssetStatus.OPEN, AssetStatus.REDUCE_ONLY, AssetStatus.HALTED)
"""The statuses that admins set; DELISTED is reserved."""
_SYMBOL: Final = re.compile(r"[A-Z][A-Z0-9._-]{0,15}", re.ASCII)

Value: TypeAlias = str | int | None
"""A column's value: a text, an exact count of base units, or nothing."""


class Unchanged(Enum):
    """Stands for a limit that is not to be changed, where None takes the limit away."""

    UNCHANGED = "UNCHANGED"


UNCHANGED: Final = Unchanged.UNCHANGED


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAsset:
    """An asset as asked for. Numbers are decimal text, in the units that people use."""

    symbol: str
    name: str
    description: str
    category: str
    quote_currency: Currency = Currency.USDC
    base_price: str = "1"
    slope: str = "0.005"
    fee_rate: str = "0.005"
    min_notional: str = "0.01"
    max_shares_per_account: str | None = None
    max_redemption_per_day: str | None = None
    fundamental_weight: str = "0.2"
    volume_scale: str = "1000"
    volume_half_life_seconds: int = 900
    status: AssetStatus = AssetStatus.OPEN


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetChanges:
    """What is to change: None is not, but for the two limits, which None takes away and `UNCHANGED` leaves."""

    name: str | None = None
    description: str | None = None
    category: str | None = None
    fee_rate: str | None = None
    max_shares_per_account: str | Unchanged | None = UNCHANGED
    max_redemption_per_day: str | Unchanged | None = UNCHANGED
    fundamental_weight: str | None = None
    volume_scale: str | None = None
    volume_half_life_seconds: int | None = None
    base_price: str | None = None
    slope: str | None = None


@dataclass(frozen=True, slots=True)
class _Number:
    name: str
    decimals: int
    minimum: int
    maximum: int


@dataclass(frozen=True, slots=True)
class _Text:
    name: str
    maximum: int
    multiline: bool = False


NUMBERS: Final[Mapping[str, _Number]] = {
    "base_price": _Number("basePrice", PRICE_DECIMALS, PRICE_MIN, PRICE_MAX),
    "slope": _Number("slope", SLOPE_DECIMALS, SLOPE_MIN, SLOPE_MAX),
    "fee_rate": _Number("feeRate", RATE_DECIMALS, 0, FEE_RATE_MAX),
    "min_notional": _Number("minNotional", MONEY_DECIMALS, 1, MONEY_REQUEST_MAX),
    "max_shares_per_account": _Number("maxSharesPerAccount", SHARE_DECIMALS, 1, SUPPLY_MAX),
    "max_redemption_per_day": _Number("maxRedemptionPerDay", MONEY_DECIMALS, 1, MONEY_REQUEST_MAX),
    "fundamental_weight": _Number("fundamentalWeight", RATE_DECIMALS, 1, RATE_UNIT),
    "volume_scale": _Number("volumeScale", MONEY_DECIMALS, 1, MONEY_REQUEST_MAX),
}
TEXTS: Final[Mapping[str, _Text]] = {
    "name": _Text("name", NAME_LENGTH_MAX),
    "description": _Text("description", DESCRIPTION_LENGTH_MAX, multiline=True),
    "category": _Text("category", CATEGORY_LENGTH_MAX),
}
CURVE_COLUMNS: Final = ("base_price", "slope")
"""What may change only while nobody holds a share."""
_OTHER_NAMES: Final = {
    "symbol": "symbol",
    "quote_currency": "quoteCurrency",
    "status": "status",
    "volume_half_life_seconds": "volumeHalfLifeSeconds",
    "status_reason": "statusReason",
}


def parsed_asset(new: NewAsset) -> dict[str, Value]:
    """Column values of a new asset. Raises `Refused` (INVALID_INPUT) that quotes the value and names the field."""
    if _SYMBOL.fullmatch(new.symbol) is None or new.symbol in list(Currency):
        raise invalid(
            "symbol must be 1 to 16 characters, a capital letter first, then capital letters, digits, '.', '_' or '-', "
            f"and neither USDC nor USDT; got {quoted(showable(new.symbol[:200]))}.",
            "input", "symbol",
        )  # fmt: skip
    values: dict[str, Value] = {
        "symbol": new.symbol,
        "quote_currency": new.quote_currency.value,
        "status": checked_status(new.status).value,
    }
    for spec in fields(NewAsset):
        if spec.name not in values:
            values[spec.name] = _parsed(spec.name, getattr(new, spec.name))
    return values


def parsed_changes(changes: AssetChanges) -> dict[str, Value]:
    """Column values of what is to change, in the order of the form. Raises `Refused` (INVALID_INPUT)."""
    limits = ("max_shares_per_account", "max_redemption_per_day")
    asked = {spec.name: getattr(changes, spec.name) for spec in fields(AssetChanges)}
    values = {
        name: _parsed(name, value)
        for name, value in asked.items()
        if value is not UNCHANGED and (value is not None or name in limits)
    }
    if not values:
        raise invalid("Nothing to change: give at least one field beside assetId and reason.", "input")
    return values


def checked_status(status: AssetStatus) -> AssetStatus:
    """`status` if admins may set it; raises `Refused` (INVALID_INPUT), also for DELISTED, which is reserved."""
    if status not in STATUSES:
        raise invalid(f"{status.value} is reserved; status must be one of {', '.join(STATUSES)}.", "input", "status")
    return status


def shown(values: Mapping[str, Value]) -> dict[str, object]:
    """The values under the API's names and as its decimal texts, for the audit log."""
    return {_name(column): _shown(column, value) for column, value in values.items()}


def _parsed(column: str, value: str | int | None) -> Value:
    if value is None:
        return None
    if isinstance(value, int):
        return _half_life(value)
    if column in TEXTS:
        text = TEXTS[column]
        return checked_text(value, field=("input", text.name), maximum=text.maximum, multiline=text.multiline)
    number = NUMBERS[column]
    return parse(
        value, decimals=number.decimals, field=("input", number.name), minimum=number.minimum, maximum=number.maximum
    )


def _half_life(seconds: int) -> int:
    if not 1 <= seconds <= HALF_LIFE_SECONDS_MAX:
        raise invalid(
            f"volumeHalfLifeSeconds must be between 1 and {HALF_LIFE_SECONDS_MAX}; got {quoted(seconds)}.",
            "input", "volumeHalfLifeSeconds",
        )  # fmt: skip
    return seconds


def _name(column: str) -> str:
    if column in NUMBERS:
        return NUMBERS[column].name
    return TEXTS[column].name if column in TEXTS else _OTHER_NAMES[column]


def _shown(column: str, value: Value) -> Value:
    if column in NUMBERS and isinstance(value, int):
        return to_text(value, NUMBERS[column].decimals)
    return value
