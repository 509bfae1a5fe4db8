"""Price workers that die: as processes that are killed, and inside a test at any await that one chooses."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Coroutine, Generator
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

from tests.conftest import ROOT

STOP_SECONDS: Final = 10.0

Result = TypeVar("Result")


class Mortal(Generic[Result]):
    """Awaits a coroutine, which is cancelled at its `last`th suspension; one that has fewer ends as usual.

    What the dying still await is awaited. `died` says what became of it.
    """

    def __init__(self, work: Coroutine[Any, Any, Result], *, last: int) -> None:
        self._work = work
        self._left = last

    @property
    def died(self) -> bool:
        """Whether it has been cancelled."""
        return self._left <= 0

    def __await__(self) -> Generator[Any, Any, Result]:
        """Run it to its end, or to its death."""
        error: BaseException | None = None
        while True:
            try:
                waited = self._work.throw(error) if error else self._work.send(None)
            except StopIteration as ended:
                result: Result = ended.value
                return result
            error = None
            self._left -= 1
            if self._left == 0 and not isinstance(waited, asyncio.Future):
                error = asyncio.CancelledError()
                continue
            if self._left == 0:
                waited.cancel()
            try:
                yield waited
            except BaseException as raised:
                error = raised


class MortalPriceWorker:
    """`megatron worker price` as a process of its own."""

    def __init__(self, *, database_url: str, redis_url: str, **environment: str) -> None:
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MEGATRON_")},
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "MEGATRON_ENV": "development",
            "MEGATRON_LOG_LEVEL": "WARNING",
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it serves soon."""
        argv = [sys.executable, "-m", "app.cli", "worker", "price"]
        self.process = subprocess.Popen(argv, cwd=ROOT, env=self._environment)

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def stop(self) -> int:
        """Stop it as an operator would; the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)
