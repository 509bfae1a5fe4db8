"""Reading what the price engine has written: ticks, candles, and where its stream stands. Nothing here decides.

Every function runs one statement, so that what it answers is of one moment; `day_stats` is in `app.pricing.stats`.
Closed candles are rows of `candles`, those that are not over stand in the asset's state: a reader sees both as one.
"""

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Final

from app.db import Connection
from app.pricing.candles import Candle, candle_of, decode_open_candles
from app.pricing.intervals import Interval, PriceKind
from app.pricing.ticks import TICKS_DROPPED, TICKS_HEAD, Tick, TickCause

if TYPE_CHECKING:
    import asyncpg

CANDLES_MAX: Final = 5_000
"""Candles that one question may ask for."""
_LIMITS: Final = (2, 500, 1_000, 2_500, CANDLES_MAX, CANDLES_MAX + 1)
"""How many rows a statement may ask for: a few numbers, so that few statements need to be prepared and planned."""
_STATE_COLUMNS: Final = (
    'asset_id, seq, "position", cause, trade_seq, at, display, market, fundamental, market_weight, volume, stale'
)
_PRICES: Final = {
    PriceKind.DISPLAY: "open, high, low, close",
    PriceKind.MARKET: "market_open AS open, market_high AS high, market_low AS low, market_close AS close",
}


# -------------------------------------------------------------------------------------------------- ticks
async def latest_ticks(*, connection: Connection, asset_ids: Collection[int]) -> dict[int, Tick]:
    """The last tick of each of these assets; one that no engine has ticked is missing."""
    rows = await connection.fetch(
        f"SELECT {_STATE_COLUMNS} FROM price_states WHERE asset_id = ANY($1::bigint[]) AND seq >= 1", list(asset_ids)
    )
    return {row["asset_id"]: _tick(row) for row in rows}


async def ticks_after(*, connection: Connection, asset_id: int, after_seq: int, limit: int) -> list[Tick]:
    """The asset's first `limit` ticks after `after_seq` that are still kept, ascending."""
    rows = await connection.fetch(
        f"SELECT {_STATE_COLUMNS} FROM ticks WHERE asset_id = $1 AND seq > $2 ORDER BY seq LIMIT {_rows(limit)}",
        asset_id,
        after_seq,
    )
    return [_tick(row) for row in rows[:limit]]


async def ticks_from_position(
    *,
    connection: Connection,
    after_position: int,
    up_to_position: int,
    asset_ids: Collection[int] | None,
    limit: int,
) -> list[Tick]:
    """The first `limit` ticks with a position in (after, up_to], ascending; with `asset_ids`, of these assets only."""
    among, parameters = "", [after_position, up_to_position, limit]
    if asset_ids is not None:
        among = "AND asset_id = ANY($4::bigint[])"
    rows = await connection.fetch(
        f'SELECT {_STATE_COLUMNS} FROM ticks WHERE "position" > $1 AND "position" <= $2 {among}'
        ' ORDER BY "position" LIMIT $3',
        *parameters,
        *([] if asset_ids is None else [list(asset_ids)]),
    )
    return [_tick(row) for row in rows]


async def tick_bounds(*, connection: Connection) -> tuple[int, int]:
    """(the oldest position from which on every tick is still kept, or the head + 1 when there is none; the head)."""
    row = await connection.fetchrow(
        'SELECT h."position" AS head, greatest(coalesce((SELECT min("position") FROM ticks), h."position" + 1),'
        ' (SELECT "position" + 1 FROM stream_heads WHERE stream = $2)) AS oldest'
        " FROM stream_heads h WHERE h.stream = $1",
        TICKS_HEAD,
        TICKS_DROPPED,
    )
    if row is None:
        raise LookupError(f"stream_heads has no row {TICKS_HEAD!r}: the database is not migrated")
    return row["oldest"], row["head"]


def _tick(row: "asyncpg.Record") -> Tick:
    return Tick(
        asset_id=row["asset_id"],
        seq=row["seq"],
        position=row["position"],
        cause=TickCause(row["cause"]),
        trade_seq=row["trade_seq"],
        at=row["at"],
        display=row["display"],
        market=row["market"],
        fundamental=row["fundamental"],
        market_weight=row["market_weight"],
        volume=row["volume"],
        stale=row["stale"],
    )


# -------------------------------------------------------------------------------------------------- candles
async def candles_before(
    *,
    connection: Connection,
    asset_id: int,
    interval: Interval,
    price: PriceKind,
    to: int,
    limit: int,
    now: int,
    since: int = 0,
) -> list[Candle]:
    """The asset's last `limit` candles (at most `CANDLES_MAX` + 1) with `since` <= time < `to`, ascending.

    `now`, `since` and `to` in seconds since 1970. Intervals without a tick have no candle.
    """
    rows = await connection.fetch(
        "SELECT NULL AS open_candles, c.* FROM ("
        f' SELECT "time", {_PRICES[price]}, volume, trades FROM candles'
        f""" WHERE asset_id = $1 AND "interval" = '{interval}' AND "time" >= $2 AND "time" < $3"""
        f' ORDER BY "time" DESC LIMIT {_rows(limit)}) c'
        " UNION ALL SELECT open_candles, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM price_states"
        " WHERE asset_id = $1 AND seq >= 1",
        asset_id,
        since,
        to,
    )
    closed = [_closed(row, asset_id, interval) for row in rows if row["open_candles"] is None]
    texts = [row["open_candles"] for row in rows if row["open_candles"] is not None]
    unfinished = [candle for text in texts for candle in _unfinished(text, asset_id, interval, price, now)]
    return _together(closed, [candle for candle in unfinished if since <= candle.time < to])[-limit:]


async def current_candles(
    *, connection: Connection, asset_ids: Collection[int], interval: Interval, price: PriceKind, now: int
) -> list[Candle]:
    """The last two candles of each of these assets, by asset and ascending. `now` in seconds since 1970."""
    rows = await connection.fetch(
        "SELECT s.asset_id, s.open_candles, c.* FROM price_states s LEFT JOIN LATERAL ("
        f' SELECT "time", {_PRICES[price]}, volume, trades FROM candles'
        f""" WHERE asset_id = s.asset_id AND "interval" = '{interval}' ORDER BY "time" DESC LIMIT 2) c ON true"""
        " WHERE s.asset_id = ANY($1::bigint[]) AND s.seq >= 1 ORDER BY s.asset_id",
        list(asset_ids),
    )
    closed: dict[int, list[Candle]] = {row["asset_id"]: [] for row in rows}
    texts: dict[int, str] = {}
    for row in rows:
        texts[row["asset_id"]] = row["open_candles"]
        if row["time"] is not None:
            closed[row["asset_id"]].append(_closed(row, row["asset_id"], interval))
    return [
        candle
        for asset_id, text in texts.items()
        for candle in _together(closed[asset_id], _unfinished(text, asset_id, interval, price, now))[-2:]
    ]


def _closed(row: "asyncpg.Record", asset_id: int, interval: Interval) -> Candle:
    return Candle(
        asset_id,
        interval,
        row["time"],
        row["open"],
        row["high"],
        row["low"],
        row["close"],
        row["volume"],
        row["trades"],
        closed=True,
    )


def _unfinished(text: str, asset_id: int, interval: Interval, price: PriceKind, now: int) -> list[Candle]:
    """The state's candles of an interval: those that no row of `candles` has. Closed once their time is over."""
    return [
        candle_of(row, price=price, closed=row.time + interval.seconds <= now)
        for row in decode_open_candles(asset_id, text)
        if row.interval is interval
    ]


def _together(closed: Iterable[Candle], unfinished: Iterable[Candle]) -> list[Candle]:
    """Ascending; should a candle be in both, it is the row that counts, which never changes again."""
    by_time = {candle.time: candle for candle in (*unfinished, *closed)}
    return [by_time[time] for time in sorted(by_time)]


def _rows(limit: int) -> int:
    if not 1 <= limit <= _LIMITS[-1]:
        raise ValueError(f"limit must be between 1 and {_LIMITS[-1]}; got {limit}")
    return next(count for count in _LIMITS if count >= limit)
