"""The price model, exactly: the average F, the recent volume, the weight of M, the displayed price D. Pure integers.

Units: prices (M, F, D, P0) in 10^-12, weights in 10^-9, the recent volume in 10^-12 of the quote currency, gross and
the volume scale V0 in 10^-6, moments in microseconds since 1970. Time is the event's, never the clock's.

    F_t = b*new + (1-b)*F_(t-1), half-even for every reading; before the first one F = P0
    vol = vol * 2^(-elapsed / half-life), half-even, brought up to a trade's time before its gross is added
    w   = clamp(0.5 + 0.5*vol/(vol+V0), 0.2, 0.95), half-even; 1 before the first reading
    w rises to 1 in a straight line over one cadence once F is stale, half-even
    D   = w*M + (1-w)*F, half-even

The power of two: elapsed / half-life = n + f. f is cut after `FRACTION_BITS` binary places and 2^-f multiplied together
from `DIGITS` tables, one for each digit of `DIGIT_BITS` bits, that integer square roots make: 2^(-2^-i) is the root of
2^(-2^-(i-1)). The entries have `TABLE_BITS` binary places. Cutting f costs a relative ln(2)*2^-60, the tables and the
products together less than 2^-86. Hence

    |vol computed - vol exact| <= 0.5 + vol exact * `DECAY_ERROR` (units of 10^-12).
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from math import isqrt
from typing import Final, NamedTuple

from app.money import RATE_UNIT, div_half_even

WEIGHT_MIN: Final = RATE_UNIT // 5
WEIGHT_MAX: Final = RATE_UNIT * 95 // 100
VOLUME_SCALE: Final = 10**6
"""Units of recent volume (10^-12) in a unit of money (10^-6)."""
SECOND: Final = 10**6
"""Microseconds."""

DIGIT_BITS: Final = 10
DIGITS: Final = 6
FRACTION_BITS: Final = DIGITS * DIGIT_BITS
TABLE_BITS: Final = 96
DECAY_ERROR: Final = Fraction(1, 2**FRACTION_BITS)
"""Relative, of `decayed`, before the rounding to a whole unit."""
_HALVINGS_MAX: Final = 256
"""More leave nothing of any volume that a column of 38 digits holds."""


def _tables() -> list[list[int]]:
    """For each digit of f, from the most significant, 2^-(d * 2^-(its last place)) of every d, in 2^-TABLE_BITS."""
    roots = [1 << (TABLE_BITS - 1)]
    for _ in range(FRACTION_BITS):
        roots.append(isqrt(roots[-1] << TABLE_BITS))
    tables = []
    for digit in range(DIGITS):
        powers = [1 << TABLE_BITS]
        for bit in range(DIGIT_BITS):
            root = roots[(digit + 1) * DIGIT_BITS - bit]
            powers += [power * root >> TABLE_BITS for power in powers]
        tables.append(powers)
    return tables


_T0, _T1, _T2, _T3, _T4, _T5 = _tables()
_MASK: Final = (1 << DIGIT_BITS) - 1


@dataclass(frozen=True, slots=True)
class Parameters:
    """An asset's own: P0 in 10^-12, b in 10^-9, V0 in 10^-6 (at least 1), the half-life in seconds (at least 1)."""

    base_price: int
    fundamental_weight: int
    volume_scale: int
    half_life_seconds: int


@dataclass(frozen=True, slots=True)
class ModelState:
    """What an asset's prices are computed from.

    `market` and `supply` (10^-9) are as the last trade left them. `fundamental` counts once there is a reading: until
    then `reading_at` is None and F is P0. F is fresh until `reading_at` + `fresh_seconds`.
    """

    market: int
    supply: int
    fundamental: int
    reading_at: int | None
    cadence_seconds: int
    fresh_seconds: int
    recent_volume: int
    recent_volume_at: int


class Prices(NamedTuple):
    """D, M and F at a moment, the weight of M, and whether F is stale."""

    display: int
    market: int
    fundamental: int
    market_weight: int
    stale: bool


def opening(parameters: Parameters, *, at: int) -> ModelState:
    """An asset that has neither trades nor readings."""
    return ModelState(parameters.base_price, 0, parameters.base_price, None, 0, 0, 0, at)


def decayed(volume: int, *, elapsed: int, half_life_seconds: int) -> int:
    """volume * 2^(-elapsed / half-life), half-even, with the error that the module's head states.

    `volume` is at least 0 and below 10^38; `elapsed`, in microseconds, at least 0.
    """
    if not volume or not elapsed:
        return volume
    half_life = half_life_seconds * SECOND
    halvings, rest = divmod(elapsed, half_life)
    if halvings >= _HALVINGS_MAX:
        return 0
    places = (rest << FRACTION_BITS) // half_life
    power = _T0[places >> 50]
    power = power * _T1[places >> 40 & _MASK] >> TABLE_BITS
    power = power * _T2[places >> 30 & _MASK] >> TABLE_BITS
    power = power * _T3[places >> 20 & _MASK] >> TABLE_BITS
    power = power * _T4[places >> 10 & _MASK] >> TABLE_BITS
    power = power * _T5[places & _MASK] >> TABLE_BITS
    return div_half_even(volume * power, 1 << (TABLE_BITS + halvings))


def averaged(value: int, *, before: int, fundamental_weight: int) -> int:
    """b*value + (1-b)*before, half-even."""
    return div_half_even(fundamental_weight * value + (RATE_UNIT - fundamental_weight) * before, RATE_UNIT)


def volume_weight(recent_volume: int, *, volume_scale: int) -> int:
    """clamp(0.5 + 0.5*vol/(vol+V0), 0.2, 0.95), half-even."""
    scale = volume_scale * VOLUME_SCALE
    weight = div_half_even(RATE_UNIT * (2 * recent_volume + scale), 2 * (recent_volume + scale))
    return min(max(weight, WEIGHT_MIN), WEIGHT_MAX)


def stale_weight(weight: int, *, stale_for: int, cadence_seconds: int) -> int:
    """`weight`, raised towards 1: all the way after one cadence. `stale_for` in microseconds, half-even."""
    cadence = cadence_seconds * SECOND
    if stale_for >= cadence:
        return RATE_UNIT
    return weight + div_half_even((RATE_UNIT - weight) * stale_for, cadence)


def displayed(*, market: int, fundamental: int, market_weight: int) -> int:
    """D = w*M + (1-w)*F, half-even."""
    return div_half_even(market_weight * market + (RATE_UNIT - market_weight) * fundamental, RATE_UNIT)


def after_trade(
    state: ModelState, parameters: Parameters, *, at: int, gross: int, market: int, supply: int
) -> ModelState:
    """The state once a trade of `gross` has left M and the supply so. `at` is not before the state's."""
    return ModelState(
        market,
        supply,
        state.fundamental,
        state.reading_at,
        state.cadence_seconds,
        state.fresh_seconds,
        _volume_at(state, parameters, at) + gross * VOLUME_SCALE,
        at,
    )


def after_reading(
    state: ModelState, parameters: Parameters, *, at: int, value: int, cadence_seconds: int, fresh_seconds: int
) -> ModelState:
    """The state once a reading has entered the average."""
    before = parameters.base_price if state.reading_at is None else state.fundamental
    fundamental = averaged(value, before=before, fundamental_weight=parameters.fundamental_weight)
    return _with_fundamental(state, fundamental, at, cadence_seconds, fresh_seconds)


def after_override(state: ModelState, *, at: int, value: int, cadence_seconds: int, fresh_seconds: int) -> ModelState:
    """The state once an admin has set F."""
    return _with_fundamental(state, value, at, cadence_seconds, fresh_seconds)


def after_refresh(state: ModelState, *, at: int, cadence_seconds: int, fresh_seconds: int) -> ModelState:
    """The state once F has been confirmed as it is. Before the first reading there is nothing to confirm."""
    if state.reading_at is None:
        return state
    return _with_fundamental(state, state.fundamental, at, cadence_seconds, fresh_seconds)


def rebased(state: ModelState, parameters: Parameters) -> ModelState:
    """The state with M as it stands now: without supply an admin may have changed P0 since the last trade."""
    if state.supply or state.market == parameters.base_price:
        return state
    return replace(state, market=parameters.base_price)


def prices_at(state: ModelState, parameters: Parameters, *, at: int) -> Prices:
    """The prices at a moment that is not before the state's."""
    market = state.market
    if state.reading_at is None:
        fundamental = parameters.base_price
        display = displayed(market=market, fundamental=fundamental, market_weight=RATE_UNIT)
        return Prices(display, market, fundamental, RATE_UNIT, stale=False)
    weight = volume_weight(_volume_at(state, parameters, at), volume_scale=parameters.volume_scale)
    stale_for = at - state.reading_at - state.fresh_seconds * SECOND
    if stale_for > 0:
        weight = stale_weight(weight, stale_for=stale_for, cadence_seconds=state.cadence_seconds)
    display = displayed(market=market, fundamental=state.fundamental, market_weight=weight)
    return Prices(display, market, state.fundamental, weight, stale_for > 0)


def _volume_at(state: ModelState, parameters: Parameters, at: int) -> int:
    return decayed(
        state.recent_volume, elapsed=at - state.recent_volume_at, half_life_seconds=parameters.half_life_seconds
    )


def _with_fundamental(
    state: ModelState, fundamental: int, at: int, cadence_seconds: int, fresh_seconds: int
) -> ModelState:
    return ModelState(
        state.market,
        state.supply,
        fundamental,
        at,
        cadence_seconds,
        fresh_seconds,
        state.recent_volume,
        state.recent_volume_at,
    )
