"""Membership in a consumer group: how soon a member hears of others, and who it is.

A static member has an instance id. Started again under it within the session time-out it gets its
partitions back, and nobody else notices. What aiokafka 0.14.0 lacks for that is added here, to the
coordinator that all its consumers make, Faust's too; a member without an instance id is left as it
is:

- It asks the broker for its session without telling its instance id, and so hears of a process that
  has joined under the same one only that it is unknown itself; then it forgets who it was, joins
  anew, and throws the other one out, which does the same. So the member id is kept: asked for
  partitions with both, the broker tells a member that was replaced from one that was silent for too
  long.
- It does not leave when it is closed. A process that is told to stop may not come back, so it does.

And one thing of every member: a broker that does not know what is committed, since it has just
become, or is no more, the group's coordinator, says so for all partitions at once. aiokafka looks
only at what is said of each, of which there is nothing then, and takes it for "nothing has ever
been committed": the member would begin anew.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiokafka.consumer.consumer
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    KafkaError,
    NotCoordinatorForGroupError,
    UnknownMemberIdError,
    for_code,
)
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.group import JoinGroupRequest

from scheduler.adapters.kafka_consumer import check_tasks
from scheduler.errors import InstanceReplacedError
from scheduler.kafka_servers import Kafka, client_options

HEARTBEATS_PER_SESSION = 12
"""At least: that many may get lost before a member counts as dead."""

SHORTEST_HEARTBEAT_MS = 100
LONGEST_HEARTBEAT_MS = 250
"""By heartbeats a member learns that another one has come or gone, and until the last one has heard
of it nobody gets the shards that are free. Longer ones would show in every stop."""

METADATA_MAX_AGE_MS = 5_000
"""A member that subscribes while the broker is away knows no partition of its topic. As the group's
leader it then gives out none, to anybody, until it asks again; by default after five minutes."""

NEVER_MS = 100 * 365 * 24 * 3_600_000
"""No time limit on polls: a member without a partition, or with every one paused, reads nothing,
and must not go for that. (The broker is not told of it.)"""

FENCED_INSTANCE_ID = 82
"""Kafka's error code, which aiokafka does not know."""


def heartbeat_ms(session_timeout_ms: int) -> int:
    """How often a member says that it is alive."""
    often = min(LONGEST_HEARTBEAT_MS, session_timeout_ms // HEARTBEATS_PER_SESSION)
    return max(SHORTEST_HEARTBEAT_MS, often)


def member(
    kafka: Kafka,
    group_id: str,
    session_timeout_ms: int,
    instance_id: str | None = None,
    **options: Any,
) -> AIOKafkaConsumer:
    """A consumer of the group, not yet started, which commits nothing by itself and leaves alone
    the partitions that stay at a rebalance. `instance_id` makes it a static member. `options` are
    aiokafka's."""
    return AIOKafkaConsumer(
        **client_options(kafka),
        group_id=group_id,
        group_instance_id=instance_id,
        enable_auto_commit=False,
        session_timeout_ms=session_timeout_ms,
        heartbeat_interval_ms=heartbeat_ms(session_timeout_ms),
        rebalance_timeout_ms=session_timeout_ms,
        max_poll_interval_ms=NEVER_MS,
        metadata_max_age_ms=METADATA_MAX_AGE_MS,
        partition_assignment_strategy=[StickyPartitionAssignor],
        **options,
    )


def check_alive(consumer: AIOKafkaConsumer) -> None:
    """Raises `InstanceReplacedError` for a consumer whose place in the group another process has,
    and what `check_tasks` does. To be called with every poll.
    """
    check_replaced(consumer)
    check_tasks(consumer)


def check_replaced(consumer: AIOKafkaConsumer | None) -> None:
    """Raises `InstanceReplacedError` when another process has joined under the same instance id."""
    coordinator: Any = None if consumer is None else consumer._coordinator
    if isinstance(coordinator, _Coordinator) and coordinator.replaced:
        raise InstanceReplacedError(coordinator.instance_id)


def rejoining(consumer: AIOKafkaConsumer) -> bool:
    """Whether it has no partitions at present, or is about to learn which are its."""
    in_progress: bool = consumer._subscription.reassignment_in_progress
    return in_progress


@contextmanager
def unless_replaced(consumer: AIOKafkaConsumer) -> Iterator[None]:
    """Whatever of aiokafka's errors `consumer` raises, `InstanceReplacedError` if that is why."""
    try:
        yield
    except KafkaError:
        check_replaced(consumer)
        raise


def offsets_error(response: Any) -> KafkaError | None:
    """What a broker says instead of the offsets that it was asked for."""
    code = getattr(response, "error_code", 0)
    return for_code(code)() if code else None


async def leave(consumer: AIOKafkaConsumer) -> None:
    """Leave the group at once, so that others get the partitions; `stop` the consumer afterwards.

    Ends with the group's answer: give it a time limit. To be called in the consumer's own loop.
    """
    coordinator: Any = consumer._coordinator
    if coordinator is None:
        return
    try:
        await coordinator.close()
    finally:
        # Cut off in this, it would leave behind a task that says for ever that it is alive.
        for task in (coordinator._heartbeat_task, coordinator._commit_refresh_task):
            if task is not None:
                task.cancel()


class _Coordinator(GroupCoordinator):  # type: ignore[misc] # aiokafka is untyped here
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.instance_id: str = options.get("group_instance_id") or ""
        self.replaced = False
        self._left = False

    async def _send_req(self, request: Any) -> Any:
        response = await super()._send_req(request)
        if isinstance(request, OffsetFetchRequest):
            self._check_offsets(response)
        if self.instance_id:
            code = getattr(response, "error_code", 0)
            if code == FENCED_INSTANCE_ID:
                self.replaced = True
            elif code == UnknownMemberIdError.errno and isinstance(request, JoinGroupRequest):
                # Nobody has its place: the session was over. It may join as if it were new.
                self.member_id = JoinGroupRequest.UNKNOWN_MEMBER_ID
        return response

    def _check_offsets(self, response: Any) -> None:
        error = offsets_error(response)
        if error is not None:
            if isinstance(error, NotCoordinatorForGroupError | GroupCoordinatorNotAvailableError):
                self.coordinator_dead()
            raise error

    def reset_generation(self) -> None:
        member_id = self.member_id
        super().reset_generation()
        if self.instance_id and not self._left:
            self.member_id = member_id

    async def _maybe_leave_group(self) -> None:
        # Told nothing of an instance, the broker takes the member out at once, static or not.
        self._group_instance_id = None
        self._left = True
        await super()._maybe_leave_group()


aiokafka.consumer.consumer.GroupCoordinator = _Coordinator
