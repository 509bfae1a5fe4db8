"""The demo's process: the replay always, and the traders where they are wanted, until SIGTERM or Ctrl-C."""

import asyncio
import signal

from app.bus import Bus
from app.demo.replay import run_replay
from app.demo.seed import require_development
from app.demo.traders import SEED, TURNS_PER_SECOND, run
from app.services import connect_redis
from app.settings import Settings
from app.telemetry import configure_logging


async def main_run(
    settings: Settings, url: str, *, turns_per_second: float = TURNS_PER_SECOND, seed: int = SEED
) -> None:
    """Replay the series, and trade at the API `url` unless `settings.demo_traders` is false, until asked to end.

    Raises `DatabaseMisconfigured` outside of development.
    """
    require_development(settings)
    configure_logging(settings.log_level)
    redis = connect_redis(settings) if settings.effective_redis_url else None
    bus = Bus(redis)
    bus.start()
    parts = [asyncio.create_task(run_replay(settings, bus), name="replay")]
    if settings.demo_traders:
        traders = run(url, settings, turns_per_second=turns_per_second, seed=seed)
        parts.append(asyncio.create_task(traders, name="traders"))
    loop = asyncio.get_running_loop()
    ending = asyncio.ensure_future(asyncio.gather(*parts))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.cancel)
    try:
        await ending
    except asyncio.CancelledError:
        # Asked to end by a signal, or by whoever awaits this: only the latter must hear of it.
        if (task := asyncio.current_task()) and task.cancelling():
            raise
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        for part in parts:
            part.cancel()
        await asyncio.gather(*parts, return_exceptions=True)
        await bus.stop()
        if redis is not None:
            await redis.aclose()
