"""The demo market's assets: which series each follows and how, how its value maps to a price, and its curve.

Constants and the arithmetic behind them. `docs/demo-market.md` shows the figures; tests hold both to the series.

The base price is at most a quarter of the lowest price the series maps to: M never falls below it, so this is what
leaves M room to follow the series down. The slope k makes one percent cost about 1,000 of the quote currency at the
typical (median) price m: moving M from m to 1.01 m costs (1.01^2 - 1) * m^2 / (2k), so k = 0.01005 * m^2 / 1000.

An oracle's cap is such that clearly fewer than one reading in twenty is cut to it; a test replays all of the series.
"""

from dataclasses import dataclass
from typing import Final

from app.oracle.configuration import Configuration, FeedConfiguration, FeedsConfiguration, SearchConfiguration
from app.oracle.kinds import PERCENT_UNIT
from app.oracle.series import Mapping, Series, load_series

FEE_RATE: Final = "0.005"
SEARCH_CADENCE_SECONDS: Final = 15
"""Of the asset that follows by search, against the stand-in. Against real providers it takes the usual cadence."""


@dataclass(frozen=True, slots=True)
class Search:
    """What the oracle of an asset that follows by search asks for. The answer, in `unit`, is the price."""

    query: str
    question: str
    unit: str
    min_sources: int = 2
    min_confidence: int = 600_000_000


@dataclass(frozen=True, slots=True)
class DemoAsset:
    """One asset and the series it follows: as a feed, or with `search` as the web tells of it.

    Decimals as the API takes them. `max_delta_percent`: whole percent of F that a reading may be away from it.
    """

    symbol: str
    name: str
    category: str
    description: str
    quote_currency: str
    series: str
    column: str
    scale: str
    offset: str
    max_delta_percent: int
    base_price: str
    slope: str
    search: Search | None = None

    def load(self) -> Series:
        """The series it follows."""
        return load_series(self.series, self.column)

    @property
    def mapping(self) -> Mapping:
        """How a value maps to a price."""
        return Mapping.parse(scale=self.scale, offset=self.offset)

    @property
    def oracle(self) -> Configuration:
        """What its oracle is configured to do."""
        cap = self.max_delta_percent * PERCENT_UNIT
        if self.search is not None:
            return SearchConfiguration(
                queries=(self.search.query,),
                question=self.search.question,
                unit=self.search.unit,
                allowed_domains=None,
                min_sources=self.search.min_sources,
                max_delta_percent=cap,
                min_confidence=self.search.min_confidence,
            )
        feed = FeedConfiguration(
            url=None,
            json_path=None,
            series=self.series,
            column=self.column,
            scale=self.scale,
            offset=self.offset,
            twap_minutes=None,
            max_delta_percent=cap,
        )
        return FeedsConfiguration((feed,), 1)


_WEATHER: Final = (
    "Daily readings of NOAA, Seattle, 2012 to 2015, in their order and joined by straight lines; replayed at 10 seconds"
    " a day, from the last day back to the first, and so on."
)
_PAYROLLS: Final = (
    "Monthly figures of the Bureau of Labor Statistics (seasonally adjusted), 2006 to 2015, joined by straight lines;"
    " replayed at about 10 seconds a month, from the last month back to the first, and so on."
)
_ELECTRICITY: Final = (
    "Yearly figures of the Energy Information Administration, 2001 to 2017, joined by straight lines; replayed at"
    " 90 seconds a year, from the last year back to the first, and so on."
)

CATALOGUE: Final = (
    DemoAsset(
        symbol="SEATEMP",
        name="Seattle daily high",
        category="WEATHER",
        description="The day's highest temperature in Seattle. A point is one degree Celsius;"
        f" price = degrees + 100, so that 20 °C is 120 USDC. {_WEATHER}",
        quote_currency="USDC",
        series="seattle-weather",
        column="temp_max",
        scale="1",
        offset="100",
        max_delta_percent=5,
        base_price="24",
        slope="0.134",
    ),
    DemoAsset(
        symbol="SEAWIND",
        name="Seattle wind speed",
        category="WEATHER",
        description="The day's wind speed in Seattle. A point is one metre per second;"
        f" price = 2 * speed + 80, so that 5 m/s is 90 USDC. {_WEATHER}",
        quote_currency="USDC",
        series="seattle-weather",
        column="wind",
        scale="2",
        offset="80",
        max_delta_percent=6,
        base_price="20",
        slope="0.0743",
    ),
    DemoAsset(
        symbol="USCONSTR",
        name="US construction payrolls",
        category="MACRO",
        description="Employees on US construction payrolls. A point is a thousand employees;"
        f" price = thousands / 100, so that 6,000,000 employees are 60 USDC. {_PAYROLLS}",
        quote_currency="USDC",
        series="us-employment",
        column="construction",
        scale="0.01",
        offset="0",
        max_delta_percent=4,
        base_price="13",
        slope="0.0375",
    ),
    DemoAsset(
        symbol="USMANUF",
        name="US manufacturing payrolls",
        category="MACRO",
        description="Employees on US manufacturing payrolls. A point is a thousand employees;"
        f" price = thousands / 100 - 80, so that 12,000,000 employees are 40 USDC. {_PAYROLLS}",
        quote_currency="USDC",
        series="us-employment",
        column="manufacturing",
        scale="0.01",
        offset="-80",
        max_delta_percent=8,
        base_price="8",
        slope="0.0171",
    ),
    DemoAsset(
        symbol="USINFO",
        name="US information-sector payrolls",
        category="TECH",
        description="Employees on US information-sector payrolls (publishing, film, telecommunications, data)."
        " A point is a thousand employees; price = thousands / 10 - 220, so that 2,700,000 employees are 50 USDT."
        f" {_PAYROLLS}",
        quote_currency="USDT",
        series="us-employment",
        column="information",
        scale="0.1",
        offset="-220",
        max_delta_percent=6,
        base_price="10",
        slope="0.029",
    ),
    DemoAsset(
        symbol="IAWIND",
        name="Iowa wind power",
        category="ENERGY",
        description="Net generation from renewables in Iowa, by 2017 nearly all of it wind. A point is a thousand MWh a"
        f" year; price = points / 500 + 20, so that 10,000,000 MWh are 40 USDC. {_ELECTRICITY}",
        quote_currency="USDC",
        series="iowa-electricity",
        column="Renewables",
        scale="0.002",
        offset="20",
        max_delta_percent=4,
        base_price="5",
        slope="0.0138",
    ),
    DemoAsset(
        symbol="IAFOSSIL",
        name="Iowa fossil-fuel power",
        category="ENERGY",
        description="Net generation from fossil fuels, coal above all, in Iowa. A point is a thousand MWh a year;"
        f" price = points / 500, so that 35,000,000 MWh are 70 USDC. {_ELECTRICITY}",
        quote_currency="USDC",
        series="iowa-electricity",
        column="Fossil Fuels",
        scale="0.002",
        offset="0",
        max_delta_percent=3,
        base_price="14",
        slope="0.0528",
    ),
    DemoAsset(
        symbol="IANUCLR",
        name="Iowa nuclear power",
        category="ENERGY",
        description="Net generation from nuclear energy in Iowa. A point is a thousand MWh a year;"
        f" price = points / 50, so that 5,000,000 MWh are 100 USDT. {_ELECTRICITY}",
        quote_currency="USDT",
        series="iowa-electricity",
        column="Nuclear Energy",
        scale="0.02",
        offset="0",
        max_delta_percent=5,
        base_price="19",
        slope="0.088",
    ),
    DemoAsset(
        symbol="USMINING",
        name="US mining and logging payrolls",
        category="MACRO",
        description="Employees on US mining and logging payrolls, as pages on the web tell it. A point is a thousand"
        " employees; price = thousands, so that 770,000 employees are 770 USDC. Followed by web search and a language"
        " model: without keys for those, by a local stand-in, whose pages hold the monthly figures of the Bureau of"
        " Labor Statistics (seasonally adjusted), 2006 to 2015, at 90 seconds a month, from the last month back to the"
        " first, and so on.",
        quote_currency="USDC",
        series="us-employment",
        column="mining_and_logging",
        scale="1",
        offset="0",
        max_delta_percent=10,
        base_price="160",
        slope="5.96",
        search=Search(
            query="US mining and logging payrolls employees latest month",
            question="How many employees were on US mining and logging payrolls (seasonally adjusted) in the latest"
            " month for which a figure has been published, in thousands of employees?",
            unit="thousand employees",
        ),
    ),
)
