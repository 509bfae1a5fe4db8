"""Refusals as the API tells them, and the one place that makes them of the domain's."""

from collections.abc import Callable, Coroutine
from datetime import datetime
from functools import wraps
from typing import Any, Final, ParamSpec, Protocol, TypeVar

import strawberry

from api.scalars import Decimal, Seq
from app.errors import ErrorCode, Refusal, Refused
from app.idempotency import KeyedOutcome

P = ParamSpec("P")


@strawberry.interface(
    description=(
        "Why a request was refused: an expected outcome, told as data. Expect codes and types of errors that you do "
        "not know."
    )
)
class UserError:
    """What every refusal has."""

    code: ErrorCode = strawberry.field(description="What a client switches on.")
    message: str = strawberry.field(description="What was wrong, with what value, and what to do; for people.")
    field: list[str] | None = strawberry.field(
        description='The path of the argument that is to blame, such as ["input", "amount"]; null where none is.'
    )


@strawberry.type(description="A refusal that needs no more than its code, message and field.")
class GeneralError(UserError):
    """The plain kind."""


@strawberry.type(description="INSUFFICIENT_FUNDS and INSUFFICIENT_SHARES: less is available than it takes.")
class InsufficientBalanceError(UserError):
    """Amounts are money or shares, as the code says."""

    required: Decimal = strawberry.field(description="What it takes: money in the quote currency, or shares.")
    available: Decimal = strawberry.field(description="What there was, in the same unit.")


@strawberry.type(description="SLIPPAGE_EXCEEDED: a bound of the order did not hold under the asset's lock.")
class SlippageError(UserError):
    """`bound` and `actual` are in the bound's own unit."""

    bound: Decimal = strawberry.field(
        description="The bound as the order gave it: money, shares, or for ifTradeSeq a sequence."
    )
    actual: Decimal = strawberry.field(description="What it would have been, in the same unit.")
    at_trade_seq: Seq = strawberry.field(description="The asset's tradeSeq at which this was so.")


@strawberry.type(description="BELOW_MINIMUM, POSITION_LIMIT and REDEMPTION_LIMIT: beyond a limit.")
class LimitError(UserError):
    """Amounts are money or shares, as the limit is."""

    limit: Decimal = strawberry.field(description="The limit: money in the quote currency, or shares.")
    remaining: Decimal | None = strawberry.field(description="How much is left of it, where something can be.")
    resets_at: datetime | None = strawberry.field(description="When it is whole again, where it ever is.")


class Refusable(Protocol):
    """A payload: everything in it may be null but its userErrors."""

    def __init__(self, *, user_errors: list[UserError]) -> None: ...


R = TypeVar("R", bound=Refusable)

USER_ERRORS: Final = "Why the request was refused; empty when it was done."


def user_error(refusal: Refusal) -> UserError:
    """The refusal in the most telling type that what it carries allows."""
    path = list(refusal.field) if refusal.field else None
    if refusal.required is not None and refusal.available is not None:
        return InsufficientBalanceError(
            code=refusal.code,
            message=refusal.message,
            field=path,
            required=Decimal(refusal.required),
            available=Decimal(refusal.available),
        )
    if refusal.bound is not None and refusal.actual is not None and refusal.at_trade_seq is not None:
        return SlippageError(
            code=refusal.code,
            message=refusal.message,
            field=path,
            bound=Decimal(refusal.bound),
            actual=Decimal(refusal.actual),
            at_trade_seq=Seq(refusal.at_trade_seq),
        )
    if refusal.limit is not None:
        return LimitError(
            code=refusal.code,
            message=refusal.message,
            field=path,
            limit=Decimal(refusal.limit),
            remaining=None if refusal.remaining is None else Decimal(refusal.remaining),
            resets_at=None if refusal.resets_at is None else datetime.fromisoformat(refusal.resets_at),
        )
    return GeneralError(code=refusal.code, message=refusal.message, field=path)


def refusable(
    payload: type[R],
) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Callable[P, Coroutine[Any, Any, R]]]:
    """Answer what a resolver's use case refuses with `payload`, of which only userErrors is set."""

    def decorate(resolver: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        @wraps(resolver)
        async def resolve(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return await resolver(*args, **kwargs)
            except Refused as refused:
                return payload(user_errors=[user_error(refused.refusal)])

        return resolve

    return decorate


def made_by(outcome: KeyedOutcome) -> int:
    """The id of what a keyed use case made. Raises `Refused` when it refused: its transaction has committed by now."""
    if outcome.refusal is not None:
        raise Refused(outcome.refusal)
    if outcome.id is None:
        raise LookupError("a keyed outcome has neither an id nor a refusal")
    return outcome.id
