"""TradingView's UDF protocol at `/udf`: config, symbols, search, history, time, for charting libraries that speak it.

The one place where prices become floats: they are for drawing, and the protocol wants JSON numbers. Whoever computes
with prices asks GraphQL, which is exact. Answers come from the same reads as GraphQL's `candles`.

An asset has two symbols: SEATEMP is D, the displayed price, and SEATEMP~M is M, the market price. Drafts do not exist
here. What is wrong with a request for bars is told with status 200 and `"s": "error"`, as the protocol has it.
"""

import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from app import clock
from app.db import Connection
from app.errors import quoted
from app.exchange.assets import Asset, AssetStatus
from app.exchange.reads import AssetFilter, asset_by_symbol, assets_page
from app.money import MONEY_UNIT, PRICE_UNIT
from app.paging import Window
from app.pricing.candles import Candle
from app.pricing.idle import idle_tick
from app.pricing.intervals import Interval, PriceKind, buckets
from app.pricing.reads import CANDLES_MAX, candles_before, latest_ticks
from app.ratelimit import Quota, RateLimited
from app.services import Services
from app.text import is_showable

UDF_PATH: Final = "/udf"
EXCHANGE: Final = "Megatron"
MARKET_SUFFIX: Final = "~M"
"""`~` stands in no asset's symbol, and means nothing to charting libraries."""
SEARCH_DEFAULT: Final = 30
SEARCH_MAX: Final = 100
TEXT_LENGTH_MAX: Final = 64
CANDLES_PER_POINT: Final = 500
"""Candles that one point of the rate limits pays for."""
DIGITS_SHOWN: Final = 5
"""Digits of a price that are told apart, two decimals at least."""

_RESOLUTIONS: Final = {
    "1S": Interval.S1,
    "1": Interval.M1,
    "5": Interval.M5,
    "15": Interval.M15,
    "60": Interval.H1,
    "240": Interval.H4,
    "1D": Interval.D1,
}
_ALSO: Final = {"S": "1S", "D": "1D"}
"""Short spellings that charting libraries use."""
_TYPE: Final = "index"
_INTEGER_LENGTH_MAX: Final = 15
_HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}
_EXPOSED: Final = "ratelimit, ratelimit-policy, retry-after"
_log = structlog.get_logger(__name__)


class UdfError(Exception):
    """What is wrong with a request, for the person who made it."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Visitors:
    """What the edge knows of who asks: the address that limits count, which (origin, host) may read an answer, and how
    limits are told."""

    address: Callable[[Request], str]
    may_read: Callable[[bytes, bytes], bool]
    rate_headers: Callable[[Iterable[Quota]], Iterable[tuple[bytes, bytes]]]


@dataclass(frozen=True, slots=True)
class _Symbol:
    """An asset, and which of its prices."""

    asset: Asset
    price: PriceKind

    @property
    def text(self) -> str:
        return self.asset.symbol + (MARKET_SUFFIX if self.price is PriceKind.MARKET else "")

    @property
    def description(self) -> str:
        return self.asset.name + (" (market price)" if self.price is PriceKind.MARKET else "")


class Udf:
    """The endpoints of one process."""

    def __init__(self, services: Services, visitors: Visitors) -> None:
        self._services = services
        self._visitors = visitors

    def routes(self) -> Mount:
        """The routes, all of them for GET."""
        handlers = {
            "/config": self._config,
            "/time": self._time,
            "/symbols": self._symbols,
            "/search": self._search,
            "/history": self._history,
        }
        return Mount(UDF_PATH, routes=[Route(path, self._guarded(handler)) for path, handler in handlers.items()])

    def _guarded(self, handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """The handler with its refusals and failures told, and the answer readable by pages that may read it."""

        async def answer(request: Request) -> Response:
            try:
                response = await handler(request)
            except UdfError as error:
                response = _error(str(error), error.status)
            except RateLimited as error:
                response = _error(str(error), 429)
                response.headers["retry-after"] = str(-(-error.retry_after_ms // 1000))
                self._tell_limits(response, [error.quota] if error.quota else [])
            except Exception:
                request_id = secrets.token_hex(8)
                _log.exception("udf.failed", request_id=request_id, path=request.url.path)
                response = _error(f"Something went wrong on our side; request id {request_id}.", 500)
            self._let_read(request, response)
            return response

        return answer

    def _let_read(self, request: Request, response: Response) -> None:
        origin = request.headers.get("origin")
        if origin is None:
            return
        response.headers["vary"] = "Origin"
        if self._visitors.may_read(origin.encode("latin-1"), request.headers.get("host", "").encode("latin-1")):
            response.headers["access-control-allow-origin"] = origin
            response.headers["access-control-expose-headers"] = _EXPOSED

    async def _admit(self, request: Request, points: int = 1) -> Mapping[str, str]:
        """Count the request; the headers that tell how the limits stand. Raises `RateLimited`."""
        limiter = self._services.rate_limiter
        counted = limiter.request(points=points, client_ip=self._visitors.address(request))
        state = await limiter.settle(counted, points=points)
        return {} if state is None else self._limits(state.quotas)

    def _limits(self, quotas: Iterable[Quota]) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self._visitors.rate_headers(quotas)}

    def _tell_limits(self, response: Response, quotas: Iterable[Quota]) -> None:
        response.headers.update(self._limits(quotas))

    # -------------------------------------------------------------------------------------------- the endpoints

    async def _config(self, request: Request) -> Response:
        limits = await self._admit(request)
        return _json(
            {
                "supported_resolutions": list(_RESOLUTIONS),
                "supports_search": True,
                "supports_group_request": False,
                "supports_marks": False,
                "supports_timescale_marks": False,
                "supports_time": True,
                "exchanges": [{"value": EXCHANGE, "name": EXCHANGE, "desc": EXCHANGE}],
                "symbols_types": [{"name": "Index", "value": _TYPE}],
                "currency_codes": ["USDC", "USDT"],
            },
            limits,
        )

    async def _time(self, request: Request) -> Response:
        limits = await self._admit(request)
        return Response(str(_now()), headers={**_HEADERS, **limits}, media_type="text/plain")

    async def _symbols(self, request: Request) -> Response:
        limits = await self._admit(request)
        async with self._services.database.acquire() as connection:
            symbol = await _find(connection, request)
            ticks = await latest_ticks(connection=connection, asset_ids=[symbol.asset.id])
        tick = ticks.get(symbol.asset.id) or idle_tick(symbol.asset, clock.now())
        price = tick.display if symbol.price is PriceKind.DISPLAY else tick.market
        return _json(_symbol_info(symbol, price), limits)

    async def _search(self, request: Request) -> Response:
        limits = await self._admit(request)
        limit = _integer(request, "limit", SEARCH_DEFAULT, minimum=1)
        text = _plain(request.query_params.get("query", ""))
        type_, exchange = (request.query_params.get(name, "").lower() for name in ("type", "exchange"))
        found: list[_Symbol] = []
        if type_ in ("", _TYPE) and exchange in ("", EXCHANGE.lower()) and _is_storable(text):
            filters = AssetFilter(drafts=False, search=text or None)
            async with self._services.database.acquire() as connection:
                page = await assets_page(connection=connection, filters=filters, window=Window(min(limit, SEARCH_MAX)))
            found = [_Symbol(asset, price) for asset in page.rows for price in PriceKind]
        return _json([_search_result(symbol) for symbol in found[: min(limit, SEARCH_MAX)]], limits)

    async def _history(self, request: Request) -> Response:
        try:
            wanted = _Bars.of(request)
        except UdfError as error:
            # Counted all the same: a request that is wrong is not free.
            return _error(str(error), 200, await self._admit(request))
        limits = await self._admit(request, wanted.points)
        async with self._services.database.acquire() as connection:
            try:
                symbol = await _find(connection, request)
            except UdfError as error:
                return _error(str(error), 200, limits)
            candles = await wanted.read(connection, symbol)
            if len(candles) > CANDLES_MAX:
                return _error(
                    f"There are more than {CANDLES_MAX} bars from {wanted.since} to {wanted.to}: ask for less at a "
                    "time, or for the last ones by countback.", 200, limits,
                )  # fmt: skip
            if candles:
                return _json(_table(candles), limits)
            earlier = await wanted.read_earlier(connection, symbol)
        return _json({"s": "no_data"} | ({"nextTime": earlier[0].time} if earlier else {}), limits)


@dataclass(frozen=True, slots=True)
class _Bars:
    """The bars that are asked for: the last `limit` with `since` <= time < `to`."""

    interval: Interval
    since: int
    to: int
    limit: int
    points: int

    @classmethod
    def of(cls, request: Request) -> "_Bars":
        """What the query string asks for. Raises `UdfError`."""
        asked = request.query_params.get("resolution", "")
        interval = _RESOLUTIONS.get(_ALSO.get(asked, asked))
        if interval is None:
            raise UdfError(f"resolution must be one of {', '.join(_RESOLUTIONS)}; got {quoted(asked)}.")
        to = _integer(request, "to")
        if request.query_params.get("countback"):
            # More than the most are not refused: a chart asks again for what lies before.
            count = min(_integer(request, "countback", minimum=1), CANDLES_MAX)
            return cls(interval, 0, to, count, _points(count))
        since = _integer(request, "from")
        if since > to:
            raise UdfError(f"from must not be after to; got from {since} and to {to}.")
        count = min(buckets(interval, since, to), CANDLES_MAX)
        return cls(interval, since, to, CANDLES_MAX + 1, _points(count))

    async def read(self, connection: Connection, symbol: _Symbol) -> list[Candle]:
        """The bars."""
        return await self._read(connection, symbol, self.since, self.to, self.limit)

    async def read_earlier(self, connection: Connection, symbol: _Symbol) -> list[Candle]:
        """The bar before all that is asked for, if there is one."""
        return await self._read(connection, symbol, 0, self.since, 1) if self.since else []

    async def _read(self, connection: Connection, symbol: _Symbol, since: int, to: int, limit: int) -> list[Candle]:
        return await candles_before(
            connection=connection, asset_id=symbol.asset.id, interval=self.interval, price=symbol.price,
            since=since, to=to, limit=limit, now=_now(),
        )  # fmt: skip


# ------------------------------------------------------------------------------------------------ what is asked


async def _find(connection: Connection, request: Request) -> _Symbol:
    """The asset and price that `symbol` names. Raises `UdfError` (404)."""
    asked = request.query_params.get("symbol", "")
    text = asked.strip().upper().removeprefix(f"{EXCHANGE.upper()}:")
    price = PriceKind.MARKET if text.endswith(MARKET_SUFFIX) else PriceKind.DISPLAY
    text = text.removesuffix(MARKET_SUFFIX)
    asset = await asset_by_symbol(connection=connection, symbol=text) if _is_storable(text) else None
    if asset is None or asset.status is AssetStatus.DRAFT:
        raise UdfError(f"unknown_symbol {quoted(asked)}", status=404)
    return _Symbol(asset, price)


def _plain(query: str) -> str:
    """What is looked for, without what belongs to this protocol alone."""
    text = query.strip()
    if text.upper().startswith(f"{EXCHANGE.upper()}:"):
        text = text[len(EXCHANGE) + 1 :]
    return text.split("~", 1)[0]


def _is_storable(text: str) -> bool:
    return len(text) <= TEXT_LENGTH_MAX and all(is_showable(character) for character in text)


def _integer(request: Request, name: str, default: int | None = None, *, minimum: int = 0) -> int:
    """A parameter that is a whole number. Raises `UdfError`."""
    text = request.query_params.get(name, "")
    if not text and default is not None:
        return default
    if text.isascii() and text.isdigit() and len(text) <= _INTEGER_LENGTH_MAX and int(text) >= minimum:
        return int(text)
    raise UdfError(f"{name} must be a whole number, {minimum} or more; got {quoted(text)}.")


def _points(candles: int) -> int:
    return 1 + max(0, candles - 1) // CANDLES_PER_POINT


def _now() -> int:
    return int(clock.now().timestamp())


# ------------------------------------------------------------------------------------------------ what is answered


def _symbol_info(symbol: _Symbol, price: int) -> dict[str, object]:
    return {
        "name": symbol.text,
        "ticker": symbol.text,
        "description": symbol.description,
        "type": _TYPE,
        "exchange": EXCHANGE,
        "listed_exchange": EXCHANGE,
        "timezone": "Etc/UTC",
        "session": "24x7",
        "format": "price",
        "minmov": 1,
        "pricescale": 10 ** decimals_shown(price),
        "has_intraday": True,
        "intraday_multipliers": ["1", "5", "15", "60", "240"],
        "has_seconds": True,
        "seconds_multipliers": ["1"],
        "has_daily": True,
        "daily_multipliers": ["1"],
        "has_weekly_and_monthly": False,
        "supported_resolutions": list(_RESOLUTIONS),
        "visible_plots_set": "ohlcv",
        "volume_precision": 2,
        "currency_code": symbol.asset.quote_currency,
        "data_status": "streaming",
    }


def decimals_shown(price: int) -> int:
    """How many decimals a chart shows of prices of this magnitude (10^-12): 2 to 12, five digits or more in all."""
    digits = len(str(price)) - len(str(PRICE_UNIT)) + 1  # before the point; 0 and less below one
    return min(max(DIGITS_SHOWN - digits, 2), len(str(PRICE_UNIT)) - 1)


def _search_result(symbol: _Symbol) -> dict[str, str]:
    return {
        "symbol": symbol.text,
        "full_name": f"{EXCHANGE.upper()}:{symbol.text}",
        "description": symbol.description,
        "exchange": EXCHANGE,
        "ticker": symbol.text,
        "type": _TYPE,
    }


def _table(candles: list[Candle]) -> dict[str, object]:
    return {
        "s": "ok",
        "t": [candle.time for candle in candles],
        "o": [candle.open / PRICE_UNIT for candle in candles],
        "h": [candle.high / PRICE_UNIT for candle in candles],
        "l": [candle.low / PRICE_UNIT for candle in candles],
        "c": [candle.close / PRICE_UNIT for candle in candles],
        "v": [candle.volume / MONEY_UNIT for candle in candles],
    }


def _json(content: Any, limits: Mapping[str, str], status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, {**_HEADERS, **limits}, "application/json")


def _error(message: str, status: int, limits: Mapping[str, str] | None = None) -> Response:
    return _json({"s": "error", "errmsg": message}, limits or {}, status)
