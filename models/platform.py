"""The platform's own state: which environment it is, whether trading is paused, and what admins did."""

from tortoise import fields
from tortoise.models import Model


class Platform(Model):
    """The one row (id 1) of platform-wide state. `environment` is written once, when the database is made."""

    id = fields.SmallIntField(primary_key=True, generated=False)
    environment = fields.TextField()
    trading_paused = fields.BooleanField(default=False, db_default=False)
    reason = fields.TextField(null=True)

    class Meta:
        table = "platform"


class AuditEntry(Model):
    """One admin action. Ids are gapless from 1; `hash` covers the row and the hash before it."""

    id = fields.BigIntField(primary_key=True, generated=False)
    at = fields.DatetimeField()
    actor = fields.TextField()
    action = fields.TextField()
    target = fields.TextField()
    reason = fields.TextField(null=True)
    before = fields.TextField(null=True)
    after = fields.TextField(null=True)
    previous_hash = fields.TextField()
    hash = fields.TextField()

    class Meta:
        table = "audit_log"


class SeriesReplay(Model):
    """Where the replay of a bundled series stands, for an asset whose oracle follows it.

    `position_ms` is the replayed time since the series began; it grows by `speed` milliseconds for each of real time
    since `advanced_at` while the replay runs, and runs back where the series ends.
    """

    id = fields.BigIntField(primary_key=True, generated=True)
    asset_id = fields.BigIntField()
    series = fields.TextField()
    column = fields.TextField()
    speed = fields.BigIntField()
    position_ms = fields.BigIntField(default=0, db_default=0)
    advanced_at = fields.DatetimeField()

    class Meta:
        table = "series_replays"
