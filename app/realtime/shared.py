"""What all streams of a process share: the log, the newest tick of each asset, who may see what, encoded payloads.

State and small helpers only; which reader is sent what is decided in `groups` and `states`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

import asyncpg
import structlog

from app.db import Database
from app.pricing.ticks import Tick
from app.realtime.events import Encoder, Event
from app.realtime.log import TickLog
from app.realtime.timers import Heartbeats, SlowReaders

Item = TypeVar("Item")
Result = TypeVar("Result")
Payload: TypeAlias = "bytes | asyncio.Future[bytes]"
Send: TypeAlias = Callable[[bytes], None]

DATABASE_ERRORS: Final = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)
"""What a database that is away raises."""
DATABASE_SECONDS_MAX: Final = 10.0
"""How long one question to the database may take, the wait for a connection included."""
RETRY_SECONDS: Final = 0.5
"""How soon a reader asks again a database that is away."""
READS_AT_ONCE_MAX: Final = 4
"""Questions that readers' replays, snapshots and account events ask PostgreSQL at once; others wait."""
EVENT_ITEMS_MAX: Final = 500
"""Items in one event, but for snapshots and for the newest of each asset, which come in one piece."""
_PAYLOAD_SECONDS: Final = 0.1
_PAYLOADS_MAX: Final = 4_096

_running: "set[asyncio.Task[Any]]" = set()

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Counts:
    """What has happened since the start."""

    delivered: int = 0
    """Events of ticks and trades handed to connections while they were live."""
    conflated: int = 0
    """Ticks and trades that slow readers were not sent."""
    replays_from_memory: int = 0
    replays_from_postgres: int = 0
    gaps: int = 0
    """GAP events sent."""
    given_up: int = 0
    """Readers whose connections were closed as too slow."""


class Visibility:
    """Which assets are drafts, seen by admins only. An asset that is not known is treated as one."""

    def __init__(self) -> None:
        self._drafts: dict[int, bool] = {}
        self.version = 0
        """Counts the changes."""

    def set(self, asset_id: int, *, is_draft: bool) -> None:
        """Remember what an asset is."""
        if self._drafts.get(asset_id) is not is_draft:
            self._drafts[asset_id] = is_draft
            self.version += 1

    def knows(self, asset_id: int) -> bool:
        """Whether the asset was ever looked up."""
        return asset_id in self._drafts

    def shows(self, asset_id: int, *, sees_drafts: bool) -> bool:
        """Whether a reader may see the asset."""
        return sees_drafts or not self._drafts.get(asset_id, True)


class Payloads:
    """Encoded events, so that whoever is sent the same thing within a moment is sent the same bytes.

    A key says everything that an event holds but for its server time, which is why none is kept for long.
    """

    def __init__(self) -> None:
        self._made: dict[Hashable, Payload] = {}
        self._until = 0.0

    def of(self, encode: Encoder[Item], key: Hashable, make: Callable[[], Event[Item]]) -> Payload:
        """The event's payload; a future where the encoder must read something first."""
        now = asyncio.get_running_loop().time()
        if now > self._until or len(self._made) >= _PAYLOADS_MAX:
            self._made.clear()
            self._until = now + _PAYLOAD_SECONDS
        payload = self._made.get((encode, key))
        if payload is None:
            payload = self._made[encode, key] = encoded(encode, make())
        return payload


def encoded(encode: Encoder[Item], event: Event[Item]) -> Payload:
    """An encoder's answer. Where it is to be awaited, it is under way in nobody's context and can be awaited often.

    Should the encoder raise, against its promise, whoever awaits the payload learns of it.
    """
    try:
        result = encode(event)
    except Exception as error:
        _log.exception("realtime.encoder_failed")
        failed: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        failed.set_exception(error)
        failed.exception()  # Told above, should nobody await it.
        return failed
    return result if isinstance(result, bytes) else spawn(_wait(result), name="realtime.encode")


def spawn(work: Coroutine[None, None, Result], *, name: str) -> "asyncio.Task[Result]":
    """A task in a context of its own: what it does for many must not carry the identity of one."""
    task = asyncio.get_running_loop().create_task(work, name=name, context=Context())
    _running.add(task)  # The loop itself does not keep it.
    task.add_done_callback(_running.discard)
    return task


async def _wait(result: Awaitable[bytes]) -> bytes:
    return await result


def broadcast(sends: Sequence[Send], payload: bytes) -> None:
    """Send to all; one that fails, against its promise, does not keep the others from it."""
    remaining = iter(sends)
    while True:
        try:
            for send in remaining:
                send(payload)
        except Exception:
            _log.exception("realtime.send_failed")
        else:
            return


class Shared:
    """One process's realtime state. Only the event loop's thread touches it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.log = TickLog()
        self.latest: dict[int, Tick] = {}
        """The last tick of each asset, as of the log's head."""
        self.visibility = Visibility()
        self.payloads = Payloads()
        self.heartbeats = Heartbeats()
        self.slow = SlowReaders()
        self.counts = Counts()
        self.reads = asyncio.Semaphore(READS_AT_ONCE_MAX)
