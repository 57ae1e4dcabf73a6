"""The commands as a user gives them, as processes, on real servers."""

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiokafka.partitioner import DefaultPartitioner

from pod_automation.cli.exit_codes import ExitCode
from pod_automation.demo.topic import read_through
from scheduler.settings import Settings
from tests.tied import tied
from tests.unit.program import COMMAND, NOWHERE, Outcome, command_environment

pytestmark = pytest.mark.timeout(240)

Environment = Mapping[str, str]


async def pod_automation(environment: Environment, *arguments: str, stdin: bytes = b"") -> Outcome:
    """Run one command to its end."""
    async with running(environment, *arguments) as process:
        out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return Outcome(process.returncode, out.decode(), err.decode())


async def result_of(environment: Environment, *arguments: str, stdin: bytes = b"") -> Any:
    """The JSON that a command prints, which must end well and say nothing else."""
    outcome = await pod_automation(environment, *arguments, "--json", stdin=stdin)
    assert (outcome.code, outcome.err) == (ExitCode.OK, "")
    return json.loads(outcome.out)


@asynccontextmanager
async def running(
    environment: Environment, *arguments: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A command as long as it is needed."""
    process = await asyncio.create_subprocess_exec(
        *tied(*COMMAND, *arguments),
        env=command_environment(environment),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def event(number: int, **more: object) -> dict[str, object]:
    return {
        "event_id": f"event-{number}",
        "pod_id": f"pod-{number % 3}",
        "post_id": f"post-{number}",
        "member_ids": ["ann", "bob", "cyd"],
        "detected_at": "2026-11-24T08:00:00+01:00",
        **more,
    }


def ndjson(*lines: object) -> bytes:
    return b"\n".join(
        each if isinstance(each, bytes) else json.dumps(each).encode() for each in lines
    )


async def test_init_makes_what_is_missing_and_is_needed(environment: dict[str, str]) -> None:
    for arguments in (("worker",), ("dispatcher",), ("run",), ("publish",), ("rebuild", "--all")):
        outcome = await pod_automation(environment, *arguments, stdin=ndjson(event(1)))
        assert outcome.code == ExitCode.NOT_READY
        assert outcome.shows_no_traceback()
        assert "run `pod-automation init`" in outcome.err
    made = await result_of(environment, "init")
    assert len(made["topics_created"]) == 7
    assert made["schema"]
    made = await result_of(environment, "init")
    assert (made["topics_created"], made["migrations"]) == ([], [])
    other = {**environment, "POD_AUTOMATION_PARTITIONS": "5"}
    for arguments in (("init",), ("worker",), ("rebuild", "--all")):
        outcome = await pod_automation(other, *arguments)
        assert outcome.code == ExitCode.NOT_READY
        assert "has 4 partitions" in outcome.err


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize(
    ("name", "more", "command"),
    [
        ("POD_AUTOMATION_POSTGRES_DSN", "?no_such_parameter=5", ("stats", "--pod", "p")),
        ("POD_AUTOMATION_POSTGRES_DSN", "nowhere", ("stats", "--pod", "p")),
        ("POD_AUTOMATION_REDIS_URL", "99", ("rebuild", "--all")),
    ],
)
async def test_an_address_that_leads_nowhere_names_its_setting(
    environment: dict[str, str], name: str, more: str, command: tuple[str, ...]
) -> None:
    outcome = await pod_automation(environment | {name: environment[name] + more}, *command)
    assert outcome.code == ExitCode.USAGE, outcome.err
    assert outcome.shows_no_traceback()
    assert name in outcome.err


@pytest.mark.usefixtures("settings")
async def test_ids_are_shown_as_they_are(environment: dict[str, str]) -> None:
    for command in ("stats", "prune"):
        outcome = await pod_automation(environment, command, "--pod", "[red]x[/y]")
        assert outcome.code == ExitCode.OK, outcome.err
        assert "Pod [red]x[/y]" in outcome.out
    # An id may be any text without control characters, joiners that show nothing included.
    joined = "\U0001f468\u200d\U0001f469"
    assert (await result_of(environment, "prune", "--pod", joined))["pod_id"] == joined
    for nobody in ("", "a\tb", "a\udcff"):
        outcome = await pod_automation(environment, "prune", "--pod", nobody)
        assert outcome.code == ExitCode.USAGE


@pytest.mark.usefixtures("settings")
async def test_a_database_of_another_schema_is_told(environment: dict[str, str]) -> None:
    connection = await asyncpg.connect(environment["POD_AUTOMATION_POSTGRES_DSN"])
    await connection.execute("update pod_automation_schema set version_num = '9999'")
    await connection.close()
    for arguments in (("dispatcher",), ("stats", "--pod", "p"), ("status",), ("init",)):
        outcome = await pod_automation(environment, *arguments)
        assert outcome.code == ExitCode.NOT_READY
        assert outcome.shows_no_traceback()
        assert "9999" in outcome.out + outcome.err


async def test_published_events_are_in_kafka_as_they_were_given(
    environment: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    count = 5000
    lines = [json.dumps(event(n, colour="grün", nested={"a": [n]})).encode() for n in range(count)]
    (tmp_path / "events.ndjson").write_bytes(b"\n".join(lines))
    done = await result_of(environment, "publish", "--file", str(tmp_path / "events.ndjson"))
    assert (done["published"], done["invalid"]) == (count, 0)

    partition_of = DefaultPartitioner()
    partitions = list(range(settings.partitions))
    seen = []
    async for record in read_through(
        settings.kafka_bootstrap, settings.topics.post_detected, settings.partitions
    ):
        fields = json.loads(record.value)
        assert record.key == fields["post_id"].encode()
        assert record.partition == partition_of(record.key, partitions, partitions)
        headers = dict(record.headers)
        assert headers["ce_id"] == fields["event_id"].encode()
        assert headers["ce_type"] == b"pod-automation.post-detected.v1"
        assert headers["ce_time"] == b"2026-11-24T07:00:00.000Z"
        seen.append(record.value)
    assert sorted(seen) == sorted(lines)


async def test_bad_lines_keep_good_ones_back_or_are_skipped(
    environment: dict[str, str], settings: Settings
) -> None:
    lines = ndjson(event(1), b"nonsense", event(2))

    async def in_kafka() -> int:
        records = read_through(
            settings.kafka_bootstrap, settings.topics.post_detected, settings.partitions
        )
        return len([record async for record in records])

    outcome = await pod_automation(environment, "publish", stdin=lines)
    assert outcome.code == ExitCode.USAGE
    assert "line 2: not JSON" in outcome.err
    assert await in_kafka() == 0
    outcome = await pod_automation(environment, "publish", "--skip-invalid", stdin=lines)
    assert outcome.code == ExitCode.OK
    assert "published 2 events" in outcome.out
    assert await in_kafka() == 2


@pytest.mark.usefixtures("settings")
async def test_the_engine_in_one_process(environment: dict[str, str]) -> None:
    async with running(environment, "run") as engine:
        done = await result_of(
            environment,
            *(
                "publish",
                "--pod",
                "p",
                "--post",
                "x",
                "--members",
                "ann,bob,cyd",
                "--author",
                "ann",
            ),
        )
        assert done["published"] == 1
        async with asyncio.timeout(60):
            while (await result_of(environment, "stats", "--pod", "p"))["scheduled"] < 4:
                pass
        seen = await result_of(environment, "status")
        assert (seen["workers"], seen["dispatchers"]) == (1, 1)
        assert seen["activities"]["total"] == 4
        assert [shard["lag"] for shard in seen["shards"]] == [0, 0, 0, 0]
        assert sum(shard["pending"] for shard in seen["shards"]) == 4
        before = [shard["generation"] for shard in seen["shards"]]

        rebuilt = await result_of(environment, "rebuild", "--all")
        assert set(rebuilt["rebuilt"]) == {"0", "1", "2", "3"}
        seen = await result_of(environment, "status")
        after = [shard["generation"] for shard in seen["shards"]]
        assert not set(before) & set(after)
        assert sum(shard["pending"] for shard in seen["shards"]) == 4

        table = await pod_automation(environment, "status")
        assert "1 worker, 1 dispatcher" in table.out
        assert re.search(r"^Dispatches:  127\.0\.0\.1 \S{6}: 0 1 2 3$", table.out, re.MULTILINE)
        assert "4 scheduled" in table.out

        engine.send_signal(signal.SIGTERM)
        out, err = await engine.communicate()
        assert engine.returncode == 0, err.decode()
        assert out == b""
        assert all(line.startswith(b"[POD_AUTOMATION] ") for line in err.splitlines())


@pytest.mark.usefixtures("settings")
async def test_rebuild_says_when_nobody_answers(environment: dict[str, str]) -> None:
    outcome = await pod_automation(environment, "rebuild", "--shard", "2", "--timeout", "0.5")
    assert outcome.code == ExitCode.NO
    assert "no dispatcher has rebuilt shards 2" in outcome.err
    outcome = await pod_automation(environment, "rebuild", "--shard", "2", "--no-wait")
    assert outcome.code == ExitCode.OK
    assert "shards 2" in outcome.out


@pytest.mark.usefixtures("settings")
async def test_a_pod_that_nobody_has_heard_of_has_nothing(environment: dict[str, str]) -> None:
    stats = await result_of(environment, "stats", "--pod", "unheard-of")
    assert stats.pop("pod_id") == "unheard-of"
    assert set(stats.values()) == {0}


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("away", sorted(NOWHERE))
async def test_status_shows_what_is_left(environment: dict[str, str], away: str) -> None:
    outcome = await pod_automation({**environment, away: NOWHERE[away]}, "status", "--json")
    assert outcome.code == ExitCode.STORE_AWAY
    seen = json.loads(outcome.out)
    assert [store["ok"] for store in seen["stores"].values()].count(True) == 2
    assert len(seen["shards"]) == 4
