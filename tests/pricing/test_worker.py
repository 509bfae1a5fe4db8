"""Price workers at work: every trade and reading becomes one tick, told after its commit; assets are shared; who was
overtaken writes nothing."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from app.admin.asset_input import AssetChanges
from app.bus import CHANGES_STREAM, TRADES_STREAM, Bus, decode_trades, encode_changes
from app.local.valkey import EmbeddedValkey
from app.pricing import claims, engine, inbox
from app.pricing.oracle_events import ORACLE_STREAM
from app.pricing.store import Fenced, Store
from app.pricing.ticks import TICKS_STREAM, Tick
from app.pricing.worker import PriceWorker
from tests.factories.market import new_account, place_order, update_asset
from tests.pricing.market import Market, open_market
from tests.pricing.running import (
    open_database,
    record,
    running_worker,
    until,
)
from tests.pricing.wholeness import assert_ticks_whole


@pytest.fixture
async def market(fresh_database_url: str, valkey: EmbeddedValkey) -> AsyncIterator[Market]:
    async with open_market(fresh_database_url, valkey.url) as opened:
        await opened.redis.flushall()
        yield opened


# ------------------------------------------------------------------------------------------------ ticks


async def test_trades_and_readings_become_ticks_told_in_the_order_of_their_positions(market: Market) -> None:
    first, second = await market.assets(2)
    async with running_worker(market.url, redis_url=market.redis_url) as worker:
        await until(lambda: worker.reads_streams and len(worker.asset_ids) == 2)
        await market.trade(first, second, first)
        await market.caught_up()
        await record(market.database, second, 3 * 10**12, bus=market.bus)
        assert await market.whole() == (6, 3, 1)
        told = await market.until_told(6)

    assert [(tick.position, tick.asset_id) for tick in told] == [
        (position, tick.asset_id) for position, tick in enumerate(told, 1)
    ]
    assert [(tick.seq, tick.cause.value, tick.trade_seq) for tick in told if tick.asset_id == first] == [
        (1, "OPEN", 0),
        (2, "TRADE", 1),
        (3, "TRADE", 2),
    ]
    assert [(tick.seq, tick.cause.value, tick.trade_seq) for tick in told if tick.asset_id == second] == [
        (1, "OPEN", 0),
        (2, "TRADE", 1),
        (3, "ORACLE", 1),
    ]
    assert told[-1].fundamental == 1_400_000_000_000


async def test_an_entry_tells_the_trades_of_its_ticks(market: Market) -> None:
    (asset_id,) = await market.assets(1)
    async with running_worker(market.url, redis_url=market.redis_url) as worker:
        await until(lambda: worker.reads_streams and len(worker.asset_ids) == 1)
        await market.until_told(1)
        await market.trade(asset_id)
        await market.until_told(2)
    opening, traded = await market.redis.xrange(TICKS_STREAM)
    assert set(opening[1]) == {b"ticks"}
    (trade,) = decode_trades(traded[1][b"trades"])
    (published,) = [
        trade for _, fields in await market.redis.xrange(TRADES_STREAM) for trade in decode_trades(fields[b"trades"])
    ]
    assert trade == published
    assert (trade.asset_id, trade.seq) == (asset_id, 1)


async def test_what_happened_before_the_start_is_read_from_the_database(market: Market) -> None:
    first, second = await market.assets(2)
    await market.trade(*[first] * 5, second)
    for value in (2, 3, 4):
        await record(market.database, first, value * 10**12)
    await market.trade(first)
    await market.redis.flushall()
    async with running_worker(market.url, redis_url=market.redis_url):
        assert await market.whole() == (12, 7, 3)
    assert [cause for _, cause, _, _ in await market.ticks(first)] == [
        "OPEN", "TRADE", "TRADE", "TRADE", "TRADE", "TRADE", "ORACLE", "ORACLE", "ORACLE", "TRADE",
    ]  # fmt: skip


async def test_without_redis_everything_ticks_all_the_same(market: Market) -> None:
    (asset_id,) = await market.assets(1)
    async with running_worker(market.url) as worker:
        await market.trade(asset_id, asset_id)
        await record(market.database, asset_id, 2 * 10**12)
        assert await market.whole() == (4, 2, 1)
        assert worker.reads_streams is False


async def test_a_backlog_of_many_pages_is_taken_in_by_time(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.pricing.worker.PAGE_ROWS", 3)
    (asset_id,) = await market.assets(1)
    causes = ["OPEN"]
    for _ in range(5):
        await market.trade(asset_id, asset_id)
        await record(market.database, asset_id, 2 * 10**12)
        causes += ["TRADE", "TRADE", "ORACLE"]
    async with running_worker(market.url):
        assert await market.whole() == (16, 10, 5)
    assert [cause for _, cause, _, _ in await market.ticks(asset_id)] == causes


async def test_what_an_engine_that_catches_up_writes_at_once_is_not_told(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.pricing.worker.ENTRY_TICKS_MAX", 2)
    (asset_id,) = await market.assets(1)
    await market.trade(asset_id, asset_id, asset_id)
    async with running_worker(market.url, redis_url=market.redis_url):
        await market.caught_up()
        await market.trade(asset_id)
        told = await market.until_told(2)
    assert [(tick.cause.value, tick.position) for tick in told] == [("OPEN", 1), ("TRADE", 5)]


async def test_an_idle_asset_drifts_by_the_databases_clock(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    idle = timedelta(seconds=1)
    monkeypatch.setattr(engine, "_DRIFT_AFTER", idle)
    (asset_id,) = await market.assets(1)
    await market.trade(asset_id)
    await record(market.database, asset_id, 2 * 10**12)
    async with running_worker(market.url, redis_url=market.redis_url):
        assert await market.whole() == (3, 1, 1)

        async def drifted() -> bool:
            return (await market.ticks(asset_id))[3:4] == [(4, "DECAY", 1, 0)]

        await until(drifted)
    async with market.database.acquire() as connection:
        rows = await connection.fetch("SELECT at, display, market FROM ticks ORDER BY seq DESC LIMIT 2")
        await assert_ticks_whole(connection)
    assert rows[0]["at"] - rows[1]["at"] >= idle
    assert (rows[0]["market"], rows[0]["display"] != rows[1]["display"]) == (rows[1]["market"], True)


async def test_an_asset_does_not_drift_ahead_of_what_it_has_yet_to_take_in(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_DRIFT_AFTER", timedelta(0))
    monkeypatch.setattr(inbox, "TAKEN_MAX", 2)
    first, second = await market.assets(2)
    async with running_worker(market.url):
        await market.trade(first, second)
        for asset_id in (first, second):
            await record(market.database, asset_id, 9 * 10**12)
        await market.caught_up()
    await market.trade(first, second, first, second)
    worker = PriceWorker(market.database, None, Bus(None), label="a test's")
    async with market.database.acquire() as connection:
        await worker.register(connection)
        await worker.look(connection)
        # The first turn has room for one asset's trades alone.
        for _ in range(2):
            await worker.turn(connection)
        late = await connection.fetchval(
            "SELECT count(*) FROM ticks k JOIN trades t ON t.asset_id = k.asset_id AND t.seq = k.trade_seq"
            " WHERE k.cause = 'TRADE' AND k.at <> t.at"
        )
    assert late == 0
    assert [cause for _, cause, _, _ in await market.ticks(second)] == ["OPEN", "TRADE", "ORACLE", "TRADE", "TRADE"]


async def test_parameters_that_an_admin_changes_are_taken_up(market: Market) -> None:
    (asset_id,) = await market.assets(1)
    async with running_worker(market.url, redis_url=market.redis_url) as worker:
        await market.caught_up()
        await update_asset(market.database, asset_id, AssetChanges(fundamental_weight="1"))
        await until(lambda: worker._assets[asset_id].parameters.fundamental_weight == 10**9)
        await record(market.database, asset_id, 7 * 10**12, bus=market.bus)
        await market.caught_up()
    async with market.database.acquire() as connection:
        assert await connection.fetchval("SELECT fundamental FROM price_states") == 7 * 10**12


async def test_a_new_asset_is_noticed_when_it_is_told_of(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.pricing.worker.LOOK_SECONDS", 3_600)
    async with running_worker(market.url, redis_url=market.redis_url) as worker:
        await until(lambda: worker.reads_streams and not worker._look.is_set())
        (asset_id,) = await market.assets(1)

        async def claimed() -> bool:
            # What is told before the worker waits for it wakes nobody; the second that follows would.
            await market.redis.xadd(CHANGES_STREAM, {"changes": encode_changes(assets=[asset_id])})
            return asset_id in worker.asset_ids

        await until(claimed)
        assert await market.whole() == (1, 0, 0)


async def test_entries_that_are_none_are_passed_over(market: Market) -> None:
    (asset_id,) = await market.assets(1)
    async with running_worker(market.url, redis_url=market.redis_url) as worker:
        await until(lambda: worker.reads_streams and len(worker.asset_ids) == 1)
        for stream, field in ((TRADES_STREAM, "trades"), (ORACLE_STREAM, "events"), (CHANGES_STREAM, "changes")):
            await market.redis.xadd(stream, {field: b"[1"})
            await market.redis.xadd(stream, {"other": b"[]"})
        await market.trade(asset_id)
        assert await market.whole() == (2, 1, 0)
        assert worker.reads_streams is True


async def test_trades_of_a_stream_that_began_anew_are_read(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.pricing.worker.LOOK_SECONDS", 3_600)
    (asset_id,) = await market.assets(1)
    await market.redis.xadd(TRADES_STREAM, {"trades": b"[]"}, id="99999999999999-0")
    async with running_worker(market.url, redis_url=market.redis_url) as worker:
        await until(lambda: worker.reads_streams and len(worker.asset_ids) == 1)
        await market.redis.delete(TRADES_STREAM)
        await market.trade(asset_id)
        assert await market.whole() == (2, 1, 0)


# ------------------------------------------------------------------------------------------------ sharing


async def test_two_workers_share_the_assets_and_the_second_takes_over_at_an_orderly_stop(market: Market) -> None:
    assets = await market.assets(4)
    async with running_worker(market.url, redis_url=market.redis_url) as first:
        await until(lambda: len(first.asset_ids) == 4)
        async with running_worker(market.url, redis_url=market.redis_url) as second:
            await until(lambda: (len(first.asset_ids), len(second.asset_ids)) == (2, 2))
            assert first.asset_ids | second.asset_ids == set(assets)
            await market.trade(*assets, *assets)
            assert await market.whole() == (12, 8, 0)
        assert set((await market.owners()).values()) <= {None, first.worker_id}
        await until(lambda: len(first.asset_ids) == 4)
        await market.trade(*assets)
        assert await market.whole() == (16, 12, 0)
    assert await market.owners() == dict.fromkeys(assets)
    async with market.database.acquire() as connection:
        assert await connection.fetchval("SELECT count(*) FROM price_workers") == 0


async def test_assets_of_a_worker_that_gives_no_sign_of_life_go_to_another(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "LEASE_SECONDS", 0.5)
    monkeypatch.setattr(claims, "RENEW_SECONDS", 0.1)
    assets = await market.assets(2)
    async with market.database.acquire() as connection:
        dead = await claims.register(connection=connection, label="dead")
        await claims.admit_new_assets(connection=connection)
        async with connection.transaction():
            assert (await claims.claim(connection=connection, worker_id=dead)).asset_ids == tuple(assets)
    await market.trade(*assets)
    async with running_worker(market.url) as worker:
        assert await market.whole() == (4, 2, 0)
        assert await market.owners() == dict.fromkeys(assets, worker.worker_id)


async def test_a_worker_whose_row_is_gone_comes_back_under_a_new_number(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "RENEW_SECONDS", 0.05)
    (asset_id,) = await market.assets(1)
    async with running_worker(market.url) as worker:
        await market.caught_up()
        before = worker.worker_id
        async with market.database.acquire() as connection:
            await connection.execute("DELETE FROM price_workers")
        await until(lambda: worker.worker_id > before and asset_id in worker.asset_ids)
        await market.trade(asset_id)
        assert await market.whole() == (2, 1, 0)
        assert await market.owners() == {asset_id: worker.worker_id}


# ------------------------------------------------------------------------------------------------ the fence


async def test_an_owner_that_was_written_behind_its_back_makes_no_tick(market: Market) -> None:
    first, second = await market.assets(2)
    async with running_worker(market.url, redis_url=market.redis_url) as worker:
        await market.caught_up()
        async with market.database.acquire() as connection:
            other = await claims.register(connection=connection, label="other")
            await connection.execute("UPDATE price_states SET owner_id = $1 WHERE asset_id = $2", other, first)
        await market.trade(first, second)

        async def second_ticked() -> bool:
            return len(await market.ticks(second)) == 2

        await until(second_ticked)
        await until(lambda: worker.asset_ids == {second})
        assert await market.ticks(first) == [(1, "OPEN", 0, 0)]
        async with market.database.acquire() as connection:
            await claims.retire(connection=connection, worker_id=other)
        assert await market.whole() == (4, 2, 0)


async def test_two_that_believe_they_are_the_same_worker_never_tick_twice(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "RENEW_SECONDS", 3_600)
    assets = await market.assets(3)
    async with (
        running_worker(market.url, redis_url=market.redis_url) as first,
        running_worker(market.url, redis_url=market.redis_url) as second,
    ):
        await until(lambda: first.worker_id > 0 and second.worker_id > 0)
        second.worker_id = first.worker_id
        async with market.database.acquire() as connection:
            await connection.execute("DELETE FROM price_workers WHERE id <> $1", first.worker_id)
        await until(lambda: first.asset_ids == second.asset_ids == set(assets))
        trader = await new_account(market.database, usdc="100000")
        for _ in range(10):
            await asyncio.gather(
                *(place_order(market.settlement, trader, asset_id, amount="10") for asset_id in assets)
            )
        assert await market.whole() == (33, 30, 0)
        assert first.figures.ticks + second.figures.ticks == 33
        assert first.figures.fenced + second.figures.fenced > 0


async def test_writers_that_commit_out_of_order_get_their_positions_in_the_order_of_their_commits(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await market.assets(2)
    async with (
        running_worker(market.url, redis_url=market.redis_url) as one,
        running_worker(market.url, redis_url=market.redis_url) as other,
    ):
        await until(lambda: len(one.asset_ids) == len(other.asset_ids) == 1)
        await market.caught_up()
        slow, quick = (first, second) if first in one.asset_ids else (second, first)
        async with market.database.transaction() as unit:
            # Whoever writes `slow` has read what to write, and waits for its state's row.
            await unit.connection.execute("SELECT FROM price_states WHERE asset_id = $1 FOR UPDATE", slow)
            await market.trade(slow)
            await market.trade(quick)

            async def quick_ticked() -> bool:
                return len(await market.ticks(quick)) == 2

            await until(quick_ticked)
            assert len(await market.ticks(slow)) == 1
        assert await market.whole() == (4, 2, 0)
        told = await market.until_told(4)
    assert [(tick.position, tick.asset_id) for tick in told[2:]] == [(3, quick), (4, slow)]


# ------------------------------------------------------------------------------------------------ trouble


async def test_an_asset_that_cannot_be_stepped_does_not_hold_up_the_others(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, sound = await market.assets(2)
    right = engine.advance

    def advance(**arguments: object) -> engine.Step:
        if arguments["state"].asset_id == broken:  # type: ignore[attr-defined]
            raise ZeroDivisionError("broken")
        return right(**arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("app.pricing.worker.advance", advance)
    async with running_worker(market.url, redis_url=market.redis_url):
        await market.trade(broken, sound)

        async def sound_ticked() -> bool:
            return len(await market.ticks(sound)) == 2

        await until(sound_ticked)
        assert await market.ticks(broken) == []
        monkeypatch.setattr("app.pricing.worker.advance", right)
        assert await market.whole() == (4, 2, 0)


async def test_an_asset_that_the_database_refuses_does_not_hold_up_the_others(market: Market) -> None:
    refused, sound = await market.assets(2)
    async with market.database.acquire() as connection:
        await connection.execute(f"ALTER TABLE price_states ADD CONSTRAINT no CHECK (asset_id <> {refused} OR seq < 1)")
    async with running_worker(market.url, redis_url=market.redis_url):
        await market.trade(sound, refused)

        async def sound_ticked() -> bool:
            return len(await market.ticks(sound)) == 2

        await until(sound_ticked)
        assert await market.ticks(refused) == []
        async with market.database.acquire() as connection:
            await connection.execute("ALTER TABLE price_states DROP CONSTRAINT no")
        assert await market.whole() == (4, 2, 0)


async def test_connections_that_are_cut_are_replaced(market: Market) -> None:
    (asset_id,) = await market.assets(1)
    async with running_worker(market.url, redis_url=market.redis_url) as worker:
        for number in range(1, 4):
            await market.trade(asset_id)
            assert await market.whole() == (1 + number, number, 0)
            async with market.database.acquire() as connection:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND pid <> pg_backend_pid() AND query LIKE '%price_%'"
                )
        await market.trade(asset_id)
        assert await market.whole() == (5, 4, 0)
        assert worker.asset_ids == {asset_id}


async def test_a_write_that_was_fenced_leaves_the_others_to_be_written(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    assets = await market.assets(3)
    right = Store.write
    refusals = [frozenset({assets[1]})]

    async def write(self: Store, **arguments: object) -> list[Tick]:
        if refusals and len(arguments["steps"]) == 3:  # type: ignore[arg-type]
            raise Fenced(refusals.pop())
        return await right(self, **arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "write", write)
    async with running_worker(market.url) as worker:
        assert await market.whole() == (3, 0, 0)
        assert (refusals, worker.figures.fenced) == ([], 1)


async def test_it_stops_at_once_while_the_database_is_away(fresh_database_url: str) -> None:
    async with open_database(fresh_database_url) as database:
        worker = PriceWorker(database, None, Bus(None), label="away")
        run = asyncio.create_task(worker.run())
        await until(lambda: worker.worker_id > 0)
        database.pool.terminate()
        await until(lambda: worker.figures.stumbled >= 3)
        worker.stop()
        async with asyncio.timeout(2):
            await run
        assert run.done()
        assert worker.figures.ticks == 0
