"""From Relay's arguments to a window of a list, and from a page of rows to a connection."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Callable
from typing import Annotated, Final, TypeAlias, TypeVar

import strawberry

from api.errors import BadUserInput
from api.inputs import given
from api.nodes import Connection, PageInfo
from app.errors import quoted
from app.paging import Page, Window

Row = TypeVar("Row")
Shown = TypeVar("Shown")
C = TypeVar("C", bound=Connection)  # type: ignore[type-arg]

PAGE_DEFAULT: Final = 50
PAGE_MAX: Final = 500
_CURSOR_LENGTH_MAX: Final = 128
_KEY_MAX: Final = 2**63 - 1

First: TypeAlias = Annotated[
    int | None,
    strawberry.argument(
        description=(
            f"How many elements, from the list's beginning or after; {PAGE_DEFAULT} if left out, at most {PAGE_MAX}."
        )
    ),
]
After: TypeAlias = Annotated[str | None, strawberry.argument(description="Only elements after the one of this cursor.")]
Last: TypeAlias = Annotated[
    int | None,
    strawberry.argument(
        description=f"How many elements, from the end or before; at most {PAGE_MAX}, not together with first."
    ),
]
Before: TypeAlias = Annotated[
    str | None, strawberry.argument(description="Only elements before the one of this cursor.")
]


def window_by_id(
    *, first: int | None, after: str | None, last: int | None = None, before: str | None = None
) -> Window[int]:
    """The window of a list that is ordered by a number. Raises `BadUserInput`."""
    limit, from_end = _limit(first, last)
    return Window(limit, after=_number("after", after), before=_number("before", before), from_end=from_end)


def window_by_text(*, first: int | None, after: str | None, last: int | None, before: str | None) -> Window[str]:
    """The window of a list that is ordered by a text. Raises `BadUserInput`."""
    limit, from_end = _limit(first, last)
    return Window(limit, after=_text("after", after), before=_text("before", before), from_end=from_end)


def cursor_of(key: int | str) -> str:
    """The opaque cursor of the element with this key."""
    return urlsafe_b64encode(str(key).encode()).decode().rstrip("=")


def connect(
    connection: type[C],
    page: Page[Row],
    *,
    show: Callable[[Row], Shown],
    key: Callable[[Row], int | str],
    **more: object,
) -> C:
    """The connection of a page: `show` makes what is shown of a row, `key` gives its place."""
    cursors = [cursor_of(key(row)) for row in page.rows]
    info = PageInfo(
        has_next_page=page.has_next,
        has_previous_page=page.has_previous,
        start_cursor=cursors[0] if cursors else None,
        end_cursor=cursors[-1] if cursors else None,
    )
    return connection(nodes=[show(row) for row in page.rows], page_info=info, cursors=cursors, **more)


def _limit(first: int | None, last: int | None) -> tuple[int, bool]:
    first, last = given(first), given(last)
    if first is not None and last is not None:
        raise BadUserInput(f"first and last do not go together; got first: {first} and last: {last}. Give one of them.")
    name, count = ("last", last) if last is not None else ("first", first)
    if count is None:
        return PAGE_DEFAULT, False
    if not 0 <= count <= PAGE_MAX:
        raise BadUserInput(f"{name} must be between 0 and {PAGE_MAX}; got {count}.")
    return count, last is not None


def _text(name: str, cursor: str | None) -> str | None:
    cursor = given(cursor)
    if cursor is None:
        return None
    if 0 < len(cursor) <= _CURSOR_LENGTH_MAX and cursor.isascii():
        try:
            plain = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        except (NotBase64, UnicodeDecodeError):
            plain = ""
        if plain.isprintable() and plain and cursor_of(plain) == cursor:
            return plain
    raise BadUserInput(f"{name} is no cursor of this list; got {quoted(cursor)}. Use a cursor that it gave.")


def _number(name: str, cursor: str | None) -> int | None:
    plain = _text(name, cursor)
    if plain is None:
        return None
    if not (plain.isascii() and plain.isdigit()) or int(plain) > _KEY_MAX:
        raise BadUserInput(f"{name} is no cursor of this list; got {quoted(cursor)}. Use a cursor that it gave.")
    return int(plain)
