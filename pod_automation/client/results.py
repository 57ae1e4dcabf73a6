"""What the client's functions return: frozen, with names as the command line prints them."""

from collections.abc import Generator, Iterable, Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from scheduler.activity import ActivityRow, Status
from scheduler.controls import Kind, Scope
from schemas.events import CommandName, EngagementType
from schemas.times import moment


class Result(Struct, frozen=True, kw_only=True):
    """Root of all results. A field can also be asked for by its name, `job["scheduled_count"]`."""

    def keys(self) -> tuple[str, ...]:
        """The names of the fields; with this `dict(result)` works too."""
        return self.__struct_fields__

    def __getitem__(self, name: str) -> Any:
        if name not in self.__struct_fields__:
            raise KeyError(name)
        return getattr(self, name)

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, ready for JSON: times in RFC 3339, what is nested as dicts."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        return fields


class EngagementDelay(Result, frozen=True, kw_only=True):
    """When an engagement would fall due: `delay_ms` milliseconds from now, at `scheduled_for`.

    It is there at once; it may be awaited all the same, so that all functions can be called alike.
    """

    delay_ms: int
    scheduled_for: datetime

    def __await__(self) -> "Generator[Any, None, EngagementDelay]":
        yield from ()  # waits for nothing
        return self


class ScheduledJob(Result, frozen=True, kw_only=True):
    """What became of pending rows.

    `scheduled_count` are those that were scheduled; where no worker has applied all commands in
    time (`applied` is false), those that were sent and will be.
    """

    job_id: str
    scheduled_count: int
    message: str
    applied: bool = True


class ActivityState(Result, frozen=True, kw_only=True):
    """Where an activity stands."""

    activity_id: str
    engagement_type: EngagementType
    status: Status
    attempt: int
    scheduled_for: datetime | None = None

    @classmethod
    def of(cls, row: ActivityRow) -> "ActivityState":
        """From its row."""
        due_ms = row.scheduled_for_ms
        return cls(
            activity_id=row.activity_id,
            engagement_type=row.engagement_type,
            status=row.status,
            attempt=row.attempt,
            scheduled_for=None if due_ms is None else moment(due_ms),
        )


Answer = Literal["cancelled", "rescheduled", "too_late", "final", "pending"]
"""What became of one activity: changed as was asked for; `too_late`, since it had been sent or was
being sent; `final`, since it had come to its end; `pending`, since nobody has planned it yet."""


class ActivityAnswer(Result, frozen=True, kw_only=True):
    """What a command made of one activity, and the status it has since."""

    activity_id: str
    answer: Answer
    status: Status


class CommandAnswer(Result, frozen=True, kw_only=True):
    """What came of a command, in `shards` shards.

    `cancelled` and `rescheduled` activities will not fire, or not before their new time; those that
    were `too_late` had been sent, or were being sent; those that are `final` had come to their end
    before (not counted where a command was about everything). `activities` has each by itself,
    where they were named.
    """

    command_id: str
    command: CommandName
    shards: int
    cancelled: int = 0
    rescheduled: int = 0
    too_late: int = 0
    final: int = 0
    activities: tuple[ActivityAnswer, ...] = ()

    @classmethod
    def of(
        cls, command_id: str, command: CommandName, outcome: Mapping[str, int], shards: int
    ) -> "CommandAnswer":
        """From the outcome in all shards."""
        return cls(
            command_id=command_id,
            command=command,
            shards=shards,
            cancelled=outcome.get("cancelled", 0),
            rescheduled=outcome.get("rescheduled", 0),
            too_late=outcome.get("too_late", 0),
            final=outcome.get("final", 0),
        )

    def with_activities(self, activities: Iterable[ActivityAnswer]) -> "CommandAnswer":
        """The same, with what became of each."""
        return replace(self, activities=tuple(activities))


class ForgottenMember(Result, frozen=True, kw_only=True):
    """How many activities of a member were made nobody's, and the `name` that they go by since;
    none where some are `unfinished`."""

    unfinished: int
    activities: int
    name: str | None = None


class ControlState(Result, frozen=True, kw_only=True):
    """What holds: who is `paused` or has `opted_out`, `quiet_hours`, the `policy` of a pod; and who
    asked for it when and why. `value` has quiet hours as `from`, `until` and `zone`, and of a
    policy what differs from the settings.

    `subject` is the id of a pod or member; `shards` is the number of shards that have applied it.
    """

    kind: Kind
    scope: Scope
    subject: str
    actor: str | None
    reason: str | None
    issued_at: datetime
    shards: int
    value: Mapping[str, str | float] | None = None


class Step(Result, frozen=True, kw_only=True):
    """One thing that happened to an activity.

    `source` is where the input stands that caused it, `topic/partition/offset`; `by` is who asked
    for it, where somebody did.
    """

    at: datetime
    what: str
    attempt: int = 1
    scheduled_for: datetime | None = None
    by: str | None = None
    reason: str | None = None
    source: str | None = None


class ActivityHistory(Result, frozen=True, kw_only=True):
    """All that happened to an activity, in order."""

    activity_id: str
    pod_id: str
    post_id: str
    member_id: str
    engagement_type: EngagementType
    status: Status
    attempt: int
    scheduled_for: datetime | None
    steps: tuple[Step, ...]


class HistoryPage(Result, frozen=True, kw_only=True):
    """What happened to activities, those that are due last first; `next` is what to ask for the
    page behind, None on the last one."""

    histories: tuple[ActivityHistory, ...]
    next: str | None = None


class AuditEntry(Result, frozen=True, kw_only=True):
    """A command: who asked for what, when and why, and what came of it.

    `value` is as of `ControlState`; `offsets` tell where it stands in `pod-commands`, by partition.
    The last replay of a dead letter is one too, the command being `replay` and `subject` its id;
    `offsets` tell where it was sent.
    """

    command_id: str
    command: str
    actor: str | None
    reason: str | None
    scope: str
    subject: str
    issued_at: datetime
    applied_at: datetime
    shards: int
    value: Mapping[str, str | float] | None
    outcome: Mapping[str, int]
    offsets: Mapping[int, int]


class PublishedEvent(Result, frozen=True, kw_only=True):
    """An event that Kafka has confirmed, and where it stands."""

    event_id: str
    topic: str
    partition: int
    offset: int


class ActivityEntry(Result, frozen=True, kw_only=True):
    """An activity in a list. Times that are not known are None."""

    activity_id: str
    pod_id: str
    post_id: str
    member_id: str
    engagement_type: EngagementType
    status: Status
    attempt: int
    scheduled_for: datetime | None
    dispatched_at: datetime | None
    executed_at: datetime | None
    last_error: str | None


class ActivityPage(Result, frozen=True, kw_only=True):
    """Activities, those that are due last first; `next` is what to ask for the page behind, None on
    the last one."""

    activities: tuple[ActivityEntry, ...]
    next: str | None = None


class PodPage(Result, frozen=True, kw_only=True):
    """Pods by their ids; `next` is what to ask for the page behind, None on the last one."""

    pods: tuple[str, ...]
    next: str | None = None


class EngagementStats(Result, frozen=True, kw_only=True):
    """A pod's activities by status; `total` is their sum. `retries` are attempts that were not an
    activity's first."""

    total: int
    pending: int
    scheduled: int
    dispatched: int
    executed: int
    failed: int
    retrying: int
    cancelled: int
    expired: int
    retries: int


class QueueStatus(Result, frozen=True, kw_only=True):
    """The queue of all pods.

    `waiting`: due and not claimed yet. `active`: being sent, or sent and without a result.
    `delayed`: in the wheel, due later. `total` is the sum of these three. `completed` and `failed`
    are activities that the record keeps as executed and failed. `rebuilding` are shards whose wheel
    is lost at the moment: their part comes from PostgreSQL, of which it is being rebuilt.
    """

    waiting: int
    active: int
    delayed: int
    completed: int
    failed: int
    total: int
    rebuilding: tuple[int, ...] = ()


class PodAutomationStats(Result, frozen=True, kw_only=True):
    """One pod's activities, and the queue of all pods."""

    pod: EngagementStats
    queue: QueueStatus
