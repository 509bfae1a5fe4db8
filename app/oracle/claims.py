"""Which oracle worker runs which asset, and when the next run is: claims of single runs, by the database's clock.

A claim moves `oracles.run_id`, and what a run found is stored only while that has not moved again (the fence), so a
worker that was too slow, or was overtaken by an override or a new configuration, stores nothing. A claim that nobody
ended runs out by itself, and the asset is run again. What a run does is not known here.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, Final

import structlog

from app.db import Connection
from app.oracle import cadence, language_model, search
from app.oracle.cadence import Demand
from app.oracle.configuration import Configuration, SearchConfiguration, decode_configuration
from app.oracle.kinds import OracleMethod
from app.oracle.report_rows import storable
from app.pricing.model import decayed
from app.pricing.ticks import microseconds

if TYPE_CHECKING:
    import asyncpg

SEARCH_LEASE_SECONDS: Final = 180
FEED_LEASE_SECONDS: Final = 30
"""How long a claim counts without being ended; a run is given less."""
ERROR_CHARS_MAX: Final = 500

_UNHELD: Final = "(o.override_id IS NULL OR o.held_until <= statement_timestamp())"
"""SQL, of an oracle o: no override holds F."""
_REQUESTED: Final = "(o.requested_at IS NOT NULL AND (o.last_run_at IS NULL OR o.requested_at > o.last_run_at))"
"""SQL: an admin asked for a run, and none has begun since."""
_UNCLAIMED: Final = (
    "(o.claimed_until IS NULL OR o.claimed_until <= statement_timestamp()"
    f" OR o.claimed_until > statement_timestamp() + make_interval(secs => {2 * SEARCH_LEASE_SECONDS}))"
)
"""SQL: a claim that ends later than any can was made before the clock was set back."""
_RUNS: Final = f"(o.configuration IS NOT NULL AND {_UNHELD})"
_DUE: Final = (
    "SELECT o.asset_id, o.last_run_at IS NULL"
    " OR o.due_at < statement_timestamp() - o.cadence_seconds * interval '0.5 seconds' AS is_late,"
    f" {_REQUESTED} AS is_requested,"
    " extract(epoch FROM statement_timestamp() - o.due_at) / o.cadence_seconds AS cadences_late FROM oracles o"
    f" WHERE {_RUNS} AND {_UNCLAIMED} AND (o.due_at <= statement_timestamp() OR {_REQUESTED})"
)
_FIRST: Final = "ORDER BY is_requested DESC, cadences_late DESC, asset_id"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Claim:
    """A run of one asset that is ours to make. `cadence_seconds` and `fresh_seconds` are what a reading promises.

    `failures`: runs that failed on end before this one. `claimed_at`: the database's time. `is_late`: it is the first
    run, or was due for longer than half a cadence.
    """

    asset_id: int
    run_id: int
    configuration: Configuration
    cadence_seconds: int
    fresh_seconds: int
    failures: int = 0
    claimed_at: datetime | None = None
    is_late: bool = False

    @property
    def is_search(self) -> bool:
        """Whether it asks the providers."""
        return isinstance(self.configuration, SearchConfiguration)

    @property
    def method(self) -> OracleMethod:
        """The method of its reports."""
        return OracleMethod.SEARCH_LLM if self.is_search else OracleMethod.FEED

    @property
    def lease_seconds(self) -> int:
        """How long it counts."""
        return SEARCH_LEASE_SECONDS if self.is_search else FEED_LEASE_SECONDS

    def due_at(self, *, elapsed_seconds: float) -> datetime | None:
        """When the next run is due if this one leads to a report so long after it began: a cadence after it began.

        A run that took longer than half of its cadence is followed by a pause of at least that.
        """
        if self.claimed_at is None:
            return None
        if self.is_late:
            wait_ms = cadence.spread_due_ms(asset_id=self.asset_id, cadence_seconds=self.cadence_seconds)
        else:
            wait_ms = cadence.next_due_ms(
                asset_id=self.asset_id, run_id=self.run_id, cadence_seconds=self.cadence_seconds
            )
        return self.claimed_at + timedelta(milliseconds=max(wait_ms, int(elapsed_seconds * 1_000) + wait_ms // 2))


@dataclass(frozen=True, slots=True)
class Failure:
    """A run that came to nothing, and why."""

    claim: Claim
    detail: str


@dataclass(frozen=True, slots=True)
class Standing:
    """How the schedule stands: oracles that run by themselves, those that are due and claimed by nobody, how overdue
    the most overdue of them is (seconds), and how many open alerts say that F is stale."""

    oracles: int
    overdue: int
    lag_seconds: float
    stale: int


async def claim(
    *, connection: Connection, limit: int, searches: int | None = None, factor: Fraction | None = Fraction(1)
) -> list[Claim]:
    """Claim up to `limit` runs that are due: requested ones first, then the most overdue, measured by cadences.

    `searches`: how many of them may be searches, where not all may be. `factor`: by what searches are stretched, see
    `cadence.stretch`. One statement: several workers at once share what is due. A claim stays due until it is ended, so
    that whoever takes it over does so at once. An asset whose configuration cannot be read counts as a failed run.
    """
    rows = await connection.fetch(
        f"WITH searches AS ({_DUE} AND o.method = 'SEARCH_LLM' {_FIRST} LIMIT $4 FOR UPDATE OF o SKIP LOCKED),"
        f" feeds AS ({_DUE} AND o.method <> 'SEARCH_LLM' {_FIRST} LIMIT $1 FOR UPDATE OF o SKIP LOCKED),"
        f" due AS (SELECT * FROM searches UNION ALL SELECT * FROM feeds {_FIRST} LIMIT $1)"
        " UPDATE oracles o SET run_id = o.run_id + 1, last_run_at = statement_timestamp(),"
        " due_at = least(o.due_at, statement_timestamp()), override_id = NULL, held_until = NULL,"
        " claimed_until = statement_timestamp()"
        " + make_interval(secs => CASE o.method WHEN 'SEARCH_LLM' THEN $2::int ELSE $3::int END)"
        " FROM due JOIN assets a ON a.id = due.asset_id LEFT JOIN price_states p ON p.asset_id = due.asset_id"
        " WHERE o.asset_id = due.asset_id"
        " RETURNING statement_timestamp() AS now, o.asset_id, o.run_id, o.configuration, o.base_cadence_seconds,"
        " o.cadence_seconds, o.failures, a.volume_scale, a.volume_half_life_seconds, p.recent_volume,"
        " p.recent_volume_at, coalesce(due.is_late, false) AS is_late",
        limit,
        SEARCH_LEASE_SECONDS,
        FEED_LEASE_SECONDS,
        limit if searches is None else min(searches, limit),
    )
    claims, broken = [], []
    for row in rows:
        try:
            claims.append(_claim(row, factor))
        except ValueError as error:
            broken.append((row, repr(error)))
    for row, why in broken:
        _log.error("oracle.configuration_unreadable", asset_id=row["asset_id"], error=why)
        await _put_off(connection, [(row["asset_id"], row["run_id"], cadence.FEED_BACK_OFF_SECONDS_MAX, why)])
    return claims


def _claim(row: "asyncpg.Record", factor: Fraction | None) -> Claim:
    configuration = decode_configuration(row["configuration"])
    seconds = cadence.own_cadence(
        configuration=configuration,
        base_cadence_seconds=row["base_cadence_seconds"],
        recent_volume=_recent_volume(row, row["now"]),
        volume_scale=row["volume_scale"],
    )
    if isinstance(configuration, SearchConfiguration):
        left = cadence.seconds_to_midnight(row["now"].astimezone(UTC))
        seconds = cadence.stretched(cadence_seconds=seconds, factor=factor, seconds_left=left)
    return Claim(
        asset_id=row["asset_id"],
        run_id=row["run_id"],
        configuration=configuration,
        cadence_seconds=seconds,
        fresh_seconds=cadence.fresh_seconds(cadence_seconds=seconds),
        failures=row["failures"],
        claimed_at=row["now"],
        is_late=row["is_late"],
    )


def _recent_volume(row: "asyncpg.Record", now: datetime) -> int:
    """Brought up to now, in 10^-12; 0 of an asset that has no prices yet."""
    if row["recent_volume"] is None:
        return 0
    elapsed = max(microseconds(now) - microseconds(row["recent_volume_at"]), 0)
    volume: int = row["recent_volume"]
    return decayed(volume, elapsed=elapsed, half_life_seconds=row["volume_half_life_seconds"])


async def fail(*, connection: Connection, failures: Sequence[Failure]) -> None:
    """End claims whose runs came to nothing: the next attempts are put off further with each failure on end."""
    await _put_off(
        connection,
        [
            (
                failure.claim.asset_id,
                failure.claim.run_id,
                cadence.back_off_seconds(
                    cadence_seconds=failure.claim.cadence_seconds,
                    failures=failure.claim.failures + 1,
                    is_search=failure.claim.is_search,
                ),
                failure.detail,
            )
            for failure in failures
        ],
    )


async def _put_off(connection: Connection, runs: Sequence[tuple[int, int, int, str]]) -> None:
    """(asset id, run id, seconds, why) of each."""
    waits = [
        cadence.next_due_ms(asset_id=asset_id, run_id=run_id, cadence_seconds=seconds)
        for asset_id, run_id, seconds, _ in runs
    ]
    await connection.execute(
        "UPDATE oracles o SET claimed_until = NULL, failures = o.failures + 1, last_error = c.detail,"
        " due_at = statement_timestamp() + make_interval(secs => c.ms / 1000.0)"
        " FROM unnest($1::bigint[], $2::bigint[], $3::int[], $4::text[]) c (asset_id, run_id, ms, detail)"
        " WHERE o.asset_id = c.asset_id AND o.run_id = c.run_id AND o.claimed_until IS NOT NULL",
        [run[0] for run in runs],
        [run[1] for run in runs],
        waits,
        [storable(run[3])[:ERROR_CHARS_MAX] for run in runs],
    )


async def overtake_run(*, connection: Connection, asset_id: int) -> None:
    """What a run under way was judged by has changed: it records nothing, and the asset is run anew now."""
    await connection.execute(
        "UPDATE oracles SET run_id = run_id + 1, claimed_until = NULL, due_at = least(due_at, clock_timestamp())"
        " WHERE asset_id = $1 AND claimed_until IS NOT NULL",
        asset_id,
    )


async def release(*, connection: Connection, claims: Collection[Claim]) -> None:
    """Give up claims: whoever is there takes them at once."""
    await connection.execute(
        "UPDATE oracles o SET claimed_until = NULL FROM unnest($1::bigint[], $2::bigint[]) c (asset_id, run_id)"
        " WHERE o.asset_id = c.asset_id AND o.run_id = c.run_id",
        [each.asset_id for each in claims],
        [each.run_id for each in claims],
    )


async def seconds_until_due(*, connection: Connection, with_searches: bool = True) -> float | None:
    """Until the next run (that is no search, perhaps) may be claimed, 0 at least; None when none is due by itself."""
    seconds: float | None = await connection.fetchval(
        "SELECT extract(epoch FROM min(greatest(o.due_at, o.claimed_until)) - clock_timestamp())::float8"
        f" FROM oracles o WHERE o.due_at IS NOT NULL AND {_RUNS} AND ($1 OR o.method <> 'SEARCH_LLM')",
        with_searches,
    )
    return None if seconds is None else max(seconds, 0.0)


async def demands(*, connection: Connection) -> tuple[int, list[Demand]]:
    """Seconds until the budgets' UTC day ends, and what each search asset that runs by itself asks of the providers."""
    now = await connection.fetchval("SELECT clock_timestamp()")
    rows = await connection.fetch(
        "SELECT o.configuration, o.base_cadence_seconds, a.volume_scale, a.volume_half_life_seconds, p.recent_volume,"
        " p.recent_volume_at FROM oracles o JOIN assets a ON a.id = o.asset_id"
        f" LEFT JOIN price_states p ON p.asset_id = o.asset_id WHERE o.method = 'SEARCH_LLM' AND {_RUNS}"
    )
    found = []
    for row in rows:
        try:
            configuration = decode_configuration(row["configuration"])
        except ValueError:
            continue  # told where it is claimed
        if isinstance(configuration, SearchConfiguration):
            seconds = cadence.own_cadence(
                configuration=configuration,
                base_cadence_seconds=row["base_cadence_seconds"],
                recent_volume=_recent_volume(row, now),
                volume_scale=row["volume_scale"],
            )
            requests = {search.PROVIDER: len(configuration.queries), language_model.PROVIDER: 1}
            found.append(Demand(requests, seconds))
    return cadence.seconds_to_midnight(now.astimezone(UTC)), found


async def oracle_standing(*, connection: Connection) -> Standing:
    """How the schedule stands now."""
    row = await connection.fetchrow(
        f"SELECT count(*) FILTER (WHERE {_RUNS}) AS oracles,"
        f" count(*) FILTER (WHERE {_RUNS} AND {_UNCLAIMED} AND o.due_at <= statement_timestamp()) AS overdue,"
        f" extract(epoch FROM statement_timestamp() - min(o.due_at) FILTER (WHERE {_RUNS} AND {_UNCLAIMED}))::float8"
        " AS lag, (SELECT count(*) FROM alerts WHERE kind = 'ORACLE_STALE' AND resolved_at IS NULL) AS stale"
        " FROM oracles o"
    )
    if row is None:
        raise LookupError("counting answered nothing")
    return Standing(row["oracles"], row["overdue"], max(row["lag"] or 0.0, 0.0), row["stale"])
