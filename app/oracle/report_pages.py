"""The same page of several assets' reports, in one statement: for lists of assets with their newest reports."""

from collections.abc import Collection
from typing import Final

from app.db import Connection
from app.oracle.report_rows import REPORT_COLUMNS, REPORT_SOURCE, Report, report_from_row
from app.paging import Page

_ID_MAX: Final = 2**63 - 1
"""No report's."""


async def report_pages(
    *, connection: Connection, asset_ids: Collection[int], limit: int, after: int | None
) -> dict[int, Page[Report]]:
    """Of each of these assets the first `limit` reports, newest first; with `after` those before the report of that id.

    An asset without reports has an empty page.
    """
    rows = await connection.fetch(
        "SELECT a.id AS page_of, p.*, EXISTS (SELECT 1 FROM oracle_logs l WHERE l.asset_id = a.id AND l.id >= $2)"
        " AS has_previous FROM unnest($1::bigint[]) WITH ORDINALITY a (id, number) LEFT JOIN LATERAL"
        f" (SELECT {REPORT_COLUMNS} FROM {REPORT_SOURCE} WHERE l.asset_id = a.id AND l.id < $2"
        " ORDER BY l.id DESC LIMIT $3) p ON true ORDER BY a.number, p.id DESC",
        list(asset_ids),
        _ID_MAX if after is None else after,
        limit + 1,
    )
    found: dict[int, list[Report]] = {asset_id: [] for asset_id in asset_ids}
    previous = {row["page_of"]: row["has_previous"] for row in rows}
    for row in rows:
        if row["id"] is not None:
            found[row["page_of"]].append(report_from_row(row))
    return {
        asset_id: Page(reports[:limit], has_next=len(reports) > limit, has_previous=previous[asset_id])
        for asset_id, reports in found.items()
    }
