"""Looking into a database from outside its API processes: the audit, and what clients' answers are held against."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from app.db import Connection, connection_arguments
from app.ledger.audit import Report, audit
from app.local.postgres import EmbeddedPostgres


@asynccontextmanager
async def connected(database_url: str) -> AsyncIterator[Connection]:
    """A connection of one's own, that reads NUMERIC as integers as the application does."""
    connection = await asyncpg.connect(**connection_arguments(database_url))
    try:
        await connection.set_type_codec("numeric", schema="pg_catalog", encoder=str, decoder=int, format="text")
        yield connection
    finally:
        await connection.close()


async def audited(database_url: str) -> Report:
    """What the audit says of the database now."""
    async with (
        connected(database_url) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        return await audit(connection=connection)


async def count(database_url: str, sql: str, *arguments: object) -> int:
    """The integer that `sql` answers."""
    async with connected(database_url) as connection:
        value: int = await connection.fetchval(sql, *arguments)
        return value


def deadlocks(server: EmbeddedPostgres) -> int:
    """How many deadlocks the server has ever had to break, by its own log."""
    return server.log.read_text(errors="replace").count("deadlock detected")


_FACTS = (
    "account_events", "accounts", "api_keys", "asset_requests", "assets", "audit_log", "entries", "idempotency_keys",
    "ledger_accounts", "orders", "platform", "positions", "sessions", "trades", "transfers",
)  # fmt: skip


async def fingerprint(database_url: str) -> dict[str, str]:
    """What each table holds, as a hash by the table's name: two are equal when nothing has changed in between."""
    async with connected(database_url) as connection:
        return {
            table: await connection.fetchval(
                f"SELECT coalesce(md5(string_agg(md5(t::text), '' ORDER BY md5(t::text))), '') FROM {table} t"
            )
            for table in _FACTS
        }
