"""Near-copies among the pages of a report, told by embeddings: used only where an embedding model is configured.

Syndicated text stands at many publishers and is one source. What this answers goes into the case that is judged, so
that a judgement can be replayed without any of it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from app.oracle.budgets import Budgets
from app.oracle.guard import Endpoint, Json, ProviderFailed, Unusable
from app.oracle.language_model import PROVIDER
from app.oracle.vector_stores import StoreFailed, VectorStore

NEAR: Final = 0.97
"""Cosine similarity from which two texts count as copies of one another."""
TEXT_CHARS_MAX: Final = 8_000
"""Of a text: models of embeddings read no more than its beginning."""
DIMENSIONS_MAX: Final = 16_000
"""The most that a vector of PostgreSQL's extension may have."""

Vector = list[float]


class SimilarityFailed(Exception):  # noqa: N818 - an outcome that callers reckon with
    """It could not be told which texts are alike; the message says why."""


class Embedder(Protocol):
    """Turns texts into vectors, in their order. Raises `ProviderFailed`."""

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """One vector for each text."""
        ...


@dataclass(frozen=True, slots=True)
class Embeddings:
    """An OpenAI-compatible API's embeddings; its requests count in the language model's budget."""

    endpoint: Endpoint
    budgets: Budgets
    model: str

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """POST /embeddings with all of `texts`. Raises `ProviderFailed`, `BudgetSpent`."""
        body: Json = {"model": self.model, "input": [text[:TEXT_CHARS_MAX] for text in texts]}
        vectors = await self.endpoint.post(body, lambda answer: read_vectors(answer, len(texts)))
        await self.budgets.spend(PROVIDER, tokens=sum(map(len, texts)) // 4, cost=0)
        return vectors


def read_vectors(answer: Json, count: int) -> list[Vector]:
    """The vectors in an answer, in the order of what was asked. Raises `Unusable` when they are not `count` alike."""
    data = answer.get("data")
    if not isinstance(data, list) or len(data) != count:
        raise Unusable(f"it has not {count} embeddings")
    vectors: dict[int, Vector] = {}
    for place, entry in enumerate(data):
        values = entry.get("embedding") if isinstance(entry, dict) else None
        index = entry.get("index", place) if isinstance(entry, dict) else place
        if not isinstance(values, list) or not 1 <= len(values) <= DIMENSIONS_MAX or type(index) is not int:
            raise Unusable("one of its embeddings is no list of numbers")
        if not all(type(value) in (int, float) and math.isfinite(value) for value in values):
            raise Unusable("one of its embeddings has something in it that is no number")
        vectors[index] = [float(value) for value in values]
    if sorted(vectors) != list(range(count)) or len({len(vector) for vector in vectors.values()}) > 1:
        raise Unusable("its embeddings differ in length or place")
    return [vectors[index] for index in range(count)]


class Similarity:
    """Tells near-copies. Vectors are kept by the texts' hashes: a page that has not changed is embedded once."""

    def __init__(self, embedder: Embedder, store: VectorStore) -> None:
        """Both may fail: callers do without."""
        self._embedder = embedder
        self._store = store

    async def duplicates(self, texts: Sequence[tuple[str, str]]) -> tuple[tuple[int, ...], ...]:
        """Of (SHA-256, text): the groups of indices whose texts are near-copies of one another, each of two or more.

        Being alike is passed on within a group. Raises `SimilarityFailed`.
        """
        wanted = dict(texts)
        if len(wanted) == 0:
            return ()
        try:
            known = await self._store.known(list(wanted))
            new = [content_hash for content_hash in wanted if content_hash not in known]
            if new:
                made = await self._embedder.embed([wanted[content_hash] for content_hash in new])
                fresh = dict(zip(new, made, strict=True))
                await self._store.keep(fresh)
                known = {**known, **fresh}
        except (ProviderFailed, StoreFailed) as error:
            raise SimilarityFailed(f"embeddings are not to be had: {error}") from error
        return groups([content_hash for content_hash, _ in texts], known)


def groups(hashes: Sequence[str], vectors: Mapping[str, Vector]) -> tuple[tuple[int, ...], ...]:
    """Indices of near-copies, by cosine similarity of at least `NEAR`; the same hash is a copy of itself."""
    leader = list(range(len(hashes)))

    def lead(index: int) -> int:
        while leader[index] != index:
            index = leader[index]
        return index

    for right in range(len(hashes)):
        for left in range(right):
            if hashes[left] == hashes[right] or cosine(vectors[hashes[left]], vectors[hashes[right]]) >= NEAR:
                first, second = sorted((lead(left), lead(right)))
                leader[second] = first
    found: dict[int, list[int]] = {}
    for index in range(len(hashes)):
        found.setdefault(lead(index), []).append(index)
    return tuple(tuple(group) for group in found.values() if len(group) > 1)


def cosine(left: Vector, right: Vector) -> float:
    """Of two vectors: -1 to 1; 0 where one of them is zero or they differ in length."""
    if len(left) != len(right):
        return 0.0
    length = math.hypot(*left) * math.hypot(*right)
    return sum(one * other for one, other in zip(left, right, strict=True)) / length if length else 0.0
