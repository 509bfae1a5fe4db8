"""API keys: only a session makes and revokes them, and what was revoked is refused at the next request."""

import asyncio

import pytest

from app.accounts.api_keys import (
    LIVE_KEYS_MAX,
    NewApiKey,
    api_keys_by_id,
    create_api_key,
    live_api_keys,
    revoke_api_key,
)
from app.accounts.authentication import Authenticator
from app.accounts.principals import AccountPrincipal, Credential, Scope
from app.accounts.sessions import log_out
from app.db import Database
from app.errors import ErrorCode, Forbidden, Refused, Unauthenticated
from tests.accounts.people import new_account, new_key, set_frozen, value

COUNT = "SELECT count(*) FROM api_keys WHERE account_id = $1"


async def created(
    database: Database, principal: AccountPrincipal, *, name: str = "bot", scopes: tuple[Scope, ...] = (Scope.READ,)
) -> NewApiKey:
    async with database.transaction() as unit:
        return await create_api_key(unit=unit, principal=principal, name=name, scopes=scopes)


async def test_a_key_is_made_shown_once_and_works(database: Database) -> None:
    account = await new_account(database)
    made = await created(database, account.principal, name=" My bot ", scopes=(Scope.TRADE, Scope.READ, Scope.TRADE))
    key = made.api_key
    assert (key.account_id, key.name, key.prefix) == (account.account_id, "My bot", made.secret[:12])
    assert key.scopes == {Scope.READ, Scope.TRADE}
    assert key.last_used_at is None
    assert key.revoked_at is None
    assert made.secret not in repr(made)
    stored = await value(database, "SELECT k::text FROM api_keys k WHERE id = $1", key.id)
    assert made.secret not in str(stored)
    principal = await Authenticator(database).principal(made.secret)
    assert principal == AccountPrincipal(account.account_id, Credential("api_key", key.id), key.scopes)


async def test_keys_are_listed_newest_first_without_the_revoked(database: Database) -> None:
    account, other = await new_account(database), await new_account(database)
    first, second, third = [(await created(database, account.principal)).api_key for _ in range(3)]
    await created(database, other.principal)
    async with database.transaction() as unit:
        revoked = await revoke_api_key(unit=unit, principal=account.principal, api_key_id=second.id)
    assert revoked.revoked_at is not None
    async with database.acquire() as connection:
        assert await live_api_keys(connection=connection, account_id=account.account_id) == [third, first]
        by_id = await api_keys_by_id(connection=connection, ids=[second.id, third.id, 10**15])
    assert by_id == {second.id: revoked, third.id: third}


async def test_a_revoked_key_is_refused_at_the_next_request(database: Database) -> None:
    account = await new_account(database)
    made = await created(database, account.principal)
    authenticator = Authenticator(database)
    await authenticator.principal(made.secret)
    for _ in range(2):  # again changes nothing
        async with database.transaction() as unit:
            key = await revoke_api_key(unit=unit, principal=account.principal, api_key_id=made.api_key.id)
        with pytest.raises(Unauthenticated):
            await authenticator.principal(made.secret)
    assert await value(database, "SELECT revoked_at FROM api_keys WHERE id = $1", key.id) == key.revoked_at


async def test_a_key_manages_no_keys(database: Database) -> None:
    account = await new_account(database)
    key, token = await new_key(database, account.account_id, *Scope)
    with pytest.raises(Forbidden):
        await created(database, key)
    with pytest.raises(Forbidden):
        async with database.transaction() as unit:
            await revoke_api_key(unit=unit, principal=key, api_key_id=key.credential.id)
    assert await value(database, COUNT, account.account_id) == 1
    assert await Authenticator(database).principal(token) == key


async def test_missing_and_other_peoples_keys_are_not_found_alike(database: Database) -> None:
    account, other = await new_account(database), await new_account(database)
    theirs = (await created(database, other.principal)).api_key
    refusals = []
    for api_key_id in (theirs.id, 10**15, -1):
        with pytest.raises(Refused) as caught:
            async with database.transaction() as unit:
                await revoke_api_key(unit=unit, principal=account.principal, api_key_id=api_key_id)
        refusals.append(caught.value.refusal)
    assert refusals == [refusals[0]] * 3
    assert refusals[0].code is ErrorCode.NOT_FOUND
    assert await value(database, "SELECT revoked_at FROM api_keys WHERE id = $1", theirs.id) is None


@pytest.mark.parametrize(
    ("name", "scopes", "field"),
    [
        ("", (Scope.READ,), "name"),
        ("x" * 65, (Scope.READ,), "name"),
        ("a\nb", (Scope.READ,), "name"),
        ("a\x00", (Scope.READ,), "name"),
        ("bot", (), "scopes"),
    ],
)
async def test_a_bad_form_is_refused(database: Database, name: str, scopes: tuple[Scope, ...], field: str) -> None:
    account = await new_account(database)
    with pytest.raises(Refused) as caught:
        await created(database, account.principal, name=name, scopes=scopes)
    assert caught.value.refusal.code is ErrorCode.INVALID_INPUT
    assert caught.value.refusal.field == ("input", field)
    assert await value(database, COUNT, account.account_id) == 0


async def test_a_name_may_have_64_characters(database: Database) -> None:
    account = await new_account(database)
    assert (await created(database, account.principal, name="x" * 64)).api_key.name == "x" * 64


async def test_an_account_has_at_most_fifty_live_keys_however_many_ask_at_once(database: Database) -> None:
    account = await new_account(database)
    for _ in range(LIVE_KEYS_MAX - 2):
        await new_key(database, account.account_id, Scope.READ)
    ends = await asyncio.gather(*(created(database, account.principal) for _ in range(5)), return_exceptions=True)
    made = [end for end in ends if isinstance(end, NewApiKey)]
    refused = [end.refusal.code for end in ends if isinstance(end, Refused)]
    assert (len(made), refused) == (2, [ErrorCode.CONFLICT] * 3)
    assert await value(database, COUNT, account.account_id) == LIVE_KEYS_MAX
    async with database.transaction() as unit:
        await revoke_api_key(unit=unit, principal=account.principal, api_key_id=made[0].api_key.id)
    await created(database, account.principal)


async def test_a_frozen_account_makes_no_key_but_may_revoke(database: Database) -> None:
    account = await new_account(database)
    made = await created(database, account.principal)
    await set_frozen(database, account.account_id, frozen=True)
    with pytest.raises(Refused) as caught:
        await created(database, account.principal)
    assert caught.value.refusal.code is ErrorCode.ACCOUNT_FROZEN
    assert await value(database, COUNT, account.account_id) == 1
    async with database.transaction() as unit:
        await revoke_api_key(unit=unit, principal=account.principal, api_key_id=made.api_key.id)
    assert await value(database, COUNT + " AND revoked_at IS NULL", account.account_id) == 0


async def test_a_session_that_ended_meanwhile_makes_and_revokes_nothing(database: Database) -> None:
    account = await new_account(database)
    made = await created(database, account.principal)
    async with database.transaction() as unit:
        await log_out(unit=unit, principal=account.principal)
    with pytest.raises(Unauthenticated):
        await created(database, account.principal)
    with pytest.raises(Unauthenticated):
        async with database.transaction() as unit:
            await revoke_api_key(unit=unit, principal=account.principal, api_key_id=made.api_key.id)
    assert await value(database, COUNT + " AND revoked_at IS NULL", account.account_id) == 1
