"""The real process on a real socket: what must hold of it that no message in memory can show."""

import json
import socket
from collections.abc import Iterator
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.conftest import ADMIN_PASSWORD, LiveApi, wait_until

_numbers = count(1)
PLACE = """mutation Place($input: OrderPlaceInput!) { orderPlace(input: $input) {
  order { id status filledShares } userErrors { code message field } } }"""


class Trader:
    """An account with funds, and an asset to trade, on the live API."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=10)
        number = next(_numbers)
        admin = self.ask(
            "mutation($p: String!) { adminLogIn(input: {password: $p}) { session { token } } }", {"p": ADMIN_PASSWORD}
        )["adminLogIn"]["session"]["token"]
        self.asset_id = self.ask(
            "mutation($i: AssetCreateInput!) { assetCreate(input: $i) { asset { id } userErrors { message } } }",
            {"i": {"symbol": f"LIVE{number}", "name": "Live", "description": "d", "category": "TEST",
                   "idempotencyKey": f"live-{number}"}},
            admin,
        )["assetCreate"]["asset"]["id"]  # fmt: skip
        self.token = self.ask(
            'mutation($e: String!) { signUp(input: {email: $e, password: "a long pass phrase 7"}) '
            "{ session { token } userErrors { message } } }",
            {"e": f"live-{number}@example.com"},
        )["signUp"]["session"]["token"]
        self.ask(
            'mutation { devFund(input: {amount: "1000", idempotencyKey: "f"}) { userErrors { message } } }',
            {},
            self.token,
        )

    def send(self, body: bytes, token: str | None = None) -> httpx.Response:
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
        return self.http.post("/graphql", content=body, headers=headers)

    def ask(self, query: str, variables: dict[str, object], token: str | None = None) -> Any:
        answer: dict[str, Any] = self.send(json.dumps({"query": query, "variables": variables}).encode(), token).json()
        assert "errors" not in answer, answer
        return answer["data"]

    def state(self) -> object:
        return self.ask(
            "{ viewer { balances { currency available held } orders { nodes { clientOrderId } } "
            "ledger { nodes { id } } } }",
            {},
            self.token,
        )


@pytest.fixture(scope="module")
def trader(live_api: LiveApi) -> Iterator[Trader]:
    made = Trader(live_api.url)
    yield made
    made.http.close()


def order_body(trader: Trader, key: str, **raw: str) -> bytes:
    """An orderPlace whose named input fields are the raw JSON given."""
    values = {"assetId": json.dumps(trader.asset_id), "side": '"BUY"', "clientOrderId": json.dumps(key), **raw}
    inner = ", ".join(f'"{name}": {value}' for name, value in values.items())
    return f'{{"query": {json.dumps(PLACE)}, "variables": {{"input": {{{inner}}}}}}}'.encode()


@pytest.mark.parametrize(
    ("shares", "quoted"),
    [
        ('"-1"', "-1"),
        ('"0"', "0"),
        ('"NaN"', "NaN"),
        ('"Infinity"', "Infinity"),
        ('"1e400"', "1e400"),
        ('"0.' + "0" * 29 + '1"', "0.000000000000000000000000000001"),
        ('"１２"', "１２"),
        ('""', "''"),
        ('"' + "1" * 10_000 + '"', "1111111111"),
        ("1.5", "1.5"),
        ("1e400", "1e400"),
        ("1" * 5_000, "integer"),
        ("-3", "-3"),
        ("true", "true"),
        ("[1]", "list"),
    ],
)
def test_a_bad_amount_is_refused_by_name_and_value_and_changes_nothing(
    trader: Trader, shares: str, quoted: str
) -> None:
    before = trader.state()

    response = trader.send(order_body(trader, f"bad-{quoted[:8]}-{len(shares)}", shares=shares), trader.token)

    assert response.status_code == 200
    answer = response.json()
    if "errors" in answer:
        (error,) = answer["errors"]
        assert error["extensions"]["code"] == "BAD_USER_INPUT"
        assert ".shares" in error["message"]
    else:
        payload = answer["data"]["orderPlace"]
        (error,) = payload["userErrors"]
        assert (error["code"], error["field"], payload["order"]) == ("INVALID_INPUT", ["input", "shares"], None)
    assert quoted in error["message"]
    assert len(error["message"]) < 400
    assert trader.state() == before


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"\xff\xfe\x00", 400, "BAD_REQUEST"),
        (b"[" * 200_000, 400, "BAD_REQUEST"),
        (
            b'{"query": "{ serverTime }", "variables": ' + b'{"a":' * 30_000 + b"1" + b"}" * 30_000 + b"}",
            400,
            "BAD_REQUEST",
        ),
        (b'{"query": ' + b"1" * 5_000 + b"}", 400, "BAD_REQUEST"),
        (b'{"query": "' + b"{a" * 900 + b'"}', 200, "QUERY_TOO_COMPLEX"),
        (b" " * 300_000, 413, "PAYLOAD_TOO_LARGE"),
    ],
)
def test_a_bad_body_is_refused_clearly(trader: Trader, body: bytes, status: int, code: str) -> None:
    response = trader.send(body)

    assert (response.status_code, response.json()["errors"][0]["extensions"]["code"]) == (status, code)


def test_a_body_that_grows_without_a_length_is_cut_off(trader: Trader) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"query": "'
        for _ in range(300):
            yield b"x" * 1_000

    response = trader.http.post("/graphql", content=chunks(), headers={"content-type": "application/json"})

    assert (response.status_code, response.json()["errors"][0]["extensions"]["code"]) == (413, "PAYLOAD_TOO_LARGE")


def connect(api: LiveApi) -> socket.socket:
    address = urlsplit(api.url)
    return socket.create_connection((address.hostname, address.port), timeout=10)


def test_a_mutation_runs_to_its_end_when_its_client_has_gone(live_api: LiveApi, trader: Trader) -> None:
    for number in range(5):
        body = order_body(trader, f"gone-{number}", shares='"1"')
        head = (
            f"POST /graphql HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer {trader.token}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        with connect(live_api) as connection:
            connection.sendall(head.encode() + body)
        wait_until(lambda number=number: status_of(trader, f"gone-{number}") is not None, seconds=10)  # type: ignore[misc]
        assert status_of(trader, f"gone-{number}") == "FILLED"


def status_of(trader: Trader, key: str) -> str | None:
    data = trader.ask("query($k: String!) { viewer { order(clientOrderId: $k) { status } } }", {"k": key}, trader.token)
    order = data["viewer"]["order"]
    return None if order is None else str(order["status"])


def test_an_answer_comes_in_one_piece(live_api: LiveApi) -> None:
    body = b'{"query": "{ serverTime }"}'
    request = (
        b"POST /graphql HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
        % (len(body), body)
    )
    with connect(live_api) as connection:
        for _ in range(50):
            connection.sendall(request)
            answer = connection.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b'"}}')


def test_pipelined_requests_are_answered_in_order(live_api: LiveApi) -> None:
    bodies = [b'{"query": "{ a%d: __typename }"}' % number for number in range(3)]
    with connect(live_api) as connection:
        connection.sendall(
            b"".join(
                b"POST /graphql HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n%s" % (len(body), body)
                for body in bodies
            )
        )
        received = b""
        while received.count(b"HTTP/1.1 200") < 3 or not received.endswith(b"}}"):
            received += connection.recv(65_536)

    assert [received.index(b'"a%d"' % number) for number in range(3)] == sorted(
        received.index(b'"a%d"' % number) for number in range(3)
    )


def test_what_is_no_http_is_400(live_api: LiveApi) -> None:
    with connect(live_api) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00nonsense\r\n\r\n")

        assert connection.recv(65_536).startswith(b"HTTP/1.1 400 ")


def test_the_server_tells_its_state(live_api: LiveApi, trader: Trader) -> None:
    ready = trader.http.get("/readyz").json()
    metrics = trader.http.get("/metrics").text

    assert ready["status"] == "ready"
    assert [(each["name"], each["ok"]) for each in ready["components"]] == [("database", True), ("redis", True)]
    assert "server" not in trader.http.get("/healthz").headers
    for line in ("megatron_redis_up 1.0", "megatron_database_connections_max 16.0", "megatron_settlement_waiting 0.0"):
        assert line in metrics.splitlines()
    assert 'megatron_orders_total{outcome="FILLED"}' in metrics
