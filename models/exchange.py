"""What is traded and what came of it: assets, orders, trades, positions."""

from tortoise import fields
from tortoise.models import Model

from models.accounts import Account
from models.fields import BaseUnitsField


class Asset(Model):
    """A synthetic stock or index on its own bonding curve.

    Prices in 10^-12, slope in 10^-18, rates in 10^-9, shares in 10^-9, money in 10^-6. `supply`, `backing`, `surplus`
    and `lp_capital` repeat the balances of the asset's ledger accounts, so that one row is a consistent snapshot and
    a CHECK can hold `backing` to the curve's integral.
    """

    id = fields.BigIntField(primary_key=True, generated=True)
    symbol = fields.CharField(max_length=16, unique=True)
    name = fields.TextField()
    description = fields.TextField()
    category = fields.TextField()
    status = fields.TextField()
    status_reason = fields.TextField(null=True)
    quote_currency = fields.TextField()
    base_price = BaseUnitsField()
    slope = BaseUnitsField()
    fee_rate = fields.BigIntField()
    min_notional = fields.BigIntField()
    max_shares_per_account = BaseUnitsField(null=True)
    max_redemption_per_day = fields.BigIntField(null=True)
    fundamental_weight = fields.BigIntField()
    volume_scale = fields.BigIntField()
    volume_half_life_seconds = fields.IntField()
    supply = BaseUnitsField(default=0, db_default=0)
    backing = fields.BigIntField(default=0, db_default=0)
    surplus = fields.BigIntField(default=0, db_default=0)
    lp_capital = fields.BigIntField(default=0, db_default=0)
    trade_seq = fields.BigIntField(default=0, db_default=0)
    last_trade_at = fields.DatetimeField(null=True)
    created_at = fields.DatetimeField()

    class Meta:
        table = "assets"


class Order(Model):
    """What an account asked for and what came of it, refusals decided under the lock included.

    (account, client_order_id) is the idempotency key and `input_hash` the SHA-256 of the parsed input.
    `refusal` is the stored reason of a REJECTED order.
    """

    id = fields.BigIntField(primary_key=True, generated=True)
    account: fields.ForeignKeyRelation[Account] = fields.ForeignKeyField(
        "models.Account", related_name="orders", on_delete=fields.RESTRICT
    )
    asset: fields.ForeignKeyRelation[Asset] = fields.ForeignKeyField(
        "models.Asset", related_name="orders", on_delete=fields.RESTRICT
    )
    client_order_id = fields.TextField()
    input_hash = fields.BinaryField()
    side = fields.TextField()
    type = fields.TextField()
    time_in_force = fields.TextField()
    status = fields.TextField()
    limit_price = BaseUnitsField(null=True)
    shares = BaseUnitsField(null=True)
    amount = fields.BigIntField(null=True)
    filled_shares = BaseUnitsField(default=0, db_default=0)
    gross = fields.BigIntField(default=0, db_default=0)
    fee = fields.BigIntField(default=0, db_default=0)
    refusal: fields.Field[dict[str, object] | None] = fields.JSONField(null=True)
    created_at = fields.DatetimeField()
    updated_at = fields.DatetimeField()

    class Meta:
        table = "orders"


class Trade(Model):
    """One execution against the curve. `seq` is gapless per asset; `*_after` is the state that it left."""

    id = fields.BigIntField(primary_key=True, generated=True)
    asset: fields.ForeignKeyRelation[Asset] = fields.ForeignKeyField(
        "models.Asset", related_name="trades", on_delete=fields.RESTRICT
    )
    seq = fields.BigIntField()
    account: fields.ForeignKeyRelation[Account] = fields.ForeignKeyField(
        "models.Account", related_name="trades", on_delete=fields.RESTRICT
    )
    order: fields.ForeignKeyRelation[Order] = fields.ForeignKeyField(
        "models.Order", related_name="trades", on_delete=fields.RESTRICT
    )
    side = fields.TextField()
    shares = BaseUnitsField()
    gross = fields.BigIntField()
    fee = fields.BigIntField()
    supply_after = BaseUnitsField()
    market_after = BaseUnitsField()
    transfer_id = fields.BigIntField()
    at = fields.DatetimeField()

    class Meta:
        table = "trades"


class Position(Model):
    """An account's holding in an asset, at average cost (buy fees included).

    `shares` equals the sum of its AVAILABLE and HELD ledger accounts. `redeemed` is the gross sold for on
    `redeemed_on` (UTC).
    """

    id = fields.BigIntField(primary_key=True, generated=True)
    account: fields.ForeignKeyRelation[Account] = fields.ForeignKeyField(
        "models.Account", related_name="positions", on_delete=fields.RESTRICT
    )
    asset: fields.ForeignKeyRelation[Asset] = fields.ForeignKeyField(
        "models.Asset", related_name="positions", on_delete=fields.RESTRICT
    )
    shares = BaseUnitsField(default=0, db_default=0)
    cost_basis = fields.BigIntField(default=0, db_default=0)
    realized_pnl = fields.BigIntField(default=0, db_default=0)
    redeemed_on = fields.DateField(null=True)
    redeemed = fields.BigIntField(default=0, db_default=0)

    class Meta:
        table = "positions"
