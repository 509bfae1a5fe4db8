"""Prices: what the engine's writers hold and where each asset stands, and the readings that move F.

`ticks` and `candles` are partitioned by time, and they and `account_events` have keys of several columns. Tortoise can
say neither: these three tables stand in the migrations alone.
"""

from tortoise import fields
from tortoise.models import Model

from models.fields import BaseUnitsField


class PriceWorker(Model):
    """A running price worker. Its id fences its writes; `lease_until` (the database's clock) says how long it counts
    as alive without a sign of life."""

    id = fields.BigIntField(primary_key=True, generated=True)
    label = fields.TextField()
    started_at = fields.DatetimeField()
    lease_until = fields.DatetimeField()

    class Meta:
        table = "price_workers"


class PriceState(Model):
    """Where the engine stands with one asset: its last tick, what the next one is computed from, and who may write.

    Prices in 10^-12, weights in 10^-9, `volume` (of the last tick) in 10^-6, `recent_volume` (decayed, as of
    `recent_volume_at`) in 10^-12. `position` is the last tick's place in the stream of all ticks. `reading_at`,
    `cadence_seconds` and `fresh_seconds` are the last oracle event's that moved or refreshed F. `open_candles` are
    the candles that are not over yet, which the table `candles` does not have.
    """

    asset_id = fields.BigIntField(primary_key=True, generated=False)
    owner_id = fields.BigIntField(null=True)
    seq = fields.BigIntField(default=0, db_default=0)
    position = fields.BigIntField(default=0, db_default=0)
    cause = fields.TextField(default="OPEN", db_default="OPEN")
    trade_seq = fields.BigIntField(default=0, db_default=0)
    oracle_seq = fields.BigIntField(default=0, db_default=0)
    at = fields.DatetimeField()
    display = BaseUnitsField()
    market = BaseUnitsField()
    fundamental = BaseUnitsField()
    market_weight = fields.BigIntField()
    volume = fields.BigIntField(default=0, db_default=0)
    stale = fields.BooleanField(default=False, db_default=False)
    recent_volume = BaseUnitsField(default=0, db_default=0)
    recent_volume_at = fields.DatetimeField()
    reading_at = fields.DatetimeField(null=True)
    cadence_seconds = fields.IntField(null=True)
    fresh_seconds = fields.IntField(null=True)
    open_candles = fields.TextField(default="[]", db_default="[]")

    class Meta:
        table = "price_states"


class StreamHead(Model):
    """The last position given in a stream. Whoever moves it holds its row until the commit: positions are gapless and
    in commit order."""

    stream = fields.CharField(max_length=32, primary_key=True, generated=False)
    position = fields.BigIntField(default=0, db_default=0)

    class Meta:
        table = "stream_heads"


class OracleEvent(Model):
    """What the oracle says to the price engine; `seq` is gapless per asset.

    `kind`: READING enters the average F = b*value + (1-b)*F; OVERRIDE sets F at once; REFRESH keeps F as it is and
    counts as a reading for its freshness. `value` is a price in 10^-12, null for REFRESH. F counts as fresh for
    `fresh_seconds` after `at`; after that w rises to 1 over `cadence_seconds`. `fundamental_after` is F once the engine
    has taken the event, null until then.
    """

    id = fields.BigIntField(primary_key=True, generated=True)
    asset_id = fields.BigIntField()
    seq = fields.BigIntField()
    at = fields.DatetimeField()
    kind = fields.TextField()
    value = BaseUnitsField(null=True)
    cadence_seconds = fields.IntField()
    fresh_seconds = fields.IntField()
    fundamental_after = BaseUnitsField(null=True)

    class Meta:
        table = "oracle_events"
