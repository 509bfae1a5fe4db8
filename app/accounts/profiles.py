"""Reads of accounts. What an account owns is read where it lives: balances in the ledger, positions in the exchange."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg

from app.db import Connection
from app.errors import ErrorCode, Refusal

COLUMNS: Final = "id, email, frozen, created_at"


@dataclass(frozen=True, slots=True)
class Account:
    """A customer. `email` is normalised."""

    id: int
    email: str
    frozen: bool
    created_at: datetime


async def accounts_by_id(*, connection: Connection, ids: Collection[int]) -> dict[int, Account]:
    """The accounts by id; those that do not exist are missing."""
    rows = await connection.fetch(f"SELECT {COLUMNS} FROM accounts WHERE id = ANY($1::bigint[])", list(ids))
    return {row["id"]: account_from_row(row) for row in rows}


def account_from_row(row: asyncpg.Record) -> Account:
    """The account in a row that has at least `COLUMNS`."""
    return Account(row["id"], row["email"], row["frozen"], row["created_at"])


def frozen_refusal() -> Refusal:
    """ACCOUNT_FROZEN, as every use case words it."""
    return Refusal(ErrorCode.ACCOUNT_FROZEN, "This account is frozen: it can read and move nothing. Ask support.")
