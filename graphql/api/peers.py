"""Where a request comes from: the address that limits count, and the page that may read the answer."""

from collections.abc import Collection, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final, TypeAlias

FORWARDED_MAX: Final = 20
"""Hops of X-Forwarded-For that are looked at, from its end."""

Networks: TypeAlias = Collection[IPv4Network | IPv6Network]


def client_address(peer: str | None, forwarded: Iterable[bytes], proxies: Networks) -> str:
    """The address that a request comes from: the peer's, or what a trusted proxy says of it.

    `forwarded` are the values of X-Forwarded-For. Proxies append to it, so it is read from its end: the first address
    that is no trusted proxy's counts, and whatever stands before it is the client's own invention.
    """
    address = peer or "unknown"
    if not proxies or not _is_in(address, proxies):
        return address
    for hop in reversed(b",".join(forwarded).decode("latin-1").split(",")[-FORWARDED_MAX:]):
        if not hop.strip():
            continue
        address = hop.strip()
        if not _is_in(address, proxies):
            break
    return address


def _is_in(address: str, networks: Networks) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)


class Origins:
    """The pages that may talk to the API from a browser: its own, and those that a setting names."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = frozenset(origin.encode() for origin in allowed)

    def allow(self, origin: bytes, host: bytes) -> bool:
        """Whether a page of `origin` may, asking for `host`."""
        if origin in self._allowed:
            return True
        scheme, _, its_host = origin.partition(b"://")
        return scheme in (b"http", b"https") and its_host != b"" and its_host == host.lower()
