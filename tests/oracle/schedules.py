"""Oracles as rows: made, aged and looked at by tests of the schedule, whatever an admin may ask for."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.db import Connection, Database
from app.oracle.claims import Claim
from app.oracle.configuration import (
    Configuration,
    FeedConfiguration,
    FeedsConfiguration,
    SearchConfiguration,
    base_cadence,
    encode_configuration,
)
from app.oracle.kinds import Effect, OracleMethod, OracleOutcome, Verdict
from app.oracle.reports import Draft

SEARCH = SearchConfiguration(("widgets made",), "How many widgets?", "USD", None, 2, 10 * 10**9, 6 * 10**8)
FEED = FeedsConfiguration(
    (FeedConfiguration("https://feed.example/x", "$.x", None, None, "1", "0", None, 10 * 10**9),), 1
)


async def new_oracle(
    database: Database,
    asset_id: int,
    *,
    configuration: Configuration = FEED,
    cadence_seconds: int | None = None,
    due_in: float | None = 0.0,
) -> None:
    """An oracle that is due in so many seconds; None: by itself never."""
    is_search = isinstance(configuration, SearchConfiguration)
    async with database.acquire() as connection:
        await connection.execute(
            "INSERT INTO oracles (asset_id, method, configuration, base_cadence_seconds, cadence_seconds, due_at)"
            " VALUES ($1, $2, $3, $4, $5, clock_timestamp() + make_interval(secs => $6))",
            asset_id,
            "SEARCH_LLM" if is_search else "FEED",
            encode_configuration(configuration),
            cadence_seconds,
            cadence_seconds or base_cadence(configuration),
            due_in,
        )


async def set_oracle(database: Database, asset_id: int, **values: object) -> None:
    """Set columns of an oracle's row; a timedelta means so long from now."""
    async with database.acquire() as connection:
        for name, value in values.items():
            sql = "clock_timestamp() + $2" if isinstance(value, timedelta) else "$2"
            await connection.execute(f'UPDATE oracles SET "{name}" = {sql} WHERE asset_id = $1', asset_id, value)


@dataclass(frozen=True)
class Row:
    """Where an oracle's schedule stands. `due_in` and `claimed_for`: seconds from now."""

    run_id: int
    due_in: float | None
    claimed_for: float | None
    failures: int
    last_error: str | None
    cadence_seconds: int
    last_run_at: datetime | None
    override_id: int | None


async def oracle_row(connection: Connection, asset_id: int) -> Row:
    row = await connection.fetchrow(
        "SELECT run_id, extract(epoch FROM due_at - clock_timestamp())::float8 AS due_in,"
        " extract(epoch FROM claimed_until - clock_timestamp())::float8 AS claimed_for, failures, last_error,"
        " cadence_seconds, last_run_at, override_id FROM oracles WHERE asset_id = $1",
        asset_id,
    )
    assert row is not None
    return Row(**dict(row))


def draft(claim: Claim, *, price: int | None = 2 * 10**12, **values: object) -> Draft:
    """What a feed said: `price` (10^-12) moves F; None: too few sources."""
    verdict = (
        Verdict(OracleOutcome.REJECTED, (), Effect.NONE, None, None, None, 0)
        if price is None
        else Verdict(OracleOutcome.ACCEPTED, (), Effect.MOVE, price, "2", 0, 0)
    )
    given: Mapping[str, object] = {
        "asset_id": claim.asset_id,
        "run_id": claim.run_id,
        "method": OracleMethod.FEED,
        "verdict": verdict,
        "evidence": (),
        "fundamental_before": 10**12,
        "model": None,
        "prompt_hash": None,
        "inputs": "{}",
        "cost": 0,
        "latency_ms": 1,
        "cadence_seconds": claim.cadence_seconds,
        "fresh_seconds": claim.fresh_seconds,
        **values,
    }
    return Draft(**given)  # type: ignore[arg-type]
