"""What admins may say of an oracle: the form of each field, its range, and its units. No database in here.

Prices in 10^-12, percentages in 10^-9 percent, confidence in 10^-9. Every refusal names the field by its path.
"""

import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from fractions import Fraction
from ipaddress import IPv4Address
from typing import Final, TypeAlias
from urllib.parse import SplitResult, urlsplit

from app.errors import Refused, invalid, quoted
from app.money import PRICE_DECIMALS, PRICE_MAX, PRICE_MIN, RATE_DECIMALS, RATE_UNIT, is_decimal_text, parse, to_text
from app.oracle.addresses import why_not_public
from app.oracle.configuration import (
    Configuration,
    FeedConfiguration,
    FeedsConfiguration,
    SearchConfiguration,
)
from app.oracle.domains import registrable_domain
from app.oracle.json_numbers import PATH_LENGTH_MAX, BadPath, compile_path
from app.oracle.kinds import PERCENT_UNIT
from app.oracle.series import LAYOUTS, Mapping, OutOfRange, Series, UnknownSeries, load_series
from app.text import checked_text, showable

QUERIES_MAX: Final = 10
QUERY_LENGTH_MAX: Final = 200
QUESTION_LENGTH_MAX: Final = 1_000
UNIT_LENGTH_MAX: Final = 60
DOMAINS_MAX: Final = 50
SOURCES_MAX: Final = 10
FEEDS_MAX: Final = 10
URL_LENGTH_MAX: Final = 2_000
TWAP_MINUTES_MAX: Final = 1_440
CADENCE_SECONDS_MAX: Final = 86_400
CADENCE_SECONDS_MIN: Final = {"search": 15, "feeds": 2}
_PERCENT_DECIMALS: Final = 9
_DELTA_PERCENT_MAX: Final = 100 * PERCENT_UNIT

_Path: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchForm:
    """A search as asked for. Numbers are decimal text, in the units that people use."""

    queries: Sequence[str]
    question: str
    unit: str
    allowed_domains: Sequence[str] | None = None
    min_sources: int = 2
    max_delta_percent: str = "10"
    min_confidence: str = "0.6"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedForm:
    """A feed as asked for: a URL with its JSONPath, or a bundled series with its column."""

    url: str | None = None
    json_path: str | None = None
    series: str | None = None
    column: str | None = None
    scale: str = "1"
    offset: str = "0"
    twap_minutes: int | None = None
    max_delta_percent: str = "10"


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleForm:
    """An oracle as asked for: a search, or feeds."""

    search: SearchForm | None = None
    feeds: Sequence[FeedForm] | None = None
    min_feeds: int = 1
    cadence_seconds: int | None = None


def parsed_configuration(form: OracleForm, *, allow_private: bool) -> Configuration:
    """The configuration in a form. Raises `Refused` (INVALID_INPUT) that quotes the value and names the field.

    Without `allow_private` a feed may not name a private address. Host names are resolved where they are fetched from.
    """
    if (form.search is None) == (form.feeds is None):
        both = "neither" if form.search is None else "both"
        raise invalid(f"Give exactly one of search and feeds; got {both}.", "input")
    _checked_cadence(form)
    if form.search is not None:
        if form.min_feeds != 1:
            raise invalid(
                f"minFeeds goes with feeds; got {form.min_feeds} with search: leave it out.", "input", "minFeeds"
            )
        return _search(form.search)
    return _feeds(form.feeds or (), min_feeds=form.min_feeds, allow_private=allow_private)


def parsed_fundamental(text: str) -> int:
    """The price (10^-12) that F is set to, 0.000001 to 10^9; raises `Refused` (INVALID_INPUT)."""
    return parse(text, decimals=PRICE_DECIMALS, field=("input", "fundamental"), minimum=PRICE_MIN, maximum=PRICE_MAX)


def _checked_cadence(form: OracleForm) -> None:
    seconds, kind = form.cadence_seconds, "feeds" if form.search is None else "search"
    minimum = CADENCE_SECONDS_MIN[kind]
    if seconds is not None and not minimum <= seconds <= CADENCE_SECONDS_MAX:
        raise invalid(
            f"cadenceSeconds must be between {minimum} and {CADENCE_SECONDS_MAX} for {kind}; got {seconds}. "
            "Leave it out for the usual one.",
            "input", "cadenceSeconds",
        )  # fmt: skip


def _count(count: int, path: _Path, *, minimum: int = 1, maximum: int) -> int:
    if not minimum <= count <= maximum:
        raise invalid(f"{path[-1]} must be between {minimum} and {maximum}; got {count}.", *path)
    return count


def _max_delta_percent(text: str, path: _Path) -> int:
    return parse(
        text,
        decimals=_PERCENT_DECIMALS,
        field=(*path, "maxDeltaPercent"),
        minimum=1,
        maximum=_DELTA_PERCENT_MAX,
    )


# ---------------------------------------------------------------------------------------------------- search
def _search(form: SearchForm) -> SearchConfiguration:
    path = ("input", "search")
    domains = None if form.allowed_domains is None else _domains(form.allowed_domains)
    min_sources = _count(form.min_sources, (*path, "minSources"), maximum=SOURCES_MAX)
    if domains is not None and min_sources > len(domains):
        raise invalid(
            f"minSources is {min_sources} and allowedDomains names {len(domains)}: that many can never agree. "
            "Allow more domains, or ask for fewer sources.",
            *path, "minSources",
        )  # fmt: skip
    return SearchConfiguration(
        queries=_queries(form.queries),
        question=checked_text(form.question, field=(*path, "question"), maximum=QUESTION_LENGTH_MAX, multiline=True),
        unit=checked_text(form.unit, field=(*path, "unit"), maximum=UNIT_LENGTH_MAX),
        allowed_domains=domains,
        min_sources=min_sources,
        max_delta_percent=_max_delta_percent(form.max_delta_percent, path),
        min_confidence=parse(
            form.min_confidence, decimals=RATE_DECIMALS, field=(*path, "minConfidence"), maximum=RATE_UNIT
        ),
    )


def _queries(given: Sequence[str]) -> tuple[str, ...]:
    path = ("input", "search", "queries")
    if not 1 <= len(given) <= QUERIES_MAX:
        raise invalid(f"queries holds 1 to {QUERIES_MAX} texts; got {len(given)}.", *path)
    queries: list[str] = []
    for number, each in enumerate(given):
        query = _query(each, number, path)
        if query in queries:
            raise invalid(
                f"queries {queries.index(query)} and {number} are the same, {quoted(query)}: leave one out.",
                *path, str(number),
            )  # fmt: skip
        queries.append(query)
    return tuple(queries)


def _query(text: str, number: int, path: _Path) -> str:
    try:
        return checked_text(text, field=(f"query {number}",), maximum=QUERY_LENGTH_MAX)
    except Refused as refused:
        raise Refused(replace(refused.refusal, field=(*path, str(number)))) from None


def _domains(given: Sequence[str]) -> tuple[str, ...]:
    path = ("input", "search", "allowedDomains")
    if not 1 <= len(given) <= DOMAINS_MAX:
        raise invalid(
            f"allowedDomains holds 1 to {DOMAINS_MAX} domains; got {len(given)}. Leave it out to allow any.", *path
        )
    domains: dict[str, None] = {}
    for number, each in enumerate(given):
        domains[_domain(each, (*path, str(number)))] = None
    return tuple(domains)


def _domain(text: str, path: _Path) -> str:
    wanted = text.strip().lower()
    domain = registrable_domain(wanted) if len(wanted) <= URL_LENGTH_MAX else None
    if domain is None:
        raise invalid(
            f'{quoted(showable(text[:200]))} is no registrable domain: write one as "example.com", '
            "without a scheme or a path.",
            *path,
        )
    if domain != wanted:
        raise invalid(f"{quoted(showable(text[:200]))} is not a registrable domain: write {quoted(domain)}.", *path)
    return domain


# ---------------------------------------------------------------------------------------------------- feeds
def _feeds(forms: Sequence[FeedForm], *, min_feeds: int, allow_private: bool) -> FeedsConfiguration:
    path = ("input", "feeds")
    if not 1 <= len(forms) <= FEEDS_MAX:
        raise invalid(f"feeds holds 1 to {FEEDS_MAX} feeds; got {len(forms)}.", *path)
    feeds: list[FeedConfiguration] = []
    for number, form in enumerate(forms):
        feed = _feed(form, (*path, str(number)), allow_private=allow_private)
        # Samples are kept under the source's name, and one source twice is no second opinion.
        for other, known in enumerate(feeds):
            if known.source == feed.source:
                raise invalid(
                    f"feeds {other} and {number} are one source, {quoted(feed.source, 80)}: give each feed a source "
                    "of its own (host, path and jsonPath, or series and column).",
                    *path, str(number),
                )  # fmt: skip
        feeds.append(feed)
    return FeedsConfiguration(tuple(feeds), _count(min_feeds, ("input", "minFeeds"), maximum=len(feeds)))


def _feed(form: FeedForm, path: _Path, *, allow_private: bool) -> FeedConfiguration:
    by_url = form.url is not None or form.json_path is not None
    by_series = form.series is not None or form.column is not None
    if by_url == by_series:
        got = "both" if by_url else "neither"
        raise invalid(f"A feed is either url with jsonPath or series with column; got {got}.", *path)
    twap_minutes = form.twap_minutes
    if twap_minutes is not None:
        _count(twap_minutes, (*path, "twapMinutes"), maximum=TWAP_MINUTES_MAX)
    feed = FeedConfiguration(
        url=_url(_needed(form.url, path, "url", "jsonPath"), (*path, "url"), allow_private=allow_private)
        if by_url
        else None,
        json_path=_json_path(_needed(form.json_path, path, "jsonPath", "url"), path) if by_url else None,
        series=_needed(form.series, path, "series", "column") if by_series else None,
        column=_needed(form.column, path, "column", "series") if by_series else None,
        scale=_scale(form.scale, path),
        offset=_decimal(form.offset, (*path, "offset")),
        twap_minutes=twap_minutes,
        max_delta_percent=_max_delta_percent(form.max_delta_percent, path),
    )
    if by_series:
        _check_series(feed, path)
    return feed


def _needed(text: str | None, path: _Path, name: str, with_: str) -> str:
    if text is None:
        raise invalid(f"{name} is missing: it goes with {with_}.", *path, name)
    return text


def _decimal(text: str, path: _Path) -> str:
    if not is_decimal_text(text):
        raise invalid(
            f'{path[-1]} must be a plain decimal such as "12.5" (ASCII digits, no exponent); got {quoted(text)}.',
            *path,
        )
    return text


def _scale(text: str, path: _Path) -> str:
    if Fraction(_decimal(text, (*path, "scale"))) == 0:
        raise invalid(
            f"scale must not be 0, for then every value is the same price; got {quoted(text)}.", *path, "scale"
        )
    return text


def _url(text: str, path: _Path, *, allow_private: bool) -> str:
    url = checked_text(text, field=path, maximum=URL_LENGTH_MAX)
    if not url.isascii() or " " in url:
        raise invalid(
            f"url must be ASCII without blanks: write other characters percent-encoded; got {quoted(url, 80)}.", *path
        )
    parts = _split(url, path)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host:
        raise invalid(f'url must be like "https://example.com/data.json"; got {quoted(url, 80)}.', *path)
    if parts.username is not None or parts.password is not None:
        raise invalid("url must not carry a user or a password: reports show it to everybody.", *path)
    kind = None if allow_private else _private(host)
    if kind is not None:
        raise invalid(
            f"url names {quoted(host)}, an address that is {kind}: feeds come from public addresses only.", *path
        )
    if not allow_private and parts.port not in (None, 80, 443):
        raise invalid(f"url names the port {parts.port}: feeds come from the ports 80 and 443 only.", *path)
    return url


def _split(url: str, path: _Path) -> SplitResult:
    try:
        parts = urlsplit(url)
        if parts.port == 0:
            raise ValueError("no server has the port 0")
    except ValueError as error:
        raise invalid(f"url is no URL ({error}); got {quoted(url, 80)}.", *path) from None
    return parts


def _private(host: str) -> str | None:
    """What kind of address a host names literally, where it may not be fetched from; None for any other name."""
    if host == "localhost" or host.endswith(".localhost"):
        return "loopback"
    if ":" in host:
        return why_not_public(host)
    try:
        # As connecting reads it: 127.1, 0x7f000001 and 2130706433 are addresses too.
        return why_not_public(str(IPv4Address(socket.inet_aton(host))))
    except OSError:
        return None


def _json_path(text: str, path: _Path) -> str:
    path = (*path, "jsonPath")
    json_path = checked_text(text, field=path, maximum=PATH_LENGTH_MAX)
    try:
        compile_path(json_path)
    except BadPath as error:
        raise invalid(f"jsonPath: {showable(str(error))}.", *path) from None
    return json_path


def _check_series(feed: FeedConfiguration, path: _Path) -> None:
    """Refuse a series that is not bundled, and a mapping that takes any of its points out of range."""
    name, column = feed.series or "", feed.column or ""
    try:
        series = load_series(name, column)
    except UnknownSeries as error:
        message = showable(str(error)[:300])
        raise invalid(f"{message}.", *path, "column" if name in LAYOUTS else "series") from None
    mapping = Mapping.parse(scale=feed.scale, offset=feed.offset)
    for index, value in enumerate(series.points()):
        try:
            mapping.price(value)
        except OutOfRange:
            raise _unmapped(feed, series, index, path) from None


def _unmapped(feed: FeedConfiguration, series: Series, index: int, path: _Path) -> Refused:
    value, day = series.values[index], series.began + timedelta(milliseconds=series.times_ms[index])
    return invalid(
        f"{series.name} {series.column} is {to_text(value, series.decimals)} on {day:%Y-%m-%d}, which scale "
        f"{feed.scale} and offset {feed.offset} map out of 0.000001 to 1000000000: choose others.",
        *path, "scale",
    )  # fmt: skip
