"""Which IP addresses pages and feeds may come from. Pure: names are resolved elsewhere.

Only unicast addresses of the public Internet pass. The lists are spelled out because the standard library's
`is_global` differs between Python's patch versions; whatever it refuses is refused too.
Sources: IANA's special-purpose address registries for IPv4 and IPv6 (RFC 6890 and its updates).
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

_REFUSED_V4: Final = tuple(
    (IPv4Network(network), name)
    for network, name in (
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared by a carrier's customers"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "a cloud's metadata service"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved for protocols"),
        ("192.0.2.0/24", "for documentation"),
        ("192.88.99.0/24", "a retired relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
_REFUSED_V6: Final = tuple(
    (IPv6Network(network), name)
    for network, name in (
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::ffff:0:0/96", "IPv4 in IPv6's clothes"),
        ("::/96", "IPv4 in IPv6's clothes"),
        ("2001::/32", "a Teredo tunnel"),
        ("2001::/23", "reserved for protocols"),
        ("2001:db8::/32", "for documentation"),
        ("2002::/16", "a 6to4 tunnel"),
        ("3fff::/20", "for documentation"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"),
    )
)
_GLOBAL_V6: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")


def why_not_public(address: str) -> str | None:
    """What kind of address it is when it may not be connected to, such as "loopback"; None for a public one.

    Tunnels (6to4, Teredo) and mapped or compatible IPv4 are refused whatever they carry; behind NAT64's well-known
    prefix the IPv4 address that it carries decides. A text that is no address is "not an IP address".
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return "not an IP address"
    return _why_not_v4(parsed) if isinstance(parsed, IPv4Address) else _why_not_v6(parsed)


def _why_not_v4(address: IPv4Address) -> str | None:
    for network, name in _REFUSED_V4:
        if address in network:
            return name
    return None if address.is_global else "not global"


def _why_not_v6(address: IPv6Address) -> str | None:
    if address.scope_id is not None:
        return "bound to one interface"
    if address in _NAT64:
        return _why_not_v4(IPv4Address(int(address) & 0xFFFFFFFF))
    for network, name in _REFUSED_V6:
        if address in network:
            return name
    return None if address in _GLOBAL_V6 and address.is_global else "not global"
