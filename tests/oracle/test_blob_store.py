"""Bodies of evidence in a blob store, over its real protocol."""

import hashlib

import httpx
import pytest

from app.oracle.blob_store import BlobFailed, BlobStore
from tests.oracle.services import KEY, Blobs, serving

BODY = b"<p>53,000</p>"
HASH = hashlib.sha256(BODY).hexdigest()
PATH = f"oracle/{HASH[:2]}/{HASH}"


async def test_a_body_is_stored_under_its_hash_once_and_again() -> None:
    blobs = Blobs()
    async with serving(blobs.routes()) as url, BlobStore(url=f"{url}/", token=KEY) as store:
        for _ in range(2):
            kept = await store.put(content_hash=HASH, body=BODY, content_type="text/html")
            assert kept == f"https://store.blob.example/{PATH}"
    assert blobs.bodies == {PATH: ("text/html", BODY)}


async def test_a_refusal_is_told_without_the_token() -> None:
    blobs = Blobs(status=503)
    async with serving(blobs.routes()) as url:
        async with BlobStore(url=url, token=KEY) as store:
            with pytest.raises(BlobFailed, match=f"answered 503 to {PATH}: down"):
                await store.put(content_hash=HASH, body=BODY, content_type="text/html")
        async with BlobStore(url=url, token="another") as store:
            with pytest.raises(BlobFailed, match="answered 403") as refused:
                await store.put(content_hash=HASH, body=BODY, content_type="text/html")
    assert "another" not in str(refused.value)
    assert blobs.bodies == {}
    assert KEY not in repr(BlobStore(url=url, token=KEY))


@pytest.mark.parametrize("said", [b"prose", b"[]", b'{"url": 7}', b'{"url": "javascript:x"}'])
async def test_an_answer_without_a_url_is_told(said: bytes) -> None:
    async with serving(Blobs(answer=said).routes()) as url, BlobStore(url=url, token=KEY) as store:
        with pytest.raises(BlobFailed, match="url"):
            await store.put(content_hash=HASH, body=BODY, content_type="text/html")


async def test_a_store_that_is_away_is_told() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    async with BlobStore(url="http://blob.example", token=KEY, transport=httpx.MockTransport(refuse)) as store:
        with pytest.raises(BlobFailed, match=r"http://blob\.example did not answer"):
            await store.put(content_hash=HASH, body=BODY, content_type="text/html")
