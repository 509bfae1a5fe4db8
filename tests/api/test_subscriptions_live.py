"""Subscriptions on the real hub, with a price worker and a settlement at work: who gets what, and what is shared.

Redis is away here: everything comes by way of PostgreSQL.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from api.node_ids import node_id
from api.subscriptions.encoders import SharedEncoder
from api.subscriptions.opening import encoders_of
from api.subscriptions.prices import TICKS
from api.subscriptions.selection import event_selection
from app.accounts.principals import ANONYMOUS, AccountPrincipal, AdminPrincipal, Principal
from app.db import Database
from app.exchange.assets import AssetStatus
from app.exchange.settlement import Settlement
from app.realtime.events import Reader
from app.realtime.hub import Realtime
from app.services import Services
from tests.api.harness import Api
from tests.api.streaming import ListSink, ready, streams, subscribe, whole_selection
from tests.factories import new_account, new_admin, new_asset, place_order, set_status
from tests.factories.reports import override
from tests.pricing.running import open_database, running_worker, until

TICK_DOCUMENT = """subscription ($ids: [ID!], $after: Cursor) { priceTicks(
  assetIds: $ids, after: $after, heartbeatSeconds: 60) { kind cursor ticks { assetId seq cause tradeSeq display } } }"""


@dataclass
class Market:
    """A market of its own, and readers of it."""

    database: Database
    settlement: Settlement
    services: Services
    admin: AdminPrincipal
    readers: list[Reader] = field(default_factory=list)

    async def read(
        self, document: str, variables: dict[str, Any] | None = None, principal: Principal = ANONYMOUS
    ) -> ListSink:
        """Subscribe; answers what the reader is sent."""
        sink = ListSink()
        self.readers.append(await subscribe(self.services, document, variables, principal=principal, sink=sink))
        return sink

    async def asset(self, *, status: AssetStatus = AssetStatus.OPEN) -> int:
        """A new asset that the engine has ticked."""
        asset_id = await new_asset(self.database, admin=self.admin, status=status)

        async def is_ticked() -> bool:
            async with self.database.acquire() as connection:
                seq = await connection.fetchval("SELECT seq FROM price_states WHERE asset_id = $1", asset_id)
            return bool(seq)

        await until(is_ticked)
        return asset_id

    async def buy(self, trader: AccountPrincipal, asset_id: int) -> int:
        """Buy a share; answers the order's id."""
        return (await place_order(self.settlement, trader, asset_id, shares="1")).order.id


@pytest.fixture
async def market(api: Api, fresh_database_url: str) -> AsyncIterator[Market]:
    async with running_worker(fresh_database_url), open_database(fresh_database_url) as database:
        realtime = Realtime(database=database, redis=None)
        settlement = Settlement(database, publish=lambda _: None)
        await realtime.start()
        settlement.start()
        services = replace(api.services, database=database, settlement=settlement, realtime=realtime)
        market = Market(database, settlement, services, await new_admin(database))
        yield market
        for reader in market.readers:
            reader.close()
        await settlement.stop()
        await realtime.stop()


def updates(sink: ListSink, name: str) -> list[dict[str, Any]]:
    return [each for each in sink.events(name) if each["kind"] == "UPDATE"]


def tick_seqs(sink: ListSink) -> list[int]:
    """The seqs of trades that the reader has been told of by ticks."""
    told = [tick for each in updates(sink, "priceTicks") for tick in each["ticks"]]
    return [tick["tradeSeq"] for tick in told if tick["cause"] == "TRADE"]


async def test_an_account_is_told_of_its_own_events_and_of_nobody_else_s(market: Market) -> None:
    selection = whole_selection(streams()["accountEvents"], first=0)
    document = f"subscription {{ accountEvents(heartbeatSeconds: 60){selection} }}"
    a, b = [await new_account(market.database, usdc="1000") for _ in range(2)]
    asset_id = await market.asset()
    of_a, of_b = [await market.read(document, principal=each) for each in (a, b)]
    await until(lambda: bool(of_a.payloads) and bool(of_b.payloads))
    by_a = [await market.buy(a, asset_id) for _ in range(3)]
    by_b = [await market.buy(b, asset_id)]
    await until(lambda: len(updates(of_a, "accountEvents")) >= 3 and len(updates(of_b, "accountEvents")) >= 1)

    def orders(sink: ListSink) -> list[str]:
        return [order["id"] for each in updates(sink, "accountEvents") for order in each["orders"]]

    assert orders(of_a) == [node_id("Order", each) for each in by_a]
    assert orders(of_b) == [node_id("Order", each) for each in by_b]
    assert [each["seq"] for each in of_a.events("accountEvents")] == [1, 2, 3, 4]
    assert [each["seq"] for each in of_b.events("accountEvents")] == [1, 2]
    ids_of_a = {node_id("Order", each).encode() for each in by_a}
    assert not any(id_ in payload for payload in of_b.payloads for id_ in ids_of_a)
    last = updates(of_a, "accountEvents")[-1]
    assert [(each["tradeSeq"], each["shares"]) for each in last["fills"]] == [(3, "1")]
    assert [each["shares"] for each in last["positions"]] == ["3"]
    assert [each["currency"] for each in last["balances"]] == ["USDC"]


async def test_drafts_are_for_admins_on_every_stream(market: Market) -> None:
    arguments = {"candles": "(assetIds: $ids, interval: S1)"}
    names = sorted(streams().keys() - {"accountEvents"})
    trader = await new_account(market.database, usdc="1000")
    draft, shown = await market.asset(status=AssetStatus.DRAFT), await market.asset()
    secret, public = (node_id("Asset", each).encode() for each in (draft, shown))
    seen: dict[tuple[str, str], ListSink] = {}
    viewers: dict[str, Principal] = {"nobody": ANONYMOUS, "account": trader, "admin": market.admin}
    for name in names:
        ids = [public.decode(), secret.decode()]
        for who, viewer in viewers.items():
            document = f"{name}{arguments.get(name, '')}{whole_selection(streams()[name])}"
            is_admin = who == "admin"
            if name in arguments:
                variables = {"ids": ids if is_admin else ids[:1]}
                seen[name, who] = await market.read(f"subscription ($ids: [ID!]!) {{ {document} }}", variables, viewer)
            else:
                seen[name, who] = await market.read(f"subscription {{ {document} }}", None, viewer)
    await market.buy(trader, shown)
    for asset_id in (draft, shown):
        await override(market.database, asset_id)
    await set_status(market.database, shown, AssetStatus.HALTED)
    await set_status(market.database, draft, AssetStatus.OPEN)
    await set_status(market.database, draft, AssetStatus.DRAFT)

    def has(key: tuple[str, str], id_: bytes) -> bool:
        return any(id_ in payload for payload in seen[key].payloads)

    await until(lambda: all(has(key, public) for key in seen))
    for_admins = ("assetEvents", "candles", "oracleReports", "priceTicks")
    await until(lambda: all(has((name, "admin"), secret) for name in for_admins))
    assert [key for key in seen if key[1] != "admin" and has(key, secret)] == []


async def test_readers_who_came_at_once_or_resumed_or_came_late_share_what_comes(market: Market) -> None:
    trader = await new_account(market.database, usdc="1000")
    asset_id = await market.asset()
    variables = {"ids": [node_id("Asset", asset_id)]}
    fresh = [await market.read(TICK_DOCUMENT, variables) for _ in range(25)]
    await until(lambda: all(sink.payloads for sink in fresh))
    snapshot = fresh[0].events("priceTicks")[0]
    assert snapshot["kind"] == "SNAPSHOT"
    for _ in range(3):
        await market.buy(trader, asset_id)
    await until(lambda: all(len(tick_seqs(sink)) == 3 for sink in fresh))

    who: list[Principal] = [ANONYMOUS, trader]
    after = {**variables, "after": snapshot["cursor"]}
    resumed = [await market.read(TICK_DOCUMENT, after, principal) for principal in who * 12]
    await until(lambda: all(len(tick_seqs(sink)) == 3 for sink in resumed))
    assert {sink.events("priceTicks")[0]["kind"] for sink in resumed} == {"UPDATE"}
    everybody = [*fresh, *resumed]
    encoder, before = encoder_of(market), {id(payload) for sink in everybody for payload in sink.payloads}
    executed, encoded = encoder.executions, encoder.items_encoded
    await market.buy(trader, asset_id)
    await until(lambda: all(tick_seqs(sink)[-1] == 4 for sink in everybody))

    assert [tick_seqs(sink) for sink in everybody] == [[1, 2, 3, 4]] * len(everybody)
    assert market.services.realtime.groups == 1
    (made,) = {tuple(id(payload) for payload in sink.payloads if id(payload) not in before) for sink in everybody}
    # One event and one tick, unless the idle asset's price moved in between.
    assert (encoder.executions - executed, encoder.items_encoded - encoded) == (len(made), len(made))


def encoder_of(market: Market) -> SharedEncoder[Any]:
    """The encoder that readers of `TICK_DOCUMENT` have."""
    operation = ready(TICK_DOCUMENT).operation
    values = operation.coerce_variables({})
    assert not isinstance(values, list)
    return encoders_of(market.services).shared(event_selection(operation, values), TICKS)


async def test_each_stream_begins_with_how_things_are_and_goes_on_with_what_happens(market: Market) -> None:
    trader = await new_account(market.database, usdc="1000")
    asset_id = await market.asset()
    ids = {"ids": [node_id("Asset", asset_id)]}
    ticks = await market.read(TICK_DOCUMENT, ids)
    trades = await market.read("subscription ($ids: [ID!]) { trades(assetIds: $ids) { kind trades { seq } } }", ids)
    candles = await market.read(
        "subscription ($ids: [ID!]!) { candles(assetIds: $ids, interval: D1) { kind candles { trades volume } } }", ids
    )
    assets = await market.read("subscription { assetEvents { kind assets { id status } } }")
    everybody = {"priceTicks": ticks, "trades": trades, "candles": candles, "assetEvents": assets}
    await until(lambda: all(sink.payloads for sink in everybody.values()))
    await market.buy(trader, asset_id)
    await set_status(market.database, asset_id, AssetStatus.REDUCE_ONLY)
    await until(lambda: all(updates(sink, name) for name, sink in everybody.items()))

    assert [sink.events(name)[0]["kind"] for name, sink in everybody.items()] == ["SNAPSHOT"] * 4
    assert trades.events("trades")[0]["trades"] == []
    assert [each["trades"] for each in updates(trades, "trades")] == [[{"seq": 1}]]
    assert tick_seqs(ticks) == [1]
    assert updates(candles, "candles")[-1]["candles"][-1] == {"trades": 1, "volume": "1.0025"}
    assert updates(assets, "assetEvents")[-1]["assets"] == [{"id": ids["ids"][0], "status": "REDUCE_ONLY"}]
