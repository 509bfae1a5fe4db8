"""Who stands behind a URL: its registrable domain. Pure but for reading the bundled public suffix list once.

No network, no resolving: whether an address may be fetched is decided where pages are fetched.
"""

import re
from functools import cache
from typing import Final

import idna
from publicsuffixlist import PublicSuffixList

HOST_CHARS_MAX: Final = 253
"""The longest host name that the domain name system knows."""
_URL_CHARS_MAX: Final = 4096
_URL = re.compile(r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*)://)?(?P<authority>[^/?#]*)")
_PORT = re.compile(r":[0-9]{0,5}\Z")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_\-]{0,61}[a-z0-9_])?")
_ADDRESS_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""A last label of this form makes a host an IPv4 address (or nothing), however it is written: 127.1, 0x7f.1."""


def registrable_domain(url_or_host: str) -> str | None:
    """What somebody registered of the host in an http(s) URL, or of a bare host: "a.b.co.uk" gives "b.co.uk".

    In lower case, international names as A-labels ("xn--..."). Both parts of the public suffix list count: whoever has
    "a.github.io" is somebody else than the owner of "b.github.io". A top-level name that the list does not know is a
    suffix itself. None for IP addresses, single labels, bare suffixes, other schemes and whatever is no host.
    """
    host = _host(url_or_host)
    return None if host is None else _suffixes().privatesuffix(host)


def _host(text: str) -> str | None:
    """The host in lower-case ASCII without a trailing dot; None for an address or nonsense."""
    parts = _URL.match(text.strip()) if len(text) <= _URL_CHARS_MAX else None
    if parts is None or (parts["scheme"] or "https").lower() not in ("http", "https"):
        return None
    authority = parts["authority"]
    # Readers of URLs disagree about these: one would see another host than the next.
    if authority.count("@") > 1 or any(character in "\\%[]" or character.isspace() for character in authority):
        return None
    host = _ascii(_PORT.sub("", authority.rpartition("@")[2]))
    if host is None or len(host) > HOST_CHARS_MAX:
        return None
    labels = host.split(".")
    if len(labels) < 2 or _ADDRESS_LABEL.fullmatch(labels[-1]) or not all(map(_LABEL.fullmatch, labels)):
        return None
    return host


def _ascii(host: str) -> str | None:
    """In lower-case ASCII, one trailing dot taken off; None where an international name is malformed."""
    if host.isascii():
        return host.lower().removesuffix(".")
    try:
        return idna.encode(host, uts46=True).decode("ascii").lower().removesuffix(".")
    except idna.IDNAError:
        return None


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList(accept_unknown=True)
