"""The exact model that the judgement of readings is held against: written from the rules alone, naively.

Quantities are `Fraction`s of whole units (price, seconds, one), never base units; a cap of 10 % is 1/10. What stands on
a page is not looked for here: who makes a reading says which of its claims are true. Nothing of `app` is imported, and
nothing may be: two copies of one mistake prove nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise

PRICE = Fraction(1, 10**12)
PRICES = (Fraction(1, 10**6), Fraction(10**9))
RATE = Fraction(1, 10**9)


def nearest(value: Fraction) -> Fraction:
    """The price nearest to `value`, ties to even."""
    return round(value / PRICE) * PRICE


def lower_middle(values: Sequence[Fraction]) -> Fraction:
    """The value that at least half of all do not exceed, and the least such."""
    return min(v for v in values if 2 * sum(w <= v for w in values) >= len(values))


def middle(values: Sequence[Fraction]) -> Fraction:
    """The mean of the lower and the upper middle."""
    return (lower_middle(values) - lower_middle([-v for v in values])) / 2


@dataclass(frozen=True)
class Expected:
    """What a reading must come to. `after`: F once it was applied."""

    outcome: str
    reasons: tuple[str, ...]
    effect: str
    price: Fraction | None
    after: Fraction
    counted: frozenset[int] = frozenset()
    sources: int = 0
    confirms: int | None = None


def moved_by(before: Fraction, after: Fraction) -> Fraction:
    """The part of F by which it moved, up to the next 10^-9."""
    return -(-abs(after - before) / before // RATE) * RATE


def applied(price: Fraction, fundamental: Fraction, *, first: bool) -> Fraction:
    """F once a reading of `price` was taken."""
    return price if first else nearest(fundamental + (price - fundamental) / 5)


# ------------------------------------------------------------------------------------------------ feeds


@dataclass(frozen=True)
class Feed:
    """A feed's answer. Ages in seconds before the judgement; a value of None is no number."""

    source: str
    value: Fraction | None
    age: Fraction
    scale: Fraction
    offset: Fraction
    cap: Fraction
    window: Fraction | None = None
    samples: tuple[tuple[Fraction, Fraction | None], ...] = ()


def average(feed: Feed, value: Fraction, fresh: Fraction) -> Fraction:
    """Piece by piece of the window: who was the last to speak before its middle, and not too long ago."""
    if feed.window is None:
        return value
    said = [(-age, number) for age, number in feed.samples if number is not None and age > feed.age]
    said.append((-feed.age, value))
    end = max(Fraction(0), -feed.age)
    begin = end - feed.window
    edges = sorted({begin, end, *(at for at, _ in said), *(at + fresh for at, _ in said)})
    total = weight = Fraction(0)
    for left, right in pairwise(edges):
        centre = (left + right) / 2
        before = [point for point in said if point[0] <= centre]
        if not before or not begin <= centre <= end or max(before)[0] + fresh < centre:
            continue
        total += max(before)[1] * (right - left)
        weight += right - left
    return total / weight if weight else value


def expected_of_feeds(
    feeds: Sequence[Feed], *, least: int, fundamental: Fraction, first: bool, fresh: Fraction
) -> Expected:
    """The verdict on answers of feeds."""
    prices: dict[int, Fraction | None] = {}
    heard: list[str] = []
    for index, feed in enumerate(feeds):
        if feed.value is None or not -fresh <= feed.age <= fresh or feed.source in heard:
            continue
        heard.append(feed.source)
        price = average(feed, feed.value, fresh) * feed.scale + feed.offset
        prices[index] = price if PRICES[0] <= nearest(price) <= PRICES[1] else None
    good = {index: price for index, price in prices.items() if price is not None}
    reasons = ("OUT_OF_RANGE",) if len(good) < len(prices) else ()
    least = max(1, least)
    if len(good) < least:
        if len(prices) < least:
            reasons = (*reasons, "TOO_FEW_SOURCES")
        return Expected("REJECTED", reasons, "NONE", None, fundamental)
    figure = nearest(middle(list(good.values())))
    price = figure
    if not first:
        reach = min(feeds[index].cap for index in good) * fundamental // PRICE * PRICE
        price = sorted([fundamental - reach, figure, fundamental + reach])[1]
    if price != figure:
        reasons = (*reasons, "CLAMPED")
    after = applied(price, fundamental, first=first)
    return Expected("ACCEPTED", reasons, "SET" if first else "MOVE", price, after, frozenset(good), sources=len(good))


# ------------------------------------------------------------------------------------------------ searches


@dataclass(frozen=True)
class Claim:
    """The model says that `number` stands on a page, in the words `words`; `is_true`: it really does."""

    page: int
    number: Fraction
    words: str
    is_true: bool


@dataclass(frozen=True)
class Sheet:
    """A page: who registered its host (None: nobody), its age in seconds, its text."""

    owner: str | None
    age: Fraction
    text: str


@dataclass(frozen=True)
class Earlier:
    """An earlier reading: its exact figure, and what it rested on as (owner, text, words)."""

    figure: Fraction
    evidence: tuple[tuple[str, str, str], ...]
    price: Fraction = Fraction(0)
    number: int = 0


@dataclass(frozen=True)
class Search:
    """A search reading. `is_sound`: the answer is well-formed and names no page that it was not given."""

    sheets: tuple[Sheet, ...]
    claims: tuple[Claim, ...]
    is_sound: bool
    suggested: Fraction
    delta: Fraction
    confidence: Fraction
    fundamental: Fraction
    first: bool
    cap: Fraction
    least: int
    surety: Fraction
    age: Fraction
    moved: Fraction
    day_cap: Fraction
    copies: tuple[tuple[int, ...], ...] = ()
    allowed: frozenset[str] | None = None
    used: tuple[Earlier, ...] = ()
    pending: tuple[Earlier, ...] = ()
    is_asked: bool = True
    kinds: frozenset[str] = field(default=frozenset(), compare=False)


@dataclass(frozen=True)
class Voice:
    """A source: its pages, and what it says."""

    pages: frozenset[int]
    value: Fraction


def page_says(search: Search) -> dict[int, Fraction]:
    """What each page that may speak truly says."""
    says: dict[int, Fraction] = {}
    for index, sheet in enumerate(search.sheets):
        may = sheet.owner is not None and (search.allowed is None or sheet.owner in search.allowed)
        numbers = {claim.number for claim in search.claims if claim.page == index and claim.is_true}
        if may and -search.age <= sheet.age <= search.age and numbers:
            says[index] = lower_middle(list(numbers))
    return says


def voices(search: Search, says: dict[int, Fraction]) -> list[Voice]:
    """The sources: pages are of one where any chain of owners, equal texts and copies leads from one to the other."""

    def are_one(a: int, b: int) -> bool:
        one, other = search.sheets[a], search.sheets[b]
        copied = any(a in group and b in group for group in search.copies)
        return one.owner == other.owner or one.text == other.text or copied

    left, found = set(says), []
    while left:
        together = {min(left)}
        while more := {b for b in left - together if any(are_one(a, b) for a in together)}:
            together |= more
        left -= together
        found.append(Voice(frozenset(together), lower_middle([says[page] for page in together])))
    return found


def near(value: Fraction, of: Fraction, cap: Fraction) -> bool:
    """Whether `value` is within half of the cap of the other."""
    return abs(value - of) <= abs(of) * cap / 2


def expected_of_search(search: Search) -> Expected:
    """The verdict on a search reading."""
    nothing = Expected("REJECTED", (), "NONE", None, search.fundamental)
    if not search.is_asked:
        return replace(nothing, reasons=("TOO_FEW_SOURCES",))
    delta = (search.suggested - search.fundamental) * 100 / search.fundamental
    if not search.is_sound or not 0 <= search.confidence <= 1 or abs(delta - search.delta) > Fraction(1, 2):
        return replace(nothing, reasons=("BAD_OUTPUT",))
    says = page_says(search)
    if not says:
        return replace(nothing, reasons=("UNGROUNDED",))
    speaking = voices(search, says)
    centre = lower_middle([voice.value for voice in speaking])
    kept = [voice for voice in speaking if near(voice.value, centre, search.cap)]
    if len(kept) < max(1, search.least) or len(kept) <= len(speaking) - len(kept):
        return replace(nothing, reasons=("TOO_FEW_SOURCES",))
    counted = frozenset(p for voice in kept for p in voice.pages if near(says[p], centre, search.cap))
    figure = middle([voice.value for voice in kept])
    known = replace(nothing, counted=counted, sources=len(kept))
    if not near(search.suggested, figure, search.cap):
        return replace(known, reasons=("BAD_OUTPUT",))
    if not PRICES[0] <= nearest(figure) <= PRICES[1]:
        return replace(known, reasons=("OUT_OF_RANGE",))
    return with_a_price(search, kept, figure, replace(known, price=nearest(figure)))


def with_a_price(search: Search, kept: Sequence[Voice], figure: Fraction, known: Expected) -> Expected:
    """The verdict on a reading that says a price: confidence, repeats, caps."""
    price = nearest(figure)
    is_large = abs(price - search.fundamental) > search.cap * search.fundamental
    if search.confidence < search.surety:
        return replace(known, reasons=("LOW_CONFIDENCE", "DELTA_TOO_LARGE")[: 1 + is_large])
    if is_repeat(search, kept, known.counted, figure, search.used):
        return replace(known, reasons=("REPEAT",), effect="REFRESH")
    if any(is_repeat(search, kept, known.counted, figure, (earlier,)) for earlier in search.pending):
        return replace(known, reasons=("REPEAT", "DELTA_TOO_LARGE"))
    after = applied(price, search.fundamental, first=search.first)
    move = moved_by(search.fundamental, after)
    confirms = None
    if is_large:
        confirms = next((e.number for e in search.pending if confirmed(search, kept, price, move, e)), None)
    if (is_large and confirms is None) or search.moved + move > search.day_cap:
        return replace(known, outcome="QUARANTINED", reasons=("DELTA_TOO_LARGE",))
    effect = "SET" if search.first else "MOVE"
    return replace(known, outcome="ACCEPTED", effect=effect, after=after, confirms=confirms)


def is_repeat(
    search: Search, kept: Sequence[Voice], counted: frozenset[int], figure: Fraction, earlier: Sequence[Earlier]
) -> bool:
    """Whether each voice has a counted page that was used for this figure: its text, or words quoted from it."""
    used = [evidence for reading in earlier if reading.figure == figure for evidence in reading.evidence]

    def was_used(voice: Voice) -> bool:
        owners = {search.sheets[page].owner for page in voice.pages}
        return any(
            owner in owners and (text == search.sheets[page].text or words == quoted(search, page))
            for owner, text, words in used
            for page in voice.pages & counted
        )

    return all(was_used(voice) for voice in kept)


def quoted(search: Search, page: int) -> str:
    """The words in which what the page says was first quoted."""
    value = page_says(search)[page]
    return next(c.words for c in search.claims if c.page == page and c.is_true and c.number == value)


def confirmed(search: Search, kept: Sequence[Voice], price: Fraction, move: Fraction, earlier: Earlier) -> bool:
    """Whether the reading confirms a quarantined one."""
    owners = {owner for owner, _, _ in earlier.evidence}
    texts = {text for _, text, _ in earlier.evidence}
    fresh_voices = [
        voice
        for voice in kept
        if not any(search.sheets[p].owner in owners or search.sheets[p].text in texts for p in voice.pages)
    ]
    return near(price, earlier.price, search.cap) and len(fresh_voices) >= max(1, search.least) and move <= search.cap
