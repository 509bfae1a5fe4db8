"""What an asset's price is while no engine has ticked it. Pure: no I/O, no clock."""

from datetime import datetime

from app.exchange.assets import Asset
from app.money import RATE_UNIT
from app.pricing.ticks import Tick, TickCause


def idle_tick(asset: Asset, at: datetime) -> Tick:
    """The tick of seq 0, which stands nowhere: before the first reading F = P0 and w = 1, so D is M."""
    return Tick(
        asset_id=asset.id,
        seq=0,
        position=0,
        cause=TickCause.OPEN,
        trade_seq=asset.trade_seq,
        at=at,
        display=asset.market_price,
        market=asset.market_price,
        fundamental=asset.base_price,
        market_weight=RATE_UNIT,
        volume=0,
        stale=False,
    )
