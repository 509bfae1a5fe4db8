"""Feed readings: which answers count, averages over time, the median, ranges and caps, with exact values."""

from datetime import UTC, datetime, timedelta

import pytest

from app.money import PRICE_UNIT
from app.oracle.cases import FeedCase, FeedReading
from app.oracle.feed_judgement import judge_feeds
from app.oracle.kinds import PERCENT_UNIT, Effect, OracleOutcome, Reason, Verdict

AT = datetime(2026, 3, 14, 12, 0, 0, tzinfo=UTC)


def reading(value: str | None, source: str = "a", **changes: object) -> FeedReading:
    """An answer of now that is the price itself, with a cap of 10 %."""
    values: dict[str, object] = {
        "source": source,
        "value": value,
        "at": AT,
        "samples": (),
        "scale": "1",
        "offset": "0",
        "twap_minutes": None,
        "max_delta_percent": 10 * PERCENT_UNIT,
    }
    return FeedReading(**{**values, **changes})  # type: ignore[arg-type]


def ago(seconds: float) -> datetime:
    return AT - timedelta(seconds=seconds)


def judged(*readings: FeedReading, min_feeds: int = 1, fundamental: str = "100", first: bool = False) -> Verdict:
    """The verdict where F is `fundamental` and answers are fresh for a minute."""
    whole = int(fundamental) * PRICE_UNIT
    return judge_feeds(
        FeedCase(readings=readings, min_feeds=min_feeds, fundamental=whole, is_first=first, at=AT, fresh_seconds=60)
    )


def test_one_feed_moves_f_by_a_fifth_of_the_way() -> None:
    assert judged(reading("102.50")) == Verdict(
        outcome=OracleOutcome.ACCEPTED,
        reasons=(),
        effect=Effect.MOVE,
        price=102_500_000_000_000,
        figure="102.5",
        delta_percent=2_500_000_000,
        move=5_000_000,
        counted=(0,),
        values=("102.5",),
        quotations=(None,),
    )


def test_a_value_is_mapped_exactly_and_rounded_half_even_once() -> None:
    verdict = judged(reading("-3", scale="-0.0000000000005", offset="100"))
    assert (verdict.price, verdict.figure) == (100 * PRICE_UNIT + 2, "100.0000000000015")
    verdict = judged(reading("1", scale="0.0000000000005", offset="100"))
    assert (verdict.price, verdict.move) == (100 * PRICE_UNIT, 0)


def test_the_median_of_several_feeds_is_the_price() -> None:
    three = judged(reading("103", "a"), reading("99", "b"), reading("101", "c"), min_feeds=3)
    assert (three.price, three.figure, three.counted) == (101 * PRICE_UNIT, "101", (0, 1, 2))
    two = judged(reading("103", "a"), reading("100", "b"), min_feeds=2)
    assert (two.price, two.figure, two.move) == (101_500_000_000_000, "101.5", 3_000_000)


def test_an_outlier_beyond_range_is_dropped_and_told() -> None:
    verdict = judged(reading("101", "a"), reading("2000000000", "b"), reading("-101", "c"), reading("103", "d"))
    assert (verdict.outcome, verdict.reasons) == (OracleOutcome.ACCEPTED, (Reason.OUT_OF_RANGE,))
    assert (verdict.price, verdict.counted) == (102 * PRICE_UNIT, (0, 3))
    assert verdict.values == ("101", "2000000000", "-101", "103")


@pytest.mark.parametrize("value", ["0", "-5", "0.0000009999994", "1000000000.0000000000006"])
def test_nothing_in_range_is_rejected_for_it_and_never_clamped(value: str) -> None:
    verdict = judged(reading(value), first=True)
    assert (verdict.outcome, verdict.reasons) == (OracleOutcome.REJECTED, (Reason.OUT_OF_RANGE,))
    assert (verdict.effect, verdict.price, verdict.figure, verdict.move) == (Effect.NONE, None, None, 0)
    assert verdict.counted == ()


def test_the_range_includes_its_ends() -> None:
    assert judged(reading("0.000001"), first=True).price == 10**6
    assert judged(reading("1000000000"), first=True).price == 10**21


@pytest.mark.parametrize("value", [None, "", "NaN", "nan", "Infinity", "1e3", "1,000", "１", "1" * 65, " 1", "0x1"])
def test_what_is_no_plain_decimal_is_no_answer(value: str | None) -> None:
    verdict = judged(reading(value))
    assert (verdict.outcome, verdict.reasons) == (OracleOutcome.REJECTED, (Reason.TOO_FEW_SOURCES,))
    assert verdict.values == (None,)


def test_fewer_good_feeds_than_asked_are_too_few() -> None:
    few = judged(reading("101", "a"), reading(None, "b"), reading("NaN", "c"), min_feeds=2)
    assert (few.reasons, few.price, few.values) == ((Reason.TOO_FEW_SOURCES,), None, ("101", None, None))
    because_of_range = judged(reading("101", "a"), reading("-1", "b"), min_feeds=2)
    assert because_of_range.reasons == (Reason.OUT_OF_RANGE,)
    both = judged(reading("101", "a"), reading("-1", "b"), reading(None, "c"), min_feeds=3)
    assert both.reasons == (Reason.OUT_OF_RANGE, Reason.TOO_FEW_SOURCES)
    none = judged()
    assert (none.outcome, none.reasons, none.values) == (OracleOutcome.REJECTED, (Reason.TOO_FEW_SOURCES,), ())


def test_no_number_of_feeds_below_one_is_enough() -> None:
    assert judged(reading(None), min_feeds=0).reasons == (Reason.TOO_FEW_SOURCES,)


def test_the_same_source_twice_counts_once() -> None:
    verdict = judged(reading("101"), reading("109"), min_feeds=2)
    assert (verdict.reasons, verdict.values) == ((Reason.TOO_FEW_SOURCES,), ("101", None))
    assert judged(reading(None), reading("109"), reading("101", "b"), min_feeds=2).counted == (1, 2)


def test_a_stale_answer_does_not_count() -> None:
    assert judged(reading("101", at=ago(60))).price == 101 * PRICE_UNIT
    assert judged(reading("101", at=ago(60.000001))).reasons == (Reason.TOO_FEW_SOURCES,)
    assert judged(reading("101", at=ago(-60))).price == 101 * PRICE_UNIT
    assert judged(reading("101", at=ago(-61))).reasons == (Reason.TOO_FEW_SOURCES,)


# ------------------------------------------------------------------------------------------------ caps


@pytest.mark.parametrize(
    ("value", "price", "delta", "move"), [("150", 110, 10, 20_000_000), ("1", 90, -10, 20_000_000)]
)
def test_beyond_the_cap_it_is_cut_to_it(value: str, price: int, delta: int, move: int) -> None:
    verdict = judged(reading(value))
    assert (verdict.outcome, verdict.reasons, verdict.effect) == (
        OracleOutcome.ACCEPTED,
        (Reason.CLAMPED,),
        Effect.MOVE,
    )
    assert (verdict.price, verdict.delta_percent, verdict.move) == (price * PRICE_UNIT, delta * PERCENT_UNIT, move)
    assert verdict.figure == value


def test_at_the_cap_it_is_taken_as_it_is() -> None:
    assert judged(reading("110")).reasons == ()
    assert judged(reading("110.000000000001")).reasons == (Reason.CLAMPED,)


def test_the_smallest_cap_of_the_feeds_used_holds() -> None:
    tight = reading("120", "b", max_delta_percent=PERCENT_UNIT)
    assert judged(reading("120"), tight).price == 101 * PRICE_UNIT
    unused = reading(None, "b", max_delta_percent=PERCENT_UNIT)
    assert judged(reading("120"), unused).price == 110 * PRICE_UNIT


def test_a_cut_is_rounded_towards_f() -> None:
    case = FeedCase((reading("200"),), 1, 100 * PRICE_UNIT + 9, is_first=False, at=AT, fresh_seconds=60)
    assert judge_feeds(case).price == 110 * PRICE_UNIT + 9
    case = FeedCase((reading("1"),), 1, 100 * PRICE_UNIT + 9, is_first=False, at=AT, fresh_seconds=60)
    assert judge_feeds(case).price == 90 * PRICE_UNIT + 9


def test_out_of_range_and_cut_are_both_told() -> None:
    verdict = judged(reading("-1", "a"), reading("500", "b"))
    assert (verdict.reasons, verdict.price) == ((Reason.OUT_OF_RANGE, Reason.CLAMPED), 110 * PRICE_UNIT)


def test_the_first_reading_sets_f_and_is_not_cut() -> None:
    verdict = judged(reading("400"), first=True)
    assert (verdict.effect, verdict.reasons, verdict.price) == (Effect.SET, (), 400 * PRICE_UNIT)
    assert (verdict.delta_percent, verdict.move) == (300 * PERCENT_UNIT, 3_000_000_000)


# ------------------------------------------------------------------------------------------------ averages over time


def test_samples_weigh_as_long_as_they_held() -> None:
    samples = ((ago(30), "104"), (ago(50), "100"))
    verdict = judged(reading("120", samples=samples, at=ago(10), twap_minutes=1))
    assert verdict.figure == "105.6"  # 20 s at 100, 20 s at 104, 10 s at 120
    assert verdict.values == ("120",)


def test_the_window_cuts_what_began_before_it() -> None:
    samples = ((ago(100), "90"), (ago(59), "100"))
    case = FeedCase(
        (reading("102", samples=samples, twap_minutes=1),),
        1,
        100 * PRICE_UNIT,
        is_first=False,
        at=AT,
        fresh_seconds=300,
    )
    assert judge_feeds(case).figure == "599/6"  # 1 s at 90, 59 s at 100


def test_a_sample_holds_no_longer_than_it_was_fresh() -> None:
    samples = ((ago(600), "100"), (ago(120), "104"))
    verdict = judged(reading("120", samples=samples, at=ago(0), twap_minutes=30))
    assert verdict.figure == "102"  # 60 s at each, nothing in between


def test_without_anything_that_held_the_answer_is_the_average() -> None:
    assert judged(reading("105", twap_minutes=5)).figure == "105"
    later = ((AT + timedelta(seconds=1), "1"), (AT, "1"), (ago(5), "x"), (ago(6), "NaN"))
    assert judged(reading("105", samples=later, twap_minutes=5)).figure == "105"


def test_without_a_window_samples_do_not_count() -> None:
    assert judged(reading("105", samples=((ago(30), "1"),))).figure == "105"


def test_an_answer_after_the_judgement_began_ends_the_window() -> None:
    samples = ((ago(58), "90"), (ago(30), "100"))
    verdict = judged(reading("110", samples=samples, at=AT + timedelta(seconds=5), twap_minutes=1))
    assert verdict.figure == "575/6"  # 25 s at 90, 35 s at 100
