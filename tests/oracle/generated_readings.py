"""Readings made at random, good and bad, each in two forms: as the oracle gets them, and as the exact model does.

What is wrong with a reading is known because it was made so: `kinds` names it.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from random import Random

from app.oracle.cases import FeedCase, FeedReading, Page, Pending, SearchCase, UsedEvidence, content_hash
from app.oracle.configuration import SearchConfiguration
from app.oracle.exact import exact_text
from tests.oracle import judgement_model as exact

AT = datetime(2026, 3, 14, 12, 0, 0, tzinfo=UTC)
MICRO = Fraction(1, 10**6)
PERCENT = Fraction(1, 100)


def units(value: Fraction, unit: int) -> int:
    """`value`, a whole number of 1/unit, in them."""
    whole = value * unit
    assert whole.denominator == 1
    return whole.numerator


def plain(value: Fraction, decimals: int = 2) -> str:
    """`value` with so many decimals, which it has at most."""
    return format(Decimal(units(value, 10**decimals)).scaleb(-decimals), "f")


def grouped(value: Fraction, decimals: int = 2) -> str:
    """The same with commas between the thousands."""
    return format(Decimal(units(value, 10**decimals)).scaleb(-decimals), ",f")


def moment(age: Fraction, at: datetime = AT) -> datetime:
    return at - timedelta(microseconds=units(age, 10**6))


# ------------------------------------------------------------------------------------------------ feeds


@dataclass(frozen=True)
class FeedSet:
    """Answers of feeds."""

    feeds: tuple[exact.Feed, ...]
    texts: tuple[str | None, ...]
    least: int
    fundamental: Fraction
    first: bool
    fresh: Fraction
    kinds: frozenset[str]

    def case(self) -> FeedCase:
        """As the oracle gets it."""
        return FeedCase(
            readings=tuple(_feed_reading(*pair) for pair in zip(self.feeds, self.texts, strict=True)),
            min_feeds=self.least,
            fundamental=units(self.fundamental, 10**12),
            is_first=self.first,
            at=AT,
            fresh_seconds=units(self.fresh, 1),
        )

    def expected(self) -> exact.Expected:
        """What it must come to."""
        return exact.expected_of_feeds(
            self.feeds, least=self.least, fundamental=self.fundamental, first=self.first, fresh=self.fresh
        )


def _feed_reading(feed: exact.Feed, text: str | None) -> FeedReading:
    return FeedReading(
        source=feed.source,
        value=text,
        at=moment(feed.age),
        samples=tuple((moment(age), "NaN" if value is None else plain(value, 6)) for age, value in feed.samples),
        scale=plain(feed.scale, 6),
        offset=plain(feed.offset, 6),
        twap_minutes=None if feed.window is None else units(feed.window / 60, 1),
        max_delta_percent=units(feed.cap, 10**11),
    )


FEED_KINDS = ("outlier", "thousandfold", "stale", "nan", "sign", "unit", "duplicate", "contradiction", "average")


def generated_feeds(random: Random) -> FeedSet:
    """One to five feeds around F, some of them wrong."""
    fundamental = Fraction(random.choice([random.randint(1, 10**6), random.randint(10**9, 10**15)]), 10**6)
    fresh = Fraction(random.choice([30, 60, 180, 900]))
    kinds: set[str] = set()
    feeds: list[exact.Feed] = []
    texts: list[str | None] = []
    for number in range(random.randint(1, 5)):
        kind = random.choice(FEED_KINDS) if random.random() < 0.4 else "honest"
        kinds.add(kind)
        feed, text = _generated_feed(random, kind, number, fundamental, fresh)
        feeds.append(feed)
        texts.append(text)
    least = random.randint(0, len(feeds))
    return FeedSet(tuple(feeds), tuple(texts), least, fundamental, random.random() < 0.1, fresh, frozenset(kinds))


BAD_VALUES = (
    None,
    "",
    "NaN",
    "nan",
    "Infinity",
    "-Infinity",
    "1e400",
    "1e3",
    "1,234.5",
    "12 USD",
    "１２",
    "+1",
    "9" * 65,
)


def _generated_feed(
    random: Random, kind: str, number: int, fundamental: Fraction, fresh: Fraction
) -> tuple[exact.Feed, str | None]:
    scale, offset = Fraction(random.choice([1, 1, 2, -4, 10**3]), random.choice([1, 5, 1000])), Fraction(0)
    if random.random() < 0.3:
        offset = Fraction(random.randint(-(10**8), 10**8), 10**6)

    def value_for(price: Fraction) -> Fraction:
        return Fraction(round((price - offset) / scale * 10**6), 10**6)

    wanted = fundamental * Fraction(random.randint(850_000, 1_150_000), 10**6)
    factors = {
        "outlier": Fraction(random.choice([1, 10, 300]), random.choice([3, 20])),
        "thousandfold": Fraction(random.choice([1000, 10**6]), random.choice([1, 10**6, 10**9])),
        "contradiction": Fraction(13, 10),
    }
    value = value_for(wanted * factors.get(kind, Fraction(1)))
    value = -value if kind == "sign" else value
    value = value * 100 if kind == "unit" else value
    text = random.choice(BAD_VALUES) if kind == "nan" else plain(value, 6)
    age = Fraction(random.randint(-5, int(fresh)))
    age = random.choice([fresh + MICRO, fresh * 7, -fresh - MICRO]) if kind == "stale" else age
    window, samples = None, []
    if kind == "average":
        window = Fraction(60 * random.randint(1, 30))
        for _ in range(random.randint(0, 8)):
            near = value_for(fundamental * Fraction(random.randint(900_000, 1_100_000), 10**6))
            sampled = Fraction(random.randint(-(10**7), 2_400 * 10**6), 10**6)
            samples.append((sampled, None if random.random() < 0.1 else near))
    feed = exact.Feed(
        source="feed-0" if kind == "duplicate" else f"feed-{number}",
        value=None if kind == "nan" else value,
        age=age,
        scale=scale,
        offset=offset,
        cap=random.choice([1, 5, 10, 50, 200]) * PERCENT,
        window=window,
        samples=tuple(samples),
    )
    return feed, text


# ------------------------------------------------------------------------------------------------ searches


@dataclass(frozen=True)
class Wording:
    """A unit, and ways of writing a value: those that say it, and those that say something else."""

    unit: str
    true: tuple[Callable[[Fraction], str], ...]
    false: tuple[Callable[[Fraction], str], ...]


WORDINGS = (
    Wording(
        "USD",
        (
            lambda v: f"{grouped(v)} USD",
            lambda v: f"${grouped(v)}",
            lambda v: f"USD {plain(v)}",
            lambda v: f"US$ {grouped(v)}",
            lambda v: f"{plain(v)} dollars",
            lambda v: f"{plain(v / 1000, 5)} thousand US dollars",
            lambda v: f"${plain(v / 10**6, 8)} million",
        ),
        (
            lambda v: f"{grouped(v)} EUR",
            lambda v: f"€{grouped(v)}",
            lambda v: f"£ {plain(v)}",
            lambda v: f"{grouped(v)} thousand USD",
            lambda v: f"${plain(v)} million",
            lambda v: f"{plain(v)} percent",
            lambda v: f"-{grouped(v)} USD",
            lambda v: f"minus {plain(v)} USD",
            lambda v: f"to be found at https://prices.example/{plain(v)}",
            lambda v: f"{plain(v * 1000, 0)}{units(v * 100, 1) % 10} USD",
        ),
    ),
    Wording(
        "%",
        (lambda v: f"{plain(v)}%", lambda v: f"{plain(v)} percent", lambda v: f"{grouped(v)} per cent"),
        (lambda v: f"{plain(v)} USD", lambda v: f"-{plain(v)}%", lambda v: f"$ {plain(v)}"),
    ),
    Wording(
        "GWh",
        (
            lambda v: f"{grouped(v)} GWh",
            lambda v: f"{grouped(v * 1000, 0)} MWh",
            lambda v: f"{plain(v / 1000, 5)} TWh",
            lambda v: f"{plain(v)} gigawatt hours",
        ),
        (lambda v: f"{grouped(v)} MWh", lambda v: f"{plain(v)} TWh", lambda v: f"{plain(v)} EUR"),
    ),
    Wording(
        "thousand employees",
        (
            lambda v: f"{grouped(v)} thousand employees",
            lambda v: f"{grouped(v * 1000, 0)} employees",
            lambda v: f"{plain(v / 1000, 5)} million employees",
        ),
        (lambda v: f"{grouped(v)} million employees", lambda v: f"{plain(v)} USD", lambda v: f"{plain(v)}%"),
    ),
)

PAGE_KINDS = (
    "outlier",
    "thousandfold",
    "stale",
    "sign or unit",
    "duplicated domain",
    "contradiction",
    "copy",
    "near copy",
    "no domain",
    "invented number",
    "invented page",
    "paraphrase",
)
ANSWER_KINDS = (
    "prose",
    "truncated",
    "extra key",
    "refusal",
    "NaN",
    "invented URL",
    "wrong delta",
    "wrong price",
    "unsure",
)
_FILLER = (
    "The bulletin appears every month and is read by many.",
    "Figures are revised twice a year, says the office.",
    "In section 4 the method is described in some detail.",
    "Subscribe to our letter for more.",
    "Observers had expected no great change this season.",
)
_PLACES = ("Aurora", "Brookfield", "Cedar Point", "Dunmore", "Elmhurst", "Fairview")


@dataclass(frozen=True)
class SearchSet:
    """A search reading in the exact model's form, and what only the oracle's form has."""

    search: exact.Search
    urls: tuple[str, ...]
    claimed_urls: tuple[str, ...]
    unit: str
    output: str | None
    kinds: frozenset[str]

    def case(self, at: datetime = AT) -> SearchCase:
        """As the oracle gets it."""
        search = self.search
        allowed = None if search.allowed is None else tuple(sorted(search.allowed))
        return SearchCase(
            configuration=SearchConfiguration(
                queries=("price",),
                question="How much is it?",
                unit=self.unit,
                allowed_domains=allowed,
                min_sources=search.least,
                max_delta_percent=units(search.cap, 10**11),
                min_confidence=units(search.surety, 10**9),
            ),
            fundamental=units(search.fundamental, 10**12),
            is_first=search.first,
            at=at,
            max_age_seconds=units(search.age, 1),
            pages=tuple(
                Page(url, None, sheet.text, moment(sheet.age, at))
                for url, sheet in zip(self.urls, search.sheets, strict=True)
            ),
            duplicates=search.copies,
            output=self.output,
            used=tuple(used for earlier in search.used for used in _used(earlier)),
            pending=tuple(
                Pending(e.number, units(e.price, 10**12), exact_text(e.figure), tuple(_used(e))) for e in search.pending
            ),
            moved=units(search.moved, 10**9),
            max_moves=units(search.day_cap, 10**9),
        )

    def expected(self) -> exact.Expected:
        """What it must come to."""
        return exact.expected_of_search(self.search)

    def after(self, **known: object) -> "SearchSet":
        """The same with something else known from earlier readings, or another F."""
        return replace(self, search=replace(self.search, **known))  # type: ignore[arg-type]


def _used(earlier: exact.Earlier) -> list[UsedEvidence]:
    figure = exact_text(earlier.figure)
    return [UsedEvidence(owner, figure, content_hash(text), words) for owner, text, words in earlier.evidence]


class SearchMaker:
    """Makes search readings around a level, at random."""

    def __init__(self, random: Random, *, fundamental: Fraction, level: Fraction, wording: Wording) -> None:
        self.random = random
        self.fundamental = fundamental
        self.level = level
        self.wording = wording
        self.sheets: list[exact.Sheet] = []
        self.urls: list[str] = []
        self.claims: list[exact.Claim] = []
        self.claimed_urls: list[str] = []
        self.copies: list[tuple[int, ...]] = []
        self.kinds: set[str] = set()

    def make(self, *, wrong_pages: float = 0.35, wrong_answer: float = 0.2, first: float = 0.05) -> SearchSet:
        """A reading of one to seven pages; each is wrong with one probability, the answer as such with another."""
        random = self.random
        for _ in range(random.randint(1, 7)):
            self._page(random.choice(PAGE_KINDS) if random.random() < wrong_pages else "honest")
        kind = random.choice(ANSWER_KINDS) if random.random() < wrong_answer else "plain"
        search = self._search(kind, first=random.random() < first)
        output = None if not search.is_asked else self._output(kind, search)
        self.kinds |= {kind} - {"plain"}
        return SearchSet(
            search, tuple(self.urls), tuple(self.claimed_urls), self.wording.unit, output, frozenset(self.kinds)
        )

    def _search(self, kind: str, *, first: bool) -> exact.Search:
        random = self.random
        suggested = self.level * (Fraction(17, 10) if kind == "wrong price" else 1)
        delta = Fraction(round((suggested - self.fundamental) / self.fundamental * 10_000), 100)
        delta += Fraction(random.choice([-52, 52, 5_000]), 100) if kind == "wrong delta" else 0
        confidence = Fraction(random.randint(0, 59) if kind == "unsure" else random.randint(60, 100), 100)
        owners = sorted({sheet.owner for sheet in self.sheets if sheet.owner is not None})
        allowed = None
        if random.random() < 0.1:
            allowed = frozenset(random.sample(owners, random.randint(0, len(owners))))
        return exact.Search(
            sheets=tuple(self.sheets),
            claims=tuple(self.claims),
            is_sound=kind in ("plain", "wrong delta", "wrong price", "unsure"),
            suggested=suggested,
            delta=delta,
            confidence=confidence,
            fundamental=self.fundamental,
            first=first,
            cap=random.choice([2, 10, 10, 10, 30]) * PERCENT,
            least=random.choice([0, 1, 2, 2, 2, 3]),
            surety=Fraction(6, 10),
            age=Fraction(3_600),
            moved=random.choice([0, 0, 0, random.randint(0, 260)]) * Fraction(1, 1000),
            day_cap=Fraction(1, 4),
            copies=tuple(self.copies),
            allowed=allowed,
            is_asked=random.random() > 0.02,
        )

    def _value(self, kind: str) -> Fraction:
        """What a page says: near the level, or far from it. Two decimals."""
        factor = Fraction(self.random.randint(990, 1010), 1000)
        if kind == "outlier":
            factor = Fraction(self.random.choice([3, 15, 40]), 10)
        if kind == "thousandfold":
            factor = Fraction(1000)
        return Fraction(round(self.level * factor * 100), 100)

    def _page(self, kind: str) -> None:
        random, number = self.random, len(self.sheets)
        self.kinds.add(kind)
        if kind in ("copy", "near copy") and number == 0:
            kind = "honest"
        value = self._value(kind)
        is_true = kind != "sign or unit"
        sentence = self._sentence(value, is_true=is_true)
        sentences = [*random.sample(_FILLER, 2), sentence, random.choice(_FILLER), f"Page {number} of our archive."]
        claims = [(value, sentence, is_true)]
        if kind == "contradiction":
            other = self._value("outlier")
            claims.append((other, self._sentence(other, is_true=True), True))
            sentences.insert(1, claims[1][1])
        text = random.choice([" ", "\n", "\u00a0 "]).join(sentences)
        owner, url = self._host(kind, number)
        if kind == "copy":
            model = random.randrange(number)
            text = self.sheets[model].text
            claims = [(c.number, c.words, c.is_true) for c in self.claims if c.page == model]
        if kind == "near copy":
            self.copies.append((random.randrange(number), number))
        if kind == "invented number":
            # Further off than somebody's rounding of a converted figure might be.
            claims = [(Fraction(round(value * 102) + 37, 100), sentence, False)]
        if kind == "paraphrase":
            claims = [(value, f"It was said that {sentence}", False)]
        age = Fraction(random.randint(-30, 3_600))
        if kind == "stale":
            age = random.choice([Fraction(3_600) + MICRO, Fraction(90_000), Fraction(-3_601)])
        self.sheets.append(exact.Sheet(owner, age, text))
        self.urls.append(url)
        for said, words, stands in claims:
            self.claims.append(exact.Claim(-1 if kind == "invented page" else number, said, words, stands))
            self.claimed_urls.append(f"https://nowhere.example/{number}" if kind == "invented page" else url)

    def _host(self, kind: str, number: int) -> tuple[str | None, str]:
        if kind == "no domain":
            return None, f"https://192.0.2.{number}/price"
        owner = f"source{0 if kind == 'duplicated domain' else number}.example"
        host = self.random.choice(["", "www.", "m.", "news.europe."]) + owner
        return owner, f"https://{host}/{number}"

    def _sentence(self, value: Fraction, *, is_true: bool) -> str:
        write = self.random.choice(self.wording.true if is_true else self.wording.false)
        place = self.random.choice(_PLACES)
        return f"In {place} the official figure was {write(value)} according to the latest bulletin."

    def _output(self, kind: str, search: exact.Search) -> str:
        answer: dict[str, object] = {
            "quotations": [
                {"url": url, "quotation": claim.words, "number": float(claim.number)}
                for url, claim in zip(self.claimed_urls, self.claims, strict=True)
            ],
            "source_urls": self.urls if kind != "invented URL" else [*self.urls, "https://nowhere.example/"],
            "suggested_price": "@suggested@",
            "delta_percent": float(search.delta),
            "confidence": float(search.confidence),
            "summary": "The bulletins agree." if kind != "extra key" else "",
        }
        if kind == "extra key":
            answer["note"] = "none"
        suggested = "NaN" if kind == "NaN" else plain(search.suggested, 8)
        text = json.dumps(answer).replace('"@suggested@"', suggested)
        if kind == "truncated":
            return text[: self.random.randrange(len(text))]
        others = {"prose": f"The price is {suggested}.", "refusal": "I'm sorry, but I can't help with that."}
        return others.get(kind, text)


def generated_search(random: Random) -> SearchSet:
    """A search reading around F, or far from it."""
    fundamental = Fraction(random.randint(500, 5_000_000), 100)
    factor = random.choice([random.randint(900, 1100), random.randint(970, 1030), random.randint(500, 2500)])
    level = max(Fraction(1), Fraction(round(fundamental * factor / 1000 * 100), 100))
    return SearchMaker(random, fundamental=fundamental, level=level, wording=random.choice(WORDINGS)).make()


def as_earlier(made: SearchSet, expected: exact.Expected, number: int = 0) -> exact.Earlier:
    """What is remembered of a reading that said a price."""
    assert expected.price is not None
    search = made.search
    says = exact.page_says(search)
    values = [voice.value for voice in exact.voices(search, says) if voice.pages & expected.counted]
    evidence = tuple(
        (search.sheets[page].owner or "", search.sheets[page].text, exact.quoted(search, page))
        for page in sorted(expected.counted)
    )
    return exact.Earlier(exact.middle(values), evidence, expected.price, number)
