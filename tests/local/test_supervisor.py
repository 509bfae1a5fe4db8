"""`megatron dev` with stand-ins for the market's own parts, and real servers: starts, deaths, stops, refusals."""

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
import redis
from argon2 import PasswordHasher

from tests.local.market import (
    IDLE,
    PROJECT,
    Running,
    free_port,
    pid_of,
    processes_of,
    stand_in,
    start,
    start_arguments,
    until,
)

STOP_SECONDS_MAX = 10.0
CHILDREN = ("postgres", "valkey", "prices", "oracle", "api", "traders")


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "data"
    yield folder
    for pid in processes_of(folder):
        os.kill(pid, signal.SIGKILL)


def write(running: Running, *, value: int) -> None:
    """Put a row into PostgreSQL and a key into Valkey, by the addresses that the API was given."""
    told = running.told()

    async def insert() -> None:
        connection = await asyncpg.connect(told["DATABASE_URL"])
        await connection.execute("CREATE TABLE IF NOT EXISTS kept (value int)")
        await connection.execute("INSERT INTO kept VALUES ($1)", value)
        await connection.close()

    asyncio.run(insert())
    with redis.Redis.from_url(str(told["REDIS_URL"])) as client:
        client.set(f"kept:{value}", value)


def read(running: Running) -> tuple[list[int], list[str]]:
    """What `write` wrote: rows and keys."""
    told = running.told()

    async def select() -> list[int]:
        connection = await asyncpg.connect(told["DATABASE_URL"])
        rows = await connection.fetch("SELECT value FROM kept ORDER BY value")
        await connection.close()
        return [row["value"] for row in rows]

    with redis.Redis.from_url(str(told["REDIS_URL"]), decode_responses=True) as client:
        return asyncio.run(select()), sorted(client.keys("kept:*"))


def nothing_left(data_dir: Path) -> bool:
    return not processes_of(data_dir) and not (data_dir / "runtime-folder").exists()


def test_a_market_starts_keeps_its_data_and_stops_on_either_signal(data_dir: Path) -> None:
    first = start(data_dir).ready()
    assert first.told()["MEGATRON_ENV"] == "development"
    assert first.told()["MEGATRON_DATA_DIR"] == str(data_dir)
    write(first, value=1)
    pids = [first.pid(name) for name in CHILDREN]
    assert len(set(pids)) == len(CHILDREN)
    assert first.stops(signal.SIGTERM) < STOP_SECONDS_MAX
    assert nothing_left(data_dir)

    second = start(data_dir).ready()
    assert read(second) == ([1], ["kept:1"])
    assert second.stops(signal.SIGINT) < STOP_SECONDS_MAX
    assert nothing_left(data_dir)


def test_a_killed_supervisor_takes_its_children_along_and_the_next_start_has_all_data(data_dir: Path) -> None:
    killed = start(data_dir).ready()
    write(killed, value=1)
    killed.process.kill()
    assert killed.ends() == -signal.SIGKILL

    # At once, while the children are still ending.
    following = start(data_dir).ready()
    assert read(following) == ([1], ["kept:1"])
    assert following.stops() < STOP_SECONDS_MAX
    assert nothing_left(data_dir)


@pytest.mark.parametrize("name", CHILDREN)
def test_a_killed_child_is_started_again(data_dir: Path, name: str) -> None:
    market = start(data_dir).ready()
    write(market, value=1)
    before = {child: market.pid(child) for child in CHILDREN}
    os.kill(before[name], signal.SIGKILL)
    market.says(f"{name} ended (killed by SIGKILL)")
    market.says(f"{name} runs again")
    after = {child: market.pid(child) for child in CHILDREN}
    assert after[name] != before[name]
    assert {child: pid for child, pid in after.items() if child != name} == {
        child: pid for child, pid in before.items() if child != name
    }
    if name != "valkey":
        assert read(market) == ([1], ["kept:1"])
    assert market.stops() < STOP_SECONDS_MAX
    assert nothing_left(data_dir)


def test_a_backend_that_is_killed_does_not_stop_the_database(data_dir: Path) -> None:
    market = start(data_dir).ready()
    write(market, value=1)
    postmaster = market.pid("postgres")
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)

    def back() -> bool:
        try:
            return read(market) == ([1], ["kept:1"])
        except (OSError, asyncpg.PostgresError):
            return False

    until("the database to recover", back)
    assert market.pid("postgres") == postmaster
    assert market.stops() < STOP_SECONDS_MAX


def test_a_child_that_keeps_dying_stops_everything_with_a_clear_line(data_dir: Path) -> None:
    market = start(data_dir, traders=(sys.executable, "-c", "import sys; sys.exit('no funds left')"))
    assert market.ends() == 1
    assert "traders ended 5 times within 60 s: everything stops" in market.said
    assert "  | no funds left" in market.lines
    assert nothing_left(data_dir)


def test_an_api_that_cannot_start_stops_everything_with_its_last_words(data_dir: Path) -> None:
    market = start(data_dir, api=(sys.executable, "-c", "import sys; sys.exit('no such table')"))
    assert market.ends() == 1
    assert "api ended before it served (status 1)" in market.said
    assert "  | no such table" in market.lines
    assert "ready:" not in market.said
    assert nothing_left(data_dir)


def test_a_failed_migration_stops_everything_with_its_last_words(data_dir: Path) -> None:
    once = [
        ("migrate", "bringing the database up to date", (sys.executable, "-c", "import sys; sys.exit('bad column')"))
    ]
    market = start(data_dir, once=once)
    assert market.ends() == 1
    assert "migrate failed (status 1)" in market.said
    assert "  | bad column" in market.lines
    assert nothing_left(data_dir)


def test_a_signal_during_a_long_step_stops_everything(data_dir: Path) -> None:
    market = start(data_dir, once=[("migrate", "bringing the database up to date", IDLE)])
    migration = market.pid("migrate")
    assert market.stops() < STOP_SECONDS_MAX
    assert not Path(f"/proc/{migration}").exists()
    assert "ready:" not in market.said
    assert nothing_left(data_dir)


def test_children_that_ignore_the_signal_do_not_hold_up_the_stop(data_dir: Path) -> None:
    deaf = (
        sys.executable,
        "-c",
        "import signal; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); signal.pause()",
    )
    deaf_api = (sys.executable, str(PROJECT / "tests/local/standin_api.py"), "--deaf")
    market = start(data_dir, api=deaf_api, prices=deaf, traders=deaf)
    market.ready()
    logs = [data_dir / "logs" / f"{name}.log" for name in ("prices", "traders")]
    until("deaf children", lambda: all("deaf" in log.read_text() for log in logs))
    assert market.stops() < STOP_SECONDS_MAX
    assert nothing_left(data_dir)


def test_a_second_market_on_the_same_data_is_refused_in_one_line(data_dir: Path) -> None:
    market = start(data_dir).ready()
    second = start(data_dir)
    assert second.ends() == 1
    assert second.lines == [
        f"megatron: the market already runs on {data_dir} (process {market.process.pid}, "
        f"http://127.0.0.1:{market.port}): stop it first, or set MEGATRON_DATA_DIR to another folder"
    ]
    assert market.told()["MEGATRON_ENV"] == "development"
    assert market.stops() < STOP_SECONDS_MAX


def test_a_taken_port_is_refused_in_one_line_before_anything_starts(data_dir: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        market = start(data_dir, port=port)
        assert market.ends() == 1
    assert market.lines == [
        f"megatron: port {port} on 127.0.0.1 is taken by another program: "
        "stop that, or set MEGATRON_PORT to a free port"
    ]
    assert sorted(path.name for path in data_dir.iterdir()) == ["lock"]


def test_a_data_directory_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    # A file in its way refuses root as well as everybody else.
    (tmp_path / "file").write_text("")
    market = start(tmp_path / "file" / "data")
    assert market.ends() == 1
    assert market.lines == [
        f"megatron: the data directory {tmp_path}/file/data cannot be written (Not a directory): "
        "set MEGATRON_DATA_DIR to a folder that you may write to"
    ]
    assert (tmp_path / "file").read_text() == ""


def test_the_admin_password_is_made_once_readable_by_its_owner_and_never_said(data_dir: Path) -> None:
    first = start(data_dir).ready()
    file = data_dir / "admin-password"
    password = file.read_text().strip()
    assert len(password) == 24
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert PasswordHasher().verify(str(first.told()["MEGATRON_ADMIN_PASSWORD_HASH"]), password)
    assert f"admin log-in: the name is admin, the password is in {file}" in first.lines
    first.stops()
    second = start(data_dir).ready()
    assert file.read_text().strip() == password
    assert PasswordHasher().verify(str(second.told()["MEGATRON_ADMIN_PASSWORD_HASH"]), password)
    second.stops()
    written = first.said + second.said + "".join(log.read_text() for log in (data_dir / "logs").iterdir())
    assert password not in written


def test_an_admin_password_that_is_set_is_passed_on_and_none_is_made(data_dir: Path) -> None:
    market = start(data_dir, admin_password_hash="$argon2id$given").ready()
    assert market.told()["MEGATRON_ADMIN_PASSWORD_HASH"] == "$argon2id$given"
    assert not (data_dir / "admin-password").exists()
    assert "admin log-in" not in market.said
    market.stops()


def test_servers_that_are_elsewhere_are_used_and_none_is_embedded(data_dir: Path) -> None:
    market = start(data_dir, database_url="postgresql://db.example/m", redis_url="rediss://redis.example:6379").ready()
    told = market.told()
    assert (told["DATABASE_URL"], told["REDIS_URL"]) == ("postgresql://db.example/m", "rediss://redis.example:6379")
    assert sorted(path.stem for path in (data_dir / "run").glob("*.json")) == ["api", "oracle", "prices", "traders"]
    assert not (data_dir / "postgres").exists()
    assert not (data_dir / "valkey").exists()
    market.stops()


def test_a_price_worker_that_keeps_dying_stops_everything_with_its_last_words(data_dir: Path) -> None:
    market = start(data_dir, prices=(sys.executable, "-c", "import sys; sys.exit('made for production')"))
    assert market.ends() == 1
    assert "prices ended 5 times within 60 s: everything stops" in market.said
    assert "  | made for production" in market.lines
    assert nothing_left(data_dir)


def test_the_oracle_worker_alone_is_told_of_the_stand_in_which_serves_before_it_starts(data_dir: Path) -> None:
    port = free_port()
    told = data_dir / "told"
    looks = (
        f"import os, pathlib, signal, socket; socket.create_connection(('127.0.0.1', {port}));"
        f"pathlib.Path({str(told)!r}).write_text(os.environ['SERPER_API_URL'] + os.environ['MEGATRON_ENV']);"
        "signal.pause()"
    )
    provider = f"http://127.0.0.1:{port}/serper"
    given = stand_in(port, SERPER_API_URL=provider)
    market = start(data_dir, oracle=(sys.executable, "-c", looks), stand_in=given).ready()
    until("the oracle worker to look around", told.exists)
    until("all of it", lambda: told.read_text() == f"{provider}development")
    assert market.told()["SERPER_API_URL"] is None
    assert "the oracle searches and reads by a local stand-in" in market.said
    before = market.pid("stand-in")
    os.kill(before, signal.SIGKILL)
    market.says("stand-in runs again")
    assert market.pid("stand-in") != before
    assert market.stops() < STOP_SECONDS_MAX
    assert nothing_left(data_dir)


def test_no_traders_run_where_none_are_wanted(data_dir: Path) -> None:
    market = start(data_dir, prices=None, oracle=None, traders=None).ready()
    assert sorted(path.stem for path in (data_dir / "run").glob("*.json")) == ["api", "postgres", "valkey"]
    market.stops()


def test_valkey_starts_afresh_when_its_files_are_broken(data_dir: Path) -> None:
    first = start(data_dir).ready()
    write(first, value=1)
    first.stops()
    manifest = next((data_dir / "valkey").glob("*/*.manifest"))
    manifest.write_text("this is no manifest\n")
    second = start(data_dir).ready()
    second.says("Valkey starts afresh; its files are now in ")
    assert read(second) == ([1], [])
    second.stops()


def test_a_failed_build_of_the_playground_stops_nothing_and_is_told(data_dir: Path) -> None:
    market = start(data_dir, web=(sys.executable, "-c", "import sys; sys.exit('npm is away')")).ready()
    assert "web failed (status 1)" in market.said
    assert "  | npm is away" in market.lines
    assert "the API runs without the playground's page" in market.lines
    market.stops()


def test_logs_are_kept_from_growing_without_end(data_dir: Path) -> None:
    logs = data_dir / "logs"
    logs.mkdir(parents=True)
    (logs / "traders.log").write_bytes(b"x" * (20 * 2**20 + 1))
    market = start(data_dir).ready()
    assert (logs / "traders.log").stat().st_size == 0
    assert (logs / "traders.log.1").stat().st_size == 20 * 2**20 + 1
    market.stops()


def launched_by_make(data_dir: Path, tmp_path: Path) -> Running:
    """A market below a make of its own, as the bootstrap starts it."""
    port = free_port()
    script, *arguments = start_arguments(data_dir, port=port)[1:]
    (tmp_path / "told.json").write_text(arguments[0])
    (tmp_path / "Makefile").write_text(
        f"dev:\n\t@cd {PROJECT}; export MEGATRON_STARTED_BY=$$PPID PYTHONPATH={PROJECT}; "
        f'exec {sys.executable} {script} "$$(cat {tmp_path}/told.json)"\n'
    )
    return Running(["make", "-f", str(tmp_path / "Makefile"), "dev"], data_dir=data_dir, port=port)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_to_make_alone_stops_everything(data_dir: Path, tmp_path: Path, number: signal.Signals) -> None:
    make = launched_by_make(data_dir, tmp_path)
    make.ready()
    started = time.monotonic()
    make.process.send_signal(number)
    make.ends()
    until("everything to stop", lambda: nothing_left(data_dir))
    assert time.monotonic() - started < STOP_SECONDS_MAX
    following = start(data_dir).ready()
    following.stops()


def test_ctrl_c_in_a_terminal_stops_everything(data_dir: Path, tmp_path: Path) -> None:
    make = launched_by_make(data_dir, tmp_path)
    make.ready()
    started = time.monotonic()
    os.killpg(make.process.pid, signal.SIGINT)
    make.ends()
    assert time.monotonic() - started < STOP_SECONDS_MAX
    assert nothing_left(data_dir)
    assert make.said.count("stopping") == 1


def test_a_market_goes_on_when_nobody_reads_its_output(data_dir: Path) -> None:
    argv = start_arguments(data_dir, port=free_port())
    reading, writing = os.pipe()
    with subprocess.Popen(argv, cwd=PROJECT, env={**os.environ, "PYTHONPATH": str(PROJECT)}, stdout=writing) as market:
        os.close(writing)
        with os.fdopen(reading) as output:
            assert any(line.startswith("ready: ") for line in output)
        before = pid_of(data_dir, "traders")
        os.kill(before, signal.SIGKILL)
        until("new traders", lambda: pid_of(data_dir, "traders") != before)
        market.terminate()
        assert market.wait(STOP_SECONDS_MAX) == 0
    assert nothing_left(data_dir)
