"""What a number is a number of: units read from free text, and exact conversion between those of one dimension.

Pure; factors are exact `Fraction`s. How numbers are found in a text is `app.oracle.numbers`.
"""

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from typing import Final

MONEY: Final = "money"
RATIO: Final = "ratio"
TEMPERATURE: Final = "temperature"
CALENDAR: Final = "calendar"
"""Months, quarters and years: no exact number of days."""
UNKNOWN: Final = ""
"""The dimension of a noun that no table knows, such as people or shares."""
UNIT_CHARS_MAX: Final = 200
"""Of a unit's text, so much is looked at."""
PHRASE_WORDS_MAX: Final = 4
"""The longest name in the tables, in words."""

WORD: Final = re.compile(r"[^\W\d_º]+(?:[23](?!\w))?|[°º℃℉%％‰$€£¥￥₹₩₽₺₴₪₫₱₦฿₿¢]")
"""A word, or a sign that is a unit by itself. "km²" and "km2" are one word, "°C" and "US$" are two."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A unit that is known. A value x in it is x * factor + offset in the base unit of its dimension.

    `codes`: of money, the currencies that it may mean ("$" may mean several), the likeliest first. `per`: what it is
    counted by ("km/h", "USD per barrel"); of the dimension `UNKNOWN` where that is a noun that no table knows.
    """

    dimension: str
    factor: Fraction = Fraction(1)
    offset: Fraction = Fraction(0)
    codes: tuple[str, ...] = ()
    per: "Quantity | None" = None

    @property
    def is_physical(self) -> bool:
        """Whether leaving "per hour" out makes it another quantity; a price is a price without its "per barrel"."""
        return self.dimension not in (MONEY, RATIO, UNKNOWN, "points", "concentration")


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit in free text, as far as it is understood.

    `magnitude`: 1000 in "thousand employees", else 1. `quantities`: what it can mean, the likeliest first ("ounces"
    may be troy ounces); empty where no table knows it. `noun`: then its first word in lower case and in the singular,
    which tells "734 employees" from a bare 734.
    """

    text: str
    magnitude: int = 1
    quantities: tuple[Quantity, ...] = ()
    noun: str | None = None

    @property
    def dimension(self) -> str:
        """Such as "money", "ratio" (percent), "energy"; `UNKNOWN` for a count of something."""
        return self.quantities[0].dimension if self.quantities else UNKNOWN


MAGNITUDES: Final = {
    "hundred": 100,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "milliard": 10**9,
    "lakh": 10**5,
    "lac": 10**5,
    "crore": 10**7,
    "dozen": 12,
    "mn": 10**6,
    "mln": 10**6,
    "mio": 10**6,
    "bn": 10**9,
    "bln": 10**9,
    "mrd": 10**9,
    "tn": 10**12,
    "trn": 10**12,
}
"""Short scale, as English-language news uses it everywhere. Found in lower case and in the singular."""

_MEASURES: Final = (
    (RATIO, "1", "% | ％ | percent | per cent | pct | percentage | percentage point | pp | ppts | % point | pct point"),
    (RATIO, "1/10", "‰ | per mille | per mil"),
    (RATIO, "1/100", "basis point | bp | bps"),
    ("concentration", "1", "ppm | parts per million | ppmv"),
    ("concentration", "1/1000", "ppb | parts per billion | ppbv"),
    ("points", "1", "point | index point | pt | pts"),
    ("energy", "1", "Wh | watt hour"),
    ("energy", "1000", "kWh | kwh | KWh | KWH | Kwh | kilowatt hour"),
    ("energy", "1000000", "MWh | MWH | Mwh | megawatt hour"),
    ("energy", "1000000000", "GWh | GWH | Gwh | gwh | gigawatt hour"),
    ("energy", "1000000000000", "TWh | TWH | Twh | twh | terawatt hour"),
    ("energy", "1000000000000000", "PWh | petawatt hour"),
    ("energy", "1/1000", "mWh | milliwatt hour"),
    ("energy", "1/3600", "J | joule"),
    ("energy", "1000/3600", "kJ | kilojoule"),
    ("energy", "1000000/3600", "MJ | megajoule"),
    ("energy", "1000000000/3600", "GJ | gigajoule"),
    ("energy", "1000000000000/3600", "TJ | terajoule"),
    ("energy", "1000000000000000/3600", "PJ | petajoule"),
    ("energy", "1000000000000000000/3600", "EJ | exajoule"),
    ("energy", "1055.05585262/3600", "Btu | BTU | British thermal unit"),
    ("energy", "1055055852.62/3600", "MMBtu | MMBTU | mmbtu | mmBtu | million Btu | million British thermal unit"),
    ("power", "1/1000", "mW | milliwatt"),
    ("power", "1", "W | watt"),
    ("power", "1000", "kW | KW | kilowatt"),
    ("power", "1000000", "MW | megawatt"),
    ("power", "1000000000", "GW | gigawatt"),
    ("power", "1000000000000", "TW | terawatt"),
    ("mass", "1/1000", "mg | milligram | milligramme"),
    ("mass", "1", "g | gram | gramme"),
    ("mass", "1000", "kg | KG | Kg | kilo | kilogram | kilogramme"),
    ("mass", "1000000", "t | tonne | metric ton | metric tonne | ton | MT"),
    ("mass", "907184.74", "short ton | ton"),
    ("mass", "1016046.9088", "long ton | ton"),
    ("mass", "1000000000", "kt | kilotonne | kiloton"),
    ("mass", "1000000000000", "Mt | megatonne | megaton"),
    ("mass", "1000000000000000", "Gt | gigatonne | gigaton"),
    ("mass", "453.59237", "lb | lbs | pound"),
    ("mass", "45359.237", "cwt | hundredweight"),
    ("mass", "28.349523125", "oz | ounce"),
    ("mass", "31.1034768", "oz t | ozt | troy oz | troy ounce | fine ounce | oz | ounce"),
    ("length", "1/1000", "mm | millimetre | millimeter"),
    ("length", "1/100", "cm | centimetre | centimeter"),
    ("length", "1", "m | metre | meter"),
    ("length", "1000", "km | KM | Km | kilometre | kilometer"),
    ("length", "0.0254", "inch | inches"),
    ("length", "0.3048", "ft | foot | feet"),
    ("length", "0.9144", "yd | yard"),
    ("length", "1609.344", "mi | mile"),
    ("length", "1852", "nmi | nautical mile"),
    ("area", "1", "m² | m2 | sqm | sq m | square metre | square meter"),
    ("area", "10000", "ha | hectare"),
    ("area", "1000000", "km² | km2 | sq km | square kilometre | square kilometer"),
    ("area", "4046.8564224", "acre"),
    ("area", "2589988.110336", "sq mi | square mile"),
    ("area", "0.09290304", "sq ft | square foot | square feet"),
    ("volume", "1/1000", "ml | mL | millilitre | milliliter"),
    ("volume", "1", "L | litre | liter"),
    ("volume", "1000", "m³ | m3 | cubic metre | cubic meter"),
    ("volume", "1000000000000", "bcm"),
    ("volume", "3.785411784", "gal | gallon | US gallon"),
    ("volume", "4.54609", "imperial gallon"),
    ("volume", "158.987294928", "bbl | bbls | barrel"),
    ("volume", "35.23907016688", "bu | bushel"),
    ("volume", "28.316846592", "cu ft | cubic foot | cubic feet"),
    ("pressure", "1", "Pa | pascal"),
    ("pressure", "100", "hPa | hectopascal | millibar | mbar"),
    ("pressure", "1000", "kPa | kilopascal"),
    ("pressure", "100000", "bar"),
    (TEMPERATURE, "1", "kelvin | K"),
    ("time", "1", "second | sec | secs"),
    ("time", "60", "minute | min | mins"),
    ("time", "3600", "hour | hr | hrs"),
    ("time", "86400", "day"),
    ("time", "604800", "week | wk"),
    (CALENDAR, "1", "month"),
    (CALENDAR, "3", "quarter"),
    (CALENDAR, "12", "year | yr | yrs"),
)
"""Dimension, factor to the base unit, names. One of two letters or less, or with a capital, is taken as it stands."""

_SHORT_PER: Final = {"s": "second", "h": "hour", "d": "day", "wk": "week", "mo": "month", "y": "year", "a": "year"}
"""Names that are units only behind a slash or "per"."""

_CELSIUS: Final = Quantity(TEMPERATURE, Fraction(1), Fraction("273.15"))
_FAHRENHEIT: Final = Quantity(TEMPERATURE, Fraction(5, 9), Fraction("459.67") * Fraction(5, 9))
_SCALES: Final = (
    (_CELSIUS, "°C | ºC | ℃ | C | celsius | centigrade"),
    (_CELSIUS, "degree celsius | degree C | deg C | degree centigrade"),
    (_FAHRENHEIT, "°F | ºF | ℉ | F | fahrenheit | degree fahrenheit | degree F | deg F"),
)
_COMPOUNDS: Final = (
    ("mph", "mile", "hour", 1),
    ("kph", "km", "hour", 1),
    ("kmh", "km", "hour", 1),
    ("knot", "nautical mile", "hour", 1),
    ("kn", "nautical mile", "hour", 1),
    ("bpd", "barrel", "day", 1),
    ("kbpd", "barrel", "day", 10**3),
    ("mbpd", "barrel", "day", 10**6),
    ("mbd", "barrel", "day", 10**6),
)

_DOLLARS: Final = "USD CAD AUD NZD HKD SGD TWD"
_CENTS: Final = "USD EUR CAD AUD NZD HKD SGD ZAR"
_RUPEES: Final = "INR PKR LKR NPR"
_CROWNS: Final = "SEK NOK DKK CZK ISK"
_PESOS: Final = "MXN PHP ARS CLP COP"
_CURRENCIES: Final = (
    ("USD", "US$ | U$ | USD$ | US dollar | American dollar"),
    ("EUR", "€ | euro"),
    ("GBP", "£ | pound | pound sterling | sterling | British pound"),
    ("JPY CNY", "¥ | ￥"),
    ("JPY", "yen | Japanese yen | JP¥"),
    ("CNY", "yuan | renminbi | RMB | Chinese yuan | CN¥"),
    ("CHF", "franc | Swiss franc | Fr | SFr"),
    (_DOLLARS + " MXN ARS CLP COP", "$"),
    (_DOLLARS, "dollar"),
    ("CAD", "C$ | CA$ | CAD$ | Canadian dollar"),
    ("AUD", "A$ | AU$ | AUD$ | Australian dollar"),
    ("NZD", "NZ$ | New Zealand dollar"),
    ("HKD", "HK$ | Hong Kong dollar"),
    ("SGD", "S$ | SG$ | Singapore dollar"),
    ("TWD", "NT$ | Taiwan dollar"),
    ("BRL", "R$ | reais | Brazilian real"),
    ("MXN", "MX$ | Mexican peso"),
    (_PESOS, "peso"),
    ("PHP", "₱"),
    ("INR", "₹ | Indian rupee"),
    (_RUPEES, "Rs | Re | rupee"),
    ("KRW", "₩ | won | Korean won"),
    ("RUB", "₽ | rouble | ruble"),
    ("TRY", "₺ | lira | Turkish lira"),
    ("UAH", "₴ | hryvnia"),
    ("ILS", "₪ | shekel"),
    ("VND", "₫ | dong"),
    ("NGN", "₦ | naira"),
    ("THB", "฿ | baht"),
    ("ZAR", "rand"),
    ("PLN", "zł | zloty | zlotys"),
    ("HUF", "forint"),
    ("SEK", "Swedish krona | Swedish kronor | krona | kronor"),
    ("NOK DKK", "krone | kroner"),
    (_CROWNS, "kr"),
    ("CZK", "Kč | koruna"),
    ("AED", "dirham"),
    ("SAR QAR", "riyal"),
    ("MYR", "ringgit"),
    ("IDR", "rupiah | Rp"),
    ("BTC", "₿ | bitcoin"),
    ("ETH", "ether"),
)
_CODES: Final = (
    "USD EUR GBP JPY CNY CHF CAD AUD NZD HKD SGD TWD BRL MXN INR PKR LKR NPR KRW RUB TRY UAH ILS VND NGN THB ZAR PLN"
    " HUF SEK NOK DKK CZK ISK AED SAR QAR KWD MYR IDR PHP ARS CLP COP PEN EGP KZT RON BGN CNH XAU XAG XDR"
    " BTC ETH USDC USDT"
)
_HUNDREDTHS: Final = (
    (_CENTS, "cent | ¢"),
    ("USD", "US cent | US¢"),
    ("EUR", "euro cent | eurocent"),
    ("GBP", "pence | penny | p | GBp | GBX"),
)


def words_in(text: str) -> list[str]:
    """The words and unit signs of a text, in order."""
    return WORD.findall(text)


def magnitude_of(word: str) -> int | None:
    """1000 for "thousand" and "Thousands"; None where the word is no magnitude."""
    return MAGNITUDES.get(singular(word))


_UNCLEAR_WORDS: Final = (
    "mil mill bil tril tr thou grand mille mila hundert tsd tausend millione millionen millioner millón millone milhão"
    " milhõe milhoe milione milioni miljoen miljon miljoner milion miliony milionów milliarde milliarden milliarder"
    " milliardo miliardo miliardi miliard miliardy miliardów miljard miljarden miljarder mld mldr md mds mdr mia mdkr"
    " bio billione billionen billone billiard billiarde bilhão bilhõe tys tysięcy quadrillion quintillion zillion"
    " млн млрд трлн тыс тысяч тысячи миллион миллиона миллионов миллиард миллиарда миллиардов"
)
"""Thousands and more in other languages and abbreviations, of which some mean different numbers in different places."""
_UNCLEAR: Final = frozenset(_UNCLEAR_WORDS.split())
_UNCLEAR_START: Final = "万萬億亿兆千百만억조천"
_LETTERED_CODE = re.compile(r"([A-Z]{3})(?:k|m|mm|mn|bn|b|tn|t)|(?:[kKTMm]|Mio|Mrd|mn|bn)([A-Z]{3})")


def is_unclear_magnitude(word: str) -> bool:
    """Whether a word multiplies a number by what is not said for sure: "mil", "Mds", "TEUR", "USDm", "万円"."""
    if singular(word) in _UNCLEAR or word[0] in _UNCLEAR_START:
        return True
    found = _LETTERED_CODE.fullmatch(word)
    return found is not None and any(
        quantity.dimension == MONEY for quantity in known_quantities([found[1] or found[2]])
    )


def begins_quantity(word: str) -> bool:
    """Whether any unit's name begins with this word: spares looking for phrases after most words."""
    tables = _tables()
    return word in tables.heads or singular(word) in tables.heads


def known_quantities(words: list[str]) -> tuple[Quantity, ...]:
    """What a phrase of these words can mean as a unit: nothing, or several things ("pound", "ton", "$")."""
    tables = _tables()
    return tables.exact.get(" ".join(words)) or tables.lower.get(_folded(words)) or ()


def known_denominators(words: list[str]) -> tuple[Quantity, ...]:
    """The same behind "per" or a slash, where a few more abbreviations mean something."""
    return known_quantities([_SHORT_PER.get(word, word) for word in words])


def singular(word: str) -> str:
    """In lower case and without a plural's s, to compare words by."""
    lowered = word.lower()
    return lowered[:-1] if len(lowered) > 3 and lowered.endswith("s") else lowered


def _folded(words: list[str]) -> str:
    return " ".join(map(singular, words))


def is_same_currency(found: Quantity, wanted: Quantity) -> bool:
    """Whether what was found may mean the wanted currency; true of everything but money."""
    return found.dimension != MONEY or not set(found.codes).isdisjoint(wanted.codes)


def in_unit(value: Fraction, found: Quantity | None, wanted: Quantity | None) -> Fraction | None:
    """`value`, which stands in `found`, as a value in `wanted`; None where it is no such thing.

    Exact. `found` is None for a number without a unit: it counts as it is, but for percentages, which must say so.
    """
    dimension = UNKNOWN if found is None else found.dimension
    if wanted is None:
        return value if dimension == UNKNOWN else None
    denominators = _denominators(found, wanted)
    if denominators is None:
        return None
    if dimension == UNKNOWN or found is None:
        return None if wanted.dimension == RATIO else value * denominators
    if dimension != wanted.dimension or not is_same_currency(found, wanted):
        return None
    return (value * found.factor + found.offset - wanted.offset) / wanted.factor * denominators


def _denominators(found: Quantity | None, wanted: Quantity) -> Fraction | None:
    """What a value is multiplied by for its "per ..." to become the wanted one; None where they do not go together."""
    ours = None if found is None else found.per
    is_physical = found is not None and found.is_physical
    if ours is None:
        return None if wanted.per is not None and is_physical else Fraction(1)
    if wanted.per is None:
        return None if is_physical and ours.dimension != CALENDAR else Fraction(1)
    if ours.dimension == UNKNOWN:
        return Fraction(1)
    if ours.dimension != wanted.per.dimension:
        return None
    return wanted.per.factor / ours.factor


@cache
def parse_unit(text: str) -> Unit:
    """The unit that a text such as "USD per barrel", "thousand employees", "% of GDP", "°C" or "GWh" names.

    Never fails: what no table knows is a count of something, of which every number without a known unit may be one.
    """
    head, tail = _parted(text[:UNIT_CHARS_MAX].replace("U.S.", "US"))
    head, thousands = _THOUSANDS.subn(" ", head)
    magnitude, words = _magnitude_out_of(words_in(head))
    magnitude *= 1000**thousands
    quantities, position = _first_known(words)
    if not quantities:
        quantities = () if tail is None else (Quantity(UNKNOWN),)
        noun = next((singular(word) for word in words if len(word) > 2), None)
    else:
        noun = None
        if any(quantity.dimension == MONEY for quantity in quantities):
            magnitude *= _money_magnitude(words[position:])
    pers = (None,) if tail is None else _known_per(tail)
    return Unit(text, magnitude, tuple(_narrowed(quantity, per) for quantity in quantities for per in pers), noun)


def _narrowed(quantity: Quantity, per: Quantity | None) -> Quantity:
    """Of a unit's currencies ("$" may be several) the likeliest alone."""
    return replace(quantity, codes=quantity.codes[:1], per=quantity.per if per is None else per)


_PER = re.compile(r"\s*/\s*|(?<!parts)\s+per\s+(?!(?:cent|mil|mille)\b)|\s+(?:an?|each|every)\s+", re.IGNORECASE)
_THOUSANDS = re.compile(r"(?<![\w.,])(?:1[,. ]?|['’])?000(?:'?s)?(?![\w.,])")
"""A magnitude in digits: "1,000 people", "'000 barrels", "employees (000s)"."""
_BARRELS = re.compile(r"\b([mk]?)b/d\b", re.IGNORECASE)


def spelled_out(text: str) -> str:
    """`text` with the one abbreviation that holds a slash, "mb/d" for barrels a day, as a word."""
    return _BARRELS.sub(r"\1bpd", text) if "/" in text else text


def _parted(text: str) -> tuple[str, str | None]:
    parts = _PER.split(spelled_out(text), maxsplit=1)
    return parts[0], parts[1] if len(parts) > 1 else None


def _magnitude_out_of(words: list[str]) -> tuple[int, list[str]]:
    magnitude = 1
    rest: list[str] = []
    for position, word in enumerate(words):
        factor = magnitude_of(word)
        # "million Btu" and "parts per million" are names of their own.
        if factor is None or known_quantities(words[position : position + 2]) or word.lower() in _last_words(rest):
            rest.append(word)
        else:
            magnitude *= factor
    return magnitude, rest


def _last_words(words: list[str]) -> tuple[str, ...]:
    return ("million", "billion") if [word.lower() for word in words[-2:]] == ["parts", "per"] else ()


def _money_magnitude(words: list[str]) -> int:
    """Of a currency with a letter behind it: "EUR m", "$bn" (that one is a magnitude anywhere)."""
    return next((MONEY_MAGNITUDES[word] for word in words[1:] if word in MONEY_MAGNITUDES), 1)


MONEY_MAGNITUDES: Final = {
    "m": 10**6,
    "M": 10**6,
    "mm": 10**6,
    "MM": 10**6,
    "b": 10**9,
    "B": 10**9,
    "t": 10**12,
    "T": 10**12,
    "k": 10**3,
    "K": 10**3,
    "cr": 10**7,
    "Cr": 10**7,
}
"""Letters that are magnitudes beside a currency and units elsewhere."""


def _first_known(words: list[str]) -> tuple[tuple[Quantity, ...], int]:
    """What the first words that a table knows can mean, and where they stand."""
    for start in range(len(words)):
        for count in range(PHRASE_WORDS_MAX, 0, -1):
            found = known_quantities(words[start : start + count])
            if found:
                return found, start
    return (), 0


def _known_per(text: str) -> tuple[Quantity, ...]:
    words = words_in(text)
    for start in range(len(words)):
        for count in range(PHRASE_WORDS_MAX, 0, -1):
            found = known_denominators(words[start : start + count])
            if found:
                return tuple(replace(quantity, per=None) for quantity in found)
    return (Quantity(UNKNOWN),)


@dataclass(frozen=True, slots=True)
class _Tables:
    """Names as they must stand, names of which the case does not matter, and the first words of both."""

    exact: dict[str, tuple[Quantity, ...]]
    lower: dict[str, tuple[Quantity, ...]]
    heads: set[str]

    def add(self, names: str, quantity: Quantity) -> None:
        """`names` parted by bars, each by its words."""
        for name in names.split("|"):
            words = words_in(name)
            key = " ".join(words)
            is_phrase = sum(word.isalpha() for word in words) > 1
            is_exact = not is_phrase and (len(key) <= 2 or (len(words[0]) <= 5 and key != key.lower()))
            table, key = (self.exact, key) if is_exact else (self.lower, _folded(words))
            table[key] = (*table.get(key, ()), quantity)


@cache
def _tables() -> _Tables:
    tables = _Tables({}, {}, set())
    for dimension, factor, names in _MEASURES:
        numerator, _, denominator = factor.partition("/")
        tables.add(names, Quantity(dimension, Fraction(numerator) / Fraction(denominator or "1")))
    for scale, names in _SCALES:
        tables.add(names, scale)
    for codes, names in _CURRENCIES:
        tables.add(names, Quantity(MONEY, codes=tuple(codes.split())))
    for code in _CODES.split():
        tables.exact[code] = (Quantity(MONEY, codes=(code,)),)
    for codes, names in _HUNDREDTHS:
        tables.add(names, Quantity(MONEY, Fraction(1, 100), codes=tuple(codes.split())))
    for name, of, per, times in _COMPOUNDS:
        base = tables.exact.get(of) or tables.lower[_folded(of.split())]
        below = tables.lower[per][0]
        tables.add(name, replace(base[0], factor=base[0].factor * times, per=below))
    tables.heads.update(name.partition(" ")[0] for table in (tables.exact, tables.lower) for name in table)
    return tables
