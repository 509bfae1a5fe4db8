"""The codec of global ids."""

from base64 import urlsafe_b64encode

import pytest

from api.node_ids import NodeKey, decode, encode_ref, key_of, key_or_nothing, node_id


def encoded(plain: str) -> str:
    return urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def test_an_id_leads_back_to_its_object() -> None:
    assert decode(node_id("Asset", 7)) == NodeKey("Asset", (7,))
    assert decode(node_id("Trade", 3, 17)) == NodeKey("Trade", (3, 17))


def test_a_reference_of_the_ledger_is_the_id_of_what_it_names() -> None:
    assert encode_ref("Trade:3:17") == node_id("Trade", 3, 17)


def test_an_id_is_url_safe_and_without_padding() -> None:
    assert node_id("Asset", 7) == "QXNzZXQ6Nw"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "QXNzZXQ6Nw==",  # padded: a second spelling
        "QXNzZXQ6Nx",  # other unused bits: a second spelling
        " QXNzZXQ6Nw",
        "QXNzZXQ6Nw\n",
        "Ä",
        encoded("Asset"),
        encoded("Asset:"),
        encoded("Asset:0"),
        encoded("Asset:-1"),
        encoded("Asset:07"),
        encoded("Asset:1.5"),
        encoded("Asset:²"),
        encoded(f"Asset:{2**63}"),
        encoded("Trade:1:2:3"),
        "A" * 10_000,
    ],
)
def test_what_is_no_id_is_the_id_of_nothing(text: str) -> None:
    assert decode(text) is None
    assert key_or_nothing(text, "Asset") == 0


def test_an_id_of_another_type_is_the_id_of_nothing() -> None:
    assert key_of(node_id("Order", 7), "Asset") is None
    assert key_of(node_id("Asset", 7, 8), "Asset") is None
    assert key_of(node_id("Asset", 2**63 - 1), "Asset") == 2**63 - 1
