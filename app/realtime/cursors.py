"""Cursors: the opaque text in which a reader is told where it stands, and tells from where to go on. Pure.

A stream's cursors begin with a letter of its own, so that one stream's cursor is refused by another.
"""

import re
from enum import StrEnum
from typing import Final

from app.errors import invalid, quoted

_DIGITS_MAX: Final = 16
_NUMBER: Final = re.compile(rf"[0-9]{{1,{_DIGITS_MAX}}}", re.ASCII)


class CursorKind(StrEnum):
    """What a cursor counts: TICKS and TRADES positions among all ticks, ASSETS entries of the audit log, ACCOUNT the
    events of one account, REPORTS the oracle's reports."""

    TICKS = "p"
    TRADES = "t"
    ASSETS = "a"
    ACCOUNT = "e"
    REPORTS = "o"


def cursor_of(kind: CursorKind, position: int) -> str:
    """The cursor of a position."""
    return f"{kind.value}{position}"


def position_of(kind: CursorKind, cursor: str) -> int:
    """The position in a cursor. Raises `Refused` (INVALID_INPUT, naming `after`) when it is none of this stream."""
    number = cursor[1:]
    if cursor[:1] != kind.value or _NUMBER.fullmatch(number) is None:
        raise invalid(
            f"after must be a cursor that an event of this very subscription carried; got {quoted(cursor)}. "
            "Leave it out to begin with a snapshot.",
            "after",
        )
    return int(number)
