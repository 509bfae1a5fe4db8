"""Tortoise models: fields, constraints, indexes. No behaviour. What Tortoise cannot say stands in migrations as SQL."""

from models.accounts import Account, ApiKey, AssetRequest, IdempotencyKey, Session
from models.exchange import Asset, Order, Position, Trade
from models.ledger import Entry, LedgerAccount, Transfer
from models.oracle import Alert, Oracle, OracleEvidence, OracleLog, OracleText, OracleUsage
from models.platform import AuditEntry, Platform, SeriesReplay
from models.pricing import OracleEvent, PriceState, PriceWorker, StreamHead

__all__ = [
    "Account",
    "Alert",
    "ApiKey",
    "Asset",
    "AssetRequest",
    "AuditEntry",
    "Entry",
    "IdempotencyKey",
    "LedgerAccount",
    "Oracle",
    "OracleEvent",
    "OracleEvidence",
    "OracleLog",
    "OracleText",
    "OracleUsage",
    "Order",
    "Platform",
    "Position",
    "PriceState",
    "PriceWorker",
    "SeriesReplay",
    "Session",
    "StreamHead",
    "Trade",
    "Transfer",
]
