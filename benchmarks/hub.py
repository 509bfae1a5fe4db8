"""The hub alone: what it costs to hand one tick to one reader, readers alike and readers with lists of their own.

`python -m benchmarks.hub` needs no servers: ticks are appended as the feed does, and go to readers that drop them.
"""

import asyncio
import random
import statistics
import time
from datetime import UTC, datetime
from typing import cast

from app.db import Database
from app.pricing.ticks import Tick, TickCause
from app.realtime.events import Event, TickMode
from app.realtime.hub import Realtime

ASSETS = 100
READERS = 500
LIST = 20
ROUNDS = 5
TICKS = 2_000
SEED = 7
AT = datetime(2026, 1, 2, tzinfo=UTC)


class NullSink:
    """A reader that drops what it is sent."""

    congested = False

    def send(self, payload: bytes) -> None:
        """Drop it."""

    def complete(self) -> None:
        """Nothing more comes."""

    def too_slow(self) -> None:
        """Cannot happen: nothing is kept."""


def encode(event: Event[Tick]) -> bytes:
    """A stand-in of little cost: what the hub costs is measured here."""
    return b"{}"


def ticks(count: int, *, assets: int, after: int, batch: int) -> list[list[Tick]]:
    """Batches of ticks of these assets in turn."""
    made = [
        Tick(1 + position % assets, position, position, TickCause.TRADE, position, AT, 1, 1, 1, 1, 1, False)
        for position in range(after + 1, after + count + 1)
    ]
    return [made[start : start + batch] for start in range(0, count, batch)]


async def microseconds_per_delivery(lists: list[frozenset[int]], *, assets: int, batch: int) -> float:
    """Processor time of the hub for each tick that a reader wants."""
    hub = Realtime(database=cast("Database", None), redis=None)
    for asset_id in range(1, ASSETS + 1):
        hub._shared.visibility.set(asset_id, is_draft=False)
    for asset_ids in lists:
        await hub.price_ticks(
            sink=NullSink(),
            encode=encode,
            asset_ids=asset_ids,
            sees_drafts=False,
            mode=TickMode.ALL,
            throttle_ms=0,
            heartbeat_seconds=60,
            after=None,
            snapshot=True,
        )
    for warm in ticks(ASSETS, assets=assets, after=0, batch=1):
        hub.append(warm, {})
    batches = ticks(TICKS, assets=assets, after=ASSETS, batch=batch)
    deliveries = sum(1 + (tick.position % assets) in each for part in batches for tick in part for each in lists)
    began = time.process_time()
    for part in batches:
        hub.append(part, {})
    spent = time.process_time() - began
    await hub.stop()
    return spent * 1_000_000 / deliveries


async def report() -> None:
    """Measure and print."""
    rng = random.Random(SEED)
    alike = [frozenset({1})] * READERS
    own = [frozenset(rng.sample(range(1, ASSETS + 1), LIST)) for _ in range(READERS)]
    for name, lists, assets, batch in (
        (f"{READERS} readers alike, one tick at a time", alike, 1, 1),
        (f"{READERS} lists of {LIST} of {ASSETS} assets, one tick at a time", own, ASSETS, 1),
        (f"{READERS} lists of {LIST} of {ASSETS} assets, ten ticks at a time", own, ASSETS, 10),
    ):
        spent = [await microseconds_per_delivery(lists, assets=assets, batch=batch) for _ in range(ROUNDS)]
        print(f"{name:60} {statistics.median(spent):.3f} us a tick and reader (n={ROUNDS}, seed {SEED})")


if __name__ == "__main__":
    asyncio.run(report())
