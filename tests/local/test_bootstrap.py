"""The Makefile and the virtual environment: refusals in one line, and when something is installed anew."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from app.local import bootstrap
from app.local.bootstrap import BootstrapError
from app.local.checks import CheckError, DataDirLock
from tests.local.market import PROJECT, free_port


class Project:
    """A project folder of its own, whose installations are noted instead of made."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.ran: list[list[str]] = []
        self.monkeypatch = monkeypatch
        self.move_to(folder)
        (folder / "requirements.lock").write_text("one==1\n")
        (folder / "pyproject.toml").write_text("[project]\n")
        monkeypatch.setattr(bootstrap, "_run", self._note)

    def move_to(self, folder: Path) -> None:
        self.folder = folder
        venv = folder / ".venv"
        for name, value in {
            "PROJECT": folder,
            "VENV": venv,
            "PYTHON": venv / "bin" / "python",
            "STAMP": venv / "megatron-installed",
            "UNFINISHED": venv / "megatron-unfinished",
            "LOG": venv / "megatron-install.log",
            "LOCK": folder / "requirements.lock",
        }.items():
            self.monkeypatch.setattr(bootstrap, name, value)

    def _note(self, argv: Sequence[str], **_: object) -> None:
        self.ran.append(list(argv[1:]))
        if argv[1:3] == ["-m", "venv"]:
            (bootstrap.VENV / "bin").mkdir()
            for name in ("python", "pip"):
                (bootstrap.VENV / "bin" / name).touch()

    def installs(self) -> list[str]:
        """What an installation runs now: the modules."""
        self.ran.clear()
        bootstrap.install(starts_market=False)
        return [argv[1] for argv in self.ran]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    folder = tmp_path / "project"
    folder.mkdir()
    return Project(folder, monkeypatch)


def test_nothing_is_installed_twice(project: Project) -> None:
    assert project.installs() == ["venv", "pip", "pip", "compileall"]
    assert project.installs() == []


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml"])
def test_what_has_changed_is_installed_into_the_same_environment(project: Project, name: str) -> None:
    project.installs()
    (project.folder / name).write_text("changed\n")
    assert project.installs() == ["pip", "pip", "compileall"]
    assert project.installs() == []


def test_an_installation_that_was_cut_off_starts_over(project: Project) -> None:
    project.installs()
    bootstrap.UNFINISHED.touch()
    (bootstrap.VENV / "half").touch()
    assert project.installs() == ["venv", "pip", "pip", "compileall"]
    assert not (bootstrap.VENV / "half").exists()
    assert project.installs() == []


def test_an_environment_that_was_moved_is_made_anew(project: Project) -> None:
    project.installs()
    moved = project.folder.with_name("moved")
    project.folder.rename(moved)
    project.move_to(moved)
    assert project.installs() == ["venv", "pip", "pip", "compileall"]
    assert json.loads(bootstrap.STAMP.read_text())["folder"] == str(moved / ".venv")


def test_hashes_are_required_and_no_address_of_a_registry_is_given(project: Project) -> None:
    project.installs()
    packages, itself = (argv[len(bootstrap.PIP) :] for argv in project.ran[1:3])
    assert packages == ["--no-compile", "--require-hashes", "-r", str(bootstrap.LOCK)]
    assert itself == ["--no-deps", "--no-build-isolation", "-e", str(project.folder)]


def test_a_python_without_venv_is_told_in_one_line(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "ensurepip" else object())
    with pytest.raises(BootstrapError) as refusal:
        project.installs()
    assert str(refusal.value) == (
        f"{sys.executable} has no module ensurepip: install it (Debian and Ubuntu: apt install python3-venv), "
        "or name another Python by make PYTHON=..."
    )
    assert not (project.folder / ".venv").exists()


@pytest.mark.parametrize("port", ["http", "0", "65536", "٨٠٠٠"])
def test_a_port_that_is_none_is_refused_before_anything_long(
    project: Project, monkeypatch: pytest.MonkeyPatch, port: str
) -> None:
    monkeypatch.setenv("MEGATRON_PORT", port)
    with pytest.raises(BootstrapError, match=f"MEGATRON_PORT must be a number from 1 to 65535, and it is '{port}'"):
        bootstrap.install(starts_market=True)
    assert project.ran == []


def test_a_data_directory_in_the_way_is_refused_before_anything_long(project: Project) -> None:
    (project.folder / ".env").write_text("# where\nMEGATRON_DATA_DIR = 'requirements.lock'  # a file\n")
    with pytest.raises(CheckError, match=r"the data directory .*/requirements.lock cannot be written"):
        bootstrap.install(starts_market=True)
    assert project.ran == []


def test_settings_come_from_the_environment_then_from_the_file(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MEGATRON_PORT", raising=False)
    assert bootstrap.setting("MEGATRON_PORT", "8000") == "8000"
    (project.folder / ".env").write_text('#MEGATRON_PORT=1\nexport MEGATRON_PORT="9000"\nMEGATRON_PORTS=2\n')
    assert bootstrap.setting("MEGATRON_PORT", "8000") == "9000"
    monkeypatch.setenv("MEGATRON_PORT", "9001")
    assert bootstrap.setting("MEGATRON_PORT", "8000") == "9001"


def test_a_start_waits_for_a_run_that_is_stopping(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from app.local.checks import DataDirLock;"
        f"lock = DataDirLock(Path({str(tmp_path)!r})).acquire(url='http://here', say=print);"
        "lock.announce_stop(); print('held', flush=True); input()"
    )
    said: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        stdin = holder.stdin

        def say(line: str) -> None:
            said.append(line)
            stdin.close()

        DataDirLock(tmp_path).acquire(url=f"http://127.0.0.1:{free_port()}", say=say).release()
    assert said == ["waiting for the run before this one to stop"]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    # Without what a make that runs these tests would pass on.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTHON"))}
    return subprocess.run(["make", "-s", *arguments], cwd=PROJECT, env=env, capture_output=True, text=True, check=False)


def test_make_alone_lists_its_targets() -> None:
    listed = [line.split()[1] for line in make().stdout.splitlines()]
    assert listed == ["help", "dev", "test", "test-clients", "check", "bench", "soak", "web", "lock", "clean"]


def test_an_old_python_is_refused_in_one_line(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\ncase "$2" in *print*) echo 3.9.2;; *) exit 1;; esac\n')
    old.chmod(0o755)
    refused = make("dev", f"PYTHON={old}")
    assert refused.returncode == 2
    assert refused.stdout == ""
    told, made = refused.stderr.splitlines()
    assert told == (
        f"megatron: Python 3.11 or newer is needed (tried {old}, {old} is 3.9.2): "
        "install one, or name it: make PYTHON=/path/to/python3.11"
    )
    assert made.startswith("make: ***")
