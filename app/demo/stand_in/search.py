"""The stand-in's search: what it finds for a query, in Serper's wire format. Pure."""

import re
from datetime import datetime
from fractions import Fraction
from typing import Final

from app.demo.stand_in.months import known_at
from app.demo.stand_in.pages import PUBLISHERS, Publisher

TOPIC: Final = re.compile(r"\b(?:mining|logging)\b", re.IGNORECASE)
RESULTS_MAX: Final = 20
SHOWN: Final = 3
"""Publishers that tell the figure, in one answer: so a second reading may rest on sources that the first one lacked."""


def found(query: str, *, turn: int) -> list[Publisher]:
    """What the `turn`-th search finds, best first; nothing where the query is about anything but mining or logging.

    The web never shows itself twice alike: of two searches on end, the second one finds the other publishers.
    """
    if TOPIC.search(query) is None:
        return []
    *telling, other = PUBLISHERS
    first = SHOWN * (turn % 2) + turn // (2 * len(telling)) % len(telling)
    shown = [telling[(first + number) % len(telling)] for number in range(SHOWN)]
    return [*shown[:2], other, *shown[2:]]


def answer(query: str, *, num: int, turn: int, at: datetime, speed: Fraction = Fraction(1)) -> dict[str, object]:
    """The body of an answer to POST /search."""
    known = known_at(at, speed=speed)
    organic = []
    for position, publisher in enumerate(found(query, turn=turn)[: min(num, RESULTS_MAX)], start=1):
        article = publisher.write(known)
        organic.append(
            {
                "title": f"{article.title} - {publisher.name}",
                "link": publisher.url,
                "snippet": article.snippet,
                "position": position,
            }
        )
    return {
        "searchParameters": {"q": query, "type": "search", "num": num, "engine": "megatron-stand-in"},
        "organic": organic,
        "credits": 1,
    }
