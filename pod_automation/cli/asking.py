"""Commands over the client: one call, its errors as the command line tells them; and questions."""

import signal
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import typer

if TYPE_CHECKING:
    from pod_automation.client import PodAutomation

_T = TypeVar("_T")


def ask(
    call: "Callable[[PodAutomation], Coroutine[Any, Any, _T]]", *, actor: str | None = None
) -> _T:
    """What `call` gets of a client for the settings in the environment, as `actor`: by default the
    user of this machine.

    An argument that the client refuses is wrong usage; `terminal.failed` tells of all else.
    """
    from pod_automation.cli.loop import run
    from pod_automation.cli.terminal import quiet_logs
    from pod_automation.client import InvalidArgumentError, PodAutomation

    async def asked() -> _T:
        async with PodAutomation(actor=actor or who_asks()) as pods:
            return await call(pods)

    quiet_logs()
    try:
        return run(asked())
    except InvalidArgumentError as error:
        raise typer.BadParameter(str(error)) from None


def confirm(question: str, yes: bool) -> None:
    """Go on only where the user says so: ends the command with `NO` otherwise.

    Asks nothing with `yes`, and refuses where nobody could answer.
    """
    from pod_automation.cli.exit_codes import ExitCode
    from pod_automation.cli.terminal import note

    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"nobody can answer {question!r}: say --yes")
    if not agreed(question):
        note("nothing was done")
        raise typer.Exit(ExitCode.NO)


def agreed(question: str) -> bool:
    """What the user answers, on standard error, as it is no result. Ctrl-C raises
    `KeyboardInterrupt`, also where a loop that runs would keep it for later; and so does Ctrl-D."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, before)


def who_asks() -> str:
    """Who runs this, for the record."""
    import getpass
    import socket

    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container may run under an id without a name
        name = "somebody"
    return f"{name}@{socket.gethostname()}"[:200]
