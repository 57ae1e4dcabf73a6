"""A worker as a process of its own: what `pod-automation worker` does, without the command line."""

import asyncio
import signal

import uvloop

from pod_automation.logs import configure
from scheduler.settings import load_settings
from streams.worker import run_worker


async def main() -> None:
    """Run until SIGTERM."""
    settings = load_settings()
    configure(settings.log_level)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await run_worker(settings, stop)


if __name__ == "__main__":
    uvloop.run(main())
