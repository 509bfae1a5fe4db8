"""Heartbeats on the event loop that serves, whose timers are not all alike."""

import asyncio
from dataclasses import dataclass, field

from uvicorn.loops.auto import auto_loop_factory

from app.realtime.timers import Heartbeats
from tests.api.sockets import until


@dataclass(eq=False)
class Group:
    """Hears its heartbeats."""

    sent_at: float
    heartbeat_seconds: int = 60
    is_over: bool = False
    heard: list[float] = field(default_factory=list)

    def beat(self) -> None:
        self.heard.append(self.sent_at)


async def expect_groups_that_come_when_a_heartbeat_is_due_to_be_served() -> None:
    now = asyncio.get_running_loop().time()
    heartbeats = Heartbeats()
    due, soon, later = Group(now - 61), Group(now - 62), Group(now)
    for group in (due, soon, later):
        heartbeats.add(group)
    await until(lambda: bool(due.heard and soon.heard))
    heartbeats.stop()
    assert (due.heard, soon.heard, later.heard) == ([now - 61], [now - 62], [])


def test_groups_that_come_when_a_heartbeat_is_due_are_served() -> None:
    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        runner.run(expect_groups_that_come_when_a_heartbeat_is_due_to_be_served())
