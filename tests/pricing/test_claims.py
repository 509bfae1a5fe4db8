"""Leases and claims: fair shares, dead workers, and races between the living."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.db import Database
from app.exchange.assets import AssetStatus
from app.exchange.settlement import Settlement
from app.pricing import claims
from app.pricing.claims import Share, Worker
from tests.factories.market import new_account, new_admin, new_asset, place_order
from tests.pricing.running import open_database, owners, record


@pytest.fixture
async def own(fresh_database_url: str) -> AsyncIterator[Database]:
    async with open_database(fresh_database_url) as database:
        yield database


async def register(database: Database, label: str = "w") -> int:
    async with database.acquire() as connection:
        return await claims.register(connection=connection, label=label)


async def claim(database: Database, worker_id: int) -> Share:
    async with database.transaction() as unit:
        return await claims.claim(connection=unit.connection, worker_id=worker_id)


async def renew(database: Database, worker_id: int) -> bool:
    async with database.acquire() as connection:
        return await claims.renew(connection=connection, worker_id=worker_id)


async def age(database: Database, worker_id: int, seconds: float) -> None:
    """Let so much time pass for a worker's lease."""
    async with database.acquire() as connection:
        await connection.execute(
            "UPDATE price_workers SET lease_until = lease_until - make_interval(secs => $2) WHERE id = $1",
            worker_id,
            seconds,
        )


async def make_assets(database: Database, count: int) -> list[int]:
    """New assets, with states."""
    admin = await new_admin(database)
    made = [await new_asset(database, admin=admin) for _ in range(count)]
    async with database.acquire() as connection:
        await claims.admit_new_assets(connection=connection)
    return made


async def test_a_new_asset_gets_a_state_from_before_its_first_tick(own: Database) -> None:
    admin = await new_admin(own)
    asset_id = await new_asset(own, admin=admin, base_price="2.5", status=AssetStatus.DRAFT)
    async with own.acquire() as connection:
        assert await claims.admit_new_assets(connection=connection) == 1
        assert await claims.admit_new_assets(connection=connection) == 0
        state = await connection.fetchrow(
            "SELECT s.*, s.at = a.created_at AND s.recent_volume_at = a.created_at AS as_made"
            " FROM price_states s JOIN assets a ON a.id = s.asset_id"
        )
    assert state is not None
    assert (state["asset_id"], state["owner_id"], state["seq"], state["position"]) == (asset_id, None, 0, 0)
    assert (state["display"], state["market"], state["fundamental"]) == (2_500_000_000_000,) * 3
    assert (state["market_weight"], state["recent_volume"], state["as_made"]) == (10**9, 0, True)


async def test_one_worker_has_everything_and_two_have_half_each(own: Database) -> None:
    assets = await make_assets(own, 5)
    first = await register(own)
    assert await claim(own, first) == Share(tuple(assets), 0)

    second = await register(own)
    assert await claim(own, second) == Share((), 0)
    # ceil(5 / 2) are the first one's: two are too many.
    assert await claim(own, first) == Share(tuple(assets), 2)
    async with own.acquire() as connection:
        await claims.release(connection=connection, worker_id=second, asset_ids=assets)
        await claims.release(connection=connection, worker_id=first, asset_ids=assets[3:])
    assert await claim(own, first) == Share(tuple(assets[:3]), 0)
    assert await claim(own, second) == Share(tuple(assets[3:]), 0)


async def test_the_assets_of_the_dead_are_claimed_and_those_of_the_living_are_not(own: Database) -> None:
    assets = await make_assets(own, 3)
    first, second = await register(own), await register(own)
    assert await claim(own, first) == Share(tuple(assets[:2]), 0)
    await age(own, first, claims.LEASE_SECONDS - 0.5)
    assert await claim(own, second) == Share((assets[2],), 0)
    await age(own, first, 0.5)
    assert await claim(own, second) == Share(tuple(assets), 0)
    # Back from the dead: the other's are not taken, and it says what is too much.
    assert await renew(own, first) is True
    assert await claim(own, first) == Share((), 0)
    assert await claim(own, second) == Share(tuple(assets), 1)


async def test_a_clock_that_was_set_back_does_not_keep_the_dead_alive(own: Database) -> None:
    (asset_id,) = await make_assets(own, 1)
    first, second = await register(own, "first"), await register(own, "second")
    await claim(own, first)
    await age(own, first, -claims.LEASE_SECONDS + 0.5)
    assert await claim(own, second) == Share((), 0)
    await age(own, first, -3_600)
    async with own.acquire() as connection:
        assert (await claims.prices_standing(connection=connection)).workers == [Worker("second", 0)]
    assert await claim(own, second) == Share((asset_id,), 0)
    # Who lives says so again, by the clock as it is now.
    assert await renew(own, first) is True
    async with own.acquire() as connection:
        alive = (await claims.prices_standing(connection=connection)).workers
    assert alive == [Worker("first", 0), Worker("second", 1)]


async def test_rows_of_the_long_dead_go_and_their_owners_register_anew(own: Database) -> None:
    (asset_id,) = await make_assets(own, 1)
    first = await register(own)
    await claim(own, first)
    await age(own, first, claims.DEAD_KEPT_SECONDS)
    second = await register(own)
    async with own.acquire() as connection:
        assert await connection.fetchval("SELECT count(*) FROM price_workers") == 2
    await age(own, first, claims.LEASE_SECONDS)
    third = await register(own)
    async with own.acquire() as connection:
        rows = await connection.fetch("SELECT id FROM price_workers ORDER BY id")
    assert [row["id"] for row in rows] == [second, third]
    assert await renew(own, first) is False
    # What a vanished worker owned is nobody's.
    assert await claim(own, third) == Share((asset_id,), 0)


async def test_many_who_claim_at_once_share_without_a_remainder(own: Database) -> None:
    assets = await make_assets(own, 8)
    workers = [await register(own) for _ in range(4)]
    shares = await asyncio.gather(*(claim(own, worker_id) for worker_id in workers))
    assert sorted(len(share.asset_ids) for share in shares) == [2, 2, 2, 2]
    assert sorted(asset_id for share in shares for asset_id in share.asset_ids) == assets


async def test_an_asset_whose_row_is_locked_is_left_for_the_next_time(own: Database) -> None:
    assets = await make_assets(own, 2)
    worker_id = await register(own)
    async with own.transaction() as unit:
        await unit.connection.execute("SELECT FROM price_states WHERE asset_id = $1 FOR UPDATE", assets[0])
        assert await claim(own, worker_id) == Share((assets[1],), 0)
    assert await claim(own, worker_id) == Share(tuple(assets), 0)


async def test_who_stops_in_order_leaves_everything_to_the_others_at_once(own: Database) -> None:
    assets = await make_assets(own, 2)
    first, second = await register(own), await register(own)
    await claim(own, first)
    await claim(own, second)
    async with own.acquire() as connection:
        await claims.retire(connection=connection, worker_id=first)
        assert await owners(connection) == {assets[0]: None, assets[1]: second}
    assert await claim(own, second) == Share(tuple(assets), 0)


async def test_how_the_engine_stands(own: Database) -> None:
    assets = await make_assets(own, 3)
    async with own.acquire() as connection:
        nobody = await claims.prices_standing(connection=connection)
    assert (nobody.workers, nobody.assets, nobody.unowned, nobody.lag_seconds) == ([], 3, 3, 0.0)
    first = await register(own, "here:1")
    await claim(own, first)
    second = await register(own, "there:2")
    late = await new_asset(own)
    event = await record(own, assets[1], 10**12)
    async with own.acquire() as connection:
        standing = await claims.prices_standing(connection=connection)
        waited = (await connection.fetchval("SELECT clock_timestamp()") - event.at).total_seconds()
    assert late not in assets
    assert (standing.workers, standing.assets, standing.unowned) == ([Worker("here:1", 3), Worker("there:2", 0)], 4, 1)
    assert 0 < standing.lag_seconds <= waited
    assert second > first


async def test_the_lag_is_the_oldest_trades_that_has_no_tick(own: Database) -> None:
    trader = await new_account(own, usdc="100")
    (asset_id,) = await make_assets(own, 1)
    settlement = Settlement(own, publish=lambda _: None)
    settlement.start()
    first = await place_order(settlement, trader, asset_id, amount="5")
    await place_order(settlement, trader, asset_id, amount="5")
    await settlement.stop()
    async with own.acquire() as connection:
        at_first = await claims.prices_standing(connection=connection)
        waited = (await connection.fetchval("SELECT clock_timestamp()") - first.trades[0].at).total_seconds()
        await connection.execute("UPDATE price_states SET trade_seq = 2")
        caught_up = await claims.prices_standing(connection=connection)
    assert 0 < at_first.lag_seconds <= waited
    assert caught_up.lag_seconds == 0.0
