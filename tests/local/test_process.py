"""Starting, identifying and ending processes, and the places that servers get."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from app.local.children import Deaths, ending
from app.local.places import RuntimeFolder, can_use, private_folder, socket_folder
from app.local.process import LAUNCHER, Account, Command, end_foreign, run, spawn, start_token
from tests.local.market import until

STRANGER = Account(name="stranger", uid=54_321, gid=54_321)


def test_a_process_is_told_from_a_later_one_with_its_number(tmp_path: Path) -> None:
    sleeper = spawn(Command(argv=("/bin/sleep", "60"), folder=tmp_path), output=subprocess.DEVNULL)
    token = start_token(sleeper.pid)
    assert token
    assert start_token(sleeper.pid) == token
    assert token != start_token(os.getpid())
    # The number is right, the process is not: it stays.
    assert end_foreign(sleeper.pid, "another boot:1", steps=((signal.SIGKILL, 0.1),))
    assert start_token(sleeper.pid) == token
    assert end_foreign(sleeper.pid, token, steps=((signal.SIGTERM, 5.0),))
    assert start_token(sleeper.pid) is None
    assert sleeper.wait() == -signal.SIGTERM


def test_a_child_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = (
        "import os, subprocess; from pathlib import Path; from app.local.process import Command, spawn;"
        "child = spawn(Command(argv=('/bin/sleep', '60'), folder=Path('/')), output=subprocess.DEVNULL);"
        "print(child.pid, flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        until("the child's program", lambda: Path(f"/proc/{child}/comm").read_text() == "sleep\n")
        parent.kill()
    until("the child to die", lambda: start_token(child) is None)


def test_a_child_whose_parent_is_gone_already_does_not_start(tmp_path: Path) -> None:
    nobody = 1
    argv = [sys.executable, "-I", "-S", str(LAUNCHER), str(nobody), "9", "-", "-", "/", "--", "/bin/touch", "made"]
    assert subprocess.run(argv, cwd=tmp_path, check=False).returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        status = run(Command(argv=("/nowhere/postgres",), folder=tmp_path), output=output, timeout_s=10)
    assert status == 1
    assert log.read_text() == f"cannot start /nowhere/postgres in {tmp_path}: No such file or directory\n"


def test_what_another_user_may_use_follows_from_the_permissions_of_all_folders(tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        file = folder / "file"
        file.write_text("")
        file.chmod(0o644)
        assert not can_use(file, STRANGER)
        folder.chmod(0o711)
        assert can_use(file, STRANGER)
        file.chmod(0o640)
        assert not can_use(file, STRANGER)
        assert not can_use(folder / "missing", STRANGER)
    finally:
        file.unlink()
        folder.rmdir()


def test_a_private_folder_has_its_mode_whatever_the_umask_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    before = os.umask(0o777)
    try:
        made = private_folder(tmp_path / "made", mode=0o711)
    finally:
        os.umask(before)
    assert made.stat().st_mode & 0o777 == 0o711
    assert private_folder(made, mode=0o700).stat().st_mode & 0o777 == 0o711


def test_a_runtime_folder_of_a_killed_run_is_removed_by_the_next(tmp_path: Path) -> None:
    left = RuntimeFolder(tmp_path).path()
    (left / "socket").touch()
    made = RuntimeFolder(tmp_path)
    assert made.path() != left
    assert not left.exists()
    made.remove()
    assert not made.path().samefile(tmp_path)
    made.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_names_something_else_removes_nothing_else(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "runtime-folder").write_text(str(precious))
    RuntimeFolder(data_dir).remove()
    assert precious.is_dir()
    assert list(data_dir.iterdir()) == []


def test_sockets_lie_in_the_data_directory_where_their_path_is_short(tmp_path: Path) -> None:
    short = Path(tempfile.mkdtemp(dir="/tmp"))
    runtime = RuntimeFolder(short)
    assert socket_folder(short, runtime, "valkey", account=None) == short / "run" / "valkey"
    assert sorted(path.name for path in short.iterdir()) == ["run"]
    deep = tmp_path / ("a" * 100)
    deep.mkdir()
    elsewhere = RuntimeFolder(deep)
    folder = socket_folder(deep, elsewhere, "valkey", account=None)
    assert folder == elsewhere.path() / "valkey"
    assert folder.stat().st_mode & 0o777 == 0o700
    elsewhere.remove()
    (short / "run" / "valkey").rmdir()
    (short / "run").rmdir()
    short.rmdir()


def test_pauses_grow_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr("app.local.children.time.monotonic", lambda: now)
    deaths = Deaths()
    assert [deaths.another() for _ in range(5)] == [0.1, 0.5, 1.0, 2.0, None]
    now += 60.0
    assert deaths.another() == 0.1


def test_endings_are_told_in_words() -> None:
    assert [ending(0), ending(3), ending(-9), ending(-250)] == [
        "status 0", "status 3", "killed by SIGKILL", "killed by signal 250",
    ]  # fmt: skip
