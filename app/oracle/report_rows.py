"""Reports as rows: what a row holds, how rows are written, and the position that each is given. Nothing here decides.

The head of the stream is the last thing that a transaction locks, and one statement moves it and writes everything that
has a position: positions are gapless when given, and in commit order.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple

from app.bus import Bus
from app.db import Connection, Unit
from app.oracle.kinds import Evidence, OracleMethod, OracleOutcome

if TYPE_CHECKING:
    import asyncpg

ORACLE_HEAD: Final = "oracle"
"""The row of `stream_heads` of all reports."""
_UNSTORABLE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class Resolution(StrEnum):
    """How a quarantine ended: by an admin (ACCEPTED, REJECTED), by a second reading (CONFIRMED), or by itself."""

    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    CONFIRMED = "CONFIRMED"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True, slots=True)
class Report:
    """A reading, taken or not, as it stands; its evidence is read by itself.

    `position`: its place in the stream of reports, given anew when the outcome changes. `verdict`: the outcome as
    judged. Prices (`suggested_price`, `fundamental_before`, `fundamental_after`) in 10^-12, `delta_percent` in 10^-9
    percent, `confidence` in 10^-9, `move` in 10^-9 of F, `cost` in 10^-6 US dollars. `fundamental_after` is None until
    the price engine has taken what came of the report, and for good where nothing did. `resolved_by` is the admin who
    ended a quarantine or set an override.
    """

    id: int
    position: int
    asset_id: int
    run_id: int | None
    at: datetime
    method: OracleMethod
    verdict: OracleOutcome
    outcome: OracleOutcome
    reasons: tuple[str, ...]
    delta_percent: int | None
    suggested_price: int | None
    figure: str | None
    confidence: int | None
    summary: str | None
    fundamental_before: int
    fundamental_after: int | None
    move: int
    event_seq: int | None
    model: str | None
    prompt_hash: str | None
    cost: int
    latency_ms: int | None
    expires_at: datetime | None
    resolution: Resolution | None
    resolved_at: datetime | None
    resolved_by: str | None
    reason: str | None


_STORED: Final = (
    "id", "position", "asset_id", "run_id", "at", "method", "verdict", "outcome", "reasons", "delta_percent",
    "suggested_price", "figure", "confidence", "summary", "fundamental_before", "move", "event_seq", "model",
    "prompt_hash", "cost", "latency_ms", "expires_at", "resolution", "resolved_at", "resolved_by", "reason",
)  # fmt: skip
REPORT_COLUMNS: Final = ", ".join(f'l."{name}"' for name in _STORED) + (
    ", coalesce(l.fundamental_after, e.fundamental_after) AS fundamental_after"
)
"""Of `REPORT_SOURCE`."""
REPORT_SOURCE: Final = "oracle_logs l LEFT JOIN oracle_events e ON e.asset_id = l.asset_id AND e.seq = l.event_seq"


def report_from_row(row: "asyncpg.Record") -> Report:
    """The report in a row of `REPORT_COLUMNS`."""
    values = {name: row[name] for name in _STORED}
    resolution = values.pop("resolution")
    return Report(
        **values
        | {
            "method": OracleMethod(values["method"]),
            "verdict": OracleOutcome(values["verdict"]),
            "outcome": OracleOutcome(values["outcome"]),
            "reasons": tuple(values["reasons"].split()),
        },
        resolution=None if resolution is None else Resolution(resolution),
        fundamental_after=row["fundamental_after"],
    )


# ---------------------------------------------------------------------------------------------------- what is written
class NewLog(NamedTuple):
    """A row of `oracle_logs` to be, without its id and position. Units as in `Report`."""

    asset_id: int
    run_id: int | None
    at: datetime
    method: str
    outcome: str
    reasons: str
    delta_percent: int | None
    suggested_price: int | None
    figure: str | None
    confidence: int | None
    summary: str | None
    fundamental_before: int
    move: int
    event_seq: int | None
    model: str | None
    prompt_hash: str | None
    inputs: str | None
    cost: int
    latency_ms: int | None
    expires_at: datetime | None
    resolved_by: str | None
    reason: str | None


class Ended(NamedTuple):
    """A quarantine's end: what its report becomes."""

    id: int
    outcome: str
    event_seq: int | None
    move: int
    resolution: str
    resolved_at: datetime
    resolved_by: str | None
    reason: str | None


class _EvidenceRow(NamedTuple):
    """Evidence of the `place`-th new report."""

    place: int
    asset_id: int
    ordinal: int
    source: str
    url: str
    title: str | None
    excerpt: str
    content_hash: str
    retrieved_at: datetime
    value: str | None
    counts: bool
    body_url: str | None


_TYPES: Final = {
    "id": "bigint", "place": "bigint", "asset_id": "bigint", "run_id": "bigint", "at": "timestamptz",
    "delta_percent": "numeric", "suggested_price": "numeric", "confidence": "bigint", "fundamental_before": "numeric",
    "move": "numeric", "event_seq": "bigint", "cost": "bigint", "latency_ms": "int", "expires_at": "timestamptz",
    "resolved_at": "timestamptz", "ordinal": "int", "retrieved_at": "timestamptz", "counts": "boolean",
}  # fmt: skip
"""Of columns; all others are text."""


def _unnest(fields: Sequence[str], *, after: int) -> str:
    """unnest($n::type[], ...) of the parameters after number `after`."""
    return "unnest(" + ", ".join(f"${n}::{_TYPES.get(f, 'text')}[]" for n, f in enumerate(fields, after + 1)) + ")"


def _names(fields: Sequence[str]) -> str:
    return ", ".join(f'"{field}"' for field in fields)


_ENDED: Final = Ended._fields[1:]
_EVIDENCE: Final = _EvidenceRow._fields[1:]
_WRITTEN: Final = ", ".join(f'"{name}"' for name in _STORED) + ", NULL::numeric AS fundamental_after"
_WRITE: Final = f"""
WITH head AS (
    UPDATE stream_heads SET position = position + $1 WHERE stream = '{ORACLE_HEAD}' RETURNING position - $1 AS base
), new AS (
    INSERT INTO oracle_logs (position, verdict, {_names(NewLog._fields)})
    SELECT head.base + n.number, n.outcome, {", ".join(f'n."{name}"' for name in NewLog._fields)}
    FROM head, {_unnest(NewLog._fields, after=2)} WITH ORDINALITY AS n ({_names(NewLog._fields)}, number)
    ORDER BY n.number RETURNING {_WRITTEN}
), evidence AS (
    INSERT INTO oracle_evidence (log_id, {_names(_EVIDENCE)})
    SELECT new.id, {", ".join(f'v."{name}"' for name in _EVIDENCE)}
    FROM head, {_unnest(_EvidenceRow._fields, after=2 + len(NewLog._fields))} AS v ({_names(_EvidenceRow._fields)})
    JOIN new ON true WHERE new.position = head.base + v.place ORDER BY v.place, v.ordinal
), ended AS (
    UPDATE oracle_logs l SET position = head.base + $2 + d.number, {", ".join(f"{f} = d.{f}" for f in _ENDED)}
    FROM head,
    {_unnest(Ended._fields, after=2 + len(NewLog._fields) + len(_EvidenceRow._fields))}
    WITH ORDINALITY AS d ({_names(Ended._fields)}, number)
    WHERE l.id = d.id
    RETURNING {", ".join(f'l."{name}"' for name in _STORED)}, NULL::numeric AS fundamental_after
)
SELECT * FROM new UNION ALL SELECT * FROM ended ORDER BY position
"""


async def write_reports(
    connection: Connection,
    *,
    new: Sequence[NewLog] = (),
    evidence: Sequence[Sequence[Evidence]] = (),
    ended: Sequence[Ended] = (),
) -> list[Report]:
    """Write new reports with their evidence (in the same order), then the ends of quarantines; all as they stand now.

    Their positions are in this order. Lock whatever else the transaction locks before: the stream's head, which this
    takes, is held until the commit, and every other writer of reports waits for it.
    """
    if not new and not ended:
        return []
    rows = [
        _evidence_row(place, log.asset_id, ordinal, each)
        for place, log, pieces in zip(count(1), new, evidence, strict=False)
        for ordinal, each in enumerate(pieces, 1)
    ]
    written = await connection.fetch(
        _WRITE,
        len(new) + len(ended),
        len(new),
        *_columns(new, NewLog._fields),
        *_columns(rows, _EvidenceRow._fields),
        *_columns(ended, Ended._fields),
    )
    if len(written) != len(new) + len(ended):
        raise LookupError(f"{len(new) + len(ended)} reports were to be written, and {len(written)} were")
    return [report_from_row(row) for row in written]


async def write_texts(connection: Connection, *, evidence: Sequence[Evidence], at: datetime) -> None:
    """Keep the texts of pages, each content once. In the order of their hashes, so that no two writers deadlock."""
    texts = {each.content_hash: each.text for each in evidence if each.text is not None}
    if not texts:
        return
    hashes = sorted(texts)
    await connection.execute(
        "INSERT INTO oracle_texts (content_hash, text, stored_at) SELECT t.content_hash, t.text, $3"
        " FROM unnest($1::text[], $2::text[]) AS t (content_hash, text) ORDER BY t.content_hash ON CONFLICT DO NOTHING",
        hashes,
        [texts[content_hash] for content_hash in hashes],
        at,
    )


def tell(unit: Unit, bus: Bus | None, asset_ids: Sequence[int]) -> None:
    """Tell, once it is committed, that these assets have reports that are new or have changed."""
    if bus is not None:
        unit.after_commit(lambda: bus.publish_changes(reports=asset_ids))


def storable(text: str) -> str:
    """`text` with a blank in place of each character that cannot be stored, or would let it pose as another text.

    These are controls (but for line breaks and tabs), lone surrogates, separators and bidirectional controls.
    """
    return _UNSTORABLE.sub(" ", text)


def _evidence_row(place: int, asset_id: int, ordinal: int, evidence: Evidence) -> _EvidenceRow:
    return _EvidenceRow(
        place=place,
        asset_id=asset_id,
        ordinal=ordinal,
        source=evidence.source,
        url=storable(evidence.url),
        title=None if evidence.title is None else storable(evidence.title),
        excerpt=evidence.excerpt,
        content_hash=evidence.content_hash,
        retrieved_at=evidence.retrieved_at,
        value=evidence.value,
        counts=evidence.counts,
        body_url=evidence.body_url,
    )


def _columns(rows: Sequence[tuple[object, ...]], fields: Sequence[str]) -> Sequence[Sequence[object]]:
    return list(zip(*rows, strict=True)) if rows else [()] * len(fields)
