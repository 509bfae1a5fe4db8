"""What belongs to a number in a text: its sign, currency, magnitude, unit and "per ...", or the other end of a range.

Pure. Texts are collapsed and masked (`app.oracle.numbers`); how digits are written is `app.oracle.numerals`. When in
doubt a number is left out.
"""

import re
import unicodedata
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

from app.oracle.numerals import MASK, Numeral
from app.oracle.units import (
    MONEY,
    MONEY_MAGNITUDES,
    PHRASE_WORDS_MAX,
    RATIO,
    TEMPERATURE,
    UNKNOWN,
    WORD,
    Quantity,
    Unit,
    begins_quantity,
    is_unclear_magnitude,
    known_denominators,
    known_quantities,
    magnitude_of,
    singular,
)

_RANGE_SHARES_BELOW: Final = 1000
"""In "3 to 4 million" the 3 is millions; in "700,000 to 1 million" the first number is what it says."""


@dataclass(frozen=True, slots=True)
class Mention:
    """A number with what belongs to it, in [start, end) of the text, "per ..." left out; its digits begin `at`.

    `values`: without the magnitude; two where its sign can be read both ways. `quantities`: what its unit can mean.
    `is_scaled`: the number itself names its thousands. `is_noun`: the wanted unit's noun stands behind it.
    """

    at: int
    start: int
    end: int
    values: tuple[Fraction, ...]
    magnitude: int | None
    quantities: tuple[Quantity, ...]
    is_scaled: bool
    is_noun: bool

    def says_the_same(self, other: "Mention") -> bool:
        """Whether `other` can be read as this number with this magnitude and unit, whatever it is counted by."""
        if (self.magnitude, self.is_scaled) != (other.magnitude, other.is_scaled):
            return False
        return set(self.values) <= set(other.values) and _known(self.quantities) == _known(other.quantities)


def _known(quantities: tuple[Quantity, ...]) -> list[tuple[str, Fraction, Fraction, tuple[str, ...]]]:
    return [(q.dimension, q.factor, q.offset, q.codes) for q in quantities if q.dimension != UNKNOWN]


def mentions_of(text: str, found: list[Numeral], unit: Unit) -> list[Mention]:
    """The numerals of `text` that stand for a number, in order, those of a range with what they share."""
    mentions = [mention for numeral in found if (mention := _mention(text, numeral, unit)) is not None]
    for first in range(len(mentions) - 1):
        if _is_range(text, mentions[first], mentions[first + 1]):
            mentions[first : first + 2] = _shared(mentions[first], mentions[first + 1])
    return mentions


@dataclass(frozen=True, slots=True)
class _Before:
    """What stands before a number. `start`: of its sign or currency.

    `is_opened`: in a parenthesis that may be an accountant's minus; `is_account`: in one that is ("$(1.2)").
    """

    start: int
    is_negative: bool
    money: Quantity | None
    is_opened: bool = False
    is_account: bool = False
    is_glued: bool = False


@dataclass(frozen=True, slots=True)
class _After:
    """What stands behind a number. `end`: behind its magnitude and unit."""

    end: int
    magnitude: int | None
    quantities: tuple[Quantity, ...]
    is_noun: bool
    is_glued: bool


def _mention(text: str, numeral: Numeral, unit: Unit) -> Mention | None:
    before = _before(text, numeral.start)
    if numeral.value is None or before.is_glued or _is_cut(text, numeral.end):
        return None
    is_closed = before.is_opened and text[numeral.end : numeral.end + 1] == ")"
    after = _after(text, numeral.end + is_closed, money=before.money, unit=unit)
    if after.is_glued:
        return None
    is_aside = before.is_opened and not is_closed and text[after.end : after.end + 1] == ")"
    is_negative = before.is_negative != (_BELOW_ZERO.match(text, after.end) is not None)
    value = -numeral.value if is_negative else numeral.value
    quantities = after.quantities
    if not quantities and _says_percent(text, before.start):
        quantities = (Quantity(RATIO),)
    values: tuple[Fraction, ...] = (value,)
    is_account = not is_negative and is_closed and (before.money is None or before.is_account)
    if is_account:
        values = (-value,)
    elif not is_negative and (is_closed or is_aside):
        values = (-value, value)  # "($1.2)" and "(1.2%)" may be negative in a table and an aside in a sentence
    return Mention(
        at=numeral.start,
        start=before.start - (is_account and not before.is_account),
        end=after.end,
        values=values,
        magnitude=after.magnitude,
        quantities=quantities,
        is_scaled=numeral.is_scaled,
        is_noun=after.is_noun,
    )


_BELOW_ZERO = re.compile(r"(?: degrees?)? below zero\b", re.IGNORECASE)
_PERCENT_BEFORE = re.compile(r"(?<![0-9])(?<![0-9] )(?:\bper ?cent|\bpct|%)\)?[:=]? \Z", re.IGNORECASE)


def _says_percent(text: str, start: int) -> bool:
    """Whether "percent", "(%)" or "pct:" stands before a number, and not behind another one."""
    if text[max(0, start - 2) : start - 1] not in ("%", "t", "T", ")", ":", "="):
        return False
    return _PERCENT_BEFORE.search(text, max(0, start - 12), start) is not None


_SIGNS: Final = "-−–+‐‑‒⁻﹣－"
"""Hyphens and dashes that are set for a minus, the non-breaking one among them."""
_BEFORE_SIGN: Final = " ([{\"'“‘«:;=<>~≈|/,*"
_CURRENCY = re.compile(
    r"(?:(?<![^\W_])(?P<letters>[A-Za-z]{1,3}))?(?P<sign>[$€£¥￥₹₩₽₺₴₪₫₱₦฿₿])\Z"
    r"|(?<![^\W_])(?P<code>[A-Za-z][A-Za-złč]{1,3})\.?\Z"
)
_MINUS = re.compile(r"\b(?:minus|negative) \Z", re.IGNORECASE)


def _before(text: str, start: int) -> _Before:
    position, is_negative, is_glued = _sign(text, start)
    money, position = _money_before(text, position)
    if money is not None:
        position, is_outer, is_outer_glued = _sign(text, position)
        is_negative, is_glued = is_negative or is_outer, is_glued or is_outer_glued
    is_opened = text[position - 1 : position] == "("
    is_account = False
    if is_opened:
        outer, outer_start = _money_before(text, position - 1)
        is_account = money is None and outer is not None
        is_opened = is_account or not text[max(0, position - 2) : position - 1].isalnum()
        if is_account:
            money, position = outer, outer_start
    minus = _MINUS.search(text, max(0, position - 10), position) if text[position - 1 : position] == " " else None
    if minus is not None:
        is_negative, position = True, minus.start()
    is_glued = is_glued or (not is_opened and _is_glued(text, position))
    return _Before(position, is_negative, money, is_opened, is_account, is_glued)


def _sign(text: str, position: int) -> tuple[int, bool, bool]:
    """Where the sign directly before `position` starts, whether it is a minus, whether it is part of a longer token."""
    sign, before = text[max(0, position - 1) : position], text[max(0, position - 2) : max(0, position - 1)]
    if not sign or sign not in _SIGNS:
        return position, False, False
    if not before or before in _BEFORE_SIGN:
        return position - 1, sign != "+", False
    if before in "$€£¥" and not text[max(0, position - 3) : position - 2].isdigit():
        return position - 1, sign != "+", False
    is_range = before.isdigit() or before in "%)]°$€£¥"
    return position, False, not is_range


def _money_before(text: str, position: int) -> tuple[Quantity | None, int]:
    """The currency directly before `position`, or one blank before it, and where it starts."""
    end = position - (text[max(0, position - 1) : position] == " ")
    found = _CURRENCY.search(text, max(0, end - 6), end)
    if found is None:
        return None, position
    if found["code"] is not None:
        is_name = found["code"] == "kr" or not found["code"].islower()
        money = _money([found["code"]]) if is_name else None
        return money, position if money is None else found.start()
    if found["letters"] is not None:
        money = _money([found["letters"], found["sign"]])
        if money is not None:
            return money, found.start()
    money = _money([found["sign"]])
    return money, position if money is None else found.start("sign")


def _money(words: list[str]) -> Quantity | None:
    return next((quantity for quantity in known_quantities(words) if quantity.dimension == MONEY), None)


_GLUE: Final = frozenset("_^\\@%.&#)]`" + MASK)
_ODD_NEIGHBOURS: Final = frozenset("–—−…“”‘«»•°€£¥₹")
"""Signs beyond ASCII that may stand between two numbers; any other may pass for a separator of groups."""


def _is_glued(text: str, position: int) -> bool:
    """Whether what stands directly before `position` makes a number there part of something longer."""
    character, before = text[max(0, position - 1) : position], text[max(0, position - 2) : max(0, position - 1)]
    if not character or character == " ":
        return False
    if character.isalnum() or character in _GLUE or unicodedata.category(character)[0] == "M":
        return True
    if character == "/":
        return before in ("", " ", MASK) or before.isalpha()
    if character == ",":
        return before.isalnum()  # in "l,500" a letter passes for a digit
    is_separator = character in "'’" or (not character.isascii() and character not in _ODD_NEIGHBOURS)
    return is_separator and before.isdigit()


def _is_cut(text: str, end: int) -> bool:
    """Whether what stands directly behind a number's digits makes it part of something longer; letters aside."""
    character, behind = text[end : end + 1], text[end + 1 : end + 2]
    if not character or character == " ":
        return False
    if character in "_^\\@`" + MASK or unicodedata.category(character)[0] in "MN":
        return True
    if character in ".,":
        return behind.isalnum()  # "5,０00" and "5,O00" pass for 5000
    is_separator = character in "'’" or (not character.isascii() and character not in _ODD_NEIGHBOURS)
    return is_separator and behind.isdigit()


_TOKEN = re.compile(
    rf"(?:(?<=\b[Mm]io)\.|(?<=\b[Mm]rd)\.|(?<=\b[Mm]ln)\.|(?<=\b[BbMm]n)\.)?(?P<gap>[ \-]?)(?P<word>{WORD.pattern})"
)
"""A word and what parts it from the one before it; the point of "5 Mio. kWh" is part of that."""
_TOKENS_MAX: Final = PHRASE_WORDS_MAX + 2
_SPACED_LETTERS: Final = frozenset(("k", "K", "m", "M", "MM", "B", "cr", "Cr"))
"""Letters that are magnitudes of money behind a blank too."""
_DOUBTFUL_LETTERS: Final = frozenset(("t", "T", "b", "G", "mi", "bi"))
"""Letters of which nobody can say, beside a currency and behind a blank, how many thousands they are."""


def _after(text: str, end: int, *, money: Quantity | None, unit: Unit) -> _After:
    tokens = _tokens(text, end)
    words = [token["word"] for token in tokens]
    magnitude: int | None = None
    used = 0
    while used < 2 and (factor := _magnitude(tokens, words, used, money=money, unit=unit)) is not None:
        magnitude = factor * (magnitude or 1)
        used += 1
    if used < len(words) and _is_doubtful(words[used:], money=money):
        return _After(end, magnitude, (), is_noun=False, is_glued=True)
    quantities, count = _phrase(text, tokens[used:], money=money)
    is_noun = not count and used < len(words) and unit.noun is not None and singular(words[used]) == unit.noun
    is_lost = bool(tokens) and used + count == 0 and not is_noun
    is_glued = is_lost and tokens[0]["gap"] != " " and words[0][0].isalpha()
    core_end = tokens[used + count - 1].end() if used + count else end
    pers = _denominators(text, tokens[used].end() if is_noun else core_end)
    if pers:
        kept = quantities or (Quantity(UNKNOWN),)
        quantities = tuple(replace(quantity, per=quantity.per or per) for quantity in kept for per in pers)
    return _After(core_end, magnitude, quantities, is_noun, is_glued)


def _tokens(text: str, position: int) -> list[re.Match[str]]:
    """The next words, each directly behind the one before it, a blank or a hyphen between them."""
    tokens: list[re.Match[str]] = []
    while len(tokens) < _TOKENS_MAX and (token := _TOKEN.match(text, position)) is not None:
        tokens.append(token)
        position = token.end()
    return tokens


def _magnitude(
    tokens: list[re.Match[str]], words: list[str], used: int, *, money: Quantity | None, unit: Unit
) -> int | None:
    """What the word at `used` multiplies a number by; None where it does not."""
    if used >= len(words):
        return None
    word, is_close = words[used], tokens[used]["gap"] == ""
    factor = magnitude_of(word)
    if factor is not None or used:
        return factor
    factor = MONEY_MAGNITUDES.get(word)
    if factor is None or not (is_close or word in _SPACED_LETTERS):
        return None
    if money is not None or _is_money(words[1:]):
        return factor
    if word in ("k", "K", "M", "B"):
        is_unit = word == "K" and unit.dimension == TEMPERATURE
        return None if is_unit or (word in ("K", "B") and not is_close) else factor
    # "5.3m people" and "1.2m barrels": nobody counts metres there.
    is_count = word == "m" and is_close and len(words) > 1 and tokens[1]["gap"] == " "
    is_of_unit = is_count and (singular(words[1]) == unit.noun or bool(known_quantities(words[1:2])))
    return factor if is_of_unit else None


def _is_doubtful(words: list[str], *, money: Quantity | None) -> bool:
    """Whether the word behind a number multiplies it by what is not known here."""
    is_letter = words[0] in _DOUBTFUL_LETTERS and (money is not None or _is_money(words[1:]))
    return is_letter or is_unclear_magnitude(words[0])


def _is_money(words: list[str]) -> bool:
    return any(_money(words[:count]) is not None for count in range(1, PHRASE_WORDS_MAX))


def _phrase(text: str, tokens: list[re.Match[str]], *, money: Quantity | None) -> tuple[tuple[Quantity, ...], int]:
    """What the next words mean as a unit, and how many words that takes. A currency before the number decides."""
    longest = min(PHRASE_WORDS_MAX, len(tokens)) if tokens and begins_quantity(tokens[0]["word"]) else 0
    for count in range(longest, 0, -1):
        found = known_quantities([token["word"] for token in tokens[:count]])
        if not found or _is_of_next(text, tokens[count - 1].end(), found, money=money):
            continue
        if money is None:
            return found, count
        for quantity in found:
            codes = tuple(code for code in money.codes if code in quantity.codes)
            if codes and quantity.factor == money.factor:
                return (replace(money, codes=codes),), count
    return (() if money is None else (money,)), 0


def _is_of_next(text: str, end: int, found: tuple[Quantity, ...], *, money: Quantity | None) -> bool:
    """Whether a currency is that of the number behind it: "5 $6", "$5 EUR 4"."""
    if found[0].dimension != MONEY:
        return False
    return text[end : end + 1].isdigit() or (money is not None and text[end + 1 : end + 2].isdigit())


_PER = re.compile(r"(?: of(?: [^\W\d_]+){1,2}?)?(?: ?/ ?| per | an? | each | every )")


def _denominators(text: str, position: int) -> tuple[Quantity, ...]:
    """What "per barrel", "/bbl" or "a barrel" at `position` can mean; nothing where no table knows it."""
    per = _PER.match(text, position)
    if per is None:
        return ()
    words = [token["word"] for token in _tokens(text, per.end())]
    for count in range(PHRASE_WORDS_MAX, 0, -1):
        found = known_denominators(words[:count])
        if found:
            return tuple(replace(quantity, per=None) for quantity in found)
    return ()


_RANGE = re.compile(r"[-–—]| to | or |-to-", re.IGNORECASE)


def _is_range(text: str, first: Mention, second: Mention) -> bool:
    gap = text[first.end : second.start]
    if len(gap) > 5:
        return False
    if gap.lower() == " and ":
        return text[max(0, first.start - 8) : first.start].lower() == "between "
    return _RANGE.fullmatch(gap) is not None


def _shared(first: Mention, second: Mention) -> tuple[Mention, Mention]:
    """Both ends of a range: "3 to 4 million", "3-4%", "£3-4"."""
    has_money = any(quantity.dimension == MONEY for quantity in first.quantities)
    if has_money and not second.quantities:
        second = replace(second, quantities=first.quantities)
    if first.magnitude is not None or first.is_scaled or not (has_money or not first.quantities):
        return first, second
    magnitude = second.magnitude if abs(first.values[0]) < _RANGE_SHARES_BELOW else None
    quantities = first.quantities or second.quantities
    if magnitude is None and quantities == first.quantities:
        return first, second
    return replace(first, magnitude=magnitude, quantities=quantities, end=second.end), second
