"""The audit log: gapless, chained by hashes that anybody can recompute from the formula, never changed."""

import asyncio
import hashlib
import json
from datetime import UTC

import asyncpg
import pytest

from app.admin.audit_log import AuditEntry, append, audit_entries_by_id, audit_log_page, checked_reason
from app.db import Database
from app.errors import ErrorCode, Refused
from app.paging import Window
from tests.accounts.people import elsewhere, fetch, unique, wait_for_a_waiter


async def appended(database: Database, action: str = "test", **values: str) -> AuditEntry:
    async with database.transaction() as unit:
        return await append(
            unit=unit, actor=values.get("actor", "admin"), action=action, target="Test:1",
            reason=values.get("reason"), before=None, after={"value": values.get("after", "1")},
        )  # fmt: skip


def recomputed(row: asyncpg.Record) -> str:
    """The hash by the formula of the module's docstring, assembled by hand."""

    def text(content: str | None) -> str:
        return "null" if content is None else json.dumps(content, ensure_ascii=False)

    at = row["at"].astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    canonical = (
        f'{{"action":{text(row["action"])},"actor":{text(row["actor"])},"after":{text(row["after"])},"at":"{at}",'
        f'"before":{text(row["before"])},"id":{row["id"]},"previous_hash":"{row["previous_hash"]}",'
        f'"reason":{text(row["reason"])},"target":{text(row["target"])}}}'
    )
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()


async def assert_chain(database: Database) -> int:
    rows = await fetch(database, "SELECT * FROM audit_log ORDER BY id")
    assert [row["id"] for row in rows] == list(range(1, len(rows) + 1))
    previous = "0" * 64
    for row in rows:
        assert row["previous_hash"] == previous
        assert row["hash"] == recomputed(row)
        previous = row["hash"]
    assert [row["at"] for row in rows] == sorted(row["at"] for row in rows)
    return len(rows)


async def test_entries_are_chained_by_the_documented_formula(database: Database) -> None:
    await appended(
        database, actor="Zo\u00eb", reason='line\nquote " back\\slash \u2028 \x7f tab\t', after="\u20ac \U0001f327"
    )
    await appended(database)
    assert await assert_chain(database) >= 2


async def test_appends_at_once_leave_no_gap(database: Database) -> None:
    before = await assert_chain(database)
    entries = await asyncio.gather(*(appended(database) for _ in range(20)))
    assert sorted(entry.id for entry in entries) == list(range(before + 1, before + 21))
    assert await assert_chain(database) == before + 20


async def test_a_rollback_leaves_no_gap(database: Database) -> None:
    before = await assert_chain(database)

    async def give_up() -> None:
        async with database.transaction() as unit:
            await append(unit=unit, actor="a", action="b", target="Test:1", reason=None, before=None, after=None)
            raise RuntimeError("given up")

    with pytest.raises(RuntimeError, match="given up"):
        await give_up()
    await appended(database)
    assert await assert_chain(database) == before + 1


async def test_an_append_waits_for_the_one_before_it(database: Database) -> None:
    async with database.transaction() as unit:
        first = await append(unit=unit, actor="a", action="b", target="Test:1", reason=None, before=None, after=None)
        following = elsewhere(appended(database))
        await wait_for_a_waiter(database, "pg_advisory_xact_lock($1)")
        assert not following.done()
    second = await following
    assert (second.id, second.previous_hash) == (first.id + 1, first.hash)


@pytest.mark.parametrize("change", ["UPDATE audit_log SET reason = 'x'", "DELETE FROM audit_log", "TRUNCATE audit_log"])
async def test_the_database_refuses_changes(database: Database, change: str) -> None:
    await appended(database)
    before = await assert_chain(database)
    async with database.acquire() as connection:
        with pytest.raises(asyncpg.RestrictViolationError, match="rows are facts"):
            await connection.execute(change)
    assert await assert_chain(database) == before


async def test_the_log_is_read_newest_first(database: Database) -> None:
    entries = [await appended(database, action=unique("action")) for _ in range(3)]
    newest: Window[int] = Window(limit=2)
    async with database.acquire() as connection:
        page = await audit_log_page(connection=connection, window=newest)
        assert page.rows == [entries[2], entries[1]]
        assert page.has_next is True
        older = await audit_log_page(connection=connection, window=Window(limit=1, after=entries[1].id))
        assert older.rows == [entries[0]]
        by_id = await audit_entries_by_id(connection=connection, ids=[entries[0].id, 10**15])
    assert by_id == {entries[0].id: entries[0]}
    assert entries[0].after == '{"value":"1"}'
    assert entries[0].before is None


@pytest.mark.parametrize("reason", ["", "  ", "x" * 501, "a\x00b"])
def test_a_reason_is_required_and_bounded(reason: str) -> None:
    with pytest.raises(Refused) as caught:
        checked_reason(reason)
    assert caught.value.refusal.code is ErrorCode.INVALID_INPUT
    assert caught.value.refusal.field == ("input", "reason")
    assert checked_reason(" x" * 249) == "x" + " x" * 248
