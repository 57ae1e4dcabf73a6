"""Whatever is typed: an answer, or a line that says what is wrong, and a code with a meaning."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from unittest.mock import patch

import pytest

from pod_automation.cli.exit_codes import ExitCode
from pod_automation.executor.checks import HandlerError
from pod_automation.executor.loading import load_handler
from pod_automation.stack import StackError
from schemas.codec import InvalidEvent, decode
from schemas.events import PostDetected
from tests.fuzz.arguments import HANDLERS, commands, line
from tests.fuzz.octets import value
from tests.fuzz.size import RECORDS, randomness, told
from tests.unit.program import NOWHERE, Outcome, call

# A night's records take their time.
pytestmark = pytest.mark.timeout(120 + RECORDS // 200)

LINES = max(200, RECORDS // 12)

ALL = commands()


@pytest.fixture
def without_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What would run until a signal comes ends at once: everything before it is real."""
    monkeypatch.chdir(tmp_path)
    path = sys.path[:]

    def ended(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    async def no_servers(*_: object, **__: object) -> None:
        raise StackError("not in this test")

    with ExitStack() as stack:
        for name in ("pod_automation.processes.serve", "pod_automation.executor.serve"):
            stack.enter_context(patch(name, ended))
        stack.enter_context(patch("pod_automation.stack.run.EmbeddedStack.start", no_servers))
        stack.enter_context(patch("pod_automation.demo.play.Demo.run", no_servers))
        yield
    sys.path[:] = path


def judged(arguments: list[str], outcome: Outcome) -> None:
    said = outcome.out + outcome.err
    assert outcome.code in set(ExitCode), said
    assert outcome.code != ExitCode.BUG, said
    if "--debug" not in arguments:
        assert outcome.shows_no_traceback(), said
    if outcome.code in (ExitCode.USAGE, ExitCode.STORE_AWAY, ExitCode.NOT_READY, ExitCode.STACK):
        # `status` and `list` put what is away into the result.
        assert said.strip(), "not a word"


def test_every_command_with_arguments_of_little_sense(without_processes: None) -> None:
    codes = set()
    names = sorted(ALL)
    for number in range(LINES):
        rng = randomness("arguments", number)
        chosen = names[number % len(names)]
        arguments = line(rng, chosen, ALL[chosen])
        with told("arguments", number, repr(arguments).encode()):
            outcome = call(*arguments, stdin=rng.choice((b"", b"y\n", b"\xff", b"{}\n")))
            judged(arguments, outcome)
        codes.add(outcome.code)
    assert {ExitCode.OK, ExitCode.USAGE, ExitCode.STORE_AWAY} <= codes


def test_ndjson_of_any_kind(without_processes: None, tmp_path: Path) -> None:
    for number in range(RECORDS // 50):
        rng = randomness("ndjson", number)
        lines = [_line(rng) for _ in range(rng.randrange(12))]
        ends = rng.choice((b"\n", b"\r\n", b"\n\n", b"\r"))
        text = rng.choice((b"", b"\xef\xbb\xbf", b"\n")) + ends.join(lines)
        arguments = ["publish", "--json", *(["--skip-invalid"] * rng.randrange(2))]
        arguments += ["--dry-run"] * (rng.random() < 0.8)
        if file := rng.random() < 0.3:
            (tmp_path / "events").write_bytes(text)
            arguments += ["--file", "events"]
        with told("ndjson", number, text):
            outcome = call(*arguments, stdin=b"" if file else text)
            judged(arguments, outcome)
            assert outcome.code in (ExitCode.OK, ExitCode.USAGE, ExitCode.STORE_AWAY)
            if "--dry-run" in arguments and ends != b"\r":
                bad = sum(
                    not _valid(each) for each in text.removeprefix(b"\xef\xbb\xbf").split(b"\n")
                )
                skips = "--skip-invalid" in arguments
                assert outcome.code == (ExitCode.USAGE if bad and not skips else ExitCode.OK)
                assert f'"invalid":{bad},' in outcome.out


def _line(rng: Random) -> bytes:
    made = value(rng, PostDetected) or b""
    return made.replace(b"\n", b" ").replace(b"\r", b" ")[: rng.choice((10**6, 10**6, 100))]


def _valid(text: bytes) -> bool:
    try:
        decode(PostDetected, text.strip() or b"{}")
    except InvalidEvent:
        return not text.strip()
    return len(text) <= 900_000


SOURCES = (
    "async def handle(e): pass", "def handle(e): pass", "async def handle(): pass", "handle = 1",
    "async def handle(a, b): pass", "async def handle(*a, **k): pass", "class handle: pass",
    "raise SystemExit", "raise SystemExit(3)", "raise KeyError('x')",
    "import no_such_module", "1 / 0",
    "def f():", "\x00", "x = '\\ud800'; raise ValueError(x)", "raise Exception('\\n' * 50)",
    "class A:\n  async def __call__(self, e): pass\nhandle = A()", "import functools, asyncio\n"
    "handle = functools.partial(asyncio.sleep, 1)", "def __getattr__(n): raise RuntimeError(n)",
    "class M:\n  def __getattr__(s, n): raise ValueError(n)\nhandle = M()", "handle = print",
    "class A:\n  __signature__ = 3\n  async def __call__(self, e): pass\nhandle = A()",
    "class E(Exception):\n  def __str__(s): raise ValueError\nraise E", "from . import x",
    "class E(BaseException): pass\nraise E", "async def handle(e):\n  yield",
)  # fmt: skip


def test_handlers_of_any_kind(without_processes: None, tmp_path: Path) -> None:
    for number, source in enumerate((*SOURCES, *HANDLERS)):
        name = source
        if number < len(SOURCES):
            name = f"fuzzed_{number}:handle"
            (tmp_path / f"fuzzed_{number}.py").write_bytes(source.encode())
        with told("handler", number, source.encode(errors="surrogateescape")):
            outcome = call("executor", "--handler", name)
            judged([], outcome)
            assert outcome.code in (ExitCode.USAGE, ExitCode.INTERRUPTED)
            if outcome.code == ExitCode.USAGE:
                assert len(outcome.err.splitlines()) == 1
                with pytest.raises(HandlerError):
                    load_handler(name)


ENVIRONMENTS = (
    {"KAFKA_BOOTSTRAP": "127.0.0.1:x"},
    {"KAFKA_BOOTSTRAP": "127.0.0.1:1,127.0.0.1:1"},
    {"REDIS_URL": "redis://127.0.0.1:x/0"},
    {"REDIS_URL": "redis://127.0.0.1:1/x"},
    {"REDIS_URL": "redis://127.0.0.1:1/0?x=y"},
    {"REDIS_URL": "unix:///nowhere?db=y"},
    {"POSTGRES_DSN": "postgresql://127.0.0.1:x/y"},
    {"POSTGRES_DSN": "postgresql://127.0.0.1:1/y?sslmode=maybe"},
    {"POSTGRES_DSN": "postgresql://127.0.0.1:1,127.0.0.1:1/y"},
)
ASKING = (
    ("init", "--wait", "0"),
    ("publish", "--pod", "p", "--post", "x", "--member", "m"),
    ("stats", "--pod", "p"),
    ("schedule", "likes", "--pod", "p", "--timeout", "0.001"),
    ("clear", "--yes", "--timeout", "0"),
    ("status",),
    ("rebuild", "--all", "--timeout", "0"),
    ("prune",),
    ("dead-letters", "list"),
    ("executor", "--remember", "redis"),
)


@pytest.mark.parametrize("made", ENVIRONMENTS, ids=str)
def test_addresses_that_nobody_has(without_processes: None, made: dict[str, str]) -> None:
    environment = NOWHERE | {f"POD_AUTOMATION_{name}": each for name, each in made.items()}
    for arguments in ASKING:
        with told(" ".join(arguments), 0, repr(made).encode()):
            judged([*arguments], call(*arguments, environment=environment))
