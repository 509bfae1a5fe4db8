"""E-mail addresses: one spelling for each, and a syntactic check. Whether an address can receive is not asked here."""

import re
import unicodedata
from typing import Final

from app.errors import Refused, invalid, quoted
from app.text import showable

LENGTH_MAX: Final = 254
LOCAL_LENGTH_MAX: Final = 64
_INPUT_LENGTH_MAX: Final = 1_000
_NOT_IN_LOCAL: Final = frozenset('()<>[]:;@\\," ')
_DOMAIN: Final = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])", re.ASCII)


def normalised_email(text: str, *, field: tuple[str, ...] = ("input", "email")) -> str:
    """The one spelling of the address: NFKC, lower case, without surrounding space; at most 254 characters.

    Raises `Refused` (INVALID_INPUT) that quotes the value when it is no address of the form name@domain.tld.
    """
    email = _normalised(text) if len(text) <= _INPUT_LENGTH_MAX else text
    local, _, domain = email.rpartition("@")
    if len(email) > LENGTH_MAX or not _is_local(local) or _DOMAIN.fullmatch(domain) is None:
        raise invalid(
            f"email must be an address such as name@example.com, at most {LENGTH_MAX} characters; "
            f"got {quoted(showable(text[:400]))}.",
            *field,
        )
    return email


def known_spelling(text: str) -> str | None:
    """`normalised_email`, or None where no account can have that address."""
    try:
        return normalised_email(text)
    except Refused:
        return None


def _normalised(text: str) -> str:
    # Lower-casing can undo the normal form, hence twice.
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).strip().lower())


def _is_local(local: str) -> bool:
    if not 1 <= len(local) <= LOCAL_LENGTH_MAX or local.startswith(".") or local.endswith(".") or ".." in local:
        return False
    return not any(c in _NOT_IN_LOCAL or not c.isprintable() or c != c.lower() for c in local)
