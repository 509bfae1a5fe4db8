"""Bytes to text: charsets, what readers see, tables, and children that die without taking anything with them."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.oracle.extraction import TEXT_CHARS_MAX, Extracted, ExtractionFailed, Extractor
from app.oracle.extractor import decoded, extracted
from app.oracle.fetching import Fetched
from app.oracle.html_text import html_to_text
from app.oracle.page_text import normalised, normalised_title

ROOT = Path(__file__).resolve().parent.parent.parent
AT = datetime(2026, 1, 2, tzinfo=UTC)
LONG = "<p>A paragraph of the article that is long enough to be taken for the main content of this page.</p>" * 4


def page(body: bytes | str, content_type: str = "text/html; charset=utf-8") -> Fetched:
    data = body.encode() if isinstance(body, str) else body
    return Fetched("http://news.example/", 200, content_type, data, AT)


SLOW = page("<div>" * 200_000)


@pytest.fixture
async def extractor() -> AsyncIterator[Extractor]:
    started = Extractor(cpu_seconds_max=0.3)
    await started.start()
    yield started
    await started.stop()


# ------------------------------------------------------------------------------------------------ charsets
@pytest.mark.parametrize(
    ("body", "content_type", "text"),
    [
        ("Größe 5 €".encode(), "text/html; charset=utf-8", "Größe 5 €"),
        ("Größe 5 €".encode("cp1252"), "text/html; charset=ISO-8859-1", "Größe 5 €"),
        ("Größe 5 €".encode("cp1252"), 'text/html; charset="Windows-1252"', "Größe 5 €"),
        ("Größe 5 €".encode("utf-8-sig"), "text/html; charset=iso-8859-1", "Größe 5 €"),
        ("Größe 5 €".encode("utf-16"), "text/html; charset=utf-8", "Größe 5 €"),
        (b"\xfe\xff" + "Größe 5 €".encode("utf-16-be"), "text/html", "Größe 5 €"),
        ("価格は712円".encode("shift_jis"), "text/plain; charset=shift_jis", "価格は712円"),
        ("цена 712 рублей".encode("koi8-r"), "text/plain; charset=koi8-r", "цена 712 рублей"),
        (b"<meta charset=koi8-r>" + "цена".encode("koi8-r"), "text/html", "<meta charset=koi8-r>цена"),
        (b"<meta charset='utf-16'>" + "Größe".encode(), "text/html", "<meta charset='utf-16'>Größe"),
        ("Größe 5 €".encode(), "text/html; charset=utf-7", "Größe 5 €"),
        ("Größe 5 €".encode(), "text/html; charset=", "Größe 5 €"),
        ("Größe 5 €".encode(), "text/html; charset=us-ascii\r\nX: y", "Größe 5 €"),
        ("plain".encode("utf-16-le"), "text/html; charset=utf-16", "plain"),
        (b"7\xff12", "text/html; charset=utf-8", "7ÿ12"),
        (b"7\x8112", "text/html; charset=windows-1252", "7\ufffd12"),
        (b"", "text/html", ""),
    ],
)
def test_the_charset_is_found(body: bytes, content_type: str, text: str) -> None:
    assert decoded(body, content_type) == text


# ------------------------------------------------------------------------------------------------ texts
def test_unseen_characters_are_removed_and_blank_lines_collapsed() -> None:
    assert (
        normalised("\ufeff 7\u200b1\u00ad2 \u202e3\u202c\x00\x1b\r\nx\u2028y\n \n\n\tz\u0085\ud800 ")
        == "712 3\nx\ny\n\nz"
    )
    assert normalised("Cafe\u0301 ５\u00a06") == "Café ５\u00a06"
    assert normalised_title("  A\n\tB \u200b ") == "A B"
    assert normalised_title("x" * 5_000) == "x" * 300
    assert normalised_title("\u200b") is None
    assert normalised_title(None) is None


def test_texts_are_cut() -> None:
    assert normalised("wheat " * 100_000) == ("wheat " * 100_000)[:TEXT_CHARS_MAX]
    assert normalised("\u200b" * 79_999 + "wheat") == "w"


def test_plain_text_is_read_as_it_is() -> None:
    assert extracted(b"<title>x</title>\n5 &lt; 6", "TEXT/Plain; charset=utf-8") == (None, "<title>x</title>\n5 &lt; 6")


def test_figures_in_tables_survive_where_the_main_content_leaves_them_out() -> None:
    rye = "<table><caption>Rye</caption><tr><th>Year<th>Price</tr><tr><td>2025<td>99.50</tr></table>"
    oats = "<table><tr><td>Oats<td>7.25</table>"
    menu = "<table><tr><td>Home<td>News</table>"
    aside = f"<div class='related widget'>{rye}</div><footer>{oats}</footer>"
    _, text = html_to_text(f"<body><nav>{menu}</nav><article>{LONG}</article>{aside}")
    assert text.endswith("Rye\nYear\t\tPrice\n2025\t\t99.50\n\nOats\t\t7.25")
    assert "Home" not in text
    _, text = html_to_text(f"<article>{LONG}{rye}</article>")
    assert text.count("99.50") == 1


def test_figures_in_lists_survive_where_the_main_content_leaves_them_out() -> None:
    months = "<p>Before:</p><ul><li>May: 740 thousand</li><li>April: <ol><li>745 thousand</li></ol></li></ul>"
    menu = "<nav><ul><li>Page 2</li></ul></nav><footer><ul><li>In 2024</li></ul></footer>"
    _, text = html_to_text(f"<body>{menu}<article>{LONG}{months}</article></body>")
    assert (text.count("May: 740 thousand"), text.count("745 thousand")) == (1, 1)
    assert "Page 2" not in text
    assert "In 2024" not in text
    _, text = html_to_text(f"<article>{LONG}<ul><li>no figures at all</li></ul></article>")
    assert "no figures" not in text


def test_nested_tables_are_told_once() -> None:
    table = "<table><tr><td><table><tr><td>Oats<td>7.25</table></table>"
    _, text = html_to_text(f"<article>{LONG}</article><footer>{table}</footer>")
    assert text.count("7.25") == 1


@pytest.mark.parametrize(
    ("inside", "text"),
    [
        ("1.5×10<sup>6</sup> t", "1.5×10^6 t"),
        ("712<sup><a href=#n>3</a></sup> t", "712 [3] t"),
        ("712<sup>[4]</sup> t", "712[4] t"),
        ("the 1<sup>st</sup> CO<sub>2</sub> m<sup>3</sup>", "the 1st CO2 m3"),
        ("<s>99</s>50<del>7</del><ins>8</ins>", "99 50 7 8"),
        ("7<img alt=5>8<svg><text>1</text></svg>9", "7 8 9"),
        ("7<b></b>12<span hidden>.5</span>00", "71200"),
        ("1,<wbr>234<br>5", "1,234\n5"),
        ("<ol><li>a<li>b</ol>", "a\n  b"),
    ],
)
def test_figures_are_neither_joined_nor_made_up(inside: str, text: str) -> None:
    assert html_to_text(f"<body>{inside}</body>")[1].strip() == text


# ------------------------------------------------------------------------------------------------ children
async def test_pages_are_extracted_in_a_child(extractor: Extractor) -> None:
    [pid] = extractor.child_pids
    assert pid != os.getpid()
    for number in range(20):
        found = await extractor.extract(page(f"<title>Wheat &amp; rye</title><p>{number}.50"))
        assert found == Extracted("Wheat & rye", f"{number}.50")
    assert extractor.child_pids == [pid]


async def test_a_slow_page_costs_its_child_and_no_other_page(extractor: Extractor) -> None:
    [pid] = extractor.child_pids
    pages = [page("<p>1"), SLOW, page("<p>2"), SLOW, page("<p>3")]
    found = await asyncio.gather(*map(extractor.extract, pages), return_exceptions=True)
    assert [entry.text for entry in found if isinstance(entry, Extracted)] == ["1", "2", "3"]
    failures = [str(entry) for entry in found if isinstance(entry, ExtractionFailed)]
    assert failures == ["'http://news.example/': its text took too much processor time"] * 2
    assert len(extractor.child_pids) == 1
    assert extractor.child_pids != [pid]
    expect_gone(pid)


async def test_a_child_that_was_killed_is_replaced_and_its_page_read(extractor: Extractor) -> None:
    [pid] = extractor.child_pids
    os.kill(pid, signal.SIGSTOP)
    task = asyncio.create_task(extractor.extract(page("<p>5")))
    await asyncio.sleep(0)
    os.kill(pid, signal.SIGKILL)
    assert await task == Extracted(None, "5")
    assert extractor.child_pids != [pid]
    [pid] = extractor.child_pids
    os.kill(pid, signal.SIGKILL)
    assert await extractor.extract(page("<p>6")) == Extracted(None, "6")


async def test_a_page_that_kills_two_children_is_given_up(extractor: Extractor) -> None:
    killed: list[int] = []
    [pid] = extractor.child_pids
    os.kill(pid, signal.SIGSTOP)  # so that it is asked, and does not answer
    task = asyncio.create_task(extractor.extract(SLOW))
    async with asyncio.timeout(20):
        while not task.done():
            for child in extractor.child_pids:
                killed.append(child)
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            await asyncio.sleep(0)
    with pytest.raises(ExtractionFailed, match="the extractor died of it, with status -9"):
        await task
    assert len(set(killed)) in (2, 3)  # one more when the first was seen to be dead before it was asked
    assert await extractor.extract(page("<p>6")) == Extracted(None, "6")


async def test_a_cancelled_page_leaves_no_answer_to_the_next(extractor: Extractor) -> None:
    task = asyncio.create_task(extractor.extract(page(LONG * 500)))
    await asyncio.sleep(0)
    task.cancel()
    assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)
    assert await extractor.extract(page("<p>6")) == Extracted(None, "6")


async def test_a_page_cancelled_again_while_its_child_ends_gives_its_turn_back(extractor: Extractor) -> None:
    [pid] = extractor.child_pids
    os.kill(pid, signal.SIGSTOP)
    task = asyncio.create_task(extractor.extract(page("<p>5")))
    await asyncio.sleep(0)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)
    async with asyncio.timeout(20):
        assert await extractor.extract(page("<p>6")) == Extracted(None, "6")
    expect_gone(pid)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"{", "its text came as no JSON"),
        (b"[]", "its answer is neither a text nor an error"),
        (b"{}", "its answer is neither a text nor an error"),
        (b'{"text": 5}', "its answer is neither a text nor an error"),
        (b'{"text": "5", "title": ["5"]}', "its answer is neither a text nor an error"),
    ],
)
async def test_a_child_that_a_page_has_taken_over_answers_nothing_else(
    answer: bytes, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child"
    child.write_text(
        f"#!{sys.executable}\nimport sys\nfor part in ({b'ready' + bytes((10,))!r}, {len(answer).to_bytes(4, 'big')!r},"
        f" {answer!r}):\n    sys.stdout.buffer.write(part)\nsys.stdout.flush()\nsys.stdin.read()\n"
    )
    child.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(child))
    extractor = Extractor()
    try:
        with pytest.raises(ExtractionFailed, match=why):
            await extractor.extract(page("<p>5"))
    finally:
        await extractor.stop()


async def test_more_children_work_at_once() -> None:
    extractor = Extractor(children=3)
    try:
        found = await asyncio.gather(*(extractor.extract(page(f"<p>{number}")) for number in range(30)))
        assert [entry.text for entry in found] == [str(number) for number in range(30)]
        assert len(extractor.child_pids) == 3
    finally:
        await extractor.stop()


async def test_a_stopped_extractor_ends_its_children_and_what_waits() -> None:
    extractor = Extractor()
    await extractor.start()
    [pid] = extractor.child_pids
    os.kill(pid, signal.SIGSTOP)
    tasks = [asyncio.create_task(extractor.extract(page("<p>1"))) for _ in range(3)]
    await asyncio.sleep(0)
    await extractor.stop()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(entry) for entry in found] == [ExtractionFailed] * 3
    with pytest.raises(ExtractionFailed, match="the extractor is stopped"):
        await extractor.extract(page("<p>1"))
    assert extractor.child_pids == []
    expect_gone(pid)


async def test_the_worker_s_secrets_are_not_in_the_child(extractor: Extractor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERPER_API_KEY", "secret")
    os.kill(extractor.child_pids[0], signal.SIGKILL)
    await extractor.extract(page("<p>1"))
    listed = shown_by_ps("command", extractor.child_pids[0], "eww")
    assert "app.oracle.extractor" in listed
    assert "SERPER_API_KEY" not in listed


PARENT = """
import asyncio, os
from app.oracle.extraction import Extractor
async def main():
    extractor = Extractor()
    await extractor.start()
    print(extractor.child_pids[0], flush=True)
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""


def test_a_child_ends_when_its_parent_does() -> None:
    parent = subprocess.run([sys.executable, "-c", PARENT], capture_output=True, text=True, check=False, cwd=ROOT)
    assert parent.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 20
    while is_running(int(parent.stdout)) and time.monotonic() < deadline:
        time.sleep(0.01)
    expect_gone(int(parent.stdout))


def is_running(pid: int) -> bool:
    """Whether it lives; one that has ended and was not waited for (an orphan's new parent may be slow) does not."""
    return shown_by_ps("stat=", pid).strip()[:1] not in ("", "Z")


def shown_by_ps(column: str, pid: int, *options: str) -> str:
    command = ["ps", *options, "-o", column, "-p", str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def expect_gone(pid: int) -> None:
    assert not is_running(pid)
