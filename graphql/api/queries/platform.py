"""What everybody may ask about the platform."""

from datetime import datetime

import strawberry

from api.context import Info
from api.fields import computed
from api.types.platform import Platform, RateLimit, show_platform
from app import clock
from app.admin.platform import platform_state


@strawberry.type
class PlatformQueries:
    """Clock, state and limits."""

    @computed("The answering process's clock.")
    def server_time(self) -> datetime:
        return clock.now()

    @computed("The platform: what runs, and whether it trades.")
    async def platform(self, info: Info) -> Platform:
        async with info.context.services.database.acquire() as connection:
            return show_platform(await platform_state(connection=connection))

    @computed("The caller's place in the rate limits; null where limits are off.")
    def rate_limit(self, info: Info) -> RateLimit | None:
        rate = info.context.rate
        if rate is None:
            return None
        return RateLimit(limit=rate.limit, remaining=rate.remaining, cost=rate.cost, reset_at=rate.reset_at)
