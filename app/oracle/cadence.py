"""How often an asset's oracle runs, and when exactly. Pure: the clock, the volume and the budgets come in.

    a       = vol / (vol + V0), 0 for an asset that nobody trades, towards 1 for a busy one
    cadence = 900 - 600*a seconds for searches, half-even; a feed's own otherwise; an admin's wish always
    stretch = by how much searches are slowed down so that what is left of the day's budgets lasts until UTC midnight

Nobody runs on the stroke: what follows a first or a late run lies within half a cadence to one, each other run up to
5 % off it, both by a hash, so that any two computations agree and assets that met part again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from hashlib import blake2b
from typing import Final

from app.money import div_half_even
from app.oracle.configuration import SEARCH_CADENCE_SECONDS, Configuration, SearchConfiguration, base_cadence
from app.pricing.model import VOLUME_SCALE

CADENCE_SECONDS_MAX: Final = 86_400
FRESH_CADENCES: Final = 3
"""A reading counts as fresh for so many cadences."""
FRESH_SECONDS_MIN: Final = 30
JITTER: Final = Fraction(1, 20)
"""Of the cadence, to either side."""
BACK_OFF_MAX: Final = 8
"""Cadences between attempts, at most, where runs keep failing."""
FEED_BACK_OFF_SECONDS_MAX: Final = 900
SEARCH_BACK_OFF_SECONDS_MAX: Final = 3_600
_HASH_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Demand:
    """What one search asset asks of the providers: requests of each in one run, and its cadence (seconds) where budgets
    play no part: an admin's wish too is stretched where the budget does not suffice."""

    requests: Mapping[str, int]
    cadence_seconds: int


def search_cadence(*, recent_volume: int, volume_scale: int) -> int:
    """Seconds between the searches of an asset: 900 where nothing is traded, towards 300 with its activity, half-even.

    `recent_volume` in 10^-12, brought up to now; `volume_scale` (V0) in 10^-6, at least 1.
    """
    busy, quiet = SEARCH_CADENCE_SECONDS
    whole = recent_volume + volume_scale * VOLUME_SCALE
    return div_half_even(quiet * whole - (quiet - busy) * recent_volume, whole)


def own_cadence(
    *, configuration: Configuration, base_cadence_seconds: int | None, recent_volume: int, volume_scale: int
) -> int:
    """The cadence of an asset where budgets play no part: an admin's wish, else what suits its sources and activity."""
    if base_cadence_seconds is not None:
        return base_cadence_seconds
    if isinstance(configuration, SearchConfiguration):
        return search_cadence(recent_volume=recent_volume, volume_scale=volume_scale)
    return base_cadence(configuration)


def stretch(*, seconds_left: int, left: Mapping[str, int], demands: Iterable[Demand]) -> Fraction | None:
    """By what the cadences of searches are multiplied, 1 or more; None where nothing is left for them today.

    `left`: requests of each provider until UTC midnight, which is `seconds_left` away; who is not in it has no limit.
    """
    factor = Fraction(1)
    every = list(demands)
    for provider, requests in left.items():
        asked = _asked(provider, every, seconds_left)
        if asked and requests <= 0:
            return None
        if asked:
            factor = max(factor, asked / requests)
    return factor


def _asked(provider: str, demands: Iterable[Demand], seconds: int) -> Fraction:
    """Requests of a provider within so many seconds."""
    return sum(
        (Fraction(each.requests.get(provider, 0) * seconds, each.cadence_seconds) for each in demands), Fraction()
    )


def stretched(*, cadence_seconds: int, factor: Fraction | None, seconds_left: int) -> int:
    """A search's cadence, stretched (rounded up), but never so far that it would miss the next day's budget.

    `factor` as `stretch` answers it.
    """
    limit = min(cadence_seconds + seconds_left, CADENCE_SECONDS_MAX)
    if factor is None:
        return max(limit, cadence_seconds)
    return max(cadence_seconds, min(-(-cadence_seconds * factor.numerator // factor.denominator), limit))


def fresh_seconds(*, cadence_seconds: int) -> int:
    """For how long a reading counts as fresh."""
    return max(FRESH_CADENCES * cadence_seconds, FRESH_SECONDS_MIN)


def spread_due_ms(*, asset_id: int, cadence_seconds: int) -> int:
    """Milliseconds from the beginning of an asset's first or a late run to the next: half a cadence to one, by the
    asset. Many may have begun together then, after their configuration or a stop, and should not stay together."""
    return int(cadence_seconds * 1_000 * (1 + _share(f"spread:{asset_id}")) / 2)


def next_due_ms(*, asset_id: int, run_id: int, cadence_seconds: int) -> int:
    """Milliseconds from the beginning of run `run_id` to the next: the cadence, up to 5 % off it."""
    off = JITTER * (2 * _share(f"next:{asset_id}:{run_id}") - 1)
    return int(cadence_seconds * 1_000 * (1 + off))


def back_off_seconds(*, cadence_seconds: int, failures: int, is_search: bool) -> int:
    """Seconds until the next attempt after `failures` (1 or more) failed runs on end.

    The cadence, doubled with each failure up to eight of them, and at most 900 s for feeds and an hour for searches.
    """
    doubled = cadence_seconds * min(1 << min(failures - 1, BACK_OFF_MAX), BACK_OFF_MAX)
    return min(doubled, SEARCH_BACK_OFF_SECONDS_MAX if is_search else FEED_BACK_OFF_SECONDS_MAX)


def seconds_to_midnight(at: datetime) -> int:
    """Whole seconds until the UTC day of `at` (aware, in UTC) ends, 1 at least."""
    midnight = (at + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return -(-(midnight - at) // timedelta(seconds=1))


def _share(key: str) -> Fraction:
    """A number from 0 to below 1 that depends on `key` alone."""
    digest = blake2b(key.encode(), digest_size=_HASH_BYTES).digest()
    return Fraction(int.from_bytes(digest, "big"), 1 << (8 * _HASH_BYTES))
