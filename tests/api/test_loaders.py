"""Gathering: what is asked for in one turn is fetched once, failures reach everybody, and giving up harms nobody."""

import asyncio

import pytest

from api.loaders import Loader


class Source:
    """Squares of even numbers, and a record of what was asked together."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.asked = asyncio.Event()
        self.released = asyncio.Event()
        self.released.set()

    async def fetch(self, keys: list[int]) -> dict[int, int]:
        self.batches.append(keys)
        self.asked.set()
        await self.released.wait()
        if -1 in keys:
            raise ConnectionError("away")
        return {key: key * key for key in keys if key % 2 == 0}


async def test_what_is_asked_in_one_turn_is_fetched_together_and_each_key_once() -> None:
    source = Source()
    loader = Loader(source.fetch)

    assert await asyncio.gather(*(loader.load(key) for key in (4, 2, 4, 3))) == [16, 4, 16, None]
    assert source.batches == [[4, 2, 3]]


async def test_what_was_fetched_is_kept_and_what_was_not_is_not_asked_again() -> None:
    source = Source()
    loader = Loader(source.fetch)

    assert await loader.load_many([2, 3]) == [4, None]
    assert await loader.load_many([3, 2, 6]) == [None, 4, 36]
    assert source.batches == [[2, 3], [6]]


async def test_a_failure_reaches_everybody_who_waits_for_it() -> None:
    source = Source()
    loader = Loader(source.fetch)

    outcomes = await asyncio.gather(*(loader.load(key) for key in (-1, 2, 2)), return_exceptions=True)

    assert [str(outcome) for outcome in outcomes] == ["away"] * 3
    with pytest.raises(ConnectionError, match="away"):
        await loader.load(2)


async def test_who_gives_up_takes_nothing_from_the_others() -> None:
    source = Source()
    source.released.clear()
    loader = Loader(source.fetch)
    impatient = asyncio.create_task(loader.load(2))
    patient = asyncio.create_task(loader.load(2))
    await source.asked.wait()

    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    source.released.set()

    assert await patient == 4
    assert await loader.load(2) == 4
    assert source.batches == [[2]]


async def test_a_failure_that_nobody_waits_for_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    source = Source()
    source.released.clear()
    loader = Loader(source.fetch)
    impatient = asyncio.create_task(loader.load(-1))
    await source.asked.wait()
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient

    source.released.set()
    with pytest.raises(ConnectionError, match="away"):
        await loader.load(-1)
    assert caplog.records == []
