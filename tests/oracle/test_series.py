"""The bundled series: exact values, straight lines between points, and the way forth and back."""

from datetime import UTC, datetime
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.money import PRICE_UNIT
from app.oracle.series import LAYOUTS, Mapping, OutOfRange, Series, UnknownSeries, load_series, natural_speed

DAY_MS = 86_400_000
ZIGZAG = Series("zigzag", "made up", datetime(2020, 1, 1, tzinfo=UTC), (0, 10, 40), (15, -5, 100), decimals=1)


def test_daily_values_are_those_of_the_file() -> None:
    series = load_series("seattle-weather", "temp_max")
    assert series.began == datetime(2012, 1, 1, tzinfo=UTC)
    assert (len(series.values), series.decimals, series.values[:4]) == (1461, 1, (128, 106, 117, 122))
    assert series.times_ms[:3] == (0, DAY_MS, 2 * DAY_MS)
    assert series.span_ms == 1460 * DAY_MS
    assert series.points()[1] == Fraction("10.6")


def test_monthly_values_lie_at_the_first_of_their_month() -> None:
    series = load_series("us-employment", "construction")
    assert (len(series.values), series.decimals, series.values[:3]) == (120, 0, (7601, 7664, 7689))
    assert series.times_ms[:3] == (0, 31 * DAY_MS, 59 * DAY_MS)
    assert series.value_at(31 * DAY_MS) == 7664


def test_columns_with_mixed_decimals_share_one_scale() -> None:
    series = load_series("us-employment", "retail_trade")
    assert series.decimals == 1
    assert series.values[:3] == (153515, 153613, 153880)


def test_sources_of_one_file_are_series_of_their_own() -> None:
    renewables = load_series("iowa-electricity", "Renewables")
    nuclear = load_series("iowa-electricity", "Nuclear Energy")
    assert (len(renewables.values), renewables.values[0], renewables.values[-1]) == (17, 1437, 21933)
    assert (len(nuclear.values), nuclear.values[0], nuclear.values[-1]) == (17, 3853, 5214)


def test_halfway_between_two_days_is_halfway_between_their_values() -> None:
    series = load_series("seattle-weather", "temp_max")
    assert series.value_at(DAY_MS // 2) == Fraction("11.7")
    assert series.value_at(DAY_MS // 4) == Fraction("12.25")


@pytest.mark.parametrize(
    ("position_ms", "time_ms", "value"),
    [
        (0, 0, Fraction("1.5")),
        (5, 5, Fraction("0.5")),
        (10, 10, Fraction("-0.5")),
        (20, 20, Fraction(3)),
        (40, 40, Fraction(10)),
        (41, 39, Fraction("9.65")),
        (60, 20, Fraction(3)),
        (79, 1, Fraction("1.3")),
        (80, 0, Fraction("1.5")),
        (8_000_000_085, 5, Fraction("0.5")),
    ],
)
def test_positions_go_forth_and_back_along_straight_lines(position_ms: int, time_ms: int, value: Fraction) -> None:
    assert ZIGZAG.time_at(position_ms) == time_ms
    assert ZIGZAG.value_at(position_ms) == value


@pytest.mark.parametrize(
    ("position_ms", "around"),
    [
        (0, ((0, Fraction("1.5")), (10, Fraction("-0.5")))),
        (10, ((10, Fraction("-0.5")), (40, Fraction(10)))),
        (40, ((10, Fraction("-0.5")), (40, Fraction(10)))),
        (75, ((0, Fraction("1.5")), (10, Fraction("-0.5")))),
    ],
)
def test_the_points_around_a_position_are_those_of_the_line_it_is_on(position_ms: int, around: object) -> None:
    assert ZIGZAG.points_around(position_ms) == around


def test_each_file_has_a_usual_speed() -> None:
    assert {name: natural_speed(name) for name in LAYOUTS} == {
        "seattle-weather": 8_640,
        "us-employment": 262_800,
        "iowa-electricity": 350_640,
    }
    with pytest.raises(UnknownSeries, match="there is no bundled series 'moon'"):
        natural_speed("moon")


@given(st.integers(min_value=0, max_value=10**15))
def test_the_way_back_mirrors_the_way_forth_for_ever(position_ms: int) -> None:
    series = load_series("us-employment", "information")
    value = series.value_at(position_ms)
    assert value == series.value_at(position_ms + series.period_ms)
    assert value == series.value_at(series.period_ms - position_ms % series.period_ms)
    assert min(series.points()) <= value <= max(series.points())


@given(st.integers(min_value=0, max_value=10**13))
def test_values_never_jump(position_ms: int) -> None:
    steepest = max(
        abs(after - before) / Fraction(step)
        for before, after, step in [(15, -5, 10), (-5, 100, 30)]
    ) / 10  # fmt: skip
    assert abs(ZIGZAG.value_at(position_ms + 1) - ZIGZAG.value_at(position_ms)) <= steepest


def test_a_negative_position_is_refused() -> None:
    with pytest.raises(ValueError, match="never negative; got -1"):
        ZIGZAG.value_at(-1)


def test_unknown_names_are_refused_with_those_that_exist() -> None:
    with pytest.raises(UnknownSeries, match="no bundled series 'tides': choose one of seattle-weather, us-employment"):
        load_series("tides", "height")
    with pytest.raises(UnknownSeries, match="no column 'snow': choose one of precipitation, temp_max"):
        load_series("seattle-weather", "snow")
    with pytest.raises(UnknownSeries, match="no column 'date'"):
        load_series("seattle-weather", "date")
    with pytest.raises(UnknownSeries, match="no column 'Coal': choose one of Fossil Fuels, Nuclear Energy, Renewables"):
        load_series("iowa-electricity", "Coal")
    with pytest.raises(UnknownSeries, match="no column 'weather': choose one of precipitation, temp_max"):
        load_series("seattle-weather", "weather")


def test_every_numeric_column_of_every_file_loads() -> None:
    expected = {"seattle-weather": (4, 1461), "us-employment": (23, 120), "iowa-electricity": (3, 17)}
    columns = {
        "seattle-weather": ["precipitation", "temp_max", "temp_min", "wind"],
        "us-employment": list(_header("us-employment"))[1:],
        "iowa-electricity": ["Fossil Fuels", "Nuclear Energy", "Renewables"],
    }
    assert set(columns) == set(LAYOUTS)
    found = {
        name: (len(names), {len(load_series(name, one).values) for one in names}) for name, names in columns.items()
    }
    assert found == {name: (count, {points}) for name, (count, points) in expected.items()}


def _header(name: str) -> list[str]:
    from app.oracle import series

    return list(series._rows(name)[0])


def test_prices_are_exact_and_rounded_once_half_even() -> None:
    third = Mapping(Fraction(1, 3), Fraction(0))
    assert third.price(Fraction(1)) == 333_333_333_333
    assert third.price(Fraction(2)) == 666_666_666_667
    tie = Mapping(Fraction(1), Fraction(1))
    assert tie.price(Fraction(5, 10 * PRICE_UNIT)) == PRICE_UNIT
    assert tie.price(Fraction(15, 10 * PRICE_UNIT)) == PRICE_UNIT + 2


def test_scale_and_offset_are_decimal_texts() -> None:
    mapping = Mapping.parse(scale="0.1", offset="-220")
    assert mapping == Mapping(Fraction(1, 10), Fraction(-220))
    assert mapping.price(Fraction(2700)) == 50 * PRICE_UNIT
    for bad in ("1/3", "1e3", "", "nan", "１"):
        with pytest.raises(ValueError, match="the scale of a series must be a plain decimal"):
            Mapping.parse(scale=bad, offset="0")
        with pytest.raises(ValueError, match="the offset of a series must be a plain decimal"):
            Mapping.parse(scale="1", offset=bad)


def test_a_price_out_of_range_is_refused_and_never_clamped() -> None:
    mapping = Mapping(Fraction(1), Fraction(0))
    assert mapping.price(Fraction(1, 10**6)) == 10**6
    assert mapping.price(Fraction(10**9)) == 10**21
    for value in (Fraction(0), Fraction(-3), Fraction(999_999, 10**12), Fraction(10**9) + Fraction(1, 10**12)):
        with pytest.raises(OutOfRange, match=r"outside of 0\.000001 to 1000000000"):
            mapping.price(value)
