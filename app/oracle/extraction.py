"""Turning fetched pages to text, in child processes: hostile HTML may cost a child its life, never the worker its own.

The parsing itself is in app.oracle.extractor, which only the children run.
"""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypedDict

import orjson

import app
from app.oracle.fetching import Fetched
from app.oracle.page_text import TEXT_CHARS_MAX as TEXT_CHARS_MAX  # noqa: PLC0414 - callers take it from here

PAGE_CPU_SECONDS_MAX: Final = 2.0
WALL_FACTOR: Final = 15
"""A page may take so many times its processor time by the clock, on a machine that has other work."""
START_SECONDS_MAX: Final = 30.0
ANSWER_BYTES_MAX: Final = 2**20
_SHOWN_CHARS: Final = 200


class ExtractionFailed(Exception):  # noqa: N818 - an outcome, not a fault of the program
    """A page's text could not be had. The message names the URL (cut) and says why."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"{url[:_SHOWN_CHARS]!r}: {why}")
        self.url = url
        self.why = why


@dataclass(frozen=True, slots=True)
class Extracted:
    """What a reader of the page sees: NFC, without control, zero-width or bidirectional characters.

    `text` has at most TEXT_CHARS_MAX characters, `title` is one line.
    """

    title: str | None
    text: str


class _Answer(TypedDict, total=False):
    title: str | None
    text: str
    error: str
    is_last: bool


class _ChildDied(Exception):  # noqa: N818 - an outcome
    """The child ended instead of answering. `was_slow`: the page took its whole processor time."""

    def __init__(self, *, was_slow: bool, how: str) -> None:
        super().__init__(how)
        self.was_slow = was_slow


def _checked(answer: object) -> _Answer:
    """A child's answer, which is as good as the page that it was parsing. Raises _ChildDied for what is none."""
    if isinstance(answer, dict):
        title, text, error = answer.get("title"), answer.get("text"), answer.get("error")
        is_title = title is None or isinstance(title, str)
        if isinstance(error, str):
            return {"error": error, "is_last": True}
        if is_title and isinstance(text, str):
            return {"title": title, "text": text, "is_last": answer.get("is_last") is not False}
    raise _ChildDied(was_slow=False, how="its answer is neither a text nor an error")


class Extractor:
    """Extracts text in `children` processes, a page at a time in each; further pages wait for a free one.

    A page that takes longer than `cpu_seconds_max` of processor time is given up and its child replaced. A page whose
    child died of something else is given to a fresh child once, for it may not have been the page's fault.
    """

    def __init__(self, *, children: int = 1, cpu_seconds_max: float = PAGE_CPU_SECONDS_MAX) -> None:
        self._cpu_seconds_max = cpu_seconds_max
        self._free: asyncio.LifoQueue[_Child | None] = asyncio.LifoQueue()
        for _ in range(children):
            self._free.put_nowait(None)
        self._children: set[_Child] = set()
        self._is_stopped = False

    @property
    def child_pids(self) -> list[int]:
        """The processes that live now."""
        return [child.pid for child in self._children]

    async def start(self) -> None:
        """Start a first child, so that a broken installation is noticed now. Raises RuntimeError."""
        child = await self._take()
        self._free.put_nowait(child)

    async def extract(self, page: Fetched) -> Extracted:
        """The text of `page`. Raises ExtractionFailed, and nothing else but cancellation."""
        if self._is_stopped:
            raise ExtractionFailed(page.url, "the extractor is stopped")
        for is_second in (False, True):
            try:
                answer = await self._ask(page)
            except _ChildDied as died:
                if died.was_slow or is_second or self._is_stopped:
                    raise ExtractionFailed(page.url, str(died)) from died
            except RuntimeError as error:
                raise ExtractionFailed(page.url, str(error)) from error
            else:
                if (error_text := answer.get("error")) is not None:
                    raise ExtractionFailed(page.url, f"it cannot be read ({error_text})")
                return Extracted(answer.get("title"), answer["text"][:TEXT_CHARS_MAX])
        raise AssertionError("unreachable")

    async def stop(self) -> None:
        """End the children; pages under way and waiting fail."""
        self._is_stopped = True
        for child in tuple(self._children):
            await self._end(child)

    async def _ask(self, page: Fetched) -> _Answer:
        child = await self._take()
        is_well = False
        try:
            answer = await child.ask(page, self._cpu_seconds_max * WALL_FACTOR)
            is_well = not answer.get("is_last", False)
            return answer
        finally:
            try:
                if not is_well:
                    child.kill()
                    await asyncio.shield(self._end(child))
            finally:  # cancelled here as well, the turn goes back: nobody would ever get it again
                self._free.put_nowait(child if is_well else None)

    async def _take(self) -> "_Child":
        """A living child of one's own, to be given back to `_free`."""
        child = await self._free.get()
        try:
            self._check_running()
            if child is not None and child.is_alive:
                return child
            if child is not None:
                await self._end(child)
            started = await _Child.started(self._cpu_seconds_max)
            self._children.add(started)
            if self._is_stopped:  # meanwhile, too late for `stop` to know of it
                await self._end(started)
            self._check_running()
        except BaseException:
            self._free.put_nowait(None)
            raise
        return started

    def _check_running(self) -> None:
        if self._is_stopped:
            raise RuntimeError("the extractor is stopped")

    async def _end(self, child: "_Child") -> None:
        self._children.discard(child)
        await child.end()


class _Child:
    """One process and the conversation with it."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @classmethod
    async def started(cls, cpu_seconds_max: float) -> "_Child":
        """A fresh child that is ready. Raises RuntimeError."""
        # Nothing of the worker's secrets: what the child parses is hostile.
        environment = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
        environment["PYTHONPATH"] = str(Path(app.__file__).parent.parent)
        environment["MALLOC_ARENA_MAX"] = "1"
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "app.oracle.extractor",
            str(cpu_seconds_max),
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            env=environment,
            limit=ANSWER_BYTES_MAX,
        )
        child = cls(process)
        try:
            async with asyncio.timeout(START_SECONDS_MAX):
                line = await child._answers.readline()
        except TimeoutError:
            line = b""
        except BaseException:
            await asyncio.shield(child.end())
            raise
        if line != b"ready\n":
            await child.end()
            raise RuntimeError(
                "the text extractor does not start: run `python -m app.oracle.extractor 2` to see why, and end it with "
                "Ctrl-D"
            )
        return child

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it has not been seen to end."""
        return self._process.returncode is None

    @property
    def _answers(self) -> asyncio.StreamReader:
        if self._process.stdout is None:
            raise RuntimeError("the child has no output")
        return self._process.stdout

    async def ask(self, page: Fetched, seconds_max: float) -> _Answer:
        """Its answer to a page. Raises _ChildDied."""
        requests = self._process.stdin
        if requests is None:
            raise RuntimeError("the child has no input")
        content_type = page.content_type.encode("utf-8", "replace")
        try:
            async with asyncio.timeout(seconds_max):
                requests.write(len(content_type).to_bytes(4, "big") + len(page.body).to_bytes(4, "big") + content_type)
                requests.write(page.body)
                await requests.drain()
                length = int.from_bytes(await self._answers.readexactly(4), "big")
                if length > ANSWER_BYTES_MAX:
                    raise _ChildDied(was_slow=False, how=f"its text came in {length} bytes")
                answer = _checked(orjson.loads(await self._answers.readexactly(length)))
        except TimeoutError as error:
            raise _ChildDied(was_slow=True, how=f"its text took longer than {seconds_max:g} seconds") from error
        except orjson.JSONDecodeError as error:
            raise _ChildDied(was_slow=False, how="its text came as no JSON") from error
        except (OSError, asyncio.IncompleteReadError, RuntimeError) as error:
            raise await self._death() from error
        return answer

    async def _death(self) -> _ChildDied:
        """How it ended, once its output has."""
        self.kill()
        code = await self._process.wait()
        if code == -signal.SIGPROF:
            return _ChildDied(was_slow=True, how="its text took too much processor time")
        return _ChildDied(was_slow=False, how=f"the extractor died of it, with status {code}")

    def kill(self) -> None:
        """End it at once."""
        with suppress(ProcessLookupError):
            self._process.kill()

    async def end(self) -> None:
        """End it and wait until it has."""
        self.kill()
        await self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
