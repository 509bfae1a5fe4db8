"""The judgement of feed readings: which answers count, their averages over time, the median, the cap. Pure and exact.

The rules, in their order:

1. An answer counts when it is a plain decimal (no NaN, no exponent) that is not older than `fresh_seconds`; of answers
   with one source's name the first alone. (A reading begins before its feeds have answered: an answer may be as much
   later than `at`.)
2. Where an average over `twap_minutes` is asked for, every sample and the answer itself hold from their own time until
   the next one, but for no longer than `fresh_seconds` (a feed that was silent has no price then), and weigh as much as
   they hold within the window, which ends at `at` or with the answer if that is later. Where nothing weighs anything,
   the answer is the average.
3. price = value * scale + offset, exactly. What is outside of 0.000001 to 10^9 once rounded is dropped: OUT_OF_RANGE.
4. Fewer than `min_feeds` left: REJECTED, for OUT_OF_RANGE where those dropped would have made up the number, else for
   TOO_FEW_SOURCES.
5. The median of the prices, rounded half-even to 10^-12 once. The first reading ever sets F. A later one that is
   further from F than the smallest cap of the feeds used is cut to it, rounded towards F: CLAMPED, and accepted.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from typing import Final

from app.money import PRICE_MAX, PRICE_MIN, PRICE_UNIT, div_half_even, is_decimal_text
from app.oracle.cases import FeedCase, FeedReading
from app.oracle.exact import exact_text, median
from app.oracle.kinds import PERCENT_UNIT, Effect, OracleOutcome, Reason, Verdict
from app.oracle.moves import delta_percent, move_of

_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class _Answer:
    """A number that counts. `price`: what its average maps to, exactly; None where that is out of range."""

    value: Fraction
    price: Fraction | None


def judge_feeds(case: FeedCase) -> Verdict:
    """The verdict on `case`. The module's head has the rules.

    `figure` is the median price before it was rounded or cut, in the quote currency; `values` are the answers as they
    came, before they are averaged or mapped; `counted` are all feeds whose prices went into the median.
    """
    answers = _answers(case)
    prices = {index: answer.price for index, answer in answers.items() if answer.price is not None}
    base = Verdict(
        outcome=OracleOutcome.REJECTED,
        reasons=() if len(prices) == len(answers) else (Reason.OUT_OF_RANGE,),
        effect=Effect.NONE,
        price=None,
        figure=None,
        delta_percent=None,
        move=0,
        values=tuple(exact_text(answers[i].value) if i in answers else None for i in range(len(case.readings))),
        quotations=(None,) * len(case.readings),
    )
    min_feeds = max(1, case.min_feeds)
    if len(prices) < min_feeds:
        is_range = len(answers) >= min_feeds
        return base if is_range else replace(base, reasons=(*base.reasons, Reason.TOO_FEW_SOURCES))
    figure = median(list(prices.values()))
    price = _rounded(figure)
    if not case.is_first:
        price = _capped(price, case, min(case.readings[index].max_delta_percent for index in prices))
    effect = Effect.SET if case.is_first else Effect.MOVE
    return replace(
        base,
        outcome=OracleOutcome.ACCEPTED,
        reasons=base.reasons if price == _rounded(figure) else (*base.reasons, Reason.CLAMPED),
        effect=effect,
        price=price,
        figure=exact_text(figure),
        delta_percent=delta_percent(price, fundamental=case.fundamental),
        move=move_of(price, fundamental=case.fundamental, effect=effect, weight=case.fundamental_weight),
        counted=tuple(prices),
    )


def _answers(case: FeedCase) -> dict[int, _Answer]:
    """The answers that count, by their index."""
    found: dict[int, _Answer] = {}
    sources: set[str] = set()
    fresh = timedelta(seconds=case.fresh_seconds)
    for index, reading in enumerate(case.readings):
        value = _number(reading.value)
        if value is None or reading.source in sources or abs(case.at - reading.at) > fresh:
            continue
        sources.add(reading.source)
        average = value
        if reading.twap_minutes is not None:
            window = timedelta(minutes=reading.twap_minutes)
            average = _average(reading, value, ends=max(case.at, reading.at), window=window, held=fresh)
        exact = average * Fraction(reading.scale) + Fraction(reading.offset)
        found[index] = _Answer(value, exact if PRICE_MIN <= _rounded(exact) <= PRICE_MAX else None)
    return found


def _average(reading: FeedReading, value: Fraction, *, ends: datetime, window: timedelta, held: timedelta) -> Fraction:
    """The average of the samples and `value` over the `window` that `ends` so, weighted by the time each holds."""
    points = [(at, number) for at, text in reading.samples if at < reading.at and (number := _number(text)) is not None]
    points = [*sorted(points), (reading.at, value)]
    total, weights = Fraction(0), 0
    for (at, number), (until, _) in pairwise([*points, (ends, value)]):
        begins = max(at, ends - window)
        weight = max(0, (min(until, at + held) - begins) // _MICROSECOND)
        total += number * weight
        weights += weight
    return total / weights if weights else value


def _number(text: str | None) -> Fraction | None:
    """The number in an answer, which must be a plain decimal; None where there is none."""
    return Fraction(text) if text is not None and is_decimal_text(text) else None


def _rounded(price: Fraction) -> int:
    """A price in 10^-12, half-even."""
    return div_half_even(price.numerator * PRICE_UNIT, price.denominator)


def _capped(price: int, case: FeedCase, cap: int) -> int:
    """`price`, at most `cap` (10^-9 percent) of F away from F, both in 10^-12."""
    furthest = case.fundamental * cap // (100 * PERCENT_UNIT)
    return min(max(price, case.fundamental - furthest), case.fundamental + furthest)
