"""Who takes part: accounts, their sessions and API keys, what they ask for, and idempotency keys."""

from tortoise import fields
from tortoise.contrib.postgres.fields import ArrayField
from tortoise.models import Model


class Account(Model):
    """A customer. `email` is normalised; a frozen account reads and moves nothing."""

    id = fields.BigIntField(primary_key=True, generated=True)
    email = fields.CharField(max_length=254, unique=True)
    password_hash = fields.TextField()
    frozen = fields.BooleanField(default=False, db_default=False)
    created_at = fields.DatetimeField()

    class Meta:
        table = "accounts"


class Session(Model):
    """A log-in of an account or of an admin (exactly one of the two). Only the token's SHA-256 is stored."""

    id = fields.BigIntField(primary_key=True, generated=True)
    token_hash = fields.BinaryField()
    account: fields.ForeignKeyNullableRelation[Account] = fields.ForeignKeyField(
        "models.Account", related_name="sessions", on_delete=fields.RESTRICT, null=True
    )
    admin_name = fields.TextField(null=True)
    created_at = fields.DatetimeField()
    expires_at = fields.DatetimeField()
    revoked_at = fields.DatetimeField(null=True)

    class Meta:
        table = "sessions"


class ApiKey(Model):
    """A bot's credential. Scopes are READ, TRADE, WITHDRAW; only the secret's SHA-256 is stored."""

    id = fields.BigIntField(primary_key=True, generated=True)
    account: fields.ForeignKeyRelation[Account] = fields.ForeignKeyField(
        "models.Account", related_name="api_keys", on_delete=fields.RESTRICT
    )
    name = fields.TextField()
    prefix = fields.TextField()
    token_hash = fields.BinaryField()
    scopes = ArrayField(element_type="text")
    created_at = fields.DatetimeField()
    last_used_at = fields.DatetimeField(null=True)
    revoked_at = fields.DatetimeField(null=True)

    class Meta:
        table = "api_keys"


class AssetRequest(Model):
    """An account's wish for an asset, and what an admin made of it: PENDING, APPROVED or REJECTED."""

    id = fields.BigIntField(primary_key=True, generated=True)
    account: fields.ForeignKeyRelation[Account] = fields.ForeignKeyField(
        "models.Account", related_name="asset_requests", on_delete=fields.RESTRICT
    )
    name = fields.TextField()
    description = fields.TextField()
    source_hint = fields.TextField(null=True)
    status = fields.TextField()
    admin_notes = fields.TextField(null=True)
    asset_id = fields.BigIntField(null=True)
    created_at = fields.DatetimeField()

    class Meta:
        table = "asset_requests"


class IdempotencyKey(Model):
    """The first outcome of a keyed mutation other than orderPlace, whose orders carry their own key.

    `owner` is "account:<id>" or "admin:<name>"; `outcome` is what the use case needs to answer it again.
    """

    id = fields.BigIntField(primary_key=True, generated=True)
    owner = fields.TextField()
    mutation = fields.TextField()
    key = fields.TextField()
    input_hash = fields.BinaryField()
    outcome: fields.Field[dict[str, object]] = fields.JSONField()
    created_at = fields.DatetimeField()

    class Meta:
        table = "idempotency_keys"
