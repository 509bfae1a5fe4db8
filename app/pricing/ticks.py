"""What a tick is, and how ticks travel from the engine to its readers. Pure: no I/O, no clock."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

import orjson

from app.exchange.orders import Trade

TICKS_STREAM: Final = "megatron:ticks"
"""Redis stream. An entry holds what one transaction wrote: `ticks`, and `trades` for those that a trade caused."""
TICKS_HEAD: Final = "ticks"
"""The name of the ticks' positions in `stream_heads`."""
TICKS_DROPPED: Final = "ticks_dropped"
"""The name in `stream_heads` of the last position that retention has taken away: up to it, ticks may be missing."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class TickCause(StrEnum):
    """What made a tick."""

    OPEN = "OPEN"
    TRADE = "TRADE"
    ORACLE = "ORACLE"
    DECAY = "DECAY"


@dataclass(frozen=True, slots=True)
class Tick:
    """An asset's prices at one moment. Prices in 10^-12, `market_weight` in 10^-9, `volume` in 10^-6.

    `seq` is gapless per asset, from 1. `position` is gapless over all assets and in commit order, from 1.
    `trade_seq` is the last trade taken in; on a TRADE tick it is the trade that caused it, one tick for each trade.
    """

    asset_id: int
    seq: int
    position: int
    cause: TickCause
    trade_seq: int
    at: datetime
    display: int
    market: int
    fundamental: int
    market_weight: int
    volume: int
    stale: bool


def microseconds(at: datetime) -> int:
    """Microseconds since 1970, exactly."""
    return (at - _EPOCH) // _MICROSECOND


def instant(microseconds_: int) -> datetime:
    """The moment so many microseconds after 1970, in UTC."""
    return _EPOCH + microseconds_ * _MICROSECOND


def encode_ticks(ticks: Sequence[Tick]) -> bytes:
    """A stream entry's `ticks`: a JSON list of lists, what may not fit into 64 bits as text."""
    return orjson.dumps(
        [
            (
                tick.asset_id,
                tick.seq,
                tick.position,
                tick.cause.value,
                tick.trade_seq,
                microseconds(tick.at),
                str(tick.display),
                str(tick.market),
                str(tick.fundamental),
                tick.market_weight,
                tick.volume,
                tick.stale,
            )
            for tick in ticks
        ]
    )


def decode_ticks(data: bytes) -> list[Tick]:
    """The ticks of a stream entry. Raises ValueError when it is none."""
    try:
        return [
            Tick(
                asset_id=row[0],
                seq=row[1],
                position=row[2],
                cause=TickCause(row[3]),
                trade_seq=row[4],
                at=instant(row[5]),
                display=int(row[6]),
                market=int(row[7]),
                fundamental=int(row[8]),
                market_weight=row[9],
                volume=row[10],
                stale=row[11],
            )
            for row in orjson.loads(data)
        ]
    except (TypeError, IndexError, KeyError, OverflowError) as error:
        raise ValueError(f"no ticks: {data[:80]!r}") from error


TradeKey = tuple[int, int]
"""(asset id, trade seq)."""


def trades_of(ticks: Sequence[Tick], trades: Mapping[TradeKey, Trade]) -> list[Trade]:
    """The trades that caused `ticks`, in the ticks' order. Raises KeyError for one that is missing."""
    return [trades[tick.asset_id, tick.trade_seq] for tick in ticks if tick.cause is TickCause.TRADE]
