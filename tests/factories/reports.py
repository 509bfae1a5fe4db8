"""Oracles and their reports, made by the use cases of `app.admin` and recorded as runs are."""

import hashlib
import itertools
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from app.accounts.principals import AdminPrincipal
from app.admin.oracle_input import FeedForm, OracleForm, SearchForm
from app.admin.oracles import configure_oracle, override_oracle
from app.bus import Bus
from app.db import Database
from app.oracle.kinds import Effect, Evidence, OracleMethod, OracleOutcome, Reason, Verdict
from app.oracle.reports import Draft, Report, record
from app.pricing.oracle_events import READINGS_MAX
from tests.factories.market import new_admin

UNIT: Final = 10**12
READ_AT: Final = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
_numbers = itertools.count(1)


def search_form(**values: object) -> SearchForm:
    """A good search, but for `values`."""
    form = {"queries": ["rain in Bergen"], "question": "How much did it rain?", "unit": "mm"}
    return SearchForm(**(form | values))  # type: ignore[arg-type]


def series_form(**values: object) -> FeedForm:
    """A good feed by a bundled series, but for `values`."""
    form = {"series": "seattle-weather", "column": "temp_max", "scale": "0.5", "offset": "10"}
    return FeedForm(**(form | values))  # type: ignore[arg-type]


def url_form(**values: object) -> FeedForm:
    """A good feed by a URL, but for `values`."""
    return FeedForm(**({"url": "https://rain.example/now.json", "json_path": "$.mm"} | values))  # type: ignore[arg-type]


async def configure(
    database: Database,
    asset_id: int,
    form: OracleForm | None = None,
    *,
    admin: AdminPrincipal | None = None,
    reason: str = "a test",
    bus: Bus | None = None,
) -> None:
    """Give an asset an oracle: a search, unless said otherwise."""
    principal = admin or await new_admin(database)
    async with database.transaction() as unit:
        await configure_oracle(
            unit=unit, principal=principal, asset_id=asset_id, form=form or OracleForm(search=search_form()),
            reason=reason, allow_private=False, series_speed=Decimal(1), bus=bus,
        )  # fmt: skip


async def override(
    database: Database,
    asset_id: int,
    fundamental: str = "2",
    *,
    expires_at: datetime | None = None,
    bus: Bus | None = None,
) -> int:
    """Set an asset's F as an admin; the report's id."""
    principal = await new_admin(database)
    async with database.transaction() as unit:
        outcome = await override_oracle(
            unit=unit, principal=principal, asset_id=asset_id, fundamental=fundamental, reason="a test",
            expires_at=expires_at, idempotency_key=f"override-{next(_numbers)}", bus=bus,
        )  # fmt: skip
    if outcome.id is None:
        raise AssertionError(f"the override was refused: {outcome.refusal}")
    return outcome.id


def page(number: int = 1, *, value: str | None = "12.5", counts: bool = True) -> Evidence:
    """A page that was read, with its text."""
    text = f"Page {number} says that {value} mm of rain fell."
    return Evidence(
        source=f"news{number}.example",
        url=f"https://news{number}.example/rain",
        title=f"Rain {number}",
        excerpt=text,
        content_hash=hashlib.sha256(text.encode()).hexdigest(),
        retrieved_at=READ_AT,
        text=text,
        value=value,
        counts=counts,
    )


def verdict(outcome: OracleOutcome = OracleOutcome.ACCEPTED, price: int = 2 * UNIT) -> Verdict:
    """What a reading comes to: an accepted one moves F."""
    is_accepted = outcome is OracleOutcome.ACCEPTED
    return Verdict(
        outcome=outcome,
        reasons=() if is_accepted else (Reason.DELTA_TOO_LARGE,),
        effect=Effect.MOVE if is_accepted else Effect.NONE,
        price=price,
        figure="12.5",
        delta_percent=7_500_000_000,
        move=15_000_000 if is_accepted else 0,
        confidence=800_000_000,
        summary="It rained.",
    )


async def new_report(
    database: Database,
    asset_id: int,
    outcome: OracleOutcome = OracleOutcome.ACCEPTED,
    *,
    price: int = 2 * UNIT,
    evidence: Sequence[Evidence] = (),
    bus: Bus | None = None,
) -> Report:
    """Record a run of a search as a worker does. The asset has an oracle already."""
    (report,) = await new_reports(database, [asset_id], outcome, price=price, evidence=evidence, bus=bus)
    return report


async def new_reports(
    database: Database,
    asset_ids: Sequence[int],
    outcome: OracleOutcome = OracleOutcome.ACCEPTED,
    *,
    price: int = 2 * UNIT,
    evidence: Sequence[Evidence] = (),
    bus: Bus | None = None,
) -> list[Report]:
    """One run of each of these assets, recorded together; the reports in the order of the assets' ids."""
    if len(asset_ids) > READINGS_MAX:
        raise ValueError(f"at most {READINGS_MAX} runs are recorded together")
    async with database.transaction() as unit:
        runs = await unit.connection.fetch(
            "UPDATE oracles SET run_id = run_id + 1, claimed_until = now() + interval '1 minute', last_run_at = now()"
            " WHERE asset_id = ANY($1::bigint[]) RETURNING asset_id, run_id",
            list(asset_ids),
        )
        drafts = [
            Draft(
                asset_id=run["asset_id"],
                run_id=run["run_id"],
                method=OracleMethod.SEARCH_LLM,
                verdict=verdict(outcome, price),
                evidence=tuple(evidence),
                fundamental_before=UNIT,
                model="a-model",
                prompt_hash="ab" * 32,
                inputs="{}",
                cost=1_500,
                latency_ms=3_200,
                cadence_seconds=300,
                fresh_seconds=900,
            )
            for run in sorted(runs, key=lambda run: int(run["asset_id"]))
        ]
        reports = await record(unit=unit, drafts=drafts, bus=bus)
    if len(reports) != len(asset_ids):
        raise AssertionError(f"{len(reports)} of {len(asset_ids)} runs were recorded: has each asset an oracle?")
    return reports
