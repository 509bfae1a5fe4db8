"""The process's few timers: heartbeats, and readers that have been slow for too long. One timer each, however many
groups and readers there are, and none while there is nothing to wait for.
"""

import asyncio
import heapq
import itertools
from contextvars import Context
from typing import Final, Protocol

SLOW_SECONDS_MAX: Final = 30.0
"""How long a connection's outgoing buffer may stay above its high-water mark."""
_SLOW_LOOK_SECONDS: Final = 1.0


class Beating(Protocol):
    """A group of readers that wants to hear something at least every `heartbeat_seconds`."""

    heartbeat_seconds: int
    sent_at: float
    """When it was last sent anything, by the event loop's clock."""

    @property
    def is_over(self) -> bool:
        """Whether nobody reads here any more."""

    def beat(self) -> None:
        """Nothing was sent for so long."""


class Heartbeats:
    """Calls `beat` on whoever has been silent for its heartbeat's time."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Beating]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = 0.0
        """When the timer ends. Not asked of it: uvloop's does not say where that is now."""

    def add(self, beating: Beating) -> None:
        """Watch this one until it is over."""
        self._push(beating)
        self._arm()

    def stop(self) -> None:
        """Beat no more."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _push(self, beating: Beating) -> None:
        heapq.heappush(self._due, (beating.sent_at + beating.heartbeat_seconds, next(self._numbers), beating))

    def _arm(self) -> None:
        """What was sent meanwhile only moves a time later, so an armed timer is never too late but for new ones."""
        if not self._due:
            return
        due = self._due[0][0]
        if self._timer is not None:
            if self._armed_for <= due:
                return
            self._timer.cancel()
        self._armed_for = due
        self._timer = asyncio.get_running_loop().call_at(due, self._fire, context=Context())

    def _fire(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        while self._due and self._due[0][0] <= now:
            _, _, beating = heapq.heappop(self._due)
            if beating.is_over:
                continue
            if beating.sent_at + beating.heartbeat_seconds <= now:
                beating.beat()
                beating.sent_at = now
            self._push(beating)
        self._arm()


class Slow(Protocol):
    """A reader whose connection does not keep up."""

    def give_up(self) -> None:
        """It has been slow for too long."""


class SlowReaders:
    """Gives up readers that have been congested for `SLOW_SECONDS_MAX`."""

    def __init__(self, *, seconds_max: float = SLOW_SECONDS_MAX, look_seconds: float = _SLOW_LOOK_SECONDS) -> None:
        self._seconds_max = seconds_max
        self._look_seconds = look_seconds
        self._since: dict[Slow, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._since)

    def add(self, reader: Slow) -> None:
        """It is congested from now on."""
        self._since[reader] = asyncio.get_running_loop().time()
        self._arm()

    def remove(self, reader: Slow) -> None:
        """It is congested no longer, or gone."""
        self._since.pop(reader, None)

    def stop(self) -> None:
        """Watch nobody any more."""
        self._since.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        if self._timer is None and self._since:
            self._timer = asyncio.get_running_loop().call_later(self._look_seconds, self._look, context=Context())

    def _look(self) -> None:
        self._timer = None
        latest = asyncio.get_running_loop().time() - self._seconds_max
        for reader in [reader for reader, since in self._since.items() if since <= latest]:
            self._since.pop(reader, None)
            reader.give_up()
        self._arm()
