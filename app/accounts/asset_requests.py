"""What accounts wish to see traded. Admins review the requests in `app.admin.requests`."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

import asyncpg

from app.accounts.credentials import require_live_account
from app.accounts.principals import AccountPrincipal
from app.accounts.profiles import frozen_refusal
from app.db import Connection, Unit
from app.errors import ErrorCode, Refused, refuse
from app.idempotency import KeyedOutcome, account_owner, checked_key, hash_input, run_once
from app.ledger.locks import lock
from app.paging import Listing, Page, Window, fetch_page
from app.text import checked_text

PENDING_MAX: Final = 20
"""Requests of one account that wait for their review."""
NAME_LENGTH_MAX: Final = 80
DESCRIPTION_LENGTH_MAX: Final = 2_000
SOURCE_HINT_LENGTH_MAX: Final = 500
COLUMNS: Final = "id, account_id, name, description, source_hint, status, admin_notes, asset_id, created_at"


class AssetRequestStatus(StrEnum):
    """Where a request stands; only PENDING ones are reviewed."""

    PENDING = "PENDING"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"


@dataclass(frozen=True, slots=True)
class AssetRequest:
    """A wish and what an admin made of it. `asset_id` is the asset that was made for it."""

    id: int
    account_id: int
    name: str
    description: str
    source_hint: str | None
    status: AssetRequestStatus
    admin_notes: str | None
    asset_id: int | None
    created_at: datetime


async def submit_asset_request(
    *,
    unit: Unit,
    principal: AccountPrincipal,
    name: str,
    description: str,
    source_hint: str | None,
    idempotency_key: str,
) -> KeyedOutcome:
    """Store a request, once for each key; the outcome's id is the request's.

    Raises `Refused` for what binds no key: INVALID_INPUT (name 1 to 80 characters, description 1 to 2,000, sourceHint
    up to 500) and IDEMPOTENCY_KEY_REUSED; `Unauthenticated` when the session or key has ended meanwhile. The outcome's
    refusal is ACCOUNT_FROZEN, or CONFLICT with `PENDING_MAX` requests waiting.
    """
    key = checked_key(idempotency_key)
    values = {
        "name": checked_text(name, field=("input", "name"), maximum=NAME_LENGTH_MAX),
        "description": checked_text(
            description, field=("input", "description"), maximum=DESCRIPTION_LENGTH_MAX, multiline=True
        ),
        "source_hint": checked_text(
            source_hint or "", field=("input", "sourceHint"), minimum=0, maximum=SOURCE_HINT_LENGTH_MAX, multiline=True
        ),
    }
    account_id = principal.account_id
    locked = await lock(unit.connection, account_ids=[account_id])
    await require_live_account(unit.connection, principal=principal)

    async def decide() -> int:
        if locked.accounts[account_id]["frozen"]:
            raise Refused(frozen_refusal())
        return await _store(unit.connection, account_id=account_id, values=values)

    return await run_once(
        unit.connection, owner=account_owner(account_id), mutation="assetRequestSubmit", key=key,
        input_hash=hash_input(values), decide=decide,
    )  # fmt: skip


async def _store(connection: Connection, *, account_id: int, values: dict[str, str]) -> int:
    pending = await connection.fetchval(
        "SELECT count(*) FROM asset_requests WHERE account_id = $1 AND status = 'PENDING'", account_id
    )
    if pending >= PENDING_MAX:
        raise refuse(
            ErrorCode.CONFLICT,
            f"{pending} of your requests wait for their review, and {PENDING_MAX} may: try again, with a new "
            "idempotencyKey, once some have been reviewed.",
        )
    request_id: int = await connection.fetchval(
        "INSERT INTO asset_requests (account_id, name, description, source_hint, status, created_at)"
        " VALUES ($1, $2, $3, nullif($4, ''), 'PENDING', clock_timestamp()) RETURNING id",
        account_id, values["name"], values["description"], values["source_hint"],
    )  # fmt: skip
    return request_id


async def asset_requests_page(*, connection: Connection, account_id: int, window: Window[int]) -> Page[AssetRequest]:
    """The account's requests, newest first."""
    listing = Listing(COLUMNS, "asset_requests", ["account_id = $1"], [account_id], "id", descending=True)
    return await fetch_page(connection, listing, window, asset_request_from_row)


async def asset_requests_by_id(*, connection: Connection, ids: Collection[int]) -> dict[int, AssetRequest]:
    """Requests by id, of whichever account: the caller checks whose they are."""
    rows = await connection.fetch(f"SELECT {COLUMNS} FROM asset_requests WHERE id = ANY($1::bigint[])", list(ids))
    return {row["id"]: asset_request_from_row(row) for row in rows}


def asset_request_from_row(row: asyncpg.Record) -> AssetRequest:
    """The request in a row that has at least `COLUMNS`."""
    return AssetRequest(
        row["id"], row["account_id"], row["name"], row["description"], row["source_hint"],
        AssetRequestStatus(row["status"]), row["admin_notes"], row["asset_id"], row["created_at"],
    )  # fmt: skip
