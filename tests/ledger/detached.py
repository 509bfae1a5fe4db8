"""A database beside the session's own. The ORM serves one per process, so this one offers plain connections only."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from app.db import Database, Unit, credentials


class DetachedDatabase(Database):
    """As `Database`, without the ORM: for use cases, which speak SQL on their unit's connection."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self.pool = pool

    @classmethod
    async def connect(cls, url: str, *, pool_max: int = 4) -> "DetachedDatabase":
        """Open the migrated database at `url`."""
        arguments = credentials(url, pool_max=pool_max)
        sizes = {"min_size": arguments.pop("minsize"), "max_size": arguments.pop("maxsize")}
        pool = await asyncpg.create_pool(**arguments, **sizes)
        return cls(pool)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Unit]:
        async with self.pool.acquire() as connection:
            unit = Unit(connection)
            async with connection.transaction():
                yield unit
        for callback in unit._after_commit:
            callback()

    async def close(self) -> None:
        await self.pool.close()
