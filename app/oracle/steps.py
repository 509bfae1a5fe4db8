"""The steps of a run, by name: metrics time them, and fault tests end the process in them."""

from collections.abc import Callable
from enum import StrEnum
from typing import TypeAlias


class Step(StrEnum):
    """What has just been done. CLAIMED and RECORDED are the worker's, the others the runner's.

    A search: LOADED, SEARCHED, FETCHED (turned to text and kept, too), COMPARED (with one another), ASKED (the model),
    JUDGED. Feeds: LOADED, READ, JUDGED. COMPARED and ASKED are told of only where that was done.
    """

    CLAIMED = "CLAIMED"
    LOADED = "LOADED"
    SEARCHED = "SEARCHED"
    FETCHED = "FETCHED"
    COMPARED = "COMPARED"
    ASKED = "ASKED"
    READ = "READ"
    JUDGED = "JUDGED"
    RECORDED = "RECORDED"


OnStep: TypeAlias = "Callable[[Step], None]"
"""Told after each step, in the run's own task. What it raises ends the run."""


def unheard(_: Step) -> None:
    """For runs whose steps nobody wants to know."""
