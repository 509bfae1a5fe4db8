"""Signing up, logging in and out: what is made, what is refused alike, and that a refusal changes nothing."""

import asyncio
from datetime import UTC, datetime, timedelta

import bcrypt
import pytest

from app.accounts.authentication import Authenticator
from app.accounts.passwords import Argon2Parameters, PasswordHasher
from app.accounts.principals import AccountPrincipal, Scope
from app.accounts.sessions import (
    LoggedIn,
    admin_log_in,
    admin_password_hashes,
    log_in,
    log_out,
    prove_account,
    prove_admin,
)
from app.accounts.sign_up import prepare_sign_up, sign_up
from app.db import Database
from app.errors import ErrorCode, Forbidden, Refused, Unauthenticated
from app.ledger.locks import lock
from app.settings import Settings
from tests.accounts.people import (
    HOUR,
    elsewhere,
    fetch,
    new_account,
    new_admin,
    new_key,
    new_session_token,
    unique_email,
    value,
    wait_for_a_waiter,
)

PASSWORD = "correct horse battery"


async def signed_up(database: Database, hasher: PasswordHasher, email: str) -> LoggedIn:
    account = await prepare_sign_up(hasher=hasher, email=email, password=PASSWORD)
    async with database.transaction() as unit:
        return await sign_up(unit=unit, account=account, session_lifetime=HOUR)


async def logged_in(database: Database, hasher: PasswordHasher, email: str, password: str) -> LoggedIn:
    proven = await prove_account(database=database, hasher=hasher, email=email, password=password)
    async with database.transaction() as unit:
        return await log_in(unit=unit, proven=proven, lifetime=HOUR)


async def test_sign_up_makes_an_account_with_empty_balances_and_a_session(
    database: Database, hasher: PasswordHasher
) -> None:
    email = unique_email()
    made = await signed_up(database, hasher, f"  {email.upper()} ")
    [account] = await fetch(database, "SELECT * FROM accounts WHERE id = $1", made.account_id)
    assert (account["email"], account["frozen"]) == (email, False)
    assert account["password_hash"].startswith("$argon2id$")
    ledger = await fetch(
        database,
        "SELECT kind, currency, balance, version, asset_id FROM ledger_accounts WHERE account_id = $1 ORDER BY 2, 1",
        made.account_id,
    )
    assert [tuple(row) for row in ledger] == [
        ("AVAILABLE", "USDC", 0, 0, None),
        ("HELD", "USDC", 0, 0, None),
        ("AVAILABLE", "USDT", 0, 0, None),
        ("HELD", "USDT", 0, 0, None),
    ]
    assert await Authenticator(database).principal(made.session.token) == made.principal
    assert made.principal.scopes == {Scope.READ, Scope.TRADE, Scope.WITHDRAW}
    left = made.session.expires_at - datetime.now(UTC)
    assert HOUR - timedelta(minutes=1) < left <= HOUR


async def test_no_password_or_token_is_stored_or_shown(database: Database, hasher: PasswordHasher) -> None:
    made = await signed_up(database, hasher, unique_email())
    rows = await fetch(
        database,
        "SELECT s::text || a::text AS text FROM sessions s JOIN accounts a ON a.id = s.account_id WHERE a.id = $1",
        made.account_id,
    )
    assert len(rows) == 1
    for secret in (PASSWORD, made.session.token, made.session.token.encode().hex()):
        assert secret not in rows[0]["text"]
    assert made.session.token not in repr(made)


async def test_a_taken_email_is_refused_and_changes_nothing(database: Database, hasher: PasswordHasher) -> None:
    email = unique_email()
    first = await signed_up(database, hasher, email)
    before = await value(database, "SELECT (SELECT count(*) FROM accounts) || '/' || (SELECT count(*) FROM sessions)")
    with pytest.raises(Refused) as caught:
        await signed_up(database, hasher, email.upper())
    assert caught.value.refusal.code is ErrorCode.ALREADY_EXISTS
    assert caught.value.refusal.field == ("input", "email")
    assert email in caught.value.refusal.message
    after = await value(database, "SELECT (SELECT count(*) FROM accounts) || '/' || (SELECT count(*) FROM sessions)")
    assert after == before
    assert (await logged_in(database, hasher, email, PASSWORD)).account_id == first.account_id


async def test_of_ten_sign_ups_at_once_with_one_email_one_succeeds(database: Database, hasher: PasswordHasher) -> None:
    email = unique_email()
    ends = await asyncio.gather(*(signed_up(database, hasher, email) for _ in range(10)), return_exceptions=True)
    made = [end for end in ends if isinstance(end, LoggedIn)]
    refused = [end.refusal.code for end in ends if isinstance(end, Refused)]
    assert len(made) == 1
    assert refused == [ErrorCode.ALREADY_EXISTS] * 9
    assert await value(database, "SELECT count(*) FROM accounts WHERE email = $1", email) == 1
    assert await value(database, "SELECT count(*) FROM ledger_accounts WHERE account_id = $1", made[0].account_id) == 4


async def test_a_letter_without_one_lower_case_is_refused_and_not_a_failure(
    database: Database, hasher: PasswordHasher
) -> None:
    account = await prepare_sign_up(hasher=hasher, email=unique_email(), password=PASSWORD)
    odd = type(account)(account.email.replace("person", "PERSON"), account.password_hash)
    with pytest.raises(Refused) as caught:
        async with database.transaction() as unit:
            await sign_up(unit=unit, account=odd, session_lifetime=HOUR)
    assert caught.value.refusal.code is ErrorCode.INVALID_INPUT
    assert await value(database, "SELECT count(*) FROM accounts WHERE email = $1", odd.email) == 0


async def test_log_in_opens_another_session(database: Database, hasher: PasswordHasher) -> None:
    email = unique_email()
    first = await signed_up(database, hasher, email)
    second = await logged_in(database, hasher, f" {email.upper()}", PASSWORD)
    assert second.account_id == first.account_id
    assert second.session.id != first.session.id
    authenticator = Authenticator(database)
    assert await authenticator.principal(second.session.token) == second.principal
    assert await authenticator.principal(first.session.token) == first.principal


async def test_unknown_email_and_wrong_password_are_refused_alike(database: Database, hasher: PasswordHasher) -> None:
    email = unique_email()
    made = await signed_up(database, hasher, email)
    refusals = []
    attempts = [
        (email, "wrong horse battery"), (unique_email(), PASSWORD), ("no address", PASSWORD), ("\x00", PASSWORD),
        (email, ""), (email, "\ud800"), (email, PASSWORD + "x" * 5_000), ("a" * 100_000, PASSWORD),
    ]  # fmt: skip
    for tried, password in attempts:
        with pytest.raises(Refused) as caught:
            await logged_in(database, hasher, tried, password)
        refusals.append(caught.value.refusal)
    assert refusals == [refusals[0]] * len(attempts)
    assert refusals[0].code is ErrorCode.INVALID_CREDENTIALS
    assert refusals[0].field is None
    assert await value(database, "SELECT count(*) FROM sessions WHERE account_id = $1", made.account_id) == 1


async def test_log_in_rehashes_when_the_parameters_changed(database: Database, hasher: PasswordHasher) -> None:
    email = unique_email()
    made = await signed_up(database, hasher, email)
    dearer = PasswordHasher(concurrency=1, parameters=Argon2Parameters(time_cost=2, memory_kib=16, lanes=1))
    try:
        with pytest.raises(Refused):
            await logged_in(database, dearer, email, "wrong horse battery")
        stored = "SELECT password_hash FROM accounts WHERE id = $1"
        assert str(await value(database, stored, made.account_id)).startswith("$argon2id$v=19$m=8,t=1,p=1$")
        await logged_in(database, dearer, email, PASSWORD)
        rehashed = str(await value(database, stored, made.account_id))
        assert rehashed.startswith("$argon2id$v=19$m=16,t=2,p=1$")
        await logged_in(database, dearer, email, PASSWORD)
        assert await value(database, stored, made.account_id) == rehashed
    finally:
        dearer.close()


@pytest.mark.parametrize("time_cost", [1, 2])
async def test_a_password_changed_since_it_was_proven_opens_no_session(
    database: Database, hasher: PasswordHasher, time_cost: int
) -> None:
    email = unique_email()
    made = await signed_up(database, hasher, email)
    checking = PasswordHasher(concurrency=1, parameters=Argon2Parameters(time_cost=time_cost, memory_kib=8, lanes=1))
    try:
        proven = await prove_account(database=database, hasher=checking, email=email, password=PASSWORD)
    finally:
        checking.close()
    async with database.acquire() as connection:
        await connection.execute("UPDATE accounts SET password_hash = 'changed' WHERE id = $1", made.account_id)
    with pytest.raises(Refused) as caught:
        async with database.transaction() as unit:
            await log_in(unit=unit, proven=proven, lifetime=HOUR)
    assert caught.value.refusal.code is ErrorCode.INVALID_CREDENTIALS
    assert await value(database, "SELECT password_hash FROM accounts WHERE id = $1", made.account_id) == "changed"
    assert await value(database, "SELECT count(*) FROM sessions WHERE account_id = $1", made.account_id) == 1


async def test_log_out_ends_this_session_at_once_and_no_other(database: Database) -> None:
    account = await new_account(database)
    other = await new_session_token(database, account.account_id)
    authenticator = Authenticator(database)
    async with database.transaction() as unit:
        assert await log_out(unit=unit, principal=account.principal) is True
    with pytest.raises(Unauthenticated):
        await authenticator.principal(account.session.token)
    assert isinstance(await authenticator.principal(other), AccountPrincipal)
    async with database.transaction() as unit:
        assert await log_out(unit=unit, principal=account.principal) is False


async def test_log_out_waits_for_what_the_account_has_under_way(database: Database) -> None:
    account = await new_account(database)

    async def leave() -> None:
        async with database.transaction() as unit:
            await log_out(unit=unit, principal=account.principal)

    async with database.transaction() as unit:
        await lock(unit.connection, account_ids=[account.account_id])
        leaving = elsewhere(leave())
        await wait_for_a_waiter(database, "FROM accounts")
        live = "SELECT revoked_at IS NULL FROM sessions WHERE id = $1"
        assert await value(database, live, account.session.id) is True
    await leaving
    assert await value(database, live, account.session.id) is False


async def test_an_api_key_has_no_session_to_end(database: Database) -> None:
    account = await new_account(database)
    key, token = await new_key(database, account.account_id, Scope.READ)
    with pytest.raises(Forbidden):
        async with database.transaction() as unit:
            await log_out(unit=unit, principal=key)
    assert await Authenticator(database).principal(token) == key


async def test_admins_log_in_by_the_settings_hashes(database: Database, hasher: PasswordHasher) -> None:
    settings = Settings.model_validate(
        {
            "admin_password_hash": bcrypt.hashpw(b"first secret", bcrypt.gensalt(4)).decode(),
            "admins": {"grace": await hasher.hash("second secret")},
        }
    )
    hashes = admin_password_hashes(settings)
    assert set(hashes) == {"admin", "grace"}
    for name, password in (("admin", "first secret"), ("grace", "second secret")):
        proven = await prove_admin(hasher=hasher, password_hashes=hashes, name=name, password=password)
        async with database.transaction() as unit:
            opened = await admin_log_in(unit=unit, proven=proven, lifetime=timedelta(minutes=5))
        assert opened.session.token.startswith("mga_")
        assert await Authenticator(database).principal(opened.session.token) == opened.principal
        assert opened.principal.name == name
        left = opened.session.expires_at - datetime.now(UTC)
        assert timedelta(minutes=4) < left <= timedelta(minutes=5)
        assert opened.session.token not in repr(opened)


async def test_unknown_admins_and_wrong_passwords_are_refused_alike(hasher: PasswordHasher) -> None:
    hashes = {"admin": bcrypt.hashpw(b"first secret", bcrypt.gensalt(4)).decode(), "grace": await hasher.hash("other")}
    attempts = [
        ("admin", "other"), ("grace", "first secret"), ("nobody", "first secret"), ("", ""), ("admin", "x" * 9_999),
        ("\ud800", "\ud800"),
    ]  # fmt: skip
    refusals = []
    for name, password in attempts:
        with pytest.raises(Refused) as caught:
            await prove_admin(hasher=hasher, password_hashes=hashes, name=name, password=password)
        refusals.append(caught.value.refusal)
    with pytest.raises(Refused) as caught:
        await prove_admin(hasher=hasher, password_hashes={}, name="admin", password="a password that nobody has")
    refusals.append(caught.value.refusal)
    assert refusals == [refusals[0]] * 7
    assert refusals[0].code is ErrorCode.INVALID_CREDENTIALS


async def test_an_admin_without_a_hash_cannot_log_in(hasher: PasswordHasher) -> None:
    settings = Settings.model_validate({"admins": {}})
    assert admin_password_hashes(settings) == {}


async def test_an_admin_logs_out(database: Database) -> None:
    admin = await new_admin(database)
    async with database.transaction() as unit:
        assert await log_out(unit=unit, principal=admin) is True
    assert await value(database, "SELECT revoked_at IS NULL FROM sessions WHERE id = $1", admin.session_id) is False
