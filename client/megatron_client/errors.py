"""What can go wrong, by type. Everything that the client raises of its own is a `MegatronError`."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from megatron_client.orders import OrderRequest
    from megatron_client.types import Order


class MegatronError(Exception):
    """Any failure told by this package."""


class UnknownAsset(MegatronError):  # noqa: N818
    """There is no such symbol or id that you may see."""


class Unreachable(MegatronError):  # noqa: N818
    """The server stayed away for longer than the client's patience."""


class RequestFailed(MegatronError):  # noqa: N818
    """The server answered with an error that waiting does not cure. `code` is extensions.code."""

    def __init__(self, code: str, message: str, request_id: str = "") -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.request_id = request_id


class NotLoggedIn(RequestFailed):
    """The token is missing, unknown, expired or revoked: log in, or give another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What a refusal says beyond its code: `required`/`available` of a balance, `bound`/`actual`/`at_trade_seq` of a
    price bound, `limit`/`remaining`/`resets_at` of a limit."""

    required: Decimal | None = None
    available: Decimal | None = None
    bound: Decimal | None = None
    actual: Decimal | None = None
    at_trade_seq: int | None = None
    limit: Decimal | None = None
    remaining: Decimal | None = None
    resets_at: datetime | None = None


class Refused(MegatronError):  # noqa: N818
    """An expected refusal. `code` may be one that this package does not know; `field` is the path of the input.

    `order` is the REJECTED order, where the refusal was decided in the market and is bound to the order's key.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        field: tuple[str, ...] = (),
        details: Details | None = None,
        order: "Order | None" = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.field = field
        self.details = details or Details()
        self.order = order


class OutcomeUnknown(MegatronError):  # noqa: N818
    """An order was sent, and no answer can be had. Give `request` to `Client.send_order` again to learn its outcome."""

    def __init__(self, request: "OrderRequest", why: str) -> None:
        super().__init__(
            f"it is not known whether order {request.client_order_id} was executed ({why}): "
            "send_order with this error's `request` tells, and never executes it twice"
        )
        self.request = request


class Gap(MegatronError):  # noqa: N818
    """Events of an asset after `after_seq` and before `before_seq` cannot be had by the stream any more."""

    def __init__(self, asset_id: str, symbol: str, *, after_seq: int, before_seq: int) -> None:
        super().__init__(
            f"{before_seq - after_seq - 1} events of {symbol or asset_id} are missing, after seq {after_seq} and "
            f"before {before_seq}: the stream no longer reaches back so far"
        )
        self.asset_id = asset_id
        self.symbol = symbol
        self.after_seq = after_seq
        self.before_seq = before_seq


class SocketClosed(MegatronError):  # noqa: N818
    """The server closed the socket for a reason that connecting again does not cure. `code` is the close code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the server closed the socket with {code}: {reason or 'no reason given'}")
        self.code = code
        self.reason = reason


class BadMessage(SocketClosed):
    """4400 and other violations of the protocol: client and server do not fit together."""


class SessionEnded(SocketClosed):
    """4401: the session ended while the socket was open. Log in again."""


class TokenRefused(SocketClosed):
    """4403: the token is not good."""


class TooManyRequests(SocketClosed):
    """4429: too many refused subscriptions, or too much else at once."""


def socket_closed(code: int, reason: str) -> SocketClosed | None:
    """The error for a close code that connecting again does not cure; None for all others."""
    kind = _FATAL.get(code)
    return kind(code, reason) if kind else None


_FATAL: dict[int, type[SocketClosed]] = {
    1002: BadMessage,
    1003: BadMessage,
    1007: BadMessage,
    1008: BadMessage,
    1009: BadMessage,
    4400: BadMessage,
    4401: SessionEnded,
    4403: TokenRefused,
    4406: BadMessage,
    4409: BadMessage,
    4429: TooManyRequests,
}
