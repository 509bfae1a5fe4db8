"""What the demo traders see of the market: a board on which prices are kept, read by one of them for all.

It follows the ticks, which come as things happen. Statuses are read every few seconds; prices too, every second, for
as long as no ticks come: the traders do without the stream when they must.
"""

import asyncio
from collections import deque
from dataclasses import replace
from decimal import Decimal
from typing import Final

import structlog

from app.demo.decisions import AssetView
from app.money import (
    MONEY_BALANCE_MAX,
    MONEY_DECIMALS,
    PRICE_DECIMALS,
    PRICE_MAX,
    RATE_DECIMALS,
    RATE_UNIT,
    SHARE_DECIMALS,
    SLOPE_DECIMALS,
    SLOPE_MAX,
    SUPPLY_MAX,
    parse,
)
from megatron_client import Client, MegatronError, Operation, Tick
from megatron_client.wire import Json

READ_SECONDS: Final = 1.0
READ_LIVE_SECONDS: Final = 5.0
"""How often statuses are read while ticks tell the prices."""
TICKLESS_SECONDS: Final = 3.0
"""Without a tick for so long the board reads prices itself. The demo's assets tick more often than that."""
RETRY_SECONDS: Final = 5.0
RECENT_TRADES: Final = 20

log = structlog.get_logger(__name__)

FIND: Final = Operation("DemoFindAsset", "query DemoFindAsset($symbol: String!) { asset(symbol: $symbol) { id } }")
BOARD: Final = Operation(
    "DemoBoard",
    """query DemoBoard($ids: [ID!]!, $first: Int!) {
  platform { tradingPaused }
  assets(ids: $ids, first: $first) {
    nodes {
      id symbol status quoteCurrency marketPrice
      curve { slope feeRate }
      tradingRules { minNotional }
      price { fundamental }
    }
  }
}""",
)


def money(number: Decimal | str) -> int:
    """A balance as the API tells it, in 10^-6."""
    return parse(_text(number), decimals=MONEY_DECIMALS, field=("money",), maximum=MONEY_BALANCE_MAX)


def shares(number: Decimal | str) -> int:
    """Shares as the API tells them, in 10^-9."""
    return parse(_text(number), decimals=SHARE_DECIMALS, field=("shares",), maximum=SUPPLY_MAX)


def price(number: Decimal | str) -> int:
    """A price as the API tells it, in 10^-12; M may lie above the highest base price."""
    return parse(_text(number), decimals=PRICE_DECIMALS, field=("price",), maximum=PRICE_MAX * 10**6)


def _text(number: Decimal | str) -> str:
    return format(number, "f") if isinstance(number, Decimal) else number


class Board:
    """The demo's assets by id. `trading` is false until they have been read, and while the platform is paused."""

    def __init__(self, client: Client, symbols: tuple[str, ...]) -> None:
        self._client = client
        self._symbols = symbols
        self._paused = True
        self._ticked_at = float("-inf")
        self._currencies: dict[str, str] = {}
        self._tapes: dict[str, deque[tuple[int, int]]] = {}
        self.views: dict[str, AssetView] = {}
        self.ready = asyncio.Event()

    @property
    def trading(self) -> bool:
        """Whether there is something to trade now."""
        return bool(self.views) and not self._paused

    @property
    def is_live(self) -> bool:
        """Whether ticks tell the prices now."""
        ticked_s = asyncio.get_running_loop().time() - self._ticked_at
        return self._client.connection.is_open and ticked_s < TICKLESS_SECONDS

    # ------------------------------------------------------------------------------------------------ reading

    async def keep_reading(self) -> None:
        """Read what ticks do not tell, and prices where there are no ticks, until cancelled."""
        ids = await self._find()
        while True:
            try:
                self.take(await self._client.execute(BOARD, {"ids": ids, "first": len(ids)}))
                self.ready.set()
            except MegatronError as error:
                self._paused = True
                log.warning("board_not_read", error=str(error))
            await asyncio.sleep(READ_LIVE_SECONDS if self.is_live else READ_SECONDS)

    async def _find(self) -> list[str]:
        """The ids of the demo's assets, once they are there."""
        ids: list[str] = []
        for symbol in self._symbols:
            while True:
                try:
                    found = (await self._client.execute(FIND, {"symbol": symbol}))["asset"]
                    if found:
                        break
                    log.warning("asset_missing", symbol=symbol, hint="megatron demo seed makes it")
                except MegatronError as error:
                    log.warning("asset_not_read", symbol=symbol, error=str(error))
                await asyncio.sleep(RETRY_SECONDS)
            ids.append(found["id"])
        return ids

    def take(self, data: Json) -> None:
        """What the operation `BOARD` answered."""
        self._paused = data["platform"]["tradingPaused"]
        self._currencies = {node["id"]: node["quoteCurrency"] for node in data["assets"]["nodes"]}
        views = (_view(node) for node in data["assets"]["nodes"] if node["status"] in ("OPEN", "REDUCE_ONLY"))
        self.views = {view.id: view for view in views}

    # ---------------------------------------------------------------------------------------------- following

    async def keep_following(self) -> None:
        """Follow the ticks until cancelled, from when the assets are there."""
        await self.ready.wait()
        while True:
            try:
                async for tick in self._client.ticks(self._symbols):
                    self.take_tick(tick)
            except MegatronError as error:
                log.warning("ticks_not_followed", error=str(error), retry_seconds=RETRY_SECONDS)
            await asyncio.sleep(RETRY_SECONDS)

    def take_tick(self, tick: Tick) -> None:
        """A tick: M and F now, and on a trade the tape's next entry. An asset that cannot be traded has no view."""
        self._ticked_at = asyncio.get_running_loop().time()
        view = self.views.get(tick.asset_id)
        if view:
            self.views[view.id] = replace(view, market=price(tick.market), fundamental=price(tick.fundamental))
        tape = self._tapes.get(tick.asset_id)
        if tape is None or tick.cause != "TRADE":
            return
        last_seq = tape[-1][0] if tape else 0
        if tick.trade_seq == last_seq + 1:
            tape.append((tick.trade_seq, price(tick.market)))
        elif tick.trade_seq > last_seq:
            # A trade between is not known: ask for all of it again.
            del self._tapes[tick.asset_id]

    def currency_of(self, asset_id: str) -> str:
        """What an asset of the demo is traded in."""
        return self._currencies[asset_id]

    def moved(self, asset_id: str, market: int) -> None:
        """M after an order, ahead of the next reading. Where ticks come they know better."""
        view = self.views.get(asset_id)
        if view and not self.is_live:
            self.views[asset_id] = replace(view, market=market)

    async def recent(self, asset_id: str) -> list[int]:
        """M after each of the last trades, the oldest first: asked for once, and continued from the ticks."""
        tape = self._tapes.get(asset_id) if self.is_live else None
        if tape is None:
            trades = await self._client.fetch_trades(asset_id, limit=RECENT_TRADES)
            tape = deque(((one.seq, price(one.market_after)) for one in trades), maxlen=RECENT_TRADES)
            self._tapes[asset_id] = tape
        return [market for _, market in tape]


def _view(node: Json) -> AssetView:
    curve = node["curve"]
    return AssetView(
        id=node["id"],
        symbol=node["symbol"],
        currency=node["quoteCurrency"],
        market=price(node["marketPrice"]),
        fundamental=price(node["price"]["fundamental"]),
        slope=parse(curve["slope"], decimals=SLOPE_DECIMALS, field=("slope",), maximum=SLOPE_MAX),
        fee_rate=parse(curve["feeRate"], decimals=RATE_DECIMALS, field=("feeRate",), maximum=RATE_UNIT),
        min_notional=money(node["tradingRules"]["minNotional"]),
        can_buy=node["status"] == "OPEN",
    )
