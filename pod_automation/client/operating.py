"""The part of `PodAutomation` that is for operators: stop, move, see who did what."""

import re
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from pod_automation.client.arguments import (
    a_moment,
    a_number,
    a_shift,
    a_text,
    an_activity_id,
    an_id,
    seconds,
)
from pod_automation.client.controlling import to_activities, to_post, to_shards
from pod_automation.client.errors import InvalidArgumentError, NotFoundError
from pod_automation.client.history import history
from pod_automation.client.results import (
    ActivityEntry,
    ActivityHistory,
    ActivityPage,
    AuditEntry,
    CommandAnswer,
    ControlState,
    ForgottenMember,
    HistoryPage,
    PodPage,
)
from pod_automation.client.stores import Stores
from scheduler.command import PROCESSES
from scheduler.controls import Kind, Scope
from schemas.events import MAX_ID_CHARS, CommandName
from schemas.times import LATEST_MS

CONTROL_WAIT_S = 60.0
MAX_ACTIVITIES = 10_000
MAX_AUDIT = 10_000
MAX_PAGE = 1_000
MAX_DAILY_CAP = 100_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Operations:
    """Controls, and the record of them.

    A control is a command to the shards that it concerns, applied exactly once and in order with
    all else; each is kept with who asked for it and why. The functions return when workers have
    applied it, and raise `NotAppliedError` when they have not within `wait_s`: then they will. They
    need PostgreSQL and Kafka, those that only look PostgreSQL.
    """

    _stores: Stores
    _actor: str

    async def cancel(
        self,
        activity_ids: Iterable[str] | None = None,
        *,
        post_id: str | None = None,
        member_id: str | None = None,
        pod_id: str | None = None,
        reason: str | None = None,
        wait_s: float = CONTROL_WAIT_S,
    ) -> CommandAnswer:
        """Cancel these activities, or all that wait of a post, member or pod.

        One of them is to be given; `clear_automation_jobs` cancels everything. What is `cancelled`
        does not fire; what had been sent, or was being sent, is `too_late`. It costs what matches,
        whatever else waits. Raises `NotFoundError` for an activity that is not there, or a post for
        which nothing is planned.
        """
        more = self._words(reason)
        given = [each for each in (activity_ids, post_id, member_id, pod_id) if each is not None]
        if len(given) != 1:
            raise InvalidArgumentError("give activities, or a post, or a member, or a pod")
        seconds("wait_s", wait_s)
        if activity_ids is not None:
            ids = _ids(activity_ids)
            return await to_activities(self._stores, "cancel", ids, wait_s, **more)
        if post_id is not None:
            an_id("post_id", post_id)
            return await to_post(self._stores, "cancel", post_id, wait_s, **more)
        return await self._to_all("cancel", pod_id, member_id, wait_s, more)

    async def reschedule(
        self,
        activity_id: str,
        at: datetime,
        *,
        reason: str | None = None,
        wait_s: float = CONTROL_WAIT_S,
    ) -> CommandAnswer:
        """Have an activity that waits fall due at `at` instead, an aware time; at once if that is
        over.

        A like comes later than that where the cap on likes of its post would be broken. Raises
        `NotFoundError`.
        """
        more = self._words(reason)
        seconds("wait_s", wait_s)
        a_moment("at", at)
        (name,) = _ids([activity_id])
        return await to_activities(
            self._stores, "reschedule", [name], wait_s, times={name: at}, **more
        )

    async def shift_post(
        self,
        post_id: str,
        by: timedelta,
        *,
        reason: str | None = None,
        wait_s: float = CONTROL_WAIT_S,
    ) -> CommandAnswer:
        """Have all that waits of a post fall due so much later, as far apart as it was.

        Raises `NotFoundError` where nothing is planned for the post.
        """
        more = self._words(reason)
        an_id("post_id", post_id)
        seconds("wait_s", wait_s)
        shift_ms = a_shift("by", by) // timedelta(milliseconds=1)
        return await to_post(self._stores, "reschedule", post_id, wait_s, shift_ms=shift_ms, **more)

    async def pause(
        self,
        *,
        pod_id: str | None = None,
        member_id: str | None = None,
        reason: str | None = None,
        wait_s: float = CONTROL_WAIT_S,
    ) -> CommandAnswer:
        """Let nothing of a pod or a member fire, or nothing at all, until `resume`.

        What waits keeps its place, what comes is planned. It costs the same, whatever waits.
        """
        return await self._to_all("pause", pod_id, member_id, wait_s, self._words(reason))

    async def resume(
        self,
        *,
        pod_id: str | None = None,
        member_id: str | None = None,
        reason: str | None = None,
        wait_s: float = CONTROL_WAIT_S,
    ) -> CommandAnswer:
        """Take a `pause` back. What has fallen due meanwhile follows the policy for what is overdue
        (docs/configuration.md); without one it fires at once."""
        return await self._to_all("resume", pod_id, member_id, wait_s, self._words(reason))

    async def opt_out(
        self, member_id: str, *, reason: str | None = None, wait_s: float = CONTROL_WAIT_S
    ) -> CommandAnswer:
        """Have a member do nothing any more: what waits is cancelled, and what comes is skipped, as
        cancelled from the beginning, with the reason on record."""
        return await self._to_all("opt_out", None, member_id, wait_s, self._words(reason))

    async def opt_in(
        self, member_id: str, *, reason: str | None = None, wait_s: float = CONTROL_WAIT_S
    ) -> CommandAnswer:
        """Take an `opt_out` back, for posts that come from now on."""
        return await self._to_all("opt_in", None, member_id, wait_s, self._words(reason))

    async def drain_dispatcher(
        self, instance_id: str, *, reason: str | None = None, wait_s: float = CONTROL_WAIT_S
    ) -> CommandAnswer:
        """Have the dispatcher of this `POD_AUTOMATION_INSTANCE_ID` give its shards to the others,
        in order, and take none, also after a restart, until `undrain_dispatcher`.

        For maintenance of its host. It hears of it within a second; nothing is late by it while
        others run.
        """
        return await self._to_process("drain", instance_id, reason, wait_s)

    async def undrain_dispatcher(
        self, instance_id: str, *, reason: str | None = None, wait_s: float = CONTROL_WAIT_S
    ) -> CommandAnswer:
        """Let it have shards again."""
        return await self._to_process("undrain", instance_id, reason, wait_s)

    async def forget_member(
        self,
        member_id: str,
        *,
        opt_out_too: bool = False,
        reason: str | None = None,
        wait_s: float = CONTROL_WAIT_S,
    ) -> ForgottenMember:
        """Erase a member from the record, and keep the counts: a name of chance takes its place.

        The member is opted out first, so nothing new comes. What is being carried out at the moment
        must come to its end: until then nothing is erased, and `unfinished` says how much it is.
        The opt-out itself stays with the member's id, or upstream's next event would have it
        planned again; with `opt_out_too` it goes as well. What Kafka holds is Kafka's to forget.
        That it was done stays on record under the new name, with `reason`, which must not name the
        member.
        """
        words = self._words(reason)
        an_id("member_id", member_id)
        if re.search(rf"(?<!\w){re.escape(member_id)}(?!\w)", reason or ""):
            raise InvalidArgumentError("reason is kept, so it must not name the member")
        await self.opt_out(member_id, reason=reason, wait_s=wait_s)
        name = f"forgotten-{secrets.token_hex(8)}"
        unfinished, activities = await self._stores.record(
            lambda record: record.forget_member(member_id, name, opt_out_too=opt_out_too, **words)
        )
        return ForgottenMember(
            unfinished=unfinished, activities=activities, name=None if unfinished else name
        )

    async def set_quiet_hours(
        self,
        start: str,
        end: str,
        zone: str,
        *,
        pod_id: str | None = None,
        member_id: str | None = None,
        reason: str | None = None,
        wait_s: float = CONTROL_WAIT_S,
    ) -> CommandAnswer:
        """Let nothing of a pod or a member fall due from `start` until `end` (`22:00`, `07:30`) by
        the clocks of `zone` (`Europe/Berlin`), every day.

        What waits is moved at once, what comes is planned so: quiet hours do not count as delay, so
        all of a pod keeps its order, and the cap on likes is kept. At most 20 hours.
        """
        more = self._words(reason) | {
            "quiet_from": a_text("start", start),
            "quiet_until": a_text("end", end),
            "time_zone": a_text("zone", zone),
        }
        self._one(pod_id, member_id)
        return await self._to_all("quiet_hours", pod_id, member_id, wait_s, more)

    async def clear_quiet_hours(
        self,
        *,
        pod_id: str | None = None,
        member_id: str | None = None,
        reason: str | None = None,
        wait_s: float = CONTROL_WAIT_S,
    ) -> CommandAnswer:
        """Have no quiet hours any more, for what is planned from now on."""
        self._one(pod_id, member_id)
        return await self._to_all("quiet_hours", pod_id, member_id, wait_s, self._words(reason))

    async def set_policy(
        self,
        pod_id: str,
        *,
        like_min_delay_ms: int | None = None,
        like_max_delay_ms: int | None = None,
        like_jitter: float | None = None,
        comment_min_delay_ms: int | None = None,
        comment_max_delay_ms: int | None = None,
        comment_jitter: float | None = None,
        like_cap: int | None = None,
        like_cap_window_ms: int | None = None,
        reason: str | None = None,
        wait_s: float = CONTROL_WAIT_S,
    ) -> CommandAnswer:
        """Plan the posts of a pod by these from now on, and by the settings where nothing is given;
        it takes the place of what the pod had. The ends of a window are given together. What is
        planned stays."""
        fields = {
            "like_min_delay_ms": like_min_delay_ms,
            "like_max_delay_ms": like_max_delay_ms,
            "like_jitter": like_jitter,
            "comment_min_delay_ms": comment_min_delay_ms,
            "comment_max_delay_ms": comment_max_delay_ms,
            "comment_jitter": comment_jitter,
            "like_cap": like_cap,
            "like_cap_window_ms": like_cap_window_ms,
        }
        given = {name: value for name, value in fields.items() if value is not None}
        if not given:
            raise InvalidArgumentError("give something of a policy; clear_policy takes it back")
        return await self._to_all("policy", pod_id, None, wait_s, self._words(reason) | given)

    async def clear_policy(
        self, pod_id: str, *, reason: str | None = None, wait_s: float = CONTROL_WAIT_S
    ) -> CommandAnswer:
        """Plan the posts of a pod by the settings again."""
        return await self._to_all("policy", pod_id, None, wait_s, self._words(reason))

    async def set_daily_cap(
        self,
        member_id: str,
        cap: int,
        *,
        reason: str | None = None,
        wait_s: float = CONTROL_WAIT_S,
    ) -> CommandAnswer:
        """Plan at most `cap` engagements of a member to fall due in any 24 hours, over all pods.

        What would be one too many comes later. It counts what is planned and what was sent; what is
        planned stays. It holds for posts that come, and rows that are scheduled, from now on.
        """
        a_number("cap", cap, 1, MAX_DAILY_CAP)
        return await self._to_all(
            "daily_cap", None, member_id, wait_s, self._words(reason) | {"daily_cap": cap}
        )

    async def clear_daily_cap(
        self, member_id: str, *, reason: str | None = None, wait_s: float = CONTROL_WAIT_S
    ) -> CommandAnswer:
        """Have no daily cap any more, for posts that come from now on."""
        return await self._to_all("daily_cap", None, member_id, wait_s, self._words(reason))

    async def get_activities(
        self,
        *,
        pod_id: str | None = None,
        post_id: str | None = None,
        member_id: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> ActivityPage:
        """Activities of a pod, a post or a member, one of which is to be given, those that are due
        last first. `after` is the `next` of the page before. Needs PostgreSQL."""
        given = {"pod": pod_id, "post": post_id, "member": member_id}
        chosen = {scope: name for scope, name in given.items() if name is not None}
        if len(chosen) != 1:
            raise InvalidArgumentError("give a pod, or a post, or a member")
        ((scope, name),) = chosen.items()
        an_id(f"{scope}_id", name)
        a_number("limit", limit, 1, MAX_PAGE)
        cursor = None if after is None else _cursor(after)
        found = await self._stores.record(
            lambda record: record.activities(scope, name, limit + 1, cursor)
        )
        entries = tuple(
            msgspec.convert(each, ActivityEntry, from_attributes=True) for each in found[:limit]
        )
        last = entries[-1] if len(found) > limit else None
        return ActivityPage(activities=entries, next=None if last is None else _after(last))

    async def get_pods(self, *, limit: int = 100, after: str | None = None) -> PodPage:
        """Ids of all pods that have activities, in order of their bytes. Needs PostgreSQL."""
        a_number("limit", limit, 1, MAX_PAGE)
        if after is not None:
            an_id("after", after)
        found = await self._stores.record(lambda record: record.pods(limit + 1, after))
        pods = tuple(found[:limit])
        return PodPage(pods=pods, next=pods[-1] if len(found) > limit else None)

    async def get_controls(
        self,
        *,
        kind: Kind | None = None,
        scope: Scope | None = None,
        subject: str | None = None,
        limit: int | None = None,
    ) -> list[ControlState]:
        """What holds: who is paused, who has opted out, quiet hours, policies of pods, daily caps;
        the oldest first. Where they are given, only of this kind, scope and subject, and so many
        at most."""
        if subject is not None:
            an_id("subject", subject)
        if limit is not None:
            a_number("limit", limit, 1)
        found = await self._stores.record(
            lambda record: record.controls(kind, scope, subject, limit)
        )
        return [msgspec.convert(each, ControlState, from_attributes=True) for each in found]

    async def get_activity_history(self, activity_id: str) -> ActivityHistory:
        """All that happened to an activity: planned by which event, changed by whom, sent, failed,
        done. Raises `NotFoundError`."""
        name = an_activity_id(activity_id)
        lives = await self._stores.record(lambda record: record.lives([name]))
        if not lives:
            raise NotFoundError(f"there is no activity {name}")
        return history(lives[0], self._stores.settings.topics)

    async def get_histories(
        self,
        *,
        pod_id: str | None = None,
        post_id: str | None = None,
        member_id: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> HistoryPage:
        """All that happened to the activities of a pod, a post or a member: pages as those of
        `get_activities`."""
        page = await self.get_activities(
            pod_id=pod_id, post_id=post_id, member_id=member_id, limit=limit, after=after
        )
        names = [each.activity_id for each in page.activities]
        lives = await self._stores.record(lambda record: record.lives(names))
        topics = self._stores.settings.topics
        return HistoryPage(histories=tuple(history(life, topics) for life in lives), next=page.next)

    async def get_audit(
        self, limit: int = 100, *, since: datetime | None = None, reports: bool = False
    ) -> list[AuditEntry]:
        """The last commands that were applied, the newest first: who, what, when, why, and what
        came of it. With `reports` also those of dispatchers, about overdue timers."""
        a_number("limit", limit, 1, MAX_AUDIT)
        if since is not None:
            a_moment("since", since)
        found = await self._stores.record(
            lambda record: record.audit(limit, since=since, reports=reports)
        )
        return [msgspec.convert(each, AuditEntry, from_attributes=True) for each in found]

    async def _to_process(
        self, command: CommandName, instance_id: str, reason: str | None, wait_s: float
    ) -> CommandAnswer:
        more = self._words(reason) | {"instance_id": an_id("instance_id", instance_id)}
        seconds("wait_s", wait_s)
        return await to_shards(self._stores, command, [PROCESSES], wait_s, **more)

    async def _to_all(
        self,
        command: CommandName,
        pod_id: str | None,
        member_id: str | None,
        wait_s: float,
        more: dict[str, Any],
    ) -> CommandAnswer:
        if pod_id is not None and member_id is not None:
            raise InvalidArgumentError("give a pod or a member, not both")
        if pod_id is not None:
            more["pod_id"] = an_id("pod_id", pod_id)
        if member_id is not None:
            more["member_id"] = an_id("member_id", member_id)
        seconds("wait_s", wait_s)
        shards = range(self._stores.settings.partitions)
        return await to_shards(self._stores, command, shards, wait_s, **more)

    @staticmethod
    def _one(pod_id: str | None, member_id: str | None) -> None:
        if (pod_id is None) == (member_id is None):
            raise InvalidArgumentError("give a pod or a member")

    def _words(self, reason: str | None) -> dict[str, Any]:
        if reason is not None and len(a_text("reason", reason)) > MAX_ID_CHARS:
            raise InvalidArgumentError(f"reason must be a text of up to {MAX_ID_CHARS} characters")
        return {"actor": self._actor, "reason": reason or None}


def _ids(activity_ids: Iterable[str]) -> list[str]:
    if isinstance(activity_ids, str) or not isinstance(activity_ids, Iterable):
        raise InvalidArgumentError("activities must be several: put a single one into a list")
    ids = list(dict.fromkeys(map(an_activity_id, activity_ids)))
    if not 1 <= len(ids) <= MAX_ACTIVITIES:
        raise InvalidArgumentError(f"give from 1 to {MAX_ACTIVITIES:,} activities")
    return ids


def _after(last: ActivityEntry) -> str:
    due: object = ""
    if last.scheduled_for is not None:
        due = (last.scheduled_for - _EPOCH) // timedelta(microseconds=1)
    return f"{due}_{last.activity_id}"


def _cursor(after: str) -> tuple[int | None, str]:
    due, _, name = a_text("after", after).partition("_")
    try:
        at = int(due) if due else None
        if at is not None and not 0 <= at // 1000 <= LATEST_MS:
            raise ValueError
        return at, str(UUID(name))
    except ValueError:
        raise InvalidArgumentError("after must be the next of the page before") from None
