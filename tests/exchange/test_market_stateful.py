"""The real settlement on PostgreSQL against the exact model of a market: any orders, in any sequence, of any size.

After each step every balance, position and reserve equals the model's, the backing covers the curve and sums are zero.
`HYPOTHESIS_SEED` repeats a run whose seed was printed.
"""

import os
import random
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from app.admin.asset_input import AssetChanges
from app.local.postgres import EmbeddedPostgres
from tests.exchange.market import Answered, HoldingState, Market, Standing, text
from tests.exchange.market_model import Asked, MarketModel, ModelAccount, ModelAsset
from tests.exchange.model import MONEY, PRICE, RATE, SHARE, SLOPE, ExactCurve
from tests.exchange.strategies import COMMON_CURVES, CURVES, exact, magnitudes
from tests.ledger.conftest import copy_template

SHORT = settings(
    max_examples=12,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    print_blob=True,
)
LONG = settings(SHORT, max_examples=300, stateful_step_count=60)

ACCOUNTS = st.sampled_from(["ann", "ben", "whale"])
ASSETS = st.sampled_from(["X", "Y"])
CIRCUMSTANCES = ["paused", "frozen", "logged out", "REDUCE_ONLY", "HALTED"]
SHARES = st.one_of(magnitudes(1, 10**24), magnitudes(10**6, 10**13)).map(lambda n: n * SHARE)
AMOUNTS = st.one_of(magnitudes(1, 10**18), magnitudes(10**4, 10**10)).map(lambda n: n * MONEY)
PARTS = st.one_of(
    st.just(Fraction(1)), st.fractions(Fraction(1, 10**6), Fraction(2), max_denominator=10**6), st.just(Fraction(0))
)
CURVES_OF_ALL_KINDS = st.one_of(COMMON_CURVES, CURVES).map(exact)
FEES = st.sampled_from([0, 1, 5_000_000, 10**8]).map(lambda n: n * RATE)


class MarketMachine(RuleBasedStateMachine):
    """Drives the real market and the model alike."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.market = Market(self.url)
        self.model = MarketModel()
        self.order_ids: dict[tuple[str, str], int | None] = {}
        self.keys = 0

    def teardown(self) -> None:
        try:
            assert self.market.findings() == []
        finally:
            self.market.close()

    @initialize(first=COMMON_CURVES.map(exact), second=CURVES_OF_ALL_KINDS)
    def open_market(self, first: ExactCurve, second: ExactCurve) -> None:
        for name, curve, currency in (("X", first, "USDC"), ("Y", second, "USDT")):
            self.market.add_asset(name, curve, currency)
            self.model.assets[name] = ModelAsset(curve, currency)
        for name, amount in (("ann", 10**4), ("ben", 10**7), ("whale", 3 * 10**12)):
            cash = {"USDC": Fraction(amount), "USDT": Fraction(amount)}
            self.market.add_account(name, cash)
            self.model.accounts[name] = ModelAccount(cash)
        self.funded = sum(a.cash["USDC"] + a.cash["USDT"] for a in self.model.accounts.values())

    # ------------------------------------------------------------------------------------------------ orders

    def key(self) -> str:
        self.keys += 1
        return f"key-{self.keys}"

    def bounded(self, asked: Asked, data: st.DataObject) -> Asked:
        """Perhaps with bounds near what the order would come to, a deadline, and a tradeSeq."""
        asset = self.model.assets[asked.asset]
        held = self.model.accounts[asked.account].holding(asked.asset).shares
        slack = data.draw(st.sampled_from([-1, 0, 1]))
        choice = data.draw(st.sampled_from(["none"] * 5 + ["bound", "late", "ahead", "seq", "stale"]))
        if choice == "bound" and asked.side == "SELL":
            shares = min(asked.shares or held, asset.supply)
            proceeds = asset.curve.sell(asset.supply, shares).proceeds
            return replace(asked, min_total=min(max(proceeds + slack * MONEY, Fraction(0)), Fraction(10**12)))
        if choice == "bound" and asked.shares is not None:
            cost = asset.curve.buy(asset.supply, asked.shares).cost
            return replace(asked, max_total=min(max(cost + slack * MONEY, Fraction(0)), Fraction(10**12)))
        if choice == "bound" and asked.amount is not None:
            most = asset.curve.buy_amount(asset.supply, asked.amount).shares
            return replace(asked, min_shares=min(max(most + slack * SHARE, SHARE), Fraction(10**15)))
        if choice in ("late", "ahead"):
            return replace(asked, deadline=datetime.now(UTC) + timedelta(seconds=30 if choice == "ahead" else -1))
        if choice in ("seq", "stale"):
            return replace(asked, if_trade_seq=asset.trade_seq + (choice == "stale"))
        return asked

    def draw_order(self, data: st.DataObject) -> Asked:
        asked = Asked(account=data.draw(ACCOUNTS), asset=data.draw(ASSETS), key=self.key(), side="BUY")
        held = self.model.accounts[asked.account].holding(asked.asset).shares
        asset = self.model.assets[asked.asset]
        kind = data.draw(st.sampled_from(["shares", "amount", "affordable", "brim", "sell", "sell", "sell any"]))
        if kind == "shares":
            asked = replace(asked, shares=data.draw(SHARES))
        elif kind == "amount":
            asked = replace(asked, amount=data.draw(AMOUNTS))
        elif kind == "affordable":
            cash = self.model.accounts[asked.account].cash[asset.currency]
            part = data.draw(st.fractions(Fraction(1, 10**4), Fraction(1), max_denominator=10**4))
            asked = replace(asked, amount=max(int(min(cash, Fraction(10**12)) * part / MONEY), 1) * MONEY)
        elif kind == "brim":
            room = asset.curve.max_supply() - asset.supply
            most = min(room, asset.curve.buy_amount(asset.supply, Fraction(10**12)).shares)
            shares = data.draw(st.sampled_from([room, most])) + data.draw(st.sampled_from([-1, 0, 1])) * SHARE
            asked = replace(asked, shares=min(max(shares, SHARE), Fraction(10**15)))
        elif kind == "sell":
            shares = max(int(held * data.draw(PARTS) / SHARE), 1) * SHARE
            asked = replace(asked, side="SELL", shares=min(shares, Fraction(10**15)))
        else:
            asked = replace(asked, side="SELL", shares=data.draw(SHARES))
        return self.bounded(asked, data)

    def check(self, orders: list[Asked], answers: list[Answered]) -> None:
        """Each answer must be the model's; what is bound to a key must be one order for ever."""
        for asked, answer in zip(orders, answers, strict=True):
            expected = self.model.place(asked, answer.at)
            assert answer.outcome == expected, f"{asked}: {answer.outcome} is not {expected}"
            if answer.order_id is not None:
                assert self.order_ids.setdefault((asked.account, asked.key), answer.order_id) == answer.order_id

    @rule(data=st.data())
    def place_one(self, data: st.DataObject) -> None:
        orders = [self.draw_order(data)]
        self.check(orders, self.market.place(orders))

    @rule(data=st.data(), count=st.integers(2, 8))
    def place_several_at_once(self, data: st.DataObject, count: int) -> None:
        orders = [self.draw_order(data) for _ in range(count)]
        self.check(orders, self.market.place(orders))

    @precondition(lambda self: self.model.decided)
    @rule(data=st.data(), twice=st.booleans())
    def repeat_an_order(self, data: st.DataObject, twice: bool) -> None:
        first, _ = self.model.decided[data.draw(st.sampled_from(sorted(self.model.decided)))]
        orders = [first, first] if twice else [first]
        self.check(orders, self.market.place(orders))

    @precondition(lambda self: self.model.decided)
    @rule(data=st.data())
    def use_a_key_for_something_else(self, data: st.DataObject) -> None:
        account, key = data.draw(st.sampled_from(sorted(self.model.decided)))
        orders = [replace(self.draw_order(data), account=account, key=key)]
        self.check(orders, self.market.place(orders))

    @rule(account=ACCOUNTS, asset=ASSETS, data=st.data())
    def go_in_and_out(self, account: str, asset: str, data: st.DataObject) -> None:
        """In one batch, so that nobody comes between: whoever buys in parts and sells as many shares never gains."""
        parts = data.draw(
            st.lists(st.one_of(SHARES, st.integers(1, 10**9).map(lambda n: n * SHARE)), min_size=1, max_size=4)
        )
        parts = [min(part, Fraction(10**15) / len(parts)) for part in parts]
        parts = [int(part / SHARE) * SHARE for part in parts]
        buys = [Asked(account, asset, self.key(), "BUY", shares=part) for part in parts]
        sells = [Asked(account, asset, self.key(), "SELL", shares=part) for part in data.draw(st.permutations(parts))]
        answers = self.market.place([*buys, *sells])
        self.check([*buys, *sells], answers)
        if all(answer.outcome.deal for answer in answers):
            deals = [answer.outcome.deal for answer in answers if answer.outcome.deal]
            paid = sum(deal.cost for deal in deals[: len(buys)])
            assert sum(deal.proceeds for deal in deals[len(buys) :]) <= paid

    @rule(asset=ASSETS)
    def sell_everything(self, asset: str) -> None:
        """When all have sold all they have, nothing is owed to anybody."""
        orders = [
            Asked(name, asset, self.key(), "SELL", shares=account.holding(asset).shares)
            for name, account in self.model.accounts.items()
            if account.holding(asset).shares
        ]
        self.check(orders, self.market.place(orders))
        if self.model.assets[asset].supply == 0:
            assert self.model.assets[asset].backing >= 0

    # ------------------------------------------------------------------------------------------------ circumstances

    @rule(data=st.data(), account=ACCOUNTS, asset=ASSETS, what=st.sampled_from(CIRCUMSTANCES))
    def place_under(self, data: st.DataObject, account: str, asset: str, what: str) -> None:
        """Orders while something stands in their way, which is then taken away: most steps should find a way open."""
        self.circumstance(what, account, asset, begins=True)
        orders = [self.draw_order(data) for _ in range(data.draw(st.integers(1, 3)))]
        orders += [replace(order, account=account, asset=asset) for order in orders[:1]]
        orders = [replace(order, key=self.key()) for order in orders]
        self.check(orders, self.market.place(orders))
        self.circumstance(what, account, asset, begins=False)

    def circumstance(self, what: str, account: str, asset: str, *, begins: bool) -> None:
        if what == "paused":
            self.market.pause(paused=begins)
            self.model.paused = begins
        elif what == "frozen":
            self.market.freeze(account, frozen=begins)
            self.model.accounts[account].frozen = begins
        elif what == "logged out":
            (self.market.log_out if begins else self.market.log_in)(account)
            self.model.accounts[account].logged_in = not begins
        else:
            self.market.set_status(asset, what if begins else "OPEN")
            self.model.assets[asset].status = what if begins else "OPEN"

    @rule(asset=ASSETS, account=ACCOUNTS, data=st.data())
    def set_limits(self, asset: str, account: str, data: st.DataObject) -> None:
        """Limits of any size, and ones that the account is about to reach."""
        held = self.model.accounts[account].holding(asset)
        half = max(int(held.shares / 2 / SHARE), 0) * SHARE
        gross = self.model.assets[asset].curve.sell(self.model.assets[asset].supply, half).gross
        near = st.sampled_from([held.shares, held.shares + half])
        most = data.draw(st.one_of(st.none(), near, SHARES))
        daily = data.draw(st.one_of(st.none(), st.sampled_from([held.redeemed, held.redeemed + gross]), AMOUNTS))
        most, daily = most or None, daily or None
        changes = AssetChanges(
            max_shares_per_account=None if most is None else text(min(most, Fraction(10**15)), SHARE),
            max_redemption_per_day=None if daily is None else text(min(daily, Fraction(10**12)), MONEY),
        )
        self.market.update(asset, changes)
        self.model.assets[asset].max_shares_per_account = most and min(most, Fraction(10**15))
        self.model.assets[asset].max_redemption_per_day = daily and min(daily, Fraction(10**12))

    @rule(asset=ASSETS, fee_rate=FEES)
    def set_fee(self, asset: str, fee_rate: Fraction) -> None:
        self.market.update(asset, AssetChanges(fee_rate=text(fee_rate, RATE)))
        self.model.set_fee(asset, fee_rate)

    @rule(asset=ASSETS, curve=CURVES_OF_ALL_KINDS)
    def set_curve(self, asset: str, curve: ExactCurve) -> None:
        if self.model.assets[asset].supply == 0:
            base_price, slope = text(curve.base_price, PRICE), text(curve.slope, SLOPE)
            self.market.update(asset, AssetChanges(base_price=base_price, slope=slope))
            fee_rate = self.model.assets[asset].curve.fee_rate
            self.model.assets[asset].curve = replace(curve, fee_rate=fee_rate)

    # ------------------------------------------------------------------------------------------------ what must hold

    @invariant()
    def the_market_is_the_models(self) -> None:
        if not self.model.accounts:
            return
        standing = self.market.standing()
        assert standing.unbalanced == []
        self.assets_are(standing)
        self.accounts_are(standing)
        cash = sum(standing.cash.values())
        assert cash + sum(a.backing + a.surplus for a in standing.assets.values()) == self.funded

    def assets_are(self, standing: Standing) -> None:
        for name, asset in self.model.assets.items():
            state = standing.assets[name]
            expected = (asset.supply, asset.backing, asset.surplus)
            assert (state.supply, state.backing, state.surplus) == expected
            assert (state.issued, state.ledger_backing, state.ledger_surplus) == expected
            assert state.trade_seq == asset.trade_seq
            assert state.backing >= asset.curve.reserve(state.supply)
            assert sum(shares for (_, of), shares in standing.shares.items() if of == name) == state.supply

    def accounts_are(self, standing: Standing) -> None:
        nothing = HoldingState(*[Fraction(0)] * 4)
        for name, account in self.model.accounts.items():
            assert {of: cash for (owner, of), cash in standing.cash.items() if owner == name} == account.cash
            for asset, holding in account.holdings.items():
                state = standing.holdings.get((name, asset), nothing)
                assert state.shares == holding.shares == standing.shares.get((name, asset), 0)
                assert (state.cost_basis, state.realized_pnl) == (holding.cost_basis, holding.realized_pnl)
                assert state.redeemed == holding.redeemed


@pytest.fixture
async def machine(postgres: EmbeddedPostgres) -> type[MarketMachine]:
    """The machine, on a database of its own."""
    MarketMachine.url = await copy_template(postgres, f"test_market_{random.getrandbits(32)}")
    return MarketMachine


def check_machine(machine: type[MarketMachine], profile: settings) -> None:
    number = int(os.environ.get("HYPOTHESIS_SEED", random.getrandbits(32)))
    sys.stdout.write(f"HYPOTHESIS_SEED={number}\n")
    run_state_machine_as_test(seed(number)(machine), settings=profile)


def test_the_market_is_the_model(machine: type[MarketMachine]) -> None:
    check_machine(machine, SHORT)


@pytest.mark.soak
def test_the_market_is_the_model_for_long(machine: type[MarketMachine]) -> None:
    check_machine(machine, LONG)
