"""Every command that a page of the docs shows runs, on an engine at work."""

import re
import shlex
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from pod_automation.cli.exit_codes import ExitCode
from scheduler.adapters.kafka_topics import ensure_topics
from scheduler.settings import Settings
from schemas.ids import activity_id
from tests.integration.scenario import EngineProcess
from tests.integration.test_cli import pod_automation, result_of
from tests.integration.worker_bench import send_raw, until

pytestmark = pytest.mark.timeout(240)

DOCS = Path(__file__).parents[2] / "docs"
GUIDES = ("controls", "dead-letters", "retention", "runbook")
# These show how commands are put together, and no command to be typed as it is.
NAMING = {"cli", "events", "capacity"}
# It is typed word for word by tests/integration/test_tutorial.py.
ELSEWHERE = {"tutorial"}
OTHERS = tuple(sorted({page.stem for page in DOCS.glob("*.md")} - {*GUIDES, *NAMING, *ELSEWHERE}))

# Processes that go on until they are ended; each has tests of its own.
ENDLESS = {"api", "demo", "dispatcher", "executor", "run", "stack", "worker"}
# Asks before it acts, which a test cannot answer.
ASKS = {"cancel", "clear", "forget-member"}


def commands_in(page: str) -> list[list[str]]:
    """What is to be typed: lines of code blocks, and whole commands within the text."""
    text = (DOCS / f"{page}.md").read_text("utf-8")
    block = re.compile(r"^```(?:sh|bash)?\n(.*?)^```$", re.M | re.S)
    shown = words_of(line for found in block.findall(text) for line in found.splitlines())
    named = words_of(re.findall(r"`(pod-automation [^`]+)`", block.sub("", text)))
    whole = {words[0] for words in shown + named if len(words) > 1}
    # A bare name within the text speaks of the command that is shown whole elsewhere.
    named = [words for words in named if len(words) > 1 or words[0] not in whole]
    return [words for words in shown + named if words[0] not in ENDLESS]


def words_of(lines: Iterable[str]) -> list[list[str]]:
    """The words behind `pod-automation`, of those lines that begin so."""
    return [
        shlex.split(line, comments=True)[1:] for line in lines if line.startswith("pod-automation ")
    ]


def filled(word: str, real: Mapping[str, str]) -> str:
    """`word`, or what stands for it here."""
    return next((value for form, value in real.items() if re.fullmatch(form, word)), word)


async def test_every_command_that_is_named_is_there() -> None:
    named = {words[0] for page in NAMING for words in commands_in(page)} - {"--help"}
    assert len(named) > 15
    for name in sorted(named):
        shown = await pod_automation({}, name, "--help")
        assert shown.code == ExitCode.OK, name


@pytest.mark.parametrize("pages", [*((page,) for page in GUIDES), OTHERS], ids=[*GUIDES, "others"])
async def test_every_command_runs(
    environment: dict[str, str], settings: Settings, pages: tuple[str, ...]
) -> None:
    commands = [words for page in pages for words in commands_in(page)]
    commands = [words for at, words in enumerate(commands) if words not in commands[:at]]
    assert len(commands) >= 2
    await ensure_topics(settings)
    ours = environment | {"POD_AUTOMATION_SESSION_TIMEOUT_MS": "30000"}
    activity = activity_id("p1", "q7", "bob", "comment")
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    async with AsyncExitStack() as stack:
        for name in ("worker", "dispatcher"):
            process = EngineProcess(name, ours)
            await process.start()
            stack.push_async_callback(process.kill)
        producer = await stack.enter_async_context(
            AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap)
        )
        for post in ("q7", "42"):
            told = ["publish", "--pod", "p1", "--post", post, "--members", "ann,bob"]
            assert (await pod_automation(ours, *told)).code == ExitCode.OK
        for topic in (settings.topics.post_detected, settings.topics.engagement_executed):
            await send_raw(producer, topic, 3, (None, b"nonsense", []))

        async def ready() -> bool:
            letters = await result_of(ours, "dead-letters", "list")
            stats = await result_of(ours, "stats", "--pod", "p1")
            return len(letters["letters"]) == 2 and stats["scheduled"] == 8

        await until(ready, "what the commands speak of", every_s=0.5)
        ids = [each["id"] for each in (await result_of(ours, "dead-letters", "list"))["letters"]]
        real = {
            r"ACTIVITY|ID": activity,
            "N": "3",
            r"\d{4}-\d\d-\d\dT.*": tomorrow,
            r"post-detected/\d+/\d+": next(one for one in ids if "post-detected" in one),
            r"engagement-executed/\d+/\d+": next(one for one in ids if "executed" in one),
        }
        for words in commands:
            typed = [filled(word, real) for word in words]
            if "--pod" in words and "ID" in words:
                typed = ["p1" if word == "ID" else word for word in words]
            if words[0] in ASKS and "--yes" not in words:
                typed.append("--yes")
            outcome = await pod_automation(ours, *typed)
            allowed = {ExitCode.OK, *([ExitCode.DIFFERENT] if words[0] == "reconcile" else [])}
            assert outcome.code in allowed, (shlex.join(typed), outcome)
            assert outcome.shows_no_traceback()
