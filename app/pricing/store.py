"""The engine's states and what it writes: loaded by their owner, and written under the owner's fence, all or nothing.

What a tick is worth is not known here (`engine`), nor who owns which asset (the claims).
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import accumulate
from typing import Final

import asyncpg

from app.copying import copy_rows, copy_text
from app.db import Connection, Database
from app.pricing.candles import CandleRow, decode_open_candles, encode_open_candles
from app.pricing.engine import AssetState, Step
from app.pricing.model import ModelState, Parameters, opening
from app.pricing.partitions import Partitions
from app.pricing.ticks import TICKS_HEAD, Tick, TickCause, instant, microseconds

STATEMENT_ROWS_MAX: Final = 200
"""So many ticks and candles go with the states in one statement (half a millisecond for one tick), more of them by COPY
(a third of the time for each, and four round trips more)."""


class Fenced(Exception):  # noqa: N818
    """Somebody else writes some of these assets by now: nothing has been written. Drop them and read them again."""

    def __init__(self, asset_ids: Collection[int]) -> None:
        super().__init__(
            f"assets {sorted(asset_ids)} have another owner or another last tick: nothing was written; "
            "drop these and read them again"
        )
        self.asset_ids = frozenset(asset_ids)


@dataclass(frozen=True, slots=True)
class Loaded:
    """An asset's state and its parameters as they stand."""

    state: AssetState
    parameters: Parameters


_PARAMETERS: Final = "a.base_price, a.fundamental_weight, a.volume_scale, a.volume_half_life_seconds"
_LOAD: Final = (
    f"SELECT s.*, a.created_at, {_PARAMETERS}, coalesce(t.supply_after, 0) AS supply"
    " FROM price_states s JOIN assets a ON a.id = s.asset_id"
    " LEFT JOIN trades t ON t.asset_id = s.asset_id AND t.seq = s.trade_seq"
    " WHERE s.owner_id = $1 AND ($2::bigint[] IS NULL OR s.asset_id = ANY($2::bigint[])) ORDER BY s.asset_id"
)

_MINE: Final = (
    ("asset_id", "bigint"),
    ("before", "bigint"),
    ("place", "bigint"),
    ("seq", "bigint"),
    ("cause", "text"),
    ("trade_seq", "bigint"),
    ("oracle_seq", "bigint"),
    ("at", "timestamptz"),
    ("display", "numeric"),
    ("market", "numeric"),
    ("fundamental", "numeric"),
    ("market_weight", "bigint"),
    ("volume", "bigint"),
    ("stale", "boolean"),
    ("recent_volume", "numeric"),
    ("recent_volume_at", "timestamptz"),
    ("reading_at", "timestamptz"),
    ("cadence_seconds", "int"),
    ("fresh_seconds", "int"),
    ("open_candles", "text"),
)

_TICK: Final = (
    ("asset_id", "bigint"),
    ("seq", "bigint"),
    ("cause", "text"),
    ("trade_seq", "bigint"),
    ("at", "timestamptz"),
    ("display", "numeric"),
    ("market", "numeric"),
    ("fundamental", "numeric"),
    ("market_weight", "bigint"),
    ("volume", "bigint"),
    ("stale", "boolean"),
)
_CANDLE: Final = tuple(
    (name, {"interval": "text"}.get(name, "bigint" if name in ("asset_id", "time", "trades") else "numeric"))
    for name in CandleRow._fields
)
_TAKEN: Final = (("asset_id", "bigint"), ("seq", "bigint"), ("fundamental", "numeric"))


def _unnest(columns: Sequence[tuple[str, str]], *, after: int) -> str:
    """unnest($n::type[], ...) of the parameters after number `after`."""
    return "unnest(" + ", ".join(f"${number}::{kind}[]" for number, (_, kind) in enumerate(columns, after + 1)) + ")"


def _names(columns: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f'"{name}"' for name, _ in columns)


_COPIED: Final = ("position", *(name for name, _ in _TICK))

_LOCK: Final = (
    "SELECT s.asset_id FROM price_states s JOIN unnest($2::bigint[], $3::bigint[]) AS m (asset_id, before)"
    " ON m.asset_id = s.asset_id WHERE s.owner_id = $1 AND s.seq = m.before"
    " ORDER BY s.asset_id FOR NO KEY UPDATE OF s"
)
_WRITE: Final = f"""
WITH mine AS (
    SELECT * FROM {_unnest(_MINE, after=2)} AS m ({_names(_MINE)})
), locked AS (
    SELECT s.asset_id FROM price_states s JOIN mine m ON m.asset_id = s.asset_id
    WHERE s.owner_id = $1 AND s.seq = m.before ORDER BY s.asset_id FOR NO KEY UPDATE OF s
), head AS (
    UPDATE stream_heads SET position = position + $2
    WHERE stream = '{TICKS_HEAD}' AND (SELECT count(*) FROM locked) = (SELECT count(*) FROM mine)
    RETURNING position - $2 AS base
), moved AS (
    UPDATE price_states s SET position = head.base + m.place, {", ".join(f"{n} = m.{n}" for n, _ in _MINE[3:])}
    FROM mine m, head WHERE s.asset_id = m.asset_id AND s.owner_id = $1 AND s.seq = m.before
), written AS (
    INSERT INTO ticks (position, {_names(_TICK)})
    SELECT head.base + t.number, {_names(_TICK)}
    FROM {_unnest(_TICK, after=2 + len(_MINE))} WITH ORDINALITY AS t ({_names(_TICK)}, number), head
), closed AS (
    INSERT INTO candles ({_names(_CANDLE)})
    SELECT {_names(_CANDLE)}
    FROM {_unnest(_CANDLE, after=2 + len(_MINE) + len(_TICK))} AS c ({_names(_CANDLE)}), head
), taken AS (
    UPDATE oracle_events e SET fundamental_after = k.fundamental
    FROM {_unnest(_TAKEN, after=2 + len(_MINE) + len(_TICK) + len(_CANDLE))} AS k ({_names(_TAKEN)}), head
    WHERE e.asset_id = k.asset_id AND e.seq = k.seq
)
SELECT (SELECT base FROM head) AS base, ARRAY(SELECT asset_id FROM locked) AS locked
"""


async def load_states(
    *, connection: Connection, owner_id: int, asset_ids: Collection[int] | None = None
) -> list[Loaded]:
    """The assets that `owner_id` owns (of `asset_ids`, when given), by id. One statement."""
    rows = await connection.fetch(_LOAD, owner_id, None if asset_ids is None else list(asset_ids))
    return [_loaded(row) for row in rows]


async def load_parameters(*, connection: Connection, asset_ids: Collection[int]) -> dict[int, Parameters]:
    """The parameters of assets as they stand, by id; missing where there is no such asset."""
    rows = await connection.fetch(
        f"SELECT a.id, {_PARAMETERS} FROM assets a WHERE a.id = ANY($1::bigint[])", list(asset_ids)
    )
    return {row["id"]: _parameters(row) for row in rows}


class Store:
    """Writes steps. One per process: it knows the partitions that exist."""

    def __init__(self, database: Database) -> None:
        self._partitions = Partitions(database)

    async def write(self, *, connection: Connection, owner_id: int, steps: Sequence[Step]) -> list[Tick]:
        """Write what came of these assets (each at most once; those without ticks are passed over) in one transaction.

        `connection` is in no transaction; keep one for all writes, which spares every write the pool's round trips.
        Returns all ticks with their positions, contiguous, in the order of `steps`: what is to be published. Raises
        `Fenced`, having written nothing. When it is cancelled or the connection lost, whether it was written is
        unknown, but never in part: load the states again.
        """
        steps = [step for step in steps if step.ticks]
        ticks = [tick for step in steps for tick in step.ticks]
        if not ticks:
            return []
        days = _days(steps)
        await self._partitions.ensure(days)
        try:
            base = await _write(connection, owner_id, steps, ticks)
        except asyncpg.CheckViolationError as error:
            if error.constraint_name is not None:
                raise
            # No constraint of ours: a partition that was known is gone.
            self._partitions.forget()
            await self._partitions.ensure(days)
            base = await _write(connection, owner_id, steps, ticks)
        return [_placed(tick, position) for position, tick in enumerate(ticks, base + 1)]


def _days(steps: Sequence[Step]) -> set[date]:
    """The UTC days of the steps' ticks and of the seconds that they close."""
    days: set[date] = set()
    for step in steps:
        first, last = _day(step.before.at), _day(step.ticks[-1].at)
        days.update((first, last) if first == last else (first, *(_day(tick.at) for tick in step.ticks)))
    return days


def _day(at: datetime) -> date:
    return at.astimezone(UTC).date()


async def _write(connection: Connection, owner_id: int, steps: Sequence[Step], ticks: Sequence[Tick]) -> int:
    """Write it all; returns the position before the first tick's."""
    closed = [row for step in steps for row in step.closed]
    if len(ticks) + len(closed) <= STATEMENT_ROWS_MAX:
        return await _move(connection, owner_id, steps, ticks=ticks, closed=closed, count=len(ticks))
    # Everything that can be made before the head is locked is: from then on until the commit no other worker writes.
    lines = [_tick_line(tick) for tick in ticks]
    async with connection.transaction():
        await _lock(connection, owner_id, steps)
        await copy_rows(connection, table="candles", columns=CandleRow._fields, rows=closed)
        base = await _move(connection, owner_id, steps, ticks=(), closed=(), count=len(ticks))
        text = "".join([f"{position}\t{line}" for position, line in enumerate(lines, base + 1)])
        await copy_text(connection, table="ticks", columns=_COPIED, text=text)
    return base


async def _move(
    connection: Connection,
    owner_id: int,
    steps: Sequence[Step],
    *,
    ticks: Sequence[Tick],
    closed: Sequence[CandleRow],
    count: int,
) -> int:
    """Move the states and the head by `count` ticks, and write these rows, in one statement, all or nothing."""
    places = accumulate(len(step.ticks) for step in steps)
    row = await connection.fetchrow(
        _WRITE,
        owner_id,
        count,
        *_columns([_state_row(step, place) for step, place in zip(steps, places, strict=True)], _MINE),
        *_columns([_tick_row(tick) for tick in ticks], _TICK),
        *_columns(closed, _CANDLE),
        *_columns(_taken_rows(steps), _TAKEN),
    )
    if row is None or row["base"] is None:
        raise Fenced({step.before.asset_id for step in steps} - set(row["locked"] if row else ()))
    base: int = row["base"]
    return base


async def _lock(connection: Connection, owner_id: int, steps: Sequence[Step]) -> None:
    """The states first, and by id, as everywhere; what this transaction writes besides is theirs."""
    mine = [(step.before.asset_id, step.before.seq) for step in steps]
    locked = await connection.fetch(_LOCK, owner_id, *zip(*mine, strict=True))
    if len(locked) < len(mine):
        raise Fenced({asset_id for asset_id, _ in mine} - {row["asset_id"] for row in locked})


def _tick_line(tick: Tick) -> str:
    """A tick as COPY takes it, from the column after its position on. Nothing in it needs escaping."""
    return (
        f"{tick.asset_id}\t{tick.seq}\t{tick.cause.value}\t{tick.trade_seq}\t{tick.at.isoformat()}\t{tick.display}\t"
        f"{tick.market}\t{tick.fundamental}\t{tick.market_weight}\t{tick.volume}\t{'t' if tick.stale else 'f'}\n"
    )


def _columns(rows: Sequence[tuple[object, ...]], columns: Sequence[tuple[str, str]]) -> Iterable[Sequence[object]]:
    return zip(*rows, strict=True) if rows else [()] * len(columns)


def _state_row(step: Step, place: int) -> tuple[object, ...]:
    tick, state, model = step.ticks[-1], step.after, step.after.model
    return (
        tick.asset_id,
        step.before.seq,
        place,
        tick.seq,
        tick.cause.value,
        tick.trade_seq,
        state.oracle_seq,
        tick.at,
        tick.display,
        tick.market,
        tick.fundamental,
        tick.market_weight,
        tick.volume,
        tick.stale,
        model.recent_volume,
        instant(model.recent_volume_at),
        None if model.reading_at is None else instant(model.reading_at),
        None if model.reading_at is None else model.cadence_seconds,
        None if model.reading_at is None else model.fresh_seconds,
        encode_open_candles(state.open_candles),
    )


def _tick_row(tick: Tick) -> tuple[object, ...]:
    return (
        tick.asset_id,
        tick.seq,
        tick.cause.value,
        tick.trade_seq,
        tick.at,
        tick.display,
        tick.market,
        tick.fundamental,
        tick.market_weight,
        tick.volume,
        tick.stale,
    )


def _taken_rows(steps: Sequence[Step]) -> list[tuple[int, int, int]]:
    """Each oracle event that was taken in, and F after it: events are gapless, and each made one tick."""
    return [
        (step.before.asset_id, seq, tick.fundamental)
        for step in steps
        if step.after.oracle_seq > step.before.oracle_seq
        for seq, tick in enumerate(
            (tick for tick in step.ticks if tick.cause is TickCause.ORACLE), step.before.oracle_seq + 1
        )
    ]


def _placed(tick: Tick, position: int) -> Tick:
    return Tick(
        tick.asset_id,
        tick.seq,
        position,
        tick.cause,
        tick.trade_seq,
        tick.at,
        tick.display,
        tick.market,
        tick.fundamental,
        tick.market_weight,
        tick.volume,
        tick.stale,
    )


def _parameters(row: asyncpg.Record) -> Parameters:
    return Parameters(
        row["base_price"], row["fundamental_weight"], row["volume_scale"], row["volume_half_life_seconds"]
    )


def _loaded(row: asyncpg.Record) -> Loaded:
    parameters = _parameters(row)
    asset_id: int = row["asset_id"]
    if row["seq"] == 0:
        model = opening(parameters, at=microseconds(row["created_at"]))
        return Loaded(AssetState(asset_id, row["created_at"], None, 0, model, ()), parameters)
    model = ModelState(
        row["market"],
        row["supply"],
        row["fundamental"],
        None if row["reading_at"] is None else microseconds(row["reading_at"]),
        row["cadence_seconds"] or 0,
        row["fresh_seconds"] or 0,
        row["recent_volume"],
        microseconds(row["recent_volume_at"]),
    )
    tick = Tick(
        asset_id,
        row["seq"],
        row["position"],
        TickCause(row["cause"]),
        row["trade_seq"],
        row["at"],
        row["display"],
        row["market"],
        row["fundamental"],
        row["market_weight"],
        row["volume"],
        row["stale"],
    )
    open_candles = decode_open_candles(asset_id, row["open_candles"])
    return Loaded(AssetState(asset_id, row["created_at"], tick, row["oracle_seq"], model, open_candles), parameters)
