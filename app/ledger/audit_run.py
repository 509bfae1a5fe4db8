"""One run of the audit: what it has found, how long it may take, and how its questions reach the database.

The audit shares nothing with the code that writes. Its modules (`audit`, `audit_*`) import none of the curve, the
journal, the admin log or the units, and repeat every formula in their own terms.
"""

from asyncio import get_running_loop
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import asyncpg

from app.db import Connection

ROWS_AT_ONCE: Final = 1_000
"""Rows fetched at a time: bounds memory, and how long the event loop waits between two fetches."""
SORT_MEMORY: Final = "64MB"
NOTHING: Final = "nothing"


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference: the rule, the row it is about, what the rule demands and what is stored (base units)."""

    check: str
    subject: str
    expected: str
    actual: str


@dataclass(frozen=True, slots=True)
class Report:
    """What an audit found. `checked_at` is the moment of the snapshot, `transfers` how many there were in it."""

    ok: bool
    checked_at: datetime
    transfers: int
    findings: list[Finding]


class OutOfTime(Exception):  # noqa: N818 - an outcome of the run, told in its report
    """The run's time limit was reached."""


@dataclass(slots=True)
class Run:
    """State of one audit. A single check may fill at most a tenth of the findings, so that it cannot hide another."""

    connection: Connection
    finding_limit: int
    deadline: float | None = None
    progress: Callable[[str], None] | None = None
    findings: list[Finding] = field(default_factory=list)
    stage: str = ""
    _by_check: Counter[str] = field(default_factory=Counter)
    _unlisted: set[str] = field(default_factory=set)

    @property
    def per_check(self) -> int:
        """How many findings one check may report."""
        return max(10, self.finding_limit // 10)

    def begin(self, stage: str) -> None:
        """Name what is being checked from now on."""
        self.stage = stage
        if self.progress is not None:
            self.progress(stage)

    def found(self, check: str, subject: str, expected: object, actual: object) -> None:
        """Record a difference, unless its check or the run has reported enough. None reads as "nothing"."""
        if len(self.findings) >= self.finding_limit or self._by_check[check] >= self.per_check:
            self._unlisted.add(check)
            return
        self._by_check[check] += 1
        self.findings.append(Finding(check, subject, _text(expected), _text(actual)))

    def end(self) -> None:
        """Say which checks have found more than is listed."""
        if self._unlisted:
            checks = ", ".join(sorted(self._unlisted))
            self.findings.append(Finding("audit.more", checks, "every difference listed", "further differences"))

    def compare(self, check: str, subject: str, pairs: Iterable[tuple[str, object, object]]) -> None:
        """Record each (name, expected, actual) of a row that differs, under `check`.name."""
        for name, expected, actual in pairs:
            if expected != actual:
                self.found(f"{check}.{name}", subject, expected, actual)

    async def differences(self, check: str, sql: str, *arguments: object) -> None:
        """Record every row of `sql`, whose first three columns are subject, expected and actual."""
        await self._limit_statement()
        for row in await self.connection.fetch(f"{sql} LIMIT {self.per_check + 1}", *arguments):
            self.found(check, row[0], row[1], row[2])

    async def rows(self, sql: str, *arguments: object) -> AsyncIterator[asyncpg.Record]:
        """Every row of `sql`, fetched `ROWS_AT_ONCE` at a time."""
        await self._limit_statement()
        count = 0
        async for row in self.connection.cursor(sql, *arguments, prefetch=ROWS_AT_ONCE):
            yield row
            count += 1
            if count % ROWS_AT_ONCE == 0:
                await self._limit_statement()

    async def _limit_statement(self) -> None:
        left_ms = 0
        if self.deadline is not None:
            left_ms = int((self.deadline - get_running_loop().time()) * 1000)
            if left_ms <= 0:
                raise OutOfTime
        await self.connection.execute(f"SET LOCAL statement_timeout = {left_ms}")


def _text(value: object) -> str:
    return NOTHING if value is None else str(value)
