"""What the client asks for, held against the schema, and what it makes of the answers."""

import ast
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from graphql import parse, validate

from api.schema import schema
from megatron_client import AccountEvent, Asset, AssetRef, Operation, Position, Ticker, Trade, documents
from megatron_client.wire import camel, decode, selection
from tests.client.standin import market
from tests.conftest import ROOT

OPERATIONS = [value for value in vars(documents).values() if isinstance(value, Operation)]
PACKAGE = ROOT / "client" / "megatron_client"


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_document_fits_the_schema(operation: Operation) -> None:
    document = parse(operation.document)
    assert validate(schema._schema, document) == []
    [definition] = document.definitions
    assert f" {operation.name}" in operation.document
    assert definition.kind == "operation_definition"


def test_selections_follow_from_the_types() -> None:
    assert selection(Position).startswith("{ asset { id symbol } shares averagePrice costBasis")
    assert selection(AccountEvent).startswith("{ kind seq orders { id clientOrderId assetId side")
    assert "stats24h { volume trades" in selection(Ticker)
    assert "symbol" not in selection(Trade)
    assert camel("max_redemption_per_day") == "maxRedemptionPerDay"


def test_answers_become_exact_typed_values() -> None:
    node = market("A") | {"supply": "1000000000000000.123456789", "marketPrice": "0.000000000001"}
    asset = decode(Asset, node, {})
    assert asset.supply == Decimal("1000000000000000.123456789")
    assert str(asset.supply) == "1000000000000000.123456789"
    assert asset.market_price == Decimal(1).scaleb(-12)
    assert asset.created_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert asset.curve.slope == Decimal("0.005")
    assert asset.trading_rules.max_shares_per_account is None
    with pytest.raises(AttributeError):
        asset.supply = Decimal(0)  # type: ignore[misc] # what is read is not changed


def test_nested_objects_are_read() -> None:
    amounts = {camel(name): "1" for name in Position.__slots__ if name != "asset"}
    position = decode(Position, {"asset": {"id": "1", "symbol": "A"}, **amounts}, {})
    assert position.asset == AssetRef("1", "A")
    assert position.realized_pnl == 1


def test_the_package_needs_httpx_orjson_and_websockets_alone() -> None:
    names = {name for file in PACKAGE.glob("*.py") for name in imported(file)}
    foreign = {name for name in names if name not in __import__("sys").stdlib_module_names}
    assert foreign == {"megatron_client", "httpx", "orjson", "websockets"}


def imported(file: Path) -> set[str]:
    """The packages that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found
