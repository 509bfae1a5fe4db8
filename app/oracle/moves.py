"""How far a reading is from F, and how far it moves F. Pure integers: prices 10^-12, percentages 10^-9 percent."""

from typing import Final

from app.money import RATE_UNIT, div_ceil, div_half_even
from app.oracle.kinds import PERCENT_UNIT, Effect
from app.pricing.model import averaged

MOVE_MAX: Final = 10**18
"""In 10^-9 of F, far beyond any cap: F can be set to 10^15 times what it was, and a move is stored in 64 bits."""


def delta_percent(price: int, *, fundamental: int) -> int:
    """(price - F) / F in 10^-9 percent, half-even. For showing: whether a cap is kept is decided exactly."""
    return div_half_even((price - fundamental) * 100 * PERCENT_UNIT, fundamental)


def fundamental_after(price: int, *, fundamental: int, effect: Effect, weight: int) -> int:
    """F (10^-12) once a reading of `price` had `effect`, as the price engine computes it; `weight` is b in 10^-9."""
    if effect is Effect.SET:
        return price
    if effect is Effect.MOVE:
        return averaged(price, before=fundamental, fundamental_weight=weight)
    return fundamental


def move_of(price: int, *, fundamental: int, effect: Effect, weight: int) -> int:
    """By how much `effect` moves F, up or down: in 10^-9 of F, at most `MOVE_MAX`.

    Rounded up, so that a sum of moves is never too low.
    """
    after = fundamental_after(price, fundamental=fundamental, effect=effect, weight=weight)
    return min(div_ceil(abs(after - fundamental) * RATE_UNIT, fundamental), MOVE_MAX)
