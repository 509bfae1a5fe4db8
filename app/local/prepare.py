"""`python -m app.local.prepare`: the database's schema, then the demo market, in one process.

The two commands `megatron migrate` and `megatron demo seed` do the same; one process spares every start of the local
market the loading of the ORM a second time.
"""

import asyncio
import sys

from app.db import DatabaseMisconfigured, migrate
from app.demo.seed import say, seed
from app.settings import Settings


async def prepare(settings: Settings) -> None:
    """Bring the database up to date and make what is missing of the demo market. Safe to run again.

    Raises `DatabaseMisconfigured` with what to do.
    """
    await migrate(settings)
    say("the database is up to date")
    await seed(settings)


def main() -> int:
    """The command; answers the exit status."""
    try:
        asyncio.run(prepare(Settings()))
    except DatabaseMisconfigured as error:
        say(f"megatron: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
