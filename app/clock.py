"""The wall clock, read only at the edges. Domain code takes time as an argument; money paths use the database's."""

from datetime import UTC, datetime


def now() -> datetime:
    """This machine's time in UTC."""
    return datetime.now(UTC)
