"""The bundled real series, exactly: points in time, linear interpolation between them, and their mapping to prices.

Pure but for reading the bundled files once. Values are integers scaled by their decimals or `Fraction`s, positions are
integer milliseconds since a series began; there is no float, no clock and no database here.
"""

import csv
from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from functools import cache, cached_property
from importlib.resources import files
from itertools import pairwise
from typing import Final

from app.money import PRICE_MAX, PRICE_MIN, PRICE_UNIT, div_half_even, is_decimal_text, price_text


class UnknownSeries(LookupError):  # noqa: N818 - names what is missing
    """No bundled series or column has that name; the message lists those that exist."""


class OutOfRange(ValueError):  # noqa: N818 - an outcome of the mapping
    """A value maps to a price outside of 0.000001 to 10^9. Never clamped."""


DAILY_SPEED: Final = 8_640
"""Milliseconds of the series in one of real time: a day in 10 s, a year in about an hour. Any faster, and nobody could
trade the next day before it is over."""
MONTHLY_SPEED: Final = 262_800
"""A month in about 10 s: ten years in about 20 minutes."""
YEARLY_SPEED: Final = 350_640
"""A year in 90 s: sixteen years in about 24 minutes."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a file is laid out, and how fast it is replayed. `pivot`: the column that names the series, and the column of
    values."""

    time_column: str
    time_format: str
    speed: int
    pivot: tuple[str, str] | None = None


LAYOUTS: Final = {
    "seattle-weather": _Layout("date", "%Y/%m/%d", DAILY_SPEED),
    "us-employment": _Layout("month", "%Y-%m-%d", MONTHLY_SPEED),
    "iowa-electricity": _Layout("year", "%Y-%m-%d", YEARLY_SPEED, pivot=("source", "net_generation")),
}


def natural_speed(name: str) -> int:
    """By how much faster than life the series of a file are usually replayed. Raises `UnknownSeries`."""
    return _layout(name).speed


def _layout(name: str) -> _Layout:
    layout = LAYOUTS.get(name)
    if layout is None:
        raise UnknownSeries(f"there is no bundled series {name!r}: choose one of {', '.join(LAYOUTS)}")
    return layout


@dataclass(frozen=True)
class Series:
    """One column of a bundled file. `times_ms` since the first point, ascending from 0; values times 10^decimals."""

    name: str
    column: str
    began: datetime
    times_ms: tuple[int, ...]
    values: tuple[int, ...]
    decimals: int

    @cached_property
    def span_ms(self) -> int:
        """From the first point to the last."""
        return self.times_ms[-1]

    @cached_property
    def period_ms(self) -> int:
        """Once to the end and back: positions repeat after it."""
        return 2 * self.span_ms

    def time_at(self, position_ms: int) -> int:
        """The series' own time, 0 to `span_ms`, at a replay position: forth, then back, and so on (a triangle wave).

        `position_ms` is the replayed time since the start, 0 or more.
        """
        if position_ms < 0:
            raise ValueError(f"a replay position is never negative; got {position_ms}")
        within = position_ms % self.period_ms
        return within if within <= self.span_ms else self.period_ms - within

    def value_at(self, position_ms: int) -> Fraction:
        """The value at a replay position, on the straight line between the two points around it, exactly."""
        time_ms = self.time_at(position_ms)
        left, right = self._around(time_ms)
        before, after = self.values[left], self.values[right]
        gone, step = time_ms - self.times_ms[left], self.times_ms[right] - self.times_ms[left]
        return Fraction(before * step + (after - before) * gone, step * 10**self.decimals)

    def points_around(self, position_ms: int) -> tuple[tuple[int, Fraction], tuple[int, Fraction]]:
        """The two published points around a replay position, each its time since the series began and its value."""
        left, right = self._around(self.time_at(position_ms))
        unit = 10**self.decimals
        return (
            (self.times_ms[left], Fraction(self.values[left], unit)),
            (self.times_ms[right], Fraction(self.values[right], unit)),
        )

    def _around(self, time_ms: int) -> tuple[int, int]:
        right = min(bisect_right(self.times_ms, time_ms), len(self.times_ms) - 1)
        return right - 1, right

    def points(self) -> list[Fraction]:
        """The published values, in order."""
        return [Fraction(value, 10**self.decimals) for value in self.values]


@dataclass(frozen=True, slots=True)
class Mapping:
    """price = value * scale + offset, exactly, and rounded half-even to 10^-12 once."""

    scale: Fraction
    offset: Fraction

    @classmethod
    def parse(cls, *, scale: str, offset: str) -> "Mapping":
        """From decimal texts such as "0.02" and "-220". Raises ValueError that quotes any other text."""
        for name, text in (("scale", scale), ("offset", offset)):
            if not is_decimal_text(text):
                raise ValueError(f'the {name} of a series must be a plain decimal such as "0.5"; got {text[:40]!r}')
        return cls(Fraction(scale), Fraction(offset))

    def price(self, value: Fraction) -> int:
        """The price in 10^-12. Raises `OutOfRange` below 0.000001 or above 10^9."""
        exact = (value * self.scale + self.offset) * PRICE_UNIT
        price = div_half_even(exact.numerator, exact.denominator)
        if not PRICE_MIN <= price <= PRICE_MAX:
            raise OutOfRange(
                f"the value {value} maps to the price {price_text(price)}, outside of 0.000001 to 1000000000:"
                " choose another scale or offset"
            )
        return price

    def prices(self, series: Series) -> list[int]:
        """The price of every published point; those in between lie between their neighbours'."""
        return [self.price(value) for value in series.points()]


@cache
def load_series(name: str, column: str) -> Series:
    """The bundled series `name` (a file without its ending), one `column` of it (for a pivoted file: one source).

    Raises `UnknownSeries` when there is none, ValueError when the file is not what it should be.
    """
    layout = _layout(name)
    rows = _rows(name)
    cells = _column(rows, layout=layout, name=name, column=column)
    times = [datetime.strptime(time, layout.time_format).replace(tzinfo=UTC) for time, _ in cells]
    times_ms = tuple((time - times[0]) // _MILLISECOND for time in times)
    if len(times) < 2 or any(later <= earlier for earlier, later in pairwise(times_ms)):
        raise ValueError(f"{name} {column}: a series needs two points or more, each later than the one before")
    for time, text in cells:
        if not is_decimal_text(text):
            raise ValueError(f"{name} {column}: the value at {time} is no decimal: {text[:40]!r}")
    decimals = max(len(text.partition(".")[2]) for _, text in cells)
    values = tuple(_scaled(text, decimals) for _, text in cells)
    return Series(name, column, times[0], times_ms, values, decimals)


_MILLISECOND: Final = datetime.resolution * 1000


@cache
def _rows(name: str) -> tuple[dict[str, str], ...]:
    text = (files("app.oracle") / "data" / f"{name}.csv").read_text(encoding="ascii")
    return tuple(csv.DictReader(text.splitlines()))


def _column(rows: tuple[dict[str, str], ...], *, layout: _Layout, name: str, column: str) -> list[tuple[str, str]]:
    """The column's cells with their times, in the file's order."""
    if layout.pivot is None:
        known = [key for key, cell in rows[0].items() if key != layout.time_column and is_decimal_text(cell)]
        cells = [(row[layout.time_column], row[column]) for row in rows] if column in known else []
    else:
        by, values = layout.pivot
        known = sorted({row[by] for row in rows})
        cells = [(row[layout.time_column], row[values]) for row in rows if row[by] == column]
    if not cells:
        raise UnknownSeries(f"{name} has no column {column!r}: choose one of {', '.join(known)}")
    return cells


def _scaled(text: str, decimals: int) -> int:
    whole, _, fraction = text.partition(".")
    return int(whole + fraction.ljust(decimals, "0"))
