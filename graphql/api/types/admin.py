"""What only admins see: accounts, the audit log, reconciliation, the state of the system."""

from datetime import datetime
from typing import TypeAlias

import strawberry
from strawberry import UNSET

from api.context import Info
from api.fields import computed
from api.node_ids import node_id
from api.nodes import Connection, Node
from api.pagination import PAGE_DEFAULT, After, First, connect, window_by_id
from api.types.accounts import AssetRequest, load_statement
from api.types.holdings import Balance, LedgerEntryConnection, show_balance
from api.types.orders import OrderConnection, show_order
from app.accounts.profiles import Account as AccountRow
from app.admin.audit_log import AuditEntry as AuditEntryRow
from app.exchange.reads import orders_page
from app.ledger.audit import Report
from app.system import SystemStatus as SystemView


@strawberry.type(description="An account as admins see it.")
class Account(Node):
    """Its lists are read by its id."""

    email: str = strawberry.field(description="The e-mail that it logs in with.")
    frozen: bool = strawberry.field(description="Whether it is frozen: then it reads, and moves nothing.")
    created_at: datetime = strawberry.field(description="When it signed up.")
    key: strawberry.Private[int]

    @computed("Its money, one for each currency.")
    async def balances(self, info: Info) -> list[Balance]:
        return [show_balance(row) for row in await info.context.loaders.cash.load(self.key) or ()]

    @computed("Its statement: every entry in money and in shares, newest first.")
    async def ledger(self, info: Info, first: First = PAGE_DEFAULT, after: After = UNSET) -> LedgerEntryConnection:
        return await load_statement(info, self.key, first=first, after=after)

    @computed("Its orders, newest first, REJECTED ones too.")
    async def orders(self, info: Info, first: First = PAGE_DEFAULT, after: After = UNSET) -> OrderConnection:
        window = window_by_id(first=first, after=after)
        async with info.context.services.database.acquire() as connection:
            page = await orders_page(connection=connection, account_id=self.key, window=window)
        return connect(OrderConnection, page, show=show_order, key=lambda row: row.id)


AccountConnection: TypeAlias = Connection[Account]
AssetRequestConnection: TypeAlias = Connection[AssetRequest]


@strawberry.type(description="One admin action. Entries form a chain of hashes: none is changed or left out unseen.")
class AuditEntry(Node):
    """A row of the audit log."""

    at: datetime = strawberry.field(description="When it was done, by the database's clock.")
    actor: str = strawberry.field(description="The admin's name.")
    action: str = strawberry.field(description="The mutation, such as assetSetStatus.")
    target: str = strawberry.field(description='What it was done to, such as "Asset:3".')
    reason: str | None = strawberry.field(description="Why, as the admin said.")
    before: str | None = strawberry.field(description="What changed, as it was: a JSON object.")
    after: str | None = strawberry.field(description="What changed, as it is since: a JSON object.")
    hash: str = strawberry.field(description="SHA-256, in hexadecimal, of this entry and the hash before it.")


AuditEntryConnection: TypeAlias = Connection[AuditEntry]


@strawberry.type(description="Something that is not as the entries say it must be.")
class Finding:
    """One difference."""

    check: str = strawberry.field(description="Which invariant does not hold.")
    subject: str = strawberry.field(description="The row that is wrong.")
    expected: str = strawberry.field(description="What it must be.")
    actual: str = strawberry.field(description="What it is.")


@strawberry.type(description="Every invariant of money, shares and admin actions, recomputed from the entries.")
class Reconciliation:
    """A report of one snapshot."""

    ok: bool = strawberry.field(description="Whether nothing was found.")
    checked_at: datetime = strawberry.field(description="The moment of the snapshot.")
    transfers: int = strawberry.field(description="How many transfers were recomputed.")
    findings: list[Finding] = strawberry.field(description="What is wrong; empty when all is well.")


@strawberry.type(description="A process, queue or connection that the platform needs.")
class ComponentStatus:
    """One component's state."""

    name: str = strawberry.field(description="Its name.")
    ok: bool = strawberry.field(description="Whether it does its work.")
    detail: str = strawberry.field(description="What there is to say of it: since when, how much.")
    lag_seconds: float | None = strawberry.field(description="How far behind it is, where that means something.")


@strawberry.type(description="The state of the system, as the process that answers sees it.")
class SystemStatus:
    """One process's view."""

    version: str = strawberry.field(description="The version that runs.")
    development: bool = strawberry.field(description="Whether it runs in development mode.")
    started_at: datetime = strawberry.field(description="When the answering process started.")
    components: list[ComponentStatus] = strawberry.field(description="What it needs, and how that is.")


def show_account(row: AccountRow) -> Account:
    """An account as admins see it."""
    return Account(
        id=node_id("Account", row.id), email=row.email, frozen=row.frozen, created_at=row.created_at, key=row.id
    )


def show_audit_entry(row: AuditEntryRow) -> AuditEntry:
    """A row of the audit log."""
    return AuditEntry(
        id=node_id("AuditEntry", row.id),
        at=row.at,
        actor=row.actor,
        action=row.action,
        target=row.target,
        reason=row.reason,
        before=row.before,
        after=row.after,
        hash=row.hash,
    )


def show_report(report: Report) -> Reconciliation:
    """An audit's report."""
    return Reconciliation(
        ok=report.ok,
        checked_at=report.checked_at,
        transfers=report.transfers,
        findings=[
            Finding(check=f.check, subject=f.subject, expected=f.expected, actual=f.actual) for f in report.findings
        ],
    )


def show_system(view: SystemView) -> SystemStatus:
    """The state of the system."""
    return SystemStatus(
        version=view.version,
        development=view.development,
        started_at=view.started_at,
        components=[
            ComponentStatus(name=each.name, ok=each.ok, detail=each.detail, lag_seconds=each.lag_seconds)
            for each in view.components
        ],
    )
