"""The audit of trades: the curve recomputed along each asset's sequence, and what trades say against ledger and orders.

The arithmetic is repeated here on purpose, in base units (P0 10^-12, k 10^-18, shares 10^-9, money 10^-6, rates 10^-9):
a trade that takes the supply from S to S' moves (2*10^15*P0 + k*(S + S')) * |S' - S| / (2*10^30) of money before it is
rounded, up on a purchase and down on a sale.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import asyncpg

from app.ledger.audit_run import Run

MONEY_DENOMINATOR: Final = 2 * 10**30
PRICE_DENOMINATOR: Final = 10**15
RATE_DENOMINATOR: Final = 10**9
CLOCK_SLACK: Final = timedelta(seconds=1)
"""How far the database's clock may have been set back between a trade and a change of terms."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What an asset traded on from `since` until `until`; None is for ever."""

    base_price: int
    slope: int
    fee_rate: int
    since: datetime | None = None
    until: datetime | None = None

    def stood_at(self, at: datetime) -> bool:
        """Whether these terms may have applied at `at`."""
        begun = self.since is None or self.since - CLOCK_SLACK <= at
        return begun and (self.until is None or at <= self.until + CLOCK_SLACK)


TermsByAsset = dict[int, Sequence[Terms]]
"""Each asset's terms over time, newest first."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a trade's columns must say."""

    gross: int
    fee: int
    market_after: int


async def audit_trades(run: Run, terms: TermsByAsset) -> None:
    """Recompute every trade and hold it against its order, its transfer and its asset."""
    run.begin("trades")
    await _sequence(run, terms)
    await _assets_follow_trades(run)
    run.begin("transfers of trades")
    await _transfers(run)
    await _legs(run)
    run.begin("orders")
    await _orders(run)


_SEQUENCE: Final = """
SELECT t.*, a.symbol, o.amount AS asked
  FROM (SELECT id, asset_id, seq, order_id, side, shares, gross, fee, supply_after, market_after, at,
               lag(seq, 1, 0::bigint) OVER w AS seq_before, lag(supply_after, 1, 0::numeric) OVER w AS supply_before,
               lag(at) OVER w AS at_before
          FROM trades WINDOW w AS (PARTITION BY asset_id ORDER BY seq, id)) t
  LEFT JOIN assets a ON a.id = t.asset_id
  LEFT JOIN orders o ON o.id = t.order_id AND o.amount IS NOT NULL
 CROSS JOIN LATERAL (
    SELECT CASE t.side WHEN 'BUY' THEN t.supply_before + t.shares ELSE t.supply_before - t.shares END AS supply,
           (2 * $2::numeric * a.base_price + a.slope * (t.supply_before + t.supply_after)) * t.shares AS money,
           $2::numeric * a.base_price + a.slope * t.supply_after AS price
 ) x
 WHERE NOT coalesce(
       t.seq = t.seq_before + 1 AND t.side IN ('BUY', 'SELL') AND t.shares > 0
   AND t.supply_after = x.supply AND t.supply_after >= 0
   AND t.at >= coalesce(t.at_before, t.at)
   AND t.gross = div(x.money + CASE t.side WHEN 'BUY' THEN $1::numeric - 1 ELSE 0 END, $1)
   AND t.fee = div(t.gross::numeric * a.fee_rate + $3::numeric - 1, $3)
   AND t.market_after = div(x.price, $2::numeric)
       + CASE WHEN 2 * mod(x.price, $2) + mod(div(x.price, $2), 2) > $2 THEN 1 ELSE 0 END, false)
    OR o.amount IS NOT NULL
    OR t.asset_id = ANY($4::bigint[])
"""


async def _sequence(run: Run, terms: TermsByAsset) -> None:
    """The database settles what an asset's only terms explain; the other trades, and amounts, are looked at here."""
    changed = [asset_id for asset_id, eras in terms.items() if len(eras) > 1]
    rows = run.rows(_SEQUENCE, MONEY_DENOMINATOR, PRICE_DENOMINATOR, RATE_DENOMINATOR, changed)
    async for row in rows:
        subject = f"Trade:{row['asset_id']}:{row['seq']}"
        if row["symbol"] is None:
            run.found("trade.asset", subject, "an asset", f"Asset:{row['asset_id']}")
            continue
        if row["side"] not in ("BUY", "SELL"):
            run.found("trade.side", subject, "BUY or SELL", row["side"])
            continue
        supply = row["supply_before"] + (row["shares"] if row["side"] == "BUY" else -row["shares"])
        pairs = [("seq", row["seq_before"] + 1, row["seq"]), ("supply_after", supply, row["supply_after"])]
        run.compare("trade", subject, pairs)
        if row["at_before"] is not None and row["at"] < row["at_before"]:
            run.found("trade.at", subject, f"not before {row['at_before'].isoformat()}", row["at"].isoformat())
        if min(row["shares"], supply, row["supply_after"]) < 0 or row["shares"] == 0:
            run.found("trade.shares", subject, f"1 to {row['supply_before']}", row["shares"])
            continue
        _check_figures(run, subject, row, terms.get(row["asset_id"], ()))


def _check_figures(run: Run, subject: str, row: asyncpg.Record, terms: Sequence[Terms]) -> None:
    """The trade's amounts must be those of terms that stood at its time; if not, the newest of them are expected."""
    candidates = [t for t in terms if t.stood_at(row["at"])] or list(terms)
    actual = Figures(row["gross"], row["fee"], row["market_after"])
    computed = [(t, figures(t, row["side"], row["supply_before"], row["shares"])) for t in candidates]
    stood = next(((t, f) for t, f in computed if f == actual), None)
    if stood is None:
        _, expected = computed[0]
        pairs = [
            ("gross", expected.gross, actual.gross),
            ("fee", expected.fee, actual.fee),
            ("market_after", expected.market_after, actual.market_after),
        ]
        run.compare("trade", subject, pairs)
    elif row["asked"] is not None:
        more = figures(stood[0], "BUY", row["supply_before"], row["shares"] + 1)
        if more.gross + more.fee <= row["asked"]:
            run.found("order.amount", f"Order:{row['order_id']}", f"below {more.gross + more.fee}", row["asked"])


def figures(terms: Terms, side: str, supply: int, shares: int) -> Figures:
    """What a trade of `shares` from `supply` comes to."""
    after = supply + shares if side == "BUY" else supply - shares
    exact = (2 * PRICE_DENOMINATOR * terms.base_price + terms.slope * (supply + after)) * shares
    gross, rest = divmod(exact, MONEY_DENOMINATOR)
    if side == "BUY" and rest:
        gross += 1
    fee, rest = divmod(gross * terms.fee_rate, RATE_DENOMINATOR)
    fee += rest > 0
    price, rest = divmod(PRICE_DENOMINATOR * terms.base_price + terms.slope * after, PRICE_DENOMINATOR)
    price += 2 * rest + price % 2 > PRICE_DENOMINATOR
    return Figures(gross, fee, price)


async def _assets_follow_trades(run: Run) -> None:
    rows = run.rows(
        "SELECT a.id, a.trade_seq, a.supply, a.last_trade_at, coalesce(t.seq, 0) AS seq,"
        " coalesce(t.supply_after, 0) AS supply_after, t.at FROM assets a LEFT JOIN LATERAL ("
        " SELECT seq, supply_after, at FROM trades WHERE asset_id = a.id ORDER BY seq DESC LIMIT 1) t ON true"
    )
    async for row in rows:
        pairs = [
            ("trade_seq", row["seq"], row["trade_seq"]),
            ("supply", row["supply_after"], row["supply"]),
            ("last_trade_at", row["at"], row["last_trade_at"]),
        ]
        run.compare("asset", f"Asset:{row['id']}", pairs)


_TRANSFERS: Final = """
SELECT r.id, t.asset_id, t.seq, t.transfer_id, t.transfer_at, r.reason, r.ref, r.entry_count, r.at,
       4 + (t.fee > 0)::int AS legs
  FROM (SELECT asset_id, seq, transfer_id, fee, at,
               lag(at) OVER (PARTITION BY asset_id ORDER BY seq, id) AS at_before, at AS transfer_at FROM trades) t
  FULL JOIN (SELECT * FROM transfers) r ON r.id = t.transfer_id
 WHERE (t.transfer_id IS NOT NULL OR r.reason = 'TRADE')
   AND NOT coalesce(
       r.reason = 'TRADE' AND r.ref = 'Trade:' || t.asset_id || ':' || t.seq AND r.entry_count = 4 + (t.fee > 0)::int
       AND t.at = greatest(r.at, t.at_before), false)
"""


async def _transfers(run: Run) -> None:
    async for row in run.rows(_TRANSFERS):
        if row["transfer_id"] is None:
            run.found("transfer.trade", f"Transfer:{row['id']}", f"the trade that {row['ref']} names", None)
            continue
        subject = f"Transfer:{row['transfer_id']}"
        trade = f"Trade:{row['asset_id']}:{row['seq']}"
        if row["id"] is None:
            run.found("trade.transfer_id", trade, "a transfer", subject)
            continue
        pairs = [
            ("reason", "TRADE", row["reason"]),
            ("ref", trade, row["ref"]),
            ("entry_count", row["legs"], row["entry_count"]),
        ]
        before = len(run.findings)
        run.compare("transfer", subject, pairs)
        if len(run.findings) == before:
            run.found("transfer.at", subject, f"{row['transfer_at'].isoformat()}, as {trade}", row["at"].isoformat())


_LEGS: Final = """
SELECT 'Entry:' || e.id || ' of Trade:' || t.asset_id || ':' || t.seq AS subject,
       coalesce(x.expected::text, 'no entry on ' || concat_ws(' ', l.kind, l.currency, 'of Account:' || l.account_id)),
       e.amount::text
  FROM trades t
  JOIN assets a ON a.id = t.asset_id
  JOIN entries e ON e.transfer_id = t.transfer_id
  JOIN ledger_accounts l ON l.id = e.ledger_account_id
 CROSS JOIN LATERAL (SELECT CASE
       WHEN l.asset_id = t.asset_id AND l.kind = 'BACKING' THEN CASE t.side WHEN 'BUY' THEN t.gross ELSE -t.gross END
       WHEN l.asset_id = t.asset_id AND l.kind = 'SURPLUS' THEN t.fee
       WHEN l.asset_id = t.asset_id AND l.kind = 'ISSUED' THEN CASE t.side WHEN 'BUY' THEN -t.shares ELSE t.shares END
       WHEN l.account_id = t.account_id AND l.kind = 'AVAILABLE' AND l.currency = a.symbol
       THEN CASE t.side WHEN 'BUY' THEN t.shares ELSE -t.shares END
       WHEN l.account_id = t.account_id AND l.kind = 'AVAILABLE' AND l.currency = a.quote_currency
       THEN CASE t.side WHEN 'BUY' THEN -t.gross - t.fee ELSE t.gross - t.fee END
       END AS expected) x
 WHERE e.amount IS DISTINCT FROM x.expected
"""


async def _legs(run: Run) -> None:
    await run.differences("trade.entry", _LEGS)
    await run.differences(
        "trade.transfer_id",
        "SELECT 'Transfer:' || transfer_id, 'one trade', string_agg('Trade:' || asset_id || ':' || seq, ', ')"
        " FROM trades GROUP BY transfer_id HAVING count(*) > 1",
    )


_ORDERS: Final = """
SELECT o.*, o.client_order_id ~ '^[ -~]{1,64}$' AS keyed,
       o.refusal IS NULL OR (coalesce(o.refusal ->> 'code', '') <> '' AND coalesce(o.refusal ->> 'message', '') <> '')
       AS reasoned,
       a.id AS found_asset, c.id AS found_account, coalesce(t.trades, 0) AS trades, coalesce(t.shares, 0) AS sold,
       coalesce(t.gross, 0) AS sum_gross, coalesce(t.fee, 0) AS sum_fee, t.first_at, t.last_at
  FROM orders o
  LEFT JOIN assets a ON a.id = o.asset_id
  LEFT JOIN accounts c ON c.id = o.account_id
  LEFT JOIN (SELECT order_id, count(*) AS trades, sum(shares) AS shares, sum(gross) AS gross, sum(fee) AS fee,
                    min(at) AS first_at, max(at) AS last_at FROM trades GROUP BY order_id) t ON t.order_id = o.id
 WHERE NOT coalesce(
       a.id IS NOT NULL AND c.id IS NOT NULL AND o.side IN ('BUY', 'SELL') AND o.type = 'MARKET'
   AND o.time_in_force = 'FOK' AND o.limit_price IS NULL AND octet_length(o.input_hash) = 32
   AND o.client_order_id ~ '^[ -~]{1,64}$'
   AND (o.shares IS NULL) <> (o.amount IS NULL) AND (o.amount IS NULL OR o.side = 'BUY')
   AND o.filled_shares = coalesce(t.shares, 0) AND o.gross = coalesce(t.gross, 0) AND o.fee = coalesce(t.fee, 0)
   AND o.created_at = o.updated_at
   AND CASE o.status
       WHEN 'FILLED' THEN t.trades > 0 AND o.refusal IS NULL AND o.filled_shares = coalesce(o.shares, o.filled_shares)
            AND o.gross + o.fee <= coalesce(o.amount, o.gross + o.fee)
            AND t.first_at = o.created_at AND t.last_at = o.updated_at
       WHEN 'REJECTED' THEN t.trades IS NULL AND o.refusal ->> 'code' <> '' AND o.refusal ->> 'message' <> ''
       ELSE false END, false)
"""


async def _orders(run: Run) -> None:
    async for row in run.rows(_ORDERS):
        subject = f"Order:{row['id']}"
        pairs: list[tuple[str, object, object]] = [
            ("asset_id", row["asset_id"], row["found_asset"]),
            ("account_id", row["account_id"], row["found_account"]),
            ("type", "MARKET", row["type"]),
            ("time_in_force", "FOK", row["time_in_force"]),
            ("limit_price", None, row["limit_price"]),
            ("filled_shares", row["sold"], row["filled_shares"]),
            ("gross", row["sum_gross"], row["gross"]),
            ("fee", row["sum_fee"], row["fee"]),
            ("updated_at", row["created_at"], row["updated_at"]),
        ]
        run.compare("order", subject, pairs)
        _check_order(run, subject, row)
    await run.differences(
        "trade.order",
        "SELECT 'Trade:' || t.asset_id || ':' || t.seq,"
        " coalesce(concat_ws(' ', o.side, 'Asset:' || o.asset_id, 'Account:' || o.account_id), 'an order'),"
        " concat_ws(' ', t.side, 'Asset:' || t.asset_id, 'Account:' || t.account_id, 'Order:' || t.order_id)"
        " FROM trades t LEFT JOIN orders o ON o.id = t.order_id WHERE (o.side, o.asset_id, o.account_id)"
        " IS DISTINCT FROM (t.side, t.asset_id, t.account_id)",
    )


def _check_order(run: Run, subject: str, row: asyncpg.Record) -> None:
    sized = row["shares"] is not None
    if sized == (row["amount"] is not None) or (row["amount"] is not None and row["side"] != "BUY"):
        asked = f"{row['side']} shares {row['shares']}, amount {row['amount']}"
        run.found("order.size", subject, "shares, or the amount of a BUY", asked)
    if len(row["input_hash"]) != 32:
        run.found("order.input_hash", subject, "32 bytes", len(row["input_hash"]))
    filled = row["trades"] > 0
    status = "FILLED" if filled else "REJECTED"
    run.compare("order", subject, [("status", status, row["status"])])
    if filled == (row["refusal"] is not None) or not row["reasoned"]:
        run.found("order.refusal", subject, None if filled else "a code and a message", row["refusal"])
    if not row["keyed"]:
        run.found("order.client_order_id", subject, "1 to 64 printable characters", row["client_order_id"])
    if not filled:
        return
    run.compare("order", subject, [("created_at", row["first_at"], row["created_at"])])
    if sized and row["shares"] != row["sold"]:
        run.found("order.shares", subject, row["sold"], row["shares"])
    spent = row["sum_gross"] + row["sum_fee"]
    if row["amount"] is not None and spent > row["amount"]:
        run.found("order.amount", subject, f"at least {spent}", row["amount"])
