"""Tokens become principals: in one statement for all who ask together, by the database's clock, never from memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import pytest
from asyncpg.connection import LoggedQuery

from app.accounts import authentication
from app.accounts.authentication import Authenticator
from app.accounts.principals import AdminPrincipal, Anonymous, Credential, Scope
from app.accounts.sessions import open_session
from app.accounts.tokens import TokenKind, new_token
from app.db import Connection, Database
from app.errors import ErrorCode, Refused, Unauthenticated
from tests.accounts.people import fetch, new_account, new_admin, new_key, new_session_token, value


class CountingDatabase(Database):
    """Counts the statements that run on its connections, and fails on demand."""

    def __init__(self, database: Database) -> None:
        super().__init__(database.pool)
        self.statements: list[str] = []
        self.failing = False
        self.gate: asyncio.Event | None = None

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        if self.gate is not None:
            await self.gate.wait()
        if self.failing:
            raise ConnectionRefusedError("the database is away")
        async with super().acquire() as connection:
            with connection.query_logger(self._note):
                yield connection

    def _note(self, record: LoggedQuery) -> None:
        if "api_keys" in record.query:  # the driver's own questions about types are not ours
            self.statements.append(record.query)


@pytest.fixture
def counting(database: Database) -> CountingDatabase:
    return CountingDatabase(database)


def stranger() -> str:
    return new_token(TokenKind.SESSION).text


async def test_without_a_token_anybody_is_anonymous(counting: CountingDatabase) -> None:
    assert await Authenticator(counting).principal(None) == Anonymous()
    assert counting.statements == []


async def test_fifty_tokens_asked_together_take_one_statement(database: Database, counting: CountingDatabase) -> None:
    accounts = [await new_account(database) for _ in range(20)]
    keys = [await new_key(database, account.account_id, Scope.READ) for account in accounts]
    tokens = [account.session.token for account in accounts] + [token for _, token in keys] + [stranger()] * 10
    async with database.acquire() as connection:
        await connection.execute(
            "UPDATE api_keys SET last_used_at = now() WHERE id = ANY($1)", [key.credential.id for key, _ in keys]
        )
    answers = await asyncio.gather(*map(Authenticator(counting).principal, tokens), return_exceptions=True)
    assert answers[:40] == [account.principal for account in accounts] + [key for key, _ in keys]
    assert [type(answer) for answer in answers[40:]] == [Unauthenticated] * 10
    assert len(counting.statements) == 1


async def test_those_who_come_while_a_statement_waits_share_the_next(
    database: Database, counting: CountingDatabase
) -> None:
    account = await new_account(database)
    counting.gate = asyncio.Event()
    authenticator = Authenticator(counting)
    asked = []
    for _ in range(30):
        asked.append(asyncio.create_task(authenticator.principal(account.session.token)))
        await asyncio.sleep(0)  # a turn of the loop for each
    counting.gate.set()
    assert await asyncio.gather(*asked) == [account.principal] * 30
    assert len(counting.statements) == 1


async def test_a_batch_is_bounded(
    database: Database, counting: CountingDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication, "BATCH_MAX", 4)
    accounts = [await new_account(database) for _ in range(10)]
    authenticator = Authenticator(counting)
    answers = await asyncio.gather(*(authenticator.principal(account.session.token) for account in accounts))
    assert answers == [account.principal for account in accounts]
    assert len(counting.statements) == 3


async def test_what_waits_is_bounded(
    database: Database, counting: CountingDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication, "WAITING_MAX", 2)
    account = await new_account(database)
    authenticator = Authenticator(counting)
    answers = await asyncio.gather(
        *(authenticator.principal(account.session.token) for _ in range(3)), return_exceptions=True
    )
    assert answers[:2] == [account.principal] * 2
    assert isinstance(answers[2], Refused)
    assert answers[2].refusal.code is ErrorCode.OVERLOADED
    assert await authenticator.principal(account.session.token) == account.principal


@pytest.mark.parametrize("token", ["", "nonsense", "mgs_short", "mgs_" + "x" * 10_000, "\u00e9" * 47, "\x00" * 47])
async def test_what_never_was_a_token_is_refused_without_a_look(counting: CountingDatabase, token: str) -> None:
    with pytest.raises(Unauthenticated):
        await Authenticator(counting).principal(token)
    assert counting.statements == []


async def test_unknown_expired_and_revoked_read_alike(database: Database) -> None:
    expired, revoked = await new_account(database), await new_account(database)
    _, revoked_key = await new_key(database, revoked.account_id, Scope.READ)
    async with database.acquire() as connection:
        await connection.execute("UPDATE sessions SET expires_at = clock_timestamp() WHERE id = $1", expired.session.id)
        await connection.execute("UPDATE sessions SET revoked_at = now() WHERE id = $1", revoked.session.id)
        await connection.execute("UPDATE api_keys SET revoked_at = now() WHERE account_id = $1", revoked.account_id)
    authenticator = Authenticator(database)
    messages = set()
    for token in (stranger(), expired.session.token, revoked.session.token, revoked_key):
        with pytest.raises(Unauthenticated) as caught:
            await authenticator.principal(token)
        messages.add(str(caught.value))
    assert len(messages) == 1


async def test_what_is_revoked_is_refused_at_the_next_request(database: Database) -> None:
    account = await new_account(database)
    key, key_token = await new_key(database, account.account_id, Scope.READ, Scope.TRADE)
    authenticator = Authenticator(database)
    assert await authenticator.principal(account.session.token) == account.principal
    assert await authenticator.principal(key_token) == key
    async with database.acquire() as connection:
        await connection.execute("UPDATE sessions SET revoked_at = now() WHERE id = $1", account.session.id)
        await connection.execute("UPDATE api_keys SET revoked_at = now() WHERE id = $1", key.credential.id)
    for token in (account.session.token, key_token):
        with pytest.raises(Unauthenticated):
            await authenticator.principal(token)


async def test_expiry_goes_by_the_databases_clock(database: Database) -> None:
    account = await new_account(database)
    async with database.acquire() as connection:
        await connection.execute(
            "UPDATE sessions SET expires_at = clock_timestamp() + interval '80 ms' WHERE id = $1", account.session.id
        )
    authenticator = Authenticator(database)
    expired = "SELECT expires_at <= clock_timestamp() FROM sessions WHERE id = $1"
    while not await value(database, expired, account.session.id):
        pass
    with pytest.raises(Unauthenticated):
        await authenticator.principal(account.session.token)


async def test_a_key_has_its_scopes_and_an_admin_a_name(database: Database) -> None:
    account, admin = await new_account(database), await new_admin(database, name="grace")
    key, token = await new_key(database, account.account_id, Scope.READ)
    found = await Authenticator(database).principal(token)
    assert found == key
    assert key.credential == Credential("api_key", key.credential.id)
    assert key.scopes == {Scope.READ}
    assert admin.name == "grace"


async def test_a_keys_last_use_is_noted_at_most_once_a_minute(database: Database, counting: CountingDatabase) -> None:
    account = await new_account(database)
    key, token = await new_key(database, account.account_id, Scope.READ)
    noted = "SELECT last_used_at FROM api_keys WHERE id = $1"
    authenticator = Authenticator(counting)
    await authenticator.principal(token)
    await authenticator.close()
    first = await value(database, noted, key.credential.id)
    assert isinstance(first, datetime)
    assert len(counting.statements) == 2
    await authenticator.principal(token)
    await authenticator.close()
    assert await value(database, noted, key.credential.id) == first
    assert len(counting.statements) == 3
    an_age_ago = "created_at = now() - interval '2 min', last_used_at = now() - interval '61 s'"
    await fetch(database, f"UPDATE api_keys SET {an_age_ago} WHERE id = $1", key.credential.id)
    await authenticator.principal(token)
    await authenticator.close()
    second = await value(database, noted, key.credential.id)
    assert isinstance(second, datetime)
    assert second > first


async def test_noting_the_use_waits_for_nobody(database: Database) -> None:
    account = await new_account(database)
    key, token = await new_key(database, account.account_id, Scope.READ)
    authenticator = Authenticator(database)
    async with database.transaction() as unit:
        await unit.connection.execute("SELECT 1 FROM api_keys WHERE id = $1 FOR UPDATE", key.credential.id)
        assert await authenticator.principal(token) == key
        await authenticator.close()
    assert await value(database, "SELECT last_used_at FROM api_keys WHERE id = $1", key.credential.id) is None


async def test_a_request_that_gives_up_leaves_the_others_alone(database: Database, counting: CountingDatabase) -> None:
    account = await new_account(database)
    counting.gate = asyncio.Event()
    authenticator = Authenticator(counting)
    asked = [asyncio.create_task(authenticator.principal(account.session.token)) for _ in range(3)]
    await asyncio.sleep(0)
    asked[0].cancel()
    counting.gate.set()
    assert await asyncio.gather(*asked[1:]) == [account.principal] * 2
    assert asked[0].cancelled()


async def test_without_a_database_everybody_is_told_and_the_next_tries_again(
    database: Database, counting: CountingDatabase
) -> None:
    account = await new_account(database)
    authenticator = Authenticator(counting)
    counting.failing = True
    answers = await asyncio.gather(
        *(authenticator.principal(token) for token in (account.session.token, stranger())), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [ConnectionRefusedError] * 2
    counting.failing = False
    token = await new_session_token(database, account.account_id)
    assert await authenticator.principal(account.session.token) == account.principal
    assert (await authenticator.principal(token)) != account.principal
    assert authenticator._waiting_count == 0


async def test_a_session_of_somebody_who_is_no_admin_any_more_is_refused(database: Database) -> None:
    async with database.acquire() as connection:
        session = await open_session(connection, admin_name="ada", lifetime=timedelta(hours=1))
    allowed = Authenticator(database, admins={"ada", "grace"})
    assert await allowed.principal(session.token) == AdminPrincipal("ada", session.id)
    with pytest.raises(Unauthenticated):
        await Authenticator(database, admins={"grace"}).principal(session.token)
