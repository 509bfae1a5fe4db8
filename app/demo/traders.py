"""The demo's traders: ordinary clients of the public API with temperaments of their own, for as long as it runs.

They are bots on the client package: they sign up, take test funds, look at the board, ask for a quote and place a
bounded order with a deadline. What they decide stands in `decisions`; here is how they live: sessions, funds, pace, and
what a refusal makes them do.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from typing import Final

import httpx
import structlog

from app.demo.catalogue import CATALOGUE
from app.demo.credentials import CredentialFile
from app.demo.decisions import (
    Follower,
    Holdings,
    Intent,
    TrendRider,
    Wanderer,
    follow,
    is_worth_it,
    ride,
    wander,
)
from app.demo.market import Board, money, price, shares
from app.money import money_text, shares_text
from app.settings import Settings
from megatron_client import (
    Balance,
    Client,
    MegatronError,
    NotLoggedIn,
    Order,
    OrderRequest,
    OutcomeUnknown,
    Refused,
    RequestFailed,
    bounded_order,
)

TURNS_PER_SECOND: Final = 12.0
"""How often, all traders together, one looks at the market; about half of these looks become orders."""
SEED: Final = 20_120_101
DEADLINE_SECONDS: Final = 15.0
SLIPPAGE: Final = Decimal("0.003")
"""How far beyond the quote: 0.3 %."""
CONNECTIONS_MAX: Final = 16
REQUEST_SECONDS_MAX: Final = 15.0
SUMMARY_SECONDS: Final = 60.0
SULK_SECONDS: Final = 5.0
"""How long a trader stays away after an answer it can do nothing about."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Profile:
    """A trader: its name, its temperament, and the funds it asks for when it has less than a tenth of them left."""

    name: str
    temper: Follower | TrendRider | Wanderer
    funds: int


_PERCENT: Final = 10_000_000
_COIN: Final = 1_000_000

PROFILES: Final = (
    Profile("follower-1", Follower(6 * _PERCENT // 10, 50 * _PERCENT, 40_000 * _COIN), 400_000 * _COIN),
    Profile("follower-2", Follower(8 * _PERCENT // 10, 60 * _PERCENT, 20_000 * _COIN), 400_000 * _COIN),
    Profile("follower-3", Follower(12 * _PERCENT // 10, 40 * _PERCENT, 20_000 * _COIN), 400_000 * _COIN),
    Profile("follower-4", Follower(7 * _PERCENT // 10, 35 * _PERCENT, 20_000 * _COIN), 400_000 * _COIN),
    Profile("trend-1", TrendRider(6 * _PERCENT // 10, 150 * _COIN, 3_000 * _COIN), 50_000 * _COIN),
    Profile("trend-2", TrendRider(15 * _PERCENT // 10, 300 * _COIN, 3_000 * _COIN), 50_000 * _COIN),
    Profile("noise-1", Wanderer(80 * _COIN, 1_000 * _COIN), 20_000 * _COIN),
    Profile("noise-2", Wanderer(200 * _COIN, 1_500 * _COIN), 20_000 * _COIN),
)


@dataclass(slots=True)
class Tally:
    """What happened since the last summary."""

    turns: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)


class Unfunded(Exception):  # noqa: N818
    """The server gives no test funds: demo traders have nothing to trade with."""


class Trader:
    """One trader. `run` lives until cancelled."""

    def __init__(
        self, *, profile: Profile, client: Client, board: Board, known: CredentialFile, chance: Random, tally: Tally
    ) -> None:
        self.profile = profile
        self._client = client
        self._board = board
        self._known = known
        self._chance = chance
        self._tally = tally
        self._cash: dict[str, int] = {}
        self._shares: dict[str, int] = {}

    async def run(self, *, pause_seconds: float) -> None:
        """Trade, one look every `pause_seconds` on average. Raises `Unfunded` where there are no test funds."""
        while True:
            try:
                await self._enter()
                while True:
                    await asyncio.sleep(pause_seconds * self._chance.uniform(0.5, 1.5))
                    await self._turn()
            except NotLoggedIn:
                self._client.token = None
            except MegatronError as error:
                if isinstance(error, RequestFailed) and error.code == "FORBIDDEN":
                    raise Unfunded(str(error)) from error
                log.warning("trader_rejected", trader=self.profile.name, error=str(error))
                await asyncio.sleep(SULK_SECONDS)

    # -------------------------------------------------------------------------------------- sessions and funds

    async def _enter(self) -> None:
        """Be logged in and know what is held: by the session of last time, by the password, or as somebody new."""
        self._client.token = self._client.token or self._known.of(self.profile.name).token
        if self._client.token is None:
            await self._log_in()
        try:
            await self._look_into_own_pockets()
        except NotLoggedIn:
            await self._log_in()
            await self._look_into_own_pockets()

    async def _log_in(self) -> None:
        one = self._known.of(self.profile.name)
        # An answer that was lost may have made the account, so each of the two ways leads to the other.
        ways = (self._client.log_in, self._client.sign_up)
        for way in ways if one.signed_up else reversed(ways):
            try:
                await way(one.email, one.password)
            except Refused as refused:
                if refused.code not in ("ALREADY_EXISTS", "INVALID_CREDENTIALS"):
                    raise
            else:
                one.token = self._client.token
                one.signed_up = True
                self._known.save()
                return
        self._known.replace(self.profile.name)
        raise Refused("INVALID_CREDENTIALS", f"{one.email} is somebody else's: signing up as somebody new")

    async def _look_into_own_pockets(self) -> None:
        self._take_balances((await self._client.fetch_balance()).values())
        held = await self._client.fetch_positions()
        self._shares = {position.asset.id: shares(position.shares) for position in held}
        await self._fund_all()

    async def _fund_all(self) -> None:
        for currency in sorted({asset.quote_currency for asset in CATALOGUE}):
            if self._cash.get(currency, 0) * 10 < self.profile.funds:
                funds = await self._client.dev_fund(money_text(self.profile.funds), currency)
                self._take_balances(funds)

    def _take_balances(self, balances: Iterable[Balance]) -> None:
        self._cash = {balance.currency: money(balance.available) for balance in balances}

    # ------------------------------------------------------------------------------------------------ trading

    async def _turn(self) -> None:
        """Look once, and order if there is a reason to."""
        if not self._board.trading:
            return
        self._tally.turns += 1
        intent = await self._decide()
        if intent is None:
            return
        wanted = await self._quoted(intent)
        if wanted is not None:
            await self._place(*wanted)

    async def _decide(self) -> Intent | None:
        temper, views = self.profile.temper, list(self._board.views.values())
        holdings = Holdings(self._cash, self._shares)
        if isinstance(temper, Follower):
            return follow(temper=temper, views=views, holdings=holdings)
        view = self._chance.choice(views)
        if isinstance(temper, Wanderer):
            return wander(temper=temper, view=view, holdings=holdings, chance=self._chance)
        return ride(temper=temper, view=view, recent=await self._board.recent(view.id), holdings=holdings)

    async def _quoted(self, intent: Intent) -> tuple[OrderRequest, int] | None:
        """The order, bounded by a quote, and M after it; None when the quote says that it is not worth it."""
        try:
            quote = await self._client.fetch_quote(intent.asset_id, intent.side, **_size(intent))
        except Refused as refused:
            self._tally.outcomes[f"quote {refused.code}"] += 1
            return None
        price_after = price(quote.price_after)
        if not is_worth_it(intent, price_after=price_after):
            self._tally.outcomes["too late"] += 1
            return None
        # Chance comes from the seed; keys must differ from those of the run before.
        key = uuid.uuid4().hex
        order = bounded_order(quote, client_order_id=key, slippage=SLIPPAGE, deadline_seconds=DEADLINE_SECONDS)
        return order, price_after

    async def _place(self, request: OrderRequest, price_after: int) -> None:
        """Place the order; after a lost answer or session the same again, by its key, until the outcome is known."""
        while True:
            try:
                order = await self._client.send_order(request)
                break
            except Refused as refused:
                await self._refused(request, refused)
                return
            except NotLoggedIn:
                await self._log_in()
            except OutcomeUnknown as unknown:
                log.warning("order_followed_up", trader=self.profile.name, error=str(unknown))
                if isinstance(unknown.__cause__, NotLoggedIn):
                    await self._log_in()
                else:
                    await asyncio.sleep(SULK_SECONDS)
        self._tally.outcomes[f"{order.side} {order.status}"] += 1
        self._book(order)
        self._board.moved(order.asset_id, price_after)
        await self._fund_all()

    def _book(self, order: Order) -> None:
        """What an order has moved, exactly."""
        currency = self._board.currency_of(order.asset_id)
        sign = 1 if order.side == "BUY" else -1
        paid = money(order.gross + sign * order.fee)
        self._cash[currency] = self._cash.get(currency, 0) - sign * paid
        self._shares[order.asset_id] = self._shares.get(order.asset_id, 0) + sign * shares(order.filled_shares)

    async def _refused(self, request: OrderRequest, refused: Refused) -> None:
        self._tally.outcomes[f"{request.side} {refused.code}"] += 1
        log.debug("order_refused", trader=self.profile.name, code=refused.code, message=refused.message)
        if refused.code in ("INSUFFICIENT_FUNDS", "INSUFFICIENT_SHARES"):
            await self._look_into_own_pockets()
        elif refused.code not in ("SLIPPAGE_EXCEEDED", "DEADLINE_PASSED", "BELOW_MINIMUM"):
            # Paused, halted, frozen, at a limit, overloaded, or something new: none of it is over in a moment.
            await asyncio.sleep(SULK_SECONDS)


def _size(intent: Intent) -> dict[str, str]:
    if intent.shares is not None:
        return {"shares": shares_text(intent.shares)}
    return {"amount": money_text(intent.amount or 0)}


async def run(url: str, settings: Settings, *, turns_per_second: float = TURNS_PER_SECOND, seed: int = SEED) -> None:
    """Trade at the API `url` (".../graphql") until cancelled, or until it turns out to give no test funds."""
    if turns_per_second <= 0:
        raise ValueError(f"turns_per_second must be above 0; got {turns_per_second}")
    log.info("demo_traders_start", url=url, seed=seed, traders=len(PROFILES), turns_per_second=turns_per_second)
    http = httpx.AsyncClient(
        timeout=REQUEST_SECONDS_MAX, trust_env=False, limits=httpx.Limits(max_connections=CONNECTIONS_MAX)
    )

    def client(name: str) -> Client:
        chance = Random(f"{seed} client {name}")  # noqa: S311 - jitter and temperament, no secrets
        return Client(url, http=http, chance=chance, patience_seconds=None)

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(http)
        clients = [await stack.enter_async_context(client(profile.name)) for profile in PROFILES]
        watching = await stack.enter_async_context(client("board"))
        board = Board(watching, tuple(asset.symbol for asset in CATALOGUE))
        known, tally = CredentialFile(settings.data_dir), Tally()
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        keepers = [
            tasks.create_task(keeper)
            for keeper in (board.keep_reading(), board.keep_following(), _summarise(tally, [*clients, watching]))
        ]
        await board.ready.wait()
        lives = [
            tasks.create_task(
                _live(
                    Trader(
                        profile=profile,
                        client=own,
                        board=board,
                        known=known,
                        chance=Random(f"{seed} {profile.name}"),  # noqa: S311 - as above
                        tally=tally,
                    ),
                    pause_seconds=len(PROFILES) / turns_per_second,
                )
            )
            for profile, own in zip(PROFILES, clients, strict=True)
        ]
        await asyncio.wait(lives)
        for keeper in keepers:
            keeper.cancel()


async def _live(trader: Trader, *, pause_seconds: float) -> None:
    """A trader's life. What nobody foresaw costs it a rest, not the others theirs."""
    while True:
        try:
            await trader.run(pause_seconds=pause_seconds)
        except Unfunded as error:
            log.error("trader_gives_up", trader=trader.profile.name, error=str(error), hint="only development funds")
            return
        except Exception:
            log.exception("trader_stumbled", trader=trader.profile.name)
            await asyncio.sleep(SULK_SECONDS)


async def _summarise(tally: Tally, clients: Sequence[Client]) -> None:
    """A line a minute."""
    while True:
        await asyncio.sleep(SUMMARY_SECONDS)
        outcomes = dict(sorted(tally.outcomes.items()))
        requests = [client.requests for client in clients]
        sent, retries = sum(one.sent for one in requests), sum(one.retries for one in requests)
        log.info("demo_traders", turns=tally.turns, requests=sent, retries=retries, outcomes=outcomes)
        tally.turns = 0
        for one in requests:
            one.sent = one.retries = 0
        tally.outcomes.clear()
