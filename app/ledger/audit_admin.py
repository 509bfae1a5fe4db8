"""The audit of what admins did: the log's hash chain recomputed, and the state that its entries add up to.

The form of a row's hash is written down in `app/admin/audit_log.py`: SHA-256 over a JSON object of the row's columns,
names in order, no white space, times as 2025-01-31T23:59:59.000000Z, the hash before it included.
"""

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import Final

import asyncpg

from app.ledger.audit_run import Run
from app.ledger.audit_trades import Terms, TermsByAsset

FIRST_PREVIOUS_HASH: Final = "0" * 64

_DECIMALS: Final = {
    "basePrice": ("base_price", 12),
    "slope": ("slope", 18),
    "feeRate": ("fee_rate", 9),
    "minNotional": ("min_notional", 6),
    "maxSharesPerAccount": ("max_shares_per_account", 9),
    "maxRedemptionPerDay": ("max_redemption_per_day", 6),
    "fundamentalWeight": ("fundamental_weight", 9),
    "volumeScale": ("volume_scale", 6),
}
"""Members of an asset's entries that are decimal text: the column, and its decimals."""
_PLAIN: Final = {
    "symbol": "symbol",
    "name": "name",
    "description": "description",
    "category": "category",
    "quoteCurrency": "quote_currency",
    "status": "status",
    "statusReason": "status_reason",
    "volumeHalfLifeSeconds": "volume_half_life_seconds",
}
_ASSET_ACTIONS: Final = ("assetCreate", "assetUpdate", "assetSetStatus")
_TERMS: Final = ("base_price", "slope", "fee_rate")

Columns = dict[str, object]


@dataclass(slots=True)
class _AssetPast:
    """What the log says of an asset: its columns now, and what its terms were until each change of them."""

    created: bool = False
    columns: Columns = field(default_factory=dict)
    changed_terms: list[tuple[datetime, Columns]] = field(default_factory=list)


@dataclass(slots=True)
class Past:
    """The state that the log's entries add up to; bounded by how many rows admins have touched."""

    assets: dict[int, _AssetPast] = field(default_factory=dict)
    frozen: dict[int, bool] = field(default_factory=dict)
    requests: dict[int, Columns] = field(default_factory=dict)
    platform: Columns = field(default_factory=lambda: {"trading_paused": False, "reason": None})


async def audit_log(run: Run) -> Past:
    """Verify the chain and each entry's `before`; what the entries add up to."""
    run.begin("admin log")
    past = Past()
    number, previous_hash = 0, FIRST_PREVIOUS_HASH
    async for row in run.rows("SELECT * FROM audit_log ORDER BY id"):
        subject = f"AuditEntry:{row['id']} ({row['action']} {row['target']})"
        pairs = [
            ("id", number + 1, row["id"]),
            ("previous_hash", previous_hash, row["previous_hash"]),
            ("hash", _hash(row), row["hash"]),
        ]
        run.compare("audit_log", subject, pairs)
        number, previous_hash = row["id"], row["hash"]
        _follow(run, subject, row, past)
    return past


def _hash(row: asyncpg.Record) -> str:
    members = {
        "action": row["action"],
        "actor": row["actor"],
        "after": row["after"],
        "at": row["at"].strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "before": row["before"],
        "id": row["id"],
        "previous_hash": row["previous_hash"],
        "reason": row["reason"],
        "target": row["target"],
    }
    text = ",".join(f"{_json(name)}:{_json(value)}" for name, value in members.items())
    return hashlib.sha256(f"{{{text}}}".encode()).hexdigest()


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _follow(run: Run, subject: str, row: asyncpg.Record, past: Past) -> None:
    """Apply an entry to `past`. An action that the audit does not know changes nothing that it compares."""
    kind, _, number = row["target"].partition(":")
    before, after = _members(row["before"]), _members(row["after"])
    if before is None or after is None or not number.isdecimal():
        run.found("audit_log.form", subject, "a row's name, and JSON objects", f"{row['target']} {row['after']}")
        return
    target = int(number)
    if kind == "Asset" and row["action"] in _ASSET_ACTIONS:
        _follow_asset(run, subject, row, past.assets.setdefault(target, _AssetPast()))
        request = str(after.get("requestId", "")).removeprefix("AssetRequest:")
        if request.isdecimal():
            past.requests.setdefault(int(request), {}).update(status="APPROVED", asset_id=target)
    elif row["action"] == "accountFreeze":
        run.compare("audit_log", subject, [("before", past.frozen.get(target, False), before.get("frozen"))])
        past.frozen[target] = bool(after.get("frozen"))
    elif row["action"] == "assetRequestReview":
        past.requests.setdefault(target, {}).update(status=after.get("status"), admin_notes=row["reason"])
    elif row["action"] == "tradingPause":
        was = {"trading_paused": before.get("tradingPaused"), "reason": before.get("reason")}
        run.compare("audit_log", subject, [("before", past.platform, was)])
        past.platform = {"trading_paused": after.get("tradingPaused"), "reason": after.get("reason")}


def _follow_asset(run: Run, subject: str, row: asyncpg.Record, asset: _AssetPast) -> None:
    before, after = _columns(_members(row["before"]) or {}), _columns(_members(row["after"]) or {})
    if (row["action"] == "assetCreate") == asset.created:
        run.found("audit_log.action", subject, "one assetCreate, before all else", row["action"])
    asset.created = True
    known = {column: asset.columns[column] for column in before if column in asset.columns}
    run.compare("audit_log", subject, [("before", known, {column: before[column] for column in known})])
    if row["action"] == "assetUpdate" and any(before.get(c) != after.get(c) for c in _TERMS):
        asset.changed_terms.append((row["at"], {c: before[c] for c in _TERMS if c in before}))
    asset.columns |= after
    if row["action"] == "assetCreate":
        asset.columns.setdefault("status_reason", None)


def _members(text: str | None) -> dict[str, object] | None:
    """A JSON text's members; none of no text, None of what is no JSON object."""
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _columns(members: dict[str, object]) -> Columns:
    """The columns that members of an asset's entry stand for, decimal text in base units."""
    columns = {column: members[name] for name, column in _PLAIN.items() if name in members}
    for name, (column, decimals) in _DECIMALS.items():
        value = members.get(name)
        if name in members:
            columns[column] = _units(value, decimals) if isinstance(value, str) else value
    return columns


def _units(text: str, decimals: int) -> object:
    try:
        units = Fraction(text) * 10**decimals
    except (ValueError, ZeroDivisionError):
        return text
    return units.numerator if units.denominator == 1 else text


async def terms_over_time(run: Run, past: Past) -> TermsByAsset:
    """Each asset's terms, newest first: what the log says they are, and before each change what they were."""
    terms: TermsByAsset = {}
    async for row in run.rows("SELECT id, base_price, slope, fee_rate FROM assets"):
        asset = past.assets.get(row["id"], _AssetPast())
        columns = {column: asset.columns.get(column, row[column]) for column in _TERMS}
        until: datetime | None = None
        eras = []
        for at, before in reversed(asset.changed_terms):
            eras.append(_terms(columns, since=at, until=until))
            columns, until = columns | before, at
        terms[row["id"]] = [*eras, _terms(columns, since=None, until=until)]
    return terms


def _terms(columns: Columns, *, since: datetime | None, until: datetime | None) -> Terms:
    base_price, slope, fee_rate = (value if isinstance(value, int) else 0 for value in map(columns.get, _TERMS))
    return Terms(base_price, slope, fee_rate, since, until)


async def audit_admin(run: Run, past: Past) -> None:
    """Hold assets, accounts, requests and the platform against the log."""
    run.begin("what admins set")
    async for row in run.rows("SELECT * FROM assets ORDER BY id"):
        subject = f"Asset:{row['id']}"
        asset = past.assets.pop(row["id"], None)
        if asset is None or not asset.created:
            run.found("asset.created", subject, "an assetCreate in the admin log", None)
        else:
            run.compare("asset", subject, [(name, value, row[name]) for name, value in asset.columns.items()])
    for asset_id in past.assets:
        run.found("audit_log.target", f"Asset:{asset_id}", "an asset, as the admin log says", None)
    async for row in run.rows(
        "SELECT id, frozen FROM accounts WHERE frozen OR id = ANY($1::bigint[])", list(past.frozen)
    ):
        frozen = past.frozen.pop(row["id"], False)
        run.compare("account", f"Account:{row['id']}", [("frozen", frozen, row["frozen"])])
    for account_id in past.frozen:
        run.found("audit_log.target", f"Account:{account_id}", "an account, as the admin log says", None)
    await _requests(run, past)
    await _platform(run, past)


async def _requests(run: Run, past: Past) -> None:
    async for row in run.rows("SELECT * FROM asset_requests ORDER BY id"):
        expected = {"status": "PENDING", "asset_id": None, "admin_notes": None} | past.requests.pop(row["id"], {})
        pairs = [(name, value, row[name]) for name, value in expected.items()]
        run.compare("asset_request", f"AssetRequest:{row['id']}", pairs)
    for request_id in past.requests:
        run.found("audit_log.target", f"AssetRequest:{request_id}", "a request, as the admin log says", None)


async def _platform(run: Run, past: Past) -> None:
    rows = [row async for row in run.rows("SELECT * FROM platform LIMIT 10")]
    if len(rows) != 1:
        run.found("platform.rows", "Platform", 1, len(rows))
    for row in rows:
        subject = f"Platform:{row['id']}"
        pairs = [("id", 1, row["id"]), *((name, value, row[name]) for name, value in past.platform.items())]
        run.compare("platform", subject, pairs)
        if row["environment"] not in ("development", "production"):
            run.found("platform.environment", subject, "development or production", row["environment"])
