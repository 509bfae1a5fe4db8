"""One asset's steps: exact ticks by hand, the same ticks however the causes are divided, and the rational model."""

from datetime import timedelta
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.exchange.orders import Trade
from app.money import RATE_UNIT
from app.pricing.candles import CandleRow
from app.pricing.engine import DRIFT_SECONDS, AssetState, OutOfSequence, advance
from app.pricing.intervals import Interval
from app.pricing.model import Parameters
from app.pricing.oracle_events import OracleEvent, OracleEventKind
from app.pricing.ticks import Tick, TickCause
from tests.pricing import rational_model as exact
from tests.pricing.causes import ASSET, ONE, PARAMETERS, T0, event, moment, new_state, trade

Cause = Trade | OracleEvent


def opened(parameters: Parameters = PARAMETERS) -> AssetState:
    return advance(state=new_state(parameters), parameters=parameters).after


def run(state: AssetState, *causes: Cause, parameters: Parameters = PARAMETERS) -> tuple[list[Tick], AssetState]:
    step = advance(
        state=state,
        parameters=parameters,
        trades=[cause for cause in causes if isinstance(cause, Trade)],
        events=[cause for cause in causes if isinstance(cause, OracleEvent)],
    )
    return step.ticks, step.after


# ------------------------------------------------------------------------------------------------ by hand


def test_a_new_asset_opens_at_its_base_price_when_it_was_made() -> None:
    step = advance(state=new_state(), parameters=PARAMETERS)
    assert step.ticks == [Tick(ASSET, 1, 0, TickCause.OPEN, 0, T0, ONE, ONE, ONE, RATE_UNIT, 0, stale=False)]
    assert step.closed == []
    assert step.after.tick == step.ticks[0]
    start = int(T0.timestamp())
    assert step.after.open_candles[0] == CandleRow(
        ASSET, Interval.S1, start, ONE, ONE, ONE, ONE, ONE, ONE, ONE, ONE, 0, 0
    )
    assert [(row.interval, row.open, row.trades) for row in step.after.open_candles] == [(i, ONE, 0) for i in Interval]


def test_a_new_asset_that_has_traded_already_opens_first() -> None:
    ticks, after = run(new_state(), trade(1, 5), trade(2, 6))
    assert [(tick.seq, tick.cause, tick.trade_seq, tick.at) for tick in ticks] == [
        (1, TickCause.OPEN, 0, T0), (2, TickCause.TRADE, 1, moment(5)), (3, TickCause.TRADE, 2, moment(6))
    ]  # fmt: skip
    assert (after.seq, after.trade_seq, after.at) == (3, 2, moment(6))


def test_trade_and_reading_by_hand() -> None:
    ticks, after = run(
        opened(), event(1, 1, value=2 * ONE), trade(1, 2, market=3 * ONE), trade(2, 902, market=4 * ONE, gross=0)
    )
    assert ticks == [
        # F = 0.2*2 + 0.8*1; w = 0.5 for no volume; D = (1 + 1.2) / 2.
        Tick(ASSET, 2, 0, TickCause.ORACLE, 0, moment(1), 1_100_000_000_000, ONE, 1_200_000_000_000, RATE_UNIT // 2,
             0, stale=False),
        # vol = V0 = 1,000: w = 0.75; D = 0.75*3 + 0.25*1.2.
        Tick(ASSET, 3, 0, TickCause.TRADE, 1, moment(2), 2_550_000_000_000, 3 * ONE, 1_200_000_000_000, 750_000_000,
             1_000_000_000, stale=False),
        # vol = 500: w = 0.5 + 0.5/3 = 2/3 and 301 s past the promise, more than its cadence of 300: w = 1.
        Tick(ASSET, 4, 0, TickCause.TRADE, 2, moment(902), 4 * ONE, 4 * ONE, 1_200_000_000_000, RATE_UNIT,
             0, stale=True),
    ]  # fmt: skip
    assert (after.oracle_seq, after.trade_seq, after.seq) == (1, 2, 4)


def test_causes_are_merged_by_their_time_and_a_trade_goes_first_on_a_tie() -> None:
    ticks, _ = run(
        opened(), trade(1, 1), trade(2, 3), trade(3, 5), event(1, 2, value=ONE), event(2, 3, value=ONE),
        event(3, 9, value=ONE),
    )  # fmt: skip
    assert [tick.cause.value for tick in ticks] == ["TRADE", "ORACLE", "TRADE", "ORACLE", "TRADE", "ORACLE"]
    assert [tick.trade_seq for tick in ticks] == [1, 1, 2, 2, 3, 3]


def test_each_source_keeps_its_order_and_time_never_goes_back() -> None:
    ticks, _ = run(opened(), trade(1, 5), trade(2, 4), event(1, 6, value=ONE), event(2, 1, value=ONE))
    assert [(tick.cause.value, tick.trade_seq, tick.at) for tick in ticks] == [
        ("TRADE", 1, moment(5)), ("TRADE", 2, moment(5)), ("ORACLE", 2, moment(6)), ("ORACLE", 2, moment(6))
    ]  # fmt: skip


def test_what_comes_late_is_dated_by_the_tick_before_it() -> None:
    _, state = run(opened(), trade(1, 100))
    ticks, _ = run(state, event(1, 99, value=2 * ONE, fresh=10, cadence=100))
    assert [(tick.at, tick.stale) for tick in ticks] == [(moment(100), False)]
    # The promise counts from the reading's own time: over at 109, not at 110.
    assert advance(state=run(state, event(1, 99, value=2 * ONE, fresh=10))[1], parameters=PARAMETERS,
                   now=moment(109.5)).ticks[0].stale  # fmt: skip


def test_overrides_and_refreshes_make_a_tick_each() -> None:
    ticks, _ = run(
        opened(),
        event(1, 1, value=None),
        event(2, 2, value=8 * ONE, kind=OracleEventKind.OVERRIDE),
        event(3, 3, value=None),
        event(4, 4, value=3 * ONE),
    )
    assert [(tick.cause.value, tick.fundamental, tick.market_weight) for tick in ticks] == [
        ("ORACLE", ONE, RATE_UNIT),
        ("ORACLE", 8 * ONE, RATE_UNIT // 2),
        ("ORACLE", 8 * ONE, RATE_UNIT // 2),
        ("ORACLE", 7 * ONE, RATE_UNIT // 2),
    ]


def test_a_trade_s_own_tick_has_the_market_price_that_it_left_and_later_ticks_the_base_price_of_now() -> None:
    moved = Parameters(5 * ONE, 200_000_000, 1_000_000_000, 900)
    ticks, state = run(opened(), trade(1, 1, market=ONE, supply=0), parameters=moved)
    assert [tick.market for tick in ticks] == [ONE]
    ticks, _ = run(state, event(1, 2, value=5 * ONE), parameters=moved)
    assert [(tick.market, tick.display) for tick in ticks] == [(5 * ONE, 5 * ONE)]


@pytest.mark.parametrize(
    ("causes", "message"),
    [
        ([trade(2, 1)], "trade 2 of asset 7 came where 1 of asset 7 was due"),
        ([trade(1, 1), trade(1, 2)], "trade 1 of asset 7 came where 2 of asset 7 was due"),
        ([trade(1, 1), trade(3, 2)], "trade 3 of asset 7 came where 2 of asset 7 was due"),
        ([trade(1, 1, asset_id=8)], "trade 1 of asset 8 came where 1 of asset 7 was due"),
        ([event(2, 1, value=ONE)], "oracle event 2 of asset 7 came where 1 of asset 7 was due"),
        ([event(1, 1, value=ONE, asset_id=8)], "oracle event 1 of asset 8 came where 1 of asset 7 was due"),
    ],
)
def test_what_is_not_the_next_of_its_kind_is_refused(causes: list[Cause], message: str) -> None:
    state = opened()
    with pytest.raises(OutOfSequence, match=message):
        run(state, *causes)
    assert state == opened()


# ------------------------------------------------------------------------------------------------ drifting


def test_an_idle_asset_whose_price_has_moved_gets_one_decay_tick() -> None:
    _, state = run(opened(), event(1, 0, value=2 * ONE), trade(1, 0))
    idle = state.at + timedelta(seconds=DRIFT_SECONDS)
    early = advance(state=state, parameters=PARAMETERS, now=idle - timedelta(microseconds=1))
    assert (early.ticks, early.after) == ([], state)
    step = advance(state=state, parameters=PARAMETERS, now=idle)
    (tick,) = step.ticks
    assert (tick.seq, tick.cause, tick.at, tick.volume, tick.trade_seq) == (4, TickCause.DECAY, idle, 0, 1)
    # vol = 1,000 * 2^(-3/900) = 997.692...: w = 0.749711189, D = w*2 + (1-w)*1.2.
    assert (tick.market_weight, tick.display) == (749_711_189, 1_799_768_951_200)
    assert advance(state=step.after, parameters=PARAMETERS, now=idle + timedelta(seconds=2)).ticks == []


def test_an_asset_whose_price_stands_still_gets_none() -> None:
    _, state = run(opened(), event(1, 0, value=2 * ONE, fresh=1_000))
    assert advance(state=state, parameters=PARAMETERS, now=moment(1_000)).ticks == []


def test_a_price_has_moved_from_a_ten_millionth_of_itself_on() -> None:
    below = Parameters(2 * ONE + 199_999, 200_000_000, 1_000_000_000, 900)
    enough = Parameters(2 * ONE + 200_000, 200_000_000, 1_000_000_000, 900)
    state = opened(Parameters(2 * ONE, 200_000_000, 1_000_000_000, 900))
    assert advance(state=state, parameters=below, now=moment(3)).ticks == []
    (tick,) = advance(state=state, parameters=enough, now=moment(3)).ticks
    assert (tick.cause, tick.display, tick.market) == (TickCause.DECAY, 2 * ONE + 200_000, 2 * ONE + 200_000)


def test_an_asset_whose_fundamental_has_become_stale_gets_a_tick_that_says_so() -> None:
    _, state = run(opened(), event(1, 0, value=ONE, fresh=600))
    assert advance(state=state, parameters=PARAMETERS, now=moment(600)).ticks == []
    (tick,) = advance(state=state, parameters=PARAMETERS, now=moment(600.000001)).ticks
    assert (tick.cause, tick.display, tick.stale) == (TickCause.DECAY, ONE, True)


def test_who_gets_another_tick_does_not_drift() -> None:
    _, state = run(opened(), event(1, 0, value=2 * ONE), trade(1, 0))
    step = advance(state=state, parameters=PARAMETERS, trades=[trade(2, 1)], now=moment(50))
    assert [(tick.cause.value, tick.at) for tick in step.ticks] == [("TRADE", moment(1))]


def test_nothing_new_changes_nothing() -> None:
    state = opened()
    step = advance(state=state, parameters=PARAMETERS)
    assert (step.after, step.ticks, step.closed) == (state, [], [])


# ------------------------------------------------------------------------------------------------ properties


@st.composite
def histories(draw: st.DrawFn) -> list[Cause]:
    """Causes in the order of their times, seconds to hours apart; sequences from 1."""
    gaps = st.sampled_from([0.0, 0.000001, 0.3, 2.0, 45.0, 333.333333, 4_000.0])
    prices = st.integers(ONE // 10, 10 * ONE)
    kinds = st.sampled_from(["TRADE", "TRADE", "READING", "OVERRIDE", "REFRESH"])
    now, counts, causes = 0.0, {"trade": 0, "event": 0}, list[Cause]()
    for kind, gap, price, size in draw(st.lists(st.tuples(kinds, gaps, prices, st.integers(1, 10**10)), max_size=25)):
        now = round(now + gap, 6)
        counts["trade" if kind == "TRADE" else "event"] += 1
        if kind == "TRADE":
            causes.append(trade(counts["trade"], now, market=price, gross=size))
        else:
            value = None if kind == "REFRESH" else price
            oracle_kind = OracleEventKind(kind)
            causes.append(event(counts["event"], now, value=value, kind=oracle_kind, cadence=120, fresh=200))
    return causes


@given(history=histories(), cuts=st.sets(st.integers(0, 25)))
def test_however_causes_are_divided_into_steps_the_ticks_and_candles_are_the_same(
    history: list[Cause], cuts: set[int]
) -> None:
    # All in one step, ties would put trades first: make the order of the division that of the merge.
    history = sorted(history, key=lambda cause: (cause.at, isinstance(cause, OracleEvent)))
    whole = advance(
        state=new_state(),
        parameters=PARAMETERS,
        trades=[cause for cause in history if isinstance(cause, Trade)],
        events=[cause for cause in history if isinstance(cause, OracleEvent)],
    )
    state, ticks, closed = new_state(), list[Tick](), list[CandleRow]()
    bounds = sorted({0, len(history), *(cut for cut in cuts if cut < len(history))})
    for first, last in zip([0, *bounds], bounds, strict=False):
        part = history[first:last]
        step = advance(
            state=state,
            parameters=PARAMETERS,
            trades=[cause for cause in part if isinstance(cause, Trade)],
            events=[cause for cause in part if isinstance(cause, OracleEvent)],
        )
        state, ticks, closed = step.after, ticks + step.ticks, closed + step.closed
    assert ticks == whole.ticks
    assert state == whole.after
    assert set(closed) == set(whole.closed)
    assert len(closed) == len(whole.closed)


@given(history=histories())
def test_every_cause_makes_exactly_one_tick(history: list[Cause]) -> None:
    ticks, after = run(opened(), *history)
    trades = [cause for cause in history if isinstance(cause, Trade)]
    assert [tick.seq for tick in ticks] == list(range(2, len(history) + 2))
    made = [(tick.trade_seq, tick.volume, tick.market) for tick in ticks if tick.cause is TickCause.TRADE]
    assert made == [(cause.seq, cause.gross, cause.market_after) for cause in trades]
    assert sum(tick.volume for tick in ticks) == sum(cause.gross for cause in trades)
    assert all(before.at <= tick.at for before, tick in pairwise(ticks))
    assert after.oracle_seq == len(history) - len(trades)


PARAMETERS_DRAWN = st.builds(
    Parameters,
    base_price=st.integers(ONE // 10, 10 * ONE),
    fundamental_weight=st.integers(1, RATE_UNIT),
    volume_scale=st.integers(1, 10**10),
    half_life_seconds=st.sampled_from([1, 60, 900, 86_400]),
)


def expected(rational: exact.RationalAsset, cause: Cause) -> tuple[exact.Between, exact.Between, bool]:
    """Let the cause happen to the exact model: w and D then, and whether F is stale."""
    at = Fraction((cause.at - T0) // timedelta(microseconds=1), 10**6)
    if isinstance(cause, Trade):
        rational.trade(at, Fraction(cause.gross, 10**6), cause.market_after * exact.PRICE)
    else:
        promise = (Fraction(cause.cadence_seconds), Fraction(cause.fresh_seconds))
        if cause.value is None:
            rational.refresh(at, *promise)
        elif cause.kind is OracleEventKind.OVERRIDE:
            rational.override(at, cause.value * exact.PRICE, *promise)
        else:
            rational.reading(at, cause.value * exact.PRICE, *promise)
    return rational.weight(at), rational.display(at), rational.is_stale(at)


@settings(max_examples=60)
@given(history=histories(), parameters=PARAMETERS_DRAWN)
def test_every_tick_lies_within_what_the_rational_model_allows(history: list[Cause], parameters: Parameters) -> None:
    history = sorted(history, key=lambda cause: (cause.at, isinstance(cause, OracleEvent)))
    ticks, _ = run(opened(parameters), *history, parameters=parameters)
    rational = exact.RationalAsset(
        parameters.base_price * exact.PRICE,
        parameters.fundamental_weight * exact.WEIGHT,
        Fraction(parameters.volume_scale, 10**6),
        Fraction(parameters.half_life_seconds),
    )
    for cause, tick in zip(history, ticks, strict=True):
        weight, display, stale = expected(rational, cause)
        assert tick.stale is stale
        assert tick.fundamental * exact.PRICE == rational.fundamental
        assert tick.market * exact.PRICE == rational.market
        assert weight.holds(tick.market_weight * exact.WEIGHT)
        assert display.holds(tick.display * exact.PRICE)
