"""The database: the only module that configures the ORM, owns the pool, opens transactions and runs migrations.

Tortoise describes and migrates the schema; at run time SQL runs on an asyncpg pool. NUMERIC travels as integers: every
such column has scale 0, and a fraction in one would raise rather than round.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
from tortoise import Tortoise
from tortoise.migrations.api import migrate as run_migrations

from app.settings import Environment, Settings

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
"""What hot paths run SQL on: a raw connection or the pool's proxy of one."""

MIGRATION_LOCK: Final = 0x6D656761
"""Advisory lock held while migrating, so that processes started together do not race."""
STATEMENT_TIMEOUT_MS: Final = 30_000
IDLE_IN_TRANSACTION_TIMEOUT_MS: Final = 60_000
"""A process that stands still inside a transaction must not hold its locks for ever."""
CLOSE_SECONDS_MAX: Final = 10


LOST: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.OperatorInterventionError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.InsufficientResourcesError,
)
"""Errors of a database that pass by themselves: it is away, restarts, or another transaction was in the way."""


class DatabaseMisconfigured(Exception):  # noqa: N818
    """The database cannot serve this process; the message says why and what to do."""


def tortoise_config(url: str) -> dict[str, Any]:
    """Tortoise's configuration for migrating the database at `url`."""
    arguments = connection_arguments(url)
    arguments["server_settings"] |= {"statement_timeout": "0", "idle_in_transaction_session_timeout": "0"}
    return {
        "connections": {
            "default": {
                "engine": "tortoise.backends.asyncpg",
                "credentials": {**arguments, "minsize": 1, "maxsize": 2},
            }
        },
        "apps": {"models": {"models": ["models"], "default_connection": "default", "migrations": "migrations"}},
        "use_tz": True,
        "timezone": "UTC",
    }


def connection_arguments(url: str, *, pooler: bool = False) -> dict[str, Any]:
    """asyncpg's arguments for `url`: the query's host (a Unix socket's folder), user and sslmode are honoured.

    Raises `DatabaseMisconfigured` when `url` is no PostgreSQL address.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise DatabaseMisconfigured(
            "DATABASE_URL is no address: a password in it must have characters such as [ ] / # ? @ percent-encoded"
        ) from None
    if parts.scheme not in ("postgres", "postgresql"):
        raise DatabaseMisconfigured(f"DATABASE_URL must begin with postgresql://; it begins with {parts.scheme!r}")
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    try:
        port = int(query.get("port") or parts.port or 5432)
    except ValueError:
        port = -1
    if not 0 <= port <= 65535:
        raise DatabaseMisconfigured("DATABASE_URL has a port that is no number from 0 to 65535")
    arguments: dict[str, Any] = {
        "host": query.get("host") or parts.hostname or "localhost",
        "port": port,
        "user": unquote(parts.username) if parts.username else query.get("user", "postgres"),
        "password": unquote(parts.password) if parts.password else query.get("password"),
        "database": parts.path.lstrip("/") or query.get("dbname", "postgres"),
        "server_settings": {
            "statement_timeout": str(STATEMENT_TIMEOUT_MS),
            "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_TIMEOUT_MS),
        },
    }
    if query.get("sslmode", "prefer") in ("require", "verify-ca", "verify-full"):
        arguments["ssl"] = _tls(query["sslmode"])
    if pooler:
        arguments |= {"statement_cache_size": 0, "server_settings": {}}
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

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self.pool = pool

    @classmethod
    async def connect(cls, url: str, *, pool_max: int, pooler: bool = False) -> "Database":
        """The database at `url`, whatever is in it."""
        arguments = connection_arguments(url, pooler=pooler)
        return cls(await asyncpg.create_pool(**arguments, init=_prepare_connection, min_size=1, max_size=pool_max))

    @classmethod
    async def open(cls, settings: Settings) -> "Database":
        """Connect, check that the database is migrated and was made for this environment.

        Raises `DatabaseMisconfigured` with what to do otherwise.
        """
        database = await cls.connect(
            database_url(settings), pool_max=settings.database_pool_max, pooler=settings.database_pooler
        )
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
        """A READ COMMITTED transaction, and what is to happen once it has committed."""
        async with self.pool.acquire() as connection:
            unit = Unit(connection)
            try:
                async with connection.transaction():
                    yield unit
            except RuntimeError as error:
                # Event loops raise errors of their own when a connection dies under a write.
                if is_open(connection):
                    raise
                raise ConnectionError("the connection to the database was lost") from error
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
        """Close the pool; waits at most `CLOSE_SECONDS_MAX` for what is under way."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS_MAX):
                await self.pool.close()
        except TimeoutError:
            self.pool.terminate()


def is_open(connection: Connection) -> bool:
    """Whether the connection lives. The pool takes a lost one back at once, and then even the question raises."""
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:
        return False


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
    guard = await asyncpg.connect(**connection_arguments(url))
    try:
        await guard.execute("SET statement_timeout = 0")
        await guard.execute("SELECT pg_advisory_lock($1)", MIGRATION_LOCK)
        await run_migrations(config=tortoise_config(url))
        await Tortoise.close_connections()
        await guard.execute(
            "INSERT INTO platform (id, environment, trading_paused) VALUES (1, $1, false) ON CONFLICT DO NOTHING",
            settings.env.value,
        )
    finally:
        await guard.close()


TORTOISE_ORM: Final = tortoise_config("postgresql://localhost/megatron")
"""For `tortoise makemigrations`, which reads the models and connects to nothing."""
