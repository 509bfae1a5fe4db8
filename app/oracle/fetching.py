"""Fetching of pages and feeds from an untrusted web: what is asked for, what is accepted, and every bound on it.

A URL is refused by its form, its host by its addresses (app.oracle.connecting), an answer by its status, type, size
or slowness; each redirect is a new URL under the same rules. What the bytes mean is not decided here.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import httpcore
import httpx

from app.clock import now
from app.oracle.bodies import BadBody, body_decoder
from app.oracle.connecting import AddressRefused, CheckedNetwork, MeteredStream, Resolve, system_addresses

PAGE_ACCEPT: Final = "text/html, application/xhtml+xml, text/plain"
FEED_ACCEPT: Final = "application/json, text/json, application/vnd.api+json, application/geo+json, text/plain"
"""JSON under the names that it goes by; what the bytes are shows when they are parsed."""
USER_AGENT: Final = "Megatron-oracle/0.1 (reads public pages for a market's prices)"

URL_CHARS_MAX: Final = 2_048
REDIRECTS_MAX: Final = 5
PER_HOST_MAX: Final = 2
TOTAL_MAX: Final = 64
CONNECT_SECONDS_MAX: Final = 5.0
"""Resolving included; TLS has as long again."""
PIECES_FREE: Final = 4_096
PIECE_BYTES_MIN: Final = 256
"""A body may come in so many pieces (chunks) and one more for each so many bytes: a piece costs much, however small."""

_PORTS: Final = {"http": 80, "https": 443}
_PORT_MAX: Final = 65_535
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
_SHOWN_CHARS: Final = 200
_STATUS_WORDS: Final = {
    401: "it asks for a log-in",
    403: "it forbids reading it",
    404: "there is no such page",
    410: "the page is gone",
    429: "it is asked too often",
    451: "it is blocked for legal reasons",
}


class FetchRefused(Exception):  # noqa: N818 - an outcome, not a fault of the program
    """A page was not fetched. The message names the URL (cut) and says why; `url` is the one that was asked for."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"{url[:_SHOWN_CHARS]!r}: {why}")
        self.url = url
        self.why = why


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer with status 200. `url`: the last one of the redirects, without its fragment.

    `content_type`: the header as it came. `body`: decoded from gzip or deflate, within the bound asked for.
    """

    url: str
    status: int
    content_type: str
    body: bytes
    retrieved_at: datetime


class _Refused(Exception):  # noqa: N818 - as FetchRefused
    """Why one step of a fetch was refused; `Fetcher.get` adds the URL."""


@dataclass(frozen=True, slots=True)
class _Limits:
    """Of one fetch. `types`: the media types that are accepted, lower case."""

    bytes_max: int
    seconds_max: float
    accept: str
    types: frozenset[str]


class Fetcher:
    """Fetches from public addresses over HTTP/1.1, a connection for each request; no cookies, log-ins or proxies.

    `allow_private` (development): private addresses and any port are allowed. `hosts`: name to address and port, before
    `resolve` is asked. At most `per_host_max` requests to one host and `total_max` in all run at once; others wait,
    within their own time. `ssl_context`: whom to trust, by default the certificate authorities that httpx brings.
    `sockets`: what connects to the addresses that passed.
    """

    def __init__(
        self,
        *,
        allow_private: bool,
        hosts: Mapping[str, tuple[str, int | None]],
        resolve: Resolve = system_addresses,
        ssl_context: ssl.SSLContext | None = None,
        sockets: httpcore.AsyncNetworkBackend | None = None,
        per_host_max: int = PER_HOST_MAX,
        total_max: int = TOTAL_MAX,
        connect_seconds_max: float = CONNECT_SECONDS_MAX,
    ) -> None:
        self._allow_private = allow_private
        self._network = CheckedNetwork(
            allow_private=allow_private, hosts=hosts, resolve=resolve, sockets=sockets or httpcore.AnyIOBackend()
        )
        self._ssl_context = ssl_context or httpx.create_ssl_context(trust_env=False)
        self._slots = _Slots(per_host_max, total_max)
        self._connect_seconds_max = connect_seconds_max
        self._is_closed = False

    async def get(self, url: str, *, bytes_max: int, seconds_max: float, accept: str) -> Fetched:
        """The page or feed at `url`.

        `bytes_max` bounds the body before and after decoding, `seconds_max` everything, waiting for a turn and
        redirects included. `accept`: the media types wanted, separated by commas; others are refused. Raises
        FetchRefused, and nothing else but cancellation.
        """
        if self._is_closed:
            raise FetchRefused(url, "the fetcher is closed")
        types = frozenset(part.partition(";")[0].strip().lower() for part in accept.split(","))
        limits = _Limits(bytes_max, seconds_max, accept, types)
        steps = [url]
        try:
            async with asyncio.timeout(seconds_max):
                return await self._follow(steps, limits)
        except TimeoutError:
            why = f"it took longer than {seconds_max:g} seconds"
        except (_Refused, AddressRefused, BadBody) as error:
            why = str(error)
        except httpcore.TimeoutException as error:
            why = f"it did not answer in time ({type(error).__name__})"
        except ssl.SSLError as error:
            why = f"its TLS failed ({error.reason or 'no reason given'})"
        except httpcore.ProtocolError as error:
            why = f"it does not speak proper HTTP ({str(error)[:_SHOWN_CHARS]})"
        except (httpcore.NetworkError, OSError, ValueError) as error:
            why = f"the connection failed ({str(error)[:_SHOWN_CHARS] or type(error).__name__})"
        if len(steps) > 1:
            why = f"it was sent on to {steps[-1][:_SHOWN_CHARS]!r}: {why}"
        raise FetchRefused(url, why)

    async def aclose(self) -> None:
        """Refuse what comes from now on. Fetches under way keep their own connections and end within their time."""
        self._is_closed = True

    async def _follow(self, steps: list[str], limits: _Limits) -> Fetched:
        """Fetch the last of `steps`, adding one for each redirect."""
        came_from: httpx.URL | None = None
        while True:
            url = self._checked_url(steps[-1], came_from)
            async with self._slots.taken(url.raw_host):
                answer = await self._request(url, limits)
            if isinstance(answer, Fetched):
                return answer
            if len(steps) > REDIRECTS_MAX:
                raise _Refused(f"there are more than {REDIRECTS_MAX} redirects")
            steps.append(answer)
            came_from = url

    def _checked_url(self, text: str, came_from: httpx.URL | None) -> httpx.URL:
        """`text` as the URL to ask, relative to where it was named. Raises _Refused by its form."""
        if len(text) > URL_CHARS_MAX:
            raise _Refused(f"its URL has {len(text)} characters, and at most {URL_CHARS_MAX} are allowed")
        try:
            url = came_from.join(text) if came_from is not None else httpx.URL(text)
            url = url.copy_with(fragment=None)
        except (httpx.InvalidURL, ValueError, TypeError) as error:
            raise _Refused("it is not a valid URL") from error
        if url.scheme not in _PORTS:
            raise _Refused(f"its scheme is {url.scheme[:20]!r}, and only http and https are fetched")
        if url.userinfo:
            raise _Refused("it carries a user name or password")
        if not url.raw_host or b"%" in url.raw_host:
            raise _Refused("it names no host that exists")
        if not 0 < _port(url) <= _PORT_MAX:
            raise _Refused(f"its port is {_port(url)}, and there is no such port")
        if not self._allow_private and _port(url) not in _PORTS.values():
            raise _Refused(f"its port is {url.port}, and only 80 and 443 are connected to")
        if came_from is not None and came_from.scheme == "https" and url.scheme == "http":
            raise _Refused("it is a redirect from https to http")
        return url

    async def _request(self, url: httpx.URL, limits: _Limits) -> Fetched | str:
        """One request: the page, or where its redirect leads."""
        origin = httpcore.Origin(url.raw_scheme, url.raw_host, _port(url))
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        headers: dict[bytes | str, bytes | str] = {
            "Host": url.netloc.decode("ascii"),
            "User-Agent": USER_AGENT,
            "Accept": limits.accept,
            "Accept-Encoding": "gzip",
            "Connection": "close",
        }
        connect_seconds_max = self._connect_seconds_max
        is_told_apart = connect_seconds_max < limits.seconds_max  # else the whole fetch's time runs out, and says so
        timeouts = {"connect": connect_seconds_max if is_told_apart else None}
        async with (
            httpcore.AsyncHTTPConnection(
                origin=origin, ssl_context=self._ssl_context, network_backend=self._network
            ) as connection,
            connection.stream("GET", target, headers=headers, extensions={"timeout": timeouts}) as response,
        ):
            location = _header(response, b"location")
            if response.status in _REDIRECTS and location:
                return location
            return await _read(response, str(url), limits)


def _port(url: httpx.URL) -> int:
    return _PORTS[url.scheme] if url.port is None else url.port


async def _read(response: httpcore.Response, url: str, limits: _Limits) -> Fetched:
    """The body of a final answer, when its head is acceptable. Raises _Refused and BadBody."""
    content_type = _header(response, b"content-type")
    _check_head(response, content_type, limits)
    decoder = body_decoder(_header(response, b"content-encoding"), limits.bytes_max)
    stream = response.extensions["network_stream"]
    if isinstance(stream, MeteredStream):
        stream.allow(2 * limits.bytes_max)  # chunks carry more than the body: twice is plenty for honest ones
    pieces = PIECES_FREE
    async for piece in response.aiter_stream():
        pieces += len(piece) // PIECE_BYTES_MIN - 1
        if pieces < 0:
            raise _Refused("its body comes in too many small pieces")
        decoder.feed(piece)
    return Fetched(url, response.status, content_type, decoder.finish(), now())


def _check_head(response: httpcore.Response, content_type: str, limits: _Limits) -> None:
    if response.status != 200:
        words = _STATUS_WORDS.get(response.status)
        raise _Refused(f"its status is {response.status}" + (f": {words}" if words else ""))
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type not in limits.types:
        named = f"is {media_type[:60]!r}" if media_type else "is missing"
        raise _Refused(f"its Content-Type {named}, and {limits.accept} is wanted")
    length = _header(response, b"content-length")
    if length.isdecimal() and int(length[:20]) > limits.bytes_max:
        raise _Refused(f"its body has {length[:20]} bytes, and at most {limits.bytes_max} are read")


def _header(response: httpcore.Response, name: bytes) -> str:
    """A header's values, joined by commas as RFC 9110 has it; "" where it is missing."""
    values = [value for key, value in response.headers if key.lower() == name]
    return b", ".join(values).decode("utf-8", "replace")


class _Slots:
    """Turns: at most so many to one host and in all. Keeps nothing of hosts that nobody waits for."""

    def __init__(self, per_host_max: int, total_max: int) -> None:
        self._per_host_max = per_host_max
        self._total = asyncio.Semaphore(total_max)
        self._hosts: dict[bytes, tuple[asyncio.Semaphore, int]] = {}

    @asynccontextmanager
    async def taken(self, host: bytes) -> AsyncIterator[None]:
        """Hold a turn. The host's comes first: waiting for a busy host keeps nobody else from their turns."""
        semaphore, users = self._hosts.get(host) or (asyncio.Semaphore(self._per_host_max), 0)
        self._hosts[host] = (semaphore, users + 1)
        try:
            async with semaphore, self._total:
                yield
        finally:
            semaphore, users = self._hosts[host]
            if users == 1:
                del self._hosts[host]
            else:
                self._hosts[host] = (semaphore, users - 1)
