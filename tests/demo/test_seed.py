"""Making the demo market and its oracles: once, whatever happens, and with a trace in the audit log."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator

import asyncpg
import pytest

from app.db import Connection
from app.demo.catalogue import CATALOGUE
from app.demo.stand_in.months import known_at
from app.money import PRICE_DECIMALS, PRICE_MAX, PRICE_UNIT, SLOPE_DECIMALS, SLOPE_MAX, parse
from app.oracle.configuration import encode_configuration
from app.oracle.series import natural_speed
from tests.conftest import ROOT


@pytest.fixture
async def connection(fresh_database_url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(fresh_database_url)
    await connection.set_type_codec("numeric", schema="pg_catalog", encoder=str, decoder=int, format="text")
    yield connection
    await connection.close()


FOLLOWED = tuple(asset for asset in CATALOGUE if asset.search is None)
"""By feed; the last one of the catalogue follows by search."""
SYMBOLS = ", ".join(asset.symbol for asset in CATALOGUE)
THERE = "demo market: 9 assets are there\n"


async def seed(
    database_url: str, *, times: int = 1, environment: str = "development", **more: str
) -> list[tuple[int, str, str]]:
    """The command, so many times at once: status, output and errors of each."""
    variables = {**os.environ, "DATABASE_URL": database_url, "MEGATRON_ENV": environment, **more}
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
    tables = ("assets", "series_replays", "ledger_accounts", "audit_log", "oracle_logs")
    oracles = [tuple(row) for row in await connection.fetch("SELECT * FROM oracles ORDER BY asset_id")]
    events = [tuple(row) for row in await connection.fetch("SELECT * FROM oracle_events ORDER BY asset_id, seq")]
    return [*oracles, *events, *await rows_of(connection, tables)]


async def rows_of(connection: Connection, tables: tuple[str, ...]) -> list[tuple[object, ...]]:
    return [tuple(row) for table in tables for row in await connection.fetch(f"SELECT * FROM {table} ORDER BY id")]


async def test_a_new_database_gets_every_asset(fresh_database_url: str, connection: Connection) -> None:
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
    assert len(lines) == len(CATALOGUE) + 2
    assert lines[0] == "demo market: SEATEMP, Seattle daily high (1 of 9)"
    assert lines[-2:] == [f"demo market: oracles of {SYMBOLS}", "demo market: 9 assets are there"]


async def test_each_asset_gets_the_oracle_that_it_follows_by(fresh_database_url: str, connection: Connection) -> None:
    await seed(fresh_database_url)
    rows = await connection.fetch(
        "SELECT a.symbol, o.*, o.due_at <= now() AS is_due FROM oracles o JOIN assets a ON a.id = o.asset_id"
        " ORDER BY a.id"
    )
    assert [row["symbol"] for row in rows] == [asset.symbol for asset in CATALOGUE]
    for row, asset in zip(rows, CATALOGUE, strict=True):
        assert row["configuration"] == encode_configuration(asset.oracle)
        assert (row["override_id"], row["held_until"], row["claimed_until"], row["is_due"]) == (None, None, None, True)
    told = [(row["method"], row["base_cadence_seconds"], row["cadence_seconds"]) for row in rows]
    assert told == [("FEED", None, 3)] * 8 + [("SEARCH_LLM", 15, 15)]
    replays = await connection.fetch(
        'SELECT a.symbol, r.series, r."column", r.speed, r.position_ms FROM series_replays r'
        " JOIN assets a ON a.id = r.asset_id ORDER BY a.id"
    )
    assert [tuple(row) for row in replays] == [
        (asset.symbol, asset.series, asset.column, natural_speed(asset.series), 0) for asset in FOLLOWED
    ]


async def test_the_searched_asset_sets_out_from_the_figure_of_the_day(
    fresh_database_url: str, connection: Connection
) -> None:
    await seed(fresh_database_url)
    (event,) = await connection.fetch(
        "SELECT a.symbol, e.kind, e.value, e.seq, e.at FROM oracle_events e JOIN assets a ON a.id = e.asset_id"
    )
    figure = known_at(event["at"]).latest.thousands
    assert (event["symbol"], event["kind"], event["seq"]) == ("USMINING", "OVERRIDE", 1)
    assert event["value"] == figure * PRICE_UNIT
    (report,) = await connection.fetch("SELECT * FROM oracle_logs")
    assert (report["method"], report["outcome"], report["event_seq"]) == ("OVERRIDE", "ACCEPTED", 1)
    assert (report["suggested_price"], report["fundamental_before"]) == (figure * PRICE_UNIT, 160 * PRICE_UNIT)
    assert (report["resolved_by"], report["reason"]) == ("demo", "the demo market")


async def test_each_asset_and_oracle_is_in_the_audit_log(fresh_database_url: str, connection: Connection) -> None:
    await seed(fresh_database_url)
    rows = await connection.fetch("SELECT actor, action, target, reason, before, after FROM audit_log ORDER BY id")
    assert {(row["actor"], row["reason"], row["before"]) for row in rows} == {("demo", "the demo market", None)}
    created, configured = rows[: len(CATALOGUE)], [row for row in rows if row["action"] == "oracleConfigure"]
    assert {row["action"] for row in created} == {"assetCreate"}
    assert [row["target"] for row in configured] == [row["target"] for row in created]
    assert [row["action"] for row in rows[len(CATALOGUE) :]] == [
        *["oracleConfigure"] * len(FOLLOWED), "oracleOverride", "oracleConfigure",
    ]  # fmt: skip
    after = json.loads(created[0]["after"])
    assert (after["symbol"], after["basePrice"], after["slope"]) == ("SEATEMP", "24", "0.134")
    assert json.loads(configured[0]["after"]) == {
        "oracle": json.loads(encode_configuration(CATALOGUE[0].oracle)),
        "cadenceSeconds": None,
    }
    assert json.loads(rows[-2]["after"])["report"] == "OracleReport:1"


async def test_what_the_demo_made_before_there_were_oracles_gets_them_and_goes_on(
    fresh_database_url: str, connection: Connection
) -> None:
    await seed(fresh_database_url)
    await connection.execute("DELETE FROM oracles WHERE method = 'FEED'")
    await connection.execute("DELETE FROM series_replays WHERE series = 'iowa-electricity'")
    await connection.execute("UPDATE series_replays SET position_ms = 77")
    assert await seed(fresh_database_url) == [
        (0, f"demo market: oracles of {', '.join(asset.symbol for asset in FOLLOWED)}\n{THERE}", "")
    ]
    assert await connection.fetchval("SELECT count(*) FROM oracles") == len(CATALOGUE)
    positions = await connection.fetch("SELECT position_ms FROM series_replays ORDER BY asset_id")
    assert [row["position_ms"] for row in positions] == [77] * 5 + [0] * 3
    assert await connection.fetchval("SELECT count(*) FROM oracle_logs") == 1


async def test_what_an_admin_configured_is_left_alone(fresh_database_url: str, connection: Connection) -> None:
    await seed(fresh_database_url)
    own = encode_configuration(CATALOGUE[1].oracle)
    await connection.execute(
        "UPDATE oracles SET configuration = $1, method = 'FEED', base_cadence_seconds = 60, version = 2", own
    )
    before = await everything(connection)
    assert await seed(fresh_database_url) == [(0, THERE, "")]
    assert await everything(connection) == before


async def test_replays_take_the_speed_of_the_settings(fresh_database_url: str, connection: Connection) -> None:
    await seed(fresh_database_url)
    await connection.execute("UPDATE series_replays SET position_ms = 77")
    await seed(fresh_database_url, MEGATRON_ORACLE_SERIES_SPEED="2.5")
    rows = await connection.fetch("SELECT DISTINCT speed, position_ms FROM series_replays ORDER BY speed")
    assert [tuple(row) for row in rows] == [(21_600, 77), (657_000, 77), (876_600, 77)]


async def test_real_providers_are_asked_at_the_usual_cadence(fresh_database_url: str, connection: Connection) -> None:
    searched = "SELECT base_cadence_seconds FROM oracles WHERE method = 'SEARCH_LLM'"
    await seed(fresh_database_url)
    assert await connection.fetchval(searched) == 15
    await seed(fresh_database_url, SERPER_API_KEY="a-key")
    assert await connection.fetchval(searched) is None
    last = await connection.fetchrow("SELECT action, before, after FROM audit_log ORDER BY id DESC LIMIT 1")
    assert last is not None
    assert tuple(last) == ("oracleConfigure", '{"cadenceSeconds":15}', '{"cadenceSeconds":null}')
    await seed(fresh_database_url)
    assert await connection.fetchval(searched) == 15


async def test_seeding_again_changes_nothing(fresh_database_url: str, connection: Connection) -> None:
    await seed(fresh_database_url)
    before = await everything(connection)
    assert await seed(fresh_database_url) == [(0, THERE, "")]
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
    assert await connection.fetchval("SELECT count(*) FROM series_replays") == len(FOLLOWED) - 1
    assert await connection.fetchval("SELECT count(*) FROM oracles WHERE asset_id = $1", mine["id"]) == 0
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
    told = sorted(line for _, output, _ in both for line in output.splitlines() if line.endswith(")"))
    assert [line.split()[2].rstrip(",") for line in told] == sorted(asset.symbol for asset in CATALOGUE)
    assert await connection.fetchval("SELECT count(*) FROM assets") == len(CATALOGUE)
    assert await connection.fetchval("SELECT count(*) FROM series_replays") == len(FOLLOWED)
    assert await connection.fetchval("SELECT count(*) FROM oracle_logs") == 1
