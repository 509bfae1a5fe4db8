"""Account events: what an account's owner must learn, in a gapless sequence of the account's own.

An event is written in the transaction of its cause, under the account's row lock: one for each order that ended, and
one for each transfer that moved the account's money otherwise. A repeated key causes nothing, so it makes none. What
an account did before these events existed has none: its sequence begins with what it does next.

Only rows live here, written and read. What they look like to a reader, and who is told of them, is decided elsewhere.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, TypeAlias

from app.copying import Value, copy_rows
from app.db import Connection
from app.ledger.currencies import Currency

if TYPE_CHECKING:
    import asyncpg

_NAMES: Final = (
    "account_id", "seq", "at", "order_id", "transfer_id", "currency", "available", "held", "asset_id", "shares",
    "cost_basis", "realized_pnl",
)  # fmt: skip
_COLUMNS: Final = ", ".join(_NAMES)
LAST_SEQ: Final = "coalesce((SELECT max(seq) FROM account_events WHERE account_id = {account}), 0)"
"""SQL: the seq of the account's last event, 0 before the first. It stands only under the account's lock, and only in a
statement that begins after that lock was taken."""

ChangeRow: TypeAlias = Sequence[Value]
"""The values of an `AccountChange`, in the order of its members."""


@dataclass(frozen=True, slots=True)
class AccountChange:
    """An event. `seq` is gapless per account, from 1; `at` is the cause's time by the database's clock.

    `order_id` is the order that ended, if one did. `transfer_id` is the transfer that moved the account's money, if one
    did: then `currency` is which, and `available` and `held` are what it has of it after that transfer (10^-6). With a
    fill come the position after it: `asset_id`, `shares` (10^-9), `cost_basis` and `realized_pnl` (10^-6).
    """

    account_id: int
    seq: int
    at: datetime
    order_id: int | None = None
    transfer_id: int | None = None
    currency: Currency | None = None
    available: int | None = None
    held: int | None = None
    asset_id: int | None = None
    shares: int | None = None
    cost_basis: int | None = None
    realized_pnl: int | None = None


async def write_account_changes(connection: Connection, rows: Iterable[ChangeRow]) -> None:
    """Store events in one statement. The caller holds the accounts' locks and has numbered the events under them."""
    await copy_rows(connection, table="account_events", columns=_NAMES, rows=rows)


async def append_transfer(
    connection: Connection,
    *,
    account_id: int,
    at: datetime,
    transfer_id: int,
    currency: Currency,
    available: int,
    held: int,
) -> None:
    """Store the event of a transfer that no order caused; the caller holds the account's lock. Balances in 10^-6."""
    await connection.execute(
        "INSERT INTO account_events (account_id, seq, at, transfer_id, currency, available, held)"
        f" VALUES ($1, {LAST_SEQ.format(account='$1')} + 1, $2, $3, $4, $5, $6)",
        account_id, at, transfer_id, currency.value, available, held,
    )  # fmt: skip


async def account_changes(
    *, connection: Connection, account_id: int, after_seq: int, limit: int
) -> list[AccountChange]:
    """An account's first `limit` events after `after_seq`, ascending."""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM account_events WHERE account_id = $1 AND seq > $2 ORDER BY seq LIMIT $3",
        account_id, after_seq, limit,
    )  # fmt: skip
    return [_change(row) for row in rows]


async def account_heads(*, connection: Connection, account_ids: Collection[int]) -> dict[int, int]:
    """The seq of each account's last event, 0 where there is none."""
    rows = await connection.fetch(
        f"SELECT a.id, {LAST_SEQ.format(account='a.id')} AS seq FROM unnest($1::bigint[]) a (id)", list(account_ids)
    )
    return {row["id"]: row["seq"] for row in rows}


def _change(row: "asyncpg.Record") -> AccountChange:
    return AccountChange(
        account_id=row["account_id"],
        seq=row["seq"],
        at=row["at"],
        order_id=row["order_id"],
        transfer_id=row["transfer_id"],
        currency=None if row["currency"] is None else Currency(row["currency"]),
        available=row["available"],
        held=row["held"],
        asset_id=row["asset_id"],
        shares=row["shares"],
        cost_basis=row["cost_basis"],
        realized_pnl=row["realized_pnl"],
    )
