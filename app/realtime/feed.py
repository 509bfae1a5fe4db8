"""The feed: what the price workers have written, brought into this process in order, from Redis while it carries and
from PostgreSQL whatever happens to Redis.

Two tasks. One listens to Redis and hands on what follows the head; what does not is kept for a moment. The other looks
into PostgreSQL once a second, oftener while Redis is away, and at once when something is missing. Which of them brings
a tick does not matter: positions are gapless, so a tick that is known already is recognised and ignored.
"""

import asyncio
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError
from redis.typing import KeyT, StreamIdT

from app.bus import CHANGES_STREAM, Changes, decode_changes, decode_trades
from app.exchange.orders import Trade
from app.exchange.reads import trades_by_seq
from app.pricing.reads import ticks_from_position
from app.pricing.ticks import TICKS_HEAD, TICKS_STREAM, Tick, TickCause, TradeKey, decode_ticks
from app.realtime.shared import DATABASE_ERRORS, DATABASE_SECONDS_MAX, Shared, spawn
from app.tasks import end

LOOK_SECONDS: Final = 1.0
"""How often PostgreSQL is looked into."""
LOOK_WITHOUT_REDIS_SECONDS: Final = 0.1
LOOK_AGAIN_SECONDS: Final = (0.1, 0.5, 1.0, 2.0)
"""The same while PostgreSQL is away; the last one from then on."""
_BLOCK_MS: Final = 500
"""How long Redis may let a question wait: less than the client's own time limit."""
_ENTRIES_AT_ONCE: Final = 200
_REDIS_RETRY_SECONDS: Final = 0.1
_SILENCE_SECONDS: Final = 2.0
"""When Redis has brought nothing for so long and PostgreSQL has something, Redis may have begun to count anew."""
_PAGE_TICKS: Final = 2_000
_KEPT_MAX: Final = 10_000
"""Ticks kept while something before them is missing; beyond it they are read from PostgreSQL too."""
_CATCH_UP_MAX: Final = 200_000
"""Positions that are caught up; a process that is further behind tells its readers of a gap."""

_log = structlog.get_logger(__name__)


class Receiver(Protocol):
    """Who is fed."""

    def append(self, ticks: Sequence[Tick], trades: Mapping[TradeKey, Trade]) -> None:
        """Ticks that follow the log's head, in order."""

    def changed(self, changes: Changes) -> None:
        """Accounts that have new events, assets that have changed, and assets whose oracle has reported."""

    async def look_up_assets(self, asset_ids: set[int]) -> None:
        """Learn what these assets are."""

    async def jump(self, head: int | None) -> None:
        """What comes next is nowhere to be had: go on after `head`, or from where PostgreSQL is."""

    async def look(self) -> None:
        """Time to look into PostgreSQL for whatever else there is."""


class Feed:
    """The process's two tasks. `start` before use, `stop` at the end."""

    def __init__(self, shared: Shared, redis: Redis | None, receiver: Receiver) -> None:
        self._shared = shared
        self._redis = redis
        self._receiver = receiver
        self._kept: list[tuple[Sequence[Tick], Mapping[TradeKey, Trade]]] = []
        """What came too early, by position."""
        self._missing = asyncio.Event()
        self._listens_anew = False
        self._heard_at = 0.0
        """When Redis last brought ticks, by the event loop's clock."""
        self._stuck_at: int | None = None
        """Where the log stood when what was kept last led nowhere."""
        self._tasks: list[asyncio.Task[None]] = []
        self.redis_is_up = False
        """Whether Redis carried when it was last asked."""
        self.database_is_up = True
        """Whether PostgreSQL answered when it was last asked."""
        self.known_head = shared.log.head
        """The last position that PostgreSQL is known to have."""

    def start(self) -> None:
        """Begin to feed."""
        self._tasks.append(spawn(self._follow_postgres(), name="realtime.postgres"))
        if self._redis is not None:
            self._tasks.append(spawn(self._follow_redis(self._redis), name="realtime.redis"))

    async def stop(self) -> None:
        """Feed no more."""
        await end(self._tasks)
        self._tasks.clear()

    def hurry(self) -> None:
        """Look into PostgreSQL at once."""
        self._missing.set()

    @property
    def behind(self) -> int:
        """Positions that PostgreSQL is known to have and the log has not."""
        return max(0, self.known_head - self._shared.log.head)

    # ---------------------------------------------------------------------------------------------- what comes in
    def receive(self, ticks: Sequence[Tick], trades: Mapping[TradeKey, Trade]) -> None:
        """Hand on what follows the head; keep what comes too early, or of an asset that must be looked up first."""
        head = self._shared.log.head
        if ticks and ticks[0].position <= head:
            ticks = [tick for tick in ticks if tick.position > head]
        if not ticks:
            return
        self.known_head = max(self.known_head, ticks[-1].position)
        if self._follows(ticks):
            self._receiver.append(ticks, trades)
        else:
            if sum(len(kept) for kept, _ in self._kept) < _KEPT_MAX:
                self._kept.append((ticks, trades))
            self._missing.set()

    def _follows(self, ticks: Sequence[Tick]) -> bool:
        first, knows = self._shared.log.head + 1, self._shared.visibility.knows
        return all(tick.position == first + index and knows(tick.asset_id) for index, tick in enumerate(ticks))

    def _hand_on_kept(self) -> None:
        """What was kept may follow by now."""
        kept = sorted(self._kept, key=lambda each: each[0][0].position)
        self._kept = []
        for ticks, trades in kept:
            self.receive(ticks, trades)

    # ---------------------------------------------------------------------------------------------- Redis
    async def _follow_redis(self, redis: Redis) -> None:
        while True:
            try:
                await self._listen(redis)
            except (RedisError, OSError, TimeoutError) as error:
                if self.redis_is_up:
                    _log.warning("realtime.redis_away", error=repr(error))
                self.redis_is_up = False
                self._missing.set()
                await asyncio.sleep(_REDIS_RETRY_SECONDS)
            except Exception:
                # Whatever is wrong with what was told, PostgreSQL has it right.
                _log.exception("realtime.redis_failed")
                self._missing.set()
                await asyncio.sleep(LOOK_SECONDS)

    async def _listen(self, redis: Redis) -> None:
        """Until Redis fails, or has been silent where PostgreSQL was not: then its ids may have begun anew."""
        places: dict[KeyT, StreamIdT] = {name: await _last_id(redis, name) for name in (TICKS_STREAM, CHANGES_STREAM)}
        self.redis_is_up, self._listens_anew = True, False
        self._missing.set()
        while not self._listens_anew:
            answer = await redis.xread(places, count=_ENTRIES_AT_ONCE, block=_BLOCK_MS)
            for name, entries in answer:
                stream = name.decode()
                places[stream] = entries[-1][0]
                if stream == TICKS_STREAM:
                    self._heard_at = asyncio.get_running_loop().time()
                    self._receive_entries(entries)
                else:
                    self._receive_changes(entries)

    def _receive_entries(self, entries: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> None:
        """What has arrived together is handed on together."""
        ticks: list[Tick] = []
        trades: dict[TradeKey, Trade] = {}
        for _, fields in entries:
            try:
                told = decode_trades(fields[b"trades"]) if b"trades" in fields else []
                ticks += decode_ticks(fields[b"ticks"])
            except (ValueError, KeyError) as error:
                _log.warning("realtime.entry_unreadable", stream=TICKS_STREAM, error=repr(error))
                continue
            trades.update({(trade.asset_id, trade.seq): trade for trade in told})
        for part in _contiguous(ticks):
            self.receive(part, trades)

    def _receive_changes(self, entries: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> None:
        accounts: dict[int, None] = {}
        assets: dict[int, None] = {}
        reports: dict[int, None] = {}
        for _, fields in entries:
            try:
                changes = decode_changes(fields[b"changes"])
            except (ValueError, KeyError) as error:
                _log.warning("realtime.entry_unreadable", stream=CHANGES_STREAM, error=repr(error))
                continue
            accounts.update(dict.fromkeys(changes.accounts))
            assets.update(dict.fromkeys(changes.assets))
            reports.update(dict.fromkeys(changes.reports))
        self._receiver.changed(Changes(list(accounts), list(assets), list(reports)))

    # ---------------------------------------------------------------------------------------------- PostgreSQL
    async def _follow_postgres(self) -> None:
        failures = 0
        while True:
            pause = LOOK_SECONDS if self.redis_is_up else LOOK_WITHOUT_REDIS_SECONDS
            if failures:
                pause = LOOK_AGAIN_SECONDS[min(failures, len(LOOK_AGAIN_SECONDS)) - 1]
                await asyncio.sleep(pause)
            else:
                await _set_within(self._missing, pause)
            self._missing.clear()
            try:
                await _in_time(self._look())
                await _in_time(self._receiver.look())
            except DATABASE_ERRORS as error:
                if not failures:
                    _log.warning("realtime.postgres_away", error=repr(error))
                failures += 1
            except Exception:
                _log.exception("realtime.postgres_failed")
                failures += 1
            else:
                failures = 0
            self.database_is_up = not failures

    async def _look(self) -> None:
        log = self._shared.log
        before = log.head
        async with self._shared.database.acquire() as connection:
            head = await connection.fetchval('SELECT "position" FROM stream_heads WHERE stream = $1', TICKS_HEAD)
        self.known_head = max(self.known_head, head)
        if head > log.head:
            # An asset that was opened before it ticked must be known to be open before its ticks are handed on.
            await self._receiver.look()
        if head - log.head > _CATCH_UP_MAX:
            await self._receiver.jump(None)
        while log.head < head:
            if not await self._read_page(head):
                await self._receiver.jump(None)
        if log.head > before and asyncio.get_running_loop().time() - self._heard_at > _SILENCE_SECONDS:
            self._listens_anew = True
        if self._kept:
            await self._hand_on_or_give_up()

    async def _read_page(self, head: int) -> bool:
        """Hand on the next page, if Redis was not faster. False when what comes next is kept no longer."""
        log = self._shared.log
        after = log.head
        async with self._shared.database.acquire() as connection:
            ticks = await ticks_from_position(
                connection=connection, after_position=after, up_to_position=head, asset_ids=None, limit=_PAGE_TICKS
            )
            keys = [(tick.asset_id, tick.trade_seq) for tick in ticks if tick.cause is TickCause.TRADE]
            trades = await trades_by_seq(connection=connection, keys=keys) if keys else {}
        await self._look_up(ticks)
        self.receive(ticks, trades)
        self._hand_on_kept()
        return log.head > after

    async def _hand_on_or_give_up(self) -> None:
        """What is still kept waits for assets to be looked up, or for positions that PostgreSQL does not have either.

        The latter never happens where a price worker writes: it tells of nothing that it has not committed.
        """
        log = self._shared.log
        await self._look_up([tick for ticks, _ in self._kept for tick in ticks])
        self._hand_on_kept()
        if self._kept and self._stuck_at == log.head:
            await self._receiver.jump(min(ticks[0].position for ticks, _ in self._kept) - 1)
            self._hand_on_kept()
        self._stuck_at = log.head if self._kept else None

    async def _look_up(self, ticks: Sequence[Tick]) -> None:
        knows = self._shared.visibility.knows
        unknown = {tick.asset_id for tick in ticks if not knows(tick.asset_id)}
        if unknown:
            await self._receiver.look_up_assets(unknown)


async def _in_time(work: Awaitable[None]) -> None:
    async with asyncio.timeout(DATABASE_SECONDS_MAX):
        await work


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def _last_id(redis: Redis, stream: str) -> bytes:
    """The id of a stream's last entry."""
    last = await redis.xrevrange(stream, count=1)
    return last[0][0] if last else b"0-0"


def _contiguous(ticks: Sequence[Tick]) -> Iterator[Sequence[Tick]]:
    """The ticks in runs of positions that follow one another."""
    start = 0
    for index in range(1, len(ticks)):
        if ticks[index].position != ticks[index - 1].position + 1:
            yield ticks[start:index]
            start = index
    if ticks:
        yield ticks[start:]
