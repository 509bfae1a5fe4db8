"""What the demo traders see of the market: the operations they send, and the board on which answers are kept.

The board is read by one of them for all, about once a second, and kept fresh by what orders answer in between.
"""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from app import clock
from app.demo.client import Client, Json, Operation, Rejected
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

READ_SECONDS: Final = 1.0
RECENT_TRADES: Final = 20

log = structlog.get_logger(__name__)

FIND: Final = Operation("DemoFindAsset", "query DemoFindAsset($symbol: String!) { asset(symbol: $symbol) { id } }")
BOARD: Final = Operation(
    "DemoBoard",
    """query DemoBoard($ids: [ID!]!, $first: Int!) {
  serverTime
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
TAPE: Final = Operation(
    "DemoTape",
    "query DemoTape($id: ID!, $first: Int!) { trades(assetId: $id, first: $first) { nodes { marketAfter } } }",
)
QUOTE: Final = Operation(
    "DemoQuote",
    """query DemoQuote($id: ID!, $side: Side!, $shares: Decimal, $amount: Decimal) {
  quote(assetId: $id, side: $side, shares: $shares, amount: $amount) {
    quote { shares total priceAfter }
    userErrors { code message }
  }
}""",
)


def money(text: str) -> int:
    """A balance as the API writes it, in 10^-6."""
    return parse(text, decimals=MONEY_DECIMALS, field=("money",), maximum=MONEY_BALANCE_MAX)


def shares(text: str) -> int:
    """Shares as the API writes them, in 10^-9."""
    return parse(text, decimals=SHARE_DECIMALS, field=("shares",), maximum=SUPPLY_MAX)


def price(text: str) -> int:
    """A price as the API writes it, in 10^-12; M may lie above the highest base price."""
    return parse(text, decimals=PRICE_DECIMALS, field=("price",), maximum=PRICE_MAX * 10**6)


class Board:
    """The demo's assets as last read, by id. `trading` is false until read, and while the platform is paused."""

    def __init__(self, client: Client, symbols: tuple[str, ...]) -> None:
        self._client = client
        self._symbols = symbols
        self._server_ahead = timedelta(0)
        self._paused = True
        self.views: dict[str, AssetView] = {}
        self.ready = asyncio.Event()

    @property
    def trading(self) -> bool:
        """Whether there is something to trade now."""
        return bool(self.views) and not self._paused

    def server_time(self) -> datetime:
        """The server's clock as it should be now: deadlines are by it, not by this machine's."""
        return clock.now() + self._server_ahead

    async def keep_reading(self) -> None:
        """Read about once a second until cancelled."""
        ids = await self._find()
        while True:
            try:
                self.take(await self._client.execute(BOARD, {"ids": ids, "first": len(ids)}))
                self.ready.set()
            except Rejected as error:
                self._paused = True
                log.warning("board_not_read", error=str(error))
            await asyncio.sleep(READ_SECONDS)

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
                except Rejected as error:
                    log.warning("asset_not_read", symbol=symbol, error=str(error))
                await asyncio.sleep(5 * READ_SECONDS)
            ids.append(found["id"])
        return ids

    def take(self, data: Json) -> None:
        """What the operation `BOARD` answered."""
        server_time = datetime.fromisoformat(data["serverTime"]).astimezone(UTC)
        self._server_ahead = server_time - clock.now()
        self._paused = data["platform"]["tradingPaused"]
        views = (_view(node) for node in data["assets"]["nodes"] if node["status"] in ("OPEN", "REDUCE_ONLY"))
        self.views = {view.id: view for view in views}

    def moved(self, asset_id: str, market: int) -> None:
        """M as an order's answer told it, ahead of the next reading."""
        view = self.views.get(asset_id)
        if view:
            self.views[asset_id] = replace(view, market=market)

    async def recent(self, asset_id: str) -> list[int]:
        """M after each of the last trades, the oldest first."""
        data = await self._client.execute(TAPE, {"id": asset_id, "first": RECENT_TRADES})
        return [price(node["marketAfter"]) for node in reversed(data["trades"]["nodes"])]


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
