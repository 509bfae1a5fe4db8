"""What waits for a reader that is not being sent to: bounded, and honest about what it had to leave out. No I/O."""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, Generic, Protocol, TypeVar

TICKS_WAITING_MAX: Final = 1_000
TRADES_WAITING_MAX: Final = 1_000


class Entry(Protocol):
    """Something at a position in the stream of all ticks."""

    @property
    def position(self) -> int:
        """Its place."""

    @property
    def asset_id(self) -> int:
        """Whose it is."""


E = TypeVar("E", bound=Entry)


class Backlog(Protocol[E]):
    """Entries in the order of their positions, and how many were left out since the last `take`."""

    def add(self, entries: Iterable[E]) -> int:
        """Keep these, and answer how many entries had to be left out for it."""

    def take(self, limit: int) -> tuple[Sequence[E], int | None]:
        """The oldest entries, about `limit` of them, and how many were left out before them, None for none."""

    def __len__(self) -> int: ...


class TickBacklog(Generic[E]):
    """Every entry up to a limit; beyond it the newest of each asset only, until all of it is taken."""

    def __init__(self, limit: int = TICKS_WAITING_MAX) -> None:
        self._limit = limit
        self._all: list[E] = []
        self._newest: dict[int, E] = {}
        self._missed = 0

    def __len__(self) -> int:
        return len(self._all) + len(self._newest)

    def add(self, entries: Iterable[E]) -> int:
        """Keep these, and answer how many entries had to be left out for it."""
        if not self._newest:
            self._all.extend(entries)
            if len(self._all) <= self._limit:
                return 0
            entries, self._all = self._all, []
        missed = 0
        for entry in entries:
            missed += self._newest.pop(entry.asset_id, None) is not None
            self._newest[entry.asset_id] = entry
        self._missed += missed
        return missed

    def take(self, limit: int) -> tuple[Sequence[E], int | None]:
        """The oldest entries, and how many were left out before them; what was conflated comes in one piece."""
        if self._newest:
            taken: Sequence[E] = list(self._newest.values())
            self._newest = {}
        else:
            taken, self._all = self._all[:limit], self._all[limit:]
        missed, self._missed = self._missed, 0
        return taken, missed or None


class TradeBacklog(Generic[E]):
    """The newest entries up to a limit; the oldest are dropped for them."""

    def __init__(self, limit: int = TRADES_WAITING_MAX) -> None:
        self._limit = limit
        self._waiting: deque[E] = deque()
        self._missed = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, entries: Iterable[E]) -> int:
        """Keep these, and answer how many entries had to be left out for it."""
        self._waiting.extend(entries)
        dropped = max(0, len(self._waiting) - self._limit)
        for _ in range(dropped):
            self._waiting.popleft()
        self._missed += dropped
        return dropped

    def take(self, limit: int) -> tuple[Sequence[E], int | None]:
        """The oldest entries, and how many were dropped before them."""
        taken = [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]
        missed, self._missed = self._missed, 0
        return taken, missed or None


def newest_of_each(entries: Sequence[E]) -> tuple[Sequence[E], int | None]:
    """The newest entry of each asset, by position, and how many were left out, None for none."""
    newest: dict[int, E] = {}
    for entry in entries:
        newest.pop(entry.asset_id, None)
        newest[entry.asset_id] = entry
    missed = len(entries) - len(newest)
    return (list(newest.values()), missed) if missed else (entries, None)
