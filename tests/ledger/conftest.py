"""A database with a past, for the audit."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg
import pytest

from app.db import Database
from app.exchange.settlement import Settlement
from app.local.postgres import EmbeddedPostgres
from tests.conftest import TEMPLATE
from tests.ledger.history import History, make_history


@dataclass(frozen=True)
class Past:
    """A database of its own and what was made in it."""

    database: Database
    history: History


async def copy_template(postgres: EmbeddedPostgres, name: str) -> str:
    """The address of a new database, empty but for what migrations make."""
    connection = await asyncpg.connect(postgres.dsn_of("postgres"))
    try:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY wal_log")
    finally:
        await connection.close()
    return postgres.dsn_of(name)


@pytest.fixture(scope="session")
async def past(postgres: EmbeddedPostgres) -> AsyncIterator[Past]:
    """A market with a past, that tests corrupt in transactions which they roll back."""
    database = await Database.connect(await copy_template(postgres, "test_past"), pool_max=4)
    settlement = Settlement(database, publish=lambda _: None)
    settlement.start()
    history = await make_history(database, settlement)
    await settlement.stop()
    yield Past(database, history)
    await database.close()
