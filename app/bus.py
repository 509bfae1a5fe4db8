"""The bus: what has happened, told to other processes through a Redis stream after it has been committed.

PostgreSQL is the truth. What is lost here (Redis away, a full queue, a crash) readers find in the trades table by
sequence, so telling never blocks, never raises and never holds up a trade.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import orjson
import structlog
from redis.asyncio import Redis

from app.errors import isoformat
from app.exchange.orders import Trade

TRADES_STREAM: Final = "megatron:trades"
"""Entries `{"trades": [...]}`: JSON, trades of several assets, each asset's in order of its seq, base units."""
STREAM_ENTRIES_MAX: Final = 10_000
"""Roughly; each entry holds what was committed together, up to `ENTRY_TRADES_MAX` trades."""
QUEUE_TRADES_MAX: Final = 20_000
ENTRY_TRADES_MAX: Final = 500
RETRY_S: Final = (0.1, 0.5, 2.0, 5.0)
"""Seconds between attempts while Redis is away; the last one from then on."""
STOP_S: Final = 2.0
"""What is still queued when the process stops gets this long."""

_log = structlog.get_logger(__name__)


class Bus:
    """The process's way to the streams. `start` before use, `stop` at the end."""

    def __init__(self, redis: Redis | None, *, queue_trades_max: int = QUEUE_TRADES_MAX) -> None:
        self._redis = redis
        self._queue_trades_max = queue_trades_max
        self._queue: deque[Trade] = deque()
        self._wake = asyncio.Event()
        self._stopping = False
        self._sender: asyncio.Task[None] | None = None
        self.dropped = 0
        """Trades that were not told since the start."""
        self.is_up = redis is not None
        """Whether the last attempt succeeded."""

    @property
    def waiting(self) -> int:
        """Trades not yet told."""
        return len(self._queue)

    def publish_trades(self, trades: Sequence[Trade]) -> None:
        """Tell of committed trades, soon. When the queue is full the oldest are dropped: readers look them up."""
        if self._redis is None:
            self.dropped += len(trades)
            return
        self._queue.extend(trades)
        self._drop_excess()
        self._wake.set()

    def start(self) -> None:
        """Begin to tell."""
        if self._redis is not None:
            self._sender = asyncio.create_task(self._send_all(self._redis), name="bus")

    async def stop(self) -> None:
        """Tell what is queued, for two seconds at most, and end."""
        self._stopping = True
        self._wake.set()
        if self._sender is not None:
            await asyncio.wait([self._sender], timeout=STOP_S)
            self._sender.cancel()
            with suppress(asyncio.CancelledError):
                await self._sender
            self.dropped += len(self._queue)
            self._queue.clear()

    async def _send_all(self, redis: Redis) -> None:
        failures = 0
        while self._queue or not self._stopping:
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
                continue
            entry = [self._queue.popleft() for _ in range(min(len(self._queue), ENTRY_TRADES_MAX))]
            try:
                await redis.xadd(
                    TRADES_STREAM, {"trades": encode_trades(entry)}, maxlen=STREAM_ENTRIES_MAX, approximate=True
                )
            except BaseException as error:
                self._queue.extendleft(reversed(entry))
                self._drop_excess()
                if not isinstance(error, Exception):
                    raise
                if self.is_up:
                    _log.warning("bus.redis_away", error=repr(error), waiting=len(self._queue))
                self.is_up = False
                await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])
                failures += 1
            else:
                self.is_up, failures = True, 0

    def _drop_excess(self) -> None:
        while len(self._queue) > self._queue_trades_max:
            self._queue.popleft()
            self.dropped += 1


def encode_trades(trades: Sequence[Trade]) -> bytes:
    """The JSON of a stream entry: base units as text, for some do not fit into 64 bits."""
    return orjson.dumps(
        [
            {
                "id": trade.id,
                "assetId": trade.asset_id,
                "seq": trade.seq,
                "accountId": trade.account_id,
                "orderId": trade.order_id,
                "clientOrderId": trade.client_order_id,
                "side": trade.side,
                "shares": str(trade.shares),
                "gross": str(trade.gross),
                "fee": str(trade.fee),
                "supplyAfter": str(trade.supply_after),
                "marketAfter": str(trade.market_after),
                "at": isoformat(trade.at),
            }
            for trade in trades
        ]
    )
