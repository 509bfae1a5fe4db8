"""What travels from the hub to a reader, and what the two ask of each other. Only types: no behaviour."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Generic, Protocol, TypeAlias, TypeVar

Item = TypeVar("Item")


class EventKind(StrEnum):
    """What an event of a stream is."""

    SNAPSHOT = "SNAPSHOT"
    UPDATE = "UPDATE"
    HEARTBEAT = "HEARTBEAT"
    GAP = "GAP"


class TickMode(StrEnum):
    """Whether a reader gets every tick or the newest of each asset."""

    ALL = "ALL"
    LATEST = "LATEST"


@dataclass(frozen=True, slots=True)
class Event(Generic[Item]):
    """One event. `cursor` is the opaque position to go on from, "" in streams of state; `missed` counts what was left
    out before it; `seq` is the account's own sequence, in account events only."""

    kind: EventKind
    items: Sequence[Item]
    cursor: str
    server_time: datetime
    missed: int | None = None
    seq: int = 0


Encoder: TypeAlias = Callable[[Event[Item]], bytes | Awaitable[bytes]]
"""The bytes of a whole GraphQL result for an event: `{"data": ...}`.

Readers whose selections are alike are given the very same encoder object, and share what it makes. It raises nothing:
what goes wrong is told as errors in the result. It is awaitable only where something must be read from the database.
"""


class Sink(Protocol):
    """Where a subscription's events go: a subscription of a WebSocket, or a stream of server-sent events."""

    def send(self, payload: bytes) -> None:
        """Send a result. Neither blocks nor raises; after the subscription's end it does nothing."""

    @property
    def congested(self) -> bool:
        """Whether the connection's outgoing buffer is above its high-water mark."""

    def complete(self) -> None:
        """Tell the reader that there will be no more."""

    def too_slow(self) -> None:
        """Close the whole connection: its reader does not keep up."""


class Reader(Protocol):
    """A subscription, as its connection sees it."""

    def close(self) -> None:
        """The reader is gone or has completed. Nothing is sent from now on; may be called more than once."""

    def congested(self) -> None:
        """The outgoing buffer has come above its high-water mark. May be called from within `Sink.send`."""

    def drained(self) -> None:
        """It has been sent."""
