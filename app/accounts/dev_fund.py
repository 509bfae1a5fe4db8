"""Test funds from nowhere, in development only: a transfer from the platform's DEVELOPMENT account."""

from typing import TYPE_CHECKING, Final

from app.accounts.account_events import append_transfer
from app.accounts.credentials import require_live_account
from app.accounts.principals import AccountPrincipal
from app.accounts.profiles import frozen_refusal
from app.db import Connection, Unit
from app.errors import Forbidden, Refused, invalid, quoted
from app.idempotency import KeyedOutcome, account_owner, checked_key, hash_input, run_once
from app.ledger.currencies import Currency
from app.ledger.journal import (
    Journal,
    LedgerKind,
    TransferReason,
    load_balances,
    lock_platform_balance,
    reserve_ids,
)
from app.ledger.locks import lock
from app.money import MONEY_BALANCE_MAX, MONEY_DECIMALS, MONEY_UNIT, money_text, parse

if TYPE_CHECKING:
    from app.bus import Bus

AMOUNT_MAX: Final = 10**9 * MONEY_UNIT
"""The most that one call gives, in base units: 10^9 of the currency."""


async def dev_fund(
    *,
    unit: Unit,
    principal: AccountPrincipal,
    currency: Currency,
    amount: str,
    idempotency_key: str,
    development: bool,
    bus: "Bus | None" = None,
) -> KeyedOutcome:
    """Credit `amount` (decimal text, 0.000001 to 10^9) once for each key; the outcome's id is the transfer's.

    `bus` is told of the account's event after the commit; without it readers find the event a little later.
    Raises `Forbidden` where `development` is False; `Refused` for what binds no key: INVALID_INPUT and
    IDEMPOTENCY_KEY_REUSED; `Unauthenticated` when the session or key has ended meanwhile. The outcome's refusal is
    ACCOUNT_FROZEN, or INVALID_INPUT when a balance would outgrow what can be stored.
    """
    if not development:
        raise Forbidden("devFund exists only where the server runs in development mode.")
    key = checked_key(idempotency_key)
    units = parse(amount, decimals=MONEY_DECIMALS, field=("input", "amount"), minimum=1, maximum=AMOUNT_MAX)
    account_id = principal.account_id
    locked = await lock(unit.connection, account_ids=[account_id])
    await require_live_account(unit.connection, principal=principal)

    async def decide() -> int:
        if locked.accounts[account_id]["frozen"]:
            raise Refused(frozen_refusal())
        return await _credit(unit.connection, account_id=account_id, currency=currency, units=units)

    outcome = await run_once(
        unit.connection, owner=account_owner(account_id), mutation="devFund", key=key,
        input_hash=hash_input({"currency": currency.value, "amount": units}), decide=decide,
    )  # fmt: skip
    if bus is not None and outcome.refusal is None and not outcome.repeated:
        unit.after_commit(lambda: bus.publish_changes(accounts=[account_id]))
    return outcome


async def _credit(connection: Connection, *, account_id: int, currency: Currency, units: int) -> int:
    balances = await load_balances(connection, account_ids=[account_id], currencies=[currency.value])
    available = next(balance for balance in balances if balance.kind is LedgerKind.AVAILABLE)
    source = await lock_platform_balance(connection, kind=LedgerKind.DEVELOPMENT, currency=currency.value)
    owned = sum(balance.balance for balance in balances)
    room = min(MONEY_BALANCE_MAX - owned, MONEY_BALANCE_MAX + source.balance)
    if units > room:
        raise invalid(
            f"amount {quoted(money_text(units))} is more than can be added here: at most {money_text(max(room, 0))} "
            f"{currency.value} more fits the account and all test funds. Ask for less, with a new idempotencyKey.",
            "input", "amount",
        )  # fmt: skip
    at = await connection.fetchval("SELECT clock_timestamp()")
    journal = Journal(at, await reserve_ids(connection, sequence="transfers_id_seq", count=1))
    transfer_id = journal.post(
        reason=TransferReason.DEV_FUND, ref=f"Account:{account_id}", legs=[(source, -units), (available, units)]
    )
    await journal.write(connection)
    await append_transfer(
        connection, account_id=account_id, at=at, transfer_id=transfer_id, currency=currency,
        available=available.balance, held=owned + units - available.balance,
    )  # fmt: skip
    return transfer_id
