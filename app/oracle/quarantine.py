"""How quarantined readings end but by a second reading: by an admin, by a new configuration, or by themselves.

Who may end one, and the entry in the audit log, are the caller's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from app.bus import Bus
from app.db import Connection, Unit
from app.errors import ErrorCode, isoformat, refuse
from app.oracle.cadence import fresh_seconds
from app.oracle.kinds import Effect, OracleOutcome
from app.oracle.moves import move_of
from app.oracle.report_rows import Ended, Report, Resolution, tell, write_reports
from app.oracle.standing import fundamental_standing
from app.pricing.oracle_events import OracleEventKind, Reading, record_readings

if TYPE_CHECKING:
    import asyncpg

EXPIRED_MAX: Final = 200
"""Quarantines that one call of `expire_quarantines` ends."""


@dataclass(frozen=True, slots=True)
class _Quarantined:
    """A report under its oracle's lock."""

    at: datetime
    asset_id: int
    outcome: str
    price: int
    expires_at: datetime | None
    resolution: str | None
    resolved_at: datetime | None
    cadence_seconds: int
    is_held: bool


async def resolve_quarantine(
    *, unit: Unit, report_id: int, accept: bool, reason: str, by: str, bus: Bus | None = None
) -> Report:
    """End a quarantine by hand. Accepted, its price enters F's average whatever the caps (or sets F, when it is first).

    A run under way was judged without knowing of this: it will not be recorded, and is due again at once. `by`: the
    admin's name. Raises `Refused`: NOT_FOUND (no such report), CONFLICT (it is not in quarantine, no longer, or it is
    to be accepted while an override holds F).
    """
    found = await _lock(unit.connection, report_id)
    _check(found, accept=accept)
    event_seq, move = await _apply(unit, found, bus) if accept else (None, 0)
    await unit.connection.execute(
        "UPDATE oracles SET run_id = run_id + 1, claimed_until = NULL,"
        " last_accepted_at = CASE WHEN $2 THEN $3::timestamptz ELSE last_accepted_at END WHERE asset_id = $1",
        found.asset_id,
        accept,
        found.at,
    )
    resolution = Resolution.ACCEPTED if accept else Resolution.REJECTED
    ended = _ended(report_id, resolution, at=found.at, by=by, reason=reason)._replace(event_seq=event_seq, move=move)
    (report,) = await write_reports(unit.connection, ended=[ended])
    tell(unit, bus, [found.asset_id])
    return report


async def end_quarantines(*, unit: Unit, asset_id: int, reason: str, by: str, bus: Bus | None = None) -> list[Report]:
    """Let all quarantines of an asset expire: what they said is no answer to a new question.

    For those who change the configuration; they overtake runs that are under way by themselves.
    """
    at = await unit.connection.fetchval(
        "SELECT clock_timestamp() FROM oracles WHERE asset_id = $1 FOR UPDATE", asset_id
    )
    rows = await unit.connection.fetch(
        "SELECT id, asset_id FROM oracle_logs WHERE asset_id = $1 AND outcome = 'QUARANTINED' ORDER BY id", asset_id
    )
    ends = [_ended(row["id"], Resolution.EXPIRED, at=at, by=by, reason=reason) for row in rows]
    return await _end(unit, ends, {row["id"]: asset_id for row in rows}, bus)


async def expire_quarantines(*, unit: Unit, limit: int = EXPIRED_MAX, bus: Bus | None = None) -> list[Report]:
    """End those whose time is over, up to `limit`; the oldest first. They are REJECTED from then on."""
    found = await unit.connection.fetch(
        "SELECT id, asset_id FROM oracle_logs WHERE outcome = 'QUARANTINED' AND expires_at <= clock_timestamp()"
        " ORDER BY id LIMIT $1",
        limit,
    )
    if not found:
        return []
    await unit.connection.execute(
        "SELECT FROM oracles WHERE asset_id = ANY($1::bigint[]) ORDER BY asset_id FOR UPDATE",
        sorted({row["asset_id"] for row in found}),
    )
    rows = await unit.connection.fetch(
        "SELECT clock_timestamp() AS at, id, asset_id FROM oracle_logs"
        " WHERE id = ANY($1::bigint[]) AND outcome = 'QUARANTINED' ORDER BY id",
        [row["id"] for row in found],
    )
    ends = [_ended(row["id"], Resolution.EXPIRED, at=row["at"], by=None, reason=None) for row in rows]
    return await _end(unit, ends, {row["id"]: row["asset_id"] for row in rows}, bus)


async def _end(unit: Unit, ends: Sequence[Ended], assets: Mapping[int, int], bus: Bus | None) -> list[Report]:
    """Write the ends of quarantines whose oracles are locked, and tell of them. `assets`: by the reports' ids."""
    reports = await write_reports(unit.connection, ended=ends)
    if reports:
        tell(unit, bus, sorted({assets[report.id] for report in reports}))
    return reports


async def _lock(connection: Connection, report_id: int) -> _Quarantined:
    """The report as it stands once its oracle is locked. Raises `Refused` when there is none."""
    held = await connection.fetchrow(
        "SELECT o.cadence_seconds, o.override_id IS NOT NULL"
        " AND (o.held_until IS NULL OR o.held_until > clock_timestamp()) AS is_held FROM oracles o"
        " WHERE o.asset_id = (SELECT asset_id FROM oracle_logs WHERE id = $1) FOR UPDATE",
        report_id,
    )
    row: asyncpg.Record | None = await connection.fetchrow(
        "SELECT clock_timestamp() AS at, asset_id, outcome, suggested_price, expires_at, resolution, resolved_at"
        " FROM oracle_logs WHERE id = $1",
        report_id,
    )
    if held is None or row is None:
        raise refuse(ErrorCode.NOT_FOUND, "There is no such report of an oracle.", "reportId")
    return _Quarantined(
        at=row["at"],
        asset_id=row["asset_id"],
        outcome=row["outcome"],
        price=row["suggested_price"],
        expires_at=row["expires_at"],
        resolution=row["resolution"],
        resolved_at=row["resolved_at"],
        cadence_seconds=held["cadence_seconds"],
        is_held=held["is_held"],
    )


def _check(found: _Quarantined, *, accept: bool) -> None:
    if found.outcome != OracleOutcome.QUARANTINED:
        ended = "" if found.resolved_at is None else f": it was {found.resolution} at {isoformat(found.resolved_at)}"
        raise refuse(
            ErrorCode.CONFLICT, f"The report is not in quarantine but {found.outcome}{ended}. Nothing is left to do.",
            "reportId",
        )  # fmt: skip
    if found.expires_at is not None and found.expires_at <= found.at:
        raise refuse(
            ErrorCode.CONFLICT,
            f"The quarantine has expired at {isoformat(found.expires_at)}: set F by oracleOverride, or wait for the"
            " next reading.",
            "reportId",
        )
    if accept and found.is_held:
        raise refuse(
            ErrorCode.CONFLICT,
            "An override holds F, and no reading moves it: reject this one, or accept it once the override has ended.",
            "accept",
        )


async def _apply(unit: Unit, found: _Quarantined, bus: Bus | None) -> tuple[int, int]:
    """Tell the engine; the event's seq, and by how much it moves F (10^-9 of F)."""
    standing = await fundamental_standing(connection=unit.connection, asset_id=found.asset_id)
    reading = Reading(
        asset_id=found.asset_id,
        kind=OracleEventKind.OVERRIDE if standing.is_first else OracleEventKind.READING,
        value=found.price,
        cadence_seconds=found.cadence_seconds,
        fresh_seconds=fresh_seconds(cadence_seconds=found.cadence_seconds),
    )
    (event,) = await record_readings(unit=unit, readings=[reading], bus=bus)
    effect = Effect.SET if standing.is_first else Effect.MOVE
    move = move_of(found.price, fundamental=standing.fundamental, effect=effect, weight=standing.weight)
    return event.seq, move


def _ended(report_id: int, resolution: Resolution, *, at: datetime, by: str | None, reason: str | None) -> Ended:
    """Rejected, unless said otherwise."""
    outcome = OracleOutcome.ACCEPTED if resolution is Resolution.ACCEPTED else OracleOutcome.REJECTED
    return Ended(
        id=report_id,
        outcome=outcome.value,
        event_seq=None,
        move=0,
        resolution=resolution.value,
        resolved_at=at,
        resolved_by=by,
        reason=reason,
    )
