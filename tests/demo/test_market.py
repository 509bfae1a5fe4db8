"""The board that the traders share: what it takes from an answer, and when there is something to trade."""

from datetime import timedelta
from random import Random
from typing import Any

from app import clock
from app.demo.client import Client
from app.demo.decisions import AssetView
from app.demo.market import Board
from app.errors import isoformat
from app.money import MONEY_UNIT, PRICE_UNIT, SLOPE_UNIT


def node(asset_id: str, status: str) -> dict[str, Any]:
    return {
        "id": asset_id,
        "symbol": f"S{asset_id}",
        "status": status,
        "quoteCurrency": "USDT",
        "marketPrice": "98.000000000001",
        "curve": {"slope": "0.134", "feeRate": "0.005"},
        "tradingRules": {"minNotional": "0.01"},
        "price": {"fundamental": "98.4"},
    }


def answer(*nodes: dict[str, Any], paused: bool = False, ahead: timedelta = timedelta(0)) -> dict[str, Any]:
    return {
        "serverTime": isoformat(clock.now() + ahead),
        "platform": {"tradingPaused": paused},
        "assets": {"nodes": list(nodes)},
    }


def board() -> Board:
    return Board(Client("http://127.0.0.1:1/", chance=Random(0)), ())


def test_it_reads_exact_figures() -> None:
    seen = board()
    seen.take(answer(node("1", "OPEN")))
    assert seen.views == {
        "1": AssetView(
            id="1",
            symbol="S1",
            currency="USDT",
            market=98 * PRICE_UNIT + 1,
            fundamental=98_400 * PRICE_UNIT // 1000,
            slope=134 * SLOPE_UNIT // 1000,
            fee_rate=5_000_000,
            min_notional=MONEY_UNIT // 100,
            can_buy=True,
        )
    }


def test_it_shows_what_can_be_traded() -> None:
    seen = board()
    seen.take(answer(*(node(status, status) for status in ("OPEN", "REDUCE_ONLY", "HALTED", "DELISTED", "NEW"))))
    assert {view.id: view.can_buy for view in seen.views.values()} == {"OPEN": True, "REDUCE_ONLY": False}


def test_nothing_is_traded_before_it_is_read_or_while_the_platform_is_paused() -> None:
    seen = board()
    assert not seen.trading
    seen.take(answer(node("1", "OPEN"), paused=True))
    assert not seen.trading
    seen.take(answer(node("1", "OPEN")))
    assert seen.trading
    seen.take(answer(node("1", "HALTED")))
    assert not seen.trading


def test_an_orders_answer_moves_the_price_ahead_of_the_next_reading() -> None:
    seen = board()
    seen.take(answer(node("1", "OPEN")))
    seen.moved("1", 99 * PRICE_UNIT)
    seen.moved("2", 99 * PRICE_UNIT)
    assert {view.id: view.market for view in seen.views.values()} == {"1": 99 * PRICE_UNIT}


def test_deadlines_are_by_the_servers_clock() -> None:
    seen = board()
    seen.take(answer(ahead=timedelta(hours=2)))
    before = clock.now()
    assert timedelta(minutes=119) < seen.server_time() - before < timedelta(minutes=121)
