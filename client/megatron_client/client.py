"""The client: the market, its streams, an account and its orders, each as one call.

How requests are sent and sent again is `requests`, the socket `connection`, the exact arithmetic of bounds `orders`.
"""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from random import Random
from typing import Any, Final, Literal, TypeVar
from urllib.parse import urlsplit, urlunsplit

import httpx

from megatron_client import documents
from megatron_client.connection import Connection, ConnectionState
from megatron_client.continuity import DUPLICATE, Continuity
from megatron_client.errors import Gap, NotLoggedIn, OutcomeUnknown, Refused, RequestFailed, UnknownAsset
from megatron_client.orders import DEADLINE_SECONDS, SLIPPAGE, Amount, OrderRequest, bounded_order, exact
from megatron_client.requests import Backoff, HttpCarrier, Operation, Requests
from megatron_client.types import (
    AccountEvent,
    Asset,
    Balance,
    Candle,
    Event,
    Fill,
    Order,
    Position,
    PriceKind,
    Quote,
    Report,
    Side,
    Throttle,
    Tick,
    Ticker,
    TickMode,
    Timeframe,
    Trade,
)
from megatron_client.wire import Json, decode, decode_all, instant, refusal

PAGE: Final = 100
HISTORY_PAGE: Final = 500
TIMEOUT_SECONDS: Final = 15.0
INTERVALS: Final[Mapping[Timeframe, str]] = {
    "1s": "S1", "1m": "M1", "5m": "M5", "15m": "M15", "1h": "H1", "4h": "H4", "1d": "D1",
}  # fmt: skip
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")

_Item = TypeVar("_Item")


class Client:
    """A client of the market at `url`, such as "http://127.0.0.1:8000". Use it as `async with Client(url) as client`.

    `token` is a session's or an API key's; `log_in` and `sign_up` set it. A query is sent again for `patience_seconds`
    while the server is away (None: for ever), an order until its outcome is known. `over_socket` sends requests over
    the socket of the streams instead of HTTP. `http` is a client of your own to send requests with; you close it.
    Proxies named in the environment are used, but for loopback addresses.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        patience_seconds: float | None = 60.0,
        over_socket: bool = False,
        heartbeat_seconds: int = 5,
        http: httpx.AsyncClient | None = None,
        chance: Random | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.url, socket_url = _addresses(url)
        self.token = token
        self._heartbeat_s = heartbeat_seconds
        self._chance = chance or Random()  # noqa: S311 - jitter, no secret
        self._pause = pause
        proxies = urlsplit(self.url).hostname not in _LOOPBACK
        self._own_http = http is None
        self._http = http or httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=proxies)
        self._connection = Connection(
            socket_url,
            token=lambda: self.token,
            heartbeat_seconds=heartbeat_seconds,
            proxies=proxies,
            chance=self._chance,
            pause=pause,
        )
        over_http = HttpCarrier(self.url, self._http)
        self._http_requests = Requests(over_http, patience_seconds=patience_seconds, chance=self._chance, pause=pause)
        self.requests = self._http_requests
        if over_socket:
            self.requests = Requests(
                self._connection, patience_seconds=patience_seconds, chance=self._chance, pause=pause
            )
        self._assets: dict[str, Asset] = {}
        self._symbols: dict[str, str] = {}

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; streams that are still read end with an error."""
        await self._connection.close()
        if self._own_http:
            await self._http.aclose()

    @property
    def connection(self) -> ConnectionState:
        """How the socket of the streams stands."""
        return self._connection.state

    async def execute(self, operation: Operation, variables: Mapping[str, object] | None = None) -> Json:
        """The `data` of an operation of your own, sent with the client's token. It may be executed more than once.

        Raises `NotLoggedIn`, `RequestFailed`, `Unreachable`.
        """
        return await self.requests.execute(operation, variables or {}, token=self.token)

    # ------------------------------------------------------------------------------------------------ the market

    async def fetch_markets(self) -> dict[str, Asset]:
        """All assets by symbol."""
        nodes = await self._pages(documents.MARKETS, {})
        assets = decode_all(Asset, nodes, {})
        self._assets = {asset.symbol: asset for asset in assets}
        self._symbols = {asset.id: asset.symbol for asset in assets}
        return dict(self._assets)

    async def fetch_tickers(self, symbols: Iterable[str] | None = None) -> dict[str, Ticker]:
        """Prices and the last 24 hours of these assets, or of all, by symbol."""
        nodes = await self._pages(documents.TICKERS, {"ids": await self._ids(symbols)})
        self._symbols |= {node["id"]: node["symbol"] for node in nodes}
        return {ticker.symbol: ticker for ticker in decode_all(Ticker, nodes, self._symbols)}

    async def fetch_ticker(self, symbol: str) -> Ticker:
        """The same of one asset."""
        [ticker] = (await self.fetch_tickers([symbol])).values()
        return ticker

    async def fetch_ohlcv(
        self,
        symbol: str,
        timeframe: Timeframe = "1m",
        *,
        since: int | None = None,
        until: int | None = None,
        limit: int | None = None,
        price: PriceKind = "DISPLAY",
    ) -> list[Candle]:
        """Candles, oldest first: of `since` to `until` (seconds since 1970), or the last `limit` before `until`."""
        wanted = {"from": since, "to": until, "countBack": limit, "price": price, "interval": INTERVALS[timeframe]}
        data = await self.execute(documents.CANDLE_HISTORY, {"assetId": await self.asset_id(symbol), **wanted})
        return list(decode_all(Candle, data["candles"]["candles"], self._symbols))

    async def fetch_trades(self, symbol: str, *, after_seq: int | None = None, limit: int = 50) -> list[Trade]:
        """Trades, oldest first: the newest, or the oldest after `after_seq`. `limit` is at most 500."""
        size = {"first": limit} if after_seq is None else {"last": limit}
        wanted = {"assetId": await self.asset_id(symbol), "afterSeq": after_seq, **size}
        data = await self.execute(documents.TRADE_HISTORY, wanted)
        return list(reversed(decode_all(Trade, data["trades"]["nodes"], self._symbols)))

    async def history_ticks(self, symbol: str, after_seq: int, *, limit: int = HISTORY_PAGE) -> list[Tick]:
        """The oldest ticks after `after_seq`, ascending. `limit` is at most 500."""
        wanted = {"assetId": await self.asset_id(symbol), "afterSeq": after_seq, "first": limit}
        data = await self.execute(documents.TICK_HISTORY, wanted)
        return list(decode_all(Tick, data["ticks"], self._symbols))

    async def asset_id(self, symbol: str) -> str:
        """The id behind a symbol; an id is answered as it is. Raises `UnknownAsset`."""
        for _ in range(2):
            if symbol in self._assets:
                return self._assets[symbol].id
            if symbol in self._symbols:
                return symbol
            await self.fetch_markets()
        known = ", ".join(sorted(self._assets)[:20])
        raise UnknownAsset(f"there is no asset {symbol!r}; there are {known or 'none at all'}")

    async def _ids(self, symbols: Iterable[str] | None) -> list[str] | None:
        if isinstance(symbols, str):
            raise TypeError(f"symbols must be a list, such as [{symbols!r}]")
        return None if symbols is None else [await self.asset_id(symbol) for symbol in symbols]

    async def _pages(self, operation: Operation, variables: Mapping[str, object]) -> list[Json]:
        """All nodes of a list, whichever field it is under."""
        nodes: list[Json] = []
        after: str | None = None
        while True:
            page: Any = await self.execute(operation, {**variables, "first": PAGE, "after": after})
            while "pageInfo" not in page:
                page = _own(page) if "viewer" in page else next(iter(page.values()))
            nodes += page["nodes"]
            if not page["pageInfo"]["hasNextPage"]:
                return nodes
            after = page["pageInfo"]["endCursor"]

    # ------------------------------------------------------------------------------------------------ streams

    async def ticks(
        self,
        symbols: Iterable[str] | None = None,
        *,
        mode: TickMode = "ALL",
        throttle: Throttle = "NONE",
        backfill: bool = False,
        after: str | None = None,
        snapshot: bool = True,
    ) -> AsyncGenerator[Tick, None]:
        """Live ticks of these assets, or of all: each once and in the order of its asset's seq, over cuts too.

        With `snapshot` they begin with the newest of each asset. With mode ALL none is left out: where the stream could
        not go on without a hole, it is filled from history when `backfill` is asked for, and raises `Gap` otherwise.
        With LATEST a slow reader gets the newest of each asset.
        """
        seen = Continuity()
        stream = self.tick_events(symbols, mode=mode, throttle=throttle, after=after, snapshot=snapshot)
        async with aclosing(stream) as events:
            async for event in events:
                for tick in event.items:
                    last_seq = seen.last.get(tick.asset_id, 0)
                    missing = seen.step(tick.asset_id, tick.seq)
                    if missing == DUPLICATE:
                        continue
                    if missing and mode == "ALL":
                        for earlier in await self._missing(tick, last_seq, backfill=backfill):
                            yield earlier
                    yield tick

    async def _missing(self, tick: Tick, last_seq: int, *, backfill: bool) -> list[Tick]:
        """The ticks after `last_seq` and before `tick`; raises `Gap` where they cannot be had."""
        found: list[Tick] = []
        while backfill and last_seq + len(found) + 1 < tick.seq:
            size = min(HISTORY_PAGE, tick.seq - last_seq - len(found) - 1)
            page = await self.history_ticks(tick.asset_id, last_seq + len(found), limit=size)
            if not page or page[0].seq != last_seq + len(found) + 1:
                break
            found += page
        if last_seq + len(found) + 1 != tick.seq:
            raise Gap(tick.asset_id, tick.symbol, after_seq=last_seq + len(found), before_seq=tick.seq)
        return found

    async def tick_events(
        self,
        symbols: Iterable[str] | None = None,
        *,
        mode: TickMode = "ALL",
        throttle: Throttle = "NONE",
        after: str | None = None,
        snapshot: bool = True,
    ) -> AsyncGenerator[Event[Tick], None]:
        """The events behind `ticks`, as the server sends them: snapshots, heartbeats, gaps, cursors."""
        wanted = {"assetIds": await self._ids(symbols), "mode": mode, "throttle": throttle, "snapshot": snapshot}
        async with aclosing(self._events(documents.TICKS, wanted, Tick, "ticks", after=after)) as events:
            async for event in events:
                yield event

    async def trades(
        self, symbols: Iterable[str] | None = None, *, after: str | None = None
    ) -> AsyncGenerator[Trade, None]:
        """Live trades of these assets, or of all: each once and in its asset's order. Raises `Gap` for a hole."""
        seen = Continuity()
        async with aclosing(self.trade_events(symbols, after=after)) as events:
            async for event in events:
                for trade in event.items:
                    last_seq = seen.last.get(trade.asset_id, 0)
                    missing = seen.step(trade.asset_id, trade.seq)
                    if missing == DUPLICATE:
                        continue
                    if missing:
                        raise Gap(trade.asset_id, trade.symbol, after_seq=last_seq, before_seq=trade.seq)
                    yield trade

    async def trade_events(
        self, symbols: Iterable[str] | None = None, *, after: str | None = None
    ) -> AsyncGenerator[Event[Trade], None]:
        """The events behind `trades`."""
        wanted = {"assetIds": await self._ids(symbols)}
        async with aclosing(self._events(documents.TRADES, wanted, Trade, "trades", after=after)) as events:
            async for event in events:
                yield event

    async def candles(
        self, symbols: Iterable[str], timeframe: Timeframe = "1m", *, price: PriceKind = "DISPLAY"
    ) -> AsyncGenerator[Candle, None]:
        """Candles as they change. A state, not events: the current and the previous one come again after a cut."""
        wanted = {"assetIds": await self._ids(symbols), "interval": INTERVALS[timeframe], "price": price}
        async with aclosing(self._events(documents.CANDLES, wanted, Candle, "candles")) as events:
            async for event in events:
                for candle in event.items:
                    yield candle

    async def assets(self, *, after: str | None = None) -> AsyncGenerator[Asset, None]:
        """Assets as they are made, or change in status or rules."""
        async with aclosing(self._events(documents.ASSETS, {}, Asset, "assets", after=after)) as events:
            async for event in events:
                for asset in event.items:
                    self._assets[asset.symbol] = asset
                    self._symbols[asset.id] = asset.symbol
                    yield asset

    async def reports(
        self, symbols: Iterable[str] | None = None, *, after: str | None = None
    ) -> AsyncGenerator[Report, None]:
        """Readings of what these assets track, or all do: the latest of each first, unless resumed from `after`."""
        wanted = {"assetIds": await self._ids(symbols)}
        async with aclosing(self._events(documents.REPORTS, wanted, Report, "reports", after=after)) as events:
            async for event in events:
                for report in event.items:
                    yield report

    async def account_events(
        self, *, after: str | None = None, snapshot: bool = True
    ) -> AsyncGenerator[AccountEvent, None]:
        """What happens in your account, each event once and in order. A GAP is an event of its own, and a SNAPSHOT of
        how things stand follows it. Takes a token; raises `SessionEnded` when it ends."""
        wanted = {"snapshot": snapshot, "heartbeat": self._heartbeat_s}
        last_seq = 0
        async with aclosing(self._connection.events(documents.ACCOUNT, wanted, after=after)) as nodes:
            async for node in nodes:
                held = {position["asset"]["id"]: position["asset"]["symbol"] for position in node["positions"]}
                self._symbols |= held
                await self._learn(node["orders"] + node["fills"])
                event = decode(AccountEvent, node, self._symbols)
                if event.kind == "UPDATE" and event.seq <= last_seq:
                    continue
                last_seq = event.seq
                yield event

    async def _events(
        self,
        operation: Operation,
        variables: Mapping[str, object],
        kind: type[_Item],
        items: str,
        *,
        after: str | None = None,
    ) -> AsyncGenerator[Event[_Item], None]:
        wanted = {**variables, "heartbeat": self._heartbeat_s}
        async with aclosing(self._connection.events(operation, wanted, after=after)) as nodes:
            async for node in nodes:
                await self._learn(node[items])
                yield Event(
                    kind=node["kind"],
                    items=decode_all(kind, node[items], self._symbols),
                    cursor=node.get("cursor", ""),
                    server_time=instant(node["serverTime"]),
                    missed=node.get("missed") or 0,
                )

    async def _learn(self, nodes: list[Json]) -> None:
        """Know the symbols of the assets that these are of: a new one may have been made since."""
        if any("assetId" in node and node["assetId"] not in self._symbols for node in nodes):
            await self.fetch_markets()
            # What is still unknown is asked for once.
            self._symbols = {node["assetId"]: "" for node in nodes if "assetId" in node} | self._symbols

    # ------------------------------------------------------------------------------------------------ the account

    async def sign_up(self, email: str, password: str) -> None:
        """Make an account and use its first session. Raises `Refused`: ALREADY_EXISTS, WEAK_PASSWORD ..."""
        await self._begin_session(documents.SIGN_UP, email, password)

    async def log_in(self, email: str, password: str) -> None:
        """Begin a session and use it. Raises `Refused`: INVALID_CREDENTIALS ..."""
        await self._begin_session(documents.LOG_IN, email, password)

    async def log_out(self) -> None:
        """End the session in use."""
        await self.execute(documents.LOG_OUT)
        self._use_token(None)

    async def _begin_session(self, operation: Operation, email: str, password: str) -> None:
        # Over HTTP and without the token so far: one that has ended would have the request refused.
        data = await self._http_requests.execute(operation, {"input": {"email": email, "password": password}})
        payload = next(iter(data.values()))
        if payload["session"] is None:
            raise refusal(payload["userErrors"])
        self._use_token(payload["session"]["token"])

    def _use_token(self, token: str | None) -> None:
        self.token = token
        # A socket belongs to who opened it.
        self._connection.renew("another log-in")

    async def dev_fund(self, amount: Amount, currency: str = "USDC", *, key: str | None = None) -> list[Balance]:
        """Take test funds, where the server runs in development; the balances then. `key` makes it once."""
        wanted = {"currency": currency, "amount": exact(amount, "amount"), "idempotencyKey": key or uuid.uuid4().hex}
        payload = (await self.execute(documents.DEV_FUND, {"input": wanted}))["devFund"]
        if payload["viewer"] is None:
            raise refusal(payload["userErrors"])
        return list(decode_all(Balance, payload["viewer"]["balances"], {}))

    async def fetch_balance(self) -> dict[str, Balance]:
        """Your money by currency."""
        viewer = _own(await self.execute(documents.BALANCES))
        return {balance.currency: balance for balance in decode_all(Balance, viewer["balances"], {})}

    async def fetch_positions(self) -> list[Position]:
        """What you hold."""
        return list(decode_all(Position, await self._pages(documents.POSITIONS, {}), {}))

    async def fetch_order(self, client_order_id: str) -> Order | None:
        """Your order with this key; None where the market has decided none with it."""
        node = _own(await self.execute(documents.ORDER, {"key": client_order_id}))["order"]
        return None if node is None else await self._order(node)

    async def fetch_my_trades(self, symbol: str | None = None, *, limit: int = 50) -> list[Fill]:
        """Your last fills, oldest first. `limit` is at most 500."""
        wanted = {"first": limit, "assetId": symbol and await self.asset_id(symbol)}
        nodes = _own(await self.execute(documents.FILLS, wanted))["fills"]["nodes"]
        await self._learn(nodes)
        return list(reversed(decode_all(Fill, nodes, self._symbols)))

    async def _order(self, node: Json) -> Order:
        await self._learn([node])
        return decode(Order, node, self._symbols)

    # ------------------------------------------------------------------------------------------------ orders

    async def fetch_quote(
        self, symbol: str, side: Side, *, shares: Amount | None = None, amount: Amount | None = None
    ) -> Quote:
        """What a trade would move if it happened now: of `shares`, or for a BUY perhaps for `amount`, fee included.

        `orders.bounded_order` makes an order of it. Raises `Refused`.
        """
        if (shares is None) == (amount is None):
            raise ValueError(f"give exactly one of shares and amount; got shares={shares}, amount={amount}")
        sizes = {"shares": shares, "amount": amount}
        size = {name: exact(value, name) for name, value in sizes.items() if value is not None}
        data = await self.execute(documents.QUOTE, {"assetId": await self.asset_id(symbol), "side": side, **size})
        if data["quote"]["quote"] is None:
            raise refusal(data["quote"]["userErrors"])
        node = {**data["quote"]["quote"], "amount": size.get("amount"), "serverTime": data["serverTime"]}
        return decode(Quote, node, self._symbols)

    async def send_order(self, request: OrderRequest) -> Order:
        """The order that `request` made, which is FILLED. However often it is sent, it is executed once.

        It is sent again, with the same key, after every answer that was lost, until one is known. Raises `Refused` for
        an order that was not executed, and `OutcomeUnknown` where that cannot be told now, as when the session ended
        after an answer was lost: send the same request again.
        """
        doubts: list[str] = []
        backoff = Backoff(self._chance, self._pause)
        while True:
            try:
                data = await self.requests.attempt(
                    documents.ORDER_PLACE,
                    {"input": request.to_input()},
                    token=self.token,
                    patience_seconds=None,
                    doubts=doubts,
                )
            except RequestFailed as error:
                if doubts:
                    raise OutcomeUnknown(request, f"{doubts[-1]}, then {error}") from error
                raise
            payload = data["orderPlace"]
            order = None if payload["order"] is None else await self._order(payload["order"])
            if not payload["userErrors"] and order is not None:
                return order
            refused = refusal(payload["userErrors"])
            refused.order = order
            if order is not None or refused.code != "OVERLOADED":
                raise refused
            # Decided before its turn came: it binds no key, and says nothing of attempts before.
            await backoff.wait()

    async def place_order(
        self,
        symbol: str,
        side: Side,
        *,
        shares: Amount | None = None,
        amount: Amount | None = None,
        slippage: Amount = SLIPPAGE,
        deadline_seconds: float | None = DEADLINE_SECONDS,
        client_order_id: str | None = None,
    ) -> Order:
        """Buy or sell now, at no worse than a quote taken now and `slippage` beyond it (0.005 is half a percent).

        Give `shares`, or for a BUY perhaps `amount`, the most to pay, fee included. `deadline_seconds` are by the
        server's clock, 60 at most. Raises `Refused`, such as SLIPPAGE_EXCEEDED or INSUFFICIENT_FUNDS, and what
        `send_order` raises.
        """
        quote = await self.fetch_quote(symbol, side, shares=shares, amount=amount)
        key = client_order_id or uuid.uuid4().hex
        request = bounded_order(quote, client_order_id=key, slippage=slippage, deadline_seconds=deadline_seconds)
        return await self.send_order(request)

    async def create_order(
        self, symbol: str, kind: Literal["market"], side: Literal["buy", "sell"], shares: Amount, **options: Any
    ) -> Order:
        """`place_order` in the words of ccxt."""
        if kind != "market":
            raise Refused("INVALID_INPUT", f"only market orders are offered; got {kind!r}")
        return await self.place_order(symbol, "BUY" if side == "buy" else "SELL", shares=shares, **options)

    async def trading_paused(self) -> bool:
        """Whether trading is stopped on the whole platform."""
        paused: bool = (await self.execute(documents.SERVER))["platform"]["tradingPaused"]
        return paused


def _addresses(url: str) -> tuple[str, str]:
    """The HTTP and the WebSocket address; the path is /graphql unless one is given."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"the market's url must be like http://127.0.0.1:8000; got {url!r}")
    parts = parts._replace(path=parts.path.rstrip("/") or "/graphql", query="", fragment="")
    return urlunsplit(parts), urlunsplit(parts._replace(scheme="wss" if parts.scheme == "https" else "ws"))


def _own(data: Json) -> Json:
    """The viewer of an answer. Raises `NotLoggedIn` where there is none."""
    viewer: Json | None = data["viewer"]
    if viewer is None:
        raise NotLoggedIn("UNAUTHENTICATED", "this needs an account: log_in, sign_up, or give a token")
    return viewer
