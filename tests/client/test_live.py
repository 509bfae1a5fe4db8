"""The client against the real API: an account, its orders and the market's books, with exact values."""

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator
from decimal import Decimal

import httpx
import pytest

from megatron_client import AccountEvent, Client, NotLoggedIn, Order, Refused, SessionEnded, UnknownAsset
from tests.conftest import ADMIN_PASSWORD, LiveApi

_numbers = itertools.count(1)
ONE = Decimal(1)
PASSWORD = "a long pass phrase 7"


def new_symbol(url: str) -> str:
    """An asset of the default curve: P0 = 1, k = 0.005, fee 0.5 %."""
    symbol = f"BOT{next(_numbers)}-{secrets.token_hex(3).upper()}"
    with httpx.Client(base_url=url) as http:

        def ask(query: str, variables: dict[str, object], token: str = "") -> dict[str, dict[str, dict[str, str]]]:
            headers = {"authorization": f"Bearer {token}"} if token else {}
            answer = http.post("/graphql", json={"query": query, "variables": variables}, headers=headers).json()
            data: dict[str, dict[str, dict[str, str]]] = answer["data"]
            return data

        log_in = "mutation($p: String!) { adminLogIn(input: {password: $p}) { session { token } } }"
        token = ask(log_in, {"p": ADMIN_PASSWORD})["adminLogIn"]["session"]["token"]
        create = "mutation($i: AssetCreateInput!) { assetCreate(input: $i) { asset { symbol } } }"
        new = {"symbol": symbol, "name": "Bot", "description": "d", "category": "TEST", "idempotencyKey": symbol}
        assert ask(create, {"i": new}, token)["assetCreate"]["asset"] == {"symbol": symbol}
    return symbol


async def new_account(client: Client, funds: str = "1000") -> None:
    await client.sign_up(f"bot-{secrets.token_hex(6)}@example.com", PASSWORD)
    await client.dev_fund(funds)


@pytest.fixture
async def client(live_api: LiveApi) -> AsyncIterator[Client]:
    async with Client(live_api.url, patience_seconds=5) as made:
        await new_account(made)
        yield made


@pytest.fixture
def symbol(live_api: LiveApi) -> str:
    return new_symbol(live_api.url)


async def test_a_purchase_and_a_sale_are_exact_to_the_last_digit(client: Client, symbol: str) -> None:
    quote = await client.fetch_quote(symbol, "BUY", shares=100)
    # R(100) = 100 + 0.005 * 100^2 / 2 = 125, and half a percent of that.
    assert (quote.gross, quote.fee, quote.total) == (Decimal(125), Decimal("0.625"), Decimal("125.625"))
    bought = await client.place_order(symbol, "BUY", shares="100", slippage=0, client_order_id="b-1")
    assert (bought.status, bought.filled_shares, bought.gross, bought.fee) == (
        "FILLED",
        ONE * 100,
        ONE * 125,
        Decimal("0.625"),
    )
    assert (bought.symbol, bought.average_price) == (symbol, Decimal("1.25"))
    assert (await client.fetch_balance())["USDC"].available == Decimal("874.375")
    sold = await client.create_order(symbol, "market", "sell", Decimal("100"))
    assert (sold.gross, sold.fee) == (Decimal(125), Decimal("0.625"))
    assert (await client.fetch_balance())["USDC"].available == Decimal("998.75")
    assert await client.fetch_positions() == []
    assert [(fill.side, fill.trade_seq) for fill in await client.fetch_my_trades(symbol)] == [("BUY", 1), ("SELL", 2)]
    tape = await client.fetch_trades(symbol)
    assert [(trade.seq, trade.side, trade.supply_after) for trade in tape] == [
        (1, "BUY", ONE * 100),
        (2, "SELL", ONE * 0),
    ]
    assert [trade.seq for trade in await client.fetch_trades(symbol, after_seq=0, limit=1)] == [1]


async def test_an_order_sent_again_is_the_same_order(client: Client, symbol: str) -> None:
    first: Order = await client.place_order(symbol, "BUY", amount="10.50", client_order_id="again")
    assert first.amount == Decimal("10.50")
    assert first.gross + first.fee <= Decimal("10.50")
    assert await client.fetch_order("again") == first
    assert await client.fetch_order("never") is None
    with pytest.raises(Refused, match="IDEMPOTENCY_KEY_REUSED"):
        await client.place_order(symbol, "BUY", amount="10.51", client_order_id="again")
    assert (await client.fetch_positions())[0].shares == first.filled_shares


async def test_refusals_have_types_and_figures(client: Client, symbol: str) -> None:
    with pytest.raises(Refused) as raised:
        await client.place_order(symbol, "BUY", amount=5000)
    refused = raised.value
    assert (refused.code, refused.field, refused.details.available) == (
        "INSUFFICIENT_FUNDS", ("input", "amount"), Decimal(1000),
    )  # fmt: skip
    assert refused.order is not None
    assert refused.order.reason == "INSUFFICIENT_FUNDS"
    with pytest.raises(Refused, match="BELOW_MINIMUM") as dust:
        await client.place_order(symbol, "BUY", shares="0.000000001")
    assert dust.value.details.limit == Decimal("0.01")


async def test_markets_and_tickers_are_read_by_symbol(client: Client, symbol: str) -> None:
    market = (await client.fetch_markets())[symbol]
    assert (market.curve.base_price, market.curve.slope, market.curve.fee_rate) == (
        Decimal(1), Decimal("0.005"), Decimal("0.005"),
    )  # fmt: skip
    ticker = await client.fetch_ticker(symbol)
    assert (ticker.id, ticker.price.symbol, ticker.price.market) == (market.id, symbol, ONE)
    with pytest.raises(UnknownAsset, match="there is no asset 'NOPE'; there are "):
        await client.fetch_ticker("NOPE")
    with pytest.raises(TypeError, match="symbols must be a list"):
        await client.fetch_tickers(symbol)
    assert await client.trading_paused() is False


async def test_the_same_goes_over_the_socket(live_api: LiveApi, symbol: str) -> None:
    async with Client(live_api.url, over_socket=True, patience_seconds=5) as client:
        await new_account(client)
        order = await client.place_order(symbol, "BUY", shares=100, slippage=0)
        assert (order.gross, order.fee) == (ONE * 125, Decimal("0.625"))
        assert client.connection.is_open
        assert (await client.fetch_balance())["USDC"].total == Decimal("874.375")


async def test_what_happens_in_an_account_is_told_as_it_happens(client: Client, symbol: str) -> None:
    events = client.account_events()
    begun = await anext(events)
    assert (begun.kind, begun.balances[0].available) == ("SNAPSHOT", ONE * 1000)
    order = await client.place_order(symbol, "BUY", shares=100)
    told = await anext(events)
    while told.kind == "HEARTBEAT":
        told = await anext(events)
    assert (told.kind, told.seq) == ("UPDATE", begun.seq + 1)
    assert [one.client_order_id for one in told.orders] == [order.client_order_id]
    assert [(one.symbol, one.gross) for one in told.fills] == [(symbol, ONE * 125)]
    assert [str(one.available) for one in told.balances if one.currency == "USDC"] == ["874.375"]
    assert [(one.asset.symbol, one.shares) for one in told.positions] == [(symbol, ONE * 100)]
    await events.aclose()


async def drain(events: AsyncIterator[AccountEvent]) -> None:
    async for _ in events:
        pass


async def test_a_session_that_ends_ends_its_stream_by_type(live_api: LiveApi) -> None:
    async with Client(live_api.url) as client:
        await new_account(client)
        events = client.account_events()
        await anext(events)
        async with Client(live_api.url, token=client.token) as other:
            await other.log_out()
            assert other.token is None
            with pytest.raises(NotLoggedIn, match="this needs an account"):
                await other.fetch_balance()
        async with asyncio.timeout(10):
            with pytest.raises(SessionEnded):
                await drain(events)
