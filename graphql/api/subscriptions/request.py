"""What one reader asks of a stream, checked. Here is what the streams have in common; each stream's own is its file's.

The argument annotations are shared by the fields, so that the same argument means and says the same everywhere.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeAlias, TypeVar

import strawberry

from api.access import is_admin
from api.context import Context
from api.node_ids import key_of
from api.scalars import Cursor
from api.subscriptions.encoders import Encoders
from api.subscriptions.selection import EventSelection
from app.errors import ErrorCode, invalid, quoted, refuse
from app.exchange.assets import AssetStatus
from app.realtime.events import Sink

ASSET_IDS_MAX: Final = 500
HEARTBEAT_SECONDS_MIN: Final = 1
HEARTBEAT_SECONDS_MAX: Final = 60
HEARTBEAT_SECONDS_DEFAULT: Final = 5

F = TypeVar("F", bound=Callable[..., object])

AssetIds: TypeAlias = Annotated[
    list[strawberry.ID] | None,
    strawberry.argument(description=f"Only these assets, 1 to {ASSET_IDS_MAX}; left out or null: every asset."),
]
After: TypeAlias = Annotated[
    Cursor | None,
    strawberry.argument(
        description="The cursor of the last event that was seen: what has happened since comes first, without a gap."
    ),
]
Snapshot: TypeAlias = Annotated[
    bool,
    strawberry.argument(
        description="Whether the first event is a SNAPSHOT. With after there is one after a GAP only, in any case."
    ),
]
HeartbeatSeconds: TypeAlias = Annotated[
    int,
    strawberry.argument(
        description=(
            "After how many seconds without an event a HEARTBEAT comes, "
            f"{HEARTBEAT_SECONDS_MIN} to {HEARTBEAT_SECONDS_MAX}."
        )
    ),
]


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """A reader's subscription before it is opened. `encoders` are the process's."""

    selection: EventSelection
    context: Context
    sink: Sink
    encoders: Encoders

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The field's arguments, coerced, by their names in the schema."""
        return self.selection.arguments

    @property
    def sees_drafts(self) -> bool:
        """Whether assets that are being prepared are shown: to admins only."""
        return is_admin(self.context.principal)

    @property
    def after(self) -> str | None:
        """The cursor to go on from."""
        after: str | None = self.arguments.get("after")
        return after

    @property
    def heartbeat_seconds(self) -> int:
        """Raises `Refused` (INVALID_INPUT) out of its range."""
        seconds: int = self.arguments["heartbeatSeconds"]
        if not HEARTBEAT_SECONDS_MIN <= seconds <= HEARTBEAT_SECONDS_MAX:
            raise invalid(
                f"heartbeatSeconds is {HEARTBEAT_SECONDS_MIN} to {HEARTBEAT_SECONDS_MAX}; got {seconds}.",
                "heartbeatSeconds",
            )
        return seconds

    async def asset_ids(self) -> frozenset[int] | None:
        """The assets asked for, all of which the reader may see; None for every asset.

        Raises `Refused`: INVALID_INPUT for none or too many, NOT_FOUND for one that does not exist or is not shown.
        """
        ids: list[str] | None = self.arguments.get("assetIds")
        if ids is None:
            return None
        if not 1 <= len(ids) <= ASSET_IDS_MAX:
            raise invalid(f"assetIds holds 1 to {ASSET_IDS_MAX} ids; got {len(ids)}.", "assetIds")
        keys = {text: key_of(text, "Asset") for text in ids}
        known = await self._visible({key for key in keys.values() if key is not None})
        for text, key in keys.items():
            if key not in known:
                raise refuse(
                    ErrorCode.NOT_FOUND, f"There is no asset {quoted(text)}; look assets up by assets.", "assetIds"
                )
        return known

    async def _visible(self, keys: set[int]) -> frozenset[int]:
        rows = await self.context.loaders.assets.load_many(sorted(keys))
        return frozenset(
            row.id for row in rows if row is not None and (self.sees_drafts or row.status is not AssetStatus.DRAFT)
        )


def streamed(description: str) -> Callable[[F], F]:
    """A field of the subscription root. What the decorated method answers is `opened_by_the_transport()`."""
    decorate: Callable[[F], F] = strawberry.subscription(description=description)
    return decorate


async def opened_by_the_transport() -> AsyncGenerator[Any, None]:
    """Stands where Strawberry would make one reader's events, which nothing here ever asks it to."""
    raise AssertionError("streams are opened by api.subscriptions.opening, never by Strawberry")
    yield
