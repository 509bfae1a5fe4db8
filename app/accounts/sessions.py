"""Log-in and log-out, of accounts and of admins.

A log-in has two steps, so that no transaction waits while a password is hashed: the first proves the password, the
second opens the session in the transaction that the edge opened.
"""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from app.accounts.emails import known_spelling
from app.accounts.passwords import LENGTH_MAX, PasswordHasher
from app.accounts.principals import ALL_SCOPES, AccountPrincipal, AdminPrincipal, Credential
from app.accounts.tokens import TokenKind, new_token
from app.db import Connection, Database, Unit
from app.errors import ErrorCode, Forbidden, Refused, refuse
from app.ledger.locks import lock
from app.settings import Settings

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session just opened. `token` goes to its owner once."""

    id: int
    token: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """An account's new session."""

    account_id: int
    session: NewSession

    @property
    def principal(self) -> AccountPrincipal:
        """Who the session's requests come from."""
        return AccountPrincipal(self.account_id, Credential("session", self.session.id), ALL_SCOPES)


@dataclass(frozen=True, slots=True)
class AdminLoggedIn:
    """An admin's new session."""

    name: str
    session: NewSession

    @property
    def principal(self) -> AdminPrincipal:
        """Who the session's requests come from."""
        return AdminPrincipal(self.name, self.session.id)


@dataclass(frozen=True, slots=True)
class ProvenAccount:
    """An account whose password was right a moment ago. `rehashed` replaces its hash where the parameters changed."""

    account_id: int
    password_hash: str = field(repr=False)
    rehashed: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class ProvenAdmin:
    """An admin whose password was right a moment ago."""

    name: str


async def prove_account(*, database: Database, hasher: PasswordHasher, email: str, password: str) -> ProvenAccount:
    """Check an account's password, outside any transaction.

    Raises `Refused`: INVALID_CREDENTIALS, alike in text and time for an unknown e-mail, an impossible one and a wrong
    password; OVERLOADED when too many log-ins wait.
    """
    spelling = known_spelling(email)
    row = None
    if spelling is not None:
        async with database.acquire() as connection:
            row = await connection.fetchrow("SELECT id, password_hash FROM accounts WHERE email = $1", spelling)
    stored = row["password_hash"] if row is not None else None
    typed = _typed(password)
    right = await hasher.verify(typed, stored)
    if row is None or stored is None or not right:
        raise _wrong("The e-mail or the password is wrong.")
    rehashed = await hasher.hash(typed) if hasher.needs_rehash(stored) else None
    return ProvenAccount(row["id"], stored, rehashed)


async def log_in(*, unit: Unit, proven: ProvenAccount, lifetime: timedelta) -> LoggedIn:
    """Open a session of a proven account.

    Raises `Refused` (INVALID_CREDENTIALS) when its password was changed since it was proven.
    """
    if not await _still_has(unit.connection, proven=proven):
        raise _wrong("The e-mail or the password is wrong.")
    session = await open_session(unit.connection, account_id=proven.account_id, lifetime=lifetime)
    return LoggedIn(proven.account_id, session)


async def log_out(*, unit: Unit, principal: AccountPrincipal | AdminPrincipal) -> bool:
    """End the caller's session, after what it has under way; whether it was live until now.

    Raises `Forbidden` for an API key, which has no session: it is revoked from one.
    """
    if isinstance(principal, AdminPrincipal):
        return await _end_session(unit.connection, session_id=principal.session_id)
    if principal.credential.kind != "session":
        raise Forbidden("An API key has no session to end: revoke the key with apiKeyRevoke, from a session.")
    await lock(unit.connection, account_ids=[principal.account_id])
    return await _end_session(unit.connection, session_id=principal.credential.id)


def admin_password_hashes(settings: Settings) -> dict[str, str]:
    """Name to password hash of every admin that the settings name."""
    first = {"admin": settings.admin_password_hash} if settings.admin_password_hash else {}
    return first | settings.admins


async def prove_admin(
    *, hasher: PasswordHasher, password_hashes: Mapping[str, str], name: str, password: str
) -> ProvenAdmin:
    """Check an admin's password against `admin_password_hashes`, outside any transaction.

    Raises `Refused`: INVALID_CREDENTIALS, alike for an unknown name and a wrong password; OVERLOADED when too many
    log-ins wait.
    """
    # Somebody's real hash stands in for an unknown name's, so that both take as long whatever its algorithm.
    stored = password_hashes.get(name) or next(iter(password_hashes.values()), None)
    right = await hasher.verify(password[: LENGTH_MAX + 1], stored)
    if not right or name not in password_hashes:
        _log.warning("admin.log_in_refused", known_name=name in password_hashes)
        raise _wrong("The name or the password is wrong.")
    return ProvenAdmin(name)


async def admin_log_in(*, unit: Unit, proven: ProvenAdmin, lifetime: timedelta) -> AdminLoggedIn:
    """Open a session of a proven admin."""
    return AdminLoggedIn(proven.name, await open_session(unit.connection, admin_name=proven.name, lifetime=lifetime))


async def open_session(
    connection: Connection, *, lifetime: timedelta, account_id: int | None = None, admin_name: str | None = None
) -> NewSession:
    """Open a session of exactly one of the two; it ends after `lifetime` by the database's clock."""
    token = new_token(TokenKind.SESSION if admin_name is None else TokenKind.ADMIN_SESSION)
    row = await connection.fetchrow(
        "INSERT INTO sessions (token_hash, account_id, admin_name, created_at, expires_at)"
        " SELECT $1, $2, $3, at, at + $4::interval FROM clock_timestamp() at RETURNING id, expires_at",
        token.digest, account_id, admin_name, lifetime,
    )  # fmt: skip
    if row is None:
        raise LookupError("the new session was not stored")
    return NewSession(row["id"], token.text, row["expires_at"])


async def _still_has(connection: Connection, *, proven: ProvenAccount) -> bool:
    """Whether the account still has the hash that was proven; a new one takes its place where there is one."""
    if proven.rehashed is None:
        found = await connection.fetchval(
            "SELECT id FROM accounts WHERE id = $1 AND password_hash = $2", proven.account_id, proven.password_hash
        )
    else:
        found = await connection.fetchval(
            "UPDATE accounts SET password_hash = $3 WHERE id = $1 AND password_hash = $2 RETURNING id",
            proven.account_id, proven.password_hash, proven.rehashed,
        )  # fmt: skip
    return found is not None


async def _end_session(connection: Connection, *, session_id: int) -> bool:
    ended = await connection.fetchval(
        "UPDATE sessions SET revoked_at = clock_timestamp() WHERE id = $1 AND revoked_at IS NULL RETURNING id",
        session_id,
    )
    return ended is not None


def _typed(password: str) -> str:
    """What the password's hash was made of at sign-up; what could not be stored stays as it is and matches nothing."""
    return unicodedata.normalize("NFKC", password[: LENGTH_MAX + 1])


def _wrong(message: str) -> Refused:
    return refuse(ErrorCode.INVALID_CREDENTIALS, message)
