"""The replays of bundled series (table `series_replays`): where each stands, what it is worth, and moving them on.

A replay moves by its speed while it is read, and stands still while nobody reads it: of the time between two readings
no more than the caller's `step_ms_max` counts. Reading moves nothing; the moves are stored with the reading's report.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Final

from app.db import Connection
from app.money import div_half_even
from app.oracle.configuration import FeedConfiguration
from app.oracle.feeds import FeedAnswer, FeedFailed
from app.oracle.series import Series, load_series, natural_speed

VALUE_DECIMALS: Final = 18
"""Of the text of a value that no decimal can say exactly."""
_MILLISECOND: Final = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class ReplayMove:
    """Where a replay is to stand from `advanced_at` on, provided that it was last moved at `was`."""

    asset_id: int
    series: str
    column: str
    position_ms: int
    advanced_at: datetime
    was: datetime


def step_ms(*, advanced_at: datetime, at: datetime, step_ms_max: int) -> int:
    """Real milliseconds that count since the position was stored: 0 to `step_ms_max`."""
    return min(max((at - advanced_at) // _MILLISECOND, 0), step_ms_max)


def moved_to(*, advanced_at: datetime, at: datetime, counted_ms: int) -> datetime:
    """The moment that a position moved by `counted_ms` belongs to.

    What is left of a millisecond counts next time; a stop, or a clock that was set back, does not.
    """
    exact = advanced_at + counted_ms * _MILLISECOND
    return exact if timedelta(0) <= at - exact < _MILLISECOND else at


def value_text(value: Fraction) -> str:
    """`value` as plain decimal text: exact where that takes 18 decimals or fewer, else rounded half-even to 18."""
    units = div_half_even(value.numerator * 10**VALUE_DECIMALS, value.denominator)
    whole, fraction = divmod(abs(units), 10**VALUE_DECIMALS)
    decimals = f"{fraction:0{VALUE_DECIMALS}}".rstrip("0")
    return f"{'-' if units < 0 else ''}{whole}{'.' if decimals else ''}{decimals}"


async def replayed(
    *, connection: Connection, asset_id: int, feed: FeedConfiguration, at: datetime, step_ms_max: int
) -> tuple[FeedAnswer, ReplayMove]:
    """What the asset's replay of `feed` is worth at `at`, and the move that belongs to it, which is not made here.

    Raises `FeedFailed` when no such replay was started, `UnknownSeries` when no such series is bundled.
    """
    series = load_series(feed.series or "", feed.column or "")
    row = await connection.fetchrow(
        "SELECT speed, position_ms, advanced_at FROM series_replays"
        ' WHERE asset_id = $1 AND series = $2 AND "column" = $3',
        asset_id,
        series.name,
        series.column,
    )
    if row is None:
        raise FeedFailed(f"{feed.source}: no replay of it was started for the asset {asset_id}: configure it again")
    counted_ms = step_ms(advanced_at=row["advanced_at"], at=at, step_ms_max=step_ms_max)
    position_ms = (row["position_ms"] + row["speed"] * counted_ms) % series.period_ms
    move = ReplayMove(
        asset_id=asset_id,
        series=series.name,
        column=series.column,
        position_ms=position_ms,
        advanced_at=moved_to(advanced_at=row["advanced_at"], at=at, counted_ms=counted_ms),
        was=row["advanced_at"],
    )
    value = value_text(series.value_at(position_ms))
    excerpt = f"{value} at {_moment(series, position_ms)}, {_neighbours(series, position_ms)}"
    return FeedAnswer(value, excerpt, feed.source, at), move


async def move_replays(*, connection: Connection, moves: Sequence[ReplayMove]) -> None:
    """Make the moves, but for those whose replay somebody else has moved since it was read."""
    if not moves:
        return
    await connection.execute(
        "UPDATE series_replays r SET position_ms = m.position_ms, advanced_at = m.advanced_at"
        " FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::timestamptz[], $6::timestamptz[])"
        ' m (asset_id, series, "column", position_ms, advanced_at, was)'
        ' WHERE r.asset_id = m.asset_id AND r.series = m.series AND r."column" = m."column" AND r.advanced_at = m.was',
        [move.asset_id for move in moves],
        [move.series for move in moves],
        [move.column for move in moves],
        [move.position_ms for move in moves],
        [move.advanced_at for move in moves],
        [move.was for move in moves],
    )


async def start_replay(
    *, connection: Connection, asset_id: int, series: str, column: str, speed_factor: Decimal, at: datetime
) -> None:
    """Let the asset follow `column` of `series` from its beginning, `speed_factor` times as fast as usual.

    A replay that is there goes on from where it stands, at the speed asked for. Raises `UnknownSeries`.
    """
    load_series(series, column)
    speed = max(1, int(natural_speed(series) * speed_factor))
    await connection.execute(
        'INSERT INTO series_replays AS r (asset_id, series, "column", speed, position_ms, advanced_at)'
        " VALUES ($1, $2, $3, $4, 0, $5)"
        ' ON CONFLICT (asset_id, series, "column") DO UPDATE SET speed = excluded.speed'
        " WHERE r.speed <> excluded.speed",
        asset_id,
        series,
        column,
        speed,
        at,
    )


def _moment(series: Series, position_ms: int) -> str:
    return (series.began.astimezone(UTC) + series.time_at(position_ms) * _MILLISECOND).strftime("%Y-%m-%dT%H:%M:%SZ")


def _neighbours(series: Series, position_ms: int) -> str:
    """The two published points that the value lies between."""
    (before_ms, before), (after_ms, after) = series.points_around(position_ms)
    days = [(series.began + time_ms * _MILLISECOND).strftime("%Y-%m-%d") for time_ms in (before_ms, after_ms)]
    return f"between {value_text(before)} on {days[0]} and {value_text(after)} on {days[1]}"
