"""`pod-automation rebuild`: have wheels rebuilt from the record."""

from typing import TYPE_CHECKING, Annotated

import typer

from pod_automation.cli.options import AsJson

if TYPE_CHECKING:
    from collections.abc import Callable

    from scheduler.adapters.redis_wheel import RedisWheel
    from scheduler.settings import Settings

LOOK_S = 0.1
TELL_EVERY_S = 2.0
"""How often a long rebuild says how far it has come."""


def rebuild(
    shard: Annotated[
        list[int] | None, typer.Option(min=0, help="A shard's number; repeat it for more.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All shards.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until the shards are rebuilt.")
    ] = True,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0, metavar="SECONDS", help="How long to wait.")
    ] = 60.0,
    json_output: AsJson = False,
) -> None:
    """Declare the wheels of shards lost, so that their dispatchers rebuild them from PostgreSQL.

    Dispatchers find a lost wheel by themselves; this is for when you do not trust what is in
    Redis. Nothing is lost or fired twice by it, and timers that fall due meanwhile fire after.
    Ends with 1 when a shard was not rebuilt in time: mostly no dispatcher is running then.

    \b
    Examples:
      pod-automation rebuild --shard 3
      pod-automation rebuild --all --timeout 300
    """
    from pod_automation.cli.exit_codes import ExitCode
    from pod_automation.cli.loop import run
    from pod_automation.cli.terminal import error, json_result, note, quiet_logs, result
    from scheduler.settings import load_settings

    settings = load_settings()
    quiet_logs()
    if everything == bool(shard):
        raise typer.BadParameter("say which: --shard N, repeated for more, or --all")
    shards = list(range(settings.partitions)) if everything else sorted(set(shard or ()))
    if shards[-1] >= settings.partitions:
        raise typer.BadParameter(
            f"there is no shard {shards[-1]}: they are 0 to {settings.partitions - 1}"
        )
    rebuilt = run(rebuilt_shards(settings, shards, timeout_s if wait else None, note))
    missing = [each for each in shards if each not in rebuilt]
    if json_output:
        json_result({"declared_lost": shards, "rebuilt": rebuilt, "waited": wait})
    elif wait:
        for each, seconds in rebuilt.items():
            result(f"shard {each}: rebuilt after {seconds:.1f} s")
    else:
        result(f"declared lost: shards {', '.join(map(str, shards))}")
    if wait and missing:
        error(
            f"no dispatcher has rebuilt shards {', '.join(map(str, missing))} within"
            f" {timeout_s:g} s: is one running? Once one runs, it rebuilds them"
        )
        raise typer.Exit(ExitCode.NO)


async def rebuilt_shards(
    settings: "Settings",
    shards: list[int],
    timeout_s: float | None,
    tell: "Callable[[str], None]",
) -> dict[int, float]:
    """Declare the wheels of `shards` lost. Returns the seconds that each took which was rebuilt
    within `timeout_s`; without that nothing is waited for. `tell` is told how far they are."""
    import asyncio

    from pod_automation.cli.loop import answer
    from scheduler.adapters.kafka_topics import check_topics
    from scheduler.adapters.redis_wheel import RedisWheel
    from scheduler.tasks import cancelled

    # With other partitions than the engine has, some would be left out.
    await answer("Kafka", check_topics(settings))
    wheel = RedisWheel(settings.redis_url, prefix=settings.topic_prefix)
    rebuilt: dict[int, float] = {}
    try:
        before = {shard: (await wheel.size(shard)).gen for shard in shards}
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for shard in shards:
            await wheel.forget(shard)
        until_s = began_s + (timeout_s or 0)
        told_s = began_s
        while len(rebuilt) < len(shards) and loop.time() < until_s and not cancelled():
            loaded = await _look(wheel, before, began_s, rebuilt)
            if loop.time() - told_s >= TELL_EVERY_S:
                told_s = loop.time()
                # One of which nothing is there may be nobody's.
                for shard, timers in ((at, n) for at, n in loaded.items() if n):
                    tell(f"shard {shard}: {timers:,} timers loaded so far")
            await asyncio.sleep(LOOK_S)
    finally:
        await wheel.close()
    return rebuilt


async def _look(
    wheel: "RedisWheel", before: dict[int, str | None], began_s: float, rebuilt: dict[int, float]
) -> dict[int, int]:
    """Enter into `rebuilt` what is; returns how many timers each shard under way has by now."""
    import asyncio

    loaded: dict[int, int] = {}
    for shard, old in before.items():
        if shard in rebuilt:
            continue
        size = await wheel.size(shard)
        # A new generation, and not merely one: `forget` may have met a rebuild in its last step.
        if size.gen not in (None, old):
            rebuilt[shard] = round(asyncio.get_running_loop().time() - began_s, 3)
        elif size.gen is None:
            loaded[shard] = size.pending + size.awaited
    return loaded
