"""The bus: what has happened, told to other processes through Redis streams after it has been committed.

PostgreSQL is the truth. What is lost here (Redis away, a full queue, a crash) readers find there by sequence, so
telling never blocks, never raises and never holds up a trade. Within a stream the order is kept; after a failure an
entry may come twice, never out of turn. What an entry says stands here for trades and changes, elsewhere for the rest.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import orjson
import structlog
from redis.asyncio import Redis
from redis.typing import EncodableT, FieldT

from app.errors import isoformat
from app.exchange.orders import Side, Trade
from app.tasks import end

TRADES_STREAM: Final = "megatron:trades"
"""Entries `{"trades": [...]}`: JSON, trades of several assets, each asset's in order of its seq, base units."""
CHANGES_STREAM: Final = "megatron:changes"
"""Entries `{"changes": ...}` of `encode_changes`: whose events, which assets and whose reports to look up again."""
STREAM_ENTRIES_MAX: Final = 2_000
"""In each stream, roughly; an entry holds what was committed together. Who is further behind asks PostgreSQL."""
QUEUE_TRADES_MAX: Final = 20_000
QUEUE_ENTRIES_MAX: Final = 2_000
"""Entries of other streams; with `QUEUE_BYTES_MAX`, whichever is reached first."""
QUEUE_BYTES_MAX: Final = 32 * 2**20
QUEUE_CHANGES_MAX: Final = 50_000
"""Accounts, and as many assets, once for themselves and once for their oracles' reports."""
ENTRY_TRADES_MAX: Final = 500
TURN_ENTRIES_MAX: Final = 64
"""Sent together; what has come meanwhile is sent in the next turn."""
RETRY_S: Final = (0.1, 0.5, 2.0, 5.0)
"""Seconds between attempts while Redis is away; the last one from then on."""
STOP_S: Final = 2.0
"""What is still queued when the process stops gets this long."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Changes:
    """Accounts that have new events, assets that were made or changed, and assets whose oracle has reported: ids."""

    accounts: Sequence[int]
    assets: Sequence[int]
    reports: Sequence[int] = field(default_factory=list)


@dataclass(slots=True)
class _Turn:
    """What is sent together."""

    trades: list[Trade]
    entries: list[tuple[str, Mapping[str, bytes]]]
    accounts: dict[int, None]
    assets: dict[int, None]
    reports: dict[int, None]

    def messages(self) -> list[tuple[str, Mapping[str, bytes]]]:
        """The stream entries, trades first: the price engine waits for them."""
        messages = list(self.entries)
        if self.trades:
            messages.insert(0, (TRADES_STREAM, {"trades": encode_trades(self.trades)}))
        if self.accounts or self.assets or self.reports:
            changes = encode_changes(accounts=self.accounts, assets=self.assets, reports=self.reports)
            messages.append((CHANGES_STREAM, {"changes": changes}))
        return messages


class Bus:
    """The process's way to the streams. `start` before use, `stop` at the end.

    What waits is gathered: trades into entries of many, changes into one, and all of it into one round trip.
    """

    def __init__(self, redis: Redis | None, *, queue_trades_max: int = QUEUE_TRADES_MAX) -> None:
        self._redis = redis
        self._queue_trades_max = queue_trades_max
        self._trades: deque[Trade] = deque()
        self._entries: deque[tuple[str, Mapping[str, bytes]]] = deque()
        self._bytes = 0
        # Ordered sets: whoever has changed twice is told of once.
        self._accounts: dict[int, None] = {}
        self._assets: dict[int, None] = {}
        self._reports: dict[int, None] = {}
        self._wake = asyncio.Event()
        self._stopping = False
        self._sender: asyncio.Task[None] | None = None
        self.dropped = 0
        """Trades, entries and changes that were not told since the start."""
        self.is_up = redis is not None
        """Whether the last attempt succeeded."""

    @property
    def waiting(self) -> int:
        """Trades, entries and changes not yet told."""
        return len(self._trades) + len(self._entries) + sum(map(len, self._changes))

    @property
    def _changes(self) -> tuple[dict[int, None], ...]:
        return self._accounts, self._assets, self._reports

    def publish_trades(self, trades: Sequence[Trade]) -> None:
        """Tell of committed trades, soon. When the queue is full the oldest are dropped: readers look them up."""
        self._trades.extend(trades)
        self._queued()

    def publish_changes(
        self, *, accounts: Collection[int] = (), assets: Collection[int] = (), reports: Collection[int] = ()
    ) -> None:
        """Tell, soon, that these accounts have new events, that these assets were made or changed, and that there are
        new reports of the oracles of the assets `reports`."""
        self._accounts.update(dict.fromkeys(accounts))
        self._assets.update(dict.fromkeys(assets))
        self._reports.update(dict.fromkeys(reports))
        self._queued()

    def publish(self, stream: str, fields: Mapping[str, bytes]) -> None:
        """Append an entry to `stream`, soon. When the queue is full the oldest entries are dropped."""
        self._entries.append((stream, fields))
        self._bytes += _size(fields)
        self._queued()

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
            await end([self._sender])
        self._drop_all()

    async def _send_all(self, redis: Redis) -> None:
        failures = 0
        while self.waiting or not self._stopping:
            if not self.waiting:
                self._wake.clear()
                await self._wake.wait()
                continue
            turn = self._take()
            try:
                await _send(redis, turn.messages())
            except BaseException as error:
                self._put_back(turn)
                if not isinstance(error, Exception):
                    raise
                if self.is_up:
                    _log.warning("bus.redis_away", error=repr(error), waiting=self.waiting)
                self.is_up = False
                await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])
                failures += 1
            else:
                self.is_up, failures = True, 0

    # ------------------------------------------------------------------------------------------------ the queue

    def _queued(self) -> None:
        if self._redis is None:
            self._drop_all()
            return
        self._drop_excess()
        self._wake.set()

    def _take(self) -> _Turn:
        trades = [self._trades.popleft() for _ in range(min(len(self._trades), ENTRY_TRADES_MAX))]
        entries = [self._entries.popleft() for _ in range(min(len(self._entries), TURN_ENTRIES_MAX))]
        self._bytes -= sum(_size(fields) for _, fields in entries)
        turn = _Turn(trades, entries, *self._changes)
        self._accounts, self._assets, self._reports = {}, {}, {}
        return turn

    def _put_back(self, turn: _Turn) -> None:
        self._trades.extendleft(reversed(turn.trades))
        self._entries.extendleft(reversed(turn.entries))
        self._bytes += sum(_size(fields) for _, fields in turn.entries)
        self._accounts = turn.accounts | self._accounts
        self._assets = turn.assets | self._assets
        self._reports = turn.reports | self._reports
        self._drop_excess()

    def _drop_excess(self) -> None:
        while len(self._trades) > self._queue_trades_max:
            self._trades.popleft()
            self.dropped += 1
        while len(self._entries) > QUEUE_ENTRIES_MAX or (self._bytes > QUEUE_BYTES_MAX and self._entries):
            _, fields = self._entries.popleft()
            self._bytes -= _size(fields)
            self.dropped += 1
        for changed in self._changes:
            while len(changed) > QUEUE_CHANGES_MAX:
                del changed[next(iter(changed))]
                self.dropped += 1

    def _drop_all(self) -> None:
        self.dropped += self.waiting
        self._trades.clear()
        self._entries.clear()
        for changed in self._changes:
            changed.clear()
        self._bytes = 0


async def _send(redis: Redis, messages: Sequence[tuple[str, Mapping[str, bytes]]]) -> None:
    """Append all of `messages`, in their order and in one round trip. Raises when any of them was refused."""
    pipeline = redis.pipeline(transaction=False)
    for stream, fields in messages:
        entry: dict[FieldT, EncodableT] = {name: value for name, value in fields.items()}  # noqa: C416 - to widen the type
        pipeline.xadd(stream, entry, maxlen=STREAM_ENTRIES_MAX, approximate=True)
    await pipeline.execute()


def _size(fields: Mapping[str, bytes]) -> int:
    return sum(len(name) + len(value) for name, value in fields.items())


# ---------------------------------------------------------------------------------------------------- what entries say


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
                "transferId": trade.transfer_id,
                "at": isoformat(trade.at),
            }
            for trade in trades
        ]
    )


def decode_trades(data: bytes) -> list[Trade]:
    """The trades of `encode_trades`. Raises ValueError when they are none."""
    try:
        return [
            Trade(
                id=row["id"],
                asset_id=row["assetId"],
                seq=row["seq"],
                account_id=row["accountId"],
                order_id=row["orderId"],
                client_order_id=row["clientOrderId"],
                side=Side(row["side"]),
                shares=int(row["shares"]),
                gross=int(row["gross"]),
                fee=int(row["fee"]),
                supply_after=int(row["supplyAfter"]),
                market_after=int(row["marketAfter"]),
                transfer_id=row["transferId"],
                at=datetime.fromisoformat(row["at"]),
            )
            for row in orjson.loads(data)
        ]
    except (TypeError, KeyError) as error:
        raise ValueError(f"no trades: {data[:80]!r}") from error


def encode_changes(
    *, accounts: Collection[int] = (), assets: Collection[int] = (), reports: Collection[int] = ()
) -> bytes:
    """The JSON of a `megatron:changes` entry: ids of accounts, of assets, and of assets whose oracle has reported."""
    return orjson.dumps({"accounts": list(accounts), "assets": list(assets), "reports": list(reports)})


def decode_changes(data: bytes) -> Changes:
    """What `encode_changes` was given. Raises ValueError when it is nothing of the kind."""
    try:
        changes = orjson.loads(data)
        # An entry of a process that knew nothing of reports has none.
        told = changes["accounts"], changes["assets"], changes.get("reports", [])
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"no changes: {data[:80]!r}") from error
    if not all(isinstance(ids, list) and all(isinstance(each, int) for each in ids) for ids in told):
        raise ValueError(f"no changes: {data[:80]!r}")
    return Changes(*told)
