"""The replay: what it is worth between two seconds, over a stop, and with several callers at once."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from app.db import Connection, Unit
from app.demo.replay import AHEAD_MS_MAX, advance, ahead_ms, current_values
from app.demo.series import Mapping, load_series
from app.money import PRICE_UNIT

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
TEMPERATURE, PAYROLLS, NOTHING = 901, 902, 903
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


async def values(connection: Connection, seconds: float) -> dict[int, int]:
    return await current_values(
        connection=connection, asset_ids=[TEMPERATURE, PAYROLLS, NOTHING], at=BEGAN + timedelta(seconds=seconds)
    )


async def moved(connection: Connection, seconds: float) -> int:
    async with connection.transaction():
        return await advance(unit=Unit(connection), at=BEGAN + timedelta(seconds=seconds))


async def positions(connection: Connection) -> dict[int, tuple[int, datetime]]:
    rows = await connection.fetch("SELECT asset_id, position_ms, advanced_at FROM series_replays")
    return {row["asset_id"]: (row["position_ms"], row["advanced_at"]) for row in rows}


async def test_values_are_those_of_the_series_and_assets_without_one_are_left_out(connection: Connection) -> None:
    assert await values(connection, 0) == {
        TEMPERATURE: 112_800 * PRICE_UNIT // 1000,
        PAYROLLS: 76_010 * PRICE_UNIT // 1000,
    }
    assert await current_values(connection=connection, asset_ids=[], at=BEGAN) == {}


async def test_values_run_ahead_of_the_stored_position(connection: Connection) -> None:
    # A tenth of a day a second: 12.8 falls by 2.2 within the first.
    assert (await values(connection, 1))[TEMPERATURE] == 112_580 * PRICE_UNIT // 1000
    assert (await values(connection, 2.5))[TEMPERATURE] == 112_250 * PRICE_UNIT // 1000


async def test_advancing_changes_no_value_of_any_moment(connection: Connection) -> None:
    before = [await values(connection, seconds) for seconds in (1.5, 2, 3)]
    assert await moved(connection, 1.5) == 2
    assert [await values(connection, seconds) for seconds in (1.5, 2, 3)] == before
    assert await positions(connection) == {
        TEMPERATURE: (12_960_000, BEGAN + timedelta(seconds=1.5)),
        PAYROLLS: (394_200_000, BEGAN + timedelta(seconds=1.5)),
    }


async def test_the_second_day_is_reached_after_ten_seconds_of_running(connection: Connection) -> None:
    for second in range(1, 11):
        await moved(connection, second)
    assert (await values(connection, 10))[TEMPERATURE] == 110_600 * PRICE_UNIT // 1000


async def test_a_stopped_replay_stands_still_and_goes_on_where_it_stood(connection: Connection) -> None:
    await moved(connection, 1)
    stood = await values(connection, 4)
    assert await values(connection, 5) == stood
    assert await values(connection, 86_400) == stood
    await moved(connection, 86_400)
    assert await values(connection, 86_400) == stood
    series, mapping = load_series("seattle-weather", "temp_max"), Mapping.parse(scale="1", offset="100")
    assert (await values(connection, 86_402))[TEMPERATURE] == mapping.price(series.value_at(6 * DAY_MS // 10))


async def test_several_callers_at_once_move_it_no_faster(fresh_database_url: str, connection: Connection) -> None:
    others = [await asyncpg.connect(fresh_database_url) for _ in range(4)]
    assert await asyncio.gather(*(moved(one, 2) for one in (connection, *others))) == [2] * 5
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
    first = (await values(connection, 0))[PAYROLLS]
    assert (await values(connection, 2))[PAYROLLS] == first
    await moved(connection, 2)
    assert (await positions(connection))[PAYROLLS][0] == 262_800_000
    assert (await values(connection, 2))[PAYROLLS] == first


def test_only_so_many_milliseconds_count_between_two_advances() -> None:
    def counted(milliseconds: float) -> int:
        return ahead_ms(advanced_at=BEGAN, at=BEGAN + timedelta(milliseconds=milliseconds))

    assert [counted(ms) for ms in (-5, 0, 0.9, 1, 2_999.9, 3_000, 10**9)] == [0, 0, 0, 1, 2_999, 3_000, 3_000]
    assert AHEAD_MS_MAX == 3_000
