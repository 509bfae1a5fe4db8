"""The public contract, which the schema must keep wholly.

`contract.graphql`, beside this file, is the contract, in sections by capability.
"""

import re
from pathlib import Path
from typing import Final

from graphql import GraphQLSchema, build_schema

CONTRACT: Final = Path(__file__).parent / "contract.graphql"
SECTIONS: Final = ("scalars", "errors", "markets", "orders", "accounts", "admin", "roots", "realtime", "oracle")
_HEADING: Final = re.compile(r"^# -{20,} (\w+)$", re.MULTILINE)


def sections(text: str) -> dict[str, str]:
    """The contract's sections by name, in order."""
    parts = _HEADING.split(text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def contract() -> GraphQLSchema:
    """The whole contract."""
    return build_schema(CONTRACT.read_text())
