"""The stand-in's "language model": it reads nothing but the prompt, by a few fixed rules, and answers as a model would.

Pure. It understands one kind of question, that for the latest month's employees in mining and logging; to any other it
says that it cannot tell. About one answer in twelve is bad on purpose, decided by the prompt itself, so that the rules
that refuse bad answers can be watched at work.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import median
from typing import Final

from app.demo.stand_in.months import NAMES

BAD_ONE_IN: Final = 12
PROMPT_CHARS_MAX: Final = 200_000
CONFIDENCE: Final = {0: 0.0, 1: 0.5, 2: 0.85}
"""By how many pages say the latest month's figure; `SURE` for more."""
SURE: Final = 0.95
TOPIC: Final = "mining and logging"
_DELIMITER: Final = re.compile(r"PAGE n BEGINS ([0-9a-f]{32})")
_CURRENT: Final = re.compile(r"^Current value[^:\n]*: ([0-9]+(?:\.[0-9]+)?)$", re.MULTILINE)
_CLAUSES: Final = re.compile(r"\n+|(?<=[.:])\s+(?=[A-Z])|, (?=from )")
_MONTH: Final = re.compile(rf"\b({'|'.join(NAMES)})\s+((?:19|20)[0-9]{{2}})\b")
_NUMBERS: Final = (
    (re.compile(r"\b([0-9]{1,3}(?:,[0-9]{3})+)\b"), Fraction(1, 1000)),
    (re.compile(r"\b([0-9]+(?:\.[0-9]+)?) thousand\b"), Fraction(1)),
    (re.compile(r"\b([0-9]+(?:\.[0-9]+)?) million\b"), Fraction(1000)),
)
"""How a number of people is written, and what makes it thousands."""
_ROW: Final = re.compile(r"^\s*\|?\s*([A-Z][a-z]+ [0-9]{4})(?: \([^()]*\))?[\s|]+([0-9]+(?:\.[0-9]+)?)[\s|]*$")
"""A line of a table whose numbers are in thousands."""
_REFUSAL: Final = "I am a stand-in for a language model, and this time I decline to answer."


@dataclass(frozen=True, slots=True)
class PromptPage:
    """A page as the prompt gives it."""

    url: str
    text: str


@dataclass(frozen=True, slots=True)
class Told:
    """What a page says of one month: the thousands of employees, and the words that say so."""

    url: str
    quotation: str
    when: tuple[int, int]
    thousands: Fraction


def answer(messages: Sequence[str]) -> str:
    """What the model says to the contents of a chat's messages, the instructions first: JSON, or on purpose not."""
    prompt = "\n".join(messages)[:PROMPT_CHARS_MAX]
    current, pages = read_prompt(prompt)
    said = json.dumps(_reading(current, latest(pages)))
    digest = hashlib.sha256(prompt.encode("utf-8", "replace")).digest()
    if digest[0] * 256 + digest[1] >= 2**16 // BAD_ONE_IN:
        return said
    return _spoilt(said, way=digest[2] % 4)


def read_prompt(prompt: str) -> tuple[Fraction, list[PromptPage]]:
    """The current value that the prompt names (1 where it names none), and the pages between its delimiters."""
    named = _CURRENT.search(prompt)
    current = Fraction(named[1]) if named else Fraction(1)
    delimiter = _DELIMITER.search(prompt)
    if delimiter is None:
        return current, []
    page = re.compile(
        rf"^PAGE ([0-9]+) BEGINS {delimiter[1]}\nAddress: (\S+)\n(.*?)\nPAGE \1 ENDS {delimiter[1]}$",
        re.MULTILINE | re.DOTALL,
    )
    return current, [PromptPage(match[2], match[3]) for match in page.finditer(prompt)]


def latest(pages: Sequence[PromptPage]) -> list[Told]:
    """What the pages say of the latest month that any of them tells of: of each page the first such words."""
    told = [one for page in pages if TOPIC in page.text.lower() for one in _told(page)]
    newest = max((one.when for one in told), default=None)
    firsts: dict[str, Told] = {}
    for one in told:
        if one.when == newest:
            firsts.setdefault(one.url, one)
    return list(firsts.values())


def _told(page: PromptPage) -> Iterator[Told]:
    for clause in _CLAUSES.split(page.text):
        month, thousands = _MONTH.search(clause), _thousands(clause, in_thousands="thousands" in page.text.lower())
        if month is not None and thousands is not None:
            when = (int(month[2]), NAMES.index(month[1]) + 1)
            yield Told(page.url, clause.strip(), when, thousands)


def _thousands(clause: str, *, in_thousands: bool) -> Fraction | None:
    for pattern, factor in _NUMBERS:
        if match := pattern.search(clause):
            return Fraction(match[1].replace(",", "")) * factor
    row = _ROW.match(clause) if in_thousands else None
    return Fraction(row[2]) if row else None


def _reading(current: Fraction, told: Sequence[Told]) -> dict[str, object]:
    """An answer under the oracle's schema."""
    price = median(one.thousands for one in told) if told else current
    month = f"{NAMES[told[0].when[1] - 1]} {told[0].when[0]}" if told else ""
    count = len({one.url for one in told})
    return {
        "quotations": [
            {"url": one.url, "quotation": one.quotation, "number": _json_number(one.thousands)} for one in told
        ],
        "source_urls": list(dict.fromkeys(one.url for one in told)),
        "suggested_price": _json_number(price),
        "delta_percent": round(float((price - current) / current * 100), 6) if current else 0,
        "confidence": CONFIDENCE.get(count, SURE),
        "summary": (
            f"The stand-in read {count} page{'' if count == 1 else 's'}: {_json_number(price)} thousand employees in"
            f" mining and logging in {month}."
            if told
            else "The stand-in knows of mining and logging payrolls only, and found nothing on them."
        ),
    }


def _json_number(value: Fraction) -> int | float:
    return value.numerator if value.denominator == 1 else float(value)


def _spoilt(said: str, *, way: int) -> str:
    """A bad answer: a refusal, a number that no page says, prose around the JSON, or JSON that breaks off."""
    if way == 0:
        return _REFUSAL
    if way == 1:
        reading = json.loads(said)
        for quotation in reading["quotations"]:
            quotation["number"] = 10 * quotation["number"] + 7
        return json.dumps(reading)
    if way == 2:
        return f"Certainly! As a stand-in, I found this for you:\n\n{said}\n\nAsk me for more."
    return said[: len(said) * 2 // 3]
