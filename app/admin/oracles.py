"""Admins' changes to oracles: what an asset follows, a reading out of turn, F set by hand, quarantines resolved.

What the fields may hold stands in oracle_input. How readings are made, judged and recorded is app.oracle's.
"""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import orjson

from app.accounts.credentials import require_live_admin
from app.accounts.principals import AdminPrincipal
from app.admin.audit_log import REASON_LENGTH_MAX, append, checked_reason
from app.admin.oracle_input import OracleForm, parsed_configuration, parsed_fundamental
from app.bus import Bus
from app.db import Connection, Unit
from app.errors import ErrorCode, isoformat, refuse
from app.idempotency import KeyedOutcome, admin_owner, checked_key, hash_input, lock_admin_keys, run_once
from app.money import price_text
from app.oracle.configuration import (
    Configuration,
    FeedsConfiguration,
    encode_configuration,
)
from app.oracle.configuring import store_configuration
from app.oracle.kinds import OracleMethod
from app.oracle.overrides import CADENCE_SECONDS, set_override
from app.oracle.quarantine import end_quarantines, resolve_quarantine
from app.oracle.replays import start_replay
from app.oracle.report_reads import reports_by_id
from app.text import checked_text

if TYPE_CHECKING:
    import asyncpg

RUN_EVERY: Final = timedelta(minutes=1)
"""How often a reading of one asset may be asked for out of turn."""
_SECOND: Final = timedelta(seconds=1)


async def configure_oracle(
    *,
    unit: Unit,
    principal: AdminPrincipal,
    asset_id: int,
    form: OracleForm,
    reason: str,
    allow_private: bool,
    series_speed: Decimal,
    bus: Bus | None = None,
) -> int:
    """Give an asset its oracle, or another one in its place; answers the asset's id. The first reading is due at once.

    Ends an override, overtakes a run under way, and rejects what is in quarantine: it answered another question. A
    bundled series that was followed before goes on from where it stands; `series_speed` multiplies its usual speed.
    `allow_private`: whether feeds may name private addresses. Here as below `bus` is told after the commit.
    Raises `Refused`: INVALID_INPUT for a field, NOT_FOUND; `Unauthenticated` when the session has ended meanwhile.
    """
    checked = checked_reason(reason)
    configuration = parsed_configuration(form, allow_private=allow_private)
    await require_live_admin(unit.connection, principal=principal)
    await _require_asset(unit.connection, asset_id, "input", "assetId")
    before = await _locked_or_made(unit.connection, asset_id)
    at = await store_configuration(
        connection=unit.connection, asset_id=asset_id, configuration=configuration, cadence_seconds=form.cadence_seconds
    )
    await _start_replays(unit.connection, asset_id=asset_id, configuration=configuration, speed=series_speed, at=at)
    await end_quarantines(unit=unit, asset_id=asset_id, reason=checked, by=principal.name, bus=bus)
    await append(
        unit=unit, actor=principal.name, action="oracleConfigure", target=f"Asset:{asset_id}", reason=checked,
        before=_shown(before["configuration"], before["base_cadence_seconds"]),
        after=_shown(encode_configuration(configuration), form.cadence_seconds),
    )  # fmt: skip
    _tell(unit, bus, asset_id)
    return asset_id


async def run_oracle(*, unit: Unit, principal: AdminPrincipal, asset_id: int, bus: Bus | None = None) -> datetime:
    """Ask for a reading of an asset as soon as a worker is free; answers when that was, by the database's clock.

    Raises `Refused`: NOT_FOUND, CONFLICT when the asset has no configuration, when an override holds F, and within
    `RUN_EVERY` of the last request; `Unauthenticated` when the session has ended meanwhile.
    """
    await require_live_admin(unit.connection, principal=principal)
    symbol = await _require_asset(unit.connection, asset_id, "assetId")
    oracle = await unit.connection.fetchrow("SELECT * FROM oracles WHERE asset_id = $1 FOR UPDATE", asset_id)
    # After the lock: whoever held it may have asked just before.
    now: datetime = await unit.connection.fetchval("SELECT clock_timestamp()")
    if oracle is None or oracle["configuration"] is None:
        raise refuse(
            ErrorCode.CONFLICT,
            f"{symbol} has no oracle that could be run: configure one by oracleConfigure.",
            "assetId",
        )
    _refuse_if_held(oracle, symbol=symbol, now=now)
    asked: datetime | None = oracle["requested_at"]
    if asked is not None and now < asked + RUN_EVERY:
        seconds = -((now - asked - RUN_EVERY) // _SECOND)
        raise refuse(
            ErrorCode.CONFLICT,
            f"A reading of {symbol} was asked for at {isoformat(asked)}, and one may be once a minute: try again in "
            f"{seconds} s.",
            "assetId",
        )
    await unit.connection.execute(
        "UPDATE oracles SET requested_at = $2, due_at = $2 WHERE asset_id = $1", asset_id, now
    )
    await append(
        unit=unit, actor=principal.name, action="oracleRun", target=f"Asset:{asset_id}", reason=None,
        before=None, after={"queuedAt": isoformat(now)},
    )  # fmt: skip
    _tell(unit, bus, asset_id)
    return now


async def override_oracle(
    *,
    unit: Unit,
    principal: AdminPrincipal,
    asset_id: int,
    fundamental: str,
    reason: str,
    expires_at: datetime | None,
    idempotency_key: str,
    bus: Bus | None = None,
) -> KeyedOutcome:
    """Set F (decimal text) at once and hold it, once for each key; the outcome's id is the report's.

    It holds until `expires_at`, without that until another override or `configure_oracle`. Raises `Refused` for what
    binds no key: INVALID_INPUT and IDEMPOTENCY_KEY_REUSED; `Unauthenticated` when the session has ended meanwhile.
    The outcome's refusal is NOT_FOUND, or INVALID_INPUT for a time that has passed or is more than a year away.
    """
    key = checked_key(idempotency_key)
    checked = checked_reason(reason)
    price = parsed_fundamental(fundamental)
    owner = admin_owner(principal.name)
    until = None if expires_at is None else isoformat(expires_at)
    await lock_admin_keys(unit.connection, owner=owner)
    await require_live_admin(unit.connection, principal=principal)

    async def decide() -> int:
        await _require_asset(unit.connection, asset_id, "input", "assetId")
        report_id = await set_override(
            unit=unit, asset_id=asset_id, fundamental=price, reason=checked, expires_at=expires_at, by=principal.name,
            bus=bus,
        )  # fmt: skip
        (report,) = (await reports_by_id(connection=unit.connection, report_ids=[report_id])).values()
        await append(
            unit=unit, actor=principal.name, action="oracleOverride", target=f"Asset:{asset_id}", reason=checked,
            before={"fundamental": price_text(report.fundamental_before)},
            after={
                "fundamental": price_text(price), "expiresAt": until, "report": f"OracleReport:{report_id}",
            },
        )  # fmt: skip
        return report_id

    outcome = await run_once(
        unit.connection, owner=owner, mutation="oracleOverride", key=key,
        input_hash=hash_input(
            {"asset_id": asset_id, "fundamental": price, "reason": checked, "expires_at": until}
        ),
        decide=decide,
    )  # fmt: skip
    if outcome.id is not None and not outcome.repeated:
        _tell(unit, bus, asset_id)
    return outcome


async def resolve_oracle_quarantine(
    *, unit: Unit, principal: AdminPrincipal, report_id: int, accept: bool, reason: str, bus: Bus | None = None
) -> int:
    """End a report's quarantine: accept its price, whatever the caps, or reject it; answers the report's id.

    Raises `Refused`: INVALID_INPUT (reason), NOT_FOUND, CONFLICT when it is in quarantine no longer, or is to be
    accepted while an override holds F; `Unauthenticated` when the session has ended meanwhile.
    """
    checked = checked_text(reason, field=("reason",), maximum=REASON_LENGTH_MAX, multiline=True)
    await require_live_admin(unit.connection, principal=principal)
    report = await resolve_quarantine(
        unit=unit, report_id=report_id, accept=accept, reason=checked, by=principal.name, bus=bus
    )
    suggested = None if report.suggested_price is None else price_text(report.suggested_price)
    await append(
        unit=unit, actor=principal.name, action="oracleQuarantineResolve", target=f"OracleReport:{report_id}",
        reason=checked, before={"outcome": report.verdict.value},
        after={"outcome": report.outcome.value, "asset": f"Asset:{report.asset_id}", "suggestedPrice": suggested},
    )  # fmt: skip
    _tell(unit, bus, report.asset_id)
    return report_id


# ---------------------------------------------------------------------------------------------------- what is read
async def _require_asset(connection: Connection, asset_id: int, *field: str) -> str:
    """The asset's symbol. Raises `Refused` (NOT_FOUND)."""
    symbol: str | None = await connection.fetchval("SELECT symbol FROM assets WHERE id = $1", asset_id)
    if symbol is None:
        raise refuse(ErrorCode.NOT_FOUND, "There is no asset with this assetId.", *field)
    return symbol


async def _locked_or_made(connection: Connection, asset_id: int) -> "asyncpg.Record":
    """The asset's row of `oracles` as it stands, locked; one without a configuration where there was none."""
    await connection.execute(
        "INSERT INTO oracles (asset_id, method, cadence_seconds) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        asset_id, OracleMethod.OVERRIDE.value, CADENCE_SECONDS,
    )  # fmt: skip
    row = await connection.fetchrow("SELECT * FROM oracles WHERE asset_id = $1 FOR UPDATE", asset_id)
    if row is None:
        raise LookupError(f"the oracle of the asset {asset_id} is gone: try again")
    return row


def _refuse_if_held(oracle: "asyncpg.Record", *, symbol: str, now: datetime) -> None:
    until: datetime | None = oracle["held_until"]
    if oracle["override_id"] is None or (until is not None and until <= now):
        return
    how_long = "without an end" if until is None else f"until {isoformat(until)}"
    raise refuse(
        ErrorCode.CONFLICT,
        f"An override holds the F of {symbol} {how_long}: end it by another one that expires, or by oracleConfigure.",
        "assetId",
    )


# ---------------------------------------------------------------------------------------------------- what is written
async def _start_replays(
    connection: Connection, *, asset_id: int, configuration: Configuration, speed: Decimal, at: datetime
) -> None:
    feeds = configuration.feeds if isinstance(configuration, FeedsConfiguration) else ()
    for feed in feeds:
        if feed.series is not None and feed.column is not None:
            await start_replay(
                connection=connection, asset_id=asset_id, series=feed.series, column=feed.column, speed_factor=speed,
                at=at,
            )  # fmt: skip


def _shown(configuration: str | None, cadence_seconds: int | None) -> dict[str, object] | None:
    """The configuration as it is stored, for the audit log; None where there is none."""
    if configuration is None:
        return None
    return {"oracle": orjson.loads(configuration), "cadenceSeconds": cadence_seconds}


def _tell(unit: Unit, bus: Bus | None, asset_id: int) -> None:
    """Workers look when an asset has changed, readers of reports when there are reports."""
    if bus is not None:
        unit.after_commit(lambda: bus.publish_changes(assets=[asset_id], reports=[asset_id]))
