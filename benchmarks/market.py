"""The benchmarks' market: a durable PostgreSQL of its own, 1,000 funded accounts with sessions, one hot asset."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta

from app.accounts.dev_fund import dev_fund
from app.accounts.principals import AccountPrincipal
from app.accounts.sessions import ProvenAdmin, admin_log_in
from app.accounts.sign_up import NewAccount, sign_up
from app.admin.asset_input import NewAsset
from app.admin.assets import create_asset
from app.db import Database, migrate
from app.ledger.currencies import Currency
from app.local.postgres import EmbeddedPostgres, ephemeral_postgres
from app.local.valkey import EmbeddedValkey, ephemeral_valkey
from app.settings import Environment, Settings

ACCOUNTS = 1_000
FUNDS = "1000000000"
SESSION = timedelta(days=1)


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
        """Everything switched on, limits too (which this load never reaches); development, so that funds may exist."""
        return Settings.model_validate(
            {
                "env": Environment.DEVELOPMENT,
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
    """Migrate, sign accounts up and fund them by the platform's own use cases; only the password hashes are blank."""
    await migrate(settings)
    database = await Database.open(settings)
    return database, [await _trader(database, number) for number in range(ACCOUNTS)]


async def _trader(database: Database, number: int) -> Trader:
    account = NewAccount(f"trader{number}@bench.example", "none")
    async with database.transaction() as unit:
        logged_in = await sign_up(unit=unit, account=account, session_lifetime=SESSION)
        outcome = await dev_fund(
            unit=unit,
            principal=logged_in.principal,
            currency=Currency.USDC,
            amount=FUNDS,
            idempotency_key="funds",
            development=True,
        )
    if outcome.refusal is not None:
        raise RuntimeError(f"no funds: {outcome.refusal}")
    return Trader(logged_in.principal, logged_in.session.token)


async def new_asset(database: Database, symbol: str) -> int:
    """An open asset on the default curve (P0 = 1, k = 0.005, fee 0.5 %)."""
    async with database.transaction() as unit:
        admin = await admin_log_in(unit=unit, proven=ProvenAdmin("bench"), lifetime=SESSION)
        outcome = await create_asset(
            unit=unit,
            principal=admin.principal,
            new=NewAsset(symbol=symbol, name=symbol, description="One hot asset.", category="BENCH"),
            request_id=None,
            idempotency_key=symbol,
        )
    if outcome.id is None:
        raise RuntimeError(f"no asset: {outcome.refusal}")
    return outcome.id
