"""The database's own rules, read back from its catalog and tried one by one."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from tortoise.context import TortoiseContext
from tortoise.migrations.autodetector import MigrationAutodetector

from app.db import TORTOISE_ORM, Connection
from models import __all__ as model_names
from tests.ledger.conftest import Past
from tests.ledger.schema import (
    ALLOWED,
    CHECKS,
    FACTS,
    FOREIGN_KEYS,
    INDEXES,
    PARTITIONED,
    PARTITIONS,
    PRIMARY_KEYS,
    TRIGGERS,
    UNDELETABLE,
    UNIQUE,
    WITHOUT_MODEL,
    Check,
)

OURS = (
    "connamespace = 'public'::regnamespace AND conrelid <> 'tortoise_migrations'::regclass"
    " AND NOT (SELECT relispartition FROM pg_class WHERE oid = conrelid)"
)
"""Constraints of tables; every partition repeats those of its table."""
TABLES = "relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND relname <> 'tortoise_migrations'"
PARENTS = "relkind = 'p'"
PLATFORM = "id IN (SELECT id FROM ledger_accounts WHERE account_id IS NULL AND asset_id IS NULL AND currency = 'USDC')"


@pytest.fixture
async def connection(past: Past) -> AsyncIterator[Connection]:
    """A connection in a transaction that is rolled back."""
    async with past.database.acquire() as acquired:
        transaction = acquired.transaction()
        await transaction.start()
        await acquired.execute(
            'INSERT INTO series_replays (asset_id, series, "column", speed, advanced_at)'
            " VALUES (1, 'rain', 'mm', 60, now())"
        )
        await acquired.execute("CREATE TABLE ticks_of_no_day PARTITION OF ticks DEFAULT")
        yield acquired
        await transaction.rollback()


@asynccontextmanager
async def expect_refused(connection: Connection, constraint: str) -> AsyncIterator[None]:
    """What happens inside must break `constraint`, and leave nothing behind."""
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as error:
        async with connection.transaction():
            yield
    assert error.value.constraint_name == constraint


async def definitions(connection: Connection, sql: str) -> dict[str, str]:
    return {row[0]: row[1] for row in await connection.fetch(sql)}


# ------------------------------------------------------------------------------------------------ the catalog


async def test_every_check_is_there_and_no_other(connection: Connection) -> None:
    stored = await connection.fetch(f"SELECT conname FROM pg_constraint WHERE contype = 'c' AND {OURS}")
    assert sorted(row["conname"] for row in stored) == sorted(check.name for check in CHECKS)


async def test_every_check_is_enforced_on_the_rows_that_are_there(connection: Connection) -> None:
    loose = await connection.fetch(
        f"SELECT conname FROM pg_constraint WHERE {OURS} AND NOT (convalidated AND conenforced)"
    )
    assert loose == []


async def test_every_foreign_key_is_there_and_no_other(connection: Connection) -> None:
    sql = f"SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'f' AND {OURS}"
    assert await definitions(connection, sql) == FOREIGN_KEYS


async def test_every_index_is_there_and_no_other(connection: Connection) -> None:
    sql = (
        "SELECT i.indexname, i.indexdef FROM pg_indexes i JOIN pg_class c ON c.oid = i.tablename::regclass"
        " WHERE i.schemaname = 'public' AND i.tablename <> 'tortoise_migrations'"
        " AND (NOT c.relispartition OR c.relkind = 'p')"
    )
    stored = await definitions(connection, sql)
    tables = await connection.fetch(
        f"SELECT relname FROM pg_class WHERE {TABLES} AND (NOT relispartition OR {PARENTS})"
    )
    keys = {"candles_s1": PRIMARY_KEYS["candles"]} | PRIMARY_KEYS
    expected = {
        f"{table}_pkey": f"CREATE UNIQUE INDEX {table}_pkey ON {_only(table)} USING btree ({keys.get(table, 'id')})"
        for table in (row["relname"] for row in tables)
    }
    for kind, indexes in (("UNIQUE INDEX", UNIQUE), ("INDEX", INDEXES)):
        for name, definition in indexes.items():
            table, rest = definition.split(maxsplit=1)
            expected[name] = f"CREATE {kind} {name} ON {_only(table)} {rest}"
    assert stored == expected


def _only(table: str) -> str:
    """As the catalog names a table in an index that its partitions have of their own."""
    return f"ONLY public.{table}" if table in PARTITIONED else f"public.{table}"


async def test_every_partitioned_table_is_there_with_its_first_partitions(connection: Connection) -> None:
    keys = await definitions(
        connection, f"SELECT relname, pg_get_partkeydef(oid) FROM pg_class WHERE {TABLES} AND {PARENTS}"
    )
    assert keys == PARTITIONED
    partitions = await definitions(
        connection,
        f"SELECT relname, pg_get_expr(relpartbound, oid) FROM pg_class WHERE {TABLES} AND relispartition"
        " AND relname !~ '_[0-9]{8}$' AND relname <> 'ticks_of_no_day'",
    )
    assert partitions == PARTITIONS


async def test_every_trigger_is_there_enabled_and_no_other(connection: Connection) -> None:
    sql = "SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal AND tgenabled = 'O'"
    stored = await definitions(connection, sql)
    expected = {name: f"CREATE TRIGGER {name} {rest}" for name, rest in TRIGGERS.items()}
    assert {name: text.replace("public.", "") for name, text in stored.items()} == expected


async def test_money_and_shares_are_exact_whole_numbers(connection: Connection) -> None:
    loose = await connection.fetch(
        "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public'"
        " AND (data_type IN ('real', 'double precision', 'money') OR data_type = 'numeric'"
        " AND (numeric_precision, numeric_scale) IS DISTINCT FROM (38, 0))"
    )
    assert loose == []
    naive = await connection.fetch(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
        " AND data_type = 'timestamp without time zone'"
    )
    assert naive == []


# ------------------------------------------------------------------------------------------------ CHECKs


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
async def test_a_check_refuses_the_rows_that_break_it(connection: Connection, check: Check) -> None:
    for statement in check.broken_by:
        async with expect_refused(connection, check.name):
            await connection.execute(statement)


@pytest.mark.parametrize("statement", ALLOWED)
async def test_the_ends_of_a_range_are_inside_it(connection: Connection, statement: str) -> None:
    command, *_, rows = (await connection.execute(statement)).split()

    assert command in ("INSERT", "UPDATE")
    assert int(rows) >= 1


async def test_the_backing_may_be_what_the_curve_requires_and_not_a_unit_less(connection: Connection) -> None:
    row = await connection.fetchrow(
        "SELECT id, base_price, slope, supply FROM assets WHERE supply > 0 ORDER BY id LIMIT 1"
    )
    assert row is not None
    exact = (2 * 10**15 * row["base_price"] + row["slope"] * row["supply"]) * row["supply"]
    required = -(-exact // (2 * 10**30))
    assert required > 0
    set_backing = "UPDATE assets SET backing = $2 WHERE id = $1"
    async with expect_refused(connection, "assets_backing_covers_curve"):
        await connection.execute(set_backing, row["id"], required - 1)
    await connection.execute(set_backing, row["id"], required)
    assert await connection.fetchval("SELECT backing FROM assets WHERE id = $1", row["id"]) == required


# ------------------------------------------------------------------------------------------------ the ledger


async def post(
    connection: Connection, legs: list[tuple[int, int]], *, entry_count: int, transfer_id: int | None = None
) -> int:
    """Write a transfer of (ledger account, amount) legs; with `transfer_id`, only further entries of that one."""
    if transfer_id is None:
        transfer_id = await connection.fetchval(
            "INSERT INTO transfers (reason, ref, entry_count, at) VALUES ('DEV_FUND', NULL, $1, now()) RETURNING id",
            entry_count,
        )
    await connection.execute(
        "INSERT INTO entries (transfer_id, ledger_account_id, account_id, version, amount, balance_after)"
        " SELECT $1, t.id, l.account_id, coalesce((SELECT max(version) FROM entries WHERE ledger_account_id = t.id), 0)"
        " + t.n, t.amount, 0 FROM unnest($2::bigint[], $3::numeric[]) WITH ORDINALITY t (id, amount, n)"
        " LEFT JOIN ledger_accounts l ON l.id = t.id",
        transfer_id,
        [ledger_account for ledger_account, _ in legs],
        [amount for _, amount in legs],
    )
    assert transfer_id is not None
    return transfer_id


async def ledger_accounts(connection: Connection, currency: str) -> tuple[int, int]:
    """The platform's DEVELOPMENT and TREASURY ledger accounts in `currency`."""
    rows = await connection.fetch(
        "SELECT id FROM ledger_accounts WHERE currency = $1 AND kind IN ('DEVELOPMENT', 'TREASURY') ORDER BY kind",
        currency,
    )
    return rows[0]["id"], rows[1]["id"]


async def test_a_transfer_that_sums_to_zero_is_written(connection: Connection) -> None:
    development, treasury = await ledger_accounts(connection, "USDC")
    transfer_id = await post(connection, [(development, -5), (treasury, 5)], entry_count=2)
    assert await connection.fetchval("SELECT count(*) FROM entries WHERE transfer_id = $1", transfer_id) == 2


async def test_a_transfer_that_does_not_sum_to_zero_is_refused(connection: Connection) -> None:
    development, treasury = await ledger_accounts(connection, "USDC")
    async with expect_refused(connection, "entries_balance"):
        await post(connection, [(development, -5), (treasury, 6)], entry_count=2)


async def test_two_currencies_do_not_make_up_for_one_another(connection: Connection) -> None:
    development, _ = await ledger_accounts(connection, "USDC")
    _, treasury = await ledger_accounts(connection, "USDT")
    async with expect_refused(connection, "entries_balance"):
        await post(connection, [(development, -5), (treasury, 5)], entry_count=2)


async def test_an_entry_of_no_ledger_account_is_refused(connection: Connection) -> None:
    development, _ = await ledger_accounts(connection, "USDC")
    async with expect_refused(connection, "entries_balance"):
        await post(connection, [(development, -5), (987654321, 5)], entry_count=2)


async def test_an_entry_under_another_owner_is_refused(connection: Connection) -> None:
    development, treasury = await ledger_accounts(connection, "USDC")
    async with expect_refused(connection, "entries_balance"):
        await connection.execute(
            "WITH t AS (INSERT INTO transfers (reason, entry_count, at) VALUES ('DEV_FUND', 2, now()) RETURNING id)"
            " INSERT INTO entries (transfer_id, ledger_account_id, account_id, version, amount, balance_after)"
            " SELECT t.id, l.id, l.owner, 900, l.amount, 0 FROM t,"
            " (VALUES ($1::bigint, NULL::bigint, -5), ($2, 1, 5)) l (id, owner, amount)",
            development,
            treasury,
        )


@pytest.mark.parametrize("announced", [3, 4])
async def test_a_transfer_with_other_than_the_announced_entries_is_refused(
    connection: Connection, announced: int
) -> None:
    development, treasury = await ledger_accounts(connection, "USDC")
    async with expect_refused(connection, "entries_complete"):
        await post(connection, [(development, -5), (treasury, 5)], entry_count=announced)


async def test_entries_of_no_transfer_are_refused(connection: Connection) -> None:
    development, treasury = await ledger_accounts(connection, "USDC")
    async with expect_refused(connection, "entries_complete"):
        await post(connection, [(development, -5), (treasury, 5)], entry_count=2, transfer_id=987654321)


async def test_a_single_entry_in_a_second_statement_is_refused(connection: Connection) -> None:
    development, treasury = await ledger_accounts(connection, "USDC")
    transfer_id = await post(connection, [(development, -5), (treasury, 5)], entry_count=2)
    async with expect_refused(connection, "entries_balance"):
        await post(connection, [(treasury, 1)], entry_count=2, transfer_id=transfer_id)


async def test_balanced_entries_for_a_transfer_that_has_its_entries_are_refused(connection: Connection) -> None:
    development, treasury = await ledger_accounts(connection, "USDC")
    committed = await connection.fetchval("SELECT min(id) FROM transfers WHERE entry_count = 2")
    async with expect_refused(connection, "entries_complete"):
        await post(connection, [(development, -5), (treasury, 5)], entry_count=2, transfer_id=committed)


async def test_not_even_the_same_transaction_may_add_balanced_entries(connection: Connection) -> None:
    development, treasury = await ledger_accounts(connection, "USDC")
    transfer_id = await post(connection, [(development, -5), (treasury, 5)], entry_count=2)
    async with expect_refused(connection, "entries_complete"):
        await post(connection, [(development, -5), (treasury, 5)], entry_count=2, transfer_id=transfer_id)


async def test_a_balance_that_may_not_be_negative_stays_so(connection: Connection) -> None:
    for kind, balance in (("AVAILABLE", -1), ("BACKING", -1), ("ISSUED", 1), ("CUSTODY", 1), ("DEVELOPMENT", 1)):
        async with expect_refused(connection, "ledger_accounts_sign"):
            await connection.execute(
                "UPDATE ledger_accounts SET balance = $2"
                " WHERE id = (SELECT min(id) FROM ledger_accounts WHERE kind = $1)",
                kind,
                balance,
            )


# ------------------------------------------------------------------------------------------------ facts


@pytest.mark.parametrize("table", FACTS)
@pytest.mark.parametrize("operation", ["UPDATE", "DELETE", "TRUNCATE"])
async def test_facts_are_never_changed(connection: Connection, table: str, operation: str) -> None:
    column = "seq" if table in PRIMARY_KEYS else "id"
    statement = {
        "UPDATE": f"UPDATE {table} SET {column} = {column}",
        "DELETE": f"DELETE FROM {table}",
        "TRUNCATE": f"TRUNCATE {table}",
    }[operation]
    before = await connection.fetchval(f"SELECT count(*) FROM {table}")
    assert before > 0
    with pytest.raises(asyncpg.RestrictViolationError, match=f"{table} rows are facts: {operation} is refused"):
        async with connection.transaction():
            await connection.execute(statement)
    assert await connection.fetchval(f"SELECT count(*) FROM {table}") == before


@pytest.mark.parametrize("table", UNDELETABLE)
@pytest.mark.parametrize("operation", ["DELETE FROM", "TRUNCATE"])
async def test_what_facts_refer_to_is_never_deleted(connection: Connection, table: str, operation: str) -> None:
    before = await connection.fetchval(f"SELECT count(*) FROM {table}")
    assert before > 0
    with pytest.raises((asyncpg.RestrictViolationError, asyncpg.FeatureNotSupportedError)) as error:
        async with connection.transaction():
            await connection.execute(f"{operation} {table}")
    assert re.search(r"is refused|cannot truncate a table referenced in a foreign key", str(error.value))
    assert await connection.fetchval(f"SELECT count(*) FROM {table}") == before


async def test_not_even_an_upsert_changes_a_fact(connection: Connection) -> None:
    with pytest.raises(asyncpg.RestrictViolationError, match="UPDATE is refused"):
        async with connection.transaction():
            await connection.execute(
                "INSERT INTO transfers (id, reason, entry_count, at) SELECT id, 'X', 2, at FROM transfers LIMIT 1"
                " ON CONFLICT (id) DO UPDATE SET reason = 'X'"
            )


# ------------------------------------------------------------------------------------------------ models


async def test_models_and_migrations_agree() -> None:
    async with TortoiseContext() as context:
        await context.init(config=TORTOISE_ORM)
        assert context.apps is not None
        writers = await MigrationAutodetector(context.apps, TORTOISE_ORM["apps"]).changes()
    assert [operation for writer in writers for operation in writer.operations] == []


async def test_every_table_has_its_model_or_stands_here(connection: Connection) -> None:
    stored = await connection.fetch(f"SELECT relname FROM pg_class WHERE {TABLES} AND NOT relispartition")
    async with TortoiseContext() as context:
        await context.init(config=TORTOISE_ORM)
        assert context.apps is not None
        described = {context.apps.get_model("models", name)._meta.db_table for name in model_names}
    assert {row["relname"] for row in stored} == described | WITHOUT_MODEL.keys()


@pytest.mark.parametrize("table", sorted(WITHOUT_MODEL))
async def test_a_table_without_a_model_has_its_columns(connection: Connection, table: str) -> None:
    stored = await connection.fetch(
        "SELECT column_name, data_type || CASE is_nullable WHEN 'NO' THEN ' NOT NULL' ELSE '' END AS type"
        " FROM information_schema.columns WHERE table_name = $1 ORDER BY ordinal_position",
        table,
    )
    assert [tuple(row) for row in stored] == list(WITHOUT_MODEL[table].items())


async def test_every_model_has_its_table_with_its_columns(connection: Connection) -> None:
    async with TortoiseContext() as context:
        await context.init(config=TORTOISE_ORM)
        assert context.apps is not None
        models = {name: context.apps.get_model("models", name) for name in model_names}
    for model in models.values():
        stored = await connection.fetch(
            "SELECT column_name, is_nullable FROM information_schema.columns WHERE table_name = $1",
            model._meta.db_table,
        )
        nullable = {
            field.source_field or name: "YES" if field.null else "NO"
            for name, field in model._meta.fields_map.items()
            if field.has_db_field
        }
        assert {row["column_name"]: row["is_nullable"] for row in stored} == nullable
