"""TradingView's UDF protocol, over HTTP: exact values, what is wrong, and who may not see what."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from app.db import Database
from app.exchange.assets import AssetStatus
from app.local.valkey import EmbeddedValkey
from app.main import Application
from app.money import PRICE_UNIT
from app.pricing.reads import CANDLES_MAX
from app.ratelimit import RateLimiter
from app.telemetry import Metrics
from app.udf import SEARCH_MAX, decimals_shown
from tests.api.harness import Api
from tests.conftest import LiveApi, make_settings
from tests.factories import load_asset, new_asset
from tests.pricing.history import Move, every, write_history

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOON_S = int(NOON.timestamp())
FRONTEND = "https://charts.example"
RESOLUTIONS = ["1S", "1", "5", "15", "60", "240", "1D"]


@pytest.fixture
async def udf(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(api) as client:
        yield client


def client_of(api: Api, **changes: object) -> httpx.AsyncClient:
    """A client of an application of one's own, with other services where `changes` says so."""
    settings = make_settings(allowed_origins=[FRONTEND])
    metrics = Metrics(version="0", environment="development")
    services = replace(api.services, settings=settings, metrics=metrics, **changes)  # type: ignore[arg-type]
    transport = httpx.ASGITransport(Application(services))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000/udf")


async def symbol_of(database: Database, asset_id: int) -> str:
    return (await load_asset(database, asset_id)).symbol


async def bars(udf: httpx.AsyncClient, **asked: object) -> dict[str, Any]:
    answer = await udf.get("/history", params={name.rstrip("_"): str(value) for name, value in asked.items()})
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


# ------------------------------------------------------------------------------------------------ what is offered


async def test_the_configuration_says_what_is_offered(udf: httpx.AsyncClient) -> None:
    answer = await udf.get("/config")

    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "supported_resolutions": RESOLUTIONS,
        "supports_search": True,
        "supports_group_request": False,
        "supports_marks": False,
        "supports_timescale_marks": False,
        "supports_time": True,
        "exchanges": [{"value": "Megatron", "name": "Megatron", "desc": "Megatron"}],
        "symbols_types": [{"name": "Index", "value": "index"}],
        "currency_codes": ["USDC", "USDT"],
    }


async def test_the_time_is_plain_seconds(udf: httpx.AsyncClient) -> None:
    before = int(datetime.now(UTC).timestamp())
    answer = await udf.get("/time")

    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert before <= int(answer.text) <= datetime.now(UTC).timestamp()


async def test_a_symbol_is_an_asset_and_one_of_its_prices(udf: httpx.AsyncClient, database: Database) -> None:
    asset_id = await new_asset(database)
    await write_history(database, asset_id, [Move(NOON, 2, market=40)])
    symbol = await symbol_of(database, asset_id)
    expected = {
        "name": symbol, "ticker": symbol, "description": f"Asset {symbol[1:]}", "type": "index",
        "exchange": "Megatron", "listed_exchange": "Megatron", "timezone": "Etc/UTC", "session": "24x7",
        "format": "price", "minmov": 1, "pricescale": 10_000, "has_intraday": True,
        "intraday_multipliers": ["1", "5", "15", "60", "240"], "has_seconds": True, "seconds_multipliers": ["1"],
        "has_daily": True, "daily_multipliers": ["1"], "has_weekly_and_monthly": False,
        "supported_resolutions": RESOLUTIONS, "visible_plots_set": "ohlcv", "volume_precision": 2,
        "currency_code": "USDC", "data_status": "streaming",
    }  # fmt: skip

    for spelling in (symbol, symbol.lower(), f"MEGATRON:{symbol}", f"Megatron:{symbol}"):
        assert (await udf.get("/symbols", params={"symbol": spelling})).json() == expected
    market = (await udf.get("/symbols", params={"symbol": f"{symbol}~M"})).json()
    assert market == {
        **expected,
        "name": f"{symbol}~M",
        "ticker": f"{symbol}~M",
        "description": f"Asset {symbol[1:]} (market price)",
        "pricescale": 1_000,
    }
    unticked = await symbol_of(database, await new_asset(database, base_price="2500"))
    assert (await udf.get("/symbols", params={"symbol": unticked})).json()["pricescale"] == 100


@pytest.mark.parametrize(
    ("price", "decimals"),
    [
        (1, 12), (10**6, 10), (PRICE_UNIT // 10, 5), (PRICE_UNIT - 1, 5), (PRICE_UNIT, 4), (10 * PRICE_UNIT, 3),
        (100 * PRICE_UNIT, 2), (10**9 * PRICE_UNIT, 2),
    ],
)  # fmt: skip
def test_decimals_follow_the_magnitude_of_the_price(price: int, decimals: int) -> None:
    assert decimals_shown(price) == decimals


async def test_search_finds_both_prices_of_an_asset(udf: httpx.AsyncClient, database: Database) -> None:
    symbol = await symbol_of(database, await new_asset(database))
    display = {
        "symbol": symbol, "full_name": f"MEGATRON:{symbol}", "description": f"Asset {symbol[1:]}",
        "exchange": "Megatron", "ticker": symbol, "type": "index",
    }  # fmt: skip
    market = {
        **display, "symbol": f"{symbol}~M", "full_name": f"MEGATRON:{symbol}~M", "ticker": f"{symbol}~M",
        "description": f"Asset {symbol[1:]} (market price)",
    }  # fmt: skip

    async def found(**asked: str) -> Any:
        return (await udf.get("/search", params={"query": symbol, **asked})).json()

    both = await found()
    assert both[:2] == [display, market]
    assert await found(limit="1") == [display]
    assert (await found(query=f"megatron:{symbol.lower()}~m"))[:2] == both[:2]
    assert await found(type="index", exchange="Megatron", limit="2") == [display, market]
    assert await found(type="stock") == await found(exchange="ELSEWHERE") == await found(query="T\x001") == []
    assert await found(query="x" * 65) == await found(query="no such thing") == []
    assert len(await found(query="", limit="1000")) <= SEARCH_MAX


# ------------------------------------------------------------------------------------------------ bars


async def test_bars_are_a_table_of_numbers(udf: httpx.AsyncClient, database: Database) -> None:
    asset_id = await new_asset(database)
    moves = [Move(NOON, 2, market=9), Move(NOON + timedelta(seconds=9), 5, volume=3, market=8)]
    await write_history(database, asset_id, [*moves, Move(NOON + timedelta(minutes=2), 4, market=7)])
    async with database.acquire() as connection:
        # A price that no short decimal is: the number that is nearest to it.
        await connection.execute(
            "UPDATE candles SET open = 2718281828459, low = 2000000000001 WHERE asset_id = $1 AND \"interval\" = 'M1'",
            asset_id,
        )
    symbol = await symbol_of(database, asset_id)

    display = await bars(udf, symbol=symbol, resolution="1", from_=NOON_S, to=NOON_S + 121)
    market = await bars(udf, symbol=f"{symbol}~M", resolution="1", from_=NOON_S, to=NOON_S + 121)

    assert display == {
        "s": "ok", "t": [NOON_S, NOON_S + 120], "o": [2.718281828459, 4.0], "h": [5.0, 4.0],
        "l": [2.000000000001, 4.0], "c": [5.0, 4.0], "v": [3.0, 0.0],
    }  # fmt: skip
    assert market == {
        "s": "ok", "t": [NOON_S, NOON_S + 120], "o": [9.0, 7.0], "h": [9.0, 7.0], "l": [8.0, 7.0], "c": [8.0, 7.0],
        "v": [3.0, 0.0],
    }  # fmt: skip


async def test_a_range_ends_before_to_and_countback_outranks_from(udf: httpx.AsyncClient, database: Database) -> None:
    asset_id = await new_asset(database)
    await write_history(database, asset_id, every(60, NOON, range(1, 7)))
    symbol = await symbol_of(database, asset_id)

    async def closes(since: int, to: int, **more: object) -> list[float]:
        asked = {"symbol": symbol, "resolution": "1", "from_": NOON_S + since, "to": NOON_S + to, **more}
        found: list[float] = (await bars(udf, **asked))["c"]
        return found

    assert await closes(0, 360) == [1, 2, 3, 4, 5, 6]
    assert await closes(60, 300) == [2, 3, 4, 5]
    assert await closes(300, 301) == [6]
    assert await closes(300, 301, countback=3) == [4, 5, 6]
    assert await closes(0, 300, countback=2) == [4, 5]
    assert await closes(10**6, 300, countback=2) == [4, 5]
    assert await closes(0, 10**6, countback=10**9) == [1, 2, 3, 4, 5, 6]


async def test_every_resolution_is_answered(udf: httpx.AsyncClient, database: Database) -> None:
    asset_id = await new_asset(database)
    await write_history(database, asset_id, every(6 * 3_600, NOON, range(1, 9)))
    symbol = await symbol_of(database, asset_id)

    found = {
        resolution: (await bars(udf, symbol=symbol, resolution=resolution, to=NOON_S * 2, countback=9))["c"]
        for resolution in (*RESOLUTIONS, "S", "D")
    }

    days = {"1D": [2, 6, 8], "D": [2, 6, 8]}
    assert found == {each: [1, 2, 3, 4, 5, 6, 7, 8] for each in ("S", *RESOLUTIONS)} | days


async def test_where_there_are_no_bars_the_nearest_earlier_one_is_told(
    udf: httpx.AsyncClient, database: Database
) -> None:
    asset_id = await new_asset(database)
    await write_history(database, asset_id, every(600, NOON, [1, 2]))
    asked = {"symbol": await symbol_of(database, asset_id), "resolution": "1"}

    later = await bars(udf, **asked, from_=NOON_S + 660, to=NOON_S + 900)
    between = await bars(udf, **asked, from_=NOON_S + 60, to=NOON_S + 600)
    before = await bars(udf, **asked, from_=NOON_S - 900, to=NOON_S)
    counted = await bars(udf, **asked, from_=NOON_S - 900, to=NOON_S, countback=10)

    assert later == {"s": "no_data", "nextTime": NOON_S + 600}
    assert between == {"s": "no_data", "nextTime": NOON_S}
    assert before == counted == {"s": "no_data"}


async def test_more_bars_than_are_given_at_once_are_refused_and_counted_back_instead(
    udf: httpx.AsyncClient, database: Database
) -> None:
    asset_id = await new_asset(database)
    await write_history(database, asset_id, [Move(NOON, 1)])
    async with database.acquire() as connection:
        await connection.execute(
            "INSERT INTO candles SELECT $1, 'M1', t, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0"
            " FROM generate_series(0::bigint, 60 * $2::bigint, 60) t",
            asset_id, CANDLES_MAX,
        )  # fmt: skip
    asked = {"symbol": await symbol_of(database, asset_id), "resolution": "1"}
    end = 60 * CANDLES_MAX + 1

    assert await bars(udf, **asked, from_=0, to=end) == {
        "s": "error",
        "errmsg": f"There are more than {CANDLES_MAX} bars from 0 to {end}: ask for less at a time, or for the last "
        "ones by countback.",
    }
    assert len((await bars(udf, **asked, from_=1, to=end))["t"]) == CANDLES_MAX
    back = (await bars(udf, **asked, from_=0, to=end, countback=CANDLES_MAX + 7))["t"]
    assert (len(back), back[-1]) == (CANDLES_MAX, 60 * CANDLES_MAX)


# ------------------------------------------------------------------------------------------------ what is wrong


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"resolution": "2"}, "resolution must be one of 1S, 1, 5, 15, 60, 240, 1D; got '2'."),
        ({"resolution": ""}, "resolution must be one of 1S, 1, 5, 15, 60, 240, 1D; got ''."),
        ({"to": ""}, "to must be a whole number, 0 or more; got ''."),
        ({"to": "1e9"}, "to must be a whole number, 0 or more; got '1e9'."),
        ({"to": "-1"}, "to must be a whole number, 0 or more; got '-1'."),
        ({"to": "9" * 16}, "to must be a whole number, 0 or more; got '9999999999999999'."),
        ({"from": "٣"}, "from must be a whole number, 0 or more; got '٣'."),
        ({"from": "61"}, "from must not be after to; got from 61 and to 60."),
        ({"countback": "0"}, "countback must be a whole number, 1 or more; got '0'."),
        ({"symbol": "NOTHING"}, "unknown_symbol 'NOTHING'"),
        ({"symbol": ""}, "unknown_symbol ''"),
        ({"symbol": "A\x00"}, "unknown_symbol 'A\x00'"),
    ],
)
async def test_what_is_wrong_with_a_request_for_bars_is_told(
    udf: httpx.AsyncClient, database: Database, asked: dict[str, str], message: str
) -> None:
    symbol = await symbol_of(database, await new_asset(database))
    right = {"symbol": symbol, "resolution": "1", "from": "0", "to": "60"}

    assert await bars(udf, **{**right, **asked}) == {"s": "error", "errmsg": message}


async def test_symbols_that_do_not_exist_are_404_and_a_bad_limit_is_400(udf: httpx.AsyncClient) -> None:
    unknown = await udf.get("/symbols", params={"symbol": "NOTHING"})
    missing = await udf.get("/symbols")
    limit = await udf.get("/search", params={"query": "x", "limit": "0"})

    assert (unknown.status_code, unknown.json()) == (404, {"s": "error", "errmsg": "unknown_symbol 'NOTHING'"})
    assert (missing.status_code, missing.json()) == (404, {"s": "error", "errmsg": "unknown_symbol ''"})
    assert (limit.status_code, limit.json()) == (
        400, {"s": "error", "errmsg": "limit must be a whole number, 1 or more; got '0'."}
    )  # fmt: skip
    assert (await udf.get("/nothing")).status_code == 404
    assert (await udf.post("/config")).status_code == 405


async def test_drafts_do_not_exist(udf: httpx.AsyncClient, database: Database) -> None:
    asset_id = await new_asset(database, status=AssetStatus.DRAFT)
    await write_history(database, asset_id, every(60, NOON, [1, 2]))
    symbol = await symbol_of(database, asset_id)

    for text in (symbol, f"{symbol}~M"):
        unknown = {"s": "error", "errmsg": f"unknown_symbol '{text}'"}
        assert await bars(udf, symbol=text, resolution="1", from_=0, to=NOON_S * 2) == unknown
        assert (await udf.get("/symbols", params={"symbol": text})).json() == unknown
    assert symbol not in [each["symbol"] for each in (await udf.get("/search", params={"query": symbol})).json()]


# ------------------------------------------------------------------------------------------------ the edge


@pytest.mark.parametrize("path", ["/config", "/time", "/symbols?symbol=NOTHING", "/search?query=x", "/history"])
async def test_pages_of_allowed_origins_may_read_answers_and_refusals(udf: httpx.AsyncClient, path: str) -> None:
    allowed = await udf.get(path, headers={"origin": FRONTEND})
    own = await udf.get(path, headers={"origin": "http://127.0.0.1:8000"})
    other = await udf.get(path, headers={"origin": "https://evil.example"})
    none = await udf.get(path)

    assert allowed.headers["access-control-allow-origin"] == FRONTEND
    assert allowed.headers["access-control-expose-headers"] == "ratelimit, ratelimit-policy, retry-after"
    assert own.headers["access-control-allow-origin"] == "http://127.0.0.1:8000"
    assert "access-control-allow-origin" not in other.headers
    assert [answer.headers.get("vary") for answer in (allowed, own, other, none)] == ["Origin"] * 3 + [None]
    assert (allowed.headers["cache-control"], allowed.headers["x-content-type-options"]) == ("no-store", "nosniff")


@pytest.fixture
async def redis(valkey: EmbeddedValkey) -> AsyncIterator[Redis]:
    client: Redis = Redis.from_url(valkey.url)
    await client.flushall()
    yield client
    await client.aclose()


async def test_requests_are_counted_by_address(api: Api, database: Database, redis: Redis) -> None:
    symbol = await symbol_of(database, await new_asset(database))
    limiter = RateLimiter(redis, make_settings(rate_limits=True, rate_limit_per_ip_minute=13))
    history = {"symbol": symbol, "resolution": "1", "to": "60"}

    async with client_of(api, rate_limiter=limiter) as udf:
        config = await udf.get("/config")
        large = await udf.get("/history", params={**history, "countback": "5000"})
        wrong = await udf.get("/history", params={**history, "resolution": "2"})
        last = await udf.get("/time")
        refused = await udf.get("/time", headers={"origin": FRONTEND})
    await limiter.close()

    assert config.headers["ratelimit-policy"] == '"address";q=13;w=60'
    remaining = [answer.headers["ratelimit"].split(";")[1] for answer in (config, large, wrong, last, refused)]
    assert remaining == ["r=12", "r=2", "r=1", "r=0", "r=0"]
    assert (refused.status_code, refused.json()["s"]) == (429, "error")
    assert refused.json()["errmsg"].startswith("Too many requests: 13 points a minute from this address are allowed;")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["access-control-allow-origin"] == FRONTEND


async def test_a_failure_tells_an_id_and_nothing_else(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    class Broken:
        def acquire(self) -> object:
            raise RuntimeError("the secret is here")

    async with client_of(api, database=Broken()) as client:
        answer = await client.get("/symbols", params={"symbol": "X"})

    message = answer.json()["errmsg"]
    assert (answer.status_code, message[:45]) == (500, "Something went wrong on our side; request id ")
    assert message.split()[-1].rstrip(".") in capsys.readouterr().out


async def test_it_is_served_over_http(live_api: LiveApi) -> None:
    database = await Database.connect(live_api.database_url, pool_max=2)
    asset_id = await new_asset(database)
    await write_history(database, asset_id, every(60, NOON, [1, 2]))
    symbol = await symbol_of(database, asset_id)
    await database.close()

    async with httpx.AsyncClient(base_url=f"{live_api.url}/udf") as client:
        found = await bars(client, symbol=symbol, resolution="1", from_=NOON_S, to=NOON_S + 60)
        head = await client.head("/config")
    assert found == {"s": "ok", "t": [NOON_S], "o": [1.0], "h": [1.0], "l": [1.0], "c": [1.0], "v": [0.0]}
    assert (head.status_code, head.content) == (200, b"")
