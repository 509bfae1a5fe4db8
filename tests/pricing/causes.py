"""What makes ticks, made up for tests: trades and oracle events of one asset, at moments counted from `T0`."""

from datetime import UTC, datetime, timedelta
from typing import Final

from app.exchange.orders import Side, Trade
from app.pricing.engine import AssetState
from app.pricing.model import Parameters, opening
from app.pricing.oracle_events import OracleEvent, OracleEventKind
from app.pricing.ticks import microseconds

ASSET: Final = 7
T0: Final = datetime(2026, 11, 20, 12, tzinfo=UTC)
ONE: Final = 10**12
"""A price of 1."""
PARAMETERS: Final = Parameters(
    base_price=ONE, fundamental_weight=200_000_000, volume_scale=1_000_000_000, half_life_seconds=900
)


def moment(seconds: float) -> datetime:
    """So long after `T0`; exact for whole microseconds."""
    return T0 + timedelta(microseconds=round(seconds * 10**6))


def new_state(parameters: Parameters = PARAMETERS, *, asset_id: int = ASSET) -> AssetState:
    """An asset made at `T0` that has not ticked yet."""
    return AssetState(asset_id, T0, None, 0, opening(parameters, at=microseconds(T0)), ())


def trade(
    seq: int,
    seconds: float,
    *,
    market: int = 2 * ONE,
    gross: int = 1_000_000_000,
    supply: int = 10**12,
    asset_id: int = ASSET,
) -> Trade:
    """A trade of `gross` (10^-6; 1,000 unless said) that leaves M at `market` and `supply` shares outstanding."""
    return Trade(
        id=seq,
        asset_id=asset_id,
        seq=seq,
        account_id=1,
        order_id=seq,
        client_order_id=f"order-{seq}",
        side=Side.BUY,
        shares=10**9,
        gross=gross,
        fee=0,
        supply_after=supply,
        market_after=market,
        transfer_id=seq,
        at=moment(seconds),
    )


def event(
    seq: int,
    seconds: float,
    *,
    value: int | None,
    kind: OracleEventKind | None = None,
    cadence: int = 300,
    fresh: int = 600,
    asset_id: int = ASSET,
) -> OracleEvent:
    """A READING, or a REFRESH where `value` is None, unless `kind` says otherwise."""
    usual = OracleEventKind.REFRESH if value is None else OracleEventKind.READING
    return OracleEvent(asset_id, seq, moment(seconds), kind or usual, value, cadence, fresh)
