"""Oracle workers that die: as processes that kill themselves at a step of their choice.

Run as a module, this is `megatron worker oracle` with that wish: MEGATRON_TEST_DIE_AT="STEP N" kills it (SIGKILL) when
it is told of STEP for the Nth time; without it, it lives.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from app.oracle.steps import Step, unheard
from app.settings import Settings
from tests.conftest import ROOT
from workers import hosting
from workers.oracle import run

STOP_SECONDS: Final = 10.0
DIE_AT: Final = "MEGATRON_TEST_DIE_AT"


class MortalOracleWorker:
    """An oracle worker as a process of its own."""

    def __init__(self, *, database_url: str, redis_url: str, **environment: str) -> None:
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MEGATRON_")},
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "MEGATRON_ENV": "development",
            "MEGATRON_LOG_LEVEL": "WARNING",
            "MEGATRON_DATABASE_POOL_MAX": "4",
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, die_at: Step | None = None, nth: int = 1) -> None:
        """Start it; it serves soon, and dies when it is told of `die_at` for the `nth` time."""
        wish = {} if die_at is None else {DIE_AT: f"{die_at} {nth}"}
        argv = [sys.executable, "-m", "tests.faults.oracle_workers"]
        self.process = subprocess.Popen(argv, cwd=ROOT, env={**self._environment, **wish})

    @property
    def is_dead(self) -> bool:
        """Whether it has killed itself. Raises AssertionError when it ended otherwise."""
        assert self.process is not None
        status = self.process.poll()
        assert status in (None, -signal.SIGKILL), f"it ended with status {status}"
        return status is not None

    def kill(self) -> None:
        """SIGKILL, if it lives."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def stop(self) -> int:
        """Stop it as an operator would; the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)


def dying(wish: str | None) -> Callable[[Step], None]:
    """What is told of steps: it kills this process when it is time."""
    if wish is None:
        return unheard
    name, _, number = wish.partition(" ")
    left = int(number)

    def told(step: Step) -> None:
        nonlocal left
        left -= step == name
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    return told


if __name__ == "__main__":
    settings = Settings()
    sys.exit(hosting.serve(lambda: run(settings, on_step=dying(os.environ.get(DIE_AT))), settings))
