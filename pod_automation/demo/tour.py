"""`demo --dashboard`: the engine at work for as long as one wants to look at it, and something to
find.

Posts keep coming, at a pace at which one can follow. One pod is paused from the beginning, so that
engagements are late; a record that is no event lies among the dead letters; the handler fails now
and then, as in the demo.
"""

import asyncio
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from pod_automation.cli.event_sender import EventSender
from pod_automation.cli.init import initialise
from pod_automation.client import PodAutomation
from pod_automation.demo.child import clean_environment, started
from pod_automation.demo.play import HANDLER, SERVERS_S, raise_death, settings_in, until_ready
from pod_automation.demo.scenario import Pacing, Scenario
from scheduler.settings import ENV_PREFIX, Settings

SPEED = 60
"""How much faster time runs: likes after up to half a minute, comments after up to six."""

PODS = 5
EVERY_S = 4.0
"""A post each."""

PORT = 8600

REASON = "the demo: find out why these are late"


class Tour:
    """One tour. Files of the processes and servers go to `directory`."""

    def __init__(self, directory: Path, say: Callable[[str], None]) -> None:
        self._directory = directory
        self._say = say
        self._run = f"demo-{uuid4().hex[:6]}"

    async def run(self) -> None:
        """Goes on until it is cancelled. Raises `ChildDiedError` and `StackError`."""
        from pod_automation.stack import EmbeddedStack

        pacing, token, port = Pacing(SPEED), secrets.token_urlsafe(24), _free_port()
        async with AsyncExitStack() as stack:
            self._say(f"Starting Kafka, Valkey and PostgreSQL in {self._directory}")
            servers = await stack.enter_async_context(
                EmbeddedStack(self._directory, on_progress=self._say)
            )
            environment = {
                **clean_environment(),
                **servers.environment,
                **pacing.environment,
                f"{ENV_PREFIX}QUEUE_CONCURRENCY": "50",
                f"{ENV_PREFIX}API_TOKENS": f"operator:you:{token}",
                f"{ENV_PREFIX}API_PORT": str(port),
            }
            settings = settings_in(environment)
            await initialise(settings, SERVERS_S)
            limit = ("--time-limit", f"{pacing.handler_limit_s:g}")
            children = await started(
                stack,
                environment,
                self._directory,
                ("worker",),
                ("dispatcher",),
                ("executor", "--handler", HANDLER, *limit),
                ("api",),
            )
            async with asyncio.TaskGroup() as group:
                for child in children:
                    group.create_task(child.watch())
                group.create_task(raise_death(servers))
                await until_ready(settings, self._directory)
                paused = await self._prepare(settings)
                self._say(
                    f"Posts keep coming: likes after up to half a minute, comments after up to six."
                    f" Pod {paused} is paused. Ctrl-C ends it"
                )
                self._say(f"Dashboard: http://127.0.0.1:{port}/#token={token}")
                await self._publish(settings)

    async def _prepare(self, settings: Settings) -> str:
        """Something to find: a pod that is paused."""
        pod = f"{self._run}-pod-{PODS}"
        async with PodAutomation(settings, actor="demo") as pods:
            await pods.pause(pod_id=pod, reason=REASON)
        return pod

    async def _publish(self, settings: Settings) -> None:
        """A post every few seconds, for ever; and once what is no event."""
        number = 0
        async with EventSender(settings) as sender:
            while True:
                scenario = Scenario.of(self._run, pods=PODS, posts=PODS * 10, stream_s=1.0)
                if not number:
                    await sender.send_record(b"broken", scenario.broken[0], [])
                for post in scenario.posts:
                    number += 1
                    one = replace(post, post_id=f"{self._run}-post-{number}")
                    await sender.send(*one.event(time.time_ns() // 1_000_000))
                    await sender.flush()
                    await asyncio.sleep(EVERY_S)


def _free_port() -> int:
    """The usual one, or any that is free."""
    for port in (PORT, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    return 0
