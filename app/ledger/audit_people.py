"""The audit of accounts, credentials, asset requests and the keys that make mutations repeatable."""

from typing import Final

from app.ledger.audit_run import Run

SCOPES: Final = ("READ", "TRADE", "WITHDRAW")


async def audit_people(run: Run) -> None:
    """Check what accounts, sessions, API keys, requests and keys refer to, and that their columns make sense."""
    run.begin("accounts")
    await run.differences("account.email", _EMAILS)
    await run.differences("session.owner", _SESSIONS)
    await run.differences("session.times", _times("Session", "sessions", "created_at <= expires_at"))
    await run.differences("api_key.account", _missing("ApiKey", "api_keys"))
    await run.differences("api_key.scopes", _API_KEYS, list(SCOPES))
    await run.differences(
        "api_key.times", _times("ApiKey", "api_keys", "created_at <= coalesce(last_used_at, created_at)")
    )
    await run.differences("credential.token", _TOKENS)
    await run.differences("asset_request.account", _missing("AssetRequest", "asset_requests"))
    run.begin("idempotency keys")
    await run.differences("idempotency_key.form", _KEYS)
    await run.differences("idempotency_key.outcome", _OUTCOMES)
    await run.differences("dev_fund.key", _DEV_FUND_KEYS)


_EMAILS: Final = """
SELECT 'Account:' || min(id), 'one account of a lower-case e-mail', count(*) || ' of ' || email
  FROM accounts GROUP BY email HAVING count(*) > 1 OR email <> lower(email) OR email = ''
"""

_SESSIONS: Final = """
SELECT 'Session:' || s.id, 'an account or an admin', concat_ws(' ', 'Account:' || s.account_id, s.admin_name)
  FROM sessions s LEFT JOIN accounts c ON c.id = s.account_id
 WHERE (s.account_id IS NULL) = (s.admin_name IS NULL) OR (s.account_id IS NOT NULL AND c.id IS NULL)
    OR s.admin_name = ''
"""

_API_KEYS: Final = """
SELECT 'ApiKey:' || id, 'some of ' || array_to_string($1::text[], ', '), array_to_string(scopes, ', ')
  FROM api_keys WHERE NOT scopes <@ $1::text[] OR cardinality(scopes) = 0
"""

_TOKENS: Final = """
SELECT min(owner), 'a SHA-256 of its own', count(*) || ' of ' || octet_length(token_hash) || ' bytes' FROM (
    SELECT 'Session:' || id AS owner, token_hash FROM sessions
    UNION ALL SELECT 'ApiKey:' || id, token_hash FROM api_keys
) t GROUP BY token_hash HAVING count(*) > 1 OR octet_length(token_hash) <> 32
"""

_KEYS: Final = """
SELECT 'IdempotencyKey:' || min(id), 'one key of 1 to 64 characters with a SHA-256 and an outcome',
       concat_ws(' ', count(*) || ' of', owner, mutation, key, min(outcome::text))
  FROM idempotency_keys GROUP BY owner, mutation, key
HAVING count(*) > 1 OR length(key) NOT BETWEEN 1 AND 64 OR min(octet_length(input_hash)) <> 32
    OR NOT bool_and((outcome ->> 'id' IS NULL) <> (outcome -> 'refusal' ->> 'code' IS NULL))
"""

_OUTCOMES: Final = """
SELECT 'IdempotencyKey:' || k.id, 'a row that ' || k.owner || ' made by ' || k.mutation, k.outcome::text
  FROM (SELECT *, CASE WHEN jsonb_typeof(outcome -> 'id') = 'number' THEN (outcome ->> 'id')::numeric END AS made
          FROM idempotency_keys WHERE outcome ? 'id') k
  LEFT JOIN transfers t ON k.mutation = 'devFund' AND t.id = k.made
       AND t.reason = 'DEV_FUND' AND 'account:' || substr(t.ref, 9) = k.owner
  LEFT JOIN asset_requests r ON k.mutation = 'assetRequestSubmit' AND r.id = k.made
       AND 'account:' || r.account_id = k.owner
  LEFT JOIN assets a ON k.mutation = 'assetCreate' AND a.id = k.made
 WHERE k.mutation IN ('devFund', 'assetRequestSubmit', 'assetCreate') AND coalesce(t.id, r.id, a.id) IS NULL
"""

_DEV_FUND_KEYS: Final = """
SELECT 'Transfer:' || t.id, 'one key of devFund', count(k.made) || ' keys'
  FROM transfers t
  LEFT JOIN (SELECT (outcome ->> 'id')::numeric AS made FROM idempotency_keys
              WHERE mutation = 'devFund' AND jsonb_typeof(outcome -> 'id') = 'number') k ON k.made = t.id
 WHERE t.reason = 'DEV_FUND' GROUP BY t.id HAVING count(k.made) <> 1
"""


def _missing(name: str, table: str) -> str:
    """Rows of `table` whose account does not exist."""
    return (
        f"SELECT '{name}:' || r.id, 'an account', 'Account:' || r.account_id FROM {table} r"
        " LEFT JOIN accounts c ON c.id = r.account_id WHERE c.id IS NULL"
    )


def _times(name: str, table: str, condition: str) -> str:
    """Rows of `table` that end before they begin."""
    return (
        f"SELECT '{name}:' || id, 'made before it ends',"
        " 'made ' || created_at || ', revoked ' || coalesce(revoked_at::text, 'never')"
        f" FROM {table} WHERE NOT ({condition}) OR revoked_at < created_at"
    )
