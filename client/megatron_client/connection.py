"""One WebSocket for many subscriptions and requests, by the protocol graphql-transport-ws. Knows nothing of markets.

The connection is made when it is first needed and made again when it is cut: each subscription then goes on after the
last event that it was given (`after`). What connecting again does not cure ends all that is under way with its error.
"""

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Final

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, NegotiationError, WebSocketException

from megatron_client.errors import BadMessage, MegatronError, RequestFailed, TokenRefused, socket_closed
from megatron_client.requests import Backoff, Fault, Operation, Unanswered
from megatron_client.wire import Json

SUBPROTOCOL: Final = "graphql-transport-ws"
OPEN_SECONDS_MAX: Final = 10.0
ANSWER_SECONDS_MAX: Final = 15.0
SILENT_HEARTBEATS: Final = 3
"""A subscription that hears nothing for so many heartbeats has lost its server: the connection is made again."""
EVENTS_WAITING_MAX: Final = 1_000
"""Events kept for a reader that is busy. More are not lost: the subscription ends, and goes on when the reader does."""
MESSAGE_BYTES_MAX: Final = 16 * 2**20
_LIMITED: Final = (429, 500, 502, 503, 504)
"""Statuses of a refused upgrade that another attempt may cure."""

log = logging.getLogger(__name__)


class _Lost(Exception):  # noqa: N818
    """The connection is gone; another may do."""


@dataclass(slots=True)
class ConnectionState:
    """How the connection stands, for people: `trouble` says why it is down, `attempts` how often it failed in a row."""

    is_open: bool = False
    trouble: str = ""
    attempts: int = 0


@dataclass(eq=False, slots=True)
class _Subscription:
    """What one reader reads. `wire_id` is None while nothing is subscribed on the wire."""

    operation: Operation
    variables: Mapping[str, object]
    cursor: str | None
    backoff: Backoff
    events: deque[Json] = field(default_factory=deque)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    failure: MegatronError | None = None
    wire_id: str | None = None
    heard_at: float = 0.0
    is_behind: bool = False

    def fail(self, error: MegatronError) -> None:
        """End with this error, after what has arrived."""
        self.failure = error
        self.news.set()


@dataclass(slots=True)
class _Asked:
    """A query or mutation that waits for its answer."""

    body: Json
    answer: asyncio.Future[Json]
    is_sent: bool = False


class Connection:
    """The socket at `url` (ws or wss). `token` is asked each time that the connection is made."""

    def __init__(
        self,
        url: str,
        *,
        token: Callable[[], str | None],
        heartbeat_seconds: int,
        proxies: bool,
        chance: Random,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._url = url
        self._token = token
        self._silence_s = SILENT_HEARTBEATS * heartbeat_seconds
        self._proxies = proxies
        self._chance = chance
        self._pause = pause
        self._backoff = Backoff(chance, pause)
        self._numbers = itertools.count(1)
        self._subscriptions: set[_Subscription] = set()
        self._on_wire: dict[str, _Subscription] = {}
        self._asked: dict[str, _Asked] = {}
        self._socket: ClientConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._waits: set[asyncio.Task[None]] = set()
        self._cut_by_us = ""
        self._is_closed = False
        self.state = ConnectionState()

    # ------------------------------------------------------------------------------------------ subscriptions

    async def events(
        self, operation: Operation, variables: Mapping[str, object], *, after: str | None = None
    ) -> AsyncGenerator[Json, None]:
        """The events of a subscription, heartbeats included, for as long as they are read.

        Raises `RequestFailed` when the server refuses it, and `SocketClosed` for what lasts.
        """
        one = _Subscription(operation, variables, after, Backoff(self._chance, self._pause))
        self._subscriptions.add(one)
        try:
            await self._subscribe(one)
            while True:
                while one.events:
                    yield one.events.popleft()
                if one.failure is not None:
                    raise one.failure
                one.news.clear()
                if one.is_behind:
                    await self._subscribe(one)
                await one.news.wait()
        finally:
            self._subscriptions.discard(one)
            await self._unsubscribe(one)

    async def _subscribe(self, one: _Subscription) -> None:
        """Subscribe on the wire from its cursor on; later, when the connection is not open."""
        one.is_behind = False
        self._start()
        if self._socket is None or one not in self._subscriptions or one.wire_id is not None:
            return
        one.wire_id = wire_id = str(next(self._numbers))
        one.heard_at = asyncio.get_running_loop().time()
        self._on_wire[wire_id] = one
        variables = dict(one.variables) if one.cursor is None else {**one.variables, "after": one.cursor}
        await self._send({"id": wire_id, "type": "subscribe", "payload": one.operation.body(variables)})

    async def _unsubscribe(self, one: _Subscription) -> None:
        wire_id, one.wire_id = one.wire_id, None
        if wire_id is not None and self._on_wire.pop(wire_id, None) is not None:
            await self._send({"id": wire_id, "type": "complete"})

    def _again(self, one: _Subscription, at_least_s: float) -> None:
        """Subscribe again after a pause, from the cursor on."""

        async def later() -> None:
            await one.backoff.wait(at_least_s)
            await self._subscribe(one)

        wait = asyncio.create_task(later())
        self._waits.add(wait)
        wait.add_done_callback(self._waits.discard)

    async def _take_event(self, one: _Subscription, payload: Json) -> None:
        one.heard_at = asyncio.get_running_loop().time()
        if payload.get("errors"):
            await self._unsubscribe(one)
            self._refused(one, payload["errors"])
            return
        event: Json = next(iter(payload["data"].values()))
        one.cursor = event.get("cursor") or one.cursor
        one.backoff.reset()
        one.events.append(event)
        one.news.set()
        if len(one.events) >= EVENTS_WAITING_MAX:
            one.is_behind = True
            await self._unsubscribe(one)

    def _refused(self, one: _Subscription, errors: list[Json]) -> None:
        fault = Fault.read(errors[0] if errors else {})
        if fault.retry_seconds is None:
            one.fail(fault.error())
        else:
            log.info("%s is subscribed again: %s %s", one.operation.name, fault.code, fault.message)
            self._again(one, fault.retry_seconds)

    # ------------------------------------------------------------------------------------------ requests

    async def ask(self, body: Json, token: str | None) -> Json:
        """The answer to a query or mutation, as `requests.Carrier` has it; `token` is the connection's own."""
        del token
        number = str(next(self._numbers))
        self._asked[number] = asked = _Asked(body, asyncio.get_running_loop().create_future())
        try:
            self._start()
            await self._send_asked(number)
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                return await asked.answer
        except TimeoutError as error:
            raise Unanswered(self.state.trouble or "no answer in time", reached=asked.is_sent) from error
        finally:
            del self._asked[number]

    async def _send_asked(self, number: str) -> None:
        asked = self._asked.get(number)
        if asked is not None and self._socket is not None and not asked.is_sent:
            asked.is_sent = True
            await self._send({"id": number, "type": "subscribe", "payload": asked.body})

    # ------------------------------------------------------------------------------------------ the connection

    def _start(self) -> None:
        if self._is_closed:
            raise MegatronError("the client is closed")
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
            # Its error is given to all that wait; here it would only be logged as never retrieved.
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())

    def renew(self, why: str) -> None:
        """Make the connection again, as after another log-in; subscriptions go on where they are."""
        if self._socket is not None:
            self._cut_by_us = why
            self._socket.transport.abort()

    async def close(self) -> None:
        """End the connection; what still reads ends with an error."""
        self._is_closed = True
        for wait in list(self._waits):
            wait.cancel()
        if self._task is not None:
            socket, self._socket = self._socket, None
            if socket is not None:
                await socket.close()
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._fail_all(MegatronError("the client is closed"))

    async def _run(self) -> None:
        """Connect, serve, and connect again, until an error that lasts."""
        while True:
            try:
                await self._connect_once()
            except _Lost as lost:
                self.state.trouble = str(lost)
                self.state.attempts += 1
                log.info("the connection to %s is made again: %s", self._url, lost)
            except Exception as error:
                lasting = error if isinstance(error, MegatronError) else BadMessage(4400, f"not understood: {error!r}")
                self.state.trouble = str(lasting)
                self._fail_all(lasting)
                raise
            await self._backoff.wait()

    async def _connect_once(self) -> None:
        try:
            async with connect(
                self._url,
                subprotocols=[SUBPROTOCOL],  # type: ignore[list-item] # websockets' NewType of str
                compression=None,
                open_timeout=OPEN_SECONDS_MAX,
                max_size=MESSAGE_BYTES_MAX,
                proxy=True if self._proxies else None,
            ) as socket:
                await self._greet(socket)
                await self._serve(socket)
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else 1006
            reason = closed.rcvd.reason if closed.rcvd else ""
            why, self._cut_by_us = self._cut_by_us, ""
            if (lasting := socket_closed(code, reason)) is not None:
                raise lasting from closed
            raise _Lost(why or f"closed with {code} {reason}".rstrip()) from closed
        except InvalidStatus as refused:
            raise _refused_upgrade(refused, self._url) from refused
        except NegotiationError as error:
            raise BadMessage(4406, f"{self._url} does not speak {SUBPROTOCOL}: {error}") from error
        except (OSError, TimeoutError, WebSocketException, ValueError) as error:
            raise _Lost(f"{type(error).__name__}: {error}".rstrip(": ")) from error

    async def _greet(self, socket: ClientConnection) -> None:
        if socket.subprotocol != SUBPROTOCOL:
            raise BadMessage(4406, f"{self._url} does not speak {SUBPROTOCOL}")
        token = self._token()
        payload = {"authorization": f"Bearer {token}"} if token else {}
        async with asyncio.timeout(OPEN_SECONDS_MAX):
            await socket.send(orjson.dumps({"type": "connection_init", "payload": payload}).decode())
            while True:
                message: Json = orjson.loads(await socket.recv())
                if message["type"] == "connection_ack":
                    return
                if message["type"] == "ping":
                    await socket.send('{"type":"pong"}')

    async def _serve(self, socket: ClientConnection) -> None:
        """Subscribe what there is and read until the connection ends."""
        self._socket = socket
        self.state.is_open, self.state.attempts, self.state.trouble = True, 0, ""
        watchman = asyncio.create_task(self._watch_silence())
        try:
            for one in list(self._subscriptions):
                if not one.is_behind:
                    await self._subscribe(one)
            for number in list(self._asked):
                await self._send_asked(number)
            while True:
                await self._take(orjson.loads(await socket.recv()))
                self._backoff.reset()
        finally:
            watchman.cancel()
            self._socket = None
            self.state.is_open = False
            for one in self._on_wire.values():
                one.wire_id = None
            self._on_wire.clear()
            for asked in self._asked.values():
                if asked.is_sent and not asked.answer.done():
                    asked.answer.set_exception(Unanswered("the connection was cut", reached=True))

    async def _take(self, message: Json) -> None:
        kind = message["type"]
        if kind == "ping":
            await self._send({"type": "pong"})
            return
        wire_id = message.get("id", "")
        asked = self._asked.get(wire_id)
        if asked is not None:
            if kind != "complete" and not asked.answer.done():
                asked.answer.set_result(message["payload"] if kind == "next" else {"errors": message["payload"]})
            return
        one = self._on_wire.get(wire_id)
        if one is None:
            return
        if kind == "next":
            await self._take_event(one, message["payload"])
        elif kind in ("error", "complete"):
            del self._on_wire[wire_id]
            one.wire_id = None
            if kind == "error":
                self._refused(one, message["payload"])
            else:
                # Streams of the market have no end of their own.
                self._again(one, 0.0)

    async def _send(self, message: Json) -> None:
        if self._socket is not None:
            try:
                await self._socket.send(orjson.dumps(message).decode())
            except ConnectionClosed:
                log.debug("not sent: the connection is closed")  # who reads it finds out, and says why

    async def _watch_silence(self) -> None:
        """Cut the connection when a subscription has heard nothing for several heartbeats."""
        clock = asyncio.get_running_loop().time
        while True:
            heard = [one.heard_at for one in self._on_wire.values()]
            silent_s = clock() - min(heard) if heard else 0.0
            if silent_s > self._silence_s:
                self.renew(f"nothing was heard for {silent_s:.0f} s")
                return
            await asyncio.sleep(self._silence_s - silent_s + 0.01)

    def _fail_all(self, error: MegatronError) -> None:
        for one in self._subscriptions:
            one.fail(error)
        for asked in self._asked.values():
            if not asked.answer.done():
                asked.answer.set_exception(error)


def _refused_upgrade(refused: InvalidStatus, url: str) -> Exception:
    status = refused.response.status_code
    if status in _LIMITED:
        return _Lost(f"{url} answered {status}")
    if status in (401, 403):
        return TokenRefused(4403, f"{url} answered {status} instead of opening a socket")
    return RequestFailed(f"HTTP_{status}", f"{url} answered {status} instead of opening a socket")
