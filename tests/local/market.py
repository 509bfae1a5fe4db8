"""A market of stand-ins that a test starts as a process of its own, listens to, and looks into."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from app.local.process import start_token

HERE = Path(__file__).parent
PROJECT = HERE.parent.parent
PATIENCE_SECONDS = 30.0
API = (sys.executable, str(HERE / "standin_api.py"))
STAND_IN = (
    "import socket, sys\nlistener = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
    "while True:\n    listener.accept()[0].close()"
)
"""A program that listens on the port of its argument."""
IDLE = (sys.executable, "-c", "import signal; signal.pause()")

Found = TypeVar("Found")


def stand_in(port: int, **env: str) -> dict[str, object]:
    """A stand-in for the oracle's providers that takes connections on `port`."""
    return {"argv": (sys.executable, "-c", STAND_IN, str(port)), "port": port, "env": env}


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def until(what: str, found: Callable[[], Found | None]) -> Found:
    """Wait for `found` to answer something true; fails with `what` when it does not in time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (value := found()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)
    return value


class Running:
    """A supervisor process and what it has said."""

    def __init__(self, argv: Sequence[str], *, data_dir: Path, port: int, env: dict[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self.port = port
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            argv,
            cwd=PROJECT,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            self.lines.extend(line.rstrip("\n") for line in output)

    @property
    def said(self) -> str:
        return "\n".join(self.lines)

    def says(self, part: str, *, times: int = 1) -> str:
        """Wait for a line that holds `part`; the last such line."""

        def found() -> str | None:
            matching = [line for line in list(self.lines) if part in line]
            if len(matching) >= times:
                return matching[-1]
            assert self.process.poll() is None or self._reader.is_alive(), f"ended without {part!r}:\n{self.said}"
            return None

        return until(f"{part!r} in:\n{self.said}", found)

    def ready(self) -> "Running":
        assert self.says("ready: ") == f"ready: http://127.0.0.1:{self.port}/graphql"
        return self

    def ends(self) -> int:
        """Wait for the end; the exit status."""
        status = self.process.wait(PATIENCE_SECONDS)
        self._reader.join(PATIENCE_SECONDS)
        return status

    def stops(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Stop it by a signal, with status 0; the seconds that took."""
        started = time.monotonic()
        self.process.send_signal(number)
        assert self.ends() == 0, self.said
        return time.monotonic() - started

    def pid(self, name: str) -> int:
        """The number of a child that runs now."""

        return pid_of(self.data_dir, name)

    def told(self) -> dict[str, str | None]:
        """What the stand-in API found in its environment."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/told", timeout=5) as answer:
            told: dict[str, str | None] = json.load(answer)
            return told


def processes_of(data_dir: Path) -> list[int]:
    """Living processes that work in `data_dir` or carry it in their environment."""
    marks = (str(data_dir).encode(), b"MEGATRON_DATA_DIR=" + str(data_dir).encode())
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and start_token(int(entry.name)):
            try:
                folder = os.readlink(entry / "cwd").encode()
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if folder.startswith(marks[0]) or marks[1] in environment:
                found.append(int(entry.name))
    return found


def pid_of(data_dir: Path, name: str) -> int:
    """The number of the child `name` that runs now; waits until one does."""

    def found() -> int | None:
        try:
            record = json.loads((data_dir / "run" / f"{name}.json").read_text())
        except (OSError, ValueError):
            return None
        number = int(record["pid"])
        return number if record["started"] and start_token(number) == record["started"] else None

    return until(f"a process of {name}", found)


def start_arguments(
    data_dir: Path,
    *,
    port: int,
    api: Sequence[str] = API,
    prices: Sequence[str] | None = IDLE,
    oracle: Sequence[str] | None = IDLE,
    stand_in: Mapping[str, object] | None = None,
    traders: Sequence[str] | None = IDLE,
    once: Sequence[tuple[str, str, Sequence[str]]] = (),
    web: Sequence[str] | None = None,
    **options: str | None,
) -> list[str]:
    """The arguments of a supervisor process with stand-ins on `data_dir`."""
    elsewhere = {"database_url": None, "redis_url": None, "admin_password_hash": None, **options}
    told = {
        "options": {"data_dir": str(data_dir), "host": "127.0.0.1", "port": port, **elsewhere},
        "once": once,
        "api": api,
        "prices": prices,
        "oracle": oracle,
        "stand_in": stand_in,
        "traders": traders,
        "web": web,
    }
    return [sys.executable, str(HERE / "standin_market.py"), json.dumps(told)]


def start(
    data_dir: Path,
    *,
    port: int | None = None,
    api: Sequence[str] = API,
    prices: Sequence[str] | None = IDLE,
    oracle: Sequence[str] | None = IDLE,
    stand_in: Mapping[str, object] | None = None,
    traders: Sequence[str] | None = IDLE,
    once: Sequence[tuple[str, str, Sequence[str]]] = (),
    web: Sequence[str] | None = None,
    **options: str | None,
) -> Running:
    """Start a supervisor process with stand-ins on `data_dir`."""
    number = port or free_port()
    argv = start_arguments(
        data_dir,
        port=number,
        api=api,
        prices=prices,
        oracle=oracle,
        stand_in=stand_in,
        traders=traders,
        once=once,
        web=web,
        **options,
    )
    return Running(argv, data_dir=data_dir, port=number, env={"PYTHONPATH": str(PROJECT)})
