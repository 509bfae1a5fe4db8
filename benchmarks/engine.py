"""The price engine: trades to ticks and candles in the tables, beside a plain COPY of the same tick rows.

One process, one connection: it computes while PostgreSQL waits and waits while PostgreSQL writes, so that ticks per
second of wall clock are those of one core. Also runs by itself: `python -m benchmarks.engine`.
"""

import asyncio
import itertools
import statistics
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field, fields
from datetime import datetime, timedelta
from io import BytesIO
from typing import Final

from app.db import Connection, Database, migrate
from app.exchange.curve import Curve, buy_shares, marginal_price
from app.exchange.orders import Side, Trade
from app.pricing.engine import AssetState, Step, advance
from app.pricing.model import Parameters
from app.pricing.oracle_events import OracleEvent, OracleEventKind
from app.pricing.store import Store, load_states
from app.pricing.ticks import Tick
from benchmarks.market import new_asset, servers
from benchmarks.report import line, progress

TRADES: Final = 100_000
ROUNDS: Final = 5
BATCH_TICKS: Final = 1_000
"""What a worker that catches up writes in one transaction."""
LIVE_WRITES: Final = 300
OWNER_ID: Final = 2**62
"""Nobody's: no worker may run beside this."""
_CURVE: Final = Curve(base_price=10**12, slope=5 * 10**15, fee_rate=5_000_000)
_SHARES: Final = 10**7
"""A hundredth of a share a trade."""
_APART: Final = timedelta(milliseconds=10)
_COLUMNS: Final = tuple(column.name for column in fields(Tick))
_numbers = itertools.count(1)


@dataclass
class Figures:
    """Round by round: ticks per second, microseconds for each, and milliseconds of one live tick."""

    copied: list[float] = field(default_factory=list)
    one_asset: list[float] = field(default_factory=list)
    many_assets: list[float] = field(default_factory=list)
    process_us: list[float] = field(default_factory=list)
    postgres_us: list[float] = field(default_factory=list)
    live_ms: list[float] = field(default_factory=list)
    commit_ms: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class _CaughtUp:
    ticks: list[Tick]
    seconds: float
    process_seconds: float

    @property
    def rate(self) -> float:
        return len(self.ticks) / self.seconds


@dataclass
class _Asset:
    state: AssetState
    parameters: Parameters
    supply: int = 0

    def open(self) -> Step:
        """Its first tick, and a reading, so that w and D are really computed."""
        reading = OracleEvent(self.state.asset_id, 1, self.state.at, OracleEventKind.READING, 2 * 10**12, 300, 10**6)
        step = advance(state=self.state, parameters=self.parameters, events=[reading])
        self.state = step.after
        return step

    def step(self, trades: Sequence[Trade]) -> Step:
        """The next trades' ticks."""
        step = advance(state=self.state, parameters=self.parameters, trades=trades)
        self.state = step.after
        return step

    def trades(self, count: int) -> list[Trade]:
        """The next buys, of one size, 10 ms apart."""
        return [self._trade(self.state.trade_seq + number) for number in range(1, count + 1)]

    def _trade(self, seq: int) -> Trade:
        gross = buy_shares(_CURVE, self.supply, _SHARES).gross
        self.supply += _SHARES
        return Trade(
            id=seq, asset_id=self.state.asset_id, seq=seq, account_id=1, order_id=seq, client_order_id="order",
            side=Side.BUY, shares=_SHARES, gross=gross, fee=0, supply_after=self.supply,
            market_after=marginal_price(_CURVE, self.supply), transfer_id=seq, at=self.state.created_at + seq * _APART,
        )  # fmt: skip


async def compare(database: Database, *, trades: int = TRADES, rounds: int = ROUNDS) -> Figures:
    """Catch up `trades` trades of one asset and of twenty, COPY the same ticks, and tick one trade at a time."""
    figures = Figures()
    store = Store(database)
    async with database.acquire() as connection:
        for number in range(rounds):
            progress(f"engine, round {number + 1} of {rounds}: {trades:,} trades")
            assets = await _assets(database, store, connection, 20)
            one = await _catch_up(store, connection, assets[:1], trades)
            figures.one_asset.append(one.rate)
            figures.process_us.append(one.process_seconds / trades * 1e6)
            figures.postgres_us.append((one.seconds - one.process_seconds) / trades * 1e6)
            figures.copied.append(await _copied(connection, one.ticks))
            figures.many_assets.append((await _catch_up(store, connection, assets, trades)).rate)
            figures.live_ms.append(await _live_ms(store, connection, assets[0]))
            figures.commit_ms.append(await _commit_ms(connection))
    return figures


async def _assets(database: Database, store: Store, connection: Connection, count: int) -> list[_Asset]:
    """New assets that have opened and had a reading."""
    ids = [await new_asset(database, f"TICK{next(_numbers)}") for _ in range(count)]
    await connection.execute(
        "INSERT INTO price_states (asset_id, owner_id, at, display, market, fundamental, market_weight,"
        " recent_volume_at) SELECT id, $2, created_at, base_price, base_price, base_price, 1000000000, created_at"
        " FROM assets WHERE id = ANY($1::bigint[])",
        ids,
        OWNER_ID,
    )
    loaded = await load_states(connection=connection, owner_id=OWNER_ID, asset_ids=ids)
    assets = [_Asset(one.state, one.parameters) for one in loaded]
    steps = [asset.open() for asset in assets]
    await store.write(connection=connection, owner_id=OWNER_ID, steps=steps)
    return assets


async def _catch_up(store: Store, connection: Connection, assets: Sequence[_Asset], total: int) -> _CaughtUp:
    """Make ticks of `total` trades, in writes of `BATCH_TICKS`, and write them."""
    trades = {asset.state.asset_id: asset.trades(total // len(assets)) for asset in assets}
    each = BATCH_TICKS // len(assets)
    ticks: list[Tick] = []
    started, process_started = time.perf_counter(), time.process_time()
    for first in range(0, total // len(assets), each):
        steps = [asset.step(trades[asset.state.asset_id][first : first + each]) for asset in assets]
        ticks += await store.write(connection=connection, owner_id=OWNER_ID, steps=steps)
    seconds, process = time.perf_counter() - started, time.process_time() - process_started
    return _CaughtUp(ticks, seconds, process)


async def _copied(connection: Connection, ticks: Sequence[Tick]) -> float:
    """Ticks per second of a plain COPY, the text being there already, into a table like the partition of a day."""
    text = "".join("\t".join(map(_text, astuple(tick))) + "\n" for tick in ticks).encode()
    await connection.execute("DROP TABLE IF EXISTS copied_ticks")
    await connection.execute("CREATE TABLE copied_ticks (LIKE ticks INCLUDING ALL)")
    started = time.perf_counter()
    await connection.copy_to_table("copied_ticks", source=BytesIO(text), columns=_COLUMNS)
    seconds = time.perf_counter() - started
    await connection.execute("DROP TABLE copied_ticks")
    return len(ticks) / seconds


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


async def _live_ms(store: Store, connection: Connection, asset: _Asset) -> float:
    """From one trade to its committed tick, the median."""
    times = []
    for trade in asset.trades(LIVE_WRITES):
        started = time.perf_counter()
        await store.write(connection=connection, owner_id=OWNER_ID, steps=[asset.step([trade])])
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)


async def _commit_ms(connection: Connection) -> float:
    """A transaction that moves the head by nothing: what a commit costs here."""
    times = []
    for _ in range(LIVE_WRITES):
        started = time.perf_counter()
        await connection.execute("UPDATE stream_heads SET position = position WHERE stream = 'ticks'")
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)


def report(figures: Figures) -> None:
    """Print all of it."""
    line("engine: plain COPY of the tick rows", figures.copied, unit="ticks/s")
    floor = "at least 0.05 x"
    line("engine: one asset, written", figures.one_asset, unit="ticks/s", peer=figures.copied, floor=floor)
    line("engine: 20 assets, written", figures.many_assets, unit="ticks/s", peer=figures.copied, floor=floor)
    line("engine: one asset, processor time of the worker", figures.process_us, unit="us/tick")
    line("engine: one asset, waiting for PostgreSQL", figures.postgres_us, unit="us/tick")
    line("engine: one trade to its committed tick", figures.live_ms, unit="ms", peer=figures.commit_ms)
    line("engine: a bare commit", figures.commit_ms, unit="ms")


async def run() -> None:
    """By itself, on servers of its own."""
    with servers() as running:
        await migrate(running.settings())
        database = await Database.open(running.settings())
        try:
            report(await compare(database))
        finally:
            await database.close()


if __name__ == "__main__":
    asyncio.run(run())
