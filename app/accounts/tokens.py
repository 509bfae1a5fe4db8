"""Opaque random tokens: how they look and how they are stored. What a token stands for is a row, never its text.

The prefix makes a leaked token recognisable; 256 random bits make guessing hopeless, so a plain SHA-256 stores it.
"""

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

SHOWN_LENGTH: Final = 12
"""Characters of an API key that stay visible, prefix included."""
_RANDOM_BYTES: Final = 32
_TOKEN: Final = re.compile(r"(mgs|mga|mgk)_[A-Za-z0-9_-]{43}", re.ASCII)


class TokenKind(StrEnum):
    """The prefix of a token."""

    SESSION = "mgs"
    ADMIN_SESSION = "mga"
    API_KEY = "mgk"


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token just made. `text` goes to its owner once and is stored nowhere; `digest` is stored."""

    text: str = field(repr=False)
    digest: bytes

    @property
    def shown(self) -> str:
        """The beginning, enough for its owner to tell it from others."""
        return self.text[:SHOWN_LENGTH]


def new_token(kind: TokenKind) -> NewToken:
    """A fresh token of `kind`."""
    text = f"{kind.value}_{secrets.token_urlsafe(_RANDOM_BYTES)}"
    return NewToken(text, digest(text))


def digest(text: str) -> bytes:
    """SHA-256 of a token's text: 32 bytes."""
    return hashlib.sha256(text.encode()).digest()


def kind_of(text: str) -> TokenKind | None:
    """The kind that the text claims to be; None when no token ever looked like it."""
    match = _TOKEN.fullmatch(text)
    return TokenKind(match[1]) if match else None
