"""Opening subscriptions, and what their events look like: who may, what is refused, and the bytes that readers get."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from inspect import isawaitable
from typing import Any

import orjson
import pytest

from api.limits import TooComplex
from api.node_ids import node_id
from api.subscriptions import encoders
from app.accounts.principals import ANONYMOUS, AccountPrincipal, Credential, Principal, Scope
from app.db import Connection, Database
from app.errors import ErrorCode, Forbidden, Refused, Unauthenticated
from app.exchange.assets import AssetStatus
from app.exchange.orders import Side, Trade
from app.exchange.settlement import Settlement
from app.pricing.candles import Candle
from app.pricing.intervals import Interval, PriceKind
from app.realtime.events import EventKind, TickMode
from app.services import Services
from tests.api.harness import Api
from tests.api.streaming import (
    AT,
    FakeReader,
    FakeRealtime,
    ListSink,
    event,
    ready,
    streams,
    subscribe,
    tick,
    whole_selection,
    with_realtime,
)
from tests.factories import load_asset, new_account, new_admin, new_asset, place_order

PRICES = "subscription { priceTicks { kind ticks { seq } cursor } }"
CANDLES = "subscription ($ids: [ID!]!) { candles(assetIds: $ids, interval: M1) { kind } }"
OF_ASSETS = {
    "priceTicks": "subscription ($ids: [ID!]) { priceTicks(assetIds: $ids) { kind } }",
    "trades": "subscription ($ids: [ID!]) { trades(assetIds: $ids) { kind } }",
    "oracleReports": "subscription ($ids: [ID!]) { oracleReports(assetIds: $ids) { kind } }",
    "candles": CANDLES,
}


@pytest.fixture
def realtime() -> FakeRealtime:
    return FakeRealtime()


@pytest.fixture
def services(api: Api, realtime: FakeRealtime) -> Services:
    return with_realtime(api.services, realtime)


def asset_node(asset_id: int) -> str:
    return str(node_id("Asset", asset_id))


def key(*scopes: Scope) -> AccountPrincipal:
    """An API key of nobody in particular."""
    return AccountPrincipal(10**12, Credential("api_key", 10**12), frozenset(scopes))


# ---------------------------------------------------------------------------------------------- what is asked
async def test_what_is_left_out_is_what_the_contract_says(services: Services, realtime: FakeRealtime) -> None:
    trader = key(Scope.READ)
    await subscribe(services, "subscription { priceTicks { kind } }")
    await subscribe(services, "subscription { trades { kind } }")
    await subscribe(services, "subscription { assetEvents { kind } }")
    await subscribe(services, "subscription { accountEvents { kind } }", principal=trader)

    assert realtime.asked == [
        {
            "asset_ids": None, "sees_drafts": False, "mode": TickMode.ALL, "throttle_ms": 0, "heartbeat_seconds": 5,
            "after": None, "snapshot": True,
        },
        {"asset_ids": None, "sees_drafts": False, "heartbeat_seconds": 5, "after": None},
        {"sees_drafts": False, "heartbeat_seconds": 5, "after": None},
        {"account_id": trader.account_id, "after": None, "snapshot": True, "heartbeat_seconds": 5},
    ]  # fmt: skip
    assert [group.stream for group in realtime] == ["price_ticks", "trades", "asset_events", "account_events"]


async def test_everything_that_is_asked_reaches_the_hub(
    services: Services, realtime: FakeRealtime, database: Database
) -> None:
    first, second = await new_asset(database), await new_asset(database)
    ids = [asset_node(second), asset_node(first), asset_node(second)]
    await subscribe(
        services,
        """subscription ($ids: [ID!], $after: Cursor) {
             priceTicks(assetIds: $ids, after: $after, snapshot: false, mode: LATEST, throttle: MS_250,
                        heartbeatSeconds: 60) { kind } }""",
        {"ids": ids, "after": "p17"},
    )
    await subscribe(
        services,
        f"""subscription {{
              candles(assetIds: "{ids[0]}", interval: H4, price: MARKET, heartbeatSeconds: 1) {{ kind }} }}""",
    )
    await subscribe(
        services,
        'subscription { accountEvents(after: "e3", snapshot: false) { seq } }',
        principal=key(Scope.READ, Scope.TRADE),
    )

    assert realtime.asked == [
        {
            "asset_ids": frozenset({first, second}), "sees_drafts": False, "mode": TickMode.LATEST, "throttle_ms": 250,
            "heartbeat_seconds": 60, "after": "p17", "snapshot": False,
        },
        {
            "asset_ids": frozenset({second}), "interval": Interval.H4, "price": PriceKind.MARKET,
            "sees_drafts": False, "heartbeat_seconds": 1,
        },
        {"account_id": 10**12, "after": "e3", "snapshot": False, "heartbeat_seconds": 5},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("throttle", "milliseconds"), [("NONE", 0), ("MS_100", 100), ("MS_250", 250), ("MS_1000", 1000)]
)
async def test_each_throttle_is_what_its_name_says(
    services: Services, realtime: FakeRealtime, throttle: str, milliseconds: int
) -> None:
    await subscribe(services, f"subscription {{ priceTicks(throttle: {throttle}) {{ kind }} }}")

    assert realtime.asked[0]["throttle_ms"] == milliseconds


async def test_the_reader_of_the_hub_is_handed_back(services: Services) -> None:
    sink = ListSink()
    reader = await subscribe(services, PRICES, sink=sink)

    assert isinstance(reader, FakeReader)
    assert reader.sink is sink


# ---------------------------------------------------------------------------------------------- what is refused
@pytest.mark.parametrize("seconds", [0, 61, -1])
@pytest.mark.parametrize("field", ["priceTicks", "trades", "assetEvents", "accountEvents"])
async def test_a_heartbeat_is_1_to_60_seconds(
    services: Services, realtime: FakeRealtime, field: str, seconds: int
) -> None:
    with pytest.raises(Refused) as refused:
        await subscribe(
            services, f"subscription {{ {field}(heartbeatSeconds: {seconds}) {{ kind }} }}", principal=key(Scope.READ)
        )

    refusal = refused.value.refusal
    assert (refusal.code, refusal.field) == (ErrorCode.INVALID_INPUT, ("heartbeatSeconds",))
    assert refusal.message == f"heartbeatSeconds is 1 to 60; got {seconds}."
    assert realtime.asked == []


@pytest.mark.parametrize("count", [0, 501])
@pytest.mark.parametrize("field", OF_ASSETS)
async def test_a_list_of_assets_has_1_to_500(
    services: Services, realtime: FakeRealtime, field: str, count: int
) -> None:
    with pytest.raises(Refused) as refused:
        await subscribe(services, OF_ASSETS[field], {"ids": [asset_node(10**12)] * count})

    refusal = refused.value.refusal
    assert (refusal.code, refusal.field) == (ErrorCode.INVALID_INPUT, ("assetIds",))
    assert refusal.message == f"assetIds holds 1 to 500 ids; got {count}."
    assert realtime.asked == []


@pytest.mark.parametrize("field", OF_ASSETS)
async def test_what_does_not_exist_and_what_is_not_shown_are_told_alike(
    services: Services, realtime: FakeRealtime, database: Database, field: str
) -> None:
    open_one = await new_asset(database)
    draft = await new_asset(database, status=AssetStatus.DRAFT)
    unknown = [asset_node(draft), asset_node(10**15), str(node_id("Trade", draft)), "no id"]
    messages = []
    for id_ in unknown:
        with pytest.raises(Refused) as refused:
            await subscribe(services, OF_ASSETS[field], {"ids": [asset_node(open_one), id_]})
        refusal = refused.value.refusal
        assert (refusal.code, refusal.field) == (ErrorCode.NOT_FOUND, ("assetIds",))
        messages.append(refusal.message.replace(id_, "?"))
    assert messages == ["There is no asset '?'; look assets up by assets."] * len(unknown)
    assert realtime.asked == []

    await subscribe(services, OF_ASSETS[field], {"ids": [asset_node(draft)]}, principal=await new_admin(database))
    assert (realtime.asked[0]["asset_ids"], realtime.asked[0]["sees_drafts"]) == (frozenset({draft}), True)


@pytest.mark.parametrize(
    ("principal", "refusal"),
    [(ANONYMOUS, Unauthenticated), (key(Scope.TRADE, Scope.WITHDRAW), Forbidden)],
    ids=["anonymous", "a key that may not read"],
)
async def test_one_s_own_account_takes_an_account_with_read(
    services: Services, realtime: FakeRealtime, principal: Principal, refusal: type[Exception]
) -> None:
    with pytest.raises(refusal):
        await subscribe(services, "subscription { accountEvents { seq } }", principal=principal)
    assert realtime.asked == []


async def test_an_admin_has_no_account_to_read(services: Services, realtime: FakeRealtime, database: Database) -> None:
    with pytest.raises(Forbidden):
        await subscribe(services, "subscription { accountEvents { seq } }", principal=await new_admin(database))
    assert realtime.asked == []


EIGHT_FIELDS = "{ kind cursor ticks { assetId seq at display market } }"


@pytest.mark.parametrize(
    ("document", "variables", "points"),
    [
        # An event of n assets is n ticks of 5 fields, and 3 fields of its own for each; 500 fields are a point.
        ("subscription { priceTicks %s }", {}, 1),
        ("subscription ($ids: [ID!]) { priceTicks(assetIds: $ids) %s }", {}, 1),
        ("subscription ($ids: [ID!]) { priceTicks(assetIds: $ids) %s }", {"ids": ["x"] * 62}, 1),
        ("subscription ($ids: [ID!]) { priceTicks(assetIds: $ids) %s }", {"ids": ["x"] * 63}, 2),
        ("subscription ($ids: [ID!]) { priceTicks(assetIds: $ids) %s }", {"ids": ["x"] * 500}, 9),
        ("subscription ($ids: [ID!]) { priceTicks(assetIds: $ids) { ...Event } } fragment Event on PriceEvent %s",
         {"ids": ["x"] * 500}, 9),
        ('subscription { priceTicks(assetIds: ["x", "y"]) %s }', {}, 1),
    ],
)  # fmt: skip
def test_a_subscription_costs_what_an_event_of_all_its_assets_could_hold(
    document: str, variables: dict[str, Any], points: int
) -> None:
    assert ready(document % EIGHT_FIELDS).complexity.points(variables) == points


@pytest.mark.parametrize(
    ("document", "variables", "message"),
    [
        (OF_ASSETS["trades"], {"ids": ["x"] * 501}, "trades.assetIds 501, at most 500 allowed"),
        (
            f"subscription ($ids: [ID!]) {{ trades(assetIds: $ids) {whole_selection(streams()['trades'])} }}",
            {"ids": ["x"] * 500},
            "cost [0-9]+, at most 30000 allowed",
        ),
    ],
)
def test_a_subscription_to_too_much_is_refused(document: str, variables: dict[str, Any], message: str) -> None:
    with pytest.raises(TooComplex, match=message):
        ready(document).complexity.points(variables)


# ---------------------------------------------------------------------------------------------- what readers get
async def test_a_tick_as_it_is_sent(services: Services, realtime: FakeRealtime) -> None:
    await subscribe(
        services,
        """subscription { priceTicks { kind cursor serverTime missed ticks {
             assetId seq cause tradeSeq at display market fundamental marketWeight volume fundamentalStale } } }""",
    )

    assert await realtime.the_only().emit(tick(3, 7, at=AT + timedelta(microseconds=5))) == (
        b'{"data":{"priceTicks":{"kind":"UPDATE","cursor":"p7","serverTime":"2026-01-31T09:30:00Z","missed":null,'
        b'"ticks":[{"assetId":"%s","seq":7,"cause":"TRADE","tradeSeq":7,"at":"2026-01-31T09:30:00.000005Z",'
        b'"display":"1.000000000007","market":"2","fundamental":"3","marketWeight":"0.5","volume":"1.5",'
        b'"fundamentalStale":false}]}}}' % asset_node(3).encode()
    )


@pytest.mark.parametrize("kind", EventKind)
async def test_every_kind_of_event_has_its_name(services: Services, realtime: FakeRealtime, kind: EventKind) -> None:
    await subscribe(services, PRICES)

    payload = await realtime.the_only().emit(kind=kind)
    assert orjson.loads(payload) == {"data": {"priceTicks": {"kind": kind.value, "ticks": [], "cursor": "p7"}}}


async def test_fields_come_in_the_document_s_order_under_their_aliases(
    services: Services, realtime: FakeRealtime
) -> None:
    await subscribe(
        services,
        """subscription { tape: priceTicks { __typename at: serverTime short: ticks { s: seq } cursor
             ...Long } }
           fragment Long on PriceEvent { long: ticks { ...Tick __typename } missed }
           fragment Tick on PriceTick { s: seq d: display }""",
    )

    assert await realtime.the_only().emit(tick(3, 7), tick(3, 8)) == (
        b'{"data":{"tape":{"__typename":"PriceEvent","at":"2026-01-31T09:30:00Z","short":[{"s":7},{"s":8}],'
        b'"cursor":"p7","long":[{"s":7,"d":"1.000000000007","__typename":"PriceTick"},'
        b'{"s":8,"d":"1.000000000008","__typename":"PriceTick"}],"missed":null}}}'
    )


async def test_conditions_hold_for_the_whole_subscription(services: Services, realtime: FakeRealtime) -> None:
    document = """subscription ($short: Boolean!) { priceTicks {
        cursor @skip(if: $short) ticks { seq display @skip(if: $short) market @include(if: $short) } } }"""
    await subscribe(services, document, {"short": True})
    await subscribe(services, document, {"short": False})

    short, long = realtime
    for _ in range(2):
        assert await short.emit(tick(3, 7)) == b'{"data":{"priceTicks":{"ticks":[{"seq":7,"market":"2"}]}}}'
        assert await long.emit(tick(3, 7)) == (
            b'{"data":{"priceTicks":{"cursor":"p7","ticks":[{"seq":7,"display":"1.000000000007"}]}}}'
        )


async def test_a_trade_with_its_asset(
    services: Services, realtime: FakeRealtime, database: Database, settlement: Settlement
) -> None:
    asset_id = await new_asset(database)
    outcome = await place_order(settlement, await new_account(database, usdc="100"), asset_id, shares="2")
    trade = outcome.trades[0]
    await subscribe(services, "subscription { trades { trades { seq side shares gross asset { symbol supply } } } }")

    asset = await load_asset(database, asset_id)
    payload = await realtime.the_only().emit(trade, trade)
    assert orjson.loads(payload)["data"]["trades"]["trades"] == [
        {
            "seq": 1, "side": "BUY", "shares": "2", "gross": "2.01",
            "asset": {"symbol": asset.symbol, "supply": "2"},
        }
    ] * 2  # fmt: skip


async def test_an_asset_is_as_it_is_at_each_event(
    services: Services, realtime: FakeRealtime, database: Database, settlement: Settlement
) -> None:
    asset_id = await new_asset(database)
    await subscribe(services, "subscription { assetEvents { assets { supply reserve { backing } price { market } } } }")
    group = realtime.the_only()

    async def seen() -> dict[str, Any]:
        payload = await group.emit(await load_asset(database, asset_id))
        shown: dict[str, Any] = orjson.loads(payload)["data"]["assetEvents"]["assets"][0]
        return shown

    assert await seen() == {"supply": "0", "reserve": {"backing": "0"}, "price": {"market": "1"}}
    await place_order(settlement, await new_account(database, usdc="100"), asset_id, shares="2")
    assert await seen() == {"supply": "2", "reserve": {"backing": "2.01"}, "price": {"market": "1.01"}}


async def test_a_candle_that_moves(services: Services, realtime: FakeRealtime, database: Database) -> None:
    asset_id = await new_asset(database)
    document = """subscription ($ids: [ID!]!) { candles(assetIds: $ids, interval: M1) { kind serverTime candles {
        assetId interval time open high low close volume trades closed } } }"""
    await subscribe(services, document, {"ids": [asset_node(asset_id)]})
    unit = 10**12
    candle = Candle(asset_id, Interval.M1, 60, unit, 3 * unit, unit, 2 * unit, 1_000_000, 2, closed=False)
    over = replace(candle, close=3 * unit, trades=3, closed=True)

    shown = [orjson.loads(await realtime.the_only().emit(each))["data"]["candles"] for each in (candle, over)]
    common = {
        "assetId": asset_node(asset_id), "interval": "M1", "time": 60, "open": "1", "high": "3", "low": "1",
        "volume": "1",
    }  # fmt: skip
    assert shown[0] == {
        "kind": "UPDATE",
        "serverTime": "2026-01-31T09:30:00Z",
        "candles": [{**common, "close": "2", "trades": 2, "closed": False}],
    }
    assert shown[1]["candles"] == [{**common, "close": "3", "trades": 3, "closed": True}]


async def test_what_goes_wrong_with_an_event_is_told_in_it_and_masked(
    services: Services, realtime: FakeRealtime, settlement: Settlement, database: Database
) -> None:
    await subscribe(services, "subscription { priceTicks { ticks { seq display } } }")
    broken = tick(3, 7, display="no number")

    result = orjson.loads(await realtime.the_only().emit(broken))
    assert result["data"] is None
    (error,) = result["errors"]
    assert error["extensions"]["code"] == "INTERNAL_SERVER_ERROR"
    request_id = error["extensions"]["requestId"]
    assert error["message"] == f"Internal error; quote request id {request_id}."
    assert orjson.loads(await realtime.the_only().emit(tick(3, 8)))["data"]["priceTicks"]["ticks"] == [
        {"seq": 8, "display": "1.000000000008"}
    ]


async def test_an_error_below_an_event_names_its_path(services: Services, realtime: FakeRealtime) -> None:
    await subscribe(services, "subscription { trades { trades { seq asset { symbol } } } }")
    lost = Trade(1, 10**15, 4, 1, 1, "a", Side.BUY, 1, 1, 0, 1, 10**12, 1, AT)

    result = orjson.loads(await realtime.the_only().emit(lost))
    assert result["data"] is None
    assert [error["path"] for error in result["errors"]] == [["trades", "trades", 0, "asset"]]


async def test_an_event_that_needs_nothing_read_is_encoded_at_once(services: Services, realtime: FakeRealtime) -> None:
    await subscribe(services, PRICES)
    await subscribe(services, "subscription { trades { trades { seq asset { symbol } } } }")
    prices, trades = realtime

    assert isinstance(prices.encode(event(tick(3, 7))), bytes)
    assert isinstance(trades.encode(event()), bytes)
    waiting = trades.encode(event(Trade(1, 10**15, 4, 1, 1, "a", Side.BUY, 1, 1, 0, 1, 10**12, 1, AT)))
    assert isawaitable(waiting)
    assert b'"errors"' in await waiting


class AwayDatabase(Database):
    """The shared database, of which the next `away` connections cannot be had."""

    def __init__(self, shared: Database) -> None:
        super().__init__(shared.pool)
        self.away = 0

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        if self.away:
            self.away -= 1
            raise ConnectionRefusedError("the database is away")
        async with super().acquire() as connection:
            yield connection


async def test_an_event_waits_for_a_database_that_is_away_for_a_moment(
    services: Services,
    realtime: FakeRealtime,
    database: Database,
    settlement: Settlement,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encoders, "PAUSES_SECONDS", (0.0, 0.0))
    asset_id = await new_asset(database)
    trade = (await place_order(settlement, await new_account(database, usdc="100"), asset_id, shares="1")).trades[0]
    away = AwayDatabase(database)
    await subscribe(
        replace(services, database=away), "subscription { trades(heartbeatSeconds: 7) { trades { asset { id } } } }"
    )
    group = realtime.the_only()

    away.away = 2
    shown = {"data": {"trades": {"trades": [{"asset": {"id": asset_node(asset_id)}}]}}}
    assert orjson.loads(await group.emit(trade)) == shown
    away.away = 3
    result = orjson.loads(await group.emit(trade))
    assert (result["data"], [each["extensions"]["code"] for each in result["errors"]]) == (
        None,
        ["SERVICE_UNAVAILABLE"],
    )
    assert orjson.loads(await group.emit(trade)) == shown
