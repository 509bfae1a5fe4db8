"""Whatever happens, in whatever order, every reader of ticks or trades is told exactly what it asked for, or is told
that it was not: random histories against a model that knows nothing of groups, logs or queues.
"""

import asyncio
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.exchange.orders import Side, Trade
from app.pricing.ticks import Tick, TickCause
from app.realtime.backlog import TickBacklog, TradeBacklog
from app.realtime.events import EventKind, TickMode
from app.realtime.groups import Group, PositionReader
from app.realtime.hub import Realtime
from app.realtime.log import TickLog
from tests.realtime.sinks import Encoder, FakeSink, Seen

AT = datetime(2026, 1, 2, tzinfo=UTC)
ASSETS = 6
DRAFT = 6
SEEDS = range(60)
STEPS = 250
WAITING_MAX = 5


def trade_of(tick: Tick) -> Trade:
    return Trade(
        id=tick.position,
        asset_id=tick.asset_id,
        seq=tick.trade_seq,
        account_id=1,
        order_id=1,
        client_order_id="mine",
        side=Side.BUY,
        shares=1,
        gross=1,
        fee=0,
        supply_after=1,
        market_after=1,
        transfer_id=1,
        at=AT,
    )


@dataclass
class Subscribed:
    """A reader, and what it asked for."""

    sink: FakeSink
    reader: PositionReader[Any, Any]
    asset_ids: frozenset[int] | None
    sees_drafts: bool
    mode: TickMode
    is_trades: bool
    after: int | None
    snapshot: bool
    opened_at: int
    can_resume: bool
    is_closed: bool = False

    def wants(self, tick: Tick) -> bool:
        shown = self.sees_drafts or tick.asset_id != DRAFT
        listed = self.asset_ids is None or tick.asset_id in self.asset_ids
        return shown and listed and (tick.cause is TickCause.TRADE or not self.is_trades)


@dataclass
class World:
    """The hub under test, and everything that ever happened."""

    rng: random.Random
    hub: Realtime = field(default_factory=lambda: Realtime(database=cast("Any", None), redis=None))
    history: dict[int, Tick] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)
    seqs: dict[int, int] = field(default_factory=dict)
    readers: list[Subscribed] = field(default_factory=list)
    oldest_stored: int = 1

    def __post_init__(self) -> None:
        shared = self.hub._shared
        shared.log = TickLog(size=40)
        for asset_id in range(1, ASSETS + 1):
            shared.visibility.set(asset_id, is_draft=asset_id == DRAFT)
        self.encoders = [Encoder(), Encoder(), Encoder(turns=2)]
        for stream, backlog in ((self.hub._ticks, TickBacklog), (self.hub._trades, TradeBacklog)):
            self._make_small(stream, backlog)

    def _make_small(self, stream: Any, backlog: Any) -> None:
        """Short queues, and a store that is a dictionary."""

        def make(mode: TickMode) -> Any:
            return backlog(limit=0 if mode is TickMode.LATEST else WAITING_MAX)

        async def fetch(group: Group[Any, Any], after: int) -> tuple[Sequence[Any], int] | None:
            await asyncio.sleep(0)
            head = self.hub.position
            end = min(head, after + self.rng.randint(1, 20))
            if after + 1 < self.oldest_stored or after > head or self.lost & set(range(after + 1, end + 1)):
                return None
            ticks = [self.history[position] for position in range(after + 1, end + 1)]
            return stream._visible(group, await stored(ticks, group.asset_ids)), end

        async def stored(ticks: Sequence[Tick], asset_ids: Collection[int] | None) -> list[Any]:
            wanted = [tick for tick in ticks if asset_ids is None or tick.asset_id in asset_ids]
            if backlog is TickBacklog:
                return list(wanted)
            traded = [tick for tick in wanted if tick.cause is TickCause.TRADE]
            return [SimpleNamespace(position=t.position, asset_id=t.asset_id, trade=trade_of(t)) for t in traded]

        stream.source.backlog = make
        stream.fetch_page = fetch

    # ---------------------------------------------------------------------------------------------- what happens
    def append(self, *, count: int, told: bool = True) -> None:
        """A batch of ticks, with or without the trades behind them."""
        ticks: list[Tick] = []
        for _ in range(count):
            asset_id = self.rng.randint(1, ASSETS)
            seq = self.seqs[asset_id] = self.seqs.get(asset_id, 0) + 1
            position = self.hub.position + len(ticks) + 1
            cause = self.rng.choice((TickCause.TRADE, TickCause.ORACLE))
            ticks.append(Tick(asset_id, seq, position, cause, seq, AT, 1, 1, 1, 1, 0, False))
            self.history[position] = ticks[-1]
        trades = {(tick.asset_id, tick.trade_seq): trade_of(tick) for tick in ticks if told}
        self.hub.append(ticks, trades)

    def open(self) -> None:
        """A new reader."""
        rng, head = self.rng, self.hub.position
        is_trades = rng.random() < 0.3
        after = rng.choice(
            [None, None, head, max(0, head - rng.randint(0, 80)), rng.randint(0, max(1, head)), head + 1]
        )
        mode = TickMode.ALL if is_trades else rng.choice(list(TickMode))
        asset_ids = rng.choice([None, frozenset(rng.sample(range(1, ASSETS + 1), 2)), frozenset({1, 2, 3})])
        common: dict[str, Any] = {
            "encode": rng.choice(self.encoders),
            "asset_ids": asset_ids,
            "sees_drafts": rng.random() < 0.3,
            "heartbeat_seconds": 60,
            "after": after,
        }
        sink = FakeSink(congested=rng.random() < 0.1)
        snapshot = True
        if is_trades:
            reader: Any = self.hub._trades.open(sink=sink, snapshot=True, **common)
        else:
            snapshot = rng.random() < 0.7
            throttle_ms = rng.choice([0, 0, 100, 1_000])
            reader = self.hub._ticks.open(sink=sink, mode=mode, throttle_ms=throttle_ms, snapshot=snapshot, **common)
        asked = Subscribed(
            sink, reader, asset_ids, common["sees_drafts"], mode, is_trades, after, snapshot, head,
            can_resume=after is not None
            and self.oldest_stored - 1 <= after <= head
            and not self.lost & set(range(after + 1, head + 1)),
        )  # fmt: skip
        self.readers.append(asked)
        if rng.random() < 0.3:
            sink.on_send = lambda: self._fill(asked) if rng.random() < 0.2 else None

    def _fill(self, asked: Subscribed) -> None:
        """The buffer fills while something is sent, and with it that of a neighbour on the same connection."""
        asked.reader.congested()
        neighbour = self.rng.choice(self.readers)
        neighbour.reader.congested()

    def lose(self) -> None:
        """Positions that are nowhere to be had."""
        head = self.hub.position
        gone = self.rng.randint(1, 5)
        self.lost.update(range(head + 1, head + gone + 1))
        self.hub._shared.log.reset(head + gone)
        self.hub._ticks.lose()
        self.hub._trades.lose()

    def fire(self) -> None:
        """Intervals end."""
        for throttle in self.hub._ticks._throttles.values():
            if self.rng.random() < 0.5:
                throttle.fire()

    def beat(self) -> None:
        """Heartbeats are due."""
        groups: list[Group[Any, Any]] = [*self.hub._ticks._groups.values(), *self.hub._trades._groups.values()]
        for group in groups:
            group.beat()

    def forget_old(self) -> None:
        """Storage keeps less."""
        self.oldest_stored = max(self.oldest_stored, self.hub.position - self.rng.randint(40, 120))

    def pick(self) -> Subscribed | None:
        """Any reader."""
        return self.rng.choice(self.readers) if self.readers else None

    def step(self) -> None:
        """Something happens."""
        roll = self.rng.random()
        picked = self.pick()
        if roll < 0.45:
            self.append(count=self.rng.choice([1, 1, 1, 2, 5, 12]))
        elif roll < 0.47:
            self.append(count=3, told=False)
        elif roll < 0.60:
            self.open()
        elif roll < 0.75 and picked is not None:
            picked.reader.congested() if self.rng.random() < 0.4 else picked.reader.drained()
        elif roll < 0.90:
            self.fire()
        elif roll < 0.93:
            self.beat()
        elif roll < 0.95 and picked is not None:
            picked.reader.close()
            picked.is_closed = True
        elif roll < 0.97:
            self.forget_old()
        elif roll < 0.975:
            self.lose()

    async def settle(self) -> None:
        """Until nothing more happens by itself."""
        for each in self.readers:
            each.sink.on_send = None
        for _ in range(5_000):
            for each in self.readers:
                each.reader.drained()
            for throttle in self.hub._ticks._throttles.values():
                throttle.fire()
            await asyncio.sleep(0)
            if all(each.is_closed or each.reader in each.reader.group.hot for each in self.readers):
                break
        for _ in range(20):
            for throttle in self.hub._ticks._throttles.values():
                throttle.fire()
            await asyncio.sleep(0)

    # ---------------------------------------------------------------------------------------------- what must hold
    def check(self, asked: Subscribed) -> None:
        """The reader was told the truth, and all of it."""
        events = asked.sink.events
        reached = self._check_first(asked, events)
        after_gap = False
        for event in events:
            assert event.position >= reached, f"{event} goes back behind {reached}"
            if event.kind is EventKind.GAP:
                assert event.items == []
            elif event.kind is EventKind.SNAPSHOT:
                assert event.items == self._snapshot(asked, event.position)
            else:
                assert not after_gap, f"{event} follows a gap"
                self._check_update(asked, event, reached)
            after_gap = event.kind is EventKind.GAP
            reached = event.position
        if not asked.is_closed:
            assert not after_gap
            assert self._between(asked, reached, self.hub.position) == []
            assert not self.lost & set(range(reached + 1, self.hub.position + 1))

    def _check_first(self, asked: Subscribed, events: Sequence[Seen]) -> int:
        """How it begins; answers the position from which it must know everything."""
        kinds = [event.kind for event in events]
        if asked.after is None:
            if asked.snapshot and kinds:
                assert kinds[0] in (EventKind.SNAPSHOT, EventKind.GAP)
            return asked.opened_at
        if asked.can_resume and EventKind.GAP not in kinds:
            assert EventKind.SNAPSHOT not in kinds
        return min(asked.after, asked.opened_at) if EventKind.GAP in kinds[:1] else asked.after

    def _check_update(self, asked: Subscribed, event: Seen, reached: int) -> None:
        wanted = self._between(asked, reached, event.position)
        assert not self.lost & set(range(reached + 1, event.position + 1)), f"{event} hides what was lost"
        if event.kind is EventKind.HEARTBEAT:
            assert (wanted, event.items) == ([], [])
            return
        assert event.items, f"{event} is empty"
        assert len(wanted) - len(event.items) == (event.missed or 0), f"{event}: {wanted}"
        if event.missed is None:
            assert event.items == wanted
        elif asked.is_trades:
            assert event.items == wanted[event.missed :]
        else:
            newest = {item[0]: item for item in wanted}
            assert event.items == sorted(newest.values(), key=lambda item: item[2])

    def _between(self, asked: Subscribed, after: int, up_to: int) -> list[list[int]]:
        ticks = [self.history[each] for each in range(after + 1, up_to + 1) if each in self.history]
        return [self._identity(asked, tick) for tick in ticks if asked.wants(tick)]

    def _snapshot(self, asked: Subscribed, position: int) -> list[list[int]]:
        ticks = [self.history[each] for each in range(1, position + 1) if each in self.history]
        newest = {tick.asset_id: tick for tick in ticks if asked.wants(tick)}
        return [] if asked.is_trades else [self._identity(asked, newest[each]) for each in sorted(newest)]

    @staticmethod
    def _identity(asked: Subscribed, tick: Tick) -> list[int]:
        return [tick.asset_id, tick.trade_seq] if asked.is_trades else [tick.asset_id, tick.seq, tick.position]


@pytest.mark.parametrize("seed", SEEDS)
async def test_every_reader_is_told_everything_once_in_order_or_what_is_missing(seed: int) -> None:
    world = World(random.Random(seed))
    for _ in range(STEPS):
        world.step()
        for _ in range(world.rng.choice([0, 0, 1, 5])):
            await asyncio.sleep(0)
    await world.settle()
    for asked in world.readers:
        world.check(asked)
    assert sum(len(asked.sink.payloads) for asked in world.readers) > 50
    for asked in world.readers:
        asked.reader.close()
    assert (world.hub.readers, world.hub.groups, world.hub.congested) == (0, 0, 0)
    await world.hub.stop()
