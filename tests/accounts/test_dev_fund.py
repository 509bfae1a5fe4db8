"""Test funds: exact to the base unit, once for each key, in development only."""

import asyncio

import pytest

from app.accounts import dev_fund as module
from app.accounts.dev_fund import dev_fund
from app.accounts.principals import AccountPrincipal, Scope
from app.accounts.sessions import log_out
from app.db import Database
from app.errors import ErrorCode, Forbidden, Refused, Unauthenticated
from app.idempotency import KeyedOutcome
from app.ledger.currencies import Currency
from tests.accounts.people import fetch, new_account, new_key, set_frozen, unique, value

BALANCES = "SELECT kind || ' ' || currency AS name, balance, version FROM ledger_accounts WHERE account_id = $1"
KEYS = "SELECT count(*) FROM idempotency_keys WHERE owner = 'account:' || $1::bigint"


async def fund(
    database: Database,
    principal: AccountPrincipal,
    amount: str = "1",
    *,
    currency: Currency = Currency.USDC,
    key: str | None = None,
    development: bool = True,
) -> KeyedOutcome:
    async with database.transaction() as unit:
        return await dev_fund(
            unit=unit, principal=principal, currency=currency, amount=amount,
            idempotency_key=key or unique("key"), development=development,
        )  # fmt: skip


async def balances(database: Database, account_id: int) -> dict[str, tuple[int, int]]:
    """Balance and version by kind and currency, of what ever moved."""
    rows = await fetch(database, BALANCES + " AND version > 0", account_id)
    return {row["name"]: (row["balance"], row["version"]) for row in rows}


async def test_funds_move_from_development_to_available_and_nowhere_else(database: Database) -> None:
    account = await new_account(database)
    source = "SELECT balance FROM ledger_accounts WHERE kind = 'DEVELOPMENT' AND currency = 'USDT'"
    before = await value(database, source)
    outcome = await fund(database, account.principal, "1234567.891", currency=Currency.USDT)
    assert (outcome.refusal, outcome.repeated) == (None, False)
    assert await balances(database, account.account_id) == {"AVAILABLE USDT": (1_234_567_891_000, 1)}
    assert isinstance(before, int)
    assert await value(database, source) == before - 1_234_567_891_000
    [transfer] = await fetch(database, "SELECT * FROM transfers WHERE id = $1", outcome.id)
    assert (transfer["reason"], transfer["ref"], transfer["entry_count"]) == (
        "DEV_FUND", f"Account:{account.account_id}", 2,
    )  # fmt: skip
    entries = await fetch(
        database,
        "SELECT account_id, amount, balance_after FROM entries WHERE transfer_id = $1 ORDER BY amount",
        outcome.id,
    )
    assert [tuple(row) for row in entries] == [
        (None, -1_234_567_891_000, before - 1_234_567_891_000),
        (account.account_id, 1_234_567_891_000, 1_234_567_891_000),
    ]


@pytest.mark.parametrize(("amount", "units"), [("0.000001", 1), ("1000000000", 10**15), ("1.500000", 1_500_000)])
async def test_the_ends_of_the_range_are_given(database: Database, amount: str, units: int) -> None:
    account = await new_account(database)
    await fund(database, account.principal, amount)
    assert await balances(database, account.account_id) == {"AVAILABLE USDC": (units, 1)}


@pytest.mark.parametrize(
    "amount",
    [
        "0",
        "-1",
        "1000000000.000001",
        "0.0000001",
        "NaN",
        "1e3",
        "\uff11",
        "",
        " 1",
        "1_000",
        "+1",
        "-0",
        ".5",
        "9" * 10_000,
    ],
)
async def test_other_amounts_are_refused_with_the_value_and_bind_nothing(database: Database, amount: str) -> None:
    account = await new_account(database)
    with pytest.raises(Refused) as caught:
        await fund(database, account.principal, amount)
    assert caught.value.refusal.code is ErrorCode.INVALID_INPUT
    assert caught.value.refusal.field == ("input", "amount")
    assert f"got '{amount[:40]}" in caught.value.refusal.message
    assert await balances(database, account.account_id) == {}
    assert await value(database, KEYS, account.account_id) == 0


async def test_production_has_no_test_funds(database: Database) -> None:
    account = await new_account(database)
    with pytest.raises(Forbidden):
        await fund(database, account.principal, development=False)
    assert await balances(database, account.account_id) == {}


async def test_the_same_key_twice_has_one_effect_and_the_same_answer(database: Database) -> None:
    account = await new_account(database)
    first = await fund(database, account.principal, "5", key="k")
    second = await fund(database, account.principal, "5.000000", key="k")
    assert second == KeyedOutcome(first.id, None, repeated=True)
    assert await balances(database, account.account_id) == {"AVAILABLE USDC": (5_000_000, 1)}


@pytest.mark.parametrize(("amount", "currency"), [("6", Currency.USDC), ("5", Currency.USDT)])
async def test_a_key_with_another_input_is_refused(database: Database, amount: str, currency: Currency) -> None:
    account = await new_account(database)
    await fund(database, account.principal, "5", key="k")
    with pytest.raises(Refused) as caught:
        await fund(database, account.principal, amount, currency=currency, key="k")
    assert caught.value.refusal.code is ErrorCode.IDEMPOTENCY_KEY_REUSED
    assert await balances(database, account.account_id) == {"AVAILABLE USDC": (5_000_000, 1)}


async def test_a_key_is_the_accounts_own(database: Database) -> None:
    first, second = await new_account(database), await new_account(database)
    await fund(database, first.principal, "5", key="k")
    await fund(database, second.principal, "6", key="k")
    assert await balances(database, first.account_id) == {"AVAILABLE USDC": (5_000_000, 1)}
    assert await balances(database, second.account_id) == {"AVAILABLE USDC": (6_000_000, 1)}


async def test_twenty_at_once_with_one_key_have_one_effect_and_one_answer(database: Database) -> None:
    account = await new_account(database)
    ends = await asyncio.gather(*(fund(database, account.principal, "7", key="k") for _ in range(20)))
    assert len({end.id for end in ends}) == 1
    assert sorted(end.repeated for end in ends) == [False] + [True] * 19
    assert await balances(database, account.account_id) == {"AVAILABLE USDC": (7_000_000, 1)}
    assert await value(database, KEYS, account.account_id) == 1


async def test_twenty_at_once_with_their_own_keys_all_count(database: Database) -> None:
    account = await new_account(database)
    await asyncio.gather(*(fund(database, account.principal, "0.5") for _ in range(20)))
    assert await balances(database, account.account_id) == {"AVAILABLE USDC": (10_000_000, 20)}


async def test_a_frozen_account_gets_nothing_and_its_key_remembers(database: Database) -> None:
    account = await new_account(database)
    await set_frozen(database, account.account_id, frozen=True)
    refused = await fund(database, account.principal, key="k")
    assert refused.refusal is not None
    assert refused.refusal.code is ErrorCode.ACCOUNT_FROZEN
    assert refused.id is None
    assert await balances(database, account.account_id) == {}
    await set_frozen(database, account.account_id, frozen=False)
    assert await fund(database, account.principal, key="k") == KeyedOutcome(None, refused.refusal, repeated=True)
    assert await balances(database, account.account_id) == {}
    assert (await fund(database, account.principal, key="k2")).refusal is None


async def test_a_credential_that_ended_meanwhile_moves_nothing(database: Database) -> None:
    account = await new_account(database)
    key, _ = await new_key(database, account.account_id, Scope.TRADE)
    await fund(database, key, "1")
    async with database.transaction() as unit:
        await log_out(unit=unit, principal=account.principal)
        await unit.connection.execute("UPDATE api_keys SET revoked_at = now() WHERE id = $1", key.credential.id)
    for principal in (account.principal, key):
        with pytest.raises(Unauthenticated):
            await fund(database, principal, key="k")
    assert await balances(database, account.account_id) == {"AVAILABLE USDC": (1_000_000, 1)}
    assert await value(database, KEYS, account.account_id) == 1


async def test_somebody_elses_session_is_no_credential(database: Database) -> None:
    account, other = await new_account(database), await new_account(database)
    forged = AccountPrincipal(account.account_id, other.principal.credential, other.principal.scopes)
    with pytest.raises(Unauthenticated):
        await fund(database, forged)
    assert await balances(database, account.account_id) == {}


async def test_what_a_balance_cannot_hold_is_refused_clearly(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = await new_account(database)
    await fund(database, account.principal, "1")
    given = await value(
        database, "SELECT -balance FROM ledger_accounts WHERE kind = 'DEVELOPMENT' AND currency = 'USDC'"
    )
    assert isinstance(given, int)
    monkeypatch.setattr(module, "MONEY_BALANCE_MAX", given + 10_000_000)
    outcome = await fund(database, account.principal, "10.000001", key="k")
    assert outcome.refusal is not None
    assert outcome.refusal.code is ErrorCode.INVALID_INPUT
    assert outcome.refusal.field == ("input", "amount")
    assert "'10.000001'" in outcome.refusal.message
    assert "at most 10 USDC more" in outcome.refusal.message
    assert await balances(database, account.account_id) == {"AVAILABLE USDC": (1_000_000, 1)}
    assert (await fund(database, account.principal, "10")).refusal is None
    assert await balances(database, account.account_id) == {"AVAILABLE USDC": (11_000_000, 2)}
