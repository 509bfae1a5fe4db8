"""Which credentials have ended, told by one statement for all that have open connections."""

from datetime import timedelta

from app.accounts.principals import Credential
from app.accounts.session_watch import ended_credentials
from app.accounts.sessions import open_session
from app.db import Database


async def test_revoked_expired_and_missing_credentials_have_ended_and_no_others(database: Database) -> None:
    async with database.transaction() as unit:
        connection = unit.connection
        names = ("live", "revoked", "expired")
        sessions = {
            name: Credential(
                "session", (await open_session(connection, lifetime=timedelta(hours=1), admin_name=name)).id
            )
            for name in names
        }
        await connection.execute(
            "UPDATE sessions SET revoked_at = clock_timestamp() WHERE id = $1", sessions["revoked"].id
        )
        await connection.execute(
            "UPDATE sessions SET created_at = created_at - interval '2 hours',"
            " expires_at = expires_at - interval '2 hours' WHERE id = $1",
            sessions["expired"].id,
        )
        account_id = await connection.fetchval(
            "INSERT INTO accounts (email, password_hash, created_at)"
            " VALUES ('watched@example.com', 'x', clock_timestamp()) RETURNING id"
        )
        keys = {
            name: Credential(
                "api_key",
                await connection.fetchval(
                    "INSERT INTO api_keys (account_id, name, prefix, token_hash, scopes, created_at, revoked_at)"
                    " VALUES ($1, $2::text, 'mgk_', sha256($2::bytea), '{READ}', clock_timestamp(), $3) RETURNING id",
                    account_id, name, revoked_at,
                ),
            )
            for name, revoked_at in (
                ("a live key", None), ("a revoked key", await connection.fetchval("SELECT clock_timestamp()"))
            )
        }  # fmt: skip
        missing = [Credential("session", 2**62), Credential("api_key", 2**62)]

        ended = await ended_credentials(
            connection=connection, credentials=[*sessions.values(), *keys.values(), *missing]
        )

        assert set(ended) == {sessions["revoked"], sessions["expired"], keys["a revoked key"], *missing}
        assert await ended_credentials(connection=connection, credentials=[]) == []
