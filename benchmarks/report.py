"""How benchmarks print: one line a figure, with the median, the range and the ratio to its peer."""

import statistics
import sys
from collections.abc import Sequence


def progress(text: str) -> None:
    """Tell the person who waits what is going on."""
    print(f"  ... {text}", file=sys.stderr, flush=True)


def line(
    name: str, values: Sequence[float], *, unit: str, peer: Sequence[float] | None = None, floor: str = ""
) -> None:
    """Print a figure: median (minimum to maximum), and the median over the peer's median."""
    median = statistics.median(values)
    text = f"{name:58} {median:>10,.1f} {unit:8} ({min(values):,.1f} to {max(values):,.1f}, n={len(values)})"
    if peer is not None:
        text += f"  {median / statistics.median(peer):.2f} x the peer"
    print(text + (f"  [asked: {floor}]" if floor else ""), flush=True)
