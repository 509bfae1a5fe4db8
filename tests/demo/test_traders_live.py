"""The traders against a real API process: M comes to follow F, over restarts of either side, and the books balance."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import httpx
import orjson

from app.demo.catalogue import CATALOGUE
from app.demo.credentials import CredentialFile
from app.demo.traders import PROFILES
from app.local.valkey import EmbeddedValkey
from app.money import PRICE_DECIMALS, PRICE_MAX, parse
from tests.conftest import ROOT, LiveApi, free_port, run_api
from tests.faults.price_workers import MortalPriceWorker

TRADERS = len(PROFILES)
HURRIED = (
    "import asyncio, sys; from app.demo.run import main_run; from app.settings import Settings;"
    " asyncio.run(main_run(Settings(), sys.argv[1], turns_per_second=50))"
)
MARKET = """query Market { assets(first: 20) { nodes { symbol tradeSeq marketPrice price { fundamental } } } }"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What anybody can read of an asset: M and F in 10^-12."""

    trade_seq: int
    market: int
    fundamental: int

    def gap_percent(self) -> int:
        return abs(self.market - self.fundamental) * 100 // self.fundamental


async def look(url: str) -> dict[str, Seen]:
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(url, json={"query": MARKET})
    nodes = answer.json()["data"]["assets"]["nodes"]
    return {
        node["symbol"]: Seen(node["tradeSeq"], _price(node["marketPrice"]), _price(node["price"]["fundamental"]))
        for node in nodes
    }


def _price(text: str) -> int:
    return parse(text, decimals=PRICE_DECIMALS, field=("price",), maximum=PRICE_MAX)


def environment(api: LiveApi, data_dir: Path) -> dict[str, str]:
    return {
        **os.environ,
        "DATABASE_URL": api.database_url,
        "MEGATRON_ENV": "development",
        "MEGATRON_DATA_DIR": str(data_dir),
    }


@asynccontextmanager
async def traders(api: LiveApi, data_dir: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """The demo's process, hurried; ended by SIGTERM, with its output in `data_dir`/log."""
    with (data_dir / "log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", HURRIED, f"{api.url}/graphql",
            cwd=ROOT, env=environment(api, data_dir), stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def prices(api: LiveApi, valkey: EmbeddedValkey) -> AsyncIterator[None]:
    """A price worker's process; ended by SIGTERM."""
    worker = MortalPriceWorker(database_url=api.database_url, redis_url=valkey.url)
    worker.start()
    try:
        yield
        assert await asyncio.to_thread(worker.stop) == 0
    finally:
        worker.kill()


@asynccontextmanager
async def oracle(api: LiveApi, valkey: EmbeddedValkey, data_dir: Path) -> AsyncIterator[None]:
    """An oracle worker's process, which replays the series; ended by SIGTERM."""
    with (data_dir / "oracle-log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app.cli", "worker", "oracle", cwd=ROOT, stdout=log, stderr=log,
            env={**environment(api, data_dir), "REDIS_URL": valkey.url},
        )  # fmt: skip
    try:
        yield
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def until(url: str, condition: Callable[[dict[str, Seen]], bool]) -> None:
    async with asyncio.timeout(60):
        while True:
            if condition(await look(url)):
                return
            await asyncio.sleep(0.1)


async def until_all_follow(url: str, *, percent: int) -> None:
    await until(url, lambda seen: all(asset.gap_percent() < percent for asset in seen.values()))


async def until_traded(url: str, *, trades: int) -> None:
    """So many more trades than there are now."""
    goal = _trades(await look(url)) + trades
    await until(url, lambda seen: _trades(seen) >= goal)


def _trades(seen: dict[str, Seen]) -> int:
    return sum(asset.trade_seq for asset in seen.values())


def megatron(api: LiveApi, data_dir: Path, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *arguments],
        cwd=ROOT, env=environment(api, data_dir), check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip


async def test_prices_come_to_follow_the_series_over_restarts(
    fresh_database_url: str, valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    port = free_port()
    with run_api(database_url=fresh_database_url, redis_url=valkey.url, port=port) as api:
        url = f"{api.url}/graphql"
        megatron(api, tmp_path, "demo", "seed")
        began = await look(url)
        assert set(began) == {asset.symbol for asset in CATALOGUE}
        # Nobody has read the series yet, and no engine has heard of what was set: F is P0, and so is M.
        assert all((seen.gap_percent(), seen.trade_seq) == (0, 0) for seen in began.values())
        emails = _credentials_of_another_database(tmp_path)
        await _sign_up(url, emails["noise-1"])
        async with prices(api, valkey), oracle(api, valkey, tmp_path), traders(api, tmp_path):
            await until(url, lambda seen: all(seen[name].fundamental > 3 * began[name].market for name in began))
            await until_all_follow(url, percent=3)
            api.process.kill()
            api.process.wait()
            with run_api(database_url=fresh_database_url, redis_url=valkey.url, port=port):
                await until_traded(url, trades=30)
                await until_all_follow(url, percent=3)
                accounts = await _accounts(fresh_database_url)
    with run_api(database_url=fresh_database_url, redis_url=valkey.url, port=port) as api:
        async with prices(api, valkey), oracle(api, valkey, tmp_path), traders(api, tmp_path):
            await until_traded(f"{api.url}/graphql", trades=30)
        assert await _accounts(fresh_database_url) == accounts
        megatron(api, tmp_path, "audit")
    # Seven signed up as the file has them, noise-1 as somebody new: its e-mail was taken.
    assert len(accounts) == TRADERS + 1
    assert set(emails.values()) < set(accounts)
    _secrets_are_kept(tmp_path)


def _credentials_of_another_database(data_dir: Path) -> dict[str, str]:
    """A file left from before: nobody here knows its sessions and passwords. The e-mails by trader."""
    known = CredentialFile(data_dir)
    for profile in PROFILES:
        one = known.of(profile.name)
        one.token, one.signed_up = f"mgs_{'x' * 43}", True
    known.save()
    return {profile.name: known.of(profile.name).email for profile in PROFILES}


async def _sign_up(url: str, email: str) -> None:
    document = "mutation Taken($input: SignUpInput!) { signUp(input: $input) { session { token } } }"
    variables = {"input": {"email": email, "password": "a long password of its own"}}
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(url, json={"query": document, "variables": variables})
    assert answer.json()["data"]["signUp"]["session"]["token"]


async def _accounts(database_url: str) -> list[str]:
    connection = await asyncpg.connect(database_url)
    try:
        return [row["email"] for row in await connection.fetch("SELECT email FROM accounts ORDER BY email")]
    finally:
        await connection.close()


def _secrets_are_kept(data_dir: Path) -> None:
    file = data_dir / "demo-traders.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    log = (data_dir / "log").read_text()
    assert "demo_traders_start" in log
    assert "trader_stumbled" not in log
    for one in orjson.loads(file.read_bytes()).values():
        assert one["signed_up"]
        assert one["password"] not in log
        assert one["token"] not in log
