"""Ticks and candles in partitions, events of accounts, and what the database must enforce of prices."""

from tortoise import migrations
from tortoise.migrations import operations as ops

TICKS = """
CREATE TABLE ticks (
    asset_id bigint NOT NULL,
    seq bigint NOT NULL,
    "position" bigint NOT NULL,
    cause text NOT NULL,
    trade_seq bigint NOT NULL,
    at timestamptz NOT NULL,
    display numeric(38,0) NOT NULL,
    market numeric(38,0) NOT NULL,
    fundamental numeric(38,0) NOT NULL,
    market_weight bigint NOT NULL,
    volume bigint NOT NULL,
    stale boolean NOT NULL,
    PRIMARY KEY (asset_id, seq, at)
) PARTITION BY RANGE (at)
"""

CANDLES = """
CREATE TABLE candles (
    asset_id bigint NOT NULL,
    "interval" text NOT NULL,
    "time" bigint NOT NULL,
    open numeric(38,0) NOT NULL,
    high numeric(38,0) NOT NULL,
    low numeric(38,0) NOT NULL,
    close numeric(38,0) NOT NULL,
    market_open numeric(38,0) NOT NULL,
    market_high numeric(38,0) NOT NULL,
    market_low numeric(38,0) NOT NULL,
    market_close numeric(38,0) NOT NULL,
    volume numeric(38,0) NOT NULL,
    trades bigint NOT NULL,
    PRIMARY KEY (asset_id, "interval", "time")
) PARTITION BY LIST ("interval")
"""

ACCOUNT_EVENTS = """
CREATE TABLE account_events (
    account_id bigint NOT NULL,
    seq bigint NOT NULL,
    at timestamptz NOT NULL,
    order_id bigint,
    transfer_id bigint,
    currency text,
    available bigint,
    held bigint,
    asset_id bigint,
    shares numeric(38,0),
    cost_basis bigint,
    realized_pnl bigint,
    PRIMARY KEY (account_id, seq)
)
"""

STATEMENTS = [
    TICKS,
    # (position) finds where a reader goes on; unique among all ticks because its head is locked until the commit.
    "CREATE INDEX ticks_position_idx ON ticks (position)",
    CANDLES,
    """CREATE TABLE candles_s1 PARTITION OF candles FOR VALUES IN ('S1') PARTITION BY RANGE ("time")""",
    "CREATE TABLE candles_long PARTITION OF candles FOR VALUES IN ('M1', 'M5', 'M15', 'H1', 'H4', 'D1')",
    ACCOUNT_EVENTS,
    "CREATE UNIQUE INDEX oracle_events_seq_key ON oracle_events (asset_id, seq)",
    "ALTER TABLE price_states SET (fillfactor = 50)",
    "ALTER TABLE stream_heads SET (fillfactor = 10)",
    "INSERT INTO stream_heads (stream, position) VALUES ('ticks', 0)",
]

CHECKS = {
    "ticks": {
        "ticks_seq_check": "seq >= 1",
        "ticks_position_check": "position >= 1",
        "ticks_cause_check": "cause IN ('OPEN', 'TRADE', 'ORACLE', 'DECAY')",
        "ticks_trade_seq_check": "trade_seq >= 0",
        "ticks_prices_check": "display >= 1 AND market >= 1 AND fundamental >= 1",
        "ticks_market_weight_check": "market_weight BETWEEN 0 AND 1000000000",
        "ticks_volume_check": "volume >= 0 AND (volume = 0 OR cause = 'TRADE')",
    },
    "candles": {
        "candles_display_check": "low >= 1 AND low <= open AND low <= close AND high >= open AND high >= close",
        "candles_market_check": "market_low >= 1 AND market_low <= market_open AND market_low <= market_close"
        " AND market_high >= market_open AND market_high >= market_close",
        "candles_volume_check": "volume >= 0 AND trades >= 0",
    },
    "oracle_events": {
        "oracle_events_seq_check": "seq >= 1",
        "oracle_events_kind_check": "kind IN ('READING', 'OVERRIDE', 'REFRESH')",
        "oracle_events_value_check": "(kind = 'REFRESH') = (value IS NULL)"
        " AND (value IS NULL OR value BETWEEN 1000000 AND 1000000000000000000000)",
        "oracle_events_promise_check": "cadence_seconds >= 1 AND fresh_seconds >= 1",
    },
    "account_events": {
        "account_events_seq_check": "seq >= 1",
        "account_events_cause_check": "order_id IS NOT NULL OR transfer_id IS NOT NULL",
        "account_events_money_check": "(currency IS NULL) = (available IS NULL) AND (currency IS NULL) = (held IS NULL)",
        "account_events_position_check": "(shares IS NULL) = (cost_basis IS NULL)"
        " AND (shares IS NULL) = (realized_pnl IS NULL) AND (shares IS NULL OR asset_id IS NOT NULL)",
    },
    "price_states": {
        "price_states_seq_check": "seq >= 0 AND trade_seq >= 0 AND oracle_seq >= 0 AND position >= 0",
        "price_states_recent_volume_check": "recent_volume >= 0",
    },
}

FACTS = ["account_events"]


class Migration(migrations.Migration):
    dependencies = [("models", "0003_prices")]

    operations = [
        *(ops.RunSQL(sql) for sql in STATEMENTS),
        *(
            ops.RunSQL(f"ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({condition})")
            for table, checks in CHECKS.items()
            for name, condition in checks.items()
        ),
        *(
            ops.RunSQL(
                f"CREATE TRIGGER {table}_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
                " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
            )
            for table in FACTS
        ),
    ]
