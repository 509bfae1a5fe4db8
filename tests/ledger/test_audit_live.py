"""The audit of a market that trades meanwhile: it sees one moment, in which everything adds up."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from app.db import Database
from app.exchange.orders import Side
from app.exchange.settlement import Settlement
from app.ledger.audit import audit
from app.local.postgres import EmbeddedPostgres
from tests.factories import new_account, new_asset, order_request
from tests.ledger.conftest import copy_template

AUDITS = 6
AUDITS_MAX = 200
"""By then something must have traded."""


@pytest.fixture
async def market(postgres: EmbeddedPostgres) -> AsyncIterator[tuple[Database, Settlement]]:
    url = await copy_template(postgres, f"test_live_audit_{random.getrandbits(32)}")
    database = await Database.connect(url, pool_max=4)
    settlement = Settlement(database, publish=lambda _: None)
    settlement.start()
    yield database, settlement
    await settlement.stop()
    await database.close()


async def test_an_audit_while_orders_settle_finds_nothing(market: tuple[Database, Settlement]) -> None:
    database, settlement = market
    people = [await new_account(database, usdc="5000") for _ in range(4)]
    assets = [await new_asset(database, slope="0.002"), await new_asset(database, fee_rate="0")]
    draw = random.Random(7)
    stop = asyncio.Event()

    async def trade() -> None:
        while not stop.is_set():
            requests = [
                order_request(
                    draw.choice(people), draw.choice(assets), draw.choice(list(Side)), shares=f"{draw.randint(1, 9)}.5"
                )
                for _ in range(12)
            ]
            await asyncio.gather(*(settlement.place(request) for request in requests))

    trading = asyncio.create_task(trade())
    transfers: list[int] = []
    try:
        while len(transfers) < AUDITS or transfers[-1] == transfers[0]:
            assert len(transfers) < AUDITS_MAX
            async with database.snapshot() as connection:
                report = await audit(connection=connection)
            assert report.findings == []
            transfers.append(report.transfers)
    finally:
        stop.set()
        await trading
    assert transfers == sorted(transfers)
    assert transfers[-1] > transfers[0]
