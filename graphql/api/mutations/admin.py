"""What admins do: assets, requests, accounts, the platform-wide pause. Each goes into the audit log with its reason."""

from datetime import timedelta
from typing import Annotated

import strawberry
from strawberry import UNSET

from api.access import admin_of
from api.context import Info, writing
from api.fields import computed
from api.inputs import given
from api.mutations.accounts import AssetRequestPayload
from api.node_ids import key_or_nothing
from api.scalars import Decimal
from api.types.accounts import Session, show_asset_request, show_session
from api.types.admin import Account, show_account
from api.types.markets import Asset, load_asset
from api.types.platform import Platform, show_platform
from api.types.refusals import USER_ERRORS, UserError, made_by, refusable
from app.accounts.sessions import admin_log_in, admin_password_hashes, prove_admin
from app.admin.accounts import freeze_account
from app.admin.asset_input import UNCHANGED, AssetChanges, NewAsset, Unchanged
from app.admin.assets import create_asset, set_asset_status, update_asset
from app.admin.pause import pause_trading
from app.admin.requests import review_asset_request
from app.exchange.assets import AssetStatus
from app.ledger.currencies import Currency

REASON = "Why, for the audit log: 1 to 500 characters."


@strawberry.input(description="An admin's name and password.")
class AdminLogInInput:
    """Checked by `prove_admin`."""

    name: str = strawberry.field(default="admin", description="The admin's name.")
    password: str = strawberry.field(description="The password.")


@strawberry.type(description="A new session of an admin. It is short.")
class AdminSessionPayload:
    """One of the two."""

    session: Session | None = strawberry.field(default=None, description="The session; null if it was refused.")
    user_errors: list[UserError] = strawberry.field(default_factory=list, description=USER_ERRORS)


@strawberry.input(description="A new asset.")
class AssetCreateInput:
    """Checked by `create_asset`."""

    symbol: str = strawberry.field(
        description=(
            "Unique, 1 to 16 of A-Z, 0-9, point, underscore and hyphen, beginning with a letter; not a currency's."
        )
    )
    name: str = strawberry.field(description="1 to 80 characters.")
    description: str = strawberry.field(
        description="What it tracks, and how a value of that maps to a price: 1 to 4,000 characters."
    )
    category: str = strawberry.field(description="Free-form, such as WEATHER, MACRO, TECH: 1 to 40 characters.")
    quote_currency: Currency = strawberry.field(default=Currency.USDC, description="The currency to trade it in.")
    base_price: Decimal = strawberry.field(
        default=Decimal("1"), description="The price at supply 0: 0.000001 to 10^9, at most 12 decimals."
    )
    slope: Decimal = strawberry.field(
        default=Decimal("0.005"),
        description="How much the price rises with each share: 10^-18 to 10^6, at most 18 decimals.",
    )
    fee_rate: Decimal = strawberry.field(
        default=Decimal("0.005"), description="The fee as a part of gross: 0 to 0.1, at most 9 decimals."
    )
    max_shares_per_account: Decimal | None = strawberry.field(
        default=UNSET, description="The most shares that an account may hold; no limit if left out."
    )
    max_redemption_per_day: Decimal | None = strawberry.field(
        default=UNSET,
        description=(
            "The most, in gross quote currency, that an account may sell for in a UTC day; no limit if left out."
        ),
    )
    fundamental_weight: Decimal = strawberry.field(
        default=Decimal("0.2"), description="Price model: the weight of a new reading in F, above 0 to 1."
    )
    volume_scale: Decimal = strawberry.field(
        default=Decimal("1000"),
        description="Price model: V0, the recent volume in quote currency at which M begins to outweigh F; above 0.",
    )
    volume_half_life_seconds: int = strawberry.field(
        default=900, description="Price model: after how long recent volume counts half, in seconds; 1 to 31,536,000."
    )
    status: AssetStatus = strawberry.field(default=AssetStatus.OPEN, description="The status to begin with.")
    request_id: strawberry.ID | None = strawberry.field(
        default=UNSET, description="The request that it is made for, which it approves."
    )
    idempotency_key: str = strawberry.field(
        description="Your key for this request, 1 to 64 printable ASCII characters; the same key does it once."
    )


@strawberry.type(description="An asset that was made or changed.")
class AssetPayload:
    """One of the two."""

    asset: Asset | None = strawberry.field(default=None, description="The asset now; null if it was refused.")
    user_errors: list[UserError] = strawberry.field(default_factory=list, description=USER_ERRORS)


@strawberry.input(
    description=(
        "Changes to an asset's text, limits, fee and price model; what is left out stays. basePrice and slope only "
        "while supply is 0. Of the two limits, null takes one away."
    )
)
class AssetUpdateInput:
    """Checked by `update_asset`."""

    asset_id: strawberry.ID = strawberry.field(description="The asset's id.")
    name: str | None = strawberry.field(default=UNSET, description="1 to 80 characters.")
    description: str | None = strawberry.field(default=UNSET, description="1 to 4,000 characters.")
    category: str | None = strawberry.field(default=UNSET, description="1 to 40 characters.")
    fee_rate: Decimal | None = strawberry.field(default=UNSET, description="0 to 0.1, at most 9 decimals.")
    max_shares_per_account: Decimal | None = strawberry.field(
        default=UNSET, description="The most shares that an account may hold; null for no limit."
    )
    max_redemption_per_day: Decimal | None = strawberry.field(
        default=UNSET,
        description="The most, in gross quote currency, that an account may sell for in a UTC day; null for no limit.",
    )
    fundamental_weight: Decimal | None = strawberry.field(
        default=UNSET, description="The weight of a new reading in F, above 0 to 1."
    )
    volume_scale: Decimal | None = strawberry.field(default=UNSET, description="V0, above 0.")
    volume_half_life_seconds: int | None = strawberry.field(
        default=UNSET, description="After how long recent volume counts half, in seconds; 1 to 31,536,000."
    )
    base_price: Decimal | None = strawberry.field(
        default=UNSET, description="Only while supply is 0: 0.000001 to 10^9, at most 12 decimals."
    )
    slope: Decimal | None = strawberry.field(
        default=UNSET, description="Only while supply is 0: 10^-18 to 10^6, at most 18 decimals."
    )
    reason: str = strawberry.field(description=REASON)


@strawberry.input(description="An asset's new status.")
class AssetSetStatusInput:
    """Checked by `set_asset_status`."""

    asset_id: strawberry.ID = strawberry.field(description="The asset's id.")
    status: AssetStatus = strawberry.field(description="The status; DELISTED is reserved.")
    reason: str = strawberry.field(description="Why, for the audit log and as statusReason: 1 to 500 characters.")


@strawberry.input(description="An account to freeze, or to let go on.")
class AccountFreezeInput:
    """Checked by `freeze_account`."""

    account_id: strawberry.ID = strawberry.field(description="The account's id.")
    frozen: bool = strawberry.field(description="true freezes it: it reads, and moves nothing.")
    reason: str = strawberry.field(description=REASON)


@strawberry.type(description="An account that was changed.")
class AccountPayload:
    """One of the two."""

    account: Account | None = strawberry.field(default=None, description="The account now; null if it was refused.")
    user_errors: list[UserError] = strawberry.field(default_factory=list, description=USER_ERRORS)


@strawberry.input(description="A decision on a request for an asset.")
class AssetRequestReviewInput:
    """Checked by `review_asset_request`."""

    request_id: strawberry.ID = strawberry.field(description="The request's id.")
    approve: bool = strawberry.field(description="true approves it; assetCreate with its id makes the asset.")
    notes: str | None = strawberry.field(default=UNSET, description="What to tell who asked, at most 2,000 characters.")


@strawberry.input(description="A stop of all trading, or its end.")
class TradingPauseInput:
    """Checked by `pause_trading`."""

    paused: bool = strawberry.field(description="true stops every trade; false lets trading go on.")
    reason: str = strawberry.field(description="Why, for the audit log and for everybody: 1 to 500 characters.")


@strawberry.type(description="The platform after a pause, or its end.")
class TradingPausePayload:
    """One of the two."""

    platform: Platform | None = strawberry.field(default=None, description="The platform now; null if it was refused.")
    user_errors: list[UserError] = strawberry.field(default_factory=list, description=USER_ERRORS)


@strawberry.type
class AdminMutations:
    """For admins, but for the log-in."""

    @computed("Begins a session of an admin. It is short.")
    @refusable(AdminSessionPayload)
    async def admin_log_in(
        self,
        info: Info,
        credentials: Annotated[AdminLogInInput, strawberry.argument(name="input", description="Who you are.")],
    ) -> AdminSessionPayload:
        services = info.context.services
        await services.rate_limiter.admin_log_in(client_ip=info.context.client_ip, name=credentials.name)
        proven = await prove_admin(
            hasher=services.hasher,
            password_hashes=admin_password_hashes(services.settings),
            name=credentials.name,
            password=credentials.password,
        )
        async with writing(info) as unit:
            lifetime = timedelta(minutes=services.settings.admin_session_minutes)
            logged_in = await admin_log_in(unit=unit, proven=proven, lifetime=lifetime)
        return AdminSessionPayload(session=show_session(logged_in.session))

    @computed("Makes an asset, once for each idempotencyKey.")
    @refusable(AssetPayload)
    async def asset_create(
        self,
        info: Info,
        asset: Annotated[AssetCreateInput, strawberry.argument(name="input", description="The asset.")],
    ) -> AssetPayload:
        request_id = given(asset.request_id)
        async with writing(info) as unit:
            outcome = await create_asset(
                unit=unit,
                principal=admin_of(info.context.principal),
                new=_new_asset(asset),
                request_id=None if request_id is None else key_or_nothing(request_id, "AssetRequest"),
                idempotency_key=asset.idempotency_key,
                bus=info.context.services.bus,
            )
        return AssetPayload(asset=await load_asset(info, made_by(outcome)))

    @computed("Changes an asset's text, limits, fee and price model, and its curve while nobody holds shares.")
    @refusable(AssetPayload)
    async def asset_update(
        self,
        info: Info,
        changes: Annotated[AssetUpdateInput, strawberry.argument(name="input", description="What changes, and why.")],
    ) -> AssetPayload:
        async with writing(info) as unit:
            asset_id = await update_asset(
                unit=unit,
                principal=admin_of(info.context.principal),
                asset_id=key_or_nothing(changes.asset_id, "Asset"),
                changes=_changes(changes),
                reason=changes.reason,
                bus=info.context.services.bus,
            )
        return AssetPayload(asset=await load_asset(info, asset_id))

    @computed("Sets what may be done with an asset. No trade under way ends later.")
    @refusable(AssetPayload)
    async def asset_set_status(
        self,
        info: Info,
        change: Annotated[AssetSetStatusInput, strawberry.argument(name="input", description="The status, and why.")],
    ) -> AssetPayload:
        async with writing(info) as unit:
            asset_id = await set_asset_status(
                unit=unit,
                principal=admin_of(info.context.principal),
                asset_id=key_or_nothing(change.asset_id, "Asset"),
                status=change.status,
                reason=change.reason,
                bus=info.context.services.bus,
            )
        return AssetPayload(asset=await load_asset(info, asset_id))

    @computed("Approves or rejects a request for an asset that is PENDING.")
    @refusable(AssetRequestPayload)
    async def asset_request_review(
        self,
        info: Info,
        review: Annotated[AssetRequestReviewInput, strawberry.argument(name="input", description="The decision.")],
    ) -> AssetRequestPayload:
        async with writing(info) as unit:
            request = await review_asset_request(
                unit=unit,
                principal=admin_of(info.context.principal),
                request_id=key_or_nothing(review.request_id, "AssetRequest"),
                approve=review.approve,
                notes=given(review.notes),
            )
        return AssetRequestPayload(asset_request=show_asset_request(request))

    @computed("Freezes an account, after what it has under way, or lets it go on.")
    @refusable(AccountPayload)
    async def account_freeze(
        self,
        info: Info,
        change: Annotated[AccountFreezeInput, strawberry.argument(name="input", description="Which account, and why.")],
    ) -> AccountPayload:
        async with writing(info) as unit:
            account = await freeze_account(
                unit=unit,
                principal=admin_of(info.context.principal),
                account_id=key_or_nothing(change.account_id, "Account"),
                frozen=change.frozen,
                reason=change.reason,
            )
        return AccountPayload(account=show_account(account))

    @computed("Stops every trade on the platform at once, or lets trading go on.")
    @refusable(TradingPausePayload)
    async def trading_pause(
        self,
        info: Info,
        change: Annotated[TradingPauseInput, strawberry.argument(name="input", description="Stop or go, and why.")],
    ) -> TradingPausePayload:
        async with writing(info) as unit:
            state = await pause_trading(
                unit=unit,
                principal=admin_of(info.context.principal),
                paused=change.paused,
                reason=change.reason,
            )
        return TradingPausePayload(platform=show_platform(state))


def _new_asset(asset: AssetCreateInput) -> NewAsset:
    return NewAsset(
        symbol=asset.symbol,
        name=asset.name,
        description=asset.description,
        category=asset.category,
        quote_currency=asset.quote_currency,
        base_price=asset.base_price,
        slope=asset.slope,
        fee_rate=asset.fee_rate,
        max_shares_per_account=given(asset.max_shares_per_account),
        max_redemption_per_day=given(asset.max_redemption_per_day),
        fundamental_weight=asset.fundamental_weight,
        volume_scale=asset.volume_scale,
        volume_half_life_seconds=asset.volume_half_life_seconds,
        status=asset.status,
    )


def _changes(changes: AssetUpdateInput) -> AssetChanges:
    return AssetChanges(
        name=given(changes.name),
        description=given(changes.description),
        category=given(changes.category),
        fee_rate=given(changes.fee_rate),
        max_shares_per_account=_limit(changes.max_shares_per_account),
        max_redemption_per_day=_limit(changes.max_redemption_per_day),
        fundamental_weight=given(changes.fundamental_weight),
        volume_scale=given(changes.volume_scale),
        volume_half_life_seconds=given(changes.volume_half_life_seconds),
        base_price=given(changes.base_price),
        slope=given(changes.slope),
    )


def _limit(value: Decimal | None) -> Decimal | Unchanged | None:
    """A limit that was left out stays; null takes it away."""
    return UNCHANGED if value is UNSET else value
