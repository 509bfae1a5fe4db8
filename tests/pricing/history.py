"""Histories of one's choice, as the engine leaves them: ticks, closed candles, the state with the open ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from app.db import Connection, Database
from app.money import MONEY_UNIT, PRICE_UNIT, RATE_UNIT
from app.pricing.candles import CandleRow, Folder, encode_open_candles
from app.pricing.partitions import Partitions
from app.pricing.ticks import Tick, TickCause, microseconds


@dataclass(frozen=True)
class Move:
    """What becomes a tick: a trade where it has a volume, else drift. In whole units; M is `market`, or D doubled."""

    at: datetime
    display: int
    volume: int = 0
    market: int | None = None


async def write_history(database: Database, asset_id: int, moves: Sequence[Move]) -> list[Tick]:
    """Write the asset's whole history at once; the ticks with their seqs from 1 and their positions."""
    await Partitions(database).ensure({move.at.astimezone(UTC).date() for move in moves})
    async with database.transaction() as unit:
        head: int = await unit.connection.fetchval(
            "UPDATE stream_heads SET position = position + $1 WHERE stream = 'ticks' RETURNING position", len(moves)
        )
        ticks = _ticks(asset_id, moves, head - len(moves))
        await _write(unit.connection, ticks)
    return ticks


def _ticks(asset_id: int, moves: Sequence[Move], position: int) -> list[Tick]:
    ticks: list[Tick] = []
    trades = 0
    for seq, move in enumerate(moves, 1):
        trades += move.volume > 0
        cause = TickCause.TRADE if move.volume else TickCause.OPEN if seq == 1 else TickCause.DECAY
        market = 2 * move.display if move.market is None else move.market
        ticks.append(
            Tick(
                asset_id=asset_id, seq=seq, position=position + seq, cause=cause, trade_seq=trades, at=move.at,
                display=move.display * PRICE_UNIT, market=market * PRICE_UNIT, fundamental=PRICE_UNIT,
                market_weight=RATE_UNIT // 2, volume=move.volume * MONEY_UNIT, stale=False,
            )
        )  # fmt: skip
    return ticks


async def _write(connection: Connection, ticks: Sequence[Tick]) -> None:
    last = ticks[-1]
    opened, closed = folded(ticks)
    await connection.executemany(
        "INSERT INTO ticks VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)", [_row(tick) for tick in ticks]
    )
    await connection.executemany(
        "INSERT INTO candles VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        [(row.asset_id, row.interval.value, *row[2:]) for row in closed],
    )
    await connection.execute(
        "INSERT INTO price_states (asset_id, seq, position, cause, trade_seq, at, display, market, fundamental,"
        " market_weight, volume, stale, recent_volume_at, open_candles)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $6, $13)"
        " ON CONFLICT (asset_id) DO UPDATE SET seq = excluded.seq, position = excluded.position,"
        " cause = excluded.cause, trade_seq = excluded.trade_seq, at = excluded.at, display = excluded.display,"
        " market = excluded.market, fundamental = excluded.fundamental, market_weight = excluded.market_weight,"
        " volume = excluded.volume, stale = excluded.stale, open_candles = excluded.open_candles",
        *_row(last), encode_open_candles(opened),
    )  # fmt: skip


def folded(ticks: Sequence[Tick]) -> tuple[Sequence[CandleRow], Sequence[CandleRow]]:
    """The candles of a whole history: those that are open at its end, and those that are closed."""
    folder = Folder(ticks[0].asset_id, ())
    for tick in ticks:
        folder.add(
            microseconds(tick.at) // 10**6,
            display=tick.display,
            market=tick.market,
            volume=tick.volume,
            trades=1 if tick.cause is TickCause.TRADE else 0,
        )
    return folder.finish()


def _row(tick: Tick) -> tuple[object, ...]:
    return (
        tick.asset_id, tick.seq, tick.position, tick.cause.value, tick.trade_seq, tick.at, tick.display, tick.market,
        tick.fundamental, tick.market_weight, tick.volume, tick.stale,
    )  # fmt: skip


def every(seconds: float, begin: datetime, displays: Sequence[int], *, volume: int = 0) -> list[Move]:
    """A move to each of `displays`, one every so many seconds."""
    return [Move(begin + number * timedelta(seconds=seconds), each, volume) for number, each in enumerate(displays)]
