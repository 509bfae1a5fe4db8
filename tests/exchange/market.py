"""A real market beside the model: the production settlement on PostgreSQL, driven from synchronous code.

It speaks the model's language: names of accounts and assets, `Fraction`s of whole units, the model's outcomes.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from typing import TypeVar

from app.accounts.principals import AccountPrincipal, AdminPrincipal
from app.accounts.sessions import log_out, open_session
from app.admin.accounts import freeze_account
from app.admin.asset_input import AssetChanges
from app.admin.assets import set_asset_status, update_asset
from app.admin.pause import pause_trading
from app.db import Database
from app.errors import Refusal, Refused, Unauthenticated
from app.exchange.assets import AssetStatus
from app.exchange.batch import OrderOutcome
from app.exchange.orders import Order, OrderRequest, OrderStatus, Side
from app.exchange.settlement import Settlement
from app.ledger.audit import Finding, audit
from app.ledger.currencies import Currency
from app.ledger.journal import Journal, LedgerKind, TransferReason, load_balances, lock_platform_balance, reserve_ids
from tests.exchange.market_model import Asked, Outcome, raised
from tests.exchange.model import MONEY, PRICE, RATE, SHARE, SLOPE, Deal, ExactCurve
from tests.factories import LONG, new_account, new_admin, new_asset, order_request

T = TypeVar("T")
FINDING_LIMIT = 10**6
"""High enough to list each of the accounts that got more than test funds, and whatever else there is."""


def text(value: Fraction, step: Fraction) -> str:
    """Exact decimal text of a multiple of `step`."""
    units = value / step
    if units.denominator != 1:
        raise AssertionError(f"{value} is no multiple of {step}")
    decimals = len(str(step.denominator)) - 1
    whole, fraction = divmod(units.numerator, step.denominator)
    return f"{whole}.{fraction:0{decimals}d}" if decimals else str(whole)


@dataclass(frozen=True)
class Answered:
    """What an order came to, the stored order's id (None where none is bound) and when it was decided."""

    outcome: Outcome
    order_id: int | None
    at: datetime


@dataclass
class AssetState:
    """An asset's row in whole units."""

    supply: Fraction
    backing: Fraction
    surplus: Fraction
    trade_seq: int
    issued: Fraction
    ledger_backing: Fraction
    ledger_surplus: Fraction


@dataclass
class HoldingState:
    """A position's row in whole units."""

    shares: Fraction
    cost_basis: Fraction
    realized_pnl: Fraction
    redeemed: Fraction


@dataclass
class Standing:
    """A whole market: assets by name, what entries add up to and positions by account, and what does not add up."""

    assets: dict[str, AssetState]
    cash: dict[tuple[str, str], Fraction]
    shares: dict[tuple[str, str], Fraction]
    holdings: dict[tuple[str, str], HoldingState]
    unbalanced: list[tuple[object, ...]]


@dataclass
class Market:
    """Accounts and assets of one run, on a database that other runs have used before."""

    url: str
    accounts: dict[str, AccountPrincipal] = field(default_factory=dict)
    assets: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._runner = asyncio.Runner()
        self.run(self._open())

    def run(self, coroutine: Coroutine[object, object, T]) -> T:
        """Run a coroutine on this market's own event loop."""
        return self._runner.run(coroutine)

    async def _open(self) -> None:
        self.database = await Database.connect(self.url, pool_max=4)
        self.settlement = Settlement(self.database, publish=lambda _: None)
        self.settlement.start()
        self.admin: AdminPrincipal = await new_admin(self.database)
        self._eye = await self.database.pool.acquire()

    def close(self) -> None:
        """Let trading go on for whoever comes next, and end."""
        self.run(self._close())
        self._runner.close()

    async def _close(self) -> None:
        await self._pause(paused=False)
        await self.database.pool.release(self._eye)
        await self.settlement.stop()
        await self.database.close()

    # ------------------------------------------------------------------------------------------------ making

    def add_asset(self, name: str, curve: ExactCurve, currency: str) -> None:
        """A new asset on `curve`."""
        self.assets[name] = self.run(
            new_asset(
                self.database,
                admin=self.admin,
                quote_currency=Currency(currency),
                base_price=text(curve.base_price, PRICE),
                slope=text(curve.slope, SLOPE),
                fee_rate=text(curve.fee_rate, RATE),
            )
        )

    def add_account(self, name: str, cash: dict[str, Fraction]) -> None:
        """A new account that owns `cash`, which may be more than test funds would give."""
        self.run(self._add_account(name, cash))

    async def _add_account(self, name: str, cash: dict[str, Fraction]) -> None:
        principal = await new_account(self.database)
        self.accounts[name] = principal
        async with self.database.transaction() as unit:
            connection = unit.connection
            for currency, amount in cash.items():
                balances = await load_balances(connection, account_ids=[principal.account_id], currencies=[currency])
                available = next(balance for balance in balances if balance.kind is LedgerKind.AVAILABLE)
                source = await lock_platform_balance(connection, kind=LedgerKind.DEVELOPMENT, currency=currency)
                ids = await reserve_ids(connection, sequence="transfers_id_seq", count=1)
                journal = Journal(datetime.now(UTC), ids)
                units = int(amount / MONEY)
                journal.post(
                    reason=TransferReason.DEV_FUND,
                    ref=f"Account:{principal.account_id}",
                    legs=[(source, -units), (available, units)],
                )
                await journal.write(connection)

    # ------------------------------------------------------------------------------------------------ trading

    def place(self, orders: Sequence[Asked]) -> list[Answered]:
        """Place orders at once, in this order."""
        return self.run(self._place([self._request(asked) for asked in orders]))

    def _request(self, asked: Asked) -> OrderRequest:
        def optional(value: Fraction | None, step: Fraction) -> str | None:
            return None if value is None else text(value, step)

        return order_request(
            self.accounts[asked.account],
            self.assets[asked.asset],
            Side(asked.side),
            key=asked.key,
            shares=optional(asked.shares, SHARE),
            amount=optional(asked.amount, MONEY),
            max_total=optional(asked.max_total, MONEY),
            min_total=optional(asked.min_total, MONEY),
            min_shares=optional(asked.min_shares, SHARE),
            deadline=asked.deadline,
            if_trade_seq=asked.if_trade_seq,
        )

    async def _place(self, requests: Sequence[OrderRequest]) -> list[Answered]:
        tasks = [asyncio.create_task(self.settlement.place(request)) for request in requests]
        return [_answered(answer) for answer in await asyncio.gather(*tasks, return_exceptions=True)]

    # ------------------------------------------------------------------------------------------------ administration

    def set_status(self, asset: str, status: str) -> None:
        """Set an asset's status."""
        self.run(self._set_status(asset, status))

    async def _set_status(self, asset: str, status: str) -> None:
        async with self.database.transaction() as unit:
            await set_asset_status(
                unit=unit,
                principal=self.admin,
                asset_id=self.assets[asset],
                status=AssetStatus(status),
                reason="The model says so.",
            )

    def update(self, asset: str, changes: AssetChanges) -> None:
        """Change an asset's rules."""
        self.run(self._update(asset, changes))

    async def _update(self, asset: str, changes: AssetChanges) -> None:
        async with self.database.transaction() as unit:
            await update_asset(
                unit=unit,
                principal=self.admin,
                asset_id=self.assets[asset],
                changes=changes,
                reason="The model says so.",
            )

    def freeze(self, account: str, *, frozen: bool) -> None:
        """Freeze or unfreeze an account."""
        self.run(self._freeze(account, frozen=frozen))

    async def _freeze(self, account: str, *, frozen: bool) -> None:
        async with self.database.transaction() as unit:
            await freeze_account(
                unit=unit,
                principal=self.admin,
                account_id=self.accounts[account].account_id,
                frozen=frozen,
                reason="The model says so.",
            )

    def pause(self, *, paused: bool) -> None:
        """Pause trading on the whole platform, or let it go on."""
        self.run(self._pause(paused=paused))

    async def _pause(self, *, paused: bool) -> None:
        async with self.database.transaction() as unit:
            await pause_trading(unit=unit, principal=self.admin, paused=paused, reason="The model says so.")

    def log_out(self, account: str) -> None:
        """End the account's session; its principal stays in use."""
        self.run(self._log_out(account))

    async def _log_out(self, account: str) -> None:
        async with self.database.transaction() as unit:
            await log_out(unit=unit, principal=self.accounts[account])

    def log_in(self, account: str) -> None:
        """Open a new session, used from now on."""
        self.run(self._log_in(account))

    async def _log_in(self, account: str) -> None:
        old = self.accounts[account]
        async with self.database.acquire() as connection:
            session = await open_session(connection, account_id=old.account_id, lifetime=LONG)
        credential = type(old.credential)("session", session.id)
        self.accounts[account] = AccountPrincipal(old.account_id, credential, old.scopes)

    # ------------------------------------------------------------------------------------------------ looking

    def standing(self) -> Standing:
        """Everything as it stands, in one snapshot."""
        return self.run(self._standing())

    async def _standing(self) -> Standing:
        asset_names = {asset_id: name for name, asset_id in self.assets.items()}
        account_names = {principal.account_id: name for name, principal in self.accounts.items()}
        async with self._eye.transaction(isolation="repeatable_read", readonly=True):
            assets = await self._eye.fetch(_ASSETS, list(asset_names))
            owned = await self._eye.fetch(_OWNED, list(account_names))
            positions = await self._eye.fetch(_POSITIONS, list(account_names))
            unbalanced = await self._eye.fetch(_UNBALANCED, list(asset_names))
        holdings = {
            (account_names[row[0]], asset_names[row[1]]): HoldingState(
                row[2] * SHARE, row[3] * MONEY, row[4] * MONEY, row[5] * MONEY
            )
            for row in positions
        }
        return Standing(
            {
                asset_names[row[0]]: AssetState(
                    row[1] * SHARE,
                    row[2] * MONEY,
                    row[3] * MONEY,
                    row[4],
                    row[5] * SHARE,
                    row[6] * MONEY,
                    row[7] * MONEY,
                )
                for row in assets
            },
            {(account_names[row[0]], row[1]): row[3] * MONEY for row in owned if row[2] is None},
            {(account_names[row[0]], asset_names[row[2]]): row[3] * SHARE for row in owned if row[2] is not None},
            holdings,
            [tuple(row) for row in unbalanced] + [tuple(row) for row in owned if row[3] != row[4]],
        )

    def findings(self) -> list[Finding]:
        """What the audit finds, but for the funds that are more than test funds could be."""
        return [finding for finding in self.run(self._audit()) if not finding.check.startswith("dev_fund.")]

    async def _audit(self) -> list[Finding]:
        async with self.database.snapshot() as connection:
            return (await audit(connection=connection, finding_limit=FINDING_LIMIT)).findings


_ASSETS = """
SELECT a.id, a.supply, a.backing, a.surplus, a.trade_seq, -sum(l.balance) FILTER (WHERE l.kind = 'ISSUED'),
       sum(l.balance) FILTER (WHERE l.kind = 'BACKING'), sum(l.balance) FILTER (WHERE l.kind = 'SURPLUS')
  FROM assets a JOIN ledger_accounts l ON l.asset_id = a.id AND l.account_id IS NULL
 WHERE a.id = ANY($1::bigint[]) GROUP BY a.id
"""
_OWNED = """
SELECT l.account_id, l.currency, l.asset_id, coalesce(sum(e.amount), 0), l.balance
  FROM ledger_accounts l LEFT JOIN entries e ON e.ledger_account_id = l.id
 WHERE l.account_id = ANY($1::bigint[]) AND l.kind = 'AVAILABLE' GROUP BY l.id
"""
_POSITIONS = """
SELECT account_id, asset_id, shares, cost_basis, realized_pnl, redeemed
  FROM positions WHERE account_id = ANY($1::bigint[])
"""
_UNBALANCED = """
SELECT 'Transfer:' || e.transfer_id, l.currency, sum(e.amount)
  FROM trades t JOIN entries e ON e.transfer_id = t.transfer_id JOIN ledger_accounts l ON l.id = e.ledger_account_id
 WHERE t.asset_id = ANY($1::bigint[]) GROUP BY e.transfer_id, l.currency HAVING sum(e.amount) <> 0
UNION ALL
SELECT 'balances', currency, sum(balance) FROM ledger_accounts GROUP BY currency HAVING sum(balance) <> 0
"""


def _answered(answer: OrderOutcome | BaseException) -> Answered:
    if isinstance(answer, Refused):
        return Answered(raised(answer.refusal.code.value), None, datetime.now(UTC))
    if isinstance(answer, Unauthenticated):
        return Answered(raised("UNAUTHENTICATED"), None, datetime.now(UTC))
    if isinstance(answer, BaseException):
        raise answer
    order = answer.order
    if order.status is OrderStatus.REJECTED:
        assert order.refusal is not None
        assert answer.trades == ()
        assert (order.filled_shares, order.gross, order.fee) == (0, 0, 0)
        return Answered(_refused(order.refusal), order.id, order.created_at)
    return Answered(_filled(order, answer), order.id, order.created_at)


def _refused(refusal: Refusal) -> Outcome:
    assert refusal.message
    told: dict[str, Fraction | int | datetime | None] = {}
    for name in ("required", "available", "bound", "actual", "limit", "remaining"):
        value = getattr(refusal, name)
        if value is not None:
            told[name] = Fraction(value)
    if refusal.at_trade_seq is not None:
        told["at_trade_seq"] = refusal.at_trade_seq
    if refusal.resets_at is not None:
        told["resets_at"] = datetime.fromisoformat(refusal.resets_at)
    return Outcome("REJECTED", refusal.code.value, told=tuple(sorted(told.items())))


def _filled(order: Order, answer: OrderOutcome) -> Outcome:
    assert order.status is OrderStatus.FILLED
    (trade,) = answer.trades
    assert (trade.shares, trade.gross, trade.fee) == (order.filled_shares, order.gross, order.fee)
    return Outcome(
        "FILLED",
        deal=Deal(trade.shares * SHARE, trade.gross * MONEY, trade.fee * MONEY),
        seq=trade.seq,
        supply_after=trade.supply_after * SHARE,
        market_after=trade.market_after * PRICE,
    )
