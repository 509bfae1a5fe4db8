"""Admins' changes to assets: making them, their rules, their status. What the fields may hold stands in asset_input."""

from collections.abc import Mapping

import asyncpg

from app.accounts.asset_requests import AssetRequestStatus
from app.accounts.credentials import require_live_admin
from app.accounts.principals import AdminPrincipal
from app.admin.asset_input import (
    CURVE_COLUMNS,
    AssetChanges,
    NewAsset,
    Value,
    checked_status,
    parsed_asset,
    parsed_changes,
    shown,
)
from app.admin.audit_log import append, checked_reason
from app.admin.requests import lock_request
from app.bus import Bus
from app.db import Connection, Unit
from app.errors import ErrorCode, quoted, refuse
from app.exchange.assets import AssetStatus
from app.idempotency import KeyedOutcome, admin_owner, checked_key, hash_input, lock_admin_keys, run_once
from app.ledger.journal import LedgerKind, open_ledger_accounts
from app.ledger.locks import lock
from app.money import shares_text
from app.oracle.claims import overtake_run


async def create_asset(
    *,
    unit: Unit,
    principal: AdminPrincipal,
    new: NewAsset,
    request_id: int | None,
    idempotency_key: str,
    bus: Bus | None = None,
) -> KeyedOutcome:
    """Make an asset and its empty ledger accounts, once for each key; the outcome's id is the asset's.

    Here as below `bus` is told of the asset after the commit; without it readers find it a little later.
    With `request_id`, that asset request (PENDING, or APPROVED without an asset) becomes APPROVED and names the asset.
    Raises `Refused` for what binds no key: INVALID_INPUT and IDEMPOTENCY_KEY_REUSED; `Unauthenticated` when the session
    has ended meanwhile. The outcome's refusal is ALREADY_EXISTS (symbol), NOT_FOUND or CONFLICT (request).
    """
    key = checked_key(idempotency_key)
    values = parsed_asset(new)
    owner = admin_owner(principal.name)
    await lock_admin_keys(unit.connection, owner=owner)
    await require_live_admin(unit.connection, principal=principal)

    async def decide() -> int:
        asset_id = await insert_asset(unit.connection, values=values)
        if request_id is not None:
            await _fulfil_request(unit.connection, request_id=request_id, asset_id=asset_id)
        request = {} if request_id is None else {"requestId": f"AssetRequest:{request_id}"}
        await append(
            unit=unit, actor=principal.name, action="assetCreate", target=f"Asset:{asset_id}", reason=None,
            before=None, after=shown(values) | request,
        )  # fmt: skip
        return asset_id

    outcome = await run_once(
        unit.connection, owner=owner, mutation="assetCreate", key=key,
        input_hash=hash_input(values | {"request_id": request_id}), decide=decide,
    )  # fmt: skip
    if outcome.id is not None and not outcome.repeated:
        _tell(unit, bus, outcome.id)
    return outcome


async def update_asset(
    *,
    unit: Unit,
    principal: AdminPrincipal,
    asset_id: int,
    changes: AssetChanges,
    reason: str,
    bus: Bus | None = None,
) -> int:
    """Change an asset's text, limits, fee, price model or (while its supply is 0) its curve; answers its id.

    Raises `Refused`: INVALID_INPUT for a field, NOT_FOUND, CONFLICT for another basePrice or slope while shares are
    outstanding; `Unauthenticated` when the session has ended meanwhile.
    """
    checked = checked_reason(reason)
    values = parsed_changes(changes)
    before = await _locked_asset(unit.connection, principal=principal, asset_id=asset_id)
    for column in CURVE_COLUMNS:
        if column in values and values[column] != before[column] and before["supply"] > 0:
            name = next(iter(shown({column: None})))
            raise refuse(
                ErrorCode.CONFLICT,
                f"{name} may change only while nobody holds shares, and {before['symbol']} has "
                f"{shares_text(before['supply'])} outstanding: leave it out.",
                "input", name,
            )  # fmt: skip
    await _update(unit.connection, asset_id=asset_id, values=values)
    if "fundamental_weight" in values:
        await overtake_run(connection=unit.connection, asset_id=asset_id)
    await append(
        unit=unit, actor=principal.name, action="assetUpdate", target=f"Asset:{asset_id}", reason=checked,
        before=shown({column: before[column] for column in values}), after=shown(values),
    )  # fmt: skip
    _tell(unit, bus, asset_id)
    return asset_id


async def set_asset_status(
    *,
    unit: Unit,
    principal: AdminPrincipal,
    asset_id: int,
    status: AssetStatus,
    reason: str,
    bus: Bus | None = None,
) -> int:
    """Set an asset's status and the reason shown with it; answers its id. No trade under way ends later.

    OPEN, REDUCE_ONLY and HALTED follow one another freely; DRAFT is for assets that never traded. Setting the same
    status again replaces the reason. Raises `Refused`: INVALID_INPUT (also for DELISTED, which is reserved),
    NOT_FOUND, CONFLICT; `Unauthenticated` when the session has ended meanwhile.
    """
    checked = checked_reason(reason)
    wanted = checked_status(status)
    before = await _locked_asset(unit.connection, principal=principal, asset_id=asset_id)
    if before["status"] == AssetStatus.DELISTED:
        raise refuse(ErrorCode.CONFLICT, f"{before['symbol']} is DELISTED, for good.", "input", "assetId")
    if wanted is AssetStatus.DRAFT and before["trade_seq"] > 0:
        raise refuse(
            ErrorCode.CONFLICT,
            f"{before['symbol']} has traded ({before['trade_seq']} trades) and cannot be a draft again: use HALTED.",
            "input", "status",
        )  # fmt: skip
    values: dict[str, Value] = {"status": wanted.value, "status_reason": checked}
    await _update(unit.connection, asset_id=asset_id, values=values)
    await append(
        unit=unit, actor=principal.name, action="assetSetStatus", target=f"Asset:{asset_id}", reason=checked,
        before=shown({column: before[column] for column in values}), after=shown(values),
    )  # fmt: skip
    _tell(unit, bus, asset_id)
    return asset_id


async def insert_asset(connection: Connection, *, values: Mapping[str, Value]) -> int:
    """Store a new asset of `parsed_asset`'s values and open its ledger accounts; answers its id.

    Raises `Refused` (ALREADY_EXISTS) when the symbol is taken.
    """
    marks = ", ".join(f"${number}" for number in range(1, len(values) + 1))
    asset_id: int | None = await connection.fetchval(
        f"INSERT INTO assets ({', '.join(values)}, created_at) VALUES ({marks}, clock_timestamp())"
        " ON CONFLICT (symbol) DO NOTHING RETURNING id",
        *values.values(),
    )
    symbol, quote_currency = str(values["symbol"]), str(values["quote_currency"])
    if asset_id is None:
        raise refuse(
            ErrorCode.ALREADY_EXISTS,
            f"An asset with the symbol {quoted(symbol)} exists already: choose another, with a new idempotencyKey.",
            "input", "symbol",
        )  # fmt: skip
    money = (LedgerKind.BACKING, LedgerKind.SURPLUS, LedgerKind.LP_CAPITAL)
    await open_ledger_accounts(connection, currency=quote_currency, kinds=money, asset_id=asset_id)
    await open_ledger_accounts(connection, currency=symbol, kinds=(LedgerKind.ISSUED,), asset_id=asset_id)
    return asset_id


def _tell(unit: Unit, bus: Bus | None, asset_id: int) -> None:
    if bus is not None:
        unit.after_commit(lambda: bus.publish_changes(assets=[asset_id]))


async def _fulfil_request(connection: Connection, *, request_id: int, asset_id: int) -> None:
    request = await lock_request(connection, request_id=request_id)
    if request.status is AssetRequestStatus.REJECTED or request.asset_id is not None:
        state = "has its asset" if request.asset_id is not None else "was rejected"
        raise refuse(
            ErrorCode.CONFLICT,
            f"Request {quoted(request.name, 80)} {state} already: leave requestId out, with a new idempotencyKey.",
            "input", "requestId",
        )  # fmt: skip
    await connection.execute(
        "UPDATE asset_requests SET status = 'APPROVED', asset_id = $2 WHERE id = $1", request_id, asset_id
    )


async def _locked_asset(connection: Connection, *, principal: AdminPrincipal, asset_id: int) -> asyncpg.Record:
    locked = await lock(connection, asset_ids=[asset_id])
    await require_live_admin(connection, principal=principal)
    if asset_id not in locked.assets:
        raise refuse(ErrorCode.NOT_FOUND, "There is no asset with this assetId.", "input", "assetId")
    return locked.assets[asset_id]


async def _update(connection: Connection, *, asset_id: int, values: Mapping[str, Value]) -> None:
    # Columns are names of this package's own forms, never of a request.
    columns = ", ".join(f"{column} = ${number}" for number, column in enumerate(values, start=2))
    await connection.execute(f"UPDATE assets SET {columns} WHERE id = $1", asset_id, *values.values())
