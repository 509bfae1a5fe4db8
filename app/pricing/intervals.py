"""How long candles last, and of which price they are. Pure."""

from enum import StrEnum
from typing import Final


class Interval(StrEnum):
    """How long a candle lasts."""

    S1 = "S1"
    M1 = "M1"
    M5 = "M5"
    M15 = "M15"
    H1 = "H1"
    H4 = "H4"
    D1 = "D1"

    @property
    def seconds(self) -> int:
        """Its length in seconds; buckets begin at multiples of it since 1970, in UTC."""
        return _SECONDS[self]


class PriceKind(StrEnum):
    """Which price a candle is made of: D or M."""

    DISPLAY = "DISPLAY"
    MARKET = "MARKET"


_SECONDS: Final = {
    Interval.S1: 1,
    Interval.M1: 60,
    Interval.M5: 300,
    Interval.M15: 900,
    Interval.H1: 3_600,
    Interval.H4: 14_400,
    Interval.D1: 86_400,
}


def buckets(interval: Interval, since: int, to: int) -> int:
    """How many candles of `interval` may begin in [since, to); seconds since 1970."""
    return max(0, -(-to // interval.seconds) - -(-since // interval.seconds))
