"""What a mutation has changed is told on the wake-up stream after its commit, by an API process as it really runs."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from api.node_ids import key_or_nothing
from app.bus import CHANGES_STREAM, TRADES_STREAM, decode_changes, decode_trades
from app.local.valkey import EmbeddedValkey
from tests.accounts.people import unique, unique_email
from tests.admin.market import unique_symbol
from tests.conftest import ADMIN_PASSWORD, LiveApi
from tests.faults import operations

WAIT_MS = 5_000


@dataclass
class Follower:
    """Reads streams from where they ended when it was made."""

    redis: Redis
    places: dict[str, bytes] = field(default_factory=dict)

    async def next(self, stream: str) -> dict[bytes, bytes]:
        """The next entry, waiting for it."""
        answer: Sequence[Any] = await self.redis.xread({stream: self.places[stream]}, count=1, block=WAIT_MS)
        assert answer, f"nothing came on {stream}"
        [(_, [(place, fields)])] = answer
        self.places[stream] = place
        entry: dict[bytes, bytes] = fields
        return entry

    async def expect_change(self, *, account: int | None = None, asset: int | None = None) -> None:
        """Read on until an entry names these; other processes may tell of theirs meanwhile."""
        while True:
            changes = decode_changes((await self.next(CHANGES_STREAM))[b"changes"])
            if account in (None, *changes.accounts) and asset in (None, *changes.assets):
                return


@pytest.fixture
async def follower(valkey: EmbeddedValkey) -> AsyncIterator[Follower]:
    redis: Redis = Redis.from_url(valkey.url)
    made = Follower(redis)
    for stream in (CHANGES_STREAM, TRADES_STREAM):
        newest = await redis.xrevrange(stream, count=1)
        made.places[stream] = newest[0][0] if newest else b"0"
    yield made
    await redis.aclose()


async def run(api: LiveApi, document: str, token: str | None = None, **values: object) -> Any:
    """The payload of the document's only mutation."""
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(timeout=10) as client:
        reply = await client.post(
            f"{api.url}/graphql", json={"query": document, "variables": {"input": values}}, headers=headers
        )
    [payload] = reply.json()["data"].values()
    assert payload["userErrors"] == []
    return payload


async def test_every_mutation_that_changes_an_account_or_an_asset_wakes_its_readers(
    live_api: LiveApi, follower: Follower
) -> None:
    person = await run(live_api, operations.SIGN_UP, email=unique_email(), password="a long enough phrase")
    token = person["session"]["token"]
    account_id = key_or_nothing(person["viewer"]["id"], "Account")
    await run(live_api, operations.DEV_FUND, token, currency="USDC", amount="100", idempotencyKey="k")
    await follower.expect_change(account=account_id)

    admin = await run(live_api, operations.ADMIN_LOG_IN, name="admin", password=ADMIN_PASSWORD)
    key = admin["session"]["token"]
    made = await run(
        live_api, operations.ASSET_CREATE, key, symbol=unique_symbol(), name="Rain", description="Rain",
        category="WEATHER", idempotencyKey=unique("key"),
    )  # fmt: skip
    asset = made["asset"]["id"]
    asset_id = key_or_nothing(asset, "Asset")
    await follower.expect_change(asset=asset_id)
    await run(live_api, operations.ASSET_UPDATE, key, assetId=asset, name="Snow", reason="because")
    await follower.expect_change(asset=asset_id)
    await run(live_api, operations.ASSET_SET_STATUS, key, assetId=asset, status="REDUCE_ONLY", reason="because")
    await follower.expect_change(asset=asset_id)
    await run(live_api, operations.ASSET_SET_STATUS, key, assetId=asset, status="OPEN", reason="because")
    await follower.expect_change(asset=asset_id)

    await run(live_api, operations.ORDER_PLACE, token, assetId=asset, side="BUY", shares="1", clientOrderId="c")
    await follower.expect_change(account=account_id)
    [trade] = decode_trades((await follower.next(TRADES_STREAM))[b"trades"])
    assert (trade.account_id, trade.asset_id, trade.seq) == (account_id, asset_id, 1)
