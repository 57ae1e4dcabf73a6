"""`pod-automation stack`: the embedded stack in the foreground, until it is told to stop."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from pod_automation.stack.errors import StackError
from pod_automation.stack.folder import ENVIRONMENT
from pod_automation.stack.redis import Kind
from pod_automation.stack.stack import EmbeddedStack


def _say(message: str) -> None:
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


async def run_stack(
    directory: Path | str,
    *,
    fresh: bool = False,
    redis_server: Kind = "valkey",
    json_output: bool = False,
) -> int:
    """Run the stack until SIGINT or SIGTERM; returns 0 then.

    Raises `StackError` when a part does not come up, or ends by itself. A second signal while
    stopping ends the process at once; the parts notice that and stop by themselves.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def asked() -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()

    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, asked)
    stopping = asyncio.ensure_future(stop.wait())
    stack = EmbeddedStack(directory, fresh=fresh, redis_server=redis_server, on_progress=_say)
    entering = asyncio.ensure_future(stack.__aenter__())
    await asyncio.wait([entering, stopping], return_when=asyncio.FIRST_COMPLETED)
    if not entering.done():
        # Stopped while starting: cancelling it stops what has started.
        entering.cancel()
        await asyncio.gather(entering, return_exceptions=True)
        return 0
    entering.result()
    try:
        path = stack.directory / ENVIRONMENT
        if json_output:
            print(json.dumps({"directory": str(stack.directory), **stack.environment}), flush=True)
        else:
            for name, value in stack.environment.items():
                print(f"{name}={value}", flush=True)
        _say(f"ready; in another shell: set -a; . {path}; set +a")
        _say(f"logs are in {stack.directory / 'logs'}; Ctrl-C stops the stack, its data stays")
        failed = asyncio.ensure_future(stack.failed())
        await asyncio.wait([failed, stopping], return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done():
            server = failed.result()
            raise StackError(f"{server.part.name} has ended by itself. {server.tail()}")
        failed.cancel()
        _say("stopping")
    finally:
        await stack.__aexit__(None, None, None)
    return 0
