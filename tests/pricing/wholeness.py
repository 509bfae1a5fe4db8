"""Whether the ticks in a database are whole: told from its tables alone, sharing nothing with the engine."""

from dataclasses import dataclass

import orjson

from app.db import Connection


@dataclass(frozen=True, slots=True)
class Whole:
    """How many ticks there are, and of which trades, once they have been found to be whole."""

    ticks: int
    trades: int
    oracle_events: int


async def assert_ticks_whole(connection: Connection, *, caught_up: bool = True) -> Whole:
    """Check every promise that ticks keep, in one snapshot; `caught_up`: the engine has nothing left to take in.

    Partitions must not have been dropped, nor oracle events pruned.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await _check_sequences(connection)
        await _check_causes(connection)
        await _check_states(connection)
        await _check_candles(connection)
        if caught_up:
            await _check_caught_up(connection)
        return await _counted(connection)


async def _nothing(connection: Connection, what: str, sql: str) -> None:
    rows = [dict(row) for row in await connection.fetch(f"{sql} LIMIT 5")]
    assert rows == [], f"{what}: {rows}"


async def _check_sequences(connection: Connection) -> None:
    await _nothing(
        connection,
        "positions are gapless and unique, from 1 to the head",
        "SELECT t.*, h.position AS head FROM (SELECT count(*) AS n, count(DISTINCT position) AS distinct_n,"
        " coalesce(min(position), 1) AS low, coalesce(max(position), 0) AS high FROM ticks) t"
        " CROSS JOIN stream_heads h WHERE h.stream = 'ticks'"
        " AND (t.n <> t.distinct_n OR t.low <> 1 OR t.high <> t.n OR t.high <> h.position)",
    )
    await _nothing(
        connection,
        "each asset's seqs are gapless and unique, from 1",
        "SELECT asset_id, count(*), min(seq), max(seq) FROM ticks GROUP BY asset_id"
        " HAVING count(*) <> max(seq) OR min(seq) <> 1 OR count(DISTINCT seq) <> count(*)",
    )
    await _nothing(
        connection,
        "within an asset, positions and times follow the seqs",
        "SELECT * FROM (SELECT asset_id, seq, position, at, lag(position) OVER w AS position_before,"
        " lag(at) OVER w AS at_before FROM ticks WINDOW w AS (PARTITION BY asset_id ORDER BY seq)) t"
        " WHERE position <= position_before OR at < at_before",
    )
    await _nothing(
        connection,
        "the first tick of an asset is its OPEN tick, and the only one",
        "SELECT asset_id, seq, cause FROM ticks WHERE (seq = 1) <> (cause = 'OPEN')",
    )


async def _check_causes(connection: Connection) -> None:
    await _nothing(
        connection,
        "a TRADE tick is one trade's, with its volume and M",
        "SELECT k.asset_id, k.seq, k.trade_seq, k.volume, t.gross, k.market, t.market_after FROM ticks k"
        " LEFT JOIN trades t ON t.asset_id = k.asset_id AND t.seq = k.trade_seq WHERE k.cause = 'TRADE'"
        " AND (t.id IS NULL OR t.gross <> k.volume OR k.at < t.at"
        " OR t.supply_after > 0 AND t.market_after <> k.market)",
    )
    await _nothing(
        connection,
        "each trade has one tick, in the trades' order, and ticks between two trades carry the first's number",
        "SELECT * FROM (SELECT asset_id, seq, cause, trade_seq, lag(trade_seq, 1, 0::bigint)"
        " OVER (PARTITION BY asset_id ORDER BY seq) AS before FROM ticks) t"
        " WHERE trade_seq <> before + CASE WHEN cause = 'TRADE' THEN 1 ELSE 0 END",
    )
    await _nothing(
        connection,
        "only trades have volume",
        "SELECT asset_id, seq, cause, volume FROM ticks WHERE cause <> 'TRADE' AND volume <> 0",
    )
    await _nothing(
        connection,
        "the volume of the ticks is the gross of the trades that were taken in, in each asset",
        "SELECT * FROM (SELECT s.asset_id,"
        " (SELECT coalesce(sum(volume), 0) FROM ticks k WHERE k.asset_id = s.asset_id) AS ticked,"
        " (SELECT coalesce(sum(gross), 0) FROM trades t WHERE t.asset_id = s.asset_id AND t.seq <= s.trade_seq) AS"
        " traded FROM price_states s) v WHERE ticked <> traded",
    )
    await _nothing(
        connection,
        "each oracle event that was taken in has one tick",
        "SELECT * FROM (SELECT s.asset_id, s.oracle_seq,"
        " (SELECT count(*) FROM ticks k WHERE k.asset_id = s.asset_id AND k.cause = 'ORACLE') AS ticked"
        " FROM price_states s) o WHERE oracle_seq <> ticked",
    )
    await _nothing(
        connection,
        "each oracle event tells F after it, as its tick has it, once it was taken in",
        "SELECT * FROM (SELECT e.asset_id, e.seq, e.fundamental_after, k.fundamental FROM oracle_events e LEFT JOIN"
        " (SELECT asset_id, fundamental, row_number() OVER (PARTITION BY asset_id ORDER BY seq) AS nth FROM ticks"
        " WHERE cause = 'ORACLE') k ON k.asset_id = e.asset_id AND k.nth = e.seq) o"
        " WHERE fundamental_after IS DISTINCT FROM fundamental",
    )
    await _nothing(
        connection,
        "oracle events are gapless, and their times follow their seqs",
        "SELECT * FROM (SELECT asset_id, seq, at, lag(seq, 1, 0::bigint) OVER w AS before, lag(at) OVER w AS at_before"
        " FROM oracle_events WINDOW w AS (PARTITION BY asset_id ORDER BY seq)) e"
        " WHERE seq <> before + 1 OR at < at_before",
    )


async def _check_states(connection: Connection) -> None:
    await _nothing(
        connection,
        "an asset's state is its last tick's",
        "SELECT s.asset_id, s.seq, k.* FROM price_states s LEFT JOIN LATERAL (SELECT seq AS tick_seq,"
        " position AS place, cause AS c, trade_seq AS ts, at AS tick_at, display AS d, market AS m, fundamental AS f,"
        " volume AS v FROM ticks"
        " WHERE asset_id = s.asset_id ORDER BY seq DESC LIMIT 1) k ON true WHERE s.seq <> coalesce(k.tick_seq, 0)"
        " OR s.seq > 0 AND (s.position, s.cause, s.trade_seq, s.at, s.display, s.market, s.fundamental, s.volume)"
        " IS DISTINCT FROM (k.place, k.c, k.ts, k.tick_at, k.d, k.m, k.f, k.v)",
    )


async def _check_candles(connection: Connection) -> None:
    """Of every interval, volume and trades of all candles, closed and open, are those of the ticks."""
    ticked = {
        row["asset_id"]: (int(row["volume"]), row["trades"])
        for row in await connection.fetch(
            "SELECT asset_id, sum(volume) AS volume, count(*) FILTER (WHERE cause = 'TRADE') AS trades FROM ticks"
            " GROUP BY asset_id"
        )
    }
    sums: dict[tuple[int, str], tuple[int, int]] = {
        (row["asset_id"], row["interval"]): (int(row["volume"]), int(row["trades"]))
        for row in await connection.fetch(
            'SELECT asset_id, "interval", sum(volume) AS volume, sum(trades) AS trades FROM candles GROUP BY 1, 2'
        )
    }
    for row in await connection.fetch("SELECT asset_id, open_candles FROM price_states WHERE seq > 0"):
        for candle in orjson.loads(row["open_candles"]):
            key = row["asset_id"], candle[0]
            volume, trades = sums.get(key, (0, 0))
            sums[key] = volume + int(candle[10]), trades + candle[11]
    wrong = {key: (found, ticked[key[0]]) for key, found in sums.items() if found != ticked[key[0]]}
    assert wrong == {}, f"candles hold the volume and the trades of the ticks: {wrong}"
    assert len(sums) == 7 * len(ticked), "every asset with ticks has candles of every interval"


async def _check_caught_up(connection: Connection) -> None:
    await _nothing(
        connection,
        "every asset has been opened, and all of its trades and oracle events have been taken in",
        "SELECT a.id, a.trade_seq, s.trade_seq AS taken, s.oracle_seq FROM assets a"
        " LEFT JOIN price_states s ON s.asset_id = a.id WHERE s.seq IS NULL OR s.seq = 0 OR s.trade_seq <> a.trade_seq"
        " OR s.oracle_seq <> (SELECT coalesce(max(e.seq), 0) FROM oracle_events e WHERE e.asset_id = a.id)",
    )


async def _counted(connection: Connection) -> Whole:
    row = await connection.fetchrow(
        "SELECT count(*) AS ticks, count(*) FILTER (WHERE cause = 'TRADE') AS trades,"
        " count(*) FILTER (WHERE cause = 'ORACLE') AS oracle_events FROM ticks"
    )
    assert row is not None
    return Whole(row["ticks"], row["trades"], row["oracle_events"])


async def is_caught_up(connection: Connection) -> bool:
    """Whether everything that is committed now has its tick."""
    found: bool = await connection.fetchval(
        "SELECT NOT EXISTS (SELECT FROM assets a LEFT JOIN price_states s ON s.asset_id = a.id"
        " WHERE coalesce(s.seq, 0) = 0 OR s.trade_seq < a.trade_seq"
        " OR s.oracle_seq < (SELECT coalesce(max(e.seq), 0) FROM oracle_events e WHERE e.asset_id = a.id))"
    )
    return found
