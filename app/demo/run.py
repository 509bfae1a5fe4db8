"""The demo's process, `megatron demo run`: the traders, until SIGTERM or Ctrl-C."""

import asyncio
import signal

from app.demo.seed import require_development
from app.demo.traders import SEED, TURNS_PER_SECOND, run
from app.settings import Settings
from app.telemetry import configure_logging


async def main_run(
    settings: Settings, url: str, *, turns_per_second: float = TURNS_PER_SECOND, seed: int = SEED
) -> None:
    """Trade at the API `url` until asked to end. Raises `DatabaseMisconfigured` outside of development."""
    require_development(settings)
    configure_logging(settings.log_level)
    traders = asyncio.create_task(run(url, settings, turns_per_second=turns_per_second, seed=seed), name="traders")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, traders.cancel)
    try:
        await traders
    except asyncio.CancelledError:
        # Asked to end by a signal, or by whoever awaits this: only the latter must hear of it.
        if (task := asyncio.current_task()) and task.cancelling():
            raise
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        traders.cancel()
        await asyncio.gather(traders, return_exceptions=True)
