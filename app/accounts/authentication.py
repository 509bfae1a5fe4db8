"""From a request's token to who it is. Look-ups of requests that arrive together share one statement.

Nothing is cached: each request's look-up begins after the request did, so what was revoked is refused at the next one.
"""

import asyncio
import contextvars
from collections.abc import Container, Iterable
from typing import Final

import asyncpg
import structlog

from app.accounts.principals import (
    ALL_SCOPES,
    ANONYMOUS,
    AccountPrincipal,
    AdminPrincipal,
    Credential,
    Principal,
    Scope,
)
from app.accounts.tokens import digest, kind_of
from app.db import Database
from app.errors import ErrorCode, Unauthenticated, refuse

WAITING_MAX: Final = 10_000
"""Requests that may wait for their look-up at once."""
BATCH_MAX: Final = 500
"""Tokens in one statement."""

# Expiry goes by the database's clock: the processes' own may differ.
_LOOK_UP: Final = """
SELECT token_hash, id, account_id, admin_name, NULL::text[] AS scopes, false AS touch
  FROM sessions
 WHERE token_hash = ANY($1::bytea[]) AND revoked_at IS NULL AND expires_at > clock_timestamp()
UNION ALL
SELECT token_hash, id, account_id, NULL, scopes,
       coalesce(last_used_at < clock_timestamp() - interval '1 minute', true)
  FROM api_keys
 WHERE token_hash = ANY($1::bytea[]) AND revoked_at IS NULL
"""
# Rows that another process is touching are skipped: their minute is taken care of, and nobody waits in a circle.
_TOUCH: Final = """
UPDATE api_keys SET last_used_at = clock_timestamp()
 WHERE id IN (
       SELECT id FROM api_keys
        WHERE id = ANY($1::bigint[])
          AND coalesce(last_used_at < clock_timestamp() - interval '1 minute', true)
        ORDER BY id FOR NO KEY UPDATE SKIP LOCKED)
"""
_log = structlog.get_logger(__name__)


class Authenticator:
    """Resolves tokens. One for each process; close it before its database."""

    def __init__(self, database: Database, *, admins: Container[str] | None = None) -> None:
        """`admins` are the names that may act as admins now, whatever sessions are left of others; None: any."""
        self._database = database
        self._admins = admins
        self._waiting: dict[bytes, list[asyncio.Future[Principal]]] = {}
        self._waiting_count = 0
        self._looking_up: asyncio.Task[None] | None = None
        self._untouched: set[int] = set()
        self._touching: asyncio.Task[None] | None = None

    async def principal(self, token: str | None) -> Principal:
        """Who `token` is; None is anonymous.

        Raises `Unauthenticated` for a token that is unknown, expired or revoked, alike, and `Refused` (OVERLOADED)
        when `WAITING_MAX` requests wait already.
        """
        if token is None:
            return ANONYMOUS
        if kind_of(token) is None:
            raise _unauthenticated()
        if self._waiting_count >= WAITING_MAX:
            raise refuse(ErrorCode.OVERLOADED, "Too many requests wait for authentication: try again in a moment.")
        future: asyncio.Future[Principal] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(digest(token), []).append(future)
        self._waiting_count += 1
        if self._looking_up is None:
            # In a context of its own: it serves many requests and must not carry the first one's.
            self._looking_up = asyncio.create_task(self._look_up_all(), context=contextvars.Context())
        return await future

    async def close(self) -> None:
        """Wait until what is under way has ended."""
        for task in (self._looking_up, self._touching):
            if task is not None:
                await asyncio.wait([task])

    async def _look_up_all(self) -> None:
        """Look up until nobody waits. While one statement runs, the next batch gathers."""
        try:
            while self._waiting:
                await self._look_up_some()
        finally:
            self._looking_up = None

    async def _look_up_some(self) -> None:
        batch: dict[bytes, list[asyncio.Future[Principal]]] = {}
        try:
            async with self._database.acquire() as connection:
                while self._waiting:
                    batch = self._take()
                    self._answer(batch, await connection.fetch(_LOOK_UP, list(batch)))
        except Exception as failure:
            # The database is away: whoever waited is told, and the next request tries again.
            for future in _open_ones(batch.values()) + _open_ones(self._take().values()):
                future.set_exception(failure)

    def _take(self) -> dict[bytes, list[asyncio.Future[Principal]]]:
        digests = list(self._waiting)[:BATCH_MAX]
        batch = {each: self._waiting.pop(each) for each in digests}
        self._waiting_count -= sum(len(futures) for futures in batch.values())
        return batch

    def _answer(self, batch: dict[bytes, list[asyncio.Future[Principal]]], rows: list[asyncpg.Record]) -> None:
        found = {bytes(row["token_hash"]): row for row in rows}
        for token_hash, futures in batch.items():
            row = found.get(token_hash)
            for future in _open_ones([futures]):
                if row is None or not self._stands(row):
                    future.set_exception(_unauthenticated())
                else:
                    future.set_result(_principal(row))
        self._touch_later([row["id"] for row in rows if row["touch"]])

    def _stands(self, row: asyncpg.Record) -> bool:
        """Whether an admin's session is of somebody who is still an admin."""
        return row["admin_name"] is None or self._admins is None or row["admin_name"] in self._admins

    def _touch_later(self, api_key_ids: list[int]) -> None:
        if not api_key_ids:
            return
        self._untouched.update(api_key_ids)
        if self._touching is None:
            self._touching = asyncio.create_task(self._touch_all(), context=contextvars.Context())

    async def _touch_all(self) -> None:
        try:
            while self._untouched:
                api_key_ids, self._untouched = list(self._untouched), set()
                async with self._database.acquire() as connection:
                    await connection.execute(_TOUCH, api_key_ids)
        except Exception as failure:
            # A missed time of use is worth a line, not a failed request.
            _log.warning("api_keys.touch_failed", error=repr(failure))
        finally:
            self._touching = None


def _open_ones(groups: Iterable[list[asyncio.Future[Principal]]]) -> list[asyncio.Future[Principal]]:
    """The futures whose requests have not been cancelled meanwhile."""
    return [future for futures in groups for future in futures if not future.done()]


def _principal(row: asyncpg.Record) -> Principal:
    if row["admin_name"] is not None:
        return AdminPrincipal(row["admin_name"], row["id"])
    if row["scopes"] is None:
        return AccountPrincipal(row["account_id"], Credential("session", row["id"]), ALL_SCOPES)
    scopes = frozenset(Scope(scope) for scope in row["scopes"])
    return AccountPrincipal(row["account_id"], Credential("api_key", row["id"]), scopes)


def _unauthenticated() -> Unauthenticated:
    return Unauthenticated("This token is unknown, expired or revoked: log in again.")
