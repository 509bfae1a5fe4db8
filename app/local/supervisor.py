"""`megatron dev`: starts the local market, keeps it running, and stops all of it.

The servers and the market's own parts are children of this process; what they do is not known here. Children that die
are started again, with pauses; one that keeps dying stops everything. A stop takes less than ten seconds.
"""

import asyncio
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from app.demo.stand_in.address import environment_for, is_wanted
from app.local.checks import CheckError, DataDirLock, check_data_dir, check_port, free_port
from app.local.children import Child, ChildFailed, Deaths, Role, end_leftovers, ending, trim
from app.local.parent import parent_gave_up, take_parent
from app.local.places import PlaceError, RuntimeFolder
from app.local.postgres import STOP_STEPS as POSTGRES_STOP_STEPS
from app.local.postgres import EmbeddedPostgres, PostgresError
from app.local.process import Command, last_lines
from app.local.valkey import EmbeddedValkey, ValkeyError
from app.settings import Settings

READY_SECONDS: Final = 60.0
ONCE_SECONDS: Final = 600.0
WEB_SECONDS: Final = 45.0
"""How long the market waits for the playground's page before it says that it is ready without."""
SHUT_DOWN_SECONDS: Final = 9.0
PROGRESS_SECONDS: Final = 5.0
PARENT_POLL_SECONDS: Final = 0.25
TRIM_SECONDS: Final = 30.0
ANSWER_SECONDS: Final = 5.0
LOOPBACK: Final = "127.0.0.1"

TRADERS_STOP_STEPS: Final = ((signal.SIGTERM, 1.0), (signal.SIGKILL, 0.3))
API_STOP_STEPS: Final = ((signal.SIGTERM, 2.5), (signal.SIGKILL, 0.3))
WORKER_STOP_STEPS: Final = ((signal.SIGTERM, 2.5), (signal.SIGKILL, 0.3))
STAND_IN_STOP_STEPS: Final = ((signal.SIGTERM, 1.0), (signal.SIGKILL, 0.3))
VALKEY_STOP_STEPS: Final = ((signal.SIGTERM, 2.0), (signal.SIGKILL, 0.3))
ONCE_STOP_STEPS: Final = ((signal.SIGKILL, 0.5),)
"""Migrations and seeding are transactions: nothing is lost by a kill."""
WEB_STOP_STEPS: Final = ((signal.SIGTERM, 1.0), (signal.SIGKILL, 0.3))
"""The build ends its own children when it is asked to stop."""


@dataclass(frozen=True, slots=True)
class StandIn:
    """A local stand-in for the oracle's providers: its command, its port on the market's host, and the environment
    variables by which the oracle worker finds it."""

    argv: tuple[str, ...]
    port: int
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Plan:
    """The commands of the market's own parts: program and arguments."""

    once: tuple[tuple[str, str, tuple[str, ...]], ...]
    """What runs to its end before the API starts, in order: a name, what it does, and the command."""
    api: tuple[str, ...]
    prices: tuple[str, ...] | None
    """The price worker; it outlives its servers' restarts, and runs beside the API."""
    oracle: tuple[str, ...] | None
    """The oracle worker; the same holds for it."""
    stand_in: StandIn | None
    """Serves before the oracle worker starts."""
    traders: tuple[str, ...] | None
    web: tuple[str, ...] | None
    """Builds the playground; its failure stops nothing."""


@dataclass(frozen=True, slots=True)
class Options:
    """Where the market runs, and which of its servers are elsewhere."""

    data_dir: Path
    host: str
    port: int
    database_url: str | None
    redis_url: str | None
    admin_password_hash: str | None

    @property
    def url(self) -> str:
        """The address of the API's root."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class GaveUp(Exception):  # noqa: N818
    """A child keeps dying."""


EXPECTED: Final = (CheckError, ChildFailed, GaveUp, PlaceError, PostgresError, ValkeyError)
"""Failures whose message is all that a person needs."""


def main(settings: Settings) -> int:
    """Run the local market until a signal stops it; the process's exit status."""
    options = Options(
        data_dir=settings.data_dir.resolve(),
        host=settings.host,
        port=settings.port,
        database_url=settings.database_url,
        redis_url=settings.effective_redis_url,
        admin_password_hash=settings.admin_password_hash,
    )
    megatron = (sys.executable, "-m", "app.cli")
    stand_in = None
    if is_wanted(settings):
        port = free_port(LOOPBACK)
        command = (*megatron, "demo", "stand-in", "--port", str(port))
        stand_in = StandIn(command, port, environment_for(settings, port=port))
    plan = Plan(
        once=(("prepare", "preparing the database and the demo market", (sys.executable, "-m", "app.local.prepare")),),
        api=(*megatron, "api"),
        prices=(*megatron, "worker", "price"),
        oracle=(*megatron, "worker", "oracle"),
        stand_in=stand_in,
        traders=(*megatron, "demo", "run", "--url", f"{options.url}/graphql") if settings.demo_traders else None,
        web=(sys.executable, "-m", "app.local.bootstrap", "web"),
    )
    return supervise(options, plan)


def supervise(options: Options, plan: Plan) -> int:
    """Check, then run `plan` until a signal stops it: 0 when asked to stop, 1 and a clear line when it cannot go on."""
    lock: DataDirLock | None = None
    try:
        check_data_dir(options.data_dir)
        lock = DataDirLock(options.data_dir).acquire(url=options.url, say=_say)
        for name in end_leftovers(options.data_dir):
            _say(f"ended {name}, left behind by an earlier run")
        check_port(options.host, options.port)
        asyncio.run(Market(options, plan, lock).run())
    except EXPECTED as error:
        _say(f"megatron: {error}", to_stderr=True)
        return 1
    except OSError as error:
        # A full disk, a vanished folder: no trace helps, the operating system's words do.
        _say(f"megatron: {error}", to_stderr=True)
        return 1
    finally:
        if lock is not None:
            lock.release()
    return 0


def _say(line: str, *, to_stderr: bool = False) -> None:
    # Whoever read the output may be gone; the market goes on, or stops in order.
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr if to_stderr else sys.stdout, flush=True)


class Market:
    """One run of the local market."""

    def __init__(self, options: Options, plan: Plan, lock: DataDirLock) -> None:
        self._options = options
        self._plan = plan
        self._lock = lock
        self._started = time.monotonic()
        self._stop = asyncio.Event()
        self._failure: asyncio.Future[None] | None = None
        self._admin_hash = options.admin_password_hash or ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._passing: set[Child] = set()
        """Children that run to an end: migrations, builds."""
        self._kept: dict[str, Child] = {}
        runtime = self._runtime = RuntimeFolder(options.data_dir)
        self._postgres = None if options.database_url else EmbeddedPostgres(options.data_dir, runtime=runtime)
        self._valkey = None if options.redis_url else EmbeddedValkey(options.data_dir, runtime=runtime)

    async def run(self) -> None:
        """Start everything, wait for a signal, stop everything. Raises one of `EXPECTED` when it cannot go on."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop.set)
        failure = self._failure = loop.create_future()
        stopped = asyncio.create_task(self._stop.wait())
        start_up = asyncio.create_task(self._start_up())
        self._background(self._watch_parent())
        self._background(self._trim_logs())
        try:
            await asyncio.wait({stopped, start_up, failure}, return_when=asyncio.FIRST_COMPLETED)
            if start_up.done():
                start_up.result()
                await asyncio.wait({stopped, failure}, return_when=asyncio.FIRST_COMPLETED)
            if failure.done():
                failure.result()
        finally:
            stopped.cancel()
            self._tasks.add(start_up)
            await self._shut_down()
            if failure.done():
                failure.exception()

    async def _start_up(self) -> None:
        web = self._background(self._build_web())
        await _together(self._start_postgres(), self._start_valkey(), self._hash_admin_password())
        env = self._environment()
        for name, what, argv in self._plan.once:
            async with self._progress(what):
                await self._run_once(name, Command(argv=argv, folder=Path.cwd(), env=env))
        await self._start_workers(env)
        api_env = {**env, "MEGATRON_ADMIN_PASSWORD_HASH": self._admin_hash}
        async with self._progress("starting the API"):
            await self._keep(self._part("api", self._plan.api, api_env, API_STOP_STEPS, ready=self._serves))
        if not web.done():
            async with self._progress("building the playground"):
                await asyncio.wait({web}, timeout=WEB_SECONDS)
            if not web.done():
                _say("the playground's page will be there once it is built")
        if self._plan.traders:
            await self._keep(self._part("traders", self._plan.traders, env, TRADERS_STOP_STEPS))
        if self._postgres:
            _say(f"audit: MEGATRON_ENV=development DATABASE_URL='{self._postgres.dsn}' .venv/bin/megatron audit")
        if not self._options.admin_password_hash:
            _say(f"admin log-in: the name is admin, the password is in {self._password_file}")
        _say(f"ready: {self._options.url}/graphql")

    async def _start_workers(self, env: dict[str, str]) -> None:
        if self._plan.prices:
            await self._keep(self._part("prices", self._plan.prices, env, WORKER_STOP_STEPS))
        stand_in = self._plan.stand_in
        if stand_in:
            listens = partial(_listens, LOOPBACK, stand_in.port)
            await self._keep(self._part("stand-in", stand_in.argv, env, STAND_IN_STOP_STEPS, ready=listens))
            _say("the oracle searches and reads by a local stand-in: there is no key for a provider (.env.example)")
        if self._plan.oracle:
            oracle_env = {**env, **(stand_in.env if stand_in else {})}
            await self._keep(self._part("oracle", self._plan.oracle, oracle_env, WORKER_STOP_STEPS))

    async def _start_postgres(self) -> None:
        server = self._postgres
        if server is None:
            return
        await asyncio.to_thread(server.prepare)
        if not server.exists():
            async with self._progress("making the database"):
                folder = server.new_cluster()
                for command in server.set_up_commands(folder):
                    await self._run_once("postgres", command)
                server.adopt(folder)
        role = Role(
            name="postgres",
            command=server.command,
            ready=partial(asyncio.to_thread, server.is_ready),
            ready_seconds=READY_SECONDS,
            stop_steps=POSTGRES_STOP_STEPS,
            before_start=server.prepare,
        )
        async with self._progress("starting PostgreSQL"):
            await self._keep(role)

    async def _start_valkey(self) -> None:
        server = self._valkey
        if server is None:
            return
        role = Role(
            name="valkey",
            command=server.command,
            ready=partial(asyncio.to_thread, server.is_ready),
            ready_seconds=READY_SECONDS,
            stop_steps=VALKEY_STOP_STEPS,
            before_start=server.prepare,
        )
        async with self._progress("starting Valkey"):
            try:
                await self._keep(role)
            except ChildFailed as error:
                # PostgreSQL is the truth: what Valkey held may be lost, and must not keep the market from starting.
                if not server.holds_data():
                    raise
                _say(f"{error}\nValkey starts afresh; its files are now in {server.set_aside()}")
                await self._keep(role)

    def _part(
        self,
        name: str,
        argv: tuple[str, ...],
        env: dict[str, str],
        stop_steps: tuple[tuple[signal.Signals, float], ...],
        *,
        ready: Callable[[], Awaitable[bool]] | None = None,
    ) -> Role:
        command = Command(argv=argv, folder=Path.cwd(), env=env)
        return Role(
            name=name,
            command=lambda: command,
            ready=ready,
            ready_seconds=READY_SECONDS,
            stop_steps=stop_steps,
        )

    async def _keep(self, role: Role) -> None:
        """Start a child and keep it running. Raises `ChildFailed` when it fails its first start twice."""
        child = self._kept[role.name] = Child(role, data_dir=self._options.data_dir)
        deaths = Deaths()
        try:
            await child.start()
        except ChildFailed as error:
            pause = deaths.another()
            if role.name == "valkey" or pause is None:
                raise
            _say(f"{error}\nstarting {role.name} again")
            await asyncio.sleep(pause)
            await child.start()
        self._background(self._watch(child, deaths))

    async def _watch(self, child: Child, deaths: Deaths) -> None:
        name = child.role.name
        while True:
            what = child.told(f"{name} ended ({ending(await child.ended())})")
            while True:
                pause = deaths.another()
                if pause is None:
                    raise GaveUp(
                        f"{what}\n{name} ended {Deaths.COUNT_MAX} times within {Deaths.WINDOW_SECONDS:.0f} s: "
                        "everything stops"
                    )
                _say(f"{what}\nstarting {name} again")
                await asyncio.sleep(pause)
                try:
                    await child.start()
                except ChildFailed as error:
                    what = str(error)
                    continue
                _say(f"{name} runs again")
                break

    async def _run_once(
        self, name: str, command: Command, *, stop_steps: tuple[tuple[signal.Signals, float], ...] = ONCE_STOP_STEPS
    ) -> None:
        role = Role(name=name, command=lambda: command, ready=None, ready_seconds=READY_SECONDS, stop_steps=stop_steps)
        child = Child(role, data_dir=self._options.data_dir)
        self._passing.add(child)
        try:
            async with asyncio.timeout(ONCE_SECONDS):
                await child.start()
                status = await child.ended()
        except TimeoutError:
            raise ChildFailed(child.told(f"{name} does not end after {ONCE_SECONDS:.0f} s")) from None
        finally:
            await asyncio.shield(child.stop())
            self._passing.discard(child)
        if status != 0:
            raise ChildFailed(child.told(f"{name} failed ({ending(status)})"))

    async def _build_web(self) -> None:
        if self._plan.web:
            command = Command(argv=self._plan.web, folder=Path.cwd(), death_signal=signal.SIGTERM)
            (self._options.data_dir / "logs" / "web.log").unlink(missing_ok=True)
            try:
                await self._run_once("web", command, stop_steps=WEB_STOP_STEPS)
            except ChildFailed as error:
                _say(f"{error}\nthe API runs without the playground's page")
                return
            # One line: built, or what is missing for that.
            for line in last_lines(self._options.data_dir / "logs" / "web.log", count=1):
                _say(line)

    async def _serves(self) -> bool:
        """Whether the API says that it is ready."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                reader, writer = await asyncio.open_connection(self._options.host, self._options.port)
                try:
                    host = self._options.url.removeprefix("http://")
                    writer.write(f"GET /readyz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                    status = (await reader.readline()).split()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False
        return len(status) >= 2 and status[1] == b"200"

    def _environment(self) -> dict[str, str]:
        options = self._options
        env: dict[str, str] = {
            **os.environ,
            "MEGATRON_ENV": "development",
            "MEGATRON_DATA_DIR": str(options.data_dir),
            "MEGATRON_HOST": options.host,
            "MEGATRON_PORT": str(options.port),
            "PYTHONUNBUFFERED": "1",
        }
        env["DATABASE_URL"] = self._postgres.dsn if self._postgres else options.database_url or ""
        env["REDIS_URL"] = self._valkey.url if self._valkey else options.redis_url or ""
        return env

    @property
    def _password_file(self) -> Path:
        return self._options.data_dir / "admin-password"

    async def _hash_admin_password(self) -> None:
        if not self._admin_hash:
            self._admin_hash = await asyncio.to_thread(self._made_admin_hash)

    def _made_admin_hash(self) -> str:
        """The hash of the admin's password, which is made at the first start and stays in the data directory."""
        from argon2 import PasswordHasher  # noqa: PLC0415 - costs time that most of a start can overlap

        file = self._password_file
        password = file.read_text().strip() if file.exists() else ""
        if not password:
            password = secrets.token_urlsafe(18)
            # mkstemp makes it readable by its owner only; the rename makes it whole or absent.
            descriptor, name = tempfile.mkstemp(prefix=".admin-password-", dir=file.parent)
            with os.fdopen(descriptor, "w") as new:
                new.write(f"{password}\n")
                new.flush()
                os.fsync(new.fileno())
            os.replace(name, file)
        file.chmod(0o600)
        return PasswordHasher().hash(password)

    @asynccontextmanager
    async def _progress(self, what: str) -> AsyncIterator[None]:
        """Say what goes on, with the time since the start, and again every few seconds while it does."""
        started = time.monotonic()

        async def remind() -> None:
            while True:
                await asyncio.sleep(PROGRESS_SECONDS)
                _say(f"[{time.monotonic() - self._started:5.1f} s] still {what}")

        reminder = asyncio.create_task(remind())
        try:
            yield
        finally:
            reminder.cancel()
        now = time.monotonic()
        _say(f"[{now - self._started:5.1f} s] {what}: done in {now - started:.1f} s")

    async def _watch_parent(self) -> None:
        parent = take_parent()
        while parent is not None:
            if parent_gave_up(parent):
                self._stop.set()
                return
            await asyncio.sleep(PARENT_POLL_SECONDS)

    async def _trim_logs(self) -> None:
        while True:
            await asyncio.sleep(TRIM_SECONDS)
            for log in (self._options.data_dir / "logs").glob("*.log"):
                await asyncio.to_thread(trim, log)

    def _background(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run `work` beside everything else; its failure is the market's."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._note)
        return task

    def _note(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and self._failure and not self._failure.done():
            self._failure.set_exception(error)

    async def _shut_down(self) -> None:
        self._lock.announce_stop()
        _say("stopping")
        started = time.monotonic()
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        try:
            async with asyncio.timeout(SHUT_DOWN_SECONDS):
                await asyncio.gather(*tasks, return_exceptions=True)
                await asyncio.gather(*(child.stop() for child in self._passing))
                for group in (("traders",), ("api", "prices", "oracle"), ("stand-in", "valkey", "postgres")):
                    await asyncio.gather(*(self._kept[name].stop() for name in group if name in self._kept))
        except TimeoutError:
            for child in (*self._passing, *self._kept.values()):
                if child.pid:
                    with suppress(ProcessLookupError):
                        os.killpg(child.pid, signal.SIGKILL)
        finally:
            if self._postgres:
                self._postgres.clean_up()
            self._runtime.remove()
        _say(f"stopped in {time.monotonic() - started:.1f} s")


async def _listens(host: str, port: int) -> bool:
    """Whether somebody listens there."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def _together(*works: Awaitable[None]) -> None:
    """Wait for all, and raise the first failure alone once the others are cancelled."""

    async def one(work: Awaitable[None]) -> None:
        await work

    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(one(work))
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
