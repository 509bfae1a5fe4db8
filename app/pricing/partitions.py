"""The daily partitions of `ticks` and `candles_s1`: made when a row needs them, dropped when they are old.

Each takes a UTC day and is named by it, ticks_20261122. It is made beside its table and attached, which holds up
neither readers nor writers. To a reader a day without a partition is a day without rows.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

import asyncpg
import structlog

from app.db import Connection, Database
from app.pricing.ticks import TICKS_DROPPED

PARTITIONS_LOCK: Final = 0x70617274
"""Advisory: who makes or drops partitions does it alone."""
DAYS_AT_ONCE: Final = 30
"""Made in one transaction, a quarter of a second: who has years to catch up with and runs out of time has made some."""
_DAY: Final = timedelta(days=1)
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_DAY_SECONDS: Final = 86_400

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Table:
    """A table in daily partitions. `in_seconds`: its key is Unix seconds, not a timestamp."""

    name: str
    in_seconds: bool

    def partition(self, day: date) -> str:
        return f"{self.name}_{day:%Y%m%d}"

    def bounds(self, day: date) -> str:
        """FOR VALUES ..., from the day's first moment to before the next day's."""
        return f"FOR VALUES FROM ({self._midnight(day)}) TO ({self._midnight(day + _DAY)})"

    def _midnight(self, day: date) -> str:
        if self.in_seconds:
            return str((day.toordinal() - _EPOCH_DAY) * _DAY_SECONDS)
        return f"'{day.isoformat()} 00:00:00+00'"


TABLES: Final = (_Table("ticks", in_seconds=False), _Table("candles_s1", in_seconds=True))


class Partitions:
    """What one process knows of the partitions. To know of one that is gone is harmless: the write that is refused for
    it says `forget`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: set[date] = set()

    async def ensure(self, days: Iterable[date]) -> None:
        """Make both tables' partitions of these UTC days, unless they are known to exist.

        Takes a connection of its own when something is to be made. Never call it within a transaction that has written
        prices: it waits for others who make partitions.
        """
        missing = sorted(set(days) - self._known)
        if not missing:
            return
        for begin in range(0, len(missing), DAYS_AT_ONCE):
            some = missing[begin : begin + DAYS_AT_ONCE]
            await self._make(some)
            self._known.update(some)

    def forget(self) -> None:
        """Look again the next time."""
        self._known.clear()

    async def _make(self, days: Iterable[date]) -> None:
        async with self._database.transaction() as unit:
            await unit.connection.execute("SELECT pg_advisory_xact_lock($1)", PARTITIONS_LOCK)
            attached = await _attached(unit.connection)
            for day in days:
                for table in TABLES:
                    # One whose detachment was interrupted takes no rows any more.
                    if attached.get(table.partition(day), True):
                        await _make(unit.connection, table, day)


async def drop_older(*, database: Database, days: int, now: datetime) -> list[str]:
    """Drop the partitions all of whose rows are more than `days` days older than `now`; returns their names.

    Writers and readers go on meanwhile: a partition is detached concurrently before it is dropped, which waits for the
    transactions that read the table and holds up nobody. Call it outside any transaction; when several processes do,
    one does the work. Raises ValueError for less than one day.
    """
    if days < 1:
        raise ValueError(f"ticks are kept for at least 1 day; got {days}")
    # The day that lies `days` days back still has rows that are younger.
    first_kept = now.astimezone(UTC).date() - timedelta(days=days)
    async with database.acquire() as connection:
        for table in TABLES:
            for name, pending in (await _attached(connection)).items():
                if _is_older(name, table, first_kept):
                    if table.name == "ticks":
                        await _note_dropped(connection, name)
                    await _detach(connection, table, name, pending=pending)
    async with database.transaction() as unit:
        return await _drop_detached(unit.connection, first_kept)


def _is_older(name: str, table: _Table, first_kept: date) -> bool:
    """Partitions' names of one table sort as their days do."""
    return name.startswith(f"{table.name}_") and len(name) == len(table.name) + 9 and name < table.partition(first_kept)


async def _attached(connection: Connection) -> dict[str, bool]:
    """The partitions that there are, and whether an interrupted detachment of each is yet to be finished."""
    rows = await connection.fetch(
        "SELECT c.relname, i.inhdetachpending FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
        " WHERE i.inhparent = ANY($1::regclass[])",
        [table.name for table in TABLES],
    )
    return {row["relname"]: row["inhdetachpending"] for row in rows}


async def _make(connection: Connection, table: _Table, day: date) -> None:
    """CREATE TABLE ... PARTITION OF would lock everybody out of the table; ATTACH does not."""
    name = table.partition(day)
    # One of this name that is not attached is what an interrupted `drop_older` left.
    await connection.execute(f"DROP TABLE IF EXISTS {name}")
    await connection.execute(f"CREATE TABLE {name} (LIKE {table.name} INCLUDING ALL)")
    await connection.execute(f"ALTER TABLE {table.name} ATTACH PARTITION {name} {table.bounds(day)}")


async def _note_dropped(connection: Connection, name: str) -> None:
    """Write down how far the partition's positions reach, before anything of it is gone.

    A tick's time is its cause's, and an engine that lagged wrote it later: positions do not end where a day ends, and
    without this a reader could resume across a hole.
    """
    await connection.execute(
        f'INSERT INTO stream_heads (stream, "position") SELECT $1, max("position") FROM {name}'
        ' HAVING max("position") IS NOT NULL ON CONFLICT (stream) DO UPDATE'
        ' SET "position" = greatest(stream_heads."position", excluded."position")',
        TICKS_DROPPED,
    )


async def _detach(connection: Connection, table: _Table, name: str, *, pending: bool) -> None:
    how = "FINALIZE" if pending else "CONCURRENTLY"
    try:
        await connection.execute(f"ALTER TABLE {table.name} DETACH PARTITION {name} {how}")
    except asyncpg.PostgresError as error:
        # Another process may be at it, or a reader does not end: the next time will do.
        _log.warning("partitions.not_detached", partition=name, error=repr(error))


async def _drop_detached(connection: Connection, first_kept: date) -> list[str]:
    """Drop what is detached and old. Under the lock, so that none of these names is being made again meanwhile."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", PARTITIONS_LOCK)
    rows = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND NOT relispartition"
        " AND relname ~ ('^(' || array_to_string($1::text[], '|') || ')_[0-9]{8}$')"
        " AND pg_table_is_visible(oid) ORDER BY relname",
        [table.name for table in TABLES],
    )
    names = [row["relname"] for row in rows if any(_is_older(row["relname"], table, first_kept) for table in TABLES)]
    for name in names:
        if name.startswith("ticks_"):
            await _note_dropped(connection, name)
        await connection.execute(f"DROP TABLE {name}")
    return names
