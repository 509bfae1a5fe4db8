"""Redis emptied and stopped under load: trading goes on; log-in and sign-up, which nobody could count, are closed."""

import asyncio
from collections.abc import Iterator

import pytest
from redis import Redis

from app.local.valkey import EmbeddedValkey, ephemeral_valkey
from tests.conftest import LiveApi, free_port, run_api
from tests.faults import operations
from tests.faults.answers import stored_orders, told_orders
from tests.faults.client import Client, Json, Reply
from tests.faults.inspection import audited, count
from tests.faults.population import PASSWORD, Population, Trader, populate
from tests.faults.waiting import until

TRADERS = 4
RECOVERY_SECONDS = 15.0


@pytest.fixture
def own_valkey() -> Iterator[EmbeddedValkey]:
    """A Valkey that nobody else uses."""
    with ephemeral_valkey() as server:
        yield server


@pytest.fixture
def limited_api(fresh_database_url: str, own_valkey: EmbeddedValkey) -> Iterator[LiveApi]:
    """An API process with rate limits on, high enough not to be met."""
    limits = {
        "MEGATRON_RATE_LIMITS": "1",
        "MEGATRON_RATE_LIMIT_PER_IP_MINUTE": "1000000",
        "MEGATRON_RATE_LIMIT_PER_ACCOUNT_MINUTE": "1000000",
        "MEGATRON_RATE_LIMIT_LOG_IN_MINUTE": "1000",
        "MEGATRON_RATE_LIMIT_SIGN_UP_HOUR": "1000",
        "MEGATRON_LOG_LEVEL": "ERROR",
    }
    with run_api(database_url=fresh_database_url, redis_url=own_valkey.url, port=free_port(), **limits) as api:
        yield api


class Flow:
    """Orders that flow until they are told to stop; every one of them must be filled."""

    def __init__(self, api: LiveApi, population: Population) -> None:
        self._api = api
        self._population = population
        self._stopping = asyncio.Event()
        self.answers: dict[tuple[str, str], Json] = {}

    async def run(self, trader: Trader) -> None:
        """One account buys, again and again."""
        client = Client(self._api.url, trader.token)
        number = 0
        while not self._stopping.is_set():
            number += 1
            order = {
                "assetId": self._population.asset_ids[0],
                "side": "BUY",
                "amount": "0.5",
                "clientOrderId": f"{number}",
            }
            reply = await client.run(operations.ORDER_PLACE, {"input": order})
            assert reply.refusals("orderPlace") == [], reply.body
            self.answers[trader.account_id, f"{number}"] = reply.payload("orderPlace")
        await client.close()

    async def goes_on(self) -> None:
        """Return once twenty more orders have been filled."""
        least = len(self.answers) + 20
        await until(lambda: len(self.answers) >= least, seconds=RECOVERY_SECONDS)

    def stop(self) -> None:
        """Place no more."""
        self._stopping.set()


async def _sign_up(api: LiveApi, email: str) -> Reply:
    return await _once(api, operations.SIGN_UP, {"input": {"email": email, "password": PASSWORD}})


async def _log_in(api: LiveApi, email: str) -> Reply:
    return await _once(api, operations.LOG_IN, {"input": {"email": email, "password": PASSWORD}})


async def _once(api: LiveApi, document: str, variables: Json) -> Reply:
    client = Client(api.url)
    reply = await client.run(document, variables)
    await client.close()
    return reply


async def test_trading_goes_on_without_redis_and_the_doors_close(
    limited_api: LiveApi, own_valkey: EmbeddedValkey
) -> None:
    population = await populate(limited_api.url, traders=TRADERS, assets=[{}], funds={"USDC": 1_000_000})
    flow = Flow(limited_api, population)
    flowing = [asyncio.create_task(flow.run(trader)) for trader in population.traders]
    try:
        await flow.goes_on()
        with Redis.from_url(own_valkey.url) as redis:
            redis.flushall()
        await flow.goes_on()
        own_valkey.stop()
        await flow.goes_on()
        await _expect_closed(limited_api, population)
        own_valkey.start()
        await _expect_open_again(limited_api, population)
        await flow.goes_on()
    finally:
        flow.stop()
        await asyncio.gather(*flowing)
    assert told_orders(flow.answers) == await stored_orders(limited_api.database_url)
    assert (await audited(limited_api.database_url)).findings == []


async def _expect_closed(api: LiveApi, population: Population) -> None:
    """Neither door opens, whoever knocks, and nothing is made."""
    sessions = await count(api.database_url, "SELECT count(*) FROM sessions")
    for reply in (
        await _log_in(api, population.traders[0].email),
        await _log_in(api, "nobody@example.com"),
        await _sign_up(api, "somebody-new@example.com"),
        await _once(api, operations.ADMIN_LOG_IN, {"input": {"password": "wrong"}}),
    ):
        (error,) = reply.errors
        assert error["extensions"]["code"] == "RATE_LIMITED"
        assert error["extensions"]["retryable"] is True
        assert error["message"].endswith(
            "are closed for a moment, because they cannot be counted: try again in a second."
        )
    assert await count(api.database_url, "SELECT count(*) FROM sessions") == sessions
    assert await count(api.database_url, "SELECT count(*) FROM accounts") == TRADERS


async def _expect_open_again(api: LiveApi, population: Population) -> None:
    """Once Redis is back, so are they, without a restart."""
    end = asyncio.get_running_loop().time() + RECOVERY_SECONDS
    reply = await _log_in(api, population.traders[0].email)
    while reply.error_codes == ["RATE_LIMITED"] and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(reply.errors[0]["extensions"]["retryAfterMs"] / 1000)
        reply = await _log_in(api, population.traders[0].email)
    assert reply.refusals("logIn") == []
    assert (await _sign_up(api, "somebody-new@example.com")).refusals("signUp") == []
