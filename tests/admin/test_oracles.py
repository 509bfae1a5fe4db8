"""What admins may do with oracles: what is stored and logged, who is told, and what is refused with which words."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from app import clock
from app.accounts.principals import AdminPrincipal
from app.admin.asset_input import AssetChanges
from app.admin.assets import update_asset
from app.admin.oracle_input import FeedForm, OracleForm, parsed_configuration
from app.admin.oracles import configure_oracle, override_oracle, resolve_oracle_quarantine, run_oracle
from app.db import Database
from app.errors import ErrorCode, Refused, Unauthenticated, isoformat
from app.idempotency import KeyedOutcome
from app.oracle.configuration import FeedConfiguration, FeedsConfiguration, SearchConfiguration, decode_configuration
from app.oracle.kinds import PERCENT_UNIT, OracleOutcome
from tests.accounts.people import fetch, unique
from tests.admin.market import logged
from tests.factories import new_admin, new_asset
from tests.factories.reports import configure, new_report, override, search_form, series_form, url_form
from tests.factories.spy_bus import SpyBus
from tests.oracle.making import accepted, new_oracle, plain_draft, recorded
from tests.oracle.schedules import set_oracle

NOBODY = AdminPrincipal("admin", 10**12)


def search(**values: object) -> OracleForm:
    return OracleForm(search=search_form(**values))


def feeds(*forms: FeedForm, **values: Any) -> OracleForm:
    return OracleForm(feeds=forms, **values)


async def oracle_row(database: Database, asset_id: int) -> Mapping[str, Any]:
    [row] = await fetch(database, "SELECT * FROM oracles WHERE asset_id = $1", asset_id)
    return dict(row)


async def run(database: Database, asset_id: int, admin: AdminPrincipal | None = None, bus: Any = None) -> datetime:
    principal = admin or await new_admin(database)
    async with database.transaction() as unit:
        return await run_oracle(unit=unit, principal=principal, asset_id=asset_id, bus=bus)


async def resolve(database: Database, report_id: int, *, accept: bool = True, reason: str = "it is right") -> int:
    principal = await new_admin(database)
    async with database.transaction() as unit:
        return await resolve_oracle_quarantine(
            unit=unit, principal=principal, report_id=report_id, accept=accept, reason=reason
        )


# ------------------------------------------------------------------------------------------------ what may be said
def test_a_good_search_is_taken_as_it_is_meant() -> None:
    form = search(
        queries=[" rain  in Bergen ", "nedbør"], allowed_domains=["Yr.no", "met.no", "yr.no"], min_sources=2,
        max_delta_percent="2.5", min_confidence="1",
    )  # fmt: skip
    assert parsed_configuration(form, allow_private=False) == SearchConfiguration(
        queries=("rain  in Bergen", "nedbør"),
        question="How much did it rain?",
        unit="mm",
        allowed_domains=("yr.no", "met.no"),
        min_sources=2,
        max_delta_percent=2_500_000_000,
        min_confidence=10**9,
    )


def test_good_feeds_are_taken_as_they_are_meant() -> None:
    by_url = url_form(scale="-0.5", offset="3", twap_minutes=5, max_delta_percent="0.000000001")
    configuration = parsed_configuration(feeds(by_url, series_form(), min_feeds=2), allow_private=False)
    assert configuration == FeedsConfiguration(
        (
            FeedConfiguration("https://rain.example/now.json", "$.mm", None, None, "-0.5", "3", 5, 1),
            FeedConfiguration(None, None, "seattle-weather", "temp_max", "0.5", "10", None, 10 * PERCENT_UNIT),
        ),
        2,
    )


BAD_FORMS: Mapping[str, tuple[OracleForm, str, str]] = {
    "neither": (OracleForm(), "input", "Give exactly one of search and feeds; got neither."),
    "both": (
        OracleForm(search=search_form(), feeds=[url_form()]), "input",
        "Give exactly one of search and feeds; got both.",
    ),
    "fast search": (
        OracleForm(search=search_form(), cadence_seconds=14), "input.cadenceSeconds",
        "cadenceSeconds must be between 15 and 86400 for search; got 14. Leave it out for the usual one.",
    ),
    "fast feeds": (
        feeds(url_form(), cadence_seconds=1), "input.cadenceSeconds",
        "cadenceSeconds must be between 2 and 86400 for feeds; got 1. Leave it out for the usual one.",
    ),
    "slow feeds": (
        feeds(url_form(), cadence_seconds=86_401), "input.cadenceSeconds",
        "cadenceSeconds must be between 2 and 86400 for feeds; got 86401. Leave it out for the usual one.",
    ),
    "min feeds of a search": (
        OracleForm(search=search_form(), min_feeds=2), "input.minFeeds",
        "minFeeds goes with feeds; got 2 with search: leave it out.",
    ),
    "no queries": (search(queries=[]), "input.search.queries", "queries holds 1 to 10 texts; got 0."),
    "too many queries": (
        search(queries=[f"q{number}" for number in range(11)]), "input.search.queries",
        "queries holds 1 to 10 texts; got 11.",
    ),
    "empty query": (
        search(queries=["a", " "]), "input.search.queries.1", "query 1 must have 1 to 200 characters; got 0: ''.",
    ),
    "same queries": (
        search(queries=["a", "b", "a "]), "input.search.queries.2",
        "queries 0 and 2 are the same, 'a': leave one out.",
    ),
    "long question": (
        search(question="x" * 1_001), "input.search.question",
        f"question must have 1 to 1000 characters; got 1001: '{'x' * 40}...' (200 characters).",
    ),
    "no unit": (search(unit=""), "input.search.unit", "unit must have 1 to 60 characters; got 0: ''."),
    "a page for a domain": (
        search(allowed_domains=["met.no", "https://www.yr.no/bergen"]), "input.search.allowedDomains.1",
        "'https://www.yr.no/bergen' is not a registrable domain: write 'yr.no'.",
    ),
    "a host for a domain": (
        search(allowed_domains=["news.bbc.co.uk"]), "input.search.allowedDomains.0",
        "'news.bbc.co.uk' is not a registrable domain: write 'bbc.co.uk'.",
    ),
    "a suffix for a domain": (
        search(allowed_domains=["co.uk"]), "input.search.allowedDomains.0",
        "'co.uk' is no registrable domain: write one as \"example.com\", without a scheme or a path.",
    ),
    "an address for a domain": (
        search(allowed_domains=["8.8.8.8"]), "input.search.allowedDomains.0",
        "'8.8.8.8' is no registrable domain: write one as \"example.com\", without a scheme or a path.",
    ),
    "no domains": (
        search(allowed_domains=[]), "input.search.allowedDomains",
        "allowedDomains holds 1 to 50 domains; got 0. Leave it out to allow any.",
    ),
    "more sources than domains": (
        search(allowed_domains=["yr.no", "YR.no"]), "input.search.minSources",
        "minSources is 2 and allowedDomains names 1: that many can never agree. Allow more domains, or ask for fewer "
        "sources.",
    ),
    "too many sources": (
        search(min_sources=11), "input.search.minSources", "minSources must be between 1 and 10; got 11.",
    ),
    "no delta": (
        search(max_delta_percent="0"), "input.search.maxDeltaPercent",
        "maxDeltaPercent must be between 0.000000001 and 100; got '0'.",
    ),
    "fine delta": (
        search(max_delta_percent="0.0000000001"), "input.search.maxDeltaPercent",
        "maxDeltaPercent has at most 9 decimals; got '0.0000000001'.",
    ),
    "high confidence": (
        search(min_confidence="1.1"), "input.search.minConfidence", "minConfidence must be between 0 and 1; got '1.1'.",
    ),
    "no feeds": (feeds(), "input.feeds", "feeds holds 1 to 10 feeds; got 0."),
    "many feeds": (feeds(*[url_form()] * 11), "input.feeds", "feeds holds 1 to 10 feeds; got 11."),
    "feed of nothing": (
        feeds(url_form(), FeedForm()), "input.feeds.1",
        "A feed is either url with jsonPath or series with column; got neither.",
    ),
    "feed of both": (
        feeds(url_form(series="seattle-weather")), "input.feeds.0",
        "A feed is either url with jsonPath or series with column; got both.",
    ),
    "no path": (
        feeds(url_form(json_path=None)), "input.feeds.0.jsonPath", "jsonPath is missing: it goes with url.",
    ),
    "no column": (feeds(series_form(column=None)), "input.feeds.0.column", "column is missing: it goes with series."),
    "two alike": (
        feeds(url_form(), series_form(), url_form(scale="2")), "input.feeds.2",
        "feeds 0 and 2 are one source, 'rain.example/now.json#$.mm': give each feed a source of its own (host, path "
        "and jsonPath, or series and column).",
    ),
    "too few feeds": (
        feeds(url_form(), min_feeds=2), "input.minFeeds", "minFeeds must be between 1 and 1; got 2.",
    ),
    "no scale": (
        feeds(url_form(scale="-0.0")), "input.feeds.0.scale",
        "scale must not be 0, for then every value is the same price; got '-0.0'.",
    ),
    "odd offset": (
        feeds(url_form(offset="1e3")), "input.feeds.0.offset",
        "offset must be a plain decimal such as \"12.5\" (ASCII digits, no exponent); got '1e3'.",
    ),
    "long average": (
        feeds(url_form(twap_minutes=1_441)), "input.feeds.0.twapMinutes",
        "twapMinutes must be between 1 and 1440; got 1441.",
    ),
    "wide feed": (
        feeds(url_form(max_delta_percent="100.1")), "input.feeds.0.maxDeltaPercent",
        "maxDeltaPercent must be between 0.000000001 and 100; got '100.1'.",
    ),
    "ftp": (
        feeds(url_form(url="ftp://rain.example/now")), "input.feeds.0.url",
        "url must be like \"https://example.com/data.json\"; got 'ftp://rain.example/now'.",
    ),
    "no host": (
        feeds(url_form(url="https:///now")), "input.feeds.0.url",
        "url must be like \"https://example.com/data.json\"; got 'https:///now'.",
    ),
    "a password": (
        feeds(url_form(url="https://me:secret@rain.example/")), "input.feeds.0.url",
        "url must not carry a user or a password: reports show it to everybody.",
    ),
    "a blank": (
        feeds(url_form(url="https://rain.example/a b")), "input.feeds.0.url",
        "url must be ASCII without blanks: write other characters percent-encoded; got 'https://rain.example/a b'.",
    ),
    "a port": (
        feeds(url_form(url="https://rain.example:99999/")), "input.feeds.0.url",
        "url is no URL (Port out of range 0-65535); got 'https://rain.example:99999/'.",
    ),
    "long url": (
        feeds(url_form(url="https://rain.example/" + "x" * 2_000)), "input.feeds.0.url",
        "url must have 1 to 2000 characters; got 2021: 'https://rain.example/xxxxxxxxxxxxxxxxxxx...' (200 characters).",
    ),
    "an unknown series": (
        feeds(series_form(series="rain")), "input.feeds.0.series",
        "there is no bundled series 'rain': choose one of seattle-weather, us-employment, iowa-electricity.",
    ),
    "an unknown column": (
        feeds(series_form(column="rain")), "input.feeds.0.column",
        "seattle-weather has no column 'rain': choose one of precipitation, temp_max, temp_min, wind.",
    ),
    "a series out of range": (
        feeds(series_form(offset="0")), "input.feeds.0.scale",
        "seattle-weather temp_max is 0 on 2012-01-18, which scale 0.5 and offset 0 map out of 0.000001 to "
        "1000000000: choose others.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FORMS)
def test_what_can_never_be_is_refused_by_its_path_and_in_words(name: str) -> None:
    form, path, message = BAD_FORMS[name]
    with pytest.raises(Refused) as refused:
        parsed_configuration(form, allow_private=False)
    refusal = refused.value.refusal
    assert (refusal.code, refusal.message, ".".join(refusal.field or ())) == (ErrorCode.INVALID_INPUT, message, path)


PRIVATE = {
    "http://127.0.0.1:8601/x": "loopback", "http://127.1/": "loopback", "http://2130706433/": "loopback",
    "http://0x7f000001/": "loopback", "https://localhost/": "loopback", "https://api.localhost/": "loopback",
    "http://[::1]/": "loopback", "http://10.1.2.3/": "private", "http://192.168.0.1/": "private",
    "http://169.254.169.254/latest/meta-data/": "link-local", "http://[fe80::1]/": "link-local",
    "http://[::ffff:127.0.0.1]/": "IPv4 in IPv6's clothes",
}  # fmt: skip


@pytest.mark.parametrize("url", PRIVATE)
def test_a_private_address_is_refused_where_it_could_not_be_read_and_taken_where_it_could(url: str) -> None:
    with pytest.raises(Refused) as refused:
        parsed_configuration(feeds(url_form(url=url)), allow_private=False)
    assert refused.value.refusal.field == ("input", "feeds", "0", "url")
    assert f"an address that is {PRIVATE[url]}: feeds come from public addresses only." in refused.value.refusal.message
    taken = parsed_configuration(feeds(url_form(url=url)), allow_private=True)
    assert isinstance(taken, FeedsConfiguration)
    assert taken.feeds[0].url == url


def test_a_public_address_is_taken() -> None:
    taken = parsed_configuration(feeds(url_form(url="http://93.184.215.14:443/x?y=1#z")), allow_private=False)
    assert isinstance(taken, FeedsConfiguration)
    assert taken.feeds[0].url == "http://93.184.215.14:443/x?y=1#z"


def test_a_port_that_nothing_is_fetched_from_is_refused_where_it_could_not_be_read() -> None:
    form = feeds(url_form(url="https://rain.example:8443/now.json"))
    with pytest.raises(Refused) as refused:
        parsed_configuration(form, allow_private=False)
    assert refused.value.refusal.field == ("input", "feeds", "0", "url")
    assert refused.value.refusal.message == "url names the port 8443: feeds come from the ports 80 and 443 only."
    assert isinstance(parsed_configuration(form, allow_private=True), FeedsConfiguration)


@pytest.mark.parametrize("path", ["", "$.", "$.a[", "$..a..b", "$.a | $.b", "$[?match(@.a, 'x')]", "x" * 501])
def test_what_is_no_json_path_is_refused(path: str) -> None:
    with pytest.raises(Refused) as refused:
        parsed_configuration(feeds(url_form(json_path=path)), allow_private=False)
    assert refused.value.refusal.field == ("input", "feeds", "0", "jsonPath")
    assert refused.value.refusal.message.startswith("jsonPath")


# ------------------------------------------------------------------------------------------------ configure
async def test_a_configuration_is_stored_logged_and_told_and_a_reading_is_due_at_once(database: Database) -> None:
    asset_id, admin, bus = await new_asset(database), await new_admin(database), SpyBus()
    await configure(database, asset_id, search(min_sources=3), admin=admin, reason="to begin", bus=bus)
    row = await oracle_row(database, asset_id)
    assert isinstance(decode_configuration(row["configuration"]), SearchConfiguration)
    assert (row["method"], row["version"], row["run_id"], row["cadence_seconds"], row["base_cadence_seconds"]) == (
        "SEARCH_LLM", 1, 1, 300, None,
    )  # fmt: skip
    assert row["due_at"] <= datetime.now(UTC)
    shown = {
        "oracle": {
            "kind": "search", "queries": ["rain in Bergen"], "question": "How much did it rain?", "unit": "mm",
            "allowed_domains": None, "min_sources": 3, "max_delta_percent": 10 * PERCENT_UNIT,
            "min_confidence": 600_000_000,
        },
        "cadenceSeconds": None,
    }  # fmt: skip
    assert await logged(database, f"Asset:{asset_id}") == [
        *(await logged(database, f"Asset:{asset_id}"))[:1],
        ("oracleConfigure", "admin", "to begin", None, shown),
    ]
    assert (bus.told, bus.reported) == ([([], [asset_id])], [[asset_id]])


async def test_another_configuration_takes_the_place_of_the_first(database: Database) -> None:
    asset_id = await new_asset(database)
    await configure(database, asset_id)
    quarantined = await new_report(database, asset_id, OracleOutcome.QUARANTINED)
    await override(database, asset_id, "3")
    async with database.transaction() as unit:
        await unit.connection.execute(
            "UPDATE oracles SET failures = 4, last_error = 'down', claimed_until = now() + interval '1 hour',"
            " requested_at = now() WHERE asset_id = $1",
            asset_id,
        )
    before = await oracle_row(database, asset_id)
    assert before["due_at"] is None
    await configure(database, asset_id, feeds(series_form(), url_form(), cadence_seconds=7))
    row = await oracle_row(database, asset_id)
    assert (row["method"], row["version"], row["run_id"]) == ("FEED", 2, before["run_id"] + 1)
    assert (row["cadence_seconds"], row["base_cadence_seconds"], row["failures"], row["last_error"]) == (7, 7, 0, None)
    gone = ("override_id", "held_until", "claimed_until", "requested_at")
    assert [row[name] for name in gone] == [None] * 4
    assert row["due_at"] <= datetime.now(UTC)
    [replay] = await fetch(database, "SELECT * FROM series_replays WHERE asset_id = $1", asset_id)
    assert (replay["series"], replay["column"], replay["position_ms"]) == ("seattle-weather", "temp_max", 0)
    [report] = await fetch(database, "SELECT outcome, resolution FROM oracle_logs WHERE id = $1", quarantined.id)
    assert tuple(report) == ("REJECTED", "EXPIRED")
    last = (await logged(database, f"Asset:{asset_id}"))[-1]
    assert (last[0], last[3]["oracle"]["kind"], last[4]["oracle"]["kind"]) == ("oracleConfigure", "search", "feeds")  # type: ignore[index]
    assert last[4]["cadenceSeconds"] == 7  # type: ignore[index]


async def test_a_replay_that_is_there_goes_on_and_series_have_a_cadence_of_their_own(database: Database) -> None:
    asset_id = await new_asset(database)
    await configure(database, asset_id, feeds(series_form()))
    async with database.transaction() as unit:
        await unit.connection.execute("UPDATE series_replays SET position_ms = 12345 WHERE asset_id = $1", asset_id)
    await configure(database, asset_id, feeds(series_form(scale="0.25"), series_form(column="temp_min", offset="20")))
    rows = await fetch(database, 'SELECT "column", position_ms FROM series_replays WHERE asset_id = $1', asset_id)
    assert sorted(map(tuple, rows)) == [("temp_max", 12345), ("temp_min", 0)]
    assert (await oracle_row(database, asset_id))["cadence_seconds"] == 3


async def test_what_is_refused_changes_nothing(database: Database) -> None:
    asset_id = await new_asset(database)
    await configure(database, asset_id)
    before = await oracle_row(database, asset_id), len(await logged(database, f"Asset:{asset_id}"))
    with pytest.raises(Refused) as nowhere:
        await configure(database, 987_654_321)
    assert (nowhere.value.refusal.code, nowhere.value.refusal.field) == (ErrorCode.NOT_FOUND, ("input", "assetId"))
    with pytest.raises(Refused) as no_reason:
        await configure(database, asset_id, reason=" ")
    assert no_reason.value.refusal.field == ("input", "reason")
    with pytest.raises(Unauthenticated):
        await configure(database, asset_id, admin=NOBODY)
    assert (await oracle_row(database, asset_id), len(await logged(database, f"Asset:{asset_id}"))) == before


# ------------------------------------------------------------------------------------------------ run
async def test_a_reading_is_queued_once_a_minute(database: Database) -> None:
    asset_id, bus = await new_asset(database), SpyBus()
    await configure(database, asset_id)
    queued_at = await run(database, asset_id, bus=bus)
    row = await oracle_row(database, asset_id)
    assert row["requested_at"] == row["due_at"] == queued_at
    assert (bus.told, bus.reported) == ([([], [asset_id])], [[asset_id]])
    last = (await logged(database, f"Asset:{asset_id}"))[-1]
    assert last == ("oracleRun", "admin", None, None, {"queuedAt": isoformat(queued_at)})

    with pytest.raises(Refused) as refused:
        await run(database, asset_id)
    refusal = refused.value.refusal
    assert (refusal.code, refusal.field) == (ErrorCode.CONFLICT, ("assetId",))
    start, _, end = refusal.message.partition(": try again in ")
    assert start.endswith(f"was asked for at {isoformat(queued_at)}, and one may be once a minute")
    assert 1 <= int(end.removesuffix(" s.")) <= 60
    async with database.transaction() as unit:
        await unit.connection.execute(
            "UPDATE oracles SET requested_at = requested_at - interval '61 s' WHERE asset_id = $1", asset_id
        )
    assert await run(database, asset_id) > queued_at


async def test_a_reading_is_refused_where_none_could_be_made(database: Database) -> None:
    asset_id, held = await new_asset(database), await new_asset(database)
    await configure(database, held)
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    await override(database, held, expires_at=until)
    without_end = await new_asset(database)
    await override(database, without_end)

    async def refusal(number: int) -> tuple[ErrorCode, str]:
        with pytest.raises(Refused) as refused:
            await run(database, number)
        return refused.value.refusal.code, refused.value.refusal.message.partition(" ")[2]

    names = {row["id"]: row["symbol"] for row in await fetch(database, "SELECT id, symbol FROM assets")}
    nothing = "has no oracle that could be run: configure one by oracleConfigure."
    assert await refusal(asset_id) == (ErrorCode.CONFLICT, nothing)
    assert await refusal(without_end) == (ErrorCode.CONFLICT, nothing)
    assert await refusal(held) == (
        ErrorCode.CONFLICT,
        f"override holds the F of {names[held]} until {isoformat(until)}: end it by another one that expires, or by "
        "oracleConfigure.",
    )
    assert (await refusal(987_654_321))[0] is ErrorCode.NOT_FOUND
    with pytest.raises(Unauthenticated):
        await run(database, held, NOBODY)


# ------------------------------------------------------------------------------------------------ override
async def overridden(
    database: Database, asset_id: int, key: str, fundamental: str = "2.5", *, expires_at: datetime | None = None,
    bus: SpyBus | None = None,
) -> KeyedOutcome:  # fmt: skip
    principal = await new_admin(database)
    async with database.transaction() as unit:
        return await override_oracle(
            unit=unit, principal=principal, asset_id=asset_id, fundamental=fundamental, reason="the feed is wrong",
            expires_at=expires_at, idempotency_key=key, bus=bus,
        )  # fmt: skip


async def test_an_override_happens_once_for_each_key(database: Database) -> None:
    asset_id, key, bus = await new_asset(database), unique("key"), SpyBus()
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    first = await overridden(database, asset_id, key, expires_at=until, bus=bus)
    assert first.id is not None
    assert bus.told[-1] == ([], [asset_id])
    told = len(bus.told)
    again = await overridden(database, asset_id, key, "2.50", expires_at=until, bus=bus)
    assert (again.id, again.repeated, len(bus.told)) == (first.id, True, told)
    with pytest.raises(Refused) as reused:
        await overridden(database, asset_id, key, "2.6", expires_at=until)
    assert reused.value.refusal.code is ErrorCode.IDEMPOTENCY_KEY_REUSED

    events = await fetch(database, "SELECT kind, value FROM oracle_events WHERE asset_id = $1", asset_id)
    assert [tuple(event) for event in events] == [("OVERRIDE", 2_500_000_000_000)]
    assert [entry for entry in await logged(database, f"Asset:{asset_id}") if entry[0] == "oracleOverride"] == [
        (
            "oracleOverride", "admin", "the feed is wrong", {"fundamental": "1"},
            {"fundamental": "2.5", "expiresAt": isoformat(until), "report": f"OracleReport:{first.id}"},
        )
    ]  # fmt: skip
    row = await oracle_row(database, asset_id)
    assert (row["override_id"], row["held_until"], row["method"]) == (first.id, until, "OVERRIDE")


@pytest.mark.parametrize("fundamental", ["0", "0.0000009", "1000000001", "-1", "NaN", "0.0000000000001"])
async def test_an_f_out_of_range_is_refused(database: Database, fundamental: str) -> None:
    with pytest.raises(Refused) as refused:
        await overridden(database, await new_asset(database), unique("key"), fundamental)
    refusal = refused.value.refusal
    assert (refusal.code, refusal.field) == (ErrorCode.INVALID_INPUT, ("input", "fundamental"))
    assert f"got '{fundamental}'" in refusal.message


@pytest.mark.parametrize("ahead", [timedelta(seconds=-5), timedelta(days=367)])
async def test_an_override_ends_in_the_future_and_within_a_year(database: Database, ahead: timedelta) -> None:
    asset_id, key = await new_asset(database), unique("key")
    outcome = await overridden(database, asset_id, key, expires_at=datetime.now(UTC) + ahead)
    assert outcome.refusal is not None
    assert (outcome.refusal.code, outcome.refusal.field) == (ErrorCode.INVALID_INPUT, ("input", "expiresAt"))
    assert await fetch(database, "SELECT 1 FROM oracle_events WHERE asset_id = $1", asset_id) == []
    assert await fetch(database, "SELECT 1 FROM oracles WHERE asset_id = $1", asset_id) == []
    assert [entry[0] for entry in await logged(database, f"Asset:{asset_id}")] == ["assetCreate"]


async def test_an_override_of_no_asset_is_not_found(database: Database) -> None:
    outcome = await overridden(database, 987_654_321, unique("key"))
    assert outcome.refusal is not None
    assert (outcome.refusal.code, outcome.refusal.field) == (ErrorCode.NOT_FOUND, ("input", "assetId"))


# ------------------------------------------------------------------------------------------------ quarantines
async def test_a_quarantine_is_resolved_once_and_logged(database: Database) -> None:
    asset_id = await new_asset(database)
    await configure(database, asset_id)
    accepted, rejected = [await new_report(database, asset_id, OracleOutcome.QUARANTINED) for _ in range(2)]
    assert await resolve(database, accepted.id) == accepted.id
    assert await resolve(database, rejected.id, accept=False, reason="nonsense") == rejected.id
    reports = await fetch(
        database, "SELECT outcome, resolution, resolved_by FROM oracle_logs WHERE asset_id = $1 ORDER BY id", asset_id
    )
    assert [tuple(report) for report in reports] == [
        ("ACCEPTED", "ACCEPTED", "admin"), ("REJECTED", "REJECTED", "admin"),
    ]  # fmt: skip
    asset = f"Asset:{asset_id}"
    assert await logged(database, f"OracleReport:{accepted.id}") == [
        (
            "oracleQuarantineResolve", "admin", "it is right", {"outcome": "QUARANTINED"},
            {"outcome": "ACCEPTED", "asset": asset, "suggestedPrice": "2"},
        )
    ]  # fmt: skip
    assert (await logged(database, f"OracleReport:{rejected.id}"))[0][2:] == (
        "nonsense", {"outcome": "QUARANTINED"}, {"outcome": "REJECTED", "asset": asset, "suggestedPrice": "2"},
    )  # fmt: skip
    with pytest.raises(Refused) as twice:
        await resolve(database, accepted.id)
    assert twice.value.refusal.code is ErrorCode.CONFLICT
    assert "not in quarantine but ACCEPTED" in twice.value.refusal.message
    assert len(await logged(database, f"OracleReport:{accepted.id}")) == 1


async def test_what_is_in_no_quarantine_cannot_be_resolved(database: Database) -> None:
    asset_id = await new_asset(database)
    await configure(database, asset_id)
    plain = await new_report(database, asset_id)
    expired = await new_report(database, asset_id, OracleOutcome.QUARANTINED)
    async with database.transaction() as unit:
        await unit.connection.execute(
            "UPDATE oracle_logs SET expires_at = now() - interval '1 s' WHERE id = $1", expired.id
        )

    async def refusal(report_id: int, reason: str = "why") -> tuple[ErrorCode, tuple[str, ...] | None]:
        with pytest.raises(Refused) as refused:
            await resolve(database, report_id, reason=reason)
        return refused.value.refusal.code, refused.value.refusal.field

    assert await refusal(plain.id) == (ErrorCode.CONFLICT, ("reportId",))
    assert await refusal(expired.id) == (ErrorCode.CONFLICT, ("reportId",))
    assert await refusal(987_654_321) == (ErrorCode.NOT_FOUND, ("reportId",))
    assert await refusal(expired.id, reason="") == (ErrorCode.INVALID_INPUT, ("reason",))
    with pytest.raises(Unauthenticated):
        async with database.transaction() as unit:
            await resolve_oracle_quarantine(
                unit=unit, principal=NOBODY, report_id=expired.id, accept=False, reason="why"
            )


async def test_admins_who_configure_at_once_are_served_one_after_the_other(database: Database) -> None:
    """The second waits for the first, and takes its place."""
    asset_id, admin = await new_asset(database), await new_admin(database)
    async with database.transaction() as first, database.transaction() as second:
        common = {"principal": admin, "asset_id": asset_id, "reason": "now", "allow_private": False}
        await configure_oracle(unit=first, form=search(), series_speed=Decimal(1), **common)  # type: ignore[arg-type]
        await second.connection.execute("SET LOCAL lock_timeout = '50ms'")
        with pytest.raises(Exception, match="lock timeout"):
            async with second.connection.transaction():
                await configure_oracle(unit=second, form=feeds(url_form()), series_speed=Decimal(1), **common)  # type: ignore[arg-type]
    assert (await oracle_row(database, asset_id))["method"] == "SEARCH_LLM"


async def test_another_b_overtakes_a_run_that_was_judged_by_the_old_one(database: Database) -> None:
    claim = await new_oracle(database)
    await set_oracle(database, claim.asset_id, claimed_until=clock.now() + timedelta(minutes=3))
    admin = await new_admin(database)

    async def change(changes: AssetChanges) -> int:
        async with database.transaction() as unit:
            await update_asset(unit=unit, principal=admin, asset_id=claim.asset_id, changes=changes, reason="calmer")
        run_id: int = (await oracle_row(database, claim.asset_id))["run_id"]
        return run_id

    assert await change(AssetChanges(description="Another text.")) == claim.run_id
    assert await change(AssetChanges(fundamental_weight="0.1")) == claim.run_id + 1
    assert await recorded(database, plain_draft(claim, accepted())) == []
    # Nothing is under way any more.
    assert await change(AssetChanges(fundamental_weight="0.2")) == claim.run_id + 1
