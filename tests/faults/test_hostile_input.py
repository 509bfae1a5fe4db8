"""Values and bodies that nobody should send: each is refused in clear words and changes nothing; never a raw 500."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import orjson
import pytest

from tests.conftest import LiveApi
from tests.faults import operations
from tests.faults.client import Client, Json, Reply
from tests.faults.inspection import audited, fingerprint
from tests.faults.population import Population, asset_input, populate

LONG = "7" * 10_240
DIGITS = "9" * 5_000

HOSTILE: dict[str, tuple[str, str]] = {
    "negative": ('"-1"', "'-1'"),
    "negative zero": ('"-0"', "'-0'"),
    "NaN": ('"NaN"', "'NaN'"),
    "infinity": ('"-Infinity"', "'-Infinity'"),
    "exponent": ('"1e400"', "'1e400'"),
    "float with an exponent": ("1e400", "1e400"),
    "10^-30": ('"0.000000000000000000000000000001"', "'0.000000000000000000000000000001'"),
    "full-width digits": ('"１２"', "'１２'"),
    "Arabic digits": ('"١٢"', "'١٢'"),
    "empty": ('""', "''"),
    "10 kB": (f'"{LONG}"', "'7777777777777777777777777777777777777777...' (10240 characters)"),
    "float": ("1.5", "1.5"),
    "5,000 digits": (DIGITS, "9" * 30),
    "5,000 digits below zero": (f"-{DIGITS}", "-" + "9" * 30),
    "thousands separator": ('"1,000"', "'1,000'"),
    "blanks": ('" 1"', "' 1'"),
    "line break": ('"1\\n"', "'1"),
    "plus": ('"+1"', "'+1'"),
    "hexadecimal": ('"0x10"', "'0x10'"),
    "underscore": ('"1_000"', "'1_000'"),
    "point alone": ('"."', "'.'"),
    "no digit after the point": ('"1."', "'1.'"),
    "no digit before the point": ('".5"', "'.5'"),
    "boolean": ("true", "true"),
    "list": ('["1"]', "a list"),
    "object": ('{"value": "1"}', "an object"),
    "beyond every range": ('"' + "9" * 40 + '"', "'" + "9" * 40 + "'"),
}
"""What is sent, as JSON, and how the refusal quotes it."""
ZERO = ('"0.000"', "'0.000'")


@dataclass(frozen=True)
class Target:
    """A decimal of a mutation's input, and the rest of an input that would pass."""

    mutation: str
    document: str
    field: str
    rest: str
    zero_is_refused: bool = True

    def __str__(self) -> str:
        return f"{self.mutation}.{self.field}"


def _order(field: str, side: str, size: str, *, zero_is_refused: bool) -> Target:
    rest = f'"assetId":"ASSET","side":"{side}","clientOrderId":"KEY"{size}'
    return Target("orderPlace", operations.ORDER_PLACE, field, rest, zero_is_refused=zero_is_refused)


def _new(field: str, *, zero_is_refused: bool = True) -> Target:
    rest = orjson.dumps(asset_input(0) | {"symbol": "HOSTILE", "idempotencyKey": "KEY"}).decode()[1:-1]
    return Target("assetCreate", operations.ASSET_CREATE, field, rest, zero_is_refused=zero_is_refused)


def _change(field: str, *, zero_is_refused: bool = True) -> Target:
    rest = '"assetId":"ASSET","reason":"a drill"'
    return Target("assetUpdate", operations.ASSET_UPDATE, field, rest, zero_is_refused=zero_is_refused)


RULES = ("basePrice", "slope", "maxSharesPerAccount", "maxRedemptionPerDay", "fundamentalWeight", "volumeScale")
TARGETS = [
    _order("shares", "BUY", "", zero_is_refused=True),
    _order("shares", "SELL", "", zero_is_refused=True),
    _order("amount", "BUY", "", zero_is_refused=True),
    _order("maxTotal", "BUY", ',"shares":"1"', zero_is_refused=False),
    _order("minShares", "BUY", ',"amount":"1"', zero_is_refused=True),
    _order("minTotal", "SELL", ',"shares":"1"', zero_is_refused=False),
    _order("limitPrice", "BUY", ',"shares":"1"', zero_is_refused=True),
    Target("devFund", operations.DEV_FUND, "amount", '"idempotencyKey":"KEY"'),
    *(_new(field) for field in RULES),
    _new("feeRate", zero_is_refused=False),
    *(_change(field) for field in RULES),
    _change("feeRate", zero_is_refused=False),
]


@pytest.fixture(scope="module")
async def population(live_api: LiveApi) -> Population:
    """An account with money, an asset, an admin."""
    return await populate(live_api.url, traders=1, assets=[{}], funds={"USDC": 100})


@pytest.fixture
async def caller(live_api: LiveApi) -> AsyncIterator[Client]:
    """An anonymous connection."""
    client = Client(live_api.url)
    yield client
    await client.close()


def _expect_refusal(target: Target, reply: Reply, quoted: str, sent: str) -> None:
    """The refusal quotes the value and names the field, wherever it was decided."""
    assert reply.status == 200, (sent, reply.body)
    if reply.errors:
        (error,) = reply.errors
        assert error["extensions"]["code"] == "BAD_USER_INPUT", (sent, error)
        assert f"$input' has invalid value at .{target.field}:" in error["message"], (sent, error)
    else:
        payload = reply.payload(target.mutation)
        (error,) = payload.pop("userErrors")
        assert (error["code"], error["field"]) == ("INVALID_INPUT", ["input", target.field]), (sent, error)
        assert error["message"].startswith(target.field), (sent, error)
        assert set(payload.values()) <= {None}, (sent, payload)
    assert quoted in error["message"], (sent, error)
    assert len(error["message"]) < 300


@pytest.mark.parametrize("target", TARGETS, ids=str)
async def test_no_decimal_but_a_plain_one_passes(
    live_api: LiveApi, population: Population, caller: Client, target: Target
) -> None:
    is_admins = target.mutation in ("assetCreate", "assetUpdate")
    caller.token = population.admin_token if is_admins else population.traders[0].token
    values = HOSTILE | ({"zero": ZERO} if target.zero_is_refused else {})
    before = await fingerprint(live_api.database_url)
    for number, (value, quoted) in enumerate(values.values()):
        rest = target.rest.replace("ASSET", population.asset_ids[0]).replace("KEY", f"hostile-{number}")
        given = f'{{{rest},"{target.field}":{value}}}'
        body = f'{{"query":{orjson.dumps(target.document).decode()},"variables":{{"input":{given}}}}}'
        _expect_refusal(target, await caller.post(body.encode()), quoted, value[:60])
    assert await fingerprint(live_api.database_url) == before


LITERALS = {
    "1.5": "'1.5'", "1e400": "'1e400'", DIGITS: "'9999999999999999999999999999999999999999...' (5000 characters)",
    "true": "'true'", "NaN": "'NaN'", '"NaN"': "'NaN'", '"１２"': "'１２'", '""': "''", "[1]": "'[1]'",
}  # fmt: skip


def _funds(literal: str) -> str:
    given = f'{{amount: {literal}, idempotencyKey: "literal"}}'
    return f"mutation {{ devFund(input: {given}) {{ userErrors {{ code field }} }} }}"


async def test_literals_in_the_document_are_no_way_around(
    live_api: LiveApi, population: Population, caller: Client
) -> None:
    caller.token = population.traders[0].token
    before = await fingerprint(live_api.database_url)
    for literal, quoted in LITERALS.items():
        reply = await caller.run(_funds(literal))
        (error,) = reply.errors
        assert (reply.status, error["extensions"]["code"]) == (200, "GRAPHQL_VALIDATION_FAILED")
        assert error["message"].startswith("amount: ")
        assert quoted in error["message"], (literal[:60], error)
    for literal in ("-1", "0", f'"{"9" * 40}"', '"0.0000001"'):
        reply = await caller.run(_funds(literal))
        assert reply.payload("devFund")["userErrors"] == [{"code": "INVALID_INPUT", "field": ["input", "amount"]}]
    assert await fingerprint(live_api.database_url) == before


@pytest.mark.parametrize("field", ["shares", "amount"])
async def test_a_quote_refuses_them_too(population: Population, caller: Client, field: str) -> None:
    for value, quoted in (*HOSTILE.values(), ZERO):
        variables = f'{{"assetId":"{population.asset_ids[0]}","side":"BUY","{field}":{value}}}'
        body = f'{{"query":{orjson.dumps(operations.QUOTE).decode()},"variables":{variables}}}'
        reply = await caller.post(body.encode())
        if reply.errors:
            (error,) = reply.errors
            assert error["extensions"]["code"] == "BAD_USER_INPUT"
            assert f"'${field}'" in error["message"], error
        else:
            (error,) = reply.payload("quote")["userErrors"]
            assert (error["code"], error["field"]) == ("INVALID_INPUT", [field])
        assert quoted in error["message"], (value[:60], error)


# ------------------------------------------------------------------------------------------------ bodies

_QUERY = b'{"query":"{ serverTime }"'
BODIES: dict[str, tuple[bytes, int, str]] = {
    "nothing": (b"", 400, "The body is empty"),
    "not UTF-8": (b'{"query":"{ serverTime }\xff"}', 400, "The body is not UTF-8: byte 0xff at position 24."),
    "half a character": (b'{"query":"\xe2\x82"}', 400, "The body is not UTF-8: byte 0xe2 at position 10."),
    "an encoded surrogate": (b'{"query":"\xed\xa0\x80"}', 400, "The body is not UTF-8: byte 0xed at position 10."),
    "UTF-16": ('{"query":"{ serverTime }"}'.encode("utf-16"), 400, "The body is not UTF-8: byte 0xff at position 0."),
    "a byte order mark": (b"\xef\xbb\xbf" + _QUERY + b"}", 400, "byte order mark"),
    "a surrogate by escape": (b'{"query":"\\ud800"}', 400, "\\ud800"),
    "a NUL by escape": (b'{"query":"\\u0000"}', 400, "\\u0000"),
    "no JSON": (b"query { serverTime }", 400, "The body is not JSON"),
    "cut short": (_QUERY, 400, "The body is not JSON"),
    "more than one value": (_QUERY + b"}{}", 400, "The body is not JSON"),
    "NaN": (b'{"query":"{ serverTime }","variables":{"a":NaN}}', 400, "NaN is not JSON"),
    "an array": (b"[" + _QUERY + b"}]", 400, "batches are not answered"),
    "a string": (b'"{ serverTime }"', 400, "The body must be a JSON object, not a string."),
    "null": (b"null", 400, "The body must be a JSON object, not null."),
    "nested arrays": (b"[" * 100_000, 400, "The body is nested too deeply."),
    "closed nested arrays": (b"[" * 100_000 + b"]" * 100_000, 400, "The body is nested too deeply."),
    "nested objects": (b'{"a":' * 50_000, 400, "The body is nested too deeply."),
    "nested variables": (
        _QUERY + b',"variables":{"a":' + b"[" * 90_000 + b"]" * 90_000 + b"}}", 400, "The body is nested too deeply.",
    ),
    "no query": (b"{}", 400, "The parameter query must be a string, the GraphQL document; it is missing."),
    "a query that is a number": (b'{"query":1}', 400, "The parameter query must be a string"),
    "variables that are an array": (_QUERY + b',"variables":[]}', 400, "variables must be an object or null"),
    "variables that are a string": (_QUERY + b',"variables":"{}"}', 400, "variables must be an object or null"),
    "a name that is a number": (_QUERY + b',"operationName":1}', 400, "operationName must be a string or null"),
    "more than 256 KiB": (_QUERY + b"}" + b" " * 262_144, 413, "The body is too large: at most 262144 bytes are read."),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
async def test_a_bad_body_is_refused_in_clear_words(caller: Client, name: str) -> None:
    body, status, words = BODIES[name]
    reply = await caller.post(body)
    (error,) = reply.errors
    assert (reply.status, error["extensions"]["code"]) == (
        status, "PAYLOAD_TOO_LARGE" if status == 413 else "BAD_REQUEST",
    )  # fmt: skip
    assert words in error["message"]
    assert len(error["message"]) < 300
    assert "data" not in reply.json


@pytest.mark.parametrize(
    "content_type", ["text/plain", "multipart/form-data; boundary=x", "application/json; charset=utf-16"]
)
async def test_a_body_of_another_type_is_refused(caller: Client, content_type: str) -> None:
    reply = await caller.post(_QUERY + b"}", content_type=content_type)
    assert (reply.status, reply.error_codes) == (415, ["UNSUPPORTED_MEDIA_TYPE"])


DOCUMENTS: dict[str, str] = {
    "deep selections": "{ a " * 10_000,
    "closed deep selections": "{ viewer " * 3_000 + "{ id }" + "}" * 3_000,
    "a deep list": "{ nodes(ids: " + "[" * 20_000 + "]" * 20_000 + ") { id } }",
    "a deep object": "{ node(id: " + "{a:" * 20_000 + "1" + "}" * 20_000 + ") { id } }",
    "a deep type": "query($a: " + "[" * 20_000 + "ID" + "]" * 20_000 + ") { serverTime }",
    "aliases": "{ " + " ".join(f"a{n}: serverTime" for n in range(5_000)) + " }",
    "directives": "{ serverTime " + "@include(if: true) " * 5_000 + "}",
    "a cycle of fragments": "{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }",
    "unknown everything": "query Q($x: Nope!) { nope(a: $y) { ...Z } }",
    "a long name": "{ " + "n" * 100_000 + " }",
    "a long string": '{ node(id: "' + "x" * 200_000 + '") { id } }',
    "a long comment": "{ serverTime } #" + "c" * 200_000 + "\n}",
    "a long number": "{ assets(first: " + DIGITS + ") { totalCount } }",
    "deep introspection": "{ __schema { types { " + "fields { type { " * 40 + "name" + " } }" * 40 + " } } }",
    "a subscription": "subscription { priceTicks { cursor } }",
    "nothing but blanks": "   ",
    "controls": "{ \x01 }",
}


@pytest.mark.parametrize("name", DOCUMENTS)
async def test_a_hostile_document_is_refused(caller: Client, name: str) -> None:
    reply = await asyncio.wait_for(caller.run(DOCUMENTS[name]), 5)
    assert reply.status in (200, 400), reply.body
    assert reply.error_codes != []
    assert not reply.is_fault
    assert all(len(error["message"]) <= 503 for error in reply.errors)
    assert "data" not in reply.json


async def test_fragments_that_double_are_read_once(caller: Client) -> None:
    doubled = "".join(f" fragment f{n} on Query {{ ...f{n + 1} ...f{n + 1} }}" for n in range(40))
    document = f"{{ ...f0 }}{doubled} fragment f40 on Query {{ platform {{ tradingPaused }} }}"
    reply = await asyncio.wait_for(caller.run(document), 5)
    assert reply.data == {"platform": {"tradingPaused": False}}


async def test_the_process_has_taken_no_harm(live_api: LiveApi, caller: Client) -> None:
    answers: list[Json] = []
    for body in [body for body, _, _ in BODIES.values()]:
        await caller.post(body)
    for document in DOCUMENTS.values():
        await caller.run(document)
        answers.append((await caller.run("{ platform { tradingPaused } }")).data)
    assert answers == [{"platform": {"tradingPaused": False}}] * len(DOCUMENTS)
    assert live_api.process.poll() is None
    assert (await audited(live_api.database_url)).findings == []
