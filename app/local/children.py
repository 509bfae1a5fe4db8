"""Supervised children: one process each, started, watched, recorded and stopped. Knows nothing of what they serve."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from app.local.process import Command, end_foreign, last_lines, start_token

READY_POLL_SECONDS: Final = 0.03
LOG_BYTES_MAX: Final = 20 * 2**20
LINE_MAX: Final = 300
"""Characters of a log's line that are shown."""
LEFTOVER_STEPS: Final = ((signal.SIGTERM, 1.0), (signal.SIGKILL, 2.0))


@dataclass(frozen=True, slots=True)
class Role:
    """What a child is: how to run it, how to tell that it serves, and how it is asked to end."""

    name: str
    command: Callable[[], Command]
    ready: Callable[[], Awaitable[bool]] | None
    """Whether it serves now; None when running is enough."""
    ready_seconds: float
    stop_steps: tuple[tuple[signal.Signals, float], ...]
    """Signals in turn, with the seconds that each is given."""
    before_start: Callable[[], None] | None = None
    """Runs off the event loop before each start."""


class ChildFailed(Exception):  # noqa: N818
    """A child ended, or did not get ready in time. The message says which, with the last lines of its log."""


class Child:
    """One process of a `Role`: started any number of times, running at most once."""

    def __init__(self, role: Role, *, data_dir: Path) -> None:
        self.role = role
        self.log = data_dir / "logs" / f"{role.name}.log"
        self._record = data_dir / "run" / f"{role.name}.json"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """The process's number while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        """Start the process and wait until it serves. Raises `ChildFailed`; the process is gone by then."""
        if self.role.before_start:
            await asyncio.to_thread(self.role.before_start)
        command = self.role.command()
        trim(self.log)
        with open_log(self.log) as output:
            self._process = await asyncio.create_subprocess_exec(
                *command.launched(),
                stdin=asyncio.subprocess.PIPE if command.stdin else asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                env=command.env,
                start_new_session=True,
            )
        self._remember(self._process.pid)
        if self._process.stdin:
            self._process.stdin.write(command.stdin)
            self._process.stdin.close()
        try:
            async with asyncio.timeout(self.role.ready_seconds):
                await self._serves(self._process)
        except TimeoutError:
            await self.stop()
            raise ChildFailed(
                self.told(f"{self.role.name} does not answer after {self.role.ready_seconds:.0f} s")
            ) from None

    async def _serves(self, process: asyncio.subprocess.Process) -> None:
        while self.role.ready and not await self.role.ready():
            if process.returncode is not None:
                raise ChildFailed(self.told(f"{self.role.name} ended before it served ({ending(process.returncode)})"))
            await asyncio.sleep(READY_POLL_SECONDS)

    async def ended(self) -> int:
        """Wait for the process to end; its status, negative for a signal."""
        if self._process is None:
            raise ChildFailed(f"{self.role.name} was never started")
        return await self._process.wait()

    async def stop(self) -> None:
        """End the process within the role's time; a SIGKILL takes what it started in its own session with it."""
        process = self._process
        if process is None:
            return
        for number, patience_s in self.role.stop_steps:
            if process.returncode is not None:
                break
            _signal(process, number)
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), patience_s)
        if process.returncode is not None:
            self._record.unlink(missing_ok=True)
            self._process = None

    def told(self, what: str) -> str:
        """`what`, and where to read on, with the last lines of the log."""
        return "\n".join(
            [f"{what}; the end of {self.log}:", *(f"  | {line[:LINE_MAX]}" for line in last_lines(self.log))]
        )

    def _remember(self, pid: int) -> None:
        self._record.parent.mkdir(exist_ok=True, mode=0o700)
        self._record.write_text(json.dumps({"pid": pid, "started": start_token(pid)}))


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        if number is signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)


def open_log(log: Path) -> IO[bytes]:
    """`log`, open to append to; its owner alone may read it."""
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return os.fdopen(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "ab")


def trim(log: Path) -> None:
    """Keep a log below `LOG_BYTES_MAX`: what it holds moves to `<log>.1`, and its writers go on at its beginning."""
    with suppress(OSError):
        if log.stat().st_size > LOG_BYTES_MAX:
            # Writers keep their descriptor, so the file itself must stay.
            log.with_name(f"{log.name}.1").write_bytes(log.read_bytes())
            os.truncate(log, 0)


def ending(status: int) -> str:
    """How a process ended, in words."""
    if status >= 0:
        return f"status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def end_leftovers(data_dir: Path) -> list[str]:
    """End processes that an earlier run recorded and could not stop; the names of those that ran."""
    ended = []
    for record in sorted((data_dir / "run").glob("*.json")):
        try:
            read = json.loads(record.read_text())
            pid, token = int(read["pid"]), read["started"]
        except (OSError, ValueError, TypeError, KeyError):
            record.unlink(missing_ok=True)
            continue
        if token and start_token(pid) == token:
            # PostgreSQL knows its own processes and the way to end them.
            if record.stem == "postgres":
                continue
            end_foreign(pid, token, steps=LEFTOVER_STEPS)
            ended.append(record.stem)
        record.unlink(missing_ok=True)
    return ended


class Deaths:
    """How often something died lately, and so how long to wait before it is started again."""

    WINDOW_SECONDS: Final = 60.0
    COUNT_MAX: Final = 5
    PAUSES_SECONDS: Final = (0.1, 0.5, 1.0, 2.0)

    def __init__(self) -> None:
        self._moments: list[float] = []

    def another(self) -> float | None:
        """Note a death; the seconds to wait before the next start, or None when it is enough."""
        now = time.monotonic()
        self._moments = [moment for moment in self._moments if now - moment < self.WINDOW_SECONDS] + [now]
        if len(self._moments) >= self.COUNT_MAX:
            return None
        return self.PAUSES_SECONDS[len(self._moments) - 1]
