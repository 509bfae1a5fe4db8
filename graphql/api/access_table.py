"""Every field of every object type, and who may ask for it. A new field is refused by the build until it stands here.

Roots and gates first, then what everybody may see, then what is reached through a gate only.
"""

from collections.abc import Mapping
from typing import Final

from api.access import Audience, Rule, Table


def _open(fields: str) -> dict[str, Rule]:
    return dict.fromkeys(fields.split(), Rule.OPEN)


def _ruled(rule: Rule, fields: str) -> dict[str, Rule]:
    return dict.fromkeys(fields.split(), rule)


_ROOTS: Final[Mapping[str, dict[str, Rule]]] = {
    "Query": {
        **_open("serverTime platform rateLimit asset assets trades quote ticks candles"),
        "node": Rule.CHECKS_ITSELF,
        "nodes": Rule.CHECKS_ITSELF,
        "viewer": Rule.VIEWER,
        "admin": Rule.ADMIN_OR_NULL,
    },
    "Mutation": {
        **_open("signUp logIn adminLogIn"),
        "logOut": Rule.ANY_SESSION,
        **_ruled(Rule.ACCOUNT_SESSION, "apiKeyCreate apiKeyRevoke"),
        **_ruled(Rule.TRADE, "orderPlace assetRequestSubmit devFund"),
        **_ruled(
            Rule.ADMIN,
            "assetCreate assetUpdate assetSetStatus assetRequestReview accountFreeze tradingPause oracleConfigure"
            " oracleRun oracleOverride oracleQuarantineResolve",
        ),
    },
    "Subscription": {**_open("priceTicks trades candles assetEvents oracleReports"), "accountEvents": Rule.READ},
    "SessionPayload": {"session": Rule.FRESH_SESSION, "viewer": Rule.FRESH_SESSION, "userErrors": Rule.OPEN},
    "AdminSessionPayload": {"session": Rule.FRESH_SESSION, "userErrors": Rule.OPEN},
}

_PUBLIC: Final[Mapping[str, str]] = {
    "Asset": (
        "id symbol name description category status statusReason quoteCurrency supply marketPrice tradeSeq createdAt"
        " curve reserve price stats24h tradingRules oracle oracleReports"
    ),
    "AssetConnection": "nodes pageInfo edges totalCount",
    "AssetEdge": "node cursor",
    "AssetEvent": "kind assets cursor serverTime missed",
    "AssetStats": "volume trades open high low close change",
    "BondingCurve": "basePrice slope feeRate",
    "Candle": "assetId interval time open high low close volume trades closed",
    "CandleEvent": "kind candles serverTime",
    "CandleSeries": "candles noData nextTime",
    "Evidence": "url title excerpt contentHash retrievedAt value source counts bodyUrl",
    "GeneralError": "code message field",
    "InsufficientBalanceError": "code message field required available",
    "LimitError": "code message field limit remaining resetsAt",
    "OracleEvent": "kind reports cursor serverTime missed",
    "OracleReport": (
        "id assetId at method outcome reasons deltaPercent suggestedPrice confidence summary fundamentalBefore"
        " fundamentalAfter model promptHash evidence expiresAt resolution"
    ),
    "OracleReportConnection": "nodes pageInfo edges",
    "OracleReportEdge": "node cursor",
    "OracleState": "method stale lastAcceptedAt nextDueAt cadenceSeconds",
    "PageInfo": "hasNextPage hasPreviousPage startCursor endCursor",
    "Platform": "development tradingPaused reason version",
    "PriceEvent": "kind ticks cursor serverTime missed",
    "PriceTick": ("assetId seq cause tradeSeq at display market fundamental marketWeight volume fundamentalStale"),
    "Quote": ("assetId side shares gross fee total averagePrice priceBefore priceAfter priceImpact atTradeSeq"),
    "QuotePayload": "quote userErrors",
    "RateLimit": "limit remaining cost resetAt",
    "Reserve": "backing required surplus lpCapital total coverage",
    "SlippageError": "code message field bound actual atTradeSeq",
    "Trade": "id assetId asset seq side shares price gross fee supplyAfter marketAfter at",
    "TradeConnection": "nodes pageInfo edges",
    "TradeEdge": "node cursor",
    "TradeEvent": "kind trades cursor serverTime missed",
    "TradingRules": (
        "minNotional maxNotional maxSharesPerAccount maxRedemptionPerDay maxSupply shareDecimals priceDecimals"
        " moneyDecimals feeRate"
    ),
}

_OWNED: Final[Mapping[str, str]] = {
    "Account": "id email frozen createdAt balances ledger orders",
    "AccountConnection": "nodes pageInfo edges",
    "AccountEdge": "node cursor",
    "AccountEvent": "kind seq orders fills balances positions cursor serverTime missed",
    "AccountPayload": "account userErrors",
    "ApiKey": "id name prefix scopes createdAt lastUsedAt",
    "ApiKeyCreatePayload": "apiKey secret userErrors",
    "ApiKeyRevokePayload": "apiKey userErrors",
    "AssetPayload": "asset userErrors",
    "AssetRequest": "id name description sourceHint status adminNotes createdAt asset",
    "AssetRequestConnection": "nodes pageInfo edges",
    "AssetRequestEdge": "node cursor",
    "AssetRequestPayload": "assetRequest userErrors",
    "AuditEntry": "id at actor action target reason before after hash",
    "AuditEntryConnection": "nodes pageInfo edges",
    "AuditEntryEdge": "node cursor",
    "Balance": "id currency available held total",
    "ComponentStatus": "name ok detail lagSeconds",
    "Fill": "id orderId clientOrderId assetId tradeSeq side shares price gross fee at",
    "FillConnection": "nodes pageInfo edges",
    "FillEdge": "node cursor",
    "Finding": "check subject expected actual",
    "LedgerEntry": "id at currency amount balanceAfter reason ref",
    "LedgerEntryConnection": "nodes pageInfo edges",
    "LedgerEntryEdge": "node cursor",
    "LogOutPayload": "ok",
    "OracleReportPayload": "report userErrors",
    "OracleRunPayload": "queuedAt userErrors",
    "Order": (
        "id clientOrderId assetId side type timeInForce status asset limitPrice shares amount filledShares averagePrice"
        " gross fee fills reason createdAt updatedAt"
    ),
    "OrderConnection": "nodes pageInfo edges",
    "OrderEdge": "node cursor",
    "Portfolio": "currency cash marketValue liquidationValue realizedPnl unrealizedPnl",
    "Position": ("id asset shares averagePrice costBasis marketValue liquidationValue unrealizedPnl realizedPnl"),
    "PositionConnection": "nodes pageInfo edges",
    "PositionEdge": "node cursor",
    "Reconciliation": "ok checkedAt transfers findings",
    "Session": "token expiresAt",
    "SystemStatus": "version development startedAt components",
    "TradingPausePayload": "platform userErrors",
    "Viewer": (
        "id email createdAt frozen balances positions position fills orders order ledger portfolio apiKeys"
        " assetRequests"
    ),
}

_OWNED_AND_GATED: Final[Mapping[str, dict[str, Rule]]] = {
    "AdminQuery": _ruled(Rule.ADMIN, "assetRequests accounts account auditLog reconciliation system"),
    "DevFundPayload": {"viewer": Rule.READ, "userErrors": Rule.OPEN},
    "OrderPlacePayload": {**_open("order asset userErrors"), **_ruled(Rule.READ, "position viewer")},
}

TABLE: Final[Table] = {
    **{name: (Audience.EVERYBODY, rules) for name, rules in _ROOTS.items()},
    **{name: (Audience.EVERYBODY, _open(fields)) for name, fields in _PUBLIC.items()},
    **{name: (Audience.ITS_OWNER, _open(fields)) for name, fields in _OWNED.items()},
    **{name: (Audience.ITS_OWNER, rules) for name, rules in _OWNED_AND_GATED.items()},
}
