"""What the engine writes: all of it or nothing, by the owner alone, in positions without a gap and in commit order."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from app.db import Connection, Database
from app.exchange.orders import Side
from app.exchange.settlement import Settlement
from app.money import RATE_UNIT
from app.pricing import store as store_module
from app.pricing.candles import CandleRow
from app.pricing.engine import AssetState, Step, advance
from app.pricing.intervals import Interval
from app.pricing.model import Parameters, opening
from app.pricing.store import Fenced, Loaded, Store, load_parameters, load_states
from app.pricing.ticks import Tick, TickCause, microseconds
from tests.conftest import make_settings
from tests.factories import new_account, new_asset, place_order
from tests.pricing.causes import ONE, event, moment, trade

ME, OTHER = 11, 12
TICK_COLUMNS = (
    "asset_id, seq, position, cause, trade_seq, at, display, market, fundamental, market_weight, volume, stale"
)


@pytest.fixture
async def own(fresh_database_url: str) -> AsyncIterator[Database]:
    """A database whose positions nobody else moves."""
    opened = await Database.open(make_settings(database_url=fresh_database_url))
    yield opened
    await opened.close()


@pytest.fixture(params=["one statement", "by COPY"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Few rows go one way, many the other: what holds of writing holds of both."""
    if request.param == "by COPY":
        monkeypatch.setattr(store_module, "STATEMENT_ROWS_MAX", 0)
    return str(request.param)


async def own_asset(database: Database, owner_id: int = ME) -> int:
    """A new asset that `owner_id` writes and that has not ticked."""
    asset_id = await new_asset(database)
    async with database.acquire() as connection:
        await connection.execute(
            "INSERT INTO price_states (asset_id, owner_id, at, display, market, fundamental, market_weight,"
            " recent_volume_at) SELECT id, $2, created_at, base_price, base_price, base_price, 1000000000, created_at"
            " FROM assets WHERE id = $1",
            asset_id,
            owner_id,
        )
    return asset_id


async def load(database: Database, asset_id: int, owner_id: int = ME) -> Loaded:
    async with database.acquire() as connection:
        (loaded,) = await load_states(connection=connection, owner_id=owner_id, asset_ids=[asset_id])
    return loaded


async def write(database: Database, *steps: Step, owner_id: int = ME) -> list[Tick]:
    async with database.acquire() as connection:
        return await Store(database).write(connection=connection, owner_id=owner_id, steps=steps)


def opening_step(loaded: Loaded) -> Step:
    return advance(state=loaded.state, parameters=loaded.parameters)


def busy_step(state: AssetState, parameters: Parameters, *, trades: int = 3) -> Step:
    """Trades a second apart, from a day after the asset was made on, and two oracle events among them."""
    start = (state.at - moment(0)).total_seconds() + 86_400
    first = state.trade_seq + 1
    return advance(
        state=state,
        parameters=parameters,
        trades=[trade(first + n, start + n, asset_id=state.asset_id) for n in range(trades)],
        events=[
            event(state.oracle_seq + 1 + n, start + n + 0.5, value=value, asset_id=state.asset_id)
            for n, value in enumerate((3 * ONE, None))
        ],
    )


async def ticks_of(connection: Connection) -> list[Tick]:
    rows = await connection.fetch(f"SELECT {TICK_COLUMNS} FROM ticks ORDER BY position")
    return [Tick(*row.values()) for row in rows]


async def candles_of(connection: Connection) -> set[CandleRow]:
    rows = await connection.fetch("SELECT * FROM candles")
    return {CandleRow(row[0], Interval(row[1]), *list(row.values())[2:]) for row in rows}


async def everything(database: Database) -> list[Sequence[asyncpg.Record]]:
    """All that a write touches."""
    async with database.snapshot() as connection:
        return [
            await connection.fetch(f"SELECT * FROM {table} ORDER BY 1, 2")
            for table in ("ticks", "candles", "price_states", "stream_heads")
        ]


# ------------------------------------------------------------------------------------------------ loading


async def test_an_asset_that_has_not_ticked_is_loaded_as_new(own: Database) -> None:
    asset_id = await own_asset(own)
    loaded = await load(own, asset_id)
    assert loaded.parameters == Parameters(ONE, 200_000_000, 1_000_000_000, 900)
    made = loaded.state.created_at
    assert loaded.state == AssetState(asset_id, made, None, 0, opening(loaded.parameters, at=microseconds(made)), ())


async def test_only_what_one_owns_is_loaded(own: Database) -> None:
    mine, others = await own_asset(own), await own_asset(own, OTHER)
    async with own.acquire() as connection:
        assert [one.state.asset_id for one in await load_states(connection=connection, owner_id=ME)] == [mine]
        assert await load_states(connection=connection, owner_id=ME, asset_ids=[others]) == []


async def test_parameters_are_loaded_as_they_stand(own: Database) -> None:
    asset_id = await own_asset(own)
    async with own.acquire() as connection:
        await connection.execute("UPDATE assets SET volume_half_life_seconds = 60, base_price = $1", 5 * ONE)
        assert await load_parameters(connection=connection, asset_ids=[asset_id, 10**9]) == {
            asset_id: Parameters(5 * ONE, 200_000_000, 1_000_000_000, 60)
        }


@pytest.mark.usefixtures("way")
async def test_a_state_is_loaded_as_it_was_written(own: Database) -> None:
    asset_id = await own_asset(own)
    new = await load(own, asset_id)
    first = busy_step(new.state, new.parameters)
    ticks = await write(own, first)
    loaded = (await load(own, asset_id)).state
    # The supply is that of the trade, of which there is none in this database: 0.
    assert loaded.tick == ticks[-1]
    assert (loaded.oracle_seq, loaded.open_candles) == (2, first.after.open_candles)
    assert (loaded.model.fundamental, loaded.model.recent_volume) == (
        first.after.model.fundamental, first.after.model.recent_volume
    )  # fmt: skip
    assert loaded.model.reading_at == first.after.model.reading_at


async def test_the_supply_is_that_of_the_last_trade_taken_in(own: Database) -> None:
    asset_id = await own_asset(own)
    settlement = Settlement(own, publish=lambda _: None)
    settlement.start()
    buyer = await new_account(own, usdc="1000")
    bought = (await place_order(settlement, buyer, asset_id, shares="100")).trades[0]
    await place_order(settlement, buyer, asset_id, Side.SELL, shares="40")
    await settlement.stop()
    new = await load(own, asset_id)
    step = advance(state=new.state, parameters=new.parameters, trades=[bought])
    ticks = await write(own, step)
    loaded = (await load(own, asset_id)).state
    assert loaded.model.supply == 100 * 10**9
    assert (loaded.tick, loaded.model) == (ticks[-1], step.after.model)
    assert (ticks[-1].market, ticks[-1].volume) == (1_500_000_000_000, 125_000_000)


# ------------------------------------------------------------------------------------------------ writing


async def test_what_is_written_is_what_came_of_the_step(own: Database, way: str) -> None:
    new = [await load(own, await own_asset(own)) for _ in range(2)]
    first = [busy_step(one.state, one.parameters) for one in new]
    ticks = await write(own, *first)
    assert [tick.position for tick in ticks] == list(range(1, 13)), way
    assert [(tick.asset_id, tick.seq) for tick in ticks] == [
        (one.state.asset_id, seq) for one in new for seq in range(1, 7)
    ]
    second = busy_step(first[0].after, new[0].parameters)
    more = await write(own, second)
    assert [tick.position for tick in more] == [13, 14, 15, 16, 17]
    async with own.acquire() as connection:
        assert await ticks_of(connection) == ticks + more
        assert await candles_of(connection) == {row for step in (*first, second) for row in step.closed}
        states = await connection.fetch("SELECT asset_id, seq, position FROM price_states ORDER BY asset_id")
        assert [tuple(row) for row in states] == [
            (new[0].state.asset_id, 11, 17), (new[1].state.asset_id, 6, 12)
        ]  # fmt: skip
        assert await connection.fetchval("SELECT position FROM stream_heads WHERE stream = 'ticks'") == 17


async def test_steps_without_ticks_are_passed_over(own: Database) -> None:
    idle, new = [await load(own, await own_asset(own)) for _ in range(2)]
    nothing = Step(idle.state, idle.state, [], [])
    assert await write(own, nothing) == []
    ticks = await write(own, nothing, opening_step(new))
    assert [(tick.asset_id, tick.position) for tick in ticks] == [(new.state.asset_id, 1)]


async def test_the_extremes_of_every_column_are_written(own: Database, way: str) -> None:
    loaded = await load(own, await own_asset(own))
    huge = trade(1, 0.0, asset_id=loaded.state.asset_id, market=10**33 + 10**21, gross=9 * 10**18, supply=10**24)
    ticks = await write(own, advance(state=loaded.state, parameters=loaded.parameters, trades=[huge]))
    state = (await load(own, loaded.state.asset_id)).state
    assert (ticks[-1].market, ticks[-1].volume, way) == (10**33 + 10**21, 9 * 10**18, way)
    assert state.tick == ticks[-1]
    assert state.model.recent_volume == 9 * 10**24


# ------------------------------------------------------------------------------------------------ the fence


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("change", ["owner_id = 12", "owner_id = NULL", "seq = seq + 1"])
async def test_a_write_over_another_s_is_refused_whole(own: Database, change: str) -> None:
    kept, lost = [await load(own, await own_asset(own)) for _ in range(2)]
    await write(own, opening_step(kept), opening_step(lost))
    steps = [busy_step((await load(own, one.state.asset_id)).state, one.parameters) for one in (kept, lost)]
    async with own.acquire() as connection:
        await connection.execute(f"UPDATE price_states SET {change} WHERE asset_id = $1", lost.state.asset_id)
    before = await everything(own)
    with pytest.raises(Fenced, match=f"assets \\[{lost.state.asset_id}\\] have another owner") as refused:
        await write(own, *steps)
    assert refused.value.asset_ids == {lost.state.asset_id}
    assert await everything(own) == before


@pytest.mark.usefixtures("way")
async def test_of_two_writers_who_both_believe_to_own_an_asset_one_is_refused(own: Database) -> None:
    new = await load(own, await own_asset(own))
    await write(own, opening_step(new))
    state = (await load(own, new.state.asset_id)).state
    steps = [busy_step(state, new.parameters, trades=count) for count in (3, 4)]
    outcomes = await asyncio.gather(*(write(own, step) for step in steps), return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, Fenced)]
    (written,) = [outcome for outcome in outcomes if isinstance(outcome, list)]
    assert [fence.asset_ids for fence in refused] == [frozenset({new.state.asset_id})]
    async with own.acquire() as connection:
        assert (await ticks_of(connection))[1:] == written


@pytest.mark.usefixtures("way")
async def test_positions_have_no_gap_and_come_in_the_order_of_commits(own: Database) -> None:
    new = [await load(own, await own_asset(own)) for _ in range(4)]
    seen: list[int] = []

    async def write_on(loaded: Loaded) -> None:
        state = loaded.state
        for _ in range(10):
            step = busy_step(state, loaded.parameters, trades=2)
            ticks = await write(own, step)
            state = step.after
            # What has committed may not be followed by a lower position: nothing below these is still to come.
            async with own.acquire() as connection:
                count = await connection.fetchval("SELECT count(*) FROM ticks WHERE position <= $1", ticks[-1].position)
            assert count == ticks[-1].position
            seen.extend(tick.position for tick in ticks)

    await asyncio.gather(*(write_on(loaded) for loaded in new))
    assert sorted(seen) == list(range(1, 4 * (10 * 4 + 1) + 1))
    async with own.acquire() as connection:
        rows = await connection.fetch("SELECT asset_id, array_agg(seq ORDER BY position) AS s FROM ticks GROUP BY 1")
    assert {row["asset_id"]: row["s"] for row in rows} == {
        one.state.asset_id: list(range(1, 42)) for one in new
    }  # fmt: skip


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    "meanwhile",
    [
        "UPDATE stream_heads SET position = position + 5 WHERE stream = 'ticks'",
        "UPDATE price_states SET owner_id = owner_id, open_candles = '[]'",
    ],
    ids=["the head", "the state"],
)
async def test_what_others_change_before_they_commit_is_waited_for(own: Database, meanwhile: str) -> None:
    new = await load(own, await own_asset(own))
    async with own.transaction() as unit:
        await unit.connection.execute(meanwhile)
        head = await unit.connection.fetchval("SELECT position FROM stream_heads WHERE stream = 'ticks'")
        pending = asyncio.create_task(write(own, opening_step(new)))
        await until(lambda: is_anyone_waiting(own))
        assert not pending.done()
    (tick,) = await pending
    assert tick.position == head + 1
    assert (await load(own, new.state.asset_id)).state.tick == tick


async def is_anyone_waiting(database: Database) -> bool:
    async with database.acquire() as connection:
        waiting: bool = await connection.fetchval(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
            " AND wait_event_type = 'Lock')"
        )
        return waiting


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    end = time.monotonic() + 10
    while not await condition():
        if time.monotonic() > end:
            raise TimeoutError("not within 10 s")
        await asyncio.sleep(0.01)


# ------------------------------------------------------------------------------------------------ partitions


@pytest.mark.usefixtures("way")
async def test_old_days_get_their_partitions_as_they_are_caught_up(own: Database) -> None:
    new = await load(own, await own_asset(own))
    async with own.acquire() as connection:
        await connection.execute("UPDATE assets SET created_at = $1", datetime(2026, 2, 27, 23, 59, tzinfo=UTC))
    new = await load(own, new.state.asset_id)
    days = [
        trade(n + 1, (new.state.at - moment(0) + timedelta(days=n)).total_seconds(), asset_id=new.state.asset_id)
        for n in range(4)
    ]
    ticks = await write(own, advance(state=new.state, parameters=new.parameters, trades=days))
    async with own.acquire() as connection:
        counts = await connection.fetch("SELECT tableoid::regclass::text AS part, count(*) FROM ticks GROUP BY 1")
        assert {row["part"]: row["count"] for row in counts} == {
            "ticks_20260227": 2, "ticks_20260228": 1, "ticks_20260301": 1, "ticks_20260302": 1
        }  # fmt: skip
        assert await ticks_of(connection) == ticks


@pytest.mark.usefixtures("way")
async def test_a_partition_that_has_been_dropped_is_made_again(own: Database) -> None:
    new = await load(own, await own_asset(own))
    store = Store(own)
    async with own.acquire() as connection:
        step = opening_step(new)
        await store.write(connection=connection, owner_id=ME, steps=[step])
        name = f"ticks_{new.state.at:%Y%m%d}"
        await connection.execute(f"DROP TABLE {name}")
        again = advance(
            state=step.after,
            parameters=new.parameters,
            events=[event(1, 0, value=ONE, asset_id=new.state.asset_id)],
        )
        ticks = await store.write(connection=connection, owner_id=ME, steps=[again])
        assert await ticks_of(connection) == ticks


async def test_what_the_tables_refuse_for_itself_is_raised(own: Database, way: str) -> None:
    new = await load(own, await own_asset(own))
    bad = Tick(new.state.asset_id, 1, 0, TickCause.OPEN, 0, new.state.at, 0, 0, 0, RATE_UNIT, 0, stale=False)
    step = Step(new.state, opening_step(new).after, [bad], [])
    before = await everything(own)
    with pytest.raises(asyncpg.CheckViolationError, match="ticks_prices_check"):
        await write(own, step)
    assert (await everything(own), way) == (before, way)
