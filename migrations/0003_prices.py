from tortoise import migrations
from tortoise.migrations import operations as ops
from models.fields import BaseUnitsField
from tortoise import fields


class Migration(migrations.Migration):
    dependencies = [("models", "0002_constraints")]

    initial = False

    operations = [
        ops.CreateModel(
            name="OracleEvent",
            fields=[
                ("id", fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
                ("asset_id", fields.BigIntField()),
                ("seq", fields.BigIntField()),
                ("at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("kind", fields.TextField(unique=False)),
                ("value", BaseUnitsField(null=True, generated=False, unique=False)),
                ("cadence_seconds", fields.IntField()),
                ("fresh_seconds", fields.IntField()),
            ],
            options={
                "table": "oracle_events",
                "app": "models",
                "pk_attr": "id",
                "table_description": "What the oracle says to the price engine; `seq` is gapless per asset.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="PriceState",
            fields=[
                ("asset_id", fields.BigIntField(generated=False, primary_key=True, unique=True, db_index=True)),
                ("owner_id", fields.BigIntField(null=True)),
                ("seq", fields.BigIntField(default=0, db_default=0)),
                ("position", fields.BigIntField(default=0, db_default=0)),
                ("cause", fields.TextField(default="OPEN", db_default="OPEN", unique=False)),
                ("trade_seq", fields.BigIntField(default=0, db_default=0)),
                ("oracle_seq", fields.BigIntField(default=0, db_default=0)),
                ("at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("display", BaseUnitsField(generated=False, null=False, unique=False)),
                ("market", BaseUnitsField(generated=False, null=False, unique=False)),
                ("fundamental", BaseUnitsField(generated=False, null=False, unique=False)),
                ("market_weight", fields.BigIntField()),
                ("volume", fields.BigIntField(default=0, db_default=0)),
                ("stale", fields.BooleanField(default=False, db_default=False)),
                ("recent_volume", BaseUnitsField(default=0, db_default=0, generated=False, null=False, unique=False)),
                ("recent_volume_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("reading_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("cadence_seconds", fields.IntField(null=True)),
                ("fresh_seconds", fields.IntField(null=True)),
                ("open_candles", fields.TextField(default="[]", db_default="[]", unique=False)),
            ],
            options={
                "table": "price_states",
                "app": "models",
                "pk_attr": "asset_id",
                "table_description": "Where the engine stands with one asset: its last tick, what the next one is computed from, and who may write.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="PriceWorker",
            fields=[
                ("id", fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
                ("label", fields.TextField(unique=False)),
                ("started_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("lease_until", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "price_workers",
                "app": "models",
                "pk_attr": "id",
                "table_description": "A running price worker. Its id fences its writes; `lease_until` (the database's clock) says how long it counts",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="StreamHead",
            fields=[
                ("stream", fields.CharField(max_length=32, primary_key=True, unique=True, db_index=True)),
                ("position", fields.BigIntField(default=0, db_default=0)),
            ],
            options={
                "table": "stream_heads",
                "app": "models",
                "pk_attr": "stream",
                "table_description": "The last position given in a stream. Whoever moves it holds its row until the commit: positions are gapless and",
            },
            bases=["Model"],
        ),
    ]
