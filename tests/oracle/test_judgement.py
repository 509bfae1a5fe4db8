"""Search readings judged, with exact values: grounding, sources, repeats, quarantine and its confirmation, caps."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from app.money import PRICE_UNIT
from app.oracle.cases import (
    Page,
    UsedEvidence,
    content_hash,
)
from app.oracle.judgement import SUMMARY_CHARS_MAX, has_enough_sources, judge_search, narrowed
from app.oracle.kinds import PERCENT_UNIT, Effect, OracleOutcome, Reason, Verdict
from tests.oracle.search_cases import (
    AT,
    FAR,
    FAR_PENDING,
    TWO,
    A,
    B,
    C,
    D,
    answer,
    case,
    evidence,
    page,
    quotation,
    saying,
    sentence,
)

ACCEPTED, REJECTED, QUARANTINED = OracleOutcome.ACCEPTED, OracleOutcome.REJECTED, OracleOutcome.QUARANTINED


def expect_rejected(verdict: Verdict, *reasons: Reason) -> None:
    """Rejected for these reasons, without any effect."""
    assert (verdict.outcome, verdict.reasons) == (REJECTED, reasons)
    assert (verdict.effect, verdict.move, verdict.confirms) == (Effect.NONE, 0, None)


# ------------------------------------------------------------------------------------------------ accepted


def test_two_sources_that_agree_move_f_by_a_fifth_of_the_way() -> None:
    assert judge_search(TWO) == Verdict(
        outcome=ACCEPTED,
        reasons=(),
        effect=Effect.MOVE,
        price=103 * PRICE_UNIT,
        figure="103",
        delta_percent=3 * PERCENT_UNIT,
        move=6_000_000,
        confidence=900_000_000,
        summary="The bulletins agree.",
        confirms=None,
        counted=(0, 1),
        values=("102", "104"),
        quotations=(sentence("102"), sentence("104")),
    )


def test_an_asset_with_another_b_moves_by_its_own() -> None:
    assert judge_search(replace(TWO, fundamental_weight=1_000_000_000)).move == 30_000_000
    assert judge_search(replace(TWO, fundamental_weight=1)).move == 1
    nearly = replace(TWO, moved=230_000_000, max_moves=250_000_000)
    assert judge_search(replace(nearly, fundamental_weight=500_000_000)).outcome is ACCEPTED
    assert judge_search(replace(nearly, fundamental_weight=1_000_000_000)).outcome is OracleOutcome.QUARANTINED


def test_the_first_reading_sets_f_within_the_caps() -> None:
    verdict = judge_search(replace(TWO, is_first=True))
    assert (verdict.outcome, verdict.effect, verdict.move) == (ACCEPTED, Effect.SET, 30_000_000)


def test_the_figure_is_the_median_of_the_sources_not_what_the_model_suggests() -> None:
    verdict = judge_search(saying((A, "101"), (B, "104.5"), (C, "103"), price=105))
    assert (verdict.figure, verdict.price, verdict.counted) == ("103", 103 * PRICE_UNIT, (0, 1, 2))


def test_the_price_is_the_figure_rounded_half_even_once() -> None:
    verdict = judge_search(saying((A, "100.000000000001"), (B, "100.000000000004"), price=100))
    assert (verdict.figure, verdict.price) == ("100.0000000000025", 100 * PRICE_UNIT + 2)
    assert (verdict.effect, verdict.move) == (Effect.MOVE, 0)  # a fifth of it is no whole 10^-12
    least = judge_search(saying((A, "100.000000000003"), (B, "100.000000000003"), price=100))
    assert (least.price, least.move) == (100 * PRICE_UNIT + 3, 1)  # 10^-14 of F, to the next 10^-9


def test_values_are_normalised_before_they_are_compared() -> None:
    said = ("1,034.50 USD", "$1.0345 thousand", "USD 1034.5")
    pages = [
        Page(url, None, f"In March the official figure was {text} says bulletin {url}", AT)
        for url, text in zip((A, B, C), said, strict=True)
    ]
    quoted = [
        {"url": one.url, "quotation": f"official figure was {text} says", "number": 1034.5}
        for one, text in zip(pages, said, strict=True)
    ]
    verdict = judge_search(case(*pages, output=answer(*quoted, price=1034.5, delta=3.45), fundamental=1_000))
    assert (verdict.outcome, verdict.values, verdict.delta_percent) == (ACCEPTED, ("1034.5",) * 3, 3_450_000_000)


def test_white_space_does_not_matter_and_letters_do() -> None:
    words = "The  official figure\nwas 102\u00a0USD"
    output = answer(quotation(A, "102", words), quotation(B, "104"), price=103)
    assert judge_search(case(*TWO.pages, output=output)).quotations[0] == "The official figure was 102 USD"
    output = answer(quotation(A, "102", words.upper()), quotation(B, "104"), price=103)
    assert judge_search(case(*TWO.pages, output=output)).values == (None, "104")


def test_words_are_found_across_the_line_breaks_of_a_page() -> None:
    broken = tuple(replace(one, text=one.text.replace(" ", " \n\t")) for one in TWO.pages)
    verdict = judge_search(replace(TWO, pages=broken))
    assert (verdict.outcome, verdict.quotations) == (ACCEPTED, (sentence("102"), sentence("104")))


# ------------------------------------------------------------------------------------------------ bad output

PROSE = {
    "prose": "The figure is 103 USD.",
    "a refusal": "I'm sorry, but I can't help with that.",
    "truncated": str(TWO.output)[:-5],
    "an extra key": answer(note="x"),
    "NaN": str(TWO.output).replace("103", "NaN"),
    "two objects": f"{TWO.output}{TWO.output}",
    "nothing": "",
}


@pytest.mark.parametrize("output", PROSE.values(), ids=PROSE.keys())
def test_what_is_no_answer_is_bad_output(output: str) -> None:
    verdict = judge_search(replace(TWO, output=output))
    expect_rejected(verdict, Reason.BAD_OUTPUT)
    assert (verdict.price, verdict.figure, verdict.confidence, verdict.counted) == (None, None, None, ())
    assert verdict.values == verdict.quotations == (None, None)
    assert verdict.summary is not None
    assert verdict.summary.startswith("Not taken: ")


def test_an_invented_source_url_is_bad_output() -> None:
    quotations = (quotation(A, "102"), quotation(B, "104"))
    given = case(*TWO.pages, output=answer(*quotations, price=103, source_urls=[A, B, A]))
    assert judge_search(given).outcome is ACCEPTED
    invented = case(*TWO.pages, output=answer(*quotations, price=103, source_urls=[A, f"{A}/"]))
    expect_rejected(judge_search(invented), Reason.BAD_OUTPUT)


@pytest.mark.parametrize(
    ("delta", "outcome"), [(3.5, ACCEPTED), (2.5, ACCEPTED), (3.5000001, REJECTED), (2.4999, REJECTED), (-3, REJECTED)]
)
def test_delta_percent_is_that_of_the_suggested_price(delta: float, outcome: OracleOutcome) -> None:
    output = answer(quotation(A, "102"), quotation(B, "104"), price=103, delta=delta)
    verdict = judge_search(replace(TWO, output=output))
    assert verdict.outcome is outcome
    assert verdict.reasons == (() if outcome is ACCEPTED else (Reason.BAD_OUTPUT,))


@pytest.mark.parametrize(
    ("price", "outcome"), [(108.15, ACCEPTED), (97.85, ACCEPTED), (108.16, REJECTED), (97.84, REJECTED)]
)
def test_the_suggested_price_agrees_with_the_figure_within_half_of_the_cap(
    price: float, outcome: OracleOutcome
) -> None:
    verdict = judge_search(saying((A, "102"), (B, "104"), price=price))
    assert verdict.outcome is outcome
    if outcome is REJECTED:
        expect_rejected(verdict, Reason.BAD_OUTPUT)
        assert (verdict.price, verdict.delta_percent, verdict.figure, verdict.counted) == (None, None, "103", (0, 1))


# ------------------------------------------------------------------------------------------------ grounding

UNGROUNDED = {
    "no quotations": [],
    "pages that are none": [quotation(C, "102"), quotation(f"{B}?x=1", "104")],
    "words that stand nowhere": [quotation(A, "102", "Our official figure was 102 USD in the bulletin.")],
    "words of another page": [quotation(A, "104"), quotation(B, "102")],
    "a number that is not in the words": [quotation(A, "103", sentence("102"))],
    "a number of another sign": [quotation(A, "-102", sentence("102"))],
    "a number a thousand times as large": [quotation(A, "102000", sentence("102"))],
    "too few words": [quotation(A, "102", "102 USD")],
    "no words": [quotation(A, "102", "")],
    "too many words": [quotation(A, "102", TWO.pages[0].text + " x" * 250)],
}


@pytest.mark.parametrize("quotations", UNGROUNDED.values(), ids=UNGROUNDED.keys())
def test_without_grounded_numbers_there_is_no_reading(quotations: list[dict[str, Any]]) -> None:
    verdict = judge_search(replace(TWO, output=answer(*quotations, price=103)))
    expect_rejected(verdict, Reason.UNGROUNDED)
    assert (verdict.price, verdict.figure, verdict.confidence) == (None, None, 900_000_000)
    assert verdict.values == (None, None)


CUT = {
    "a longer number": ("The official figure was 1,102 USD", "102 USD"),
    "decimals": ("The official figure was 102.75 USD", "The official figure was 102"),
    "a magnitude": ("The official figure was 102 million USD", "The official figure was 102"),
    "a sign": ("The official figure was -102 USD today", "102 USD today"),
    "another currency": ("The official figure was 102 EUR", "The official figure was 102"),
    "a currency in front": ("The official figure was EUR 102 on that day", "102 on that day"),
    "a magnitude far off": (f"The official figure was 102{' ' * 400}million USD", "The official figure was 102"),
    "a percentage": ("The official figure was 102% of the plan", "The official figure was 102"),
}


@pytest.mark.parametrize(("text", "words"), CUT.values(), ids=CUT.keys())
def test_a_number_cannot_be_cut_out_of_another(text: str, words: str) -> None:
    pages = [Page(A, None, f"Good day. {text} and so on.", AT), page(B, "102")]
    output = answer({"url": A, "quotation": words, "number": 102}, quotation(B, "102"), price=102)
    verdict = judge_search(case(*pages, output=output, min_sources=1))
    assert (verdict.outcome, verdict.values) == (ACCEPTED, (None, "102"))


@pytest.mark.parametrize("unit", ["EUR", "million USD", "percent", "GWh", "thousand USD"])
def test_a_number_in_another_unit_does_not_count(unit: str) -> None:
    pages = [page(A, "102", unit=unit), page(B, "102", unit=unit)]
    output = answer(*(quotation(url, "102", sentence("102", unit)) for url in (A, B)), price=102)
    expect_rejected(judge_search(case(*pages, output=output)), Reason.UNGROUNDED)


def test_pages_that_are_too_old_do_not_speak() -> None:
    hour = timedelta(hours=1)
    old = [replace(one, retrieved_at=AT - hour) for one in TWO.pages]
    assert judge_search(replace(TWO, pages=tuple(old))).outcome is ACCEPTED
    older = replace(old[1], retrieved_at=AT - hour - timedelta(microseconds=1))
    verdict = judge_search(replace(TWO, pages=(old[0], older)))
    expect_rejected(verdict, Reason.TOO_FEW_SOURCES)
    assert verdict.values == ("102", None)
    ahead = replace(old[1], retrieved_at=AT + timedelta(seconds=20))
    assert judge_search(replace(TWO, pages=(old[0], ahead))).outcome is ACCEPTED
    far_ahead = replace(old[1], retrieved_at=AT + hour + timedelta(seconds=1))
    expect_rejected(judge_search(replace(TWO, pages=(old[0], far_ahead))), Reason.TOO_FEW_SOURCES)


def test_allowed_domains_count_alone() -> None:
    three = saying((A, "102"), (B, "104"), (C, "90"), price=103, allowed_domains=("a.example", "b.example"))
    assert judge_search(three).values == ("102", "104", None)
    only = saying((A, "102"), (B, "104"), price=103, allowed_domains=("a.example",))
    expect_rejected(judge_search(only), Reason.TOO_FEW_SOURCES)
    none = saying((A, "102"), (B, "104"), price=103, allowed_domains=())
    expect_rejected(judge_search(none), Reason.UNGROUNDED)


def test_hosts_without_a_registrable_domain_do_not_speak() -> None:
    made = saying(("http://127.0.0.1:8601/a", "102"), ("https://localhost/b", "104"), price=103)
    expect_rejected(judge_search(made), Reason.UNGROUNDED)


# ------------------------------------------------------------------------------------------------ sources


def test_subdomains_are_one_source_that_says_its_lower_median() -> None:
    hosts = ["https://www.a.example/1", "https://m.a.example/2", "https://a.example/3"]
    one = saying((hosts[0], "102"), (hosts[1], "104"), (hosts[2], "103"), price=103)
    expect_rejected(judge_search(one), Reason.TOO_FEW_SOURCES)
    two = judge_search(saying((hosts[0], "102"), (hosts[1], "104"), (B, "105"), price=103))
    assert (two.figure, two.counted) == ("103.5", (0, 1, 2))


def test_near_copies_are_one_source_together() -> None:
    three = saying((A, "102"), (B, "104"), (C, "106"), price=104)
    assert judge_search(three).figure == "104"
    verdict = judge_search(replace(three, duplicates=((1, 2),)))
    assert (verdict.outcome, verdict.figure) == (ACCEPTED, "103")
    for chain in (((0, 1), (2, 1)), ((1, 2), (0, 1)), ((0, 2), (1, 2)), ((2, 0, 1),)):
        expect_rejected(judge_search(replace(three, duplicates=chain)), Reason.TOO_FEW_SOURCES)


def test_the_same_text_elsewhere_is_the_same_source() -> None:
    copied = replace(TWO.pages[0], url=B)
    output = answer(quotation(A, "102"), quotation(B, "102"), price=102)
    expect_rejected(judge_search(case(TWO.pages[0], copied, output=output)), Reason.TOO_FEW_SOURCES)


def test_copies_of_pages_that_say_nothing_do_not_join_sources() -> None:
    silent = page("https://a.example/other", "7")
    assert judge_search(replace(TWO, pages=(*TWO.pages, silent), duplicates=((1, 2),))).outcome is ACCEPTED


def test_a_page_says_the_lower_median_of_its_numbers_however_often_they_are_quoted() -> None:
    pages = (page(A, "102", "106"), page(B, "103"))
    quotations = [quotation(A, "106")] * 5 + [quotation(A, "102"), quotation(B, "103")]
    verdict = judge_search(case(*pages, output=answer(*quotations, price=103)))
    assert (verdict.values, verdict.figure) == (("102", "103"), "102.5")
    assert verdict.quotations == (sentence("102"), sentence("103"))


def test_outliers_are_dropped_before_sources_are_counted() -> None:
    verdict = judge_search(saying((A, "102"), (B, "104"), (C, "102000"), price=103))
    assert (verdict.outcome, verdict.figure, verdict.counted) == (ACCEPTED, "103", (0, 1))
    assert verdict.values == ("102", "104", "102000")
    expect_rejected(judge_search(saying((A, "102"), (B, "102000"), price=102)), Reason.TOO_FEW_SOURCES)


def test_an_outlier_is_further_than_half_of_the_cap_from_the_lower_median() -> None:
    assert judge_search(saying((A, "100"), (B, "105"), price=101)).figure == "102.5"
    expect_rejected(judge_search(saying((A, "100"), (B, "105.01"), price=101)), Reason.TOO_FEW_SOURCES)


def test_those_kept_are_more_than_those_dropped() -> None:
    contradiction = saying((A, "100"), (B, "101"), (C, "120"), (D, "121"), price=100)
    verdict = judge_search(contradiction)
    expect_rejected(verdict, Reason.TOO_FEW_SOURCES)
    assert (verdict.figure, verdict.counted) == (None, ())
    assert verdict.values == ("100", "101", "120", "121")


def test_a_page_that_disagrees_with_its_own_source_does_not_count() -> None:
    verdict = judge_search(saying((A, "102"), ("https://a.example/old", "160"), (B, "104"), price=103))
    assert (verdict.figure, verdict.counted, verdict.values) == ("103", (0, 2), ("102", "160", "104"))


def test_without_an_answer_the_sources_were_too_few() -> None:
    expect_rejected(judge_search(replace(TWO, output=None)), Reason.TOO_FEW_SOURCES)


def test_whether_asking_is_worth_it() -> None:
    assert has_enough_sources(replace(TWO, output=None))
    assert not has_enough_sources(replace(TWO, duplicates=((0, 1),)))
    assert not has_enough_sources(case(TWO.pages[0], page("https://www.a.example/", "1"), output=None))
    assert not has_enough_sources(case(output=None, min_sources=0))


# ------------------------------------------------------------------------------------------------ range and confidence


@pytest.mark.parametrize("value", ["0", "-5", "0.0000004"])
def test_a_price_out_of_range_is_rejected_and_never_clamped(value: str) -> None:
    output = answer(
        *(quotation(url, value, f"The official figure was {value} °C at noon.") for url in (A, B)),
        price=json.loads(value),
    )
    pages = [Page(url, None, f"{url}: The official figure was {value} °C at noon.", AT) for url in (A, B)]
    verdict = judge_search(case(*pages, output=output, unit="°C"))
    expect_rejected(verdict, Reason.OUT_OF_RANGE)
    assert (verdict.price, verdict.delta_percent, verdict.counted) == (None, None, (0, 1))


def test_confidence_below_the_threshold_is_rejected() -> None:
    quotations = (quotation(A, "102"), quotation(B, "104"))
    at = judge_search(replace(TWO, output=answer(*quotations, price=103, confidence=0.6)))
    assert (at.outcome, at.confidence) == (ACCEPTED, 600_000_000)
    below = judge_search(replace(TWO, output=answer(*quotations, price=103, confidence=0.5999999999)))
    expect_rejected(below, Reason.LOW_CONFIDENCE)
    assert (below.confidence, below.price) == (599_999_999, 103 * PRICE_UNIT)
    far = saying((A, "150"), (B, "152"), price=151)
    far = replace(far, output=str(far.output).replace("0.9", "0.1"))
    expect_rejected(judge_search(far), Reason.LOW_CONFIDENCE, Reason.DELTA_TOO_LARGE)


# ------------------------------------------------------------------------------------------------ repeats


def test_the_same_evidence_and_figure_again_keeps_f_fresh_and_moves_nothing() -> None:
    verdict = judge_search(replace(TWO, used=evidence(TWO, 0, 1, figure="103")))
    assert (verdict.outcome, verdict.reasons) == (REJECTED, (Reason.REPEAT,))
    assert (verdict.effect, verdict.move, verdict.price) == (Effect.REFRESH, 0, 103 * PRICE_UNIT)


def test_the_same_words_on_a_changed_page_are_the_same_evidence() -> None:
    changed = tuple(page(url, value, note="Updated.") for url, value in ((A, "102"), (B, "104")))
    used = evidence(TWO, 0, 1, figure="103")
    assert judge_search(replace(TWO, pages=changed, used=used)).reasons == (Reason.REPEAT,)
    spaced = tuple(replace(one, quotation=one.quotation.replace(" ", " \n")) for one in used)
    assert judge_search(replace(TWO, pages=changed, used=spaced)).reasons == (Reason.REPEAT,)
    reworded = tuple(replace(one, quotation="The official figure was") for one in used)
    assert judge_search(replace(TWO, pages=changed, used=reworded)).outcome is ACCEPTED
    assert judge_search(replace(TWO, used=reworded)).reasons == (Reason.REPEAT,)


def test_another_figure_or_one_new_source_is_no_repeat() -> None:
    used = evidence(TWO, 0, 1, figure="103")
    assert judge_search(replace(TWO, used=tuple(replace(one, figure="103.5") for one in used))).outcome is ACCEPTED
    assert judge_search(replace(TWO, used=used[:1])).outcome is ACCEPTED
    assert judge_search(replace(TWO, used=(used[0], replace(used[1], source="c.example")))).outcome is ACCEPTED
    third = saying((A, "102"), (B, "104"), (C, "103"), price=103, used=used)
    assert judge_search(third).outcome is ACCEPTED


def test_the_evidence_of_different_readings_adds_up() -> None:
    used = (*evidence(TWO, 0, figure="103"), UsedEvidence("z.example", "9", "0" * 64, "x"))
    assert judge_search(replace(TWO, used=(*used, *evidence(TWO, 1, figure="103")))).reasons == (Reason.REPEAT,)


def test_a_quarantined_reading_again_is_rejected_without_effect() -> None:
    verdict = judge_search(replace(FAR, pending=(FAR_PENDING,)))
    expect_rejected(verdict, Reason.REPEAT, Reason.DELTA_TOO_LARGE)
    assert verdict.price == 131 * PRICE_UNIT


# ------------------------------------------------------------------------------------------------ quarantine


def test_beyond_the_cap_it_is_quarantined() -> None:
    verdict = judge_search(FAR)
    assert (verdict.outcome, verdict.reasons) == (QUARANTINED, (Reason.DELTA_TOO_LARGE,))
    assert (verdict.effect, verdict.move, verdict.confirms) == (Effect.NONE, 0, None)
    assert (verdict.price, verdict.delta_percent) == (131 * PRICE_UNIT, 31 * PERCENT_UNIT)
    assert (verdict.figure, verdict.counted) == ("131", (0, 1))


def test_at_the_cap_it_is_taken() -> None:
    assert judge_search(saying((A, "110"), (B, "110.0"), price=110)).outcome is ACCEPTED
    assert judge_search(saying((A, "90"), (B, "90.0"), price=90)).outcome is ACCEPTED
    assert judge_search(saying((A, "110"), (B, "110.000000000002"), price=110)).outcome is QUARANTINED


def test_independent_sources_confirm_a_quarantined_reading() -> None:
    verdict = judge_search(saying((C, "130"), (D, "134"), price=132, pending=(FAR_PENDING,)))
    assert (verdict.outcome, verdict.reasons, verdict.confirms) == (ACCEPTED, (), 7)
    assert (verdict.effect, verdict.price, verdict.move) == (Effect.MOVE, 132 * PRICE_UNIT, 64_000_000)


def test_what_an_admin_rejected_can_be_repeated_and_not_confirmed() -> None:
    rejected = (replace(FAR_PENDING, is_rejected=True),)
    again = judge_search(replace(FAR, pending=rejected))
    assert (again.outcome, again.reasons) == (REJECTED, (Reason.REPEAT, Reason.DELTA_TOO_LARGE))
    assert again.effect is Effect.NONE
    verdict = judge_search(saying((C, "130"), (D, "134"), price=132, pending=rejected))
    assert (verdict.outcome, verdict.confirms) == (QUARANTINED, None)


def test_sources_that_spoke_before_do_not_confirm() -> None:
    same = saying((A, "130"), (C, "134"), price=132, pending=(FAR_PENDING,))
    assert judge_search(same).outcome is QUARANTINED
    elsewhere_on_it = saying(("https://www.a.example/new", "130"), (C, "134"), price=132, pending=(FAR_PENDING,))
    assert judge_search(elsewhere_on_it).outcome is QUARANTINED
    enough = saying((A, "130"), (C, "131"), (D, "134"), price=131, pending=(FAR_PENDING,))
    assert judge_search(enough).confirms == 7
    texts = [content_hash(page(url, value).text) for url, value in ((C, "130"), (D, "134"))]
    elsewhere = tuple(replace(one, content_hash=text) for one, text in zip(FAR_PENDING.evidence, texts, strict=True))
    copied = saying((C, "130"), (D, "134"), price=132, pending=(replace(FAR_PENDING, evidence=elsewhere),))
    assert judge_search(copied).outcome is QUARANTINED


def test_a_confirmation_agrees_within_half_of_the_cap_of_the_pending_price() -> None:
    pending = replace(FAR_PENDING, price=120 * PRICE_UNIT)
    assert judge_search(saying((C, "126"), (D, "126.0"), price=126, pending=(pending,))).confirms == 7
    assert judge_search(saying((C, "126.01"), (D, "126.01"), price=126, pending=(pending,))).outcome is QUARANTINED


def test_the_first_pending_reading_that_agrees_is_confirmed() -> None:
    others = (replace(FAR_PENDING, report_id=5, price=160 * PRICE_UNIT), FAR_PENDING, replace(FAR_PENDING, report_id=9))
    assert judge_search(saying((C, "130"), (D, "134"), price=132, pending=others)).confirms == 7


def test_a_confirmation_moves_f_within_the_cap_itself() -> None:
    pending = (replace(FAR_PENDING, price=150 * PRICE_UNIT),)
    at = saying((C, "150"), (D, "150.0"), price=150, pending=pending)
    verdict = judge_search(at)
    assert (verdict.confirms, verdict.move) == (7, 100_000_000)
    beyond = saying((C, "150.1"), (D, "150.1"), price=150, pending=pending)
    assert judge_search(beyond).outcome is QUARANTINED
    assert judge_search(replace(at, is_first=True)).outcome is QUARANTINED


def test_a_reading_within_the_cap_confirms_nothing() -> None:
    verdict = judge_search(
        saying((C, "108"), (D, "109"), price=108, pending=(replace(FAR_PENDING, price=108 * PRICE_UNIT),))
    )
    assert (verdict.outcome, verdict.confirms) == (ACCEPTED, None)


def test_the_moves_of_a_day_add_up_to_their_cap() -> None:
    assert judge_search(replace(TWO, moved=244_000_000)).outcome is ACCEPTED
    verdict = judge_search(replace(TWO, moved=244_000_001))
    assert (verdict.outcome, verdict.reasons) == (QUARANTINED, (Reason.DELTA_TOO_LARGE,))
    assert (verdict.effect, verdict.move, verdict.price) == (Effect.NONE, 0, 103 * PRICE_UNIT)
    confirming = saying((C, "130"), (D, "134"), price=132, pending=(FAR_PENDING,), moved=186_000_001)
    assert (judge_search(confirming).outcome, judge_search(confirming).confirms) == (QUARANTINED, None)


# ------------------------------------------------------------------------------------------------ what is kept of it


def test_what_cannot_matter_is_not_kept() -> None:
    used = evidence(TWO, 0, 1, figure="103")
    others = (replace(used[0], figure="104"), replace(used[0], source="z.example"))
    near, far = replace(FAR_PENDING, price=108 * PRICE_UNIT), replace(FAR_PENDING, price=109 * PRICE_UNIT)
    same = replace(far, figure="103")
    full = replace(TWO, used=(*others, *used), pending=(far, near, same))
    kept = narrowed(full, judge_search(full))
    assert kept == replace(full, used=used, pending=(near, same))
    assert judge_search(kept) == judge_search(full)
    assert judge_search(kept).reasons == (Reason.REPEAT,)


def test_of_what_says_nothing_nothing_is_kept() -> None:
    full = replace(TWO, output=None, used=evidence(TWO, 0, figure="103"), pending=(FAR_PENDING,))
    assert narrowed(full, judge_search(full)) == replace(full, used=(), pending=())


# ------------------------------------------------------------------------------------------------ summaries


def test_the_summary_is_one_line_without_controls_and_cut() -> None:
    quotations = (quotation(A, "102"), quotation(B, "104"))

    def summary(text: str) -> str | None:
        return judge_search(replace(TWO, output=answer(*quotations, price=103, summary=text))).summary

    assert summary("Two\nlines\tand \x1b[31mred\x00 \u202eolleh") == "Two lines and [31mred olleh"
    assert summary("x" * 5_000) == "x" * SUMMARY_CHARS_MAX
    assert summary(" \n ") is None
