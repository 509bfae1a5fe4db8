"""Accounts, admins and what they own, for tests that need somebody. Each call makes somebody new."""

import asyncio
import contextvars
import itertools
import os
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, TypeVar

import asyncpg

from app.accounts.passwords import Argon2Parameters
from app.accounts.principals import AccountPrincipal, AdminPrincipal, Credential, Scope
from app.accounts.sessions import LoggedIn, ProvenAdmin, admin_log_in, open_session
from app.accounts.sign_up import NewAccount, sign_up
from app.accounts.tokens import TokenKind, new_token
from app.admin.accounts import freeze_account
from app.db import Database
from app.errors import Refusal, Refused

CHEAP = Argon2Parameters(time_cost=1, memory_kib=8, lanes=1)
HOUR = timedelta(hours=1)
T = TypeVar("T")
_numbers = itertools.count(1)
_run = os.urandom(4).hex()


def unique(prefix: str) -> str:
    """A text that no other call gives, also where several runs share a database."""
    return f"{prefix}-{_run}-{next(_numbers)}"


def unique_email() -> str:
    return f"{unique('person')}@example.com"


async def new_account(database: Database) -> LoggedIn:
    """An account that nobody can log in to: its session is all there is."""
    async with database.transaction() as unit:
        return await sign_up(unit=unit, account=NewAccount(unique_email(), "none"), session_lifetime=HOUR)


async def new_admin(database: Database, *, name: str | None = None) -> AdminPrincipal:
    async with database.transaction() as unit:
        return (await admin_log_in(unit=unit, proven=ProvenAdmin(name or unique("admin")), lifetime=HOUR)).principal


async def new_session_token(database: Database, account_id: int) -> str:
    async with database.acquire() as connection:
        return (await open_session(connection, account_id=account_id, lifetime=HOUR)).token


async def new_key(database: Database, account_id: int, *scopes: Scope) -> tuple[AccountPrincipal, str]:
    """An API key, made without the use case that makes them."""
    token = new_token(TokenKind.API_KEY)
    async with database.acquire() as connection:
        key_id = await connection.fetchval(
            "INSERT INTO api_keys (account_id, name, prefix, token_hash, scopes, created_at)"
            " VALUES ($1, 'bot', $2, $3, $4, now()) RETURNING id",
            account_id, token.shown, token.digest, list(scopes),
        )  # fmt: skip
    return AccountPrincipal(account_id, Credential("api_key", key_id), frozenset(scopes)), token.text


async def set_frozen(database: Database, account_id: int, *, frozen: bool) -> None:
    admin = await new_admin(database)
    async with database.transaction() as unit:
        await freeze_account(unit=unit, principal=admin, account_id=account_id, frozen=frozen, reason="a test")


async def fetch(database: Database, sql: str, *parameters: object) -> list[asyncpg.Record]:
    async with database.acquire() as connection:
        return await connection.fetch(sql, *parameters)


async def value(database: Database, sql: str, *parameters: object) -> object:
    async with database.acquire() as connection:
        found: object = await connection.fetchval(sql, *parameters)
        return found


def refusal(raised: BaseException) -> Refusal:
    """What was refused."""
    assert isinstance(raised, Refused)
    return raised.refusal


def elsewhere(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Run `work` beside the caller, outside the transaction that the caller may be in."""
    return asyncio.create_task(work, context=contextvars.Context())


async def wait_for_a_waiter(database: Database, statement: str) -> None:
    """Wait until a statement that contains `statement` waits for a lock."""
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND position($1 IN query) > 0"
        " AND datname = current_database()"
    )
    async with asyncio.timeout(10):
        while await value(database, waiting, statement) == 0:
            pass
