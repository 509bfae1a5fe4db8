"""What an oracle is configured to do, and how that is stored. Pure: what an admin may ask for is checked elsewhere."""

from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Final, TypeAlias
from urllib.parse import urlsplit

import orjson

SEARCH_CADENCE_SECONDS: Final = (300, 900)
"""Of the most and of the least traded assets, where no cadence was asked for."""
FEED_CADENCE_SECONDS: Final = 60
"""Where no cadence was asked for."""
SERIES_CADENCE_SECONDS: Final = 3
"""Where every feed is a bundled series and no cadence was asked for."""


@dataclass(frozen=True, slots=True)
class SearchConfiguration:
    """Web search read by a language model. `question` asks for one number in `unit`, which is the price.

    `max_delta_percent` in 10^-9 percent of F, `min_confidence` in 10^-9. `allowed_domains` (registrable, lower case):
    where given, pages of these count alone.
    """

    queries: tuple[str, ...]
    question: str
    unit: str
    allowed_domains: tuple[str, ...] | None
    min_sources: int
    max_delta_percent: int
    min_confidence: int


@dataclass(frozen=True, slots=True)
class FeedConfiguration:
    """A numeric source: a JSON document at `url` with the number at `json_path`, or `column` of the bundled `series`.

    price = value * scale + offset, both decimal texts. `twap_minutes`: the average over so long, weighted by time,
    instead of the last value. `max_delta_percent` in 10^-9 percent of F.
    """

    url: str | None
    json_path: str | None
    series: str | None
    column: str | None
    scale: str
    offset: str
    twap_minutes: int | None
    max_delta_percent: int

    @property
    def source(self) -> str:
        """Its name in evidence: "series:NAME/COLUMN", or the URL's host and path with the JSONPath.

        A query, in which keys are handed over, stands there as the beginning of its SHA-256.
        """
        if self.series is not None:
            return f"series:{self.series}/{self.column}"
        parts = urlsplit(self.url or "")
        query = f"?{sha256(parts.query.encode()).hexdigest()[:8]}" if parts.query else ""
        return f"{parts.netloc.rpartition('@')[2]}{parts.path}{query}#{self.json_path}"

    @property
    def shown_url(self) -> str:
        """Where it is, for everybody to see: the URL without its query, or the source's name."""
        return self.source if self.url is None else urlsplit(self.url)._replace(query="", fragment="").geturl()


@dataclass(frozen=True, slots=True)
class FeedsConfiguration:
    """One feed, or several and their median, for which at least `min_feeds` must answer."""

    feeds: tuple[FeedConfiguration, ...]
    min_feeds: int


Configuration: TypeAlias = SearchConfiguration | FeedsConfiguration


def encode_configuration(configuration: Configuration) -> str:
    """As it is stored and shown in the audit log: JSON with its keys in order."""
    kind = "search" if isinstance(configuration, SearchConfiguration) else "feeds"
    return orjson.dumps({"kind": kind, **asdict(configuration)}, option=orjson.OPT_SORT_KEYS).decode()


def decode_configuration(text: str) -> Configuration:
    """The configuration in a stored text. Raises ValueError when it is none."""
    try:
        values = orjson.loads(text)
        kind = values.pop("kind")
        if kind == "search":
            domains = values.pop("allowed_domains")
            return SearchConfiguration(
                queries=tuple(values.pop("queries")),
                allowed_domains=None if domains is None else tuple(domains),
                **values,
            )
        if kind == "feeds":
            return FeedsConfiguration(tuple(FeedConfiguration(**feed) for feed in values["feeds"]), values["min_feeds"])
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"no configuration of an oracle: {text[:80]!r}") from error
    raise ValueError(f"no configuration of an oracle: its kind is {kind!r}")


def base_cadence(configuration: Configuration) -> int:
    """The shortest cadence (seconds) that is chosen where no admin asked for one."""
    if isinstance(configuration, SearchConfiguration):
        return SEARCH_CADENCE_SECONDS[0]
    only_series = all(feed.series is not None for feed in configuration.feeds)
    return SERIES_CADENCE_SECONDS if only_series else FEED_CADENCE_SECONDS
