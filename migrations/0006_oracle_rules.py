"""What the database must enforce of the oracle, and the position of its stream."""

from tortoise import migrations
from tortoise.migrations import operations as ops

STATEMENTS = [
    "CREATE UNIQUE INDEX oracle_logs_position_key ON oracle_logs (position)",
    "CREATE INDEX oracle_logs_asset_id_idx ON oracle_logs (asset_id, id)",
    # A run stores one report at most.
    "CREATE UNIQUE INDEX oracle_logs_run_key ON oracle_logs (asset_id, run_id) WHERE run_id IS NOT NULL",
    "CREATE INDEX oracle_logs_quarantined_idx ON oracle_logs (asset_id, id) WHERE outcome = 'QUARANTINED'",
    "CREATE INDEX oracle_logs_verdict_idx ON oracle_logs (asset_id, id) WHERE verdict = 'QUARANTINED'",
    # What the search readings of a day moved, and what evidence was used before.
    "CREATE INDEX oracle_logs_moves_idx ON oracle_logs (asset_id, at) WHERE method = 'SEARCH_LLM' AND event_seq IS NOT NULL",
    "CREATE UNIQUE INDEX oracle_evidence_ordinal_key ON oracle_evidence (log_id, ordinal)",
    # The samples of an average over time.
    "CREATE INDEX oracle_evidence_source_idx ON oracle_evidence (asset_id, source, retrieved_at)",
    "CREATE UNIQUE INDEX oracle_usage_day_key ON oracle_usage (provider, day)",
    "CREATE INDEX oracles_due_idx ON oracles (due_at)",
    "CREATE UNIQUE INDEX alerts_open_key ON alerts (kind, asset_id) WHERE resolved_at IS NULL",
    'CREATE UNIQUE INDEX series_replays_series_key ON series_replays (asset_id, series, "column")',
    "ALTER TABLE oracles SET (fillfactor = 50)",
    "INSERT INTO stream_heads (stream, position) VALUES ('oracle', 0)",
]

CHECKS = {
    "oracles": {
        "oracles_method_check": "method IN ('SEARCH_LLM', 'FEED', 'OVERRIDE')",
        "oracles_configuration_check": "(method = 'OVERRIDE') = (configuration IS NULL)",
        "oracles_cadence_check": "cadence_seconds BETWEEN 1 AND 86400"
        " AND (base_cadence_seconds IS NULL OR base_cadence_seconds BETWEEN 1 AND 86400)",
        "oracles_run_id_check": "run_id >= 0 AND version >= 1 AND failures >= 0",
        "oracles_held_check": "held_until IS NULL OR override_id IS NOT NULL",
    },
    "oracle_logs": {
        "oracle_logs_position_check": "position >= 1",
        "oracle_logs_method_check": "method IN ('SEARCH_LLM', 'FEED', 'OVERRIDE')",
        "oracle_logs_outcome_check": "verdict IN ('ACCEPTED', 'REJECTED', 'QUARANTINED')"
        " AND outcome IN ('ACCEPTED', 'REJECTED', 'QUARANTINED')",
        "oracle_logs_resolution_check": "(resolution IS NULL) = (outcome = verdict) AND (resolution IS NULL) = (resolved_at IS NULL)"
        " AND (resolution IS NULL OR (verdict = 'QUARANTINED' AND resolution IN ('ACCEPTED', 'REJECTED', 'CONFIRMED', 'EXPIRED')))",
        "oracle_logs_price_check": "suggested_price IS NULL OR suggested_price BETWEEN 1000000 AND 1000000000000000000000",
        "oracle_logs_accepted_check": "outcome <> 'ACCEPTED' OR (suggested_price IS NOT NULL AND event_seq IS NOT NULL)",
        "oracle_logs_confidence_check": "confidence IS NULL OR confidence BETWEEN 0 AND 1000000000",
        "oracle_logs_counts_check": "move >= 0 AND cost >= 0 AND (latency_ms IS NULL OR latency_ms >= 0)"
        " AND (event_seq IS NULL OR event_seq >= 1) AND fundamental_before >= 1"
        " AND (fundamental_after IS NULL OR (fundamental_after >= 1 AND event_seq IS NOT NULL))",
        "oracle_logs_run_check": "(method = 'OVERRIDE') = (run_id IS NULL) AND (method = 'OVERRIDE') = (inputs IS NULL)",
    },
    "oracle_evidence": {
        "oracle_evidence_ordinal_check": "ordinal >= 1",
        "oracle_evidence_content_hash_check": "length(content_hash) = 64",
        "oracle_evidence_counts_check": "NOT counts OR value IS NOT NULL",
    },
    "oracle_texts": {
        "oracle_texts_content_hash_check": "content_hash = encode(sha256(convert_to(text, 'UTF8')), 'hex')"
    },
    "oracle_usage": {"oracle_usage_counts_check": "requests >= 0 AND tokens >= 0 AND cost >= 0"},
    "alerts": {"alerts_kind_check": "kind IN ('ORACLE_STALE')"},
    "oracle_events": {
        "oracle_events_fundamental_after_check": "fundamental_after IS NULL OR fundamental_after >= 1",
    },
}

FACTS = ["oracle_texts"]
"""Retention removes rows of the other tables."""


class Migration(migrations.Migration):
    dependencies = [("models", "0005_oracle")]

    operations = [
        *(ops.RunSQL(sql) for sql in STATEMENTS),
        *(
            ops.RunSQL(f"ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({condition})")
            for table, checks in CHECKS.items()
            for name, condition in checks.items()
        ),
        *(
            ops.RunSQL(
                f"CREATE TRIGGER {table}_immutable BEFORE UPDATE ON {table}"
                " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
            )
            for table in FACTS
        ),
    ]
