"""API keys: bots' credentials, with scopes. Only a session makes, lists and revokes them, never a key."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import asyncpg

from app.accounts.credentials import require_live_account
from app.accounts.principals import AccountPrincipal, Scope
from app.accounts.profiles import frozen_refusal
from app.accounts.tokens import TokenKind, new_token
from app.db import Connection, Unit
from app.errors import ErrorCode, Forbidden, Refused, invalid, refuse
from app.ledger.locks import lock
from app.text import checked_text

LIVE_KEYS_MAX: Final = 50
"""Keys of one account that are not revoked."""
NAME_LENGTH_MAX: Final = 64
_COLUMNS: Final = "id, account_id, name, prefix, scopes, created_at, last_used_at, revoked_at"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as its owner sees it. `last_used_at` is up to a minute behind; `revoked_at` is None while it works."""

    id: int
    account_id: int
    name: str
    prefix: str
    scopes: frozenset[Scope]
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A key just made. `secret` goes to its owner once."""

    api_key: ApiKey
    secret: str = field(repr=False)


async def create_api_key(*, unit: Unit, principal: AccountPrincipal, name: str, scopes: Collection[Scope]) -> NewApiKey:
    """Make a key of the caller's account. `name` has 1 to 64 printable characters.

    Raises `Forbidden` for an API key; `Refused`: INVALID_INPUT, ACCOUNT_FROZEN, CONFLICT at `LIVE_KEYS_MAX` keys;
    `Unauthenticated` when the session has ended meanwhile.
    """
    _require_session(principal)
    checked_name = checked_text(name, field=("input", "name"), maximum=NAME_LENGTH_MAX)
    if not scopes:
        raise invalid("scopes must name at least one of READ, TRADE and WITHDRAW; got none.", "input", "scopes")
    locked = await lock(unit.connection, account_ids=[principal.account_id])
    await require_live_account(unit.connection, principal=principal)
    if locked.accounts[principal.account_id]["frozen"]:
        raise Refused(frozen_refusal())
    live = await unit.connection.fetchval(
        "SELECT count(*) FROM api_keys WHERE account_id = $1 AND revoked_at IS NULL", principal.account_id
    )
    if live >= LIVE_KEYS_MAX:
        raise refuse(ErrorCode.CONFLICT, f"An account has at most {LIVE_KEYS_MAX} API keys: revoke one first.")
    token = new_token(TokenKind.API_KEY)
    row = await unit.connection.fetchrow(
        "INSERT INTO api_keys (account_id, name, prefix, token_hash, scopes, created_at)"
        f" VALUES ($1, $2, $3, $4, $5, clock_timestamp()) RETURNING {_COLUMNS}",
        principal.account_id, checked_name, token.shown, token.digest, sorted(set(scopes)),
    )  # fmt: skip
    if row is None:
        raise LookupError("the API key was not stored")
    return NewApiKey(_api_key(row), token.text)


async def revoke_api_key(*, unit: Unit, principal: AccountPrincipal, api_key_id: int) -> ApiKey:
    """End a key of the caller's account, after what it has under way. Revoking it again changes nothing.

    Raises `Forbidden` for an API key; `Refused` (NOT_FOUND) for a key that is missing or somebody else's, alike;
    `Unauthenticated` when the session has ended meanwhile.
    """
    _require_session(principal)
    await lock(unit.connection, account_ids=[principal.account_id])
    await require_live_account(unit.connection, principal=principal)
    row = await unit.connection.fetchrow(
        "UPDATE api_keys SET revoked_at = coalesce(revoked_at, clock_timestamp()) WHERE id = $1 AND account_id = $2"
        f" RETURNING {_COLUMNS}",
        api_key_id, principal.account_id,
    )  # fmt: skip
    if row is None:
        raise refuse(ErrorCode.NOT_FOUND, "You have no API key with this id.", "id")
    return _api_key(row)


async def live_api_keys(*, connection: Connection, account_id: int) -> list[ApiKey]:
    """The account's keys that are not revoked, newest first; at most `LIVE_KEYS_MAX`."""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM api_keys WHERE account_id = $1 AND revoked_at IS NULL ORDER BY id DESC", account_id
    )
    return [_api_key(row) for row in rows]


async def api_keys_by_id(*, connection: Connection, ids: Collection[int]) -> dict[int, ApiKey]:
    """Keys by id, revoked ones too, of whichever account: the caller checks whose they are."""
    rows = await connection.fetch(f"SELECT {_COLUMNS} FROM api_keys WHERE id = ANY($1::bigint[])", list(ids))
    return {row["id"]: _api_key(row) for row in rows}


def _require_session(principal: AccountPrincipal) -> None:
    if principal.credential.kind != "session":
        raise Forbidden("Only a session manages API keys, never a key: log in.")


def _api_key(row: asyncpg.Record) -> ApiKey:
    scopes = frozenset(Scope(scope) for scope in row["scopes"])
    return ApiKey(
        row["id"], row["account_id"], row["name"], row["prefix"], scopes,
        row["created_at"], row["last_used_at"], row["revoked_at"],
    )  # fmt: skip
