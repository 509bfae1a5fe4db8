"""A self-signed TLS certificate for the tests' own servers, made anew each time: nothing secret is kept in the tree.

ECDSA on P-256 in plain integers (SEC 1, FIPS 186-4; DER by X.690): fit for tests, not for anything that matters.
"""

import base64
import hashlib
import secrets
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
_Point = tuple[int, int] | None


def make_server_context(folder: Path, host: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The context of a server that is `host`, and of a client that trusts it alone."""
    key, certificate = _self_signed(host)
    key_file, certificate_file = folder / f"{host}.key", folder / f"{host}.crt"
    key_file.write_text(_pem("EC PRIVATE KEY", key))
    certificate_file.write_text(_pem("CERTIFICATE", certificate))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate_file, key_file)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(certificate_file)
    return server, client


def _self_signed(host: str) -> tuple[bytes, bytes]:
    secret = secrets.randbelow(_N - 1) + 1
    point = _times(secret, _G)
    assert point is not None
    public = b"\x04" + point[0].to_bytes(32, "big") + point[1].to_bytes(32, "big")
    curve = bytes.fromhex("06082a8648ce3d030107")
    algorithm = _der(0x30, bytes.fromhex("06082a8648ce3d040302"))
    name = _der(0x30, _der(0x31, _der(0x30, bytes.fromhex("0603550403"), _der(0x0C, host.encode()))))
    at = datetime.now(UTC)
    times = ((at + timedelta(days=days)).strftime("%y%m%d%H%M%SZ").encode() for days in (-1, 2))
    names = _der(0x30, bytes.fromhex("0603551d11"), _der(0x04, _der(0x30, _der(0x82, host.encode()))))
    body = _der(
        0x30,
        _der(0xA0, _integer(2)),
        _integer(secrets.randbits(64)),
        algorithm,
        name,
        _der(0x30, *(_der(0x17, time) for time in times)),
        name,
        _der(0x30, _der(0x30, bytes.fromhex("06072a8648ce3d0201"), curve), _der(0x03, b"\0", public)),
        _der(0xA3, _der(0x30, names)),
    )
    certificate = _der(0x30, body, algorithm, _der(0x03, b"\0", _signature(secret, body)))
    key = _der(0x30, _integer(1), _der(0x04, secret.to_bytes(32, "big")), _der(0xA0, curve))
    return key, certificate


def _signature(secret: int, message: bytes) -> bytes:
    digest = int.from_bytes(hashlib.sha256(message).digest(), "big")
    once = secrets.randbelow(_N - 1) + 1
    point = _times(once, _G)
    assert point is not None
    r = point[0] % _N
    return _der(0x30, _integer(r), _integer(pow(once, -1, _N) * (digest + r * secret) % _N))


def _times(factor: int, point: _Point) -> _Point:
    total: _Point = None
    while factor:
        if factor & 1:
            total = _plus(total, point)
        point = _plus(point, point)
        factor >>= 1
    return total


def _plus(one: _Point, other: _Point) -> _Point:
    if one is None or other is None:
        return one or other
    if one[0] == other[0] and (one[1] + other[1]) % _P == 0:
        return None
    if one == other:
        slope = (3 * one[0] ** 2 - 3) * pow(2 * one[1], -1, _P) % _P
    else:
        slope = (other[1] - one[1]) * pow(other[0] - one[0], -1, _P) % _P
    x = (slope**2 - one[0] - other[0]) % _P
    return x, (slope * (one[0] - x) - one[1]) % _P


def _der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = len(body)
    length = bytes([size]) if size < 0x80 else bytes([0x82]) + size.to_bytes(2, "big")
    return bytes([tag]) + length + body


def _integer(value: int) -> bytes:
    return _der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _pem(kind: str, data: bytes) -> str:
    return f"-----BEGIN {kind}-----\n{base64.encodebytes(data).decode()}-----END {kind}-----\n"
