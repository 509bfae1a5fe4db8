"""New accounts: in two steps, so that no transaction waits while the password is hashed."""

from dataclasses import dataclass, field
from datetime import timedelta

import asyncpg

from app.accounts.emails import normalised_email
from app.accounts.passwords import PasswordHasher, checked_password
from app.accounts.sessions import LoggedIn, open_session
from app.db import Unit
from app.errors import ErrorCode, invalid, quoted, refuse
from app.ledger.currencies import Currency
from app.ledger.journal import LedgerKind, open_ledger_accounts


@dataclass(frozen=True, slots=True)
class NewAccount:
    """A sign-up whose form is right and whose password is hashed."""

    email: str
    password_hash: str = field(repr=False)


async def prepare_sign_up(*, hasher: PasswordHasher, email: str, password: str) -> NewAccount:
    """Check the form and hash the password, outside any transaction.

    Raises `Refused`: INVALID_INPUT for the e-mail, WEAK_PASSWORD, OVERLOADED when too many wait.
    """
    address = normalised_email(email)
    checked = checked_password(password, email=address)
    return NewAccount(address, await hasher.hash(checked))


async def sign_up(*, unit: Unit, account: NewAccount, session_lifetime: timedelta) -> LoggedIn:
    """Make the account, its empty balances and a first session.

    Raises `Refused`: ALREADY_EXISTS when the e-mail is taken.
    """
    try:
        account_id = await unit.connection.fetchval(
            "INSERT INTO accounts (email, password_hash, created_at) VALUES ($1, $2, clock_timestamp())"
            " ON CONFLICT (email) DO NOTHING RETURNING id",
            account.email, account.password_hash,
        )  # fmt: skip
    except asyncpg.CheckViolationError:
        # A letter whose lower case the database sees otherwise: the address has no one spelling.
        raise invalid(
            f"email {quoted(account.email)} has letters without a clear lower case: use another address.",
            "input", "email",
        ) from None  # fmt: skip
    if account_id is None:
        raise refuse(
            ErrorCode.ALREADY_EXISTS,
            f"An account with the e-mail {quoted(account.email, 254)} exists already: log in, or use another address.",
            "input", "email",
        )  # fmt: skip
    kinds = (LedgerKind.AVAILABLE, LedgerKind.HELD)
    for currency in Currency:
        await open_ledger_accounts(unit.connection, currency=currency.value, kinds=kinds, account_id=account_id)
    session = await open_session(unit.connection, account_id=account_id, lifetime=session_lifetime)
    return LoggedIn(account_id, session)
