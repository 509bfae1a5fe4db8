"""The platform's clock and state, and the caller's place in the rate limits."""

from datetime import UTC, datetime, timedelta

from graphql import graphql

from api.context import Context
from api.schema import schema
from app.accounts.principals import ANONYMOUS
from app.ratelimit import Quota, RateState
from app.services import VERSION
from tests.api.harness import Api


async def test_the_clock_is_this_process_s(api: Api) -> None:
    before = datetime.now(UTC)
    answer = await api.data("{ serverTime }")
    assert before <= datetime.fromisoformat(answer["serverTime"]) <= datetime.now(UTC)


async def test_everybody_sees_what_runs_and_whether_it_trades(api: Api) -> None:
    platform = (await api.data("{ platform { development tradingPaused reason version } }"))["platform"]
    assert platform == {"development": True, "tradingPaused": False, "reason": None, "version": VERSION}


async def test_the_tightest_limit_is_the_one_that_is_told(api: Api) -> None:
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    loose = Quota("address", "points a minute from this address", 6_000, 5_990, 60_000, 50_000)
    tight = Quota("account", "points a minute for this account", 100, 7, 60_000, 1_500)
    context = Context(
        principal=ANONYMOUS,
        services=api.services,
        request_id="a-request",
        client_ip="127.0.0.1",
        rate=RateState(3, (loose, tight), at),
    )

    result = await graphql(schema._schema, "{ rateLimit { limit remaining cost resetAt } }", context_value=context)

    assert result.errors is None
    assert result.data == {
        "rateLimit": {
            "limit": 100,
            "remaining": 7,
            "cost": 3,
            "resetAt": (at + timedelta(milliseconds=1_500)).isoformat().replace("+00:00", "Z"),
        }
    }


async def test_without_limits_there_is_nothing_to_tell(api: Api) -> None:
    assert await api.data("{ rateLimit { limit } }") == {"rateLimit": None}
