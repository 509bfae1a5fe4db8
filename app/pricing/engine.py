"""One asset's step: what its new trades and oracle events, or the passing of time, make of it. Pure: no I/O, no clock.

Every trade and every oracle event makes exactly one tick; a new asset begins with an OPEN tick; an idle one drifts. How
all that is read and written, and by whom, is not known here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeAlias

from app.exchange.orders import Trade
from app.pricing.candles import CandleRow, Folder
from app.pricing.model import (
    SECOND,
    ModelState,
    Parameters,
    after_override,
    after_reading,
    after_refresh,
    after_trade,
    opening,
    prices_at,
    rebased,
)
from app.pricing.ticks import Tick, TickCause, microseconds

if TYPE_CHECKING:
    from app.pricing.oracle_events import OracleEvent

DRIFT_SECONDS: Final = 3
"""An asset without a tick for so long is idle: it gets a DECAY tick when its D has moved."""
DRIFT_SHARE: Final = 10**7
"""D has moved when it differs by at least a 10^7th of itself."""
_DRIFT_AFTER: Final = timedelta(seconds=DRIFT_SECONDS)

Cause: TypeAlias = "Trade | OracleEvent"


@dataclass(frozen=True, slots=True)
class AssetState:
    """Where an asset stands. `tick` is its last one, None until the OPEN tick; its position may be 0 (not written)."""

    asset_id: int
    created_at: datetime
    tick: Tick | None
    oracle_seq: int
    model: ModelState
    open_candles: tuple[CandleRow, ...]

    @property
    def seq(self) -> int:
        """Of the last tick; 0 before the first."""
        return self.tick.seq if self.tick else 0

    @property
    def trade_seq(self) -> int:
        """The last trade taken in; 0 for none."""
        return self.tick.trade_seq if self.tick else 0

    @property
    def at(self) -> datetime:
        """Of the last tick; when the asset was made, before the first."""
        return self.tick.at if self.tick else self.created_at


@dataclass(frozen=True, slots=True)
class Step:
    """What came of an asset: its state before and after, the ticks (position 0: the store gives them theirs), and the
    candles that are over."""

    before: AssetState
    after: AssetState
    ticks: list[Tick]
    closed: list[CandleRow]


class OutOfSequence(ValueError):  # noqa: N818
    """A cause is not the next of its kind: the caller left one out, or brought one twice."""

    def __init__(self, cause: Cause, *, asset_id: int, due: int) -> None:
        kind = "trade" if isinstance(cause, Trade) else "oracle event"
        super().__init__(
            f"{kind} {cause.seq} of asset {cause.asset_id} came where {due} of asset {asset_id} was due: "
            "read what is missing from the database first"
        )


def advance(
    *,
    state: AssetState,
    parameters: Parameters,
    trades: Sequence[Trade] = (),
    events: Sequence["OracleEvent"] = (),
    now: datetime | None = None,
) -> Step:
    """Take in the asset's next trades and oracle events, each list from the next of its sequence on and gapless.

    The two are merged by `at`, each keeping its own order (on a tie the trade is first); a tick's `at` is its cause's,
    or the tick's before where that is later. An asset without any tick gets its OPEN tick first. With `now`, the
    asset drifts if it is idle then and nothing else came. Raises `OutOfSequence`, and then nothing has changed.
    """
    causes = _merged(trades, events)
    drifts_at = now if now is not None and not causes and _has_drifted(state, parameters, now) else None
    if state.tick is not None and not causes and drifts_at is None:
        return Step(state, state, [], [])
    run = _Run(state, parameters)
    if state.tick is None:
        run.open()
    for cause in causes:
        if isinstance(cause, Trade):
            run.take_trade(cause)
        else:
            run.take_event(cause)
    if drifts_at is not None:
        run.drift(drifts_at)
    return run.step()


def _merged(trades: Sequence[Trade], events: Sequence["OracleEvent"]) -> Sequence[Cause]:
    if not trades or not events:
        return trades or events
    causes: list[Cause] = []
    done = 0
    for trade in trades:
        while done < len(events) and events[done].at < trade.at:
            causes.append(events[done])
            done += 1
        causes.append(trade)
    return causes + list(events[done:])


def _has_drifted(state: AssetState, parameters: Parameters, now: datetime) -> bool:
    last = state.tick
    if last is None or now - last.at < _DRIFT_AFTER:
        return False
    prices = prices_at(rebased(state.model, parameters), parameters, at=microseconds(now))
    return prices.stale is not last.stale or abs(prices.display - last.display) * DRIFT_SHARE >= last.display


class _Run:
    """A step under way."""

    __slots__ = ("at", "at_us", "before", "folder", "model", "oracle_seq", "parameters", "seq", "ticks", "trade_seq")

    def __init__(self, state: AssetState, parameters: Parameters) -> None:
        self.before = state
        self.parameters = parameters
        self.model = state.model
        self.seq = state.seq
        self.trade_seq = state.trade_seq
        self.oracle_seq = state.oracle_seq
        self.at = state.at
        self.at_us = microseconds(state.at)
        self.ticks: list[Tick] = []
        self.folder = Folder(state.asset_id, state.open_candles)

    def open(self) -> None:
        self.model = opening(self.parameters, at=self.at_us)
        self._tick(TickCause.OPEN, 0)

    def take_trade(self, trade: Trade) -> None:
        self.trade_seq += 1
        if trade.seq != self.trade_seq or trade.asset_id != self.before.asset_id:
            raise OutOfSequence(trade, asset_id=self.before.asset_id, due=self.trade_seq)
        self._reach(trade.at)
        self.model = after_trade(
            self.model,
            self.parameters,
            at=self.at_us,
            gross=trade.gross,
            market=trade.market_after,
            supply=trade.supply_after,
        )
        self._tick(TickCause.TRADE, trade.gross)

    def take_event(self, event: "OracleEvent") -> None:
        self.oracle_seq += 1
        if event.seq != self.oracle_seq or event.asset_id != self.before.asset_id:
            raise OutOfSequence(event, asset_id=self.before.asset_id, due=self.oracle_seq)
        self._reach(event.at)
        self.model = _after_event(rebased(self.model, self.parameters), self.parameters, event)
        self._tick(TickCause.ORACLE, 0)

    def drift(self, now: datetime) -> None:
        self._reach(now)
        self.model = rebased(self.model, self.parameters)
        self._tick(TickCause.DECAY, 0)

    def step(self) -> Step:
        """What has come of it: at least one tick."""
        open_candles, closed = self.folder.finish()
        after = AssetState(
            self.before.asset_id, self.before.created_at, self.ticks[-1], self.oracle_seq, self.model, open_candles
        )
        return Step(self.before, after, self.ticks, closed)

    def _reach(self, at: datetime) -> None:
        """Time goes on to the cause's, and never back."""
        if at > self.at:
            self.at = at
            self.at_us = microseconds(at)

    def _tick(self, cause: TickCause, volume: int) -> None:
        display, market, fundamental, market_weight, stale = prices_at(self.model, self.parameters, at=self.at_us)
        self.seq += 1
        self.ticks.append(
            Tick(
                self.before.asset_id,
                self.seq,
                0,
                cause,
                self.trade_seq,
                self.at,
                display,
                market,
                fundamental,
                market_weight,
                volume,
                stale,
            )
        )
        self.folder.add(
            self.at_us // SECOND,
            display=display,
            market=market,
            volume=volume,
            trades=1 if cause is TickCause.TRADE else 0,
        )


def _after_event(model: ModelState, parameters: Parameters, event: "OracleEvent") -> ModelState:
    """F's freshness counts from the event's own time, even where its tick is dated later."""
    at = microseconds(event.at)
    if event.value is None:
        return after_refresh(model, at=at, cadence_seconds=event.cadence_seconds, fresh_seconds=event.fresh_seconds)
    if event.kind == "OVERRIDE":
        return after_override(
            model, at=at, value=event.value, cadence_seconds=event.cadence_seconds, fresh_seconds=event.fresh_seconds
        )
    return after_reading(
        model,
        parameters,
        at=at,
        value=event.value,
        cadence_seconds=event.cadence_seconds,
        fresh_seconds=event.fresh_seconds,
    )
