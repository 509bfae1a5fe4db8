"""What an oracle worker tells Prometheus, in a registry of its own. Nothing here decides anything, and labels are
bounded: words of the oracle and names of its providers, never what a page or a provider said.
"""

from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from time import perf_counter
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from app.money import RATE_UNIT
from app.oracle.claims import Claim, Standing
from app.oracle.guard import Breaker, BreakerState
from app.oracle.report_rows import Report
from app.oracle.steps import Step

COST_UNIT: Final = 10**6
"""Costs are integers of 10^-6 US dollars."""
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_CONFIDENCES: Final = tuple(tenth / 10 for tenth in range(1, 11))
_BREAKER_VALUES: Final = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}
_since: ContextVar[float | None] = ContextVar("oracle_step_since", default=None)
"""When the last step of this task's run was done."""


class _Asked(Collector):
    """How the providers do, read when the metrics are."""

    def __init__(self, breakers: Mapping[str, Breaker]) -> None:
        self._breakers = breakers

    def collect(self) -> Iterator[Metric]:
        """The families."""
        requests = CounterMetricFamily(
            "megatron_oracle_provider_requests",
            "Requests that were answered or failed.",
            labels=["provider", "outcome"],
        )
        state = GaugeMetricFamily(
            "megatron_oracle_breaker",
            "Whether a provider is asked: 0 closed (it is), 1 half open (once), 2 open (not).",
            labels=["provider"],
        )
        for provider, breaker in self._breakers.items():
            requests.add_metric([provider, "answered"], breaker.answered)
            requests.add_metric([provider, "failed"], breaker.failed)
            state.add_metric([provider], _BREAKER_VALUES[breaker.state])
        yield requests
        yield state


class OracleMetrics:
    """The worker's metrics. `step` goes to whoever tells of steps."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._runs = Counter(
            "megatron_oracle_runs",
            "Runs that ended: by method, and by outcome and its first reason, or FAILED.",
            ["method", "outcome", "reason"],
            registry=self.registry,
        )
        self._step_seconds = Histogram(
            "megatron_oracle_step_seconds",
            "From the step before to this one, in one run; of RECORDED, the transaction.",
            ["step"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._confidence = Histogram(
            "megatron_oracle_confidence",
            "Of search readings, as the language model said.",
            buckets=_CONFIDENCES,
            registry=self.registry,
        )
        self._cost = Counter(
            "megatron_oracle_cost_usd", "What recorded runs cost, in US dollars.", registry=self.registry
        )
        self._left = Gauge(
            "megatron_oracle_budget_left", "Requests left until UTC midnight.", ["provider"], registry=self.registry
        )
        self._overdue = self._gauge("megatron_oracle_overdue", "Assets that are due and that nobody runs.")
        self._lag = self._gauge("megatron_oracle_lag_seconds", "How overdue the most overdue of them is.")
        self._stale = self._gauge("megatron_oracle_stale", "Assets with an open alert that F is stale.")
        self._running = self._gauge("megatron_oracle_running", "Runs under way in this process.")

    def _gauge(self, name: str, description: str) -> Gauge:
        return Gauge(name, description, registry=self.registry)

    def asks(self, breakers: Mapping[str, Breaker]) -> None:
        """Tell how these providers do, by their breakers."""
        self.registry.register(_Asked(breakers))

    def begin(self) -> None:
        """What comes now is timed from here, in this task."""
        _since.set(perf_counter())

    def step(self, step: Step) -> None:
        """A step of this task's run is done."""
        now, since = perf_counter(), _since.get()
        _since.set(now)
        if since is not None and step is not Step.CLAIMED:
            self._step_seconds.labels(step.value).observe(now - since)

    def reported(self, report: Report) -> None:
        """A run led to a report."""
        reason = report.reasons[0] if report.reasons else ""
        self._runs.labels(report.method.value, report.outcome.value, reason).inc()
        self._cost.inc(report.cost / COST_UNIT)
        if report.confidence is not None:
            self._confidence.observe(report.confidence / RATE_UNIT)

    def failed(self, claim: Claim) -> None:
        """A run came to nothing."""
        self._runs.labels(claim.method.value, "FAILED", "").inc()

    def stands(self, standing: Standing, *, running: int) -> None:
        """How the schedule stands now."""
        self._overdue.set(standing.overdue)
        self._lag.set(standing.lag_seconds)
        self._stale.set(standing.stale)
        self._running.set(running)

    def budgets(self, left: Mapping[str, int]) -> None:
        """What is left of the budgets."""
        for provider, requests in left.items():
            self._left.labels(provider).set(requests)

    def render(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)
