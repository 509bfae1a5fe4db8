"""The protocol graphql-transport-ws: what a client may say over a WebSocket, and what it is told.

A session holds who its client said it is, and looks that up again for each operation. Queries and mutations are
executed as over HTTP; subscriptions are opened elsewhere and write their events through here. Frames are the socket's.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import orjson
import structlog

from api.connections import Connections, account_of
from api.error_format import FormattedError
from api.operation_cache import ReadyOperation
from api.operations import OperationRequest, Operations, Prepared, bearer_token
from api.parameters import BadRequest, FloatText, Parameters, decode_json, kind_of_json, parameters_of
from api.websocket import WebSocket, text_frame
from app.accounts.principals import Principal
from app.errors import ErrorCode, Refused, Unauthenticated, quoted, refuse
from app.ratelimit import RateLimited
from app.realtime.events import Reader, Sink

EXECUTING_MAX: Final = 20
"""Queries and mutations of one connection under way at once."""
REFUSALS_MAX: Final = 100
"""Operations refused in a row after which a connection is closed."""
ID_LENGTH_MAX: Final = 128
SHARED_ID_BYTES_MAX: Final = 48
"""Frames are shared between subscriptions of one id, where it is so short that clients count with it."""
SHARED_FRAMES_MAX: Final = 64

_ACK: Final = text_frame(b'{"type":"connection_ack"}')
_ACK_DEVELOPMENT: Final = text_frame(b'{"type":"connection_ack","payload":{"development":true}}')
_PONG: Final = text_frame(b'{"type":"pong"}')
_log = structlog.get_logger(__name__)

OpenSubscription: TypeAlias = Callable[..., Awaitable[Reader]]
"""`open_subscription(ready=, variables=, context=, sink=)`: raises what the client must be told."""


@dataclass(frozen=True, slots=True)
class SessionServices:
    """What all sessions of a process share."""

    operations: Operations
    connections: Connections
    open_subscription: OpenSubscription
    subscriptions_max: int
    """Of one connection."""
    development: bool


class _SharedFrames:
    """The frames made of the last payload, by what stands before it: readers who share a payload come one after the
    other, and many of them use the same id."""

    __slots__ = ("frames", "payload")

    def __init__(self) -> None:
        self.payload: bytes | None = None
        self.frames: dict[bytes, bytes] = {}


_shared: Final = _SharedFrames()


class _Operation:
    """An operation of a session until its end; as a subscription's `Sink` it writes the events."""

    __slots__ = ("_before", "_write", "account_id", "id", "is_counted", "reader", "session")

    def __init__(self, session: "Session", id_: str) -> None:
        self.session = session
        self.id = id_
        self.reader: Reader | None = None
        self.is_counted = False
        self.account_id: int | None = None
        self._before = b'{"id":%b,"type":"next","payload":' % orjson.dumps(id_)
        self._write: Callable[[bytes], None] | None = session.socket.transport.write

    @property
    def is_over(self) -> bool:
        """Whether nothing more may be said of it."""
        return self._write is None

    def send(self, payload: bytes) -> None:
        """Send a result."""
        if self.session.socket.paused:
            self.session.socket.check_backlog()
        write = self._write
        if write is None:
            return
        before, shared = self._before, _shared
        if payload is not shared.payload:
            shared.payload = payload
            shared.frames = {}
        frame = shared.frames.get(before)
        if frame is None:
            frame = text_frame(b"%b%b}" % (before, payload))
            if len(before) <= SHARED_ID_BYTES_MAX and len(shared.frames) < SHARED_FRAMES_MAX:
                shared.frames[before] = frame
        write(frame)

    @property
    def congested(self) -> bool:
        """Whether the socket's outgoing buffer is above its high-water mark."""
        return self.session.socket.paused

    def complete(self) -> None:
        """Tell the reader that there will be no more."""
        self._conclude({"id": self.id, "type": "complete"})

    def answer(self, result: bytes) -> None:
        """Send the only result, and that it was the last."""
        write = self._write
        if write is not None:
            complete = text_frame(orjson.dumps({"id": self.id, "type": "complete"}))
            self.end()
            write(text_frame(b"%b%b}" % (self._before, result)) + complete)

    def fail(self, errors: list[FormattedError]) -> None:
        """Tell the client why the operation is not executed."""
        self._conclude({"id": self.id, "type": "error", "payload": errors})

    def too_slow(self) -> None:
        """Close the whole connection: its reader does not keep up."""
        self.session.socket.too_slow()

    def _conclude(self, message: dict[str, object]) -> None:
        write = self._write
        if write is not None:
            self.end()
            write(text_frame(orjson.dumps(message)))

    def end(self) -> None:
        """Say nothing more; may be called again."""
        if self._write is not None:
            self._write = None
            self.session.forget(self)
            if self.reader is not None:
                self.reader.close()


class Session:
    """What is said over one socket."""

    __slots__ = (
        "_authorization",
        "_executing",
        "_operations",
        "_principal",
        "_ready",
        "_refusals",
        "_running",
        "_services",
        "_subscriptions",
        "socket",
    )

    def __init__(self, socket: WebSocket, services: SessionServices) -> None:
        self.socket = socket
        self._services = services
        self._operations: dict[str, _Operation] = {}
        self._authorization: str | None = None
        self._principal: Principal | None = None
        """Who the client was when it came, once that is known."""
        self._ready: bool | None = None
        """None before connection_init, False until it has been answered."""
        self._running = 0
        self._executing = 0
        self._subscriptions = 0
        self._refusals = 0

    # ------------------------------------------------------------------------------------------------ messages

    def text(self, message: str) -> None:
        """A message has come."""
        try:
            decoded = decode_json(message, "The message")
            if not isinstance(decoded, dict):
                raise BadRequest(f"The message must be an object, not {kind_of_json(decoded)}")
            type_ = decoded.get("type")
            handle = _HANDLERS.get(type_) if isinstance(type_, str) else None
            if handle is None:
                raise BadRequest(_unknown_type(decoded))
            handle(self, decoded)
        except BadRequest as error:
            self.socket.close(4400, str(error))

    def _connection_init(self, message: dict[str, Any]) -> None:
        if self._ready is not None:
            self.socket.close(4429, "Too many initialisation requests")
            return
        self._ready = False
        self._authorization = _authorization(_payload(message))
        self.socket.spawn(self._introduce())

    async def _introduce(self) -> None:
        try:
            principal = await self._admitted()
            if self.socket_is_gone:
                return
            self._services.connections.take_account(principal)
        except Unauthenticated as error:
            self.socket.close(4403, str(error))
        except RateLimited as limited:
            self.socket.close(1013, str(limited))
        except Exception as error:
            if not isinstance(error, Refused):
                _log.error("socket.init_failed", exc_info=error)
            self.socket.close(1013, "Try again later: nobody can say now who you are")
        else:
            self._principal = principal
            self._services.connections.watch(principal, self)
            self._ready = True
            self.socket.introduced()
            self.socket.transport.write(_ACK_DEVELOPMENT if self._services.development else _ACK)

    async def _admitted(self) -> Principal:
        try:
            bearer_token(self._authorization)
        except Unauthenticated:
            raise Unauthenticated('authorization must be "Bearer" and a token, as in "Bearer mgs_..."') from None
        return await self._services.operations.admit(self._request(), 1)

    def _ping(self, message: dict[str, Any]) -> None:
        payload = _payload(message)
        if payload is None:
            self.socket.transport.write(_PONG)
        else:
            try:
                pong = orjson.dumps({"type": "pong", "payload": payload}, default=_as_written)
            except TypeError as error:
                raise BadRequest(f"The payload of ping cannot be sent back: {error}") from None
            self.socket.transport.write(text_frame(pong))

    def _pong(self, message: dict[str, Any]) -> None:
        _payload(message)

    def _complete(self, message: dict[str, Any]) -> None:
        operation = self._operations.get(_id(message))
        if operation is not None:
            operation.end()

    def _subscribe(self, message: dict[str, Any]) -> None:
        id_ = _id(message)
        payload = message.get("payload")
        if not isinstance(payload, dict):
            said = f"it is {kind_of_json(payload)}" if "payload" in message else "it is missing"
            raise BadRequest(f"The payload of subscribe must be an object; {said}")
        parameters = parameters_of(payload)
        if not self._ready:
            self.socket.close(4401, "Unauthorized: say connection_init, and wait for connection_ack")
            return
        if id_ in self._operations:
            self.socket.close(4409, f"Subscriber for {id_} already exists")
            return
        operation = self._operations[id_] = _Operation(self, id_)
        request = self._request()
        if self._running >= EXECUTING_MAX + self._services.subscriptions_max:
            self._refuse(operation, request, refuse(ErrorCode.OVERLOADED, "Too many operations are under way here."))
            return
        self._running += 1
        self.socket.spawn(self._run(operation, request, parameters))

    def _request(self) -> OperationRequest:
        return OperationRequest(
            self._services.operations.new_request_id(), self.socket.client_ip, self._authorization, time.perf_counter()
        )

    # ------------------------------------------------------------------------------------------------ operations

    async def _run(self, operation: _Operation, request: OperationRequest, parameters: Parameters) -> None:
        operations = self._services.operations
        try:
            operations.enter()
            try:
                await self._answer(operation, request, parameters)
            finally:
                operations.leave()
        except Exception as error:
            self._refuse(operation, request, error)
        finally:
            self._running -= 1

    async def _answer(self, operation: _Operation, request: OperationRequest, parameters: Parameters) -> None:
        prepared = await self._services.operations.prepare(request, parameters)
        if operation.is_over:
            return
        if isinstance(prepared, list):
            self._told(operation, prepared)
        elif prepared.is_subscription:
            await self._open(operation, prepared)
        else:
            await self._execute(operation, request, prepared)

    async def _execute(self, operation: _Operation, request: OperationRequest, prepared: Prepared) -> None:
        if self._executing >= EXECUTING_MAX:
            raise refuse(
                ErrorCode.OVERLOADED,
                f"Too many operations are under way: a connection may have {EXECUTING_MAX} at once.",
            )
        self._executing += 1
        try:
            result = orjson.dumps(await self._services.operations.execute(request, prepared))
        finally:
            self._executing -= 1
        self._refusals = 0
        operation.answer(result)

    async def _open(self, operation: _Operation, prepared: Prepared) -> None:
        maximum = self._services.subscriptions_max
        if self._subscriptions >= maximum:
            raise RateLimited(
                f"Too many subscriptions: a connection may have {maximum} at once "
                "(MEGATRON_SUBSCRIPTIONS_PER_CONNECTION); complete some first.",
                retry_after_ms=1_000,
            )
        account_id = account_of(prepared.context.principal)
        self._services.connections.take_subscription(self.socket.client_ip, account_id)
        self._subscriptions += 1
        operation.account_id, operation.is_counted = account_id, True
        ready: ReadyOperation = prepared.ready
        sink: Sink = operation
        reader = await self._services.open_subscription(
            ready=ready, variables=prepared.variables, context=prepared.context, sink=sink
        )
        self._refusals = 0
        if operation.is_over:
            # Completed or cut off while it was opened.
            reader.close()
            return
        operation.reader = reader
        if self.socket.paused:
            reader.congested()

    def _refuse(self, operation: _Operation, request: OperationRequest, error: Exception) -> None:
        formatted = self._services.operations.failure(error, request)
        self._told(operation, [formatted])

    def _told(self, operation: _Operation, errors: list[FormattedError]) -> None:
        operation.fail(errors)
        self._refusals += 1
        if self._refusals > REFUSALS_MAX:
            self.socket.close(4429, f"Too many refused operations: {REFUSALS_MAX} in a row")

    def forget(self, operation: _Operation) -> None:
        """The operation has ended: its id may be used again."""
        self._operations.pop(operation.id, None)
        if operation.is_counted:
            operation.is_counted = False
            self._subscriptions -= 1
            self._services.connections.release_subscription(self.socket.client_ip, operation.account_id)

    # ------------------------------------------------------------------------------------------------ the socket

    @property
    def socket_is_gone(self) -> bool:
        """Whether the socket was closed while something was awaited."""
        return self._ready is None

    def closed(self) -> None:
        """The socket is closing or lost."""
        self._ready = None
        for operation in list(self._operations.values()):
            operation.end()
        principal, self._principal = self._principal, None
        if principal is not None:
            self._services.connections.unwatch(principal, self)
            self._services.connections.release_account(principal)

    def congested(self) -> None:
        """More is unsent than should be."""
        for operation in list(self._operations.values()):
            if operation.reader is not None:
                operation.reader.congested()

    def drained(self) -> None:
        """It has been sent."""
        for operation in list(self._operations.values()):
            if operation.reader is not None:
                operation.reader.drained()

    def init_late(self) -> None:
        """No connection_init in time."""
        self.socket.close(4408, "Connection initialisation timeout")

    def session_ended(self) -> None:
        """The client's session has ended: so does the connection."""
        self.socket.close(4401, "Session ended: log in again")


_HANDLERS: Final[dict[str, Callable[[Session, dict[str, Any]], None]]] = {
    "connection_init": Session._connection_init,
    "ping": Session._ping,
    "pong": Session._pong,
    "subscribe": Session._subscribe,
    "complete": Session._complete,
}


def _as_written(value: object) -> orjson.Fragment:
    """A JSON number with a fraction or an exponent, digit for digit."""
    if isinstance(value, FloatText):
        return orjson.Fragment(value.text)
    raise TypeError(f"it has {quoted(value)}")


def _unknown_type(message: dict[str, Any]) -> str:
    type_ = message.get("type")
    if type_ is None:
        return "The message has no type"
    if not isinstance(type_, str):
        return f"The message's type must be a string, not {kind_of_json(type_)}"
    return f"The message's type is unknown: {quoted(type_)}"


def _id(message: dict[str, Any]) -> str:
    id_ = message.get("id")
    if not isinstance(id_, str):
        said = f"it is {kind_of_json(id_)}" if "id" in message else "it is missing"
        raise BadRequest(f"The message's id must be a string; {said}")
    if not 1 <= len(id_) <= ID_LENGTH_MAX:
        raise BadRequest(f"The message's id must have 1 to {ID_LENGTH_MAX} characters; it has {len(id_)}")
    return id_


def _payload(message: dict[str, Any]) -> dict[str, Any] | None:
    payload = message.get("payload")
    if payload is not None and not isinstance(payload, dict):
        raise BadRequest(f"The payload of {message['type']} must be an object, not {kind_of_json(payload)}")
    return payload


def _authorization(payload: dict[str, Any] | None) -> str | None:
    """What the payload of connection_init says under "authorization", in whichever case."""
    for name, value in (payload or {}).items():
        if name.lower() == "authorization" and value is not None:
            if not isinstance(value, str):
                raise BadRequest(f"authorization must be a string, not {kind_of_json(value)}")
            return value
    return None
