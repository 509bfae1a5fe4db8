"""Assets, their curves, reserves, prices and rules, the public tape of trades, and quotes."""

from datetime import datetime
from typing import TypeAlias

import strawberry
from strawberry import UNSET

from api.context import Info
from api.fields import computed
from api.inputs import given
from api.node_ids import asset_node_id, node_id
from api.nodes import Connection, Node
from api.pagination import After
from api.scalars import Decimal, Seq, UnixSeconds, money, price, rate, shares, slope
from api.types.oracle import (
    REPORTS_DEFAULT,
    OracleReportConnection,
    OracleState,
    ReportsFirst,
    load_oracle_reports,
    show_oracle,
)
from api.types.refusals import USER_ERRORS, UserError
from app.exchange.assets import Asset as AssetRow
from app.exchange.assets import AssetStatus
from app.exchange.curve import average_price
from app.exchange.orders import Side
from app.exchange.orders import Trade as TradeRow
from app.exchange.quotes import Quote as QuoteRow
from app.exchange.reads import AssetFilter, count_assets
from app.exchange.valuation import coverage
from app.ledger.currencies import Currency
from app.money import MONEY_DECIMALS, MONEY_REQUEST_MAX, PRICE_DECIMALS, SHARE_DECIMALS
from app.pricing.candles import Candle as CandleRow
from app.pricing.idle import idle_tick
from app.pricing.intervals import Interval
from app.pricing.stats import DayStats
from app.pricing.ticks import Tick, TickCause


@strawberry.type(description="A linear bonding curve: the marginal price at supply S is basePrice + slope * S.")
class BondingCurve:
    """The parameters that every trade is computed from."""

    base_price: Decimal = strawberry.field(description="The price at supply 0, in quote currency per share.")
    slope: Decimal = strawberry.field(description="How much the price rises with each share outstanding.")
    fee_rate: Decimal = strawberry.field(description="The fee as a part of gross, 0 to 0.1; rounded up to 10^-6.")


@strawberry.type(description="What stands behind an asset's shares, in its quote currency.")
class Reserve:
    """All of one snapshot, the asset's own."""

    backing: Decimal = strawberry.field(description="What trades have paid in and not taken out. Never below required.")
    required: Decimal = strawberry.field(
        description="What redeeming every share would pay before fees: the integral of the curve, rounded up."
    )
    surplus: Decimal = strawberry.field(description="Accumulated fees and seeding, above the backing.")
    lp_capital: Decimal = strawberry.field(description="Liquidity providers' capital.")
    total: Decimal = strawberry.field(description="backing, surplus and lpCapital together.")
    coverage: Decimal | None = strawberry.field(
        description="backing / required, rounded down at 9 decimals; null with no shares outstanding."
    )


@strawberry.type(description="The bounds that every order on this asset must keep.")
class TradingRules:
    """Limits and scales."""

    min_notional: Decimal = strawberry.field(
        description="The least gross of a trade, in quote currency; selling a whole position may be less."
    )
    max_notional: Decimal = strawberry.field(description="The most money that one request may name.")
    max_shares_per_account: Decimal | None = strawberry.field(
        description="The most shares that an account may hold; null for no limit."
    )
    max_redemption_per_day: Decimal | None = strawberry.field(
        description="The most, in gross quote currency, that an account may sell for in a UTC day; null for no limit."
    )
    max_supply: Decimal = strawberry.field(description="The most shares that may ever be outstanding.")
    share_decimals: int = strawberry.field(description="Decimals of shares.")
    price_decimals: int = strawberry.field(description="Decimals of prices.")
    money_decimals: int = strawberry.field(description="Decimals of money.")
    fee_rate: Decimal = strawberry.field(description="The curve's feeRate.")


@strawberry.type(
    description=(
        "The last 24 hours of an asset, counted in whole minutes. Prices are of D; of M while no engine has ticked it."
    )
)
class AssetStats:
    """Computed when asked for."""

    volume: Decimal = strawberry.field(description="Gross quote currency traded.")
    trades: int = strawberry.field(description="How many trades there were.")
    open: Decimal = strawberry.field(
        description="The last price at or before the beginning of the 24 hours; the first one of a younger asset."
    )
    high: Decimal = strawberry.field(description="The highest price, open and close included.")
    low: Decimal = strawberry.field(description="The lowest price, open and close included.")
    close: Decimal = strawberry.field(description="The price now.")
    change: Decimal = strawberry.field(description="(close - open) / open, half-even at 9 decimals.")


@strawberry.type(description="An asset's prices at one moment, and what brought them about.")
class PriceTick:
    """While no engine has ticked, computed when asked for: seq 0."""

    asset_id: strawberry.ID = strawberry.field(description="The asset's id.")
    seq: Seq = strawberry.field(description="Gapless per asset, from 1. 0 only where no engine has ticked yet.")
    cause: TickCause = strawberry.field(description="What made the tick.")
    trade_seq: Seq = strawberry.field(description="The trade sequence that this tick has taken in.")
    at: datetime = strawberry.field(
        description="Of the trade or reading that caused it; never decreases. Now, on a tick of seq 0."
    )
    display: Decimal = strawberry.field(
        description="D, the displayed price: marketWeight * market + (1 - marketWeight) * fundamental."
    )
    market: Decimal = strawberry.field(description="M, the marginal price, at which trades happen before fees.")
    fundamental: Decimal = strawberry.field(
        description="F, the smoothed fundamental price: what the tracked variable says; basePrice before any reading."
    )
    market_weight: Decimal = strawberry.field(description="The weight of M in D; 1 before any reading.")
    volume: Decimal = strawberry.field(
        description="Gross quote currency traded since the previous tick; 0 on a tick that no trade caused."
    )
    fundamental_stale: bool = strawberry.field(
        description="Whether F has had no accepted reading for longer than the oracle promises."
    )


@strawberry.type(
    description=(
        "Prices of an interval [time, time + interval) in UTC, by the ticks' times; volume and trades count real "
        "trades."
    )
)
class Candle:
    """Open, high, low, close."""

    asset_id: strawberry.ID = strawberry.field(description="The asset's id.")
    interval: Interval = strawberry.field(description="How long the candle lasts.")
    time: UnixSeconds = strawberry.field(description="Its beginning.")
    open: Decimal = strawberry.field(description="The first price.")
    high: Decimal = strawberry.field(description="The highest price.")
    low: Decimal = strawberry.field(description="The lowest price.")
    close: Decimal = strawberry.field(description="The last price so far.")
    volume: Decimal = strawberry.field(description="Gross quote currency traded.")
    trades: int = strawberry.field(description="How many trades there were.")
    closed: bool = strawberry.field(
        description="Whether its time is over. What happened just before the end may be added for a moment longer."
    )


@strawberry.type(description="Candles in ascending order, with what a chart needs to page back.")
class CandleSeries:
    """As TradingView's datafeeds mean it."""

    candles: list[Candle] = strawberry.field(description="The candles, oldest first.")
    no_data: bool = strawberry.field(description="Whether there is nothing in what was asked for.")
    next_time: UnixSeconds | None = strawberry.field(
        description="With noData: where the nearest earlier candle begins; null where there is none."
    )


@strawberry.type(description="A synthetic stock or index that tracks a real-world variable, on its own bonding curve.")
class Asset(Node):
    """What is shown of an asset row; the parts that cost something are made when asked for."""

    symbol: str = strawberry.field(description="Its unique ticker symbol; also the name of its shares in the ledger.")
    name: str = strawberry.field(description="Its name.")
    description: str = strawberry.field(description="What it tracks, and how a value of that maps to a price.")
    category: str = strawberry.field(
        description="What the price tracks: a free-form category such as WEATHER, MACRO, TECH."
    )
    status: AssetStatus = strawberry.field(description="What may be done with it.")
    status_reason: str | None = strawberry.field(description="Why it has this status, as the admin said.")
    quote_currency: Currency = strawberry.field(description="The currency it is traded in.")
    supply: Decimal = strawberry.field(description="Shares outstanding, S.")
    market_price: Decimal = strawberry.field(
        description="M at this supply, half-even at 12 decimals; the same snapshot as supply and reserve."
    )
    trade_seq: Seq = strawberry.field(description="The last trade's position in this asset's own gapless sequence.")
    created_at: datetime = strawberry.field(description="When it was made.")
    row: strawberry.Private[AssetRow]

    @computed("The parameters of its price.")
    def curve(self) -> BondingCurve:
        return BondingCurve(
            base_price=price(self.row.base_price), slope=slope(self.row.slope), fee_rate=rate(self.row.fee_rate)
        )

    @computed("What stands behind its shares.")
    def reserve(self) -> Reserve:
        row = self.row
        covered = coverage(row)
        return Reserve(
            backing=money(row.backing),
            required=money(row.required),
            surplus=money(row.surplus),
            lp_capital=money(row.lp_capital),
            total=money(row.backing + row.surplus + row.lp_capital),
            coverage=None if covered is None else rate(covered),
        )

    @computed("Its prices now: its last tick.")
    async def price(self, info: Info) -> PriceTick:
        loaders = info.context.loaders
        return show_tick(await loaders.latest_ticks.load(self.row.id) or idle_tick(self.row, loaders.at))

    @computed("Its last 24 hours.", name="stats24h")
    async def stats_24h(self, info: Info) -> AssetStats:
        stats = await info.context.loaders.day_stats.load(self.row)
        if stats is None:
            raise LookupError("every asset has stats")
        return _stats(stats)

    @computed("The bounds of orders on it.")
    def trading_rules(self) -> TradingRules:
        row = self.row
        return TradingRules(
            min_notional=money(row.min_notional),
            max_notional=money(MONEY_REQUEST_MAX),
            max_shares_per_account=None if row.max_shares_per_account is None else shares(row.max_shares_per_account),
            max_redemption_per_day=None if row.max_redemption_per_day is None else money(row.max_redemption_per_day),
            max_supply=shares(row.max_supply),
            share_decimals=SHARE_DECIMALS,
            price_decimals=PRICE_DECIMALS,
            money_decimals=MONEY_DECIMALS,
            fee_rate=rate(row.fee_rate),
        )

    @computed("How its oracle stands; null where none is configured.")
    async def oracle(self, info: Info) -> OracleState | None:
        status = await info.context.loaders.oracle_statuses.load(self.row.id)
        return None if status is None else show_oracle(status)

    @computed("Readings of what it tracks, taken or not, newest first.")
    async def oracle_reports(
        self, info: Info, first: ReportsFirst = REPORTS_DEFAULT, after: After = UNSET
    ) -> OracleReportConnection:
        return await load_oracle_reports(info, self.row.id, first=given(first), after=after)


@strawberry.type(description="One execution against the curve, on the public tape: whose it was is not told.")
class Trade(Node):
    """A trade as everybody sees it."""

    asset_id: strawberry.ID = strawberry.field(description="The asset's id.")
    seq: Seq = strawberry.field(description="Its position in the asset's own gapless sequence, from 1.")
    side: Side = strawberry.field(description="Which way it went, seen from the account.")
    shares: Decimal = strawberry.field(description="How many shares were made or redeemed.")
    price: Decimal = strawberry.field(description="gross / shares, half-even at 12 decimals.")
    gross: Decimal = strawberry.field(description="Quote currency moved, before fees.")
    fee: Decimal = strawberry.field(description="The fee that the account paid besides.")
    supply_after: Decimal = strawberry.field(
        description="Shares outstanding just after: enough to quote the next trade exactly."
    )
    market_after: Decimal = strawberry.field(description="M just after.")
    at: datetime = strawberry.field(description="When it happened, by the database's clock; never decreases with seq.")
    asset_key: strawberry.Private[int]

    @computed("The asset that was traded.")
    async def asset(self, info: Info) -> Asset:
        return await load_asset(info, self.asset_key)


@strawberry.type(description="A page of assets, and how many there are.")
class AssetConnection(Connection[Asset]):
    """The one connection that counts: there are never many assets."""

    filters: strawberry.Private[AssetFilter]

    @computed("How many assets pass the filters, on all pages.")
    async def total_count(self, info: Info) -> int:
        async with info.context.services.database.acquire() as connection:
            return await count_assets(connection=connection, filters=self.filters)


TradeConnection: TypeAlias = Connection[Trade]


@strawberry.type(description="What a trade would move if it happened now. It locks nothing and promises nothing.")
class Quote:
    """Computed from one snapshot of the asset; the caller's own balances do not matter."""

    asset_id: strawberry.ID = strawberry.field(description="The asset's id.")
    side: Side = strawberry.field(description="Which way, seen from the account.")
    shares: Decimal = strawberry.field(description="How many shares would be bought or sold.")
    gross: Decimal = strawberry.field(description="Quote currency moved, before fees.")
    fee: Decimal = strawberry.field(description="The fee, rounded up at 6 decimals.")
    total: Decimal = strawberry.field(
        description="What the account would pay (BUY, gross + fee) or receive (SELL, gross - fee)."
    )
    average_price: Decimal = strawberry.field(description="gross / shares, half-even at 12 decimals.")
    price_before: Decimal = strawberry.field(description="M now.")
    price_after: Decimal = strawberry.field(description="M just after.")
    price_impact: Decimal = strawberry.field(
        description="(averagePrice - priceBefore) / priceBefore, half-even at 9 decimals; negative on a sale."
    )
    at_trade_seq: Seq = strawberry.field(
        description="The asset's tradeSeq that this is true at: give it to orderPlace as ifTradeSeq to hold it to that."
    )


@strawberry.type(description="A quote, or why there is none.")
class QuotePayload:
    """Exactly one of the two."""

    quote: Quote | None = strawberry.field(default=None, description="The quote; null when it was refused.")
    user_errors: list[UserError] = strawberry.field(default_factory=list, description=USER_ERRORS)


def show_asset(row: AssetRow) -> Asset:
    """The asset in a row."""
    return Asset(
        id=asset_node_id(row.id),
        symbol=row.symbol,
        name=row.name,
        description=row.description,
        category=row.category,
        status=row.status,
        status_reason=row.status_reason,
        quote_currency=Currency(row.quote_currency),
        supply=shares(row.supply),
        market_price=price(row.market_price),
        trade_seq=Seq(row.trade_seq),
        created_at=row.created_at,
        row=row,
    )


def show_trade(row: TradeRow) -> Trade:
    """The public side of a trade."""
    return Trade(
        id=node_id("Trade", row.asset_id, row.seq),
        asset_id=asset_node_id(row.asset_id),
        seq=Seq(row.seq),
        side=row.side,
        shares=shares(row.shares),
        price=price(average_price(row.gross, row.shares)),
        gross=money(row.gross),
        fee=money(row.fee),
        supply_after=shares(row.supply_after),
        market_after=price(row.market_after),
        at=row.at,
        asset_key=row.asset_id,
    )


def show_quote(row: QuoteRow) -> Quote:
    """A quote as text."""
    return Quote(
        asset_id=asset_node_id(row.asset_id),
        side=row.side,
        shares=shares(row.shares),
        gross=money(row.gross),
        fee=money(row.fee),
        total=money(row.total),
        average_price=price(row.average_price),
        price_before=price(row.price_before),
        price_after=price(row.price_after),
        price_impact=rate(row.price_impact),
        at_trade_seq=Seq(row.at_trade_seq),
    )


def show_tick(tick: Tick) -> PriceTick:
    """A tick as text."""
    return PriceTick(
        asset_id=asset_node_id(tick.asset_id),
        seq=Seq(tick.seq),
        cause=tick.cause,
        trade_seq=Seq(tick.trade_seq),
        at=tick.at,
        display=price(tick.display),
        market=price(tick.market),
        fundamental=price(tick.fundamental),
        market_weight=rate(tick.market_weight),
        volume=money(tick.volume),
        fundamental_stale=tick.stale,
    )


def show_candle(candle: CandleRow) -> Candle:
    """A candle as text."""
    return Candle(
        asset_id=asset_node_id(candle.asset_id),
        interval=candle.interval,
        time=UnixSeconds(candle.time),
        open=price(candle.open),
        high=price(candle.high),
        low=price(candle.low),
        close=price(candle.close),
        volume=money(candle.volume),
        trades=candle.trades,
        closed=candle.closed,
    )


async def load_asset(info: Info, asset_id: int) -> Asset:
    """The asset that something refers to, a draft too: whoever holds a position may see what it is in."""
    row = await info.context.loaders.assets.load(asset_id)
    if row is None:
        raise LookupError(f"asset {asset_id} is referred to and does not exist")
    return show_asset(row)


def _stats(stats: DayStats) -> AssetStats:
    return AssetStats(
        volume=money(stats.volume),
        trades=stats.trades,
        open=price(stats.open),
        high=price(stats.high),
        low=price(stats.low),
        close=price(stats.close),
        change=rate(stats.change),
    )
