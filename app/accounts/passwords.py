"""Passwords: which are good enough, and hashing them off the event loop with bounded concurrency.

Argon2id with the parameters that OWASP's Password Storage Cheat Sheet asks for (19 MiB, 2 passes, 1 lane); bcrypt is
verified too, for admins whose hash comes from the environment. No password is stored, logged or quoted here.
"""

import asyncio
import re
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

import argon2
import bcrypt
from argon2.exceptions import InvalidHashError, VerificationError

from app.errors import ErrorCode, Refused, refuse

LENGTH_MIN: Final = 8
LENGTH_MAX: Final = 1_024
WAITING_MAX: Final = 256
"""Hashes that may be computed or wait at once: some seconds of work."""
_BCRYPT_BYTES_MAX: Final = 72
_BCRYPT_HASH: Final = re.compile(r"\$2[abxy]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}", re.ASCII)
_COMMON: Final = frozenset(
    """
    password password1 password12 password123 password1234 passw0rd p@ssw0rd p@ssword passwort motdepasse contraseña
    12345678 123456789 1234567890 0123456789 12341234 123123123 987654321 87654321 11223344 1q2w3e4r 1q2w3e4r5t
    1qaz2wsx qwertyui qwertyuiop qwerty12 qwerty123 qwerty1234 asdfghjk asdfghjkl zxcvbnm1 abcd1234 abcdefgh
    abc12345 iloveyou iloveyou1 sunshine princess football baseball superman trustno1 starwars whatever computer
    michelle jennifer welcome1 welcome123 letmein1 letmein123 changeme changeme123 administrator admin123 admin1234
    dragon123 monkey123 master123 shadow123 megatron megatron1 megatron123
    """.split()  # noqa: SIM905 - as words, so that the list reads and grows as one
)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Argon2Parameters:
    """Cost of an Argon2id hash. Raising it re-hashes each account's password at its next log-in."""

    time_cost: int = 2
    memory_kib: int = 19_456
    lanes: int = 1


class PasswordHasher:
    """Hashes and verifies in `concurrency` threads. At most `waiting_max` requests at once; close it when done."""

    def __init__(
        self,
        *,
        concurrency: int,
        parameters: Argon2Parameters | None = None,
        waiting_max: int = WAITING_MAX,
    ) -> None:
        chosen = parameters or Argon2Parameters()
        self._argon2 = argon2.PasswordHasher(
            time_cost=chosen.time_cost, memory_cost=chosen.memory_kib, parallelism=chosen.lanes
        )
        self._threads = ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix="password")
        self._slots = threading.BoundedSemaphore(waiting_max)
        self._nobodys_hash = self._argon2.hash("a password that nobody has")

    async def hash(self, password: str) -> str:
        """The Argon2id hash to store. Raises `Refused` (OVERLOADED) when too many wait."""
        return await self._in_thread(lambda: self._argon2.hash(password))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Whether `password` is the one that `stored` (Argon2id or bcrypt) was made of.

        With None for `stored` (nobody has that name) the answer is False and takes as long. A `stored` that is no
        such hash matches nothing. Raises `Refused` (OVERLOADED) when too many wait.
        """
        if stored is None:
            await self._in_thread(lambda: self._matches(password, self._nobodys_hash))
            return False
        return await self._in_thread(lambda: self._matches(password, stored))

    def needs_rehash(self, stored: str) -> bool:
        """Whether `stored` was made with other parameters than these."""
        try:
            return self._argon2.check_needs_rehash(stored)
        except InvalidHashError:
            return True

    def close(self) -> None:
        """Give up what has not begun and let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _matches(self, password: str, stored: str) -> bool:
        secret = password.encode("utf-8", "surrogatepass")
        if _BCRYPT_HASH.fullmatch(stored):
            # bcrypt never saw more than 72 bytes of any password.
            return bcrypt.checkpw(secret[:_BCRYPT_BYTES_MAX], stored.encode("ascii"))
        try:
            return self._argon2.verify(stored.encode("utf-8"), secret)
        except (VerificationError, InvalidHashError):
            return False

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        if not self._slots.acquire(blocking=False):
            raise refuse(
                ErrorCode.OVERLOADED,
                "Too many log-ins and sign-ups at once: try again in a few seconds.",
            )
        try:
            running = self._threads.submit(work)
        except BaseException:
            self._slots.release()
            raise
        # By the thread's end and not the caller's: a cancelled request's hash goes on being computed.
        running.add_done_callback(lambda _: self._slots.release())
        return await asyncio.wrap_future(running)


def normalised_password(password: str) -> str:
    """NFKC, so that the same keys on another keyboard give the same password. Raises `Refused` (INVALID_INPUT)."""
    try:
        password.encode()
    except UnicodeEncodeError:
        raise refuse(
            ErrorCode.INVALID_INPUT, "password holds half a surrogate pair: no keyboard types it.", "input", "password"
        ) from None
    return unicodedata.normalize("NFKC", password)


def checked_password(password: str, *, email: str) -> str:
    """The normalised password if it is good enough for the account of `email` (normalised).

    Raises `Refused`: WEAK_PASSWORD when it is short, long, very common, the address itself or one character repeated.
    The rules are those of NIST SP 800-63B: length and a list, no classes of characters.
    """
    if len(password) > LENGTH_MAX:
        raise _weak(f"password must have at most {LENGTH_MAX} characters; this one has {len(password)}.")
    normal = normalised_password(password)
    if len(normal) < LENGTH_MIN:
        raise _weak(f"password must have at least {LENGTH_MIN} characters; this one has {len(normal)}.")
    folded = normal.strip().lower()
    if folded in (email, email.partition("@")[0]):
        raise _weak("password must not be the e-mail address: choose another.")
    if folded in _COMMON or len(set(folded)) <= 1:
        raise _weak("password is among the first that anybody would guess: choose another, such as a few random words.")
    return normal


def _weak(message: str) -> Refused:
    return refuse(ErrorCode.WEAK_PASSWORD, message, "input", "password")
