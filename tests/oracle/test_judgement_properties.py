"""Readings made at random are judged as the exact model judges them, and F never moves further than it may."""

import sys
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from fractions import Fraction
from hashlib import sha256
from random import Random

import pytest

from app.money import PRICE_UNIT, RATE_UNIT
from app.oracle.cases import Case, FeedCase, SearchCase, decode_case, encode_case
from app.oracle.judgement import judge, narrowed
from app.oracle.kinds import PERCENT_UNIT, Effect, OracleOutcome, Verdict
from app.pricing.model import averaged
from tests.oracle import judgement_model as exact
from tests.oracle.generated_readings import (
    AT,
    FEED_KINDS,
    PAGE_KINDS,
    WORDINGS,
    SearchMaker,
    SearchSet,
    as_earlier,
    generated_feeds,
    generated_search,
    units,
)

SEED = 20_260_314
SETS = 1_000
PARTS = range(5)
"""Of so many reading sets each: 5,000 of feeds, and as many of searches."""
SEARCHES_A_DAY = 144


def fundamental_after(case: Case, verdict: Verdict) -> int:
    """F once the price engine was told, by its own arithmetic."""
    if verdict.effect is Effect.SET:
        assert verdict.price is not None
        return verdict.price
    if verdict.effect is Effect.MOVE:
        assert verdict.price is not None
        return averaged(verdict.price, before=case.fundamental, fundamental_weight=RATE_UNIT // 5)
    return case.fundamental


def expect_as_modelled(case: Case, verdict: Verdict, expected: exact.Expected) -> None:
    """The verdict is the exact model's, and F moves as it says."""
    said = (
        verdict.outcome.value,
        tuple(reason.value for reason in verdict.reasons),
        verdict.effect.value,
        None if verdict.price is None else Fraction(verdict.price, PRICE_UNIT),
        frozenset(verdict.counted),
        verdict.confirms,
    )
    assert said == (
        expected.outcome,
        expected.reasons,
        expected.effect,
        expected.price,
        expected.counted,
        expected.confirms,
    )
    after = fundamental_after(case, verdict)
    assert after == expected.after * PRICE_UNIT
    before = Fraction(case.fundamental, PRICE_UNIT)
    assert verdict.move == exact.moved_by(before, expected.after) * RATE_UNIT
    assert (verdict.move > 0) <= (verdict.outcome is OracleOutcome.ACCEPTED)


def expect_within_cap(case: Case, verdict: Verdict, *, cap: int) -> None:
    """F does not move by more than the cap (10^-9 percent), nor further than a fifth of the way to the reading."""
    moved = abs(fundamental_after(case, verdict) - case.fundamental)
    assert moved * 100 * PERCENT_UNIT <= cap * case.fundamental
    if verdict.effect is Effect.MOVE:
        assert verdict.price is not None
        assert 10 * moved <= 2 * abs(verdict.price - case.fundamental) + 5


def expect_replays(case: Case, verdict: Verdict) -> None:
    """What is stored of the case gives the same case and the same verdict."""
    texts = {}
    if isinstance(case, SearchCase):
        texts = {sha256(page.text.encode()).hexdigest(): page.text for page in case.pages}
    again = decode_case(encode_case(case), texts)
    assert again == case
    assert judge(again) == verdict
    if isinstance(case, SearchCase) and (case.used or case.pending):
        assert judge(narrowed(case, verdict)) == verdict


def outcome_name(verdict: Verdict) -> str:
    return " ".join([verdict.outcome.value, *verdict.reasons])


def shown(title: str, outcomes: Counter[tuple[str, str]], kinds: Iterable[str]) -> None:
    """The figures of a run, for whoever reads the test's output."""
    say(f"{title}: {SETS} reading sets")
    for kind in kinds:
        found = sorted((count, name) for (of, name), count in outcomes.items() if of == kind)
        say(f"  {kind}: " + ", ".join(f"{name} {count}" for count, name in reversed(found)))


def say(line: str) -> None:
    """Write a line."""
    sys.stdout.write(f"{line}\n")


# ------------------------------------------------------------------------------------------------ feeds


@pytest.mark.parametrize("part", PARTS)
def test_feeds_are_judged_as_the_exact_model_does(part: int) -> None:
    random = Random(SEED + part)
    outcomes: Counter[tuple[str, str]] = Counter()
    for _ in range(SETS):
        made = generated_feeds(random)
        case = made.case()
        verdict = judge(case)
        expect_as_modelled(case, verdict, made.expected())
        _expect_fair_feeds(case, verdict)
        expect_replays(case, verdict)
        outcomes.update((kind, outcome_name(verdict)) for kind in (*made.kinds, "all"))
    shown(f"feeds, seed {SEED + part}", outcomes, (*FEED_KINDS, "honest", "all"))
    assert outcomes.total() > SETS
    assert {name for kind, name in outcomes if kind == "all"} == {
        "ACCEPTED",
        "ACCEPTED CLAMPED",
        "ACCEPTED OUT_OF_RANGE",
        "ACCEPTED OUT_OF_RANGE CLAMPED",
        "REJECTED OUT_OF_RANGE",
        "REJECTED TOO_FEW_SOURCES",
        "REJECTED OUT_OF_RANGE TOO_FEW_SOURCES",
    }


def _expect_fair_feeds(case: FeedCase, verdict: Verdict) -> None:
    sources = {case.readings[index].source for index in verdict.counted}
    if verdict.outcome is not OracleOutcome.ACCEPTED:
        assert (verdict.effect, verdict.price, sources) == (Effect.NONE, None, set())
        return
    assert len(sources) >= max(1, case.min_feeds)
    if not case.is_first:
        cap = min(case.readings[index].max_delta_percent for index in verdict.counted)
        expect_within_cap(case, verdict, cap=cap)


# ------------------------------------------------------------------------------------------------ searches


def remembered(random: Random, made: SearchSet, number: int) -> SearchSet:
    """The same reading once it, or one like it, has been accepted or quarantined before."""
    expected = made.expected()
    if expected.price is None:
        return made
    earlier = as_earlier(made, expected, number)
    known = exact.Earlier(earlier.figure + 1, earlier.evidence, earlier.price * 2, number + SETS)
    made = made.after(used=(known,), pending=(known,)) if random.random() < 0.3 else made
    choice = random.randrange(5)
    if choice == 0:
        return made.after(used=(*made.search.used, earlier))
    if choice == 1:
        return made.after(pending=(*made.search.pending, earlier))
    owner_of = random.choice(["other.example", earlier.evidence[0][0]])
    other = tuple((owner_of, f"{text} Elsewhere.", f"{words} Elsewhere.") for _, text, words in earlier.evidence)
    price = earlier.price * Fraction(random.choice([100, 101, 106, 70]), 100)
    like = exact.Earlier(earlier.figure, other, Fraction(round(price * 10**12), 10**12), number)
    made = made.after(pending=(*made.search.pending, like))
    return made if choice < 4 else made.after(used=(*made.search.used, like))


@pytest.mark.parametrize("part", PARTS)
def test_searches_are_judged_as_the_exact_model_does(part: int) -> None:
    random = Random(SEED + part)
    outcomes: Counter[tuple[str, str]] = Counter()
    confirmed = 0
    for number in range(SETS):
        made = generated_search(random)
        if random.random() < 0.4:
            made = remembered(random, made, number + 1)
        case = made.case()
        verdict = judge(case)
        expect_as_modelled(case, verdict, made.expected())
        _expect_fair_search(case, verdict, made)
        expect_replays(case, verdict)
        confirmed += verdict.confirms is not None
        outcomes.update((kind, outcome_name(verdict)) for kind in (*made.kinds, "all"))
    shown(f"searches, seed {SEED + part}", outcomes, (*PAGE_KINDS, "honest", "all"))
    say(f"  confirmed a quarantined reading: {confirmed}")
    assert confirmed > 0
    assert {name for kind, name in outcomes if kind == "all"} == {
        "ACCEPTED",
        "QUARANTINED DELTA_TOO_LARGE",
        "REJECTED BAD_OUTPUT",
        "REJECTED LOW_CONFIDENCE",
        "REJECTED LOW_CONFIDENCE DELTA_TOO_LARGE",
        "REJECTED REPEAT",
        "REJECTED REPEAT DELTA_TOO_LARGE",
        "REJECTED TOO_FEW_SOURCES",
        "REJECTED UNGROUNDED",
    }


def _expect_fair_search(case: SearchCase, verdict: Verdict, made: SearchSet) -> None:
    expect_within_cap(case, verdict, cap=case.configuration.max_delta_percent)
    if verdict.effect in (Effect.SET, Effect.MOVE):
        owners = {made.search.sheets[index].owner for index in verdict.counted}
        assert len(owners - {None}) >= max(1, case.configuration.min_sources)
        assert case.moved + verdict.move <= case.max_moves
    for index, value in enumerate(verdict.values):
        if value is not None:
            true = {claim.number for claim in made.search.claims if claim.page == index and claim.is_true}
            assert Fraction(value) in true


@pytest.mark.parametrize("number", range(6))
def test_what_searches_move_in_a_day_stays_within_its_cap(number: int) -> None:
    random = Random(SEED + number)
    wording = WORDINGS[number % len(WORDINGS)]
    fundamental, day_cap = Fraction(1_000), Fraction(1, 4)
    moves: list[tuple[Fraction, Fraction]] = []
    used: list[exact.Earlier] = []
    pending: list[exact.Earlier] = []
    now, outcomes = Fraction(0), Counter[str]()
    for step in range(SEARCHES_A_DAY * 2):
        now += random.randint(300, 900)
        spread = random.choice([5, 20, 60, 300])
        level = Fraction(round(fundamental * random.randint(1000 - spread, 1000 + spread) / 10), 100)
        maker = SearchMaker(random, fundamental=fundamental, level=level, wording=wording)
        made = maker.make(wrong_pages=0.15, wrong_answer=0.05, first=0)
        day = sum((move for at, move in moves if at > now - 86_400), Fraction(0))
        made = made.after(
            moved=day, day_cap=day_cap, used=tuple(used[-20:]), pending=tuple(pending[-3:]), cap=Fraction(1, 5)
        )
        case = made.case(AT + timedelta(seconds=int(now)))
        verdict = judge(case)
        expected = made.expected()
        expect_as_modelled(case, verdict, expected)
        outcomes[outcome_name(verdict)] += 1
        if verdict.outcome is OracleOutcome.ACCEPTED:
            assert units(day, RATE_UNIT) + verdict.move <= units(day_cap, RATE_UNIT)
            assert abs(expected.after - fundamental) / fundamental <= Fraction(verdict.move, RATE_UNIT)
            moves.append((now, Fraction(verdict.move, RATE_UNIT)))
            used.append(as_earlier(made, expected))
            fundamental = expected.after
        elif verdict.outcome is OracleOutcome.QUARANTINED:
            pending.append(as_earlier(made, expected, step + 1))
    for until, _ in moves:
        assert sum(move for at, move in moves if until - 86_400 < at <= until) <= day_cap
    say(f"seed {SEED + number}: {dict(outcomes)}, moved in all {float(sum(move for _, move in moves)):.4f}")
    assert outcomes["ACCEPTED"] >= 5
    assert outcomes["QUARANTINED DELTA_TOO_LARGE"] >= 1
