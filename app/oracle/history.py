"""What has been before, as far as a new reading is judged by it: what was used, what waits, what moved, and samples."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from app.db import Connection
from app.oracle.cases import Pending, UsedEvidence

if TYPE_CHECKING:
    import asyncpg

USED_REPORTS_MAX: Final = 200
"""The last accepted search readings whose evidence counts as used."""
PENDING_MAX: Final = 50
"""Quarantined readings, the newest, that a new one may confirm."""
MOVES_WINDOW: Final = timedelta(hours=24)
"""Within which the moves of search readings add up."""
SAMPLES_MAX: Final = 120
"""Of a source, for its average over time: the last one in each of so many equal parts of the time."""


@dataclass(frozen=True, slots=True)
class SearchHistory:
    """Of one asset. `moved`: what search readings moved by themselves within `MOVES_WINDOW`, summed, in 10^-9 of F."""

    used: tuple[UsedEvidence, ...]
    pending: tuple[Pending, ...]
    moved: int


_EVIDENCE: Final = (
    " JOIN oracle_evidence v ON v.log_id = l.id AND v.counts WHERE l.figure IS NOT NULL ORDER BY l.id DESC, v.ordinal"
)


async def search_history(*, connection: Connection, asset_id: int, at: datetime) -> SearchHistory:
    """What search readings of the asset are judged by at `at`."""
    used = await connection.fetch(
        "SELECT l.figure, v.source, v.content_hash, v.excerpt FROM (SELECT id, figure FROM oracle_logs"
        " WHERE asset_id = $1 AND method = 'SEARCH_LLM' AND outcome = 'ACCEPTED' ORDER BY id DESC"
        f" LIMIT {USED_REPORTS_MAX}) l{_EVIDENCE}",
        asset_id,
    )
    waiting = await connection.fetch(
        "SELECT l.id, l.suggested_price, l.figure, l.is_rejected, v.source, v.content_hash, v.excerpt"
        " FROM (SELECT id, suggested_price, figure, outcome = 'REJECTED' AS is_rejected FROM oracle_logs"
        " WHERE asset_id = $1 AND method = 'SEARCH_LLM' AND verdict = 'QUARANTINED'"
        " AND (outcome = 'QUARANTINED' OR resolution = 'REJECTED')"
        f" AND expires_at > $2 ORDER BY id DESC LIMIT {PENDING_MAX}) l{_EVIDENCE}",
        asset_id,
        at,
    )
    moved: int = await connection.fetchval(
        # What an admin accepted is a person's decision: the cap is on what moves F by itself.
        "SELECT coalesce(sum(move), 0) FROM oracle_logs WHERE asset_id = $1 AND method = 'SEARCH_LLM'"
        " AND event_seq IS NOT NULL AND at > $2::timestamptz - $3::interval AND resolution IS NULL",
        asset_id,
        at,
        MOVES_WINDOW,
    )
    return SearchHistory(tuple(_used(row) for row in used), _pending(waiting), moved)


async def feed_samples(
    *, connection: Connection, asset_id: int, sources: Collection[str], since: datetime, until: datetime
) -> dict[str, tuple[tuple[datetime, str], ...]]:
    """What these feeds of the asset answered after `since` and up to `until`, ascending; `SAMPLES_MAX` of each at most.

    A source without an answer is missing.
    """
    if not sources:
        return {}
    part = max((until - since) / SAMPLES_MAX, timedelta(milliseconds=1))
    rows = await connection.fetch(
        "SELECT DISTINCT ON (source, floor(extract(epoch FROM $4::timestamptz - retrieved_at) / $5::float8))"
        " source, retrieved_at, value FROM oracle_evidence WHERE asset_id = $1 AND source = ANY($2::text[])"
        " AND retrieved_at > $3 AND retrieved_at <= $4 AND value IS NOT NULL"
        " ORDER BY source, floor(extract(epoch FROM $4::timestamptz - retrieved_at) / $5::float8) DESC,"
        " retrieved_at DESC",
        asset_id,
        list(sources),
        since,
        until,
        part.total_seconds(),
    )
    found: dict[str, list[tuple[datetime, str]]] = {}
    for row in rows:
        found.setdefault(row["source"], []).append((row["retrieved_at"], row["value"]))
    return {source: tuple(samples) for source, samples in found.items()}


def _used(row: "asyncpg.Record") -> UsedEvidence:
    return UsedEvidence(row["source"], row["figure"], row["content_hash"], row["excerpt"])


def _pending(rows: "list[asyncpg.Record]") -> tuple[Pending, ...]:
    """A quarantined reading for each id, in the rows' order."""
    evidence: dict[int, list[UsedEvidence]] = {}
    heads = {row["id"]: row for row in rows}
    for row in rows:
        evidence.setdefault(row["id"], []).append(_used(row))
    return tuple(
        Pending(
            report_id, row["suggested_price"], row["figure"], tuple(evidence[report_id]), is_rejected=row["is_rejected"]
        )
        for report_id, row in heads.items()
    )
