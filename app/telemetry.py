"""What the process tells about itself: structured logs without secrets, and metrics for Prometheus.

Nothing here decides anything. Labels are bounded: whatever a client can choose freely never becomes one as it is.
"""

import json
import logging
import re
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from structlog.typing import EventDict, WrappedLogger

from app.errors import Unauthenticated

if TYPE_CHECKING:
    from app.exchange.batch import Answer

# ------------------------------------------------------------------------------------------------ logs

REDACTED: Final = "[redacted]"
_SECRET_NAMES: Final = re.compile(r"password|passwd|secret|token|authorization|cookie|credential|api_?key|dsn", re.I)
_SECRET_TEXTS: Final = (
    (re.compile(r"\b(mg[a-z]_)[A-Za-z0-9_-]{16,}"), r"\1" + REDACTED),
    (re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]+", re.I), r"\1 " + REDACTED),
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://[^:/@\s\"]*):[^@/\s\"]+@", re.I), r"\1:" + REDACTED + "@"),
    (re.compile(r"\$(?:argon2[a-z]*|2[abxy])\$[A-Za-z0-9$./+=,]+"), REDACTED),
)


def redact(text: str) -> str:
    """`text` with everything that looks like a token, a password in an address or a password's hash taken out."""
    for pattern, replacement in _SECRET_TEXTS:
        text = pattern.sub(replacement, text)
    return text


def _redact_named(value: object) -> object:
    if isinstance(value, dict):
        return {
            name: REDACTED if _SECRET_NAMES.search(str(name)) and inner is not None else _redact_named(inner)
            for name, inner in value.items()
        }
    return [_redact_named(inner) for inner in value] if isinstance(value, list | tuple) else value


def _render(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    return redact(json.dumps(_redact_named(dict(event)), default=repr, ensure_ascii=False))


def configure_logging(level: str, *, stream: TextIO | None = None) -> None:
    """Send the logs of the whole process, libraries included, to standard error or `stream`: a JSON object a line.

    `level` is a name such as INFO; ValueError for one that does not exist.
    """
    shared: list[Callable[[WrappedLogger, str, EventDict], Any]] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _render,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("tortoise", "asyncio", "httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(max(root.level, logging.WARNING))


# ------------------------------------------------------------------------------------------------ metrics

OPERATIONS_LEARNED_MAX: Final = 50
"""Operation names beyond the known ones that get a label of their own; the others share one."""
ANONYMOUS_OPERATION: Final = "(anonymous)"
OTHER_OPERATION: Final = "(other)"

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCH_ORDERS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The process's metrics, in a registry of their own. Implements `app.exchange.settlement.Observer`."""

    def __init__(self, *, version: str, environment: str, operations: Iterable[str] = ()) -> None:
        """`operations` are names of GraphQL operations that always have a label of their own."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._known_operations = frozenset(operations)
        self._learned_operations = 0
        self._operation_observers: dict[str, Callable[[float], None]] = {}
        self._order_counters: dict[str, Callable[[], None]] = {}
        self._orders = Counter(
            "megatron_orders",
            "Orders answered, by status or why they were refused.",
            ["outcome"],
            registry=self.registry,
        )
        self._settlement_seconds = Histogram(
            "megatron_settlement_seconds", "Of a batch's transaction.", buckets=_SECONDS, registry=self.registry
        )
        self._settlement_orders = Histogram(
            "megatron_settlement_batch_orders", "Orders in a batch.", buckets=_BATCH_ORDERS, registry=self.registry
        )
        self._graphql_seconds = Histogram(
            "megatron_graphql_seconds",
            "From a request's arrival to its answer, by operation name.",
            ["operation"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._graphql_errors = Counter(
            "megatron_graphql_errors", "GraphQL errors answered, by extensions.code.", ["code"], registry=self.registry
        )
        build = Gauge("megatron_build_info", "1.", ["version", "environment"], registry=self.registry)
        build.labels(version, environment).set(1)

    def gauge(self, name: str, description: str, read: Callable[[], float], **labels: str) -> None:
        """Add a gauge whose value is read when the metrics are."""
        gauge = Gauge(name, description, list(labels), registry=self.registry)
        (gauge.labels(**labels) if labels else gauge).set_function(read)

    def settled(self, *, orders: int, seconds: float) -> None:
        """A batch has committed."""
        self._settlement_orders.observe(orders)
        self._settlement_seconds.observe(seconds)

    def answered(self, answer: "Answer") -> None:
        """An order has got its answer."""
        if isinstance(answer, Unauthenticated):
            outcome = "UNAUTHENTICATED"
        else:
            refusal = answer.refusal
            outcome = "FILLED" if refusal is None else refusal.code.value
        count = self._order_counters.get(outcome)
        if count is None:
            count = self._order_counters[outcome] = self._orders.labels(outcome).inc
        count()

    def graphql_operation(self, name: str | None, seconds: float) -> None:
        """An operation was executed."""
        observe = self._operation_observers.get(name or ANONYMOUS_OPERATION)
        if observe is None:
            observe = self._operation_observer(name or ANONYMOUS_OPERATION)
        observe(seconds)

    def _operation_observer(self, name: str) -> Callable[[float], None]:
        if name not in self._known_operations and name != ANONYMOUS_OPERATION:
            if self._learned_operations >= OPERATIONS_LEARNED_MAX:
                # Not remembered: there is no end to the names that clients can think of.
                return self._graphql_seconds.labels(OTHER_OPERATION).observe
            self._learned_operations += 1
        observe: Callable[[float], None] = self._graphql_seconds.labels(name).observe
        self._operation_observers[name] = observe
        return observe

    def graphql_error(self, code: str) -> None:
        """A GraphQL error was answered; `code` is one of the server's own."""
        self._graphql_errors.labels(code).inc()

    def render(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)
