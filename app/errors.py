"""Expected refusals, as data. Every use case that says no raises `Refused` with one of these; the edge translates it.

Unexpected failures are ordinary exceptions and never pass through here.
"""

from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class ErrorCode(StrEnum):
    """Why a request was refused. The names are public: clients switch on them."""

    INVALID_INPUT = "INVALID_INPUT"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    INVALID_CREDENTIALS = "INVALID_CREDENTIALS"
    WEAK_PASSWORD = "WEAK_PASSWORD"
    INSUFFICIENT_FUNDS = "INSUFFICIENT_FUNDS"
    INSUFFICIENT_SHARES = "INSUFFICIENT_SHARES"
    BELOW_MINIMUM = "BELOW_MINIMUM"
    SLIPPAGE_EXCEEDED = "SLIPPAGE_EXCEEDED"
    DEADLINE_PASSED = "DEADLINE_PASSED"
    POSITION_LIMIT = "POSITION_LIMIT"
    REDEMPTION_LIMIT = "REDEMPTION_LIMIT"
    ASSET_NOT_OPEN = "ASSET_NOT_OPEN"
    TRADING_PAUSED = "TRADING_PAUSED"
    ACCOUNT_FROZEN = "ACCOUNT_FROZEN"
    IDEMPOTENCY_KEY_REUSED = "IDEMPOTENCY_KEY_REUSED"
    OVERLOADED = "OVERLOADED"
    CONFLICT = "CONFLICT"


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refusal. Quantities are exact decimal strings, so that a stored refusal reads the same for ever.

    `required`/`available` go with INSUFFICIENT_*, `bound`/`actual`/`at_trade_seq` with SLIPPAGE_EXCEEDED,
    `limit`/`remaining`/`resets_at` (RFC 3339) with BELOW_MINIMUM, POSITION_LIMIT and REDEMPTION_LIMIT.
    """

    code: ErrorCode
    message: str
    field: tuple[str, ...] | None = None
    required: str | None = None
    available: str | None = None
    bound: str | None = None
    actual: str | None = None
    at_trade_seq: int | None = None
    limit: str | None = None
    remaining: str | None = None
    resets_at: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Only what is set, ready for a JSONB column."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Refusal":
        """The refusal that `to_json` stored."""
        values = dict(stored)
        values["code"] = ErrorCode(values["code"])
        if values.get("field") is not None:
            values["field"] = tuple(values["field"])
        return cls(**values)


class Refused(Exception):  # noqa: N818 - a refusal is an outcome, not a fault
    """Raised by a use case that refuses; carries the refusal."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def invalid(message: str, *field: str) -> Refused:
    """INVALID_INPUT: the value of `field` (a path such as "input", "amount") can never be accepted as it is."""
    return Refused(Refusal(ErrorCode.INVALID_INPUT, message, field or None))


def refuse(code: ErrorCode, message: str, *field: str) -> Refused:
    """A refusal that needs no more than a code, a message and perhaps the field."""
    return Refused(Refusal(code, message, field or None))


class Unauthenticated(Exception):  # noqa: N818
    """The caller has no valid session or key; the edge answers UNAUTHENTICATED."""


class Forbidden(Exception):  # noqa: N818
    """The caller is known and may not do this; the edge answers FORBIDDEN."""


def isoformat(at: datetime) -> str:
    """RFC 3339 in UTC with microseconds and a Z."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def quoted(value: object, limit: int = 40) -> str:
    """The value as a person would recognise it, cut to `limit` characters, for use in messages."""
    text = value if isinstance(value, str) else str(value)
    return f"'{text}'" if len(text) <= limit else f"'{text[:limit]}...' ({len(text)} characters)"
