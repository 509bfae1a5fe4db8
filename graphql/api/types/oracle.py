"""Oracles: how an asset's stands, its reports, and the evidence that they rest on."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Annotated, Final, TypeAlias, TypeVar

import strawberry

from api.context import Info
from api.node_ids import asset_node_id, node_id
from api.nodes import Connection, Node
from api.pagination import PAGE_MAX, connect, window_by_id
from api.scalars import Decimal, price, rate
from app.oracle.kinds import Evidence as EvidenceRow
from app.oracle.kinds import OracleMethod, OracleOutcome
from app.oracle.report_reads import OracleStatus
from app.oracle.report_rows import Report, Resolution
from app.paging import Page
from app.realtime.reports import ToldReport

F = TypeVar("F", bound=Callable[..., object])

REPORTS_DEFAULT: Final = 20

ReportsFirst: TypeAlias = Annotated[
    int | None,
    strawberry.argument(description=f"How many reports, from the newest or after; at most {PAGE_MAX}."),
]


@strawberry.type(description="How an asset's oracle stands: what supplies F, and when.")
class OracleState:
    """Computed when asked for."""

    method: OracleMethod = strawberry.field(description="What F comes from now: OVERRIDE while an admin holds it.")
    stale: bool = strawberry.field(
        description="Whether F has had no accepted reading for longer than the oracle promises."
    )
    last_accepted_at: datetime | None = strawberry.field(
        description="When F was last moved, set, or found to stand; null before that."
    )
    next_due_at: datetime | None = strawberry.field(
        description="When the next reading is due, perhaps a moment ago; null while none is."
    )
    cadence_seconds: int = strawberry.field(description="The time between readings, as it was chosen last.")


@strawberry.type(description="What a reading was judged by: a page, or a feed's answer.")
class Evidence:
    """Part of a report, in its order."""

    url: str = strawberry.field(description="Where it was read.")
    title: str | None = strawberry.field(description="The page's title, where it has one.")
    excerpt: str = strawberry.field(
        description="The words that the value stands in, or the beginning of what was read where none was found."
    )
    content_hash: str = strawberry.field(
        description="SHA-256, in hexadecimal, of the text that was judged; of the excerpt itself for a feed."
    )
    retrieved_at: datetime = strawberry.field(description="When it was read.")
    value: Decimal | None = strawberry.field(
        description="What was read there, in the oracle's unit; null where nothing was."
    )
    source: str = strawberry.field(
        description="Whose it is: the page's registrable domain, or the feed's name. Sources are counted by it."
    )
    counts: bool = strawberry.field(description="Whether the reading rests on it.")
    body_url: str | None = strawberry.field(
        description="Where a copy of what was read is kept; null where none is kept outside of this platform."
    )


def _preloaded(description: str) -> Callable[[F], F]:
    """A field whose method answers a list of evidence, or an awaitable of it."""
    decorate: Callable[[F], F] = strawberry.field(description=description, graphql_type=list[Evidence])
    return decorate


@strawberry.type(
    description=(
        "A reading of the variable that an asset tracks, taken or not, with the evidence that it was judged by. It "
        "never changes but for fundamentalAfter and the end of a quarantine."
    )
)
class OracleReport(Node):
    """A row of the oracle's log."""

    asset_id: strawberry.ID = strawberry.field(description="The asset's id.")
    at: datetime = strawberry.field(description="When it was judged, by the database's clock.")
    method: OracleMethod = strawberry.field(description="Where it comes from.")
    outcome: OracleOutcome = strawberry.field(description="What became of it; of a quarantine that has ended, how.")
    reasons: list[str] = strawberry.field(
        description=(
            "Why it was rejected or quarantined: LOW_CONFIDENCE, DELTA_TOO_LARGE, UNGROUNDED, TOO_FEW_SOURCES, "
            "BAD_OUTPUT, OUT_OF_RANGE or REPEAT; CLAMPED on an accepted feed reading that was cut to the cap. Expect "
            "others."
        )
    )
    delta_percent: Decimal | None = strawberry.field(
        description="How far suggestedPrice is from fundamentalBefore, in percent of that; null without a price."
    )
    suggested_price: Decimal | None = strawberry.field(
        description="The price that the reading comes to; null where nothing usable was read."
    )
    confidence: Decimal | None = strawberry.field(
        description="How sure the language model said it was, 0 to 1; null for other methods."
    )
    summary: str | None = strawberry.field(description="What the reading found, in a few words; null without any.")
    fundamental_before: Decimal = strawberry.field(description="F that it was judged against.")
    fundamental_after: Decimal | None = strawberry.field(
        description="F once the price engine has taken it; null until then, and where it changes nothing."
    )
    model: str | None = strawberry.field(description="The language model that read the pages; null without one.")
    prompt_hash: str | None = strawberry.field(
        description="SHA-256, in hexadecimal, of what the language model was asked; null without one."
    )
    expires_at: datetime | None = strawberry.field(
        description="When the quarantine, or the override, ends by itself; null for neither, and without an end."
    )
    resolution: Resolution | None = strawberry.field(
        description="How a quarantine ended; null while it lasts, and for a report that was never in one."
    )
    key: strawberry.Private[int]
    loaded: strawberry.Private[list[Evidence] | None]

    @_preloaded("What it was judged by, in the order in which it was read.")
    def evidence(self, info: Info) -> list[Evidence] | Awaitable[list[Evidence]]:
        # What a stream tells of brings its evidence along, and is encoded without waiting.
        return _load_evidence(info, self.key) if self.loaded is None else self.loaded


OracleReportConnection: TypeAlias = Connection[OracleReport]


def show_oracle_report(row: Report, evidence: Sequence[EvidenceRow] | None = None) -> OracleReport:
    """A report, with its evidence where that has been read already."""
    return OracleReport(
        id=node_id("OracleReport", row.id),
        asset_id=asset_node_id(row.asset_id),
        at=row.at,
        method=row.method,
        outcome=row.outcome,
        reasons=list(row.reasons),
        delta_percent=None if row.delta_percent is None else rate(row.delta_percent),
        suggested_price=None if row.suggested_price is None else price(row.suggested_price),
        confidence=None if row.confidence is None else rate(row.confidence),
        summary=row.summary,
        fundamental_before=price(row.fundamental_before),
        fundamental_after=None if row.fundamental_after is None else price(row.fundamental_after),
        model=row.model,
        prompt_hash=row.prompt_hash,
        expires_at=row.expires_at,
        resolution=row.resolution,
        key=row.id,
        loaded=None if evidence is None else [_show_evidence(each) for each in evidence],
    )


def show_told_report(told: ToldReport) -> OracleReport:
    """A report of a stream."""
    return show_oracle_report(told.report, told.evidence)


def show_oracle(status: OracleStatus) -> OracleState:
    """How an oracle stands."""
    return OracleState(
        method=status.method,
        stale=status.stale,
        last_accepted_at=status.last_accepted_at,
        next_due_at=status.next_due_at,
        cadence_seconds=status.cadence_seconds,
    )


async def load_oracle_reports(
    info: Info, asset_id: int, *, first: int | None, after: str | None
) -> OracleReportConnection:
    """A page of an asset's reports, newest first."""
    window = window_by_id(first=REPORTS_DEFAULT if first is None else first, after=after)
    page = await info.context.loaders.oracle_report_pages.load((asset_id, window.limit, window.after))
    return connect(
        OracleReportConnection,
        page or Page([], has_next=False, has_previous=False),
        show=show_oracle_report,
        key=lambda row: row.id,
    )


async def load_oracle_report(info: Info, report_id: int) -> OracleReport:
    """The report that something has just made or changed."""
    row = await info.context.loaders.oracle_reports.load(report_id)
    if row is None:
        raise LookupError(f"report {report_id} is referred to and does not exist")
    return show_oracle_report(row)


async def _load_evidence(info: Info, report_id: int) -> list[Evidence]:
    return [_show_evidence(each) for each in await info.context.loaders.evidence.load(report_id) or ()]


def _show_evidence(row: EvidenceRow) -> Evidence:
    return Evidence(
        url=row.url,
        title=row.title,
        excerpt=row.excerpt,
        content_hash=row.content_hash,
        retrieved_at=row.retrieved_at,
        value=None if row.value is None else Decimal(row.value),
        source=row.source,
        counts=row.counts,
        body_url=row.body_url,
    )
