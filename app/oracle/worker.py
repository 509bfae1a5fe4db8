"""The oracle as it runs: claims what is due, runs it, records what came of it, and schedules the next runs.

One task claims, one records (what ended together goes into one transaction), every run is a task of its own, and
beside them one looks at staleness, budgets and standing, and one hears what Redis tells. PostgreSQL is the truth: a
worker that dies leaves claims that run out, one that PostgreSQL was away for finds out there what it may still record.
What a run does stands in `runner`, what is recorded in `reports`, who may run what in `claims`.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final, Protocol

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.bus import CHANGES_STREAM, Bus, decode_changes
from app.db import LOST, Connection, Database
from app.oracle import cadence, claims
from app.oracle.claims import Claim, Failure
from app.oracle.metrics import OracleMetrics
from app.oracle.quarantine import expire_quarantines
from app.oracle.reports import Draft, record
from app.oracle.runner import RunFailed
from app.oracle.staleness import watch_staleness
from app.oracle.steps import OnStep, Step, unheard
from app.tasks import end

POLL_SECONDS: Final = 1.0
"""Between looks at what is due, at most."""
POLL_PAUSE_SECONDS: Final = 0.005
"""The least between two."""
FEED_SHARE: Final = 4
"""One of so many runs at once is a feed's alone: feeds go on while all searches wait for a slow provider."""
MARGIN_SECONDS: Final = {True: 30, False: 10}
"""By how much a run's deadline is before the end of its claim, for searches and for feeds: recording takes time too."""
TOGETHER_SECONDS: Final = 0.02
"""How long what has ended waits for feeds that were claimed with it."""
RECORDED_MAX: Final = 100
"""Runs in one transaction."""
RECORD_SECONDS_MAX: Final = 10.0
"""A transaction that takes longer is taken for lost."""
RETRY_SECONDS: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Between attempts while PostgreSQL is away; the last one from then on."""
LOOK_SECONDS: Final = 5.0
"""Between looks at staleness, budgets and standing."""
BLOCK_MS: Final = 400
"""How long a read waits for an entry: below every client's socket timeout."""
REDIS_RETRY_SECONDS: Final = 1.0
STOP_SECONDS_MAX: Final = 0.4
"""For the claim under way and for the records under way, when asked to stop; and the same for releasing claims."""
REPORT_SECONDS: Final = 60.0

_log = structlog.get_logger(__name__)


class Runs(Protocol):
    """What gathers and judges: `app.oracle.runner.Runner`."""

    async def run(self, claim: Claim) -> Draft:
        """What the run comes to. Raises `RunFailed` when there is nothing to judge."""


class BudgetsLeft(Protocol):
    """What knows the budgets: `app.oracle.budgets.Budgets`."""

    async def left(self) -> Mapping[str, int]:
        """Requests of each provider until UTC midnight."""


@dataclass(slots=True)
class Figures:
    """What this worker has done since it started."""

    claimed: int = 0
    recorded: int = 0
    failed: int = 0
    writes: int = 0
    stumbled: int = 0


@dataclass(frozen=True, slots=True)
class _Ended:
    """A run that is over: its draft, or why there is none. `began` by the loop's clock."""

    claim: Claim
    began: float
    outcome: Draft | str


class OracleWorker:
    """An oracle worker. `run` ends after `stop`, with every claim released."""

    def __init__(
        self,
        database: Database,
        redis: Redis | None,
        bus: Bus,
        runner: Runs,
        *,
        concurrency: int,
        budgets: BudgetsLeft | None = None,
        metrics: OracleMetrics | None = None,
        on_step: OnStep = unheard,
    ) -> None:
        """`bus` tells of reports and readings. Redis may be away, or None. `concurrency`: runs at once."""
        self._database = database
        self._redis = redis
        self._bus = bus
        self._runner = runner
        self._concurrency = concurrency
        self._searches_max = max(concurrency - concurrency // FEED_SHARE, 1)
        self._budgets = budgets
        self._metrics = metrics or OracleMetrics()
        self._on_step = on_step
        self._runs: dict[asyncio.Task[None], Claim] = {}
        self._ended: deque[_Ended] = deque()
        self._held: dict[tuple[int, int], Claim] = {}
        """Claims that are neither ended in PostgreSQL nor given up, by asset and run."""
        self._factor: Fraction | None = Fraction(1)
        self._wake = asyncio.Event()
        self._over = asyncio.Event()
        """Some runs have ended."""
        self._stopping = asyncio.Event()
        self._failures = 0
        self.figures = Figures()

    @property
    def running(self) -> int:
        """Runs under way."""
        return len(self._runs)

    @property
    def _searching(self) -> int:
        """Searches that are under way or not yet recorded."""
        return sum(claim.is_search for claim in self._held.values())

    def stop(self) -> None:
        """Drop the runs under way, release their claims, end."""
        self._stopping.set()
        self._wake.set()

    async def run(self) -> None:
        """Work until `stop`. Restarts of PostgreSQL and Redis are waited for."""
        claiming = asyncio.create_task(self._keep_claiming(), name="oracle-claims")
        recording = asyncio.create_task(self._keep_recording(), name="oracle-records")
        beside = [
            asyncio.create_task(work, name=f"oracle-{name}")
            for name, work in (
                ("looks", self._keep_looking()),
                ("wake-ups", self._keep_hearing()),
                ("report", self._keep_reporting()),
            )
        ]
        try:
            await self._stopping.wait()
            # What is claimed must be known here, or nobody could release it.
            await asyncio.wait({claiming}, timeout=STOP_SECONDS_MAX)
            await end([claiming, *beside, *self._runs])
            self._over.set()
            await asyncio.wait({recording}, timeout=STOP_SECONDS_MAX)
        finally:
            await end([claiming, recording, *beside, *self._runs])
            await asyncio.shield(self._retire())

    # ------------------------------------------------------------------------------------------------ claiming

    async def _keep_claiming(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            pause_s = POLL_SECONDS
            try:
                room = self._concurrency - len(self._held)
                if room > 0:
                    async with self._database.acquire() as connection:
                        pause_s = await self.claim(connection, room=room)
                self._failures = 0
            except Exception as error:
                await self._stumble("claim", error)
                continue
            await asyncio.sleep(POLL_PAUSE_SECONDS)
            if not self._stopping.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._wake.wait()

    async def claim(self, connection: Connection, *, room: int) -> float:
        """Claim up to `room` runs that are due, and begin them; seconds until there may be more."""
        searches = min(self._searches_max - self._searching, room)
        claimed = await claims.claim(connection=connection, limit=room, searches=searches, factor=self._factor)
        self.figures.claimed += len(claimed)
        for claim in claimed:
            self._held[claim.asset_id, claim.run_id] = claim
            task = asyncio.create_task(self._run(claim), name=f"oracle-{claim.asset_id}")
            self._runs[task] = claim
            task.add_done_callback(self._run_ended)
        if len(claimed) == room:
            return POLL_SECONDS
        with_searches = self._searching < self._searches_max
        seconds = await claims.seconds_until_due(connection=connection, with_searches=with_searches)
        return POLL_SECONDS if seconds is None else min(seconds, POLL_SECONDS)

    def _run_ended(self, task: asyncio.Task[None]) -> None:
        claim = self._runs.pop(task)
        if task.cancelled() and not self._stopping.is_set():
            # By nobody here: something that the run waited for was.
            now = asyncio.get_running_loop().time()
            self._ended.append(_Ended(claim, now, "was cancelled"))
            self._over.set()

    async def _run(self, claim: Claim) -> None:
        """One run, however it ends. One asset must not hold up the others."""
        began = asyncio.get_running_loop().time()
        seconds_max = claim.lease_seconds - MARGIN_SECONDS[claim.is_search]
        outcome: Draft | str
        try:
            self._on_step(Step.CLAIMED)
            async with asyncio.timeout(seconds_max) as limit:
                outcome = await self._runner.run(claim)
        except RunFailed as failed:
            outcome = failed.detail
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                outcome = f"took longer than {seconds_max} s"
            else:
                _log.error("oracle.run_broke", asset_id=claim.asset_id, run_id=claim.run_id, exc_info=error)
                outcome = f"an unexpected error: {error!r}"
        self._ended.append(_Ended(claim, began, outcome))
        self._over.set()

    # ------------------------------------------------------------------------------------------------ recording

    async def _keep_recording(self) -> None:
        while self._ended or not self._stopping.is_set():
            if not self._ended:
                self._over.clear()
                await self._over.wait()
                continue
            if any(not claim.is_search for claim in self._runs.values()):
                await asyncio.sleep(TOGETHER_SECONDS)
            batch = [self._ended.popleft() for _ in range(min(len(self._ended), RECORDED_MAX))]
            try:
                await self._record(batch)
            except Exception as error:
                # Stored or not: PostgreSQL knows, and refuses what it has.
                self._ended.extendleft(reversed([ended for ended in batch if self._may_count(ended)]))
                await self._stumble("record", error)

    def _may_count(self, ended: _Ended) -> bool:
        """Whether its claim can still be ours. Whoever takes it over runs the asset again."""
        age_s = asyncio.get_running_loop().time() - ended.began
        if age_s < ended.claim.lease_seconds:
            return True
        self._held.pop((ended.claim.asset_id, ended.claim.run_id), None)
        return False

    async def _record(self, batch: Sequence[_Ended]) -> None:
        """Record what ended together. What the database refuses is found out by recording one at a time."""
        drafts = [ended for ended in batch if isinstance(ended.outcome, Draft)]
        failed = [Failure(ended.claim, ended.outcome) for ended in batch if isinstance(ended.outcome, str)]
        if drafts:
            failed += await self._record_drafts(drafts)
        if failed:
            # A transaction of its own: it takes no lock that recording takes after others.
            async with asyncio.timeout(RECORD_SECONDS_MAX), self._database.transaction() as unit:
                await claims.fail(connection=unit.connection, failures=failed)
            self.figures.failed += len(failed)
            for failure in failed:
                _log.warning("oracle.run_failed", asset_id=failure.claim.asset_id, error=failure.detail[:200])
                self._metrics.failed(failure.claim)
        if len(self._held) >= self._concurrency or self._searching >= self._searches_max:
            self._wake.set()
        for ended in batch:
            self._held.pop((ended.claim.asset_id, ended.claim.run_id), None)

    async def _record_drafts(self, batch: Sequence[_Ended]) -> list[Failure]:
        """Those that cannot be recorded, which others must not suffer from. Raises what passes by itself."""
        try:
            await self._record_together(batch)
        except LOST:
            raise
        except Exception as error:
            if len(batch) == 1:
                claim = batch[0].claim
                _log.error("oracle.not_recorded", asset_id=claim.asset_id, run_id=claim.run_id, exc_info=error)
                return [Failure(claim, f"could not be recorded: {error!r}")]
            return [failure for ended in batch for failure in await self._record_drafts([ended])]
        return []

    async def _record_together(self, batch: Sequence[_Ended]) -> None:
        self._metrics.begin()
        now = asyncio.get_running_loop().time()
        drafts = [
            replace(ended.outcome, due_at=ended.claim.due_at(elapsed_seconds=now - ended.began))
            for ended in batch
            if isinstance(ended.outcome, Draft)
        ]
        async with asyncio.timeout(RECORD_SECONDS_MAX), self._database.transaction() as unit:
            reports = await record(unit=unit, drafts=drafts, bus=self._bus)
        self._on_step(Step.RECORDED)
        self.figures.recorded += len(reports)
        self.figures.writes += 1
        for report in reports:
            self._metrics.reported(report)
        if len(reports) < len(drafts):
            left_out = {draft.asset_id for draft in drafts} - {report.asset_id for report in reports}
            _log.warning("oracle.overtaken", assets=sorted(left_out))

    # ------------------------------------------------------------------------------------------------ beside it

    async def _keep_looking(self) -> None:
        while True:
            try:
                await self.look()
            except Exception as error:
                await self._stumble("look", error)
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Raise and end alerts and quarantines, and see how the schedule and the budgets stand."""
        async with self._database.transaction() as unit:
            stale, fresh = await watch_staleness(unit=unit)
        async with self._database.transaction() as unit:
            await expire_quarantines(unit=unit, bus=self._bus)
        if stale or fresh:
            _log.warning("oracle.staleness", stale=stale, fresh=fresh)
        async with self._database.acquire() as connection:
            standing = await claims.oracle_standing(connection=connection)
            seconds_left, demands = await claims.demands(connection=connection)
        self._metrics.stands(standing, running=len(self._runs))
        if self._budgets is not None:
            left = await self._budgets.left()
            self._factor = cadence.stretch(seconds_left=seconds_left, left=left, demands=demands)
            self._metrics.budgets(left)

    async def _keep_hearing(self) -> None:
        """Look at what is due when an asset or an oracle was changed. What is missed here is seen a second later."""
        place: bytes | str = "$"
        while self._redis is not None:
            try:
                read = await self._redis.xread({CHANGES_STREAM: place}, block=BLOCK_MS)
                for _, entries in read:
                    place = entries[-1][0]
                    if any(_is_about_assets(fields) for _, fields in entries):
                        self._wake.set()
            except Exception as error:
                if not isinstance(error, RedisError | OSError | TimeoutError):
                    # An event loop's own error when a connection dies: hearing goes on after it.
                    _log.error("oracle.hearing_failed", exc_info=error)
                place = "$"
                await asyncio.sleep(REDIS_RETRY_SECONDS)

    async def _retire(self) -> None:
        """Release every claim; who cannot be told finds out when they run out."""
        held = list(self._held.values())
        try:
            async with asyncio.timeout(STOP_SECONDS_MAX), self._database.acquire() as connection:
                await claims.release(connection=connection, claims=held)
        except Exception as error:
            _log.warning("oracle.not_released", assets=len(held), error=repr(error))
        else:
            _log.info("oracle.released", assets=len(held))

    async def _stumble(self, what: str, error: Exception) -> None:
        """Say what went wrong and wait a little."""
        self.figures.stumbled += 1
        if isinstance(error, LOST):
            _log.warning("oracle.database_away", what=what, error=repr(error))
        else:
            _log.error("oracle.failed", what=what, exc_info=error)
        pause_s = RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS) - 1)]
        self._failures += 1
        await asyncio.sleep(pause_s)

    async def _keep_reporting(self) -> None:
        told = Figures()
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            now = replace(self.figures)
            _log.info(
                "oracle.worked",
                claimed=now.claimed - told.claimed,
                recorded=now.recorded - told.recorded,
                failed=now.failed - told.failed,
                writes=now.writes - told.writes,
                running=len(self._runs),
            )
            told = now


def _is_about_assets(fields: Mapping[bytes, bytes]) -> bool:
    """Whether an entry of the stream of changes tells of assets. What is not understood may be about anything."""
    try:
        changes = decode_changes(fields[b"changes"])
    except (ValueError, KeyError):
        return True
    return bool(changes.assets or changes.reports)
