"""Whether a credential still holds, asked again inside the transaction that acts on it.

Ending an account's session or key takes the account's lock, so whoever holds that lock sees a final answer; an
admin's session is read with a row lock that its end waits for.
"""

from app.accounts.principals import AccountPrincipal, AdminPrincipal
from app.db import Connection
from app.errors import Unauthenticated

_LIVE_SESSION = (
    "SELECT 1 FROM sessions WHERE id = $1 AND account_id = $2 AND revoked_at IS NULL AND expires_at > clock_timestamp()"
)
_LIVE_API_KEY = "SELECT 1 FROM api_keys WHERE id = $1 AND account_id = $2 AND revoked_at IS NULL"
_LIVE_ADMIN_SESSION = (
    "SELECT 1 FROM sessions WHERE id = $1 AND admin_name = $2 AND revoked_at IS NULL"
    " AND expires_at > clock_timestamp() FOR SHARE"
)


async def require_live_account(connection: Connection, *, principal: AccountPrincipal) -> None:
    """Raise `Unauthenticated` when the session or key has ended. The caller holds the account's lock."""
    sql = _LIVE_SESSION if principal.credential.kind == "session" else _LIVE_API_KEY
    if await connection.fetchval(sql, principal.credential.id, principal.account_id) is None:
        raise Unauthenticated("This session or API key has ended: log in again.")


async def require_live_admin(connection: Connection, *, principal: AdminPrincipal) -> None:
    """Raise `Unauthenticated` when the admin's session has ended; keeps it from ending until the transaction does."""
    if await connection.fetchval(_LIVE_ADMIN_SESSION, principal.session_id, principal.name) is None:
        raise Unauthenticated("This admin session has ended: log in again.")
