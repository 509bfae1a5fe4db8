"""What the client suites stand on: an API that serves, Node.js with npm's packages, the built playground, a browser.

What is missing on a machine is a skip whose reason says what to install. What is there and fails is a failure.
"""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from app.local.node import NodeTools, build_playground, find_node, install_packages, missing_line
from app.local.valkey import EmbeddedValkey
from tests.conftest import ROOT, LiveApi

HERE = Path(__file__).resolve().parent
SCRIPT_SECONDS_MAX = 120

# Read on import: the tests clear the environment of the project's settings before the first of them runs.
GIVEN_URL = os.environ.get("MEGATRON_TEST_URL")
GIVEN_CHROMIUM = os.environ.get("MEGATRON_CHROMIUM")
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")

RunNode = Callable[..., Awaitable[bytes]]


@pytest.fixture(scope="session")
def api_url(request: pytest.FixtureRequest) -> str:
    """The origin of a running API: MEGATRON_TEST_URL, or else that of the fixture `live_api`."""
    if GIVEN_URL:
        return GIVEN_URL.rstrip("/")
    live_api: LiveApi = request.getfixturevalue("live_api")
    return live_api.url


@pytest.fixture(scope="session")
def market_url(live_api: LiveApi, valkey: EmbeddedValkey) -> Iterator[str]:
    """The origin of a running API, beside which a price worker makes ticks."""
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MEGATRON_")},
        "DATABASE_URL": live_api.database_url,
        "REDIS_URL": valkey.url,
        "MEGATRON_ENV": "development",
        "MEGATRON_LOG_LEVEL": "WARNING",
    }
    worker = subprocess.Popen([sys.executable, "-m", "app.cli", "worker", "price"], cwd=ROOT, env=variables)
    try:
        yield live_api.url
    finally:
        worker.terminate()
        worker.wait(timeout=15)


@pytest.fixture(scope="session")
async def node() -> NodeTools:
    """Node.js, with the packages of the client suites installed."""
    tools = find_node()
    if tools is None:
        pytest.skip(missing_line())
    await asyncio.to_thread(install_packages, tools=tools, clients=True)
    return tools


@pytest.fixture(scope="session")
async def playground(node: NodeTools) -> None:
    """The playground, built from the sources as they are now."""
    await asyncio.to_thread(build_playground, tools=node)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium: MEGATRON_CHROMIUM, or else one on the PATH."""
    for name in filter(None, (GIVEN_CHROMIUM, *CHROMIUM_NAMES)):
        path = shutil.which(name)
        if path:
            return path
    pytest.skip("no Chromium on the PATH: run tests/clients/install-chromium.sh, or set MEGATRON_CHROMIUM to its path")


@pytest.fixture(scope="session")
def run_node(node: NodeTools) -> RunNode:
    """Runs a script of this folder, or one of an npm package by its path, and answers what it prints."""

    async def run(script: str | Path, *arguments: str) -> bytes:
        process = await asyncio.create_subprocess_exec(
            node.node,
            HERE / script,
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=node.environment(),
        )
        try:
            output, errors = await asyncio.wait_for(process.communicate(), SCRIPT_SECONDS_MAX)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        said = (output + errors).decode(errors="replace")
        assert process.returncode == 0, f"{script} {arguments} ended with status {process.returncode}:\n{said}"
        return output

    return run
