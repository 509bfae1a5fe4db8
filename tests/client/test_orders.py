"""Orders: exact bounds from a quote, one key through every doubt, and refusals by type."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_client import OrderRequest, OutcomeUnknown, Quote, Refused, RequestFailed
from megatron_client.orders import Amount, bounded_order, exact
from tests.client.standin import START, Json, markets
from tests.client.test_requests import Line, failed

REQUEST = OrderRequest(asset_id="id-A", side="BUY", client_order_id="k-1", shares="2", max_total="3")
ORDER = {
    "id": "o1", "clientOrderId": "k-1", "assetId": "id-A", "side": "BUY", "type": "MARKET", "status": "FILLED",
    "reason": None, "shares": "2", "amount": None, "filledShares": "2", "averagePrice": "1.005", "gross": "2.01",
    "fee": "0.01005", "createdAt": START.isoformat(), "updatedAt": START.isoformat(),
}  # fmt: skip


def quote(side: str, *, total: str = "1", shares: str = "1", amount: str | None = None) -> Quote:
    one = Decimal(1)
    return Quote(
        asset_id="id-A", symbol="A", side=side, shares=Decimal(shares), gross=one, fee=one, total=Decimal(total),
        average_price=one, price_before=one, price_after=one, price_impact=one, at_trade_seq=1,
        amount=Decimal(amount) if amount else None, server_time=START,
    )  # fmt: skip


def bound_of(quoted: Quote, slippage: Amount) -> tuple[str | None, str | None, str | None]:
    """maxTotal, minTotal and minShares."""
    order = bounded_order(quoted, client_order_id="k", slippage=slippage)
    return order.max_total, order.min_total, order.min_shares


@pytest.mark.parametrize(
    ("quoted", "slippage", "expected"),
    [
        (quote("BUY", total="100"), "0.005", ("100.500000", None, None)),
        (quote("BUY", total="0.000001"), "0.005", ("0.000002", None, None)),
        (quote("BUY", total="999999999999.999999"), "0.003", ("1002999999999.999999", None, None)),
        (quote("BUY", total="5.123457"), 0, ("5.123457", None, None)),
        (quote("BUY", shares="0.333333333", amount="1"), "0.003", (None, None, "0.332333333")),
        (quote("BUY", shares="0.000000001", amount="1"), "0.003", (None, None, None)),
        (quote("SELL", total="5.123457"), "0.003", (None, "5.108086", None)),
        (quote("SELL", total="0.000001"), "0.003", (None, None, None)),
        (quote("BUY", total="90.452251"), "0.001", ("90.542704", None, None)),
        (quote("BUY", shares="1.105000001", amount="100"), "0.001", (None, None, "1.103895000")),
        (quote("SELL", total="89.999999"), "0.001", (None, "89.909999", None)),
    ],
)
def test_bounds_are_exact_and_rounded_the_strict_way(
    quoted: Quote, slippage: Amount, expected: tuple[str | None, str | None, str | None]
) -> None:
    assert bound_of(quoted, slippage) == expected


@given(total=st.integers(1, 10**18), slippage=st.integers(0, 10**9 - 1))
def test_bounds_are_those_of_integer_arithmetic(total: int, slippage: int) -> None:
    part, amount = Decimal(slippage).scaleb(-9), str(Decimal(total).scaleb(-6))
    most = bound_of(quote("BUY", total=amount), part)[0]
    least = bound_of(quote("SELL", total=amount), part)[1]
    assert int(Decimal(most or 0).scaleb(6)) == -(-total * (10**9 + slippage) // 10**9)
    assert int(Decimal(least or 0).scaleb(6)) == total * (10**9 - slippage) // 10**9


def test_an_order_is_of_what_was_quoted() -> None:
    bought = bounded_order(quote("BUY", shares="0.3", amount="10.50"), client_order_id="k", deadline_seconds=None)
    assert bought.to_input() == {
        "assetId": "id-A", "side": "BUY", "clientOrderId": "k", "amount": "10.50", "minShares": "0.298500000",
    }  # fmt: skip
    sold = bounded_order(quote("SELL", shares="0.3", total="2"), client_order_id="k", deadline_seconds=0.5)
    assert sold.to_input() == {
        "assetId": "id-A", "side": "SELL", "clientOrderId": "k", "shares": "0.3", "minTotal": "1.990000",
        "deadline": "2026-01-01T00:00:00.500000+00:00",
    }  # fmt: skip


@pytest.mark.parametrize("slippage", ["-0.001", "1", "NaN"])
def test_a_slippage_that_is_none_is_refused(slippage: str) -> None:
    with pytest.raises(ValueError, match="slippage must be"):
        bound_of(quote("BUY"), slippage)


def test_amounts_are_exact_or_refused() -> None:
    number: Any = 0.1
    assert exact(Decimal("1E-9"), "shares") == "0.000000001"
    assert (exact("10.50", "shares"), exact(7, "shares")) == ("10.50", "7")
    with pytest.raises(TypeError, match=r"shares must be exact: give 0\.1 as a Decimal or as text, not as a float"):
        exact(number, "shares")
    with pytest.raises(ValueError, match="shares must be a number; got 'Infinity'"):
        exact("Infinity", "shares")


def placed(order: Json | None, *errors: Json) -> httpx.Response:
    return httpx.Response(200, json={"data": {"orderPlace": {"order": order, "userErrors": list(errors)}}})


def known(*script: httpx.Response | Exception) -> Line:
    return Line([httpx.Response(200, json={"data": markets("A")}), *script])


async def test_an_order_is_bounded_by_the_quote_and_by_the_servers_clock() -> None:
    fields = dict.fromkeys(("gross", "fee", "averagePrice", "priceBefore", "priceAfter", "priceImpact"), "1")
    told = {"assetId": "id-A", "side": "BUY", "shares": "2", "total": "2.02005", "atTradeSeq": 4, **fields}
    at = "2031-05-05T10:00:00.250000Z"
    quoted = httpx.Response(200, json={"data": {"serverTime": at, "quote": {"quote": told, "userErrors": []}}})
    line = known(quoted, placed(ORDER))
    client = line.made(token="secret")
    order = await client.place_order(
        "A", "BUY", shares=Decimal("2"), slippage=Decimal("0.001"), deadline_seconds=10, client_order_id="k-1"
    )
    assert line.posted[1]["variables"] == {"assetId": "id-A", "side": "BUY", "shares": "2"}
    assert line.posted[2]["variables"]["input"] == {
        "assetId": "id-A",
        "side": "BUY",
        "clientOrderId": "k-1",
        "shares": "2",
        "maxTotal": "2.022071",
        "deadline": "2031-05-05T10:00:10.250000+00:00",
    }
    assert (order.status, order.symbol, order.filled_shares, order.fee) == (
        "FILLED",
        "A",
        Decimal("2"),
        Decimal("0.01005"),
    )
    assert order.created_at == datetime(2026, 1, 1, tzinfo=UTC)


async def test_an_order_keeps_its_key_through_every_doubt() -> None:
    doubtful: list[httpx.Response | Exception] = [
        httpx.ReadTimeout("slow"),
        httpx.ReadError("cut"),
        httpx.Response(502),
        failed("SERVICE_UNAVAILABLE", status=503, retryable=True, retryAfterMs=300),
        failed("INTERNAL_SERVER_ERROR"),
        failed("RATE_LIMITED", status=429, retryAfterMs=900),
        placed(None, {"code": "OVERLOADED", "message": "wait", "field": None}),
    ]
    line = known(*doubtful, placed(ORDER))
    client = line.made()
    await client.fetch_markets()
    order = await client.send_order(REQUEST)
    assert order.status == "FILLED"
    assert len(set(line.bodies[1:])) == 1
    assert len(line.bodies) == 9
    assert line.posted[1]["variables"]["input"]["clientOrderId"] == "k-1"


async def test_an_order_that_cannot_be_followed_up_says_so() -> None:
    line = known(httpx.ReadError("cut"), failed("UNAUTHENTICATED", status=401))
    client = line.made()
    await client.fetch_markets()
    with pytest.raises(OutcomeUnknown) as raised:
        await client.send_order(REQUEST)
    assert raised.value.request is REQUEST
    assert str(raised.value) == (
        "it is not known whether order k-1 was executed (ReadError: cut, then UNAUTHENTICATED: it is UNAUTHENTICATED): "
        "send_order with this error's `request` tells, and never executes it twice"
    )


async def test_an_order_that_surely_was_not_executed_is_not_called_doubtful() -> None:
    line = known(httpx.ConnectError("away"), failed("RATE_LIMITED"), failed("FORBIDDEN"))
    client = line.made()
    await client.fetch_markets()
    with pytest.raises(RequestFailed, match="FORBIDDEN"):
        await client.send_order(REQUEST)


async def test_refusals_carry_their_code_their_field_and_their_figures() -> None:
    slipped = {
        "code": "SLIPPAGE_EXCEEDED", "message": "dearer now", "field": ["input", "maxTotal"],
        "bound": "3", "actual": "3.000001", "atTradeSeq": 12,
    }  # fmt: skip
    line = known(placed({**ORDER, "status": "REJECTED", "reason": "SLIPPAGE_EXCEEDED"}, slipped))
    client = line.made()
    await client.fetch_markets()
    with pytest.raises(Refused, match=re.escape("SLIPPAGE_EXCEEDED: dearer now")) as raised:
        await client.send_order(REQUEST)
    refused = raised.value
    assert (refused.code, refused.field) == ("SLIPPAGE_EXCEEDED", ("input", "maxTotal"))
    assert (refused.details.bound, refused.details.actual, refused.details.at_trade_seq) == (
        Decimal(3),
        Decimal("3.000001"),
        12,
    )
    assert refused.order is not None
    assert (refused.order.status, refused.order.reason) == ("REJECTED", "SLIPPAGE_EXCEEDED")


async def test_exactly_one_size_is_taken() -> None:
    line = known()
    with pytest.raises(ValueError, match="give exactly one of shares and amount; got shares=1, amount=2"):
        await line.made().place_order("A", "BUY", shares=1, amount=2)
    with pytest.raises(ValueError, match="give exactly one of shares and amount; got shares=None, amount=None"):
        await line.made().place_order("A", "BUY")
