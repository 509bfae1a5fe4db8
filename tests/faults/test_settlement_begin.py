"""A batch that is interrupted while it waits to begin: nothing has been decided, and the connection stays usable."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg
import pytest

from app.db import Connection, Database
from app.exchange.batch import Settled
from app.exchange.orders import OrderRequest, OrderStatus
from app.exchange.settlement import Settlement
from app.ledger.locks import PAUSE_LOCK
from tests.factories import load_asset, new_account, new_asset, order_request, waiting
from tests.faults.inspection import connected
from tests.faults.waiting import until

BILLION = 10**9
_WAITING = """
SELECT pid FROM pg_locks
 WHERE locktype = 'advisory' AND NOT granted
   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@dataclass
class Attempts:
    """On which backends transactions were tried, and what ended those that failed."""

    pids: list[int] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> Attempts:
    noted, transact = Attempts(), Settlement._transact

    async def noting(self: Settlement, connection: Connection, requests: Sequence[OrderRequest]) -> Settled:
        noted.pids.append(connection.get_server_pid())
        try:
            return await transact(self, connection, requests)
        except Exception as error:
            noted.errors.append(error)
            raise

    monkeypatch.setattr(Settlement, "_transact", noting)
    return noted


@asynccontextmanager
async def pause_lock(database_url: str) -> AsyncIterator[Connection]:
    """The pause lock, held by somebody else until the end or until the connection gives it back."""
    async with connected(database_url) as holder:
        await holder.execute("SELECT pg_advisory_lock($1)", PAUSE_LOCK)
        yield holder


@asynccontextmanager
async def settling(database: Database) -> AsyncIterator[Settlement]:
    """A settlement of one's own that has started."""
    settlement = Settlement(database, publish=lambda _: None)
    settlement.start()
    try:
        yield settlement
    finally:
        await settlement.stop()


async def blocked_backend(connection: Connection) -> int:
    """The backend that waits for the pause lock, once one does."""
    async with asyncio.timeout(10):
        while True:
            pids = [row["pid"] for row in await connection.fetch(_WAITING)]
            if pids:
                (pid,) = pids
                return int(pid)


async def facts(database: Database, asset_id: int) -> tuple[int, int]:
    """How many orders and trades the asset has."""
    async with database.acquire() as connection:
        row = await connection.fetchrow(
            "SELECT (SELECT count(*) FROM orders WHERE asset_id = $1),"
            " (SELECT count(*) FROM trades WHERE asset_id = $1)",
            asset_id,
        )
    assert row is not None
    return row[0], row[1]


async def test_a_batch_that_is_cancelled_while_it_waits_to_begin_is_settled_and_later_ones_too(
    database: Database, database_url: str, attempts: Attempts
) -> None:
    accounts = [await new_account(database, usdc="10") for _ in range(3)]
    asset_id = await new_asset(database)
    requests = [order_request(account, asset_id, shares="2") for account in accounts]
    async with settling(database) as settlement:
        async with pause_lock(database_url) as holder:
            placed = await waiting(settlement, requests)
            first = await blocked_backend(holder)
            assert await holder.fetchval("SELECT pg_cancel_backend($1)", first)
            await until(lambda: len(attempts.errors) == 1, seconds=10)
            assert await facts(database, asset_id) == (0, 0)
        settled = await asyncio.gather(*placed)
        later = await settlement.place(order_request(accounts[0], asset_id, shares="1"))
    assert [type(error) for error in attempts.errors] == [asyncpg.QueryCanceledError]
    assert [outcome.order.status for outcome in settled] == [OrderStatus.FILLED] * 3
    assert [outcome.trades[0].seq for outcome in settled] == [1, 2, 3]
    assert (later.order.status, later.trades[0].seq) == (OrderStatus.FILLED, 4)
    # The first connection was rolled back, not thrown away: the later order was settled on it.
    assert (attempts.pids[0], attempts.pids[-1]) == (first, first)
    assert await facts(database, asset_id) == (4, 4)
    assert (await load_asset(database, asset_id)).supply == 7 * BILLION


async def test_a_batch_whose_wait_to_begin_times_out_is_settled_and_later_ones_too(
    database: Database, database_url: str, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    account, asset_id = await new_account(database, usdc="10"), await new_asset(database)
    monkeypatch.setattr("app.db.STATEMENT_TIMEOUT_MS", 500)
    hasty = await Database.connect(database_url, pool_max=2)
    try:
        async with settling(hasty) as settlement:
            async with pause_lock(database_url):
                (placed,) = await waiting(settlement, [order_request(account, asset_id, shares="2")])
                await until(lambda: len(attempts.errors) == 1, seconds=10)
                assert await facts(database, asset_id) == (0, 0)
            outcome = await placed
            later = await settlement.place(order_request(account, asset_id, shares="1"))
    finally:
        await hasty.close()
    assert {type(error) for error in attempts.errors} == {asyncpg.QueryCanceledError}
    assert (outcome.order.status, later.order.status) == (OrderStatus.FILLED, OrderStatus.FILLED)
    assert attempts.pids[-1] == attempts.pids[0]
    assert await facts(database, asset_id) == (2, 2)


async def test_an_order_alone_is_not_refused_for_the_cancelled_batch_before_it(
    database: Database, database_url: str, attempts: Attempts
) -> None:
    account, asset_id = await new_account(database, usdc="100"), await new_asset(database)
    async with settling(database) as settlement:
        for number in range(1, 4):
            async with pause_lock(database_url) as holder:
                (placed,) = await waiting(settlement, [order_request(account, asset_id, shares="1")])
                cancelled = await blocked_backend(holder)
                assert await holder.fetchval("SELECT pg_cancel_backend($1)", cancelled)
                await until(lambda number=number: len(attempts.errors) == number, seconds=10)  # type: ignore[misc]
            assert (await placed).trades[0].seq == number
    assert [type(error) for error in attempts.errors] == [asyncpg.QueryCanceledError] * 3
    assert await facts(database, asset_id) == (3, 3)
