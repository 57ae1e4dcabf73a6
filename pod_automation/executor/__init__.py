"""The executor SDK: write one function that does an engagement, and have it called when one is due.

    from pod_automation.executor import Engagement, Permanent, Retry, serve

    async def handle(engagement: Engagement) -> None:
        ...  # do it, or raise Retry or Permanent

    serve(handle)

A function that blocks becomes a handler by `threaded(function)`. Every engagement
is handled at least once, and its result is in Kafka before the engagement counts as read. See
docs/executor.md.
"""

from pod_automation.executor.done import DoneStore, MemoryDone, RedisDone
from pod_automation.executor.engagement import Engagement, Handler, Permanent, Retry, dry_run
from pod_automation.executor.executor import Executor, StuckHandlersError
from pod_automation.executor.serving import run_executor, serve
from pod_automation.executor.threads import threaded

__all__ = [
    "DoneStore",
    "Engagement",
    "Executor",
    "Handler",
    "MemoryDone",
    "Permanent",
    "RedisDone",
    "Retry",
    "StuckHandlersError",
    "dry_run",
    "run_executor",
    "serve",
    "threaded",
]
