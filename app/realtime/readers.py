"""What every subscription is: a sink, whether it keeps up, and at most one task, while something must be awaited."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TypeAlias

import structlog

from app.realtime.events import Sink
from app.realtime.shared import Payload, Shared, spawn

Step: TypeAlias = "Callable[[], Coroutine[None, None, None]] | None"
"""Makes what must be awaited before a reader can go on; None when there is nothing to do for now."""

_log = structlog.get_logger(__name__)


class BaseReader(ABC):
    """An `app.realtime.events.Reader`.

    Subclasses say in `advance` what comes next for a reader that is not simply fed by its group: it does what can be
    done at once and answers what must be awaited.
    """

    def __init__(self, shared: Shared, sink: Sink) -> None:
        self.shared = shared
        self.sink = sink
        self.send = sink.send
        self.is_congested = False
        self.is_closed = False
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    def advance(self) -> Step:
        """Send what is owed for as long as nothing must be awaited."""

    @abstractmethod
    def leave(self) -> None:
        """The reader is closed: its group must forget it."""

    def set_aside(self) -> None:  # noqa: B027 - not every reader is in a group
        """The reader has become congested: its group must keep what comes."""

    def start(self) -> None:
        """Begin to read."""
        if self.sink.congested:
            self.congested()
        self.wake()

    def wake(self) -> None:
        """There may be something to do."""
        if self._task is None and not self.is_closed:
            step = self.advance()
            if step is not None:
                self._task = spawn(self._run(step), name="realtime.reader")

    def congested(self) -> None:
        """The outgoing buffer has come above its high-water mark. May be called from within `Sink.send`."""
        if not self.is_closed and not self.is_congested:
            self.is_congested = True
            self.shared.slow.add(self)
            self.set_aside()

    def drained(self) -> None:
        """It has been sent."""
        if self.is_congested:
            self.is_congested = False
            self.shared.slow.remove(self)
            self.wake()

    def close(self) -> None:
        """The reader is gone or has completed. Nothing is sent from now on; may be called more than once."""
        if not self.is_closed:
            self.is_closed = True
            self.shared.slow.remove(self)
            if self._task is not None:
                self._task.cancel()
            self.leave()

    def give_up(self) -> None:
        """The reader cannot be served: its connection is closed, and it may come back with its cursor."""
        if not self.is_closed:
            self.shared.counts.given_up += 1
            self.close()
            self.sink.too_slow()

    def emit(self, payload: Payload) -> Step:
        """Send a payload, or answer what sends it once it is there."""
        if isinstance(payload, bytes):
            self.send(payload)
            return None
        return partial(self._emit_later, payload)

    async def _emit_later(self, payload: "asyncio.Future[bytes]") -> None:
        # Shielded: others may wait for the same payload.
        sent = await asyncio.shield(payload)
        if not self.is_closed:
            self.send(sent)

    async def _run(self, step: Step) -> None:
        try:
            while step is not None:
                await step()
                step = self.advance()
        except Exception:
            _log.exception("realtime.reader_failed")
            self.give_up()
        finally:
            self._task = None
