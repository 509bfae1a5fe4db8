"""What admins do with oracles: configure, ask for a reading, set F by hand, end quarantines. All of it is audited."""

from datetime import datetime
from typing import Annotated

import strawberry
from strawberry import UNSET

from api.access import admin_of
from api.context import Info, writing
from api.fields import computed
from api.inputs import given
from api.mutations.admin import REASON, AssetPayload
from api.node_ids import key_or_nothing
from api.scalars import Decimal
from api.types.markets import load_asset
from api.types.oracle import OracleReport, load_oracle_report
from api.types.refusals import USER_ERRORS, UserError, made_by, refusable
from app.admin.oracle_input import FeedForm, OracleForm, SearchForm
from app.admin.oracles import configure_oracle, override_oracle, resolve_oracle_quarantine, run_oracle


@strawberry.input(
    description="A web search read by a language model, which asks for one number: that number is the price."
)
class SearchOracleInput:
    """Checked by `configure_oracle`."""

    queries: list[str] = strawberry.field(description="What to search for: 1 to 10 texts of 1 to 200 characters.")
    question: str = strawberry.field(
        description='What the pages are asked, such as "How many ...?": 1 to 1,000 characters.'
    )
    unit: str = strawberry.field(
        description='The unit of the number, such as "USD" or "thousand employees": 1 to 60 characters.'
    )
    allowed_domains: list[str] | None = strawberry.field(
        default=UNSET,
        description=(
            'Registrable domains such as "example.com", 1 to 50: pages of others do not count. Any if left out.'
        ),
    )
    min_sources: int = strawberry.field(
        default=2, description="How many different domains must say so: 1 to 10, at most as many as are allowed."
    )
    max_delta_percent: Decimal = strawberry.field(
        default=Decimal("10"),
        description=(
            "How far from F a reading may be to be taken at once, in percent of F: above 0 to 100, at most 9 decimals. "
            "One beyond it is quarantined."
        ),
    )
    min_confidence: Decimal = strawberry.field(
        default=Decimal("0.6"), description="How sure the language model must be: 0 to 1, at most 9 decimals."
    )


@strawberry.input(
    description=(
        "A numeric source: a JSON document on the web, or a bundled series that is replayed. price = value * scale + "
        "offset, which must lie in 0.000001 to 1,000,000,000."
    )
)
class FeedOracleInput:
    """Checked by `configure_oracle`."""

    url: str | None = strawberry.field(
        default=UNSET,
        description=(
            "Of the JSON document, http or https, at most 2,000 characters; goes with jsonPath. Reports show it to "
            "everybody: no secrets in it."
        ),
    )
    json_path: str | None = strawberry.field(
        default=UNSET,
        description='The JSONPath (RFC 9535) of the number, such as "$.data.rate": at most 500 characters.',
    )
    series: str | None = strawberry.field(
        default=UNSET, description="The name of a bundled series, such as us-employment; goes with column."
    )
    column: str | None = strawberry.field(default=UNSET, description="The series' column, or source.")
    scale: Decimal = strawberry.field(default=Decimal("1"), description="What a value is multiplied by; not 0.")
    offset: Decimal = strawberry.field(default=Decimal("0"), description="What is added to it then.")
    twap_minutes: int | None = strawberry.field(
        default=UNSET,
        description="The average over so many minutes, weighted by time, in place of the last value: 1 to 1,440.",
    )
    max_delta_percent: Decimal = strawberry.field(
        default=Decimal("10"),
        description=(
            "How far from F a reading may be, in percent of F: above 0 to 100, at most 9 decimals. One beyond it is "
            "cut to it."
        ),
    )


@strawberry.input(description="What an asset's oracle is to follow: either search or feeds.")
class OracleConfigureInput:
    """Checked by `configure_oracle`."""

    asset_id: strawberry.ID = strawberry.field(description="The asset's id.")
    search: SearchOracleInput | None = strawberry.field(
        default=UNSET, description="Web search read by a language model; not together with feeds."
    )
    feeds: list[FeedOracleInput] | None = strawberry.field(
        default=UNSET, description="One to ten numeric sources, of several the median; not together with search."
    )
    min_feeds: int = strawberry.field(
        default=1, description="How many of the feeds must answer for a reading to count: 1 to their number."
    )
    cadence_seconds: int | None = strawberry.field(
        default=UNSET,
        description=(
            "The time between readings: 2 to 86,400 for feeds, 15 to 86,400 for a search. If left out, 5 to 15 minutes "
            "by trading for a search, a minute for feeds, a few seconds for bundled series."
        ),
    )
    reason: str = strawberry.field(description=REASON)


@strawberry.input(description="A price to set F to, and to hold it at.")
class OracleOverrideInput:
    """Checked by `override_oracle`."""

    asset_id: strawberry.ID = strawberry.field(description="The asset's id.")
    fundamental: Decimal = strawberry.field(
        description="F from now on: 0.000001 to 1,000,000,000, at most 12 decimals."
    )
    reason: str = strawberry.field(description=REASON)
    expires_at: datetime | None = strawberry.field(
        default=UNSET,
        description=(
            "When F goes on by itself, at most a year from now; if left out, with another override or oracleConfigure."
        ),
    )
    idempotency_key: str = strawberry.field(
        description="Your key for this request, 1 to 64 printable ASCII characters; the same key does it once."
    )


@strawberry.type(description="A reading that was asked for.")
class OracleRunPayload:
    """One of the two."""

    queued_at: datetime | None = strawberry.field(
        default=None, description="When it was queued; null if it was refused."
    )
    user_errors: list[UserError] = strawberry.field(default_factory=list, description=USER_ERRORS)


@strawberry.type(description="A report that was made or changed.")
class OracleReportPayload:
    """One of the two."""

    report: OracleReport | None = strawberry.field(default=None, description="The report now; null if it was refused.")
    user_errors: list[UserError] = strawberry.field(default_factory=list, description=USER_ERRORS)


@strawberry.type
class OracleMutations:
    """For admins."""

    @computed(
        "Gives an asset its oracle, or another one in its place. The first reading is due at once; an override ends, "
        "and what is in quarantine is rejected."
    )
    @refusable(AssetPayload)
    async def oracle_configure(
        self,
        info: Info,
        oracle: Annotated[
            OracleConfigureInput, strawberry.argument(name="input", description="What to follow, and why.")
        ],
    ) -> AssetPayload:
        services = info.context.services
        async with writing(info) as unit:
            asset_id = await configure_oracle(
                unit=unit,
                principal=admin_of(info.context.principal),
                asset_id=key_or_nothing(oracle.asset_id, "Asset"),
                form=_form(oracle),
                reason=oracle.reason,
                allow_private=services.settings.oracle_allow_private,
                series_speed=services.settings.oracle_series_speed,
                bus=services.bus,
            )
        return AssetPayload(asset=await load_asset(info, asset_id))

    @computed("Queues a reading out of turn; the outcome comes by oracleReports. At most one a minute and asset.")
    @refusable(OracleRunPayload)
    async def oracle_run(
        self, info: Info, asset_id: Annotated[strawberry.ID, strawberry.argument(description="The asset's id.")]
    ) -> OracleRunPayload:
        async with writing(info) as unit:
            queued_at = await run_oracle(
                unit=unit,
                principal=admin_of(info.context.principal),
                asset_id=key_or_nothing(asset_id, "Asset"),
                bus=info.context.services.bus,
            )
        return OracleRunPayload(queued_at=queued_at)

    @computed("Sets F at once and holds it, once for each idempotencyKey. No reading moves it meanwhile.")
    @refusable(OracleReportPayload)
    async def oracle_override(
        self,
        info: Info,
        override: Annotated[
            OracleOverrideInput, strawberry.argument(name="input", description="The price, until when, and why.")
        ],
    ) -> OracleReportPayload:
        async with writing(info) as unit:
            outcome = await override_oracle(
                unit=unit,
                principal=admin_of(info.context.principal),
                asset_id=key_or_nothing(override.asset_id, "Asset"),
                fundamental=override.fundamental,
                reason=override.reason,
                expires_at=given(override.expires_at),
                idempotency_key=override.idempotency_key,
                bus=info.context.services.bus,
            )
        return OracleReportPayload(report=await load_oracle_report(info, made_by(outcome)))

    @computed("Ends a quarantine: takes the reading's price into F, whatever the caps, or rejects it.")
    @refusable(OracleReportPayload)
    async def oracle_quarantine_resolve(
        self,
        info: Info,
        *,
        report_id: Annotated[strawberry.ID, strawberry.argument(description="The report's id.")],
        accept: Annotated[bool, strawberry.argument(description="true takes its price, false rejects it.")],
        reason: Annotated[str, strawberry.argument(description=REASON)],
    ) -> OracleReportPayload:
        async with writing(info) as unit:
            resolved = await resolve_oracle_quarantine(
                unit=unit,
                principal=admin_of(info.context.principal),
                report_id=key_or_nothing(report_id, "OracleReport"),
                accept=accept,
                reason=reason,
                bus=info.context.services.bus,
            )
        return OracleReportPayload(report=await load_oracle_report(info, resolved))


def _form(oracle: OracleConfigureInput) -> OracleForm:
    search, feeds = given(oracle.search), given(oracle.feeds)
    return OracleForm(
        search=None if search is None else _search(search),
        feeds=None if feeds is None else [_feed(each) for each in feeds],
        min_feeds=oracle.min_feeds,
        cadence_seconds=given(oracle.cadence_seconds),
    )


def _search(search: SearchOracleInput) -> SearchForm:
    return SearchForm(
        queries=search.queries,
        question=search.question,
        unit=search.unit,
        allowed_domains=given(search.allowed_domains),
        min_sources=search.min_sources,
        max_delta_percent=search.max_delta_percent,
        min_confidence=search.min_confidence,
    )


def _feed(feed: FeedOracleInput) -> FeedForm:
    return FeedForm(
        url=given(feed.url),
        json_path=given(feed.json_path),
        series=given(feed.series),
        column=given(feed.column),
        scale=feed.scale,
        offset=feed.offset,
        twap_minutes=given(feed.twap_minutes),
        max_delta_percent=feed.max_delta_percent,
    )
