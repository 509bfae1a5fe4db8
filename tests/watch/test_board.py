"""The board: figures cut and never rounded, what is shown at which width, and how it stands with the API."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from rich.console import Console

from app.watch.board import POINTS_MAX, Board, Status, age_text, change_percent, cut, line, price_text, sparkline
from megatron_client import AssetStats, Tick, Ticker

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
LIVE = Status("http://market/graphql", is_open=True)
TICK = Tick(
    asset_id="1", symbol="SEATEMP", seq=5, cause="TRADE", trade_seq=3, at=NOW - timedelta(seconds=2),
    display=Decimal("119.999999999999"), market=Decimal("121.5"), fundamental=Decimal("118.4"),
    market_weight=Decimal("0.559"), volume=Decimal(10), fundamental_stale=False,
)  # fmt: skip
STATS = AssetStats(
    volume=Decimal("12345.999999"), trades=9, open=Decimal(100), high=Decimal(130), low=Decimal(90),
    close=Decimal("119.999999999999"), change=Decimal("0.2"),
)  # fmt: skip
TICKER = Ticker("1", "SEATEMP", "Seattle daily high", "OPEN", "USDC", TICK, STATS)


def board(*tickers: Ticker) -> Board:
    made = Board()
    for ticker in tickers or (TICKER,):
        made.take_ticker(ticker)
    return made


def drawn(made: Board, *, width: int = 110, height: int | None = None, status: Status = LIVE) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(made.draw(status=status, now=NOW, width=width, height=height))
    return captured.get()


@pytest.mark.parametrize(
    ("number", "decimals", "expected"),
    [
        ("119.999999999999", 4, "119.9999"),
        ("0.000000000001", 12, "0.000000000001"),
        ("0.000000000001", 8, "0.00000000"),
        ("7", 2, "7.00"),
        ("7.9", 0, "7"),
    ],
)
def test_figures_are_cut_and_never_rounded(number: str, decimals: int, expected: str) -> None:
    assert cut(Decimal(number), decimals) == expected
    assert cut(Decimal("1234567.89"), 1, group=True) == "1,234,567.8"


def test_prices_below_one_show_more_decimals() -> None:
    assert (price_text(Decimal("98.12345")), price_text(Decimal("0.0123456789"))) == ("98.1234", "0.01234567")


@pytest.mark.parametrize(
    ("prices", "bars"), [([], ""), (["1"], "▄"), (["5", "5"], "▄▄"), (["1", "2", "3", "8"], "▁▂▃█")]
)
def test_sparklines_reach_from_the_lowest_to_the_highest(prices: list[str], bars: str) -> None:
    assert sparkline([Decimal(price) for price in prices]) == bars


def test_times_and_changes_are_short() -> None:
    seconds = [-3, 0, 59, 60, 3_599, 7_200, 200_000]
    assert [age_text(timedelta(seconds=one)) for one in seconds] == ["0 s", "0 s", "59 s", "1 m", "59 m", "2 h", "2 d"]
    assert change_percent(Decimal(101), Decimal(100)) == 1
    assert change_percent(Decimal(101), Decimal(0)) == 0


def test_a_row_shows_the_apis_digits() -> None:
    rows = drawn(board()).splitlines()
    assert rows[0] == "● live http://market/graphql"
    assert rows[4].split() == [
        "SEATEMP", "119.9999", "121.5000", "118.4000", "+20.00", "%", "12,345", "USDC", "0.55", "2", "s",
    ]  # fmt: skip


def test_what_there_is_no_room_for_is_left_out() -> None:
    made = board(*(replace(TICKER, id=str(number), symbol=f"A{number}") for number in range(9)))
    assert "Seattle daily high" in drawn(made, width=136)
    assert "Seattle daily high" not in drawn(made, width=110)
    narrow = drawn(made, width=80)
    assert "volume" not in narrow
    assert max(map(len, narrow.splitlines())) <= 80
    low = drawn(made, width=80, height=10)
    assert "A2" in low
    assert "A3" not in low
    assert "... and 6 more: a taller window shows them" in low
    assert len(low.splitlines()) <= 10


def test_ticks_move_a_row_forward_only() -> None:
    made = board()
    assert made.take_tick(replace(TICK, seq=6, display=Decimal(121)))
    assert (made.rows["1"].moved, made.rows["1"].tick.seq) == (1, 6)
    made.take_tick(TICK)
    assert made.rows["1"].tick.seq == 6
    made.take_tick(replace(TICK, seq=7, display=Decimal(120), fundamental_stale=True))
    assert made.rows["1"].moved == -1
    assert "118.4000?" in drawn(made)
    assert not made.take_tick(replace(TICK, asset_id="2"))


def test_a_later_reading_of_the_last_day_keeps_newer_ticks() -> None:
    made = board()
    made.take_tick(replace(TICK, seq=9, display=Decimal(90)))
    made.take_ticker(replace(TICKER, status="HALTED"))
    assert made.rows["1"].tick.seq == 9
    assert "SEATEMP halted" in drawn(made)
    assert "-10.00 %" in drawn(made)


def test_the_sparkline_begins_with_what_was_before() -> None:
    made = board()
    made.take_tick(TICK)
    made.take_points("1", [Decimal(number) for number in range(40)])
    points = list(made.rows["1"].points)
    assert len(points) == POINTS_MAX
    assert points[-1] == TICK.display
    made.take_points("unknown", [Decimal(1)])


def test_the_first_line_says_why_nothing_moves() -> None:
    away = Status("http://market/graphql", is_open=False, trouble="ConnectError: refused", attempts=3)
    first = "○ not connected http://market/graphql: ConnectError: refused; trying again (3)"
    assert drawn(board(), status=away).splitlines()[0] == first
    at_first = Status("http://market/graphql", is_open=False)
    assert drawn(Board(), status=at_first).startswith("○ not connected http://market/graphql: connecting\n")


def test_a_line_has_every_digit() -> None:
    assert line(replace(TICK, fundamental_stale=True)) == (
        "2026-01-01T11:59:58+00:00 SEATEMP #5 TRADE D 119.999999999999 M 121.5 F 118.4 w 0.559 stale"
    )
