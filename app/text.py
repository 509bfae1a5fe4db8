"""Checks of the texts that people send: length, and characters that can be stored and shown. No rule about meaning.

PostgreSQL refuses NUL and lone surrogates; controls and bidirectional overrides would let one text pose as another.
"""

import unicodedata
from typing import Final

from app.errors import invalid, quoted

_LINE_CONTROLS: Final = frozenset("\n\t")
_BIDI_CONTROLS: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def checked_text(value: str, *, field: tuple[str, ...], minimum: int = 1, maximum: int, multiline: bool = False) -> str:
    """`value` without surrounding space, NFC, with `minimum` to `maximum` characters.

    Line breaks and tabs are kept where `multiline`. Raises `Refused` (INVALID_INPUT) that names the field.
    """
    if len(value) > 2 * maximum + 64:  # nobody has that much to trim: spare the normalisation
        raise _wrong_length(value, field, minimum, maximum)
    text = unicodedata.normalize("NFC", value.replace("\r\n", "\n")).strip()
    for position, character in enumerate(text):
        if not is_showable(character) and not (multiline and character in _LINE_CONTROLS):
            raise invalid(
                f"{field[-1]} holds a character that cannot be stored or shown, U+{ord(character):04X} at position "
                f"{position}: leave it out.",
                *field,
            )
    if not minimum <= len(text) <= maximum:
        raise _wrong_length(text, field, minimum, maximum)
    return text


def is_showable(character: str) -> bool:
    """Whether one character can be stored and seen for what it is: no control, surrogate or line separator."""
    return character not in _BIDI_CONTROLS and unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp")


def showable(text: str) -> str:
    """`text` with every character that is not showable as its escape, for messages."""
    return "".join(c if is_showable(c) else f"\\u{ord(c):04x}" for c in text)


def _wrong_length(text: str, field: tuple[str, ...], minimum: int, maximum: int) -> Exception:
    return invalid(
        f"{field[-1]} must have {minimum} to {maximum} characters; got {len(text)}: {quoted(showable(text[:200]))}.",
        *field,
    )
