"""Writing to the ledger: the balances a transaction has locked, and the journal of transfers it makes of them.

A journal is the only writer of transfers, entries and balances. It applies each transfer to the balances in memory,
so that running balances and versions are gapless by construction, and writes everything in three statements.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import asyncpg

from app.copying import copy_rows
from app.db import Connection


class LedgerKind(StrEnum):
    """What a ledger account is for; see `models.ledger.LedgerAccount`."""

    AVAILABLE = "AVAILABLE"
    HELD = "HELD"
    BACKING = "BACKING"
    SURPLUS = "SURPLUS"
    LP_CAPITAL = "LP_CAPITAL"
    ISSUED = "ISSUED"
    TREASURY = "TREASURY"
    CUSTODY = "CUSTODY"
    DEVELOPMENT = "DEVELOPMENT"


class TransferReason(StrEnum):
    """Why value moved; shown to account holders as LedgerEntry.reason."""

    TRADE = "TRADE"
    DEV_FUND = "DEV_FUND"


@dataclass(slots=True)
class LedgerBalance:
    """A ledger account as it stands in this transaction, under its owner's lock. `balance` in base units."""

    id: int
    kind: LedgerKind
    currency: str
    account_id: int | None
    asset_id: int | None
    balance: int
    version: int


@dataclass(slots=True)
class Journal:
    """The transfers of one transaction. `transfer_ids` are reserved from the sequence, one for each to come."""

    at: datetime
    transfer_ids: Sequence[int]
    _transfers: list[tuple[int, str, str | None, int]] = field(default_factory=list)
    _entries: list[tuple[int, int, int | None, int, int, int]] = field(default_factory=list)
    _touched: dict[int, LedgerBalance] = field(default_factory=dict)

    def post(self, *, reason: TransferReason, ref: str | None, legs: Iterable[tuple[LedgerBalance, int]]) -> int:
        """Apply one transfer and return its id. Legs of zero are left out.

        The legs must sum to zero in every currency and name each ledger account once; anything else is a fault of the
        caller and raises AssertionError before a balance is touched.
        """
        moved = [(balance, amount) for balance, amount in legs if amount]
        sums: dict[str, int] = defaultdict(int)
        for balance, amount in moved:
            sums[balance.currency] += amount
        if any(sums.values()) or len({balance.id for balance, _ in moved}) != len(moved) or len(moved) < 2:
            raise AssertionError(f"unbalanced transfer {reason} {ref}: {dict(sums)}")
        transfer_id = self.transfer_ids[len(self._transfers)]
        self._transfers.append((transfer_id, reason.value, ref, len(moved)))
        for balance, amount in moved:
            balance.balance += amount
            balance.version += 1
            self._entries.append(
                (transfer_id, balance.id, balance.account_id, balance.version, amount, balance.balance)
            )
            self._touched[balance.id] = balance
        return transfer_id

    async def write(self, connection: Connection) -> None:
        """Write transfers, entries (in one statement: the trigger must see each transfer whole) and balances."""
        if not self._transfers:
            return
        await copy_rows(
            connection,
            table="transfers",
            columns=("id", "reason", "ref", "entry_count", "at"),
            rows=((*transfer, self.at) for transfer in self._transfers),
        )
        await copy_rows(
            connection,
            table="entries",
            columns=("transfer_id", "ledger_account_id", "account_id", "version", "amount", "balance_after"),
            rows=self._entries,
        )
        touched = self._touched.values()
        await connection.execute(
            "UPDATE ledger_accounts l SET balance = t.balance, version = t.version"
            " FROM unnest($1::bigint[], $2::numeric[], $3::bigint[]) t (id, balance, version) WHERE l.id = t.id",
            [b.id for b in touched], [b.balance for b in touched], [b.version for b in touched],
        )  # fmt: skip


async def reserve_ids(connection: Connection, *, sequence: str, count: int) -> list[int]:
    """`count` fresh ids of `sequence`, ascending."""
    rows = await connection.fetch(f"SELECT nextval('{sequence}') AS id FROM generate_series(1, $1)", count)
    return [row["id"] for row in rows]


_COLUMNS = "id, kind, currency, account_id, asset_id, balance, version"


async def load_balances(
    connection: Connection, *, account_ids: Sequence[int] = (), asset_ids: Sequence[int] = (), currencies: Sequence[str]
) -> list[LedgerBalance]:
    """The accounts' balances in `currencies` and the assets' own; the caller holds the locks of all of them."""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM ledger_accounts WHERE account_id = ANY($1::bigint[]) AND currency = ANY($2::text[])"
        f" UNION ALL SELECT {_COLUMNS} FROM ledger_accounts WHERE account_id IS NULL AND asset_id = ANY($3::bigint[])",
        account_ids, currencies, asset_ids,
    )  # fmt: skip
    return [_balance(row) for row in rows]


async def lock_platform_balance(connection: Connection, *, kind: LedgerKind, currency: str) -> LedgerBalance:
    """Lock and load the platform's own ledger account; last in the lock order."""
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM ledger_accounts WHERE kind = $1 AND currency = $2"
        " AND account_id IS NULL AND asset_id IS NULL FOR NO KEY UPDATE",
        kind.value, currency,
    )  # fmt: skip
    if row is None:
        raise LookupError(f"the platform has no {kind} account in {currency}")
    return _balance(row)


async def open_ledger_accounts(
    connection: Connection,
    *,
    currency: str,
    kinds: Sequence[LedgerKind],
    account_id: int | None = None,
    asset_id: int | None = None,
) -> list[LedgerBalance]:
    """Open empty ledger accounts for an owner that the caller has locked or just made."""
    rows = await connection.fetch(
        "INSERT INTO ledger_accounts (kind, currency, account_id, asset_id) SELECT kind, $2, $3, $4"
        f" FROM unnest($1::text[]) kind RETURNING {_COLUMNS}",
        [kind.value for kind in kinds], currency, account_id, asset_id,
    )  # fmt: skip
    return [_balance(row) for row in rows]


def _balance(row: asyncpg.Record) -> LedgerBalance:
    return LedgerBalance(
        row["id"], LedgerKind(row["kind"]), row["currency"], row["account_id"], row["asset_id"],
        row["balance"], row["version"],
    )  # fmt: skip
