"""Workers as processes of their own, and what they say when they refuse to start."""

import os
import subprocess
import sys
from typing import TypeAlias

from tests.conftest import ROOT

Process: TypeAlias = "subprocess.Popen[str]"


def start_worker(what: str, database_url: str, redis_url: str = "", **environment: str) -> Process:
    """`megatron worker WHAT` in development."""
    variables = {
        **os.environ,
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "MEGATRON_ENV": "development",
        **environment,
    }
    argv = [sys.executable, "-m", "app.cli", "worker", what]
    return subprocess.Popen(argv, cwd=ROOT, env=variables, stderr=subprocess.PIPE, text=True)


def refused(process: Process) -> str:
    """What it said on standard error before it ended with status 1."""
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    return errors
