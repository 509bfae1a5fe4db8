"""Numbers in human text, and whether one of them can stand for a value in a unit. Pure and exact; no float anywhere.

Nothing here decides what a reading is worth. When in doubt a number does not count: a page that says it plainly will
be found, one that can be read another way must not be. How numbers are written is `app.oracle.numerals`, what belongs
to them `app.oracle.mentions`, what units are `app.oracle.units`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from app.oracle.mentions import Mention, mentions_of
from app.oracle.numerals import masked, numerals
from app.oracle.units import (
    MAGNITUDES,
    MONEY,
    MONEY_MAGNITUDES,
    RATIO,
    TEMPERATURE,
    UNKNOWN,
    WORD,
    Unit,
    in_unit,
    is_unclear_magnitude,
    magnitude_of,
    spelled_out,
)

QUOTATION_CHARS_MIN: Final = 8
QUOTATION_CHARS_MAX: Final = 500
_OCCURRENCES_MAX: Final = 16
"""So many places of a text are tried at which a quotation might stand."""
_CONTEXT_CHARS: Final = 64
"""On either side of a quotation's edge, so much is looked at to see whether a number is read the same beyond it."""
_TOKEN_CHARS: Final = 1024
"""An address that begins before the context is seen whole up to so many characters."""

_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202c\u2060-\u2064\u2066-\u2069\ufeff]")
_OVERRIDES = re.compile("[\u202d\u202e]")
"""They show digits in another order than they are stored in."""


def collapse(text: str) -> str:
    """`text` with each run of white space, of whatever width, as one blank, none at the ends, and nothing invisible."""
    if not text.isascii():
        text = _INVISIBLE.sub("", text)
    return " ".join(text.split())


def numbers_in(text: str, unit: Unit) -> tuple[Fraction, ...]:
    """Every value in `unit` that a number in `text` can stand for, in order; one number may have several readings.

    Left out: numbers of another known unit or currency, in longer tokens, addresses, dates, in other than ASCII digits.
    A number with a unit of the same dimension is converted exactly. The work is linear in the length of the text.
    """
    return tuple(reading.value for reading in _readings(text, unit))


def stands_in(number: Fraction, text: str, unit: Unit) -> bool:
    """Whether a number in `text` can stand for exactly `number` in `unit`.

    Where the text has it in another unit of the dimension ("70 °F" for °C), `number` may be that value rounded to its
    own decimals, by half a percent at most.
    """
    return any(_agrees(number, reading) for reading in _readings(text, unit))


def quotation_stands_in(quotation: str, text: str) -> bool:
    """Whether the words of `quotation` stand in `text`, white space aside, without cutting a word or a number.

    "734 people" does not stand in "1,734 people", nor "they pay 734" in "they pay 734 thousand": the sign, currency,
    magnitude and unit belong to a number. 8 to 500 characters.
    """
    wanted = collapse(quotation)
    if not QUOTATION_CHARS_MIN <= len(wanted) <= QUOTATION_CHARS_MAX:
        return False
    near = _near(wanted, text)
    return _stands_whole(wanted, collapse(text) if near is None else near)


def _near(wanted: str, text: str) -> str | None:
    """The surroundings of the only place at which `wanted` stands as it is: spares collapsing a whole page.

    None where there is no such place, several, or one beside so much white space that what matters lies beyond.
    """
    start = text.find(wanted)
    end = start + len(wanted)
    if start < 0 or text.find(wanted, start + 1) >= 0:
        return None
    piece = text[max(0, start - 2 * _CONTEXT_CHARS) : end + 2 * _CONTEXT_CHARS]
    near = collapse(piece)
    return near if len(piece) - len(near) <= _CONTEXT_CHARS else None


def _stands_whole(wanted: str, text: str) -> bool:
    start = -1
    for _ in range(_OCCURRENCES_MAX):
        start = text.find(wanted, start + 1)
        if start < 0:
            return False
        if _is_whole(text, start, start + len(wanted)):
            return True
    return False


def _is_whole(text: str, start: int, end: int) -> bool:
    """Whether the numbers of [start, end) are read there as they are read in all of `text`, and no word is cut.

    Only what stands near an edge can be read otherwise beyond it.
    """
    if any(text[edge - 1].isalnum() and text[edge].isalnum() for edge in (start, end) if 0 < edge < len(text)):
        return False
    first = max(0, text.rfind(" ", max(0, start - _TOKEN_CHARS), max(0, start - _CONTEXT_CHARS)))
    last = end + _CONTEXT_CHARS
    if end - start <= 2 * _CONTEXT_CHARS:
        return _reads_alike(text[start:end], text[first:last], start - first)
    head, tail = start + _CONTEXT_CHARS, end - _CONTEXT_CHARS
    return _reads_alike(text[start:head], text[first:head], start - first) and _reads_alike(
        text[tail:end], text[tail:last], 0
    )


def _reads_alike(part: str, whole: str, offset: int) -> bool:
    """Whether every number of `part` says the same in `whole`, where `part` stands from `offset`."""
    own = _read(part)
    if not own:
        return True
    there = {mention.at: mention for mention in _read(whole)}
    if _OVERRIDES.search(whole):
        return False
    return all(mention.at + offset in there and mention.says_the_same(there[mention.at + offset]) for mention in own)


def _read(text: str) -> list[Mention]:
    text = masked(text)
    return mentions_of(text, list(numerals(text)), _ANY)


_ANY: Final = Unit("")


@dataclass(frozen=True, slots=True)
class _Reading:
    """`is_converted`: the text says it in another unit, so that a person would round it."""

    value: Fraction
    is_converted: bool


def _agrees(number: Fraction, reading: _Reading) -> bool:
    if number == reading.value:
        return True
    decimals = _decimals(number) if reading.is_converted else None
    if decimals is None:
        return False
    distance = abs(number - reading.value)
    return 2 * 10**decimals * distance <= 1 and 200 * distance <= abs(reading.value)


def _decimals(number: Fraction) -> int | None:
    """Of a number when written out; None where there would be more than twelve."""
    return next((count for count in range(13) if 10**count % number.denominator == 0), None)


def _readings(text: str, unit: Unit) -> Iterator[_Reading]:
    if _OVERRIDES.search(text):
        return
    text = collapse(text).replace("U.S.", "US").replace("p.p.", "pp")
    text = masked(spelled_out(text))
    mentions = mentions_of(text, list(numerals(text)), unit)
    is_hinted = any(_is_said(mention) for mention in mentions) and _names_magnitude(text, mentions, unit.magnitude)
    is_headed = unit.dimension not in _NEVER_HEADED and _is_headed_otherwise(text, mentions, unit.magnitude)
    for mention in mentions:
        if is_headed and mention.magnitude is None and not mention.is_scaled:
            continue
        yield from _values(mention, unit, is_as_written=is_hinted or not _is_said(mention))


def _is_said(mention: Mention) -> bool:
    """Whether the text says what the number counts: then it is not in thousands unless the text says that too."""
    return mention.is_noun or any(quantity.dimension not in (UNKNOWN, MONEY) for quantity in mention.quantities)


_THOUSANDS = re.compile(r"(?<![\w.,])['’]?000s?(?![\w.,])")


def _names_magnitude(text: str, mentions: list[Mention], magnitude: int) -> bool:
    """Whether the text says apart from its numbers that they are in thousands, as a table's head does."""
    names = [name for name, factor in MAGNITUDES.items() if factor == magnitude]
    lowered = text.lower()
    if not any(name in lowered for name in names) and "000" not in text:
        return False
    rest, position = [], 0
    for mention in mentions:
        rest.append(text[position : mention.start])
        position = max(position, mention.end)
    words = " ".join((*rest, text[position:]))
    if magnitude == 1000 and _THOUSANDS.search(words):
        return True
    return any(
        magnitude_of(word[0]) == magnitude and words[word.end() : word.end() + 4] != " of "
        for word in WORD.finditer(words)
    )


_NEVER_HEADED: Final = frozenset((RATIO, TEMPERATURE, "points", "concentration"))
_HEAD = re.compile(
    r"(?:(?P<in>\b[Ii]n (?:the )?)|(?P<money>(?:[$€£¥₹]|\b[A-Z]{3}(?![A-Z])) ?)"
    r"|(?:^|[(\[,:;|/]|\0 ?[+~–—\-(\[]?) ?)['’]?(?=(?P<word>[^\W\d_]+|000s?)(?!\w)(?P<of> of )?)"
)


def _is_headed_otherwise(text: str, mentions: list[Mention], magnitude: int) -> bool:
    """Whether the text says, apart from its numbers, that they are in thousands or millions, and not in `magnitude`.

    As heads of tables say it: "(in millions)", "$bn", "USD m", "'000". Then a number is not what it looks like.
    """
    pieces, position = [], 0
    for mention in mentions:
        pieces.append(text[position : mention.start])
        position = max(position, mention.end)
    words = "\0".join((*pieces, text[position:]))
    named = {factor for found in _HEAD.finditer(words) if (factor := _head_magnitude(found)) is not None}
    return bool(named) and magnitude not in named


def _head_magnitude(found: re.Match[str]) -> int | None:
    """What a word in a head multiplies by, 0 where that is not clear; None for any other word."""
    word = found["word"]
    if word in ("000", "000s"):
        return 1000
    if is_unclear_magnitude(word):
        return 0
    if found["money"] is not None and word in MONEY_MAGNITUDES:
        return MONEY_MAGNITUDES[word]
    factor = magnitude_of(word)
    is_people = found["of"] is not None and found["in"] is None  # "millions of people" says nothing of numbers
    return None if factor is None or factor < 1000 or is_people else factor


def _values(mention: Mention, unit: Unit, *, is_as_written: bool) -> Iterator[_Reading]:
    """In a unit with a magnitude a number may be written in the unit or in full, where nothing says which."""
    for value in mention.values:
        for reading in _in_units(value if mention.magnitude is None else value * mention.magnitude, mention, unit):
            if unit.magnitude == 1:
                yield reading
                continue
            is_in_full = mention.magnitude is not None or mention.is_scaled or reading.is_converted
            if is_as_written and not is_in_full:
                yield reading
            yield _Reading(reading.value / unit.magnitude, reading.is_converted)


def _in_units(value: Fraction, mention: Mention, unit: Unit) -> list[_Reading]:
    """`value` as it stands where the text's unit may be the wanted one, else converted in every way that it can be."""
    if not mention.quantities and not unit.quantities:
        return [_Reading(value, is_converted=False)]
    converted: list[_Reading] = []
    for found in mention.quantities or (None,):
        for wanted in unit.quantities or (None,):
            zero, one = (in_unit(Fraction(number), found, wanted) for number in (0, 1))
            if zero is None or one is None:
                continue
            if zero == 0 and one == 1:
                return [_Reading(value, is_converted=False)]
            reading = _Reading(value * (one - zero) + zero, is_converted=True)
            if reading not in converted:
                converted.append(reading)
    return converted
