"""Which month it is in the stand-in's world, and the real figures that are known there by then. Pure.

The world's months pass one by one along the bundled series of US mining and logging payrolls, from the first to the
last, back again, and so on. They follow the clock alone, so that every process agrees without being told.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import cache
from typing import Final

from app.oracle.series import Series, load_series

SERIES: Final = ("us-employment", "mining_and_logging")
MONTH_SECONDS: Final = 90
"""Of the clock. A month in ten seconds, as feeds are replayed, would move the price by far more in a day than any cap
on the moves of search readings lets through."""
BEGAN: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""When the first month began. Any moment would do."""
EARLIER_MAX: Final = 5
"""Months before the latest one that pages tell of."""
YEAR: Final = 12
REPLAYS: Final = 1_000
"""Numbers for the ways through the series. Three digits are never a bad answer's four."""
NAMES: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figure:
    """A month's employees, in thousands."""

    year: int
    month: int
    thousands: int

    @property
    def when(self) -> str:
        """The month as people write it, such as "March 2011"."""
        return f"{NAMES[self.month - 1]} {self.year}"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known in the world: the latest month, the ones before it from the last on, and the same month a year ago
    (None in the first year). `replay` numbers the way through the series, forth or back."""

    latest: Figure
    earlier: tuple[Figure, ...]
    year_ago: Figure | None
    replay: int


def month_at(at: datetime, *, speed: Fraction = Fraction(1)) -> int:
    """The index of the world's latest month at `at`, 0 for the series' first; `speed` times as fast as usual."""
    months = len(_figures())
    passed = _passed(at, speed=speed) % (2 * (months - 1))
    return passed if passed < months else 2 * (months - 1) - passed


def replay_at(at: datetime, *, speed: Fraction = Fraction(1)) -> int:
    """The number of the way through the series at `at`, forth or back, from 0 on; after 999 comes 0."""
    return _passed(at, speed=speed) // (len(_figures()) - 1) % REPLAYS


def _passed(at: datetime, *, speed: Fraction) -> int:
    """Months since the first one began."""
    gone = (at - BEGAN) / timedelta(microseconds=1)
    return int(Fraction(int(gone), 10**6 * MONTH_SECONDS) * speed)


def known_at(at: datetime, *, speed: Fraction = Fraction(1)) -> Known:
    """What is known at `at`."""
    figures, index = _figures(), month_at(at, speed=speed)
    return Known(
        latest=figures[index],
        earlier=tuple(reversed(figures[max(index - EARLIER_MAX, 0) : index])),
        year_ago=figures[index - YEAR] if index >= YEAR else None,
        replay=replay_at(at, speed=speed),
    )


@cache
def _figures() -> tuple[Figure, ...]:
    series: Series = load_series(*SERIES)
    moments = [series.began + timedelta(milliseconds=time_ms) for time_ms in series.times_ms]
    return tuple(
        Figure(moment.year, moment.month, int(value)) for moment, value in zip(moments, series.points(), strict=True)
    )
