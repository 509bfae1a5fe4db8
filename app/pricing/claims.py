"""Which price worker writes which assets: leases of workers, and claims of assets that last as long as a lease does.

A claim is `price_states.owner_id`. Nobody needs to be certain that a claim still holds: every write of the engine is
conditional on it (the fence), so a worker that was overtaken writes nothing. All times are the database's.
"""

from dataclasses import dataclass
from typing import Final

from app.db import Connection
from app.money import RATE_UNIT

LEASE_SECONDS: Final = 6.0
"""How long a worker counts as alive without a sign of life."""
RENEW_SECONDS: Final = 2.0
"""Between signs of life: a lease outlives two that fail."""
CLAIM_SECONDS: Final = 1.0
"""Between looks at what may be claimed. With the lease it stays below the ten seconds that a take-over may take."""
DEAD_KEPT_SECONDS: Final = 3_600.0
"""How long the row of a worker that has died can be looked at."""
CLAIM_LOCK: Final = 0x636C6169
"""Advisory lock: workers claim one after the other, so that each sees what the others have."""

_LEASED: Final = (
    "lease_until > statement_timestamp()"
    f" AND lease_until <= statement_timestamp() + make_interval(secs => {2 * LEASE_SECONDS})"
)
"""SQL: a lease that ends later than any can was given before the clock was set back, and says nothing about life."""
_LIVE: Final = f"(SELECT id FROM price_workers WHERE {_LEASED})"
_FREE: Final = f"(s.owner_id IS NULL OR s.owner_id NOT IN {_LIVE})"


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that is alive, and how many assets it owns."""

    label: str
    assets: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Who ticks: the live workers, assets, those that no live worker owns, and how long the oldest trade or reading
    without a tick has waited, in seconds; 0 when there is none."""

    workers: list[Worker]
    assets: int
    unowned: int
    lag_seconds: float


@dataclass(frozen=True, slots=True)
class Share:
    """How a worker stands after it has claimed: the assets that are its own, ascending, and how many are too many."""

    asset_ids: tuple[int, ...]
    excess: int


async def register(*, connection: Connection, label: str) -> int:
    """Enter a worker, alive from now; its id, which no worker ever had. `label` says to people where it runs."""
    await connection.execute(
        "DELETE FROM price_workers WHERE lease_until < clock_timestamp() - make_interval(secs => $1)", DEAD_KEPT_SECONDS
    )
    worker_id: int = await connection.fetchval(
        "INSERT INTO price_workers (label, started_at, lease_until)"
        " VALUES ($1, clock_timestamp(), clock_timestamp() + make_interval(secs => $2)) RETURNING id",
        label,
        LEASE_SECONDS,
    )
    return worker_id


async def renew(*, connection: Connection, worker_id: int) -> bool:
    """A sign of life. False when the worker has been dead for so long that its row is gone: it registers anew."""
    found = await connection.fetchval(
        "UPDATE price_workers SET lease_until = clock_timestamp() + make_interval(secs => $2) WHERE id = $1"
        " RETURNING true",
        worker_id,
        LEASE_SECONDS,
    )
    return found is not None


async def admit_new_assets(*, connection: Connection) -> int:
    """Give every asset that has none a state from before its first tick, D = M = F = P0 and w = 1; how many."""
    admitted = await connection.fetch(
        "INSERT INTO price_states (asset_id, at, display, market, fundamental, market_weight, recent_volume_at)"
        " SELECT a.id, a.created_at, a.base_price, a.base_price, a.base_price, $1, a.created_at FROM assets a"
        " WHERE NOT EXISTS (SELECT FROM price_states s WHERE s.asset_id = a.id) ORDER BY a.id"
        " ON CONFLICT (asset_id) DO NOTHING RETURNING asset_id",
        RATE_UNIT,
    )
    return len(admitted)


async def claim(*, connection: Connection, worker_id: int) -> Share:
    """Claim assets that nobody alive owns, up to a fair share: ceil(assets / live workers), this one counted in.

    Runs in a transaction of its own, else two workers could claim the same. An asset whose row is locked by a write
    under way is left for the next time.
    """
    await connection.execute("SELECT pg_advisory_xact_lock($1)", CLAIM_LOCK)
    row = await connection.fetchrow(
        "SELECT count(*) AS assets, count(*) FILTER (WHERE s.owner_id = $1) AS own,"
        f" (SELECT count(*) FROM price_workers WHERE {_LEASED} AND id <> $1) + 1 AS live,"
        f" count(*) FILTER (WHERE {_FREE}) AS free FROM price_states s",
        worker_id,
    )
    if row is None:
        raise LookupError("counting answered nothing")
    fair = -(-row["assets"] // row["live"])
    wanted = min(fair - row["own"], row["free"])
    if wanted > 0:
        await connection.execute(
            "UPDATE price_states SET owner_id = $1 WHERE asset_id IN (SELECT asset_id FROM price_states s"
            f" WHERE {_FREE} AND s.owner_id IS DISTINCT FROM $1 ORDER BY asset_id LIMIT $2 FOR UPDATE SKIP LOCKED)",
            worker_id,
            wanted,
        )
    owned = await connection.fetch("SELECT asset_id FROM price_states WHERE owner_id = $1 ORDER BY asset_id", worker_id)
    return Share(tuple(row["asset_id"] for row in owned), max(len(owned) - fair, 0))


async def release(*, connection: Connection, worker_id: int, asset_ids: list[int]) -> None:
    """Give up assets: whoever has less than its share may claim them at once."""
    await connection.execute(
        "UPDATE price_states SET owner_id = NULL WHERE asset_id = ANY($2::bigint[]) AND owner_id = $1",
        worker_id,
        asset_ids,
    )


async def retire(*, connection: Connection, worker_id: int) -> None:
    """The worker stops in order: give up everything, and leave."""
    await connection.execute("UPDATE price_states SET owner_id = NULL WHERE owner_id = $1", worker_id)
    await connection.execute("DELETE FROM price_workers WHERE id = $1", worker_id)


async def prices_standing(*, connection: Connection) -> Standing:
    """How the engine stands now."""
    workers = await connection.fetch(
        "SELECT w.label, count(s.asset_id) AS assets FROM price_workers w LEFT JOIN price_states s ON s.owner_id = w.id"
        f" WHERE {_LEASED} GROUP BY w.id ORDER BY w.id"
    )
    row = await connection.fetchrow(
        "SELECT count(*) AS assets,"
        f" count(*) FILTER (WHERE NOT EXISTS (SELECT FROM price_states s WHERE s.asset_id = a.id AND NOT {_FREE}))"
        " AS unowned,"
        " extract(epoch FROM statement_timestamp() - min(least(t.at, e.at)))::float8 AS lag"
        " FROM assets a LEFT JOIN price_states p ON p.asset_id = a.id"
        " LEFT JOIN trades t ON t.asset_id = a.id AND t.seq = coalesce(p.trade_seq, 0) + 1"
        " LEFT JOIN oracle_events e ON e.asset_id = a.id AND e.seq = coalesce(p.oracle_seq, 0) + 1"
    )
    if row is None:
        raise LookupError("counting answered nothing")
    alive = [Worker(worker["label"], worker["assets"]) for worker in workers]
    return Standing(alive, row["assets"], row["unowned"], max(row["lag"] or 0.0, 0.0))
