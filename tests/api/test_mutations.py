"""What can be done, from a sign-up to a pause: payloads, refusals as data, and that a refusal changed nothing."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from redis.asyncio import Redis

from api.node_ids import node_id
from app.accounts.principals import AccountPrincipal, Principal
from app.db import Database
from app.errors import Unauthenticated
from app.exchange.assets import AssetStatus
from app.exchange.orders import Side
from app.exchange.settlement import Settlement
from app.local.valkey import EmbeddedValkey
from app.ratelimit import RateLimited, RateLimiter
from app.settings import Environment
from tests.api.harness import Answer, Api
from tests.conftest import ADMIN_PASSWORD, make_settings
from tests.factories import new_account, new_admin, new_asset, place_order, set_status, standing

_numbers = count(1)
PASSWORD = "a long enough password"
CLIENT_IP = "127.0.0.1"
"""Where the harness's requests come from."""

SESSION = "session { token expiresAt } viewer { email } userErrors { __typename code field message }"
SIGN_UP = f"""
mutation ($email: String!, $password: String!) {{
  signUp(input: {{ email: $email, password: $password }}) {{ {SESSION} }} }}
"""
LOG_IN = SIGN_UP.replace("signUp", "logIn")


def new_email() -> str:
    return f"person-{next(_numbers)}@example.com"


async def test_a_person_signs_up_logs_in_and_logs_out(api: Api) -> None:
    email = new_email()

    signed_up = (await api.data(SIGN_UP, {"email": email.upper(), "password": PASSWORD}))["signUp"]
    assert signed_up["viewer"] == {"email": email}
    assert signed_up["userErrors"] == []
    assert datetime.fromisoformat(signed_up["session"]["expiresAt"]) > datetime.now(UTC) + timedelta(days=13)

    logged_in = (await api.data(LOG_IN, {"email": email, "password": PASSWORD}))["logIn"]
    assert logged_in["viewer"] == {"email": email}
    principal = await api.services.authenticator.principal(logged_in["session"]["token"])
    assert (await api.data("{ viewer { email } }", principal=principal))["viewer"] == {"email": email}

    assert await api.data("mutation { logOut { ok } }", principal=principal) == {"logOut": {"ok": True}}
    with pytest.raises(Unauthenticated):
        await api.services.authenticator.principal(logged_in["session"]["token"])
    first = await api.services.authenticator.principal(signed_up["session"]["token"])
    assert isinstance(first, AccountPrincipal)


async def test_what_signing_up_refuses_is_data(api: Api) -> None:
    email = new_email()
    await api.data(SIGN_UP, {"email": email, "password": PASSWORD})

    async def refused(mutation: str, name: str, **variables: str) -> list[Answer]:
        payload = (await api.data(mutation, variables))[name]
        assert (payload["session"], payload["viewer"]) == (None, None)
        errors: list[Answer] = payload["userErrors"]
        assert all(error.pop("message") for error in errors)
        return errors

    def general(code: str, *field: str) -> list[Answer]:
        return [{"__typename": "GeneralError", "code": code, "field": list(field) or None}]

    assert await refused(SIGN_UP, "signUp", email=email, password=PASSWORD) == general(
        "ALREADY_EXISTS", "input", "email"
    )
    assert await refused(SIGN_UP, "signUp", email=new_email(), password="short") == general(
        "WEAK_PASSWORD", "input", "password"
    )
    assert await refused(SIGN_UP, "signUp", email="nobody", password=PASSWORD) == general(
        "INVALID_INPUT", "input", "email"
    )
    assert await refused(LOG_IN, "logIn", email=email, password="wrong" + PASSWORD) == general("INVALID_CREDENTIALS")
    assert await refused(LOG_IN, "logIn", email=new_email(), password=PASSWORD) == general("INVALID_CREDENTIALS")


@pytest.fixture
async def counted(api: Api, valkey: EmbeddedValkey) -> AsyncIterator[Api]:
    """The API with a limit of two log-ins a minute, none of which has been used."""
    redis: Redis = Redis.from_url(valkey.url)
    await redis.delete(f"megatron:rate:log-in:ip:{CLIENT_IP}")
    settings = make_settings(rate_limits=True, redis_url=valkey.url, rate_limit_log_in_minute=2)
    yield Api(replace(api.services, rate_limiter=RateLimiter(redis, settings)))
    await redis.delete(f"megatron:rate:log-in:ip:{CLIENT_IP}")
    await redis.aclose()


async def test_log_ins_are_counted_by_the_address_meant_however_it_is_spelled(counted: Api) -> None:
    email = new_email()
    full_width = "".join(chr(ord(c) + 0xFEE0) if c.isalnum() else c for c in email).upper()
    elsewhere = f"2001:db8:{next(_numbers):x}::1"
    for spelling in (email, f" {full_width} "):
        answer = await counted.data(LOG_IN, {"email": spelling, "password": PASSWORD})
        assert [error["code"] for error in answer["logIn"]["userErrors"]] == ["INVALID_CREDENTIALS"]

    await counted.services.rate_limiter.log_in(client_ip=elsewhere, identity=new_email())
    with pytest.raises(RateLimited, match="2 log-ins a minute under this name are allowed"):
        await counted.services.rate_limiter.log_in(client_ip=elsewhere, identity=email)
    with pytest.raises(RateLimited):
        await counted.data(LOG_IN, {"email": new_email(), "password": PASSWORD})


async def test_what_is_no_email_counts_by_what_was_written(counted: Api) -> None:
    written = f"nobody {next(_numbers)}"
    for _ in range(2):
        await counted.data(LOG_IN, {"email": written, "password": PASSWORD})

    with pytest.raises(RateLimited, match="under this name"):
        await counted.services.rate_limiter.log_in(client_ip=f"2001:db8:{next(_numbers):x}::1", identity=written)


async def test_an_admin_is_not_locked_out_by_those_who_try_the_name_elsewhere(counted: Api) -> None:
    mutation = """mutation { adminLogIn(input: { name: "admin", password: "%s" }) {
      session { token } userErrors { code } } }"""
    limiter = counted.services.rate_limiter
    elsewhere = f"2001:db8:{next(_numbers):x}::1"
    for _ in range(2):
        await limiter.admin_log_in(client_ip=elsewhere, name="admin")
        await limiter.log_in(client_ip=f"2001:db8:{next(_numbers):x}::1", identity="admin")
    with pytest.raises(RateLimited):
        await limiter.admin_log_in(client_ip=elsewhere, name="admin")

    wrong = (await counted.data(mutation % "wrong"))["adminLogIn"]
    assert wrong == {"session": None, "userErrors": [{"code": "INVALID_CREDENTIALS"}]}
    assert (await counted.data(mutation % ADMIN_PASSWORD))["adminLogIn"]["session"]["token"].startswith("mga_")
    with pytest.raises(RateLimited):
        await counted.data(mutation % ADMIN_PASSWORD)


async def test_an_admin_logs_in_and_out(api: Api) -> None:
    mutation = """mutation ($password: String!) {
      adminLogIn(input: { password: $password }) { session { token expiresAt } userErrors { code } } }"""

    wrong = (await api.data(mutation, {"password": "wrong"}))["adminLogIn"]
    assert wrong == {"session": None, "userErrors": [{"code": "INVALID_CREDENTIALS"}]}

    right = (await api.data(mutation, {"password": ADMIN_PASSWORD}))["adminLogIn"]
    assert datetime.fromisoformat(right["session"]["expiresAt"]) < datetime.now(UTC) + timedelta(minutes=61)
    admin = await api.services.authenticator.principal(right["session"]["token"])
    assert (await api.data("{ admin { system { development } } }", principal=admin))["admin"] == {
        "system": {"development": True}
    }
    assert await api.data("mutation { logOut { ok } }", principal=admin) == {"logOut": {"ok": True}}
    with pytest.raises(Unauthenticated):
        await api.services.authenticator.principal(right["session"]["token"])


async def test_a_key_works_until_it_is_revoked(api: Api, database: Database) -> None:
    trader, other = await new_account(database), await new_account(database)
    create = """mutation ($scopes: [ApiKeyScope!]!) { apiKeyCreate(input: { name: "bot", scopes: $scopes }) {
      apiKey { id name prefix scopes } secret userErrors { code field } } }"""
    revoke = "mutation ($id: ID!) { apiKeyRevoke(id: $id) { apiKey { id } userErrors { code field } } }"

    made = (await api.data(create, {"scopes": ["READ"]}, principal=trader))["apiKeyCreate"]
    key, secret = made["apiKey"], made["secret"]
    assert secret.startswith(key["prefix"])
    assert (key["name"], key["scopes"], made["userErrors"]) == ("bot", ["READ"], [])
    bot = await api.services.authenticator.principal(secret)
    assert (await api.data("{ viewer { id } }", principal=bot))["viewer"]["id"] == node_id("Account", trader.account_id)

    missing = {"apiKey": None, "userErrors": [{"code": "NOT_FOUND", "field": ["id"]}]}
    assert await api.data(revoke, {"id": key["id"]}, principal=other) == {"apiKeyRevoke": missing}
    assert await api.data(revoke, {"id": "x"}, principal=trader) == {"apiKeyRevoke": missing}
    assert await api.services.authenticator.principal(secret) == bot

    assert await api.data(revoke, {"id": key["id"]}, principal=trader) == {
        "apiKeyRevoke": {"apiKey": {"id": key["id"]}, "userErrors": []}
    }
    with pytest.raises(Unauthenticated):
        await api.services.authenticator.principal(secret)
    none = (await api.data(create, {"scopes": []}, principal=trader))["apiKeyCreate"]
    assert none == {
        "apiKey": None, "secret": None, "userErrors": [{"code": "INVALID_INPUT", "field": ["input", "scopes"]}],
    }  # fmt: skip


FUND = """
mutation ($currency: Currency! = USDC, $amount: Decimal!, $key: String!) {
  devFund(input: { currency: $currency, amount: $amount, idempotencyKey: $key }) {
    viewer { balances { currency available } } userErrors { code field message } } }
"""


async def test_test_funds_come_once_for_each_key(api: Api, database: Database) -> None:
    trader = await new_account(database)

    async def fund(**variables: str) -> Answer:
        payload: Answer = (await api.data(FUND, variables, principal=trader))["devFund"]
        return payload

    first = await fund(amount="1000.000001", key="a")
    again = await fund(amount="1000.000001", key="a")
    assert first == again
    assert first["viewer"]["balances"] == [
        {"currency": "USDC", "available": "1000.000001"}, {"currency": "USDT", "available": "0"},
    ]  # fmt: skip

    reused = await fund(amount="1000", key="a")
    assert (reused["viewer"], reused["userErrors"][0]["code"]) == (None, "IDEMPOTENCY_KEY_REUSED")
    too_fine = await fund(amount="0.0000001", key="b")
    assert too_fine == {
        "viewer": None,
        "userErrors": [
            {
                "code": "INVALID_INPUT",
                "field": ["input", "amount"],
                "message": "amount has at most 6 decimals; got '0.0000001'.",
            }
        ],
    }
    usdt = await fund(amount="5", key="c", currency="USDT")
    assert usdt["viewer"]["balances"][1] == {"currency": "USDT", "available": "5"}


async def test_there_are_no_test_funds_in_production(api: Api, database: Database) -> None:
    trader = await new_account(database)
    production = make_settings().model_copy(update={"env": Environment.PRODUCTION})
    elsewhere = Api(replace(api.services, settings=production))

    _, kind, message = await elsewhere.refusal(FUND, {"amount": "1", "key": "a"}, principal=trader)

    assert (kind, message) == ("FORBIDDEN", "devFund exists only where the server runs in development mode.")
    balances = await api.data("{ viewer { balances { available } } }", principal=trader)
    assert balances["viewer"]["balances"] == [{"available": "0"}, {"available": "0"}]


PLACE = """
mutation ($order: OrderPlaceInput!) { orderPlace(input: $order) {
  order { clientOrderId status reason shares amount filledShares gross fee averagePrice fills { tradeSeq } }
  position { shares costBasis } asset { supply marketPrice tradeSeq } viewer { balances { available } }
  userErrors {
    __typename code field
    ... on InsufficientBalanceError { required available }
    ... on SlippageError { bound actual atTradeSeq }
    ... on LimitError { limit remaining resetsAt }
  }
} }
"""
NOTHING_ELSE = {"position": None, "asset": None, "viewer": None}


async def place(api: Api, principal: Principal, asset_id: int, **order: object) -> Answer:
    values = {"assetId": node_id("Asset", asset_id), "side": "BUY", "clientOrderId": f"o{next(_numbers)}", **order}
    payload: Answer = (await api.data(PLACE, {"order": values}, principal=principal))["orderPlace"]
    return payload


async def test_a_purchase_shows_what_it_changed(api: Api, database: Database) -> None:
    trader = await new_account(database, usdc="1000")
    asset_id = await new_asset(database, fee_rate="0.01")

    payload = await place(api, trader, asset_id, shares="100", clientOrderId="mine", maxTotal="126.25")

    assert payload == {
        "order": {
            "clientOrderId": "mine", "status": "FILLED", "reason": None, "shares": "100", "amount": None,
            "filledShares": "100", "gross": "125", "fee": "1.25", "averagePrice": "1.25", "fills": [{"tradeSeq": 1}],
        },
        "position": {"shares": "100", "costBasis": "126.25"},
        "asset": {"supply": "100", "marketPrice": "1.5", "tradeSeq": 1},
        "viewer": {"balances": [{"available": "873.75"}, {"available": "0"}]},
        "userErrors": [],
    }  # fmt: skip


async def test_a_repeat_answers_the_first_outcome_and_reads_the_rest_afresh(api: Api, database: Database) -> None:
    trader = await new_account(database, usdc="1000")
    asset_id = await new_asset(database, fee_rate="0")

    first = await place(api, trader, asset_id, shares="100", clientOrderId="mine")
    await place(api, trader, asset_id, shares="100")
    again = await place(api, trader, asset_id, shares="100.0", clientOrderId="mine")
    other = await place(api, trader, asset_id, shares="101", clientOrderId="mine")

    assert again["order"] == first["order"]
    assert (again["asset"]["supply"], again["position"]["shares"]) == ("200", "200")
    assert other == {
        "order": None, **NOTHING_ELSE,
        "userErrors": [
            {"__typename": "GeneralError", "code": "IDEMPOTENCY_KEY_REUSED", "field": ["input", "clientOrderId"]}
        ],
    }  # fmt: skip


async def test_each_mutation_of_a_request_shows_its_own_moment(api: Api, database: Database) -> None:
    trader = await new_account(database, usdc="1000")
    asset_id = await new_asset(database, fee_rate="0")
    buy = 'orderPlace(input: { assetId: $asset, side: BUY, shares: "100", clientOrderId: "%s" }) { asset { supply } }'

    answer = await api.data(
        f"mutation ($asset: ID!) {{ a: {buy % 'a'} b: {buy % 'b'} c: {buy % 'c'} }}",
        {"asset": node_id("Asset", asset_id)},
        principal=trader,
    )

    assert [answer[name]["asset"]["supply"] for name in "abc"] == ["100", "200", "300"]


async def test_a_refusal_under_the_lock_is_an_order_too(api: Api, database: Database, settlement: Settlement) -> None:
    trader = await new_account(database, usdc="20")
    asset_id = await new_asset(database, fee_rate="0.01", max_shares_per_account="50", max_redemption_per_day="1")
    await place_order(settlement, trader, asset_id, shares="10")
    before = await standing(database, account_id=trader.account_id, asset_id=asset_id)

    async def refused(**order: object) -> Answer:
        payload = await place(api, trader, asset_id, **order)
        assert {name: payload[name] for name in NOTHING_ELSE} == NOTHING_ELSE
        assert payload["order"]["status"] == "REJECTED"
        assert (payload["order"]["filledShares"], payload["order"]["fills"]) == ("0", [])
        [error] = payload["userErrors"]
        assert error["code"] == payload["order"]["reason"]
        answer: Answer = error
        return answer

    # R(20) - R(10) = 10.75; the first ten took 10.25 and a fee of 0.1025
    assert await refused(shares="10") == {
        "__typename": "InsufficientBalanceError", "code": "INSUFFICIENT_FUNDS", "field": ["input", "shares"],
        "required": "10.8575", "available": "9.6475",
    }  # fmt: skip
    assert await refused(side="SELL", shares="11") == {
        "__typename": "InsufficientBalanceError", "code": "INSUFFICIENT_SHARES", "field": ["input", "shares"],
        "required": "11", "available": "10",
    }  # fmt: skip
    # R(11) - R(10) = 1.0525, and a fee of 0.010525
    assert await refused(shares="1", maxTotal="1.06") == {
        "__typename": "SlippageError", "code": "SLIPPAGE_EXCEEDED", "field": ["input", "maxTotal"],
        "bound": "1.06", "actual": "1.063025", "atTradeSeq": 1,
    }  # fmt: skip
    assert await refused(shares="1", ifTradeSeq=0) == {
        "__typename": "SlippageError", "code": "SLIPPAGE_EXCEEDED", "field": ["input", "ifTradeSeq"],
        "bound": "0", "actual": "1", "atTradeSeq": 1,
    }  # fmt: skip
    assert await refused(shares="40.5") == {
        "__typename": "LimitError", "code": "POSITION_LIMIT", "field": ["input", "shares"],
        "limit": "50", "remaining": "40", "resetsAt": None,
    }  # fmt: skip
    small = await refused(shares="0.000001")
    assert (small["__typename"], small["code"], small["limit"]) == ("LimitError", "BELOW_MINIMUM", "0.01")
    daily = await refused(side="SELL", shares="5")
    assert (daily["__typename"], daily["code"], daily["limit"], daily["remaining"]) == (
        "LimitError", "REDEMPTION_LIMIT", "1", "1",
    )  # fmt: skip
    midnight = datetime.fromisoformat(daily["resetsAt"])
    assert (midnight.hour, midnight.minute, midnight.second) == (0, 0, 0)
    assert timedelta(0) < midnight - datetime.now(UTC) <= timedelta(days=1)

    after = await standing(database, account_id=trader.account_id, asset_id=asset_id)
    assert after.unchanged_but_for_orders(before)
    assert after.orders == before.orders + 7


async def test_a_refusal_of_the_form_makes_no_order(api: Api, database: Database) -> None:
    trader = await new_account(database, usdc="100")
    asset_id = await new_asset(database)
    before = await standing(database, account_id=trader.account_id, asset_id=asset_id)

    async def refused(**order: object) -> tuple[str, list[str]]:
        payload = await place(api, trader, asset_id, **order)
        assert payload["order"] is None
        assert {name: payload[name] for name in NOTHING_ELSE} == NOTHING_ELSE
        [error] = payload["userErrors"]
        return error["code"], error["field"]

    assert await refused() == ("INVALID_INPUT", ["input", "shares"])
    assert await refused(shares="1", amount="1") == ("INVALID_INPUT", ["input", "shares"])
    assert await refused(shares="-1") == ("INVALID_INPUT", ["input", "shares"])
    assert await refused(shares="0") == ("INVALID_INPUT", ["input", "shares"])
    assert await refused(amount=10**40) == ("INVALID_INPUT", ["input", "amount"])
    assert await refused(shares="0.0000000001") == ("INVALID_INPUT", ["input", "shares"])
    assert await refused(shares="1", clientOrderId="") == ("INVALID_INPUT", ["input", "clientOrderId"])
    assert await refused(shares="1", type="LIMIT", limitPrice="1") == ("INVALID_INPUT", ["input", "type"])
    assert await refused(shares="1", timeInForce="GTC") == ("INVALID_INPUT", ["input", "timeInForce"])
    assert await refused(shares="1", postOnly=True) == ("INVALID_INPUT", ["input", "postOnly"])
    later = (datetime.now(UTC) + timedelta(minutes=2)).isoformat()
    assert await refused(shares="1", deadline=later) == ("INVALID_INPUT", ["input", "deadline"])
    for unknown in ("x", node_id("Asset", 10**15), node_id("Order", 1)):
        assert await refused(assetId=unknown, shares="1") == ("NOT_FOUND", ["input", "assetId"])

    assert await standing(database, account_id=trader.account_id, asset_id=asset_id) == before


async def test_a_draft_is_not_there_to_be_traded(api: Api, database: Database) -> None:
    trader = await new_account(database, usdc="100")
    asset_id = await new_asset(database, status=AssetStatus.DRAFT)

    payload = await place(api, trader, asset_id, shares="1")

    assert payload["order"] is None
    assert payload["userErrors"] == [{"__typename": "GeneralError", "code": "NOT_FOUND", "field": ["input", "assetId"]}]


async def test_a_halted_asset_trades_nothing_and_a_reduced_one_only_sells(
    api: Api, database: Database, settlement: Settlement
) -> None:
    trader = await new_account(database, usdc="100")
    asset_id = await new_asset(database)
    await place_order(settlement, trader, asset_id, shares="10")

    await set_status(database, asset_id, AssetStatus.REDUCE_ONLY)
    assert (await place(api, trader, asset_id, shares="1"))["order"]["reason"] == "ASSET_NOT_OPEN"
    assert (await place(api, trader, asset_id, shares="1", side=Side.SELL.value))["order"]["status"] == "FILLED"
    await set_status(database, asset_id, AssetStatus.HALTED)
    assert (await place(api, trader, asset_id, shares="1", side=Side.SELL.value))["order"]["reason"] == "ASSET_NOT_OPEN"


async def test_from_a_wish_to_an_asset(api: Api, database: Database) -> None:
    admin, trader = await new_admin(database), await new_account(database)
    symbol = f"WISH{next(_numbers)}"
    submit = """mutation { assetRequestSubmit(input: {
      name: "Rain", description: "in Lisbon", sourceHint: "the met office", idempotencyKey: "a" }) {
        assetRequest { id name description sourceHint status } userErrors { code } } }"""
    create = """mutation ($asset: AssetCreateInput!) { assetCreate(input: $asset) {
      asset { id symbol status curve { basePrice slope feeRate } tradingRules { maxSharesPerAccount } }
      userErrors { code field } } }"""
    asset = {
        "symbol": symbol, "name": "Rain", "description": "in Lisbon", "category": "WEATHER", "status": "DRAFT",
        "idempotencyKey": symbol,
    }  # fmt: skip
    wishes = "{ viewer { assetRequests { status adminNotes asset { symbol } } } }"

    request = (await api.data(submit, principal=trader))["assetRequestSubmit"]["assetRequest"]
    assert (await api.data(submit, principal=trader))["assetRequestSubmit"]["assetRequest"] == request
    made = await api.data(create, {"asset": {**asset, "requestId": request["id"]}}, principal=admin)
    assert (await api.data(create, {"asset": {**asset, "requestId": request["id"]}}, principal=admin)) == made
    assert made["assetCreate"]["userErrors"] == []
    assert made["assetCreate"]["asset"]["curve"] == {"basePrice": "1", "slope": "0.005", "feeRate": "0.005"}
    assert made["assetCreate"]["asset"]["tradingRules"] == {"maxSharesPerAccount": None}

    # As long as it is a draft, who asked does not see it.
    approved = {"status": "APPROVED", "adminNotes": None}
    assert await api.data(wishes, principal=trader) == {"viewer": {"assetRequests": [{**approved, "asset": None}]}}
    opened = await api.data(
        """mutation ($id: ID!) { assetSetStatus(input: { assetId: $id, status: OPEN, reason: "ready" }) {
             asset { status statusReason } userErrors { code } } }""",
        {"id": made["assetCreate"]["asset"]["id"]},
        principal=admin,
    )
    assert opened["assetSetStatus"] == {"asset": {"status": "OPEN", "statusReason": "ready"}, "userErrors": []}
    assert await api.data(wishes, principal=trader) == {
        "viewer": {"assetRequests": [{**approved, "asset": {"symbol": symbol}}]}
    }

    taken = await api.data(create, {"asset": {**asset, "idempotencyKey": f"{symbol}-2"}}, principal=admin)
    assert taken["assetCreate"] == {
        "asset": None, "userErrors": [{"code": "ALREADY_EXISTS", "field": ["input", "symbol"]}],
    }  # fmt: skip
    unknown = {**asset, "symbol": f"{symbol}Z", "idempotencyKey": f"{symbol}-3", "requestId": "x"}
    assert (await api.data(create, {"asset": unknown}, principal=admin))["assetCreate"] == {
        "asset": None, "userErrors": [{"code": "NOT_FOUND", "field": ["input", "requestId"]}],
    }  # fmt: skip


async def test_a_wish_is_reviewed_once(api: Api, database: Database) -> None:
    admin, trader = await new_admin(database), await new_account(database)
    submitted = await api.data(
        """mutation { assetRequestSubmit(input: { name: "Rain", description: "d", idempotencyKey: "a" }) {
             assetRequest { id } } }""",
        principal=trader,
    )
    review = """mutation ($id: ID!) {
      assetRequestReview(input: { requestId: $id, approve: false, notes: "no source" }) {
      assetRequest { status adminNotes } userErrors { code field } } }"""
    variables = {"id": submitted["assetRequestSubmit"]["assetRequest"]["id"]}

    first = (await api.data(review, variables, principal=admin))["assetRequestReview"]
    again = (await api.data(review, variables, principal=admin))["assetRequestReview"]

    assert first == {"assetRequest": {"status": "REJECTED", "adminNotes": "no source"}, "userErrors": []}
    assert again == {"assetRequest": None, "userErrors": [{"code": "CONFLICT", "field": ["input", "requestId"]}]}


async def test_an_update_changes_what_it_names_and_null_takes_a_limit_away(api: Api, database: Database) -> None:
    admin = await new_admin(database)
    asset_id = await new_asset(database, max_shares_per_account="10", max_redemption_per_day="20")
    update = """mutation ($changes: AssetUpdateInput!) { assetUpdate(input: $changes) {
      asset { name curve { basePrice feeRate } tradingRules { maxSharesPerAccount maxRedemptionPerDay } }
      userErrors { code field } } }"""

    async def change(**values: object) -> Answer:
        changes = {"assetId": node_id("Asset", asset_id), "reason": "a test", **values}
        payload: Answer = (await api.data(update, {"changes": changes}, principal=admin))["assetUpdate"]
        return payload

    changed = await change(name="Other", feeRate="0.001", basePrice="2", maxSharesPerAccount=None)
    assert changed == {
        "asset": {
            "name": "Other",
            "curve": {"basePrice": "2", "feeRate": "0.001"},
            "tradingRules": {"maxSharesPerAccount": None, "maxRedemptionPerDay": "20"},
        },
        "userErrors": [],
    }
    assert (await change(maxRedemptionPerDay="21"))["asset"]["tradingRules"] == {
        "maxSharesPerAccount": None, "maxRedemptionPerDay": "21",
    }  # fmt: skip
    assert await change(feeRate="0.2") == {
        "asset": None, "userErrors": [{"code": "INVALID_INPUT", "field": ["input", "feeRate"]}],
    }  # fmt: skip
    assert (await change(name="Another"))["asset"]["curve"]["feeRate"] == "0.001"


async def test_a_frozen_account_reads_and_moves_nothing(api: Api, database: Database) -> None:
    admin, trader = await new_admin(database), await new_account(database, usdc="100")
    asset_id = await new_asset(database)
    freeze = """mutation ($id: ID!, $frozen: Boolean!) {
      accountFreeze(input: { accountId: $id, frozen: $frozen, reason: "a test" }) {
        account { id frozen balances { available } } userErrors { code field } } }"""
    account = {"id": node_id("Account", trader.account_id)}

    frozen = (await api.data(freeze, {**account, "frozen": True}, principal=admin))["accountFreeze"]
    assert frozen == {
        "account": {**account, "frozen": True, "balances": [{"available": "100"}, {"available": "0"}]},
        "userErrors": [],
    }
    assert (await api.data("{ viewer { frozen } }", principal=trader))["viewer"] == {"frozen": True}
    before = await standing(database, account_id=trader.account_id, asset_id=asset_id)
    refused = await place(api, trader, asset_id, shares="1")
    assert (refused["order"]["status"], refused["order"]["reason"]) == ("REJECTED", "ACCOUNT_FROZEN")
    funds = (await api.data(FUND, {"amount": "1", "key": "a"}, principal=trader))["devFund"]
    assert [error["code"] for error in funds["userErrors"]] == ["ACCOUNT_FROZEN"]
    after = await standing(database, account_id=trader.account_id, asset_id=asset_id)
    assert after.unchanged_but_for_orders(before)

    await api.data(freeze, {**account, "frozen": False}, principal=admin)
    assert (await place(api, trader, asset_id, shares="1"))["order"]["status"] == "FILLED"
    missing = (await api.data(freeze, {"id": "x", "frozen": True}, principal=admin))["accountFreeze"]
    assert missing == {"account": None, "userErrors": [{"code": "NOT_FOUND", "field": ["input", "accountId"]}]}


async def test_a_pause_stops_every_trade(api: Api, database: Database) -> None:
    admin, trader = await new_admin(database), await new_account(database, usdc="100")
    asset_id = await new_asset(database)
    pause = """mutation ($paused: Boolean!, $reason: String!) {
      tradingPause(input: { paused: $paused, reason: $reason }) {
        platform { tradingPaused reason } userErrors { code field } } }"""

    try:
        paused = await api.data(pause, {"paused": True, "reason": "a test"}, principal=admin)
        assert paused["tradingPause"] == {
            "platform": {"tradingPaused": True, "reason": "a test"}, "userErrors": [],
        }  # fmt: skip
        platform = (await api.data("{ platform { development tradingPaused reason } }"))["platform"]
        assert platform == {"development": True, "tradingPaused": True, "reason": "a test"}
        assert (await place(api, trader, asset_id, shares="1"))["order"]["reason"] == "TRADING_PAUSED"
    finally:
        goes_on = await api.data(pause, {"paused": False, "reason": "it is over"}, principal=admin)
    assert goes_on["tradingPause"]["platform"] == {"tradingPaused": False, "reason": None}
    assert (await place(api, trader, asset_id, shares="1"))["order"]["status"] == "FILLED"
    nameless = await api.data(pause, {"paused": True, "reason": ""}, principal=admin)
    assert nameless["tradingPause"] == {
        "platform": None, "userErrors": [{"code": "INVALID_INPUT", "field": ["input", "reason"]}],
    }  # fmt: skip
