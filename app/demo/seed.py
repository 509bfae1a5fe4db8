"""Making the demo market: its assets, the oracle that each follows, and where its replay begins. Nothing happens where
all of it is there.
"""

import sys
from collections.abc import Callable
from datetime import timedelta
from fractions import Fraction
from typing import Final

import orjson

from app import clock
from app.admin.asset_input import NewAsset, parsed_asset, shown
from app.admin.assets import insert_asset
from app.admin.audit_log import append
from app.db import Connection, Database, DatabaseMisconfigured, Unit
from app.demo.catalogue import CATALOGUE, FEE_RATE, SEARCH_CADENCE_SECONDS, DemoAsset
from app.demo.stand_in.months import known_at
from app.idempotency import admin_owner, lock_admin_keys
from app.ledger.currencies import Currency
from app.money import price_text
from app.oracle.configuration import encode_configuration
from app.oracle.configuring import store_configuration
from app.oracle.overrides import set_override
from app.oracle.replays import start_replay
from app.settings import Settings

ACTOR: Final = "demo"
"""Who made the assets and configured their oracles, in the audit log."""
REASON: Final = "the demo market"
FIRST_FRESH: Final = timedelta(minutes=1)
"""How long F counts as fresh after it was set where a search is to go on from."""


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

    Assets that the demo made before there were oracles get theirs; what an admin configured stays. Raises
    `DatabaseMisconfigured` outside of development.
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
        async with database.transaction() as unit:
            followed = await _follow(unit, settings)
        if followed:
            tell(f"demo market: oracles of {', '.join(followed)}")
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
    """Make the asset; false when somebody else just did."""
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
    await append(
        unit=unit, actor=ACTOR, action="assetCreate", target=f"Asset:{asset_id}", reason=REASON, before=None,
        after=shown(values),
    )  # fmt: skip
    return True


# ------------------------------------------------------------------------------------------------ oracles
async def _follow(unit: Unit, settings: Settings) -> list[str]:
    """Configure the oracles of the demo's own assets that have none, and let the replays of all go at the speed that
    the settings ask for; the symbols of the assets whose oracle is new."""
    await lock_admin_keys(unit.connection, owner=admin_owner(ACTOR))
    catalogue = {asset.symbol: asset for asset in CATALOGUE}
    rows = await unit.connection.fetch(
        "SELECT a.id, a.symbol, o.configuration, o.version FROM assets a LEFT JOIN oracles o ON o.asset_id = a.id"
        " WHERE a.symbol = ANY($1::text[]) AND EXISTS (SELECT FROM audit_log l WHERE l.actor = $2"
        " AND l.action = 'assetCreate' AND l.target = 'Asset:' || a.id) ORDER BY a.id",
        list(catalogue),
        ACTOR,
    )
    new = []
    for row in rows:
        asset, asset_id = catalogue[row["symbol"]], row["id"]
        if row["configuration"] is None:
            await _configure(unit, asset, asset_id, settings)
            new.append(asset.symbol)
        elif asset.search is not None and row["version"] == 1:
            await _pace(unit, asset_id, settings)
        if asset.search is None and row["configuration"] in (None, encode_configuration(asset.oracle)):
            await start_replay(
                connection=unit.connection, asset_id=asset_id, series=asset.series, column=asset.column,
                speed_factor=settings.oracle_series_speed, at=clock.now(),
            )  # fmt: skip
    return new


async def _configure(unit: Unit, asset: DemoAsset, asset_id: int, settings: Settings) -> None:
    """Give the asset its oracle, of which a reading is due at once."""
    configuration, cadence_seconds = asset.oracle, None
    if asset.search is not None:
        await _set_out(unit, asset, asset_id, settings)
        cadence_seconds = _search_cadence(settings)
    await store_configuration(
        connection=unit.connection, asset_id=asset_id, configuration=configuration, cadence_seconds=cadence_seconds
    )
    await append(
        unit=unit, actor=ACTOR, action="oracleConfigure", target=f"Asset:{asset_id}", reason=REASON, before=None,
        after={"oracle": orjson.loads(encode_configuration(configuration)), "cadenceSeconds": cadence_seconds},
    )  # fmt: skip


async def _pace(unit: Unit, asset_id: int, settings: Settings) -> None:
    """Let an oracle that is as the demo made it search at the pace that fits who is asked now."""
    wanted = _search_cadence(settings)
    before = await unit.connection.fetchrow(
        "SELECT base_cadence_seconds AS cadence FROM oracles WHERE asset_id = $1 FOR UPDATE", asset_id
    )
    if before is None or before["cadence"] == wanted:
        return
    await unit.connection.execute("UPDATE oracles SET base_cadence_seconds = $2 WHERE asset_id = $1", asset_id, wanted)
    await append(
        unit=unit, actor=ACTOR, action="oracleConfigure", target=f"Asset:{asset_id}", reason=REASON,
        before={"cadenceSeconds": before["cadence"]}, after={"cadenceSeconds": wanted},
    )  # fmt: skip


def _search_cadence(settings: Settings) -> int | None:
    """Seconds between searches: few against the stand-in, which costs nothing; the usual cadence against real ones."""
    is_real = settings.serper_api_key is not None or settings.huggingface_api_key is not None
    return None if is_real else SEARCH_CADENCE_SECONDS


async def _set_out(unit: Unit, asset: DemoAsset, asset_id: int, settings: Settings) -> None:
    """Set F to what is known now, and hold it no longer than that: from the base price up, the first search reading
    would be too large a change to be believed."""
    now = clock.now()
    known = known_at(now, speed=Fraction(settings.oracle_series_speed))
    fundamental = asset.mapping.price(Fraction(known.latest.thousands))
    report_id = await set_override(
        unit=unit, asset_id=asset_id, fundamental=fundamental, reason=REASON, expires_at=now + FIRST_FRESH, by=ACTOR
    )
    await append(
        unit=unit, actor=ACTOR, action="oracleOverride", target=f"Asset:{asset_id}", reason=REASON, before=None,
        after={"fundamental": price_text(fundamental), "report": f"OracleReport:{report_id}"},
    )  # fmt: skip
