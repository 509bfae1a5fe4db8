"""Setting F by hand, and holding it. Who may do that, and the entry in the audit log, are the caller's."""

from datetime import datetime, timedelta
from typing import Final

from app.bus import Bus
from app.db import Connection, Unit
from app.errors import invalid, isoformat
from app.money import RATE_UNIT
from app.oracle.configuration import SEARCH_CADENCE_SECONDS
from app.oracle.kinds import Effect, OracleMethod, OracleOutcome
from app.oracle.moves import delta_percent, move_of
from app.oracle.report_rows import NewLog, tell, write_reports
from app.oracle.standing import fundamental_standing
from app.pricing.oracle_events import PROMISE_SECONDS_MAX, OracleEventKind, Reading, record_readings

CADENCE_SECONDS: Final = SEARCH_CADENCE_SECONDS[1]
"""Of an asset that has overrides alone: over so long the market's weight rises to 1 once one has ended."""


async def set_override(
    *,
    unit: Unit,
    asset_id: int,
    fundamental: int,
    reason: str,
    expires_at: datetime | None,
    by: str,
    bus: Bus | None = None,
) -> int:
    """Set F to `fundamental` (10^-12, 10^6 to 10^21) at once and hold it; the id of the report of it.

    It holds, and F counts as fresh, until `expires_at`; without that until another override or a new configuration.
    While it holds no run is due, and a run that is under way will not be recorded. An asset without an oracle gets one
    that has overrides alone. `by`: the admin's name. Raises `Refused` (INVALID_INPUT) when `expires_at` has passed or
    is more than a year away, ValueError for an F out of range, LookupError for an asset that does not exist.
    """
    now, cadence_seconds = await _lock(unit.connection, asset_id)
    fresh_seconds = _fresh_seconds(now, expires_at)
    before = (await fundamental_standing(connection=unit.connection, asset_id=asset_id)).fundamental
    reading = Reading(
        asset_id=asset_id,
        kind=OracleEventKind.OVERRIDE,
        value=fundamental,
        cadence_seconds=cadence_seconds,
        fresh_seconds=fresh_seconds,
    )
    (event,) = await record_readings(unit=unit, readings=[reading], bus=bus)
    log = NewLog(
        asset_id=asset_id,
        run_id=None,
        at=now,
        method=OracleMethod.OVERRIDE.value,
        outcome=OracleOutcome.ACCEPTED.value,
        reasons="",
        delta_percent=delta_percent(fundamental, fundamental=before),
        suggested_price=fundamental,
        figure=None,
        confidence=None,
        summary=None,
        fundamental_before=before,
        move=move_of(fundamental, fundamental=before, effect=Effect.SET, weight=RATE_UNIT),
        event_seq=event.seq,
        model=None,
        prompt_hash=None,
        inputs=None,
        cost=0,
        latency_ms=None,
        expires_at=expires_at,
        resolved_by=by,
        reason=reason,
    )
    (report,) = await write_reports(unit.connection, new=[log], evidence=[()])
    await _hold(unit.connection, asset_id=asset_id, report_id=report.id, at=now, until=expires_at)
    tell(unit, bus, [asset_id])
    return report.id


async def _lock(connection: Connection, asset_id: int) -> tuple[datetime, int]:
    """The database's time after the lock on the asset's oracle, which is made where there is none; its cadence."""
    await connection.execute(
        "INSERT INTO oracles (asset_id, method, cadence_seconds) VALUES ($1, 'OVERRIDE', $2) ON CONFLICT DO NOTHING",
        asset_id,
        CADENCE_SECONDS,
    )
    cadence: int | None = await connection.fetchval(
        "SELECT cadence_seconds FROM oracles WHERE asset_id = $1 FOR UPDATE", asset_id
    )
    if cadence is None:
        raise LookupError(f"the oracle of the asset {asset_id} is gone: try again")
    now: datetime | None = await connection.fetchval("SELECT clock_timestamp()")
    if now is None:
        raise LookupError("the database did not tell its time")
    return now, cadence


def _fresh_seconds(now: datetime, expires_at: datetime | None) -> int:
    """From `now` until `expires_at`, rounded up."""
    if expires_at is None:
        return PROMISE_SECONDS_MAX
    seconds = -((now - expires_at) // timedelta(seconds=1))
    if not 1 <= seconds <= PROMISE_SECONDS_MAX:
        raise invalid(
            f"expiresAt must be later than now and within {PROMISE_SECONDS_MAX // 86_400} days of it;"
            f" got {isoformat(expires_at)}, and now is {isoformat(now)}. Leave it out to hold F until further notice.",
            "input",
            "expiresAt",
        )
    return seconds


async def _hold(connection: Connection, *, asset_id: int, report_id: int, at: datetime, until: datetime | None) -> None:
    """Runs that are under way are overtaken; the next one is due when the override ends."""
    await connection.execute(
        "UPDATE oracles SET override_id = $2, held_until = $4, last_accepted_at = $3, run_id = run_id + 1,"
        " claimed_until = NULL, requested_at = NULL,"
        " due_at = CASE WHEN configuration IS NULL THEN NULL ELSE $4::timestamptz END WHERE asset_id = $1",
        asset_id,
        report_id,
        at,
        until,
    )
