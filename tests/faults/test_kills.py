"""Processes that die under load: what was acknowledged is there, nothing is half done, and the market goes on."""

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from app.local.valkey import EmbeddedValkey
from tests.faults import operations
from tests.faults.answers import stored_orders, told_orders
from tests.faults.client import Client, Json, Lost
from tests.faults.conftest import Say
from tests.faults.inspection import audited, count
from tests.faults.machines import MortalApi, MortalPostgres, mortal_postgres
from tests.faults.population import Population, Trader, populate
from tests.faults.waiting import until

TRADERS = 10
PATIENCE_SECONDS = 60.0
BETWEEN_KILLS = (20, 120)
"""How many acknowledgements lie between two kills."""


@pytest.fixture
def machines(valkey: EmbeddedValkey) -> Iterator[tuple[MortalPostgres, list[MortalApi]]]:
    """A durable PostgreSQL and two API processes."""
    with ExitStack() as stack:
        server = stack.enter_context(mortal_postgres())
        apis = [MortalApi(database_url=server.dsn, redis_url=valkey.url) for _ in range(2)]
        for api in apis:
            stack.callback(api.close)
        with ThreadPoolExecutor() as starters:
            list(starters.map(MortalApi.start, apis))
        yield server, apis


@dataclass
class Flow:
    """Orders and test funds that flow until they are told to stop, and what was acknowledged of them."""

    apis: list[MortalApi]
    population: Population
    acknowledged: dict[tuple[str, str], Json] = field(default_factory=dict)
    funded: int = 0
    repeats: int = 0
    trouble: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, trader: Trader, rng: random.Random) -> None:
        """One account: one thing after the other, each sent until it is answered."""
        number = 0
        while not self.stop.is_set():
            number += 1
            if rng.random() < 0.1:
                funds = {"amount": "1.5", "idempotencyKey": f"n{number}"}
                await self._until_answered(trader, "devFund", operations.DEV_FUND, funds, rng)
                self.funded += 1
            else:
                await self._order(trader, f"n{number}", rng)

    async def _order(self, trader: Trader, key: str, rng: random.Random) -> None:
        order: Json = {"assetId": rng.choice(self.population.asset_ids), "clientOrderId": key}
        if rng.random() < 0.6:
            order |= {"side": "BUY", "amount": f"{rng.uniform(0.5, 5):.6f}"}
        else:
            order |= {"side": "SELL", "shares": f"{rng.uniform(0.01, 0.5):.9f}"}
        payload = await self._until_answered(trader, "orderPlace", operations.ORDER_PLACE, order, rng)
        self.acknowledged[trader.account_id, key] = payload
        if rng.random() < 0.1:
            again = await self._until_answered(trader, "orderPlace", operations.ORDER_PLACE, order, rng)
            self.repeats += 1
            if again != payload:
                self.faults.append(f"{payload} was answered, and then {again}")

    async def _until_answered(self, trader: Trader, name: str, document: str, values: Json, rng: random.Random) -> Json:
        end = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while asyncio.get_running_loop().time() < end:
            client = Client(rng.choice(self.apis).url, trader.token)
            try:
                reply = await client.run(document, {"input": values})
            except Lost:
                self.trouble["lost"] += 1
            else:
                payload: Json | None = reply.data.get(name)
                if payload is not None:
                    return payload
                self.trouble[f"{name} {reply.status} {reply.error_codes}"] += 1
                if name == "orderPlace" and not all(error["extensions"].get("retryable") for error in reply.errors):
                    self.faults.append(f"{reply.status} {reply.body!r}")
            finally:
                await client.close()
            await asyncio.sleep(0.02)  # as a client would that wants to be answered
        raise TimeoutError(f"{values} was never answered: {self.trouble}")


async def _kill_again_and_again(
    flow: Flow, server: MortalPostgres, *, times: int, rng: random.Random, say: Say
) -> None:
    """Kill PostgreSQL and the API processes in turn, each at a random instant under load."""
    for number in range(times):
        await until(_more(flow, rng.randint(*BETWEEN_KILLS)), seconds=PATIENCE_SECONDS)
        await asyncio.sleep(rng.uniform(0, 0.02))  # the instant is what is drawn here: nothing is waited for
        acknowledged = len(flow.acknowledged)
        if number % 2 == 0:
            server.kill()
            server.start()
            victim = "PostgreSQL"
        else:
            api = rng.choice(flow.apis)
            api.kill()
            await asyncio.to_thread(api.start)
            victim = f"the API process at {api.url}"
        say(f"killed {victim} after {acknowledged} acknowledged orders")
    await until(_more(flow, BETWEEN_KILLS[0]), seconds=PATIENCE_SECONDS)


def _more(flow: Flow, orders: int) -> Callable[[], bool]:
    least = len(flow.acknowledged) + orders
    return lambda: len(flow.acknowledged) >= least


async def _check_survival(machines: tuple[MortalPostgres, list[MortalApi]], *, times: int, say: Say) -> None:
    server, apis = machines
    seed = secrets.randbits(32)
    say(f"seed {seed}")
    rng = random.Random(seed)
    assets: list[Json] = [{}, {"basePrice": "3", "slope": "0.01"}]
    population = await populate(apis[0].url, traders=TRADERS, assets=assets, funds={"USDC": 100_000})
    flow = Flow(apis, population)
    flowing = [asyncio.create_task(flow.run(trader, random.Random(rng.random()))) for trader in population.traders]
    try:
        await _kill_again_and_again(flow, server, times=times, rng=rng, say=say)
    finally:
        flow.stop.set()
        await asyncio.gather(*flowing)
    say(
        f"{len(flow.acknowledged)} orders and {flow.funded} test funds acknowledged, {flow.repeats} repeated;"
        f" on the way {dict(flow.trouble)}"
    )
    assert flow.faults == []
    stored = await stored_orders(server.dsn)
    assert told_orders(flow.acknowledged) == stored
    filled = sum(1 for order in stored.values() if order.status == "FILLED")
    assert await count(server.dsn, "SELECT count(*) FROM trades") == filled
    funds = await count(server.dsn, "SELECT count(*) FROM transfers WHERE reason = 'DEV_FUND'")
    assert funds == flow.funded + TRADERS
    assert (await audited(server.dsn)).findings == []


async def test_what_was_acknowledged_survives_kills(machines: tuple[MortalPostgres, list[MortalApi]], say: Say) -> None:
    await _check_survival(machines, times=2, say=say)


@pytest.mark.soak
async def test_what_was_acknowledged_survives_ten_kills(
    machines: tuple[MortalPostgres, list[MortalApi]], say: Say
) -> None:
    await _check_survival(machines, times=10, say=say)
