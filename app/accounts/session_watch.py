"""Which of the credentials behind open connections have ended. Closing the connections is the edge's business."""

from collections.abc import Collection
from typing import Final

from app.accounts.principals import Credential
from app.db import Connection

_ENDED: Final = """
SELECT 'session' AS kind, asked.id FROM unnest($1::bigint[]) AS asked (id)
 WHERE NOT EXISTS (SELECT FROM sessions
                    WHERE sessions.id = asked.id AND revoked_at IS NULL AND expires_at > clock_timestamp())
UNION ALL
SELECT 'api_key', asked.id FROM unnest($2::bigint[]) AS asked (id)
 WHERE NOT EXISTS (SELECT FROM api_keys WHERE api_keys.id = asked.id AND revoked_at IS NULL)
"""


async def ended_credentials(*, connection: Connection, credentials: Collection[Credential]) -> list[Credential]:
    """Those of `credentials` that are revoked, expired by the database's clock, or no longer there: one statement.

    An admin's session is a session like any other.
    """
    rows = await connection.fetch(
        _ENDED,
        [credential.id for credential in credentials if credential.kind == "session"],
        [credential.id for credential in credentials if credential.kind == "api_key"],
    )
    return [Credential("session" if row["kind"] == "session" else "api_key", row["id"]) for row in rows]
