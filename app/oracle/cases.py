"""Cases: everything that a judgement needs, and their canonical JSON, from which they can be judged again. Pure.

How a case is judged is in `judgement` (searches) and `feed_judgement` (feeds).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from app.oracle.configuration import SearchConfiguration, decode_configuration, encode_configuration
from app.oracle.kinds import FUNDAMENTAL_WEIGHT

POLICY_VERSION: Final = 1
"""Of the rules that judge a case. A stored case names its own: rules that judge otherwise have another."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page as it was fetched: the final URL, the extracted text, and when."""

    url: str
    title: str | None
    text: str
    retrieved_at: datetime


@dataclass(frozen=True, slots=True)
class UsedEvidence:
    """A piece of evidence that the figure of an earlier reading rested on.

    `source`: the registrable domain of its page. `figure`: that reading's `Verdict.figure`. `quotation`: the words in
    which the value stood, as `Verdict.quotations` has them.
    """

    source: str
    figure: str
    content_hash: str
    quotation: str


@dataclass(frozen=True, slots=True)
class Pending:
    """A quarantined reading that has not expired. `price` in 10^-12; `evidence`: what its figure rested on.

    `is_rejected`: an admin has rejected it, within its time. It can be repeated, and not be confirmed.
    """

    report_id: int
    price: int
    figure: str
    evidence: tuple[UsedEvidence, ...]
    is_rejected: bool = False


@dataclass(frozen=True, slots=True)
class SearchCase:
    """A search reading to be judged.

    `fundamental`: the F (10^-12, at least 1) that the prompt named; `is_first`: no reading moved it yet. `output`: the
    model's answer as it came, None where it was not asked because too few sources were found. `duplicates`: groups of
    indices of `pages` that are near copies of one another. `used`: evidence of accepted readings. `moved`: the sum of
    what search readings moved within 24 hours before `at`, `max_moves` its cap, both in 10^-9 of F.
    """

    configuration: SearchConfiguration
    fundamental: int
    is_first: bool
    at: datetime
    max_age_seconds: int
    pages: tuple[Page, ...]
    duplicates: tuple[tuple[int, ...], ...]
    output: str | None
    used: tuple[UsedEvidence, ...]
    pending: tuple[Pending, ...]
    moved: int
    max_moves: int
    fundamental_weight: int = FUNDAMENTAL_WEIGHT
    """b of the asset, in 10^-9."""


@dataclass(frozen=True, slots=True)
class FeedReading:
    """What one feed answered at `at`: a number as text, None where it did not answer.

    `samples`: its earlier answers (when, number), in any order, for the average over `twap_minutes`; None: no average.
    price = value * `scale` + `offset`. `max_delta_percent` in 10^-9 percent of F.
    """

    source: str
    value: str | None
    at: datetime
    samples: tuple[tuple[datetime, str], ...]
    scale: str
    offset: str
    twap_minutes: int | None
    max_delta_percent: int


@dataclass(frozen=True, slots=True)
class FeedCase:
    """Answers of feeds to be judged, of which at least `min_feeds` must be good.

    `fundamental` in 10^-12, at least 1; `is_first`: no reading moved it yet. What is older than `fresh_seconds` at `at`
    does not count.
    """

    readings: tuple[FeedReading, ...]
    min_feeds: int
    fundamental: int
    is_first: bool
    at: datetime
    fresh_seconds: int
    fundamental_weight: int = FUNDAMENTAL_WEIGHT
    """b of the asset, in 10^-9."""


Case: TypeAlias = SearchCase | FeedCase


def content_hash(text: str) -> str:
    """SHA-256 of the text's UTF-8 bytes, hexadecimal. Raises ValueError for lone surrogates, which have none."""
    return hashlib.sha256(text.encode()).hexdigest()


def encode_case(case: Case) -> str:
    """Canonical JSON of `case` (ASCII, sorted keys): the texts of pages as their hashes, times in UTC."""
    if isinstance(case, SearchCase):
        stored = {
            "kind": "search",
            **asdict(case),
            "configuration": json.loads(encode_configuration(case.configuration)),
        }
        for page in stored["pages"]:
            page["content_hash"] = content_hash(page.pop("text"))
    else:
        stored = {"kind": "feeds", **asdict(case)}
    stored["policy"] = POLICY_VERSION
    return json.dumps(stored, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_time_text)


def decode_case(text: str, texts: Mapping[str, str]) -> Case:
    """The case that `encode_case` wrote; `texts` has the pages' texts by their hashes.

    Raises ValueError for anything else, for another policy version, and for a text that is missing or was changed.
    """
    try:
        stored = json.loads(text)
        policy, kind = stored.pop("policy"), stored.pop("kind")
        if policy != POLICY_VERSION:
            raise ValueError(f"it was judged by policy {policy!r}, and only policy {POLICY_VERSION} is known here")
        if kind == "search":
            return _search_case(stored, texts)
        if kind == "feeds":
            return _feed_case(stored)
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"no case of the oracle: {text[:80]!r}") from error
    raise ValueError(f"no case of the oracle: its kind is {kind!r}")


def _time_text(value: object) -> str:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise TypeError(f"only times that know their zone can be stored in a case; got {value!r}")
    return value.astimezone(UTC).isoformat()


def _search_case(stored: dict[str, Any], texts: Mapping[str, str]) -> SearchCase:
    return SearchCase(
        configuration=_search_configuration(stored.pop("configuration")),
        at=datetime.fromisoformat(stored.pop("at")),
        pages=tuple(_page(page, texts) for page in stored.pop("pages")),
        duplicates=tuple(tuple(group) for group in stored.pop("duplicates")),
        used=tuple(UsedEvidence(**used) for used in stored.pop("used")),
        pending=tuple(_pending(pending) for pending in stored.pop("pending")),
        **stored,
    )


def _search_configuration(stored: object) -> SearchConfiguration:
    configuration = decode_configuration(json.dumps(stored))
    if not isinstance(configuration, SearchConfiguration):
        raise TypeError("a search is judged by the configuration of a search")
    return configuration


def _page(stored: dict[str, Any], texts: Mapping[str, str]) -> Page:
    """The page with its text, which must be the one that was judged."""
    wanted = stored.pop("content_hash")
    text = texts.get(wanted)
    if text is None:
        raise ValueError(f"the text of {stored['url']} is missing: its hash is {wanted}")
    if content_hash(text) != wanted:
        raise ValueError(f"the text of {stored['url']} was changed: its hash was {wanted}, now {content_hash(text)}")
    return Page(text=text, retrieved_at=datetime.fromisoformat(stored.pop("retrieved_at")), **stored)


def _pending(stored: dict[str, Any]) -> Pending:
    return Pending(evidence=tuple(UsedEvidence(**used) for used in stored.pop("evidence")), **stored)


def _feed_case(stored: dict[str, Any]) -> FeedCase:
    return FeedCase(
        at=datetime.fromisoformat(stored.pop("at")),
        readings=tuple(_feed_reading(reading) for reading in stored.pop("readings")),
        **stored,
    )


def _feed_reading(stored: dict[str, Any]) -> FeedReading:
    return FeedReading(
        at=datetime.fromisoformat(stored.pop("at")),
        samples=tuple((datetime.fromisoformat(at), value) for at, value in stored.pop("samples")),
        **stored,
    )
