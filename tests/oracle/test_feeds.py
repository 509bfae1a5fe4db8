"""Feeds over real HTTP: what is read, and what is said of those that give no number."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.oracle.configuration import FeedConfiguration
from app.oracle.feeds import FeedFailed, FeedReader, without_keys
from app.oracle.fetching import Fetcher


def feed(url: str | None, json_path: str | None = "$.data.rate") -> FeedConfiguration:
    return FeedConfiguration(
        url=url,
        json_path=json_path,
        series=None,
        column=None,
        scale="1",
        offset="0",
        twap_minutes=None,
        max_delta_percent=10**10,
    )


@asynccontextmanager
async def serving(body: bytes, *, status: str = "200 OK", content_type: str = "application/json") -> AsyncIterator[str]:
    """The address of a server that answers any request with `body`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/ticker?pair=x"


@pytest.fixture
async def reader() -> AsyncIterator[FeedReader]:
    fetcher = Fetcher(allow_private=True, hosts={})
    yield FeedReader(fetcher)
    await fetcher.aclose()


async def why_not(reader: FeedReader, asked: FeedConfiguration) -> str:
    with pytest.raises(FeedFailed) as caught:
        await reader.read(asked)
    return caught.value.detail


async def test_a_feed_answers_its_number_where_it_came_from_and_what_stood_around_it(reader: FeedReader) -> None:
    async with serving(b'{"data": {"rate": 61234.50, "at": "now"}}') as url:
        answer = await reader.read(feed(url))
    assert (answer.value, answer.url) == ("61234.50", url)
    assert answer.excerpt == '$[\'data\'][\'rate\'] = 61234.50; in {"rate": 61234.50, "at": "now"}'
    assert answer.retrieved_at.tzinfo is not None


async def test_a_long_document_is_read_all_the_same(reader: FeedReader) -> None:
    body = b'{"padding": "' + b"x" * 900_000 + b'", "data": {"rate": "7.25"}}'
    async with serving(body, content_type="text/plain; charset=utf-8") as url:
        assert (await reader.read(feed(url))).value == "7.25"


async def test_what_was_found_instead_of_a_number_is_told_with_the_feeds_name(reader: FeedReader) -> None:
    async with serving(b'{"data": {"rate": "n/a"}}') as url:
        source = feed(url).source
        assert source.endswith("/ticker?40a3dfdb#$.data.rate")
        assert await why_not(reader, feed(url)) == (
            f"{source}: found the text 'n/a', which is no plain decimal at $['data']['rate'], where a number must stand"
        )
        assert (await why_not(reader, feed(url, "$.x"))).endswith(": found nothing at $['x']")
        assert "must be a JSONPath (RFC 9535)" in await why_not(reader, feed(url, "rate"))


@pytest.mark.parametrize(
    ("body", "status", "content_type", "words"),
    [
        (b"{}", "503 Service Unavailable", "application/json", "503"),
        (b"<p>1</p>", "200 OK", "text/html", "text/html"),
        (b" " * (2**20 + 1), "200 OK", "application/json", "1048577"),
        (b'{"data": {"rate": NaN}}', "200 OK", "application/json", "NaN is no number"),
    ],
)
async def test_answers_that_are_no_documents_are_told(
    reader: FeedReader, body: bytes, status: str, content_type: str, words: str
) -> None:
    async with serving(body, status=status, content_type=content_type) as url:
        assert words in await why_not(reader, feed(url))


async def test_a_server_that_is_away_and_an_address_that_is_forbidden_are_told(reader: FeedReader) -> None:
    async with serving(b"{}") as url:
        careful = FeedReader(Fetcher(allow_private=False, hosts={}))
        assert feed(url).source in await why_not(careful, feed(url))
    assert feed(url).source in await why_not(reader, feed(url))


SECRET = "k3y/of-a+customer"


@pytest.mark.parametrize("query", [f"apikey={SECRET}", "pair=x&apikey=k3y%2Fof-a%2Bcustomer"])
async def test_keys_in_queries_are_told_to_nobody(reader: FeedReader, query: str) -> None:
    async def told(body: bytes, **answer: str) -> str:
        async with serving(body, **answer) as address:
            asked = feed(address.replace("pair=x", query))
            try:
                said = (await reader.read(asked)).excerpt
            except FeedFailed as failed:
                said = failed.detail
            return said.removeprefix(f"{asked.source}: ")

    assert await told(b"{}", status="503 Service Unavailable") == "its status is 503"
    echo = {"status": f"302 Found\r\nLocation: ftp://feed.example/ticker?{query}"}
    assert await told(b"{}", **echo) == (
        "it was sent on to 'ftp://feed.example/ticker': its scheme is 'ftp', and only http and https are fetched"
    )
    body = f'{{"data": {{"rate": 5, "for": "{SECRET}"}}}}'.encode()
    assert await told(body) == '$[\'data\'][\'rate\'] = 5; in {"rate": 5, "for": "[hidden]"}'
    assert await told(f'{{"data": {{"rate": "{SECRET}"}}}}'.encode()) == (
        "found the text '[hidden]', which is no plain decimal at $['data']['rate'], where a number must stand"
    )


def test_what_is_too_short_for_a_key_or_was_cut_is_told_apart() -> None:
    url = "https://feed.example/x?pair=wheat&key=0123456789abcdef"
    assert without_keys("wheat 0123456789abc... 0123456789a", url) == "wheat [hidden] 0123456789a"


async def test_a_series_is_not_read_over_http(reader: FeedReader) -> None:
    with pytest.raises(ValueError, match="is not read over HTTP"):
        await reader.read(feed(None, None))
