"""Recording what runs of oracles came to: reports with their evidence, and what the price engine is told, at once.

One transaction holds all of a run: its report, evidence and texts, the oracle event, the schedule, the place of its
series. Locks are taken in one order by everybody who writes reports: rows of `oracles` by asset, texts by hash, the
assets' sequences of events, rows that belong to the asset, and the head of the stream of reports last.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from app.bus import Bus
from app.db import Connection, Unit
from app.money import PRICE_MAX, PRICE_MIN, RATE_UNIT
from app.oracle.kinds import Effect, Evidence, OracleMethod, OracleOutcome, Verdict
from app.oracle.replays import ReplayMove, move_replays
from app.oracle.report_rows import Ended, NewLog, Report, Resolution, storable, tell, write_reports, write_texts
from app.pricing.oracle_events import OracleEventKind, Reading, record_readings

__all__ = ["QUARANTINE", "Draft", "Report", "Resolution", "checked_verdict", "record", "stored_summary"]

QUARANTINE: Final = timedelta(hours=24)
"""How long a quarantined reading waits to be confirmed."""
SUMMARY_CHARS_MAX: Final = 2_000
_KINDS: Final = {
    Effect.SET: OracleEventKind.OVERRIDE,
    Effect.MOVE: OracleEventKind.READING,
    Effect.REFRESH: OracleEventKind.REFRESH,
}


@dataclass(frozen=True, slots=True)
class Draft:
    """What a run came to, before it is recorded. `fundamental_before` in 10^-12, `cost` in 10^-6 US dollars.

    `inputs`: the case that was judged, as text. `due_at`: when the next run is due; without it a cadence from now.
    `expires_at`: of a quarantine, if not after `QUARANTINE`. Raises ValueError for a verdict that cannot be stored.
    """

    asset_id: int
    run_id: int
    method: OracleMethod
    verdict: Verdict
    evidence: tuple[Evidence, ...]
    fundamental_before: int
    model: str | None
    prompt_hash: str | None
    inputs: str
    cost: int
    latency_ms: int
    cadence_seconds: int
    fresh_seconds: int
    replays: tuple[ReplayMove, ...] = ()
    due_at: datetime | None = None
    expires_at: datetime | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        """Refuse what could not be stored, here, where it concerns one run only."""
        checked_verdict(self.verdict)


def checked_verdict(verdict: Verdict) -> Verdict:
    """`verdict`, when all of it fits together. Raises ValueError that says what does not."""
    applied = verdict.effect in (Effect.SET, Effect.MOVE)
    if (verdict.outcome is OracleOutcome.ACCEPTED) is not applied:
        raise ValueError(f"exactly what is ACCEPTED is applied; got {verdict.outcome} with the effect {verdict.effect}")
    if applied and verdict.price is None:
        raise ValueError(f"a verdict with the effect {verdict.effect} has a price; got none")
    if verdict.price is not None and not PRICE_MIN <= verdict.price <= PRICE_MAX:
        raise ValueError(f"the price of a verdict is {PRICE_MIN} to {PRICE_MAX} (10^-12); got {verdict.price}")
    if verdict.confidence is not None and not 0 <= verdict.confidence <= RATE_UNIT:
        raise ValueError(f"the confidence of a verdict is 0 to {RATE_UNIT} (10^-9); got {verdict.confidence}")
    if verdict.move < 0 or (verdict.move and not applied):
        raise ValueError(f"only what is applied moves F, by 0 or more; got {verdict.move} with {verdict.effect}")
    if verdict.confirms is not None and not applied:
        raise ValueError(f"only what is applied confirms another reading; got {verdict.effect}")
    return verdict


def stored_summary(summary: str | None) -> str | None:
    """A summary as it is stored: what cannot be stored replaced, and cut."""
    return None if summary is None else storable(summary)[:SUMMARY_CHARS_MAX]


async def record(*, unit: Unit, drafts: Sequence[Draft], bus: Bus | None = None) -> list[Report]:
    """Record what runs came to; the reports of those that were recorded, in the order of `drafts`.

    A draft is left out when its oracle's `run_id` has moved or when its run has been recorded: somebody else has taken
    the asset over, or it is here already. Ends the claims of the others, sets when their next runs are due, tells the
    engine, and once it is committed `bus`. A quarantined reading that one confirms becomes ACCEPTED by the same event.
    Raises LookupError for an asset that does not exist, ValueError for more than one statement can hold.
    """
    own = await _lock(unit.connection, {(draft.asset_id, draft.run_id): draft for draft in reversed(drafts)})
    looked = await _look(unit.connection, own)
    own = [draft for draft in own if draft.asset_id not in looked.recorded]
    if not own:
        return []
    pieces = [evidence for draft in own for evidence in draft.evidence]
    await write_texts(unit.connection, evidence=pieces, at=looked.at)
    seqs = await _tell_engine(unit, own, bus)
    await _schedule(unit.connection, own, at=looked.at)
    await move_replays(connection=unit.connection, moves=[move for draft in own for move in draft.replays])
    written = await write_reports(
        unit.connection,
        new=[_new_log(draft, at=looked.at, event_seq=seqs.get(draft.asset_id)) for draft in own],
        evidence=[draft.evidence for draft in own],
        ended=[
            _confirmed(draft, at=looked.at, event_seq=seqs[draft.asset_id])
            for draft in own
            if draft.verdict.confirms in looked.pending
        ],
    )
    tell(unit, bus, [draft.asset_id for draft in own])
    place = {draft.asset_id: number for number, draft in enumerate(drafts)}
    return sorted(written[: len(own)], key=lambda report: place[report.asset_id])


# ---------------------------------------------------------------------------------------------------- the transaction
@dataclass(frozen=True, slots=True)
class _Looked:
    """The database's time; of the drafts, the assets whose runs have been recorded and what may still be confirmed."""

    at: datetime
    recorded: frozenset[int]
    pending: frozenset[int]


async def _lock(connection: Connection, drafts: Mapping[tuple[int, int], Draft]) -> list[Draft]:
    """Of these drafts (asset id and run id) those of current runs, by asset; the rows stay locked until the end."""
    rows = await connection.fetch(
        "SELECT asset_id, run_id FROM oracles WHERE asset_id = ANY($1::bigint[]) ORDER BY asset_id FOR UPDATE",
        sorted({asset_id for asset_id, _ in drafts}),
    )
    current = [(row["asset_id"], row["run_id"]) for row in rows]
    return [drafts[key] for key in current if key in drafts]


async def _look(connection: Connection, drafts: Sequence[Draft]) -> _Looked:
    """After the lock: only what stands now counts."""
    row = await connection.fetchrow(
        "WITH d AS (SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) d (asset_id, run_id, confirms))"
        " SELECT clock_timestamp() AS at, ARRAY(SELECT l.asset_id FROM d JOIN oracle_logs l"
        " ON l.asset_id = d.asset_id AND l.run_id = d.run_id) AS recorded, ARRAY(SELECT l.id FROM d JOIN oracle_logs l"
        " ON l.id = d.confirms AND l.asset_id = d.asset_id AND l.outcome = 'QUARANTINED') AS pending",
        [draft.asset_id for draft in drafts],
        [draft.run_id for draft in drafts],
        [draft.verdict.confirms for draft in drafts],
    )
    if row is None:
        raise LookupError("the database did not tell its time")
    return _Looked(row["at"], frozenset(row["recorded"]), frozenset(row["pending"]))


async def _tell_engine(unit: Unit, drafts: Sequence[Draft], bus: Bus | None) -> dict[int, int]:
    """Record what the verdicts do to F; the seq of each asset's event."""
    readings = [
        Reading(
            asset_id=draft.asset_id,
            kind=_KINDS[draft.verdict.effect],
            value=None if draft.verdict.effect is Effect.REFRESH else draft.verdict.price,
            cadence_seconds=draft.cadence_seconds,
            fresh_seconds=draft.fresh_seconds,
        )
        for draft in drafts
        if draft.verdict.effect is not Effect.NONE
    ]
    return {event.asset_id: event.seq for event in await record_readings(unit=unit, readings=readings, bus=bus)}


async def _schedule(connection: Connection, drafts: Sequence[Draft], *, at: datetime) -> None:
    """End the claims, and say when the next runs are due."""
    await connection.execute(
        "UPDATE oracles o SET claimed_until = NULL, failures = 0, last_error = NULL, cadence_seconds = d.cadence,"
        " due_at = d.due_at, last_accepted_at = CASE WHEN d.fresh THEN $5::timestamptz ELSE o.last_accepted_at END"
        " FROM unnest($1::bigint[], $2::int[], $3::timestamptz[], $4::boolean[]) d (asset_id, cadence, due_at, fresh)"
        " WHERE o.asset_id = d.asset_id",
        [draft.asset_id for draft in drafts],
        [draft.cadence_seconds for draft in drafts],
        [draft.due_at or at + timedelta(seconds=draft.cadence_seconds) for draft in drafts],
        [draft.verdict.effect is not Effect.NONE for draft in drafts],
        at,
    )


def _new_log(draft: Draft, *, at: datetime, event_seq: int | None) -> NewLog:
    verdict = draft.verdict
    expires_at = draft.expires_at
    if verdict.outcome is OracleOutcome.QUARANTINED and expires_at is None:
        expires_at = at + QUARANTINE
    return NewLog(
        asset_id=draft.asset_id,
        run_id=draft.run_id,
        at=at,
        method=draft.method.value,
        outcome=verdict.outcome.value,
        reasons=" ".join(verdict.reasons),
        delta_percent=verdict.delta_percent,
        suggested_price=verdict.price,
        figure=verdict.figure,
        confidence=verdict.confidence,
        summary=stored_summary(verdict.summary),
        fundamental_before=draft.fundamental_before,
        move=verdict.move,
        event_seq=event_seq,
        model=None if draft.model is None else storable(draft.model),
        prompt_hash=draft.prompt_hash,
        inputs=draft.inputs,
        cost=draft.cost,
        latency_ms=draft.latency_ms,
        expires_at=expires_at,
        resolved_by=None,
        reason=draft.reason,
    )


def _confirmed(draft: Draft, *, at: datetime, event_seq: int) -> Ended:
    """The move is the confirming reading's alone: it is not counted twice."""
    if draft.verdict.confirms is None:
        raise ValueError("this draft confirms nothing")
    return Ended(
        id=draft.verdict.confirms,
        outcome=OracleOutcome.ACCEPTED.value,
        event_seq=event_seq,
        move=0,
        resolution=Resolution.CONFIRMED.value,
        resolved_at=at,
        resolved_by=None,
        reason=None,
    )
