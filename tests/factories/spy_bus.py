"""A bus that sends nothing and remembers what it was told of."""

from collections.abc import Collection

from app.bus import Bus


class SpyBus(Bus):
    """`told`: (account ids, asset ids) of each telling of changes, in order; `reported`: whose oracles have reports."""

    def __init__(self) -> None:
        super().__init__(None)
        self.told: list[tuple[list[int], list[int]]] = []
        self.reported: list[list[int]] = []

    def publish_changes(
        self, *, accounts: Collection[int] = (), assets: Collection[int] = (), reports: Collection[int] = ()
    ) -> None:
        """Remember it."""
        self.told.append((list(accounts), list(assets)))
        self.reported.append(list(reports))
