"""Making the demo market: once, whatever happens, and with a trace in the audit log."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from app import clock
from app.db import Connection, Unit
from app.demo.catalogue import CATALOGUE
from app.demo.replay import advance
from app.money import PRICE_DECIMALS, PRICE_MAX, SLOPE_DECIMALS, SLOPE_MAX, parse
from tests.conftest import ROOT


@pytest.fixture
async def connection(fresh_database_url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(fresh_database_url)
    await connection.set_type_codec("numeric", schema="pg_catalog", encoder=str, decoder=int, format="text")
    yield connection
    await connection.close()


async def seed(database_url: str, *, times: int = 1, environment: str = "development") -> list[tuple[int, str, str]]:
    """The command, so many times at once: status, output and errors of each."""
    variables = {**os.environ, "DATABASE_URL": database_url, "MEGATRON_ENV": environment}
    command = (sys.executable, "-m", "app.cli", "demo", "seed")
    processes = [
        await asyncio.create_subprocess_exec(
            *command, env=variables, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        for _ in range(times)
    ]
    told = await asyncio.gather(*(process.communicate() for process in processes))
    return [
        (process.returncode or 0, output.decode(), errors.decode())
        for process, (output, errors) in zip(processes, told, strict=True)
    ]


async def everything(connection: Connection) -> list[tuple[object, ...]]:
    tables = ("assets", "series_replays", "ledger_accounts", "audit_log")
    return [tuple(row) for table in tables for row in await connection.fetch(f"SELECT * FROM {table} ORDER BY id")]


async def test_a_new_database_gets_every_asset_and_its_replay(fresh_database_url: str, connection: Connection) -> None:
    [(status, output, errors)] = await seed(fresh_database_url)
    assert (status, errors) == (0, "")
    lines = output.splitlines()
    assets = await connection.fetch("SELECT * FROM assets ORDER BY id")
    assert [row["symbol"] for row in assets] == [asset.symbol for asset in CATALOGUE]
    for row, asset in zip(assets, CATALOGUE, strict=True):
        assert (row["name"], row["description"], row["category"]) == (asset.name, asset.description, asset.category)
        assert (row["status"], row["quote_currency"], row["supply"]) == ("OPEN", asset.quote_currency, 0)
        assert row["base_price"] == parse(asset.base_price, decimals=PRICE_DECIMALS, field=("x",), maximum=PRICE_MAX)
        assert row["slope"] == parse(asset.slope, decimals=SLOPE_DECIMALS, field=("x",), maximum=SLOPE_MAX)
        assert (row["fee_rate"], row["min_notional"]) == (5_000_000, 10_000)
    assert len(lines) == len(CATALOGUE) + 1
    assert lines[0] == "demo market: SEATEMP, Seattle daily high (1 of 8)"
    assert lines[-1] == "demo market: 8 assets are there"
    async with connection.transaction():
        # A moment before they were made: the positions stay where they are.
        began = await advance(unit=Unit(connection), at=clock.now() - timedelta(hours=1))
    firsts = [asset.mapping.price(asset.load().value_at(0)) for asset in CATALOGUE]
    assert [began[row["id"]] for row in assets] == firsts


async def test_each_asset_is_in_the_audit_log(fresh_database_url: str, connection: Connection) -> None:
    await seed(fresh_database_url)
    rows = await connection.fetch("SELECT actor, action, target, reason, before, after FROM audit_log ORDER BY id")
    assert [(row["actor"], row["action"], row["reason"]) for row in rows] == [
        ("demo", "assetCreate", "the demo market") for _ in CATALOGUE
    ]
    after = json.loads(rows[0]["after"])
    assert (after["symbol"], after["basePrice"], after["slope"]) == ("SEATEMP", "24", "0.134")
    assert after["replay"] == {
        "series": "seattle-weather",
        "column": "temp_max",
        "scale": "1",
        "offset": "100",
        "speed": 8_640,
    }


async def test_seeding_again_changes_nothing(fresh_database_url: str, connection: Connection) -> None:
    await seed(fresh_database_url)
    before = await everything(connection)
    assert await seed(fresh_database_url) == [(0, "demo market: 8 assets are there\n", "")]
    assert await everything(connection) == before


async def test_what_is_missing_is_made_and_what_an_admin_made_is_left_alone(
    fresh_database_url: str, connection: Connection
) -> None:
    await connection.execute(
        "INSERT INTO assets (symbol, name, description, category, status, quote_currency, base_price, slope, fee_rate,"
        " min_notional, fundamental_weight, volume_scale, volume_half_life_seconds, created_at)"
        " VALUES ('SEAWIND', 'Mine', 'Mine', 'MINE', 'OPEN', 'USDC', 1000000, 1, 0, 1, 1, 1, 1, now())"
    )
    await seed(fresh_database_url)
    mine = await connection.fetchrow("SELECT id, name FROM assets WHERE symbol = 'SEAWIND'")
    assert mine is not None
    assert mine["name"] == "Mine"
    assert await connection.fetchval("SELECT count(*) FROM assets") == len(CATALOGUE)
    assert await connection.fetchval("SELECT count(*) FROM series_replays") == len(CATALOGUE) - 1
    assert await connection.fetchval("SELECT count(*) FROM series_replays WHERE asset_id = $1", mine["id"]) == 0


async def test_outside_of_development_nothing_is_made(fresh_database_url: str, connection: Connection) -> None:
    before = await everything(connection)
    [(status, output, errors)] = await seed(fresh_database_url, environment="production")
    assert (status, output) == (1, "")
    assert errors.startswith("megatron: the demo market runs in development only: set MEGATRON_ENV=development")
    assert await everything(connection) == before


async def test_two_at_once_make_each_asset_once(fresh_database_url: str, connection: Connection) -> None:
    both = await seed(fresh_database_url, times=2)
    assert [(status, errors) for status, _, errors in both] == [(0, ""), (0, "")]
    told = sorted(line for _, output, _ in both for line in output.splitlines() if " of " in line)
    assert [line.split()[2].rstrip(",") for line in told] == sorted(asset.symbol for asset in CATALOGUE)
    assert await connection.fetchval("SELECT count(*) FROM assets") == len(CATALOGUE)
    assert await connection.fetchval("SELECT count(*) FROM series_replays") == len(CATALOGUE)
