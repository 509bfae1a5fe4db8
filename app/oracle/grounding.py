"""What a model's answer rests on: which of its numbers stand in the pages, and how many sources say so. Pure and exact.

A page may speak when it is not too old, its host has a registrable domain, and that is among the allowed ones where
such are given. A quotation counts when it stands, white space aside, in the text of the page that it names, and its
number stands in it, as a number in the wanted unit. What is cut out of a number does not stand there: "67" cannot be
quoted out of "67 million", "1,267" or "-67".

A page says the lower median of its numbers, each counted once however often it is quoted. A source is a registrable
domain; domains whose pages are copies of one another (the same text, or named as near copies) are one source together.
A source says the lower median of what its pages say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from functools import cached_property
from typing import Final

from app.oracle.cases import SearchCase
from app.oracle.domains import registrable_domain
from app.oracle.exact import lower_median
from app.oracle.model_output import Quotation
from app.oracle.numbers import QUOTATION_CHARS_MAX, collapse, quotation_stands_in, stands_in
from app.oracle.units import Unit, parse_unit

OCCURRENCES_MAX: Final = 5
"""Of one quotation in one page that are looked at."""
_AROUND_CHARS: Final = 160
"""Of the page on either side of a quotation, which is more than a number with its sign, magnitude and unit has; but not
where white space takes more than `_SPACE_CHARS_MAX` of it all."""
_SPACE_CHARS_MAX: Final = 80


@dataclass(frozen=True, slots=True)
class PageValue:
    """What a page says: the number, and the words it stands in (collapsed)."""

    domain: str
    value: Fraction
    quotation: str


@dataclass(frozen=True, slots=True)
class Source:
    """One voice. `pages`: the indices of those that speak for it, ascending."""

    domains: frozenset[str]
    pages: tuple[int, ...]
    value: Fraction


def speaking_pages(case: SearchCase) -> dict[int, str]:
    """The registrable domains of the pages that may speak, by their index.

    A page too far ahead of `at` is as wrong as one too old; one that was fetched shortly after it is not.
    """
    allowed = case.configuration.allowed_domains
    oldest = timedelta(seconds=case.max_age_seconds)
    found: dict[int, str] = {}
    for index, page in enumerate(case.pages):
        domain = registrable_domain(page.url)
        if domain is None or (allowed is not None and domain not in allowed):
            continue
        if abs(case.at - page.retrieved_at) <= oldest:
            found[index] = domain
    return found


def sources_at_hand(case: SearchCase) -> int:
    """How many sources the pages could come to at most, whatever they say: fewer than wanted, and asking is in vain."""
    domains = speaking_pages(case)
    return len(_joined(case, domains))


def page_values(case: SearchCase, quotations: Sequence[Quotation]) -> dict[int, PageValue]:
    """What the pages say by the `quotations` that count, by the pages' index."""
    domains = speaking_pages(case)
    unit = parse_unit(case.configuration.unit)
    by_url: dict[str, list[int]] = {}
    for index in domains:
        by_url.setdefault(case.pages[index].url, []).append(index)
    texts = {index: _PageText(case.pages[index].text) for index in domains}
    numbers: dict[int, dict[Fraction, str]] = {}
    for quotation in dict.fromkeys(quotations):
        words = collapse(quotation.quotation)
        for index in by_url.get(quotation.url, ()):
            if is_grounded(quotation.number, words, texts[index], unit):
                numbers.setdefault(index, {}).setdefault(quotation.number, words)
    found = {}
    for index, said in sorted(numbers.items()):
        value = lower_median(list(said))
        found[index] = PageValue(domains[index], value, said[value])
    return found


@dataclass
class _PageText:
    """A page's text as it is stored, and collapsed once if it must be."""

    stored: str

    @cached_property
    def collapsed(self) -> str:
        """Of all its white space."""
        return collapse(self.stored)


def is_grounded(number: Fraction, words: str, text: _PageText, unit: Unit) -> bool:
    """Whether `number` stands in `words` (collapsed), and these on the page, not cut out of another number."""
    if len(words) > QUOTATION_CHARS_MAX or not stands_in(number, words, unit):
        return False
    return _stand_in(words, text.stored) or _stand_in(words, text.collapsed)


def _stand_in(words: str, text: str) -> bool:
    """Whether `words` stand in `text` as they are. Little of it is looked at closely: it may be long."""
    start = text.find(words)
    for _ in range(OCCURRENCES_MAX):
        if start < 0:
            return False
        window = text[max(0, start - _AROUND_CHARS) : start + len(words) + _AROUND_CHARS]
        around = collapse(window)
        if len(window) - len(around) <= _SPACE_CHARS_MAX and quotation_stands_in(words, around):
            return True
        start = text.find(words, start + 1)
    return False


def joined_sources(case: SearchCase, values: Mapping[int, PageValue]) -> list[Source]:
    """The sources that speak, in the order of their first pages."""
    return [
        Source(
            domains=frozenset(values[index].domain for index in pages),
            pages=tuple(pages),
            value=lower_median([values[index].value for index in pages]),
        )
        for pages in _joined(case, {index: value.domain for index, value in values.items()})
    ]


def _joined(case: SearchCase, domains: Mapping[int, str]) -> list[list[int]]:
    """The pages among `domains`, those of one source together."""
    labels: dict[tuple[str, str | int], list[int]] = {}
    for index, domain in domains.items():
        labels.setdefault(("domain", domain), []).append(index)
        labels.setdefault(("text", case.pages[index].text), []).append(index)
    for number, group in enumerate(case.duplicates):
        labels["group", number] = [index for index in group if index in domains]
    leader = {index: index for index in domains}
    for together in labels.values():
        leaders = {leader[index] for index in together}
        first = min(leaders, default=0)
        for index, of in leader.items():
            if of in leaders:
                leader[index] = first
    found: dict[int, list[int]] = {}
    for index in sorted(leader):
        found.setdefault(leader[index], []).append(index)
    return list(found.values())
