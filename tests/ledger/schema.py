"""What the database must enforce: every key, CHECK, index and trigger, and for each CHECK a row that breaks it.

Written out, and not taken from the migrations: a constraint that one of them drops must be missed here.
"""

from typing import NamedTuple

FOREIGN_KEYS = {
    "api_keys_account_id_fkey": "FOREIGN KEY (account_id) REFERENCES accounts(id) ON DELETE RESTRICT",
    "asset_requests_account_id_fkey": "FOREIGN KEY (account_id) REFERENCES accounts(id) ON DELETE RESTRICT",
    "orders_account_id_fkey": "FOREIGN KEY (account_id) REFERENCES accounts(id) ON DELETE RESTRICT",
    "orders_asset_id_fkey": "FOREIGN KEY (asset_id) REFERENCES assets(id) ON DELETE RESTRICT",
    "positions_account_id_fkey": "FOREIGN KEY (account_id) REFERENCES accounts(id) ON DELETE RESTRICT",
    "positions_asset_id_fkey": "FOREIGN KEY (asset_id) REFERENCES assets(id) ON DELETE RESTRICT",
    "sessions_account_id_fkey": "FOREIGN KEY (account_id) REFERENCES accounts(id) ON DELETE RESTRICT",
    "trades_account_id_fkey": "FOREIGN KEY (account_id) REFERENCES accounts(id) ON DELETE RESTRICT",
    "trades_asset_id_fkey": "FOREIGN KEY (asset_id) REFERENCES assets(id) ON DELETE RESTRICT",
    "trades_order_id_fkey": "FOREIGN KEY (order_id) REFERENCES orders(id) ON DELETE RESTRICT",
}

PRIMARY_KEYS = {
    "account_events": "account_id, seq",
    "candles": 'asset_id, "interval", "time"',
    "oracle_texts": "content_hash",
    "oracles": "asset_id",
    "price_states": "asset_id",
    "stream_heads": "stream",
    "ticks": "asset_id, seq, at",
}
"""Of the tables whose key is not `id`."""

PARTITIONED = {
    "candles": 'LIST ("interval")',
    "candles_s1": 'RANGE ("time")',
    "ticks": "RANGE (at)",
}
"""By what; their indexes stand on the table alone, and every partition has its own of the same columns."""

PARTITIONS = {
    "candles_long": "FOR VALUES IN ('M1', 'M5', 'M15', 'H1', 'H4', 'D1')",
    "candles_s1": "FOR VALUES IN ('S1')",
}
"""Those that are there before the first tick; others take a day each."""

WITHOUT_MODEL = {
    "account_events": {
        "account_id": "bigint NOT NULL",
        "seq": "bigint NOT NULL",
        "at": "timestamp with time zone NOT NULL",
        "order_id": "bigint",
        "transfer_id": "bigint",
        "currency": "text",
        "available": "bigint",
        "held": "bigint",
        "asset_id": "bigint",
        "shares": "numeric",
        "cost_basis": "bigint",
        "realized_pnl": "bigint",
    },
    "candles": {
        "asset_id": "bigint NOT NULL",
        "interval": "text NOT NULL",
        "time": "bigint NOT NULL",
        "open": "numeric NOT NULL",
        "high": "numeric NOT NULL",
        "low": "numeric NOT NULL",
        "close": "numeric NOT NULL",
        "market_open": "numeric NOT NULL",
        "market_high": "numeric NOT NULL",
        "market_low": "numeric NOT NULL",
        "market_close": "numeric NOT NULL",
        "volume": "numeric NOT NULL",
        "trades": "bigint NOT NULL",
    },
    "ticks": {
        "asset_id": "bigint NOT NULL",
        "seq": "bigint NOT NULL",
        "position": "bigint NOT NULL",
        "cause": "text NOT NULL",
        "trade_seq": "bigint NOT NULL",
        "at": "timestamp with time zone NOT NULL",
        "display": "numeric NOT NULL",
        "market": "numeric NOT NULL",
        "fundamental": "numeric NOT NULL",
        "market_weight": "bigint NOT NULL",
        "volume": "bigint NOT NULL",
        "stale": "boolean NOT NULL",
    },
}
"""Tables that Tortoise cannot describe, with their columns."""

UNIQUE = {
    "accounts_email_key": "accounts USING btree (email)",
    "alerts_open_key": "alerts USING btree (kind, asset_id) WHERE (resolved_at IS NULL)",
    "api_keys_token_hash_key": "api_keys USING btree (token_hash)",
    "assets_symbol_key": "assets USING btree (symbol)",
    "entries_version_key": "entries USING btree (ledger_account_id, version)",
    "idempotency_keys_owner_mutation_key_key": "idempotency_keys USING btree (owner, mutation, key)",
    "ledger_accounts_owner_key": "ledger_accounts USING btree (account_id, asset_id, currency, kind)"
    " NULLS NOT DISTINCT",
    "oracle_events_seq_key": "oracle_events USING btree (asset_id, seq)",
    "oracle_evidence_ordinal_key": "oracle_evidence USING btree (log_id, ordinal)",
    "oracle_logs_position_key": 'oracle_logs USING btree ("position")',
    "oracle_logs_run_key": "oracle_logs USING btree (asset_id, run_id) WHERE (run_id IS NOT NULL)",
    "oracle_usage_day_key": "oracle_usage USING btree (provider, day)",
    "orders_client_order_id_key": "orders USING btree (account_id, client_order_id)",
    "positions_account_asset_key": "positions USING btree (account_id, asset_id)",
    "series_replays_series_key": 'series_replays USING btree (asset_id, series, "column")',
    "sessions_token_hash_key": "sessions USING btree (token_hash)",
    "trades_seq_key": "trades USING btree (asset_id, seq)",
}

INDEXES = {
    "api_keys_account_id_idx": "api_keys USING btree (account_id, id)",
    "asset_requests_account_id_idx": "asset_requests USING btree (account_id, id)",
    "asset_requests_status_idx": "asset_requests USING btree (status, id)",
    "entries_account_id_idx": "entries USING btree (account_id, id) WHERE (account_id IS NOT NULL)",
    "entries_transfer_id_idx": "entries USING btree (transfer_id)",
    "ledger_accounts_asset_id_idx": "ledger_accounts USING btree (asset_id) WHERE (asset_id IS NOT NULL)",
    "oracle_evidence_source_idx": "oracle_evidence USING btree (asset_id, source, retrieved_at)",
    "oracle_logs_asset_id_idx": "oracle_logs USING btree (asset_id, id)",
    "oracle_logs_moves_idx": "oracle_logs USING btree (asset_id, at)"
    " WHERE ((method = 'SEARCH_LLM'::text) AND (event_seq IS NOT NULL))",
    "oracle_logs_quarantined_idx": "oracle_logs USING btree (asset_id, id) WHERE (outcome = 'QUARANTINED'::text)",
    "oracle_logs_verdict_idx": "oracle_logs USING btree (asset_id, id) WHERE (verdict = 'QUARANTINED'::text)",
    "oracles_due_idx": "oracles USING btree (due_at)",
    "orders_account_id_idx": "orders USING btree (account_id, id)",
    "orders_open_idx": "orders USING btree (account_id, id)"
    " WHERE (status = ANY (ARRAY['OPEN'::text, 'PARTIALLY_FILLED'::text]))",
    "positions_asset_id_idx": "positions USING btree (asset_id) WHERE (shares > (0)::numeric)",
    "sessions_account_id_idx": "sessions USING btree (account_id) WHERE (account_id IS NOT NULL)",
    "ticks_position_idx": 'ticks USING btree ("position")',
    "trades_account_id_idx": "trades USING btree (account_id, id)",
    "trades_order_id_idx": "trades USING btree (order_id)",
}

FACTS = ("account_events", "audit_log", "entries", "idempotency_keys", "trades", "transfers")
"""Tables whose rows are never changed or deleted."""
UNDELETABLE = ("accounts", "assets", "ledger_accounts", "orders", "platform", "positions")

TRIGGERS = {
    "entries_balance": "AFTER INSERT ON entries REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT"
    " EXECUTE FUNCTION entries_must_balance()",
    **{
        f"{table}_immutable": f"BEFORE DELETE OR UPDATE OR TRUNCATE ON {table} FOR EACH STATEMENT"
        " EXECUTE FUNCTION refuse_change()"
        for table in FACTS
    },
    **{
        f"{table}_undeletable": f"BEFORE DELETE OR TRUNCATE ON {table} FOR EACH STATEMENT"
        " EXECUTE FUNCTION refuse_change()"
        for table in UNDELETABLE
    },
    "oracle_texts_immutable": "BEFORE UPDATE ON oracle_texts FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
}


class Check(NamedTuple):
    """A CHECK and statements that it must refuse."""

    name: str
    broken_by: tuple[str, ...]


def of(table: str, name: str, *changes: str) -> Check:
    """A CHECK of a table whose rows may change: each of `changes` breaks it on the first row."""
    return Check(
        name, tuple(f"UPDATE {table} SET {change} WHERE id = (SELECT min(id) FROM {table})" for change in changes)
    )


def of_facts(table: str, name: str, *rows: dict[str, str]) -> Check:
    """A CHECK of a table of facts: a copy of its first row with other values breaks it."""
    return Check(name, tuple(_copy(table, row) for row in rows))


def of_new(table: str, name: str, *rows: dict[str, str]) -> Check:
    """A CHECK of a table of which every row may be made up: `NEW_ROWS` with other values breaks it."""
    return Check(name, tuple(_new(table, row) for row in rows))


NEW_ROWS = {
    "alerts": {"kind": "'ORACLE_STALE'", "asset_id": "900", "detail": "''", "raised_at": "now()"},
    "account_events": {"account_id": "900", "seq": "1", "at": "now()", "order_id": "1"},
    "candles": {
        "asset_id": "900", "interval": "'D1'", "time": "0", "open": "3", "high": "4", "low": "2", "close": "3",
        "market_open": "3", "market_high": "4", "market_low": "2", "market_close": "3", "volume": "0", "trades": "0",
    },
    "oracle_events": {
        "asset_id": "900", "seq": "1", "at": "now()", "kind": "'READING'", "value": "1000000", "cadence_seconds": "1",
        "fresh_seconds": "1",
    },
    "oracle_evidence": {
        "log_id": "900", "asset_id": "900", "ordinal": "1", "source": "'news.example'", "url": "'http://news.example'",
        "excerpt": "''", "content_hash": "repeat('0', 64)", "retrieved_at": "now()", "counts": "false",
    },
    "oracle_logs": {
        "position": "900", "asset_id": "900", "run_id": "1", "at": "now()", "method": "'FEED'", "verdict": "'REJECTED'",
        "outcome": "'REJECTED'", "fundamental_before": "1", "inputs": "'{}'",
    },
    "oracle_texts": {
        "content_hash": "encode(sha256('a'), 'hex')", "text": "'a'", "stored_at": "now()",
    },
    "oracle_usage": {"provider": "'serper'", "day": "'2001-01-01'"},
    "oracles": {"asset_id": "900", "method": "'FEED'", "configuration": "'{}'", "cadence_seconds": "1"},
    "price_states": {
        "asset_id": "900", "at": "now()", "display": "1", "market": "1", "fundamental": "1", "market_weight": "0",
        "recent_volume_at": "now()",
    },
    "ticks": {
        "asset_id": "900", "seq": "1", "position": "1", "cause": "'TRADE'", "trade_seq": "0", "at": "'2001-01-01Z'",
        "display": "1", "market": "1", "fundamental": "1", "market_weight": "0", "volume": "0", "stale": "false",
    },
}  # fmt: skip


def _new(table: str, values: dict[str, str]) -> str:
    row = NEW_ROWS[table] | values
    names = ", ".join(f'"{name}"' for name in row)
    return f"INSERT INTO {table} ({names}) VALUES ({', '.join(row.values())})"


COLUMNS = {
    "entries": ("transfer_id", "ledger_account_id", "account_id", "version", "amount", "balance_after"),
    "transfers": ("reason", "ref", "entry_count", "at"),
    "trades": (
        "asset_id", "seq", "account_id", "order_id", "side", "shares", "gross", "fee", "supply_after", "market_after",
        "transfer_id", "at",
    ),
    "audit_log": ("id", "at", "actor", "action", "target", "previous_hash", "hash"),
    "idempotency_keys": ("owner", "mutation", "key", "input_hash", "outcome", "created_at"),
}  # fmt: skip


def _copy(table: str, values: dict[str, str]) -> str:
    columns = ", ".join(COLUMNS[table])
    chosen = ", ".join(values.get(column, column) for column in COLUMNS[table])
    return f"INSERT INTO {table} ({columns}) SELECT {chosen} FROM {table} ORDER BY id LIMIT 1"


ABOVE_SUPPLY = "supply = 1000000000000000000000001, backing = 9000000000000000000, base_price = 1000000, slope = 1"

CHECKS = [
    of("platform", "platform_one_row", "id = 2"),
    of("platform", "platform_environment", "environment = 'staging'"),
    of("accounts", "accounts_email_normalised", "email = 'Upper@example.com'", "email = ''"),
    of("sessions", "sessions_one_owner", "admin_name = 'a', account_id = 1", "admin_name = NULL, account_id = NULL"),
    of("sessions", "sessions_token_hash_length", "token_hash = 'short'"),
    of("api_keys", "api_keys_scopes", "scopes = '{ROOT}'", "scopes = '{}'"),
    of("api_keys", "api_keys_token_hash_length", "token_hash = 'short'"),
    of("asset_requests", "asset_requests_status", "status = 'DONE'"),
    of_facts("idempotency_keys", "idempotency_keys_key_length", {"key": "''"}, {"key": "repeat('x', 65)"}),
    of("assets", "assets_symbol_not_currency", "symbol = 'USDC'", "symbol = 'USDT'"),
    of("assets", "assets_status", "status = 'CLOSED'"),
    of("assets", "assets_quote_currency", "quote_currency = 'EUR'"),
    of("assets", "assets_base_price_range", "base_price = 999999, supply = 0", "base_price = 1e21 + 1, supply = 0"),
    of("assets", "assets_slope_range", "slope = 0", "slope = 1e24 + 1, supply = 0"),
    of("assets", "assets_fee_rate_range", "fee_rate = -1", "fee_rate = 100000001"),
    of("assets", "assets_min_notional_range", "min_notional = 0", "min_notional = 1e18 + 1"),
    of(
        "assets",
        "assets_max_shares_per_account_range",
        "max_shares_per_account = 0",
        "max_shares_per_account = 1e24 + 1",
    ),
    of(
        "assets",
        "assets_max_redemption_per_day_range",
        "max_redemption_per_day = 0",
        "max_redemption_per_day = 1e18 + 1",
    ),
    of("assets", "assets_fundamental_weight_range", "fundamental_weight = 0", "fundamental_weight = 1000000001"),
    of("assets", "assets_volume_scale_range", "volume_scale = 0", "volume_scale = 1e18 + 1"),
    of(
        "assets", "assets_volume_half_life_range", "volume_half_life_seconds = 0", "volume_half_life_seconds = 31536001"
    ),
    of("assets", "assets_supply_range", "supply = -1, backing = 9000000000000000000", ABOVE_SUPPLY),
    of("assets", "assets_surplus_not_negative", "surplus = -1"),
    of("assets", "assets_lp_capital_not_negative", "lp_capital = -1"),
    of("assets", "assets_trade_seq_not_negative", "trade_seq = -1"),
    of("assets", "assets_backing_covers_curve", "backing = 0", "supply = supply * 2", "slope = slope * 5"),
    of("ledger_accounts", "ledger_accounts_kind", "kind = 'OTHER'"),
    of(
        "ledger_accounts",
        "ledger_accounts_owner",
        "kind = 'AVAILABLE'",
        "kind = 'BACKING'",
        "asset_id = 1",
        "account_id = 1",
    ),
    of("ledger_accounts", "ledger_accounts_sign", "balance = 1", "kind = 'TREASURY', balance = -1"),
    of("ledger_accounts", "ledger_accounts_version_not_negative", "version = -1"),
    of_facts("transfers", "transfers_entry_count_range", {"entry_count": "1"}),
    of_facts("entries", "entries_amount_not_zero", {"amount": "0", "version": "1000"}),
    of_facts("entries", "entries_version_positive", {"version": "0"}),
    of("orders", "orders_side", "side = 'LEND'"),
    of("orders", "orders_type", "type = 'STOP'"),
    of("orders", "orders_time_in_force", "time_in_force = 'DAY'"),
    of("orders", "orders_status", "status = 'LOST'"),
    of("orders", "orders_one_size", "shares = NULL, amount = NULL", "shares = 1e24, amount = 1000000000000"),
    of(
        "orders",
        "orders_size_range",
        "shares = 0, filled_shares = 0",
        "shares = 1e24 + 1",
        "shares = NULL, amount = 0, gross = 0, fee = 0",
        "shares = NULL, amount = 1e18 + 1",
    ),
    of(
        "orders",
        "orders_client_order_id",
        "client_order_id = ''",
        "client_order_id = repeat('x', 65)",
        "client_order_id = 'é'",
    ),
    of("orders", "orders_filled_range", "filled_shares = -1", "filled_shares = shares + 1"),
    of("orders", "orders_money_not_negative", "gross = -1", "fee = -1", "shares = NULL, amount = gross + fee - 1"),
    of(
        "orders",
        "orders_rejected_has_refusal",
        "refusal = '{}'",
        "status = 'REJECTED', filled_shares = 0, gross = 0, fee = 0",
    ),
    of("orders", "orders_rejected_fills_nothing", "status = 'REJECTED', refusal = '{}'"),
    of_facts("trades", "trades_side", {"side": "'LEND'", "seq": "1000"}),
    of_facts("trades", "trades_positive", {"seq": "0"}, {"shares": "0"}, {"gross": "0"}, {"fee": "-1"}),
    of_facts(
        "trades",
        "trades_money_range",
        {"gross": "1e18", "fee": "1", "seq": "1000"},
        {"gross": "1", "fee": "1e18", "side": "'BUY'", "seq": "1000"},
    ),
    of_facts("trades", "trades_seller_gets_something", {"side": "'SELL'", "gross": "1", "fee": "1", "seq": "1000"}),
    of_facts("trades", "trades_after_not_negative", {"supply_after": "-1"}, {"market_after": "0"}),
    of("positions", "positions_not_negative", "shares = -1, cost_basis = 0", "cost_basis = -1", "redeemed = -1"),
    of("positions", "positions_empty_has_no_basis", "shares = 0, cost_basis = 1"),
    of_facts(
        "audit_log", "audit_log_hash_length", {"id": "9999", "hash": "'x'"}, {"id": "9999", "previous_hash": "'x'"}
    ),
    of("series_replays", "series_replays_speed_positive", "speed = 0"),
    of_new("account_events", "account_events_seq_check", {"seq": "0"}),
    of_new("account_events", "account_events_cause_check", {"order_id": "NULL"}),
    of_new(
        "account_events",
        "account_events_money_check",
        {"currency": "'USDC'"},
        {"currency": "'USDC'", "available": "1"},
        {"currency": "'USDC'", "held": "1"},
        {"available": "1", "held": "1"},
    ),
    of_new(
        "account_events",
        "account_events_position_check",
        {"shares": "1", "cost_basis": "1", "realized_pnl": "1"},
        {"asset_id": "1", "shares": "1", "cost_basis": "1"},
        {"asset_id": "1", "cost_basis": "1", "realized_pnl": "1"},
    ),
    of_new(
        "candles",
        "candles_display_check",
        {"low": "0"},
        {"open": "1"},
        {"close": "1"},
        {"high": "2"},
        {"open": "5"},
        {"close": "5"},
    ),
    of_new(
        "candles",
        "candles_market_check",
        {"market_low": "0"},
        {"market_open": "1"},
        {"market_close": "1"},
        {"market_high": "2"},
        {"market_open": "5"},
        {"market_close": "5"},
    ),
    of_new("candles", "candles_volume_check", {"volume": "-1"}, {"trades": "-1"}),
    of_new("oracle_events", "oracle_events_seq_check", {"seq": "0"}),
    of_new("oracle_events", "oracle_events_kind_check", {"kind": "'GUESS'"}),
    of_new(
        "oracle_events",
        "oracle_events_value_check",
        {"value": "NULL"},
        {"kind": "'REFRESH'"},
        {"value": "999999"},
        {"value": "1000000000000000000001"},
    ),
    of_new("oracle_events", "oracle_events_promise_check", {"cadence_seconds": "0"}, {"fresh_seconds": "0"}),
    of_new("oracle_events", "oracle_events_fundamental_after_check", {"fundamental_after": "0"}),
    of_new("alerts", "alerts_kind_check", {"kind": "'OTHER'"}),
    of_new("oracle_evidence", "oracle_evidence_ordinal_check", {"ordinal": "0"}),
    of_new("oracle_evidence", "oracle_evidence_content_hash_check", {"content_hash": "'x'"}),
    of_new("oracle_evidence", "oracle_evidence_counts_check", {"counts": "true"}),
    of_new("oracle_logs", "oracle_logs_position_check", {"position": "0"}),
    of_new("oracle_logs", "oracle_logs_method_check", {"method": "'GUESS'"}),
    of_new(
        "oracle_logs",
        "oracle_logs_outcome_check",
        {"verdict": "'MAYBE'", "outcome": "'MAYBE'"},
        {"verdict": "'QUARANTINED'", "outcome": "'MAYBE'", "resolution": "'EXPIRED'", "resolved_at": "now()"},
    ),
    of_new(
        "oracle_logs",
        "oracle_logs_resolution_check",
        {"verdict": "'QUARANTINED'"},
        {"verdict": "'QUARANTINED'", "resolution": "'EXPIRED'"},
        {"verdict": "'QUARANTINED'", "resolution": "'FORGOTTEN'", "resolved_at": "now()"},
        {"resolution": "'EXPIRED'", "resolved_at": "now()"},
        {"outcome": "'QUARANTINED'", "resolution": "'EXPIRED'", "resolved_at": "now()"},
    ),
    of_new(
        "oracle_logs",
        "oracle_logs_price_check",
        {"suggested_price": "999999"},
        {"suggested_price": "1000000000000000000001"},
    ),
    of_new(
        "oracle_logs",
        "oracle_logs_accepted_check",
        {"verdict": "'ACCEPTED'", "outcome": "'ACCEPTED'", "event_seq": "1"},
        {"verdict": "'ACCEPTED'", "outcome": "'ACCEPTED'", "suggested_price": "1000000"},
    ),
    of_new("oracle_logs", "oracle_logs_confidence_check", {"confidence": "-1"}, {"confidence": "1000000001"}),
    of_new(
        "oracle_logs",
        "oracle_logs_counts_check",
        {"move": "-1"},
        {"cost": "-1"},
        {"latency_ms": "-1"},
        {"event_seq": "0"},
        {"fundamental_before": "0"},
        {"fundamental_after": "0", "event_seq": "1"},
        {"fundamental_after": "1"},
    ),
    of_new("oracle_logs", "oracle_logs_run_check", {"run_id": "NULL"}, {"inputs": "NULL"}, {"method": "'OVERRIDE'"}),
    of_new("oracle_texts", "oracle_texts_content_hash_check", {"text": "'b'"}),
    of_new("oracle_usage", "oracle_usage_counts_check", {"requests": "-1"}, {"tokens": "-1"}, {"cost": "-1"}),
    of_new("oracles", "oracles_method_check", {"method": "'GUESS'"}),
    of_new("oracles", "oracles_configuration_check", {"configuration": "NULL"}, {"method": "'OVERRIDE'"}),
    of_new(
        "oracles",
        "oracles_cadence_check",
        {"cadence_seconds": "0"},
        {"cadence_seconds": "86401"},
        {"base_cadence_seconds": "0"},
        {"base_cadence_seconds": "86401"},
    ),
    of_new("oracles", "oracles_run_id_check", {"run_id": "-1"}, {"version": "0"}, {"failures": "-1"}),
    of_new("oracles", "oracles_held_check", {"held_until": "now()"}),
    of_new(
        "price_states",
        "price_states_seq_check",
        {"seq": "-1"},
        {"trade_seq": "-1"},
        {"oracle_seq": "-1"},
        {"position": "-1"},
    ),
    of_new("price_states", "price_states_recent_volume_check", {"recent_volume": "-1"}),
    of_new("ticks", "ticks_seq_check", {"seq": "0"}),
    of_new("ticks", "ticks_position_check", {"position": "0"}),
    of_new("ticks", "ticks_cause_check", {"cause": "'GUESS'"}),
    of_new("ticks", "ticks_trade_seq_check", {"trade_seq": "-1"}),
    of_new("ticks", "ticks_prices_check", {"display": "0"}, {"market": "0"}, {"fundamental": "0"}),
    of_new("ticks", "ticks_market_weight_check", {"market_weight": "-1"}, {"market_weight": "1000000001"}),
    of_new("ticks", "ticks_volume_check", {"volume": "-1"}, {"volume": "1", "cause": "'ORACLE'"}),
]

ALLOWED = (
    "UPDATE assets SET min_notional = 1, max_shares_per_account = 1, max_redemption_per_day = 1, volume_scale = 1",
    "UPDATE assets SET min_notional = 1e18, max_shares_per_account = 1e24, max_redemption_per_day = 1e18,"
    " volume_scale = 1e18",
    "UPDATE assets SET max_shares_per_account = NULL, max_redemption_per_day = NULL",
    "UPDATE orders SET shares = 1, amount = NULL, filled_shares = 0",
    "UPDATE orders SET shares = 1e24, amount = NULL",
    "UPDATE orders SET shares = NULL, amount = 1, gross = 0, fee = 0",
    "UPDATE orders SET shares = NULL, amount = 1e18",
    _copy("trades", {"side": "'BUY'", "gross": "1e18 - 1", "fee": "1", "seq": "1000"}),
    _copy("trades", {"side": "'BUY'", "gross": "1", "fee": "0", "seq": "1001"}),
    *(_new(table, {}) for table in NEW_ROWS),
    _new("candles", {"interval": "'H4'", "open": "1", "high": "1", "low": "1", "close": "1"}),
    _new("oracle_events", {"kind": "'OVERRIDE'", "value": "1000000000000000000000"}),
    _new("oracle_events", {"kind": "'REFRESH'", "value": "NULL"}),
    _new("ticks", {"market_weight": "1000000000", "volume": "1"}),
    _new("oracles", {"method": "'OVERRIDE'", "configuration": "NULL", "override_id": "1", "held_until": "now()"}),
    _new("oracle_evidence", {"counts": "true", "value": "'1'"}),
    _new("oracle_logs", {"method": "'OVERRIDE'", "run_id": "NULL", "inputs": "NULL"}),
    *(
        _new(
            "oracle_logs",
            {"verdict": "'QUARANTINED'", "outcome": outcome, "resolution": resolution, "resolved_at": "now()"}
            | {"suggested_price": "1e21", "event_seq": "1"},
        )
        for outcome, resolution in (("'ACCEPTED'", "'CONFIRMED'"), ("'REJECTED'", "'EXPIRED'"))
    ),
    _new("ticks", {"cause": "'OPEN'"}),
    _new(
        "account_events", {"order_id": "NULL", "transfer_id": "1", "currency": "'USDC'", "available": "0", "held": "0"}
    ),
    _new("account_events", {"asset_id": "1", "shares": "0", "cost_basis": "0", "realized_pnl": "-1"}),
)
"""What stands at the very ends of a range."""
