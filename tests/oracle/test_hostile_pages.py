"""Every page of the catalogue is refused or harmless, and after all of them an honest page is still read."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from app.oracle.extraction import TEXT_CHARS_MAX, Extracted, ExtractionFailed, Extractor
from app.oracle.fetching import PAGE_ACCEPT, Fetcher, FetchRefused
from tests.oracle.hostile_pages import BYTES_MAX, HOSTILE_PAGES, SURVIVING, TRUTH, HostilePage
from tests.oracle.web_server import PUBLIC_ADDRESS, Names, RoutedSockets, WebServer, answer

HONEST_URL = "http://honest.example/wheat"


@dataclass
class Reader:
    """The fetcher as production has it (private addresses refused) before a local server, and one extractor."""

    server: WebServer
    sockets: RoutedSockets
    names: Names
    fetcher: Fetcher
    extractor: Extractor

    async def read(self, url: str, seconds_max: float = 20.0) -> Extracted:
        fetched = await self.fetcher.get(url, bytes_max=BYTES_MAX, seconds_max=seconds_max, accept=PAGE_ACCEPT)
        return await self.extractor.extract(fetched)


@pytest.fixture(scope="module")
async def reader() -> AsyncIterator[Reader]:
    server = await WebServer().start()
    sockets = RoutedSockets({(PUBLIC_ADDRESS, 80): server.port})
    names = Names()
    fetcher = Fetcher(allow_private=False, hosts={}, resolve=names, sockets=sockets)
    extractor = Extractor()
    await extractor.start()
    server.pages["honest.example/wheat"] = answer(f"<title>Wheat</title><p>{TRUTH}</p>".encode())
    try:
        yield Reader(server, sockets, names, fetcher, extractor)
    finally:
        await extractor.stop()
        await fetcher.aclose()
        await server.stop()


def test_the_catalogue_is_large_and_its_names_are_different() -> None:
    assert len({page.name for page in HOSTILE_PAGES}) == len(HOSTILE_PAGES) >= 45
    assert len(SURVIVING) >= 40


@pytest.mark.parametrize("page", HOSTILE_PAGES, ids=lambda page: page.name)
async def test_a_hostile_page_is_refused_or_harmless(page: HostilePage, reader: Reader) -> None:
    reader.server.pages = {
        f"{page.name}.example/": page.raw,
        "honest.example/wheat": reader.server.pages["honest.example/wheat"],
    }
    reader.names.table, reader.names.asked = dict(page.names), []
    await expect(page, reader)
    assert {address for address, _ in reader.sockets.asked} == {PUBLIC_ADDRESS}
    assert await reader.read(HONEST_URL) == Extracted("Wheat", TRUTH)
    await expect_no_connection(reader)


async def expect_no_connection(reader: Reader) -> None:
    async with asyncio.timeout(20):
        await reader.server.until_quiet()
    assert reader.server.open_now == 0


async def expect(page: HostilePage, reader: Reader) -> None:
    expected = page.expected
    if expected.refused is not None:
        with pytest.raises(FetchRefused) as refused:
            await reader.read(page.url, page.seconds_max)
        assert expected.refused in str(refused.value)
        assert str(refused.value).startswith(repr(page.url))
    elif expected.failed is not None:
        with pytest.raises(ExtractionFailed) as failed:
            await reader.read(page.url, page.seconds_max)
        assert expected.failed in str(failed.value)
    else:
        extracted = await reader.read(page.url, page.seconds_max)
        assert len(extracted.text) <= TEXT_CHARS_MAX
        assert [part for part in expected.holds if part not in extracted.text] == []
        assert [part for part in expected.lacks if part in extracted.text] == []
