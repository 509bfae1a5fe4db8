"""Accounts, admins and assets, made by the use cases of `app.accounts` and `app.admin`."""

import itertools
from datetime import timedelta
from typing import Final

from app.accounts.dev_fund import AMOUNT_MAX, dev_fund
from app.accounts.principals import AccountPrincipal, AdminPrincipal
from app.accounts.sessions import ProvenAdmin, admin_log_in
from app.accounts.sign_up import NewAccount, sign_up
from app.admin.asset_input import AssetChanges, NewAsset
from app.admin.assets import create_asset, set_asset_status
from app.admin.assets import update_asset as change_asset
from app.db import Database
from app.exchange.assets import ASSET_COLUMNS, Asset, AssetStatus, asset_from_row
from app.exchange.batch import OrderOutcome
from app.exchange.orders import Side
from app.exchange.settlement import Settlement
from app.ledger.currencies import Currency
from app.money import MONEY_BALANCE_MAX, MONEY_DECIMALS, money_text, parse
from tests.factories.orders import order_request

LONG: Final = timedelta(hours=1)
_numbers = itertools.count(1)


async def sign_up_account(database: Database) -> AccountPrincipal:
    """A new account with a session and no funds. Its password is unknown: tests of log-in make their own."""
    number = next(_numbers)
    async with database.transaction() as unit:
        account = NewAccount(f"trader-{number}@example.com", "no password has this hash")
        return (await sign_up(unit=unit, account=account, session_lifetime=LONG)).principal


async def fund(
    database: Database, principal: AccountPrincipal, amount: str, currency: Currency = Currency.USDC
) -> None:
    """Test funds in decimal text, in as many calls as it takes."""
    left = parse(amount, decimals=MONEY_DECIMALS, field=("amount",), maximum=MONEY_BALANCE_MAX)
    while left:
        part = min(left, AMOUNT_MAX)
        async with database.transaction() as unit:
            outcome = await dev_fund(
                unit=unit,
                principal=principal,
                currency=currency,
                amount=money_text(part),
                idempotency_key=f"fund-{next(_numbers)}",
                development=True,
            )
        if outcome.refusal is not None:
            raise AssertionError(f"test funds were refused: {outcome.refusal}")
        left -= part


async def new_account(database: Database, *, usdc: str | None = None, usdt: str | None = None) -> AccountPrincipal:
    """A new account with a session and the funds named."""
    principal = await sign_up_account(database)
    for currency, amount in ((Currency.USDC, usdc), (Currency.USDT, usdt)):
        if amount is not None:
            await fund(database, principal, amount, currency)
    return principal


async def new_admin(database: Database, name: str = "admin") -> AdminPrincipal:
    """An admin with a session."""
    async with database.transaction() as unit:
        return (await admin_log_in(unit=unit, proven=ProvenAdmin(name), lifetime=LONG)).principal


async def new_asset(
    database: Database,
    *,
    admin: AdminPrincipal | None = None,
    quote_currency: Currency = Currency.USDC,
    base_price: str = "1",
    slope: str = "0.005",
    fee_rate: str = "0.005",
    max_shares_per_account: str | None = None,
    max_redemption_per_day: str | None = None,
    status: AssetStatus = AssetStatus.OPEN,
) -> int:
    """A new asset with a symbol of its own; answers its id."""
    number = next(_numbers)
    new = NewAsset(
        symbol=f"T{number}",
        name=f"Asset {number}",
        description="For a test.",
        category="TEST",
        quote_currency=quote_currency,
        base_price=base_price,
        slope=slope,
        fee_rate=fee_rate,
        max_shares_per_account=max_shares_per_account,
        max_redemption_per_day=max_redemption_per_day,
        status=status,
    )
    principal = admin or await new_admin(database)
    async with database.transaction() as unit:
        outcome = await create_asset(
            unit=unit, principal=principal, new=new, request_id=None, idempotency_key=f"asset-{number}"
        )
    if outcome.id is None:
        raise AssertionError(f"the asset was refused: {outcome.refusal}")
    return outcome.id


async def load_asset(database: Database, asset_id: int) -> Asset:
    """The asset as it stands."""
    async with database.acquire() as connection:
        row = await connection.fetchrow(f"SELECT {ASSET_COLUMNS} FROM assets WHERE id = $1", asset_id)
    if row is None:
        raise AssertionError(f"there is no asset {asset_id}")
    return asset_from_row(row)


async def set_status(database: Database, asset_id: int, status: AssetStatus) -> None:
    """Set an asset's status as an admin."""
    principal = await new_admin(database)
    async with database.transaction() as unit:
        await set_asset_status(unit=unit, principal=principal, asset_id=asset_id, status=status, reason="a test")


async def update_asset(database: Database, asset_id: int, changes: AssetChanges) -> None:
    """Change an asset as an admin."""
    principal = await new_admin(database)
    async with database.transaction() as unit:
        await change_asset(unit=unit, principal=principal, asset_id=asset_id, changes=changes, reason="a test")


async def place_order(
    settlement: Settlement,
    principal: AccountPrincipal,
    asset_id: int,
    side: Side = Side.BUY,
    *,
    shares: str | None = None,
    amount: str | None = None,
) -> OrderOutcome:
    """Place a market order that the test counts on: raises AssertionError when it is refused."""
    outcome = await settlement.place(order_request(principal, asset_id, side, shares=shares, amount=amount))
    if outcome.refusal is not None:
        raise AssertionError(f"the order was refused: {outcome.refusal}")
    return outcome
