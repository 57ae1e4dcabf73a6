"""`--handler`: found, or one line that says why not."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pod_automation.cli.exit_codes import ExitCode
from pod_automation.executor.checks import HandlerError
from pod_automation.executor.loading import load_handler
from tests.unit.program import call

SOURCE = """
import functools
from pod_automation.executor import threaded

async def handle(engagement): ...
async def more(engagement, greeting="hello"): ...
async def none(): ...
async def two(engagement, other): ...
def sync(engagement): ...
bound = functools.partial(more, greeting="hi")
threads = threaded(sync)
number = 7

class Handler:
    async def __call__(self, engagement): ...
    async def method(self, engagement): ...

instance = Handler()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory of whoever gives the command."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    before = set(sys.modules)
    (tmp_path / "mine.py").write_text(SOURCE)
    (tmp_path / "broken.py").write_text("import nothing_like_it\n")
    (tmp_path / "worse.py").write_text("1 / 0\n")
    (tmp_path / "ending.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "garbled.py").write_text("def (:\n")
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "name",
    [
        "mine:handle",
        "mine:more",
        "mine:bound",
        "mine:instance",
        "mine:instance.method",
        "mine:threads",
    ],
)
def test_handlers(name: str) -> None:
    assert callable(load_handler(name))


WRONG = {
    "mine": "write package.module:function",
    "mine:": "write package.module:function",
    ":handle": "write package.module:function",
    "nowhere:handle": "there is no module 'nowhere'",
    "mine.sub:handle": "there is no module 'mine.sub'",
    "broken:handle": "importing broken failed: ModuleNotFoundError: No module named 'nothing_like_",
    "worse:handle": "importing worse failed: ZeroDivisionError: division by zero",
    "ending:handle": "importing ending failed: SystemExit: 3",
    "garbled:handle": "importing garbled failed: SyntaxError",
    "mine:handel": "there is no 'handel' in mine (it has handle, more, none, two, threads)",
    "mine:sync": "mine:sync is not async: write `async def handle(engagement)`, or for a function"
    " that blocks `handle = threaded(function)`",
    "mine:number": "mine:number is no function",
    "mine:Handler": "mine:Handler is no function",
    "mine:none": "mine:none must take one argument, the engagement; it takes ()",
    "mine:two": "it takes (engagement, other)",
}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("name", "said"), WRONG.items(), ids=WRONG)
def test_what_is_none_is_told_in_one_line(name: str, said: str) -> None:
    with pytest.raises(HandlerError) as raised:
        load_handler(name)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", ["mine", "nowhere:handle", "worse:handle", "mine:sync"])
def test_the_command_ends_with_usage(name: str) -> None:
    outcome = call("executor", "--handler", name)
    assert outcome.code == ExitCode.USAGE
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: --handler: ")
    assert WRONG[name] in line
    assert outcome.out == ""


@pytest.mark.parametrize(
    "arguments",
    [("--concurrency", "0"), ("--time-limit", "0"), ("--remember", "disk"), ("--unknown",)],
    ids=" ".join,
)
def test_wrong_options(arguments: tuple[str, ...]) -> None:
    outcome = call("executor", *arguments)
    assert outcome.code == ExitCode.USAGE
    assert "Usage" in outcome.err
    assert outcome.shows_no_traceback()


def test_a_time_limit_ends() -> None:
    outcome = call("executor", "--time-limit", "inf")
    assert outcome.code == ExitCode.USAGE
    assert outcome.err == "error: --time-limit must be above 0, and no infinity: not inf\n"


@pytest.mark.parametrize(
    "source",
    [
        "def __getattr__(name): raise RuntimeError(name)",
        "class Odd:\n  __signature__ = 3\n  async def __call__(self, e): ...\nhandle = Odd()",
        "class Mute(Exception):\n  def __str__(self): raise ValueError\nraise Mute",
        "class End(BaseException): ...\nraise End",
    ],
)
def test_a_module_of_any_kind_is_one_line(folder: Path, source: str) -> None:
    """Found by the fuzzer, each with a traceback."""
    name = f"odd{abs(hash(source))}"
    (folder / f"{name}.py").write_text(source)
    with pytest.raises(HandlerError) as refused:
        load_handler(f"{name}:handle")
    assert len(str(refused.value).splitlines()) == 1
