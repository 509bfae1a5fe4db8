"""The judgement of search readings: what a language model's answer comes to, by rules alone. Pure and exact.

The rules, in their order; the first that fails decides:

1. No answer (none was asked for, since too few sources were found): REJECTED, TOO_FEW_SOURCES.
2. BAD_OUTPUT: an answer that is not exactly what was asked for (`model_output`), names source URLs that are no pages of
   the case, or a delta_percent that is not its suggested_price against F, give or take half a percentage point.
3. UNGROUNDED: no number stands on any page that may speak (`grounding`).
4. TOO_FEW_SOURCES: sources further than half of the cap from their lower median are outliers and dropped; those kept
   must be more than those dropped, and at least `min_sources`.
5. figure = the median of the kept. BAD_OUTPUT: suggested_price is further than half of the cap from it.
6. price = the figure, half-even to 10^-12. OUT_OF_RANGE: it is not 0.000001 to 10^9.
7. LOW_CONFIDENCE, below `min_confidence` (with DELTA_TOO_LARGE where it is beyond the cap as well).
8. REPEAT: every kept source has a page whose evidence an accepted reading of the same figure rested on: F is kept
   fresh, and moves nothing. The same of a quarantined reading, or of one that an admin rejected within its time:
   REJECTED (REPEAT, DELTA_TOO_LARGE), without effect.
9. Beyond the cap of F: QUARANTINED, DELTA_TOO_LARGE; unless it confirms a quarantined reading: prices within half of
   the cap, at least `min_sources` kept sources that share no domain and no text with that reading's evidence, and a
   move of F itself within the cap. The first reading ever moves F by its whole distance: it cannot confirm any.
10. What moved within 24 hours and this move together are beyond `max_moves`: QUARANTINED, DELTA_TOO_LARGE.
11. ACCEPTED.

The cap is `max_delta_percent`. "Half of the cap" is always relative to what is compared with: the lower median, the
figure, the pending price. Evidence is the same when its page has the same text or its quotation the same words.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

from app.money import PRICE_MAX, PRICE_MIN, PRICE_UNIT, RATE_UNIT, div_half_even
from app.oracle.cases import Case, Pending, SearchCase, UsedEvidence, content_hash
from app.oracle.domains import registrable_domain
from app.oracle.exact import exact_text, lower_median, median
from app.oracle.feed_judgement import judge_feeds
from app.oracle.grounding import PageValue, Source, joined_sources, page_values, sources_at_hand
from app.oracle.kinds import PERCENT_UNIT, Effect, OracleOutcome, Reason, Verdict
from app.oracle.model_output import BadOutput, ModelOutput, parse_output
from app.oracle.moves import delta_percent, move_of
from app.oracle.numbers import collapse
from app.text import is_showable

SUMMARY_CHARS_MAX: Final = 1_000
DELTA_TOLERANCE: Final = Fraction(1, 2)
"""Percentage points by which the model's delta_percent may differ from its own suggested_price against F."""
_HALF: Final = 2


@dataclass(frozen=True, slots=True)
class _Finding:
    """What the pages come to. `counted`: the pages that the figure rests on, by index; `kept`: their sources."""

    figure: Fraction
    price: int
    kept: tuple[Source, ...]
    counted: dict[int, PageValue]


def judge(case: Case) -> Verdict:
    """The verdict on any case: the same one whenever and wherever it is judged under this policy."""
    return judge_search(case) if isinstance(case, SearchCase) else judge_feeds(case)


def has_enough_sources(case: SearchCase) -> bool:
    """Whether its pages could ground a figure at all: otherwise the model need not be asked."""
    return sources_at_hand(case) >= _min_sources(case)


def judge_search(case: SearchCase) -> Verdict:
    """The verdict on `case`. The module's head has the rules.

    `values` and `quotations` are what each page says, `counted` the pages that the figure rests on: of the kept
    sources, those whose own value is no outlier either. `summary` is the model's, without control characters, cut to
    `SUMMARY_CHARS_MAX`; where the answer was no answer, it says why.
    """
    nothing = (None,) * len(case.pages)
    refused = Verdict(OracleOutcome.REJECTED, (), Effect.NONE, None, None, None, 0, values=nothing, quotations=nothing)
    if case.output is None:
        return replace(refused, reasons=(Reason.TOO_FEW_SOURCES,))
    try:
        output = parse_output(case.output)
        _expect_consistent(case, output)
    except BadOutput as error:
        return replace(refused, reasons=(Reason.BAD_OUTPUT,), summary=_cleaned(f"Not taken: {error}."))
    refused = replace(refused, confidence=output.confidence * RATE_UNIT // 1, summary=_cleaned(output.summary))
    values = page_values(case, output.quotations)
    if not values:
        return replace(refused, reasons=(Reason.UNGROUNDED,))
    refused = replace(
        refused,
        values=tuple(exact_text(values[i].value) if i in values else None for i in range(len(case.pages))),
        quotations=tuple(values[i].quotation if i in values else None for i in range(len(case.pages))),
    )
    finding = _found(case, values)
    if finding is None:
        return replace(refused, reasons=(Reason.TOO_FEW_SOURCES,))
    refused = replace(refused, figure=exact_text(finding.figure), counted=tuple(finding.counted))
    return _judged(case, output, finding, refused)


def narrowed(case: SearchCase, verdict: Verdict) -> SearchCase:
    """`case` without what is known of earlier readings and cannot matter to its `verdict`: much less to store.

    It is judged alike. Kept are used evidence of the same figure and of sources that spoke, and quarantined readings
    of the same figure or within half of the cap.
    """
    spoke = {registrable_domain(page.url) for page, value in zip(case.pages, verdict.values, strict=True) if value}

    def matters(pending: Pending) -> bool:
        price = None if verdict.price is None else Fraction(verdict.price)
        is_near = price is not None and _is_near(price, Fraction(pending.price), case)
        return is_near or pending.figure == verdict.figure

    return replace(
        case,
        used=tuple(one for one in case.used if one.figure == verdict.figure and one.source in spoke),
        pending=tuple(pending for pending in case.pending if matters(pending)),
    )


def _expect_consistent(case: SearchCase, output: ModelOutput) -> None:
    """Refuse an answer that contradicts itself, or names pages that it was not given."""
    given = {page.url for page in case.pages}
    invented = [url for url in output.source_urls if url not in given]
    if invented:
        raise BadOutput(f"source_urls has {len(invented)} that were not given, such as {invented[0][:100]!r}")
    fundamental = Fraction(case.fundamental, PRICE_UNIT)
    delta = (output.suggested_price - fundamental) / fundamental * 100
    if abs(delta - output.delta_percent) > DELTA_TOLERANCE:
        raise BadOutput("delta_percent is not what suggested_price makes against the F that was named")


def _found(case: SearchCase, values: dict[int, PageValue]) -> _Finding | None:
    """The figure of the sources that agree; None where too few do."""
    sources = joined_sources(case, values)
    least, greatest = _near(lower_median([source.value for source in sources]), case)
    kept = tuple(source for source in sources if least <= source.value <= greatest)
    if len(kept) < _min_sources(case) or 2 * len(kept) <= len(sources):
        return None
    figure = median([source.value for source in kept])
    pages = sorted(index for source in kept for index in source.pages)
    return _Finding(
        figure=figure,
        price=div_half_even(figure.numerator * PRICE_UNIT, figure.denominator),
        kept=kept,
        counted={index: values[index] for index in pages if least <= values[index].value <= greatest},
    )


def _judged(case: SearchCase, output: ModelOutput, finding: _Finding, refused: Verdict) -> Verdict:
    """Rules 5 to 11. `refused` has what is known so far."""
    if not _is_near(output.suggested_price, finding.figure, case):
        return replace(refused, reasons=(Reason.BAD_OUTPUT,))
    if not PRICE_MIN <= finding.price <= PRICE_MAX:
        return replace(refused, reasons=(Reason.OUT_OF_RANGE,))
    delta = delta_percent(finding.price, fundamental=case.fundamental)
    refused = replace(refused, price=finding.price, delta_percent=delta)
    too_large = _too_large(case, finding.price)
    if output.confidence * RATE_UNIT < case.configuration.min_confidence:
        return replace(refused, reasons=(Reason.LOW_CONFIDENCE, *too_large))
    if _is_repeat(case, finding, case.used):
        return replace(refused, reasons=(Reason.REPEAT,), effect=Effect.REFRESH)
    if any(_is_repeat(case, finding, pending.evidence) for pending in case.pending):
        return replace(refused, reasons=(Reason.REPEAT, Reason.DELTA_TOO_LARGE))
    effect = Effect.SET if case.is_first else Effect.MOVE
    move = move_of(finding.price, fundamental=case.fundamental, effect=effect, weight=case.fundamental_weight)
    confirmed = _confirmed(case, finding, move) if too_large else None
    if (too_large and confirmed is None) or case.moved + move > case.max_moves:
        return replace(refused, outcome=OracleOutcome.QUARANTINED, reasons=(Reason.DELTA_TOO_LARGE,))
    return replace(
        refused,
        outcome=OracleOutcome.ACCEPTED,
        effect=effect,
        move=move,
        confirms=None if confirmed is None else confirmed.report_id,
    )


def _near(middle: Fraction, case: SearchCase) -> tuple[Fraction, Fraction]:
    """The least and the greatest value within half of the cap of `middle`."""
    distance = abs(middle) * Fraction(case.configuration.max_delta_percent, _HALF * 100 * PERCENT_UNIT)
    return middle - distance, middle + distance


def _is_near(value: Fraction, middle: Fraction, case: SearchCase) -> bool:
    """Whether `value` is within half of the cap of `middle`."""
    least, greatest = _near(middle, case)
    return least <= value <= greatest


def _too_large(case: SearchCase, price: int) -> tuple[Reason, ...]:
    """DELTA_TOO_LARGE where `price` is beyond the cap of F."""
    cap = case.configuration.max_delta_percent * case.fundamental
    return (Reason.DELTA_TOO_LARGE,) if abs(price - case.fundamental) * 100 * PERCENT_UNIT > cap else ()


def _is_repeat(case: SearchCase, finding: _Finding, used: Iterable[UsedEvidence]) -> bool:
    """Whether every kept source was used for the same figure, by the same text or in the same words."""
    figure = exact_text(finding.figure)
    alike = [evidence for evidence in used if evidence.figure == figure]
    return bool(alike) and all(_was_used(case, finding, source, alike) for source in finding.kept)


def _was_used(case: SearchCase, finding: _Finding, source: Source, used: Iterable[UsedEvidence]) -> bool:
    """Whether one of the source's counted pages is among what was `used`, under any of its domains."""
    pages = [index for index in source.pages if index in finding.counted]
    hashes = {content_hash(case.pages[index].text) for index in pages}
    words = {finding.counted[index].quotation for index in pages}
    return any(
        evidence.source in source.domains and (evidence.content_hash in hashes or collapse(evidence.quotation) in words)
        for evidence in used
    )


def _confirmed(case: SearchCase, finding: _Finding, move: int) -> Pending | None:
    """The first quarantined reading that this one, beyond the cap itself, confirms."""
    if move * 100 > case.configuration.max_delta_percent:
        return None
    for pending in case.pending:
        if pending.is_rejected:
            continue
        independent = [source for source in finding.kept if _is_independent(case, source, pending)]
        agrees = _is_near(Fraction(finding.price), Fraction(pending.price), case)
        if agrees and len(independent) >= _min_sources(case):
            return pending
    return None


def _is_independent(case: SearchCase, source: Source, pending: Pending) -> bool:
    """Whether neither the source's domains nor its texts spoke for the quarantined reading."""
    domains = {evidence.source for evidence in pending.evidence}
    hashes = {evidence.content_hash for evidence in pending.evidence}
    return source.domains.isdisjoint(domains) and hashes.isdisjoint(
        content_hash(case.pages[index].text) for index in source.pages
    )


def _min_sources(case: SearchCase) -> int:
    return max(1, case.configuration.min_sources)


def _cleaned(text: str) -> str | None:
    """`text` on one line, without what cannot be shown, cut; None where nothing is left."""
    line = " ".join(text[: 4 * SUMMARY_CHARS_MAX].split())
    return "".join(character for character in line if is_showable(character))[:SUMMARY_CHARS_MAX] or None
