"""Single activities: found by their ids, dispatched now, reported as done or failed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pod_automation.client import commands
from pod_automation.client.arguments import now
from pod_automation.client.errors import InvalidArgumentError, NotAppliedError, NotFoundError
from pod_automation.client.results import ActivityState
from pod_automation.client.scheduling import new_job_id
from pod_automation.client.sender import default_shard
from pod_automation.client.stores import Stores
from scheduler.activity import FINAL, UNFIRED, ActivityRow, Status
from schemas.codec import InvalidEvent
from schemas.events import EngagementExecuted, EngagementType, Outcome, is_id
from schemas.ids import result_event_id
from schemas.times import millis

MARKED_AS_FAILED = "marked as failed by the client"

_UNSENT = (Status.PENDING, *UNFIRED)


async def find(
    stores: Stores, ids: Sequence[str], engagement_type: EngagementType | None = None
) -> list[ActivityRow]:
    """The rows of these activities, in this order. Raises `NotFoundError`, and
    `InvalidArgumentError` for one that is not of `engagement_type`."""
    rows = await stores.record(lambda record: record.rows(ids))
    if missing := [each for each in ids if each not in rows]:
        more = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise NotFoundError(f"there is no activity {missing[0]}{more}")
    for row in rows.values():
        if engagement_type not in (None, row.engagement_type):
            raise InvalidArgumentError(
                f"activity {row.activity_id} is a {row.engagement_type}, no {engagement_type}"
            )
    return [rows[each] for each in ids]


async def dispatch_now(
    stores: Stores, row: ActivityRow, wait_s: float, actor: str
) -> ActivityState:
    """Have it fired at once; waits until that is applied. Raises `NotAppliedError`."""
    if row.status not in _UNSENT:
        raise InvalidArgumentError(f"activity {row.activity_id} is {row.status} already")
    name = commands.event_id(new_job_id("dispatch"), row.activity_id, row.attempt)
    shard = await _shard_of_post(stores, row)
    topic = stores.settings.topics.pod_commands
    with _sendable(row):
        for text in (row.pod_id, row.post_id, row.member_id):
            if not is_id(text):
                raise InvalidEvent("an id that is none of the contract")
        command = commands.dispatch(shard, row.post_id, row.activity_id, name, actor)
    (offset,) = await stores.send(topic, [command])
    seen = row

    async def applied() -> bool:
        nonlocal seen
        (seen,) = await find(stores, [row.activity_id])
        at = await stores.record(lambda record: record.applied_upto(topic))
        return at.get(shard, -1) >= offset and (seen.version != row.version or _due(seen))

    if not await stores.until(applied, wait_s):
        raise NotAppliedError(
            f"activity {row.activity_id} was sent to its shard, but no worker has applied that"
            f" within {wait_s:g} s: is one running? Once one runs, the activity is dispatched"
        )
    return ActivityState.of(seen)


async def report(
    stores: Stores, row: ActivityRow, outcome: Outcome, wait_s: float
) -> ActivityState:
    """Send a final result for its current attempt; waits until that is applied. Raises
    `NotAppliedError`."""
    if row.status in FINAL:
        return ActivityState.of(row)
    with _sendable(row):
        record = commands.result(
            _shard(stores, row),
            EngagementExecuted(
                event_id=result_event_id(row.activity_id, outcome, row.attempt),
                activity_id=row.activity_id,
                pod_id=row.pod_id,
                post_id=row.post_id,
                member_id=row.member_id,
                engagement_type=row.engagement_type,
                attempt=row.attempt,
                outcome=outcome,
                executed_at=now(),
                error=MARKED_AS_FAILED if outcome == "failed" else None,
                retryable=outcome != "failed",
            ),
        )
    await stores.send(stores.settings.topics.engagement_executed, [record])
    seen = row

    async def applied() -> bool:
        nonlocal seen
        (seen,) = await find(stores, [row.activity_id])
        return seen.status in FINAL or seen.attempt != row.attempt

    if not await stores.until(applied, wait_s):
        raise NotAppliedError(
            f"the result of activity {row.activity_id} was sent, but no worker has applied it"
            f" within {wait_s:g} s: is one running? Once one runs, it does"
        )
    return ActivityState.of(seen)


@contextmanager
def _sendable(row: ActivityRow) -> Iterator[None]:
    """What an upstream system inserted may have ids that no event may carry."""
    try:
        yield
    except InvalidEvent as error:
        raise InvalidArgumentError(
            f"activity {row.activity_id} cannot be sent: {error.reason}"
        ) from None


async def _shard_of_post(stores: Stores, row: ActivityRow) -> int:
    """The row's shard; else that of its post, where another row of it has one."""
    if row.shard is None:
        shards = await stores.record(lambda record: record.shards_of_posts([row.post_id]))
        if (shard := shards.get(row.post_id)) is not None:
            return shard
    return _shard(stores, row)


def _shard(stores: Stores, row: ActivityRow) -> int:
    if row.shard is not None:
        return row.shard
    return default_shard(row.post_id, stores.settings.partitions)


def _due(row: ActivityRow) -> bool:
    # A timer that was due before the command came is left as it is.
    return (
        row.status in UNFIRED
        and row.scheduled_for_ms is not None
        and row.scheduled_for_ms <= millis(now())
    )
