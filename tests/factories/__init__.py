"""Builders of what tests start from: accounts with funds and sessions, admins, assets and orders.

Everything is made by the real use cases, under names of its own, so that tests can share a database. No test's
expectation lives here.
"""

from tests.factories.market import (
    LONG,
    fund,
    load_asset,
    new_account,
    new_admin,
    new_asset,
    place_order,
    set_status,
    sign_up_account,
    update_asset,
)
from tests.factories.orders import order_request
from tests.factories.settlements import Placed, gathered, settle_together, waiting
from tests.factories.state import Standing, standing

__all__ = [
    "LONG",
    "Placed",
    "Standing",
    "fund",
    "gathered",
    "load_asset",
    "new_account",
    "new_admin",
    "new_asset",
    "order_request",
    "place_order",
    "set_status",
    "settle_together",
    "sign_up_account",
    "standing",
    "update_asset",
    "waiting",
]
