"""`pod-automation executor`: a handler of yours as a process."""

from enum import StrEnum
from typing import Annotated

import typer

from pod_automation.cli.exit_codes import ExitCode
from pod_automation.cli.terminal import error


class Remember(StrEnum):
    """Where it is remembered what was done."""

    NONE = "none"
    REDIS = "redis"


def executor(
    handler: Annotated[
        str | None,
        typer.Option(
            help="What does an engagement: an `async def handle(engagement)`, as"
            " package.module:function. Also looked for in the current directory.",
            metavar="PACKAGE:FUNCTION",
            show_default="a dry run",
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1000,
            help="Engagements handled at once.",
            show_default="POD_AUTOMATION_QUEUE_CONCURRENCY, 5",
        ),
    ] = None,
    ordered: Annotated[
        bool, typer.Option("--ordered", help="Handle those of one post one after another.")
    ] = False,
    time_limit: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            metavar="SECONDS",
            help="After this time an attempt is cancelled, and reported as failed.",
            show_default="POD_AUTOMATION_RESULT_TIMEOUT_MS, 15 minutes",
        ),
    ] = None,
    remember: Annotated[
        Remember,
        typer.Option(help="Where to keep which engagements are done, so that none is done again."),
    ] = Remember.NONE,
) -> None:
    """Do engagements as they fall due, with a handler of yours, and report what became of them.

    Without --handler nothing is done for real: it says what it would do, and reports it as
    executed. Start as many as wanted: they share the partitions. It needs Kafka alone, and waits
    for it; with --remember redis also Redis. SIGTERM or Ctrl-C ends it in order, with exit code
    0; a second one at once.

    \b
    Example:
      pod-automation executor --handler examples.executor:handle --remember redis
    """
    from pod_automation.executor import RedisDone, dry_run, serve
    from pod_automation.executor.checks import HandlerError, seconds
    from pod_automation.executor.loading import load_handler
    from scheduler.settings import load_settings

    settings = load_settings()
    try:
        if time_limit is not None:
            seconds(time_limit, "--time-limit")  # "inf" is a float too
        handle = dry_run if handler is None else load_handler(handler)
    except ValueError as wrong:
        error(str(wrong))
        raise typer.Exit(ExitCode.USAGE) from None
    except HandlerError as wrong:
        error(f"--handler: {wrong}")
        raise typer.Exit(ExitCode.USAGE) from None
    done = None
    if remember is Remember.REDIS:
        done = RedisDone(settings.redis_url, prefix=settings.topic_prefix)
    serve(
        handle,
        settings=settings,
        concurrency=concurrency,
        ordered=ordered,
        done=done,
        time_limit_s=time_limit,
    )
