"""What admins ask: people, requests, the audit log, reconciliation, the state of the system."""

from typing import Annotated, Final

import strawberry
from strawberry import UNSET

from api.context import Info
from api.fields import computed
from api.inputs import given
from api.node_ids import key_or_nothing
from api.pagination import PAGE_DEFAULT, After, First, connect, window_by_id
from api.types.accounts import show_asset_request
from api.types.admin import (
    Account,
    AccountConnection,
    AssetRequestConnection,
    AuditEntryConnection,
    Reconciliation,
    SystemStatus,
    show_account,
    show_audit_entry,
    show_report,
    show_system,
)
from app.accounts.asset_requests import AssetRequestStatus
from app.admin.accounts import accounts_page
from app.admin.audit_log import audit_log_page
from app.admin.requests import review_page
from app.ledger.audit import audit
from app.system import system_status

RECONCILIATION_SECONDS_MAX: Final = 20.0


@strawberry.type(description="What only admins may ask.")
class AdminQuery:
    """Reached through `Query.admin` alone."""

    @computed("Everybody's requests for assets, newest first.")
    async def asset_requests(
        self,
        info: Info,
        status: Annotated[
            AssetRequestStatus | None, strawberry.argument(description="Only those of this status.")
        ] = UNSET,
        first: First = PAGE_DEFAULT,
        after: After = UNSET,
    ) -> AssetRequestConnection:
        window = window_by_id(first=first, after=after)
        async with info.context.services.database.acquire() as connection:
            page = await review_page(connection=connection, status=given(status), window=window)
        return connect(AssetRequestConnection, page, show=show_asset_request, key=lambda row: row.id)

    @computed("Accounts, newest first.")
    async def accounts(
        self,
        info: Info,
        search: Annotated[
            str | None, strawberry.argument(description="Only those with this text in the e-mail.")
        ] = UNSET,
        first: First = PAGE_DEFAULT,
        after: After = UNSET,
    ) -> AccountConnection:
        window = window_by_id(first=first, after=after)
        async with info.context.services.database.acquire() as connection:
            page = await accounts_page(connection=connection, search=given(search), window=window)
        return connect(AccountConnection, page, show=show_account, key=lambda row: row.id)

    @computed("The account with this id; null if there is none.")
    async def account(
        self,
        info: Info,
        id: Annotated[strawberry.ID, strawberry.argument(description="The account's id.")],  # noqa: A002
    ) -> Account | None:
        row = await info.context.loaders.accounts.load(key_or_nothing(id, "Account"))
        return None if row is None else show_account(row)

    @computed("What admins did, newest first.")
    async def audit_log(self, info: Info, first: First = PAGE_DEFAULT, after: After = UNSET) -> AuditEntryConnection:
        window = window_by_id(first=first, after=after)
        async with info.context.services.database.acquire() as connection:
            page = await audit_log_page(connection=connection, window=window)
        return connect(AuditEntryConnection, page, show=show_audit_entry, key=lambda row: row.id)

    @computed(
        "Recomputes every invariant from the entries, in a snapshot. After "
        f"{RECONCILIATION_SECONDS_MAX:g} s it stops and says so; `megatron audit` takes its time."
    )
    async def reconciliation(self, info: Info) -> Reconciliation:
        async with info.context.services.database.snapshot() as connection:
            return show_report(await audit(connection=connection, time_limit_s=RECONCILIATION_SECONDS_MAX))

    @computed("The state of the system, as the process that answers sees it.")
    async def system(self, info: Info) -> SystemStatus:
        return show_system(await system_status(info.context.services))


@strawberry.type
class AdminQueries:
    """The door to `AdminQuery`."""

    @computed("What only admins may ask; null for everybody else.")
    def admin(self) -> AdminQuery | None:
        return AdminQuery()
