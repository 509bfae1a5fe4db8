"""Keys that make a mutation happen once: the first outcome is stored with its effect, and answered again.

For every keyed mutation but orderPlace, whose orders carry their own key. Whose key it is, is a text: "account:<id>" or
"admin:<name>". Nothing here knows what the mutations do.
"""

import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from app.db import Connection
from app.errors import ErrorCode, Refusal, Refused, invalid, quoted, refuse
from app.text import showable

ADMIN_KEYS_LOCK: Final = 0x61646D6B
"""First half of the advisory locks, one for each admin, that stand in for the account rows that admins do not have."""
_KEY: Final = re.compile(r"[ -~]{1,64}")
_FIELD: Final = ("input", "idempotencyKey")


@dataclass(frozen=True, slots=True)
class KeyedOutcome:
    """How a keyed mutation ended, the first time and every time after.

    Exactly one of `id` (of the row that it made) and `refusal` is set. A refusal comes as a value, not as an
    exception: the transaction that stores it must commit.
    """

    id: int | None
    refusal: Refusal | None
    repeated: bool


def account_owner(account_id: int) -> str:
    """The owner text of an account's keys."""
    return f"account:{account_id}"


def admin_owner(name: str) -> str:
    """The owner text of an admin's keys."""
    return f"admin:{name}"


def checked_key(key: str, *, field: tuple[str, ...] = _FIELD) -> str:
    """`key` if it is 1 to 64 printable ASCII characters; raises `Refused` (INVALID_INPUT) otherwise."""
    if _KEY.fullmatch(key) is None:
        raise invalid(
            f"{field[-1]} must be 1 to 64 printable ASCII characters; got {quoted(showable(key[:200]))}.", *field
        )
    return key


def hash_input(values: Mapping[str, object]) -> bytes:
    """SHA-256 over the canonical JSON of a parsed input: base units as integers, absent values as null."""
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).digest()


async def lock_admin_keys(connection: Connection, *, owner: str) -> None:
    """Serialise the keyed mutations of one admin until the transaction ends. First in the lock order, before assets."""
    await connection.execute("SELECT pg_advisory_xact_lock($1::int, hashtext($2))", ADMIN_KEYS_LOCK, owner)


async def run_once(
    connection: Connection,
    *,
    owner: str,
    mutation: str,
    key: str,
    input_hash: bytes,
    decide: Callable[[], Awaitable[int]],
) -> KeyedOutcome:
    """Answer the stored outcome of `key`, or run `decide` and store what comes of it.

    The caller holds the owner's lock (the account's row, or `lock_admin_keys`), under which no other transaction can
    use the key. `decide` answers the id of what it made, or raises `Refused`: then whatever it had written is undone
    and the refusal is stored. Raises `Refused` (IDEMPOTENCY_KEY_REUSED) when the key was used with another input;
    other exceptions of `decide` pass through and bind nothing.
    """
    row = await connection.fetchrow(
        "SELECT input_hash, outcome FROM idempotency_keys WHERE owner = $1 AND mutation = $2 AND key = $3",
        owner, mutation, key,
    )  # fmt: skip
    if row is not None:
        if bytes(row["input_hash"]) != input_hash:
            raise refuse(
                ErrorCode.IDEMPOTENCY_KEY_REUSED,
                f"idempotencyKey {quoted(key, 64)} was used for {mutation} with another input: "
                "send the same input again, or use a new key.",
                *_FIELD,
            )
        return _restore(orjson.loads(row["outcome"]))
    outcome = await _decide(connection, decide)
    stored = {"id": outcome.id} if outcome.refusal is None else {"refusal": outcome.refusal.to_json()}
    await connection.execute(
        "INSERT INTO idempotency_keys (owner, mutation, key, input_hash, outcome, created_at)"
        " VALUES ($1, $2, $3, $4, $5::jsonb, clock_timestamp())",
        owner, mutation, key, input_hash, orjson.dumps(stored).decode(),
    )  # fmt: skip
    return outcome


async def _decide(connection: Connection, decide: Callable[[], Awaitable[int]]) -> KeyedOutcome:
    try:
        async with connection.transaction():
            return KeyedOutcome(await decide(), None, repeated=False)
    except Refused as refused:
        return KeyedOutcome(None, refused.refusal, repeated=False)


def _restore(stored: dict[str, object]) -> KeyedOutcome:
    refusal = stored.get("refusal")
    if isinstance(refusal, dict):
        return KeyedOutcome(None, Refusal.from_json(refusal), repeated=True)
    made = stored["id"]
    if not isinstance(made, int):
        raise TypeError(f"a stored outcome names no id: {stored}")
    return KeyedOutcome(made, None, repeated=True)
