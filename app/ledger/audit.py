"""The audit: recomputes every invariant of money, shares, prices and admin actions, and names what differs.

Used by `megatron audit` and `admin.reconciliation`. Nothing here or in `audit_*` may import the code that writes what
is audited: a mistake made on both sides would go unseen.
"""

from asyncio import get_running_loop
from collections.abc import Callable
from datetime import datetime
from typing import Final

import asyncpg

from app.db import Connection
from app.ledger.audit_admin import audit_admin, audit_log, terms_over_time
from app.ledger.audit_entries import audit_entries
from app.ledger.audit_events import audit_events
from app.ledger.audit_people import audit_people
from app.ledger.audit_positions import audit_positions
from app.ledger.audit_prices import audit_prices
from app.ledger.audit_run import SORT_MEMORY, Finding, OutOfTime, Report, Run
from app.ledger.audit_trades import audit_trades

__all__ = ["FINDING_LIMIT", "Finding", "Report", "audit", "render"]

FINDING_LIMIT: Final = 1_000
_PLANNING: Final = f"SET LOCAL work_mem = '{SORT_MEMORY}'; SET LOCAL enable_nestloop = off"
"""Whole tables are joined, and statistics may lag far behind them: a nested loop can only be a mistake."""
_PLANNING_AS_BEFORE: Final = (
    "SET LOCAL work_mem TO DEFAULT; SET LOCAL enable_nestloop TO DEFAULT; SET LOCAL statement_timeout TO DEFAULT"
)


async def audit(
    *,
    connection: Connection,
    finding_limit: int = FINDING_LIMIT,
    time_limit_s: float | None = None,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Audit the snapshot that `connection` is in: a REPEATABLE READ transaction, whose settings are reset.

    At most `finding_limit` findings are listed, a tenth of them for any one check; a last one "audit.more" names the
    checks that found more. After `time_limit_s` seconds
    (None: never) the audit stops, and a finding "audit.time" says so. `progress` is told the name of each stage.
    Raises ValueError outside such a transaction.
    """
    isolation = await connection.fetchval("SHOW transaction_isolation")
    if isolation not in ("repeatable read", "serializable") or not connection.is_in_transaction():
        raise ValueError(f"the audit needs a REPEATABLE READ transaction, and this is {isolation}: use a snapshot")
    loop = get_running_loop()
    deadline = None if time_limit_s is None else loop.time() + time_limit_s
    run = Run(connection, finding_limit=finding_limit, deadline=deadline, progress=progress)
    row = await connection.fetchrow("SELECT now() AS at, (SELECT count(*) FROM transfers) AS transfers")
    if row is None:
        raise LookupError("the database did not tell its time")
    checked_at: datetime = row["at"]
    try:
        async with connection.transaction():
            await connection.execute(_PLANNING)
            await _check(run)
            await connection.execute(_PLANNING_AS_BEFORE)
    except (OutOfTime, asyncpg.QueryCanceledError):
        if time_limit_s is None:
            raise
        stopped = Finding("audit.time", run.stage, f"done within {time_limit_s:g} s", "stopped; run `megatron audit`")
        run.findings.append(stopped)
    run.end()
    return Report(not run.findings, checked_at, row["transfers"], run.findings)


async def _check(run: Run) -> None:
    past = await audit_log(run)
    await audit_entries(run)
    await audit_trades(run, await terms_over_time(run, past))
    await audit_positions(run)
    await audit_events(run)
    await audit_prices(run)
    await audit_people(run)
    await audit_admin(run, past)


def render(report: Report) -> str:
    """The report as text for a terminal: a line, or a line for each finding and one that sums up."""
    at = report.checked_at.strftime("%Y-%m-%d %H:%M:%S UTC")
    if report.ok:
        return f"ok: {report.transfers} transfers audited as of {at}, nothing differs"
    lines = [f"{f.check}: {f.subject}: expected {f.expected}, found {f.actual}" for f in report.findings]
    count = len(report.findings)
    lines.append(f"{count} finding{'s' if count > 1 else ''} in {report.transfers} transfers as of {at}")
    return "\n".join(lines)
