"""Reading a numeric feed: one GET, and the one number that its JSONPath names. What it is worth is judged elsewhere.

Everybody may read what is said of a feed, and keys are handed over in queries of URLs: no text made here has one.
"""

import asyncio
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from app.oracle.configuration import FeedConfiguration
from app.oracle.fetching import FEED_ACCEPT, Fetcher, FetchRefused
from app.oracle.json_numbers import DOCUMENT_BYTES_MAX, BadPath, NotOneNumber, compile_path, number_at

FEED_SECONDS_MAX: Final = 10.0
"""For the whole answer, redirects and all."""
QUICK_BYTES_MAX: Final = 32_768
"""Longer documents are parsed beside the event loop, which they might hold up for a tenth of a second."""
KEY_CHARS_MIN: Final = 12
"""A value in a query that is as long as this may be a key, and is not shown where an answer repeats it."""
HIDDEN: Final = "[hidden]"
_QUERY: Final = re.compile(r"""\?[^\s'"]*""")


class FeedFailed(Exception):  # noqa: N818 - an outcome of reading
    """The feed gave no number. `detail` says which feed, and why or what was found instead."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


@dataclass(frozen=True, slots=True)
class FeedAnswer:
    """What a feed said. `value`: plain decimal text of at most 64 characters. `url`: where it came from in the end."""

    value: str
    excerpt: str
    url: str
    retrieved_at: datetime


class FeedReader:
    """Reads feeds over HTTP by a `Fetcher`, which decides where it may connect to."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher

    async def read(self, feed: FeedConfiguration) -> FeedAnswer:
        """The feed's number now. Raises `FeedFailed` when there is none, ValueError for a feed that is a series."""
        if feed.url is None or feed.json_path is None:
            raise ValueError(f"{feed.source} is not read over HTTP")
        try:
            path = compile_path(feed.json_path)
            fetched = await self._fetcher.get(
                feed.url, bytes_max=DOCUMENT_BYTES_MAX, seconds_max=FEED_SECONDS_MAX, accept=FEED_ACCEPT
            )
            if len(fetched.body) <= QUICK_BYTES_MAX:
                number = number_at(fetched.body, path)
            else:
                number = await asyncio.to_thread(number_at, fetched.body, path)
        except FetchRefused as error:
            # Without the URL that was asked for; the one of a redirect may carry its query on.
            raise FeedFailed(f"{feed.source}: {without_keys(_QUERY.sub('', error.why), feed.url)}") from error
        except (NotOneNumber, BadPath) as error:
            raise FeedFailed(f"{feed.source}: {without_keys(str(error), feed.url)}") from error
        return FeedAnswer(number.value, without_keys(number.excerpt, feed.url), fetched.url, fetched.retrieved_at)


def without_keys(text: str, url: str) -> str:
    """`text` with `HIDDEN` in place of what may be a key: each value of `KEY_CHARS_MIN` or more in the query of `url`.

    It may stand there as in the URL or decoded, whole or cut at its end.
    """
    query = urlsplit(url).query
    values = {value for _, value in parse_qsl(query)} | {part.partition("=")[2] for part in query.split("&")}
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= KEY_CHARS_MIN:
            text = re.sub(re.escape(value[:KEY_CHARS_MIN]) + r"""[^\s'",;&)}\]]*""", HIDDEN, text)
    return text
