"""What a search reading is made of: pages found, fetched and turned to text. What they come to is judged elsewhere.

Nothing that a page or a provider does ends a gathering: a page that cannot be had is kept as evidence of that.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol
from urllib.parse import urlsplit

import structlog

from app.oracle.cases import Page, content_hash
from app.oracle.configuration import SearchConfiguration
from app.oracle.domains import registrable_domain
from app.oracle.extraction import ExtractionFailed, Extractor
from app.oracle.fetching import PAGE_ACCEPT, Fetched, Fetcher, FetchRefused
from app.oracle.kinds import Evidence, Verdict
from app.oracle.providers import ProviderFailed, SearchHit, WebSearch
from app.oracle.report_rows import storable

PAGES_MAX: Final = 20
"""Of one reading, however many queries it makes."""
PAGE_BYTES_MAX: Final = 2 * 2**20
PAGE_SECONDS_MAX: Final = 10.0
PAGES_AT_ONCE: Final = 48
"""That one `Reader` has in hand: each may take `PAGE_BYTES_MAX` several times over."""
EXCERPT_CHARS: Final = 300
"""Of a page that no value was read from."""

_log = structlog.get_logger(__name__)


class BlobStore(Protocol):
    """Where the bodies of pages may be kept."""

    async def put(self, *, content_hash: str, body: bytes, content_type: str) -> str:
        """Keep `body`; the address that it can be had from."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """Pages to fetch, what finding them cost (10^-6 US dollars), and what the search said where it failed."""

    hits: tuple[SearchHit, ...]
    cost: int
    failures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Gathered:
    """Pages with text, and in the same order where their bodies are kept; evidence of those that could not be had."""

    pages: tuple[Page, ...]
    body_urls: tuple[str | None, ...]
    missed: tuple[Evidence, ...]


async def find_pages(search: WebSearch, *, configuration: SearchConfiguration, results: int, ttl_seconds: int) -> Found:
    """The pages that the queries name, each once: `results` of a query at most, `PAGES_MAX` in all.

    Pages outside of the configured domains are passed over. A query that fails does not spoil the others.
    """
    hits: dict[str, SearchHit] = {}
    cost, failures = 0, []
    for query in configuration.queries:
        try:
            found = await search.find(query, results=results, ttl_seconds=ttl_seconds)
        except ProviderFailed as error:
            failures.append(str(error))
            continue
        cost += found.cost
        for hit in found.hits[:results]:
            if _may_count(hit.url, configuration):
                hits.setdefault(hit.url.partition("#")[0], hit)
    return Found(tuple(hits.values())[:PAGES_MAX], cost, tuple(failures))


class Reader:
    """Fetches pages and turns them to text, `PAGES_AT_ONCE` of them. With a blob store, their bodies are kept."""

    def __init__(
        self, fetcher: Fetcher, extractor: Extractor, *, blob_store: BlobStore | None, now: Callable[[], datetime]
    ) -> None:
        self._fetcher = fetcher
        self._extractor = extractor
        self._blob_store = blob_store
        self._now = now
        self._slots = asyncio.Semaphore(PAGES_AT_ONCE)

    async def read(self, hits: Sequence[SearchHit]) -> Gathered:
        """All of `hits`, at once; of several that lead to one address the first."""
        read = await asyncio.gather(*(self._read(hit) for hit in hits))
        pages: dict[str, tuple[Page, str | None]] = {}
        for each in read:
            if not isinstance(each, Evidence):
                pages.setdefault(each[0].url, each)
        return Gathered(
            pages=tuple(page for page, _ in pages.values()),
            body_urls=tuple(body_url for _, body_url in pages.values()),
            missed=tuple(each for each in read if isinstance(each, Evidence)),
        )

    async def _read(self, hit: SearchHit) -> tuple[Page, str | None] | Evidence:
        """The page and where its body is kept, or why it could not be had."""
        async with self._slots:
            try:
                fetched = await self._fetcher.get(
                    hit.url, bytes_max=PAGE_BYTES_MAX, seconds_max=PAGE_SECONDS_MAX, accept=PAGE_ACCEPT
                )
                extracted = await self._extractor.extract(fetched)
            except (FetchRefused, ExtractionFailed) as error:
                return missed(hit.url, title=hit.title, why=str(error), at=self._now())
            text = storable(extracted.text)
            title = extracted.title or hit.title
            if not text.strip():
                return missed(fetched.url, title=title, why="there is no text on the page", at=fetched.retrieved_at)
            page = Page(fetched.url, None if title is None else storable(title), text, fetched.retrieved_at)
            return page, await self._keep(fetched)

    async def _keep(self, fetched: Fetched) -> str | None:
        """Where the body is kept; None where it is not. Evidence does without."""
        if self._blob_store is None:
            return None
        try:
            return await self._blob_store.put(
                content_hash=hashlib.sha256(fetched.body).hexdigest(),
                body=fetched.body,
                content_type=fetched.content_type,
            )
        except Exception as error:
            _log.warning("oracle.body_not_kept", url=fetched.url[:200], error=repr(error)[:500])
            return None


def missed(url: str, *, title: str | None, why: str, at: datetime, source: str | None = None) -> Evidence:
    """Evidence that nothing could be read at `url`, and why. `source`: where it is no page, the feed's name."""
    excerpt = storable(why)
    return Evidence(
        source=source or source_of(url),
        url=url,
        title=title,
        excerpt=excerpt,
        content_hash=content_hash(excerpt),
        retrieved_at=at,
    )


def page_evidence(gathered: Gathered, verdict: Verdict) -> tuple[Evidence, ...]:
    """The pages as evidence of `verdict`, in their order, and then what was missed."""
    pages = tuple(
        Evidence(
            source=source_of(page.url),
            url=page.url,
            title=page.title,
            excerpt=quotation or page.text[:EXCERPT_CHARS],
            content_hash=content_hash(page.text),
            retrieved_at=page.retrieved_at,
            text=page.text,
            value=value,
            counts=index in verdict.counted,
            body_url=body_url,
        )
        for index, (page, body_url, quotation, value) in enumerate(
            zip(gathered.pages, gathered.body_urls, verdict.quotations, verdict.values, strict=True)
        )
    )
    return pages + gathered.missed


def source_of(url: str) -> str:
    """The registrable domain of a page, or the host where it has none."""
    return registrable_domain(url) or _host(url)


def _may_count(url: str, configuration: SearchConfiguration) -> bool:
    return configuration.allowed_domains is None or registrable_domain(url) in configuration.allowed_domains


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or "unknown"
    except ValueError:
        return "unknown"
