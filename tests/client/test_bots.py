"""The bots of the documentation, run as they stand there against a market that ticks."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.local.postgres import EmbeddedPostgres
from app.local.valkey import EmbeddedValkey
from app.money import PRICE_UNIT
from app.pricing.oracle_events import OracleEventKind
from tests.client.market import price_worker
from tests.client.test_live import new_symbol
from tests.conftest import ROOT, TEMPLATE, LiveApi, _create, run_api
from tests.pricing.running import open_database, record

LINES_MAX = 40


def bot_of(document: str) -> str:
    """The first Python block."""
    found = re.search(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    assert found is not None
    return found[1]


async def say_worth(database_url: str, symbol: str, value: int) -> None:
    """Record a reading of the asset's worth, in 10^-12."""
    async with open_database(database_url) as database:
        async with database.acquire() as connection:
            asset_id: int = await connection.fetchval("SELECT id FROM assets WHERE symbol = $1", symbol)
        await record(database, asset_id, value, kind=OracleEventKind.OVERRIDE)


@pytest.fixture(scope="module")
def market(postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> Iterator[LiveApi]:
    """An API and a price worker on a database of their own."""
    database_url = _create(postgres, "test_bots", template=TEMPLATE)
    with ExitStack() as stack:
        api = stack.enter_context(run_api(database_url=database_url, redis_url=valkey.url))
        stack.enter_context(price_worker(database_url=database_url, redis_url=valkey.url))
        yield api


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("README.md", (r"\d\d:\d\d:\d\d \S+ #\d+ ORACLE: D [\d.]+, M [\d.]+",)),
        (
            "docs/bots.md",
            (r"\d\d:\d\d:\d\d \S+ #\d+ D [\d.]+ M [\d.]+ gap [+-][\d.]+%", r"  BUY [\d.]+ at [\d.]+, fee [\d.]+"),
        ),
        (
            "client/README.md",
            (r"bought [\d.]+ \S+ at [\d.]+, fee [\d.]+", r"\d\d:\d\d:\d\d #\d+ D [\d.]+ M [\d.]+ F [\d.]+"),
        ),
    ],
)
def test_the_documented_bot_runs(document: str, expected: tuple[str, ...], market: LiveApi, tmp_path: Path) -> None:
    source = bot_of(document)
    assert source.count("\n") < LINES_MAX
    symbol = new_symbol(market.url)
    script = tmp_path / "bot.py"
    script.write_text(source)
    # Without a reading F would be P0, and so would M: nothing to trade for.
    asyncio.run(say_worth(market.database_url, symbol, 2 * PRICE_UNIT))
    process = subprocess.Popen(
        [sys.executable, str(script), market.url, symbol], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        wanted = list(expected)
        for line in process.stdout:
            wanted = [pattern for pattern in wanted if not re.fullmatch(pattern, line.rstrip("\n"))]
            if not wanted:
                break
        assert wanted == []
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
