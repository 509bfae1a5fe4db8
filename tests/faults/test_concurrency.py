"""Many clients at once over two API processes, mixing every mutation that moves money or the rules it moves by.

An auditor looks on in REPEATABLE READ. Nothing may differ, deadlock or fail; refusals are part of the game.
"""

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from app.ledger.audit import Finding
from app.local.postgres import EmbeddedPostgres
from tests.conftest import LiveApi
from tests.faults import operations
from tests.faults.answers import stored_orders, told_orders
from tests.faults.client import Client, Json, Reply
from tests.faults.conftest import Say
from tests.faults.inspection import audited, count, deadlocks
from tests.faults.population import Population, Trader, asset_input, populate

ORDER_REFUSALS = {
    "INSUFFICIENT_FUNDS", "INSUFFICIENT_SHARES", "BELOW_MINIMUM", "SLIPPAGE_EXCEEDED", "POSITION_LIMIT",
    "REDEMPTION_LIMIT", "ASSET_NOT_OPEN", "TRADING_PAUSED", "ACCOUNT_FROZEN", "DEADLINE_PASSED",
}  # fmt: skip
ADMIN_ONE_IN = 4
"""One client in so many also acts as the admin, now and then."""
ASSETS: list[Json] = [
    {},
    {"basePrice": "20", "slope": "0.1", "maxSharesPerAccount": "40"},
    {"basePrice": "100", "slope": "0.000001", "feeRate": "0", "maxRedemptionPerDay": "500"},
    {"quoteCurrency": "USDT", "basePrice": "0.5", "slope": "0.002", "feeRate": "0.1"},
]
Act = Callable[["Actor"], Awaitable[Reply]]


@dataclass
class Ledger:
    """What the clients were told, and everything that should never have been."""

    orders: dict[tuple[str, str], Json] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    audits: int = 0
    seconds: float = 0

    def __str__(self) -> str:
        filled = sum(payload["order"]["status"] == "FILLED" for payload in self.orders.values())
        return (
            f"{sum(self.outcomes.values())} acts in {self.seconds:.1f} s, {len(self.orders)} orders of which {filled} "
            f"were filled, {self.audits} audits, {len(self.faults)} faults; {dict(self.outcomes)}"
        )

    def note(self, what: str, reply: Reply) -> None:
        """Count an answer; keep it whole if it is a fault."""
        if reply.is_fault or reply.status != 200:
            self.faults.append(f"{what}: {reply.status} {reply.body[:400]!r}")
        self.outcomes[what] += 1


@dataclass
class Actor:
    """One client: an account over its own connections, or the admin."""

    random: random.Random
    trader: Trader
    sessions: list[Client]
    admin: Client
    population: Population
    ledger: Ledger
    number: int
    done: int = 0
    api_key: tuple[str, Client] | None = None
    last_order: Json | None = None

    @property
    def caller(self) -> Client:
        """A connection to either process, by the session or by the API key."""
        if self.api_key is not None and self.random.random() < 0.3:
            return self.api_key[1]
        return self.random.choice(self.sessions)

    @property
    def asset_id(self) -> str:
        """Any of the first assets, so that clients meet."""
        return self.random.choice(self.population.asset_ids[: len(ASSETS)])

    async def act(self) -> None:
        """Do one thing, and note what came of it."""
        choose = _ADMIN_ACTS if self.number % ADMIN_ONE_IN == 0 and self.random.random() < 0.3 else _ACTS
        act = self.random.choices([act for act, _ in choose], [weight for _, weight in choose])[0]
        self.done += 1
        reply = await act(self)
        self.ledger.note(act.__name__, reply)

    async def hang_up(self) -> None:
        """Close every connection."""
        for client in (*self.sessions, self.admin, *([self.api_key[1]] if self.api_key else [])):
            await client.close()


async def _order(actor: Actor) -> Reply:
    rng = actor.random
    order: Json = {"assetId": actor.asset_id, "clientOrderId": f"{actor.number}-{actor.done}"}
    if rng.random() < 0.55:
        order["side"] = "BUY"
        if rng.random() < 0.5:
            order["amount"] = f"{rng.uniform(0.005, 30):.6f}"
            if rng.random() < 0.3:
                order["minShares"] = f"{rng.uniform(0.001, 5):.9f}"
        else:
            order["shares"] = f"{rng.uniform(0.001, 4):.9f}"
            if rng.random() < 0.3:
                order["maxTotal"] = f"{rng.uniform(0.1, 200):.6f}"
    else:
        order |= {"side": "SELL", "shares": f"{rng.uniform(0.001, 4):.9f}"}
        if rng.random() < 0.3:
            order["minTotal"] = f"{rng.uniform(0.01, 100):.6f}"
    if rng.random() < 0.05:
        order["ifTradeSeq"] = rng.randrange(50)
    return await _place(actor, order)


async def _order_again(actor: Actor) -> Reply:
    return await (_order(actor) if actor.last_order is None else _place(actor, actor.last_order))


async def _place(actor: Actor, order: Json) -> Reply:
    actor.last_order = order
    reply = await actor.caller.run(operations.ORDER_PLACE, {"input": order})
    if reply.data.get("orderPlace") is None:
        return reply
    payload = reply.payload("orderPlace")
    unknown = set(reply.refusals("orderPlace")) - ORDER_REFUSALS
    if unknown:
        actor.ledger.faults.append(f"unexpected refusal: {payload['userErrors']}")
    elif actor.ledger.orders.setdefault((actor.trader.account_id, order["clientOrderId"]), payload) != payload:
        actor.ledger.faults.append(f"a repeat differs: {payload}")
    return reply


async def _fund(actor: Actor) -> Reply:
    funds = {
        "currency": actor.random.choice(["USDC", "USDT"]),
        "amount": f"{actor.random.uniform(0.000001, 100):.6f}",
        "idempotencyKey": f"{actor.number}-{actor.done}",
    }
    return await actor.caller.run(operations.DEV_FUND, {"input": funds})


async def _quote(actor: Actor) -> Reply:
    asked = {"assetId": actor.asset_id, "side": "BUY", "amount": "12.5"}
    return await actor.caller.run(operations.QUOTE, asked)


async def _portfolio(actor: Actor) -> Reply:
    return await actor.caller.run(operations.PORTFOLIO)


async def _api_key(actor: Actor) -> Reply:
    session = actor.random.choice(actor.sessions)
    if actor.api_key is not None:
        (key_id, client), actor.api_key = actor.api_key, None
        reply = await session.run(operations.API_KEY_REVOKE, {"id": key_id})
        refused = await client.run(operations.PORTFOLIO)
        await client.close()
        if refused.error_codes != ["UNAUTHENTICATED"]:
            actor.ledger.faults.append(f"a revoked key still works: {refused.body!r}")
        return reply
    scopes = {"name": f"bot {actor.done}", "scopes": ["READ", "TRADE"]}
    reply = await session.run(operations.API_KEY_CREATE, {"input": scopes})
    payload = reply.payload("apiKeyCreate")
    if payload["apiKey"] is not None:
        actor.api_key = (payload["apiKey"]["id"], session.with_token(payload["secret"]))
    elif reply.refusals("apiKeyCreate") != ["ACCOUNT_FROZEN"]:
        actor.ledger.faults.append(f"no key was made: {payload}")
    return reply


async def _freeze(actor: Actor) -> Reply:
    account_id = actor.random.choice(actor.population.traders).account_id
    for frozen in (True, False):
        change = {"accountId": account_id, "frozen": frozen, "reason": "a drill"}
        reply = await actor.admin.run(operations.ACCOUNT_FREEZE, {"input": change})
        assert reply.payload("accountFreeze")["account"]["frozen"] is frozen
    return reply


async def _pause(actor: Actor) -> Reply:
    for paused in (True, False):
        reply = await actor.admin.run(operations.TRADING_PAUSE, {"input": {"paused": paused, "reason": "a drill"}})
        assert reply.refusals("tradingPause") == []
    return reply


async def _status(actor: Actor) -> Reply:
    asset_id = actor.asset_id
    for status in (actor.random.choice(["REDUCE_ONLY", "HALTED"]), "OPEN"):
        change = {"assetId": asset_id, "status": status, "reason": "a drill"}
        reply = await actor.admin.run(operations.ASSET_SET_STATUS, {"input": change})
        assert reply.refusals("assetSetStatus") == []
    return reply


async def _fee(actor: Actor) -> Reply:
    change = {"assetId": actor.asset_id, "feeRate": f"0.{actor.random.randrange(10**8):09}", "reason": "a drill"}
    reply = await actor.admin.run(operations.ASSET_UPDATE, {"input": change})
    assert reply.refusals("assetUpdate") == []
    return reply


async def _new_asset(actor: Actor) -> Reply:
    number = f"{actor.number}X{actor.done}"
    values = asset_input(0) | {"symbol": f"N{number}", "idempotencyKey": f"new-{number}"}
    reply = await actor.admin.run(operations.ASSET_CREATE, {"input": values})
    assert reply.refusals("assetCreate") == []
    return reply


_ACTS: list[tuple[Act, int]] = [
    (_order, 70), (_order_again, 5), (_fund, 8), (_quote, 6), (_portfolio, 4), (_api_key, 4),
]  # fmt: skip
_ADMIN_ACTS: list[tuple[Act, int]] = [(_freeze, 4), (_pause, 1), (_status, 3), (_fee, 4), (_new_asset, 2)]


async def _audit_now_and_then(database_url: str, ledger: Ledger, stop: asyncio.Event) -> None:
    while True:
        report = await audited(database_url)
        ledger.audits += 1
        ledger.findings.extend(report.findings)
        if stop.is_set():
            return
        try:
            await asyncio.wait_for(stop.wait(), 1.0)
        except TimeoutError:
            continue


async def _mix(
    apis: tuple[LiveApi, LiveApi], *, clients: int, seed: int, enough: Callable[[Actor, float], bool]
) -> Ledger:
    """Let `clients` act until each of them has done `enough` (given the seconds since the start)."""
    population = await populate(apis[0].url, traders=clients, assets=ASSETS, funds={"USDC": 200, "USDT": 100})
    ledger, rng, stop = Ledger(), random.Random(seed), asyncio.Event()
    actors = [
        Actor(
            random=random.Random(rng.random()),
            trader=trader,
            sessions=[Client(api.url, trader.token) for api in apis],
            admin=Client(apis[number % 2].url, population.admin_token),
            population=population,
            ledger=ledger,
            number=number,
        )
        for number, trader in enumerate(population.traders)
    ]
    auditor = asyncio.create_task(_audit_now_and_then(apis[0].database_url, ledger, stop))
    loop = asyncio.get_running_loop()
    started = loop.time()

    async def live(actor: Actor) -> None:
        try:
            while not enough(actor, loop.time() - started):
                await actor.act()
        finally:
            await actor.hang_up()

    try:
        await asyncio.gather(*(live(actor) for actor in actors))
    finally:
        stop.set()
        await auditor
    ledger.seconds = loop.time() - started
    return ledger


async def _expect_nothing_wrong(ledger: Ledger, database_url: str) -> None:
    assert ledger.faults == []
    assert ledger.findings == []
    assert {code["code"] for order in ledger.orders.values() for code in order["userErrors"]} <= ORDER_REFUSALS
    stored = await stored_orders(database_url)
    assert told_orders(ledger.orders) == stored
    filled = sum(1 for order in stored.values() if order.status == "FILLED")
    assert await count(database_url, "SELECT count(*) FROM trades") == filled
    assert filled > len(stored) // 5, "the mix hardly trades: it would show nothing"


async def test_clients_of_two_processes_mix_all_money_mutations(
    two_apis: tuple[LiveApi, LiveApi], postgres: EmbeddedPostgres, say: Say
) -> None:
    before, seed = deadlocks(postgres), secrets.randbits(32)
    say(f"seed {seed}")
    ledger = await _mix(two_apis, clients=16, seed=seed, enough=lambda actor, _: actor.done >= 120)
    say(str(ledger))
    await _expect_nothing_wrong(ledger, two_apis[0].database_url)
    assert deadlocks(postgres) == before
    assert sum(ledger.outcomes.values()) == 16 * 120


@pytest.mark.soak
async def test_64_clients_for_a_minute(two_apis: tuple[LiveApi, LiveApi], postgres: EmbeddedPostgres, say: Say) -> None:
    before, seed = deadlocks(postgres), secrets.randbits(32)
    say(f"seed {seed}")
    ledger = await _mix(two_apis, clients=64, seed=seed, enough=lambda _, seconds: seconds >= 60)
    say(str(ledger))
    await _expect_nothing_wrong(ledger, two_apis[0].database_url)
    assert deadlocks(postgres) == before
    assert ledger.audits >= 20
