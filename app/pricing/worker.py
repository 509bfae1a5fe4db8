"""The price engine as it runs: claims assets, takes in what has happened to them, writes, and only then tells.

One task writes, turn by turn: all that waits becomes one transaction, and what comes meanwhile is the next turn's.
Beside it one keeps the lease alive, one keeps looking at PostgreSQL (claims, new assets, parameters, what no stream
told, the time), and one reads the streams. Whatever goes wrong with an asset, the answer is the same: drop it and load
it again. What a tick is worth stands in `engine`, what is written in `store`, who may write in `claims`.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg
import structlog
from redis.asyncio import Redis

from app.bus import Bus, encode_trades
from app.db import LOST, Connection, Database, is_open
from app.exchange.orders import Trade
from app.pricing import claims
from app.pricing.engine import AssetState, Step, advance
from app.pricing.feed import Feed, Heads, heads, trades_after
from app.pricing.inbox import Batch, Inbox
from app.pricing.model import Parameters
from app.pricing.oracle_events import events_after
from app.pricing.store import Fenced, Store, load_parameters, load_states
from app.pricing.ticks import TICKS_STREAM, Tick, TradeKey, encode_ticks, trades_of
from app.tasks import end

LOOK_SECONDS: Final = 1.0
"""Between looks at PostgreSQL while Redis tells of everything at once."""
LOOK_SECONDS_ALONE: Final = 0.1
"""The same while it does not."""
LOOK_PAUSE_SECONDS: Final = 0.02
"""The least between two looks, whoever asks for them."""
PAGE_ROWS: Final = 500
"""Of one asset, in one question."""
ENTRY_TICKS_MAX: Final = 256
"""What a transaction wrote beyond this is not told: only an engine that is catching up writes so much at once, and who
reads it looks it up by position."""
WRITE_SECONDS_MAX: Final = 10.0
"""A write that takes longer is taken for lost."""
RETRY_SECONDS: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Between attempts while PostgreSQL is away; the last one from then on."""
STOP_SECONDS_MAX: Final = 0.8
"""For the write under way, when asked to stop; and the same again for releasing the claims."""
DRIFT_SECONDS: Final = 1.0
"""Between looks at idle assets."""
REPORT_SECONDS: Final = 60.0

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Figures:
    """What this worker has done since it started."""

    ticks: int = 0
    writes: int = 0
    fenced: int = 0
    stumbled: int = 0


@dataclass(slots=True)
class _Asset:
    """An asset of this worker's: where it stands by our last write, and its parameters as last read."""

    state: AssetState
    parameters: Parameters


class PriceWorker:
    """A price worker. `run` ends after `stop`, with every claim released."""

    def __init__(self, database: Database, redis: Redis | None, bus: Bus, *, label: str) -> None:
        """`bus` tells of the ticks. `label` says to people where this runs. Redis may be away, or None."""
        self._database = database
        self._bus = bus
        self._label = label
        self._store = Store(database)
        self._inbox = Inbox()
        self._look = asyncio.Event()
        self._feed = Feed(redis, inbox=self._inbox, look=self._look.set)
        self._assets: dict[int, _Asset] = {}
        self._unopened: set[int] = set()
        """Of those, the ones that have no tick yet."""
        self._idle_at: Heads | None = None
        """The database's time, when idle assets are to be looked at, and how far each had to go then."""
        self._drifted_at = 0.0
        self._writing = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._failures = 0
        self.worker_id = 0
        """Changes when the worker was taken for dead and has come back."""
        self.figures = Figures()

    @property
    def asset_ids(self) -> frozenset[int]:
        """The assets that it writes now, as far as it knows."""
        return frozenset(self._assets)

    @property
    def reads_streams(self) -> bool:
        """Whether Redis answered when it was last asked."""
        return self._feed.is_up

    def stop(self) -> None:
        """Finish the write under way, release the claims, end."""
        self._stopping.set()
        self._inbox.wake.set()

    async def run(self) -> None:
        """Work until `stop`. Restarts of PostgreSQL and Redis are waited for."""
        work = asyncio.create_task(self._work(), name="prices")
        tasks = [work] + [
            asyncio.create_task(beside, name=f"prices-{name}")
            for name, beside in (
                ("lease", self._keep_lease()),
                ("looks", self._keep_looking()),
                ("streams", self._feed.run()),
                ("report", self._report()),
            )
        ]
        try:
            await self._stopping.wait()
            await asyncio.wait({work}, timeout=STOP_SECONDS_MAX)
        finally:
            await end(tasks)
            await asyncio.shield(self._retire())

    # ------------------------------------------------------------------------------------------------ writing

    async def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                async with self._database.acquire() as connection:
                    await self._work_on(connection)
            except Exception as error:
                await self._stumble("write", error)

    async def _work_on(self, connection: Connection) -> None:
        """Write on this connection for as long as it lives."""
        while is_open(connection) and not self._stopping.is_set():
            if self._inbox or self._unopened or self._idle_at:
                await self.turn(connection)
            else:
                self._inbox.wake.clear()
                await self._inbox.wake.wait()

    async def turn(self, connection: Connection) -> None:
        """Take in what waits (and a page of what has to be looked up), write it, tell of it.

        Raises what the database raises; the assets that were to be written are then dropped.
        """
        await self._look_up(connection)
        batches = self._inbox.take()
        steps = self._steps(batches)
        if steps:
            try:
                async with self._writing:
                    await self._write(connection, steps, batches)
            except BaseException:
                # Written or not: PostgreSQL knows.
                self._drop(step.before.asset_id for step in steps)
                raise

    async def _look_up(self, connection: Connection) -> None:
        lacking = self._inbox.lacking_trades()
        if lacking:
            found = await trades_after(connection=connection, after=lacking, limit=PAGE_ROWS)
            self._inbox.fill_trades(asked=lacking, found=found)
        lacking = self._inbox.lacking_events()
        if lacking:
            noted = await events_after(connection=connection, after=lacking, limit=PAGE_ROWS)
            self._inbox.fill_events(asked=lacking, found=noted)

    def _steps(self, batches: Mapping[int, Batch]) -> list[Step]:
        """What comes of what waits, of assets without a tick, and of those that were idle for long enough."""
        found, self._idle_at = self._idle_at, None
        idle = self._idle(found) if found else set()
        steps = [
            self._step(asset_id, batches.get(asset_id), found.now if found and asset_id in idle else None)
            for asset_id in (*batches, *((idle | self._unopened) - batches.keys()))
        ]
        return [step for step in steps if step is not None and step.ticks]

    def _idle(self, found: Heads) -> set[int]:
        """The assets that may drift: time must not go on to now where something older has yet to be taken in."""
        return {
            asset_id
            for asset_id, asset in self._assets.items()
            if asset_id in found.seqs
            and asset.state.trade_seq >= found.seqs[asset_id][0]
            and asset.state.oracle_seq >= found.seqs[asset_id][1]
        }

    def _step(self, asset_id: int, batch: Batch | None, now: datetime | None) -> Step | None:
        asset = self._assets[asset_id]
        try:
            return advance(
                state=asset.state,
                parameters=asset.parameters,
                trades=batch.trades if batch else (),
                events=batch.events if batch else (),
                now=now,
            )
        except Exception:
            # One asset must not hold up the others; a second later it is tried again, from what PostgreSQL has.
            _log.exception("prices.asset_failed", asset_id=asset_id)
            self._drop([asset_id], soon=False)
            return None

    async def _write(self, connection: Connection, steps: list[Step], batches: Mapping[int, Batch]) -> None:
        try:
            async with asyncio.timeout(WRITE_SECONDS_MAX):
                ticks = await self._store.write(connection=connection, owner_id=self.worker_id, steps=steps)
        except Fenced as fenced:
            self._overtaken(fenced.asset_ids, steps)
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            await self._write_alone(connection, steps, batches, error)
        else:
            self._took(steps)
            self.figures.ticks += len(ticks)
            self.figures.writes += 1
            self._tell(ticks, batches)

    async def _write_alone(
        self, connection: Connection, steps: list[Step], batches: Mapping[int, Batch], error: Exception
    ) -> None:
        """The database refuses something of it: find out what, and let the others tick."""
        if len(steps) == 1:
            asset_id = steps[0].before.asset_id
            _log.error("prices.asset_refused", asset_id=asset_id, exc_info=error)
            self._drop([asset_id], soon=False)
            return
        for step in steps:
            await self._write(connection, [step], batches)

    def _took(self, steps: Iterable[Step]) -> None:
        for step in steps:
            asset = self._assets.get(step.before.asset_id)
            # One that was dropped and loaded again meanwhile knows better.
            if asset is not None and asset.state is step.before:
                asset.state = step.after
                self._unopened.discard(step.before.asset_id)
        self._failures = 0

    def _overtaken(self, lost: Collection[int], steps: Iterable[Step]) -> None:
        """Others write some of these assets. The rest goes on from where it stands, and reads again what it had."""
        self.figures.fenced += 1
        _log.warning("prices.fenced", worker=self.worker_id, assets=sorted(lost))
        self._drop(lost)
        for step in steps:
            asset = self._assets.get(step.before.asset_id)
            if asset is not None:
                self._follow(asset.state)

    def _tell(self, ticks: list[Tick], batches: Mapping[int, Batch]) -> None:
        """Tell of what is committed. Whoever misses it finds it by its position."""
        if len(ticks) > ENTRY_TICKS_MAX:
            return
        trades: dict[TradeKey, Trade] = {
            (trade.asset_id, trade.seq): trade for batch in batches.values() for trade in batch.trades
        }
        entry = {"ticks": encode_ticks(ticks)}
        if trades:
            entry["trades"] = encode_trades(trades_of(ticks, trades))
        self._bus.publish(TICKS_STREAM, entry)

    # ------------------------------------------------------------------------------------------------ assets

    def _drop(self, asset_ids: Iterable[int], *, soon: bool = True) -> None:
        """Write these no more until they are loaded again: at once if they are still ours, or with the next look."""
        for asset_id in list(asset_ids):
            self._assets.pop(asset_id, None)
            self._unopened.discard(asset_id)
            self._inbox.forget(asset_id)
        if soon:
            self._look.set()

    def _follow(self, state: AssetState) -> None:
        self._inbox.follow(state.asset_id, trade_seq=state.trade_seq, oracle_seq=state.oracle_seq)

    async def _load(self, connection: Connection, asset_ids: list[int]) -> None:
        for loaded in await load_states(connection=connection, owner_id=self.worker_id, asset_ids=asset_ids):
            asset_id = loaded.state.asset_id
            self._assets[asset_id] = _Asset(loaded.state, loaded.parameters)
            self._follow(loaded.state)
            if loaded.state.tick is None:
                self._unopened.add(asset_id)
                self._inbox.wake.set()

    # ------------------------------------------------------------------------------------------------ looking

    async def _keep_looking(self) -> None:
        loop = asyncio.get_running_loop()
        claimed_at = -claims.CLAIM_SECONDS
        while True:
            asked = self._look.is_set()
            self._look.clear()
            try:
                async with self._database.acquire() as connection:
                    due = asked or loop.time() - claimed_at >= claims.CLAIM_SECONDS
                    if due:
                        claimed_at = loop.time()
                    await self.look(connection, claim=due)
            except Exception as error:
                await self._stumble("look", error)
            await asyncio.sleep(LOOK_PAUSE_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS if self._feed.is_up else LOOK_SECONDS_ALONE):
                    await self._look.wait()

    async def look(self, connection: Connection, *, claim: bool = True) -> None:
        """See what no stream has told, what time it is, and (with `claim`) which assets are ours."""
        if claim and self.worker_id:
            await self._claim(connection)
        found = await heads(connection=connection, asset_ids=self._assets)
        self._inbox.offer_heads(found.seqs)
        self._failures = 0
        now = asyncio.get_running_loop().time()
        if now - self._drifted_at >= DRIFT_SECONDS:
            self._drifted_at, self._idle_at = now, found
            self._inbox.wake.set()

    async def _claim(self, connection: Connection) -> None:
        """See which assets are ours: load what is new, drop what is others', give up what is too much."""
        worker_id = self.worker_id
        await claims.admit_new_assets(connection=connection)
        async with connection.transaction():
            share = await claims.claim(connection=connection, worker_id=worker_id)
        gone = self._assets.keys() - set(share.asset_ids)
        if gone:
            _log.warning("prices.overtaken", worker=worker_id, assets=sorted(gone))
            self._drop(gone, soon=False)
        kept = share.asset_ids[: len(share.asset_ids) - share.excess]
        if share.excess:
            await self._release(connection, share.asset_ids[len(kept) :])
        new = [asset_id for asset_id in kept if asset_id not in self._assets]
        if new:
            await self._load(connection, new)
            _log.info("prices.claimed", worker=worker_id, assets=new)
        parameters = await load_parameters(connection=connection, asset_ids=list(self._assets))
        for asset_id, current in parameters.items():
            if asset_id in self._assets:
                self._assets[asset_id].parameters = current

    async def _release(self, connection: Connection, asset_ids: Collection[int]) -> None:
        """Let others have these, once no write of ours that they are part of is under way."""
        self._drop(asset_ids, soon=False)
        async with self._writing:
            await claims.release(connection=connection, worker_id=self.worker_id, asset_ids=list(asset_ids))
        _log.info("prices.released", worker=self.worker_id, assets=sorted(asset_ids))

    # ------------------------------------------------------------------------------------------------ the lease

    async def _keep_lease(self) -> None:
        while True:
            pause_s = claims.RENEW_SECONDS
            try:
                async with self._database.acquire() as connection:
                    if not self.worker_id or not await claims.renew(connection=connection, worker_id=self.worker_id):
                        await self.register(connection)
            except Exception as error:
                await self._stumble("lease", error)
                pause_s = 0
            await asyncio.sleep(pause_s)

    async def register(self, connection: Connection) -> None:
        """Begin to live, or to live again, under a number that no worker ever had."""
        self._drop(list(self._assets))
        self.worker_id = await claims.register(connection=connection, label=self._label)
        _log.info("prices.registered", worker=self.worker_id, label=self._label)
        self._look.set()

    async def _retire(self) -> None:
        """Release everything; who cannot be told finds out when the lease ends."""
        try:
            async with asyncio.timeout(STOP_SECONDS_MAX), self._database.acquire() as connection:
                await claims.retire(connection=connection, worker_id=self.worker_id)
        except Exception as error:
            _log.warning("prices.not_retired", worker=self.worker_id, error=repr(error))
        else:
            _log.info("prices.retired", worker=self.worker_id)

    # ------------------------------------------------------------------------------------------------ trouble

    async def _stumble(self, what: str, error: Exception) -> None:
        """Say what went wrong and wait a little."""
        self.figures.stumbled += 1
        if isinstance(error, LOST):
            _log.warning("prices.database_away", what=what, error=repr(error))
        else:
            _log.error("prices.failed", what=what, exc_info=error)
        pause_s = RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS) - 1)]
        self._failures += 1
        await asyncio.sleep(pause_s)

    async def _report(self) -> None:
        told = Figures()
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            _log.info(
                "prices.worked",
                worker=self.worker_id,
                assets=len(self._assets),
                ticks=self.figures.ticks - told.ticks,
                writes=self.figures.writes - told.writes,
                fenced=self.figures.fenced - told.fenced,
                streams=self._feed.is_up,
            )
            told = Figures(self.figures.ticks, self.figures.writes, self.figures.fenced, self.figures.stumbled)
