"""The oracle: what each asset's is configured to do and when, every reading with its evidence, what it may spend."""

from tortoise import fields
from tortoise.models import Model

from models.fields import BaseUnitsField


class Oracle(Model):
    """An asset's oracle: its configuration (JSON; null where there are only overrides), and where its schedule stands.

    `run_id` fences runs: it moves when a run is claimed, when the configuration changes, when an override is set, and
    a run stores nothing once it has moved. `due_at` null: no run is due (held by an override without an end).
    `override_id` names the report of the override that holds F, until `held_until` (null: without an end).
    `base_cadence_seconds` is an admin's wish; `cadence_seconds` what was chosen last.
    """

    asset_id = fields.BigIntField(primary_key=True, generated=False)
    method = fields.TextField()
    configuration = fields.TextField(null=True)
    version = fields.IntField(default=1, db_default=1)
    base_cadence_seconds = fields.IntField(null=True)
    cadence_seconds = fields.IntField()
    run_id = fields.BigIntField(default=0, db_default=0)
    due_at = fields.DatetimeField(null=True)
    claimed_until = fields.DatetimeField(null=True)
    requested_at = fields.DatetimeField(null=True)
    last_run_at = fields.DatetimeField(null=True)
    last_accepted_at = fields.DatetimeField(null=True)
    failures = fields.IntField(default=0, db_default=0)
    last_error = fields.TextField(null=True)
    override_id = fields.BigIntField(null=True)
    held_until = fields.DatetimeField(null=True)

    class Meta:
        table = "oracles"


class OracleLog(Model):
    """A reading, taken or not. What was judged (`inputs`, JSON) and the verdict on it never change; `outcome` is the
    verdict's until a quarantine ends, and `resolution` says how it did.

    `position` is its place in the stream of reports: gapless when given, in commit order, given anew when the outcome
    changes. `suggested_price` and `fundamental_before` in 10^-12, `delta_percent` in 10^-9 percent, `confidence` in
    10^-9, `move` (by how much F moves, up or down) in 10^-9 of F, `cost` in 10^-6 US dollars. `reasons` are separated
    by blanks. `figure` is the exact value that the reading stands for, in its unit. `event_seq` is the oracle event
    that came of it; `fundamental_after` is copied from it before events as old as that are pruned. `expires_at`: of a
    quarantine or an override.
    """

    id = fields.BigIntField(primary_key=True, generated=True)
    position = fields.BigIntField()
    asset_id = fields.BigIntField()
    run_id = fields.BigIntField(null=True)
    at = fields.DatetimeField()
    method = fields.TextField()
    verdict = fields.TextField()
    outcome = fields.TextField()
    reasons = fields.TextField(default="", db_default="")
    delta_percent = BaseUnitsField(null=True)
    suggested_price = BaseUnitsField(null=True)
    figure = fields.TextField(null=True)
    confidence = fields.BigIntField(null=True)
    summary = fields.TextField(null=True)
    fundamental_before = BaseUnitsField()
    fundamental_after = BaseUnitsField(null=True)
    move = fields.BigIntField(default=0, db_default=0)
    event_seq = fields.BigIntField(null=True)
    model = fields.TextField(null=True)
    prompt_hash = fields.TextField(null=True)
    inputs = fields.TextField(null=True)
    cost = fields.BigIntField(default=0, db_default=0)
    latency_ms = fields.IntField(null=True)
    expires_at = fields.DatetimeField(null=True)
    resolution = fields.TextField(null=True)
    resolved_at = fields.DatetimeField(null=True)
    resolved_by = fields.TextField(null=True)
    reason = fields.TextField(null=True)

    class Meta:
        table = "oracle_logs"


class OracleEvidence(Model):
    """A page or a feed's answer that a reading was judged by, in its order. `source` is the registrable domain, or the
    feed's own name; `value` a decimal text, what was read there; `counts`: whether the figure rests on it.
    `content_hash` is the SHA-256 of the text in `oracle_texts` (of the excerpt itself for a feed)."""

    id = fields.BigIntField(primary_key=True, generated=True)
    log_id = fields.BigIntField()
    asset_id = fields.BigIntField()
    ordinal = fields.IntField()
    source = fields.TextField()
    url = fields.TextField()
    title = fields.TextField(null=True)
    excerpt = fields.TextField()
    content_hash = fields.TextField()
    retrieved_at = fields.DatetimeField()
    value = fields.TextField(null=True)
    counts = fields.BooleanField()
    body_url = fields.TextField(null=True)

    class Meta:
        table = "oracle_evidence"


class OracleText(Model):
    """The text of a page as it was judged, once for each content: the SHA-256 of its UTF-8 bytes, in hexadecimal."""

    content_hash = fields.CharField(max_length=64, primary_key=True, generated=False)
    text = fields.TextField()
    stored_at = fields.DatetimeField()

    class Meta:
        table = "oracle_texts"


class OracleUsage(Model):
    """What was asked of a provider in a UTC day: the truth behind the daily budgets. `cost` in 10^-6 US dollars."""

    id = fields.BigIntField(primary_key=True, generated=True)
    provider = fields.TextField()
    day = fields.DateField()
    requests = fields.BigIntField(default=0, db_default=0)
    tokens = fields.BigIntField(default=0, db_default=0)
    cost = fields.BigIntField(default=0, db_default=0)

    class Meta:
        table = "oracle_usage"


class Alert(Model):
    """Something that somebody should look at, from when it was raised until it was over. One open at most of each kind
    and asset."""

    id = fields.BigIntField(primary_key=True, generated=True)
    kind = fields.TextField()
    asset_id = fields.BigIntField()
    detail = fields.TextField()
    raised_at = fields.DatetimeField()
    resolved_at = fields.DatetimeField(null=True)

    class Meta:
        table = "alerts"
