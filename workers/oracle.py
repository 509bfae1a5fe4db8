"""`megatron worker oracle`: a process that runs the assets' oracles, and around it the periodic jobs of its tables.

Thin: what is done stands in `app.oracle`, what the workers' processes share in `workers.hosting`. Here stands only what
the oracle is made of: its providers, and what is there only where it is configured.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Final

import structlog

from app.db import Database
from app.oracle.blob_store import BlobStore
from app.oracle.extraction import Extractor
from app.oracle.fetching import Fetcher
from app.oracle.maintenance import maintain
from app.oracle.metrics import OracleMetrics
from app.oracle.providers import ProviderMisconfigured, Providers, open_providers
from app.oracle.runner import Runner
from app.oracle.similarity import Embeddings, Similarity
from app.oracle.steps import OnStep, Step, unheard
from app.oracle.vector_stores import PineconeVectors, PostgresVectors, VectorStore
from app.oracle.worker import OracleWorker
from app.settings import Settings
from app.tasks import end
from workers import hosting
from workers.hosting import Host, Job

QUEUE: Final = "megatron:jobs:oracle"
MAINTAIN_MINUTE: Final = 17
"""Of every hour."""
MAINTAIN_SECONDS_MAX: Final = 600
CLOSE_SECONDS_MAX: Final = 0.3
"""For each thing that is closed at the end."""

_log = structlog.get_logger(__name__)


def jobs(settings: Settings, database: Database) -> list[Job]:
    """The periodic jobs, each one call of the app."""

    async def maintain_oracle() -> None:
        """Retention."""
        done = await maintain(database=database, feed_report_days=settings.oracle_feed_report_days)
        _log.info("oracle.maintained", pruned=done.pruned, copied=done.copied)

    return [Job("maintain_oracle", MAINTAIN_MINUTE, MAINTAIN_SECONDS_MAX, maintain_oracle)]


def serve(settings: Settings) -> int:
    """Run until SIGINT or SIGTERM; the exit status, see `hosting.serve`."""
    return hosting.serve(lambda: run(settings), settings, misconfigured=(ProviderMisconfigured,))


async def run(settings: Settings, *, on_step: OnStep = unheard) -> None:
    """Run the oracles and the jobs until a signal says stop. Raises what prevents the start.

    `on_step` is told of every step of every run, after the metrics.
    """
    async with hosting.hosted(settings) as host, AsyncExitStack() as stack:
        metrics = OracleMetrics()
        worker = await _composed(host, stack, metrics=metrics, on_step=_both(metrics.step, on_step))
        hosting.on_signals(worker.stop)
        await stack.enter_async_context(hosting.serving_metrics(settings.worker_metrics_port, metrics.render))
        around = asyncio.create_task(
            hosting.run_jobs(settings, queue=QUEUE, jobs=jobs(settings, host.database)), name="jobs"
        )
        hosting.freeze()
        _log.info("oracle.working", environment=settings.env.value, concurrency=settings.oracle_concurrency)
        try:
            await worker.run()
        finally:
            await end([around])
    _log.info("oracle.stopped")


async def _composed(host: Host, stack: AsyncExitStack, *, metrics: OracleMetrics, on_step: OnStep) -> OracleWorker:
    """The worker and all that it works with; `stack` closes it."""
    settings = host.settings
    providers = await open_providers(settings, host.database, host.redis)
    stack.push_async_callback(_closing, providers.aclose)
    fetcher = Fetcher(allow_private=settings.oracle_allow_private, hosts=settings.oracle_host_addresses)
    stack.push_async_callback(_closing, fetcher.aclose)
    extractor = Extractor()
    stack.push_async_callback(_closing, extractor.stop)
    if providers.search is not None:
        try:
            await extractor.start()
        except RuntimeError as error:
            # Feeds need none of it; each search says it again.
            _log.error("oracle.extractor_not_started", error=repr(error))
    metrics.asks(providers.breakers)
    runner = Runner(
        host.database,
        providers,
        fetcher,
        extractor,
        settings=settings,
        blob_store=_blob_store(settings, stack),
        similarity=_similarity(host, providers, stack),
        on_step=on_step,
    )
    return OracleWorker(
        host.database,
        host.redis,
        host.bus,
        runner,
        concurrency=settings.oracle_concurrency,
        budgets=providers.budgets,
        metrics=metrics,
        on_step=on_step,
    )


def _blob_store(settings: Settings, stack: AsyncExitStack) -> BlobStore | None:
    """Where the bodies of evidence are kept; None where none is configured."""
    if not settings.blob_read_write_token:
        return None
    store = BlobStore(url=settings.blob_api_url, token=settings.blob_read_write_token)
    stack.push_async_callback(_closing, store.aclose)
    return store


def _similarity(host: Host, providers: Providers, stack: AsyncExitStack) -> Similarity | None:
    """What tells near-copies, by the embeddings of the language model's provider; None where none are configured."""
    settings, model = host.settings, host.settings.huggingface_embedding_model
    if not model or providers.embeddings is None:
        return None
    vectors: VectorStore = PostgresVectors(host.database, model=model)
    if settings.pinecone_api_key and settings.pinecone_index_url:
        vectors = pinecone = PineconeVectors(
            url=settings.pinecone_index_url, key=settings.pinecone_api_key, model=model
        )
        stack.push_async_callback(_closing, pinecone.aclose)
    return Similarity(Embeddings(providers.embeddings, providers.budgets, model), vectors)


async def _closing(close: Callable[[], Awaitable[None]]) -> None:
    """Close something, and do not wait for it for long: the end must not hang on what it hangs on."""
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS_MAX):
            await close()


def _both(first: OnStep, second: OnStep) -> OnStep:
    def told(step: Step) -> None:
        first(step)
        second(step)

    return told
