"""Freezing accounts, reviewing requests, pausing trading: what changes, what is logged, what is refused."""

import asyncio

import pytest

from app.accounts.asset_requests import AssetRequest, AssetRequestStatus, submit_asset_request
from app.accounts.principals import AdminPrincipal
from app.accounts.profiles import Account, accounts_by_id
from app.accounts.sessions import log_out
from app.admin.accounts import accounts_page, freeze_account
from app.admin.pause import pause_trading
from app.admin.platform import PlatformState, platform_state
from app.admin.requests import review_asset_request, review_page
from app.db import Database
from app.errors import ErrorCode, Refused, Unauthenticated
from app.ledger.locks import hold_off_pause, lock
from app.paging import Window
from app.settings import Environment
from tests.accounts.people import elsewhere, fetch, new_account, new_admin, unique, value, wait_for_a_waiter
from tests.admin.market import logged

LOGGED = "SELECT count(*) FROM audit_log"


async def freeze(
    database: Database, admin: AdminPrincipal, account_id: int, *, frozen: bool = True, reason: str = "because"
) -> Account:
    async with database.transaction() as unit:
        return await freeze_account(unit=unit, principal=admin, account_id=account_id, frozen=frozen, reason=reason)


async def pause(database: Database, admin: AdminPrincipal, *, paused: bool, reason: str = "because") -> PlatformState:
    async with database.transaction() as unit:
        return await pause_trading(unit=unit, principal=admin, paused=paused, reason=reason)


async def review(
    database: Database, admin: AdminPrincipal, request_id: int, *, approve: bool = True, notes: str | None = None
) -> AssetRequest:
    async with database.transaction() as unit:
        return await review_asset_request(
            unit=unit, principal=admin, request_id=request_id, approve=approve, notes=notes
        )


async def a_request(database: Database) -> int:
    account = await new_account(database)
    async with database.transaction() as unit:
        made = await submit_asset_request(
            unit=unit, principal=account.principal, name="Rain", description="mm", source_hint=None,
            idempotency_key=unique("key"),
        )  # fmt: skip
    assert made.id is not None
    return made.id


async def test_an_account_is_frozen_and_freed_with_a_reason(database: Database) -> None:
    admin, account = await new_admin(database, name="grace"), await new_account(database)
    frozen = await freeze(database, admin, account.account_id, reason="Odd log-ins")
    assert (frozen.id, frozen.frozen) == (account.account_id, True)
    freed = await freeze(database, admin, account.account_id, frozen=False, reason="Explained")
    assert (freed.id, freed.frozen) == (account.account_id, False)
    assert await logged(database, f"Account:{account.account_id}") == [
        ("accountFreeze", "grace", "Odd log-ins", {"frozen": False}, {"frozen": True}),
        ("accountFreeze", "grace", "Explained", {"frozen": True}, {"frozen": False}),
    ]


async def test_a_freeze_waits_for_what_the_account_has_under_way(database: Database) -> None:
    admin, account = await new_admin(database), await new_account(database)
    async with database.transaction() as unit:
        await lock(unit.connection, account_ids=[account.account_id])
        freezing = elsewhere(freeze(database, admin, account.account_id))
        await wait_for_a_waiter(database, "FROM accounts")
        assert not freezing.done()
    assert (await freezing).frozen is True


async def test_a_refused_freeze_changes_nothing(database: Database) -> None:
    admin, account = await new_admin(database), await new_account(database)
    before = await value(database, LOGGED)
    for account_id, reason, code, field in (
        (10**15, "because", ErrorCode.NOT_FOUND, "accountId"),
        (account.account_id, "", ErrorCode.INVALID_INPUT, "reason"),
    ):
        with pytest.raises(Refused) as caught:
            await freeze(database, admin, account_id, reason=reason)
        assert (caught.value.refusal.code, caught.value.refusal.field) == (code, ("input", field))
    async with database.transaction() as unit:
        await log_out(unit=unit, principal=admin)
    with pytest.raises(Unauthenticated):
        await freeze(database, admin, account.account_id)
    assert await value(database, "SELECT frozen FROM accounts WHERE id = $1", account.account_id) is False
    assert await value(database, LOGGED) == before


async def test_an_admins_log_out_waits_for_the_action_under_way(database: Database) -> None:
    admin, account = await new_admin(database), await new_account(database)

    async def leave() -> bool:
        async with database.transaction() as unit:
            return await log_out(unit=unit, principal=admin)

    async with database.transaction() as unit:
        await freeze_account(unit=unit, principal=admin, account_id=account.account_id, frozen=True, reason="x")
        leaving = elsewhere(leave())
        await wait_for_a_waiter(database, "UPDATE sessions")
        assert not leaving.done()
    assert await leaving is True


async def test_accounts_are_found_by_part_of_their_email(database: Database) -> None:
    accounts = [await new_account(database) for _ in range(3)]
    marker = unique("needle")
    for number, account in enumerate(accounts):
        await fetch(
            database, "UPDATE accounts SET email = $2 WHERE id = $1", account.account_id, f"{number}%_{marker}@x.y"
        )
    newest: Window[int] = Window(limit=2)
    async with database.acquire() as connection:
        page = await accounts_page(connection=connection, search=f" {marker.upper()}", window=newest)
        assert [account.id for account in page.rows] == [accounts[2].account_id, accounts[1].account_id]
        assert page.has_next is True
        rest = await accounts_page(connection=connection, search=marker, window=Window(limit=2, after=page.rows[-1].id))
        assert [account.id for account in rest.rows] == [accounts[0].account_id]
        assert rest.has_next is False
        # What LIKE would take for wildcards is text.
        assert (await accounts_page(connection=connection, search=f"1%_{marker}", window=newest)).rows == [page.rows[1]]
        for nobody in (f"%{marker}", f"{marker}_x.y", f"{marker}@%", "\x00", "\ud800"):
            assert (await accounts_page(connection=connection, search=nobody, window=newest)).rows == []
        everybody = await accounts_page(connection=connection, search=None, window=newest)
        assert everybody.rows[0].id >= accounts[2].account_id
        by_id = await accounts_by_id(connection=connection, ids=[accounts[0].account_id, 10**15])
    assert by_id == {accounts[0].account_id: rest.rows[0]}


@pytest.mark.parametrize(
    ("approve", "status"), [(True, AssetRequestStatus.APPROVED), (False, AssetRequestStatus.REJECTED)]
)
async def test_a_pending_request_is_reviewed_once(
    database: Database, approve: bool, status: AssetRequestStatus
) -> None:
    admin = await new_admin(database, name="grace")
    request_id = await a_request(database)
    reviewed = await review(database, admin, request_id, approve=approve, notes=" Good\r\nidea ")
    assert (reviewed.id, reviewed.status, reviewed.admin_notes) == (request_id, status, "Good\nidea")
    for again in (True, False):
        with pytest.raises(Refused) as caught:
            await review(database, admin, request_id, approve=again, notes="No")
        assert caught.value.refusal.code is ErrorCode.CONFLICT
        assert caught.value.refusal.field == ("input", "requestId")
    [row] = await fetch(database, "SELECT status, admin_notes FROM asset_requests WHERE id = $1", request_id)
    assert tuple(row) == (status.value, "Good\nidea")
    assert await logged(database, f"AssetRequest:{request_id}") == [
        ("assetRequestReview", "grace", "Good\nidea", {"status": "PENDING"}, {"status": status.value})
    ]


async def test_of_reviews_at_once_one_counts(database: Database) -> None:
    request_id = await a_request(database)
    admins = [await new_admin(database) for _ in range(6)]
    ends = await asyncio.gather(
        *(review(database, admin, request_id, approve=bool(n % 2)) for n, admin in enumerate(admins)),
        return_exceptions=True,
    )
    assert sum(isinstance(end, AssetRequest) for end in ends) == 1
    assert [end.refusal.code for end in ends if isinstance(end, Refused)] == [ErrorCode.CONFLICT] * 5
    assert len(await logged(database, f"AssetRequest:{request_id}")) == 1


async def test_a_refused_review_changes_nothing(database: Database) -> None:
    admin, request_id = await new_admin(database), await a_request(database)
    before = await value(database, LOGGED)
    for wanted, notes, code, field in (
        (10**15, None, ErrorCode.NOT_FOUND, "requestId"),
        (request_id, "n" * 2_001, ErrorCode.INVALID_INPUT, "notes"),
    ):
        with pytest.raises(Refused) as caught:
            await review(database, admin, wanted, notes=notes)
        assert (caught.value.refusal.code, caught.value.refusal.field) == (code, ("input", field))
    async with database.transaction() as unit:
        await log_out(unit=unit, principal=admin)
    with pytest.raises(Unauthenticated):
        await review(database, admin, request_id)
    assert await value(database, "SELECT status FROM asset_requests WHERE id = $1", request_id) == "PENDING"
    assert await value(database, LOGGED) == before


async def test_admins_see_everybodys_requests_by_status(database: Database) -> None:
    admin = await new_admin(database)
    first, second, third = [await a_request(database) for _ in range(3)]
    await review(database, admin, second, approve=False)
    newest: Window[int] = Window(limit=2)
    async with database.acquire() as connection:
        everything = await review_page(connection=connection, status=None, window=newest)
        pending = await review_page(connection=connection, status=AssetRequestStatus.PENDING, window=newest)
        rejected = await review_page(connection=connection, status=AssetRequestStatus.REJECTED, window=newest)
    assert [request.id for request in everything.rows] == [third, second]
    assert [request.id for request in pending.rows] == [third, first]
    assert rejected.rows[0].id == second
    assert (everything.has_next, pending.has_previous) == (True, False)


async def test_trading_is_paused_and_resumed_with_a_reason(database: Database) -> None:
    admin = await new_admin(database, name="grace")
    before = len(await logged(database, "Platform:1"))
    try:
        paused = await pause(database, admin, paused=True, reason="Odd prices")
        assert paused == PlatformState(Environment.DEVELOPMENT, True, "Odd prices")
        async with database.acquire() as connection:
            assert await platform_state(connection=connection) == paused
        with pytest.raises(Refused) as caught:
            await pause(database, admin, paused=False, reason=" ")
        assert caught.value.refusal.field == ("input", "reason")
        async with database.acquire() as connection:
            assert await platform_state(connection=connection) == paused
    finally:
        resumed = await pause(database, admin, paused=False, reason="All is well")
    assert resumed == PlatformState(Environment.DEVELOPMENT, False, None)
    assert (await logged(database, "Platform:1"))[before:] == [
        (
            "tradingPause", "grace", "Odd prices",
            {"tradingPaused": False, "reason": None}, {"tradingPaused": True, "reason": "Odd prices"},
        ),
        (
            "tradingPause", "grace", "All is well",
            {"tradingPaused": True, "reason": "Odd prices"}, {"tradingPaused": False, "reason": None},
        ),
    ]  # fmt: skip


async def test_a_pause_waits_for_trades_under_way(database: Database) -> None:
    admin = await new_admin(database)
    try:
        async with database.transaction() as unit:
            await hold_off_pause(unit.connection)
            pausing = elsewhere(pause(database, admin, paused=True))
            await wait_for_a_waiter(database, "pg_advisory_xact_lock")
            assert not pausing.done()
            assert await value(database, "SELECT trading_paused FROM platform") is False
        assert (await pausing).trading_paused is True
    finally:
        await pause(database, admin, paused=False)


async def test_an_ended_session_pauses_nothing(database: Database) -> None:
    admin = await new_admin(database)
    async with database.transaction() as unit:
        await log_out(unit=unit, principal=admin)
    before = await value(database, LOGGED)
    with pytest.raises(Unauthenticated):
        await pause(database, admin, paused=True)
    assert await value(database, "SELECT trading_paused FROM platform") is False
    assert await value(database, LOGGED) == before
