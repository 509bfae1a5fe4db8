"""What must hold before the local market starts: a folder to write to, a free port, no other run on the same data.

Standard library only and free of the project's imports: the checks also run before the virtual environment exists.
"""

import errno
import fcntl
import json
import os
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

LOCK_PATIENCE_SECONDS: Final = 1.0
"""How long a start waits for a run whose end is not announced yet, such as one that was killed a moment ago."""
STOPPING_PATIENCE_SECONDS: Final = 15.0


class CheckError(Exception):
    """The market cannot start here; the message is one line that says what to do."""


def check_data_dir(data_dir: Path) -> None:
    """Make `data_dir` if need be and write to it. Raises `CheckError`."""
    try:
        made = not data_dir.exists()
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if made:
            data_dir.chmod(0o700)
        descriptor, probe = tempfile.mkstemp(prefix=".probe-", dir=data_dir)
        os.close(descriptor)
        Path(probe).unlink()
    except OSError as error:
        raise CheckError(
            f"the data directory {data_dir} cannot be written ({error.strerror}): "
            "set MEGATRON_DATA_DIR to a folder that you may write to"
        ) from None


def check_port(host: str, port: int) -> None:
    """Make sure that a server can listen on `host` and `port`. Raises `CheckError`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CheckError(
                f"port {port} on {host} is taken by another program: stop that, or set MEGATRON_PORT to a free port"
            ) from None
        raise CheckError(
            f"nothing can listen on port {port} of {host} ({error.strerror}): set MEGATRON_PORT and MEGATRON_HOST"
        ) from None


def free_port(host: str) -> int:
    """A port of `host` that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


class DataDirLock:
    """Held by the one run that uses a data directory; the kernel frees it however that run ends."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._path = data_dir / "lock"
        self._descriptor: int | None = None

    def acquire(self, *, url: str, say: Callable[[str], None]) -> Self:
        """Take the lock, waiting for an earlier run that is stopping. Raises `CheckError` when one goes on."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        started = time.monotonic()
        waiting = False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = self._read()
                waited = time.monotonic() - started
                stopping = bool(holder.get("stopping"))
                if waited > (STOPPING_PATIENCE_SECONDS if stopping else LOCK_PATIENCE_SECONDS):
                    os.close(descriptor)
                    raise CheckError(
                        f"the market already runs on {self._data_dir} (process {holder.get('pid', 'unknown')}, "
                        f"{holder.get('url', 'starting')}): stop it first, or set MEGATRON_DATA_DIR to another folder"
                    ) from None
                if stopping and not waiting:
                    waiting = True
                    say("waiting for the run before this one to stop")
                time.sleep(0.05)
        self._descriptor = descriptor
        self._write({"pid": os.getpid(), "url": url})
        return self

    def announce_stop(self) -> None:
        """Tell whoever starts next that waiting is worthwhile."""
        self._write({**self._read(), "stopping": True})

    def release(self) -> None:
        """Give the lock up."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _read(self) -> dict[str, object]:
        try:
            read = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return read if isinstance(read, dict) else {}

    def _write(self, holder: dict[str, object]) -> None:
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, json.dumps(holder).encode(), 0)
