"""The platform's own state, and the caller's place in the rate limits."""

from datetime import datetime

import strawberry

from app.admin.platform import PlatformState
from app.services import VERSION
from app.settings import Environment


@strawberry.type(description="The platform: what runs, and whether it trades.")
class Platform:
    """What everybody may know."""

    development: bool = strawberry.field(description="Whether it runs in development mode, where devFund exists.")
    trading_paused: bool = strawberry.field(description="Whether every trade is stopped.")
    reason: str | None = strawberry.field(description="Why trading is paused; null while it is not.")
    version: str = strawberry.field(description="The version that runs.")


@strawberry.type(description="What the caller may still ask for. Limits count the cost of requests.")
class RateLimit:
    """As the RateLimit headers say it."""

    limit: int = strawberry.field(description="Cost points in a window.")
    remaining: int = strawberry.field(description="How many of them are left.")
    cost: int = strawberry.field(description="What this request cost.")
    reset_at: datetime = strawberry.field(description="When they are whole again.")


def show_platform(state: PlatformState) -> Platform:
    """The platform's row."""
    return Platform(
        development=state.environment is Environment.DEVELOPMENT,
        trading_paused=state.trading_paused,
        reason=state.reason,
        version=VERSION,
    )
