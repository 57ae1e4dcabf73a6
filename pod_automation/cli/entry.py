"""The program: its commands, what holds for all of them, and how it ends."""

import os
import sys
from collections.abc import Callable, Sequence
from inspect import cleandoc
from typing import Annotated

import typer

from pod_automation.cli import (
    api,
    clear,
    controls,
    dead_letters,
    demo,
    executor,
    init,
    on_record,
    plan,
    processes,
    prune,
    publish,
    rebuild,
    reconcile,
    schedule,
    stack,
    stats,
    status,
)
from pod_automation.cli.exit_codes import IN_HELP, ExitCode
from pod_automation.cli.terminal import (
    LOG_LEVEL,
    LOG_LEVEL_FILE,
    OutputError,
    failed,
    note,
    open_streams,
    result,
)

app = typer.Typer(
    name="pod-automation",
    no_args_is_help=True,
    rich_markup_mode="rich",
    # A traceback is for bugs alone (terminal.failed).
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _flowing(doc: str | None) -> str:
    """A docstring with each paragraph on one line, for Typer would keep the source's line breaks.

    Paragraphs that begin with \\b (examples) stay as they are.
    """
    paragraphs = cleandoc(doc or "").split("\n\n")
    return "\n\n".join(
        each if each.startswith("\b") else each.replace("\n", " ") for each in paragraphs
    )


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            result(f"pod-automation {version('pod-automation-engine')}")
        except PackageNotFoundError:
            result("pod-automation, run from its source without being installed")
        raise typer.Exit


_ABOUT = """Plans likes and comments of pods over time, and fires each exactly once, never early.

To see it at work: [bold]pod-automation demo[/bold]. To develop against real servers without Docker:
[bold]pod-automation stack[/bold] in one terminal; in another one, with the variables of
.pod-automation/stack.env set, [bold]init[/bold], then [bold]run[/bold], then [bold]publish[/bold].

All settings are environment variables that begin with POD_AUTOMATION_; the addresses are
KAFKA_BOOTSTRAP, REDIS_URL and POSTGRES_DSN. Results are printed on standard output, logs on
standard error."""


@app.callback(epilog=IN_HELP, help=_flowing(_ABOUT))
def _root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Log everything, and show tracebacks of all errors.")
    ] = False,
) -> None:
    """What holds for all commands."""
    if debug:
        # In the environment, so that settings and child processes see it as well.
        os.environ[LOG_LEVEL] = "debug"
        os.environ.pop(LOG_LEVEL_FILE, None)  # both are refused


_PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Set up": (init.init, stack.stack, demo.demo),
    "Run": (processes.worker, processes.dispatcher, processes.run, executor.executor, api.api),
    "Use and operate": (
        publish.publish,
        plan.plan,
        schedule.schedule,
        stats.stats,
        status.status,
        clear.clear,
        rebuild.rebuild,
        reconcile.reconcile,
        prune.prune,
    ),
}
_PANELS["Control and audit"] = (*controls.COMMANDS, *on_record.COMMANDS)
for panel, commands in _PANELS.items():
    for command in commands:
        app.command(help=_flowing(command.__doc__), rich_help_panel=panel)(command)

_letters = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
for name, command in dead_letters.COMMANDS.items():
    _letters.command(name, help=_flowing(command.__doc__))(command)
app.add_typer(
    _letters,
    name="dead-letters",
    help=_flowing(dead_letters.ABOUT),
    rich_help_panel="Use and operate",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (see exit_codes). `argv` is without the name."""
    open_streams()
    try:
        app(args=None if argv is None else list(argv), prog_name="pod-automation")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except KeyboardInterrupt:
        note("interrupted")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Whoever reads has had enough (`| head`).
        _write_no_more()
        return ExitCode.NO
    except OutputError as error:
        code = failed(error)
        _write_no_more()
        return code
    except Exception as error:
        return failed(error)
    return ExitCode.OK


def _write_no_more() -> None:
    """Nothing may be flushed at exit any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
