"""The last 24 hours of trades: what counts, what is forgotten, and that asking again changes nothing."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from app.db import Database
from app.exchange.assets import Asset
from app.exchange.stats import DayStats, TradeStats
from app.money import MONEY_UNIT, PRICE_UNIT
from tests.conftest import make_settings
from tests.factories import load_asset, new_account, new_asset

NOON = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Tape:
    """An asset's trades at times of one's choice. Only what the statistics read is true to life."""

    def __init__(self, database: Database, asset: Asset, account_id: int, order_id: int) -> None:
        self.database = database
        self.asset = asset
        self._account_id = account_id
        self._order_id = order_id
        self._seq = 0

    async def trade(self, at: datetime, *, gross: int, price: int) -> None:
        self._seq += 1
        async with self.database.transaction() as unit:
            await unit.connection.execute(
                "INSERT INTO trades (asset_id, seq, account_id, order_id, side, shares, gross, fee, supply_after,"
                " market_after, transfer_id, at) VALUES ($1, $2, $3, $4, 'BUY', 1, $5, 0, 1, $6, 1, $7)",
                self.asset.id, self._seq, self._account_id, self._order_id, gross * MONEY_UNIT, price * PRICE_UNIT, at,
            )  # fmt: skip
            await unit.connection.execute("UPDATE assets SET trade_seq = $2 WHERE id = $1", self.asset.id, self._seq)


@pytest.fixture
async def tape(fresh_database_url: str) -> AsyncIterator[Tape]:
    database = await Database.open(make_settings(database_url=fresh_database_url))
    asset = await load_asset(database, await new_asset(database))
    trader = await new_account(database)
    async with database.transaction() as unit:
        order_id = await unit.connection.fetchval(
            "INSERT INTO orders (account_id, asset_id, client_order_id, input_hash, side, type, time_in_force, status,"
            " shares, created_at, updated_at) VALUES ($1, $2, 'a', '', 'BUY', 'MARKET', 'FOK', 'FILLED', 1, $3, $3)"
            " RETURNING id",
            trader.account_id, asset.id, NOON,
        )  # fmt: skip
    yield Tape(database, asset, trader.account_id, order_id)
    await database.close()


def stats(*, volume: int, trades: int, prices: tuple[int, int, int]) -> DayStats:
    """M is 1 now, as the asset's row says; `prices` are open, high and low."""
    first, high, low = (price * PRICE_UNIT for price in prices)
    change = (PRICE_UNIT - first) * 10**9 // first
    return DayStats(volume * MONEY_UNIT, trades, first, high, low, PRICE_UNIT, change)


async def asked(tape: Tape, at: datetime, *, of: TradeStats | None = None) -> DayStats:
    asset = await load_asset(tape.database, tape.asset.id)
    [answer] = await (of or TradeStats()).last_day(database=tape.database, assets=[asset], at=at)
    return answer


async def test_without_trades_everything_is_the_base_price(tape: Tape) -> None:
    assert await asked(tape, NOON) == stats(volume=0, trades=0, prices=(1, 1, 1))


async def test_only_the_last_24_hours_count_and_open_is_the_price_before_them(tape: Tape) -> None:
    await tape.trade(NOON - 30 * HOUR, gross=1_000, price=50)
    await tape.trade(NOON - 25 * HOUR, gross=100, price=8)
    await tape.trade(NOON - 23 * HOUR, gross=10, price=20)
    await tape.trade(NOON - 2 * HOUR, gross=5, price=16)

    assert await asked(tape, NOON) == stats(volume=15, trades=2, prices=(8, 20, 1))


async def test_the_day_begins_with_the_minute_that_it_begins_in(tape: Tape) -> None:
    minute = (NOON - 24 * HOUR).replace(second=0)
    await tape.trade(minute - timedelta(microseconds=1), gross=1, price=2)
    await tape.trade(minute, gross=10, price=4)

    assert await asked(tape, NOON) == stats(volume=10, trades=1, prices=(2, 4, 1))
    assert await asked(tape, NOON + timedelta(seconds=29)) == stats(volume=10, trades=1, prices=(2, 4, 1))
    assert await asked(tape, NOON + timedelta(seconds=30)) == stats(volume=0, trades=0, prices=(4, 4, 1))


async def test_a_process_that_was_asked_before_comes_to_the_same_as_one_that_was_not(tape: Tape) -> None:
    kept = TradeStats()
    moments = [NOON + minutes * timedelta(minutes=7) for minutes in range(0, 400, 11)]
    for number, at in enumerate(moments):
        await tape.trade(at, gross=number + 1, price=1 + number * 7 % 13)
        await tape.trade(at, gross=number + 2, price=1 + number * 5 % 11)
        later = at + timedelta(seconds=number)
        assert await asked(tape, later, of=kept) == await asked(tape, later), at


async def test_questions_at_the_same_time_count_nothing_twice(tape: Tape) -> None:
    kept = TradeStats()
    await tape.trade(NOON - HOUR, gross=7, price=3)

    answers = await asyncio.gather(*(asked(tape, NOON, of=kept) for _ in range(20)))

    assert set(answers) == {stats(volume=7, trades=1, prices=(1, 3, 1))}


async def test_no_more_assets_are_kept_than_fit_and_forgetting_changes_no_answer(tape: Tape) -> None:
    kept = TradeStats(assets_max=2)
    others = [await load_asset(tape.database, await new_asset(tape.database)) for _ in range(3)]
    await tape.trade(NOON - HOUR, gross=7, price=3)

    first = await asked(tape, NOON, of=kept)
    await kept.last_day(database=tape.database, assets=others, at=NOON)

    assert list(kept._days) == [asset.id for asset in others[1:]]
    assert await asked(tape, NOON, of=kept) == first == stats(volume=7, trades=1, prices=(1, 3, 1))
