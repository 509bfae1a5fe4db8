"""How the fetcher connects: a name is resolved once, every address is checked, and exactly those are connected to.

Nothing here knows of pages. The network below httpcore: what it hands on is a stream that reads no more bytes than it
was allowed, so that neither endless headers nor tiny chunks keep the process busy.
"""

import asyncio
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, TypeAlias

import httpcore

from app.oracle.addresses import why_not_public

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host name and port to the texts of all its addresses. Raises OSError when there is none."""
SocketOption: TypeAlias = (
    tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]
)  # as httpcore has it

HEAD_BYTES_MAX: Final = 128 * 1024
"""What a server may send before its headers are complete, interim responses included."""
ADDRESSES_TRIED_MAX: Final = 3
"""Of a name's addresses: the next is tried when one cannot be connected to."""


class AddressRefused(Exception):  # noqa: N818 - an outcome of the check
    """A name has no address, or one that may not be connected to. The message says which."""


LOOKUPS_MAX: Final = 128
"""Host names that are looked up at once, those given up included: a name's own servers decide how long it takes."""
_LOOKUPS: Final = threading.BoundedSemaphore(LOOKUPS_MAX)


async def system_addresses(host: str, port: int) -> Sequence[str]:
    """All addresses that this machine's resolver knows for `host`, in its order of preference. Raises OSError.

    Each look-up has a thread of its own, which nobody waits for at the end: the event loop's few are for those who
    connect to the database and to providers, and names that never resolve would take them all.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Sequence[str] | Exception] = loop.create_future()

    def tell(found: Sequence[str] | Exception) -> None:
        if not answer.done():
            answer.set_result(found)

    def look_up() -> None:
        try:
            found: Sequence[str] | Exception = _addresses(host, port)
        except Exception as error:
            found = error
        finally:
            _LOOKUPS.release()
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(tell, found)

    if not _LOOKUPS.acquire(blocking=False):
        raise OSError(f"{LOOKUPS_MAX} host names are being looked up already")
    try:
        threading.Thread(target=look_up, name="oracle.lookup", daemon=True).start()
    except RuntimeError as error:
        _LOOKUPS.release()
        raise OSError("no thread can be started to look it up") from error
    found = await answer
    if isinstance(found, Exception):
        raise found
    return found


def _addresses(host: str, port: int) -> Sequence[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to public addresses only, unless `allow_private`.

    `hosts`: addresses (and ports, which replace the URL's) of names, looked at before `resolve` is asked; they are
    checked like any other. One address that may not be connected to refuses the name: a name that resolves to both a
    public and a private address is an attack or a mistake. `sockets` is given checked addresses alone, never names.
    """

    def __init__(
        self,
        *,
        allow_private: bool,
        hosts: Mapping[str, tuple[str, int | None]],
        resolve: Resolve,
        sockets: httpcore.AsyncNetworkBackend,
    ) -> None:
        self._allow_private = allow_private
        self._hosts = hosts
        self._resolve = resolve
        self._sockets = sockets

    async def addresses(self, host: str, port: int) -> tuple[Sequence[str], int]:
        """The checked addresses of `host` and the port to use. Raises AddressRefused."""
        known = self._hosts.get(host.rstrip(".").lower())
        if known is not None:
            found: Sequence[str] = (known[0],)
            port = known[1] or port
        else:
            try:
                found = await self._resolve(host, port)
            except (OSError, UnicodeError) as error:
                raise AddressRefused(f"its host name {host[:80]!r} cannot be resolved") from error
        if not found:
            raise AddressRefused(f"its host name {host[:80]!r} has no address")
        for address in () if self._allow_private else found:
            if why := why_not_public(address):
                raise AddressRefused(f"its address {address[:60]} is not public but {why}")
        return found, port

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to the first of the checked addresses that answers within `timeout`, the resolving included."""
        try:
            async with asyncio.timeout(timeout):
                return await self._connect(host, port, local_address, socket_options)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout from error

    async def _connect(
        self, host: str, port: int, local_address: str | None, socket_options: Iterable[SocketOption] | None
    ) -> httpcore.AsyncNetworkStream:
        addresses, port = await self.addresses(host, port)
        tried = addresses[:ADDRESSES_TRIED_MAX]
        for number, address in enumerate(tried, 1):
            try:
                stream = await self._sockets.connect_tcp(
                    address, port, local_address=local_address, socket_options=socket_options
                )
            except httpcore.ConnectError:
                if number == len(tried):
                    raise
            else:
                return MeteredStream(stream)
        raise httpcore.ConnectError("no address was tried")

    async def sleep(self, seconds: float) -> None:
        """Wait, as httpcore asks between retries (none are configured)."""
        await asyncio.sleep(seconds)


class MeteredStream(httpcore.AsyncNetworkStream):
    """A stream that fails once more than was allowed has been read since the request."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, allowed: int = HEAD_BYTES_MAX) -> None:
        self._stream = stream
        self._allowed = allowed

    def allow(self, more: int) -> None:
        """Let `more` bytes be read from now on."""
        self._allowed += more

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        """Up to `max_bytes`. Raises httpcore.ReadError beyond what was allowed."""
        if self._allowed <= 0:
            raise httpcore.ReadError("it sends more around its body than is read")
        data = await self._stream.read(min(max_bytes, self._allowed), timeout)
        self._allowed -= len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Hand on what is to be sent."""
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        """The same connection under TLS; the certificate must name `server_hostname`, the URL's own host."""
        return MeteredStream(await self._stream.start_tls(ssl_context, server_hostname, timeout), self._allowed)

    def get_extra_info(self, info: str) -> object:
        """What the stream below knows about itself."""
        return self._stream.get_extra_info(info)
