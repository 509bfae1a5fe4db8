"""What the oracle says to the price engine: recorded in a gapless sequence per asset, and told to the engine.

Whoever has a reading (the oracle, an admin's override, the demo's replay) records it here. How a reading is found and
judged is not known here, nor what the engine makes of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import orjson

from app.bus import Bus
from app.db import Connection, Unit
from app.money import PRICE_MAX, PRICE_MIN
from app.pricing.ticks import instant, microseconds

if TYPE_CHECKING:
    import asyncpg

ORACLE_STREAM: Final = "megatron:oracle"
"""Redis stream. Entries `{"events": ...}`: what `encode_events` makes of what was committed together."""
READINGS_MAX: Final = 1_000
"""In one call."""
PROMISE_SECONDS_MAX: Final = 366 * 86_400
"""The longest cadence, and the longest time for which a reading may count as fresh."""
ORACLE_LOCK: Final = 0x6F72 << 48
"""Advisory locks above it, one for each asset: sequences are given one after the other. Asset ids are below 2^48."""


class OracleEventKind(StrEnum):
    """READING enters the average F; OVERRIDE sets F at once; REFRESH keeps F as it is, and fresh."""

    READING = "READING"
    OVERRIDE = "OVERRIDE"
    REFRESH = "REFRESH"


@dataclass(frozen=True, slots=True)
class Reading:
    """What is to be recorded. `value` is a price in 10^-12, 10^6 to 10^21; None for REFRESH, and only for it.

    F counts as fresh for `fresh_seconds` from now; after that w rises to 1 over `cadence_seconds`. Both are 1 to
    `PROMISE_SECONDS_MAX`. Raises ValueError for anything else.
    """

    asset_id: int
    kind: OracleEventKind
    value: int | None
    cadence_seconds: int
    fresh_seconds: int

    def __post_init__(self) -> None:
        """Refuse what the engine could not take."""
        if (self.value is None) != (self.kind is OracleEventKind.REFRESH):
            raise ValueError(f"a REFRESH has no value, everything else has one; got {self.kind} with {self.value}")
        if self.value is not None and not PRICE_MIN <= self.value <= PRICE_MAX:
            raise ValueError(f"the value of a reading is {PRICE_MIN} to {PRICE_MAX} (10^-12); got {self.value}")
        for name, seconds in (("cadence_seconds", self.cadence_seconds), ("fresh_seconds", self.fresh_seconds)):
            if not 1 <= seconds <= PROMISE_SECONDS_MAX:
                raise ValueError(f"{name} is 1 to {PROMISE_SECONDS_MAX}; got {seconds}")


@dataclass(frozen=True, slots=True)
class OracleEvent:
    """A reading as recorded. `seq` is gapless per asset, from 1; `at` is the database's time and never decreases."""

    asset_id: int
    seq: int
    at: datetime
    kind: OracleEventKind
    value: int | None
    cadence_seconds: int
    fresh_seconds: int


async def record_readings(*, unit: Unit, readings: Sequence[Reading], bus: Bus | None = None) -> list[OracleEvent]:
    """Record `readings` in their order, and tell the engine once they are committed (by `bus`, else it finds out).

    Locks the assets' sequences until the transaction ends, in the order of their ids. Raises ValueError for more than
    `READINGS_MAX`, LookupError for an asset that does not exist.
    """
    if len(readings) > READINGS_MAX:
        raise ValueError(f"at most {READINGS_MAX} readings are recorded at once; got {len(readings)}")
    if not readings:
        return []
    asset_ids = sorted({reading.asset_id for reading in readings})
    await unit.connection.execute(
        "SELECT pg_advisory_xact_lock($1 + a.id) FROM unnest($2::bigint[]) a (id)", ORACLE_LOCK, asset_ids
    )
    rows = await unit.connection.fetch(
        # Only what stands now, after the lock, is the last of its asset.
        "WITH r AS (SELECT u.*, row_number() OVER (PARTITION BY u.asset_id ORDER BY u.n) AS nth"
        " FROM unnest($1::bigint[], $2::text[], $3::numeric[], $4::int[], $5::int[]) WITH ORDINALITY"
        " u (asset_id, kind, value, cadence_seconds, fresh_seconds, n))"
        " INSERT INTO oracle_events AS e (asset_id, seq, at, kind, value, cadence_seconds, fresh_seconds)"
        " SELECT r.asset_id, coalesce(l.seq, 0) + r.nth, greatest(statement_timestamp(), l.at), r.kind, r.value,"
        " r.cadence_seconds, r.fresh_seconds FROM r JOIN assets a ON a.id = r.asset_id"
        " LEFT JOIN LATERAL (SELECT seq, at FROM oracle_events WHERE asset_id = r.asset_id"
        " ORDER BY seq DESC LIMIT 1) l ON true ORDER BY r.n"
        f" RETURNING {EVENT_COLUMNS}",
        [reading.asset_id for reading in readings],
        [reading.kind.value for reading in readings],
        [reading.value for reading in readings],
        [reading.cadence_seconds for reading in readings],
        [reading.fresh_seconds for reading in readings],
    )
    if len(rows) != len(readings):
        missing = sorted(set(asset_ids) - {row["asset_id"] for row in rows})
        raise LookupError(f"no asset has the id {', '.join(map(str, missing))}: its reading cannot be recorded")
    events = [event_from_row(row) for row in rows]
    if bus is not None:
        unit.after_commit(lambda: bus.publish(ORACLE_STREAM, {"events": encode_events(events)}))
    return events


EVENT_COLUMNS: Final = "e.asset_id, e.seq, e.at, e.kind, e.value, e.cadence_seconds, e.fresh_seconds"
"""Of oracle events e."""


def event_from_row(row: "asyncpg.Record") -> OracleEvent:
    """The event in a row of exactly `EVENT_COLUMNS`."""
    asset_id, seq, at, kind, value, cadence_seconds, fresh_seconds = row
    return OracleEvent(
        asset_id=asset_id,
        seq=seq,
        at=at,
        kind=OracleEventKind(kind),
        value=value,
        cadence_seconds=cadence_seconds,
        fresh_seconds=fresh_seconds,
    )


async def events_after(*, connection: Connection, after: Mapping[int, int], limit: int) -> dict[int, list[OracleEvent]]:
    """Of each asset (id to seq): the events that follow, ascending, `limit` of each at most. None: it is missing."""
    if not after:
        return {}
    rows = await connection.fetch(
        f"SELECT n.* FROM unnest($1::bigint[], $2::bigint[]) k (id, seq) CROSS JOIN LATERAL (SELECT {EVENT_COLUMNS}"
        " FROM oracle_events e WHERE e.asset_id = k.id AND e.seq > k.seq ORDER BY e.seq LIMIT $3) n",
        list(after.keys()),
        list(after.values()),
        limit,
    )
    found: dict[int, list[OracleEvent]] = {}
    for row in rows:
        found.setdefault(row["asset_id"], []).append(event_from_row(row))
    return found


def encode_events(events: Sequence[OracleEvent]) -> bytes:
    """A stream entry's `events`: a JSON list of lists, what may not fit into 64 bits as text."""
    return orjson.dumps(
        [
            (
                event.asset_id,
                event.seq,
                microseconds(event.at),
                event.kind.value,
                None if event.value is None else str(event.value),
                event.cadence_seconds,
                event.fresh_seconds,
            )
            for event in events
        ]
    )


def decode_events(data: bytes) -> list[OracleEvent]:
    """The events of a stream entry. Raises ValueError when it is none."""
    try:
        return [
            OracleEvent(
                asset_id=row[0],
                seq=row[1],
                at=instant(row[2]),
                kind=OracleEventKind(row[3]),
                value=None if row[4] is None else int(row[4]),
                cadence_seconds=row[5],
                fresh_seconds=row[6],
            )
            for row in orjson.loads(data)
        ]
    except (TypeError, IndexError, KeyError, OverflowError) as error:
        raise ValueError(f"no oracle events: {data[:80]!r}") from error
