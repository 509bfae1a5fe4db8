"""Decoding of an HTTP body within bounds: no more is ever produced than was allowed, whatever the bytes say. Pure."""

import zlib
from typing import Final, Protocol

ENCODINGS: Final = ("gzip", "deflate")
MEMBERS_MAX: Final = 100
"""gzip members in one body: each costs a decoder, and servers send one."""
_GZIP_BITS: Final = 16 + zlib.MAX_WBITS


class BadBody(Exception):  # noqa: N818 - an outcome of decoding
    """The body is damaged, or longer than allowed once decoded. The message says which."""


class Decoder(Protocol):
    """Takes a body piece by piece."""

    def feed(self, data: bytes) -> None:
        """Take the next piece. Raises BadBody."""

    def finish(self) -> bytes:
        """The whole decoded body. Raises BadBody when it ended too early."""


class PlainDecoder:
    """A body without Content-Encoding, of at most `bytes_max`."""

    def __init__(self, bytes_max: int) -> None:
        self._left = bytes_max
        self._bytes_max = bytes_max
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """Take the next piece. Raises BadBody beyond the bound."""
        self._left -= len(data)
        if self._left < 0:
            raise BadBody(f"its body is longer than {self._bytes_max} bytes")
        self._parts.append(data)

    def finish(self) -> bytes:
        """The whole body."""
        return b"".join(self._parts)


class ZlibDecoder:
    """A gzip (one member or several) or deflate body, of at most `bytes_max` before and after decoding.

    "deflate" means zlib's format (RFC 1950); the bare format (RFC 1951), which some servers send under that name, is
    told by its first byte.
    """

    def __init__(self, encoding: str, bytes_max: int) -> None:
        self._encoding = encoding
        self._bytes_max = bytes_max
        self._raw_left = bytes_max
        self._output = PlainDecoder(bytes_max)
        self._left = bytes_max
        self._members = 0
        self._decoder: zlib._Decompress | None = None

    def feed(self, data: bytes) -> None:
        """Take the next piece. Raises BadBody beyond a bound or when it is no such format."""
        self._raw_left -= len(data)
        if self._raw_left < 0:
            raise BadBody(f"its compressed body is longer than {self._bytes_max} bytes")
        while data:
            if self._decoder is None:
                self._decoder = self._begin(data)
            data = self._decode(self._decoder, data)

    def _begin(self, data: bytes) -> "zlib._Decompress":
        self._members += 1
        if self._members > 1 and (self._encoding != "gzip" or self._members > MEMBERS_MAX):
            raise BadBody(f"its {self._encoding} body goes on after its end")
        if self._encoding == "gzip":
            return zlib.decompressobj(_GZIP_BITS)
        is_zlib = data[0] & 0x0F == 8 and data[0] >> 4 <= 7  # method 8, a window up to 2^15
        return zlib.decompressobj(zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS)

    def _decode(self, decoder: "zlib._Decompress", data: bytes) -> bytes:
        """What of `data` is left for the next member."""
        while data and not decoder.eof:
            try:
                part = decoder.decompress(data, self._left + 1)
            except zlib.error as error:
                raise BadBody(f"its {self._encoding} body is damaged") from error
            self._left -= len(part)
            if self._left < 0:
                raise BadBody(f"its {self._encoding} body is longer than {self._bytes_max} bytes once decoded")
            self._output.feed(part)
            data = decoder.unconsumed_tail
        if not decoder.eof:
            return b""
        self._decoder = None
        return decoder.unused_data

    def finish(self) -> bytes:
        """The whole decoded body. Raises BadBody when the compressed one is cut off."""
        if self._decoder is not None or not self._members:
            raise BadBody(f"its {self._encoding} body is cut off")
        return self._output.finish()


def body_decoder(content_encoding: str, bytes_max: int) -> Decoder:
    """A decoder for a Content-Encoding header ("" where there is none). Raises BadBody for one that is not known."""
    encoding = content_encoding.strip().lower().removeprefix("x-")
    if encoding in ("", "identity"):
        return PlainDecoder(bytes_max)
    if encoding in ENCODINGS:
        return ZlibDecoder(encoding, bytes_max)
    raise BadBody(f"its Content-Encoding is {content_encoding[:40]!r}, of which only gzip and deflate are read")
