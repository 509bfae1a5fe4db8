"""What a request carries to its resolvers: who asks, what the process offers, and what has been read for it so far."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import strawberry

from api.loaders import Loaders
from app.accounts.principals import Principal
from app.db import Unit
from app.ratelimit import RateState
from app.services import Services


@dataclass(slots=True)
class Context:
    """One operation's context. `rate` is None where limits are off; `client_ip` is the address that limits count."""

    principal: Principal
    services: Services
    request_id: str
    client_ip: str
    rate: RateState | None = None
    loaders: Loaders = field(init=False)

    def __post_init__(self) -> None:
        self.read_afresh()

    def read_afresh(self) -> None:
        """Forget what was read: something has been written since."""
        self.loaders = Loaders(self.services.database)


Info: TypeAlias = strawberry.Info[Context, None]


@asynccontextmanager
async def writing(info: Info) -> AsyncIterator[Unit]:
    """The transaction of a mutation. What is shown afterwards is read afresh, whether it committed or not."""
    try:
        async with info.context.services.database.transaction() as unit:
            yield unit
    finally:
        info.context.read_afresh()
