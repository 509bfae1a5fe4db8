"""The feed: streams read into an inbox over restarts of Redis, and what PostgreSQL says of the same."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from app.bus import CHANGES_STREAM, TRADES_STREAM, encode_changes, encode_trades
from app.db import Database
from app.exchange.settlement import Settlement
from app.local.valkey import EmbeddedValkey, ephemeral_valkey
from app.pricing.feed import Feed, heads, trades_after
from app.pricing.inbox import Inbox
from app.pricing.oracle_events import ORACLE_STREAM, decode_events, encode_events
from app.tasks import end
from tests.factories.market import new_account, new_asset, place_order
from tests.pricing.causes import ASSET, ONE, event, trade
from tests.pricing.running import record, until


@pytest.fixture
def own_valkey() -> Iterator[EmbeddedValkey]:
    """A Valkey that nobody else uses."""
    with ephemeral_valkey() as server:
        yield server


class Reading:
    """A feed at work, what it has put into its inbox, and how often it asked for a look at PostgreSQL."""

    def __init__(self, redis: Redis | None) -> None:
        self.inbox = Inbox()
        self.inbox.follow(ASSET, trade_seq=0, oracle_seq=0)
        self.looks = 0
        self.feed = Feed(redis, inbox=self.inbox, look=self._look)
        self.trades: list[int] = []
        self.events: list[int] = []

    def _look(self) -> None:
        self.looks += 1

    def has(self, *, trades: int = 0, events: int = 0) -> bool:
        """Whether so many have come by now."""
        for batch in self.inbox.take().values():
            self.trades += [trade.seq for trade in batch.trades]
            self.events += [event.seq for event in batch.events]
        return (len(self.trades), len(self.events)) == (trades, events)


@asynccontextmanager
async def reading(server: EmbeddedValkey) -> AsyncIterator[tuple[Reading, Redis]]:
    # No entry is lost to a time limit: the feed would find it in PostgreSQL, which this one does not have.
    redis: Redis = Redis.from_url(server.url, socket_timeout=30.0)
    found = Reading(redis)
    run = asyncio.create_task(found.feed.run())
    try:
        await until(lambda: found.feed.is_up)
        yield found, redis
    finally:
        await end([run])
        await redis.aclose()


async def test_entries_are_read_as_they_come_and_none_from_before(own_valkey: EmbeddedValkey) -> None:
    async with Redis.from_url(own_valkey.url) as early:
        await early.xadd(TRADES_STREAM, {"trades": encode_trades([trade(9, 9)])})
    async with reading(own_valkey) as (found, redis):
        assert found.looks == 1
        await redis.xadd(TRADES_STREAM, {"trades": encode_trades([trade(1, 1), trade(2, 2)])})
        await redis.xadd(ORACLE_STREAM, {"events": encode_events([event(1, 1, value=ONE)])})
        await until(lambda: found.has(trades=2, events=1))
        assert (found.trades, found.events, found.looks) == ([1, 2], [1], 1)


async def test_changed_assets_and_nothing_else_ask_for_a_look(own_valkey: EmbeddedValkey) -> None:
    async with reading(own_valkey) as (found, redis):
        await redis.xadd(CHANGES_STREAM, {"changes": encode_changes(accounts=[1])})
        await redis.xadd(CHANGES_STREAM, {"changes": encode_changes(assets=[2])})
        await until(lambda: found.looks == 2)
        await redis.xadd(TRADES_STREAM, {"trades": encode_trades([trade(1, 1)])})
        await until(lambda: found.has(trades=1))
        assert found.looks == 2


async def test_it_reads_on_after_redis_was_emptied_and_after_it_was_away(own_valkey: EmbeddedValkey) -> None:
    async with reading(own_valkey) as (found, redis):
        first = await redis.xadd(TRADES_STREAM, {"trades": encode_trades([trade(1, 1)])})
        await until(lambda: found.has(trades=1))
        await redis.flushall()
        # In the same millisecond the emptied stream would give the same id again, which only PostgreSQL makes up for.
        later = int(first.partition(b"-")[0]) + 1
        await redis.xadd(TRADES_STREAM, {"trades": encode_trades([trade(2, 2)])}, id=f"{later}-0")
        await until(lambda: found.has(trades=2))
        own_valkey.stop()
        await until(lambda: not found.feed.is_up)
        away = found.looks
        assert away > 1
        own_valkey.start()
        await until(lambda: found.feed.is_up)
        assert found.looks > away
        await redis.xadd(TRADES_STREAM, {"trades": encode_trades([trade(3, 3)])})
        await until(lambda: found.has(trades=3))
        assert found.trades == [1, 2, 3]


async def test_entries_with_lower_ids_than_before_are_found(own_valkey: EmbeddedValkey) -> None:
    async with reading(own_valkey) as (found, redis):
        await redis.xadd(TRADES_STREAM, {"trades": encode_trades([trade(1, 1)])}, id="9999999999999-0")
        await until(lambda: found.has(trades=1))
        await redis.delete(TRADES_STREAM)
        await redis.xadd(TRADES_STREAM, {"trades": encode_trades([trade(2, 2)])}, id="5-0")
        await until(lambda: found.has(trades=2))
        assert found.trades == [1, 2]


async def test_it_reads_on_after_an_entry_that_no_decoder_refuses(own_valkey: EmbeddedValkey) -> None:
    async with reading(own_valkey) as (found, redis):
        strange = b'[[7,"1",0,"READING","5",1,1]]'
        assert decode_events(strange)[0].seq == "1"  # type: ignore[comparison-overlap]
        await redis.xadd(ORACLE_STREAM, {"events": strange})
        await until(lambda: not found.feed.is_up)
        await until(lambda: found.feed.is_up)
        await redis.xadd(TRADES_STREAM, {"trades": encode_trades([trade(1, 1)])})
        await until(lambda: found.has(trades=1))
        assert found.looks >= 3


async def test_without_a_redis_there_is_nothing_to_do() -> None:
    found = Reading(None)
    async with asyncio.timeout(1):
        await found.feed.run()
    assert (found.feed.is_up, found.looks) == (False, 0)


async def test_postgres_tells_how_far_there_is_to_go_and_what_comes_next(
    database: Database, settlement: Settlement
) -> None:
    trader = await new_account(database, usdc="1000")
    traded, quiet = await new_asset(database), await new_asset(database)
    done = [(await place_order(settlement, trader, traded, amount="5")).trades[0] for _ in range(3)]
    await record(database, quiet, ONE)
    async with database.acquire() as connection:
        before = await connection.fetchval("SELECT clock_timestamp()")
        found = await heads(connection=connection, asset_ids=[traded, quiet, 999_999_999])
        nothing = await heads(connection=connection, asset_ids=[])
        after = await connection.fetchval("SELECT clock_timestamp()")
        assert found.seqs == {traded: (3, 0), quiet: (0, 1)}
        assert nothing.seqs == {}
        assert before <= found.now <= nothing.now <= after
        assert await trades_after(connection=connection, after={traded: 1, quiet: 0}, limit=9) == {traded: done[1:]}
        assert await trades_after(connection=connection, after={traded: 0}, limit=2) == {traded: done[:2]}
        assert await trades_after(connection=connection, after={traded: 3}, limit=9) == {}
        assert await trades_after(connection=connection, after={}, limit=9) == {}
