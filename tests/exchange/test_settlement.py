"""Settlement on a real PostgreSQL: exact outcomes, refusals under the lock that change nothing, and client keys.

What happens when things break is in tests/faults.
"""

from datetime import UTC, date, datetime, timedelta

import pytest

from app.accounts.principals import AccountPrincipal
from app.admin.accounts import freeze_account
from app.admin.asset_input import AssetChanges
from app.admin.pause import pause_trading
from app.db import Database
from app.errors import ErrorCode, Refusal, Refused, isoformat
from app.exchange.assets import AssetStatus
from app.exchange.orders import Order, OrderRequest, OrderStatus, OrderType, Side, TimeInForce, Trade, order_from_row
from app.exchange.settlement import Settlement
from app.ledger.currencies import Currency
from tests.factories import (
    load_asset,
    new_account,
    new_admin,
    new_asset,
    order_request,
    place_order,
    set_status,
    settle_together,
    standing,
    update_asset,
)

MILLION = 10**6
BILLION = 10**9


async def refusal_of(database: Database, settlement: Settlement, request: OrderRequest) -> Refusal:
    """The refusal that `request` meets under the lock; shows that it is stored as an order and changed nothing else."""
    before = await standing(database, account_id=request.account_id, asset_id=request.asset_id)
    outcome = await settlement.place(request)
    after = await standing(database, account_id=request.account_id, asset_id=request.asset_id)
    assert outcome.refusal is not None
    assert (outcome.trades, outcome.order.status) == ((), OrderStatus.REJECTED)
    assert (outcome.order.filled_shares, outcome.order.gross, outcome.order.fee) == (0, 0, 0)
    assert after.without_orders() == before.without_orders()
    assert after.orders == before.orders + 1
    assert await stored_order(database, request) == outcome.order
    return outcome.refusal


async def stored_order(database: Database, request: OrderRequest) -> Order | None:
    """The order that bears the request's key."""
    async with database.acquire() as connection:
        row = await connection.fetchrow(
            "SELECT * FROM orders WHERE account_id = $1 AND client_order_id = $2", *request.key
        )
    return order_from_row(row) if row else None


async def holder(
    database: Database, settlement: Settlement, asset_id: int, *, shares: str, usdc: str = "1000"
) -> AccountPrincipal:
    """An account that has bought `shares` of the asset."""
    principal = await new_account(database, usdc=usdc)
    await place_order(settlement, principal, asset_id, shares=shares)
    return principal


# ---------------------------------------------------------------------------------------------------- outcomes


async def test_a_buy_by_shares_moves_exactly_gross_and_fee(database: Database, settlement: Settlement) -> None:
    account, asset_id = await new_account(database, usdc="1000"), await new_asset(database)
    request = order_request(account, asset_id, shares="10")
    outcome = await settlement.place(request)
    order, (trade,) = outcome.order, outcome.trades
    assert order == Order(
        id=order.id, account_id=account.account_id, asset_id=asset_id, client_order_id=request.client_order_id,
        side=Side.BUY, type=OrderType.MARKET, time_in_force=TimeInForce.FOK, status=OrderStatus.FILLED,
        limit_price=None, shares=10 * BILLION, amount=None, filled_shares=10 * BILLION, gross=10_250_000, fee=51_250,
        refusal=None, created_at=trade.at, updated_at=trade.at,
    )  # fmt: skip
    assert trade == Trade(
        id=trade.id, asset_id=asset_id, seq=1, account_id=account.account_id, order_id=order.id,
        client_order_id=request.client_order_id, side=Side.BUY, shares=10 * BILLION, gross=10_250_000, fee=51_250,
        supply_after=10 * BILLION, market_after=1_050_000_000_000, transfer_id=trade.transfer_id, at=trade.at,
    )  # fmt: skip
    assert await stored_order(database, request) == order
    after = await standing(database, account_id=account.account_id, asset_id=asset_id)
    assert after.balances == {
        "account AVAILABLE USDC": 1_000_000_000 - 10_301_250,
        "account AVAILABLE shares": 10 * BILLION,
        "asset BACKING USDC": 10_250_000,
        "asset SURPLUS USDC": 51_250,
        "asset ISSUED shares": -10 * BILLION,
    }
    assert after.position == {
        "shares": 10 * BILLION, "cost_basis": 10_301_250, "realized_pnl": 0, "redeemed_on": None, "redeemed": 0,
    }  # fmt: skip
    figures = {name: after.asset[name] for name in ("supply", "backing", "surplus", "trade_seq", "last_trade_at")}
    assert figures == {
        "supply": 10 * BILLION, "backing": 10_250_000, "surplus": 51_250, "trade_seq": 1, "last_trade_at": trade.at,
    }  # fmt: skip


async def test_a_buy_for_an_amount_takes_all_of_it_where_shares_are_fine_enough(
    database: Database, settlement: Settlement
) -> None:
    account, asset_id = await new_account(database, usdc="100"), await new_asset(database)
    outcome = await settlement.place(order_request(account, asset_id, amount="100"))
    assert (outcome.order.shares, outcome.order.amount) == (None, 100 * MILLION)
    assert (outcome.order.filled_shares, outcome.order.gross, outcome.order.fee) == (
        82_490_698_607,
        99_502_487,
        497_513,
    )
    after = await standing(database, account_id=account.account_id, asset_id=asset_id)
    assert after.balances["account AVAILABLE USDC"] == 0
    assert after.asset["supply"] == 82_490_698_607
    assert outcome.trades[0].market_after == 1_412_453_493_035


async def test_a_buy_for_an_amount_takes_only_gross_and_fee(database: Database, settlement: Settlement) -> None:
    account = await new_account(database, usdc="1")
    asset_id = await new_asset(database, base_price="1000000", slope="0.000000000000000001")
    outcome = await settlement.place(order_request(account, asset_id, amount="1"))
    assert (outcome.order.filled_shares, outcome.order.gross, outcome.order.fee) == (995, 995_001, 4_976)
    after = await standing(database, account_id=account.account_id, asset_id=asset_id)
    assert after.balances["account AVAILABLE USDC"] == MILLION - 999_977


async def test_a_sale_pays_gross_less_fee_and_takes_its_share_of_the_basis(
    database: Database, settlement: Settlement
) -> None:
    asset_id = await new_asset(database)
    account = await holder(database, settlement, asset_id, shares="10")
    outcome = await settlement.place(order_request(account, asset_id, Side.SELL, shares="4"))
    (trade,) = outcome.trades
    assert (trade.seq, trade.shares, trade.gross, trade.fee) == (2, 4 * BILLION, 4_160_000, 20_800)
    assert (trade.supply_after, trade.market_after) == (6 * BILLION, 1_030_000_000_000)
    after = await standing(database, account_id=account.account_id, asset_id=asset_id)
    assert after.balances == {
        "account AVAILABLE USDC": 1_000_000_000 - 10_301_250 + 4_139_200,
        "account AVAILABLE shares": 6 * BILLION,
        "asset BACKING USDC": 6_090_000,
        "asset SURPLUS USDC": 72_050,
        "asset ISSUED shares": -6 * BILLION,
    }
    assert after.position == {
        "shares": 6 * BILLION, "cost_basis": 10_301_250 - 4_120_500, "realized_pnl": 4_139_200 - 4_120_500,
        "redeemed_on": trade.at.date(), "redeemed": 4_160_000,
    }  # fmt: skip


async def test_a_whole_position_may_be_sold_below_the_minimum_and_leaves_no_basis(
    database: Database, settlement: Settlement
) -> None:
    asset_id = await new_asset(database)
    account = await holder(database, settlement, asset_id, shares="0.02", usdc="1")
    await place_order(settlement, account, asset_id, Side.SELL, shares="0.015")
    outcome = await settlement.place(order_request(account, asset_id, Side.SELL, shares="0.005"))
    assert (outcome.order.status, outcome.order.gross, outcome.order.fee) == (OrderStatus.FILLED, 5_000, 25)
    after = await standing(database, account_id=account.account_id, asset_id=asset_id)
    assert after.position is not None
    position = {name: after.position[name] for name in ("shares", "cost_basis", "realized_pnl", "redeemed")}
    assert position == {"shares": 0, "cost_basis": 0, "realized_pnl": -202, "redeemed": 20_000}
    assert (after.asset["supply"], after.asset["backing"], after.asset["surplus"]) == (0, 1, 201)


async def test_currencies_are_never_one_another(database: Database, settlement: Settlement) -> None:
    account = await new_account(database, usdc="5", usdt="3.040113")
    asset_id = await new_asset(database, quote_currency=Currency.USDT)
    rich_in_the_other = order_request(account, asset_id, shares="4")
    refusal = await refusal_of(database, settlement, rich_in_the_other)
    assert (refusal.code, refusal.available) == (ErrorCode.INSUFFICIENT_FUNDS, "3.040113")
    outcome = await settlement.place(order_request(account, asset_id, shares="3"))
    assert (outcome.order.gross, outcome.order.fee) == (3_022_500, 15_113)
    after = await standing(database, account_id=account.account_id, asset_id=asset_id)
    assert after.balances["account AVAILABLE USDC"] == 5 * MILLION
    assert after.balances["account AVAILABLE USDT"] == 2_500
    assert after.balances["asset BACKING USDT"] == 3_022_500


async def test_a_batch_is_settled_in_the_order_of_arrival(database: Database) -> None:
    first, second = await new_account(database, usdc="100"), await new_account(database, usdc="100")
    asset_id = await new_asset(database)
    told: list[list[Trade]] = []
    requests = [
        order_request(first, asset_id, shares="5"),
        order_request(second, asset_id, shares="5"),
        order_request(first, asset_id, Side.SELL, shares="6"),
        order_request(first, asset_id, Side.SELL, shares="2"),
    ]
    answers = await settle_together(database, requests, publish=lambda trades: told.append(list(trades)))
    outcomes = [answer for answer in answers if not isinstance(answer, BaseException)]
    assert [outcome.order.status for outcome in outcomes] == ["FILLED", "FILLED", "REJECTED", "FILLED"]
    assert [(o.order.gross, o.order.fee) for o in outcomes] == [
        (5_062_500, 25_313), (5_187_500, 25_938), (0, 0), (2_090_000, 10_450),
    ]  # fmt: skip
    assert outcomes[2].refusal is not None
    assert (outcomes[2].refusal.required, outcomes[2].refusal.available) == ("6", "5")
    trades = [trade for outcome in outcomes for trade in outcome.trades]
    assert [(trade.seq, trade.supply_after, trade.market_after) for trade in trades] == [
        (1, 5 * BILLION, 1_025_000_000_000), (2, 10 * BILLION, 1_050_000_000_000), (3, 8 * BILLION, 1_040_000_000_000),
    ]  # fmt: skip
    assert told == [trades]
    asset = await load_asset(database, asset_id)
    assert (asset.supply, asset.backing, asset.surplus, asset.trade_seq) == (8 * BILLION, 8_160_000, 61_701, 3)


async def test_one_batch_may_hold_several_assets(database: Database) -> None:
    account = await new_account(database, usdc="1000")
    cheap, dear = await new_asset(database), await new_asset(database, base_price="100", slope="1")
    requests = [order_request(account, asset_id, shares="2") for asset_id in (dear, cheap, dear)]
    answers = await settle_together(database, requests)
    trades = [trade for answer in answers if not isinstance(answer, BaseException) for trade in answer.trades]
    assert [(trade.asset_id, trade.seq, trade.gross) for trade in trades] == [
        (dear, 1, 202_000_000), (cheap, 1, 2_010_000), (dear, 2, 206_000_000),
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------ refusals under the lock


async def test_too_little_money(database: Database, settlement: Settlement) -> None:
    account, asset_id = await new_account(database, usdc="10.301249"), await new_asset(database)
    symbol = (await load_asset(database, asset_id)).symbol
    refusal = await refusal_of(database, settlement, order_request(account, asset_id, shares="10"))
    assert refusal == Refusal(
        ErrorCode.INSUFFICIENT_FUNDS,
        f"Buying 10 {symbol} takes 10.30125 USDC, fee included; 10.301249 is available.",
        ("input", "shares"),
        required="10.30125",
        available="10.301249",
    )


async def test_too_few_shares(database: Database, settlement: Settlement) -> None:
    asset_id = await new_asset(database)
    account = await holder(database, settlement, asset_id, shares="1.5")
    symbol = (await load_asset(database, asset_id)).symbol
    refusal = await refusal_of(database, settlement, order_request(account, asset_id, Side.SELL, shares="1.500000001"))
    assert refusal == Refusal(
        ErrorCode.INSUFFICIENT_SHARES,
        f"Selling 1.500000001 {symbol} needs as many shares; 1.5 are available.",
        ("input", "shares"),
        required="1.500000001",
        available="1.5",
    )


async def test_shares_of_somebody_else_cannot_be_sold(database: Database, settlement: Settlement) -> None:
    asset_id = await new_asset(database)
    await holder(database, settlement, asset_id, shares="5")
    other = await new_account(database, usdc="10")
    refusal = await refusal_of(database, settlement, order_request(other, asset_id, Side.SELL, shares="1"))
    assert (refusal.code, refusal.required, refusal.available) == (ErrorCode.INSUFFICIENT_SHARES, "1", "0")


async def test_below_the_minimum(database: Database, settlement: Settlement) -> None:
    account, asset_id = await new_account(database, usdc="10"), await new_asset(database)
    refusal = await refusal_of(database, settlement, order_request(account, asset_id, amount="0.01"))
    assert refusal == Refusal(
        ErrorCode.BELOW_MINIMUM,
        "The trade is worth 0.00995 USDC before fees; the least is 0.01.",
        ("input", "amount"),
        limit="0.01",
    )


async def test_a_part_of_a_position_below_the_minimum(database: Database, settlement: Settlement) -> None:
    asset_id = await new_asset(database)
    account = await holder(database, settlement, asset_id, shares="1")
    refusal = await refusal_of(database, settlement, order_request(account, asset_id, Side.SELL, shares="0.009"))
    assert (refusal.code, refusal.field, refusal.limit) == (ErrorCode.BELOW_MINIMUM, ("input", "shares"), "0.01")


async def test_slippage_of_a_buy(database: Database, settlement: Settlement) -> None:
    account, asset_id = await new_account(database, usdc="1000"), await new_asset(database)
    await place_order(settlement, account, asset_id, shares="5")
    too_dear = order_request(account, asset_id, shares="5", max_total="5.213437")
    refusal = await refusal_of(database, settlement, too_dear)
    assert refusal == Refusal(
        ErrorCode.SLIPPAGE_EXCEEDED,
        "maxTotal is 5.213437 and the order would come to 5.213438 at tradeSeq 1; quote again.",
        ("input", "maxTotal"),
        bound="5.213437",
        actual="5.213438",
        at_trade_seq=1,
    )
    outcome = await settlement.place(order_request(account, asset_id, shares="5", max_total="5.213438"))
    assert (outcome.order.status, outcome.order.gross + outcome.order.fee) == (OrderStatus.FILLED, 5_213_438)


async def test_slippage_of_a_buy_for_an_amount(database: Database, settlement: Settlement) -> None:
    account, asset_id = await new_account(database, usdc="1000"), await new_asset(database)
    too_few = order_request(account, asset_id, amount="100", min_shares="82.490698608")
    refusal = await refusal_of(database, settlement, too_few)
    assert (refusal.code, refusal.field, refusal.bound, refusal.actual, refusal.at_trade_seq) == (
        ErrorCode.SLIPPAGE_EXCEEDED, ("input", "minShares"), "82.490698608", "82.490698607", 0,
    )  # fmt: skip
    outcome = await settlement.place(order_request(account, asset_id, amount="100", min_shares="82.490698607"))
    assert outcome.order.filled_shares == 82_490_698_607


async def test_slippage_of_a_sale(database: Database, settlement: Settlement) -> None:
    asset_id = await new_asset(database)
    account = await holder(database, settlement, asset_id, shares="10")
    too_cheap = order_request(account, asset_id, Side.SELL, shares="4", min_total="4.139201")
    refusal = await refusal_of(database, settlement, too_cheap)
    assert (refusal.code, refusal.field, refusal.bound, refusal.actual, refusal.at_trade_seq) == (
        ErrorCode.SLIPPAGE_EXCEEDED, ("input", "minTotal"), "4.139201", "4.1392", 1,
    )  # fmt: skip
    outcome = await settlement.place(order_request(account, asset_id, Side.SELL, shares="4", min_total="4.1392"))
    assert outcome.order.gross - outcome.order.fee == 4_139_200


async def test_the_market_has_moved_on(database: Database, settlement: Settlement) -> None:
    account, asset_id = await new_account(database, usdc="1000"), await new_asset(database)
    symbol = (await load_asset(database, asset_id)).symbol
    await place_order(settlement, account, asset_id, shares="5")
    refusal = await refusal_of(database, settlement, order_request(account, asset_id, shares="5", if_trade_seq=0))
    assert refusal == Refusal(
        ErrorCode.SLIPPAGE_EXCEEDED,
        f"{symbol} is at tradeSeq 1 and no longer at 0; quote again.",
        ("input", "ifTradeSeq"),
        bound="0",
        actual="1",
        at_trade_seq=1,
    )
    outcome = await settlement.place(order_request(account, asset_id, shares="5", if_trade_seq=1))
    assert outcome.order.status is OrderStatus.FILLED


async def test_the_deadline_goes_by_the_databases_clock(database: Database, settlement: Settlement) -> None:
    account, asset_id = await new_account(database, usdc="1000"), await new_asset(database)
    deadline = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    request = order_request(account, asset_id, shares="5", deadline=deadline)
    refusal = await refusal_of(database, settlement, request)
    order = await stored_order(database, request)
    assert order is not None
    assert refusal == Refusal(
        ErrorCode.DEADLINE_PASSED,
        f"The deadline 2026-01-02T03:04:05.000678Z had passed at {isoformat(order.created_at)}; "
        "place a new order with a later one.",
        ("input", "deadline"),
    )
    in_time = order_request(account, asset_id, shares="5", deadline=datetime.now(UTC) + timedelta(seconds=50))
    assert (await settlement.place(in_time)).order.status is OrderStatus.FILLED


async def test_the_limit_of_shares_per_account(database: Database, settlement: Settlement) -> None:
    asset_id = await new_asset(database, max_shares_per_account="7")
    symbol = (await load_asset(database, asset_id)).symbol
    account = await holder(database, settlement, asset_id, shares="5")
    refusal = await refusal_of(database, settlement, order_request(account, asset_id, shares="2.000000001"))
    assert refusal == Refusal(
        ErrorCode.POSITION_LIMIT,
        f"An account may hold at most 7 {symbol}; 2 more fit.",
        ("input", "shares"),
        limit="7",
        remaining="2",
    )
    assert (await settlement.place(order_request(account, asset_id, shares="2"))).refusal is None


async def test_the_limit_of_shares_outstanding(database: Database, settlement: Settlement) -> None:
    account, asset_id = await new_account(database, usdc="1000"), await new_asset(database)
    symbol = (await load_asset(database, asset_id)).symbol
    refusal = await refusal_of(database, settlement, order_request(account, asset_id, shares="59999800.000333334"))
    assert refusal == Refusal(
        ErrorCode.POSITION_LIMIT,
        f"{symbol} may have at most 59999800.000333333 shares outstanding; 59999800.000333333 are left.",
        ("input", "shares"),
        limit="59999800.000333333",
        remaining="59999800.000333333",
    )


async def test_the_most_money_of_one_order(database: Database, settlement: Settlement) -> None:
    account, asset_id = await new_account(database, usdc="1000"), await new_asset(database)
    refusal = await refusal_of(database, settlement, order_request(account, asset_id, shares="30000000"))
    assert refusal == Refusal(
        ErrorCode.INVALID_INPUT,
        "One order may move at most 1000000000000 USDC, fee included; this one would move 2261280150000. Split it.",
        ("input", "shares"),
    )


async def test_the_limit_of_redemption_per_day(database: Database, settlement: Settlement) -> None:
    asset_id = await new_asset(database, max_redemption_per_day="5")
    symbol = (await load_asset(database, asset_id)).symbol
    account = await holder(database, settlement, asset_id, shares="10")
    sold = await place_order(settlement, account, asset_id, Side.SELL, shares="4")
    refusal = await refusal_of(database, settlement, order_request(account, asset_id, Side.SELL, shares="1"))
    midnight = isoformat(_midnight_after(sold.order.created_at.date()))
    assert refusal == Refusal(
        ErrorCode.REDEMPTION_LIMIT,
        f"An account may sell {symbol} for at most 5 USDC a UTC day; 0.84 is left until {midnight}.",
        ("input", "shares"),
        limit="5",
        remaining="0.84",
        resets_at=midnight,
    )
    assert (await settlement.place(order_request(account, asset_id, Side.SELL, shares="0.8"))).refusal is None


def _midnight_after(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)


@pytest.mark.parametrize("side", [Side.BUY, Side.SELL])
async def test_a_halted_asset_trades_nothing(database: Database, settlement: Settlement, side: Side) -> None:
    asset_id = await new_asset(database)
    symbol = (await load_asset(database, asset_id)).symbol
    account = await holder(database, settlement, asset_id, shares="5")
    await set_status(database, asset_id, AssetStatus.HALTED)
    refusal = await refusal_of(database, settlement, order_request(account, asset_id, side, shares="1"))
    message = f"{symbol} is HALTED: it does not trade now."
    assert refusal == Refusal(ErrorCode.ASSET_NOT_OPEN, message, ("input", "assetId"))


async def test_a_reduce_only_asset_sells_only(database: Database, settlement: Settlement) -> None:
    asset_id = await new_asset(database)
    symbol = (await load_asset(database, asset_id)).symbol
    account = await holder(database, settlement, asset_id, shares="5")
    await set_status(database, asset_id, AssetStatus.REDUCE_ONLY)
    refusal = await refusal_of(database, settlement, order_request(account, asset_id, shares="1"))
    message = f"{symbol} is REDUCE_ONLY: it can only be sold."
    assert refusal == Refusal(ErrorCode.ASSET_NOT_OPEN, message, ("input", "assetId"))
    outcome = await settlement.place(order_request(account, asset_id, Side.SELL, shares="1"))
    assert outcome.order.status is OrderStatus.FILLED


async def test_a_frozen_account_trades_nothing(database: Database, settlement: Settlement) -> None:
    asset_id, admin = await new_asset(database), await new_admin(database)
    account = await holder(database, settlement, asset_id, shares="5")
    async with database.transaction() as unit:
        await freeze_account(unit=unit, principal=admin, account_id=account.account_id, frozen=True, reason="a test")
    refusal = await refusal_of(database, settlement, order_request(account, asset_id, Side.SELL, shares="1"))
    message = "This account is frozen: it can read and move nothing. Ask support."
    assert refusal == Refusal(ErrorCode.ACCOUNT_FROZEN, message)


async def test_a_pause_stops_every_trade_and_ends(database: Database, settlement: Settlement) -> None:
    asset_id, admin = await new_asset(database), await new_admin(database)
    account = await holder(database, settlement, asset_id, shares="5")
    async with database.transaction() as unit:
        await pause_trading(unit=unit, principal=admin, paused=True, reason="a drill")
    try:
        refusal = await refusal_of(database, settlement, order_request(account, asset_id, Side.SELL, shares="1"))
    finally:
        async with database.transaction() as unit:
            await pause_trading(unit=unit, principal=admin, paused=False, reason="the drill is over")
    message = "Trading is paused on the whole platform: a drill. Try again later."
    assert refusal == Refusal(ErrorCode.TRADING_PAUSED, message)
    assert (await settlement.place(order_request(account, asset_id, Side.SELL, shares="1"))).refusal is None


async def test_a_new_fee_counts_from_the_next_trade(database: Database, settlement: Settlement) -> None:
    account, asset_id = await new_account(database, usdc="1000"), await new_asset(database)
    await update_asset(database, asset_id, AssetChanges(fee_rate="0"))
    outcome = await settlement.place(order_request(account, asset_id, shares="10"))
    assert (outcome.order.gross, outcome.order.fee) == (10_250_000, 0)
    after = await standing(database, account_id=account.account_id, asset_id=asset_id)
    assert "asset SURPLUS USDC" not in after.balances


async def test_a_draft_looks_like_no_asset_at_all(database: Database, settlement: Settlement) -> None:
    account = await new_account(database, usdc="1000")
    asset_id = await new_asset(database, status=AssetStatus.DRAFT)
    before = await standing(database, account_id=account.account_id, asset_id=asset_id)
    with pytest.raises(Refused) as draft:
        await settlement.place(order_request(account, asset_id, shares="1", key="a draft"))
    with pytest.raises(Refused) as missing:
        await settlement.place(order_request(account, 10**15, shares="1", key="nothing"))
    assert draft.value.refusal == missing.value.refusal
    message = "There is no such asset; look it up by its symbol."
    assert draft.value.refusal == Refusal(ErrorCode.NOT_FOUND, message, ("input", "assetId"))
    assert await standing(database, account_id=account.account_id, asset_id=asset_id) == before
    await set_status(database, asset_id, AssetStatus.OPEN)
    outcome = await settlement.place(order_request(account, asset_id, shares="1", key="a draft"))
    assert outcome.order.status is OrderStatus.FILLED


# ---------------------------------------------------------------------------------------------------------- keys


async def test_a_repeat_answers_the_first_outcome(database: Database, settlement: Settlement) -> None:
    account, asset_id = await new_account(database, usdc="1000"), await new_asset(database)
    first = await settlement.place(order_request(account, asset_id, shares="10", key="once"))
    await place_order(settlement, account, asset_id, shares="3")
    before = await standing(database, account_id=account.account_id, asset_id=asset_id)
    again = await settlement.place(order_request(account, asset_id, shares="10.000", key="once"))
    assert again == first
    assert await standing(database, account_id=account.account_id, asset_id=asset_id) == before


async def test_a_repeat_of_a_refusal_answers_the_refusal_even_if_it_could_be_filled_now(
    database: Database, settlement: Settlement
) -> None:
    account, asset_id = await new_account(database, usdc="1"), await new_asset(database)
    first = await settlement.place(order_request(account, asset_id, shares="10", key="poor"))
    assert first.refusal is not None
    richer = await new_account(database, usdc="1000")
    assert (await settlement.place(order_request(richer, asset_id, shares="10", key="poor"))).refusal is None
    await update_asset(database, asset_id, AssetChanges(fee_rate="0"))
    before = await standing(database, account_id=account.account_id, asset_id=asset_id)
    assert await settlement.place(order_request(account, asset_id, shares="10", key="poor")) == first
    assert await standing(database, account_id=account.account_id, asset_id=asset_id) == before


@pytest.mark.parametrize(
    "changed",
    [
        {"shares": "10.000000001"},
        {"shares": None, "amount": "10"},
        {"max_total": "1000"},
        {"min_shares": "1"},
        {"if_trade_seq": 0},
        {"side": Side.SELL},
    ],
    ids=str,
)
async def test_a_key_used_with_another_input_is_refused(
    database: Database, settlement: Settlement, changed: dict[str, object]
) -> None:
    account, asset_id = await new_account(database, usdc="1000"), await new_asset(database)
    original: dict[str, object] = {"shares": "10", "key": "mine"}
    first = await settlement.place(order_request(account, asset_id, **original))  # type: ignore[arg-type]
    before = await standing(database, account_id=account.account_id, asset_id=asset_id)
    with pytest.raises(Refused) as refused:
        await settlement.place(order_request(account, asset_id, **(original | changed)))  # type: ignore[arg-type]
    assert refused.value.refusal == Refusal(
        ErrorCode.IDEMPOTENCY_KEY_REUSED,
        "clientOrderId 'mine' already names an order with another input; use a new one.",
        ("input", "clientOrderId"),
    )
    assert await standing(database, account_id=account.account_id, asset_id=asset_id) == before
    assert await settlement.place(order_request(account, asset_id, shares="10", key="mine")) == first


async def test_a_key_names_one_order_whatever_the_asset(database: Database, settlement: Settlement) -> None:
    account = await new_account(database, usdc="1000")
    asset_id, other_id = await new_asset(database), await new_asset(database)
    await settlement.place(order_request(account, asset_id, shares="1", key="k"))
    before = await standing(database, account_id=account.account_id, asset_id=other_id)
    with pytest.raises(Refused) as refused:
        await settlement.place(order_request(account, other_id, shares="1", key="k"))
    assert refused.value.refusal.code is ErrorCode.IDEMPOTENCY_KEY_REUSED
    assert await standing(database, account_id=account.account_id, asset_id=other_id) == before


async def test_a_key_twice_in_one_batch_has_one_effect(database: Database) -> None:
    account, asset_id = await new_account(database, usdc="1000"), await new_asset(database)
    request = order_request(account, asset_id, shares="10", key="twin")
    other_input = order_request(account, asset_id, shares="11", key="twin")
    first, again, other = await settle_together(database, [request, request, other_input])
    assert not isinstance(first, BaseException)
    assert again == first
    assert isinstance(other, Refused)
    assert other.refusal.code is ErrorCode.IDEMPOTENCY_KEY_REUSED
    after = await standing(database, account_id=account.account_id, asset_id=asset_id)
    assert (after.orders, after.trades, after.asset["supply"]) == (1, 1, 10 * BILLION)


async def test_accounts_do_not_share_keys(database: Database, settlement: Settlement) -> None:
    asset_id = await new_asset(database)
    orders = [
        (await settlement.place(order_request(account, asset_id, shares="1", key="same"))).order
        for account in (await new_account(database, usdc="10"), await new_account(database, usdc="10"))
    ]
    assert orders[0].id != orders[1].id
    assert (await load_asset(database, asset_id)).supply == 2 * BILLION


async def test_what_is_kept_of_an_order_survives_any_text(database: Database, settlement: Settlement) -> None:
    account, asset_id = await new_account(database, usdc="1000"), await new_asset(database)
    key = r"""\N\t\.'";--%s{}$1 ~"""
    first = await settlement.place(order_request(account, asset_id, shares="1", key=key))
    assert first.order.client_order_id == key
    assert await settlement.place(order_request(account, asset_id, shares="1", key=key)) == first
