"""A web about widgets for fault tests: pages that state a price, a search that finds them, a model that reads them."""

import json
import re
from typing import Any, Final

from app.oracle.configuration import FeedConfiguration, FeedsConfiguration, SearchConfiguration
from tests.oracle.provider_server import ProviderServer, organic, page

HOSTS: Final = ("one.example", "two.example")
WIDGETS: Final = SearchConfiguration(
    ("price of widgets",), "What does a widget cost?", "USD", None, 2, 10 * 10**9, 6 * 10**8
)
SERIES: Final = FeedsConfiguration(
    (FeedConfiguration(None, None, "seattle-weather", "temp_max", "1", "50", None, 10 * 10**9),), 1
)
_STATED: Final = re.compile(r"Address: (\S+)\n.*?(A widget costs (\d+\.\d+) USD as of edition \d+)", re.DOTALL)
_CURRENT: Final = re.compile(r"^Current value .*: (\S+)$", re.MULTILINE)


def publish(server: ProviderServer, *, price: str, edition: int) -> None:
    """Let both publishers state `price` (USD), searches find them, and the model read what they say."""
    for host in HOSTS:
        # Each in its own words: copies of one text count as one source.
        told = f"<p>The editors of {host} say so.</p><p>A widget costs {price} USD as of edition {edition}.</p>"
        server.pages[f"/{host}"] = page(told)
    server.results = [organic(f"http://{host}/{host}") for host in HOSTS]
    server.content = _read


def hosts_of(server: ProviderServer) -> str:
    """The setting that gives the publishers' names the server's address."""
    return ",".join(f"{host}=127.0.0.1:{server.port}" for host in HOSTS)


def _read(request: dict[str, Any]) -> str:
    prompt = request["messages"][-1]["content"]
    current = _CURRENT.search(prompt)
    stated = _STATED.findall(prompt)
    assert current is not None
    price = sum(float(number) for _, _, number in stated) / max(len(stated), 1)
    return json.dumps(
        {
            "delta_percent": round((price / float(current[1]) - 1) * 100, 3),
            "suggested_price": round(price, 4),
            "confidence": 0.9,
            "summary": "Both publishers state it.",
            "source_urls": [url for url, _, _ in stated],
            "quotations": [{"url": url, "quotation": words, "number": float(number)} for url, words, number in stated],
        }
    )
