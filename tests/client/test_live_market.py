"""A bot that reads while the API dies: with a price engine behind it, every tick comes once and in order."""

from functools import partial

from app.local.valkey import EmbeddedValkey
from megatron_client import Candle, Client, Tick, Trade
from tests.client.market import price_worker
from tests.client.test_connection import Reading
from tests.client.test_live import new_account, new_symbol
from tests.conftest import free_port, run_api


def check_whole(ticks: list[Tick], symbols: list[str]) -> None:
    """Each symbol's seqs are gapless, each once and in order, and begin with its snapshot."""
    for symbol in symbols:
        seqs = [tick.seq for tick in ticks if tick.symbol == symbol]
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs))), (symbol, seqs)


def check_tape(ticks: list[Tick], trades: list[Trade], symbol: str) -> None:
    """The tape and the ticks tell of the same trades."""
    caused = [(tick.trade_seq, tick.market) for tick in ticks if tick.symbol == symbol and tick.cause == "TRADE"]
    assert [(trade.seq, trade.market_after) for trade in trades if trade.symbol == symbol] == caused


async def until_ticked(reading: Reading[Tick], symbols: list[str], trade_seq: int) -> None:
    """Wait until the ticks have told of this trade of each symbol."""
    while {tick.symbol for tick in reading if tick.trade_seq >= trade_seq} != set(symbols):
        await reading.expect(len(reading) + 1)


async def until_trades(reading: Reading[Trade], symbols: list[str], seq: int) -> None:
    """Wait until the tape has this trade of each symbol."""
    while {trade.symbol for trade in reading if trade.seq >= seq} != set(symbols):
        await reading.expect(len(reading) + 1)


async def buy(client: Client, symbols: list[str], rounds: int) -> None:
    for _ in range(rounds):
        for symbol in symbols:
            await client.place_order(symbol, "BUY", amount="1", slippage="0.5")


async def test_a_bot_loses_and_repeats_nothing_when_its_api_dies(
    fresh_database_url: str, valkey: EmbeddedValkey
) -> None:
    port = free_port()
    start = partial(run_api, database_url=fresh_database_url, redis_url=valkey.url)
    with start() as lasting, price_worker(database_url=fresh_database_url, redis_url=valkey.url):
        symbols = [new_symbol(lasting.url) for _ in range(3)]
        async with Client(lasting.url) as trader, Client(f"http://127.0.0.1:{port}") as bot:
            await new_account(trader)
            with start(port=port) as dying:
                ticks, tape = Reading(bot.ticks(symbols)), Reading(bot.trades(symbols))
                candles: Reading[Candle] = Reading(bot.candles(symbols))
                await candles.expect(len(symbols))
                await buy(trader, symbols, 5)
                await until_trades(tape, symbols, 5)
                dying.process.kill()
                dying.process.wait()
            # Nobody serves the bot now; what happens meanwhile must come all the same.
            await buy(trader, symbols, 5)
            with start(port=port):
                await until_trades(tape, symbols, 10)
                # And over an orderly restart: the readers are told to come again.
            await buy(trader, symbols, 5)
            with start(port=port):
                await buy(trader, symbols, 5)
                await until_trades(tape, symbols, 20)
                await until_ticked(ticks, symbols, 20)
                for reading in (ticks, tape, candles):
                    await reading.stop()
    check_whole(ticks, symbols)
    for symbol in symbols:
        assert [trade.seq for trade in tape if trade.symbol == symbol] == list(range(1, 21))
        check_tape(ticks, tape, symbol)
    assert {candle.symbol for candle in candles if candle.trades >= 5} == set(symbols)


async def test_a_cursor_outlives_the_bot(fresh_database_url: str, valkey: EmbeddedValkey) -> None:
    servers = (fresh_database_url, valkey.url)
    with (
        run_api(database_url=servers[0], redis_url=servers[1]) as api,
        price_worker(database_url=servers[0], redis_url=servers[1]),
    ):
        symbols = [new_symbol(api.url)]
        async with Client(api.url) as trader, Client(api.url) as bot:
            await new_account(trader)
            first = Reading(bot.ticks(symbols))
            await first.expect(1)
            await first.stop()
            reading = Reading(bot.tick_events(symbols))
            [begun, *_] = await reading.expect(1)
            assert (begun.kind, [tick.symbol for tick in begun.items]) == ("SNAPSHOT", symbols)
            last_seq = begun.items[0].seq
            await reading.stop()
        await take_up(api.url, symbols[0], begun.cursor, last_seq)


async def take_up(url: str, symbol: str, cursor: str, last_seq: int) -> None:
    """Another bot goes on from the cursor, after trades that nobody read."""
    async with Client(url) as trader, Client(url) as bot:
        await new_account(trader)
        await buy(trader, [symbol], 4)
        ticks = Reading(bot.ticks([symbol], after=cursor))
        await until_ticked(ticks, [symbol], 4)
        assert ticks[0].seq == last_seq + 1
        check_whole(ticks, [symbol])
        assert await bot.history_ticks(symbol, last_seq, limit=3) == list(ticks)[:3]
        [candle] = await bot.fetch_ohlcv(symbol, "1d", limit=1)
        assert candle.trades == 4
        await ticks.stop()
