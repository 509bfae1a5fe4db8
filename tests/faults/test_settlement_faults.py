"""Settlement when things break: failing orders, lost connections, callers who leave, keys that end, too many orders."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

import asyncpg
import pytest

from app.accounts.api_keys import create_api_key, revoke_api_key
from app.accounts.principals import AccountPrincipal, Credential, Scope
from app.accounts.sessions import log_out
from app.db import Connection, Database
from app.errors import ErrorCode, Refusal, Refused, Unauthenticated
from app.exchange import batch
from app.exchange import settlement as settling
from app.exchange.batch import OrderOutcome, Settled
from app.exchange.curve import Amounts
from app.exchange.decide import Conditions, Funds, Holding, Market, decide
from app.exchange.orders import OrderRequest, OrderStatus, Trade
from app.exchange.settlement import WAITING_PER_ACCOUNT_MAX, Settlement, SettlementUnavailable
from tests.factories import (
    Placed,
    gathered,
    load_asset,
    new_account,
    new_asset,
    order_request,
    settle_together,
    standing,
    waiting,
)
from tests.faults.inspection import connected
from tests.faults.waiting import until

BILLION = 10**9


async def outcomes(placed: Sequence[Placed]) -> list[OrderOutcome]:
    """What each of the placed orders was answered; raises what was raised to any."""
    return await asyncio.gather(*placed)


async def effects(database: Database, asset_id: int) -> tuple[int, int, int]:
    """How many orders, trades and transfers of trades the asset has."""
    async with database.acquire() as connection:
        row = await connection.fetchrow(
            "SELECT (SELECT count(*) FROM orders WHERE asset_id = $1),"
            " (SELECT count(*) FROM trades WHERE asset_id = $1),"
            " (SELECT count(*) FROM transfers WHERE ref LIKE 'Trade:' || $1 || ':%')",
            asset_id,
        )
    assert row is not None
    return row[0], row[1], row[2]


# ------------------------------------------------------------------------------------------------ a failing order


async def test_an_order_that_makes_the_pure_code_raise_spoils_nobody_elses(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    accounts = [await new_account(database, usdc="100") for _ in range(5)]
    asset_id = await new_asset(database)
    requests = [order_request(account, asset_id, shares="2", key=f"o{n}") for n, account in enumerate(accounts)]

    def fragile(
        order: OrderRequest, *, market: Market, holding: Holding, funds: Funds, frozen: bool, conditions: Conditions
    ) -> Sequence[Amounts] | Refusal:
        if order.client_order_id == "o2":
            raise ZeroDivisionError("the pure code fails on this one")
        return decide(order, market=market, holding=holding, funds=funds, frozen=frozen, conditions=conditions)

    monkeypatch.setattr(batch, "decide", fragile)
    told: list[Trade] = []
    before = await standing(database, account_id=accounts[2].account_id, asset_id=asset_id)
    with caplog.at_level(logging.WARNING):
        answers = await settle_together(database, requests, publish=told.extend)
    assert isinstance(answers[2], ZeroDivisionError)
    settled = [answer for answer in answers if isinstance(answer, OrderOutcome)]
    assert [outcome.order.client_order_id for outcome in settled] == ["o0", "o1", "o3", "o4"]
    assert [outcome.trades[0].seq for outcome in settled] == [1, 2, 3, 4]
    assert {outcome.order.status for outcome in settled} == {OrderStatus.FILLED}
    assert told == [trade for outcome in settled for trade in outcome.trades]
    assert await effects(database, asset_id) == (4, 4, 4)
    after = await standing(database, account_id=accounts[2].account_id, asset_id=asset_id)
    assert (after.balances["account AVAILABLE USDC"], after.orders, after.position) == (100 * 10**6, 0, None)
    assert before.orders == 0
    assert [record.message for record in caplog.records] == [
        "a batch of 5 failed, settling each alone",
        "order failed",
    ]
    monkeypatch.undo()
    (again,) = await settle_together(database, [requests[2]])
    assert isinstance(again, OrderOutcome)
    assert again.order.status is OrderStatus.FILLED


async def test_trades_are_told_of_once_they_are_committed(database: Database) -> None:
    account, asset_id = await new_account(database, usdc="10"), await new_asset(database)
    seen: list[asyncio.Task[int]] = []

    async def visible(trades: Sequence[Trade]) -> int:
        async with database.acquire() as connection:
            count: int = await connection.fetchval(
                "SELECT count(*) FROM trades WHERE id = ANY($1::bigint[])", [trade.id for trade in trades]
            )
            return count

    requests = [order_request(account, asset_id, shares=size) for size in ("2", "3", "100")]
    answers = await settle_together(
        database, requests, publish=lambda trades: seen.append(asyncio.ensure_future(visible(trades)))
    )
    assert [isinstance(answer, OrderOutcome) and len(answer.trades) for answer in answers] == [1, 1, 0]
    assert [await task for task in seen] == [2]


async def test_a_batch_of_refusals_is_not_told_of(database: Database) -> None:
    account, asset_id = await new_account(database), await new_asset(database)
    told: list[Sequence[Trade]] = []
    (answer,) = await settle_together(database, [order_request(account, asset_id, shares="1")], publish=told.append)
    assert isinstance(answer, OrderOutcome)
    assert answer.order.status is OrderStatus.REJECTED
    assert told == []


# ---------------------------------------------------------------------------------------------- too many orders


async def test_the_twenty_first_waiting_order_is_refused_and_binds_no_key(database: Database) -> None:
    account, other = await new_account(database, usdc="1000"), await new_account(database, usdc="1000")
    asset_id = await new_asset(database)
    requests = [order_request(account, asset_id, shares="0.1") for _ in range(WAITING_PER_ACCOUNT_MAX)]
    one_more = order_request(account, asset_id, shares="0.1")
    async with gathered(database, requests) as (settlement, placed):
        with pytest.raises(Refused) as refused:
            await settlement.place(one_more)
        (of_another,) = await waiting(settlement, [order_request(other, asset_id, shares="0.1")])
        settlement.start()
        assert {outcome.order.status for outcome in await outcomes([*placed, of_another])} == {OrderStatus.FILLED}
        assert await effects(database, asset_id) == (21, 21, 21)
        assert (await settlement.place(one_more)).order.status is OrderStatus.FILLED
    assert refused.value.refusal.code is ErrorCode.OVERLOADED
    assert refused.value.refusal.message == (
        "20 orders of this account are waiting; send the next when one is answered."
    )
    assert await effects(database, asset_id) == (22, 22, 22)


async def test_a_full_exchange_refuses_more(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "WAITING_MAX", 2)
    accounts = [await new_account(database, usdc="10") for _ in range(3)]
    asset_id = await new_asset(database)
    requests = [order_request(account, asset_id, shares="1") for account in accounts]
    async with gathered(database, requests[:2]) as (settlement, placed):
        with pytest.raises(Refused) as refused:
            await settlement.place(requests[2])
        settlement.start()
        await outcomes(placed)
    assert refused.value.refusal.code is ErrorCode.OVERLOADED
    assert await effects(database, asset_id) == (2, 2, 2)


async def test_stopping_settles_what_waits_and_takes_no_more(database: Database) -> None:
    accounts = [await new_account(database, usdc="100") for _ in range(14)]
    asset_id = await new_asset(database)
    requests = [order_request(account, asset_id, shares="0.1") for account in accounts for _ in range(20)]
    async with gathered(database, requests) as (settlement, placed):
        settlement.start()
        stopping = asyncio.create_task(settlement.stop())
        await asyncio.sleep(0)
        with pytest.raises(Refused) as refused:
            await settlement.place(order_request(accounts[0], asset_id, shares="0.1", key="late"))
        await stopping
        assert all(task.done() for task in placed)
        settled = await outcomes(placed)
    assert refused.value.refusal.code is ErrorCode.OVERLOADED
    assert sorted(outcome.trades[0].seq for outcome in settled) == list(range(1, 281))
    assert await effects(database, asset_id) == (280, 280, 280)


# -------------------------------------------------------------------------------------- credentials that end


@asynccontextmanager
async def one_waiting(
    database: Database, account: AccountPrincipal, asset_id: int
) -> AsyncIterator[tuple[Settlement, Placed]]:
    """An order that waits in front of a settlement that has not started."""
    async with gathered(database, [order_request(account, asset_id, shares="1")]) as (settlement, placed):
        yield settlement, placed[0]


async def test_a_session_that_ends_while_the_order_waits(database: Database) -> None:
    account, asset_id = await new_account(database, usdc="10"), await new_asset(database)
    before = await standing(database, account_id=account.account_id, asset_id=asset_id)
    async with one_waiting(database, account, asset_id) as (settlement, placed):
        async with database.transaction() as unit:
            assert await log_out(unit=unit, principal=account)
        settlement.start()
        with pytest.raises(Unauthenticated, match="ended while the order waited"):
            await placed
    assert await standing(database, account_id=account.account_id, asset_id=asset_id) == before


async def test_a_session_that_expires_while_the_order_waits(database: Database) -> None:
    account, asset_id = await new_account(database, usdc="10"), await new_asset(database)
    before = await standing(database, account_id=account.account_id, asset_id=asset_id)
    async with one_waiting(database, account, asset_id) as (settlement, placed):
        async with database.acquire() as connection:
            await connection.execute(
                "UPDATE sessions SET expires_at = clock_timestamp() WHERE id = $1", account.credential.id
            )
        settlement.start()
        with pytest.raises(Unauthenticated):
            await placed
    assert await standing(database, account_id=account.account_id, asset_id=asset_id) == before


async def test_a_key_that_is_revoked_while_the_order_waits(database: Database) -> None:
    account, asset_id = await new_account(database, usdc="10"), await new_asset(database)
    async with database.transaction() as unit:
        made = await create_api_key(unit=unit, principal=account, name="bot", scopes=[Scope.TRADE])
    credential = Credential("api_key", made.api_key.id)
    bot = AccountPrincipal(account.account_id, credential, frozenset({Scope.TRADE}))
    before = await standing(database, account_id=account.account_id, asset_id=asset_id)
    async with one_waiting(database, bot, asset_id) as (settlement, placed):
        async with database.transaction() as unit:
            await revoke_api_key(unit=unit, principal=account, api_key_id=made.api_key.id)
        settlement.start()
        with pytest.raises(Unauthenticated):
            await placed
    assert await standing(database, account_id=account.account_id, asset_id=asset_id) == before


# ---------------------------------------------------------------------------------------- callers who leave


async def test_a_caller_who_leaves_while_waiting_gets_a_whole_order_or_none(database: Database) -> None:
    accounts = [await new_account(database, usdc="10") for _ in range(3)]
    asset_id = await new_asset(database)
    requests = [order_request(account, asset_id, shares="2") for account in accounts]
    async with gathered(database, requests) as (settlement, placed):
        placed[1].cancel()
        settlement.start()
        first, last = await outcomes([placed[0], placed[2]])
        repeated = await settlement.place(requests[1])
    assert placed[1].cancelled()
    assert {repeated.order.status, first.order.status, last.order.status} == {OrderStatus.FILLED}
    assert await effects(database, asset_id) == (3, 3, 3)
    assert (await load_asset(database, asset_id)).supply == 6 * BILLION


async def test_a_caller_who_leaves_in_the_middle_of_the_transaction(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    account, asset_id = await new_account(database, usdc="10"), await new_asset(database)
    request = order_request(account, asset_id, shares="2")
    callers: list[Placed] = []

    async def left_alone(connection: Connection, requests: Sequence[OrderRequest]) -> Settled:
        settled = await batch.settle(connection, requests)
        callers[0].cancel()
        await asyncio.sleep(0)
        return settled

    monkeypatch.setattr(settling, "settle", left_alone)
    async with gathered(database, [request]) as (settlement, placed):
        callers.extend(placed)
        settlement.start()
        with pytest.raises(asyncio.CancelledError):
            await placed[0]
    assert await effects(database, asset_id) == (1, 1, 1)
    monkeypatch.undo()
    (repeated,) = await settle_together(database, [request])
    assert isinstance(repeated, OrderOutcome)
    assert repeated.trades[0].seq == 1
    assert await effects(database, asset_id) == (1, 1, 1)


# ------------------------------------------------------------------------------------------ lost connections


async def terminate(database: Database, pid: int) -> None:
    """End a backend of PostgreSQL and wait until it is gone."""
    async with database.acquire() as connection:
        await connection.execute("SELECT pg_terminate_backend($1, 10000)", pid)


@pytest.mark.parametrize("moment", ["before it decides", "before the commit"])
async def test_a_connection_that_is_lost_in_a_batch(
    database: Database, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    accounts = [await new_account(database, usdc="10") for _ in range(3)]
    asset_id = await new_asset(database)
    lost: list[int] = []

    async def cut(connection: Connection, requests: Sequence[OrderRequest]) -> Settled:
        pid = connection.get_server_pid()
        if not lost and moment == "before it decides":
            await terminate(database, pid)
            lost.append(pid)
        settled = await batch.settle(connection, requests)
        if not lost:
            await terminate(database, pid)
            lost.append(pid)
        return settled

    monkeypatch.setattr(settling, "settle", cut)
    told: list[Trade] = []
    requests = [order_request(account, asset_id, shares="2") for account in accounts]
    answers = await settle_together(database, requests, publish=told.extend)
    assert [isinstance(answer, OrderOutcome) and answer.order.status for answer in answers] == [OrderStatus.FILLED] * 3
    assert [trade.seq for trade in told] == [1, 2, 3]
    assert len(lost) == 1
    assert await effects(database, asset_id) == (3, 3, 3)


async def test_what_a_library_raises_on_a_dead_connection_is_not_the_orders_fault(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = [await new_account(database, usdc="10") for _ in range(2)]
    asset_id = await new_asset(database)
    raised: list[Exception] = []

    async def cut(connection: Connection, requests: Sequence[OrderRequest]) -> Settled:
        settled = await batch.settle(connection, requests)
        if not raised:
            await terminate(database, connection.get_server_pid())
            raised.append(RuntimeError("unable to perform operation on a closed transport"))
            raise raised[0]
        return settled

    monkeypatch.setattr(settling, "settle", cut)
    requests = [order_request(account, asset_id, shares="2") for account in accounts]
    answers = await settle_together(database, requests)
    assert [isinstance(answer, OrderOutcome) and answer.order.status for answer in answers] == [OrderStatus.FILLED] * 2
    assert len(raised) == 1
    assert await effects(database, asset_id) == (2, 2, 2)


async def test_a_failing_order_in_a_batch_whose_connection_is_lost_spoils_nobody_elses(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = [await new_account(database, usdc="10") for _ in range(3)]
    asset_id = await new_asset(database)
    lost: list[int] = []

    async def cut(connection: Connection, requests: Sequence[OrderRequest]) -> Settled:
        if not lost:
            lost.append(connection.get_server_pid())
            await terminate(database, lost[0])
        if any(request.client_order_id == "bad" for request in requests):
            raise ZeroDivisionError("the pure code fails on this one")
        return await batch.settle(connection, requests)

    monkeypatch.setattr(settling, "settle", cut)
    keys = ("good", "bad", "good too")
    requests = [
        order_request(account, asset_id, shares="2", key=key) for account, key in zip(accounts, keys, strict=True)
    ]
    first, failed, last = await settle_together(database, requests)
    assert isinstance(failed, ZeroDivisionError)
    assert [isinstance(answer, OrderOutcome) and answer.order.status for answer in (first, last)] == ["FILLED"] * 2
    assert await effects(database, asset_id) == (2, 2, 2)


async def test_a_connection_that_is_lost_after_the_commit(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    accounts = [await new_account(database, usdc=money) for money in ("10", "1", "10")]
    asset_id = await new_asset(database)
    transact = Settlement._transact
    lost: list[Settled] = []

    async def unheard(self: Settlement, connection: Connection, requests: Sequence[OrderRequest]) -> Settled:
        settled = await transact(self, connection, requests)
        if not lost:
            lost.append(settled)
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        return settled

    monkeypatch.setattr(Settlement, "_transact", unheard)
    requests = [order_request(account, asset_id, shares="2") for account in accounts]
    answers = await settle_together(database, requests)
    assert answers == lost[0].answers
    statuses = [answer.order.status for answer in answers if isinstance(answer, OrderOutcome)]
    assert statuses == [OrderStatus.FILLED, OrderStatus.REJECTED, OrderStatus.FILLED]
    assert await effects(database, asset_id) == (3, 2, 2)


async def test_a_connection_that_is_lost_while_nothing_waits(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    account, asset_id = await new_account(database, usdc="10"), await new_asset(database)
    pids: list[int] = []

    async def noted(connection: Connection, requests: Sequence[OrderRequest]) -> Settled:
        pids.append(connection.get_server_pid())
        return await batch.settle(connection, requests)

    monkeypatch.setattr(settling, "settle", noted)
    settlement = Settlement(database, publish=lambda _: None)
    settlement.start()
    try:
        await settlement.place(order_request(account, asset_id, shares="1"))
        await terminate(database, pids[0])
        with caplog.at_level(logging.WARNING):
            outcome = await settlement.place(order_request(account, asset_id, shares="1"))
    finally:
        await settlement.stop()
    assert outcome.order.status is OrderStatus.FILLED
    assert pids[-1] != pids[0]
    assert caplog.records == []
    assert await effects(database, asset_id) == (2, 2, 2)


async def test_connections_that_are_lost_while_orders_flow(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = [await new_account(database, usdc="100") for _ in range(8)]
    asset_id = await new_asset(database)
    pids: list[int] = []

    async def noted(connection: Connection, requests: Sequence[OrderRequest]) -> Settled:
        pids.append(connection.get_server_pid())
        return await batch.settle(connection, requests)

    monkeypatch.setattr(settling, "settle", noted)
    settlement = Settlement(database, publish=lambda _: None)
    settlement.start()
    answered: list[OrderOutcome] = []

    async def trade(account: AccountPrincipal) -> None:
        for _ in range(40):
            outcome = await settlement.place(order_request(account, asset_id, shares="0.01"))
            answered.append(outcome)

    async def cut_again_and_again() -> list[int]:
        """End every backend that has settled anything, eight times; how many were alive each time."""
        alive = []
        async with connected(database_url) as connection:
            for threshold in range(20, 320, 40):
                await until(lambda least=threshold: len(answered) >= least, seconds=20)  # type: ignore[misc]
                ended = await connection.fetch(
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE pid = ANY($1::int[])", pids
                )
                alive.append(len(ended))
        return alive

    try:
        cutting = asyncio.create_task(cut_again_and_again())
        await asyncio.gather(*(trade(account) for account in accounts))
        alive = await cutting
    finally:
        await settlement.stop()
    assert sum(alive) >= 3, "hardly any connection was lost: it would show nothing"
    assert [outcome.order.status for outcome in answered] == [OrderStatus.FILLED] * 320
    assert sorted(outcome.trades[0].seq for outcome in answered) == list(range(1, 321))
    assert await effects(database, asset_id) == (320, 320, 320)
    assert (await load_asset(database, asset_id)).supply == 3_200_000_000


class Away:
    """A database that cannot be reached until `back`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.back = False

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        if not self.back:
            raise ConnectionRefusedError("nobody listens")
        async with self._database.acquire() as connection:
            yield connection


async def test_a_database_that_is_away_is_told_to_everyone_who_waits(database: Database) -> None:
    account, asset_id = await new_account(database, usdc="10"), await new_asset(database)
    away = Away(database)
    settlement = Settlement(cast(Database, away), publish=lambda _: None)
    settlement.start()
    request = order_request(account, asset_id, shares="1")
    with pytest.raises(SettlementUnavailable, match="send the order again"):
        await settlement.place(request)
    assert settlement.waiting == 0
    away.back = True
    outcome = await settlement.place(request)
    await settlement.stop()
    assert outcome.order.status is OrderStatus.FILLED
    assert await effects(database, asset_id) == (1, 1, 1)


# ------------------------------------------------------------------------------------------------ the lock order


async def test_a_batch_locks_assets_before_accounts_and_reads_what_decides_only_then(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = [await new_account(database, usdc="10") for _ in range(2)]
    assets = [await new_asset(database) for _ in range(2)]
    statements: list[tuple[str, object]] = []

    async def overheard(connection: Connection, requests: Sequence[OrderRequest]) -> Settled:
        def note(record: asyncpg.connection.LoggedQuery) -> None:
            statements.append((record.query, record.args))

        with connection.query_logger(note):
            return await batch.settle(connection, requests)

    monkeypatch.setattr(settling, "settle", overheard)
    requests = [
        order_request(account, asset_id, shares="1")
        for account, asset_id in ((accounts[1], assets[1]), (accounts[0], assets[0]))
    ]
    await settle_together(database, requests)
    locks = [(query, args) for query, args in statements if "FOR NO KEY UPDATE" in query]
    assert statements[:2] == locks
    (of_assets, asset_ids), (of_accounts, account_ids) = locks
    assert "FROM assets" in of_assets
    assert "ORDER BY id" in of_assets
    assert asset_ids == (assets,)
    assert "FROM accounts" in of_accounts
    assert "ORDER BY id" in of_accounts
    assert account_ids == ([account.account_id for account in accounts],)
    for table in ("platform", "orders", "sessions", "positions", "ledger_accounts"):
        assert any(table in query for query, _ in statements[2:]), table


async def test_processes_that_meet_on_the_same_rows_never_deadlock(database: Database) -> None:
    accounts = [await new_account(database, usdc="1000") for _ in range(6)]
    assets = [await new_asset(database) for _ in range(3)]
    processes = [Settlement(database, publish=lambda _: None) for _ in range(3)]
    for process in processes:
        process.start()
    try:
        answers = await asyncio.gather(
            *(
                processes[(n + turn) % 3].place(order_request(account, asset_id, shares="0.02"))
                for turn in range(8)
                for n, account in enumerate(accounts)
                for asset_id in (assets if turn % 2 else reversed(assets))
            )
        )
    finally:
        for process in processes:
            await process.stop()
    assert {answer.order.status for answer in answers} == {OrderStatus.FILLED}
    assert [await effects(database, asset_id) for asset_id in assets] == [(48, 48, 48)] * 3
