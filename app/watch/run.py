"""The board's life: it follows the ticks, reads the last 24 hours now and then, and draws four times a second.

Into a terminal it draws the board, elsewhere it prints a line for each tick. `once` and `svg` draw one board and end.
"""

import asyncio
import contextlib
import io
import re
import signal
import sys
from collections.abc import Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.live import Live

from app import clock
from app.watch.board import POINTS_MAX, Board, Status, line
from megatron_client import Client, MegatronError, UnknownAsset, Unreachable

STATS_SECONDS: Final = 5.0
FRAMES_PER_SECOND: Final = 4
SNAPSHOT_SECONDS_MAX: Final = 5.0
ONCE_PATIENCE_SECONDS: Final = 5.0
PICTURE_WIDTH: Final = 110
_FROM_ELSEWHERE: Final = re.compile(r"\s*@font-face \{.*?\}|\s*<!--.*?-->", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to watch: `symbols` None for all. `svg` is the file that a picture goes to."""

    url: str
    symbols: tuple[str, ...] | None = None
    once: bool = False
    svg: Path | None = None


def main(wanted: Wanted) -> int:
    """Watch until Ctrl-C or SIGTERM; the exit status."""
    try:
        return asyncio.run(_until_told(wanted))
    except (MegatronError, ValueError) as error:
        away = f"cannot reach {wanted.url}: " if isinstance(error, Unreachable) else ""
        sys.stderr.write(f"megatron: {away}{error}\n")
        return 2 if isinstance(error, UnknownAsset | ValueError) else 1
    except BrokenPipeError:
        # Who read the lines has had enough.
        with contextlib.suppress(OSError):
            sys.stdout.close()
        return 0


async def _until_told(wanted: Wanted) -> int:
    loop = asyncio.get_running_loop()
    watching = asyncio.ensure_future(_once(wanted) if wanted.once or wanted.svg else _live(wanted))
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, watching.cancel)
    try:
        return await watching
    except asyncio.CancelledError:
        return 0
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


class Watch:
    """A board that is kept up to date by a client."""

    def __init__(self, client: Client, symbols: Sequence[str] | None) -> None:
        self.board = Board()
        self._client = client
        self._symbols = symbols
        self._server_ahead = timedelta(0)
        self._wants_stats = asyncio.Event()

    @property
    def now(self) -> datetime:
        """The server's time, by what it last said."""
        return clock.now() + self._server_ahead

    @property
    def status(self) -> Status:
        """How the board stands with the API."""
        state = self._client.connection
        attempts = state.attempts or self._client.requests.attempts
        return Status(self._client.url, state.is_open, state.trouble or self._client.requests.trouble, attempts)

    async def read_stats(self) -> None:
        """Read prices and the last 24 hours; for assets that are new to the board, also what they were."""
        for ticker in (await self._client.fetch_tickers(self._symbols)).values():
            is_new = ticker.id not in self.board.rows
            self.board.take_ticker(ticker)
            if is_new:
                candles = await self._client.fetch_ohlcv(ticker.symbol, "1s", limit=POINTS_MAX)
                self.board.take_points(ticker.id, (candle.close for candle in candles))

    async def keep_stats(self) -> None:
        """Read them every few seconds, and at once when an asset comes that is not on the board."""
        while True:
            self._wants_stats.clear()
            await self.read_stats()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wants_stats.wait(), STATS_SECONDS)

    async def follow(self, *, snapshot_only: bool = False) -> None:
        """Take what the stream brings."""
        async with aclosing(self._client.tick_events(self._symbols, mode="LATEST", throttle="MS_250")) as events:
            async for event in events:
                self._server_ahead = event.server_time - clock.now()
                taken = [self.board.take_tick(tick) for tick in event.items]
                if not all(taken):
                    self._wants_stats.set()
                if snapshot_only:
                    return


async def _once(wanted: Wanted) -> int:
    console = Console(width=PICTURE_WIDTH, record=True, file=io.StringIO()) if wanted.svg else Console()
    async with Client(wanted.url, patience_seconds=ONCE_PATIENCE_SECONDS) as client:
        watch = Watch(client, wanted.symbols)
        await watch.read_stats()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SNAPSHOT_SECONDS_MAX):
                await watch.follow(snapshot_only=True)
        console.print(watch.board.draw(status=watch.status, now=watch.now, width=console.width))
    if wanted.svg:
        wanted.svg.write_text(picture(console))
    return 0


def picture(console: Console) -> str:
    """What a recording console has drawn, as an SVG of its own: no fonts from elsewhere."""
    return _FROM_ELSEWHERE.sub("", console.export_svg(title="megatron watch", unique_id="megatron-watch"))


async def _live(wanted: Wanted) -> int:
    console = Console()
    async with Client(wanted.url, patience_seconds=None) as client:
        if not console.is_terminal:
            await _print_lines(client, wanted.symbols)
            return 0
        watch = Watch(client, wanted.symbols)
        with Live(console=console, screen=True, auto_refresh=False) as live:
            await _ends_together(watch.keep_stats(), watch.follow(), _draw(watch, live, console))
    return 0


async def _draw(watch: Watch, live: Live, console: Console) -> None:
    while True:
        size = console.size
        live.update(
            watch.board.draw(status=watch.status, now=watch.now, width=size.width, height=size.height), refresh=True
        )
        await asyncio.sleep(1 / FRAMES_PER_SECOND)


async def _print_lines(client: Client, symbols: Sequence[str] | None) -> None:
    """A line for each tick on standard output, and one on standard error when the connection goes or comes."""

    async def follow() -> None:
        async for tick in client.ticks(symbols, mode="LATEST", throttle="MS_1000"):
            sys.stdout.write(f"{line(tick)}\n")
            sys.stdout.flush()

    async def tell() -> None:
        told: str | None = None
        while True:
            trouble = client.connection.trouble or client.requests.trouble
            if trouble != told and (trouble or told):
                said = (
                    f"cannot reach {client.url}: {trouble}; trying again" if trouble else f"connected to {client.url}"
                )
                sys.stderr.write(f"megatron: {said}\n")
                sys.stderr.flush()
            told = trouble
            await asyncio.sleep(1 / FRAMES_PER_SECOND)

    await _ends_together(follow(), tell())


async def _ends_together(*parts: Coroutine[None, None, None]) -> None:
    """Run all until one fails, which is raised as it is."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
