"""The demo's process, `megatron demo run`: it waits while the API is away, ends cleanly, in development only."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT, free_port

Process = asyncio.subprocess.Process


@asynccontextmanager
async def demo(data_dir: Path, **more: str) -> AsyncIterator[Process]:
    """The traders of an API that is away."""
    environment = {**os.environ, "MEGATRON_ENV": "development", "MEGATRON_DATA_DIR": str(data_dir), **more}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.cli", "demo", "run", "--url", f"http://127.0.0.1:{free_port()}/graphql",
        cwd=ROOT, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_waits_while_the_api_is_away_and_ends_when_told_to(tmp_path: Path, number: signal.Signals) -> None:
    async with demo(tmp_path) as running:
        assert running.stdout is not None
        async with asyncio.timeout(30):
            while b"demo_traders_start" not in (line := await running.stdout.readline()):
                assert line
        running.send_signal(number)
        output, _ = await asyncio.wait_for(running.communicate(), 10)
        assert (running.returncode, b"Traceback" in output) == (0, False)


async def test_outside_of_development_it_does_not_start(tmp_path: Path) -> None:
    async with demo(tmp_path, MEGATRON_ENV="production") as refused:
        output, _ = await asyncio.wait_for(refused.communicate(), 20)
        assert refused.returncode == 1
        assert output.decode().startswith("megatron: the demo market runs in development only")
