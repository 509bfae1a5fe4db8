"""Waiting for what another task or process does, always for a condition and never longer than said."""

import asyncio
import time
from collections.abc import Callable


async def until(condition: Callable[[], bool], *, seconds: float) -> None:
    """Poll `condition` until it holds; TimeoutError when it does not within `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s")
        await asyncio.sleep(0.002)
