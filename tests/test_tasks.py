"""Ending tasks that do not want to end."""

import asyncio

from app.tasks import end


async def test_a_swallowed_cancellation_is_repeated() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while swallowed < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
        await asyncio.Event().wait()

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await end([task])
    assert (swallowed, task.cancelled()) == (2, True)


async def test_what_has_ended_or_fails_meanwhile_is_fine() -> None:
    async def failing() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("late")

    done = asyncio.create_task(asyncio.sleep(0))
    await done
    task = asyncio.create_task(failing())
    await asyncio.sleep(0)
    await end([done, task])
    assert task.done()
    assert not task.cancelled()
