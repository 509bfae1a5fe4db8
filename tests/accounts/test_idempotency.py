"""Keys of mutations: one effect, one outcome, whatever is sent how often."""

import pytest

from app.db import Database
from app.errors import ErrorCode, Refusal, Refused
from app.idempotency import KeyedOutcome, account_owner, admin_owner, hash_input, lock_admin_keys, run_once
from tests.accounts.people import elsewhere, unique, value, wait_for_a_waiter

KEYS = "SELECT count(*) FROM idempotency_keys WHERE owner = $1"
REFUSAL = Refusal(
    ErrorCode.POSITION_LIMIT,
    "Too much.",
    ("input", "shares"),
    limit="12.5",
    remaining="0",
    resets_at="2025-01-01",
)


class Failing:
    """An effect that writes a row, then fails; counts how often it was tried."""

    def __init__(self, database: Database, owner: str) -> None:
        self._database = database
        self._owner = owner
        self.calls = 0

    async def run(self, failure: Exception) -> KeyedOutcome:
        async with self._database.transaction() as unit:

            async def decide() -> int:
                self.calls += 1
                await unit.connection.execute(
                    "INSERT INTO audit_log VALUES (-1, now(), 'x', 'x', 'x', NULL, NULL, NULL, repeat('0', 64),"
                    " repeat('0', 64))"
                )
                raise failure

            return await run_once(
                unit.connection, owner=self._owner, mutation="test", key="k",
                input_hash=hash_input({"amount": 1}), decide=decide,
            )  # fmt: skip


@pytest.fixture
def owner() -> str:
    return account_owner(abs(hash(unique("owner"))))


async def outcome_of(database: Database, owner: str, *, amount: int = 1, made: int = 7, key: str = "k") -> KeyedOutcome:
    async def decide() -> int:
        return made

    async with database.transaction() as unit:
        return await run_once(
            unit.connection,
            owner=owner,
            mutation="test",
            key=key,
            input_hash=hash_input({"amount": amount}),
            decide=decide,
        )


async def test_the_same_key_and_input_answer_the_first_outcome(database: Database, owner: str) -> None:
    assert await outcome_of(database, owner, made=7) == KeyedOutcome(7, None, repeated=False)
    assert await outcome_of(database, owner, made=8) == KeyedOutcome(7, None, repeated=True)
    assert await outcome_of(database, owner, made=9, key="other") == KeyedOutcome(9, None, repeated=False)
    assert await value(database, KEYS, owner) == 2


async def test_the_same_key_with_another_input_is_refused(database: Database, owner: str) -> None:
    await outcome_of(database, owner)
    with pytest.raises(Refused) as caught:
        await outcome_of(database, owner, amount=2)
    assert caught.value.refusal.code is ErrorCode.IDEMPOTENCY_KEY_REUSED
    assert caught.value.refusal.field == ("input", "idempotencyKey")
    assert await value(database, KEYS, owner) == 1


async def test_keys_belong_to_their_owner_and_mutation(database: Database, owner: str) -> None:
    await outcome_of(database, owner, made=1)
    assert await outcome_of(database, admin_owner(owner), made=2) == KeyedOutcome(2, None, repeated=False)
    async with database.transaction() as unit:

        async def decide() -> int:
            return 3

        other = await run_once(
            unit.connection, owner=owner, mutation="another", key="k", input_hash=b"x" * 32, decide=decide
        )
    assert other == KeyedOutcome(3, None, repeated=False)


async def test_a_refusal_is_stored_whole_and_what_was_written_before_it_is_undone(
    database: Database, owner: str
) -> None:
    failing = Failing(database, owner)
    first = await failing.run(Refused(REFUSAL))
    assert first == KeyedOutcome(None, REFUSAL, repeated=False)
    assert await failing.run(Refused(REFUSAL)) == KeyedOutcome(None, REFUSAL, repeated=True)
    assert failing.calls == 1
    assert await value(database, "SELECT count(*) FROM audit_log WHERE id < 0") == 0


async def test_an_unexpected_failure_binds_nothing(database: Database, owner: str) -> None:
    failing = Failing(database, owner)
    with pytest.raises(ZeroDivisionError):
        await failing.run(ZeroDivisionError())
    assert await value(database, KEYS, owner) == 0
    assert await value(database, "SELECT count(*) FROM audit_log WHERE id < 0") == 0
    assert (await outcome_of(database, owner)).repeated is False


async def test_an_admins_keys_are_serialised_by_name(database: Database, owner: str) -> None:
    async def locked(name: str) -> str:
        async with database.transaction() as unit:
            await lock_admin_keys(unit.connection, owner=name)
            return name

    async with database.transaction() as unit:
        await lock_admin_keys(unit.connection, owner=owner)
        same = elsewhere(locked(owner))
        await wait_for_a_waiter(database, "hashtext($2)")
        assert await elsewhere(locked(owner + "-other")) == owner + "-other"
        assert not same.done()
    assert await same == owner
