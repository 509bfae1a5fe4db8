"""The child process that turns bytes of pages to text: `python -m app.oracle.extractor CPU_SECONDS`.

It lives by its standard input: a request is two lengths (4 bytes each, big-endian), the Content-Type and the body; an
answer is a length and JSON. It ends when its input ends, and is killed by the kernel's timer when a page takes longer
than CPU_SECONDS, so that it cannot outlive its parent by more than that. It imports as little as it can.
"""

import codecs
import os
import re
import resource
import signal
import struct
import sys
from email.message import Message
from typing import BinaryIO, Final

import orjson
from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

from app.oracle.html_text import html_to_text
from app.oracle.page_text import normalised, normalised_title

REQUEST: Final = struct.Struct(">II")
ANSWER: Final = struct.Struct(">I")
READY: Final = b"ready\n"
MEMORY_BYTES_MAX: Final = 2**30
"""Of address space: what takes more ends in MemoryError, or in the child's death."""
RETIRE_BYTES: Final = 192 * 2**20
"""Of resident memory: a child that a page has left so large makes room for a fresh one."""
RETIRE_PAGES: Final = 5_000

_MARKS: Final = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_META_BYTES: Final = 1_024
_META_CHARSET: Final = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)


def decoded(body: bytes, content_type: str) -> str:
    """`body` as text: by its byte order mark, else the header's charset, else a meta element's, else by its bytes.

    A charset under which the bytes make no sense is passed over. Bytes that make none under any are replaced, never
    left out: leaving them out would join digits.
    """
    for mark, charset in _MARKS:
        if body.startswith(mark):
            return body[len(mark) :].decode(charset, "replace")
    named = [charset for charset in (_header_charset(content_type), _meta_charset(body)) if charset is not None]
    for charset in (*named, detect_encoding(body) or "utf-8"):
        try:
            text = body.decode(charset)
        except (UnicodeDecodeError, LookupError):
            continue
        if text.count("\0") <= len(text) // 10:  # UTF-16 under another name
            return text
    return body.decode(named[0] if named else "utf-8", "replace")


def _header_charset(content_type: str) -> str | None:
    message = Message()
    message["Content-Type"] = content_type.replace("\r", " ").replace("\n", " ")
    return _known_charset(str(message.get_content_charset() or ""))


def _meta_charset(body: bytes) -> str | None:
    found = _META_CHARSET.search(body[:_META_BYTES])
    charset = _known_charset(found[1].decode("ascii", "replace")) if found else None
    return "utf-8" if charset is not None and charset.startswith("utf-16") else charset  # as HTML has it


def _known_charset(name: str) -> str | None:
    """The charset that browsers read under `name`; None for none, or one that they do not read, such as UTF-7."""
    return map_encoding_to_html5(name, fallback_utf8=False) if name else None


def extracted(body: bytes, content_type: str) -> tuple[str | None, str]:
    """Title and text of a page."""
    text = decoded(body, content_type)
    if content_type.partition(";")[0].strip().lower() == "text/plain":
        return None, normalised(text)
    title, text = html_to_text(text)
    return normalised_title(title), normalised(text)


def _answer(body: bytes, content_type: str, *, is_last: bool) -> bytes:
    try:
        title, text = extracted(body, content_type)
        return orjson.dumps({"title": title, "text": text, "is_last": is_last})
    except Exception as error:  # whatever a page does to the parser is that page's failure alone
        return orjson.dumps({"error": f"{type(error).__name__}: {str(error)[:200]}", "is_last": True})


def _resident_bytes() -> int:
    """What this process holds in memory now; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def _limit_this_process() -> None:
    """A crash leaves no core file, nothing can be written, and memory is bounded, as far as the system lets us."""
    limits = ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_AS, MEMORY_BYTES_MAX))
    for kind, value in limits:
        try:
            resource.setrlimit(kind, (value, value))
        except (ValueError, OSError):  # macOS knows no limit of address space
            continue
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the parent's to handle
    signal.signal(signal.SIGPROF, signal.SIG_DFL)


def serve(requests: BinaryIO, answers: BinaryIO, *, cpu_seconds: float) -> None:
    """Answer requests until their end, or until this process has grown old or large."""
    pages = 0
    is_last = False
    while not is_last and len(head := requests.read(REQUEST.size)) == REQUEST.size:
        type_bytes, body_bytes = REQUEST.unpack(head)
        content_type = requests.read(type_bytes).decode("utf-8", "replace")
        body = requests.read(body_bytes)
        pages += 1
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        is_last = pages >= RETIRE_PAGES or _resident_bytes() > RETIRE_BYTES
        answer = _answer(body, content_type, is_last=is_last)
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(ANSWER.pack(len(answer)) + answer)
        answers.flush()


def main() -> None:
    """Serve standard input; see the module's docstring."""
    _limit_this_process()
    requests, answers = os.fdopen(0, "rb"), os.fdopen(1, "wb")
    answers.write(READY)
    answers.flush()
    serve(requests, answers, cpu_seconds=float(sys.argv[1]))


if __name__ == "__main__":
    main()
