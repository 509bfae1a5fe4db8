"""The demo's assets: positive prices over the whole series, room below them, about 1,000 for one percent, and caps that
few readings meet."""

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import cache

import pytest

from app.demo.catalogue import CATALOGUE, FEE_RATE, DemoAsset
from app.demo.stand_in.months import MONTH_SECONDS, SERIES
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
from app.oracle.cases import FeedCase, FeedReading
from app.oracle.configuration import FeedsConfiguration, SearchConfiguration, base_cadence
from app.oracle.feed_judgement import judge_feeds
from app.oracle.kinds import FUNDAMENTAL_WEIGHT, PERCENT_UNIT, OracleOutcome
from app.oracle.replays import value_text
from app.oracle.series import natural_speed
from app.pricing.model import averaged
from tests.conftest import ROOT

FOLLOWED = tuple(asset for asset in CATALOGUE if asset.search is None)
"""By feed."""
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
        "USMINING": (656_000 * milli, 904_000 * milli),
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


@pytest.mark.parametrize("asset", FOLLOWED, ids=lambda asset: asset.symbol)
def test_a_pass_takes_minutes_for_rare_points_and_hours_for_daily_ones(asset: DemoAsset) -> None:
    seconds = asset.load().span_ms // natural_speed(asset.series) // 1000
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


def test_one_asset_follows_by_search_and_the_others_by_their_series() -> None:
    (searched,) = (asset for asset in CATALOGUE if asset.search is not None)
    oracle = searched.oracle
    assert isinstance(oracle, SearchConfiguration)
    assert (searched.series, searched.column) == SERIES
    assert (len(searched.load().values) - 1) * MONTH_SECONDS == 10_710
    assert (oracle.unit, oracle.min_sources, oracle.max_delta_percent) == ("thousand employees", 2, 10 * PERCENT_UNIT)
    assert oracle.allowed_domains is None
    for asset in FOLLOWED:
        followed = asset.oracle
        assert isinstance(followed, FeedsConfiguration)
        (feed,) = followed.feeds
        assert (feed.series, feed.column, feed.scale, feed.offset) == (
            asset.series, asset.column, asset.scale, asset.offset,
        )  # fmt: skip
        assert feed.max_delta_percent == asset.max_delta_percent * PERCENT_UNIT
        assert base_cadence(followed) == CADENCE_SECONDS


# ------------------------------------------------------------------------------------------------ caps
CADENCE_SECONDS = 3


@cache
def _readings(symbol: str) -> tuple[int, Counter[str]]:
    """How many readings a whole replay is, forth and back, and how many of them are not taken as they came, by why."""
    (asset,) = (asset for asset in CATALOGUE if asset.symbol == symbol)
    series, oracle = asset.load(), asset.oracle
    assert isinstance(oracle, FeedsConfiguration)
    (feed,) = oracle.feeds
    at, step_ms = datetime(2026, 1, 1, tzinfo=UTC), CADENCE_SECONDS * 1000 * natural_speed(asset.series)
    fundamental, count, refused = 1, 0, Counter[str]()
    for position_ms in range(0, series.period_ms, step_ms):
        reading = FeedReading(
            source=feed.source,
            value=value_text(series.value_at(position_ms)),
            at=at,
            samples=(),
            scale=feed.scale,
            offset=feed.offset,
            twap_minutes=None,
            max_delta_percent=feed.max_delta_percent,
        )
        verdict = judge_feeds(FeedCase((reading,), 1, fundamental, count == 0, at, 30))
        assert verdict.price is not None, f"{symbol} at {position_ms}: {verdict}"
        refused.update(verdict.reasons)
        assert verdict.outcome is OracleOutcome.ACCEPTED
        moved = averaged(verdict.price, before=fundamental, fundamental_weight=FUNDAMENTAL_WEIGHT)
        fundamental = moved if count else verdict.price
        at += timedelta(seconds=CADENCE_SECONDS)
        count += 1
    return count, refused


@pytest.mark.parametrize("asset", FOLLOWED, ids=lambda asset: asset.symbol)
def test_fewer_than_one_reading_in_twenty_is_clamped_or_out_of_range(asset: DemoAsset) -> None:
    count, refused = _readings(asset.symbol)
    assert count >= 790
    assert 20 * refused.total() < count
    assert set(refused) <= {"CLAMPED"}


def test_the_docs_say_how_many_readings_are_clamped() -> None:
    counts = {asset.symbol: _readings(asset.symbol) for asset in FOLLOWED}
    text = (ROOT / "docs/demo-market.md").read_text()
    rows = [line for line in text.splitlines() if line.count("|") == 5]
    assert rows[2:] == [
        f"| {asset.symbol} | {asset.max_delta_percent} % | {count:,} | {_percent(refused.total(), count)} |"
        for asset in FOLLOWED
        for count, refused in [counts[asset.symbol]]
    ]
    everything = sum(count for count, _ in counts.values())
    clamped = sum(refused.total() for _, refused in counts.values())
    assert f"{clamped} of {everything:,} readings, {_percent(clamped, everything)}, are clamped" in " ".join(
        text.split()
    )


def _percent(part: int, whole: int) -> str:
    hundredths = div_half_even(10_000 * part, whole)
    return f"{hundredths // 100}.{hundredths % 100:02} %"


# ------------------------------------------------------------------------------------------------ docs
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
