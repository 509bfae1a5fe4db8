"""Account events: one for each order that ended and each transfer, exact, gapless, and in its cause's transaction."""

import asyncio
import random
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import pytest

from app.accounts.account_events import AccountChange, account_changes, account_heads
from app.accounts.dev_fund import dev_fund
from app.accounts.principals import AccountPrincipal
from app.accounts.sessions import log_out
from app.admin.accounts import freeze_account
from app.bus import Bus
from app.db import Database
from app.errors import ErrorCode, Refused, Unauthenticated
from app.exchange.batch import OrderOutcome
from app.exchange.orders import OrderStatus, Side, Trade
from app.exchange.settlement import Settlement
from app.idempotency import KeyedOutcome
from app.ledger.audit import audit
from app.ledger.currencies import Currency
from tests.factories import (
    fund,
    gathered,
    new_account,
    new_admin,
    new_asset,
    order_request,
    place_order,
    settle_together,
    sign_up_account,
)
from tests.factories.spy_bus import SpyBus

BILLION = 10**9


async def events_of(database: Database, account: AccountPrincipal, *, after: int = 0) -> list[AccountChange]:
    async with database.acquire() as connection:
        return await account_changes(
            connection=connection, account_id=account.account_id, after_seq=after, limit=10_000
        )


async def head_of(database: Database, account: AccountPrincipal) -> int:
    async with database.acquire() as connection:
        heads = await account_heads(connection=connection, account_ids=[account.account_id])
    return heads[account.account_id]


async def give(
    database: Database, account: AccountPrincipal, amount: str, *, key: str, bus: Bus | None = None
) -> KeyedOutcome:
    async with database.transaction() as unit:
        return await dev_fund(
            unit=unit, principal=account, currency=Currency.USDC, amount=amount, idempotency_key=key, development=True,
            bus=bus,
        )  # fmt: skip


def outcomes(answers: list[OrderOutcome | BaseException]) -> list[OrderOutcome]:
    assert all(isinstance(answer, OrderOutcome) for answer in answers)
    return [answer for answer in answers if isinstance(answer, OrderOutcome)]


# ------------------------------------------------------------------------------------------------ what events say


async def test_test_funds_and_fills_say_what_they_left_behind(database: Database, settlement: Settlement) -> None:
    account = await new_account(database, usdc="1000", usdt="7")
    asset_id = await new_asset(database, base_price="10", slope="0.000000000000000001", fee_rate="0.01")
    bought = await place_order(settlement, account, asset_id, shares="3")
    sold = await place_order(settlement, account, asset_id, Side.SELL, shares="1")

    usdc, usdt, buy, sale = await events_of(database, account)
    assert (usdc.seq, usdc.currency, usdc.available, usdc.held) == (1, Currency.USDC, 1_000_000_000, 0)
    assert (usdt.seq, usdt.currency, usdt.available, usdt.held) == (2, Currency.USDT, 7_000_000, 0)
    assert [usdc.order_id, usdc.asset_id, usdc.shares, usdc.cost_basis, usdc.realized_pnl] == [None] * 5
    assert usdc.transfer_id is not None
    # 3 x 10 and a millionth for rounding up, and one percent of it, rounded up.
    assert buy == AccountChange(
        account_id=account.account_id,
        seq=3,
        at=bought.order.updated_at,
        order_id=bought.order.id,
        transfer_id=bought.trades[0].transfer_id,
        currency=Currency.USDC,
        available=1_000_000_000 - 30_000_001 - 300_001,
        held=0,
        asset_id=asset_id,
        shares=3 * BILLION,
        cost_basis=30_300_002,
        realized_pnl=0,
    )
    # The sale brings 10 less 0.1, and takes a third of the cost, rounded down, out of the basis.
    assert sale == AccountChange(
        account_id=account.account_id,
        seq=4,
        at=sold.order.updated_at,
        order_id=sold.order.id,
        transfer_id=sold.trades[0].transfer_id,
        currency=Currency.USDC,
        available=969_699_998 + 9_900_000,
        held=0,
        asset_id=asset_id,
        shares=2 * BILLION,
        cost_basis=30_300_002 - 10_100_000,
        realized_pnl=9_900_000 - 10_100_000,
    )


async def test_a_refused_order_has_an_event_that_says_only_so(database: Database, settlement: Settlement) -> None:
    account, asset_id = await new_account(database, usdc="1"), await new_asset(database)
    outcome = await settlement.place(order_request(account, asset_id, shares="5"))

    assert outcome.order.status is OrderStatus.REJECTED
    _, event = await events_of(database, account)
    assert event == AccountChange(
        account_id=account.account_id, seq=2, at=outcome.order.updated_at, order_id=outcome.order.id
    )


async def test_each_event_of_a_batch_says_how_things_stood_right_after_its_own_order(database: Database) -> None:
    alice, bob = await new_account(database, usdc="100"), await new_account(database, usdc="100", usdt="50")
    first, second = [
        await new_asset(database, base_price="10", slope="0.000000000000000001", fee_rate="0") for _ in range(2)
    ]
    answers = await settle_together(
        database,
        [
            order_request(alice, first, shares="2"),
            order_request(bob, first, shares="1"),
            order_request(alice, second, shares="1"),
            order_request(alice, first, shares="100"),
            order_request(alice, first, Side.SELL, shares="1"),
            order_request(bob, second, Side.SELL, shares="1"),
        ],
    )

    orders = [outcome.order for outcome in outcomes(answers)]
    assert [order.status.value for order in orders] == ["FILLED", "FILLED", "FILLED", "REJECTED", "FILLED", "REJECTED"]
    of_alice, of_bob = await events_of(database, alice, after=1), await events_of(database, bob, after=2)
    assert [event.order_id for event in of_alice] == [orders[number].id for number in (0, 2, 3, 4)]
    assert [(event.seq, event.available, event.asset_id, event.shares) for event in of_alice] == [
        (2, 79_999_999, first, 2 * BILLION),
        (3, 69_999_998, second, BILLION),
        (4, None, None, None),
        (5, 79_999_998, first, BILLION),
    ]
    assert [(event.seq, event.order_id, event.available) for event in of_bob] == [
        (3, orders[1].id, 89_999_999),
        (4, orders[5].id, None),
    ]


# ------------------------------------------------------------------------------------------------ what makes none


async def test_a_repeated_key_makes_no_event(database: Database, settlement: Settlement) -> None:
    account, asset_id = await new_account(database, usdc="10"), await new_asset(database)
    request = order_request(account, asset_id, shares="1", key="once")
    refused = order_request(account, asset_id, shares="1000", key="never")
    await settle_together(database, [request, request, refused, refused])
    before = await events_of(database, account)
    assert [event.seq for event in before] == [1, 2, 3]

    for again in (request, refused):
        await settlement.place(again)
    with pytest.raises(Refused) as caught:
        await settlement.place(order_request(account, asset_id, shares="2", key="once"))
    assert caught.value.refusal.code is ErrorCode.IDEMPOTENCY_KEY_REUSED
    assert await events_of(database, account) == before


async def test_what_binds_no_key_makes_no_event(database: Database, settlement: Settlement) -> None:
    account, asset_id = await new_account(database, usdc="10"), await new_asset(database)
    with pytest.raises(Refused):
        await settlement.place(order_request(account, 987_654_321, shares="1"))
    async with database.transaction() as unit:
        await log_out(unit=unit, principal=account)
    with pytest.raises(Unauthenticated):
        await settlement.place(order_request(account, asset_id, shares="1"))
    assert await head_of(database, account) == 1


async def test_test_funds_make_one_event_for_each_key_and_none_when_refused(database: Database) -> None:
    account = await sign_up_account(database)
    for key in ("a", "b", "a"):
        await give(database, account, "1.5", key=key)
    async with database.transaction() as unit:
        await freeze_account(
            unit=unit, principal=await new_admin(database), account_id=account.account_id, frozen=True, reason="A test."
        )
    refused = await give(database, account, "1", key="c")

    assert refused.refusal is not None
    assert [(event.seq, event.available) for event in await events_of(database, account)] == [
        (1, 1_500_000),
        (2, 3_000_000),
    ]


async def test_a_batch_that_fails_leaves_no_event(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    account, asset_id = await new_account(database, usdc="10"), await new_asset(database)

    async def broken(*_: object) -> None:
        raise LookupError("nothing can be written")

    monkeypatch.setattr("app.exchange.batch._write_assets", broken)
    told: list[Collection[int]] = []
    settlement = Settlement(database, publish=lambda _: None, changed=told.append)
    settlement.start()
    with pytest.raises(LookupError):
        await settlement.place(order_request(account, asset_id, shares="1"))
    await settlement.stop()
    assert await head_of(database, account) == 1
    assert told == []


# ------------------------------------------------------------------------------------------------ reading


async def test_events_are_read_in_order_from_where_one_asks_and_no_more_than_asked(database: Database) -> None:
    account = await sign_up_account(database)
    for number in range(5):
        await give(database, account, "1", key=str(number))
    everything = await events_of(database, account)
    assert [event.seq for event in everything] == [1, 2, 3, 4, 5]
    async with database.acquire() as connection:
        page = await account_changes(connection=connection, account_id=account.account_id, after_seq=2, limit=2)
        beyond = await account_changes(connection=connection, account_id=account.account_id, after_seq=5, limit=2)
    assert page == everything[2:4]
    assert beyond == []


async def test_heads_are_the_last_seqs_and_nothing_is_zero(database: Database) -> None:
    some, none = await new_account(database, usdc="1", usdt="1"), await sign_up_account(database)
    async with database.acquire() as connection:
        heads = await account_heads(connection=connection, account_ids=[none.account_id, some.account_id, 987_654_321])
        assert await account_heads(connection=connection, account_ids=[]) == {}
    assert heads == {some.account_id: 2, none.account_id: 0, 987_654_321: 0}


# ------------------------------------------------------------------------------------------------ who is told


async def test_a_batch_tells_once_of_everyone_whose_order_ended_after_it_has_committed(database: Database) -> None:
    alice, bob, carol = [await new_account(database, usdc="100") for _ in range(3)]
    asset_id = await new_asset(database)
    once = order_request(carol, asset_id, shares="1", key="once")
    await settle_together(database, [once])
    told: list[tuple[str, set[int]]] = []

    def published(trades: Collection[Trade]) -> None:
        told.append(("trades", {trade.account_id for trade in trades}))

    requests = [
        order_request(alice, asset_id, shares="1"),
        once,
        order_request(bob, asset_id, Side.SELL, shares="9"),
        order_request(alice, asset_id, shares="1"),
    ]
    async with gathered(
        database, requests, publish=published, changed=lambda ids: told.append(("accounts", set(ids)))
    ) as (settlement, placed):
        assert told == []
        settlement.start()
        await asyncio.gather(*placed)

    assert told == [("trades", {alice.account_id}), ("accounts", {alice.account_id, bob.account_id})]


async def test_test_funds_tell_of_their_account_after_the_commit_and_only_when_something_moved(
    database: Database,
) -> None:
    account, bus = await sign_up_account(database), SpyBus()
    async with database.transaction() as unit:
        await dev_fund(
            unit=unit, principal=account, currency=Currency.USDC, amount="1", idempotency_key="k", development=True,
            bus=bus,
        )  # fmt: skip
        assert bus.told == []
    assert bus.told == [([account.account_id], [])]
    await give(database, account, "1", key="k", bus=bus)
    assert len(bus.told) == 1


# ------------------------------------------------------------------------------------------------ a past without events


@asynccontextmanager
async def opened(database_url: str) -> AsyncIterator[Database]:
    database = await Database.connect(database_url, pool_max=8)
    yield database
    await database.close()


async def test_an_account_whose_past_has_no_events_begins_at_one_with_what_it_does_next(
    fresh_database_url: str,
) -> None:
    async with opened(fresh_database_url) as database:
        account, other = await new_account(database, usdc="100"), await new_account(database, usdc="100")
        asset_id = await new_asset(database)
        await settle_together(database, [order_request(account, asset_id, shares="1") for _ in range(3)])
        async with database.acquire() as connection:
            await connection.execute("ALTER TABLE account_events DISABLE TRIGGER USER")
            await connection.execute("DELETE FROM account_events WHERE account_id = $1", account.account_id)
            await connection.execute("ALTER TABLE account_events ENABLE TRIGGER USER")
        await settle_together(database, [order_request(one, asset_id, shares="1") for one in (account, other, account)])

        assert [event.seq for event in await events_of(database, account)] == [1, 2]
        assert [event.shares for event in await events_of(database, account)] == [4 * BILLION, 5 * BILLION]
        assert [event.seq for event in await events_of(database, other)] == [1, 2]
        async with database.snapshot() as connection:
            assert (await audit(connection=connection)).findings == []


# ------------------------------------------------------------------------------------------------ at once


SETTLEMENTS = 3
ACCOUNTS = 12
ROUNDS = 40


async def test_events_stay_gapless_complete_and_in_commit_order_whoever_writes_them(fresh_database_url: str) -> None:
    """Several settlements and test funds touch the same accounts at once, while a reader follows each account."""
    async with opened(fresh_database_url) as database:
        accounts = [await new_account(database, usdc="500") for _ in range(ACCOUNTS)]
        assets = [await new_asset(database, slope="0.001") for _ in range(3)]
        settlements = [Settlement(database, publish=lambda _: None) for _ in range(SETTLEMENTS)]
        for settlement in settlements:
            settlement.start()
        done = asyncio.Event()
        readers = [asyncio.create_task(follow(database, account, done)) for account in accounts[:3]]
        await asyncio.gather(
            *(trade(database, settlement, accounts, assets, seed) for seed, settlement in enumerate(settlements)),
            *(trade(database, settlement, accounts, assets, 100 + seed) for seed, settlement in enumerate(settlements)),
        )
        for settlement in settlements:
            await settlement.stop()
        done.set()
        followed = await asyncio.gather(*readers)

        for account, seen in zip(accounts, followed, strict=False):
            assert seen == await events_of(database, account)
        async with database.acquire() as connection:
            orders = await connection.fetchval("SELECT count(*) FROM orders WHERE status IN ('FILLED', 'REJECTED')")
            funds = await connection.fetchval("SELECT count(*) FROM transfers WHERE reason = 'DEV_FUND'")
            events = await connection.fetchval("SELECT count(*) FROM account_events")
            heads = await account_heads(connection=connection, account_ids=[account.account_id for account in accounts])
        assert (events, sum(heads.values())) == (orders + funds, orders + funds)
        assert orders == 2 * SETTLEMENTS * ROUNDS * 4
        async with database.snapshot() as connection:
            assert (await audit(connection=connection)).findings == []


async def trade(
    database: Database, settlement: Settlement, accounts: list[AccountPrincipal], assets: list[int], seed: int
) -> None:
    """Some orders at a time, many of them of the same accounts, and test funds in between."""
    draw = random.Random(seed)
    for number in range(ROUNDS):
        requests = [
            order_request(
                draw.choice(accounts), draw.choice(assets), draw.choice(list(Side)), shares=f"{draw.randint(1, 9)}",
                key=f"{seed}-{number}-{each}",
            )
            for each in range(4)
        ]  # fmt: skip
        await asyncio.gather(
            *(settlement.place(request) for request in requests),
            *([fund(database, draw.choice(accounts), "1")] if number % 5 == 0 else []),
        )


async def follow(database: Database, account: AccountPrincipal, done: asyncio.Event) -> list[AccountChange]:
    """Read an account's events as they come, as its subscriber does: from the last one seen."""
    seen: list[AccountChange] = []
    while True:
        last = done.is_set()
        seen += await events_of(database, account, after=len(seen))
        assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
        if last:
            return seen
