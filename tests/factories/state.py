"""What stands in the tables about an account and an asset: to show what a step changed, and that a refusal did not."""

from dataclasses import dataclass

from app.db import Database


@dataclass(frozen=True)
class Standing:
    """Balances by (owner, kind, currency) where anything ever moved, and how many facts there are. Base units."""

    balances: dict[str, int]
    position: dict[str, object] | None
    asset: dict[str, object]
    orders: int
    trades: int
    transfers: int
    entries: int

    def unchanged_but_for_orders(self, before: "Standing") -> bool:
        """Whether only orders have been added since `before`."""
        return self.without_orders() == before.without_orders()

    def without_orders(self) -> tuple[object, ...]:
        """Everything but the number of orders."""
        return (self.balances, self.position, self.asset, self.trades, self.transfers, self.entries)


async def standing(database: Database, *, account_id: int, asset_id: int) -> Standing:
    """The account's and the asset's money, shares and rules, and the number of orders, trades, transfers, entries."""
    async with database.snapshot() as connection:
        balances = await connection.fetch(
            "SELECT CASE WHEN account_id IS NULL THEN 'asset' ELSE 'account' END AS owner, kind,"
            " CASE WHEN currency IN ('USDC', 'USDT') THEN currency ELSE 'shares' END AS currency, balance"
            " FROM ledger_accounts WHERE version > 0 AND (account_id = $1 AND coalesce(asset_id, $2) = $2"
            " OR account_id IS NULL AND asset_id = $2)",
            account_id,
            asset_id,
        )
        position = await connection.fetchrow(
            "SELECT shares, cost_basis, realized_pnl, redeemed_on, redeemed FROM positions"
            " WHERE account_id = $1 AND asset_id = $2",
            account_id,
            asset_id,
        )
        asset = await connection.fetchrow("SELECT * FROM assets WHERE id = $1", asset_id)
        counts = await connection.fetchrow(
            "SELECT (SELECT count(*) FROM orders WHERE account_id = $1) AS orders,"
            " (SELECT count(*) FROM trades WHERE asset_id = $2) AS trades,"
            " (SELECT count(DISTINCT transfer_id) FROM entries WHERE account_id = $1) AS transfers,"
            " (SELECT count(*) FROM entries WHERE account_id = $1) AS entries",
            account_id,
            asset_id,
        )
    if counts is None:
        raise AssertionError("counting answered nothing")
    return Standing(
        balances={f"{row['owner']} {row['kind']} {row['currency']}": row["balance"] for row in balances},
        position=dict(position) if position else None,
        asset=dict(asset) if asset else {},
        orders=counts["orders"],
        trades=counts["trades"],
        transfers=counts["transfers"],
        entries=counts["entries"],
    )
