"""The audit of prices: ticks gapless where they are kept, each trade in exactly one of them, and the engine's states.

D, F and w are information that pays out nothing: how they come about is not recomputed here. Old ticks are dropped
with their partitions, an asset's first ones first: what is kept is held to follow from what is kept before it.
"""

from typing import Final

from app.ledger.audit_run import Run

_STATE: Final = (
    "position", "cause", "trade_seq", "at", "display", "market", "fundamental", "market_weight", "volume", "stale",
)  # fmt: skip
"""What a state repeats of its last tick."""


async def audit_prices(run: Run) -> None:
    """Check oracle events, ticks against trades and each other, states and heads against ticks, candles' volume."""
    run.begin("oracle events")
    await run.differences("oracle_event.seq", _ORACLE_EVENTS)
    await run.differences("oracle_log.suggested_price", _REPORTS)
    run.begin("ticks")
    await _ticks(run)
    await run.differences("tick.position", _DOUBLE_POSITIONS)
    run.begin("price states")
    await _states(run)
    await run.differences("stream_head.position", _HEAD)
    run.begin("candles")
    await run.differences("candle.volume", _CANDLES)


# An asset's oldest events are pruned once the engine has taken them in: the first that is kept is the next at most.
_ORACLE_EVENTS: Final = """
SELECT 'OracleEvent:' || asset_id || ':' || seq,
       CASE WHEN before IS NULL THEN 'at most ' || taken + 1 ELSE (before + 1)::text END, seq::text
  FROM (SELECT asset_id, seq, lag(seq) OVER (PARTITION BY asset_id ORDER BY seq) AS before,
               coalesce((SELECT s.oracle_seq FROM price_states s WHERE s.asset_id = e.asset_id), 0) AS taken
          FROM oracle_events e) e
 WHERE CASE WHEN before IS NULL THEN seq > taken + 1 ELSE seq <> before + 1 END
"""

# A market price at supply 0 is P0, which may have changed between the trade and its tick.
_TICKS: Final = """
SELECT * FROM (
SELECT k.*, CASE k.cause WHEN 'TRADE' THEN 1 ELSE 0 END AS trades, t.seq AS traded, coalesce(t.gross, 0) AS gross,
       CASE WHEN t.supply_after > 0 THEN t.market_after ELSE k.market END AS market_after
  FROM (SELECT asset_id, seq, "position", cause, trade_seq, at, volume, market,
               lag(seq) OVER w AS seq_before, lag(trade_seq) OVER w AS trade_seq_before, lag(at) OVER w AS at_before,
               lag("position") OVER w AS position_before
          FROM ticks WINDOW w AS (PARTITION BY asset_id ORDER BY seq, at)) k
  LEFT JOIN trades t ON k.cause = 'TRADE' AND t.asset_id = k.asset_id AND t.seq = k.trade_seq
) k
 WHERE NOT coalesce(
       seq = coalesce(seq_before + 1, seq) AND (cause = 'OPEN') = (seq = 1) AND (seq > 1 OR trade_seq = 0)
   AND trade_seq = coalesce(trade_seq_before + trades, trade_seq)
   AND at >= coalesce(at_before, at) AND "position" > coalesce(position_before, 0)
   AND (traded IS NOT NULL) = (cause = 'TRADE') AND volume = gross AND market = market_after, false)
"""


async def _ticks(run: Run) -> None:
    async for row in run.rows(_TICKS):
        subject = f"Tick:{row['asset_id']}:{row['seq']}"
        first = row["seq"] == 1
        seq = row["seq"] if row["seq_before"] is None else row["seq_before"] + 1
        trade_seq = row["trade_seq"] if row["trade_seq_before"] is None else row["trade_seq_before"] + row["trades"]
        pairs = [("seq", seq, row["seq"]), ("trade_seq", 0 if first else trade_seq, row["trade_seq"])]
        run.compare("tick", subject, pairs)
        if first != (row["cause"] == "OPEN"):
            run.found("tick.cause", subject, "OPEN" if first else "TRADE, ORACLE or DECAY", row["cause"])
        if row["at_before"] is not None and row["at"] < row["at_before"]:
            run.found("tick.at", subject, f"not before {row['at_before'].isoformat()}", row["at"].isoformat())
        if row["position"] <= (row["position_before"] or 0):
            run.found("tick.position", subject, f"above {row['position_before'] or 0}", row["position"])
        if row["trades"] and row["traded"] is None:
            run.found("tick.trade_seq", subject, "a trade", f"Trade:{row['asset_id']}:{row['trade_seq']}")
        else:
            pairs = [("volume", row["gross"], row["volume"]), ("market", row["market_after"], row["market"])]
            run.compare("tick", subject, pairs)


_DOUBLE_POSITIONS: Final = """
SELECT 'Tick:' || min(asset_id) || ':' || min(seq), 'a position of its own', count(*) || ' at ' || "position"
  FROM ticks GROUP BY "position" HAVING count(*) > 1
"""

# The newest tick of an asset that has been idle for long may be gone: then its state has nothing to agree with.
_STATES: Final = f"""
SELECT s.*, a.id AS found, a.trade_seq AS last_trade, o.seq AS last_event, k.seq AS last_seq,
       {", ".join(f'k."{name}" AS last_{name}' for name in _STATE)}
  FROM price_states s
  LEFT JOIN assets a ON a.id = s.asset_id
  LEFT JOIN (SELECT asset_id, max(seq) AS seq FROM oracle_events GROUP BY asset_id) o ON o.asset_id = s.asset_id
  LEFT JOIN LATERAL (SELECT * FROM ticks WHERE asset_id = s.asset_id ORDER BY seq DESC, at DESC LIMIT 1) k ON true
"""

_UNOWNED: Final = """
SELECT 'Asset:' || k.asset_id, 'a price state', 'none'
  FROM (SELECT DISTINCT asset_id FROM ticks) k LEFT JOIN price_states s ON s.asset_id = k.asset_id
 WHERE s.asset_id IS NULL
"""


async def _states(run: Run) -> None:
    async for row in run.rows(_STATES):
        subject = f"PriceState:{row['asset_id']}"
        if row["found"] is None:
            run.found("price_state.asset_id", subject, "an asset", f"Asset:{row['asset_id']}")
            continue
        if row["trade_seq"] > row["last_trade"]:
            run.found("price_state.trade_seq", subject, f"at most {row['last_trade']}", row["trade_seq"])
        if row["oracle_seq"] > (row["last_event"] or 0):
            run.found("price_state.oracle_seq", subject, f"at most {row['last_event'] or 0}", row["oracle_seq"])
        if row["last_seq"] is not None:
            run.compare("price_state", subject, [("seq", row["last_seq"], row["seq"])])
            run.compare("price_state", subject, [(name, row[f"last_{name}"], row[name]) for name in _STATE])
    await run.differences("tick.state", _UNOWNED)


_HEAD: Final = """
SELECT 'StreamHead:ticks', s."position"::text, coalesce(h."position"::text, 'none')
  FROM (SELECT coalesce(max("position"), 0) AS "position" FROM price_states) s
  LEFT JOIN stream_heads h ON h.stream = 'ticks'
 WHERE s."position" IS DISTINCT FROM h."position"
UNION ALL
SELECT 'StreamHead:oracle', 'at least ' || s."position", coalesce(h."position"::text, 'none')
  FROM (SELECT coalesce(max("position"), 0) AS "position" FROM oracle_logs) s
  LEFT JOIN stream_heads h ON h.stream = 'oracle'
 WHERE h."position" IS NULL OR h."position" < s."position"
"""

# A reading that was confirmed by another shares the other's event, whose price is a little different.
_REPORTS: Final = """
SELECT 'OracleReport:' || l.id, l.suggested_price::text, coalesce(e.value::text, 'none')
  FROM oracle_logs l JOIN (SELECT asset_id, min(seq) AS first FROM oracle_events GROUP BY asset_id) k
    ON k.asset_id = l.asset_id AND l.event_seq >= k.first
  LEFT JOIN oracle_events e ON e.asset_id = l.asset_id AND e.seq = l.event_seq
 WHERE l.outcome = 'ACCEPTED' AND l.resolution IS DISTINCT FROM 'CONFIRMED'
   AND e.value IS DISTINCT FROM l.suggested_price
"""

# Candles of a second are dropped like ticks; all others stay, and each interval's hold every trade once.
_CANDLES: Final = """
SELECT 'Candles:' || s.asset_id || ':' || i."interval",
       coalesce(t.volume, 0) || ' in ' || coalesce(t.trades, 0),
       coalesce(c.volume, 0) || ' in ' || coalesce(c.trades, 0)
  FROM price_states s CROSS JOIN unnest(ARRAY['M1', 'M5', 'M15', 'H1', 'H4', 'D1']) i ("interval")
  LEFT JOIN (SELECT asset_id, "interval", sum(volume) AS volume, sum(trades) AS trades
               FROM (SELECT asset_id, "interval", volume, trades FROM candles WHERE "interval" <> 'S1'
                     UNION ALL
                     SELECT o.asset_id, c ->> 0, (c ->> 10)::numeric, (c ->> 11)::bigint
                       FROM price_states o CROSS JOIN jsonb_array_elements(o.open_candles::jsonb) c) each
              GROUP BY asset_id, "interval") c ON c.asset_id = s.asset_id AND c."interval" = i."interval"
  LEFT JOIN (SELECT k.asset_id, sum(t.gross) AS volume, count(*) AS trades
               FROM price_states k JOIN trades t ON t.asset_id = k.asset_id AND t.seq <= k.trade_seq
              GROUP BY k.asset_id) t ON t.asset_id = s.asset_id
 WHERE s.seq >= 1 AND (coalesce(c.volume, 0), coalesce(c.trades, 0))
       IS DISTINCT FROM (coalesce(t.volume, 0), coalesce(t.trades, 0))
"""
