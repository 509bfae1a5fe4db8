"""What the board knows and how it is drawn. No I/O, no clock: what time it is comes in.

Prices are the API's own digits, cut for display and never rounded.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from megatron_client import Tick, Ticker

POINTS_MAX: Final = 24
"""Prices in a sparkline."""
BARS: Final = "▁▂▃▄▅▆▇█"
WIDE: Final = 136
"""Columns from which names are shown."""
MEDIUM: Final = 104
"""Columns from which volume and weight are shown."""
NARROW: Final = 84
"""Columns below which sparklines are short."""
POINTS_NARROW: Final = 16
FRAME_LINES: Final = 7
"""Lines that are no assets."""
_UP, _DOWN, _SAME = "green", "red", "default"


@dataclass(slots=True)
class Row:
    """An asset. `moved` is the sign of D's last change; `points` are its last values, the oldest first."""

    ticker: Ticker
    tick: Tick
    moved: int = 0
    points: deque[Decimal] = field(default_factory=lambda: deque(maxlen=POINTS_MAX))


@dataclass(frozen=True, slots=True)
class Status:
    """How the board stands with the API: `trouble` says why there is no connection."""

    url: str
    is_open: bool
    trouble: str = ""
    attempts: int = 0


class Board:
    """The assets by id."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def take_ticker(self, ticker: Ticker) -> None:
        """An asset's last 24 hours, and its prices unless a newer tick is known."""
        row = self.rows.get(ticker.id)
        if row is None:
            self.rows[ticker.id] = Row(ticker, ticker.price)
        else:
            row.ticker = ticker
            self.take_tick(ticker.price)

    def take_points(self, asset_id: str, prices: Iterable[Decimal]) -> None:
        """What D was before, the oldest first."""
        if (row := self.rows.get(asset_id)) is not None:
            row.points.extendleft(reversed(list(prices)[: POINTS_MAX - len(row.points)]))

    def take_tick(self, tick: Tick) -> bool:
        """The newest prices of an asset; false where it is not on the board yet."""
        row = self.rows.get(tick.asset_id)
        if row is None:
            return False
        if tick.seq > row.tick.seq:
            row.moved = (tick.display > row.tick.display) - (tick.display < row.tick.display)
            row.tick = tick
        if not row.points or row.points[-1] != row.tick.display:
            row.points.append(row.tick.display)
        return True

    def draw(self, *, status: Status, now: datetime, width: int, height: int | None = None) -> Group:
        """The board for a terminal of this size, at the server's time `now`. `height` None draws all rows."""
        rows = sorted(self.rows.values(), key=lambda row: row.ticker.symbol)
        room = len(rows) if height is None else max(1, height - FRAME_LINES)
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
        columns = ["asset"] + ["tracks"] * (width >= WIDE) + ["D", "M", "F", "24 h"]
        columns += ["volume 24 h", "w"] * (width >= MEDIUM) + ["trend", "tick"]
        for name in columns:
            left = name in ("asset", "tracks", "trend")
            table.add_column(name, justify="left" if left else "right", no_wrap=True, overflow="ellipsis")
        for row in rows[:room]:
            cells = _cells(row, now, points=POINTS_MAX if width >= NARROW else POINTS_NARROW)
            table.add_row(*(cells[name] for name in columns))
        lines: list[Text | Table] = [_status_line(status), table]
        if len(rows) > room:
            lines.append(Text(f"... and {len(rows) - room} more: a taller window shows them", style="dim"))
        return Group(*lines, _legend())


def _cells(row: Row, now: datetime, *, points: int) -> dict[str, Text]:
    tick, ticker = row.tick, row.ticker
    moved = {1: _UP, -1: _DOWN, 0: _SAME}[row.moved]
    change = change_percent(tick.display, ticker.stats_24h.open)
    volume = f"{cut(ticker.stats_24h.volume, 0, group=True)} {ticker.quote_currency}"
    age = now - tick.at
    trend = list(row.points)[-points:]
    status = "" if ticker.status == "OPEN" else f" {ticker.status.lower()}"
    return {
        "asset": Text.assemble((ticker.symbol, "bold cyan"), (status, "yellow")),
        "tracks": Text(ticker.name, style="dim"),
        "D": Text(price_text(tick.display), style=f"bold {moved}"),
        "M": Text(price_text(tick.market)),
        "F": Text(price_text(tick.fundamental) + "?" * tick.fundamental_stale, style="yellow" * tick.fundamental_stale),
        "24 h": Text(f"{change:+.2f} %", style=_UP if change > 0 else _DOWN if change < 0 else _SAME),
        "volume 24 h": Text(volume),
        "w": Text(cut(tick.market_weight, 2)),
        "trend": Text(sparkline(trend).ljust(points), style=_trend_style(trend)),
        "tick": Text(age_text(age), style="dim" if age > timedelta(seconds=30) else ""),
    }


def _status_line(status: Status) -> Text:
    if status.is_open:
        return Text.assemble(("● ", "green"), ("live ", "bold green"), (status.url, "dim"))
    again = f"; trying again ({status.attempts})" if status.attempts else ""
    return Text.assemble(
        ("○ ", "red"), ("not connected ", "bold red"), (f"{status.url}: {status.trouble or 'connecting'}{again}", "")
    )


def _legend() -> Text:
    return Text("D displayed   M market, where trades happen   F fundamental (? stale)", style="dim")


# ------------------------------------------------------------------------------------------------------ figures


def cut(number: Decimal, decimals: int, *, group: bool = False) -> str:
    """The number's own digits, cut after `decimals`, with commas between thousands where asked for."""
    whole, _, rest = format(number, "f").partition(".")
    if group:
        whole = f"{int(whole):,}"
    return f"{whole}.{rest[:decimals].ljust(decimals, '0')}" if decimals else whole


def price_text(price: Decimal) -> str:
    """A price: four decimals, eight below 1."""
    return cut(price, 4 if price >= 1 else 8)


def change_percent(now: Decimal, before: Decimal) -> Decimal:
    """How far `now` is from `before`, in percent; 0 where there is nothing to compare."""
    return (now - before) * 100 / before if before else Decimal(0)


def sparkline(points: Sequence[Decimal]) -> str:
    """The points as bars, the lowest at the bottom and the highest at the top."""
    if not points:
        return ""
    low, high = min(points), max(points)
    if low == high:
        return BARS[3] * len(points)
    return "".join(BARS[int((point - low) * (len(BARS) - 1) / (high - low))] for point in points)


def _trend_style(points: Sequence[Decimal]) -> str:
    if len(points) < 2 or points[-1] == points[0]:
        return _SAME
    return _UP if points[-1] > points[0] else _DOWN


def age_text(age: timedelta) -> str:
    """How long ago, in two or three characters and a unit."""
    seconds = max(0, int(age.total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def line(tick: Tick) -> str:
    """A tick as a line of text, with every digit."""
    figures = {"D": tick.display, "M": tick.market, "F": tick.fundamental, "w": tick.market_weight}
    told = " ".join(f"{name} {format(figure, 'f')}" for name, figure in figures.items())
    stale = " stale" if tick.fundamental_stale else ""
    return f"{tick.at.isoformat()} {tick.symbol} #{tick.seq} {tick.cause} {told}{stale}"
