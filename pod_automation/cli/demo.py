"""`pod-automation demo`: the engine at work, on this machine."""

import os
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Annotated, Protocol, TypeVar

import typer

from pod_automation.cli.options import AsJson

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)


class _Played(Protocol[_T_co]):
    async def run(self) -> _T_co:
        """From its beginning to its end."""


def demo(
    speed: Annotated[
        float, typer.Option(min=1, max=100_000, metavar="N", help="How much faster time runs.")
    ] = 600,
    pods: Annotated[int, typer.Option(min=1, max=1000, help="Pods.")] = 5,
    posts: Annotated[int, typer.Option(min=1, max=100_000, help="Posts, of all pods.")] = 100,
    chaos: Annotated[
        bool, typer.Option("--chaos", help="Kill all processes (kill -9) in mid-run.")
    ] = False,
    dashboard: Annotated[
        bool,
        typer.Option(
            "--dashboard",
            help="Go on until Ctrl-C, with a dashboard to look at; nothing is counted.",
        ),
    ] = False,
    directory: Annotated[
        Path | None,
        typer.Option("--dir", help="Folder for data and logs. Default: one that is removed."),
    ] = None,
    json_output: AsJson = False,
) -> None:
    """See the whole engine at work on real Kafka, Valkey and PostgreSQL, without Docker.

    Starts the three servers, a worker, a dispatcher, and an executor whose handler only pretends,
    and publishes posts of several pods. Time runs 600 times as fast, so likes come within seconds,
    comments within a minute. On purpose some events are sent twice, two are broken, and the handler
    now and then fails, fails for good, or hangs.

    In the end everything is counted by a consumer that knows nothing of the engine. Ends with 1
    when anything was lost, fired twice, early, or ended otherwise than the handler answered, and
    when Kafka, PostgreSQL and the members' counts differ. Takes a good minute, the first time 20
    more for a download of Kafka. Settings in the environment are ignored: your servers are not
    touched.

    With --dashboard posts keep coming, ten times as slowly, until Ctrl-C, and an address is printed
    at which a browser shows it all. One pod is paused, and one record is broken: find them.

    \b
    Examples:
      pod-automation demo
      pod-automation demo --chaos
      pod-automation demo --dashboard
      pod-automation demo --speed 3600 --pods 2 --posts 10 --json
    """
    from pod_automation.cli.exit_codes import ExitCode
    from pod_automation.cli.loop import run
    from pod_automation.cli.terminal import console, json_result, note, quiet_logs
    from pod_automation.demo.child import clean_environment
    from pod_automation.demo.play import Demo, Options
    from pod_automation.demo.view import View
    from scheduler.settings import ENV_PREFIX

    quiet_logs()
    ours = clean_environment()
    for name in [each for each in os.environ if each.startswith(ENV_PREFIX)]:
        if name not in ours:
            note(f"({name} is ignored: the demo has servers and settings of its own)")
            del os.environ[name]
    folder = directory or Path(mkdtemp(prefix="pod-demo-"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise typer.BadParameter(f"--dir: the folder cannot be made: {error.strerror}") from None
    if dashboard:
        if chaos or json_output:
            raise typer.BadParameter("--dashboard goes with neither --chaos nor --json")
        _show_around(folder, keep=directory is not None)
        return
    # The result stands alone on standard output.
    view = View(console(stderr=json_output))
    playing = Demo(Options(speed, pods, posts, chaos), folder, view)
    keep = directory is not None
    try:
        report = run(_until_terminated(playing))
        keep = keep or not report.ok
    except Exception:
        keep = True
        raise
    finally:
        if keep:
            note(f"logs and data are in {folder}")
        else:
            rmtree(folder, ignore_errors=True)
    view.close(report)
    if json_output:
        json_result(report.as_json())
    if not report.ok:
        raise typer.Exit(ExitCode.NO)


def _show_around(folder: Path, *, keep: bool) -> None:
    from importlib.util import find_spec

    from pod_automation.cli.loop import run
    from pod_automation.cli.terminal import note, result
    from pod_automation.demo.tour import Tour

    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        raise typer.BadParameter(
            "the dashboard needs more: pip install 'pod-automation-engine[api]'"
        )
    try:
        run(_until_terminated(Tour(folder, result)))
    except KeyboardInterrupt:
        note("stopped in order")
    except Exception:
        keep = True
        raise
    finally:
        if keep:
            note(f"logs and data are in {folder}")
        else:
            rmtree(folder, ignore_errors=True)


async def _until_terminated(playing: "_Played[_T]") -> _T:
    """Play; SIGTERM stops everything in the same order as Ctrl-C."""
    import asyncio
    import signal

    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await playing.run()
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
