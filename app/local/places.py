"""Where local servers put what must be short, private or reachable by another user. Knows nothing of the servers.

Two limits make this necessary: a Unix socket's path holds 107 bytes (103 on macOS), and as root PostgreSQL runs as a
user who may be shut out of every folder above the data directory. No permission of a folder made elsewhere is changed.
"""

import os
import pwd
import re
import shutil
import stat
import tempfile
import threading
from pathlib import Path
from typing import Final

from app.local.process import Account

SOCKET_PATH_BYTES_MAX: Final = 103
SOCKET_FOLDER: Final = re.compile(r"[A-Za-z0-9/._+-]+")
"""Folders that need no quoting in PostgreSQL's settings, in Valkey's and in addresses."""
ACCOUNTS: Final = ("postgres", "nobody")
TEMPORARY_FOLDERS: Final = ("/tmp", "/var/tmp", "/dev/shm", "/run")  # noqa: S108 - tried in turn, used by mkdtemp only


class PlaceError(Exception):
    """No place or user for a local server; the message says what to do."""


def unprivileged_account() -> Account | None:
    """The user that PostgreSQL runs as: None, the caller, unless the caller is root.

    Raises `PlaceError` when root has no user to fall back on, or the caller has no name.
    """
    if os.geteuid() != 0:
        try:
            pwd.getpwuid(os.geteuid())
        except KeyError:
            raise PlaceError(
                f"PostgreSQL needs to know its user's name, and this machine has none for user number {os.geteuid()}: "
                "run this as a user of this machine, or set DATABASE_URL to a PostgreSQL server"
            ) from None
        return None
    for name in ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid)
    raise PlaceError(
        f"PostgreSQL refuses to run as root, and this machine has no user named {' or '.join(ACCOUNTS)}: "
        "run this as an ordinary user, or set DATABASE_URL to a PostgreSQL server"
    )


def account_of(folder: Path) -> Account | None:
    """The user that owns `folder`, for root to become; None, the caller, for everybody else."""
    if os.geteuid() != 0:
        return None
    owner = folder.stat()
    try:
        name = pwd.getpwuid(owner.st_uid).pw_name
    except KeyError:
        raise PlaceError(
            f"{folder} belongs to user number {owner.st_uid}, which this machine does not know: "
            "give the folder to a user of this machine, or use another MEGATRON_DATA_DIR"
        ) from None
    if owner.st_uid == 0:
        raise PlaceError(
            f"{folder} belongs to root, as whom PostgreSQL refuses to run: "
            "give the folder back to the user that made it, or use another MEGATRON_DATA_DIR"
        )
    return Account(name=name, uid=owner.st_uid, gid=owner.st_gid)


def can_use(path: Path, account: Account | None) -> bool:
    """Whether `account` may pass every folder above `path` and read, and if it is a folder or program enter, `path`."""
    if account is None:
        return os.access(path, os.R_OK)
    try:
        resolved = path.resolve(strict=True)
        return all(_allows(folder, account, 0o1) for folder in resolved.parents) and _allows(
            resolved, account, 0o5 if resolved.stat().st_mode & 0o111 else 0o4
        )
    except OSError:
        return False


def _allows(path: Path, account: Account, bits: int) -> bool:
    status = path.stat()
    if status.st_uid == account.uid:
        return (status.st_mode >> 6) & bits == bits
    if status.st_gid == account.gid:
        return (status.st_mode >> 3) & bits == bits
    return status.st_mode & bits == bits


def private_folder(path: Path, *, account: Account | None = None, mode: int = 0o700) -> Path:
    """Make the folder `path` with exactly `mode`, whatever the umask, owned by `account`; an old one stays as it is."""
    try:
        path.mkdir(parents=True, mode=0o700)
    except FileExistsError:
        return path
    path.chmod(mode)
    if account:
        os.chown(path, account.uid, account.gid)
    return path


def copy_readably(source: Path, target: Path, *, skipped: tuple[str, ...] = ()) -> None:
    """Copy the folder `source` to `target` so that everybody can read it and run its programs.

    A file that everybody may read already is linked where that is possible, which takes no time and no space.
    """
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*skipped), symlinks=True, copy_function=_link_or_copy)
    for folder, _, _ in os.walk(target):
        os.chmod(folder, 0o755)  # noqa: S103 - programs that come with a wheel are no secret


def _link_or_copy(source: str, target: str) -> None:
    mode = os.stat(source).st_mode
    wanted = 0o755 if mode & 0o100 else 0o644
    if mode & 0o777 == wanted:
        try:
            os.link(source, target)
        except OSError:
            # Another file system, or one without links.
            pass
        else:
            return
    shutil.copyfile(source, target)
    os.chmod(target, wanted)


class RuntimeFolder:
    """A short-lived private folder for sockets and copied programs of the servers of one data directory.

    It is made in the machine's temporary folder, recorded in the data directory, and removed when the servers have
    stopped; the next start removes one that a killed process left behind.
    """

    def __init__(self, data_dir: Path) -> None:
        self._record = data_dir / "runtime-folder"
        self._path: Path | None = None
        self._lock = threading.Lock()

    def path(self) -> Path:
        """The folder, made when first asked for. Others may pass it but not list it; what it holds guards itself."""
        with self._lock:
            if self._path is None:
                self.remove()
                path = Path(tempfile.mkdtemp(prefix="megatron-", dir=self._temporary_folder()))
                self._record.write_text(str(path))
                path.chmod(0o711)
                self._path = path
            return self._path

    def remove(self) -> None:
        """Remove the folder, also one that an earlier process recorded."""
        try:
            recorded = Path(self._record.read_text())
            status = recorded.lstat()
        except (OSError, ValueError):
            self._record.unlink(missing_ok=True)
            return
        # The record is only believed as far as it names what this class makes.
        ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and recorded.name.startswith("megatron-")
        if ours:
            shutil.rmtree(recorded, ignore_errors=True)
        self._record.unlink(missing_ok=True)
        self._path = None

    @staticmethod
    def _temporary_folder() -> str:
        tried = [tempfile.gettempdir(), *TEMPORARY_FOLDERS]
        for folder in tried:
            path = Path(folder)
            # 50 bytes are left for the folder's own name and the longest socket name.
            short = len(os.fsencode(folder)) <= SOCKET_PATH_BYTES_MAX - 50 and SOCKET_FOLDER.fullmatch(folder)
            if not (short and os.access(path, os.W_OK | os.X_OK)):
                continue
            # As root it may have to hold programs for another user.
            if os.geteuid() != 0 or (
                _passable_by_all(path) and not os.statvfs(path).f_flag & getattr(os, "ST_NOEXEC", 0)
            ):
                return folder
        raise PlaceError(
            f"no temporary folder can hold the servers' sockets (tried {', '.join(tried)}): "
            "set TMPDIR to a folder with a short path that other users may pass"
        )


def _passable_by_all(path: Path) -> bool:
    resolved = path.resolve()
    return all(folder.stat().st_mode & 0o1 for folder in (resolved, *resolved.parents))


def socket_folder(data_dir: Path, runtime: RuntimeFolder, name: str, *, account: Account | None) -> Path:
    """A private folder for the sockets of server `name`: below the data directory where that is short and reachable."""
    inside = data_dir.resolve() / "run" / name
    longest = inside / ".s.PGSQL.5432.lock"
    short = len(os.fsencode(longest)) <= SOCKET_PATH_BYTES_MAX and SOCKET_FOLDER.fullmatch(str(inside))
    if account is None and short:
        return private_folder(inside)
    return private_folder(runtime.path() / name, account=account)
