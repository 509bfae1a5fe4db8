"""One run of one asset's oracle: gather, ask, judge. What it comes to is a draft, which somebody else records.

A run reads the database and writes nothing; whatever ends it half-way leaves nothing behind.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from app import clock
from app.db import Connection, Database
from app.oracle.cases import FeedCase, FeedReading, SearchCase, content_hash, encode_case
from app.oracle.claims import Claim
from app.oracle.configuration import FeedConfiguration, FeedsConfiguration, SearchConfiguration
from app.oracle.extraction import Extractor
from app.oracle.feeds import FeedAnswer, FeedFailed, FeedReader
from app.oracle.fetching import Fetcher
from app.oracle.gathering import BlobStore, Gathered, Reader, find_pages, missed, page_evidence
from app.oracle.history import SearchHistory, feed_samples, search_history
from app.oracle.judgement import has_enough_sources, judge, narrowed
from app.oracle.kinds import Evidence, Verdict
from app.oracle.prompts import build_prompt
from app.oracle.providers import Completion, ProviderFailed, Providers
from app.oracle.replays import ReplayMove, replayed
from app.oracle.report_rows import storable
from app.oracle.reports import Draft
from app.oracle.series import UnknownSeries
from app.oracle.standing import FundamentalStanding, fundamental_standing
from app.oracle.steps import OnStep, Step, unheard
from app.settings import Settings

MAX_AGE_CADENCES: Final = 3
"""Pages count for so many cadences after they were fetched."""
STEP_MS_PER_CADENCE_SECOND: Final = 1_500
"""What counts, at most, of the time between two readings of a replayed series: one and a half cadences."""
PERCENT_MOVE: Final = 10**7
"""A percent of F in the unit of moves, 10^-9."""
DETAIL_CHARS_MAX: Final = 500

_log = structlog.get_logger(__name__)


class RunFailed(Exception):  # noqa: N818 - an outcome of a run
    """Nothing could be gathered, so there is nothing to report. `detail` says why."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail[:DETAIL_CHARS_MAX])
        self.detail = detail[:DETAIL_CHARS_MAX]


class Similarity(Protocol):
    """Tells which texts are near copies of one another."""

    async def duplicates(self, texts: Sequence[tuple[str, str]]) -> tuple[tuple[int, ...], ...]:
        """Groups of indices of `texts`, which are (content hash, text)."""
        ...


@dataclass(frozen=True, slots=True)
class _Known:
    """What an asset's search is judged by, as it was when the run began."""

    standing: FundamentalStanding
    history: SearchHistory


@dataclass(frozen=True, slots=True)
class _FeedResult:
    """What a feed answered and where its replay stands then, or why it did not."""

    feed: FeedConfiguration
    answer: FeedAnswer | None = None
    move: ReplayMove | None = None
    why: str = ""


class Runner:
    """Runs oracles, many at once. `now` is this machine's clock, by which pages and answers are dated too."""

    def __init__(
        self,
        database: Database,
        providers: Providers,
        fetcher: Fetcher,
        extractor: Extractor,
        *,
        settings: Settings,
        blob_store: BlobStore | None = None,
        similarity: Similarity | None = None,
        on_step: OnStep = unheard,
        now: Callable[[], datetime] = clock.now,
    ) -> None:
        self._database = database
        self._providers = providers
        self._feed_reader = FeedReader(fetcher)
        self._reader = Reader(fetcher, extractor, blob_store=blob_store, now=now)
        self._similarity = similarity
        self._settings = settings
        self._on_step = on_step
        self._now = now

    async def run(self, claim: Claim) -> Draft:
        """Gather and judge. Raises `RunFailed` when there is nothing to judge, LookupError for an unknown asset."""
        began = asyncio.get_running_loop().time()
        if isinstance(claim.configuration, SearchConfiguration):
            draft = await self._search(claim, claim.configuration)
        else:
            draft = await self._feeds(claim, claim.configuration)
        return replace(draft, latency_ms=round((asyncio.get_running_loop().time() - began) * 1_000))

    # ------------------------------------------------------------------------------------------------ searches
    async def _search(self, claim: Claim, configuration: SearchConfiguration) -> Draft:
        search = self._providers.search
        if search is None or self._providers.model is None:
            missing = "SERPER_API_KEY" if search is None else "HUGGINGFACE_API_KEY"
            raise RunFailed(f"{missing} is not set: without it no search is made; set it, or configure feeds instead")
        async with self._database.acquire() as connection:
            known = _Known(
                await fundamental_standing(connection=connection, asset_id=claim.asset_id),
                # Reports are dated by the database's clock, which may differ from ours.
                await search_history(
                    connection=connection, asset_id=claim.asset_id, at=claim.claimed_at or self._now()
                ),
            )
        self._on_step(Step.LOADED)
        found = await find_pages(
            search,
            configuration=configuration,
            results=self._settings.oracle_search_results,
            # A little less: the next run, which may come a little early, is to search anew.
            ttl_seconds=max(1, claim.cadence_seconds * 9 // 10),
        )
        if found.failures and not found.hits:
            raise RunFailed("; ".join(found.failures))
        self._on_step(Step.SEARCHED)
        gathered = await self._reader.read(found.hits)
        self._on_step(Step.FETCHED)
        case = self._case(claim, configuration, known, gathered)
        case = replace(case, duplicates=await self._duplicates(case))
        answer, prompt_hash = await self._ask(case) if has_enough_sources(case) else (None, None)
        if answer is not None:
            case = replace(case, output=answer.content)
        verdict = judge(case)
        self._on_step(Step.JUDGED)
        return self._draft(
            claim,
            narrowed(case, verdict),
            verdict,
            evidence=page_evidence(gathered, verdict),
            model=None if answer is None else answer.model,
            prompt_hash=prompt_hash,
            cost=found.cost + (0 if answer is None else answer.cost),
        )

    def _case(
        self,
        claim: Claim,
        configuration: SearchConfiguration,
        known: "_Known",
        gathered: Gathered,
    ) -> SearchCase:
        """The case before near copies were looked for and the model was asked."""
        return SearchCase(
            configuration=configuration,
            fundamental=known.standing.fundamental,
            is_first=known.standing.is_first,
            at=self._now(),
            max_age_seconds=MAX_AGE_CADENCES * claim.cadence_seconds,
            pages=gathered.pages,
            duplicates=(),
            output=None,
            used=known.history.used,
            pending=known.history.pending,
            moved=known.history.moved,
            max_moves=self._settings.oracle_max_moves_percent * PERCENT_MOVE,
            fundamental_weight=known.standing.weight,
        )

    async def _duplicates(self, case: SearchCase) -> tuple[tuple[int, ...], ...]:
        """Groups of near copies; none where nobody tells them, or cannot."""
        if self._similarity is None or len(case.pages) <= 1:
            return ()
        try:
            groups = await self._similarity.duplicates([(content_hash(page.text), page.text) for page in case.pages])
        except Exception as error:
            _log.warning("oracle.duplicates_unknown", error=repr(error)[:DETAIL_CHARS_MAX])
            groups = ()
        self._on_step(Step.COMPARED)
        return groups

    async def _ask(self, case: SearchCase) -> tuple[Completion, str]:
        """What the model answers, and the hash of what it was asked."""
        if self._providers.model is None:
            raise RunFailed("there is no language model to ask")
        prompt = build_prompt(
            configuration=case.configuration, fundamental=case.fundamental, at=case.at, pages=case.pages
        )
        try:
            completion = await self._providers.model.complete(prompt)
        except ProviderFailed as error:
            raise RunFailed(str(error)) from error
        self._on_step(Step.ASKED)
        return completion, prompt.hash

    # ------------------------------------------------------------------------------------------------ feeds
    async def _feeds(self, claim: Claim, configuration: FeedsConfiguration) -> Draft:
        at = self._now()
        async with self._database.acquire() as connection:
            standing = await fundamental_standing(connection=connection, asset_id=claim.asset_id)
            samples = await _samples(connection, claim, configuration, at)
        self._on_step(Step.LOADED)
        results = await asyncio.gather(*(self._answer(claim, feed, at) for feed in configuration.feeds))
        self._on_step(Step.READ)
        if all(result.answer is None for result in results):
            raise RunFailed("; ".join(result.why for result in results))
        case = FeedCase(
            readings=tuple(_reading(result, at, samples) for result in results),
            min_feeds=configuration.min_feeds,
            fundamental=standing.fundamental,
            is_first=standing.is_first,
            at=at,
            fresh_seconds=claim.fresh_seconds,
            fundamental_weight=standing.weight,
        )
        verdict = judge(case)
        self._on_step(Step.JUDGED)
        return replace(
            self._draft(
                claim,
                case,
                verdict,
                evidence=tuple(_feed_evidence(n, result, verdict, at) for n, result in enumerate(results)),
            ),
            replays=tuple(result.move for result in results if result.move is not None),
        )

    async def _answer(self, claim: Claim, feed: FeedConfiguration, at: datetime) -> _FeedResult:
        try:
            if feed.series is None:
                return _FeedResult(feed, await self._feed_reader.read(feed))
            async with self._database.acquire() as connection:
                answer, move = await replayed(
                    connection=connection,
                    asset_id=claim.asset_id,
                    feed=feed,
                    at=at,
                    step_ms_max=claim.cadence_seconds * STEP_MS_PER_CADENCE_SECOND,
                )
        except (FeedFailed, UnknownSeries) as error:
            return _FeedResult(feed, why=str(error))
        return _FeedResult(feed, answer, move)

    # ------------------------------------------------------------------------------------------------ both
    def _draft(
        self,
        claim: Claim,
        case: SearchCase | FeedCase,
        verdict: Verdict,
        *,
        evidence: tuple[Evidence, ...],
        model: str | None = None,
        prompt_hash: str | None = None,
        cost: int = 0,
    ) -> Draft:
        return Draft(
            asset_id=claim.asset_id,
            run_id=claim.run_id,
            method=claim.method,
            verdict=verdict,
            evidence=evidence,
            fundamental_before=case.fundamental,
            model=model,
            prompt_hash=prompt_hash,
            inputs=encode_case(case),
            cost=cost,
            latency_ms=0,
            cadence_seconds=claim.cadence_seconds,
            fresh_seconds=claim.fresh_seconds,
        )


async def _samples(
    connection: Connection, claim: Claim, configuration: FeedsConfiguration, at: datetime
) -> Mapping[str, Sequence[tuple[datetime, str]]]:
    """What the feeds that are averaged over time answered before, by their names."""
    found: dict[str, Sequence[tuple[datetime, str]]] = {}
    averaged = [(feed.source, feed.twap_minutes) for feed in configuration.feeds if feed.twap_minutes is not None]
    for minutes in sorted({minutes for _, minutes in averaged}):
        found |= await feed_samples(
            connection=connection,
            asset_id=claim.asset_id,
            sources=[source for source, wanted in averaged if wanted == minutes],
            # What was answered before the window holds into it.
            since=at - timedelta(minutes=minutes, seconds=claim.fresh_seconds),
            until=at,
        )
    return found


def _reading(result: _FeedResult, at: datetime, samples: Mapping[str, Sequence[tuple[datetime, str]]]) -> FeedReading:
    feed, answer = result.feed, result.answer
    return FeedReading(
        source=feed.source,
        value=None if answer is None else answer.value,
        at=at if answer is None else answer.retrieved_at,
        samples=() if feed.twap_minutes is None else tuple(samples.get(feed.source, ())),
        scale=feed.scale,
        offset=feed.offset,
        twap_minutes=feed.twap_minutes,
        max_delta_percent=feed.max_delta_percent,
    )


def _feed_evidence(number: int, result: _FeedResult, verdict: Verdict, at: datetime) -> Evidence:
    feed, answer = result.feed, result.answer
    if answer is None:
        return missed(feed.shown_url, title=None, why=result.why, at=at, source=feed.source)
    excerpt = storable(answer.excerpt)
    return Evidence(
        source=feed.source,
        url=feed.shown_url,
        title=None,
        excerpt=excerpt,
        content_hash=content_hash(excerpt),
        retrieved_at=answer.retrieved_at,
        value=verdict.values[number],
        counts=number in verdict.counted,
    )
