"""The platform's own state, as everybody may see it."""

from dataclasses import dataclass

from app.db import Connection
from app.settings import Environment


@dataclass(frozen=True, slots=True)
class PlatformState:
    """`reason` says why trading is paused; None while it is not."""

    environment: Environment
    trading_paused: bool
    reason: str | None


async def platform_state(*, connection: Connection) -> PlatformState:
    """The one row of platform-wide state."""
    row = await connection.fetchrow("SELECT environment, trading_paused, reason FROM platform")
    if row is None:
        raise LookupError("the platform row is missing: run `megatron migrate`")
    return PlatformState(Environment(row["environment"]), row["trading_paused"], row["reason"])
