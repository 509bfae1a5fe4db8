"""How the engine learns of trades, oracle events and changed assets: by Redis streams at once, by PostgreSQL for sure.

Nothing is acknowledged and no place is kept in Redis: what the engine has taken in stands in its states.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.bus import CHANGES_STREAM, TRADES_STREAM, decode_changes, decode_trades
from app.db import Connection
from app.exchange.orders import TRADE_COLUMNS, Trade, trade_from_row
from app.pricing.inbox import Inbox, Seqs
from app.pricing.oracle_events import ORACLE_STREAM, decode_events

BLOCK_MS: Final = 400
"""How long a read waits for an entry: below every client's socket timeout."""
READ_ENTRIES_MAX: Final = 200
CHECK_SECONDS: Final = 1.0
"""Between looks at whether a stream began anew, with entries from before our place."""
RETRY_SECONDS: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Between attempts while Redis is away; the last one from then on."""

_Place: TypeAlias = tuple[int, int]
_BEGINNING: Final[_Place] = (0, 0)
_STREAMS: Final = (TRADES_STREAM, ORACLE_STREAM, CHANGES_STREAM)
_Entry: TypeAlias = "tuple[bytes, dict[bytes, bytes]]"

_log = structlog.get_logger(__name__)


class Feed:
    """Reads the streams into an inbox for as long as it runs. `is_up`: whether Redis answered when last asked."""

    def __init__(self, redis: Redis | None, *, inbox: Inbox, look: Callable[[], None]) -> None:
        """`look` is called when PostgreSQL should be looked at now: assets have changed, or entries may be missing."""
        self._redis = redis
        self._inbox = inbox
        self._look = look
        self.is_up = False

    async def run(self) -> None:
        """Read until cancelled; without a Redis there is nothing to do."""
        failures = 0
        while self._redis is not None:
            try:
                places = await _tails(self._redis)
                self.is_up, failures = True, 0
                # What was told before these places is found in PostgreSQL.
                self._look()
                await self._read(self._redis, places)
            except Exception as error:
                if not isinstance(error, RedisError | OSError | TimeoutError):
                    # An entry that no decoder refused, an event loop's own error: reading goes on after it.
                    _log.error("prices.feed_failed", exc_info=error)
                elif self.is_up:
                    _log.warning("prices.redis_away", error=repr(error))
                self.is_up = False
                self._look()
                await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
                failures += 1

    async def _read(self, redis: Redis, places: dict[str, _Place]) -> None:
        loop = asyncio.get_running_loop()
        checked = loop.time()
        while True:
            read = await redis.xread(
                {stream: _text(place) for stream, place in places.items()}, count=READ_ENTRIES_MAX, block=BLOCK_MS
            )
            for stream, entries in read:
                name = stream.decode()
                places[name] = _place(entries[-1][0])
                self._take_in(name, entries)
            if loop.time() - checked >= CHECK_SECONDS:
                checked = loop.time()
                tails = await _tails(redis)
                # A stream that was deleted, or came with another server, begins anew and perhaps with lower ids.
                places |= {name: _BEGINNING for name, tail in tails.items() if tail < places[name]}

    def _take_in(self, stream: str, entries: Iterable[_Entry]) -> None:
        for _, fields in entries:
            try:
                if stream == TRADES_STREAM:
                    self._inbox.offer_trades(decode_trades(fields[b"trades"]))
                elif stream == ORACLE_STREAM:
                    self._inbox.offer_events(decode_events(fields[b"events"]))
                elif decode_changes(fields[b"changes"]).assets:
                    self._look()
            except (ValueError, KeyError) as error:
                # What it was about is found in PostgreSQL.
                _log.warning("prices.entry_not_understood", stream=stream, error=repr(error)[:200])
                self._look()


async def _tails(redis: Redis) -> dict[str, _Place]:
    """The last entry of each stream."""
    pipeline = redis.pipeline(transaction=False)
    for stream in _STREAMS:
        pipeline.xrevrange(stream, count=1)
    found = await pipeline.execute()
    return {
        stream: _place(entries[0][0]) if entries else _BEGINNING
        for stream, entries in zip(_STREAMS, found, strict=True)
    }


def _place(entry_id: bytes) -> _Place:
    milliseconds, _, number = entry_id.partition(b"-")
    return int(milliseconds), int(number)


def _text(place: _Place) -> str:
    return f"{place[0]}-{place[1]}"


# ---------------------------------------------------------------------------------------------------- PostgreSQL


@dataclass(frozen=True, slots=True)
class Heads:
    """The database's time, and the last seqs of each asset at that moment."""

    now: datetime
    seqs: dict[int, Seqs]


async def heads(*, connection: Connection, asset_ids: Iterable[int]) -> Heads:
    """Where trades and oracle events of these assets have got to."""
    rows = await connection.fetch(
        "SELECT statement_timestamp() AS now, a.id, a.trade_seq,"
        " coalesce((SELECT max(e.seq) FROM oracle_events e WHERE e.asset_id = a.id), 0) AS oracle_seq"
        " FROM (SELECT) one LEFT JOIN assets a ON a.id = ANY($1::bigint[])",
        list(asset_ids),
    )
    return Heads(rows[0]["now"], {row["id"]: (row["trade_seq"], row["oracle_seq"]) for row in rows if row["id"]})


async def trades_after(*, connection: Connection, after: Mapping[int, int], limit: int) -> dict[int, list[Trade]]:
    """Of each asset (id to seq): the trades that follow, ascending, `limit` of each at most. None: it is missing."""
    if not after:
        return {}
    rows = await connection.fetch(
        f"SELECT n.* FROM unnest($1::bigint[], $2::bigint[]) k (id, seq) CROSS JOIN LATERAL (SELECT {TRADE_COLUMNS}"
        " FROM trades t JOIN orders o ON o.id = t.order_id WHERE t.asset_id = k.id AND t.seq > k.seq"
        " ORDER BY t.seq LIMIT $3) n",
        list(after.keys()),
        list(after.values()),
        limit,
    )
    found: dict[int, list[Trade]] = {}
    for row in rows:
        found.setdefault(row["asset_id"], []).append(trade_from_row(row))
    return found
