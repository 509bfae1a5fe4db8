"""The demo market's assets: which series each follows, how its value maps to a price, and the curve chosen for it.

Constants and the arithmetic behind them. `docs/demo-market.md` shows the figures; tests hold both to the series.

The base price is at most a quarter of the lowest price the series maps to: M never falls below it, so this is what
leaves M room to follow the series down. The slope k makes one percent cost about 1,000 of the quote currency at the
typical (median) price m: moving M from m to 1.01 m costs (1.01^2 - 1) * m^2 / (2k), so k = 0.01005 * m^2 / 1000.
"""

from dataclasses import dataclass
from typing import Final

from app.oracle.series import Mapping, Series, load_series

DAY_MS: Final = 86_400_000
FEE_RATE: Final = "0.005"


@dataclass(frozen=True, slots=True)
class DemoAsset:
    """One asset and the replay it follows. Decimals as the API takes them; `speed` in series ms per real ms."""

    symbol: str
    name: str
    category: str
    description: str
    quote_currency: str
    series: str
    column: str
    scale: str
    offset: str
    speed: int
    base_price: str
    slope: str

    def load(self) -> Series:
        """The series it follows."""
        return load_series(self.series, self.column)

    @property
    def mapping(self) -> Mapping:
        """How a value maps to a price."""
        return Mapping.parse(scale=self.scale, offset=self.offset)


DAILY_SPEED: Final = DAY_MS // 10_000
"""A day in 10 s: a year in about an hour. Any faster, and nobody could trade the next day before it is over."""
MONTHLY_SPEED: Final = 262_800
"""A month in about 10 s: ten years in about 20 minutes."""
YEARLY_SPEED: Final = 350_640
"""A year in 90 s: sixteen years in about 24 minutes."""

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
        speed=DAILY_SPEED,
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
        speed=DAILY_SPEED,
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
        speed=MONTHLY_SPEED,
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
        speed=MONTHLY_SPEED,
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
        speed=MONTHLY_SPEED,
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
        speed=YEARLY_SPEED,
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
        speed=YEARLY_SPEED,
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
        speed=YEARLY_SPEED,
        base_price="19",
        slope="0.088",
    ),
)
