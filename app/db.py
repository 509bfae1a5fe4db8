"""The database: the only module that configures the ORM, owns the pool, opens transactions and runs migrations.

One pool serves both Tortoise and the hot paths, which take a raw asyncpg connection from it. NUMERIC travels as
integers: every such column has scale 0, and a fraction in one would raise rather than round.
"""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
from tortoise import Tortoise
from tortoise.context import TortoiseContext
from tortoise.migrations.api import migrate as run_migrations
from tortoise.transactions import in_transaction

from app.settings import Environment, Settings

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
"""What hot paths run SQL on: a raw connection or the pool's proxy of one."""

MIGRATION_LOCK: Final = 0x6D656761
"""Advisory lock held while migrating, so that processes started together do not race."""
STATEMENT_TIMEOUT_MS: Final = 30_000


class DatabaseMisconfigured(Exception):  # noqa: N818
    """The database cannot serve this process; the message says why and what to do."""


def tortoise_config(url: str, *, pool_max: int, pooler: bool = False) -> dict[str, Any]:
    """Tortoise's configuration for the database at `url`."""
    return {
        "connections": {
            "default": {
                "engine": "tortoise.backends.asyncpg",
                "credentials": credentials(url, pool_max=pool_max, pooler=pooler),
            }
        },
        "apps": {"models": {"models": ["models"], "default_connection": "default", "migrations": "migrations"}},
        "use_tz": True,
        "timezone": "UTC",
    }


def credentials(url: str, *, pool_max: int, pooler: bool = False) -> dict[str, Any]:
    """asyncpg's arguments for `url`: the query's host (a Unix socket's folder), user and sslmode are honoured.

    Raises `DatabaseMisconfigured` when `url` is no PostgreSQL address.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("postgres", "postgresql"):
        raise DatabaseMisconfigured(f"DATABASE_URL must begin with postgresql://; it begins with {parts.scheme!r}")
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    arguments: dict[str, Any] = {
        "host": query.get("host") or parts.hostname or "localhost",
        "port": int(query.get("port") or parts.port or 5432),
        "user": unquote(parts.username) if parts.username else query.get("user", "postgres"),
        "password": unquote(parts.password) if parts.password else query.get("password"),
        "database": parts.path.lstrip("/") or query.get("dbname", "postgres"),
        "minsize": 1,
        "maxsize": pool_max,
        "init": _prepare_connection,
        "server_settings": {"statement_timeout": str(STATEMENT_TIMEOUT_MS), "timezone": "UTC"},
        "max_inactive_connection_lifetime": 300.0,
    }
    if query.get("sslmode", "prefer") in ("require", "verify-ca", "verify-full"):
        arguments["ssl"] = _tls(query["sslmode"])
    if pooler:
        arguments["statement_cache_size"] = 0
    return arguments


def _tls(mode: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if mode != "verify-full":
        context.check_hostname = False
    if mode == "require":
        context.verify_mode = ssl.CERT_NONE
    return context


async def _prepare_connection(connection: Connection) -> None:
    await connection.set_type_codec("numeric", schema="pg_catalog", encoder=str, decoder=int, format="text")


@dataclass(slots=True)
class Unit:
    """One unit of work: a transaction's connection, and what is to happen once it has committed.

    Callbacks run in order after the commit, must not fail, and are dropped on rollback.
    """

    connection: Connection
    _after_commit: list[Callable[[], None]] = field(default_factory=list)

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Run `callback` once this unit has committed."""
        self._after_commit.append(callback)


class Database:
    """The pool and its transactions. Open with `Database.open`, close when done."""

    def __init__(self, context: TortoiseContext, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._context = context
        self.pool = pool

    @classmethod
    async def open(cls, settings: Settings) -> "Database":
        """Connect, check that the database is migrated and was made for this environment.

        Raises `DatabaseMisconfigured` with what to do otherwise.
        """
        config = tortoise_config(
            database_url(settings), pool_max=settings.database_pool_max, pooler=settings.database_pooler
        )
        context = await Tortoise.init(config=config, _enable_global_fallback=True)
        client = context.connections.get("default")
        await client.create_connection(with_db=True)
        database = cls(context, client._pool)
        try:
            await check_environment(database, settings.env)
        except BaseException:
            await database.close()
            raise
        return database

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """A connection outside any transaction, for reads."""
        async with self.pool.acquire() as connection:
            yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Unit]:
        """A READ COMMITTED transaction that ORM queries of the same task join."""
        async with in_transaction("default") as client:
            unit = Unit(client._connection)
            yield unit
        for callback in unit._after_commit:
            callback()

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """A read-only REPEATABLE READ transaction: every statement sees the same moment."""
        async with (
            self.pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield connection

    async def close(self) -> None:
        """Close the pool; waits at most ten seconds for what is under way."""
        await self._context.close_connections()


def database_url(settings: Settings) -> str:
    """The configured address. Raises `DatabaseMisconfigured` when there is none."""
    if not settings.database_url:
        raise DatabaseMisconfigured(
            "DATABASE_URL is not set: point it at a PostgreSQL 15 or newer, or use `make dev`, which brings its own"
        )
    return settings.database_url


async def check_environment(database: Database, env: Environment) -> None:
    """Refuse to serve a database that was made for the other environment."""
    async with database.acquire() as connection:
        try:
            made_for = await connection.fetchval("SELECT environment FROM platform")
        except asyncpg.UndefinedTableError:
            raise DatabaseMisconfigured("the database has no tables yet: run `megatron migrate` first") from None
    if made_for != env.value:
        raise DatabaseMisconfigured(
            f"this database was made for {made_for} and MEGATRON_ENV says {env.value}: "
            "use another database, or the environment it was made for"
        )


async def migrate(settings: Settings) -> None:
    """Bring the schema up to date and record the environment of a new database. Safe to run from several processes."""
    url = database_url(settings)
    arguments = credentials(url, pool_max=2)
    for name in ("minsize", "maxsize", "init", "max_inactive_connection_lifetime"):
        arguments.pop(name)
    guard = await asyncpg.connect(**arguments)
    try:
        await guard.execute("SET statement_timeout = 0")
        await guard.execute("SELECT pg_advisory_lock($1)", MIGRATION_LOCK)
        config = tortoise_config(url, pool_max=2)
        config["connections"]["default"]["credentials"]["server_settings"]["statement_timeout"] = "0"
        await run_migrations(config=config)
        await Tortoise.close_connections()
        await guard.execute(
            "INSERT INTO platform (id, environment, trading_paused) VALUES (1, $1, false) ON CONFLICT DO NOTHING",
            settings.env.value,
        )
    finally:
        await guard.close()


TORTOISE_ORM: Final = tortoise_config("postgresql://localhost/megatron", pool_max=2)
"""For `tortoise makemigrations`, which reads the models and connects to nothing."""
