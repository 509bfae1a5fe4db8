"""Partitions come when they are needed and go when they are old, while everybody else writes and reads on."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, date, datetime, timedelta

import asyncpg
import pytest

from app.db import Connection, Database
from app.pricing import partitions as made
from app.pricing.partitions import Partitions, drop_older
from app.pricing.reads import tick_bounds
from tests.conftest import make_settings

DAY = date(2026, 11, 22)
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
INSERT = "INSERT INTO ticks VALUES (1, $1, $1, 'DECAY', 0, $2, 1, 1, 1, 1, 0, false)"
PARTITIONS = (
    "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '^(ticks|candles_s1)_' AND relispartition"
    " ORDER BY relname"
)


@pytest.fixture
async def own(fresh_database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(make_settings(database_url=fresh_database_url))
    yield opened
    await opened.close()


async def partitions(database: Database) -> list[str]:
    async with database.acquire() as connection:
        return [row["relname"] for row in await connection.fetch(PARTITIONS)]


async def days_before(database: Database, *distances: int) -> None:
    await Partitions(database).ensure(DAY - timedelta(days=distance) for distance in distances)


async def insert(database: Database, number: int, at: datetime) -> None:
    async with database.acquire() as connection:
        await connection.execute(INSERT, number, at)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    end = time.monotonic() + 10
    while not await condition():
        if time.monotonic() > end:
            raise TimeoutError("not within 10 s")
        await asyncio.sleep(0.01)


async def is_detaching(connection: Connection) -> bool:
    pending: bool = await connection.fetchval("SELECT EXISTS (SELECT FROM pg_inherits WHERE inhdetachpending)")
    return pending


# ------------------------------------------------------------------------------------------------ making


async def test_a_day_has_a_partition_of_ticks_and_one_of_seconds(own: Database) -> None:
    await Partitions(own).ensure([DAY])
    assert await partitions(own) == ["candles_s1_20261122", "ticks_20261122"]


async def test_of_many_days_those_stay_that_were_made_before_time_ran_out(
    own: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(made, "DAYS_AT_ONCE", 2)
    right, days = made._make, [DAY - timedelta(days=distance) for distance in range(5)]

    async def make(connection: Connection, table: made._Table, day: date) -> None:
        if day == DAY - timedelta(days=1):
            raise TimeoutError
        await right(connection, table, day)

    monkeypatch.setattr(made, "_make", make)
    known = Partitions(own)
    with pytest.raises(TimeoutError):
        await known.ensure(days)
    assert [name for name in await partitions(own) if name.startswith("ticks")] == ["ticks_20261118", "ticks_20261119"]
    monkeypatch.setattr(made, "_make", right)
    await known.ensure(days)
    assert len(await partitions(own)) == 10


async def test_rows_go_to_their_utc_day_and_other_days_are_empty(own: Database) -> None:
    await days_before(own, 0, 1)
    midnight = datetime(2026, 11, 22, tzinfo=UTC)
    async with own.acquire() as connection:
        for number, at in enumerate((midnight, midnight - timedelta(microseconds=1)), 1):
            await connection.execute(INSERT, number, at)
            await connection.execute(
                "INSERT INTO candles VALUES (1, 'S1', $1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0)", int(at.timestamp())
            )
        for table in ("ticks", "candles"):
            rows = await connection.fetch(f"SELECT tableoid::regclass::text AS part FROM {table} ORDER BY 1")
            name = "ticks" if table == "ticks" else "candles_s1"
            assert [row["part"] for row in rows] == [f"{name}_20261121", f"{name}_20261122"]
        assert await connection.fetch("SELECT 1 FROM ticks WHERE at >= $1", midnight + timedelta(days=1)) == []


async def test_a_partition_has_the_keys_indexes_and_checks_of_its_table(own: Database) -> None:
    await Partitions(own).ensure([DAY])
    async with own.acquire() as connection:
        indexes = await connection.fetch("SELECT indexdef FROM pg_indexes WHERE tablename = 'ticks_20261122'")
        assert sorted(row["indexdef"].split(" USING ")[1] for row in indexes) == [
            'btree ("position")', "btree (asset_id, seq, at)"
        ]  # fmt: skip
        with pytest.raises(asyncpg.CheckViolationError, match="ticks_position_check"):
            await connection.execute(INSERT, 0, NOON)
        await connection.execute(INSERT, 1, NOON)
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute(INSERT, 1, NOON)


async def test_making_them_twice_makes_them_once(own: Database) -> None:
    known = Partitions(own)
    await known.ensure([DAY])
    await insert(own, 1, NOON)
    await known.ensure([DAY])
    known.forget()
    await known.ensure([DAY, DAY])
    await Partitions(own).ensure([DAY])
    async with own.acquire() as connection:
        assert await connection.fetchval("SELECT count(*) FROM ticks") == 1


async def test_many_who_make_the_same_days_do_not_get_into_each_other_s_way(own: Database) -> None:
    await asyncio.gather(*(days_before(own, *range(n, n + 5)) for n in range(6)))
    assert len(await partitions(own)) == 2 * 10


async def test_making_one_waits_for_no_writer_and_no_reader(own: Database) -> None:
    await Partitions(own).ensure([DAY])
    async with own.transaction() as writer, own.transaction() as reader:
        await writer.connection.execute(INSERT, 1, NOON)
        await reader.connection.fetch("SELECT * FROM ticks")
        async with asyncio.timeout(10):
            await days_before(own, 1)
        assert len(await partitions(own)) == 4


# ------------------------------------------------------------------------------------------------ dropping


async def test_what_is_older_goes_and_nothing_else(own: Database) -> None:
    await days_before(own, 0, 1, 2, 3, 40, 400)
    dropped = await drop_older(database=own, days=2, now=NOON)
    assert dropped == [
        f"{table}_{day}" for table in ("candles_s1", "ticks") for day in ("20251018", "20261013", "20261119")
    ]
    assert await partitions(own) == [
        f"{table}_{day}" for table in ("candles_s1", "ticks") for day in ("20261120", "20261121", "20261122")
    ]
    assert await drop_older(database=own, days=2, now=NOON) == []


async def test_a_tick_written_late_takes_what_is_kept_with_it(own: Database) -> None:
    """Position 3 was of the day that goes: whoever resumes after 1 or 2 would miss it, though 2 is still there."""
    await days_before(own, 0, 3)
    for position, at in ((1, NOON - timedelta(days=3)), (2, NOON), (3, NOON - timedelta(days=3)), (4, NOON)):
        await insert(own, position, at)
    async with own.acquire() as connection:
        await connection.execute("UPDATE stream_heads SET position = 4 WHERE stream = 'ticks'")
        assert await tick_bounds(connection=connection) == (1, 4)
    await drop_older(database=own, days=2, now=NOON)
    async with own.acquire() as connection:
        assert await tick_bounds(connection=connection) == (4, 4)


async def test_candles_of_longer_intervals_stay(own: Database) -> None:
    async with own.acquire() as connection:
        await connection.execute("INSERT INTO candles VALUES (1, 'M1', 60, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0)")
    await drop_older(database=own, days=1, now=NOON)
    async with own.acquire() as connection:
        assert await connection.fetchval("SELECT count(*) FROM candles") == 1


@pytest.mark.parametrize("days", [0, -1])
async def test_less_than_a_day_is_no_retention(own: Database, days: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1 day; got {days}"):
        await drop_older(database=own, days=days, now=NOON)


async def test_writers_and_readers_go_on_while_an_old_day_is_dropped(own: Database) -> None:
    await days_before(own, 0, 9)
    await insert(own, 1, NOON - timedelta(days=9))
    async with own.acquire() as watcher, own.transaction() as old_reader:
        await old_reader.connection.fetch("SELECT * FROM ticks")
        dropping = asyncio.create_task(drop_older(database=own, days=2, now=NOON))
        await until(lambda: is_detaching(watcher))
        async with asyncio.timeout(10):
            await insert(own, 2, NOON)
            await days_before(own, 1)
            assert await watcher.fetchval("SELECT count(*) FROM ticks") == 1
        assert not dropping.done()
    assert await dropping == ["candles_s1_20261113", "ticks_20261113"]


async def test_a_detachment_that_was_interrupted_is_finished_the_next_time(own: Database) -> None:
    await days_before(own, 0, 9)
    await interrupt_detachment(own)
    assert await drop_older(database=own, days=2, now=NOON) == ["candles_s1_20261113", "ticks_20261113"]


async def test_a_day_whose_detachment_was_interrupted_can_be_made_anew(own: Database) -> None:
    await days_before(own, 0, 9)
    await interrupt_detachment(own)
    await days_before(own, 9)
    await insert(own, 1, NOON - timedelta(days=9))
    async with own.acquire() as connection:
        assert not await is_detaching(connection)


async def interrupt_detachment(database: Database) -> None:
    """Leave ticks_20261113 half detached, as a killed process does."""
    async with database.acquire() as watcher, database.transaction() as reader:
        await reader.connection.fetch("SELECT * FROM ticks")
        async with database.acquire() as connection:
            detaching = asyncio.create_task(
                connection.execute("ALTER TABLE ticks DETACH PARTITION ticks_20261113 CONCURRENTLY")
            )
            await until(lambda: is_detaching(watcher))
            await watcher.execute(
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND query LIKE 'ALTER TABLE ticks DETACH%'"
            )
            with pytest.raises(asyncpg.QueryCanceledError):
                await detaching


async def test_what_an_interrupted_drop_left_is_dropped_or_replaced(own: Database) -> None:
    await days_before(own, 0, 8, 9)
    async with own.acquire() as connection:
        for name in ("ticks_20261113", "ticks_20261114"):
            await connection.execute(f"ALTER TABLE ticks DETACH PARTITION {name}")
    await days_before(own, 8)
    await insert(own, 1, NOON - timedelta(days=8))
    assert await drop_older(database=own, days=8, now=NOON) == ["candles_s1_20261113", "ticks_20261113"]


async def test_several_who_drop_at_once_do_no_harm(own: Database) -> None:
    await days_before(own, 0, *range(5, 10))
    dropped = await asyncio.gather(*(drop_older(database=own, days=2, now=NOON) for _ in range(3)))
    await drop_older(database=own, days=2, now=NOON)
    assert len({name for names in dropped for name in names}) == sum(map(len, dropped))
    assert await partitions(own) == ["candles_s1_20261122", "ticks_20261122"]
