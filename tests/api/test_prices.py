"""The history of prices as everybody sees it: ticks, candles, and what an asset's price and day are made of."""

from datetime import UTC, datetime, timedelta

import pytest

from api.limits import COUNT_BACK_MAX
from api.node_ids import node_id
from app.db import Database
from app.exchange.assets import AssetStatus
from tests.api.harness import Answer, Api
from tests.factories import new_account, new_admin, new_asset
from tests.pricing.history import Move, every, write_history

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOON_S = int(NOON.timestamp())
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)

TICKS = """query ($id: ID!, $after: Seq!, $first: Int! = 500) { ticks(assetId: $id, afterSeq: $after, first: $first) {
  assetId seq cause tradeSeq at display market fundamental marketWeight volume fundamentalStale } }"""
SEQS = """query ($id: ID!, $after: Seq!, $first: Int! = 500) {
  ticks(assetId: $id, afterSeq: $after, first: $first) { seq } }"""
CANDLES = """
query ($id: ID!, $interval: Interval! = M1, $price: PriceKind! = DISPLAY, $from: UnixSeconds, $to: UnixSeconds,
       $countBack: Int) {
  candles(assetId: $id, interval: $interval, price: $price, from: $from, to: $to, countBack: $countBack) {
    noData nextTime candles { %s } } }
"""
ALL_OF_THEM = CANDLES % "assetId interval time open high low close volume trades closed"
TIMES = CANDLES % "time"
PRICE = """query ($id: ID) { asset(id: $id) {
  price { assetId seq cause tradeSeq at display market fundamental marketWeight volume fundamentalStale }
  stats24h { volume trades open high low close change } } }"""


# ------------------------------------------------------------------------------------------------ ticks


async def test_ticks_are_shown_exactly(api: Api, database: Database) -> None:
    asset_id = await new_asset(database)
    await write_history(database, asset_id, [Move(NOON, 2), Move(NOON + SECOND / 8, 3, volume=7, market=5)])
    id_ = node_id("Asset", asset_id)

    assert await api.data(TICKS, {"id": id_, "after": 0}) == {
        "ticks": [
            {
                "assetId": id_, "seq": 1, "cause": "OPEN", "tradeSeq": 0, "at": "2026-03-01T12:00:00Z", "display": "2",
                "market": "4", "fundamental": "1", "marketWeight": "0.5", "volume": "0", "fundamentalStale": False,
            },
            {
                "assetId": id_, "seq": 2, "cause": "TRADE", "tradeSeq": 1, "at": "2026-03-01T12:00:00.125000Z",
                "display": "3", "market": "5", "fundamental": "1", "marketWeight": "0.5", "volume": "7",
                "fundamentalStale": False,
            },
        ]
    }  # fmt: skip


async def test_ticks_page_by_seq_until_there_are_no_more(api: Api, database: Database) -> None:
    asset_id = await new_asset(database)
    await write_history(database, asset_id, every(1, NOON, range(1, 8)))

    async def seqs(after: int, first: int) -> list[int]:
        data = await api.data(SEQS, {"id": node_id("Asset", asset_id), "after": after, "first": first})
        return [tick["seq"] for tick in data["ticks"]]

    assert await seqs(0, 3) == [1, 2, 3]
    assert await seqs(3, 3) == [4, 5, 6]
    assert await seqs(6, 3) == [7]
    assert await seqs(7, 3) == []
    assert await seqs(2**53 - 1, 500) == []
    # the asset, its ticks
    assert len(api.statements) == 2


@pytest.mark.parametrize("first", [0, -1, 501])
async def test_how_many_ticks_has_bounds(api: Api, database: Database, first: int) -> None:
    variables = {"id": node_id("Asset", await new_asset(database)), "after": 0, "first": first}

    assert await api.refusal(SEQS, variables) == (
        "ticks", "BAD_USER_INPUT", f"first must be between 1 and 500; got {first}."
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ candles


async def test_candles_are_shown_exactly_the_open_one_too(api: Api, database: Database) -> None:
    asset_id = await new_asset(database)
    now = datetime.now(UTC)
    minute = now.replace(second=0, microsecond=0)
    # However late in its minute the test runs: the last tick is of this minute or the one after.
    opened = now if now.second < 50 else minute + MINUTE
    await write_history(
        database,
        asset_id,
        [Move(NOON, 2, market=9), Move(NOON + SECOND, 5, volume=3, market=8), Move(opened, 4, market=7)],
    )
    id_ = node_id("Asset", asset_id)
    closed = {"assetId": id_, "interval": "M1", "time": NOON_S, "volume": "3", "trades": 1, "closed": True}
    current = {
        "assetId": id_, "interval": "M1", "time": int(opened.timestamp()) // 60 * 60, "volume": "0", "trades": 0,
        "closed": False,
    }  # fmt: skip

    display = await api.data(ALL_OF_THEM, {"id": id_, "countBack": 10})
    # the asset, its candles
    assert len(api.statements) == 2
    assert display["candles"] == {
        "noData": False,
        "nextTime": None,
        "candles": [
            {**closed, "open": "2", "high": "5", "low": "2", "close": "5"},
            {**current, "open": "4", "high": "4", "low": "4", "close": "4"},
        ],
    }
    market = await api.data(ALL_OF_THEM, {"id": id_, "countBack": 10, "price": "MARKET"})
    assert market["candles"]["candles"] == [
        {**closed, "open": "9", "high": "9", "low": "8", "close": "8"},
        {**current, "open": "7", "high": "7", "low": "7", "close": "7"},
    ]


async def test_a_range_or_a_number_of_candles_that_outranks_it(api: Api, database: Database) -> None:
    asset_id = await new_asset(database)
    await write_history(database, asset_id, every(60, NOON, [*range(1, 7)]) + every(60, NOON + 60 * MINUTE, [7, 8]))

    async def minutes(**variables: int) -> list[int]:
        asked = {name: value if name == "countBack" else NOON_S + 60 * value for name, value in variables.items()}
        series = (await api.data(TIMES, {"id": node_id("Asset", asset_id), **asked}))["candles"]
        assert (series["noData"], series["nextTime"]) == (not series["candles"], None)
        return [(candle["time"] - NOON_S) // 60 for candle in series["candles"]]

    assert await minutes() == [0, 1, 2, 3, 4, 5, 60, 61]
    assert await minutes(to=60) == [0, 1, 2, 3, 4, 5]
    assert await minutes(**{"from": 2, "to": 5}) == [2, 3, 4]
    assert await minutes(to=5, countBack=2) == [3, 4]
    assert await minutes(**{"from": 60, "to": 61, "countBack": 3}) == [4, 5, 60]
    assert await minutes(countBack=COUNT_BACK_MAX) == [0, 1, 2, 3, 4, 5, 60, 61]
    assert await minutes(to=0, countBack=5) == []


async def test_where_there_is_nothing_the_nearest_earlier_candle_is_told(api: Api, database: Database) -> None:
    asset_id, untouched = await new_asset(database), await new_asset(database)
    await write_history(database, asset_id, every(600, NOON, [1, 2]))

    async def told(asset: int, since: int, to: int) -> tuple[bool, int | None]:
        variables = {"id": node_id("Asset", asset), "from": NOON_S + since, "to": NOON_S + to}
        series = (await api.data(TIMES, variables))["candles"]
        assert series["candles"] == []
        return series["noData"], series["nextTime"]

    assert await told(asset_id, 60, 600) == (True, NOON_S)
    assert await told(asset_id, 1, 60) == (True, NOON_S)
    assert await told(asset_id, 660, 900) == (True, NOON_S + 600)
    assert await told(asset_id, 660, 660) == (True, NOON_S + 600)
    assert await told(asset_id, -600, 0) == (True, None)
    assert await told(untouched, 0, 900) == (True, None)


async def test_what_can_never_be_given_is_refused(api: Api, database: Database) -> None:
    id_ = node_id("Asset", await new_asset(database))

    async def refused(**variables: object) -> str:
        path, code, message = await api.refusal(TIMES, {"id": id_, **variables})
        assert (path, code) == ("candles", "BAD_USER_INPUT")
        return message

    for count in (0, -3, COUNT_BACK_MAX + 1):
        assert await refused(countBack=count) == f"countBack must be between 1 and {COUNT_BACK_MAX}; got {count}."
    assert await refused(**{"from": 61, "to": 60}) == "from must not be after to; got from: 61 and to: 60."
    assert await refused(**{"from": 0, "to": 5_001, "interval": "S1"}) == (
        "From 0 to 5001 there is time for 5001 candles of S1, and at most 5000 are given: ask for less, or for the "
        "last ones by countBack."
    )
    assert "From 0 to now there is time for " in await refused(**{"from": 0})


async def test_every_interval_can_be_asked_for(api: Api, database: Database) -> None:
    asset_id = await new_asset(database)
    await write_history(database, asset_id, every(6 * 3_600, NOON, range(1, 9)))

    async def counted(interval: str) -> tuple[int, int]:
        series = (await api.data(TIMES, {"id": node_id("Asset", asset_id), "interval": interval}))["candles"]
        times = [candle["time"] for candle in series["candles"]]
        return len(times), times[-1] - NOON_S

    last = 7 * 6 * 3_600
    for interval in ("S1", "M1", "M5", "M15", "H1"):
        assert await counted(interval) == (8, last)
    assert await counted("H4") == (8, last - 2 * 3_600)
    # 12:00 and 18:00; four more days' worth of 00:00, 06:00, 12:00 and 18:00
    assert await counted("D1") == (3, last - 6 * 3_600)


# ------------------------------------------------------------------------------------------------ who may see them


async def test_drafts_and_what_does_not_exist_have_no_history(api: Api, database: Database) -> None:
    draft = await new_asset(database, status=AssetStatus.DRAFT)
    await write_history(database, draft, every(60, NOON, [1, 2]))
    admin, trader = await new_admin(database), await new_account(database)
    nothing: Answer = {"noData": True, "nextTime": None, "candles": []}
    later = {"from": NOON_S + 600, "to": NOON_S + 900}

    for id_, principal in (
        (node_id("Asset", draft), trader),
        (node_id("Asset", 10**15), admin),
        (node_id("Account", draft), admin),
        ("", admin),
    ):
        assert await api.data(SEQS, {"id": id_, "after": 0}, principal=principal) == {"ticks": []}
        assert await api.data(TIMES, {"id": id_}, principal=principal) == {"candles": nothing}
        assert await api.data(TIMES, {"id": id_, **later}, principal=principal) == {"candles": nothing}

    id_ = node_id("Asset", draft)
    seen = await api.data(SEQS, {"id": id_, "after": 0}, principal=admin)
    assert seen == {"ticks": [{"seq": 1}, {"seq": 2}]}
    told = await api.data(TIMES, {"id": id_, **later}, principal=admin)
    assert told == {"candles": {**nothing, "nextTime": NOON_S + 60}}


# ------------------------------------------------------------------------------------------------ an asset's own


async def test_an_assets_price_is_its_last_tick_and_its_day_comes_from_the_candles(
    api: Api, database: Database
) -> None:
    asset_id = await new_asset(database)
    now = datetime.now(UTC).replace(microsecond=0)
    moves = [
        Move(now - timedelta(hours=30), 4),
        Move(now - timedelta(hours=3), 8, volume=10),
        Move(now - timedelta(seconds=2), 5, volume=2, market=6),
    ]
    await write_history(database, asset_id, moves)
    id_ = node_id("Asset", asset_id)

    assert (await api.data(PRICE, {"id": id_}))["asset"] == {
        "price": {
            "assetId": id_, "seq": 3, "cause": "TRADE", "tradeSeq": 2,
            "at": moves[-1].at.isoformat().replace("+00:00", "Z"), "display": "5", "market": "6", "fundamental": "1",
            "marketWeight": "0.5", "volume": "2", "fundamentalStale": False,
        },
        "stats24h": {
            "volume": "12", "trades": 2, "open": "4", "high": "8", "low": "4", "close": "5", "change": "0.25",
        },
    }  # fmt: skip
    # the asset, its last tick, its day
    assert len(api.statements) == 3
