"""What lives longer than a request: WebSockets and event streams, how many there may be, and until when.

One of these for each process. It counts connections and subscriptions by address and account, ends those whose
session has ended, looks after silent and late peers from one task, and tells event streams when the process stops.
Knows nothing of frames or of GraphQL.
"""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Hashable
from itertools import count
from typing import Final, Generic, Protocol, TypeVar

import structlog

from app.accounts.principals import AccountPrincipal, AdminPrincipal, Credential, Principal
from app.accounts.session_watch import ended_credentials
from app.ratelimit import RateLimited, counted_address
from app.services import Services

SWEEP_SECONDS: Final = 0.5
BEAT_SECONDS: Final = 20
"""Every so often each socket is pinged, and dropped when it has been silent since the last time."""
WATCH_SECONDS: Final = 2.0
"""Every so often the sessions behind all connections are looked up."""
RETRY_AFTER_MS: Final = 5_000

_BEATS: Final = int(BEAT_SECONDS / SWEEP_SECONDS)
_log = structlog.get_logger(__name__)
Key = TypeVar("Key", bound=Hashable)


class Connected(Protocol):
    """A connection, as far as it can be ended from here."""

    def session_ended(self) -> None:
        """End: its session has."""


class Swept(Protocol):
    """A socket, as far as it is looked after from here."""

    def beat(self) -> None:
        """Ping, or drop a peer that has been silent since the last time."""

    def deadline_passed(self) -> None:
        """The time given by `Connections.expect` is over."""


class Stoppable(Protocol):
    """A stream, as far as it is told that the process stops."""

    def stop(self) -> None:
        """End at once, so that the reader comes back elsewhere."""


class Tally(Generic[Key]):
    """How many each key has of something there may be `limit` of."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._counts: dict[Key, int] = {}

    def take(self, key: Key) -> bool:
        """Count one more, unless there are `limit` already; whether it was counted."""
        count = self._counts.get(key, 0)
        if count >= self.limit:
            return False
        self._counts[key] = count + 1
        return True

    def give_back(self, key: Key) -> None:
        """Count one less."""
        count = self._counts[key] - 1
        if count:
            self._counts[key] = count
        else:
            del self._counts[key]

    def __len__(self) -> int:
        return len(self._counts)

    @property
    def total(self) -> int:
        """Of all keys."""
        return sum(self._counts.values())


class Connections:
    """All connections of a process. Its tasks run while there is something to look after."""

    def __init__(self, services: Services) -> None:
        settings = services.settings
        self._database = services.database
        self._addresses = Tally[str](settings.connections_per_ip)
        self._accounts = Tally[int](settings.connections_per_account)
        self._subscriptions_of_addresses = Tally[str](settings.subscriptions_per_ip)
        self._subscriptions_of_accounts = Tally[int](settings.subscriptions_per_account)
        self._watched: dict[Credential, set[Connected]] = {}
        self._wheel: list[set[Swept]] = [set() for _ in range(_BEATS)]
        self._spokes = count()
        self._deadlines: dict[Swept, float] = {}
        self._streams: set[Stoppable] = set()
        self._tasks: dict[Callable[[], Coroutine[None, None, None]], asyncio.Task[None]] = {}
        self.stopping = False

    # ------------------------------------------------------------------------------------------------ limits

    @property
    def open(self) -> int:
        """WebSockets and event streams at this moment."""
        return self._addresses.total

    @property
    def subscriptions(self) -> int:
        """Subscriptions at this moment."""
        return self._subscriptions_of_addresses.total

    def take_address(self, client_ip: str) -> None:
        """Count a connection by its address; `release_address` ends it. Raises `RateLimited`."""
        if not self._addresses.take(counted_address(client_ip)):
            raise _too_many("connections", self._addresses.limit, "this address", "MEGATRON_CONNECTIONS_PER_IP")

    def release_address(self, client_ip: str) -> None:
        """The connection is over."""
        self._addresses.give_back(counted_address(client_ip))

    def take_account(self, principal: Principal) -> None:
        """Count a connection by its account, if it has one; `release_account` ends it. Raises `RateLimited`."""
        account_id = account_of(principal)
        if account_id is not None and not self._accounts.take(account_id):
            raise _too_many("connections", self._accounts.limit, "this account", "MEGATRON_CONNECTIONS_PER_ACCOUNT")

    def release_account(self, principal: Principal) -> None:
        """The connection is over."""
        account_id = account_of(principal)
        if account_id is not None:
            self._accounts.give_back(account_id)

    def take_subscription(self, client_ip: str, account_id: int | None) -> None:
        """Count a subscription; `release_subscription` ends it. Raises `RateLimited`."""
        address = counted_address(client_ip)
        by_address, by_account = self._subscriptions_of_addresses, self._subscriptions_of_accounts
        if not by_address.take(address):
            raise _too_many("subscriptions", by_address.limit, "this address", "MEGATRON_SUBSCRIPTIONS_PER_IP")
        if account_id is not None and not by_account.take(account_id):
            by_address.give_back(address)
            raise _too_many("subscriptions", by_account.limit, "this account", "MEGATRON_SUBSCRIPTIONS_PER_ACCOUNT")

    def release_subscription(self, client_ip: str, account_id: int | None) -> None:
        """The subscription is over."""
        self._subscriptions_of_addresses.give_back(counted_address(client_ip))
        if account_id is not None:
            self._subscriptions_of_accounts.give_back(account_id)

    # ------------------------------------------------------------------------------------------------ sessions

    def watch(self, principal: Principal, connected: Connected) -> None:
        """Tell `connected` when the session of `principal` ends, at most 5 s after it did."""
        credential = _credential_of(principal)
        if credential is not None:
            self._watched.setdefault(credential, set()).add(connected)
            self._run(self._watch_sessions)

    def unwatch(self, principal: Principal, connected: Connected) -> None:
        """The connection is over."""
        credential = _credential_of(principal)
        if credential is not None:
            watching = self._watched.get(credential, set())
            watching.discard(connected)
            if not watching:
                self._watched.pop(credential, None)

    async def _watch_sessions(self) -> None:
        while self._watched:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                async with self._database.acquire() as connection:
                    ended = await ended_credentials(connection=connection, credentials=list(self._watched))
            except Exception as error:
                # Nobody can say now; operations are refused meanwhile, since their tokens cannot be looked up either.
                _log.warning("connections.sessions_unknown", error=repr(error))
                continue
            for credential in ended:
                for connected in list(self._watched.get(credential, ())):
                    _call(connected.session_ended)

    # ------------------------------------------------------------------------------------------------ sweeping

    def add(self, swept: Swept) -> int:
        """Look after a socket from now on; the number to give to `remove`."""
        spoke = next(self._spokes) % _BEATS
        self._wheel[spoke].add(swept)
        self._run(self._sweep)
        return spoke

    def remove(self, swept: Swept, spoke: int) -> None:
        """The socket is gone."""
        self._wheel[spoke].discard(swept)
        self._deadlines.pop(swept, None)

    def expect(self, swept: Swept, seconds: float) -> None:
        """Call its `deadline_passed` after `seconds`, unless told otherwise before; a new time replaces the old."""
        self._deadlines[swept] = asyncio.get_running_loop().time() + seconds

    def met(self, swept: Swept) -> None:
        """What was expected has happened."""
        self._deadlines.pop(swept, None)

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        spoke = 0
        while any(self._wheel) or self._deadlines:
            await asyncio.sleep(SWEEP_SECONDS)
            spoke = (spoke + 1) % _BEATS
            for swept in list(self._wheel[spoke]):
                _call(swept.beat)
            now = loop.time()
            for swept in [each for each, until in self._deadlines.items() if until <= now]:
                del self._deadlines[swept]
                _call(swept.deadline_passed)

    # ------------------------------------------------------------------------------------------------ the end

    def add_stream(self, stream: Stoppable) -> None:
        """Tell an event stream when the process stops."""
        self._streams.add(stream)
        if self.stopping:
            stream.stop()

    def remove_stream(self, stream: Stoppable) -> None:
        """The stream is over."""
        self._streams.discard(stream)

    def stop(self) -> None:
        """The process stops: end the event streams, and those that still come. Sockets are told by the server."""
        self.stopping = True
        for stream in list(self._streams):
            _call(stream.stop)

    async def close(self) -> None:
        """End the tasks."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _run(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        known = self._tasks.get(work)
        if known is None or known.done():
            # In a context of its own: it serves all connections and must not carry the first one's.
            self._tasks[work] = asyncio.create_task(work(), context=contextvars.Context())


def _call(what: Callable[[], None]) -> None:
    """One connection's trouble is not the others'."""
    try:
        what()
    except Exception as error:
        _log.error("connections.failed", exc_info=error)


def account_of(principal: Principal) -> int | None:
    """The account that `principal` is; None for an admin and for nobody."""
    return principal.account_id if isinstance(principal, AccountPrincipal) else None


def _credential_of(principal: Principal) -> Credential | None:
    match principal:
        case AccountPrincipal():
            return principal.credential
        case AdminPrincipal():
            return Credential("session", principal.session_id)
        case _:
            return None


def _too_many(what: str, limit: int, whose: str, setting: str) -> RateLimited:
    return RateLimited(
        f"Too many {what}: {whose} may have {limit} at once ({setting}); end some, or try again later.",
        retry_after_ms=RETRY_AFTER_MS,
    )
