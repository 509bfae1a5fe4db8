"""Where an asset's F stands for its oracle: with every reading that is recorded, taken by the engine or not yet.

The price engine writes F with its ticks. Readings that wait for it are folded in here by its own arithmetic, so that a
reading is judged by the F that it will meet, even while no engine runs.
"""

from dataclasses import dataclass
from typing import Final

from app.db import Connection
from app.pricing.model import averaged
from app.pricing.oracle_events import OracleEventKind

WAITING_MAX: Final = 10_000
"""Readings that are folded in: the last ones. With b = 0.2 what is older weighs less than a unit of 10^-12."""


@dataclass(frozen=True, slots=True)
class FundamentalStanding:
    """F in 10^-12, whether the asset never had a reading (F is its base price then), and its b in 10^-9."""

    fundamental: int
    is_first: bool
    weight: int


async def fundamental_standing(*, connection: Connection, asset_id: int) -> FundamentalStanding:
    """F as it stands. One statement. Raises LookupError for an asset that does not exist."""
    rows = await connection.fetch(
        "SELECT a.base_price, a.fundamental_weight, s.fundamental, s.reading_at IS NOT NULL AS has_reading,"
        " coalesce(s.oracle_seq, 0) AS oracle_seq, e.seq, e.kind, e.value"
        " FROM assets a LEFT JOIN price_states s ON s.asset_id = a.id LEFT JOIN LATERAL (SELECT seq, kind, value"
        " FROM oracle_events WHERE asset_id = a.id AND seq > coalesce(s.oracle_seq, 0) ORDER BY seq DESC LIMIT $2) e"
        " ON true WHERE a.id = $1 ORDER BY e.seq",
        asset_id,
        WAITING_MAX,
    )
    if not rows:
        raise LookupError(f"no asset has the id {asset_id}: its F cannot be known")
    fundamental: int = rows[0]["fundamental"] if rows[0]["has_reading"] else rows[0]["base_price"]
    for row in rows:
        if row["kind"] == OracleEventKind.READING:
            weight: int = row["fundamental_weight"]
            fundamental = averaged(row["value"], before=fundamental, fundamental_weight=weight)
        elif row["kind"] == OracleEventKind.OVERRIDE:
            fundamental = row["value"]
    is_first = rows[0]["oracle_seq"] == 0 and rows[0]["seq"] is None
    return FundamentalStanding(fundamental, is_first=is_first, weight=rows[0]["fundamental_weight"])
