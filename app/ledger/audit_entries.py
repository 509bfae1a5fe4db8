"""The audit of double entry itself: transfers, entries, ledger accounts, and how they add up.

Everything here is set-wise SQL over the tables as they are; nothing is believed that the entries do not say.
"""

from typing import Final

from app.ledger.audit_run import Run

STABLECOINS: Final = ("USDC", "USDT")
USER_KINDS: Final = ("AVAILABLE", "HELD")
ASSET_KINDS: Final = ("BACKING", "SURPLUS", "LP_CAPITAL", "ISSUED")
PLATFORM_KINDS: Final = ("TREASURY", "CUSTODY", "DEVELOPMENT")
NEGATIVE_KINDS: Final = ("ISSUED", "CUSTODY", "DEVELOPMENT")
REASONS: Final = ("TRADE", "DEV_FUND")
DEV_FUND_MAX: Final = 10**9 * 10**6
"""The most that one devFund may move, in base units of money."""


async def audit_entries(run: Run) -> None:
    """Check transfers against their entries, each ledger account's history, and the sums."""
    run.begin("transfers")
    await _transfers(run)
    run.begin("entries")
    await _history(run)
    run.begin("ledger accounts")
    await _ledger_accounts(run)
    await _owners(run)
    run.begin("test funds")
    await _dev_funds(run)


async def _transfers(run: Run) -> None:
    await run.differences(
        "transfer.sum",
        "SELECT 'Transfer:' || e.transfer_id || ' in ' || l.currency, '0', sum(e.amount)::text"
        " FROM entries e JOIN ledger_accounts l ON l.id = e.ledger_account_id"
        " GROUP BY e.transfer_id, l.currency HAVING sum(e.amount) <> 0",
    )
    await run.differences(
        "transfer.entry_count",
        "SELECT 'Transfer:' || coalesce(t.id, c.transfer_id),"
        " coalesce(t.entry_count::text, 'a transfer of its entries'), coalesce(c.entries::text, 'no entries')"
        " FROM (SELECT transfer_id, count(*) AS entries FROM entries GROUP BY transfer_id) c"
        " FULL JOIN transfers t ON t.id = c.transfer_id WHERE t.entry_count IS DISTINCT FROM c.entries",
    )
    await run.differences(
        "transfer.reason",
        "SELECT 'Transfer:' || id, $1, reason FROM transfers WHERE NOT reason = ANY($2::text[])",
        " or ".join(REASONS),
        list(REASONS),
    )


_HISTORY: Final = """
SELECT c.*, l.id AS found, l.kind, l.account_id AS owner FROM (
    SELECT id, ledger_account_id, account_id, version, amount, balance_after,
           lag(id) OVER w AS id_before, lag(version) OVER w AS version_before,
           lag(balance_after) OVER w AS balance_before
      FROM entries WINDOW w AS (PARTITION BY ledger_account_id ORDER BY version, id)
) c LEFT JOIN ledger_accounts l ON l.id = c.ledger_account_id
WHERE c.version <> coalesce(c.version_before, 0) + 1
   OR c.balance_after <> coalesce(c.balance_before, 0) + c.amount
   OR c.id <= c.id_before
   OR c.amount = 0
   OR l.id IS NULL
   OR c.account_id IS DISTINCT FROM l.account_id
   OR CASE WHEN l.kind = ANY($1::text[]) THEN c.balance_after > 0 ELSE c.balance_after < 0 END
"""


async def _history(run: Run) -> None:
    async for row in run.rows(_HISTORY, list(NEGATIVE_KINDS)):
        subject = f"Entry:{row['id']} of LedgerAccount:{row['ledger_account_id']}"
        if row["found"] is None:
            run.found("entry.ledger_account", subject, "a ledger account", None)
            continue
        pairs = [
            ("version", (row["version_before"] or 0) + 1, row["version"]),
            ("balance_after", (row["balance_before"] or 0) + row["amount"], row["balance_after"]),
            ("account_id", row["owner"], row["account_id"]),
        ]
        run.compare("entry", subject, pairs)
        if row["amount"] == 0:
            run.found("entry.amount", subject, "not 0", 0)
        if row["id_before"] is not None and row["id"] <= row["id_before"]:
            run.found("entry.id", subject, f"above {row['id_before']}, the entry before it", row["id"])
        negative = row["kind"] in NEGATIVE_KINDS
        if (row["balance_after"] > 0) if negative else (row["balance_after"] < 0):
            run.found("entry.sign", subject, _sign(negative=negative), row["balance_after"])


async def _ledger_accounts(run: Run) -> None:
    rows = run.rows(
        "SELECT l.*, coalesce(e.version, 0) AS newest, coalesce(e.balance_after, 0) AS computed FROM ledger_accounts l"
        " LEFT JOIN LATERAL (SELECT version, balance_after FROM entries WHERE ledger_account_id = l.id"
        " ORDER BY version DESC LIMIT 1) e ON true"
        " WHERE l.version <> coalesce(e.version, 0) OR l.balance <> coalesce(e.balance_after, 0)"
        " OR CASE WHEN l.kind = ANY($1::text[]) THEN l.balance > 0 ELSE l.balance < 0 END",
        list(NEGATIVE_KINDS),
    )
    async for row in rows:
        subject = f"LedgerAccount:{row['id']} ({row['kind']} {row['currency']})"
        pairs = [("version", row["newest"], row["version"]), ("balance", row["computed"], row["balance"])]
        run.compare("ledger_account", subject, pairs)
        negative = row["kind"] in NEGATIVE_KINDS
        if (row["balance"] > 0) if negative else (row["balance"] < 0):
            run.found("ledger_account.sign", subject, _sign(negative=negative), row["balance"])
    await run.differences(
        "currency.sum",
        "SELECT currency, '0', sum(balance)::text FROM ledger_accounts GROUP BY currency HAVING sum(balance) <> 0",
    )


def _sign(*, negative: bool) -> str:
    return "at most 0" if negative else "at least 0"


_MISOWNED: Final = """
SELECT 'LedgerAccount:' || l.id || ' (' || l.kind || ' ' || l.currency || ')' AS subject,
       CASE WHEN l.kind = ANY($1::text[]) THEN 'an account''s ' || array_to_string($4::text[], ', ') || ' or shares'
            WHEN l.kind = 'ISSUED' THEN 'an asset''s shares'
            WHEN l.kind = ANY($2::text[]) THEN 'an asset''s quote currency'
            WHEN l.kind = ANY($3::text[]) THEN 'the platform''s ' || array_to_string($4::text[], ', ')
            ELSE 'a known kind' END AS expected,
       concat_ws(' ', l.kind, l.currency, 'of', 'Account:' || l.account_id, 'Asset:' || l.asset_id) AS actual
  FROM ledger_accounts l
  LEFT JOIN accounts c ON c.id = l.account_id
  LEFT JOIN assets a ON a.id = l.asset_id
 WHERE NOT coalesce(CASE
       WHEN l.kind = ANY($1::text[]) AND l.asset_id IS NULL THEN c.id IS NOT NULL AND l.currency = ANY($4::text[])
       WHEN l.kind = ANY($1::text[]) THEN c.id IS NOT NULL AND l.currency = a.symbol
       WHEN l.kind = 'ISSUED' THEN l.account_id IS NULL AND l.currency = a.symbol
       WHEN l.kind = ANY($2::text[]) THEN l.account_id IS NULL AND l.currency = a.quote_currency
       WHEN l.kind = ANY($3::text[])
       THEN l.account_id IS NULL AND l.asset_id IS NULL AND l.currency = ANY($4::text[]) END, false)
"""

_MISSING: Final = """
SELECT concat_ws(' ', w.owner, w.kind, w.currency), 'one ledger account', count(l.id)::text FROM (
    SELECT 'Asset:' || a.id AS owner, k AS kind, NULL::bigint AS account_id, a.id AS asset_id,
           CASE WHEN k = 'ISSUED' THEN a.symbol ELSE a.quote_currency END AS currency
      FROM assets a, unnest($2::text[]) k
    UNION ALL
    SELECT 'Account:' || c.id, k, c.id, NULL, m FROM accounts c, unnest($1::text[]) k, unnest($4::text[]) m
    UNION ALL
    SELECT 'Platform', k, NULL, NULL, m FROM unnest($3::text[]) k, unnest($4::text[]) m
) w LEFT JOIN ledger_accounts l ON l.kind = w.kind AND l.currency = w.currency
     AND coalesce(l.account_id, 0) = coalesce(w.account_id, 0) AND coalesce(l.asset_id, 0) = coalesce(w.asset_id, 0)
GROUP BY w.owner, w.kind, w.currency HAVING count(l.id) <> 1
"""

_DOUBLE: Final = """
SELECT concat_ws(' ', 'Account:' || account_id, 'Asset:' || asset_id, kind, currency),
       'one ledger account', count(*)::text
  FROM ledger_accounts GROUP BY account_id, asset_id, kind, currency HAVING count(*) > 1
"""


async def _owners(run: Run) -> None:
    kinds = (list(USER_KINDS), list(ASSET_KINDS), list(PLATFORM_KINDS), list(STABLECOINS))
    await run.differences("ledger_account.owner", _MISOWNED, *kinds)
    await run.differences("ledger_account.missing", _MISSING, *kinds)
    await run.differences("ledger_account.double", _DOUBLE)


_DEV_FUNDS: Final = """
SELECT t.id, t.ref, t.entry_count, count(*) AS legs, (SELECT max(environment) FROM platform) AS environment,
       sum(e.amount) FILTER (WHERE l.kind = 'DEVELOPMENT' AND l.currency = ANY($1::text[])) AS source,
       sum(e.amount) FILTER (WHERE l.kind = 'AVAILABLE' AND l.currency = ANY($1::text[])) AS received,
       max(e.account_id) AS account_id
  FROM transfers t
  JOIN entries e ON e.transfer_id = t.id
  JOIN ledger_accounts l ON l.id = e.ledger_account_id
 WHERE t.reason = 'DEV_FUND'
 GROUP BY t.id, t.ref, t.entry_count
"""


async def _dev_funds(run: Run) -> None:
    async for row in run.rows(_DEV_FUNDS, list(STABLECOINS)):
        subject = f"Transfer:{row['id']}"
        received = row["received"]
        if row["environment"] != "development":
            run.found("dev_fund.environment", subject, "development", row["environment"])
        if received is None or not 0 < received <= DEV_FUND_MAX:
            run.found("dev_fund.amount", subject, f"1 to {DEV_FUND_MAX} into an account's money", received)
        pairs = [
            ("source", None if received is None else -received, row["source"]),
            ("legs", 2, row["legs"]),
            ("ref", f"Account:{row['account_id']}", row["ref"]),
        ]
        run.compare("dev_fund", subject, pairs)
