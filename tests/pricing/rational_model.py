"""The exact model that the price model is held against: rationals throughout, written from the definitions alone.

Quantities are `Fraction`s of whole units (currency, price, seconds), never base units. The power of two comes from
decimal arithmetic of 90 digits. Where the definitions allow the volume an error, the model carries the least and the
greatest volume allowed, and answers with what lies between. Nothing of `app` is imported here, and nothing may be: two
copies of one mistake prove nothing.
"""

from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from fractions import Fraction

PRICE = Fraction(1, 10**12)
WEIGHT = Fraction(1, 10**9)
VOLUME = Fraction(1, 10**12)
DECAY_ERROR = Fraction(1, 2**60)
"""Relative, beside half a unit: what the power of two may cost."""
_NOTHING_LEFT = 1_000
"""Halvings after which nothing of any volume is left."""


def nearest(value: Fraction, step: Fraction) -> Fraction:
    """The multiple of `step` nearest to `value`, ties to the even multiple."""
    return round(value / step) * step


def halved(exponent: Fraction) -> Fraction:
    """2^-exponent, to 80 places of itself."""
    if exponent > _NOTHING_LEFT:
        return Fraction(0)
    with localcontext() as context:
        context.prec = 90
        return Fraction(Decimal(2) ** -(Decimal(exponent.numerator) / Decimal(exponent.denominator)))


@dataclass(frozen=True)
class Between:
    """A closed range of rationals."""

    low: Fraction
    high: Fraction

    def holds(self, value: Fraction) -> bool:
        """Whether `value` lies in it."""
        return self.low <= value <= self.high


def weight_of(volume: Fraction, scale: Fraction) -> Fraction:
    """clamp(0.5 + 0.5*vol/(vol+V0), 0.2, 0.95), to the nearest 10^-9."""
    weight = Fraction(1, 2) + volume / (volume + scale) / 2
    return nearest(min(max(weight, Fraction(1, 5)), Fraction(19, 20)), WEIGHT)


def display_of(weight: Fraction, market: Fraction, fundamental: Fraction) -> Fraction:
    """w*M + (1-w)*F, to the nearest 10^-12."""
    return nearest(weight * market + (1 - weight) * fundamental, PRICE)


@dataclass
class RationalAsset:
    """An asset's prices, event by event. Moments in seconds, never decreasing."""

    base_price: Fraction
    fundamental_weight: Fraction
    volume_scale: Fraction
    half_life: Fraction
    market: Fraction = field(init=False)
    fundamental: Fraction = field(init=False)
    volume: Between = field(init=False, default_factory=lambda: Between(Fraction(0), Fraction(0)))
    volume_at: Fraction = field(init=False, default=Fraction(0))
    promise: tuple[Fraction, Fraction] | None = field(init=False, default=None)
    """Until when F is fresh, and the cadence; None before the first reading."""

    def __post_init__(self) -> None:
        """Neither trades nor readings."""
        self.market = self.fundamental = self.base_price

    def trade(self, at: Fraction, gross: Fraction, market: Fraction) -> None:
        """A trade of `gross` has left M there."""
        before = self.volume_then(at)
        self.volume, self.volume_at, self.market = Between(before.low + gross, before.high + gross), at, market

    def reading(self, at: Fraction, value: Fraction, cadence: Fraction, fresh: Fraction) -> None:
        """A reading enters the average."""
        b = self.fundamental_weight
        self.fundamental = nearest(b * value + (1 - b) * self.fundamental, PRICE)
        self.promise = (at + fresh, cadence)

    def override(self, at: Fraction, value: Fraction, cadence: Fraction, fresh: Fraction) -> None:
        """F is set."""
        self.fundamental, self.promise = value, (at + fresh, cadence)

    def refresh(self, at: Fraction, cadence: Fraction, fresh: Fraction) -> None:
        """F is confirmed, if there is any."""
        if self.promise is not None:
            self.promise = (at + fresh, cadence)

    def volume_then(self, at: Fraction) -> Between:
        """The recent volume at a moment, with the error that one bringing up to date may have."""
        left = halved((at - self.volume_at) / self.half_life)
        off = VOLUME / 2 if at > self.volume_at else Fraction(0)
        return Between(
            max(self.volume.low * left * (1 - DECAY_ERROR) - off, Fraction(0)),
            self.volume.high * left * (1 + DECAY_ERROR) + off,
        )

    def is_stale(self, at: Fraction) -> bool:
        """Whether F has outlived its promise."""
        return self.promise is not None and at > self.promise[0]

    def weight(self, at: Fraction) -> Between:
        """w at a moment: 1 before the first reading, risen towards 1 while F is stale."""
        if self.promise is None:
            return Between(Fraction(1), Fraction(1))
        volume = self.volume_then(at)
        return Between(
            *(self._raised(weight_of(v, self.volume_scale), at, self.promise) for v in (volume.low, volume.high))
        )

    def display(self, at: Fraction) -> Between:
        """D at a moment."""
        weight = self.weight(at)
        ends = sorted(display_of(w, self.market, self.fundamental) for w in (weight.low, weight.high))
        return Between(*ends)

    def _raised(self, weight: Fraction, at: Fraction, promise: tuple[Fraction, Fraction]) -> Fraction:
        fresh_until, cadence = promise
        share = min(max((at - fresh_until) / cadence, Fraction(0)), Fraction(1))
        return nearest(weight + (1 - weight) * share, WEIGHT)
