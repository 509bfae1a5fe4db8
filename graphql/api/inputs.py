"""Reading arguments and inputs: what was left out, and what a client said."""

from typing import TypeVar

from strawberry import UNSET

T = TypeVar("T")


def given(value: T) -> T | None:
    """`value`, or None where the client left it out: for most fields leaving out and null mean the same."""
    return None if value is UNSET else value
