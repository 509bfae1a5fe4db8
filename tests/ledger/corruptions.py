"""Single-row corruptions of all tables, each with the check that must name it and the row it must name.

Every statement changes one row and returns the subject of the finding that is expected.
"""

from typing import NamedTuple

STOCK = "(SELECT id FROM assets ORDER BY id LIMIT 1)"
TRADED = "(SELECT id FROM trades WHERE asset_id = 1 ORDER BY seq OFFSET 3 LIMIT 1)"
NEWEST_TRADE = "(SELECT id FROM trades WHERE asset_id = 1 ORDER BY seq DESC LIMIT 1)"
BOUGHT = "(SELECT max(order_id) FROM trades WHERE side = 'BUY')"
BY_AMOUNT = "(SELECT max(id) FROM orders WHERE amount IS NOT NULL AND status = 'FILLED')"
BY_SHARES = "(SELECT max(id) FROM orders WHERE shares IS NOT NULL AND status = 'FILLED')"
REFUSED = "(SELECT max(id) FROM orders WHERE status = 'REJECTED')"
CASH = "(SELECT min(id) FROM ledger_accounts WHERE kind = 'AVAILABLE' AND currency = 'USDC' AND version > 3)"
BACKING = "(SELECT id FROM ledger_accounts WHERE kind = 'BACKING' AND asset_id = 1)"
MIDDLE = f"(SELECT id FROM entries WHERE ledger_account_id = {CASH} AND version = 2)"
NEWEST = f"(SELECT id FROM entries WHERE ledger_account_id = {CASH} ORDER BY version DESC LIMIT 1)"
EMPTY = "(SELECT id FROM ledger_accounts WHERE kind = 'HELD' AND version = 0 ORDER BY id LIMIT 1)"
TRADE_TRANSFER = "(SELECT id FROM transfers WHERE reason = 'TRADE' ORDER BY id OFFSET 2 LIMIT 1)"
FUNDING = "(SELECT id FROM transfers WHERE reason = 'DEV_FUND' ORDER BY id LIMIT 1)"
POSITION = "(SELECT id FROM positions WHERE redeemed > 0 AND shares > 0 ORDER BY id LIMIT 1)"
LOGGED = "(SELECT id FROM audit_log WHERE action = 'assetUpdate' ORDER BY id LIMIT 1)"
FROZEN = "(SELECT id FROM accounts WHERE frozen)"
FREE = "(SELECT id FROM accounts WHERE NOT frozen ORDER BY id LIMIT 1)"
OF_ACCOUNT = "(SELECT min(id) FROM sessions WHERE account_id > 0)"
FUNDING_KEY = "(SELECT min(id) FROM idempotency_keys WHERE mutation = 'devFund')"
MAKING_KEY = "(SELECT min(id) FROM idempotency_keys WHERE mutation = 'assetCreate')"

ENTRY = "'Entry:' || id || ' of LedgerAccount:' || ledger_account_id"
LEDGER_ACCOUNT = "'LedgerAccount:' || id || ' ('"
TRADE = "'Trade:' || asset_id || ':' || seq"
OF_LEDGER_ACCOUNT = "'LedgerAccount:' || ledger_account_id"
TRANSFER = "'Transfer:' || id"
KEY = "'IdempotencyKey:' || id"
FORGED_ENTRY = (
    "SELECT transfer_id, ledger_account_id, account_id, version + 1, 5, balance_after + 5"
    f" FROM entries WHERE id = {NEWEST}"
)
LOG_COLUMNS = "id, at, actor, action, target, previous_hash, hash"
FORGED_LOG = (
    "SELECT max(id) + 1, now(), 'admin', 'accountFreeze', 'Account:1', max(hash), repeat('a', 64) FROM audit_log"
)
TRANSFERS = "reason, ref, entry_count, at"
ENTRIES = "transfer_id, ledger_account_id, account_id, version, amount, balance_after"


class Corruption(NamedTuple):
    """What is done, the check that must see it, and the statement."""

    name: str
    check: str
    sql: str


def update(table: str, change: str, row: str, check: str, subject: str) -> Corruption:
    """Change one row of `table`."""
    return Corruption(
        f"{table}: {change.partition(' = ')[0]} ({check})", check,
        f"UPDATE {table} SET {change} WHERE id = {row} RETURNING {subject}",
    )  # fmt: skip


def delete(table: str, row: str, check: str, subject: str) -> Corruption:
    """Delete one row of `table`."""
    return Corruption(f"{table}: deleted ({check})", check, f"DELETE FROM {table} WHERE id = {row} RETURNING {subject}")


def insert(table: str, columns: str, values: str, check: str, subject: str) -> Corruption:
    """Add one row to `table`."""
    return Corruption(
        f"{table}: forged ({check})", check, f"INSERT INTO {table} ({columns}) {values} RETURNING {subject}"
    )


IN_ENTRIES = [
    update("entries", "amount = amount + 1", MIDDLE, "entry.balance_after", ENTRY),
    update("entries", "amount = amount + 1", MIDDLE, "transfer.sum", "'Transfer:' || transfer_id || ' in USDC'"),
    update("entries", "amount = amount + 1", MIDDLE, "trade.entry", "'Entry:' || id"),
    update("entries", "amount = 0", MIDDLE, "entry.amount", ENTRY),
    update("entries", "balance_after = balance_after - 1", MIDDLE, "entry.balance_after", ENTRY),
    update("entries", "balance_after = -1", NEWEST, "entry.sign", ENTRY),
    update("entries", "balance_after = balance_after + 1", NEWEST, "ledger_account.balance", OF_LEDGER_ACCOUNT),
    update("entries", "version = version + 1000", NEWEST, "entry.version", ENTRY),
    update("entries", "account_id = NULL", MIDDLE, "entry.account_id", ENTRY),
    update("entries", "account_id = account_id + 1", MIDDLE, "entry.account_id", ENTRY),
    update("entries", "ledger_account_id = 99999", MIDDLE, "entry.ledger_account", ENTRY),
    update("entries", "transfer_id = 99999", MIDDLE, "transfer.entry_count", "'Transfer:99999'"),
    update("entries", "transfer_id = 1", MIDDLE, "transfer.sum", "'Transfer:1 in USDC'"),
    update("entries", "id = id + 100000", MIDDLE, "entry.id", "'Entry:'"),
    delete("entries", MIDDLE, "transfer.entry_count", "'Transfer:' || transfer_id"),
    delete("entries", NEWEST, "ledger_account.version", OF_LEDGER_ACCOUNT),
    insert("entries", ENTRIES, FORGED_ENTRY, "ledger_account.balance", OF_LEDGER_ACCOUNT),
]  # fmt: skip

IN_LEDGER_ACCOUNTS = [
    update("ledger_accounts", "balance = balance + 1", CASH, "ledger_account.balance", LEDGER_ACCOUNT),
    update("ledger_accounts", "balance = balance + 1", CASH, "currency.sum", "'USDC'"),
    update("ledger_accounts", "balance = -1", EMPTY, "ledger_account.sign", LEDGER_ACCOUNT),
    update("ledger_accounts", "version = version + 1", CASH, "ledger_account.version", LEDGER_ACCOUNT),
    update("ledger_accounts", "kind = 'HELD2'", EMPTY, "ledger_account.owner", LEDGER_ACCOUNT),
    update("ledger_accounts", "kind = 'BACKING'", CASH, "ledger_account.owner", LEDGER_ACCOUNT),
    update("ledger_accounts", "currency = 'USDX'", CASH, "ledger_account.owner", LEDGER_ACCOUNT),
    update("ledger_accounts", "account_id = 99999", CASH, "ledger_account.owner", LEDGER_ACCOUNT),
    update("ledger_accounts", "asset_id = 2", BACKING, "asset.backing", "'Asset:1'"),
    delete("ledger_accounts", EMPTY, "ledger_account.missing", "'Account:' || account_id || ' HELD ' || currency"),
    delete("ledger_accounts", CASH, "entry.ledger_account", "'Entry:'"),
    insert("ledger_accounts", "kind, currency, asset_id", "VALUES ('SURPLUS', 'USDT', 1)", "ledger_account.owner",
           LEDGER_ACCOUNT),
]  # fmt: skip

IN_TRANSFERS = [
    update("transfers", "reason = 'GIFT'", TRADE_TRANSFER, "transfer.reason", TRANSFER),
    update("transfers", "reason = 'DEV_FUND'", TRADE_TRANSFER, "dev_fund.legs", TRANSFER),
    update("transfers", "reason = 'TRADE'", FUNDING, "transfer.trade", TRANSFER),
    update("transfers", "ref = 'Trade:1:77'", TRADE_TRANSFER, "transfer.ref", TRANSFER),
    update("transfers", "ref = 'Account:99'", FUNDING, "dev_fund.ref", TRANSFER),
    update("transfers", "entry_count = 4", TRADE_TRANSFER, "transfer.entry_count", TRANSFER),
    update("transfers", "at = at + interval '1 minute'", TRADE_TRANSFER, "transfer.at", TRANSFER),
    update("transfers", "id = 99999", TRADE_TRANSFER, "trade.transfer_id", "'Trade:1:'"),
    delete("transfers", TRADE_TRANSFER, "transfer.entry_count", TRANSFER),
    delete("transfers", FUNDING, "idempotency_key.outcome", "'IdempotencyKey:'"),
    insert("transfers", TRANSFERS, "VALUES ('TRADE', 'Trade:1:999', 5, now())", "transfer.trade", TRANSFER),
    insert("transfers", TRANSFERS, "VALUES ('DEV_FUND', 'Account:1', 2, now())", "dev_fund.key", TRANSFER),
]  # fmt: skip

IN_TRADES = [
    update("trades", "shares = shares + 1", TRADED, "trade.supply_after", TRADE),
    update("trades", "gross = gross + 1", TRADED, "trade.gross", TRADE),
    update("trades", "fee = fee + 1", TRADED, "trade.fee", TRADE),
    update("trades", "supply_after = supply_after - 1", TRADED, "trade.supply_after", TRADE),
    update("trades", "market_after = market_after + 1", TRADED, "trade.market_after", TRADE),
    update("trades", "side = 'SELL'", TRADED, "trade.supply_after", TRADE),
    update("trades", "side = 'LEND'", TRADED, "trade.side", TRADE),
    update("trades", "seq = seq + 500", NEWEST_TRADE, "trade.seq", TRADE),
    update("trades", "seq = seq + 500", NEWEST_TRADE, "asset.trade_seq", "'Asset:1'"),
    update("trades", "account_id = 2", "(SELECT max(id) FROM trades WHERE account_id = 1)", "trade.order", TRADE),
    update("trades", "account_id = 2", "(SELECT max(id) FROM trades WHERE account_id = 1)", "trade.entry", "'Entry:'"),
    update("trades", "order_id = 1", NEWEST_TRADE, "trade.order", TRADE),
    update("trades", "asset_id = 4", NEWEST_TRADE, "transfer.ref", "'Transfer:' || transfer_id"),
    update("trades", "asset_id = 77", NEWEST_TRADE, "trade.asset", TRADE),
    update("trades", "transfer_id = 1", NEWEST_TRADE, "transfer.reason", "'Transfer:1'"),
    update("trades", "at = at - interval '9 days'", NEWEST_TRADE, "trade.at", TRADE),
    update("trades", "at = at + interval '1 minute'", NEWEST_TRADE, "asset.last_trade_at", "'Asset:1'"),
    delete("trades", TRADED, "trade.seq", "'Trade:' || asset_id || ':' || seq + 1"),
    delete("trades", NEWEST_TRADE, "transfer.trade", "'Transfer:' || transfer_id"),
    delete("trades", NEWEST_TRADE, "order.filled_shares", "'Order:' || order_id"),
]  # fmt: skip

ORDER = "'Order:' || id"
IN_ORDERS = [
    update("orders", "filled_shares = filled_shares - 1", BOUGHT, "order.filled_shares", ORDER),
    update("orders", "gross = gross - 1", BOUGHT, "order.gross", ORDER),
    update("orders", "fee = fee + 1", BOUGHT, "order.fee", ORDER),
    update("orders", "status = 'REJECTED'", BOUGHT, "order.status", ORDER),
    update("orders", "status = 'OPEN'", BOUGHT, "order.status", ORDER),
    update("orders", "status = 'FILLED'", REFUSED, "order.status", ORDER),
    update("orders", "refusal = NULL", REFUSED, "order.refusal", ORDER),
    update("orders", "refusal = '{}'", REFUSED, "order.refusal", ORDER),
    update("orders", "filled_shares = 1", REFUSED, "order.filled_shares", ORDER),
    update("orders", "shares = shares + 1", BY_SHARES, "order.shares", ORDER),
    update("orders", "amount = amount - 1000", BY_AMOUNT, "order.amount", ORDER),
    update("orders", "amount = amount + 1000000", BY_AMOUNT, "order.amount", ORDER),
    update("orders", "amount = 5", BY_SHARES, "order.size", ORDER),
    update("orders", "type = 'LIMIT'", BOUGHT, "order.type", ORDER),
    update("orders", "time_in_force = 'GTC'", BOUGHT, "order.time_in_force", ORDER),
    update("orders", "limit_price = 5", BOUGHT, "order.limit_price", ORDER),
    update("orders", "side = 'SELL'", BOUGHT, "trade.order", "'Trade:'"),
    update("orders", "asset_id = 77", BOUGHT, "order.asset_id", ORDER),
    update("orders", "account_id = 77", BOUGHT, "order.account_id", ORDER),
    update("orders", "account_id = 3", BOUGHT, "trade.order", "'Trade:'"),
    update("orders", "created_at = created_at - interval '1 hour'", BOUGHT, "order.created_at", ORDER),
    update("orders", "updated_at = updated_at + interval '1 hour'", REFUSED, "order.updated_at", ORDER),
    update("orders", "input_hash = substr(input_hash, 2)", BOUGHT, "order.input_hash", ORDER),
    update("orders", "client_order_id = ''", BOUGHT, "order.client_order_id", ORDER),
    delete("orders", BOUGHT, "trade.order", "'Trade:'"),
]  # fmt: skip

HOLDING = "'Position:' || id || ' of Account:' || account_id || ' Asset:' || asset_id"
IN_POSITIONS = [
    update("positions", "shares = shares + 1", POSITION, "position.shares", HOLDING),
    update("positions", "cost_basis = cost_basis + 1", POSITION, "position.cost_basis", HOLDING),
    update("positions", "realized_pnl = realized_pnl - 1", POSITION, "position.realized_pnl", HOLDING),
    update("positions", "redeemed = redeemed - 1", POSITION, "position.redeemed", HOLDING),
    update("positions", "redeemed_on = redeemed_on - 1", POSITION, "position.redeemed_on", HOLDING),
    update("positions", "account_id = 77", POSITION, "position.owner", "'Position:' || id"),
    update("positions", "account_id = 77", POSITION, "position.missing", "'Account:1 Asset:1'"),
    delete("positions", POSITION, "position.missing", "'Account:' || account_id || ' Asset:' || asset_id"),
    insert("positions", "account_id, asset_id, shares, cost_basis", "VALUES (1, 4, 1, 0)", "position.shares", HOLDING),
]  # fmt: skip

ASSET = "'Asset:' || id"
IN_ASSETS = [
    update("assets", "supply = supply + 1", STOCK, "asset.supply", ASSET),
    update("assets", "supply = supply + 1", STOCK, "asset.holders", ASSET),
    update("assets", "supply = supply * 1000", STOCK, "asset.coverage", ASSET),
    update("assets", "backing = backing - 1", STOCK, "asset.backing", ASSET),
    update("assets", "surplus = surplus + 1", STOCK, "asset.surplus", ASSET),
    update("assets", "lp_capital = 1", STOCK, "asset.lp_capital", ASSET),
    update("assets", "trade_seq = trade_seq + 1", STOCK, "asset.trade_seq", ASSET),
    update("assets", "last_trade_at = last_trade_at - interval '1 s'", STOCK, "asset.last_trade_at", ASSET),
    update("assets", "base_price = base_price + 1", STOCK, "asset.base_price", ASSET),
    update("assets", "slope = slope + 1", STOCK, "asset.slope", ASSET),
    update("assets", "fee_rate = 1", STOCK, "asset.fee_rate", ASSET),
    update("assets", "max_redemption_per_day = NULL", STOCK, "asset.max_redemption_per_day", ASSET),
    update("assets", "max_shares_per_account = 5", STOCK, "asset.max_shares_per_account", ASSET),
    update("assets", "status = 'HALTED'", STOCK, "asset.status", ASSET),
    update("assets", "status_reason = 'because'", STOCK, "asset.status_reason", ASSET),
    update("assets", "quote_currency = 'USDT'", STOCK, "asset.quote_currency", ASSET),
    update("assets", "symbol = 'X'", STOCK, "ledger_account.owner", "'LedgerAccount:'"),
    update("assets", "name = 'X'", STOCK, "asset.name", ASSET),
    delete("assets", STOCK, "audit_log.target", ASSET),
    delete("assets", STOCK, "trade.asset", "'Trade:1:1'"),
]  # fmt: skip

AUDIT_ENTRY = "'AuditEntry:' || id || ' ('"
IN_AUDIT_LOG = [
    update("audit_log", "actor = 'nobody'", LOGGED, "audit_log.hash", AUDIT_ENTRY),
    update("audit_log", "action = 'assetCreate'", LOGGED, "audit_log.hash", AUDIT_ENTRY),
    update("audit_log", "target = 'Asset:2'", LOGGED, "audit_log.hash", AUDIT_ENTRY),
    update("audit_log", "target = 'Asset'", LOGGED, "audit_log.form", AUDIT_ENTRY),
    update("audit_log", "reason = NULL", LOGGED, "audit_log.hash", AUDIT_ENTRY),
    update("audit_log", "at = at + interval '1 microsecond'", LOGGED, "audit_log.hash", AUDIT_ENTRY),
    update("audit_log", "before = replace(before, '0.005', '0.006')", LOGGED, "audit_log.before", AUDIT_ENTRY),
    update("audit_log", "after = '{}'", LOGGED, "audit_log.hash", AUDIT_ENTRY),
    update("audit_log", "after = 'x'", LOGGED, "audit_log.form", AUDIT_ENTRY),
    update("audit_log", "hash = repeat('f', 64)", LOGGED, "audit_log.hash", AUDIT_ENTRY),
    update("audit_log", "hash = repeat('f', 64)", LOGGED, "audit_log.previous_hash", "'AuditEntry:' || id + 1"),
    update("audit_log", "previous_hash = repeat('0', 64)", LOGGED, "audit_log.previous_hash", AUDIT_ENTRY),
    update("audit_log", "id = id + 500", LOGGED, "audit_log.id", AUDIT_ENTRY),
    delete("audit_log", LOGGED, "audit_log.id", "'AuditEntry:' || id + 1"),
    delete("audit_log", "(SELECT max(id) FROM audit_log)", "platform.trading_paused", "'Platform:1'"),
    insert("audit_log", LOG_COLUMNS, FORGED_LOG, "audit_log.hash", AUDIT_ENTRY),
]  # fmt: skip

IN_THE_REST = [
    update("platform", "trading_paused = true", "1", "platform.trading_paused", "'Platform:1'"),
    update("platform", "reason = 'because'", "1", "platform.reason", "'Platform:1'"),
    update("platform", "environment = 'production'", "1", "dev_fund.environment", "'Transfer:'"),
    update("platform", "environment = 'nowhere'", "1", "platform.environment", "'Platform:1'"),
    delete("platform", "1", "platform.rows", "'Platform'"),
    update("accounts", "frozen = false", FROZEN, "account.frozen", "'Account:' || id"),
    update("accounts", "frozen = true", FREE, "account.frozen", "'Account:' || id"),
    update("accounts", "email = 'A@x.example'", FREE, "account.email", "'Account:' || id"),
    delete("accounts", FREE, "ledger_account.owner", "'LedgerAccount:'"),
    delete("accounts", FROZEN, "audit_log.target", "'Account:' || id"),
    update("sessions", "account_id = 77", OF_ACCOUNT, "session.owner", "'Session:' || id"),
    update("sessions", "admin_name = 'admin'", OF_ACCOUNT, "session.owner", "'Session:' || id"),
    update("sessions", "expires_at = created_at - interval '1 s'", "1", "session.times", "'Session:' || id"),
    update("sessions", "revoked_at = created_at - interval '1 s'", "1", "session.times", "'Session:' || id"),
    update("sessions", "token_hash = substr(token_hash, 2)", "1", "credential.token", "'Session:' || id"),
    update("api_keys", "scopes = '{READ,ROOT}'", "1", "api_key.scopes", "'ApiKey:' || id"),
    update("api_keys", "account_id = 77", "1", "api_key.account", "'ApiKey:' || id"),
    update("api_keys", "revoked_at = created_at - interval '1 s'", "2", "api_key.times", "'ApiKey:' || id"),
    update("asset_requests", "status = 'APPROVED'", "3", "asset_request.status", "'AssetRequest:' || id"),
    update("asset_requests", "asset_id = NULL", "1", "asset_request.asset_id", "'AssetRequest:' || id"),
    update("asset_requests", "admin_notes = NULL", "2", "asset_request.admin_notes", "'AssetRequest:' || id"),
    update("asset_requests", "account_id = 77", "3", "asset_request.account", "'AssetRequest:' || id"),
    delete("asset_requests", "2", "audit_log.target", "'AssetRequest:' || id"),
    update("idempotency_keys", "outcome = '{\"id\": 99999}'", FUNDING_KEY, "idempotency_key.outcome", KEY),
    update("idempotency_keys", "outcome = '{}'", MAKING_KEY, "idempotency_key.form", KEY),
    update("idempotency_keys", "owner = 'account:77'", FUNDING_KEY, "idempotency_key.outcome", KEY),
    update("idempotency_keys", "input_hash = ''", "1", "idempotency_key.form", KEY),
    delete("idempotency_keys", FUNDING_KEY, "dev_fund.key", "'Transfer:' || (outcome ->> 'id')"),
]  # fmt: skip

# Tables without an id name their rows by other columns.
EVENT = "'AccountEvent:' || account_id || ':' || seq"
OF_ORDER = "'Order:' || order_id"
OF_TRANSFER = "'Transfer:' || transfer_id"
FILL = "(SELECT min(order_id) FROM account_events WHERE transfer_id IS NOT NULL)"
NEWEST_FILL = "(SELECT max(order_id) FROM account_events WHERE transfer_id IS NOT NULL)"
REFUSED_FILL = "(SELECT max(order_id) FROM account_events WHERE transfer_id IS NULL AND account_id = 1)"
EVENTS = (
    "account_id, seq, at, order_id, transfer_id, currency, available, held, asset_id, shares, cost_basis, realized_pnl"
)
LAST_FUNDED = (
    "(SELECT transfer_id FROM account_events e WHERE order_id IS NULL"
    " AND seq > 1 AND seq = (SELECT max(seq) FROM account_events WHERE account_id = e.account_id))"
)


def forged_event(order_id: str, transfer_id: str) -> str:
    """One more event of account 1, otherwise like its last fill."""
    return (
        f"SELECT account_id, (SELECT max(seq) + 1 FROM account_events WHERE account_id = 1), at, {order_id},"
        f" {transfer_id}, currency, available, held, asset_id, shares, cost_basis, realized_pnl FROM account_events"
        " WHERE account_id = 1 AND transfer_id IS NOT NULL AND order_id IS NOT NULL ORDER BY seq DESC LIMIT 1"
    )


def event(change: str, row: str, check: str, subject: str = EVENT) -> Corruption:
    """Change one account event, named by its order; `row` may say "transfer_id = ..." instead."""
    where = row if row.startswith("transfer_id") else f"order_id = {row}"
    return Corruption(
        f"account_events: {change} ({check})", check,
        f"UPDATE account_events SET {change} WHERE {where} RETURNING {subject}",
    )  # fmt: skip


FUNDED = f"transfer_id = {FUNDING}"
IN_ACCOUNT_EVENTS = [
    event("seq = seq + 1000", FILL, "account_event.seq"),
    event("seq = seq + 1000", NEWEST_FILL, "account_event.seq"),
    event("account_id = 2, seq = seq + 1000", FILL, "account_event.order_id"),
    event("account_id = 77", FUNDED, "account_event.account"),
    event("at = at + interval '1 s'", FILL, "account_event.at"),
    event("at = at + interval '1 s'", FUNDED, "account_event.at"),
    event("order_id = 99999", FILL, "account_event.order_id"),
    event("order_id = order_id + 1", FILL, "account_event.double", "'Order:' || order_id"),
    event("order_id = NULL", FILL, "account_event.transfer_id"),
    event("transfer_id = NULL", FILL, "account_event.transfer_id"),
    event("transfer_id = NULL, currency = NULL, available = NULL, held = NULL", FILL, "account_event.transfer_id"),
    event("transfer_id = 99999", FUNDED, "account_event.transfer_id"),
    event("transfer_id = 1, currency = 'USDC', available = 0, held = 0", REFUSED_FILL, "account_event.transfer_id"),
    event("currency = 'USDT'", FILL, "account_event.currency"),
    event("available = available + 1", FILL, "account_event.available"),
    event("available = available + 1", FUNDED, "account_event.available"),
    event("held = 1", FILL, "account_event.held"),
    event("held = 1", FUNDED, "account_event.held"),
    event("asset_id = 77", FILL, "account_event.asset_id"),
    event("asset_id = 1", FUNDED, "account_event.asset_id"),
    event("shares = shares + 1", FILL, "account_event.shares"),
    event("shares = NULL, cost_basis = NULL, realized_pnl = NULL", FILL, "account_event.shares"),
    event("asset_id = 1, shares = 5, cost_basis = 1, realized_pnl = 0", REFUSED_FILL, "account_event.shares"),
    event("cost_basis = cost_basis - 1", FILL, "account_event.cost_basis"),
    event("realized_pnl = realized_pnl + 1", FILL, "account_event.realized_pnl"),
    Corruption(
        "account_events: a fill's deleted", "account_event.missing",
        f"DELETE FROM account_events WHERE order_id = {NEWEST_FILL} RETURNING {OF_ORDER}",
    ),
    Corruption(
        "account_events: a refusal's deleted", "account_event.missing",
        f"DELETE FROM account_events WHERE order_id = {REFUSED} RETURNING {OF_ORDER}",
    ),
    Corruption(
        "account_events: a last one deleted", "account_event.missing",
        f"DELETE FROM account_events WHERE transfer_id = {LAST_FUNDED} RETURNING {OF_TRANSFER}",
    ),
    Corruption(
        "account_events: deleted", "account_event.seq",
        f"DELETE FROM account_events WHERE order_id = {FILL} RETURNING 'AccountEvent:' || account_id || ':' || seq + 1",
    ),
    insert("account_events", EVENTS, forged_event("order_id", "transfer_id"), "account_event.double", OF_ORDER),
    insert("account_events", EVENTS, forged_event("NULL", "1"), "account_event.double", OF_TRANSFER),
    insert("account_events", EVENTS, forged_event("NULL", "NULL"), "account_event.transfer_id", EVENT),
]  # fmt: skip

TICK = "'Tick:' || asset_id || ':' || seq"
OF_TRADE = "asset_id = 1 AND cause = 'TRADE' AND trade_seq = 4"
OF_READING = "asset_id = 1 AND cause = 'ORACLE' AND seq = (SELECT max(seq) - 1 FROM ticks WHERE asset_id = 1)"
LAST_TICK = "asset_id = 1 AND seq = (SELECT max(seq) FROM ticks WHERE asset_id = 1)"
NEXT_TICK = "'Tick:' || asset_id || ':' || seq + 1"
TICKS = 'asset_id, seq, "position", cause, trade_seq, at, display, market, fundamental, market_weight, volume, stale'
FORGED_TICK = (
    'SELECT asset_id, seq + 1, "position" + 1000, cause, trade_seq, at, display, market, fundamental, market_weight,'
    f" volume, stale FROM ticks WHERE {LAST_TICK}"
)


def tick(change: str, row: str, check: str, subject: str = TICK) -> Corruption:
    """Change one tick."""
    return Corruption(f"ticks: {change} ({check})", check, f"UPDATE ticks SET {change} WHERE {row} RETURNING {subject}")


def state(change: str, check: str, subject: str = "'PriceState:' || asset_id") -> Corruption:
    """Change the first asset's price state."""
    return Corruption(
        f"price_states: {change} ({check})", check,
        f"UPDATE price_states SET {change} WHERE asset_id = 1 RETURNING {subject}",
    )  # fmt: skip


IN_PRICES = [
    tick("seq = seq + 1000", LAST_TICK, "tick.seq"),
    tick("seq = seq + 1000", LAST_TICK, "price_state.seq", "'PriceState:1'"),
    tick("cause = 'DECAY', volume = 0", OF_TRADE, "tick.trade_seq"),
    tick("cause = 'OPEN'", OF_READING, "tick.cause"),
    tick("cause = 'TRADE'", OF_READING, "tick.trade_seq"),
    tick("cause = 'ORACLE'", "asset_id = 1 AND seq = 1", "tick.cause"),
    tick("trade_seq = trade_seq + 1", OF_TRADE, "tick.trade_seq"),
    tick("trade_seq = trade_seq + 1", OF_READING, "tick.trade_seq"),
    tick("trade_seq = 1", "asset_id = 1 AND seq = 1", "tick.trade_seq"),
    tick("at = at - interval '10 s'", LAST_TICK, "price_state.at", "'PriceState:1'"),
    tick("at = at - interval '1000 s'", LAST_TICK, "tick.at"),
    tick('"position" = 1', LAST_TICK, "tick.position"),
    tick('"position" = (SELECT max("position") FROM ticks)', OF_READING, "tick.position", "'Tick:'"),
    tick("volume = volume + 1", OF_TRADE, "tick.volume"),
    tick("volume = 1", OF_READING, "tick.volume"),
    tick("market = market + 1", OF_TRADE, "tick.market"),
    tick("display = display + 1", LAST_TICK, "price_state.display", "'PriceState:1'"),
    Corruption("ticks: deleted", "tick.seq", f"DELETE FROM ticks WHERE {OF_TRADE} RETURNING {NEXT_TICK}"),
    Corruption(
        "ticks: last deleted", "price_state.seq", f"DELETE FROM ticks WHERE {LAST_TICK} RETURNING 'PriceState:1'"
    ),
    insert("ticks", TICKS, FORGED_TICK, "price_state.seq", "'PriceState:1'"),
    state("seq = seq + 1", "price_state.seq"),
    state("trade_seq = trade_seq + 1", "price_state.trade_seq"),
    state("trade_seq = trade_seq - 1", "price_state.trade_seq"),
    state("oracle_seq = oracle_seq + 1", "price_state.oracle_seq"),
    state("fundamental = fundamental + 1", "price_state.fundamental"),
    state("market_weight = market_weight - 1", "price_state.market_weight"),
    state("stale = NOT stale", "price_state.stale"),
    state('"position" = "position" + 1000', "stream_head.position", "'StreamHead:ticks'"),
    state("asset_id = 77", "price_state.asset_id"),
    state("asset_id = 77", "tick.state", "'Asset:1'"),
    state(
        "open_candles = replace(open_candles, '\"H1\"', '\"H4\"')", "candle.volume", "'Candles:1:H1'"
    ),
    Corruption(
        "candles: written twice", "candle.volume",
        "INSERT INTO candles SELECT asset_id, (c ->> 0), (c ->> 1)::bigint - 86400, 1, 1, 1, 1, 1, 1, 1, 1,"
        " (c ->> 10)::numeric, (c ->> 11)::bigint FROM price_states CROSS JOIN"
        " jsonb_array_elements(open_candles::jsonb) c WHERE asset_id = 1 AND c ->> 0 = 'D1'"
        " RETURNING 'Candles:1:D1'",
    ),
    Corruption(
        "stream_heads: position", "stream_head.position",
        "UPDATE stream_heads SET \"position\" = \"position\" + 1 WHERE stream = 'ticks' RETURNING 'StreamHead:ticks'",
    ),
    Corruption(
        "stream_heads: deleted", "stream_head.position",
        "DELETE FROM stream_heads WHERE stream = 'ticks' RETURNING 'StreamHead:ticks'"
    ),
    Corruption(
        "stream_heads: oracle deleted", "stream_head.position",
        "DELETE FROM stream_heads WHERE stream = 'oracle' RETURNING 'StreamHead:oracle'",
    ),
    Corruption(
        "oracle_logs: beyond the head", "stream_head.position",
        'INSERT INTO oracle_logs ("position", asset_id, run_id, at, method, verdict, outcome, fundamental_before,'
        " inputs) VALUES (900, 1, 1, now(), 'FEED', 'REJECTED', 'REJECTED', 1, '{}') RETURNING 'StreamHead:oracle'",
    ),
    Corruption(
        "oracle_logs: another price than its event's", "oracle_log.suggested_price",
        'INSERT INTO oracle_logs ("position", asset_id, at, method, verdict, outcome, fundamental_before,'
        " suggested_price, event_seq) SELECT 1 + (SELECT \"position\" FROM stream_heads WHERE stream = 'oracle'),"
        " asset_id, at, 'OVERRIDE', 'ACCEPTED', 'ACCEPTED', 1, value + 1, seq FROM oracle_events"
        " WHERE asset_id = 1 AND value IS NOT NULL ORDER BY seq LIMIT 1 RETURNING 'OracleReport:' || id",
    ),
    Corruption(
        "oracle_events: seq", "oracle_event.seq",
        "UPDATE oracle_events SET seq = seq + 5 WHERE asset_id = 1 AND seq = 3"
        " RETURNING 'OracleEvent:' || asset_id || ':' || seq",
    ),
    Corruption(
        "oracle_events: deleted", "oracle_event.seq",
        "DELETE FROM oracle_events WHERE asset_id = 1 AND seq = 2 RETURNING 'OracleEvent:1:3'",
    ),
    Corruption(
        "oracle_events: last deleted", "price_state.oracle_seq",
        "DELETE FROM oracle_events WHERE asset_id = 1 AND seq = 3 RETURNING 'PriceState:1'",
    ),
]  # fmt: skip

CORRUPTIONS = [
    *IN_ENTRIES, *IN_LEDGER_ACCOUNTS, *IN_TRANSFERS, *IN_TRADES, *IN_ORDERS, *IN_POSITIONS, *IN_ASSETS, *IN_AUDIT_LOG,
    *IN_THE_REST, *IN_ACCOUNT_EVENTS, *IN_PRICES,
]  # fmt: skip
