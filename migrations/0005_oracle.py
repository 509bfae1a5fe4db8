from tortoise import migrations
from tortoise.migrations import operations as ops
from models.fields import BaseUnitsField
from tortoise import fields


class Migration(migrations.Migration):
    dependencies = [("models", "0004_price_history")]

    initial = False

    operations = [
        ops.CreateModel(
            name="Alert",
            fields=[
                ("id", fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
                ("kind", fields.TextField(unique=False)),
                ("asset_id", fields.BigIntField()),
                ("detail", fields.TextField(unique=False)),
                ("raised_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("resolved_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "alerts",
                "app": "models",
                "pk_attr": "id",
                "table_description": "Something that somebody should look at, from when it was raised until it was over. One open at most of each kind",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="Oracle",
            fields=[
                ("asset_id", fields.BigIntField(generated=False, primary_key=True, unique=True, db_index=True)),
                ("method", fields.TextField(unique=False)),
                ("configuration", fields.TextField(null=True, unique=False)),
                ("version", fields.IntField(default=1, db_default=1)),
                ("base_cadence_seconds", fields.IntField(null=True)),
                ("cadence_seconds", fields.IntField()),
                ("run_id", fields.BigIntField(default=0, db_default=0)),
                ("due_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("claimed_until", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("requested_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("last_run_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("last_accepted_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("failures", fields.IntField(default=0, db_default=0)),
                ("last_error", fields.TextField(null=True, unique=False)),
                ("override_id", fields.BigIntField(null=True)),
                ("held_until", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "oracles",
                "app": "models",
                "pk_attr": "asset_id",
                "table_description": "An asset's oracle: its configuration (JSON; null where there are only overrides), and where its schedule stands.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="OracleEvidence",
            fields=[
                ("id", fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
                ("log_id", fields.BigIntField()),
                ("asset_id", fields.BigIntField()),
                ("ordinal", fields.IntField()),
                ("source", fields.TextField(unique=False)),
                ("url", fields.TextField(unique=False)),
                ("title", fields.TextField(null=True, unique=False)),
                ("excerpt", fields.TextField(unique=False)),
                ("content_hash", fields.TextField(unique=False)),
                ("retrieved_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("value", fields.TextField(null=True, unique=False)),
                ("counts", fields.BooleanField()),
                ("body_url", fields.TextField(null=True, unique=False)),
            ],
            options={
                "table": "oracle_evidence",
                "app": "models",
                "pk_attr": "id",
                "table_description": "A page or a feed's answer that a reading was judged by, in its order. `source` is the registrable domain, or the",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="OracleLog",
            fields=[
                ("id", fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
                ("position", fields.BigIntField()),
                ("asset_id", fields.BigIntField()),
                ("run_id", fields.BigIntField(null=True)),
                ("at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("method", fields.TextField(unique=False)),
                ("verdict", fields.TextField(unique=False)),
                ("outcome", fields.TextField(unique=False)),
                ("reasons", fields.TextField(default="", db_default="", unique=False)),
                ("delta_percent", BaseUnitsField(null=True, generated=False, unique=False)),
                ("suggested_price", BaseUnitsField(null=True, generated=False, unique=False)),
                ("figure", fields.TextField(null=True, unique=False)),
                ("confidence", fields.BigIntField(null=True)),
                ("summary", fields.TextField(null=True, unique=False)),
                ("fundamental_before", BaseUnitsField(generated=False, null=False, unique=False)),
                ("fundamental_after", BaseUnitsField(null=True, generated=False, unique=False)),
                ("move", fields.BigIntField(default=0, db_default=0)),
                ("event_seq", fields.BigIntField(null=True)),
                ("model", fields.TextField(null=True, unique=False)),
                ("prompt_hash", fields.TextField(null=True, unique=False)),
                ("inputs", fields.TextField(null=True, unique=False)),
                ("cost", fields.BigIntField(default=0, db_default=0)),
                ("latency_ms", fields.IntField(null=True)),
                ("expires_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("resolution", fields.TextField(null=True, unique=False)),
                ("resolved_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("resolved_by", fields.TextField(null=True, unique=False)),
                ("reason", fields.TextField(null=True, unique=False)),
            ],
            options={
                "table": "oracle_logs",
                "app": "models",
                "pk_attr": "id",
                "table_description": "A reading, taken or not. What was judged (`inputs`, JSON) and the verdict on it never change; `outcome` is the",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="OracleText",
            fields=[
                (
                    "content_hash",
                    fields.CharField(generated=False, primary_key=True, unique=True, db_index=True, max_length=64),
                ),
                ("text", fields.TextField(unique=False)),
                ("stored_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "oracle_texts",
                "app": "models",
                "pk_attr": "content_hash",
                "table_description": "The text of a page as it was judged, once for each content: the SHA-256 of its UTF-8 bytes, in hexadecimal.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="OracleUsage",
            fields=[
                ("id", fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
                ("provider", fields.TextField(unique=False)),
                ("day", fields.DateField()),
                ("requests", fields.BigIntField(default=0, db_default=0)),
                ("tokens", fields.BigIntField(default=0, db_default=0)),
                ("cost", fields.BigIntField(default=0, db_default=0)),
            ],
            options={
                "table": "oracle_usage",
                "app": "models",
                "pk_attr": "id",
                "table_description": "What was asked of a provider in a UTC day: the truth behind the daily budgets. `cost` in 10^-6 US dollars.",
            },
            bases=["Model"],
        ),
        ops.AddField(
            model_name="OracleEvent",
            name="fundamental_after",
            field=BaseUnitsField(null=True, generated=False, unique=False),
        ),
        ops.AlterModelOptions(
            name="SeriesReplay",
            options={
                "table": "series_replays",
                "app": "models",
                "pk_attr": "id",
                "table_description": "Where the replay of a bundled series stands, for an asset whose oracle follows it.",
            },
        ),
        ops.AlterField(
            model_name="SeriesReplay",
            name="asset_id",
            field=fields.BigIntField(),
        ),
        ops.RemoveField(model_name="SeriesReplay", name="offset"),
        ops.RemoveField(model_name="SeriesReplay", name="scale"),
    ]
