"""An account's own events: what each kind shows, of which moment, and that nothing is read that was not asked for.

The changes are handed to the encoder here; that settlement writes them is the account events' own test.
"""

from datetime import timedelta
from typing import Any

import orjson
import pytest

from api.node_ids import node_id
from app.accounts.account_events import AccountChange
from app.accounts.principals import AccountPrincipal
from app.db import Database
from app.exchange.assets import AssetStatus
from app.exchange.batch import OrderOutcome
from app.exchange.orders import Side
from app.exchange.settlement import Settlement
from app.ledger.currencies import Currency
from app.realtime.events import EventKind
from app.services import Services
from tests.api.harness import Api, CountingDatabase
from tests.api.streaming import AT, FakeRealtime, Opened, event, subscribe, with_realtime
from tests.factories import new_account, new_admin, new_asset, order_request, place_order, set_status

WHOLE = """subscription { accountEvents { kind seq cursor missed
  orders { id clientOrderId status side filledShares reason asset { symbol } fills { tradeSeq } }
  fills { orderId clientOrderId tradeSeq shares gross fee }
  balances { currency available held total }
  positions { id shares costBasis averagePrice realizedPnl marketValue liquidationValue unrealizedPnl
              asset { supply } } } }"""


@pytest.fixture
def realtime() -> FakeRealtime:
    return FakeRealtime()


@pytest.fixture
def services(api: Api, realtime: FakeRealtime) -> Services:
    return with_realtime(api.services, realtime)


async def own(services: Services, realtime: FakeRealtime, principal: AccountPrincipal, document: str = WHOLE) -> Opened:
    """The account's own group, just opened."""
    before = list(realtime)
    await subscribe(services, document, principal=principal)
    (group,) = [each for each in realtime if each not in before]
    return group


async def shown(group: Opened, *changes: AccountChange, kind: EventKind = EventKind.UPDATE) -> dict[str, Any]:
    """The event that the reader gets, which has no errors."""
    seq = changes[-1].seq if changes else 4
    result = orjson.loads(await group.emit(*changes, kind=kind, seq=seq))
    assert "errors" not in result
    answer: dict[str, Any] = result["data"]["accountEvents"]
    return answer


def fill(principal: AccountPrincipal, outcome: OrderOutcome, **left: int) -> AccountChange:
    """The change that a filled order has made."""
    return AccountChange(
        account_id=principal.account_id,
        seq=2,
        at=AT,
        order_id=outcome.order.id,
        transfer_id=outcome.trades[0].transfer_id,
        currency=Currency.USDC,
        asset_id=outcome.order.asset_id,
        **left,
    )


async def test_a_fill_shows_what_it_left_behind_and_not_what_came_later(
    services: Services, realtime: FakeRealtime, database: Database, settlement: Settlement
) -> None:
    trader = await new_account(database, usdc="1000")
    asset_id = await new_asset(database, fee_rate="0")
    bought = await place_order(settlement, trader, asset_id, shares="2")
    change = fill(trader, bought, available=997_990_000, held=0, shares=2 * 10**9, cost_basis=2_010_000, realized_pnl=0)
    await place_order(settlement, trader, asset_id, Side.SELL, shares="1")
    group = await own(services, realtime, trader)

    answer = await shown(group, change)
    symbol = answer["orders"][0].pop("asset")["symbol"]
    position_id = answer["positions"][0].pop("id")
    order_id = node_id("Order", bought.order.id)

    assert symbol.startswith("T")
    assert answer == {
        "kind": "UPDATE",
        "seq": 2,
        "cursor": "p7",
        "missed": None,
        "orders": [
            {
                "id": order_id, "clientOrderId": bought.order.client_order_id, "status": "FILLED", "side": "BUY",
                "filledShares": "2", "reason": None, "fills": [{"tradeSeq": 1}],
            }
        ],
        "fills": [
            {
                "orderId": order_id, "clientOrderId": bought.order.client_order_id, "tradeSeq": 1, "shares": "2",
                "gross": "2.01", "fee": "0",
            }
        ],
        "balances": [{"currency": "USDC", "available": "997.99", "held": "0", "total": "997.99"}],
        # Shares and cost are those of then, what they are worth is told at the asset's present state.
        "positions": [
            {
                "shares": "2", "costBasis": "2.01", "averagePrice": "1.005", "realizedPnl": "0",
                "marketValue": "2.01", "liquidationValue": answer["positions"][0]["liquidationValue"],
                "unrealizedPnl": "0", "asset": {"supply": "1"},
            }
        ],
    }  # fmt: skip
    viewer = await Api(services).data(
        "query ($id: ID!) { viewer { position(assetId: $id) { id } } }",
        {"id": node_id("Asset", asset_id)},
        principal=trader,
    )
    assert viewer["viewer"]["position"]["id"] == position_id


async def test_a_refused_order_shows_the_order_alone(
    services: Services, realtime: FakeRealtime, database: Database, settlement: Settlement
) -> None:
    trader = await new_account(database, usdc="1")
    outcome = await settlement.place(order_request(trader, await new_asset(database), shares="5"))
    group = await own(services, realtime, trader)

    answer = await shown(group, AccountChange(trader.account_id, 3, AT, order_id=outcome.order.id))

    (order,) = answer.pop("orders")
    assert (order["status"], order["reason"], order["filledShares"]) == ("REJECTED", "INSUFFICIENT_FUNDS", "0")
    assert answer == {
        "kind": "UPDATE", "seq": 3, "cursor": "p7", "missed": None, "fills": [], "balances": [], "positions": [],
    }  # fmt: skip


async def test_a_transfer_shows_the_balance_alone(
    services: Services, realtime: FakeRealtime, database: Database
) -> None:
    trader = await new_account(database, usdt="5")
    group = await own(services, realtime, trader)
    change = AccountChange(
        trader.account_id, 1, AT, transfer_id=17, currency=Currency.USDT, available=4_000_000, held=1_500_000
    )

    assert await shown(group, change) == {
        "kind": "UPDATE",
        "seq": 1,
        "cursor": "p7",
        "missed": None,
        "orders": [],
        "fills": [],
        "balances": [{"currency": "USDT", "available": "4", "held": "1.5", "total": "5.5"}],
        "positions": [],
    }


async def test_a_snapshot_shows_balances_and_open_positions_as_they_are(
    services: Services, realtime: FakeRealtime, database: Database, settlement: Settlement
) -> None:
    trader = await new_account(database, usdc="1000")
    kept, closed = await new_asset(database, fee_rate="0"), await new_asset(database, fee_rate="0")
    for asset_id in (kept, closed):
        await place_order(settlement, trader, asset_id, shares="2")
    await place_order(settlement, trader, closed, Side.SELL, shares="2")
    group = await own(services, realtime, trader)

    answer = await shown(group, kind=EventKind.SNAPSHOT)

    assert (answer["kind"], answer["seq"], answer["orders"], answer["fills"]) == ("SNAPSHOT", 4, [], [])
    assert answer["balances"] == [
        {"currency": "USDC", "available": "997.99", "held": "0", "total": "997.99"},
        {"currency": "USDT", "available": "0", "held": "0", "total": "0"},
    ]
    assert [(each["shares"], each["costBasis"], each["marketValue"]) for each in answer["positions"]] == [
        ("2", "2.01", "2.02")
    ]


@pytest.mark.parametrize("kind", [EventKind.HEARTBEAT, EventKind.GAP])
async def test_what_is_no_news_shows_nothing(
    services: Services, realtime: FakeRealtime, database: Database, kind: EventKind
) -> None:
    group = await own(services, realtime, await new_account(database, usdc="5"))

    assert await shown(group, kind=kind) == {
        "kind": kind.value, "seq": 4, "cursor": "p7", "missed": None, "orders": [], "fills": [], "balances": [],
        "positions": [],
    }  # fmt: skip


async def test_what_is_not_asked_for_is_not_read(
    services: Services, realtime: FakeRealtime, database: Database
) -> None:
    trader = await new_account(database)
    group = await own(
        services, realtime, trader, "subscription { accountEvents { seq cursor balances { available } } }"
    )
    counting = services.database
    assert isinstance(counting, CountingDatabase)
    counting.statements.clear()
    change = AccountChange(
        trader.account_id, 1, AT, order_id=10**15, transfer_id=1, currency=Currency.USDC, available=1, held=0
    )

    assert await shown(group, change) == {"seq": 1, "cursor": "p7", "balances": [{"available": "0.000001"}]}
    assert counting.statements == []


async def test_each_event_is_read_afresh(
    services: Services, realtime: FakeRealtime, database: Database, settlement: Settlement
) -> None:
    trader = await new_account(database, usdc="1000")
    asset_id = await new_asset(database, fee_rate="0")
    bought = await place_order(settlement, trader, asset_id, shares="2")
    change = fill(trader, bought, available=1, held=0, shares=2 * 10**9, cost_basis=2_010_000, realized_pnl=0)
    group = await own(
        services, realtime, trader, "subscription { accountEvents { positions { marketValue asset { status } } } }"
    )

    assert await shown(group, change) == {"positions": [{"marketValue": "2.02", "asset": {"status": "OPEN"}}]}
    await place_order(settlement, await new_account(database, usdc="1000"), asset_id, shares="2")
    await set_status(database, asset_id, AssetStatus.HALTED)
    assert await shown(group, change) == {"positions": [{"marketValue": "2.04", "asset": {"status": "HALTED"}}]}


async def test_a_frozen_account_reads(services: Services, realtime: FakeRealtime, api: Api, database: Database) -> None:
    trader = await new_account(database, usdc="5")
    await api.data(
        'mutation ($id: ID!) { accountFreeze(input: { accountId: $id, frozen: true, reason: "a test" }) '
        "{ account { frozen } } }",
        {"id": node_id("Account", trader.account_id)},
        principal=await new_admin(database),
    )
    group = await own(services, realtime, trader, "subscription { accountEvents { balances { available } } }")

    answer = await shown(group, kind=EventKind.SNAPSHOT)
    assert answer["balances"][0] == {"available": "5"}


async def test_an_event_at_a_later_time_is_no_other_event(
    services: Services, realtime: FakeRealtime, database: Database
) -> None:
    trader = await new_account(database)
    group = await own(services, realtime, trader, "subscription { accountEvents { seq serverTime missed } }")
    result = group.encode(event(AccountChange(trader.account_id, 1, AT + timedelta(days=1), transfer_id=1), seq=1))

    assert result == b'{"data":{"accountEvents":{"seq":1,"serverTime":"2026-01-31T09:30:00Z","missed":null}}}'
