"""What traders decide, with exact values. No market is needed to know."""

from dataclasses import replace
from random import Random

import pytest

from app.demo.decisions import (
    AssetView,
    Follower,
    Holdings,
    Intent,
    TrendRider,
    Wanderer,
    follow,
    gap,
    is_worth_it,
    ride,
    wander,
    worth,
)
from app.exchange.curve import Curve, buy_shares, marginal_price, sell_shares
from app.money import MONEY_UNIT, PRICE_UNIT, RATE_UNIT, SHARE_UNIT, SLOPE_UNIT

PERCENT = RATE_UNIT // 100
VIEW = AssetView(
    id="A",
    symbol="ALPHA",
    currency="USDC",
    market=90 * PRICE_UNIT,
    fundamental=100 * PRICE_UNIT,
    slope=SLOPE_UNIT // 10,
    fee_rate=5_000_000,
    min_notional=10_000,
)
RICH = Holdings({"USDC": 10**6 * MONEY_UNIT}, {"A": 1000 * SHARE_UNIT})
HALF = Follower(threshold=PERCENT, closes=50 * PERCENT, order_max=10**6 * MONEY_UNIT)


def priced(market: int, asset_id: str = "A") -> AssetView:
    return replace(VIEW, id=asset_id, market=market * PRICE_UNIT)


# ------------------------------------------------------------------------------------------------------ followers


def test_the_gap_is_relative_to_the_fundamental_price() -> None:
    assert gap(VIEW) == 10 * PERCENT
    assert gap(priced(110)) == -10 * PERCENT
    assert gap(priced(100)) == 0


def test_a_follower_buys_what_closes_its_part_of_the_gap() -> None:
    intent = follow(temper=HALF, views=[VIEW], holdings=RICH)
    assert intent == Intent("A", "BUY", shares=50 * SHARE_UNIT, worst_price=100 * PRICE_UNIT)


def test_a_follower_sells_what_closes_its_part_of_the_gap() -> None:
    intent = follow(temper=HALF, views=[priced(110)], holdings=RICH)
    assert intent == Intent("A", "SELL", shares=50 * SHARE_UNIT, worst_price=100 * PRICE_UNIT)


def test_the_curve_moves_as_far_as_the_follower_meant() -> None:
    curve = Curve(base_price=25 * PRICE_UNIT, slope=VIEW.slope, fee_rate=VIEW.fee_rate)
    supply = 650 * SHARE_UNIT
    assert marginal_price(curve, supply) == 90 * PRICE_UNIT
    up = follow(temper=HALF, views=[VIEW], holdings=RICH)
    assert up is not None
    assert up.shares is not None
    assert marginal_price(curve, supply + up.shares) == 95 * PRICE_UNIT
    assert buy_shares(curve, supply, up.shares).gross == 4_625 * MONEY_UNIT
    assert sell_shares(curve, supply, up.shares).gross == 4_375 * MONEY_UNIT


def test_a_follower_waits_until_the_gap_passes_its_threshold() -> None:
    assert follow(temper=HALF, views=[priced(99)], holdings=RICH) is None
    assert follow(temper=HALF, views=[priced(101)], holdings=RICH) is None
    just_beyond = replace(VIEW, market=99 * PRICE_UNIT - 200_000_000)
    assert follow(temper=HALF, views=[just_beyond], holdings=RICH) == Intent(
        "A", "BUY", shares=5 * SHARE_UNIT + SHARE_UNIT // 1000, worst_price=100 * PRICE_UNIT
    )


def test_a_follower_takes_the_widest_gap_first() -> None:
    views = [priced(95), priced(88, "B"), priced(111, "C")]
    intent = follow(temper=HALF, views=views, holdings=Holdings(RICH.cash, {"C": 5 * SHARE_UNIT}))
    assert intent is not None
    assert intent.asset_id == "B"


def test_a_follower_without_shares_to_sell_turns_to_the_next_gap() -> None:
    views = [priced(95), priced(120, "C")]
    intent = follow(temper=HALF, views=views, holdings=RICH)
    assert intent == Intent("A", "BUY", shares=25 * SHARE_UNIT, worst_price=100 * PRICE_UNIT)
    assert follow(temper=HALF, views=[priced(120, "C")], holdings=RICH) is None


def test_a_follower_sells_no_more_than_it_holds() -> None:
    held = Holdings({}, {"A": 3 * SHARE_UNIT + 1_999_999})
    assert follow(temper=HALF, views=[priced(120)], holdings=held) == Intent(
        "A", "SELL", shares=3 * SHARE_UNIT + SHARE_UNIT // 1000, worst_price=100 * PRICE_UNIT
    )


def test_a_follower_spends_no_more_than_it_has_with_the_fee() -> None:
    intent = follow(temper=HALF, views=[VIEW], holdings=Holdings({"USDC": 1005 * MONEY_UNIT}, {}))
    assert intent is not None
    assert intent.shares == 10 * SHARE_UNIT
    curve = Curve(base_price=25 * PRICE_UNIT, slope=VIEW.slope, fee_rate=VIEW.fee_rate)
    cost = buy_shares(curve, 650 * SHARE_UNIT, intent.shares)
    assert cost.gross + cost.fee <= 1005 * MONEY_UNIT
    assert follow(temper=HALF, views=[VIEW], holdings=Holdings({"USDT": 10**12}, {})) is None


def test_an_order_is_no_larger_than_the_followers_maximum() -> None:
    small = replace(HALF, order_max=200 * MONEY_UNIT)
    assert follow(temper=small, views=[VIEW], holdings=RICH) == Intent(
        "A", "BUY", shares=2 * SHARE_UNIT, worst_price=100 * PRICE_UNIT
    )


def test_nobody_buys_an_asset_that_is_reduce_only() -> None:
    closed = replace(VIEW, can_buy=False)
    assert follow(temper=HALF, views=[closed], holdings=RICH) is None
    up = [80 * PRICE_UNIT, 90 * PRICE_UNIT]
    rider = TrendRider(PERCENT, 100 * MONEY_UNIT, 10**6 * MONEY_UNIT)
    assert ride(temper=rider, view=closed, recent=up, holdings=RICH) is None
    assert ride(temper=rider, view=closed, recent=up[::-1], holdings=RICH) is not None


# --------------------------------------------------------------------------------------------------- trend riders

RIDER = TrendRider(threshold=PERCENT, stake=100 * MONEY_UNIT, position_max=1_000 * MONEY_UNIT)


def tape(*prices: int) -> list[int]:
    return [one * PRICE_UNIT for one in prices]


def test_a_rider_buys_for_its_stake_when_trades_moved_the_price_up() -> None:
    poor = Holdings({"USDC": 500 * MONEY_UNIT}, {})
    assert ride(temper=RIDER, view=VIEW, recent=tape(80, 95, 90), holdings=poor) == Intent(
        "A", "BUY", amount=100 * MONEY_UNIT
    )


def test_a_rider_sells_half_when_trades_moved_the_price_down() -> None:
    held = Holdings({}, {"A": 7 * SHARE_UNIT + 3_333_333})
    assert ride(temper=RIDER, view=VIEW, recent=tape(95, 90), holdings=held) == Intent(
        "A", "SELL", shares=3 * SHARE_UNIT + 501 * SHARE_UNIT // 1000
    )


@pytest.mark.parametrize("recent", [[], tape(90), tape(100, 101), tape(100, 99), tape(90, 120, 90)])
def test_a_rider_sits_still_without_a_trend(recent: list[int]) -> None:
    assert ride(temper=RIDER, view=VIEW, recent=recent, holdings=RICH) is None


def test_a_rider_stops_at_its_largest_position() -> None:
    held = Holdings({"USDC": 500 * MONEY_UNIT}, {"A": 10_500_000_000})
    assert worth(10_500_000_000, VIEW.market) == 945 * MONEY_UNIT
    assert ride(temper=RIDER, view=VIEW, recent=tape(80, 90), holdings=held) == Intent(
        "A", "BUY", amount=55 * MONEY_UNIT
    )
    full = Holdings(held.cash, {"A": 12 * SHARE_UNIT})
    assert ride(temper=RIDER, view=VIEW, recent=tape(80, 90), holdings=full) is None


def test_a_rider_spends_no_more_than_it_has() -> None:
    poor = Holdings({"USDC": 12_345_678}, {})
    assert ride(temper=RIDER, view=VIEW, recent=tape(80, 90), holdings=poor) == Intent("A", "BUY", amount=12_340_000)


# ------------------------------------------------------------------------------------------------------ wanderers

WANDERER = Wanderer(stake=100 * MONEY_UNIT, position_max=1_000 * MONEY_UNIT)


class Loaded(Random):
    """Dice that fall as told: the size in tenths, then the coin."""

    def __init__(self, tenths: int, coin: float) -> None:
        super().__init__(0)
        self._tenths, self._coin = tenths, coin

    def randint(self, a: int, b: int) -> int:
        assert (a, b) == (1, 10)
        return self._tenths

    def random(self) -> float:
        return self._coin


def test_a_wanderer_buys_or_sells_as_the_coin_falls() -> None:
    assert wander(temper=WANDERER, view=VIEW, holdings=RICH, chance=Loaded(3, 0.2)) == Intent(
        "A", "SELL", shares=333 * SHARE_UNIT // 1000
    )
    little = Holdings(RICH.cash, {"A": SHARE_UNIT})
    assert wander(temper=WANDERER, view=VIEW, holdings=little, chance=Loaded(3, 0.7)) == Intent(
        "A", "BUY", amount=30 * MONEY_UNIT
    )


def test_a_wanderer_with_nothing_sells_nothing() -> None:
    assert wander(temper=WANDERER, view=VIEW, holdings=Holdings({}, {}), chance=Loaded(10, 0.2)) is None
    assert wander(temper=WANDERER, view=VIEW, holdings=Holdings({}, {}), chance=Loaded(10, 0.7)) is None


def test_a_sale_that_would_leave_dust_sells_everything() -> None:
    held = Holdings({}, {"A": 333_100_000})
    assert wander(temper=WANDERER, view=VIEW, holdings=held, chance=Loaded(3, 0.2)) == Intent(
        "A", "SELL", shares=333_100_000
    )


def test_the_same_seed_makes_the_same_choices() -> None:
    def choices() -> list[Intent | None]:
        chance = Random("7 noise-1")
        return [wander(temper=WANDERER, view=VIEW, holdings=RICH, chance=chance) for _ in range(50)]

    assert choices() == choices()
    assert {intent and intent.side for intent in choices()} == {"SELL", None}


# ---------------------------------------------------------------------------------------------------- second thoughts


def test_an_order_that_came_too_late_is_dropped() -> None:
    up = Intent("A", "BUY", shares=SHARE_UNIT, worst_price=100 * PRICE_UNIT)
    assert is_worth_it(up, price_after=100 * PRICE_UNIT)
    assert not is_worth_it(up, price_after=100 * PRICE_UNIT + 1)
    down = replace(up, side="SELL")
    assert is_worth_it(down, price_after=100 * PRICE_UNIT)
    assert not is_worth_it(down, price_after=100 * PRICE_UNIT - 1)


def test_an_order_without_a_worst_price_is_never_too_late() -> None:
    assert is_worth_it(Intent("A", "BUY", amount=MONEY_UNIT), price_after=10**30)
