"""Runs of oracles against providers, pages and feeds on loopback: what is gathered, asked, judged and kept."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from app.db import Database
from app.oracle.cases import content_hash, decode_case
from app.oracle.claims import Claim
from app.oracle.configuration import FeedsConfiguration, SearchConfiguration
from app.oracle.extraction import Extractor
from app.oracle.fetching import Fetcher
from app.oracle.gathering import BlobStore
from app.oracle.kinds import PERCENT_UNIT, Effect, Evidence, OracleMethod, OracleOutcome, Reason
from app.oracle.providers import open_providers
from app.oracle.replaying import replay
from app.oracle.reports import Draft
from app.oracle.runner import RunFailed, Runner, Similarity
from app.oracle.steps import Step
from tests.conftest import make_settings
from tests.oracle.making import FEED, SEARCH, UNIT, accepted, in_the_past, new_oracle, next_run, recorded, reported
from tests.oracle.provider_server import MODEL, Answer, ProviderServer, organic, page, provider_server
from tests.oracle.provider_server import SEARCH as FIND

HOSTS = ("www.alpha.example", "www.beta.example", "news.beta.example", "www.gamma.example", "feed.example")
SAID = "Wheat traded at {} USD a bushel today, and little changed."


@dataclass
class Bench:
    """A runner, and the server that all of its world is."""

    database: Database
    server: ProviderServer
    runner_of: Callable[..., Runner]
    steps: list[Step] = field(default_factory=list)

    def pages(self, *hosts: str, price: str = "1.05", text: str = SAID) -> list[str]:
        """Let the search find a page on each of these hosts, which says a price; their addresses."""
        urls = []
        for number, host in enumerate(hosts):
            path = f"/{host}/{number}"
            self.server.pages[path] = page(f"<p>{text.format(price)} Says {host}, number {number}.</p>")
            urls.append(f"http://{host}{path}")
        self.server.results = [organic(url, title=f"Wheat {number}") for number, url in enumerate(urls)]
        return urls

    def answers(self, price: str, *, delta: float, urls: Sequence[str], quotation: str = SAID) -> None:
        """Let the model say so."""
        said = quotation.format(price)
        body = {
            "quotations": [{"url": url, "quotation": said, "number": float(price)} for url in urls],
            "source_urls": list(urls),
            "suggested_price": float(price),
            "delta_percent": delta,
            "confidence": 0.875,
            "summary": "Wheat is up.",
        }
        self.server.content = json.dumps(body)

    async def run(self, claim: Claim, **values: Any) -> Draft:
        """One run; what is judged and recorded of it is replayed as well."""
        draft = await self.runner_of(on_step=self.steps.append, **values).run(claim)
        (report,) = await recorded(self.database, draft)
        async with self.database.snapshot() as connection:
            assert (await replay(connection=connection, report_id=report.id)).differences == ()
        return draft


@pytest.fixture
async def bench(database: Database) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(provider_server())
        hosts = dict.fromkeys(HOSTS, ("127.0.0.1", server.port))
        settings = make_settings(
            serper_api_url=server.serper_url, huggingface_api_url=server.huggingface_url, oracle_allow_private=True
        )
        providers = await open_providers(settings, database, None)
        stack.push_async_callback(providers.aclose)
        fetcher = Fetcher(allow_private=True, hosts=hosts)
        stack.push_async_callback(fetcher.aclose)
        extractor = Extractor()
        await extractor.start()
        stack.push_async_callback(extractor.stop)

        def runner_of(**values: Any) -> Runner:
            return Runner(database, providers, fetcher, extractor, settings=values.pop("settings", settings), **values)

        yield Bench(database, server, runner_of)


def outcome_of(draft: Draft) -> tuple[OracleOutcome, tuple[Reason, ...], Effect, int | None]:
    verdict = draft.verdict
    return verdict.outcome, verdict.reasons, verdict.effect, verdict.price


def evidence_of(draft: Draft) -> list[tuple[str, str | None, bool]]:
    return [(each.source, each.value, each.counts) for each in draft.evidence]


async def new_search(bench: Bench, **values: Any) -> Claim:
    """A search whose asset has had a reading of 1."""
    configuration: SearchConfiguration = replace(SEARCH, **values)
    claim = await new_oracle(bench.database, configuration=configuration)
    await reported(bench.database, accepted(UNIT, effect=Effect.SET), claim=claim)
    return await next_run(bench.database, claim.asset_id, configuration=configuration)


# ------------------------------------------------------------------------------------------------ searches
async def test_a_search_from_end_to_end(bench: Bench) -> None:
    urls = bench.pages("www.alpha.example", "www.beta.example")
    bench.answers("1.05", delta=5.0, urls=urls)
    claim = await new_search(bench)
    draft = await bench.run(claim)

    assert outcome_of(draft) == (OracleOutcome.ACCEPTED, (), Effect.MOVE, 105 * UNIT // 100)
    assert (draft.asset_id, draft.run_id, draft.method) == (claim.asset_id, claim.run_id, OracleMethod.SEARCH_LLM)
    assert (draft.fundamental_before, draft.cadence_seconds, draft.fresh_seconds) == (UNIT, 300, 900)
    assert (draft.verdict.delta_percent, draft.verdict.confidence, draft.verdict.move) == (
        5 * PERCENT_UNIT,
        875_000_000,
        10**7,
    )
    assert evidence_of(draft) == [("alpha.example", "1.05", True), ("beta.example", "1.05", True)]
    first = draft.evidence[0]
    assert (first.url, first.title, first.excerpt) == (urls[0], "Wheat 0", SAID.format("1.05"))
    assert (
        first.text == "Wheat traded at 1.05 USD a bushel today, and little changed. Says www.alpha.example, number 0."
    )
    assert first.content_hash == content_hash(first.text)
    # One search at 1,000 and 1,000 tokens at 500,000 a million.
    assert (draft.model, draft.cost) == ("stand-in-model", 1_500)
    assert draft.prompt_hash is not None
    assert len(draft.prompt_hash) == 64
    assert bench.steps == [Step.LOADED, Step.SEARCHED, Step.FETCHED, Step.ASKED, Step.JUDGED]
    (asked,) = bench.server.completions
    assert all(url in asked.json["messages"][1]["content"] for url in urls)
    assert [each.json for each in bench.server.searches] == [{"q": "wheat price", "num": 5}]


async def test_the_days_moves_are_those_of_the_databases_day(bench: Bench) -> None:
    urls = bench.pages("www.alpha.example", "www.beta.example")
    bench.answers("1.05", delta=5.0, urls=urls)
    claim, moved = await reported(bench.database, replace(accepted(UNIT), move=245_000_000))
    await in_the_past(bench.database, moved, timedelta(hours=30))
    claim = await next_run(bench.database, claim.asset_id)
    # By this machine's clock it was 30 hours ago, and 20 by the database's, which is 10 behind.
    draft = await bench.run(replace(claim, claimed_at=moved.at - timedelta(hours=10)))
    assert outcome_of(draft) == (
        OracleOutcome.QUARANTINED,
        (Reason.DELTA_TOO_LARGE,),
        Effect.NONE,
        105 * UNIT // 100,
    )


async def test_the_same_again_refreshes_and_moves_nothing(bench: Bench) -> None:
    urls = bench.pages("www.alpha.example", "www.beta.example")
    bench.answers("1.05", delta=5.0, urls=urls)
    claim = await new_search(bench)
    await bench.run(claim)
    bench.answers("1.05", delta=3.96, urls=urls)  # F is 1.01 by now
    draft = await bench.run(await next_run(bench.database, claim.asset_id))
    assert draft.fundamental_before == 101 * UNIT // 100
    assert outcome_of(draft)[:3] == (OracleOutcome.REJECTED, (Reason.REPEAT,), Effect.REFRESH)


async def test_a_big_change_waits_and_is_confirmed_by_others(bench: Bench) -> None:
    urls = bench.pages("www.alpha.example", "www.beta.example", price="1.5")
    bench.answers("1.5", delta=50.0, urls=urls)
    claim = await new_search(bench, min_sources=1)
    waiting = await bench.run(claim)
    assert outcome_of(waiting)[:2] == (OracleOutcome.QUARANTINED, (Reason.DELTA_TOO_LARGE,))
    urls = bench.pages("www.gamma.example", price="1.5")
    bench.answers("1.5", delta=50.0, urls=urls)
    draft = await bench.run(await next_run(bench.database, claim.asset_id, configuration=claim.configuration))
    assert outcome_of(draft) == (OracleOutcome.ACCEPTED, (), Effect.MOVE, 15 * UNIT // 10)
    async with bench.database.acquire() as connection:
        rows = await connection.fetch(
            "SELECT outcome, resolution FROM oracle_logs WHERE asset_id = $1 ORDER BY id", claim.asset_id
        )
    assert [tuple(row) for row in rows] == [("ACCEPTED", None), ("ACCEPTED", "CONFIRMED"), ("ACCEPTED", None)]


async def test_pages_that_cannot_be_had_are_kept_as_evidence_of_that(bench: Bench) -> None:
    urls = bench.pages("www.alpha.example", "www.beta.example", "www.gamma.example", "www.gamma.example")
    bench.server.pages["/www.beta.example/1"] = Answer(status=403, body=b"no")
    bench.server.pages["/www.gamma.example/3"] = page("<p> </p>")
    bench.answers("1.05", delta=5.0, urls=[urls[0], urls[2]])
    draft = await bench.run(await new_search(bench))
    assert outcome_of(draft)[0] is OracleOutcome.ACCEPTED
    assert evidence_of(draft) == [
        ("alpha.example", "1.05", True),
        ("gamma.example", "1.05", True),
        ("beta.example", None, False),
        ("gamma.example", None, False),
    ]
    refused, empty = draft.evidence[2:]
    assert "it forbids reading it" in refused.excerpt
    assert (refused.url, refused.title, refused.text) == (urls[1], "Wheat 1", None)
    assert "text" in empty.excerpt
    assert {each.content_hash for each in (refused, empty)} == {content_hash(each.excerpt) for each in (refused, empty)}


async def test_too_few_sources_are_not_asked_about(bench: Bench) -> None:
    bench.pages("www.beta.example", "news.beta.example")
    draft = await bench.run(await new_search(bench))
    assert outcome_of(draft) == (OracleOutcome.REJECTED, (Reason.TOO_FEW_SOURCES,), Effect.NONE, None)
    assert evidence_of(draft) == [("beta.example", None, False)] * 2
    assert draft.evidence[0].excerpt.startswith("Wheat traded at 1.05 USD")
    assert (draft.model, draft.prompt_hash, draft.cost) == (None, None, 1_000)
    assert (bench.server.completions, bench.steps[-2:]) == ([], [Step.FETCHED, Step.JUDGED])


async def test_only_allowed_domains_are_fetched(bench: Bench) -> None:
    urls = bench.pages("www.alpha.example", "www.beta.example", "www.gamma.example")
    bench.answers("1.05", delta=5.0, urls=[urls[0], urls[2]])
    draft = await bench.run(await new_search(bench, allowed_domains=("alpha.example", "gamma.example")))
    assert [source for source, _, _ in evidence_of(draft)] == ["alpha.example", "gamma.example"]
    fetched = [request.path for request in bench.server.requests if request.method == "GET"]
    assert sorted(fetched) == ["/www.alpha.example/0", "/www.gamma.example/2"]


async def test_an_address_counts_once_however_it_is_found(bench: Bench) -> None:
    urls = bench.pages("www.alpha.example", "www.beta.example")
    bench.server.pages["/moved"] = Answer(status=302, body=b"", headers={"location": urls[0]})
    found = [*urls, f"{urls[0]}#top", "http://www.gamma.example/moved"]
    bench.server.results = [organic(url, title="Wheat") for url in found]
    bench.answers("1.05", delta=5.0, urls=urls)
    draft = await bench.run(await new_search(bench, queries=("wheat price", "price of wheat")))
    assert [each.url for each in draft.evidence] == urls
    assert [each.json["q"] for each in bench.server.searches] == ["wheat price", "price of wheat"]


async def test_one_query_that_fails_does_not_spoil_the_other(bench: Bench) -> None:
    urls = bench.pages("www.alpha.example", "www.beta.example")
    bench.answers("1.05", delta=5.0, urls=urls)
    bench.server.script(FIND, Answer(status=400))
    draft = await bench.run(await new_search(bench, queries=("wheat price", "price of wheat")))
    assert outcome_of(draft)[0] is OracleOutcome.ACCEPTED


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("I am sorry, I cannot help with that.", Reason.BAD_OUTPUT),
        ('{"suggested_price": 1.05', Reason.BAD_OUTPUT),
        ("\x00 \u202e", Reason.BAD_OUTPUT),
        ("{}" * 10_000, Reason.BAD_OUTPUT),
    ],
)
async def test_whatever_the_model_writes_is_reported(bench: Bench, content: str, reason: Reason) -> None:
    bench.pages("www.alpha.example", "www.beta.example")
    bench.server.content = content
    draft = await bench.run(await new_search(bench))
    assert outcome_of(draft) == (OracleOutcome.REJECTED, (reason,), Effect.NONE, None)
    assert draft.model == "stand-in-model"


async def test_numbers_that_stand_nowhere_are_ungrounded(bench: Bench) -> None:
    urls = bench.pages("www.alpha.example", "www.beta.example")
    bench.answers("1.07", delta=7.0, urls=urls)
    draft = await bench.run(await new_search(bench))
    assert outcome_of(draft)[:3] == (OracleOutcome.REJECTED, (Reason.UNGROUNDED,), Effect.NONE)


async def expect_failure(bench: Bench, claim: Claim, told: str, **values: Any) -> None:
    with pytest.raises(RunFailed, match=told) as failed:
        await bench.runner_of(**values).run(claim)
    assert len(failed.value.detail) <= 500


async def test_a_provider_that_does_not_answer_fails_the_run(bench: Bench) -> None:
    claim = await new_search(bench)
    bench.pages("www.alpha.example", "www.beta.example")
    bench.server.always(MODEL, Answer(status=400))
    await expect_failure(bench, claim, "huggingface")
    bench.server.always(FIND, Answer(status=403))
    await expect_failure(bench, claim, "serper", settings=make_settings(oracle_search_results=4))


async def test_without_keys_no_search_is_made(bench: Bench) -> None:
    claim = await new_search(bench)
    providers = await open_providers(make_settings(), bench.database, None)
    runner = Runner(
        bench.database,
        providers,
        Fetcher(allow_private=False, hosts={}),
        Extractor(),
        settings=make_settings(),
    )
    with pytest.raises(RunFailed, match="SERPER_API_KEY is not set"):
        await runner.run(claim)
    await providers.aclose()


# ------------------------------------------------------------------------------------------------ what is optional
@dataclass
class Blobs(BlobStore):
    """Keeps bodies, or refuses to."""

    kept: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    is_away: bool = False

    async def put(self, *, content_hash: str, body: bytes, content_type: str) -> str:
        if self.is_away:
            raise OSError("away")
        self.kept[content_hash] = (body, content_type)
        return f"https://blobs.example/{content_hash}"


@dataclass
class Alike(Similarity):
    """Says that all texts are one, or cannot tell."""

    is_away: bool = False
    asked: list[Sequence[tuple[str, str]]] = field(default_factory=list)

    async def duplicates(self, texts: Sequence[tuple[str, str]]) -> tuple[tuple[int, ...], ...]:
        self.asked.append(texts)
        if self.is_away:
            raise OSError("away")
        return (tuple(range(len(texts))),)


async def test_bodies_are_kept_where_they_can_be(bench: Bench) -> None:
    urls = bench.pages("www.alpha.example", "www.beta.example")
    bench.answers("1.05", delta=5.0, urls=urls)
    blobs = Blobs()
    draft = await bench.run(await new_search(bench), blob_store=blobs)
    kept = [str(each.body_url).removeprefix("https://blobs.example/") for each in draft.evidence]
    assert [blobs.kept[each] for each in kept] == [
        (bench.server.pages[f"/{host}/{number}"].body, "text/html; charset=utf-8")
        for number, host in enumerate(("www.alpha.example", "www.beta.example"))
    ]
    draft = await bench.run(await new_search(bench), blob_store=Blobs(is_away=True))
    assert outcome_of(draft)[0] is OracleOutcome.ACCEPTED
    assert [each.body_url for each in draft.evidence] == [None, None]


async def test_near_copies_count_as_one_source(bench: Bench) -> None:
    urls = bench.pages("www.alpha.example", "www.beta.example")
    bench.answers("1.05", delta=5.0, urls=urls)
    alike = Alike()
    draft = await bench.run(await new_search(bench), similarity=alike)
    assert outcome_of(draft)[:2] == (OracleOutcome.REJECTED, (Reason.TOO_FEW_SOURCES,))
    assert alike.asked == [[(each.content_hash, each.text) for each in draft.evidence]]
    assert Step.COMPARED in bench.steps
    draft = await bench.run(await new_search(bench), similarity=Alike(is_away=True))
    assert outcome_of(draft)[0] is OracleOutcome.ACCEPTED


# ------------------------------------------------------------------------------------------------ feeds
def feeds(*paths: str, min_feeds: int = 1, **values: Any) -> FeedsConfiguration:
    """Feeds at these paths."""
    return FeedsConfiguration(
        tuple(replace(FEED, url=f"http://feed.example{path}", **values) for path in paths), min_feeds
    )


async def test_feeds_to_their_median(bench: Bench) -> None:
    for path, price in (("/one", "1.02"), ("/two", "1.04"), ("/three", "1.09")):
        bench.server.pages[path] = Answer(body=f'{{"price": {price}}}'.encode())
    configuration = feeds("/one", "/two", "/three", "/four", min_feeds=2)
    claim = await new_oracle(bench.database, configuration=configuration, cadence_seconds=60)
    draft = await bench.run(claim)
    assert outcome_of(draft) == (OracleOutcome.ACCEPTED, (), Effect.SET, 104 * UNIT // 100)
    assert (draft.method, draft.model, draft.cost, draft.replays) == (OracleMethod.FEED, None, 0, ())
    assert evidence_of(draft)[:3] == [
        ("feed.example/one#$.price", "1.02", True),
        ("feed.example/two#$.price", "1.04", True),
        ("feed.example/three#$.price", "1.09", True),
    ]
    gone: Evidence = draft.evidence[3]
    assert (gone.source, gone.url, gone.value) == ("feed.example/four#$.price", "http://feed.example/four", None)
    assert "there is no such page" in gone.excerpt
    assert bench.steps == [Step.LOADED, Step.READ, Step.JUDGED]

    claim = await next_run(bench.database, claim.asset_id, configuration=configuration, cadence_seconds=60)
    bench.server.pages["/one"] = Answer(body=b'{"price": 3}')
    bench.server.pages["/two"] = Answer(body=b'{"price": 3}')
    draft = await bench.run(claim)
    assert outcome_of(draft) == (OracleOutcome.ACCEPTED, (Reason.CLAMPED,), Effect.MOVE, 1144 * UNIT // 1000)


async def test_no_feed_that_answers_fails_the_run(bench: Bench) -> None:
    claim = await new_oracle(bench.database, configuration=feeds("/gone", "/away"))
    await expect_failure(bench, claim, r"feed\.example/gone#\$\.price: .*; feed\.example/away#\$\.price: ")


async def test_an_average_counts_what_was_answered_before(bench: Bench) -> None:
    configuration = feeds("/twap", twap_minutes=1)
    claim = await new_oracle(bench.database, configuration=configuration, cadence_seconds=30)
    bench.server.pages["/twap"] = Answer(body=b'{"price": 1.0}')
    first = await bench.run(claim)
    async with bench.database.acquire() as connection:
        await connection.execute(
            "UPDATE oracle_evidence SET retrieved_at = retrieved_at - interval '30 seconds' WHERE asset_id = $1",
            claim.asset_id,
        )
    bench.server.pages["/twap"] = Answer(body=b'{"price": 1.05}')
    claim = await next_run(bench.database, claim.asset_id, configuration=configuration, cadence_seconds=30)
    draft = await bench.run(claim)
    case = decode_case(draft.inputs, {})
    (reading,) = case.readings  # type: ignore[union-attr]
    assert reading.samples == ((first.evidence[0].retrieved_at - timedelta(seconds=30), "1"),)
    assert (draft.evidence[0].value, draft.verdict.price) == ("1.05", UNIT)  # the new answer has held for no time yet


async def test_a_bundled_series_moves_with_its_report(bench: Bench) -> None:
    series = FeedsConfiguration(
        (replace(FEED, url=None, json_path=None, series="us-employment", column="nonfarm", scale="0.0001"),), 1
    )
    claim = await new_oracle(bench.database, configuration=series, cadence_seconds=3)
    await expect_failure(bench, claim, "no replay of it was started")
    async with bench.database.acquire() as connection:
        await connection.execute(
            'INSERT INTO series_replays (asset_id, series, "column", speed, position_ms, advanced_at)'
            " VALUES ($1, 'us-employment', 'nonfarm', 1, 0, clock_timestamp() - interval '1 hour')",
            claim.asset_id,
        )
    draft = await bench.run(claim)
    (move,) = draft.replays
    assert move.position_ms == 4_500  # an hour counts as one and a half cadences
    async with bench.database.acquire() as connection:
        stands = await connection.fetchrow("SELECT * FROM series_replays WHERE asset_id = $1", claim.asset_id)
    assert stands is not None
    assert (stands["position_ms"], stands["advanced_at"]) == (4_500, move.advanced_at)
    assert draft.evidence[0].source == "series:us-employment/nonfarm"
    assert draft.evidence[0].counts
