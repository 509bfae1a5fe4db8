"""Builders of oracles, cases and drafts: assets with a row of `oracles`, pages that say a number, runs that ended."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from app.bus import Bus
from app.db import Database
from app.oracle.cases import FeedCase, FeedReading, Page, SearchCase, content_hash, encode_case
from app.oracle.claims import Claim
from app.oracle.configuration import (
    Configuration,
    FeedConfiguration,
    FeedsConfiguration,
    SearchConfiguration,
    encode_configuration,
)
from app.oracle.gathering import Gathered, page_evidence
from app.oracle.judgement import judge
from app.oracle.kinds import PERCENT_UNIT, Effect, Evidence, OracleMethod, OracleOutcome, Reason, Verdict
from app.oracle.reports import Draft, Report, record
from tests.factories.market import new_asset

UNIT: Final = 10**12
"""A price of 1."""
AT: Final = datetime(2026, 3, 4, 5, 6, 7, 890_123, tzinfo=UTC)
DOMAINS: Final = ("alpha.example", "beta.example", "gamma.example", "delta.example", "epsilon.example")
SEARCH: Final = SearchConfiguration(
    queries=("wheat price",),
    question="What does a bushel of wheat cost?",
    unit="USD",
    allowed_domains=None,
    min_sources=2,
    max_delta_percent=10 * PERCENT_UNIT,
    min_confidence=6 * 10**8,
)
FEED: Final = FeedConfiguration(
    url="https://feed.example/wheat",
    json_path="$.price",
    series=None,
    column=None,
    scale="1",
    offset="0",
    twap_minutes=None,
    max_delta_percent=10 * PERCENT_UNIT,
)
FEEDS: Final = FeedsConfiguration((FEED,), 1)


async def new_oracle(
    database: Database,
    *,
    configuration: Configuration = SEARCH,
    base_price: str = "1",
    cadence_seconds: int = 300,
    asset_id: int | None = None,
) -> Claim:
    """An asset whose oracle has a run under way: its claim."""
    asset_id = asset_id or await new_asset(database, base_price=base_price)
    method = OracleMethod.SEARCH_LLM if isinstance(configuration, SearchConfiguration) else OracleMethod.FEED
    async with database.acquire() as connection:
        await connection.execute(
            "INSERT INTO oracles (asset_id, method, configuration, cadence_seconds, due_at)"
            " VALUES ($1, $2, $3, $4, statement_timestamp())",
            asset_id,
            method.value,
            encode_configuration(configuration),
            cadence_seconds,
        )
    return await next_run(database, asset_id, configuration=configuration, cadence_seconds=cadence_seconds)


async def next_run(
    database: Database, asset_id: int, *, configuration: Configuration = SEARCH, cadence_seconds: int = 300
) -> Claim:
    """Claim the asset's next run, whether or not it is due."""
    async with database.acquire() as connection:
        run_id = await connection.fetchval(
            "UPDATE oracles SET run_id = run_id + 1, last_run_at = statement_timestamp(),"
            " claimed_until = statement_timestamp() + interval '3 minutes' WHERE asset_id = $1 RETURNING run_id",
            asset_id,
        )
    return Claim(asset_id, run_id, configuration, cadence_seconds, max(30, 3 * cadence_seconds))


def page(domain: str, price: str, *, text: str | None = None) -> Page:
    """A page that says the price, in words of its own."""
    said = text or f"{domain} reports that wheat traded at {price} USD today."
    return Page(f"https://www.{domain}/wheat", f"Wheat at {domain}", said, AT)


def answer(pages: Sequence[Page], price: str, *, fundamental: int = UNIT, confidence: str = "0.9") -> str:
    """A model's answer that quotes all of `pages` for one price."""
    units = round(float(price) * UNIT)
    body = {
        "quotations": [{"url": each.url, "quotation": each.text, "number": "PRICE"} for each in pages],
        "source_urls": [each.url for each in pages],
        "suggested_price": "PRICE",
        "delta_percent": round((units - fundamental) / fundamental * 100, 3),
        "confidence": float(confidence),
        "summary": f"Wheat costs {price} USD.",
    }
    return json.dumps(body).replace('"PRICE"', price)


def search_case(price: str = "1.05", *, domains: Sequence[str] = DOMAINS[:2], **values: object) -> SearchCase:
    """A search whose pages all say `price`, and whose model says so; `values` replace what is in it."""
    pages = tuple(page(domain, price) for domain in domains)
    case = SearchCase(
        configuration=SEARCH,
        fundamental=UNIT,
        is_first=False,
        at=AT,
        max_age_seconds=900,
        pages=pages,
        duplicates=(),
        output=None,
        used=(),
        pending=(),
        moved=0,
        max_moves=250_000_000,
    )
    case = replace(case, **values)  # type: ignore[arg-type]
    return replace(case, output=answer(case.pages, price, fundamental=case.fundamental))


def search_draft(claim: Claim, case: SearchCase) -> Draft:
    """What a run comes to that judged `case`."""
    verdict = judge(case)
    gathered = Gathered(case.pages, (None,) * len(case.pages), ())
    return Draft(
        asset_id=claim.asset_id,
        run_id=claim.run_id,
        method=OracleMethod.SEARCH_LLM,
        verdict=verdict,
        evidence=page_evidence(gathered, verdict),
        fundamental_before=case.fundamental,
        model="stand-in-model",
        prompt_hash="ab" * 32,
        inputs=encode_case(case),
        cost=1_500,
        latency_ms=4_321,
        cadence_seconds=claim.cadence_seconds,
        fresh_seconds=claim.fresh_seconds,
    )


def feed_case(value: str | None = "1.05", **values: object) -> FeedCase:
    """One feed that answered `value`; `values` replace what is in it."""
    reading = FeedReading(FEED.source, value, AT, (), FEED.scale, FEED.offset, None, FEED.max_delta_percent)
    case = FeedCase((reading,), 1, UNIT, False, AT, 30)
    return replace(case, **values)  # type: ignore[arg-type]


def feed_draft(claim: Claim, case: FeedCase) -> Draft:
    """What a run comes to that judged `case`."""
    verdict = judge(case)
    return Draft(
        asset_id=claim.asset_id,
        run_id=claim.run_id,
        method=OracleMethod.FEED,
        verdict=verdict,
        evidence=tuple(
            Evidence(
                source=reading.source,
                url="https://feed.example/wheat",
                title=None,
                excerpt=f"price: {reading.value}",
                content_hash=content_hash(f"price: {reading.value}"),
                retrieved_at=reading.at,
                value=verdict.values[number],
                counts=number in verdict.counted,
            )
            for number, reading in enumerate(case.readings)
        ),
        fundamental_before=case.fundamental,
        model=None,
        prompt_hash=None,
        inputs=encode_case(case),
        cost=0,
        latency_ms=12,
        cadence_seconds=claim.cadence_seconds,
        fresh_seconds=claim.fresh_seconds,
    )


def accepted(price: int = 105 * UNIT // 100, *, effect: Effect = Effect.MOVE, confirms: int | None = None) -> Verdict:
    """A verdict that applies `price`."""
    return Verdict(
        OracleOutcome.ACCEPTED, (), effect, price, "1.05", 5 * PERCENT_UNIT, 10**7, 9 * 10**8, "Up.", confirms
    )


def quarantined(price: int = 2 * UNIT) -> Verdict:
    """A verdict that waits for a second reading."""
    return Verdict(
        OracleOutcome.QUARANTINED,
        (Reason.DELTA_TOO_LARGE,),
        Effect.NONE,
        price,
        "2",
        100 * PERCENT_UNIT,
        0,
        9 * 10**8,
        "Doubled.",
    )


def rejected(*reasons: Reason, effect: Effect = Effect.NONE) -> Verdict:
    """A verdict that applies nothing."""
    return Verdict(OracleOutcome.REJECTED, reasons or (Reason.UNGROUNDED,), effect, None, None, None, 0)


def plain_draft(claim: Claim, verdict: Verdict, *, evidence: tuple[Evidence, ...] = ()) -> Draft:
    """A search that came to `verdict`, of whatever it was judged by."""
    return Draft(
        asset_id=claim.asset_id,
        run_id=claim.run_id,
        method=OracleMethod.SEARCH_LLM,
        verdict=verdict,
        evidence=evidence,
        fundamental_before=UNIT,
        model=None,
        prompt_hash=None,
        inputs="{}",
        cost=0,
        latency_ms=0,
        cadence_seconds=claim.cadence_seconds,
        fresh_seconds=claim.fresh_seconds,
    )


async def recorded(database: Database, *drafts: Draft, bus: Bus | None = None) -> list[Report]:
    """Record these together."""
    async with database.transaction() as unit:
        return await record(unit=unit, drafts=drafts, bus=bus)


async def reported(database: Database, verdict: Verdict, *, claim: Claim | None = None) -> tuple[Claim, Report]:
    """A run that came to `verdict`, recorded: of a new oracle, or the run that is under way."""
    claim = claim or await new_oracle(database)
    (report,) = await recorded(database, plain_draft(claim, verdict))
    return claim, report


async def in_the_past(database: Database, report: Report, by: timedelta) -> None:
    """As if the report had been made so long ago."""
    async with database.acquire() as connection:
        await connection.execute(
            "UPDATE oracle_logs SET at = at - $2::interval, expires_at = expires_at - $2::interval WHERE id = $1",
            report.id,
            by,
        )
