"""The last 24 hours: what counts, where they begin, and that they follow the candles whatever is open or closed."""

import random
from datetime import UTC, datetime, timedelta

from app.db import Database
from app.exchange.orders import Side
from app.exchange.settlement import Settlement
from app.money import MONEY_UNIT, PRICE_UNIT
from app.pricing.stats import DayStats, day_stats, untracked_day
from app.pricing.ticks import Tick, TickCause
from tests.factories import load_asset, new_account, new_asset, place_order
from tests.pricing.history import Move, every, write_history

NOW = datetime(2026, 3, 2, 12, 5, 30, tzinfo=UTC)
BEGIN = datetime(2026, 3, 1, 12, 5, tzinfo=UTC)
"""The first whole minute of the 24 hours before `NOW`."""
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


async def asked(database: Database, asset_id: int, at: datetime = NOW) -> DayStats:
    async with database.acquire() as connection:
        return (await day_stats(connection=connection, asset_ids=[asset_id], at=at))[asset_id]


def stats(*, volume: int, trades: int, prices: tuple[int, int, int, int]) -> DayStats:
    first, high, low, close = (price * PRICE_UNIT for price in prices)
    change = round((close - first) * 10**9 / first)
    return DayStats(volume * MONEY_UNIT, trades, first, high, low, close, change)


async def test_only_the_last_24_hours_count_and_open_is_the_price_before_them(database: Database) -> None:
    asset_id = await new_asset(database)
    await write_history(
        database,
        asset_id,
        [
            Move(BEGIN - 6 * HOUR, 50, volume=1_000),
            Move(BEGIN - HOUR, 8, volume=100),
            Move(BEGIN + HOUR, 20, volume=10),
            Move(BEGIN + 2 * HOUR, 2),
            Move(NOW - 2 * HOUR, 16, volume=5),
        ],
    )

    assert await asked(database, asset_id) == stats(volume=15, trades=2, prices=(8, 20, 2, 16))


async def test_the_day_begins_with_the_minute_that_it_begins_in(database: Database) -> None:
    asset_id = await new_asset(database)
    moves = [
        Move(BEGIN - timedelta(microseconds=1), 2, volume=1),
        Move(BEGIN, 4, volume=10),
        Move(BEGIN + timedelta(minutes=54), 6, volume=100),
        Move(BEGIN + timedelta(minutes=55), 5, volume=1_000),
        Move(BEGIN + timedelta(minutes=114), 3, volume=10_000),
    ]
    await write_history(database, asset_id, moves)

    assert await asked(database, asset_id) == stats(volume=11_110, trades=4, prices=(2, 6, 2, 3))
    later = NOW + timedelta(seconds=29)
    assert await asked(database, asset_id, later) == stats(volume=11_110, trades=4, prices=(2, 6, 2, 3))
    later = NOW + timedelta(seconds=30)
    assert await asked(database, asset_id, later) == stats(volume=11_100, trades=3, prices=(4, 6, 3, 3))
    # exactly on an hour, of which the next trade is the first
    later = NOW + timedelta(minutes=54, seconds=30)
    assert await asked(database, asset_id, later) == stats(volume=11_000, trades=2, prices=(6, 6, 3, 3))


async def test_where_nothing_has_moved_for_a_day_everything_is_the_last_price(database: Database) -> None:
    asset_id = await new_asset(database)
    await write_history(database, asset_id, [Move(BEGIN - HOUR, 3, volume=9), Move(BEGIN - SECOND, 7, volume=9)])

    assert await asked(database, asset_id) == stats(volume=0, trades=0, prices=(7, 7, 7, 7))


async def test_an_asset_that_is_younger_than_a_day_opens_with_its_first_price(database: Database) -> None:
    just_made, older = await new_asset(database), await new_asset(database)
    await write_history(database, just_made, [Move(NOW - 2 * SECOND, 5), Move(NOW - SECOND, 6, volume=1)])
    await write_history(database, older, every(1_000, NOW - 8 * HOUR, [5, 1, 9, 4, 4, 4, 6], volume=2))

    assert await asked(database, just_made) == stats(volume=1, trades=1, prices=(5, 6, 5, 6))
    assert await asked(database, older) == stats(volume=14, trades=7, prices=(5, 9, 1, 6))


async def test_many_assets_are_answered_at_once_and_the_unticked_are_missing(database: Database) -> None:
    ticked = [await new_asset(database) for _ in range(3)]
    untouched = await new_asset(database)
    for number, asset_id in enumerate(ticked, 1):
        await write_history(database, asset_id, [Move(NOW - HOUR, number, volume=number)])

    async with database.acquire() as connection:
        found = await day_stats(connection=connection, asset_ids=[*ticked, untouched, 10**15], at=NOW)

    assert found == {
        asset_id: stats(volume=number, trades=1, prices=(number,) * 4) for number, asset_id in enumerate(ticked, 1)
    }


async def test_any_history_comes_to_what_its_ticks_come_to(database: Database) -> None:
    seed = random.randrange(2**32)
    draw = random.Random(seed)
    asset_id = await new_asset(database)
    at, moves = BEGIN - 20 * HOUR, []
    while at < NOW:
        moves.append(Move(at, draw.randrange(1, 100), volume=draw.choice([0, 3])))
        at += timedelta(seconds=draw.choice([1, 60, 700, 4_000]) * draw.random())
    ticks = await write_history(database, asset_id, moves)

    for _ in range(40):
        later = NOW + timedelta(seconds=draw.randrange(0, 40 * 3_600))
        assert await asked(database, asset_id, later) == by_the_ticks(ticks, later), f"seed {seed}, {later}"


def by_the_ticks(ticks: list[Tick], at: datetime) -> DayStats:
    begin = (at - 24 * HOUR).replace(second=0, microsecond=0)
    before = [tick for tick in ticks if tick.at < begin]
    inside = [tick for tick in ticks if tick.at >= begin]
    first = (before[-1:] or inside)[0].display
    prices = [first, *(tick.display for tick in inside)]
    return DayStats.of(
        volume=sum(tick.volume for tick in inside),
        trades=sum(tick.cause is TickCause.TRADE for tick in inside),
        first=first,
        close=ticks[-1].display,
        between=prices,
    )


async def test_the_change_is_rounded_half_to_even() -> None:
    for close, change in ((1_000_000_000_500, 0), (1_000_000_001_500, 2), (999_999_999_500, 0), (999_999_998_500, -2)):
        assert DayStats.of(volume=0, trades=0, first=PRICE_UNIT, close=close, between=()).change == change


async def test_before_the_first_tick_the_trades_themselves_count_and_prices_are_m(
    database: Database, settlement: Settlement
) -> None:
    trader = await new_account(database, usdc="1000")
    asset_id, untraded_id = await new_asset(database, fee_rate="0"), await new_asset(database)
    await place_order(settlement, trader, asset_id, shares="100")
    await place_order(settlement, trader, asset_id, Side.SELL, shares="40")
    assets = [await load_asset(database, asset_id), await load_asset(database, untraded_id)]
    now = datetime.now(UTC)

    async with database.acquire() as connection:
        today = await untracked_day(connection=connection, assets=assets, at=now)
        later = await untracked_day(connection=connection, assets=assets, at=now + 25 * HOUR)

    # 125 in, R(100) - R(60) = 56 out; M went from 1 to 1.5 and is 1.3
    assert today == {
        asset_id: DayStats(
            181 * MONEY_UNIT, 2, PRICE_UNIT, 15 * 10**11, PRICE_UNIT, 13 * 10**11, 3 * 10**8
        ),
        untraded_id: DayStats(0, 0, PRICE_UNIT, PRICE_UNIT, PRICE_UNIT, PRICE_UNIT, 0),
    }  # fmt: skip
    assert later[asset_id] == DayStats(0, 0, 13 * 10**11, 13 * 10**11, 13 * 10**11, 13 * 10**11, 0)
