"""`megatron watch` as a person runs it: in a terminal, into a pipe, once, and where there is no API."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from app.local.postgres import EmbeddedPostgres
from app.local.valkey import EmbeddedValkey
from tests.client.market import price_worker
from tests.client.test_live import new_symbol
from tests.conftest import ROOT, TEMPLATE, LiveApi, _create, free_port, run_api

SECONDS_MAX = 20.0
COMMAND = [sys.executable, "-m", "app.cli", "watch"]


@pytest.fixture(scope="module")
def market(postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> Iterator[LiveApi]:
    """An API and a price worker on a database of their own."""
    database_url = _create(postgres, "test_watch", template=TEMPLATE)
    with (
        run_api(database_url=database_url, redis_url=valkey.url) as api,
        price_worker(database_url=database_url, redis_url=valkey.url),
    ):
        yield api


@pytest.fixture
def symbol(market: LiveApi) -> str:
    return new_symbol(market.url)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *arguments]
    env = {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=30, check=False)


class Terminal:
    """The command in a terminal of its own; `screen` is all that it wrote."""

    def __init__(self, *arguments: str) -> None:
        self.screen = ""
        self.pid, self._file = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            os.execve(sys.executable, [*COMMAND, *arguments], {**os.environ, "TERM": "xterm"})  # noqa: S606

        fcntl.ioctl(self._file, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 130, 0, 0))

    def expect(self, text: str) -> None:
        """Read until the text has been written."""
        end = time.monotonic() + SECONDS_MAX
        while text not in self.screen:
            assert time.monotonic() < end, self.screen[-2_000:]
            if select.select([self._file], [], [], 0.1)[0]:
                self.screen += os.read(self._file, 65_536).decode(errors="replace")

    def end(self, keys: bytes) -> int:
        """Type the keys and answer the exit status."""
        os.write(self._file, keys)
        end = time.monotonic() + SECONDS_MAX
        while time.monotonic() < end:
            try:
                if select.select([self._file], [], [], 0.1)[0]:
                    self.screen += os.read(self._file, 65_536).decode(errors="replace")
            except OSError:  # the terminal is gone with its last process
                break
        _, status = os.waitpid(self.pid, 0)
        os.close(self._file)
        return os.waitstatus_to_exitcode(status)


def test_once_prints_one_board(market: LiveApi, symbol: str) -> None:
    done = run("--url", market.url, "--symbols", symbol, "--once", COLUMNS="110")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"● live {market.url}/graphql" in done.stdout
    row = rf"^ ?{symbol} +1\.0000 +1\.0000 +1\.0000\?? +\+0\.00 % +0 USDC +1\.00 "
    assert re.search(row, done.stdout, re.MULTILINE)


def test_a_picture_is_drawn(market: LiveApi, symbol: str, tmp_path: Path) -> None:
    file = tmp_path / "board.svg"
    done = run("--url", market.url, "--symbols", symbol, "--svg", str(file))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    text = file.read_text()
    root = ElementTree.fromstring(text)  # noqa: S314 - drawn just now
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert symbol in text
    assert "font-face" not in text


def test_a_terminal_shows_the_board_and_gives_itself_back(market: LiveApi, symbol: str) -> None:
    terminal = Terminal("--url", market.url, "--symbols", symbol)
    terminal.expect(symbol)
    terminal.expect("live")
    assert terminal.end(b"\x03") == 0
    assert "\x1b[?1049l" in terminal.screen
    assert "Traceback" not in terminal.screen


def test_a_terminal_without_an_api_says_so_and_goes_on_trying() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    terminal = Terminal("--url", url)
    terminal.expect("not connected")
    terminal.expect("trying again (3)")
    assert terminal.end(b"\x03") == 0


def test_once_without_an_api_ends_with_a_reason() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = run("--url", url, "--once")
    assert done.returncode == 1
    assert done.stderr == (
        f"megatron: cannot reach {url}: Tickers: no answer within 5 s; the last attempt: "
        "ConnectError: All connection attempts failed\n"
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--url", "127.0.0.1:8000"), "the market's url must be like http://127.0.0.1:8000; got '127.0.0.1:8000'"),
        (("--symbols", "NOPE"), "there is no asset 'NOPE'; there are "),
    ],
)
def test_what_cannot_be_watched_is_told(market: LiveApi, arguments: tuple[str, ...], reason: str) -> None:
    done = run("--once", "--url", market.url, *arguments)
    assert (done.returncode, done.stderr.startswith(f"megatron: {reason}")) == (2, True)


def test_a_pipe_gets_a_line_for_each_tick(market: LiveApi, symbol: str) -> None:
    process = subprocess.Popen(
        [*COMMAND, "--url", market.url, "--symbols", symbol],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert re.fullmatch(rf"\S+ {symbol} #\d+ OPEN D 1 M 1 F 1 w 1( stale)?\n", line)
        process.send_signal(signal.SIGTERM)
        _, complaints = process.communicate(timeout=SECONDS_MAX)
        assert (process.returncode, complaints) == (0, "")
    finally:
        process.kill()
        process.wait()
