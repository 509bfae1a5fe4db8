"""The public contract, and the parts of it that belong to what is built.

`contract.graphql`, beside this file, is the whole contract, in sections by capability. What is not built yet is listed
here by name, so that taking a section in is one line, and forgetting to is seen.
"""

import re
from pathlib import Path
from typing import Final

from graphql import GraphQLSchema, build_schema

CONTRACT: Final = Path(__file__).parent / "contract.graphql"
SECTIONS: Final = ("scalars", "errors", "markets", "orders", "accounts", "admin", "roots", "realtime", "oracle")
LATER: Final = ("oracle",)
"""Sections of capabilities that are not built yet."""
_HEADING: Final = re.compile(r"^# -{20,} (\w+)$", re.MULTILINE)


def sections(text: str) -> dict[str, str]:
    """The contract's sections by name, in order."""
    parts = _HEADING.split(text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def contract_so_far() -> GraphQLSchema:
    """The contract without the sections of later capabilities."""
    kept = {name: part for name, part in sections(CONTRACT.read_text()).items() if name not in LATER}
    return build_schema("\n".join(kept.values()))
