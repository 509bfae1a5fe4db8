"""Signing up, logging in and out, API keys, requests for assets, test funds."""

from datetime import timedelta
from typing import Annotated

import strawberry
from strawberry import UNSET

from api.access import account_of
from api.context import Info, writing
from api.fields import computed
from api.inputs import given
from api.node_ids import key_or_nothing
from api.scalars import Decimal
from api.types.accounts import (
    ApiKey,
    AssetRequest,
    Session,
    Viewer,
    load_viewer,
    show_api_key,
    show_asset_request,
    show_session,
)
from api.types.refusals import USER_ERRORS, UserError, made_by, refusable
from app.accounts.api_keys import create_api_key, revoke_api_key
from app.accounts.asset_requests import submit_asset_request
from app.accounts.dev_fund import dev_fund
from app.accounts.emails import known_spelling
from app.accounts.principals import Anonymous, Scope
from app.accounts.sessions import LoggedIn, log_in, log_out, prove_account
from app.accounts.sign_up import prepare_sign_up, sign_up
from app.errors import Unauthenticated
from app.ledger.currencies import Currency


@strawberry.input(description="A new account.")
class SignUpInput:
    """Checked by `prepare_sign_up`."""

    email: str = strawberry.field(description="The e-mail to log in with; case does not matter.")
    password: str = strawberry.field(description="At least 8 characters, and not a common one.")


@strawberry.input(description="An account's e-mail and password.")
class LogInInput:
    """Checked by `prove_account`."""

    email: str = strawberry.field(description="The e-mail, in any case of letters.")
    password: str = strawberry.field(description="The password.")


@strawberry.type(description="A new session and the account it belongs to.")
class SessionPayload:
    """`account` is the account that this request has proven to be the caller's."""

    session: Session | None = strawberry.field(default=None, description="The session; null if it was refused.")
    user_errors: list[UserError] = strawberry.field(default_factory=list, description=USER_ERRORS)
    account: strawberry.Private[int | None] = None

    @computed("The account; null if it was refused.")
    async def viewer(self, info: Info) -> Viewer | None:
        return None if self.account is None else await load_viewer(info, self.account)


@strawberry.type(description="The end of a session.")
class LogOutPayload:
    """Nothing can be refused here."""

    ok: bool = strawberry.field(description="Always true: the session has ended.")


@strawberry.input(description="A new API key.")
class ApiKeyCreateInput:
    """Checked by `create_api_key`."""

    name: str = strawberry.field(description="What to call it, 1 to 64 characters.")
    scopes: list[Scope] = strawberry.field(description="What it may do; at least one scope.")


@strawberry.type(description="A new API key with its secret.")
class ApiKeyCreatePayload:
    """The only place where a secret is shown."""

    api_key: ApiKey | None = strawberry.field(default=None, description="The key; null if it was refused.")
    secret: str | None = strawberry.field(
        default=None, description="The secret, to be sent as `Authorization: Bearer ...`. It is shown only here."
    )
    user_errors: list[UserError] = strawberry.field(default_factory=list, description=USER_ERRORS)


@strawberry.type(description="An API key that no longer works.")
class ApiKeyRevokePayload:
    """Refused at its next request."""

    api_key: ApiKey | None = strawberry.field(default=None, description="The key; null if it was refused.")
    user_errors: list[UserError] = strawberry.field(default_factory=list, description=USER_ERRORS)


@strawberry.input(description="A wish for an asset.")
class AssetRequestSubmitInput:
    """Checked by `submit_asset_request`."""

    name: str = strawberry.field(description="What it should be called, 1 to 80 characters.")
    description: str = strawberry.field(description="What it should track, 1 to 2,000 characters.")
    source_hint: str | None = strawberry.field(
        default=UNSET, description="Where its data could come from, at most 500 characters."
    )
    idempotency_key: str = strawberry.field(
        description="Your key for this request, 1 to 64 printable ASCII characters; the same key does it once."
    )


@strawberry.type(description="A request for an asset.")
class AssetRequestPayload:
    """Submitted, or reviewed."""

    asset_request: AssetRequest | None = strawberry.field(
        default=None, description="The request; null if it was refused."
    )
    user_errors: list[UserError] = strawberry.field(default_factory=list, description=USER_ERRORS)


@strawberry.input(description="Test funds from nowhere, only where the server runs in development mode.")
class DevFundInput:
    """Checked by `dev_fund`."""

    currency: Currency = strawberry.field(default=Currency.USDC, description="The currency.")
    amount: Decimal = strawberry.field(description="How much, up to 10^9, at most 6 decimals.")
    idempotency_key: str = strawberry.field(
        description="Your key for this request, 1 to 64 printable ASCII characters; the same key does it once."
    )


@strawberry.type(description="What test funds have done.")
class DevFundPayload:
    """`account` is the account that got them."""

    user_errors: list[UserError] = strawberry.field(default_factory=list, description=USER_ERRORS)
    account: strawberry.Private[int | None] = None

    @computed("The account now; null if it was refused. Takes the scope READ.")
    async def viewer(self, info: Info) -> Viewer | None:
        return None if self.account is None else await load_viewer(info, self.account)


@strawberry.type
class AccountMutations:
    """What people and bots do with their own accounts, apart from trading."""

    @computed("Makes an account and a first session.")
    @refusable(SessionPayload)
    async def sign_up(
        self,
        info: Info,
        account: Annotated[SignUpInput, strawberry.argument(name="input", description="The account.")],
    ) -> SessionPayload:
        services = info.context.services
        await services.rate_limiter.sign_up(client_ip=info.context.client_ip)
        new = await prepare_sign_up(hasher=services.hasher, email=account.email, password=account.password)
        async with writing(info) as unit:
            logged_in = await sign_up(unit=unit, account=new, session_lifetime=_lifetime(info))
        return _begun(logged_in)

    @computed("Begins a session of an account.")
    @refusable(SessionPayload)
    async def log_in(
        self,
        info: Info,
        credentials: Annotated[LogInInput, strawberry.argument(name="input", description="Who you are.")],
    ) -> SessionPayload:
        services = info.context.services
        identity = known_spelling(credentials.email) or credentials.email
        await services.rate_limiter.log_in(client_ip=info.context.client_ip, identity=identity)
        proven = await prove_account(
            database=services.database, hasher=services.hasher, email=credentials.email, password=credentials.password
        )
        async with writing(info) as unit:
            logged_in = await log_in(unit=unit, proven=proven, lifetime=_lifetime(info))
        return _begun(logged_in)

    @computed("Ends the session that asks, an account's or an admin's, after what it has under way.")
    async def log_out(self, info: Info) -> LogOutPayload:
        principal = info.context.principal
        if isinstance(principal, Anonymous):
            raise Unauthenticated("There is no session to end: this request has no token.")
        async with writing(info) as unit:
            await log_out(unit=unit, principal=principal)
        return LogOutPayload(ok=True)

    @computed("Makes an API key. Takes a session, never a key.")
    @refusable(ApiKeyCreatePayload)
    async def api_key_create(
        self,
        info: Info,
        key: Annotated[ApiKeyCreateInput, strawberry.argument(name="input", description="The key.")],
    ) -> ApiKeyCreatePayload:
        principal = account_of(info.context.principal)
        async with writing(info) as unit:
            made = await create_api_key(unit=unit, principal=principal, name=key.name, scopes=key.scopes)
        return ApiKeyCreatePayload(api_key=show_api_key(made.api_key), secret=made.secret)

    @computed("Ends an API key: it is refused at its next request. Takes a session, never a key.")
    @refusable(ApiKeyRevokePayload)
    async def api_key_revoke(
        self,
        info: Info,
        id: Annotated[strawberry.ID, strawberry.argument(description="The key's id.")],  # noqa: A002
    ) -> ApiKeyRevokePayload:
        principal = account_of(info.context.principal)
        async with writing(info) as unit:
            key = await revoke_api_key(unit=unit, principal=principal, api_key_id=key_or_nothing(id, "ApiKey"))
        return ApiKeyRevokePayload(api_key=show_api_key(key))

    @computed("Asks for an asset to be made; an admin reviews it. Takes the scope TRADE.")
    @refusable(AssetRequestPayload)
    async def asset_request_submit(
        self,
        info: Info,
        request: Annotated[AssetRequestSubmitInput, strawberry.argument(name="input", description="The request.")],
    ) -> AssetRequestPayload:
        async with writing(info) as unit:
            outcome = await submit_asset_request(
                unit=unit,
                principal=account_of(info.context.principal),
                name=request.name,
                description=request.description,
                source_hint=given(request.source_hint),
                idempotency_key=request.idempotency_key,
            )
        row = await info.context.loaders.asset_requests.load(made_by(outcome))
        return AssetRequestPayload(asset_request=None if row is None else show_asset_request(row))

    @computed("Test funds, only where the server runs in development mode. Takes the scope TRADE.")
    @refusable(DevFundPayload)
    async def dev_fund(
        self,
        info: Info,
        fund: Annotated[DevFundInput, strawberry.argument(name="input", description="How much of what.")],
    ) -> DevFundPayload:
        principal = account_of(info.context.principal)
        async with writing(info) as unit:
            outcome = await dev_fund(
                unit=unit,
                principal=principal,
                currency=fund.currency,
                amount=fund.amount,
                idempotency_key=fund.idempotency_key,
                development=info.context.services.settings.development,
                bus=info.context.services.bus,
            )
        made_by(outcome)
        return DevFundPayload(account=principal.account_id)


def _lifetime(info: Info) -> timedelta:
    return timedelta(hours=info.context.services.settings.session_hours)


def _begun(logged_in: LoggedIn) -> SessionPayload:
    return SessionPayload(session=show_session(logged_in.session), account=logged_in.account_id)
