"""The benchmarks' market: a durable PostgreSQL of its own, 1,000 funded accounts with sessions, one hot asset."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta

from app.accounts.principals import AccountPrincipal, Credential, Scope
from app.accounts.tokens import TokenKind, new_token
from app.clock import now
from app.db import Connection, Database, migrate
from app.ledger.journal import (
    Journal,
    LedgerKind,
    TransferReason,
    load_balances,
    lock_platform_balance,
    open_ledger_accounts,
    reserve_ids,
)
from app.local.postgres import EmbeddedPostgres, ephemeral_postgres
from app.local.valkey import EmbeddedValkey, ephemeral_valkey
from app.money import MONEY_UNIT
from app.settings import Environment, Settings

ACCOUNTS = 1_000
FUNDS = 10**9 * MONEY_UNIT


@dataclass(frozen=True, slots=True)
class Trader:
    """A funded account, its principal and the token of its session."""

    principal: AccountPrincipal
    token: str


@dataclass(frozen=True)
class Servers:
    """The servers under test."""

    postgres: EmbeddedPostgres
    valkey: EmbeddedValkey

    def settings(self) -> Settings:
        """Production settings but for the environment's name, with limits that this load never reaches."""
        return Settings.model_validate(
            {
                "env": Environment.PRODUCTION,
                "database_url": self.postgres.dsn,
                "redis_url": self.valkey.url,
                "rate_limit_per_ip_minute": 10**9,
                "rate_limit_per_account_minute": 10**9,
                "log_level": "WARNING",
            }
        )


@contextmanager
def servers() -> Iterator[Servers]:
    """A durable PostgreSQL and a Valkey in a temporary folder."""
    with ExitStack() as stack:
        postgres = stack.enter_context(ephemeral_postgres(durable=True))
        valkey = stack.enter_context(ephemeral_valkey(durable=True))
        yield Servers(postgres, valkey)


async def prepare(settings: Settings) -> tuple[Database, list[Trader]]:
    """Migrate, open accounts and sessions, fund them."""
    await migrate(settings)
    database = await Database.open(settings)
    async with database.transaction() as unit:
        traders = [await _trader(unit.connection, number) for number in range(ACCOUNTS)]
        await _fund(unit.connection, [trader.principal.account_id for trader in traders])
    return database, traders


async def _trader(connection: Connection, number: int) -> Trader:
    token = new_token(TokenKind.SESSION)
    account_id = await connection.fetchval(
        "INSERT INTO accounts (email, password_hash, created_at) VALUES ($1, 'none', now()) RETURNING id",
        f"trader{number}@bench.example",
    )
    session_id = await connection.fetchval(
        "INSERT INTO sessions (token_hash, account_id, created_at, expires_at) VALUES ($1, $2, now(), $3) RETURNING id",
        token.digest,
        account_id,
        now() + timedelta(days=1),
    )
    for currency in ("USDC", "USDT"):
        await open_ledger_accounts(
            connection, currency=currency, kinds=(LedgerKind.AVAILABLE, LedgerKind.HELD), account_id=account_id
        )
    return Trader(AccountPrincipal(account_id, Credential("session", session_id), frozenset(Scope)), token.text)


async def _fund(connection: Connection, account_ids: list[int]) -> None:
    balances = await load_balances(connection, account_ids=account_ids, currencies=["USDC"])
    available = [balance for balance in balances if balance.kind is LedgerKind.AVAILABLE]
    source = await lock_platform_balance(connection, kind=LedgerKind.DEVELOPMENT, currency="USDC")
    ids = await reserve_ids(connection, sequence="transfers_id_seq", count=len(available))
    journal = Journal(at=now(), transfer_ids=ids)
    for balance in available:
        journal.post(
            reason=TransferReason.DEV_FUND,
            ref=f"Account:{balance.account_id}",
            legs=((source, -FUNDS), (balance, FUNDS)),
        )
    await journal.write(connection)


async def new_asset(database: Database, symbol: str) -> int:
    """An open asset on the default curve (P0 = 1, k = 0.005, fee 0.5 %)."""
    async with database.transaction() as unit:
        asset_id: int = await unit.connection.fetchval(
            "INSERT INTO assets (symbol, name, description, category, status, quote_currency, base_price, slope,"
            " fee_rate, min_notional, fundamental_weight, volume_scale, volume_half_life_seconds, created_at)"
            " VALUES ($1, $1, 'hot', 'BENCH', 'OPEN', 'USDC', 1000000000000, 5000000000000000, 5000000, 10000,"
            " 200000000, 1000000000, 900, now()) RETURNING id",
            symbol,
        )
        for kind, currency in (
            (LedgerKind.BACKING, "USDC"),
            (LedgerKind.SURPLUS, "USDC"),
            (LedgerKind.LP_CAPITAL, "USDC"),
            (LedgerKind.ISSUED, symbol),
        ):
            await open_ledger_accounts(unit.connection, currency=currency, kinds=(kind,), asset_id=asset_id)
    return asset_id
