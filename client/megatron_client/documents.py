"""What is sent to the server. Selections are made from `types`, so that what is asked is what is read."""

from megatron_client.requests import Operation
from megatron_client.types import (
    Asset,
    Balance,
    Candle,
    Fill,
    Order,
    Position,
    Quote,
    Report,
    Tick,
    Ticker,
    Trade,
)
from megatron_client.wire import REFUSALS, selection

MARKETS = Operation(
    "Markets",
    f"query Markets($first: Int!, $after: String) {{ assets(first: $first, after: $after) "
    f"{{ nodes {selection(Asset)} pageInfo {{ hasNextPage endCursor }} }} }}",
)
TICKERS = Operation(
    "Tickers",
    f"query Tickers($ids: [ID!], $first: Int!, $after: String) {{ assets(ids: $ids, first: $first, after: $after) "
    f"{{ nodes {selection(Ticker)} pageInfo {{ hasNextPage endCursor }} }} }}",
)
SERVER = Operation("Server", "query Server { serverTime platform { tradingPaused } }")
CANDLE_HISTORY = Operation(
    "CandleHistory",
    "query CandleHistory($assetId: ID!, $interval: Interval!, $price: PriceKind!, $from: UnixSeconds, "
    "$to: UnixSeconds, $countBack: Int) { candles(assetId: $assetId, interval: $interval, price: $price, from: $from, "
    f"to: $to, countBack: $countBack) {{ candles {selection(Candle)} }} }}",
)
TICK_HISTORY = Operation(
    "TickHistory",
    "query TickHistory($assetId: ID!, $afterSeq: Seq!, $first: Int!) "
    f"{{ ticks(assetId: $assetId, afterSeq: $afterSeq, first: $first) {selection(Tick)} }}",
)
TRADE_HISTORY = Operation(
    "TradeHistory",
    "query TradeHistory($assetId: ID!, $afterSeq: Seq, $first: Int, $last: Int) "
    f"{{ trades(assetId: $assetId, afterSeq: $afterSeq, first: $first, last: $last) {{ nodes {selection(Trade)} }} }}",
)
QUOTE = Operation(
    "Quote",
    "query Quote($assetId: ID!, $side: Side!, $shares: Decimal, $amount: Decimal) { serverTime "
    "quote(assetId: $assetId, side: $side, shares: $shares, amount: $amount) "
    f"{{ quote {selection(Quote)} {REFUSALS} }} }}",
)
ORDER_PLACE = Operation(
    "OrderPlace",
    "mutation OrderPlace($input: OrderPlaceInput!) "
    f"{{ orderPlace(input: $input) {{ order {selection(Order)} {REFUSALS} }} }}",
)
ORDER = Operation(
    "OrderByKey",
    f"query OrderByKey($key: String!) {{ viewer {{ order(clientOrderId: $key) {selection(Order)} }} }}",
)
BALANCES = Operation("Balances", f"query Balances {{ viewer {{ balances {selection(Balance)} }} }}")
POSITIONS = Operation(
    "Positions",
    "query Positions($first: Int!, $after: String) { viewer { positions(first: $first, after: $after) "
    f"{{ nodes {selection(Position)} pageInfo {{ hasNextPage endCursor }} }} }} }}",
)
FILLS = Operation(
    "Fills",
    "query Fills($first: Int!, $assetId: ID) { viewer { fills(first: $first, assetId: $assetId) "
    f"{{ nodes {selection(Fill)} }} }} }}",
)
_SESSION = f"session {{ token expiresAt }} {REFUSALS}"
SIGN_UP = Operation("SignUp", f"mutation SignUp($input: SignUpInput!) {{ signUp(input: $input) {{ {_SESSION} }} }}")
LOG_IN = Operation("LogIn", f"mutation LogIn($input: LogInInput!) {{ logIn(input: $input) {{ {_SESSION} }} }}")
LOG_OUT = Operation("LogOut", "mutation LogOut { logOut { ok } }")
DEV_FUND = Operation(
    "DevFund",
    "mutation DevFund($input: DevFundInput!) "
    f"{{ devFund(input: $input) {{ viewer {{ balances {selection(Balance)} }} {REFUSALS} }} }}",
)

_EVENT = "cursor serverTime missed"
TICKS = Operation(
    "Ticks",
    "subscription Ticks($assetIds: [ID!], $after: Cursor, $snapshot: Boolean!, $mode: TickMode!, "
    "$throttle: Throttle!, $heartbeat: Int!) { priceTicks(assetIds: $assetIds, after: $after, snapshot: $snapshot, "
    f"mode: $mode, throttle: $throttle, heartbeatSeconds: $heartbeat) {{ kind ticks {selection(Tick)} {_EVENT} }} }}",
)
TRADES = Operation(
    "Trades",
    "subscription Trades($assetIds: [ID!], $after: Cursor, $heartbeat: Int!) { trades(assetIds: $assetIds, "
    f"after: $after, heartbeatSeconds: $heartbeat) {{ kind trades {selection(Trade)} {_EVENT} }} }}",
)
CANDLES = Operation(
    "Candles",
    "subscription Candles($assetIds: [ID!]!, $interval: Interval!, $price: PriceKind!, $heartbeat: Int!) "
    "{ candles(assetIds: $assetIds, interval: $interval, price: $price, heartbeatSeconds: $heartbeat) "
    f"{{ kind candles {selection(Candle)} serverTime }} }}",
)
ASSETS = Operation(
    "Assets",
    "subscription Assets($after: Cursor, $heartbeat: Int!) { assetEvents(after: $after, "
    f"heartbeatSeconds: $heartbeat) {{ kind assets {selection(Asset)} {_EVENT} }} }}",
)
REPORTS = Operation(
    "Reports",
    "subscription Reports($assetIds: [ID!], $after: Cursor, $heartbeat: Int!) { oracleReports(assetIds: $assetIds, "
    f"after: $after, heartbeatSeconds: $heartbeat) {{ kind reports {selection(Report)} {_EVENT} }} }}",
)
ACCOUNT = Operation(
    "Account",
    "subscription Account($after: Cursor, $snapshot: Boolean!, $heartbeat: Int!) { accountEvents(after: $after, "
    f"snapshot: $snapshot, heartbeatSeconds: $heartbeat) {{ kind seq orders {selection(Order)} fills {selection(Fill)} "
    f"balances {selection(Balance)} positions {selection(Position)} cursor serverTime }} }}",
)
