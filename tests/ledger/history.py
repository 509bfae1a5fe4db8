"""A market's past with something of everything, made by the real use cases: the audit must find nothing wrong in it."""

from dataclasses import dataclass
from datetime import timedelta

from app.accounts.api_keys import create_api_key, revoke_api_key
from app.accounts.asset_requests import submit_asset_request
from app.accounts.dev_fund import dev_fund
from app.accounts.principals import AccountPrincipal, AdminPrincipal, Scope
from app.accounts.sessions import log_out
from app.admin.accounts import freeze_account
from app.admin.asset_input import AssetChanges, NewAsset
from app.admin.assets import create_asset
from app.admin.pause import pause_trading
from app.admin.requests import review_asset_request
from app.db import Connection, Database
from app.errors import ErrorCode
from app.exchange.assets import AssetStatus
from app.exchange.orders import Side
from app.exchange.settlement import Settlement
from app.ledger.currencies import Currency
from app.pricing.claims import admit_new_assets, claim, register
from app.pricing.engine import advance
from app.pricing.feed import trades_after
from app.pricing.oracle_events import OracleEventKind, Reading, events_after, record_readings
from app.pricing.store import Store, load_states
from tests.factories import (
    fund,
    new_account,
    new_admin,
    new_asset,
    order_request,
    place_order,
    set_status,
    sign_up_account,
    update_asset,
)

DAY = timedelta(days=1)


@dataclass(frozen=True)
class History:
    """Ids of what was made."""

    alice: int
    bob: int
    carol: int
    stock: int
    """Traded yesterday and today, its fee changed in between, in USDC."""
    index: int
    """Wholly sold once, then given another curve and traded again, in USDT."""
    wished: int
    """Made for an asset request."""


async def make_history(database: Database, settlement: Settlement) -> History:
    """Let it all happen; takes about a second."""
    admin = await new_admin(database)
    alice = await new_account(database, usdc="25000", usdt="9000")
    bob = await new_account(database, usdc="1000.000001", usdt="250.5")
    carol = await new_account(database, usdc="3")
    stock = await new_asset(database, admin=admin, base_price="0.25", slope="0.00037", max_shares_per_account="9000")
    index = await new_asset(database, admin=admin, quote_currency=Currency.USDT, slope="0.01", fee_rate="0.001")
    await new_asset(database, admin=admin, status=AssetStatus.DRAFT)
    await _trade_stock(database, settlement, stock, (alice, bob, carol))
    await _trade_index(database, settlement, index, (alice, bob))
    await _refusals(database, settlement, stock, (alice, bob, carol))
    wished = await _requests(database, admin, alice)
    await _credentials(database, bob)
    await _freezing_and_pausing(database, settlement, admin, stock, carol)
    await _prices(database)
    return History(alice.account_id, bob.account_id, carol.account_id, stock, index, wished)


async def _trade_stock(
    database: Database, settlement: Settlement, asset: int, people: tuple[AccountPrincipal, ...]
) -> None:
    alice, bob, carol = people
    await place_order(settlement, alice, asset, shares="120.5")
    await place_order(settlement, bob, asset, amount="33.333333")
    await place_order(settlement, alice, asset, Side.SELL, shares="20.25")
    await place_order(settlement, carol, asset, amount="0.02")
    await place_order(settlement, bob, asset, Side.SELL, shares="0.5")
    async with database.transaction() as unit:
        await _move_to_yesterday(unit.connection)
    await place_order(settlement, bob, asset, Side.SELL, shares="1.000000001")
    await place_order(settlement, alice, asset, amount="1999.99")
    await update_asset(
        database, asset, AssetChanges(fee_rate="0.02", description="Another fee.", max_redemption_per_day="500")
    )
    await place_order(settlement, alice, asset, shares="0.1")
    await place_order(settlement, alice, asset, Side.SELL, shares="77.7")
    await update_asset(database, asset, AssetChanges(fee_rate="0", max_shares_per_account=None))
    await place_order(settlement, bob, asset, amount="5")
    await set_status(database, asset, AssetStatus.REDUCE_ONLY)
    await place_order(settlement, bob, asset, Side.SELL, shares="0.02")
    await set_status(database, asset, AssetStatus.OPEN)


async def _move_to_yesterday(connection: Connection) -> None:
    """Time cannot be waited for: what has been traded so far was traded a day earlier."""
    facts = ("trades", "transfers", "account_events")
    for table in facts:
        await connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    await connection.execute("UPDATE trades SET at = at - $1::interval", DAY)
    await connection.execute("UPDATE transfers SET at = at - $1::interval", DAY)
    await connection.execute("UPDATE account_events SET at = at - $1::interval", DAY)
    await connection.execute(
        "UPDATE orders SET created_at = created_at - $1::interval, updated_at = updated_at - $1::interval", DAY
    )
    await connection.execute("UPDATE assets SET last_trade_at = last_trade_at - $1::interval", DAY)
    await connection.execute("UPDATE positions SET redeemed_on = redeemed_on - 1")
    for table in facts:
        await connection.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")


async def _trade_index(
    database: Database, settlement: Settlement, asset: int, people: tuple[AccountPrincipal, ...]
) -> None:
    alice, bob = people
    await place_order(settlement, alice, asset, shares="10")
    await place_order(settlement, bob, asset, amount="100")
    await place_order(settlement, alice, asset, Side.SELL, shares="10")
    everything = await _held(database, bob, asset)
    await place_order(settlement, bob, asset, Side.SELL, shares=everything)
    await update_asset(database, asset, AssetChanges(base_price="2.5", slope="0.5"))
    await place_order(settlement, alice, asset, amount="77.77")
    await place_order(settlement, alice, asset, Side.SELL, shares="3.3")


async def _held(database: Database, principal: AccountPrincipal, asset: int) -> str:
    async with database.acquire() as connection:
        shares: str = await connection.fetchval(
            "SELECT (shares / 1000000000.0)::numeric(38, 9)::text FROM positions"
            " WHERE account_id = $1 AND asset_id = $2",
            principal.account_id,
            asset,
        )
    return shares


async def _refusals(
    database: Database, settlement: Settlement, asset: int, people: tuple[AccountPrincipal, ...]
) -> None:
    alice, bob, carol = people
    refused = [
        (ErrorCode.INSUFFICIENT_FUNDS, order_request(bob, asset, shares="100000")),
        (ErrorCode.INSUFFICIENT_SHARES, order_request(carol, asset, Side.SELL, shares="100")),
        (ErrorCode.BELOW_MINIMUM, order_request(alice, asset, amount="0.000001")),
        (ErrorCode.SLIPPAGE_EXCEEDED, order_request(alice, asset, shares="10", max_total="0.01")),
        (ErrorCode.REDEMPTION_LIMIT, order_request(alice, asset, Side.SELL, shares="1500")),
    ]
    for code, request in refused:
        outcome = await settlement.place(request)
        assert outcome.refusal is not None
        assert outcome.refusal.code is code


async def _requests(database: Database, admin: AdminPrincipal, alice: AccountPrincipal) -> int:
    """One request approved and made, one rejected, one waiting; answers the made asset."""
    ids = []
    for number in range(3):
        async with database.transaction() as unit:
            outcome = await submit_asset_request(
                unit=unit, principal=alice, name=f"Wish {number}", description="Rain in Lisbon", source_hint=None,
                idempotency_key=f"wish-{number}",
            )  # fmt: skip
        assert outcome.id is not None
        ids.append(outcome.id)
    for request_id, approve in zip(ids, (True, False), strict=False):
        async with database.transaction() as unit:
            await review_asset_request(
                unit=unit, principal=admin, request_id=request_id, approve=approve, notes="Considered."
            )
    new = NewAsset(symbol="RAIN", name="Rain", description="Rain in Lisbon, in mm.", category="WEATHER")
    async with database.transaction() as unit:
        made = await create_asset(unit=unit, principal=admin, new=new, request_id=ids[0], idempotency_key="rain")
    assert made.id is not None
    return made.id


async def _credentials(database: Database, bob: AccountPrincipal) -> None:
    async with database.transaction() as unit:
        await create_api_key(unit=unit, principal=bob, name="bot", scopes=[Scope.READ, Scope.TRADE])
    async with database.transaction() as unit:
        old = await create_api_key(unit=unit, principal=bob, name="old bot", scopes=[Scope.READ])
    async with database.transaction() as unit:
        await revoke_api_key(unit=unit, principal=bob, api_key_id=old.api_key.id)
    visitor = await sign_up_account(database)
    async with database.transaction() as unit:
        await log_out(unit=unit, principal=visitor)


async def _freezing_and_pausing(
    database: Database, settlement: Settlement, admin: AdminPrincipal, asset: int, carol: AccountPrincipal
) -> None:
    async with database.transaction() as unit:
        await freeze_account(unit=unit, principal=admin, account_id=carol.account_id, frozen=True, reason="A check.")
    assert (await settlement.place(order_request(carol, asset, shares="1"))).refusal is not None
    async with database.transaction() as unit:
        refused = await dev_fund(
            unit=unit, principal=carol, currency=Currency.USDC, amount="1", idempotency_key="frozen", development=True
        )
    assert refused.refusal is not None
    for paused, reason in ((True, "An exercise."), (False, "It is over.")):
        async with database.transaction() as unit:
            await pause_trading(unit=unit, principal=admin, paused=paused, reason=reason)
    late = await new_account(database)
    for amount in ("12.345678", "1"):
        await fund(database, late, amount, Currency.USDT)


async def _prices(database: Database) -> None:
    """Readings for every asset, and the price engine's ticks of them and of all that has traded."""
    async with database.acquire() as connection:
        assets = await connection.fetch("SELECT id FROM assets ORDER BY id")
        ids = [row["id"] for row in assets]
    kinds = ((OracleEventKind.READING, 10**12), (OracleEventKind.REFRESH, None), (OracleEventKind.READING, 2 * 10**12))
    for kind, value in kinds:
        async with database.transaction() as unit:
            await record_readings(unit=unit, readings=[Reading(asset_id, kind, value, 60, 60) for asset_id in ids])
    async with database.acquire() as connection:
        worker = await register(connection=connection, label="a test")
        await admit_new_assets(connection=connection)
        async with connection.transaction():
            await claim(connection=connection, worker_id=worker)
        start = dict.fromkeys(ids, 0)
        trades = await trades_after(connection=connection, after=start, limit=1_000)
        events = await events_after(connection=connection, after=start, limit=1_000)
        store = Store(database)
        steps = [
            advance(
                state=loaded.state,
                parameters=loaded.parameters,
                trades=trades.get(loaded.state.asset_id, []),
                events=events.get(loaded.state.asset_id, []),
            )
            for loaded in await load_states(connection=connection, owner_id=worker)
        ]
        await store.write(connection=connection, owner_id=worker, steps=steps)
        later = await connection.fetchval("SELECT clock_timestamp() + interval '70 s'")
        steps = [
            advance(state=loaded.state, parameters=loaded.parameters, now=later)
            for loaded in await load_states(connection=connection, owner_id=worker)
        ]
        await store.write(connection=connection, owner_id=worker, steps=steps)
