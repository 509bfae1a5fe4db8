"""The double-entry ledger's tables. Transfers and entries are facts: triggers refuse to change or delete them."""

from tortoise import fields
from tortoise.models import Model

from models.fields import BaseUnitsField


class LedgerAccount(Model):
    """One balance in one currency. `currency` is USDC, USDT or an asset's symbol: its shares are a currency too.

    `kind`: AVAILABLE and HELD belong to an account; BACKING, SURPLUS, LP_CAPITAL and ISSUED (negative) to an asset;
    TREASURY, CUSTODY (negative) and DEVELOPMENT (negative) to the platform, one for each stablecoin.
    `balance` and `version` equal those of the newest entry; `version` counts entries without gaps.
    """

    id = fields.BigIntField(primary_key=True, generated=True)
    kind = fields.TextField()
    currency = fields.TextField()
    account_id = fields.BigIntField(null=True)
    asset_id = fields.BigIntField(null=True)
    balance = BaseUnitsField(default=0, db_default=0)
    version = fields.BigIntField(default=0, db_default=0)

    class Meta:
        table = "ledger_accounts"


class Transfer(Model):
    """`entry_count` entries that sum to zero in every currency. `ref` names the cause, such as "Trade:3:17"."""

    id = fields.BigIntField(primary_key=True, generated=True)
    reason = fields.TextField()
    ref = fields.TextField(null=True)
    entry_count = fields.SmallIntField()
    at = fields.DatetimeField()

    class Meta:
        table = "transfers"


class Entry(Model):
    """One leg of a transfer: `amount` (never 0) and the balance and version that it left behind.

    `account_id` repeats the ledger account's owner, null for assets and platform, for an account's own statement.
    """

    id = fields.BigIntField(primary_key=True, generated=True)
    transfer_id = fields.BigIntField()
    ledger_account_id = fields.BigIntField()
    account_id = fields.BigIntField(null=True)
    version = fields.BigIntField()
    amount = BaseUnitsField()
    balance_after = BaseUnitsField()

    class Meta:
        table = "entries"
