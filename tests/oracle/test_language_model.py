"""Chat completions over a real socket: what is asked, what is read, what it costs."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.db import Database
from app.oracle.guard import BreakerState, Policy, ProviderFailed
from app.oracle.language_model import CONTENT_CHARS_MAX, PROVIDER, Completion, LanguageModel
from app.oracle.model_output import OUTPUT_SCHEMA
from app.oracle.prompts import Prompt
from app.oracle.providers import Providers, open_providers
from tests.conftest import make_settings
from tests.oracle.provider_server import MODEL, MODEL_NAME, TOKENS, Answer, ProviderServer, completion, provider_server

KEY = "hf_key0123456789"
HASTY = Policy(seconds_max=0.6, attempt_seconds_max=0.2)
PROMPT = Prompt(({"role": "system", "content": "Read."}, {"role": "user", "content": "What?"}), "0" * 64)
CONTENT = '{"delta_percent": 0}'
NO_TEXT = f"its message is no text of at most {CONTENT_CHARS_MAX} characters"


@pytest.fixture
async def server() -> AsyncIterator[ProviderServer]:
    async with provider_server() as running:
        running.content = CONTENT
        yield running


@asynccontextmanager
async def opened(database: Database, server: ProviderServer, **settings: Any) -> AsyncIterator[Providers]:
    chosen = make_settings(**{"huggingface_api_url": server.huggingface_url, "huggingface_api_key": KEY, **settings})
    providers = await open_providers(chosen, database, None, model_policy=HASTY)
    try:
        yield providers
    finally:
        await providers.aclose()


def model_of(providers: Providers) -> LanguageModel:
    assert providers.model is not None
    return providers.model


async def usage_of_today(database: Database) -> tuple[int, int]:
    """Tokens and cost."""
    async with database.acquire() as connection:
        row = await connection.fetchrow(
            "SELECT tokens, cost FROM oracle_usage WHERE provider = $1 AND day = (now() AT TIME ZONE 'UTC')::date",
            PROVIDER,
        )
    return (row["tokens"], row["cost"]) if row else (0, 0)


async def test_a_completion_over_the_wire(database: Database, server: ProviderServer) -> None:
    tokens, cost = await usage_of_today(database)
    async with opened(database, server, huggingface_model="some/model", model_token_cost=450_001) as providers:
        answer = await model_of(providers).complete(PROMPT)
    # 1,000 tokens at 0.450001 dollars a million are 450.001 millionths of a dollar: rounded up.
    assert answer == Completion(CONTENT, MODEL_NAME, 451, TOKENS)
    assert await usage_of_today(database) == (tokens + TOKENS, cost + 451)
    request = server.completions[0]
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.json == {
        "model": "some/model",
        "messages": [{"role": "system", "content": "Read."}, {"role": "user", "content": "What?"}],
        "temperature": 0,
        "seed": 1,
        "max_tokens": 4096,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "reading", "strict": True, "schema": OUTPUT_SCHEMA},
        },
        "stream": False,
    }


async def test_without_a_key_no_authorization_is_sent(database: Database, server: ProviderServer) -> None:
    async with opened(database, server, huggingface_api_key=None) as providers:
        await model_of(providers).complete(PROMPT)
    assert "authorization" not in server.completions[0].headers


@pytest.mark.parametrize(
    "content",
    [
        "",
        "I am sorry, I cannot help with that.",
        '{"delta_percent": 1',
        "```json\n{}\n```",
        "nul \0 and ü",
        "x" * 99_999,
    ],
)
async def test_whatever_the_model_writes_is_its_answer(
    database: Database, server: ProviderServer, content: str
) -> None:
    server.content = content
    async with opened(database, server) as providers:
        assert (await model_of(providers).complete(PROMPT)).content == content


@pytest.mark.parametrize(("refusal", "content"), [("I refuse.", "I refuse."), (None, "")])
async def test_a_refusal_is_an_answer_too(
    database: Database, server: ProviderServer, refusal: str | None, content: str
) -> None:
    server.script(MODEL, Answer(body=completion(None, refusal=refusal)))
    async with opened(database, server) as providers:
        assert (await model_of(providers).complete(PROMPT)).content == content


async def test_what_the_provider_does_not_tell_is_estimated(database: Database, server: ProviderServer) -> None:
    body = json.dumps({"choices": [{"message": {"content": "x" * 31}}]}).encode()
    server.script(MODEL, Answer(body=body), Answer(body=completion("x" * 31, tokens=None, model="")))
    async with opened(database, server, huggingface_model="some/model", model_token_cost=10**6) as providers:
        for _ in range(2):
            # 10 characters of the prompt and 31 of the answer, at four to a token.
            answer = await model_of(providers).complete(PROMPT)
            assert answer == Completion("x" * 31, "some/model", 11, 11)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"{}", "it has no choice with a message"),
        (b'{"choices": []}', "it has no choice with a message"),
        (b'{"choices": [null]}', "it has no choice with a message"),
        (b'{"choices": [{"text": "x"}]}', "it has no choice with a message"),
        (b'{"choices": [{"message": {"role": "assistant"}}]}', "it has no choice with a message"),
        (b'{"choices": [{"message": {"content": 5}}]}', NO_TEXT),
        (b'{"choices": [{"message": {"content": [{"type": "text", "text": "x"}]}}]}',
         NO_TEXT),
        (completion("x" * (CONTENT_CHARS_MAX + 1)), NO_TEXT),
        (completion("x", tokens="many"), "the tokens that it says it took are no number of tokens"),
        (completion("x", tokens=-1), "the tokens that it says it took are no number of tokens"),
        (completion("x", tokens=10**12), "the tokens that it says it took are no number of tokens"),
        (completion("x", tokens=True), "the tokens that it says it took are no number of tokens"),
        (completion("x", model=5), "the model that it names is no name"),
        (completion("x", model="a\nb"), "the model that it names is no name"),
        (b"data: {}\n\n", "it is no JSON"),
    ],
)  # fmt: skip
async def test_nonsense_is_a_failure_and_costs_a_request(
    database: Database, server: ProviderServer, body: bytes, detail: str
) -> None:
    before = await usage_of_today(database)
    server.script(MODEL, Answer(body=body))
    async with opened(database, server) as providers:
        with pytest.raises(ProviderFailed) as caught:
            await model_of(providers).complete(PROMPT)
    assert str(caught.value) == f"huggingface answered with what is no answer: {detail}"
    assert len(server.completions) == 1
    assert await usage_of_today(database) == before


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_prompts_that_the_model_does_not_take_do_not_close_the_way_for_others(
    database: Database, server: ProviderServer, status: int
) -> None:
    server.always(MODEL, Answer(status=status, body=b'{"error": {"message": "too many tokens"}}'))
    async with opened(database, server) as providers:
        for _ in range(7):
            with pytest.raises(ProviderFailed, match=f"answered with HTTP {status}: too many tokens"):
                await model_of(providers).complete(PROMPT)
        assert providers.breakers[PROVIDER].state is BreakerState.CLOSED
    assert len(server.completions) == 7
