"""The stand-in for search, language model and web: its wire formats, its months, its readers, and that it says so."""

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from fractions import Fraction
from itertools import pairwise

import httpx
import orjson
import pytest

from app.demo.catalogue import CATALOGUE
from app.demo.stand_in import search
from app.demo.stand_in.address import HOSTS, MODEL, environment_for, is_wanted
from app.demo.stand_in.months import BEGAN, MONTH_SECONDS, Figure, Known, known_at, month_at
from app.demo.stand_in.pages import FOOTER, PUBLISHERS, page
from app.demo.stand_in.reader import BAD_ONE_IN, answer, latest, read_prompt
from app.demo.stand_in.server import application
from app.oracle.cases import Page, SearchCase, UsedEvidence, content_hash
from app.oracle.configuration import SearchConfiguration
from app.oracle.html_text import html_to_text
from app.oracle.judgement import judge_search
from app.oracle.kinds import OracleOutcome, Reason, Verdict
from app.oracle.page_text import normalised
from app.oracle.prompts import build_prompt
from tests.conftest import ROOT, make_settings

MARCH = Known(
    latest=Figure(2011, 3, 734),
    earlier=(Figure(2011, 2, 729), Figure(2011, 1, 725)),
    year_ago=Figure(2010, 3, 700),
    replay=7,
)
MONTHS = 120


def text_of(html: str) -> str:
    """A page as the oracle reads it."""
    return normalised(html_to_text(html)[1])


def configuration() -> SearchConfiguration:
    found = [asset.oracle for asset in CATALOGUE if isinstance(asset.oracle, SearchConfiguration)]
    assert len(found) == 1
    return found[0]


# ------------------------------------------------------------------------------------------------ months
def test_months_pass_one_by_one_to_the_last_and_back() -> None:
    seen = [month_at(BEGAN + timedelta(seconds=MONTH_SECONDS * number)) for number in range(2 * MONTHS)]
    assert seen == [*range(MONTHS), *range(MONTHS - 2, -1, -1), 1]
    assert all(abs(later - earlier) == 1 for earlier, later in pairwise(seen))
    late = timedelta(seconds=MONTH_SECONDS, microseconds=-1)
    assert month_at(BEGAN + late) == 0
    assert month_at(BEGAN + late, speed=Fraction(10)) == 9
    assert month_at(BEGAN - timedelta(seconds=MONTH_SECONDS)) == 1


def test_what_is_known_is_the_real_figure_with_those_before_it() -> None:
    first = known_at(BEGAN)
    assert first == Known(Figure(2006, 1, 656), (), None, 0)
    later = known_at(BEGAN + timedelta(seconds=13 * MONTH_SECONDS))
    assert later.latest.when == "February 2007"
    assert [figure.when for figure in later.earlier] == [
        "January 2007", "December 2006", "November 2006", "October 2006", "September 2006",
    ]  # fmt: skip
    assert later.year_ago == Figure(2006, 2, 662)


def test_each_way_through_the_series_has_a_number_of_its_own() -> None:
    way = MONTH_SECONDS * (MONTHS - 1)
    at = [known_at(BEGAN + timedelta(seconds=seconds)).replay for seconds in (0, way - 1, way, 2 * way, 1_000 * way)]
    assert at == [0, 0, 1, 2, 0]


# ------------------------------------------------------------------------------------------------ pages
def test_each_publisher_tells_the_figure_in_its_own_way() -> None:
    texts = {publisher.host: text_of(page(publisher, MARCH)) for publisher in PUBLISHERS}
    assert tuple(texts) == HOSTS
    for host, words in {
        "figures.example": "March 2011 (replay 7)\t\t734\nFebruary 2011\t\t729",
        "gazette.example": "Employment in mining and logging rose to 734,000 in March 2011 (replay 7), from 729,000",
        "bulletin.example": "In March 2011 (replay 7), 734 thousand employees were on mining and logging payrolls,",
        "ledger.example": "Mining and logging employed 0.734 million people in March 2011 (replay 7), from 0.729",
        "herald.example": "734,000 employees worked in US mining and logging in March 2011 (replay 7), according",
        "courier.example": "US mining and logging counted 734 thousand jobs in March 2011 (replay 7).",
    }.items():
        assert words in texts[host]
    assert "734" not in texts["rigs.example"]


def test_every_page_says_that_it_is_a_stand_in_and_escapes_what_it_shows() -> None:
    for publisher in PUBLISHERS:
        assert publisher.host.endswith(".example")
        assert publisher.name.endswith("(a stand-in)")
        html = page(publisher, MARCH)
        assert FOOTER in html
        assert "is a stand-in" in FOOTER


def test_a_search_shows_three_of_the_publishers_and_then_the_other_three() -> None:
    query = configuration().queries[0]
    for turn in range(0, 1000, 2):
        first = {found.host for found in search.found(query, turn=turn)}
        second = {found.host for found in search.found(query, turn=turn + 1)}
        assert len(first) == len(second) == 4
        assert first & second == {"rigs.example"}
        assert first | second == set(HOSTS)
    assert search.found("price of cheese", turn=0) == []


# ------------------------------------------------------------------------------------------------ the model
def prompted(known: Known, *, fundamental: int, hosts: tuple[str, ...] = HOSTS) -> tuple[list[Page], list[str]]:
    """Pages of `hosts` as the oracle stores them, and the prompt about them."""
    at = BEGAN + timedelta(seconds=fundamental % 9_973)
    pages = [
        Page(url=publisher.url, title=publisher.name, text=text_of(page(publisher, known)), retrieved_at=at)
        for publisher in PUBLISHERS
        if publisher.host in hosts
    ]
    prompt = build_prompt(configuration=configuration(), fundamental=fundamental, at=at, pages=pages)
    return pages, [message["content"] for message in prompt.messages]


def judged(
    known: Known, *, fundamental: int, hosts: tuple[str, ...] = HOSTS, used: tuple[UsedEvidence, ...] = ()
) -> Verdict:
    """What the oracle's own rules make of the model's answer."""
    pages, messages = prompted(known, fundamental=fundamental, hosts=hosts)
    case = SearchCase(
        configuration=configuration(),
        fundamental=fundamental,
        is_first=False,
        at=pages[0].retrieved_at,
        max_age_seconds=900,
        pages=tuple(pages),
        duplicates=(),
        output=answer(messages),
        used=used,
        pending=(),
        moved=0,
        max_moves=10**10,
    )
    return judge_search(case)


def test_it_reads_the_latest_month_from_every_page_that_tells_of_it() -> None:
    pages, messages = prompted(MARCH, fundamental=730 * 10**12)
    current, read = read_prompt("\n".join(messages))
    assert current == 730
    assert [one.url for one in read] == [one.url for one in pages]
    told = latest(read)
    assert [one.url for one in told] == [publisher.url for publisher in PUBLISHERS[:6]]
    assert {(one.when, one.thousands) for one in told} == {((2011, 3), Fraction(734))}
    assert told[0].quotation == "March 2011 (replay 7) 734"


def test_about_one_answer_in_twelve_is_refused_by_the_oracle_and_the_others_are_right() -> None:
    refused: Counter[tuple[Reason, ...]] = Counter()
    asked = 360
    for number in range(asked):
        verdict = judged(MARCH, fundamental=730 * 10**12 + number)
        if verdict.outcome is OracleOutcome.ACCEPTED:
            assert (verdict.price, verdict.figure, len(verdict.counted)) == (734 * 10**12, "734", 6)
        else:
            refused[verdict.reasons] += 1
    assert set(refused) == {(Reason.BAD_OUTPUT,), (Reason.UNGROUNDED,)}
    assert asked // (2 * BAD_ONE_IN) <= refused.total() <= 2 * asked // BAD_ONE_IN


@pytest.mark.parametrize("month", range(0, MONTHS, 7))
def test_it_reads_every_month_of_the_series_right(month: int) -> None:
    known = known_at(BEGAN + timedelta(seconds=month * MONTH_SECONDS))
    for hosts in (HOSTS[:3], HOSTS[3:]):
        verdicts = [
            judged(known, fundamental=known.latest.thousands * 10**12 + number, hosts=hosts) for number in (1, 2, 3)
        ]
        prices = {verdict.price for verdict in verdicts if verdict.outcome is OracleOutcome.ACCEPTED}
        assert prices == {known.latest.thousands * 10**12}


def test_a_month_is_a_repeat_within_its_replay_and_news_in_the_next_one() -> None:
    forth, turn, back = (known_at(BEGAN + timedelta(seconds=MONTH_SECONDS * number)) for number in (118, 119, 120))
    assert (forth.latest, turn.latest, back.latest) == (Figure(2015, 11, 755), Figure(2015, 12, 745), forth.latest)
    price = 755 * 10**12
    good = [number for number in range(price, price + 6) if judged(forth, fundamental=number).counted]
    taken, (pages, _) = judged(forth, fundamental=good[0]), prompted(forth, fundamental=good[0])
    used = tuple(
        UsedEvidence(HOSTS[index], "755", content_hash(pages[index].text), taken.quotations[index] or "")
        for index in taken.counted
    )
    assert judged(forth, fundamental=good[1], used=used).reasons == (Reason.REPEAT,)
    verdicts = [judged(back, fundamental=number, used=used) for number in range(price, price + 6)]
    assert {verdict.price for verdict in verdicts if verdict.outcome is OracleOutcome.ACCEPTED} == {price}


def test_asked_of_anything_else_it_says_that_it_cannot_tell() -> None:
    said = orjson.loads(answer(["What does cheese cost?"]))
    assert (said["quotations"], said["source_urls"], said["confidence"]) == ([], [], 0)
    assert said["summary"].startswith("The stand-in knows of mining and logging payrolls only")


# ------------------------------------------------------------------------------------------------ the server
@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=application())
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8601") as http:
        yield http


async def test_it_searches_in_serpers_wire_format(client: httpx.AsyncClient) -> None:
    body = (await client.post("/serper/search", json={"q": "US mining payrolls", "num": 3})).json()
    assert body["searchParameters"]["q"] == "US mining payrolls"
    assert body["searchParameters"]["engine"] == "megatron-stand-in"
    assert body["credits"] == 1
    assert [entry["position"] for entry in body["organic"]] == [1, 2, 3]
    for entry in body["organic"]:
        assert entry["link"].startswith("http://")
        assert entry["title"]
        assert entry["snippet"]
    assert (await client.post("/serper/search", json={"q": "cheese"})).json()["organic"] == []


async def test_two_searches_on_end_find_different_publishers(client: httpx.AsyncClient) -> None:
    bodies = [(await client.post("/serper/search", json={"q": "mining", "num": 10})).json() for _ in range(2)]
    first, second = ({entry["link"] for entry in body["organic"]} for body in bodies)
    assert first & second == {PUBLISHERS[-1].url}


async def test_it_completes_chats_in_openais_wire_format(client: httpx.AsyncClient) -> None:
    _, messages = prompted(MARCH, fundamental=730 * 10**12)
    chat = [{"role": "user", "content": content} for content in messages]
    body = (await client.post("/v1/chat/completions", json={"model": "any", "messages": chat})).json()
    assert (body["object"], body["model"]) == ("chat.completion", MODEL)
    (choice,) = body["choices"]
    assert choice["message"] == {"role": "assistant", "content": answer(messages)}
    assert choice["finish_reason"] == "stop"
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0


async def test_pages_are_served_by_host_and_nothing_else_is(client: httpx.AsyncClient) -> None:
    for publisher in PUBLISHERS:
        answered = await client.get(publisher.path, headers={"Host": f"{publisher.host}:8601"})
        assert answered.status_code == 200
        assert answered.headers["content-type"] == "text/html; charset=utf-8"
        assert FOOTER in answered.text
    assert (await client.get("/other", headers={"Host": "gazette.example"})).status_code == 404
    assert (await client.get(PUBLISHERS[0].path, headers={"Host": "unknown.example"})).status_code == 404
    assert (await client.get("/")).text.startswith("This is the stand-in of the Megatron demo market")


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"q": 7, "messages": "hi"}', b'{"messages": [{"content": 1}]}'])
async def test_requests_that_make_no_sense_are_refused(client: httpx.AsyncClient, body: bytes) -> None:
    assert (await client.post("/serper/search", content=body)).status_code == 400
    assert (await client.post("/v1/chat/completions", content=body)).status_code == 400


@pytest.fixture
async def process() -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """`megatron demo stand-in` on a free port, and its address."""
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.cli", "demo", "stand-in", cwd=ROOT, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert running.stdout is not None
    try:
        async with asyncio.timeout(20):
            line = (await running.stdout.readline()).decode()
        assert line.startswith("the stand-in serves http://127.0.0.1:")
        yield running, line.split()[-1]
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()


async def test_the_command_serves_until_it_is_told_to_end(process: tuple[asyncio.subprocess.Process, str]) -> None:
    running, url = process
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(url)).text.startswith("This is the stand-in")
        taken = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app.cli", "demo", "stand-in", "--port", url.rpartition(":")[2], cwd=ROOT,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output, errors = await asyncio.wait_for(taken.communicate(), 20)
    assert (taken.returncode, output) == (1, b"")
    assert errors.decode().startswith("megatron: the stand-in cannot listen on port ")
    running.send_signal(signal.SIGTERM)
    output, _ = await asyncio.wait_for(running.communicate(), 10)
    assert (running.returncode, output) == (0, b"")


# ------------------------------------------------------------------------------------------------ when it is used
@pytest.mark.parametrize(
    "given",
    [
        {"SERPER_API_KEY": "k"},
        {"HUGGINGFACE_API_KEY": "k"},
        {"SERPER_API_URL": "http://127.0.0.1:1"},
        {"HUGGINGFACE_API_URL": "http://127.0.0.1:1/v1"},
        {"oracle_allow_private": False},
    ],
)
def test_it_is_not_wanted_where_a_provider_is_set_or_loopback_is_ruled_out(given: dict[str, object]) -> None:
    assert not is_wanted(make_settings(**given))


def test_it_is_wanted_otherwise_and_reached_by_settings() -> None:
    settings = make_settings()
    assert is_wanted(settings)
    environment = environment_for(settings, port=8601)
    assert environment == {
        "SERPER_API_URL": "http://127.0.0.1:8601/serper",
        "HUGGINGFACE_API_URL": "http://127.0.0.1:8601/v1",
        "HUGGINGFACE_MODEL": MODEL,
        "MEGATRON_ORACLE_HOSTS": ",".join(f"{host}=127.0.0.1:8601" for host in HOSTS),
        "MEGATRON_ORACLE_ALLOW_PRIVATE": "1",
        "MEGATRON_ORACLE_MAX_MOVES_PERCENT": "1000",
        "MEGATRON_SEARCH_REQUESTS_PER_DAY": "100000",
        "MEGATRON_MODEL_REQUESTS_PER_DAY": "100000",
        "MEGATRON_SEARCH_REQUEST_COST": "0",
        "MEGATRON_MODEL_TOKEN_COST": "0",
    }
    hosts = make_settings(oracle_hosts=environment["MEGATRON_ORACLE_HOSTS"]).oracle_host_addresses
    assert hosts == dict.fromkeys(HOSTS, ("127.0.0.1", 8601))


def test_what_was_set_stands() -> None:
    settings = make_settings(
        oracle_allow_private=True,
        oracle_hosts="mine.example=127.0.0.1:7,rigs.example=127.0.0.1:8",
        oracle_max_moves_percent=30,
        HUGGINGFACE_MODEL="mine",
    )
    assert is_wanted(settings)
    environment = environment_for(settings, port=8601)
    assert not {"MEGATRON_ORACLE_MAX_MOVES_PERCENT", "HUGGINGFACE_MODEL"} & environment.keys()
    hosts = make_settings(oracle_hosts=environment["MEGATRON_ORACLE_HOSTS"]).oracle_host_addresses
    assert (hosts["mine.example"], hosts["rigs.example"]) == (("127.0.0.1", 7), ("127.0.0.1", 8))
    assert hosts["gazette.example"] == ("127.0.0.1", 8601)
