"""How often oracles run: by activity, by wishes, by budgets, spread out, and put off after failures."""

import random
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise

import pytest

from app.oracle import cadence
from app.oracle.cadence import Demand
from app.oracle.configuration import FeedConfiguration, FeedsConfiguration, SearchConfiguration

SCALE = 1_000 * 10**6
"""V0 of 1,000, in 10^-6."""
SEARCH = SearchConfiguration(("q",), "How many?", "USD", None, 2, 10 * 10**9, 6 * 10**8)
SERIES = FeedConfiguration(None, None, "seattle-weather", "temp_max", "1", "10", None, 10 * 10**9)
HTTP = FeedConfiguration("https://feed.example/x", "$.x", None, None, "1", "0", None, 10 * 10**9)


def feeds(*every: FeedConfiguration) -> FeedsConfiguration:
    return FeedsConfiguration(every, 1)


# ------------------------------------------------------------------------------------------------ by activity


@pytest.mark.parametrize(
    ("volume", "seconds"),
    [(0, 900), (1_000, 600), (2_000, 500), (9_000, 360), (10**9, 300), (333, 750), (250, 780)],
)
def test_searches_come_more_often_where_more_is_traded(volume: int, seconds: int) -> None:
    assert cadence.search_cadence(recent_volume=volume * 10**12, volume_scale=SCALE) == seconds


def test_a_half_second_is_rounded_to_the_even_one() -> None:
    # 900 - 600 * 1/1200 = 899.5, and 900 - 600 * 3/1200 = 898.5
    assert cadence.search_cadence(recent_volume=10**12, volume_scale=1_199 * 10**6) == 900
    assert cadence.search_cadence(recent_volume=3 * 10**12, volume_scale=1_197 * 10**6) == 898


def test_the_cadence_of_searches_stays_between_its_bounds_and_falls_with_volume() -> None:
    chance = random.Random(5)
    for _ in range(200):
        scale = chance.randint(1, 10**18)
        volumes = sorted(chance.randint(0, 10 ** chance.randint(0, 37)) for _ in range(5))
        found = [cadence.search_cadence(recent_volume=volume, volume_scale=scale) for volume in volumes]
        assert all(300 <= seconds <= 900 for seconds in found)
        assert all(earlier >= later for earlier, later in pairwise(found))


@pytest.mark.parametrize(
    ("configuration", "wish", "seconds"),
    [
        (SEARCH, None, 600),
        (SEARCH, 45, 45),
        (feeds(HTTP), None, 60),
        (feeds(SERIES, HTTP), None, 60),
        (feeds(SERIES), None, 3),
        (feeds(SERIES), 7_200, 7_200),
    ],
)
def test_a_wish_counts_before_what_suits_the_sources(
    configuration: SearchConfiguration | FeedsConfiguration, wish: int | None, seconds: int
) -> None:
    found = cadence.own_cadence(
        configuration=configuration, base_cadence_seconds=wish, recent_volume=10**15, volume_scale=SCALE
    )
    assert found == seconds


@pytest.mark.parametrize(("seconds", "fresh"), [(2, 30), (10, 30), (11, 33), (300, 900), (86_400, 259_200)])
def test_a_reading_is_fresh_for_three_cadences_and_half_a_minute_at_least(seconds: int, fresh: int) -> None:
    assert cadence.fresh_seconds(cadence_seconds=seconds) == fresh


# ------------------------------------------------------------------------------------------------ by budgets


def test_budgets_that_last_stretch_nothing() -> None:
    demands = [Demand({"serper": 1, "huggingface": 1}, 900)] * 10
    assert cadence.stretch(seconds_left=86_400, left={"serper": 960, "huggingface": 960}, demands=demands) == 1
    assert cadence.stretch(seconds_left=86_400, left={}, demands=demands) == 1
    assert cadence.stretch(seconds_left=86_400, left={"serper": 0}, demands=[]) == 1


def test_the_scarcest_budget_decides() -> None:
    demands = [Demand({"serper": 2, "huggingface": 1}, 900)] * 10
    left = {"serper": 960, "huggingface": 320}
    assert cadence.stretch(seconds_left=86_400, left=left, demands=demands) == 3


def test_one_frequent_search_does_not_starve_the_others() -> None:
    demands = [Demand({"serper": 1}, 100), Demand({"serper": 1}, 900)]
    assert cadence.stretch(seconds_left=3_600, left={"serper": 45}, demands=demands) == 1
    assert cadence.stretch(seconds_left=3_600, left={"serper": 20}, demands=demands) == 2
    assert cadence.stretch(seconds_left=3_600, left={"serper": 0}, demands=demands) is None


def test_stretched_searches_use_up_the_budget_and_no_more() -> None:
    chance = random.Random(11)
    for _ in range(200):
        seconds_left = chance.randint(3_600, 86_400)
        demands = [Demand({"serper": chance.randint(1, 3)}, chance.randint(300, 900)) for _ in range(40)]
        left = chance.randint(100, 3_000)
        factor = cadence.stretch(seconds_left=seconds_left, left={"serper": left}, demands=demands)
        assert factor is not None
        asked = sum(
            Fraction(
                each.requests["serper"] * seconds_left,
                cadence.stretched(cadence_seconds=each.cadence_seconds, factor=factor, seconds_left=10**9),
            )
            for each in demands
        )
        assert asked <= left


@pytest.mark.parametrize(
    ("factor", "left", "seconds"),
    [
        (Fraction(1), 50_000, 600),
        (Fraction(3), 50_000, 1_800),
        (Fraction(1_001, 1_000), 50_000, 601),
        # Tomorrow's budget is not waited for longer than needed.
        (Fraction(10), 100, 700),
        (Fraction(1_000), 40_000, 40_600),
        (None, 40_000, 40_600),
        (None, 1, 601),
        (Fraction(10**9), 86_400, 86_400),
    ],
)
def test_a_stretched_cadence(factor: Fraction | None, left: int, seconds: int) -> None:
    assert cadence.stretched(cadence_seconds=600, factor=factor, seconds_left=left) == seconds


def test_the_day_of_the_budgets_ends_at_midnight_in_utc() -> None:
    assert cadence.seconds_to_midnight(datetime(2030, 1, 1, tzinfo=UTC)) == 86_400
    assert cadence.seconds_to_midnight(datetime(2030, 1, 1, 23, 59, 59, 999_999, tzinfo=UTC)) == 1
    assert cadence.seconds_to_midnight(datetime(2030, 2, 28, 12, 0, 0, 500_000, tzinfo=UTC)) == 43_200


# ------------------------------------------------------------------------------------------------ spread out


def test_what_follows_a_first_or_late_run_is_spread_over_half_a_cadence() -> None:
    due = [cadence.spread_due_ms(asset_id=asset_id, cadence_seconds=600) for asset_id in range(1, 501)]
    assert all(300_000 <= ms < 600_000 for ms in due)
    # 500 assets in 30 slots of 10 s: nobody gets three times the even share of 17.
    slots = [sum(ms // 10_000 == slot for ms in due) for slot in range(30, 60)]
    assert max(slots) < 40
    assert min(slots) > 0


def test_next_runs_are_up_to_five_percent_off_and_the_same_whoever_computes_them() -> None:
    due = [cadence.next_due_ms(asset_id=7, run_id=run_id, cadence_seconds=300) for run_id in range(1, 1_001)]
    assert all(285_000 <= ms <= 315_000 for ms in due)
    assert min(due) < 286_000
    assert max(due) > 314_000
    assert abs(sum(due) / len(due) - 300_000) < 1_000
    assert due == [cadence.next_due_ms(asset_id=7, run_id=run_id, cadence_seconds=300) for run_id in range(1, 1_001)]


def test_assets_that_met_part_again() -> None:
    times = [timedelta(), timedelta()]
    for run_id in range(1, 51):
        for asset_id in (1, 2):
            ms = cadence.next_due_ms(asset_id=asset_id, run_id=run_id, cadence_seconds=300)
            times[asset_id - 1] += timedelta(milliseconds=ms)
    assert abs(times[0] - times[1]) > timedelta(seconds=10)


# ------------------------------------------------------------------------------------------------ put off


@pytest.mark.parametrize(
    ("seconds", "is_search", "waits"),
    [
        (3, False, [3, 6, 12, 24, 24, 24]),
        (60, False, [60, 120, 240, 480, 480]),
        (300, False, [300, 600, 900, 900]),
        (7_200, False, [900, 900]),
        (300, True, [300, 600, 1_200, 2_400, 2_400]),
        (900, True, [900, 1_800, 3_600, 3_600]),
    ],
)
def test_failures_on_end_put_the_next_attempt_off(*, seconds: int, is_search: bool, waits: list[int]) -> None:
    found = [
        cadence.back_off_seconds(cadence_seconds=seconds, failures=failures, is_search=is_search)
        for failures in range(1, len(waits) + 1)
    ]
    assert found == waits
    assert cadence.back_off_seconds(cadence_seconds=seconds, failures=10**6, is_search=is_search) == waits[-1]
