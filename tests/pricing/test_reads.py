"""Reading what the engine has written: ticks by seq and by position, candles closed and open as one series."""

import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from app.db import Database
from app.money import MONEY_UNIT, PRICE_UNIT
from app.pricing.candles import Candle, candle_of
from app.pricing.intervals import Interval, PriceKind, buckets
from app.pricing.reads import (
    CANDLES_MAX,
    candles_before,
    current_candles,
    latest_ticks,
    tick_bounds,
    ticks_after,
    ticks_from_position,
)
from tests.conftest import make_settings
from tests.factories import new_asset
from tests.pricing.history import Move, every, folded, write_history

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOON_S = int(NOON.timestamp())
SECOND = timedelta(seconds=1)
FOREVER = 2**40


@pytest.fixture
async def own(fresh_database_url: str) -> AsyncIterator[Database]:
    """A database that nobody else ticks in."""
    database = await Database.open(make_settings(database_url=fresh_database_url))
    yield database
    await database.close()


async def candles(
    database: Database,
    asset_id: int,
    interval: Interval = Interval.M1,
    price: PriceKind = PriceKind.DISPLAY,
    *,
    since: int = 0,
    to: int = FOREVER,
    limit: int = 500,
    now: datetime = NOON,
) -> list[Candle]:
    async with database.acquire() as connection:
        return await candles_before(
            connection=connection, asset_id=asset_id, interval=interval, price=price, since=since, to=to, limit=limit,
            now=int(now.timestamp()),
        )  # fmt: skip


def candle(
    asset_id: int,
    time: int,
    prices: tuple[int, int, int, int],
    *,
    volume: int = 0,
    trades: int = 0,
    closed: bool = True,
) -> Candle:
    opened, high, low, close = (price * PRICE_UNIT for price in prices)
    return Candle(asset_id, Interval.M1, time, opened, high, low, close, volume * MONEY_UNIT, trades, closed)


# ------------------------------------------------------------------------------------------------ ticks


async def test_the_last_tick_of_each_asset_is_in_its_state(database: Database) -> None:
    ticked, other, untouched = [await new_asset(database) for _ in range(3)]
    ticks = await write_history(database, ticked, every(1, NOON, [5, 6, 7]))
    others = await write_history(database, other, every(1, NOON, [9]))

    async with database.acquire() as connection:
        assert await latest_ticks(connection=connection, asset_ids=[ticked, other, untouched, 10**15]) == {
            ticked: ticks[-1],
            other: others[-1],
        }
        assert await latest_ticks(connection=connection, asset_ids=[]) == {}


async def test_ticks_after_a_seq_come_in_order_across_days(database: Database) -> None:
    asset_id, neighbour = await new_asset(database), await new_asset(database)
    ticks = await write_history(database, asset_id, every(1, NOON.replace(hour=23, minute=59, second=55), range(1, 11)))
    await write_history(database, neighbour, every(1, NOON, [1, 2, 3]))

    async with database.acquire() as connection:
        for after, limit, expected in ((0, 500, ticks), (3, 4, ticks[3:7]), (9, 500, ticks[9:]), (10, 500, [])):
            found = await ticks_after(connection=connection, asset_id=asset_id, after_seq=after, limit=limit)
            assert found == expected, (after, limit)


async def test_ticks_by_position_are_those_of_all_assets_in_the_order_of_their_commits(own: Database) -> None:
    first, second = await new_asset(own), await new_asset(own)
    ticks = await write_history(own, first, every(1, NOON, [1, 2, 3]))
    # Committed later, though it happened the day before.
    ticks += await write_history(own, second, every(1, NOON - timedelta(days=1), [4, 5]))

    async with own.acquire() as connection:

        async def positions(after: int, up_to: int, asset_ids: list[int] | None = None, limit: int = 100) -> list[int]:
            found = await ticks_from_position(
                connection=connection, after_position=after, up_to_position=up_to, asset_ids=asset_ids, limit=limit
            )
            assert all(tick == ticks[tick.position - 1] for tick in found)
            return [tick.position for tick in found]

        assert await positions(0, 5) == [1, 2, 3, 4, 5]
        assert await positions(1, 4) == [2, 3, 4]
        assert await positions(0, 5, limit=2) == [1, 2]
        assert await positions(0, 5, [second]) == [4, 5]
        assert await positions(0, 5, [first, second], limit=4) == [1, 2, 3, 4]
        assert await positions(0, 5, []) == []
        assert await positions(5, 5) == []


async def test_the_bounds_say_what_is_kept_and_where_the_stream_stands(own: Database) -> None:
    async def bounds() -> tuple[int, int]:
        async with own.acquire() as connection:
            return await tick_bounds(connection=connection)

    assert await bounds() == (1, 0)
    asset_id = await new_asset(own)
    await write_history(own, asset_id, [*every(1, NOON - timedelta(days=1), [1, 2]), *every(1, NOON, [3, 4, 5])])
    assert await bounds() == (1, 5)
    async with own.acquire() as connection:
        await connection.execute("DROP TABLE ticks_20260228")
    assert await bounds() == (3, 5)
    async with own.acquire() as connection:
        await connection.execute("DROP TABLE ticks_20260301")
    assert await bounds() == (6, 5)


# ------------------------------------------------------------------------------------------------ candles


async def test_closed_and_open_candles_are_one_series(database: Database) -> None:
    asset_id = await new_asset(database)
    await write_history(
        database,
        asset_id,
        [
            Move(NOON, 10),
            Move(NOON + 20 * SECOND, 14, volume=3),
            Move(NOON + 59 * SECOND, 12, volume=4),
            # a minute without a tick
            Move(NOON + 120 * SECOND, 20, market=7),
            Move(NOON + 121 * SECOND, 19, market=8),
        ],
    )

    during = NOON + 179 * SECOND
    assert await candles(database, asset_id, now=during) == [
        candle(asset_id, NOON_S, (10, 14, 10, 12), volume=7, trades=2),
        candle(asset_id, NOON_S + 120, (20, 20, 19, 19), closed=False),
    ]
    assert await candles(database, asset_id, price=PriceKind.MARKET, now=during) == [
        candle(asset_id, NOON_S, (20, 28, 20, 24), volume=7, trades=2),
        candle(asset_id, NOON_S + 120, (7, 8, 7, 8), closed=False),
    ]
    # Its time is over, though no later tick has come.
    [_, last] = await candles(database, asset_id, now=during + SECOND)
    assert last == candle(asset_id, NOON_S + 120, (20, 20, 19, 19))


async def test_a_range_begins_with_its_first_moment_and_ends_before_its_last(database: Database) -> None:
    asset_id = await new_asset(database)
    await write_history(database, asset_id, every(60, NOON, range(1, 7)))

    async def minutes(since: int, to: int, limit: int = 500) -> list[int]:
        found = await candles(database, asset_id, since=NOON_S + since, to=NOON_S + to, limit=limit)
        return [(each.time - NOON_S) // 60 for each in found]

    assert await minutes(0, 360) == [0, 1, 2, 3, 4, 5]
    assert await minutes(60, 300) == [1, 2, 3, 4]
    assert await minutes(61, 301) == [2, 3, 4, 5]
    assert await minutes(0, 360, limit=2) == [4, 5]
    assert await minutes(0, 300, limit=2) == [3, 4]
    assert await minutes(0, 300, limit=1) == [4]
    assert await minutes(301, 360) == []
    assert await minutes(400, 300) == []


async def test_a_candle_that_is_both_a_row_and_in_the_state_counts_once_as_the_row(database: Database) -> None:
    asset_id = await new_asset(database)
    await write_history(database, asset_id, every(60, NOON, [1, 2]))
    async with database.acquire() as connection:
        await connection.execute(
            "INSERT INTO candles SELECT asset_id, 'M1', $2::bigint, display, display + 5, display, display, market,"
            " market, market, market, 0, 0 FROM price_states WHERE asset_id = $1",
            asset_id, NOON_S + 60,
        )  # fmt: skip

    [_, last] = await candles(database, asset_id)
    assert (last.time, last.high - last.low, last.closed) == (NOON_S + 60, 5, True)


async def test_without_a_tick_there_are_no_candles(database: Database) -> None:
    asset_id = await new_asset(database)
    async with database.transaction() as unit:
        # What the engine makes of an asset before its first tick.
        await unit.connection.execute(
            "INSERT INTO price_states (asset_id, at, display, market, fundamental, market_weight, recent_volume_at)"
            " VALUES ($1, $2, 1, 1, 1, 1, $2) ON CONFLICT DO NOTHING",
            asset_id, NOON,
        )  # fmt: skip

    assert await candles(database, asset_id) == []
    assert await candles(database, 10**15) == []


async def test_every_interval_holds_what_its_ticks_come_to(database: Database) -> None:
    seed = random.randrange(2**32)
    draw = random.Random(seed)
    asset_id = await new_asset(database)
    at = NOON - timedelta(hours=20)
    moves = []
    for _ in range(300):
        at += timedelta(seconds=draw.choice([0.25, 1, 30, 400, 4_000]) * draw.random())
        moves.append(Move(at, draw.randrange(1, 50), volume=draw.choice([0, 0, 5]), market=draw.randrange(1, 50)))
    opened, closed = folded(await write_history(database, asset_id, moves))

    for interval in Interval:
        for price in PriceKind:
            expected = [candle_of(row, price=price, closed=True) for row in closed if row.interval is interval]
            expected += [candle_of(row, price=price, closed=False) for row in opened if row.interval is interval]
            assert await candles(database, asset_id, interval, price, now=at) == expected, (
                f"seed {seed}: {interval} {price}"
            )
            assert await candles(database, asset_id, interval, price, now=at, limit=3) == expected[-3:], f"seed {seed}"


@pytest.mark.parametrize("limit", [0, -1, CANDLES_MAX + 2])
async def test_a_limit_that_is_none_is_refused(database: Database, limit: int) -> None:
    with pytest.raises(ValueError, match=f"limit must be between 1 and {CANDLES_MAX + 1}; got {limit}"):
        await candles(database, 1, limit=limit)


async def test_the_current_and_the_previous_candle_of_each_asset(database: Database) -> None:
    long, short, none = sorted([await new_asset(database) for _ in range(3)])
    await write_history(database, long, every(60, NOON, [1, 2, 3, 4]))
    await write_history(database, short, every(60, NOON, [7]))

    async with database.acquire() as connection:
        found = await current_candles(
            connection=connection, asset_ids=[none, short, long], interval=Interval.M1, price=PriceKind.DISPLAY,
            now=NOON_S + 200,
        )  # fmt: skip

    assert found == [
        candle(long, NOON_S + 120, (3, 3, 3, 3)),
        candle(long, NOON_S + 180, (4, 4, 4, 4), closed=False),
        candle(short, NOON_S, (7, 7, 7, 7)),
    ]


@pytest.mark.parametrize(
    ("since", "to", "count"),
    [(0, 60, 1), (0, 61, 2), (1, 60, 0), (1, 61, 1), (60, 60, 0), (60, 0, 0), (0, 86_400, 1_440)],
)
def test_how_many_candles_may_begin_in_a_range(since: int, to: int, count: int) -> None:
    assert buckets(Interval.M1, since, to) == count
    assert buckets(Interval.S1, since, to) == max(0, to - since)


# ------------------------------------------------------------------------------------------------ what it costs


async def test_a_question_reads_no_more_rows_than_it_answers(own: Database) -> None:
    asset_id = await new_asset(own)
    days = [NOON - number * timedelta(days=1) for number in range(4)]
    moves = sorted((move for day in days for move in every(1, day, range(1, 1_501))), key=lambda move: move.at)
    await write_history(own, asset_id, moves)
    async with own.acquire() as connection:
        await connection.execute("ANALYZE ticks, candles")
        statements = {
            "ticks": "SELECT * FROM ticks WHERE asset_id = $1 AND seq > $2 ORDER BY seq LIMIT 500",
            "candles": (
                'SELECT * FROM candles WHERE asset_id = $1 AND "interval" = \'S1\' AND "time" >= 0 AND'
                ' "time" < $2 ORDER BY "time" DESC LIMIT 500'
            ),
        }
        bounds = {"ticks": 3_000, "candles": NOON_S + 100_000}
        for table, sql in statements.items():
            plan = await connection.fetch(f"EXPLAIN (ANALYZE, TIMING OFF) {sql}", asset_id, bounds[table])
            text = "\n".join(row[0] for row in plan)
            assert "Sort" not in text.replace("Sort Key", ""), text
            assert "Seq Scan" not in text, text
            rows = [
                int(line.split("actual rows=")[1].split(".")[0].split()[0])
                for line in text.splitlines()
                if "Index" in line and "actual rows=" in line
            ]
            assert 500 <= sum(rows) <= 500 + len(days), text
