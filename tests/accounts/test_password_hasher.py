"""The hasher: what it verifies, and that it neither blocks nor queues without end."""

import asyncio
import threading

import bcrypt
import pytest

from app.accounts.passwords import Argon2Parameters, PasswordHasher
from app.errors import ErrorCode, Refused
from tests.accounts.people import CHEAP


async def test_a_hash_verifies_its_password_and_no_other(hasher: PasswordHasher) -> None:
    stored = await hasher.hash("correct horse")
    assert stored.startswith("$argon2id$v=19$m=8,t=1,p=1$")
    assert await hasher.verify("correct horse", stored) is True
    assert await hasher.verify("correct horsf", stored) is False
    assert await hasher.hash("correct horse") != stored


def test_the_default_cost_is_what_the_docstring_promises() -> None:
    default = PasswordHasher(concurrency=1)
    try:
        assert default._nobodys_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    finally:
        default.close()


@pytest.mark.parametrize("prefix", [b"$2b$", b"$2a$", b"$2y$"])
async def test_bcrypt_hashes_of_other_tools_verify(hasher: PasswordHasher, prefix: bytes) -> None:
    stored = bcrypt.hashpw(b"correct horse", bcrypt.gensalt(4)).replace(b"$2b$", prefix).decode()
    assert await hasher.verify("correct horse", stored) is True
    assert await hasher.verify("wrong horse", stored) is False


async def test_bcrypt_sees_72_bytes(hasher: PasswordHasher) -> None:
    stored = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()
    assert await hasher.verify("x" * 500, stored) is True
    assert await hasher.verify("x" * 71, stored) is False


@pytest.mark.parametrize(
    "stored",
    ["", "plain", "$2b$04$short", "$2b$99$" + "x" * 53, "$argon2id$v=19$nonsense", "$argon2id$", "\u00fc", "$1$md5"],
)
async def test_what_is_no_hash_matches_nothing(hasher: PasswordHasher, stored: str) -> None:
    assert await hasher.verify("plain", stored) is False
    assert await hasher.verify("", stored) is False


@pytest.mark.parametrize("password", ["", "\ud800", "a\x00b", "x" * 100_000])
async def test_odd_passwords_are_wrong_and_not_a_failure(hasher: PasswordHasher, password: str) -> None:
    for stored in (await hasher.hash("correct horse"), bcrypt.hashpw(b"correct", bcrypt.gensalt(4)).decode(), None):
        assert await hasher.verify(password, stored) is False


async def test_parameters_that_changed_ask_for_a_new_hash(hasher: PasswordHasher) -> None:
    other = PasswordHasher(concurrency=1, parameters=Argon2Parameters(time_cost=2, memory_kib=8, lanes=1))
    try:
        assert hasher.needs_rehash(await other.hash("x")) is True
        assert other.needs_rehash(await other.hash("x")) is False
        assert hasher.needs_rehash(bcrypt.hashpw(b"x", bcrypt.gensalt(4)).decode()) is True
    finally:
        other.close()


async def test_an_unknown_name_costs_one_verification_with_the_same_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = PasswordHasher(concurrency=1, parameters=CHEAP)
    work: list[str] = []
    real = counted._matches

    def counting(password: str, stored: str) -> bool:
        work.append(stored.rsplit("$", 2)[0])
        return real(password, stored)

    monkeypatch.setattr(counted, "_matches", counting)
    try:
        known = await counted.hash("correct horse")
        assert await counted.verify("wrong", known) is False
        assert await counted.verify("wrong", None) is False
        assert work == ["$argon2id$v=19$m=8,t=1,p=1"] * 2
        assert await counted.verify("a password that nobody has", None) is False
    finally:
        counted.close()


async def test_hashing_is_bounded_and_refuses_beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    bounded = PasswordHasher(concurrency=1, parameters=CHEAP, waiting_max=3)
    gate = threading.Event()
    threads: set[str] = set()

    def held(password: str, stored: str) -> bool:
        threads.add(threading.current_thread().name)
        return gate.wait(10)

    monkeypatch.setattr(bounded, "_matches", held)
    try:
        waiting = [asyncio.create_task(bounded.verify("x", "y")) for _ in range(3)]
        await asyncio.sleep(0)  # lets the tasks begin; their threads wait at the gate
        with pytest.raises(Refused) as caught:
            await bounded.verify("x", "y")
        assert caught.value.refusal.code is ErrorCode.OVERLOADED
        # A request that gives up leaves its hash to be computed: its place is not free yet.
        waiting[0].cancel()
        await asyncio.wait(waiting[:1])
        with pytest.raises(Refused):
            await bounded.verify("x", "y")
        gate.set()
        assert await asyncio.gather(*waiting[1:]) == [True, True]
        assert await bounded.verify("x", "y") is True
        assert len(threads) == 1
        assert threading.current_thread().name not in threads
    finally:
        gate.set()
        bounded.close()
