"""Starting, identifying and ending child processes. Knows nothing of what the children are.

Children are started through `launch.py`: in a session of their own (a terminal's Ctrl-C reaches the supervisor alone),
told by the kernel when their parent dies (Linux), and as another user where that is asked for.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

LAUNCHER: Final = Path(__file__).with_name("launch.py")
POLL_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class Account:
    """An operating-system user that a child becomes."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: absolute program and arguments, folder, whole environment, user, and how it ends with its parent."""

    argv: tuple[str, ...]
    folder: Path
    env: Mapping[str, str] | None = None
    account: Account | None = None
    death_signal: signal.Signals = signal.SIGKILL
    stdin: bytes = b""

    def launched(self) -> list[str]:
        """The arguments that start this command as a child of the current process."""
        uid, gid = (str(self.account.uid), str(self.account.gid)) if self.account else ("-", "-")
        # fmt: off
        return [
            sys.executable, "-I", "-S", "-B", str(LAUNCHER),
            str(os.getpid()), str(int(self.death_signal)), uid, gid, str(self.folder), "--", *self.argv,
        ]
        # fmt: on


def spawn(command: Command, *, output: IO[bytes] | int) -> subprocess.Popen[bytes]:
    """Start `command` with its output appended to `output`.

    Call it from a thread that outlives the child: on Linux the kernel takes the end of the starting thread for the
    parent's death.
    """
    return subprocess.Popen(
        command.launched(),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=command.env,
        start_new_session=True,
    )


def run(command: Command, *, output: IO[bytes] | int, timeout_s: float) -> int:
    """Run `command` to its end, feeding it its `stdin`, and return its status.

    Raises `subprocess.TimeoutExpired` after `timeout_s`; the command is dead by then.
    """
    finished = subprocess.run(
        command.launched(),
        input=command.stdin,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=command.env,
        start_new_session=True,
        timeout=timeout_s,
        check=False,
    )
    return finished.returncode


def start_token(pid: int) -> str | None:
    """What tells the process `pid` from a later one with the same number; None when no such process lives."""
    if sys.platform == "linux":
        try:
            # The program's name, in brackets, may itself hold brackets and blanks.
            state, *fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except (OSError, ValueError):
            return None
        return None if state in ("Z", "X") else f"{boot}:{fields[18]}"
    shown = subprocess.run(
        ["ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.split(maxsplit=1)
    return shown[1].strip() if len(shown) == 2 and not shown[0].startswith("Z") else None


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal; a process that is gone, or not ours to end, is left alone."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def wait_until(condition: Callable[[], bool], *, timeout_s: float) -> bool:
    """Poll `condition` until it holds or `timeout_s` have passed; says which."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def end_foreign(pid: int, token: str, *, steps: tuple[tuple[signal.Signals, float], ...]) -> bool:
    """End a process that is not our child, with each signal and the seconds it is given; says whether it is gone.

    `token` is what `start_token` said of it: a later process that got the same number is never touched.
    """

    def gone() -> bool:
        return start_token(pid) != token

    for number, patience_s in steps:
        if gone():
            return True
        send(pid, number)
        if wait_until(gone, timeout_s=patience_s):
            return True
    return gone()


def start_and_wait(
    command: Command, *, log: Path, is_ready: Callable[[], bool], timeout_s: float
) -> subprocess.Popen[bytes]:
    """Start a server and wait until it is ready or has ended, or time is up; its output goes to the end of `log`."""
    with log.open("ab") as output:
        process = spawn(command, output=output)
    wait_until(lambda: is_ready() or process.poll() is not None, timeout_s=timeout_s)
    return process


def stop_stepwise(process: subprocess.Popen[bytes], steps: tuple[tuple[signal.Signals, float], ...]) -> None:
    """Send one signal after the other, giving each its seconds, until the process has ended."""
    for number, patience_s in steps:
        if process.poll() is not None:
            return
        process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)


def last_lines(log: Path, *, count: int = 15, bytes_max: int = 16_384) -> list[str]:
    """The last lines of a log file; none when it cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - bytes_max))
            return file.read().decode(errors="replace").splitlines()[-count:]
    except OSError:
        return []
