"""The audit log: one row for each admin action, written in the action's own transaction, chained by hashes.

Ids are gapless from 1. A row's `hash` is the lower-case hexadecimal SHA-256 of the UTF-8 bytes of a JSON object with
exactly these members, in the order of their names, without any white space and with non-ASCII characters as they are
(only `"`, `\\` and the control characters below U+0020 are escaped: \\b \\t \\n \\f \\r, the others as \\u00xx):

    {"action":...,"actor":...,"after":...,"at":...,"before":...,"id":...,"previous_hash":...,"reason":...,"target":...}

`id` is a JSON number; `at` is a string of the form 2025-01-31T23:59:59.000000Z (UTC, always six decimals); `before`,
`after` and `reason` are strings or null (`before` and `after` are JSON texts and enter as strings); the others are
strings. `previous_hash` is the `hash` of the row with the id before, and 64 zeros for the row with id 1.

Only appending and reading live here: what verifies the chain shares nothing with what writes it.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg

from app.db import Connection, Unit
from app.errors import isoformat
from app.paging import Listing, Page, Window, fetch_page
from app.text import checked_text

GENESIS_HASH: Final = "0" * 64
"""What the first row takes for the hash before it."""
REASON_LENGTH_MAX: Final = 500
AUDIT_LOCK: Final = 0x61756474
"""Advisory lock held from the append to the commit, so that ids follow one another. Last in the lock order."""
_COLUMNS: Final = "id, at, actor, action, target, reason, before, after, previous_hash, hash"


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One admin action. `target` names a row such as "Asset:3"; `before` and `after` are JSON texts."""

    id: int
    at: datetime
    actor: str
    action: str
    target: str
    reason: str | None
    before: str | None
    after: str | None
    previous_hash: str
    hash: str


def checked_reason(reason: str) -> str:
    """An admin's reason, 1 to 500 characters; raises `Refused` (INVALID_INPUT)."""
    return checked_text(reason, field=("input", "reason"), maximum=REASON_LENGTH_MAX, multiline=True)


async def append(
    *,
    unit: Unit,
    actor: str,
    action: str,
    target: str,
    reason: str | None,
    before: Mapping[str, object] | None,
    after: Mapping[str, object] | None,
) -> AuditEntry:
    """Write the next row. `before` and `after` hold what changed, as JSON values.

    Everything else the transaction locks must be locked already: other admins' actions wait from here to the commit.
    """
    connection = unit.connection
    # On its own: a statement that waited would not see the row that it waited for.
    await connection.execute("SELECT pg_advisory_xact_lock($1)", AUDIT_LOCK)
    row = await connection.fetchrow(
        "SELECT clock_timestamp() AS at, last.id, last.hash FROM (VALUES (1)) one"
        " LEFT JOIN (SELECT id, hash FROM audit_log ORDER BY id DESC LIMIT 1) last ON true"
    )
    if row is None:
        raise LookupError("the audit log's end could not be read")
    number = 1 if row["id"] is None else row["id"] + 1
    previous_hash = GENESIS_HASH if row["hash"] is None else row["hash"]
    members: dict[str, object] = {
        "id": number,
        "at": isoformat(row["at"]),
        "actor": actor,
        "action": action,
        "target": target,
        "reason": reason,
        "before": _json_text(before),
        "after": _json_text(after),
        "previous_hash": previous_hash,
    }
    inserted = await connection.fetchrow(
        f"INSERT INTO audit_log ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING {_COLUMNS}",
        number, row["at"], actor, action, target, reason, members["before"], members["after"], previous_hash,
        _hash(members),
    )  # fmt: skip
    if inserted is None:
        raise LookupError("the audit entry was not stored")
    return _entry(inserted)


async def audit_log_page(*, connection: Connection, window: Window[int]) -> Page[AuditEntry]:
    """The log, newest first."""
    return await fetch_page(connection, Listing(_COLUMNS, "audit_log", [], [], "id", descending=True), window, _entry)


async def audit_entries_by_id(*, connection: Connection, ids: Collection[int]) -> dict[int, AuditEntry]:
    """Entries by id."""
    rows = await connection.fetch(f"SELECT {_COLUMNS} FROM audit_log WHERE id = ANY($1::bigint[])", list(ids))
    return {row["id"]: _entry(row) for row in rows}


async def changed_assets(*, connection: Connection, after_id: int, limit: int) -> tuple[list[int], int]:
    """Assets that were made or changed after entry `after_id`, in the order of their last change, and where to go on.

    Looks at the next `limit` entries; the second answer is the id of the last one looked at, `after_id` where there is
    none. Ids are gapless and in commit order, so nothing can come to stand before an entry that has been looked at.
    """
    rows = await connection.fetch(
        "SELECT id, substring(target FROM '^Asset:([0-9]{1,18})$')::bigint AS asset_id FROM audit_log"
        " WHERE id > $1 ORDER BY id LIMIT $2",
        after_id, limit,
    )  # fmt: skip
    last_changes = {row["asset_id"]: row["id"] for row in rows if row["asset_id"] is not None}
    return sorted(last_changes, key=last_changes.__getitem__), rows[-1]["id"] if rows else after_id


async def audit_log_head(*, connection: Connection) -> int:
    """The id of the log's last entry, 0 before the first."""
    head: int = await connection.fetchval("SELECT coalesce(max(id), 0) FROM audit_log")
    return head


def _hash(members: Mapping[str, object]) -> str:
    canonical = json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _json_text(values: Mapping[str, object] | None) -> str | None:
    return None if values is None else json.dumps(values, separators=(",", ":"), ensure_ascii=False)


def _entry(row: asyncpg.Record) -> AuditEntry:
    return AuditEntry(
        row["id"], row["at"], row["actor"], row["action"], row["target"], row["reason"], row["before"], row["after"],
        row["previous_hash"], row["hash"],
    )  # fmt: skip
