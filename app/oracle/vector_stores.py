"""Where embeddings of evidence are kept by their texts' hashes: PostgreSQL's extension `vector`, or a Pinecone index.

Nothing rests on them: what is lost is embedded again.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, Protocol

import asyncpg
import httpx
import orjson

from app.db import Connection, Database
from app.oracle.answers import answer_within

SECONDS_MAX: Final = 10.0
API_VERSION: Final = "2025-10"
"""Of Pinecone's API, told in `X-Pinecone-Api-Version`."""
NAMESPACE: Final = "megatron-evidence"
BATCH: Final = 100
"""Vectors of one request at most."""
ANSWER_BYTES_MAX: Final = 64 * 2**20
"""A hundred vectors of sixteen thousand numbers in JSON come to less."""
_EXCERPT: Final = 200

Vector = list[float]


class StoreFailed(Exception):  # noqa: N818 - an outcome that callers reckon with
    """Vectors could not be read or kept; the message says why."""


class VectorStore(Protocol):
    """Keeps vectors. Both raise `StoreFailed`."""

    async def known(self, hashes: Sequence[str]) -> dict[str, Vector]:
        """Those of these hashes that are kept."""
        ...

    async def keep(self, vectors: Mapping[str, Vector]) -> None:
        """Keep these, over what is there."""
        ...


class PostgresVectors:
    """In the table `oracle_embeddings`, which is made with the extension when it is first needed."""

    def __init__(self, database: Database, *, model: str) -> None:
        """Vectors of one model are of no use to another: they are kept apart."""
        self._database = database
        self._model = model
        self._is_made = False

    async def known(self, hashes: Sequence[str]) -> dict[str, Vector]:
        """Those of these hashes that are kept. Raises `StoreFailed`."""
        await self._make()
        async with self._connected() as connection:
            rows = await connection.fetch(
                "SELECT content_hash, embedding::text AS embedding FROM oracle_embeddings"
                " WHERE model = $1 AND content_hash = ANY($2::text[])",
                self._model,
                list(hashes),
            )
        return {row["content_hash"]: orjson.loads(row["embedding"]) for row in rows}

    async def keep(self, vectors: Mapping[str, Vector]) -> None:
        """Keep these, over what is there. Raises `StoreFailed`."""
        await self._make()
        async with self._connected() as connection:
            await connection.execute(
                "INSERT INTO oracle_embeddings (model, content_hash, embedding)"
                " SELECT $1, k.content_hash, k.embedding::vector FROM unnest($2::text[], $3::text[])"
                " k (content_hash, embedding) ON CONFLICT (model, content_hash)"
                " DO UPDATE SET embedding = excluded.embedding",
                self._model,
                list(vectors),
                [orjson.dumps(vector).decode() for vector in vectors.values()],
            )

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        """A connection on which what PostgreSQL refuses, such as a number too great for a vector, is `StoreFailed`."""
        try:
            async with self._database.acquire() as connection:
                yield connection
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise StoreFailed(f"PostgreSQL cannot read or keep embeddings: {error}") from error

    async def _make(self) -> None:
        if self._is_made:
            return
        try:
            async with self._database.acquire() as connection:
                if not await connection.fetchval("SELECT to_regclass('oracle_embeddings') IS NOT NULL"):
                    await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
                    await connection.execute(
                        "CREATE TABLE IF NOT EXISTS oracle_embeddings (model text NOT NULL, content_hash text NOT NULL,"
                        " embedding vector NOT NULL, PRIMARY KEY (model, content_hash))"
                    )
        except asyncpg.PostgresError as error:
            raise StoreFailed(
                f"PostgreSQL's extension vector cannot be used ({error}): install it, let the market's role create it, "
                "or unset HUGGINGFACE_EMBEDDING_MODEL"
            ) from error
        self._is_made = True


class PineconeVectors:
    """In one index of Pinecone, in a namespace of its own."""

    def __init__(self, *, url: str, key: str, model: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """`url`: the index's own host."""
        self._url = url.rstrip("/")
        self._model = model
        self._client = httpx.AsyncClient(
            timeout=SECONDS_MAX,
            trust_env=False,
            transport=transport,
            headers={"Api-Key": key, "X-Pinecone-Api-Version": API_VERSION, "Accept-Encoding": "identity"},
        )

    def __repr__(self) -> str:
        """Without the key."""
        return f"PineconeVectors({self._url!r})"

    async def aclose(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def known(self, hashes: Sequence[str]) -> dict[str, Vector]:
        """GET /vectors/fetch. Raises `StoreFailed`."""
        found: dict[str, Vector] = {}
        for start in range(0, len(hashes), BATCH):
            batch = hashes[start : start + BATCH]
            parameters = [("namespace", NAMESPACE), *(("ids", self._id(content_hash)) for content_hash in batch)]
            answer = await self._ask("GET", "/vectors/fetch", params=parameters)
            vectors = answer.get("vectors")
            if isinstance(vectors, dict):
                entries = {content_hash: vectors.get(self._id(content_hash)) for content_hash in batch}
                found |= {
                    content_hash: entry["values"]
                    for content_hash, entry in entries.items()
                    if isinstance(entry, dict) and _is_vector(entry.get("values"))
                }
        return found

    async def keep(self, vectors: Mapping[str, Vector]) -> None:
        """POST /vectors/upsert. Raises `StoreFailed`."""
        items = list(vectors.items())
        for start in range(0, len(items), BATCH):
            records = [
                {"id": self._id(content_hash), "values": values, "metadata": {"model": self._model}}
                for content_hash, values in items[start : start + BATCH]
            ]
            await self._ask("POST", "/vectors/upsert", json={"vectors": records, "namespace": NAMESPACE})

    def _id(self, content_hash: str) -> str:
        return f"{self._model}/{content_hash}"

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        params: Sequence[tuple[str, str]] = (),
        json: Mapping[str, object] | None = None,
    ) -> dict[str, object]:
        try:
            request = self._client.build_request(method, f"{self._url}{path}", params=tuple(params), json=json)
            answer = await answer_within(self._client, request, seconds_max=SECONDS_MAX, bytes_max=ANSWER_BYTES_MAX)
            if answer.status_code != httpx.codes.OK:
                raise StoreFailed(f"Pinecone answered {answer.status_code} to {path}: {answer.text[:_EXCERPT]}")
            content = orjson.loads(answer.content)
        except (httpx.HTTPError, orjson.JSONDecodeError) as error:
            raise StoreFailed(f"Pinecone at {self._url} did not answer {path} as it should: {error!r}") from error
        return content if isinstance(content, dict) else {}


def _is_vector(values: object) -> bool:
    """Whether a service's answer has numbers here, and nothing else: what is none is embedded again."""
    return isinstance(values, list) and all(type(value) is float or type(value) is int for value in values)
