"""A language model behind the OpenAI-compatible chat completions that Hugging Face's router, vLLM, Ollama and others
speak. It has no tools. What it is asked stands in `app.oracle.prompts`; what it answers is judged elsewhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from app.money import div_ceil
from app.oracle.budgets import Budgets
from app.oracle.guard import Endpoint, Json, Policy, Unusable
from app.oracle.prompts import Prompt

PROVIDER: Final = "huggingface"
PATH: Final = "/chat/completions"
POLICY: Final = Policy(seconds_max=45.0, attempt_seconds_max=30.0)
OWN_FAULTS: Final = frozenset({400, 413, 422})
"""A prompt that this model does not take, such as one of too many tokens, says nothing of how it takes others."""
ANSWER_TOKENS_MAX: Final = 4_096
"""Of the answer with whatever reasoning comes before it."""
SEED: Final = 1
"""Any would do; the same one, so that what may be repeatable is."""
CONTENT_CHARS_MAX: Final = 256 * 1024
MODEL_CHARS_MAX: Final = 200
TOKENS_MAX: Final = 10**7
"""That one request may be said to have taken."""
TOKEN_CHARS: Final = 4
"""Of English, roughly: to estimate what a provider does not tell."""
PRICED_TOKENS: Final = 10**6


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer. `content` is what the model wrote, whatever it is; `model` the one that says it wrote it.

    `tokens` of the prompt and the answer together (estimated where the provider does not tell), `cost` in 10^-6 US
    dollars.
    """

    content: str
    model: str
    cost: int
    tokens: int


class LanguageModel:
    """Asks one model."""

    def __init__(
        self, endpoint: Endpoint, *, budgets: Budgets, model: str, token_cost: int, schema: Mapping[str, object]
    ) -> None:
        """`token_cost`: 10^-6 US dollars a million tokens. `schema`: the JSON schema that answers are held to, by
        providers that can."""
        self._endpoint = endpoint
        self._budgets = budgets
        self._model = model
        self._token_cost = token_cost
        self._schema = dict(schema)

    async def complete(self, prompt: Prompt) -> Completion:
        """The model's answer to `prompt`. Raises `ProviderFailed`, `BudgetSpent`."""
        body: Json = {
            "model": self._model,
            "messages": [dict(message) for message in prompt.messages],
            "temperature": 0,
            "seed": SEED,
            "max_tokens": ANSWER_TOKENS_MAX,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "reading", "strict": True, "schema": self._schema},
            },
            "stream": False,
        }
        answer = await self._endpoint.post(body, read_answer)
        model = answer.model or self._model
        tokens = answer.tokens
        if tokens is None:
            chars = sum(len(message["content"]) for message in prompt.messages) + len(answer.content)
            tokens = div_ceil(chars, TOKEN_CHARS)
        cost = div_ceil(tokens * self._token_cost, PRICED_TOKENS)
        await self._budgets.spend(PROVIDER, tokens=tokens, cost=cost)
        return Completion(answer.content, model, cost, tokens)


@dataclass(frozen=True, slots=True)
class Answer:
    """What stands in a chat completion. None for what the provider does not tell."""

    content: str
    model: str | None
    tokens: int | None


def read_answer(answer: Json) -> Answer:
    """The first choice of a chat completion. Raises `Unusable` when it is none.

    A model that refuses, or says nothing, has answered: with the words of its refusal, or with none.
    """
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict) or "content" not in message:
        raise Unusable("it has no choice with a message")
    content = message["content"]
    if content is None:
        refusal = message.get("refusal")
        content = refusal if isinstance(refusal, str) else ""
    if not isinstance(content, str) or len(content) > CONTENT_CHARS_MAX:
        raise Unusable(f"its message is no text of at most {CONTENT_CHARS_MAX} characters")
    return Answer(content, _model(answer.get("model")), _tokens(answer.get("usage")))


def _model(value: object) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > MODEL_CHARS_MAX or not value.isprintable():
        raise Unusable("the model that it names is no name")
    return value


def _tokens(usage: object) -> int | None:
    if usage is None:
        return None
    tokens = usage.get("total_tokens") if isinstance(usage, dict) else usage
    if tokens is None:
        return None
    if type(tokens) is not int or not 0 <= tokens <= TOKENS_MAX:
        raise Unusable("the tokens that it says it took are no number of tokens")
    return tokens
