"""Settlement alone: as many orders always waiting as asked, no HTTP, the same rows as the peer writes."""

import asyncio
import itertools
import time

from app.clock import now
from app.db import Database
from app.exchange.orders import OrderRequest, OrderType, Side, parse_order
from app.exchange.settlement import Settlement
from benchmarks.market import Trader
from benchmarks.report import progress

_keys = itertools.count(1)


def order(trader: Trader, asset_id: int) -> OrderRequest:
    """A market buy of 0.01 shares, as the peer's."""
    return parse_order(
        principal=trader.principal,
        asset_id=asset_id,
        side=Side.BUY,
        type=OrderType.MARKET,
        client_order_id=f"s{next(_keys)}",
        shares="0.01",
        amount=None,
        max_total=None,
        min_total=None,
        min_shares=None,
        deadline=None,
        if_trade_seq=None,
        limit_price=None,
        time_in_force=None,
        post_only=False,
        now=now(),
    )


async def trades_per_second(
    database: Database, traders: list[Trader], *, asset_id: int, waiting: int, total: int
) -> float:
    """Settle `total` orders with `waiting` of them always in the queue."""
    settlement = Settlement(database, publish=lambda _: None)
    settlement.start()
    turn = itertools.cycle(traders)
    left = iter(range(total))

    async def client() -> None:
        for _ in left:
            outcome = await settlement.place(order(next(turn), asset_id))
            if outcome.refusal is not None:
                raise RuntimeError(f"refused: {outcome.refusal}")

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(waiting)))
    seconds = time.perf_counter() - started
    await settlement.stop()
    return total / seconds


async def fill(database: Database, traders: list[Trader], *, asset_id: int, trades: int) -> None:
    """Put `trades` trades into the tables by the ordinary path."""
    step = 50_000
    for done in range(0, trades, step):
        rate = await trades_per_second(
            database, traders, asset_id=asset_id, waiting=256, total=min(step, trades - done)
        )
        progress(f"{min(done + step, trades):,} of {trades:,} trades in the tables ({rate:,.0f}/s)")
