"""Making assets and changing them: every range at its ends, and refusals that change nothing."""

import asyncio
from dataclasses import replace

import pytest

from app.accounts.asset_requests import submit_asset_request
from app.accounts.sessions import log_out
from app.admin.asset_input import UNCHANGED, AssetChanges
from app.admin.assets import set_asset_status, update_asset
from app.admin.requests import review_asset_request
from app.db import Database
from app.errors import ErrorCode, Refused, Unauthenticated
from app.exchange.assets import AssetStatus
from app.exchange.settlement import Settlement
from app.idempotency import KeyedOutcome
from app.ledger.currencies import Currency
from tests import factories
from tests.accounts.people import fetch, new_account, new_admin, unique, value
from tests.admin.market import an_asset, asset_row, create, created, logged, unique_symbol

EVERYTHING = (
    "SELECT (SELECT count(*) FROM assets) || '/' || (SELECT count(*) FROM ledger_accounts) || '/' ||"
    " (SELECT count(*) FROM audit_log)"
)


async def update(database: Database, asset_id: int, changes: AssetChanges, *, reason: str = "because") -> int:
    admin = await new_admin(database, name="grace")
    async with database.transaction() as unit:
        return await update_asset(unit=unit, principal=admin, asset_id=asset_id, changes=changes, reason=reason)


async def set_status(database: Database, asset_id: int, status: AssetStatus, *, reason: str = "because") -> int:
    admin = await new_admin(database, name="grace")
    async with database.transaction() as unit:
        return await set_asset_status(unit=unit, principal=admin, asset_id=asset_id, status=status, reason=reason)


async def issue(database: Database, settlement: Settlement, asset_id: int) -> None:
    """Somebody buys one share."""
    buyer = await factories.new_account(database, usdc="10")
    await factories.place_order(settlement, buyer, asset_id, shares="1")


# ---------------------------------------------------------------------------------------------------- making


async def test_an_asset_is_made_with_the_contracts_defaults_and_empty_ledger_accounts(database: Database) -> None:
    admin = await new_admin(database, name="grace")
    symbol = unique_symbol()
    asset_id = await created(database, admin, an_asset(symbol=symbol))
    row = await asset_row(database, asset_id)
    assert row == {
        "id": asset_id, "created_at": row["created_at"],
        "symbol": symbol, "name": "Rain", "description": "Rain in Bergen", "category": "WEATHER", "status": "OPEN",
        "status_reason": None, "quote_currency": "USDC", "base_price": 10**12, "slope": 5 * 10**15,
        "fee_rate": 5_000_000, "min_notional": 10_000, "max_shares_per_account": None, "max_redemption_per_day": None,
        "fundamental_weight": 200_000_000, "volume_scale": 10**9, "volume_half_life_seconds": 900, "supply": 0,
        "backing": 0, "surplus": 0, "lp_capital": 0, "trade_seq": 0, "last_trade_at": None,
    }  # fmt: skip
    ledger = await fetch(
        database,
        "SELECT kind, currency, account_id, balance FROM ledger_accounts WHERE asset_id = $1 ORDER BY kind",
        asset_id,
    )
    assert [tuple(row) for row in ledger] == [
        ("BACKING", "USDC", None, 0),
        ("ISSUED", symbol, None, 0),
        ("LP_CAPITAL", "USDC", None, 0),
        ("SURPLUS", "USDC", None, 0),
    ]
    [(action, actor, reason, before, after)] = await logged(database, f"Asset:{asset_id}")
    assert (action, actor, reason, before) == ("assetCreate", "grace", None, None)
    assert after == {
        "symbol": symbol, "quoteCurrency": "USDC", "status": "OPEN", "name": "Rain", "description": "Rain in Bergen",
        "category": "WEATHER", "basePrice": "1", "slope": "0.005", "feeRate": "0.005", "minNotional": "0.01",
        "maxSharesPerAccount": None,
        "maxRedemptionPerDay": None, "fundamentalWeight": "0.2", "volumeScale": "1000", "volumeHalfLifeSeconds": 900,
    }  # fmt: skip


LOWEST = {
    "base_price": ("0.000001", 10**6), "slope": ("0.000000000000000001", 1), "fee_rate": ("0", 0),
    "max_shares_per_account": ("0.000000001", 1), "max_redemption_per_day": ("0.000001", 1),
    "fundamental_weight": ("0.000000001", 1), "volume_scale": ("0.000001", 1), "volume_half_life_seconds": (1, 1),
}  # fmt: skip
HIGHEST = {
    "base_price": ("1000000000", 10**21), "slope": ("1000000", 10**24), "fee_rate": ("0.1", 10**8),
    "max_shares_per_account": ("1000000000000000", 10**24), "max_redemption_per_day": ("1000000000000", 10**18),
    "fundamental_weight": ("1", 10**9), "volume_scale": ("1000000000000", 10**18),
    "volume_half_life_seconds": (31_536_000, 31_536_000),
}  # fmt: skip


@pytest.mark.parametrize("ends", [LOWEST, HIGHEST])
async def test_the_ends_of_every_range_are_taken(database: Database, ends: dict[str, tuple[object, int]]) -> None:
    admin = await new_admin(database)
    asset_id = await created(database, admin, an_asset(**{name: given for name, (given, _) in ends.items()}))
    row = await asset_row(database, asset_id)
    assert {name: row[name] for name in ends} == {name: stored for name, (_, stored) in ends.items()}
    changed = await created(database, admin)
    await update(database, changed, AssetChanges(**{name: given for name, (given, _) in ends.items()}))  # type: ignore[arg-type]
    row = await asset_row(database, changed)
    assert {name: row[name] for name in ends} == {name: stored for name, (_, stored) in ends.items()}


BEYOND = [
    ("base_price", "basePrice", "0.000000999999"), ("base_price", "basePrice", "1000000000.000000000001"),
    ("base_price", "basePrice", "0.0000000000001"), ("slope", "slope", "0"), ("slope", "slope", "1000000.1"),
    ("slope", "slope", "0.0000000000000000001"),
    ("fee_rate", "feeRate", "0.100000001"), ("fee_rate", "feeRate", "-0.1"),
    ("max_shares_per_account", "maxSharesPerAccount", "0"),
    ("max_shares_per_account", "maxSharesPerAccount", "1000000000000001"),
    ("max_redemption_per_day", "maxRedemptionPerDay", "0"),
    ("max_redemption_per_day", "maxRedemptionPerDay", "1000000000000.000001"),
    ("fundamental_weight", "fundamentalWeight", "0"), ("fundamental_weight", "fundamentalWeight", "1.000000001"),
    ("volume_scale", "volumeScale", "0"), ("volume_scale", "volumeScale", "NaN"),
    ("volume_half_life_seconds", "volumeHalfLifeSeconds", 0),
    ("volume_half_life_seconds", "volumeHalfLifeSeconds", 31_536_001),
    ("name", "name", ""), ("name", "name", "n" * 81), ("name", "name", "a\nb"), ("description", "description", " "),
    ("description", "description", "d" * 4_001), ("category", "category", ""), ("category", "category", "c" * 41),
]  # fmt: skip


@pytest.mark.parametrize(("name", "field", "given"), BEYOND)
async def test_beyond_every_range_the_value_is_quoted_and_nothing_changes(
    database: Database, name: str, field: str, given: object
) -> None:
    admin = await new_admin(database)
    asset_id = await created(database, admin)
    before, everything = await asset_row(database, asset_id), await value(database, EVERYTHING)
    for attempt in (
        create(database, admin, an_asset(**{name: given})),
        update(database, asset_id, AssetChanges(**{name: given})),  # type: ignore[arg-type]
    ):
        with pytest.raises(Refused) as caught:
            await attempt
        assert caught.value.refusal.code is ErrorCode.INVALID_INPUT
        assert caught.value.refusal.field == ("input", field)
        assert str(given).strip()[:40].split("\n")[0] in caught.value.refusal.message
    assert await asset_row(database, asset_id) == before
    assert await value(database, EVERYTHING) == everything


@pytest.mark.parametrize(
    "symbol", ["", "usd", "1A", "A" * 17, "USDC", "USDT", "A B", "A\n", "\uff21", "\u00c4", "A/B", "_A", "x" * 9_999]
)
async def test_a_bad_symbol_is_refused(database: Database, symbol: str) -> None:
    admin = await new_admin(database)
    with pytest.raises(Refused) as caught:
        await create(database, admin, an_asset(symbol=symbol))
    assert caught.value.refusal.code is ErrorCode.INVALID_INPUT
    assert caught.value.refusal.field == ("input", "symbol")
    assert await value(database, "SELECT count(*) FROM assets WHERE symbol = $1", symbol) == 0


async def test_a_symbol_may_have_16_characters_of_each_kind(database: Database) -> None:
    admin = await new_admin(database)
    symbol = "A" + unique_symbol()[-11:].rjust(12, "0") + "._-"
    asset_id = await created(database, admin, an_asset(symbol=symbol))
    assert (await asset_row(database, asset_id))["symbol"] == symbol
    assert len(symbol) == 16


@pytest.mark.parametrize("status", [AssetStatus.DRAFT, AssetStatus.REDUCE_ONLY, AssetStatus.HALTED])
async def test_an_asset_may_begin_with_any_status_but_delisted(database: Database, status: AssetStatus) -> None:
    admin = await new_admin(database)
    asset_id = await created(database, admin, an_asset(status=status, quote_currency=Currency.USDT))
    row = await asset_row(database, asset_id)
    assert (row["status"], row["quote_currency"]) == (status.value, "USDT")
    with pytest.raises(Refused) as caught:
        await create(database, admin, an_asset(status=AssetStatus.DELISTED))
    assert caught.value.refusal.code is ErrorCode.INVALID_INPUT
    assert caught.value.refusal.field == ("input", "status")


async def test_a_key_makes_one_asset_and_one_audit_entry(database: Database) -> None:
    admin = await new_admin(database)
    new, key = an_asset(), unique("key")
    ends = await asyncio.gather(*(create(database, admin, new, key=key) for _ in range(10)))
    assert len({end.id for end in ends}) == 1
    assert sorted(end.repeated for end in ends) == [False] + [True] * 9
    assert await create(database, admin, replace(new, base_price="1.0", slope="0.0050"), key=key) == KeyedOutcome(
        ends[0].id, None, repeated=True
    )
    assert len(await logged(database, f"Asset:{ends[0].id}")) == 1
    everything = await value(database, EVERYTHING)
    with pytest.raises(Refused) as caught:
        await create(database, admin, replace(new, base_price="2"), key=key)
    assert caught.value.refusal.code is ErrorCode.IDEMPOTENCY_KEY_REUSED
    assert await value(database, EVERYTHING) == everything


async def test_a_key_is_the_admins_own(database: Database) -> None:
    key = unique("key")
    first = await create(database, await new_admin(database), an_asset(), key=key)
    second = await create(database, await new_admin(database), an_asset(), key=key)
    assert first.id != second.id
    assert second.repeated is False


async def test_a_taken_symbol_is_refused_and_the_key_remembers(database: Database) -> None:
    admin = await new_admin(database)
    new, key = an_asset(), unique("key")
    await created(database, admin, new)
    everything = await value(database, EVERYTHING)
    refused = await create(database, admin, new, key=key)
    assert refused.refusal is not None
    assert refused.refusal.code is ErrorCode.ALREADY_EXISTS
    assert refused.refusal.field == ("input", "symbol")
    assert await create(database, admin, new, key=key) == KeyedOutcome(None, refused.refusal, repeated=True)
    assert await value(database, EVERYTHING) == everything


async def test_of_two_admins_making_one_symbol_at_once_one_succeeds(database: Database) -> None:
    new = an_asset()
    admins = [await new_admin(database) for _ in range(5)]
    ends = await asyncio.gather(*(create(database, admin, new) for admin in admins))
    assert sorted(end.refusal.code if end.refusal else "made" for end in ends) == ["ALREADY_EXISTS"] * 4 + ["made"]
    assert await value(database, "SELECT count(*) FROM assets WHERE symbol = $1", new.symbol) == 1


async def test_an_ended_admin_session_changes_nothing(database: Database) -> None:
    admin = await new_admin(database)
    asset_id = await created(database, admin)
    async with database.transaction() as unit:
        await log_out(unit=unit, principal=admin)
    everything, before = await value(database, EVERYTHING), await asset_row(database, asset_id)
    with pytest.raises(Unauthenticated):
        await create(database, admin)
    with pytest.raises(Unauthenticated):
        async with database.transaction() as unit:
            await update_asset(
                unit=unit, principal=admin, asset_id=asset_id, changes=AssetChanges(name="x"), reason="x"
            )
    with pytest.raises(Unauthenticated):
        async with database.transaction() as unit:
            await set_asset_status(unit=unit, principal=admin, asset_id=asset_id, status=AssetStatus.HALTED, reason="x")
    assert await value(database, EVERYTHING) == everything
    assert await asset_row(database, asset_id) == before


# ------------------------------------------------------------------------------------------- for a request


async def a_request(database: Database, *, approve: bool | None = None) -> int:
    """A request, PENDING or reviewed."""
    account = await new_account(database)
    async with database.transaction() as unit:
        made = await submit_asset_request(
            unit=unit, principal=account.principal, name="Rain", description="mm", source_hint=None,
            idempotency_key=unique("key"),
        )  # fmt: skip
    assert made.id is not None
    if approve is not None:
        admin = await new_admin(database)
        async with database.transaction() as unit:
            await review_asset_request(unit=unit, principal=admin, request_id=made.id, approve=approve, notes=None)
    return made.id


@pytest.mark.parametrize("approve", [None, True])
async def test_an_asset_made_for_a_request_approves_and_links_it(database: Database, approve: bool | None) -> None:
    admin = await new_admin(database)
    request_id = await a_request(database, approve=approve)
    outcome = await create(database, admin, request_id=request_id)
    [request] = await fetch(database, "SELECT * FROM asset_requests WHERE id = $1", request_id)
    assert (request["status"], request["asset_id"]) == ("APPROVED", outcome.id)
    [(_, _, _, _, after)] = await logged(database, f"Asset:{outcome.id}")
    assert isinstance(after, dict)
    assert after["requestId"] == f"AssetRequest:{request_id}"


async def test_a_request_that_is_settled_or_missing_takes_no_asset(database: Database) -> None:
    admin = await new_admin(database)
    linked = await a_request(database)
    await create(database, admin, request_id=linked)
    attempts = [
        (await a_request(database, approve=False), ErrorCode.CONFLICT),
        (linked, ErrorCode.CONFLICT),
        (10**15, ErrorCode.NOT_FOUND),
    ]
    everything = await value(database, EVERYTHING)
    for request_id, code in attempts:
        before = await fetch(database, "SELECT * FROM asset_requests WHERE id = $1", request_id)
        outcome = await create(database, admin, request_id=request_id)
        assert outcome.refusal is not None
        assert outcome.refusal.code is code
        assert outcome.refusal.field == ("input", "requestId")
        assert await fetch(database, "SELECT * FROM asset_requests WHERE id = $1", request_id) == before
    assert await value(database, EVERYTHING) == everything


async def test_a_request_takes_one_asset_however_many_are_made_at_once(database: Database) -> None:
    request_id = await a_request(database)
    admins = [await new_admin(database) for _ in range(5)]
    ends = await asyncio.gather(*(create(database, admin, request_id=request_id) for admin in admins))
    assert sorted(end.refusal.code if end.refusal else "made" for end in ends) == ["CONFLICT"] * 4 + ["made"]


# -------------------------------------------------------------------------------------------------- changing


async def test_only_given_fields_change(database: Database) -> None:
    asset_id = await created(database, await new_admin(database), an_asset(max_shares_per_account="5"))
    before = dict(await asset_row(database, asset_id))
    changes = AssetChanges(name=" Snow ", fee_rate="0.01", max_redemption_per_day="100", volume_half_life_seconds=60)
    assert await update(database, asset_id, changes, reason="Snow now") == asset_id
    after = await asset_row(database, asset_id)
    expected = {
        "name": "Snow",
        "fee_rate": 10_000_000,
        "max_redemption_per_day": 100_000_000,
        "volume_half_life_seconds": 60,
    }
    assert after == before | expected
    assert (await logged(database, f"Asset:{asset_id}"))[1:] == [
        (
            "assetUpdate", "grace", "Snow now",
            {"name": "Rain", "feeRate": "0.005", "maxRedemptionPerDay": None, "volumeHalfLifeSeconds": 900},
            {"name": "Snow", "feeRate": "0.01", "maxRedemptionPerDay": "100", "volumeHalfLifeSeconds": 60},
        )
    ]  # fmt: skip


async def test_limits_are_taken_away_by_none_and_left_by_unchanged(database: Database) -> None:
    new = an_asset(max_shares_per_account="5", max_redemption_per_day="6")
    asset_id = await created(database, await new_admin(database), new)
    await update(database, asset_id, AssetChanges(max_shares_per_account=None, max_redemption_per_day=UNCHANGED))
    row = await asset_row(database, asset_id)
    assert (row["max_shares_per_account"], row["max_redemption_per_day"]) == (None, 6_000_000)


async def test_a_curve_changes_while_nobody_holds_shares(database: Database) -> None:
    asset_id = await created(database, await new_admin(database))
    await update(database, asset_id, AssetChanges(base_price="2.5", slope="0.000000000000000001"))
    row = await asset_row(database, asset_id)
    assert (row["base_price"], row["slope"]) == (2_500_000_000_000, 1)


@pytest.mark.parametrize(("column", "name"), [("base_price", "basePrice"), ("slope", "slope")])
async def test_a_curve_stands_while_somebody_holds_shares(
    database: Database, settlement: Settlement, column: str, name: str
) -> None:
    asset_id = await created(database, await new_admin(database))
    await issue(database, settlement, asset_id)
    before, everything = await asset_row(database, asset_id), await value(database, EVERYTHING)
    with pytest.raises(Refused) as caught:
        await update(database, asset_id, AssetChanges(name="Snow", **{column: "7"}))  # type: ignore[arg-type]
    assert caught.value.refusal.code is ErrorCode.CONFLICT
    assert caught.value.refusal.field == ("input", name)
    assert "has 1 outstanding" in caught.value.refusal.message
    assert await asset_row(database, asset_id) == before
    assert await value(database, EVERYTHING) == everything
    # The same figures as before are no change.
    await update(database, asset_id, AssetChanges(base_price="1", slope="0.005", fee_rate="0"))
    assert await asset_row(database, asset_id) == dict(before) | {"fee_rate": 0}


@pytest.mark.parametrize(
    ("changes", "reason", "field"),
    [
        (AssetChanges(), "because", ("input",)),
        (AssetChanges(name="x"), "", ("input", "reason")),
        (AssetChanges(name="x"), "r" * 501, ("input", "reason")),
    ],
)
async def test_an_empty_change_and_a_missing_reason_are_refused(
    database: Database, changes: AssetChanges, reason: str, field: tuple[str, ...]
) -> None:
    asset_id = await created(database, await new_admin(database))
    before = await asset_row(database, asset_id)
    with pytest.raises(Refused) as caught:
        await update(database, asset_id, changes, reason=reason)
    assert (caught.value.refusal.code, caught.value.refusal.field) == (ErrorCode.INVALID_INPUT, field)
    assert await asset_row(database, asset_id) == before


async def test_a_missing_asset_is_not_found(database: Database) -> None:
    everything = await value(database, EVERYTHING)
    for attempt in (
        update(database, 10**15, AssetChanges(name="x")),
        set_status(database, 10**15, AssetStatus.HALTED),
    ):
        with pytest.raises(Refused) as caught:
            await attempt
        assert caught.value.refusal.code is ErrorCode.NOT_FOUND
        assert caught.value.refusal.field == ("input", "assetId")
    assert await value(database, EVERYTHING) == everything


async def test_changes_at_once_are_all_kept(database: Database) -> None:
    asset_id = await created(database, await new_admin(database))
    await asyncio.gather(
        update(database, asset_id, AssetChanges(name="Snow")),
        update(database, asset_id, AssetChanges(category="MACRO")),
        set_status(database, asset_id, AssetStatus.HALTED),
    )
    row = await asset_row(database, asset_id)
    assert (row["name"], row["category"], row["status"]) == ("Snow", "MACRO", "HALTED")
    assert len(await logged(database, f"Asset:{asset_id}")) == 4


# ---------------------------------------------------------------------------------------------------- status


async def test_statuses_follow_one_another_freely_before_the_first_trade(database: Database) -> None:
    asset_id = await created(database, await new_admin(database))
    for status in (AssetStatus.DRAFT, AssetStatus.OPEN, AssetStatus.REDUCE_ONLY, AssetStatus.HALTED, AssetStatus.DRAFT):
        assert await set_status(database, asset_id, status, reason=f"to {status}") == asset_id
        row = await asset_row(database, asset_id)
        assert (row["status"], row["status_reason"]) == (status.value, f"to {status}")
    assert (await logged(database, f"Asset:{asset_id}"))[1:3] == [
        (
            "assetSetStatus", "grace", "to DRAFT",
            {"status": "OPEN", "statusReason": None}, {"status": "DRAFT", "statusReason": "to DRAFT"},
        ),
        (
            "assetSetStatus", "grace", "to OPEN",
            {"status": "DRAFT", "statusReason": "to DRAFT"}, {"status": "OPEN", "statusReason": "to OPEN"},
        ),
    ]  # fmt: skip


async def test_what_has_traded_is_no_draft_again(database: Database, settlement: Settlement) -> None:
    asset_id = await created(database, await new_admin(database))
    await issue(database, settlement, asset_id)
    before, everything = await asset_row(database, asset_id), await value(database, EVERYTHING)
    with pytest.raises(Refused) as caught:
        await set_status(database, asset_id, AssetStatus.DRAFT)
    assert caught.value.refusal.code is ErrorCode.CONFLICT
    assert caught.value.refusal.field == ("input", "status")
    assert await asset_row(database, asset_id) == before
    assert await value(database, EVERYTHING) == everything
    await set_status(database, asset_id, AssetStatus.HALTED)
    await set_status(database, asset_id, AssetStatus.OPEN)


async def test_delisted_is_reserved(database: Database) -> None:
    asset_id = await created(database, await new_admin(database))
    with pytest.raises(Refused) as caught:
        await set_status(database, asset_id, AssetStatus.DELISTED)
    assert caught.value.refusal.code is ErrorCode.INVALID_INPUT
    assert caught.value.refusal.field == ("input", "status")
    assert (await asset_row(database, asset_id))["status"] == "OPEN"
    await fetch(database, "UPDATE assets SET status = 'DELISTED' WHERE id = $1", asset_id)
    with pytest.raises(Refused) as caught:
        await set_status(database, asset_id, AssetStatus.OPEN)
    assert caught.value.refusal.code is ErrorCode.CONFLICT
    assert (await asset_row(database, asset_id))["status"] == "DELISTED"
    await fetch(database, "UPDATE assets SET status = 'OPEN' WHERE id = $1", asset_id)  # the shared log knows no other


async def test_a_status_needs_a_reason(database: Database) -> None:
    asset_id = await created(database, await new_admin(database))
    with pytest.raises(Refused) as caught:
        await set_status(database, asset_id, AssetStatus.HALTED, reason=" ")
    assert caught.value.refusal.field == ("input", "reason")
    assert (await asset_row(database, asset_id))["status"] == "OPEN"
