"""What the market's objects look like to a bot. The fields are also what is asked of the server: see `wire`.

Amounts are exact `Decimal`s and never floats: money has at most 6 decimals, shares, rates and weights 9, prices 12, a
slope 18. Instants are aware datetimes in UTC. Codes and statuses are plain strings: expect ones you do not know.
"""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Generic, Literal, TypeAlias, TypeVar

Side: TypeAlias = Literal["BUY", "SELL"]
TickMode: TypeAlias = Literal["ALL", "LATEST"]
Throttle: TypeAlias = Literal["NONE", "MS_100", "MS_250", "MS_1000"]
PriceKind: TypeAlias = Literal["DISPLAY", "MARKET"]
Timeframe: TypeAlias = Literal["1s", "1m", "5m", "15m", "1h", "4h", "1d"]

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Event(Generic[Item]):
    """An event of a stream. `kind` is SNAPSHOT, UPDATE, HEARTBEAT or GAP; `missed` counts what LATEST left out.

    `cursor` is where to go on from: give it as `after`, today or after a restart of your bot.
    """

    kind: str
    items: tuple[Item, ...]
    cursor: str
    server_time: datetime
    missed: int


@dataclass(frozen=True, slots=True)
class Tick:
    """An asset's prices at one moment. `seq` is gapless per asset; `volume` is what was traded since the tick before.

    `display` is D, `market` is M (trades happen there, before fees), `fundamental` is F, and
    D = market_weight * M + (1 - market_weight) * F. `cause` is OPEN, TRADE, ORACLE or DECAY.
    """

    asset_id: str
    symbol: str
    seq: int
    cause: str
    trade_seq: int
    at: datetime
    display: Decimal
    market: Decimal
    fundamental: Decimal
    market_weight: Decimal
    volume: Decimal
    fundamental_stale: bool


@dataclass(frozen=True, slots=True)
class Trade:
    """A trade on the public tape. `supply_after` and `market_after` are what the next trade begins at."""

    id: str
    asset_id: str
    symbol: str
    seq: int
    side: str
    shares: Decimal
    price: Decimal
    gross: Decimal
    fee: Decimal
    supply_after: Decimal
    market_after: Decimal
    at: datetime


@dataclass(frozen=True, slots=True)
class Candle:
    """Prices of [time, time + interval), `time` in seconds since 1970. It changes until it is `closed`."""

    asset_id: str
    symbol: str
    interval: str
    time: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    trades: int
    closed: bool


@dataclass(frozen=True, slots=True)
class Evidence:
    """A page or a feed's answer that a reading was judged by; `counts`: whether the reading rests on it."""

    source: str
    url: str
    title: str | None
    excerpt: str
    value: Decimal | None
    counts: bool
    content_hash: str
    retrieved_at: datetime


@dataclass(frozen=True, slots=True)
class Report:
    """A reading of what an asset tracks, taken or not: what F rests on. `outcome` is ACCEPTED, REJECTED or QUARANTINED.

    `fundamental_after` is None until the price engine has taken it. `resolution` says how a quarantine ended.
    """

    id: str
    asset_id: str
    symbol: str
    at: datetime
    method: str
    outcome: str
    reasons: tuple[str, ...]
    suggested_price: Decimal | None
    delta_percent: Decimal | None
    confidence: Decimal | None
    summary: str | None
    fundamental_before: Decimal
    fundamental_after: Decimal | None
    expires_at: datetime | None
    resolution: str | None
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class Curve:
    """M at supply S is base_price + slope * S."""

    base_price: Decimal
    slope: Decimal
    fee_rate: Decimal


@dataclass(frozen=True, slots=True)
class TradingRules:
    """The bounds of orders; None where there is none."""

    min_notional: Decimal
    max_notional: Decimal
    max_shares_per_account: Decimal | None
    max_redemption_per_day: Decimal | None
    max_supply: Decimal


@dataclass(frozen=True, slots=True)
class Asset:
    """An asset: what it is, its curve and rules, and how it stands. A bot trades while `status` is OPEN."""

    id: str
    symbol: str
    name: str
    description: str
    category: str
    status: str
    status_reason: str | None
    quote_currency: str
    supply: Decimal
    market_price: Decimal
    trade_seq: int
    created_at: datetime
    curve: Curve
    trading_rules: TradingRules


@dataclass(frozen=True, slots=True)
class AssetStats:
    """The last 24 hours. `change` is (close - open) / open."""

    volume: Decimal
    trades: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    change: Decimal


@dataclass(frozen=True, slots=True)
class Ticker:
    """An asset's prices now, and its last 24 hours."""

    id: str
    symbol: str
    name: str
    status: str
    quote_currency: str
    price: Tick
    stats_24h: AssetStats


@dataclass(frozen=True, slots=True)
class Quote:
    """What a trade would move if it happened now. `total` is what is paid (BUY) or received (SELL), fee included.

    `amount` is what was asked for, where no shares were; `server_time` is when it was answered, by the server's clock.
    """

    asset_id: str
    symbol: str
    side: str
    shares: Decimal
    gross: Decimal
    fee: Decimal
    total: Decimal
    average_price: Decimal
    price_before: Decimal
    price_after: Decimal
    price_impact: Decimal
    at_trade_seq: int
    amount: Decimal | None = field(metadata={"added": True})
    server_time: datetime = field(metadata={"added": True})


@dataclass(frozen=True, slots=True)
class Order:
    """An order of yours and what came of it. `reason` says why it was REJECTED."""

    id: str
    client_order_id: str
    asset_id: str
    symbol: str
    side: str
    type: str
    status: str
    reason: str | None
    shares: Decimal | None
    amount: Decimal | None
    filled_shares: Decimal
    average_price: Decimal | None
    gross: Decimal
    fee: Decimal
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Fill:
    """Your own side of a trade."""

    id: str
    order_id: str
    client_order_id: str
    asset_id: str
    symbol: str
    trade_seq: int
    side: str
    shares: Decimal
    price: Decimal
    gross: Decimal
    fee: Decimal
    at: datetime


@dataclass(frozen=True, slots=True)
class Balance:
    """Your money in one currency. USDC and USDT are different currencies."""

    currency: str
    available: Decimal
    held: Decimal
    total: Decimal


@dataclass(frozen=True, slots=True)
class AssetRef:
    """Which asset is meant."""

    id: str
    symbol: str


@dataclass(frozen=True, slots=True)
class Position:
    """What you hold of an asset, at average cost. `liquidation_value` is what selling all of it now would pay."""

    asset: AssetRef
    shares: Decimal
    average_price: Decimal
    cost_basis: Decimal
    market_value: Decimal
    liquidation_value: Decimal
    unrealized_pnl: Decimal
    realized_pnl: Decimal


@dataclass(frozen=True, slots=True)
class AccountEvent:
    """What changed in your account. `kind` as in `Event`; `seq` counts your account's events without a gap."""

    kind: str
    seq: int
    orders: tuple[Order, ...]
    fills: tuple[Fill, ...]
    balances: tuple[Balance, ...]
    positions: tuple[Position, ...]
    cursor: str
    server_time: datetime
