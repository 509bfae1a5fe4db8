"""What a demo trader decides, given what it sees and holds. Pure: no I/O, no clock; chance comes in as a `Random`.

Money in 10^-6, shares in 10^-9, prices in 10^-12, slopes in 10^-18, rates and shares of a gap in 10^-9.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

from app.money import PRICE_UNIT, RATE_UNIT, SHARE_UNIT

Side = Literal["BUY", "SELL"]

SHARE_LOT: Final = SHARE_UNIT // 1000
"""Orders are in whole thousandths of a share, as people write them."""
MONEY_LOT: Final = 10_000
"""Amounts are in whole cents."""
_SLOPE_SCALE: Final = 10**15
"""price 10^-12 over slope 10^-18, as shares 10^-9."""
_VALUE_SCALE: Final = SHARE_UNIT * PRICE_UNIT // 10**6
"""shares 10^-9 times price 10^-12, as money 10^-6."""


@dataclass(frozen=True, slots=True)
class AssetView:
    """An asset as last read. `can_buy` is false while it is REDUCE_ONLY."""

    id: str
    symbol: str
    currency: str
    market: int
    fundamental: int
    slope: int
    fee_rate: int
    min_notional: int
    can_buy: bool = True


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a trader has: cash by currency, shares by asset id."""

    cash: Mapping[str, int]
    shares: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Intent:
    """An order to be quoted: `shares`, or for a purchase perhaps `amount`. Dropped when the quote's priceAfter passes
    `worst_price`: someone was faster."""

    asset_id: str
    side: Side
    shares: int | None = None
    amount: int | None = None
    worst_price: int | None = None


@dataclass(frozen=True, slots=True)
class Follower:
    """Believes in the series: buys below F, sells what it holds above F, once the gap passes `threshold` of F.

    `closes`: the part of the gap that one order closes. `order_max`: the most money in one order.
    """

    threshold: int
    closes: int
    order_max: int


@dataclass(frozen=True, slots=True)
class TrendRider:
    """Believes in the tape: buys for `stake` when recent trades moved M up by `threshold`, sells half when down.

    `position_max`: the most money's worth it holds of an asset.
    """

    threshold: int
    stake: int
    position_max: int


@dataclass(frozen=True, slots=True)
class Wanderer:
    """Believes in nothing: buys for 0.1 to 1 `stake` or sells some, whatever the price. `position_max` as above."""

    stake: int
    position_max: int


def worth(shares: int, price: int) -> int:
    """shares * price as money, rounded down."""
    return shares * price // _VALUE_SCALE


def gap(view: AssetView) -> int:
    """(F - M) / F in 10^-9, towards zero."""
    size = abs(view.fundamental - view.market) * RATE_UNIT // view.fundamental
    return size if view.fundamental >= view.market else -size


def follow(*, temper: Follower, views: Sequence[AssetView], holdings: Holdings) -> Intent | None:
    """The order that closes part of the widest gap this trader can act on, or None when M is near F everywhere."""
    for view in sorted(views, key=lambda view: -abs(gap(view))):
        if abs(gap(view)) <= temper.threshold:
            return None
        shares = _shares_to_close(temper, view, holdings)
        if shares and worth(shares, view.market) >= view.min_notional:
            side: Side = "BUY" if gap(view) > 0 else "SELL"
            return Intent(view.id, side, shares=shares, worst_price=view.fundamental)
    return None


def _shares_to_close(temper: Follower, view: AssetView, holdings: Holdings) -> int:
    """By the curve's slope: moving M by d takes d / k shares. Capped by the order's size, and by what is held."""
    distance = abs(view.fundamental - view.market) * temper.closes // RATE_UNIT
    wanted = distance * _SLOPE_SCALE // view.slope
    dearest = max(view.fundamental, view.market)
    wanted = min(wanted, temper.order_max * _VALUE_SCALE // dearest)
    if gap(view) < 0:
        wanted = min(wanted, holdings.shares.get(view.id, 0))
    elif view.can_buy:
        # All of it at the price it ends at, fee included: more than it can cost.
        affordable = holdings.cash.get(view.currency, 0) * RATE_UNIT // (RATE_UNIT + view.fee_rate)
        wanted = min(wanted, affordable * _VALUE_SCALE // dearest)
    else:
        return 0
    return wanted - wanted % SHARE_LOT


def ride(*, temper: TrendRider, view: AssetView, recent: Sequence[int], holdings: Holdings) -> Intent | None:
    """With the trend of `recent`, M after each of the last trades from the oldest on; None where there is no trend."""
    if len(recent) < 2:
        return None
    moved = (recent[-1] - recent[0]) * RATE_UNIT
    held = holdings.shares.get(view.id, 0)
    if moved > temper.threshold * recent[0]:
        room = temper.position_max - worth(held, view.market)
        return _purchase(view, min(temper.stake, room, holdings.cash.get(view.currency, 0)))
    if -moved > temper.threshold * recent[0]:
        return _sale(view, held=held, shares=held // 2)
    return None


def wander(*, temper: Wanderer, view: AssetView, holdings: Holdings, chance: Random) -> Intent | None:
    """A purchase or a sale at a coin's toss, a tenth to the whole of the stake in size."""
    size = temper.stake * chance.randint(1, 10) // 10
    held = holdings.shares.get(view.id, 0)
    if chance.random() < 0.5:
        return _sale(view, held=held, shares=min(held, size * _VALUE_SCALE // view.market))
    room = temper.position_max - worth(held, view.market)
    return _purchase(view, min(size, room, holdings.cash.get(view.currency, 0)))


def _purchase(view: AssetView, amount: int) -> Intent | None:
    amount -= amount % MONEY_LOT
    if not view.can_buy or amount < 2 * view.min_notional:
        return None
    return Intent(view.id, "BUY", amount=amount)


def _sale(view: AssetView, *, held: int, shares: int) -> Intent | None:
    """What would leave next to nothing behind sells everything."""
    left = held - shares
    shares = held if worth(left, view.market) < view.min_notional else shares - shares % SHARE_LOT
    if worth(shares, view.market) < view.min_notional:
        return None
    return Intent(view.id, "SELL", shares=shares)


def is_worth_it(intent: Intent, *, price_after: int) -> bool:
    """Whether an order is still wanted that would leave M at `price_after`: it must not pass the worst price."""
    worst = intent.worst_price
    return worst is None or (price_after <= worst if intent.side == "BUY" else price_after >= worst)
