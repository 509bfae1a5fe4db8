"""The demo's assets: positive prices over the whole series, room below them, and about 1,000 for one percent."""

import re
from fractions import Fraction

import pytest

from app.demo.catalogue import CATALOGUE, FEE_RATE, DemoAsset
from app.exchange.curve import Curve, buy_shares, required_reserve
from app.money import (
    MONEY_UNIT,
    PRICE_DECIMALS,
    PRICE_MAX,
    PRICE_MIN,
    PRICE_UNIT,
    RATE_DECIMALS,
    RATE_UNIT,
    SHARE_UNIT,
    SLOPE_DECIMALS,
    SLOPE_MAX,
    div_half_even,
    parse,
    price_text,
)
from tests.conftest import ROOT

EVERY_ASSET = pytest.mark.parametrize("asset", CATALOGUE, ids=lambda asset: asset.symbol)


def curve_of(asset: DemoAsset) -> Curve:
    return Curve(
        parse(asset.base_price, decimals=PRICE_DECIMALS, field=("basePrice",), minimum=PRICE_MIN, maximum=PRICE_MAX),
        parse(asset.slope, decimals=SLOPE_DECIMALS, field=("slope",), minimum=1, maximum=SLOPE_MAX),
        parse(FEE_RATE, decimals=RATE_DECIMALS, field=("feeRate",), maximum=RATE_UNIT),
    )


def supply_at(curve: Curve, price: int) -> int:
    return (price - curve.base_price) * 10**15 // curve.slope


def median_price(asset: DemoAsset) -> int:
    prices = sorted(asset.mapping.prices(asset.load()))
    return prices[len(prices) // 2]


def test_there_are_at_least_six_and_each_stands_for_something_else() -> None:
    assert len(CATALOGUE) >= 6
    for names in (
        [a.symbol for a in CATALOGUE],
        [a.name for a in CATALOGUE],
        [(a.series, a.column) for a in CATALOGUE],
    ):
        assert len(set(names)) == len(CATALOGUE)
    assert {asset.quote_currency for asset in CATALOGUE} == {"USDC", "USDT"}


def test_the_lowest_and_the_highest_price_of_each_series_are_as_documented() -> None:
    ranges = {asset.symbol: (min(_prices(asset)), max(_prices(asset))) for asset in CATALOGUE}
    milli = PRICE_UNIT // 1000
    assert ranges == {
        "SEATEMP": (98_400 * milli, 135_600 * milli),
        "SEAWIND": (80_800 * milli, 99_000 * milli),
        "USCONSTR": (54_270 * milli, 77_260 * milli),
        "USMANUF": (34_530 * milli, 62_260 * milli),
        "USINFO": (43_400 * milli, 85_500 * milli),
        "IAWIND": (22_874 * milli, 63_866 * milli),
        "IAFOSSIL": (56_874 * milli, 85_500 * milli),
        "IANUCLR": (77_060 * milli, 106_420 * milli),
    }


def _prices(asset: DemoAsset) -> list[int]:
    return asset.mapping.prices(asset.load())


@EVERY_ASSET
def test_the_curve_begins_at_a_quarter_of_the_lowest_price_or_below(asset: DemoAsset) -> None:
    lowest = min(_prices(asset))
    assert lowest > 0
    assert 0 < 4 * curve_of(asset).base_price <= lowest


@EVERY_ASSET
def test_one_percent_costs_about_a_thousand_at_the_typical_price(asset: DemoAsset) -> None:
    curve, typical = curve_of(asset), median_price(asset)
    supply = supply_at(curve, typical)
    cost = buy_shares(curve, supply, supply_at(curve, typical * 101 // 100) - supply).gross
    # (1.01^2 - 1) * m^2 / (2k), by the formula that the docs show
    by_formula = 201 * typical * typical * 10**6 // (20_000 * curve.slope * 10**6)
    assert abs(cost - by_formula) <= 20
    assert abs(cost - 1000 * MONEY_UNIT) <= 10 * MONEY_UNIT


@EVERY_ASSET
def test_climbing_from_nothing_to_the_highest_price_is_affordable(asset: DemoAsset) -> None:
    curve = curve_of(asset)
    reserve = required_reserve(curve, supply_at(curve, max(_prices(asset))))
    assert 60_000 * MONEY_UNIT < reserve < 150_000 * MONEY_UNIT


@EVERY_ASSET
def test_a_pass_takes_minutes_for_rare_points_and_hours_for_daily_ones(asset: DemoAsset) -> None:
    seconds = asset.load().span_ms // asset.speed // 1000
    assert seconds == {"seattle-weather": 14_600, "us-employment": 1190, "iowa-electricity": 1440}[asset.series]


@EVERY_ASSET
def test_the_description_gives_a_point_the_formula_and_an_example_that_holds(asset: DemoAsset) -> None:
    assert "A point is" in asset.description
    example = re.search(r"so that ([\d,]+) ([\w°/ ]+?) (?:is|are) (\d+) (USD[CT])", asset.description)
    assert example is not None
    value, unit = int(example[1].replace(",", "")), example[2]
    point = value // 1000 if unit in ("employees", "MWh") else value
    assert asset.mapping.price(Fraction(point)) == int(example[3]) * PRICE_UNIT
    assert example[4] == asset.quote_currency
    assert len(asset.description) <= 500
    assert len(asset.symbol) <= 16


def test_the_docs_show_the_figures_as_they_are() -> None:
    rows = [line for line in (ROOT / "docs/demo-market.md").read_text().splitlines() if line.count("|") == 11]
    assert rows[2:] == [f"| {' | '.join(_documented(asset))} |" for asset in CATALOGUE]


def _documented(asset: DemoAsset) -> list[str]:
    curve, prices, median = curve_of(asset), _prices(asset), median_price(asset)
    supply = supply_at(curve, median)
    cents = div_half_even(buy_shares(curve, supply, supply_at(curve, median * 101 // 100) - supply).gross, 10_000)
    reserves = [required_reserve(curve, supply_at(curve, price)) for price in (median, max(prices))]
    return [
        asset.symbol,
        *(price_text(price) for price in (min(prices), median, max(prices))),
        asset.base_price,
        asset.slope,
        f"{cents // 100:,}.{cents % 100:02}",
        f"{div_half_even(supply, SHARE_UNIT):,}",
        *(f"{div_half_even(reserve, MONEY_UNIT):,}" for reserve in reserves),
    ]
