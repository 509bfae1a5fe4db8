"""Keyset pages: which part of a list is wanted, and one statement that reads it. Nothing of any one table.

A list is ordered by one unique column. A page is found by comparing that column, never by counting rows, so that it
costs the same anywhere in the list and rows that arrive meanwhile neither repeat nor hide others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import asyncpg

from app.db import Connection

K = TypeVar("K", int, str)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Window(Generic[K]):
    """At most `limit` rows after the key `after` and before the key `before`, in the list's order.

    The first of them, or with `from_end` the last.
    """

    limit: int
    after: K | None = None
    before: K | None = None
    from_end: bool = False


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Rows in the list's order, and whether the list goes on beyond them on either side."""

    rows: list[T]
    has_next: bool
    has_previous: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """A list in SQL: its columns, tables with conditions joined by AND, the parameters ($1...) and the ordering column."""

    columns: str
    source: str
    conditions: Sequence[str]
    parameters: Sequence[object]
    key: str
    descending: bool


async def fetch_page(
    connection: Connection, listing: Listing, window: Window[K], build: Callable[[asyncpg.Record], T]
) -> Page[T]:
    """The window's page of the list, in one statement.

    One row more than asked for tells whether the list goes on in the direction of reading; whether anything lies on the
    other side is only a question when a cursor set that side's end.
    """
    parameters = list(listing.parameters)
    conditions = list(listing.conditions)
    beyond, behind = ("<", ">=") if listing.descending else (">", "<=")
    other_side = "false"
    for bound, inside, outside, opens in (
        (window.after, beyond, behind, not window.from_end),
        (window.before, _flip(beyond), _flip(behind), window.from_end),
    ):
        if bound is None:
            continue
        parameters.append(bound)
        place = f"${len(parameters)}"
        if opens:
            where = " AND ".join([*listing.conditions, f"{listing.key} {outside} {place}"])
            other_side = f"EXISTS (SELECT 1 FROM {listing.source} WHERE {where})"
        conditions.append(f"{listing.key} {inside} {place}")
    order = "DESC" if listing.descending is not window.from_end else "ASC"
    where = " AND ".join(conditions) or "true"
    rows = await connection.fetch(
        f"SELECT page.*, side.other_side FROM (SELECT {other_side} AS other_side) side LEFT JOIN LATERAL ("
        f"SELECT true AS is_row, {listing.columns} FROM {listing.source} WHERE {where}"
        f" ORDER BY {listing.key} {order} LIMIT {window.limit + 1}) page ON true",
        *parameters,
    )
    found = [row for row in rows if row["is_row"]]
    more = len(found) > window.limit
    built = [build(row) for row in found[: window.limit]]
    behind_us: bool = rows[0]["other_side"]
    if window.from_end:
        built.reverse()
        return Page(built, has_next=behind_us, has_previous=more)
    return Page(built, has_next=more, has_previous=behind_us)


def _flip(comparison: str) -> str:
    return comparison.translate(str.maketrans("<>", "><"))
