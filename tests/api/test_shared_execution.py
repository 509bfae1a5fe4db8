"""One execution and one encoding for all who read alike, and nothing that depends on the viewer in what they share."""

import asyncio
from collections.abc import Awaitable
from inspect import isawaitable
from typing import Any, Final, NoReturn, cast
from weakref import WeakKeyDictionary

import orjson
import pytest
from graphql import FieldNode

from api.access import Audience, Rule
from api.access_table import TABLE
from api.node_ids import node_id
from api.subscriptions import encoders as encoders_module
from api.subscriptions import opening
from api.subscriptions.encoders import OwnEncoder, SharedEncoder
from api.subscriptions.opening import OPENERS, encoders_of
from app.accounts.principals import ANONYMOUS, AccountPrincipal, Principal
from app.db import Database
from app.errors import Forbidden, Unauthenticated
from app.exchange.orders import Trade
from app.exchange.settlement import Settlement
from app.pricing.candles import Candle
from app.pricing.intervals import Interval
from app.realtime.events import Event, EventKind
from app.realtime.reports import ToldReport, with_evidence
from app.services import Services
from tests.api.harness import Api
from tests.api.streaming import (
    FakeRealtime,
    ListSink,
    Opened,
    event,
    reachable,
    ready,
    streams,
    subscribe,
    tick,
    ticks,
    whole_selection,
    with_realtime,
)
from tests.factories import load_asset, new_account, new_admin, new_asset, place_order
from tests.factories.reports import configure, new_report, page

TICKS: Final = "{ kind cursor ticks { assetId seq display market } }"
SHARED: Final = sorted(streams().keys() - {"accountEvents"})


@pytest.fixture
def realtime() -> FakeRealtime:
    return FakeRealtime()


@pytest.fixture
def services(api: Api, realtime: FakeRealtime, monkeypatch: pytest.MonkeyPatch) -> Services:
    """Those of a process that has just been started: nothing has been encoded in it."""
    monkeypatch.setattr(opening, "_ENCODERS", WeakKeyDictionary())
    return with_realtime(api.services, realtime)


def shared(group: Opened) -> SharedEncoder[Any]:
    assert isinstance(group.encode, SharedEncoder)
    return group.encode


# ---------------------------------------------------------------------------------------------- who reads alike
async def test_fifty_readers_are_one_execution_and_one_encoding(services: Services, realtime: FakeRealtime) -> None:
    sinks = [ListSink() for _ in range(50)]
    for number, sink in enumerate(sinks):
        await subscribe(services, f"subscription Reader{number} {{ priceTicks {TICKS} }}", sink=sink)

    group = realtime.the_only()
    encoder = shared(group)
    for each in ticks(3, 4):
        await group.emit(each)

    assert (encoder.executions, encoder.items_encoded) == (4, 4)
    assert {tuple(map(id, sink.payloads)) for sink in sinks} == {tuple(map(id, sinks[0].payloads))}
    assert [each["ticks"][0]["seq"] for each in sinks[0].events("priceTicks")] == [1, 2, 3, 4]


ALIKE: Final = (
    "subscription { priceTicks { kind ticks { seq display } cursor } }",
    "subscription A { priceTicks {kind,ticks{seq display},cursor} }",
    "subscription B($m: TickMode! = ALL) { priceTicks(mode: $m, heartbeatSeconds: 5) "
    "{ kind ticks { seq display } cursor } }",
    "subscription C { priceTicks { ...Event } } "
    "fragment Event on PriceEvent { kind ticks { ...Tick } cursor } fragment Tick on PriceTick { seq display }",
    "subscription D { ...Root } fragment Root on Subscription { priceTicks { ... on PriceEvent { kind ticks { seq } } "
    "ticks { display } cursor } }",
    "subscription E($no: Boolean! = false) { priceTicks { kind ticks { seq display market @include(if: $no) } cursor "
    "missed @skip(if: true) } }",
    "query Other { serverTime } subscription F { priceTicks { kind ticks { seq display } cursor kind } }",
)
UNLIKE: Final = (
    "subscription { priceTicks { kind ticks { seq } cursor } }",
    "subscription { priceTicks { kind ticks { display seq } cursor } }",
    "subscription { priceTicks { ticks { seq display } kind cursor } }",
    "subscription { prices: priceTicks { kind ticks { seq display } cursor } }",
    "subscription { priceTicks { kind ticks { seq price: display } cursor } }",
    "subscription { priceTicks { kind all: ticks { seq display } cursor } }",
    "subscription { priceTicks { __typename kind ticks { seq display } cursor } }",
)


async def test_selections_are_alike_however_they_are_written(services: Services, realtime: FakeRealtime) -> None:
    for document in ALIKE:
        name = "F" if "subscription F" in document else None
        await subscribe(services, document, name=name)

    assert len(realtime.the_only().sinks) == len(ALIKE)


async def test_what_asks_for_something_else_is_not_alike(services: Services, realtime: FakeRealtime) -> None:
    for document in (ALIKE[0], *UNLIKE):
        await subscribe(services, document)

    assert len({group.encode for group in realtime}) == 1 + len(UNLIKE)


async def test_conditions_that_come_to_something_else_are_not_alike(services: Services, realtime: FakeRealtime) -> None:
    document = "subscription ($a: Boolean!) { priceTicks { cursor kind @include(if: $a) } }"
    await subscribe(services, document, {"a": True})
    await subscribe(services, document, {"a": False})
    await subscribe(services, "subscription { priceTicks { cursor } }")

    assert sorted(len(group.sinks) for group in realtime) == [1, 2]


async def test_the_same_name_of_two_streams_is_not_alike(services: Services, realtime: FakeRealtime) -> None:
    await subscribe(services, "subscription { events: trades { kind cursor } }")
    await subscribe(services, "subscription { events: priceTicks { kind cursor } }")

    assert len({group.encode for group in realtime}) == 2


async def test_readers_of_other_assets_share_each_tick_s_encoding(
    services: Services, realtime: FakeRealtime, database: Database
) -> None:
    ids = [await new_asset(database) for _ in range(3)]
    lists = [[0, 1], [1, 2], [0, 2], [0, 1, 2]]
    for each in lists:
        inline = ", ".join(f'"{node_id("Asset", ids[index])}"' for index in each)
        await subscribe(services, f"subscription {{ priceTicks(assetIds: [{inline}]) {TICKS} }}")

    groups = list(realtime)
    (encoder,) = {shared(group) for group in groups}
    made = [tick(asset_id, 1) for asset_id in ids]
    payloads = [await group.emit(*(made[index] for index in each)) for group, each in zip(groups, lists, strict=True)]

    assert len(groups) == 4
    assert encoder.items_encoded == 3
    seen = [[each["assetId"] for each in orjson.loads(payload)["data"]["priceTicks"]["ticks"]] for payload in payloads]
    assert seen == [[node_id("Asset", ids[index]) for index in each] for each in lists]


async def test_a_snapshot_a_resumption_and_a_throttled_event_reuse_what_was_encoded(
    services: Services, realtime: FakeRealtime
) -> None:
    await subscribe(services, f"subscription {{ priceTicks(throttle: MS_250) {TICKS} }}")
    group = realtime.the_only()
    made = ticks(4, 20)
    for each in made:
        await group.emit(each)

    await group.emit(*made, kind=EventKind.UPDATE)
    await group.emit(made[-1], kind=EventKind.SNAPSHOT)
    assert (shared(group).executions, shared(group).items_encoded) == (22, 20)


async def test_readers_who_resumed_share_again(services: Services, realtime: FakeRealtime) -> None:
    document = f"subscription ($after: Cursor) {{ priceTicks(after: $after) {TICKS} }}"
    await subscribe(services, document, {})
    await subscribe(services, document, {"after": "p3"})
    await subscribe(services, document, {"after": "p900"})
    await subscribe(services, f'subscription {{ priceTicks(after: "p1", snapshot: false) {TICKS} }}')

    assert len(realtime.the_only().sinks) == 4
    assert [asked["after"] for asked in realtime.asked] == [None, "p3", "p900", "p1"]


async def test_an_encoder_is_the_same_for_as_long_as_anybody_reads_by_it(
    services: Services, realtime: FakeRealtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoders_module, "ENCODERS_KEPT", 2)
    first = "subscription { priceTicks { n0: cursor } }"
    await subscribe(services, first)
    kept = realtime.the_only().encode
    for number in range(1, 6):
        await subscribe(services, f"subscription {{ priceTicks {{ n{number}: cursor }} }}")
    await subscribe(services, first)

    assert [len(group.sinks) for group in realtime if group.encode is kept] == [2]


async def test_what_is_kept_is_bounded(
    services: Services, realtime: FakeRealtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoders_module, "ITEMS_KEPT", 3)
    await subscribe(services, "subscription { priceTicks { bounded: ticks { seq } } }")
    group = realtime.the_only()
    made = ticks(5, 5)
    for each in made:
        await group.emit(each)
    await group.emit(*made[2:])
    assert shared(group).items_encoded == 5
    await group.emit(made[0])
    assert shared(group).items_encoded == 6


async def test_the_memory_of_all_encoders_is_bounded(
    services: Services, realtime: FakeRealtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoders_module, "ITEM_MEMORY_MAX_BYTES", 10 * (encoders_module.ITEM_OVERHEAD_BYTES + 9))
    for name in ("first", "second"):
        await subscribe(services, f"subscription {{ priceTicks {{ {name}: ticks {{ seq }} }} }}")
    first, second = realtime
    made = ticks(5, 6)  # {"seq":1} has nine characters: ten of them are kept
    await first.emit(*made)
    await second.emit(*made[:4])
    await first.emit(*made)
    assert shared(first).items_encoded == 6
    await second.emit(made[5])
    await first.emit(*made)
    assert shared(first).items_encoded == 12


async def test_an_idle_price_is_not_kept_for_it_changes(services: Services, realtime: FakeRealtime) -> None:
    await subscribe(services, "subscription { priceTicks { ticks { seq display } } }")
    group = realtime.the_only()

    shown = [orjson.loads(await group.emit(tick(6, 0, display=price * 10**12))) for price in (1, 2)]
    assert [each["data"]["priceTicks"]["ticks"][0]["display"] for each in shown] == ["1", "2"]


@pytest.mark.parametrize(
    "document",
    [
        "subscription { priceTicks { __typename kind cursor serverTime missed ticks { __typename assetId seq cause } "
        "again: ticks { at display stale: fundamentalStale volume } } }",
        "subscription { trades { trades { __typename id seq side shares price gross fee at } kind } }",
        "subscription { assetEvents { kind assets { id symbol maybe: statusReason supply } } }",
        "subscription { oracleReports { reports { id assetId at method outcome suggestedPrice resolution } kind } }",
    ],
)
async def test_what_needs_no_executor_is_what_an_executor_makes(
    document: str, services: Services, realtime: FakeRealtime, database: Database, settlement: Settlement
) -> None:
    name = ready(document).operation.node.selection_set.selections[0]
    assert isinstance(name, FieldNode)
    items = [await items_of(name.name.value, database, settlement) for _ in range(3)]
    await subscribe(services, document)
    encoder = shared(realtime.the_only())

    plain = [encoder(event(*given, missed=missed)) for given in ((), items, items[:1]) for missed in (None, 3)]
    execute = super(SharedEncoder, encoder).__call__
    assert [execute(event(*given, missed=missed)) for given in ((), items, items[:1]) for missed in (None, 3)] == plain
    assert all(isinstance(each, bytes) for each in plain)


# ---------------------------------------------------------------------------------------------- who sees what
def test_every_stream_can_be_opened_and_is_tried_here() -> None:
    assert set(OPENERS) == set(streams()) == set(TABLE["Subscription"][1])
    assert SHARED == ["assetEvents", "candles", "oracleReports", "priceTicks", "trades"]
    assert {name for name, rule in TABLE["Subscription"][1].items() if rule is Rule.OPEN} == set(SHARED)


@pytest.mark.parametrize("name", SHARED)
def test_nothing_that_a_shared_event_leads_to_depends_on_the_viewer(name: str) -> None:
    types = reachable(streams()[name])

    assert streams()[name].name in types
    assert len(types) > 1
    for type_name, type_ in types.items():
        audience, rules = TABLE[type_name]
        assert audience is Audience.EVERYBODY, type_name
        assert {rules[field] for field in type_.fields} == {Rule.OPEN}, type_name


def test_the_account_s_own_stream_does_lead_to_what_is_owned() -> None:
    types = reachable(streams()["accountEvents"])

    owned = {name for name in types if TABLE[name][0] is Audience.ITS_OWNER}
    assert owned == {"AccountEvent", "Balance", "Fill", "Order", "Position"}


class Nobody:
    """A caller whom nobody may look at."""

    def __getattribute__(self, name: str) -> NoReturn:
        raise AssertionError(f"somebody looked at the caller's {name}")


async def items_of(name: str, database: Database, settlement: Settlement) -> object:
    """An item of a stream, as the hub has it."""
    asset_id = await new_asset(database)
    outcome = await place_order(settlement, await new_account(database, usdc="100"), asset_id, shares="1")
    unit = 10**12
    items: dict[str, object] = {
        "assetEvents": await load_asset(database, asset_id),
        "candles": Candle(asset_id, Interval.S1, 1, unit, unit, unit, unit, 0, 0, closed=False),
        "priceTicks": tick(asset_id, 1),
        "trades": outcome.trades[0],
        "oracleReports": await told_report(database, asset_id),
    }
    return items[name]


async def told_report(database: Database, asset_id: int) -> ToldReport:
    """A report with evidence, as the hub has it."""
    await configure(database, asset_id)
    report = await new_report(database, asset_id, evidence=[page(1), page(2)])
    async with database.acquire() as connection:
        (told,) = await with_evidence(connection, [report])
    return told


ARGUMENTS: Final = {"candles": "(assetIds: $ids, interval: S1)"}


def whole(name: str, ids: list[str]) -> tuple[str, dict[str, Any]]:
    """A subscription to everything that there is in a stream's events, and its variables."""
    selection = whole_selection(streams()[name])
    if name not in ARGUMENTS:
        return f"subscription {{ {name}{selection} }}", {}
    return f"subscription ($ids: [ID!]!) {{ {name}{ARGUMENTS[name]}{selection} }}", {"ids": ids}


@pytest.mark.parametrize("name", SHARED)
async def test_no_resolver_of_a_shared_event_looks_at_the_caller(
    *, name: str, services: Services, realtime: FakeRealtime, database: Database, settlement: Settlement,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    document, variables = whole(name, [node_id("Asset", await new_asset(database))])
    await subscribe(services, document, variables)
    monkeypatch.setattr(encoders_module, "ANONYMOUS", cast(Principal, Nobody()))

    result = orjson.loads(await realtime.the_only().emit(await items_of(name, database, settlement)))
    assert "errors" not in result
    assert result["data"][name]["kind"] == "UPDATE"
    with pytest.raises(AssertionError, match="looked at the caller"):
        isinstance(Nobody(), AccountPrincipal)


@pytest.mark.parametrize("name", SHARED)
async def test_viewers_share_the_encoder_and_admins_have_a_group_of_their_own(
    name: str, services: Services, realtime: FakeRealtime, database: Database
) -> None:
    document, variables = whole(name, [node_id("Asset", await new_asset(database))])
    viewers: list[Principal] = [ANONYMOUS, await new_account(database), await new_account(database)]
    for viewer in viewers:
        await subscribe(services, document, variables, principal=viewer)
    await subscribe(services, document, variables, principal=await new_admin(database))
    await subscribe(services, document, variables, principal=await new_admin(database, name="second"))

    everybody, admins = realtime
    assert everybody.encode is admins.encode
    assert (len(everybody.sinks), everybody.parameters["sees_drafts"]) == (3, False)
    assert (len(admins.sinks), admins.parameters["sees_drafts"]) == (2, True)


async def test_accounts_share_nothing_not_even_with_themselves(
    services: Services, realtime: FakeRealtime, database: Database
) -> None:
    document = f"subscription {{ accountEvents{whole_selection(streams()['accountEvents'], first=0)} }}"
    a, b = await new_account(database), await new_account(database)
    for viewer in (a, b, a):
        await subscribe(services, document, principal=viewer)
    with pytest.raises(Unauthenticated):
        await subscribe(services, document)
    with pytest.raises(Forbidden):
        await subscribe(services, document, principal=await new_admin(database))

    groups = list(realtime)
    assert [group.parameters["account_id"] for group in groups] == [a.account_id, b.account_id, a.account_id]
    assert len({group.encode for group in groups}) == 3
    assert all(isinstance(group.encode, OwnEncoder) for group in groups)
    shown = [orjson.loads(await group.emit(kind=EventKind.SNAPSHOT))["data"]["accountEvents"] for group in groups]
    ids = [[balance["id"] for balance in each["balances"]] for each in shown]
    assert ids[0] == ids[2]
    assert not set(ids[0]) & set(ids[1])


async def test_what_is_read_for_one_event_is_not_shown_in_the_next(
    services: Services, realtime: FakeRealtime, database: Database, settlement: Settlement
) -> None:
    asset_id = await new_asset(database)
    outcome = await place_order(settlement, await new_account(database, usdc="100"), asset_id, shares="1")
    await subscribe(services, "subscription { trades { trades { asset { supply } } } }")
    group = realtime.the_only()

    async def supply(trade: Trade) -> str:
        shown: str = orjson.loads(await group.emit(trade))["data"]["trades"]["trades"][0]["asset"]["supply"]
        return shown

    assert await supply(outcome.trades[0]) == "1"
    await place_order(settlement, await new_account(database, usdc="100"), asset_id, shares="1")
    assert await supply(outcome.trades[0]) == "2"


async def test_events_that_wait_do_not_hold_up_or_mix_with_others(
    services: Services, realtime: FakeRealtime, database: Database, settlement: Settlement
) -> None:
    asset_ids = [await new_asset(database) for _ in range(5)]
    trader = await new_account(database, usdc="1000")
    trades = [(await place_order(settlement, trader, each, shares="1")).trades[0] for each in asset_ids]
    await subscribe(services, "subscription { trades { trades { asset { id } } cursor } }")
    encode = realtime.the_only().encode

    async def encoded(given: Event[Trade]) -> bytes:
        result: bytes | Awaitable[bytes] = encode(given)
        return await result if isawaitable(result) else result

    payloads = await asyncio.gather(*(encoded(event(trade)) for trade in trades))
    seen = [orjson.loads(payload)["data"]["trades"]["trades"][0]["asset"]["id"] for payload in payloads]
    assert seen == [node_id("Asset", each) for each in asset_ids]


async def test_the_encoders_are_the_process_s(api: Api, services: Services) -> None:
    assert encoders_of(services) is encoders_of(with_realtime(api.services, FakeRealtime()))
