"""Keyset pages: which part of a list is wanted, and one statement that reads it. Nothing of any one table.

A list is ordered by one unique column. A page is found by comparing that column, never by counting rows, so that it
costs the same anywhere in the list and rows that arrive meanwhile neither repeat nor hide others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import asyncpg

from app.db import Connection

K = TypeVar("K", int, str)
T = TypeVar("T")

_FETCHED_ROWS: Final = (21, 51, 101, 251, 501, 1001)
"""How many rows a statement may ask for: a few numbers, so that few statements need to be prepared and planned."""


@dataclass(frozen=True, slots=True)
class Window(Generic[K]):
    """At most `limit` rows (up to 1,000) after the key `after` and before the key `before`, in the list's order.

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
    """A list in SQL: columns, tables, conditions joined by AND with their parameters ($1...), the ordering column."""

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

    A row more than asked for tells whether the list goes on in the direction of reading; whether anything lies beyond
    a cursor is looked up only where there is one.
    """
    parameters = list(listing.parameters)
    conditions = list(listing.conditions)
    forward, backward = ("<", ">=") if listing.descending else (">", "<=")
    beyond = {"after": "false", "before": "false"}
    for name, bound, inside, outside in (
        ("after", window.after, forward, backward),
        ("before", window.before, _flip(forward), _flip(backward)),
    ):
        if bound is None:
            continue
        parameters.append(bound)
        place = f"${len(parameters)}"
        where = " AND ".join([*listing.conditions, f"{listing.key} {outside} {place}"])
        beyond[name] = f"EXISTS (SELECT 1 FROM {listing.source} WHERE {where})"
        conditions.append(f"{listing.key} {inside} {place}")
    rows_max = next(count for count in _FETCHED_ROWS if count > window.limit)
    order = "DESC" if listing.descending is not window.from_end else "ASC"
    where = " AND ".join(conditions) or "true"
    rows = await connection.fetch(
        f"SELECT page.*, ends.* FROM (SELECT {beyond['after']} AS ends_before, {beyond['before']} AS ends_after) ends"
        f" LEFT JOIN (SELECT {listing.columns}, {listing.key} AS page_key FROM {listing.source} WHERE {where}"
        f" ORDER BY {listing.key} {order} LIMIT {rows_max}) page ON true ORDER BY page_key {order}",
        *parameters,
    )
    found = [row for row in rows if row["page_key"] is not None]
    more = len(found) > window.limit
    built = [build(row) for row in found[: window.limit]]
    before: bool = rows[0]["ends_before"]
    after: bool = rows[0]["ends_after"]
    if window.from_end:
        built.reverse()
        return Page(built, has_next=after, has_previous=more or before)
    return Page(built, has_next=more or after, has_previous=before)


def _flip(comparison: str) -> str:
    return comparison.translate(str.maketrans("<>", "><"))
