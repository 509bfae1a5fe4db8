"""The audit of assets and positions: their figures against the ledger, and each position's history replayed.

Average cost, buy fees included: a sale takes floor(cost * sold / held) out of the basis, the last share all of it, and
realises its net proceeds less that. `redeemed` is what was sold for, before fees, on the UTC day `redeemed_on`.
An event that tells of a position is held against the replay up to its trade.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, date
from typing import Final

import asyncpg

from app.ledger.audit_run import Run


async def audit_positions(run: Run) -> None:
    """Check what assets and positions repeat of the ledger, and replay each position's trades."""
    run.begin("reserves")
    await _reserves(run)
    run.begin("positions")
    await _holdings(run)
    await _replay(run)


_RESERVES: Final = """
SELECT a.id, a.base_price, a.slope, a.supply, a.backing, a.surplus, a.lp_capital,
       coalesce(-sum(l.balance) FILTER (WHERE l.kind = 'ISSUED'), 0) AS issued,
       coalesce(sum(l.balance) FILTER (WHERE l.kind = 'BACKING'), 0) AS ledger_backing,
       coalesce(sum(l.balance) FILTER (WHERE l.kind = 'SURPLUS'), 0) AS ledger_surplus,
       coalesce(sum(l.balance) FILTER (WHERE l.kind = 'LP_CAPITAL'), 0) AS ledger_lp_capital,
       coalesce(sum(l.balance) FILTER (WHERE l.kind IN ('AVAILABLE', 'HELD')), 0) AS held
  FROM assets a LEFT JOIN ledger_accounts l ON l.asset_id = a.id
 GROUP BY a.id
"""


async def _reserves(run: Run) -> None:
    async for row in run.rows(_RESERVES):
        subject = f"Asset:{row['id']}"
        pairs = [
            ("supply", row["issued"], row["supply"]),
            ("backing", row["ledger_backing"], row["backing"]),
            ("surplus", row["ledger_surplus"], row["surplus"]),
            ("lp_capital", row["ledger_lp_capital"], row["lp_capital"]),
            ("holders", row["supply"], row["held"]),
        ]
        run.compare("asset", subject, pairs)
        required = (2 * 10**15 * row["base_price"] + row["slope"] * row["supply"]) * row["supply"]
        if row["backing"] * 2 * 10**30 < required:
            least = -(-required // (2 * 10**30))
            run.found("asset.coverage", subject, f"backing of at least {least}", row["backing"])


async def _holdings(run: Run) -> None:
    await run.differences(
        "position.shares",
        "SELECT concat_ws(' ', 'Position:' || p.id, 'of', 'Account:' || coalesce(p.account_id, l.account_id),"
        " 'Asset:' || coalesce(p.asset_id, l.asset_id)), coalesce(l.shares, 0)::text, coalesce(p.shares, 0)::text"
        " FROM positions p FULL JOIN (SELECT account_id, asset_id, sum(balance) AS shares FROM ledger_accounts"
        " WHERE account_id IS NOT NULL AND asset_id IS NOT NULL GROUP BY account_id, asset_id) l"
        " ON l.account_id = p.account_id AND l.asset_id = p.asset_id"
        " WHERE coalesce(l.shares, 0) <> coalesce(p.shares, 0)",
    )
    await run.differences(
        "position.owner",
        "SELECT 'Position:' || p.id, 'an account and an asset', 'Account:' || p.account_id || ' Asset:' || p.asset_id"
        " FROM positions p LEFT JOIN accounts c ON c.id = p.account_id LEFT JOIN assets a ON a.id = p.asset_id"
        " WHERE c.id IS NULL OR a.id IS NULL",
    )
    await run.differences(
        "position.double",
        "SELECT 'Account:' || account_id || ' Asset:' || asset_id, 'one position', count(*)::text FROM positions"
        " GROUP BY account_id, asset_id HAVING count(*) > 1",
    )


Owner = tuple[int, int]


@dataclass(slots=True)
class _History:
    """A position as its trades make it."""

    owner: Owner
    shares: int = 0
    cost_basis: int = 0
    realized_pnl: int = 0
    redeemed_on: date | None = None
    redeemed: int = 0

    def take(self, trade: asyncpg.Record) -> None:
        shares, gross, fee = trade["shares"], trade["gross"], trade["fee"]
        if trade["side"] == "BUY":
            self.shares += shares
            self.cost_basis += gross + fee
            return
        basis = self.cost_basis * shares // self.shares if self.shares > shares else self.cost_basis
        self.shares -= shares
        self.cost_basis -= basis
        self.realized_pnl += gross - fee - basis
        day = trade["at"].astimezone(UTC).date()
        self.redeemed = gross + (self.redeemed if day == self.redeemed_on else 0)
        self.redeemed_on = day


async def _replay(run: Run) -> None:
    """Walk trades and positions side by side in one order: memory stays that of a single position."""
    positions = run.rows("SELECT * FROM positions ORDER BY account_id, asset_id, id")
    stored = await anext(positions, None)
    async for history in _histories(run):
        while stored is not None and _owner(stored) < history.owner:
            _compare(run, stored, _History(_owner(stored)))
            stored = await anext(positions, None)
        if stored is not None and _owner(stored) == history.owner:
            _compare(run, stored, history)
            stored = await anext(positions, None)
        else:
            account_id, asset_id = history.owner
            run.found("position.missing", f"Account:{account_id} Asset:{asset_id}", "a position of its trades", None)
    while stored is not None:
        _compare(run, stored, _History(_owner(stored)))
        stored = await anext(positions, None)


_TRADES: Final = """
SELECT t.id, t.account_id, t.asset_id, t.side, t.shares, t.gross, t.fee, t.at,
       e.seq AS event, e.shares AS told_shares, e.cost_basis AS told_cost_basis, e.realized_pnl AS told_realized_pnl
  FROM trades t LEFT JOIN account_events e ON e.transfer_id = t.transfer_id AND e.account_id = t.account_id
 ORDER BY t.account_id, t.asset_id, t.seq, t.id
"""


async def _histories(run: Run) -> AsyncIterator[_History]:
    history: _History | None = None
    taken = 0
    async for trade in run.rows(_TRADES):
        if history is None or history.owner != _owner(trade):
            if history is not None:
                yield history
            history = _History(_owner(trade))
        # A trade that two events tell of comes twice.
        if trade["id"] != taken:
            history.take(trade)
            taken = trade["id"]
        if trade["event"] is not None:
            _compare_event(run, trade, history)
    if history is not None:
        yield history


def _compare_event(run: Run, trade: asyncpg.Record, history: _History) -> None:
    told = (trade["told_shares"], trade["told_cost_basis"], trade["told_realized_pnl"])
    if told != (history.shares, history.cost_basis, history.realized_pnl):
        pairs = [
            ("shares", history.shares, told[0]),
            ("cost_basis", history.cost_basis, told[1]),
            ("realized_pnl", history.realized_pnl, told[2]),
        ]
        run.compare("account_event", f"AccountEvent:{trade['account_id']}:{trade['event']}", pairs)


def _owner(row: asyncpg.Record) -> Owner:
    return row["account_id"], row["asset_id"]


def _compare(run: Run, stored: asyncpg.Record, history: _History) -> None:
    pairs = [
        ("shares", history.shares, stored["shares"]),
        ("cost_basis", history.cost_basis, stored["cost_basis"]),
        ("realized_pnl", history.realized_pnl, stored["realized_pnl"]),
        ("redeemed_on", history.redeemed_on, stored["redeemed_on"]),
        ("redeemed", history.redeemed, stored["redeemed"]),
    ]
    account_id, asset_id = history.owner
    run.compare("position", f"Position:{stored['id']} of Account:{account_id} Asset:{asset_id}", pairs)
