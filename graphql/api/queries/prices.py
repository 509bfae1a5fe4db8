"""The history of prices: ticks to catch up by, candles to draw charts from."""

from typing import Annotated, Final

import strawberry
from strawberry import UNSET

from api.context import Info
from api.errors import BadUserInput
from api.fields import computed
from api.inputs import given
from api.limits import CANDLES_ASSUMED, COUNT_BACK_MAX, LIST_SIZE_MAX
from api.queries.markets import visible_asset
from api.scalars import UNIX_SECONDS_MAX, Seq, UnixSeconds
from api.types.markets import CandleSeries, PriceTick, show_candle, show_tick
from app.db import Connection
from app.pricing.candles import Candle
from app.pricing.intervals import Interval, PriceKind, buckets
from app.pricing.reads import candles_before, ticks_after

_EVER: Final = UNIX_SECONDS_MAX + 1


@strawberry.type
class PriceQueries:
    """Needs no log-in; drafts are for admins."""

    @computed(
        "An asset's ticks after a seq, ascending; none for an asset that does not exist. Ask again with the last one's "
        "seq until fewer than first come. Seqs have no gaps: where the first tick's seq is not afterSeq + 1, those "
        "between are older than ticks are kept."
    )
    async def ticks(
        self,
        info: Info,
        asset_id: Annotated[strawberry.ID, strawberry.argument(description="The asset's id.")],
        after_seq: Annotated[Seq, strawberry.argument(description="Only ticks after the one of this seq; 0 for all.")],
        first: Annotated[int, strawberry.argument(description=f"How many at most, 1 to {LIST_SIZE_MAX}.")] = 500,
    ) -> list[PriceTick]:
        if not 1 <= first <= LIST_SIZE_MAX:
            raise BadUserInput(f"first must be between 1 and {LIST_SIZE_MAX}; got {first}.")
        asset = await visible_asset(info, asset_id)
        if asset is None:
            return []
        async with info.context.services.database.acquire() as connection:
            rows = await ticks_after(connection=connection, asset_id=asset.id, after_seq=after_seq, limit=first)
        return [show_tick(row) for row in rows]

    @computed(
        "An asset's candles in ascending order, the one that is not over yet included; noData for an asset that does "
        "not exist. Times without a tick have no candle. Either countBack, which outranks from, or from; with "
        f"neither, the last {CANDLES_ASSUMED} before to."
    )
    async def candles(
        self,
        info: Info,
        *,
        asset_id: Annotated[strawberry.ID, strawberry.argument(description="The asset's id.")],
        interval: Annotated[Interval, strawberry.argument(description="How long each candle lasts.")],
        price: Annotated[
            PriceKind, strawberry.argument(description="Which price they are made of.")
        ] = PriceKind.DISPLAY,
        from_: Annotated[
            UnixSeconds | None,
            strawberry.argument(
                name="from",
                description=(
                    "Only candles that begin then or later; from there to the end there is time for at most "
                    f"{COUNT_BACK_MAX} candles. Ignored with countBack."
                ),
            ),
        ] = UNSET,
        to: Annotated[
            UnixSeconds | None, strawberry.argument(description="Only candles that begin before it; now if left out.")
        ] = UNSET,
        count_back: Annotated[
            int | None,
            strawberry.argument(
                description=f"The last so many candles before to, however far back they lie: 1 to {COUNT_BACK_MAX}."
            ),
        ] = UNSET,
    ) -> CandleSeries:
        now = int(info.context.loaders.at.timestamp())
        since, limit = _wanted(interval, given(from_), given(to), given(count_back), now)
        asset = await visible_asset(info, asset_id)
        if asset is None:
            return _series([])
        end = given(to)

        async def read(connection: Connection, since: int, to: int, limit: int) -> list[Candle]:
            return await candles_before(
                connection=connection,
                asset_id=asset.id,
                interval=interval,
                price=price,
                since=since,
                to=to,
                limit=limit,
                now=now,
            )

        async with info.context.services.database.acquire() as connection:
            candles = await read(connection, since, _EVER if end is None else end, limit)
            earlier = await read(connection, 0, since, 1) if since and not candles else []
        return _series(candles, earlier)


def _wanted(interval: Interval, since: int | None, to: int | None, count_back: int | None, now: int) -> tuple[int, int]:
    """From when, and how many of the last candles. Raises `BadUserInput`."""
    if count_back is not None:
        if not 1 <= count_back <= COUNT_BACK_MAX:
            raise BadUserInput(f"countBack must be between 1 and {COUNT_BACK_MAX}; got {count_back}.")
        return 0, count_back
    if since is None:
        return 0, CANDLES_ASSUMED
    if to is not None and since > to:
        raise BadUserInput(f"from must not be after to; got from: {since} and to: {to}.")
    count = buckets(interval, since, now + 1 if to is None else to)
    if count > COUNT_BACK_MAX:
        raise BadUserInput(
            f"From {since} to {'now' if to is None else to} there is time for {count} candles of {interval}, and at "
            f"most {COUNT_BACK_MAX} are given: ask for less, or for the last ones by countBack."
        )
    return since, COUNT_BACK_MAX


def _series(candles: list[Candle], earlier: list[Candle] | None = None) -> CandleSeries:
    return CandleSeries(
        candles=[show_candle(candle) for candle in candles],
        no_data=not candles,
        next_time=UnixSeconds(earlier[0].time) if earlier else None,
    )
