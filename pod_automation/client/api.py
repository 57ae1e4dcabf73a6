"""`PodAutomation`: everything that a program can ask of the engine."""

import secrets
from collections.abc import Iterable, Mapping
from copy import copy
from datetime import timedelta
from typing import Any, Self

from msgspec.structs import replace

from pod_automation.client.activities import dispatch_now, find, report
from pod_automation.client.arguments import (
    a_number,
    a_trace,
    an_activity_id,
    an_engagement_type,
    an_id,
    now,
    seconds,
)
from pod_automation.client.bounds import TIMEOUT_S
from pod_automation.client.clearing import clear
from pod_automation.client.errors import InvalidArgumentError, translated
from pod_automation.client.figures import pod_figures, queue_figures
from pod_automation.client.operating import Operations
from pod_automation.client.preview import PlanPreview, an_event, preview
from pod_automation.client.results import (
    ActivityState,
    EngagementDelay,
    EngagementStats,
    PodAutomationStats,
    PublishedEvent,
    QueueStatus,
    ScheduledJob,
)
from pod_automation.client.scheduling import Sent, batch_size, hand_over, job, new_job_id, pages
from pod_automation.client.sender import Outgoing, default_shard
from pod_automation.client.stores import Stores
from pod_automation.tracing import current_headers, header_of
from scheduler.activity import ActivityRow, PostPlan, Status
from scheduler.adapters.postgres_client import PendingActivity
from scheduler.planner import DAY_MS, NO_ORDERS
from scheduler.policy import DelayWindow
from scheduler.settings import Settings, load_settings
from scheduler.stagger import delay_ms, seed_of
from schemas.codec import encode
from schemas.events import EngagementType, Outcome, PostDetected
from schemas.headers import event_headers
from schemas.times import millis

SCHEDULE_WAIT_S = 10.0
APPLY_WAIT_S = 10.0
CLEAR_WAIT_S = 60.0

MAX_LIMIT = 10_000
MAX_MEMBERS = 10_000_000

_SEED_BITS = 64


class PodAutomation(Operations):
    """A client of the engine, for one event loop; its calls may run at the same time.

    ```
    async with PodAutomation() as pods:
        print((await pods.get_pod_engagement_stats("p1")).as_dict())
    ```

    Settings come from the environment; `settings`, or single ones by name, come first. A call
    connects to the stores that it needs, and to no others. One answer of a store may take
    `timeout_s` seconds; what waits for a worker says for how long besides. Every error raised on
    purpose is a `PodAutomationError` (pod_automation.client.errors).
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        actor: str = "client",
        **overrides: Any,
    ) -> None:
        """Connects to nothing yet. `actor` is who asks, for the audit. Raises `WrongSettingError`
        and `InvalidArgumentError`."""
        if unknown := sorted(set(overrides) - set(Settings.model_fields)):
            raise InvalidArgumentError(f"there is no setting {', '.join(unknown)}")
        self._timeout_s = seconds("timeout_s", timeout_s, zero=False)
        self._actor = an_id("actor", actor)
        with translated():
            if settings is None:
                settings = load_settings(**overrides)
            elif overrides:
                settings = load_settings(**{**settings.model_dump(), **overrides})
        self.settings = settings
        self._stores = Stores(settings, self._timeout_s)

    def acting_as(self, actor: str) -> Self:
        """This client in the name of `actor`: with the same connections, which are closed with
        those of either."""
        other = copy(self)
        other._actor = an_id("actor", actor)
        return other

    async def connect(self) -> Self:
        """Be ready for calls, also after `close`. Stores are connected when they are needed."""
        if self._stores.closed:
            self._stores = Stores(self.settings, self._timeout_s)
        return self

    async def close(self) -> None:
        """Close all connections, within a bounded time. May be called twice."""
        await self._stores.close()

    async def __aenter__(self) -> Self:
        """As `connect`."""
        return await self.connect()

    async def __aexit__(self, *_: object) -> None:
        """As `close`."""
        await self.close()

    # Planning

    def calculate_like_delay(
        self, member_index: int, total_members: int, *, activity_id: str | None = None
    ) -> EngagementDelay:
        """When the like of member `member_index` (from 0) of `total_members` would fall due.

        As the planner computes it, but for the cap on likes of a post, which depends on what is
        planned for it already. The planner takes the jitter from the activity's id: with
        `activity_id` this is the very delay that it gives, else one with a jitter of chance. Asks
        no store.
        """
        return self._delay(self.settings.policy.like, member_index, total_members, activity_id)

    def calculate_comment_delay(
        self, member_index: int, total_members: int, *, activity_id: str | None = None
    ) -> EngagementDelay:
        """The same for a comment; no cap applies to comments."""
        return self._delay(self.settings.policy.comment, member_index, total_members, activity_id)

    def _delay(
        self, window: DelayWindow, index: int, total: int, activity_id: str | None
    ) -> EngagementDelay:
        a_number("total_members", total, 1, MAX_MEMBERS)
        a_number("member_index", index, 0, total - 1)
        if activity_id is None:
            seed = secrets.randbits(_SEED_BITS)
        else:
            try:
                seed = seed_of(an_activity_id(activity_id))
            except ValueError:
                raise InvalidArgumentError("activity_id is no UUID") from None
        delay = delay_ms(window, index, total, seed)
        return EngagementDelay(delay_ms=delay, scheduled_for=now() + timedelta(milliseconds=delay))

    async def preview_plan(
        self, event: PostDetected | Mapping[str, Any] | bytes, *, offline: bool = False
    ) -> PlanPreview:
        """When each member would engage with the post of a `post-detected` event.

        As a worker with these settings would plan it now; nothing is stored or sent. What the post
        has already counts, for which PostgreSQL is asked; `offline` takes the post for a new one
        and asks no store. `event` is one of `schemas.events`, or its fields, or its JSON. Raises
        `InvalidArgumentError` for what is no such event.
        """
        found = an_event(event)
        existing: Mapping[str, PostPlan] = {}
        orders = NO_ORDERS
        if not offline:
            existing = await self._stores.record(lambda record: record.plans([found.post_id]))
            topic = self.settings.topics.post_detected
            shard = default_shard(found.post_id, self.settings.partitions)
            orders = await self._stores.record(
                lambda record: record.orders(topic, shard, found.member_ids, [found.pod_id])
            )
            if orders.caps:
                from_ms = millis(found.detected_at) - DAY_MS
                times = await self._stores.record(
                    lambda record: record.member_times(list(orders.caps), from_ms)
                )
                orders = replace(orders, times=times)
        plan = existing.get(found.post_id, PostPlan())
        return preview(found, self.settings.policy, plan, orders)

    async def publish_post_detected(
        self, event: PostDetected | Mapping[str, Any] | bytes, *, traceparent: str | None = None
    ) -> PublishedEvent:
        """Send a `post-detected` event, for those who have no Kafka client of their own.

        `event` is as for `preview_plan`. To send it again does no harm: what is planned is not
        planned twice. `traceparent` is the trace it belongs to (W3C), by default that of the
        caller's span, where it uses OpenTelemetry. Returns once Kafka has confirmed it. Raises
        `InvalidArgumentError`.
        """
        found = an_event(event)
        if traceparent is not None:
            a_trace("traceparent", traceparent)
        shard = default_shard(found.post_id, self.settings.partitions)
        topic = self.settings.topics.post_detected
        record = Outgoing(
            shard,
            found.post_id.encode(),
            encode(found),
            [
                *event_headers(PostDetected, found.event_id, millis(found.detected_at)),
                *(current_headers() if traceparent is None else header_of(traceparent)),
            ],
        )
        (offset,) = await self._stores.send(topic, [record])
        return PublishedEvent(event_id=found.event_id, topic=topic, partition=shard, offset=offset)

    async def get_pending_activities(self, pod_id: str, limit: int = 50) -> list[PendingActivity]:
        """Rows of the pod that are pending and due, ordered by `scheduled_for` (none first) and id.

        These are rows that an upstream system has inserted and that nobody has planned yet. Needs
        PostgreSQL.
        """
        an_id("pod_id", pod_id)
        a_number("limit", limit, 1, MAX_LIMIT)
        page = await self._stores.record(lambda record: record.pending(limit, pod_id=pod_id))
        return list(page.activities)

    async def schedule_like_jobs(
        self, pod_id: str, *, wait_s: float = SCHEDULE_WAIT_S
    ) -> ScheduledJob:
        """Schedule all likes of the pod that are pending and due, in batches of 20.

        Sends them to their shards, where a worker plans them by the same rules as a new post; the
        cap counts what is planned for the post already. Returns when workers have applied all of
        it, or after `wait_s` (0: at once): then `applied` is false, and they will. Safe to repeat:
        a row is planned once. Needs PostgreSQL and Kafka.
        """
        return await self._schedule_jobs("like", pod_id, wait_s)

    async def schedule_comment_jobs(
        self, pod_id: str, *, wait_s: float = SCHEDULE_WAIT_S
    ) -> ScheduledJob:
        """The same for comments, in batches of 10."""
        return await self._schedule_jobs("comment", pod_id, wait_s)

    async def _schedule_jobs(
        self, engagement_type: EngagementType, pod_id: str, wait_s: float
    ) -> ScheduledJob:
        an_id("pod_id", pod_id)
        seconds("wait_s", wait_s)
        batch, sent = batch_size(self.settings, engagement_type), Sent()
        job_id = new_job_id(f"schedule-{engagement_type}s-{pod_id}")
        async for rows in pages(self._stores, engagement_type, pod_id, batch):
            await hand_over(self._stores, rows, batch, None, job_id, sent, self._actor)
        return await job(self._stores, sent, engagement_type, f"pod {pod_id}", job_id, wait_s)

    async def schedule_like_activities(
        self,
        activities: Iterable[PendingActivity | str],
        max_members_per_hour: int = 3,
        *,
        wait_s: float = SCHEDULE_WAIT_S,
    ) -> ScheduledJob:
        """Schedule these likes, given as `get_pending_activities` returns them, or by their ids.

        In the order given, with at most `max_members_per_hour` likes of a post in any hour. Those
        that are not pending are left as they are. Else as `schedule_like_jobs`. Raises
        `NotFoundError`.
        """
        a_number("max_members_per_hour", max_members_per_hour, 1)
        return await self._schedule_activities("like", activities, max_members_per_hour, wait_s)

    async def schedule_comment_activities(
        self,
        activities: Iterable[PendingActivity | str],
        *,
        wait_s: float = SCHEDULE_WAIT_S,
    ) -> ScheduledJob:
        """The same for comments; no cap applies to them."""
        return await self._schedule_activities("comment", activities, None, wait_s)

    async def _schedule_activities(
        self,
        engagement_type: EngagementType,
        activities: Iterable[PendingActivity | str],
        like_cap: int | None,
        wait_s: float,
    ) -> ScheduledJob:
        seconds("wait_s", wait_s)
        if isinstance(activities, str):
            raise InvalidArgumentError("activities must be several: put a single one into a list")
        ids = list(
            dict.fromkeys(
                an_activity_id(each.activity_id if isinstance(each, PendingActivity) else each)
                for each in activities
            )
        )
        rows = await find(self._stores, ids, engagement_type)
        pending = [_pending(row) for row in rows if row.status is Status.PENDING]
        batch, sent = batch_size(self.settings, engagement_type), Sent()
        job_id = new_job_id(f"schedule-{engagement_type}s")
        await hand_over(self._stores, pending, batch, like_cap, job_id, sent, self._actor)
        return await job(
            self._stores, sent, engagement_type, f"the {len(ids)} given", job_id, wait_s
        )

    # What happens to activities

    async def execute_engagement_activity(
        self,
        activity_id: str,
        engagement_type: EngagementType,
        *,
        wait_s: float = APPLY_WAIT_S,
    ) -> ActivityState:
        """Have this activity sent to the executors now, whenever it was due.

        It goes through the wheel like any other, and so once; one that is still pending is planned
        at the same time. Returns when a worker has applied it; a dispatcher then sends it. Raises
        `NotFoundError`, `InvalidArgumentError` for one of another type or that was sent already,
        and `NotAppliedError`. Needs PostgreSQL and Kafka.
        """
        an_engagement_type(engagement_type)
        seconds("wait_s", wait_s)
        ids = [an_activity_id(activity_id)]
        (row,) = await find(self._stores, ids, engagement_type)
        return await dispatch_now(self._stores, row, wait_s, self._actor)

    async def mark_activity_executed(
        self, activity_id: str, success: bool, *, wait_s: float = APPLY_WAIT_S
    ) -> ActivityState:
        """Report that the activity was done, or that it failed for good.

        The same as an executor's result for its current attempt: `executed` counts for the member,
        a failure is not tried again and goes to `dead-letter`. Safe to repeat; an activity that is
        executed, failed or cancelled already stays so, and its state is returned. Raises
        `NotFoundError` and `NotAppliedError`. Needs PostgreSQL and Kafka.
        """
        if not isinstance(success, bool):
            raise InvalidArgumentError("success must be True or False")
        seconds("wait_s", wait_s)
        (row,) = await find(self._stores, [an_activity_id(activity_id)])
        outcome: Outcome = "executed" if success else "failed"
        return await report(self._stores, row, outcome, wait_s)

    async def update_member_engagement_metrics(self, member_id: str, count: int = 1) -> int:
        """Add `count` (1 or more) to the member's engagements; returns the new number.

        The engine counts each executed activity by itself: this is for what was done elsewhere.
        Not safe to repeat: after a `StoreAwayError` it may have been counted. Needs PostgreSQL.
        """
        an_id("member_id", member_id)
        a_number("count", count, 1)
        return await self._stores.record(lambda record: record.add_engagements(member_id, count))

    async def clear_automation_jobs(
        self,
        *,
        pod_id: str | None = None,
        reason: str | None = None,
        wait_s: float = CLEAR_WAIT_S,
    ) -> int:
        """Cancel all that waits in the queue, of all pods or of one; returns how many.

        Each becomes `cancelled` in the record and says so on engagement-status: nothing disappears.
        What is being sent at that moment is sent. Raises `NotAppliedError` when workers have not
        applied it to all shards within `wait_s`. Needs PostgreSQL and Kafka.
        """
        if pod_id is not None:
            an_id("pod_id", pod_id)
        seconds("wait_s", wait_s)
        words = self._words(reason)
        return await clear(
            self._stores,
            pod_id,
            wait_s,
            actor=words["actor"],
            reason=words["reason"] or "cleared by a client",
        )

    # Figures

    async def get_pod_engagement_stats(self, pod_id: str) -> EngagementStats:
        """The pod's activities by status; a pod that nobody has heard of has none.

        Needs PostgreSQL.
        """
        an_id("pod_id", pod_id)
        return await pod_figures(self._stores, pod_id)

    async def get_automation_queue_status(self) -> QueueStatus:
        """The queue of all pods. Needs Redis and PostgreSQL."""
        return await queue_figures(self._stores)

    async def get_pod_automation_stats(self, pod_id: str) -> PodAutomationStats:
        """One pod's activities, and the queue of all pods. Needs Redis and PostgreSQL."""
        pod = await self.get_pod_engagement_stats(pod_id)
        return PodAutomationStats(pod=pod, queue=await self.get_automation_queue_status())


def _pending(row: ActivityRow) -> PendingActivity:
    return PendingActivity(
        activity_id=row.activity_id,
        pod_id=row.pod_id,
        post_id=row.post_id,
        member_id=row.member_id,
        engagement_type=row.engagement_type,
    )
