"""The oracle worker under load: search assets at a cadence of five minutes, five pages of 100 kB each, providers that
take three seconds. Says its share of a core and its memory, and what judging costs beside extracting."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx
import orjson

from app.admin.asset_input import NewAsset, Value, parsed_asset
from app.admin.assets import insert_asset
from app.db import Database
from app.money import PRICE_UNIT
from app.oracle.cases import Page, SearchCase
from app.oracle.configuration import SearchConfiguration, encode_configuration
from app.oracle.extractor import extracted
from app.oracle.judgement import judge_search
from app.oracle.kinds import PERCENT_UNIT
from app.oracle.page_text import TEXT_CHARS_MAX
from benchmarks import oracle_web
from benchmarks.market import Servers
from benchmarks.oracle_web import PUBLISHERS
from benchmarks.report import line, progress

ROOT: Final = Path(__file__).resolve().parent.parent
WEB_PORT: Final = 18_433
CADENCE_SECONDS: Final = 300
WARM_SECONDS: Final = 20
_TICK: Final = os.sysconf("SC_CLK_TCK")
_PAGE_MIB: Final = os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass(frozen=True, slots=True)
class Held:
    """What a worker needed while it held its assets."""

    core_share: float
    resident_mib: float
    reports_per_second: float
    accepted_share: float


async def hold(running: Servers, database: Database, *, assets: int, seconds: float) -> Held:
    """Run one worker over so many search assets, whose runs are spread over the cadence; measure it for a while."""
    await _configure(database, assets)
    with (
        _process(running, "benchmarks.oracle_web", str(WEB_PORT)),
        _process(running, "app.cli", "worker", "oracle") as pid,
    ):
        progress(f"oracle: {assets} search assets, {WARM_SECONDS + seconds:.0f} s")
        await asyncio.sleep(WARM_SECONDS)
        since = await _now(database)
        begun, used = time.monotonic(), _processor_seconds(pid)
        peak = 0.0
        while time.monotonic() - begun < seconds:
            await asyncio.sleep(1)
            peak = max(peak, _resident_mib(pid))
        share = (_processor_seconds(pid) - used) / (time.monotonic() - begun)
        async with database.acquire() as connection:
            row = await connection.fetchrow(
                "SELECT count(*) AS n, count(*) FILTER (WHERE outcome = 'ACCEPTED') AS accepted,"
                " extract(epoch FROM clock_timestamp() - $1)::float8 AS seconds FROM oracle_logs WHERE at > $1",
                since,
            )
        if row is None or not row["n"]:
            raise RuntimeError("the oracle worker stored no report: look at what it said on standard error")
    return Held(share, peak, row["n"] / row["seconds"], row["accepted"] / row["n"])


async def _now(database: Database) -> object:
    async with database.acquire() as connection:
        return await connection.fetchval("SELECT clock_timestamp()")


async def _configure(database: Database, assets: int) -> None:
    """So many assets with an oracle each, due one after the other over one cadence."""
    async with database.transaction() as unit:
        connection = unit.connection
        numbers = range(1, assets + 1)
        ids = [await insert_asset(connection, values=_asset(number)) for number in numbers]
        await connection.executemany(
            "INSERT INTO oracles (asset_id, method, configuration, base_cadence_seconds, cadence_seconds, due_at)"
            " VALUES ($1, 'SEARCH_LLM', $2, $3, $3, clock_timestamp() + make_interval(secs => $4))",
            [
                (
                    asset_id,
                    encode_configuration(_configuration(number)),
                    CADENCE_SECONDS,
                    CADENCE_SECONDS * number / assets,
                )
                for number, asset_id in zip(numbers, ids, strict=True)
            ],
        )


def _asset(number: int) -> dict[str, Value]:
    return parsed_asset(
        NewAsset(
            symbol=f"BENCH{number}", name=f"Bench {number}", description="Read by search.", category="BENCH",
            base_price="100",
        )
    )  # fmt: skip


def _configuration(number: int) -> SearchConfiguration:
    return SearchConfiguration(
        queries=(f"bench index {number}",),
        question=f"At how many points did the bench index {number} stand at the close?",
        unit="points",
        allowed_domains=None,
        min_sources=2,
        max_delta_percent=10 * PERCENT_UNIT,
        min_confidence=600_000_000,
    )


@contextmanager
def _process(running: Servers, module: str, *arguments: str) -> Iterator[int]:
    settings = running.settings()
    web = f"http://127.0.0.1:{WEB_PORT}"
    environment = {
        **os.environ,
        "MEGATRON_ENV": "development",
        "DATABASE_URL": settings.database_url or "",
        "REDIS_URL": settings.redis_url or "",
        "SERPER_API_URL": f"{web}/serper",
        "HUGGINGFACE_API_URL": f"{web}/v1",
        "MEGATRON_SEARCH_REQUESTS_PER_DAY": "1000000000",
        "MEGATRON_MODEL_REQUESTS_PER_DAY": "1000000000",
        "MEGATRON_ORACLE_ALLOW_PRIVATE": "1",
        "MEGATRON_ORACLE_HOSTS": ",".join(f"{host}=127.0.0.1:{WEB_PORT}" for host in PUBLISHERS),
        "MEGATRON_LOG_LEVEL": "WARNING",
    }
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=ROOT, env=environment)
    try:
        if module != "app.cli":
            _wait_ready(process, f"{web}/ready")
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)


def _wait_ready(process: "subprocess.Popen[bytes]", url: str) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        try:
            httpx.get(url, timeout=1, trust_env=False).raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.05)
    raise RuntimeError("the benchmark's web did not come up")


def _family(pid: int) -> list[int]:
    """The process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def _processor_seconds(pid: int) -> float:
    """User and system time of the process, and of its children that live and that have ended."""
    used = 0.0
    for one in _family(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(") ")[2].split()
        used += sum(map(int, fields[11 : 15 if one == pid else 13])) / _TICK
    return used


def _resident_mib(pid: int) -> float:
    return sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) * _PAGE_MIB for one in _family(pid))


async def measure(running: Servers, database: Database, *, assets: int, seconds: float) -> None:
    """One line a figure."""
    held = await hold(running, database, assets=assets, seconds=seconds)
    name = f"oracle worker, {assets:,} search assets"
    line(f"{name}: of a core", [100 * held.core_share], unit="%", floor="under 50 with 500 assets")
    line(f"{name}: memory with its extractor", [held.resident_mib], unit="MiB", floor="under 300 with 500 assets")
    line(f"{name}: {held.accepted_share:.0%} accepted of", [held.reports_per_second], unit="a second")


def report_judgement(*, rounds: int = 30) -> None:
    """What judging a report with 20 pages takes, beside extracting one page of 100 kB: both of processor time."""
    body = oracle_web.page_of(1, "publisher.example").encode()
    title, text = extracted(body, "text/html; charset=utf-8")
    quotation = f"The bench index 1 stood at {oracle_web.figure(1)} points at the close."
    if quotation not in text:
        raise RuntimeError("the benchmark's page has lost its figure in extraction")
    now = datetime(2025, 1, 1, tzinfo=UTC)
    pages = tuple(
        Page(f"http://publisher{number}.example/", title, f"{number} {text}"[:TEXT_CHARS_MAX], now)
        for number in range(20)
    )
    value = float(oracle_web.figure(1))
    output = orjson.dumps(
        {
            "delta_percent": value - 100, "suggested_price": value, "confidence": 0.9, "summary": "As they say.",
            "source_urls": [page.url for page in pages],
            "quotations": [{"url": page.url, "quotation": quotation, "number": value} for page in pages],
        }
    ).decode()  # fmt: skip
    case = SearchCase(
        configuration=_configuration(1), fundamental=100 * PRICE_UNIT, is_first=False, at=now, max_age_seconds=900,
        pages=pages, duplicates=(), output=output, used=(), pending=(), moved=0, max_moves=250_000_000,
    )  # fmt: skip
    if len(judge_search(case).counted) != len(pages):
        raise RuntimeError(f"the benchmark's report is not what it should be: {judge_search(case)}")
    extracting = [_timed(lambda: extracted(body, "text/html; charset=utf-8")) for _ in range(rounds)]
    judging = [_timed(lambda: judge_search(case)) for _ in range(rounds)]
    line("extracting a page of 100 kB", extracting, unit="ms")
    line("judging a report with 20 pages", judging, unit="ms", peer=extracting, floor="below 1 x")


def _timed(work: Callable[[], object]) -> float:
    """Milliseconds of processor time."""
    begun = time.process_time()
    work()
    return (time.process_time() - begun) * 1_000
