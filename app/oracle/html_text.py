"""The text that a reader of an HTML page sees, tables and lists included. Pure; runs in the extractor's child only.

Hiding by style sheets is not followed: a page can always show what it hides, and counts as one source however it lies.
"""

import re
from collections.abc import Container, Iterable
from itertools import islice
from typing import Final

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import ElementNode, HTMLTree

MAIN_CHARS_MIN: Final = 200
"""A main content shorter than this was not found: the whole page is read instead."""
BLOCKS_MAX: Final = 100
"""Tables and lists that the main content lacks are looked for among so many of each."""

_UNSEEN: Final = (
    "[hidden], [aria-hidden='true' i], template, noscript, script, style, dialog:not([open]), head > *:not(title)"
)
_EMBEDDED: Final = "iframe, object, embed, applet, canvas, video, audio, svg, noframes, noembed, frameset, img, hr, rp"
"""Seen as something else than text, or not at all: whatever stands in them is dropped, and parts what is around."""
_PARTED: Final = "s, del, strike, ins, summary, legend, output, meter, progress, rt, menu, marquee, xmp, listing, math"
"""Shown apart from what is around them, while their text alone would run into it."""
_HIDING_STYLE: Final = re.compile(
    r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)"
    r"|(?:font-size|opacity)\s*:\s*\+?0*(?:\.0*)?(?![\d.])|(?:text-indent|left|top)\s*:\s*-\s*\d{3,})",
    re.IGNORECASE,
)
_STYLE_COMMENT: Final = re.compile(r"/\*.*?(?:\*/|$)", re.DOTALL)
_STYLE_ESCAPE: Final = re.compile(r"\\([0-9a-fA-F]{1,6})\s?")
_LISTS: Final = "ul, ol, dl"
_AROUND: Final = ("nav", "header", "footer", "aside", "form", "table", "ul", "ol", "dl")
"""Lists in these frame a page, or are read with what they stand in."""
_ENDS_IN_DIGIT: Final = re.compile(r"\d\s*$")
_DIGITS: Final = re.compile(r"\s*[-+−]?\d+\s*")


def html_to_text(html: str) -> tuple[str | None, str]:
    """Title and text: main content where it can be told, else everything; tables and lists with figures always."""
    tree = HTMLTree.parse(html)
    title = tree.title
    document = tree.document
    if document is None:
        return title, ""
    root = document.query_selector("html")
    if root is None:
        return title, ""
    _drop_unseen(tree, root)
    _part(tree, root)
    main = _plain(tree, main_content=True)
    if len(main) < MAIN_CHARS_MIN:
        return title, _plain(tree, main_content=False)
    known = {line.strip() for line in main.splitlines()}
    rows = (line.strip() for line in _plain(tree, main_content=False).splitlines() if "\t" in line)
    missing = _missing_lists(root, known)
    if not known.issuperset(row for row in rows if any(map(str.isdigit, row))):  # spares most pages the closer look
        missing += _missing_tables(root, known)
    return title, "\n\n".join((main, *missing))


def _plain(html: HTMLTree | str, *, main_content: bool) -> str:
    return extract_plain_text(
        html,
        preserve_formatting=True,
        main_content=main_content,
        list_bullets=False,  # the numbers of ordered lists are no figures
        alt_texts=False,
        links=False,
        form_fields=False,
        noscript=False,
        comments=False,
    )


def _is_hiding(style: str) -> bool:
    plain = _STYLE_ESCAPE.sub(lambda found: chr(min(int(found[1], 16), 0x10FFFF)), _STYLE_COMMENT.sub("", style))
    return _HIDING_STYLE.search(plain) is not None


def _drop_unseen(tree: HTMLTree, root: ElementNode) -> None:
    for element in list(root.query_selector_all(_UNSEEN)):
        element.remove()
    for element in list(root.query_selector_all("[style]")):
        if _is_hiding(element.getattr("style") or ""):
            element.remove()
    for element in list(root.query_selector_all(_EMBEDDED)):
        _put_before(tree, element, " ")
        element.remove()


def _part(tree: HTMLTree, root: ElementNode) -> None:
    """Keep apart what readers see apart: "10" with a raised "6" is not 106, nor is a struck 99 before 50 a 9950."""
    for element in list(root.query_selector_all(_PARTED)):
        _put_before(tree, element, " ")
        blank = tree.create_text_node(" ")
        if blank is not None:
            element.append_child(blank)
    for element in list(root.query_selector_all("sup, sub")):
        before = element.prev
        if before is None or not _DIGITS.fullmatch(element.text or "") or not _ENDS_IN_DIGIT.search(before.text or ""):
            continue
        if element.query_selector("a") is not None:  # a footnote's number
            element.text = f" [{element.text}]"
        else:
            _put_before(tree, element, "^" if element.tag == "sup" else "_")


def _put_before(tree: HTMLTree, element: ElementNode, text: str) -> None:
    parent, node = element.parent, tree.create_text_node(text)
    if parent is not None and node is not None:
        parent.insert_before(node, element)


def _missing_lists(root: ElementNode, known: set[str]) -> list[str]:
    """The texts of lists with figures, outside of what frames a page, that are not among the `known` lines."""
    lists = (each for each in root.query_selector_all(_LISTS) if any(map(str.isdigit, each.text or "")))
    return _missing((each for each in lists if not _stands_in(each, _AROUND)), known)


def _missing_tables(root: ElementNode, known: set[str]) -> list[str]:
    """The texts of tables with figures that are not among the `known` lines of the main content."""
    return _missing((each for each in root.query_selector_all("table") if not _stands_in(each, ("table",))), known)


def _missing(elements: Iterable[ElementNode], known: set[str]) -> list[str]:
    missing = []
    for element in islice(elements, BLOCKS_MAX):
        text = _plain(element.html, main_content=False)
        lines = (line.strip() for line in text.splitlines())
        if any(line not in known for line in lines if any(map(str.isdigit, line))):
            missing.append(text)
    return missing


def _stands_in(element: ElementNode, tags: Container[str]) -> bool:
    above = element.parent
    while above is not None and above.tag != "body":
        if above.tag in tags:
            return True
        above = above.parent
    return False
