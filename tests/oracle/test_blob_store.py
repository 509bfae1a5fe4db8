"""Bodies of evidence in a blob store, over its real protocol."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

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


@pytest.mark.parametrize(
    "said",
    [
        b"prose",
        b"[]",
        b'{"url": 7}',
        b'{"url": "javascript:x"}',
        b'{"url": "https://blob.example/\\u0000"}',
        b'{"url": "https://blob.example/a b"}',
        b'{"url": "https://blob.example/\\u00f6"}',
        b'{"url": "https://blob.example/%s"}' % (b"a" * 2_000),
    ],
)
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


@pytest.mark.parametrize("content_type", ["text/html; charset=\ufffd", "text/html; x=ö", "text/html\x01", ""])
async def test_a_content_type_that_no_header_can_hold_does_not_keep_a_body_from_being_stored(content_type: str) -> None:
    blobs = Blobs()
    async with serving(blobs.routes()) as url, BlobStore(url=url, token=KEY) as store:
        await store.put(content_hash=HASH, body=BODY, content_type=content_type)
    assert blobs.bodies == {PATH: (content_type and "application/octet-stream", BODY)}


class Endless(httpx.AsyncByteStream):
    """Blanks, as long as anybody reads; `seen` counts what was taken."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.seen = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(self.seconds)
            self.seen += 1024
            yield b" " * 1024


async def expect_given_up(endless: Endless, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.oracle.blob_store.SECONDS_MAX", 0.2 if endless.seconds else 60.0)
    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=endless))
    async with BlobStore(url="http://blob.example", token=KEY, transport=transport) as store:
        with pytest.raises(BlobFailed, match=why):
            await store.put(content_hash=HASH, body=BODY, content_type="text/html")


async def test_an_answer_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = Endless(0.0)
    await expect_given_up(quick, "its answer is longer than 65536 bytes", monkeypatch)
    assert quick.seen == 65_536 + 1_024
    await expect_given_up(Endless(0.05), "it took longer than 0.2 seconds", monkeypatch)
