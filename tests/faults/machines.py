"""Servers that a test may kill and start again at the same address."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from app.db import migrate
from app.local.postgres import EmbeddedPostgres
from app.local.process import spawn
from tests.conftest import LiveApi, free_port, make_settings, run_api, wait_until

START_SECONDS = 30.0


class MortalPostgres:
    """A durable PostgreSQL: what it has acknowledged is on disk, whatever happens to its processes."""

    def __init__(self, folder: Path) -> None:
        self._server = EmbeddedPostgres(folder, durable=True)
        self._server.prepare()
        self._server.initialise()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def dsn(self) -> str:
        """Its address, the same in every life."""
        return self._server.dsn

    def start(self) -> None:
        """Start it and wait until it lets clients in."""
        self._server.prepare()
        with self._server.log.open("ab") as output:
            process = self._process = spawn(self._server.command(), output=output)
        wait_until(lambda: self._server.is_ready() or process.poll() is not None, seconds=START_SECONDS)
        assert process.poll() is None, "PostgreSQL did not start again"

    def kill(self) -> None:
        """Immediate stop: no checkpoint, no good-bye; the next start recovers from the log."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(START_SECONDS)

    def close(self) -> None:
        """End it and remove what it made outside its folder."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(START_SECONDS)
        self._server.clean_up()


@contextmanager
def mortal_postgres() -> Iterator[MortalPostgres]:
    """A durable, migrated PostgreSQL in a temporary folder."""
    with TemporaryDirectory(prefix="megatron-test-", ignore_cleanup_errors=True) as folder:
        server = MortalPostgres(Path(folder))
        try:
            asyncio.run(migrate(make_settings(database_url=server.dsn)))
            yield server
        finally:
            server.close()


class MortalApi:
    """An API process that may be killed."""

    def __init__(self, *, database_url: str, redis_url: str, **environment: str) -> None:
        self._arguments = {"database_url": database_url, "redis_url": redis_url, **environment}
        self._port = free_port()
        self._life = ExitStack()
        self.live: LiveApi | None = None

    @property
    def url(self) -> str:
        """Its address, the same in every life."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self.live = self._life.enter_context(run_api(port=self._port, **self._arguments))

    def kill(self) -> None:
        """SIGKILL."""
        assert self.live is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.live.process.pid, signal.SIGKILL)
        self.live.process.wait()
        self._life.close()
        self.live = None

    def close(self) -> None:
        """Stop it as an operator would."""
        self._life.close()
