"""Admins' view of accounts, and freezing them."""

from app.accounts.credentials import require_live_admin
from app.accounts.principals import AdminPrincipal
from app.accounts.profiles import COLUMNS, Account, account_from_row
from app.admin.audit_log import append, checked_reason
from app.db import Connection, Unit
from app.errors import ErrorCode, refuse
from app.ledger.locks import lock
from app.paging import Listing, Page, Window, fetch_page
from app.text import is_showable


async def freeze_account(
    *, unit: Unit, principal: AdminPrincipal, account_id: int, frozen: bool, reason: str
) -> Account:
    """Freeze or unfreeze an account, after what it has under way. Doing it again changes nothing but is logged.

    Raises `Refused`: INVALID_INPUT for the reason, NOT_FOUND; `Unauthenticated` when the session has ended meanwhile.
    """
    checked = checked_reason(reason)
    locked = await lock(unit.connection, account_ids=[account_id])
    await require_live_admin(unit.connection, principal=principal)
    if account_id not in locked.accounts:
        raise refuse(ErrorCode.NOT_FOUND, "There is no account with this accountId.", "input", "accountId")
    row = await unit.connection.fetchrow(
        f"UPDATE accounts SET frozen = $2 WHERE id = $1 RETURNING {COLUMNS}", account_id, frozen
    )
    if row is None:
        raise LookupError("a locked account has gone")
    await append(
        unit=unit, actor=principal.name, action="accountFreeze", target=f"Account:{account_id}", reason=checked,
        before={"frozen": locked.accounts[account_id]["frozen"]}, after={"frozen": frozen},
    )  # fmt: skip
    return account_from_row(row)


async def accounts_page(*, connection: Connection, search: str | None, window: Window[int]) -> Page[Account]:
    """Accounts whose e-mail contains `search` (any case), newest first."""
    wanted = (search or "").strip().lower()
    if not all(is_showable(character) for character in wanted):
        return Page([], has_next=False, has_previous=False)
    conditions, parameters = (["position($1 IN email) > 0"], [wanted]) if wanted else ([], [])
    listing = Listing(COLUMNS, "accounts", conditions, parameters, "id", descending=True)
    return await fetch_page(connection, listing, window, account_from_row)
