"""Logs are JSON and hold no secret; labels of metrics are bounded."""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from io import StringIO

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from app.errors import ErrorCode, Refusal, Unauthenticated, refuse
from app.exchange.batch import OrderOutcome
from app.exchange.orders import Order, OrderStatus, OrderType, Side, TimeInForce
from app.telemetry import OPERATIONS_LEARNED_MAX, Metrics, configure_logging, redact

TOKEN = "mgs_" + "aB3-" * 10


@pytest.fixture
def logs() -> Iterator[StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = StringIO()
    configure_logging("INFO", stream=stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def entries(logs: StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in logs.getvalue().splitlines()]


def test_each_entry_is_one_json_object_with_its_time_and_level(logs: StringIO) -> None:
    structlog.get_logger("somewhere").info("something.happened", seconds=1.5, who=["a"])
    logging.getLogger("library").warning("a %s said %d", "library", 3)
    structlog.get_logger("somewhere").debug("not.shown")

    ours, theirs = entries(logs)
    assert ours.pop("timestamp")
    assert ours == {
        "event": "something.happened",
        "level": "info",
        "logger": "somewhere",
        "seconds": 1.5,
        "who": ["a"],
    }
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("a library said 3", "warning", "library")


def test_exceptions_are_logged_with_their_traceback_and_without_values_of_variables(
    logs: StringIO,
) -> None:
    password = "hunter2-hunter2"
    try:
        raise ValueError(f"no session {TOKEN}, {len(password)}")
    except ValueError as error:
        structlog.get_logger().error("failed", exc_info=error)

    (entry,) = entries(logs)
    text = str(entry["exception"])
    assert text.startswith("Traceback (most recent call last):")
    assert "ValueError: no session mgs_[redacted], 15" in text
    assert "hunter2-hunter2" not in text


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        (f"token {TOKEN}.", "token mgs_[redacted]."),
        ("Authorization: Bearer abc.def-123", "Authorization: Bearer [redacted]"),
        ("bearer  xyz", "bearer [redacted]"),
        ("postgresql://megatron:pa55@db:5432/x?y=z", "postgresql://megatron:[redacted]@db:5432/x?y=z"),
        ("rediss://default:s3cr3t@cache:6379", "rediss://default:[redacted]@cache:6379"),
        ("hash $argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA end", "hash [redacted] end"),
        ("$2b$04$v/tKXof32nj3Gn./zg9bu.aHFDz5Qi3DroatVOxNpCm7nNEHdcPE.", "[redacted]"),
        ("nothing to hide: http://host:80/path", "nothing to hide: http://host:80/path"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out(text: str, redacted: str) -> None:
    assert redact(text) == redacted


def test_values_under_secret_names_are_taken_out_at_any_depth(logs: StringIO) -> None:
    structlog.get_logger().info(
        "event", password="p", nested={"apiKey": "k", "list": [{"session_token": 1}]}, token=None
    )

    (entry,) = entries(logs)
    assert entry["password"] == "[redacted]"
    assert entry["nested"] == {"apiKey": "[redacted]", "list": [{"session_token": "[redacted]"}]}
    assert entry["token"] is None


def samples(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if sample.name == name
    }


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(version="1.2.3", environment="development", operations=["Known"])


def test_operation_names_get_labels_until_there_are_too_many(metrics: Metrics) -> None:
    for number in range(OPERATIONS_LEARNED_MAX + 30):
        metrics.graphql_operation(f"Invented{number}", 0.01)
    metrics.graphql_operation("Invented0", 0.01)
    metrics.graphql_operation("Known", 0.01)
    metrics.graphql_operation(None, 0.01)

    counts = samples(metrics, "megatron_graphql_seconds_count")
    assert len(counts) == OPERATIONS_LEARNED_MAX + 3
    assert (counts["Invented0",], counts["Known",], counts["(anonymous)",], counts["(other)",]) == (2, 1, 1, 30)


def order(refusal: Refusal | None) -> Order:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Order(
        id=1,
        account_id=1,
        asset_id=1,
        client_order_id="mine",
        side=Side.BUY,
        type=OrderType.MARKET,
        time_in_force=TimeInForce.FOK,
        status=OrderStatus.FILLED if refusal is None else OrderStatus.REJECTED,
        limit_price=None,
        shares=1,
        amount=None,
        filled_shares=1,
        gross=1,
        fee=1,
        refusal=refusal,
        created_at=at,
        updated_at=at,
    )


def test_orders_are_counted_by_outcome(metrics: Metrics) -> None:
    for refusal in (None, None, Refusal(ErrorCode.INSUFFICIENT_FUNDS, "")):
        metrics.answered(OrderOutcome(order(refusal), ()))
    metrics.answered(refuse(ErrorCode.NOT_FOUND, ""))
    metrics.answered(Unauthenticated())
    metrics.settled(orders=3, seconds=0.004)

    assert samples(metrics, "megatron_orders_total") == {
        ("FILLED",): 2,
        ("INSUFFICIENT_FUNDS",): 1,
        ("NOT_FOUND",): 1,
        ("UNAUTHENTICATED",): 1,
    }
    assert samples(metrics, "megatron_settlement_batch_orders_sum") == {(): 3}
    assert samples(metrics, "megatron_settlement_seconds_sum") == {(): 0.004}


def test_gauges_are_read_when_the_metrics_are(metrics: Metrics) -> None:
    value = 1.0
    metrics.gauge("megatron_test", "A test.", lambda: value)
    assert samples(metrics, "megatron_test") == {(): 1}
    value = 2.0
    assert samples(metrics, "megatron_test") == {(): 2}
    assert samples(metrics, "megatron_build_info") == {("development", "1.2.3"): 1}
