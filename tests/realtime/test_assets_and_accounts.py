"""Asset events are the newest state of what admins change; account events come one by one, to their owner's readers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest

from app.accounts.principals import AccountPrincipal
from app.exchange.assets import AssetStatus
from app.local.valkey import EmbeddedValkey
from app.realtime.accounts import WAITING_MAX
from app.realtime.events import Event, EventKind
from tests.factories import fund, new_account, new_asset, set_status
from tests.realtime.market import Market, events_of, running_market, until
from tests.realtime.sinks import Encoder, FakeSink, encode

SNAPSHOT, UPDATE, GAP, HEARTBEAT = EventKind.SNAPSHOT, EventKind.UPDATE, EventKind.GAP, EventKind.HEARTBEAT


@pytest.fixture
async def market(fresh_database_url: str, valkey: EmbeddedValkey) -> AsyncIterator[Market]:
    async with running_market(fresh_database_url, redis_url=valkey.url) as running:
        yield running


async def read_assets(market: Market, **asked: Any) -> FakeSink:
    """A reader of asset events."""
    sink = FakeSink()
    defaults: dict[str, Any] = {"encode": encode, "sees_drafts": False, "heartbeat_seconds": 60, "after": None}
    sink.reader = await market.hub.asset_events(sink=sink, **{**defaults, **asked})
    return sink


async def read_account(market: Market, account: AccountPrincipal, **asked: Any) -> FakeSink:
    """A reader of an account's events."""
    sink = FakeSink()
    defaults: dict[str, Any] = {"encode": encode, "after": None, "snapshot": True, "heartbeat_seconds": 60}
    sink.reader = await market.hub.account_events(sink=sink, account_id=account.account_id, **{**defaults, **asked})
    return sink


# ------------------------------------------------------------------------------------------------ assets
async def test_all_visible_assets_then_what_changes_and_drafts_to_admins_only(market: Market) -> None:
    first, second, third = market.assets
    public, admin = await read_assets(market), await read_assets(market, sees_drafts=True)
    (shown,), (all_shown,) = await events_of(public, 1), await events_of(admin, 1)
    assert (shown.kind, {item[0] for item in shown.items}) == (SNAPSHOT, {first, second, third})
    assert {item[0] for item in all_shown.items} == {first, second, third, market.draft}

    await set_status(market.database, second, AssetStatus.HALTED)
    draft = await new_asset(market.database, status=AssetStatus.DRAFT)
    await market.writer.tell_changes(assets=[second, draft])
    await until(lambda: any([draft, "DRAFT"] in event.items for event in admin.events))
    await set_status(market.database, draft, AssetStatus.OPEN)
    await until(lambda: any([draft, "OPEN"] in event.items for event in public.events))
    assert [(event.kind, event.items) for event in public.events[1:]] == [
        (UPDATE, [[second, "HALTED"]]),
        (UPDATE, [[draft, "OPEN"]]),
    ]


async def test_an_asset_reader_resumes_with_the_newest_state_or_is_told_of_a_gap(market: Market) -> None:
    sink = await read_assets(market)
    (begun,) = await events_of(sink, 1)
    first, second, _ = market.assets
    for status in (AssetStatus.HALTED, AssetStatus.REDUCE_ONLY):
        await set_status(market.database, first, status)
    await set_status(market.database, second, AssetStatus.HALTED)
    resumed = await read_assets(market, after=begun.cursor)
    (event,) = await events_of(resumed, 1)
    assert (event.kind, event.items) == (UPDATE, [[first, "REDUCE_ONLY"], [second, "HALTED"]])
    up_to_date = await read_assets(market, after=event.cursor, heartbeat_seconds=1)
    (beat,) = await events_of(up_to_date, 1)
    assert (beat.kind, beat.items, beat.cursor) == (HEARTBEAT, [], event.cursor)

    beyond = await read_assets(market, after="a99999")
    events = await events_of(beyond, 2)
    assert [each.kind for each in events] == [GAP, SNAPSHOT]
    assert [item[1] for item in events[1].items].count("HALTED") == 1


async def test_a_slow_reader_of_assets_gets_the_newest_state_of_each(market: Market) -> None:
    sink = await read_assets(market, encode=Encoder(turns=2))
    await events_of(sink, 1)
    witness = await read_assets(market)
    await events_of(witness, 1)
    assert sink.reader is not None
    sink.reader.congested()
    first, second, _ = market.assets
    changes = [(first, AssetStatus.HALTED), (second, AssetStatus.HALTED), (first, AssetStatus.OPEN)]
    for number, (asset_id, status) in enumerate(changes, 2):
        await set_status(market.database, asset_id, status)
        await market.writer.tell_changes(assets=[asset_id])
        await events_of(witness, number)
    assert len(sink.payloads) == 1
    sink.reader.drained()
    events = await events_of(sink, 2)
    assert (events[1].kind, events[1].items, events[1].missed) == (UPDATE, [[second, "HALTED"], [first, "OPEN"]], 1)


# ------------------------------------------------------------------------------------------------ accounts
async def test_each_change_of_the_account_is_an_event_and_nobody_elses_comes(market: Market) -> None:
    alice, bob = await new_account(market.database, usdc="10"), await new_account(market.database)
    hers, his = await read_account(market, alice), await read_account(market, bob)
    (begun,), (empty,) = await events_of(hers, 1), await events_of(his, 1)
    assert (begun.kind, begun.items, begun.cursor, begun.seq) == (SNAPSHOT, [], "e1", 1)
    assert (empty.cursor, empty.seq) == ("e0", 0)

    await fund(market.database, alice, "1")
    await fund(market.database, alice, "2")
    await market.writer.tell_changes(accounts=[alice.account_id])
    events = await events_of(hers, 3)
    assert [(e.kind, e.items, e.cursor, e.seq) for e in events[1:]] == [(UPDATE, [2], "e2", 2), (UPDATE, [3], "e3", 3)]

    await fund(market.database, alice, "3")  # Nobody tells: it is found within a second.
    assert (await events_of(hers, 4))[3].items == [4]
    assert len(his.payloads) == 1
    assert market.hub.groups == 0


async def test_an_account_reader_resumes_by_cursor_or_is_told_of_a_gap(market: Market) -> None:
    alice = await new_account(market.database)
    for _ in range(5):
        await fund(market.database, alice, "1")
    resumed = await read_account(market, alice, after="e2", encode=Encoder(turns=3))
    events = await events_of(resumed, 3)
    assert [(e.kind, e.items, e.seq) for e in events] == [(UPDATE, [3], 3), (UPDATE, [4], 4), (UPDATE, [5], 5)]
    beyond = await read_account(market, alice, after="e6", snapshot=False)
    events = await events_of(beyond, 2)
    assert [(e.kind, e.cursor, e.seq) for e in events] == [(GAP, "e5", 5), (SNAPSHOT, "e5", 5)]
    live = await read_account(market, alice, snapshot=False, heartbeat_seconds=1)
    (beat,) = await events_of(live, 1)
    assert (beat.kind, beat.cursor, beat.seq) == (HEARTBEAT, "e5", 5)


async def test_an_accounts_events_are_never_conflated_and_a_hopeless_reader_is_closed(market: Market) -> None:
    alice = await new_account(market.database)
    slow = await read_account(market, alice)
    await events_of(slow, 1)
    assert slow.reader is not None
    slow.reader.congested()
    for _ in range(3):
        await fund(market.database, alice, "1")
    witness = await read_account(market, alice, after="e0")
    await events_of(witness, 3)
    assert len(slow.payloads) == 1
    slow.reader.drained()
    assert [event.items for event in (await events_of(slow, 4))[1:]] == [[1], [2], [3]]

    slow.reader.congested()
    async with market.database.acquire() as connection:
        await connection.execute(
            "INSERT INTO account_events (account_id, seq, at, order_id)"
            " SELECT $1, seq, now(), 1 FROM generate_series(4, $2::bigint) seq",
            alice.account_id,
            4 + WAITING_MAX,
        )
    await until(lambda: slow.closed_as_too_slow)
    assert len(slow.payloads) == 4
    await until(lambda: len(witness.payloads) == 4 + WAITING_MAX)
    assert [event.seq for event in witness.events] == list(range(1, 5 + WAITING_MAX))


async def test_what_happens_while_the_snapshot_is_read_comes_after_it(market: Market) -> None:
    alice = await new_account(market.database)
    reached, go_on = asyncio.Event(), asyncio.Event()

    def waits(event: Event[Any]) -> bytes | Awaitable[bytes]:
        async def later() -> bytes:
            reached.set()
            await go_on.wait()
            return encode(event)

        return later() if event.kind is SNAPSHOT else encode(event)

    sink = await read_account(market, alice, encode=waits)
    await reached.wait()
    await fund(market.database, alice, "1")
    await market.writer.tell_changes(accounts=[alice.account_id])
    go_on.set()
    events = await events_of(sink, 2)
    assert [(event.kind, event.seq) for event in events] == [(SNAPSHOT, 0), (UPDATE, 1)]
