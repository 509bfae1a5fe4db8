"""How fault tests tell their figures and seeds: always in a long run, with the failure in a short one."""

import sys
from collections.abc import Callable
from contextlib import nullcontext

import pytest

Say = Callable[[str], None]


@pytest.fixture
def say(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Say:
    """Write a line."""
    is_long = request.node.get_closest_marker("soak") is not None

    def write(line: str) -> None:
        with capsys.disabled() if is_long else nullcontext():
            sys.stdout.write(f"\n{request.node.name}: {line}\n")

    return write
