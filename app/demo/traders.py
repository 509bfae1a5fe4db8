"""The demo's traders: ordinary clients of the public API with temperaments of their own, for as long as it runs.

They sign up, take test funds, read the board, ask for a quote and place a bounded order with a deadline. What they
decide stands in `decisions`; here is how they live: sessions, funds, pace, and what a refusal makes them do.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Final

import structlog

from app.demo.catalogue import CATALOGUE
from app.demo.client import Client, Json, NotLoggedIn, Operation, Rejected
from app.demo.credentials import CredentialFile
from app.demo.decisions import (
    Follower,
    Holdings,
    Intent,
    Quoted,
    TrendRider,
    Wanderer,
    bound,
    follow,
    ride,
    wander,
)
from app.demo.market import QUOTE, Board, money, price, shares
from app.errors import isoformat
from app.money import money_text, shares_text
from app.settings import Settings

TURNS_PER_SECOND: Final = 12.0
"""How often, all traders together, one looks at the market; about half of these looks become orders."""
SEED: Final = 20_120_101
DEADLINE: Final = timedelta(seconds=15)
SLIPPAGE: Final = 3_000_000
"""0.3 % beyond the quote, in 10^-9."""
SUMMARY_SECONDS: Final = 60.0
SULK_SECONDS: Final = 5.0
"""How long a trader stays away after an answer it can do nothing about."""

log = structlog.get_logger(__name__)

SIGN_UP: Final = Operation(
    "DemoSignUp",
    """mutation DemoSignUp($input: SignUpInput!) {
  signUp(input: $input) { session { token } userErrors { code message } }
}""",
)
LOG_IN: Final = Operation(
    "DemoLogIn",
    """mutation DemoLogIn($input: LogInInput!) {
  logIn(input: $input) { session { token } userErrors { code message } }
}""",
)
FUND: Final = Operation(
    "DemoFund",
    """mutation DemoFund($input: DevFundInput!) {
  devFund(input: $input) { viewer { balances { currency available } } userErrors { code message } }
}""",
)
HOLDINGS: Final = Operation(
    "DemoHoldings",
    """query DemoHoldings {
  viewer {
    balances { currency available }
    positions(first: 20) { nodes { shares asset { id } } }
  }
}""",
)
ORDER: Final = Operation(
    "DemoOrder",
    """mutation DemoOrder($input: OrderPlaceInput!) {
  orderPlace(input: $input) {
    order { status filledShares }
    position { shares }
    asset { marketPrice }
    viewer { balances { currency available } }
    userErrors { code message }
  }
}""",
)


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
        self._token: str | None = None
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
                self._token = None
            except Rejected as error:
                if error.code == "FORBIDDEN":
                    raise Unfunded(str(error)) from error
                log.warning("trader_rejected", trader=self.profile.name, error=str(error))
                await asyncio.sleep(SULK_SECONDS)

    # -------------------------------------------------------------------------------------- sessions and funds

    async def _enter(self) -> None:
        """Be logged in and know what is held: by the session of last time, by the password, or as somebody new."""
        one = self._known.of(self.profile.name)
        self._token = self._token or one.token
        if self._token is None:
            await self._log_in()
        try:
            await self._look_into_own_pockets()
        except NotLoggedIn:
            await self._log_in()
            await self._look_into_own_pockets()

    async def _log_in(self) -> None:
        one = self._known.of(self.profile.name)
        wanted = {"input": {"email": one.email, "password": one.password}}
        # An answer that was lost may have made the account, so each of the two ways leads to the other.
        ways = (LOG_IN, SIGN_UP) if one.signed_up else (SIGN_UP, LOG_IN)
        for way in ways:
            payload = next(iter((await self._client.execute(way, wanted)).values()))
            if payload["session"]:
                one.token = self._token = payload["session"]["token"]
                one.signed_up = True
                self._known.save()
                return
            code, message = _refusal(payload)
            if code not in ("ALREADY_EXISTS", "INVALID_CREDENTIALS"):
                raise Rejected(code, message)
        self._known.replace(self.profile.name)
        raise Rejected("INVALID_CREDENTIALS", f"{one.email} is somebody else's: signing up as somebody new")

    async def _look_into_own_pockets(self) -> None:
        viewer = (await self._client.execute(HOLDINGS, {}, token=self._token))["viewer"]
        if viewer is None:
            raise NotLoggedIn("the session is over")
        self._take_balances(viewer["balances"])
        self._shares = {node["asset"]["id"]: shares(node["shares"]) for node in viewer["positions"]["nodes"]}
        await self._fund_all()

    async def _fund_all(self) -> None:
        for currency in sorted({asset.quote_currency for asset in CATALOGUE}):
            await self._fund(currency)

    async def _fund(self, currency: str) -> None:
        if self._cash.get(currency, 0) * 10 >= self.profile.funds:
            return
        wanted = {"currency": currency, "amount": money_text(self.profile.funds), "idempotencyKey": uuid.uuid4().hex}
        payload = (await self._client.execute(FUND, {"input": wanted}, token=self._token))["devFund"]
        if payload["viewer"] is None:
            raise Rejected(*_refusal(payload))
        self._take_balances(payload["viewer"]["balances"])

    def _take_balances(self, balances: list[Json]) -> None:
        self._cash = {balance["currency"]: money(balance["available"]) for balance in balances}

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
            await self._place(intent, wanted)

    async def _decide(self) -> Intent | None:
        temper, views = self.profile.temper, list(self._board.views.values())
        holdings = Holdings(self._cash, self._shares)
        if isinstance(temper, Follower):
            return follow(temper=temper, views=views, holdings=holdings)
        view = self._chance.choice(views)
        if isinstance(temper, Wanderer):
            return wander(temper=temper, view=view, holdings=holdings, chance=self._chance)
        return ride(temper=temper, view=view, recent=await self._board.recent(view.id), holdings=holdings)

    async def _quoted(self, intent: Intent) -> Mapping[str, object] | None:
        """The order's input, bounded by a quote; None when the quote says that it is not worth it."""
        size = _size(intent)
        asked = {"id": intent.asset_id, "side": intent.side, **size}
        payload = (await self._client.execute(QUOTE, asked, token=self._token))["quote"]
        quote = payload["quote"]
        if quote is None:
            self._tally.outcomes[f"quote {_refusal(payload)[0]}"] += 1
            return None
        quoted = Quoted(shares(quote["shares"]), money(quote["total"]), price(quote["priceAfter"]))
        bounds = bound(intent, quoted, slippage=SLIPPAGE)
        if bounds is None:
            self._tally.outcomes["too late"] += 1
            return None
        limits = {
            "maxTotal": bounds.max_total and money_text(bounds.max_total),
            "minTotal": bounds.min_total and money_text(bounds.min_total),
            "minShares": bounds.min_shares and shares_text(bounds.min_shares),
        }
        return {
            "assetId": intent.asset_id,
            "side": intent.side,
            **size,
            **{name: limit for name, limit in limits.items() if limit},
            "deadline": isoformat(self._board.server_time() + DEADLINE),
            # Chance comes from the seed; keys must differ from those of the run before.
            "clientOrderId": uuid.uuid4().hex,
        }

    async def _place(self, intent: Intent, wanted: Mapping[str, object]) -> None:
        """Place the order; after a lost answer or session the same again, by its key, until the outcome is known."""
        while True:
            try:
                data = await self._client.execute(ORDER, {"input": wanted}, token=self._token)
                break
            except NotLoggedIn:
                await self._log_in()
        payload = data["orderPlace"]
        if payload["userErrors"]:
            await self._refused(intent, *_refusal(payload))
            return
        self._tally.outcomes[f"{intent.side} {payload['order']['status']}"] += 1
        position, asset, viewer = payload["position"], payload["asset"], payload["viewer"]
        self._shares[intent.asset_id] = shares(position["shares"]) if position else 0
        if asset:
            self._board.moved(intent.asset_id, price(asset["marketPrice"]))
        if viewer:
            self._take_balances(viewer["balances"])
            await self._fund_all()

    async def _refused(self, intent: Intent, code: str, message: str) -> None:
        self._tally.outcomes[f"{intent.side} {code}"] += 1
        log.debug("order_refused", trader=self.profile.name, code=code, message=message)
        if code in ("INSUFFICIENT_FUNDS", "INSUFFICIENT_SHARES"):
            await self._look_into_own_pockets()
        elif code not in ("SLIPPAGE_EXCEEDED", "DEADLINE_PASSED", "BELOW_MINIMUM"):
            # Paused, halted, frozen, at a limit, overloaded, or something new: none of it is over in a moment.
            await asyncio.sleep(SULK_SECONDS)


def _size(intent: Intent) -> dict[str, str]:
    if intent.shares is not None:
        return {"shares": shares_text(intent.shares)}
    return {"amount": money_text(intent.amount or 0)}


def _refusal(payload: Json) -> tuple[str, str]:
    errors = payload["userErrors"]
    return (errors[0]["code"], errors[0]["message"]) if errors else ("UNKNOWN", "no data and no error")


async def run(url: str, settings: Settings, *, turns_per_second: float = TURNS_PER_SECOND, seed: int = SEED) -> None:
    """Trade at the API `url` (".../graphql") until cancelled, or until it turns out to give no test funds."""
    if turns_per_second <= 0:
        raise ValueError(f"turns_per_second must be above 0; got {turns_per_second}")
    log.info("demo_traders_start", url=url, seed=seed, traders=len(PROFILES), turns_per_second=turns_per_second)
    client = Client(url, chance=Random(f"{seed} client"))  # noqa: S311 - jitter and temperament, no secrets
    board = Board(client, tuple(asset.symbol for asset in CATALOGUE))
    known, tally = CredentialFile(settings.data_dir), Tally()
    try:
        async with asyncio.TaskGroup() as tasks:
            keepers = [tasks.create_task(board.keep_reading()), tasks.create_task(_summarise(tally, client))]
            await board.ready.wait()
            lives = [
                tasks.create_task(
                    _live(
                        Trader(
                            profile=profile,
                            client=client,
                            board=board,
                            known=known,
                            chance=Random(f"{seed} {profile.name}"),  # noqa: S311 - as above
                            tally=tally,
                        ),
                        pause_seconds=len(PROFILES) / turns_per_second,
                    )
                )
                for profile in PROFILES
            ]
            await asyncio.wait(lives)
            for keeper in keepers:
                keeper.cancel()
    finally:
        await client.close()


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


async def _summarise(tally: Tally, client: Client) -> None:
    """A line a minute."""
    while True:
        await asyncio.sleep(SUMMARY_SECONDS)
        outcomes = dict(sorted(tally.outcomes.items()))
        log.info("demo_traders", turns=tally.turns, requests=client.requests, retries=client.retries, outcomes=outcomes)
        tally.turns = client.requests = client.retries = 0
        tally.outcomes.clear()
