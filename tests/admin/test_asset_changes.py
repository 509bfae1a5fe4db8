"""Which assets have changed, read from the audit log by its gapless ids, and who is told of it after the commit."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from app.accounts.asset_requests import submit_asset_request
from app.admin.asset_input import AssetChanges
from app.admin.assets import create_asset, set_asset_status, update_asset
from app.admin.audit_log import append, audit_log_head, changed_assets
from app.admin.requests import review_asset_request
from app.db import Database, Unit
from app.errors import Refused
from app.exchange.assets import AssetStatus
from tests import factories
from tests.accounts.people import new_admin, unique
from tests.admin.market import an_asset, create, created
from tests.conftest import make_settings
from tests.factories.spy_bus import SpyBus


@pytest.fixture
async def own(fresh_database_url: str) -> AsyncIterator[Database]:
    """A database of the test's own, for what no audit would pass."""
    opened = await Database.open(make_settings(database_url=fresh_database_url))
    yield opened
    await opened.close()


async def head(database: Database) -> int:
    async with database.acquire() as connection:
        return await audit_log_head(connection=connection)


async def changed(database: Database, after: int, limit: int = 1_000) -> tuple[list[int], int]:
    async with database.acquire() as connection:
        return await changed_assets(connection=connection, after_id=after, limit=limit)


async def test_assets_come_in_the_order_of_their_last_change_and_each_once(database: Database) -> None:
    admin, before = await new_admin(database), await head(database)
    first, second, third = [await created(database, admin) for _ in range(3)]
    await factories.set_status(database, first, AssetStatus.HALTED)
    await factories.update_asset(database, second, AssetChanges(fee_rate="0"))
    await factories.set_status(database, first, AssetStatus.OPEN)

    end = await head(database)
    assert end == before + 6
    assert await changed(database, before) == ([third, second, first], end)
    assert await changed(database, before + 3) == ([second, first], end)
    assert await changed(database, end) == ([], end)


async def test_what_is_not_an_assets_is_passed_over_and_still_read_past(own: Database) -> None:
    database = own
    admin, before = await new_admin(database), await head(database)
    account = await factories.sign_up_account(database)
    async with database.transaction() as unit:
        request = await submit_asset_request(
            unit=unit, principal=account, name="Rain", description="Rain", source_hint=None, idempotency_key="rain"
        )
        assert request.id is not None
    async with database.transaction() as unit:
        await review_asset_request(unit=unit, principal=admin, request_id=request.id, approve=True, notes="Yes.")
        await append(
            unit=unit, actor="admin", action="assetGuess", target="Asset:x", reason=None, before=None, after=None
        )
    assert await changed(database, before) == ([], before + 2)


async def test_no_more_entries_are_looked_at_than_asked_and_the_answer_says_where_to_go_on(database: Database) -> None:
    admin, before = await new_admin(database), await head(database)
    ids = [await created(database, admin) for _ in range(5)]
    found, at = [], before
    for _ in range(3):
        some, at = await changed(database, at, limit=2)
        found.append(some)
    assert found == [ids[:2], ids[2:4], ids[4:]]
    assert at == before + 5


async def test_every_change_tells_of_its_asset_after_the_commit(database: Database) -> None:
    admin, bus = await new_admin(database), SpyBus()
    async with database.transaction() as unit:
        outcome = await create_asset(
            unit=unit, principal=admin, new=an_asset(), request_id=None, idempotency_key=unique("key"), bus=bus
        )
        assert outcome.id is not None
        assert bus.told == []
    asset_id = outcome.id
    assert bus.told == [([], [asset_id])]

    async def update(unit: Unit) -> int:
        changes = AssetChanges(name="Snow")
        return await update_asset(
            unit=unit, principal=admin, asset_id=asset_id, changes=changes, reason="because", bus=bus
        )

    async def halt(unit: Unit) -> int:
        return await set_asset_status(
            unit=unit, principal=admin, asset_id=asset_id, status=AssetStatus.HALTED, reason="because", bus=bus
        )

    changes: list[Callable[[Unit], Awaitable[int]]] = [update, halt]
    for number, change in enumerate(changes, start=2):
        async with database.transaction() as unit:
            await change(unit)
            assert len(bus.told) == number - 1
        assert bus.told == [([], [asset_id])] * number


async def test_what_changed_nothing_tells_nobody(database: Database) -> None:
    admin, bus, key = await new_admin(database), SpyBus(), unique("key")
    new = an_asset()
    await create(database, admin, new, key=key)
    async with database.transaction() as unit:
        again = await create_asset(unit=unit, principal=admin, new=new, request_id=None, idempotency_key=key, bus=bus)
    async with database.transaction() as unit:
        taken = await create_asset(
            unit=unit, principal=admin, new=new, request_id=None, idempotency_key=unique("key"), bus=bus
        )
    with pytest.raises(Refused):
        async with database.transaction() as unit:
            await set_asset_status(
                unit=unit, principal=admin, asset_id=987_654_321, status=AssetStatus.OPEN, reason="because", bus=bus
            )
    assert (again.repeated, taken.id) == (True, None)
    assert bus.told == []
