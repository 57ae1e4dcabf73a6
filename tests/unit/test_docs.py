"""The words are true: what they name exists, and what they show runs."""

import asyncio
import inspect
import json
import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import aiokafka
import pytest

from bench import publish
from pod_automation.api import reference
from pod_automation.executor import Engagement
from scheduler import settings_reference
from scheduler.settings import ENV_PREFIX, FILE_SUFFIX, Settings
from schemas.codec import decode
from schemas.events import ExecuteEngagement, PostDetected
from schemas.examples import EXAMPLES
from schemas.ids import activity_id
from schemas.json_schema import example

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*(ROOT / "docs").glob("*.md"), *(ROOT / f"{name}.md" for name in ("README", "CHANGELOG"))]
)
README = (ROOT / "README.md").read_text("utf-8")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def text_of(page: Path) -> str:
    return page.read_text("utf-8")


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.M | re.S)


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the page's headings."""
    prose = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.M | re.S)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", prose, re.M)
    }


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@each_page
def test_paths_in_code_spans_exist(page: Path) -> None:
    for path in re.findall(
        r"`((?:schemas|scheduler|streams|pod_automation|tests)/[\w./]*)`", text_of(page)
    ):
        assert (ROOT / path).exists(), path


@each_page
def test_variables_exist(page: Path) -> None:
    known = {ENV_PREFIX + name.upper() for name in Settings.model_fields}
    named = set(re.findall(rf"{ENV_PREFIX}[A-Z_]*[A-Z]", text_of(page)))
    assert {name.removesuffix(FILE_SUFFIX) for name in named - known} <= known


def test_the_openapi_document_is_fresh() -> None:
    assert reference.main(["--check"]) == 0


def test_configuration_is_fresh() -> None:
    assert settings_reference.main(["--check"]) == 0


def test_configuration_has_every_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        assert settings_reference.page().count(f"| `{ENV_PREFIX}{name.upper()}` |") == 1
    monkeypatch.setattr(settings_reference, "PAGE", tmp_path / "page.md")
    assert settings_reference.main(["--check"]) == 1
    assert settings_reference.main([]) == 0
    assert settings_reference.main(["--check"]) == 0


def shown_events() -> Iterator[object]:
    for block in blocks(text_of(ROOT / "docs" / "events.md"), "json"):
        yield json.loads(block)


def test_examples_are_those_of_the_schemas() -> None:
    assert list(shown_events()) == [example(event_type) for event_type in EXAMPLES]


def commands() -> dict[str, set[str]]:
    """The options of each command of the program; of the program itself under ''."""
    if find_spec("pod_automation.cli") is None:
        pytest.skip("no command line yet")
    import typer

    from pod_automation.cli.entry import app

    root: Any = typer.main.get_command(app)
    options = {
        name: {
            option
            # A group has those of its commands.
            for one in (command, *getattr(command, "commands", {}).values())
            for each in one.params
            for option in (*each.opts, *each.secondary_opts)
        }
        for name, command in root.commands.items()
    }
    options[""] = {option for each in root.params for option in each.opts}
    return {name: {*found, "-h", "--help"} for name, found in options.items()}


@each_page
def test_commands_and_their_options_exist(page: Path) -> None:
    known = commands()
    said = re.findall(r"\bpod-automation((?: [a-z]+| --?[\w-]+)[^`|#&\n]*)", text_of(page))
    for line in said:
        words = line.split()
        if words[0].startswith("-"):
            assert words[0] in known[""], line
            continue
        command = words[0]
        if page.name == "CHANGELOG.md" and command not in known:
            continue
        assert command in known, line
        named = {word.partition("=")[0] for word in words[1:] if word.startswith("-")}
        assert named <= known[command], line


def test_every_command_is_in_the_reference() -> None:
    page = text_of(ROOT / "docs" / "cli.md")
    for command in commands():
        assert not command or f"`pod-automation {command}" in page, command


def test_exit_codes_are_those_of_the_program() -> None:
    if find_spec("pod_automation.cli") is None:
        pytest.skip("no command line yet")
    from pod_automation.cli.exit_codes import ExitCode

    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", text_of(ROOT / "docs" / "cli.md"), re.M)
    assert [(int(code), name) for code, name in rows] == [(c.value, c.name) for c in ExitCode]


def test_no_page_is_left_out() -> None:
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)", README))
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert linked == {f"docs/{name}" for name in pages - {"index.md"}}
    assert set(re.findall(r": ([\w-]+\.md)$", text_of(ROOT / "mkdocs.yml"), re.M)) == pages


# The two programs in README.md run here as they stand, the first against a client that checks how
# it is called and never leaves the process.


def checked(real: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    """Fails where the `real` one would not take these arguments."""
    inspect.signature(real).bind(*arguments, **options)


class Producer:
    sent: list[tuple[str, bytes, bytes]]

    def __init__(self, **options: Any) -> None:
        checked(REAL_PRODUCER, (), options)
        assert options["bootstrap_servers"] == "broker:9092"

    async def __aenter__(self) -> "Producer":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def send_and_wait(self, topic: str, value: bytes, *, key: bytes) -> None:
        self.sent.append((topic, key, value))


REAL_PRODUCER = aiokafka.AIOKafkaProducer


async def test_the_producer_in_the_readme_sends_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    program, _, start = blocks(README, "python")[0].rstrip().rpartition("\n")
    assert start == "asyncio.run(main())"
    monkeypatch.setenv("POD_AUTOMATION_KAFKA_BOOTSTRAP", "broker:9092")
    monkeypatch.setattr(aiokafka, "AIOKafkaProducer", Producer)
    monkeypatch.setattr(Producer, "sent", [], raising=False)
    names: dict[str, Any] = {}
    exec(compile(program, "README.md", "exec"), names)  # noqa: S102 - our own page
    async with asyncio.timeout(10):
        await names["main"]()
    ((topic, key, value),) = Producer.sent
    event = decode(PostDetected, value)
    assert (topic, key) == ("post-detected", event.post_id.encode())


async def test_the_handler_in_the_readme_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(compile(blocks(README, "python")[1], "README.md", "exec"), names)  # noqa: S102 - ours
    todo = EXAMPLES[ExecuteEngagement]
    assert isinstance(todo, ExecuteEngagement)
    await names["handle"](Engagement.of(todo))
    assert activity_id(todo.pod_id, todo.post_id, todo.member_id, "like") in capsys.readouterr().out


def test_what_is_told_of_benchmarks_is_of_the_last_run() -> None:
    found = json.loads(publish.RESULTS.read_bytes())
    for page in publish.PAGES:
        assert publish.rendered(page, found) == text_of(page)
    assert {each.stem for each in publish.PICTURES.iterdir()} == {
        *("rates", "bytes", "lateness", "growth", "limits")
    }
