"""The providers that searches rest on, as they are configured: opened together, closed together.

Only wiring; how a provider is asked stands in `app.oracle.guard`, what it is asked in the modules named after it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import httpx
from redis.asyncio import Redis

from app.db import Database
from app.oracle import language_model, search
from app.oracle.budgets import Budgets
from app.oracle.guard import (
    Address,
    Breaker,
    BudgetSpent,
    Endpoint,
    Guard,
    Policy,
    ProviderFailed,
    ProviderMisconfigured,
    Timing,
    open_client,
)
from app.oracle.language_model import Completion, LanguageModel
from app.oracle.model_output import OUTPUT_SCHEMA
from app.oracle.search import Found, SearchHit, WebSearch
from app.settings import Settings

__all__ = [
    "PROVIDERS",
    "BudgetSpent",
    "Completion",
    "Found",
    "LanguageModel",
    "ProviderFailed",
    "ProviderMisconfigured",
    "Providers",
    "SearchHit",
    "WebSearch",
    "open_providers",
]

PROVIDERS: Final = (search.PROVIDER, language_model.PROVIDER)
"""All that have a budget."""
EMBEDDINGS: Final = "embeddings"
EMBEDDINGS_PATH: Final = "/embeddings"


@dataclass(frozen=True, slots=True)
class Providers:
    """Searching and reading, None for what is not configured. `breakers` of what is, by provider or "embeddings"."""

    search: WebSearch | None
    model: LanguageModel | None
    budgets: Budgets
    breakers: Mapping[str, Breaker]
    client: httpx.AsyncClient
    embeddings: Endpoint | None = None
    """Of the language model's API, counted in its budget; where `huggingface_embedding_model` is set."""

    async def aclose(self) -> None:
        """End what is under way and close the connections."""
        if self.search is not None:
            await self.search.aclose()
        await self.client.aclose()


async def open_providers(
    settings: Settings,
    database: Database,
    redis: Redis | None,
    *,
    timing: Timing | None = None,
    search_policy: Policy = search.POLICY,
    model_policy: Policy = language_model.POLICY,
) -> Providers:
    """The providers of `settings`; nobody is asked anything yet.

    One counts as configured when it has a key, or an address other than the default: a stand-in of one's own needs no
    key. Raises `ProviderMisconfigured` for an address or a key that cannot be used.
    """
    limits = {
        search.PROVIDER: settings.search_requests_per_day,
        language_model.PROVIDER: settings.model_requests_per_day,
    }
    timing = timing or Timing()
    budgets = Budgets(database, redis, limits=limits, now=timing.wall)
    search_guard = Guard(search.PROVIDER, counter=budgets, policy=search_policy, timing=timing)
    model_guard = Guard(language_model.PROVIDER, counter=budgets, policy=model_policy, timing=timing)
    # A breaker of its own: texts that cannot be compared do not keep the model from being asked.
    embeddings_guard = Guard(language_model.PROVIDER, counter=budgets, policy=model_policy, timing=timing)
    client = open_client()
    try:
        web_search = _search(settings, client, search_guard, budgets, redis)
        model = _model(settings, client, model_guard, budgets)
        embeddings = _embeddings(settings, client, embeddings_guard)
    except BaseException:
        await client.aclose()
        raise
    opened = ((search.PROVIDER, web_search, search_guard), (language_model.PROVIDER, model, model_guard))
    breakers = {name: guard.breaker for name, asked, guard in opened if asked is not None}
    if embeddings is not None:
        breakers[EMBEDDINGS] = embeddings_guard.breaker
    return Providers(web_search, model, budgets, breakers, client, embeddings)


def _search(
    settings: Settings, client: httpx.AsyncClient, guard: Guard, budgets: Budgets, redis: Redis | None
) -> WebSearch | None:
    if not _is_configured(settings.serper_api_key, settings.serper_api_url, field="serper_api_url"):
        return None
    base = settings.serper_api_url.rstrip("/")
    address = Address(f"{base}/search", "SERPER_API_URL", "SERPER_API_KEY", ("x-api-key", ""))
    endpoint = Endpoint(client=client, guard=guard, address=address, key=settings.serper_api_key or None)
    return WebSearch(
        endpoint, redis=redis, budgets=budgets, request_cost=settings.search_request_cost, namespace=address.url
    )


def _model(settings: Settings, client: httpx.AsyncClient, guard: Guard, budgets: Budgets) -> LanguageModel | None:
    if not _is_configured(settings.huggingface_api_key, settings.huggingface_api_url, field="huggingface_api_url"):
        return None
    endpoint = _hugging_face(settings, client, guard, language_model.PATH)
    return LanguageModel(
        endpoint,
        budgets=budgets,
        model=settings.huggingface_model,
        token_cost=settings.model_token_cost,
        schema=OUTPUT_SCHEMA,
    )


def _embeddings(settings: Settings, client: httpx.AsyncClient, guard: Guard) -> Endpoint | None:
    if settings.huggingface_embedding_model is None or not _is_configured(
        settings.huggingface_api_key, settings.huggingface_api_url, field="huggingface_api_url"
    ):
        return None
    return _hugging_face(settings, client, guard, EMBEDDINGS_PATH)


def _hugging_face(settings: Settings, client: httpx.AsyncClient, guard: Guard, path: str) -> Endpoint:
    address = Address(
        settings.huggingface_api_url.rstrip("/") + path,
        "HUGGINGFACE_API_URL",
        "HUGGINGFACE_API_KEY",
        ("authorization", "Bearer "),
        language_model.OWN_FAULTS,
    )
    return Endpoint(client=client, guard=guard, address=address, key=settings.huggingface_api_key or None)


def _is_configured(key: str | None, url: str, *, field: str) -> bool:
    default: str = Settings.model_fields[field].default
    return bool(key) or url.rstrip("/") != default
