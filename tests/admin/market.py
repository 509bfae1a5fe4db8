"""What admin tests do often: make an asset, and read what the audit log says of it."""

import json
from collections.abc import Mapping

from app.accounts.principals import AdminPrincipal
from app.admin.asset_input import NewAsset
from app.admin.assets import create_asset
from app.db import Database
from app.idempotency import KeyedOutcome
from tests.accounts.people import fetch, unique


def unique_symbol() -> str:
    return unique("A").upper().replace("-", "")[:16]


def an_asset(**values: object) -> NewAsset:
    """A good form, but for `values`."""
    form = {"symbol": unique_symbol(), "name": "Rain", "description": "Rain in Bergen", "category": "WEATHER"}
    return NewAsset(**(form | values))  # type: ignore[arg-type]


async def create(
    database: Database,
    admin: AdminPrincipal,
    new: NewAsset | None = None,
    *,
    key: str | None = None,
    request_id: int | None = None,
) -> KeyedOutcome:
    async with database.transaction() as unit:
        return await create_asset(
            unit=unit, principal=admin, new=new or an_asset(), request_id=request_id,
            idempotency_key=key or unique("key"),
        )  # fmt: skip


async def created(database: Database, admin: AdminPrincipal, new: NewAsset | None = None) -> int:
    """The id of a new asset."""
    outcome = await create(database, admin, new)
    assert outcome.id is not None
    return outcome.id


async def asset_row(database: Database, asset_id: int | None) -> Mapping[str, object]:
    [row] = await fetch(database, "SELECT * FROM assets WHERE id = $1", asset_id)
    return dict(row)


async def logged(database: Database, target: str) -> list[tuple[str, str, str | None, object, object]]:
    """Action, actor, reason, before and after of what the audit log holds of `target`."""
    rows = await fetch(database, "SELECT * FROM audit_log WHERE target = $1 ORDER BY id", target)
    return [
        (
            row["action"], row["actor"], row["reason"],
            row["before"] and json.loads(row["before"]), row["after"] and json.loads(row["after"]),
        )
        for row in rows
    ]  # fmt: skip
