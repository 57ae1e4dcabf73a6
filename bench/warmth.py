"""A Kafka as it is on a site: used for long enough that its JVM has compiled what is used much.

One that has just started takes half as much again of the processor for a small transaction, and
compiles beside that, which on two cores is what everything else waits for.
"""

from bench import drain, ingest, lateness
from bench.harness import Bench
from bench.load import World

EVENTS, TIMERS = 2_000, 100_000
RATE, SECONDS = 2_000, 30


async def warm(bench: Bench) -> None:
    """Large batches and small transactions, until more of them make it no faster: a minute."""
    bench.say("warming Kafka up")
    await ingest.once(bench, EVENTS)
    await drain.once(bench, TIMERS, 8)
    async with bench.site() as site:
        await site.open_wheels({})
        async with site.process("dispatcher") as dispatcher:
            await dispatcher.said("shard taken", len(site.shards))
            await lateness.once(site, World(), RATE, SECONDS)
