"""Making the demo market: its assets, and the replay that each follows. Nothing happens where all of it is there."""

import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Final

from app import clock
from app.admin.asset_input import NewAsset, parsed_asset, shown
from app.admin.assets import insert_asset
from app.admin.audit_log import append
from app.db import Connection, Database, DatabaseMisconfigured, Unit
from app.demo.catalogue import CATALOGUE, FEE_RATE, DemoAsset
from app.idempotency import admin_owner, lock_admin_keys
from app.ledger.currencies import Currency
from app.settings import Settings

ACTOR: Final = "demo"
"""Who made the assets, in the audit log."""


def say(line: str) -> None:
    """A line of progress on standard output."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def require_development(settings: Settings) -> None:
    """Raises `DatabaseMisconfigured` elsewhere: test funds, which the demo lives on, exist in development only."""
    if not settings.development:
        raise DatabaseMisconfigured(
            "the demo market runs in development only: set MEGATRON_ENV=development and use a database of its own"
        )


async def seed(settings: Settings, *, tell: Callable[[str], None] = say) -> None:
    """Make what is missing of the demo market, telling of each asset. Safe to run again, and several times at once.

    Raises `DatabaseMisconfigured` outside of development.
    """
    require_development(settings)
    database = await Database.open(settings.model_copy(update={"database_pool_max": 2}))
    try:
        async with database.acquire() as connection:
            missing = await _missing(connection)
        for number, asset in enumerate(missing, start=1):
            async with database.transaction() as unit:
                made = await _make(unit, asset)
            if made:
                tell(f"demo market: {asset.symbol}, {asset.name} ({number} of {len(missing)})")
        tell(f"demo market: {len(CATALOGUE)} assets are there")
    finally:
        await database.close()


async def _missing(connection: Connection) -> list[DemoAsset]:
    """What the catalogue has and the database has not. An asset that an admin made under such a symbol is theirs."""
    rows = await connection.fetch(
        "SELECT symbol FROM assets WHERE symbol = ANY($1::text[])", [asset.symbol for asset in CATALOGUE]
    )
    present = {row["symbol"] for row in rows}
    return [asset for asset in CATALOGUE if asset.symbol not in present]


async def _make(unit: Unit, asset: DemoAsset) -> bool:
    """Make the asset and its replay, which begins now; false when somebody else just did."""
    await lock_admin_keys(unit.connection, owner=admin_owner(ACTOR))
    if asset not in await _missing(unit.connection):
        return False
    # Every price between two points lies between theirs: none of the replay's can be out of range.
    asset.mapping.prices(asset.load())
    values = parsed_asset(
        NewAsset(
            symbol=asset.symbol,
            name=asset.name,
            description=asset.description,
            category=asset.category,
            quote_currency=Currency(asset.quote_currency),
            base_price=asset.base_price,
            slope=asset.slope,
            fee_rate=FEE_RATE,
        )
    )
    asset_id = await insert_asset(unit.connection, values=values)
    followed = {name: asdict(asset)[name] for name in ("series", "column", "scale", "offset", "speed")}
    await unit.connection.execute(
        'INSERT INTO series_replays (asset_id, series, "column", scale, "offset", speed, position_ms, advanced_at)'
        " VALUES ($1, $2, $3, $4, $5, $6, 0, $7)",
        asset_id, *followed.values(), clock.now(),
    )  # fmt: skip
    await append(
        unit=unit, actor=ACTOR, action="assetCreate", target=f"Asset:{asset_id}", reason="the demo market",
        before=None, after=shown(values) | {"replay": followed},
    )  # fmt: skip
    return True
