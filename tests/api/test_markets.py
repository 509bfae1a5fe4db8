"""Assets, their prices and statistics, trades and quotes, as everybody sees them."""

from datetime import UTC, datetime

import pytest

from api.node_ids import node_id
from app.admin.asset_input import AssetChanges
from app.db import Database
from app.exchange.assets import AssetStatus
from app.exchange.orders import Side
from app.exchange.settlement import Settlement
from tests.api.harness import Api
from tests.factories import load_asset, new_account, new_admin, new_asset, place_order, update_asset

ASSET = "query ($id: ID, $symbol: String) { asset(id: $id, symbol: $symbol) { id symbol status } }"
ASSETS = """
query ($ids: [ID!], $first: Int, $after: String, $last: Int, $before: String) {
  assets(ids: $ids, first: $first, after: $after, last: $last, before: $before) {
    totalCount
    nodes { id }
    edges { cursor node { id } }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""


async def test_an_asset_shows_one_exact_snapshot(api: Api, database: Database, settlement: Settlement) -> None:
    asset_id = await new_asset(database, fee_rate="0.01")
    trader = await new_account(database, usdc="1000")
    await place_order(settlement, trader, asset_id, shares="100")

    asset = (
        await api.data(
            """query ($id: ID) { asset(id: $id) {
                 id quoteCurrency supply marketPrice tradeSeq statusReason
                 curve { basePrice slope feeRate }
                 reserve { backing required surplus lpCapital total coverage }
                 tradingRules {
                   minNotional maxNotional maxSharesPerAccount maxRedemptionPerDay maxSupply
                   shareDecimals priceDecimals moneyDecimals feeRate } } }""",
            {"id": node_id("Asset", asset_id)},
        )
    )["asset"]

    # R(100) = 1 * 100 + 0.005 * 100^2 / 2 = 125, and the fee is 1.25
    assert asset == {
        "id": node_id("Asset", asset_id),
        "quoteCurrency": "USDC",
        "supply": "100",
        "marketPrice": "1.5",
        "tradeSeq": 1,
        "statusReason": None,
        "curve": {"basePrice": "1", "slope": "0.005", "feeRate": "0.01"},
        "reserve": {
            "backing": "125",
            "required": "125",
            "surplus": "1.25",
            "lpCapital": "0",
            "total": "126.25",
            "coverage": "1",
        },
        "tradingRules": {
            "minNotional": "0.01",
            "maxNotional": "1000000000000",
            "maxSharesPerAccount": None,
            "maxRedemptionPerDay": None,
            "maxSupply": "59999800.000333333",
            "shareDecimals": 9,
            "priceDecimals": 12,
            "moneyDecimals": 6,
            "feeRate": "0.01",
        },
    }


async def test_an_asset_without_shares_has_no_coverage(api: Api, database: Database) -> None:
    asset_id = await new_asset(database, max_shares_per_account="10.5", max_redemption_per_day="1000")

    asset = (
        await api.data(
            """query ($id: ID) { asset(id: $id) {
                 supply marketPrice reserve { required coverage }
                 tradingRules { maxSharesPerAccount maxRedemptionPerDay } } }""",
            {"id": node_id("Asset", asset_id)},
        )
    )["asset"]

    assert asset == {
        "supply": "0",
        "marketPrice": "1",
        "reserve": {"required": "0", "coverage": None},
        "tradingRules": {"maxSharesPerAccount": "10.5", "maxRedemptionPerDay": "1000"},
    }


PRICE = """
query ($id: ID) { asset(id: $id) { price {
  assetId seq cause tradeSeq at display market fundamental marketWeight volume fundamentalStale
} } }
"""


async def test_before_the_first_tick_the_price_is_m_itself(
    api: Api, database: Database, settlement: Settlement
) -> None:
    asset_id = await new_asset(database)
    trader = await new_account(database, usdc="1000")
    await place_order(settlement, trader, asset_id, shares="100")

    before = datetime.now(UTC)
    price = (await api.data(PRICE, {"id": node_id("Asset", asset_id)}))["asset"]["price"]

    assert before <= datetime.fromisoformat(price.pop("at")) <= datetime.now(UTC)
    assert price == {
        "assetId": node_id("Asset", asset_id),
        "seq": 0,
        "cause": "OPEN",
        "tradeSeq": 1,
        "display": "1.5",
        "market": "1.5",
        "fundamental": "1",
        "marketWeight": "1",
        "volume": "0",
        "fundamentalStale": False,
    }


STATS = "query ($id: ID) { asset(id: $id) { stats24h { volume trades open high low close change } } }"


async def test_before_the_first_tick_stats_follow_every_trade(
    api: Api, database: Database, settlement: Settlement
) -> None:
    asset_id = await new_asset(database, fee_rate="0")
    variables = {"id": node_id("Asset", asset_id)}
    trader = await new_account(database, usdc="1000")

    untraded = (await api.data(STATS, variables))["asset"]["stats24h"]
    await place_order(settlement, trader, asset_id, shares="100")
    once = (await api.data(STATS, variables))["asset"]["stats24h"]
    await place_order(settlement, trader, asset_id, Side.SELL, shares="40")
    twice = (await api.data(STATS, variables))["asset"]["stats24h"]

    assert untraded == {
        "volume": "0", "trades": 0, "open": "1", "high": "1", "low": "1", "close": "1", "change": "0",
    }  # fmt: skip
    assert once == {
        "volume": "125", "trades": 1, "open": "1", "high": "1.5", "low": "1", "close": "1.5", "change": "0.5",
    }  # fmt: skip
    # R(100) - R(60) = 125 - 69
    assert twice == {
        "volume": "181", "trades": 2, "open": "1", "high": "1.5", "low": "1", "close": "1.3", "change": "0.3",
    }  # fmt: skip


async def test_an_asset_is_found_by_id_and_by_symbol(api: Api, database: Database) -> None:
    asset_id = await new_asset(database)
    symbol = (await load_asset(database, asset_id)).symbol
    expected = {"asset": {"id": node_id("Asset", asset_id), "symbol": symbol, "status": "OPEN"}}

    assert await api.data(ASSET, {"id": node_id("Asset", asset_id)}) == expected
    assert await api.data(ASSET, {"symbol": symbol.lower()}) == expected


@pytest.mark.parametrize(
    "variables",
    [
        {"id": "x"},
        {"id": ""},
        {"id": node_id("Asset", 10**15)},
        {"id": node_id("Account", 1)},
        {"symbol": "NOTHING"},
        {"symbol": ""},
        {"symbol": "T\x001"},
        {"symbol": "\ud800"},
    ],
)
async def test_an_asset_that_is_not_there_is_null(api: Api, variables: dict[str, str]) -> None:
    assert await api.data(ASSET, variables) == {"asset": None}


@pytest.mark.parametrize("variables", [{}, {"id": None}, {"id": "x", "symbol": "T1"}])
async def test_an_asset_is_asked_for_in_one_way(api: Api, variables: dict[str, str | None]) -> None:
    assert await api.refusal(ASSET, variables) == ("asset", "BAD_USER_INPUT", "Give exactly one of id and symbol.")


async def test_drafts_are_for_admins(api: Api, database: Database) -> None:
    admin = await new_admin(database)
    trader = await new_account(database)
    asset_id = await new_asset(database, status=AssetStatus.DRAFT)
    variables = {"id": node_id("Asset", asset_id)}
    symbol = (await load_asset(database, asset_id)).symbol
    node = "query ($id: ID!) { node(id: $id) { id } }"
    ids = {"ids": [node_id("Asset", asset_id)]}
    quote = 'query ($id: ID!) { quote(assetId: $id, side: BUY, shares: "1") { userErrors { code field } } }'

    assert (await api.data(ASSET, variables, principal=admin))["asset"]["status"] == "DRAFT"
    assert (await api.data(node, variables, principal=admin))["node"] == {"id": node_id("Asset", asset_id)}
    assert (await api.data(ASSETS, ids, principal=admin))["assets"]["totalCount"] == 1
    assert (await api.data(quote, variables, principal=admin))["quote"]["userErrors"] == []

    assert await api.data(ASSET, variables, principal=trader) == {"asset": None}
    assert await api.data(ASSET, {"symbol": symbol}, principal=trader) == {"asset": None}
    assert await api.data(node, variables, principal=trader) == {"node": None}
    assert (await api.data(ASSETS, ids, principal=trader))["assets"]["totalCount"] == 0
    assert (await api.data(quote, variables, principal=trader))["quote"]["userErrors"] == [
        {"code": "NOT_FOUND", "field": ["assetId"]}
    ]


@pytest.fixture
async def five(database: Database) -> list[str]:
    """Five assets' ids in the order of their symbols."""
    assets = [await load_asset(database, await new_asset(database)) for _ in range(5)]
    async with database.acquire() as connection:
        rows = await connection.fetch(
            "SELECT id FROM assets WHERE id = ANY($1::bigint[]) ORDER BY symbol", [asset.id for asset in assets]
        )
    return [node_id("Asset", row["id"]) for row in rows]


async def test_assets_are_paged_forwards_and_backwards(api: Api, five: list[str]) -> None:
    whole = (await api.data(ASSETS, {"ids": five}))["assets"]
    cursors = [edge["cursor"] for edge in whole["edges"]]
    cases: list[tuple[dict[str, object], slice, bool, bool]] = [
        ({}, slice(0, 5), False, False),
        ({"first": 2}, slice(0, 2), True, False),
        ({"first": 2, "after": cursors[1]}, slice(2, 4), True, True),
        ({"first": 2, "after": cursors[3]}, slice(4, 5), False, True),
        ({"first": 2, "after": cursors[4]}, slice(5, 5), False, True),
        ({"first": 0}, slice(0, 0), True, False),
        ({"last": 2}, slice(3, 5), False, True),
        ({"last": 2, "before": cursors[3]}, slice(1, 3), True, True),
        ({"last": 5, "before": cursors[1]}, slice(0, 1), True, False),
        ({"first": 5, "after": cursors[0], "before": cursors[3]}, slice(1, 3), True, True),
        ({"before": cursors[2]}, slice(0, 2), True, False),
    ]

    for variables, part, has_next, has_previous in cases:
        page = (await api.data(ASSETS, {"ids": five, **variables}))["assets"]
        assert [node["id"] for node in page["nodes"]] == five[part], variables
        assert [edge["node"]["id"] for edge in page["edges"]] == five[part], variables
        assert page["totalCount"] == 5
        assert page["pageInfo"] == {
            "hasNextPage": has_next,
            "hasPreviousPage": has_previous,
            "startCursor": cursors[part][0] if cursors[part] else None,
            "endCursor": cursors[part][-1] if cursors[part] else None,
        }, variables


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"first": 1, "last": 1},
            "first and last do not go together; got first: 1 and last: 1. Give one of them.",
        ),
        ({"first": 501}, "first must be between 0 and 500; got 501."),
        ({"last": -1}, "last must be between 0 and 500; got -1."),
        ({"after": "#"}, "after is no cursor of this list; got '#'. Use a cursor that it gave."),
        ({"before": ""}, "before is no cursor of this list; got ''. Use a cursor that it gave."),
        ({"ids": ["x"] * 501}, "ids holds at most 500; got 501."),
    ],
)
async def test_a_page_that_cannot_be_is_refused(api: Api, variables: dict[str, object], message: str) -> None:
    assert await api.refusal(ASSETS, variables) == ("assets", "BAD_USER_INPUT", message)


async def test_filters_go_together_and_take_text_literally(api: Api, database: Database) -> None:
    asset_id = await new_asset(database)
    await update_asset(database, asset_id, AssetChanges(name="100% _wind_ in Ålesund", category="Wind-7"))
    query = """query ($category: String, $search: String, $status: AssetStatus) {
      assets(category: $category, search: $search, status: $status) { totalCount } }"""

    async def count(**variables: str) -> int:
        total: int = (await api.data(query, variables))["assets"]["totalCount"]
        return total

    assert await count(category="wind-7") == 1
    assert await count(category="wind-7", search="0% _WIND") == 1
    assert await count(category="wind-7", search="ålesund") == 1
    assert await count(category="wind-7", search="%nothing%") == 0
    assert await count(category="wind-7", search="_in_") == 0
    assert await count(category="wind-7", status="HALTED") == 0
    assert await api.refusal(query, {"search": "a\x00b"}) == (
        "assets", "BAD_USER_INPUT", "search is at most 200 printable characters; got 'a\x00b'.",
    )  # fmt: skip


TRADES = """
query ($id: ID!, $afterSeq: Seq, $first: Int, $after: String, $last: Int, $before: String) {
  trades(assetId: $id, afterSeq: $afterSeq, first: $first, after: $after, last: $last, before: $before) {
    nodes { seq }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""


def seqs(answer: dict[str, dict[str, list[dict[str, int]]]]) -> list[int]:
    return [node["seq"] for node in answer["trades"]["nodes"]]


async def test_the_tape_tells_what_it_takes_to_quote_the_next_trade(
    api: Api, database: Database, settlement: Settlement
) -> None:
    asset_id = await new_asset(database, fee_rate="0.01")
    trader = await new_account(database, usdc="1000")
    await place_order(settlement, trader, asset_id, shares="100")

    trade = (
        await api.data(
            """query ($id: ID!) { trades(assetId: $id) { nodes {
                 id assetId asset { id } seq side shares price gross fee supplyAfter marketAfter } } }""",
            {"id": node_id("Asset", asset_id)},
        )
    )["trades"]["nodes"]

    assert trade == [
        {
            "id": node_id("Trade", asset_id, 1),
            "assetId": node_id("Asset", asset_id),
            "asset": {"id": node_id("Asset", asset_id)},
            "seq": 1,
            "side": "BUY",
            "shares": "100",
            "price": "1.25",
            "gross": "125",
            "fee": "1.25",
            "supplyAfter": "100",
            "marketAfter": "1.5",
        }
    ]


async def test_a_bot_catches_up_without_gaps_in_either_way(
    api: Api, database: Database, settlement: Settlement
) -> None:
    asset_id = await new_asset(database)
    trader = await new_account(database, usdc="1000")
    for _ in range(7):
        await place_order(settlement, trader, asset_id, shares="1")
    variables: dict[str, object] = {"id": node_id("Asset", asset_id), "afterSeq": 2}

    assert seqs(await api.data(TRADES, variables)) == [7, 6, 5, 4, 3]

    paged: list[int] = []
    after = None
    while True:
        answer = await api.data(TRADES, {**variables, "first": 2, "after": after})
        paged += seqs(answer)
        after = answer["trades"]["pageInfo"]["endCursor"]
        if not answer["trades"]["pageInfo"]["hasNextPage"]:
            break
    assert paged == [7, 6, 5, 4, 3]

    followed: list[int] = []
    last = 2
    while page := seqs(await api.data(TRADES, {**variables, "afterSeq": last, "last": 2})):
        followed += reversed(page)
        last = page[0]
    assert followed == [3, 4, 5, 6, 7]


@pytest.mark.parametrize("unknown", ["x", node_id("Asset", 10**15), node_id("Order", 1)])
async def test_an_asset_that_is_not_there_has_no_trades(api: Api, unknown: str) -> None:
    answer = await api.data(TRADES, {"id": unknown})
    assert answer["trades"] == {
        "nodes": [],
        "pageInfo": {"hasNextPage": False, "hasPreviousPage": False, "startCursor": None, "endCursor": None},
    }


QUOTE = """
query ($id: ID!, $side: Side!, $shares: Decimal, $amount: Decimal) {
  quote(assetId: $id, side: $side, shares: $shares, amount: $amount) {
    quote { assetId side shares gross fee total averagePrice priceBefore priceAfter priceImpact atTradeSeq }
    userErrors { __typename code field ... on LimitError { limit } ... on InsufficientBalanceError { available } }
  }
}
"""


async def test_quotes_are_exact(api: Api, database: Database, settlement: Settlement) -> None:
    asset_id = await new_asset(database, fee_rate="0.01")
    trader = await new_account(database, usdc="1000")
    await place_order(settlement, trader, asset_id, shares="100")
    id_ = node_id("Asset", asset_id)

    buy = await api.data(QUOTE, {"id": id_, "side": "BUY", "shares": "100"})
    sell = await api.data(QUOTE, {"id": id_, "side": "SELL", "shares": "100"})

    # R(200) - R(100) = 300 - 125, at an average of 1.75
    assert buy["quote"] == {
        "quote": {
            "assetId": id_, "side": "BUY", "shares": "100", "gross": "175", "fee": "1.75", "total": "176.75",
            "averagePrice": "1.75", "priceBefore": "1.5", "priceAfter": "2", "priceImpact": "0.166666667",
            "atTradeSeq": 1,
        },
        "userErrors": [],
    }  # fmt: skip
    assert sell["quote"] == {
        "quote": {
            "assetId": id_, "side": "SELL", "shares": "100", "gross": "125", "fee": "1.25", "total": "123.75",
            "averagePrice": "1.25", "priceBefore": "1.5", "priceAfter": "1", "priceImpact": "-0.166666667",
            "atTradeSeq": 1,
        },
        "userErrors": [],
    }  # fmt: skip


async def test_a_quote_that_cannot_be_says_why(api: Api, database: Database) -> None:
    id_ = node_id("Asset", await new_asset(database))

    async def error(**variables: object) -> object:
        answer = (await api.data(QUOTE, {"id": id_, **variables}))["quote"]
        assert answer["quote"] is None
        return answer["userErrors"]

    general = {"__typename": "GeneralError", "code": "INVALID_INPUT"}
    assert await error(side="BUY") == [{**general, "field": ["shares"]}]
    assert await error(side="BUY", shares="-1") == [{**general, "field": ["shares"]}]
    assert await error(side="SELL", amount="1") == [{**general, "field": ["amount"]}]
    assert await error(side="BUY", amount="0.0000001") == [{**general, "field": ["amount"]}]
    assert await error(side="SELL", shares="1") == [
        {
            "__typename": "InsufficientBalanceError",
            "code": "INSUFFICIENT_SHARES",
            "field": ["shares"],
            "available": "0",
        }
    ]
    assert await error(side="BUY", shares="999999999999999") == [
        {"__typename": "LimitError", "code": "POSITION_LIMIT", "field": ["shares"], "limit": "59999800.000333333"}
    ]
