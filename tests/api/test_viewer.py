"""What an account sees of its own: money, positions, orders, fills, the ledger, keys and requests."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

from api.node_ids import encode_ref, node_id
from app.db import Connection, Database
from app.exchange.orders import Side
from app.exchange.settlement import Settlement
from app.ledger.currencies import Currency
from tests.api.harness import Api, CountingDatabase
from tests.factories import load_asset, new_account, new_asset, order_request, place_order


async def test_balances_are_one_for_each_currency(api: Api, database: Database) -> None:
    trader = await new_account(database, usdc="1000", usdt="0.000001")

    viewer = (await api.data("{ viewer { balances { id currency available held total } } }", principal=trader))[
        "viewer"
    ]

    assert viewer["balances"] == [
        {
            "id": encode_ref(f"Balance:{trader.account_id}:USDC"),
            "currency": "USDC", "available": "1000", "held": "0", "total": "1000",
        },
        {
            "id": encode_ref(f"Balance:{trader.account_id}:USDT"),
            "currency": "USDT", "available": "0.000001", "held": "0", "total": "0.000001",
        },
    ]  # fmt: skip


POSITION = """
query ($asset: ID!) { viewer {
  position(assetId: $asset) {
    asset { id } shares averagePrice costBasis marketValue liquidationValue unrealizedPnl realizedPnl }
  positions { nodes { shares } }
  portfolio { currency cash marketValue liquidationValue realizedPnl unrealizedPnl }
} }
"""


async def test_a_position_from_its_first_share_to_its_last(
    api: Api, database: Database, settlement: Settlement
) -> None:
    trader = await new_account(database, usdc="1000", usdt="7")
    asset_id = await new_asset(database, fee_rate="0.01")
    variables = {"asset": node_id("Asset", asset_id)}
    usdt = {
        "currency": "USDT", "cash": "7", "marketValue": "0", "liquidationValue": "7", "realizedPnl": "0",
        "unrealizedPnl": "0",
    }  # fmt: skip

    never = (await api.data(POSITION, variables, principal=trader))["viewer"]
    await place_order(settlement, trader, asset_id, shares="100")
    bought = (await api.data(POSITION, variables, principal=trader))["viewer"]
    await place_order(settlement, trader, asset_id, Side.SELL, shares="40")
    reduced = (await api.data(POSITION, variables, principal=trader))["viewer"]
    await place_order(settlement, trader, asset_id, Side.SELL, shares="60")
    closed = (await api.data(POSITION, variables, principal=trader))["viewer"]

    assert (never["position"], never["positions"]["nodes"]) == (None, [])
    # bought for 125 + 1.25; M = 1.5; all of it would sell for 125 - 1.25
    assert bought["position"] == {
        "asset": {"id": node_id("Asset", asset_id)},
        "shares": "100", "averagePrice": "1.2625", "costBasis": "126.25", "marketValue": "150",
        "liquidationValue": "123.75", "unrealizedPnl": "23.75", "realizedPnl": "0",
    }  # fmt: skip
    assert bought["positions"]["nodes"] == [{"shares": "100"}]
    assert bought["portfolio"] == [
        {
            "currency": "USDC", "cash": "873.75", "marketValue": "150", "liquidationValue": "997.5",
            "realizedPnl": "0", "unrealizedPnl": "23.75",
        },
        usdt,
    ]  # fmt: skip
    # 40 sold for 56 - 0.56, out of a basis of 126.25 * 40 / 100; M = 1.3
    assert reduced["position"] == {
        "asset": {"id": node_id("Asset", asset_id)},
        "shares": "60", "averagePrice": "1.2625", "costBasis": "75.75", "marketValue": "78",
        "liquidationValue": "68.31", "unrealizedPnl": "2.25", "realizedPnl": "4.94",
    }  # fmt: skip
    # the rest for 69 - 0.69; closed positions are no longer listed, and their profit stays in the portfolio
    assert closed["position"] == {
        "asset": {"id": node_id("Asset", asset_id)},
        "shares": "0", "averagePrice": "0", "costBasis": "0", "marketValue": "0", "liquidationValue": "0",
        "unrealizedPnl": "0", "realizedPnl": "-2.5",
    }  # fmt: skip
    assert closed["positions"]["nodes"] == []
    assert closed["portfolio"] == [
        {
            "currency": "USDC", "cash": "997.5", "marketValue": "0", "liquidationValue": "997.5",
            "realizedPnl": "-2.5", "unrealizedPnl": "0",
        },
        usdt,
    ]  # fmt: skip


class InterruptedDatabase(CountingDatabase):
    """Lets `step` happen once, right after the statement that has read which positions there are."""

    def __init__(self, shared: Database, step: Callable[[], Awaitable[object]]) -> None:
        super().__init__(shared)
        self._step: Callable[[], Awaitable[object]] | None = step

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        async with super().acquire() as connection:
            yield connection
        if self._step is not None and "FROM positions" in self.statements[-1]:
            step, self._step = self._step, None
            await step()


async def test_positions_are_valued_at_one_moment_while_their_owner_trades(
    api: Api, database: Database, settlement: Settlement
) -> None:
    trader = await new_account(database, usdc="1000")
    asset_id = await new_asset(database, fee_rate="0.01")
    await place_order(settlement, trader, asset_id, shares="100")

    async def sell() -> None:
        await place_order(settlement, trader, asset_id, Side.SELL, shares="40")

    interrupted = Api(replace(api.services, database=InterruptedDatabase(database, sell)))
    query = """{ viewer { positions { nodes {
      shares costBasis marketValue liquidationValue unrealizedPnl realizedPnl asset { supply tradeSeq } } } } }"""
    (shown,) = (await interrupted.data(query, principal=trader))["viewer"]["positions"]["nodes"]

    assert shown == {
        "shares": "60", "costBasis": "75.75", "marketValue": "78", "liquidationValue": "68.31",
        "unrealizedPnl": "2.25", "realizedPnl": "4.94", "asset": {"supply": "60", "tradeSeq": 2},
    }  # fmt: skip
    assert (await api.data(query, principal=trader))["viewer"]["positions"]["nodes"] == [shown]


async def test_currencies_are_never_added_up(api: Api, database: Database, settlement: Settlement) -> None:
    trader = await new_account(database, usdc="100", usdt="100")
    for currency in Currency:
        asset_id = await new_asset(database, quote_currency=currency, fee_rate="0", slope="1", base_price="1")
        await place_order(settlement, trader, asset_id, shares="2")

    portfolio = (
        await api.data("{ viewer { portfolio { currency cash marketValue liquidationValue } } }", principal=trader)
    )["viewer"]["portfolio"]

    # R(2) = 2 + 2 in each
    assert portfolio == [
        {"currency": "USDC", "cash": "96", "marketValue": "6", "liquidationValue": "100"},
        {"currency": "USDT", "cash": "96", "marketValue": "6", "liquidationValue": "100"},
    ]


async def test_orders_and_fills_tell_what_became_of_what_was_asked(
    api: Api, database: Database, settlement: Settlement
) -> None:
    trader = await new_account(database, usdc="200")
    asset_id = await new_asset(database, fee_rate="0.01")
    filled = await settlement.place(order_request(trader, asset_id, shares="100", key="one"))
    rejected = await settlement.place(order_request(trader, asset_id, amount="500", key="two"))

    query = """{ viewer {
      orders { nodes {
        id clientOrderId assetId side type timeInForce status asset { id } limitPrice shares amount filledShares
        averagePrice gross fee reason fills { id } } }
      fills { nodes { id orderId clientOrderId assetId tradeSeq side shares price gross fee } } } }"""
    viewer = (await api.data(query, principal=trader))["viewer"]

    common = {
        "assetId": node_id("Asset", asset_id), "asset": {"id": node_id("Asset", asset_id)}, "side": "BUY",
        "type": "MARKET", "timeInForce": "FOK", "limitPrice": None,
    }  # fmt: skip
    fill = node_id("Fill", filled.trades[0].id)
    assert viewer["orders"]["nodes"] == [
        {
            **common, "id": node_id("Order", rejected.order.id), "clientOrderId": "two", "status": "REJECTED",
            "shares": None, "amount": "500", "filledShares": "0", "averagePrice": None, "gross": "0", "fee": "0",
            "reason": "INSUFFICIENT_FUNDS", "fills": [],
        },
        {
            **common, "id": node_id("Order", filled.order.id), "clientOrderId": "one", "status": "FILLED",
            "shares": "100", "amount": None, "filledShares": "100", "averagePrice": "1.25", "gross": "125",
            "fee": "1.25", "reason": None, "fills": [{"id": fill}],
        },
    ]  # fmt: skip
    assert viewer["fills"]["nodes"] == [
        {
            "id": fill, "orderId": node_id("Order", filled.order.id), "clientOrderId": "one",
            "assetId": node_id("Asset", asset_id), "tradeSeq": 1, "side": "BUY", "shares": "100", "price": "1.25",
            "gross": "125", "fee": "1.25",
        }
    ]  # fmt: skip


ORDERS = """
query ($first: Int, $after: String, $asset: ID, $open: Boolean) { viewer {
  orders(first: $first, after: $after, assetId: $asset, open: $open) {
    nodes { clientOrderId } pageInfo { hasNextPage hasPreviousPage endCursor } }
  fills(first: $first, after: $after, assetId: $asset) { nodes { clientOrderId } }
} }
"""


async def test_orders_and_fills_are_paged_and_filtered(api: Api, database: Database, settlement: Settlement) -> None:
    trader = await new_account(database, usdc="1000")
    one, other = await new_asset(database), await new_asset(database)
    for number in range(5):
        await settlement.place(order_request(trader, other if number == 3 else one, shares="1", key=f"k{number}"))

    async def keys(**variables: object) -> tuple[list[str], dict[str, object], list[str]]:
        viewer = (await api.data(ORDERS, variables, principal=trader))["viewer"]
        orders, fills = ([node["clientOrderId"] for node in viewer[name]["nodes"]] for name in ("orders", "fills"))
        return orders, viewer["orders"]["pageInfo"], fills

    whole, info, fills = await keys()
    assert whole == fills == ["k4", "k3", "k2", "k1", "k0"]
    assert (info["hasNextPage"], info["hasPreviousPage"]) == (False, False)

    page, info, _ = await keys(first=2)
    assert (page, info["hasNextPage"], info["hasPreviousPage"]) == (["k4", "k3"], True, False)
    page, info, _ = await keys(first=2, after=info["endCursor"])
    assert (page, info["hasNextPage"], info["hasPreviousPage"]) == (["k2", "k1"], True, True)
    page, info, _ = await keys(first=2, after=info["endCursor"])
    assert (page, info["hasNextPage"], info["hasPreviousPage"]) == (["k0"], False, True)

    assert (await keys(asset=node_id("Asset", other)))[::2] == (["k3"], ["k3"])
    assert (await keys(asset="x"))[::2] == ([], [])
    assert (await keys(open=True))[0] == []
    assert (await keys(open=False))[0] == whole


async def test_a_page_size_of_null_is_the_default(api: Api, database: Database) -> None:
    trader = await new_account(database)
    for number in range(3):
        await api.data(
            'mutation ($key: String!) { devFund(input: { amount: "1", idempotencyKey: $key }) { viewer { id } } }',
            {"key": f"k{number}"},
            principal=trader,
        )
    explicit_null = "{ viewer { ledger(first: null) { nodes { amount } } } }"

    nodes = (await api.data(explicit_null, principal=trader))["viewer"]["ledger"]["nodes"]
    assert nodes == [{"amount": "1"}] * 3
    assert await api.refusal("{ viewer { ledger(first: 501) { nodes { id } } } }", principal=trader) == (
        "viewer.ledger", "BAD_USER_INPUT", "first must be between 0 and 500; got 501.",
    )  # fmt: skip


async def test_an_order_is_found_by_the_key_it_was_placed_with(
    api: Api, database: Database, settlement: Settlement
) -> None:
    trader, other = await new_account(database, usdc="10"), await new_account(database)
    asset_id = await new_asset(database)
    placed = await settlement.place(order_request(trader, asset_id, shares="1", key="mine ~ 1"))
    query = "query ($key: String!) { viewer { order(clientOrderId: $key) { id } } }"

    assert await api.data(query, {"key": "mine ~ 1"}, principal=trader) == {
        "viewer": {"order": {"id": node_id("Order", placed.order.id)}}
    }
    assert await api.data(query, {"key": "mine ~ 1"}, principal=other) == {"viewer": {"order": None}}
    for nothing in ("", "a\x00b", "\ud800", "x" * 10_000):
        assert await api.data(query, {"key": nothing}, principal=trader) == {"viewer": {"order": None}}


async def test_the_statement_shows_money_and_shares_in_their_own_scale(
    api: Api, database: Database, settlement: Settlement
) -> None:
    before = datetime.now(UTC)
    trader = await new_account(database, usdc="1000")
    asset_id = await new_asset(database, fee_rate="0.01")
    await place_order(settlement, trader, asset_id, shares="100.000000001")
    symbol = (await load_asset(database, asset_id)).symbol

    nodes = (
        await api.data(
            "{ viewer { ledger { nodes { id at currency amount balanceAfter reason ref } } } }", principal=trader
        )
    )["viewer"]["ledger"]["nodes"]

    assert len({node.pop("id") for node in nodes}) == 3
    assert all(before <= datetime.fromisoformat(node.pop("at")) <= datetime.now(UTC) for node in nodes)
    trade = {"reason": "TRADE", "ref": node_id("Trade", asset_id, 1)}
    # 1.5 * 10^-9 more than 125, rounded up, and its fee of 1.25000001, rounded up
    assert sorted(nodes, key=lambda node: str(node["currency"])) == [
        {**trade, "currency": symbol, "amount": "100.000000001", "balanceAfter": "100.000000001"},
        {**trade, "currency": "USDC", "amount": "-126.250002", "balanceAfter": "873.749998"},
        {
            "reason": "DEV_FUND", "ref": node_id("Account", trader.account_id), "currency": "USDC",
            "amount": "1000", "balanceAfter": "1000",
        },
    ]  # fmt: skip


async def test_nobody_s_position_and_somebody_else_s_are_null_alike(
    api: Api, database: Database, settlement: Settlement
) -> None:
    trader, other = await new_account(database, usdc="10"), await new_account(database)
    asset_id = await new_asset(database)
    await place_order(settlement, trader, asset_id, shares="1")
    query = "query ($asset: ID!) { viewer { position(assetId: $asset) { shares } } }"

    for asset in (node_id("Asset", asset_id), node_id("Asset", 10**15), "x", node_id("Order", 1)):
        assert await api.data(query, {"asset": asset}, principal=other) == {"viewer": {"position": None}}


async def test_keys_and_requests_are_listed_newest_first(api: Api, database: Database) -> None:
    trader = await new_account(database)
    for number in range(2):
        await api.data(
            """mutation ($name: String!) {
                 apiKeyCreate(input: { name: $name, scopes: [TRADE, READ, READ] }) { apiKey { id } }
                 assetRequestSubmit(input: { name: $name, description: "d", idempotencyKey: $name }) {
                   assetRequest { id } } }""",
            {"name": f"n{number}"},
            principal=trader,
        )

    viewer = (
        await api.data(
            """{ viewer { apiKeys { name scopes lastUsedAt }
                 assetRequests { name description sourceHint status adminNotes asset { id } } } }""",
            principal=trader,
        )
    )["viewer"]

    assert viewer["apiKeys"] == [
        {"name": "n1", "scopes": ["READ", "TRADE"], "lastUsedAt": None},
        {"name": "n0", "scopes": ["READ", "TRADE"], "lastUsedAt": None},
    ]
    pending = {"description": "d", "sourceHint": None, "status": "PENDING", "adminNotes": None, "asset": None}
    assert viewer["assetRequests"] == [{"name": "n1", **pending}, {"name": "n0", **pending}]
