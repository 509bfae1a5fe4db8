"""GraphQL over HTTP: one endpoint that answers POST and GET as the GraphQL-over-HTTP specification has it.

Plain ASGI, without request and response objects: this is every order's path. Reading the request is `http_request`,
words and codes of errors are `error_format`, execution is `executor`; here is the order in which things happen. The
playground, the other routes and the Host header are the application's.

Statuses: a request that is no GraphQL request is 4xx. A document or variables that cannot be executed are 400 as
application/graphql-response+json and 200 as application/json, as the specification has it. A token that is not valid
is 401 and an exhausted rate limit 429 in both, so that HTTP clients and proxies understand them. What was executed is
200, whatever its fields ended with.
"""

import itertools
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, Final, TypeAlias

import orjson
import strawberry
import structlog
from graphql import ExecutionResult, OperationType
from graphql.execution.values import VariableValues
from starlette.types import Receive, Scope, Send

from api.context import Context
from api.error_format import ErrorFormatter, FormattedError
from api.http_request import (
    GRAPHQL_RESPONSE,
    JSON,
    ClientGone,
    Headers,
    HttpRefusal,
    Parameters,
    read_get,
    read_post,
    response_type,
)
from api.input_building import compile_inputs
from api.limits import TooComplex
from api.operation_cache import QUERY_TOO_COMPLEX, OperationCache, ReadyOperation, RequestFault
from app.accounts.principals import ANONYMOUS, AccountPrincipal, Principal
from app.errors import ErrorCode, Unauthenticated, refuse
from app.ratelimit import Quota, RateLimited, RateState
from app.services import Services

SLOW_SECONDS: Final = 2.0
"""Requests that take longer are logged."""
IN_FLIGHT_MAX: Final = 2_000
"""Requests under way at once; more are refused with 503 rather than held."""
READ_FREE_CHARACTERS: Final = 1_000
CHARACTERS_PER_POINT: Final = 50
"""A document that has not been kept costs one point of the address's limit for so many characters beyond the free."""
KNOWN_TOKENS_MAX: Final = 20_000
TOKEN_LENGTH_MAX: Final = 512
PREFLIGHT_SECONDS: Final = 600
FORWARDED_MAX: Final = 20
"""Hops of X-Forwarded-For that are looked at, from its end."""

RawHeader: TypeAlias = tuple[bytes, bytes]

_REQUEST_ID: Final = re.compile(rb"[!-~]{1,64}")
_ALLOWED: Final[RawHeader] = (b"allow", b"GET, POST, OPTIONS")
_SAFE: Final[tuple[RawHeader, ...]] = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
_HEADERS: Final[dict[str, tuple[RawHeader, ...]]] = {
    media_type: ((b"content-type", f"{media_type}; charset=utf-8".encode()), *_SAFE)
    for media_type in (JSON, GRAPHQL_RESPONSE)
}
_HINT_TO_ANONYMOUS: Final = "What needs no log-in, logIn itself included, must come without the Authorization header."
_EXPOSED: Final = b"x-request-id, ratelimit, ratelimit-policy, retry-after"
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Request:
    """What is known of a request while it is answered."""

    id: str
    headers: Headers
    client_ip: str
    started: float
    media_type: str = JSON
    operation: str | None = None
    rate: RateState | None = None


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: dict[str, Any] | None
    headers: tuple[RawHeader, ...] = ()


class GraphQLEndpoint:
    """The endpoint, an ASGI application for HTTP. Build it once: it keeps what it has read of documents."""

    def __init__(self, schema: strawberry.Schema, services: Services) -> None:
        compile_inputs(schema)
        self.cache = OperationCache(schema._schema)
        self._services = services
        self._metrics = services.metrics
        self._errors = ErrorFormatter(services.metrics.graphql_error)
        self._origins = frozenset(origin.encode() for origin in services.settings.allowed_origins)
        self._proxies = services.settings.proxy_networks
        self._id_prefix = secrets.token_hex(6)
        self._id_numbers = itertools.count(1)
        self._accounts: dict[int, int] = {}
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers: Headers = dict(scope["headers"])
        request = _Request(
            self._request_id(headers), headers, client_address(scope, headers, self._proxies), time.perf_counter()
        )
        try:
            answer = await self._answer(scope, request, receive)
        except ClientGone:
            return
        except HttpRefusal as refusal:
            error = self._errors.error(refusal.code, str(refusal), request.id)
            answer = _Answer(refusal.status, {"errors": [error]}, refusal.headers)
        except Exception as error:
            answer = self._failure(error, request)
        await self._send(request, answer, send)

    def _request_id(self, headers: Headers) -> str:
        given = headers.get(b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given.decode("ascii")
        return f"{self._id_prefix}-{next(self._id_numbers):x}"

    # ------------------------------------------------------------------------------------------------ the order

    async def _answer(self, scope: Scope, request: _Request, receive: Receive) -> _Answer:
        method = scope["method"]
        if method == "OPTIONS":
            return self._preflight(request)
        if method not in ("POST", "GET"):
            raise HttpRefusal(405, "METHOD_NOT_ALLOWED", f"{method} is not answered here: use POST.", (_ALLOWED,))
        request.media_type = response_type(request.headers.get(b"accept"))
        parameters = await read_post(request.headers, receive) if method == "POST" else read_get(scope["query_string"])
        if self.in_flight >= IN_FLIGHT_MAX:
            raise refuse(ErrorCode.OVERLOADED, "Too many requests are under way: try again in a second.")
        self.in_flight += 1
        try:
            return await self._operate(request, parameters, may_write=method == "POST")
        finally:
            self.in_flight -= 1

    async def _operate(self, request: _Request, parameters: Parameters, *, may_write: bool) -> _Answer:
        await self._admit_reading(request, parameters.query)
        ready = self._operation(parameters, may_write=may_write)
        points = 1
        if isinstance(ready, ReadyOperation):
            request.operation = ready.operation.name
            try:
                points = ready.complexity.points(parameters.variables)
            except TooComplex as error:
                ready = (RequestFault(QUERY_TOO_COMPLEX, str(error)),)
        principal = await self._admit(request, points)
        if not isinstance(ready, ReadyOperation):
            return self._refused(request, [self._errors.fault(fault, request.id) for fault in ready])
        variables = ready.operation.coerce_variables(parameters.variables)
        if isinstance(variables, list):
            return self._refused(request, [self._errors.variable_error(error, request.id) for error in variables])
        return await self._execute(request, ready, variables, principal)

    def _operation(self, parameters: Parameters, *, may_write: bool) -> ReadyOperation | Iterable[RequestFault]:
        document = self.cache.document(parameters.query)
        kind = document.kind(parameters.operation_name)
        if kind is OperationType.SUBSCRIPTION:
            raise HttpRefusal(
                400, "BAD_REQUEST", "Subscriptions are not answered over plain HTTP: only queries and mutations are."
            )
        if kind is OperationType.MUTATION and not may_write:
            raise HttpRefusal(
                405,
                "METHOD_NOT_ALLOWED",
                "Mutations are not executed by GET: use POST.",
                ((b"allow", b"POST"),),
            )
        return document.operation(parameters.operation_name)

    async def _admit_reading(self, request: _Request, text: str) -> None:
        """Let a document be read that has not been kept: reading a long one takes more time than executing it."""
        limiter = self._services.rate_limiter
        limiter.refuse_blocked(client_ip=request.client_ip)
        points = (len(text) - READ_FREE_CHARACTERS) // CHARACTERS_PER_POINT
        if points > 0 and limiter.enabled and text not in self.cache:
            await limiter.settle(limiter.request(points=points, client_ip=request.client_ip), points=points)

    async def _admit(self, request: _Request, points: int) -> Principal:
        """Who asks, unless their requests are too many. Both are looked up at once.

        The account that a token was last seen to be is counted against before the token has been looked up again; who
        asks is never taken from there.
        """
        token = _token(request.headers)
        limiter, authenticator = self._services.rate_limiter, self._services.authenticator
        if not limiter.enabled:
            return ANONYMOUS if token is None else await authenticator.principal(token)
        remembered = None if token is None else self._accounts.get(hash(token))
        counted = limiter.request(points=points, client_ip=request.client_ip, account_id=remembered)
        counted_too = None
        principal: Principal = ANONYMOUS
        if token is not None:
            try:
                principal = await authenticator.principal(token)
            except Unauthenticated:
                # A token that has ended must not go on using up its owner's limit.
                self._accounts.pop(hash(token), None)
                raise
            if isinstance(principal, AccountPrincipal) and principal.account_id != remembered:
                if len(self._accounts) >= KNOWN_TOKENS_MAX:
                    self._accounts.clear()
                self._accounts[hash(token)] = principal.account_id
                counted_too = limiter.request(points=points, account_id=principal.account_id)
        request.rate = await limiter.settle(counted, counted_too, points=points)
        return principal

    async def _execute(
        self, request: _Request, ready: ReadyOperation, variables: VariableValues, principal: Principal
    ) -> _Answer:
        context = Context(
            principal=principal,
            services=self._services,
            request_id=request.id,
            client_ip=request.client_ip,
            rate=request.rate,
        )
        result = ready.operation.execute(context, variables)
        if not isinstance(result, ExecutionResult):
            result = await result
        body: dict[str, Any] = {"data": result.data}
        if result.errors:
            body["errors"] = [self._errors.field_error(error, request.id, request.operation) for error in result.errors]
        seconds = time.perf_counter() - request.started
        self._metrics.graphql_operation(request.operation, seconds)
        if seconds > SLOW_SECONDS:
            _log.warning("request.slow", request_id=request.id, operation=request.operation, seconds=round(seconds, 3))
        return _Answer(200, body)

    # ------------------------------------------------------------------------------------------------ answers

    def _refused(self, request: _Request, errors: list[FormattedError]) -> _Answer:
        return _Answer(400 if request.media_type == GRAPHQL_RESPONSE else 200, {"errors": errors})

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
        headers: list[RawHeader] = [(b"x-request-id", request.id.encode("ascii")), *answer.headers]
        body = b""
        status = answer.status
        if answer.body is not None:
            try:
                body = orjson.dumps(answer.body)
            except TypeError as error:
                status = 500
                body = orjson.dumps({"errors": [self._errors.unexpected(error, request.id, request.operation)]})
            headers += _HEADERS[request.media_type]
            headers.append((b"content-length", b"%d" % len(body)))
        if request.rate is not None:
            headers += rate_headers(request.rate.quotas)
        origin = request.headers.get(b"origin")
        if origin is not None:
            headers += self._cors(origin, request.headers)
        try:
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        except (RuntimeError, OSError) as error:
            # The connection was closed in this very moment; what was done stays done.
            _log.info("request.client_gone", request_id=request.id, operation=request.operation, error=repr(error))

    # ------------------------------------------------------------------------------------------------ origins

    def _cors(self, origin: bytes, headers: Headers) -> list[RawHeader]:
        """What lets a page of an allowed origin read the answer; nothing for others."""
        vary = (b"vary", b"Origin")
        if not self._is_allowed(origin, headers):
            return [vary]
        return [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", _EXPOSED), vary]

    def _is_allowed(self, origin: bytes, headers: Headers) -> bool:
        if origin in self._origins:
            return True
        scheme, _, host = origin.partition(b"://")
        return scheme in (b"http", b"https") and host != b"" and host == headers.get(b"host", b"").lower()

    def _preflight(self, request: _Request) -> _Answer:
        """What a browser asks before it lets a page of another origin send JSON or a token."""
        origin = request.headers.get(b"origin")
        if origin is None or not self._is_allowed(origin, request.headers):
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


def _token(headers: Headers) -> str | None:
    """The bearer token, if the request carries one. Raises `Unauthenticated` for another kind of authorization."""
    authorization = headers.get(b"authorization")
    if authorization is None:
        return None
    scheme, _, token = authorization.decode("latin-1").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or len(token) > TOKEN_LENGTH_MAX or not token.isascii():
        raise Unauthenticated('The Authorization header must be "Bearer" and a token, as in "Bearer mgs_...".')
    return token


def rate_headers(quotas: Iterable[Quota]) -> list[RawHeader]:
    """`RateLimit-Policy` and `RateLimit`, as the IETF's draft-ietf-httpapi-ratelimit-headers has them."""
    policies, states = [], []
    for quota in quotas:
        policies.append(f'"{quota.name}";q={quota.limit};w={quota.window_ms // 1000}')
        states.append(f'"{quota.name}";r={quota.remaining};t={-(-quota.reset_ms // 1000)}')
    if not states:
        return []
    return [(b"ratelimit-policy", ", ".join(policies).encode()), (b"ratelimit", ", ".join(states).encode())]


def client_address(scope: Scope, headers: Headers, proxies: list[IPv4Network | IPv6Network]) -> str:
    """The address that a request comes from: the peer's, or what a trusted proxy says of it.

    Proxies append to X-Forwarded-For, so it is read from its end: the first address that is no trusted proxy's counts,
    and whatever stands before it is the client's own invention.
    """
    client = scope.get("client")
    address: str = client[0] if client else "unknown"
    if not proxies or b"x-forwarded-for" not in headers or not _is_in(address, proxies):
        return address
    forwarded = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for").decode("latin-1")
    for hop in reversed(forwarded.split(",")[-FORWARDED_MAX:]):
        address = hop.strip()
        if not _is_in(address, proxies):
            break
    return address


def _is_in(address: str, networks: list[IPv4Network | IPv6Network]) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)
