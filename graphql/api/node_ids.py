"""Global object ids: base64url, without padding, of "Type:key". Opaque to clients, the same for ever.

A text that is no id, or one of another type, is treated as the id of nothing: the caller hears null or NOT_FOUND, as
for an object that is missing or somebody else's. No table is read here.
"""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final, NamedTuple

import strawberry

_ID_LENGTH_MAX: Final = 128
_KEY_MAX: Final = 2**63 - 1
_KEY_PARTS_MAX: Final = 2


class NodeKey(NamedTuple):
    """A decoded id: the type's name and its key, one or two positive integers (a trade's are asset and seq)."""

    type: str
    key: tuple[int, ...]


def encode_ref(ref: str) -> strawberry.ID:
    """The id of a plain reference such as "Trade:3:17"."""
    return strawberry.ID(urlsafe_b64encode(ref.encode()).decode().rstrip("="))


def node_id(type_name: str, *key: int) -> strawberry.ID:
    """The id of the object of this type and key."""
    return encode_ref(":".join((type_name, *map(str, key))))


def decode(text: str) -> NodeKey | None:
    """The type and key that `text` stands for, or None if it is no id."""
    if not text or len(text) > _ID_LENGTH_MAX or not text.isascii():
        return None
    try:
        plain = urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
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
