"""How everything that goes wrong is told to clients: which code, which words, and what is kept to ourselves.

Every error carries `extensions.code` and `extensions.requestId`, and where trying again can help `retryable` and
`retryAfterMs`. What nobody expected is masked, and logged with the request id that the client sees.
"""

import re
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import asyncpg
import structlog
from graphql import GraphQLError

from api.operation_cache import RequestFault
from app.errors import ErrorCode, Forbidden, Refused, Unauthenticated
from app.exchange.settlement import SettlementUnavailable
from app.ratelimit import RateLimited

BAD_USER_INPUT: Final = "BAD_USER_INPUT"
UNAUTHENTICATED: Final = "UNAUTHENTICATED"
FORBIDDEN: Final = "FORBIDDEN"
RATE_LIMITED: Final = "RATE_LIMITED"
SERVICE_UNAVAILABLE: Final = "SERVICE_UNAVAILABLE"
INTERNAL_SERVER_ERROR: Final = "INTERNAL_SERVER_ERROR"

MESSAGE_LENGTH_MAX: Final = 500
RUN_LENGTH_MAX: Final = 80
"""Characters without a space among them that are shown of anything; what is longer was sent to be long."""
RETRY_AFTER_MS: Final = 1_000

_LONG_RUN: Final = re.compile(rf"\S{{{RUN_LENGTH_MAX + 1},}}")
_UNSPEAKABLE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_PASSING_FAILURES: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
)
"""The database or the network was away or busy: the same request may succeed in a moment."""
_RETRYABLE_REFUSALS: Final = frozenset({ErrorCode.OVERLOADED, ErrorCode.CONFLICT})

FormattedError: TypeAlias = dict[str, Any]
_log = structlog.get_logger(__name__)


def cut(message: str) -> str:
    """`message` with long runs shortened, as values are that were sent to be long, and at most 500 characters."""
    if len(message) > RUN_LENGTH_MAX:
        message = _LONG_RUN.sub(lambda run: f"{run[0][:RUN_LENGTH_MAX]}... ({len(run[0])} characters)", message)
    if len(message) > MESSAGE_LENGTH_MAX:
        message = f"{message[:MESSAGE_LENGTH_MAX]}..."
    return _UNSPEAKABLE.sub("\N{REPLACEMENT CHARACTER}", message)


def is_passing(error: Exception) -> bool:
    """Whether trying the same again in a moment may succeed: the database or the network was away."""
    while isinstance(error, GraphQLError) and error.original_error is not None:
        error = error.original_error
    return isinstance(error, _PASSING_FAILURES)


class ErrorFormatter:
    """Formats the errors of one process. `count` is told the code of each."""

    def __init__(self, count: Callable[[str], None]) -> None:
        self._count = count

    def error(self, code: str, message: str, request_id: str, **extensions: object) -> FormattedError:
        """An error of the request as a whole."""
        self._count(code)
        return {"message": cut(message), "extensions": {"code": code, "requestId": request_id, **extensions}}

    def fault(self, fault: RequestFault, request_id: str) -> FormattedError:
        """Why a document or an operation cannot be executed."""
        formatted = self.error(fault.code, fault.message, request_id)
        if fault.locations:
            formatted["locations"] = [{"line": line, "column": column} for line, column in fault.locations]
        return formatted

    def variable_error(self, error: GraphQLError, request_id: str) -> FormattedError:
        """A variable whose value is not of its type; the message names the variable and the path in it."""
        return self.fault(
            RequestFault(BAD_USER_INPUT, error.message, tuple((at.line, at.column) for at in error.locations or ())),
            request_id,
        )

    def field_error(self, error: GraphQLError, request_id: str, operation: str | None) -> FormattedError:
        """An error that a field of an executed operation ended with."""
        formatted = self._of_field(error, request_id, operation)
        if error.locations:
            formatted["locations"] = [{"line": at.line, "column": at.column} for at in error.locations]
        if error.path:
            formatted["path"] = error.path
        return formatted

    def _of_field(self, error: GraphQLError, request_id: str, operation: str | None) -> FormattedError:
        original = error.original_error
        while isinstance(original, GraphQLError):
            original = original.original_error
        if original is None:
            code = (error.extensions or {}).get("code")
            if isinstance(code, str):
                return self.error(code, error.message, request_id)
            return self.unexpected(error, request_id, operation, path=error.path)
        return self.of_exception(original, request_id, operation, path=error.path)

    def of_exception(
        self, error: Exception, request_id: str, operation: str | None, *, path: list[str | int] | None = None
    ) -> FormattedError:
        """What a resolver or a service raised."""
        if isinstance(error, Unauthenticated):
            return self.error(UNAUTHENTICATED, str(error), request_id)
        if isinstance(error, Forbidden):
            return self.error(FORBIDDEN, str(error), request_id)
        if isinstance(error, RateLimited):
            return self.error(
                RATE_LIMITED, str(error), request_id, retryable=True, retryAfterMs=max(1, error.retry_after_ms)
            )
        if isinstance(error, Refused):
            refusal = error.refusal
            code = BAD_USER_INPUT if refusal.code is ErrorCode.INVALID_INPUT else refusal.code.value
            retry = {"retryable": True, "retryAfterMs": RETRY_AFTER_MS} if refusal.code in _RETRYABLE_REFUSALS else {}
            field = {"field": refusal.field} if refusal.field else {}
            return self.error(code, refusal.message, request_id, **field, **retry)
        if isinstance(error, SettlementUnavailable):
            return self.error(SERVICE_UNAVAILABLE, str(error), request_id, retryable=True, retryAfterMs=RETRY_AFTER_MS)
        return self.unexpected(error, request_id, operation, path=path)

    def unexpected(
        self, error: Exception, request_id: str, operation: str | None, *, path: list[str | int] | None = None
    ) -> FormattedError:
        """A failure that nobody expected: logged whole, told by its request id only."""
        _log.error(
            "request.failed",
            request_id=request_id,
            operation=operation and operation[:RUN_LENGTH_MAX],
            path=path,
            exc_info=error,
        )
        if isinstance(error, _PASSING_FAILURES):
            message = (
                f"The service is away for a moment; send the same again, with the same key. Request id {request_id}."
            )
            return self.error(SERVICE_UNAVAILABLE, message, request_id, retryable=True, retryAfterMs=RETRY_AFTER_MS)
        return self.error(INTERNAL_SERVER_ERROR, f"Internal error; quote request id {request_id}.", request_id)
