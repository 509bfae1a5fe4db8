"""End to end over HTTP: one API process, orders on one hot asset, and what the process grows by."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from api.node_ids import node_id
from benchmarks.market import Servers, Trader

CONNECTIONS = 64
PORT = 18_431
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Result:
    """One run of the load generator."""

    acknowledged: int
    orders_per_second: float
    p50_ms: float
    p99_ms: float


@contextmanager
def api_process(servers: Servers) -> Iterator[int]:
    """An API process on loopback, everything switched on; yields its pid."""
    settings = servers.settings()
    environment = {
        **os.environ,
        "MEGATRON_ENV": "development",
        "MEGATRON_PORT": str(PORT),
        "DATABASE_URL": settings.database_url or "",
        "REDIS_URL": settings.redis_url or "",
        "MEGATRON_RATE_LIMIT_PER_IP_MINUTE": str(settings.rate_limit_per_ip_minute),
        "MEGATRON_RATE_LIMIT_PER_ACCOUNT_MINUTE": str(settings.rate_limit_per_account_minute),
        "MEGATRON_LOG_LEVEL": "WARNING",
    }
    process = subprocess.Popen([sys.executable, "-m", "app.cli", "api"], cwd=ROOT, env=environment)
    try:
        _wait_ready(process)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)


def _wait_ready(process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/readyz", timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("the API did not come up")


def orders(traders: list[Trader], *, asset_id: int, total: int, tag: str) -> Result:
    """Send `total` orders over the connections and wait for all answers."""
    task = {
        "port": PORT,
        "connections": CONNECTIONS,
        "total": total,
        "asset_id": node_id("Asset", asset_id),
        "tag": tag,
        "tokens": [trader.token for trader in traders],
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load"],
        cwd=ROOT,
        input=json.dumps(task),
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(done.stdout)
    if result["failed"] or result["refused"]:
        raise RuntimeError(f"not every order was filled: {result}")
    return Result(
        result["acknowledged"], result["acknowledged"] / result["seconds"], result["p50_ms"], result["p99_ms"]
    )


def resident_mib(pid: int) -> float:
    """The process's resident memory in MiB (Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS")
