"""One batch of orders inside one transaction: take the locks, load the state, decide each order in turn, write it all.

Nothing here opens or ends the transaction: `settlement` does, and answers the waiters.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg
import orjson

from app.accounts.account_events import LAST_SEQ, ChangeRow, write_account_changes
from app.copying import copy_rows
from app.db import Connection
from app.errors import ErrorCode, Refusal, Refused, Unauthenticated, refuse
from app.exchange.assets import AssetStatus
from app.exchange.curve import Amounts, Curve, marginal_price
from app.exchange.decide import Conditions, Funds, Holding, Market, apply, decide
from app.exchange.orders import (
    ORDER_COLUMNS,
    TRADE_COLUMNS,
    Order,
    OrderRequest,
    OrderStatus,
    Side,
    Trade,
    order_from_row,
    trade_from_row,
)
from app.ledger.journal import Journal, LedgerBalance, LedgerKind, TransferReason, load_balances, open_ledger_accounts
from app.ledger.locks import lock

Holdings = dict[tuple[int, int], Holding]

_ORDER_COLUMNS: Final = (
    "id",
    "account_id",
    "asset_id",
    "client_order_id",
    "input_hash",
    "side",
    "type",
    "time_in_force",
    "status",
    "shares",
    "amount",
    "filled_shares",
    "gross",
    "fee",
    "refusal",
    "created_at",
    "updated_at",
)
_TRADE_COLUMNS: Final = (
    "id",
    "asset_id",
    "seq",
    "account_id",
    "order_id",
    "side",
    "shares",
    "gross",
    "fee",
    "supply_after",
    "market_after",
    "transfer_id",
    "at",
)


_NOTHING_AFTER: Final = (None,) * 8
"""How a refused order has left money and position: as they were."""


@dataclass(frozen=True, slots=True)
class OrderOutcome:
    """What became of an order. `refusal` repeats `order.refusal`; `trades` are the order's own."""

    order: Order
    trades: tuple[Trade, ...]

    @property
    def refusal(self) -> Refusal | None:
        """Why the order was REJECTED."""
        return self.order.refusal


Answer = OrderOutcome | Refused | Unauthenticated
"""An outcome, or what is raised to the one who asked because it binds no key."""


@dataclass(slots=True)
class _Stored:
    outcome: OrderOutcome
    input_hash: bytes


@dataclass(slots=True)
class _State:
    """Everything the batch decides on, loaded under lock, and what has come of it so far."""

    conditions: Conditions
    markets: dict[int, Market]
    frozen: dict[int, bool]
    holdings: Holdings
    owned: dict[tuple[int, str], LedgerBalance]
    held: dict[tuple[int, str], LedgerBalance]
    reserves: dict[tuple[int, LedgerKind], LedgerBalance]
    stored: dict[tuple[int, str], _Stored]
    credentials: set[tuple[str, int]]
    order_ids: Iterator[int]
    trade_ids: Iterator[int]
    event_seqs: dict[int, int]
    journal: Journal
    orders: list[tuple[Order, bytes]]
    trades: list[Trade]
    events: list[ChangeRow]


@dataclass(frozen=True, slots=True)
class Settled:
    """A batch: an answer for each request, the new trades, and the accounts that have new events."""

    answers: list[Answer]
    trades: list[Trade]
    account_ids: set[int]


async def settle(connection: Connection, requests: Sequence[OrderRequest]) -> Settled:
    """Settle `requests` in their order, in the transaction that `connection` is in.

    Any exception means that the transaction must be rolled back.
    """
    state = await _load(connection, requests)
    answers = [_settle_one(request, state) for request in requests]
    await _write(connection, state)
    return Settled(answers, state.trades, {order.account_id for order, _ in state.orders})


# ---------------------------------------------------------------------------------------------------- deciding


def _settle_one(request: OrderRequest, state: _State) -> Answer:
    stored = state.stored.get(request.key)
    if stored is not None:
        return stored.outcome if stored.input_hash == request.input_hash else _reused(request)
    market = state.markets.get(request.asset_id)
    if market is None or market.status is AssetStatus.DRAFT:
        return refuse(ErrorCode.NOT_FOUND, "There is no such asset; look it up by its symbol.", "input", "assetId")
    credential = request.principal.credential
    if (credential.kind, credential.id) not in state.credentials:
        return Unauthenticated("The session or key ended while the order waited; log in again.")
    holding = state.holdings.setdefault((request.account_id, request.asset_id), Holding())
    cash = state.owned[request.account_id, market.quote_currency]
    shares = state.owned.get((request.account_id, market.symbol))
    decision = decide(
        request,
        market=market,
        holding=holding,
        funds=Funds(cash.balance, shares.balance if shares else 0),
        frozen=state.frozen[request.account_id],
        conditions=state.conditions,
    )
    order_id = next(state.order_ids)
    if isinstance(decision, Refusal):
        outcome = OrderOutcome(_order(request, order_id, (), decision, state.conditions.now), ())
        _end(state, outcome.order)
    else:
        trades = tuple(
            _trade(request, order_id=order_id, amounts=amounts, market=market, state=state) for amounts in decision
        )
        outcome = OrderOutcome(_order(request, order_id, decision, None, trades[-1].at), trades)
        state.trades.extend(trades)
        held = state.held[request.account_id, market.quote_currency].balance
        _end(
            state, outcome.order, trades[-1].transfer_id, market.quote_currency, cash.balance, held,
            market.asset_id, holding.shares, holding.cost_basis, holding.realized_pnl,
        )  # fmt: skip
    state.orders.append((outcome.order, request.input_hash))
    state.stored[request.key] = _Stored(outcome, request.input_hash)
    return outcome


def _end(state: _State, order: Order, *after: int | str | None) -> None:
    """The account's event of an order that has ended; `after` is how a fill has left money and position."""
    account_id = order.account_id
    state.event_seqs[account_id] = seq = state.event_seqs[account_id] + 1
    state.events.append((account_id, seq, order.updated_at, order.id, *(after or _NOTHING_AFTER)))


def _reused(request: OrderRequest) -> Refused:
    return refuse(
        ErrorCode.IDEMPOTENCY_KEY_REUSED,
        f"clientOrderId '{request.client_order_id}' already names an order with another input; use a new one.",
        "input",
        "clientOrderId",
    )


def _order(
    request: OrderRequest, order_id: int, executions: Sequence[Amounts], refusal: Refusal | None, at: datetime
) -> Order:
    return Order(
        id=order_id,
        account_id=request.account_id,
        asset_id=request.asset_id,
        client_order_id=request.client_order_id,
        side=request.side,
        type=request.type,
        time_in_force=request.time_in_force,
        status=OrderStatus.FILLED if refusal is None else OrderStatus.REJECTED,
        limit_price=None,
        shares=request.shares,
        amount=request.amount,
        filled_shares=sum(e.shares for e in executions),
        gross=sum(e.gross for e in executions),
        fee=sum(e.fee for e in executions),
        refusal=refusal,
        created_at=at,
        updated_at=at,
    )


def _trade(request: OrderRequest, *, order_id: int, amounts: Amounts, market: Market, state: _State) -> Trade:
    """Let one execution happen, on the market and in the ledger."""
    holding = state.holdings[request.account_id, request.asset_id]
    at = max(state.conditions.now, market.last_trade_at or state.conditions.now)
    apply(request.side, amounts, market=market, holding=holding, at=at)
    cash = state.owned[request.account_id, market.quote_currency]
    shares = state.owned[request.account_id, market.symbol]
    reserves = state.reserves
    buying = request.side is Side.BUY
    moved = amounts.shares if buying else -amounts.shares
    transfer_id = state.journal.post(
        reason=TransferReason.TRADE,
        ref=f"Trade:{market.asset_id}:{market.trade_seq}",
        legs=(
            (cash, -amounts.gross - amounts.fee if buying else amounts.gross - amounts.fee),
            (reserves[market.asset_id, LedgerKind.BACKING], amounts.gross if buying else -amounts.gross),
            (reserves[market.asset_id, LedgerKind.SURPLUS], amounts.fee),
            (shares, moved),
            (reserves[market.asset_id, LedgerKind.ISSUED], -moved),
        ),
    )
    return Trade(
        id=next(state.trade_ids),
        asset_id=market.asset_id,
        seq=market.trade_seq,
        account_id=request.account_id,
        order_id=order_id,
        client_order_id=request.client_order_id,
        side=request.side,
        shares=amounts.shares,
        gross=amounts.gross,
        fee=amounts.fee,
        supply_after=market.supply,
        market_after=marginal_price(market.curve, market.supply),
        transfer_id=transfer_id,
        at=at,
    )


# ---------------------------------------------------------------------------------------------------- loading


async def _load(connection: Connection, requests: Sequence[OrderRequest]) -> _State:
    account_ids = sorted({request.account_id for request in requests})
    locked = await lock(connection, asset_ids={r.asset_id for r in requests}, account_ids=account_ids)
    markets = {asset_id: _market(row) for asset_id, row in locked.assets.items()}
    row = await connection.fetchrow(
        "SELECT clock_timestamp() AS now, p.trading_paused, p.reason,"
        " ARRAY(SELECT nextval('orders_id_seq') FROM generate_series(1, $1::int)) AS orders,"
        " ARRAY(SELECT nextval('trades_id_seq') FROM generate_series(1, $1::int)) AS trades,"
        " ARRAY(SELECT nextval('transfers_id_seq') FROM generate_series(1, $1::int)) AS transfers,"
        f" ARRAY(SELECT {LAST_SEQ.format(account='a.id')}"
        " FROM unnest($2::bigint[]) WITH ORDINALITY a (id, n) ORDER BY n) AS events FROM platform p",
        len(requests),
        account_ids,
    )
    if row is None:
        raise LookupError("the platform row is missing: run `megatron migrate`")
    state = _State(
        conditions=Conditions(row["now"], row["trading_paused"], row["reason"]),
        markets=markets,
        frozen={account_id: account["frozen"] for account_id, account in locked.accounts.items()},
        holdings=await _holdings(connection, account_ids, list(markets)),
        owned={},
        held={},
        reserves={},
        stored=await _stored(connection, requests),
        credentials=await _credentials(connection, requests),
        order_ids=iter(row["orders"]),
        trade_ids=iter(row["trades"]),
        event_seqs=dict(zip(account_ids, row["events"], strict=True)),
        journal=Journal(at=row["now"], transfer_ids=row["transfers"]),
        orders=[],
        trades=[],
        events=[],
    )
    await _balances(connection, requests, account_ids, state)
    return state


def _market(row: asyncpg.Record) -> Market:
    return Market(
        asset_id=row["id"],
        symbol=row["symbol"],
        quote_currency=row["quote_currency"],
        status=AssetStatus(row["status"]),
        curve=Curve(row["base_price"], row["slope"], row["fee_rate"]),
        supply=row["supply"],
        backing=row["backing"],
        surplus=row["surplus"],
        trade_seq=row["trade_seq"],
        last_trade_at=row["last_trade_at"],
        min_notional=row["min_notional"],
        max_shares_per_account=row["max_shares_per_account"],
        max_redemption_per_day=row["max_redemption_per_day"],
    )


async def _holdings(connection: Connection, account_ids: Sequence[int], asset_ids: Sequence[int]) -> Holdings:
    rows = await connection.fetch(
        "SELECT account_id, asset_id, shares, cost_basis, realized_pnl, redeemed_on, redeemed FROM positions"
        " WHERE account_id = ANY($1::bigint[]) AND asset_id = ANY($2::bigint[])",
        account_ids,
        asset_ids,
    )
    return {(row[0], row[1]): Holding(row[2], row[3], row[4], row[5], row[6]) for row in rows}


async def _stored(connection: Connection, requests: Sequence[OrderRequest]) -> dict[tuple[int, str], _Stored]:
    """Orders that already bear one of the requests' keys, with their trades."""
    rows = await connection.fetch(
        f"SELECT {ORDER_COLUMNS}, input_hash FROM orders WHERE (account_id, client_order_id) IN"
        " (SELECT * FROM unnest($1::bigint[], $2::text[]))",
        [request.account_id for request in requests],
        [request.client_order_id for request in requests],
    )
    if not rows:
        return {}
    trades: dict[int, list[Trade]] = {row["id"]: [] for row in rows}
    for trade in await connection.fetch(
        f"SELECT {TRADE_COLUMNS} FROM trades t JOIN orders o ON o.id = t.order_id"
        " WHERE t.order_id = ANY($1::bigint[]) ORDER BY t.id",
        list(trades),
    ):
        trades[trade["order_id"]].append(trade_from_row(trade))
    return {
        (row["account_id"], row["client_order_id"]): _Stored(
            OrderOutcome(order_from_row(row), tuple(trades[row["id"]])), row["input_hash"]
        )
        for row in rows
    }


async def _credentials(connection: Connection, requests: Sequence[OrderRequest]) -> set[tuple[str, int]]:
    """Which of the requests' sessions and keys still stand."""
    wanted = {(r.principal.credential.kind, r.principal.credential.id) for r in requests}
    rows = await connection.fetch(
        "SELECT 'session', id FROM sessions"
        " WHERE id = ANY($1::bigint[]) AND revoked_at IS NULL AND expires_at > clock_timestamp()"
        " UNION ALL SELECT 'api_key', id FROM api_keys WHERE id = ANY($2::bigint[]) AND revoked_at IS NULL",
        [credential_id for kind, credential_id in wanted if kind == "session"],
        [credential_id for kind, credential_id in wanted if kind == "api_key"],
    )
    return {(row[0], row[1]) for row in rows}


async def _balances(
    connection: Connection, requests: Sequence[OrderRequest], account_ids: Sequence[int], state: _State
) -> None:
    """Load the accounts' cash and shares and the assets' reserves; open shares' accounts for first-time buyers."""
    markets = state.markets
    currencies = {m.symbol for m in markets.values()} | {m.quote_currency for m in markets.values()}
    for balance in await load_balances(
        connection, account_ids=account_ids, asset_ids=list(markets), currencies=list(currencies)
    ):
        if balance.account_id is None:
            state.reserves[balance.asset_id or 0, balance.kind] = balance
        elif balance.kind is LedgerKind.AVAILABLE:
            state.owned[balance.account_id, balance.currency] = balance
        elif balance.kind is LedgerKind.HELD:
            state.held[balance.account_id, balance.currency] = balance
    for request in requests:
        market = markets.get(request.asset_id)
        if market and request.side is Side.BUY and (request.account_id, market.symbol) not in state.owned:
            (opened,) = await open_ledger_accounts(
                connection,
                currency=market.symbol,
                kinds=(LedgerKind.AVAILABLE,),
                account_id=request.account_id,
                asset_id=market.asset_id,
            )
            state.owned[request.account_id, market.symbol] = opened


# ---------------------------------------------------------------------------------------------------- writing


async def _write(connection: Connection, state: _State) -> None:
    if state.orders:
        await _write_orders(connection, state.orders)
        await write_account_changes(connection, state.events)
    if state.trades:
        await state.journal.write(connection)
        await _write_trades(connection, state.trades)
        await _write_positions(connection, state)
        await _write_assets(connection, state)


async def _write_orders(connection: Connection, orders: Sequence[tuple[Order, bytes]]) -> None:
    rows = (
        (
            order.id,
            order.account_id,
            order.asset_id,
            order.client_order_id,
            input_hash,
            order.side,
            order.type,
            order.time_in_force,
            order.status,
            order.shares,
            order.amount,
            order.filled_shares,
            order.gross,
            order.fee,
            orjson.dumps(order.refusal.to_json()).decode() if order.refusal else None,
            order.created_at,
            order.updated_at,
        )
        for order, input_hash in orders
    )
    await copy_rows(connection, table="orders", columns=_ORDER_COLUMNS, rows=rows)


async def _write_trades(connection: Connection, trades: Sequence[Trade]) -> None:
    rows = (
        (
            trade.id,
            trade.asset_id,
            trade.seq,
            trade.account_id,
            trade.order_id,
            trade.side,
            trade.shares,
            trade.gross,
            trade.fee,
            trade.supply_after,
            trade.market_after,
            trade.transfer_id,
            trade.at,
        )
        for trade in trades
    )
    await copy_rows(connection, table="trades", columns=_TRADE_COLUMNS, rows=rows)


async def _write_positions(connection: Connection, state: _State) -> None:
    touched = {(trade.account_id, trade.asset_id) for trade in state.trades}
    rows = (
        (*key, h.shares, h.cost_basis, h.realized_pnl, h.redeemed_on, h.redeemed)
        for key, h in ((key, state.holdings[key]) for key in sorted(touched))
    )
    await connection.execute(
        "INSERT INTO positions (account_id, asset_id, shares, cost_basis, realized_pnl, redeemed_on, redeemed)"
        " SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::numeric[], $4::bigint[], $5::bigint[], $6::date[],"
        " $7::bigint[])"
        " ON CONFLICT (account_id, asset_id) DO UPDATE SET shares = excluded.shares, cost_basis = excluded.cost_basis,"
        " realized_pnl = excluded.realized_pnl, redeemed_on = excluded.redeemed_on, redeemed = excluded.redeemed",
        *zip(*rows, strict=True),
    )


async def _write_assets(connection: Connection, state: _State) -> None:
    traded = {trade.asset_id for trade in state.trades}
    rows = (
        (m.asset_id, m.supply, m.backing, m.surplus, m.trade_seq, m.last_trade_at)
        for m in (state.markets[asset_id] for asset_id in sorted(traded))
    )
    await connection.execute(
        "UPDATE assets a SET supply = t.supply, backing = t.backing, surplus = t.surplus, trade_seq = t.trade_seq,"
        " last_trade_at = t.at FROM unnest($1::bigint[], $2::numeric[], $3::bigint[], $4::bigint[], $5::bigint[],"
        " $6::timestamptz[]) t (id, supply, backing, surplus, trade_seq, at) WHERE a.id = t.id",
        *zip(*rows, strict=True),
    )
