"""What the client's functions return: frozen, with names as the command line prints them."""

from collections.abc import Generator
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from scheduler.activity import ActivityRow, Status
from schemas.events import EngagementType
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
