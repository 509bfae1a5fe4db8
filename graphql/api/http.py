"""GraphQL over HTTP: one endpoint that answers POST and GET as the GraphQL-over-HTTP specification has it.

Plain ASGI, without request and response objects: this is every order's path. Reading the request is `http_request`,
admission and execution are `operations`, event streams are `sse`; here is the order in which things happen. The
playground, the other routes and the Host header are the application's.

Statuses: a request that is no GraphQL request is 4xx. A document or variables that cannot be executed are 400 as
application/graphql-response+json and 200 as application/json, as the specification has it. A token that is not valid
is 401 and an exhausted rate limit 429 in both, so that HTTP clients and proxies understand them. What was executed is
200, whatever its fields ended with. An event stream is 200 too, and tells within it what cannot be executed.
"""

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import orjson
import structlog
from graphql import OperationType
from starlette.types import Message, Receive, Scope, Send

from api.connections import Connections
from api.http_request import (
    EVENT_STREAM,
    GRAPHQL_RESPONSE,
    JSON,
    Accepted,
    ClientGone,
    Headers,
    HttpRefusal,
    accepted_types,
    read_get,
    read_post,
)
from api.operations import OperationRequest, Operations, Prepared
from api.parameters import BadRequest, Parameters
from api.peers import Origins, client_address
from api.sse import EventStream, single
from api.transport_ws import OpenSubscription
from app.errors import Unauthenticated
from app.http_protocol import ABORT
from app.ratelimit import Quota, RateLimited

PREFLIGHT_SECONDS: Final = 600

RawHeader: TypeAlias = tuple[bytes, bytes]

_REQUEST_ID: Final = re.compile(rb"[!-~]{1,64}")
_ALLOWED: Final[RawHeader] = (b"allow", b"GET, POST, OPTIONS")
_SAFE: Final[tuple[RawHeader, ...]] = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
_HEADERS: Final[dict[str, tuple[RawHeader, ...]]] = {
    media_type: ((b"content-type", f"{media_type}; charset=utf-8".encode()), *_SAFE)
    for media_type in (JSON, GRAPHQL_RESPONSE)
} | {EVENT_STREAM: ((b"content-type", EVENT_STREAM.encode()), *_SAFE, (b"x-accel-buffering", b"no"))}
_JSON_ONLY: Final = Accepted(JSON)
_HINT_TO_ANONYMOUS: Final = "What needs no log-in, logIn itself included, must come without the Authorization header."
_EXPOSED: Final = b"x-request-id, ratelimit, ratelimit-policy, retry-after"
_NO_SUBSCRIPTIONS: Final = (
    "Subscriptions are not answered over plain HTTP: use a WebSocket at this address, with the subprotocol "
    "graphql-transport-ws, or ask for an event stream by Accept: text/event-stream."
)
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Request(OperationRequest):
    """What is known of a request while it is answered."""

    headers: Headers = field(default_factory=dict)
    accepted: Accepted = _JSON_ONLY
    abort: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class _Answer:
    """`as_stream`: the body is one result in an event stream."""

    status: int
    body: dict[str, Any] | None
    headers: tuple[RawHeader, ...] = ()
    as_stream: bool = False


class GraphQLEndpoint:
    """The endpoint, an ASGI application for HTTP."""

    def __init__(
        self, operations: Operations, *, connections: Connections, open_subscription: OpenSubscription
    ) -> None:
        services = operations.services
        self.operations = operations
        self._errors = operations.errors
        self._connections = connections
        self._open_subscription = open_subscription
        self._origins = Origins(services.settings.allowed_origins)
        self._proxies = services.settings.proxy_networks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = self._request(scope)
        try:
            answer = await self._answer(scope, request, receive)
        except ClientGone:
            return
        except BadRequest as error:
            answer = self._told(request, HttpRefusal(400, "BAD_REQUEST", str(error)))
        except HttpRefusal as refusal:
            answer = self._told(request, refusal)
        except Exception as error:
            answer = self._failure(error, request)
        try:
            if isinstance(answer, EventStream):
                await answer.run(self._start(request, 200, EVENT_STREAM), receive, send)
            else:
                await self._send(request, answer, send)
        except (RuntimeError, OSError) as error:
            # The connection was closed in this very moment; what was done stays done.
            _log.info("request.client_gone", request_id=request.id, operation=request.operation, error=repr(error))

    def _request(self, scope: Scope) -> _Request:
        headers: Headers = dict(scope["headers"])
        client = scope.get("client")
        address: str = client[0] if client else "unknown"
        if self._proxies and b"x-forwarded-for" in headers:
            forwarded = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
            address = client_address(address, forwarded, self._proxies)
        authorization = headers.get(b"authorization")
        return _Request(
            self._request_id(headers),
            address,
            None if authorization is None else authorization.decode("latin-1"),
            time.perf_counter(),
            headers=headers,
            abort=scope.get(ABORT),
        )

    def _request_id(self, headers: Headers) -> str:
        given = headers.get(b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given.decode("ascii")
        return self.operations.new_request_id()

    # ------------------------------------------------------------------------------------------------ the order

    async def _answer(self, scope: Scope, request: _Request, receive: Receive) -> _Answer | EventStream:
        method = scope["method"]
        if method == "OPTIONS":
            return self._preflight(request)
        if method not in ("POST", "GET"):
            raise HttpRefusal(405, "METHOD_NOT_ALLOWED", f"{method} is not answered here: use POST.", (_ALLOWED,))
        request.accepted = accepted_types(request.headers.get(b"accept"))
        parameters = await read_post(request.headers, receive) if method == "POST" else read_get(scope["query_string"])
        self.operations.enter()
        try:
            return await self._operate(request, parameters, may_write=method == "POST")
        finally:
            self.operations.leave()

    async def _operate(self, request: _Request, parameters: Parameters, *, may_write: bool) -> _Answer | EventStream:
        def allow(kind: OperationType | None) -> None:
            if kind is OperationType.SUBSCRIPTION and not request.accepted.streams:
                raise HttpRefusal(400, "BAD_REQUEST", _NO_SUBSCRIPTIONS)
            if kind is OperationType.MUTATION and not may_write:
                raise HttpRefusal(
                    405,
                    "METHOD_NOT_ALLOWED",
                    "Mutations are not executed by GET: use POST.",
                    ((b"allow", b"POST"),),
                )

        prepared = await self.operations.prepare(request, parameters, allow)
        as_stream = request.accepted.prefers_stream
        if isinstance(prepared, list):
            refused = 400 if request.accepted.media_type == GRAPHQL_RESPONSE and not as_stream else 200
            return _Answer(refused, {"errors": prepared}, as_stream=as_stream)
        if prepared.is_subscription:
            return await self._open(request, prepared)
        return _Answer(200, await self.operations.execute(request, prepared), as_stream=as_stream)

    async def _open(self, request: _Request, prepared: Prepared) -> _Answer | EventStream:
        """Open a subscription. What it is refused for is told in the stream; a limit and a log-in by the status."""
        stream = EventStream(
            connections=self._connections,
            principal=prepared.context.principal,
            client_ip=request.client_ip,
            request_id=request.id,
            errors=self._errors,
            abort=request.abort,
        )
        try:
            reader = await self._open_subscription(
                ready=prepared.ready, variables=prepared.variables, context=prepared.context, sink=stream
            )
        except (Unauthenticated, RateLimited):
            stream.close()
            raise
        except Exception as error:
            stream.close()
            return _Answer(200, {"errors": [self.operations.failure(error, request)]}, as_stream=True)
        except BaseException:
            stream.close()
            raise
        stream.opened(reader)
        return stream

    # ------------------------------------------------------------------------------------------------ answers

    def _told(self, request: _Request, refusal: HttpRefusal) -> _Answer:
        error = self._errors.error(refusal.code, str(refusal), request.id)
        return _Answer(refusal.status, {"errors": [error]}, refusal.headers)

    def _failure(self, error: Exception, request: _Request) -> _Answer:
        if isinstance(error, Unauthenticated):
            error = Unauthenticated(f"{error} {_HINT_TO_ANONYMOUS}")
        formatted = self._errors.of_exception(error, request.id, request.operation)
        body = {"errors": [formatted]}
        if isinstance(error, Unauthenticated):
            return _Answer(401, body, ((b"www-authenticate", b'Bearer realm="megatron"'),))
        retry_after_ms = formatted["extensions"].get("retryAfterMs")
        if retry_after_ms is None:
            return _Answer(500, body)
        headers = [(b"retry-after", b"%d" % -(-retry_after_ms // 1000))]
        if isinstance(error, RateLimited):
            headers += rate_headers([error.quota] if error.quota else [])
        return _Answer(429 if isinstance(error, RateLimited) else 503, body, tuple(headers))

    async def _send(self, request: _Request, answer: _Answer, send: Send) -> None:
        body, status, media_type = b"", answer.status, None
        if answer.body is not None:
            media_type = EVENT_STREAM if answer.as_stream else request.accepted.media_type
            try:
                body = orjson.dumps(answer.body)
            except TypeError as error:
                status = 200 if answer.as_stream else 500
                body = orjson.dumps({"errors": [self._errors.unexpected(error, request.id, request.operation)]})
            if answer.as_stream:
                body = single(body)
        start = self._start(request, status, media_type, answer.headers, length=len(body))
        await send(start)
        await send({"type": "http.response.body", "body": body})

    def _start(
        self,
        request: _Request,
        status: int,
        media_type: str | None,
        others: tuple[RawHeader, ...] = (),
        *,
        length: int | None = None,
    ) -> Message:
        """The head of an answer; without a media type it has no body."""
        headers: list[RawHeader] = [(b"x-request-id", request.id.encode("ascii")), *others]
        if media_type is not None:
            headers += _HEADERS[media_type]
            if length is not None:
                headers.append((b"content-length", b"%d" % length))
        if request.rate is not None:
            headers += rate_headers(request.rate.quotas)
        origin = request.headers.get(b"origin")
        if origin is not None:
            headers += self._cors(origin, request.headers)
        return {"type": "http.response.start", "status": status, "headers": headers}

    # ------------------------------------------------------------------------------------------------ origins

    def _cors(self, origin: bytes, headers: Headers) -> list[RawHeader]:
        """What lets a page of an allowed origin read the answer; nothing for others."""
        vary = (b"vary", b"Origin")
        if not self._origins.allow(origin, headers.get(b"host", b"")):
            return [vary]
        return [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", _EXPOSED), vary]

    def _preflight(self, request: _Request) -> _Answer:
        """What a browser asks before it lets a page of another origin send JSON or a token."""
        origin = request.headers.get(b"origin")
        if origin is None or not self._origins.allow(origin, request.headers.get(b"host", b"")):
            return _Answer(204, None, (_ALLOWED,))
        return _Answer(
            204,
            None,
            (
                _ALLOWED,
                (b"access-control-allow-methods", b"GET, POST"),
                (b"access-control-allow-headers", b"authorization, content-type, x-request-id"),
                (b"access-control-max-age", b"%d" % PREFLIGHT_SECONDS),
            ),
        )


def rate_headers(quotas: Iterable[Quota]) -> list[RawHeader]:
    """`RateLimit-Policy` and `RateLimit`, as the IETF's draft-ietf-httpapi-ratelimit-headers has them."""
    policies, states = [], []
    for quota in quotas:
        policies.append(f'"{quota.name}";q={quota.limit};w={quota.window_ms // 1000}')
        states.append(f'"{quota.name}";r={quota.remaining};t={-(-quota.reset_ms // 1000)}')
    if not states:
        return []
    return [(b"ratelimit-policy", ", ".join(policies).encode()), (b"ratelimit", ", ".join(states).encode())]
