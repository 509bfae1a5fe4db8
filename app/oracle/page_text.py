"""What the text of a page may hold, and how long it may be. Pure; the extractor's child process imports it."""

import re
import unicodedata
from typing import Final

TEXT_CHARS_MAX: Final = 20_000
"""Of a page's text: what stands further down is not read."""
TITLE_CHARS_MAX: Final = 300

_NORMALISED_CHARS_MAX: Final = 4 * TEXT_CHARS_MAX
"""More than this is cut before it is normalised: what is removed may make room for some of the rest."""
_INVISIBLE: Final = re.compile(
    "["
    "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # controls, but for tab and line ends
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    "\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2"  # formats that are seen, but join the number they stand before
    "\ud800-\udfff"
    "]"
)
"""Controls, zero-width characters, bidirectional controls, tags, surrogates: what Unicode calls default ignorable."""
_LINE_ENDS: Final = re.compile("\r\n|[\r\x85\u2028\u2029]")
_BLANK_LINES: Final = re.compile(r"\s*\n\s*\n\s*")


def normalised(text: str) -> str:
    """`text` in NFC with nothing unseen in it, blank lines collapsed to one, and cut to TEXT_CHARS_MAX.

    Removing what is not seen joins what is seen joined: "7", a zero-width space, "12" is 712, as people read it.
    """
    text = _LINE_ENDS.sub("\n", text[:_NORMALISED_CHARS_MAX])
    text = unicodedata.normalize("NFC", _INVISIBLE.sub("", text))
    return _BLANK_LINES.sub("\n\n", text).strip()[:TEXT_CHARS_MAX]


def normalised_title(title: str | None) -> str | None:
    """A title as one line of at most TITLE_CHARS_MAX; None when nothing is left of it."""
    return " ".join(normalised(title or "").split())[:TITLE_CHARS_MAX] or None
