"""The exact model of a whole market: what each order must come to, written from the rules and not from the exchange.

Quantities are `Fraction`s of whole units. The model knows accounts, assets, positions and limits; it decides one order
after the other, keeps what it decided, and answers a repeated key with its first outcome. Nothing of `app` is imported.
"""

from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

from tests.exchange.model import MONEY, SHARE, Deal, ExactCurve, down, largest

MAX_NOTIONAL = Fraction(10**12)
MAX_RECORDED = Fraction(9 * 10**12)
"""No stored figure of money may outgrow this."""
ZERO = Fraction(0)


@dataclass(frozen=True)
class Asked:
    """An order as a client means it. Exactly one of `shares` and `amount`."""

    account: str
    asset: str
    key: str
    side: str
    shares: Fraction | None = None
    amount: Fraction | None = None
    max_total: Fraction | None = None
    min_total: Fraction | None = None
    min_shares: Fraction | None = None
    deadline: datetime | None = None
    if_trade_seq: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of an order: FILLED, REJECTED with a code and what it tells, or raised and bound to no key."""

    status: str
    code: str | None = None
    deal: Deal | None = None
    seq: int | None = None
    supply_after: Fraction | None = None
    market_after: Fraction | None = None
    told: tuple[tuple[str, Fraction | int | datetime | None], ...] = ()


def rejected(code: str, **told: Fraction | int | datetime | None) -> Outcome:
    """A refusal decided under the lock."""
    return Outcome("REJECTED", code, told=tuple(sorted(told.items())))


def raised(code: str) -> Outcome:
    """What binds no key."""
    return Outcome("RAISED", code)


@dataclass
class Holding:
    """A position at average cost."""

    shares: Fraction = ZERO
    cost_basis: Fraction = ZERO
    realized_pnl: Fraction = ZERO
    redeemed_on: date | None = None
    redeemed: Fraction = ZERO

    def redeemed_at(self, day: date) -> Fraction:
        """What was sold for on `day`, before fees."""
        return self.redeemed if self.redeemed_on == day else ZERO

    def bought(self, deal: Deal) -> None:
        """Add a purchase."""
        self.shares += deal.shares
        self.cost_basis += deal.cost

    def basis(self, shares: Fraction) -> Fraction:
        """What `shares` of those held cost, by the average; all of them, all of it."""
        return self.cost_basis if shares == self.shares else down(self.cost_basis * shares / self.shares, MONEY)

    def sold(self, deal: Deal, day: date) -> None:
        """Take a sale out."""
        basis = self.basis(deal.shares)
        self.redeemed = self.redeemed_at(day) + deal.gross
        self.redeemed_on = day
        self.shares -= deal.shares
        self.cost_basis -= basis
        self.realized_pnl += deal.proceeds - basis


@dataclass
class ModelAsset:
    """An asset's curve, rules and state."""

    curve: ExactCurve
    currency: str
    status: str = "OPEN"
    min_notional: Fraction = Fraction(1, 100)
    max_shares_per_account: Fraction | None = None
    max_redemption_per_day: Fraction | None = None
    supply: Fraction = ZERO
    backing: Fraction = ZERO
    surplus: Fraction = ZERO
    trade_seq: int = 0


@dataclass
class ModelAccount:
    """An account's money by currency and its positions by asset."""

    cash: dict[str, Fraction]
    frozen: bool = False
    logged_in: bool = True
    holdings: dict[str, Holding] = field(default_factory=dict)

    def holding(self, asset: str) -> Holding:
        """The position in `asset`, perhaps empty."""
        return self.holdings.setdefault(asset, Holding())


@dataclass
class MarketModel:
    """Accounts and assets by name, and everything decided so far."""

    assets: dict[str, ModelAsset] = field(default_factory=dict)
    accounts: dict[str, ModelAccount] = field(default_factory=dict)
    paused: bool = False
    decided: dict[tuple[str, str], tuple[Asked, Outcome]] = field(default_factory=dict)

    def place(self, asked: Asked, now: datetime) -> Outcome:
        """Decide `asked` at `now`, or repeat what was decided for its key."""
        if asked.asset not in self.assets or self.assets[asked.asset].status == "DRAFT":
            return raised("NOT_FOUND")
        key = (asked.account, asked.key)
        if key in self.decided:
            first, outcome = self.decided[key]
            return outcome if first == asked else raised("IDEMPOTENCY_KEY_REUSED")
        if not self.accounts[asked.account].logged_in:
            return raised("UNAUTHENTICATED")
        outcome = self._decide(asked, now)
        self.decided[key] = (asked, outcome)
        return outcome

    def liquidation(self, account: str, asset: str) -> Deal:
        """What selling the whole position now would come to."""
        market, holding = self.assets[asset], self.accounts[account].holding(asset)
        return market.curve.sell(market.supply, holding.shares)

    def _decide(self, asked: Asked, now: datetime) -> Outcome:
        asset = self.assets[asked.asset]
        refusal = self._gates(asked, asset, now)
        if refusal is not None:
            return refusal
        deal, refusal = self._size(asked, asset)
        if refusal is None:
            refusal = self._bounds(asked, asset, deal) or self._limits(asked, asset, deal, now)
        return refusal or self._fill(asked, asset, deal, now)

    def _gates(self, asked: Asked, asset: ModelAsset, now: datetime) -> Outcome | None:
        if self.accounts[asked.account].frozen:
            return rejected("ACCOUNT_FROZEN")
        if self.paused:
            return rejected("TRADING_PAUSED")
        if asset.status != "OPEN" and not (asset.status == "REDUCE_ONLY" and asked.side == "SELL"):
            return rejected("ASSET_NOT_OPEN")
        if asked.deadline is not None and now > asked.deadline:
            return rejected("DEADLINE_PASSED")
        if asked.if_trade_seq is not None and asked.if_trade_seq != asset.trade_seq:
            return rejected(
                "SLIPPAGE_EXCEEDED",
                bound=Fraction(asked.if_trade_seq),
                actual=Fraction(asset.trade_seq),
                at_trade_seq=asset.trade_seq,
            )
        return None

    def _size(self, asked: Asked, asset: ModelAsset) -> tuple[Deal, Outcome | None]:
        """The deal asked for, unless it is too small or too large for the curve or for one request."""
        held = self.accounts[asked.account].holding(asked.asset).shares
        if asked.side == "SELL":
            shares = asked.shares or ZERO
            if shares > held:
                return Deal(shares, ZERO, ZERO), rejected("INSUFFICIENT_SHARES", required=shares, available=held)
            deal = asset.curve.sell(asset.supply, shares)
            empty = deal.gross == 0 or deal.proceeds <= 0
            small = deal.gross < asset.min_notional and shares != held
        else:
            deal = self._purchase(asked, asset)
            empty = deal.shares == 0 or deal.gross == 0
            small = deal.gross < asset.min_notional
        if empty or small:
            return deal, rejected("BELOW_MINIMUM", limit=asset.min_notional)
        room = asset.curve.max_supply() - asset.supply
        if asked.side == "BUY" and deal.shares > room:
            return deal, rejected("POSITION_LIMIT", limit=asset.curve.max_supply(), remaining=room)
        if deal.cost > MAX_NOTIONAL:
            return deal, rejected("INVALID_INPUT")
        return deal, None

    @staticmethod
    def _purchase(asked: Asked, asset: ModelAsset) -> Deal:
        if asked.shares is not None:
            return asset.curve.buy(asset.supply, asked.shares)
        amount = asked.amount or ZERO
        most = largest(lambda n: asset.curve.buy(asset.supply, n * SHARE).cost <= amount)
        return asset.curve.buy(asset.supply, most * SHARE)

    @staticmethod
    def _bounds(asked: Asked, asset: ModelAsset, deal: Deal) -> Outcome | None:
        if asked.max_total is not None and deal.cost > asked.max_total:
            bound, actual = asked.max_total, deal.cost
        elif asked.min_shares is not None and deal.shares < asked.min_shares:
            bound, actual = asked.min_shares, deal.shares
        elif asked.min_total is not None and deal.proceeds < asked.min_total:
            bound, actual = asked.min_total, deal.proceeds
        else:
            return None
        return rejected("SLIPPAGE_EXCEEDED", bound=bound, actual=actual, at_trade_seq=asset.trade_seq)

    def _limits(self, asked: Asked, asset: ModelAsset, deal: Deal, now: datetime) -> Outcome | None:
        account = self.accounts[asked.account]
        holding = account.holding(asked.asset)
        if asked.side == "SELL":
            profit = holding.realized_pnl + deal.proceeds - holding.basis(deal.shares)
            if not -MAX_RECORDED <= profit <= MAX_RECORDED or asset.surplus + deal.fee > MAX_RECORDED:
                return rejected("INVALID_INPUT")
            limit = MAX_RECORDED if asset.max_redemption_per_day is None else asset.max_redemption_per_day
            today = now.astimezone(UTC).date()
            redeemed = holding.redeemed_at(today)
            if redeemed + deal.gross <= limit:
                return None
            midnight = datetime(today.year, today.month, today.day, tzinfo=UTC) + timedelta(days=1)
            left = max(limit - redeemed, ZERO)
            return rejected("REDEMPTION_LIMIT", limit=limit, remaining=left, resets_at=midnight)
        most = asset.max_shares_per_account
        if most is not None and holding.shares + deal.shares > most:
            return rejected("POSITION_LIMIT", limit=most, remaining=max(most - holding.shares, ZERO))
        if max(asset.backing + deal.gross, asset.surplus + deal.fee, holding.cost_basis + deal.cost) > MAX_RECORDED:
            return rejected("INVALID_INPUT")
        if deal.cost > account.cash[asset.currency]:
            return rejected("INSUFFICIENT_FUNDS", required=deal.cost, available=account.cash[asset.currency])
        return None

    def _fill(self, asked: Asked, asset: ModelAsset, deal: Deal, now: datetime) -> Outcome:
        account = self.accounts[asked.account]
        if asked.side == "BUY":
            account.cash[asset.currency] -= deal.cost
            account.holding(asked.asset).bought(deal)
            asset.supply += deal.shares
            asset.backing += deal.gross
        else:
            account.cash[asset.currency] += deal.proceeds
            account.holding(asked.asset).sold(deal, now.astimezone(UTC).date())
            asset.supply -= deal.shares
            asset.backing -= deal.gross
        asset.surplus += deal.fee
        asset.trade_seq += 1
        return Outcome(
            "FILLED",
            deal=deal,
            seq=asset.trade_seq,
            supply_after=asset.supply,
            market_after=asset.curve.market(asset.supply),
        )

    def set_fee(self, asset: str, fee_rate: Fraction) -> None:
        """Change the fee from now on."""
        self.assets[asset].curve = replace(self.assets[asset].curve, fee_rate=fee_rate)
