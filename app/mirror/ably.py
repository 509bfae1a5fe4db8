"""Ticks mirrored to Ably's channels: a thin adapter of its REST API, used only where a key is set.

Reads the stream of ticks as any reader does, and publishes what comes to the channel `megatron:SYMBOL` in batches. Best
effort: while Ably or Redis is away ticks are left out, and whoever needs each of them reads the market's own streams.
Several price workers may mirror at once: each message has the tick's own id, by which Ably tells repetitions.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import httpx
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.db import Database
from app.errors import isoformat
from app.money import MONEY_DECIMALS, RATE_DECIMALS, price_text, to_text
from app.pricing.ticks import TICKS_STREAM, Tick, decode_ticks

BLOCK_MS: Final = 400
ENTRIES_MAX: Final = 100
"""Of one read: what one request publishes at most."""
SECONDS_MAX: Final = 10.0
RETRY_SECONDS: Final = (0.5, 2.0, 10.0)
_EXCERPT: Final = 200

_log = structlog.get_logger(__name__)


class AblyMirror:
    """One mirror. `published` and `left_out` count ticks since the start."""

    def __init__(
        self, database: Database, redis: Redis, *, url: str, key: str, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """`url`: https://rest.ably.io or what speaks its protocol. `key`: NAME:SECRET, as Ably gives it."""
        name, _, secret = key.partition(":")
        self._database = database
        self._redis = redis
        self._url = url.rstrip("/")
        self._key = key
        self._client = httpx.AsyncClient(auth=(name, secret), timeout=SECONDS_MAX, trust_env=False, transport=transport)
        self.published = 0
        self.left_out = 0

    async def run(self) -> None:
        """Mirror until cancelled."""
        failures, place = 0, "$"
        try:
            while True:
                try:
                    read = await self._redis.xread({TICKS_STREAM: place}, count=ENTRIES_MAX, block=BLOCK_MS)
                    for _, entries in read:
                        place = entries[-1][0].decode()
                        await self.publish([tick for _, fields in entries for tick in decode_ticks(fields[b"ticks"])])
                    failures = 0
                except Exception as error:
                    # Redis or the database away, or an entry of another version: the next ones are mirrored again.
                    if not isinstance(error, RedisError | OSError | TimeoutError):
                        _log.warning("ably.not_mirrored", error=repr(error)[:_EXCERPT])
                    place = "$"
                    await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
                    failures += 1
        finally:
            await self._client.aclose()

    async def publish(self, ticks: Sequence[Tick]) -> None:
        """Publish these in one request; those of drafts, and all of them when Ably refuses, are left out."""
        symbols = await self._symbols({tick.asset_id for tick in ticks})
        channels: dict[str, list[dict[str, object]]] = {}
        for tick in ticks:
            if tick.asset_id in symbols:
                channels.setdefault(f"megatron:{symbols[tick.asset_id]}", []).append(_message(tick))
        count = sum(map(len, channels.values()))
        self.left_out += len(ticks) - count
        if not channels:
            return
        body = [{"channels": [channel], "messages": messages} for channel, messages in channels.items()]
        try:
            async with asyncio.timeout(SECONDS_MAX):  # httpx's own counts from byte to byte
                answer = await self._client.post(f"{self._url}/messages", json=body)
        except (httpx.HTTPError, TimeoutError) as error:
            self._lost(count, f"did not answer: {error!r}")
            return
        if answer.status_code not in (httpx.codes.OK, httpx.codes.CREATED):
            said = answer.text[:_EXCERPT].replace(self._key, "[redacted]")
            self._lost(count, f"answered {answer.status_code}: {said}")
            return
        self.published += count

    def _lost(self, count: int, why: str) -> None:
        self.left_out += count
        _log.warning("ably.not_published", ticks=count, url=self._url, why=why)

    async def _symbols(self, asset_ids: set[int]) -> dict[int, str]:
        """The symbols of these assets, but for drafts, which nobody may see. Looked up anew: a status may change."""
        async with self._database.acquire() as connection:
            rows = await connection.fetch(
                "SELECT id, symbol FROM assets WHERE id = ANY($1::bigint[]) AND status <> 'DRAFT'", list(asset_ids)
            )
        return {row["id"]: row["symbol"] for row in rows}


def _message(tick: Tick) -> dict[str, object]:
    """A tick as the API shows it."""
    return {
        "id": f"{tick.asset_id}:{tick.seq}",
        "name": "tick",
        "data": {
            "seq": tick.seq,
            "cause": tick.cause.value,
            "tradeSeq": tick.trade_seq,
            "at": isoformat(tick.at),
            "display": price_text(tick.display),
            "market": price_text(tick.market),
            "fundamental": price_text(tick.fundamental),
            "marketWeight": to_text(tick.market_weight, RATE_DECIMALS),
            "volume": to_text(tick.volume, MONEY_DECIMALS),
            "fundamentalStale": tick.stale,
        },
    }
