"""`make bench`: measures everything and prints the figures beside what was asked for. Takes about forty minutes.

`python -m benchmarks --short` runs one round with little load, to see that the benchmarks themselves work;
`--only NAME ...` runs parts of it.
"""

import argparse
import asyncio
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from app.db import Database, migrate
from app.ledger.audit import audit, render
from benchmarks import api, engine, graphql_operation, history, live, oracle, peer, settlement, streams
from benchmarks.market import Servers, Trader, new_asset, prepare, servers
from benchmarks.report import line, progress


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    peer_seconds: int
    settled: int
    over_http: int
    history: int
    growth: tuple[int, int]


FULL = Size(rounds=5, peer_seconds=5, settled=15_000, over_http=8_000, history=1_000_000, growth=(10_000, 100_000))
SHORT = Size(rounds=1, peer_seconds=1, settled=1_000, over_http=1_000, history=2_000, growth=(500, 1_000))


async def compare(
    running: Servers, database: Database, traders: list[Trader], size: Size, *, tag: str
) -> tuple[list[float], list[float], list[float]]:
    """Rounds of peer, settlement and HTTP in turn, each on a hot asset of its own; trades per second of each."""
    rates: tuple[list[float], list[float], list[float]] = ([], [], [])
    latencies = []
    hot = [await new_asset(database, f"{tag}{name}") for name in ("PEER", "ALONE", "HTTP")]
    peer.trades_per_second(running, traders, asset_id=hot[0], seconds=1)
    await settlement.trades_per_second(database, traders, asset_id=hot[1], waiting=200, total=1_000)
    peer.settle_down(running)
    for round_number in range(size.rounds):
        progress(f"round {round_number + 1} of {size.rounds}: peer, settlement, HTTP")
        rates[0].append(peer.trades_per_second(running, traders, asset_id=hot[0], seconds=size.peer_seconds))
        rates[1].append(
            await settlement.trades_per_second(database, traders, asset_id=hot[1], waiting=200, total=size.settled)
        )
        with api.api_process(running):
            api.orders(traders, asset_id=hot[2], total=500, tag=f"{tag}w{round_number}")
            result = api.orders(traders, asset_id=hot[2], total=size.over_http, tag=f"{tag}h{round_number}")
        rates[2].append(result.orders_per_second)
        latencies.append((result.p50_ms, result.p99_ms))
    line(f"{tag}: peer, PL/pgSQL, 16 clients, one hot asset", rates[0], unit="trades/s")
    line(f"{tag}: settlement alone, 200 waiting", rates[1], unit="trades/s", peer=rates[0], floor="5 x")
    line(
        f"{tag}: over HTTP, 64 connections, 1 process", rates[2], unit="orders/s", peer=rates[0], floor="1.2 x, aim 2 x"
    )
    line(f"{tag}: over HTTP, median latency", [p50 for p50, _ in latencies], unit="ms")
    line(f"{tag}: over HTTP, p99 latency", [p99 for _, p99 in latencies], unit="ms")
    return rates


async def growth(running: Servers, database: Database, traders: list[Trader], size: Size) -> None:
    """Resident memory of the API process between two counts of orders."""
    asset_id = await new_asset(database, "GROWTH")
    first, last = size.growth
    with api.api_process(running) as pid:
        api.orders(traders, asset_id=asset_id, total=first, tag="g1")
        before = api.resident_mib(pid)
        api.orders(traders, asset_id=asset_id, total=last - first, tag="g2")
        after = api.resident_mib(pid)
    line(f"API process, growth from order {first:,} to {last:,}", [after - before], unit="MiB", floor="at most 20 MB")


async def checked(database: Database) -> None:
    """The audit of everything that the benchmarks wrote."""
    progress("auditing every entry")
    async with database.snapshot() as connection:
        await connection.execute("SET LOCAL statement_timeout = 0")
        report = await audit(connection=connection)
    print(render(report))
    if not report.ok:
        raise SystemExit("the audit is not clean")


async def exchange(size: Size) -> None:
    """A small query, settlement alone and over HTTP, on empty tables and on full ones."""
    graphql_operation.report(*await graphql_operation.small_query_us())
    with servers() as running:
        database, traders = await prepare(running.settings())
        try:
            await measure(running, database, traders, size)
        finally:
            await database.close()


async def prices(size: Size) -> None:
    """The price engine, and what the history costs when it is long."""
    is_short = size is SHORT
    with servers() as running:
        await migrate(running.settings())
        database = await Database.open(running.settings())
        try:
            engine.report(
                await (engine.compare(database, trades=5_000, rounds=1) if is_short else engine.compare(database))
            )
        finally:
            await database.close()
    with servers() as running:
        await (history.run(running, ticks=100_000, smaller=10, rounds=1, runs=5) if is_short else history.run(running))


async def ticks(size: Size) -> None:
    """Tick streams beside their peers."""
    with streams.pinned_away(), servers() as running:
        await streams.alone(running, streams.SHORT if size is SHORT else streams.FULL)


async def path(size: Size) -> None:
    """The whole path from a trade to its readers, idle and stalled ones."""
    with streams.pinned_away(), servers() as running:
        live.remember_commits(running)
        database, traders = await prepare(running.settings())
        try:
            await live.report(running, database, traders, live.SHORT if size is SHORT else live.FULL)
        finally:
            await database.close()


async def fundamentals(size: Size) -> None:
    """The oracle worker with many search assets, and judging beside extracting."""
    oracle.report_judgement()
    is_short = size is SHORT
    for assets in (50,) if is_short else (500, 1_000):
        with servers() as running:
            await migrate(running.settings())
            database = await Database.open(running.settings())
            try:
                await oracle.measure(running, database, assets=assets, seconds=20 if is_short else 120)
            finally:
                await database.close()


PARTS = {"exchange": exchange, "prices": prices, "ticks": ticks, "path": path, "oracle": fundamentals}


async def run(size: Size, parts: Sequence[str]) -> None:
    """These parts, in order."""
    print(f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}")
    for name in parts:
        await PARTS[name](size)


async def measure(running: Servers, database: Database, traders: list[Trader], size: Size) -> None:
    """What needs the market."""
    peer.install(running)
    empty = await compare(running, database, traders, size, tag="EMPTY")
    await growth(running, database, traders, size)
    await settlement.fill(database, traders, asset_id=await new_asset(database, "HISTORY"), trades=size.history)
    full = await compare(running, database, traders, size, tag="FULL")
    for name, before, after in zip(("peer", "settlement", "HTTP"), empty, full, strict=True):
        ratio = statistics.median(after) / statistics.median(before)
        asked = "" if name == "peer" else "  [asked: 0.9]"
        print(f"{name}: {ratio:.2f} of the empty tables' figure with {size.history:,} trades more{asked}")
    await checked(database)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), default=tuple(PARTS))
    arguments = parser.parse_args()
    asyncio.run(run(SHORT if arguments.short else FULL, arguments.only))
