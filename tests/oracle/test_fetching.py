"""The fetcher: whom it connects to, what it asks, what it takes, and how many at a time."""

import asyncio
import gzip
import socket
import threading
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.oracle.addresses import why_not_public
from app.oracle.bodies import BadBody, body_decoder
from app.oracle.connecting import LOOKUPS_MAX, system_addresses
from app.oracle.fetching import FEED_ACCEPT, PAGE_ACCEPT, USER_AGENT, Fetched, Fetcher, FetchRefused
from tests.oracle.certificates import make_server_context
from tests.oracle.web_server import PUBLIC_ADDRESS, Names, Request, RoutedSockets, WebServer, answer, pieces, redirect

OTHER_PUBLIC_ADDRESS = "93.184.216.35"


@pytest.fixture
async def server() -> AsyncIterator[WebServer]:
    started = await WebServer().start()
    yield started
    await started.stop()


def local_fetcher(
    server: WebServer, *, names: Names | None = None, per_host_max: int = 2, total_max: int = 64
) -> Fetcher:
    """As in production, but for the sockets, which lead to the local server."""
    sockets = RoutedSockets({(PUBLIC_ADDRESS, 80): server.port})
    return Fetcher(
        allow_private=False,
        hosts={},
        resolve=names or Names(),
        sockets=sockets,
        per_host_max=per_host_max,
        total_max=total_max,
    )


async def get(
    fetcher: Fetcher, url: str, *, bytes_max: int = 10_000, seconds_max: float = 20, accept: str = PAGE_ACCEPT
) -> Fetched:
    return await fetcher.get(url, bytes_max=bytes_max, seconds_max=seconds_max, accept=accept)


async def expect_refused(fetcher: Fetcher, url: str, why: str, **options: float) -> None:
    with pytest.raises(FetchRefused) as refused:
        await fetcher.get(
            url,
            bytes_max=int(options.get("bytes_max", 10_000)),
            seconds_max=options.get("seconds_max", 20),
            accept=PAGE_ACCEPT,
        )
    assert why in str(refused.value)
    assert refused.value.url == url


# ------------------------------------------------------------------------------------------------ addresses
PUBLIC = (
    "93.184.216.34",
    "8.8.8.8",
    "1.1.1.1",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2a00:1450::1",
    "64:ff9b::808:808",
)
NOT_PUBLIC = {
    "0.0.0.0": "unspecified",  # noqa: S104
    "0.1.2.3": "unspecified",
    "10.0.0.1": "private",
    "100.64.0.1": "shared by a carrier's customers",
    "100.127.255.255": "shared by a carrier's customers",
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "168.63.129.16": "a cloud's metadata service",
    "169.254.169.254": "link-local",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.0.0.192": "reserved for protocols",
    "192.0.2.1": "for documentation",
    "192.88.99.1": "a retired relay",
    "192.168.0.1": "private",
    "198.18.0.1": "for benchmarks",
    "198.19.255.255": "for benchmarks",
    "198.51.100.1": "for documentation",
    "203.0.113.1": "for documentation",
    "224.0.0.1": "multicast",
    "239.255.255.255": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "reserved",
    "::": "unspecified",
    "::1": "loopback",
    "::7f00:1": "IPv4 in IPv6's clothes",
    "::ffff:127.0.0.1": "IPv4 in IPv6's clothes",
    "::ffff:8.8.8.8": "IPv4 in IPv6's clothes",
    "::ffff:0:127.0.0.1": "not global",
    "64:ff9b::a00:1": "private",
    "64:ff9b::a9fe:a9fe": "link-local",
    "64:ff9b:1::808:808": "not global",
    "100::1": "not global",
    "2001:0:a00:1::1": "a Teredo tunnel",
    "2001:2::1": "reserved for protocols",
    "2001:10::1": "reserved for protocols",
    "2001:db8::1": "for documentation",
    "2002:7f00:1::1": "a 6to4 tunnel",
    "2002:808:808::1": "a 6to4 tunnel",
    "3fff::1": "for documentation",
    "4000::1": "not global",
    "5f00::1": "not global",
    "fc00::1": "private",
    "fd00:ec2::254": "private",
    "fe80::1": "link-local",
    "fe80::1%eth0": "bound to one interface",
    "fec0::1": "not global",
    "ff02::1": "multicast",
    "localhost": "not an IP address",
    "127.1": "not an IP address",
    "": "not an IP address",
}


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass(address: str) -> None:
    assert why_not_public(address) is None


@pytest.mark.parametrize(("address", "why"), NOT_PUBLIC.items())
def test_other_addresses_are_refused(address: str, why: str) -> None:
    assert why_not_public(address) == why


# ------------------------------------------------------------------------------------------------ bodies
def decode(encoding: str, data: bytes, *, bytes_max: int = 1_000, step: int = 7) -> bytes:
    decoder = body_decoder(encoding, bytes_max)
    for start in range(0, len(data), step):
        decoder.feed(data[start : start + step])
    return decoder.finish()


@pytest.mark.parametrize("step", [1, 7, 5_000])
@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("", b"wheat" * 200),
        ("identity", b"wheat" * 200),
        ("gzip", gzip.compress(b"wheat" * 200)),
        ("X-GZIP", gzip.compress(b"wheat" * 200)),
        (" gzip", gzip.compress(b"wheat" * 150) + gzip.compress(b"wheat" * 50)),
        ("deflate", zlib.compress(b"wheat" * 200)),
        ("deflate", zlib.compress(b"wheat" * 200, wbits=-15)),
    ],
)
def test_bodies_are_decoded_up_to_exactly_the_bound(encoding: str, data: bytes, step: int) -> None:
    assert decode(encoding, data, step=step) == b"wheat" * 200
    with pytest.raises(BadBody, match="longer than 999 bytes"):
        decode(encoding, data, bytes_max=999, step=step)


@pytest.mark.parametrize(
    ("encoding", "data", "why"),
    [
        ("gzip", b"", "is cut off"),
        ("gzip", gzip.compress(b"wheat")[:-1], "is cut off"),
        ("gzip", gzip.compress(b"wheat") + b"\0", "is cut off"),
        ("gzip", gzip.compress(b"wheat") + b"garbage", "is damaged"),
        ("deflate", zlib.compress(b"wheat") + b"x", "goes on after its end"),
        ("gzip", bytes(2_000), "compressed body is longer than 1000 bytes"),
        ("br", b"", "only gzip and deflate are read"),
        ("gzip, gzip", b"", "only gzip and deflate are read"),
        ("zstd", b"", "only gzip and deflate are read"),
    ],
)
def test_damaged_and_unknown_bodies_are_refused(encoding: str, data: bytes, why: str) -> None:
    with pytest.raises(BadBody, match=why):
        decode(encoding, data, step=5_000)


# ------------------------------------------------------------------------------------------------ requests
async def test_a_page_is_fetched_whole(server: WebServer) -> None:
    body = gzip.compress("<p>Größe".encode())
    server.pages["news.example/wheat"] = answer(body, headers={"Content-Encoding": "gzip", "Set-Cookie": "a=b"})
    fetcher = local_fetcher(server)
    page = await get(fetcher, "http://news.example/wheat?day=1#top")
    assert (page.url, page.status, page.content_type) == (
        "http://news.example/wheat?day=1",
        200,
        "text/html; charset=utf-8",
    )
    assert page.body == "<p>Größe".encode()
    await get(fetcher, "http://news.example/wheat?day=2")
    headers = {
        "host": "news.example",
        "user-agent": USER_AGENT,
        "accept": PAGE_ACCEPT,
        "accept-encoding": "gzip",
        "connection": "close",
    }
    assert server.requests == [Request("GET", f"/wheat?day={day}", headers) for day in (1, 2)]


async def test_the_media_types_asked_for_decide(server: WebServer) -> None:
    server.pages["feed.example/"] = answer(b'{"v": 1}', content_type="Application/JSON; charset=utf-8")
    fetcher = local_fetcher(server)
    page = await get(fetcher, "http://feed.example/", accept=FEED_ACCEPT)
    assert page.body == b'{"v": 1}'
    assert server.requests[0].headers["accept"] == FEED_ACCEPT
    await expect_refused(fetcher, "http://feed.example/", "its Content-Type is 'application/json', and text/html")


async def test_bodies_of_exactly_the_bound_are_taken(server: WebServer) -> None:
    server.pages["a.example/long"] = answer(b"x" * 10_000)
    server.pages["a.example/unsaid"] = answer(b"x" * 10_000, has_length=False)
    server.pages["a.example/longer"] = answer(b"x" * 10_001)
    server.pages["a.example/longer-unsaid"] = answer(b"x" * 10_001, has_length=False)
    fetcher = local_fetcher(server)
    assert len((await get(fetcher, "http://a.example/long")).body) == 10_000
    assert len((await get(fetcher, "http://a.example/unsaid")).body) == 10_000
    await expect_refused(fetcher, "http://a.example/longer", "its body has 10001 bytes, and at most 10000 are read")
    await expect_refused(fetcher, "http://a.example/longer-unsaid", "its body is longer than 10000 bytes")


async def test_honest_chunks_are_read(server: WebServer) -> None:
    chunk = b"%x\r\n%s\r\n" % (500, b"x" * 500)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    server.pages["a.example/"] = pieces(head, *(chunk,) * 20, b"0\r\n\r\n")
    assert (await get(local_fetcher(server), "http://a.example/")).body == b"x" * 10_000


async def test_redirects_are_followed_by_hand(server: WebServer) -> None:
    server.pages["a.example/1"] = redirect("//b.example/2", "301 Moved")
    server.pages["b.example/2"] = redirect("3?x=1", "303 See Other")
    server.pages["b.example/3"] = redirect("/4", "307 Temporary")
    server.pages["b.example/4"] = redirect("http://c.example/5", "308 Permanent")
    server.pages["c.example/5"] = redirect("#fragment-of/5")
    server.pages["c.example/6"] = answer(b"there")
    names = Names()
    fetcher = local_fetcher(server, names=names)
    await expect_refused(
        fetcher, "http://a.example/1", "it was sent on to '#fragment-of/5': there are more than 5 redirects"
    )
    assert [request.url for request in server.requests] == [
        "a.example/1",
        "b.example/2",
        "b.example/3?x=1",
        "b.example/4",
        "c.example/5",
        "c.example/5",
    ]
    assert names.asked == ["a.example", "b.example", "b.example", "b.example", "c.example", "c.example"]
    server.pages["c.example/5"] = redirect("6")
    assert (await get(fetcher, "http://a.example/1")).url == "http://c.example/6"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "its scheme is ''"),
        ("news.example", "its scheme is ''"),
        ("ftp://news.example/", "its scheme is 'ftp'"),
        ("file:///etc/passwd", "its scheme is 'file'"),
        ("http://", "it names no host"),
        ("http://user@news.example/", "it carries a user name or password"),
        ("http://:secret@news.example/", "it carries a user name or password"),
        ("http://news.example:8080/", "its port is 8080, and only 80 and 443"),
        ("https://news.example:22/", "its port is 22"),
        ("http://news.example:65536/", "its port is 65536, and there is no such port"),
        ("http://news.example:0/", "its port is 0, and there is no such port"),
        ("http://news.example/\r\nX: y", "it is not a valid URL"),
        ("http://news.example/" + "x" * 2_030, "its URL has 2050 characters, and at most 2048 are allowed"),
        ("http://127.0.0.1/", "its address 127.0.0.1 is not public but loopback"),
        ("http://2130706433/", "its address 127.0.0.1 is not public but loopback"),
        ("http://localhost/", "is not public but loopback"),
        ("http://[::1]/", "its address ::1 is not public but loopback"),
        (f"http://{'a' * 70}.test/", "cannot be resolved"),
        ("http://a..test/", "cannot be resolved"),
        ("http://no\0where/", "it is not a valid URL"),
    ],
)
async def test_urls_are_refused_by_form_or_address(url: str, why: str, server: WebServer) -> None:
    sockets = RoutedSockets({})
    await expect_refused(Fetcher(allow_private=False, hosts={}, resolve=Names(), sockets=sockets), url, why)
    assert sockets.asked == []


def test_messages_cut_what_is_long() -> None:
    assert len(str(FetchRefused("http://a.example/" + "x" * 5_000, "it is odd"))) == 200 + len("'': it is odd")


# ------------------------------------------------------------------------------------------------ connecting
async def test_exactly_the_checked_address_is_connected_to(server: WebServer) -> None:
    names = Names({"a.example": ((PUBLIC_ADDRESS,), ("127.0.0.1",))})
    sockets = RoutedSockets({(PUBLIC_ADDRESS, 80): server.port})
    server.pages["a.example/"] = answer(b"good")
    fetcher = Fetcher(allow_private=False, hosts={}, resolve=names, sockets=sockets)
    assert (await get(fetcher, "http://a.example/")).body == b"good"
    assert (names.asked, sockets.asked) == (["a.example"], [(PUBLIC_ADDRESS, 80)])
    await expect_refused(fetcher, "http://a.example/", "its address 127.0.0.1 is not public but loopback")
    assert sockets.asked == [(PUBLIC_ADDRESS, 80)]


async def test_one_private_address_among_public_ones_refuses_the_name() -> None:
    names = Names({"a.example": ((PUBLIC_ADDRESS, OTHER_PUBLIC_ADDRESS, "::ffff:10.0.0.1"),)})
    sockets = RoutedSockets({})
    fetcher = Fetcher(allow_private=False, hosts={}, resolve=names, sockets=sockets)
    await expect_refused(fetcher, "http://a.example/", "its address ::ffff:10.0.0.1 is not public")
    assert sockets.asked == []


async def test_the_next_address_is_tried_when_one_does_not_answer(server: WebServer) -> None:
    names = Names(
        {
            "a.example": ((OTHER_PUBLIC_ADDRESS, PUBLIC_ADDRESS),),
            "b.example": (("9.9.9.1", "9.9.9.2", "9.9.9.3", "9.9.9.4"),),
        }
    )
    sockets = RoutedSockets({(PUBLIC_ADDRESS, 80): server.port})
    server.pages["a.example/"] = answer(b"good")
    fetcher = Fetcher(allow_private=False, hosts={}, resolve=names, sockets=sockets)
    assert (await get(fetcher, "http://a.example/")).body == b"good"
    assert sockets.asked == [(OTHER_PUBLIC_ADDRESS, 80), (PUBLIC_ADDRESS, 80)]
    sockets.asked.clear()
    await expect_refused(fetcher, "http://b.example/", "the connection failed (no route to 9.9.9.3:80)")
    assert sockets.asked == [("9.9.9.1", 80), ("9.9.9.2", 80), ("9.9.9.3", 80)]


async def test_named_hosts_come_before_the_resolver_and_bring_their_port(server: WebServer) -> None:
    names = Names()
    server.pages["news.example/"] = answer(b"good")
    server.pages["news.example:8080/"] = answer(b"other port")
    fetcher = Fetcher(allow_private=True, hosts={"news.example": ("127.0.0.1", server.port)}, resolve=names)
    assert (await get(fetcher, "http://NEWS.example/")).body == b"good"
    assert (await get(fetcher, "http://news.example:8080/")).body == b"other port"
    assert names.asked == []
    server.pages[f"127.0.0.1:{server.port}/"] = answer(b"by address")
    assert (await get(fetcher, f"http://127.0.0.1:{server.port}/")).body == b"by address"


async def test_named_hosts_are_checked_like_others(server: WebServer) -> None:
    hosts = {"news.example": ("127.0.0.1", server.port)}
    fetcher = Fetcher(allow_private=False, hosts=hosts)
    await expect_refused(fetcher, "http://news.example./", "its address 127.0.0.1 is not public but loopback")
    assert server.connections == 0


async def test_proxies_of_the_environment_are_not_used(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server.pages["a.example/"] = answer(b"good")
    assert (await get(local_fetcher(server), "http://a.example/")).body == b"good"


async def test_tls_names_and_verifies_the_host(server: WebServer, tmp_path: Path) -> None:
    server_context, client_context = make_server_context(tmp_path, "safe.example")
    asked: list[str | None] = []
    server_context.sni_callback = lambda _socket, name, _context: asked.append(name)
    secure = await WebServer(ssl_context=server_context).start()
    secure.pages = {"/": answer(b"safe"), "/down": redirect("http://plain.example/")}
    server.pages["plain.example/"] = redirect("https://safe.example/")
    sockets = RoutedSockets({(PUBLIC_ADDRESS, 443): secure.port, (PUBLIC_ADDRESS, 80): server.port})
    fetcher = Fetcher(allow_private=False, hosts={}, resolve=Names(), sockets=sockets, ssl_context=client_context)
    strict = Fetcher(allow_private=False, hosts={}, resolve=Names(), sockets=sockets)
    try:
        assert (await get(fetcher, "https://safe.example/")).body == b"safe"
        assert (await get(fetcher, "http://plain.example/")).url == "https://safe.example/"
        await expect_refused(fetcher, "https://safe.example/down", "it is a redirect from https to http")
        await expect_refused(fetcher, "https://false.example/", "certificate is not valid for 'false.example'")
        await expect_refused(strict, "https://safe.example/", "CERTIFICATE_VERIFY_FAILED")
        assert asked == ["safe.example"] * 3 + ["false.example", "safe.example"]
        assert {request.url for request in secure.requests} == {"safe.example/", "safe.example/down"}
    finally:
        await secure.stop()


# ------------------------------------------------------------------------------------------------ turns and time
class Gate:
    """A page that answers when it is told to; `waiting` and `most` count requests under way."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.changed = asyncio.Condition()
        self.waiting = 0
        self.most = 0

    async def __call__(self, _: Request, writer: asyncio.StreamWriter) -> None:
        await self._count(1)
        try:
            await self.opened.wait()
            writer.write(answer(b"good"))
        finally:
            await self._count(-1)

    async def _count(self, by: int) -> None:
        async with self.changed:
            self.waiting += by
            self.most = max(self.most, self.waiting)
            self.changed.notify_all()

    async def until(self, waiting: int) -> None:
        async with asyncio.timeout(20), self.changed:
            await self.changed.wait_for(lambda: self.waiting == waiting)


async def test_a_host_is_asked_by_two_at_a_time_while_others_go_on(server: WebServer) -> None:
    gate = Gate()
    server.pages = {"slow.example/": gate, "quick.example/": answer(b"quick")}
    fetcher = local_fetcher(server)
    slow = [asyncio.create_task(get(fetcher, "http://slow.example/")) for _ in range(10)]
    await gate.until(2)
    assert (await get(fetcher, "http://quick.example/")).body == b"quick"
    gate.opened.set()
    assert [page.body for page in await asyncio.gather(*slow)] == [b"good"] * 10
    assert (gate.most, server.connections) == (2, 11)


async def test_requests_in_all_are_bounded(server: WebServer) -> None:
    gate = Gate()
    server.pages["/"] = gate
    fetcher = local_fetcher(server, total_max=3)
    fetches = [asyncio.create_task(get(fetcher, f"http://h{number}.example/")) for number in range(9)]
    await gate.until(3)
    gate.opened.set()
    assert [page.body for page in await asyncio.gather(*fetches)] == [b"good"] * 9
    assert (gate.most, server.connections) == (3, 9)


async def test_waiting_for_a_turn_counts_as_time(server: WebServer) -> None:
    gate = Gate()
    server.pages["slow.example/"] = gate
    fetcher = local_fetcher(server, per_host_max=1)
    first = asyncio.create_task(get(fetcher, "http://slow.example/"))
    await gate.until(1)
    await expect_refused(fetcher, "http://slow.example/", "it took longer than 0.05 seconds", seconds_max=0.05)
    assert server.connections == 1
    gate.opened.set()
    assert (await first).body == b"good"
    assert (await get(fetcher, "http://slow.example/")).body == b"good"


async def test_a_resolver_without_an_answer_is_given_up(server: WebServer) -> None:
    async def resolve(host: str, port: int) -> tuple[str, ...]:
        await asyncio.Event().wait()
        return (host, str(port))

    fetcher = Fetcher(allow_private=False, hosts={}, resolve=resolve, connect_seconds_max=0.05)
    await expect_refused(fetcher, "http://a.example/", "it did not answer in time (ConnectTimeout)")
    await expect_refused(fetcher, "http://a.example/", "it took longer than 0.04 seconds", seconds_max=0.04)
    assert server.connections == 0


async def test_names_that_are_never_resolved_hold_up_no_other_and_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        if host == "slow.example":
            answered.wait(30.0)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(None, None, None, "", (PUBLIC_ADDRESS, port)), (None, None, None, "", (PUBLIC_ADDRESS, port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    slow = [asyncio.create_task(system_addresses("slow.example", 80)) for _ in range(LOOKUPS_MAX - 1)]
    try:
        await asyncio.sleep(0)
        assert await system_addresses("quick.example", 443) == (PUBLIC_ADDRESS,)
        slow.append(asyncio.create_task(system_addresses("slow.example", 80)))
        await asyncio.sleep(0)
        slow[0].cancel()
        with pytest.raises(OSError, match="128 host names are being looked up already"):
            await system_addresses("quick.example", 443)
    finally:
        answered.set()
    found = await asyncio.gather(*slow, return_exceptions=True)
    assert [type(each) for each in found] == [asyncio.CancelledError] + [socket.gaierror] * (LOOKUPS_MAX - 1)
    assert await system_addresses("quick.example", 443) == (PUBLIC_ADDRESS,)


async def test_a_cancelled_fetch_leaves_no_connection_and_gives_its_turn_back(server: WebServer) -> None:
    gate = Gate()
    server.pages["slow.example/"] = gate
    fetcher = local_fetcher(server, per_host_max=1)
    task = asyncio.create_task(get(fetcher, "http://slow.example/"))
    await gate.until(1)
    task.cancel()
    assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)
    gate.opened.set()
    assert (await get(fetcher, "http://slow.example/")).body == b"good"


async def test_a_closed_fetcher_refuses(server: WebServer) -> None:
    fetcher = local_fetcher(server)
    await fetcher.aclose()
    await expect_refused(fetcher, "http://a.example/", "the fetcher is closed")
    assert server.connections == 0
