"""The stack in the foreground of a terminal."""

import asyncio
import contextlib
import json
import os
import shlex
import signal
import sys
from collections.abc import Coroutine
from typing import Any, TextIO, TypeVar

from pod_automation.stack.errors import PartError, StackError
from pod_automation.stack.part import RedisServer
from pod_automation.stack.stack import EmbeddedStack

FAILED = 7
"""What `run_stack` returns when the servers did not start or one of them died."""
_KILLED = 128 + signal.SIGINT
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# After the second Ctrl-C; by then every server was sent SIGKILL.
_LAST_S = 2.0

T = TypeVar("T")


async def run_stack(
    directory: str | os.PathLike[str],
    *,
    fresh: bool = False,
    redis_server: RedisServer = "valkey",
    json_output: bool = False,
) -> int:
    """Run the servers until SIGINT, SIGTERM or SIGHUP; a second one kills them at once.

    Progress goes to standard error; what to do next, once all answer, to standard output: in words,
    or with `json_output` as one JSON object on a line.

    Returns:
        The exit code: 0 stopped in order, 130 killed, `FAILED` otherwise. No StackError is raised:
        it is told on standard error.
    """
    stack = EmbeddedStack(directory, fresh=fresh, redis_server=redis_server, on_progress=_say)
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    killed = False

    def on_signal() -> None:
        nonlocal killed
        if asked.is_set():
            killed = True
            stack.kill_now()
            loop.call_later(_LAST_S, os._exit, _KILLED)
        asked.set()

    # Under nohup SIGHUP is ignored, and stays so.
    handled = [each for each in _STOPPING if each != signal.SIGHUP or _heard(each)]
    for number in handled:
        loop.add_signal_handler(number, on_signal)
    error: StackError | None = None
    try:
        await _unless(asked, stack.start())
        if not asked.is_set():
            _tell_ready(stack, json_output)
            error = await _unless(asked, stack.wait_for_death())
    except StackError as raised:
        error = raised
    finally:
        if error is None:
            _say("stopping (again to kill) ...")
        await stack.stop()
        for number in handled:
            loop.remove_signal_handler(number)
    if error is not None:
        _say(f"error: {error}")
        if isinstance(error, PartError):
            _say("the other servers were stopped")
        return FAILED
    _say("stopped; the data stays for the next time")
    return _KILLED if killed else 0


async def _unless(asked: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Do `work`, but drop it and give None as soon as we are asked to stop."""
    working = asyncio.create_task(work)
    waiting = asyncio.create_task(asked.wait())
    try:
        await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
        # A failure that came with the signal may be its doing.
        return working.result() if working.done() and not asked.is_set() else None
    finally:
        waiting.cancel()
        working.cancel()
        # To its end: it may have a server to see off.
        await asyncio.gather(working, waiting, return_exceptions=True)


def _tell_ready(stack: EmbeddedStack, json_output: bool) -> None:
    if json_output:
        ready = {
            "environment": stack.environment,
            "environment_file": str(stack.environment_file),
            "parts": {
                name: {
                    "server": part.title,
                    "pid": part.pid,
                    "port": part.port,
                    "log": str(part.log),
                }
                for name, part in stack.parts.items()
            },
        }
        _result(json.dumps(ready))
        return
    for part in stack.parts.values():
        _result(f"{part.title:<10} 127.0.0.1:{part.port}  log {part.log}")
    _result("Ready. In another terminal:")
    _result(f"    set -a; . {shlex.quote(str(stack.environment_file))}; set +a")
    _result("Ctrl-C stops the servers; the data stays.")


def _heard(number: signal.Signals) -> bool:
    return signal.getsignal(number) != signal.SIG_IGN


def _result(text: str) -> None:
    _write(sys.stdout, text)


def _say(text: str) -> None:
    _write(sys.stderr, text)


def _write(stream: TextIO, text: str) -> None:
    # A terminal that was closed, or the reader of a pipe that has gone, must not break the stop.
    with contextlib.suppress(OSError):
        stream.write(text + "\n")
        stream.flush()
