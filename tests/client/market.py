"""A price worker as a process of its own, for tests whose market must tick."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.conftest import ROOT


@contextmanager
def price_worker(*, database_url: str, redis_url: str) -> Iterator[None]:
    """A price worker, stopped at the end as an operator would."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MEGATRON_")}
    settings = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "MEGATRON_ENV": "development"}
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "worker", "price"],
        cwd=ROOT,
        env=own | settings | {"MEGATRON_LOG_LEVEL": "WARNING"},
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
