"""What Tortoise cannot say: ranges, signs, keys over several columns, and the triggers that make the ledger immutable."""

from tortoise import migrations
from tortoise.migrations import operations as ops

KEYS_AND_INDEXES = [
    "CREATE UNIQUE INDEX sessions_token_hash_key ON sessions (token_hash)",
    "CREATE INDEX sessions_account_id_idx ON sessions (account_id) WHERE account_id IS NOT NULL",
    "CREATE UNIQUE INDEX api_keys_token_hash_key ON api_keys (token_hash)",
    "CREATE INDEX api_keys_account_id_idx ON api_keys (account_id, id)",
    "CREATE INDEX asset_requests_account_id_idx ON asset_requests (account_id, id)",
    "CREATE INDEX asset_requests_status_idx ON asset_requests (status, id)",
    "CREATE UNIQUE INDEX idempotency_keys_owner_mutation_key_key ON idempotency_keys (owner, mutation, key)",
    "CREATE UNIQUE INDEX ledger_accounts_owner_key ON ledger_accounts (account_id, asset_id, currency, kind)"
    " NULLS NOT DISTINCT",
    "CREATE INDEX ledger_accounts_asset_id_idx ON ledger_accounts (asset_id) WHERE asset_id IS NOT NULL",
    "CREATE UNIQUE INDEX entries_version_key ON entries (ledger_account_id, version)",
    "CREATE INDEX entries_transfer_id_idx ON entries (transfer_id)",
    "CREATE INDEX entries_account_id_idx ON entries (account_id, id) WHERE account_id IS NOT NULL",
    "CREATE UNIQUE INDEX orders_client_order_id_key ON orders (account_id, client_order_id)",
    "CREATE INDEX orders_account_id_idx ON orders (account_id, id)",
    "CREATE INDEX orders_open_idx ON orders (account_id, id) WHERE status IN ('OPEN', 'PARTIALLY_FILLED')",
    "CREATE UNIQUE INDEX trades_seq_key ON trades (asset_id, seq)",
    "CREATE INDEX trades_account_id_idx ON trades (account_id, id)",
    "CREATE INDEX trades_order_id_idx ON trades (order_id)",
    "CREATE UNIQUE INDEX positions_account_asset_key ON positions (account_id, asset_id)",
    "CREATE INDEX positions_asset_id_idx ON positions (asset_id) WHERE shares > 0",
    "ALTER TABLE ledger_accounts SET (fillfactor = 70)",
    "ALTER TABLE positions SET (fillfactor = 70)",
    "ALTER TABLE assets SET (fillfactor = 50)",
]

CHECKS = {
    "platform": {
        "platform_one_row": "id = 1",
        "platform_environment": "environment IN ('development', 'production')",
    },
    "accounts": {"accounts_email_normalised": "email = lower(email) AND email <> ''"},
    "sessions": {
        "sessions_one_owner": "(account_id IS NULL) <> (admin_name IS NULL)",
        "sessions_token_hash_length": "octet_length(token_hash) = 32",
    },
    "api_keys": {
        "api_keys_scopes": "scopes <@ ARRAY['READ', 'TRADE', 'WITHDRAW'] AND cardinality(scopes) > 0",
        "api_keys_token_hash_length": "octet_length(token_hash) = 32",
    },
    "asset_requests": {"asset_requests_status": "status IN ('PENDING', 'APPROVED', 'REJECTED')"},
    "idempotency_keys": {"idempotency_keys_key_length": "length(key) BETWEEN 1 AND 64"},
    "assets": {
        "assets_symbol_not_currency": "symbol NOT IN ('USDC', 'USDT')",
        "assets_status": "status IN ('DRAFT', 'OPEN', 'REDUCE_ONLY', 'HALTED', 'DELISTED')",
        "assets_quote_currency": "quote_currency IN ('USDC', 'USDT')",
        "assets_base_price_range": "base_price BETWEEN 1000000 AND 1000000000000000000000",
        "assets_slope_range": "slope BETWEEN 1 AND 1000000000000000000000000",
        "assets_fee_rate_range": "fee_rate BETWEEN 0 AND 100000000",
        "assets_min_notional_range": "min_notional BETWEEN 1 AND 1000000000000000000",
        "assets_max_shares_per_account_range": "max_shares_per_account BETWEEN 1 AND 1000000000000000000000000",
        "assets_max_redemption_per_day_range": "max_redemption_per_day BETWEEN 1 AND 1000000000000000000",
        "assets_fundamental_weight_range": "fundamental_weight BETWEEN 1 AND 1000000000",
        "assets_volume_scale_range": "volume_scale BETWEEN 1 AND 1000000000000000000",
        "assets_volume_half_life_range": "volume_half_life_seconds BETWEEN 1 AND 31536000",
        "assets_supply_range": "supply BETWEEN 0 AND 1000000000000000000000000",
        "assets_surplus_not_negative": "surplus >= 0",
        "assets_lp_capital_not_negative": "lp_capital >= 0",
        "assets_trade_seq_not_negative": "trade_seq >= 0",
        # backing >= R(S), exactly: both sides times the denominator 2 * 10^30 of app/exchange/curve.py
        "assets_backing_covers_curve": "backing::numeric * 2000000000000000000000000000000"
        " >= (2000000000000000::numeric * base_price + slope * supply) * supply",
    },
    "ledger_accounts": {
        "ledger_accounts_kind": "kind IN ('AVAILABLE', 'HELD', 'BACKING', 'SURPLUS', 'LP_CAPITAL', 'ISSUED',"
        " 'TREASURY', 'CUSTODY', 'DEVELOPMENT')",
        "ledger_accounts_owner": "CASE WHEN kind IN ('AVAILABLE', 'HELD') THEN account_id IS NOT NULL"
        " WHEN kind IN ('BACKING', 'SURPLUS', 'LP_CAPITAL', 'ISSUED') THEN account_id IS NULL AND asset_id IS NOT NULL"
        " ELSE account_id IS NULL AND asset_id IS NULL END",
        "ledger_accounts_sign": "CASE WHEN kind IN ('ISSUED', 'CUSTODY', 'DEVELOPMENT') THEN balance <= 0"
        " ELSE balance >= 0 END",
        "ledger_accounts_version_not_negative": "version >= 0",
    },
    "transfers": {"transfers_entry_count_range": "entry_count >= 2"},
    "entries": {"entries_amount_not_zero": "amount <> 0", "entries_version_positive": "version > 0"},
    "orders": {
        "orders_side": "side IN ('BUY', 'SELL')",
        "orders_type": "type IN ('MARKET', 'LIMIT')",
        "orders_time_in_force": "time_in_force IN ('GTC', 'IOC', 'FOK', 'GTD')",
        "orders_status": "status IN ('OPEN', 'PARTIALLY_FILLED', 'FILLED', 'CANCELLED', 'REJECTED', 'EXPIRED')",
        "orders_one_size": "(shares IS NULL) <> (amount IS NULL)",
        "orders_size_range": "(shares IS NULL OR shares BETWEEN 1 AND 1000000000000000000000000)"
        " AND (amount IS NULL OR amount BETWEEN 1 AND 1000000000000000000)",
        "orders_client_order_id": "client_order_id ~ '^[ -~]{1,64}$'",
        "orders_filled_range": "filled_shares >= 0 AND (shares IS NULL OR filled_shares <= shares)",
        "orders_money_not_negative": "gross >= 0 AND fee >= 0 AND (amount IS NULL OR gross + fee <= amount)",
        "orders_rejected_has_refusal": "(status = 'REJECTED') = (refusal IS NOT NULL)",
        "orders_rejected_fills_nothing": "status <> 'REJECTED' OR (filled_shares = 0 AND gross = 0 AND fee = 0)",
    },
    "trades": {
        "trades_side": "side IN ('BUY', 'SELL')",
        "trades_positive": "seq > 0 AND shares > 0 AND gross > 0 AND fee >= 0",
        "trades_money_range": "gross + fee <= 1000000000000000000",
        "trades_seller_gets_something": "side = 'BUY' OR gross > fee",
        "trades_after_not_negative": "supply_after >= 0 AND market_after > 0",
    },
    "positions": {
        "positions_not_negative": "shares >= 0 AND cost_basis >= 0 AND redeemed >= 0",
        "positions_empty_has_no_basis": "shares > 0 OR cost_basis = 0",
    },
    "audit_log": {"audit_log_hash_length": "length(hash) = 64 AND length(previous_hash) = 64"},
    "series_replays": {"series_replays_speed_positive": "speed > 0"},
}

# All entries of a transfer come in one statement, so its transition table is the whole of it: the count over the table
# itself refuses a second one. The joins also prove what foreign keys would (and cost a fraction of ten row triggers a
# trade): the ledger accounts and the transfer exist.
BALANCED = """
CREATE FUNCTION entries_must_balance() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE bad record;
BEGIN
    SELECT f.transfer_id, l.currency, sum(f.amount) AS total INTO bad
      FROM fresh f
      LEFT JOIN ledger_accounts l
        ON l.id = f.ledger_account_id AND l.account_id IS NOT DISTINCT FROM f.account_id
     GROUP BY f.transfer_id, l.currency
    HAVING sum(f.amount) <> 0 OR l.currency IS NULL
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'transfer % does not sum to zero: % of %',
            bad.transfer_id, bad.total, coalesce(bad.currency, 'an unknown ledger account')
            USING ERRCODE = 'check_violation', CONSTRAINT = 'entries_balance';
    END IF;
    SELECT c.transfer_id, c.entries, t.entry_count INTO bad
      FROM (SELECT e.transfer_id, count(*) AS entries
              FROM (SELECT DISTINCT transfer_id FROM fresh) f JOIN entries e ON e.transfer_id = f.transfer_id
             GROUP BY e.transfer_id) c
      LEFT JOIN transfers t ON t.id = c.transfer_id
     WHERE t.entry_count IS DISTINCT FROM c.entries
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'transfer % announces % entries and % came',
            bad.transfer_id, coalesce(bad.entry_count::text, 'no'), bad.entries
            USING ERRCODE = 'check_violation', CONSTRAINT = 'entries_complete';
    END IF;
    RETURN NULL;
END $$
"""

REFUSE = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% rows are facts: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
END $$
"""

FACTS = ["transfers", "entries", "trades", "audit_log", "idempotency_keys"]
UNDELETABLE = ["accounts", "assets", "orders", "positions", "ledger_accounts", "platform"]

TRIGGERS = [
    "CREATE TRIGGER entries_balance AFTER INSERT ON entries REFERENCING NEW TABLE AS fresh"
    " FOR EACH STATEMENT EXECUTE FUNCTION entries_must_balance()",
    *(
        f"CREATE TRIGGER {table}_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
        " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        for table in FACTS
    ),
    *(
        f"CREATE TRIGGER {table}_undeletable BEFORE DELETE OR TRUNCATE ON {table}"
        " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        for table in UNDELETABLE
    ),
]

PLATFORM_LEDGER = """
INSERT INTO ledger_accounts (kind, currency)
SELECT kind, currency
  FROM unnest(ARRAY['TREASURY', 'CUSTODY', 'DEVELOPMENT']) kind, unnest(ARRAY['USDC', 'USDT']) currency
 ORDER BY kind, currency
"""


class Migration(migrations.Migration):
    dependencies = [("models", "0001_initial")]

    operations = [
        *(ops.RunSQL(sql) for sql in KEYS_AND_INDEXES),
        *(
            ops.RunSQL(f"ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({condition})")
            for table, checks in CHECKS.items()
            for name, condition in checks.items()
        ),
        ops.RunSQL(BALANCED),
        ops.RunSQL(REFUSE),
        *(ops.RunSQL(sql) for sql in TRIGGERS),
        ops.RunSQL(PLATFORM_LEDGER),
    ]
