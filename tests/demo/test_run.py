"""The demo's process, `megatron demo run`: it replays, waits for a database that is away, and ends cleanly."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from app.local.postgres import EmbeddedPostgres
from tests.conftest import ROOT, TEMPLATE, free_port

Process = asyncio.subprocess.Process


@asynccontextmanager
async def demo(database_url: str, data_dir: Path, *, what: str = "run", **more: str) -> AsyncIterator[Process]:
    environment = {
        **os.environ,
        "DATABASE_URL": database_url,
        "MEGATRON_ENV": "development",
        "MEGATRON_DATA_DIR": str(data_dir),
        "MEGATRON_DEMO_TRADERS": "0",
        **more,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.cli", "demo", what, "--url", f"http://127.0.0.1:{free_port()}/graphql",
        cwd=ROOT, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def positions_after(connection: "asyncpg.Connection[asyncpg.Record]", position_ms: int) -> int:
    """The least position, once it is beyond `position_ms`."""
    async with asyncio.timeout(15):
        while True:
            found: int = await connection.fetchval("SELECT min(position_ms) FROM series_replays")
            if found > position_ms:
                return found
            await asyncio.sleep(0.02)


async def ended(process: Process, number: signal.Signals) -> tuple[int | None, str]:
    process.send_signal(number)
    output, _ = await asyncio.wait_for(process.communicate(), 10)
    return process.returncode, output.decode()


async def test_it_replays_until_told_to_end_and_goes_on_where_it_stopped(
    fresh_database_url: str, tmp_path: Path
) -> None:
    async with demo(fresh_database_url, tmp_path, what="seed") as seeding:
        assert await asyncio.wait_for(seeding.wait(), 20) == 0
    connection = await asyncpg.connect(fresh_database_url)
    for number in (signal.SIGTERM, signal.SIGINT):
        before: int = await connection.fetchval("SELECT min(position_ms) FROM series_replays")
        async with demo(fresh_database_url, tmp_path) as running:
            await positions_after(connection, before + 8_640)
            status, output = await ended(running, number)
            assert (status, "Traceback" in output) == (0, False)
        stopped: int = await connection.fetchval("SELECT min(position_ms) FROM series_replays")
        assert before < stopped < before + 15_000 * 8_640
    assert os.listdir(tmp_path) == []
    await connection.close()


async def test_it_waits_for_a_database_that_is_away(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    url = postgres.dsn_of("demo_late")
    async with demo(url, tmp_path) as running:
        assert running.stdout is not None
        line = await asyncio.wait_for(running.stdout.readline(), 20)
        assert b"replay_waits_for_database" in line
        connection = await asyncpg.connect(postgres.dsn_of("postgres"))
        await connection.execute(f"CREATE DATABASE demo_late TEMPLATE {TEMPLATE}")
        await connection.close()
        async with demo(url, tmp_path, what="seed") as seeding:
            assert await asyncio.wait_for(seeding.wait(), 20) == 0
        connection = await asyncpg.connect(url)
        assert await positions_after(connection, 0) > 0
        # Cut its connections: it must find back by itself.
        await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'demo_late'"
                                 " AND pid <> pg_backend_pid()")  # fmt: skip
        cut: int = await connection.fetchval("SELECT min(position_ms) FROM series_replays")
        assert await positions_after(connection, cut) > cut
        await connection.close()
        status, _ = await ended(running, signal.SIGTERM)
        assert status == 0


async def test_outside_of_development_it_does_not_start(fresh_database_url: str, tmp_path: Path) -> None:
    async with demo(fresh_database_url, tmp_path, MEGATRON_ENV="production") as refused:
        output, _ = await asyncio.wait_for(refused.communicate(), 20)
        assert refused.returncode == 1
        assert output.decode().startswith("megatron: the demo market runs in development only")
