"""`pod-automation init`: makes tables and topics."""

from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from pod_automation.cli.options import AsJson

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from scheduler.settings import Settings

_T = TypeVar("_T")

LOOK_AGAIN_S = 0.5

TOPICS_S = 30.0
"""Making all topics, on a slow cluster; cut off, they are tried again while there is time."""


def init(
    wait_s: Annotated[
        float,
        typer.Option("--wait", min=0, metavar="SECONDS", help="How long to wait for the stores."),
    ] = 30.0,
    json_output: AsJson = False,
) -> None:
    """Bring the database to this version's schema, and create the topics that are missing.

    To be run before the first start and after each upgrade. It may be run as often as wanted, also
    while the engine runs: what is there is left as it is. The number of partitions
    (POD_AUTOMATION_PARTITIONS) is fixed from here on.

    \b
    Example:
      pod-automation init --wait 60
    """
    from pod_automation.cli.loop import run
    from pod_automation.cli.terminal import json_result, quiet_logs, result
    from scheduler.settings import load_settings

    settings = load_settings()
    quiet_logs()
    migrations, version, topics = run(initialise(settings, wait_s))
    if json_output:
        json_result({"migrations": migrations, "schema": version, "topics_created": topics})
        return
    done = f"applied {', '.join(migrations)}" if migrations else "was current"
    result(f"PostgreSQL: {done} (schema {version})")
    done = f"created {', '.join(topics)}" if topics else "all topics were there"
    result(f"Kafka: {done} ({settings.partitions} partitions each)")


async def initialise(settings: "Settings", wait_s: float) -> tuple[list[str], str, list[str]]:
    """Returns the migrations applied, the schema's version, and the topics created.

    A store that is away is tried again for `wait_s` seconds, then raises `StoreUnavailableError`.
    """
    import asyncio

    from pod_automation.cli.loop import answer
    from scheduler.adapters.kafka_topics import ensure_topics
    from scheduler.migrations import latest, migrate

    until_s = asyncio.get_running_loop().time() + wait_s
    migrations = await _within(until_s, "PostgreSQL", lambda: migrate(settings.postgres_dsn))
    topics = await _within(
        until_s, "Kafka", lambda: answer("Kafka", ensure_topics(settings), TOPICS_S)
    )
    return migrations, latest(), topics


async def _within(until_s: float, store: str, attempt: "Callable[[], Awaitable[_T]]") -> _T:
    import asyncio

    from pod_automation.cli.terminal import note
    from scheduler.errors import StoreUnavailableError

    loop = asyncio.get_running_loop()
    waiting = False
    while True:
        try:
            return await attempt()
        except StoreUnavailableError:
            left_s = until_s - loop.time()
            if left_s <= 0:
                raise
            if not waiting:
                waiting = True
                note(f"waiting up to {left_s:.0f} s for {store} ...")
            await asyncio.sleep(min(LOOK_AGAIN_S, left_s))
