"""Admins' review of asset requests. An asset is made for one by `app.admin.assets`."""

from typing import Final

from app.accounts.asset_requests import COLUMNS, AssetRequest, AssetRequestStatus, asset_request_from_row
from app.accounts.credentials import require_live_admin
from app.accounts.principals import AdminPrincipal
from app.admin.audit_log import append
from app.db import Connection, Unit
from app.errors import ErrorCode, quoted, refuse
from app.paging import Listing, Page, Window, fetch_page
from app.text import checked_text

NOTES_LENGTH_MAX: Final = 2_000


async def review_asset_request(
    *, unit: Unit, principal: AdminPrincipal, request_id: int, approve: bool, notes: str | None
) -> AssetRequest:
    """Approve or reject a PENDING request. `notes` (up to 2,000 characters) are shown to who asked.

    Raises `Refused`: INVALID_INPUT for the notes, NOT_FOUND, CONFLICT for one that was reviewed already;
    `Unauthenticated` when the session has ended meanwhile.
    """
    checked = checked_text(
        notes or "", field=("input", "notes"), minimum=0, maximum=NOTES_LENGTH_MAX, multiline=True
    ) or None  # fmt: skip
    request = await lock_request(unit.connection, request_id=request_id)
    await require_live_admin(unit.connection, principal=principal)
    if request.status is not AssetRequestStatus.PENDING:
        raise refuse(
            ErrorCode.CONFLICT,
            f"Request {quoted(request.name, 80)} is {request.status} already, and only PENDING ones are reviewed.",
            "input", "requestId",
        )  # fmt: skip
    status = AssetRequestStatus.APPROVED if approve else AssetRequestStatus.REJECTED
    row = await unit.connection.fetchrow(
        f"UPDATE asset_requests SET status = $2, admin_notes = $3 WHERE id = $1 RETURNING {COLUMNS}",
        request_id, status.value, checked,
    )  # fmt: skip
    if row is None:
        raise LookupError("a locked request has gone")
    await append(
        unit=unit, actor=principal.name, action="assetRequestReview", target=f"AssetRequest:{request_id}",
        reason=checked, before={"status": request.status.value}, after={"status": status.value},
    )  # fmt: skip
    return asset_request_from_row(row)


async def lock_request(connection: Connection, *, request_id: int) -> AssetRequest:
    """Lock and read a request; after assets and accounts in the lock order. Raises `Refused` (NOT_FOUND)."""
    row = await connection.fetchrow(f"SELECT {COLUMNS} FROM asset_requests WHERE id = $1 FOR NO KEY UPDATE", request_id)
    if row is None:
        raise refuse(ErrorCode.NOT_FOUND, "There is no asset request with this requestId.", "input", "requestId")
    return asset_request_from_row(row)


async def review_page(
    *, connection: Connection, status: AssetRequestStatus | None, window: Window[int]
) -> Page[AssetRequest]:
    """Everybody's requests, of one status or all, newest first."""
    conditions, parameters = (["status = $1"], [status.value]) if status else ([], [])
    listing = Listing(COLUMNS, "asset_requests", conditions, parameters, "id", descending=True)
    return await fetch_page(connection, listing, window, asset_request_from_row)
