"""Watching the process that started the market, which is `make` for `make dev`.

make waits for its recipe when it is interrupted alone, without its terminal's process group, and a killed make leaves
its recipe running. Both must stop the market, or the next start would find the data directory in use.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT
from typing import Final

VARIABLE: Final = "MEGATRON_STARTED_BY"
"""Set by the bootstrap to the number of the process that the market must not outlive."""


@dataclass(frozen=True, slots=True)
class Parent:
    """The process that started this one, as it was then."""

    pid: int
    handles_interrupt: bool


def take_parent() -> Parent | None:
    """The process that the environment names, if it still is the parent; the variable is not passed on."""
    named = os.environ.pop(VARIABLE, "")
    if not named.isdecimal():
        return None
    return Parent(pid=int(named), handles_interrupt=_handles_interrupt(int(named)))


def parent_gave_up(parent: Parent) -> bool:
    """Whether the parent is gone, or was interrupted and waits for this process to end."""
    if os.getppid() != parent.pid:
        return True
    # make gives up its own handling of a signal once it has received it.
    return parent.handles_interrupt and not _handles_interrupt(parent.pid)


def _handles_interrupt(pid: int) -> bool:
    """Whether the process catches SIGINT. True where that cannot be told."""
    if sys.platform != "linux":
        return True
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (SIGINT - 1) & 1)
    except (OSError, ValueError, IndexError):
        return True
    return True
