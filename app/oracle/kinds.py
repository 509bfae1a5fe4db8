"""The words of the oracle that all of it shares, and what a verdict and its evidence are. Pure."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

PERCENT_UNIT: Final = 10**9
"""Percentages are integers of 10^-9 percent."""
FUNDAMENTAL_WEIGHT: Final = 200_000_000
"""b of the price model in 10^-9, where an asset has none of its own: a reading moves F by so much of its distance."""


class OracleMethod(StrEnum):
    """SEARCH_LLM: web search read by a language model. FEED: a numeric source. OVERRIDE: set by an admin."""

    SEARCH_LLM = "SEARCH_LLM"
    FEED = "FEED"
    OVERRIDE = "OVERRIDE"


class OracleOutcome(StrEnum):
    """ACCEPTED moves F (or keeps it fresh); REJECTED is kept and does nothing; QUARANTINED waits to be confirmed."""

    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    QUARANTINED = "QUARANTINED"


class Reason(StrEnum):
    """Why a reading was not taken as it came."""

    LOW_CONFIDENCE = "LOW_CONFIDENCE"
    DELTA_TOO_LARGE = "DELTA_TOO_LARGE"
    UNGROUNDED = "UNGROUNDED"
    TOO_FEW_SOURCES = "TOO_FEW_SOURCES"
    BAD_OUTPUT = "BAD_OUTPUT"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    REPEAT = "REPEAT"
    CLAMPED = "CLAMPED"


class Effect(StrEnum):
    """What the price engine is told.

    SET: F becomes the price at once (an asset's first reading). MOVE: the price enters F's average. REFRESH: F stays,
    and counts as fresh. NONE: nothing.
    """

    SET = "SET"
    MOVE = "MOVE"
    REFRESH = "REFRESH"
    NONE = "NONE"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judgement comes to. The same inputs give the same verdict, always.

    `price` (10^-12) is what the reading says, after a clamp: None where nothing usable was said. `figure`: the exact
    value behind it as decimal or fraction text, in the source's unit. `delta_percent` (10^-9 percent): price against F
    as judged. `move` (10^-9 of F): by how much MOVE or SET moves F, up or down; 0 otherwise. `confirms`: the id of the
    quarantined report that this reading confirms. `counted`: indices of the evidence that the figure rests on.
    """

    outcome: OracleOutcome
    reasons: tuple[Reason, ...]
    effect: Effect
    price: int | None
    figure: str | None
    delta_percent: int | None
    move: int
    confidence: int | None = None
    summary: str | None = None
    confirms: int | None = None
    counted: tuple[int, ...] = ()
    values: tuple[str | None, ...] = ()
    """Of each piece of evidence: what was read there as decimal text, None where nothing was."""
    quotations: tuple[str | None, ...] = ()
    """Of each piece of evidence: the words that the value stands in, None where nothing was read."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A page, or a feed's answer. `source`: registrable domain, or the feed's name.

    `text`: what was judged (its SHA-256 is `content_hash`, hexadecimal); None where it is the excerpt itself.
    """

    source: str
    url: str
    title: str | None
    excerpt: str
    content_hash: str
    retrieved_at: datetime
    text: str | None = None
    value: str | None = None
    counts: bool = False
    body_url: str | None = None
