"""Real servers for the tests: one throwaway PostgreSQL and Valkey for the session, databases copied from a template.

The ledger's tables refuse TRUNCATE and DELETE, so tests share a database and keep apart by fresh accounts and assets
(tests/factories); a test that needs a database of its own takes `fresh_database_url`.
"""

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvloop

from app.db import Database, migrate
from app.exchange.settlement import Settlement
from app.local.postgres import EmbeddedPostgres, ephemeral_postgres
from app.local.valkey import EmbeddedValkey, ephemeral_valkey
from app.settings import Environment, Settings

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = "megatron_template"
ADMIN_PASSWORD = "correct horse battery staple"
ADMIN_PASSWORD_HASH = "$2b$04$v/tKXof32nj3Gn./zg9bu.aHFDz5Qi3DroatVOxNpCm7nNEHdcPE."


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The event loop that production runs on: its handles, transports and time limits differ from asyncio's own."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session", autouse=True)
def _only_test_settings() -> None:
    """The surroundings' settings and `.env` must not leak into tests."""
    for name in list(os.environ):
        if name.startswith("MEGATRON_") or name in ("DATABASE_URL", "REDIS_URL"):
            del os.environ[name]
    Settings.model_config["env_file"] = None


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    with ephemeral_postgres() as server:
        asyncio.run(migrate(make_settings(database_url=_create(server, TEMPLATE))))
        yield server


@pytest.fixture(scope="session")
def valkey() -> Iterator[EmbeddedValkey]:
    with ephemeral_valkey() as server:
        yield server


_numbers = itertools.count(1)


@pytest.fixture
def fresh_database_url(postgres: EmbeddedPostgres) -> str:
    """A migrated database of one's own."""
    return _create(postgres, f"test_{next(_numbers)}", template=TEMPLATE)


@pytest.fixture(scope="session")
def database_url(postgres: EmbeddedPostgres) -> str:
    """The session's shared, migrated database."""
    return _create(postgres, "test_shared", template=TEMPLATE)


@pytest.fixture(scope="session")
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(make_settings(database_url=database_url))
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
async def settlement(database: Database) -> AsyncIterator[Settlement]:
    started = Settlement(database, publish=lambda _: None)
    started.start()
    yield started
    await started.stop()


def make_settings(**values: object) -> Settings:
    """Development settings for tests; limits off unless asked for."""
    return Settings.model_validate({"env": Environment.DEVELOPMENT, "rate_limits": False, **values})


def _create(server: EmbeddedPostgres, name: str, *, template: str = "template1") -> str:
    subprocess.run(
        [
            server.programs / "psql", "-X", "-q", "-d", server.dsn_of("postgres"),
            "-c", f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY wal_log",
        ],
        check=True,
    )  # fmt: skip
    return server.dsn_of(name)


@dataclass(frozen=True)
class LiveApi:
    """A running API process."""

    url: str
    process: subprocess.Popen[bytes]
    database_url: str


@contextmanager
def run_api(*, database_url: str, redis_url: str, port: int | None = None, **environment: str) -> Iterator[LiveApi]:
    """An API process of its own, ready to serve; stopped at the end."""
    port = port or free_port()
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MEGATRON_")},
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "MEGATRON_ENV": "development",
        "MEGATRON_PORT": str(port),
        "MEGATRON_ADMIN_PASSWORD_HASH": ADMIN_PASSWORD_HASH,
        "MEGATRON_RATE_LIMITS": "0",
        "MEGATRON_LOG_LEVEL": "WARNING",
        **environment,
    }
    process = subprocess.Popen([sys.executable, "-m", "app.cli", "api"], cwd=ROOT, env=variables)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: _is_ready(url, process), seconds=30)
        yield LiveApi(url, process, database_url)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _is_ready(url: str, process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"the API ended with status {process.returncode} before it served")
    try:
        return httpx.get(f"{url}/readyz", timeout=1).status_code == 200
    except httpx.TransportError:
        return False


def wait_until(condition: Callable[[], bool], *, seconds: float) -> None:
    """Poll `condition` until it holds; TimeoutError when it does not within `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.02)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def live_api(postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> Iterator[LiveApi]:
    """One API process on a database of its own, for the whole session."""
    with run_api(database_url=_create(postgres, "test_live", template=TEMPLATE), redis_url=valkey.url) as api:
        yield api


@pytest.fixture
def two_apis(fresh_database_url: str, valkey: EmbeddedValkey) -> Iterator[tuple[LiveApi, LiveApi]]:
    """Two API processes on one fresh database."""
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(run_api(database_url=fresh_database_url, redis_url=valkey.url)) for _ in range(2)
        )
        yield first, second
