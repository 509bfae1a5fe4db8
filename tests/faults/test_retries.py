"""Operations sent several times at once, over two API processes, some of whose callers hang up: each happens once."""

import asyncio
import random
import secrets
from collections import Counter
from dataclasses import dataclass, field

import pytest

from tests.conftest import LiveApi
from tests.faults import operations
from tests.faults.client import Client, Cut, Json, Lost, Reply
from tests.faults.conftest import Say
from tests.faults.inspection import audited, connected
from tests.faults.population import Population, asset_input, populate

OPERATIONS_AT_ONCE = 12
ACCOUNTS = 12
FUNDS = 100_000
CUTS = {Cut.NOT: 75, Cut.ANSWERED: 20, Cut.SENT: 5}
"""Of a hundred connections: when the answer begins, the effect has been committed."""


@dataclass
class Operation:
    """One thing to do, and what those who asked for it were told."""

    name: str
    document: str
    variables: Json
    token: str
    times: int
    answers: list[Json] = field(default_factory=list)
    lost: int = 0

    def told(self, reply: Reply) -> None:
        """Take in an answer; AssertionError for one that is a fault."""
        assert reply.status == 200, reply.body
        assert reply.errors == []
        self.answers.append(reply.payload(self.name))


def _operations(count: int, population: Population, rng: random.Random) -> list[Operation]:
    return [_operation(number, population, rng) for number in range(count)]


def _operation(number: int, population: Population, rng: random.Random) -> Operation:
    trader, times = rng.choice(population.traders), rng.randint(2, 5)
    kind = rng.random()
    if kind < 0.70:
        order = {"assetId": rng.choice(population.asset_ids), "clientOrderId": f"op-{number}"}
        variables: Json = {"input": order | _size(rng)}
        return Operation("orderPlace", operations.ORDER_PLACE, variables, trader.token, times)
    if kind < 0.90:
        funds = {"amount": f"{rng.randint(1, 10**8) / 10**6:.6f}", "idempotencyKey": f"op-{number}"}
        return Operation("devFund", operations.DEV_FUND, {"input": funds}, trader.token, times)
    if kind < 0.95:
        wish = {"name": f"Wish {number}", "description": "To be asked for once.", "idempotencyKey": f"op-{number}"}
        asker = population.traders[number % ACCOUNTS]
        return Operation("assetRequestSubmit", operations.ASSET_REQUEST_SUBMIT, {"input": wish}, asker.token, times)
    new = asset_input(0) | {"symbol": f"R{number}", "idempotencyKey": f"op-{number}"}
    return Operation("assetCreate", operations.ASSET_CREATE, {"input": new}, population.admin_token, times)


def _size(rng: random.Random) -> Json:
    """A buy or sale, mostly of a size that can be filled."""
    shares = f"{rng.uniform(0.1, 5):.9f}"
    if rng.random() < 0.6:
        return {"side": "BUY"} | ({"amount": "7.5"} if rng.random() < 0.5 else {"shares": shares})
    return {"side": "SELL", "shares": shares, "minTotal": "0.1"}


async def _send(operation: Operation, url: str, cut: Cut) -> None:
    client = Client(url, operation.token)
    try:
        operation.told(await client.run(operation.document, operation.variables, cut=cut))
    except Lost:
        assert cut is not Cut.NOT, "a connection was lost that nobody cut"
        operation.lost += 1
    finally:
        await client.close()


async def _repeat(operation: Operation, apis: tuple[LiveApi, LiveApi], rng: random.Random) -> None:
    """Send it at once over both processes, then once more, as whoever was cut off would."""
    sent = []
    for number in range(operation.times):
        (cut,) = rng.choices(list(CUTS), list(CUTS.values()))
        sent.append(_send(operation, apis[number % 2].url, cut))
    await asyncio.gather(*sent)
    await _send(operation, rng.choice(apis).url, Cut.NOT)


async def _retried(apis: tuple[LiveApi, LiveApi], *, count: int, seed: int) -> list[Operation]:
    """`count` operations, each sent two to five times at once and once more."""
    rng = random.Random(seed)
    assets: list[Json] = [{}, {"basePrice": "3", "slope": "0.01"}]
    population = await populate(apis[0].url, traders=ACCOUNTS, assets=assets, funds={"USDC": FUNDS})
    todo = _operations(count, population, rng)
    at_once = asyncio.Semaphore(OPERATIONS_AT_ONCE)

    async def one(operation: Operation) -> None:
        async with at_once:
            await _repeat(operation, apis, random.Random(rng.random()))

    await asyncio.gather(*(one(operation) for operation in todo))
    return todo


async def _expect_each_once(todo: list[Operation], database_url: str) -> None:
    kinds = Counter(operation.name for operation in todo)
    for operation in todo:
        assert operation.lost + len(operation.answers) == operation.times + 1
        alike = [answer for answer in operation.answers if answer == operation.answers[0]]
        assert alike == operation.answers, operation.name
    refused = [o for o in todo if o.answers[0]["userErrors"]]
    assert {o.name for o in refused} <= {"orderPlace", "assetRequestSubmit"}
    trades = sum(1 for o in todo if o.name == "orderPlace" and o.answers[0]["order"]["status"] == "FILLED")
    wishes = sum(1 for o in todo if o.name == "assetRequestSubmit" and not o.answers[0]["userErrors"])
    async with connected(database_url) as connection:
        row = await connection.fetchrow(
            "SELECT (SELECT count(*) FROM orders) AS orders, (SELECT count(*) FROM trades) AS trades,"
            " (SELECT count(*) FROM transfers WHERE reason = 'TRADE') AS moved,"
            " (SELECT count(*) FROM transfers WHERE reason = 'DEV_FUND') AS funded,"
            " (SELECT count(*) FROM asset_requests) AS wishes, (SELECT count(*) FROM assets) AS assets"
        )
    assert row is not None
    assert dict(row) == {
        "orders": kinds["orderPlace"],
        "trades": trades,
        "moved": trades,
        "funded": kinds["devFund"] + ACCOUNTS,
        "wishes": wishes,
        "assets": kinds["assetCreate"] + 2,
    }
    assert (await audited(database_url)).findings == []


async def _check_each_happens_once(apis: tuple[LiveApi, LiveApi], *, count: int, say: Say) -> None:
    seed = secrets.randbits(32)
    say(f"seed {seed}")
    todo = await _retried(apis, count=count, seed=seed)
    sent, lost = sum(o.times + 1 for o in todo), sum(o.lost for o in todo)
    refused = sum(1 for o in todo if o.answers[0]["userErrors"])
    say(f"{count} operations sent {sent} times, {lost} cut off, {refused} refused: each has one effect")
    await _expect_each_once(todo, apis[0].database_url)
    assert lost > sent // 12, "hardly any connection was cut: it would show nothing"


async def test_operations_sent_several_times_at_once_happen_once(two_apis: tuple[LiveApi, LiveApi], say: Say) -> None:
    await _check_each_happens_once(two_apis, count=150, say=say)


@pytest.mark.soak
async def test_2000_operations_sent_several_times_at_once_happen_once(
    two_apis: tuple[LiveApi, LiveApi], say: Say
) -> None:
    await _check_each_happens_once(two_apis, count=2_000, say=say)
