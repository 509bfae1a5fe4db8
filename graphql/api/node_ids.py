"""Global object ids: base64url, without padding, of "Type:key". Opaque to clients, the same for ever.

A text that is no id, or one of another type, is treated as the id of nothing: the caller hears null or NOT_FOUND, as
for an object that is missing or somebody else's. No table is read here.
"""

from binascii import Error as NotBase64
from binascii import a2b_base64, b2a_base64
from functools import lru_cache
from typing import Final, NamedTuple

import strawberry

_ID_LENGTH_MAX: Final = 128
_KEY_MAX: Final = 2**63 - 1
_KEY_PARTS_MAX: Final = 2
_KEPT: Final = 4096
"""Ids that are kept coded and decoded: clients name the same few assets again and again."""
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
_PLAIN: Final = bytes.maketrans(b"-_", b"+/")


class NodeKey(NamedTuple):
    """A decoded id: the type's name and its key, one or two positive integers (a trade's are asset and seq)."""

    type: str
    key: tuple[int, ...]


def encode_ref(ref: str) -> strawberry.ID:
    """The id of a plain reference such as "Trade:3:17"."""
    return strawberry.ID(b2a_base64(ref.encode(), newline=False).rstrip(b"=").translate(_URL_SAFE).decode())


def node_id(type_name: str, *key: int) -> strawberry.ID:
    """The id of the object of this type and key."""
    return encode_ref(":".join((type_name, *map(str, key))))


@lru_cache(_KEPT)
def asset_node_id(asset_id: int) -> strawberry.ID:
    """The id of an asset: part of every order, fill and tick."""
    return node_id("Asset", asset_id)


def decode(text: str) -> NodeKey | None:
    """The type and key that `text` stands for, or None if it is no id."""
    if not text or len(text) > _ID_LENGTH_MAX or not text.isascii():
        return None
    return _decode(text)


@lru_cache(_KEPT)
def _decode(text: str) -> NodeKey | None:
    try:
        plain = a2b_base64(text.encode().translate(_PLAIN) + b"=" * (-len(text) % 4)).decode("ascii")
    except (NotBase64, UnicodeDecodeError):
        return None
    type_name, *parts = plain.split(":")
    if not 1 <= len(parts) <= _KEY_PARTS_MAX or not all(_is_key(part) for part in parts):
        return None
    if encode_ref(plain) != text:  # one object, one id: no second spelling passes
        return None
    return NodeKey(type_name, tuple(int(part) for part in parts))


def key_of(text: str, type_name: str) -> int | None:
    """The key in `text` if it is an id of `type_name` with a single key, else None."""
    decoded = decode(text)
    if decoded is None or decoded.type != type_name or len(decoded.key) != 1:
        return None
    return decoded.key[0]


def key_or_nothing(text: str, type_name: str) -> int:
    """The key in `text`, or 0, which no row has: use cases then answer NOT_FOUND like for any missing object."""
    return key_of(text, type_name) or 0


def _is_key(part: str) -> bool:
    return part.isdigit() and part[0] != "0" and int(part) <= _KEY_MAX
