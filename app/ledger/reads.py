"""Reading the ledger: an account's balances and its statement of entries. Plain selects; nothing here writes."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg

from app.db import Connection
from app.ledger.currencies import Currency
from app.paging import Listing, Page, Window, fetch_page

_ENTRIES: Final = (
    "entries e JOIN transfers t ON t.id = e.transfer_id JOIN ledger_accounts l ON l.id = e.ledger_account_id"
)
_ENTRY_COLUMNS: Final = "e.id, e.account_id, e.amount, e.balance_after, l.currency, t.reason, t.ref, t.at"


@dataclass(frozen=True, slots=True)
class Cash:
    """An account's money in one currency, in 10^-6: what it may use, and what open orders hold."""

    account_id: int
    currency: Currency
    available: int
    held: int

    @property
    def total(self) -> int:
        """Available and held."""
        return self.available + self.held


@dataclass(frozen=True, slots=True)
class StatementEntry:
    """One entry of an account's statement. Amounts in base units of `currency`: money 10^-6, shares 10^-9."""

    id: int
    account_id: int
    amount: int
    balance_after: int
    currency: str
    reason: str
    ref: str | None
    at: datetime


async def cash_of(*, connection: Connection, account_ids: Collection[int]) -> dict[int, list[Cash]]:
    """Each account's money, one figure for each stablecoin, in their order; nothing at all counts as zero."""
    rows = await connection.fetch(
        "SELECT account_id, currency, kind, balance FROM ledger_accounts"
        " WHERE account_id = ANY($1::bigint[]) AND asset_id IS NULL AND kind IN ('AVAILABLE', 'HELD')",
        list(account_ids),
    )
    units: dict[tuple[int, str, str], int] = defaultdict(int)
    for row in rows:
        units[row["account_id"], row["currency"], row["kind"]] = row["balance"]
    return {
        account_id: [
            Cash(
                account_id,
                currency,
                available=units[account_id, currency.value, "AVAILABLE"],
                held=units[account_id, currency.value, "HELD"],
            )
            for currency in Currency
        ]
        for account_id in account_ids
    }


async def statement_page(*, connection: Connection, account_id: int, window: Window[int]) -> Page[StatementEntry]:
    """An account's entries, in money and in shares, newest first; the window's keys are entry ids."""
    listing = Listing(_ENTRY_COLUMNS, _ENTRIES, ["e.account_id = $1"], [account_id], key="e.id", descending=True)
    return await fetch_page(connection, listing, window, _entry)


async def entries_by_id(*, connection: Connection, ids: Collection[int]) -> dict[int, StatementEntry]:
    """The entries with these ids that belong to an account, whosever; those of assets and platform are missing."""
    rows = await connection.fetch(
        f"SELECT {_ENTRY_COLUMNS} FROM {_ENTRIES} WHERE e.id = ANY($1::bigint[]) AND e.account_id IS NOT NULL",
        list(ids),
    )
    return {row["id"]: _entry(row) for row in rows}


def _entry(row: asyncpg.Record) -> StatementEntry:
    return StatementEntry(
        id=row["id"],
        account_id=row["account_id"],
        amount=row["amount"],
        balance_after=row["balance_after"],
        currency=row["currency"],
        reason=row["reason"],
        ref=row["ref"],
        at=row["at"],
    )
