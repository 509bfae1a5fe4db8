"""Cases of searches, told in few words: F = 100, a cap of 10 %, two sources asked for, pages that say values."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from app.money import PRICE_UNIT
from app.oracle.cases import Page, Pending, SearchCase, UsedEvidence, content_hash
from app.oracle.configuration import SearchConfiguration
from app.oracle.kinds import PERCENT_UNIT

AT = datetime(2026, 3, 14, 12, 0, 0, tzinfo=UTC)
A, B, C, D = (f"https://{name}.example/report" for name in ("a", "b", "c", "d"))


def sentence(value: str, unit: str = "USD") -> str:
    return f"The official figure was {value} {unit} in the latest bulletin."


def page(url: str, *values: str, unit: str = "USD", note: str = "") -> Page:
    """A page that says these values, each in a sentence of its own, and is different from every other."""
    said = " ".join(sentence(value, unit) for value in values)
    return Page(url, None, f"Welcome to {url} today. {said} Subscribe to our letter. {note}".strip(), AT)


def quotation(url: str, value: str, words: str | None = None) -> dict[str, Any]:
    return {"url": url, "quotation": sentence(value) if words is None else words, "number": json.loads(value)}


def answer(*quotations: dict[str, Any], price: float = 100, delta: float | None = None, **changes: Any) -> str:
    """What the model answers where F is 100."""
    values = {
        "quotations": list(quotations),
        "source_urls": [],
        "suggested_price": price,
        "delta_percent": price - 100 if delta is None else delta,
        "confidence": 0.9,
        "summary": "The bulletins agree.",
    }
    return json.dumps({**values, **changes})


CONFIGURATION = SearchConfiguration(
    queries=("official figure",),
    question="What is the official figure?",
    unit="USD",
    allowed_domains=None,
    min_sources=2,
    max_delta_percent=10 * PERCENT_UNIT,
    min_confidence=600_000_000,
)


def case(*pages: Page, output: str | None, fundamental: int = 100, **changes: Any) -> SearchCase:
    """A case with F = 100, a cap of 10 %, two sources and a confidence of 0.6 asked for."""
    known = {name: changes.pop(name) for name in list(changes) if name in SearchConfiguration.__dataclass_fields__}
    values: dict[str, Any] = {
        "configuration": replace(CONFIGURATION, **known),
        "fundamental": fundamental * PRICE_UNIT,
        "is_first": False,
        "at": AT,
        "max_age_seconds": 3_600,
        "pages": pages,
        "duplicates": (),
        "output": output,
        "used": (),
        "pending": (),
        "moved": 0,
        "max_moves": 250_000_000,
    }
    return SearchCase(**{**values, **changes})


def saying(*said: tuple[str, str], price: float, **changes: Any) -> SearchCase:
    """A case whose pages say these values, (url, value), and whose model quotes them all."""
    output = answer(*(quotation(url, value) for url, value in said), price=price)
    return case(*(page(url, value) for url, value in said), output=output, **changes)


def evidence(of: SearchCase, *indices: int, figure: str) -> tuple[UsedEvidence, ...]:
    """What is remembered of pages of a case made by `saying`, once they counted."""
    quoted = json.loads(of.output or "")["quotations"]
    return tuple(
        UsedEvidence(
            source=of.pages[index].url.split("/")[2],
            figure=figure,
            content_hash=content_hash(of.pages[index].text),
            quotation=quoted[index]["quotation"],
        )
        for index in indices
    )


TWO = saying((A, "102"), (B, "104"), price=103)
FAR = saying((A, "130"), (B, "132"), price=131)
FAR_PENDING = Pending(7, 131 * PRICE_UNIT, "131", evidence(FAR, 0, 1, figure="131"))
