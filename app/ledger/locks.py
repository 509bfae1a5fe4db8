"""The one lock order of every transaction that moves money: assets by id, then accounts by id.

Everything that decides (keys, statuses, sessions, balances) is read after these locks, never before. An asset's lock
guards its ledger accounts, an account's lock guards its ledger accounts, positions, orders and keys.

Around these two stand, in the same order everywhere: the pause lock and an admin's key lock (`app.idempotency`) before
them; the platform's own ledger accounts, asset requests and the audit log's end (`app.admin.audit_log`) after them.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import asyncpg

from app.db import Connection

PAUSE_LOCK: Final = 0x70617573
"""Advisory: trades hold it shared, the platform-wide pause takes it alone: a pause that returned has no stragglers."""


@dataclass(frozen=True, slots=True)
class Locked:
    """The rows as they are under lock, by id. What does not exist is missing."""

    assets: dict[int, asyncpg.Record]
    accounts: dict[int, asyncpg.Record]


async def lock(connection: Connection, *, asset_ids: Collection[int] = (), account_ids: Collection[int] = ()) -> Locked:
    """Lock the named assets and accounts until the transaction ends, in the one order."""
    assets = accounts = []
    if asset_ids:
        assets = await connection.fetch(
            "SELECT * FROM assets WHERE id = ANY($1::bigint[]) ORDER BY id FOR NO KEY UPDATE", sorted(asset_ids)
        )
    if account_ids:
        accounts = await connection.fetch(
            "SELECT id, frozen FROM accounts WHERE id = ANY($1::bigint[]) ORDER BY id FOR NO KEY UPDATE",
            sorted(account_ids),
        )
    return Locked({row["id"]: row for row in assets}, {row["id"]: row for row in accounts})


async def hold_off_pause(connection: Connection) -> None:
    """Keep a platform-wide pause waiting until this transaction ends."""
    await connection.execute("SELECT pg_advisory_xact_lock_shared($1)", PAUSE_LOCK)


async def wait_for_trades(connection: Connection) -> None:
    """Wait for trades under way and keep new ones waiting until this transaction ends."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", PAUSE_LOCK)
