"""The board that the traders share: what it takes from an answer, and when there is something to trade."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.demo.decisions import AssetView
from app.demo.market import FIND, Board
from app.money import MONEY_UNIT, PRICE_UNIT, SLOPE_UNIT
from megatron_client import Client, Tick
from megatron_client.wire import decode
from tests.client.standin import Json, Peer, Standin, market, standin, tick, trade


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


def answer(*nodes: dict[str, Any], paused: bool = False) -> dict[str, Any]:
    return {"platform": {"tradingPaused": paused}, "assets": {"nodes": list(nodes)}}


def board() -> Board:
    return Board(Client("http://127.0.0.1:1/"), ())


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


async def test_an_order_moves_the_price_ahead_of_the_next_reading() -> None:
    seen = board()
    seen.take(answer(node("1", "OPEN")))
    seen.moved("1", 99 * PRICE_UNIT)
    seen.moved("2", 99 * PRICE_UNIT)
    assert {view.id: view.market for view in seen.views.values()} == {"1": 99 * PRICE_UNIT}
    assert seen.currency_of("1") == "USDT"


class Followed:
    """A board that follows a stand-in market of one asset; `asked` are the operations that it sent."""

    def __init__(self, server: Standin, board: Board) -> None:
        self.server = server
        self.board = board
        server.answer = self.answer

    def answer(self, body: Json) -> Json:
        answers: dict[str, Json] = {
            FIND.name: {"asset": {"id": "id-A"}},
            "DemoBoard": answer(node("id-A", "OPEN")),
            "Markets": {"assets": {"nodes": [market("A")], "pageInfo": {"hasNextPage": False, "endCursor": None}}},
            "TradeHistory": {"trades": {"nodes": [trade("id-A", 7), trade("id-A", 6)]}},
        }
        return answers[body["operationName"]]

    def asked(self, name: str) -> int:
        return sum(body["operationName"] == name for body in self.server.posted)

    async def subscribed(self) -> tuple[Peer, str]:
        peer = await self.server.peer()
        return peer, (await peer.subscribed())[0]

    async def until_market(self, market: int) -> None:
        async with asyncio.timeout(10):
            while self.board.views["id-A"].market != market:  # noqa: ASYNC110 - the board tells nobody
                await asyncio.sleep(0)


@pytest.fixture
async def followed() -> AsyncIterator[Followed]:
    async with standin() as server, server.client() as client:
        made = Followed(server, Board(client, ("A",)))
        keepers = [asyncio.create_task(keeper) for keeper in (made.board.keep_reading(), made.board.keep_following())]
        yield made
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)


async def test_prices_come_by_ticks_and_the_tape_grows_with_them(followed: Followed) -> None:
    peer, wire_id = await followed.subscribed()
    seen = followed.board
    assert not seen.is_live
    await peer.ticks(wire_id, "SNAPSHOT", ("id-A", 7), cursor="p1")
    await followed.until_market(2 * PRICE_UNIT)
    assert seen.is_live
    assert seen.views["id-A"].fundamental == 35 * PRICE_UNIT // 10
    seen.moved("id-A", 99 * PRICE_UNIT)
    assert seen.views["id-A"].market == 2 * PRICE_UNIT
    last = 15 * PRICE_UNIT // 10
    assert await seen.recent("id-A") == [last, last]
    await peer.ticks(wire_id, "UPDATE", ("id-A", 8), cursor="p2")
    await until_tape(seen, [last, last, 2 * PRICE_UNIT])
    assert followed.asked("TradeHistory") == 1


async def test_a_tape_with_a_hole_is_asked_for_again() -> None:
    async with standin() as server, server.client() as client:
        seen = Followed(server, Board(client, ("A",)))
        seen.board.take(answer(node("id-A", "OPEN")))
        client.connection.is_open = True
        await client.fetch_markets()
        for seq, asked in ((5, 1), (8, 1), (8, 1), (10, 2)):
            seen.board.take_tick(decode(Tick, tick("id-A", seq), {}))
            await seen.board.recent("id-A")
            assert (seq, seen.asked("TradeHistory")) == (seq, asked)


async def test_without_ticks_the_board_reads_and_asks_each_time(followed: Followed) -> None:
    peer, _ = await followed.subscribed()
    peer.cut()
    for count in (1, 2):
        await followed.board.recent("id-A")
        assert followed.asked("TradeHistory") == count
    async with asyncio.timeout(10):
        while followed.asked("DemoBoard") < 3:  # noqa: ASYNC110 - requests are counted by a list, not an event
            await asyncio.sleep(0.01)
    assert followed.board.trading


async def until_tape(board: Board, expected: list[int]) -> None:
    async with asyncio.timeout(10):
        while await board.recent("id-A") != expected:  # noqa: ASYNC110 - the board tells nobody
            await asyncio.sleep(0)
