"""Which pages may read answers, and which address a request comes from."""

from ipaddress import ip_network

import pytest

from api.peers import client_address
from tests.api.edge import Edge, make_edge

APP = "https://app.example"


@pytest.fixture
def edge() -> Edge:
    return make_edge(allowed_origins=[APP])


@pytest.mark.parametrize("origin", [APP, "http://127.0.0.1:8000", "https://127.0.0.1:8000"])
async def test_pages_of_allowed_origins_and_of_ones_own_may_read(edge: Edge, origin: str) -> None:
    reply = await edge.post("{ hello }", origin=origin)

    assert reply.headers["access-control-allow-origin"] == origin
    assert reply.headers["access-control-expose-headers"] == "x-request-id, ratelimit, ratelimit-policy, retry-after"
    assert reply.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "", "http://127.0.0.1:9000", "ftp://127.0.0.1:8000", "https://app.example.evil"],
)
async def test_pages_of_other_origins_may_not(edge: Edge, origin: str) -> None:
    reply = await edge.post("{ hello }", origin=origin)

    assert "access-control-allow-origin" not in reply.headers
    assert reply.headers["vary"] == "Origin"


async def test_refusals_may_be_read_too(edge: Edge) -> None:
    reply = await edge.send(body=b"x", headers={"content-type": "text/plain", "origin": APP})

    assert (reply.status, reply.headers["access-control-allow-origin"]) == (415, APP)


async def test_a_preflight_allows_json_and_tokens_to_allowed_origins_only(edge: Edge) -> None:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    allowed = await edge.send("OPTIONS", headers={"origin": APP, **asked})
    other = await edge.send("OPTIONS", headers={"origin": "https://evil.example", **asked})

    assert (allowed.status, allowed.body) == (204, b"")
    assert allowed.headers["access-control-allow-origin"] == APP
    assert allowed.headers["access-control-allow-methods"] == "GET, POST"
    assert allowed.headers["access-control-allow-headers"] == "authorization, content-type, x-request-id"
    assert (other.status, other.body) == (204, b"")
    assert not [name for name in other.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["nonsense"], "nonsense"),
        ("10.0.0.1", [], "10.0.0.1"),
    ],
)
def test_forwarded_addresses_count_from_trusted_proxies_only(peer: str, forwarded: list[str], address: str) -> None:
    values = [value.encode() for value in forwarded]

    assert client_address(peer, values, [ip_network("10.0.0.0/8")]) == address


def test_without_trusted_proxies_nobody_is_believed() -> None:
    assert client_address("127.0.0.1", [b"198.51.100.1"], []) == "127.0.0.1"
    assert client_address(None, [b"198.51.100.1"], []) == "unknown"
