"""A market to break: accounts, an admin and assets, made through the API itself."""

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.conftest import ADMIN_PASSWORD
from tests.faults import operations
from tests.faults.client import Client, Json

PASSWORD = "a password that nobody guesses"
SIGN_UPS_AT_ONCE = 4
_numbers = itertools.count(1)


@dataclass(slots=True)
class Trader:
    """An account: its node id and its session's token."""

    account_id: str
    email: str
    token: str


@dataclass(slots=True)
class Population:
    """Who and what there is."""

    admin_token: str
    traders: list[Trader] = field(default_factory=list)
    asset_ids: list[str] = field(default_factory=list)


async def sign_up(client: Client) -> Trader:
    """A new account."""
    email = f"fault-{next(_numbers)}@example.com"
    reply = await client.run(operations.SIGN_UP, {"input": {"email": email, "password": PASSWORD}})
    payload = reply.payload("signUp")
    assert payload["userErrors"] == []
    return Trader(payload["viewer"]["id"], email, payload["session"]["token"])


async def log_in_admin(client: Client) -> str:
    """The token of a new admin session."""
    reply = await client.run(operations.ADMIN_LOG_IN, {"input": {"password": ADMIN_PASSWORD}})
    token: str = reply.payload("adminLogIn")["session"]["token"]
    return token


def asset_input(number: int, **values: object) -> Json:
    """The input of a new asset with texts of its own."""
    return {
        "symbol": f"F{number}", "name": f"Fault {number}", "description": "To be broken.", "category": "TEST",
        "idempotencyKey": f"asset-{number}", **values,
    }  # fmt: skip


async def create_asset(client: Client, admin_token: str, **values: object) -> str:
    """A new asset; answers its node id."""
    admin = client.with_token(admin_token)
    reply = await admin.run(operations.ASSET_CREATE, {"input": asset_input(next(_numbers), **values)})
    await admin.close()
    payload = reply.payload("assetCreate")
    assert payload["userErrors"] == []
    asset_id: str = payload["asset"]["id"]
    return asset_id


async def fund(client: Client, trader: Trader, amount: int, currency: str) -> None:
    """Test funds for an account."""
    caller = client.with_token(trader.token)
    funds = {"currency": currency, "amount": str(amount), "idempotencyKey": f"fund-{next(_numbers)}"}
    reply = await caller.run(operations.DEV_FUND, {"input": funds})
    await caller.close()
    assert reply.refusals("devFund") == []


async def populate(url: str, *, traders: int, assets: Sequence[Json], funds: Mapping[str, int]) -> Population:
    """Sign up `traders`, each with `funds` of the currencies named, and make `assets` (values beside their texts)."""
    client = Client(url)
    population = Population(await log_in_admin(client))
    for values in assets:
        population.asset_ids.append(await create_asset(client, population.admin_token, **values))

    at_once = asyncio.Semaphore(SIGN_UPS_AT_ONCE)

    async def one() -> Trader:
        own = Client(url)
        async with at_once:
            trader = await sign_up(own)
        await own.close()
        for currency, amount in funds.items():
            await fund(client, trader, amount, currency)
        return trader

    population.traders.extend(await asyncio.gather(*(one() for _ in range(traders))))
    await client.close()
    return population
