"""The price of an asset that no engine has ticked."""

from datetime import UTC, datetime

from app.db import Database
from app.exchange.settlement import Settlement
from app.money import PRICE_UNIT, RATE_UNIT
from app.pricing.idle import idle_tick
from app.pricing.ticks import Tick, TickCause
from tests.factories import load_asset, new_account, new_asset, place_order

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


async def test_before_the_first_tick_the_displayed_price_is_m(database: Database, settlement: Settlement) -> None:
    asset_id = await new_asset(database)
    await place_order(settlement, await new_account(database, usdc="1000"), asset_id, shares="100")

    assert idle_tick(await load_asset(database, asset_id), NOW) == Tick(
        asset_id=asset_id,
        seq=0,
        position=0,
        cause=TickCause.OPEN,
        trade_seq=1,
        at=NOW,
        display=15 * PRICE_UNIT // 10,
        market=15 * PRICE_UNIT // 10,
        fundamental=PRICE_UNIT,
        market_weight=RATE_UNIT,
        volume=0,
        stale=False,
    )
