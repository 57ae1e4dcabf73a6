"""Command lines of little sense, for every command and option that there is.

Read from the program itself, so that a new option is fuzzed from its first day.
"""

from enum import Enum
from pathlib import Path
from random import Random
from typing import Any

import typer

from pod_automation.cli.entry import app
from tests.fuzz.events import TIMES

# What each kind of option might be given by mistake. NUL cannot be in an argument.
TEXTS = (
    "", " ", "-", "--", "---", "x", "p1", "0", "-1", "x" * 201, "x" * 9000, "a,b,c", ",", ",,",
    "a,,b",
    "\udcff", "\n", "\x1b[31m", "\x7f", "\N{SNOWMAN}", "\u202e", "[bold]x[/bold]", "[/x]", "{x}",
    "post-detected/0/1", "post-detected", "post-detected/-1", "post-detected/99999999999",
    "a/b/c/d",
    "1h", "999999999w", "9999999999w", "-1h", "1.5h", "*", "(", "https://x/?y", "../..", "like",
    *TIMES,
)  # fmt: skip
NUMBERS = (
    "0",
    "-1",
    "1",
    "0.001",
    "1e9",
    "1e999",
    "nan",
    "inf",
    "-inf",
    "x",
    "",
    "0x1",
    "9" * 40,
    "1_0",
)
# How long to wait is left to nobody's chance: what is valid is short.
SECONDS = ("0", "0.001", "-1", "nan", "-inf", "x", "")
PATHS = (
    "",
    ".",
    "/",
    "/nowhere/at/all",
    "/dev/null",
    "/dev/null/x",
    "x" * 5000,
    "\udcff",
    "-",
    "/etc",
)
HANDLERS = (
    "", ":", "a", "a:", ":a", "os:path", "os:getcwd", "json:loads", "asyncio:sleep",
    "asyncio:run", "asyncio:Event", "os.path:join", "os..path:join", ".os:x", "..:x", "os.:x",
    "no_such:x",     "os:no_such",
    "os:path.join.x", "os:path.", "os:.path", "a b:c", "é:x", "\udcff:x", "os:\udcff",
    "x" * 9000 + ":y",
    "tests.integration.life_handler:handle", "tests.integration.life_handler:HANG_S",
    "pod_automation.executor:dry_run", "examples.executor:handle", "__main__:x", "builtins:print",
)  # fmt: skip


def commands() -> dict[tuple[str, ...], Any]:
    """All commands by their names, the program itself under ()."""
    found: dict[tuple[str, ...], Any] = {}

    def walk(names: tuple[str, ...], command: Any) -> None:
        found[names] = command
        for name, inner in getattr(command, "commands", {}).items():
            walk((*names, name), inner)

    walk((), typer.main.get_command(app))
    return found


def line(rng: Random, names: tuple[str, ...], command: Any) -> list[str]:
    """A command line for `command`: options and arguments it has, mostly, with any values."""
    made: list[str] = []
    for parameter in command.params:
        if parameter.name == "help" or rng.random() < 0.6 - 0.4 * parameter.required:
            continue
        for _ in range(rng.choice((1, 1, 1, 2))):
            if parameter.param_type_name == "option":
                made.append(rng.choice([*parameter.opts, *parameter.secondary_opts]))
                if parameter.is_flag and rng.random() < 0.95:
                    continue
            if rng.random() < 0.97:
                made.append(value(rng, parameter))
    if rng.random() < 0.15:
        made.insert(rng.randint(0, len(made)), rng.choice((*TEXTS, "--unknown", "-x", "--json")))
    if names == ("init",) and "--wait" not in made:
        made += ["--wait", "0"]  # else it would wait half a minute for stores
    before = ["--debug"] * (rng.random() < 0.02)
    return [*before, *names, *made]


def value(rng: Random, parameter: Any) -> str:
    """Something for `parameter`."""
    name = parameter.name or ""
    kind = parameter.bare_type
    if isinstance(kind, type) and issubclass(kind, Enum) and rng.random() < 0.7:
        return str(rng.choice(list(kind)).value)
    if name in ("wait_s", "timeout_s"):
        return rng.choice(SECONDS)
    if name == "handler":
        return rng.choice(HANDLERS)
    if kind in (int, float):
        return rng.choice(NUMBERS)
    if kind is Path:
        return rng.choice(PATHS)
    return rng.choice(TEXTS)
