"""The audit of account events: gapless, one for each cause, and true to what entries, orders and trades say.

An account's history may be older than its first event: what is older than that needs none. Ids of orders and transfers
are given under the account's lock, so within an account they follow one another as the causes did. Positions are held
against their events where `audit_positions` replays them.
"""

from datetime import timedelta
from typing import Final

import asyncpg

from app.ledger.audit_run import Run

CLOCK_SLACK: Final = timedelta(seconds=1)
"""How far the database's clock may have been set back between an order and the event before it."""


async def audit_events(run: Run) -> None:
    """Check the sequences, each event against its cause, and that no cause lacks its event."""
    run.begin("account events")
    await run.differences("account_event.seq", _SEQUENCE)
    await run.differences("account_event.double", _DOUBLE)
    await _causes(run)
    await run.differences("account_event.missing", _ORDERS_WITHOUT, CLOCK_SLACK)
    await run.differences("account_event.missing", _TRANSFERS_WITHOUT)


_SEQUENCE: Final = """
SELECT 'AccountEvent:' || account_id || ':' || seq, (before + 1)::text, seq::text
  FROM (SELECT account_id, seq, lag(seq, 1, 0::bigint) OVER (PARTITION BY account_id ORDER BY seq) AS before
          FROM account_events) e
 WHERE seq <> before + 1
"""

_DOUBLE: Final = """
SELECT subject, 'one event', string_agg('AccountEvent:' || account_id || ':' || seq, ', ') FROM (
    SELECT 'Order:' || order_id AS subject, account_id, seq FROM account_events
     WHERE order_id IN (SELECT order_id FROM account_events GROUP BY order_id HAVING count(*) > 1)
    UNION ALL
    SELECT 'Transfer:' || transfer_id || ' of Account:' || account_id, account_id, seq FROM account_events
     WHERE (account_id, transfer_id) IN
           (SELECT account_id, transfer_id FROM account_events GROUP BY account_id, transfer_id HAVING count(*) > 1)
) d GROUP BY subject
"""

# HELD moves in fewer transfers than AVAILABLE: its balance is that of its last entry by then.
_CAUSES: Final = """
SELECT * FROM (
SELECT e.*, c.id AS owner, o.account_id AS order_account, o.status, o.updated_at AS ended_at,
       t.reason, t.at AS moved_at, d.transfer_id AS last_transfer, d.asset_id AS traded,
       m.currency AS moved, m.balance_after,
       CASE WHEN coalesce(h.version, 0) = 0 THEN 0 ELSE
            coalesce((SELECT x.balance_after FROM entries x WHERE x.ledger_account_id = h.id
                      AND x.transfer_id <= e.transfer_id ORDER BY x.version DESC LIMIT 1), 0) END AS held_after
  FROM account_events e
  LEFT JOIN accounts c ON c.id = e.account_id
  LEFT JOIN orders o ON o.id = e.order_id
  LEFT JOIN transfers t ON t.id = e.transfer_id
  LEFT JOIN (SELECT order_id, max(transfer_id) AS transfer_id, max(asset_id) AS asset_id
               FROM trades GROUP BY order_id) d ON d.order_id = e.order_id
  LEFT JOIN (SELECT x.transfer_id, l.account_id, l.currency, x.balance_after
               FROM entries x JOIN ledger_accounts l ON l.id = x.ledger_account_id
              WHERE l.kind = 'AVAILABLE' AND l.asset_id IS NULL) m
         ON m.transfer_id = e.transfer_id AND m.account_id = e.account_id
  LEFT JOIN ledger_accounts h ON h.account_id = e.account_id AND h.kind = 'HELD' AND h.currency = m.currency
) e
 WHERE NOT coalesce(
       owner IS NOT NULL
   AND CASE WHEN order_id IS NULL THEN transfer_id IS NOT NULL AND reason <> 'TRADE' AND at = moved_at
            ELSE order_account = account_id AND status IN ('FILLED', 'REJECTED') AND at = ended_at
                 AND transfer_id IS NOT DISTINCT FROM last_transfer END
   AND (currency, available, asset_id) IS NOT DISTINCT FROM (moved, balance_after, traded)
   AND held IS NOT DISTINCT FROM CASE WHEN transfer_id IS NOT NULL THEN held_after END
   AND (shares IS NULL) = (traded IS NULL), false)
"""


async def _causes(run: Run) -> None:
    async for row in run.rows(_CAUSES):
        subject = f"AccountEvent:{row['account_id']}:{row['seq']}"
        if row["owner"] is None:
            run.found("account_event.account", subject, "an account", f"Account:{row['account_id']}")
        if row["order_id"] is not None:
            _of_order(run, subject, row)
        else:
            _of_transfer(run, subject, row)
        pairs = [
            ("currency", row["moved"], row["currency"]),
            ("available", row["balance_after"], row["available"]),
            ("held", None if row["transfer_id"] is None else row["held_after"], row["held"]),
            ("asset_id", row["traded"], row["asset_id"]),
        ]
        run.compare("account_event", subject, pairs)
        if (row["shares"] is None) != (row["traded"] is None):
            expected = "no position" if row["traded"] is None else "the position after the fill"
            run.found("account_event.shares", subject, expected, row["shares"])


def _of_order(run: Run, subject: str, row: asyncpg.Record) -> None:
    order = f"Order:{row['order_id']}"
    if row["order_account"] != row["account_id"]:
        found = "no order" if row["order_account"] is None else f"{order} of Account:{row['order_account']}"
        run.found("account_event.order_id", subject, f"an order of Account:{row['account_id']}", found)
        return
    if row["status"] not in ("FILLED", "REJECTED"):
        run.found("account_event.order_id", subject, "an order that has ended", f"{order}, {row['status']}")
    pairs = [("at", row["ended_at"], row["at"]), ("transfer_id", row["last_transfer"], row["transfer_id"])]
    run.compare("account_event", subject, pairs)


def _of_transfer(run: Run, subject: str, row: asyncpg.Record) -> None:
    if row["reason"] in (None, "TRADE"):
        expected = "a transfer that no order caused"
        found = "none" if row["reason"] is None else f"Transfer:{row['transfer_id']}, {row['reason']}"
        run.found("account_event.transfer_id", subject, expected, found)
        return
    run.compare("account_event", subject, [("at", row["moved_at"], row["at"])])


_FIRST: Final = """
first AS MATERIALIZED (SELECT account_id, min(order_id) AS order_id, min(transfer_id) AS transfer_id, min(at) AS at
                         FROM account_events GROUP BY account_id)
"""

_ORDERS_WITHOUT: Final = f"""
WITH {_FIRST}, lacking AS MATERIALIZED (
    SELECT o.id, o.account_id, o.updated_at FROM orders o LEFT JOIN account_events e ON e.order_id = o.id
     WHERE e.order_id IS NULL AND o.status IN ('FILLED', 'REJECTED')
)
SELECT 'Order:' || o.id, 'an event of Account:' || o.account_id, 'none'
  FROM lacking o JOIN first f ON f.account_id = o.account_id
  LEFT JOIN (SELECT order_id, max(transfer_id) AS transfer_id FROM trades GROUP BY order_id) t ON t.order_id = o.id
 WHERE o.id > f.order_id OR t.transfer_id > f.transfer_id OR o.updated_at > f.at + $1::interval
"""

_TRANSFERS_WITHOUT: Final = f"""
WITH {_FIRST}
SELECT 'Transfer:' || t.id, 'an event of Account:' || l.account_id, 'none'
  FROM transfers t
  JOIN entries x ON x.transfer_id = t.id
  JOIN ledger_accounts l ON l.id = x.ledger_account_id AND l.account_id IS NOT NULL AND l.asset_id IS NULL
  JOIN first f ON f.account_id = l.account_id AND t.id > f.transfer_id
  LEFT JOIN account_events e ON e.transfer_id = t.id AND e.account_id = l.account_id
 WHERE t.reason <> 'TRADE' AND e.seq IS NULL
"""
