"""What every operation goes through, whatever carries it: read, admitted, executed, its errors told.

HTTP, WebSockets and event streams differ in how a request comes and an answer goes; who may ask, how much, and what is
answered is decided here, once. Knows nothing of headers, frames or statuses.
"""

import itertools
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import strawberry
import structlog
from graphql import ExecutionResult, GraphQLError, OperationType
from graphql.execution.values import VariableValues

from api.context import Context
from api.error_format import ErrorFormatter, FormattedError
from api.input_building import compile_inputs
from api.limits import TooComplex
from api.operation_cache import QUERY_TOO_COMPLEX, OperationCache, ReadyOperation, RequestFault
from api.parameters import Parameters
from app.accounts.principals import ANONYMOUS, AccountPrincipal, Principal
from app.errors import ErrorCode, Unauthenticated, refuse
from app.ratelimit import RateState
from app.services import Services

SLOW_SECONDS: Final = 2.0
"""Requests that take longer are logged."""
IN_FLIGHT_MAX: Final = 2_000
"""Operations under way at once; more are refused rather than held."""
READ_FREE_CHARACTERS: Final = 1_000
CHARACTERS_PER_POINT: Final = 50
"""A document that has not been kept costs one point of the address's limit for so many characters beyond the free."""
KNOWN_TOKENS_MAX: Final = 20_000
TOKEN_LENGTH_MAX: Final = 512

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class OperationRequest:
    """One operation that was asked for, and what is known of it so far.

    `authorization` is what the client said of itself, "Bearer ..." or None; `started` is `time.perf_counter()` when
    the request came.
    """

    id: str
    client_ip: str
    authorization: str | None
    started: float
    operation: str | None = None
    rate: RateState | None = None


@dataclass(slots=True)
class Prepared:
    """An admitted operation: what to execute, by whom and with which variables."""

    ready: ReadyOperation
    variables: VariableValues
    context: Context

    @property
    def is_subscription(self) -> bool:
        """Whether it is opened rather than executed."""
        return self.ready.operation.kind is OperationType.SUBSCRIPTION


class Operations:
    """The operations of one process. Build it once: it keeps what it has read of documents."""

    def __init__(self, schema: strawberry.Schema, services: Services) -> None:
        compile_inputs(schema)
        self.cache = OperationCache(schema._schema)
        self.errors = ErrorFormatter(services.metrics.graphql_error)
        self.services = services
        self.in_flight = 0
        self._id_prefix = secrets.token_hex(6)
        self._id_numbers = itertools.count(1)
        self._accounts: dict[int, int] = {}

    def new_request_id(self) -> str:
        """An id for a request that brought none."""
        return f"{self._id_prefix}-{next(self._id_numbers):x}"

    def enter(self) -> None:
        """Take a place among the operations under way; `leave` gives it back. Raises `Refused` (OVERLOADED)."""
        if self.in_flight >= IN_FLIGHT_MAX:
            raise refuse(ErrorCode.OVERLOADED, "Too many requests are under way: try again in a second.")
        self.in_flight += 1

    def leave(self) -> None:
        """Give the place back."""
        self.in_flight -= 1

    async def prepare(
        self,
        request: OperationRequest,
        parameters: Parameters,
        allow: Callable[[OperationType | None], None] | None = None,
    ) -> Prepared | list[FormattedError]:
        """Read and admit an operation; the errors when it cannot be executed.

        `allow` is told what kind of operation it is, None when that cannot be told, before anything is counted against
        the asker, and raises where its transport does not carry that kind. Raises `Unauthenticated`, `RateLimited`,
        `Refused` (OVERLOADED), and whatever the database raises when nobody can be looked up.
        """
        text = parameters.query
        limiter = self.services.rate_limiter
        limiter.refuse_blocked(client_ip=request.client_ip)
        if len(text) > READ_FREE_CHARACTERS and limiter.enabled and text not in self.cache:
            await self._admit_reading(request, text)
        document = self.cache.document(text)
        if allow is not None:
            allow(document.kind(parameters.operation_name))
        ready = document.operation(parameters.operation_name)
        points = 1
        if isinstance(ready, ReadyOperation):
            request.operation = ready.operation.name
            try:
                points = ready.complexity.points(parameters.variables)
            except TooComplex as error:
                ready = (RequestFault(QUERY_TOO_COMPLEX, str(error)),)
        principal = await self.admit(request, points)
        if not isinstance(ready, ReadyOperation):
            return [self.errors.fault(fault, request.id) for fault in ready]
        variables = ready.operation.coerce_variables(parameters.variables)
        if isinstance(variables, list):
            return [self.errors.variable_error(error, request.id) for error in variables]
        context = Context(
            principal=principal,
            services=self.services,
            request_id=request.id,
            client_ip=request.client_ip,
            rate=request.rate,
        )
        return Prepared(ready, variables, context)

    async def _admit_reading(self, request: OperationRequest, text: str) -> None:
        """Let a document be read that has not been kept: reading a long one takes more time than executing it."""
        points = (len(text) - READ_FREE_CHARACTERS) // CHARACTERS_PER_POINT
        if points > 0:
            limiter = self.services.rate_limiter
            await limiter.settle(limiter.request(points=points, client_ip=request.client_ip), points=points)

    async def admit(self, request: OperationRequest, points: int) -> Principal:
        """Who asks, unless their requests are too many. Both are looked up at once.

        The account that a token was last seen to be is counted against before the token has been looked up again; who
        asks is never taken from there. Raises as `prepare` does.
        """
        token = bearer_token(request.authorization)
        limiter, authenticator = self.services.rate_limiter, self.services.authenticator
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

    async def execute(self, request: OperationRequest, prepared: Prepared) -> dict[str, Any]:
        """The result of a query or a mutation, its errors formatted. Raises nothing of the operation's own."""
        result = prepared.ready.operation.execute(prepared.context, prepared.variables)
        if not isinstance(result, ExecutionResult):
            result = await result
        body: dict[str, Any] = {"data": result.data}
        if result.errors:
            body["errors"] = [self.errors.field_error(error, request.id, request.operation) for error in result.errors]
        seconds = time.perf_counter() - request.started
        self.services.metrics.graphql_operation(request.operation, seconds)
        if seconds > SLOW_SECONDS:
            _log.warning("request.slow", request_id=request.id, operation=request.operation, seconds=round(seconds, 3))
        return body

    def failure(self, error: Exception, request: OperationRequest) -> FormattedError:
        """How what preparing or opening an operation raised is told."""
        if isinstance(error, GraphQLError):
            return self.errors.field_error(error, request.id, request.operation)
        return self.errors.of_exception(error, request.id, request.operation)


def bearer_token(authorization: str | None) -> str | None:
    """The token in "Bearer <token>"; None where nothing was said. Raises `Unauthenticated` for any other kind."""
    if authorization is None:
        return None
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or len(token) > TOKEN_LENGTH_MAX or not token.isascii():
        raise Unauthenticated('The Authorization header must be "Bearer" and a token, as in "Bearer mgs_...".')
    return token
