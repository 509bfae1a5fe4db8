"""The replays of series: what they are worth between two seconds, over a stop, and with several readers at once."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.db import Connection
from app.oracle.configuration import FeedConfiguration
from app.oracle.feeds import FeedAnswer, FeedFailed
from app.oracle.replays import ReplayMove, move_replays, replayed, start_replay, step_ms, value_text
from app.oracle.series import UnknownSeries, load_series

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
TEMPERATURE, PAYROLLS = 901, 902
STEP_MS_MAX = 3_000


def feed(series: str, column: str) -> FeedConfiguration:
    return FeedConfiguration(
        url=None,
        json_path=None,
        series=series,
        column=column,
        scale="1",
        offset="0",
        twap_minutes=None,
        max_delta_percent=10**10,
    )


FEEDS = {
    TEMPERATURE: feed("seattle-weather", "temp_max"),
    PAYROLLS: feed("us-employment", "construction"),
}


async def started(connection: Connection, asset_id: int, *, speed_factor: str = "1") -> None:
    followed = FEEDS[asset_id]
    await start_replay(
        connection=connection,
        asset_id=asset_id,
        series=followed.series or "",
        column=followed.column or "",
        speed_factor=Decimal(speed_factor),
        at=BEGAN,
    )


@pytest.fixture
async def connection(fresh_database_url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(fresh_database_url)
    for asset_id in FEEDS:
        await started(connection, asset_id)
    yield connection
    await connection.close()


async def read(connection: Connection, asset_id: int, seconds: float) -> tuple[FeedAnswer, ReplayMove]:
    """What the replay is worth so long after it began."""
    return await replayed(
        connection=connection,
        asset_id=asset_id,
        feed=FEEDS[asset_id],
        at=BEGAN + timedelta(seconds=seconds),
        step_ms_max=STEP_MS_MAX,
    )


async def moved(connection: Connection, asset_id: int, seconds: float) -> str:
    """What it is worth there, once it has been moved."""
    answer, move = await read(connection, asset_id, seconds)
    await move_replays(connection=connection, moves=[move])
    return answer.value


async def positions(connection: Connection) -> dict[int, tuple[int, datetime]]:
    rows = await connection.fetch("SELECT asset_id, position_ms, advanced_at FROM series_replays")
    return {row["asset_id"]: (row["position_ms"], row["advanced_at"]) for row in rows}


async def test_reading_moves_nothing_and_moving_moves_what_was_read(connection: Connection) -> None:
    assert await read(connection, TEMPERATURE, 2.5) == await read(connection, TEMPERATURE, 2.5)
    assert await positions(connection) == {TEMPERATURE: (0, BEGAN), PAYROLLS: (0, BEGAN)}
    moves = [(await read(connection, asset_id, 2.5))[1] for asset_id in FEEDS]
    await move_replays(connection=connection, moves=moves)
    assert await positions(connection) == {
        TEMPERATURE: (21_600_000, BEGAN + timedelta(seconds=2.5)),
        PAYROLLS: (657_000_000, BEGAN + timedelta(seconds=2.5)),
    }


async def test_values_move_with_the_positions(connection: Connection) -> None:
    assert await moved(connection, TEMPERATURE, 0) == "12.8"
    # A tenth of a day a second: 12.8 falls by 2.2 within the first.
    assert await moved(connection, TEMPERATURE, 1) == "12.58"
    assert await moved(connection, TEMPERATURE, 2.5) == "12.25"
    assert await moved(connection, PAYROLLS, 0) == "7601"


async def test_an_answer_says_where_the_series_stands(connection: Connection) -> None:
    answer, move = await read(connection, PAYROLLS, 3)
    series = load_series("us-employment", "construction")
    assert answer.url == "series:us-employment/construction"
    assert answer.retrieved_at == BEGAN + timedelta(seconds=3)
    assert Fraction(answer.value) == pytest.approx(series.value_at(move.position_ms), abs=10**-17)
    assert answer.excerpt == (
        f"{answer.value} at 2006-01-10T03:00:00Z, between 7601 on 2006-01-01 and 7664 on 2006-02-01"
    )


async def test_the_second_day_is_reached_after_ten_seconds_of_running(connection: Connection) -> None:
    for second in range(1, 10):
        await moved(connection, TEMPERATURE, second)
    assert await moved(connection, TEMPERATURE, 10) == "10.6"


async def test_a_stopped_replay_goes_on_where_it_stood_by_a_step_of_three_seconds(connection: Connection) -> None:
    await moved(connection, TEMPERATURE, 1)
    series = load_series("seattle-weather", "temp_max")
    tenth_ms = 8_640_000
    assert await moved(connection, TEMPERATURE, 86_400) == value_text(series.value_at(4 * tenth_ms))
    assert await moved(connection, TEMPERATURE, 86_402) == value_text(series.value_at(6 * tenth_ms))


async def test_of_several_readers_at_once_one_moves_it(fresh_database_url: str, connection: Connection) -> None:
    others = [await asyncpg.connect(fresh_database_url) for _ in range(4)]
    values = await asyncio.gather(*(moved(one, TEMPERATURE, 2) for one in (connection, *others)))
    assert set(values) == {"12.36"}
    for one in others:
        await one.close()
    assert (await positions(connection))[TEMPERATURE] == (17_280_000, BEGAN + timedelta(seconds=2))


async def test_a_move_that_somebody_else_was_faster_with_is_not_made(connection: Connection) -> None:
    _, late = await read(connection, TEMPERATURE, 1)
    _, other = await read(connection, PAYROLLS, 1)
    await moved(connection, TEMPERATURE, 2)
    await move_replays(connection=connection, moves=[late, other])
    assert await positions(connection) == {
        TEMPERATURE: (17_280_000, BEGAN + timedelta(seconds=2)),
        PAYROLLS: (262_800_000, BEGAN + timedelta(seconds=1)),
    }
    await move_replays(connection=connection, moves=[])


async def test_what_is_left_of_a_millisecond_counts_next_time(connection: Connection) -> None:
    for step in range(1, 11):
        await moved(connection, TEMPERATURE, step * 0.0015)
    assert (await positions(connection))[TEMPERATURE] == (15 * 8_640, BEGAN + timedelta(milliseconds=15))


async def test_a_clock_that_was_set_back_stops_nothing(connection: Connection) -> None:
    await moved(connection, TEMPERATURE, 2)
    await moved(connection, TEMPERATURE, -3_600)
    assert (await positions(connection))[TEMPERATURE] == (17_280_000, BEGAN - timedelta(seconds=3_600))
    await moved(connection, TEMPERATURE, -3_599)
    assert (await positions(connection))[TEMPERATURE][0] == 25_920_000


async def test_at_the_end_it_turns_back_and_stays_within_one_period(connection: Connection) -> None:
    period_ms = load_series("us-employment", "construction").period_ms
    await connection.execute(
        "UPDATE series_replays SET position_ms = $1 WHERE asset_id = $2", period_ms - 262_800_000, PAYROLLS
    )
    first = await moved(connection, PAYROLLS, 0)
    # Once back at the beginning, as far on this side of it as it was on the other.
    assert await moved(connection, PAYROLLS, 2) == first
    assert (await positions(connection))[PAYROLLS][0] == 262_800_000


async def test_starting_again_keeps_the_place_and_takes_the_speed(connection: Connection) -> None:
    await moved(connection, TEMPERATURE, 1)
    for factor, speed in (("1", 8_640), ("2.5", 21_600), ("0.00001", 1)):
        await started(connection, TEMPERATURE, speed_factor=factor)
        row = await connection.fetchrow(
            "SELECT speed, position_ms FROM series_replays WHERE asset_id = $1", TEMPERATURE
        )
        assert row is not None
        assert tuple(row) == (speed, 8_640_000)


async def test_a_replay_that_was_never_started_or_does_not_exist_is_told(connection: Connection) -> None:
    await connection.execute("DELETE FROM series_replays WHERE asset_id = $1", PAYROLLS)
    with pytest.raises(FeedFailed, match="no replay of it was started for the asset 902"):
        await read(connection, PAYROLLS, 1)
    with pytest.raises(UnknownSeries, match="there is no bundled series 'moon'"):
        await start_replay(
            connection=connection, asset_id=1, series="moon", column="x", speed_factor=Decimal(1), at=BEGAN
        )


def test_only_so_many_milliseconds_count_between_two_steps() -> None:
    def counted(milliseconds: float) -> int:
        return step_ms(advanced_at=BEGAN, at=BEGAN + timedelta(milliseconds=milliseconds), step_ms_max=3_000)

    assert [counted(ms) for ms in (-5, 0, 0.9, 1, 2_999.9, 3_000, 10**9)] == [0, 0, 0, 1, 2_999, 3_000, 3_000]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Fraction(0), "0"),
        (Fraction(7601), "7601"),
        (Fraction("-0.5"), "-0.5"),
        (Fraction("12.250"), "12.25"),
        (Fraction(1, 3), "0.333333333333333333"),
        (Fraction(-2, 3), "-0.666666666666666667"),
        (Fraction(1, 2 * 10**18), "0"),
        (Fraction(3, 2 * 10**18), "0.000000000000000002"),
    ],
)
def test_values_are_exact_or_rounded_half_even_to_18_decimals(value: Fraction, text: str) -> None:
    assert value_text(value) == text


@given(st.integers(min_value=0, max_value=10**12))
def test_texts_of_values_stay_within_half_a_unit(position_ms: int) -> None:
    value = load_series("us-employment", "information").value_at(position_ms)
    assert abs(Fraction(value_text(value)) - value) <= Fraction(1, 2 * 10**18)
