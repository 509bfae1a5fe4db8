"""Which events a reader has seen: what tells duplicates and holes apart in a gapless sequence per asset. Pure."""

from typing import Final

DUPLICATE: Final = -1


class Continuity:
    """The last seq seen of each asset."""

    def __init__(self) -> None:
        self.last: dict[str, int] = {}

    def step(self, asset_id: str, seq: int) -> int:
        """Note `seq` and answer how many are missing before it; `DUPLICATE` when it was seen before.

        The first of an asset misses nothing: streams begin where they are asked to. Seq 0 is no event but a stand-in
        where there has been none yet; it is never a duplicate.
        """
        last = self.last.get(asset_id)
        if last is not None and seq <= last and seq > 0:
            return DUPLICATE
        self.last[asset_id] = seq
        return 0 if last is None or seq == 0 else seq - last - 1
