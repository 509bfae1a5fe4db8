"""The API's enums: the domain's own, described for readers of the schema. A value without a description fails here."""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

import strawberry
from strawberry.types.enum import StrawberryEnumDefinition

from app.accounts.asset_requests import AssetRequestStatus
from app.accounts.principals import Scope
from app.errors import ErrorCode
from app.exchange.assets import AssetStatus
from app.exchange.orders import OrderStatus, OrderType, Side, TimeInForce
from app.ledger.currencies import Currency
from app.oracle.kinds import OracleMethod, OracleOutcome
from app.oracle.report_rows import Resolution
from app.pricing.intervals import Interval, PriceKind
from app.pricing.ticks import TickCause

_E = TypeVar("_E", bound=type[StrEnum])


def describe(enum: _E, *, description: str, values: Mapping[str, str], name: str | None = None) -> _E:
    """Make `enum` part of the schema. `values` describes every member by name; a missing or extra one raises."""
    described = strawberry.enum(enum, name=name, description=description)
    definition: StrawberryEnumDefinition = described.__strawberry_definition__  # type: ignore[attr-defined]
    if {value.name for value in definition.values} != set(values):
        raise ValueError(f"{enum.__name__}: describe exactly its values")
    for value in definition.values:
        value.description = values[value.name]
    return described


describe(
    ErrorCode,
    description="Why a request was refused. Expect codes that you do not know: more may come.",
    values={
        "INVALID_INPUT": "A value can never be accepted as it is; the message quotes it, field names it.",
        "NOT_FOUND": "There is no such object, or it is not yours to see.",
        "ALREADY_EXISTS": "An object with this name or address exists.",
        "INVALID_CREDENTIALS": "E-mail and password, or name and password, do not belong together.",
        "WEAK_PASSWORD": "The password is too short or too common.",
        "INSUFFICIENT_FUNDS": "The account has less money available than this takes.",
        "INSUFFICIENT_SHARES": "The account has fewer shares available than this takes.",
        "BELOW_MINIMUM": "The trade is smaller than the asset's minNotional, or would move nothing.",
        "SLIPPAGE_EXCEEDED": "A bound of the order (maxTotal, minTotal, minShares or ifTradeSeq) does not hold now.",
        "DEADLINE_PASSED": "The order's deadline passed before it could execute.",
        "POSITION_LIMIT": "More shares than an account may hold, or than the curve may ever issue.",
        "REDEMPTION_LIMIT": "More than an account may sell for in a UTC day.",
        "ASSET_NOT_OPEN": "The asset's status does not allow this trade.",
        "TRADING_PAUSED": "Trading is stopped on the whole platform.",
        "ACCOUNT_FROZEN": "The account is frozen: it reads, and moves nothing.",
        "IDEMPOTENCY_KEY_REUSED": "The key was used before, with another input.",
        "OVERLOADED": "Too much is waiting already; try again in a moment.",
        "CONFLICT": "The object is in a state that does not allow this.",
    },
)
describe(
    Currency,
    description="A stablecoin. The two are different currencies: never added up, never credited as one another.",
    values={"USDC": "USD Coin.", "USDT": "Tether USD."},
)
describe(
    Side,
    description="Which way a trade goes, seen from the account.",
    values={"BUY": "Shares from the curve, for money.", "SELL": "Shares back to the curve, for money."},
)
describe(
    AssetStatus,
    description="What may be done with an asset. Checked again under the asset's lock.",
    values={
        "DRAFT": "Being prepared: seen by admins only, trades nothing.",
        "OPEN": "Buys and sells.",
        "REDUCE_ONLY": "Sells only.",
        "HALTED": "Trades nothing.",
        "DELISTED": "Reserved.",
    },
)
describe(
    Interval,
    description="How long a candle lasts; candles begin at whole multiples of it in UTC.",
    values={
        "S1": "One second.",
        "M1": "One minute.",
        "M5": "Five minutes.",
        "M15": "Fifteen minutes.",
        "H1": "One hour.",
        "H4": "Four hours.",
        "D1": "One day.",
    },
)
describe(
    TickCause,
    description="What made a tick.",
    values={
        "OPEN": "The asset was made, or no engine has ticked it yet.",
        "TRADE": "A trade.",
        "ORACLE": "A reading of the variable that the asset tracks.",
        "DECAY": "Recent volume faded, which moved the weights.",
    },
)
describe(
    PriceKind,
    description="Which price a candle is made of.",
    values={"DISPLAY": "D, the displayed price.", "MARKET": "M, the curve's marginal price."},
)
describe(
    OrderType,
    description="How an order executes.",
    values={
        "MARKET": "At once against the curve, wholly or not at all.",
        "LIMIT": "At a price or better. Not offered yet: refused with INVALID_INPUT.",
    },
)
describe(
    TimeInForce,
    description="How long an order may wait. A MARKET order is FOK.",
    values={
        "GTC": "Good till cancelled.",
        "IOC": "Immediate or cancel: what cannot be filled at once is cancelled.",
        "FOK": "Fill or kill: wholly at once, or refused.",
        "GTD": "Good till date.",
    },
)
describe(
    OrderStatus,
    description="Where an order stands. A MARKET order ends FILLED or REJECTED at once.",
    values={
        "OPEN": "Waiting, nothing filled.",
        "PARTIALLY_FILLED": "Waiting, partly filled.",
        "FILLED": "Wholly filled.",
        "CANCELLED": "Taken back before it was wholly filled.",
        "REJECTED": "Refused under the asset's lock; reason says why.",
        "EXPIRED": "Its time ended before it was wholly filled.",
    },
)
describe(
    Scope,
    name="ApiKeyScope",
    description="What an API key may do. A session has every scope; only a session manages API keys.",
    values={
        "READ": "Read the account's own data.",
        "TRADE": "Place orders and submit requests in the account's name.",
        "WITHDRAW": "Move money out of the account.",
    },
)
describe(
    AssetRequestStatus,
    description="Where a request for an asset stands.",
    values={
        "PENDING": "Waits for an admin.",
        "APPROVED": "An admin approved it; asset is there once it has been made.",
        "REJECTED": "An admin rejected it; adminNotes may say why.",
    },
)
describe(
    OracleMethod,
    description="Where a reading of an asset's variable comes from.",
    values={
        "SEARCH_LLM": "Web search read by a language model.",
        "FEED": "A numeric source, or several and their median.",
        "OVERRIDE": "Set by an admin.",
    },
)
describe(
    OracleOutcome,
    description="What became of a reading.",
    values={
        "ACCEPTED": "Taken: it moved F, or set it.",
        "REJECTED": "Not taken, and kept with its reasons. A REPEAT keeps F fresh.",
        "QUARANTINED": ("Too far from F to be believed at once: waits for a second, independent reading or an admin."),
    },
)
describe(
    Resolution,
    name="OracleResolution",
    description="How a quarantine ended.",
    values={
        "ACCEPTED": "An admin took the reading.",
        "REJECTED": "An admin rejected it, or gave the asset another oracle.",
        "CONFIRMED": "A second, independent reading confirmed it.",
        "EXPIRED": "Its time ended before anything confirmed it.",
    },
)
