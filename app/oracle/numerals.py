"""How numbers are written: digits with separators, fractions, powers of ten, words. Pure and exact; no float anywhere.

What stands around a number (signs, currencies, units, magnitudes) and what it therefore means is `app.oracle.numbers`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

NUMERAL_CHARS_MAX: Final = 40
"""A longer run of digits and separators is no number that anybody reads."""
EXPONENT_MAX: Final = 30
SPELLED_WORDS_MAX: Final = 32
"""Enough for any number of trillions; what is longer is no number."""
MASK: Final = "\0"
"""Stands for each character of what is no number: addresses, dates, times."""


@dataclass(frozen=True, slots=True)
class Numeral:
    """A number as written in [start, end) of a text, never negative. `is_scaled`: it names its thousands or millions.

    `value` is None for digits that are there but say nothing certain: malformed groups, ratios, leading zeros.
    """

    start: int
    end: int
    value: Fraction | None
    is_scaled: bool = False


_ADDRESS = re.compile(r"(?:https?|ftp|wss?)://\S*|www\.\S*", re.IGNORECASE)
_CHUNK = re.compile(r"[!-~]+")
_MAIL = re.compile(r"[A-Za-z0-9._+\-]@[A-Za-z0-9]")
_HOST = re.compile(r"[A-Za-z0-9\-]\.[A-Za-z]{2,24}(?::[0-9]|[/?#])")
_PATH = re.compile(r"\.[A-Za-z]{2,24}(?::[0-9]|[/?#])")
_MONTH = (
    r"(?:January|February|March|April|May|June|July|August|September|October|November|December"
    r"|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\.?"
)
_MONTH_TAIL = (
    r"(?:anuary|ebruary|arch|pril|ay|une|uly|ugust|eptember|ctober|ovember|ecember"
    r"|an|eb|ar|pr|un|ul|ug|ept?|ct|ov|ec)\.?"
)
_DATE_END = r"(?![\w/]|[.,:%–\-][0-9]|%)"
_DATE = re.compile(
    r"[0-9](?<![\w.,/\-].)(?:"
    r"[0-9]{3}-[0-9]{1,2}-[0-9]{1,2}(?:T[0-9:.]{4,16}(?:Z|[+\-][0-9:]{4,5})?)?"
    r"|[0-9]{3}/[0-9]{1,2}/[0-9]{1,2}"
    r"|[0-9]?([/.\-])[0-9]{1,2}\1[0-9]{4}"
    r"|[0-9]?/[0-9]{1,2}/[0-9]{2}"
    r"|(?:(?<=1)9|(?<=2)0)[0-9]{2}[/–\-][0-9]{2}"
    rf"|[0-9]?(?:st|nd|rd|th)? (?:of )?{_MONTH},? (?:19|20)[0-9]{{2}}"
    r"|[0-9]?:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?(?: ?[AaPp]\.?[Mm]\b)?"
    r"|[0-9]? ?[AaPp]\.?[Mm]\b"
    rf"){_DATE_END}"
)
_MONTH_DATE = re.compile(
    rf"[JFMASOND](?<!\w.){_MONTH_TAIL} [0-9]{{1,2}}(?:st|nd|rd|th)?,? (?:19|20)[0-9]{{2}}{_DATE_END}"
)


def masked(text: str) -> str:
    """`text` with URLs, e-mail addresses, host names with a path, full dates and times of day masked, as long."""
    if "://" in text or "www." in text.lower():
        text = _ADDRESS.sub(_mask, text)
    if "@" in text or _PATH.search(text) is not None:
        text = _CHUNK.sub(lambda chunk: _mask(chunk) if _is_address(chunk[0]) else chunk[0], text)
    return _MONTH_DATE.sub(_mask, _DATE.sub(_mask, text))


def _is_address(chunk: str) -> bool:
    return ("@" in chunk and _MAIL.search(chunk) is not None) or ("." in chunk and _HOST.search(chunk) is not None)


def _mask(found: re.Match[str]) -> str:
    return MASK * (found.end() - found.start())


_VULGAR: Final = {
    "½": Fraction(1, 2),
    "⅓": Fraction(1, 3),
    "⅔": Fraction(2, 3),
    "¼": Fraction(1, 4),
    "¾": Fraction(3, 4),
    "⅕": Fraction(1, 5),
    "⅖": Fraction(2, 5),
    "⅗": Fraction(3, 5),
    "⅘": Fraction(4, 5),
    "⅛": Fraction(1, 8),
    "⅜": Fraction(3, 8),
    "⅝": Fraction(5, 8),
    "⅞": Fraction(7, 8),
}
_DENOMINATORS: Final = frozenset((2, 3, 4, 5, 6, 8, 10, 16, 32, 64, 100))
_PARTS: Final = {"a half": Fraction(1, 2), "a quarter": Fraction(1, 4), "three quarters": Fraction(3, 4)}

_SMALL: Final = {
    "zero": 0,
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "eleven": 11,
    "twelve": 12,
    "thirteen": 13,
    "fourteen": 14,
    "fifteen": 15,
    "sixteen": 16,
    "seventeen": 17,
    "eighteen": 18,
    "nineteen": 19,
}
_TENS: Final = {
    "twenty": 20,
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "sixty": 60,
    "seventy": 70,
    "eighty": 80,
    "ninety": 90,
}
_SCALES: Final = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}


def _by_first_letter(words: tuple[str, ...]) -> Iterator[str]:
    """Patterns that the search for a start skips by their first letter, and that begin a word."""
    for letter in sorted({word[0] for word in words}):
        tails = "|".join(word[1:] for word in words if word[0] == letter)
        yield rf"{letter}(?<![\w\-{MASK}].)(?:{tails})(?!\w)"


_ARTICLE = r"(?=[ \-](?:hundred|thousand|million|billion|trillion|dozen)\b)"
_ZERO = r"z(?<!below z)(?<!above z)ero"
_START = re.compile(
    "|".join(
        (
            *"0123456789",
            r"\.(?=[0-9])",
            *_VULGAR,
            *_by_first_letter(
                (_ZERO, *tuple(_SMALL)[1:], *_TENS, "a" + _ARTICLE, "an" + _ARTICLE, r"half(?=[ \-]an? )")
            ),
        )
    )
)
"""To search in lower case. Alternatives that begin with one character each let the search skip what begins none."""
_SPACED = re.compile(
    r"[1-9][0-9]{0,2}(?: [0-9]{3}){1,8}(?![0-9])(?:[.,][0-9]{1,20})?(?![.,'’]?[0-9])(?! [0-9]{3}(?![0-9]))"
)
_PLAIN = re.compile(r"\.?[0-9](?:[0-9]|[.,'’](?=[0-9]))*")
_FRACTION = re.compile(r"(?:([0-9]{1,4}) )?([0-9]{1,2})[/⁄]([0-9]{1,3})(?![0-9/⁄]|[.,][0-9])")
_RATIO = re.compile(r"[0-9.,]*(?: ?[×*⋅∙·] ?| x |[:/⁄])(?=[0-9])[0-9.,:/⁄]*")
_POWER = re.compile(
    r"[eE](?P<e>[+\-]?[0-9]{1,2})(?![\w.])"
    r"|(?: ?[×*⋅∙·] ?| ?x ?)10 ?(?:\^|\*\*) ?\{?(?P<caret>[+\-−]?[0-9]{1,2})\}?(?!\w)"
    r"|(?: ?[×*⋅∙·] ?| ?x ?)10(?P<raised>[⁺⁻]?[⁰¹²³⁴-⁹]{1,2})(?!\w)"
)
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻−", "0123456789+--")
_AND_PART = re.compile(r"[ \-]and[ \-](a[ \-]half|a[ \-]quarter|three[ \-]quarters)(?!\w)")


def numerals(text: str) -> Iterator[Numeral]:
    """Every number written in `text`, in order, none overlapping another. White space must be single blanks.

    The work is linear in the length of the text.
    """
    lowered = text.lower()
    if len(lowered) != len(text):  # one capital of Turkish grows
        lowered = text
    position = 0
    while (found := _START.search(lowered, position)) is not None:
        first = found[0][0]
        if first in _VULGAR:
            numeral = Numeral(found.start(), found.end(), _VULGAR[first])
        else:
            numeral = (_spelled if first.isalpha() else _in_digits)(text, found.start())
        yield numeral
        position = numeral.end


def _in_digits(text: str, start: int) -> Numeral:
    fraction = _FRACTION.match(text, start)
    if fraction is not None and not text[start - 1 : start].isdigit():
        return Numeral(start, fraction.end(), _fraction(fraction))
    spaced = _SPACED.match(text, start)
    plain = _PLAIN.match(text, start)
    digits = spaced or plain
    assert digits is not None, "the search found a digit here"  # noqa: S101 - the two patterns agree on it
    value = _grouped(digits[0].replace(" ", "")) if spaced is None else _spaced(digits[0])
    power = _POWER.match(text, digits.end())
    if power is not None:
        return Numeral(start, power.end(), _powered(value, power), is_scaled=True)
    ratio = _RATIO.match(text, digits.end())
    if ratio is not None:
        return Numeral(start, ratio.end(), None)
    return _with_part(text, Numeral(start, digits.end(), value))


def _with_part(text: str, numeral: Numeral) -> Numeral:
    """A half behind whole digits: "3½", "3 ½", "2 and a half"."""
    if numeral.value is None or numeral.value.denominator != 1:
        return numeral
    end = numeral.end + (text[numeral.end : numeral.end + 1] == " ")
    vulgar = _VULGAR.get(text[end : end + 1])
    if vulgar is not None:
        return Numeral(numeral.start, end + 1, numeral.value + vulgar)
    part = _AND_PART.match(text, numeral.end)
    if part is None:
        return numeral
    return Numeral(numeral.start, part.end(), numeral.value + _PARTS[part[1].replace("-", " ")])


def _fraction(found: re.Match[str]) -> Fraction | None:
    whole, above, below = int(found[1] or 0), int(found[2]), int(found[3])
    if below not in _DENOMINATORS or not 0 < above < below:
        return None
    return whole + Fraction(above, below)


def _powered(value: Fraction | None, power: re.Match[str]) -> Fraction | None:
    exponent = int((power["e"] or power["caret"] or power["raised"]).translate(_RAISED))
    return None if value is None or abs(exponent) > EXPONENT_MAX else value * Fraction(10) ** exponent


def _spaced(digits: str) -> Fraction | None:
    """Groups parted by blanks: whatever follows a comma or a point is decimals."""
    if len(digits) > NUMERAL_CHARS_MAX:
        return None
    return _exact(digits.replace(" ", "").replace(",", "."))


def _exact(digits: str) -> Fraction:
    """Plain digits with a point or without."""
    whole, _, decimals = digits.partition(".")
    return Fraction(int(whole + decimals), 10 ** len(decimals))


_WHOLE = r"(?:0|[1-9][0-9]*)"
_POINTED = re.compile(rf"{_WHOLE}?\.[0-9]+|{_WHOLE}")
_DECIMAL_COMMA = re.compile(rf"{_WHOLE},[0-9]+")
_COMMAS = r"[1-9][0-9]{0,2}(?:,[0-9]{3})+|[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}"
_GROUPS: Final = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(?:{_COMMAS})(?:\.[0-9]+)?",
        r"[1-9][0-9]{0,2}(?:['’][0-9]{3})+(?:[.,][0-9]+)?",
        r"[1-9][0-9]{0,2}(?:\.[0-9]{3})+,[0-9]+|[1-9][0-9]{0,2}(?:\.[0-9]{3}){2,}",
    )
)


def _grouped(digits: str) -> Fraction | None:
    """The one value of digits with points, commas and apostrophes: "1,234" is 1234, "1.234" is 1.234, "0,5" is 0.5."""
    if len(digits) > NUMERAL_CHARS_MAX:
        return None
    if _POINTED.fullmatch(digits):
        return _exact(digits)
    western, swiss, european = (pattern.fullmatch(digits) for pattern in _GROUPS)
    if western:
        return _exact(digits.replace(",", ""))
    if swiss:
        return _exact(re.sub("['’]", "", digits).replace(",", "."))
    if european or _DECIMAL_COMMA.fullmatch(digits):
        return _exact(digits.replace(".", "").replace(",", "."))
    return None


_WORD = re.compile(r"[A-Za-z]+")
_NEXT_WORD = re.compile(r"[ \-]([A-Za-z]+)(?!\w)")
_SPELLED_PARTS: Final = tuple((tuple(part.split()), value) for part, value in _PARTS.items())
_BETWEEN = re.compile(r"between \Z", re.IGNORECASE)


def _spelled(text: str, start: int) -> Numeral:
    """A number in words from `start`: "seven hundred and thirty-four thousand", "two and a half million", "zero"."""
    first = _WORD.match(text, start)
    assert first is not None, "the search found a word here"  # noqa: S101 - the two patterns agree on it
    words, ends = [first[0].lower()], [first.end()]
    while len(words) < SPELLED_WORDS_MAX and (following := _NEXT_WORD.match(text, ends[-1])) is not None:
        words.append(following[1].lower())
        ends.append(following.end())
    reading = _Spelled(words, may_join=_BETWEEN.search(text, max(0, start - 8), start) is None)
    while reading.step():
        pass
    value = reading.value if reading.used < SPELLED_WORDS_MAX else None
    return Numeral(start, ends[max(0, reading.used - 1)], value, reading.is_scaled)


class _Spelled:
    """Reads a number from words, as far as they make one. `may_join`: whether "and" may be part of it."""

    def __init__(self, words: list[str], *, may_join: bool) -> None:
        self.used = 0
        self.is_scaled = False
        self._words = words
        self._may_join = may_join
        self._total = Fraction(0)
        self._group: Fraction | None = None
        self._scale: int | None = None
        self._is_broken = False

    @property
    def value(self) -> Fraction | None:
        """None where the words contradict one another ("one thousand two thousand")."""
        return None if self._is_broken else self._total + (self._group or 0)

    def step(self) -> bool:
        """Takes the next word, or words; False where none goes on with the number."""
        word = self._words[self.used] if self.used < len(self._words) else ""
        if self.used == 0 and word in ("a", "an", "half"):
            self._group = Fraction(1, 2) if word == "half" else Fraction(1)
            self.used = 2 if word == "half" else 1
            return True
        if word == "and":
            return self._join()
        if word == "point":
            return self._decimals()
        if word in _SMALL or word in _TENS:
            return self._add(_SMALL.get(word) or _TENS.get(word) or 0)
        name = word.removesuffix("s")
        if name == "hundred" or name in _SCALES:
            return self._multiply(name)
        return False

    def _add(self, number: int) -> bool:
        group = self._group
        if group is not None:
            is_after_hundred = group >= 100 and group % 100 == 0
            is_after_tens = number < 10 and group % 100 >= 20 and group % 10 == 0
            if number == 0 or not (is_after_hundred or is_after_tens):
                return False
        self._group = (group or Fraction(0)) + number
        self.used += 1
        return True

    def _multiply(self, name: str) -> bool:
        group = self._group
        if group is None:
            return False
        if name == "hundred":
            self._is_broken = not 0 < group < 100
            self._group = group * 100
        else:
            scale = _SCALES[name]
            self._is_broken = self._scale is not None and scale >= self._scale
            self._total += group * scale
            self._group, self._scale, self.is_scaled = None, scale, True
        self.used += 1
        return not self._is_broken

    def _join(self) -> bool:
        """Over "and": to the tens and units behind hundreds or thousands, or to "a half" behind a small number."""
        rest = tuple(self._words[self.used + 1 : self.used + 3])
        group = self._group
        for part, value in _SPELLED_PARTS:
            if rest == part and group is not None and group < 100 and group.denominator == 1:
                self._group = group + value
                self.used += 3
                return True
        is_open = group is None or (group >= 100 and group % 100 == 0)
        if not (self._may_join and is_open and rest and (rest[0] in _SMALL or rest[0] in _TENS)):
            return False
        self.used += 1
        return True

    def _decimals(self) -> bool:
        digits = ""
        for word in self._words[self.used + 1 :]:
            if _SMALL.get(word, 10) > 9:
                break
            digits += str(_SMALL[word])
        if not digits or self._group is None:
            return False
        self._group += Fraction(int(digits), 10 ** len(digits))
        self.used += 1 + len(digits)
        return True
