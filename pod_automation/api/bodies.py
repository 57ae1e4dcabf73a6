"""What requests carry, checked before anything is asked of a store."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from schemas.events import MAX_ID_CHARS, MAX_MEMBERS, MAX_SHIFT_MS

# As in the contract (schemas.events.Id).
Id = Annotated[
    str, Field(min_length=1, max_length=MAX_ID_CHARS, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")
]
_ClockTime = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
_HEX = "[0-9A-Fa-f]"
ActivityId = Annotated[
    str,
    StringConstraints(
        to_lower=True, pattern=f"^{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}$"
    ),
]
Reason = Annotated[str, Field(max_length=MAX_ID_CHARS, description="Why: kept on record.")]
Wait = Annotated[float, Field(ge=0, le=60, description="How long to wait for workers, in seconds.")]


MAX_FIELDS = 64
"""Of a body. Each that is not known is an error of its own, and a body may hold 100,000."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _few(cls, value: Any) -> Any:
        if isinstance(value, dict) and len(value) > MAX_FIELDS:
            raise ValueError(f"a body has {MAX_FIELDS} fields at most")
        return value


class _Command(_Body):
    reason: Reason | None = None
    wait_s: Wait = 15.0


class Cancel(_Command):
    """Cancel activities, or all that waits of a post, a member or a pod: give one of them."""

    activity_ids: Annotated[list[ActivityId], Field(min_length=1, max_length=1000)] | None = None
    post_id: Id | None = None
    member_id: Id | None = None
    pod_id: Id | None = None

    @model_validator(mode="after")
    def _one(self) -> "Cancel":
        given = [self.activity_ids, self.post_id, self.member_id, self.pod_id]
        if sum(each is not None for each in given) != 1:
            raise ValueError("give activity_ids, or post_id, or member_id, or pod_id")
        return self


class Reschedule(_Command):
    """Move one activity to a time, or all that waits of a post by so many milliseconds."""

    activity_id: ActivityId | None = None
    at: AwareDatetime | None = None
    post_id: Id | None = None
    by_ms: Annotated[int, Field(ge=0, le=MAX_SHIFT_MS)] | None = None

    @model_validator(mode="after")
    def _one(self) -> "Reschedule":
        one = self.activity_id is not None and self.at is not None
        rest = self.post_id is not None and self.by_ms is not None
        given = (self.activity_id, self.at, self.post_id, self.by_ms)
        if one == rest or sum(each is not None for each in given) != 2:
            raise ValueError("give activity_id and at, or post_id and by_ms")
        return self


class Stop(_Command):
    """Whom it is about: a pod, or a member, or with `everybody` all there is."""

    pod_id: Id | None = None
    member_id: Id | None = None
    everybody: bool = False

    @model_validator(mode="after")
    def _one(self) -> "Stop":
        if (self.pod_id is not None) + (self.member_id is not None) + self.everybody != 1:
            raise ValueError("give pod_id, or member_id, or everybody")
        return self


class Quiet(_Command):
    """Quiet hours of a pod or a member; without `from`, `until` and `zone` there are none any
    more."""

    pod_id: Id | None = None
    member_id: Id | None = None
    start: _ClockTime | None = Field(default=None, alias="from")
    end: _ClockTime | None = Field(default=None, alias="until")
    zone: Annotated[str, Field(min_length=1, max_length=64)] | None = None

    @model_validator(mode="after")
    def _whole(self) -> "Quiet":
        if (self.pod_id is None) == (self.member_id is None):
            raise ValueError("give pod_id or member_id")
        if len({each is None for each in (self.start, self.end, self.zone)}) > 1:
            raise ValueError("give from, until and zone, or none of them")
        return self


class Policy(_Command):
    """A pod's own policy; without anything of it the pod is planned by the settings again."""

    pod_id: Id
    like_min_delay_ms: Annotated[int, Field(ge=0, le=MAX_SHIFT_MS)] | None = None
    like_max_delay_ms: Annotated[int, Field(ge=0, le=MAX_SHIFT_MS)] | None = None
    like_jitter: Annotated[float, Field(ge=0, lt=1)] | None = None
    comment_min_delay_ms: Annotated[int, Field(ge=0, le=MAX_SHIFT_MS)] | None = None
    comment_max_delay_ms: Annotated[int, Field(ge=0, le=MAX_SHIFT_MS)] | None = None
    comment_jitter: Annotated[float, Field(ge=0, lt=1)] | None = None
    like_cap: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    like_cap_window_ms: Annotated[int, Field(ge=1, le=MAX_SHIFT_MS)] | None = None

    def own(self) -> dict[str, Any]:
        """What of it is given."""
        return self.model_dump(exclude_none=True, exclude={"pod_id", "reason", "wait_s"})


class DailyCap(_Command):
    """How many engagements of a member may be planned for any 24 hours; null: any number."""

    member_id: Id
    cap: Annotated[int, Field(ge=1, le=100_000)] | None = None


class Member(_Command):
    """The member it is about."""

    member_id: Id


class Forget(_Command):
    """The member to forget. `reason` is kept, and must not name the member."""

    member_id: Id
    opt_out_too: bool = Field(
        default=False, description="Also the opt-out: the next event that names the member counts."
    )


class Dispatcher(_Command):
    """The dispatcher it is about, by its POD_AUTOMATION_INSTANCE_ID."""

    instance_id: Id


class Replay(_Body):
    """The dead letters that are to be sent through the normal door again, by their ids."""

    ids: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=600)]],
        Field(min_length=1, max_length=200),
    ]
    again: bool = Field(default=False, description="Also those that were replayed before.")
    reason: Reason | None = None


class Post(_Body):
    """A post-detected event (docs/events.md)."""

    event_id: Annotated[
        str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")
    ]
    pod_id: Id
    post_id: Id
    member_ids: Annotated[list[Id], Field(max_length=MAX_MEMBERS)]
    detected_at: AwareDatetime
    author_id: Id | None = None
    engagement_types: Annotated[list[Literal["like", "comment"]], Field(max_length=16)] | None = (
        None
    )
    post_url: Annotated[str, Field(max_length=4096)] | None = None

    def event(self) -> dict[str, object]:
        """Its fields, without those that are not given."""
        fields = self.model_dump(exclude_none=True)
        detected_at: datetime = fields["detected_at"]
        return fields | {"detected_at": detected_at.isoformat()}
