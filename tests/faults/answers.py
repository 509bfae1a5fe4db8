"""What clients were told of their orders, held against what is stored."""

from base64 import urlsafe_b64decode
from collections.abc import Mapping
from typing import NamedTuple

from tests.faults.client import Json
from tests.faults.inspection import connected


class OrderFigures(NamedTuple):
    """An order's outcome in base units, and its refusal's code."""

    id: str
    status: str
    filled_shares: int
    gross: int
    fee: int
    reason: str | None


Key = tuple[str, str]
"""An account ("Account:5") and a clientOrderId."""


def told_orders(answers: Mapping[Key, Json]) -> dict[Key, OrderFigures]:
    """The outcomes in orderPlace's payloads, which are by the account's node id and the clientOrderId."""
    return {(plain(account), key): _told(payload["order"]) for (account, key), payload in answers.items()}


async def stored_orders(database_url: str) -> dict[Key, OrderFigures]:
    """The outcomes of every order in the database."""
    async with connected(database_url) as connection:
        rows = await connection.fetch(
            "SELECT 'Account:' || account_id AS account, client_order_id, 'Order:' || id AS id, status, filled_shares,"
            " gross, fee, refusal ->> 'code' AS reason FROM orders"
        )
    return {(row["account"], row["client_order_id"]): OrderFigures(*list(row.values())[2:]) for row in rows}


def plain(node_id: str) -> str:
    """The text that a node id encodes, such as "Account:5"."""
    return urlsafe_b64decode(node_id + "=" * (-len(node_id) % 4)).decode()


def _told(order: Json) -> OrderFigures:
    return OrderFigures(
        plain(order["id"]),
        order["status"],
        _units(order["filledShares"], 9),
        _units(order["gross"], 6),
        _units(order["fee"], 6),
        order["reason"],
    )


def _units(text: str, decimals: int) -> int:
    whole, _, fraction = text.partition(".")
    return int(whole + fraction.ljust(decimals, "0"))
