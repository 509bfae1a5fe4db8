"""Near-copies by embeddings: kept in PostgreSQL's `vector` and in a Pinecone index, over their real protocols."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from app.db import Database
from app.oracle.budgets import Budgets
from app.oracle.cases import content_hash
from app.oracle.guard import Address, Endpoint, Guard, Policy, open_client
from app.oracle.similarity import Embeddings, Similarity, SimilarityFailed, cosine, groups
from app.oracle.vector_stores import PineconeVectors, PostgresVectors, StoreFailed, VectorStore
from tests.conftest import make_settings
from tests.oracle.services import KEY, Pinecone, serving

ANGLES = {"wheat": [1.0, 0.0], "wheat again": [1.0, 0.1], "rye": [0.0, 1.0], "corn": [-1.0, 0.0]}


def pairs(*texts: str) -> list[tuple[str, str]]:
    return [(content_hash(text), text) for text in texts]


@pytest.fixture
async def own(fresh_database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(make_settings(database_url=fresh_database_url))
    yield opened
    await opened.close()


@asynccontextmanager
async def embedding(url: str, database: Database, store: VectorStore) -> AsyncIterator[Similarity]:
    budgets = Budgets(database, None, limits={"huggingface": 3})
    guard = Guard("huggingface", counter=budgets, policy=Policy(seconds_max=5.0, attempt_seconds_max=5.0))
    address = Address(
        f"{url}/v1/embeddings", "HUGGINGFACE_API_URL", "HUGGINGFACE_API_KEY", ("authorization", "Bearer ")
    )
    async with open_client() as client:
        endpoint = Endpoint(client=client, guard=guard, address=address, key=KEY)
        yield Similarity(Embeddings(endpoint, budgets, "tiny"), store)


@pytest.mark.parametrize("where", ["vector", "pinecone"])
async def test_near_copies_are_grouped_and_each_text_is_embedded_once(own: Database, where: str) -> None:
    pinecone = Pinecone(embedding=ANGLES.__getitem__)
    async with serving(pinecone.routes()) as url:
        store: VectorStore = (
            PostgresVectors(own, model="tiny")
            if where == "vector"
            else PineconeVectors(url=f"{url}/", key=KEY, model="tiny")
        )
        async with embedding(url, own, store) as similarity:
            asked = pairs("wheat", "rye", "wheat again", "corn", "wheat")
            assert await similarity.duplicates(asked) == ((0, 2, 4),)
            assert await similarity.duplicates(asked[:3]) == ((0, 2),)
            assert await similarity.duplicates([]) == ()
        if isinstance(store, PineconeVectors):
            await store.aclose()
    assert pinecone.embedded == ["wheat", "rye", "wheat again", "corn"]
    async with own.acquire() as connection:
        used = await connection.fetchval("SELECT requests FROM oracle_usage WHERE provider = 'huggingface'")
    assert used == 1


async def test_vectors_of_another_model_are_not_those(own: Database) -> None:
    store = PostgresVectors(own, model="tiny")
    await store.keep({"a": [1.0, 2.5], "b": [0.0, 0.125]})
    await store.keep({"a": [3.0, 4.0]})
    assert await store.known(["a", "b", "c"]) == {"a": [3.0, 4.0], "b": [0.0, 0.125]}
    assert await PostgresVectors(own, model="other").known(["a"]) == {}


async def test_what_fails_is_told(own: Database) -> None:
    pinecone = Pinecone(embedding=ANGLES.__getitem__, status=503)
    async with serving(pinecone.routes()) as url:
        store = PineconeVectors(url=url, key=KEY, model="tiny")
        assert KEY not in repr(store)
        async with embedding(url, own, store) as similarity:
            with pytest.raises(SimilarityFailed, match="Pinecone answered 503 to /vectors/fetch"):
                await similarity.duplicates(pairs("wheat", "rye"))
        await store.aclose()
    away = PineconeVectors(url=url, key=KEY, model="tiny")
    with pytest.raises(StoreFailed, match="did not answer /vectors/upsert"):
        await away.keep({"a": [1.0]})
    await away.aclose()


async def test_embeddings_that_are_none_are_told(own: Database) -> None:
    pinecone = Pinecone(embedding=lambda text: [1.0] * len(text))
    store = PostgresVectors(own, model="tiny")
    async with serving(pinecone.routes()) as url, embedding(url, own, store) as similarity:
        with pytest.raises(SimilarityFailed, match="differ in length"):
            await similarity.duplicates(pairs("wheat", "rye"))


async def test_a_number_that_no_vector_can_hold_is_told(own: Database) -> None:
    pinecone = Pinecone(embedding=lambda _: [1e300, 1.0])
    store = PostgresVectors(own, model="tiny")
    async with serving(pinecone.routes()) as url, embedding(url, own, store) as similarity:
        with pytest.raises(SimilarityFailed, match="PostgreSQL cannot read or keep embeddings"):
            await similarity.duplicates(pairs("wheat", "rye"))


@pytest.mark.parametrize("values", ["1.0", [None], ["1.0"], [True], [[1.0]], None])
async def test_kept_vectors_that_are_none_are_not_known(values: object) -> None:
    answer = {"vectors": {"tiny/a": {"values": values}, "tiny/b": {"values": [1, 0.5]}}}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=answer))
    store = PineconeVectors(url="http://index.example", key=KEY, model="tiny", transport=transport)
    assert await store.known(["a", "b"]) == {"b": [1, 0.5]}
    await store.aclose()


def test_alike_is_passed_on_within_a_group() -> None:
    vectors = {"a": [1.0, 0.0], "b": [1.0, 0.2], "c": [1.0, 0.4], "d": [0.0, 1.0], "e": [0.0, 0.0]}
    assert cosine(vectors["a"], vectors["c"]) < 0.97 < cosine(vectors["a"], vectors["b"])
    assert groups(["a", "c", "b", "d", "e"], vectors) == ((0, 1, 2),)
    assert groups(["d", "a", "d"], vectors) == ((0, 2),)
    assert cosine([1.0], [1.0, 0.0]) == 0.0
    assert cosine([0.0, 0.0], [1.0, 0.0]) == 0.0
