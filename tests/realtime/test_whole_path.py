"""From an order to its readers: settlement, price worker and hub together, with Redis emptied on the way."""

import asyncio

from redis.asyncio import Redis

from app.bus import Bus
from app.exchange.settlement import Settlement
from app.local.valkey import EmbeddedValkey
from app.pricing.intervals import Interval, PriceKind
from app.realtime.events import EventKind
from tests.factories import new_account, place_order
from tests.pricing.running import running_worker
from tests.realtime.market import running_market, until
from tests.realtime.sinks import FakeSink, encode

ORDERS = 40


async def test_every_trade_reaches_every_stream_exactly_once(fresh_database_url: str, valkey: EmbeddedValkey) -> None:
    async with (
        running_market(fresh_database_url, redis_url=valkey.url) as market,
        running_worker(fresh_database_url, redis_url=valkey.url),
    ):
        redis: Redis = Redis.from_url(valkey.url)
        bus = Bus(redis)
        bus.start()
        settlement = Settlement(
            market.database,
            publish=bus.publish_trades,
            changed=lambda account_ids: bus.publish_changes(accounts=account_ids),
        )
        settlement.start()
        alice = await new_account(market.database, usdc="100000")
        first, second, _ = market.assets
        await until(lambda: market.hub.position >= 4)  # Each asset, the draft too, has its first tick.
        ticks, trades, candles, account = FakeSink(), FakeSink(), FakeSink(), FakeSink()
        await market.read_ticks(sink=ticks, asset_ids=frozenset({first, second}))
        hub = market.hub
        await hub.trades(
            sink=trades, encode=encode, asset_ids=None, sees_drafts=False, heartbeat_seconds=60, after=None
        )
        await hub.candles(
            sink=candles, encode=encode, asset_ids=frozenset({first}), interval=Interval.D1, price=PriceKind.MARKET,
            sees_drafts=False, heartbeat_seconds=60,
        )  # fmt: skip
        await hub.account_events(
            sink=account, encode=encode, account_id=alice.account_id, after=None, snapshot=True, heartbeat_seconds=60
        )
        for number in range(ORDERS):
            if number % 10 == 5:
                await redis.flushall()
            await place_order(settlement, alice, (first, second)[number % 2], amount="1")
        traded = [[asset_id, seq] for asset_id in (first, second) for seq in range(1, ORDERS // 2 + 1)]
        await until(lambda: sum(len(event.items) for event in trades.events) >= ORDERS)
        await until(lambda: account.events[-1].seq == 1 + ORDERS)

        assert sorted(item for event in trades.events for item in event.items) == traded
        assert [event.seq for event in account.events] == list(range(1, ORDERS + 2))
        for asset_id in (first, second):
            seqs = [item[1] for event in ticks.events for item in event.items if item[0] == asset_id]
            assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
            assert len(seqs) >= 1 + ORDERS // 2
        assert {event.kind for event in ticks.events[1:]} == {EventKind.UPDATE}
        known = {item[1]: item[7] for event in candles.events for item in event.items}
        assert sum(known.values()) == ORDERS // 2
        await settlement.stop()
        await bus.stop()
        await redis.aclose()
        await asyncio.sleep(0)
