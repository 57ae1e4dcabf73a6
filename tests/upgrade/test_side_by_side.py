"""Processes of an older release and of this one, on one site."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from scheduler.migrations import check_schema
from scheduler.settings import ENV_PREFIX, Settings, load_settings
from tests.fixtures.postgres import database
from tests.fixtures.redis import flush
from tests.integration.scenario import (
    CHECKOUT,
    POLICY,
    QUICK_SESSION,
    EngineProcess,
    judge,
    publish,
    settled,
)
from tests.integration.worker_bench import joined
from tests.upgrade.release import RELEASES, unpacked

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

QUICK = (
    POLICY
    | QUICK_SESSION
    | {
        "POD_AUTOMATION_LIKE_MAX_DELAY_MS": "1500",
        "POD_AUTOMATION_COMMENT_MAX_DELAY_MS": "4000",
        "POD_AUTOMATION_PARTITIONS": "4",
    }
)

# 0.1.0, fenced in mid-transaction: nobody fetches the exception of what it had asked for. And where
# a broker refuses the end of one, aiokafka tells it with the way it took; the shard is taken anew.
KNOWN = re.compile(
    r"^.* Future exception was never retrieved\nfuture: .*\bProducerFenced\(.*\n"
    r"Traceback .*\n(?: .*\n)+aiokafka\.errors\.ProducerFenced: .*\n?"
    r"|^.* Unexpected error in sender routine\n"
    r"Traceback .*\n(?: .*\n)+aiokafka\.errors\.UnknownError: .*\n?",
    re.MULTILINE,
)


class Site:
    """Topics, keys and a database that the old release has made."""

    def __init__(self, environment: dict[str, str], old: Path, logs: Path) -> None:
        self.environment = environment
        names = {name.removeprefix(ENV_PREFIX).lower(): each for name, each in environment.items()}
        self.settings: Settings = load_settings(**names)
        self._old = old
        self._logs = logs
        self.processes: list[EngineProcess] = []

    async def start(self, command: str, *, old: bool) -> EngineProcess:
        """Returns once it has its share: by then it has looked at the schema."""
        kind = "old" if old else "new"
        log = self._logs / f"{self.settings.topic_prefix}{kind}-{command}-{len(self.processes)}"
        process = EngineProcess(
            command, self.environment, log=log, program=self._old if old else CHECKOUT
        )
        self.processes.append(process)
        await process.start()
        return process

    async def init(self, *, old: bool) -> None:
        process = EngineProcess("init", self.environment, program=self._old if old else CHECKOUT)
        await process.start()
        assert await process.ended() == 0

    async def joined(self, command: str, count: int) -> None:
        """Wait until `count` members of `command`'s group have settled who gets what."""
        settings = self.settings
        group = settings.worker_group if command == "worker" else settings.dispatcher_group
        await joined(settings, group, count)

    def no_bugs(self) -> None:
        """What an old release was known to log then cannot be mended any more."""
        for process in self.processes:
            assert process.log is not None
            said = process.log.read_text("utf-8")
            if "old-" in process.log.name:
                said = KNOWN.sub("", said)
            assert "Traceback" not in said, f"{process.log.name}\n{said}"


@asynccontextmanager
async def site(servers: Mapping[str, str], old: Path, logs: Path) -> AsyncIterator[Site]:
    prefix = f"s{uuid4().hex[:12]}."
    async with database(servers[ENV_PREFIX + "POSTGRES_DSN"]) as dsn:
        assert urlsplit(dsn).path
        own = {ENV_PREFIX + "POSTGRES_DSN": dsn, ENV_PREFIX + "TOPIC_PREFIX": prefix}
        made = Site({**servers, **QUICK, **own}, old, logs)
        try:
            await made.init(old=True)
            yield made
        finally:
            for process in made.processes:
                await process.kill()
            await flush(servers[ENV_PREFIX + "REDIS_URL"], prefix)
    made.no_bugs()


@pytest.mark.nightly
@pytest.mark.parametrize("release", RELEASES)
async def test_one_of_each(release: str, servers: Mapping[str, str], tmp_path: Path) -> None:
    """An old worker with a new dispatcher, and the other way round. An old process does not start
    on a newer schema, but one that runs goes on."""
    old = unpacked(release, tmp_path)
    await asyncio.gather(
        *(together(servers, old, tmp_path, command) for command in ("worker", "dispatcher"))
    )


async def together(servers: Mapping[str, str], old: Path, logs: Path, old_command: str) -> None:
    (new_command,) = {"worker", "dispatcher"} - {old_command}
    async with site(servers, old, logs) as made:
        first = await made.start(old_command, old=True)
        await made.joined(old_command, 1)
        await made.init(old=False)
        await check_schema(made.settings.postgres_dsn)
        second = await made.start(new_command, old=False)
        published = await publish(made.settings, 80, seed=41, over_s=2, most_members=15)
        await settled(made.settings, published)
        await judge(made.settings, published)
        assert [await first.stop(), await second.stop()] == [0, 0]


@pytest.mark.parametrize("release", RELEASES)
async def test_rolling_upgrade_under_load(
    release: str, servers: Mapping[str, str], tmp_path: Path
) -> None:
    """Two of each of the old release; new ones join, and the old ones are stopped, one by one."""
    old = unpacked(release, tmp_path)
    async with site(servers, old, tmp_path) as made:
        before = [
            await made.start(command, old=True)
            for command in ("worker", "worker", "dispatcher", "dispatcher")
        ]
        await made.joined("worker", 2)
        await made.joined("dispatcher", 2)
        publishing = asyncio.create_task(
            publish(made.settings, 200, seed=42, over_s=7, most_members=12)
        )
        await made.init(old=False)

        async def replaced(process: EngineProcess) -> None:
            after = await made.start(process.command, old=False)
            await made.joined(process.command, 3)
            assert await process.stop() == 0
            assert after.running

        for worker, dispatcher in zip(before[:2], before[2:], strict=True):
            await asyncio.gather(replaced(worker), replaced(dispatcher))
        published = await publishing
        await settled(made.settings, published)
        await judge(made.settings, published)
        assert [await each.stop() for each in made.processes[4:]] == [0] * 4
