"""The floors of the house: what may import what, and the guards around the folder named graphql/."""

import re
import subprocess
import sys
from pathlib import Path

import graphql

import api

ROOT = Path(__file__).resolve().parent.parent


def tracked_files() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return listed.stdout.splitlines()


def test_graphql_is_graphql_core() -> None:
    assert graphql.__file__ is not None
    assert Path(graphql.__file__).parent.parent.name == "site-packages"


def test_the_api_package_lives_in_the_graphql_folder() -> None:
    assert api.__file__ is not None
    assert Path(api.__file__).parent == ROOT / "graphql" / "api"


def test_python_under_graphql_is_in_api_only() -> None:
    strays = [str(path) for path in (ROOT / "graphql").rglob("*.py") if "api" not in path.relative_to(ROOT).parts[1:2]]
    assert strays == []
    assert not (ROOT / "graphql" / "__init__.py").exists()


def test_import_contracts_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_lock_files_carry_no_addresses() -> None:
    locks = [name for name in tracked_files() if re.search(r"(requirements.*\.(txt|lock)|package-lock\.json)$", name)]
    assert "requirements.lock" in locks
    found = [name for name in locks if re.search(r"https?://", (ROOT / name).read_text())]
    assert found == []


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    long = {
        name: lines
        for name in tracked_files()
        if name.endswith(".py") and (ROOT / name).exists() and (lines := (ROOT / name).read_text().count("\n")) > 700
    }
    assert long == {}
