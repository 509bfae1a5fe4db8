"""What accounts ask for: stored once for each key, bounded, listed for their owner."""

import asyncio

import pytest

from app.accounts.asset_requests import (
    PENDING_MAX,
    AssetRequestStatus,
    asset_requests_by_id,
    asset_requests_page,
    submit_asset_request,
)
from app.accounts.principals import AccountPrincipal
from app.accounts.sessions import log_out
from app.admin.requests import review_asset_request
from app.db import Database
from app.errors import ErrorCode, Refused, Unauthenticated
from app.idempotency import KeyedOutcome
from app.paging import Window
from tests.accounts.people import new_account, new_admin, set_frozen, unique, value

COUNT = "SELECT count(*) FROM asset_requests WHERE account_id = $1"


async def submit(
    database: Database,
    principal: AccountPrincipal,
    *,
    name: str = "Rain in Bergen",
    description: str = "Millimetres a day",
    source_hint: str | None = None,
    key: str | None = None,
) -> KeyedOutcome:
    async with database.transaction() as unit:
        return await submit_asset_request(
            unit=unit, principal=principal, name=name, description=description, source_hint=source_hint,
            idempotency_key=key or unique("key"),
        )  # fmt: skip


async def test_a_request_is_stored_as_it_was_asked(database: Database) -> None:
    account = await new_account(database)
    made = await submit(
        database, account.principal, name=" " + "n" * 80, description="line\r\n" + "d" * 1_995, source_hint="h" * 500
    )
    assert made.id is not None
    async with database.acquire() as connection:
        request = (await asset_requests_by_id(connection=connection, ids=[made.id]))[made.id]
    assert (request.account_id, request.name, request.description) == (
        account.account_id, "n" * 80, "line\n" + "d" * 1_995,
    )  # fmt: skip
    assert (request.source_hint, request.status) == ("h" * 500, AssetRequestStatus.PENDING)
    assert request.admin_notes is None
    assert request.asset_id is None


@pytest.mark.parametrize("hint", [None, "", "  "])
async def test_a_hint_is_optional(database: Database, hint: str | None) -> None:
    account = await new_account(database)
    made = await submit(database, account.principal, source_hint=hint)
    assert await value(database, "SELECT source_hint FROM asset_requests WHERE id = $1", made.id) is None


@pytest.mark.parametrize(
    ("name", "description", "hint", "field"),
    [
        ("", "d", None, "name"),
        ("n" * 81, "d", None, "name"),
        ("n\n", " ", None, "description"),
        ("n", "d" * 2_001, None, "description"),
        ("n", "a\x00", None, "description"),
        ("n", "d", "h" * 501, "sourceHint"),
    ],
)
async def test_a_bad_form_is_refused_and_binds_nothing(
    database: Database, name: str, description: str, hint: str | None, field: str
) -> None:
    account = await new_account(database)
    with pytest.raises(Refused) as caught:
        await submit(database, account.principal, name=name, description=description, source_hint=hint, key="k")
    assert caught.value.refusal.code is ErrorCode.INVALID_INPUT
    assert caught.value.refusal.field == ("input", field)
    assert await value(database, COUNT, account.account_id) == 0
    assert (await submit(database, account.principal, key="k")).repeated is False


async def test_a_key_makes_one_request(database: Database) -> None:
    account = await new_account(database)
    ends = await asyncio.gather(*(submit(database, account.principal, key="k") for _ in range(10)))
    assert len({end.id for end in ends}) == 1
    with pytest.raises(Refused) as caught:
        await submit(database, account.principal, name="Snow in Bergen", key="k")
    assert caught.value.refusal.code is ErrorCode.IDEMPOTENCY_KEY_REUSED
    assert await value(database, COUNT, account.account_id) == 1


async def test_twenty_may_wait(database: Database) -> None:
    account = await new_account(database)
    ends = await asyncio.gather(*(submit(database, account.principal) for _ in range(PENDING_MAX + 3)))
    assert [end.refusal.code for end in ends if end.refusal] == [ErrorCode.CONFLICT] * 3
    assert await value(database, COUNT, account.account_id) == PENDING_MAX
    admin, request_id = await new_admin(database), next(end.id for end in ends if end.id is not None)
    async with database.transaction() as unit:
        await review_asset_request(unit=unit, principal=admin, request_id=request_id, approve=False, notes=None)
    assert (await submit(database, account.principal)).refusal is None


async def test_frozen_accounts_and_ended_sessions_ask_for_nothing(database: Database) -> None:
    account = await new_account(database)
    await set_frozen(database, account.account_id, frozen=True)
    frozen = await submit(database, account.principal)
    assert frozen.refusal is not None
    assert frozen.refusal.code is ErrorCode.ACCOUNT_FROZEN
    await set_frozen(database, account.account_id, frozen=False)
    async with database.transaction() as unit:
        await log_out(unit=unit, principal=account.principal)
    with pytest.raises(Unauthenticated):
        await submit(database, account.principal)
    assert await value(database, COUNT, account.account_id) == 0


async def test_the_list_is_newest_first_and_the_accounts_own(database: Database) -> None:
    account, other = await new_account(database), await new_account(database)
    ids = [(await submit(database, account.principal)).id for _ in range(5)]
    await submit(database, other.principal)
    newest: Window[int] = Window(limit=2)
    async with database.acquire() as connection:
        first = await asset_requests_page(connection=connection, account_id=account.account_id, window=newest)
        assert [request.id for request in first.rows] == [ids[4], ids[3]]
        assert (first.has_next, first.has_previous) == (True, False)
        rest = await asset_requests_page(
            connection=connection, account_id=account.account_id, window=Window(limit=3, after=first.rows[-1].id)
        )
    assert [request.id for request in rest.rows] == [ids[2], ids[1], ids[0]]
    assert (rest.has_next, rest.has_previous) == (False, True)
