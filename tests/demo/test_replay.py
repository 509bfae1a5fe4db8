"""The replay: what it is worth between two seconds, over a stop, and with several callers at once."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from app.db import Connection, Database, Unit
from app.demo.replay import STEP_MS_MAX, advance, record_values, step_ms
from app.oracle.series import Mapping, load_series
from app.money import PRICE_UNIT
from tests.factories.market import new_asset
from tests.pricing.running import open_database

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
TEMPERATURE, PAYROLLS = 901, 902
DAY_MS = 86_400_000


@pytest.fixture
async def connection(fresh_database_url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(fresh_database_url)
    await connection.executemany(
        'INSERT INTO series_replays (asset_id, series, "column", scale, "offset", speed, position_ms, advanced_at)'
        " VALUES ($1, $2, $3, $4, $5, $6, 0, $7)",
        [
            (TEMPERATURE, "seattle-weather", "temp_max", "1", "100", 8_640, BEGAN),
            (PAYROLLS, "us-employment", "construction", "0.01", "0", 262_800, BEGAN),
        ],
    )
    yield connection
    await connection.close()


async def moved(connection: Connection, seconds: float) -> dict[int, int]:
    """The values once the replays have been moved to so long after they began."""
    async with connection.transaction():
        return await advance(unit=Unit(connection), at=BEGAN + timedelta(seconds=seconds))


async def positions(connection: Connection) -> dict[int, tuple[int, datetime]]:
    rows = await connection.fetch("SELECT asset_id, position_ms, advanced_at FROM series_replays")
    return {row["asset_id"]: (row["position_ms"], row["advanced_at"]) for row in rows}


async def test_values_are_those_of_the_series(connection: Connection) -> None:
    assert await moved(connection, 0) == {
        TEMPERATURE: 112_800 * PRICE_UNIT // 1000,
        PAYROLLS: 76_010 * PRICE_UNIT // 1000,
    }


async def test_values_move_with_the_positions(connection: Connection) -> None:
    # A tenth of a day a second: 12.8 falls by 2.2 within the first.
    assert (await moved(connection, 1))[TEMPERATURE] == 112_580 * PRICE_UNIT // 1000
    assert (await moved(connection, 2.5))[TEMPERATURE] == 112_250 * PRICE_UNIT // 1000
    assert await positions(connection) == {
        TEMPERATURE: (21_600_000, BEGAN + timedelta(seconds=2.5)),
        PAYROLLS: (657_000_000, BEGAN + timedelta(seconds=2.5)),
    }


async def test_the_second_day_is_reached_after_ten_seconds_of_running(connection: Connection) -> None:
    for second in range(1, 10):
        await moved(connection, second)
    assert (await moved(connection, 10))[TEMPERATURE] == 110_600 * PRICE_UNIT // 1000


async def test_a_stopped_replay_goes_on_where_it_stood_by_a_step_of_three_seconds(connection: Connection) -> None:
    await moved(connection, 1)
    series, mapping = load_series("seattle-weather", "temp_max"), Mapping.parse(scale="1", offset="100")
    assert (await moved(connection, 86_400))[TEMPERATURE] == mapping.price(series.value_at(4 * DAY_MS // 10))
    assert (await moved(connection, 86_402))[TEMPERATURE] == mapping.price(series.value_at(6 * DAY_MS // 10))


async def test_several_callers_at_once_move_it_no_faster(fresh_database_url: str, connection: Connection) -> None:
    others = [await asyncpg.connect(fresh_database_url) for _ in range(4)]
    values = await asyncio.gather(*(moved(one, 2) for one in (connection, *others)))
    assert values == [values[0]] * 5
    for one in others:
        await one.close()
    assert (await positions(connection))[TEMPERATURE] == (17_280_000, BEGAN + timedelta(seconds=2))


async def test_what_is_left_of_a_millisecond_counts_next_time(connection: Connection) -> None:
    for step in range(1, 11):
        await moved(connection, step * 0.0015)
    assert (await positions(connection))[TEMPERATURE] == (15 * 8_640, BEGAN + timedelta(milliseconds=15))


async def test_a_clock_that_was_set_back_stops_nothing(connection: Connection) -> None:
    await moved(connection, 2)
    await moved(connection, -3_600)
    assert (await positions(connection))[TEMPERATURE] == (17_280_000, BEGAN - timedelta(seconds=3_600))
    await moved(connection, -3_599)
    assert (await positions(connection))[TEMPERATURE][0] == 25_920_000


async def test_at_the_end_it_turns_back_and_stays_within_one_period(connection: Connection) -> None:
    period_ms = load_series("us-employment", "construction").period_ms
    await connection.execute(
        "UPDATE series_replays SET position_ms = $1 WHERE asset_id = $2", period_ms - 262_800_000, PAYROLLS
    )
    first = (await moved(connection, 0))[PAYROLLS]
    # Once back at the beginning, as far on this side of it as it was on the other.
    assert (await moved(connection, 2))[PAYROLLS] == first
    assert (await positions(connection))[PAYROLLS][0] == 262_800_000


def test_only_so_many_milliseconds_count_between_two_steps() -> None:
    def counted(milliseconds: float) -> int:
        return step_ms(advanced_at=BEGAN, at=BEGAN + timedelta(milliseconds=milliseconds))

    assert [counted(ms) for ms in (-5, 0, 0.9, 1, 2_999.9, 3_000, 10**9)] == [0, 0, 0, 1, 2_999, 3_000, 3_000]
    assert STEP_MS_MAX == 3_000


# ------------------------------------------------------------------------------------------------ readings


@pytest.fixture
async def own(fresh_database_url: str) -> AsyncIterator[Database]:
    async with open_database(fresh_database_url) as database:
        yield database


async def follow(database: Database, column: str) -> int:
    """A new asset that replays a column of us-employment; its id."""
    asset_id = await new_asset(database)
    async with database.acquire() as connection:
        await connection.execute(
            'INSERT INTO series_replays (asset_id, series, "column", scale, "offset", speed, position_ms, advanced_at)'
            " VALUES ($1, 'us-employment', $2, '0.01', '0', 262800, 0, $3)",
            asset_id,
            column,
            BEGAN,
        )
    return asset_id


async def recorded(database: Database, seconds: float) -> list[tuple[int, int, str, int | None]]:
    """(asset id, seq, kind, value) of the readings that a step records."""
    async with database.transaction() as unit:
        values = await advance(unit=unit, at=BEGAN + timedelta(seconds=seconds))
        events = await record_values(unit=unit, values=values)
    assert {(event.cadence_seconds, event.fresh_seconds) for event in events} == {(10, 30)}
    return [(event.asset_id, event.seq, event.kind.value, event.value) for event in events]


async def test_each_step_records_a_reading_of_every_replay_the_first_as_an_override(own: Database) -> None:
    first = await follow(own, "construction")
    await new_asset(own)
    series = load_series("us-employment", "construction")
    mapping = Mapping.parse(scale="0.01", offset="0")
    assert await recorded(own, 0) == [(first, 1, "OVERRIDE", 76_010 * PRICE_UNIT // 1000)]
    second = await follow(own, "manufacturing")
    assert await recorded(own, 2) == [
        (first, 2, "READING", mapping.price(series.value_at(525_600_000))),
        (second, 1, "OVERRIDE", mapping.price(load_series("us-employment", "manufacturing").value_at(525_600_000))),
    ]


async def test_a_step_that_is_rolled_back_moves_and_records_nothing(own: Database) -> None:
    asset_id = await follow(own, "construction")

    async def fail() -> None:
        async with own.transaction() as unit:
            await record_values(unit=unit, values=await advance(unit=unit, at=BEGAN + timedelta(seconds=2)))
            raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        await fail()
    async with own.acquire() as connection:
        assert await positions(connection) == {asset_id: (0, BEGAN)}
        assert await connection.fetchval("SELECT count(*) FROM oracle_events") == 0
