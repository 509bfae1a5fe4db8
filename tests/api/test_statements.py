"""No N+1: how many SQL statements an operation takes does not depend on how much it shows."""

from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from api.node_ids import node_id
from app.accounts.principals import AccountPrincipal
from app.db import Database
from app.exchange.settlement import Settlement
from tests.api.harness import Api
from tests.factories import new_account, new_admin, new_asset, order_request, place_order
from tests.pricing.history import Move, write_history

_numbers = count(1)

ASSETS = """
query ($ids: [ID!]) { assets(ids: $ids) {
  totalCount
  nodes {
    symbol supply curve { basePrice } reserve { coverage } tradingRules { maxSupply }
    price { display fundamental } stats24h { volume change }
  }
  edges { node { price { display } stats24h { open } } }
} }
"""
ORDERS = """
{ viewer { orders { nodes {
  status asset { symbol price { display } stats24h { trades } } fills { price }
} } } }
"""
POSITIONS = "{ viewer { positions { nodes { shares liquidationValue asset { symbol price { display } } } } } }"
TRADES = "query ($id: ID!) { trades(assetId: $id) { nodes { seq asset { symbol reserve { required } } } } }"
NODES = """
query ($ids: [ID!]!) { nodes(ids: $ids) {
  ... on Asset { price { display } } ... on Order { asset { symbol } fills { price } } ... on Trade { asset { symbol } }
} }
"""
ACCOUNTS = """
{ admin {
  accounts(first: 20) { nodes { email balances { available } } }
  assetRequests { nodes { asset { symbol } } }
} }
"""


async def busy(database: Database, settlement: Settlement, assets: int) -> tuple[AccountPrincipal, list[int]]:
    """A trader with two orders in each of `assets` assets, the second of which was refused."""
    trader = await new_account(database, usdc="1000")
    asset_ids = [await new_asset(database) for _ in range(assets)]
    for asset_id in asset_ids:
        await place_order(settlement, trader, asset_id, shares="1")
        await settlement.place(order_request(trader, asset_id, amount="999999"))
    return trader, asset_ids


async def ticked(database: Database, asset_ids: list[int]) -> None:
    """Give each asset two ticks, as an engine would have: before the first one, the day is read from the trades."""
    now = datetime.now(UTC)
    for asset_id in asset_ids:
        await write_history(database, asset_id, [Move(now - timedelta(hours=1), 1, volume=1), Move(now, 2)])


@pytest.mark.parametrize("assets", [1, 7])
async def test_any_number_of_assets_takes_four_statements(
    api: Api, database: Database, settlement: Settlement, assets: int
) -> None:
    _, asset_ids = await busy(database, settlement, assets)
    variables = {"ids": [node_id("Asset", each) for each in asset_ids]}

    await api.data(ASSETS, variables)
    # the page, the count, their last ticks, their days; and of what has not ticked, the trades
    assert len(api.statements) == 4 + 1
    await ticked(database, asset_ids)
    await api.data(ASSETS, variables)
    assert len(api.statements) == 4


async def test_what_is_not_asked_for_is_not_read(api: Api, database: Database) -> None:
    await new_asset(database)

    await api.data("{ assets(first: 10) { nodes { symbol reserve { backing } } pageInfo { hasNextPage } } }")
    assert len(api.statements) == 1
    await api.data("{ serverTime rateLimit { limit } admin { system { version } } }")
    assert api.statements == []


@pytest.mark.parametrize("assets", [1, 7])
async def test_any_number_of_orders_takes_six_statements(
    api: Api, database: Database, settlement: Settlement, assets: int
) -> None:
    trader, asset_ids = await busy(database, settlement, assets)
    await ticked(database, asset_ids)

    # the account, the orders, their assets, their fills, the assets' last ticks and days
    await api.data(ORDERS, principal=trader)
    assert len(api.statements) == 6


@pytest.mark.parametrize("assets", [1, 7])
async def test_any_number_of_positions_takes_four_statements(
    api: Api, database: Database, settlement: Settlement, assets: int
) -> None:
    trader, _ = await busy(database, settlement, assets)

    # the account, which positions, these with their assets, the assets' last ticks
    answer = await api.data(POSITIONS, principal=trader)
    assert len(answer["viewer"]["positions"]["nodes"]) == assets
    assert len(api.statements) == 4


async def test_a_position_and_its_asset_come_from_one_statement(
    api: Api, database: Database, settlement: Settlement
) -> None:
    trader, [asset_id] = await busy(database, settlement, 1)
    query = (
        """query ($asset: ID!) { viewer { position(assetId: $asset) { shares liquidationValue asset { supply } } } }"""
    )

    answer = await api.data(query, {"asset": node_id("Asset", asset_id)}, principal=trader)
    assert answer["viewer"]["position"]["shares"] == answer["viewer"]["position"]["asset"]["supply"] == "1"
    # the account, the position with its asset
    assert len(api.statements) == 2
    assert [("positions" in sql, "assets" in sql) for sql in api.statements] == [(False, False), (True, True)]


async def test_a_portfolio_takes_two_statements_of_one_snapshot(
    api: Api, database: Database, settlement: Settlement
) -> None:
    trader, _ = await busy(database, settlement, 3)

    await api.data("{ viewer { portfolio { liquidationValue } } }", principal=trader)
    # the account, the money, the positions with their assets
    assert len(api.statements) == 3


async def test_trades_share_their_asset(api: Api, database: Database, settlement: Settlement) -> None:
    trader, [asset_id] = await busy(database, settlement, 1)
    for _ in range(5):
        await place_order(settlement, trader, asset_id, shares="1")

    answer = await api.data(TRADES, {"id": node_id("Asset", asset_id)})
    assert len(answer["trades"]["nodes"]) == 6
    # the asset, its trades
    assert len(api.statements) == 2


async def test_nodes_takes_a_statement_for_each_kind(api: Api, database: Database, settlement: Settlement) -> None:
    trader, asset_ids = await busy(database, settlement, 4)
    orders = await api.data("{ viewer { orders { nodes { id } } } }", principal=trader)
    ids = [order["id"] for order in orders["viewer"]["orders"]["nodes"]]
    ids += [node_id("Asset", asset_id) for asset_id in asset_ids]
    ids += [node_id("Trade", asset_id, 1) for asset_id in asset_ids]

    await api.data(NODES, {"ids": ids}, principal=trader)
    # orders, assets, trades, the orders' fills, the assets' last ticks
    assert len(api.statements) == 5


async def test_admins_lists_are_gathered_too(api: Api, database: Database) -> None:
    for _ in range(3):
        trader = await new_account(database)
        await api.data(
            """mutation { assetRequestSubmit(input: { name: "x", description: "x", idempotencyKey: "x" }) {
                 assetRequest { id } } }""",
            principal=trader,
        )

    await api.data(ACCOUNTS, principal=await new_admin(database))
    # the accounts, their money, the requests; none of these has an asset
    assert len(api.statements) in (3, 4)


async def test_an_order_reads_nothing_that_is_not_asked_for(api: Api, database: Database) -> None:
    trader = await new_account(database, usdc="1000")
    asset_id = await new_asset(database)
    place = """mutation ($asset: ID!, $key: String!) {
      orderPlace(input: { assetId: $asset, side: BUY, shares: "1", clientOrderId: $key }) { %s } }"""

    async def statements(selection: str) -> int:
        variables = {"asset": node_id("Asset", asset_id), "key": f"k{next(_numbers)}"}
        await api.data(place % selection, variables, principal=trader)
        return len(api.statements)

    # settlement's own run on a connection of its own
    assert await statements("order { id status gross fills { price } } userErrors { code }") == 0
    assert await statements("asset { supply } position { shares } order { asset { symbol } }") == 2
    assert await statements("viewer { balances { available } }") == 2
