"""A market for client suites: an account with money and assets to trade, made over HTTP as anybody would."""

import itertools
import secrets
from dataclasses import dataclass
from typing import Any

import httpx

from tests.conftest import ADMIN_PASSWORD

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Trader:
    """An account with a session and 1,000 USDC."""

    email: str
    token: str


def ask(url: str, query: str, variables: dict[str, object] | None = None, *, token: str | None = None) -> Any:
    """The data of an operation that has no errors."""
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    body = {"query": query, "variables": variables or {}}
    result = httpx.post(f"{url}/graphql", json=body, headers=headers, timeout=20).json()
    assert "errors" not in result, result
    for payload in result["data"].values():
        assert not (isinstance(payload, dict) and payload.get("userErrors")), result
    return result["data"]


def new_trader(url: str) -> Trader:
    """Sign up, and take test funds."""
    email = f"streams-{secrets.token_hex(8)}@example.com"
    signed_up = ask(
        url,
        "mutation ($email: String!, $password: String!) {"
        " signUp(input: { email: $email, password: $password }) { session { token } userErrors { message } } }",
        {"email": email, "password": secrets.token_urlsafe(24)},
    )
    token: str = signed_up["signUp"]["session"]["token"]
    funded = 'mutation { devFund(input: { amount: "1000", idempotencyKey: "all" }) { userErrors { message } } }'
    ask(url, funded, token=token)
    return Trader(email, token)


def new_asset(url: str) -> str:
    """A new asset's id, made by the admin."""
    logged_in = ask(
        url,
        "mutation ($password: String!) { adminLogIn(input: { password: $password }) {"
        " session { token } userErrors { message } } }",
        {"password": ADMIN_PASSWORD},
    )
    made = ask(
        url,
        "mutation ($asset: AssetCreateInput!) { assetCreate(input: $asset) { asset { id } userErrors { message } } }",
        {
            "asset": {
                "symbol": f"S{next(_numbers)}{secrets.token_hex(3).upper()}",
                "name": "A stream's",
                "description": "For a test.",
                "category": "TEST",
                "idempotencyKey": secrets.token_hex(8),
            }
        },
        token=logged_in["adminLogIn"]["session"]["token"],
    )
    id_: str = made["assetCreate"]["asset"]["id"]
    return id_
