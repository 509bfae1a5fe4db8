"""Bodies of evidence kept in a Vercel Blob store: a thin adapter of its HTTP API, used only where a token is set.

Bodies are named by their SHA-256: the same body is stored once, and storing it again changes nothing.
"""

from types import TracebackType
from typing import Final, Self

import httpx
import orjson

from app.oracle.answers import answer_within

SECONDS_MAX: Final = 15.0
API_VERSION: Final = "9"
"""Of Vercel's Blob API, told in `x-api-version`."""
ANSWER_BYTES_MAX: Final = 64 * 1024
URL_CHARS_MAX: Final = 2_000
_EXCERPT: Final = 200
_ANY_TYPE: Final = "application/octet-stream"


class BlobFailed(Exception):  # noqa: N818 - an outcome that callers reckon with
    """A body could not be stored; the message says why, and never has the token in it."""


class BlobStore:
    """One store. Close it with `aclose`, or use it as a context."""

    def __init__(self, *, url: str, token: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """`url`: the API's base, such as https://blob.vercel-storage.com."""
        self._url = url.rstrip("/")
        self._token = token
        self._client = httpx.AsyncClient(
            timeout=SECONDS_MAX, trust_env=False, transport=transport, headers={"accept-encoding": "identity"}
        )

    def __repr__(self) -> str:
        """Without the token."""
        return f"BlobStore({self._url!r})"

    async def __aenter__(self) -> Self:
        """The store itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close its connections."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def put(self, *, content_hash: str, body: bytes, content_type: str) -> str:
        """Store `body` under its SHA-256 (hexadecimal); the URL that it has from now on. Raises `BlobFailed`."""
        path = f"oracle/{content_hash[:2]}/{content_hash}"
        try:
            request = self._client.build_request(
                "PUT",
                f"{self._url}/{path}",
                content=body,
                headers={
                    "authorization": f"Bearer {self._token}",
                    "x-api-version": API_VERSION,
                    # As the page's server wrote it, who may write anything.
                    "x-content-type": content_type if _is_plain(content_type) else _ANY_TYPE,
                    "x-add-random-suffix": "0",
                    "x-allow-overwrite": "1",
                },
            )
            answer = await answer_within(self._client, request, seconds_max=SECONDS_MAX, bytes_max=ANSWER_BYTES_MAX)
        except httpx.HTTPError as error:
            raise BlobFailed(f"the blob store at {self._url} did not answer: {error!r}") from error
        if answer.status_code != httpx.codes.OK:
            said = answer.text[:_EXCERPT].replace(self._token, "...")
            raise BlobFailed(f"the blob store at {self._url} answered {answer.status_code} to {path}: {said}")
        return _url_in(answer.content, self._url)


def _url_in(content: bytes, base: str) -> str:
    try:
        url = orjson.loads(content)["url"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise BlobFailed(f"the blob store at {base} answered what names no url: {content[:_EXCERPT]!r}") from error
    if not isinstance(url, str) or not _is_url(url):
        raise BlobFailed(f"the blob store at {base} named a url that is none: {str(url)[:_EXCERPT]!r}")
    return url


def _is_url(text: str) -> bool:
    is_web = text.startswith(("https://", "http://")) and len(text) <= URL_CHARS_MAX
    return is_web and _is_plain(text) and " " not in text


def _is_plain(text: str) -> bool:
    """Whether it is printable ASCII: what a header may hold, and a URL."""
    return text.isascii() and text.isprintable()
