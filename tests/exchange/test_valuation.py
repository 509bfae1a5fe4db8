"""What holdings are worth: exact values by hand, and laws that hold for any position."""

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from app.exchange.assets import Asset, AssetStatus
from app.exchange.curve import Curve, required_reserve
from app.exchange.valuation import (
    PortfolioValue,
    Position,
    PositionValue,
    coverage,
    value_portfolio,
    value_position,
)
from app.money import MONEY_UNIT, PRICE_UNIT, RATE_UNIT, SHARE_UNIT

CURVE = Curve(PRICE_UNIT, 5 * 10**15, 10**7)  # 1 + 0.005 * S, fee 1 %


def asset(supply: int, *, curve: Curve = CURVE, backing: int | None = None) -> Asset:
    return Asset(
        id=7, symbol="RAIN", name="Rain", description="Rain", category="WEATHER", status=AssetStatus.OPEN,
        status_reason=None, quote_currency="USDC", base_price=curve.base_price, slope=curve.slope,
        fee_rate=curve.fee_rate, min_notional=10_000, max_shares_per_account=None, max_redemption_per_day=None,
        fundamental_weight=2 * 10**8, volume_scale=10**9, volume_half_life_seconds=900, supply=supply,
        backing=required_reserve(curve, supply) if backing is None else backing, surplus=0, lp_capital=0,
        trade_seq=1, last_trade_at=None, created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip


def position(shares: int, *, cost_basis: int, realized_pnl: int = 0) -> Position:
    return Position(1, 1, 7, shares, cost_basis, realized_pnl)


def test_a_position_is_worth_m_and_what_selling_it_would_really_pay() -> None:
    # M(100) = 1.5; selling all 100 pays R(100) = 125 less 1 %
    held = position(100 * SHARE_UNIT, cost_basis=126_250_000)

    assert value_position(held, asset(100 * SHARE_UNIT)) == PositionValue(
        average_price=1_262_500_000_000,
        market_value=150 * MONEY_UNIT,
        liquidation_value=123_750_000,
        unrealized_pnl=23_750_000,
    )


def test_a_part_of_the_supply_sells_from_the_top_of_the_curve() -> None:
    # R(100) - R(60) = 125 - 69 = 56, less 0.56
    value = value_position(position(40 * SHARE_UNIT, cost_basis=0), asset(100 * SHARE_UNIT))

    assert (value.market_value, value.liquidation_value) == (60 * MONEY_UNIT, 55_440_000)


def test_a_closed_position_is_worth_nothing() -> None:
    closed = position(0, cost_basis=0, realized_pnl=5)
    assert value_position(closed, asset(100 * SHARE_UNIT)) == PositionValue(0, 0, 0, 0)


def test_market_value_is_rounded_half_to_even() -> None:
    flat = asset(SHARE_UNIT, curve=Curve(5 * PRICE_UNIT // 10, 1, 0))

    assert value_position(position(1_000, cost_basis=0), flat).market_value == 0  # 0.5 of a base unit
    assert value_position(position(3_000, cost_basis=0), flat).market_value == 2  # 1.5
    assert value_position(position(5_000, cost_basis=0), flat).market_value == 2  # 2.5


def test_what_would_pay_less_than_its_fee_is_worth_nothing() -> None:
    dust = value_position(position(1, cost_basis=1), asset(100 * SHARE_UNIT))
    assert (dust.market_value, dust.liquidation_value, dust.unrealized_pnl) == (0, 0, -1)


def test_a_portfolio_adds_up_and_counts_the_cash_once() -> None:
    whole = asset(100 * SHARE_UNIT)
    held = [
        (position(100 * SHARE_UNIT, cost_basis=126_250_000, realized_pnl=7), whole),
        (position(0, cost_basis=0, realized_pnl=-3), whole),
    ]

    assert value_portfolio(cash=1_000, holdings=held) == PortfolioValue(
        cash=1_000,
        market_value=150 * MONEY_UNIT,
        liquidation_value=123_750_000 + 1_000,
        realized_pnl=4,
        unrealized_pnl=23_750_000,
    )
    assert value_portfolio(cash=0, holdings=[]) == PortfolioValue(0, 0, 0, 0, 0)


def test_coverage_is_rounded_down() -> None:
    # required 125
    assert coverage(asset(100 * SHARE_UNIT)) == RATE_UNIT
    assert coverage(asset(100 * SHARE_UNIT, backing=125_000_001)) == RATE_UNIT + 8
    assert coverage(asset(0)) is None


@given(supply=st.integers(1, 10**9 * SHARE_UNIT), part=st.integers(0, 10**6), basis=st.integers(0, 10**15))
def test_liquidation_never_pays_more_than_m_says(supply: int, part: int, basis: int) -> None:
    held = position(supply * part // 10**6, cost_basis=basis)
    value = value_position(held, asset(supply))

    assert 0 <= value.liquidation_value <= value.market_value
    assert value.unrealized_pnl == value.market_value - basis
    assert value_position(replace(held, cost_basis=0), asset(supply)).market_value == value.market_value
